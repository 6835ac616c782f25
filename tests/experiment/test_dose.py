"""Base models of several doses: what they learn from, and that measuring the fix rate leaves a training as it was."""

import random

import pytest

from mgrpo_lib.experiment.settings import ConfigError, load_config
from mgrpo_lib.experiment.store import read_jsonl
from mgrpo_lib.experiment.train import train
from mgrpo_lib.method.prompts import PHRASES
from mgrpo_lib.tasks import miniature


def _fixed_in_texts(fix_rate: float) -> float:
    """Share of wrong guesses that the second attempts in base texts fix."""
    rng, wrong, fixed = random.Random(0), 0, 0
    while wrong < 400:
        prompt, completion = miniature.base_text(rng, PHRASES, fix_rate=fix_rate)
        if "?=" in prompt and "=0</think>" not in prompt:
            wrong += 1
            fixed += "=0</think>" in completion
    return fixed / wrong


@pytest.mark.parametrize("fix_rate", [0.0, 0.4, 1.0])
def test_texts_fix_the_share_that_is_asked_for(fix_rate):
    assert _fixed_in_texts(fix_rate) == pytest.approx(fix_rate, abs=0.08)


def test_a_measured_training_is_the_same_training(tmp_path):
    small = {"max_steps": 2, "validation_problems": 10, "checkpoint_steps": 1}
    runs = {
        steps: load_config("smoke", arm="mgrpo", probe_steps=steps, output_root=str(tmp_path / str(steps)), **small)
        for steps in (0, 1)
    }
    for run in runs.values():
        train(run)
    plain, probed = (read_jsonl(run.run_folder / "metrics.jsonl") for run in runs.values())
    for row in (*plain, *probed):
        del row["step_time"]
    assert plain == probed
    rows = read_jsonl(runs[1].run_folder / "fix_rate.jsonl")
    assert [row["step"] for row in rows] == [0, 1, 2] and all(0 <= row["fix_rate"] <= 1 for row in rows)


def test_a_base_model_has_its_own_folder_and_fingerprints():
    cfg = load_config("dose", arm="base")
    folders = {cfg.of_base(base).of_arm("mgrpo").run_folder for base in cfg.bases}
    assert len(folders) == len(cfg.bases) and cfg.results not in {folder.parents[1] for folder in folders}
    with pytest.raises(ConfigError, match="fix_1"):
        load_config("dose", base="fix_1")
