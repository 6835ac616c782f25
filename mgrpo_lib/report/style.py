"""The look of every figure: print width, a colour and a marker for each arm, legends beside the panels, stable files."""

import math
from collections.abc import Iterable
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

TEXT_WIDTH = 7.0  # inches, both columns of a paper; no text is smaller than 8 points at this width
INK, SOFT = "#222222", "#BBBBBB"
# Okabe and Ito's palette; where that ends, colours that are far from it for every kind of sight (tested). No two arms
# share a marker
ARMS = {
    "base": ("#6B6B6B", "s"),
    "grpo": ("#56B4E9", "^"),
    "grpo_matched": ("#0072B2", "D"),
    "mgrpo": ("#D55E00", "o"),
    "grpo_more_steps": ("#000000", "v"),
    "layers_3": ("#009E73", "P"),
    "one_draft": ("#CC79A7", "X"),
    "wrong_drafts": ("#E69F00", "<"),
    "paper_literal": ("#332288", ">"),
    "alternating": ("#661100", "p"),
    "mgrpo_nf4": ("#4B0055", "h"),
}
OTHERS = [("#44AA99", "d"), ("#AA4499", "*"), ("#999933", "8"), ("#88CCEE", "H")]  # arms of your own
COLORS = {arm: color for arm, (color, _) in ARMS.items()}
OTHER_COLORS = [color for color, _ in OTHERS]
# of verdicts, and of fixed and broken answers: no arm has these
VERDICT_COLORS = {"supported": "#00695C", "refuted": "#CC3311", "undecided": "#949494"}
VERDICT_MARKERS = {"supported": "o", "refuted": "X", "undecided": "o"}


def counted(seeds: list[int]) -> str:
    return "1 training seed" if len(seeds) == 1 else f"{len(seeds)} training seeds"


def where(summary: dict) -> str:
    """Name the experiment that the numbers are of; a miniature is called one."""
    params = summary["params"]
    model = "Miniature" if params["model"] == "miniature" else params["model"]
    seeds, n = counted(params["seeds"]), summary["rows"][0]["n"]
    return f"{model}, profile {summary['profile']}: {seeds}, {n} problems a test set"


def look_of(arm: str, arms: Iterable[str]) -> tuple[str, str]:
    """Return colour and marker of an arm; of an own arm, by its place among the own ones."""
    if arm in ARMS:
        return ARMS[arm]
    own = [other for other in arms if other not in ARMS]
    return OTHERS[own.index(arm) % len(OTHERS)]


def plain(text: str) -> str:
    """Return a text that matplotlib takes for no formula, whatever names are in it."""
    return text.replace("$", "\\$")


def use_style() -> None:
    plt.style.use(Path(__file__).parent / "mgrpo.mplstyle")


def panels(names: list[str], height: float, **options) -> tuple[plt.Figure, dict[str, Axes], list[Axes]]:
    """Make a figure of text width with a titled panel for each name: up to three in a row, more in two rows.

    Args:
        height: of a row of panels, in inches.

    Returns:
        The figure, its panels by name, and the places that are left, blank.
    """
    use_style()
    columns = len(names) if len(names) <= 3 else math.ceil(len(names) / 2)
    rows = math.ceil(len(names) / columns)
    size = (TEXT_WIDTH, rows * height + 0.45)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **options)
    places = list(axes.flat)
    for name, axis in zip(names, places, strict=False):
        axis.set_title(plain(name))
        axis.tick_params(labelbottom=True)
    for axis in places[len(names) :]:
        axis.axis("off")
    return figure, dict(zip(names, places, strict=False)), places[len(names) :]


def finish(figure: plt.Figure, title: str, xlabel: str, handles: list[Line2D], spare: list[Axes] | None = None) -> None:
    """Add title, common label of the x axes, and the legend: in a blank place, or else below, where it covers nothing."""
    figure.suptitle(plain(title))
    if spare:
        spare[0].legend(handles=handles, loc="center")
        figure.supxlabel(xlabel)
    else:  # the label is the legend's title: both stand below the panels, and neither on the other
        columns = 4 if max(len(handle.get_label()) for handle in handles) < 24 else 3
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, title=xlabel or None)


def key(label: str, **look) -> Line2D:
    """Make an entry of a legend."""
    return Line2D([], [], label=label, **look)


def save(
    figure: plt.Figure, folder: Path, name: str, title: str = "", text: str = "", kinds: tuple = ("svg", "png")
) -> Path:
    """Write SVG and PNG, whole or not at all; the same bytes whenever it is drawn from the same results.

    Args:
        title, text: of the caption; they stand in the files, too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    told = {"Title": title or name, "Description": text or title or name}
    metadata = {"svg": {"Date": None, "Creator": None, **told}, "png": {"Software": None, **told}}
    for kind in kinds:
        temporary = folder / f".{name}.partial.{kind}"
        figure.savefig(temporary, metadata=metadata[kind])
        temporary.replace(folder / f"{name}.{kind}")
    return folder / f"{name}.{kinds[-1]}"
