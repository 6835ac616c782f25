"""What a layer holds, which drafts are passed on, which corrections are trained on, and what they changed: pure functions
on the rows of one process. Rows are completions.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

FILLER = -1  # question number of a row that is sampled only because another process has more drafts to correct


@dataclass
class Layer:
    """One layer of a generation on this process, row by row. The next layer is built from it."""

    number: int  # 1: drafts; 2: their corrections; ...
    inputs: list[dict]
    questions: list[int]  # number of the question in the batch, or FILLER
    prompt_ids: list[list[int]] | None = None  # given from layer 2 on; of layer 1 as TRL tokenizes them
    parents: list[int] = field(default_factory=list)  # from layer 2 on: the row of the draft in the layer before

    # filled in when the completions are graded
    prompts: list = field(default_factory=list)
    completions: list = field(default_factory=list)
    completion_ids: list[list[int]] = field(default_factory=list)
    all_rewards: torch.Tensor | None = (
        None  # (rows of all processes,) weighted sum over the rewards; NaN: none was given
    )
    rewards: torch.Tensor | None = None  # (rows,) those of this process
    right: torch.Tensor | None = None  # (rows,) bool, by the first reward function

    @property
    def real(self) -> torch.Tensor:
        """(rows,) bool: no fillers."""
        return torch.tensor([question != FILLER for question in self.questions])

    @property
    def texts(self) -> list[str]:
        return [text if isinstance(text, str) else text[-1]["content"] for text in self.completions]


def choose_drafts(questions: list[int], right: list[bool], k: int, select: str, rng: random.Random) -> list[int]:
    """Choose at most `k` drafts per question to pass on; return their rows.

    Args:
        select: ``all``: at random, blind to the reward; ``wrong``: wrong drafts alone, perhaps fewer than `k`, or none;
            ``mixed``: half wrong, half right, topped up where one kind is short. The last two look at the gold answer, in
            training only. After ``wrong`` the model may learn to change every draft. The paper does not say which it takes.

    >>> choose_drafts([0, 0, 0, 0, 1, 1, 1, 1], [True, False, False, True] * 2, 1, "wrong", random.Random(0))
    [2, 6]
    """
    chosen: list[int] = []
    for question in dict.fromkeys(q for q in questions if q != FILLER):
        rows = [i for i, q in enumerate(questions) if q == question]
        wrong = [i for i in rows if not right[i]]
        if select == "mixed":
            half = min(len(wrong), max(k // 2, k - (len(rows) - len(wrong))))
            some_wrong = rng.sample(wrong, half)
            some_right = rng.sample([i for i in rows if right[i]], min(k, len(rows)) - half)
            chosen += sorted(some_wrong + some_right)
        else:
            rows = wrong if select == "wrong" else rows
            chosen += sorted(rng.sample(rows, min(k, len(rows))))
    return chosen


def trained_on(right: torch.Tensor, keep: str) -> torch.Tensor:
    """Choose the corrections to train on: ``all``, or the ``successes``, as the paper's "dynamic verification" is retold.

    **Successes alone under a group baseline have no gradient.** Four corrections of one draft with rewards 1, 0, 1, 0. The
    successes are 1 and 1, their mean is 1. Both advantages are 1 - 1 = 0. So ``successes`` needs the advantage rule
    ``difference``, as one third-party implementation pairs them: a wrong draft gives its successes 1 - 0 = 1, a right one 0.

    Args:
        right: (rows,) bool.

    Returns:
        (rows,) bool.
    """
    return right if keep == "successes" else torch.ones_like(right)


def changes(
    drafts: Layer, corrections: Layer, used: torch.Tensor, answer_of: Callable[[str], Any] | None
) -> dict[str, float]:
    """Sum up what the corrections did to their drafts, fillers left out.

    Args:
        used: (rows,) bool, whether a correction is trained on.
        answer_of: the final answer in a text; without it ``answer_changed`` is left out.

    Returns:
        ``rows``, and how many of them ``fixed`` a wrong draft, left a right one ``broken`` or ``kept``, ``copied`` it token
        for token, changed the answer (``answer_changed``), are ``used``; and the sum of their ``edit_distance``.
    """
    rows = [row for row, question in enumerate(corrections.questions) if question != FILLER]
    pairs = [(corrections.parents[row], row) for row in rows]
    before, after = [bool(drafts.right[i]) for i, _ in pairs], [bool(corrections.right[row]) for row in rows]
    ids = [(drafts.completion_ids[i], corrections.completion_ids[row]) for i, row in pairs]
    outcomes = list(zip(before, after, strict=True))
    total = {
        "rows": len(rows),
        "fixed": sum(now and not was for was, now in outcomes),
        "broken": sum(was and not now for was, now in outcomes),
        "kept": sum(was and now for was, now in outcomes),
        "copied": sum(draft == correction for draft, correction in ids),
    }
    if answer_of is not None:
        first, second = ([answer_of(text) for text in layer.texts] for layer in (drafts, corrections))
        total["answer_changed"] = sum(first[i] != second[row] for i, row in pairs)
    total["used"] = int(used[rows].sum())
    total["edit_distance"] = sum(edit_distances(*zip(*ids, strict=True)).tolist()) if ids else 0.0
    return {name: float(count) for name, count in total.items()}


def edit_distances(left: list[list[int]], right: list[list[int]]) -> torch.Tensor:
    """Count insertions, deletions and replacements between two token lists, as a share of the longer one (Levenshtein).

    Args:
        left, right: one pair per row.

    Returns:
        (rows,) float64.

    >>> edit_distances([[1, 2, 3], [1]], [[1, 3], [1]]).round(decimals=2).tolist()
    [0.33, 0.0]
    """
    a, b = (
        pad_sequence([torch.tensor(ids, dtype=torch.long) for ids in side], batch_first=True) for side in (left, right)
    )
    long_a, long_b = (torch.tensor([len(ids) for ids in side]) for side in (left, right))
    column = torch.arange(b.shape[1] + 1)
    distance = column.expand(len(a), -1)  # from no token of `a` to the first tokens of `b`
    for i in range(a.shape[1]):
        replaced_or_deleted = torch.minimum(distance[:, :-1] + (a[:, i, None] != b), distance[:, 1:] + 1)
        row = torch.cat([distance[:, :1] + 1, replaced_or_deleted], dim=1)
        inserted = (row - column).cummin(dim=1).values + column  # the best of all ways that end in insertions
        distance = torch.where((i < long_a)[:, None], inserted, distance)
    found = distance.gather(1, long_b[:, None]).squeeze(1)
    return found.double() / torch.maximum(long_a, long_b).clamp(min=1)
