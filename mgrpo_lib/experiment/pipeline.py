"""The papermill pipeline: run what is missing of an experiment, several notebooks at a time, with live progress.

`python -m mgrpo_lib reproduce` calls `reproduce`. Nothing here loads torch, except to plan the memory of a language model.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

from mgrpo_lib.experiment import data, keys, machine, outcome, store
from mgrpo_lib.experiment.assignments import parse_seeds
from mgrpo_lib.experiment.gpu import check_memory, gpu_hint
from mgrpo_lib.experiment.jobs import NOTEBOOKS, Job, check_notebook, list_jobs, notes, time_to_go
from mgrpo_lib.experiment.progress import clock, say
from mgrpo_lib.experiment.settings import ROOT, Config, ConfigError, load_config

PR_SET_PDEATHSIG = 1  # of Linux's prctl: the signal that a process gets when its parent ends
SECONDS_TO_END = 20  # of a notebook that is asked to end
# Sampling on CPUs frees and asks for megabytes with every token. Returned to the system, they cost 2 to 7% of an evaluation
KEEP_MEMORY = "glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=17179869184"
CHOSEN_ELSEWHERE = {"profile": "PROFILE=", "arm": "the profile's arms", "seed": "SEEDS=", "output_root": "OUT="}


def reproduce(
    profile: str, settings: dict[str, Any], seeds: str = "", out: str = "", workers: int | None = None
) -> int:
    """Run what is missing of a profile's experiment and print the result table.

    Args:
        profile: name in ``profiles/``, a YAML file of one's own, or ``auto``.
        settings: settings that replace the profile's, in every arm.
        seeds: training seeds such as ``0,1,2``; empty: the profile's.
        out: folder of ``results/`` and ``figures/``; empty: ``out`` in the repository.
        workers: notebooks at a time, with one thread each if there are several; default: see `default_workers`.

    Returns:
        0, or 1 if a notebook failed. Finished steps are kept, and the same call continues from there.

    Raises:
        ConfigError: an unusable setting or data file, too little memory, or a folder in use: nothing has started then. Or
            nothing more can be written: as after a failure.
        KeyboardInterrupt: it was stopped; as after a failure.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"workers={workers}: at least one notebook must run at a time; leave it out for one per core")
    cfg = configuration(profile, settings, seeds, out)
    store.check_place(cfg.results)
    if profile == "auto" and cfg.profile == "cpu" and (hint := gpu_hint()):
        say(f"note: profile auto is cpu; {hint.removeprefix('note: ')}")
    for name in settings:
        if arms := [arm for arm, changes in cfg.arms.items() if name in changes]:
            say(f"note: {name}={settings[name]} also replaces what the profile sets for {', '.join(arms)}")
    handed_on = {**settings, **({"seeds": cfg.seeds} if seeds else {})}
    jobs = list_jobs(cfg, handed_on)
    if not all(job.done() for job in jobs):
        workers = workers or default_workers(cfg)
        jobs = list_jobs(cfg, handed_on, workers)
    for job in jobs:
        check_notebook(NOTEBOOKS / f"{job.notebook}.ipynb")
    pending = {job.notebook[:2] for job in jobs if not job.done()}
    if pending - {"06", "00"}:
        problems = check_data(cfg)
    if pending - {"06", "00", "01"}:
        check_model(cfg)
        check_memory(cfg)
        check_prompts(cfg, problems)
    with contextlib.ExitStack() as held:
        for one in (cfg, *map(cfg.of_base, cfg.bases)):
            held.enter_context(store.only_one(one.results))
        return _reproduce(cfg, jobs, workers or 1)


def _reproduce(cfg: Config, jobs: list[Job], workers: int) -> int:
    done = [job for job in jobs if job.done()]
    pending = [job for job in jobs if job not in done]
    seeds = ", ".join(map(str, cfg.seeds))
    say(
        f"profile {cfg.profile}, seeds {seeds}: {len(done)} of {len(jobs)} steps are there with these parameters, in {cfg.results}"
    )
    for note in notes(pending, done):
        say(f"note: {note}")
    start = time.monotonic()
    seconds = _run(pending, workers) if pending else {}
    if seconds is None:
        return 1
    if not done:  # the time of the whole pipeline, for the report
        steps = {name: round(s) for name, s in seconds.items()}
        whole = {"key": keys.experiment_key(cfg), "seconds": round(time.monotonic() - start)}
        store.write_json(cfg.results / "timing.json", {**whole, "workers": workers, "steps": steps})
    outcome.tell(cfg)
    return 0


# ------------------------------------------------------------------------------------------------------ before a start
def configuration(profile: str, settings: dict[str, Any], seeds: str = "", out: str = "") -> Config:
    """Resolve the configuration of a whole experiment. Profile ``auto`` is ``cpu``, as nobody should start hours on a GPU
    unasked; or ``own``, where a model is named.

    Raises:
        ConfigError: a setting that cannot be used; the message says what to write instead.
    """
    for name, where in CHOSEN_ELSEWHERE.items():
        if name in settings:
            raise ConfigError(f"{name!r} is not a setting of a whole experiment; it is chosen by {where}")
    own = {"seeds": parse_seeds(seeds)} if seeds else {}
    if profile == "auto":
        profile = "cpu" if settings.get("model", "miniature") == "miniature" else "own"
    return load_config(profile, arm="base", **{**settings, **own}, output_root=out or None)


def default_workers(cfg: Config) -> int:
    """Return the notebooks at a time: one per core, as far as memory allows; one on a GPU, or if the base model alone is
    tested.
    """
    if not cfg.arms or (not cfg.is_miniature and machine.gpus()):
        return 1
    gib = machine.NOTEBOOK_GIB["miniature" if cfg.is_miniature else "llm"]
    return max(1, min(int(machine.cores()), int(machine.memory()[0] // gib)))


def check_data(cfg: Config) -> list[dict]:
    """Refuse own files, and benchmark files in `data_dir`, that are missing or unusable. Data of the hub are not checked.

    Returns:
        The problems that are not on the hub.

    Raises:
        ConfigError: says what is wrong where, and the fix.
    """
    if cfg.data_folder and not cfg.data_folder.is_dir():
        raise ConfigError(
            f"data_dir {cfg.data_dir!r} is no folder; a relative path counts from {ROOT}, and without data_dir the hub is used"
        )
    try:
        return data.problems_at_hand(cfg)
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(str(error)) from None


def check_model(cfg: Config) -> None:
    """Refuse a profile that knows its model by content alone without that folder, and say if another model replaces it.

    Raises:
        ConfigError: says how to get the model.
    """
    pinned = load_config(cfg.source, arm="base").model_content
    if cfg.model_location and pinned and cfg.model_content != pinned:
        say(f"note: {cfg.model} is not the model of profile {cfg.profile} (content {pinned}): other numbers")


def check_prompts(cfg: Config, problems: list[dict]) -> None:
    """Refuse a language model whose tokenizer, chat template or context does not go with the prompts.

    Raises:
        ConfigError: says what does not fit, and the fix.
    """
    if not cfg.is_miniature:
        from mgrpo_lib.experiment import prompts  # loads torch

        prompts.check_prompts(cfg, problems)


# ------------------------------------------------------------------------------------------------------------- running
def _run(pending: list[Job], workers: int) -> dict[str, float] | None:
    """Run the jobs, each after those it needs.

    Returns:
        The seconds of each, or None if one failed.

    Raises:
        KeyboardInterrupt: stopped by the user or the system; no notebook is left running.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite end by the system is treated as Ctrl-C
    start, said = time.monotonic(), 0.0
    waiting, failed, finished = list(pending), [], {}
    running: dict[Job, tuple[subprocess.Popen, float]] = {}
    try:
        while waiting or running:
            for job in list(waiting):
                unmet = any(need in waiting or need in running or need in failed for need in job.needs)
                if not unmet and len(running) < workers and not failed:
                    waiting.remove(job)
                    running[job] = _start(job, threads=1 if workers > 1 else None), time.monotonic()
            for job, (process, began) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[job]
                now = time.monotonic()
                if process.returncode == 0 and job.fulfilled():
                    job.publish()
                    finished[job] = now - began
                    say(f"[{clock(now - start)}] done    {job.name} in {clock(finished[job])}")
                else:
                    job.give_back()
                    failed.append(job)
                    say(f"[{clock(now - start)}] FAILED  {job.name}: {_reason(job, process.returncode)}")
            if failed and not running:
                break
            if running and time.monotonic() - said >= (5 if sys.stdout.isatty() else 20):
                said = time.monotonic()
                gone = {job: said - began for job, (_, began) in running.items()}
                say(f"[{clock(said - start)}] {_states(waiting, gone, finished, workers)}")
            time.sleep(0.2)
    except KeyboardInterrupt:
        say(f"\nStopping {', '.join(job.name for job in running) or 'before the first step'} ...")
        raise
    finally:  # also after a broken pipe or a bug: leave no notebook running
        _end(running)
    if failed:
        say(f"{len(failed)} step(s) failed; finished steps are kept, the same command continues with the rest.")
        return None
    return {job.name: seconds for job, seconds in finished.items()}


def _start(job: Job, threads: int | None) -> subprocess.Popen:
    """Start papermill in a process of its own, with a kernel of its own inside."""
    job.output.parent.mkdir(parents=True, exist_ok=True)
    faster = {"GLIBC_TUNABLES": KEEP_MEMORY}
    if job.settings["model"] == "miniature":  # nothing is compiled; bitsandbytes would load the compiler, for a second
        faster["TORCHDYNAMO_DISABLE"] = "1"
    environment = {
        **faster,
        **os.environ,
        store.CHAIN: str(os.getpid()),  # the notebook may write into the folder that this pipeline holds
        "PYTHONPATH": os.pathsep.join(
            filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
        ),  # this library, not another
        "MGRPO_HOME": str(ROOT),  # on Colab, the notebooks' set-up cells take this repository
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # executed copies show their figures
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",  # bars flood executed notebooks
        "PYTHONWARNINGS": "ignore",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # a debugger's warning at every kernel's start
    }
    if threads:
        environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    notebook, executed = NOTEBOOKS / f"{job.notebook}.ipynb", job.beside(".running.ipynb")
    module = "mgrpo_lib.experiment.kernel"
    call = [sys.executable, "-m", module, notebook, executed, NOTEBOOKS, json.dumps(job.parameters)]
    with open(job.beside(".log"), "w", encoding="utf-8") as log:  # before anything is moved: this may fail
        job.progress.unlink(missing_ok=True)
        job.set_aside()
        how = {"stdout": log, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
        return subprocess.Popen(call, env=environment, preexec_fn=_end_with_the_pipeline, **how)


def _end_with_the_pipeline() -> None:
    """Let Linux kill a notebook whose pipeline was killed, since the next one makes the same results. A kernel without its
    parent ends within a second.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _end(running: dict[Job, tuple[subprocess.Popen, float]]) -> None:
    """End notebooks; their kernels notice within a second. A second Ctrl-C in between would leave some."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    for process, _ in running.values():
        process.terminate()
    for process, _ in running.values():
        try:
            process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for number, handler in before.items():
        signal.signal(number, handler)
    for job in running:  # last: where nothing more can be written this fails
        job.give_back()


def _reason(job: Job, code: int) -> str:
    """Say why a notebook failed, in a line, and where its log is."""
    text = job.beside(".log").read_text(encoding="utf-8", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    if job.beside(".running.ipynb").exists():
        job.beside(".running.ipynb").replace(job.beside(".failed.ipynb"))
    if code == 0:
        why = f"it ended without leaving {job.manifest} as these parameters ask for"
    elif "Kernel died before replying" in text:  # it never answered
        why = "its kernel ended while it started; `make doctor` starts one and says why. If memory is short, WORKERS=1"
    elif code < 0 or "Kernel died" in text or "DeadKernel" in text:
        why = "its kernel was killed, most often for want of memory; close other programs or use WORKERS=1"
    else:
        why = _no_room(job, lines) or (lines[-1] if lines else f"exit code {code}")
    return f"{why}\n          executed so far: {job.beside('.failed.ipynb').name}; log: {job.beside('.log')}"


def _no_room(job: Job, log: list[str]) -> str:
    """Say what to do if nothing more can be written; on a full disk the log is empty or cut off. Empty if the log says it."""
    if log and "OUT=folder" in log[-1]:
        return ""
    unwritable = machine.disk(job.output.parent)[1]
    full = any(os.strerror(number) in line for number in store.FULL for line in log)
    if not (full or unwritable):
        return ""
    why = f"nothing more can be written ({unwritable})" if unwritable else "a file could not be written to its end"
    return f"{why}; {store.make_room(job.output.parent)}"


def _states(waiting: list[Job], running: dict[Job, float], finished: dict[Job, float], workers: int) -> str:
    """Describe what runs, what waits and the time to go, in a line; values are seconds."""
    told = {job: store.read_json(job.progress) if job.progress.exists() else {} for job in running}
    states = [f"{job.name} {t['step']}/{t['total']} {t['note']}" if t else job.name for job, t in told.items()]
    left = {job: t["to_go"] for job, t in told.items() if t.get("to_go") is not None}
    work = time_to_go(waiting, running, finished, left)
    to_go = (
        "time to go: told once each kind of step has begun" if work is None else f"about {clock(work / workers)} to go"
    )
    return f"{' | '.join(states)} | {len(waiting)} waiting, {to_go}"
