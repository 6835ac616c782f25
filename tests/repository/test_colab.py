"""The set-up cell outside of Colab, what its tool would install in sessions that are made up, and the stamping. The
real thing, with pip and kernels, is `make test-colab`.
"""

import json
import shutil
import subprocess
import sys

import pytest

from mgrpo_lib.experiment import settings as config
from mgrpo_lib.experiment.settings import ROOT, ConfigError, load_config
from tools import badges, colab

PINS = colab.pinned()
ASKED = colab.direct(colab.project()["dependencies"], PINS)
COLAB = {
    **dict(
        line.split("==")
        for line in (ROOT / "tests" / "repository" / "colab_session.txt").read_text().splitlines()
        if "==" in line
    ),
    "torch": "2.10.0+cu128",
    "triton": "3.6.0",
    "nvidia-nccl-cu12": "2.27.5",
}
LOADED = {"numpy", "pandas", "pyarrow", "matplotlib"}
REQUIRES = {  # of the locked versions, and of Colab's datasets
    "datasets": ["pyarrow>=15", "huggingface-hub>=0.24", "torch; extra == 'torch'"],
    "transformers": ["huggingface-hub<3.0,>=1.31.0", "tokenizers<0.24.0,>=0.23.1", "numpy>=1.17"],
    "trl": ["datasets>=4.7.0", "pyarrow>=21.0.0", "transformers>=4.56.2"],
    "huggingface-hub": ["httpx2<3,>=2.0.0"],
    "httpx2": ["h2; extra == 'http2'", "httpcore2"],
}


def rounds(installed: dict[str, str], loaded: set[str]) -> list[list[str]]:
    """What is installed in each round, if pip does as it is told."""
    now, stay, done = dict(installed), colab.kept(installed, loaded, PINS), []

    def requires(name: str) -> list[str]:
        return REQUIRES.get(name, []) if now[name] == PINS.get(name) or name == "datasets" else []

    while new := colab.to_install(colab.unmet(ASKED, now, requires), now, stay, PINS):
        done.append([pin.split("==")[0] for pin in new])
        now |= dict(pin.split("==") for pin in new)
    return done


def test_on_colab_missing_and_old_packages_are_pinned_round_after_round():
    first, second, third, fourth = rounds(COLAB, LOADED)
    own = ["accelerate", "bitsandbytes", "math-verify", "papermill", "peft", "rapidfuzz", "transformers", "trl"]
    assert first == own, "pandas, matplotlib, scipy, statsmodels and pydantic are new enough"
    assert second == ["huggingface-hub", "tokenizers"], (
        "not pyarrow, which is loaded, nor datasets, which has to fit it"
    )
    assert third == ["httpx2"] and fourth == ["httpcore2"], "an extra that nobody asked for is not installed"


def test_where_pyarrow_is_new_enough_datasets_is_brought_up_to_date():
    new = {**COLAB, "pyarrow": PINS["pyarrow"]}
    assert "datasets" in [name for names in rounds(new, LOADED) for name in names]


def test_a_kernel_that_has_loaded_nothing_yet_changes_no_more():
    """Papermill's kernels share the session's packages with the one that is open in the browser."""
    assert rounds(COLAB, set()) == rounds(COLAB, LOADED)


@pytest.mark.parametrize("loaded", [set(), LOADED])
def test_torch_and_numpy_are_never_installed(loaded):
    for installed in (COLAB, {}, {"torch": "2.0.0", "numpy": "1.20.0", "triton": "1.0", "nvidia-nccl-cu12": "1.0"}):
        pins = {**PINS, "triton": "3.7.1", "nvidia-nccl-cu12": "2.29.7"}
        everything = colab.to_install(pins, installed, colab.kept(installed, loaded & set(installed), PINS), pins)
        names = {pin.split("==")[0] for pin in everything}
        assert not names & {"torch", "numpy", "triton", "nvidia-nccl-cu12"}
        assert all(pin == f"{name}=={pins[name]}" for pin, name in zip(everything, sorted(names), strict=True))


def test_in_the_locked_environment_nothing_is_to_do():
    from importlib import metadata

    installed = colab.versions()
    unmet = colab.unmet(ASKED, installed, lambda name: metadata.requires(name) or ())
    assert not unmet
    assert not any(text.startswith(("ipykernel", "ipywidgets", "jupyterlab")) for text in ASKED)
    assert {"numpy", "torch"} <= colab.kept(installed, (), PINS)


@pytest.mark.parametrize(
    ("installed", "stay", "message"),
    [
        ({**COLAB, "torch": "2.8.0+cu126"}, {"torch"}, r"torch 2.8.0\+cu126: not as the library asks for"),
        ({}, set(), "torch is missing"),
        ({**COLAB, "transformers": "4.1.0"}, {"transformers"}, r"transformers 4.1.0: .* restart it"),
    ],
)
def test_what_cannot_be_mended_is_said(installed, stay, message):
    with pytest.raises(RuntimeError, match=message):
        colab.check(ASKED, ">=3.11,<3.13", installed, stay)
    with pytest.raises(RuntimeError, match="choose another runtime version"):
        colab.check(ASKED, ">=4", COLAB, set())


def test_a_failed_command_shows_its_end():
    with pytest.raises(RuntimeError, match="(?s)^trying failed:.*gone wrong"):
        colab.run("trying", "-c", "raise SystemExit('gone wrong')")


def test_the_gpu_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert colab.gpu() == "no GPU"
    fake = tmp_path / "nvidia-smi"
    fake.write_text("#!/bin/sh\necho 'Tesla T4, 15360 MiB'\n")
    fake.chmod(0o755)
    assert colab.gpu() == "Tesla T4, 15360 MiB"


def test_outside_of_colab_the_cell_is_silent_and_changes_nothing(tmp_path):
    """Not even a path that could not be cloned to, or a broken tool, would be noticed."""
    cell = badges.SETUP.replace("REPOSITORY", "no/such") + "\nassert 'colab' not in sys.modules"
    before = "import sys, os; path, environment = list(sys.path), dict(os.environ)\n"
    after = "\nassert path == sys.path and environment == dict(os.environ)"
    done = subprocess.run(
        [sys.executable, "-c", before + cell + after],
        cwd=tmp_path,
        env={"MGRPO_HOME": str(tmp_path / "clone"), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns(".*"))
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def contents(folder) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_all_notebooks_and_readme_carry_the_same_name():
    name = badges.repository()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        assert badges.badge(name, path.stem) in "".join(cells[0]["source"])
        assert cells[1] == badges.setup_cell(name, path.stem)
    assert badges.badge(name, "00_overview") in (ROOT / "README.md").read_text()


def test_stamping_changes_the_name_everywhere_and_is_idempotent(copy):
    before = contents(copy)
    assert badges.stamp(copy) == badges.repository()
    assert contents(copy) == before, "what is committed is stamped; run make badges"
    assert badges.stamp(copy, "some-one/an.other") == badges.repository(copy) == "some-one/an.other"
    changed = contents(copy)
    assert all(changed[file] != before[file] for file in before)
    assert not any("owner/name" in text.replace("REPO=owner/name", "") for text in changed.values())
    assert badges.stamp(copy) == "some-one/an.other" and contents(copy) == changed
    badges.stamp(copy, badges.repository())
    assert contents(copy) == before
    with pytest.raises(SystemExit, match="not of the form owner/name"):
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


def test_a_drive_that_is_not_mounted_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "DRIVE", tmp_path / "drive")
    place = str(tmp_path / "drive" / "MyDrive" / "mgrpo")
    with pytest.raises(ConfigError, match="not mounted; run this first: from google.colab import drive"):
        load_config("smoke", output_root=place)
    (tmp_path / "drive" / "MyDrive").mkdir(parents=True)
    assert load_config("smoke", output_root=place).results.is_relative_to(place)
