"""The figures, drawn from result files alone: no torch, no model. `mgrpo_lib.report.style` has their look, `mgrpo_lib.report.captions` says
what to see in each.
"""

import textwrap
from collections.abc import Iterable
from pathlib import Path as File

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Image, Markdown, display
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, PathPatch
from matplotlib.path import Path
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from mgrpo_lib.experiment import store
from mgrpo_lib.experiment.settings import Config
from mgrpo_lib.report.captions import captions, counted, reference_arm, where
from mgrpo_lib.report.style import (
    COLORS,
    INK,
    OTHER_COLORS,
    SOFT,
    TEXT_WIDTH,
    VERDICT_COLORS,
    VERDICT_MARKERS,
    color_of,
    finish,
    key,
    look_of,
    panels,
    save,
    use_style,
)
from mgrpo_lib.report.tables import load_run, name_of, ordered_arms
from mgrpo_lib.report.verdicts import CONTROLS, HYPOTHESES, SMALLEST_EFFECT

LINEAR = 5  # percentage points: beyond these the axis of differences is logarithmic
OUTLINE = [withStroke(linewidth=2, foreground="white")]  # letters stay readable on lines


# ---------------------------------------------------------------------------------------------- parts
def _rows_of(summary: dict, benchmark: str) -> dict[str, dict]:
    """The row of each arm, from baseline to method."""
    rows = {row["arm"]: row for row in summary["rows"] if row["benchmark"] == benchmark}
    return {arm: rows[arm] for arm in ordered_arms(summary)}


def _name_rows(axis: Axes, names: Iterable[str], width: int = 20) -> None:
    """A line of the panel for each name, the first at the top; labels stand at the left, so no legend is needed."""
    names = [name if "\n" in name else textwrap.fill(name, width) for name in names]
    axis.set_yticks(range(len(names)), list(reversed(names)), linespacing=0.95)
    axis.set_ylim(-0.6, len(names) - 0.4)
    axis.tick_params(axis="y", length=0)


def _points_axis(axis: Axes, values: Iterable[float], ticks: tuple = (-20, -LINEAR, 0, LINEAR, 50)) -> None:
    """Percentage points around 0: linear up to `LINEAR`, logarithmic beyond, so that small and large differences show."""
    values = list(values)
    low, high = min(-LINEAR, 1.5 * min(values)), max(LINEAR, 1.5 * max(values))
    axis.axvline(0, color=INK, lw=0.8)
    axis.set_xscale("symlog", linthresh=LINEAR, linscale=1.1)
    axis.set_xlim(low, high)
    axis.set_xticks([tick for tick in ticks if low <= tick <= high])
    axis.set_xticks([], minor=True)
    axis.xaxis.set_major_formatter(lambda points, _: f"{points:+.0f}" if points else "0")


def _interval(axis: Axes, interval: Iterable[float], y: float, color: str, lw: float = 1.5) -> None:
    axis.plot([100 * x for x in interval], [y, y], color=color, lw=lw, solid_capstyle="butt", zorder=2)


def _attempts_key() -> list:
    return [
        key("attempt 1", marker="o", mfc="white", color=INK, lw=1.5),
        key("attempt 2", marker="o", color=INK, lw=1.5),
    ]


def _arms_key(arms: list[str], **look) -> list:
    return [key(name_of(a), color=color_of(a, arms), marker=look_of(a, arms)[1], ms=5, **look) for a in arms]


# ---------------------------------------------------------------------------------------------- at test
def verdicts_figure(summary: dict) -> plt.Figure:
    """The answer at a glance: each hypothesis on each benchmark, in percentage points, coloured by its verdict. The grey
    band holds effects too small to matter.
    """
    benchmarks, names = summary["params"]["benchmarks"], list(summary["verdicts"])
    figure, axes, _ = panels(names, 0.3 * len(benchmarks) + 0.7)
    found = [100 * x for row in summary["hypotheses"] for x in row["ci"]]
    for name, axis in axes.items():
        axis.axvspan(-100 * SMALLEST_EFFECT, 100 * SMALLEST_EFFECT, color="#EEEEEE", zorder=0, lw=0)
        for row in (row for row in summary["hypotheses"] if row["hypothesis"] == name):
            y, verdict = len(benchmarks) - 1 - benchmarks.index(row["benchmark"]), row["verdict"]
            color, value = VERDICT_COLORS[verdict], 100 * row["difference"]
            face = "white" if verdict == "undecided" else color
            _interval(axis, row["ci"], y, color, 2)
            edge = color if verdict == "undecided" else "white"
            axis.plot(value, y, VERDICT_MARKERS[verdict], ms=7, color=color, mfc=face, mec=edge, mew=0.8, zorder=3)
            axis.annotate(f"{value:+.1f}", (value, y), (0, 4.5), textcoords="offset points", ha="center",
                          va="bottom", path_effects=OUTLINE)  # fmt: skip
        axis.set_title(f"{name}: {summary['verdicts'][name]}\n" + textwrap.fill(HYPOTHESES[name], 38))
        _name_rows(axis, benchmarks)
        axis.set_ylim(-0.5, len(benchmarks) - 0.1)
        _points_axis(axis, found, (-20, -LINEAR, -2, 0, 2, LINEAR, 20, 80))
    handles = [
        key(
            verdict,
            color=color,
            marker=VERDICT_MARKERS[verdict],
            mfc="white" if verdict == "undecided" else color,
            lw=2,
        )
        for verdict, color in VERDICT_COLORS.items()
    ]
    finish(figure, where(summary), f"percentage points, 95% intervals; logarithmic beyond ±{LINEAR}", handles)
    return figure


def controls_figure(summary: dict) -> plt.Figure:
    """MGRPO's second attempts and every control, right answers in percent; around a control the interval of its distance."""
    benchmarks = summary["params"]["benchmarks"]
    rows = {(row["control"], row["benchmark"]): row for row in summary["controls"]}
    shown = list(dict.fromkeys(control for control, _ in rows))
    figure, axes, spare = panels(benchmarks, 0.32 * len(shown) + 0.6, sharey=True)
    for benchmark, axis in axes.items():
        for i, control in enumerate(shown):
            row, y = rows[control, benchmark], len(shown) - 1 - i
            better = row["verdict"] == "supported"
            theirs, ours = 100 * row["control_accuracy"], 100 * row["mgrpo"]
            axis.plot([theirs, ours], [y, y], color=SOFT, lw=1, zorder=1)
            axis.plot(ours, y, "o", ms=5.5, color=COLORS["mgrpo"], zorder=2)
            _interval(axis, [row["mgrpo"] - x for x in row["ci"]], y, INK, 1.2)
            axis.plot(
                theirs,
                y,
                "s" if better else "D",
                ms=5 if better else 7,
                color=INK,
                mfc=INK if better else "none",
                zorder=3,
            )
        axis.set_xlim(-3, 103)
        _name_rows(axis, [CONTROLS[control] for control in shown], 22)
    handles = [
        key("MGRPO, attempt 2", color=COLORS["mgrpo"], marker="o", lw=0),
        key("control: MGRPO is better", color=INK, marker="s", lw=1.2),
        key("control: not shown\nto be worse", color=INK, marker="D", ms=7, mfc="none", lw=1.2),
    ]
    finish(
        figure,
        where(summary),
        "right answers, %; around a control the 95% interval of its distance from MGRPO",
        handles,
        spare,
    )
    return figure


def attempts_figure(summary: dict) -> plt.Figure:
    """Both attempts of every arm on every benchmark, with 95% intervals and the single seeds."""
    benchmarks, arms = summary["params"]["benchmarks"], ordered_arms(summary)
    figure, axes, spare = panels(benchmarks, 0.32 * len(arms) + 0.55, sharey=True)
    for benchmark, axis in axes.items():
        for i, (arm, row) in enumerate(_rows_of(summary, benchmark).items()):
            color, marker = look_of(arm, arms)
            for attempt, offset in ((1, 0.18), (2, -0.18)):
                y, face = len(arms) - 1 - i + offset, "white" if attempt == 1 else color
                _interval(axis, row[f"acc_t{attempt}_ci"], y, color)
                seeds = [100 * x for x in row[f"acc_t{attempt}_seeds"]]
                if len(seeds) > 1:
                    axis.plot(seeds, [y] * len(seeds), "|", ms=6, mew=0.6, color=color, zorder=1)
                axis.plot(100 * row[f"acc_t{attempt}"], y, marker, ms=4.5, color=color, mfc=face, zorder=3)
        axis.set_xlim(-2, 102)
        _name_rows(axis, map(name_of, arms))
    finish(
        figure,
        where(summary),
        "right answers, %, 95% intervals",
        [*_attempts_key(), key("one seed", marker="|", color=INK, lw=0)],
        spare,
    )
    return figure


def contrasts_figure(summary: dict) -> plt.Figure:
    """Differences between arms on the same problems, both attempts with 95% intervals: every arm minus the reference, or,
    where hardly an arm has been compared with that, every pair that was.
    """
    benchmarks, against = summary["params"]["benchmarks"], reference_arm(summary)
    pairs = list(dict.fromkeys((row["arm"], row["against"]) for row in summary["contrasts"]))
    chosen = [pair for pair in pairs if pair[1] == against]
    if len(chosen) < 3:
        chosen, label = pairs, "percentage points"
        names = [f"{name_of(arm)}\n- {name_of(other)}" for arm, other in chosen]
    else:
        label, names = f"percentage points above {name_of(against)}", [name_of(arm) for arm, _ in chosen]
    rows = [row for row in summary["contrasts"] if (row["arm"], row["against"]) in chosen]
    figure, axes, spare = panels(benchmarks, 0.34 * len(chosen) + 0.55, sharey=True)
    for row in rows:
        axis, (color, marker) = axes[row["benchmark"]], look_of(row["arm"], ordered_arms(summary))
        place = chosen.index((row["arm"], row["against"]))
        y = len(chosen) - 1 - place + (0.18 if row["attempt"] == 1 else -0.18)
        _interval(axis, row["ci"], y, color)
        face = "white" if row["attempt"] == 1 else color
        axis.plot(100 * row["difference"], y, marker, ms=5, color=color, mfc=face, zorder=3)
    for axis in axes.values():
        _name_rows(axis, names)
        _points_axis(axis, [100 * x for row in rows for x in row["ci"]])
    finish(figure, where(summary), f"{label}, 95% intervals; logarithmic beyond ±{LINEAR}", _attempts_key(), spare)
    return figure


def transitions_figure(summary: dict) -> plt.Figure:
    """Gains to the right, losses to the left: what second attempts change, as shares of all problems."""
    benchmarks, arms = summary["params"]["benchmarks"], ordered_arms(summary)
    figure, axes, spare = panels(benchmarks, 0.3 * len(arms) + 0.55, sharey=True)
    shares = {"i_to_c": (1, VERDICT_COLORS["supported"], "o"), "c_to_i": (-1, VERDICT_COLORS["refuted"], "X")}
    ends = [sign * 100 * x for row in summary["rows"] for name, (sign, *_) in shares.items() for x in row[f"{name}_ci"]]
    for benchmark, axis in axes.items():
        for i, row in enumerate(_rows_of(summary, benchmark).values()):
            for name, (sign, color, marker) in shares.items():
                y = len(arms) - 1 - i + 0.14 * sign  # beside each other where an interval reaches 0
                _interval(axis, [sign * x for x in row[f"{name}_ci"]], y, color)
                axis.plot(sign * 100 * row[name], y, marker, ms=4.5, color=color, zorder=3)
        _name_rows(axis, map(name_of, arms))
        _points_axis(axis, ends)
        axis.xaxis.set_major_formatter(lambda points, _: f"{abs(points):.0f}")
    handles = [
        key("wrong to right (mended)", color=VERDICT_COLORS["supported"], marker="o", lw=1.5),
        key("right to wrong (broken)", color=VERDICT_COLORS["refuted"], marker="X", lw=1.5),
    ]
    finish(
        figure,
        where(summary),
        f"right to wrong  <  % of all problems, 95% intervals; logarithmic beyond {LINEAR}  >  wrong to right",
        handles,
        spare,
    )
    return figure


def flows_figure(summary: dict) -> plt.Figure:
    """What becomes of right and wrong first attempts: for each arm and benchmark a flow from attempt 1 (left) to attempt 2
    (right); widths are shares of all problems.
    """
    use_style()
    benchmarks, arms = summary["params"]["benchmarks"], ordered_arms(summary)
    size = (TEXT_WIDTH, 0.82 * len(arms) + 0.75)
    figure, axes = plt.subplots(1, len(benchmarks), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for benchmark, axis in zip(benchmarks, axes[0], strict=True):
        for i, (arm, row) in enumerate(_rows_of(summary, benchmark).items()):
            _flow(axis, len(arms) - 1 - i, row, color_of(arm, arms))
        axis.set(title=benchmark, xlim=(0, 1), ylim=(-0.02, len(arms)), xticks=[0.04, 0.96])
        axis.set_xticklabels(["1st", "2nd"])
        axis.grid(False)
        axis.spines[:].set_visible(False)
        axis.tick_params(length=0)
    axes[0, 0].set_yticks(
        [i + 0.66 for i in range(len(arms))], [textwrap.fill(name_of(arm), 16) for arm in reversed(arms)]
    )
    handles = [
        key("right (arm's colour)", marker="s", color=INK, lw=0),
        key("wrong", marker="s", color=SOFT, lw=0),
        key("mended, + %", color=VERDICT_COLORS["supported"], lw=4),
        key("broken, - %", color=VERDICT_COLORS["refuted"], lw=4),
    ]
    finish(figure, where(summary), "", handles)
    return figure


def _flow(axis: Axes, y: float, row: dict, color: str) -> None:
    """One flow with its numbers below, in a cell of width and height 1 whose lower edge is at `y`."""
    bottom, height, gap, bar = y + 0.36, 0.52, 0.06, 0.08
    kept, broken, mended = row["acc_t1"] - row["c_to_i"], row["c_to_i"], row["i_to_c"]
    missed = 1 - row["acc_t1"] - mended

    def at(share: float, wrong: bool) -> float:
        """Height of a place that is `share` below the top; those of wrong answers start below a gap."""
        return bottom + gap * (not wrong) + height * (1 - share)

    flows = [  # share, where it starts and ends, counted from the top
        (kept, 0, False, 0, False, color, 0.3),
        (missed, kept + broken + mended, True, kept + mended + broken, True, SOFT, 0.45),
        (broken, kept, False, kept + mended, True, VERDICT_COLORS["refuted"], 0.9),
        (mended, kept + broken, True, kept, False, VERDICT_COLORS["supported"], 0.9),
    ]
    for share, start, wrong, end, still_wrong, shade, alpha in flows:
        if share > 0:
            left, right = at(start, wrong), at(end, still_wrong)
            thick = height * share
            corners = [
                (bar, left), (0.5, left), (0.5, right), (1 - bar, right),
                (1 - bar, right - thick), (0.5, right - thick), (0.5, left - thick), (bar, left - thick), (bar, left),
            ]  # fmt: skip
            codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
            axis.add_patch(PathPatch(Path(corners, codes), fc=shade, alpha=alpha, lw=0))
    for x, right in ((0, kept + broken), (1 - bar, kept + mended)):
        axis.bar(x, height * right, bar, at(right, False), align="edge", color=color, lw=0)
        axis.bar(x, height * (1 - right), bar, at(1, True), align="edge", color=SOFT, lw=0)
    for name, place, sign, verdict in (("i_to_c", y + 0.24, "+", "supported"), ("c_to_i", y + 0.09, "-", "refuted")):
        low, high = (100 * x for x in row[f"{name}_ci"])
        text = f"{sign}{100 * row[name]:.1f} [{low:.1f}, {high:.1f}]"
        axis.text(0.5, place, text, ha="center", va="center", color=VERDICT_COLORS[verdict], fontsize=8)


# ---------------------------------------------------------------------------------------------- what it costs
def frontier_figure(summary: dict) -> plt.Figure:
    """Accuracy against what training cost: each arm's mean over seeds with its interval, the seeds small. A row of panels for
    tokens that were sampled, unless all arms sampled as many, and one for tokens that were sampled or read.
    """
    use_style()
    benchmarks, arms = summary["params"]["benchmarks"], ordered_arms(summary)
    costs = {
        "train_tokens": "tokens sampled\nin training, thousands",
        "processed_tokens": "tokens sampled or read\nin training, thousands",
    }
    spent = {
        (arm, cost): np.array([run[cost] for run in summary["runs"].values() if run["arm"] == arm]) / 1e3
        for arm in arms
        for cost in costs
    }
    means = {cost: [spent[arm, cost].mean() for arm in arms if arm != "base"] for cost in costs}
    rows = [cost for cost in costs if max(means[cost]) > 1.05 * min(means[cost])] or list(costs)[:1]
    size = (TEXT_WIDTH, (1.75 if len(rows) > 1 else 2.4) * len(rows) + 0.85)
    figure, axes = plt.subplots(
        len(rows), len(benchmarks), figsize=size, sharey=True, sharex="row", squeeze=False, layout="constrained"
    )
    for cost, line in zip(rows, axes, strict=True):
        least = min(0.12, 0.5 / (len(arms) - 1)) * max(means[cost])  # all arms take half of the axis at most
        place, width = _apart({arm: spent[arm, cost].mean() for arm in arms}, least), least / 2
        for benchmark, axis in zip(benchmarks, line, strict=True):
            for arm, row in _rows_of(summary, benchmark).items():
                color, marker = look_of(arm, arms)
                places = [place[arm] - width / 2, place[arm] + width / 2]
                values = [100 * row[f"acc_t{attempt}"] for attempt in (1, 2)]
                axis.plot(places, values, color=color, lw=0.8, zorder=2)
                for attempt, x, value, face in zip((1, 2), places, values, ("white", color), strict=True):
                    low, high = (100 * bound for bound in row[f"acc_t{attempt}_ci"])
                    axis.plot([x, x], [low, high], color=color, lw=1.1, zorder=2)
                    if len(spent[arm, cost]) > 1:
                        seeds = [100 * right for right in row[f"acc_t{attempt}_seeds"]]
                        axis.plot([x] * len(seeds), seeds, "_", ms=3, mew=0.8, color=color, zorder=1)
                    axis.plot(x, value, marker, ms=4, color=color, mfc=face, zorder=3)
            axis.set_ylim(-2, 102)
            axis.margins(x=0.15)
            axis.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        line[0].set_ylabel("right answers, %")
        line[len(line) // 2].set_xlabel(costs[cost].replace("\n", " "))
    for benchmark, axis in zip(benchmarks, axes[0], strict=True):
        axis.set_title(benchmark)
    finish(figure, where(summary), "", [*_arms_key(arms, lw=1.1), *_attempts_key()])
    return figure


def _apart(wanted: dict[str, float], least: float) -> dict[str, float]:
    """Places in the order of the wanted ones, at least `least` apart: what is too close stands around its mean."""
    crowds: list[list[str]] = []

    def places(crowd: list[str]) -> list[float]:
        middle = sum(wanted[name] for name in crowd) / len(crowd)
        return [middle + (i - (len(crowd) - 1) / 2) * least for i in range(len(crowd))]

    for name in sorted(wanted, key=wanted.get):
        crowds.append([name])
        while len(crowds) > 1 and places(crowds[-1])[0] - places(crowds[-2])[-1] < least:
            crowds[-2:] = [crowds[-2] + crowds[-1]]
    return {name: place for crowd in crowds for name, place in zip(crowd, places(crowd), strict=True)}


def budgets_figure(summary: dict) -> plt.Figure:
    """Accuracy against the tokens that it costs at test, sampled: attempt 1 (k = 1), votes among k attempts, and an attempt
    with its correction.
    """
    benchmarks, arms = summary["params"]["benchmarks"], ordered_arms(summary)
    figure, axes, spare = panels(benchmarks, 1.9, sharey=True)
    for benchmark, axis in axes.items():
        for i, arm in enumerate(arms):
            own = [row for row in summary["budgets"] if (row["arm"], row["benchmark"]) == (arm, benchmark)]
            votes, (color, marker) = [row for row in own if row["k"]], look_of(arm, arms)
            beside = 1.035 ** (i - (len(arms) - 1) / 2)  # intervals of equal budgets stand beside each other
            tokens = [beside * row["tokens"] for row in votes]
            axis.plot(tokens, [100 * row["maj"] for row in votes], color=color, lw=1.1, zorder=2)
            for x, row in zip(tokens, votes, strict=True):
                axis.plot([x, x], [100 * bound for bound in row["maj_ci"]], color=color, lw=0.8, alpha=0.7, zorder=1)
            axis.plot(tokens, [100 * row["pass"] for row in votes], ":", color=color, lw=1)
            axis.plot(tokens[0], 100 * votes[0]["maj"], marker, ms=4, color=color, mfc="white", zorder=3)
            chain = next(row for row in own if row["k"] is None)
            x = beside * chain["tokens"]
            axis.plot([x, x], [100 * bound for bound in chain["chain_ci"]], color=color, lw=1.6, zorder=4)
            axis.plot(x, 100 * chain["chain"], marker, ms=6.5, color=color, mec="white", mew=0.8, zorder=5)
        axis.set_ylim(-2, 102)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(lambda tokens, _: f"{tokens:.0f}")
    for axis in list(axes.values())[:: 3 if len(benchmarks) > 3 else len(benchmarks)]:
        axis.set_ylabel("right answers, %")
    handles = [
        *_arms_key(arms, lw=1.1),
        key("attempt 1", color=INK, marker="o", mfc="white", lw=0, ms=4),
        key("attempt and correction", color=INK, marker="o", lw=1.6, ms=6.5, mec="white"),
        key("majority of k attempts", color=INK, lw=1.1),
        key("any of k attempts", color=INK, lw=1, ls=":"),
    ]
    finish(
        figure, where(summary), "generated tokens a problem, logarithmic; temperature 1, 95% intervals", handles, spare
    )
    return figure


# ---------------------------------------------------------------------------------------------- in training
def _metrics(cfg: Config, arm: str) -> list[pd.DataFrame]:
    """The metrics of each seed, by step; refused if they are of other parameters."""
    runs = [cfg.of_arm(arm, seed) for seed in cfg.seeds]
    for run in runs:
        load_run(run)
    return [pd.DataFrame(store.read_jsonl(run.run_folder / "metrics.jsonl")).set_index("step") for run in runs]


def _band(
    axis: Axes, tables: list[pd.DataFrame], column: str, window: int, look: tuple[str, str], scale: float
) -> None:
    """The mean over seeds, in a band from the lowest to the highest, of the steps that all seeds have: running means."""
    seeds = pd.concat([table[column] for table in tables], axis=1).dropna()
    tokens = pd.concat([table["generated_tokens"] for table in tables], axis=1).mean(axis=1)[seeds.index] / 1e3
    smooth, (color, marker) = scale * seeds.rolling(window, min_periods=1, center=True).mean(), look
    every = max(1, len(smooth) // 6)
    axis.plot(tokens, smooth.mean(axis=1), color=color, marker=marker, ms=4, markevery=every, lw=1.3, zorder=3)
    axis.fill_between(tokens, smooth.min(axis=1), smooth.max(axis=1), color=color, alpha=0.13, lw=0)


def learning_curves(cfg: Config, window: int = 15) -> plt.Figure:
    """Reward of each layer against sampled tokens, smoothed over `window` steps: for each arm the mean over the seeds, in a
    band from the lowest to the highest.
    """
    titles = {"reward": "layer 1: first attempts", "layer2/reward": "layer 2: corrections of sampled drafts"}
    figure, axes, spare = panels(list(titles.values()), 2.6, sharey=True)
    arms = list(cfg.arms)
    for arm in arms:
        tables = _metrics(cfg, arm)
        for column, title in titles.items():
            if all(column in table for table in tables):
                _band(axes[title], tables, column, window, look_of(arm, arms), 1)
    axes[titles["reward"]].set_ylabel(f"mean reward, running mean of {window} steps")
    finish(
        figure,
        f"Profile {cfg.profile}: mean and range of {counted(cfg.seeds)}",
        "generated tokens, all layers, thousands",
        _arms_key(arms, lw=1.3),
        spare,
    )
    return figure


def collapse_curves(cfg: Config, window: int = 15) -> plt.Figure:
    """What corrections do in training: copies, changed answers, edit distance, mended and broken drafts, against sampled
    tokens, smoothed over `window` steps: for each arm the mean over the seeds, in a band from the lowest to the highest.
    """
    shown = {
        "copied": "copies of the draft",
        "answer_changed": "another answer",
        "edit_distance": "edit distance",
        "fixed": "wrong drafts mended",
        "broken": "right drafts broken",
    }
    figure, axes, spare = panels(list(shown.values()), 1.75)
    arms = [arm for arm in cfg.arms if cfg.of_arm(arm).num_layers > 1]
    for arm in arms:
        tables = _metrics(cfg, arm)
        for name, title in shown.items():
            _band(axes[title], tables, f"layer2/{name}", window, look_of(arm, list(cfg.arms)), 100)
    for axis in axes.values():
        axis.set_ylim(bottom=0)
    handles = [
        key(name_of(a), color=look[0], marker=look[1], ms=4) for a in arms if (look := look_of(a, list(cfg.arms)))
    ]
    figure.supylabel("% of corrections in training")
    finish(
        figure,
        f"Profile {cfg.profile}: mean and range of {counted(cfg.seeds)}, running means of {window} steps",
        "generated tokens, all layers, thousands",
        handles,
        spare,
    )
    return figure


# ---------------------------------------------------------------------------------------------- the method
def method_figure() -> plt.Figure:
    """The method in one picture: two layers, one policy, one step."""
    use_style()
    figure, axis = plt.subplots(figsize=(TEXT_WIDTH, 4.1))
    figure.subplots_adjust(0, 0, 1, 1)
    axis.set(xlim=(0, 100.6), ylim=(0, 58.5))
    axis.axis("off")
    blue, orange, grey = "#D9EAF6", "#FBE3D4", "#EFEFEF"
    first, second = COLORS["grpo_matched"], COLORS["mgrpo"]

    def box(x: float, y: float, width: float, height: float, text: str, fill: str, edge: str = "#555555") -> None:
        shape = "round,pad=0,rounding_size=1"
        axis.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=shape, fc=fill, ec=edge, lw=0.9, zorder=2))
        axis.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=8, linespacing=1.35, zorder=3)

    def arrow(start: tuple[float, float], end: tuple[float, float], color: str = "#555555", bend: float = 0) -> None:
        style = {"arrowstyle": "-|>", "mutation_scale": 9, "shrinkA": 0, "shrinkB": 0}
        curve = f"arc3,rad={bend}"
        axis.add_patch(FancyArrowPatch(start, end, color=color, lw=1, connectionstyle=curve, zorder=1, **style))

    def stack(x: float, y: float, labels: list[str], fill: str, edge: str) -> list[float]:
        """Small boxes above each other for the completions of a group; their middles, from above."""
        middles = [y - 4.9 * i for i in range(len(labels))]
        for middle, label in zip(middles, labels, strict=True):
            if label == "…":
                axis.text(x + 4, middle, "⋮", ha="center", va="center", fontsize=9)
            else:
                box(x, middle - 2, 8, 4, label, fill, edge)
        return middles

    axis.text(45, 55, "Layer 1: GRPO on the question", fontsize=9, weight="bold", color=first, va="center")
    axis.text(45, 28.6, "Layer 2: GRPO on corrections of a draft", fontsize=9, weight="bold", color=second, va="center")
    groups = {
        49: (["$o_1$", "$o_2$", "…", "$o_G$"], blue, first, "rule-based\nreward\n$r_i\\in\\{0,1\\}$",
             "advantage in the group\nof $G$ drafts\n$A_i=(r_i-\\bar{r})\\,/\\,\\mathrm{std}(r)$"),
        23: (["$c_1$", "$c_2$", "…", "$c_H$"], orange, second, "the same reward\nof the correction\nalone, $r_{ij}$",
             "advantage in the group\nof $H$ corrections\n$A_{ij}=(r_{ij}-\\bar{r}_i)\\,/\\,\\mathrm{std}(r_i)$"),
    }  # fmt: skip
    box(1, 36.5, 17, 11, "question $q$", grey)
    box(1, 9.2, 17, 13.8, "$q$, draft $o_i$ and\na guiding phrase,\n“Wait, let me\ndouble-check that.”", grey)
    for top, (labels, fill, edge, reward, advantage) in groups.items():
        middles = stack(33, top - 0.5, labels, fill, edge)
        middle = (middles[0] + middles[-1]) / 2
        for place, label in zip(middles, labels, strict=True):
            if label != "…":
                arrow((18.3, middle), (32.6, place))
                arrow((41.3, place), (50.6, middle))
        box(51, middle - 6, 17, 12, reward, fill, edge)
        arrow((68.3, middle), (72.6, middle))
        box(73, middle - 7, 26, 14, advantage, fill, edge)
    axis.text(25, 50.6, "sample from $\\pi_\\theta$", ha="center", fontsize=8, color=INK)
    axis.text(25, 7, "sample from $\\pi_\\theta$", ha="center", fontsize=8, color=INK)
    arrow((36, 31.3), (9.5, 23.4), second, -0.1)
    axis.text(1, 33, "some drafts, right or wrong", fontsize=8, color=INK, va="center")
    box(1, 0.6, 98, 4.6, "one optimizer step on   $w_1\\,L_{\\mathrm{GRPO}}(q)+w_2\\,L_{\\mathrm{GRPO}}(q,o_i)$   "
        "for the one policy $\\pi_\\theta$ that answers and corrects", grey)  # fmt: skip
    arrow((86, 8.4), (86, 5.5), second)
    axis.plot([99.2, 99.75, 99.75], [41.2, 41.2, 7], color=first, lw=1, zorder=1)
    arrow((99.75, 7), (97.5, 5.5), first)
    return figure


# ---------------------------------------------------------------------------------------------- all of them
OF_SUMMARY = {
    "attempts": attempts_figure,
    "flows": flows_figure,
    "transitions": transitions_figure,
    "contrasts": contrasts_figure,
    "frontier": frontier_figure,
    "hypotheses": verdicts_figure,
    "controls": controls_figure,
    "budgets": budgets_figure,
}
OPTIONAL = ("contrasts", "hypotheses", "controls", "budgets")  # drawn where the summary has rows for them
OF_RUNS = {"learning_curves": learning_curves, "collapse": collapse_curves}
FIGURES = ("method", *OF_RUNS, *OF_SUMMARY)


def figure_names(cfg: Config, summary: dict) -> list[str]:
    """The figures that an experiment has."""
    lacking = {name for name in OPTIONAL if not summary[name]}
    if not any(cfg.of_arm(arm).num_layers > 1 for arm in cfg.arms):
        lacking.add("collapse")
    return [name for name in FIGURES if name not in lacking]


def draw(name: str, cfg: Config, summary: dict) -> plt.Figure:
    if name in OF_SUMMARY:
        return OF_SUMMARY[name](summary)
    return OF_RUNS[name](cfg) if name in OF_RUNS else method_figure()


def show(name: str, cfg: Config) -> None:
    """Shows a figure that :func:`draw_all` drew in a notebook, with what to see in it below and as the text for who cannot
    see it; nothing if the experiment has no such figure.

    Raises:
        FileNotFoundError: they were not drawn yet, or not to their end.
    """
    told, picture = cfg.figures / "captions.json", cfg.figures / f"{name}.png"
    known = store.read_json(told) if told.exists() else None
    if known is None or (name in known and not picture.exists()):
        raise FileNotFoundError(
            f"the figures of {cfg.profile} are not whole in {cfg.figures}; draw them: figures.draw_all(cfg), or `make figures`"
        )
    if caption := known.get(name):
        display(Image(filename=picture, width=round(TEXT_WIDTH * 110), alt=caption["text"]))
        display(Markdown(f"*{caption['title']}.* {caption['text']}"))


def draw_all(cfg: Config) -> list[File]:
    """Every figure of an experiment, from its result files, and ``captions.json`` beside them: a title and what to see in
    each.
    """
    summary = store.read_json(cfg.results / "summary.json")
    told, names, paths = captions(cfg, summary), figure_names(cfg, summary), []
    (cfg.figures / "captions.json").unlink(missing_ok=True)  # of figures that are about to go
    for name in FIGURES:
        if name not in names:  # none is left of an experiment with other arms or controls
            for kind in ("svg", "png"):
                (cfg.figures / f"{name}.{kind}").unlink(missing_ok=True)
            continue
        figure = draw(name, cfg, summary)
        paths.append(save(figure, cfg.figures, name, **told[name]))
        plt.close(figure)
    store.write_json(cfg.figures / "captions.json", {name: told[name] for name in names})
    return paths


def training_curves(steps: pd.DataFrame, title: str, window: int = 15) -> plt.Figure:
    """One run, finished or under way, against sampled tokens: reward of each layer; shares of mended and broken drafts or,
    where nothing is corrected, of groups without signal; length of the completions. Points are steps, lines running means.

    Args:
        steps: a row for each step, with the columns of ``metrics.jsonl``.
    """
    use_style()
    colors = [COLORS["grpo_matched"], COLORS["mgrpo"], *OTHER_COLORS]
    layers = [column.removesuffix("reward") for column in steps if column == "reward" or column.endswith("/reward")]
    labels = ["first attempts", "corrections", *(f"layer {i + 3}" for i in range(len(layers)))]
    corrected = [
        ("layer2/fixed", "mended", VERDICT_COLORS["supported"]),
        ("layer2/broken", "broken", VERDICT_COLORS["refuted"]),
    ]
    alike = [("frac_reward_zero_std", "all right or all wrong", VERDICT_COLORS["undecided"])]
    shown = {
        "mean reward": [(f"{layer}reward", *how) for layer, *how in zip(layers, labels, colors, strict=False)],
        **({"share of corrections": corrected} if len(layers) > 1 else {"share of groups without signal": alike}),
        "tokens an answer": [
            (f"{layer}completions/mean_length", "", c) for layer, c in zip(layers, colors, strict=False)
        ],
    }
    figure, axes = plt.subplots(1, 3, figsize=(TEXT_WIDTH, 2.6), layout="constrained")
    for axis, (name, lines) in zip(axes, shown.items(), strict=True):
        for column, label, color in lines:
            values = steps.set_index(steps["generated_tokens"] / 1e3)[column].dropna()
            axis.plot(values, ".", ms=3, color=color, alpha=0.35)
            axis.plot(values.rolling(window, min_periods=1).mean(), color=color, lw=1.6, label=label)
        axis.set_title(name, fontsize=9)
        axis.set_ylim(0, None if name == "tokens an answer" else 1)
    for axis in axes[:2]:
        axis.legend(loc="best", fontsize=8)
    figure.supxlabel(f"generated tokens, all layers (thousands); lines are means of {window} steps", fontsize=8)
    figure.suptitle(title, fontsize=9)
    return figure
