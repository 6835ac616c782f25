"""One notation for what means the same, as tables: Unicode, fonts, spacing, TeX's unbraced arguments, units.

Nothing here decides whether answers are equal. A word is only dropped if it stands in a table of what never changes a value.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

TOKEN = re.compile(r"\\(?:[a-zA-Z]+|.)|.", re.DOTALL)
# fmt: off
CLOSING = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", r"\langle": r"\rangle", r"\lfloor": r"\rfloor", r"\begin": r"\end"}
BRACES = {"{": "}"}

# ----------------------------------------------------------------------------------------------------------- characters
_GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho varsigma sigma tau upsilon phi chi psi omega"
_SAME = {"−‐‑‒–—": "-", "⁄∕": "/", "∗": "*", "’′": "'", "“”": '"', "\u00a0\u2002\u2003\u2009\u202f\u3000": " ", "∶": ":", "、": ",", "。": "."}
_MEANS = {
    "×": r"\times ", "·⋅∙": r"\cdot ", "÷": r"\div ", "∞": r"\infty ", "°º˚": r"^\circ ", "≤⩽": r"\le ", "≥⩾": r"\ge ", "≠": r"\ne ",
    "±": r"\pm ", "∓": r"\mp ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "∠": r"\angle ", "∴": r"\therefore ",
    "≈": r"\approx ", "⟨": r"\langle ", "⟩": r"\rangle ", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ",
    "µ": r"\mu ", "ϕ": r"\phi ", "√": " sqrt", "∛": " sqrt[3]", "∜": " sqrt[4]", "…": r"\dots ", "→": r"\to ", "¢": " cents", "\\": "\\",
}
_CHARACTERS = {ord(c): text for table in (_SAME, _MEANS) for cs, text in table.items() for c in cs}
_CHARACTERS |= {0xFEE0 + code: chr(code) for code in (*range(0x21, 0x30), *range(0x3A, 0x7F))}  # full width, but for digits
_CHARACTERS |= {0x3B1 + i: rf"\{name} " for i, name in enumerate(_GREEK.split())}
_CHARACTERS |= {ord(c): rf"\{unicodedata.name(c).split()[-1].replace('LAMDA', 'lambda').capitalize()} " for c in "ΓΔΘΛΞΠΣΦΨΩ"}
_CHARACTERS |= {ord(c): rf"\mathbb{{{letter}}}" for c, letter in zip("ℝℕℤℚℂ", "RNZQC", strict=True)}
_CHARACTERS |= {ord(c): r"\frac{{{}}}{{{}}}".format(*unicodedata.normalize("NFKD", c).split("⁄")) for c in "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"}
_RAISED = [(mark, re.compile(f"[{chars}]+"), str.maketrans(chars, plain)) for mark, chars, plain in [
    ("^", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱˣ", "0123456789+-nix"), ("_", "₀₁₂₃₄₅₆₇₈₉₊₋ₙᵢₓₖ", "0123456789+-nixk")
]]

# -------------------------------------------------------------------------------------------------------------- notation
_END = r"(?![a-zA-Z])"
_FONTS = "math(?:bf|it|sf|tt|cal|frak|scr|bfit)|bm|bold|boldsymbol|pmb|underline|boxed|fbox"
_PHRASE = r"(?:[Tt]he )?(?:[Ff]inal |[Cc]orrect )?[Aa]nswer(?: is)?\s*:?\s*"
_MONEY = {"$": "dollars", r"\$": "dollars", "€": "euros", "£": "gbp", "¥": "yen", "₹": "rupees", "Rs": "rupees", "Rs.": "rupees"}
_AMOUNT = r"-?\d[\d,]*(?:\.\d+)?(?: ?(?:\\text ?\{ ?)?(?:hundred|thousand|million|billion|trillion) ?\}?)?"
_MATRIX = r"\\begin ?\{(?:[pbB]?|small)matrix\}|\\begin ?\{array\} ?\{[^{}]*\}"
_RULES = [(re.compile(pattern), replacement) for pattern, replacement in [
    # spacing, sizes, colours
    (r"[\u2600-\u27bf\U0001f300-\U0001faff\ufe0f]+\s*$|^\s*[\u2600-\u27bf\U0001f300-\U0001faff\ufe0f]+", ""),
    (r"\\\\\[[\d.]+[a-z]{2}\]", r"\\\\"),  # a new row and its distance
    (r"^(?!.*\\begin).*$", lambda m: re.sub(r"\\\\(?=[a-zA-Z])", r"\\", m[0])),  # escaped twice
    (r",\s*\\!\s*|\{\s*,\s*\}|\\text ?\{,\}|(?<=\d), ?(?:\\,|\\;|\\ ) ?(?=\d{3}(?!\d))", ","),  # thousands
    (r"\\!|(?<!\\)\\(?=\d)|(?:\\text ?)?\{ ?\}", ""),
    (rf"(?<!\\)\\[,;:> ]|~|\\q?quad{_END}|\\[hv]space\*? ?\{{[^{{}}]*\}}|\\n?thinspace{_END}", " "),
    (r"\\(?:displaystyle|textstyle|scriptstyle|limits|left|right|middle|[bB]igg?[lrm]?|tiny|small|normalsize|[lL]arge|LARGE|[hH]uge"
     rf"|bf|it|rm|sf|tt|bfseries|itshape|therefore|implies|Rightarrow|to){_END}\.?", " "),
    (r"\\(?:text|page|f)?color(?:box)? ?\{[^{}]*\}", ""),
    # the answer, said once more
    (rf"^\s*\\text ?\{{\s*{_PHRASE}\}}", ""), (rf"^\s*(\\text ?\{{)?\s*{_PHRASE}", r"\1"),
    (r"\s*(?:\\text ?\{ ?)is the (?:final |correct )?answer\.?\}$|\s+is the (?:final |correct )?answer$", ""),
    (r"\s*(?:\\text ?\{ ?)?\(?the only (?:solution|answer)\)?\}?$", ""), (r"^(?:minus|negative) (?=\d)", "-"),
    # fonts: of words \text, of anything else none
    (rf"\\(?:{_FONTS}) ?(?=\{{[^{{}}\\]*[^\W\d_]{{2}}|\\text{_END})", r"\\text"), (rf"\\(?:{_FONTS}) ?\{{ ?(\w+) ?\}}", r" \1"),
    (rf"\\(?:{_FONTS}){_END}", ""), (rf"\\(?:mathrm|text(?:bf|it|rm|sf|tt|normal|up|md|sc)|[mh]box|operatorname\*?|emph){_END}", r"\\text"),
    (r"\\text ?\{\s*(?:\\\(|\$)(.*)(?:\\\)|\$)\s*\}", r"\1"), (r"\\text ([a-zA-Z])(?![a-zA-Z])", r"\\text{\1}"),
    (r"\\text ?\{([^{}a-zA-Z]*)\}", r"\1"), (r"^\\text ?\{ ?(-?[\d.,/]+)([^{}\d]*)\}$", r"\1\\text{\2}"), (r"^\\text ?\{([^{}]*=[^{}]*)\}$", r"\1"),
    # signs and names
    (r"\\[()]|\\\[|\\\]|\*\*(?!\w)|^\*\*|(?<!\\)\$(?!\s*-?\d[^$]*$)|(?<!\\)\$(?=[^$]*\$)", ""),
    (rf"(\\?\$|[€£¥₹]|Rs\.?) ?({_AMOUNT})", lambda m: f"{m[2]} {_MONEY[m[1]]}"), (r"\\?\$|[€£¥₹]", ""),
    (r"(\d) ?([ap])\.? ?m\.?(?![a-z])", r"\1 \2m"), (r"(?i)(?<![a-z.])([ap])\. ?m\.?(?![a-z])", r"\1m"),
    (rf"\\[dtcs]frac{_END}|\\(?:nice|x|v)frac{_END}", r"\\frac"), (rf"\\[dt]binom{_END}", r"\\binom"),
    (r"\{([^{}]+)\\over(?![a-z])([^{}]+)\}|^([^{}]+)\\over(?![a-z])([^{}]+)$", lambda m: r"\frac{{{}}}{{{}}}".format(*filter(None, m.groups()))),
    (r"\{([^{}]+)\\choose(?![a-z])([^{}]+)\}", r"\\binom{\1}{\2}"),
    (r"\^ ?\{?((?: ?\\prime)+) ?\}?", lambda m: "'" * m[1].count("p")),
    (rf"\^ ?\{{ ?(?:\\circ|o) ?\}}|\^ ?\\circ{_END}|\\degree{_END}", r"^\\circ "),
    (rf"\\varnothing{_END}|\\\{{ *\\\}}", r"\\emptyset "), (r"(?<![a-zA-Z\\])infinity(?![a-zA-Z])", r"\\infty "), (rf"\\colon{_END}", ":"),
    (r"\\(le|ge)(?:q|qslant)(?![a-z])", r"\\\1 "), (r"<=", r"\\le "), (r">=", r"\\ge "), (rf"\\neq{_END}|!=", r"\\ne "), (rf"\\lt{_END}", "<"),
    (rf"\\gt{_END}", ">"), (rf"\\lbrace{_END}", r"\\{"), (rf"\\rbrace{_END}", r"\\}"), (rf"\\[lr]?[vV]ert{_END}|\\mid{_END}", "|"),
    (rf"[(\[]? ?(?:{_MATRIX})(.*?)\\end ?\{{(?:[pbB]?|small)(?:matrix|array)\}} ?[)\]]?", r"\\begin{matrix}\1\\end{matrix}"),
    (r"(?<![a-zA-Z])np\.(?=[a-z])", ""), (r"(?:(?<=^)|(?<=[(\[,=])) *\+ ?(?=[\d\\.])", ""),
    (r"^\(([0-9A-Z]+)\)(?=_)", r"\1"), (r"(?<=\d)_ ?\{? ?\(?(?:\\text ?\{)?(\d+)\}?\)? ?\}?", r"_{\1}"),  # numbers and their base
    # plain roots are no TeX: they take the whole number or bracket that follows
    (r"(?<![\\a-zA-Z]) ?sqrt(\[\d\])? ?(\d+(?:\.\d+)?|[a-zA-Z](?![a-zA-Z])|\\[a-z]+)", r"\\sqrt\1{\2}"),
    (r"(?<![\\a-zA-Z]) ?sqrt(?=[\[{(])", r"\\sqrt"),
    (r"\.(\d*)\\(?:overline|bar|dot|overline) ?(?:\{(\d+)\}|(\d))(?:(\d*)\\dot ?(?:\{(\d)\}|(\d)))?",
     lambda m: f".{m[1]}\\overline{{{''.join(part or '' for part in m.groups()[1:])}}}"),
    (r"(?<=\d)\.(\d*)\((\d+)\)$", r".\1\\overline{\2}"), (r"(?<=\d)\.(\d*?)(\d+?)\2{2,}(?:\.\.\.|\\[lc]?dots ?)$", r".\1\\overline{\2}"),
]]
# fmt: on


@lru_cache(maxsize=4096)  # the completions of a group share a gold answer
def normalise(text: str) -> str:
    """Return an answer in one notation: LaTeX without delimiters, sizes, colours or fonts but ``\\text``, arguments in braces."""
    if re.fullmatch(r"-?\d+", text, re.ASCII):
        return text
    text = unicodedata.normalize("NFC", text).strip("\u200b\u2060\ufeff \n").translate(_CHARACTERS)
    for mark, pattern, plain in _RAISED:
        text = pattern.sub(lambda m, mark=mark, plain=plain: f"{mark}{{{m[0].translate(plain)}}}", text)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    text = re.sub(r"\s+", " ", _braced_arguments(text)).strip()
    while (stripped := re.sub(r"^(?:= ?|\\approx(?![a-z]) ?)|(?<!\\)[.,;] ?$|\\\\ ?$", "", text).strip()) != text:
        text = stripped
    while (inner := bracketed(text)) and inner[0] == "{":
        text = inner[1].strip()
    return text


def _braced_arguments(text: str) -> str:
    """Put TeX's one-token arguments in braces: ``\\frac12`` is ``\\frac{1}{2}``; from the right, so that inner ones come first."""
    for command in reversed(list(re.finditer(r"\\(frac|binom|sqrt)(?![a-zA-Z])(?: ?(\[[^\[\]]{1,9}\]))?", text))):
        head, rest = rf"\{command[1]}{command[2] or ''}", text[command.end() :]
        for _ in range(1 if command[1] == "sqrt" else 2):
            rest = rest.lstrip()
            round_group = command[1] == "sqrt" and rest.startswith("(")  # who writes \sqrt(2) means it so
            end = (group_end(rest) if round_group else group_end(rest, closing=BRACES)) or 0
            argument, rest = rest[:end], rest[end:]
            head += f"{{{argument[1:-1] if end > 1 and argument[0] in '({' else argument.strip('{}')}}}"
        text = text[: command.start()] + head + rest
    return text


# -------------------------------------------------------------------------------------------------------------- brackets
def walk(text: str, start: int = 0, closing: dict[str, str] = CLOSING) -> Iterator[tuple[re.Match, int]]:
    """Yield tokens, each with the depth of brackets after it."""
    depth = 0
    for token in TOKEN.finditer(text, start):
        depth += (token[0] in closing) - (token[0] in closing.values())
        yield token, depth


def group_end(text: str, start: int = 0, closing: dict[str, str] = CLOSING) -> int | None:
    """Return where the token or the bracketed group ends that stands at `start`; None where it does not end."""
    return next((token.end() for token, depth in walk(text, start, closing) if depth <= 0), None)


def bracketed(text: str) -> tuple[str, str, str] | None:
    """Return opening bracket, inside and closing bracket, if one pair encloses the whole text."""
    tokens = TOKEN.findall(text)
    if len(tokens) < 2 or tokens[0] not in CLOSING or tokens[0] == r"\begin" or group_end(text) != len(text):
        return None
    return tokens[0], "".join(tokens[1:-1]), tokens[-1]


def split(text: str, separator: str) -> list[str]:
    """Return the parts between separators that stand outside of all brackets."""
    cuts = [token.span() for token, depth in walk(text) if depth == 0 and token[0] == separator]
    return [text[a:b].strip() for (_, a), (b, _) in zip([(0, 0), *cuts], [*cuts, (len(text), 0)], strict=True)]
