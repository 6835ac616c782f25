"""The miniature's tokenizer and base model, small enough to train on one CPU core."""

import random
import re

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mgrpo_lib.tasks.miniature import LABELS, P_FIX, SHIPPED, WORDS, base_text


def make_tokenizer(phrases: list[str]) -> PreTrainedTokenizerFast:
    """Build a word-level tokenizer: digits, operators, step labels, number words and tags; a guiding phrase is one token.

    White space is ignored.
    """
    tags = ["<q>", "<a>", "<think>", "</think>", "\\boxed{", "}"]
    vocabulary = ["<pad>", "<eos>", *tags, *"0123456789+-*=;?", *LABELS, *WORDS.values()]
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(vocabulary)}, unk_token="<pad>"))
    tokenizer.normalizer = normalizers.Replace(Regex(r"\n"), " ")
    pieces = "|".join([*map(re.escape, tags), "[0-9+*=;?-]", "[a-z]{2,}", "[a-z]"])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(pieces), "isolated")]
    )
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_tokens([AddedToken(phrase, normalized=False, lstrip=True, rstrip=True) for phrase in phrases])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def make_base_model(tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> LlamaForCausalLM:
    """Build an untrained Llama of about 0.2M parameters; all widths are multiples of 64, as 4-bit blocks need."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64,
            hidden_size=64,
            intermediate_size=256,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            initializer_range=0.1,  # the usual 0.02 is for wide models; here it costs minutes of plateau
            rope_parameters={"rope_type": "default", "rope_theta": 100.0},  # sequences of at most 150 tokens
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )


def shipped_base(phrases: list[str]) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Load the base model that comes with the library, in evaluation mode, and its tokenizer.

    It is shipped because a training this short ends differently with the last bits of a processor's arithmetic.
    ``made.json`` beside it records how it was made.
    """
    return LlamaForCausalLM.from_pretrained(SHIPPED, dtype=torch.float32).eval(), make_tokenizer(phrases)


def train_base(
    steps: int,
    batch_size: int,
    learning_rate: float,
    phrases: list[str],
    seed: int = 0,
    on_step=None,
    fix_rate: float = P_FIX,
    break_rate: float = 0.0,
    reguess_rate: float = 0.0,
    continued: bool = False,
):
    """Train a base model on `base_text`: a new one, short chains first, or the shipped one further.

    Args:
        learning_rate: peak for embeddings and norms (AdamW), four times that for matrices (Muon); linear decay to 5%.
        on_step: called with (step, steps, loss) after every step.
        fix_rate, break_rate, reguess_rate: of the second attempts in the texts, see `base_text`.
        continued: start from the shipped model, with chains of every length.

    Returns:
        (model, tokenizer), the model in evaluation mode.
    """
    model, tokenizer = shipped_base(phrases)
    model = model.train() if continued else make_base_model(tokenizer, seed)
    rng = random.Random(f"base/{seed}")
    # Muon for the matrices inside the layers halves the number of steps against AdamW alone
    inside = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers = [
        torch.optim.Muon(inside, lr=4 * learning_rate, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(others, lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.01),
    ]
    warm_up_and_decay = [
        torch.optim.lr_scheduler.LambdaLR(o, lambda step: min((step + 1) / 30, 1) * (1 - 0.95 * step / steps))
        for o in optimizers
    ]
    rates = fix_rate, break_rate, reguess_rate
    for step, texts in enumerate(base_batches(rng, phrases, steps, batch_size, *rates, grow=not continued)):
        input_ids, labels = _padded(tokenizer, texts)
        # padding is on the right of causal attention: no mask needed
        loss = model(input_ids=input_ids, labels=labels).loss
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for one in (*optimizers, *warm_up_and_decay):
            one.step()
        if on_step is not None:
            on_step(step + 1, steps, loss.item())
    return model.eval(), tokenizer


def base_batches(
    rng: random.Random,
    phrases: list[str],
    steps: int,
    batch_size: int,
    fix_rate: float = P_FIX,
    break_rate: float = 0.0,
    reguess_rate: float = 0.0,
    grow: bool = True,
    pool: int = 10,
):
    """Yield `steps` batches of base text; texts of similar length share a batch.

    Chains that `grow` do so from 2 to 6 operands over the first 45% of the steps.
    """
    for start in range(0, steps, pool):
        longest = min(6, 2 + int(max(0.0, start / steps - 0.15) / 0.075)) if grow else 6
        texts = sorted(
            (base_text(rng, phrases, longest, fix_rate, break_rate, reguess_rate) for _ in range(pool * batch_size)),
            key=lambda text: len(text[0]) + len(text[1]),
        )
        batches = [
            texts[i::pool] if longest == 2 else texts[i * batch_size : (i + 1) * batch_size]
            for i in range(min(pool, steps - start))
        ]
        rng.shuffle(batches)
        yield from batches


def _padded(tokenizer, texts: list[tuple[str, str]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return input ids and labels (rows, length); only completions and their end are learnt."""
    input_ids, labels = [], []
    for text in texts:
        prompt, completion = tokenizer(list(text), add_special_tokens=False)["input_ids"]
        completion.append(tokenizer.eos_token_id)
        input_ids.append(torch.tensor(prompt + completion))
        labels.append(torch.tensor([-100] * len(prompt) + completion))
    return (
        pad_sequence(input_ids, batch_first=True, padding_value=tokenizer.pad_token_id),
        pad_sequence(labels, batch_first=True, padding_value=-100),
    )
