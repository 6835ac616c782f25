"""Untrained chat models of two layers, with a tokenizer of bytes and whatever chat template."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<pad>", "<|im_start|>", "<|im_end|>", "<s>"]
BOS = SPECIAL.index("<s>")


def make_tokenizer(template: str | None = CHATML, begins=False, ends=False, **special) -> PreTrainedTokenizerFast:
    """Make a tokenizer of bytes that writes BOS before each text (`begins`) and an end behind it (`ends`), or neither."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    if begins or ends:
        around = f"{'<s> ' * begins}$A{' <|im_end|>' * ends}"
        known = [(token, vocabulary[token]) for token in SPECIAL]
        tokenizer.post_processor = processors.TemplateProcessing(around, special_tokens=known)
        special = {"bos_token": "<s>", **special}
    special = {"pad_token": "<pad>", "eos_token": "<|im_end|>", **special}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="left", **special)
    tokenizer.chat_template = template
    return tokenizer


def make_model(tokenizer: PreTrainedTokenizerFast, vocabulary: int | None = None, context: int = 4096):
    """Make a model with an embedding for each token, or for so many."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=vocabulary or len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=context,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=0, bos_token_id=None,
    )  # fmt: skip
    return Qwen2ForCausalLM(config)


def make_folder(folder: Path, tokenizer: PreTrainedTokenizerFast | None = None, **sizes) -> str:
    """Save such a model with its tokenizer."""
    tokenizer = tokenizer or make_tokenizer()
    make_model(tokenizer, **sizes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
