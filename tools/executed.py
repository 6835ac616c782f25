"""Put copies of all notebooks with their outputs into results/cpu/notebooks, to be read without running.

Those of the pipeline come from out/results/cpu/runs (run `make reproduce` first), the others run here. Arguments such as
``03 04`` choose notebooks; ``text`` takes the notebooks' new text and keeps the outputs, where no code has changed.
"""

import ast
import json
import sys
import tempfile
from pathlib import Path

import papermill

from mgrpo_lib.experiment.settings import ROOT

RUNS, TARGET = ROOT / "out" / "results" / "cpu" / "runs", ROOT / "results" / "cpu" / "notebooks"
BESIDE = ("07", "08", "09", "10")  # no part of the pipeline of profile cpu
WIDGET = "application/vnd.jupyter.widget-view+json"  # needs a kernel


def executed_copy(source: Path, folder: Path) -> Path:
    """Return where a notebook's copy with outputs is: of the pipeline, or made here.

    Raises:
        SystemExit: the pipeline has not run.
    """
    runs = [path for path in RUNS.glob(f"{source.stem[:2]}_*.ipynb") if "." not in path.stem]
    runs.sort(key=lambda path: ("seed" not in path.stem, path.stem))  # 05 of a seed before 05 of the base model
    if source.stem[:2] not in BESIDE:
        return runs[0] if runs else sys.exit(f"no executed copy of {source.name} in {RUNS}: run `make reproduce` first")
    executed, given = folder / source.name, {"output_root": str(folder / "my_run")} if source.stem[:2] == "08" else {}
    papermill.execute_notebook(str(source), str(executed), given, cwd=str(source.parent), kernel_name="python3")
    return executed


def with_outputs(source: Path, executed: Path, folders: list[str]) -> dict:
    """Return a notebook with the outputs of its executed copy, without places of this machine.

    Raises:
        ValueError: the copy was made with other code.
    """
    text = executed.read_text(encoding="utf-8")
    for folder in folders:
        text = text.replace(folder + "/", "")
    book, cells = (
        json.loads(source.read_text(encoding="utf-8")),
        {cell["id"]: cell for cell in json.loads(text)["cells"]},
    )
    for cell in book["cells"]:
        if cell["cell_type"] == "code" and not cell["id"].endswith("-colab"):  # the set-up cell shows nothing
            copy = cells.get(cell["id"])
            if copy is None or code_of(copy) != code_of(cell):
                raise ValueError(f"{source.name} has new code: run `python tools/executed.py {source.stem[:2]}`")
            cell["outputs"] = [output for output in copy["outputs"] if shown(output)]
            cell["execution_count"] = copy["execution_count"]
    return book


def code_of(cell: dict) -> str:
    """Return what a cell does: its code without comments."""
    return ast.dump(ast.parse("".join(cell["source"])))


def shown(output: dict) -> bool:
    """Take a widget out of an output, and say whether more is left than its name."""
    data = output.get("data", {})
    return data.pop(WIDGET, None) is None or set(data) != {"text/plain"}


def main() -> None:
    chosen = sys.argv[1:]
    TARGET.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for source in sorted((ROOT / "notebooks").glob("*.ipynb")):
            copy = TARGET / source.name
            if chosen and chosen != ["text"] and source.stem[:2] not in chosen:
                continue
            executed = copy if chosen == ["text"] else executed_copy(source, folder)
            book = with_outputs(source, executed, [str(folder), str(ROOT)])
            copy.write_text(json.dumps(book, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            print(f"{source.name}: {copy.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
