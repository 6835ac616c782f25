"""Whether two answers are the same: as text, exact numbers, words, or part by part; formulas by math-verify.

Rules are strict where a wrong "same" would be rewarded, and lenient about notation.
"""

import re
from contextvars import ContextVar

from mgrpo_lib.verifier import symbolic
from mgrpo_lib.verifier.normalise import bracketed, normalise, split, walk
from mgrpo_lib.verifier.quantity import compatible, same_quantity, unit

helper = symbolic.Helper()
_left: ContextVar[float] = ContextVar("left", default=symbolic.SECONDS)  # CPU seconds left to the comparison in hand

_FUNCTIONS = "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp"
_GREEK = "alpha|beta|gamma|delta|(?:var)?epsilon|zeta|eta|(?:var)?theta|iota|kappa|lambda|mu|nu|xi|(?:var)?rho|sigma|tau|upsilon|(?:var)?phi|chi|psi|omega|hbar|ell|Gamma|Delta|Theta|Lambda|Xi|Pi|Sigma|Phi|Psi|Omega"
_AND = re.compile(r",?\s*(?:\\text ?\{ ?(?:and|or) ?\}|(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z]))\s*")
_SET = re.compile(r"^\\\{|(?<![a-zA-Z])or(?![a-zA-Z])|\\pm(?![a-z])")
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_ONE_NAME = r"(?:\\?[a-zA-Z]+'*|\\(?:text|vec|hat|bar)\{[^{}]*\}|\\angle[A-Z]+)(?:_(?:\{(?:\w+|\\[a-z]+|\\text\{\w+\})\}|\w))?(?:\([^()=]*\))?"
_NAME = re.compile(rf"{_ONE_NAME}|\({_ONE_NAME}(?:,{_ONE_NAME})*\)")
_CONSTANT = re.compile(r"(?:[\d+\-*/^(){}.!]|\\(?:frac|cdot|times|div|sqrt|pi|binom)(?![a-z]))+")


def same(answer: str, gold: str) -> bool:
    """Return whether two answers are the same.

    Raises:
        TimeoutError, RuntimeError: there is no verdict.
    """
    _left.set(symbolic.SECONDS)
    return _same(normalise(answer), normalise(gold))


def _same(answer: str, gold: str) -> bool:
    a, g = _squash(answer), _squash(gold)
    if a == g:
        return a != ""
    for reading in (same_quantity, _same_words, _same_choice):
        if (verdict := reading(answer, gold)) is not None:
            return verdict
    based = re.fullmatch(r"([0-9A-Z]+)_\{(\d+)\}", gold)
    if based and "_" not in a and set(based[1]) <= set(_DIGITS[: int(based[2])]):
        return a == based[1]  # the question names the base
    answers, golds = _elements(answer), _elements(gold)
    if len(answers) == len(golds) == 1:
        return _same_one(answers[0], golds[0])
    if min(len(answers), len(golds)) == 1:  # a tuple may lack its brackets, not a set its other elements
        one, several, text = (answers, golds, gold) if len(answers) == 1 else (golds, answers, answer)
        group, names = bracketed(one[0]), [part.partition("=")[0] for part in several if "=" in part]
        if _SET.search(text) or len(set(names)) < len(names):  # "x = 1 or x = 2" is neither a point nor an interval
            return False
        return group is not None and group[0] == "(" and _in_order(split(group[1], ","), several)
    return _in_any_order(answers, golds)


def _squash(text: str) -> str:
    """Drop blanks, but for those between digits: ``5 5`` is not ``55``; and ``x_{1}`` becomes ``x_1``."""
    return re.sub(r"([_^])\{(\w)\}", r"\1\2", re.sub(r"(?<!\d) | (?!\d)", "", text))


# ----------------------------------------------------------------------------------------------------------------- words
_WORDS = re.compile(rf"(?!.*(?<![a-z])(?:{_FUNCTIONS})(?![a-z]))(?=.*[^\W\d_]{{3}})[^\\^_=+*<>{{}}]+")
_OTHER_LETTER = re.compile(r"(?:\b(?:or|and|not)\b|[,;/&]) ?\(?[A-Z]\b(?!')|\(?\b[A-Z]\)|^[A-Z]$", re.IGNORECASE)


def _unfonted(text: str) -> str:
    return re.sub(r"\\text ?\{((?:[^{}]|\{[^{}]*\})*)\}", r"\1", text)


def _same_words(answer: str, gold: str) -> bool | None:
    a, g = (_unfonted(text).strip() for text in (answer, gold))
    if _WORDS.fullmatch(g):  # small and large letters, articles, quotes and brackets are all one
        a, g = (re.sub(r"^\W*(?:an?|the) ", "", text.casefold()) for text in (a, g))
        a, g = (re.sub(r"[\"'().]|(?<!\d)\s|\s(?!\d)", "", text) for text in (a, g))
        return a == g or (None if re.search(r"\d|,|\b(?:and|or)\b", _unfonted(gold)) else False)
    if re.fullmatch("[IVXLCDM]{2,}|[TF]{2}", g):
        return a == g  # Roman numerals, true and false: no products
    if len(g) == 2 and g.isalpha():
        a, g = a[:1].lower() + a[1:], g[:1].lower() + g[1:]  # No is no, but AB is not ab
    return True if _squash(a) == _squash(g) != "" else None


def _choice(text: str) -> tuple[str, str] | None:
    """Return letter and text of a multiple-choice answer: ``C``, ``(C) 42``, ``C: 42``, ``Option C``; None where it names others too."""
    found = re.fullmatch(
        r"(?:(?:option|choice|answer) ?:? ?)?(?:\(([A-Z])\)|\(?([A-Z])(?=$|[).:])) ?[).:]? ?(.*)",
        _unfonted(text).strip(),
        re.IGNORECASE,
    )
    letter = found and (found[1] or found[2])
    return None if not letter or not letter.isupper() or _OTHER_LETTER.search(found[3]) else (letter, found[3])


def _same_choice(answer: str, gold: str) -> bool | None:
    if (g := _choice(gold)) is None or (a := _choice(answer)) is None:
        return None
    return a[0] == g[0] and (not a[1] or not g[1] or _same(a[1], g[1]))


# ------------------------------------------------------------------------------------------------------------------ parts
def _elements(text: str) -> list[str]:
    """Return the parts of a list or set; ``1 \\pm x`` are two."""
    group = bracketed(text)
    if group and group[0] == r"\{":
        text = group[1]
    parts = [part for piece in split(_AND.sub(",", text), ";") for part in split(piece, ",")]
    return [signed for part in parts for signed in _signs(part)]


def _signs(text: str) -> list[str]:
    if not re.search(r"\\pm(?![a-z])", text):
        return [text]
    signs = re.compile(r"\\(pm|mp)(?![a-z]) ?")
    return [signs.sub(lambda m, plus=plus: "+" if m[1] == plus else "-", text) for plus in ("pm", "mp")]


def _in_order(answers: list[str], golds: list[str]) -> bool:
    return len(answers) == len(golds) and all(map(_same, answers, golds))


def _in_any_order(answers: list[str], golds: list[str]) -> bool:
    if len(answers) != len(golds):
        return False
    left = list(golds)
    for answer in answers:
        match = next((i for i, gold in enumerate(left) if _same(answer, gold)), None)
        if match is None:
            return False
        del left[match]
    return True


def _same_one(answer: str, gold: str) -> bool:
    """Compare tuples and intervals in order and with the same brackets, equations by their values, and the rest as formulas."""
    a, g = bracketed(answer), bracketed(gold)
    tuples = [split(group[1], ",") if group else [] for group in (a, g)]
    if len(tuples[0]) > 1 and len(tuples[1]) > 1:
        return (a[0], a[2]) == (g[0], g[2]) and _in_order(*tuples)
    answer, gold = (re.sub(r"^ ?[a-zA-Z] ?\\in(?![a-z]) ?", "", text) for text in (answer, gold))
    a, g = (re.match(r"([a-zA-Z]) ?\( ?([a-z]) ?\) ?=", text) for text in (answer, gold))
    if a and g and a[1] == g[1]:  # f(y) = y + 1 where the gold answer calls it x
        answer = re.sub(rf"(?<![a-zA-Z\\]){a[2]}(?![a-zA-Z])", g[2], answer)
    a, g = ([part.strip() for part in re.split(r"(?<![<>!])=", text)] for text in (answer, gold))
    if len(a) == len(g) == 1:
        return _same_formula(answer, gold)
    a, g = (
        parts[::-1] if len(parts) == 2 and not _is(_NAME, parts[0]) and _is(_NAME, parts[1]) else parts
        for parts in (a, g)
    )
    if len(g) == 1:  # x = 5, |r - s| = 5, 2 + 3 = 5 or a longer chain; but x^2 = 4 is not 4, nor is 2x = 4
        named = _is(_NAME, a[0]) or _is(_CONSTANT, a[0]) or not re.search(r"\d|\^|^-", a[0])
        return (named or len(a) > 2) and _same(a[-1], gold)
    if len(a) == 1:
        return _is(_NAME, g[0]) and _same(answer, g[-1])
    if _squash(a[0]) == _squash(g[0]) and _is(_NAME, g[0]):
        return _same(a[-1], g[-1])
    if len(a) == len(g) == 2 and _squash(a[0]) == _squash(g[1]) and _squash(a[1]) == _squash(g[0]):
        return True
    return _same_formula(answer, gold)


def _is(pattern: re.Pattern, text: str) -> bool:
    return pattern.fullmatch(_squash(text)) is not None


# --------------------------------------------------------------------------------------------------------------- formulas
_PLAIN = re.compile(rf"(?<![\\a-zA-Z])({_FUNCTIONS}|pi|infty|theta|alpha|beta)(?![a-z]{{2}})")
# what math-verify is trusted with; anything else is only compared as text
_FORMULA = re.compile(
    rf"(?:\d+(?:\.\d+)?(?![.\d])|\.\d+(?![.\d])|[a-zA-Z+\-*/^_(){{}}\[\]|!<>=,& ]|\\[{{}}\\]|\\(?:begin|end)\{{v?matrix\}}|"
    rf"\\(?:frac|sqrt|pi|cdot|times|div|le|ge|ne|infty|cup|cap|binom|lfloor|rfloor|lceil|rceil|hat|dot|ddot|bar|tilde|vec|{_FUNCTIONS}|{_GREEK})"
    r"(?![a-zA-Z])|\\mathbb ?\{ ?[RNZQC] ?\})*"
)
# for exact arithmetic too large: powers of 99999 and more, towers of numbers, factorials of 99999 and more
_HUGE = re.compile(
    r"\^ ?-?\{?[^{}]*\d{5}|\d{5,}[\s)}]*!|!\s*!|\^ ?\{?[\d(]+ ?\^|\^ ?\{[^{}a-z]*\^|\^ ?\{?\d+ ?!|\^[{(\d]*\^"
)
_INDEXED = re.compile(
    rf"((?<!\\)[a-zA-Z]|\\(?:{_GREEK})(?![a-zA-Z]))((?: ?_ ?(?:\w|\\[a-z]+|\{{(?:[^{{}}]|\{{[^{{}}]*\}})*\}}))?)('*)"
)
# math-verify takes them for a function or a constant
_SAFE = {r"\gamma": ("g", "gamma"), r"\Gamma": ("G", "gamma"), "I": ("J", "I"), "E": ("F", "E")}


def _same_formula(answer: str, gold: str) -> bool:
    if r"\approx" not in gold and len(parts := split(answer, r"\approx")) == 2:
        return any(_same(part, gold) for part in parts)
    (answer, units_a), (gold, units_g) = _without_unit(answer), _without_unit(gold)
    if not compatible(units_a, units_g):
        return False
    if _squash(answer) == _squash(gold):
        return answer != ""
    if _is(_CONSTANT, gold) and re.search(r"(?<![\\a-zA-Z])[a-df-hj-zA-Z](?![a-zA-Z])", answer):
        return False  # a variable; without asking
    a, g = formula(answer), formula(gold)
    if a is None or g is None:
        return False
    verdict, took = helper.equal(a, g, _left.get())
    _left.set(_left.get() - took)
    return verdict


def _without_unit(text: str) -> tuple[str, dict[str, int]]:
    """Return a formula without the unit in ``\\text`` that it ends with; of a constant also without one in words."""
    for start in re.finditer(r" ?\\text ?\{| ?\\?%| ?\^ ?\\circ|(?<=[\d})i]) (?=[a-zA-Z]{2})", text):
        value = re.sub(r" ?(?:\\cdot|\\times|[*/]) ?$", "", text[: start.start()]).strip()
        of_a_function = "circ" in start[0] and re.search(rf"\\?(?:{_FUNCTIONS})(?![a-z])", value)
        if not value or value[-1] in "_^+-(" or of_a_function or (start[0] == " " and not _is(_CONSTANT, value)):
            continue
        if (beside := unit(text[start.start() :])) and beside[0] == 1:
            return value, beside[1]
    return text, {}


def formula(text: str) -> str | None:
    """Return normalised LaTeX as math-verify reads it right; None: not a formula, or one too large to compute."""
    text = re.sub(r"(?<=_)\{ ?\\text ?\{ ?(\w+) ?\} ?\}", r"{\1}", text)
    text = re.sub(r"\\text ?\{ ?([a-zA-Z]) ?\}", r" \1", text)
    text = _PLAIN.sub(r"\\\1 ", text.replace("**", "^").replace(",", ", "))
    text = re.sub(r"(\d+(?:\.\d+)?) ?\^ ?\\circ ?", r"(\1\\cdot \\pi/180)", text)
    text = re.sub(r"(?<![\d.^_}])(\d+) ?(\\frac ?\{ ?\d+ ?\} ?\{ ?\d+ ?\})", r"(\1+\2)", text)  # a mixed number
    text = re.sub(r"\^ ?(-? ?(?:\d+|[a-zA-Z]|\\(?:pi|[a-z]+)(?![a-z])))", r"^{\1}", text)  # x^12 is meant as x^{12}
    text = re.sub(r"(\^\{[^{}]*\}) ?(_ ?(?:\w|\{[^{}]*\}))", r"\2\1", text)
    text = _INDEXED.sub(_safe_name, re.sub(r"_ ?(\d+|[a-zA-Z])", r"_{\1}", text))
    text = re.sub(r"([\d)]|\\pi) ?(?=\()", r"\1\\cdot ", text)  # 3(4) is 7 to math-verify
    text = re.sub(r"(?<![a-zA-Z\]}^_ ]) ?\{(\d+)\}", r"\1", text)
    letters = re.sub(r"\\[a-zA-Z]+|_\{\w+\}|\{v?matrix\}", lambda command: "\\" * len(command[0]), text)
    deep = any(depth > 20 for _, depth in walk(text))
    odd = re.search(r"\d \d|\d ?\{\d|\d ?_|[a-zA-Z]{4}", letters)
    return text if _FORMULA.fullmatch(text) and not odd and not deep and not _HUGE.search(text) else None


def _safe_name(found: re.Match) -> str:
    """Return a name with its index and primes as one that math-verify keeps: a letter with an index of letters and digits."""
    name, index, primes = found.groups()
    name, constant = _SAFE.get(name, (name, ""))
    plain = re.sub(r"[_{} ]|\\text", "", index) + primes.replace("'", '"')
    code = "".join(c if c.isalnum() else f"Z{ord(c)}" for c in plain)
    return f"{name}_{{{constant}{code}}}" if constant or code else name
