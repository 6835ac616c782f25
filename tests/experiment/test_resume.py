"""An interrupted training goes on from its last checkpoint, and ends as the uninterrupted one does, bit for bit."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from mgrpo_lib.experiment import store
from mgrpo_lib.experiment.settings import ROOT, load_config
from mgrpo_lib.experiment.train import train

SETTINGS = {"base_steps": 0, "max_steps": 8, "checkpoint_steps": 2}


def config(folder, arm, **changes):
    return load_config("smoke", arm=arm, seed=0, output_root=str(folder), **{**SETTINGS, **changes})


def start(cfg) -> subprocess.Popen:
    """The run as its command line trains it, in a process of its own."""
    call = [
        sys.executable,
        "-m",
        "mgrpo_lib.experiment.train",
        "--profile",
        "smoke",
        "--arm",
        cfg.arm,
        "--out",
        cfg.output_root,
    ]
    call += ["--params", " ".join(f"{name}={getattr(cfg, name)}" for name in SETTINGS)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        call, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def partial(cfg):
    return cfg.run_folder.with_name(f".{cfg.run_name}.partial")


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
    whole = config(tmp_path / "whole", arm)
    train(whole)
    cfg = config(tmp_path / "killed", arm)
    process = start(cfg)
    while not (partial(cfg) / "trainer" / "checkpoint-4" / "trainer_state.json").exists():
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
        text, _ = again.communicate(timeout=300)
        assert again.returncode == 0, text
    assert "goes on from checkpoint-" in text
    (weights, rest), (expected, expected_rest) = what_it_left(cfg), what_it_left(whole)
    assert rest == expected_rest and weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_an_interruption_says_what_is_kept_and_a_second_call_uses_it(tmp_path, monkeypatch, capsys):
    from mgrpo_lib.method import trainer

    cfg, original = config(tmp_path, "grpo"), trainer.MGRPOTrainer._compute_loss
    losses = []

    def interrupted(self, model, inputs):
        losses.append(self.state.global_step)
        if self.state.global_step == 5:
            raise KeyboardInterrupt
        return original(self, model, inputs)

    monkeypatch.setattr(trainer.MGRPOTrainer, "_compute_loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(cfg)
    assert "grpo-seed0 stopped; the same call goes on from checkpoint-4" in capsys.readouterr().out
    monkeypatch.setattr(trainer.MGRPOTrainer, "_compute_loss", original)
    other = config(tmp_path, "grpo", learning_rate=1e-4)
    assert train(other)["steps"] == 8 and "goes on" not in capsys.readouterr().out, (
        "another run's checkpoint is foreign"
    )


def test_stopped_after_the_last_step_nothing_is_trained_again(tmp_path, monkeypatch):
    from mgrpo_lib.experiment import train as module

    cfg, settle = config(tmp_path, "grpo"), module._settle
    monkeypatch.setattr(module, "_settle", lambda partial, final: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train(cfg)
    monkeypatch.setattr(module, "_settle", settle)
    monkeypatch.setattr(module, "build_trainer", None)
    assert train(cfg)["steps"] == 8
    what_it_left(cfg)
