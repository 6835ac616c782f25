r"""The advantages of the corrections, one function per rule; the trainer calls these and the notebooks show them.

For a draft o_i with the rewards r_i1 ... r_iH of its H corrections:

    group       A_ij = (r_ij - mean(r_i1 ... r_iH)) / (std(r_i1 ... r_iH) + 1e-4)      GRPO's; the paper does not say
    difference  A_ij = r_ij - r_i                                                       r_i: the draft's own reward
    progress    A_ij = group advantage of r_ij + bonus (r_ij - r_i), over the question  SCoRe's shaped reward

Rewards of shape (rows,); NaN marks a completion without a reward: it counts in no mean and its advantage is 0. The standard
deviation is the sample's (n - 1), as in TRL.
"""

import torch
from trl.trainer.utils import nanstd

EPSILON = 1e-4  # TRL's: keeps the advantages of a group with equal rewards at 0


def group_advantages(rewards: torch.Tensor, group_size: int, scale: str = "group") -> torch.Tensor:
    """Compare each completion with its group: A_ij. Equal to TRL's numbers to the bit.

    Args:
        rewards: (rows,), groups contiguous.
        group_size: completions per group.
        scale: ``group``: divide by the group's standard deviation; ``batch``: by that of all rows; ``none``: not at all.

    >>> group_advantages(torch.tensor([1.0, 0, 0, 1, 1, 1, 1, 1]), 4)
    tensor([ 0.8659, -0.8659, -0.8659,  0.8659,  0.0000,  0.0000,  0.0000,  0.0000])
    """
    groups = rewards.view(-1, group_size)
    advantages = rewards - torch.nanmean(groups, dim=1).repeat_interleave(group_size)
    if scale != "none":
        std = nanstd(groups, dim=1).repeat_interleave(group_size) if scale == "group" else nanstd(rewards)
        advantages = advantages / (std.nan_to_num(nan=0.0) + EPSILON)
    return advantages.nan_to_num(nan=0.0)


def difference_advantages(rewards: torch.Tensor, draft_rewards: torch.Tensor) -> torch.Tensor:
    """Take the draft's reward as the baseline: r_ij - r_i.

    A kept right answer gets 0, a fixed one 1, a broken one -1. Failing again is not punished. No group is needed, so one
    correction per draft is enough.

    Args:
        rewards, draft_rewards: (rows,), of each correction and of its draft.
    """
    return (rewards - draft_rewards).nan_to_num(nan=0.0)


def progress_advantages(
    rewards: torch.Tensor, draft_rewards: torch.Tensor, questions: torch.Tensor, bonus: float, scale: str = "group"
) -> torch.Tensor:
    """Compare SCoRe's shaped rewards, r_ij + bonus (r_ij - r_i), over all corrections of a *question*.

    Over the corrections of one draft the bonus would do nothing: r_i is constant there, and mean and standard deviation
    take it out again.

    Args:
        rewards, draft_rewards: (rows,), of each correction and of its draft.
        questions: (rows,) integers.
        bonus: SCoRe's alpha.
        scale: ``group`` or ``none``.
    """
    shaped, advantages = rewards + bonus * (rewards - draft_rewards), torch.zeros_like(rewards)
    rewarded = ~shaped.isnan()
    for question in questions[rewarded].unique():
        rows = (questions == question) & rewarded
        advantages[rows] = shaped[rows] - shaped[rows].mean()
        if scale == "group" and rows.sum() > 1:
            advantages[rows] /= shaped[rows].std() + EPSILON
    return advantages
