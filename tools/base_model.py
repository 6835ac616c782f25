"""Train the miniature's base model that comes with the library, into mgrpo_lib/tasks/miniature_base/."""

import json
import platform

import torch

from mgrpo_lib.method.prompts import PHRASES
from mgrpo_lib.tasks import miniature, miniature_model

HOW = {"steps": 3000, "batch_size": 64, "learning_rate": 5e-3, "seed": 0}


def main() -> None:
    torch.set_num_threads(1)
    losses = []

    def on_step(step: int, steps: int, loss: float) -> None:
        if step == 1 or step % 10 == 0:
            losses.append({"step": step, "loss": round(loss, 5)})
        if step % 100 == 0:
            print(f"step {step}/{steps}  loss {loss:.3f}", flush=True)

    model, _ = miniature_model.train_base(**HOW, phrases=PHRASES, on_step=on_step)
    model.save_pretrained(miniature.SHIPPED)
    versions = {"python": platform.python_version(), "torch": torch.__version__, "machine": platform.machine()}
    made = {**HOW, **versions, "losses": losses}
    (miniature.SHIPPED / "made.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
