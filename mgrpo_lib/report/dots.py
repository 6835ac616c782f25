"""Figures of points with 95% intervals, a row for each arm or control: accuracies, differences, transitions, verdicts."""

import textwrap
from collections.abc import Iterable

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from mgrpo_lib.report import style
from mgrpo_lib.report.tables import name_of, ordered_arms
from mgrpo_lib.report.verdicts import BASELINE, CONTROLS, HYPOTHESES, METHOD, SMALLEST_EFFECT, in_words

LINEAR = 5  # percentage points: beyond these the axis of differences is logarithmic
OUTLINE = [withStroke(linewidth=2, foreground="white")]  # letters stay readable on lines


def rows_of(summary: dict, benchmark: str) -> dict[str, dict]:
    """Return the row of each arm, from baseline to method."""
    rows = {row["arm"]: row for row in summary["rows"] if row["benchmark"] == benchmark}
    return {arm: rows[arm] for arm in ordered_arms(summary)}


def attempts_key() -> list:
    looks = {"attempt 1": {"mfc": "white"}, "attempt 2": {}}
    return [style.key(label, marker="o", color=style.INK, lw=1.5, **look) for label, look in looks.items()]


def _name_rows(axis: Axes, names: Iterable[str], width: int = 20) -> None:
    """Give each name a line of the panel, the first at the top; the labels at the left replace a legend."""
    names = [style.plain(name if "\n" in name else textwrap.fill(name, width)) for name in names]
    axis.set_yticks(range(len(names)), list(reversed(names)), linespacing=0.95)
    axis.set_ylim(-0.6, len(names) - 0.4)
    axis.tick_params(axis="y", length=0)


def _points_axis(axis: Axes, values: Iterable[float], ticks: tuple = (-20, -LINEAR, 0, LINEAR, 50)) -> None:
    """Show percentage points around 0: linear up to `LINEAR`, logarithmic beyond, so that small and large ones show."""
    values = list(values)
    low, high = min(-LINEAR, 1.5 * min(values)), max(LINEAR, 1.5 * max(values))
    axis.axvline(0, color=style.INK, lw=0.8)
    axis.set_xscale("symlog", linthresh=LINEAR, linscale=1.1)
    axis.set_xlim(low, high)
    axis.set_xticks([tick for tick in ticks if low <= tick <= high])
    axis.set_xticks([], minor=True)
    axis.xaxis.set_major_formatter(lambda points, _: f"{points:+.0f}" if points else "0")


def _interval(axis: Axes, interval: Iterable[float], y: float, color: str, lw: float = 1.5) -> None:
    axis.plot([100 * x for x in interval], [y, y], color=color, lw=lw, solid_capstyle="butt", zorder=2)


def verdicts_figure(summary: dict) -> plt.Figure:
    """Draw each hypothesis on each benchmark, coloured by its verdict; the grey band holds effects too small to matter."""
    benchmarks, names = summary["params"]["benchmarks"], list(summary["verdicts"])
    figure, axes, _ = style.panels(names, 0.36 * len(benchmarks) + 0.7)
    ends = [100 * x for row in summary["hypotheses"] for x in row["ci"]]
    faces = {**style.VERDICT_COLORS, "undecided": "white"}
    shown = {verdict: in_words(verdict, summary["hypotheses"]) for verdict in style.VERDICT_COLORS}
    for name, axis in axes.items():
        axis.axvspan(-100 * SMALLEST_EFFECT, 100 * SMALLEST_EFFECT, color="#EEEEEE", zorder=0, lw=0)
        rows = [row for row in summary["hypotheses"] if row["hypothesis"] == name]
        for row in rows:
            y, verdict = len(benchmarks) - 1 - benchmarks.index(row["benchmark"]), row["verdict"]
            color, value = style.VERDICT_COLORS[verdict], 100 * row["difference"]
            look = {"color": color, "mfc": faces[verdict], "mec": color if verdict == "undecided" else "white"}
            _interval(axis, row["ci"], y, color, 2)
            axis.plot(value, y, style.VERDICT_MARKERS[verdict], ms=7, mew=0.8, zorder=3, **look)
            place = {"textcoords": "offset points", "ha": "center", "va": "bottom"}
            axis.annotate(f"{value:+.1f}", (value, y), (0, 4.5), path_effects=OUTLINE, **place)
        axis.set_title(f"{name}: {in_words(summary['verdicts'][name], rows)}\n" + textwrap.fill(HYPOTHESES[name], 38))
        _name_rows(axis, benchmarks)
        axis.set_ylim(-0.5, len(benchmarks) - 0.1)
        _points_axis(axis, ends, (-20, -LINEAR, -2, 0, 2, LINEAR, 20, 80))
    handles = [
        style.key(shown[verdict], color=color, marker=style.VERDICT_MARKERS[verdict], mfc=faces[verdict], lw=2)
        for verdict, color in style.VERDICT_COLORS.items()
    ]
    style.finish(
        figure, style.where(summary), f"percentage points, 95% intervals; logarithmic beyond ±{LINEAR}", handles
    )
    return figure


def controls_figure(summary: dict) -> plt.Figure:
    """Draw MGRPO's second attempts and every control; around a control stands the interval of its distance."""
    rows = {(row["control"], row["benchmark"]): row for row in summary["controls"]}
    shown = list(dict.fromkeys(control for control, _ in rows))
    figure, axes, spare = style.panels(summary["params"]["benchmarks"], 0.32 * len(shown) + 0.6, sharey=True)
    beaten, equal = {"marker": "s"}, {"marker": "D", "ms": 7, "mfc": "none"}
    for benchmark, axis in axes.items():
        for i, control in enumerate(shown):
            row, y = rows[control, benchmark], len(shown) - 1 - i
            theirs, ours = 100 * row["control_accuracy"], 100 * row["mgrpo"]
            axis.plot([theirs, ours], [y, y], color=style.SOFT, lw=1, zorder=1)
            axis.plot(ours, y, "o", ms=5.5, color=style.COLORS["mgrpo"], zorder=2)
            _interval(axis, [row["mgrpo"] - x for x in row["ci"]], y, style.INK, 1.2)
            look = {"ms": 5, **beaten} if row["verdict"] == "supported" else equal
            axis.plot(theirs, y, color=style.INK, ls="none", zorder=3, **look)
        axis.set_xlim(-3, 103)
        _name_rows(axis, [CONTROLS[control] for control in shown], 22)
    handles = [
        style.key("MGRPO, attempt 2", color=style.COLORS["mgrpo"], marker="o", lw=0),
        style.key("control: MGRPO is better", color=style.INK, lw=1.2, **beaten),
        style.key("control: not shown\nto be worse", color=style.INK, lw=1.2, **equal),
    ]
    label = "right answers, %; around a control the 95% interval of its distance from MGRPO"
    style.finish(figure, style.where(summary), label, handles, spare)
    return figure


def attempts_figure(summary: dict) -> plt.Figure:
    """Draw both attempts of every arm on every benchmark, and the single seeds."""
    arms = ordered_arms(summary)
    figure, axes, spare = style.panels(summary["params"]["benchmarks"], 0.32 * len(arms) + 0.55, sharey=True)
    for benchmark, axis in axes.items():
        for i, (arm, row) in enumerate(rows_of(summary, benchmark).items()):
            color, marker = style.look_of(arm, arms)
            for attempt, offset in ((1, 0.18), (2, -0.18)):
                y, face = len(arms) - 1 - i + offset, "white" if attempt == 1 else color
                _interval(axis, row[f"acc_t{attempt}_ci"], y, color)
                seeds = [100 * x for x in row[f"acc_t{attempt}_seeds"]]
                if len(seeds) > 1:
                    axis.plot(seeds, [y] * len(seeds), "|", ms=6, mew=0.6, color=color, zorder=1)
                axis.plot(100 * row[f"acc_t{attempt}"], y, marker, ms=4.5, color=color, mfc=face, zorder=3)
        axis.set_xlim(-2, 102)
        _name_rows(axis, map(name_of, arms))
    handles = [*attempts_key(), style.key("one seed", marker="|", color=style.INK, lw=0)]
    style.finish(figure, style.where(summary), "right answers, %, 95% intervals", handles, spare)
    return figure


def contrasts_figure(summary: dict) -> plt.Figure:
    """Draw differences between arms on the same problems: every arm minus the baseline.

    Where hardly an arm was compared with the baseline, draw every pair that was compared.
    """
    pairs = list(dict.fromkeys((row["arm"], row["against"]) for row in summary["contrasts"]))
    others = [other for _, other in pairs]
    against = next(arm for arm in (BASELINE, METHOD, "base", *others) if arm in others)
    chosen = [pair for pair in pairs if pair[1] == against]
    if len(chosen) < 3:
        chosen, label = pairs, "percentage points"
        names = [f"{name_of(arm)}\n- {name_of(other)}" for arm, other in chosen]
    else:
        label, names = f"percentage points above {name_of(against)}", [name_of(arm) for arm, _ in chosen]
    rows = [row for row in summary["contrasts"] if (row["arm"], row["against"]) in chosen]
    figure, axes, spare = style.panels(summary["params"]["benchmarks"], 0.34 * len(chosen) + 0.55, sharey=True)
    for row in rows:
        axis, (color, marker) = axes[row["benchmark"]], style.look_of(row["arm"], ordered_arms(summary))
        place = chosen.index((row["arm"], row["against"]))
        y = len(chosen) - 1 - place + (0.18 if row["attempt"] == 1 else -0.18)
        _interval(axis, row["ci"], y, color)
        face = "white" if row["attempt"] == 1 else color
        axis.plot(100 * row["difference"], y, marker, ms=5, color=color, mfc=face, zorder=3)
    for axis in axes.values():
        _name_rows(axis, names)
        _points_axis(axis, [100 * x for row in rows for x in row["ci"]])
    style.finish(
        figure, style.where(summary), f"{label}, 95% intervals; logarithmic beyond ±{LINEAR}", attempts_key(), spare
    )
    return figure


def transitions_figure(summary: dict) -> plt.Figure:
    """Draw what second attempts change, as shares of all problems: gains to the right, losses to the left."""
    arms = ordered_arms(summary)
    figure, axes, spare = style.panels(summary["params"]["benchmarks"], 0.3 * len(arms) + 0.55, sharey=True)
    shares = {
        "i_to_c": (1, style.VERDICT_COLORS["supported"], "o"),
        "c_to_i": (-1, style.VERDICT_COLORS["refuted"], "X"),
    }
    ends = [sign * 100 * x for row in summary["rows"] for name, (sign, *_) in shares.items() for x in row[f"{name}_ci"]]
    for benchmark, axis in axes.items():
        for i, row in enumerate(rows_of(summary, benchmark).values()):
            for name, (sign, color, marker) in shares.items():
                y = len(arms) - 1 - i + 0.14 * sign  # beside each other where an interval reaches 0
                _interval(axis, [sign * x for x in row[f"{name}_ci"]], y, color)
                axis.plot(sign * 100 * row[name], y, marker, ms=4.5, color=color, zorder=3)
        _name_rows(axis, map(name_of, arms))
        _points_axis(axis, ends)
        axis.xaxis.set_major_formatter(lambda points, _: f"{abs(points):.0f}")
    labels = {"i_to_c": "wrong to right (fixed)", "c_to_i": "right to wrong (broken)"}
    handles = [
        style.key(labels[name], color=color, marker=marker, lw=1.5) for name, (_, color, marker) in shares.items()
    ]
    label = f"right to wrong  <  % of all problems, 95% intervals; logarithmic beyond {LINEAR}  >  wrong to right"
    style.finish(figure, style.where(summary), label, handles, spare)
    return figure
