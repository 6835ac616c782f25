"""Models in 4 or 8 bits: workarounds for bitsandbytes and TRL, without which they train badly."""

import torch


def is_quantized(model) -> bool:
    """True if a loaded model has 4- or 8-bit weights, as TRL asks it."""
    return getattr(model, "is_loaded_in_4bit", False) or getattr(model, "is_loaded_in_8bit", False)


def keep_4bit_trainable(model: torch.nn.Module) -> None:
    """Keep bitsandbytes from repacking 4-bit weights at the first evaluation on CPUs with AVX512-BF16: training after it
    would crash.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def make_trainable(model: torch.nn.Module) -> None:
    """Prepare a quantised model for training; leave any other unchanged.

    TRL casts the adapters to bfloat16, in which a learning rate of 1e-5 moves next to nothing: they become float32 again.
    """
    if not is_quantized(model):
        return
    keep_4bit_trainable(model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
