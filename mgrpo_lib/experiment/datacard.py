"""The data card of a profile: rows and sources of its sets, what they share with the training set, what guessing scores."""

from collections import Counter
from typing import Any

from mgrpo_lib.experiment.data import check_count, test_problems, training_sets, whole_set
from mgrpo_lib.experiment.keys import data_key
from mgrpo_lib.experiment.settings import GENERATED, GENERATORS, Config
from mgrpo_lib.experiment.store import environment, write_json
from mgrpo_lib.tasks.benchmarks import SETS, known_flaws
from mgrpo_lib.tasks.decontamination import NGRAM, as_one, contaminated
from mgrpo_lib.tasks.schema import content_hash, fingerprint


def overlap(left: list[dict], right: list[dict]) -> list[str]:
    """Return the questions that are in both sets: generated ones in any surface form, texts without case and white space."""
    made_by = {row["source"].split("/")[0] for row in [*left[:1], *right[:1]]}
    form = GENERATORS[made_by.pop()].bare if len(made_by) == 1 and made_by <= GENERATORS.keys() else as_one
    return sorted({form(row["question"]) for row in left} & {form(row["question"]) for row in right})


def origin(cfg: Config, name: str, split: str) -> dict[str, Any]:
    """Return where a real set or a user's file is from, and its known flaws; empty for generated ones."""
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
    """Build every set of a profile, check that none overlaps the training set, and write ``data.json``.

    Returns:
        ``sets``: for each its rows, fingerprint, source, the number of questions it shares with the training set (always
        0), the number that share a run of `NGRAM` words with it, and the share of its most common answer. Always giving
        that answer would score as much. For real sets and files also what `origin` returns.

    Raises:
        ValueError: a held-out set shares a question with the training set, or a test set has one problem alone.
    """
    train, validation, dropped = training_sets(cfg)
    signs = cfg.train_data in GENERATORS  # without its signs nothing is left of a generated problem
    sets = {"train": train, "validation": validation} | {name: test_problems(cfg, name) for name in cfg.benchmarks}
    card = {}
    for name, rows in sets.items():
        held_out = rows if name != "train" else []
        if shared := overlap(train, held_out):
            raise ValueError(f"{len(shared)} questions of {name} are in the training set, the first: {shared[0]!r}")
        if name in cfg.benchmarks:
            check_count(cfg, name, rows)
        card[name] = {
            "rows": len(rows),
            "fingerprint": fingerprint(rows),
            "source": rows[0]["source"],
            "shared_with_train": 0,
            f"{NGRAM}-gram_in_train": len(contaminated(train, held_out, signs=signs)),
            "most_common_answer": max(Counter(row["answer"] for row in rows).values()) / len(rows),
        }
        if name == "train":
            card[name] |= origin(cfg, cfg.train_data, "train") | ({"dropped": dropped} if dropped else {})
        elif name != "validation":
            card[name] |= origin(cfg, name, "test")
    content = {"key": data_key(cfg), "sets": card, "environment": environment()}
    write_json(cfg.results / "data.json", content)
    return content
