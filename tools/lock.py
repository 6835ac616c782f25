"""Writes requirements.lock: every package in this environment with its exact version, without hosts and without build
tags such as +cpu. Names those that nothing asks for.
"""

import tomllib
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent

OWN = {"mgrpo-lib", "pip"}
PYTHONS = ("3.11", "3.12")  # the lock is one for both
HEADER = """\
# Exact versions of everything that `make setup` installs; made by `make lock`, used by pip on Python 3.11 and 3.12.
# No index is named here: pip takes its own. torch pins its CUDA packages itself where its build needs them.
"""


def of_the_lock(name: str) -> bool:
    """Whether a package belongs into the lock: not the library itself, nor what torch's CUDA builds bring."""
    return name not in OWN and not name.startswith(("nvidia-", "cuda-")) and name != "triton"


def declared() -> list[str]:
    """What pyproject.toml asks for: to run, to develop, and to build."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = content["project"]
    extras = [text for texts in project["optional-dependencies"].values() for text in texts]
    return project["dependencies"] + extras + content["build-system"]["requires"]


def needed(requirements: Iterable[str], requires: Callable[[str], Iterable[str] | None]) -> dict[str, str]:
    """Everything that these requirements ask for, and all that those ask for in turn, on this system and any of `PYTHONS`;
    each with one that asks for it.

    Args:
        requires: what a package asks for.
    """
    todo = [(Requirement(text), ("",), "pyproject.toml") for text in requirements]
    seen, found = set(), {}
    while todo:
        requirement, extras, asker = todo.pop()
        name = canonicalize_name(requirement.name)
        places = [{"extra": e, "python_version": v, "python_full_version": f"{v}.1"} for e in extras for v in PYTHONS]
        if requirement.marker and not any(map(requirement.marker.evaluate, places)):
            continue
        if of_the_lock(name):
            found.setdefault(name, asker)
        if of_the_lock(name) and (name, *sorted(requirement.extras)) not in seen:
            seen.add((name, *sorted(requirement.extras)))
            todo += [(Requirement(text), ("", *requirement.extras), name) for text in requires(name) or ()]
    return found


def main() -> None:
    pins = {}
    for package in metadata.distributions():
        name = canonicalize_name(package.metadata["Name"])
        if of_the_lock(name):
            pins[name] = package.version.split("+")[0]
    lines = [f"{name}=={version}" for name, version in sorted(pins.items())]
    path = ROOT / "requirements.lock"
    path.write_text(HEADER + "\n".join(lines) + "\n", encoding="utf-8")
    print(f"{path.name}: {len(lines)} packages; make licences writes LICENCES.md anew")
    if idle := pins.keys() - needed(declared(), lambda name: metadata.requires(name) if name in pins else ()).keys():
        print(f"nothing asks for {', '.join(sorted(idle))}; remove them from .venv, or declare them in pyproject.toml")


if __name__ == "__main__":
    main()
