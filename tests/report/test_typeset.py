"""Names of files are text in every table, whatever signs they hold."""

import html
import re

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from mgrpo_lib.experiment.settings import ModelSettings, load_config
from mgrpo_lib.report import pages, style, tables, typeset

NAMES = ["a|b", "x`y`z", "<b>bold</b>", "a$b$c", "a\\\\|b", "a*b*c", "a\\", "p & q", "plain_name"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_one_cell_of_a_markdown_table_and_reads_as_it_is(name):
    table = pd.DataFrame({"benchmark": [name, "chains"], name: ["45.5 [41.0, 50.1]", "supported"]})
    page = MarkdownIt().enable("table").render(typeset.markdown(table))
    rows = [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)]
    expected = [["benchmark", name], [name, "45.5 [41.0, 50.1]"], ["chains", "supported"]]
    assert [[cell if "strong" in cell else html.unescape(cell) for cell in row] for row in rows] == expected


def test_a_name_is_text_in_latex():
    table = pd.DataFrame({"benchmark": NAMES})
    lines = typeset.latex(table, "table", "caption", "origin").split("\\midrule\n")[1].split(" \\\\\n")
    assert lines[0] == r"a\textbar{}b" and lines[1] == r"x\textasciigrave{}y\textasciigrave{}z"
    assert lines[2] == r"\textless{}b\textgreater{}bold\textless{}/b\textgreater{}" and lines[3] == r"a\$b\$c"
    assert lines[7:9] == [r"p \& q", r"plain\_name"]


def test_settings_are_text_in_html():
    cfg = load_config("smollm2", system_prompt="Write <think>, then <b>&</b>.")
    page = tables.settings_table(cfg, ModelSettings).to_html()
    assert "Write &lt;think&gt;, then &lt;b&gt;&amp;&lt;/b&gt;." in page and "<think>" not in page


def test_names_are_escaped_in_the_sentence_on_self_correction():
    text = pages.self_correction({"not_beaten": {"a|b": [], "<i>": ["no_draft"], "c`d": ["no_draft"]}})
    assert r"a\|b" in text and r"\<i>" in text and r"c\`d" in text


@pytest.mark.parametrize("name", ["a$^$b", "$", "a$_{$", "chains"])
def test_a_name_is_no_formula_in_a_figure(name, tmp_path):
    figure, axes, _ = style.panels([name], 1.0)
    style.finish(figure, name, "", [style.key("arm", color="black")])
    style.save(figure, tmp_path, "figure")
    assert (tmp_path / "figure.svg").stat().st_size > 0 and axes[name].get_title().replace("\\$", "$") == name
