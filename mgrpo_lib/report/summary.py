"""``summary.json``: every number that a table, a figure or a page shows, computed from the records once."""

from typing import Any

import numpy as np

from mgrpo_lib.experiment import keys, store
from mgrpo_lib.experiment.settings import Config
from mgrpo_lib.experiment.versions import NAMES, REPORT_VERSION
from mgrpo_lib.report import tables, verdicts
from mgrpo_lib.report.records import Records
from mgrpo_lib.report.statistics import accuracy_interval, estimate, minimum_detectable_effect, transitions

CONTRASTS = [
    ("mgrpo", "grpo_matched"),
    ("mgrpo", "grpo"),
    ("grpo", "base"),
    ("grpo_matched", "base"),
    ("mgrpo", "base"),
]
OF_RUN = ("arm", "seed", "train_tokens", "processed_tokens", "steps", "seconds", "weight_change", "validation")
OF_RUN += ("skipped_steps", "warnings", "key")


def summarise(cfg: Config) -> dict[str, Any]:
    """Write ``summary.json`` and the tables of an experiment from its records, and return the summary.

    Rows are fractions, means over seeds, each with a 95% interval ``<name>_ci`` (over seeds and problems; over problems
    for the base model, which is one model). ``contrasts`` are differences between arms on the same problems.
    ``versions`` are those of the code that made the results. The rest comes from `mgrpo_lib.report.verdicts`; it is
    empty where the profile lacks the arms or controls for it.
    """
    records = Records(cfg)
    hypotheses, controls = verdicts.hypotheses(records), verdicts.controls(records)
    content = {
        "profile": cfg.profile,
        "key": summary_key(experiment(records)),
        "params": cfg.model_dump(exclude={"profile", "arm", "seed", "output_root", "data_dir"}),
        "environment": list(records.runs.values())[-1]["environment"],
        "versions": {kind: sorted(found) for kind, found in records.versions.items()},
        "verdicts": verdicts.overall(hypotheses),
        "hypotheses": hypotheses,
        "not_beaten": verdicts.self_correction(controls),
        "controls": controls,
        "rows": [_row(records, arm, name) for arm in records.seeds for name in cfg.benchmarks],
        "contrasts": [
            _contrast(left, right, name, attempt, records)
            for left, right in pairs(list(records.seeds))
            for name in cfg.benchmarks
            for attempt in (1, 2)
        ],
        "cross_refinement": verdicts.cross_refinement(records),
        "budgets": verdicts.budgets(records),
        "robustness": verdicts.robustness(records),
        "runs": {name: {field: run.get(field) for field in OF_RUN} for name, run in records.runs.items()},
    }
    tables.write(content, cfg.results)
    store.write_json(cfg.results / "summary.json", content)
    return content


def experiment(records: Records) -> str:
    """Return `keys.experiment_key` for the versions that made the records."""
    return keys.key_of("experiment", list(records.keys.items()))


def summary_key(experiment: str) -> str:
    """Return the summary's key: that of the experiment, and the version of the code that computes the numbers."""
    return keys.key_of("summary", experiment, NAMES["report"][REPORT_VERSION])


def pairs(arms: list[str]) -> list[tuple[str, str]]:
    """Return the arms to compare: the standard pairs, and each variant with `mgrpo` and the token-matched baseline."""
    standard = {arm for pair in CONTRASTS for arm in pair}
    every = CONTRASTS + [(arm, other) for arm in arms if arm not in standard for other in ("mgrpo", "grpo_matched")]
    return [(left, right) for left, right in every if left in arms and right in arms]


def _row(records: Records, arm: str, benchmark: str) -> dict[str, Any]:
    first, second = (records.chain(arm, benchmark, f"correct_{k}").astype(bool) for k in (1, 2))
    shares = {"acc_t1": first, "acc_t2": second, "i_to_c": ~first & second, "c_to_i": first & ~second}
    change = estimate(second * 1.0 - first)
    return {
        "arm": arm,
        "benchmark": benchmark,
        "n": first.shape[1],
        "seeds": [seed for seed in records.seeds[arm] if seed is not None],
        **transitions(first, second),
        **{f"{name}_ci": list(accuracy_interval(array)) for name, array in shares.items()},
        "delta_t1_t2_ci": [change["low"], change["high"]],
        "acc_t1_seeds": first.mean(1).tolist(),
        "acc_t2_seeds": second.mean(1).tolist(),
        **verdicts.changes(records, arm, benchmark),
        "train_tokens": float(np.mean([run["train_tokens"] for run in records.runs.values() if run["arm"] == arm])),
        "test_tokens": [float(records.chain(arm, benchmark, f"tokens_{k}").mean()) for k in (1, 2)],
    }


def _contrast(left: str, right: str, benchmark: str, attempt: int, records: Records) -> dict[str, Any]:
    ours, theirs = (records.chain(arm, benchmark, f"correct_{attempt}").astype(float) for arm in (left, right))
    found, place = estimate(ours - theirs), {"arm": left, "against": right, "benchmark": benchmark, "attempt": attempt}
    row = {**place, "difference": found["mean"], "ci": [found["low"], found["high"]]}
    undecided = found["low"] <= 0 <= found["high"]
    return {**row, "detectable": minimum_detectable_effect(ours - theirs)} if undecided else row
