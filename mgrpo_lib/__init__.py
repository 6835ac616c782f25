"""Multi-Layer GRPO (arXiv 2506.04746): trainer, miniature, evaluation and report of a reproducible companion."""

import os
import warnings

__version__ = "0.1.0"
__all__ = ["MGRPOConfig", "MGRPOTrainer"]


# On H100 and H200 torch prefers cuDNN's attention, whose backward pass gives gradients that are not a number for some lengths
# (pytorch/pytorch issue 196678, torch 2.11 and later): other kernels come first. Set it to 0 to have torch's own order.
os.environ.setdefault("TORCH_CUDNN_SDPA_DEPRIORITIZED", "1")
# in a notebook tqdm asks for widgets; here pictures and lines take the place of bars
warnings.filterwarnings("ignore", message="IProgress not found")


def __getattr__(name: str):
    # the trainer loads torch, which tables, figures and the runner do without
    if name in __all__:
        from mgrpo_lib import trainer

        return getattr(trainer, name)
    raise AttributeError(f"module 'mgrpo_lib' has no attribute {name!r}")
