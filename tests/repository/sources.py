"""Notebooks as they are committed: their sources, without what Jupyter adds when it runs and saves one."""

import json
from pathlib import Path

KEPT = ("cellView", "jupyter", "tags")
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def stripped(text: str) -> dict:
    """Return a notebook without outputs, execution counts and metadata other than tags and folding."""
    notebook = json.loads(text)
    notebook["metadata"] = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for cell in notebook["cells"]:
        cell["metadata"] = {name: value for name, value in cell["metadata"].items() if name in KEPT}
        if cell["cell_type"] == "code":
            cell |= {"execution_count": None, "outputs": []}
    return notebook


def read_source(path: Path) -> str:
    """Return a file of the repository, of a notebook its sources, laid out as they are committed."""
    text = path.read_text(encoding="utf-8")
    return json.dumps(stripped(text), indent=1, ensure_ascii=False) + "\n" if path.suffix == ".ipynb" else text
