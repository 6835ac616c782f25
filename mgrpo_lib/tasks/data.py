"""Every data set in one schema, rows of ``question, answer, id, source`` (all text): the miniature's, the real benchmarks
(`mgrpo_lib.tasks.benchmarks`), and files of your own.

A training set is cleaned before anything is drawn from it: of questions that come twice, and of those that have 13 words
in a row in common with a test set of the experiment or with its own test split. Of what is left, the validation questions
are the first in an order that a hash of the question gives, and the training questions the next ones; so neither the
order of a file nor the number of training questions changes which question belongs where.
"""

import csv
import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

from mgrpo_lib.experiment.settings import FILE_KINDS, GENERATED, GENERATORS, Config, nearest
from mgrpo_lib.tasks import benchmarks
from mgrpo_lib.tasks.benchmarks import SCHEMA as SCHEMA  # what every function here returns rows of
from mgrpo_lib.tasks.benchmarks import SETS, in_schema

NGRAM = 13  # words; the length that GPT-3's authors took, and many since


# ------------------------------------------------------------------------------------------------------- single sets
def load_benchmark(name: str, split: str = "test", data_dir: str | Path | None = None) -> list[dict]:
    """All rows of a real benchmark as ``question, answer, id, source``, in their own order.

    Args:
        name: ``gsm8k, math500, math, minerva_math, olympiadbench, svamp`` or ``multiarith``.
        split: ``test``; ``gsm8k`` and ``math`` have ``train`` too.
        data_dir: a folder with the files that `mgrpo_lib.tasks.benchmarks.SETS` lists; None: the hub, at the revision there.

    Raises:
        ValueError: unknown name or split, or rows that are not those of the table: truncated, altered, another revision.
        FileNotFoundError: a file is missing in the folder.
        ConnectionError: the hub cannot be reached.
    """
    if name not in SETS:
        raise ValueError(f"unknown benchmark {name!r}; {nearest(name, list(SETS))}")
    if split not in SETS[name].splits:
        raise ValueError(f"{name} has no split {split!r}; it has {' and '.join(SETS[name].splits)}")
    return benchmarks.load(name, split, data_dir)


def load_file(path: str | Path) -> list[dict]:
    """The rows of a file of your own, as ``question, answer, id, source``.

    Args:
        path: JSON lines (``.jsonl``), a JSON list of objects (``.json``) or ``.csv`` with a header, in UTF-8, with
            columns ``question`` and ``answer`` and, if you like, ``id``, and ``solution`` for the warm-up.

    Raises:
        ValueError: what is wrong, in which row or line: no such file, not readable, no rows, a missing column, more
            cells than columns or none for a needed one, an empty or nested question or answer.
    """
    path = Path(path)
    if path.suffix.lower() not in FILE_KINDS:
        raise ValueError(f"{path.name} is not a {', '.join(FILE_KINDS)} file")
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        raw = _parse(path.suffix.lower(), path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} cannot be read: {error}; save it as UTF-8") from None
    except (ValueError, csv.Error) as error:  # of JSON or CSV
        raise ValueError(f"{path.name} cannot be read: {error}") from None
    if not raw:
        raise ValueError(f"{path.name} has no rows")
    rows = []
    for place, row in raw:
        for column in ("question", "answer"):
            if column not in row:
                raise ValueError(
                    f"{path.name}, {place}: no column {column!r}; it has {', '.join(row)}, and needs question and answer: "
                    "rename them"
                )
            value = row[column]
            if isinstance(value, dict | list | bool):
                raise ValueError(f"{path.name}, {place}: {column} is {value!r}; write it as text or a number")
            if value is None or not str(value).strip():
                raise ValueError(f"{path.name}, {place}: {column} is empty; fill it in or leave the row out")
        rows.append(
            {key: row[key] for key in ("question", "answer", "id", "solution") if row.get(key) not in (None, "")}
        )
    return in_schema(rows, path.stem, path.name)


def _parse(kind: str, text: str) -> list[tuple[str, dict[str, Any]]]:
    """The rows of a text, each with its place in words."""
    if kind == ".csv":
        return [(f"row {number}", row) for number, row in enumerate(_table(text), 1)]
    if kind == ".json":
        rows = [(f"row {number}", row) for number, row in enumerate(_items(_json(text)), 1)]
    else:
        rows = [(f"line {n}", _line(line, n)) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    for place, row in rows:
        if not isinstance(row, dict):
            raise ValueError(f"{place} is no object with question and answer")
    return rows


def _table(text: str) -> list[dict[str, str]]:
    """The rows of a CSV. With one cell too many, as of a comma without quotes, all behind it would be shifted; empty ones at the end,
    and columns after those that are needed, may be missing.
    """
    columns, *rows = [row for row in csv.reader(io.StringIO(text), strict=True) if row] or [[]]
    separator = re.search(r"[;\t|]", columns[0]) if len(columns) == 1 else None
    if separator:
        raise ValueError(f"its columns are separated by {separator[0]!r}; save it with commas")
    columns = _without_empty_end(columns, 0)
    rows = [_without_empty_end(row, len(columns)) for row in rows]
    for number, row in enumerate(rows, 1):
        if len(row) > len(columns) or not {"question", "answer", "solution"}.isdisjoint(columns[len(row) :]):
            raise ValueError(
                f"row {number} has the cells {row}, and the columns are {', '.join(columns)}; put a text that has a comma into "
                'double quotes ("), and fill in what is missing'
            )
    return [dict(zip(columns, row, strict=False)) for row in rows]


def _without_empty_end(cells: list[str], at_least: int) -> list[str]:
    return cells[: max([at_least, *(i for i, cell in enumerate(cells, 1) if cell.strip())])]


def _items(content: Any) -> list:
    if not isinstance(content, list):
        raise ValueError("it is not a list of objects; for one object a line, call the file .jsonl")
    return content


def _json(text: str) -> Any:
    """As `json.loads`, but that NaN, which pandas writes for an empty cell, is none; infinities stay texts."""
    return json.loads(text, parse_constant=lambda name: None if name == "NaN" else name)


def _line(line: str, number: int) -> Any:
    try:
        return _json(line)
    except ValueError as error:
        raise ValueError(f"line {number} is broken JSON: {error}") from None


# -------------------------------------------------------------------------------------------- the sets of a profile
def training_problems(cfg: Config) -> list[dict]:
    """The training questions of a profile, different from each other and from every held-out one."""
    return training_sets(cfg)[0]


def validation_problems(cfg: Config) -> list[dict]:
    """Held-out questions of the training distribution, on which settings are chosen; never the test sets."""
    return training_sets(cfg)[1]


def training_sets(cfg: Config) -> tuple[list[dict], list[dict], dict[str, int]]:
    """Training and validation questions, and how many rows cleaning dropped, by reason (none for the miniature, which is
    made without).

    Raises:
        ValueError: fewer questions are left than a step needs.
    """
    if cfg.train_data in GENERATORS:
        made, name = GENERATORS[cfg.train_data].problems, GENERATORS[cfg.train_data].TRAINING
        return made(name, "train", cfg.train_problems), made(name, "validation", cfg.validation_problems), {}
    rows, dropped = clean_training_set(cfg)
    rows = draw(rows)
    validation, train = rows[: cfg.validation_problems], rows[cfg.validation_problems :][: cfg.train_problems or None]
    if len(train) < cfg.prompts_per_step:
        raise ValueError(
            f"{cfg.train_data} has {len(train)} questions left to train on, after cleaning ({dropped}) and without "
            f"validation_problems {cfg.validation_problems}; a step needs {cfg.prompts_per_step}: hold fewer out, or give "
            "more data"
        )
    return train, validation, dropped


def test_problems(cfg: Config, benchmark: str) -> list[dict]:
    """The questions of a test set; of a real one a sample, or all that there are."""
    if benchmark in GENERATED:
        return GENERATED[benchmark].problems(benchmark, "test", cfg.test_problems, seed=cfg.test_draw)
    return draw(whole_set(cfg, benchmark, "test"), cfg.test_draw)[: cfg.test_problems or None]


def whole_set(cfg: Config, name: str, split: str) -> list[dict]:
    """Every row of a real benchmark's split, or of a user's file."""
    return load_file(cfg.files[name]) if name in cfg.files else load_benchmark(name, split, cfg.data_folder)


def draw(rows: list[dict], seed: int = 0) -> list[dict]:
    """Rows in a random order that does not depend on the one that they come in."""
    return sorted(rows, key=lambda row: hashlib.sha256(f"{seed}/{' '.join(row['question'].split())}".encode()).digest())


# ------------------------------------------------------------------------------------------------- what sets share
def clean_training_set(cfg: Config) -> tuple[list[dict], dict[str, int]]:
    """The rows of a real training set or a user's without those that stand in it twice, and without those that a test
    set of the experiment, or its own test split, has 13 words in common with; and the numbers dropped for each reason
    (one row may have several).

    Test sets are taken whole, however many of their problems are used. Generated ones are left out: they have no end.
    """
    tests = [name for name in cfg.benchmarks if name not in GENERATED]
    tests += [cfg.train_data] * (cfg.train_data in SETS and cfg.train_data not in tests)
    seen = {name: runs_of(whole_set(cfg, name, "test"), signs=False) for name in tests}
    kept, dropped = {}, dict.fromkeys(["twice", *tests], 0)
    for row in whole_set(cfg, cfg.train_data, "train"):
        own, whole = ngrams(row["question"], signs=False), as_one(row["question"])
        reasons = [name for name in tests if not seen[name].isdisjoint(own)] or ["twice"] * (whole in kept)
        for name in reasons:
            dropped[name] += 1
        if not reasons:
            kept[whole] = row
    return list(kept.values()), dropped


def runs_of(rows: list[dict], n: int = NGRAM, signs: bool = True) -> set[tuple[str, ...]]:
    """The `ngrams` of all questions."""
    return set().union(*(ngrams(row["question"], n, signs) for row in rows))


def ngrams(question: str, n: int = NGRAM, signs: bool = True) -> set[tuple[str, ...]]:
    """The runs of `n` words, numbers and signs of a question, without case and white space; a shorter one is one run.

    Args:
        signs: False: words and numbers alone count, and no drawings, as is usual for texts. With its signs, a third of
            MATH would have 13 "words" of LaTeX in common with the test split. A question shorter than `n` words keeps
            its signs even so: 2 + 2 is not 2 - 2.

    >>> sorted(ngrams("Two plus 2.", 3))
    [('plus', '2', '.'), ('two', 'plus', '2')]
    >>> ngrams("Two plus 2.", 3, signs=False)
    {('two', 'plus', '2')}
    """
    tokens = re.findall(r"[^\W\d_]+|\d+|[^\w\s]", question.lower())
    if not signs:
        text = re.sub(r"\[asy\].*?\[/asy\]", " ", question.lower(), flags=re.DOTALL)
        words = re.findall(r"[^\W\d_]+|\d+", text)
        tokens = words if len(words) >= n else tokens
        n = n if len(words) >= n else len(tokens)
    return {tuple(tokens[i : i + n]) for i in range(max(1, len(tokens) - n + 1))}


def as_one(question: str) -> str:
    """A question without case and white space; two are the same if this is."""
    return "".join(question.lower().split())


def fingerprint(rows: list[dict]) -> str:
    """A hash of the questions and answers, in order."""
    return hashlib.sha256("\n".join(f"{row['question']}\t{row['answer']}" for row in rows).encode()).hexdigest()[:12]
