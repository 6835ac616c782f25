"""Problem sets in files of your own: JSON lines, JSON or CSV, checked row by row."""

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from mgrpo_lib.tasks.schema import in_schema

FILE_KINDS = (".jsonl", ".json", ".csv")  # in any case of letters
PACKED = {b"\x1f\x8b": "gz", b"PK\x03\x04": "zip", b"BZh": "bz2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zst"}
BLANK = "\ufeff \t\r\n"  # around the name of a column: some programs write a mark of byte order
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]

# Control characters and halves of a character; and what JSON makes of a TeX command with one backslash: \frac, \text, \neq, \rho
CONTROL = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]|\r(?!\n)"
    r"|\t(?=(?:ext(?:bf|it|rm|tt)?|imes|heta|an|anh|au|frac|o|op|riangle|ilde|herefore)(?![a-z]))"
    r"|\n(?=(?:eq|abla|ot|otin|leq|geq)(?![a-z]))"
)
SHORT = re.compile(
    r"[\t\r](?=[a-z])|\n(?=[eiu](?![a-z]))"
)  # the same in an answer, which has no lines that begin so: \nu, \ni


class Row(BaseModel):
    """A row of a file: text, none of it empty. Other columns are ignored."""

    model_config = ConfigDict(strict=True)
    question: Text
    answer: Text
    id: Text | None = None
    solution: Text | None = None


def check_file(path: Path) -> None:
    """Refuse what is no file of a known kind.

    Raises:
        ValueError: says what it is, and what to give instead.
    """
    kinds = ", ".join(FILE_KINDS)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the path of a {kinds} file in it")
    if path.suffix.lower().removeprefix(".") in {*PACKED.values(), "bz", "tgz", "tar"}:
        raise ValueError(f"{path.name} is packed; unpack it, and give the path of the {kinds} file")
    if path.suffix.lower() not in FILE_KINDS:
        raise ValueError(f"{path.name} is not a {kinds} file; save it as one, with columns question and answer")
    if not path.is_file():
        raise ValueError(f"there is no file {path}")


def load_file(path: str | Path) -> list[dict]:
    """Read a file of your own as rows of ``question, answer, id, source``, some with ``solution``.

    Args:
        path: JSON lines (``.jsonl``), a JSON list of objects (``.json``), or ``.csv`` with commas and a header, in UTF-8. It
            needs the columns ``question`` and ``answer``; ``id``, and ``solution`` for the warm-up, are optional. Numbers stay
            as they are written.

    Raises:
        ValueError: the file or one of its rows cannot be used; the message names the line or row and the fix.
    """
    path = Path(path)
    check_file(path)
    kind = path.suffix.lower()
    parse = {".jsonl": _json_lines, ".json": _json_list, ".csv": _csv_rows}[kind]
    try:
        text = _text(path)
        rows = [_checked(place, row, kind) for place, row in parse(text)] if text.strip() else []
    except (ValueError, csv.Error, OSError) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from None
    if not rows:
        raise ValueError(f"{path.name} has no rows; write one for each problem, with question and answer")
    return in_schema(rows, path.stem, path.name)


def _text(path: Path) -> str:
    """Read a text file in UTF-8, whatever ends its lines."""
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        packed = next((kind for sign, kind in PACKED.items() if content.startswith(sign)), None)
        what = (
            f"it is a {packed} file; unpack it, or save a workbook as CSV" if packed else f"{error}; save it as UTF-8"
        )
        raise ValueError(what) from None


def _checked(place: str, row: Any, kind: str) -> dict[str, str]:
    """Check one row; an empty id or solution counts as none."""
    if not isinstance(row, dict):
        raise ValueError(f"{place} is no object with question and answer; write one as {{...}}")
    row = {key.strip(BLANK): value for key, value in row.items()}
    given = {key: value for key, value in row.items() if value is not None and str(value).strip()}
    texts = {column: str(given.get(column, "")) for column in ("question", "answer", "solution")}
    found = {column: CONTROL.search(text) for column, text in texts.items()}
    if kind != ".csv" and "####" not in texts["answer"]:
        found["answer"] = found["answer"] or SHORT.search(texts["answer"])
    for column, odd in found.items():
        if odd:
            fix = "write commands with their backslash" if kind == ".csv" else "write a backslash twice"
            sign = "\\" if kind == ".csv" else "\\\\"
            raise ValueError(f"{place}: {column} holds the control character {odd[0]!r}; {fix}: {sign}frac")
    try:
        return Row.model_validate(given).model_dump(exclude_none=True)
    except ValidationError as error:
        column = str(error.errors()[0]["loc"][0])
    if column in given:
        raise ValueError(f"{place}: {column} is {given[column]!r}; write it as text or a number")
    if column in row:
        raise ValueError(f"{place}: {column} is empty; fill it in or leave the row out")
    raise ValueError(
        f"{place}: no column {column!r}; it has {', '.join(row)}, and needs question and answer: rename them"
    )


def _json(text: str) -> Any:
    """Parse JSON, with numbers as they are written; NaN, which pandas writes for an empty cell, becomes none.

    Raises:
        ValueError: with the place and the fix.
    """
    how = {"parse_int": str, "parse_float": str, "parse_constant": lambda name: None if name == "NaN" else name}
    try:
        return json.loads(text.lstrip(BLANK), **how)
    except json.JSONDecodeError as error:
        fix = "; write a backslash twice: \\\\sqrt" if "escape" in error.msg else ""
        raise ValueError(f"broken JSON: {error}{fix}") from None


def _json_lines(text: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip(BLANK):
            try:
                yield f"line {number}", _json(line)
            except ValueError as error:
                raise ValueError(f"line {number} is {error}") from None


def _json_list(text: str) -> Iterator[tuple[str, Any]]:
    content = _json(text)
    if not isinstance(content, list):
        raise ValueError("it is not a list of objects; for one object a line, call the file .jsonl")
    for number, row in enumerate(content, 1):
        yield f"row {number}", row


def _csv_rows(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Read CSV rows; refuse one that does not fit its columns, since an unquoted comma would shift the answer."""
    blanks = re.search(r',[ \t]+"', text) is not None  # before a quoted cell; it would count as a text with quotes
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=blanks)
    columns = [name.strip(BLANK) for name in next(filter(None, reader))]
    if excel := re.match(r'"?sep=(.)', text):
        commas = "" if excel[1] == "," else f", and save it with commas in place of {excel[1]!r}"
        raise ValueError(f"its first line is Excel's {excel[0]!r}; delete that line{commas}")
    separator = re.search(r"[;\t|]", columns[0]) if len(columns) == 1 else None
    if separator:
        raise ValueError(f"its columns are separated by {separator[0]!r}; save it with commas")
    while columns and not columns[-1]:  # spreadsheets write empty cells at the end
        columns.pop()
    if "" in columns:
        raise ValueError(
            f"column {columns.index('') + 1} of {len(columns)} has no name; name it, or leave it out (pandas: index=False)"
        )
    if twice := [name for name in columns if columns.count(name) > 1]:
        raise ValueError(f"two columns are called {twice[0]!r}; rename one")
    for cells in reader:
        place, more = f"line {reader.line_num}", cells[len(columns) :]
        if not cells:
            continue
        if "".join(more).strip() or len(cells) < len(columns):
            raise ValueError(
                f"{place} has the cells {[cell for cell in cells if cell]}, and the columns are {', '.join(columns)}; put a text "
                "with a comma into double quotes, and fill in what is missing"
            )
        yield place, dict(zip(columns, cells, strict=False))
