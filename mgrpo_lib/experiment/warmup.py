"""Supervised warm-up of a language model on worked solutions, where it cannot yet do what reinforcement learning is to
amplify: answer in the form that the reward reads, and be right now and then.

TRL's `SFTTrainer` with LoRA, merged afterwards: to all arms the result is one dense base model. Only first attempts are
shown, no phrase and no correction: what a second attempt is worth, reinforcement learning has to find out.
The paper does not speak of a warm-up; its model needs none.
"""

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from mgrpo_lib.experiment.models import on_cpu
from mgrpo_lib.experiment.settings import Config, ConfigError


def warm_up(
    cfg: Config,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: list[dict],
    output_dir: str,
    on_step,
) -> PreTrainedModel:
    """The model after `sft_steps` steps of `sft_batch_size` worked solutions each; the loss is on the solutions alone.

    Args:
        problems: rows with ``question`` and ``solution``.
        output_dir: a folder that may be deleted afterwards.
        on_step: called with (step, steps, loss) after every step.

    Raises:
        ConfigError: a row without a solution.
    """
    from peft import LoraConfig

    if missing := [row["id"] for row in problems if "solution" not in row]:
        raise ConfigError(
            f"sft_steps {cfg.sft_steps} warms up on worked solutions, and {missing[0]} of {cfg.train_data} has none; add a "
            "column 'solution', or set sft_steps=0"
        )
    conversations = [
        {
            "prompt": cfg.prompt(row["question"]),
            "completion": [{"role": "assistant", "content": row["solution"]}],
        }
        for row in problems
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
    lora = LoraConfig(
        r=cfg.sft_lora_rank,
        lora_alpha=2 * cfg.sft_lora_rank,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    trainer = SFTTrainer(
        model=model,
        args=args,
        train_dataset=Dataset.from_list(conversations),
        processing_class=tokenizer,
        peft_config=lora,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_Report(on_step))
    trainer.train()
    return trainer.model.merge_and_unload().eval()


class _Report(TrainerCallback):
    def __init__(self, on_step):
        self.on_step = on_step

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            self.on_step(state.global_step, state.max_steps, logs["loss"])
