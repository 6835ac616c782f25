"""Run by `test_alone.py`: trains with what the method needs alone; all else that the project uses cannot be imported."""

import errno
import json
import sys
from pathlib import Path

if __name__ == "__main__":  # pytest imports this file too, in search of doctests
    blocked = [f"mgrpo_lib.{room}" for room in ("verifier", "tasks", "experiment", "report", "explore")]
    blocked += ["math_verify", "rapidfuzz", "pydantic", "matplotlib", "papermill", "statsmodels"]
    sys.modules.update(dict.fromkeys(blocked))  # None: the import fails, as if it were not installed

import tiny  # noqa: E402
import torch  # noqa: E402

from mgrpo_lib.method.alternating import AlternatingTrainer  # noqa: E402
from mgrpo_lib.method.checkpoints import UNFINISHED, last_checkpoint  # noqa: E402
from mgrpo_lib.method.guard import TrainingError  # noqa: E402
from mgrpo_lib.method.trainer import MGRPOTrainer  # noqa: E402


def vowels(completions, **kwargs) -> list[float]:
    """A reward of the user's own."""
    return [float("a" in text) for text in completions]


def main(work: Path) -> None:
    folder, report = work / "model", {}
    tiny.save_model(folder)

    def build(name, kind=MGRPOTrainer, **options):
        return tiny.build(folder, work / name, kind, vowels, num_corrections=2, **options)

    for kind in (MGRPOTrainer, AlternatingTrainer):
        trainer = build("two steps", kind, max_steps=2)
        tiny.trained_weights(trainer)
        report[kind.__name__] = {name: value for entry in tiny.logged(trainer) for name, value in entry.items()}

    # a gradient that is not finite in step 2 of 3
    trainer, seen = build("skips", max_steps=3), []
    loss = trainer._compute_loss

    def disturbed(model, inputs):
        seen.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        return loss(model, inputs) * (torch.nan if trainer.state.global_step == 1 else 1)

    trainer._compute_loss = disturbed
    trainer.train()
    moved = [not torch.equal(before, after) for before, after in zip(seen, seen[1:], strict=False)]
    report["skips"] = {"moved": moved, "skipped": trainer.guard.skipped_steps}

    # memory ends in step 2, the disk is full in the checkpoint of step 2
    memory = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    for kind, error in (("memory", memory), ("disk", OSError(errno.ENOSPC, "No space left on device"))):
        trainer = build(kind, max_steps=3, save_strategy="steps", save_steps=1)
        name = {"memory": "_compute_loss", "disk": "_save_rng_state"}[kind]
        call = getattr(trainer, name)

        def failing(*given, trainer=trainer, call=call, error=error, at=kind == "disk"):
            if trainer.state.global_step == 1 + at:
                raise error
            return call(*given)

        setattr(trainer, name, failing)
        try:
            trainer.train()
        except TrainingError as ended:
            left = sorted(path.name for path in (work / kind).iterdir() if path.name.startswith("checkpoint"))
            whole = last_checkpoint(work / kind).name
            report[kind] = {"kind": ended.kind, "text": str(ended), "left": left, "whole": whole}
            report[kind]["unfinished"] = [path.name for path in (work / kind / UNFINISHED).rglob("*")]
    report["imported"] = [name for name in sys.modules if name.split(".")[0] == "mgrpo_lib" and sys.modules[name]]
    (work / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
