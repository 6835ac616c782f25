"""The hygiene of the data sets: rows, sources, what the test sets share with the training set, what guessing scores."""

from collections import Counter
from typing import Any

from mgrpo_lib import miniature
from mgrpo_lib.config import Config
from mgrpo_lib.data import fingerprint, test_problems, training_problems, validation_problems
from mgrpo_lib.store import data_key, environment, write_json


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
