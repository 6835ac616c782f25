"""The hygiene of the data sets: rows, sources, what the test sets share with the training set, what guessing scores."""

from collections import Counter
from typing import Any

from mgrpo_lib.experiment.fingerprints import data_key
from mgrpo_lib.experiment.settings import GENERATED, GENERATORS, Config
from mgrpo_lib.experiment.store import environment, write_json
from mgrpo_lib.tasks.benchmarks import SETS, content_hash, known_flaws
from mgrpo_lib.tasks.data import (
    NGRAM,
    as_one,
    fingerprint,
    ngrams,
    runs_of,
    test_problems,
    training_sets,
    whole_set,
)


def overlap(left: list[dict], right: list[dict]) -> list[str]:
    """Questions that stand in both: generated problems however they are written (see `miniature.bare`), texts without case
    and white space.
    """
    made_by = {row["source"].split("/")[0] for row in [*left[:1], *right[:1]]}
    form = GENERATORS[made_by.pop()].bare if len(made_by) == 1 and made_by <= GENERATORS.keys() else as_one
    return sorted({form(row["question"]) for row in left} & {form(row["question"]) for row in right})


def contaminated(train: list[dict], held_out: list[dict], n: int = NGRAM, signs: bool = True) -> list[str]:
    """Ids of the held-out questions that have a run of `n` words in common with any training question; see `ngrams`."""
    seen = runs_of(train, n, signs)
    return [row["id"] for row in held_out if not seen.isdisjoint(ngrams(row["question"], n, signs))]


def origin(cfg: Config, name: str, split: str) -> dict[str, Any]:
    """Where a real set or a user's file is from, and what is known to be wrong with it; empty for generated ones."""
    if name in GENERATED or name in GENERATORS:
        return {}
    rows = whole_set(cfg, name, split)
    card = {
        "of": len(rows),
        "content": content_hash(rows),
        "questions_twice": len(rows) - len({as_one(row["question"]) for row in rows}),
        "ids_twice": sum("#" in row["id"] for row in rows),
    }
    if name in cfg.files:
        return {**card, "from": cfg.files[name].name}
    one, folder = SETS[name], cfg.data_folder
    place = "files, checked by their sha256" if folder else f"{one.hub}, revision {one.revision}"
    return {**card, "from": place, "licence": one.licence, "flaws": known_flaws(name, split, folder)}


def data_card(cfg: Config) -> dict[str, Any]:
    """Builds every data set of a profile, proves that none overlaps the training set, and writes ``data.json`` to the
    results folder.

    Returns:
        ``sets``: for each its rows, fingerprint, source, the number of questions it shares with the training set (always
        0), of those that have a run of `NGRAM` words in common with it, and the share of its most common answer: what
        always giving that answer would score. For real sets and files also what `origin` says.

    Raises:
        ValueError: a held-out set shares a question with the training set.
    """
    train, validation, dropped = training_sets(cfg)
    signs = cfg.train_data in GENERATORS  # without its signs nothing is left of a generated problem
    seen = runs_of(train, signs=signs)
    sets = {"train": train, "validation": validation} | {name: test_problems(cfg, name) for name in cfg.benchmarks}
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
            f"{NGRAM}-gram_in_train": 0
            if name == "train"
            else sum(not seen.isdisjoint(ngrams(row["question"], signs=signs)) for row in rows),
            "most_common_answer": max(Counter(row["answer"] for row in rows).values()) / len(rows),
        }
        if name == "train":
            card[name] |= origin(cfg, cfg.train_data, "train") | ({"dropped": dropped} if dropped else {})
        elif name != "validation":
            card[name] |= origin(cfg, name, "test")
    content = {"key": data_key(cfg), "sets": card, "environment": environment()}
    write_json(cfg.results / "data.json", content)
    return content
