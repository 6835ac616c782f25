"""Models in 4 bits: what bitsandbytes and TRL do that has to be undone before one can train them well."""

import torch


def is_quantized(model) -> bool:
    """Whether a loaded model has 4- or 8-bit weights (as TRL asks it)."""
    return getattr(model, "is_loaded_in_4bit", False) or getattr(model, "is_loaded_in_8bit", False)


def keep_4bit_trainable(model: torch.nn.Module) -> None:
    """Stops bitsandbytes from repacking 4-bit weights at the first evaluation on CPUs with AVX512-BF16: training after
    it would crash.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def adapters_to_float32(model: torch.nn.Module) -> None:
    """Undoes TRL's cast of the adapters of a quantised model to bfloat16, in which a learning rate of 1e-5 moves next
    to nothing.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
