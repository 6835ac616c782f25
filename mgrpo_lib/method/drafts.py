"""Which drafts are corrected, which corrections are trained on, and how those are rewarded against each other: pure
functions on the rows of one process.

Rows are completions. `questions[i]` tells which question of the batch row i belongs to; -1 marks a filler, a row that a
process samples only because another process has more drafts to correct. A completion is *right* if the first reward
function gives it more than 0.5.
"""

import random
from dataclasses import dataclass

import torch
from rapidfuzz.distance import Levenshtein

from mgrpo_lib.verifier.reward import extract_answer


@dataclass
class Rollouts:
    """What a layer sampled on this process, row by row; the next layer is built from it."""

    inputs: list[dict]
    prompts: list
    prompt_ids: list[list[int]]
    completions: list
    completion_ids: list[list[int]]
    questions: list[int]  # number of the question in the batch; -1: a filler
    rewards: torch.Tensor  # (rows,) weighted sum over the reward functions; NaN: none of them gave one
    right: torch.Tensor  # (rows,) bool, by the first reward function

    @property
    def answers(self) -> list[str | None]:
        texts = [text if isinstance(text, str) else text[-1]["content"] for text in self.completions]
        return [extract_answer(text) for text in texts]


def choose_drafts(questions: list[int], right: list[bool], k: int | None, select: str, rng: random.Random) -> list[int]:
    """Row numbers of the drafts of each question that are passed on, at most `k` (None: as many as qualify).

    `select` is ``all``: at random, blind to the reward; ``wrong``: wrong drafts alone, so there may be fewer than `k`,
    or none; ``mixed``: half of `k` wrong, half right, topped up with the other kind where one is short. The last two
    look at the gold answer, in training only, and the model may learn that from the mere presence of a draft: after
    ``wrong`` alone, always to change its answer. Which of them the paper does, it does not say as far as we could read.

    >>> rng = random.Random(0)
    >>> choose_drafts([0, 0, 0, 0, 1, 1, 1, 1], [True, False, False, True] * 2, 1, "wrong", rng)
    [2, 6]
    """
    chosen: list[int] = []
    for question in dict.fromkeys(q for q in questions if q >= 0):
        rows = [i for i, q in enumerate(questions) if q == question]
        if select == "wrong":
            rows = [i for i in rows if not right[i]]
        if select == "mixed":
            wrong = [i for i in rows if not right[i]]
            half = min(len(wrong), max(k // 2, k - (len(rows) - len(wrong))))
            some_wrong = rng.sample(wrong, half)
            some_right = rng.sample([i for i in rows if right[i]], min(k, len(rows)) - half)
            chosen += sorted(some_wrong + some_right)
        else:
            chosen += sorted(rng.sample(rows, len(rows) if k is None else min(k, len(rows))))
    return chosen


def kept(right: torch.Tensor, keep: str) -> torch.Tensor:
    """Which corrections are trained on: ``all``, or the ``successes``, as the paper's "dynamic verification" is retold.

    **Successes alone under a group baseline have no gradient.** Four corrections of one draft with rewards 1, 0, 1, 0:
    the successes are 1 and 1, their mean is 1, both advantages are 1 - 1 = 0. So the retold rule cannot be the whole
    story, and ``successes`` is only accepted together with the advantage rule ``difference``, as one third-party
    implementation pairs them: a wrong draft gives its two successes 1 - 0 = 1, a right one gives them 1 - 1 = 0.

    Args:
        right: (rows,) bool.

    Returns:
        (rows,) bool.
    """
    return right if keep == "successes" else torch.ones_like(right)


def correction_advantages(
    rule: str, rewards: torch.Tensor, draft_rewards: torch.Tensor, questions: torch.Tensor, bonus: float, scale: bool
) -> torch.Tensor:
    """Advantages of corrections by another rule than the group of one draft (that rule, ``group``, is TRL's own code).

    ``difference``: r2 - r1, the draft's reward as baseline. A kept right answer gets 0, a mended one 1, a broken one
    -1, a draft left wrong 0: failing again is not punished. It needs no group, so one correction a draft is enough.

    ``progress``: SCoRe's shaped reward r2 + bonus * (r2 - r1), relative to all corrections of the *question*. Relative
    to those of the *draft* the bonus would do nothing, since r1 is the same in the whole group: it scales and shifts
    the rewards, and the mean and the standard deviation take both out again.

    Args:
        rewards, draft_rewards: (rows,), of each correction and of the draft that it corrects; NaN: no reward.
        questions: (rows,) integers.
        bonus: SCoRe's alpha.
        scale: divide by the standard deviation, as GRPO does.

    Returns:
        (rows,) advantages; 0 for fillers, and where the correction or its draft has no reward.
    """
    difference = torch.where(questions >= 0, rewards - draft_rewards, torch.nan)
    if rule == "difference":
        return difference.nan_to_num(nan=0.0)
    shaped, out = rewards + bonus * difference, torch.zeros_like(rewards)
    rewarded = ~shaped.isnan()
    for question in questions[rewarded].unique():
        group = (questions == question) & rewarded
        centred = shaped[group] - shaped[group].mean()
        if scale and group.sum() > 1:
            centred = centred / (shaped[group].std() + 1e-4)
        out[group] = centred
    return out


def changes(drafts: Rollouts, parents: list[int], corrections: Rollouts, used: torch.Tensor) -> dict[str, float]:
    """What the corrections did to their drafts, summed over the rows that are no fillers.

    Args:
        parents: (rows,), the row in `drafts` that each correction corrects.
        used: (rows,) bool, whether it is trained on.

    Returns:
        ``rows``, and how many of them ``fixed`` a wrong draft, left a right one ``broken`` or ``kept``, ``copied`` it
        token for token, give another final answer (``answer_changed``), are ``used``; and the sum of their
        ``edit_distance``: insertions, deletions and replacements of tokens, as a share of the longer text.
    """
    names = ("rows", "fixed", "broken", "kept", "copied", "answer_changed", "used", "edit_distance")
    total = dict.fromkeys(names, 0.0)
    before, after = drafts.answers, corrections.answers
    for row, i in enumerate(parents):
        if corrections.questions[row] < 0:
            continue
        was, now = bool(drafts.right[i]), bool(corrections.right[row])
        total["rows"] += 1
        total["fixed"] += now and not was
        total["broken"] += was and not now
        total["kept"] += was and now
        total["copied"] += drafts.completion_ids[i] == corrections.completion_ids[row]
        total["answer_changed"] += before[i] != after[row]
        total["used"] += bool(used[row])
        total["edit_distance"] += Levenshtein.normalized_distance(
            drafts.completion_ids[i], corrections.completion_ids[row]
        )
    return total
