"""The notebooks of an experiment as jobs: in which order they run, which are done, and why others are outdated. No torch."""

import re
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mgrpo_lib.experiment import keys, store, versions
from mgrpo_lib.experiment.notebook import arguments
from mgrpo_lib.experiment.settings import ROOT, Config, ConfigError, EvalSettings, ModelSettings, TrainSettings

NOTEBOOKS = ROOT / "notebooks"
QUICK = {
    "01_data": 5.0,
    "06_figures": 15.0,
    "10_when": 15.0,
    "00_overview": 5.0,
}  # seconds, about: too short to wait for a measurement
# the settings that results depend on
DECISIVE = {"seeds", "arms", *ModelSettings.model_fields, *TrainSettings.model_fields, *EvalSettings.model_fields}


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
    models: int = 1  # how many it tests

    @property
    def kind(self) -> str:
        """What jobs of about the same duration per model share: an arm's trainings, all evaluations."""
        own = self.name.split("/")[-1]  # without the base model's name
        return "05" if own.startswith("05") else re.sub(r"-seed\d+$", "", own)

    def done(self) -> bool:
        if not self.output.exists():
            return False
        if self.manifest is None:
            made = self.output.stat().st_mtime
            return all(need.done() and need.output.stat().st_mtime <= made for need in self.needs)
        return self.fulfilled()

    def fulfilled(self) -> bool:
        """True if the notebook left its result, made with these parameters, inputs and versions."""
        return self.manifest is None or store.finished(self.manifest, self.key) is not None

    def beside(self, suffix: str) -> Path:
        """A file beside the executed copy."""
        return self.output.with_name(self.output.stem + suffix)

    def set_aside(self) -> None:
        """Hide manifests that have no executed notebook: they came with the repository, and this run makes its own."""
        for manifest, hidden in self._hidden():
            if manifest.exists():
                manifest.replace(hidden)

    def give_back(self) -> None:
        """Restore the hidden manifests after a failure, unless new ones took their place."""
        for manifest, hidden in self._hidden():
            if manifest.exists():
                hidden.unlink(missing_ok=True)
            elif hidden.exists():
                hidden.replace(manifest)

    def publish(self) -> None:
        """Give the executed copy its final name, in one step, and remove what is no longer needed."""
        self.beside(".running.ipynb").replace(self.output)
        leftovers = [hidden for _, hidden in self._hidden()] + [self.beside(".log"), self.beside(".failed.ipynb")]
        for path in leftovers:
            path.unlink(missing_ok=True)

    def _hidden(self) -> list[tuple[Path, Path]]:
        manifests = [self.manifest, *self.parts] if self.manifest else []
        return [(path, path.with_name(f".{path.name}.before.partial")) for path in manifests]


def list_jobs(cfg: Config, settings: dict[str, Any], workers: int = 1) -> list[Job]:
    """List every job of an experiment, each after those it needs.

    Args:
        settings: what replaces the profile's settings; handed to every notebook.
        workers: notebooks at a time. A seed's evaluation comes after the trainings of the next ``workers - 1`` seeds. So
            the last ``workers`` evaluations run side by side and no core waits long at the end.
    """
    if cfg.bases and not cfg.base:
        return _list_for_each_base(cfg, settings, workers)

    job = partial(_job, cfg, settings)

    def evaluation(name: str, run: Config, needs: list[Job]) -> Job:
        manifest = cfg.results / "controls" / f"{name}.json"
        made = job(f"05_{name}", "05_benchmarks", manifest, keys.controls_key(run), needs, run)
        tested = keys.tested_together(run)
        made.parts = [one.manifest(kind) for kind in ("records", "samples") for one in tested]
        made.models = len(tested)
        return made

    base = cfg.of_arm("base")
    sets = job("01_data", "01_data", cfg.results / "data.json", keys.data_key(cfg), [])
    manifest = base.manifest("run")
    base_model = job("02_base_model", "02_base_model", manifest, keys.base_key(cfg), [])
    base_model.progress = cfg.results / "progress" / "base.json"
    evaluations = [evaluation("base", base, [base_model])]
    jobs, waiting = [sets, base_model, evaluations[0]], []
    if not cfg.arms:  # the base model is compared with nothing
        return jobs
    for seed in cfg.seeds:
        trained: dict[str, Job] = {}
        # an arm whose tokens another one matches comes first
        for run in sorted((cfg.of_arm(arm, seed) for arm in cfg.arms), key=lambda run: run.match_tokens_of is not None):
            notebook, manifest = "03_grpo" if run.num_layers == 1 else "04_mgrpo", run.manifest("run")
            needs = [base_model] + ([trained[run.match_tokens_of]] if run.match_tokens_of else [])
            name = f"{notebook[:2]}_{run.run_name}"
            trained[run.arm] = job(name, notebook, manifest, keys.run_key(run), needs, run)
        jobs += trained.values()
        first = cfg.of_arm(next(iter(cfg.arms)), seed)  # the notebook tests every arm of this seed
        evaluations.append(evaluation(f"seed{seed}", first, [evaluations[0], *trained.values()]))
        waiting.append(evaluations[-1])
        if len(waiting) == workers:
            jobs.append(waiting.pop(0))
    summary, key = cfg.results / "summary.json", keys.summary_key(cfg)
    figures = job("06_figures", "06_figures", summary, key, [sets, *evaluations])
    return [*jobs, *waiting, figures, job("00_overview", "00_overview", None, "", [figures])]


def _list_for_each_base(cfg: Config, settings: dict[str, Any], workers: int) -> list[Job]:
    """List the trainings and evaluations from each base model, and the notebook that compares them."""
    jobs = []
    for base in cfg.bases:
        own = list_jobs(cfg.of_base(base), {**settings, "base": base}, workers)
        jobs += [one for one in own if "02" <= one.notebook[:2] <= "05"]
        for one in own:
            one.name = f"{base}/{one.name}"
    dose, key = cfg.results / "dose.json", keys.dose_key(cfg)
    return [*jobs, _job(cfg, settings, "10_when", "10_when", dose, key, list(jobs))]


def _job(
    cfg: Config, settings: dict, name: str, notebook: str, manifest: Path | None, key: str, needs: list[Job],
    run: Config | None = None,
) -> Job:  # fmt: skip
    own = {} if run is None else {"arm": run.arm} | ({} if run.arm == "base" else {"seed": run.seed})
    given = {**settings, "profile": cfg.source, "output_root": str(cfg.output), **own}
    return Job(
        name=name,
        notebook=notebook,
        parameters=arguments(NOTEBOOKS / f"{notebook}.ipynb", given),
        output=cfg.results / "runs" / f"{name}.ipynb",
        manifest=manifest,
        key=key,
        settings=(run or cfg).model_dump(mode="json"),
        progress=cfg.results / "progress" / f"{run.run_name if run and notebook[:2] < '05' else name}.json",
        needs=needs,
    )


def check_notebook(path: Path) -> None:
    """Refuse a notebook whose parameters cell lost its tag: papermill would run it with its defaults, without a warning.

    Raises:
        ConfigError: names the notebook.
    """
    cells = store.read_json(path)["cells"]
    tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    if len(tagged) != 1 or not "".join(tagged[0]["source"]).startswith("# Parameters"):
        raise ConfigError(
            f"{path.name} has {len(tagged)} cells tagged 'parameters', not the one that begins with '# Parameters'; "
            f"restore the tag (git checkout {path})"
        )


# ------------------------------------------------------------------------------------------------- notes before a start
def outdated(jobs: list[Job]) -> dict[str, list[str]]:
    """Return the steps once done with other settings, inputs or versions: each known reason with their names.

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
    """Why a manifest has another key, in a few words."""
    params, code = made.get("params", {}), made.get("environment", {})
    names = [name for name in sorted(params.keys() & DECISIVE) if params[name] != job.settings[name]]
    reasons = [f"other {', '.join(names)}"] if names else []
    # data depend on neither version, and nothing is evaluated before 05
    if job.notebook >= "02" and code.get("training_version") != versions.TRAINING_VERSION:
        reasons.append(f"training version {code.get('training_version')}, now {versions.TRAINING_VERSION}")
    elif job.notebook >= "05" and code.get("evaluation_version") != versions.EVALUATION_VERSION:
        reasons.append(f"evaluation version {code.get('evaluation_version')}, now {versions.EVALUATION_VERSION}")
    if not reasons:
        follows = any(need in old for need in job.needs)
        reasons.append("what they are made from" if follows else "other settings, data or code")
    return " and ".join(reasons)


def notes(pending: list[Job], done: list[Job]) -> list[str]:
    """Return what a user should know before a start: steps that are made again, and other package versions."""
    said = []
    if old := outdated(pending):
        steps = "; ".join(f"{_few(names)} ({why})" for why, names in old.items())
        said.append(
            f"made with other settings, inputs or versions, and made again: {steps}; OUT=another_folder keeps the old ones"
        )
    installed = store.environment()["packages"]
    made = [store.read_json(job.manifest).get("environment", {}).get("packages", {}) for job in done if job.manifest]
    other = sorted({f"{name} {old[name]}" for old in made for name in old if old[name] != installed.get(name)})
    if other:
        said.append(f"reused steps were made with {', '.join(other)}; make them again with OUT=another_folder")
    return said


def _few(names: list[str]) -> str:
    return ", ".join(names) if len(names) < 5 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def time_to_go(
    waiting: list[Job], running: dict[Job, float], finished: dict[Job, float], told: dict[Job, float]
) -> float | None:
    """Return the seconds of work to go, or None while a kind of job has neither ended nor told its progress.

    Args:
        running, finished: seconds that each has taken.
        told: seconds to go of those running jobs that tell their progress. The steps of an evaluation are too unlike.
    """
    told = {job: left for job, left in told.items() if job.kind != "05"}
    kinds: dict[str, list[float]] = {}
    for job, seconds in {**finished, **{job: running[job] + left for job, left in told.items()}}.items():
        kinds.setdefault(job.kind, []).append(seconds / job.models)
    lengths = {kind: sum(seconds) / len(seconds) for kind, seconds in kinds.items()}
    for job, seconds in running.items():  # one that takes longer than those before it
        if job.kind in lengths and job not in told:
            lengths[job.kind] = max(lengths[job.kind], seconds / job.models)
    left = sum(told.values())
    for job in [*waiting, *(job for job in running if job not in told)]:
        if job.kind in lengths:
            whole = job.models * lengths[job.kind]
        elif job.notebook in QUICK:
            whole = QUICK[job.notebook]
        else:
            return None
        left += max(0.0, whole - running.get(job, 0.0))
    return left
