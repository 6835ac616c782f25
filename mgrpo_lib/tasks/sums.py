"""Sums and differences in plain English, for a small pretrained language model that half knows them.

Training questions have two numbers (``What is 47 + 38?``). One test set has three, another tells the same as a story.
Solutions go step by step, so a second attempt is no easier than the first: a correction can keep a right answer, or fix a
slip. The paper has no such task. Everything is deterministic given the seed. In this module an expression is a plain string
such as ``47+38-29``.
"""

import random
import re

from mgrpo_lib.tasks.generated import draw_different, split_by_hash

# name: (number of operands, told as a story)
SETS = {
    "sums": ((2, 2), False),  # in distribution; also the source of the training and validation sets
    "sums_long": ((3, 3), False),  # longer than any training question
    "sums_story": ((2, 2), True),  # another surface form, never seen in training
}
TRAINING = "sums"
BENCHMARKS = list(SETS)
LARGEST = 99  # operand
NAMES = ["Ada", "Ben", "Cem", "Dana", "Eli", "Fay", "Gus", "Hana"]
THINGS = ["apples", "books", "cards", "coins", "marbles", "pens", "shells", "stamps"]
GAINS, LOSSES = ["buys", "finds", "gets"], ["sells", "loses", "gives away"]


def expression(rng: random.Random, operands: tuple[int, int]) -> str:
    """Draw an expression whose partial results are not negative."""
    value = rng.randint(1, LARGEST)
    text = str(value)
    for _ in range(rng.randint(*operands) - 1):
        operator = rng.choice("+-") if value > 0 else "+"
        number = rng.randint(1, min(LARGEST, value) if operator == "-" else LARGEST)
        value += number if operator == "+" else -number
        text += f"{operator}{number}"
    return text


def steps(text: str) -> tuple[int, list[tuple[str, int]]]:
    """Return the first operand, and the operator and operand of each step.

    >>> steps("47+38-29")
    (47, [('+', 38), ('-', 29)])
    """
    first, *rest = re.findall(r"[+-]?\d+", text)
    return int(first), [(part[0], int(part[1:])) for part in rest]


def worked(text: str) -> tuple[str, int]:
    """Work out an expression step by step, as a completion and its value.

    >>> worked("47+38-29")
    ('47 + 38 = 85\\n85 - 29 = 56\\n\\\\boxed{56}', 56)
    """
    value, rest = steps(text)
    lines = []
    for operator, number in rest:
        before, value = value, value + number if operator == "+" else value - number
        lines.append(f"{before} {operator} {number} = {value}")
    return "\n".join([*lines, f"\\boxed{{{value}}}"]), value


def plain(text: str) -> str:
    """Write ``47+38`` as a question."""
    return "What is " + re.sub("([+-])", r" \1 ", text) + "?"


def story(text: str, rng: random.Random) -> str:
    """Write the same question about things that somebody gains and loses."""
    first, rest = steps(text)
    name, things = rng.choice(NAMES), rng.choice(THINGS)
    told = [f"{name} has {first} {things}."]
    for operator, number in rest:
        told.append(f"{name} {rng.choice(GAINS if operator == '+' else LOSSES)} {number} {things}.")
    return " ".join([*told, f"How many {things} does {name} have now?"])


def bare(question: str) -> str:
    """Return the expression in a question, plain or a story; two questions are the same if this is.

    >>> bare("Ada has 47 pens. Ada gives away 9 pens. How many pens does Ada have now?")
    '47-9'
    """
    signs = dict.fromkeys(GAINS, "+") | {word.split()[0]: "-" for word in LOSSES}
    parts = re.findall(rf"\d+|[+-]|\b(?:{'|'.join(signs)})\b", question)
    return "".join(signs.get(part, part) for part in parts)


def split_of(text: str) -> str:
    """Return the split of an expression; the same terms in another order are in the same split."""
    value, rest = steps(f"+{text}")
    return split_by_hash("".join(f"{sign}{number}" for sign, number in sorted([("+", value), *rest])))


def problems(name: str, split: str, n: int, seed: int = 0) -> list[dict]:
    """Draw `n` different problems of a set (a key of `SETS`), each with a worked solution; no expression is in two splits.

    Raises:
        ValueError: unknown set or split, or fewer than `n` different problems.
    """
    operands, told = SETS.get(name, (None, False))

    def write(text: str, rng: random.Random) -> dict[str, str]:
        solution, value = worked(text)
        return {"question": story(text, rng) if told else plain(text), "answer": str(value), "solution": solution}

    return draw_different(
        "sums",
        SETS,
        name,
        split,
        n,
        seed,
        draw=lambda rng, _: expression(rng, operands),
        split_of=split_of,
        write=write,
    )
