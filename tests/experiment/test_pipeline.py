"""The whole pipeline in small, as a user runs it: `python -m mgrpo_lib reproduce --profile smoke`, then the same again,
then other settings.
"""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from mgrpo_lib.experiment import jobs, keys, pipeline, store, versions
from mgrpo_lib.experiment.jobs import list_jobs
from mgrpo_lib.experiment.settings import ROOT, ConfigError, load_config
from mgrpo_lib.report import tables as report
from mgrpo_lib.report.figures import FIGURES
from tests.experiment.kill_pipeline import descendants, kernels


def call(*arguments: str, timeout: int = 600) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "mgrpo_lib", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=timeout
    )


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("smoke")
    done = call("reproduce", "--profile", "smoke", "--out", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| benchmark | arm |" in done.stdout and "to go" in done.stdout
    return folder


@pytest.fixture(scope="module")
def summary(out) -> dict:
    return json.loads((out / "results" / "smoke" / "summary.json").read_text())


@pytest.fixture(scope="module")
def cfg(out):
    return load_config("smoke", arm="base", output_root=str(out))


def test_summary_keeps_its_contract(summary, cfg):
    assert {"profile", "params", "environment", "rows"} <= set(summary)
    expected = {(arm, benchmark) for arm in ("base", *cfg.arms) for benchmark in cfg.benchmarks}
    assert {(row["arm"], row["benchmark"]) for row in summary["rows"]} == expected
    for row in summary["rows"]:
        assert row["n"] == cfg.test_problems
        assert row["seeds"] == ([] if row["arm"] == "base" else cfg.seeds)
        assert row["acc_t2"] == pytest.approx(row["acc_t1"] + row["i_to_c"] - row["c_to_i"], abs=1e-9)
        for name in ("acc_t1", "acc_t2", "delta_t1_t2", "i_to_c", "c_to_i"):
            low, high = row[f"{name}_ci"]
            assert low - 1e-9 <= row[name] <= high + 1e-9
        assert (row["train_tokens"] == 0) == (row["arm"] == "base")
    assert summary["params"]["max_steps"] == 4 and summary["params"]["arms"]["grpo"] == {"num_layers": 1}
    assert summary["environment"]["training_version"] == versions.TRAINING_VERSION
    assert set(summary["environment"]["packages"]) == set(store.PACKAGES)


def test_summary_is_what_the_records_say(out, summary, cfg):
    """An independent few lines from the records to the table's numbers."""
    for row in summary["rows"]:
        name = "base" if row["arm"] == "base" else f"{row['arm']}-seed0"
        content = gzip.decompress((out / "results" / "smoke" / "records" / f"{name}.jsonl.gz").read_bytes()).decode()
        lines = [json.loads(line) for line in content.splitlines()]
        own = [line for line in lines if line["benchmark"] == row["benchmark"]]
        assert len(own) == row["n"] == len({line["id"] for line in own})
        assert row["acc_t1"] == pytest.approx(sum(line["correct_1"] for line in own) / len(own))
        assert row["i_to_c"] == pytest.approx(
            sum(line["correct_2"] and not line["correct_1"] for line in own) / len(own)
        )
        for line in own:
            for k in (1, 2):
                assert line[f"correct_{k}"] == (line[f"answer_{k}"] == line["gold"])
                assert 1 <= line[f"tokens_{k}"] <= cfg.max_completion_length


def test_training_moved_the_weights_and_recorded_its_parameters(out, cfg):
    for arm, changes in cfg.arms.items():
        run = cfg.of_arm(arm, 0)
        manifest = json.loads((run.run_folder / "run.json").read_text())
        assert manifest["weight_change"] > 0
        assert manifest["key"] == keys.run_key(run)
        assert manifest["train_tokens"] > 0 and manifest["steps"] >= 1
        for name, value in changes.items():
            assert manifest["params"][name] == value
        steps = [json.loads(line) for line in (run.run_folder / "metrics.jsonl").read_text().splitlines()]
        assert len(steps) == manifest["steps"]
        assert steps[-1]["generated_tokens"] == manifest["train_tokens"]
        assert ("layer2/reward" in steps[0]) == (run.num_layers == 2)


def test_arms_start_equal_and_the_matched_one_ends_at_the_same_tokens(cfg):
    manifests = {arm: store.read_json(cfg.of_arm(arm, 0).run_folder / "run.json") for arm in cfg.arms}
    assert len({manifest["base_key"] for manifest in manifests.values()}) == 1
    assert len({manifest["training_set"] for manifest in manifests.values()}) == 1
    tokens = {arm: manifest["train_tokens"] for arm, manifest in manifests.items()}
    a_step = tokens["grpo_matched"] / manifests["grpo_matched"]["steps"]
    assert abs(tokens["grpo_matched"] - tokens["mgrpo"]) <= a_step / 2 + 1, "the budget is met to the nearest step"
    assert tokens["grpo"] < 0.7 * tokens["mgrpo"]


def test_the_4bit_arm_left_an_adapter_that_loads(cfg):
    from mgrpo_lib.experiment.models import load_policy

    run = cfg.of_arm("mgrpo_nf4", 0)
    assert (run.run_folder / "model" / "adapter_config.json").exists()
    model, _ = load_policy(run)
    assert any("uint8" in str(p.dtype) for p in model.parameters())


def test_executed_copies_tables_and_figures_are_there(out, cfg):
    results, figures = out / "results" / "smoke", out / "figures" / "smoke"
    for job in list_jobs(cfg, {}):
        assert job.output.exists(), job.name
        text = job.output.read_text()
        assert "output_type" in text and '"error"' not in text
        assert "image/png" in text, "figures show in the copies"
    for name in set(report.TABLES) - {"warnings"}:  # a calm run has none
        assert (results / f"{name}.md").read_text().startswith("| ") and (results / f"{name}.csv").exists()
        assert "\\bottomrule" in (results / f"{name}.tex").read_text()
    assert set(json.loads((figures / "captions.json").read_text())) == set(FIGURES)
    for name in FIGURES:
        for kind in ("png", "svg"):
            assert (figures / f"{name}.{kind}").stat().st_size > 5000
    assert not list(out.rglob("*.partial*")) and not list(results.rglob("*.running.ipynb"))


def test_a_second_call_does_nothing_and_says_so(out, cfg):
    def written():
        return {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file() and path.name != ".lock"}

    before = written()
    start = time.monotonic()
    done = call("reproduce", "--profile", "smoke", "--out", str(out))
    assert done.returncode == 0 and "10 of 10 steps" in done.stdout and "Everything is there" in done.stdout
    assert time.monotonic() - start < 10
    assert before == written()


def test_a_folder_that_is_in_use_is_for_its_owner_and_the_owners_notebooks_alone(out, monkeypatch):
    """The lock names its owner, and is free again once that is gone, killed or not."""
    code = "import sys, time; from pathlib import Path; from mgrpo_lib.experiment.store import only_one\n"
    code += "with only_one(Path(sys.argv[1])): print('mine', flush=True); time.sleep(60)"
    owner = subprocess.Popen(
        [sys.executable, "-c", code, str(out / "results" / "smoke")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout.readline() == "mine\n"
    second = call("reproduce", "--profile", "smoke", "--out", str(out))
    assert second.returncode == 2 and f"is in use by process {owner.pid} on " in second.stderr
    assert "OUT=folder" in second.stderr
    folder = out / "results" / "smoke"
    with (
        pytest.raises(ConfigError, match=f"in use by process {owner.pid} on .* since 20.*output_root"),
        store.only_one(folder),
    ):
        pass  # a notebook run by hand
    monkeypatch.setenv(store.CHAIN, str(owner.pid))
    with store.only_one(folder), store.only_one(folder):
        pass  # a notebook of that pipeline
    monkeypatch.setenv(store.CHAIN, str(os.getpid()))
    with pytest.raises(ConfigError, match="in use"), store.only_one(folder):
        pass  # of another
    owner.kill()
    owner.wait()
    assert call("reproduce", "--profile", "smoke", "--out", str(out)).returncode == 0


def test_a_changed_parameter_never_reuses_an_old_result(out, monkeypatch):
    def done(**changes) -> set[str]:
        cfg = load_config("smoke", arm="base", output_root=str(out), **changes)
        return {job.name for job in list_jobs(cfg, changes) if job.done()}

    def outdated(**changes) -> dict[str, list[str]]:
        cfg = load_config("smoke", arm="base", output_root=str(out), **changes)
        return jobs.outdated([job for job in list_jobs(cfg, changes) if not job.done()])

    everything = done()
    assert len(everything) == 10
    assert done(learning_rate=0.5) == {"01_data", "02_base_model", "05_base"}
    assert done(base_steps=151) == {"01_data"}
    trained = {name for name in everything if name[:2] in ("02", "03", "04")}
    assert done(test_problems=21) == trained
    assert done(eval_phrase=2) == trained | {"01_data"}

    # and says which are old, and why as far as that is known
    trained = ["04_mgrpo-seed0", "03_grpo-seed0", "04_mgrpo_nf4-seed0", "03_grpo_matched-seed0"]
    assert outdated() == {}
    rest = {"what they are made from": ["05_seed0"]}
    assert outdated(learning_rate=0.5) == {"other learning_rate": [*trained, "06_figures"]} | rest
    unknown, rest = "other settings, data or code", rest | {"other test_problems": ["06_figures"]}
    assert outdated(test_problems=21) == {unknown: ["01_data", "05_base"]} | rest
    assert outdated(seeds=[1]) == {"other seeds": ["06_figures"]}, "what was never made is not old"
    monkeypatch.setitem(versions.NAMES["evaluation"], 1, "feed")
    monkeypatch.setattr(versions, "EVALUATION_VERSION", 2)
    evaluated = ["05_base", "05_seed0", "06_figures"]
    assert list(outdated().values()) == [evaluated] and "evaluation version 1, now 2" in str(outdated())
    monkeypatch.setitem(versions.NAMES["training"], 1, "beef")
    monkeypatch.setattr(versions, "TRAINING_VERSION", 2)
    old = "training version 1, now 2"
    assert outdated() == {old: ["02_base_model", "05_base", *trained, "05_seed0", "06_figures"]}


def test_old_steps_are_named_before_anything_starts(out, monkeypatch, capsys):
    started = []
    monkeypatch.setattr(pipeline, "_run", lambda pending, workers: started.extend(pending))
    assert pipeline.reproduce("smoke", {"learning_rate": 0.5}, out=str(out)) == 1
    text = capsys.readouterr().out
    assert "3 of 10 steps" in text and len(started) == 7 and "OUT=another_folder" in text
    names = "04_mgrpo-seed0, 03_grpo-seed0, 04_mgrpo_nf4-seed0 and 2 more"
    assert f"{names} (other learning_rate); 05_seed0 (what they are made from)" in text


@pytest.mark.parametrize("name", ["base", pytest.param("seed0", marks=pytest.mark.slow)])
def test_only_what_is_missing_is_made_again_and_the_rest_follows(name, out):
    results = out / "results" / "smoke"
    runs = ("base",) if name == "base" else ("grpo-seed0", "mgrpo-seed0")
    made = [results / kind / f"{run}.jsonl.gz" for kind in ("records", "samples") for run in runs]
    made.append(results / "controls" / f"{name}.jsonl.gz")
    before = [path.read_bytes() for path in made]
    (results / "runs" / f"05_{name}.ipynb").unlink()
    done = call("reproduce", "--profile", "smoke", "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "9 of 10 steps" in done.stdout, "the evaluation alone; the summary still holds"
    assert [path.read_bytes() for path in made] == before, (
        "the same model and code give the same attempts, to the letter"
    )
    assert all(job.done() for job in list_jobs(load_config("smoke", arm="base", output_root=str(out)), {}))


def test_a_failing_notebook_is_named_and_what_was_there_stays(out, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    (copy / "results" / "smoke" / "runs" / "05_base.ipynb").unlink()
    shutil.rmtree(copy / "results" / "smoke" / "runs" / "base" / "model")
    done = call("reproduce", "--profile", "smoke", "--out", str(copy))
    assert done.returncode == 1
    assert "FAILED  05_base" in done.stdout and "not trained with these parameters" in done.stdout
    assert (copy / "results" / "smoke" / "runs" / "05_base.failed.ipynb").exists()
    assert store.read_json(copy / "results" / "smoke" / "records" / "base.json")["arm"] == "base", "given back"


@pytest.mark.slow
def test_in_a_full_or_closed_folder_it_says_so_and_with_room_the_same_command_continues(out, own_mounts, tmp_path):
    script = [sys.executable, str(ROOT / "tests" / "experiment" / "full_pipeline.py"), str(out), str(tmp_path)]
    done = subprocess.run([*own_mounts, *script], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    found = store.read_json(tmp_path / "found.json")
    assert not any("Traceback" in text for _, text, _ in found.values())
    codes = {"closed": 2, "full from the start": 2, "no room for a notebook": 1, "room again": 0}
    assert {name: code for name, (code, _, _) in found.items()} == codes
    for name, (code, text, torn) in found.items():
        assert not torn, f"{name} left {torn}"
        assert code == 0 or "OUT=folder" in text, name
    assert "Read-only file system" in found["closed"][1]
    text = found["full from the start"][1]
    assert "No space left on device" in text and "0 GB free" in text
    text = found["no room for a notebook"][1]
    assert "8 of 10 steps" in text and "done    01_data" in text
    assert "FAILED  00_overview" in text and "No space left on device" in text and "GB free" in text
    text = found["room again"][1]
    assert "9 of 10 steps" in text and "done    00_overview" in text, "what was finished stays"


def begin(out: Path) -> subprocess.Popen:
    """A pipeline whose next notebook has a kernel."""
    command = [sys.executable, "-m", "mgrpo_lib", "reproduce", "--profile", "smoke", "--out", str(out)]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # a job in the background of a shell ignores it
    )
    while not kernels(process.pid):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    return process


@pytest.mark.slow
def test_stopped_or_without_its_kernel_it_says_so_and_the_same_command_continues(out, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    for _ in range(5):  # on a busy machine the notebook may have ended before it is stopped
        (copy / "results" / "smoke" / "runs" / "01_data.ipynb").unlink()
        process = begin(copy)
        left = list(descendants(process.pid))
        os.killpg(process.pid, signal.SIGINT)  # what Ctrl-C does
        text, _ = process.communicate(timeout=60)
        if process.returncode != 0:
            break
    assert process.returncode == 130 and "Traceback" not in text, text
    assert "Stopping 01_data" in text
    assert not psutil.wait_procs(left, timeout=30)[1], "no kernel is left"

    process = begin(copy)
    (kernel,) = kernels(process.pid)
    kernel.kill()  # as a system short of memory does
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 1 and "Traceback" not in text
    assert "FAILED  01_data: its kernel" in text and "WORKERS=1" in text

    done = call("reproduce", "--profile", "smoke", "--out", str(copy))
    assert done.returncode == 0 and "done    01_data" in done.stdout, done.stdout + done.stderr


def test_figures_are_redrawn_without_torch(out):
    (out / "figures" / "smoke" / "attempts.png").unlink()
    code = (
        "import sys; sys.argv = ['mgrpo_lib', 'figures', '--profile', 'smoke', '--out', sys.argv[1]]\n"
        "from mgrpo_lib.__main__ import main; assert main() == 0\n"
        "loaded = {'torch', 'transformers', 'trl', 'datasets', 'peft'} & set(sys.modules); sys.exit(str(loaded) if loaded else 0)"
    )
    before = (out / "results" / "smoke" / "summary.json").read_text()
    done = subprocess.run([sys.executable, "-c", code, str(out)], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (out / "figures" / "smoke" / "attempts.png").exists()
    assert (out / "results" / "smoke" / "summary.json").read_text() == before
