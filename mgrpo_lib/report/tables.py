"""Tables of an experiment, made from ``summary.json`` alone and written as Markdown, CSV and LaTeX (no torch)."""

from pathlib import Path

import pandas as pd
import yaml

from mgrpo_lib.experiment import store
from mgrpo_lib.experiment.settings import Config
from mgrpo_lib.report.typeset import latex, markdown
from mgrpo_lib.report.verdicts import CONTROLS, HYPOTHESES, at_equal_tokens, in_words

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
# beside what is not significant: the smallest true difference that would have been
DETECTABLE = "detectable at 80% power, points"
PAPER = yaml.safe_load((Path(__file__).parent / "paper.yaml").read_text(encoding="utf-8"))


# ---------------------------------------------------------------------------------------------- names and numbers
def name_of(arm: str) -> str:
    return NAMES.get(arm, arm)


def ordered_arms(summary: dict) -> list[str]:
    """Return the arms of a summary: the known ones from baseline to method, then any others."""
    arms = list(dict.fromkeys(row["arm"] for row in summary["rows"]))
    return [arm for arm in NAMES if arm in arms] + [arm for arm in arms if arm not in NAMES]


def origin(summary: dict) -> str:
    return f"profile {summary['profile']}, parameters {summary['key']}"


def percent(value: float, interval: list[float] | None = None, sign: bool = False) -> str:
    """Write ``0.455`` as ``45.5``, with an interval as ``45.5 [41.0, 50.1]``."""
    form = "{:+.1f}" if sign else "{:.1f}"
    text = form.format(100 * value)
    return text if interval is None else f"{text} [{form.format(100 * interval[0])}, {form.format(100 * interval[1])}]"


def points(row: dict) -> str:
    """Write the difference of a row, with its interval, in percentage points."""
    return percent(row["difference"], row["ci"], sign=True)


def _detectable(row: dict) -> str:
    return percent(row["detectable"]) if "detectable" in row else ""


# ---------------------------------------------------------------------------------------------- tables of results
def result_table(summary: dict) -> pd.DataFrame:
    """Show both attempts of each arm on each benchmark, with intervals."""
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
    """Show what second attempts did, as shares of all problems."""
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


def change_table(summary: dict) -> pd.DataFrame:
    """Show how second attempts differ from first ones; copying everything would be collapse."""
    return pd.DataFrame(
        {
            "benchmark": row["benchmark"],
            "arm": name_of(row["arm"]),
            "copies, %": percent(row["copied"]),
            "other answer, %": percent(row["answer_changed"]),
            "edit distance, %": percent(row["edit_distance"]),
            "wrong answers fixed, %": percent(row["i_to_c_of_wrong"]),
            "right answers broken, %": percent(row["c_to_i_of_right"]),
            "of the fixed: draft cut off or without answer, %": percent(row["mended_unfinished"]),
            "McNemar p, each seed": ", ".join(f"{p:.2g}" for p in row["mcnemar"]),
        }
        for row in summary["rows"]
    )


def contrast_table(summary: dict) -> pd.DataFrame:
    """Show differences between arms on the same problems."""
    return pd.DataFrame(
        {
            "benchmark": row["benchmark"],
            "difference": f"{name_of(row['arm'])} - {name_of(row['against'])}",
            "attempt": row["attempt"],
            "points": points(row),
            "interval excludes 0": "no" if "detectable" in row else "yes",
            DETECTABLE: _detectable(row),
        }
        for row in summary["contrasts"]
    )


def variants_table(summary: dict, against: str) -> pd.DataFrame:
    """Show each arm minus `against`: a row for each arm and attempt, a column for each benchmark."""
    rows: dict[tuple[str, int], dict] = {}
    for row in summary["contrasts"]:
        if row["against"] == against and row["arm"] != "base":
            start = {"arm": name_of(row["arm"]), "attempt": row["attempt"]}
            rows.setdefault((row["arm"], row["attempt"]), start)[row["benchmark"]] = points(row)
    order = ordered_arms(summary)
    return pd.DataFrame([rows[key] for key in sorted(rows, key=lambda key: (order.index(key[0]), key[1]))])


def verdict_table(summary: dict) -> pd.DataFrame:
    """Show the hypotheses of ANALYSIS.md: verdict, and the quantity on each benchmark."""
    marks = {"supported": "yes", "refuted": "no", "undecided": "?"}
    rows = []
    for name, word in summary["verdicts"].items():
        own = [row for row in summary["hypotheses"] if row["hypothesis"] == name]
        cells = {row["benchmark"]: f"{points(row)} {marks[row['verdict']]}" for row in own}
        rows.append({"": name, "hypothesis": HYPOTHESES[name], "verdict": in_words(word, own), **cells})
    return pd.DataFrame(rows)


def undecided_table(summary: dict) -> pd.DataFrame:
    """Show what could have been seen where no gain was shown, and what would decide the observed difference."""

    def known(number: int | None) -> str:
        return "no number would" if number is None else f"{number:,}"

    return pd.DataFrame(
        {
            "hypothesis": row["hypothesis"],
            "benchmark": row["benchmark"],
            "points": points(row),
            "p, Holm": f"{row['p_holm']:.2g}",
            "verdict": in_words(row["verdict"], [row]),
            DETECTABLE: _detectable(row),
            "seeds to decide": known(row["seeds_needed"]),
            "problems to decide": known(row["problems_needed"]),
        }
        for row in summary["hypotheses"]
        if "detectable" in row
    )


def control_table(summary: dict) -> pd.DataFrame:
    """Show MGRPO's second attempts beside each control; *shown* where they are better by the plan's test."""
    return pd.DataFrame(
        {
            "benchmark": row["benchmark"],
            "control": CONTROLS[row["control"]],
            "MGRPO, attempt 2, %": percent(row["mgrpo"]),
            "control, %": percent(row["control_accuracy"]),
            "points": points(row),
            "p, Holm": f"{row['p_holm']:.2g}",
            "better": "shown" if row["verdict"] == "supported" else "not shown",
            DETECTABLE: _detectable(row),
        }
        for row in summary["controls"]
    )


def cross_table(summary: dict) -> pd.DataFrame:
    """Show each arm's corrections of each arm's drafts."""
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
    """Show a sampled attempt with its correction, beside as many sampled attempts as its tokens pay for."""
    return pd.DataFrame(
        {
            "benchmark": pair["benchmark"],
            "arm": name_of(pair["arm"]),
            "attempt and correction, %": percent(pair["chain"], pair["chain_ci"]),
            "its tokens": f"{pair['tokens']:.0f}",
            "attempts for as many": paid["k"],
            "majority, %": percent(paid["maj"], paid["maj_ci"]),
            "any of them, %": percent(paid["pass"], paid["pass_ci"]),
            f"majority of {len(votes)}, %": percent(votes[-1]["maj"]),
            f"any of {len(votes)}, %": percent(votes[-1]["pass"]),
        }
        for pair, votes, paid in at_equal_tokens(summary)
    )


def robustness_table(summary: dict) -> pd.DataFrame:
    """Show the headline under other choices, on the probed problems."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for row in summary["robustness"]:
        choice = row["choice"].replace(
            "as reported", f"as reported, first {summary['params']['probe_problems']} problems"
        )
        start = {"hypothesis": row["hypothesis"], "choice": choice}
        rows.setdefault((row["hypothesis"], choice), start)[row["benchmark"]] = points(row)
    return pd.DataFrame([rows[key] for key in sorted(rows, key=lambda key: key[0])])


def cost_table(summary: dict) -> pd.DataFrame:
    """Show what each training run cost: tokens sampled, tokens sampled or read, seconds; and its validation accuracy."""

    def validated(run: dict) -> dict[str, str]:
        found = run["validation"]
        return {f"validation, attempt {k}": percent(found[f"acc_t{k}"]) if found else "" for k in (1, 2)}

    return pd.DataFrame(
        {
            "run": name,
            "steps": run["steps"] or "",
            "tokens sampled": f"{run['train_tokens']:,}",
            "sampled or read": f"{run['processed_tokens']:,}",
            "seconds": run["seconds"],
            **validated(run),
        }
        for name, run in summary["runs"].items()
    )


def warning_table(summary: dict) -> pd.DataFrame:
    """Show what the trainings warned of, and the steps left out because their gradient was not finite."""
    rows = []
    for name, run in summary["runs"].items():
        if run["skipped_steps"]:
            steps = ", ".join(map(str, run["skipped_steps"]))
            rows.append({"run": name, "step": steps, "warning": "left out: the gradient was not finite"})
        rows += [{"run": name, "step": one["step"], "warning": one["text"]} for one in run["warnings"] or []]
    return pd.DataFrame(rows)


def paper_table(summary: dict) -> pd.DataFrame:
    """Show the view of the paper's Table 2, in percent: ours, then the paper's rows.

    A change from t1' is the correction itself. One from t1 mixes it with what training did to first attempts.
    """
    rows = {(row["arm"], row["benchmark"]): row for row in summary["rows"]}
    table = []
    for benchmark in summary["params"]["benchmarks"]:
        if ("mgrpo", benchmark) in rows and ("grpo_matched", benchmark) in rows:
            ours = rows["mgrpo", benchmark]
            t1, t1_, t2 = rows["grpo_matched", benchmark]["acc_t1"], ours["acc_t1"], ours["acc_t2"]
            changes = {"t2 - t1": percent(t2 - t1, sign=True), "t2 - t1'": percent(t2 - t1_, sign=True)}
            shares = {"wrong to right": percent(ours["i_to_c"]), "right to wrong": percent(ours["c_to_i"])}
            small = "a miniature" if summary["params"]["model"] == "miniature" else "another, much smaller model"
            status = f"{small}: says nothing of the paper's rows"
            attempts = {"t1": percent(t1), "t1'": percent(t1_), "t2": percent(t2)}
            table.append({"benchmark": f"{benchmark} (ours)", **attempts, **changes, **shares, "status": status})
    unknown = dict.fromkeys(("t1'", "t2 - t1'", "wrong to right", "right to wrong"), "not known")
    for benchmark, known in PAPER["table_2"].items():
        t1, t2 = (f"{known[arm]} ({PAPER['sources'][arm]})" for arm in ("grpo", "mgrpo"))
        change = f"{known['mgrpo'] - known['grpo']:+.1f} (as above)"
        status = "not comparable: not run here, neither the benchmark nor a 7B model"
        attempts = {"benchmark": f"{benchmark} (paper)", "t1": t1, "t2": t2, "t2 - t1": change}
        table.append({**attempts, **unknown, "status": status})
    changes = ("t2 - t1", "t2 - t1'", "wrong to right", "right to wrong")
    return pd.DataFrame(table, columns=["benchmark", *PAPER["reading"], *changes, "status"])


# ---------------------------------------------------------------------------------------------- other tables
def settings_table(cfg: Config, *stages: type):
    """Show the settings of a run with their whole meaning (a plain table would cut it), for the notebooks."""
    fields = {name: field for stage in stages for name, field in stage.model_fields.items()}
    meaning = [field.description for field in fields.values()]
    table = {"setting": list(fields), "value": [str(getattr(cfg, name)) for name in fields], "meaning": meaning}
    shown = pd.DataFrame(table).set_index("setting").style.format(escape="html")
    return shown.set_properties(**{"text-align": "left"})


# ---------------------------------------------------------------------------------------------- all of them
# each table's function and its caption
TABLES = {
    "verdicts": (verdict_table, "The hypotheses of ANALYSIS.md: verdict, and the quantity on each test set, in percentage points with 95% intervals"),
    "undecided": (undecided_table, "What could have been seen where nothing was decided, and what would decide the difference that was observed"),
    "controls": (control_table, "MGRPO's second attempts against each control"),
    "table": (result_table, "Both attempts of every arm on every test set, with 95% intervals over seeds and problems"),
    "transitions": (transition_table, "What second attempts did: shares of all problems in percent, with 95% intervals"),
    "changes": (change_table, "How second attempts differ from first ones"),
    "contrasts": (contrast_table, "Differences between arms on the same problems, in percentage points with 95% intervals"),
    "cross_refinement": (cross_table, "Whose drafts, corrected by whom"),
    "budgets": (budget_table, "A sampled attempt with its correction, against as many sampled attempts as its tokens pay for"),
    "robustness": (robustness_table, "The headline under other choices, in percentage points with 95% intervals on the probed problems"),
    "paper": (paper_table, "The paper's table, and ours beside it"),
    "costs": (cost_table, "What each training run cost, and its validation accuracy"),
    "warnings": (warning_table, "What the trainings warned of"),
}  # fmt: skip


def tables(summary: dict) -> dict[str, pd.DataFrame]:
    """Return every table that the experiment has rows for."""
    found = {name: table(summary) for name, (table, _) in TABLES.items()}
    return {name: table for name, table in found.items() if not table.empty}


def write(summary: dict, folder: Path) -> None:
    """Write every table as Markdown, CSV and LaTeX; none is left of an experiment with other arms or controls."""
    found = tables(summary)
    for name, (_, caption) in TABLES.items():
        for suffix in ("md", "csv", "tex"):
            (folder / f"{name}.{suffix}").unlink(missing_ok=True)
        if name in found:
            store.write_text(folder / f"{name}.md", markdown(found[name]))
            store.write_text(folder / f"{name}.csv", found[name].to_csv(index=False))
            store.write_text(folder / f"{name}.tex", latex(found[name], name, caption, origin(summary)))
