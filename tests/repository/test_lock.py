"""The lock is what is installed, whole, and no more than is needed; each of its licences is listed; how an audit is read."""

from importlib import metadata

import pytest

from mgrpo_lib.experiment.settings import ROOT
from tools import audit, colab, lock, newest
from tools.licences import NONE, licence_of, table

PINS = colab.pinned()


def test_what_is_installed_is_what_is_locked():
    for name, version in PINS.items():
        assert metadata.version(name).split("+")[0] == version, f"{name}: run make setup, or make lock after an upgrade"


def test_every_package_of_the_lock_is_needed_and_every_needed_one_is_locked():
    needed = lock.needed(lock.declared(), metadata.requires)
    assert not PINS.keys() - needed.keys(), "nothing asks for these; remove them from .venv and run make lock"
    missing = {name: asker for name, asker in needed.items() if name not in PINS}
    assert not missing, "these are asked for by the package beside them, and not pinned"


def test_the_locked_versions_satisfy_what_the_packages_ask_of_each_other():
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    for name in PINS:
        for text in metadata.requires(name) or ():
            requirement = Requirement(text)
            asked = canonicalize_name(requirement.name)
            if asked in PINS and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
                assert requirement.specifier.contains(PINS[asked], prereleases=True), f"{name} asks for {text}"


def test_markers_and_extras_decide_what_is_needed():
    asks = {
        "a": ['b; python_version == "3.12"', 'c; python_version < "3.11"', "d[x]", 'e; sys_platform == "win32"'],
        "d": ['f; extra == "x"', 'g; extra == "y"', "nvidia-h", "a"],
    }
    found = lock.needed(["A[z]>=1"], lambda name: asks.get(name))
    assert found == {"a": "pyproject.toml", "b": "a", "d": "a", "f": "d"}


def test_every_locked_package_has_its_licence_listed():
    text = (ROOT / "LICENCES.md").read_text(encoding="utf-8")
    rows = dict(line.split(" | ")[:2] for line in text.replace("| ", "", 1).splitlines() if line.count(" | ") == 2)
    listed = {name.removeprefix("| "): version for name, version in rows.items()}
    assert {name: version for name, version in listed.items() if name != "package"} == PINS, "run make licences"
    # torch's builds, for CPUs and for CUDA, name their licences differently
    ours, theirs = ([line for line in one.splitlines() if not line.startswith("| torch ")] for one in (text, table()))
    assert ours == theirs, "run make licences"
    assert "GPL" not in text, "a licence that this repository's would have to follow, perhaps; look at it"


@pytest.mark.parametrize(
    ("lines", "licence"),
    [
        (["License-Expression: MIT", "License: BSD"], "MIT"),
        (["License: Apache 2.0", "Classifier: License :: OSI Approved :: Apache Software License"], "Apache 2.0"),
        (["License: UNKNOWN", "Classifier: License :: OSI Approved :: ISC License (ISCL)"], "ISC License (ISCL)"),
        (["License: " + "text " * 50, "Classifier: License :: OSI Approved :: BSD License"], "BSD License"),
        (["License: " + "text " * 50, "Classifier: Topic :: Software Development"], NONE),
        ([], NONE),
    ],
)
def test_how_a_licence_is_read(lines, licence):
    from email import message_from_string

    assert licence_of(message_from_string("\n".join(["Name: x", *lines]))) == licence


def test_an_audit_is_not_passed_by_what_it_could_not_look_up():
    good, gone = {"name": "a", "version": "1", "vulns": []}, {"name": "b", "skip_reason": "not found"}
    flaw = {"id": "PYSEC-1", "aliases": ["CVE-2"], "fix_versions": ["1.1"]}
    bad = {"name": "c", "version": "1", "vulns": [flaw]}
    assert audit.verdict({"dependencies": [good]}) == ("audit: 1 of 1 packages looked up, 0 known vulnerabilities", 0)
    text, code = audit.verdict({"dependencies": [good, gone]})
    assert code == 2 and "nothing is known of them: b" in text
    text, code = audit.verdict({"dependencies": [gone]})
    assert code == 2 and "nothing was looked up" in text
    text, code = audit.verdict({"dependencies": [good, gone, bad]})
    assert code == 1 and text.startswith("c 1: PYSEC-1 CVE-2, mended in 1.1")


def test_what_the_newest_versions_change():
    assert newest.changes({"a": "2", "b": "1", "n": "1"}, {"a": "1", "b": "1", "z": "1"}) == [
        "a 1 -> 2",
        "n not locked -> 1",
        "z 1 -> not needed on this Python",
    ]
