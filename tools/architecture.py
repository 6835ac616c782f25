"""Draw docs/architecture.svg from the code: the rooms of mgrpo_lib, their lines, and the imports between them."""

import sys
from collections import Counter
from pathlib import Path

import grimp
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "architecture.svg"
PLACES = {
    "explore": (0.5, 3),
    "report": (0.2, 2),
    "experiment": (0.61, 1),
    "method": (0.1, 0),
    "verifier": (0.5, 0),
    "tasks": (0.9, 0),
}


def arrows() -> Counter[tuple[str, str]]:
    """Count the imports from each room to each other room; those inside functions too."""
    sys.path.insert(0, str(ROOT))
    graph = grimp.build_graph("mgrpo_lib", cache_dir=None)
    edges = [(a, b) for a in graph.modules for b in graph.find_modules_directly_imported_by(a)]
    rooms = [(a.split(".")[1], b.split(".")[1]) for a, b in edges if "." in a and "." in b]
    return Counter((a, b) for a, b in rooms if a != b and {a, b} <= PLACES.keys())


def main() -> None:
    plt.rcParams.update({"svg.hashsalt": "mgrpo", "svg.fonttype": "none"})
    figure, axes = plt.subplots(figsize=(7.5, 5))
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.4, 3.4))
    axes.axis("off")
    boxes = {}
    for room, place in PLACES.items():
        files = (ROOT / "mgrpo_lib" / room).rglob("*.py")
        lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)
        style = {"boxstyle": "round,pad=0.5", "facecolor": "#F4F4F4", "edgecolor": "#444444"}
        text = axes.text(*place, f"{room}\n{lines:,} lines", ha="center", va="center", color="#111111", bbox=style)
        boxes[room] = text.get_bbox_patch()
    figure.canvas.draw()  # arrows end at boxes, which have their sizes now
    for (start, end), count in sorted(arrows().items()):
        colour = "#0072B2" if PLACES[start][1] > PLACES[end][1] else "#D55E00"  # orange: does not point down
        style = {"arrowstyle": "-|>", "color": colour, "lw": 0.8 + count / 10, "mutation_scale": 14}
        ends = {"patchA": boxes[start], "patchB": boxes[end], "shrinkA": 0, "shrinkB": 2}
        drawn = axes.annotate("", PLACES[end], PLACES[start], arrowprops=style | ends)
        drawn.arrow_patch.set_gid(f"{start}-{end}")
    figure.savefig(PICTURE, metadata={"Date": None}, bbox_inches="tight", facecolor="white")
    print(f"{PICTURE.relative_to(ROOT)} is drawn")


if __name__ == "__main__":
    main()
