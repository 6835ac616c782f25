"""Fixtures: made here, offline, in seconds."""

import gc
import os
import shutil
import subprocess
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side; oversubscribed cores are ten times slower

# nothing here is compiled, and loading the compiler takes a second of every process
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")

import pytest

ROOT = Path(__file__).parents[1]
WRITTEN_BY_COMMANDS = ("results", "figures", "benchmarks/results", "docs/robustness.md", "docs/verifier.md")


def changed_results(root: Path) -> list[str]:
    """Return folders of results, and pages, that differ from the committed ones; none where git cannot tell."""
    call = ["git", "-C", root, "diff", "--name-only", "--relative", "HEAD", "--", *WRITTEN_BY_COMMANDS]
    try:
        files = subprocess.run(call, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return []
    return sorted({"/".join(Path(file).parts[:2]) for file in files})


def pytest_collection_modifyitems(items):
    """Skip tests of the committed results where an experiment has replaced them."""
    if folders := changed_results(ROOT):
        why = f"differs from the commit: {', '.join(folders)}; to restore: git checkout {' '.join(folders)}"
        for item in items:
            if item.get_closest_marker("committed"):
                item.add_marker(pytest.mark.skip(reason=why))


def pytest_collection_finish():
    """Leave what is imported out of garbage collection, which takes a fifth of a second in every training."""
    gc.freeze()


@pytest.fixture(scope="session")
def own_mounts() -> list[str]:
    """Return the beginning of a command that may mount file systems, seen by itself alone."""
    call = ["unshare", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*call, "true"], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here: no unshare, or no user namespaces")
    return call


@pytest.fixture(scope="session")
def tokenizer():
    from mgrpo_lib.method.prompts import PHRASES
    from mgrpo_lib.tasks import miniature_model

    return miniature_model.make_tokenizer(PHRASES)


@pytest.fixture(scope="session")
def model_folder(tokenizer, tmp_path_factory):
    """Return the folder of a miniature base model after 60 steps: it ends most completions, and is sometimes right."""
    import torch

    from mgrpo_lib.method.prompts import PHRASES
    from mgrpo_lib.tasks import miniature_model

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("model")
    model, _ = miniature_model.train_base(steps=60, batch_size=48, learning_rate=5e-3, phrases=PHRASES)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
