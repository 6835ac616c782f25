"""Checkpoints: a resumed training ends as the whole one, bit for bit; a kill or a full disk leaves none that is cut off."""

import errno
import os
import shutil
from functools import partial
from pathlib import Path

import pytest
import tiny
import torch
from tiny import differing, trained_weights, weights

from mgrpo_lib.method.alternating import AlternatingTrainer
from mgrpo_lib.method.checkpoints import UNFINISHED, damage, last_checkpoint, newest_checkpoint
from mgrpo_lib.method.guard import TrainingError
from mgrpo_lib.method.trainer import MGRPOTrainer

SAVING = {"num_corrections": 2, "save_strategy": "steps", "save_steps": 2, "max_steps": 4}


def resumable(trainer, whole) -> None:
    """The resumed trainer ended where the whole one did: weights, optimizer, counts."""
    assert differing(weights(whole), weights(trainer)) == []
    assert trainer.generated_tokens == whole.generated_tokens
    for left, right in zip(whole.optimizer.state.values(), trainer.optimizer.state.values(), strict=True):
        assert all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (MGRPOTrainer, {"beta": 0.05, "lora": True}),
        (AlternatingTrainer, {}),
        (MGRPOTrainer, {"num_layers": 3, "select_drafts": "wrong", "num_iterations": 2}),
    ],
    ids=["lora and kl", "in turn", "three layers, two iterations"],
)
def test_two_steps_and_a_resume_equal_four_steps_bit_for_bit(kind, options, folder, tmp_path):
    build = partial(tiny.build, folder, kind=kind, **SAVING, **options)
    whole = build(out=tmp_path / "whole")
    trained_weights(whole)
    first = build(out=tmp_path / "two")
    first.args.max_steps = 2
    first.train()
    second = build(out=tmp_path / "two")
    second.train(resume_from_checkpoint=str(tmp_path / "two" / "checkpoint-2"))
    assert 0 < first.generated_tokens < second.generated_tokens
    resumable(second, whole)


def stop_while_saving(monkeypatch, step: int, error: BaseException) -> list[list[str]]:
    """Raise when the checkpoint of a step is half written; returns the finished checkpoints at each save."""
    save, seen = MGRPOTrainer._save_rng_state, []

    def half_way(self, output_dir):
        assert (Path(output_dir) / "model.safetensors").exists()
        seen.append(sorted(path.name for path in Path(self.args.output_dir).glob("checkpoint-*")))
        if self.state.global_step == step:
            raise error
        save(self, output_dir)

    monkeypatch.setattr(MGRPOTrainer, "_save_rng_state", half_way)
    return seen


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")], ids=repr)
def test_a_checkpoint_has_its_name_when_it_is_whole_or_is_not_there(error, folder, tmp_path, monkeypatch):
    whole = tiny.build(folder, tmp_path / "whole", **SAVING)
    whole.train()
    out = tmp_path / "stopped"
    torn = out / UNFINISHED / "checkpoint-2" / "rng_state_9.pth"  # of a process that was killed
    torn.parent.mkdir(parents=True)
    torn.write_text("torn")
    with monkeypatch.context() as patch:
        seen = stop_while_saving(patch, 4, error)
        with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else TrainingError):
            tiny.build(folder, out, **SAVING).train()
    assert seen == [[], ["checkpoint-2"]] and not (out / UNFINISHED).exists()
    assert (
        last_checkpoint(out) == newest_checkpoint(out) == out / "checkpoint-2" and damage(out / "checkpoint-2") is None
    )
    assert not (out / "checkpoint-2" / torn.name).exists()
    again = tiny.build(folder, out, **SAVING)
    again.train(resume_from_checkpoint=str(out / "checkpoint-2"))
    resumable(again, whole)


@pytest.mark.parametrize(("metric", "place"), [(None, UNFINISHED), ("reward", ".")])
def test_a_checkpoint_whose_address_is_noted_while_it_is_written_has_it_from_the_start(
    metric, place, make, tmp_path, monkeypatch
):
    seen, save = [], MGRPOTrainer._save_rng_state
    monkeypatch.setattr(MGRPOTrainer, "_save_rng_state", lambda *given: (seen.append(given[1]), save(*given)))
    make(**{**SAVING, "save_steps": 1, "max_steps": 1}, metric_for_best_model=metric).train()
    assert [Path(path) for path in seen] == [tmp_path / place / "checkpoint-1"]
    assert (tmp_path / "checkpoint-1" / "trainer_state.json").exists()


@pytest.fixture(scope="module")
def saved(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("saved")
    tiny.build(folder, out, **{**SAVING, "save_steps": 1, "save_total_limit": 2}).train()
    return out


@pytest.fixture
def copied(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copied")


def test_of_four_checkpoints_the_last_two_are_left(saved):
    assert sorted(path.name for path in saved.glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-4"]


def test_each_file_of_a_checkpoint_is_looked_at(copied):
    checkpoint = copied / "checkpoint-4"
    assert damage(checkpoint) is None
    parts = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")
    for name in (*parts, "training_args.bin", "config.json"):
        original = (checkpoint / name).read_bytes()
        for content in (original[: len(original) * 2 // 3], b""):
            (checkpoint / name).write_bytes(content)
            assert damage(checkpoint) and damage(checkpoint, checksums=False), name
        (checkpoint / name).unlink()
        assert (damage(checkpoint) is not None) == (name in parts), name
        (checkpoint / name).write_bytes(original)
    zeroed = bytearray((checkpoint / "optimizer.pt").read_bytes())
    zeroed[len(zeroed) // 2 : len(zeroed) // 2 + 4096] = bytes(4096)
    (checkpoint / "optimizer.pt").write_bytes(zeroed)
    assert "optimizer.pt" in damage(checkpoint)


def test_the_optimizer_of_deepspeed_lies_in_a_folder(copied):
    checkpoint = copied / "checkpoint-4"
    (checkpoint / "global_step4").mkdir()
    state = checkpoint / "global_step4" / "zero_pp_rank_0_mp_rank_00_optim_states.pt"
    (checkpoint / "optimizer.pt").rename(state)
    assert damage(checkpoint) is None
    os.truncate(state, state.stat().st_size // 2)
    assert damage(checkpoint), "it is looked at, too"
    state.unlink()
    assert damage(checkpoint)


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_is_taken(copied, capsys):
    torn = copied / "checkpoint-4" / "model.safetensors"
    os.truncate(torn, torn.stat().st_size // 2)
    assert newest_checkpoint(copied) == copied / "checkpoint-3" and torn.exists(), "a glance moves nothing"
    for _ in range(2):
        assert last_checkpoint(copied) == copied / "checkpoint-3"
    assert "checkpoint-4" in capsys.readouterr().out
    assert sorted(path.name for path in copied.glob("*checkpoint-*")) == ["aside-checkpoint-4", "checkpoint-3"]


def test_of_checkpoints_9_and_10_the_newer_is_10(copied):
    (copied / "checkpoint-3").rename(copied / "checkpoint-9")
    (copied / "checkpoint-4").rename(copied / "checkpoint-10")
    assert last_checkpoint(copied) == newest_checkpoint(copied) == copied / "checkpoint-10"


def test_no_checkpoint_nowhere(tmp_path):
    assert last_checkpoint(tmp_path / "nowhere") is None and newest_checkpoint(tmp_path) is None
