"""Answer extraction, comparison and the reward: 1 for a right final answer, 0 otherwise.

The paper's reward is a rule-based verifier's outcome, "1 for correct, 0 for incorrect" (second-hand); a format reward
is not mentioned, and none is given here. Completions are untrusted text: nothing here evaluates them, and every step is
linear in their length; what a comparison may take of a core is `mgrpo_lib.verifier.symbolic.SECONDS`.

Two answers are the same as text, as exact numbers, or part by part (lists, tuples, intervals, matrices); formulas are
left to math-verify (`mgrpo_lib.verifier.symbolic`), which is loaded for the first of them only. Rules are strict where a wrong
"same" would be rewarded, and lenient about notation: units, percent and degree signs, names (``x = 5`` is ``5``).

`python -m mgrpo_lib.verifier.reward FILE.jsonl[.gz]` prints the agreement with labelled completions, rows of ``gold``,
``completion``, ``label`` and perhaps ``benchmark``.
"""

import gzip
import json
import re
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate

from mgrpo_lib.verifier import symbolic

LONGEST_ANSWER = 500  # characters; a longer "answer" is no final answer
failures: Counter[str] = Counter()  # comparisons without a verdict, by kind of error; each of them counted as different
helper = symbolic.Helper()
# seconds of a core that the comparison in hand may still take
_left: ContextVar[float] = ContextVar("left", default=symbolic.SECONDS)

# ----------------------------------------------------------------------------------------------------------- extraction
_BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])")
_NAMED = r"(?:([a-zA-Z](?:_\w)?)\s*=\s*)?"
_BETWEEN_BOXES = re.compile(rf"[\s$]*(?:,|;|and|or|,\s*and|,\s*or)[\s$]*{_NAMED}")
_BEFORE_BOX = re.compile(rf"(?<![\w\\]){_NAMED}\Z")
# in a sentence, or as a heading of what is no sentence
_CUE = re.compile(
    r"answer\**(?:\s+is|\s*[:=])|^[#* ]*(?:final )?answer[* ]*\n+(?=[-*\\$\d])", re.IGNORECASE | re.MULTILINE
)
# GSM8K's mark, in a line of its own or at the end of one; a number after it says that it heads a step
_HASHES = re.compile(r"####[ \t]*(\$?-?\d[\d,]*(?:\.\d+)?(?:/\d+)?%?)[ \t]*(?:<\|\w+\|>)?$\D*\Z", re.MULTILINE)
_BOLD = re.compile(r"\*\*([^*\n]+)\*\*")
# a formula on lines of its own
_SHOWN = re.compile(r"(?:\$\$([^$]+)\$\$|\\\[((?:(?!\\\]).)+)\\\])[ .]*(?:\n|\Z)", re.DOTALL)
_MATH = re.compile(r"\$([^$]+)\$|\\\(([^\n]+?)\\\)|\\\[([^\n]+?)\\\]")
# a dollar sign before an amount that ends there, in prose; else it opens a formula
_CURRENCY = re.compile(r"\$(?=\d[\d,]*(?:\.\d+)?(?:\s+[a-zA-Z]|[.,;]?(?:\s|$)))")
# where an answer in words begins to be explained
_ASIDE = re.compile(r",?\s(?:because|since)\s|,\s(?:not|rather)\s|\s\((?=[^()\\$]*[a-z]{4}[^()\\$]*\))")
_DENIED = re.compile(r"\?$|\b(?:not|no|cannot|unless|if)\b|n't\b", re.IGNORECASE)
_CALL = re.compile(r"\w\([^()]*\)$")
_AMOUNT = re.compile(r"(?<![\w.,])(?:(?<![\d)] )-\s?)?\d[\d,]*(?:\.\d+)?(?:/\d+)?\s?%?")


def extract_answer(completion: str) -> str | None:
    """The final answer a completion names: its last ``\\boxed{...}`` (several in one list count together), else its
    last ``<answer>``, a ``####`` or ``A:`` in its last line, "the answer is" or an amount after ``####``, whichever comes
    later, else the value that its last sentence ends with; None without one. Where there is a box, nothing outside of it
    counts; nothing before a ``</think>`` does.

    >>> extract_answer(r"so x = \\boxed{\\frac{1}{2}}")
    '\\\\frac{1}{2}'
    >>> extract_answer("Then 3 + 4 = 7. She pays 7 dollars.")
    '7'
    """
    completion = completion.rpartition("</think>")[2]
    boxes = list(_BOX.finditer(completion))
    if boxes:
        return _boxed(completion, [box.span() for box in boxes[-10:]])
    end = completion.rfind("</answer>")
    start = completion.rfind("<answer>", 0, max(end, 0))
    if start >= 0:
        return _marked(completion[start + len("<answer>") : end])
    tail = completion[-4 * LONGEST_ANSWER :].strip()
    last_line = tail[tail.rfind("\n") + 1 :]
    for mark in ("####", "A:"):
        if last_line.startswith(mark) and not _HASHES.match(last_line):
            return _marked(last_line.removeprefix(mark))
    cues = list(_CUE.finditer(tail))
    if hashes := _HASHES.search(tail, cues[-1].end() if cues else 0):
        return hashes[1]
    return _after_cue(tail[cues[-1].end() :]) if cues else _last_value(completion, tail)


def _marked(text: str) -> str | None:
    """What stands in a place that is made for the answer; also where it says "the answer is" once more."""
    cue = _CUE.search(text)
    return _after_cue(text[cue.end() :]) if cue else _short(text)


def _short(text: str) -> str | None:
    return text.strip() if len(text) <= LONGEST_ANSWER else None


def _boxed(text: str, spans: list[tuple[int, int]]) -> str | None:
    """The content of the last box and of those right before it that a comma or an "and" joins to it, with their names."""
    contents, start = [], None
    for begin, end in reversed(spans):
        found = _braced(text, end)
        if found is None or (start is not None and not _BETWEEN_BOXES.fullmatch(text[found[1] : start])):
            break
        name = _BEFORE_BOX.search(text[max(0, begin - 20) : begin])
        contents.append((found[0], name and name[1]))
        start = begin
    if len(contents) < 2:
        return contents[0][0] if contents else None
    return ", ".join(f"{name}={content}" if name else content for content, name in reversed(contents))


def _braced(text: str, position: int) -> tuple[str, int] | None:
    """The group in braces, or without them the word, at a position, and where it ends; None: cut off or too long."""
    text = text[: position + LONGEST_ANSWER]
    bare = re.compile(r"\s*((?:[^\s{}$.,;]|[.,](?=\d))+)").match(text, position)
    if bare:
        return bare[1], bare.end()
    depth = 0
    for token in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, position):
        depth += (token[0] == "{") - (token[0] == "}")
        if depth == 0 and token[0] in "{}":
            return text[position : token.end()].strip()[1:-1].strip(), token.end()
    return None


def _after_cue(text: str) -> str | None:
    """What "the answer is" names: formulas, a bold value, an amount, or words."""
    text = text.lstrip(" *:_\n").replace(r"\$", "")
    if shown := _SHOWN.match(text):
        return _short(shown[shown.lastindex].strip())
    sentence = re.split(r"(?<=[.!?])\s|\n", text)[0]
    bold = _BOLD.search(sentence)
    sentence = _CURRENCY.sub("", bold[1] if bold else sentence)
    formulas = list(_MATH.finditer(sentence))
    if formulas:
        joined = formulas[:1]
        for formula in formulas[1:]:
            if not _BETWEEN_BOXES.fullmatch(sentence[joined[-1].end() : formula.start()]):
                break
            joined.append(formula)
        return _short(", ".join(formula[formula.lastindex] for formula in joined))
    sentence = _ASIDE.split(sentence)[0].rpartition("=")[2].strip().removesuffix(".").strip("*\" '")
    amounts = _AMOUNT.findall(sentence)
    return _short(amounts[-1] if amounts and re.match(r"[a-zA-Z]{3}", sentence) else sentence) or None


def _last_value(completion: str, tail: str) -> str | None:
    """The last value of a solution in prose, if it is in one of its last two sentences. What was cut off, denied, asked,
    thought or computed by code concludes nothing.
    """
    if "<think>" in completion or not re.search(r"[a-zA-Z]{3}", tail) or not re.search(r"(?:[.!)\]*]|\$\$)$", tail):
        return None
    for sentence in reversed(re.split(r"(?<=[.!?])\s|\n", tail)[-2:]):
        bold = _BOLD.findall(sentence)
        text = _CURRENCY.sub("", bold[-1] if bold else sentence)
        values = [*_MATH.finditer(text), *_AMOUNT.finditer(_MATH.sub(lambda formula: " " * len(formula[0]), text))]
        if values:
            last = max(values, key=lambda value: value.start())
            return None if _DENIED.search(sentence) or _CALL.search(sentence) else _short(last[last.lastindex or 0])
    return None


# ------------------------------------------------------------------------------------------------------------- cleaning
_UNICODE = str.maketrans(
    {"−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "÷": r"\div ", "π": r"\pi ", "∞": r"\infty ", "°": r"^\circ ",
     "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "±": r"\pm ", "∪": r"\cup ", "√": r"\sqrt ", "²": "^2", "³": "^3",
     "\u00a0": " ", "\u2009": " ", "\u202f": " ", "’": "'", "“": '"', "”": '"'}
)  # fmt: skip
_REPLACED = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"\\\\\[[\d.]+[a-z]{2}\]", r"\\\\"),  # a new row and its distance
        (r"\\\\\s*$", ""),
        (
            r"(?:\\left)?([(\[])\s*\\begin\{array\}\s*\{[^{}]*\}((?:(?!\\end).)*)\\end\{array\}\s*(?:\\right)?[)\]]",
            r"\\begin{pmatrix}\2\\end{pmatrix}",
        ),
        (r",\s*\\!\s*|\{\s*,\s*\}", ","),  # thousands
        (r"\\!|(?<!\\)\\(?=\d)", ""),
        (r"(?<!\\)\\[,;:> ]|~|\\q?quad(?![a-z])", " "),
        (r"\\(?:displaystyle|textstyle|limits|left|right|[bB]igg?[lr]?)(?![a-zA-Z])\.?", ""),
        (r"\\\$|[$€£¥]|\\[()]|\\\[|\\\]|\*\*(?!\w)|^\*\*", ""),
        (r"\\[dtc](frac|binom)(?![a-zA-Z])", r"\\\1"),
        (r"\^ ?\{?((?: ?\\prime)+) ?\}?", lambda m: "'" * m[1].count("p")),
        (r"(?<![a-zA-Z])np\.(?=[a-z])", ""),
        (r"\\varnothing(?![a-z])", r"\\emptyset"),
        (r"(?<![\w)}\]] )(?<![\w)}\]])\+ ?(?=\\infty)", ""),
        (r"^\(([0-9A-Z]+)\)(?=_)", r"\1"),  # a number and its base
        (r"(?<=\d)_ ?\{?\((\d+)\)\}?", r"_\1"),
        (
            r"\\(?:math(?:rm|bf|it|sf|tt|cal)|text(?:bf|it|rm|sf|tt|normal)|mbox|operatorname|bold|boldsymbol)(?![a-z])",
            r"\\text",
        ),
        (r"\\text ([a-zA-Z])(?![a-zA-Z])", r"\\text{\1}"),
        (r"\\(?:geqslant|geq)(?![a-z])", r"\\ge "),
        (r"\\(?:leqslant|leq)(?![a-z])", r"\\le "),
        (r"\\neq(?![a-z])", r"\\ne "),
        (r"\\(?:lt|gt)(?![a-z])", lambda m: "<" if m[0] == r"\lt" else ">"),
        (r"\\(?:lbrace|rbrace)(?![a-z])", lambda m: r"\{" if m[0] == r"\lbrace" else r"\}"),
        (r"\\(?:l|r)?[vV]ert(?![a-z])", "|"),
        (r"\\(?:boxed|fbox)\s*\{(.*)\}|^\\underline\s*\{([^{}]*)\}$", r"\1\2"),
    ]
]


def _clean(text: str) -> str:
    """LaTeX in one notation: no delimiters, sizes, spacing or currency signs; fonts become ``\\text``."""
    text = text.translate(_UNICODE)
    if "matrix" not in text:
        text = re.sub(r"\\\\(?=[a-zA-Z])", r"\\", text)  # a command written with two backslashes
    for pattern, replacement in _REPLACED:
        text = pattern.sub(replacement, text)
    text = re.sub(r"\s+", " ", text).strip().removesuffix(".").strip()
    while (group := _bracketed(text)) and group[0] == "{":
        text = group[1].strip()
    if number := re.fullmatch(r"\\text ?\{([^{}a-zA-Z]*\d[^{}]*)\}", text):
        return number[1].strip()
    return text


def _squash(text: str) -> str:
    """Without blanks, but for those between digits (``5 5`` is not ``55``), and with ``x_{1}`` as ``x_1``."""
    return re.sub(r"([_^])\{(\w|(?<=_\{)\d+)\}", r"\1\2", re.sub(r"(?<!\d) | (?!\d)", "", text))


def _words(text: str) -> str | None:
    """A text answer in lower case, without fonts, quotes and brackets; None for anything else."""
    text = re.sub(r"^[\s{(]*(?:an?|the) ", "", re.sub(r"\\text\s*", "", text))
    text = re.sub(r"[{}()\"'.]|\\?\s", "", text)
    if not re.fullmatch(r"[^\W\d_]{2,}(?:[-,][^\W\d_]+)*", text):
        return None
    return text.casefold() if len(text) > 2 else text[0].lower() + text[1:]  # AB is not ab


def _choice(text: str) -> str | None:
    """The letter of a multiple-choice answer: ``(B)``, ``B``, ``\\text{B}``, ``(B) 5``, ``B) 5``."""
    found = re.fullmatch(
        r"\(?([A-Z])\)?|(?:\(([A-Z])\) *|([A-Z])\) +)(?!.*[A-Z]\))\S.*",
        re.sub(r"\\text ?\{((?:[^{}])*)\}", r"\1", text).strip(),
    )
    return found and found[found.lastindex]


# ---------------------------------------------------------------------------------------------------- numbers and units
_DECIMAL = r"(?:\d{1,3}(?:[, ]\d{3})+|\d+)(?:\.\d*)?|\.\d+"
_POWER = r"(?:[eE]|(?:\\times|\\cdot|\*|x)10\^)(?:\{([+-]?\d{1,4})\}|([+-]?\d{1,4}))"
_SCIENTIFIC = re.compile(rf"([+-]?)({_DECIMAL})(?:{_POWER})?", re.ASCII)
_POWER_OF_TEN = re.compile(r"([+-]?)10\^(?:\{([+-]?\d{1,4})\}|(\d))", re.ASCII)
_PART = rf"[+-]?(?:{_DECIMAL})"
_FRACTION = re.compile(
    rf"([+-]?)(\d*)\\frac(?:\{{({_PART})\}}|(\d))(?:\{{({_PART})\}}|(\d))|({_PART})/({_PART})", re.ASCII
)
_REPEATING = re.compile(r"([+-]?)(\d+)\.(\d*)\\overline(?:\{(\d+)\}|(\d))", re.ASCII)
_MIXED = re.compile(r"([+-]?)(\d+) (\d+)/(\d+)", re.ASCII)
_FLOAT = re.compile(r"-?\d+\.\d+", re.ASCII)  # with ten digits or more it is a computed one, right up to rounding
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_BASE = re.compile(r"([0-9A-Z]+)_\{?(?:\\text\{)?(\d+)\}*", re.ASCII)


def _number(text: str) -> Fraction | None:
    """The exact value of a number in cleaned LaTeX without blanks: decimal, repeating, scientific, fraction or mixed."""
    if found := _SCIENTIFIC.fullmatch(text):
        return _signed(found[1], _decimal(found[2]) * Fraction(10) ** int(found[3] or found[4] or 0))
    if found := _POWER_OF_TEN.fullmatch(text):
        return _signed(found[1], Fraction(10) ** int(found[2] or found[3]))
    if found := _REPEATING.fullmatch(text):
        sign, whole, once, again, again_bare = found.groups("")
        again += again_bare
        repeated = Fraction(int(again), 10 ** len(once) * (10 ** len(again) - 1))
        return _signed(sign, int(whole) + Fraction(int(once or 0), 10 ** len(once)) + repeated)
    if found := _MIXED.fullmatch(text):
        whole, numerator, denominator = map(int, found.groups()[1:])
        return _signed(found[1], whole + Fraction(numerator, denominator)) if denominator else None
    if found := _FRACTION.fullmatch(text):
        numerator, denominator = (_decimal(found[i] or found[i + 1] or found[i // 2 + 6]) for i in (3, 5))
        whole = int(found[2] or 0) if found[7] is None else 0
        return _signed(found[1] or "", whole + numerator / denominator) if denominator else None
    return None


def _decimal(text: str) -> Fraction:
    return Fraction(re.sub("[, ]", "", text))


def _signed(sign: str, value: Fraction) -> Fraction:
    return -value if sign == "-" else value


# units that are worth telling apart; any other is a word beside the number
_UNITS = {
    name: names.split()[0]
    for names in [
        "mm millimeter millimetre",
        "cm centimeter centimetre",
        "m meter metre",
        "km kilometer kilometre",
        "in inch inche",
        "ft foot feet",
        "yd yard",
        "mi mile",
        "mg milligram",
        "g gram",
        "kg kilogram",
        "lb pound",
        "oz ounce",
        "l liter litre",
        "ml milliliter millilitre",
        "s sec second",
        "min minute",
        "h hr hour",
        "day",
        "week",
        "month",
        "year",
        "cent",
        "dollar",
        "am",
        "pm",
        "mph",
        "usd",
        "degree",
        "percent",
    ]
    for name in names.split()
}
_FUNCTIONS = "sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|sinh|cosh|tanh|log|ln|exp"
_PERCENT = re.compile(r"(?:\\?%|\\text ?\{ ?(?:\\?%|percent) ?\}| percent)$")
_DEGREES = re.compile(
    r"(?:\^ ?\{? ?\\circ ?\}?|\\text ?\{ ?degrees? ?\}|(?<=\d) degrees?)(?: ?[CF]| ?\\text ?\{ ?[CF] ?\})?$"
)
_IN_TEXT = r"\\text ?\{(?! ?[ei] ?[\^}])(?:[a-zA-Z ./^\d*-]|\{-?\d\}|\\(?:cdot|times|mu|Omega|AA)(?![a-z]))*\}(?:\^ ?\{? ?-?\d ?\}?)?"
_AND_MORE = r"(?![a-zA-Z])(?:[ /.-]+[a-zA-Z]+)*\.?(?:\^ ?\{?-?\d\}?)?"
_UNIT = re.compile(
    "|".join(
        [
            rf"(?<=[\w}})]) ?[/*]? ?{_IN_TEXT}(?: ?(?:[/*]|\\cdot|\\times)? ?{_IN_TEXT})*$",
            rf"(?<=[\w}})]) ?\\frac ?\{{ ?{_IN_TEXT} ?\}} ?\{{ ?{_IN_TEXT} ?\}}$",
            rf"(?<=[\d}})]) (?:(?:{'|'.join(name for name in _UNITS if len(name) > 1)})s?|USD|[AP]M|[ap]\.m|per|[a-zA-Z]{{4,}}){_AND_MORE}$",
            rf"(?<=\d) [mghls]{_AND_MORE}$",  # after a fraction they would be variables
            r"(?<=[\d}]) (?:\\mu ?(?:[mgs]|\\text ?\{[mgs]\})|\\Omega|\\AA|[MLR]_\{? ?\\odot ?\}?)$",
            rf"(?<=\d)/(?:{'|'.join(name for name in _UNITS if len(name) > 2)})s?$",
        ]
    )
)
# what is a unit where the gold answer is a number, and else a product of letters
_LOOSE_UNIT = re.compile(r"(?<=\d)(?: [KJNWV]|cm|km|kg|ft|mL|mph|km/hr?|m/s|k?Hz|[ap]m)$")


def _quantity(text: str) -> tuple[str, set[str]]:
    """A cleaned answer without its unit, and the well-known ones among what was cut."""
    units = set()
    if (found := _UNIT.search(text)) and not _PERCENT.search(text) and text[: found.start()].strip(" ("):
        words = re.findall(
            r"[a-z]+", re.sub(r"\\text|(?<=[apAP])\.(?=[mM])", lambda m: " " * (len(m[0]) > 1), found[0]).lower()
        )
        units = {_UNITS[name] for word in words for name in (word, word.removesuffix("s")) if name in _UNITS}
        units |= {"micro"} if r"\mu" in found[0] else set()
        text = text[: found.start()].strip()
    for unit, sign in (("percent", _PERCENT), ("degree", _DEGREES)):
        if sign.search(text) and not (unit == "degree" and re.search(rf"\\(?:{_FUNCTIONS})(?![a-z])", text)):
            text, units = sign.sub("", text).strip(), units | {unit}
    return text, units


# ----------------------------------------------------------------------------------------------------------- comparison
_TOKEN = re.compile(r"\\(?:[a-zA-Z]+|.)|.", re.DOTALL)
_CLOSING = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", r"\langle": r"\rangle", r"\begin": r"\end"}
_AND = re.compile(r",?\s*(?:\\text ?\{ ?(?:and|or) ?\}|(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z]))\s*")
_SET = re.compile(r"^\\\{|(?<![a-zA-Z])or(?![a-zA-Z])|\\pm(?![a-z])")
_ONE_NAME = (
    r"(?:\\?[a-zA-Z]+'*|\\text\{[^{}]*\}|\\angle[A-Z]+)(?:_(?:\{(?:\w+|\\[a-z]+|\\text\{\w+\})\}|\w))?(?:\([^()=]*\))?"
)
_NAME = re.compile(rf"{_ONE_NAME}|\({_ONE_NAME}(?:,{_ONE_NAME})*\)")
_CONSTANT = re.compile(r"(?:[\d+\-*/^(){}.!]|\\(?:frac|cdot|times|div|sqrt|pi|binom)(?![a-z]))+")
_SCALED = re.compile(r"(?!\\begin)(.+?)(\\begin\{([pbB])matrix\})(.*)(\\end\{\3matrix\})")
_MATRIX = re.compile(r"\\begin\{([pbBvV]?)matrix\}(.*)\\end\{\1matrix\}")


def same_answer(answer: str | None, gold: str) -> bool:
    """Whether an extracted answer equals the gold one. Never raises; a comparison without a verdict counts as different
    and in `failures`.

    >>> [same_answer(answer, "1/2") for answer in ("0.5", r"x = \\frac12", "1/3", "0.50001")]
    [True, True, False, False]
    """
    if answer is None or len(answer) > LONGEST_ANSWER or len(gold) > LONGEST_ANSWER:
        return False
    return _judge(answer, gold)


@lru_cache(maxsize=65_536)
def _judge(answer: str, gold: str) -> bool:
    _left.set(symbolic.SECONDS)
    try:
        return _same(_clean(answer), _clean(gold))
    except Exception as error:  # whatever goes wrong with untrusted text, but never in silence
        failures[type(error).__name__] += 1
        if failures.total() == 1:
            warnings.warn(
                f"the verifier gave no verdict and counts the answer {answer[:80]!r} to {gold[:80]!r} as wrong: {error!r}. "
                "This is said once; mgrpo_lib.verifier.reward.failures counts them all. A few time-outs on odd answers are "
                "harmless; if they are many, see that math-verify is installed and the machine has memory and time left",
                stacklevel=3,
            )
        return False


def _same(answer: str, gold: str) -> bool:
    a, g = _squash(answer), _squash(gold)
    if a == g:
        return a != ""
    if (verdict := _same_number(answer, gold)) is not None:
        return verdict
    for reading in (_words, _choice):
        text, said = reading(gold), reading(answer)
        if text is not None and ("\\text" in gold or (said is not None and (said == text or len(text) != 2))):
            return said == text  # but yx is xy, if they are no words
    if (based := _BASE.fullmatch(g)) and "_" not in a and set(based[1]) <= set(_DIGITS[: int(based[2])]):
        return a == based[1]  # the question names the base
    answers, golds = _elements(answer), _elements(gold)
    if len(answers) == len(golds) == 1:
        return _same_one(answers[0], golds[0])
    if min(len(answers), len(golds)) == 1:  # a tuple may lack its brackets, not a set its other elements
        one, several, text = (answers, golds, gold) if len(answers) == 1 else (golds, answers, answer)
        group, names = _bracketed(one[0]), [part.partition("=")[0] for part in several if "=" in part]
        if _SET.search(text) or len(set(names)) < len(names):  # "x = 1 or x = 2" is neither a point nor an interval
            return False
        return group is not None and group[0] == "(" and _in_order(_split(group[1], ","), several)
    return _in_any_order(answers, golds)


def _elements(text: str) -> list[str]:
    """The parts of a list or set; ``1 \\pm x`` are two."""
    group = _bracketed(text)
    if group and group[0] == r"\{":
        text = group[1]
    parts = [part for piece in _split(_AND.sub(",", text), ";") for part in _split(piece, ",")]
    return [signed for part in parts for signed in _signs(part)]


def _signs(text: str) -> list[str]:
    if not re.search(r"\\pm(?![a-z])", text):
        return [text]
    upper, lower = (
        re.sub(r"\\(pm|mp)(?![a-z]) ?", lambda m, plus=plus: "+" if m[1] == plus else "-", text)
        for plus in ("pm", "mp")
    )
    return [upper, lower]


def _split(text: str, separator: str) -> list[str]:
    """Parts between separators outside of all brackets."""
    parts, depth, start = [], 0, 0
    for token in _TOKEN.finditer(text):
        depth += (token[0] in _CLOSING) - (token[0] in _CLOSING.values())
        if depth == 0 and token[0] == separator:
            parts.append(text[start : token.start()].strip())
            start = token.end()
    return [*parts, text[start:].strip()]


def _bracketed(text: str) -> tuple[str, str, str] | None:
    """Opening bracket, inside, closing bracket, if one pair encloses the whole text."""
    tokens, depth = _TOKEN.findall(text), 0
    if not tokens or tokens[0] not in _CLOSING or tokens[0] == r"\begin":
        return None
    for i, token in enumerate(tokens):
        depth += (token in _CLOSING) - (token in _CLOSING.values())
        if depth == 0:
            return (tokens[0], "".join(tokens[1:-1]), token) if i == len(tokens) - 1 else None
    return None


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
    """Matrices cell by cell, tuples and intervals in order and with the same brackets, equations by their values."""
    a, g = (_MATRIX.fullmatch(_scaled(text)) for text in (answer, gold))
    if a and g:
        rows = [[_split(row, "&") for row in _rows(m[2])] for m in (a, g)]
        alike = (a[1] in ("v", "V")) == (g[1] in ("v", "V")) and list(map(len, rows[0])) == list(map(len, rows[1]))
        return alike and all(map(_in_order, *rows))
    unions = [_split(text, r"\cup") for text in (answer, gold)]
    if len(unions[0]) > 1 and len(unions[1]) > 1:
        return _in_any_order(*unions)
    a, g = _bracketed(answer), _bracketed(gold)
    tuples = [_split(group[1], ",") if group else [] for group in (a, g)]
    if len(tuples[0]) > 1 and len(tuples[1]) > 1:
        return (a[0], a[2]) == (g[0], g[2]) and _in_order(*tuples)
    answer, gold = (re.sub(r"^ ?[a-zA-Z] ?\\in(?![a-z]) ?", "", text) for text in (answer, gold))
    answer = _with_variable_of(gold, answer)
    a, g = ([part.strip() for part in re.split(r"(?<![<>!])=", text)] for text in (answer, gold))
    if len(a) == len(g) == 1:
        return _same_formula(answer, gold)
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


def _scaled(text: str) -> str:
    """A number times a matrix as a matrix; anything else as it is."""
    found = _SCALED.fullmatch(text)
    if found is None or not _is(_CONSTANT, found[1]):
        return text
    rows = [[rf"{found[1]}\cdot ({cell})" for cell in _split(row, "&")] for row in _rows(found[4])]
    return found[2] + r"\\".join("&".join(row) for row in rows) + found[5]


def _rows(matrix: str) -> list[str]:
    return matrix.strip().removesuffix(r"\\").split(r"\\")


def _with_variable_of(gold: str, answer: str) -> str:
    """``f(y) = y + 1`` as ``f(x) = x + 1``, where the gold answer calls it x."""
    a, g = (re.match(r"([a-zA-Z]) ?\( ?([a-z]) ?\) ?=", text) for text in (answer, gold))
    if not (a and g and a[1] == g[1] and a[2] != g[2]):
        return answer
    return re.sub(rf"(?<![a-zA-Z\\]){a[2]}(?![a-zA-Z])", g[2], answer)


def _is(pattern: re.Pattern, text: str) -> bool:
    return pattern.fullmatch(_squash(text)) is not None


def _same_number(answer: str, gold: str) -> bool | None:
    """None if one of them is no number. Units, percent and degree signs may be left out but not differ."""
    if ", " in answer or ", " in gold:
        return None  # a list, not thousands
    (a, units_a), (g, units_g) = _quantity(answer), _quantity(gold)
    y = _number(_squash(g))
    if y is not None and (loose := _LOOSE_UNIT.search(a)) and _number(_squash(a[: loose.start()])) is not None:
        a, units_a = a[: loose.start()], units_a | {_UNITS.get(loose[0], loose[0])}
    x = _number(_squash(a))
    if x is None or y is None:
        return None
    if units_a and units_g and units_a != units_g:
        return False
    if any(_FLOAT.fullmatch(text) and len(text) > 11 for text in (a, g)):
        return abs(x - y) <= abs(y) / 10**10
    return (
        x == y
        or (units_a == {"percent"} and not units_g and x == 100 * y)
        or (units_g == {"percent"} and not units_a and y == 100 * x)
    )


def _same_formula(answer: str, gold: str) -> bool:
    if r"\approx" in answer and r"\approx" not in gold:
        return any(_same(part, gold) for part in _split(answer, r"\approx"))
    (answer, units_a), (gold, units_g) = _quantity(answer), _quantity(gold)
    if units_a and units_g and units_a != units_g:
        return False
    if _squash(answer) == _squash(gold):
        return answer != ""
    if _is(_CONSTANT, gold) and re.search(r"(?<![\\a-zA-Z])[a-df-hj-zA-Z](?![a-zA-Z])", answer):
        return False  # a variable; without asking
    a, g = map(_formula, _letters(answer, gold))
    if a is None or g is None:
        return False
    same, took = helper.equal(a, g, _left.get())
    _left.set(_left.get() - took)
    return same


# ------------------------------------------------------------------------------------------------------------- formulas
_PLAIN = re.compile(rf"(?<![\\a-zA-Z])(sqrt|pi|{_FUNCTIONS}|infty|theta|alpha|beta)(?![a-z])")
# what math-verify is trusted with; with anything else a formula is only compared as text
_FORMULA = re.compile(
    rf"(?:\d+(?:\.\d+)?(?![.\d])|\.\d+(?![.\d])|[a-zA-Z+\-*/^_(){{}}\[\]|!<>=, ]|\\[{{}}]|"
    rf"\\(?:frac|sqrt|pi|cdot|times|div|le|ge|ne|infty|cup|cap|binom|lfloor|rfloor|lceil|rceil|{_FUNCTIONS}|{symbolic.GREEK})(?![a-zA-Z])|"
    r"\\mathbb ?\{ ?[RNZQC] ?\})*"
)
# for exact arithmetic too large: powers of 99999 and more, towers of numbers, factorials of 99999 and more
_HUGE = re.compile(r"\^ ?-?\{?[^{}]*\d{5}|\d{5,}[\s)}]*!|!\s*!|\^ ?\{?[\d(]+ ?\^|\^ ?\{[^{}a-z]*\^|\^ ?\{?\d+ ?!")


# names that math-verify cannot read or takes for something else: N for n, gamma for a function, E_1, accents, primes, f(t), dx/dt
_LETTER = rf"(?:\\(?:hbar|ell|Gamma|Delta|Theta|Lambda|Xi|Sigma|Phi|Psi|Omega|{symbolic.GREEK})(?![a-zA-Z])|[a-zA-Z])"
_ACCENT = r"\\(?:dot|ddot|hat|bar|tilde|vec)(?![a-zA-Z])"
_OPAQUE = re.compile(
    rf"(\\frac ?\{{ ?d ?{_LETTER} ?\}} ?\{{ ?d ?{_LETTER} ?\}}|(?:{_ACCENT} ?(?:\{{ ?{_LETTER} ?\}}|{_LETTER})|{_LETTER}) ?"
    rf"(?:_ ?(?:\w|\\[a-z]+|\{{(?:[^{{}}]|\{{[^{{}}]*\}})*\}}))?'*)(\((?:[a-zA-Z]|\d+)\))?|\\mathbb ?\{{ ?[A-Z] ?\}}|\\[a-zA-Z]+"
)
_INDEX_LAST = re.compile(r"(\^ ?(?:\w|\{[^{}]*\})) ?(_ ?(?:\w|\{[^{}]*\}))")
_ARGUMENT = rf"[\da-zA-Z]|\\(?:pi|{symbolic.GREEK})(?![a-zA-Z])|\{{[^{{}}]*\}}"  # of a fraction, with or without braces


def _letters(answer: str, gold: str) -> tuple[str, str]:
    """Both formulas with an unused letter in the place of each name that is more than a small letter; none of those that
    `symbolic` takes for whole numbers, nor d, which math-verify may take for a differential.
    """
    texts = [_INDEX_LAST.sub(r"\2\1", _PLAIN.sub(r"\\\1", text)) for text in (answer, gold)]
    if any(re.search(_ACCENT, text) and r"\times" in text for text in texts):
        return answer, gold  # of vectors this may be no product of numbers
    used = set(re.sub(r"\\[a-zA-Z]+", "", answer + gold).lower())
    unused = iter([letter for letter in "abcorstuvwxyz" if letter not in used])
    values = set.intersection(*({_name(found[0]) for found in _OPAQUE.finditer(text) if found[2]} for text in texts))
    taken: dict[str, str] = {}

    def letter(found: re.Match) -> str:
        name, rest = _name(found[1] or ""), found[2] or ""
        if _name(found[0]) in values and name not in ("e", "i"):  # else f(2) may be 2f
            name, rest = _name(found[0]), ""
        elif re.fullmatch(rf"[a-z]?|\\(?:{symbolic.GREEK})", name) and name != r"\gamma":  # to math-verify a function
            return found[0]
        if name not in taken:
            taken[name] = next(unused, "")
        return f"{{{taken[name]}}}{rest}" if taken[name] else found[0]

    return tuple(_OPAQUE.sub(letter, text) for text in texts)


def _name(text: str) -> str:
    """A name in one notation: without fonts and blanks."""
    return _squash(re.sub(r"\\text ?\{ ?(\w+) ?\}", r"\1", text)).replace(" ", "")


def _formula(text: str) -> str | None:
    """Cleaned LaTeX as math-verify reads it right; None: not a formula, or one too large to compute."""
    text = _PLAIN.sub(r"\\\1", text.replace("**", "^"))
    text = re.sub(r"(\d+(?:\.\d+)?) ?\^ ?\{? ?\\circ ?\}?", r"(\1\\cdot \\pi/180)", text)
    text = re.sub(r"\\frac ?(\d) ?(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(
        rf"\\frac ?({_ARGUMENT}) ?({_ARGUMENT})",
        lambda m: rf"\frac{_group(m[1])}{_group(m[2])}",
        text,
    )
    text = re.sub(r"_ ?(\w)", r"_{\1}", text)
    text = re.sub(r"\\sqrt ?(\w|\\pi)", r"\\sqrt{\1}", text)
    text = re.sub(r"\\sqrt ?\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(r"(\d|\\pi) ?\(", r"\1\\cdot (", text)  # 3(4) is 7 to math-verify
    letters = re.sub(r"\\[a-zA-Z]+", lambda command: "\\" * len(command[0]), text)
    odd = re.search(r"\d \d|\d,\d{3}|\d ?_|[a-zA-Z]{4}", letters) or not _nested_well(text)
    return text if _FORMULA.fullmatch(text) and not odd and not _HUGE.search(text) else None


def _nested_well(text: str) -> bool:
    """Whether braces pair up, for math-verify takes what comes before a surplus one, and no brackets are very deep."""
    tokens = _TOKEN.findall(text)
    braces = list(accumulate((token == "{") - (token == "}") for token in tokens)) or [0]
    depths = accumulate((token in _CLOSING) - (token in _CLOSING.values()) for token in tokens)
    return min(braces) >= 0 and braces[-1] == 0 and max(depths, default=0) <= 20


def _group(text: str) -> str:
    return text if text.startswith("{") else f"{{{text}}}"


# --------------------------------------------------------------------------------------------------------------- reward
def accuracy_reward(
    completions: list, answer: list[str | int | float], log_metric: Callable[[str, float], None] | None = None, **kwargs
) -> list[float]:
    """1.0 for each completion whose final answer is right, else 0.0, as TRL calls reward functions.

    Args:
        completions: new segments only, as text or as conversations of one assistant message; a draft is never part of
            them.
        answer: the gold answers, row by row; numbers stand for their text.
        log_metric: TRL's; it is given ``answered``, the share of completions in which an answer was found.

    Returns:
        A reward for each completion; 0.0 for one without text.

    Raises:
        TypeError: a gold answer is neither text nor a number.
    """
    if odd := [gold for gold in answer if not isinstance(gold, str | int | float)]:
        raise TypeError(f"a gold answer is {odd[0]!r}; the column `answer` must hold text or numbers alone")
    texts = [completion if isinstance(completion, str) else completion[-1]["content"] for completion in completions]
    found = [extract_answer(text) if isinstance(text, str) else None for text in texts]
    if log_metric is not None and found:
        log_metric("answered", sum(one is not None for one in found) / len(found))
    return [float(same_answer(one, str(gold))) for one, gold in zip(found, answer, strict=True)]


# ------------------------------------------------------------------------------------------------------------ agreement
def agreement(rows: list[dict]) -> str:
    """A report on labelled completions: agreement, overall and per benchmark, every disagreement, and the speed.

    Args:
        rows: ``gold, completion, label`` and, if known, ``benchmark``.
    """
    start = time.perf_counter()
    verdicts = [same_answer(extract_answer(row["completion"]), row["gold"]) for row in rows]
    seconds = time.perf_counter() - start
    lines, right = [], Counter()
    for number, (row, verdict) in enumerate(zip(rows, verdicts, strict=True)):
        right[row.get("benchmark", "all")] += verdict == bool(row["label"])
        if verdict != bool(row["label"]):
            kind, box = "FP" if verdict else "FN", "box" if _BOX.search(row["completion"]) else "no box"
            answer = extract_answer(row["completion"])
            lines.append(f"{kind} row {number} ({row.get('benchmark', 'all')}, {box}): {answer!r} to {row['gold']!r}")
    total = Counter(row.get("benchmark", "all") for row in rows)
    lines += [f"{name}: {right[name]} of {n} agree ({right[name] / n:.2%})" for name, n in sorted(total.items())]
    lines.append(f"overall: {right.total()} of {len(rows)} agree ({right.total() / max(1, len(rows)):.3%})")
    lines.append(f"{len(rows) / seconds:.0f} completions a second; without a verdict: {dict(failures) or 0}")
    return "\n".join(lines)


def main(path: str) -> None:
    with gzip.open(path, "rt") if path.endswith(".gz") else open(path) as file:
        print(agreement([json.loads(line) for line in file]))


if __name__ == "__main__":
    main(sys.argv[1])
