"""Sizes of a language model, from its config.json alone: nothing else is downloaded, and no weights are made."""

import functools
import json
from typing import NamedTuple

from mgrpo_lib.experiment.settings import Config, ConfigError
from mgrpo_lib.tasks import miniature

SIZES = ("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
SIZES += ("num_key_value_heads", "vocab_size", "tie_word_embeddings")
QWEN_0_5B = dict(zip(SIZES, ("qwen2", 896, 4864, 24, 14, 2, 151936, True), strict=True))
QWEN_1_5B = dict(zip(SIZES, ("qwen2", 1536, 8960, 28, 12, 2, 151936, True), strict=True))
QWEN_7B = dict(zip(SIZES, ("qwen2", 3584, 18944, 28, 28, 4, 152064, False), strict=True))
SMOLLM2 = dict(zip(SIZES, ("llama", 576, 1536, 30, 9, 3, 49152, True), strict=True))
MODELS = {  # those of the profiles, as their public config.json say
    "Qwen/Qwen2.5-0.5B-Instruct": QWEN_0_5B | {"max_position_embeddings": 32768},
    "Qwen/Qwen2.5-1.5B-Instruct": QWEN_1_5B | {"max_position_embeddings": 32768},
    "Qwen/Qwen2.5-Math-1.5B": QWEN_1_5B | {"max_position_embeddings": 4096},
    "Qwen/Qwen2.5-Math-7B": QWEN_7B | {"max_position_embeddings": 4096},
    "HuggingFaceTB/SmolLM2-135M-Instruct": SMOLLM2 | {"max_position_embeddings": 8192},
    "SmolLM2-135M-Instruct": SMOLLM2 | {"max_position_embeddings": 8192},  # the folder that tools/smollm2.py makes
    "Qwen2.5-Coder-0.5B-Instruct": QWEN_0_5B | {"max_position_embeddings": 32768},  # the one that tools/qwen.py makes
}


class Model(NamedTuple):
    """Sizes of a causal language model, counted on its modules."""

    parameters: int
    linear: int  # weights of all linear layers but the output head
    widths: int  # their inputs and outputs together
    head: int  # weights of the output head, also where they are the embeddings
    hidden: int
    intermediate: int
    kv: int  # width of all key heads together
    layers: int
    vocabulary: int


def model_of(cfg: Config) -> Model:
    """Return the sizes of a profile's model: by its folder's config.json, by `MODELS`, or by the hub's config.json alone.

    Raises:
        ConfigError: the hub has no such model, or cannot be reached.
    """
    folder = miniature.SHIPPED if cfg.is_miniature else cfg.model_folder
    if folder is not None:
        return count((folder / "config.json").read_text(encoding="utf-8"))
    return count(json.dumps(MODELS[cfg.model]) if cfg.model in MODELS else _of_hub(cfg.model, cfg.model_revision))


@functools.lru_cache
def _of_hub(name: str, revision: str | None) -> str:
    from transformers import AutoConfig

    try:
        found = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    except (OSError, ValueError):  # no hub, no such model, or one with code of its own
        raise ConfigError(
            f"model {name!r}: no config.json found on the Hub (offline, misspelt, or gated); set model to a folder with one, "
            f"or to one of {', '.join(MODELS)}"
        ) from None
    return found.to_json_string(use_diff=False)


@functools.lru_cache
def count(config: str) -> Model:
    """Count the sizes of the model that a ``config.json`` describes, built on torch's meta device."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    described = AutoConfig.for_model(**json.loads(config))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(described)
    head, text = model.get_output_embeddings(), described.get_text_config()
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    heads = text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    return Model(
        parameters=sum(p.numel() for p in model.parameters()),
        linear=sum(m.in_features * m.out_features for m in linear),
        widths=sum(m.in_features + m.out_features for m in linear),
        head=head.weight.numel(),
        hidden=text.hidden_size,
        intermediate=text.intermediate_size,
        kv=(getattr(text, "num_key_value_heads", None) or heads) * width,
        layers=text.num_hidden_layers,
        vocabulary=text.vocab_size,
    )
