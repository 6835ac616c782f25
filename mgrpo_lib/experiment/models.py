"""Load models: the base (hub id, folder, or what notebook 02 made), dense or in 4 bits, with or without LoRA.

Safetensors alone are read, and no code that comes with a model runs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
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

from mgrpo_lib.experiment.keys import finished_run
from mgrpo_lib.experiment.settings import Config, ConfigError
from mgrpo_lib.method.prompts import plain_turns
from mgrpo_lib.method.quantized import keep_4bit_trainable


def on_cpu(cfg: Config) -> bool:
    """True for the miniature, whose numbers must not depend on a GPU, and on a machine without one."""
    return cfg.is_miniature or not torch.cuda.is_available()


def limit_threads(cfg: Config) -> None:
    """Give the miniature one thread: it is too small for more, and on a busy machine two are ten times slower."""
    if cfg.is_miniature:
        torch.set_num_threads(1)


def compute_dtype(cpu: bool, wanted: str = "auto") -> tuple[torch.dtype, str]:
    """Return the precision to compute in, on the CPU or on this machine's GPU, and the reason.

    Raises:
        ConfigError: bfloat16 on a GPU that can only emulate it, many times slower.
    """
    old_gpu = not cpu and not torch.cuda.is_bf16_supported(including_emulation=False)
    if wanted == "bfloat16" and old_gpu:
        raise ConfigError("dtype=bfloat16: this GPU is older than Ampere and has none; dtype=auto takes float16 there")
    if wanted != "auto":
        return getattr(torch, wanted), f"{wanted}: as dtype says"
    if cpu:
        return torch.float32, "float32: on the CPU"
    if old_gpu:
        return torch.float16, "float16: the GPU is older than Ampere and has no bfloat16"
    return torch.bfloat16, "bfloat16: the GPU has it"


def is_borrowed(cfg: Config) -> bool:
    """True if the base model is used unmodified: nothing is trained or written before reinforcement learning."""
    return not cfg.is_miniature and cfg.sft_steps == 0


def base_location(cfg: Config) -> str:
    """Return where the base model is: the folder that notebook 02 wrote, or what the profile names.

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


def loader_arguments(cfg: Config, location: str) -> dict:
    """Return the arguments of every loader: the hub's revision (none for what was trained here), and no foreign code."""
    return {"revision": cfg.model_revision if location == cfg.model else None, "trust_remote_code": False}


@contextmanager
def missing_explained(location: str) -> Iterator[None]:
    """Say what to do where a loader does not find a model on the Hub.

    Raises:
        ConfigError: the location is neither a folder nor a model on the Hub.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        if Path(location).is_dir():
            raise
        raise ConfigError(
            f"model {location!r} is no folder here and not found on the Hub: offline, misspelt, or gated "
            f"({str(error).splitlines()[0]}); set model (for make: MODEL=) to a folder with a model and its tokenizer, "
            "or to a hub id"
        ) from error


def load_tokenizer(cfg: Config, location: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer that pads on the left, as generation needs; a missing chat template is `plain_turns`."""
    with missing_explained(location):
        tokenizer = AutoTokenizer.from_pretrained(location, padding_side="left", **loader_arguments(cfg, location))
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.chat_template is None:
        tokenizer.chat_template = plain_turns(tokenizer)
    return tokenizer


def load_base(
    cfg: Config, location: str, load_in_4bit: bool = False, dtype: torch.dtype | None = None
) -> PreTrainedModel:
    """Load a model from safetensors, dense or as NF4 with double quantisation.

    Args:
        location: see `base_location`.
        dtype: of dense weights, and of computing with 4-bit ones; None: as `compute_dtype` says. Fully trained weights
            need float32.

    Raises:
        ConfigError: the location is neither a folder nor a model on the Hub.
    """
    cpu = on_cpu(cfg)
    dtype = dtype or compute_dtype(cpu, cfg.dtype)[0]
    nf4 = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": dtype}
    with missing_explained(location):
        model = AutoModelForCausalLM.from_pretrained(
            location,
            dtype=dtype,
            quantization_config=BitsAndBytesConfig(load_in_4bit=True, **nf4) if load_in_4bit else None,
            use_safetensors=True,
            device_map=None if cpu else {"": PartialState().local_process_index},  # one GPU for each process
            **loader_arguments(cfg, location),
        )
    if load_in_4bit:
        keep_4bit_trainable(model)
    if not cfg.is_miniature:
        # Prefill asks for the logits of the last position alone. For such a slice and an untrained head torch makes a
        # batch of matrix products, with a copy of the head for each row: half of the time on a CPU
        model.get_output_embeddings().register_forward_pre_hook(lambda head, inputs: (inputs[0].contiguous(),))
    return model


def lora(rank: int, alpha: int):
    """Configure LoRA on all linear layers, without dropout: the policy that samples is the one that is trained."""
    from peft import LoraConfig  # a slow import, and evaluating dense models does without

    return LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")


def lora_config(cfg: Config):
    """Configure the arm's LoRA; None for full fine-tuning."""
    return lora(cfg.lora_rank, cfg.lora_alpha) if cfg.lora_rank else None


def load_policy(cfg: Config) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the trained model of an arm and seed (arm ``base``: the base model), ready to generate.

    The base is in 4 bits if the arms are, so that the training is all that differs.

    Raises:
        FileNotFoundError: the run is not trained with these parameters.
    """
    if finished_run(cfg) is None:
        raise FileNotFoundError(
            f"{cfg.run_name} is not trained with these parameters in {cfg.run_folder}; train {cfg.run_name} first, by its "
            f"notebook or `make reproduce PROFILE={cfg.profile}`"
        )
    location, folder, in_4bit = base_location(cfg), cfg.run_folder / "model", cfg.load_in_4bit
    if cfg.arm == "base":
        model = load_base(cfg, location, in_4bit)
    elif cfg.lora_rank:
        from peft import PeftModel

        model = PeftModel.from_pretrained(load_base(cfg, location, in_4bit), folder)
    else:
        model = load_base(cfg, str(folder))
    return model.eval(), load_tokenizer(cfg, location)
