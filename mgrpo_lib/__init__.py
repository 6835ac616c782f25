"""Multi-Layer GRPO (arXiv 2506.04746): trainer, miniature, evaluation and report of a reproducible companion."""

import importlib
import logging
import os
import warnings

__version__ = "0.1.0"

# public names and where they stand; each is loaded when it is first asked for, since the trainer loads torch
_PUBLIC = {
    "MGRPOTrainer": "mgrpo_lib.method.trainer",
    "MGRPOConfig": "mgrpo_lib.method.config",
    "accuracy_reward": "mgrpo_lib.verifier.reward",
    "load_benchmark": "mgrpo_lib.tasks.benchmarks",
}
__all__ = list(_PUBLIC)


# On H100 and the like torch prefers cuDNN's attention, whose backward pass gives gradients that are not a number for some
# masked lengths (pytorch/pytorch issue 196678, from torch 2.11 on): other kernels come first. torch reads this once, before
# its first attention; set it to 0 yourself to have torch's own order.
CUDNN_ATTENTION_LAST = "TORCH_CUDNN_SDPA_DEPRIORITIZED"
os.environ.setdefault(CUDNN_ATTENTION_LAST, "1")
# in a notebook tqdm asks for widgets; here pictures and lines take the place of bars
warnings.filterwarnings("ignore", message="IProgress not found")
# on some CPUs it warns at every import that an optional kernel is not installed
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'mgrpo_lib' has no attribute {name!r}; it has {', '.join(_PUBLIC)}")
