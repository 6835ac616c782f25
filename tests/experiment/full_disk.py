"""Run by `test_failures.py` in a mount namespace of its own: trainings on a small file system that fills up while they write.

Each is called again once there is room, and what it made is copied out. One more is called where nothing can be written.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from mgrpo_lib.experiment.settings import load_config
from mgrpo_lib.experiment.train import train
from mgrpo_lib.method.checkpoints import UNFINISHED
from mgrpo_lib.method.guard import TrainingError
from mgrpo_lib.method.trainer import MGRPOTrainer

COMPUTE_LOSS = MGRPOTrainer._compute_loss


def mount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)


def main(out: Path, settings: dict, rooms: list[int]) -> None:
    """In step 4 all but so many bytes are taken away; writes what each first call raised."""
    small, found = out / "small", []
    small.mkdir()
    mount(small, "size=40M")
    cfg = load_config("smoke", output_root=str(small), **settings)
    for room in rooms:

        def filling(self, model, inputs, room=room):
            filler = small / "filler"
            if self.state.global_step == 3 and not filler.exists():
                filler.write_bytes(b"x" * (shutil.disk_usage(small).free - room))
            return COMPUTE_LOSS(self, model, inputs)

        MGRPOTrainer._compute_loss = filling
        try:
            train(cfg)
        except TrainingError as error:
            found.append([type(error.__cause__).__name__, str(error)])
            assert not list(small.rglob(f"{UNFINISHED}/*")), "what was written so far takes the room that is left"
        MGRPOTrainer._compute_loss = COMPUTE_LOSS
        (small / "filler").unlink()
        train(cfg)
        shutil.copytree(cfg.run_folder, out / str(room))
        shutil.rmtree(cfg.run_folder)
    locked = out / "locked"
    locked.mkdir()
    mount(locked, "ro")
    try:
        train(load_config("smoke", output_root=str(locked), **settings))
    except TrainingError as error:
        found.append([type(error.__cause__).__name__, str(error)])
    (out / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3]))
