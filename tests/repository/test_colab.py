"""What the set-up cell would ask of pip in invented sessions, and the stamping. The real thing is `make test-colab`."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from mgrpo_lib.experiment import checks
from mgrpo_lib.experiment.settings import ROOT, ConfigError, load_config
from tests.repository.sources import read_source
from tools import badges, colab

PINS = colab.pinned()
SESSION = (ROOT / "tests" / "repository" / "colab_session.txt").read_text().splitlines()
COLAB = dict(line.split("==") for line in SESSION if "==" in line)
COLAB |= {"torch": "2.10.0+cu128", "triton": "3.6.0", "nvidia-nccl-cu12": "2.27.5"}


@pytest.mark.parametrize("loaded", [set(), {"numpy", "pandas", "traitlets"}])
def test_torch_numpy_and_what_is_loaded_keep_their_versions(loaded):
    """Papermill's kernels, which have loaded nothing yet, share the session's packages with the open one."""
    lines = colab.constraints(COLAB, loaded, PINS)
    for name in {"torch", "triton", "nvidia-nccl-cu12", "numpy", "pandas", "pyarrow", "matplotlib"} | loaded:
        assert [line for line in lines if Requirement(line).name == name] == [f"{name}=={COLAB[name]}"]


def test_the_rest_is_at_most_as_new_as_the_lock_and_is_not_made_older():
    lines = colab.constraints({**COLAB, "rapidfuzz": "99.1"}, set(), PINS)
    assert {f"papermill<={PINS['papermill']}", f"scipy<={PINS['scipy']}", "rapidfuzz<=99.1"} <= set(lines)
    assert len({Requirement(line).name for line in lines}) == len(lines), "one constraint for a package"


def test_the_trainers_packages_are_as_locked_and_colab_keeps_its_own_jupyter():
    asked = {Requirement(text).name: str(Requirement(text).specifier) for text in colab.wanted(PINS)}
    assert all(asked[name] == f"=={PINS[name]}" for name in ("accelerate", "peft", "transformers", "trl"))
    assert "torch" in asked and not {"ipykernel", "ipywidgets", "jupyterlab"} & asked.keys()


def test_what_a_kernel_has_loaded_is_new_enough_for_the_library():
    """pip may not change it, so a newer one cannot be asked for."""
    loaded = {*colab.FIXED, "psutil"}  # the last by Colab's ipykernel
    asked = [Requirement(text) for text in colab.wanted(PINS)]
    kept = [one for one in asked if one.name in loaded & COLAB.keys()]
    assert {"numpy", "psutil"} <= {one.name for one in kept}
    assert not [f"{one}, Colab has {COLAB[one.name]}" for one in kept if COLAB[one.name] not in one.specifier]


def test_a_failed_command_shows_its_end_and_the_fix():
    with pytest.raises(RuntimeError, match="(?s)restart the session.*gone wrong"):
        colab.run("-c", "raise SystemExit('gone wrong')")


def test_outside_of_colab_the_cell_is_silent_and_changes_nothing(tmp_path):
    """Not even a path that cannot be cloned to, or a broken tool, would be noticed."""
    cell = badges.SETUP.replace("REPOSITORY", "no/such") + "\nassert 'colab' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\nbefore = list(sys.path)\n{cell}\nassert sys.path == before"],
        cwd=tmp_path,
        env={"MGRPO_HOME": str(tmp_path / "clone"), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", [ROOT, ROOT / "notebooks"])
def test_in_a_kernel_without_the_library_the_cell_names_the_one_to_choose(folder):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    call = [sys.executable, "-S", "-c", badges.SETUP]
    done = subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1
    assert sys.executable in done.stderr and ".venv/bin/python" in done.stderr and "make lab" in done.stderr


def test_a_drive_that_is_not_mounted_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "DRIVE", tmp_path / "drive")
    place = str(tmp_path / "drive" / "MyDrive" / "mgrpo")
    with pytest.raises(ConfigError, match="from google.colab import drive"):
        load_config("smoke", output_root=place)
    (tmp_path / "drive" / "MyDrive").mkdir(parents=True)
    assert load_config("smoke", output_root=place).results.is_relative_to(place)


@pytest.fixture
def copy(tmp_path):
    (tmp_path / "notebooks").mkdir()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        (tmp_path / "notebooks" / path.name).write_text(read_source(path), encoding="utf-8")
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def contents(folder) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_stamping_changes_the_name_everywhere_and_can_be_undone(copy):
    before = contents(copy)
    assert badges.stamp(copy) == badges.repository()
    assert contents(copy) == before, "what is committed is stamped; run make badges"
    assert badges.stamp(copy, "some-one/an.other") == badges.repository(copy) == "some-one/an.other"
    changed = contents(copy)
    assert all(changed[file] != before[file] for file in before)
    badges.stamp(copy, badges.repository())
    assert contents(copy) == before
    with pytest.raises(SystemExit, match="REPO"):
        badges.stamp(copy, "https://github.com/a/b")


def test_a_new_notebook_gets_badge_and_cell(copy):
    path = copy / "notebooks" / "00_overview.ipynb"
    stamped = path.read_text()
    notebook = json.loads(stamped)
    notebook["cells"][0]["source"] = [line for i, line in enumerate(notebook["cells"][0]["source"]) if i not in (2, 3)]
    del notebook["cells"][1]
    path.write_text(json.dumps(notebook))
    badges.stamp(copy)
    assert path.read_text() == stamped
