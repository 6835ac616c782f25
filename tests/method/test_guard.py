"""What can go wrong in a training, provoked: no gradient that is not finite reaches the weights, and what ends a training
says what to change.
"""

import errno
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
from tiny import logged
from transformers import TrainerState

from mgrpo_lib.method import guard as guards
from mgrpo_lib.method.guard import PATIENCE, Guard, TrainingError, reason, signs
from mgrpo_lib.method.logged import CORRECTIONS, LAYER, LAYER_BESIDE, RUN, RUN_BESIDE
from mgrpo_lib.method.trainer import MGRPOTrainer

SAVING = {"num_layers": 1, "max_steps": 6, "save_strategy": "steps", "save_steps": 2}
COMPUTE_LOSS = MGRPOTrainer._compute_loss


def stop_in(monkeypatch, step: int, error) -> None:
    """Raise what `error` raises in the step after `step`."""

    def stopping(self, model, inputs):
        if self.state.global_step == step:
            error()
        return COMPUTE_LOSS(self, model, inputs)

    monkeypatch.setattr(MGRPOTrainer, "_compute_loss", stopping)


# ---------------------------------------------------------------------------------------------- numbers
def disturb(monkeypatch, steps: set[int], how: str = "loss") -> dict[int, list[torch.Tensor]]:
    """Spoil the loss, or one number of one gradient, in the steps after those; returns weights and optimizer state as they
    were when each step began.
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

    monkeypatch.setattr(MGRPOTrainer, "_compute_loss", disturbed)
    return seen


def alike(one: list, other: list) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("how", ["loss", "gradient"])
def test_a_step_whose_gradient_is_not_finite_is_left_out(how, make, monkeypatch, capsys):
    seen, trainer = disturb(monkeypatch, {3}, how), make(num_corrections=2, max_steps=6)
    trainer.train()
    assert alike(seen[3], seen[4]), "the weights or Adam's averages moved in the step that is left out"
    assert not alike(seen[2], seen[3]) and not alike(seen[4], seen[5]), "the steps around it train"
    assert trainer.guard.skipped_steps == [4] and trainer.state.global_step == 6
    assert capsys.readouterr().out.count("step 4: the gradient is not finite") == 1
    norms = torch.tensor([float(entry["grad_norm"]) for entry in logged(trainer)])
    assert norms.isfinite().tolist() == [True] * 3 + [False] + [True] * 2
    assert all(p.isfinite().all() for p in trainer.model.parameters())


def test_the_third_in_a_row_ends_it_and_a_resume_knows_those_before(make, tmp_path, monkeypatch):
    disturb(monkeypatch, {1, 3, 4, 5})
    with pytest.raises(TrainingError, match="up to step 6.*learning_rate.*0.01.*beta.*checkpoint-4") as ended:
        make(**SAVING).train()
    assert ended.value.kind == "numbers" and isinstance(ended.value.__cause__, FloatingPointError)
    assert "\n" not in str(ended.value), "a notebook shows the last line of an error"
    disturb(monkeypatch, set())
    again = make(**SAVING)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert again.guard.skipped_steps == [2, 4]


def test_with_a_loss_scale_the_scaler_skips_and_falls_first():
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    optimizer.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    guard, state, scales = Guard(), TrainerState(is_world_process_zero=False), []
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


# ---------------------------------------------------------------------------------------------- signs
def steps(count: int, **values) -> list[dict]:
    return [values] * count


def test_what_is_no_sign_is_not_warned_of():
    healthy = {"frac_reward_zero_std": 0.9, "accuracy": 0.4, "entropy": 0.04, "completions/clipped_ratio": 0.5}
    assert signs(steps(50, **healthy, answered=0.5)) == {}
    assert signs(steps(PATIENCE - 1, frac_reward_zero_std=1.0, accuracy=0.0)) == {}, "too short to tell"
    assert signs(steps(3 * PATIENCE, entropy=0.005)) == {}, "it did not fall"
    alike = constant(0.0, "layer2/")
    assert signs(alike, layers=2, advantage="progress") == {}, "with r2 - r1 equal rewards are a signal"


def test_the_committed_runs_give_no_warning():
    files = sorted(Path(__file__).parents[2].glob("results/cpu/runs/*-seed*/metrics.jsonl"))
    assert files
    for file in files:
        history = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        assert not any(signs(history[:step], layers=2) for step in range(len(history) + 1)), file.parent.name


def constant(right: float, prefix: str = "") -> list[dict]:
    return steps(PATIENCE, **{f"{prefix}frac_reward_zero_std": 1.0, f"{prefix}accuracy": right})


FALLEN = steps(PATIENCE, entropy=0.2) + steps(PATIENCE, entropy=0.004)
CUT_OFF = steps(PATIENCE, **{"completions/clipped_ratio": 0.95})
FORMLESS = steps(PATIENCE, **{"answered": 1.0, "layer2/answered": 0.05})


@pytest.mark.parametrize(
    ("history", "sign", "named"),
    [
        (constant(0.0), "no signal, layer 1", ["num_generations", "warm-up"]),
        (constant(1.0), "no signal, layer 1", ["harder questions"]),
        (constant(0.5), "no signal, layer 1", ["num_generations"]),
        (constant(0.0, "layer2/"), "no signal, layer 2", ["num_corrections"]),
        (constant(1.0, "layer2/"), "no signal, layer 2", ["select_drafts='wrong'"]),
        (CUT_OFF, "cut off, layer 1", ["max_completion_length", "90%"]),
        (FORMLESS, "no answer, layer 2", ["sft_steps", "5%", "max_completion_length"]),
        (FALLEN, "entropy collapse, layer 1", ["0.2", "0.004", "learning_rate", "temperature"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_sign_names_what_was_seen_and_what_to_try(history, sign, named):
    found = signs(history, layers=2)
    assert list(found) == [sign] and all(name in found[sign] for name in named), found


def test_a_run_without_a_signal_warns_once_a_layer_also_over_an_interruption(make, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(guards, "PATIENCE", 2)
    options = {"reward": lambda completions, **_: [0.0] * len(completions), "max_completion_length": 40}
    options |= {**SAVING, "num_layers": 2, "max_steps": 4}

    def interrupt():
        raise KeyboardInterrupt

    stop_in(monkeypatch, 3, interrupt)
    with pytest.raises(KeyboardInterrupt):
        make(**options).train()
    monkeypatch.setattr(MGRPOTrainer, "_compute_loss", COMPUTE_LOSS)
    again = make(**options)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    given = [one for one in again.guard.warnings if one["sign"].startswith("no signal")]
    assert [(one["step"], one["sign"]) for one in given] == [(2, "no signal, layer 1"), (2, "no signal, layer 2")]
    text = capsys.readouterr().out
    assert all(text.count(one["text"]) == 1 for one in given)


def test_what_is_logged_is_what_is_described(make):
    def answering(completions, log_metric, **kwargs):
        log_metric("answered", 0.5)
        return tiny.parity(completions)

    trainer = make(num_corrections=2, beta=0.01, max_steps=1, reward=answering, given={"answer_of": len})
    trainer.train()
    layers = {name.replace("NAME", "answering") for name in LAYER | LAYER_BESIDE}
    later = {f"layer2/{name}" for name in layers | CORRECTIONS.keys()}
    assert trainer.state.log_history[0].keys() == RUN.keys() | RUN_BESIDE.keys() | layers | later


# ---------------------------------------------------------------------------------------------- memory and disk
def on_the_gpu():
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")


def on_the_cpu():
    torch.empty(2**50)  # torch's own error, of its allocator for CPUs


def of_the_disk():
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("error", "kind", "named"),
    [
        (on_the_gpu, "memory", ["OutOfMemoryError", "per_device_train_batch_size (now 8)", "gradient_checkpointing"]),
        (on_the_cpu, "memory", ["RuntimeError", "max_completion_length (now 12)", "LoRA", "4 bits"]),
        (lambda: bytearray(2**60), "memory", ["MemoryError", "num_generations (now 4)"]),
        (of_the_disk, "disk", ["OSError", "GB free", "save_steps", "output_dir"]),
    ],
)
def test_what_ends_a_training_names_the_settings_and_the_checkpoint(error, kind, named, make, tmp_path, monkeypatch):
    stop_in(monkeypatch, 3, error)
    with pytest.raises(TrainingError) as ended:
        make(**SAVING).train()
    text = str(ended.value)
    assert ended.value.kind == kind and ended.value.__cause__ is not None and "\n" not in text
    assert all(name in text for name in [*named, str(tmp_path / "checkpoint-2")]), text


def test_without_a_checkpoint_it_says_so(make, monkeypatch):
    stop_in(monkeypatch, 1, on_the_gpu)
    with pytest.raises(TrainingError, match="No checkpoint"):
        make(num_layers=1).train()


def test_other_errors_stay_what_they_are(make, tmp_path, monkeypatch):
    stop_in(monkeypatch, 1, lambda: {}["no such key"])
    with pytest.raises(KeyError, match="no such key"):
        make(num_layers=1).train()
    elsewhere = PermissionError(13, "Permission denied", "/somewhere/data.jsonl")
    assert reason(elsewhere, tmp_path) is None, "the training's own folder can be written"
    assert reason(PermissionError(13, "Permission denied", str(tmp_path / "run.json")), tmp_path)[0] == "closed"
    assert reason(OSError(errno.EROFS, "Read-only file system"), tmp_path)[0] == "closed"


def test_each_kind_is_known_by_the_words_of_every_library(tmp_path):
    (tmp_path / "tokenizer.json").symlink_to("/dev/full")

    def of_python():
        with open("/dev/full", "w") as file:
            file.write("x")

    for kind, error in (
        ("disk", of_python),
        ("disk", lambda: tiny.make_tokenizer().backend_tokenizer.save(str(tmp_path / "tokenizer.json"))),
        ("disk", lambda: torch.save(torch.zeros(100_000), "/dev/full")),
        ("numbers", lambda: torch.multinomial(torch.tensor([0.5, torch.nan]), 1)),
    ):
        with pytest.raises(Exception) as raised:  # noqa: B017 (tokenizers raises no kind of its own)
            error()
        assert reason(raised.value, tmp_path)[0] == kind, raised.value
        wrapped = RuntimeError("while saving")
        wrapped.__cause__ = raised.value
        assert reason(wrapped, tmp_path)[0] == kind
