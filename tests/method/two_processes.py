"""Run by `test_processes.py` in two processes: each layer's gradient, as the processes computed it together, against the
closed formula over the rows of both; and the group advantages of the corrections against TRL's.
"""

import json
import os
import sys
import tempfile
import zlib

import tiny
import torch
from accelerate.utils import gather_object
from transformers import AutoModelForCausalLM


def uneven(prompts, completions, **kwargs):
    """Right at random by the text, and far more often on the first process: the selections of wrong drafts differ."""
    limit = 9 if os.environ["RANK"] == "0" else 3
    return [float(zlib.crc32((p[:9] + c).encode()) % 10 < limit) for p, c in zip(prompts, completions, strict=True)]


class Recording(tiny.Recording):
    def training_step(self, model, inputs, num_items_in_batch=None):
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.gradient = tiny.gradient(self.model)
        return loss


def formula(trainer, model, everyone: list[dict]) -> torch.Tensor:
    """The gradient of sum_l w_l L_l, each layer's loss over all processes' rows at once, written here from the papers."""
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
    return tiny.gradient(model)


def trained(folder: str, **options) -> Recording:
    """A trainer after one step; its gradient is not clipped."""
    options |= {"max_steps": 1, "max_grad_norm": 1e9, "select_drafts": "wrong", "drafts_per_prompt": 4}
    trainer = tiny.build(folder, tempfile.mkdtemp(), Recording, uneven, num_corrections=3, **options)
    trainer.train()
    assert trainer.accelerator.num_processes == 2
    return trainer


def main(folder: str, report_file: str) -> None:
    report, successes = {}, {"keep_corrections": "successes", "correction_advantage": "difference"}
    for loss_type in ("grpo", "dapo", "dr_grpo"):
        trainer = trained(folder, loss_type=loss_type, layer_weights=[1.0, 0.7], **successes)
        everyone = gather_object([trainer.inputs])
        expected = formula(trainer, AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), everyone)
        report[loss_type] = {
            "error": float((trainer.gradient - expected).norm() / expected.norm()),
            "norm": float(expected.norm()),
            "rows": gather_object([len(trainer.layers[2].questions)]),
            "real": gather_object([int(trainer.layers[2].real.sum())]),
            "used": [sum(int(one["tool_mask"].any(1).sum()) for one in b["corrections"][0]) for b in everyone],
            "share_used": tiny.logged(trainer)[0]["layer2/used"],
        }
    for scale in ("group", "batch", "none"):
        trainer = trained(folder, scale_rewards=scale)
        found = trainer.batches[2]["advantages"]
        same = torch.equal(found, trainer.of_trl[2] * trainer.layers[2].real)
        report[f"scaled by {scale}"] = gather_object([same and bool(found.any())])
    if trainer.accelerator.is_main_process:
        with open(report_file, "w", encoding="utf-8") as file:
            json.dump(report, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
