"""The miniature's problems: clock arithmetic with ten hours, where every result keeps its last digit only.

- **Chains**, a start and labelled steps: ``7 a+8 b*3 c-5``. The solution is one equation a step, ``a7+8=5b5*3=5c5-5=0``.
  The base model mostly reads ``a*b`` as ``a+b``, its *misconception*: greedy decoding is wrong, sampling sometimes right.
  A second attempt is no easier than the first.
- **Blanks**, chains with a missing digit and a target: ``7 a+? b-3 c+8 =4``. The solution is a guess and its check. Finding
  the digit at once is too hard for so small a model. Checking a guess is a chain, and fixing it takes one step more. The base
  model can fix its guess but mostly repeats it, so a second attempt can gain.

The paper has no such task. The numbers say nothing about a 7B model. Everything is deterministic given the seed. In this
module a chain is a plain string such as ``7+8*3-5``; `labelled` and `in_words` write it as a question.
"""

import random
import re
from pathlib import Path

from mgrpo_lib.tasks.generated import draw_different, split_by_hash

LABELS = "abcde"
OPERATORS = "+-*"
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
WORDS = {str(i): word for i, word in enumerate(NUMBERS)} | {"+": "plus", "-": "minus", "*": "times"}
# Shares in the text that the base model learns from
P_MISCONCEPTION = 0.55  # steps `*` read as `+`: above 1/2, so that greedy decoding is wrong
P_GUESS = 0.3  # first attempts at blanks that are right; the others guess, and check honestly
P_FIX = 0.4  # wrong guesses that a second attempt fixes: below 1/2, so that greedy decoding repeats them
P_SECOND_ATTEMPT = 0.4  # texts with a draft and a second attempt

# name: (family, number of operands, operators, written in words)
SETS = {
    "train": None,  # two thirds chains, one third blanks, as the next two; also the source of the validation set
    "chains": ("chain", (3, 5), OPERATORS, False),  # in distribution
    "blanks": ("blank", (3, 4), "+-", False),  # in distribution; checking is easier than solving
    "chains_long": ("chain", (6, 6), OPERATORS, False),  # longer than any problem of reinforcement learning
    "chains_times": ("chain", (3, 5), "**-", False),  # two thirds of the operators are the misread one
    "chains_words": ("chain", (3, 5), OPERATORS, True),  # another surface form, never seen in reinforcement learning
}
SHIPPED = Path(__file__).with_name("miniature_base")  # the base model; made by tools/base_model.py
TRAINING = "train"
BENCHMARKS = [name for name in SETS if name != TRAINING]


# ------------------------------------------------------------------------------------------- chains and blanks
def apply(a: int, operator: str, b: int, misconception: bool = False) -> int:
    """Compute one step in clock arithmetic; the misconception reads ``*`` as ``+``."""
    if operator == "*" and not misconception:
        return a * b % 10
    return (a - b if operator == "-" else a + b) % 10


def worked(chain: str, rng: random.Random | None = None) -> tuple[str, int]:
    """Work out a chain step by step; with `rng`, each ``*`` may follow the misconception.

    >>> worked("7+8*3")
    ('a7+8=5b5*3=5', 5)
    """
    value, text = int(chain[0]), ""
    for label, operator, operand in zip(LABELS, chain[1::2], map(int, chain[2::2]), strict=False):
        slip = rng is not None and rng.random() < P_MISCONCEPTION
        before, value = value, apply(value, operator, operand, slip)
        text += f"{label}{before}{operator}{operand}={value}"
    return text, value


def random_chain(rng: random.Random, operands: tuple[int, int], operators: str) -> str:
    """Draw a chain with so many operands, least and most."""
    count = rng.randint(*operands)
    return str(rng.randrange(10)) + "".join(rng.choice(operators) + str(rng.randrange(10)) for _ in range(count - 1))


def random_blank(rng: random.Random, operands: tuple[int, int], operators: str = "+-") -> tuple[str, int, int]:
    """Draw a chain with ``?`` for a digit, the value of the whole chain, and the only digit that fits."""
    chain = random_chain(rng, operands, operators)
    position = rng.randrange(0, len(chain), 2)
    return f"{chain[:position]}?{chain[position + 1 :]}", worked(chain)[1], int(chain[position])


# ------------------------------------------------------------------------------------------- questions and completions
def labelled(chain: str) -> str:
    """Write ``7+8*3`` as ``7 a+8 b*3``."""
    steps = (label + chain[2 * i + 1 : 2 * i + 3] for i, label in enumerate(LABELS[: len(chain) // 2]))
    return " ".join([chain[0], *steps])


def in_words(question: str) -> str:
    """Write ``7 a+8`` as ``seven a plus eight``."""
    return " ".join(WORDS.get(character, character) for character in question if character != " ")


def bare(question: str) -> str:
    """Strip a question of labels, spaces and words; two questions are the same if this is.

    >>> bare("seven a plus eight"), bare("7 a+8")
    ('7+8', '7+8')
    """
    digits = {word: character for character, word in WORDS.items()}
    return "".join(digits.get(token, token) for token in re.findall(r"[a-z]{2,}|[0-9+*=?-]", question))


def unreadable(question: str) -> str | None:
    """Return the first word or sign of a question that the miniature has no token for.

    >>> unreadable("7 a+8 b*3"), unreadable("What is 7 + 8?")
    (None, 'What')
    """
    known = {*"0123456789+-*=?", *LABELS, *WORDS.values()}
    return next((one for one in re.findall(r"[^\W\d_]+|\S", question) if one not in known), None)


def prompt(question: str) -> str:
    """Write a question as the base model reads it."""
    return f"<q>{question}<a>"


def chain_solution(chain: str, rng: random.Random | None = None) -> str:
    """Write a completion for a chain; with `rng`, it may follow the misconception."""
    work, value = worked(chain, rng)
    return f"<think>{work}</think>\\boxed{{{value}}}"


def blank_solution(chain: str, target: int, guess: int, draft: int | None = None) -> str:
    """Write a completion for a blank: a guess, its check, and the difference to the target (0 if the guess is right).

    Args:
        chain: with ``?`` for the missing digit.
        target: the value that the chain should have.
        guess: the digit to try.
        draft: an earlier guess. The new one is then derived from it, ``?=6+4=0``: the draft, plus or minus the difference.
    """
    work, value = worked(chain.replace("?", str(guess)))
    derived = ""
    if draft is not None:
        missing = apply(target, "-", worked(chain.replace("?", str(draft)))[1])
        derived = f"{draft}{'-' if '-?' in chain else '+'}{missing}="
    return f"<think>?={derived}{guess}{work};{target}-{value}={apply(target, '-', value)}</think>\\boxed{{{guess}}}"


# ------------------------------------------------------------------------------------------- sets
def split_of(question: str) -> str:
    """Return the split of a question, in whatever set and surface form."""
    return split_by_hash(bare(question))


def random_problem(
    rng: random.Random, family: str, operands: tuple[int, int], operators: str, words: bool
) -> tuple[str, str]:
    """Draw a question and its answer."""
    if family == "blank":
        chain, target, answer = random_blank(rng, operands, operators)
        question = f"{labelled(chain)} ={target}"
    else:
        chain = random_chain(rng, operands, operators)
        question, answer = labelled(chain), worked(chain)[1]
    return in_words(question) if words else question, str(answer)


def problems(name: str, split: str, n: int, seed: int = 0) -> list[dict]:
    """Draw `n` different problems of a set (a key of `SETS`); no problem is in two splits.

    Raises:
        ValueError: unknown set or split, or fewer than `n` different problems.
    """
    kinds = [SETS["chains"], SETS["chains"], SETS["blanks"]] if name == TRAINING else [SETS.get(name)]
    return draw_different(
        "miniature",
        SETS,
        name,
        split,
        n,
        seed,
        draw=lambda rng, found: random_problem(rng, *kinds[found % len(kinds)]),
        split_of=lambda drawn: split_of(drawn[0]),
        write=lambda drawn, _: {"question": drawn[0], "answer": drawn[1]},
    )


def base_text(
    rng: random.Random,
    phrases: list[str],
    longest: int = 6,
    fix_rate: float = P_FIX,
    break_rate: float = 0.0,
    reguess_rate: float = 0.0,
) -> tuple[str, str]:
    """Draw a text that the base model is trained on, as (prompt, completion): a first or a second attempt.

    60% are chains of 2 to `longest` operands, one in five of them in words. 40% are blanks of at most 4. All are of the
    training split. A second attempt at a chain starts over with the same misconception. One at a blank fixes a wrong guess with
    probability `fix_rate`, and else puts another digit for it, whichever, with `reguess_rate`. For a right guess it puts another
    with `break_rate`. Below four operands there are only first attempts, below three only chains.
    """
    second = longest >= 4 and rng.random() < P_SECOND_ATTEMPT
    blank = longest >= 3 and rng.random() < 0.4
    while True:
        if blank:
            chain, target, answer = random_blank(rng, (3, min(4, longest)))
            question = f"{labelled(chain)} ={target}"
        else:
            chain = random_chain(rng, (2, longest), OPERATORS)
            question = labelled(chain)
        if split_of(question) == "train":
            break
    if blank:
        guess = answer if rng.random() < P_GUESS else rng.randrange(10)
        draft = solution = blank_solution(chain, target, guess)
        again = break_rate if guess == answer else reguess_rate
        if second and guess != answer and rng.random() < fix_rate:
            solution = blank_solution(chain, target, answer, draft=guess)
        elif second and again and rng.random() < again:
            solution = blank_solution(chain, target, rng.choice([digit for digit in range(10) if digit != guess]))
    else:
        draft, solution = chain_solution(chain, rng), chain_solution(chain, rng)
        question = in_words(question) if rng.random() < 0.2 else question
    text = prompt(question)
    return (text + draft + rng.choice(phrases) if second else text), solution
