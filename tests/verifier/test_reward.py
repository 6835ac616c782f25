"""The verifier: what counts as an answer, what counts as the same, and that hostile text earns nothing and breaks nothing.

`cases.jsonl` holds completions with a gold answer and whether it is right, `extractions.jsonl` completions with what they name.
"""

import gzip
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgrpo_lib.verifier import compare, reward, symbolic
from mgrpo_lib.verifier.normalise import normalise
from mgrpo_lib.verifier.quantity import unit
from mgrpo_lib.verifier.reward import accuracy_reward, check_gold, extract_answer, same_answer
from tests.verifier import agreement, fuzz

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (HERE / name).read_text(encoding="utf-8").splitlines()]


# --------------------------------------------------------------------------------------------------- answers and verdicts
@pytest.mark.parametrize("row", rows("extractions.jsonl"), ids=lambda row: ascii(row["completion"][-30:]))
def test_extraction(row):
    assert extract_answer(row["completion"]) == row["answer"]


@pytest.mark.parametrize("right", [True, False])
def test_cases(right):
    before = reward.failures.total()
    cases = [row for row in rows("cases.jsonl") if row["right"] is right]
    earned = accuracy_reward([row["completion"] for row in cases], [row["gold"] for row in cases])
    assert not [
        (row["completion"], row["gold"]) for row, one in zip(cases, earned, strict=True) if (one == 1.0) is not right
    ]
    assert reward.failures.total() == before, "a verdict, not a failure"


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("x⁴", "x^{4}"),
        ("1011₂", "1011_{2}"),
        ("2½", r"2\frac{1}{2}"),
        ("√25", r"\sqrt{25}"),
        (r"\sqrt25", r"\sqrt{2}5"),
        (r"\frac123", r"\frac{1}{2}3"),
        (r"\frac\pi{12}", r"\frac{\pi}{12}"),
        (r"\sqrt[3]8", r"\sqrt[3]{8}"),
        (r"{1\over2}", r"\frac{1}{2}"),
        (r"0.1\dot{6}", r"0.1\overline{6}"),
        (r"\textcolor{blue}{\mathbf{5}}", "5"),
        (r"\left[\begin{array}{c}1\\2\end{array}\right]", r"\begin{matrix}1\\2\end{matrix}"),
        (r"1,\!234", "1,234"),
        (r"\$5 million", "5 million dollars"),
        (r"$\boxed{5}$.", "5"),
    ],
)
def test_one_notation(text, normal):
    assert normalise(text) == normal and normalise(normal) == normal


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("", (1, {})),
        (r"\text{ cm}^2", (1, {"cm": 2})),
        ("km/h", (1, {"km": 1, "h": -1})),
        (" kilometers per hour", (1, {"km": 1, "h": -1})),
        (r"\text{ m s^{-1}}", (1, {"m": 1, "s": -1})),
        (" million dollars", (10**6, {"dollar": 1})),
        (" meters squared", (1, {"m": 2})),
        (" apples in total", (1, {"apple": 1})),
        (r"\text{ of the cake}", (1, {})),
        (" t", None),
        (" squared", None),
        (" thirds", None),
        (" degrees below zero", None),
        (" or more", None),
        ("}", None),
        ("^2", None),
    ],
)
def test_units_are_known_and_other_words_are_kept(text, read):
    assert unit(text) == read


def test_nothing_equals_an_empty_missing_or_endless_answer():
    for answer, gold in [
        ("", ""),
        (None, "5"),
        ("5", ""),
        ("", "5"),
        ("5" * 501, "5" * 501),
        ("nan", "nan"),
        ("NaN", " nan "),
    ]:
        assert not same_answer(answer, gold)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.fractions(min_value=-(10**6), max_value=10**6, max_denominator=999), st.sampled_from([0, 1]))
def test_fractions_equal_themselves_in_every_notation_and_nothing_near(value, nudge):
    n, d = value.numerator, value.denominator
    other = rf"\frac{{{n + nudge}}}{{{d}}}"
    for text in (f"{n}/{d}", rf"\dfrac{{{n}}}{{{d}}}", rf"x = \tfrac{{{n}}}{{{d}}}\text{{ cm}}", f"${n}/{d}$"):
        assert same_answer(text, other) is (nudge == 0)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), st.sampled_from(["5", "1, 2", "(1,2]"]))
def test_any_text_is_judged_without_an_error(text, gold):
    before = reward.failures.total()
    assert len(accuracy_reward([text, rf"\boxed{{{text}}}"], [gold] * 2)) == 2
    assert same_answer(text, text) is (normalise(text) != "" and text.strip().lower() != "nan")
    assert reward.failures.total() == before


# ------------------------------------------------------------------------------------------------------ the reward, golds
def test_reward_takes_text_and_conversations_and_the_columns_of_trl():
    completions = [r"\boxed{5}", r"\boxed{6}", [{"role": "assistant", "content": r"\boxed{5}"}]]
    assert accuracy_reward(completions, answer=["5"] * 3, prompts=None, trainer_state=None) == [1.0, 0.0, 1.0]
    assert accuracy_reward([r"\boxed{5}", [{"role": "assistant", "content": None}]], [5, 5.0]) == [1.0, 0.0]
    with pytest.raises(ValueError):
        accuracy_reward(completions, answer=["5"])
    logged = {}
    accuracy_reward([], [], log_metric=logged.__setitem__)
    accuracy_reward([*completions, "no idea"], answer=["5"] * 4, log_metric=logged.__setitem__)
    assert logged == {"answered": 0.75}


@pytest.mark.parametrize("gold", [5, 5.0, np.int64(5), np.float32(5), "5"])
def test_golds_are_text_or_finite_numbers(gold):
    assert accuracy_reward([r"\boxed{5}", r"\boxed{6}"], [gold, gold]) == [1.0, 0.0]


@pytest.mark.parametrize("gold", [None, float("nan"), float("inf"), np.float64("nan"), "nan", ["5"], True])
def test_other_golds_are_an_error_that_names_the_column(gold):
    with pytest.raises(TypeError, match="`answer`"):
        accuracy_reward([r"\boxed{5}", r"\boxed{nan}"], ["5", gold])


@pytest.mark.parametrize(
    ("gold", "names"),
    [
        ("\frac{1}{2}", r"\\frac"),
        ("\text{5}", r"\\frac"),
        ("x \neq 6", r"\\frac"),
        ("5\u200b", "ZERO WIDTH SPACE"),
        ("５", "FULLWIDTH DIGIT FIVE"),
        ("['7']", "list"),
        ("3+4=7 pears.\n#### 7", "####"),
        ("  ", "empty"),
        ("x" * 501, "500"),
        ("5}", "itself"),
        ("nan", "itself"),
    ],
)
def test_golds_that_cannot_be_won_say_why(gold, names):
    assert names in check_gold(gold)


@pytest.mark.parametrize(
    "gold",
    ["5", r"\frac{1}{2}", "$5$", r"\boxed{5}", "Room 12", "是", "√2", "5 million", "3:1", "90\\text{ square\nunits}"],
)
def test_other_golds_pass(gold):
    assert check_gold(gold) is None


# ------------------------------------------------------------------------------------------------------------ hostile text
HOSTILE = r"""
from mgrpo_lib.verifier.reward import accuracy_reward
texts = [
    "\\boxed{" * 100_000, "{" * 1_000_000, "\\boxed{5} " * 10_000 + "\\boxed{6}", "\\boxed" * 100_000, "\\boxed{" + "9" * 1_000_000 + "}",
    "<answer>" * 100_000, "answer is " * 100_000, "####" * 250_000, "The answer is " + "$" * 1_000_000, "**" * 500_000, "\\(" * 300_000,
    "a. " * 300_000, "\x00\ud800" * 10_000,
]
boxes = [
    "9**9**9", "9^{9^9}", "10^{100000000}", "99999999!", "3!!!", "(" * 200 + "5" + ")" * 200, "{" * 240 + "}" * 240, "\\sqrt{" * 60 + "5" + "}" * 60,
    "-" * 400 + "5", "1," * 240 + "1", "\\pm1" * 60, "\\frac" * 90, "1 cm " * 90 + "!", "\\text{" * 60 + "}" * 60, "1" + "\\text{ a}" * 50 + "!",
    "a and " * 80, "x+" * 200 + "x", "5\x00", "1/0", "\\approx(" * 60, "√(" * 240, "0." + "1" * 400 + "...", "%" * 480,
]
texts += ["\\boxed{" + box + "}" for box in boxes]
for gold in ("5", "x^2+1", "1, 2"):
    assert accuracy_reward(texts, [gold] * len(texts)) == [0.0] * len(texts)
"""


def run(code: str, seconds: float) -> subprocess.CompletedProcess:
    call = [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(call, env=environment, capture_output=True, text=True, timeout=seconds, check=False)


def test_hostile_completions_earn_nothing_and_do_not_hang():
    done = run(HOSTILE, seconds=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", fuzz.FAMILIES)
def test_every_family_of_the_fuzz_earns_what_is_due(name, monkeypatch):
    monkeypatch.setattr(fuzz, "SLOW", 60)  # time is for `make fuzz` to judge
    fuzz.fuzz(name, 20, 0)


# ------------------------------------------------------------------------------------------------------ the helper process
def test_plain_answers_need_no_helper_and_nothing_here_imports_sympy():
    code = """
import sys
from mgrpo_lib.verifier import compare, reward
assert reward.accuracy_reward([r"\\boxed{5}", r"\\boxed{7b}", "none"], ["5"] * 3) == [1.0, 0.0, 0.0]
assert compare.helper.process is None
assert reward.same_answer(r"\\sqrt{12}", r"2\\sqrt{3}")
assert compare.helper.process is not None and not {"sympy", "math_verify"} & set(sys.modules)
"""
    done = run(code, seconds=120)
    assert done.returncode == 0, done.stderr


def test_formulas_are_compared_in_any_thread():
    verdicts = []
    pairs = [(rf"\sqrt{{{4 * n}}}", rf"2\sqrt{{{n}}}") for n in (101, 103, 107, 109)]
    threads = [threading.Thread(target=lambda pair=pair: verdicts.append(same_answer(*pair))) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert verdicts == [True] * 4


@pytest.fixture
def fresh(monkeypatch):
    """No cached verdict, no counted failure, and a helper of its own that has started."""
    reward._judge.cache_clear()
    monkeypatch.setattr(reward, "failures", reward.Counter())
    monkeypatch.setattr(compare, "helper", symbolic.Helper())
    assert same_answer(r"\sqrt{12}", r"2\sqrt{3}")
    yield psutil.Process(compare.helper.process.pid).children()[0]
    compare.helper.stop()
    reward._judge.cache_clear()


def test_failures_are_counted_said_once_and_not_kept(fresh, monkeypatch):
    def broken(*pair):
        raise RuntimeError("no sympy today")

    with monkeypatch.context() as patch, pytest.warns(UserWarning, match="no sympy today") as said:
        patch.setattr(compare.helper, "equal", broken)
        assert accuracy_reward([r"\boxed{\sqrt{20}}", r"\boxed{\sqrt{5}}"], [r"2\sqrt{5}"] * 2) == [0.0, 0.0]
    assert len(said) == 1 and reward.failures == {"RuntimeError": 2}
    assert same_answer(r"\sqrt{20}", r"2\sqrt{5}"), "what had no verdict is judged again"


def test_a_comparison_that_takes_too_long_is_stopped_and_the_next_one_works(fresh, monkeypatch):
    helper = compare.helper.process
    with pytest.warns(UserWarning, match="TimeoutError"):
        assert not same_answer(r"\binom{99999999}{49999999}", r"\sqrt{2}")
    assert reward.failures == {"TimeoutError": 1}
    monkeypatch.setattr(symbolic, "SECONDS", 30)
    assert same_answer(r"\sqrt{20}", r"2\sqrt{5}")
    assert compare.helper.process is helper and helper.poll() is None, "a new helper would cost the next comparison"


def test_the_pairs_of_a_comparison_share_its_time(fresh, monkeypatch):
    left = []
    monkeypatch.setattr(compare.helper, "equal", lambda *pair: left.append(pair[2]) or (False, 0.25))
    assert not same_answer(r"\sqrt{3}, \sqrt{5}", r"\sqrt{2}, \sqrt{7}")
    assert left == [symbolic.SECONDS, symbolic.SECONDS - 0.25]
    with pytest.raises(TimeoutError):
        symbolic.Helper().equal("x", "y", -0.01)


SLOW = "+".join(rf"\lfloor\frac{{x+{k}}}{{{k + 7}}}\rfloor" for k in range(9))  # a good part of a second, of a core


def test_the_time_of_a_comparison_is_that_of_its_core(fresh, monkeypatch):
    """On a busy machine, or one that was stopped for a while, a right answer is as right as before."""
    monkeypatch.setattr(symbolic, "SECONDS", 2.0)
    threading.Timer(0.05, fresh.suspend).start()
    threading.Timer(0.05 + symbolic.SECONDS, fresh.resume).start()
    start = time.monotonic()
    assert same_answer(rf"{SLOW}+x", rf"x+{SLOW}") and not reward.failures
    assert time.monotonic() - start > symbolic.SECONDS, "it was stopped while it computed"


def test_a_helper_that_neither_answers_nor_ends_is_given_up(fresh, monkeypatch):
    monkeypatch.setattr(symbolic, "SECONDS_OF_GRACE", 0.1)
    fresh.suspend()
    rescue = threading.Timer(20, fresh.resume)  # else this test would hang with it
    rescue.start()
    with pytest.warns(UserWarning, match="TimeoutError"):
        assert not same_answer(r"\sqrt{28}", r"2\sqrt{7}")
    assert rescue.is_alive(), "only its child's going on ended the wait"
    rescue.cancel()
    monkeypatch.setattr(symbolic, "SECONDS_OF_GRACE", 60)
    assert same_answer(r"\sqrt{20}", r"2\sqrt{5}"), "the next one has a new helper"


def test_a_helper_that_dies_is_a_failure_and_is_replaced(fresh):
    fresh.kill()  # as a system short of memory does
    with pytest.warns(UserWarning, match="gave no verdict"):
        assert not same_answer(r"\sqrt{28}", r"2\sqrt{7}")
    assert reward.failures.total() == 1 and same_answer(r"\sqrt{20}", r"2\sqrt{5}")


def test_identical_pairs_are_judged_once(fresh, monkeypatch):
    asked = []
    monkeypatch.setattr(compare.helper, "equal", lambda *pair: asked.append(pair) or (True, 0.0))
    assert accuracy_reward([r"\boxed{\sqrt{20}}"] * 5, [r"2\sqrt{5}"] * 5) == [1.0] * 5
    assert len(asked) == 1


@pytest.mark.parametrize(
    "text", ["5}", "(5))", "5 5}", "|5", "5=", "{5", "x}y", r"\frac{5}", r"5\pi}", "(5,6", "[5,6)7", r"\{1,2\}}"]
)
def test_no_formula_is_parsed_in_part(text):
    assert symbolic.parse(text) is None


# ------------------------------------------------------------------------------------------------------- labelled outputs
def test_agreement_lists_what_disagrees(tmp_path, capsys, monkeypatch):
    labelled = [("5", r"\boxed{5}", True), ("5", r"\boxed{6}", True), ("5", "The answer is 5.", False)]
    path = tmp_path / "rows.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.writelines(
            json.dumps(dict(zip(("gold", "completion", "label"), row, strict=True))) + "\n" for row in labelled
        )
    monkeypatch.setattr(sys, "argv", ["agreement", str(path), "--table", str(tmp_path / "docs" / "table.md")])
    assert agreement.main() == 0
    report = capsys.readouterr().out
    assert "FN row 1 (all, box): '6' to '5'" in report and "FP row 2 (all, no box): '5' to '5'" in report
    table = (tmp_path / "docs" / "table.md").read_text()
    assert "| all | 1 of 3 (33.333%) |" in table and "| right, no box |" in table and "The answer is 5" not in table
    monkeypatch.setattr(sys, "argv", ["agreement", str(tmp_path / "none.jsonl")])
    assert agreement.main() == 2 and "DATA=" in capsys.readouterr().err


def test_agreement_with_graded_outputs():
    if not agreement.GRADED.exists():
        pytest.skip("needs the graded outputs in ../shared, which are not part of the project")
    graded = agreement.judge(agreement.load(agreement.GRADED))
    assert sum(row.agrees for row in graded) >= 0.998 * len(graded), "with all labels, also the wrong ones"
    kept = agreement.sound(graded)
    assert len(kept) == len(graded) - len(agreement.WRONG_LABELS)
    wrong = [row for row in kept if not row.agrees]
    assert len(wrong) <= 0.001 * len(kept)
    assert not [row for row in wrong if row.verdict and row.box], "a box is never read too well"
