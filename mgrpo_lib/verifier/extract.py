"""Where the answer of a completion stands. Completions are untrusted text; every step is linear in their length."""

import re

from mgrpo_lib.verifier.normalise import BRACES, group_end

LONGEST_ANSWER = 500  # characters; a longer "answer" is no final answer
_BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])")
_NAMED = r"(?:([a-zA-Z](?:_\w)?)\s*=\s*)?"
_BETWEEN_BOXES = re.compile(rf"[\s$]*(?:,|;|and|or|,\s*and|,\s*or)[\s$]*{_NAMED}")
_BEFORE_BOX = re.compile(rf"(?<![\w\\]){_NAMED}\Z")
# in a sentence, or as a heading of what is no sentence
_CUE = re.compile(
    r"(?:answer|(?:correct|right) (?:option|choice))\**(?:\s+is|\s*[:=])|^[#* ]*(?:final )?answer[* ]*\n+(?=[-*\\$\d(]|[A-Z]\W*$)",
    re.IGNORECASE | re.MULTILINE,
)
# GSM8K's mark, in a line of its own or at the end of one; a number after it says that it heads a step
_HASHES = re.compile(r"####[ \t]*(\$?-?\d[\d,]*(?:\.\d+)?(?:/\d+)?%?)[ \t]*(?:<\|\w+\|>)?$\D*\Z", re.MULTILINE)
_BOLD = re.compile(r"\*\*([^*\n]+)\*\*")
_SHOWN = re.compile(r"(?:\$\$([^$]+)\$\$|\\\[((?:(?!\\\]).)+)\\\])[ .]*(?:\n|\Z)", re.DOTALL)  # on lines of its own
_MATH = re.compile(r"\$([^$]+)\$|\\\(([^\n]+?)\\\)|\\\[([^\n]+?)\\\]")
# a dollar sign before an amount that ends there, in prose; else it opens a formula
_CURRENCY = re.compile(r"\$(?=\d[\d,]*(?:\.\d+)?(?:\s+[a-zA-Z]|[.,;]?(?:\s|$)))")
# where an answer in words begins to be explained
_ASIDE = re.compile(r",?\s(?:because|since)\s|,\s(?:not|rather)\s|\s\((?=[^()\\$]*[a-z]{4}[^()\\$]*\))")
_DENIED = re.compile(r"\?$|\b(?:not|no|cannot|unless|if)\b|n't\b", re.IGNORECASE)
# before an amount: it is not the answer
_CHANGED = re.compile(
    r"\b(?:not|no|between|than|half|third|quarter|twice|thrice|double|least|most|minus|negative|times|below|above)\b",
    re.IGNORECASE,
)
_ADVERB = re.compile(r"^(?:therefore|thus|hence|so|then|simply)\b,? *")
_CALL = re.compile(r"\w\((?:[^()]|\([^()]*\))*\)$")
_AMOUNT = re.compile(r"(?<![\w.,])(?:(?<![\d)] )-\s?)?\d[\d,]*(?:\.\d+)?(?:/\d+)?\s?%?")
_MULTIPLIER = re.compile(r"\s*(hundred|thousand|[mb]illion|trillion|dozen)\b")


def extract_answer(completion: str) -> str | None:
    """Return the final answer that a completion names, or None.

    The last ``\\boxed{...}`` counts alone where there is one; boxes that a comma or "and" joins are one list. Else come
    ``<answer>``, a ``####`` or ``A:`` in the last line, "the answer is" or an amount after ``####``, and the value that the last
    sentence ends with. Nothing before ``</think>`` counts.

    >>> extract_answer(r"so x = \\boxed{\\frac{1}{2}}")
    '\\\\frac{1}{2}'
    >>> extract_answer("Then 3 + 4 = 7. She pays 7 dollars.")
    '7'
    """
    completion = completion.rpartition("</think>")[2]
    if boxes := list(_BOX.finditer(completion)):
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
    """Return what stands in a place made for the answer, also where it says "the answer is" once more."""
    cue = _CUE.search(text)
    return _after_cue(text[cue.end() :]) if cue else _short(text)


def _short(text: str) -> str | None:
    return text.strip() if len(text) <= LONGEST_ANSWER else None


def _boxed(text: str, spans: list[tuple[int, int]]) -> str | None:
    """Return the content of the last box and of those that a comma or an "and" joins to it, with their names."""
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
    """Return a box's group in braces, or without them its word, and where it ends; None: cut off or too long."""
    text = text[: position + LONGEST_ANSWER]
    if bare := re.compile(r"\s*((?:[^\s{}$.,;]|[.,](?=\d))+)").match(text, position):
        return bare[1], bare.end()
    start = len(text) - len(text[position:].lstrip())
    end = group_end(text, start, BRACES)
    return (text[start + 1 : end - 1].strip(), end) if end and text[start] == "{" else None


def _after_cue(text: str) -> str | None:
    """Return what "the answer is" names: formulas, a bold value, an amount, or words."""
    text = _ADVERB.sub("", text.lstrip(" *:_\n").replace(r"\$", ""))
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
    amounts = list(_AMOUNT.finditer(sentence))
    if amounts and re.match(r"[a-zA-Z]{3}", sentence) and not _CHANGED.search(sentence[: amounts[-1].start()]):
        return _with_multiplier(sentence, amounts[-1])
    return _short(sentence) or None


def _last_value(completion: str, tail: str) -> str | None:
    """Return the last value of a solution in prose, if it is in one of its last two sentences. What was cut off, denied, asked,
    thought or computed by code concludes nothing.
    """
    if (
        "<think>" in completion
        or _CALL.search(tail)
        or not re.search(r"[a-zA-Z]{3}", tail)
        or not re.search(r"(?:[.!)\]*]|\$\$)$", tail)
    ):
        return None
    for sentence in reversed(re.split(r"(?<=[.!?])\s|\n", tail)[-2:]):
        bold = _BOLD.findall(sentence)
        text = _CURRENCY.sub("", bold[-1] if bold else sentence)
        values = [*_MATH.finditer(text), *_AMOUNT.finditer(_MATH.sub(lambda formula: " " * len(formula[0]), text))]
        if bold and re.fullmatch(r"\(?[A-Z]\)?", text) and not values:
            return None if _DENIED.search(sentence) else text
        if values:
            last = max(values, key=lambda value: value.start())
            if _DENIED.search(sentence):
                return None
            return _short(last[last.lastindex] if last.lastindex else _with_multiplier(text, last))
    return None


def _with_multiplier(text: str, amount: re.Match) -> str:
    """Return an amount with the word that multiplies it: "5 million" is not 5."""
    word = _MULTIPLIER.match(text, amount.end())
    return f"{amount[0].strip()} {word[1]}" if word else amount[0].strip()
