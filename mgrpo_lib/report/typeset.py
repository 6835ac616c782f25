"""Tables as a reader wants them: LaTeX for a paper, and HTML that is sorted by a click on a column's head."""

import html
import re
import textwrap

import pandas as pd
from IPython.display import HTML

TITLES = {
    "verdicts": "The hypotheses of ANALYSIS.md: verdict, and the quantity on each test set, in percentage points with 95% intervals",
    "undecided": "What could have been seen where nothing was decided, and what would decide the difference that was observed",
    "controls": "MGRPO's second attempts against each control",
    "table": "Both attempts of every arm on every test set, with 95% intervals over seeds and problems",
    "transitions": "What second attempts did: shares of all problems in percent, with 95% intervals",
    "changes": "How second attempts differ from first ones",
    "contrasts": "Differences between arms on the same problems, in percentage points with 95% intervals",
    "cross_refinement": "Whose drafts, corrected by whom",
    "budgets": "A sampled attempt with its correction, against as many sampled attempts as its tokens pay for",
    "robustness": "The headline under other choices, in percentage points with 95% intervals on the probed problems",
    "paper": "The paper's table, and ours beside it",
    "costs": "What each training run cost, and its validation accuracy",
    "warnings": "What the trainings warned of",
}
SPECIAL = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "±": r"$\pm$",
        **{character: f"\\{character}" for character in "&%$#_{}"},
    }
)
ONE_PAGE = 45  # rows; a longer table goes over several pages
# numbers are compared as numbers, by the first one in a cell; shared by notebooks and site
SORT = """
for (const table of document.querySelectorAll("table.sortable:not([data-ready])")) {
  table.dataset.ready = "1";
  table.querySelectorAll("thead th").forEach((head, column) => {
    const order = () => {
      const down = head.getAttribute("aria-sort") === "ascending", body = table.tBodies[0];
      const read = row => row.cells[column].textContent.trim().replaceAll(",", "");
      const compare = (a, b) => {
        const [x, y] = [parseFloat(read(a)), parseFloat(read(b))];
        return isNaN(x) || isNaN(y) ? read(a).localeCompare(read(b)) : x - y;
      };
      [...body.rows].sort((a, b) => (down ? -1 : 1) * compare(a, b)).forEach(row => body.append(row));
      head.parentNode.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
    };
    head.tabIndex = 0;
    head.title = "sort by this column";
    head.onclick = order;
    head.onkeydown = event => { if (event.key === "Enter") order(); };
  });
}
"""
LOOK = """
.sortable { border-collapse: collapse; font-variant-numeric: tabular-nums; }
table.sortable :is(th, td) { text-align: left !important; padding: 0.25em 0.8em 0.25em 0; vertical-align: top; }
.sortable thead th { border-bottom: 1px solid currentColor; cursor: pointer; }
.sortable th[aria-sort="ascending"]::after { content: " \\2191"; }
.sortable th[aria-sort="descending"]::after { content: " \\2193"; }
.sortable tbody tr:hover { background: rgba(128, 128, 128, 0.18); }
"""


def latex(table: pd.DataFrame, name: str, origin: str) -> str:
    r"""A table for ``\input``, in the manner of booktabs: shrunk to the line if it is wider, over several pages if it is long.

    Args:
        name: of the table, for its label ``tab:<name>`` and its caption.
        origin: where the numbers come from, for a comment.
    """
    style = table.astype(object).fillna("").style.hide(axis="index").format(_tex).format_index(_tex_head, axis=1)
    columns, caption, label = "l" * len(table.columns), _tex(TITLES[name]) + ".", f"tab:{name.replace('_', '-')}"
    head = f"% {origin}; made by `make figures`\n% needs booktabs, graphicx and longtable\n"
    if len(table) > ONE_PAGE:
        text = style.to_latex(hrules=True, column_format=columns, environment="longtable", caption=caption, label=label)
        return head + "{\\scriptsize\\setlength{\\tabcolsep}{1.5pt}\n" + text + "}\n"
    lines = [
        "\\begin{table}",
        "\\centering\\footnotesize",
        f"\\caption{{{caption}}}",
        f"\\label{{{label}}}",
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
        style.to_latex(hrules=True, column_format=columns).rstrip() + "}",
        "\\end{table}",
    ]
    return head + "\n".join(lines) + "\n"


def _tex(value: object) -> str:
    """A cell: special characters escaped, a true minus before numbers, Markdown's stars as bold type."""
    text = str(value).translate(SPECIAL)
    text = re.sub(r"(?<![\w.])-(?=\d)", "$-$", text)
    text = re.sub(r"\*\*(.+?)\*\*", r"\\textbf{\1}", text)
    return "{}" + text if text.startswith(("[", "*")) else text  # else LaTeX reads an option of the line before


def _tex_head(value: object) -> str:
    lines = [_tex(line) for line in textwrap.wrap(str(value), 18)]
    return r"\shortstack[l]{" + r" \\ ".join(lines) + "}" if len(lines) > 1 else "".join(lines)


def sortable(table: pd.DataFrame) -> str:
    """A table as HTML whose heads sort it, given `SORT` and `LOOK` on the page; it takes the colours around it, dark or light."""

    def cells(values: object, tag: str) -> str:
        texts = [re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", html.escape(str(value))) for value in values]
        texts = [
            re.sub(r" \[(\S+), (\S+)\]", r"&nbsp;[\1,&nbsp;\2]", text) for text in texts
        ]  # intervals stay in one line
        return "<tr>" + "".join(f"<{tag}>{text}</{tag}>" for text in texts) + "</tr>"

    rows = table.astype(object).fillna("").itertuples(index=False)
    body = "\n".join(cells(row, "td") for row in rows)
    return f'<table class="sortable">\n<thead>{cells(table.columns, "th")}</thead>\n<tbody>\n{body}\n</tbody>\n</table>'


def interactive(table: pd.DataFrame) -> HTML:
    """A table for a notebook: a click on a head sorts it, again for the other order."""
    return HTML(f"<style>{LOOK}</style>\n{sortable(table)}\n<script>{SORT}</script>")
