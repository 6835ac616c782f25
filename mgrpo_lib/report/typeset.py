"""Tables as Markdown, and as LaTeX for a paper."""

import re
import textwrap

import pandas as pd

SPECIAL = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "`": r"\textasciigrave{}",
        "±": r"$\pm$",
        **{character: f"\\{character}" for character in "&%$#_{}"},
    }
)
ONE_PAGE = 45  # rows; a longer table goes over several pages


def markdown(table: pd.DataFrame) -> str:
    """Write a table in Markdown; what would be markup in a name is escaped."""
    cells = table.astype(object).fillna("").astype(str).itertuples(index=False)
    rows = [[escaped(str(cell)) for cell in row] for row in (table.columns, *cells)]
    rows.insert(1, ["---"] * len(table.columns))
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def escaped(text: str) -> str:
    r"""Escape what would be Markdown in a text.

    >>> escaped("a|b")
    'a\\|b'
    """
    return re.sub(r"([\\|`<*$])", r"\\\1", text)


def latex(table: pd.DataFrame, name: str, caption: str, origin: str) -> str:
    r"""Write a table for ``\input`` with booktabs: shrunk to the line if it is wider, over several pages if it is long.

    Args:
        name: of the table, for its label ``tab:<name>``.
        origin: where the numbers come from, for a comment.
    """
    style = table.astype(object).fillna("").style.hide(axis="index").format(_cell).format_index(_head, axis=1)
    columns, caption, label = "l" * len(table.columns), _cell(caption) + ".", f"tab:{name.replace('_', '-')}"
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


def _cell(value: object) -> str:
    """Escape special characters, and set a true minus before numbers."""
    text = str(value).translate(SPECIAL)
    text = re.sub(r"(?<![\w.])-(?=\d)", "$-$", text)
    return "{}" + text if text.startswith(("[", "*")) else text  # else LaTeX reads an option of the line before


def _head(value: object) -> str:
    lines = [_cell(line) for line in textwrap.wrap(str(value), 18)]
    return r"\shortstack[l]{" + r" \\ ".join(lines) + "}" if len(lines) > 1 else "".join(lines)
