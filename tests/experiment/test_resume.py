"""An interrupted training goes on from its last checkpoint, and ends as the uninterrupted one does, bit for bit."""

import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from mgrpo_lib.experiment import store
from mgrpo_lib.experiment import train as module
from mgrpo_lib.experiment.failures import partial_folder
from mgrpo_lib.experiment.settings import ROOT, load_config
from mgrpo_lib.experiment.train import train
from mgrpo_lib.method.trainer import MGRPOTrainer

SETTINGS = {"base_steps": 0, "max_steps": 8, "checkpoint_steps": 2}


def config(folder, arm, **changes):
    return load_config("smoke", arm=arm, seed=0, output_root=str(folder), **{**SETTINGS, **changes})


def start(cfg) -> subprocess.Popen:
    """The run as its command line trains it, in a process of its own."""
    call = [sys.executable, "-m", "mgrpo_lib.experiment.train", "--profile", "smoke", "--arm", cfg.arm]
    call += ["--out", cfg.output_root, "--set", *(f"{name}={getattr(cfg, name)}" for name in SETTINGS)]
    return subprocess.Popen(call, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def what_it_left(cfg):
    """Weights, metrics and manifest of a finished run, without times."""
    (weights,) = (cfg.run_folder / "model").glob("*.safetensors")
    metrics = store.read_jsonl(cfg.run_folder / "metrics.jsonl")
    manifest = store.read_json(cfg.run_folder / "run.json")
    assert not (cfg.run_folder / "key.json").exists() and not (cfg.run_folder / "trainer").exists()
    times = ("seconds", "step_time", "layer2/step_time")
    cut = [{name: value for name, value in row.items() if name not in times} for row in (*metrics, manifest)]
    return load_file(weights), cut


@pytest.mark.parametrize("arm", ["mgrpo", pytest.param("mgrpo_nf4", marks=pytest.mark.slow)])
def test_killed_in_training_it_ends_as_if_it_had_not_been(arm, tmp_path, capsys):
    whole, cfg = config(tmp_path / "whole", arm), config(tmp_path / "killed", arm)
    train(whole)
    process = start(cfg)
    while not (partial_folder(cfg) / "trainer" / "checkpoint-4" / "trainer_state.json").exists():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (cfg.run_folder / "run.json").exists(), "killed before its end"
    if arm == "mgrpo":
        train(cfg)
        text = capsys.readouterr().out
    else:  # the same command again, as a user gives it
        again = start(cfg)
        text, _ = again.communicate(timeout=900)
        assert again.returncode == 0, text
    assert "goes on from checkpoint-" in text
    (weights, rest), (expected, expected_rest) = what_it_left(cfg), what_it_left(whole)
    assert rest == expected_rest and weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_an_interruption_names_the_checkpoint_and_another_run_does_not_use_it(tmp_path, monkeypatch, capsys):
    cfg, compute = config(tmp_path, "grpo"), MGRPOTrainer._compute_loss

    def interrupted(self, model, inputs):
        if self.state.global_step == 5:
            raise KeyboardInterrupt
        return compute(self, model, inputs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(MGRPOTrainer, "_compute_loss", interrupted)
        train(cfg)
    assert "grpo-seed0 stopped; the same call goes on from checkpoint-4" in capsys.readouterr().out
    assert train(config(tmp_path, "grpo", learning_rate=1e-4))["steps"] == 8
    text = capsys.readouterr().out
    assert "other settings" in text and "goes on from" not in text
    assert not list(tmp_path.rglob("*.partial*")), "what was set aside is deleted once this one is finished"
    assert not list(tmp_path.rglob("checkpoint-*"))


def test_stopped_after_the_last_step_nothing_is_trained_again(tmp_path, monkeypatch):
    cfg = config(tmp_path, "grpo")

    def stopped(partial, final):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "_settle", stopped)
        train(cfg)
    monkeypatch.setattr(module, "build_trainer", None)
    assert train(cfg)["steps"] == 8
    what_it_left(cfg)


def test_a_manifest_that_a_power_cut_left_empty_is_made_again(tmp_path, capsys):
    (tmp_path / "run.json").write_text("")
    assert store.finished(tmp_path / "run.json", "key") is None
    assert "run.json" in capsys.readouterr().out
