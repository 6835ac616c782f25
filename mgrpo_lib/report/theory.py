"""Why rare corrections take off late: a theory with one constant, and what Adam makes of it (no torch).

A group of H corrections of a wrong draft, k of them right. With group-normalised advantages its gradient pushes the logit of
the fix rate p by sqrt(k (H - k)) / H. Over groups, with k binomial, the mean push is `push`, and the logit rises as

    d logit(p) / dt = rate * push(p, H)

with one constant, `rate`, per step. For small p the push is p sqrt(H - 1), so take-off comes after a time in proportion to
1 / dose. Adam divides by the root mean square of the push. Then it goes as sqrt(p), and the time as 1 / sqrt(dose).
"""

import math

import numpy as np
from scipy.optimize import minimize_scalar

HALF = 0.5  # fix rate of take-off
NEVER = 20_000  # steps; a later take-off is none


def push(p: np.ndarray, group: int, adam: bool = False) -> np.ndarray:
    """Return the mean push of a group's gradient on the logit of the fix rate: E sqrt(k (H - k)) / H, k ~ Binomial(H, p).

    Args:
        p: fix rates, in (0, 1) with `adam`.
        group: corrections of a draft, H.
        adam: divided by the root of the mean square, sqrt(p (1 - p) (H - 1) / H).

    >>> push(np.array([0.0, 0.5]), 2).tolist()  # half of the pairs differ, each pushes by 1/2
    [0.0, 0.25]
    """
    p = np.asarray(p, dtype=float)
    each = [math.comb(group, k) * p**k * (1 - p) ** (group - k) * math.sqrt(k * (group - k)) for k in range(1, group)]
    mean = sum(each) / group
    return mean / np.sqrt(p * (1 - p) * (group - 1) / group) if adam else mean


def curve(dose: float, rate: float, steps: int, group: int, adam: bool = False) -> np.ndarray:
    """Return the fix rate at steps 0 to `steps`, by the theory.

    Args:
        dose: fix rate before the first step, in (0, 1).
        rate: the fitted constant, per step.
        group, adam: as in `push`.
    """
    logit = math.log(dose / (1 - dose))
    rates = [dose]
    for _ in range(steps):
        for _ in range(2):  # half steps: the solution is smooth
            logit = min(logit + rate / 2 * float(push(1 / (1 + math.exp(-logit)), group, adam)), 30.0)
        rates.append(1 / (1 + math.exp(-logit)))
    return np.array(rates)


def half_after(dose: float, rate: float, group: int, adam: bool = False) -> int | None:
    """Return the step at which the theory fixes half of the wrong drafts; None: not within `NEVER` steps."""
    logit = math.log(dose / (1 - dose))
    for step in range(NEVER):
        if logit >= 0:
            return step
        logit += rate * float(push(1 / (1 + math.exp(-logit)), group, adam))
    return None


def squared_error(rate: float, doses: list[float], measured: list[list[dict]], group: int, adam: bool = False) -> float:
    """Return the mean squared difference between `curve` and measured fix rates.

    Args:
        doses: of each training.
        measured: rows ``step, fix_rate`` of each training.
    """
    misses = []
    for dose, rows in zip(doses, measured, strict=True):
        rates = curve(dose, rate, rows[-1]["step"], group, adam)
        misses += [(rates[row["step"]] - row["fix_rate"]) ** 2 for row in rows]
    return float(np.mean(misses))


def fitted_rate(doses: list[float], measured: list[list[dict]], group: int, adam: bool = False) -> float:
    """Return the constant with the smallest `squared_error`."""

    def miss(log_rate: float) -> float:
        return squared_error(math.exp(log_rate), doses, measured, group, adam)

    tried = np.linspace(math.log(1e-3), math.log(10), 25)  # the error has flat ends
    best = tried[np.argmin([miss(x) for x in tried])]
    return math.exp(minimize_scalar(miss, bounds=(best - 0.5, best + 0.5), method="bounded").x)


def take_off(rows: list[dict]) -> int | None:
    """Return the first measured step whose fix rate is one half or more; None: none was."""
    return next((row["step"] for row in rows if row["fix_rate"] >= HALF), None)


def passed_half(rows: list[dict]) -> float | None:
    """Return the step at which the fix rate passes one half, on the line between two measured steps; None: it does not."""
    last = None
    for row in rows:
        if row["fix_rate"] >= HALF:
            if last is None:
                return float(row["step"])
            part = (HALF - last["fix_rate"]) / (row["fix_rate"] - last["fix_rate"])
            return last["step"] + part * (row["step"] - last["step"])
        last = row
    return None
