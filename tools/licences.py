"""Writes LICENCES.md: each locked package with the licence that its own metadata names. For the packages as they are
installed in .venv; nothing is looked up elsewhere.
"""

import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.colab import pinned  # noqa: E402

NONE = "none named in its metadata"
LONGEST = 60  # characters; a longer entry is the licence's text, and no name
HEADER = """\
# Licences of the locked packages

Made by `make licences` from the packages' own metadata; this repository's code is Apache-2.0 ([LICENSE](LICENSE)). None of these
packages is part of the repository: pip fetches them. Where torch is built for CUDA, it brings NVIDIA's packages, which have
NVIDIA's own licences and are not listed. Models and benchmarks have licences of their own, which their pages on the hub name.

| package | version | licence |
|---|---|---|
"""


def licence_of(package: metadata.PackageMetadata) -> str:
    """The licence that a package names: as an expression, else in words, else by its classifiers."""
    expression, words = package.get("License-Expression"), (package.get("License") or "").strip()
    if expression:
        return expression
    classes = [
        entry.split(" :: ")[-1] for entry in package.get_all("Classifier") or [] if entry.startswith("License ::")
    ]
    if words and words != "UNKNOWN" and len(words) <= LONGEST and "\n" not in words:
        return words
    return ", ".join(classes) or NONE


def table() -> str:
    """The whole file.

    Raises:
        SystemExit: an installed version is not the locked one.
    """
    rows = []
    for name, version in sorted(pinned().items()):
        if metadata.version(name).split("+")[0] != version:
            sys.exit(
                f"{name} {metadata.version(name)} is installed and {version} locked; run make setup, then this again"
            )
        rows.append(f"| {name} | {version} | {licence_of(metadata.metadata(name)).replace('|', '/')} |")
    return HEADER + "\n".join(rows) + "\n"


if __name__ == "__main__":
    (ROOT / "LICENCES.md").write_text(table(), encoding="utf-8")
    print(f"LICENCES.md: {len(pinned())} packages")
