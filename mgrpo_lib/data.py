"""Every data set in one schema: rows of ``question, answer, id, source`` (all text)."""

import hashlib
from collections import Counter
from typing import Any

from mgrpo_lib import miniature
from mgrpo_lib.config import Config
from mgrpo_lib.store import data_key, environment, write_json

SCHEMA = ("question", "answer", "id", "source")


def training_problems(cfg: Config) -> list[dict]:
    """The training questions of a profile, different from each other and from every held-out one."""
    _only_miniature(cfg.train_data)
    return miniature.problems("train", "train", cfg.train_problems)


def validation_problems(cfg: Config) -> list[dict]:
    """Held-out questions of the training distribution, on which settings are chosen; never the test sets."""
    _only_miniature(cfg.train_data)
    return miniature.problems("train", "validation", cfg.validation_problems)


def test_problems(cfg: Config, benchmark: str) -> list[dict]:
    """The questions of a test set."""
    return miniature.problems(benchmark, "test", cfg.test_problems)


def _only_miniature(name: str) -> None:
    if name != "miniature":
        raise ValueError(f"unknown training set {name!r}; this version has only 'miniature'")


def fingerprint(rows: list[dict]) -> str:
    """A hash of the questions and answers, in order."""
    return hashlib.sha256("\n".join(f"{row['question']}\t{row['answer']}" for row in rows).encode()).hexdigest()[:12]


def overlap(left: list[dict], right: list[dict]) -> list[str]:
    """Questions that stand in both, however they are written (see `miniature.bare`)."""
    return sorted(
        {miniature.bare(row["question"]) for row in left} & {miniature.bare(row["question"]) for row in right}
    )


def data_card(cfg: Config) -> dict[str, Any]:
    """Builds every data set of a profile, proves that none overlaps the training set, and writes ``data.json`` to the
    results folder.

    Returns:
        ``sets``: for each its rows, fingerprint, source, the number of questions it shares with the training set (always
        0), and the share of its most common answer: what always giving that answer would score.

    Raises:
        ValueError: a held-out set shares a question with the training set.
    """
    train = training_problems(cfg)
    sets = {"train": train, "validation": validation_problems(cfg)} | {
        name: test_problems(cfg, name) for name in cfg.benchmarks
    }
    card = {}
    for name, rows in sets.items():
        shared = [] if name == "train" else overlap(train, rows)
        if shared:
            raise ValueError(f"{len(shared)} questions of {name} stand in the training set, the first: {shared[0]!r}")
        card[name] = {
            "rows": len(rows),
            "fingerprint": fingerprint(rows),
            "source": rows[0]["source"],
            "shared_with_train": len(shared),
            "most_common_answer": max(Counter(row["answer"] for row in rows).values()) / len(rows),
        }
    content = {"key": data_key(cfg), "sets": card, "environment": environment()}
    write_json(cfg.results / "data.json", content)
    return content
