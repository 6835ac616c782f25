"""`make test-colab`: the set-up cell and notebooks for real, in fresh environments whose kernel takes itself for Colab's.

Two environments: ``bare`` has torch, numpy and a kernel; ``colab`` has what colab_session.txt lists, and its kernel loads
pandas first, as Colab's does. In ``bare`` a session is also cut off in a training: the kernel is killed, the clone is lost,
and a new clone with the same output_root, as on a mounted Drive, has to go on from the checkpoint. What is tested is the
last commit: git takes this repository for the one on GitHub. Needed are pip's index, git, minutes and 8 GB.
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
from pathlib import Path

import papermill
import psutil
from nbclient.exceptions import DeadKernelError

from tools import badges, colab

ROOT = Path(__file__).resolve().parents[2]
SESSIONS = {"bare": ["numpy==2.0.2", "ipykernel"], "colab": ["-r", ROOT / "tests/repository/colab_session.txt"]}
BEGINNING = [("01_data", {}), ("02_base_model", {})]
NF4 = ("04_mgrpo", {"arm": "mgrpo_nf4", "seed": 0})  # LoRA, which peft refuses beside an old torchao
NOTEBOOKS = {
    "bare": [*BEGINNING, NF4],
    "colab": [*BEGINNING, ("03_grpo", {"arm": "grpo", "seed": 0}), NF4, ("05_benchmarks", {"arm": "base", "seed": 0})],
}
LEFT = {"bare": ["runs/mgrpo_nf4-seed0/run.json"], "colab": ["runs/grpo-seed0/run.json", "records/base.json"]}
STEPS = 30
CUT_OFF = ("04_mgrpo", {"arm": "mgrpo", "seed": 0, "max_steps": STEPS, "settings": {"checkpoint_steps": 1}})


def make_session(folder: Path, python: str, packages: list) -> Path:
    """Make a fresh environment and its kernel; return its Python."""
    own = folder / "environment" / "bin" / "python"
    subprocess.run([python, "-m", "venv", folder / "environment"], check=True)
    install = [own, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    subprocess.run([*install, f"torch=={colab.pinned()['torch']}", *packages], check=True)
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
    kernel = folder / "jupyter" / "kernels" / "colab" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    start = [str(own), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel.write_text(json.dumps({"argv": start, "display_name": "colab", "language": "python", "env": environment}))
    (folder / "content").mkdir()
    os.environ["JUPYTER_PATH"] = str(folder / "jupyter")
    return own


def versions(python: Path) -> dict[str, str]:
    listed = subprocess.run([python, "-m", "pip", "list", "--format", "json"], check=True, capture_output=True).stdout
    return {package["name"].lower().replace("_", "-"): package["version"] for package in json.loads(listed)}


def execute(folder: Path, notebook: str, parameters: dict) -> str:
    """Run a notebook in the session's kernel; return all that it printed."""
    executed = papermill.execute_notebook(
        ROOT / "notebooks" / f"{notebook}.ipynb",
        folder / f"{notebook}.ipynb",
        parameters={"profile": "smoke", "output_root": str(folder / "drive"), **parameters},
        cwd=folder / "content",
        kernel_name="colab",
        progress_bar=False,
    )
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    text = "".join(output.get("text", "") for output in outputs)
    print(f"{notebook} ran to its end; {text.splitlines()[0]}", flush=True)
    return text


def kill_after(checkpoint: str, folder: Path, over: threading.Event) -> None:
    """Kill the kernel as soon as the training has left a checkpoint."""
    while not over.wait(0.02):
        if any((folder / "drive").rglob(f"trainer/{checkpoint}/trainer_state.json")):
            for child in psutil.Process().children(recursive=True):
                if "ipykernel_launcher" in child.cmdline():
                    child.kill()
            return


def reconnect(folder: Path) -> None:
    """Cut a session off in a training, and go on in a new clone."""
    over = threading.Event()
    killer = threading.Thread(target=kill_after, args=("checkpoint-3", folder, over))
    killer.start()
    try:
        execute(folder, *CUT_OFF)
    except DeadKernelError:
        print("the kernel was killed in its training", flush=True)
    else:
        raise AssertionError("the training came to its end before it was killed")
    finally:
        over.set()
        killer.join()
    run = folder / "drive" / "results" / "smoke" / "runs" / "mgrpo-seed0"
    assert not run.exists(), "killed before its end"
    shutil.rmtree(folder / "content" / "mgrpo")  # a new machine has nothing but the Drive
    for one in BEGINNING:
        execute(folder, *one)
    resumed = re.search(r"checkpoint-(\d+)", execute(folder, *CUT_OFF))
    assert resumed and int(resumed[1]) >= 3, "the training began from its start"
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, STEPS + 1)), "every step once, those before the end of the session too"


def run_session(name: str, python: str) -> None:
    with tempfile.TemporaryDirectory(prefix="colab-") as temporary:
        folder = Path(temporary)
        own = make_session(folder, python, SESSIONS[name])
        before = versions(own)
        for notebook, parameters in NOTEBOOKS[name]:
            execute(folder, notebook, parameters)
        after = versions(own)
        changed = {package: (old, after.get(package)) for package, old in before.items() if after.get(package) != old}
        print(f"{name}: {len(before)} packages before, {len(after)} after; changed: {changed}")
        kept = ["torch", "numpy", *(["pandas", "pyarrow", "matplotlib", "traitlets"] if name == "colab" else [])]
        assert not [package for package in changed if package in kept or package.startswith("nvidia-")]
        results = folder / "drive" / "results" / "smoke"
        assert not [file for file in LEFT[name] if not (results / file).exists()], "a notebook left nothing"
        if name == "bare":
            reconnect(folder)
        assert not (folder / "content" / "mgrpo" / "out").exists(), "written beside output_root"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split(".")[0])
    parser.add_argument("sessions", nargs="*", help="bare, colab; by default both")
    parser.add_argument("--python", default=sys.executable, help="of the fresh environments; Colab has 3.12")
    given = parser.parse_args()
    os.environ.pop("PYTHONPATH", None)
    for name in given.sessions or SESSIONS:
        run_session(name, given.python)
    print("passed")


if __name__ == "__main__":
    main()
