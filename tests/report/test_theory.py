"""The theory of take-off: its push by simulation, its curve by the closed form, its constant from curves with a known one."""

import numpy as np
import pytest

from mgrpo_lib.report.statistics import accuracy_interval
from mgrpo_lib.report.theory import curve, fitted_rate, half_after, passed_half, push, take_off


@pytest.mark.parametrize("p", [0.03, 0.3, 0.8])
def test_the_push_is_the_mean_gradient_of_normalised_groups(p):
    """The policy gradient of one logit, summed over groups that are sampled: advantages times scores."""
    right = np.random.default_rng(0).random((400_000, 4)) < p
    spread = right.std(1, keepdims=True)
    advantages = np.divide(right - right.mean(1, keepdims=True), spread, where=spread > 0, out=np.zeros(right.shape))
    scores = np.where(right, 1 - p, -p)  # of log p and log(1 - p) by the logit
    pushes = (advantages * scores).mean(1)
    assert push(np.array(p), 4) == pytest.approx(pushes.mean(), rel=0.02)
    assert push(np.array(p), 4, adam=True) == pytest.approx(pushes.mean() / (pushes**2).mean() ** 0.5, rel=0.02)


def test_rare_fixes_take_off_in_proportion_to_one_over_the_dose():
    """For small p the solution is 1 / dose - 1 / p = rate sqrt(H - 1) t."""
    rates = curve(0.002, 0.5, 200, 4)
    assert 1 / 0.002 - 1 / rates[200] == pytest.approx(0.5 * 3**0.5 * 200, rel=0.01)
    for adam, times in ((False, 10), (True, 10**0.5)):
        halves = [half_after(dose, 0.1, 4, adam) for dose in (0.004, 0.0004)]
        assert halves[1] / halves[0] == pytest.approx(times, rel=0.1)
    assert half_after(0.01, 0.5, 4) == pytest.approx(int(np.argmax(curve(0.01, 0.5, 3000, 4) >= 0.5)), abs=2)


@pytest.mark.parametrize("adam", [False, True])
def test_the_constant_is_found(adam):
    doses, true = [0.01, 0.05, 0.2], 0.1 if adam else 0.7
    curves = [curve(dose, true, 120, 4, adam) for dose in doses]
    paths = [[{"step": step, "fix_rate": rates[step]} for step in range(0, 121, 6)] for rates in curves]
    assert fitted_rate(doses, paths, 4, adam) == pytest.approx(true, rel=0.01)
    assert take_off(paths[2]) == next(row["step"] for row in paths[2] if row["fix_rate"] >= 0.5)
    assert take_off(paths[0][:2]) is None and passed_half(paths[0][:2]) is None
    assert passed_half(paths[2]) == pytest.approx(half_after(doses[2], true, 4, adam), abs=2)


def test_take_off_is_read_between_two_measured_steps():
    rates = [{"step": 0, "fix_rate": 0.1}, {"step": 6, "fix_rate": 0.4}, {"step": 12, "fix_rate": 0.7}]
    assert passed_half(rates) == pytest.approx(8) and take_off(rates) == 12
    assert passed_half(rates[2:]) == 12 and passed_half(rates[:2]) is None


@pytest.mark.parametrize("alike", [0.5, 50])
@pytest.mark.parametrize("samples", [2, 4])
@pytest.mark.parametrize(
    "mean, problems", [(0.005, 270), (0.02, 100), (0.05, 20), (0.05, 40), (0.05, 60), (0.3, 30), (0.8, 60)]
)
def test_the_interval_of_a_fix_rate_covers_the_true_one(mean, problems, samples, alike):
    """1,000 simulated models: corrections of each wrong draft, at that draft's own rate; the rates differ or not."""
    rng, inside = np.random.default_rng(1), 0
    for _ in range(1000):
        rates = rng.beta(alike * mean / (1 - mean), alike, problems)
        low, high = accuracy_interval(rng.binomial(samples, rates) / samples, rare=True)
        inside += low <= mean <= high
    assert inside >= 930
