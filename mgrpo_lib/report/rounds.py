"""Accuracy by number of rounds: numbers, table and figure from the records that `mgrpo_lib.explore.ask` left (no torch)."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from mgrpo_lib.experiment import keys, store
from mgrpo_lib.experiment.settings import Config
from mgrpo_lib.experiment.versions import CURRENT, REPORT_VERSION, Versions
from mgrpo_lib.report import style
from mgrpo_lib.report.records import expected_key
from mgrpo_lib.report.statistics import accuracy_interval, estimate
from mgrpo_lib.report.tables import name_of, ordered_arms, percent

ROUNDS = 5  # attempts: a first one, and four corrections


def rounds_key(run: Config, count: int, made: Versions = CURRENT) -> str:
    """Return the key of a model's rounds: all that its evaluation depends on, and their number."""
    return keys.key_of("rounds", keys.evaluation_key(run, made), count)


def _key(run: Config, count: int) -> str:
    """Return the key of a model's rounds for the versions that its manifest names."""
    return expected_key(lambda run, made=CURRENT: rounds_key(run, count, made), run, run.manifest("rounds"))


def summary_key(cfg: Config, count: int) -> str:
    """Return the key of ``rounds.json``."""
    return keys.key_of("rounds summary", [_key(run, count) for run in keys.all_runs(cfg)], REPORT_VERSION)


def finished(cfg: Config, count: int = ROUNDS) -> dict[str, Any] | None:
    """Return ``rounds.json`` of an experiment, if it was made from its records with these parameters."""
    return store.finished(cfg.results / "rounds.json", summary_key(cfg, count))


def measured(cfg: Config, count: int = ROUNDS) -> bool:
    """Return whether the records of every model are there, made with these parameters."""
    return all(store.finished(run.manifest("rounds"), _key(run, count)) for run in keys.all_runs(cfg))


def summarise(cfg: Config, count: int = ROUNDS) -> dict[str, Any]:
    """Write ``rounds.json`` and its figure from the records of every model, and return the numbers.

    A row holds of one arm and benchmark, with an entry for each round: ``accuracy`` (fractions, means over seeds),
    ``accuracy_ci`` (95%, over seeds and problems), ``accuracy_seeds``; the ``gain`` over the first attempt on the same
    problems with ``gain_ci``; and ``changed``, the share of problems with another answer than the round before.

    Raises:
        FileNotFoundError: the rounds of a model were not measured with these parameters.
    """
    rows = []
    for arm in ("base", *cfg.arms):
        runs = [cfg.of_arm("base")] if arm == "base" else [cfg.of_arm(arm, seed) for seed in cfg.seeds]
        records = [store.read_records(run.manifest("rounds"), _key(run, count)) for run in runs]
        for name in cfg.benchmarks:
            own = [[row for row in one if row["benchmark"] == name] for one in records]
            # (rounds, seeds, problems)
            right = np.array([[row["correct"] for row in one] for one in own], dtype=float).transpose(2, 0, 1)
            said = np.array([[row["answer"] for row in one] for one in own], dtype=object).transpose(2, 0, 1)
            gains = [estimate(one - right[0]) for one in right]
            rows.append(
                {
                    "arm": arm,
                    "benchmark": name,
                    "n": right.shape[2],
                    "seeds": [] if arm == "base" else cfg.seeds,
                    "accuracy": right.mean((1, 2)).tolist(),
                    "accuracy_ci": [list(accuracy_interval(one)) for one in right],
                    "accuracy_seeds": right.mean(2).tolist(),
                    "gain": [gain["mean"] for gain in gains],
                    "gain_ci": [[gain["low"], gain["high"]] for gain in gains],
                    "changed": [0.0, *(said[1:] != said[:-1]).mean((1, 2)).tolist()],
                }
            )
    made = store.read_json(cfg.of_arm("base").manifest("rounds"))["environment"]
    facts = {"profile": cfg.profile, "rounds": count, "params": {"benchmarks": cfg.benchmarks, "seeds": cfg.seeds}}
    content = {"key": summary_key(cfg, count), **facts, "rows": rows, "environment": made}
    store.write_json(cfg.results / "rounds.json", content)
    drawn = figure(content)
    style.save(drawn, cfg.figures, "rounds", "Accuracy by number of rounds")
    plt.close(drawn)
    return content


def _row(summary: dict, arm: str, benchmark: str) -> dict:
    return next(row for row in summary["rows"] if (row["arm"], row["benchmark"]) == (arm, benchmark))


def table(summary: dict) -> pd.DataFrame:
    """Show accuracy after each round, and what the last round gained over the first."""
    rows = []
    for name in summary["params"]["benchmarks"]:
        for arm in ordered_arms(summary):
            row, cells = _row(summary, arm, name), {"benchmark": name, "arm": name_of(arm)}
            for k, cell in enumerate(zip(row["accuracy"], row["accuracy_ci"], strict=True), 1):
                cells[f"attempt {k}, %"] = percent(*cell)
            rows.append({**cells, "last - first": percent(row["gain"][-1], row["gain_ci"][-1], sign=True)})
    return pd.DataFrame(rows)


def figure(summary: dict) -> plt.Figure:
    """Draw accuracy against the number of rounds, for each arm and benchmark, with 95% intervals."""
    arms = ordered_arms(summary)
    drawn, axes, spare = style.panels(summary["params"]["benchmarks"], 1.9, sharey=True)
    for benchmark, axis in axes.items():
        for i, arm in enumerate(arms):
            row = _row(summary, arm, benchmark)
            x = np.arange(1, summary["rounds"] + 1) + 0.08 * (i - (len(arms) - 1) / 2)
            mean, (low, high) = 100 * np.array(row["accuracy"]), 100 * np.array(row["accuracy_ci"]).T
            errors = [np.maximum(mean - low, 0), np.maximum(high - mean, 0)]
            color, marker = style.look_of(arm, arms)
            axis.errorbar(x, mean, yerr=errors, marker=marker, ms=3.5, lw=1.1, elinewidth=0.9, color=color)
        axis.set_xticks(range(1, summary["rounds"] + 1))
        axis.set_ylim(0, 102)
    drawn.supylabel("right answers, %")
    looks = [(name_of(arm), *style.look_of(arm, arms)) for arm in arms]
    handles = [style.key(name, color=color, marker=marker) for name, color, marker in looks]
    title = f"Right answers by round, 95% intervals over seeds and problems. Profile {summary['profile']}"
    style.finish(drawn, title, "attempt: the first, then corrections of the one before", handles, spare)
    return drawn
