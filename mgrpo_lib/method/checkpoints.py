"""Checkpoints that a run can be resumed from: written under another name first, and looked at before they are used."""

import json
import os
import shutil
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints
from trl import GRPOTrainer

UNFINISHED = ".unfinished"  # folder of a checkpoint while it is written
# parts of a checkpoint, in the order in which transformers writes them; the trainer's state is its last file. With FSDP the
# adapter or the weights and the optimizer's state have other names, of which these patterns know the beginning; with DeepSpeed the
# optimizer's state lies in a folder of its own
PARTS = ("*model*", "**/*optim*", "scheduler.pt", "rng_state*", "trainer_state.json")


class AtomicCheckpoints(GRPOTrainer):
    """TRL's trainer whose checkpoints take their name once they are whole: a kill leaves none that is cut off."""

    _unfinished: str | None = None  # where a checkpoint is being written

    def _get_output_dir(self, trial):
        return self._unfinished or super()._get_output_dir(trial)

    def _save_checkpoint(self, model, trial):
        # on several machines, each with a disk of its own, and where its address is noted while it is written, it has its name
        # at once
        several_machines = int(os.environ.get("LOCAL_WORLD_SIZE", self.args.world_size)) < self.args.world_size
        if several_machines or self.args.push_to_hub or self.args.metric_for_best_model:
            super()._save_checkpoint(model, trial)
            return
        folder = Path(self._get_output_dir(trial))
        unfinished = folder / UNFINISHED
        if self.args.should_save:
            shutil.rmtree(unfinished, ignore_errors=True)  # of a training that was killed
        self.accelerator.wait_for_everyone()
        self._unfinished = str(unfinished)
        try:
            super()._save_checkpoint(model, trial)
        except BaseException:
            if self.args.should_save:
                shutil.rmtree(unfinished, ignore_errors=True)  # on a full disk every byte counts
            raise
        finally:
            self._unfinished = None
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            whole = folder / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            shutil.rmtree(whole, ignore_errors=True)
            (unfinished / whole.name).rename(whole)
            rotate_checkpoints(str(folder), self.args.save_total_limit, use_mtime=True)
        self.accelerator.wait_for_everyone()


def last_checkpoint(folder: Path) -> Path | None:
    """Find the newest checkpoint that is whole; set newer ones that are damaged aside, and say so."""
    for checkpoint in _newest_first(folder):
        why = damage(checkpoint)
        if why is None:
            return checkpoint
        print(f"{checkpoint.name} {why}; it is set aside", flush=True)
        aside = folder / f"aside-{checkpoint.name}"
        shutil.rmtree(aside, ignore_errors=True)
        checkpoint.rename(aside)
    return None


def newest_checkpoint(folder: Path) -> Path | None:
    """Find the newest whole checkpoint at a glance, for messages; nothing is moved."""
    return next((one for one in _newest_first(folder) if damage(one, checksums=False) is None), None)


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name[11:]), reverse=True)


def damage(checkpoint: Path, checksums: bool = True) -> str | None:
    """Say why a run cannot be resumed from a checkpoint; None if it can.

    A copy that was cut off lacks files, and a machine that lost its power can leave any of them cut off. Each is compared
    with the length or the checksums that its format holds.

    Args:
        checksums: read the optimizer's state whole, which takes a minute for a large model that is trained whole.
    """
    try:
        missing = [part for part in PARTS if not any(checkpoint.glob(part))]
        if missing:
            return f"was not written to its end ({missing[0]} is missing)"
        for file in sorted(checkpoint.rglob("*")):
            _read(file, checksums)
    except (OSError, ValueError, SafetensorError, zipfile.BadZipFile) as error:
        return f"was not written to its end ({type(error).__name__}: {str(error)[:120]})"
    return None


def _read(file: Path, checksums: bool) -> None:
    """Fail if the file was cut off or, with checksums, damaged."""
    if file.suffix == ".safetensors":
        with safe_open(file, framework="pt"):  # compares the header with the length
            return
    if file.suffix in (".pt", ".pth", ".bin"):
        with zipfile.ZipFile(file) as parts:
            broken = parts.testzip() if checksums else None
        if broken:
            raise ValueError(f"{broken} in {file.name} is damaged")
    if file.suffix == ".json":
        json.loads(file.read_text(encoding="utf-8"))
