"""What a notebook takes, for its head and for the map: read from the runs in ``results/``, in this repository."""

import re
from collections import defaultdict
from pathlib import Path

import pandas as pd

from mgrpo_lib.experiment.machine import NOTEBOOK_GIB
from mgrpo_lib.experiment.progress import clock
from mgrpo_lib.experiment.settings import ROOT, load_config, profile_names
from mgrpo_lib.experiment.store import read_json


def takes(notebook: str, results: Path = ROOT / "results") -> pd.DataFrame:
    """Time (minutes:seconds) and memory of a notebook such as ``03_grpo``, a row for each profile that was run and each kind
    of run.

    The time is the notebook's as a whole where the chain ran from start to end (``timing.json``), else that of its training
    alone (``summary.json``). Memory is what the chain counts for a notebook of this kind before it starts one.
    """
    rows = []
    for profile in profile_names():
        found, how = _steps(profile, results)
        kinds = defaultdict(list)
        for name, seconds in found.items():
            if name.startswith(notebook[:2]):
                kinds[re.sub(r"-?seed\d+$", "", name[3:]) or "each seed"].append(seconds)
        model = load_config(profile, arm="base").model
        memory = f"{NOTEBOOK_GIB['miniature' if model == 'miniature' else 'llm']} GiB"
        for kind, seconds in kinds.items():
            times = dict.fromkeys([clock(min(seconds)), clock(max(seconds))])
            rows.append([profile, kind, " to ".join(times), how, memory])
    return pd.DataFrame(rows, columns=["profile", "run", "time", "measured", "memory, counted"]).set_index(
        ["profile", "run"]
    )


def chain(profile: str, results: Path = ROOT / "results") -> str:
    """What the whole experiment took, in a sentence; empty where it was never run from start to end."""
    file = results / profile / "timing.json"
    if not file.exists():
        return ""
    timing, where = read_json(file), _machine(read_json(results / profile / "summary.json"))
    return f"The whole chain of profile {profile}, {len(timing['steps'])} notebooks, took {clock(timing['seconds'])} on {where}."


def _machine(summary: dict) -> str:
    """What a profile was run on; the miniature leaves a GPU alone."""
    environment = summary["environment"]
    cores, used = f"{environment['cpu_cores']} CPU cores", summary["params"]["model"] != "miniature"
    return f"{cores} and {environment['gpu']}" if environment["gpu"] and used else cores


def _steps(profile: str, results: Path) -> tuple[dict[str, float], str]:
    """Seconds of each step of a profile's chain, and what they are of."""
    timing, summary = results / profile / "timing.json", results / profile / "summary.json"
    if not summary.exists():
        return {}, ""
    where = _machine(read_json(summary))
    if timing.exists():
        content = read_json(timing)
        return content["steps"], f"the notebook, {content['workers']} at a time on {where}"
    cfg, runs = load_config(profile, arm="base"), read_json(summary)["runs"]
    trained = {name: run for name, run in runs.items() if run["arm"] in cfg.arms}
    layers = {arm: cfg.of_arm(arm).num_layers for arm in cfg.arms}
    steps = {f"{'03' if layers[run['arm']] == 1 else '04'}_{name}": run["seconds"] for name, run in trained.items()}
    return {"02_base": runs["base"]["seconds"], **steps}, f"training alone, on {where}"
