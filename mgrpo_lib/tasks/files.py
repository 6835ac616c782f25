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
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class Row(BaseModel):
    """A row of a file: text, none of it empty. Other columns are ignored."""

    model_config = ConfigDict(strict=True)
    question: Text
    answer: Text
    id: Text | None = None
    solution: Text | None = None


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
    kind = path.suffix.lower()
    if kind not in FILE_KINDS:
        raise ValueError(f"{path.name} is not a {', '.join(FILE_KINDS)} file")
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    parse = {".jsonl": _json_lines, ".json": _json_list, ".csv": _csv_rows}[kind]
    try:
        rows = [_checked(place, row) for place, row in parse(path.read_text(encoding="utf-8-sig"))]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} cannot be read: {error}; save it as UTF-8") from None
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from None
    if not rows:
        raise ValueError(f"{path.name} has no rows")
    return in_schema(rows, path.stem, path.name)


def _checked(place: str, row: Any) -> dict[str, str]:
    """Check one row; an empty id or solution counts as none."""
    if not isinstance(row, dict):
        raise ValueError(f"{place} is no object with question and answer; write one as {{...}}")
    given = {key: value for key, value in row.items() if value is not None and str(value).strip()}
    for column in ("question", "answer", "solution"):
        if found := CONTROL.search(str(given.get(column, ""))):  # JSON reads the command \frac with one backslash so
            raise ValueError(
                f"{place}: {column} holds the control character {found[0]!r}; write a backslash twice: \\\\frac"
            )
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
    """Parse JSON, with numbers as they are written; NaN, which pandas writes for an empty cell, becomes none."""
    return json.loads(text, parse_int=str, parse_float=str, parse_constant=lambda name: None if name == "NaN" else name)


def _json_lines(text: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield f"line {number}", _json(line)
            except ValueError as error:
                raise ValueError(f"line {number} is broken JSON: {error}") from None


def _json_list(text: str) -> Iterator[tuple[str, Any]]:
    content = _json(text)
    if not isinstance(content, list):
        raise ValueError("it is not a list of objects; for one object a line, call the file .jsonl")
    for number, row in enumerate(content, 1):
        yield f"row {number}", row


def _csv_rows(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Read CSV rows; refuse one that does not fit its columns, since an unquoted comma would shift the answer."""
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    reader.fieldnames = columns = [name.strip() for name in reader.fieldnames or []]
    separator = re.search(r"[;\t|]", columns[0]) if len(columns) == 1 else None
    if separator:
        raise ValueError(f"its columns are separated by {separator[0]!r}; save it with commas")
    for row in reader:
        place = f"line {reader.line_num}"
        unnamed = [row.pop("", None) or "", *row.pop(None, [])]  # spreadsheets write empty cells at the end
        if "".join(unnamed).strip() or None in row.values():
            cells = [cell for cell in [*row.values(), *unnamed] if cell]
            raise ValueError(
                f"{place} has the cells {cells}, and the columns are {', '.join(columns)}; put a text with a comma into "
                "double quotes, and fill in what is missing"
            )
        yield place, row
