"""The notebook contract: parameters that papermill really sees, strict, no code that belongs into the library, clean
sources.
"""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest

from mgrpo_lib.experiment.machine import NOTEBOOK_GIB
from mgrpo_lib.experiment.pipeline import EXECUTE, NOTEBOOKS, check_notebook
from mgrpo_lib.experiment.settings import ROOT, Config, ConfigError, load_config
from tools.badges import SETUP, repository

PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
NAMES = ["00_overview", "01_data", "02_base_model", "03_grpo", "04_mgrpo", "05_benchmarks", "06_figures"]
NAMES += ["07_explore", "08_your_own"]  # to play with; no part of the chain
BANNED = r"\binput\(|notebook_login|getpass|os\.chdir|!nohup|!pip|%cd|/(home|root)/|C:\\"


def code_cells(path):
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def source(cell) -> str:
    return "".join(cell["source"])


def test_the_chain_has_all_its_notebooks():
    assert [path.stem for path in PATHS] == NAMES


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_source_is_clean(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.nbformat == 4 and notebook.nbformat_minor == 5
    assert notebook.metadata.kernelspec.name == "python3"
    assert not {"widgets", "papermill"} & set(notebook.metadata)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.execution_count is None and not cell.outputs, "strip the outputs: nbstripout --keep-id"
            assert len([line for line in cell.source.splitlines() if line.strip()]) <= 25
            assert not re.search(BANNED, cell.source)
            kinds = (ast.FunctionDef, ast.ClassDef, ast.Lambda, ast.AsyncFunctionDef)
            assert not any(isinstance(node, kinds) for node in ast.walk(ast.parse(cell.source))), (
                "definitions belong into mgrpo_lib"
            )


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_parameters_cell(path):
    cells = code_cells(path)
    assert source(cells[0]) == SETUP.replace("REPOSITORY", repository()), "the set-up cell comes first; run make badges"
    assert len([line for line in source(cells[0]).splitlines() if line.strip()]) <= 10
    assert all(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.parse(source(cells[1])).body)
    tagged = [i for i, cell in enumerate(cells) if "parameters" in cell["metadata"].get("tags", [])]
    assert tagged == [2], "one tagged cell, right after the imports"
    text = source(cells[2])
    assert text.startswith("# Parameters\n"), "from_notebook finds the cell by its first line"
    assigned = [
        node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    ]
    assert set(papermill.inspect_notebook(str(path))) == set(assigned), "papermill does not see a parameter"
    assert set(assigned) <= set(Config.model_fields)
    assert {"profile", "output_root"} <= set(assigned)
    assert "from_notebook(globals())" in source(cells[3]), "the strict configuration comes next"
    assert not any("from_notebook(globals())" in source(cell) for cell in cells[4:])
    values: dict = {}
    exec(text, values)  # our own source
    load_config(**{name: values[name] for name in assigned})  # the defaults are valid


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_no_import_bears_the_name_of_a_setting(path):
    """A value injected for the setting would take the place of the function."""
    nodes = [node for cell in code_cells(path) for node in ast.walk(ast.parse(source(cell)))]
    imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not {alias.asname or alias.name for node in imports for alias in node.names} & set(Config.model_fields)


WRITERS = {"data_card", "train_base", "train", "examine", "summarise", "draw_all", "write_cards", "push"}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_what_writes_results_holds_their_folder(path):
    """Else a notebook run by hand and a chain could train the same run in the same files."""
    for cell in code_cells(path):
        tree = ast.parse(source(cell))
        held = [
            inner for node in ast.walk(tree) if isinstance(node, ast.With) for item in node.items
            if ast.unparse(item.context_expr) == "store.only_one(cfg.results)" for inner in ast.walk(node)
        ]  # fmt: skip
        for node in ast.walk(tree):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called.rpartition(".")[2] in WRITERS and called != "trainer.train":  # a trainer of the reader's own
                assert node in held, ast.unparse(node)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_prose_teaches(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    prose = [source(cell) for cell in cells if cell["cell_type"] == "markdown"]
    assert cells[0]["cell_type"] == "markdown" and prose[0].startswith("# ")
    for needed in ("writes", "time, memory"):
        assert needed in prose[0]
    text = "\n".join(prose)
    assert "**To try next" in text and "**To check:**" in text
    assert len(text.split()) >= 150
    if path.stem not in ("00_overview",):
        assert "$$" in text or "toy" in text.lower() or "x_{k}" in text


def test_a_lost_tag_is_noticed(tmp_path):
    """Without the tag papermill would put its values first and the defaults would overwrite them, silently."""
    notebook = json.loads((NOTEBOOKS / "03_grpo.ipynb").read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell["metadata"].pop("tags", None)
    (tmp_path / "03_grpo.ipynb").write_text(json.dumps(notebook))
    with pytest.raises(ConfigError, match="0 cells tagged 'parameters'"):
        check_notebook(tmp_path / "03_grpo.ipynb")
    imports = next(cell for cell in notebook["cells"] if "from_notebook" in source(cell))
    imports["metadata"]["tags"] = ["parameters"]
    (tmp_path / "03_grpo.ipynb").write_text(json.dumps(notebook))
    with pytest.raises(ConfigError, match="not the one that begins with '# Parameters'"):
        check_notebook(tmp_path / "03_grpo.ipynb")


def execute(name: str, folder, **parameters) -> None:
    """Runs a notebook as papermill's own command line would, without the runner's checks."""
    papermill.execute_notebook(
        str(NOTEBOOKS / f"{name}.ipynb"),
        str(folder / "out.ipynb"),
        parameters={"profile": "smoke", "output_root": str(folder), **parameters},
        cwd=str(NOTEBOOKS),
        progress_bar=False,
        kernel_name="python3",
    )


def beginning(name: str, folder, tag="parameters"):
    """A copy of a notebook that ends with its configuration, and imports nothing else, for that takes seconds."""
    notebook = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))
    _, imports, parameters, configuration = code_cells(NOTEBOOKS / f"{name}.ipynb")[:4]
    imports["source"] = "from mgrpo_lib.experiment.settings import from_notebook"
    parameters["metadata"]["tags"] = [tag]
    (folder / f"{name}.ipynb").write_text(json.dumps({**notebook, "cells": [imports, parameters, configuration]}))
    return folder / f"{name}.ipynb"


def start_papermill(notebook, folder, values: dict[str, str]) -> subprocess.Popen:
    """Papermill's own command line, without the runner's checks."""
    call = [sys.executable, "-m", "papermill", str(notebook), str(folder / "out.ipynb"), "--cwd", str(NOTEBOOKS)]
    for name, value in {"profile": "smoke", "output_root": str(folder / "new"), **values}.items():
        call += ["-p", name, value]
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([*call, "-k", "python3"], cwd=folder, **how)


def test_papermills_own_command_line_refuses_what_is_misspelt_wrong_or_contradictory_and_a_lost_tag(tmp_path):
    training, untagged = beginning("04_mgrpo", tmp_path), beginning("01_data", tmp_path, tag="lost")
    misspelt = "unknown parameter 'test_problem' in parameters; did you mean 'test_problems'"
    cases = [
        (NOTEBOOKS / "01_data.ipynb", {"test_problem": "3"}, [misspelt]),
        (untagged, {"test_problems": "3"}, ["no cell is tagged 'parameters'; restore the tag"]),
        (
            training,
            {"learning_rate": "fast", "max_steps": "-1", "num_generations": "2.5", "select_drafts": "wrongs"},
            [
                "'learning_rate' is 'fast' (str): input should be a valid number",
                "'max_steps' is -1 (int): input should be greater than or equal to 1",
                "'num_generations' is 2.5 (float): input should be a valid integer",
                "'select_drafts' is 'wrongs' (str): input should be 'all', 'wrong' or 'mixed'",
            ],
        ),
        (training, {"drafts_per_prompt": "9"}, ["drafts_per_prompt 9 exceeds num_generations 4; use at most that"]),
    ]
    folders = [tmp_path / str(i) for i in range(len(cases))]
    for folder in folders:
        folder.mkdir()
    started = [start_papermill(path, folder, values) for (path, values, _), folder in zip(cases, folders, strict=True)]
    for process, (_, _, messages) in zip(started, cases, strict=True):
        text, _ = process.communicate(timeout=120)
        assert process.returncode != 0 and all(message in text for message in messages), text
    assert not list(tmp_path.glob("*/new")), "nothing was done"


def test_the_chains_kernels_take_no_ports_which_others_could_take_first(tmp_path):
    where = "import ipykernel\nprint(number, ipykernel.get_connection_info())"
    cells = [
        nbformat.v4.new_code_cell("number = 1", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(where),
    ]
    python = {"kernelspec": {"name": "python3", "display_name": "Python", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=python), tmp_path / "in.ipynb")
    call = [sys.executable, "-c", EXECUTE, tmp_path / "in.ipynb", tmp_path / "out.ipynb", tmp_path, '{"number": 1e-06}']
    subprocess.run(call, check=True, timeout=120)
    text = json.loads((tmp_path / "out.ipynb").read_text())["cells"][-1]["outputs"][0]["text"]
    number, _, connection = "".join(text).partition(" ")
    assert float(number) == 1e-06 and json.loads(connection)["transport"] == "ipc"
    assert not Path(json.loads(connection)["ip"]).parent.exists(), "the sockets are gone with it"


def test_a_formula_is_compared_inside_a_papermill_kernel(tmp_path):
    """A helper process, pipes and time limits, in a kernel whose standard output is not a file and whose main thread is
    an event loop.
    """
    cells = [
        "from mgrpo_lib.verifier import compare, reward as rewards",
        'pairs = [(r"\\sqrt{12}", r"2\\sqrt{3}"), ("(x+1)^2", "x^2+2x+1"), (r"\\sqrt{12}", r"3\\sqrt{2}"), ("(x+1)^2", "x^2+1")]',
        "print([rewards.same_answer(*pair) for pair in pairs], dict(rewards.failures), compare.helper.process.poll())",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(notebook, tmp_path / "formulas.ipynb")
    done = papermill.execute_notebook(
        str(tmp_path / "formulas.ipynb"), None, cwd=str(ROOT), progress_bar=False, kernel_name="python3"
    )
    assert done.cells[-1].outputs[0].text.strip() == "[True, True, False, False] {} None"


def test_injected_parameters_arrive(tmp_path):
    execute("01_data", tmp_path, test_problems=7)
    card = json.loads((tmp_path / "results" / "smoke" / "data.json").read_text())
    assert card["sets"]["chains_words"]["rows"] == 7
    assert all(entry["shared_with_train"] == 0 for entry in card["sets"].values())


def test_links_of_notebooks_and_readme_exist():
    texts = {path: "\n".join(source(cell) for cell in json.loads(path.read_text())["cells"]) for path in PATHS}
    texts[ROOT / "README.md"] = (ROOT / "README.md").read_text(encoding="utf-8")
    for path, text in texts.items():
        for target in re.findall(r"\]\((?!https?://|#)([^)]+)\)", text) + re.findall(
            r"`((?:mgrpo_lib|profiles|tests|tools)/[\w./]+)`", text
        ):
            file, _, heading = target.partition("#")
            assert (ROOT / file).exists(), f"{path.name} names {target}, which does not exist"
            if heading:
                titles = re.findall(r"(?m)^#+ (.+)$", (ROOT / file).read_text(encoding="utf-8"))
                assert heading in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", ["07_explore", "08_your_own"])
def test_the_memory_in_a_head_is_what_the_chain_counts(name):
    head = "".join(json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"][0]["source"])
    assert f" {NOTEBOOK_GIB['miniature']} GiB " in head
