"""Put executed copies of all notebooks into results/cpu/notebooks, to be read without running: those of the pipeline from
out/results/cpu/runs (`make reproduce` first), the others run here.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
import papermill

from mgrpo_lib.experiment.settings import ROOT

RUNS, TARGET = ROOT / "out" / "results" / "cpu" / "runs", ROOT / "results" / "cpu" / "notebooks"
WITHOUT_MANIFEST = {"07_explore": "", "08_your_own": "my_run", "09_from_scratch": None, "10_when": ""}


def run_here(source: Path, folder: Path) -> Path:
    """Execute a notebook that is no part of the pipeline of profile cpu, on a copy of the committed results."""
    executed, output = folder / source.name, WITHOUT_MANIFEST[source.stem]
    given = {} if output is None else {"output_root": str(folder / output)}
    papermill.execute_notebook(str(source), str(executed), given, cwd=str(source.parent), kernel_name="python3")
    return executed


def tidy(path: Path, folders: list[str]) -> nbformat.NotebookNode:
    """Return an executed notebook without times, places and the state of widgets, which need a kernel."""
    text = path.read_text(encoding="utf-8")
    for folder in folders:
        text = text.replace(folder + "/", "")
    book = nbformat.from_dict(json.loads(text))
    for part in (book, *book.cells):
        for name in ("papermill", "execution", "widgets"):
            part.metadata.pop(name, None)
    for cell in book.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    return book


def main() -> None:
    chosen = sys.argv[1:]
    TARGET.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for profile in ("cpu", "dose"):
            shutil.copytree(ROOT / "results" / profile, folder / "results" / profile)
        for source in sorted((ROOT / "notebooks").glob("*.ipynb")):
            if chosen and source.stem[:2] not in chosen:
                continue
            runs = sorted(path for path in RUNS.glob(f"{source.stem[:2]}_*.ipynb") if "." not in path.stem)
            if not runs and source.stem not in WITHOUT_MANIFEST:
                sys.exit(f"no executed copy of {source.name} in {RUNS}: run `make reproduce` first")
            book = tidy(runs[0] if runs else run_here(source, folder), [str(folder), str(ROOT)])
            nbformat.write(book, TARGET / source.name)
            print(f"{source.name}: {(TARGET / source.name).stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
