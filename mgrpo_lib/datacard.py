"""The hygiene of the data sets: rows, sources, what the test sets share with the training set, what guessing scores."""

import re
from collections import Counter
from typing import Any

from mgrpo_lib import miniature
from mgrpo_lib.config import Config
from mgrpo_lib.data import fingerprint, test_problems, training_problems, validation_problems
from mgrpo_lib.store import data_key, environment, write_json

NGRAM = 13  # words; the length that GPT-3's authors took, and many since


def overlap(left: list[dict], right: list[dict]) -> list[str]:
    """Questions that stand in both, however they are written (see `miniature.bare`)."""
    return sorted(
        {miniature.bare(row["question"]) for row in left} & {miniature.bare(row["question"]) for row in right}
    )


def ngrams(question: str, n: int) -> set[tuple[str, ...]]:
    """The runs of `n` words, numbers and signs of a question, without case and white space; a shorter one is one run.

    >>> sorted(ngrams("Two plus 2.", 3))
    [('plus', '2', '.'), ('two', 'plus', '2')]
    """
    words = re.findall(r"[^\W\d_]+|\d+|[^\w\s]", question.lower())
    return {tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))}


def contaminated(train: list[dict], held_out: list[dict], n: int = NGRAM) -> list[str]:
    """Ids of the held-out questions that have a run of `n` words in common with any training question."""
    seen = set().union(*(ngrams(row["question"], n) for row in train))
    return [row["id"] for row in held_out if not seen.isdisjoint(ngrams(row["question"], n))]


def data_card(cfg: Config) -> dict[str, Any]:
    """Builds every data set of a profile, proves that none overlaps the training set, and writes ``data.json`` to the
    results folder.

    Returns:
        ``sets``: for each its rows, fingerprint, source, the number of questions it shares with the training set (always
        0), of those that have a run of `NGRAM` words in common with it, and the share of its most common answer: what
        always giving that answer would score.

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
            f"{NGRAM}-gram_in_train": 0 if name == "train" else len(contaminated(train, rows)),
            "most_common_answer": max(Counter(row["answer"] for row in rows).values()) / len(rows),
        }
    content = {"key": data_key(cfg), "sets": card, "environment": environment()}
    write_json(cfg.results / "data.json", content)
    return content
