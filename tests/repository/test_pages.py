"""The pages of `make html`, a cut-down of them: whole, readable without a network, and searchable."""

import json
import re

import pytest
from bs4 import BeautifulSoup

from mgrpo_lib.experiment.settings import ROOT
from tools import pages


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages") / "site"
    pages.build(folder, run=("00_overview",))
    return folder


def soup_of(path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def test_nothing_is_wrong_with_the_pages(site):
    assert pages.problems(site) == []


def test_there_is_a_page_for_each_notebook_and_the_rest(site):
    notebooks = {f"{path.stem}.html" for path in pages.NOTEBOOKS.glob("*.ipynb")}
    expected = notebooks | {"index.html", "figures.html", "tables.html", "analysis.html", "search.html"}
    assert {path.name for path in site.glob("*.html")} == expected
    menu = {link["href"] for link in soup_of(site / "index.html").nav("a")}
    assert menu == expected - {"search.html"}
    for name in notebooks:
        assert soup_of(site / name).footer.a["href"] == f"notebooks/{name.removesuffix('.html')}.ipynb"


def test_executed_notebooks_show_results_and_the_others_their_source_and_figures(site):
    overview, training = (soup_of(site / f"{name}.html") for name in ("00_overview", "04_mgrpo"))
    assert "Executed on the committed results" in overview.text and overview.main("img") and "refuted" in overview.text
    assert "Shown as source" in training.text and "train(cfg" in training.text.replace(" ", "")
    assert {image["src"] for image in training("img")} == {
        "figures/cpu/learning_curves.svg",
        "figures/cpu/collapse.svg",
    }
    assert training("math") and "colab.research" not in str(training)


def test_every_figure_has_its_caption_as_text(site):
    told = json.loads((ROOT / "figures" / "cpu" / "captions.json").read_text())
    shown = {image["src"]: image["alt"] for image in soup_of(site / "figures.html")("img")}
    assert all(shown[f"figures/cpu/{name}.svg"] == words["text"] for name, words in told.items())
    assert len(shown) == sum(len(pages.captions_of(profile)) for profile in pages.PROFILES)
    first = {image["src"] for image in soup_of(site / "index.html")("img")}
    assert first == {f"figures/cpu/{name}.svg" for name in pages.ON_FIRST_PAGE}


def test_what_is_known_can_be_found(site):
    index = json.loads((site / "assets" / "index.js").read_text().removeprefix("window.INDEX = ").rstrip(";\n"))

    def found(*words):
        return {
            entry["page"] for entry in index if all(word in (entry["title"] + entry["text"]).lower() for word in words)
        }

    assert {"06_figures.html", "analysis.html"} <= found("holm")
    assert "04_mgrpo.html" in found("layer 2", "advantage") and "tables.html" in found("matched tokens")
    assert not found("no such word as xyzzy")
    assert {entry["page"] for entry in index} == {path.name for path in site.glob("*.html")} - {"search.html"}
    places = {page: {node["id"] for node in soup_of(site / page)(id=True)} for page in {e["page"] for e in index}}
    for entry in index:
        assert "¶" not in entry["title"] and (not entry["at"] or entry["at"] in places[entry["page"]])


def test_what_is_wrong_is_found(site, tmp_path):
    bad = tmp_path / "site"
    bad.mkdir()
    (bad / "index.html").write_text(
        f"<a href='gone.html'>x</a><a href='#nowhere'>x</a><img src='https://example.org/x.png'><p>{ROOT}/x</p>"
        "<p>$$\\frac12$$</p><div class='output_error'>x</div><pre>$$ stays in code</pre>"
    )
    (bad / "style.css").write_text("@import 'https://example.org/x.css'")
    text = "\n".join(pages.problems(bad))
    for words in (
        "gone.html",
        "no such place",
        "example.org/x.png",
        "path of this machine",
        "formula",
        "an error",
        "style.css",
    ):
        assert words in text
    with pytest.raises(FileExistsError, match="--out"):
        pages.build(bad)
    assert (bad / "index.html").exists(), "a folder of something else is left alone"


def test_formulas_become_mathml_and_names_links():
    text = pages.html_of(
        "$\\bar x$ and $$\\binom{n}{k}\\Big/2$$ see `04_mgrpo` and `ANALYSIS.md`, [code](mgrpo_lib/report/statistics.py)"
    )
    assert text.count("<math") == 2 and "$" not in re.sub(r"<[^>]+>", "", text)
    assert 'href="04_mgrpo.html"' in text and 'href="analysis.html"' in text
    assert f'href="{pages.address("mgrpo_lib/report/statistics.py")}"' in text
