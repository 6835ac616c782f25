"""Run notebooks 07 and 08, which are no part of the pipeline, from top to bottom (`make test-extra`, some minutes).

07 reads a copy of the committed records, 08 trains in a temporary folder; nothing in the repository changes.
"""

import shutil
import tempfile
from pathlib import Path

import papermill

from mgrpo_lib.experiment.settings import ROOT

SHOWN = {  # what the outputs of each must hold
    "07_explore": ("wrong to right", "vnd.jupyter.widget-view", "attempt 2", "mgrpo-seed10"),
    "08_your_own": ("| blanks | mine |", "mine - MGRPO", "one phrase", "minus the first row", "SmolLM2"),
}


def run(name: str, folder: Path, output: Path) -> str:
    """Execute a notebook, and return all that it shows."""
    place = ROOT / "notebooks"
    done = papermill.execute_notebook(
        str(place / f"{name}.ipynb"), str(folder / f"{name}.ipynb"), {"output_root": str(output)},
        cwd=str(place), kernel_name="python3",
    )  # fmt: skip
    return "".join(str(output) for cell in done.cells for output in cell.get("outputs", []))


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        without = shutil.ignore_patterns("model", "rounds", "rounds.json")
        shutil.copytree(ROOT / "results" / "cpu", folder / "results" / "cpu", ignore=without)
        for name, output in (("07_explore", folder), ("08_your_own", folder / "my_run")):
            text = run(name, folder, output)
            for needed in SHOWN[name]:
                assert needed in text, f"{name} shows no {needed!r}"
    print("notebooks 07 and 08 run from top to bottom")


if __name__ == "__main__":
    main()
