"""A training shown as plain lines, now and then; and its state in a file that the pipeline reads."""

import time
from collections import deque
from collections.abc import Callable

import torch
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from mgrpo_lib.experiment.evaluate import Evaluator
from mgrpo_lib.experiment.preflight import fix_rate, sampled
from mgrpo_lib.experiment.progress import Progress
from mgrpo_lib.experiment.settings import Config
from mgrpo_lib.tasks import miniature

RECENT = 15  # steps that the tokens per second are counted over
PROBED = 100  # validation blanks


class Lines(TrainerCallback):
    """Print rewards of each layer, fixed and broken drafts, lengths, tokens per second and the time to go.

    Args:
        cfg: names the file of the training's state; None: there is none.
        budget: tokens at which the training ends; None: it ends after ``max_steps``.
        now: a clock, in seconds.
    """

    def __init__(self, cfg: Config | None = None, budget: int | None = None, now: Callable[[], float] = time.monotonic):
        self.file = cfg and cfg.results / "progress" / f"{cfg.run_name}.json"
        self.budget, self.now = budget, now
        self.last: dict = {}
        self.marks: deque = deque(maxlen=RECENT + 1)  # (seconds, tokens sampled since the start) of the last steps

    def on_train_begin(self, args, state, control, **kwargs):
        done = [entry["generated_tokens"] for entry in state.log_history if "generated_tokens" in entry]
        self.marks.append((self.now(), max(done, default=0)))
        self.progress = Progress(self.file, args.max_steps, state.global_step, now=self.now)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" not in logs:
            return
        self.last, step, total = logs, state.global_step, args.max_steps
        self.marks.append((self.now(), logs["generated_tokens"]))
        if self.budget is not None:
            total = max(step, min(total, round(self.budget / logs["generated_tokens"] * step)))
        self.update(step, total)

    def on_train_end(self, args, state, control, **kwargs):
        if self.last and state.global_step != self.progress.total:  # a budget ended it earlier than was foreseen
            self.update(state.global_step, state.global_step)

    def update(self, step: int, total: int) -> None:
        self.progress.total = total
        (start, before), (end, after) = self.marks[0], self.marks[-1]
        speed = (after - before) / max(end - start, 1e-9)
        self.progress.update(step, rewards(self.last), f"{details(self.last)}, {speed:,.0f} tokens/s")


class FixRate(TrainerCallback, ExportableState):
    """Measure, every `probe_steps`, the share of wrong guesses that a correction fixes: 100 validation blanks, a draft and
    four corrections each, at temperature 1. The training's random numbers stay as they were.
    """

    def __init__(self, cfg: Config):
        self.cfg, self.rows = cfg, []

    def state(self) -> dict:
        return {"args": {}, "attributes": {"rows": self.rows}}

    def on_train_begin(self, args, state, control, model=None, processing_class=None, **kwargs):
        saved = state.stateful_callbacks.get(type(self).__name__) if state.global_step else None
        self.rows = saved["attributes"]["rows"] if saved else []
        if not self.rows:
            self._measure(model, processing_class, 0)

    def on_step_end(self, args, state, control, model=None, processing_class=None, **kwargs):
        if state.global_step % self.cfg.probe_steps == 0:
            self._measure(model, processing_class, state.global_step)

    def _measure(self, model, tokenizer, step: int) -> None:
        own, training = model.generation_config, model.training
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(step)
            evaluator = Evaluator(self.cfg, model.eval(), tokenizer)
            records = sampled(evaluator, miniature.problems("blanks", "validation", PROBED), 1, 4)
        model.generation_config = own
        model.train(training)
        self.rows.append({"step": step, "fix_rate": fix_rate(records)})


def rewards(logs: dict) -> str:
    """The rewards of a step, in a few words."""
    names = {"reward": "reward", "layer2/reward": "after correction"}
    return ", ".join(f"{names[name]} {logs[name]:.2f}" for name in names if name in logs)


def details(logs: dict) -> str:
    """Fixed and broken drafts of a step, and the length of a completion in each layer."""
    shares = [f"{what} {logs[f'layer2/{what}']:.2f}" for what in ("fixed", "broken") if f"layer2/{what}" in logs]
    layers = [logs[name] for name in sorted(logs) if name.endswith("completions/mean_length")]
    return "".join(f", {part}" for part in [*shares, f"{' and '.join(f'{x:.0f}' for x in layers)} tokens long"])
