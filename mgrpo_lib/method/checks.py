"""What the trainer refuses before anything runs, each with its fix."""

from itertools import islice
from pathlib import Path

import torch
from accelerate.utils import DistributedType
from datasets import Dataset
from peft import PeftModel

from mgrpo_lib.method.config import MGRPOConfig
from mgrpo_lib.method.prompts import check_context, guidance_ids
from mgrpo_lib.method.quantized import is_quantized
from mgrpo_lib.method.tokenizers import check_template, check_vocabulary, embeddings

LORA_LEARNS_FROM = 1e-6  # a learning rate below which adapters move next to nothing in a training of usual length
PACKED_WEIGHTS = (
    "use_vllm=True with a model in 4 or 8 bits: the packed weights would be sent to vLLM as they are; set use_vllm=False, or "
    "load the model in bfloat16 with LoRA"
)


def before_loading(model, args, given: dict) -> None:
    """Refuse arguments that cannot train, before TRL loads anything.

    Args:
        given: the keyword arguments of `GRPOTrainer`.

    Raises:
        ValueError: no `MGRPOConfig`; 4 bits with vLLM; a reference that is not on disk; tools, environments or a rollout
            function with correction layers.
    """
    if not isinstance(args, MGRPOConfig):
        raise ValueError(f"args is a {type(args).__name__}; pass an MGRPOConfig")
    quantization = given.get("quantization_config") or (args.model_init_kwargs or {}).get("quantization_config")
    if args.use_vllm and (is_quantized(model) or quantization is not None):
        raise ValueError(PACKED_WEIGHTS)
    path = None if isinstance(model, str) else model.config._name_or_path
    reference = args.beta and path is not None and not isinstance(model, PeftModel) and given.get("peft_config") is None
    if reference and (not path or Path(path).is_absolute() and not Path(path).exists()):
        raise ValueError(
            f"beta={args.beta:g} compares with a reference that is loaded from disk, and the model's folder is {path!r}; save "
            "the model and pass the folder, use LoRA, or set beta=0"
        )
    others = [name for name in ("tools", "environment_factory", "rollout_func") if given.get(name)]
    if others and args.num_layers > 1:
        raise ValueError(f"{others[0]} makes prompts and turns of its own; use num_layers=1 with it")


def after_loading(trainer) -> None:
    """Refuse a model that would train nothing, or against another reference than itself; with any number of layers.

    Raises:
        ValueError: packed weights with vLLM; no trainable parameter; fewer questions than a generation takes; tokens without an
            embedding; prompts that the chat template cannot write; a reference that TRL loaded from disk and that is not the
            model in memory.
    """
    args, model = trainer.args, trainer.model
    if args.use_vllm and is_quantized(model):
        raise ValueError(PACKED_WEIGHTS)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("the model has no trainable parameter; unfreeze its weights, or give a peft_config")
    questions, data = args.generation_batch_size // args.num_generations, trainer.train_dataset
    given = len(data) if isinstance(data, Dataset) else sum(1 for _ in islice(data, questions))
    if given < questions:
        raise ValueError(
            f"train_dataset has {given} questions, and one generation takes {questions}: no step could be made; give more "
            "questions, or lower per_device_train_batch_size or steps_per_generation"
        )
    _check_tokens(trainer)
    accelerator, reference = trainer.accelerator, trainer.ref_model
    whole = reference is not None and accelerator.distributed_type not in (
        DistributedType.FSDP,
        DistributedType.DEEPSPEED,
    )
    if whole and not _same_weights(model, accelerator.unwrap_model(reference, keep_torch_compile=False)):
        raise ValueError(
            f"beta={args.beta:g} compares with a reference that was loaded from {model.config._name_or_path!r}, and its weights "
            "are not those of the model in memory; save the model and pass the folder, use LoRA, or set beta=0"
        )
    if isinstance(model, PeftModel) and args.learning_rate < LORA_LEARNS_FROM:
        print(
            f"note: learning_rate={args.learning_rate:g} is a rate for full training; LoRA learns next to nothing with it. Try 1e-5",
            flush=True,
        )


def _check_tokens(trainer) -> None:
    """Refuse a tokenizer that does not go with the model or the first prompt."""
    check_vocabulary(trainer._tokenizer, embeddings(trainer.model))
    rows = trainer.train_dataset
    other = trainer._is_vlm or trainer.tools  # whose prompts TRL writes in ways of their own
    if not isinstance(rows, Dataset) or other or "prompt" not in rows.column_names:
        return
    prompt = rows[0]["prompt"]
    if isinstance(prompt, str) or all(isinstance(message["content"], str) for message in prompt):
        check_template(trainer._tokenizer, prompt, trainer.chat_template_kwargs)


def _same_weights(model, reference) -> bool:
    """True if the weights agree, up to the rounding of another dtype; adapters inside the model are left out."""
    own = {name.replace(".base_layer", ""): value for name, value in model.state_dict().items()}
    other = {name: value for name, value in reference.state_dict().items() if value.is_floating_point()}
    return own.keys() >= other.keys() and all(_agree(own[name], value) for name, value in other.items())


def _agree(one: torch.Tensor, other: torch.Tensor) -> bool:
    """True if the numbers are equal, or were before one of them was rounded."""
    dtypes = torch.float32, torch.bfloat16, torch.float16
    return any(torch.equal(one.to(dtype), other.to(one.device, dtype)) for dtype in dtypes)


def before_training(trainer, tokenize) -> None:
    """Refuse a model or questions that correction layers cannot work with.

    Args:
        tokenize: TRL's tokenization of layer-1 prompts.

    Raises:
        ValueError: questions with images; a router loss where rows are left out; tokens without an embedding; more tokens than
            the context holds.
    """
    first, prompt = _first(trainer)
    whole = isinstance(trainer.train_dataset, Dataset)
    prompts = trainer.train_dataset["prompt"] if whole else [prompt]  # a stream cannot be looked through beforehand
    messages = (message for prompt in prompts if not isinstance(prompt, str) for message in prompt)
    blocks = (block for message in messages if isinstance(message["content"], list) for block in message["content"])
    if "image" in first or "images" in first or any(block["type"] != "text" for block in blocks):
        raise ValueError("correction layers read text alone; use num_layers=1 for questions with images")
    if trainer.aux_loss_enabled and trainer.args.leaves_rows_out:
        raise ValueError(
            "the router loss of this mixture-of-experts model would be scaled up where rows are left out; set "
            "router_aux_loss_coef=0, or pass on and keep all"
        )
    args, config = trainer.args, trainer.model.config.get_text_config()
    check_vocabulary(trainer._tokenizer, embeddings(trainer.model), trainer._guidance.values())
    limits = [getattr(config, "max_position_embeddings", None), args.vllm_max_model_length if args.use_vllm else None]
    limits = [limit for limit in limits if limit is not None]
    if not limits or args.max_completion_length is None or not whole:
        return  # no limit, or a stream of questions that cannot be looked through beforehand
    longest = tokenize(sorted(prompts, key=lambda prompt: len(str(prompt)))[-32:])[0]
    check_vocabulary(trainer._tokenizer, embeddings(trainer.model), longest)
    question = max(map(len, longest))
    phrase = max(map(len, trainer._guidance.values()))
    check_context(min(limits), question, phrase, args.num_layers, args.max_completion_length)


def guidance_tokens(trainer) -> dict[str, list[int]]:
    """Tokenize what stands between a draft and its correction, per phrase.

    Raises:
        ValueError: a chat template that cannot take a later turn.
    """
    _, prompt = _first(trainer)
    template = {"chat_template": trainer.chat_template, **trainer.chat_template_kwargs}
    role, tokenizer = trainer.args.phrase_role, trainer._tokenizer
    return {phrase: guidance_ids(tokenizer, prompt, phrase, role, **template) for phrase in trainer.args.phrases}


def _first(trainer):
    first = next(iter(trainer.train_dataset))
    return first, first["prompt"]
