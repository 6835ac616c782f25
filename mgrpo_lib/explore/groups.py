"""A group as GRPO compares it: sampled from the base model, and a slider from its rewards to its advantages."""

import importlib.util
import io

import matplotlib.pyplot as plt
import torch
from IPython.display import display

from mgrpo_lib.experiment.data import validation_problems
from mgrpo_lib.experiment.evaluate import Evaluator
from mgrpo_lib.experiment.progress import notebook_is_open
from mgrpo_lib.experiment.settings import Config
from mgrpo_lib.explore.explorer import VIEW
from mgrpo_lib.method.advantages import group_advantages
from mgrpo_lib.report import style

PROBLEMS = 4  # as many groups are sampled at most, to find one with right and wrong completions


def sample_group(cfg: Config, size: int = 8, seed: int = 0) -> tuple[dict, list[dict]]:
    """Sample and grade `size` completions of a validation problem from the base model.

    Returns:
        The first of `PROBLEMS` problems whose completions are not all right or all wrong, or else the first, and its
        completions as `Evaluator.grade` gives them.

    Raises:
        FileNotFoundError: the base model is not trained with these settings.
    """
    problems = validation_problems(cfg)[:PROBLEMS]
    rows = [problem for problem in problems for _ in range(size)]
    with torch.random.fork_rng():  # whatever is trained afterwards gets the same random numbers
        torch.manual_seed(seed)
        base = Evaluator.load(cfg.of_arm("base"))
        grades = base.grade(rows, base.attempt(base.questions(rows), temperature=1.0))
    groups = [grades[start : start + size] for start in range(0, len(rows), size)]
    mixed = (i for i, group in enumerate(groups) if len({one["correct"] for one in group}) == 2)
    chosen = next(mixed, 0)
    return problems[chosen], groups[chosen]


def advantages_of(right: int, size: int) -> list[float]:
    """Return the advantages of a group whose first `right` completions are right."""
    return group_advantages((torch.arange(size) < right).float(), size).tolist()


def group_figure(right: int, size: int) -> plt.Figure:
    """Draw the advantages of a group with `right` right completions, and those of any number of them."""
    style.use_style()
    good, bad = style.VERDICT_COLORS["supported"], style.VERDICT_COLORS["refuted"]
    figure, (bars, lines) = plt.subplots(1, 2, figsize=(style.TEXT_WIDTH, 2.4), sharey=True, layout="constrained")
    values, places = advantages_of(right, size), range(1, size + 1)
    bars.bar(places, values, color=[good if place <= right else bad for place in places])
    for place, value in zip(places, values, strict=True):
        bars.annotate(
            f"{value:.2f}", (place, value), (0, 2 if value >= 0 else -9), textcoords="offset points", ha="center"
        )
    bars.set(xlabel="completion", ylabel="advantage", title=f"{right} of {size} right", xticks=places)
    counts = range(1, size)
    lines.plot(counts, [advantages_of(k, size)[0] for k in counts], color=good, marker="o", ms=4, label="right ones")
    lines.plot(counts, [advantages_of(k, size)[-1] for k in counts], color=bad, marker="X", ms=4, label="wrong ones")
    lines.axvline(right, color=style.SOFT, lw=6, alpha=0.5, zorder=0)
    lines.set(xlabel="right completions in the group", xlim=(-0.5, size + 0.5), title="the rarer, the larger")
    lines.legend()
    largest = 1.25 * advantages_of(1, size)[0]
    lines.set_ylim(-largest, largest)
    return figure


def show_advantages(right: int = 2, size: int = 8) -> None:
    """Show `group_figure`: with a slider for `right` in an open notebook with widgets, else as a picture."""

    def png(number: int) -> bytes:
        figure, file = group_figure(number, size), io.BytesIO()
        figure.savefig(file, format="png", dpi=110)
        plt.close(figure)  # else the notebook would show it a second time
        return file.getvalue()

    bundle = {"text/plain": f"advantages of a group with {right} of {size} right", "image/png": png(right)}
    if notebook_is_open() and importlib.util.find_spec("ipywidgets") is not None:
        import ipywidgets as widgets

        slider = widgets.IntSlider(value=right, min=0, max=size, description="right")
        picture = widgets.Image(value=bundle["image/png"], format="png")
        slider.observe(lambda change: setattr(picture, "value", png(change["new"])), "value")
        box = widgets.VBox([slider, picture])
        bundle[VIEW] = {"version_major": 2, "version_minor": 0, "model_id": box.model_id}
    display(bundle, raw=True)
