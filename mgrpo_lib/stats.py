"""Transitions and intervals: pure functions on arrays of right (1) and wrong (0)."""

import numpy as np


def group_advantages(rewards: np.ndarray) -> np.ndarray:
    """Group-relative advantages (r - mean) / (std + 1e-4), row by row, as TRL computes them: with the sample standard
    deviation (n - 1).

    Args:
        rewards: (groups, G).

    >>> group_advantages([[1, 0, 0, 1], [1, 1, 1, 1]]).round(2).tolist()
    [[0.87, -0.87, -0.87, 0.87], [0.0, 0.0, 0.0, 0.0]]
    """
    rewards = np.atleast_2d(np.asarray(rewards, dtype=float))
    return (rewards - rewards.mean(1, keepdims=True)) / (rewards.std(1, ddof=1, keepdims=True) + 1e-4)


def transitions(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Accuracies at both attempts and what changed in between, as shares of all problems (SCoRe's definitions, which
    the paper's table seems to follow).

    Args:
        first, second: same shape, right or wrong at attempt 1 and 2.

    Returns:
        ``acc_t1, acc_t2, delta_t1_t2, i_to_c`` (wrong, then right), ``c_to_i`` (right, then wrong). acc_t2 = acc_t1 +
        i_to_c - c_to_i.

    >>> transitions(np.array([1, 1, 0, 0]), np.array([1, 0, 1, 1]))
    {'acc_t1': 0.5, 'acc_t2': 0.75, 'delta_t1_t2': 0.25, 'i_to_c': 0.5, 'c_to_i': 0.25}
    """
    first, second = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if first.shape != second.shape or first.size == 0:
        raise ValueError(f"attempts of shapes {first.shape} and {second.shape} cannot be compared")
    return {
        "acc_t1": float(first.mean()),
        "acc_t2": float(second.mean()),
        "delta_t1_t2": float(second.mean() - first.mean()),
        "i_to_c": float((~first & second).mean()),
        "c_to_i": float((first & ~second).mean()),
    }


def bootstrap(values: np.ndarray, draws: int = 4000, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Percentile interval of the mean of `values` (seeds, problems), resampling seeds and, independently of them,
    problems.

    The problems are the same for every seed, so both are resampled as whole rows and columns: the interval speaks of
    other training seeds *and* of other problems. With one row it is the plain bootstrap over problems. With few seeds a
    percentile interval is somewhat too narrow.

    Args:
        values: any numbers, for example right or wrong, or differences of those between two arms.

    Returns:
        (low, high).
    """
    values = np.atleast_2d(np.asarray(values, dtype=float))
    seeds, problems = values.shape
    rng = np.random.default_rng(seed)
    rows = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws)  # (draws, seeds): how often each is drawn
    columns = rng.multinomial(problems, np.full(problems, 1 / problems), size=draws)  # (draws, problems)
    means = ((rows @ values) * columns).sum(1) / (seeds * problems)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)
