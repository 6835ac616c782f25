"""Decoding passes of one and two rounds of sampling: against enumeration, and of the committed runs."""

from itertools import product
from statistics import mean

import pytest

from mgrpo_lib.experiment.settings import load_config
from mgrpo_lib.report import waiting


def test_the_longest_row_is_that_of_all_ways_to_draw():
    one, other = [1, 2, 2, 5], [3, 4]
    assert waiting.expected_longest((one, 1)) == pytest.approx(mean(one))
    assert waiting.expected_longest((one, 3)) == pytest.approx(mean(map(max, product(one, repeat=3))))
    both = [max(*first, *second) for first in product(one, repeat=2) for second in product(other, repeat=2)]
    assert waiting.expected_longest((one, 2), (other, 2)) == pytest.approx(mean(both))
    assert waiting.expected_longest((one, 10_000)) == pytest.approx(5)


def test_passes_of_a_step_by_hand():
    found = waiting.passes(drafts=[4, 10], corrections=[9, 2], plain=[7], rows=(1000, 1000, 1000))
    expected = {"two rounds": 10 + 9, "as drafts end": 13, "beside the next drafts": 10, "baseline": 7}
    assert found == {way: pytest.approx(number) for way, number in expected.items()}


def test_the_committed_runs_have_the_order_that_must_hold():
    cfg = load_config("smollm2_gpu", arm="base", output_root=".")
    assert waiting.shape(cfg) == (256, 128, 384)
    for benchmark in cfg.benchmarks:
        ways = waiting.of_recorded_attempts(cfg, benchmark)
        assert ways["beside the next drafts"] < ways["as drafts end"] <= ways["two rounds"] + 1e-9
    method, baseline = waiting.steps(cfg, "mgrpo"), waiting.steps(cfg, "grpo_matched")
    assert method["all"] == cfg.max_steps * len(cfg.seeds) and method["number"] == cfg.max_steps
    assert baseline["long_corrections"] == 0 and method["seconds"] > baseline["seconds"]
