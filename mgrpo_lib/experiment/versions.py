"""Versions of what makes results. A result is known by its settings, its inputs and the version that made it, never by the
files that the code stands in.

A change that alters results is a new version: a line below, and one in CHANGELOG that says whether results stay comparable.
A change that leaves every result as it was records its new hash in ``tests/experiment/test_versions.py``, after equality was
shown.
"""

import ast
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]

TRAINING_VERSION = 1
EVALUATION_VERSION = 1
DATA_VERSION = 1
REPORT_VERSION = 1

# What each version is called in keys: the hash of the code that first made results of it. It never changes
NAMES = {
    "training": {1: "af89edc5ace4"},
    "evaluation": {1: "ec7d33b6921d"},
    "data": {1: "d2a27811bebd"},
    "report": {1: "5135e14caa76"},
}

# Code that a version stands for, as folders and files of ``mgrpo_lib``
CODE = {
    "training": (
        "method",
        "verifier",
        "tasks",
        *(f"experiment/{name}.py" for name in ("base", "data", "models", "train", "warmup")),
    ),
    "evaluation": ("experiment/evaluate.py", "experiment/controls.py", "experiment/prompts.py"),
}


class Versions(NamedTuple):
    """The versions that made a result."""

    training: int = TRAINING_VERSION
    evaluation: int = EVALUATION_VERSION

    @property
    def names(self) -> tuple[str, str]:
        """What the two are called in keys."""
        return NAMES["training"][self.training], NAMES["evaluation"][self.evaluation]


CURRENT = Versions()


def code_hash(kind: str) -> str:
    """Hash of the code that a version stands for: of its definitions, wherever they stand, without comments, docstrings,
    imports and layout. Provenance in manifests; no key depends on it.

    Args:
        kind: ``training`` or ``evaluation``.
    """
    library = ROOT / "mgrpo_lib"
    files = [
        f for name in CODE[kind] for f in ([library / name] if name.endswith(".py") else library.glob(f"{name}/*.py"))
    ]
    return hash_of(file.read_text(encoding="utf-8") for file in files)


def hash_of(sources) -> str:
    """Hash of the definitions in some source texts, in whatever order and files they come."""
    statements = [
        s for source in sources for s in ast.parse(source).body if not isinstance(s, ast.Import | ast.ImportFrom)
    ]
    canonical = sorted(_canonical(s) for s in statements if not _is_docstring(s))
    return hashlib.sha256("\n".join(canonical).encode()).hexdigest()[:12]


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _canonical(node: Any) -> str:
    """A syntax tree as text, without docstrings and without the empty fields that differ between Python versions."""
    if isinstance(node, list):
        return "[" + ",".join(_canonical(item) for item in node) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = []
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(value, list) and value and _is_docstring(value[0]):
            value = value[1:]
        if value not in (None, []):
            fields.append(f"{name}={_canonical(value)}")
    return f"{type(node).__name__}({','.join(fields)})"
