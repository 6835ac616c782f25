"""Loading: the base model (hub id, folder, or what notebook 02 made), in full precision or 4 bits, with or without LoRA.
Safetensors alone, and no code that comes with a model.
"""

import logging
from pathlib import Path

import torch
from accelerate import PartialState
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from mgrpo_lib.experiment.settings import Config, ConfigError
from mgrpo_lib.method.prompts import PLAIN_TURNS
from mgrpo_lib.method.quantized import keep_4bit_trainable

MINIATURE = "miniature"
# it warns at every import that an optional CPU kernel is not installed
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def on_cpu(cfg: Config) -> bool:
    """The miniature always runs on the CPU, so that its numbers do not depend on whether there is a GPU."""
    return cfg.model == MINIATURE or not torch.cuda.is_available()


def limit_threads(cfg: Config) -> None:
    """One thread for the miniature, which is too small for more: on a busy machine two are ten times slower."""
    if cfg.model == MINIATURE:
        torch.set_num_threads(1)


def compute_dtype(cpu: bool, wanted: str = "auto") -> tuple[torch.dtype, str]:
    """The precision to compute in on the CPU or on this machine's GPU, and the reason.

    Raises:
        ConfigError: bfloat16 on a GPU that can only emulate it, many times slower.
    """
    if wanted == "bfloat16" and not cpu and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ConfigError("dtype=bfloat16: this GPU is older than Ampere and has none; dtype=auto takes float16 there")
    if wanted != "auto":
        return getattr(torch, wanted), f"{wanted}: as dtype says"
    if cpu:
        return torch.float32, "float32: on the CPU"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16, "bfloat16: the GPU has it"
    return torch.float16, "float16: the GPU is older than Ampere and has no bfloat16"


def is_borrowed(cfg: Config) -> bool:
    """Whether the base model is somebody else's as it is: nothing is trained or written before reinforcement learning."""
    return cfg.model != MINIATURE and cfg.sft_steps == 0


def base_location(cfg: Config) -> str:
    """Where the base model is: the folder that notebook 02 wrote, or what the profile names.

    Raises:
        FileNotFoundError: notebook 02 has not run yet.
    """
    if is_borrowed(cfg):
        return cfg.model_location
    folder = cfg.of_arm("base").run_folder / "model"
    if not (folder / "config.json").exists():
        raise FileNotFoundError(
            f"no base model in {folder}; run notebook 02_base_model first (or `make reproduce PROFILE={cfg.profile}`)"
        )
    return str(folder)


def _revision(cfg: Config, location: str) -> str | None:
    """The hub's revision; None for what was trained here."""
    return cfg.model_revision if location == cfg.model else None


def load_tokenizer(cfg: Config, location: str) -> PreTrainedTokenizerBase:
    """A tokenizer that pads on the left, as generation needs; with `PLAIN_TURNS` if it has no chat template."""
    tokenizer = AutoTokenizer.from_pretrained(
        location, revision=_revision(cfg, location), padding_side="left", trust_remote_code=False
    )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.chat_template is None:
        tokenizer.chat_template = PLAIN_TURNS
    return tokenizer


def load_base(
    cfg: Config, location: str, load_in_4bit: bool = False, dtype: torch.dtype | None = None
) -> PreTrainedModel:
    """A base model, dense or as NF4 with double quantisation; safetensors only, no code from the model's folder.

    Args:
        location: see `base_location`.
        dtype: of the dense weights and of computing with the 4-bit ones; None: as `compute_dtype` says. Weights that
            are all trained need float32.

    Raises:
        ConfigError: neither a folder nor a model that the hub gives out.
    """
    cpu = on_cpu(cfg)
    dtype = dtype or compute_dtype(cpu, cfg.dtype)[0]
    quantization = None
    if load_in_4bit:
        quantization = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
        )
    try:
        model = AutoModelForCausalLM.from_pretrained(
            location,
            revision=_revision(cfg, location),
            dtype=dtype,
            quantization_config=quantization,
            use_safetensors=True,
            trust_remote_code=False,
            device_map=None if cpu else {"": PartialState().local_process_index},  # one GPU for each process
        )
    except (OSError, ValueError) as error:
        if Path(location).is_dir():
            raise
        raise ConfigError(
            f"{location!r} is no folder here, and the hub does not give it out ({str(error).splitlines()[0]}); set model (for "
            "make: MODEL=) to a folder with a model and its tokenizer, or to a hub id"
        ) from error
    if load_in_4bit:
        keep_4bit_trainable(model)
    if cfg.model != MINIATURE:
        # reading a prompt, generation asks for the logits of its last position alone. Of such a slice and a head that is not
        # trained torch makes a batch of matrix products with a copy of the head for each row: half of the time on a CPU
        model.get_output_embeddings().register_forward_pre_hook(lambda head, inputs: (inputs[0].contiguous(),))
    return model


def lora_config(cfg: Config):
    """LoRA on all linear layers, or None for full fine-tuning. Dropout is 0: the policy that samples is the one that is
    trained.
    """
    if cfg.lora_rank == 0:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=cfg.lora_rank, lora_alpha=cfg.lora_alpha, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def load_policy(cfg: Config) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model of an arm and seed as its training run left it (for arm ``base``: the base model), ready to generate.

    Raises:
        FileNotFoundError: the run has not been trained yet.
    """
    location = base_location(cfg)
    tokenizer = load_tokenizer(cfg, location)
    if cfg.arm == "base":  # in 4 bits if all arms are, so that what was trained is all that differs
        return load_base(cfg, location, cfg.load_in_4bit).eval(), tokenizer
    folder = cfg.run_folder / "model"
    if not folder.exists():
        raise FileNotFoundError(
            f"no trained model in {folder}; run its training notebook first (or `make reproduce PROFILE={cfg.profile}`)"
        )
    if (Path(folder) / "adapter_config.json").exists():
        from peft import PeftModel

        model = PeftModel.from_pretrained(load_base(cfg, location, cfg.load_in_4bit), folder)
    else:
        model = load_base(cfg, str(folder))
    return model.eval(), tokenizer


def merge_adapter(cfg: Config, folder: str | Path) -> Path:
    """Writes the model of an arm and seed that was trained with LoRA as one dense model, with its tokenizer.

    The adapter is merged into the *dense* base, also if it was trained on the 4-bit one: merging into packed weights
    would round the result to 4 bits again.

    Raises:
        FileNotFoundError: the run has not been trained yet.
        ValueError: the arm was trained without LoRA; its model folder is dense already.
    """
    adapter = cfg.run_folder / "model"
    if not adapter.exists():
        raise FileNotFoundError(f"no trained model in {adapter}; train {cfg.run_name} first")
    if not (adapter / "adapter_config.json").exists():
        raise ValueError(f"{adapter} holds no adapter: {cfg.run_name} was trained without LoRA and is dense already")
    from peft import PeftModel

    location = base_location(cfg)
    merged = PeftModel.from_pretrained(load_base(cfg, location), adapter).merge_and_unload()
    merged.save_pretrained(folder)
    load_tokenizer(cfg, location).save_pretrained(folder)
    return Path(folder)
