"""Two drawings: the method, and the flow of answers from the first attempt to the second."""

import textwrap

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, PathPatch
from matplotlib.path import Path

from mgrpo_lib.report import style
from mgrpo_lib.report.dots import rows_of
from mgrpo_lib.report.tables import name_of, ordered_arms

GREY = "#555555"
SHAPE = "round,pad=0,rounding_size=1"


def flows_figure(summary: dict) -> plt.Figure:
    """Draw what becomes of right and wrong first attempts (left) at the second (right); widths are shares of problems."""
    style.use_style()
    benchmarks, arms = summary["params"]["benchmarks"], ordered_arms(summary)
    size = (style.TEXT_WIDTH, 0.82 * len(arms) + 0.75)
    figure, axes = plt.subplots(1, len(benchmarks), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for benchmark, axis in zip(benchmarks, axes[0], strict=True):
        for i, (arm, row) in enumerate(rows_of(summary, benchmark).items()):
            _flow(axis, len(arms) - 1 - i, row, style.look_of(arm, arms)[0])
        axis.set(title=style.plain(benchmark), xlim=(0, 1), ylim=(-0.02, len(arms)), xticks=[0.04, 0.96])
        axis.set_xticklabels(["1st", "2nd"])
        axis.grid(False)
        axis.spines[:].set_visible(False)
        axis.tick_params(length=0)
    names = [textwrap.fill(name_of(arm), 16) for arm in reversed(arms)]
    axes[0, 0].set_yticks([i + 0.66 for i in range(len(arms))], names)
    handles = [
        style.key("right (arm's colour)", marker="s", color=style.INK, lw=0),
        style.key("wrong", marker="s", color=style.SOFT, lw=0),
        style.key("fixed, + %", color=style.VERDICT_COLORS["supported"], lw=4),
        style.key("broken, - %", color=style.VERDICT_COLORS["refuted"], lw=4),
    ]
    style.finish(figure, style.where(summary), "", handles)
    return figure


def _flow(axis: Axes, y: float, row: dict, color: str) -> None:
    """Draw one flow with its numbers below, in a cell of width and height 1 whose lower edge is at `y`."""
    bottom, height, gap, bar = y + 0.36, 0.52, 0.06, 0.08
    kept, broken, fixed = row["acc_t1"] - row["c_to_i"], row["c_to_i"], row["i_to_c"]
    missed = 1 - row["acc_t1"] - fixed

    def at(share: float, wrong: bool) -> float:
        """Return the height of a place `share` below the top; those of wrong answers start below a gap."""
        return bottom + gap * (not wrong) + height * (1 - share)

    flows = [  # share, where it starts and ends, counted from the top
        (kept, 0, False, 0, False, color, 0.3),
        (missed, kept + broken + fixed, True, kept + fixed + broken, True, style.SOFT, 0.45),
        (broken, kept, False, kept + fixed, True, style.VERDICT_COLORS["refuted"], 0.9),
        (fixed, kept + broken, True, kept, False, style.VERDICT_COLORS["supported"], 0.9),
    ]
    for share, start, wrong, end, still_wrong, shade, alpha in flows:
        if share > 0:
            left, right, thick = at(start, wrong), at(end, still_wrong), height * share
            above = [(bar, left), (0.5, left), (0.5, right), (1 - bar, right)]
            below = [(x, y - thick) for x, y in reversed(above)]
            codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
            axis.add_patch(PathPatch(Path([*above, *below, above[0]], codes), fc=shade, alpha=alpha, lw=0))
    for x, right in ((0, kept + broken), (1 - bar, kept + fixed)):
        axis.bar(x, height * right, bar, at(right, False), align="edge", color=color, lw=0)
        axis.bar(x, height * (1 - right), bar, at(1, True), align="edge", color=style.SOFT, lw=0)
    for name, place, sign, verdict in (("i_to_c", y + 0.24, "+", "supported"), ("c_to_i", y + 0.09, "-", "refuted")):
        low, high = (100 * x for x in row[f"{name}_ci"])
        text = f"{sign}{100 * row[name]:.1f} [{low:.1f}, {high:.1f}]"
        axis.text(0.5, place, text, ha="center", va="center", color=style.VERDICT_COLORS[verdict], fontsize=8)


def method_figure() -> plt.Figure:
    """Draw the method: two layers, one policy, one step."""
    style.use_style()
    figure, axis = plt.subplots(figsize=(style.TEXT_WIDTH, 4.1))
    figure.subplots_adjust(0, 0, 1, 1)
    axis.set(xlim=(0, 100.6), ylim=(0, 58.5))
    axis.axis("off")
    blue, orange, grey = "#D9EAF6", "#FBE3D4", "#EFEFEF"
    first, second = style.COLORS["grpo_matched"], style.COLORS["mgrpo"]
    axis.text(45, 55, "Layer 1: GRPO on the question", fontsize=9, weight="bold", color=first, va="center")
    axis.text(45, 28.6, "Layer 2: GRPO on corrections of a draft", fontsize=9, weight="bold", color=second, va="center")
    groups = {
        49: (["$o_1$", "$o_2$", "…", "$o_G$"], blue, first, "rule-based\nreward\n$r_i\\in\\{0,1\\}$",
             "advantage in the group\nof $G$ drafts\n$A_i=(r_i-\\bar{r})\\,/\\,\\mathrm{std}(r)$"),
        23: (["$c_1$", "$c_2$", "…", "$c_H$"], orange, second, "the same reward\nof the correction\nalone, $r_{ij}$",
             "advantage in the group\nof $H$ corrections\n$A_{ij}=(r_{ij}-\\bar{r}_i)\\,/\\,\\mathrm{std}(r_i)$"),
    }  # fmt: skip
    _box(axis, 1, 36.5, 17, 11, "question $q$", grey)
    layer_2 = "$q$, draft $o_i$ and\na guiding phrase,\n“Wait, let me\ndouble-check that.”"
    _box(axis, 1, 9.2, 17, 13.8, layer_2, grey)
    for top, (labels, fill, edge, reward, advantage) in groups.items():
        heights = [top - 0.5 - 4.9 * i for i in range(len(labels))]
        middle = (heights[0] + heights[-1]) / 2
        for height, label in zip(heights, labels, strict=True):
            if label == "…":
                axis.text(37, height, "⋮", ha="center", va="center", fontsize=9)
            else:
                _box(axis, 33, height - 2, 8, 4, label, fill, edge)
        for height, label in zip(heights, labels, strict=True):
            if label != "…":
                _arrow(axis, (18.3, middle), (32.6, height))
                _arrow(axis, (41.3, height), (50.6, middle))
        _box(axis, 51, middle - 6, 17, 12, reward, fill, edge)
        _arrow(axis, (68.3, middle), (72.6, middle))
        _box(axis, 73, middle - 7, 26, 14, advantage, fill, edge)
    for height in (50.6, 7):
        axis.text(25, height, "sample from $\\pi_\\theta$", ha="center", fontsize=8, color=style.INK)
    _arrow(axis, (36, 31.3), (9.5, 23.4), second, -0.1)
    axis.text(1, 33, "some drafts, right or wrong", fontsize=8, color=style.INK, va="center")
    losses = "$w_1\\,L_{\\mathrm{GRPO}}(q)+w_2\\,L_{\\mathrm{GRPO}}(q,o_i)$"
    step = f"one optimizer step on   {losses}   for the one policy $\\pi_\\theta$ that answers and corrects"
    _box(axis, 1, 0.6, 98, 4.6, step, grey)
    _arrow(axis, (86, 8.4), (86, 5.5), second)
    axis.plot([99.2, 99.75, 99.75], [41.2, 41.2, 7], color=first, lw=1, zorder=1)
    _arrow(axis, (99.75, 7), (97.5, 5.5), first)
    return figure


def _box(axis: Axes, x: float, y: float, width: float, height: float, text: str, fill: str, edge: str = GREY) -> None:
    axis.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=SHAPE, fc=fill, ec=edge, lw=0.9, zorder=2))
    axis.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=8, linespacing=1.35, zorder=3)


def _arrow(axis: Axes, start: tuple, end: tuple, color: str = GREY, bend: float = 0) -> None:
    look = {"arrowstyle": "-|>", "mutation_scale": 9, "shrinkA": 0, "shrinkB": 0, "lw": 1, "zorder": 1}
    axis.add_patch(FancyArrowPatch(start, end, color=color, connectionstyle=f"arc3,rad={bend}", **look))
