"""Tables and figures from result files alone: no torch, no model, seconds. Every number that README or a notebook shows comes through here."""

import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from mgrpo_lib import store
from mgrpo_lib.config import ROOT, Config, EvalSettings, ModelSettings, TrainSettings
from mgrpo_lib.stats import bootstrap, transitions

NAMES = {"base": "base model", "grpo": "GRPO", "grpo_matched": "GRPO, matched tokens", "mgrpo": "MGRPO"}
COLORS = {"base": "#999999", "grpo": "#56B4E9", "grpo_matched": "#0072B2", "mgrpo": "#D55E00"}  # Okabe-Ito: safe for colour-blind readers
OTHER_COLORS = ["#009E73", "#CC79A7", "#E69F00", "#F0E442"]
MEASURES = ("acc_t1", "acc_t2", "delta_t1_t2", "i_to_c", "c_to_i")
CONTRASTS = [("mgrpo", "grpo_matched"), ("mgrpo", "grpo"), ("grpo_matched", "base"), ("mgrpo", "base")]


def name_of(arm: str) -> str:
    return NAMES.get(arm, arm)


def color_of(arm: str, arms: list[str]) -> str:
    others = [other for other in arms if other not in COLORS]
    return COLORS[arm] if arm in COLORS else OTHER_COLORS[others.index(arm) % len(OTHER_COLORS)]


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
            raise FileNotFoundError(f"no evaluation of {run.run_name} with these parameters in {manifest.parent}; run notebook 05_benchmarks for it")
        table = pd.DataFrame(store.read_jsonl(manifest.with_suffix(".jsonl")))
        for benchmark, rows in table.groupby("benchmark", sort=False):
            found.setdefault(run.arm, {}).setdefault(benchmark, []).append(rows.sort_values("id")[["correct_1", "correct_2"]].to_numpy(dtype=bool))
    return {
        arm: {benchmark: (np.stack([s[:, 0] for s in seeds]), np.stack([s[:, 1] for s in seeds])) for benchmark, seeds in sets.items()}
        for arm, sets in found.items()
    }


def summarise(cfg: Config) -> dict[str, Any]:
    """Writes ``summary.json`` and the tables of an experiment from its records, and returns the summary.

    Rows are fractions, means over seeds, each with a 95% interval ``<name>_ci`` (bootstrap over seeds and problems; over problems for the base
    model, which is one model). ``contrasts`` are differences between arms on the same problems.
    """
    records = load_records(cfg)
    manifests = {run.run_name: store.read_json(run.run_folder / "run.json") for run in store.all_runs(cfg)}
    rows, contrasts = [], []
    for arm, sets in records.items():
        runs = [manifests[run.run_name] for run in store.all_runs(cfg) if run.arm == arm]
        for benchmark, (first, second) in sets.items():
            row = {"arm": arm, "benchmark": benchmark, "n": first.shape[1], "seeds": [] if arm == "base" else list(cfg.seeds)}
            row |= transitions(first, second)
            parts = {"acc_t1": first, "acc_t2": second, "delta_t1_t2": second * 1.0 - first, "i_to_c": ~first & second, "c_to_i": first & ~second}
            row |= {f"{measure}_ci": list(bootstrap(values)) for measure, values in parts.items()}
            row["acc_t1_seeds"], row["acc_t2_seeds"] = first.mean(1).tolist(), second.mean(1).tolist()
            row["train_tokens"] = float(np.mean([run["train_tokens"] for run in runs]))
            rows.append(row)
    for left, right in CONTRASTS:
        if left in records and right in records:
            for benchmark in cfg.benchmarks:
                for attempt in (0, 1):
                    difference = records[left][benchmark][attempt] * 1.0 - records[right][benchmark][attempt]
                    low, high = bootstrap(difference)
                    contrasts.append(
                        {"arm": left, "against": right, "benchmark": benchmark, "attempt": attempt + 1, "difference": float(difference.mean()), "ci": [low, high]}
                    )
    runs = {
        name: {field: run.get(field) for field in ("train_tokens", "steps", "seconds", "validation", "weight_change", "trainable_parameters", "key")}
        for name, run in manifests.items()
    }
    summary = {
        "profile": cfg.profile,
        "key": store.summary_key(cfg),
        "params": {"seeds": cfg.seeds, "arms": cfg.arms, **{k: v for stage in (ModelSettings, TrainSettings, EvalSettings) for k, v in cfg.settings(stage).items()}},
        "environment": manifests[store.all_runs(cfg)[-1].run_name]["environment"],
        "rows": rows,
        "contrasts": contrasts,
        "runs": runs,
    }
    for name, table in (("table", result_table(summary)), ("transitions", transition_table(summary)), ("contrasts", contrast_table(summary)), ("costs", cost_table(summary))):
        store.write_text(cfg.results / f"{name}.md", markdown(table))
        store.write_text(cfg.results / f"{name}.csv", table.to_csv(index=False))
    store.write_json(cfg.results / "summary.json", summary)
    return summary


# ---------------------------------------------------------------------------------------------- tables
def percent(value: float, interval: list[float] | None = None, sign: bool = False) -> str:
    """``0.455`` as ``45.5``, with an interval as ``45.5 [41.0, 50.1]``."""
    form = "{:+.1f}" if sign else "{:.1f}"
    text = form.format(100 * value)
    return text if interval is None else f"{text} [{form.format(100 * interval[0])}, {form.format(100 * interval[1])}]"


def result_table(summary: dict) -> pd.DataFrame:
    """One row for each benchmark and arm: both attempts with intervals."""
    order = {arm: i for i, arm in enumerate(["base", "grpo", "grpo_matched", "mgrpo"])}
    rows = sorted(summary["rows"], key=lambda row: (summary["params"]["benchmarks"].index(row["benchmark"]), order.get(row["arm"], 9)))
    return pd.DataFrame(
        {
            "benchmark": row["benchmark"],
            "arm": name_of(row["arm"]),
            "attempt 1, %": percent(row["acc_t1"], row["acc_t1_ci"]),
            "attempt 2, %": percent(row["acc_t2"], row["acc_t2_ci"]),
            "change": percent(row["delta_t1_t2"], row["delta_t1_t2_ci"], sign=True),
            "training tokens": f"{row['train_tokens'] / 1e6:.2f}M",
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
    """What each training run cost."""
    return pd.DataFrame(
        {
            "run": name,
            "steps": run["steps"],
            "generated tokens": run["train_tokens"],
            "seconds": run["seconds"],
            "validation, attempt 1": percent(run["validation"]["acc_t1"]),
            "validation, attempt 2": percent(run["validation"]["acc_t2"]),
        }
        for name, run in summary["runs"].items()
    )


def settings_table(cfg: Config, *stages: type) -> pd.DataFrame:
    """The settings of a run with their meaning, for the notebooks."""
    fields = {name: field for stage in stages for name, field in stage.model_fields.items()}
    table = pd.DataFrame({"setting": list(fields), "value": [str(getattr(cfg, name)) for name in fields], "meaning": [f.description for f in fields.values()]})
    return table.set_index("setting")


def markdown(table: pd.DataFrame) -> str:
    """A table in Markdown; numbers to the right."""
    numeric = [pd.api.types.is_numeric_dtype(table[column]) for column in table]
    lines = ["| " + " | ".join(table.columns) + " |", "|" + "|".join("---:" if n else "---" for n in numeric) + "|"]
    lines += ["| " + " | ".join("" if pd.isna(v) else str(int(v)) if isinstance(v, float) and v.is_integer() else str(v) for v in row) + " |" for row in table.itertuples(index=False)]
    return "\n".join(lines) + "\n"


def update_readme(summary: dict, readme: Path = ROOT / "README.md") -> bool:
    """Puts the generated results between README's markers; returns whether anything changed."""
    text = readme.read_text(encoding="utf-8")
    new = re.sub(r"(<!-- results -->\n).*?(<!-- /results -->)", lambda m: m[1] + readme_block(summary) + m[2], text, flags=re.DOTALL)
    if new != text:
        store.write_text(readme, new)
    return new != text


def readme_block(summary: dict) -> str:
    """README's results: the headline contrasts in words, then the table."""
    n, seeds = summary["rows"][0]["n"], len(summary["params"]["seeds"])
    lines = [
        f"Profile `{summary['profile']}`: the embedded **miniature** (a model of 0.2M parameters and an arithmetic task of ours; no statement about LLMs), "
        f"{seeds} training seeds, {n} test problems a benchmark, both attempts greedy, 95% intervals over seeds and problems.",
        "",
        "MGRPO against GRPO with the same number of generated training tokens, in percentage points:",
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
    environment = summary["environment"]
    lines += [f"Code version `{environment['code_version']}`, parameters `{summary['key']}`, torch {environment['packages']['torch']}, TRL {environment['packages']['trl']}.", ""]
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------- figures
def _style() -> None:
    plt.rcParams.update(
        {
            "figure.dpi": 110,
            "savefig.dpi": 160,
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "legend.frameon": False,
            "svg.hashsalt": "mgrpo",
            "svg.fonttype": "none",
        }
    )


def save(figure: plt.Figure, folder: Path, name: str) -> Path:
    """PNG and SVG, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("svg", "png"):
        temporary = folder / f".{name}.partial.{kind}"
        figure.savefig(temporary, bbox_inches="tight", metadata={"Date": None} if kind == "svg" else None)
        temporary.replace(folder / f"{name}.{kind}")
    return folder / f"{name}.png"


def learning_curves(cfg: Config, window: int = 9) -> plt.Figure:
    """Mean reward of each layer against generated tokens; one thin line for each seed, smoothed over `window` steps, and their mean at the end."""
    _style()
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    for arm in cfg.arms:
        for i, seed in enumerate(cfg.seeds):
            run = cfg.of_arm(arm, seed)
            steps = pd.DataFrame(store.read_jsonl(run.run_folder / "metrics.jsonl"))
            for axis, column in zip(axes, ("reward", "layer2/reward"), strict=True):
                if column in steps:
                    smooth = steps[column].rolling(window, min_periods=1, center=True).mean()
                    label = name_of(arm) if i == 0 else None
                    axis.plot(steps["generated_tokens"] / 1e6, smooth, color=color_of(arm, list(cfg.arms)), lw=1.3, alpha=0.85, label=label)
    axes[0].set(title="Layer 1: first attempts", ylabel=f"mean reward (running mean of {window} steps)", xlabel="generated tokens, all layers (millions)")
    axes[1].set(title="Layer 2: corrections of sampled drafts", xlabel="generated tokens, all layers (millions)")
    for axis in axes:
        axis.set_ylim(0, 1)
        axis.legend(loc="lower right")
    figure.suptitle(f"Training reward, {len(cfg.seeds)} seeds, profile {cfg.profile}", y=1.0)
    return figure


def attempts_figure(summary: dict) -> plt.Figure:
    """Attempt 1 against attempt 2, each arm and benchmark, with 95% intervals and the single seeds."""
    _style()
    benchmarks = summary["params"]["benchmarks"]
    arms = [arm for arm in ["base", "grpo", "grpo_matched", "mgrpo"] if any(row["arm"] == arm for row in summary["rows"])]
    arms += [arm for arm in summary["params"]["arms"] if arm not in arms]
    figure, axes = plt.subplots(1, len(benchmarks), figsize=(2.6 * len(benchmarks) + 0.6, 4), sharey=True, squeeze=False)
    for axis, benchmark in zip(axes[0], benchmarks, strict=True):
        for i, arm in enumerate(arms):
            row = next(row for row in summary["rows"] if row["arm"] == arm and row["benchmark"] == benchmark)
            for attempt, offset, face in ((1, -0.17, "white"), (2, 0.17, None)):
                value, (low, high) = 100 * row[f"acc_t{attempt}"], [100 * x for x in row[f"acc_t{attempt}_ci"]]
                color = color_of(arm, arms)
                axis.errorbar(i + offset, value, yerr=[[max(0, value - low)], [max(0, high - value)]], color=color, lw=1.5, capsize=2.5, zorder=2)
                axis.plot(i + offset, value, "o", ms=7, color=color, mfc=face or color, zorder=3)
                axis.plot([i + offset + 0.1] * len(row[f"acc_t{attempt}_seeds"]), [100 * x for x in row[f"acc_t{attempt}_seeds"]], ".", ms=3, color=color, alpha=0.7)
            axis.annotate("", (i + 0.13, 100 * row["acc_t2"]), (i - 0.13, 100 * row["acc_t1"]), arrowprops={"arrowstyle": "-", "color": color, "alpha": 0.5})
        axis.set_title(benchmark, fontsize=10)
        axis.set_xticks(range(len(arms)), [name_of(arm).replace(", ", ",\n").replace(" ", "\n", 1) for arm in arms], fontsize=7.5)
        axis.set_ylim(0, 102)
    axes[0, 0].set_ylabel("right answers, %")
    figure.suptitle(f"Attempt 1 (open) and attempt 2 (filled), 95% intervals, dots: seeds. Profile {summary['profile']}", y=1.0, fontsize=10.5)
    return figure


def transitions_figure(summary: dict) -> plt.Figure:
    """Gains to the right, losses to the left: what second attempts change, as shares of all problems."""
    _style()
    benchmarks = summary["params"]["benchmarks"]
    arms = list(dict.fromkeys(row["arm"] for row in summary["rows"]))
    arms = sorted(arms, key=lambda arm: ["base", "grpo", "grpo_matched", "mgrpo"].index(arm) if arm in NAMES else 9)
    figure, axes = plt.subplots(1, len(benchmarks), figsize=(2.6 * len(benchmarks) + 0.8, 0.5 * len(arms) + 1.4), sharey=True, sharex=True, squeeze=False)
    for axis, benchmark in zip(axes[0], benchmarks, strict=True):
        for i, arm in enumerate(arms):
            row = next(row for row in summary["rows"] if row["arm"] == arm and row["benchmark"] == benchmark)
            color, y = color_of(arm, arms), len(arms) - 1 - i
            for measure, sign in (("i_to_c", 1), ("c_to_i", -1)):
                value, (low, high) = 100 * row[measure], [100 * x for x in row[f"{measure}_ci"]]
                axis.barh(y, sign * value, color=color, alpha=0.9 if sign > 0 else 0.4, height=0.62)
                axis.plot([sign * low, sign * high], [y, y], color="black", lw=1)
        axis.axvline(0, color="black", lw=0.8)
        axis.set_title(benchmark, fontsize=10)
        axis.set_yticks(range(len(arms)), [name_of(arm) for arm in reversed(arms)])
        axis.xaxis.set_major_formatter(lambda value, _: f"{abs(value):.0f}")
    figure.supxlabel("right to wrong   <   % of all problems   >   wrong to right", fontsize=9)
    figure.suptitle(f"What the second attempt changed, profile {summary['profile']}", y=1.02, fontsize=10.5)
    figure.tight_layout()
    return figure


def method_figure() -> plt.Figure:
    """The method in one picture: two layers, one policy, one step."""
    _style()
    figure, axis = plt.subplots(figsize=(10, 4.1))
    axis.set(xlim=(0, 100), ylim=(0, 41))
    axis.axis("off")

    def box(x: float, y: float, width: float, height: float, text: str, color: str, size: float = 9) -> None:
        axis.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0.3,rounding_size=1", fc=color, ec="#444444", lw=0.9))
        axis.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=size)

    def arrow(start: tuple[float, float], end: tuple[float, float]) -> None:
        axis.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=11, color="#444444", lw=1, shrinkA=0, shrinkB=0))

    blue, orange, grey = "#D6EAF8", "#FBE0CF", "#EEEEEE"
    axis.text(0, 39, "Layer 1: GRPO", fontsize=11, weight="bold", color=COLORS["grpo_matched"])
    axis.text(0, 17.5, "Layer 2: GRPO on corrections", fontsize=11, weight="bold", color=COLORS["mgrpo"])
    box(0, 26, 13, 8, "question $q$", grey)
    box(20, 24, 20, 12, "$G$ drafts\n$o_1,\\ldots,o_G\\sim\\pi_\\theta(\\cdot\\,|\\,q)$", blue)
    box(47, 24, 17, 12, "rule-based reward\n$r_i\\in\\{0,1\\}$", blue)
    box(71, 24, 29, 12, "advantage in the group of $G$\n$A_i=(r_i-\\bar r)\\,/\\,\\mathrm{std}(r)$", blue)
    box(0, 2, 13, 12, "$q$, draft $o_i$,\n“Wait, let me\ndouble-check\nthat.”", grey, 8)
    box(20, 2, 20, 12, "$H$ corrections of $o_i$\n$c_1,\\ldots,c_H\\sim\\pi_\\theta(\\cdot\\,|\\,q,o_i,$ phrase$)$", orange, 8)
    box(47, 2, 17, 12, "the same reward,\ncorrection alone", orange)
    box(71, 2, 29, 12, "advantage in the group of $H$\n$A_{ij}=(r_{ij}-\\bar r_i)\\,/\\,\\mathrm{std}(r_i)$", orange)
    for y in (30, 8):
        for start, end in ((13.6, 19.4), (40.6, 46.4), (64.6, 70.4)):
            arrow((start, y), (end, y))
    arrow((25, 23.4), (8, 14.8))
    axis.text(21, 20.3, "some drafts, right and wrong alike", fontsize=8, color="#444444")
    axis.text(85.5, 19, "one step on  $w_1\\,L_{GRPO}^{(1)}+w_2\\,L_{GRPO}^{(2)}$,  same policy $\\pi_\\theta$", ha="center", va="center", fontsize=9, weight="bold")
    return figure


def draw_all(cfg: Config) -> list[Path]:
    """Every figure of an experiment, from its result files."""
    summary = store.read_json(cfg.results / "summary.json")
    figures = {
        "method": method_figure(),
        "learning_curves": learning_curves(cfg),
        "attempts": attempts_figure(summary),
        "transitions": transitions_figure(summary),
    }
    paths = [save(figure, cfg.figures, name) for name, figure in figures.items()]
    for figure in figures.values():
        plt.close(figure)
    return paths
