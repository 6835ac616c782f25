"""Makes a Google Colab session ready; the set-up cell of every notebook calls `set_up`.

What the session lacks is installed as requirements.lock pins it, without dependencies, round after round until every
requirement is met. The session is not restarted, so torch, numpy and what its kernel has loaded stay as they are.
"""

import importlib
import os
import platform
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
NEVER = ("torch", "torchvision", "torchaudio", "triton", "numpy")  # and the nvidia-* and cuda-* packages of torch
NOT_HERE = ("ipykernel", "ipywidgets", "jupyterlab")  # Colab has its own
AS_LOCKED = ("accelerate", "peft", "transformers", "trl")  # the trainer is tested with these; others may be newer
COLABS = ("matplotlib", "pandas", "pyarrow")  # its kernel has loaded them before the first cell runs
FITS_WITH = {"datasets": "pyarrow"}  # where the one that stays is older than the lock's, so must this be
REFUSED = {"torchao": "0.16"}  # where an older one is installed, peft makes no LoRA; nothing here uses it
IMPORTS = "import mgrpo_lib.experiment.train, mgrpo_lib.experiment.controls, mgrpo_lib.experiment.datacard, mgrpo_lib.report.figures"


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pinned() -> dict[str, str]:
    """The versions in requirements.lock."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def direct(dependencies: Iterable[str], pins: dict[str, str]) -> list[str]:
    """What the library itself asks for on Colab."""
    asked = {canonicalize_name(Requirement(text).name): text for text in dependencies}
    exact = {name: f"{name}=={pins[name]}" for name in AS_LOCKED}
    return [text for name, text in {**asked, **exact}.items() if name not in NOT_HERE]


def never(name: str) -> bool:
    """Whether a package is not to be touched, whatever else."""
    return name in NEVER or name.startswith(("nvidia-", "cuda-"))


def kept(installed: dict[str, str], loaded: Iterable[str], pins: dict[str, str]) -> set[str]:
    """Installed packages that stay as they are.

    Args:
        loaded: packages that the kernel has loaded.
    """
    stay = {name for name in installed if never(name) or name in COLABS} | set(loaded)
    for name, other in FITS_WITH.items():
        if other in stay and name in installed and Version(installed[other]) < Version(pins[other]):
            stay.add(name)
    return stay


def unmet(
    requirements: Iterable[str], installed: dict[str, str], requires: Callable[[str], Iterable[str]]
) -> dict[str, str]:
    """Packages that are missing or outside a requirement, among those asked for and all that these ask for in turn,
    each with the requirement.

    Args:
        requires: what an installed package asks for.
    """
    todo, seen, found = [(Requirement(text), {""}) for text in requirements], set(), {}
    while todo:
        requirement, extras = todo.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        if name not in installed or not requirement.specifier.contains(installed[name], prereleases=True):
            found[name] = str(requirement)
        elif (name, *requirement.extras) not in seen and not never(name):
            seen.add((name, *requirement.extras))
            todo += [(Requirement(text), {"", *requirement.extras}) for text in requires(name)]
    return found


def to_install(unmet: Iterable[str], installed: dict[str, str], stay: set[str], pins: dict[str, str]) -> list[str]:
    """The pins that pip gets: never torch, numpy or what stays."""
    able = {name for name in unmet if name in pins and name not in stay and not never(name)}
    return [f"{name}=={pins[name]}" for name in sorted(able) if installed.get(name) != pins[name]]


# ------------------------------------------------------------------------------------------------- the session itself
def versions() -> dict[str, str]:
    """What is installed; of doubles, the one that is imported."""
    importlib.invalidate_caches()
    found: dict[str, str] = {}
    for package in metadata.distributions():
        if package.metadata["Name"]:
            found.setdefault(canonicalize_name(package.metadata["Name"]), package.version)
    return found


def loaded() -> set[str]:
    """The packages of which this process has loaded a module."""
    modules = {name.partition(".")[0] for name in sys.modules}
    owners = metadata.packages_distributions()
    return {canonicalize_name(owner) for module in modules & set(owners) for owner in owners[module] if owner}


def run(what: str, *command: str) -> None:
    """A command of Python's, whose output is shown only if it fails."""
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{what} failed:\n{done.stderr[-2000:]}")


def pip(action: str, *arguments: str) -> None:
    run(f"pip {action}", "-m", "pip", action, "--quiet", "--disable-pip-version-check", "--no-input", *arguments)


def gpu() -> str:
    if not shutil.which("nvidia-smi"):
        return "no GPU"
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True).stdout.strip().replace("\n", "; ") or "no GPU"


def check(asked: list[str], python: str, before: dict[str, str], stay: set[str]) -> None:
    """Refuses what cannot be mended in a running session."""
    if platform.python_version() not in SpecifierSet(python):
        raise RuntimeError(
            f"this is Python {platform.python_version()}, and {python} is needed; choose another runtime version "
            "(Runtime > Change runtime type)"
        )
    if stuck := [name for name in unmet(asked, before, lambda name: ()) if never(name) or name in stay]:
        has = ", ".join(f"{name} {before.get(name, 'is missing')}" for name in stuck)
        raise RuntimeError(
            f"{has}: not as the library asks for, and not to be changed in a running session; restart it (Runtime > "
            "Restart session) and run this cell first, or choose another runtime version"
        )


def install(asked: list[str], stay: set[str], pins: dict[str, str]) -> list[str]:
    """Installs what is missing, then what that asks for, and so on; returns the pins."""
    done: list[str] = []
    while True:
        now = versions()
        open_ones = unmet(asked, now, lambda name: metadata.requires(name) or ())
        new = [pin for pin in to_install(open_ones, now, stay, pins) if pin not in done]
        if not new:
            return done
        pip("install", "--no-deps", *new)
        done += new


def set_up() -> None:
    """Puts the repository on the path of this process and its children, installs what is missing, and says so in a line.

    Raises:
        RuntimeError: the session cannot be made ready; the message names the mend, or pip's or Python's reason.
    """
    start, own, pins, before = time.monotonic(), project(), pinned(), versions()
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    asked, stay = direct(own["dependencies"], pins), kept(before, loaded(), pins)
    check(asked, own["requires-python"], before, stay)
    installed = install(asked, stay, pins)
    removed = [name for name in REFUSED if name in before and Version(before[name]) < Version(REFUSED[name])]
    if removed:
        pip("uninstall", "--yes", *removed)
    after = versions()
    if changed := [name for name in stay.difference(removed) if after.get(name) != before.get(name)]:
        raise RuntimeError(f"pip changed {', '.join(changed)} under the running kernel; restart the session")
    if installed or removed:
        run("importing the library", "-c", IMPORTS)
    seconds = round(time.monotonic() - start)
    took = f"installed {len(installed)} packages in {seconds} s" if installed else "installed nothing"
    gone = f", removed {', '.join(removed)}" if removed else ""
    same = f"torch {after['torch']} and numpy {after['numpy']} as they were"
    print(f"Colab: {ROOT} is ready; {took}{gone}; {same}; {gpu()}")


if __name__ == "__main__":
    set_up()
