"""What the generated problem sets share: splits by hash, and the drawing of different problems."""

import random
import zlib
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from mgrpo_lib.tasks.names import nearest
from mgrpo_lib.tasks.schema import in_schema

SPLITS = ("train", "validation", "test")


def split_by_hash(text: str) -> str:
    """Return the split that a text belongs to: 70% train, 10% validation, 20% test."""
    bucket = zlib.crc32(text.encode()) % 10
    return "train" if bucket < 7 else "validation" if bucket == 7 else "test"


def draw_different(
    family: str,
    sets: Iterable[str],
    name: str,
    split: str,
    n: int,
    seed: int,
    *,
    draw: Callable[[random.Random, int], Hashable],
    split_of: Callable[[Any], str],
    write: Callable[[Any, random.Random], dict[str, str]],
) -> list[dict]:
    """Draw `n` different problems of a set's split, with random numbers seeded by set, split and `seed`.

    Args:
        draw: draws a problem, given how many are kept so far.
        split_of: the split of a drawn problem.
        write: a drawn problem as question and answer; called only for those that are kept.

    Raises:
        ValueError: unknown set or split, or too few different problems.
    """
    for kind, given, valid in (("set", name, list(sets)), ("split", split, list(SPLITS))):
        if given not in valid:
            raise ValueError(f"unknown {kind} {given!r} of family {family}; {nearest(given, valid)}")
    rng, found = random.Random(f"{name}/{split}/{seed}"), {}
    for _ in range(1000 * n):
        if len(found) == n:
            break
        drawn = draw(rng, len(found))
        if drawn not in found and split_of(drawn) == split:
            found[drawn] = write(drawn, rng)
    if len(found) < n:
        raise ValueError(
            f"{family} set {name!r} has only {len(found)} problems in split {split!r}, not {n}; ask for fewer"
        )
    rows = ({**row, "id": f"{split}-{i}"} for i, row in enumerate(found.values()))
    return in_schema(rows, name, f"{family}/{name}")
