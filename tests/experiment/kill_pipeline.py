"""Kills the smoke chain again and again, at random moments and in every stage, lets the same command go on, and compares
what the finished chain left with what an undisturbed one left: `make kill-test`. It is no part of the test suite, since it
takes a quarter of an hour.

Three kinds of death, all by SIGKILL, as when a session is cut off: of everything at once, of the chain alone, of one
notebook's kernel alone. A chain that was killed is started again at once, with the same command.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil

from mgrpo_lib.experiment.pipeline import EXECUTE
from mgrpo_lib.experiment.settings import ROOT
from mgrpo_lib.experiment.store import environment

STAGES = ["01_data", "02_base_model", "03_grpo", "04_mgrpo", "05_benchmarks", "06_figures", "00_overview"]
KINDS = ["everything", "the chain", "a kernel"]
# what may differ: how long something took, and what was installed or measured where
ALLOWED = ("seconds", "environment", "step_time")
UNCOMPARED = ("timing.json", "costs.csv", "costs.md")  # times alone, and tables of them
SETTINGS = "max_steps=12 checkpoint_steps=1"  # long enough that some kills fall between two checkpoints
LONGEST = 30.0  # seconds before a kill at a random moment; a stage takes up to 20


@dataclass
class Kill:
    of: str
    running: list[str]  # the notebooks that were killed, or lost their chain
    after: float  # seconds after the start of the command


def start(out: Path, log: Path) -> subprocess.Popen:
    call = [sys.executable, "-m", "mgrpo_lib", "reproduce", "--profile", "smoke", "--out", str(out)]
    call += ["--params", SETTINGS]
    with open(log, "w", encoding="utf-8") as file:
        return subprocess.Popen(call, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)


def descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def called(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def kernels(pid: int) -> list[psutil.Process]:
    """The notebooks' kernels among the descendants of a process."""
    return [process for process in descendants(pid) if "ipykernel_launcher" in called(process)]


def notebooks(chain: int) -> dict[psutil.Process, str]:
    """The kernels of a chain, and the notebook of each."""
    calls = {process: called(process) for process in descendants(chain)}
    papermills = {process.pid: call for process, call in calls.items() if EXECUTE in call}
    found = {}
    for process, call in calls.items():
        try:
            parent = papermills.get(process.ppid())
        except psutil.Error:
            continue
        if parent and "ipykernel_launcher" in call:
            found[process] = Path(parent[parent.index(EXECUTE) + 1]).stem
    return found


def kill(chain: int, kind: str, target: str | None, rng: random.Random) -> list[str]:
    """Kills, of kernels one of the target's; returns the notebooks that it hit, none if there was nothing to hit."""
    running = notebooks(chain)
    if not running or (target and target not in running.values()):
        return []
    victims = [psutil.Process(chain)]
    if kind == "everything":
        victims += descendants(chain)
    if kind == "a kernel":
        victims = [rng.choice([kernel for kernel, name in running.items() if target in (None, name)])]
        running = {victims[0]: running[victims[0]]}
    for victim in victims:
        try:
            victim.kill()
        except psutil.Error:  # it ended by itself
            continue
    return sorted(running.values())


def disturb(out: Path, log: Path, target: str | None, rng: random.Random) -> tuple[Kill | None, int]:
    """Starts the chain and kills it: while a notebook of the target runs, or after a random time.

    Returns:
        What was killed, None if it had come to its end before; and the chain's exit status.
    """
    chain, begun, delay = start(out, log), time.monotonic(), rng.uniform(1, LONGEST)
    kind, struck = rng.choice(KINDS), None
    while chain.poll() is None:
        running = notebooks(chain.pid)
        if target in running.values() if target else time.monotonic() - begun > delay and running:
            time.sleep(rng.uniform(0, 1.5) if target else 0)  # the shortest stages take two seconds
            if hit := kill(chain.pid, kind, target, rng):
                struck = Kill(kind, hit, time.monotonic() - begun)
                break
        time.sleep(0.05)
    return struck, chain.wait()


def results(out: Path) -> dict[str, object]:
    """Everything that a chain left and that must not depend on interruptions."""
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
    """The files in which two finished chains differ, and what one of them left over."""
    ours, theirs = results(disturbed), results(calm)
    left = [str(path) for kind in ("*.partial*", "*.running.ipynb") for path in disturbed.rglob(kind)]
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)) + left


def gone_on(out: Path) -> int:
    """Trainings of a finished chain that went on from a checkpoint."""
    return sum(
        "goes on from checkpoint" in path.read_text() for path in (out / "results" / "smoke" / "runs").glob("*.ipynb")
    )


def table(kills: list[Kill], finished: int, resumed: int, files: int, seed: int) -> str:
    stages, kinds = Counter(name for one in kills for name in one.running), Counter(one.of for one in kills)
    here = environment()
    lines = [
        "# Killed and started again",
        "",
        f"Written by `make kill-test` (`tests/experiment/kill_chain.py`). The smoke chain (`{SETTINGS}`) was killed by SIGKILL "
        f"at random moments{' and in every stage' if all(stages[stage] for stage in STAGES) else ''}, and the same command started again: "
        f"**{len(kills)} kills** ({', '.join(f'{kinds[kind]} of {kind}' for kind in KINDS)}), seed {seed}. {finished} chain(s) came to "
        f"their ends that way, {resumed} of their trainings from a checkpoint, and each left the same as an undisturbed one in all {files} files: "
        "`summary.json`, tables, records, metrics and weights, to the bit. Allowed to differ: "
        f"{', '.join(f'`{name}`' for name in ALLOWED)}, and {', '.join(f'`{name}`' for name in UNCOMPARED)}.",
        "",
        f"Training version {here['training_version']} (code {here['training_code']}), evaluation version {here['evaluation_version']}; Python {here['python']}, torch {here['packages']['torch']}, {here['cpu_cores']} cores.",
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=24)
    parser.add_argument("--every-stage", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", type=Path, help="where the table goes, in Markdown")
    given = parser.parse_args()
    rng, folder = random.Random(given.seed), Path(tempfile.mkdtemp(prefix="kill-chain-"))
    calm, disturbed, log = folder / "calm", folder / "disturbed", folder / "log"
    if start(calm, log).wait():
        sys.exit(log.read_text())
    files = len(results(calm))
    print(f"undisturbed chain done, {files} files to compare", flush=True)
    kills: list[Kill] = []
    missing, finished, resumed = (set(STAGES) if given.every_stage else set()), 0, 0
    while True:
        enough = len(kills) >= given.kills and not missing
        # once the random moments are through, the stages that they left out are waited for
        target = next((stage for stage in STAGES if stage in missing), None) if len(kills) >= given.kills else None
        struck, status = (None, start(disturbed, log).wait()) if enough else disturb(disturbed, log, target, rng)
        if struck:
            kills.append(struck)
            missing -= set(struck.running)
            print(
                f"kill {len(kills)} of {struck.of} after {struck.after:.1f} s in {', '.join(struck.running)}",
                flush=True,
            )
            continue
        if status:
            sys.exit(f"the chain failed by itself, in {disturbed}:\n{log.read_text()}")
        if differing := different(calm, disturbed):
            sys.exit(f"DIFFERENT from the undisturbed chain, in {disturbed}: {differing}")
        finished, resumed = finished + 1, resumed + gone_on(disturbed)
        print("at its end, and equal to the undisturbed chain", flush=True)
        if enough:
            break
        shutil.rmtree(disturbed)
    text = table(kills, finished, resumed, files, given.seed)
    print(text)
    if given.table:
        given.table.parent.mkdir(exist_ok=True)
        given.table.write_text(text, encoding="utf-8")
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
