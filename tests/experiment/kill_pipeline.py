"""Kill the smoke pipeline at random moments and in every stage, start it again each time, and compare its results with an
undisturbed run: `make kill-test`. Not part of the test suite: it takes a quarter of an hour.

Three kinds of death, all by SIGKILL: of everything, of the pipeline alone, of one notebook's kernel alone.
"""

import argparse
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import psutil

from mgrpo_lib.experiment.settings import ROOT
from mgrpo_lib.experiment.store import environment

STAGES = ["01_data", "02_base_model", "03_grpo", "04_mgrpo", "05_benchmarks", "06_figures", "00_overview"]
KINDS = ["everything", "the pipeline", "a kernel"]
# what may differ: how long something took, and what was installed or measured where
ALLOWED = ("seconds", "environment", "step_time")
UNCOMPARED = ("timing.json", "costs.csv", "costs.md")  # times alone, and tables of them
SETTINGS = "max_steps=12 checkpoint_steps=1"  # long enough that some kills fall between two checkpoints
LONGEST = 30.0  # seconds before a kill at a random moment; a stage takes up to 20


class Kill(NamedTuple):
    of: str
    running: list[str]  # the notebooks that were killed, or lost their pipeline
    after: float  # seconds after the start of the command


KERNEL = "mgrpo_lib.experiment.kernel"  # the module that executes a notebook


def start(out: Path, log: Path) -> subprocess.Popen:
    call = [
        sys.executable,
        "-m",
        "mgrpo_lib",
        "reproduce",
        "--profile",
        "smoke",
        "--out",
        str(out),
        "--set",
        *SETTINGS.split(),
    ]
    with open(log, "w", encoding="utf-8") as file:
        return subprocess.Popen(call, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)


def descendants(pid: int) -> dict[psutil.Process, tuple[int, list[str]]]:
    """The descendants of a process, each with its parent and its command; some may have ended meanwhile."""
    found = {}
    try:
        for process in psutil.Process(pid).children(recursive=True):
            with process.oneshot():
                found[process] = process.ppid(), process.cmdline()
    except psutil.Error:
        pass
    return found


def kernels(pid: int) -> list[psutil.Process]:
    """The notebooks' kernels among the descendants of a process."""
    return [process for process, (_, call) in descendants(pid).items() if "ipykernel_launcher" in call]


def notebooks(pipeline: int) -> dict[psutil.Process, str]:
    """The kernels of a pipeline, and the notebook of each."""
    found = descendants(pipeline)
    papermills = {process.pid: call[call.index(KERNEL) + 1] for process, (_, call) in found.items() if KERNEL in call}
    return {
        process: Path(papermills[parent]).stem
        for process, (parent, call) in found.items()
        if parent in papermills and "ipykernel_launcher" in call
    }


def kill(pipeline: int, kind: str, target: str | None, rng: random.Random) -> list[str]:
    """Kill, and return the notebooks that were hit, none if there was nothing to hit; of kernels, one of the target's."""
    running = notebooks(pipeline)
    hit = [kernel for kernel, name in running.items() if target in (None, name)]
    if not hit:
        return []
    victims = [psutil.Process(pipeline)] + (list(descendants(pipeline)) if kind == "everything" else [])
    if kind == "a kernel":
        victims = [rng.choice(hit)]
        running = {victims[0]: running[victims[0]]}
    for victim in victims:
        try:
            victim.kill()
        except psutil.Error:  # it ended by itself
            continue
    return sorted(running.values())


def disturb(out: Path, log: Path, target: str | None, rng: random.Random) -> tuple[Kill | None, int]:
    """Start the pipeline and kill it: while a notebook of the target runs, or after a random time.

    Returns:
        What was killed, None if it ended first; and the pipeline's exit status.
    """
    pipeline, begun, delay = start(out, log), time.monotonic(), rng.uniform(1, LONGEST)
    kind = rng.choice(KINDS)
    while pipeline.poll() is None:
        running = notebooks(pipeline.pid)
        if target in running.values() if target else time.monotonic() - begun > delay and running:
            time.sleep(rng.uniform(0, 1.5) if target else 0)  # the shortest stages take two seconds
            if hit := kill(pipeline.pid, kind, target, rng):
                return Kill(kind, hit, time.monotonic() - begun), pipeline.wait()
        time.sleep(0.05)
    return None, pipeline.wait()


def results(out: Path) -> dict[str, object]:
    """Everything that a pipeline left and that must not depend on interruptions."""
    folder, found = out / "results" / "smoke", {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if name.startswith("progress") or path.name in UNCOMPARED or (path.suffix == ".md" and "model" in path.parts):
            continue
        if path.suffix == ".json":
            found[name] = strip(json.loads(path.read_text().replace(str(out), "OUT")))
            if path.name == "adapter_config.json":  # names its base model's folder, and writes a set in any order
                found[name]["target_modules"].sort()
        elif path.name == "metrics.jsonl":
            found[name] = [strip(json.loads(line)) for line in path.read_text().splitlines()]
        elif path.suffix in (".gz", ".safetensors", ".csv", ".md"):
            found[name] = path.read_bytes()
    return found


def strip(value):
    if isinstance(value, dict):
        return {key: strip(item) for key, item in value.items() if key.rpartition("/")[2] not in ALLOWED}
    return [strip(item) for item in value] if isinstance(value, list) else value


def different(calm: Path, disturbed: Path) -> list[str]:
    """The files in which two finished pipelines differ, and what the disturbed one left over."""
    ours, theirs = results(disturbed), results(calm)
    left = [str(path) for kind in ("*.partial*", "*.running.ipynb") for path in disturbed.rglob(kind)]
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)) + left


def continued(out: Path) -> int:
    """The trainings of a finished pipeline that continued from a checkpoint, as their notebooks say."""
    copies = (out / "results" / "smoke" / "runs").glob("*.ipynb")
    return sum(re.search(r"from checkpoint-\d", path.read_text()) is not None for path in copies)


def table(kills: list[Kill], finished: int, resumed: int, files: int, seed: int) -> str:
    """The report in Markdown."""
    stages, kinds, here = (
        Counter(name for k in kills for name in k.running),
        Counter(k.of for k in kills),
        environment(),
    )
    everywhere = " and in every stage" if all(stages[stage] for stage in STAGES) else ""
    counts, allowed = ", ".join(f"{kinds[kind]} of {kind}" for kind in KINDS), ", ".join(f"`{n}`" for n in ALLOWED)
    lines = [
        "# Killed and started again",
        "",
        f"Written by `make kill-test` (`tests/experiment/kill_pipeline.py`). The smoke pipeline (`{SETTINGS}`) was killed by "
        f"SIGKILL at random moments{everywhere}, and the same command started again: **{len(kills)} kills** ({counts}), seed "
        f"{seed}. So it came to its end {finished} times, and {resumed} of its trainings continued from a checkpoint. Each time it "
        f"left the same as an undisturbed run in all {files} files: `summary.json`, tables, records, metrics and weights, to the "
        f"bit. Allowed to differ: {allowed}, and {', '.join(f'`{n}`' for n in UNCOMPARED)}.",
        "",
        f"Training version {here['training_version']} (code {here['training_code']}), evaluation version "
        f"{here['evaluation_version']}; Python {here['python']}, torch {here['packages']['torch']}, {here['cpu_cores']} cores.",
        "",
        "| stage | times hit |",
        "| --- | --- |",
        *(f"| {stage} | {stages[stage]} |" for stage in STAGES),
        "",
        "| kill | of | after, s | while running |",
        "| --- | --- | --- | --- |",
        *(f"| {i} | {k.of} | {k.after:.1f} | {', '.join(k.running)} |" for i, k in enumerate(kills, 1)),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=24)
    parser.add_argument("--every-stage", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", type=Path, help="where the table goes, in Markdown")
    given = parser.parse_args()
    rng, folder = random.Random(given.seed), Path(tempfile.mkdtemp(prefix="kill-pipeline-"))
    calm, disturbed, log = folder / "calm", folder / "disturbed", folder / "log"
    if start(calm, log).wait():
        sys.exit(log.read_text())
    files = len(results(calm))
    print(f"undisturbed run done, {files} files to compare", flush=True)
    kills: list[Kill] = []
    missing, finished, resumed, enough = set(STAGES) if given.every_stage else set(), 0, 0, False
    while not enough:
        # after the random moments, the stages that they left out are waited for
        random_ones = len(kills) < given.kills
        enough = not random_ones and not missing
        target = None if random_ones else next((stage for stage in STAGES if stage in missing), None)
        struck, status = (None, start(disturbed, log).wait()) if enough else disturb(disturbed, log, target, rng)
        if struck:
            kills.append(struck)
            missing -= set(struck.running)
            where = ", ".join(struck.running)
            print(f"kill {len(kills)} of {struck.of} after {struck.after:.1f} s in {where}", flush=True)
            continue
        if status:
            sys.exit(f"the pipeline failed by itself, in {disturbed}:\n{log.read_text()}")
        if differing := different(calm, disturbed):
            sys.exit(f"DIFFERENT from the undisturbed run, in {disturbed}: {differing}")
        finished, resumed = finished + 1, resumed + continued(disturbed)
        print("at its end, and equal to the undisturbed run", flush=True)
        shutil.rmtree(disturbed)
    text = table(kills, finished, resumed, files, given.seed)
    print(text)
    if given.table:
        given.table.parent.mkdir(exist_ok=True)
        given.table.write_text(text, encoding="utf-8")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
