"""What can go wrong in a training, and what is done about it: gradients that are not finite, signs that nothing is learnt,
memory or disk that run out, a budget of tokens that is spent. A healthy run trains as it would without.
"""

import errno
import math
import shutil
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path

import torch
from accelerate.utils import reduce
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from mgrpo_lib.method.checkpoints import newest_checkpoint

# One bad batch can be left out. A third in a row is no accident: the weights or the settings are at fault, and skipping would go
# on until the end, with nothing learnt
SKIPPED_IN_A_ROW = 3
# Steps that a sign must last. Ten steps of 4 groups without any signal are one chance in 70 where a group has one with
# probability 0.1, and one in 10^12 where with 0.5, as at the start of a training that goes well
PATIENCE = 10
NO_SIGNAL = 0.999  # share of groups without a signal: all of them, but for rounding
FORMLESS = 0.1  # share of completions with an answer that can be read
CUT_OFF = 0.9  # share of completions: the few that still end are too few to learn from
# Nats per token. A model that was trained to answer in one form starts at 0.04 and learns from there, so low entropy alone is no
# sign; that it fell to under a fifth is
COLLAPSED_ENTROPY, ENTROPY_FALL = 0.01, 5.0

# in messages, lower case: CUDA, the allocator of CPUs, the system, cuBLAS
OUT_OF_MEMORY = ("out of memory", "allocate memory", "not enough memory", "alloc_failed")
# system calls and libraries in Rust (safetensors, tokenizers) name the reason; torch.save reports a write that stopped halfway
DISK_FULL = ("no space left on device", "disk quota exceeded")
TORN_WRITE = ("unexpected pos", "pytorchstreamwriter failed", "iostream error")
READ_ONLY = ("read-only file system", "permission denied")


class TrainingError(RuntimeError):
    """A training that cannot continue like this; the message names what to change.

    Attributes:
        kind: ``numbers``, ``memory``, ``disk`` or ``closed``.
    """

    def __init__(self, message: str, kind: str = ""):
        super().__init__(message)
        self.kind = kind


# ---------------------------------------------------------------------------------------------- while it trains
class TokenBudget(TrainerCallback, ExportableState):
    """Count sampled tokens, through checkpoints too, and stop at the step nearest to `max_generated_tokens`: the only
    measure in which arms with unlike layers can be compared.

    Raises:
        ValueError: a resume from a checkpoint that was saved while its rollouts were in use.
    """

    def __init__(self, args, layers_in_turn: int = 1):
        self.generated_tokens, self.turn = 0, args.steps_per_turn(layers_in_turn)

    def state(self) -> dict:
        return {"args": {}, "attributes": {"generated_tokens": self.generated_tokens}}

    def on_train_begin(self, args, state, control, **kwargs):
        if args.num_layers > 1 and state.global_step % self.turn:
            raise ValueError(
                f"the checkpoint of step {state.global_step} was saved while its rollouts were in use, and they are not in it; "
                f"resume from a step that is a multiple of {self.turn}"
            )
        saved = state.stateful_callbacks.get(type(self).__name__, self.state()) if state.global_step else None
        self.generated_tokens = saved["attributes"]["generated_tokens"] if saved else 0

    def on_step_end(self, args, state, control, **kwargs):
        if args.max_generated_tokens is not None:
            half_a_step = self.generated_tokens / state.global_step / 2
            if self.generated_tokens + half_a_step >= args.max_generated_tokens:
                control.should_training_stop = True


class Guard(TrainerCallback, ExportableState):
    """Leave out steps whose gradient is not finite, and warn once of each sign that nothing is learnt.

    Attributes:
        skipped_steps: optimizer steps, counted from 1, after which the weights are as before.
        warnings: ``{"step", "sign", "text"}`` in the order in which they were given.

    Raises:
        FloatingPointError: `SKIPPED_IN_A_ROW` steps were left out, one after another.
    """

    def __init__(self):
        self.skipped_steps: list[int] = []
        self.warnings: list[dict] = []

    @property
    def found(self) -> dict:
        return {"skipped_steps": self.skipped_steps, "warnings": self.warnings}

    def state(self) -> dict:
        return {"args": {}, "attributes": self.found}

    def on_train_begin(self, args, state, control, **kwargs):
        saved = state.stateful_callbacks[type(self).__name__]["attributes"] if state.global_step else self.found
        self.skipped_steps, self.warnings = list(saved["skipped_steps"]), list(saved["warnings"])

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if _finite(gradients, args.device):
            return
        step, scale = state.global_step + 1, 0.0
        self.skipped_steps.append(step)
        if optimizer.scaler is None:
            optimizer.zero_grad(set_to_none=True)  # nothing to step with: weights and Adam's averages stay
        else:  # float16: it skips the step by itself, where it finds the gradient that overflowed
            scale = optimizer.scaler.get_scale()
        if state.is_world_process_zero:
            print(
                f"step {step}: the gradient is not finite{f' at loss scale {scale:g}' if scale else ''}; the step is left out "
                f"and the weights stay ({len(self.skipped_steps)} so far)",
                flush=True,
            )
        # a scale above 1 may be itself what overflowed: it is halved with every such step, and at first there are many
        if self.skipped_steps[-SKIPPED_IN_A_ROW:] == list(range(step + 1 - SKIPPED_IN_A_ROW, step + 1)) and scale <= 1:
            raise FloatingPointError(
                f"the gradients of {SKIPPED_IN_A_ROW} steps in a row, up to step {step}, are not finite"
            )

    def on_log(self, args, state, control, logs=None, **kwargs):
        known = {warning["sign"] for warning in self.warnings}
        for sign, text in signs(state.log_history, args.num_layers, args.correction_advantage).items():
            if sign not in known:
                self.warnings.append({"step": state.global_step, "sign": sign, "text": text})
                if state.is_world_process_zero:
                    print(f"warning, step {state.global_step}: {text}", flush=True)


def _finite(gradients: list[torch.Tensor], device: torch.device) -> bool:
    """True if every number is finite: one answer for all processes, also where each holds a part of the gradient."""
    mine = [gradient.to_local() if isinstance(gradient, DTensor) else gradient for gradient in gradients]
    return math.isfinite(reduce(get_total_norm(mine).to(device), "sum").item())


def signs(history: list[dict], layers: int = 1, advantage: str = "group") -> dict[str, str]:
    """Say what the last steps warn of.

    Args:
        history: logged values of each step, by the names in `mgrpo_lib.method.logged.METRICS`.
        layers: number of layers that are trained.
        advantage: the rule of later layers; with another than ``group`` equal rewards are a signal too.

    Returns:
        For each sign its text: what was seen, and what to try.
    """
    found = {}
    for layer in range(1, layers + 1):
        prefix, which = ("", "layer 1") if layer == 1 else (f"layer{layer}/", f"layer {layer}")
        constant = _last(history, f"{prefix}frac_reward_zero_std")
        if constant and min(constant) > NO_SIGNAL and (layer == 1 or advantage == "group"):
            right = _mean(_last(history, f"{prefix}accuracy"))
            found[f"no signal, {which}"] = (
                f"{which} had no signal for {PATIENCE} steps: in every group all rewards were equal, with {right:.0%} of the "
                f"completions right. {_what_to_try(right, layer)}"
            )
        clipped = _last(history, f"{prefix}completions/clipped_ratio")
        if clipped and min(clipped) > CUT_OFF:
            found[f"cut off, {which}"] = (
                f"{which}: for {PATIENCE} steps over {CUT_OFF:.0%} of the completions were cut off, so most gave no final "
                "answer. Try a higher max_completion_length. If answers should be short, the tokenizer's end token may not be "
                "the model's"
            )
        answered = _last(history, f"{prefix}answered")
        if answered and max(answered) < FORMLESS:
            found[f"no answer, {which}"] = (
                f"{which}: for {PATIENCE} steps an answer was found in at most {max(answered):.0%} of the completions. Try a "
                "supervised warm-up that teaches the form of an answer (sft_steps in a profile), a system prompt that asks for "
                "\\boxed{}, or a higher max_completion_length"
            )
        entropy = [entry[f"{prefix}entropy"] for entry in history if f"{prefix}entropy" in entry]
        start, now = _mean(entropy[:PATIENCE]), _mean(entropy[-PATIENCE:])
        if len(entropy) >= 2 * PATIENCE and now < COLLAPSED_ENTROPY and start > ENTROPY_FALL * now:
            found[f"entropy collapse, {which}"] = (
                f"{which}: the policy's entropy fell from {start:.2g} to {now:.2g} nats per token, so the completions of a "
                "question become all alike. Try a lower learning_rate, a higher beta or temperature, or fewer max_steps"
            )
    return found


def _last(history: list[dict], name: str) -> list[float]:
    """The last values of a metric, as many as a sign must last; empty if there are not that many."""
    values = [entry[name] for entry in history if name in entry][-PATIENCE:]
    return values if len(values) == PATIENCE else []


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _what_to_try(right: float, layer: int) -> str:
    """Where no group has a signal: say whether the questions are too hard or too easy, and what to try."""
    size = "num_generations" if layer == 1 else "num_corrections"
    if right < 0.1:
        if layer > 1:
            return f"Too hard to correct: try a higher {size}, easier questions, or more training of layer 1 first"
        return f"Too hard, or the answers are not found: try easier questions, a higher {size}, or a supervised warm-up"
    if right > 0.9:
        return "Too easy: try harder questions" + ("" if layer == 1 else ", or select_drafts='wrong'")
    return f"Each question is always or never answered right: try a higher {size} or temperature, or other questions"


# ---------------------------------------------------------------------------------------------- when it ends
def explained(train: Callable) -> Callable:
    """Wrap a trainer's `train`, so that it says what to do where memory, disk or numbers end it.

    Raises:
        TrainingError: in place of the library's own error, which stays its cause.
    """

    @wraps(train)
    def run(trainer, *args, **kwargs):
        try:
            return train(trainer, *args, **kwargs)
        except Exception as error:  # tokenizers raises no kind of its own
            folder = Path(trainer.args.output_dir)
            found = reason(error, folder)
            if found is None:
                raise
            kind, said = found
            checkpoint = newest_checkpoint(folder)
            after = f"Resume from {checkpoint}" if checkpoint else "No checkpoint was saved"
            raise TrainingError(f"{said} {_advice(kind, trainer.args)}. {after}", kind) from error

    return run


def _advice(kind: str, args) -> str:
    folder = Path(args.output_dir)
    if kind == "numbers":
        return f"Try a lower learning_rate (now {args.learning_rate:g}), another beta (now {args.beta:g}), or float32"
    if kind == "memory":
        lower = ["per_device_train_batch_size", "num_generations", "max_completion_length"]
        values = ", ".join(f"{name} (now {getattr(args, name)})" for name in lower)
        return f"Lower one of {values}, set gradient_checkpointing=True, or train with LoRA or in 4 bits"
    free = shutil.disk_usage(folder if folder.exists() else folder.parent).free / 1e9
    return f"{folder} has {free:.3g} GB free: make room, save less often (save_steps), or set another output_dir"


def reason(error: BaseException, folder: Path) -> tuple[str, str] | None:
    """Tell why a training ended: its kind and a sentence; None if not of memory, disk or numbers.

    Args:
        folder: the training's own; of the files that it only reads some may be closed too, and their errors name them.

    Returns:
        The kind as in `TrainingError`, and what was said.
    """
    for one in _causes(error):
        text, number = str(one).lower(), getattr(one, "errno", None)
        line = str(one).strip().splitlines()[0][:200] if text.strip() else "no more was said"
        said = f"({type(one).__name__}: {line})"
        if isinstance(one, FloatingPointError) or "probability tensor contains" in text:
            return "numbers", f"the numbers of the training are not finite {said}."
        if isinstance(one, MemoryError) or number == errno.ENOMEM or any(sign in text for sign in OUT_OF_MEMORY):
            return "memory", f"out of memory {said}."
        if number in (errno.ENOSPC, errno.EDQUOT) or any(sign in text for sign in DISK_FULL + TORN_WRITE):
            return "disk", f"a file could not be written to its end {said}."
        file = Path(getattr(one, "filename", None) or folder)
        ours = file.is_relative_to(folder) or folder.is_relative_to(file)
        if ours and (number in (errno.EROFS, errno.EACCES, errno.EPERM) or any(sign in text for sign in READ_ONLY)):
            return "closed", f"{folder} cannot be written {said}."
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
