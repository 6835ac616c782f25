"""The reward: 1 for a right final answer, 0 otherwise.

The paper's reward is a rule-based verifier's outcome, "1 for correct, 0 for incorrect" (second-hand); it mentions no format
reward, and none is given here. Nothing here evaluates a completion: completions are untrusted text.
"""

import math
import numbers
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable
from functools import lru_cache

from mgrpo_lib.verifier import compare
from mgrpo_lib.verifier.extract import LONGEST_ANSWER, extract_answer

__all__ = ["accuracy_reward", "check_gold", "extract_answer", "failures", "same_answer"]
failures: Counter[str] = Counter()  # comparisons without a verdict, by kind of error; each of them counted as different
_judge = lru_cache(maxsize=65_536)(compare.same)  # what raises is not kept: a time-out is no verdict


def same_answer(answer: str | None, gold: str) -> bool:
    """Return whether an extracted answer equals the gold one. Never raises; without a verdict they are different.

    >>> [same_answer(answer, "1/2") for answer in ("0.5", r"x = \\frac12", "1/3", "0.50001")]
    [True, True, False, False]
    """
    if answer is None or gold.strip().lower() == "nan" or len(answer) > LONGEST_ANSWER or len(gold) > LONGEST_ANSWER:
        return False
    try:
        return _judge(answer, gold)
    except Exception as error:  # whatever goes wrong with untrusted text, but never in silence
        failures[type(error).__name__] += 1
        if failures.total() == 1:
            warnings.warn(
                f"the verifier gave no verdict and counts the answer {answer[:80]!r} to {gold[:80]!r} as wrong: {error!r}. "
                "This is said once; mgrpo_lib.verifier.reward.failures counts them all. A few time-outs on odd answers are "
                "harmless; if they are many, see that math-verify is installed and the machine has memory left",
                stacklevel=2,
            )
        return False


def check_gold(text: str) -> str | None:
    """Return why a gold answer cannot be won and what to do about it; None if it can.

    >>> check_gold("\\frac{1}{2}")
    "holds the control character '\\\\x0c'; in JSON write a backslash twice: \\\\\\\\frac"
    """
    text = text.rstrip().lstrip(" \n")
    odd = next((c for c in text if unicodedata.category(c) in ("Cc", "Cs", "Co", "Cn") and c != "\n"), None)
    if odd or (odd := re.search(r"\n(?=(?:eq?|u|abla|ot|otin|i)(?![a-z]))", text)):  # \neq and its like
        return f"holds the control character {odd if isinstance(odd, str) else odd[0]!r}; in JSON write a backslash twice: \\\\frac"
    if odd := next((c for c in text if unicodedata.category(c) == "Cf" or (c.isdecimal() and not c.isascii())), None):
        return (
            f"holds {odd!r} ({unicodedata.name(odd, 'unnamed')}), which no answer has; remove it or write it in ASCII"
        )
    if re.fullmatch(r"\[\s*['\"].*['\"]\s*\]", text):
        return "is a Python list; give its one value"
    if "####" in text:
        return "is a solution; give what stands after its ####"
    if not text:
        return "is empty"
    if len(text) > LONGEST_ANSWER:
        return f"has {len(text)} characters, over {LONGEST_ANSWER}; give the final answer alone"
    if not same_answer(extract_answer(rf"\boxed{{{text}}}"), text):
        return "does not equal itself; give one value, formula or word with brackets that pair up"
    return None


def gold_text(gold: str | float) -> str:
    """Return a gold answer as text.

    Raises:
        TypeError: it is neither text nor a finite number, or the text of a missing one.
    """
    if isinstance(gold, str) and gold.strip().lower() != "nan":
        return gold
    if isinstance(gold, numbers.Real) and not isinstance(gold, bool) and math.isfinite(gold):
        return str(gold)
    raise TypeError(
        f"a gold answer is {gold!r}; the column `answer` must hold text or finite numbers: fill or drop such rows"
    )


def accuracy_reward(
    completions: list, answer: list[str | int | float], log_metric: Callable[[str, float], None] | None = None, **kwargs
) -> list[float]:
    """Return 1.0 for each completion whose final answer is right, else 0.0, as TRL calls reward functions.

    Args:
        completions: new segments only, as text or as conversations of one assistant message; a draft is no part of them.
        answer: the gold answers, row by row; numbers stand for their text.
        log_metric: TRL's; it is given ``answered``, the share of completions in which an answer was found.

    Raises:
        TypeError: a gold answer is neither text nor a finite number.
    """
    golds = [gold_text(gold) for gold in answer]
    texts = [completion if isinstance(completion, str) else completion[-1]["content"] for completion in completions]
    found = [extract_answer(text) if isinstance(text, str) else None for text in texts]
    if log_metric is not None and found:
        log_metric("answered", sum(one is not None for one in found) / len(found))
    return [float(same_answer(one, gold)) for one, gold in zip(found, golds, strict=True)]
