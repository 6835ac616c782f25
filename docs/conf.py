"""Settings of the pages that `make html` builds: docs/ and the notebooks, with the outputs that results/cpu/notebooks has."""

import re
import shutil
from pathlib import Path

HERE = Path(__file__).resolve().parent
EXECUTED = HERE.parent / "results" / "cpu" / "notebooks"

project = html_title = "Multi-Layer GRPO, reproduced"
copyright = "its authors, Apache-2.0"  # noqa: A001
extensions = ["myst_nb", "sphinx-mathjax-offline"]
html_theme = "furo"  # light and dark, and readable on a phone
html_static_path: list[str] = []
exclude_patterns = ["**.ipynb_checkpoints"]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_render_markdown_format = "gfm"  # tables in outputs
suppress_warnings = ["mystnb.unknown_mime_type"]  # widgets


def gather(folder: Path) -> None:
    """Copy every notebook into this folder, executed where EXECUTED has it, without the badge, which lies on the net."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for source in sorted((HERE.parent / "notebooks").glob("*.ipynb")):
        executed = EXECUTED / source.name
        text = (executed if executed.exists() else source).read_text(encoding="utf-8")
        text = re.sub(r"\[!\[Open in Colab\]\([^)]*\)\](\([^)]*\))", r"[Open in Colab]\1", text)
        (folder / source.name).write_text(text, encoding="utf-8")


gather(HERE / "notebooks")
