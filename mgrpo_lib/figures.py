"""The figures, drawn from result files alone: no torch, no model. Arms keep their colours, intervals are everywhere,
every figure says its profile.
"""

import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from mgrpo_lib import store
from mgrpo_lib.config import Config
from mgrpo_lib.evidence import CONTROLS, HYPOTHESES, SMALLEST_EFFECT
from mgrpo_lib.report import load_run, name_of, ordered_arms

# Okabe and Ito's palette, which colour-blind readers can tell apart
COLORS = {
    "base": "#999999",
    "grpo": "#56B4E9",
    "grpo_matched": "#0072B2",
    "mgrpo": "#D55E00",
    "grpo_more_steps": "#00335C",
}
OTHER_COLORS = ["#009E73", "#CC79A7", "#E69F00", "#7A5195", "#8C6D1F"]


def color_of(arm: str, arms: list[str]) -> str:
    others = [other for other in arms if other not in COLORS]  # in the order of the profile
    return COLORS[arm] if arm in COLORS else OTHER_COLORS[others.index(arm) % len(OTHER_COLORS)]


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


def learning_curves(cfg: Config, window: int = 15) -> plt.Figure:
    """Mean reward of each layer against sampled tokens: a line for each seed, smoothed over `window` steps."""
    _style()
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    for arm in cfg.arms:
        for i, seed in enumerate(cfg.seeds):
            run = cfg.of_arm(arm, seed)
            load_run(run)  # refuses metrics of other parameters
            steps = pd.DataFrame(store.read_jsonl(run.run_folder / "metrics.jsonl"))
            for axis, column in zip(axes, ("reward", "layer2/reward"), strict=True):
                if column in steps:
                    smooth = steps[column].rolling(window, min_periods=1, center=True).mean()
                    label = name_of(arm) if i == 0 else None
                    axis.plot(
                        steps["generated_tokens"] / 1e3,
                        smooth,
                        color=color_of(arm, list(cfg.arms)),
                        lw=1.3,
                        alpha=0.85,
                        label=label,
                    )
    axes[0].set(
        title="Layer 1: first attempts",
        ylabel=f"mean reward (running mean of {window} steps)",
        xlabel="generated tokens, all layers (thousands)",
    )
    axes[1].set(title="Layer 2: corrections of sampled drafts", xlabel="generated tokens, all layers (thousands)")
    for axis in axes:
        axis.set_ylim(0, 1)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=min(4, len(labels)), bbox_to_anchor=(0.5, 0.0))
    figure.suptitle(f"Training reward, seeds {', '.join(map(str, cfg.seeds))}, profile {cfg.profile}", y=1.0)
    return figure


def training_curves(steps: pd.DataFrame, title: str, window: int = 15) -> plt.Figure:
    """One run, finished or under way, against sampled tokens: reward of each layer; shares of mended and broken drafts or,
    where nothing is corrected, of groups without signal; length of the completions. Points are steps, lines running means.

    Args:
        steps: a row for each step, with the columns of ``metrics.jsonl``.
    """
    _style()
    colors = [COLORS["grpo_matched"], COLORS["mgrpo"], *OTHER_COLORS]
    layers = [column.removesuffix("reward") for column in steps if column == "reward" or column.endswith("/reward")]
    labels = ["first attempts", "corrections", *(f"layer {i + 3}" for i in range(len(layers)))]
    corrected = [
        ("layer2/fixed", "mended", VERDICT_COLORS["supported"]),
        ("layer2/broken", "broken", VERDICT_COLORS["refuted"]),
    ]
    alike = [("frac_reward_zero_std", "all right or all wrong", VERDICT_COLORS["undecided"])]
    panels = {
        "mean reward": [(f"{layer}reward", *how) for layer, *how in zip(layers, labels, colors, strict=False)],
        **({"share of corrections": corrected} if len(layers) > 1 else {"share of groups without signal": alike}),
        "tokens an answer": [
            (f"{layer}completions/mean_length", "", c) for layer, c in zip(layers, colors, strict=False)
        ],
    }
    figure, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
    for axis, (name, lines) in zip(axes, panels.items(), strict=True):
        for column, label, color in lines:
            values = steps.set_index(steps["generated_tokens"] / 1e3)[column].dropna()
            axis.plot(values, ".", ms=3, color=color, alpha=0.35)
            axis.plot(values.rolling(window, min_periods=1).mean(), color=color, lw=1.6, label=label)
        axis.set_title(name, fontsize=10)
        axis.set_ylim(0, None if name == "tokens an answer" else 1)
    for axis in axes[:2]:
        axis.legend(loc="best", fontsize=8)
    figure.supxlabel(f"generated tokens, all layers (thousands); lines are means of {window} steps", fontsize=8)
    figure.suptitle(title, fontsize=9)
    return figure


def collapse_curves(cfg: Config, window: int = 15) -> plt.Figure:
    """What corrections do in training: copies, changed answers, edit distance, mended and broken drafts, against sampled
    tokens, smoothed over `window` steps: for each arm the mean over the seeds, in a band from the lowest to the highest.
    """
    _style()
    shown = {
        "copied": "copies of the draft",
        "answer_changed": "another answer",
        "edit_distance": "edit distance",
        "fixed": "wrong drafts mended",
        "broken": "right drafts broken",
    }
    figure, axes = plt.subplots(1, len(shown), figsize=(2.6 * len(shown) + 0.4, 3.2), sharex=True)
    for arm in (arm for arm in cfg.arms if cfg.of_arm(arm).num_layers > 1):
        runs = [store.read_jsonl(cfg.of_arm(arm, seed).run_folder / "metrics.jsonl") for seed in cfg.seeds]
        tables = [pd.DataFrame(run).set_index("step") for run in runs]
        tokens, color = (
            pd.concat([t["generated_tokens"] for t in tables], axis=1).mean(axis=1) / 1e3,
            color_of(arm, list(cfg.arms)),
        )
        for axis, name in zip(axes, shown, strict=True):
            seeds = pd.concat([table[f"layer2/{name}"] for table in tables], axis=1).dropna(how="all")
            smooth, x = 100 * seeds.rolling(window, min_periods=1, center=True).mean(), tokens[seeds.index]
            axis.plot(x, smooth.mean(axis=1), color=color, lw=1.5, label=name_of(arm))
            axis.fill_between(x, smooth.min(axis=1), smooth.max(axis=1), color=color, alpha=0.12, lw=0)
    for axis, title in zip(axes, shown.values(), strict=True):
        axis.set_title(title, fontsize=10)
        axis.set_ylim(bottom=0)
    axes[0].set_ylabel("% of corrections in training")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=min(4, len(labels)), bbox_to_anchor=(0.5, 0.0))
    figure.supxlabel("generated tokens, all layers (thousands)", fontsize=9)
    figure.suptitle(
        f"Does the second layer collapse into copying? Mean and range of the seeds. Profile {cfg.profile}",
        y=1.0,
        fontsize=10.5,
    )
    figure.tight_layout()
    return figure


def attempts_figure(summary: dict) -> plt.Figure:
    """Attempt 1 against attempt 2, each arm and benchmark, with 95% intervals and the single seeds."""
    _style()
    benchmarks = summary["params"]["benchmarks"]
    arms = ordered_arms(summary)
    figure, axes = plt.subplots(
        1, len(benchmarks), figsize=(2.6 * len(benchmarks) + 0.6, 4), sharey=True, squeeze=False
    )
    for axis, benchmark in zip(axes[0], benchmarks, strict=True):
        for i, arm in enumerate(arms):
            row = next(row for row in summary["rows"] if row["arm"] == arm and row["benchmark"] == benchmark)
            for attempt, offset, face in ((1, -0.17, "white"), (2, 0.17, None)):
                value, (low, high) = 100 * row[f"acc_t{attempt}"], [100 * x for x in row[f"acc_t{attempt}_ci"]]
                color = color_of(arm, arms)
                axis.errorbar(
                    i + offset,
                    value,
                    yerr=[[max(0, value - low)], [max(0, high - value)]],
                    color=color,
                    lw=1.5,
                    capsize=2.5,
                    zorder=2,
                )
                axis.plot(i + offset, value, "o", ms=7, color=color, mfc=face or color, zorder=3)
                axis.plot(
                    [i + offset + 0.1] * len(row[f"acc_t{attempt}_seeds"]),
                    [100 * x for x in row[f"acc_t{attempt}_seeds"]],
                    ".",
                    ms=3,
                    color=color,
                    alpha=0.7,
                )
            axis.annotate(
                "",
                (i + 0.13, 100 * row["acc_t2"]),
                (i - 0.13, 100 * row["acc_t1"]),
                arrowprops={"arrowstyle": "-", "color": color, "alpha": 0.5},
            )
        axis.set_title(benchmark, fontsize=10)
        axis.set_xticks([])
        axis.set_ylim(0, 102)
    axes[0, 0].set_ylabel("right answers, %")
    handles = [plt.Line2D([], [], color=color_of(arm, arms), marker="o", lw=1.5, label=name_of(arm)) for arm in arms]
    figure.legend(handles=handles, loc="upper center", ncols=min(4, len(arms)), bbox_to_anchor=(0.5, 0.06))
    figure.suptitle(
        f"Attempt 1 (open) and attempt 2 (filled), 95% intervals, dots: seeds. Profile {summary['profile']}",
        y=1.0,
        fontsize=10.5,
    )
    return figure


def transitions_figure(summary: dict) -> plt.Figure:
    """Gains to the right, losses to the left: what second attempts change, as shares of all problems."""
    _style()
    benchmarks = summary["params"]["benchmarks"]
    arms = ordered_arms(summary)
    figure, axes = plt.subplots(
        1,
        len(benchmarks),
        figsize=(2.6 * len(benchmarks) + 0.8, 0.5 * len(arms) + 1.4),
        sharey=True,
        sharex=True,
        squeeze=False,
    )
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


def contrasts_figure(summary: dict, against: str = "grpo_matched") -> plt.Figure:
    """Every arm minus one of them, on the same problems, both attempts with 95% intervals."""
    _style()
    benchmarks = summary["params"]["benchmarks"]
    rows = [row for row in summary["contrasts"] if row["against"] == against]
    arms = [arm for arm in ordered_arms(summary) if any(row["arm"] == arm for row in rows)]
    figure, axes = plt.subplots(
        1,
        len(benchmarks),
        figsize=(2.5 * len(benchmarks) + 1.6, 0.55 * len(arms) + 1.6),
        sharey=True,
        squeeze=False,
    )
    for row in rows:
        axis, color = axes[0][benchmarks.index(row["benchmark"])], color_of(row["arm"], ordered_arms(summary))
        y = len(arms) - 1 - arms.index(row["arm"]) + (0.14 if row["attempt"] == 1 else -0.14)
        axis.plot([100 * x for x in row["ci"]], [y, y], color=color, lw=1.6, solid_capstyle="butt")
        face = "white" if row["attempt"] == 1 else color
        axis.plot(100 * row["difference"], y, "o", ms=6, color=color, mfc=face)
    for axis, benchmark in zip(axes[0], benchmarks, strict=True):
        axis.axvline(0, color="black", lw=0.8)
        axis.set_title(benchmark, fontsize=10)
        axis.set_ylim(-0.6, len(arms) - 0.4)
    axes[0, 0].set_yticks(range(len(arms)), [name_of(arm) for arm in reversed(arms)])
    figure.supxlabel(f"percentage points above {name_of(against)}", fontsize=9)
    figure.suptitle(
        f"Attempt 1 (open) and attempt 2 (filled) against {name_of(against)}, 95% intervals. Profile {summary['profile']}",
        y=1.0,
        fontsize=10.5,
    )
    figure.tight_layout()
    return figure


VERDICT_COLORS = {"supported": "#009E73", "refuted": "#CC3311", "undecided": "#777777"}


def verdicts_figure(summary: dict) -> plt.Figure:
    """The answer at a glance: each hypothesis on each benchmark, in percentage points, coloured by its verdict. The grey
    band holds effects too small to matter.
    """
    _style()
    benchmarks, names = summary["params"]["benchmarks"], list(summary["verdicts"])
    figure, axes = plt.subplots(
        1, len(names), figsize=(3.1 * len(names) + 0.9, 0.42 * len(benchmarks) + 1.9), sharey=True, sharex=True
    )
    linear, shown = 5, max(abs(100 * x) for row in summary["hypotheses"] for x in row["ci"])
    for axis, name in zip(np.atleast_1d(axes), names, strict=True):
        band = 100 * SMALLEST_EFFECT
        axis.axvspan(-band, band, color="#EEEEEE", zorder=0)
        axis.axvline(0, color="black", lw=0.8)
        for row in (row for row in summary["hypotheses"] if row["hypothesis"] == name):
            y, color = len(benchmarks) - 1 - benchmarks.index(row["benchmark"]), VERDICT_COLORS[row["verdict"]]
            axis.plot([100 * x for x in row["ci"]], [y, y], color=color, lw=2, solid_capstyle="butt")
            axis.plot(100 * row["difference"], y, "o", ms=7, color=color)
            label = f"{100 * row['difference']:+.1f}"
            axis.annotate(
                label, (100 * row["difference"], y), (0, 7), textcoords="offset points", ha="center", fontsize=8
            )
        axis.set_title(f"{name}: {summary['verdicts'][name]}\n" + textwrap.fill(HYPOTHESES[name], 34), fontsize=9)
        axis.set_ylim(-0.6, len(benchmarks) - 0.2)
        axis.set_xscale("symlog", linthresh=linear, linscale=1.1)
        ticks = [tick for tick in (2, 5, 20, 80) if tick <= 1.2 * shown]
        axis.set_xticks([-tick for tick in ticks] + [0, *ticks], minor=False)
        axis.xaxis.set_major_formatter(lambda points, _: f"{points:+.0f}" if points else "0")
        axis.tick_params(axis="x", labelsize=8)
    low = min(100 * row["ci"][0] for row in summary["hypotheses"])
    np.atleast_1d(axes)[0].set_xlim(min(-linear, 1.3 * low), max(linear, 1.3 * shown))
    np.atleast_1d(axes)[0].set_yticks(range(len(benchmarks)), list(reversed(benchmarks)))
    handles = [plt.Line2D([], [], color=c, marker="o", lw=2, label=v) for v, c in VERDICT_COLORS.items()]
    figure.legend(handles=handles, loc="upper center", ncols=3, bbox_to_anchor=(0.5, 0.0))
    seeds, n = len(summary["params"]["seeds"]), summary["rows"][0]["n"]
    figure.supxlabel(
        f"percentage points (beyond ±{linear} on a logarithmic scale), 95% intervals; seeds: {seeds}, problems: {n}. Profile {summary['profile']}",
        fontsize=9,
    )
    figure.tight_layout()
    return figure


def controls_figure(summary: dict) -> plt.Figure:
    """MGRPO's second attempts and every control, right answers in percent; around a control the interval of its distance."""
    _style()
    benchmarks = summary["params"]["benchmarks"]
    rows = {(row["control"], row["benchmark"]): row for row in summary["controls"]}
    shown = list(dict.fromkeys(control for control, _ in rows))
    figure, axes = plt.subplots(
        1, len(benchmarks), figsize=(2.5 * len(benchmarks) + 2.2, 0.42 * len(shown) + 1.7), sharey=True, squeeze=False
    )
    for axis, benchmark in zip(axes[0], benchmarks, strict=True):
        for i, control in enumerate(shown):
            row, y = rows[control, benchmark], len(shown) - 1 - i
            better = row["verdict"] == "supported"
            axis.plot([100 * row["control_accuracy"], 100 * row["mgrpo"]], [y, y], color="#BBBBBB", lw=1.5, zorder=1)
            axis.plot([100 * (row["mgrpo"] - x) for x in row["ci"]], [y, y], color="#555555", lw=2.5, zorder=2)
            axis.plot(
                100 * row["control_accuracy"], y, "s", ms=6, color="#555555", mfc="#555555" if better else "white"
            )
            axis.plot(100 * row["mgrpo"], y, "o", ms=7, color=COLORS["mgrpo"], zorder=3)
        axis.set_title(benchmark, fontsize=10)
        axis.set_ylim(-0.6, len(shown) - 0.4)
        axis.set_xlim(-3, 103)
    axes[0, 0].set_yticks(range(len(shown)), [CONTROLS[control] for control in reversed(shown)])
    handles = [
        plt.Line2D([], [], color=COLORS["mgrpo"], marker="o", lw=0, label="MGRPO, attempt 2"),
        plt.Line2D([], [], color="#555555", marker="s", lw=0, label="control: MGRPO is better"),
        plt.Line2D([], [], color="#555555", marker="s", mfc="white", lw=0, label="control: not shown to be worse"),
    ]
    figure.legend(handles=handles, loc="upper center", ncols=3, bbox_to_anchor=(0.5, 0.0))
    figure.supxlabel("right answers, %", fontsize=9)
    figure.suptitle(
        f"Is it self-correction? Around a control: 95% interval of its distance from MGRPO. Profile {summary['profile']}",
        y=1.0,
        fontsize=10.5,
    )
    figure.tight_layout()
    return figure


def budgets_figure(summary: dict) -> plt.Figure:
    """Accuracy against the tokens that it costs at test: votes among sampled attempts, and an attempt with its
    correction (star).
    """
    _style()
    benchmarks, arms = summary["params"]["benchmarks"], ordered_arms(summary)
    figure, axes = plt.subplots(
        1, len(benchmarks), figsize=(2.6 * len(benchmarks) + 0.6, 3.6), sharey=True, squeeze=False
    )
    for axis, benchmark in zip(axes[0], benchmarks, strict=True):
        for arm in arms:
            own = [row for row in summary["budgets"] if (row["arm"], row["benchmark"]) == (arm, benchmark)]
            votes, color = [row for row in own if row["k"]], color_of(arm, arms)
            tokens = [row["tokens"] for row in votes]
            axis.plot(tokens, [100 * row["maj"] for row in votes], ".-", color=color, lw=1.4, ms=4, label=name_of(arm))
            axis.plot(tokens, [100 * row["pass"] for row in votes], ":", color=color, lw=1.1)
            chain = next(row for row in own if row["k"] is None)
            low, high = (100 * x for x in chain["chain_ci"])
            axis.plot([chain["tokens"]] * 2, [low, high], color=color, lw=1.2)
            axis.plot(chain["tokens"], 100 * chain["chain"], "*", ms=12, color=color, mec="white", zorder=4)
        axis.set_title(benchmark, fontsize=10)
        axis.set_ylim(0, 102)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(lambda tokens, _: f"{tokens:.0f}")
    axes[0, 0].set_ylabel("right answers, %")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=min(4, len(labels)), bbox_to_anchor=(0.5, 0.0))
    figure.supxlabel("generated tokens a problem", fontsize=9)
    figure.suptitle(
        "Star: an attempt and its correction. Lines: majority of k attempts; dotted: any of k right. Temperature 1. "
        f"Profile {summary['profile']}",
        y=1.0,
        fontsize=10,
    )
    figure.tight_layout()
    return figure


def method_figure() -> plt.Figure:
    """The method in one picture: two layers, one policy, one step."""
    _style()
    figure, axis = plt.subplots(figsize=(10, 4.6))
    axis.set(xlim=(-1, 101), ylim=(-9, 41))
    axis.axis("off")

    def box(x: float, y: float, width: float, height: float, text: str, color: str, size: float = 9) -> None:
        axis.add_patch(
            FancyBboxPatch(
                (x, y), width, height, boxstyle="round,pad=0.3,rounding_size=1", fc=color, ec="#444444", lw=0.9
            )
        )
        axis.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=size)

    def arrow(start: tuple[float, float], end: tuple[float, float]) -> None:
        axis.add_patch(
            FancyArrowPatch(
                start, end, arrowstyle="-|>", mutation_scale=11, color="#444444", lw=1, shrinkA=0, shrinkB=0
            )
        )

    blue, orange, grey = "#D6EAF8", "#FBE0CF", "#EEEEEE"
    axis.text(0, 39, "Layer 1: GRPO", fontsize=11, weight="bold", color=COLORS["grpo_matched"])
    axis.text(27, 17.5, "Layer 2: GRPO on corrections", fontsize=11, weight="bold", color=COLORS["mgrpo"])
    box(0, 26, 13, 8, "question $q$", grey)
    box(20, 24, 20, 12, "$G$ drafts\n$o_1,\\ldots,o_G\\sim\\pi_\\theta(\\cdot\\,|\\,q)$", blue)
    box(47, 24, 17, 12, "rule-based reward\n$r_i\\in\\{0,1\\}$", blue)
    box(71, 24, 29, 12, "advantage in the group of $G$\n$A_i=(r_i-\\bar r)\\,/\\,\\mathrm{std}(r)$", blue)
    box(0, 2, 13, 12, "$q$, draft $o_i$,\n“Wait, let me\ndouble-check\nthat.”", grey, 8)
    box(20, 2, 20, 12, "$H$ corrections of $o_i$\n$c_{1..H}\\sim\\pi_\\theta(\\cdot\\,|\\,q,o_i,$ phrase$)$", orange, 8)
    box(47, 2, 17, 12, "the same reward,\ncorrection alone", orange)
    box(71, 2, 29, 12, "advantage in the group of $H$\n$A_{ij}=(r_{ij}-\\bar r_i)\\,/\\,\\mathrm{std}(r_i)$", orange)
    for y in (30, 8):
        for start, end in ((13.6, 19.4), (40.6, 46.4), (64.6, 70.4)):
            arrow((start, y), (end, y))
    arrow((25, 23.4), (8, 14.8))
    axis.text(0, 18.2, "some drafts, right\nor wrong", fontsize=8, color="#444444")
    box(
        20,
        -7.5,
        80,
        5,
        "one optimizer step on   $w_1\\,L_{GRPO}(q)\\;+\\;w_2\\,L_{GRPO}(q,o_i)$   for the one policy $\\pi_\\theta$",
        grey,
        10,
    )
    return figure


def draw_all(cfg: Config) -> list[Path]:
    """Every figure of an experiment, from its result files."""
    summary = store.read_json(cfg.results / "summary.json")
    figures = {
        "method": method_figure(),
        "learning_curves": learning_curves(cfg),
        "collapse": collapse_curves(cfg),
        "attempts": attempts_figure(summary),
        "transitions": transitions_figure(summary),
        "contrasts": contrasts_figure(summary),
    }
    drawn = {"hypotheses": verdicts_figure, "controls": controls_figure, "budgets": budgets_figure}
    figures |= {name: draw(summary) for name, draw in drawn.items() if summary[name]}
    for name in drawn.keys() - figures.keys():  # none is left of an experiment with other arms or controls
        for kind in ("svg", "png"):
            (cfg.figures / f"{name}.{kind}").unlink(missing_ok=True)
    paths = [save(figure, cfg.figures, name) for name, figure in figures.items()]
    for figure in figures.values():
        plt.close(figure)
    return paths
