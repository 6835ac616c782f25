"""Every data set in one schema: rows of ``question, answer, id, source`` (all text)."""

import hashlib

from mgrpo_lib import miniature
from mgrpo_lib.config import Config

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
    return miniature.problems(benchmark, "test", cfg.test_problems, seed=cfg.test_draw)


def _only_miniature(name: str) -> None:
    if name != "miniature":
        raise ValueError(f"unknown training set {name!r}; this version has only 'miniature'")


def fingerprint(rows: list[dict]) -> str:
    """A hash of the questions and answers, in order."""
    return hashlib.sha256("\n".join(f"{row['question']}\t{row['answer']}" for row in rows).encode()).hexdigest()[:12]
