"""The papermill chain: which notebooks run, in which order, which are still valid; several at a time, with live
progress.

`python -m mgrpo_lib reproduce` calls `reproduce`. Nothing here loads torch, so a finished experiment is recognised in a
second.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mgrpo_lib.experiment import fingerprints, machine, store, versions
from mgrpo_lib.experiment.notebook import arguments
from mgrpo_lib.experiment.progress import clock
from mgrpo_lib.experiment.settings import (
    GENERATED,
    ROOT,
    Config,
    ConfigError,
    EvalSettings,
    ModelSettings,
    TrainSettings,
    load_config,
    parse_seeds,
)
from mgrpo_lib.tasks import data
from mgrpo_lib.tasks.benchmarks import SETS

NOTEBOOKS = ROOT / "notebooks"
PR_SET_PDEATHSIG = 1  # of Linux's prctl: the signal that a process gets when its parent ends
GPU_PROFILES = {"t4": 14.5, "a100": 39.0, "paper": 79.0}  # GiB that each needs at least
SECONDS_TO_END = 20  # of a notebook that is asked to end
# Papermill by its library, for two settings that its command line lacks. A kernel that has loaded torch tidies up for two seconds
# when it is asked to end, though after the last cell nothing is left to do. And kernels that start at the same time may be
# given the same port, which ends one of them: they get sockets in folders of their own
EXECUTE = """
import json, sys, tempfile
sys.modules["rfc3987_syntax"] = None  # jsonschema does without; it takes a second, for a format that no schema here asks for
from papermill import execute_notebook
from traitlets.config import Config
notebook, executed, folder, parameters = sys.argv[1:]
with tempfile.TemporaryDirectory(prefix="mgrpo-") as sockets:
    how = {"kernel_name": "python3", "cwd": folder, "progress_bar": False, "shutdown_kernel": "immediate"}
    how["config"] = Config(KernelManager={"transport": "ipc", "ip": f"{sockets}/kernel"})
    execute_notebook(notebook, executed, json.loads(parameters), **how)
"""
# A model that samples on CPUs frees and asks for megabytes with every token. glibc would give them back to the system each
# time, which clears every page of them anew: 2 to 7% of an evaluation's time. The first is the largest value that glibc takes
# and the second means never; one alone would fix the other at its small default. Other libraries for C ignore both
KEEP_MEMORY = "glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=17179869184"
# what decides over results, of all settings
DECISIVE = {"seeds", "arms", *ModelSettings.model_fields, *TrainSettings.model_fields, *EvalSettings.model_fields}
CHOSEN_ELSEWHERE = {"profile": "PROFILE=", "arm": "the profile's arms", "seed": "SEEDS=", "output_root": "OUT="}


@dataclass(eq=False)
class Job:
    """One notebook with one set of parameters."""

    name: str
    notebook: str
    parameters: dict[str, Any]
    output: Path  # the executed copy
    manifest: Path | None  # what the notebook leaves when it is done (None: it only shows what others left) ...
    key: str  # ... and the key that this must bear
    settings: dict[str, Any]  # of its model, or of the whole experiment, as manifests hold them
    progress: Path
    needs: list["Job"] = field(default_factory=list)
    parts: list[Path] = field(default_factory=list)  # further manifests that it leaves on its way

    def done(self) -> bool:
        if not self.output.exists():
            return False
        if self.manifest is None:
            made = self.output.stat().st_mtime
            return all(need.done() and need.output.stat().st_mtime <= made for need in self.needs)
        return self.fulfilled()

    def fulfilled(self) -> bool:
        """Whether the notebook left what it should, made with these parameters, inputs and code."""
        return self.manifest is None or store.finished(self.manifest, self.key) is not None

    def beside(self, suffix: str) -> Path:
        """A file beside the executed copy."""
        return self.output.with_name(self.output.stem + suffix)

    def set_aside(self) -> None:
        """Hides manifests without their executed notebook: they came with the repository, and this run makes its own."""
        for manifest, hidden in self._hidden():
            if manifest.exists():
                manifest.replace(hidden)

    def give_back(self) -> None:
        """After a failure: the hidden manifests, unless new ones took their place."""
        for manifest, hidden in self._hidden():
            if manifest.exists():
                hidden.unlink(missing_ok=True)
            elif hidden.exists():
                hidden.replace(manifest)

    def forget(self) -> None:
        """After a success."""
        for _, hidden in self._hidden():
            hidden.unlink(missing_ok=True)

    def _hidden(self) -> list[tuple[Path, Path]]:
        manifests = [self.manifest, *self.parts] if self.manifest else []
        return [(path, path.with_name(f".{path.name}.before.partial")) for path in manifests]


def hardware_profile() -> str:
    """The profile of ``auto``: ``cpu`` everywhere, since nobody should start hours of work on a GPU unasked."""
    return "cpu"


def gpus() -> list[tuple[str, float]]:
    """Name and memory (GiB) of each CUDA GPU, as nvidia-smi says; none where that is not installed or fails."""
    call = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        text = subprocess.run(call, capture_output=True, text=True, timeout=30, check=True).stdout
        found = [line.rsplit(",", 1) for line in text.splitlines() if line.strip()]
        return [(name.strip(), float(mib) / 1024) for name, mib in found]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []


def gpu_hint() -> str:
    """The largest profile that this machine's GPU was planned for, in a line; empty without such a GPU."""
    name, memory = max(gpus(), key=lambda gpu: gpu[1], default=("", 0.0))
    allowed = [profile for profile, least in GPU_PROFILES.items() if memory >= least]
    if not allowed:
        return ""
    return (
        f"note: profile auto is cpu; {name} ({memory:.0f} GiB) would allow PROFILE={allowed[-1]}, which takes hours: see "
        f"make plan PROFILE={allowed[-1]}"
    )


def check_data(cfg: Config) -> None:
    """Refuses files of the user's, and of the real benchmarks in `data_dir`, that are not there or cannot be used. What comes from
    the hub is not looked at.

    Raises:
        ConfigError: with what is wrong where, and the mend.
    """
    if cfg.data_folder and not cfg.data_folder.is_dir():
        raise ConfigError(
            f"data_dir {cfg.data_dir!r} is no folder; a relative path counts from {ROOT}, and without data_dir the hub is used"
        )
    here = {*cfg.files, *(SETS if cfg.data_folder else [])}
    try:
        for name, split in [(cfg.train_data, "train"), *((name, "test") for name in cfg.benchmarks)]:
            if name in here:
                data.whole_set(cfg, name, split)
        if cfg.train_data in here and here.issuperset(set(cfg.benchmarks) - GENERATED.keys()):
            data.training_sets(cfg)  # whether enough is left of it
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(str(error)) from None


def check_memory(cfg: Config) -> None:
    """Refuses an experiment that cannot fit into this machine's smallest GPU, or without one into its memory, and warns of one
    that may not.

    Raises:
        ConfigError: with what to cut.
    """
    if cfg.model == "miniature":
        return
    found = gpus()
    if not found and cfg.model_content and cfg.model_content == load_config(cfg.profile, arm="base").model_content:
        return  # a profile with its own small model was made on CPUs
    from mgrpo_lib.experiment.plan import fits, look_up  # counts parameters, with torch

    name, memory = min(found, key=lambda gpu: gpu[1], default=("a machine without a GPU", machine.memory()[0]))
    look_up(cfg)
    try:
        certain, likely = fits(cfg, memory, reserve=False), fits(cfg, memory)
    except (ValueError, KeyError, AttributeError) as error:  # a model whose sizes cannot be told
        print(f"note: memory is not planned: {error}", flush=True)
        return
    if certain:
        raise ConfigError(
            f"profile {cfg.profile} on {name} ({memory:.1f} GiB) {certain}; see make plan PROFILE={cfg.profile}"
        )
    if likely:
        print(
            f"note: memory may be short on {name} ({memory:.1f} GiB); if it is: {likely.removeprefix('does not fit: ')}",
            flush=True,
        )
    if any(run.use_vllm for run in (cfg, *map(cfg.of_arm, cfg.arms))):
        print("note: use_vllm: what vLLM itself takes of the GPU, with weights of its own, is not counted", flush=True)
    if not found and cfg.profile in GPU_PROFILES:
        print(
            f"note: profile {cfg.profile} was planned for a GPU; on CPUs a model of that size takes days, and in float32 up to "
            "twice the memory",
            flush=True,
        )


def check_model(cfg: Config) -> None:
    """Refuses to start without the folder of a model that a profile only knows by its content, and says it if another
    model takes its place.

    Raises:
        ConfigError: with how to get it.
    """
    pinned = load_config(cfg.profile, arm="base").model_content
    if cfg.model_location and pinned and cfg.model_content != pinned:
        print(
            f"note: {cfg.model} is not the model of profile {cfg.profile} (content {pinned}): other numbers", flush=True
        )


def default_workers(cfg: Config) -> int:
    """Notebooks at a time: one for each core that this process or its container gets, if each has the memory that it takes.
    On a GPU one, which takes it whole; and one where the base model alone is tested, which gets all cores.
    """
    if not cfg.arms or (cfg.model != "miniature" and gpus()):
        return 1
    gib = machine.NOTEBOOK_GIB["miniature" if cfg.model == "miniature" else "llm"]
    return max(1, min(int(machine.cores()[1]), int(machine.memory()[0] // gib)))


def configuration(profile: str, settings: dict[str, Any], seeds: str = "", out: str = "") -> Config:
    """The configuration of a whole experiment, from the parts of a command line.

    Raises:
        ConfigError: a setting that cannot be used; the message says what to write instead.
    """
    for name, where in CHOSEN_ELSEWHERE.items():
        if name in settings:
            raise ConfigError(f"{name!r} is not a setting of a whole experiment; it is chosen by {where}")
    own = {"seeds": parse_seeds(seeds)} if seeds else {}
    name = hardware_profile() if profile == "auto" else profile
    return load_config(name, arm="base", **{**settings, **own}, output_root=out)


def plan(cfg: Config, settings: dict[str, Any], workers: int = 1) -> list[Job]:
    """Every job of an experiment, each after those it needs.

    Args:
        settings: what replaces the profile's settings, handed on to every notebook.
        workers: notebooks at a time. The evaluation of a seed comes behind the trainings of the next ``workers - 1``, so
            that the last ``workers`` evaluations run side by side and no core waits long at the end.
    """
    runs = cfg.results / "runs"

    def job(notebook: str, manifest: Path | None, key: str, needs: list[Job], run: Config | None = None) -> Job:
        name = notebook if run is None else f"{notebook[:2]}_{run.run_name}"
        own = {} if run is None else {"arm": run.arm} | ({} if run.arm == "base" else {"seed": run.seed})
        given = {**settings, "profile": cfg.profile, "output_root": str(cfg.output), **own}
        parameters = arguments(NOTEBOOKS / f"{notebook}.ipynb", given)
        progress = cfg.results / "progress" / f"{run.run_name if run else name}.json"
        of_model = (run or cfg).model_dump(mode="json")
        return Job(name, notebook, parameters, runs / f"{name}.ipynb", manifest, key, of_model, progress, needs)

    def evaluation(name: str, run: Config, after: list[Job]) -> Job:
        manifest = cfg.results / "controls" / f"{name}.json"
        one = job("05_benchmarks", manifest, fingerprints.controls_key(run), after, run)
        one.name, one.output = f"05_{name}", runs / f"05_{name}.ipynb"
        one.progress = cfg.results / "progress" / f"05_{name}.json"
        runs_tested = [tested.run_name for tested in fingerprints.tested_together(run)]
        one.parts = [cfg.results / kind / f"{tested}.json" for kind in ("records", "samples") for tested in runs_tested]
        return one

    base = cfg.of_arm("base")
    sets = job("01_data", cfg.results / "data.json", fingerprints.data_key(cfg), [])
    base_model = job("02_base_model", base.run_folder / "run.json", fingerprints.base_key(cfg), [])
    base_model.progress = cfg.results / "progress" / "base.json"
    evaluations = [evaluation("base", base, [base_model])]
    jobs, untested = [sets, base_model, evaluations[0]], []
    if not cfg.arms:  # the base model is compared with nothing
        return jobs
    for seed in cfg.seeds:
        trained: dict[str, Job] = {}
        # an arm whose tokens another one matches comes first
        for run in sorted((cfg.of_arm(arm, seed) for arm in cfg.arms), key=lambda run: run.match_tokens_of is not None):
            notebook = "03_grpo" if run.num_layers == 1 else "04_mgrpo"
            needs = [base_model] + ([trained[run.match_tokens_of]] if run.match_tokens_of else [])
            trained[run.arm] = job(notebook, run.run_folder / "run.json", fingerprints.run_key(run), needs, run)
        jobs += trained.values()
        first = cfg.of_arm(next(iter(cfg.arms)), seed)  # the notebook tests every arm of this seed
        untested.append(evaluation(f"seed{seed}", first, [evaluations[0], *trained.values()]))
        evaluations.append(untested[-1])
        if len(untested) == workers:
            jobs.append(untested.pop(0))
    figures = job("06_figures", cfg.results / "summary.json", fingerprints.summary_key(cfg), [sets, *evaluations])
    overview = job("00_overview", None, "", [figures])
    return jobs + untested + [figures, overview]


def reproduce(
    profile: str, settings: dict[str, Any], seeds: str = "", out: str = "", workers: int | None = None
) -> int:
    """Runs what is missing of a profile's experiment and prints the result table.

    Args:
        profile: name in ``profiles/``, or ``auto``: by hardware.
        settings: settings that replace the profile's, in every arm.
        seeds: training seeds such as ``0,1,2``; empty: the profile's.
        out: folder of ``results/`` and ``figures/``; empty: the repository.
        workers: notebooks at a time; by default as `default_workers` says, with one thread each if there are several.

    Returns:
        0, or 1 if a notebook or an upload failed; what was finished before stays, and the same call goes on from there.

    Raises:
        ConfigError: a setting or a data file that cannot be used, an experiment that cannot fit into the memory, or a folder
            where somebody else is at work; nothing has been started then. Or nothing more can be written; as after a failure.
        KeyboardInterrupt: it was stopped; as after a failure.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"workers={workers}: at least one notebook must run at a time; leave it out for one a core")
    cfg = configuration(profile, settings, seeds, out)
    if profile == "auto" and (hint := gpu_hint()):
        print(hint, flush=True)
    for name in settings:
        if arms := [arm for arm, changes in cfg.arms.items() if name in changes]:
            print(f"note: {name}={settings[name]} also replaces what the profile says of {', '.join(arms)}", flush=True)
    handed_on = {**settings, **({"seeds": cfg.seeds} if seeds else {})}
    if cfg.push_to_hub:  # uploaded once, at the end
        handed_on["push_to_hub"] = ""
    jobs = plan(cfg, handed_on)
    if not all(job.done() for job in jobs):
        jobs = plan(cfg, handed_on, workers or default_workers(cfg))
    for job in jobs:
        check_notebook(NOTEBOOKS / f"{job.notebook}.ipynb")
    pending = {job.notebook[:2] for job in jobs if not job.done()}
    if pending - {"06", "00"}:
        check_data(cfg)
    if pending - {"06", "00", "01"}:
        check_model(cfg)
        check_memory(cfg)
    with store.only_one(cfg.results):
        return _reproduce(cfg, jobs, workers)


def _reproduce(cfg: Config, jobs: list[Job], workers: int | None) -> int:
    """Runs what is not done, and prints the table."""
    # the overview only shows what others leave: it is pending if they are
    pending = [job for job in jobs if not job.done()]
    there = len(jobs) - len(pending)
    print(
        f"profile {cfg.profile}: {there} of {len(jobs)} steps are there already with these parameters, in {cfg.results}",
        flush=True,
    )
    _note_other_versions([job for job in jobs if job not in pending])
    if old := outdated(pending):
        steps = "; ".join(f"{_few(names)} ({why})" for why, names in old.items())
        print(
            f"note: there with another key, and made anew: {steps}; OUT=another_folder keeps the old ones", flush=True
        )
    if pending:
        workers, start = workers or default_workers(cfg), time.monotonic()
        seconds = _run(pending, workers)
        if seconds is None:
            return 1
        if len(pending) == len(jobs):  # the time of the whole chain, for the report
            whole = {
                "key": fingerprints.experiment_key(cfg),
                "seconds": round(time.monotonic() - start),
                "workers": workers,
                "steps": {name: round(s) for name, s in seconds.items()},
            }
            store.write_json(cfg.results / "timing.json", whole)
    if not cfg.arms:
        print(f"{_accuracies(cfg)}\nEverything is there, of the base model alone. Results: {cfg.results}", flush=True)
        return 0
    print((cfg.results / "table.md").read_text(encoding="utf-8"))
    print(f"Everything is there. Results: {cfg.results}\nFigures: {cfg.figures}", flush=True)
    return _publish_models(cfg)


def _accuracies(cfg: Config) -> str:
    """The base model's at both attempts, from its records; a line for each test set."""
    found = store.read_json(cfg.results / "records" / "base.json")["accuracy"]
    return "\n".join(
        f"{name}: {both['acc_t1']:.1%} right at attempt 1, {both['acc_t2']:.1%} at attempt 2"
        for name, both in found.items()
    )


def _publish_models(cfg: Config) -> int:
    """Cards beside the trained models and, where it is asked for, their upload; also of models that were there already."""
    from mgrpo_lib.experiment import hub  # pandas

    hub.write_cards(cfg)
    try:
        hub.push(cfg)
    except hub.UploadError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def check_notebook(path: Path) -> None:
    """Refuses a notebook whose cell of parameters is not the one tagged ``parameters``: papermill would run it with its
    defaults, silently.

    Raises:
        ConfigError: naming the notebook.
    """
    cells = store.read_json(path)["cells"]
    tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    if len(tagged) != 1 or not "".join(tagged[0]["source"]).startswith("# Parameters"):
        raise ConfigError(
            f"{path.name} has {len(tagged)} cells tagged 'parameters', not the one that begins with '# Parameters'; restore the "
            f"tag (git checkout {path})"
        )


def outdated(jobs: list[Job]) -> dict[str, list[str]]:
    """The steps that were once done with other settings, inputs or code: by what is known of the reason, their names.

    Args:
        jobs: each after those it needs.
    """
    found: dict[str, list[str]] = {}
    old: list[Job] = []
    for job in jobs:
        try:
            made = store.read_json(job.manifest) if job.manifest else {}
        except (FileNotFoundError, ValueError):  # not made yet, or cut off, which is said elsewhere
            continue
        if made and made.get("key") != job.key:
            found.setdefault(_what_changed(job, made, old), []).append(job.name)
            old.append(job)
    return found


def _what_changed(job: Job, made: dict[str, Any], old: list[Job]) -> str:
    """Why a manifest's key is another, in a few words."""
    params, code = made.get("params", {}), made.get("environment", {})
    names = [name for name in sorted(params.keys() & DECISIVE) if params[name] != job.settings[name]]
    reasons = [f"other {', '.join(names)}"] if names else []
    # 01 has to do with neither code, and before 05 nothing is evaluated
    if job.notebook >= "02" and code.get("training_version") != versions.TRAINING_VERSION:
        reasons.append(f"training version {code.get('training_version')}, now {versions.TRAINING_VERSION}")
    elif job.notebook >= "05" and code.get("evaluation_version") != versions.EVALUATION_VERSION:
        reasons.append(f"evaluation version {code.get('evaluation_version')}, now {versions.EVALUATION_VERSION}")
    if not reasons:
        follows = any(need in old for need in job.needs)
        reasons.append("what they are made from" if follows else "other settings, data or code")
    return " and ".join(reasons)


def _few(names: list[str]) -> str:
    return ", ".join(names) if len(names) < 5 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def _note_other_versions(jobs: list[Job]) -> None:
    """Says it if results that are reused were made with other package versions than are installed now."""
    installed = store.environment()["packages"]
    made = [store.read_json(job.manifest).get("environment", {}).get("packages", {}) for job in jobs if job.manifest]
    other = sorted({f"{name} {old[name]}" for old in made for name in old if old[name] != installed.get(name)})
    if other:
        print(
            f"note: reused steps were made with {', '.join(other)}; make them again with OUT=another_folder", flush=True
        )


# ---------------------------------------------------------------------------------------------- running
def _run(pending: list[Job], workers: int) -> dict[str, float] | None:
    """Runs the jobs, each after those it needs.

    Returns:
        The seconds of each, or None if one failed.

    Raises:
        KeyboardInterrupt: the user stopped it, or the system asked it to end; no notebook is left running.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite end by the system is treated as Ctrl-C
    start = time.monotonic()
    waiting, failed, finished = list(pending), [], {}
    running: dict[Job, tuple[subprocess.Popen, float]] = {}
    said = 0.0
    try:
        while waiting or running:
            for job in list(waiting):
                unmet = any(need in waiting or need in running or need in failed for need in job.needs)
                if not unmet and len(running) < workers and not failed:
                    waiting.remove(job)
                    running[job] = (_start(job, threads=1 if workers > 1 else None), time.monotonic())
            for job, (process, began) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[job]
                stamp, seconds = clock(time.monotonic() - start), time.monotonic() - began
                if process.returncode == 0 and job.fulfilled():
                    _publish(job)
                    finished[job.name] = seconds
                    print(f"[{stamp}] done    {job.name} in {clock(seconds)}", flush=True)
                else:
                    job.give_back()
                    failed.append(job)
                    print(f"[{stamp}] FAILED  {job.name}: {_reason(job, process.returncode)}", flush=True)
            if failed and not running:
                break
            if running and time.monotonic() - said >= (5 if sys.stdout.isatty() else 20):
                said = time.monotonic()
                eta = clock(_remaining(waiting, running, finished, workers))
                states = " | ".join(_state(job) for job in running)
                print(f"[{clock(said - start)}] {states} | {len(waiting)} waiting, about {eta} to go", flush=True)
            time.sleep(0.2)
    except KeyboardInterrupt:
        print(f"\nStopping {', '.join(job.name for job in running) or 'before the first step'} ...", flush=True)
        raise
    finally:  # also after a broken pipe or a bug: leave no notebook running
        _end(running)
    if failed:
        print(
            f"{len(failed)} step(s) failed; finished steps are kept, the same command goes on with the rest.",
            flush=True,
        )
        return None
    return finished


def _end(running: dict[Job, tuple[subprocess.Popen, float]]) -> None:
    """Ends notebooks; their kernels notice within a second. A second Ctrl-C in between would leave some."""
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
    for job in running:  # last: where nothing can be written any more this fails
        job.give_back()


def _start(job: Job, threads: int | None) -> subprocess.Popen:
    """Papermill in a process of its own, a kernel of its own inside."""
    job.output.parent.mkdir(parents=True, exist_ok=True)
    faster = {"GLIBC_TUNABLES": KEEP_MEMORY}
    if job.settings["model"] == "miniature":  # nothing is compiled; bitsandbytes would load the compiler, for a second
        faster["TORCHDYNAMO_DISABLE"] = "1"
    environment = {
        **faster,
        **os.environ,
        store.CHAIN: str(os.getpid()),  # the notebook may write into the folder that this chain holds
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
    call = [sys.executable, "-c", EXECUTE, notebook, executed, NOTEBOOKS, json.dumps(job.parameters)]
    with open(job.beside(".log"), "w", encoding="utf-8") as log:  # before anything is moved: this may fail
        job.progress.unlink(missing_ok=True)
        job.set_aside()
        how = {"stdout": log, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
        return subprocess.Popen(call, env=environment, preexec_fn=_end_with_the_chain, **how)


def _end_with_the_chain() -> None:
    """A notebook must not go on writing once its chain was killed: the next one makes the same results. Linux. Killed, not
    asked, so that it cannot refuse; without its parent a kernel ends within a second.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _publish(job: Job) -> None:
    """Gives the executed copy its final name and clears what is no longer needed."""
    job.beside(".running.ipynb").replace(job.output)
    job.forget()
    for suffix in (".log", ".failed.ipynb"):
        job.beside(suffix).unlink(missing_ok=True)


def _reason(job: Job, code: int) -> str:
    """Why a notebook failed, in a line, and where the rest is."""
    text = job.beside(".log").read_text(encoding="utf-8", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    if job.beside(".running.ipynb").exists():
        job.beside(".running.ipynb").replace(job.beside(".failed.ipynb"))
    if code == 0:
        why = f"it ended without leaving {job.manifest} as these parameters ask for"
    elif code < 0 or "Kernel died" in text or "DeadKernel" in text:
        why = "its kernel was killed, most often for want of memory; close other programs or use WORKERS=1"
    else:
        why = _no_room(job, lines) or (lines[-1] if lines else f"exit code {code}")
    return f"{why}\n          executed so far: {job.beside('.failed.ipynb').name}; log: {job.beside('.log')}"


def _no_room(job: Job, log: list[str]) -> str:
    """Why and what to do, where nothing more can be written and the notebook did not get to say so itself: on a full disk its
    log is empty or cut off.
    """
    if log and "OUT=folder" in log[-1]:
        return ""
    free, unwritable, _ = machine.disk(job.output.parent)
    full = any(os.strerror(number) in line for number in store.FULL for line in log)
    if not (full or unwritable):
        return ""
    why = f"nothing more can be written ({unwritable})" if unwritable else "a file could not be written to its end"
    return f"{why}; {job.output.parent} has {free:.3g} GB free: make room, or {store.ELSEWHERE}"


def _progress(job: Job) -> dict[str, Any]:
    """What the notebook last said of its progress; empty if nothing yet."""
    return store.read_json(job.progress) if job.progress.exists() else {}


def _state(job: Job) -> str:
    state = _progress(job)
    return f"{job.name} {state['step']}/{state['total']} {state['note']}" if state else job.name


def _remaining(waiting: list[Job], running: dict, finished: dict[str, float], workers: int) -> float:
    """Seconds to go: what runs by its own progress, what waits by the mean of its kind, or of everything known where
    none of its kind is.
    """
    left, known = 0.0, [(name[:2], seconds) for name, seconds in finished.items()]
    for job, (_, began) in running.items():
        state, gone = _progress(job), time.monotonic() - began
        to_go = state["to_go"] if state else max(10.0, gone)  # of what says nothing yet: as long again
        known.append((job.name[:2], gone + to_go))
        left += to_go
    for job in waiting:
        same = [seconds for number, seconds in known if number == job.name[:2]]
        other = [seconds for _, seconds in known] or [10.0]
        left += sum(same) / len(same) if same else sum(other) / len(other)
    return left / workers
