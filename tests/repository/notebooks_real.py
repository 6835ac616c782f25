"""Notebooks 07 and 08, which are no part of the chain, from top to bottom; called by `make test-extra` (some minutes). 07
reads a copy of the committed records, 08 trains in a temporary folder; nothing in the repository changes.
"""

import shutil
import tempfile
from pathlib import Path

import papermill

from mgrpo_lib.experiment.settings import ROOT


def run(name: str, folder: Path, **parameters) -> str:
    """Executes a notebook, and returns all that it shows."""
    place = ROOT / "notebooks"
    executed = papermill.execute_notebook(
        str(place / f"{name}.ipynb"), str(folder / f"{name}.ipynb"), parameters, cwd=str(place), kernel_name="python3"
    )
    return "".join(str(output) for cell in executed.cells for output in cell.get("outputs", []))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        without = shutil.ignore_patterns("model", "rounds", "rounds.json")
        shutil.copytree(ROOT / "results" / "cpu", here / "results" / "cpu", ignore=without)
        text = run("07_explore", here, output_root=folder)
        for needed in (
            "wrong to right",
            "vnd.jupyter.widget-view",
            "attempt 2",
            "is not trained with these parameters",
        ):
            assert needed in text, f"07_explore shows no {needed!r}"
        text = run("08_your_own", here, output_root=str(here / "my_run"))
        for needed in ("| blanks | mine |", "mine - MGRPO", "one phrase", "minus the first row", "SmolLM2"):
            assert needed in text, f"08_your_own shows no {needed!r}"
    print("notebooks 07 and 08 run from top to bottom")


if __name__ == "__main__":
    main()
