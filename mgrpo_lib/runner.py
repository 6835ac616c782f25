"""The papermill chain: which notebooks run, in which order, which are still valid; several at a time, with live
progress.

`python -m mgrpo_lib reproduce` calls `reproduce`. Nothing here loads torch, so a finished experiment is recognised in a
second.
"""

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mgrpo_lib import store
from mgrpo_lib.config import ROOT, Config, ConfigError, load_config
from mgrpo_lib.progress import clock

NOTEBOOKS = ROOT / "notebooks"


@dataclass(eq=False)
class Job:
    """One notebook with one set of parameters."""

    name: str
    notebook: str
    parameters: dict[str, Any]
    output: Path  # the executed copy
    manifest: Path | None  # what the notebook leaves when it is done (None: it only shows what others left) ...
    key: str  # ... and the key that this must bear
    progress: Path | None = None
    needs: list["Job"] = field(default_factory=list)

    def done(self) -> bool:
        return self.output.exists() and self.fulfilled()

    def fulfilled(self) -> bool:
        """Whether the manifest is there and made with these parameters, inputs and code."""
        if self.manifest is None:
            shown = [need.output for need in self.needs]
            return not self.output.exists() or all(
                file.exists() and file.stat().st_mtime <= self.output.stat().st_mtime for file in shown
            )
        return store.finished(self.manifest, self.key) is not None


def hardware_profile() -> str:
    """The profile of this machine. Only the miniature's profiles exist so far, so it is ``cpu`` everywhere."""
    return "cpu"


def default_workers() -> int:
    """Notebooks at a time: one on a GPU; else one for each core that this process may use, and 2 GB of memory for each."""
    if Path("/dev/nvidia0").exists():
        return 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return max(1, min(len(os.sched_getaffinity(0)), int(memory // 2)))


def plan(cfg: Config, overrides: dict[str, Any]) -> list[Job]:
    """Every job of an experiment, each after those it needs."""
    runs = cfg.results / "runs"

    def job(
        name: str,
        notebook: str,
        manifest: Path | None,
        key: str,
        needs: list[Job],
        progress: str | None = None,
        **own: Any,
    ) -> Job:
        parameters = {**overrides, "profile": cfg.profile, "output_root": str(cfg.output), **own}
        file = cfg.results / "progress" / f"{progress}.json" if progress else None
        return Job(name, notebook, parameters, runs / f"{name}.ipynb", manifest, key, file, needs)

    base = cfg.of_arm("base")
    data = job("01_data", "01_data", cfg.results / "data.json", store.data_key(cfg), [])
    trained_base = job("02_base_model", "02_base_model", base.run_folder / "run.json", store.base_key(cfg), [], "base")
    jobs = [data, trained_base]

    def evaluation(run: Config, after: Job) -> Job:
        manifest = cfg.results / "records" / f"{run.run_name}.json"
        own = {"arm": run.arm} if run.arm == "base" else {"arm": run.arm, "seed": run.seed}
        return job(
            f"05_{run.run_name}",
            "05_benchmarks",
            manifest,
            store.evaluation_key(run),
            [after],
            f"evaluate-{run.run_name}",
            **own,
        )

    evaluations = [evaluation(base, trained_base)]
    for seed in cfg.seeds:
        of_arm: dict[str, Job] = {}
        # an arm whose tokens another one matches comes first
        for arm in sorted(cfg.arms, key=lambda name: cfg.of_arm(name, seed).match_tokens_of is not None):
            run = cfg.of_arm(arm, seed)
            notebook = "03_grpo" if run.num_layers == 1 else "04_mgrpo"
            needs = [trained_base] + ([of_arm[run.match_tokens_of]] if run.match_tokens_of else [])
            manifest = run.run_folder / "run.json"
            of_arm[arm] = job(
                f"{notebook[:2]}_{run.run_name}",
                notebook,
                manifest,
                store.run_key(run),
                needs,
                run.run_name,
                arm=arm,
                seed=seed,
            )
            evaluations.append(evaluation(run, of_arm[arm]))
        jobs += of_arm.values()
    jobs += evaluations
    figures = job("06_figures", "06_figures", cfg.results / "summary.json", store.summary_key(cfg), list(evaluations))
    overview = job("00_overview", "00_overview", None, "", [figures])
    return jobs + [figures, overview]


def reproduce(profile: str, workers: int | None = None, **overrides: Any) -> int:
    """Runs what is missing of a profile's experiment and prints the result table.

    Args:
        profile: name in ``profiles/``, or ``auto``: by hardware.
        workers: notebooks at a time; by default as `default_workers` says, with one thread each if there are several.
        overrides: settings that replace the profile's.

    Returns:
        0, or 1 if a notebook failed; what was finished before stays, and the same call goes on from there.

    Raises:
        ConfigError: a setting that cannot be used; nothing has been started then.
    """
    cfg = load_config(hardware_profile() if profile == "auto" else profile, arm="base", **overrides)
    given = {name: value for name, value in overrides.items() if name != "output_root"}
    jobs = plan(cfg, given)
    for job in jobs:
        check_notebook(NOTEBOOKS / f"{job.notebook}.ipynb")
    pending = [job for job in jobs if not job.done()]
    print(
        f"profile {cfg.profile}: {len(jobs) - len(pending)} of {len(jobs)} steps are there already with these parameters, in {cfg.results}",
        flush=True,
    )
    if pending:
        workers = workers or default_workers()
        start = time.monotonic()
        seconds = _run(pending, workers)
        if seconds is None:
            return 1
        if len(pending) == len(jobs):  # the time of the whole chain, for the report
            steps = {name: round(s) for name, s in seconds.items()}
            whole = {
                "key": store.summary_key(cfg),
                "seconds": round(time.monotonic() - start),
                "workers": workers,
                "steps": steps,
            }
            store.write_json(cfg.results / "timing.json", whole)
    print((cfg.results / "table.md").read_text(encoding="utf-8"))
    print(f"Everything is there. Results: {cfg.results}\nFigures: {cfg.figures}")
    return 0


def check_notebook(path: Path) -> None:
    """Refuses a notebook without exactly one cell tagged ``parameters``: papermill would run it with its defaults,
    silently.

    Raises:
        ConfigError: naming the notebook.
    """
    cells = store.read_json(path)["cells"]
    tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise ConfigError(
            f"{path.name} has {len(tagged)} cells tagged 'parameters', not one; restore the tag (git checkout {path.name})"
        )


def _run(pending: list[Job], workers: int) -> dict[str, float] | None:
    """Runs the jobs, each after those it needs; returns the seconds of each, or None if one failed or the user stopped
    it.
    """
    start = time.monotonic()
    waiting, running, failed = list(pending), {}, []
    finished: dict[str, float] = {}
    said = 0.0
    try:
        while waiting or running:
            for job in list(waiting):
                blocked = any(need in waiting or need in running or need in failed for need in job.needs)
                if not blocked and len(running) < workers and not failed:
                    waiting.remove(job)
                    running[job] = (_start(job, threads=1 if workers > 1 else None), time.monotonic())
            for job, (process, began) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[job]
                seconds = time.monotonic() - began
                if process.returncode == 0 and _publish(job):
                    finished[job.name] = seconds
                    print(f"[{clock(time.monotonic() - start)}] done    {job.name} in {clock(seconds)}", flush=True)
                else:
                    failed.append(job)
                    print(
                        f"[{clock(time.monotonic() - start)}] FAILED  {job.name} {_reason(job, process.returncode)}",
                        flush=True,
                    )
            if failed and not running:
                break
            if running and time.monotonic() - said >= (5 if sys.stdout.isatty() else 20):
                said = time.monotonic()
                eta = _remaining(waiting, running, finished, workers)
                print(
                    f"[{clock(said - start)}] {' | '.join(_state(job) for job in running)} | {len(waiting)} waiting, about {clock(eta)} to go",
                    flush=True,
                )
            time.sleep(0.2)
    except KeyboardInterrupt:
        for process, _ in running.values():
            process.terminate()
        print("\nStopped. Finished steps are kept; the same command goes on with the rest.", flush=True)
        return None
    if failed:
        print(
            f"{len(failed)} step(s) failed; finished steps are kept, and the same command goes on with the rest.",
            flush=True,
        )
        return None
    return finished


def _partial(job: Job) -> Path:
    return job.output.with_name(f"{job.output.stem}.running.ipynb")


def _start(job: Job, threads: int | None) -> subprocess.Popen:
    """Papermill in a process of its own, a kernel of its own inside."""
    job.output.parent.mkdir(parents=True, exist_ok=True)
    if job.manifest:
        # a manifest without its executed notebook came from elsewhere: this run makes its own
        job.manifest.unlink(missing_ok=True)
    if job.progress:
        job.progress.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "MPLBACKEND": "agg",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONWARNINGS": "ignore",
    }
    if threads:
        environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    call = [
        sys.executable,
        "-m",
        "papermill",
        str(NOTEBOOKS / f"{job.notebook}.ipynb"),
        str(_partial(job)),
        "--kernel",
        "python3",
    ]
    call += ["--cwd", str(NOTEBOOKS), "--no-progress-bar", "--log-level", "ERROR", "-b", _base64_yaml(job.parameters)]
    with open(job.output.with_suffix(".log"), "w", encoding="utf-8") as log:
        return subprocess.Popen(call, env=environment, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)


def _base64_yaml(parameters: dict[str, Any]) -> str:
    import base64
    import json

    return base64.b64encode(json.dumps(parameters).encode()).decode()  # JSON is YAML, and keeps 1e-06 a number


def _publish(job: Job) -> bool:
    """Gives the executed copy its final name, if the notebook left what it should."""
    if not job.fulfilled():
        return False
    _partial(job).replace(job.output)
    for leftover in (job.output.with_suffix(".log"), job.output.with_name(f"{job.output.stem}.failed.ipynb")):
        leftover.unlink(missing_ok=True)
    return True


def _reason(job: Job, code: int) -> str:
    """Why a notebook failed, in a line, and where the rest is."""
    log = job.output.with_suffix(".log")
    lines = (
        [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        if log.exists()
        else []
    )
    if _partial(job).exists():
        _partial(job).replace(job.output.with_name(f"{job.output.stem}.failed.ipynb"))
    if code == 0:
        why = f"it ended without leaving {job.manifest} as these parameters ask for"
    elif code < 0 or any("Kernel died" in line or "DeadKernel" in line for line in lines):
        why = "its kernel was killed, most often for want of memory; close other programs or use --workers 1"
    else:
        why = lines[-1] if lines else f"exit code {code}"
    return f"{why}\n          executed so far: {job.output.stem}.failed.ipynb; log: {log}"


def _progress(job: Job) -> dict[str, Any]:
    """What the notebook last said of its progress; empty if nothing yet."""
    if job.progress is None or not job.progress.exists():
        return {}
    return store.read_json(job.progress)


def _state(job: Job) -> str:
    state = _progress(job)
    return f"{job.name} {state['step']}/{state['total']} {state['note']}" if state else job.name


def _remaining(waiting: list[Job], running: dict, finished: dict[str, float], workers: int) -> float:
    """Seconds to go: what runs by its own progress, what waits by the mean of its kind, or of what runs where none of
    its kind is done.
    """
    left, known = 0.0, [(name[:2], seconds) for name, seconds in finished.items()]
    for job, (_, began) in running.items():
        state, gone = _progress(job), time.monotonic() - began
        to_go = state["seconds"] / max(state["step"], 1) * (state["total"] - state["step"]) if state else 10.0
        known.append((job.name[:2], gone + to_go))
        left += to_go
    for job in waiting:
        same = [seconds for number, seconds in known if number == job.name[:2]]
        other = [seconds for _, seconds in known] or [10.0]
        left += sum(same) / len(same) if same else sum(other) / len(other)
    return left / workers
