"""What papermill hands to a notebook."""

import ast
from pathlib import Path
from typing import Any

from IPython import get_ipython

from mgrpo_lib.experiment.progress import notebook_is_open
from mgrpo_lib.experiment.settings import ConfigError
from mgrpo_lib.experiment.store import read_json
from mgrpo_lib.tasks.names import nearest


def parameters_of(notebook: Path) -> list[str]:
    """Return the names that the cell tagged ``parameters`` assigns."""
    tagged = [cell for cell in read_json(notebook)["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    return _assigned("".join("".join(cell["source"]) + "\n" for cell in tagged))


def _assigned(source: str) -> list[str]:
    nodes = ast.walk(ast.parse(source))
    return [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]


def check_parameters() -> None:
    """Refuse, in a notebook, a parameter that papermill was given and the notebook does not have; papermill only warns.

    Raises:
        ConfigError: names the nearest parameter.
    """
    if notebook_is_open():  # there a person may write what they like
        return
    # papermill puts its values into a cell after the notebook's own, under the same comment
    own, *injected = [cell for cell in get_ipython().user_ns["In"] if cell.startswith("# Parameters")]
    known = _assigned(own)
    for name in _assigned("\n".join(injected)):
        if name not in known:
            raise ConfigError(f"the notebook has no parameter {name!r}; {nearest(name, known)}")


def arguments(notebook: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Return settings as papermill's parameters: those the notebook names, and all others as its ``settings``.

    Papermill would inject an unknown name, and the notebook would not read it.
    """
    known = parameters_of(notebook)
    others = {name: value for name, value in given.items() if name not in known}
    return {name: value for name, value in given.items() if name in known} | {"settings": others}
