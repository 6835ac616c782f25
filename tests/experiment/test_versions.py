"""What makes results is versioned: an edit that is neither shown to be equal nor a new version fails here."""

import json
import subprocess
import sys

import pytest

from mgrpo_lib.experiment import keys, store, versions
from mgrpo_lib.experiment.settings import ROOT, load_config

# The code's hash at the version it stands for. The code changed? Either show that results are equal to the byte (profile cpu
# and one NF4 training, before and after) and record the new hash, or bump the version in versions.py and CHANGELOG
RECORDED = {"training": (1, "ffb5d49c8f02"), "evaluation": (1, "e489915507f0")}


@pytest.mark.parametrize("kind", RECORDED)
def test_the_code_is_the_version_that_it_claims_to_be(kind):
    current = {"training": versions.TRAINING_VERSION, "evaluation": versions.EVALUATION_VERSION}[kind]
    assert (current, versions.code_hash(kind)) == RECORDED[kind], (
        f"{kind} code changed: bump its version, or show equality"
    )
    assert f"{kind} version {current}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").lower()


def test_moving_a_function_to_another_file_changes_no_key_and_no_hash(tmp_path):
    one = ["import os\n\ndef f(x):\n    return x + 1\n\n\ndef g(x):\n    return f(x)\n", "A = 1\n"]
    two = [
        '"""Doc."""\nfrom a import f\n\n\ndef g(x):\n    "says"\n    return f(x)\n',
        "A = 1\n\n\ndef f(x):  # why\n    return x + 1\n",
    ]
    assert versions.hash_of(one) == versions.hash_of(two)
    assert versions.hash_of(one) != versions.hash_of([one[0].replace("+ 1", "+ 2"), one[1]])
    # a copy of the library whose trainer has lost a function to a file of another name
    code = "from mgrpo_lib.experiment import keys as f; from mgrpo_lib.experiment.settings import load_config as c; "
    code += "cfg = c('cpu', arm='mgrpo', seed=10); print(f.run_key(cfg), f.evaluation_key(cfg), f.summary_key(cfg))"
    subprocess.run(["cp", "-r", ROOT / "mgrpo_lib", ROOT / "profiles", tmp_path], check=True)
    moved = tmp_path / "mgrpo_lib" / "method" / "drafts.py"
    (moved.with_name("elsewhere.py")).write_text(moved.read_text(encoding="utf-8"), encoding="utf-8")
    moved.write_text("from mgrpo_lib.method.elsewhere import *\n", encoding="utf-8")
    said = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True, env={}
        ).stdout
        for folder in (ROOT, tmp_path)
    ]
    assert said[0] == said[1] and len(said[0].split()) == 3


def test_a_new_version_is_another_key_and_a_report_reads_both(monkeypatch, tmp_path):
    cfg = load_config("cpu", arm="mgrpo", seed=10)
    monkeypatch.setitem(versions.NAMES["training"], 2, "a new one")
    later = versions.Versions(training=2)
    assert keys.run_key(cfg, later) != keys.run_key(cfg) == keys.run_key(cfg, versions.Versions(1, 1))
    store.write_json(tmp_path / "run.json", {"environment": {"training_version": 2, "evaluation_version": 1}})
    assert keys.made_with(tmp_path / "run.json") == later


def test_every_committed_manifest_names_its_versions():
    names = subprocess.run(
        ["git", "ls-files", "results"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    manifests = [json.loads((ROOT / name).read_text()) for name in names if name.endswith(".json")]
    made = [one["environment"] for one in manifests if "environment" in one]
    assert len(made) > 200 and all(one["training_version"] == one["evaluation_version"] == 1 for one in made)
    assert all(one["training_code"] and one["evaluation_code"] for one in made), "provenance stays"
