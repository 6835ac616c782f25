"""The two kinds of training that a profile asks for: the base model, and a GRPO or MGRPO run of one arm and seed. `accelerate launch -m mgrpo_lib.experiment.train --profile ... --arm ... --seed ...` trains the same run as the notebook, in
several processes.
"""

import argparse
import math
import shutil
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback, TrainingArguments
from transformers.trainer_callback import ExportableState

from mgrpo_lib.experiment import warmup
from mgrpo_lib.experiment.fingerprints import base_key, finished_run, run_key
from mgrpo_lib.experiment.models import (
    MINIATURE,
    base_location,
    compute_dtype,
    is_borrowed,
    limit_threads,
    load_base,
    load_tokenizer,
    lora_config,
    on_cpu,
)
from mgrpo_lib.experiment.progress import Progress
from mgrpo_lib.experiment.settings import (
    Config,
    ConfigError,
    ModelSettings,
    TrainSettings,
    load_config,
    parse_assignments,
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
from mgrpo_lib.experiment.watch import Lines
from mgrpo_lib.method.config import MGRPOConfig
from mgrpo_lib.method.guard import Guard, TrainingError, explained, last_checkpoint, newest_checkpoint, partial_folder
from mgrpo_lib.method.prompts import PHRASES, first_prompt
from mgrpo_lib.method.trainer import MGRPOTrainer
from mgrpo_lib.tasks import miniature
from mgrpo_lib.tasks.data import fingerprint, training_problems
from mgrpo_lib.verifier.reward import accuracy_reward

# what metrics.jsonl keeps of each step; with the prefix layer2/ (layer3/ ...) it is a later layer's. Accuracy and shares
# leave out fillers: rows that a process samples only because another one has more drafts to correct
METRICS = {
    "step": "optimizer step",
    "loss": "sum of the layers' losses; near 0 by construction, since advantages are centred",
    "grad_norm": "norm of the joint gradient before clipping",
    "generated_tokens": "tokens sampled since the start, all layers",
    "num_tokens": "tokens sampled or read as prompt since the start, all layers",
    "tokens": "tokens that the layer sampled in this step",
    "accuracy": "share of the layer's completions that are right",
    "answered": "share of the layer's completions in which an answer was found; rows that only fill a batch are counted",
    "reward": "mean reward of the layer's completions",
    "reward_std": "its standard deviation",
    "frac_reward_zero_std": "share of groups whose rewards are all equal: no signal",
    "entropy": "mean entropy of the policy's next-token distribution; in a joint step of the rows that move it",
    "kl": "mean k3 estimate of the divergence from the base model",
    "completions/mean_length": "tokens of a completion",
    "completions/clipped_ratio": "share of completions cut off at the length limit",
    "clip_ratio/region_mean": "share of tokens whose ratio was clipped",
    "step_time": "seconds",
    "fixed": "share of corrections that turned a wrong draft right",
    "broken": "share of corrections that turned a right draft wrong",
    "kept": "share of corrections that left a right draft right",
    "copied": "share of corrections that repeat the draft token for token",
    "answer_changed": "share of corrections whose final answer is not the draft's",
    "edit_distance": "insertions, deletions and replacements between draft and correction, as a share of the longer one",
    "used": "share of corrections that are trained on",
}
# arguments of transformers' Trainer that change numbers; all of TRL's and ours are kept
NUMERICAL = [
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "bf16",
    "fp16",
    "gradient_accumulation_steps",
    "learning_rate",
    "lr_scheduler_type",
    "max_grad_norm",
    "max_steps",
    "optim",
    "per_device_train_batch_size",
    "seed",
    "warmup_steps",
    "weight_decay",
]


@explained
def train_base(cfg: Config) -> dict:
    """Stores the base model: the miniature's, trained here or as it comes with the library, or an LLM after its warm-up.
    An LLM without one stays where it is.

    Returns:
        The manifest of the base model: key, number of parameters, seconds.
    """
    cfg = cfg.of_arm("base")
    key = base_key(cfg)
    if done := finished_run(cfg):
        print(f"base model reused, same parameters and code (key {key})")
        return done
    start, losses = time.monotonic(), []
    partial = _fresh(cfg)
    limit_threads(cfg)
    revision, progress = None, Progress(cfg.results / "progress" / "base.json", max(1, cfg.base_steps, cfg.sft_steps))

    def on_step(step: int, steps: int, loss: float) -> None:
        losses.append({"step": step, "loss": round(loss, 5)})
        progress.update(step, f"loss {loss:.3f}")

    if cfg.model != MINIATURE:
        model, tokenizer = load_base(cfg, cfg.model_location), load_tokenizer(cfg, cfg.model_location)
        revision = getattr(model.config, "_commit_hash", None)  # what the hub gave out; a folder has none
        if cfg.sft_steps:
            if PartialState().num_processes > 1:  # the others wait, and would be waited for in every step
                raise ConfigError("the warm-up runs in one process; run notebook 02_base_model first, then this again")
            model = warmup.warm_up(cfg, model, tokenizer, training_problems(cfg), str(partial / "warmup"), on_step)
            shutil.rmtree(partial / "warmup", ignore_errors=True)
    elif cfg.base_steps == 0:
        model, tokenizer = miniature.shipped_base(PHRASES)
        losses = read_json(miniature.SHIPPED / "made.json")["losses"]
    else:
        model, tokenizer = miniature.train_base(
            cfg.base_steps, cfg.base_batch_size, cfg.base_learning_rate, PHRASES, on_step=on_step
        )
    if not is_borrowed(cfg):
        model.save_pretrained(partial / "model")
        tokenizer.save_pretrained(partial / "model")
    seconds = round(time.monotonic() - start, 1)
    done = {
        "key": key,
        "arm": "base",
        "seed": None,
        "params": cfg.settings(ModelSettings),
        "revision": revision,
        "parameters": sum(p.numel() for p in model.parameters()),
        "train_tokens": 0,
        "processed_tokens": 0,
        "seconds": seconds,
        "environment": environment(),
    }
    write_jsonl(partial / "metrics.jsonl", losses)
    write_json(partial / "run.json", done)
    replace_folder(partial, cfg.run_folder)
    return done


def training_arguments(cfg: Config, output_dir: str) -> MGRPOConfig:
    """The trainer's configuration for an arm; what is not named here is `MGRPOConfig`'s default, the paper's form where
    it is known.
    """
    rows = cfg.prompts_per_step * cfg.num_generations
    processes = PartialState().num_processes
    if rows % (processes * cfg.micro_batch_size):
        raise ConfigError(
            f"{rows} rows a step (prompts_per_step * num_generations) cannot be shared by {processes} processes in micro-"
            f"batches of micro_batch_size={cfg.micro_batch_size}; set micro_batch_size to a divisor of {rows / processes:g}"
        )
    dtype, _ = compute_dtype(on_cpu(cfg), cfg.dtype)
    budget = matched_tokens(cfg)
    turn = cfg.num_layers if cfg.schedule == "alternating" else 1  # steps after which no rollouts are in use
    return MGRPOConfig(
        output_dir=output_dir,
        seed=cfg.seed,
        num_layers=cfg.num_layers,
        num_generations=cfg.num_generations,
        drafts_per_prompt=cfg.drafts_per_prompt or None,
        select_drafts=cfg.select_drafts,
        num_corrections=cfg.num_corrections,
        keep_corrections=cfg.keep_corrections,
        correction_advantage=cfg.correction_advantage,
        progress_bonus=cfg.progress_bonus,
        schedule=cfg.schedule,
        layer_weights=cfg.layer_weights,
        phrases=cfg.phrases,
        phrase_role=cfg.phrase_role,
        per_device_train_batch_size=cfg.micro_batch_size,
        gradient_accumulation_steps=rows // (processes * cfg.micro_batch_size),
        max_steps=cfg.max_steps if budget is None else 100 * cfg.max_steps,  # a budget of tokens ends the run by itself
        max_generated_tokens=budget,
        learning_rate=cfg.learning_rate,
        beta=cfg.beta,
        epsilon=cfg.epsilon,
        epsilon_high=cfg.epsilon,
        loss_type=cfg.loss_type,
        temperature=cfg.temperature,
        max_completion_length=cfg.max_completion_length,
        gradient_checkpointing=cfg.gradient_checkpointing,
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        use_cpu=on_cpu(cfg),
        use_vllm=cfg.use_vllm,
        vllm_mode="colocate",
        logging_steps=1,
        save_strategy="steps" if cfg.checkpoint_steps else "no",
        save_steps=-(-max(cfg.checkpoint_steps, 1) // turn) * turn,
        save_total_limit=2,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


def matched_tokens(cfg: Config) -> int | None:
    """Tokens that the arm named by `match_tokens_of` generated in its training with the same seed; None if the arm
    matches none.

    Raises:
        FileNotFoundError: that run has not been trained yet, or not with these parameters.
    """
    if cfg.match_tokens_of is None:
        return None
    other = cfg.of_arm(cfg.match_tokens_of)
    done = finished_run(other)
    if done is None:
        raise FileNotFoundError(
            f"{cfg.run_name} needs the token count of {other.run_name}, which is not trained with these parameters; train that first"
        )
    return done["train_tokens"]


def build_trainer(cfg: Config, output_dir: str) -> MGRPOTrainer:
    """An `MGRPOTrainer` on the base model and the training questions of a profile."""
    location, problems = base_location(cfg), training_problems(cfg)
    dataset = Dataset.from_list(
        [
            {
                "prompt": first_prompt(problem["question"], cfg.template, cfg.system_prompt),
                "answer": problem["answer"],
            }
            for problem in problems
        ]
    )
    # transformers warns of a name that TRL still uses, at every start and in every notebook
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*", category=FutureWarning)
    trainer = MGRPOTrainer(
        model=load_base(cfg, location, cfg.load_in_4bit, dtype=torch.float32 if cfg.lora_rank == 0 else None),
        reward_funcs=accuracy_reward,
        args=training_arguments(cfg, output_dir),
        train_dataset=dataset,
        processing_class=load_tokenizer(cfg, location),
        peft_config=lora_config(cfg),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


@explained
def train(cfg: Config, watch: Sequence[TrainerCallback] = ()) -> dict:
    """Trains one arm with one seed; model, metrics and manifest go to the run's folder, all at once at the end. In
    several processes (`accelerate launch`) the rows of a step are shared, and the first process writes.

    Args:
        watch: further callbacks, such as `mgrpo_lib.explore.live.Curves`; the first process calls them.

    Returns:
        The manifest ``run.json``: key, params, train_tokens (generated, all layers), processed_tokens (with the
        prompts), steps, seconds, how far the weights moved, environment. A run with the same key is not repeated; a
        missing base model is trained first.

    Raises:
        TrainingError: memory or disk ran out, or the numbers are not finite; the message names the mend, and the
            checkpoint that the same call goes on from.
    """
    processes = PartialState(cpu=on_cpu(cfg))
    key, partial = run_key(cfg), partial_folder(cfg)
    with processes.main_process_first():  # the others find what the first one trained
        if finished(partial / "run.json", key):  # stopped at the very end
            _settle(partial, cfg.run_folder)
        done = finished_run(cfg)
        base = train_base(cfg) if done is None else {}
    if done:
        print(f"{cfg.run_name} reused, same parameters, code and base model (key {key})")
        return done
    limit_threads(cfg)
    with processes.main_process_first():
        checkpoint = _begun(partial, key)
    trainer = build_trainer(cfg, str(partial / "trainer"))
    if processes.is_main_process:
        print(f"computing in {compute_dtype(on_cpu(cfg), cfg.dtype)[1]}, in {processes.num_processes} process(es)")
        if checkpoint:
            print(f"{cfg.run_name} goes on from {checkpoint.name}, which an interrupted training left")
        for callback in [Lines(cfg, matched_tokens(cfg)), *watch]:
            trainer.add_callback(callback)
    clock, guard = _Clock(), Guard(key)
    trainer.add_callback(clock)
    trainer.add_callback(guard)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except BaseException:
        if processes.is_main_process:
            kept = newest_checkpoint(partial / "trainer")
            print(
                f"{cfg.run_name} stopped; the same call goes on from {kept.name if kept else 'the start'}", flush=True
            )
        raise
    # every process takes part: where the weights are cut among them (FSDP), they are put together on the first
    weights = trainer.accelerator.get_state_dict(trainer.model)
    if processes.is_main_process:
        known = {"key": key, "base_key": base["key"], "seconds": clock.seconds, **guard.found}
        _write_run(cfg, trainer, partial, before, weights, known)
    processes.wait_for_everyone()
    return read_json(cfg.run_folder / "run.json")


def _begun(partial: Path, key: str) -> Path | None:
    """The last checkpoint of an interrupted run with this key. What an interrupted run with another key left is set aside
    until this one is finished.
    """
    if finished(partial / "key.json", key) is None:
        if any(partial.glob("trainer/checkpoint-*")):
            print(
                f"{partial.name} holds an interrupted training with other parameters, code or base model; it is set aside as "
                f"{_other(partial).name}, and deleted when this one is finished",
                flush=True,
            )
            replace_folder(partial, _other(partial))
        shutil.rmtree(partial, ignore_errors=True)
        write_json(partial / "key.json", {"key": key})
    return last_checkpoint(partial / "trainer", key)


def _other(partial: Path) -> Path:
    """Where an interrupted run of the same name, with another key, is meanwhile."""
    return partial.with_name(f"{partial.stem}.other.partial")


def _write_run(cfg: Config, trainer: MGRPOTrainer, partial: Path, before: dict, weights: dict, known: dict) -> None:
    """Model, metrics, arguments and manifest of a finished run, moved to their place together."""
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
    """Moves a finished run to its place, without what only an unfinished one needs."""
    shutil.rmtree(partial / "trainer", ignore_errors=True)
    shutil.rmtree(_other(partial), ignore_errors=True)
    (partial / "key.json").unlink(missing_ok=True)
    replace_folder(partial, final)


def _fresh(cfg: Config) -> Path:
    """An empty folder for a run that is not finished."""
    partial = partial_folder(cfg)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def _kept(entry: dict) -> dict:
    """The logged values that `METRICS` names, of every layer, to six digits; None where one is not finite, as JSON has no
    such numbers.
    """
    values = {name: value for name, value in entry.items() if name.split("/", 1)[-1] in METRICS or name in METRICS}
    values = {name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in values.items()}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def numerical_arguments(args: MGRPOConfig) -> dict:
    """Everything in the trainer's configuration that can change its numbers, defaults of TRL included; no paths."""
    inherited = {field.name for field in fields(TrainingArguments)} - set(NUMERICAL)
    return {name: value for name, value in sorted(args.to_dict().items()) if name not in inherited}


class _Clock(TrainerCallback, ExportableState):
    """Seconds of training, those before an interruption included. It also sees to it that a run that is about to finish
    leaves no checkpoint: a resume from that would train on.
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
    parser.add_argument("--out", default="", help="folder of results/; default: the repository")
    parser.add_argument("--params", default="", help="settings, such as 'learning_rate=2e-4 max_steps=50'")
    given = parser.parse_args()
    try:
        settings = {**parse_assignments(given.params), "output_root": given.out or None}
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
