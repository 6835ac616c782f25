"""Which drafts are corrected, which corrections are trained on, and how those are rewarded against each other: pure
functions on the rows of one process.

Rows are completions. `questions[i]` tells which question of the batch row i belongs to; -1 marks a filler, a row that a
process samples only because another process has more drafts to correct. A completion is *right* if the first reward
function gives it more than 0.5.
"""

import random

import torch


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
        rewards, draft_rewards: (rows,), of each correction and of the draft that it corrects.
        questions: (rows,) integers.
        bonus: SCoRe's alpha.
        scale: divide by the standard deviation, as GRPO does.

    Returns:
        (rows,) advantages; 0 for fillers.
    """
    difference = rewards - draft_rewards
    if rule == "difference":
        return torch.where(questions >= 0, difference, 0.0)
    shaped, out = rewards + bonus * difference, torch.zeros_like(rewards)
    for question in questions[questions >= 0].unique():
        group = questions == question
        centred = shaped[group] - shaped[group].mean()
        if scale and group.sum() > 1:
            centred = centred / (shaped[group].std() + 1e-4)
        out[group] = centred
    return out


def changes(
    questions: torch.Tensor, was: torch.Tensor, now: torch.Tensor, copied: torch.Tensor, used: torch.Tensor
) -> dict[str, int]:
    """How many corrections there are, and how many ``fixed`` a wrong draft, ``broke`` or ``kept`` a right one, repeat it
    to the letter, are trained on; fillers not counted. All arguments (rows,), was and now: right before and after.
    """
    counted = {"rows": torch.ones_like(was), "fixed": ~was & now, "broken": was & ~now, "kept": was & now}
    counted |= {"copied": copied, "used": used}
    return {name: int((rows & (questions >= 0)).sum()) for name, rows in counted.items()}
