"""What papermill hands to a notebook."""

import ast
from pathlib import Path
from typing import Any

from mgrpo_lib.experiment.store import read_json


def parameters_of(notebook: Path) -> list[str]:
    """Return the names that the cell tagged ``parameters`` assigns."""
    tagged = [cell for cell in read_json(notebook)["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    nodes = ast.walk(ast.parse("".join("".join(cell["source"]) + "\n" for cell in tagged)))
    return [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]


def arguments(notebook: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Return settings as papermill's parameters: those the notebook names, and all others as its ``settings``.

    Papermill would inject an unknown name, and the notebook would not read it.
    """
    known = parameters_of(notebook)
    others = {name: value for name, value in given.items() if name not in known}
    return {name: value for name, value in given.items() if name in known} | {"settings": others}
