"""Base models of several doses: what they learn from, and that measuring the fix rate leaves a training as it was."""

import random

import papermill
import pytest

from mgrpo_lib.experiment.controls import examine
from mgrpo_lib.experiment.jobs import NOTEBOOKS, list_jobs
from mgrpo_lib.experiment.preflight import manifest_of as preflight_manifest
from mgrpo_lib.experiment.preflight import preflight
from mgrpo_lib.experiment.settings import ConfigError, load_config
from mgrpo_lib.experiment.store import read_json, read_jsonl, read_records
from mgrpo_lib.experiment.train import train, train_base
from mgrpo_lib.method.prompts import PHRASES
from mgrpo_lib.report import dose
from mgrpo_lib.report.preflight import facts as preflight_facts
from mgrpo_lib.tasks import miniature


def _records(cfg) -> list[dict]:
    manifest = preflight_manifest(cfg, "blanks")
    return read_records(manifest, read_json(manifest)["key"])


def _fixed_in_texts(fix_rate: float) -> float:
    """Share of wrong guesses that the second attempts in base texts fix."""
    rng, wrong, fixed = random.Random(0), 0, 0
    while wrong < 400:
        prompt, completion = miniature.base_text(rng, PHRASES, fix_rate=fix_rate)
        if "?=" in prompt and "=0</think>" not in prompt:
            wrong += 1
            fixed += "=0</think>" in completion
    return fixed / wrong


@pytest.mark.parametrize("fix_rate", [0.0, 0.4, 1.0])
def test_texts_fix_the_share_that_is_asked_for(fix_rate):
    assert _fixed_in_texts(fix_rate) == pytest.approx(fix_rate, abs=0.08)


def test_a_measured_training_is_the_same_training(tmp_path):
    small = {"max_steps": 2, "validation_problems": 10, "checkpoint_steps": 1}
    runs = {
        steps: load_config("smoke", arm="mgrpo", probe_steps=steps, output_root=str(tmp_path / str(steps)), **small)
        for steps in (0, 1)
    }
    for run in runs.values():
        train(run)
    plain, probed = (read_jsonl(run.run_folder / "metrics.jsonl") for run in runs.values())
    for row in (*plain, *probed):
        del row["step_time"]
    assert plain == probed
    rows = read_jsonl(runs[1].run_folder / "fix_rate.jsonl")
    assert [row["step"] for row in rows] == [0, 1, 2] and all(0 <= row["fix_rate"] <= 1 for row in rows)


def test_a_base_model_has_its_own_folder_and_keys():
    cfg = load_config("dose", arm="base")
    folders = {cfg.of_base(base).of_arm("mgrpo").run_folder for base in cfg.bases}
    assert len(folders) == len(cfg.bases) and cfg.results not in {folder.parents[1] for folder in folders}
    with pytest.raises(ConfigError, match="fix_1"):
        load_config("dose", base="fix_1")


def test_every_base_model_has_its_jobs_and_the_comparison_needs_them_all():
    cfg = load_config("dose", arm="base", seeds=[20])
    jobs = list_jobs(cfg, {})
    assert len({job.output for job in jobs}) == len(jobs) == len(cfg.bases) * (1 + 1 + 4 + 1) + 1
    assert jobs[-1].notebook == "10_when" and jobs[-1].needs == jobs[:-1]
    assert {job.parameters["settings"].get("base") for job in jobs[:-1]} == set(cfg.bases)
    assert {job.kind for job in jobs if job.notebook == "04_mgrpo"} == {"04_mgrpo", "04_mgrpo_long"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two base models, every arm for a step or two, tested on a few problems: as `make reproduce PROFILE=dose` does it."""
    arms = {
        "mgrpo": {"max_steps": 1},
        "grpo_matched": {"num_layers": 1, "match_tokens_of": "mgrpo"},
        "mgrpo_long": {"max_steps": 2},
        "grpo_matched_long": {"num_layers": 1, "match_tokens_of": "mgrpo_long"},
    }
    bases = {"low": {"base_fix_rate": 0.0}, "high": {"base_fix_rate": 0.6}}
    small = {"test_problems": 8, "validation_problems": 12, "probe_steps": 1, "base_steps": 2, "seeds": [20]}
    sizes = {"prompts_per_step": 2, "micro_batch_size": 16, "checkpoint_steps": 0}
    where = str(tmp_path_factory.mktemp("dose"))
    settings = {"bases": bases, "arms": arms, **small, **sizes}
    cfg = load_config("dose", arm="base", output_root=where, **settings)
    for base in map(cfg.of_base, cfg.bases):
        train_base(base)
        preflight(base, "blanks", base.validation_problems)
        examine(base)
        for arm in base.arms:
            train(base.of_arm(arm, 20))
        examine(base.of_arm("mgrpo", 20))
    return cfg, settings


@pytest.fixture
def tiny(made):
    return made[0]


def test_the_pipelines_last_notebook_compares_them(made, tmp_path):
    cfg, settings = made
    last = list_jobs(cfg, settings)[-1]
    assert not last.fulfilled()
    place, how = tmp_path / "10.ipynb", {"cwd": NOTEBOOKS, "kernel_name": "python3"}
    papermill.execute_notebook(NOTEBOOKS / "10_when.ipynb", place, last.parameters, **how)
    assert last.fulfilled()


def test_base_models_are_compared(tiny):
    content = dose.summarise(tiny)
    assert dose.summarise(tiny.of_arm("mgrpo", 0)) == content, "whatever arm and seed are asked for"
    assert [row["base"] for row in content["rows"]] == ["low", "high"]
    for row in content["rows"]:
        records = _records(tiny.of_base(row["base"]))
        wrong = [one["correct_2"] for one in records if not one["correct_1"][0]]
        assert row["dose"] == pytest.approx(sum(map(sum, wrong)) / sum(map(len, wrong)))
        assert row["dose_ci"][0] <= row["dose"] <= row["dose_ci"][1]
        assert [one["step"] for one in row["mgrpo_long"]["fix_rates"][0]] == [0, 1, 2]
        gain = row["mgrpo"]["accuracy"] - row["mgrpo"]["baseline"]
        assert row["mgrpo"]["gain"] == pytest.approx(gain)
    assert list_jobs(tiny, {})[-1].fulfilled()
    assert (tiny.results / "dose.md").read_text().count("\n") == 4 and (tiny.figures / "dose.png").exists()


def test_a_preflight_says_what_its_records_say(tiny):
    cfg = tiny.of_base("high")
    found = preflight_facts(preflight(cfg, "blanks", cfg.validation_problems))
    records = _records(cfg)
    wrong = [one for one in records if not one["correct_1"][0]]
    assert found["wrong_drafts"] == len(wrong) == found["complete"] + found["unfinished"]
    tries = [right for one in wrong for right in one["correct_1"][1:]]
    assert found["second_try"][0] == pytest.approx(sum(tries) / len(tries))
    difference = found["fix"][0] - found["second_try"][0]
    assert found["look_minus_try"][0] == pytest.approx(difference)
    mixed = [0 < sum(one["correct_2"]) < len(one["correct_2"]) for one in records]
    assert found["signal_2"][0] == pytest.approx(sum(mixed) / len(mixed))
