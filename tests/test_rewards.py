"""The verifier: what counts as an answer, and that hostile text earns nothing and breaks nothing."""

import time

import pytest

from mgrpo_lib.rewards import accuracy_reward, extract_answer, same_answer


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (r"<think>a7+8=5</think>\boxed{5}", "5"),
        (r"first \boxed{3}, no, \boxed{ 4 }", "4"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\text{x}_{1}} and \boxed{unclosed", None),
        ("so\n#### 1,234", "1,234"),
        ("<answer>42</answer>", "42"),
        ("The answer is 7.", "7"),
        ("no answer", None),
        ("", None),
    ],
)
def test_extraction(completion, answer):
    assert extract_answer(completion) == answer


@pytest.mark.parametrize(
    ("answer", "gold", "same"),
    [
        ("5", "5", True),
        ("5", "6", False),
        ("1,000", "1000.0", True),
        ("$1000$", "1000", True),
        ("05", "5", True),
        ("-5", "5", False),
        ("5 5", "55", True),
        ("1,00", "100", False),
        ("", "", False),
        (None, "5", False),
        ("٥", "5", False),  # a digit of another script is not the gold's
        ("5\x00", "5", False),
        ("1e3", "1000", False),
    ],
)
def test_comparison(answer, gold, same):
    assert same_answer(answer, gold) is same


def test_reward_takes_text_and_conversations_and_the_columns_of_trl():
    completions = [r"\boxed{5}", r"\boxed{6}", [{"role": "assistant", "content": r"\boxed{5}"}]]
    assert accuracy_reward(completions, answer=["5"] * 3, prompts=None, trainer_state=None) == [1.0, 0.0, 1.0]
    with pytest.raises(ValueError):
        accuracy_reward(completions, answer=["5"])


@pytest.mark.parametrize(
    "garbage",
    [
        "\\boxed{" * 100_000,
        "{" * 1_000_000,
        r"\boxed{9**9**9}",
        r"\boxed{" + "9" * 1_000_000 + "}",
        "<answer>" * 100_000,
        "answer is " * 100_000,
        "####" * 250_000,
        "\x00\ud800" * 10_000,
    ],
)
def test_hostile_completions_earn_nothing_and_take_no_time(garbage):
    start = time.perf_counter()
    assert accuracy_reward([garbage], answer=["5"]) == [0.0]
    assert time.perf_counter() - start < 5, "a hang, not a slow machine"
