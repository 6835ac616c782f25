"""The verifier: what counts as an answer, what counts as the same, and that hostile text earns nothing and breaks
nothing.
"""

import gzip
import json
import os
import subprocess
import sys
import threading
import time

import agreement
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgrpo_lib.experiment.settings import ROOT
from mgrpo_lib.verifier import reward as rewards
from mgrpo_lib.verifier import symbolic
from mgrpo_lib.verifier.reward import accuracy_reward, extract_answer, same_answer
from tests.verifier import fuzz as fuzz_rewards


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (r"<think>a7+8=5</think>\boxed{5}", "5"),
        (r"first \boxed{3}, no, \boxed{ 4 }", "4"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed 2, or so", "2"),
        (r"\boxed 12.5.", "12.5"),
        (r"\fbox{7}", "7"),
        (r"\boxed{\left\{1, 2\right\}}", r"\left\{1, 2\right\}"),
        (r"\boxed{1}. Or, if x is large, \boxed{2}", "2"),
        (r"$\boxed{1}$ and $\boxed{2}$", "1, 2"),
        (r"\boxed{3} The answer is 4. #### 4", "3"),
        (r"\boxed{\text{x}_{1}} and \boxed{unclosed", None),
        (r"\boxed{5}, no: \boxed{}", ""),
        (r"<think>It is \boxed{5}.</think> The answer is 6.", "6"),
        (r"<think>It is \boxed{5}.</think>", None),
        (r"<think>It is \boxed{5}", "5"),
        ("so\n#### 1,234", "1,234"),
        ("#### Step 1\nIt is 5 or 6, who knows", None),
        ("so\n#### 1,234\n\nI hope this helps!", "1,234"),
        ("It is 9 * 2 = 18 dollars. #### $18<|im_end|>", "$18"),
        ("#### 5\nNo, wait.\n#### 6\nDone.", "6"),
        ("The answer is 5, no:\n#### 6\nDone.", "6"),
        ("#### 6\nNo: the answer is 5.", "5"),
        ("#### The answer is 18", "18"),
        ("<answer>The answer is 12</answer>", "12"),
        ("The answer is:\n\n\\[\n12\n\\]", "12"),
        ("The final answer is\n$$x+1$$\nas was to be shown.", "x+1"),
        ("**Final Answer**\n\n18", "18"),
        ("so\n### Answer\n18 apples", "18 apples"),
        ("The answer is $\\$18$.", "18"),
        ("The answer is 18 because 9 times 2 is 18.", "18"),
        ("The answer is 64 dollars, not 80.", "64 dollars"),
        ("The answer is written as 18.", "18"),
        (r"The answer is 3 (\sqrt{2}+1)", r"3 (\sqrt{2}+1)"),
        (r"The answer is \[5\] or \[6\]", "5, 6"),
        ("Work\n#### 1\nadd\n#### 2\nmultiply\nSo we get x = 7.", "7"),
        ("### Answer\nWe compute 3+4.\nSo it is 7.", "7"),
        ("Answer: 18 dollars (9 eggs at $2 each)", "18 dollars"),
        ("The answer is 2, 3", "2, 3"),
        (r"$x=\boxed{1}$ or $x=\boxed{-2}$", "x=1, x=-2"),
        ("<answer>42</answer>", "42"),
        ("<answer>42", None),
        ("2 + 2 = 4\nA: 4", "4"),
        ("The answer is 7.", "7"),
        ("Final Answer: The final answer is $x = 1$ and $x = 2$. I hope it is correct.", "x = 1, x = 2"),
        ("The answer is 3 + 4 = 7 apples.", "7 apples"),
        ("The answer is $2.50.", "2.50"),
        ("**Answer:** She has 7 apples left.", "7"),
        ("So there are 3 boxes. Each has **12** balls.", "12"),
        ("Hence the area is $4\\pi$ square units.", "4\\pi"),
        ("She had 9 and lost 2. She has $7 left.", "7"),
        ("So it took 16 / 2 = 8 seconds. So it took 16 - ", None),
        ("Thus $x = 5$ is not a solution.", None),
        ("<think>It must be 7.", None),
        ("<think>It must be 7.</think> There are 8.", "8"),
        ("7+8=15", None),
        ("```output\n5\n```", None),
        ("print(5)", None),
        ("import os; os.system('echo 5')", None),
        ("There are several boxes (exactly 5).", "5"),
        ("no answer", None),
        ("", None),
    ],
)
def test_extraction(completion, answer):
    assert extract_answer(completion) == answer


SAME = {
    "numbers": [
        ("5", "5"),
        ("1,000", "1000.0"),
        ("$1000$", "1000"),
        ("05", "5"),
        (".5", "0.5"),
        ("\N{MINUS SIGN}5", "-5"),
        (r"1{,}234", "1234"),
        (r"1,\!234", "1 234"),
        ("1e3", "1000"),
        ("1.6e-19", r"1.6 \times 10^{-19}"),
        ("10^5", "100000"),
        ("1/2", "0.5"),
        (r"\frac12", r"\dfrac{1}{2}"),
        (r"-\frac{1}{2}", r"\frac{-1}{2}"),
        (r"1\frac{1}{2}", "3/2"),
        ("0.3333333333333333", "1/3"),
        (r"0.\overline{3}", "1/3"),
        (r"0.1\overline6", r"\frac{1}{6}"),
        (r"\underline{12}", r"12 \\"),
        (r"+\infty", r"\infty"),
        ("(204)_5", "204_5"),
        (r"2516_{(8)}", "2516_8"),
    ],
    "units": [
        ("5 cm", r"5\text{ cm}"),
        (r"5\,\mathrm{cm}^2", "5"),
        (r"\$5", "5 dollars"),
        ("3,000 feet", "3000"),
        ("50\\%", "50"),
        ("50%", "0.5"),
        (r"30^\circ", "30"),
        ("30°", "30 degrees"),
        ("60 mph", "60"),
        ("5 USD", "5"),
        ("18 per day", "18/day"),
        ("3 p.m.", "3"),
        (r"4:30 \text{ p.m.}", r"\text{4:30 p.m.}"),
        (r"10:45\text{ AM}", r"10:45\text{ a.m.}"),
        (r"50\,\Omega", "50"),
        (r"3\,\mu m", "3"),
        (r"12\,\mathrm{m\,s^{-1}}", "12"),
        (r"3\times10^8\,\frac{\text m}{\text s}", "3e8"),
        (r"2 \text{ N}\cdot\text{m}", "2"),
        (r"7.5\times10^7\;M_\odot", "7.5e7"),
        (r"20.39\text{ \AA}", "20.39"),
    ],
    "words": [
        ("Tuesday", r"\text{tuesday}"),
        ("(B)", r"\text{(B)}"),
        (r"\textbf{B}", "(B)"),
        (r"\text{13}", "13"),
        ("**73**", "73"),
        (r"\text{an ellipse}", r"\text{ellipse}"),
        (r"\text{(B) } 12", r"\text{(B)}"),
        ("C) 5", r"\text{(C)}"),
    ],
    "several": [
        ("1, 2", "2,1"),
        (r"1 \text{ and } 2", r"\{2, 1\}"),
        (r"\pm 5", "5, -5"),
        (r"1 \pm \sqrt2", r"1 - \sqrt{2}, 1 + \sqrt{2}"),
        ("(0.5, 2)", r"\left(\frac{1}{2}, 2\right)"),
        ("a=1, b=2", "b=2, a=1"),
        ("584, 655", "655, 584"),
        ("(1,2),(3,4)", "(3,4),(1,2)"),
        (r"(3,\infty)\cup(-\infty,2)", r"(-\infty, 2) \cup (3, \infty)"),
        (r"\begin{pmatrix}1\\[4pt]2\end{pmatrix}", r"\left(\begin{array}{c}1\\2\end{array}\right)"),
        (r"\frac15\begin{pmatrix}1\\-18\end{pmatrix}", r"\begin{pmatrix}\frac{1}{5}\\-\frac{18}{5}\end{pmatrix}"),
        (r"\begin{pmatrix}0.5&2\\3&4\end{pmatrix}", r"\begin{bmatrix} \frac{1}{2} & 2 \\ 3 & 4 \end{bmatrix}"),
    ],
    "formulas": [
        ("x = 5", "5"),
        (r"k \geqslant 2", r"k \ge 2"),
        ("3x+4y=7", "7-4y=3x"),
        (r"2\sqrt{3}", r"\sqrt{12}"),
        ("sqrt(2)", r"\frac{2}{\sqrt2}"),
        ("2pi", r"2\pi"),
        ("x^2+2x+1", "(x+1)^2"),
        ("(1+i)^2", "2i"),
        ("3(4)", "12"),
        (r"\sin 30^\circ", "1/2"),
        (r"\log_2 8", "3"),
        ("f(y)=y+1", "f(x)=x+1"),
        ("yx", "xy"),
        ("-ab-bc-ca", "-(ab + ac + bc)"),
        (r"\frac{v^2m}{2}", r"\frac12mv^2"),
        (r"\frac{e^{2it}}{2+2i}", r"\frac{e^{2 i t}}{(2+2 i)}"),
        (r"\frac{E_1+2E_2}{3}", r"\frac{1}{3} E_{1}+\frac{2}{3} E_{2}"),
        (r"(t+\frac12\sin(2t))u(t)", r"(t+\frac{1}{2} \sin{2 t})u(t)"),
        (r"\frac{\lambda_{\text{red}}}{\sqrt2}", r"\lambda_{\text {red}} / \sqrt{2}"),
        (r"x'+\frac rV x-rc=0", r"x^{\prime}+\frac{r}{V} x-r c=0"),
        (r"(\gamma-1)(\gamma+1)", r"\gamma^{2}-1"),
        (r"\hbar\omega(n+\frac12)", r"\hbar \omega n+\frac{\hbar\omega}{2}"),
        ("LRMC=SRMC", "SRMC=LRMC"),
        (r"mn-\lfloor\frac m2\rfloor", r"m n-\lfloor m / 2\rfloor"),
        (r"\lceil n/2\rceil", r"\lfloor\frac{n+1}{2}\rfloor"),
        (r"\frac{37m}{4}", r"\frac{37}{4} m"),
        (r"\cos B\sin A", r"\sin A\cos B"),
        ("A^2+BA+B^2", "A^2+B^2+AB"),
        (r"2\sqrt N+\frac NM", r"\frac{N}{M}+2\sqrt{N}"),
        (r"\frac{dy}{dx}+x", r"x+\frac{d y}{d x}"),
        (r"3\cdot 2^n", "2^n(3)"),
    ],
}
ONE_WAY = [  # the gold answer is the second: an answer may say more, or leave out what the question names
    ("2<x\\le 3", "(2,3]"),
    ("|r-s| = 16", "16"),
    ("2 + 3 = 5", "5"),
    (r"\sqrt{2} \approx 1.41", r"\sqrt{2}"),
    ("7602", "7602_8"),
    ("(b,c)=(6,5)", "(6,5)"),
    (r"\dbinom{10}{3} = 120", "120"),
    ("5km/h", "5"),
    (r"300\,K", "300"),
    ("3pm", "3"),
    ("n^2-n-1", r"m_{\max}=n^2-n-1"),
]
DIFFERENT = {
    "numbers": [
        ("5", "6"),
        ("-5", "5"),
        ("5 5", "55"),
        ("1,00", "100"),
        ("0.333", "1/3"),
        ("1.6e-19", "1.7e-19"),
        ("10000000000001", "10000000000000"),
        (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}"),
        ("1/2004!", "1/2006!"),
        ("5\x00", "5"),
        ("٥", "5"),  # a digit of another script is not the gold's
        ("\N{FULLWIDTH DIGIT FIVE}", "5"),
        ("5²", "52"),
        ("3 4", "7"),
        ("3(4)", "7"),
        ("1.5.2", "0.3"),
        ("5}", "5"),
        ("(5", "5"),
        ("1/0", "5"),
        ("584, 655", "584655"),
        ("10_2", "11_2"),
    ],
    "units": [
        (r"5\text{ cm}", r"5\text{ m}"),
        ("5 cents", "5 dollars"),
        ("7 am", "7 pm"),
        ("1 hour and 30 minutes", "30"),
        ("50%", "5"),
        ("144 m^3", r"144^\circ"),
        (r"\sqrt{2}\text{ m}", r"\sqrt{2}^\circ"),
        ("50%", r"50^\circ"),
        ("50 cm", r"50\%"),
        ("30 minutes", "30 degrees"),
        ("12:00", "1:00"),
        ("4 N", "4 J"),
        ("4 K", "4 m"),
        (r"3\,\mu m", "3 m"),
        ("5 mm", "5 Mm"),
        ("x^2+2", "x^2+2km"),
        ("mg-2", "mg-2 N"),
        (r"5\cdot\mathrm{i}", "5"),
        (r"2\times\text{10}^{3}", "2"),
    ],
    "words": [
        ("Tuesday", r"\text{Friday}"),
        ("(A)", r"\text{(B)}"),
        ("not even", "even"),
        ("AB", "ab"),
        ("p - q", "pq"),
        ("B) or C)", "(B)"),
    ],
    "several": [
        ("1", "1, 2"),
        ("1, 2, 2", "1, 2"),
        (r"\pm 2021", "2021"),
        ("n=2,3,4", "n=1,2,3"),
        ("5 or 6", "5"),
        ("(1,2)", "(2,1)"),
        ("(1,2)", "[1,2]"),
        ("[1,2)", "(1,2]"),
        ("x=1, y=2", "x=2, y=1"),
        ("x > 2", r"[2,\infty)"),
        (r"x = -7 \text{ or } x = -1", "(-7,-1)"),
        ("x=-7, x=-1", "(-7,-1)"),
        (r"\{2,4\}", "(2,4)"),
        (r"\pm 2", "(2,-2)"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\1\end{pmatrix}"),
        (r"\begin{pmatrix}1&2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    ],
    "formulas": [
        ("x=5", "y=5"),
        ("x^2=4", "4"),
        ("2x=10", "10"),
        ("3", r"3\sqrt{13}"),
        ("4", r"4\sqrt(2)"),
        (r"1-1/\mathrm{e}", r"1+1/\mathrm{e}"),
        ("3*x-1*y+13=0", "3x+4y+14=0"),
        ("4t", "4"),
        ("4t", "4s"),
        ("N", "n"),
        ("x'", "x"),
        ("|x|", "x"),
        ("3+4i", "3-4i"),
        (r"\infty", r"-\infty"),
        ("f(x)=1", "g(x)=1"),
        (r"\ln 2", r"\log_3 2"),
        (r"\sqrt{2}", "1.41421"),
        (r"\lceil 2n/3\rceil", r"\lfloor 2n/3\rfloor+1"),
        (r"n+\lfloor n/100\rfloor", "n"),
        (r"\lfloor n/5\rfloor", r"\lfloor n/5\rfloor+\lfloor n/25\rfloor"),
        ("x_{n'}+1", "x_n'+1"),
        (r"1+\vec v\times\vec u", r"1+\vec{u}\times\vec{v}"),
        ("2f(2)", "4f"),
        (r"\lceil\frac{2n-1}{5}\rceil-1", r"\lfloor\frac{2n-1}{5}\rfloor"),
        (r"\lfloor x\rfloor + 0", "x"),
        (r"\frac{37}{4}", r"\frac{37}{4} m"),
        (r"\gamma+1", "1"),
        ("N-n", "n-N"),
        ("I^2", "-1"),
        ("2E_1", "2E"),
        ("E_1+1", "E_2+1"),
        ("u(t)+1", "u(s)+1"),
        (r"2\dot{x}", "2x"),
        # no numbers, let alone every number
        (r"\tan(\pi/2)", "7"),
        (r"\tan(90^\circ)", r"\sqrt{13}"),
        (r"\infty^\pi", r"\sqrt{13}"),
        (r"\frac{1}{1-1}", r"\sqrt{13}"),
        (r"\frac{3x+y}{1-1}=1", "3x+4y=7"),
        (r"\lfloor 2^{9999}\pi \rfloor", "7"),
    ],
}


@pytest.mark.parametrize("kind", SAME)
def test_same_answers(kind):
    for answer, gold in SAME[kind]:
        assert same_answer(answer, gold) and same_answer(gold, answer), (answer, gold)


def test_an_answer_may_say_more_than_the_gold_one():
    for answer, gold in ONE_WAY:
        assert same_answer(answer, gold), (answer, gold)


@pytest.mark.parametrize("kind", DIFFERENT)
def test_different_answers(kind):
    before = rewards.failures.total()
    for answer, gold in DIFFERENT[kind]:
        assert not same_answer(answer, gold) and not same_answer(gold, answer), (answer, gold)
    assert rewards.failures.total() == before, "a verdict, not a failure"


def test_nothing_equals_an_empty_or_missing_answer():
    assert (
        not same_answer("", "") and not same_answer(None, "5") and not same_answer("5", "") and not same_answer("", "5")
    )


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.fractions(min_value=-(10**6), max_value=10**6, max_denominator=999), st.sampled_from([0, 1]))
def test_fractions_equal_themselves_in_every_notation_and_nothing_near(value, nudge):
    n, d = value.numerator, value.denominator
    other = rf"\frac{{{n + nudge}}}{{{d}}}"
    for text in (f"{n}/{d}", rf"\dfrac{{{n}}}{{{d}}}", rf"x = \tfrac{{{n}}}{{{d}}}\text{{ cm}}", f"${n}/{d}$"):
        assert same_answer(text, other) is (nudge == 0)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60), st.sampled_from(["5", "1, 2", "(1,2]"]))
def test_any_text_is_judged_without_an_error(text, gold):
    before = rewards.failures.total()
    assert accuracy_reward([text, rf"\boxed{{{text}}}"], [gold] * 2) is not None
    assert rewards.failures.total() == before


def test_reward_takes_text_and_conversations_and_the_columns_of_trl():
    completions = [r"\boxed{5}", r"\boxed{6}", [{"role": "assistant", "content": r"\boxed{5}"}]]
    assert accuracy_reward(completions, answer=["5"] * 3, prompts=None, trainer_state=None) == [1.0, 0.0, 1.0]
    with pytest.raises(ValueError):
        accuracy_reward(completions, answer=["5"])
    assert accuracy_reward([r"\boxed{5}", [{"role": "assistant", "content": None}]], [5, 5.0]) == [1.0, 0.0]
    with pytest.raises(TypeError, match="None; the column `answer` must hold text or numbers"):
        accuracy_reward(completions, ["5", None, "5"])
    logged = {}
    accuracy_reward([], [], log_metric=logged.__setitem__)
    accuracy_reward([*completions, "no idea"], answer=["5"] * 4, log_metric=logged.__setitem__)
    assert logged == {"answered": 0.75}


HOSTILE = """
import sys
from mgrpo_lib.verifier.reward import accuracy_reward
texts = [
    "\\\\boxed{" * 100_000, "{" * 1_000_000, "\\\\boxed{5} " * 10_000 + "\\\\boxed{6}", "\\\\boxed" * 100_000,
    "\\\\boxed{" + "9" * 1_000_000 + "}", "<answer>" * 100_000, "answer is " * 100_000, "####" * 250_000,
    "The answer is " + "$" * 1_000_000, "**" * 500_000, "\\\\(" * 300_000, "a. " * 300_000, "\\x00\\ud800" * 10_000,
]
boxes = [
    "9**9**9", "9^{9^9}", "10^{100000000}", "99999999!", "3!!!", "(" * 200 + "5" + ")" * 200, "{" * 240 + "}" * 240,
    "\\\\sqrt{" * 60 + "5" + "}" * 60, "-" * 400 + "5", "1," * 240 + "1", "\\\\pm1" * 60, "\\\\frac" * 90, "1 cm " * 90 + "!",
    "\\\\text{" * 60 + "}" * 60, "1" + "\\\\text{ a}" * 50 + "!", "a and " * 80, "x+" * 200 + "x", "5\\x00", "1/0",
]
texts += ["\\\\boxed{" + box + "}" for box in boxes]
for gold in ("5", "x^2+1", "1, 2"):
    assert accuracy_reward(texts, [gold] * len(texts)) == [0.0] * len(texts)
"""


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(fuzz_rewards.FAMILIES)), st.integers(0, 10**6))
def test_every_family_of_the_fuzz_earns_what_is_due(name, seed):
    _, _, _, wrong = fuzz_rewards.judge(name, seed)
    assert not [what for what in wrong if not what.endswith(" s")], "time is for `make fuzz` to judge"


def run(code: str, seconds: float) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )


def test_hostile_completions_earn_nothing_and_take_no_time():
    done = run(HOSTILE, seconds=60)  # a hang, not a slow machine
    assert done.returncode == 0, done.stderr


def test_plain_answers_need_no_helper_and_nothing_here_imports_sympy():
    code = """
import sys
from mgrpo_lib.verifier import reward as rewards
assert rewards.accuracy_reward([r"\\boxed{5}", r"\\boxed{7b}", "none"], ["5"] * 3) == [1.0, 0.0, 0.0]
assert rewards.helper.process is None
assert rewards.same_answer(r"\\sqrt{12}", r"2\\sqrt{3}")
assert rewards.helper.process is not None and not {"sympy", "math_verify"} & set(sys.modules)
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
    """No cached verdict, no counted failure, and a helper of its own."""
    rewards._judge.cache_clear()
    monkeypatch.setattr(rewards, "failures", rewards.Counter())
    monkeypatch.setattr(rewards, "helper", symbolic.Helper())
    yield
    rewards.helper.stop()
    rewards._judge.cache_clear()


def test_failures_are_counted_and_said_once(fresh, monkeypatch):
    def broken(*pair):
        raise RuntimeError("no sympy today")

    monkeypatch.setattr(rewards.helper, "equal", broken)
    with pytest.warns(UserWarning, match="no sympy today") as said:
        assert accuracy_reward([r"\boxed{\sqrt{3}}", r"\boxed{\sqrt{5}}"], [r"\sqrt{2}"] * 2) == [0.0, 0.0]
    assert len(said) == 1 and rewards.failures == {"RuntimeError": 2}


def test_a_comparison_that_takes_too_long_is_stopped_and_the_next_one_works(fresh, monkeypatch):
    assert same_answer(r"\sqrt{12}", r"2\sqrt{3}")
    helper = rewards.helper.process
    with pytest.warns(UserWarning, match="TimeoutError"):
        assert not same_answer(r"\binom{99999999}{49999999}", r"\sqrt{2}")
    assert rewards.failures == {"TimeoutError": 1}
    assert rewards.helper.process is helper and helper.poll() is None, "a new helper would cost the next comparison"
    monkeypatch.setattr(symbolic, "SECONDS", 30)
    assert same_answer(r"\sqrt{20}", r"2\sqrt{5}")


def test_the_pairs_of_a_comparison_share_its_time(fresh, monkeypatch):
    left = []
    monkeypatch.setattr(rewards.helper, "equal", lambda *pair: left.append(pair[2]) or (False, 0.25))
    assert not same_answer(r"\sqrt{3}, \sqrt{5}", r"\sqrt{2}, \sqrt{7}")
    assert left == [symbolic.SECONDS, symbolic.SECONDS - 0.25]
    with pytest.raises(TimeoutError):
        symbolic.Helper().equal("x", "y", -0.01)


SLOW = "+".join(rf"\lfloor\frac{{x+{k}}}{{{k + 7}}}\rfloor" for k in range(16))  # a good part of a second, of a core


def test_the_time_of_a_comparison_is_that_of_its_core(fresh, monkeypatch):
    """On a busy machine, or one that was stopped for a while, a right answer is as right as before."""
    monkeypatch.setattr(symbolic, "SECONDS", 1.5)
    assert same_answer(r"\sqrt{12}", r"2\sqrt{3}")
    child = psutil.Process(rewards.helper.process.pid).children()[0]
    threading.Timer(0.05, child.suspend).start()
    threading.Timer(0.05 + symbolic.SECONDS, child.resume).start()
    start = time.monotonic()
    assert same_answer(rf"{SLOW}+x", rf"x+{SLOW}") and not rewards.failures
    assert time.monotonic() - start > symbolic.SECONDS, "it was stopped while it computed"


def test_a_helper_that_neither_answers_nor_ends_is_given_up(fresh, monkeypatch):
    monkeypatch.setattr(symbolic, "SECONDS_OF_GRACE", 0.1)
    assert same_answer(r"\sqrt{12}", r"2\sqrt{3}")
    child = psutil.Process(rewards.helper.process.pid).children()[0]
    child.suspend()
    rescue = threading.Timer(20, child.resume)  # else this test would hang with it
    rescue.start()
    with pytest.warns(UserWarning, match="TimeoutError"):
        assert not same_answer(r"\sqrt{28}", r"2\sqrt{7}")
    assert rescue.is_alive(), "only its child's going on ended the wait"
    rescue.cancel()
    assert same_answer(r"\sqrt{20}", r"2\sqrt{5}"), "the next one has a new helper"


def test_a_helper_that_dies_is_a_failure_and_is_replaced(fresh):
    assert same_answer(r"\sqrt{12}", r"2\sqrt{3}")
    psutil.Process(rewards.helper.process.pid).children()[0].kill()  # as a system short of memory does
    with pytest.warns(UserWarning, match="gave no verdict"):
        assert not same_answer(r"\sqrt{28}", r"2\sqrt{7}")
    assert rewards.failures.total() == 1
    assert same_answer(r"\sqrt{20}", r"2\sqrt{5}")


def test_identical_pairs_are_judged_once(fresh, monkeypatch):
    asked = []
    monkeypatch.setattr(rewards.helper, "equal", lambda *pair: asked.append(pair) or (True, 0.0))
    assert accuracy_reward([r"\boxed{\sqrt{12}}"] * 5, [r"2\sqrt{3}"] * 5) == [1.0] * 5
    assert len(asked) == 1


def test_math_verify_sees_every_formula_in_a_box_and_the_gold_one_first(monkeypatch):
    import math_verify

    seen, compared = [], []
    parse, verify = math_verify.parse, math_verify.verify
    monkeypatch.setattr(
        math_verify, "parse", lambda text, *args, **how: seen.append((text, how)) or parse(text, *args, **how)
    )
    monkeypatch.setattr(
        math_verify, "verify", lambda *pair, **how: compared.append((pair, how)) or verify(*pair, **how)
    )
    symbolic.parse.cache_clear()
    assert symbolic.equal("x>2", r"(2,\infty)") and symbolic.equal("x>2", r"(2,\infty)")
    assert [text for text, _ in seen] == [r"\boxed{x>2}", r"\boxed{(2,\infty)}"], "each is parsed once"
    assert all(how["parsing_timeout"] is None for _, how in seen), "signal.alarm fails in threads"
    (gold, answer), how = compared[0]
    assert (str(gold), str(answer)) == ("Interval.open(2, oo)", "x > 2") and how["timeout_seconds"] is None
    symbolic.parse.cache_clear()


def test_agreement_lists_what_disagrees(tmp_path, capsys):
    rows = [("5", r"\boxed{5}", True), ("5", r"\boxed{6}", True), ("5", "The answer is 5.", False)]
    path = tmp_path / "rows.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(dict(zip(("gold", "completion", "label"), row, strict=True))) + "\n" for row in rows)
    rewards.main(str(path))
    report = capsys.readouterr().out
    assert "FN row 1 (all, box): '6' to '5'" in report and "FP row 2 (all, no box): '5' to '5'" in report
    assert "overall: 1 of 3 agree (33.333%)" in report


@pytest.fixture(scope="module")
def graded():
    if not agreement.GRADED.exists():
        pytest.skip("needs the graded outputs in ../shared, which are not part of the project")
    return agreement.judge(agreement.load(agreement.GRADED))


def test_agreement_with_graded_outputs(graded):
    assert sum(row.agrees for row in graded) >= 0.998 * len(graded), "with all labels, also the wrong ones"
    kept = [row for row in graded if row.digest not in agreement.WRONG_LABELS]
    wrong = [row for row in kept if not row.agrees]
    assert len(kept) == len(graded) - len(agreement.WRONG_LABELS) and len(wrong) <= 0.001 * len(kept)
    assert not [row for row in wrong if row.verdict and row.box], "a box is never read too well"


def test_a_table_of_agreement_counts_and_names_rows_without_their_text(tmp_path):
    known = next(iter(agreement.WRONG_LABELS))
    rows = [agreement.Row("a" * 12, "one", True, True, True), agreement.Row(known, "two", False, True, False)]
    text = agreement.table(rows, "overall\n99 completions a second; without a verdict: 0\n")
    assert "1 of 2 (50.000%) agree; without the rows whose labels are wrong (below), 1 of 1 (100.000%)" in text
    assert f"| `{known}` | two | {agreement.WRONG_LABELS[known]} |" in text
    assert f"| `{known}` | two | the verifier says right, no box | yes |" in text and "99 completions a second" in text


def test_make_agreement_without_data_says_what_to_give(tmp_path):
    call = [sys.executable, str(ROOT / "tests" / "verifier" / "agreement.py"), str(tmp_path / "none.jsonl")]
    done = subprocess.run(call, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 2 and "make agreement DATA=" in done.stderr and "gold, completion, label" in done.stderr
