"""Every figure of an experiment, drawn from result files alone; those over tokens, and the list of all (no torch)."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Image, Markdown, display
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mgrpo_lib.experiment import store
from mgrpo_lib.experiment.settings import Config
from mgrpo_lib.report import style
from mgrpo_lib.report.diagrams import flows_figure, method_figure
from mgrpo_lib.report.dots import (
    attempts_figure,
    attempts_key,
    contrasts_figure,
    controls_figure,
    rows_of,
    transitions_figure,
    verdicts_figure,
)
from mgrpo_lib.report.pages import captions
from mgrpo_lib.report.records import load_run
from mgrpo_lib.report.tables import name_of, ordered_arms

WINDOW = 15  # steps of a running mean


def _arms_key(shown: list[str], arms: list[str], **look) -> list:
    looks = [(name_of(arm), *style.look_of(arm, arms)) for arm in shown]
    return [style.key(name, color=color, marker=marker, **look) for name, color, marker in looks]


# ---------------------------------------------------------------------------------------------- what it costs
def frontier_figure(summary: dict) -> plt.Figure:
    """Draw accuracy against what training cost: each arm's mean over seeds with its interval, the seeds small.

    A row of panels is for tokens that were sampled, unless all arms sampled as many; one is for tokens sampled or read.
    """
    style.use_style()
    benchmarks, arms = summary["params"]["benchmarks"], ordered_arms(summary)
    costs = {"train_tokens": "tokens sampled in training, thousands"}
    costs["processed_tokens"] = "tokens sampled or read in training, thousands"
    spent = {
        (arm, cost): np.array([run[cost] for run in summary["runs"].values() if run["arm"] == arm]) / 1e3
        for arm in arms
        for cost in costs
    }
    means = {cost: [spent[arm, cost].mean() for arm in arms if arm != "base"] for cost in costs}
    rows = [cost for cost in costs if max(means[cost]) > 1.05 * min(means[cost])] or list(costs)[:1]
    options = {"sharey": True, "sharex": "row", "squeeze": False, "layout": "constrained"}
    options["figsize"] = (style.TEXT_WIDTH, (1.75 if len(rows) > 1 else 2.4) * len(rows) + 0.85)
    figure, axes = plt.subplots(len(rows), len(benchmarks), **options)
    for cost, line in zip(rows, axes, strict=True):
        least = min(0.12, 0.5 / (len(arms) - 1)) * max(means[cost])  # all arms take half of the axis at most
        place, width = spread({arm: spent[arm, cost].mean() for arm in arms}, least), least / 2
        for benchmark, axis in zip(benchmarks, line, strict=True):
            for arm, row in rows_of(summary, benchmark).items():
                color, marker = style.look_of(arm, arms)
                places = [place[arm] - width / 2, place[arm] + width / 2]
                values = [100 * row[f"acc_t{attempt}"] for attempt in (1, 2)]
                axis.plot(places, values, color=color, lw=0.8, zorder=2)
                for attempt, x, value, face in zip((1, 2), places, values, ("white", color), strict=True):
                    axis.plot(
                        [x, x], [100 * bound for bound in row[f"acc_t{attempt}_ci"]], color=color, lw=1.1, zorder=2
                    )
                    if len(spent[arm, cost]) > 1:
                        seeds = [100 * right for right in row[f"acc_t{attempt}_seeds"]]
                        axis.plot([x] * len(seeds), seeds, "_", ms=3, mew=0.8, color=color, zorder=1)
                    axis.plot(x, value, marker, ms=4, color=color, mfc=face, zorder=3)
            axis.set_ylim(-2, 102)
            axis.margins(x=0.15)
            axis.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        line[0].set_ylabel("right answers, %")
        line[len(line) // 2].set_xlabel(costs[cost])
    for benchmark, axis in zip(benchmarks, axes[0], strict=True):
        axis.set_title(style.plain(benchmark))
    style.finish(figure, style.where(summary), "", [*_arms_key(arms, arms, ms=5, lw=1.1), *attempts_key()])
    return figure


def spread(wanted: dict[str, float], least: float) -> dict[str, float]:
    """Return places in the order of the wanted ones, `least` apart or more: a crowd stands around its mean."""
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
    """Draw accuracy against the tokens sampled at test: one attempt, votes among k, and an attempt with its correction."""
    benchmarks, arms = summary["params"]["benchmarks"], ordered_arms(summary)
    figure, axes, spare = style.panels(benchmarks, 1.9, sharey=True)
    for benchmark, axis in axes.items():
        for i, arm in enumerate(arms):
            own = [row for row in summary["budgets"] if (row["arm"], row["benchmark"]) == (arm, benchmark)]
            votes, (color, marker) = [row for row in own if row["k"]], style.look_of(arm, arms)
            beside = 1.035 ** (i - (len(arms) - 1) / 2)  # intervals of equal budgets stand beside each other
            tokens = [beside * row["tokens"] for row in votes]
            axis.plot(tokens, [100 * row["maj"] for row in votes], color=color, lw=1.1, zorder=2)
            for x, row in zip(tokens, votes, strict=True):
                axis.plot([x, x], [100 * bound for bound in row["maj_ci"]], color=color, lw=0.8, alpha=0.7, zorder=1)
            axis.plot(tokens, [100 * row["pass"] for row in votes], ":", color=color, lw=1)
            axis.plot(tokens[0], 100 * votes[0]["maj"], marker, ms=4, color=color, mfc="white", zorder=3)
            pair = next(row for row in own if row["k"] is None)
            x = beside * pair["tokens"]
            axis.plot([x, x], [100 * bound for bound in pair["chain_ci"]], color=color, lw=1.6, zorder=4)
            axis.plot(x, 100 * pair["chain"], marker, ms=6.5, color=color, mec="white", mew=0.8, zorder=5)
        axis.set_ylim(-2, 102)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(lambda tokens, _: f"{tokens:.0f}")
    for axis in list(axes.values())[:: 3 if len(benchmarks) > 3 else len(benchmarks)]:
        axis.set_ylabel("right answers, %")
    handles = [
        *_arms_key(arms, arms, ms=5, lw=1.1),
        style.key("attempt 1", color=style.INK, marker="o", mfc="white", lw=0, ms=4),
        style.key("attempt and correction", color=style.INK, marker="o", lw=1.6, ms=6.5, mec="white"),
        style.key("majority of k attempts", color=style.INK, lw=1.1),
        style.key("any of k attempts", color=style.INK, lw=1, ls=":"),
    ]
    label = "generated tokens a problem, logarithmic; temperature 1, 95% intervals"
    style.finish(figure, style.where(summary), label, handles, spare)
    return figure


# ---------------------------------------------------------------------------------------------- in training
def _metrics(cfg: Config, arm: str) -> list[pd.DataFrame]:
    """Read the metrics of each seed, by step; refuse those of other parameters."""
    runs = [cfg.of_arm(arm, seed) for seed in cfg.seeds]
    for run in runs:
        load_run(run)
    return [pd.DataFrame(store.read_jsonl(run.run_folder / "metrics.jsonl")).set_index("step") for run in runs]


def _band(axis: Axes, tables: list[pd.DataFrame], column: str, look: tuple, scale: float) -> None:
    """Draw running means of the steps that all seeds have: the mean, in a band from the lowest to the highest seed."""
    seeds = pd.concat([table[column] for table in tables], axis=1).dropna()
    tokens = pd.concat([table["generated_tokens"] for table in tables], axis=1).mean(axis=1)[seeds.index] / 1e3
    smooth, (color, marker) = scale * seeds.rolling(WINDOW, min_periods=1, center=True).mean(), look
    every = max(1, len(smooth) // 6)
    axis.plot(tokens, smooth.mean(axis=1), color=color, marker=marker, ms=4, markevery=every, lw=1.3, zorder=3)
    axis.fill_between(tokens, smooth.min(axis=1), smooth.max(axis=1), color=color, alpha=0.13, lw=0)


def learning_curves(cfg: Config) -> plt.Figure:
    """Draw the reward of each layer against sampled tokens, smoothed over `WINDOW` steps: mean and range of the seeds."""
    titles = {"reward": "layer 1: first attempts", "layer2/reward": "layer 2: corrections of sampled drafts"}
    return _curves(cfg, titles, list(cfg.arms), "mean reward", 1, height=2.6, sharey=True)[0]


def collapse_curves(cfg: Config) -> plt.Figure:
    """Draw what corrections do in training against sampled tokens, smoothed over `WINDOW` steps: mean and range."""
    titles = {
        "layer2/copied": "copies of the draft",
        "layer2/answer_changed": "another answer",
        "layer2/edit_distance": "edit distance",
        "layer2/fixed": "wrong drafts fixed",
        "layer2/broken": "right drafts broken",
    }
    arms = [arm for arm in cfg.arms if cfg.of_arm(arm).num_layers > 1]
    figure, axes = _curves(cfg, titles, arms, "% of corrections in training", 100, height=1.75)
    for axis in axes:
        axis.set_ylim(bottom=0)
    return figure


def _curves(cfg: Config, titles: dict[str, str], arms: list[str], label: str, scale: float, height: float, **how):
    """Draw a panel for each metric of `titles` that arms have."""
    figure, axes, spare = style.panels(list(titles.values()), height, **how)
    for arm in arms:
        tables = _metrics(cfg, arm)
        for column, title in titles.items():
            if all(column in table for table in tables):
                _band(axes[title], tables, column, style.look_of(arm, list(cfg.arms)), scale)
    figure.supylabel(label)
    title = f"Profile {cfg.profile}: mean and range of {style.counted(cfg.seeds)}, running means of {WINDOW} steps"
    key = _arms_key(arms, list(cfg.arms), ms=5, lw=1.3)
    style.finish(figure, title, "generated tokens, all layers, thousands", key, spare)
    return figure, axes.values()


def training_curves(steps: pd.DataFrame, title: str) -> plt.Figure:
    """Draw one run, finished or under way, against sampled tokens. Points are steps, lines running means.

    The panels show the reward of each layer, what corrections fix and break (or, where nothing is corrected, groups
    without signal), and the length of the completions.

    Args:
        steps: a row for each step, with the columns of ``metrics.jsonl``.
    """
    style.use_style()
    colors = [style.COLORS["grpo_matched"], style.COLORS["mgrpo"], *style.OTHER_COLORS]
    layers = [column.removesuffix("reward") for column in steps if column == "reward" or column.endswith("/reward")]
    labels = ["first attempts", "corrections", *(f"layer {i + 3}" for i in range(len(layers)))]
    fixed = ("layer2/fixed", "fixed", style.VERDICT_COLORS["supported"])
    broken = ("layer2/broken", "broken", style.VERDICT_COLORS["refuted"])
    alike = ("frac_reward_zero_std", "all right or all wrong", style.VERDICT_COLORS["undecided"])
    lengths = [(f"{layer}completions/mean_length", "", color) for layer, color in zip(layers, colors, strict=False)]
    shown = {
        "mean reward": [(f"{layer}reward", *how) for layer, *how in zip(layers, labels, colors, strict=False)],
        **(
            {"share of corrections": [fixed, broken]}
            if len(layers) > 1
            else {"share of groups without signal": [alike]}
        ),
        "tokens an answer": lengths,
    }
    figure, axes = plt.subplots(1, 3, figsize=(style.TEXT_WIDTH, 2.6), layout="constrained")
    for axis, (name, lines) in zip(axes, shown.items(), strict=True):
        for column, label, color in lines:
            values = steps.set_index(steps["generated_tokens"] / 1e3)[column].dropna()
            axis.plot(values, ".", ms=3, color=color, alpha=0.35)
            axis.plot(values.rolling(WINDOW, min_periods=1).mean(), color=color, lw=1.6, label=label)
        axis.set_title(name, fontsize=9)
        axis.set_ylim(0, None if name == "tokens an answer" else 1)
    for axis in axes[:2]:
        axis.legend(loc="best", fontsize=8)
    figure.supxlabel(f"generated tokens, all layers (thousands); lines are means of {WINDOW} steps", fontsize=8)
    figure.suptitle(title, fontsize=9)
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
    """Return the figures that an experiment has."""
    lacking = {name for name in OPTIONAL if not summary[name]}
    if not any(cfg.of_arm(arm).num_layers > 1 for arm in cfg.arms):
        lacking.add("collapse")
    return [name for name in FIGURES if name not in lacking]


def draw(name: str, cfg: Config, summary: dict) -> plt.Figure:
    if name in OF_SUMMARY:
        return OF_SUMMARY[name](summary)
    return OF_RUNS[name](cfg) if name in OF_RUNS else method_figure()


def show(name: str, cfg: Config) -> None:
    """Show a figure that `draw_all` drew in a notebook, its caption below; nothing if the experiment has no such figure.

    Raises:
        FileNotFoundError: they were not drawn yet, or not to their end.
    """
    file, picture = cfg.figures / "captions.json", cfg.figures / f"{name}.png"
    known = store.read_json(file) if file.exists() else None
    if known is None or (name in known and not picture.exists()):
        raise FileNotFoundError(
            f"figures of {cfg.profile} are missing in {cfg.figures}; draw them with figures.draw_all(cfg) or `make figures`"
        )
    if caption := known.get(name):
        # as metadata: the IPython of Colab, 7.34, has no argument alt
        display(Image(filename=picture, width=round(style.TEXT_WIDTH * 110), metadata={"alt": caption["text"]}))
        display(Markdown(f"*{caption['title']}.* {caption['text']}".replace("<", "\\<")))


def draw_all(cfg: Config) -> list[Path]:
    """Draw every figure of an experiment from its result files, and write ``captions.json`` beside them."""
    summary = store.read_json(cfg.results / "summary.json")
    told, names, paths = captions(summary), figure_names(cfg, summary), []
    (cfg.figures / "captions.json").unlink(missing_ok=True)  # of figures that are about to go
    for name in FIGURES:
        if name not in names:  # none is left of an experiment with other arms or controls
            for kind in ("svg", "png"):
                (cfg.figures / f"{name}.{kind}").unlink(missing_ok=True)
            continue
        figure = draw(name, cfg, summary)
        paths.append(style.save(figure, cfg.figures, name, **told[name]))
        plt.close(figure)
    store.write_json(cfg.figures / "captions.json", {name: told[name] for name in names})
    return paths
