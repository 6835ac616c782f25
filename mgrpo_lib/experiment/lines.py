"""Plain lines about a running training. Apart from `progress`, because a callback loads torch."""

import time
from collections import deque
from collections.abc import Callable

from transformers import TrainerCallback

from mgrpo_lib.experiment.progress import Progress, say
from mgrpo_lib.experiment.settings import Config

SECONDS = 20.0  # between two lines
RECENT = 15  # steps that the tokens a second are counted over


class Lines(TrainerCallback):
    """Print rewards, fixed and broken corrections, lengths, tokens a second and the time to go.

    Args:
        budget: generated tokens at which the training ends; None if it ends after ``max_steps``.
        now: a clock, in seconds.
    """

    def __init__(self, cfg: Config, budget: int | None = None, now: Callable[[], float] = time.monotonic):
        self.budget, self.now = budget, now
        self.file = cfg.results / "progress" / f"{cfg.run_name}.json"
        self.progress, self.last = None, {}
        self.marks = deque(maxlen=RECENT + 1)  # (seconds, tokens sampled since the start) of the last steps

    def on_train_begin(self, args, state, control, **kwargs):
        done = [entry["generated_tokens"] for entry in state.log_history if "generated_tokens" in entry]
        self.marks.append((self.now(), max(done, default=0)))
        self.progress = Progress(self.file, args.max_steps, state.global_step, SECONDS, say, self.now)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" not in logs:
            return
        self.last, step, total = logs, state.global_step, args.max_steps
        self.marks.append((self.now(), logs["generated_tokens"]))
        if self.budget is not None:
            total = max(step, min(total, round(self.budget / logs["generated_tokens"] * step)))
        self.update(step, total)

    def on_train_end(self, args, state, control, **kwargs):
        if self.last and state.global_step != self.progress.total:  # a token budget ended it early
            self.update(state.global_step, state.global_step)

    def update(self, step: int, total: int) -> None:
        (start, before), (end, after) = self.marks[0], self.marks[-1]
        speed = (after - before) / max(end - start, 1e-9)
        self.progress.total = total
        self.progress.update(step, note(self.last), f"{details(self.last)}, {speed:,.0f} tokens/s")


def note(logs: dict) -> str:
    """Name the rewards of a step."""
    names = {"reward": "reward", "layer2/reward": "after correction"}
    return ", ".join(f"{names[name]} {logs[name]:.2f}" for name in names if name in logs)


def details(logs: dict) -> str:
    """Name fixed and broken corrections of a step, and the length of an answer in each layer."""
    shares = [f"{what} {logs[f'layer2/{what}']:.2f}" for what in ("fixed", "broken") if f"layer2/{what}" in logs]
    layers = [logs[name] for name in sorted(logs) if name.endswith("completions/mean_length")]
    return "".join(f", {part}" for part in [*shares, f"{' and '.join(f'{x:.0f}' for x in layers)} tokens long"])
