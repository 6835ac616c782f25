"""Transitions, intervals, tests and metrics of samples: pure functions on arrays of right (1) and wrong (0)."""

from bisect import bisect_left
from collections.abc import Callable
from itertools import combinations
from math import comb

import numpy as np
from scipy.special import ndtr, ndtri, stdtr, stdtrit
from statsmodels.stats.contingency_tables import mcnemar as mcnemar_of_table
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

MOST_SEEDS, MOST_PROBLEMS = 10_000, 1_000_000  # beyond these, more of them do not decide a question in practice
NO_VARIATION = 1e-9  # a smaller standard error is what rounding leaves of equal values
LEVEL = 0.95  # of every interval
MOST_SUBSETS = 1_000  # as many subsets of samples are enumerated, or else drawn


def transitions(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Return accuracies at both attempts and what changed between, as shares of all problems (SCoRe's definitions).

    Args:
        first, second: same shape, right or wrong at attempt 1 and 2.

    Returns:
        ``acc_t1, acc_t2, delta_t1_t2, i_to_c`` (wrong, then right), ``c_to_i`` (right, then wrong).

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


# ---------------------------------------------------------------------------------------------- intervals
def estimate(values: np.ndarray, level: float = LEVEL) -> dict[str, float]:
    """Estimate the mean over seeds and problems, with interval and test, for other seeds *and* other problems.

    Crossed random effects: a two-way analysis of variance without replication, with mean squares MS of seeds, problems
    and error. The mean's variance is (MS_problems + MS_seeds - MS_error) / (S P) [Cornfield and Tukey 1956; Hillis 2007
    for readers and cases]. The part of the seeds is kept at 0 or more. Student's t has Satterthwaite's (1946) degrees of
    freedom, at least those of the smaller factor. With one seed this is the t interval over problems.

    Coverage of the 95% interval of differences in simulation (`tests/report/test_statistics.py`): 93.5 to 97% with 5
    seeds, 92 to 97.5% with 3, down to 89.5% with 2. It reaches 98.5% where seeds do not differ.

    Args:
        values: (seeds, problems) or (problems,), at least two problems: right or wrong, shares, or differences of them
            between two arms whose seeds are paired by index.

    Returns:
        ``mean``, ``low``, ``high``, ``p`` (two-sided, of mean = 0), ``se``, ``df``. The interval ends where differences
        do, at -1 and 1; that of two or three problems may hold them all. Without any variation the share of unseen other
        values is bounded by Clopper and Pearson's (1934) interval for none of P problems, and such a value may lie 1 +
        abs(mean) away. Then ``p`` is 1 if the mean is 0, else that of a sign test, 2 / 2^P.

    Raises:
        ValueError: `values` has another shape, fewer than two problems, or numbers that are not finite.

    >>> {name: round(x, 3) for name, x in estimate([[1, 0, 1, 1], [0, 0, 1, 1], [1, 0, 1, 0]]).items()}
    {'mean': 0.583, 'low': -0.126, 'high': 1.0, 'p': 0.077, 'se': 0.21, 'df': 2.714}
    """
    values = _table(values)
    mean = float(values.mean())
    se, df = _standard_error(_mean_squares(values), *values.shape)
    if se < NO_VARIATION:
        problems = values.shape[1]
        half = (1 + abs(mean)) * (1 - ((1 - level) / 2) ** (1 / problems))
        p = 2.0 ** (1 - problems) if mean else 1.0
    else:
        half = float(stdtrit(df, (1 + level) / 2)) * se
        p = 2 * float(stdtr(df, -abs(mean) / se))
    return {"mean": mean, "low": max(mean - half, -1.0), "high": min(mean + half, 1.0), "p": p, "se": se, "df": df}


def accuracy_interval(values: np.ndarray, rare: bool = False) -> tuple[float, float]:
    """Return the interval of an accuracy: Wilson's (1927) for as many independent answers as have its standard error.

    That number is mean (1 - mean) / se^2. For one model it is the number of problems, and the interval is Wilson's as
    usual. Several seeds have the standard error and Student's t of `estimate` [Kott and Carr 1997; Franco et al. 2019].

    The interval stays within [0, 1]. In the simulations of `estimate` it covers 93 to 98% with 5 seeds that differ by at
    most 7 points, and 92 to 98.5% with 3. Where seeds differ much near 100% it is too narrow: 91% with 5 seeds 12 points
    apart around 90%, 82% with 19 points.

    Args:
        values: (seeds, problems) or (problems,), right or wrong, or shares of samples that are.
        rare: of one model, where few problems may have a success, such as a fix rate. Then the standard error is
            uncertain itself. The quantile is Student's, with as many degrees of freedom as problems that have one (or
            lack one), but at least 3. Covers 93% or more for 20 to 270 problems of 4 samples (`test_theory.py`).

    Returns:
        (low, high). Values that are all equal count as one answer for each problem.

    Raises:
        ValueError: as `estimate`, and for values outside [0, 1].

    >>> [round(bound, 4) for bound in accuracy_interval([1] * 15 + [0] * 133)]  # 15 of 148
    [0.0624, 0.1605]
    """
    values = _table(values)
    if values.min() < 0 or values.max() > 1:
        raise ValueError(f"accuracies lie in [0, 1], not in [{values.min()}, {values.max()}]")
    seeds, problems = values.shape
    mean, answers, quantile = float(values.mean()), float(problems), ndtri((1 + LEVEL) / 2)
    se, df = (
        (values.std() / problems**0.5, None) if seeds == 1 else _standard_error(_mean_squares(values), *values.shape)
    )
    if rare:
        df = max(min((values > 0).sum(), (values < 1).sum()), 3)
    if se >= NO_VARIATION:
        answers = mean * (1 - mean) / se**2
        quantile = quantile if df is None else stdtrit(df, (1 + LEVEL) / 2)
    low, high = proportion_confint(mean * answers, answers, alpha=2 * ndtr(-quantile), method="wilson")
    return min(float(low), mean), max(float(high), mean)


def _table(values: np.ndarray) -> np.ndarray:
    values = np.atleast_2d(np.asarray(values, dtype=float))
    if values.ndim != 2 or values.shape[0] < 1 or values.shape[1] < 2 or not np.isfinite(values).all():
        raise ValueError(f"not finite numbers of (seeds, problems) with two problems or more: shape {values.shape}")
    return values


def _mean_squares(values: np.ndarray) -> tuple[float, float, float]:
    """Return the mean squares of seeds, problems and error; with one seed, those of seeds and error are 0."""
    seeds, problems = values.shape
    mean, of_seed, of_problem = values.mean(), values.mean(1, keepdims=True), values.mean(0, keepdims=True)
    contrasts = max(seeds - 1, 1)
    return (
        float(problems * ((of_seed - mean) ** 2).sum() / contrasts),
        float(seeds * ((of_problem - mean) ** 2).sum() / (problems - 1)),
        float(((values - of_seed - of_problem + mean) ** 2).sum() / (contrasts * (problems - 1))),
    )


def _standard_error(squares: tuple[float, float, float], seeds: int, problems: int) -> tuple[float, float]:
    """Return standard error and degrees of freedom of the mean."""
    of_seeds, of_problems, of_error = squares
    total = of_problems + max(of_seeds - of_error, 0.0)
    if total == 0:
        return 0.0, problems - 1.0
    contrasts = max(seeds - 1, 1)
    freedom = (contrasts, problems - 1, contrasts * (problems - 1))
    df = total**2 / sum(square**2 / one for square, one in zip(squares, freedom, strict=True))
    return (total / (seeds * problems)) ** 0.5, max(df, min(seeds, problems) - 1.0)


# ---------------------------------------------------------------------------------------------- planning
def minimum_detectable_effect(values: np.ndarray, power: float = 0.8, level: float = LEVEL) -> float:
    """Return the smallest true mean that an experiment of this size and variance finds with probability `power`.

    It is (t_{(1 + level) / 2} + t_{power}) se, with se and df of `estimate` [Bloom 1995]. Without any variation, the
    longer half of the interval; and at most 1, as no difference is larger. With 2 or 3 seeds the true power is 73 to 81%
    instead of 80% in simulation.

    Args, Raises: as `estimate`.

    >>> round(minimum_detectable_effect([1, 0, 0, -1, 0, 0, 1, 0, 0, 0]), 3)
    0.565
    """
    found = estimate(values)
    if found["se"] < NO_VARIATION:
        effect = max(found["high"] - found["mean"], found["mean"] - found["low"])
    else:
        effect = float(stdtrit(found["df"], (1 + level) / 2) + stdtrit(found["df"], power)) * found["se"]
    return min(effect, 1.0)


def seeds_to_decide(values: np.ndarray) -> int | None:
    """Return the smallest number of seeds that would decide, if mean, problems and variances were those observed.

    It decides if the interval of `estimate` excludes 0.

    Returns:
        At least 2. None: more than 10,000 are needed, no number suffices, or one seed does not say how seeds vary.

    Args, Raises: as `estimate`.

    >>> seeds_to_decide(0.1 + np.array([[0.3], [-0.2], [-0.1]]) + np.array([[0.1, -0.1] * 50]))
    31
    """
    values = _table(values)
    if len(values) == 1:
        return None
    of_seeds, of_problems, of_error = _mean_squares(values)
    noise = min(of_problems, of_error)  # the rest of the problems' mean square grows with the number of seeds

    def decides(seeds: int) -> bool:
        squares = (of_seeds, noise + (of_problems - noise) * seeds / len(values), of_error)
        return _excludes_zero(values.mean(), squares, seeds, values.shape[1])

    return _smallest(decides, MOST_SEEDS)


def problems_to_decide(values: np.ndarray) -> int | None:
    """Return the smallest number of problems that would decide with the observed seeds; see `seeds_to_decide`.

    None: more than 1,000,000 are needed, or no number suffices.

    >>> problems_to_decide([1, 0, 0, -1, 0, 0, 1, 0, 0, 0])
    127
    """
    values = _table(values)
    of_seeds, of_problems, of_error = _mean_squares(values)
    noise = min(of_seeds, of_error)

    def decides(problems: int) -> bool:
        squares = (noise + (of_seeds - noise) * problems / values.shape[1], of_problems, of_error)
        return _excludes_zero(values.mean(), squares, len(values), problems)

    return _smallest(decides, MOST_PROBLEMS)


def _excludes_zero(mean: float, squares: tuple[float, float, float], seeds: int, problems: int) -> bool:
    se, df = _standard_error(squares, seeds, problems)
    return bool(abs(mean) > stdtrit(df, (1 + LEVEL) / 2) * se)


def _smallest(decides: Callable[[int], bool], most: int) -> int | None:
    """Return the smallest number from 2 to `most` that decides.

    Larger numbers need not decide too: with many problems the seeds make up the error, with fewer degrees of freedom.
    So it is looked for from below, one by one up to 100, then in steps of 1%.
    """
    tried, number = 1, 2
    while number <= most:
        if decides(number):
            return bisect_left(range(tried + 1, number), True, key=decides) + tried + 1
        tried, number = number, max(number + 1, number * 101 // 100)
    return None


# ---------------------------------------------------------------------------------------------- tests
def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Return the exact two-sided p-value of McNemar's (1947) test of a model's two attempts; 1 if nothing changed.

    Args:
        first, second: (problems,) each, right or wrong.

    Raises:
        ValueError: they are not one model's answers to the same problems.

    >>> mcnemar([1] + [0] * 7, [0] + [1] * 7)
    0.0703125
    """
    first, second = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"attempts of shapes {first.shape} and {second.shape} are not pairs")
    changed = [[0, int((first & ~second).sum())], [int((~first & second).sum()), 0]]
    return float(mcnemar_of_table(changed, exact=True).pvalue)


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """Adjust p-values for their number by Holm's (1979) step-down procedure.

    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
    {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    if not p_values:
        return {}
    adjusted = multipletests(list(p_values.values()), method="holm")[1]
    return dict(zip(p_values, adjusted.tolist(), strict=True))


# ---------------------------------------------------------------------------------------------- several samples
def pass_at_k(right: np.ndarray, k: int) -> np.ndarray:
    """Estimate the probability that at least one of k samples is right, for each problem.

    The estimator 1 - C(n - c, k) / C(n, k) of Chen et al. (2021) for c right ones of n is unbiased.

    Args:
        right: (problems, n), right or wrong.
        k: from 1 to n.

    Returns:
        (problems,), in [0, 1].

    Raises:
        ValueError: `right` has another shape, or there is no such k.

    >>> pass_at_k([[1, 1, 1, 0, 0, 0, 0, 0, 0, 0]], 5).round(4).tolist()
    [0.9167]
    """
    right = _samples(right, k)
    n, drawn = right.shape[1], np.arange(k)
    wrong = n - right.sum(1, keepdims=True)
    return 1 - (np.maximum(wrong - drawn, 0) / (n - drawn)).prod(1)


def maj_at_k(answers: list[list[str | None]], right: np.ndarray, k: int) -> np.ndarray:
    """Return the expected accuracy of the most frequent answer among k samples, for each problem.

    The mean goes over all subsets of k samples if they are at most 1,000 (every k for n up to 12), else over 1,000
    subsets drawn with a fixed seed. A tie is broken uniformly; None does not vote; a vote without answers is wrong.

    Args:
        answers: (problems, n), compared as text.
        right: (problems, n), right or wrong; equal answers to a problem are equally right.
        k: from 1 to n.

    Returns:
        (problems,), in [0, 1].

    Raises:
        ValueError: `right` and `answers` differ in shape or have another one, or there is no such k.

    >>> maj_at_k([["7", "7", "8"]], [[1, 1, 0]], 2).round(4).tolist()  # {7, 7}, and twice a tie
    [0.6667]
    """
    right = _samples(right, k)
    table = np.array([list(row) for row in answers], dtype=object)
    if table.shape != right.shape:
        raise ValueError(f"answers of shape {table.shape}, right or wrong of shape {right.shape}")
    n = right.shape[1]
    if comb(n, k) <= MOST_SUBSETS:
        subsets = np.array(list(combinations(range(n), k)))
    else:
        subsets = np.random.default_rng(0).random((MOST_SUBSETS, n)).argsort(1)[:, :k]
    drawn = np.zeros((len(subsets), n))
    np.put_along_axis(drawn, subsets, 1, axis=1)
    known = np.array([[answer is not None for answer in row] for row in table])
    same = (table[:, :, None] == table[:, None, :]).astype(bool) & known[:, :, None]
    votes = (drawn @ same) * drawn  # (problems, subsets, n): votes for the answer of each drawn sample
    # the answers of a tie have equally many samples, so that all of these weigh the same
    leading = (votes == votes.max(2, keepdims=True)) & (votes > 0)
    share = (leading & right[:, None, :]).sum(2) / np.maximum(leading.sum(2), 1)
    return share.mean(1)


def _samples(right: np.ndarray, k: int) -> np.ndarray:
    right = np.asarray(right, dtype=bool)
    if right.ndim != 2:
        raise ValueError(f"right or wrong of shape {right.shape}, not (problems, samples)")
    if not 1 <= k <= right.shape[1]:
        raise ValueError(f"k = {k} of {right.shape[1]} samples; k must lie between 1 and the number of samples")
    return right
