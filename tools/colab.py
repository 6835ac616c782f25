"""Make a Google Colab session ready; the set-up cell of every notebook calls `set_up`.

pip installs what the session lacks, at most as new as requirements.lock. Torch, numpy and what the kernel has loaded keep
their versions, so the session needs no restart.
"""

import importlib
import os
import subprocess
import sys
import tempfile
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
FIXED = ("torch", "torchvision", "torchaudio", "triton", "numpy", "pandas", "pyarrow", "matplotlib")
AS_LOCKED = ("accelerate", "peft", "transformers", "trl")  # the trainer is tested with these versions
NOT_HERE = ("ipykernel", "ipywidgets", "jupyterlab")  # Colab has its own
ALONE = "trl"  # needs a newer pyarrow, through datasets, than Colab has loaded; works with the older one
IMPORTS = "import mgrpo_lib.experiment.train, mgrpo_lib.experiment.controls, mgrpo_lib.experiment.datacard, mgrpo_lib.report.figures"


def pinned() -> dict[str, str]:
    """Return the versions in requirements.lock."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def installed() -> dict[str, str]:
    """Return the installed versions; of doubles, the one that is imported."""
    importlib.invalidate_caches()
    found = [(package.metadata["Name"], package.version) for package in metadata.distributions()]
    return {canonicalize_name(name): version for name, version in reversed(found) if name}


def loaded() -> set[str]:
    """Return the packages of which this process has loaded a module."""
    owners = metadata.packages_distributions()
    return {canonicalize_name(owner) for module in list(sys.modules) for owner in owners.get(module, ())}


def wanted(pins: dict[str, str]) -> list[str]:
    """Return pyproject.toml's dependencies for Colab; the trainer's exactly as locked."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = {canonicalize_name(Requirement(text).name): text for text in project["dependencies"]}
    exact = {name: f"{name}=={pins[name]}" for name in AS_LOCKED}
    return [text for name, text in (asked | exact).items() if name not in NOT_HERE]


def constraints(has: dict[str, str], kept: set[str], pins: dict[str, str]) -> list[str]:
    """Return pip's constraints: kept packages stay as they are, others end at the lock's version, or their own if newer."""
    stay = {name for name in has if name in kept or name in FIXED or name.startswith(("nvidia-", "cuda-"))}
    newest = {name: max(Version(pins[name]), Version(has.get(name, "0"))) for name in pins.keys() - stay}
    return [f"{name}=={has[name]}" for name in sorted(stay)] + [f"{name}<={newest[name]}" for name in sorted(newest)]


def run(*command: str) -> None:
    """Run Python with these arguments; show the output only if it fails."""
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(command)[:60]} failed; restart the session (Runtime > Restart session) or choose another runtime "
            f"version (Runtime > Change runtime type):\n{done.stderr[-2000:]}"
        )


def set_up() -> None:
    """Install what is missing, and put the repository on the path of this process and its children.

    Raises:
        RuntimeError: pip or the library's import failed; the message holds their reason and the fix.
    """
    before, pins = installed(), pinned()
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(constraints(before, loaded(), pins)))
        file.flush()
        pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "-c", file.name)
        packages = wanted(pins)
        print("Colab: installing what is missing; a minute or two, with no further lines", flush=True)
        run(*pip, "--no-deps", f"{ALONE}=={pins[ALONE]}")
        run(*pip, *(text for text in packages if Requirement(text).name != ALONE))
    if Version(before.get("torchao", "1")) < Version("0.16"):
        run("-m", "pip", "uninstall", "--quiet", "--yes", "torchao")  # beside an old one peft makes no LoRA
    after = installed()
    new = [name for name in after if after[name] != before.get(name)]
    if new:
        run("-c", IMPORTS)
    print(
        f"Colab: {ROOT} is ready; packages installed: {len(new)}; torch {after['torch']} and numpy {after['numpy']} kept; run the next cell\n"
        f"Where a text says `make plan PROFILE=colab`, write here: !cd {ROOT} && python -m mgrpo_lib plan --profile colab"
    )
