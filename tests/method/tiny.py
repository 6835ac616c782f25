"""A tiny model with its tokenizer, a reward and a trainer's settings: a training takes seconds. Uses `mgrpo_lib.method`
alone.
"""

import os
import random
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

from mgrpo_lib.method.config import MGRPOConfig
from mgrpo_lib.method.prompts import PHRASES
from mgrpo_lib.method.trainer import MGRPOTrainer

COMMON = {
    "per_device_train_batch_size": 8,
    "num_generations": 4,
    "max_completion_length": 12,
    "learning_rate": 1e-2,
    "max_steps": 3,
    "logging_steps": 1,
    "save_strategy": "no",
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "dataloader_pin_memory": False,
    "seed": 7,
    "beta": 0.0,
    "loss_type": "grpo",
    "lr_scheduler_type": "constant",
    "use_bias_correction_kl": False,
}
TEMPLATE = (  # writes the same prompts as conversations
    "{% for m in messages %}{{ '<q>' + m['content'] + '<a>' if m['role'] == 'user' else m['content'] }}{% endfor %}"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Digits, operators and tags; each guiding phrase is one token."""
    vocabulary = ["<pad>", "<eos>", "<q>", "<a>", *"0123456789+-*abc"]
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(vocabulary)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"<q>|<a>|\S"), "removed", invert=True)
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_tokens([AddedToken(phrase, normalized=False, lstrip=True, rstrip=True) for phrase in PHRASES])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", padding_side="left",
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def save_model(folder: Path) -> None:
    """Write an untrained model of two layers, and its tokenizer; widths are multiples of 64, as 4-bit blocks need."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    special = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    config = LlamaConfig(vocab_size=32, max_position_embeddings=256, initializer_range=0.1, **sizes, **special)
    LlamaForCausalLM(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)


def questions(count: int = 16) -> list[str]:
    rng = random.Random(0)
    return ["".join(f"{rng.choice('abc+-*')}{rng.randrange(10)}" for _ in range(2 + i % 3)) for i in range(count)]


def texts(completions: list) -> list[str]:
    return [one if isinstance(one, str) else one[-1]["content"] for one in completions]


def parity(completions, log_metric=None, **kwargs) -> list[float]:
    """Reward an even number of digits: an untrained model earns it now and then."""
    if log_metric is not None:
        log_metric("some digit", sum(any(map(str.isdigit, text)) for text in texts(completions)) / len(completions))
    return [float(sum(map(str.isdigit, text)) % 2 == 0) for text in texts(completions)]


def build(folder, out, kind=MGRPOTrainer, reward=parity, template=None, given=None, **options):
    """A trainer of a class on the tiny model.

    Args:
        template: a chat template; the questions are conversations then.
        given: further arguments of the trainer.
        options: changes of `COMMON`; ``lora=True`` trains an adapter.
    """
    lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    lora = lora if options.pop("lora", False) else None
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    prompts = [f"<q>{question}<a>" for question in questions()]
    if template:
        tokenizer.chat_template = template
        prompts = [[{"role": "user", "content": question}] for question in questions()]
    torch.manual_seed(0)
    config = GRPOConfig if kind is GRPOTrainer else MGRPOConfig
    return kind(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        reward_funcs=reward,
        args=config(output_dir=str(out), **{**COMMON, **options}),
        train_dataset=Dataset.from_list([{"prompt": prompt, "number": i} for i, prompt in enumerate(prompts)]),
        processing_class=tokenizer,
        peft_config=lora,
        **(given or {}),
    )


class Recording(MGRPOTrainer):
    """Keeps what the last generation produced: layers and TRL's batches by number, and what a step was given."""

    def _sample_drafts(self, inputs):
        batch, drafts = super()._sample_drafts(inputs)
        self.layers, self.batches, self.of_trl, self.seeds = {1: drafts}, {1: batch}, {1: batch["advantages"]}, {}
        return batch, drafts

    def _sample_corrections(self, corrections, drafts):
        number = corrections.number
        self.layers[number], self.seeds[number] = corrections, self._seed(number, "sampling")
        self.batches[number] = super()._sample_corrections(corrections, drafts)
        return self.batches[number]

    def _advantages(self, corrections, drafts, of_trl):
        self.of_trl[corrections.number] = of_trl
        return super()._advantages(corrections, drafts, of_trl)

    def _prepare_inputs(self, generation_batch):
        self.inputs = super()._prepare_inputs(generation_batch)
        return self.inputs


def generate(trainer):
    """Let a trainer sample one batch of all layers, without a step."""
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1  # set by `train`, which is not called here
    trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    return trainer


def weights(trainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def trained_weights(trainer) -> dict[str, torch.Tensor]:
    before = weights(trainer)
    trainer.train()
    assert differing(before, weights(trainer)), "training moved nothing: the comparison would be empty"
    return weights(trainer)


def differing(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> list[str]:
    assert left.keys() == right.keys()
    return [name for name in left if not torch.equal(left[name], right[name])]


def gradient(model) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def logged(trainer) -> list[dict]:
    """The logged values of each optimizer step."""
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def environment() -> dict[str, str]:
    """What a process of a test needs to import the project as it is here."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
