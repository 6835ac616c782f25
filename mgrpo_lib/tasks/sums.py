"""Sums and differences in plain English, for a small pretrained language model: a task that it half knows and that needs
no download.

The training questions are of two numbers (``What is 47 + 38?``); a test set has three, another tells the same as a
story. Solutions go one step after the other (`worked`), so a second look is no easier than the first: correction can
protect a right answer, and mend a slip.

The paper has no such task; it is ours. Everything is deterministic given the seed. Inside this module an expression is
a plain string such as ``47+38-29``.
"""

import random
import re
import zlib

# name: (number of operands, told as a story)
SETS = {
    "sums": ((2, 2), False),  # in distribution; also the source of the training and validation sets
    "sums_long": ((3, 3), False),  # longer than any training question
    "sums_story": ((2, 2), True),  # another surface form, never seen in training
}
SPLITS = ("train", "validation", "test")
TRAINING = "sums"
BENCHMARKS = list(SETS)
LARGEST = 99  # operand; no result on the way is negative
NAMES = ["Ada", "Ben", "Cem", "Dana", "Eli", "Fay", "Gus", "Hana"]
THINGS = ["apples", "books", "cards", "coins", "marbles", "pens", "shells", "stamps"]
GAINS, LOSSES = ["buys", "finds", "gets"], ["sells", "loses", "gives away"]


def expression(rng: random.Random, operands: tuple[int, int]) -> str:
    """A random expression whose partial results are not negative."""
    value = rng.randint(1, LARGEST)
    text = str(value)
    for _ in range(rng.randint(*operands) - 1):
        operator = rng.choice("+-") if value > 0 else "+"
        number = rng.randint(1, min(LARGEST, value) if operator == "-" else LARGEST)
        value += number if operator == "+" else -number
        text += f"{operator}{number}"
    return text


def steps(text: str) -> tuple[int, list[tuple[str, int]]]:
    """First operand, and the operator and operand of each step.

    >>> steps("47+38-29")
    (47, [('+', 38), ('-', 29)])
    """
    first, *rest = re.findall(r"[+-]?\d+", text)
    return int(first), [(part[0], int(part[1:])) for part in rest]


def worked(text: str) -> tuple[str, int]:
    """An expression worked out step by step as a completion, and its value.

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
    """``47+38`` as a question."""
    return "What is " + re.sub("([+-])", r" \1 ", text) + "?"


def story(text: str, rng: random.Random) -> str:
    """The same question about things that somebody gains and loses."""
    first, rest = steps(text)
    name, things = rng.choice(NAMES), rng.choice(THINGS)
    told = [f"{name} has {first} {things}."]
    for operator, number in rest:
        told.append(f"{name} {rng.choice(GAINS if operator == '+' else LOSSES)} {number} {things}.")
    return " ".join([*told, f"How many {things} does {name} have now?"])


def bare(question: str) -> str:
    """The expression in a question, plain or a story; two questions are the same if this is.

    >>> bare("Ada has 47 pens. Ada gives away 9 pens. How many pens does Ada have now?")
    '47-9'
    """
    signs = dict.fromkeys(GAINS, "+") | {word.split()[0]: "-" for word in LOSSES}
    parts = re.findall(rf"\d+|[+-]|\b(?:{'|'.join(signs)})\b", question)
    return "".join(signs.get(part, part) for part in parts)


def split_of(text: str) -> str:
    """The split an expression belongs to, by its hash: 70% train, 10% validation, 20% test. What is added in another order is
    the same, so that no test question is a training question turned round.
    """
    value, rest = steps(f"+{text}")
    terms = sorted([("+", value), *rest])
    bucket = zlib.crc32("".join(f"{sign}{number}" for sign, number in terms).encode()) % 10
    return "train" if bucket < 7 else "validation" if bucket == 7 else "test"


def problems(name: str, split: str, n: int, seed: int = 0) -> list[dict]:
    """`n` different problems of a set, as ``question, answer, id, source`` and ``solution``, a worked answer.

    No expression can stand in two splits, plain or as a story: its hash decides.

    Args:
        name: a key of `SETS`.
        split: ``train``, ``validation`` or ``test``.
        n: number of problems.
        seed: of the generator.

    Raises:
        ValueError: unknown set or split, or fewer than `n` different problems.
    """
    if name not in SETS:
        raise ValueError(f"unknown set of sums {name!r}: one of {', '.join(SETS)}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: one of {', '.join(SPLITS)}")
    operands, told = SETS[name]
    rng, found = random.Random(f"{name}/{split}/{seed}"), {}
    for _ in range(1000 * n):
        if len(found) == n:
            break
        text = expression(rng, operands)
        if split_of(text) == split and text not in found:
            found[text] = story(text, rng) if told else plain(text)
    if len(found) < n:
        raise ValueError(
            f"{name!r} has only {len(found)} different problems in its {split} split, not {n}; ask for fewer"
        )
    rows = []
    for i, (text, question) in enumerate(found.items()):
        solution, value = worked(text)
        row = {"question": question, "answer": str(value), "id": f"{name}-{split}-{i}", "source": f"sums/{name}"}
        rows.append({**row, "solution": solution})
    return rows
