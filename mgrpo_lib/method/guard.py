"""What can go wrong in a training run, and what is done about it: gradients that are not finite, signs that nothing is
learnt, memory or disk that run out, checkpoints that cannot be gone on from. A healthy run trains as it would without.
"""

import errno
import math
import zipfile
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path

import torch
from accelerate.utils import reduce
from safetensors import SafetensorError, safe_open
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from mgrpo_lib.experiment.machine import disk
from mgrpo_lib.experiment.models import MINIATURE
from mgrpo_lib.experiment.settings import Config
from mgrpo_lib.experiment.store import read_json, replace_folder

# One bad batch can be left out. A third in a row is no accident: the weights or the settings are at fault, and skipping
# would go on until the end, with nothing learnt
SKIPPED_IN_A_ROW = 3
# Steps that a sign must last. Ten steps of 4 groups without any signal are one chance in 70 where a group has one with
# probability 0.1, and one in 10^12 where with 0.5, as at the start of a training that goes well
PATIENCE = 10
NO_SIGNAL = 0.999  # share of groups without a signal: all of them, but for rounding
FORMLESS = 0.1  # share of completions with an answer that can be read
CUT_OFF = 0.9  # share of completions: the few that still end are too few to learn from
# Nats a token. A model that was trained to answer in one form starts at 0.04 and learns from there, so low entropy alone is no
# sign; that it fell to under a fifth is
COLLAPSED_ENTROPY, ENTROPY_FALL = 0.01, 5.0

# parts of a checkpoint, in the order in which transformers writes them; the trainer's state is its last file. With FSDP the
# adapter or the weights and the optimizer's state have other names, of which these patterns know the beginning
PARTS = ("*model*", "optimizer*", "scheduler.pt", "rng_state*", "trainer_state.json")

# in messages, lower case: CUDA, the allocator of CPUs, the system, cuBLAS
OUT_OF_MEMORY = ("out of memory", "allocate memory", "not enough memory", "alloc_failed")
# system calls and libraries in Rust (safetensors, tokenizers) name the reason; torch.save reports a write that stopped halfway
DISK_FULL = ("no space left on device", "disk quota exceeded")
TORN_WRITE = ("unexpected pos", "pytorchstreamwriter failed", "iostream error")
READ_ONLY = ("read-only file system", "permission denied")


class TrainingError(RuntimeError):
    """A training that cannot go on as it is; the message names what to change, and where the same call goes on."""


# ---------------------------------------------------------------------------------------------- while it trains
class Guard(TrainerCallback, ExportableState):
    """Leaves out steps whose gradient is not finite, and warns of signs that nothing is learnt, once each. What it found
    is kept in checkpoints, with the key of the run, so that none of another run is gone on from.

    Attributes:
        skipped_steps: optimizer steps, counted from 1, after which the weights are as before.
        warnings: ``{"step", "sign", "text"}`` in the order in which they were given.

    Raises:
        FloatingPointError: `SKIPPED_IN_A_ROW` steps were left out, one after another.
    """

    def __init__(self, key: str):
        self.key = key
        self.skipped_steps: list[int] = []
        self.warnings: list[dict] = []

    @property
    def found(self) -> dict:
        return {"skipped_steps": self.skipped_steps, "warnings": self.warnings}

    def state(self) -> dict:
        return {"args": {}, "attributes": {"key": self.key, **self.found}}

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
    """Whether every number is finite: one answer for all processes, also where each holds a part of the gradient."""
    mine = [gradient.to_local() if isinstance(gradient, DTensor) else gradient for gradient in gradients]
    return math.isfinite(reduce(get_total_norm(mine).to(device), "sum").item())


def signs(history: list[dict], layers: int = 1, advantage: str = "group") -> dict[str, str]:
    """What the last steps warn of.

    Args:
        history: logged values of each step, by the names in `mgrpo_lib.experiment.train.METRICS`.
        layers: number of layers that are trained.
        advantage: the rule of later layers; with another than ``group`` equal rewards are a signal too.

    Returns:
        For each sign its text: what was seen, and what to try.
    """
    found = {}
    for layer in range(1, layers + 1):
        prefix, which = ("", "layer 1") if layer == 1 else (f"layer{layer}/", f"layer {layer}")
        size = "num_generations" if layer == 1 else "num_corrections"
        constant = _last(history, f"{prefix}frac_reward_zero_std")
        if constant and min(constant) > NO_SIGNAL and (layer == 1 or advantage == "group"):
            right = _mean(_last(history, f"{prefix}accuracy"))
            found[f"no signal, {which}"] = (
                f"{which} had no signal for {PATIENCE} steps: in every group all rewards were equal, with {right:.0%} of the "
                f"completions right. {_too_what(right, layer, size)}"
            )
        clipped = _last(history, f"{prefix}completions/clipped_ratio")
        if clipped and min(clipped) > CUT_OFF:
            found[f"cut off, {which}"] = (
                f"{which}: for {PATIENCE} steps over {CUT_OFF:.0%} of the completions were cut off before their end, so most "
                "gave no final answer. Try a higher max_completion_length; if answers should be short, the tokenizer's end "
                "token may not be the model's"
            )
        answered = _last(history, f"{prefix}answered")
        if answered and max(answered) < FORMLESS:
            found[f"no answer, {which}"] = (
                f"{which}: for {PATIENCE} steps an answer was found in at most {max(answered):.0%} of the completions, so what "
                "is learnt comes from few. Try sft_steps, which teach the form of an answer, a system_prompt that asks for "
                "\\boxed{}, or a higher max_completion_length"
            )
        entropy = [entry[f"{prefix}entropy"] for entry in history if f"{prefix}entropy" in entry]
        start, now = _mean(entropy[:PATIENCE]), _mean(entropy[-PATIENCE:])
        if len(entropy) >= 2 * PATIENCE and now < COLLAPSED_ENTROPY and start > ENTROPY_FALL * now:
            found[f"entropy collapse, {which}"] = (
                f"{which}: the policy's entropy fell from {start:.2g} to {now:.2g} nats a token, so the completions of a "
                "question become all alike and learning ends. Try a lower learning_rate, a higher beta or temperature, or "
                "fewer max_steps"
            )
    return found


def _last(history: list[dict], name: str) -> list[float]:
    """The last values of a metric, as many as a sign must last; empty if there are not that many."""
    values = [entry[name] for entry in history if name in entry][-PATIENCE:]
    return values if len(values) == PATIENCE else []


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _too_what(right: float, layer: int, size: str) -> str:
    """Where no group has a signal: whether the questions are too hard or too easy, and the mend."""
    if right < 0.1:
        if layer > 1:
            return f"Too hard to correct: try a higher {size}, easier questions, or more training of layer 1 first"
        return (
            f"Too hard, or the answers are not found: try easier questions or a higher {size}; if the answers are right but in no "
            "box, sft_steps"
        )
    if right > 0.9:
        return "Too easy: try harder questions" + ("" if layer == 1 else ", or select_drafts=wrong")
    return f"Each question is always or never answered right: try a higher {size} or temperature, or other questions"


# ---------------------------------------------------------------------------------------------- when it ends
def explained(training: Callable[[Config], dict]) -> Callable[[Config], dict]:
    """A training that says what to do where memory, disk or numbers end it.

    Raises:
        TrainingError: in place of the library's own error, which stays its cause.
    """

    @wraps(training)
    def run(cfg: Config, *args, **kwargs) -> dict:
        try:
            return training(cfg, *args, **kwargs)
        except TrainingError:
            raise
        except Exception as error:  # tokenizers raises no kind of its own
            why = explanation(error, cfg)
            if why is None:
                raise
            checkpoint = newest_checkpoint(partial_folder(cfg) / "trainer")
            raise TrainingError(
                f"{cfg.run_name}: {why}. The same call goes on from {checkpoint.name if checkpoint else 'the start'}; with "
                "other settings a training starts from its beginning"
            ) from error

    return run


def explanation(error: BaseException, cfg: Config) -> str | None:
    """What an error means for the user of a training, in one line; None if it is not of memory, disk or numbers."""
    for one in _chain(error):
        text, number = str(one).lower(), getattr(one, "errno", None)
        said = (
            f"({type(one).__name__}: {str(one).strip().splitlines()[0][:200] if text.strip() else 'no more was said'})"
        )
        if isinstance(one, FloatingPointError) or "probability tensor contains" in text:
            return f"its numbers are not finite {said}. {_stabler(cfg)}"
        if isinstance(one, MemoryError) or number == errno.ENOMEM or any(sign in text for sign in OUT_OF_MEMORY):
            return f"out of memory {said}. {_smaller(cfg)}"
        if number in (errno.ENOSPC, errno.EDQUOT) or any(sign in text for sign in DISK_FULL + TORN_WRITE):
            return f"a file could not be written to its end {said}. {_room(cfg)}"
        # of the files that are read some may be locked too; their errors name the file themselves
        file = getattr(one, "filename", None) or cfg.output
        ours = Path(file).is_relative_to(cfg.output) or cfg.output.is_relative_to(file)
        if ours and (number in (errno.EROFS, errno.EACCES, errno.EPERM) or any(sign in text for sign in READ_ONLY)):
            return f"{cfg.results} cannot be written {said}. Mend that, or write elsewhere: OUT=folder, output_root in a notebook"
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _stabler(cfg: Config) -> str:
    half = "" if cfg.dtype == "float32" or cfg.model == MINIATURE else ", dtype=float32 (more memory)"
    return (
        f"Try a lower learning_rate (now {cfg.learning_rate:g}), another beta (now {cfg.beta:g}; far from the base model the KL "
        f"term overflows){half}; in a trainer of your own a lower max_grad_norm"
    )


def _smaller(cfg: Config) -> str:
    lower = ["micro_batch_size", "prompts_per_step", "num_generations", "max_completion_length"]
    values = ", ".join(f"{name} (now {getattr(cfg, name)})" for name in lower if getattr(cfg, name) > 1)
    switches = [] if cfg.gradient_checkpointing else ["gradient_checkpointing=true"]
    switches += [] if cfg.lora_rank else ["lora_rank=16 (all weights are trained now)"]
    switches += [] if cfg.load_in_4bit else ["load_in_4bit=true"]
    return (
        f"Lower one of {values}{'; or set ' + ', '.join(switches) if switches else ''}; close other programs. "
        f"`make plan PROFILE={cfg.profile}` counts what each takes"
    )


def _room(cfg: Config) -> str:
    """What is free, and what a checkpoint takes of it."""
    checkpoint, size = newest_checkpoint(partial_folder(cfg) / "trainer"), ""
    if checkpoint:
        taken = sum(file.stat().st_size for file in checkpoint.rglob("*") if file.is_file()) / 1e9
        size = f" (a checkpoint takes {taken:.3g} GB, and for a moment there are three)"
    return (
        f"{cfg.results} has {disk(cfg.results)[0]:.3g} GB free: make room{size}, set checkpoint_steps=0, or write elsewhere: "
        "OUT=folder, output_root in a notebook"
    )


# ---------------------------------------------------------------------------------------------- what it goes on from
def partial_folder(cfg: Config) -> Path:
    """Where a run is while it is not finished."""
    return cfg.run_folder.with_name(f".{cfg.run_name}.partial")


def last_checkpoint(folder: Path, key: str) -> Path | None:
    """The newest checkpoint of the run with this key that was written to its end; newer ones that cannot be gone on from
    are set aside.
    """
    for checkpoint in _newest_first(folder):
        why = flaw(checkpoint, key)
        if why is None:
            return checkpoint
        print(f"{checkpoint.name} {why}; it is set aside", flush=True)
        replace_folder(checkpoint, folder / f"aside-{checkpoint.name}")
    return None


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end, for messages: at a glance, and nothing is moved."""
    whole = (checkpoint for checkpoint in _newest_first(folder) if flaw(checkpoint, checksums=False) is None)
    return next(whole, None)


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name[11:]), reverse=True)


def flaw(checkpoint: Path, key: str | None = None, checksums: bool = True) -> str | None:
    """Why a checkpoint cannot be gone on from; None if it can.

    The trainer names a checkpoint when all its files are written. A copy that was cut off lacks some, and a machine that
    lost its power can leave any of them cut off: each is compared with the length or the checksums that its format holds.

    Args:
        key: of the run that it must be of; None: any.
        checksums: read the optimizer's state whole, which for a large model that is trained whole takes a minute.
    """
    try:
        missing = [part for part in PARTS if not any(checkpoint.glob(part))]
        if missing:
            return f"was not written to its end ({missing[0]} is missing)"
        for file in sorted(checkpoint.rglob("*")):
            _read(file, checksums)
        saved = read_json(checkpoint / "trainer_state.json")["stateful_callbacks"].get(Guard.__name__)
    except (OSError, ValueError, KeyError, SafetensorError, zipfile.BadZipFile) as error:
        return f"was not written to its end ({type(error).__name__}: {str(error)[:120]})"
    if key is not None and (saved is None or saved["attributes"]["key"] != key):
        return "is of another run"
    return None


def _read(file: Path, checksums: bool) -> None:
    """Fails if the file was cut off or, with checksums, damaged."""
    if file.suffix == ".safetensors":
        with safe_open(file, framework="pt"):  # compares the header with the length
            return
    if file.suffix in (".pt", ".pth", ".bin"):
        with zipfile.ZipFile(file) as parts:
            broken = parts.testzip() if checksums else None
        if broken:
            raise ValueError(f"{broken} in {file.name} is damaged")
    if file.suffix == ".json":
        read_json(file)
