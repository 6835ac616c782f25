"""How a training is shown while it runs: curves, redrawn in place, where somebody has the notebook open; plain lines under
papermill and in a terminal; and a tracker, if one is asked for. Nothing here changes a number, so no result depends on it.
"""

import importlib
import io
import os
import textwrap
import time
from collections import deque
from collections.abc import Callable

import pandas as pd
from IPython.display import Image, display
from transformers import TrainerCallback

from mgrpo_lib.experiment import fingerprints
from mgrpo_lib.experiment.progress import Progress, notebook_is_open, say
from mgrpo_lib.experiment.settings import Config

REDRAWN, PRINTED = 4.0, 20.0  # seconds between two figures, and between two lines
RECENT = 15  # steps that the tokens a second are counted over


def callbacks(cfg: Config, budget: int | None) -> list[TrainerCallback]:
    """What `mgrpo_lib.experiment.train` shows a run with: the report, and the tracker that the setting ``report_to`` names.

    Args:
        budget: tokens at which the training ends; None if it ends after ``max_steps``.
    """
    trackers = {"none": [], "tensorboard": [tensorboard], "wandb": [Tracker], "trackio": [Tracker]}
    return [Report(cfg, budget), *(tracker(cfg) for tracker in trackers[cfg.report_to])]


class Report(TrainerCallback):
    """Reward of each layer, mended and broken drafts, lengths, tokens a second and the time to go: as a figure with a
    headline in an open notebook, else as a line now and then. The total is known by steps, or by tokens where a budget of
    tokens ends the run.

    Args:
        budget: see `callbacks`.
        open_notebook: draw, instead of printing; None: find out.
        now: a clock, in seconds.
    """

    def __init__(
        self,
        cfg: Config,
        budget: int | None,
        open_notebook: bool | None = None,
        now: Callable[[], float] = time.monotonic,
    ):
        self.name, self.budget, self.now = cfg.run_name, budget, now
        self.file = cfg.results / "progress" / f"{cfg.run_name}.json"
        self.draws = notebook_is_open() if open_notebook is None else open_notebook
        self.progress, self.picture, self.history, self.last = None, None, [], {}
        self.marks = deque(maxlen=RECENT + 1)  # (seconds, tokens sampled since the start) of the last steps

    def on_train_begin(self, args, state, control, **kwargs):
        done = [entry["generated_tokens"] for entry in state.log_history if "generated_tokens" in entry]
        self.marks.append((self.now(), max(done, default=0)))
        every, show = (REDRAWN, self.draw) if self.draws else (PRINTED, say)
        self.progress = Progress(self.file, args.max_steps, state.global_step, every, show, self.now)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" not in logs:
            return
        self.history, self.last, step = state.log_history, logs, state.global_step
        self.marks.append((self.now(), logs["generated_tokens"]))
        total = args.max_steps
        if self.budget is not None:
            total = max(step, min(total, round(self.budget / logs["generated_tokens"] * step)))
        self.update(step, total)

    def on_train_end(self, args, state, control, **kwargs):
        if self.last and state.global_step != self.progress.total:  # a budget ended it earlier than was foreseen
            self.update(state.global_step, state.global_step)

    def update(self, step: int, total: int) -> None:
        self.progress.total = total
        self.progress.update(step, note(self.last), f"{details(self.last)}, {self.speed():,.0f} tokens/s")

    def speed(self) -> float:
        """Tokens a second, all layers, over the last steps."""
        (start, before), (end, after) = self.marks[0], self.marks[-1]
        return (after - before) / max(end - start, 1e-9)

    def draw(self, line: str) -> None:
        """Puts the curves so far, under the line, in the place of the ones before."""
        from mgrpo_lib.report.figures import plt, training_curves  # slow to load, and lines need none of it

        steps = [entry for entry in self.history if "loss" in entry]
        figure = training_curves(pd.DataFrame(steps), textwrap.fill(f"{self.name}, {line}", 110))
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=110)
        plt.close(figure)
        image = Image(file.getvalue(), format="png", width=990, alt=line)
        if self.picture is None:
            self.picture = display(image, display_id=True)
        else:
            self.picture.update(image)


def note(logs: dict) -> str:
    """The rewards of a step, in a few words."""
    names = {"reward": "reward", "layer2/reward": "after correction"}
    return ", ".join(f"{names[name]} {logs[name]:.2f}" for name in names if name in logs)


def details(logs: dict) -> str:
    """What else a line says of a step: mended and broken drafts, and the length of an answer in each layer."""
    shares = [f"{what} {logs[f'layer2/{what}']:.2f}" for what in ("fixed", "broken") if f"layer2/{what}" in logs]
    layers = [logs[name] for name in sorted(logs) if name.endswith("completions/mean_length")]
    return "".join(f", {part}" for part in [*shares, f"{' and '.join(f'{x:.0f}' for x in layers)} tokens long"])


# ---------------------------------------------------------------------------------------------- trackers
def tensorboard(cfg: Config) -> TrainerCallback:
    """Transformers' own callback, writing below the results."""
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    return TensorBoardCallback(SummaryWriter(cfg.results / "trackers" / f"{cfg.run_name}-{fingerprints.run_key(cfg)}"))


class Tracker(TrainerCallback):
    """Every logged number of a run to wandb or trackio, which are called alike. Transformers' own callbacks for them also
    write into the model's card, and upload to a hub; here nothing leaves the machine unless the environment asks for it:
    wandb is online where WANDB_API_KEY is set, so that it never has to ask for a key.
    """

    def __init__(self, cfg: Config):
        self.cfg, self.tracker = cfg, importlib.import_module(cfg.report_to)

    def on_train_begin(self, args, state, control, **kwargs):
        cfg, key = self.cfg, fingerprints.run_key(self.cfg)
        if cfg.report_to == "wandb":
            mode = os.environ.get("WANDB_MODE", "online") if os.environ.get("WANDB_API_KEY") else "offline"
            folder = cfg.results / "trackers"
            folder.mkdir(parents=True, exist_ok=True)
            own = {"id": key, "dir": str(folder), "mode": mode}
        else:
            own = {"embed": False}  # no dashboard in the notebook's cell
        settings = cfg.model_dump(mode="json", exclude={"output_root", "data_dir"})  # no paths of this machine
        self.tracker.init(project="mgrpo", name=f"{cfg.run_name}-{key}", config=settings, resume="allow", **own)

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.tracker.log({k: v for k, v in logs.items() if isinstance(v, int | float)}, step=state.global_step)

    def on_train_end(self, args, state, control, **kwargs):
        self.tracker.finish()
