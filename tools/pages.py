"""`make html`: what the notebooks of the reference run show, as a folder of pages that opens without a server and without a
network.

Notebooks that read results are executed against the committed ones, in a copy; those that train are shown as source, with
the committed figures. Formulas become MathML, which browsers draw themselves.
"""

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import jinja2
import latex2mathml.converter
import nbformat
import papermill
from bs4 import BeautifulSoup
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments.formatters import HtmlFormatter

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from mgrpo_lib.experiment import store  # noqa: E402
from mgrpo_lib.experiment.settings import Config, load_config  # noqa: E402
from mgrpo_lib.report import captions, typeset  # noqa: E402
from mgrpo_lib.report import tables as report  # noqa: E402
from tools.badges import BADGE, BRANCH, repository  # noqa: E402

ASSETS = Path(__file__).resolve().parent / "site"
NOTEBOOKS = ROOT / "notebooks"
EXECUTED = (
    "00_overview",
    "01_data",
    "05_benchmarks",
    "06_figures",
    "07_explore",
)  # they read results; the others train
WIDGET = "application/vnd.jupyter.widget-view+json"
PROFILES = ("cpu", "ablation", "smollm2", "smollm2_nf4", "smollm2_gpu")
ON_FIRST_PAGE = ("hypotheses", "controls", "method", "flows", "frontier", "budgets")
OF_SOURCE = ("learning_curves", "collapse")  # the committed figures below a notebook that trains
DOCUMENTS = {"ANALYSIS.md": "analysis.html"}


@dataclass
class Page:
    file: str
    title: str
    body: str
    source: str = ""  # in the repository


def address(path: str) -> str:
    """Of a file of the repository, on GitHub."""
    return f"https://github.com/{repository()}/blob/{BRANCH}/{path}"


# ---------------------------------------------------------------------------------------------- text and formulas
class Renderer(IPythonRenderer):
    """Markdown as nbconvert renders it, but formulas as MathML, and names of notebooks and files as links."""

    def block_math(self, body: str) -> str:
        return latex2mathml.converter.convert(body, display="block")

    def inline_math(self, body: str) -> str:
        return latex2mathml.converter.convert(body)

    def codespan(self, text: str) -> str:
        file = page_of(text)
        return f'<a href="{file}"><code>{text}</code></a>' if file else super().codespan(text)

    def link(self, text: str, url: str, title: str | None = None) -> str:
        return super().link(text, target_of(url), title)


def page_of(name: str) -> str | None:
    """The page of a notebook or a document, if the name is that of one."""
    stem = name.removeprefix("notebooks/").removesuffix(".ipynb")
    return f"{stem}.html" if (NOTEBOOKS / f"{stem}.ipynb").is_file() else DOCUMENTS.get(name)


def target_of(url: str) -> str:
    """Where a link leads from a page: relative ones to a page or, for other files, to the repository."""
    if re.match(r"[a-z]+:|#", url):
        return url
    path, hash_, anchor = url.partition("#")
    return (page_of(path) or address(path)) + hash_ + anchor


def html_of(text: str) -> str:
    return MarkdownWithMath(renderer=Renderer(escape=False)).render(text)


class Exporter(HTMLExporter):
    """A notebook's cells as HTML alone: no styles, scripts or fonts from elsewhere."""

    template_name = "basic"

    @jinja2.pass_context
    def markdown2html(self, context: jinja2.runtime.Context, source: str) -> str:
        return html_of(source)


# ---------------------------------------------------------------------------------------------- notebooks
def executed(names: list[str], profile: str) -> dict[str, nbformat.NotebookNode]:
    """Notebooks with their outputs, run against a copy of the committed results; paths of the copy are cut to those of the
    repository.
    """
    found, kernel = {}, {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}  # figures show in the copies
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, kernel):
        copy = Path(folder) / "results" / profile
        shutil.copytree(ROOT / "results" / profile, copy, ignore=shutil.ignore_patterns("model", "*.ipynb"))
        for name in names:
            output = Path(folder) / f"{name}.ipynb"
            parameters = {"profile": profile, "output_root": folder}
            papermill.execute_notebook(
                str(NOTEBOOKS / f"{name}.ipynb"),
                str(output),
                parameters,
                cwd=str(NOTEBOOKS),
                kernel_name="python3",
                progress_bar=False,
            )
            text = output.read_text(encoding="utf-8").replace(f"{folder}/", "").replace(folder, "")
            found[name] = nbformat.reads(text.replace(f"{ROOT}/", ""), as_version=4)
    return found


def notebook_page(name: str, notebook: nbformat.NotebookNode | None, profile: str, told: dict) -> Page:
    """The page of an executed notebook, or of its source with the committed figures."""
    source, run = f"notebooks/{name}.ipynb", notebook is not None
    notebook = notebook or nbformat.read(ROOT / source, as_version=4)
    notebook.cells = [
        cell
        for cell in notebook.cells
        if not cell.id.endswith("-colab") and "injected-parameters" not in cell.metadata.get("tags", [])
    ]
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(BADGE + r"\n*", "", cell.source)
        else:  # progress and warnings are no results
            cell.outputs = [output for output in cell.get("outputs", []) if output.get("name") != "stderr"]
            for output in cell.outputs:  # a widget needs a kernel; what it shows without one stays
                output.get("data", {}).pop(WIDGET, None)
    exporter = Exporter(exclude_input_prompt=True, exclude_output_prompt=True)
    body, _ = exporter.from_notebook_node(notebook)
    title = re.search(r"(?m)^# (.+)$", notebook.cells[0].source).group(1)
    note = f"Executed on the committed results of profile <code>{profile}</code>."
    if not run:
        note = f"Shown as source, since it trains or needs a model. Its figures, of profile <code>{profile}</code>, stand below."
        shown = [figure_html(profile, figure, told[figure]) for figure in OF_SOURCE if figure in told]
        body += "<h2 id='figures-of-the-runs'>Figures of the committed runs</h2>" + "".join(shown)
    return Page(f"{name}.html", title, f'<p class="note">{note}</p>{body}', source)


# ---------------------------------------------------------------------------------------------- other pages
def figure_html(profile: str, name: str, words: dict[str, str]) -> str:
    """A figure with its caption, which is also its text for who cannot see it, and its files."""
    text, title, place = jinja2.filters.escape(words["text"]), words["title"], f"figures/{profile}/{name}"
    return (
        f'<figure id="{profile}-{name}"><a href="{place}.png"><img src="{place}.svg" alt="{text}" loading="lazy"></a>'
        f'<figcaption><b>{title}.</b> {text} <a href="{place}.svg">SVG</a> <a href="{place}.png">PNG</a></figcaption></figure>'
    )


def captions_of(profile: str) -> dict[str, dict[str, str]]:
    return store.read_json(ROOT / "figures" / profile / "captions.json")


def first_page(cfg: Config, summary: dict, pages: list[Page]) -> Page:
    """The result at a glance, the key figures, and where to go."""
    tables, told = report.tables(summary), captions_of(cfg.profile)
    parts = [
        "<h1>Multi-Layer GRPO, reproduced</h1>",
        f"<p>Does training a language model to correct its own answers, with GRPO in two layers, beat GRPO with as many sampled "
        f"tokens? {captions.where(summary)}.</p>",
        html_of(report.correction_sentence(summary)) if summary["not_beaten"] else "",
        "<h2 id='result'>The result</h2>",
        typeset.sortable(tables["verdicts"]) if "verdicts" in tables else "",
        "<p><i>yes</i>: supported, <i>no</i>: refuted (worse, or a gain of 2 points is excluded), <i>?</i>: undecided; "
        '<a href="analysis.html">by which tests</a>.</p>' if "verdicts" in tables else "",
        *(figure_html(cfg.profile, name, told[name]) for name in ON_FIRST_PAGE if name in told),
        "<h2 id='both-attempts'>Both attempts of every arm</h2>",
        typeset.sortable(tables["table"]),
        "<h2 id='pages'>Pages</h2>",
        "<ul>" + "".join(f'<li><a href="{page.file}">{page.title}</a></li>' for page in pages) + "</ul>",
    ]  # fmt: skip
    return Page("index.html", "Results at a glance", "\n".join(parts), "README.md")


def figures_page() -> Page:
    parts = ["<h1>All figures</h1>"]
    for profile in PROFILES:
        parts.append(f"<h2 id='{profile}'>Profile {profile}</h2>")
        parts += [figure_html(profile, name, words) for name, words in captions_of(profile).items()]
    return Page("figures.html", "All figures", "\n".join(parts), "figures")


def tables_page(site: Path) -> Page:
    """Every table of every profile, each with its files; a click on a head sorts."""
    parts = ["<h1>All tables</h1><p>A click on a column's head sorts by it.</p>"]
    for profile in PROFILES:
        results = ROOT / "results" / profile
        parts.append(f"<h2 id='{profile}'>Profile {profile}</h2>")
        for name, table in report.tables(store.read_json(results / "summary.json")).items():
            links = []
            for kind in ("csv", "md", "tex"):
                file = site / "tables" / profile / f"{name}.{kind}"
                file.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(results / file.name, file)
                links.append(f'<a href="tables/{profile}/{file.name}">{kind}</a>')
            heading = f"<h3 id='{profile}-{name}'>{typeset.TITLES[name]}</h3>"
            parts.append(f'{heading}<p>{" ".join(links)}</p><div class="wide">{typeset.sortable(table)}</div>')
    return Page("tables.html", "All tables", "\n".join(parts), "results")


def document_page(name: str, file: str) -> Page:
    text = (ROOT / name).read_text(encoding="utf-8")
    title = re.search(r"(?m)^# (.+)$", text).group(1).replace("`", "")
    return Page(file, title, html_of(text), name)


def search_page() -> Page:
    body = '<h1>Search</h1><p id="found" role="status">Type words into the field above; all of them must occur.</p><ol id="hits"></ol>'
    return Page("search.html", "Search", body + '<script src="assets/index.js"></script>')


# ---------------------------------------------------------------------------------------------- search
def sections(page: Page) -> list[dict[str, str]]:
    """What can be found on a page: a text for each heading, from there to the next."""
    soup, found = (
        BeautifulSoup(page.body, "html.parser"),
        [{"page": page.file, "at": "", "title": page.title, "text": ""}],
    )
    for hidden in soup(["script", "style", "annotation"]):
        hidden.decompose()
    for place in soup(class_="anchor-link"):
        place.decompose()
    for node in soup.descendants:
        if node.name in ("h2", "h3") and node.get("id"):
            title = f"{page.title}: {node.get_text(' ', strip=True)}"
            found.append({"page": page.file, "at": node["id"], "title": title, "text": ""})
        elif node.name is None and node.strip():
            found[-1]["text"] += " " + " ".join(node.split())
        elif node.name == "img":
            found[-1]["text"] += " " + node.get("alt", "")
    return [{**entry, "text": entry["text"].strip()} for entry in found if entry["text"].strip()]


# ---------------------------------------------------------------------------------------------- the site
def build(site: Path, profile: str = "cpu", run: tuple[str, ...] = EXECUTED) -> list[Path]:
    """Writes the pages into `site`, which is emptied first if it holds an earlier site.

    Args:
        run: the notebooks that are executed; all others are shown as source.

    Raises:
        FileExistsError: `site` is a folder of something else.
    """
    if site.exists() and any(site.iterdir()) and not (site / "assets" / "index.js").exists():
        raise FileExistsError(f"{site} is not empty and no site of ours; name another folder with --out")
    shutil.rmtree(site, ignore_errors=True)
    (site / "assets").mkdir(parents=True)
    cfg = load_config(profile, arm="base")
    summary, told = store.read_json(cfg.results / "summary.json"), captions_of(profile)
    names = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
    outputs = executed([name for name in names if name in run], profile)
    pages = [notebook_page(name, outputs.get(name), profile, told) for name in names]
    pages += [figures_page(), tables_page(site), *(document_page(*document) for document in DOCUMENTS.items())]
    pages.insert(0, first_page(cfg, summary, pages))
    for each in PROFILES:
        shutil.copytree(ROOT / "figures" / each, site / "figures" / each)
    shutil.copytree(NOTEBOOKS, site / "notebooks", ignore=shutil.ignore_patterns(".*"))
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    light = HtmlFormatter(style="default").get_style_defs(".highlight")
    style = (ASSETS / "style.css").read_text(encoding="utf-8")
    colours = f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n"
    store.write_text(site / "assets" / "style.css", f"{colours}{style}{typeset.LOOK}")
    store.write_text(site / "assets" / "site.js", typeset.SORT + (ASSETS / "search.js").read_text(encoding="utf-8"))
    index = json.dumps([entry for page in pages for entry in sections(page)], ensure_ascii=False)
    store.write_text(site / "assets" / "index.js", f"window.INDEX = {index};\n")
    template = jinja2.Environment(autoescape=True).from_string((ASSETS / "page.html").read_text(encoding="utf-8"))
    menu = [(page.file, re.match(r"(\d\d )?([^:]+)", page.title).group(0)) for page in pages]
    made = []
    for page in [*pages, search_page()]:
        headings = [
            (head["id"], head.get_text(" ", strip=True).removesuffix("¶").strip())
            for head in BeautifulSoup(page.body, "html.parser")("h2")
            if head.get("id")
        ]
        copy = page.source if page.source.startswith("notebooks/") else ""
        origin = address(page.source) if page.source else ""
        text = template.render(
            page=page, menu=menu, headings=headings, copy=copy, origin=origin, of=report.origin(summary)
        )
        made.append(store.write_text(site / page.file, text))
    return made


def problems(site: Path) -> list[str]:
    """What is wrong with a site: links that lead nowhere, resources from elsewhere, paths of this machine, failed cells,
    formulas that were left as they are written.
    """
    pages = {path.name: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in site.glob("*.html")}
    found = []
    for name, soup in pages.items():
        for node in soup(href=True) + soup(src=True):
            url = node.get("href") or node.get("src")
            path, _, anchor = url.partition("#")
            if re.match(r"[a-z]+:", url):
                if node.name != "a" and not url.startswith("data:"):
                    found.append(f"{name} needs {url}")
            elif path and not (site / path).is_file():
                found.append(f"{name} links to {url}, which is not there")
            elif anchor and anchor not in {place["id"] for place in pages[path or name](id=True)}:
                found.append(f"{name} links to {url}, and there is no such place")
        if soup(class_=re.compile("output_error|jp-RenderedText.*stderr")) or "Traceback (most recent" in soup.text:
            found.append(f"{name} shows an error")
        code = {id(text) for block in soup(["pre", "code", "script", "style"]) for text in block.find_all(string=True)}
        if any(
            re.search(r"\$\$|\\(frac|sum|text)\b", text) for text in soup.find_all(string=True) if id(text) not in code
        ):
            found.append(f"{name} has a formula that was not rendered")
    for path in (path for path in site.rglob("*") if path.suffix in (".html", ".js", ".css")):
        text = path.read_text(encoding="utf-8")
        for place in (str(ROOT), str(Path.home()), tempfile.gettempdir()):
            if re.search(rf"(?<![\w.]){re.escape(place)}/", text):
                found.append(f"{path.name} names a path of this machine, {place}")
        if path.suffix != ".html" and re.search(r"(url\(|@import|fetch\(|import\()\W*https?:", text):
            found.append(f"{path.name} needs something from elsewhere")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "site", help="folder of the pages")
    site = parser.parse_args().out
    made = build(site)
    for problem in problems(site):
        print(f"error: {problem}", file=sys.stderr)
    print(f"{len(made)} pages; open {made[0]}")
    return 1 if problems(site) else 0


if __name__ == "__main__":
    sys.exit(main())
