"""Fixtures: everything is made here, offline and in seconds."""

import gc
import os
import shutil
import subprocess

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side; oversubscribed cores are ten times slower

# nothing here is compiled, and loading the compiler takes a second of every process
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")

import pytest


def pytest_collection_finish():
    """Every training collects garbage, which takes a fifth of a second among all that torch and its friends have loaded;
    none of that is garbage.
    """
    gc.freeze()


@pytest.fixture(scope="session")
def own_mounts() -> list[str]:
    """What a command begins with that may mount file systems, which nobody else sees."""
    call = ["unshare", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*call, "true"], capture_output=True).returncode:
        pytest.skip("a file system can be mounted by nobody here: no unshare, or no user namespaces")
    return call


@pytest.fixture(scope="session")
def tokenizer():
    from mgrpo_lib import miniature
    from mgrpo_lib.prompts import PHRASES

    return miniature.make_tokenizer(PHRASES)


@pytest.fixture(scope="session")
def model_folder(tokenizer, tmp_path_factory):
    """A miniature base model with a few steps of training: it ends most completions, and is sometimes right."""
    import torch

    from mgrpo_lib import miniature
    from mgrpo_lib.prompts import PHRASES

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("model")
    model, _ = miniature.train_base(steps=60, batch_size=48, learning_rate=5e-3, phrases=PHRASES)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
