"""The base model of a profile: the miniature's, trained here or as it comes with the library, or an LLM after its warm-up.
An LLM without a warm-up stays where it is.
"""

import shutil
import time

from accelerate import PartialState

from mgrpo_lib.experiment import warmup
from mgrpo_lib.experiment.data import problems_at_hand, training_problems
from mgrpo_lib.experiment.failures import explained, partial_folder
from mgrpo_lib.experiment.keys import base_key, finished_run
from mgrpo_lib.experiment.models import is_borrowed, limit_threads, load_base, load_tokenizer
from mgrpo_lib.experiment.progress import Progress
from mgrpo_lib.experiment.prompts import check_prompts
from mgrpo_lib.experiment.settings import Config, ConfigError, ModelSettings
from mgrpo_lib.experiment.store import environment, read_json, replace_folder, write_json, write_jsonl
from mgrpo_lib.method.prompts import PHRASES
from mgrpo_lib.tasks import miniature, miniature_model


@explained
def train_base(cfg: Config, hub: bool = True) -> dict:
    """Store the base model.

    Args:
        hub: whether the prompts of sets on the Hub are checked too, before anything runs.

    Returns:
        Its manifest: key, number of parameters, seconds.
    """
    cfg = cfg.of_arm("base")
    key = base_key(cfg)
    if done := finished_run(cfg):
        print(f"base model reused, same settings and version (key {key})")
        return done
    if not cfg.is_miniature:
        try:
            problems = problems_at_hand(cfg, hub)
        except ConnectionError:  # a test set that this training does not need
            problems = problems_at_hand(cfg)
        check_prompts(cfg, problems)
    start, losses, partial = time.monotonic(), [], partial_folder(cfg)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    limit_threads(cfg)
    progress = Progress(cfg.results / "progress" / "base.json", max(1, cfg.base_steps, cfg.sft_steps))

    def on_step(step: int, steps: int, loss: float) -> None:
        losses.append({"step": step, "loss": round(loss, 5)})
        progress.update(step, f"loss {loss:.3f}")

    revision = None
    if not cfg.is_miniature:
        model, tokenizer = load_base(cfg, cfg.model_location), load_tokenizer(cfg, cfg.model_location)
        revision = getattr(model.config, "_commit_hash", None)  # what the hub gave out; a folder has none
        if cfg.sft_steps:
            if PartialState().num_processes > 1:  # the others wait, and would be waited for in every step
                raise ConfigError("the warm-up runs in one process; run notebook 02_base_model first, then this again")
            model = warmup.warm_up(cfg, model, tokenizer, training_problems(cfg), str(partial / "warmup"), on_step)
            shutil.rmtree(partial / "warmup", ignore_errors=True)
    elif cfg.base_steps == 0:
        model, tokenizer = miniature_model.shipped_base(PHRASES)
        losses = read_json(miniature.SHIPPED / "made.json")["losses"]
    else:
        how = cfg.base_steps, cfg.base_batch_size, cfg.base_learning_rate
        rates = {name: getattr(cfg, f"base_{name}") for name in ("fix_rate", "break_rate", "reguess_rate")}
        model, tokenizer = miniature_model.train_base(
            *how, PHRASES, on_step=on_step, continued=cfg.base_continued, **rates
        )
    if not is_borrowed(cfg):
        model.save_pretrained(partial / "model")
        tokenizer.save_pretrained(partial / "model")
    done = {
        "key": key,
        "arm": "base",
        "seed": None,
        "params": cfg.settings(ModelSettings),
        "revision": revision,
        "parameters": sum(p.numel() for p in model.parameters()),
        "train_tokens": 0,
        "processed_tokens": 0,
        "seconds": round(time.monotonic() - start, 1),
        "environment": environment(),
    }
    write_jsonl(partial / "metrics.jsonl", losses)
    write_json(partial / "run.json", done)
    replace_folder(partial, cfg.run_folder)
    return done
