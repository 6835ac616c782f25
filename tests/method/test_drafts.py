"""Which drafts are passed on, which corrections are trained on, and what they changed."""

import random

import pytest
import torch
from rapidfuzz.distance import Levenshtein

from mgrpo_lib.method.drafts import FILLER, Layer, changes, choose_drafts, edit_distances, trained_on

QUESTIONS = [0] * 4 + [1] * 4 + [2] * 4


def test_drafts_are_chosen_blind_and_within_their_question():
    rng, seen = random.Random(0), set()
    for _ in range(200):
        rows = choose_drafts(QUESTIONS, [False] * 12, 2, "all", rng)
        assert [QUESTIONS[row] for row in rows] == [0, 0, 1, 1, 2, 2]
        assert len(set(rows)) == 6
        seen |= set(rows)
    assert seen == set(range(12))
    again = [choose_drafts(QUESTIONS, right, 2, "all", random.Random(1)) for right in ([False] * 12, [True] * 12)]
    assert again[0] == again[1], "the choice must not depend on the reward"
    assert choose_drafts(QUESTIONS, [True] * 12, 4, "all", rng) == list(range(12)), "num_generations passes on all"


@pytest.mark.parametrize("select", ["all", "wrong", "mixed"])
def test_every_selection_keeps_its_promise(select):
    rng = random.Random(0)
    for _ in range(300):
        right = [rng.random() < rng.choice([0.0, 0.2, 0.8, 1.0]) for _ in QUESTIONS]
        k = rng.choice([2, 3, 4, 9])
        rows = choose_drafts(QUESTIONS, right, k, select, rng)
        assert rows == sorted(set(rows))
        for question in range(3):
            own = [row for row in rows if QUESTIONS[row] == question]
            there = [row for row in range(12) if QUESTIONS[row] == question]
            wrong = [row for row in there if not right[row]]
            if select == "wrong":
                assert all(not right[row] for row in own) and len(own) == min(k, len(wrong))
                continue
            assert len(own) == min(k, 4)
            if select == "mixed" and k <= 4:
                n_wrong = sum(not right[row] for row in own)
                possible = range(max(0, k - (4 - len(wrong))), min(k, len(wrong)) + 1)
                assert n_wrong == min(possible, key=lambda n: abs(n - k // 2))


@pytest.mark.parametrize("select", ["all", "wrong", "mixed"])
def test_fillers_are_never_passed_on(select):
    assert choose_drafts([0, 0, FILLER, FILLER], [False] * 4, 4, select, random.Random(0)) == [0, 1]


def test_all_or_the_successes_are_kept():
    right = torch.tensor([True, False, True, False])
    assert trained_on(right, "all").tolist() == [True] * 4 and torch.equal(trained_on(right, "successes"), right)


def layer(number, questions, texts, right, parents=()):
    ids = [[ord(character) for character in text] for text in texts]
    return Layer(
        number, [], questions, parents=list(parents), completions=texts, completion_ids=ids, right=torch.tensor(right)
    )


def test_changes_count_each_row_once_and_no_filler():
    drafts = layer(1, [0, 0], ["the answer is 1", "the answer is 2"], [True, False])
    texts = ["the answer is 1", "the answer is 3", "the answer is 1", "the answer is 2", "went wrong", "a filler"]
    corrections = layer(2, [0] * 5 + [FILLER], texts, [True, False, True, False, False, True], [0, 0, 1, 1, 0, 0])
    used = torch.tensor([True, True, False, False, True, False])
    counted = changes(drafts, corrections, used, lambda text: text.split()[-1])
    distance = counted.pop("edit_distance")
    assert counted == {"rows": 5, "fixed": 1, "broken": 2, "kept": 1, "copied": 2, "answer_changed": 3, "used": 3}
    # two copies, two with one character of 15 replaced, and one that goes wrong
    assert distance == pytest.approx(2 / 15 + Levenshtein.normalized_distance(texts[0], texts[4]))
    assert "answer_changed" not in changes(drafts, corrections, used, None)
    nothing = changes(drafts, layer(2, [FILLER], ["a filler"], [False], [0]), torch.tensor([False]), str)
    assert set(nothing.values()) == {0.0}


@pytest.mark.parametrize("seed", range(5))
def test_edit_distances_are_levenshteins(seed):
    rng = random.Random(seed)

    def tokens():
        return [rng.randrange(rng.choice([2, 5, 1000])) for _ in range(rng.choice([0, 1, 2, 7, 30, 90]))]

    left, right = [tokens() for _ in range(60)], [tokens() for _ in range(60)]
    for i in range(0, 60, 3):  # near copies, as corrections are
        right[i] = [one for one in left[i] if rng.random() < 0.9]
    expected = [Levenshtein.normalized_distance(a, b) for a, b in zip(left, right, strict=True)]
    assert edit_distances(left, right).tolist() == expected
    assert edit_distances([[], []], [[], [1, 2]]).tolist() == [0.0, 1.0]
