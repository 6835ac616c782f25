"""`make test-colab`: the set-up cell for real. In a fresh environment, a kernel that takes itself for Colab clones the
repository, installs what it lacks, and goes on to the end of the notebook without a restart.

Two environments: ``bare`` has torch, numpy and a kernel; ``colab`` has what tests/colab_session.txt lists, and its
kernel loads pandas at its start, as Colab's does. Needed are pip's index, git, minutes and 8 GB.
What is tested is what is committed: git takes this repository for the one on GitHub (``url.<path>.insteadOf``).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import papermill

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from tools import badges, colab  # noqa: E402

SESSIONS = {"bare": ["numpy==2.0.2", "ipykernel"], "colab": ["-r", str(ROOT / "tests" / "colab_session.txt")]}
# the last one trains with LoRA on 4-bit weights, which peft refuses beside an old torchao
NOTEBOOKS = [("01_data", {}), ("02_base_model", {}), ("04_mgrpo", {"arm": "mgrpo_nf4", "seed": 0})]


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
    return own


def versions(python: Path) -> dict[str, str]:
    listed = subprocess.run([python, "-m", "pip", "list", "--format", "json"], check=True, capture_output=True).stdout
    return {package["name"].lower().replace("_", "-"): package["version"] for package in json.loads(listed)}


def said_by_setup(executed: Path) -> str:
    """What the set-up cell printed."""
    cell = json.loads(executed.read_text())["cells"][1]
    return "".join("".join(output.get("text", "")) for output in cell["outputs"]).strip()


def run_session(name: str, python: str) -> None:
    with tempfile.TemporaryDirectory(prefix="colab-") as temporary:
        folder = Path(temporary)
        own = make_session(folder, python, SESSIONS[name])
        os.environ["JUPYTER_PATH"] = str(folder / "jupyter")
        before = versions(own)
        version = subprocess.run([own, "--version"], check=True, capture_output=True, text=True).stdout.strip()
        print(f"{name}: {version}, torch {before['torch']}, numpy {before['numpy']}, {len(before)} packages")
        for notebook, parameters in NOTEBOOKS:
            executed = folder / f"{notebook}.ipynb"
            papermill.execute_notebook(
                ROOT / "notebooks" / f"{notebook}.ipynb",
                executed,
                parameters={"profile": "smoke", "output_root": str(folder / "drive"), **parameters},
                cwd=folder / "content",
                kernel_name="colab",
                progress_bar=False,
            )
            print(f"{name}: {notebook} ran to its end; {said_by_setup(executed)}", flush=True)
        after = versions(own)
        changed = {name: (before[name], after.get(name)) for name in before if after.get(name) != before[name]}
        print(f"{name}: {len(after)} packages; changed: {changed}")
        kept = ["torch", "numpy", *(["pandas", "pyarrow", "matplotlib", "traitlets"] if name == "colab" else [])]
        assert not set(kept) & set(changed), "a package changed that has to stay"
        assert not any(package.startswith("nvidia-") for package in changed)
        assert (folder / "drive" / "results" / "smoke" / "runs" / "mgrpo_nf4-seed0" / "run.json").exists()
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
