"""Which notebooks run, in which order, with what, and how long they still take; nothing is run here."""

import os
import shlex
import subprocess
import sys
from itertools import takewhile

import pytest

from mgrpo_lib.__main__ import main
from mgrpo_lib.experiment import jobs, outcome, pipeline, store
from mgrpo_lib.experiment.jobs import list_jobs, time_to_go
from mgrpo_lib.experiment.settings import ROOT, load_config


@pytest.mark.parametrize("workers", [1, 2, 3, 9])
def test_each_job_comes_after_its_needs_and_the_last_evaluations_side_by_side(workers):
    cfg = load_config("cpu", arm="base")
    listed = list_jobs(cfg, {}, workers)
    assert {job.name for job in listed} == {job.name for job in list_jobs(cfg, {})} and len(listed) == 25
    for place, job in enumerate(listed):
        assert all(need in listed[:place] for need in job.needs), job.name
    tested = [job.name for job in listed if job.notebook == "05_benchmarks"]
    assert tested == ["05_base", *(f"05_seed{seed}" for seed in cfg.seeds)]
    for job in listed:
        if job.name in tested[1:]:
            trained = {need.name for need in job.needs if need.notebook in ("03_grpo", "04_mgrpo")}
            assert trained == {f"{'04' if arm == 'mgrpo' else '03'}_{arm}-{job.name[3:]}" for arm in cfg.arms}
    last = takewhile(lambda job: job.notebook == "05_benchmarks", reversed(listed[:-2]))  # before 06 and 00
    assert len(list(last)) == min(workers, 5)


def test_the_time_to_go_is_unknown_until_it_is_known_and_then_does_not_rise():
    """Steps of known lengths, one after the other."""
    cfg = load_config("cpu", arm="base")
    listed = list_jobs(cfg, {})
    lengths = {
        "03_grpo": 30.0,
        "03_grpo_matched": 40.0,
        "04_mgrpo": 50.0,
        "05": 20.0,
        "02_base_model": 9.0,
        **jobs.QUICK,
    }
    seconds = {job: lengths[job.kind] * job.models for job in listed}
    known = []
    for i, job in enumerate(listed):
        waiting, finished = listed[i + 1 :], {done: seconds[done] for done in listed[:i]}
        silent = time_to_go(waiting, {job: 1.0}, finished, {})
        telling = time_to_go(waiting, {job: 1.0}, finished, {job: seconds[job] - 1.0})
        assert silent is None or silent == pytest.approx(telling)
        known.append(telling)
    first = next(i for i, left in enumerate(known) if left is not None)
    assert listed[first].name == "03_grpo_matched-seed10", "the last kind that is new"
    rest = [sum(seconds[job] for job in listed[i:]) - 1.0 for i in range(first, len(listed))]
    assert known[first:] == pytest.approx(rest)
    last = listed.index(next(job for job in listed if job.name == "05_seed13"))  # one more evaluation waits
    finished = {done: seconds[done] for done in listed[:last]}
    whole = time_to_go(listed[last + 1 :], {listed[last]: 1.0}, finished, {listed[last]: 0.1})
    assert whole == pytest.approx(rest[last - first]), "what an evaluation tells is not believed"
    late = time_to_go(listed[last + 1 :], {listed[last]: 90.0}, finished, {})
    assert late == pytest.approx(rest[last - first] + 1.0 - 60.0 + 30.0), "the next one takes as long, too"


def test_without_arms_the_base_model_alone_is_evaluated(tmp_path, monkeypatch, capsys):
    started = []
    monkeypatch.setattr(pipeline, "_run", lambda pending, workers: started.extend(pending) or dict.fromkeys([], 0.0))
    folder = tmp_path / "results" / "smoke"
    store.write_json(folder / "records" / "base.json", {"accuracy": {"chains": {"acc_t1": 0.5, "acc_t2": 0.25}}})
    assert pipeline.reproduce("smoke", {"arms": {}, "control_arms": []}, out=str(tmp_path)) == 0
    assert [job.name for job in started] == ["01_data", "02_base_model", "05_base"]
    text = capsys.readouterr().out
    assert "chains: 50.0% right at attempt 1, 25.0% at attempt 2" in text and "of the base model alone" in text


def test_the_pipeline_starts_its_jobs_in_the_order_for_its_workers(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(
        pipeline, "_run", lambda pending, workers: started.append((workers, [job.name for job in pending]))
    )
    for workers in (1, 2):
        assert pipeline.reproduce("cpu", {}, out=str(tmp_path), workers=workers) == 1
    cfg = load_config("cpu", arm="base", output_root=str(tmp_path))
    assert started == [(workers, [job.name for job in list_jobs(cfg, {}, workers)]) for workers in (1, 2)]
    assert started[0][1] != started[1][1]


@pytest.mark.parametrize(("profile", "compiler"), [("cpu", "1"), ("smollm2", None)])
def test_what_a_notebook_starts_with_unless_the_user_says_otherwise(profile, compiler, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(pipeline.subprocess, "Popen", lambda call, env, **how: given.append(env))
    monkeypatch.delenv("TORCHDYNAMO_DISABLE", raising=False)  # the tests' own
    (job, *_) = list_jobs(load_config(profile, arm="base", output_root=str(tmp_path)), {})
    pipeline._start(job, threads=1)
    monkeypatch.setenv("GLIBC_TUNABLES", "own")
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "0")
    pipeline._start(job, threads=None)
    names = ("GLIBC_TUNABLES", "TORCHDYNAMO_DISABLE")
    assert [[env.get(name) for name in names] for env in given] == [[pipeline.KEEP_MEMORY, compiler], ["own", "0"]]
    assert given[0]["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--set", "learning_rat=1"], "'learning_rate'"),
        (["--set", "learning_rate=fast"], "'fast'"),
        (["--set", "max_steps=0"], "max_steps"),
        (["--set", "num_corrections=1"], "correction_advantage='difference'"),
        (["--profile", "smok"], "'smoke'"),
        (["--seeds", "0,x"], "0,x"),
        (["--set", "arm=grpo"], "'arm'"),
        (["--set", "learning_rate"], "name=value"),
        (["--set", "benchmarks=[chains"], "benchmarks=[chains"),
        (["--workers", "0"], "workers=0"),
    ],
    ids=str,
)
def test_wrong_parameters_stop_before_any_work(arguments, named, tmp_path, monkeypatch, capsys):
    call = ["mgrpo_lib", "reproduce", "--profile", "smoke", "--out", str(tmp_path / "new"), *arguments]
    monkeypatch.setattr(sys, "argv", call)
    assert main() == 2 and named in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("given", "place"), [([], ROOT), (["--out", "out"], ROOT / "out")])
def test_figures_are_those_of_the_repository_unless_asked_otherwise(given, place, monkeypatch):
    redrawn = []
    monkeypatch.setattr("mgrpo_lib.__main__.redraw", lambda cfg: redrawn.append(cfg.output) or 0)
    monkeypatch.setattr(sys, "argv", ["mgrpo_lib", "figures", *given])
    assert main() == 0 and redrawn == [place]


@pytest.mark.parametrize(("target", "place"), [("reproduce", "out"), ("reference", ".")])
def test_make_reference_alone_writes_into_the_repository(target, place, monkeypatch):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    make = ["make", "-C", ROOT, "-n", "-o", ".venv/.ready", target, "PROFILE=smoke"]
    said = subprocess.run(make, capture_output=True, text=True, check=True, env=environment).stdout
    command = next(line for line in said.splitlines() if "mgrpo_lib reproduce" in line)
    asked = []
    monkeypatch.setattr(sys, "argv", shlex.split(command.partition(" -m ")[2]))
    monkeypatch.setattr(pipeline, "reproduce", lambda profile, settings, seeds, out, workers: asked.append(out) or 0)
    assert main() == 0 and pipeline.configuration("smoke", {}, out=asked[0]).output == (ROOT / place).resolve()


def test_verdicts_are_compared_with_the_committed_ones(tmp_path):
    cfg = load_config("cpu", arm="base", output_root=str(tmp_path))
    summary = store.read_json(ROOT / "results" / "cpu" / "summary.json")
    number = len(summary["hypotheses"])
    store.write_json(cfg.results / "summary.json", summary)
    assert f"{number} of {number} verdicts" in outcome.agreement(cfg) and ";" not in outcome.agreement(cfg)
    row = summary["hypotheses"][0] | {"verdict": "unlike"}
    store.write_json(cfg.results / "summary.json", {**summary, "hypotheses": [row, *summary["hypotheses"][1:]]})
    said = outcome.agreement(cfg)
    assert f"{number - 1} of {number} verdicts" in said and f"{row['hypothesis']} on {row['benchmark']} (unlike" in said
    assert outcome.agreement(load_config("cpu", arm="base", output_root=".")) == "", "those are the committed ones"
    assert outcome.agreement(load_config("smoke", arm="base", output_root=str(tmp_path))) == "", "none are committed"


@pytest.mark.parametrize("command", ["reproduce", "figures"])
@pytest.mark.parametrize(
    "place", ["/proc/x", "{file}", "{file}/below", "/dev/null", "{folder}/" + "x" * 300, "{folder}" + "/xxx" * 1010]
)
def test_a_folder_that_cannot_be_written_is_refused_in_a_sentence(command, place, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    place = place.format(file=tmp_path / "file", folder=tmp_path)
    monkeypatch.setattr(sys, "argv", ["mgrpo_lib", command, "--profile", "smoke", "--out", place])
    before = sorted(tmp_path.iterdir())
    assert main() == 2
    said = capsys.readouterr().err
    assert "OUT=folder" in said and said.count("\n") == 1 and "Errno" not in said
    assert sorted(tmp_path.iterdir()) == before


def test_make_passes_everything_on(tmp_path):
    make = ["make", "-C", str(ROOT), "reproduce", "PROFILE=smoke", f"OUT={tmp_path / 'new'}", "PARAMS=learning_rat=1"]
    ready = ROOT / ".venv" / ".ready"
    if not ready.exists():
        pytest.skip("not set up by make: .venv/.ready is missing")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(make, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode != 0 and "did you mean 'learning_rate'" in done.stderr


def test_the_time_to_go_is_known_once_each_kind_of_training_has_ended():
    """Of profile dose: after the first base model's first seed, 15 jobs of each kind and a last notebook are to go."""
    listed = list_jobs(load_config("dose", arm="base"), {})
    kinds = {job.kind for job in listed} - {"10_when"}
    done = {next(job for job in listed if job.kind == kind): 60.0 for kind in kinds}
    left = time_to_go([job for job in listed if job not in done], {}, done, {})
    assert left == pytest.approx(sum(60.0 * job.models for job in listed if job not in done), rel=0.5)


@pytest.mark.parametrize("name", ["SEED", "PROFLE", "MODLE"])
def test_make_refuses_a_name_that_it_would_ignore(name):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    make = ["make", "-C", str(ROOT), "-n", "-o", ".venv/.ready", "reproduce", f"{name}=1"]
    done = subprocess.run(make, capture_output=True, text=True, env=environment)
    assert done.returncode and f"unknown: {name};" in done.stderr and "SEEDS" in done.stderr


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["reproduce", "--data", "mine.jsonl"], "train_data=problems.jsonl"),
        (["plan", "--problems", "8"], "train_data=problems.jsonl"),
        (["preflight", "--problems", "0"], "PROBLEMS=0"),
    ],
)
def test_what_a_command_would_ignore_is_refused(given, named, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mgrpo_lib", *given])
    assert main() == 2 and named in capsys.readouterr().err


def test_a_python_without_the_packages_is_told_which_one_has_them():
    call = [sys.executable, "-S", "-m", "mgrpo_lib", "reproduce"]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
    assert done.returncode == 2 and ".venv/bin/python" in done.stderr and "Traceback" not in done.stderr
