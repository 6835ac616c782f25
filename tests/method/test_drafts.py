"""Selection, verification and advantages of corrections, as pure functions."""

import random

import pytest
import torch
from rapidfuzz.distance import Levenshtein

from mgrpo_lib.method.drafts import Rollouts, changes, choose_drafts, correction_advantages, kept
from mgrpo_lib.report.statistics import group_advantages

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


def test_fillers_are_never_passed_on():
    assert choose_drafts([0, 0, -1, -1], [False] * 4, None, "all", random.Random(0)) == [0, 1]


def test_successes_alone_have_no_gradient_under_a_group_baseline():
    right = torch.tensor([True, False, True, False])
    assert kept(right, "all").all()
    successes = right[kept(right, "successes")].float()
    assert group_advantages(successes[None].numpy()).tolist() == [[0.0, 0.0]]
    draft_wrong, draft_right = torch.zeros(2), torch.ones(2)
    of = torch.tensor([0, 0])
    assert correction_advantages("difference", successes, draft_wrong, of, 10.0, True).tolist() == [1, 1]
    assert correction_advantages("difference", successes, draft_right, of, 10.0, True).tolist() == [0, 0]


def test_the_progress_bonus_does_nothing_within_one_draft_and_something_within_a_question():
    rewards = torch.tensor([1.0, 0.0, 0.0, 1.0])
    for r1 in (0.0, 1.0):  # one draft: the bonus only scales and shifts
        one = correction_advantages("progress", rewards, torch.full((4,), r1), torch.zeros(4), 10.0, True)
        assert one.tolist() == pytest.approx(group_advantages(rewards[None].numpy())[0].tolist(), abs=1e-3)
    # two drafts of one question: mending (last) is worth more than keeping (first), breaking less than staying wrong
    two = correction_advantages("progress", rewards, torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.zeros(4), 10.0, False)
    assert two.tolist() == pytest.approx([1 - 0.5, -10 - 0.5, 0 - 0.5, 11 - 0.5])


@pytest.mark.parametrize("rule", ["difference", "progress"])
def test_fillers_have_no_advantage_and_do_not_touch_the_others(rule):
    questions, rewards = torch.tensor([0, 0, 1, 1, -1]), torch.tensor([1.0, 0.0, 1.0, 1.0, 1.0])
    before = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0])
    with_filler = correction_advantages(rule, rewards, before, questions, 10.0, True)
    without = correction_advantages(rule, rewards[:4], before[:4], questions[:4], 10.0, True)
    assert with_filler.tolist() == [*without.tolist(), 0.0]
    alone = correction_advantages(rule, rewards[:1], before[:1], questions[:1], 10.0, True)
    assert torch.isfinite(alone).all(), "a question with one correction has no deviation"


def test_changes_count_each_row_once_and_no_filler():
    def rollouts(questions, texts, right):
        ids = [[ord(character) for character in text] for text in texts]
        return Rollouts([], [], [], texts, ids, questions, torch.tensor(right) * 1.0, torch.tensor(right))

    drafts = rollouts([0, 0], [r"\boxed{1}", r"\boxed{2}"], [True, False])
    texts = [r"\boxed{1}", r"\boxed{3}", r"\boxed{1}", r"\boxed{2}", "gone wrong", "a filler"]
    corrections = rollouts([0, 0, 0, 0, 0, -1], texts, [True, False, True, False, False, True])
    used = torch.tensor([True, True, False, False, True, False])
    counted = changes(drafts, [0, 0, 1, 1, 0, 0], corrections, used)
    distance = counted.pop("edit_distance")
    expected = {"rows": 5, "fixed": 1, "broken": 2, "kept": 1, "copied": 2, "answer_changed": 3, "used": 3}
    assert counted == expected
    # two copies, two with one character of nine replaced, and one that goes wrong
    assert distance == pytest.approx(2 / 9 + Levenshtein.normalized_distance(texts[0], texts[4]))
