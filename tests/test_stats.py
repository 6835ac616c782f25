"""Transitions and intervals."""

import numpy as np
import pytest

from mgrpo_lib.stats import bootstrap, group_advantages, transitions


def test_transitions_obey_the_identity():
    rng = np.random.default_rng(0)
    first, second = rng.random((3, 200)) < 0.6, rng.random((3, 200)) < 0.7
    t = transitions(first, second)
    assert t["acc_t2"] == pytest.approx(t["acc_t1"] + t["i_to_c"] - t["c_to_i"], abs=1e-12)
    assert t["delta_t1_t2"] == pytest.approx(t["acc_t2"] - t["acc_t1"], abs=1e-12)


def test_attempts_of_different_problems_are_refused():
    with pytest.raises(ValueError, match="cannot be compared"):
        transitions(np.ones((1, 3)), np.ones((1, 4)))
    with pytest.raises(ValueError, match="cannot be compared"):
        transitions(np.ones((1, 0)), np.ones((1, 0)))


def test_bootstrap_over_one_seed_is_close_to_the_binomial_interval():
    values = np.array([1] * 180 + [0] * 120)
    low, high = bootstrap(values)
    half = 1.96 * np.sqrt(0.6 * 0.4 / 300)
    assert low == pytest.approx(0.6 - half, abs=0.008) and high == pytest.approx(0.6 + half, abs=0.008)
    assert bootstrap(values) == (low, high), "the same data give the same interval"
    assert bootstrap(np.ones((3, 50))) == (1.0, 1.0)


def test_bootstrap_feels_the_seeds():
    rng = np.random.default_rng(1)
    agreeing = np.tile(rng.random(300) < 0.6, (3, 1))
    disagreeing = np.stack([rng.random(300) < p for p in (0.4, 0.6, 0.8)])
    width = [high - low for low, high in (bootstrap(agreeing), bootstrap(disagreeing))]
    assert width[1] > 1.8 * width[0]


def test_bootstrap_covers_over_problems():
    """Of 300 simulated experiments with one seed, about 95% of the intervals hold the truth."""
    rng = np.random.default_rng(2)
    hits = [
        low <= 0.7 <= high for low, high in (bootstrap(rng.random(200) < 0.7, draws=400, seed=i) for i in range(300))
    ]
    assert 0.91 <= np.mean(hits) <= 0.98


def test_advantages_of_a_group_without_variance_are_zero():
    advantages = group_advantages([[1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0]])
    assert not advantages[:2].any()
    assert advantages[2].sum() == pytest.approx(0, abs=1e-9) and advantages[2, 0] > 0
