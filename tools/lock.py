"""Writes requirements.lock: every package in this environment with its exact version, without hosts and without build
tags such as +cpu.
"""

from importlib import metadata
from pathlib import Path

OWN = {"mgrpo-lib", "pip"}
HEADER = """\
# Exact versions of everything that `make setup` installs; made by `make lock`, used by pip on Python 3.11 and 3.12.
# No index is named here: pip takes its own. torch pins its CUDA packages itself where its build needs them.
"""


def main() -> None:
    pins = {}
    for package in metadata.distributions():
        name = package.metadata["Name"].lower().replace("_", "-").replace(".", "-")
        if name not in OWN and not name.startswith(("nvidia-", "cuda-")) and name != "triton":
            pins[name] = package.version.split("+")[0]
    lines = [f"{name}=={version}" for name, version in sorted(pins.items())]
    path = Path(__file__).resolve().parent.parent / "requirements.lock"
    path.write_text(HEADER + "\n".join(lines) + "\n", encoding="utf-8")
    print(f"{path.name}: {len(lines)} packages")


if __name__ == "__main__":
    main()
