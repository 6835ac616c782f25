"""The committed reference results: made by the committed code, and README shows exactly them."""

import shutil

import pytest

from mgrpo_lib import report, store
from mgrpo_lib.config import ROOT, load_config

CFG = load_config("cpu", arm="base")
SUMMARY = ROOT / "results" / "cpu" / "summary.json"


@pytest.fixture(scope="module")
def summary():
    return store.read_json(SUMMARY)


def test_made_by_this_code_with_these_parameters(summary):
    assert summary["environment"]["code_version"] == store.CODE_VERSION, (
        "the experiment's code changed: make reproduce PROFILE=cpu, and commit"
    )
    assert summary["key"] == store.summary_key(CFG)
    for run in store.all_runs(CFG):
        manifest = store.read_json(run.run_folder / "run.json")
        assert manifest["key"] == store.run_key(run)
        assert manifest["environment"]["code_version"] == store.CODE_VERSION


def test_tables_and_readme_are_generated_from_it(summary, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text((ROOT / "README.md").read_text(encoding="utf-8"), encoding="utf-8")
    assert "<!-- results -->" in readme.read_text(encoding="utf-8")
    assert not report.update_readme(CFG, readme), "README is not up to date: make figures PROFILE=cpu"
    for name, table in report.TABLES.items():
        assert (SUMMARY.parent / f"{name}.md").read_text(encoding="utf-8") == report.markdown(table(summary))


def test_summary_follows_from_the_committed_records(summary, tmp_path):
    """Every row, interval and contrast, computed again from the records in another folder."""
    shutil.copytree(CFG.results, tmp_path / "results" / "cpu", ignore=shutil.ignore_patterns("model", "*.ipynb"))
    (tmp_path / "results" / "cpu" / "summary.json").unlink()
    again = report.summarise(load_config("cpu", arm="base", output_root=str(tmp_path)))
    assert again == summary


def test_every_arm_learnt_and_left_headroom(summary):
    rows = {(row["arm"], row["benchmark"]): row for row in summary["rows"]}
    base = rows["base", "chains"]["acc_t1"]
    assert 0.25 <= base <= 0.60
    for arm in CFG.arms:
        assert len(rows[arm, "chains"]["acc_t1_seeds"]) >= 3
        assert all(accuracy >= base + 0.20 for accuracy in rows[arm, "chains"]["acc_t1_seeds"])
    chains = [benchmark for benchmark in CFG.benchmarks if benchmark != "blanks"]
    assert all(rows[arm, benchmark]["acc_t1"] < 1 for arm in CFG.arms for benchmark in chains)


def test_matched_arm_generated_as_many_tokens(summary):
    for seed in CFG.seeds:
        tokens = {arm: summary["runs"][f"{arm}-seed{seed}"]["train_tokens"] for arm in ("mgrpo", "grpo_matched")}
        assert abs(tokens["grpo_matched"] / tokens["mgrpo"] - 1) <= 0.02
