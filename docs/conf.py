"""Settings of the pages that `make html` builds: docs/ and the notebooks, executed ones where a results folder has them."""

import os
import shutil
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / os.environ.get("RESULTS", "out/results/cpu")

project = "Multi-Layer GRPO, reproduced"
copyright = "its authors, Apache-2.0"  # noqa: A001
extensions = ["myst_nb", "sphinx-mathjax-offline"]
html_theme = "alabaster"
html_static_path: list[str] = []
exclude_patterns = ["**.ipynb_checkpoints"]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"
suppress_warnings = ["mystnb.unknown_mime_type"]  # widgets


def gather(folder: Path) -> None:
    """Copy every notebook into this folder: the first executed copy in RESULTS, or else the source."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for source in sorted((HERE.parent / "notebooks").glob("*.ipynb")):
        runs = sorted(RESULTS.glob(f"runs/{source.name[:2]}_*.ipynb"))
        executed = [path for path in runs if "." not in path.stem]  # neither failed nor running
        shutil.copy(executed[0] if executed else source, folder / source.name)


gather(HERE / "notebooks")
