"""The two kinds of training that a profile asks for: the miniature's base model, and a GRPO or MGRPO run of one arm and
seed.
"""

import shutil
import time
import warnings
from dataclasses import fields

import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback, TrainingArguments

from mgrpo_lib import miniature
from mgrpo_lib.config import Config, ModelSettings, TrainSettings
from mgrpo_lib.data import fingerprint, training_problems
from mgrpo_lib.models import (
    adapters_to_float32,
    base_location,
    compute_dtype,
    load_base,
    load_tokenizer,
    lora_config,
    on_cpu,
)
from mgrpo_lib.progress import Progress
from mgrpo_lib.prompts import PHRASES, first_prompt
from mgrpo_lib.rewards import accuracy_reward
from mgrpo_lib.store import base_key, environment, finished_run, replace_folder, run_key, write_json, write_jsonl
from mgrpo_lib.trainer import MGRPOConfig, MGRPOTrainer

# what metrics.jsonl keeps of each step; with the prefix layer2/ it is the second layer's
METRICS = {
    "step": "optimizer step",
    "loss": "sum of the layers' losses; near 0 by construction, since advantages are centred",
    "grad_norm": "norm of the joint gradient before clipping",
    "generated_tokens": "tokens sampled since the start, all layers",
    "num_tokens": "tokens sampled or read as prompt since the start, all layers",
    "reward": "mean reward of the layer's completions",
    "reward_std": "its standard deviation",
    "frac_reward_zero_std": "share of groups whose rewards are all equal: no signal",
    "entropy": "mean entropy of the policy's next-token distribution",
    "kl": "mean k3 estimate of the divergence from the base model",
    "completions/mean_length": "tokens of a completion",
    "completions/clipped_ratio": "share of completions cut off at the length limit",
    "clip_ratio/region_mean": "share of tokens whose ratio was clipped",
    "step_time": "seconds",
    "fixed": "share of corrections that turned a wrong draft right",
    "broken": "share of corrections that turned a right draft wrong",
    "copied": "share of corrections that repeat the draft to the letter",
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


def train_base(cfg: Config) -> dict:
    """Trains and stores the miniature's base model; for any other model there is nothing to train.

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
    if cfg.model == "miniature":
        progress = Progress(cfg.results / "progress" / "base.json", cfg.base_steps)

        def on_step(step: int, steps: int, loss: float) -> None:
            losses.append({"step": step, "loss": round(loss, 5)})
            progress.update(step, f"loss {loss:.3f}")

        model, tokenizer = miniature.train_base(
            cfg.base_steps, cfg.base_batch_size, cfg.base_learning_rate, PHRASES, on_step=on_step
        )
        model.save_pretrained(partial / "model")
        tokenizer.save_pretrained(partial / "model")
    else:
        model, tokenizer = load_base(cfg.model, on_cpu(cfg)).eval(), load_tokenizer(cfg.model)
    seconds = round(time.monotonic() - start, 1)
    done = {
        "key": key,
        "arm": "base",
        "seed": None,
        "params": cfg.settings(ModelSettings),
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
    dtype, _ = compute_dtype(on_cpu(cfg))
    budget = matched_tokens(cfg)
    return MGRPOConfig(
        output_dir=output_dir,
        seed=cfg.seed,
        num_layers=cfg.num_layers,
        num_generations=cfg.num_generations,
        drafts_per_prompt=cfg.drafts_per_prompt or None,
        num_corrections=cfg.num_corrections,
        layer_weights=cfg.layer_weights[: cfg.num_layers],
        per_device_train_batch_size=cfg.micro_batch_size,
        gradient_accumulation_steps=rows // cfg.micro_batch_size,
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
        logging_steps=1,
        save_strategy="no",
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
    location = base_location(cfg)
    problems = training_problems(cfg)
    dataset = Dataset.from_list(
        [
            {"prompt": first_prompt(problem["question"], cfg.template), "answer": problem["answer"]}
            for problem in problems
        ]
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*checkpointing.*")
        trainer = MGRPOTrainer(
            model=load_base(
                location, on_cpu(cfg), cfg.load_in_4bit, dtype=torch.float32 if cfg.lora_rank == 0 else None
            ),
            reward_funcs=accuracy_reward,
            args=training_arguments(cfg, output_dir),
            train_dataset=dataset,
            processing_class=load_tokenizer(location),
            peft_config=lora_config(cfg),
        )
    trainer.remove_callback(PrinterCallback)
    if cfg.load_in_4bit:
        adapters_to_float32(trainer.model)
    return trainer


def train(cfg: Config) -> dict:
    """Trains one arm with one seed; model, metrics and manifest go to the run's folder, all at once at the end.

    Returns:
        The manifest ``run.json``: key, params, train_tokens (generated, all layers), processed_tokens (with the
        prompts), steps, seconds, how far the weights moved, environment. A run with the same key is not repeated; a missing base
        model is trained first.
    """
    key = run_key(cfg)
    if done := finished_run(cfg):
        print(f"{cfg.run_name} reused, same parameters, code and base model (key {key})")
        return done
    base = train_base(cfg)
    partial = _fresh(cfg)
    trainer = build_trainer(cfg, str(partial / "trainer"))
    trainer.add_callback(_Report(cfg))
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    start = time.monotonic()
    trainer.train()
    seconds = round(time.monotonic() - start, 1)
    after = {name: p.detach() for name, p in trainer.model.named_parameters() if name in before}
    moved = sum(float((after[name] - before[name]).norm() ** 2) for name in before) ** 0.5
    trainer.model.save_pretrained(partial / "model")
    shutil.rmtree(partial / "trainer", ignore_errors=True)
    steps = [entry for entry in trainer.state.log_history if "reward" in entry]
    write_jsonl(partial / "metrics.jsonl", [_kept(entry) for entry in steps])
    write_json(partial / "arguments.json", numerical_arguments(trainer.args))
    done = {
        "key": key,
        "arm": cfg.arm,
        "seed": cfg.seed,
        "params": {**cfg.settings(ModelSettings), **cfg.settings(TrainSettings)},
        "train_tokens": trainer.generated_tokens,
        "processed_tokens": int(steps[-1]["num_tokens"]),
        "steps": trainer.state.global_step,
        "seconds": seconds,
        "trainable_parameters": sum(p.numel() for p in before.values()),
        "weight_change": round(moved, 6),
        "training_set": fingerprint(training_problems(cfg)),
        "base_key": base["key"],
        "environment": environment(),
    }
    write_json(partial / "run.json", done)
    replace_folder(partial, cfg.run_folder)
    return done


def _fresh(cfg: Config):
    """An empty folder for a run that is not finished."""
    partial = cfg.run_folder.with_name(f".{cfg.run_name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def _kept(entry: dict) -> dict:
    """The logged values that `METRICS` names, of every layer, to six digits."""
    values = {name: value for name, value in entry.items() if name.split("/", 1)[-1] in METRICS or name in METRICS}
    return {name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in values.items()}


def numerical_arguments(args: MGRPOConfig) -> dict:
    """Everything in the trainer's configuration that can change its numbers, defaults of TRL included; no paths."""
    inherited = {field.name for field in fields(TrainingArguments)} - set(NUMERICAL)
    return {name: value for name, value in sorted(args.to_dict().items()) if name not in inherited}


class _Report(TrainerCallback):
    """One progress line now and then; the total is known by steps, or by tokens where a budget of tokens ends the run."""

    def __init__(self, cfg: Config):
        self.file = cfg.results / "progress" / f"{cfg.run_name}.json"
        self.budget = matched_tokens(cfg)
        self.progress = None

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "reward" not in logs:
            return
        total = args.max_steps
        if self.budget is not None:
            total = max(
                state.global_step, min(total, round(self.budget / logs["generated_tokens"] * state.global_step))
            )
        if self.progress is None:
            self.progress = Progress(self.file, total)
        self.progress.total = total
        second = f", after correction {logs['layer2/reward']:.2f}" if "layer2/reward" in logs else ""
        self.progress.update(state.global_step, f"reward {logs['reward']:.2f}{second}")
