"""Figures and tables for readers: an arm looks the same everywhere, files come out the same, every figure says what to see,
nothing is too small to print or outside the page, and LaTeX reads the tables.
"""

import re
from itertools import combinations

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb

from mgrpo_lib.experiment import store
from mgrpo_lib.experiment.settings import load_config
from mgrpo_lib.report import figures, pages, style, tables, typeset, verdicts

REFERENCES = ["cpu", "ablation", "smollm2", "smollm2_nf4", "smollm2_gpu"]


@pytest.fixture(scope="module", params=REFERENCES)
def experiment(request):
    cfg = load_config(request.param, arm="base", output_root=".")
    return cfg, store.read_json(cfg.results / "summary.json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("figures")


@pytest.fixture(scope="module")
def drawn(experiment, folder):
    """Every figure of the experiment, and its SVG in `folder`."""
    cfg, summary = experiment
    told, found = pages.captions(summary), {}
    for name in figures.figure_names(cfg, summary):
        found[name] = figures.draw(name, cfg, summary)
        style.save(found[name], folder / cfg.profile, name, **told[name], kinds=("svg",))
    yield found
    plt.close("all")


def test_no_two_arms_look_alike():
    looks = [*style.ARMS.values(), *style.OTHERS]
    assert len({color for color, _ in looks}) == len({marker for _, marker in looks}) == len(looks)
    assert not {color for color, _ in looks} & set(style.VERDICT_COLORS.values()), "a verdict's colour is no arm's"
    assert set(style.ARMS) == set(tables.NAMES), "every arm that has a name has a look"
    assert style.look_of("mine", ["base", "mine", "mine_too"]) == style.OTHERS[0]
    assert style.look_of("mine_too", ["base", "mine", "mine_too"]) == style.OTHERS[1]


# how colours look to who lacks a cone, on linear RGB: Machado, Oliveira and Fernandes (2009), severity 1
SIGHT = {
    "all cones": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def seen(color: str, sight) -> np.ndarray:
    """CIE L*a*b* of a colour."""
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(np.array(sight) @ linear, 0, 1) / [0.9505, 1, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", SIGHT)
def test_colours_differ_for_every_kind_of_sight(sight):
    """A difference of 2.3 is just noticed; arms differ in their markers, too."""
    for profile in [*REFERENCES, "smoke"]:
        arms = ["base", *load_config(profile, arm="base").arms]
        for one, other in combinations([style.ARMS[arm][0] for arm in arms], 2):
            assert np.linalg.norm(seen(one, SIGHT[sight]) - seen(other, SIGHT[sight])) > 12, (one, other)
    for one, other in combinations(style.VERDICT_COLORS.values(), 2):
        assert np.linalg.norm(seen(one, SIGHT[sight]) - seen(other, SIGHT[sight])) > 18, (one, other)


def test_an_arm_has_its_colour_in_every_figure(experiment, drawn):
    """Whatever is drawn in the colour of an arm has its marker, or none; and every arm of the experiment is to be seen."""
    _, summary = experiment
    arms = tables.ordered_arms(summary)
    marker_of = {style.ARMS[arm][0].lower(): style.ARMS[arm][1] for arm in arms}
    for name in drawn.keys() & {"attempts", "frontier", "learning_curves", "budgets", "contrasts"}:
        lines = [line for axis in drawn[name].axes for line in axis.get_lines()]
        seen = {to_hex(line.get_color()) for line in lines}
        for line in lines:
            marker = marker_of.get(to_hex(line.get_color()))
            assert marker is None or line.get_marker() in (marker, "None", None, "|", "_", ".")
        expected = {style.ARMS[arm][0].lower() for arm in arms if arm != "base"}
        if name == "contrasts":
            expected = {
                style.ARMS[row["arm"]][0].lower() for row in summary["contrasts"] if row["arm"] != "grpo_matched"
            }
        assert expected <= seen, name


def test_figures_fit_a_page_and_can_be_read(drawn):
    """As wide as the text, lower than a page, letters of 8 points or more, and nothing beyond the edge or below a legend."""
    for name, figure in drawn.items():
        width, height = figure.get_size_inches()
        assert width == style.TEXT_WIDTH and height <= 9, name
        edge = figure.bbox
        for text in figure.findobj(matplotlib.text.Text):
            if text.get_text() and text.get_visible():
                assert text.get_fontsize() >= 8, (name, text.get_text())
        boxes = [legend.get_window_extent() for legend in figure.legends]
        for axis in figure.axes:
            box = axis.get_tightbbox()
            if not axis.axison:  # a blank place, for a legend
                box = axis.get_legend().get_window_extent() if axis.get_legend() else axis.bbox
            assert edge.x0 - 2 <= box.x0 and box.x1 <= edge.x1 + 2, (name, box)
            assert edge.y0 - 2 <= box.y0 and box.y1 <= edge.y1 + 2, (name, box)
            assert not any(axis.bbox.overlaps(other) for other in boxes), f"{name}: the legend covers a panel"
        for box in boxes:
            assert box.x0 >= edge.x0 and box.x1 <= edge.x1, f"{name}: the legend is wider than the page"


@pytest.mark.committed
def test_every_committed_figure_is_drawn_from_the_committed_results(experiment, drawn, folder):
    """Its SVG, byte for byte; neither a date nor a version stands in it."""
    cfg, summary = experiment
    told = pages.captions(summary)
    assert store.read_json(cfg.figures / "captions.json") == {name: told[name] for name in drawn}
    there = {path.stem for path in cfg.figures.glob("*.*") if path.suffix in (".png", ".svg")}
    assert there & set(figures.FIGURES) == set(drawn), "none is left of another experiment"
    for name in drawn:
        committed, again = ((place / f"{name}.svg").read_bytes() for place in (cfg.figures, folder / cfg.profile))
        assert committed == again, f"{name} is not up to date: make figures PROFILE={cfg.profile}"
        assert (cfg.figures / f"{name}.png").stat().st_size > 5000
        assert b"<dc:date>" not in again and matplotlib.__version__.encode() not in again


def test_pictures_come_out_the_same_and_are_opaque(tmp_path):
    """Also drawn after others, under another style."""
    from PIL import Image

    first = style.save(figures.method_figure(), tmp_path / "a", "method", "a title", "a caption").read_bytes()
    with plt.rc_context({"figure.facecolor": "none", "savefig.facecolor": "none", "savefig.transparent": True}):
        plt.rcParams["font.size"] = 20
        again = style.save(figures.method_figure(), tmp_path / "b", "method", "a title", "a caption")
    plt.close("all")
    assert first == again.read_bytes()
    assert Image.open(again).convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 255), "readable on a dark page"
    assert "a caption" in again.with_suffix(".svg").read_text(encoding="utf-8")


def test_captions_hold_the_numbers_of_the_summary(experiment):
    cfg, summary = experiment
    told = pages.captions(summary)
    assert set(figures.figure_names(cfg, summary)) <= set(told)
    for name in told.keys() - {"method"}:
        assert style.where(summary) in told[name]["text"] and told[name]["title"]
    for name, word in summary["verdicts"].items():
        own = [row for row in summary["hypotheses"] if row["hypothesis"] == name]
        assert f"{name}: {verdicts.in_words(word, own)}" in told["hypotheses"]["text"]
    best = max(summary["contrasts"], key=lambda row: row["difference"])
    assert tables.points(best) in told["contrasts"]["text"]


def test_latex_tables_are_whole_and_escaped():
    table = pd.DataFrame({"a_1, %": ["50%_x & y", "[-1.0, +2.0]"], "a long heading of a column": ["yes ~^\\", -3.5]})
    text = typeset.latex(table, "verdicts", "A caption", "profile x")
    assert r"50\%\_x \& y" in text and r"yes \textasciitilde{}\textasciicircum{}\textbackslash{}" in text
    assert r"{}[$-$1.0, +2.0] & $-$3.5 \\" in text, "neither an option of the line above nor a hyphen for a minus"
    assert r"\shortstack[l]{a long heading of \\ a column}" in text
    long = typeset.latex(pd.concat([table] * 30), "verdicts", "A caption", "profile x")
    assert "longtable" in long and "longtable" not in text.partition("\\begin")[2]


@pytest.mark.committed
def test_committed_latex_tables_have_balanced_groups_and_full_lines(experiment):
    cfg, summary = experiment
    for name, table in tables.tables(summary).items():
        text = (cfg.results / f"{name}.tex").read_text(encoding="utf-8")
        assert text.isascii() and text.count("{") == text.count("}")
        for kind in re.findall(r"\\begin\{(\w+)\}", text):
            assert text.count(f"\\begin{{{kind}}}") == text.count(f"\\end{{{kind}}}")
        start, end = (r"\endlastfoot", r"\end{longtable}") if "longtable}" in text else (r"\midrule", r"\bottomrule")
        rows = [line for line in text.partition(start)[2].partition(end)[0].splitlines() if line.endswith(r"\\")]
        assert len(rows) == len(table)
        assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(table.columns) - 1}


@pytest.mark.parametrize(
    "wanted", [{"a": 0, "b": 1, "c": 1.1, "d": 5}, {"a": 3, "b": 2, "c": 2.9, "d": 2.95, "e": 4.2}]
)
def test_arms_of_like_cost_stand_apart_and_in_their_order(wanted):
    places = figures.spread(wanted, 1)
    order = sorted(wanted, key=wanted.get)
    found = [places[name] for name in order]
    assert all(later - earlier > 1 - 1e-9 for earlier, later in zip(found, found[1:], strict=False))
    assert sum(found) == pytest.approx(sum(wanted.values())) and places[order[0]] <= wanted[order[0]]
