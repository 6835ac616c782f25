"""Kills the smoke chain again and again, at random moments and in every stage, lets the same command go on, and compares the
results with those of a chain that nobody disturbed. `python tests/kill_chain.py`; not part of the test suite, since it takes a quarter
of an hour.

Three kinds of death, all by SIGKILL, as when a session is cut off: of everything at once, of the chain alone, of one
notebook's kernel alone.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
STAGES = ["01_data", "02_base_model", "03_grpo", "04_mgrpo", "05_benchmarks", "06_figures"]
# what may differ: how long something took, and what was installed or measured where
ALLOWED = {"seconds", "environment", "step_time"}


def start(out: Path) -> subprocess.Popen:
    call = [sys.executable, "-m", "mgrpo_lib", "reproduce", "--profile", "smoke", "--out", str(out)]
    return subprocess.Popen(call, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def notebooks(chain: psutil.Process) -> dict[psutil.Process, str]:
    """The papermill processes of a chain, and the notebook of each."""
    found = {}
    for process in chain.children():
        try:
            call = process.cmdline()
        except psutil.Error:
            continue
        if "papermill" in call:
            found[process] = Path(call[call.index("papermill") + 1]).stem
    return found


def descend(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def kill(chain: subprocess.Popen, kind: str, rng: random.Random) -> bool:
    """Whether there was something to kill."""
    parent = psutil.Process(chain.pid)
    victims = [parent]
    if kind == "everything":
        victims += descend(parent)
    if kind == "a kernel":
        kernels = [
            child for one in notebooks(parent) for child in descend(one) if "ipykernel_launcher" in child.cmdline()
        ]
        victims = [rng.choice(kernels)] if kernels else []
    for victim in victims:
        try:
            victim.kill()
        except psutil.Error:
            continue
    return bool(victims)


def results(out: Path) -> dict[str, object]:
    """Everything that a chain left and that must not depend on interruptions."""
    folder, found = out / "results" / "smoke", {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".json" and not name.startswith("progress") and "model" not in path.parts:
            found[name] = strip(json.loads(path.read_text()))
        elif path.name == "metrics.jsonl":
            found[name] = [strip(json.loads(line)) for line in path.read_text().splitlines()]
        elif path.suffix in (".gz", ".safetensors", ".csv") or (path.suffix == ".md" and "model" not in path.parts):
            found[name] = path.read_bytes()
    del found["timing.json"]
    return found


def strip(value):
    if isinstance(value, dict):
        return {key: strip(item) for key, item in value.items() if key not in ALLOWED}
    return [strip(item) for item in value] if isinstance(value, list) else value


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", type=Path, help="where the table goes, in Markdown")
    given = parser.parse_args()
    rng, folder = random.Random(given.seed), Path(tempfile.mkdtemp(prefix="kill-chain-"))
    calm, disturbed = folder / "calm", folder / "disturbed"
    undisturbed = start(calm)
    text, _ = undisturbed.communicate()
    if undisturbed.returncode:
        sys.exit(text)
    print("undisturbed chain done", flush=True)
    rows, missing = [], list(STAGES)
    while len(rows) < given.kills or missing:
        if not rows or rows[-1]["left"] == "nothing":  # a new chain, from the start
            shutil.rmtree(disturbed, ignore_errors=True)
        chain, begun = start(disturbed), time.monotonic()
        target = missing[0] if missing and (len(rows) >= given.kills or rng.random() < 0.5) else None
        delay = rng.uniform(1, 25)
        at, hit = None, False
        while chain.poll() is None:
            now = notebooks(psutil.Process(chain.pid))
            ready = target in now.values() if target else time.monotonic() - begun > delay
            if ready and now:
                time.sleep(rng.uniform(0, 4))
                at = sorted(set(notebooks(psutil.Process(chain.pid)).values()) if chain.poll() is None else set())
                kind = rng.choice(["everything", "the chain", "a kernel"])
                hit = bool(at) and chain.poll() is None and kill(chain, kind, rng)
                break
            time.sleep(0.05)
        text, _ = chain.communicate()
        finished = chain.returncode == 0
        if hit:
            missing = [stage for stage in missing if stage not in at]
            rows.append({"kill": len(rows) + 1, "of": kind, "while running": ", ".join(at), "left": "something"})
            print(rows[-1], flush=True)
            time.sleep(2)  # what lost its parent ends
        if finished and not check(calm, disturbed, rows):
            return 1
    chain = start(disturbed)
    text, _ = chain.communicate()
    if chain.returncode:
        sys.exit(text)
    if not check(calm, disturbed, rows):
        return 1
    lines = ["| kill | of | while running |", "| --- | --- | --- |"]
    lines += [f"| {row['kill']} | {row['of']} | {row['while running']} |" for row in rows]
    table = "\n".join(lines) + "\n"
    print(table)
    if given.table:
        given.table.write_text(table)
    print(f"{len(rows)} kills, every finished chain equal to the undisturbed one; allowed to differ: {sorted(ALLOWED)}")
    shutil.rmtree(folder)
    return 0


def check(calm: Path, disturbed: Path, rows: list[dict]) -> bool:
    ours, theirs = results(disturbed), results(calm)
    different = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    print("equal to the undisturbed chain" if not different else f"DIFFERENT: {different} in {disturbed}", flush=True)
    if rows:
        rows[-1]["left"] = "nothing"
    return not different


if __name__ == "__main__":
    sys.exit(main())
