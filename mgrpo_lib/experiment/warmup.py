"""Supervised warm-up on worked solutions, for a model that reinforcement learning cannot start from.

It teaches what the reward needs: answers in the form that the verifier reads, and some right ones. It shows first
attempts alone: what a correction is worth, reinforcement learning has to find out. The paper's model needs no warm-up.
"""

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from mgrpo_lib.experiment.models import lora, on_cpu
from mgrpo_lib.experiment.prompts import prompt_ids, solution_ids
from mgrpo_lib.experiment.settings import Config, ConfigError


def warm_up(
    cfg: Config,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: list[dict],
    output_dir: str,
    on_step,
) -> PreTrainedModel:
    """Train `sft_steps` steps of TRL's SFT with LoRA, merged afterwards: all arms start from one dense base model.

    Args:
        problems: rows with ``question`` and ``solution``; the loss is on the solutions alone.
        output_dir: a folder that may be deleted afterwards.
        on_step: called with (step, steps, loss) after every step.

    Raises:
        ConfigError: a row without a solution.
    """
    if missing := [row["id"] for row in problems if "solution" not in row]:
        raise ConfigError(
            f"sft_steps={cfg.sft_steps} needs worked solutions, and {missing[0]} of {cfg.train_data} has none; add a "
            "column 'solution', or set sft_steps=0"
        )
    pairs = zip(prompt_ids(cfg, tokenizer, problems), solution_ids(cfg, tokenizer, problems), strict=True)
    rows = [
        {"input_ids": prompt + solution, "completion_mask": [0] * len(prompt) + [1] * len(solution)}
        for prompt, solution in pairs
    ]
    args = SFTConfig(
        output_dir=output_dir,
        max_steps=cfg.sft_steps,
        per_device_train_batch_size=cfg.sft_batch_size,
        learning_rate=cfg.sft_learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=min(10, cfg.sft_steps // 4),
        weight_decay=0.0,
        max_length=None,
        completion_only_loss=True,
        gradient_checkpointing=cfg.gradient_checkpointing,
        bf16=model.dtype == torch.bfloat16,
        fp16=model.dtype == torch.float16,
        use_cpu=on_cpu(cfg),
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    trainer = SFTTrainer(
        model=model,
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=lora(cfg.sft_lora_rank, 2 * cfg.sft_lora_rank),
        callbacks=[_Losses(on_step)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trainer.model.merge_and_unload().eval()


class _Losses(TrainerCallback):
    def __init__(self, on_step):
        self.on_step = on_step

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            self.on_step(state.global_step, state.max_steps, logs["loss"])
