"""What a user of a profile is told where memory, disk or numbers end a training: the profile's settings to change."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path

from mgrpo_lib.experiment.settings import Config
from mgrpo_lib.experiment.store import ELSEWHERE, make_room
from mgrpo_lib.method.checkpoints import newest_checkpoint
from mgrpo_lib.method.guard import TrainingError, reason


def partial_folder(cfg: Config) -> Path:
    """Where a run is while it is not finished."""
    return cfg.run_folder.with_name(f".{cfg.run_name}.partial")


def explained(training: Callable) -> Callable:
    """Wrap a training of a profile, so that it names the profile's settings to change and where the same call goes on.

    Raises:
        TrainingError: in place of the library's own error, which stays its cause.
    """

    @wraps(training)
    def run(cfg: Config, *args, **kwargs) -> dict:
        try:
            return training(cfg, *args, **kwargs)
        except Exception as error:  # tokenizers raises no kind of its own
            cause = error.__cause__ if isinstance(error, TrainingError) and error.__cause__ else error
            found = reason(cause, cfg.output)
            if found is None:
                raise
            kind, said = found
            checkpoint = newest_checkpoint(partial_folder(cfg) / "trainer")
            place = checkpoint.name if checkpoint else "the start"
            raise TrainingError(
                f"{cfg.run_name}: {said} {_advice(kind, cfg, checkpoint)}. The same call goes on from {place}; with other "
                "settings a training starts from its beginning",
                kind,
            ) from cause

    return run


def _advice(kind: str, cfg: Config, checkpoint: Path | None) -> str:
    if kind == "numbers":
        half = "" if cfg.dtype == "float32" or cfg.is_miniature else ", or dtype=float32 (more memory)"
        return f"Try a lower learning_rate (now {cfg.learning_rate:g}), another beta (now {cfg.beta:g}){half}"
    if kind == "memory":
        lower = ["micro_batch_size", "prompts_per_step", "num_generations", "max_completion_length"]
        values = ", ".join(f"{name} (now {getattr(cfg, name)})" for name in lower if getattr(cfg, name) > 1)
        switches = [] if cfg.gradient_checkpointing else ["gradient_checkpointing=true"]
        switches += [] if cfg.lora_rank else ["lora_rank=16"]
        switches += [] if cfg.load_in_4bit else ["load_in_4bit=true"]
        more = f"; or set {', '.join(switches)}" if switches else ""
        return f"Lower one of {values}{more}. `make plan PROFILE={cfg.source}` counts what each takes"
    if kind == "closed":
        return f"Make {cfg.results} writable, or {ELSEWHERE}"
    size = ""
    if checkpoint:
        taken = sum(file.stat().st_size for file in checkpoint.rglob("*") if file.is_file()) / 1e9
        size = f" (a checkpoint takes {taken:.3g} GB, and for a moment there are three)"
    return make_room(cfg.results, f"{size}, set checkpoint_steps=0")
