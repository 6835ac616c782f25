"""Notebooks: parameters that papermill sees and the notebook uses, no code that belongs in the library, clean sources."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest

from mgrpo_lib.experiment.notebook import arguments, parameters_of
from mgrpo_lib.experiment.pipeline import NOTEBOOKS, check_notebook
from mgrpo_lib.experiment.settings import ROOT, Config, ConfigError, load_config
from tests.repository.sources import read_source, stripped

PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
NAMES = ["00_overview", "01_data", "02_base_model", "03_grpo", "04_mgrpo", "05_benchmarks", "06_figures"]
SCRATCH = "09_from_scratch"  # a teaching page: no profile, and its definitions are its subject
NAMES += ["07_explore", "08_your_own", SCRATCH, "10_when"]  # to play with; the last is part of profile dose
BANNED = r"\binput\(|notebook_login|getpass|os\.chdir|!nohup|!pip|%cd|/(home|root)/|C:\\"
WRITERS = {"data_card", "train_base", "train", "examine", "summarise", "draw_all"}
each_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
each_with_a_profile = pytest.mark.parametrize(
    "path", [path for path in PATHS if path.stem != SCRATCH], ids=lambda path: path.stem
)


def source(cell) -> str:
    return "".join(cell["source"])


def code_cells(path) -> list[dict]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def parameters_and_configuration(path) -> tuple[str, str]:
    """The sources of the parameters cell and of the cell after it, which reads them."""
    cells = code_cells(path)
    at = next(i for i, cell in enumerate(cells) if "parameters" in cell["metadata"].get("tags", []))
    return source(cells[at]), source(cells[at + 1])


def nodes(path) -> list[ast.AST]:
    return [node for cell in code_cells(path) for node in ast.walk(ast.parse(source(cell)))]


def test_all_notebooks_are_there():
    assert [path.stem for path in PATHS] == NAMES


def committed(path: Path) -> str:
    """A file as git has it: a notebook that was edited, or run and saved, in the working tree is no fault."""
    show = ["git", "-C", ROOT, "show", f":./{path.relative_to(ROOT)}"]
    found = subprocess.run(show, capture_output=True, text=True)
    return pytest.skip("this folder is no clone") if found.returncode else found.stdout


@each_notebook
def test_what_is_committed_holds_sources_alone(path):
    text = committed(path)
    assert json.loads(text) == stripped(text), "git checkout notebooks, or nbstripout --keep-id"


@each_notebook
def test_source_is_clean(path):
    notebook = nbformat.reads(read_source(path), as_version=4)
    nbformat.validate(notebook)
    assert notebook.nbformat == 4 and notebook.nbformat_minor == 5
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert len([line for line in cell.source.splitlines() if line.strip()]) <= 25
            assert not re.search(BANNED, cell.source)
    kinds = (ast.FunctionDef, ast.ClassDef, ast.Lambda, ast.AsyncFunctionDef)
    assert path.stem == SCRATCH or not any(isinstance(node, kinds) for node in nodes(path)), (
        "definitions belong in mgrpo_lib"
    )


@each_with_a_profile
def test_every_parameter_is_seen_and_used(path):
    check_notebook(path)  # one tagged cell, as the pipeline asks for
    cells = code_cells(path)
    assert "colab.set_up()" in source(cells[0]), "the set-up cell comes first; run make badges"
    parameters, configuration = parameters_and_configuration(path)
    names = parameters_of(path)
    assert set(papermill.inspect_notebook(str(path))) == set(names), "papermill does not see a parameter"
    assert {"profile", "output_root"} <= set(names) <= {*Config.model_fields, "settings"}
    assert "settings" in names or path.stem == "08_your_own", "the pipeline hands on settings that no cell names"
    called = [node for node in ast.walk(ast.parse(configuration)) if isinstance(node, ast.Call)]
    (call,) = [node for node in called if ast.unparse(node.func) == "load_config"]
    assert [argument.id for argument in call.args] == ["profile"]
    assert "check_parameters()" in configuration.splitlines(), "what papermill only warns of"
    passed = {keyword.arg or "settings": keyword.value.id for keyword in call.keywords}
    assert passed == {name: name for name in names if name != "profile"}
    values: dict = {}
    exec(parameters, values)  # our own source
    defaults = {name: values[name] for name in names if name != "settings"}
    load_config(**defaults, **values.get("settings", {}))  # the defaults are valid


@each_notebook
def test_no_import_bears_the_name_of_a_parameter(path):
    """A value injected for the parameter would take the place of the function."""
    imports = [node for node in nodes(path) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not {alias.asname or alias.name for node in imports for alias in node.names} & {
        *Config.model_fields,
        "settings",
    }


@each_notebook
def test_what_writes_results_holds_their_folder(path):
    """Else a notebook run by hand and the pipeline could train the same run in the same files."""
    found = nodes(path)
    held = [
        inner for node in found if isinstance(node, ast.With) for item in node.items
        if ast.unparse(item.context_expr) == "store.only_one(cfg.results)" for inner in ast.walk(node)
    ]  # fmt: skip
    for node in found:
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if called.rpartition(".")[2] in WRITERS and called != "trainer.train":  # a trainer of the reader's own
            assert node in held, ast.unparse(node)


def test_a_lost_tag_is_noticed(tmp_path):
    """Without the tag papermill would put its values first, and the defaults would overwrite them."""
    notebook = json.loads((NOTEBOOKS / "03_grpo.ipynb").read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell["metadata"].pop("tags", None)
    for tags, fault in (({}, "0 cells"), ({"tags": ["parameters"]}, "# Parameters")):
        next(cell for cell in notebook["cells"] if "load_config(" in source(cell))["metadata"] |= tags
        (tmp_path / "03_grpo.ipynb").write_text(json.dumps(notebook))
        with pytest.raises(ConfigError, match=fault):
            check_notebook(tmp_path / "03_grpo.ipynb")


def test_settings_that_a_notebook_does_not_name_are_handed_on():
    given = {"profile": "smoke", "seed": 3, "max_steps": 7, "beta": 0.0}
    assert arguments(NOTEBOOKS / "03_grpo.ipynb", given) == {
        "profile": "smoke", "seed": 3, "max_steps": 7, "settings": {"beta": 0.0}
    }  # fmt: skip
    assert arguments(NOTEBOOKS / "01_data.ipynb", given)["settings"] == {"seed": 3, "max_steps": 7, "beta": 0.0}


def test_papermills_own_command_line_refuses_what_is_misspelt_or_wrong(tmp_path):
    notebook = json.loads((NOTEBOOKS / "04_mgrpo.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    at = next(i for i, cell in enumerate(cells) if "parameters" in cell["metadata"].get("tags", []))
    imported = (  # the other imports take seconds
        "from mgrpo_lib.experiment.notebook import check_parameters\n"
        "from mgrpo_lib.experiment.settings import load_config\n"
    )
    cells[at + 1]["source"] = imported + "cfg = load_config(" + source(cells[at + 1]).partition("cfg = load_config(")[2]
    beginning = {**notebook, "cells": cells[at : at + 2]}
    (tmp_path / "in.ipynb").write_text(json.dumps(beginning))
    cases = [
        ({"settings": {"test_problem": 3}}, ["test_problem", "test_problems"]),
        ({"max_step": 3}, ["'max_step'", "'max_steps'"]),
        ({"learning_rate": "fast", "max_steps": -1, "select_drafts": "wrongs"}, ["'fast'", "-1", "wrongs", "mixed"]),
    ]
    call = [sys.executable, "-m", "papermill", tmp_path / "in.ipynb", "-", "--cwd", NOTEBOOKS, "-k", "python3", "-y"]
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    base = {"profile": "smoke", "output_root": str(tmp_path / "new")}
    started = [subprocess.Popen([*call, json.dumps({**base, **values})], **how) for values, _ in cases]
    for process, (_, messages) in zip(started, cases, strict=True):
        text, _ = process.communicate(timeout=120)
        assert process.returncode != 0 and all(message in text for message in messages), text
    assert not (tmp_path / "new").exists(), "nothing was done"


@pytest.mark.parametrize("obstacle", ["none", "a long temporary folder", "a kernel of another Python"])
def test_the_pipelines_kernels_are_its_own_and_take_no_ports(tmp_path, monkeypatch, obstacle):
    if obstacle == "a long temporary folder":
        monkeypatch.setenv("TMPDIR", str(tmp_path / ("t" * 120)))
        Path(os.environ["TMPDIR"]).mkdir()
    if obstacle == "a kernel of another Python":
        for name in ("python3", "mgrpo"):
            spec = tmp_path / "kernels" / name / "kernel.json"
            spec.parent.mkdir(parents=True)
            spec.write_text(json.dumps({"argv": ["/no/such/python"], "display_name": "x", "language": "python"}))
        monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    where = "import ipykernel, sys\nprint(number, sys.executable, ipykernel.get_connection_info())"
    cells = [
        nbformat.v4.new_code_cell("number = 1", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(where),
    ]
    python = {"kernelspec": {"name": "python3", "display_name": "Python", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=python), tmp_path / "in.ipynb")
    call = [
        sys.executable,
        "-m",
        "mgrpo_lib.experiment.kernel",
        tmp_path / "in.ipynb",
        tmp_path / "out.ipynb",
        tmp_path,
        '{"number": 1e-06}',
    ]
    subprocess.run(call, check=True, timeout=120)
    text = json.loads((tmp_path / "out.ipynb").read_text())["cells"][-1]["outputs"][0]["text"]
    number, python, connection = "".join(text).split(" ", 2)
    assert float(number) == 1e-06 and python == sys.executable and json.loads(connection)["transport"] == "ipc"
    assert not Path(json.loads(connection)["ip"]).parent.exists(), "the sockets are gone with it"


def test_a_formula_is_compared_inside_a_papermill_kernel(tmp_path):
    """The verifier's time limits, in a kernel whose main thread is an event loop."""
    cells = [
        "from mgrpo_lib.verifier.reward import same_answer",
        r'pairs = [(r"\sqrt{12}", r"2\sqrt{3}"), ("(x+1)^2", "x^2+2x+1"), (r"\sqrt{12}", r"3\sqrt{2}"), ("(x+1)^2", "x^2+1")]',
        "print([same_answer(*pair) for pair in pairs])",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(notebook, tmp_path / "formulas.ipynb")
    done = papermill.execute_notebook(
        str(tmp_path / "formulas.ipynb"), None, cwd=str(ROOT), progress_bar=False, kernel_name="python3"
    )
    assert done.cells[-1].outputs[0].text.strip() == "[True, True, False, False]"


def test_injected_parameters_arrive(tmp_path):
    papermill.execute_notebook(
        str(NOTEBOOKS / "01_data.ipynb"), str(tmp_path / "out.ipynb"),
        {"profile": "smoke", "output_root": str(tmp_path), "test_problems": 7, "settings": {"validation_problems": 5}},
        cwd=str(NOTEBOOKS), progress_bar=False, kernel_name="python3",
    )  # fmt: skip
    card = json.loads((tmp_path / "results" / "smoke" / "data.json").read_text())
    assert card["sets"]["chains_words"]["rows"] == 7 and card["sets"]["validation"]["rows"] == 5
    assert all(entry["shared_with_train"] == 0 for entry in card["sets"].values())


@each_notebook
def test_files_that_a_notebook_names_exist(path):
    text = "\n".join(source(cell) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"])
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)[^)]*\)", text)
    for file in links + re.findall(r"`((?:mgrpo_lib|profiles|tests|tools)/[\w./]+)`", text):
        assert (ROOT / file).exists(), f"{path.name} names {file}, which does not exist"


@each_notebook
def test_copies_with_outputs_show_the_present_notebooks(path):
    copy = json.loads((ROOT / "results" / "cpu" / "notebooks" / path.name).read_text(encoding="utf-8"))
    assert stripped(json.dumps(copy)) == stripped(path.read_text(encoding="utf-8")), (
        "make executed, after make reproduce"
    )
    outputs = [output for cell in copy["cells"] for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert any({"image/png", "text/html"} & set(output.get("data", {})) for output in outputs), "pictures or tables"
    assert re.search(r"/(home|root|tmp|work)/", json.dumps(outputs)) is None
    if path.stem[:2] in ("03", "04", "05"):  # what is shown is of the seed that the parameters name
        code = "\n".join("".join(cell["source"]) for cell in copy["cells"])
        assert "-seed" + re.search(r"(?m)^seed = (\d+)", code).group(1) in json.dumps(outputs)


@pytest.mark.slow
def test_a_notebook_that_was_run_and_saved_breaks_no_test(tmp_path):
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
        subprocess.run([*git, *command], check=True)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--inplace"]
    notebook = tmp_path / "notebooks" / "00_overview.ipynb"
    subprocess.run([*run, notebook], cwd=tmp_path, env=environment, check=True, timeout=300)
    assert any(cell["outputs"] for cell in code_cells(notebook))
    tests = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "-m", "not slow"]
    tests += [f"tests/repository/test_{name}.py" for name in ("notebooks", "colab", "packaging")]
    done = subprocess.run(tests, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout
    subprocess.run([*git, "add", "."], check=True)
    done = subprocess.run([*tests, "-k", "committed"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "1 failed" in done.stdout, "outputs that would be committed are a fault"
