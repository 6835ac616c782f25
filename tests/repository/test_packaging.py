"""Lock, ranges, conda environment and licences agree; set-up names the fix; no file names a host or a machine."""

import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from mgrpo_lib.experiment.settings import ROOT
from tests.conftest import changed_results
from tests.repository.sources import read_source

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FILES = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
NOT_TEXT = (".png", ".svg", ".gz", ".safetensors")


def locked() -> dict[str, str]:
    pins = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", pin) for pin in pins), "no hosts, no build tags, no markers"
    assert len(dict(pin.split("==") for pin in pins)) == len(pins), "one pin for a package"
    return dict(pin.split("==") for pin in pins)


def test_the_lock_satisfies_the_ranges_and_its_licences_are_listed():
    pins = locked()
    for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]:
        requirement = Requirement(text)
        assert Version(pins[canonicalize_name(requirement.name)]) in requirement.specifier, f"{text}: run make lock"
    table = (ROOT / "LICENCES.md").read_text(encoding="utf-8").split("|---|\n")[-1].splitlines()
    listed = {canonicalize_name(row.split(" | ")[0].strip("| ")): row.split(" | ")[1] for row in table}
    assert listed == pins, "run make licences"


def test_conda_installs_the_lock_on_the_same_pythons():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert {"-r requirements.lock", "-e ."} <= set(environment[-1]["pip"])
    assert SpecifierSet(environment[0].removeprefix("python")) == SpecifierSet(PROJECT["requires-python"])


@pytest.mark.parametrize(
    ("python", "environment", "messages"),
    [
        ('[ "$*" = --version ] && echo "Python 3.9.2" || exit 1', {}, ("3.11 or 3.12", "Python 3.9.2")),
        ("exit 0", {"PYTHON": "/no/such/python"}, ("/no/such/python", "PYTHON=")),
        ('case "$*" in *ensurepip*) exit 1;; esac', {}, ("venv", "apt-get install")),
        ("exit 0", {"MGRPO_SETUP_GB": "99999999"}, ("99999999", "disk")),
    ],
)
def test_setup_names_the_fix_in_one_line(tmp_path, python, environment, messages):
    for folder in ("tools", "bin"):
        (tmp_path / folder).mkdir()
    script = shutil.copy(ROOT / "tools" / "setup.sh", tmp_path / "tools")
    for name in ("python3", "python3.11", "python3.12"):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{python}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    full = {key: value for key, value in os.environ.items() if key != "PYTHON"}
    full |= {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", **environment}
    done = subprocess.run(["/bin/sh", script], env=full, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1
    assert all(message in done.stderr for message in messages), done.stderr
    assert not (tmp_path / ".venv").exists()


def test_no_file_names_a_machine_or_a_host():
    paths = [ROOT / name for name in FILES if not name.startswith("tests/")]
    for path in paths:
        if path.exists() and path.suffix not in NOT_TEXT:
            text = read_source(path)
            assert not re.search(r"(^|[\s\"'=(])/(home|root|work|tmp)/", text), f"{path} names a path of one machine"
            assert not re.search(r"--(extra-)?index-url|--find-links", text), f"{path} names a package host"


def test_scripts_have_no_carriage_returns():
    assert not [
        name for name in FILES if name.endswith((".sh", "/run", "Makefile")) and b"\r" in (ROOT / name).read_bytes()
    ]


def test_nothing_read_is_run_as_code():
    """Ruff's S rules refuse eval, shells, pickle and yaml.load; these arguments they do not know."""
    unsafe = r"trust_remote_code\s*=\s*True|allow_pickle\s*=\s*True|weights_only\s*=\s*False"
    paths = [*(ROOT / "mgrpo_lib").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]
    texts = {path: path.read_text(encoding="utf-8") for path in paths}
    assert not [path for path, text in texts.items() if re.search(unsafe, text)]
    assert not [path for path, text in texts.items() if "torch.load(" in text and "weights_only=True" not in text]


@pytest.mark.parametrize("given, kept", [({}, "1"), ({"TORCH_CUDNN_SDPA_DEPRIORITIZED": "0"}, "0")])
def test_the_attention_with_wrong_gradients_comes_last_unless_told_otherwise(given, kept):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TORCH_")} | given
    code = "import os, mgrpo_lib; print(os.environ['TORCH_CUDNN_SDPA_DEPRIORITIZED'])"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert said.stdout.strip() == kept


def test_changed_results_are_named_and_a_folder_without_git_has_none(tmp_path):
    def git(*arguments: str) -> None:
        call = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        subprocess.run(call, check=True, capture_output=True)

    for name in ("results/cpu/summary.json", "docs/robustness.md", "README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("as committed")
    assert changed_results(tmp_path) == []
    git("init")
    git("add", ".")
    git("commit", "-m", "all")
    assert changed_results(tmp_path) == []
    for name in ("results/cpu/summary.json", "results/cpu/new.json", "README.md"):
        (tmp_path / name).write_text("changed")
    assert changed_results(tmp_path) == ["results/cpu"]


def test_the_picture_of_the_architecture_shows_the_imports_of_the_code():
    pytest.importorskip("grimp", reason="run make setup")
    from tools.architecture import PICTURE, arrows

    drawn = re.findall(r'id="([a-z]+)-([a-z]+)"', PICTURE.read_text(encoding="utf-8"))
    assert set(drawn) == set(arrows()), "run make architecture"


@pytest.mark.slow
def test_the_pages_build_without_a_warning(tmp_path):
    pytest.importorskip("myst_nb", reason="run make setup")
    call = [sys.executable, "-m", "sphinx", "-q", "-W", ROOT / "docs", tmp_path / "html"]
    subprocess.run(call, env={**os.environ, "RESULTS": str(tmp_path)}, check=True, timeout=300)
    pages = {path.stem for path in tmp_path.rglob("*.html")}
    sources = [*(ROOT / "docs").glob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]
    assert {path.stem for path in sources} <= pages
