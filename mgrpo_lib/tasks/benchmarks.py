"""The real benchmarks: readers of their rows, checks against ``benchmarks.yaml``, and their known flaws.

No benchmark text is shipped. A set comes from the Hub at a pinned revision, or from a folder of JSON lines with the Hub's
field names. Both give the same rows, checked by a hash, and an altered set is refused.

OlympiadBench is the text-only, open-ended, English, mathematical part of its first release: 675 problems, as most papers use
it. Its authors withdrew one, so the Hub's copy has 674; only that number is checked there. Flawed rows stay in a test set,
since without them it would be another benchmark.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from pydantic import BaseModel, ConfigDict

from mgrpo_lib.tasks.files import FILE_KINDS, load_file
from mgrpo_lib.tasks.names import nearest
from mgrpo_lib.tasks.schema import content_hash, in_schema

if TYPE_CHECKING:
    from datasets import Dataset

OWN_FILE = "or name a file of your own, with columns question and answer, as train_data or in benchmarks"


# ------------------------------------------------------------------------------------------------------- the table
class Split(BaseModel):
    """A split of a benchmark; ``benchmarks.yaml`` describes the fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    files: dict[str, tuple[int, str]]
    content: str
    hub_split: str
    hub_rows: int | None = None


class Benchmark(BaseModel):
    """A row of ``benchmarks.yaml``, which describes the fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    hub: str
    configs: tuple[str | None, ...] = (None,)
    revision: str
    licence: str
    splits: dict[str, Split]
    flaws: dict[str, str] = {}


_TABLE = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
SETS = {name: Benchmark(**entry) for name, entry in _TABLE.items()}
TRAINING_SETS = [name for name, one in SETS.items() if "train" in one.splits]


def identity(name: str, split: str, from_hub: bool) -> str:
    """Return what keys of results know a set by: its content, or its revision for a Hub copy that is known to differ."""
    part = SETS[name].splits[split]
    return f"{SETS[name].hub}@{SETS[name].revision}" if from_hub and part.hub_rows else part.content


# ------------------------------------------------------------------------------------------------------- rows
def last_boxed(solution: str) -> str:
    r"""Return the content of a solution's last ``\boxed``; empty without one.

    >>> last_boxed(r"$\boxed{1}$, no, $\boxed{\left\{\frac{1}{2}\right\}}$."), last_boxed(r"so $x = \boxed 2$.")
    ('\\left\\{\\frac{1}{2}\\right\\}', '2')
    """
    _, box, rest = solution.rpartition("\\boxed")
    rest = rest.lstrip()
    if not box or not rest.startswith("{"):  # as in TeX: without braces the next character, or command, is boxed
        token = re.match(r"\\[A-Za-z]+|[^\s$]", rest) if box else None
        return token[0] if token else ""
    depth = 0
    for mark in re.finditer(r"\\.|[{}]", rest, re.DOTALL):  # \{ is a sign, not a bracket
        depth += (mark[0] == "{") - (mark[0] == "}")
        if depth == 0:
            return rest[1 : mark.start()].strip()
    return ""


def _number(value: str | float) -> str:
    return str(value).strip().removesuffix(".0")


# a row as the benchmark has it, as question, answer and, if it has one, id
_READ = {
    "gsm8k": lambda raw: {"question": raw["question"], "answer": raw["answer"].rpartition("####")[2].replace(",", "")},
    "math500": lambda raw: {"question": raw["problem"], "answer": raw["answer"], "id": raw["unique_id"]},
    "math": lambda raw: {"question": raw["problem"], "answer": last_boxed(raw["solution"])},
    "minerva_math": lambda raw: {"question": raw["question"], "answer": raw["answer"]},
    "olympiadbench": lambda raw: {
        "question": raw["question"],
        "answer": ", ".join(raw["final_answer"]),
        "id": raw["id"],
    },
    "svamp": lambda raw: {
        "question": f"{raw['Body'].strip()} {raw['Question'].strip()}",
        "answer": _number(raw["Answer"]),
        "id": raw["ID"],
    },
    "multiarith": lambda raw: {"question": raw["question"], "answer": _number(raw["final_ans"])},
}

_HAS_FLAW = {
    "empty_gold": lambda raw: not last_boxed(raw["solution"]),
    "box_without_braces": lambda raw: bool(re.match(r"\s*[^\s{]", raw["solution"].rpartition("\\boxed")[2])),
    "e_notation": lambda raw: bool(re.search(r"\de[+-]?\d", raw["answer"])),
    "numpy_call": lambda raw: "np." in raw["answer"],
    # a relay's later problems ask for "the number you will receive", which is not printed
    "not_solvable": lambda raw: bool(re.search(r"T ?= ?T N Y W R|you (will )?receive from position", raw["question"])),
    "wrong_gold": lambda raw: raw["id"] == 2275,
    "several_answers": lambda raw: raw["is_multiple_answer"],
    "unit_missing": lambda raw: bool(raw["unit"]),
    "error_allowed": lambda raw: bool(raw["error"]),
}


# ------------------------------------------------------------------------------------------------------- loading
def load_benchmark(name_or_path: str | Path, split: str = "test", data_dir: str | Path | None = None) -> "Dataset":
    """Load a real benchmark, or a file of your own, as a `datasets.Dataset`.

    No benchmark text is shipped: it comes from the Hub, or from files that you have.

    Args:
        name_or_path: ``gsm8k, math500, math, minerva_math, olympiadbench, svamp, multiarith``, or the path of a ``.jsonl``,
            ``.json`` or ``.csv`` file (see `mgrpo_lib.tasks.files.load_file`).
        split: ``test``; ``gsm8k`` and ``math`` have ``train`` too. A file of your own is read whole.
        data_dir: folder with the files listed in ``mgrpo_lib/tasks/benchmarks.yaml``. None: the Hub, at the pinned revision.

    Returns:
        Rows in their own order, all text: question, answer, id, source. A file's solutions are kept.

    Raises:
        ValueError: unknown name or split, rows that are not those of the table, or a file with unusable rows.
        FileNotFoundError: a benchmark's file is missing in `data_dir`.
        ConnectionError: the Hub cannot be reached.
    """
    import datasets  # takes seconds

    own = Path(name_or_path).suffix.lower() in FILE_KINDS
    rows = load_file(name_or_path) if own else read_benchmark(str(name_or_path), split, data_dir)
    columns = dict.fromkeys(key for row in rows for key in row)  # a solution may be missing in some rows
    return datasets.Dataset.from_dict({key: [row.get(key) for row in rows] for key in columns})


def read_benchmark(name: str, split: str, data_dir: str | Path | None) -> list[dict]:
    """Read a benchmark as a list of rows, without those that have no gold; see `load_benchmark`."""
    if name not in SETS:
        raise ValueError(f"unknown benchmark {name!r}; {nearest(name, list(SETS))}")
    if split not in SETS[name].splits:
        raise ValueError(f"{name} has no split {split!r}; it has {' and '.join(SETS[name].splits)}")
    return [row for _, row in _rows(name, split, data_dir) if row["answer"]]


def known_flaws(name: str, split: str, data_dir: str | Path | None) -> dict[str, list[str]]:
    """Return the ids of the rows that have each known flaw."""
    rows = list(_rows(name, split, data_dir))
    return {text: [row["id"] for raw, row in rows if _HAS_FLAW[flaw](raw)] for flaw, text in SETS[name].flaws.items()}


def _rows(name: str, split: str, data_dir: str | Path | None) -> Iterator[tuple[dict, dict]]:
    """Return every row, raw and in the schema, including those with an empty gold."""
    one, part = SETS[name], SETS[name].splits[split]
    raw = _from_hub(one, part) if data_dir is None else _from_files(part, Path(data_dir).expanduser())
    rows = in_schema(map(_READ[name], raw), name, f"{name}/{split}")
    found, hub_rows = content_hash(rows), part.hub_rows if data_dir is None else None
    if found != part.content and hub_rows != len(rows):
        expected = hub_rows or sum(rows for rows, _ in part.files.values())
        raise ValueError(
            f"{name}/{split} of {one.hub} on the hub is not the set that this version knows: expected {expected} rows with "
            f"content {part.content}, found {len(rows)} rows with content {found}; clear the hub's cache and load it "
            f"again, set data_dir to a folder with {', '.join(part.files)}, {OWN_FILE}"
        )
    return zip(raw, rows, strict=True)


def _from_files(part: Split, folder: Path) -> list[dict]:
    rows = []
    for path, (expected, sha256) in part.files.items():
        file = folder / path
        if not file.exists():
            raise FileNotFoundError(
                f"{file} does not exist; download it, leave data_dir empty to use the hub, {OWN_FILE}"
            )
        content = file.read_bytes()
        lines, found = content.splitlines(), hashlib.sha256(content).hexdigest()
        if found != sha256:
            raise ValueError(
                f"{file} is truncated or altered: expected {expected} rows with sha256 {sha256[:16]}..., found "
                f"{len(lines)} rows with sha256 {found[:16]}...; download it again, {OWN_FILE}"
            )
        rows += map(json.loads, lines)
    return rows


def _from_hub(one: Benchmark, part: Split) -> list[dict]:
    import datasets  # takes seconds, and files do without

    try:
        parts = [datasets.load_dataset(one.hub, c, split=part.hub_split, revision=one.revision) for c in one.configs]
    except Exception as error:  # of many kinds, none of which says what to do without the Hub
        raise ConnectionError(
            f"{one.hub} could not be loaded from the hub ({type(error).__name__}: {error}); set data_dir to a folder with "
            f"{', '.join(part.files)}, {OWN_FILE}"
        ) from error
    return [dict(row) for part in parts for row in part]
