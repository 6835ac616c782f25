"""The generated sets: right answers, disjoint splits, determinism."""

import random
import re

import pytest

from mgrpo_lib.method.prompts import PHRASES
from mgrpo_lib.tasks import miniature, sums
from mgrpo_lib.tasks.generated import SPLITS
from mgrpo_lib.tasks.schema import SCHEMA
from mgrpo_lib.verifier.reward import extract_answer, same_answer

ALL = [(module, name) for module in (miniature, sums) for name in module.SETS]
CHAINS = ("chains", "chains_long", "chains_times", "chains_words")


@pytest.mark.parametrize(("module", "name"), ALL)
def test_sets_are_deterministic_distinct_and_in_the_schema(module, name):
    rows = module.problems(name, "test", 100)
    assert rows == module.problems(name, "test", 100) and rows[:50] == module.problems(name, "test", 50)
    assert rows != module.problems(name, "test", 100, seed=1)
    assert len({module.bare(row["question"]) for row in rows}) == 100
    assert all(tuple(row)[:4] == SCHEMA and all(isinstance(value, str) for value in row.values()) for row in rows)


@pytest.mark.parametrize("module", [miniature, sums])
def test_no_problem_is_in_two_splits_in_whatever_form(module):
    kinds = [
        {module.bare(row["question"]) for name in module.SETS for row in module.problems(name, split, 100)}
        for split in SPLITS
    ]
    assert len(set.union(*kinds)) == sum(map(len, kinds))


@pytest.mark.parametrize("name", CHAINS)
def test_answers_of_chains_are_what_a_calculator_says(name):
    for row in miniature.problems(name, "test", 50):
        chain = miniature.bare(row["question"])
        value = int(chain[0])
        for operator, operand in re.findall(r"([+*-])(\d)", chain[1:]):
            value = eval(f"{value}{operator}{operand}") % 10  # generated text of our own
        assert str(value) == row["answer"]


def test_a_blank_has_exactly_one_answer():
    for row in miniature.problems("blanks", "test", 100):
        chain, target = miniature.bare(row["question"]).split("=")
        fitting = [digit for digit in "0123456789" if miniature.worked(chain.replace("?", digit))[1] == int(target)]
        assert fitting == [row["answer"]]


def test_solutions_end_in_their_answer_and_a_fix_is_right():
    rng = random.Random(1)
    for _ in range(300):
        chain, target, answer = miniature.random_blank(rng, (3, 4))
        for draft in range(10):
            fixed = miniature.blank_solution(chain, target, answer, draft=draft)
            guess, sign, missing, result = re.match(r"<think>\?=(\d)([+-])(\d)=(\d)", fixed).groups()
            assert int(guess) == draft and miniature.apply(draft, sign, int(missing)) == int(result) == answer
            assert extract_answer(fixed) == str(answer)
            assert fixed.split("</think>")[0].endswith("=0"), "a right guess leaves nothing missing"
    chain = "7*8-3"
    assert extract_answer(miniature.chain_solution(chain)) == "3"
    both = {extract_answer(miniature.chain_solution(chain, random.Random(i))) for i in range(20)}
    assert both == {"3", "2"}, "with and without the misconception"


@pytest.mark.parametrize("name", sums.SETS)
def test_sums_are_right_and_their_solutions_too(name):
    for row in sums.problems(name, "train", 200):
        assert eval(sums.bare(row["question"])) == int(row["answer"]) >= 0
        *lines, last = row["solution"].split("\n")
        assert len(lines) == len(re.findall("[+-]", sums.bare(row["question"])))
        assert all(eval(line.replace("=", "==")) for line in lines)
        assert same_answer(extract_answer(last), row["answer"])


def test_base_text_covers_what_it_says_and_shows_no_held_out_question():
    rng = random.Random(3)
    texts = [miniature.base_text(rng, PHRASES) for _ in range(3000)]
    questions = [re.match(r"<q>(.*?)<a>", prompt)[1] for prompt, _ in texts]
    assert all(prompt.startswith(miniature.prompt(q)) for (prompt, _), q in zip(texts, questions, strict=True))
    assert {miniature.split_of(question) for question in questions} == {"train"}
    second = [prompt for prompt, _ in texts if any(phrase in prompt for phrase in PHRASES)]
    assert len(second) / len(texts) == pytest.approx(miniature.P_SECOND_ATTEMPT, abs=0.03)
    blanks = [completion for (_, completion), q in zip(texts, questions, strict=True) if "?" in q]
    assert len(blanks) / len(texts) == pytest.approx(0.4, abs=0.03)
    fixes = [completion for completion in blanks if re.match(r"<think>\?=\d[+-]", completion)]
    assert fixes and all(completion.split("</think>")[0].endswith("=0") for completion in fixes)


@pytest.mark.parametrize(
    ("module", "name", "split", "message"),
    [
        (miniature, "chain", "test", "'chain'.*'chains'"),
        (miniature, "chains", "dev", "'dev'.*validation"),
        (sums, "sum", "test", "'sum'.*'sums'"),
        (sums, "sums", "dev", "'dev'.*validation"),
    ],
)
def test_unknown_names_are_refused(module, name, split, message):
    with pytest.raises(ValueError, match=message):
        module.problems(name, split, 1)


def test_more_problems_than_there_are_is_refused(monkeypatch):
    monkeypatch.setattr(sums, "expression", lambda rng, operands: f"{rng.randint(1, 9)}+1")
    with pytest.raises(ValueError, match="'sums' has only [1-9] .*'train', not 20"):
        sums.problems("sums", "train", 20)
