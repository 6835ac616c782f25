"""A GRPO or MGRPO training of one arm and seed. `accelerate launch -m mgrpo_lib.experiment.train --profile ... --arm ...
--seed ...` trains the same run as the notebook, in several processes.
"""

import argparse
import math
import shutil
import sys
import time
import warnings
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback, TrainingArguments
from transformers.trainer_callback import ExportableState

from mgrpo_lib.experiment.assignments import parse_assignments
from mgrpo_lib.experiment.base import train_base
from mgrpo_lib.experiment.data import training_problems
from mgrpo_lib.experiment.failures import explained, partial_folder
from mgrpo_lib.experiment.keys import finished_run, run_key
from mgrpo_lib.experiment.models import (
    base_location,
    compute_dtype,
    limit_threads,
    load_base,
    load_tokenizer,
    lora_config,
    on_cpu,
)
from mgrpo_lib.experiment.settings import (
    Config,
    ConfigError,
    ModelSettings,
    TrainSettings,
    load_config,
)
from mgrpo_lib.experiment.store import (
    environment,
    finished,
    only_one,
    read_json,
    replace_folder,
    write_json,
    write_jsonl,
)
from mgrpo_lib.experiment.watch import FixRate, Lines
from mgrpo_lib.method.alternating import AlternatingTrainer
from mgrpo_lib.method.checkpoints import last_checkpoint, newest_checkpoint
from mgrpo_lib.method.config import MGRPOConfig
from mgrpo_lib.method.guard import TrainingError
from mgrpo_lib.method.logged import METRICS
from mgrpo_lib.method.settings import MGRPOSettings
from mgrpo_lib.method.trainer import MGRPOTrainer
from mgrpo_lib.tasks.schema import fingerprint
from mgrpo_lib.verifier.reward import accuracy_reward, extract_answer

# arguments of transformers' Trainer that change numbers; all of TRL's and ours are kept
NUMERICAL = {
    *MGRPOSettings.__dataclass_fields__,
    *("bf16", "fp16", "gradient_accumulation_steps", "max_steps", "per_device_train_batch_size", "seed"),
}


def training_arguments(cfg: Config, output_dir: str) -> MGRPOConfig:
    """Make the trainer's configuration for an arm: a profile's training settings become the trainer's here."""
    rows, processes = cfg.prompts_per_step * cfg.num_generations, PartialState().num_processes
    if rows % (processes * cfg.micro_batch_size):
        raise ConfigError(
            f"micro_batch_size {cfg.micro_batch_size}: {processes} processes cannot share the {rows} rows of a step (prompts_per_step "
            f"* num_generations); use a divisor of {rows / processes:g}"
        )
    dtype, _ = compute_dtype(on_cpu(cfg), cfg.dtype)
    budget = matched_tokens(cfg)
    turn = cfg.num_layers if cfg.schedule == "alternating" else 1  # steps after which no rollouts are in use
    return MGRPOConfig(
        **{name: getattr(cfg, name) for name in MGRPOSettings.__dataclass_fields__},
        output_dir=output_dir,
        seed=cfg.seed,
        per_device_train_batch_size=cfg.micro_batch_size,
        gradient_accumulation_steps=rows // (processes * cfg.micro_batch_size),
        max_steps=cfg.max_steps if budget is None else 100 * cfg.max_steps,  # a budget of tokens ends the run by itself
        max_generated_tokens=budget,
        chat_template_kwargs=cfg.chat_template_kwargs or None,
        gradient_checkpointing=cfg.gradient_checkpointing,
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        use_cpu=on_cpu(cfg),
        logging_steps=1,
        save_strategy="steps" if cfg.checkpoint_steps else "no",
        save_steps=-(-max(cfg.checkpoint_steps, 1) // turn) * turn,
        save_total_limit=2,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


def matched_tokens(cfg: Config) -> int | None:
    """Tokens that the arm named by `match_tokens_of` sampled in its training with the same seed; None: no such arm.

    Raises:
        FileNotFoundError: that run is not trained yet, or not with these settings.
    """
    if cfg.match_tokens_of is None:
        return None
    other = cfg.of_arm(cfg.match_tokens_of)
    done = finished_run(other)
    if done is None:
        raise FileNotFoundError(
            f"{cfg.run_name} needs the token count of {other.run_name}, which is not trained with these settings; train that first"
        )
    return done["train_tokens"]


def build_trainer(cfg: Config, output_dir: str) -> MGRPOTrainer:
    """Build the trainer on the base model and the training questions of a profile."""
    location = base_location(cfg)
    rows = [{"prompt": cfg.prompt(row["question"]), "answer": row["answer"]} for row in training_problems(cfg)]
    # transformers warns of a name that TRL still uses, at every start and in every notebook
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*", category=FutureWarning)
    kind = AlternatingTrainer if cfg.schedule == "alternating" and cfg.num_layers > 1 else MGRPOTrainer
    trainer = kind(
        model=load_base(cfg, location, cfg.load_in_4bit, dtype=torch.float32 if cfg.lora_rank == 0 else None),
        reward_funcs=accuracy_reward,
        args=training_arguments(cfg, output_dir),
        train_dataset=Dataset.from_list(rows),
        processing_class=load_tokenizer(cfg, location),
        peft_config=lora_config(cfg),
        answer_of=extract_answer,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


@explained
def train(cfg: Config, watch: Iterable[TrainerCallback] = ()) -> dict:
    """Train one arm with one seed; model, metrics and manifest go to the run's folder, all at once at the end.

    In several processes (`accelerate launch`) the rows of a step are shared, and the first process writes. A run with the
    same key is not repeated; a missing base model is trained first.

    Args:
        watch: callbacks that show the training, such as `mgrpo_lib.explore.live.Curves`; plain lines come anyway.

    Returns:
        The manifest ``run.json``: key, params, train_tokens (sampled, all layers), processed_tokens (with the prompts),
        steps, seconds, how far the weights moved, environment.

    Raises:
        TrainingError: memory or disk ran out, or the numbers are not finite. The message names the settings to change,
            and the checkpoint that the same call resumes from.
    """
    processes = PartialState(cpu=on_cpu(cfg))
    key, partial = run_key(cfg), partial_folder(cfg)
    with processes.main_process_first():  # the others find what the first one trained
        if finished(partial / "run.json", key):  # stopped at the very end
            _settle(partial, cfg.run_folder)
        done = finished_run(cfg)
        base = train_base(cfg) if done is None else {}
    if done:
        print(f"{cfg.run_name} reused, same settings, version and base model (key {key})")
        return done
    limit_threads(cfg)
    with processes.main_process_first():
        checkpoint = _begun(partial, key)
    trainer = build_trainer(cfg, str(partial / "trainer"))
    if processes.is_main_process:
        print(f"computing in {compute_dtype(on_cpu(cfg), cfg.dtype)[1]}, in {processes.num_processes} process(es)")
        if checkpoint:
            print(f"{cfg.run_name} goes on from {checkpoint.name}, which an interrupted training left")
        probes = [FixRate(cfg)] if cfg.probe_steps else []
        for callback in (Lines(cfg, trainer.args.max_generated_tokens), *probes, *watch):
            trainer.add_callback(callback)
    clock = _Clock()
    trainer.add_callback(clock)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except BaseException:
        if processes.is_main_process:
            left = newest_checkpoint(partial / "trainer")
            print(
                f"{cfg.run_name} stopped; the same call goes on from {left.name if left else 'the start'}", flush=True
            )
        raise
    # every process takes part: where the weights are cut among them (FSDP), they are put together on the first
    weights = trainer.accelerator.get_state_dict(trainer.model)
    if processes.is_main_process:
        known = {"key": key, "base_key": base["key"], "seconds": clock.seconds, **trainer.guard.found}
        if probes:
            write_jsonl(partial / "fix_rate.jsonl", probes[0].rows)
        _write_run(cfg, trainer, partial, before, weights, known)
    processes.wait_for_everyone()
    return read_json(cfg.manifest("run"))


def _begun(partial: Path, key: str) -> Path | None:
    """The last checkpoint of an interrupted run with this key. What an interrupted run with another one left is set
    aside until this one is finished.
    """
    if finished(partial / "key.json", key) is None:
        if any(partial.glob("trainer/checkpoint-*")):
            print(
                f"{partial.name} holds an interrupted training with other settings, version or base model; it is set aside as "
                f"{_other(partial).name}, and deleted when this one is finished",
                flush=True,
            )
            replace_folder(partial, _other(partial))
        shutil.rmtree(partial, ignore_errors=True)
        write_json(partial / "key.json", {"key": key})
    return last_checkpoint(partial / "trainer")


def _other(partial: Path) -> Path:
    """Where an interrupted run of the same name, with another key, is meanwhile."""
    return partial.with_name(f"{partial.stem}.other.partial")


def _write_run(cfg: Config, trainer: MGRPOTrainer, partial: Path, before: dict, weights: dict, known: dict) -> None:
    """Write model, metrics, arguments and manifest of a finished run, and move them to their place together."""
    moved = sum(float((weights[name].to(before[name].device) - before[name]).norm() ** 2) for name in before) ** 0.5
    trainer.model.save_pretrained(partial / "model", state_dict=weights)
    steps = [entry for entry in trainer.state.log_history if "loss" in entry]
    write_jsonl(partial / "metrics.jsonl", [_kept(entry) for entry in steps])
    write_json(partial / "arguments.json", numerical_arguments(trainer.args))
    done = {
        **known,
        "arm": cfg.arm,
        "seed": cfg.seed,
        "params": {**cfg.settings(ModelSettings), **cfg.settings(TrainSettings)},
        "train_tokens": trainer.generated_tokens,
        "processed_tokens": int(steps[-1]["num_tokens"]),
        "steps": trainer.state.global_step,
        "processes": trainer.accelerator.num_processes,
        "trainable_parameters": sum(p.numel() for p in before.values()),
        "weight_change": round(moved, 6),
        "training_set": fingerprint(training_problems(cfg)),
        "environment": environment(),
    }
    write_json(partial / "run.json", done)
    _settle(partial, cfg.run_folder)


def _settle(partial: Path, final: Path) -> None:
    """Move a finished run to its place, without what only an unfinished one needs."""
    shutil.rmtree(partial / "trainer", ignore_errors=True)
    shutil.rmtree(_other(partial), ignore_errors=True)
    (partial / "key.json").unlink(missing_ok=True)
    replace_folder(partial, final)


def _kept(entry: dict) -> dict:
    """The logged values that `METRICS` names, of every layer, to six digits; None where one is not finite, as JSON has no
    such numbers.
    """
    values = {name: value for name, value in entry.items() if name.split("/", 1)[-1] in METRICS or name in METRICS}
    values = {name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in values.items()}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def numerical_arguments(args: MGRPOConfig) -> dict:
    """Everything in the trainer's configuration that can change its numbers, defaults of TRL included; no paths."""
    inherited = {field.name for field in fields(TrainingArguments)} - NUMERICAL
    return {name: value for name, value in sorted(args.to_dict().items()) if name not in inherited}


class _Clock(TrainerCallback, ExportableState):
    """Count seconds of training, those before an interruption included. A run that is about to finish leaves no checkpoint:
    a resume from that would train on.
    """

    def __init__(self):
        self.before, self.start = 0.0, time.monotonic()

    @property
    def seconds(self) -> float:
        return round(self.before + time.monotonic() - self.start, 1)

    def state(self) -> dict:
        return {"args": {}, "attributes": {"seconds": self.seconds}}

    def on_train_begin(self, args, state, control, **kwargs):
        saved = state.stateful_callbacks.get(type(self).__name__) if state.global_step else None
        self.before, self.start = saved["attributes"]["seconds"] if saved else 0.0, time.monotonic()

    def on_step_end(self, args, state, control, **kwargs):
        if control.should_training_stop:
            control.should_save = False


def main() -> int:
    """The command line: one run, by profile, arm and seed."""
    parser = argparse.ArgumentParser(prog="accelerate launch -m mgrpo_lib.experiment.train", description=__doc__)
    parser.add_argument("--profile", required=True, help="a file in profiles/")
    parser.add_argument("--arm", default="mgrpo", help="an arm of the profile")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="", help="folder of results/; default: out")
    parser.add_argument("--set", nargs="*", default=[], help="settings, such as learning_rate=2e-4 max_steps=50")
    given = parser.parse_args()
    try:
        settings = {**parse_assignments(given.set), "output_root": given.out or None}
        cfg = load_config(given.profile, arm=given.arm, seed=given.seed, **settings)
        with only_one(cfg.results) if PartialState(cpu=on_cpu(cfg)).is_main_process else nullcontext():
            done = train(cfg)
    except (ConfigError, FileNotFoundError, TrainingError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if PartialState().is_main_process:
        print(
            f"{given.arm}, seed {given.seed}: {done['steps']} steps, {done['train_tokens']:,} tokens, {done['seconds']} s"
        )
    PartialState().destroy_process_group()  # its threads would otherwise now and then abort the exit
    return 0


if __name__ == "__main__":
    sys.exit(main())
