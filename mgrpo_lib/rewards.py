"""Answer extraction, comparison and the reward: 1 for a right final answer, 0 otherwise.

The paper's reward is a rule-based verifier's outcome, "1 for correct, 0 for incorrect" (second-hand); a format reward
is not mentioned, and none is given here. Completions are untrusted text: nothing here evaluates them, and every step is
linear in their length.
"""

import re
from decimal import Decimal, InvalidOperation

LONGEST_ANSWER = 200  # characters; a longer "answer" is no final answer
_MARKERS = (
    re.compile(r"<answer>([^<]*)</answer>"),
    re.compile(r"####([^\n]*)"),
    re.compile(r"answer is:?([^\n]*?)\.?(?=\n|$)", re.IGNORECASE),
)


def extract_answer(completion: str) -> str | None:
    """The final answer a completion names: its last ``\\boxed{...}``, else its last ``<answer>``, ``####`` or "the
    answer is"; None without one.

    >>> extract_answer(r"so x = \\boxed{\\frac{1}{2}}")
    '\\\\frac{1}{2}'
    """
    start = completion.rfind("\\boxed{")
    if start >= 0:
        depth = 0
        for i in range(start + len("\\boxed"), min(len(completion), start + LONGEST_ANSWER)):
            depth += (completion[i] == "{") - (completion[i] == "}")
            if depth == 0:
                return completion[start + len("\\boxed{") : i].strip()
        return None  # cut off inside the box
    for marker in _MARKERS:
        found = marker.findall(completion)
        if found:
            return found[-1].strip() if len(found[-1]) <= LONGEST_ANSWER else None
    return None


def same_answer(answer: str | None, gold: str) -> bool:
    """Whether an extracted answer equals the gold one: as text without ``$`` and blanks, or as plain decimal numbers
    (``1,000`` is ``1000.0``).

    Other equivalent notations, such as ``1/2`` and ``0.5``, count as different.
    """
    if answer is None:
        return False
    answer, gold = _plain(answer), _plain(gold)
    if answer == gold:
        return answer != ""
    a, b = _number(answer), _number(gold)
    return a is not None and a == b


def _plain(text: str) -> str:
    return re.sub(r"[\s$]", "", text)


def _number(text: str) -> Decimal | None:
    if not re.fullmatch(r"[+-]?(\d+|\d{1,3}(,\d{3})+)(\.\d+)?", text, re.ASCII):
        return None
    try:
        return Decimal(text.replace(",", ""))
    except InvalidOperation:
        return None


def accuracy_reward(completions: list, answer: list[str], **kwargs) -> list[float]:
    """1.0 for each completion whose final answer is right, else 0.0, as TRL calls reward functions.

    Args:
        completions: new segments only, as text or as conversations of one assistant message; a draft is never part of
            them.
        answer: the gold answers, row by row.

    Returns:
        A reward for each completion.
    """
    texts = [completion if isinstance(completion, str) else completion[-1]["content"] for completion in completions]
    return [float(same_answer(extract_answer(text), gold)) for text, gold in zip(texts, answer, strict=True)]
