"""What can go wrong in a training, provoked: no gradient that is not finite reaches the weights, what ends a training says
what to do, and the same call goes on from what is whole.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerState

from mgrpo_lib.experiment import fingerprints, store
from mgrpo_lib.experiment import train as module
from mgrpo_lib.experiment.settings import ROOT, load_config
from mgrpo_lib.experiment.train import train
from mgrpo_lib.method import guard as guards
from mgrpo_lib.method import trainer
from mgrpo_lib.method.guard import (
    PATIENCE,
    Guard,
    TrainingError,
    explanation,
    flaw,
    last_checkpoint,
    partial_folder,
    signs,
)

SETTINGS = {"arm": "grpo", "base_steps": 0, "max_steps": 6, "checkpoint_steps": 2}
COMPUTE_LOSS = trainer.MGRPOTrainer._compute_loss


def config(folder, **changes):
    return load_config("smoke", output_root=str(folder), **{**SETTINGS, **changes})


def what_it_left(folder):
    """Weights, metrics and manifest of a finished run, without times."""
    metrics, manifest = store.read_jsonl(folder / "metrics.jsonl"), store.read_json(folder / "run.json")
    rows = [
        {name: value for name, value in row.items() if name not in ("seconds", "step_time")}
        for row in (*metrics, manifest)
    ]
    return load_file(folder / "model" / "model.safetensors"), rows


def assert_same(folder, expected):
    (weights, rows), (others, other_rows) = what_it_left(folder), what_it_left(expected)
    assert rows == other_rows and weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in others)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that nothing happened to."""
    cfg = config(tmp_path_factory.mktemp("whole"))
    train(cfg)
    return cfg.run_folder


def stop_in(monkeypatch, step, error):
    """The next training raises what `error` raises in the step after `step`."""

    def stopping(self, model, inputs):
        if self.state.global_step == step:
            error()
        return COMPUTE_LOSS(self, model, inputs)

    monkeypatch.setattr(trainer.MGRPOTrainer, "_compute_loss", stopping)


def interrupt():
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The output of a run that was stopped after checkpoints 2 and 4."""
    output = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_in(patch, 5, interrupt)
        train(config(output))
    return output


@pytest.fixture
def interrupted(stopped, tmp_path):
    """The same run, as a copy."""
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    return config(tmp_path)


# ---------------------------------------------------------------------------------------------- numbers
def disturb(monkeypatch, steps, how="loss"):
    """Spoils the loss, or one number of one parameter's gradient, in the steps after those; returns the weights and the
    optimizer's state as they were when each step began.
    """
    seen = {}

    def disturbed(self, model, inputs):
        parameters, step = dict(model.named_parameters()), self.state.global_step
        if step not in seen:
            state = self.optimizer.state_dict()["state"] if self.optimizer else {}
            averages = [value.clone() for one in state.values() for value in one.values()]
            seen[step] = [p.detach().clone() for p in parameters.values()] + averages
        loss = COMPUTE_LOSS(self, model, inputs)
        if step in steps and how == "loss":
            return loss * torch.nan
        if step in steps:
            one = torch.zeros_like(parameters["model.norm.weight"])
            one[0] = torch.inf
            handle = parameters["model.norm.weight"].register_hook(lambda grad: (handle.remove(), grad + one)[1])
        return loss

    monkeypatch.setattr(trainer.MGRPOTrainer, "_compute_loss", disturbed)
    return seen


def alike(one, other):
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("how", ["loss", "gradient"])
def test_a_step_whose_gradient_is_not_finite_is_left_out(how, tmp_path, monkeypatch, capsys):
    seen, cfg = disturb(monkeypatch, {3}, how), config(tmp_path)
    manifest = train(cfg)
    assert alike(seen[3], seen[4]), "the weights or Adam's averages moved in the step that is left out"
    assert not alike(seen[2], seen[3]) and not alike(seen[4], seen[5]), "the steps around it train"
    assert manifest["skipped_steps"] == [4] and manifest["steps"] == 6
    assert capsys.readouterr().out.count("step 4: the gradient is not finite; the step is left out") == 1
    lines = (cfg.run_folder / "metrics.jsonl").read_text().splitlines()
    norms = [json.loads(line, parse_constant=pytest.fail)["grad_norm"] for line in lines]
    assert norms[3] is None and all(norm is not None for norm in norms[:3] + norms[4:])
    assert all(value.isfinite().all() for value in load_file(cfg.run_folder / "model" / "model.safetensors").values())


def test_the_third_in_a_row_ends_it_and_the_last_checkpoint_can_be_used(tmp_path, monkeypatch):
    disturb(monkeypatch, {1, 3, 4, 5})
    cfg = config(tmp_path)
    with pytest.raises(
        TrainingError, match="3 steps in a row, up to step 6, .*learning_rate.*from checkpoint-4;"
    ) as ended:
        train(cfg)
    assert "\n" not in str(ended.value), "the chain shows the last line of an error"
    disturb(monkeypatch, set())
    assert train(cfg)["skipped_steps"] == [2, 4], "those before the interruption too"
    assert all(value.isfinite().all() for value in load_file(cfg.run_folder / "model" / "model.safetensors").values())


def test_with_a_loss_scale_the_scaler_skips_and_falls_first():
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    optimizer.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    guard, state = Guard("key"), TrainerState(is_world_process_zero=False)
    scales = []
    with pytest.raises(FloatingPointError):
        for step in range(20):
            state.global_step = step
            optimizer.scaler.scale(weight.sum() * torch.inf).backward()
            optimizer.scaler.unscale_(optimizer)
            scales.append(optimizer.scaler.get_scale())
            guard.on_pre_optimizer_step(SimpleNamespace(device="cpu"), state, None, optimizer=optimizer)
            optimizer.scaler.step(optimizer)
            optimizer.scaler.update()
            optimizer.zero_grad()
    assert scales == [8.0, 4.0, 2.0, 1.0] and guard.skipped_steps == [1, 2, 3, 4]
    assert weight.tolist() == [1.0, 1.0]


def test_sampling_from_numbers_that_are_not_finite_names_the_mend(tmp_path):
    with pytest.raises(RuntimeError) as error:
        torch.multinomial(torch.tensor([0.5, torch.nan]), 1)
    assert "learning_rate (now 0.0002)" in explanation(error.value, config(tmp_path))


# ---------------------------------------------------------------------------------------------- signs
def steps(count, **values):
    return [values] * count


def test_what_is_no_sign_is_not_warned_of():
    healthy = {"frac_reward_zero_std": 0.9, "accuracy": 0.4, "entropy": 0.04, "completions/clipped_ratio": 0.5}
    assert signs(steps(50, **healthy)) == {}
    assert signs(steps(PATIENCE - 1, frac_reward_zero_std=1.0, accuracy=0.0)) == {}, "too short to tell"
    always_low = steps(3 * PATIENCE, entropy=0.005)
    assert signs(always_low) == {}, "it did not fall"
    constant = steps(PATIENCE, **{"layer2/frac_reward_zero_std": 1.0, "layer2/accuracy": 0.0})
    assert signs(constant, layers=2, advantage="progress") == {}, "with r2 - r1 equal rewards are a signal"
    assert list(signs(constant, layers=2)) == ["no signal, layer 2"]


def test_the_reference_runs_give_no_warning():
    files = sorted((ROOT / "results" / "cpu" / "runs").glob("*-seed*/metrics.jsonl"))
    assert files
    for file in files:
        history = store.read_jsonl(file)
        assert not any(signs(history[:step], layers=2) for step in range(len(history) + 1)), file.parent.name


def test_signs_name_what_to_try():
    for right, mend in ((0.0, "Too hard"), (1.0, "Too easy"), (0.5, "higher num_generations")):
        assert mend in signs(steps(PATIENCE, frac_reward_zero_std=1.0, accuracy=right))["no signal, layer 1"]
    cut = signs(steps(PATIENCE, **{"completions/clipped_ratio": 0.95}))
    assert "higher max_completion_length" in cut["cut off, layer 1"]
    formless = signs(steps(PATIENCE, **{"answered": 1.0, "layer2/answered": 0.05}), layers=2)
    assert formless.keys() == {"no answer, layer 2"} and "sft_steps" in formless["no answer, layer 2"]
    fallen = signs(steps(PATIENCE, entropy=0.2) + steps(PATIENCE, entropy=0.004))
    assert "from 0.2 to 0.004" in fallen["entropy collapse, layer 1"]


def test_a_run_without_a_signal_warns_once_a_layer_also_over_an_interruption(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "accuracy_reward", lambda completions, **_: [0.0] * len(completions))
    monkeypatch.setattr(guards, "PATIENCE", 2)
    cfg = config(tmp_path, arm="mgrpo", max_steps=4)
    stop_in(monkeypatch, 3, interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(cfg)
    monkeypatch.setattr(trainer.MGRPOTrainer, "_compute_loss", COMPUTE_LOSS)
    given = train(cfg)["warnings"]
    assert [(one["step"], one["sign"]) for one in given] == [
        (2, "no signal, layer 1"),
        (2, "no signal, layer 2"),
    ]
    text = capsys.readouterr().out
    assert "goes on from checkpoint-2" in text
    assert all(text.count(f"warning, step 2: {one['text']}") == 1 for one in given)
    assert store.read_json(cfg.run_folder / "run.json")["warnings"] == given


def test_a_policy_that_collapses_is_warned_of(tmp_path, monkeypatch):
    """An easy reward, for how often one sign is written, and a learning rate far too high."""
    monkeypatch.setattr(
        module, "accuracy_reward", lambda completions, **_: [float(text.count("5")) for text in completions]
    )
    monkeypatch.setattr(guards, "PATIENCE", 2)
    easy = {"base_steps": 10, "max_steps": 12, "max_completion_length": 8, "checkpoint_steps": 0, "beta": 0}
    cfg = config(tmp_path, learning_rate=3e-2, **easy)
    found = [one for one in train(cfg)["warnings"] if one["sign"] == "entropy collapse, layer 1"]
    entropy = [row["entropy"] for row in store.read_jsonl(cfg.run_folder / "metrics.jsonl")]
    low = [step for step in range(4, 13) if sum(entropy[step - 2 : step]) / 2 < guards.COLLAPSED_ENTROPY]
    assert entropy[0] > 1 and [one["step"] for one in found] == low[:1], "once, and as soon as it has fallen"
    assert "Try a lower learning_rate" in found[0]["text"]


# ---------------------------------------------------------------------------------------------- memory
def on_the_gpu():
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")


def test_out_of_memory_names_what_to_lower_and_where_it_goes_on(tmp_path, monkeypatch):
    cfg = config(tmp_path)
    stop_in(monkeypatch, 3, lambda: torch.empty(2**50))  # torch's own error, of its allocator for CPUs
    with pytest.raises(TrainingError) as ended:
        train(cfg)
    text = str(ended.value)
    assert text.startswith("grpo-seed0: out of memory (RuntimeError") and "\n" not in text
    for mend in ("micro_batch_size (now 8)", "max_completion_length (now 48)", "gradient_checkpointing=true"):
        assert mend in text
    assert "load_in_4bit=true" in text and "goes on from checkpoint-2;" in text
    with pytest.raises(MemoryError) as python:
        bytearray(2**50)
    assert explanation(python.value, cfg).startswith("out of memory")


def test_the_command_line_says_it_in_a_line(tmp_path, monkeypatch, capsys):
    stop_in(monkeypatch, 0, on_the_gpu)
    call = ["train", "--profile", "smoke", "--arm", "grpo", "--out", str(tmp_path), "--params", "base_steps=0"]
    monkeypatch.setattr(sys, "argv", call)
    assert module.main() == 2
    assert "error: grpo-seed0: out of memory (OutOfMemoryError: CUDA out of memory. Tried" in capsys.readouterr().err


def test_other_errors_stay_what_they_are(tmp_path, monkeypatch):
    stop_in(monkeypatch, 1, lambda: {}["no such key"])
    with pytest.raises(KeyError, match="no such key"):
        train(config(tmp_path))
    elsewhere = PermissionError(13, "Permission denied", "/somewhere/data.jsonl")
    assert explanation(elsewhere, config(tmp_path)) is None, "the results can be written"


# ---------------------------------------------------------------------------------------------- disk
@pytest.mark.slow
def test_a_full_disk_ends_it_and_with_room_the_same_call_ends_as_if_nothing_had_been(whole, own_mounts, tmp_path):
    rooms = [900_000, 2_600_000]  # bytes left: too few for Adam's averages, too few for the finished model
    call = [*own_mounts, sys.executable, str(ROOT / "tests" / "experiment" / "full_disk.py")]
    call += [str(tmp_path), json.dumps(SETTINGS), json.dumps(rooms)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(call, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    *full, read_only = json.loads((tmp_path / "found.json").read_text())
    assert [cause for cause, _ in full] == ["RuntimeError", "SafetensorError"]
    for (_, text), room in zip(full, rooms, strict=True):
        assert "could not be written to its end" in text and "GB free: make room (a checkpoint takes" in text
        assert "OUT=folder" in text and "\n" not in text and "goes on from checkpoint-" in text
        assert_same(tmp_path / str(room), whole)
    assert "set aside" not in done.stdout, "what could not be written to its end is gone"
    assert read_only[0] == "OSError" and "cannot be written" in read_only[1] and "OUT=folder" in read_only[1]


def test_a_full_disk_is_known_by_the_words_of_every_library(tokenizer, tmp_path):
    errors = []
    with pytest.raises(OSError) as of_python, open("/dev/full", "w") as file:
        file.write("x")
        file.flush()
    errors.append(of_python)
    (tmp_path / "tokenizer.json").symlink_to("/dev/full")
    with pytest.raises(Exception, match="os error 28") as of_tokenizers:
        tokenizer.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    errors.append(of_tokenizers)
    with pytest.raises(RuntimeError) as of_torch:
        torch.save(torch.zeros(100_000), "/dev/full")
    errors.append(of_torch)
    for error in errors:
        assert "could not be written to its end" in explanation(error.value, config(tmp_path)), error.value


# ---------------------------------------------------------------------------------------------- checkpoints
def test_a_checkpoint_has_its_name_when_it_is_whole_or_is_not_there(whole, tmp_path, monkeypatch, capsys):
    seen, save = [], trainer.MGRPOTrainer._save_rng_state
    cfg = config(tmp_path)
    folder = partial_folder(cfg) / "trainer"
    of_a_killed_one = folder / trainer.UNFINISHED / "checkpoint-2" / "rng_state_9.pth"

    def half_way(self, output_dir):
        seen.append(sorted(path.name for path in folder.glob("checkpoint-*")))
        assert (Path(output_dir) / "model.safetensors").exists()
        if self.state.global_step == 4:
            interrupt()
        save(self, output_dir)

    store.write_json(partial_folder(cfg) / "key.json", {"key": fingerprints.run_key(cfg)})
    store.write_text(of_a_killed_one, "torn")
    monkeypatch.setattr(trainer.MGRPOTrainer, "_save_rng_state", half_way)
    with pytest.raises(KeyboardInterrupt):
        train(cfg)
    assert seen == [[], ["checkpoint-2"]] and not (folder / trainer.UNFINISHED).exists()
    assert flaw(folder / "checkpoint-2", fingerprints.run_key(cfg)) is None
    monkeypatch.setattr(trainer.MGRPOTrainer, "_save_rng_state", save)
    train(cfg)
    text = capsys.readouterr().out
    assert "goes on from checkpoint-2" in text and "set aside" not in text
    assert_same(cfg.run_folder, whole)


def test_a_checkpoint_with_torn_weights_is_set_aside(interrupted, whole, capsys):
    weights = partial_folder(interrupted) / "trainer" / "checkpoint-4" / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    assert (weights.parent / "trainer_state.json").exists()
    train(interrupted)
    text = capsys.readouterr().out
    assert "checkpoint-4 was not written to its end (SafetensorError" in text and "it is set aside" in text
    assert "grpo-seed0 goes on from checkpoint-2" in text
    assert_same(interrupted.run_folder, whole)


def test_each_file_of_a_checkpoint_is_looked_at(interrupted, tmp_path):
    checkpoint = partial_folder(interrupted) / "trainer" / "checkpoint-4"
    assert flaw(checkpoint, fingerprints.run_key(interrupted)) is None
    assert "is of another run" in flaw(checkpoint, "0123456789ab")
    parts = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")
    for name in (*parts, "training_args.bin", "config.json"):
        original = (checkpoint / name).read_bytes()
        (checkpoint / name).write_bytes(original[: len(original) * 2 // 3])
        assert "was not written to its end" in flaw(checkpoint), name
        (checkpoint / name).write_bytes(b"")
        assert "was not written to its end" in flaw(checkpoint), name
        (checkpoint / name).unlink()
        assert (flaw(checkpoint) is not None) == (name in parts), name
        (checkpoint / name).write_bytes(original)
    zeroed = bytearray((checkpoint / "optimizer.pt").read_bytes())
    zeroed[len(zeroed) // 2 :][:4096] = zeroed[len(zeroed) // 2 : len(zeroed) // 2 + 4096] = bytes(4096)
    (checkpoint / "optimizer.pt").write_bytes(zeroed)
    assert "damaged" in flaw(checkpoint)


def test_nothing_of_another_run_is_gone_on_from(interrupted, tmp_path, capsys):
    other = config(tmp_path, learning_rate=1e-4)
    folder, key = partial_folder(interrupted) / "trainer", fingerprints.run_key(other)
    assert last_checkpoint(folder, key) is None
    text = capsys.readouterr().out
    assert "checkpoint-4 is of another run; it is set aside" in text and "checkpoint-2 is of another run" in text
    assert sorted(path.name for path in folder.glob("*checkpoint-*")) == ["aside-checkpoint-2", "aside-checkpoint-4"]
    for path in folder.glob("aside-*"):
        path.rename(folder / path.name.removeprefix("aside-"))
    assert train(other)["steps"] == 6
    text = capsys.readouterr().out
    assert "holds an interrupted training with other parameters" in text and "goes on from" not in text
    assert not list(tmp_path.rglob("*.partial*")), "it is deleted once this one is finished"


def test_a_manifest_that_a_power_cut_left_empty_is_made_again(tmp_path, capsys):
    (tmp_path / "run.json").write_text("")
    assert store.finished(tmp_path / "run.json", "key") is None
    assert "is cut off or damaged" in capsys.readouterr().out


def test_of_three_checkpoints_the_last_two_are_left(tmp_path, monkeypatch):
    saved, save = [], trainer.MGRPOTrainer._save_checkpoint

    def saving(self, *arguments):
        save(self, *arguments)
        saved.append(self.state.global_step)

    monkeypatch.setattr(trainer.MGRPOTrainer, "_save_checkpoint", saving)
    stop_in(monkeypatch, 3, interrupt)
    cfg = config(tmp_path, checkpoint_steps=1)
    with pytest.raises(KeyboardInterrupt):
        train(cfg)
    left = sorted(path.name for path in (partial_folder(cfg) / "trainer").glob("checkpoint-*"))
    assert saved == [1, 2, 3] and left == ["checkpoint-2", "checkpoint-3"]
    monkeypatch.setattr(trainer.MGRPOTrainer, "_compute_loss", COMPUTE_LOSS)
    train(cfg)
    assert not list(tmp_path.rglob("checkpoint-*")), "none of a finished run"


def test_no_checkpoint_nowhere(tmp_path):
    assert last_checkpoint(tmp_path / "nowhere", "key") is None and guards.newest_checkpoint(tmp_path) is None
