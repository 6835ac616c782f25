"""What two sets share is found; what is left of a training set shares nothing."""

import pytest

from mgrpo_lib.tasks import decontamination
from mgrpo_lib.tasks.benchmarks import SETS, read_benchmark
from tests.tasks.made_up import REAL

LONG = "a farmer sells seven baskets of plums to each of his nine neighbours in"


def rows(*questions):
    return [{"id": str(i), "question": question} for i, question in enumerate(questions)]


def test_rows_that_come_twice_or_share_with_a_test_set_are_dropped():
    train = rows(
        *(f"How much is {i} plus {i}?" for i in range(30)),
        *(f"In May {LONG} {i} days. How many?" for i in range(3)),
        "how much is 3 PLUS 3?",
        "How much is 4 minus 4?",
    )
    test = rows(f"So {LONG} one week. Why?", "How much is 4 plus 4 ?")
    left, dropped = decontamination.clean(train, {"theirs": test})
    assert dropped == {"twice": 1, "theirs": 4}, "three with 13 words in common, and one short question as a whole"
    assert len(left) == 35 - 5 and train[-1] in left, "a short question keeps its signs"
    assert decontamination.contaminated(left, test) == []
    assert decontamination.contaminated(train, test) == ["0", "1"]


def test_an_order_depends_on_questions_and_seed_alone():
    some = rows(*map(str, range(20)))
    assert (
        decontamination.shuffled(some) == decontamination.shuffled(some[::-1]) != decontamination.shuffled(some, seed=1)
    )
    assert sorted(row["id"] for row in decontamination.shuffled(some)) == sorted(row["id"] for row in some)


@pytest.mark.skipif(not REAL.exists(), reason="the real benchmarks are not at hand (../shared/data)")
@pytest.mark.parametrize(
    ("name", "left", "dropped"),
    [
        ("math", 6843, {"twice": 2, "math": 642, "math500": 148, "olympiadbench": 12}),
        ("gsm8k", 7469, {"gsm8k": 4}),
    ],
)
def test_real_training_sets_are_cleaned_of_all_test_sets(name, left, dropped):
    tests = {test: read_benchmark(test, "test", REAL) for test in SETS}
    kept, found = decontamination.clean(read_benchmark(name, "train", REAL), tests)
    assert len(kept) == left and {reason: n for reason, n in found.items() if n} == dropped
    questions = {decontamination.as_one(row["question"]) for row in kept}
    assert all(questions.isdisjoint(decontamination.as_one(r["question"]) for r in test) for test in tests.values())
