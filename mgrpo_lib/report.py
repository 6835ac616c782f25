"""Numbers and tables from result files alone: no torch, no model, seconds. Every number that README or a notebook shows
comes through here.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mgrpo_lib import store
from mgrpo_lib.config import ROOT, Config, load_config
from mgrpo_lib.stats import bootstrap, transitions

NAMES = {
    "base": "base model",
    "grpo": "GRPO",
    "grpo_matched": "GRPO, matched tokens",
    "mgrpo": "MGRPO",
    "layers_3": "MGRPO, 3 layers",
    "one_draft": "MGRPO, 1 draft x 8",
    "wrong_drafts": "MGRPO, wrong drafts only",
    "paper_literal": "MGRPO, successes only, r2 - r1",
    "alternating": "MGRPO, layers in turn",
}
CONTRASTS = [("mgrpo", "grpo_matched"), ("mgrpo", "grpo"), ("grpo_matched", "base"), ("mgrpo", "base")]
REFERENCES = {"cpu": "results", "ablation": "ablation"}  # committed experiments, and the place of each in README


def name_of(arm: str) -> str:
    return NAMES.get(arm, arm)


def ordered_arms(summary: dict) -> list[str]:
    """The arms of a summary: the known ones from baseline to method, then any others."""
    arms = list(dict.fromkeys(row["arm"] for row in summary["rows"]))
    return [arm for arm in NAMES if arm in arms] + [arm for arm in arms if arm not in NAMES]


# ---------------------------------------------------------------------------------------------- numbers
def load_records(cfg: Config) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """``{arm: {benchmark: (first, second)}}``, each (seeds, problems), right or wrong; the base model has one row.

    Raises:
        FileNotFoundError: a model of the experiment has not been evaluated with these parameters.
    """
    found: dict[str, dict[str, list]] = {}
    for run in store.all_runs(cfg):
        manifest = cfg.results / "records" / f"{run.run_name}.json"
        if store.finished(manifest, store.evaluation_key(run)) is None:
            raise FileNotFoundError(
                f"no evaluation of {run.run_name} with these parameters in {manifest.parent}; run notebook 05_benchmarks for it"
            )
        table = pd.DataFrame(store.read_jsonl(manifest.with_suffix(".jsonl")))
        for benchmark, rows in table.groupby("benchmark", sort=False):
            found.setdefault(run.arm, {}).setdefault(benchmark, []).append(
                rows.sort_values("id")[["correct_1", "correct_2"]].to_numpy(dtype=bool)
            )
    return {
        arm: {
            benchmark: (np.stack([s[:, 0] for s in seeds]), np.stack([s[:, 1] for s in seeds]))
            for benchmark, seeds in sets.items()
        }
        for arm, sets in found.items()
    }


def load_run(run: Config) -> dict[str, Any]:
    """The manifest of a training run, with its validation accuracy if that was measured.

    Raises:
        FileNotFoundError: the run was not trained with these parameters.
    """
    manifest = store.finished(run.run_folder / "run.json", store.run_key(run))
    if manifest is None:
        raise FileNotFoundError(f"{run.run_folder / 'run.json'} is missing or was made with other parameters or code")
    validation = store.finished(run.run_folder / "validation.json", store.validation_key(run))
    return {**manifest, "validation": validation and validation["accuracy"]}


def summarise(cfg: Config) -> dict[str, Any]:
    """Writes ``summary.json`` and the tables of an experiment from its records, and returns the summary.

    Rows are fractions, means over seeds, each with a 95% interval ``<name>_ci`` (bootstrap over seeds and problems;
    over problems for the base model, which is one model). ``contrasts`` are differences between arms on the same
    problems.
    """
    records = load_records(cfg)
    runs = {run.run_name: load_run(run) for run in store.all_runs(cfg)}
    shown = (
        "arm",
        "seed",
        "train_tokens",
        "processed_tokens",
        "steps",
        "seconds",
        "weight_change",
        "validation",
        "key",
    )
    summary = {
        "profile": cfg.profile,
        "key": store.summary_key(cfg),
        "params": cfg.model_dump(exclude={"profile", "arm", "seed", "output_root"}),
        "environment": runs[store.all_runs(cfg)[-1].run_name]["environment"],
        "rows": [
            _row(cfg, arm, name, *attempts, runs) for arm, sets in records.items() for name, attempts in sets.items()
        ],
        "contrasts": [
            _contrast(left, right, name, attempt, records)
            for left, right in contrasts(list(records))
            for name in cfg.benchmarks
            for attempt in (1, 2)
        ],
        "runs": {name: {field: run.get(field) for field in shown} for name, run in runs.items()},
    }
    for name, table in TABLES.items():
        store.write_text(cfg.results / f"{name}.md", markdown(table(summary)))
        store.write_text(cfg.results / f"{name}.csv", table(summary).to_csv(index=False))
    store.write_json(cfg.results / "summary.json", summary)
    return summary


def contrasts(arms: list[str]) -> list[tuple[str, str]]:
    """The pairs of arms that are compared: the standard ones, and each variant with `mgrpo` and the matched baseline."""
    standard = {arm for pair in CONTRASTS for arm in pair}
    pairs = CONTRASTS + [(arm, other) for arm in arms if arm not in standard for other in ("mgrpo", "grpo_matched")]
    return [(left, right) for left, right in pairs if left in arms and right in arms]


def _row(
    cfg: Config, arm: str, benchmark: str, first: np.ndarray, second: np.ndarray, runs: dict[str, dict]
) -> dict[str, Any]:
    values = {
        "acc_t1": first,
        "acc_t2": second,
        "delta_t1_t2": second * 1.0 - first,
        "i_to_c": ~first & second,
        "c_to_i": first & ~second,
    }
    return {
        "arm": arm,
        "benchmark": benchmark,
        "n": first.shape[1],
        "seeds": [] if arm == "base" else list(cfg.seeds),
        **transitions(first, second),
        **{f"{name}_ci": list(bootstrap(array)) for name, array in values.items()},
        "acc_t1_seeds": first.mean(1).tolist(),
        "acc_t2_seeds": second.mean(1).tolist(),
        "train_tokens": float(np.mean([run["train_tokens"] for run in runs.values() if run["arm"] == arm])),
    }


def _contrast(left: str, right: str, benchmark: str, attempt: int, records: dict) -> dict[str, Any]:
    difference = records[left][benchmark][attempt - 1] * 1.0 - records[right][benchmark][attempt - 1]
    return {
        "arm": left,
        "against": right,
        "benchmark": benchmark,
        "attempt": attempt,
        "difference": float(difference.mean()),
        "ci": list(bootstrap(difference)),
    }


# ---------------------------------------------------------------------------------------------- tables
def percent(value: float, interval: list[float] | None = None, sign: bool = False) -> str:
    """``0.455`` as ``45.5``, with an interval as ``45.5 [41.0, 50.1]``."""
    form = "{:+.1f}" if sign else "{:.1f}"
    text = form.format(100 * value)
    return text if interval is None else f"{text} [{form.format(100 * interval[0])}, {form.format(100 * interval[1])}]"


def result_table(summary: dict) -> pd.DataFrame:
    """One row for each benchmark and arm: both attempts with intervals."""
    benchmarks, arms = summary["params"]["benchmarks"], ordered_arms(summary)
    rows = sorted(summary["rows"], key=lambda row: (benchmarks.index(row["benchmark"]), arms.index(row["arm"])))
    return pd.DataFrame(
        {
            "benchmark": row["benchmark"],
            "arm": name_of(row["arm"]),
            "attempt 1, %": percent(row["acc_t1"], row["acc_t1_ci"]),
            "attempt 2, %": percent(row["acc_t2"], row["acc_t2_ci"]),
            "change": percent(row["delta_t1_t2"], row["delta_t1_t2_ci"], sign=True),
            "tokens sampled in training": f"{row['train_tokens']:,.0f}",
        }
        for row in rows
    )


def transition_table(summary: dict) -> pd.DataFrame:
    """What the second attempt did: shares of all problems."""
    return pd.DataFrame(
        {
            "benchmark": row["benchmark"],
            "arm": name_of(row["arm"]),
            "right, stays right": percent(row["acc_t1"] - row["c_to_i"]),
            "wrong to right": percent(row["i_to_c"], row["i_to_c_ci"]),
            "right to wrong": percent(row["c_to_i"], row["c_to_i_ci"]),
            "wrong, stays wrong": percent(1 - row["acc_t1"] - row["i_to_c"]),
        }
        for row in summary["rows"]
    )


def contrast_table(summary: dict) -> pd.DataFrame:
    """Differences between arms in percentage points, on the same problems."""
    return pd.DataFrame(
        {
            "benchmark": row["benchmark"],
            "difference": f"{name_of(row['arm'])} - {name_of(row['against'])}",
            "attempt": row["attempt"],
            "points": percent(row["difference"], row["ci"], sign=True),
            "interval excludes 0": "yes" if row["ci"][0] > 0 or row["ci"][1] < 0 else "no",
        }
        for row in summary["contrasts"]
    )


def cost_table(summary: dict) -> pd.DataFrame:
    """What each training run cost: tokens sampled, tokens sampled or read, seconds; and its validation accuracy."""
    return pd.DataFrame(
        {
            "run": name,
            "steps": run["steps"] or "",
            "tokens sampled": f"{run['train_tokens']:,}",
            "sampled or read": f"{run['processed_tokens']:,}",
            "seconds": run["seconds"],
            **{
                f"validation, attempt {k}": percent(run["validation"][f"acc_t{k}"]) if run["validation"] else ""
                for k in (1, 2)
            },
        }
        for name, run in summary["runs"].items()
    )


def settings_table(cfg: Config, *stages: type):
    """The settings of a run with their whole meaning (a plain table would cut it), for the notebooks."""
    fields = {name: field for stage in stages for name, field in stage.model_fields.items()}
    table = pd.DataFrame(
        {
            "setting": list(fields),
            "value": [str(getattr(cfg, name)) for name in fields],
            "meaning": [field.description for field in fields.values()],
        }
    )
    return table.set_index("setting").style.set_properties(**{"text-align": "left"})


TABLES = {"table": result_table, "transitions": transition_table, "contrasts": contrast_table, "costs": cost_table}


def markdown(table: pd.DataFrame) -> str:
    """A table in Markdown."""
    rows = [
        table.columns,
        ["---"] * len(table.columns),
        *table.astype(object).fillna("").astype(str).itertuples(index=False),
    ]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def update_readme(cfg: Config, readme: Path = ROOT / "README.md") -> bool:
    """Puts a reference experiment's results between README's markers; returns whether anything changed."""
    summary, place = store.read_json(cfg.results / "summary.json"), REFERENCES[cfg.profile]
    if place == "results":
        block = readme_block(summary, store.finished(cfg.results / "timing.json", store.experiment_key(cfg)))
    else:
        block = variants_block(summary)
    text = readme.read_text(encoding="utf-8")
    between = rf"(<!-- {place} -->\n).*?(<!-- /{place} -->)"
    new = re.sub(between, lambda m: m[1] + block + m[2], text, flags=re.DOTALL)
    if new != text:
        store.write_text(readme, new)
    return new != text


def readme_block(summary: dict, timing: dict | None = None) -> str:
    """README's results: the headline contrasts in words, then the table, then what it took."""
    n, seeds = summary["rows"][0]["n"], len(summary["params"]["seeds"])
    lines = [
        f"Profile `{summary['profile']}`: the embedded **miniature** (a model of 0.2M parameters and an arithmetic task of ours; no statement about LLMs), "
        f"{seeds} training seeds, {n} test problems a benchmark, both attempts greedy, 95% intervals over seeds and problems.",
        "",
        "MGRPO against GRPO that sampled as many tokens in training, in percentage points:",
        "",
    ]
    for attempt in (1, 2):
        parts = [
            f"{row['benchmark']} {percent(row['difference'], row['ci'], sign=True)}"
            for row in summary["contrasts"]
            if (row["arm"], row["against"], row["attempt"]) == ("mgrpo", "grpo_matched", attempt)
        ]
        lines.append(f"- attempt {attempt}: {'; '.join(parts)}")
    lines += ["", markdown(result_table(summary)).rstrip(), ""]
    if timing:
        cores = summary["environment"]["cpu_cores"]
        lines += [
            f"The whole chain took {timing['seconds'] / 60:.0f} minutes on {cores} CPU cores, {timing['workers']} notebooks at a time.",
            "",
        ]
    packages = summary["environment"]["packages"]
    versions = f"{code_version(summary)}, torch {packages['torch']}, TRL {packages['trl']}"
    lines += [
        f"Parameters `{summary['key']}`, {versions}; all of it in `results/{summary['profile']}/summary.json`.",
        "",
    ]
    return "\n".join(lines)


def code_version(summary: dict) -> str:
    environment = summary["environment"]
    return (
        f"code version `{environment['training_code']}` (training) and `{environment['evaluation_code']}` (evaluation)"
    )


def variants_table(summary: dict, against: str) -> pd.DataFrame:
    """Each arm minus `against`, in percentage points: a row for each arm and attempt, a column for each benchmark."""
    rows: dict[tuple[str, int], dict[str, str]] = {}
    for row in summary["contrasts"]:
        if row["against"] == against and row["arm"] != "base":
            cells = rows.setdefault(
                (row["arm"], row["attempt"]), {"arm": name_of(row["arm"]), "attempt": row["attempt"]}
            )
            cells[row["benchmark"]] = percent(row["difference"], row["ci"], sign=True)
    order = ordered_arms(summary)
    return pd.DataFrame([rows[key] for key in sorted(rows, key=lambda key: (order.index(key[0]), key[1]))])


def variants_block(summary: dict) -> str:
    """README's comparison of the variants."""
    n, seeds = summary["rows"][0]["n"], len(summary["params"]["seeds"])
    return "\n".join(
        [
            f"Profile `{summary['profile']}`, the same **miniature**: {seeds} training seeds, {n} test problems a benchmark, "
            "every arm with as many sampled tokens as MGRPO of its seed. Each arm minus GRPO with matched tokens, in "
            "percentage points with 95% intervals over seeds and problems:",
            "",
            markdown(variants_table(summary, "grpo_matched")).rstrip(),
            "",
            f"Parameters `{summary['key']}`, {code_version(summary)}; all of it, also each "
            f"variant minus MGRPO, in `results/{summary['profile']}/`.",
            "",
        ]
    )


def is_reference(cfg: Config) -> bool:
    """Whether this is an experiment that README shows: profile ``cpu`` or ``ablation`` as committed, in the
    repository.
    """
    if cfg.profile not in REFERENCES or cfg.output != ROOT:
        return False
    return store.summary_key(cfg) == store.summary_key(load_config(cfg.profile, arm="base"))
