"""A training of a profile that memory, disk or numbers end: the message names the profile's settings, and where the same
call goes on.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mgrpo_lib.experiment import store
from mgrpo_lib.experiment import train as module
from mgrpo_lib.experiment.settings import ROOT, load_config
from mgrpo_lib.experiment.train import train
from mgrpo_lib.method.guard import TrainingError
from mgrpo_lib.method.trainer import MGRPOTrainer

SETTINGS = {"arm": "grpo", "base_steps": 0, "max_steps": 6, "checkpoint_steps": 2}
COMPUTE_LOSS = MGRPOTrainer._compute_loss


def config(folder, **changes):
    return load_config("smoke", output_root=str(folder), **{**SETTINGS, **changes})


def stop_in(monkeypatch, step, error):
    """The next training raises what `error` raises in the step after `step`."""

    def stopping(self, model, inputs):
        if self.state.global_step == step:
            error()
        return COMPUTE_LOSS(self, model, inputs)

    monkeypatch.setattr(MGRPOTrainer, "_compute_loss", stopping)


def not_finite(monkeypatch, steps):
    monkeypatch.setattr(
        MGRPOTrainer,
        "_compute_loss",
        lambda self, *given: COMPUTE_LOSS(self, *given) * (torch.nan if self.state.global_step in steps else 1),
    )


def test_numbers_name_learning_rate_and_beta_and_skipped_steps_are_in_the_manifest(tmp_path, monkeypatch):
    not_finite(monkeypatch, {1, 3, 4, 5})
    cfg = config(tmp_path)
    with pytest.raises(TrainingError, match="grpo-seed0.*learning_rate .now 0.0002.*beta.*checkpoint-4") as ended:
        train(cfg)
    assert ended.value.kind == "numbers" and "\n" not in str(ended.value)
    not_finite(monkeypatch, {4})
    assert train(cfg)["skipped_steps"] == [2, 4, 5], "those before the interruption too"
    lines = (cfg.run_folder / "metrics.jsonl").read_text().splitlines()
    norms = [json.loads(line, parse_constant=pytest.fail)["grad_norm"] for line in lines]
    assert [norm is None for norm in norms] == [False, True, False, True, True, False], "JSON has no NaN"


def test_memory_names_what_to_lower(tmp_path, monkeypatch):
    stop_in(monkeypatch, 3, lambda: torch.empty(2**50))  # torch's own error, of its allocator for CPUs
    with pytest.raises(TrainingError) as ended:
        train(config(tmp_path))
    named = ["grpo-seed0", "micro_batch_size (now 8)", "max_completion_length (now 48)", "gradient_checkpointing=true"]
    named += ["lora_rank=16", "load_in_4bit=true", "make plan PROFILE=smoke", "checkpoint-2"]
    assert ended.value.kind == "memory" and all(name in str(ended.value) for name in named), ended.value


def test_the_command_line_says_it_in_a_line(tmp_path, monkeypatch, capsys):
    def on_the_gpu():
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")

    stop_in(monkeypatch, 0, on_the_gpu)
    call = ["train", "--profile", "smoke", "--arm", "grpo", "--out", str(tmp_path), "--set", "base_steps=0"]
    monkeypatch.setattr(sys, "argv", call)
    assert module.main() == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: grpo-seed0" in line]
    assert "OutOfMemoryError" in line and "micro_batch_size" in line


@pytest.mark.slow
def test_a_full_disk_ends_it_and_with_room_the_same_call_ends_as_if_nothing_had_been(own_mounts, tmp_path):
    whole = config(tmp_path / "whole")
    train(whole)
    rooms = [900_000, 2_600_000]  # bytes left: too few for Adam's averages, too few for the finished model
    call = [*own_mounts, sys.executable, str(Path(__file__).with_name("full_disk.py"))]
    call += [str(tmp_path), json.dumps(SETTINGS), json.dumps(rooms)]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    *full, read_only = json.loads((tmp_path / "found.json").read_text())
    assert [cause for cause, _ in full] == ["RuntimeError", "SafetensorError"]
    for (_, text), room in zip(full, rooms, strict=True):
        assert (
            all(name in text for name in ("GB free", "checkpoint_steps=0", "OUT=", "checkpoint-")) and "\n" not in text
        )
        folders = whole.run_folder, tmp_path / str(room)
        weights = [load_file(folder / "model" / "model.safetensors") for folder in folders]
        assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
        metrics = [store.read_jsonl(folder / "metrics.jsonl") for folder in folders]
        assert [{**one, "step_time": 0} for one in metrics[0]] == [{**one, "step_time": 0} for one in metrics[1]]
    assert "set aside" not in done.stdout, "what could not be written to its end is gone"
    assert read_only[0] == "OSError" and "writable" in read_only[1] and "OUT=" in read_only[1]
