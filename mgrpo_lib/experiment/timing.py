"""What each notebook takes, read from the results in this repository."""

import re
from pathlib import Path

import pandas as pd

from mgrpo_lib.experiment.machine import NOTEBOOK_GIB
from mgrpo_lib.experiment.progress import clock
from mgrpo_lib.experiment.settings import ROOT, load_config, profile_names
from mgrpo_lib.experiment.store import read_json


def takes(notebook: str, results: Path = ROOT / "results") -> pd.DataFrame:
    """Return time (minutes:seconds) and memory of a notebook such as ``03_grpo``, a row per profile and kind of run.

    The time is the whole notebook's where the pipeline ran from start to end (``timing.json``), else that of the training
    alone (``summary.json``). Memory is what the pipeline counts for such a notebook before it starts one.
    """
    rows = []
    for profile in profile_names():
        steps, how = _steps(profile, results)
        kinds: dict[str, list[float]] = {}
        for name, seconds in steps.items():
            if name[:2] == notebook[:2]:
                kinds.setdefault(re.sub(r"-?seed\d+$", "", name[3:]) or "each seed", []).append(seconds)
        memory = NOTEBOOK_GIB["miniature" if load_config(profile, arm="base").is_miniature else "llm"]
        for kind, seconds in kinds.items():
            times = dict.fromkeys([clock(min(seconds)), clock(max(seconds))])
            rows.append([profile, kind, " to ".join(times), how, f"{memory} GiB"])
    columns = ["profile", "run", "time", "measured", "memory, counted"]
    return pd.DataFrame(rows, columns=columns).set_index(["profile", "run"])


def seconds(profile: str, results: Path = ROOT / "results") -> float:
    """Return what the whole pipeline of a profile took, from start to end."""
    return read_json(results / profile / "timing.json")["seconds"]


def whole(profile: str, results: Path = ROOT / "results") -> str:
    """Say in a sentence what the whole pipeline took; empty if it never ran from start to end."""
    file = results / profile / "timing.json"
    if not file.exists():
        return ""
    summary = next(path for name in ("summary.json", "dose.json") if (path := results / profile / name).exists())
    timing, where = read_json(file), _machine(read_json(summary))
    steps, time = len(timing["steps"]), clock(timing["seconds"])
    return f"The whole pipeline of profile {profile}, {steps} notebooks, took {time} on {where}, with all its seeds."


def _machine(summary: dict) -> str:
    """What a profile ran on; the miniature leaves a GPU alone."""
    environment, model = summary["environment"], summary["params"]["model"]
    cores, gpu = f"{environment['cpu_cores']} CPU cores", environment["gpu"]
    return f"{cores} and {gpu}" if gpu and model != "miniature" else cores


def _steps(profile: str, results: Path) -> tuple[dict[str, float], str]:
    """Seconds of each step of a profile's pipeline, and what they measure."""
    timing, file = results / profile / "timing.json", results / profile / "summary.json"
    if not file.exists():
        return {}, ""
    summary = read_json(file)
    if timing.exists():
        content = read_json(timing)
        return content["steps"], f"the notebook, {content['workers']} at a time on {_machine(summary)}"
    cfg, steps = load_config(profile, arm="base"), {"02_base": summary["runs"]["base"]["seconds"]}
    for name, run in summary["runs"].items():
        if run["arm"] in cfg.arms:
            number = "03" if cfg.of_arm(run["arm"]).num_layers == 1 else "04"
            steps[f"{number}_{name}"] = run["seconds"]
    return steps, f"training alone, on {_machine(summary)}"
