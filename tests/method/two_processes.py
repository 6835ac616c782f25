"""Run by `test_processes.py` in two processes: each layer's gradient, as the processes computed it together, against the
closed formula over the rows of both.
"""

import json
import os
import sys
import zlib

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from mgrpo_lib.method.config import MGRPOConfig
from mgrpo_lib.method.trainer import MGRPOTrainer
from mgrpo_lib.tasks import miniature


def uneven(prompts, completions, **kwargs):
    """Right at random by the text, and far more often on the first process: the selections of wrong drafts differ."""
    limit = 9 if os.environ["RANK"] == "0" else 3
    return [float(zlib.crc32((p[:9] + c).encode()) % 10 < limit) for p, c in zip(prompts, completions, strict=True)]


class Recording(MGRPOTrainer):
    def training_step(self, model, inputs, num_items_in_batch=None):
        self.inputs = None
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.gradient = torch.cat([p.grad.flatten() for p in self.model.parameters()])
        return loss

    def _prepare_inputs(self, generation_batch):
        self.batch = super()._prepare_inputs(generation_batch)
        return self.batch


def formula(trainer, model, everyone: list[dict]) -> torch.Tensor:
    """The gradient of sum_l w_l L_l, each layer's loss over all processes' rows at once, written anew from the papers."""
    args, total = trainer.args, 0.0
    for layer, weight in enumerate(args.layer_weights):
        batches = everyone if layer == 0 else [piece for batch in everyone for piece in batch["corrections"][layer - 1]]
        rows = []
        for batch in batches:
            ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
            seen = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
            width = batch["completion_ids"].shape[1]
            logits = model(input_ids=ids, attention_mask=seen).logits[:, -width - 1 : -1]
            logp = logits.log_softmax(-1).gather(-1, batch["completion_ids"][..., None])[..., 0]
            objective = -torch.exp(logp - logp.detach()) * batch["advantages"][:, None]
            trained = batch["completion_mask"] * batch.get("tool_mask", torch.ones_like(batch["completion_mask"]))
            rows += [row[mask.bool()] for row, mask in zip(objective, trained, strict=True) if mask.any()]
        if args.loss_type == "grpo":
            loss = sum(row.mean() for row in rows) / len(rows)
        elif args.loss_type == "dapo":
            loss = sum(row.sum() for row in rows) / sum(map(len, rows))
        else:
            loss = sum(row.sum() for row in rows) / (len(rows) * args.max_completion_length)
        total = total + weight * loss
    model.zero_grad()
    total.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def main(folder: str, work: str) -> None:
    report = {}
    problems = miniature.problems("train", "train", 16)
    rows = [{"prompt": f"<q>{row['question']}<a>", "answer": row["answer"]} for row in problems]
    for loss_type in ("grpo", "dapo", "dr_grpo"):
        torch.manual_seed(0)
        start = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        trainer = Recording(
            model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
            reward_funcs=uneven,
            args=MGRPOConfig(
                output_dir=work, per_device_train_batch_size=8, num_generations=4, max_completion_length=12, max_steps=1,
                num_corrections=3, drafts_per_prompt=None, select_drafts="wrong", keep_corrections="successes",
                correction_advantage="difference", layer_weights=[1.0, 0.7], loss_type=loss_type, beta=0.0,
                max_grad_norm=1e9, learning_rate=1e-3, save_strategy="no", use_cpu=True, bf16=False,
                gradient_checkpointing=False, disable_tqdm=True, logging_steps=1, seed=7,
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(folder, padding_side="left"),
        )  # fmt: skip
        trainer.train()
        accelerator = trainer.accelerator
        assert accelerator.num_processes == 2
        everyone = gather_object([trainer.batch])
        drafts = gather_object([trainer._rollouts.questions])
        expected = formula(trainer, start, everyone)
        log = next(entry for entry in trainer.state.log_history if "layer2/reward" in entry)
        if accelerator.is_main_process:
            report[loss_type] = {
                "error": float((trainer.gradient - expected).norm() / expected.norm()),
                "norm": float(expected.norm()),
                "rows": [len(questions) for questions in drafts],
                "real": [sum(question >= 0 for question in questions) for questions in drafts],
                "used": [
                    sum(int(piece["tool_mask"].any(1).sum()) for piece in batch["corrections"][0]) for batch in everyone
                ],
                "share_used": log["layer2/used"],
                "tokens": log["generated_tokens"],
            }
    if accelerator.is_main_process:
        with open(f"{work}/report.json", "w", encoding="utf-8") as file:
            json.dump(report, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
