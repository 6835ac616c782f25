"""Lock, ranges and conda environment agree; the set-up script names the mend for what is missing; nothing names a host
or a machine.
"""

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
from packaging.version import Version

from mgrpo_lib.experiment.settings import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", pin) for pin in pins), (
        "one exact pin a line, no hosts, no build tags"
    )
    return dict(pin.split("==") for pin in pins)


def test_lock_satisfies_the_ranges():
    pins = locked()
    for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]:
        requirement = Requirement(text)
        name = requirement.name.lower().replace("_", "-")
        assert name in pins, f"{name} is not in requirements.lock; run make lock"
        assert Version(pins[name]) in requirement.specifier, f"{name}=={pins[name]} is outside {requirement.specifier}"


def test_conda_environment_installs_the_lock_on_the_same_pythons():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert "-r requirements.lock" in pip and "-e ." in pip
    python = next(
        entry for entry in environment["dependencies"] if isinstance(entry, str) and entry.startswith("python")
    )
    assert SpecifierSet(python.removeprefix("python")) == SpecifierSet(PROJECT["requires-python"])
    for version in ("3.11", "3.12"):
        assert Version(version) in SpecifierSet(PROJECT["requires-python"])


def setup(tmp_path, path: str, **environment) -> subprocess.CompletedProcess:
    (tmp_path / "tools").mkdir(exist_ok=True)
    shutil.copy(ROOT / "tools" / "setup.sh", tmp_path / "tools" / "setup.sh")
    full = {**os.environ, "PATH": path, **environment}
    full.pop("PYTHON", None) if "PYTHON" not in environment else None
    return subprocess.run(
        ["/bin/sh", str(tmp_path / "tools" / "setup.sh")], env=full, capture_output=True, text=True, timeout=60
    )


def fake_python(folder, body: str) -> str:
    folder.mkdir(exist_ok=True)
    for name in ("python3", "python3.11", "python3.12"):
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


@pytest.mark.parametrize(
    ("body", "environment", "message"),
    [
        (
            'case "$*" in --version) echo "Python 3.9.2";; *) exit 1;; esac',
            {},
            "Python 3.11 or 3.12 is needed, found: Python 3.9.2",
        ),
        ("exit 0", {"PYTHON": "/no/such/python"}, "found: /no/such/python"),
        ('case "$*" in *ensurepip*) exit 1;; *) exit 0;; esac', {}, "no venv module. Install it"),
        ("exit 0", {"MGRPO_SETUP_GB": "99999999"}, "99999999 are needed. Free some"),
    ],
)
def test_setup_names_the_mend_in_one_line(tmp_path, body, environment, message):
    done = setup(tmp_path, fake_python(tmp_path / "bin", body), **environment)
    assert done.returncode == 1
    assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / ".venv").exists()


def test_no_file_names_a_machine_or_a_host():
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in names:
        path = ROOT / name
        if path.suffix in (".png", ".svg", ".gz", ".safetensors") or name.startswith("tests/") or not path.exists():
            continue
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(^|[\s\"'=(])/(home|root|work|tmp)/", text), f"{name} names a path of one machine"
        assert not re.search(r"--(extra-)?index-url|--find-links", text), f"{name} names a package host"


@pytest.mark.parametrize("given, kept", [({}, "1"), ({"TORCH_CUDNN_SDPA_DEPRIORITIZED": "0"}, "0")])
def test_the_library_puts_the_attention_with_wrong_gradients_last_unless_told_otherwise(given, kept):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TORCH_")} | given
    code = "import os, mgrpo_lib; print(os.environ['TORCH_CUDNN_SDPA_DEPRIORITIZED'])"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert said.stdout.strip() == kept
