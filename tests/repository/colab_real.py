"""`make test-colab`: the set-up cell for real. In a fresh environment, a kernel that takes itself for Colab clones the
repository, installs what it lacks, and goes on to the end of the notebook without a restart.

Two environments: ``bare`` has torch, numpy and a kernel; ``colab`` has what tests/repository/colab_session.txt lists, and its
kernel loads pandas at its start, as Colab's does. Needed are pip's index, git, minutes and 8 GB.
In ``bare`` a session ends in the midst of a training: its kernel is killed and its clone is lost. A new clone with the same
output_root, as on a mounted Drive, runs the same notebooks, and has to go on from the checkpoint.
What is tested is what is committed: git takes this repository for the one on GitHub (``url.<path>.insteadOf``).
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import papermill
from nbclient.exceptions import DeadKernelError

from tests.experiment.kill_pipeline import kernels

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from tools import badges, colab  # noqa: E402

SESSIONS = {
    "bare": ["numpy==2.0.2", "ipykernel"],
    "colab": ["-r", str(ROOT / "tests" / "repository" / "colab_session.txt")],
}
BEGINNING = [("01_data", {}), ("02_base_model", {})]
# trains with LoRA on 4-bit weights, which peft refuses beside an old torchao
NF4 = ("04_mgrpo", {"arm": "mgrpo_nf4", "seed": 0})
NOTEBOOKS = {
    "bare": [*BEGINNING, NF4],
    "colab": [*BEGINNING, ("03_grpo", {"arm": "grpo", "seed": 0}), NF4, ("05_benchmarks", {"arm": "base", "seed": 0})],
}
LEFT = {  # in results/smoke
    "bare": ["runs/mgrpo_nf4-seed0/run.json"],
    "colab": ["runs/grpo-seed0/run.json", "runs/mgrpo_nf4-seed0/run.json", "records/base.json"],
}
CUT_OFF = ("04_mgrpo", {"arm": "mgrpo", "seed": 0, "max_steps": 30, "checkpoint_steps": 1})


def newest_python() -> str:
    """Python 3.12, as on Colab, or else the one that runs this."""
    for candidate in ("python3.12", sys.executable):
        works = [candidate, "-c", "import ensurepip, sys; sys.exit(sys.version_info[:2] > (3, 12))"]
        if shutil.which(candidate) and subprocess.run(works, capture_output=True).returncode == 0:
            return candidate
    raise SystemExit("no Python 3.12 or older with venv; name one: --python PATH")


def make_session(folder: Path, python: str, packages: list[str]) -> Path:
    """A fresh environment, and a kernel in it that takes itself for Colab's; returns its Python."""
    own = folder / "environment" / "bin" / "python"
    subprocess.run([python, "-m", "venv", folder / "environment"], check=True)
    install = [own, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    subprocess.run([*install, f"torch=={colab.pinned()['torch']}", *packages], check=True)
    make_kernel(folder, own)
    return own


def make_kernel(folder: Path, own: Path) -> None:
    """A kernel that takes itself for Colab's, in the environment of this Python."""
    startup = folder / "ipython" / "profile_default" / "startup" / "colab.py"
    startup.parent.mkdir(parents=True)
    startup.write_text("import importlib.util\nif importlib.util.find_spec('pandas'):\n    import pandas\n")
    environment = {
        "COLAB_RELEASE_TAG": "test",
        "MGRPO_HOME": str(folder / "content" / "mgrpo"),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{ROOT}.insteadOf",
        "GIT_CONFIG_VALUE_0": f"https://github.com/{badges.repository()}",
        "IPYTHONDIR": str(folder / "ipython"),
        "MPLBACKEND": "agg",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # else a warning at each start
    }
    start = [str(own), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel = folder / "jupyter" / "kernels" / "colab" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    spec = {"argv": start, "display_name": "colab", "language": "python", "env": environment}
    kernel.write_text(json.dumps(spec))
    (folder / "content").mkdir()
    os.environ["JUPYTER_PATH"] = str(folder / "jupyter")


def versions(python: Path) -> dict[str, str]:
    listed = subprocess.run([python, "-m", "pip", "list", "--format", "json"], check=True, capture_output=True).stdout
    return {package["name"].lower().replace("_", "-"): package["version"] for package in json.loads(listed)}


def said_by_setup(executed: Path) -> str:
    """What the set-up cell printed."""
    cell = json.loads(executed.read_text())["cells"][1]
    return "".join("".join(output.get("text", "")) for output in cell["outputs"]).strip()


def printed(executed: Path) -> str:
    """All that an executed notebook printed."""
    cells = json.loads(executed.read_text())["cells"]
    return "".join("".join(output.get("text", "")) for cell in cells for output in cell.get("outputs", []))


def execute(name: str, folder: Path, notebook: str, parameters: dict) -> Path:
    """Runs a notebook in the session's kernel; returns the executed copy."""
    start, executed = time.monotonic(), folder / f"{notebook}.ipynb"
    papermill.execute_notebook(
        ROOT / "notebooks" / f"{notebook}.ipynb",
        executed,
        parameters={"profile": "smoke", "output_root": str(folder / "drive"), **parameters},
        cwd=folder / "content",
        kernel_name="colab",
        progress_bar=False,
    )
    seconds = time.monotonic() - start
    print(f"{name}: {notebook} ran to its end in {seconds:.0f} s; {said_by_setup(executed)}", flush=True)
    return executed


def kill_after(checkpoint: str, folder: Path, over: threading.Event) -> None:
    """Kills the kernel as soon as the training has left a checkpoint."""
    while not over.wait(0.02):
        if any((folder / "drive").rglob(f"trainer/{checkpoint}/trainer_state.json")):
            for kernel in kernels(os.getpid()):
                kernel.kill()
            return


def reconnect(name: str, folder: Path) -> None:
    """A session is cut off in the midst of a training, and a new one with another clone goes on from its checkpoint."""
    notebook, parameters = CUT_OFF
    over = threading.Event()
    killer = threading.Thread(target=kill_after, args=("checkpoint-3", folder, over))
    killer.start()
    try:
        execute(name, folder, notebook, parameters)
    except DeadKernelError:
        print(f"{name}: the kernel of {notebook} was killed in its training", flush=True)
    else:
        raise AssertionError("the training came to its end before it was killed")
    finally:
        over.set()
        killer.join()
    run = folder / "drive" / "results" / "smoke" / "runs" / "mgrpo-seed0"
    assert not run.exists(), "killed before its end"
    clone = folder / "content" / "mgrpo"
    shutil.rmtree(clone)  # a new machine has nothing but the Drive
    first = [execute(name, folder, *one) for one in BEGINNING]
    assert (clone / ".git").exists(), "the set-up cell cloned again"
    assert "base model reused, same parameters and code" in printed(first[-1])
    text = printed(execute(name, folder, notebook, parameters))
    line = re.search(r"mgrpo-seed0 goes on from checkpoint-(\d+), which an interrupted training left", text)
    assert line and int(line[1]) >= 3, text
    steps = [json.loads(one)["step"] for one in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, parameters["max_steps"] + 1)), (
        "every step once, those before the end of the session too"
    )
    print(f"{name}: in a new clone {line[0]}", flush=True)


def run_session(name: str, python: str) -> None:
    with tempfile.TemporaryDirectory(prefix="colab-") as temporary:
        folder = Path(temporary)
        own = make_session(folder, python, SESSIONS[name])
        before = versions(own)
        version = subprocess.run([own, "--version"], check=True, capture_output=True, text=True).stdout.strip()
        print(f"{name}: {version}, torch {before['torch']}, numpy {before['numpy']}, {len(before)} packages")
        for notebook, parameters in NOTEBOOKS[name]:
            execute(name, folder, notebook, parameters)
        after = versions(own)
        changed = {
            package: (before[package], after.get(package))
            for package in before
            if after.get(package) != before[package]
        }
        print(f"{name}: {len(after)} packages; changed: {changed}")
        kept = ["torch", "numpy", *(["pandas", "pyarrow", "matplotlib", "traitlets"] if name == "colab" else [])]
        assert not set(kept) & set(changed), "a package changed that has to stay"
        assert not any(package.startswith("nvidia-") for package in changed)
        results = folder / "drive" / "results" / "smoke"
        assert not [file for file in LEFT[name] if not (results / file).exists()], "a notebook left nothing"
        if name == "bare":
            reconnect(name, folder)
        assert not (folder / "content" / "mgrpo" / "results" / "smoke").exists(), "written beside output_root"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split(".")[0])
    parser.add_argument("sessions", nargs="*", help="bare, colab; by default both")
    parser.add_argument("--python", default="", help="of the fresh environments; by default python3.12 if there is one")
    given = parser.parse_args()
    os.environ.pop("PYTHONPATH", None)
    head = subprocess.run(
        ["git", "-C", ROOT, "log", "-1", "--format=%h %s"], capture_output=True, text=True, check=True
    )
    print(f"commit {head.stdout.strip()}")
    for name in given.sessions or SESSIONS:
        run_session(name, given.python or newest_python())
    print("passed")


if __name__ == "__main__":
    main()
