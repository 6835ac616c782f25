"""Numbers and tables from result files alone: no torch, no model, seconds. Every number that README or a notebook shows
comes through here.
"""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mgrpo_lib.experiment import fingerprints, store
from mgrpo_lib.experiment.progress import clock
from mgrpo_lib.experiment.settings import ROOT, Config, load_config
from mgrpo_lib.method.prompts import phrase_text
from mgrpo_lib.report import verdicts as evidence
from mgrpo_lib.report.paper import paper_table
from mgrpo_lib.report.records import Records
from mgrpo_lib.report.statistics import accuracy_interval, estimate, minimum_detectable_effect, transitions
from mgrpo_lib.report.typeset import latex

NAMES = {
    "base": "base model",
    "grpo": "GRPO",
    "grpo_matched": "GRPO, matched tokens",
    "mgrpo": "MGRPO",
    "mgrpo_nf4": "MGRPO on 4-bit weights",
    "grpo_more_steps": "GRPO, matched by more steps",
    "layers_3": "MGRPO, 3 layers",
    "one_draft": "MGRPO, 1 draft x 8",
    "wrong_drafts": "MGRPO, wrong drafts only",
    "paper_literal": "MGRPO, successes only, r2 - r1",
    "alternating": "MGRPO, layers in turn",
}
CONTRASTS = [
    ("mgrpo", "grpo_matched"),
    ("mgrpo", "grpo"),
    ("grpo", "base"),
    ("grpo_matched", "base"),
    ("mgrpo", "base"),
]
DETECTABLE = (
    "detectable at 80% power, points"  # beside what is not significant: the smallest true difference that would be
)
# committed experiments, and the place of each in README
REFERENCES = {"cpu": "results", "ablation": "ablation", "smollm2_gpu": "llm_gpu", "smollm2": "llm"}


def name_of(arm: str) -> str:
    return NAMES.get(arm, arm)


def ordered_arms(summary: dict) -> list[str]:
    """The arms of a summary: the known ones from baseline to method, then any others."""
    arms = list(dict.fromkeys(row["arm"] for row in summary["rows"]))
    return [arm for arm in NAMES if arm in arms] + [arm for arm in arms if arm not in NAMES]


# ---------------------------------------------------------------------------------------------- numbers
def load_run(run: Config) -> dict[str, Any]:
    """The manifest of a training run, with its validation accuracy if that was measured.

    Raises:
        FileNotFoundError: the run was not trained with these parameters.
    """
    manifest = store.finished(run.run_folder / "run.json", fingerprints.run_key(run))
    if manifest is None:
        raise FileNotFoundError(f"{run.run_folder / 'run.json'} is missing or was made with other parameters or code")
    validation = store.finished(run.run_folder / "validation.json", fingerprints.validation_key(run))
    return {**manifest, "validation": validation and validation["accuracy"]}


def summarise(cfg: Config) -> dict[str, Any]:
    """Writes ``summary.json`` and the tables of an experiment from its records, and returns the summary.

    Rows are fractions, means over seeds, each with a 95% interval ``<name>_ci`` (over seeds and problems; over problems
    for the base model, which is one model). ``contrasts`` are differences between arms on the same problems; the rest
    is `mgrpo_lib.report.verdicts`'s, empty where the profile has not the arms or the controls for it.
    """
    records = Records(cfg)
    runs = {run.run_name: load_run(run) for run in fingerprints.all_runs(cfg)}
    hypotheses, controls = evidence.hypotheses(records), evidence.controls(records)
    shown = (
        "arm",
        "seed",
        "train_tokens",
        "processed_tokens",
        "steps",
        "seconds",
        "weight_change",
        "validation",
        "skipped_steps",
        "warnings",
        "key",
    )
    summary = {
        "profile": cfg.profile,
        "key": fingerprints.summary_key(cfg),
        "params": cfg.model_dump(exclude={"profile", "arm", "seed", "output_root", "data_dir"}),
        "environment": runs[fingerprints.all_runs(cfg)[-1].run_name]["environment"],
        "verdicts": evidence.overall(hypotheses),
        "hypotheses": hypotheses,
        "not_beaten": evidence.self_correction(controls),
        "controls": controls,
        "rows": [_row(records, arm, name, runs) for arm in records.seeds for name in cfg.benchmarks],
        "contrasts": [
            _contrast(left, right, name, attempt, records)
            for left, right in contrasts(list(records.seeds))
            for name in cfg.benchmarks
            for attempt in (1, 2)
        ],
        "cross_refinement": evidence.cross_refinement(records),
        "budgets": evidence.budgets(records),
        "robustness": evidence.robustness(records),
        "runs": {name: {field: run.get(field) for field in shown} for name, run in runs.items()},
    }
    found = tables(summary)
    for name in TABLES:
        for suffix in ("md", "csv", "tex"):  # none is left of an experiment with other arms or controls
            (cfg.results / f"{name}.{suffix}").unlink(missing_ok=True)
        if name in found:
            store.write_text(cfg.results / f"{name}.md", markdown(found[name]))
            store.write_text(cfg.results / f"{name}.csv", found[name].to_csv(index=False))
            store.write_text(cfg.results / f"{name}.tex", latex(found[name], name, origin(summary)))
    store.write_json(cfg.results / "summary.json", summary)
    return summary


def contrasts(arms: list[str]) -> list[tuple[str, str]]:
    """The pairs of arms that are compared: the standard ones, and each variant with `mgrpo` and the matched baseline."""
    standard = {arm for pair in CONTRASTS for arm in pair}
    pairs = CONTRASTS + [(arm, other) for arm in arms if arm not in standard for other in ("mgrpo", "grpo_matched")]
    return [(left, right) for left, right in pairs if left in arms and right in arms]


def _row(records: Records, arm: str, benchmark: str, runs: dict[str, dict]) -> dict[str, Any]:
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
        **evidence.changes(records, arm, benchmark),
        "train_tokens": float(np.mean([run["train_tokens"] for run in runs.values() if run["arm"] == arm])),
        "test_tokens": [float(records.chain(arm, benchmark, f"tokens_{k}").mean()) for k in (1, 2)],
    }


def _contrast(left: str, right: str, benchmark: str, attempt: int, records: Records) -> dict[str, Any]:
    ours, theirs = (records.chain(arm, benchmark, f"correct_{attempt}").astype(float) for arm in (left, right))
    found = estimate(ours - theirs)
    row = {
        "arm": left,
        "against": right,
        "benchmark": benchmark,
        "attempt": attempt,
        "difference": found["mean"],
        "ci": [found["low"], found["high"]],
    }
    undecided = found["low"] <= 0 <= found["high"]
    return {**row, "detectable": minimum_detectable_effect(ours - theirs)} if undecided else row


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
            "interval excludes 0": "no" if "detectable" in row else "yes",
            DETECTABLE: percent(row["detectable"]) if "detectable" in row else "",
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


def warning_table(summary: dict) -> pd.DataFrame:
    """What the trainings warned of, and the steps that were left out since their gradient was not finite."""
    rows = []
    for name, run in summary["runs"].items():
        if run["skipped_steps"]:
            steps = ", ".join(map(str, run["skipped_steps"]))
            rows.append({"run": name, "step": steps, "warning": "left out: the gradient was not finite"})
        rows += [{"run": name, "step": one["step"], "warning": one["text"]} for one in run["warnings"] or []]
    return pd.DataFrame(rows)


def verdict_table(summary: dict) -> pd.DataFrame:
    """The hypotheses of ANALYSIS.md: verdict, and the quantity on each benchmark in percentage points."""
    marks = {"supported": "yes", "refuted": "no", "undecided": "?"}
    rows = []
    for name, text in evidence.HYPOTHESES.items():
        own = [row for row in summary["hypotheses"] if row["hypothesis"] == name]
        cells = {
            row["benchmark"]: f"{percent(row['difference'], row['ci'], sign=True)} {marks[row['verdict']]}"
            for row in own
        }
        if own:
            rows.append({"": name, "hypothesis": text, "verdict": f"**{summary['verdicts'][name]}**", **cells})
    return pd.DataFrame(rows)


def undecided_table(summary: dict) -> pd.DataFrame:
    """What could have been seen where nothing was decided, and what would decide the difference that was."""

    def known(number: int | None) -> str:
        return "no number would" if number is None else f"{number:,}"

    return pd.DataFrame(
        {
            "hypothesis": row["hypothesis"],
            "benchmark": row["benchmark"],
            "points": percent(row["difference"], row["ci"], sign=True),
            "p, Holm": f"{row['p_holm']:.2g}",
            "verdict": row["verdict"],
            DETECTABLE: percent(row["detectable"]),
            "seeds to decide": known(row["seeds_needed"]),
            "problems to decide": known(row["problems_needed"]),
        }
        for row in summary["hypotheses"]
        if "detectable" in row
    )


def control_table(summary: dict) -> pd.DataFrame:
    """MGRPO's second attempts against each control; *shown* where they are better by the plan's test."""
    return pd.DataFrame(
        {
            "benchmark": row["benchmark"],
            "control": evidence.CONTROLS[row["control"]],
            "MGRPO, attempt 2, %": percent(row["mgrpo"]),
            "control, %": percent(row["control_accuracy"]),
            "points": percent(row["difference"], row["ci"], sign=True),
            "p, Holm": f"{row['p_holm']:.2g}",
            "better": "shown" if row["verdict"] == "supported" else "not shown",
            DETECTABLE: percent(row["detectable"]) if "detectable" in row else "",
        }
        for row in summary["controls"]
    )


def correction_sentence(summary: dict) -> str:
    """On which benchmarks self-correction is shown, and what speaks against it on the others."""
    shown = [benchmark for benchmark, controls in summary["not_beaten"].items() if not controls]
    text = f"**Self-correction is shown on {', '.join(shown)}.**" if shown else "**Self-correction is shown nowhere.**"
    reasons: dict[tuple[str, ...], list[str]] = {}
    for benchmark, not_beaten in summary["not_beaten"].items():
        reasons.setdefault(tuple(not_beaten), []).append(benchmark)
    for not_beaten, benchmarks in reasons.items():
        if not_beaten:
            names = " and ".join(f"“{evidence.CONTROLS[control]}”" for control in not_beaten)
            text += f" On {', '.join(benchmarks)} it is not: MGRPO is not shown to be better than the control {names}."
    return text


def cross_table(summary: dict) -> pd.DataFrame:
    """Whose drafts, corrected by whom: accuracy of the corrections, and what they changed."""
    return pd.DataFrame(
        {
            "benchmark": row["benchmark"],
            "drafts of": name_of(row["drafts_of"]),
            "corrected by": name_of(row["corrected_by"]),
            "drafts, %": percent(row["drafts"]),
            "corrections, %": percent(row["corrections"], row["ci"]),
            "wrong to right": percent(row["i_to_c"]),
            "right to wrong": percent(row["c_to_i"]),
        }
        for row in summary["cross_refinement"]
    )


def budget_table(summary: dict) -> pd.DataFrame:
    """A sampled attempt with its correction, against as many sampled attempts as its tokens pay for."""
    rows = []
    for chain in (row for row in summary["budgets"] if row["k"] is None):
        votes = [
            row
            for row in summary["budgets"]
            if (row["arm"], row["benchmark"]) == (chain["arm"], chain["benchmark"]) and row["k"]
        ]
        k = max([row["k"] for row in votes if row["tokens"] <= 1.05 * chain["tokens"]], default=1)
        paid = next(row for row in votes if row["k"] == k)
        rows.append(
            {
                "benchmark": chain["benchmark"],
                "arm": name_of(chain["arm"]),
                "attempt and correction, %": percent(chain["chain"], chain["chain_ci"]),
                "its tokens": f"{chain['tokens']:.0f}",
                "attempts for as many": k,
                "majority, %": percent(paid["maj"], paid["maj_ci"]),
                "any of them, %": percent(paid["pass"], paid["pass_ci"]),
                f"majority of {len(votes)}, %": percent(votes[-1]["maj"]),
                f"any of {len(votes)}, %": percent(votes[-1]["pass"]),
            }
        )
    return pd.DataFrame(rows)


def robustness_table(summary: dict) -> pd.DataFrame:
    """The headline under other choices, in percentage points on the probed problems."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for row in summary["robustness"]:
        place = {"hypothesis": row["hypothesis"], "choice": row["choice"]}
        cells = rows.setdefault((row["hypothesis"], row["choice"]), place)
        cells[row["benchmark"]] = percent(row["difference"], row["ci"], sign=True)
    return pd.DataFrame([rows[key] for key in sorted(rows, key=lambda key: key[0])])


def change_table(summary: dict) -> pd.DataFrame:
    """How second attempts differ from first ones; copying everything would be collapse."""
    return pd.DataFrame(
        {
            "benchmark": row["benchmark"],
            "arm": name_of(row["arm"]),
            "copies, %": percent(row["copied"]),
            "other answer, %": percent(row["answer_changed"]),
            "edit distance, %": percent(row["edit_distance"]),
            "wrong answers mended, %": percent(row["i_to_c_of_wrong"]),
            "right answers broken, %": percent(row["c_to_i_of_right"]),
            "of the mended: draft cut off or without answer, %": percent(row["mended_unfinished"]),
            "McNemar p, each seed": ", ".join(f"{p:.2g}" for p in row["mcnemar"]),
        }
        for row in summary["rows"]
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


TABLES = {
    "verdicts": verdict_table,
    "undecided": undecided_table,
    "controls": control_table,
    "table": result_table,
    "transitions": transition_table,
    "changes": change_table,
    "contrasts": contrast_table,
    "cross_refinement": cross_table,
    "budgets": budget_table,
    "robustness": robustness_table,
    "paper": lambda summary: paper_table(summary["rows"]),
    "costs": cost_table,
    "warnings": warning_table,
}


def tables(summary: dict) -> dict[str, pd.DataFrame]:
    """Every table that the experiment has rows for."""
    found = {name: table(summary) for name, table in TABLES.items()}
    return {name: table for name, table in found.items() if not table.empty}


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
        timing = store.finished(cfg.results / "timing.json", fingerprints.experiment_key(cfg))
        more = cfg.results / "rounds.json"
        shown = [mended(cfg.of_arm(evidence.METHOD, cfg.seeds[0]))]
        shown += [rounds_sentence(store.read_json(more))] if more.exists() else []
        block = readme_block(summary, shown, timing)
    else:
        block = variants_block(summary) if place == "ablation" else llm_block(summary)
    text = readme.read_text(encoding="utf-8")
    between = rf"(<!-- {place} -->\n).*?(<!-- /{place} -->)"
    new = re.sub(between, lambda m: m[1] + block + m[2], text, flags=re.DOTALL)
    if new != text:
        store.write_text(readme, new)
    return new != text


def mended(run: Config) -> str:
    """A wrong draft that a run's second attempt put right, as it was written: the first of the set where it does so most."""
    records = store.read_records(run.results / "records" / f"{run.run_name}.json", fingerprints.evaluation_key(run))
    put_right = [record for record in records if record["correct_2"] and not record["correct_1"]]
    ((most, _),) = Counter(record["benchmark"] for record in put_right).most_common(1)
    one = next(record for record in put_right if record["benchmark"] == most)
    lines = {
        "question": one["question"],
        "attempt 1": f"{one['text_1']}   (wrong)",
        "phrase": phrase_text(run.eval_phrase),
        "attempt 2": f"{one['text_2']}   (right)",
    }
    return (
        f"The first problem of {most} that `{run.run_name}` answers wrongly and then rightly (right: {one['gold']}):\n\n```text\n"
        + "".join(f"{name:11}{text}\n" for name, text in lines.items())
        + "```"
    )


def rounds_sentence(rounds: dict) -> str:
    """How the method fares when it is asked more often than it was trained to be, where that changes most."""
    own = [row for row in rounds["rows"] if row["arm"] == evidence.METHOD]
    row = max(own, key=lambda row: np.ptp(row["accuracy"]))
    *most, last = (
        percent(value, interval) for value, interval in zip(row["accuracy"], row["accuracy_ci"], strict=True)
    )
    return (
        f"Asked again and again, each time shown its last answer, MGRPO is right on {row['benchmark']} in {', '.join(most)} and "
        f"{last}% of the problems at attempts 1 to {rounds['rounds']} ([all sets](figures/{rounds['profile']}/rounds.png)). It was "
        "trained on one correction of a first attempt; whoever samples more of them should know."
    )


def stage_table(timing: dict) -> pd.DataFrame:
    """Where the time of a whole chain went: what the runs of each notebook took together, on a core each."""
    stages: dict[str, list[float]] = {}
    for name, seconds in timing["steps"].items():
        stages.setdefault(name[:2], []).append(seconds)
    titles = {path.stem[:2]: path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    total = sum(timing["steps"].values())
    return pd.DataFrame(
        {
            "notebook": f"`{titles[stage]}`",
            "runs": len(seconds),
            "time": clock(sum(seconds)),
            "share, %": round(100 * sum(seconds) / total),
        }
        for stage, seconds in sorted(stages.items())
    )


def readme_block(summary: dict, shown: list[str], timing: dict | None = None) -> str:
    """README's results: the verdicts, whether it is self-correction, what is `shown` of it, the table, what it took."""
    n, seeds = summary["rows"][0]["n"], len(summary["params"]["seeds"])
    lines = [
        f"Profile `{summary['profile']}`: the embedded **miniature** (a model of 0.2M parameters and an arithmetic task of ours; no statement about LLMs), "
        f"{seeds} training seeds, {n} test problems a benchmark, both attempts greedy. MGRPO against GRPO that sampled as many "
        "tokens in training (H3: against its own first attempts); percentage points with 95% intervals over seeds and problems:",
        "",
        markdown(verdict_table(summary)).rstrip(),
        "",
        "*yes*: supported, *no*: refuted (worse, or a gain of 2 points is excluded), *?*: undecided "
        "([what would decide it](results/cpu/undecided.md)). Positive differences favour MGRPO."
        + none_worse(summary)
        + no_room(summary),
        "",
        correction_sentence(summary),
        "",
        *(line for text in shown for line in (text, "")),
        "![MGRPO's second attempts against every control](figures/cpu/controls.png)",
        "",
        "Both attempts of every arm:",
        "",
        markdown(result_table(summary)).rstrip(),
        "",
    ]
    if timing:
        cores = summary["environment"]["cpu_cores"]
        lines += [
            f"The whole chain took {timing['seconds'] / 60:.0f} minutes by the clock on {cores} CPU cores, {timing['workers']} notebooks at a time; "
            "below, their own times are added up:",
            "",
            markdown(stage_table(timing)).rstrip(),
            "",
        ]
    packages = summary["environment"]["packages"]
    versions = f"{code_version(summary)}, torch {packages['torch']}, TRL {packages['trl']}"
    lines += [
        f"Parameters `{summary['key']}`, {versions}; all of it in `results/{summary['profile']}/summary.json`.",
        "",
    ]
    return "\n".join(lines)


def none_worse(summary: dict) -> str:
    """What *no* means where no difference is shown to be negative."""
    worse = any(row["difference"] < 0 and row["p_holm"] < evidence.ALPHA for row in summary["hypotheses"])
    return "" if worse else " No *no* stands for worse here: each excludes a gain of 2 points."


def no_room(summary: dict) -> str:
    """Where a gain that matters had no room: what the baseline breaks too rarely for H4."""
    broken = max(row["c_to_i"] for row in summary["rows"] if row["arm"] == "grpo_matched")
    if broken >= evidence.SMALLEST_EFFECT:
        return ""
    return (
        f" Matched GRPO breaks {100 * broken:.1f}% at most, so that H4 had no room for a gain of "
        f"{100 * evidence.SMALLEST_EFFECT:.0f} points."
    )


def origin(summary: dict) -> str:
    return f"profile {summary['profile']}, parameters {summary['key']}"


def code_version(summary: dict) -> str:
    environment = summary["environment"]
    return f"training version {environment['training_version']}, evaluation version {environment['evaluation_version']}"


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


def llm_block(summary: dict) -> str:
    """README's numbers on a pretrained language model."""
    params, rows, runs = summary["params"], summary["rows"], summary["runs"]
    first, where = runs[f"mgrpo-seed{params['seeds'][0]}"], summary["environment"]
    rows_of_step = params["prompts_per_step"] * params["num_generations"]
    return "\n".join(
        [
            f"Profile `{summary['profile']}`: {params['model']}, {params['sft_steps']} supervised steps so that it answers in "
            f"the form that the reward reads, then LoRA, on {where['gpu'] or str(where['cpu_cores']) + ' CPU cores'} with torch "
            f"{where['packages']['torch']}; exploratory, no hypotheses were fixed; "
            f"{len(params['seeds'])} training seeds, {first['steps']} steps of MGRPO with {rows_of_step} first attempts each, "
            f"{rows[0]['n']} test problems a benchmark, both attempts greedy. Accuracy in percent with 95% intervals over "
            "seeds and problems, not corrected for their number:",
            "",
            markdown(result_table(summary)).rstrip(),
            "",
            "Minus the base model, in percentage points:",
            "",
            markdown(variants_table(summary, "base")).rstrip(),
            "",
            "Minus GRPO with matched tokens:",
            "",
            markdown(variants_table(summary, "grpo_matched")).rstrip(),
            "",
            *left_out(summary),
            f"Parameters `{summary['key']}`, {code_version(summary)}; all of it in `results/{summary['profile']}/`.",
            "",
        ]
    )


def left_out(summary: dict) -> list[str]:
    """A sentence on the steps whose gradient was not finite, by arm; nothing where there were none."""
    runs = [run for run in summary["runs"].values() if run["arm"] != "base"]
    if not any(run["skipped_steps"] for run in runs):
        return []
    counts = []
    for arm in dict.fromkeys(run["arm"] for run in runs):
        own = [run for run in runs if run["arm"] == arm]
        skipped = sum(len(run["skipped_steps"]) for run in own)
        counts.append(f"{name_of(arm)} {skipped} of {sum(run['steps'] for run in own)}")
    return [f"Steps that were left out since their gradient was not finite: {'; '.join(counts)}.", ""]


def is_reference(cfg: Config) -> bool:
    """Whether this is an experiment that README shows: a profile of `REFERENCES` as committed, in the repository."""
    if cfg.profile not in REFERENCES or cfg.output != ROOT:
        return False
    return fingerprints.summary_key(cfg) == fingerprints.summary_key(load_config(cfg.profile, arm="base"))
