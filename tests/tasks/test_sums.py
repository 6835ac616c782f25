"""The sums for a small language model: right, different, and in one split however they are told."""

import random
import re

import pytest

from mgrpo_lib.experiment.settings import load_config
from mgrpo_lib.tasks import data, datacard, sums
from mgrpo_lib.verifier.reward import extract_answer, same_answer

CFG = load_config("smollm2", arm="base")


@pytest.mark.parametrize("name", list(sums.SETS))
@pytest.mark.parametrize("split", sums.SPLITS)
def test_answers_are_right_and_solutions_end_with_them(name, split):
    rows = sums.problems(name, split, 200)
    assert len({sums.bare(row["question"]) for row in rows}) == 200
    for row in rows:
        assert eval(sums.bare(row["question"])) == int(row["answer"]) >= 0
        *lines, last = row["solution"].split("\n")
        assert len(lines) == len(re.findall("[+-]", sums.bare(row["question"])))
        assert all(eval(line.replace("=", "==")) for line in lines)
        assert same_answer(extract_answer(last), row["answer"])
    assert rows == sums.problems(name, split, 200), "the same whenever it is asked for"
    assert sums.problems(name, split, 20, seed=1) != rows[:20]


def test_no_expression_stands_in_two_splits_however_it_is_told():
    kinds = {
        split: {sums.bare(row["question"]) for name in sums.SETS for row in sums.problems(name, split, 300)}
        for split in sums.SPLITS
    }
    assert not kinds["train"] & kinds["test"] and not kinds["train"] & kinds["validation"]
    assert not kinds["validation"] & kinds["test"]


def test_the_profile_trains_on_none_of_its_test_questions():
    train = data.training_problems(CFG)
    assert len(train) == CFG.train_problems
    for rows in [data.validation_problems(CFG), *(data.test_problems(CFG, name) for name in CFG.benchmarks)]:
        assert datacard.overlap(train, rows) == []
    told = [{**train[0], "question": sums.story(sums.bare(train[0]["question"]), random.Random(0))}]
    assert datacard.overlap(train, told) != [], "the same sum as a story is the same question"


def test_what_does_not_exist_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="unknown set of sums 'sum'"):
        sums.problems("sum", "test", 1)
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        sums.problems("sums", "dev", 1)
    monkeypatch.setattr(sums, "expression", lambda rng, operands: f"{rng.randint(1, 9)}+1")
    with pytest.raises(ValueError, match="only [1-9] different problems in its train split, not 20"):
        sums.problems("sums", "train", 20)
