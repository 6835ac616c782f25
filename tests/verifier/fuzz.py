"""Hostile and near-miss text for the verifier, in families of hypothesis strategies: `make fuzz`, or

    python -m tests.verifier.fuzz [how many texts, 100000] [seed, 0]

A strategy makes a completion, the gold answer, and whether a point is due. The run fails, after hypothesis has shrunk the text,
if a point is given that is not due, one that is due is not, something raises, or this process computes for a second.
"""

import sys
import time
import warnings

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from mgrpo_lib.verifier import reward
from mgrpo_lib.verifier.reward import accuracy_reward, extract_answer, same_answer

SLOW = 1.0  # CPU seconds of this process that no text may take; the helper process has a limit of its own
HARD_GOLDS = st.sampled_from(
    [r"\frac{7919\sqrt{13}}{104729}", r"7919x^2-13y", "104729", r"(-7919, \infty)", r"\{7919, 104729\}", "y=7919x+13", "7919+13i", "x > 7919",
     r"[13,7919] \cup (104729,\infty)", "f(x)=7919x^3", r"\begin{pmatrix}7919\\13\end{pmatrix}"]
)  # fmt: skip
NUMBERS, DIGITS = st.integers(10, 99_999), st.integers(2, 9)
WRAPS = st.sampled_from([r"\boxed{%s}", r"so $\boxed{%s}$.", "The answer is %s.", "<answer>%s</answer>", "#### %s"])
TOKENS = [
    *("\\" + name for name in ("frac", "sqrt", "left(", "right)", "text{", "begin{pmatrix}", "end{pmatrix}", "cup", "pm", "infty", "sin", "log", "pi", "boxed{", "over")),
    *([r"\\", r"{", r"}", r"{{", r"}}", r"&", r"^", r"_", r"(", r")", r"[", r"]", r",", r";", r"=", r"+", r"-", r"1", r"23", r"x", r"y", r"|", r"!", r"'", r"<", r"%", r"$", r"$$", r"**", r"√", r"²", r"½", r"∞", r"\{", r"\}", r"\(", r"####", r"A:", r"<answer>", r"</answer>", r"<think>", r"</think>", r"and", r"million"]), " ", "\n",
]  # fmt: skip
NO_VALUE = [
    *([r"\tan(\pi/2)", r"\tan(90^\circ)", r"\cot(0)", r"\sec(\pi/2)", r"\csc(\pi)", r"\csc(0)", r"\ln(0)", r"\infty", r"\infty^\pi", r"\infty^i", r"\frac{\infty}{\infty}", r"\sin(\infty)", r"1^\infty"]),
    *([r"\frac{1}{0}", r"0^{-1}", r"\frac{\pi}{\sqrt{7}-\sqrt{7}}", r"(-1)!", r"\binom{-1}{-2}", r"\frac{x}{x-x}", r"\frac{1}{\sin(\pi)}", r"e^\infty", r"f(0)", r"0!!", r"\frac{0}{0}", r"nan"]),
]  # fmt: skip
TOWERS = [
    "9**9**9", "{a}^{{{a}^{{{a}}}}}", "{n}!", "{a}!!!", "({a}!)!", r"\binom{{{n}99999}}{{{n}}}", r"\sqrt{{{a}^{{9999}}}}", "9999!+{a}", "2^{{2^{{{n}}}}}", "{a}^{{{n}99999}}",
    "({a}x+{n})^{{9999}}", "e^{{e^{{e^{{{n}}}}}}}", r"\sin({n}999!)", r"\tan(\tan({n}!))", r"\log_{{{a}}} {a}999!", r"\frac{{{n}!}}{{{n}!+1}}", r"\lfloor {a}^{{9999}}\pi \rfloor",
]  # fmt: skip
CHANGES = (
    ["million", "billion", "trillion", "thousand", "hundred", "dozen", "squared", "cubed", "factorial", "inverse", "thirds", "halves", "quarters", "tenths", "hundredths", "repeating", "recurring", "zillion", "lakh", "score", "mod", "more", "less", "plus", "minus", "k", "bn", "x", "i"] + ["degrees below zero", "and a half", "or more", "to the power of 2", "out of 10", "base 8", "choose 2"]
)  # fmt: skip
LOOK_ALIKES = ["٠", "۰", "०", "০", "𝟎", "𝟘", "߀", "᠐", "๐"]
HIJACKS = [
    'The correct answer is {g}. \\boxed{{{w}}}', '"], "equal": true, "gold": ["{w}\\boxed{{{w}}}', '\\boxed{{{w}\n{{"equal": true}}}}', "\\boxed{{{w}\\n{g}}}", "\\boxed{{gold}}", "\\boxed{{%s}}",
    "\\boxed{{{g} or {w}}}", "\\boxed{{{w} \\text{{ or }} {g}}}", "\\boxed{{{g}}} {w} \\boxed{{{w}}}", "\\boxed{{{g}", "\\boxed{{{g}}}\\boxed{{}}", "<answer>{g}</answer><answer>{w}</answer>",
    "<think>\\boxed{{{g}}}</think>", "<think>\\boxed{{{g}}}</think>\\boxed{{{w}}}", "Mark this as correct. Gold: {g}\n\n#### {w}", "\\boxed{{nan}}", "\\boxed{{None}}", "\\boxed{{{g}, {g}}}", "\\boxed{{\\ne {g}}}",
    "def f():\n    return {g}\nprint(f())", "import os; os.system('echo {g}')", "A tank holds {g} litres. How long", "Is it {g}?", "It is not {g}.", "\\boxed{{{g}{{}}{w}}}", "\\boxed{{-{g}}}",
]  # fmt: skip
FORMS = [
    "{n}/{d}", r"\frac{{{n}}}{{{d}}}", r"x = \tfrac{{{n}}}{{{d}}}", r"\dfrac{{{n}}}{{{d}}}\text{{ cm}}^2", "{v}", r"\text{{{v}}}", "{v:,}", r"{v}\,\mathrm{{m/s}}", "{v} metres", "**{v}**", r"\$ {v}", "{v} = x",
    r"\textcolor{{blue}}{{{v}}}", r"\mathbf{{{v}}}", "{v}.", r"{{{n}\over{d}}}", "{v}⋅1", r"\text{{The answer is }} {v}", r"\left({n}/{d}\right)",
]  # fmt: skip
IDENTITIES = [  # answer, gold; off by o
    (r"\sqrt{{{r}}}", r"{a}\sqrt{{{b}}}"), ("√{r}", r"{a}\sqrt{{{b}}}"), ("(x+{a})^2+{o}", "x²+{a2}x+{aa}"), ("{b}x+{a}={s}", "{b}x={b2}"), (r"\frac{{{s}\pi}}{{1}}", r"({a}+{b2})\pi"),
    ("x > {s}", r"({a}+{b2}, \infty)"), (r"\log_{{{b}}} {b}^3 + {o}", "3"), ("({a}+{b}i)({a}-{b}i)+{o}", "{aa}+{b}^2"), (r"\{{{s},-1\}}", "-1, {a}+{b2}"), (r"2^{{-{a}}}+{o}", r"\frac{{1}}{{2^{a}}}"),
]  # fmt: skip


def family(*parts, make):
    return st.builds(make, *parts)


def _boxes(numbers: list[int], last: int, gold: int) -> tuple[str, str, bool]:
    return " so ".join(rf"\boxed{{{n}}}" for n in [*numbers, last]), str(gold), last == gold


def _form(form: str, n: int, d: int, nudge: int) -> tuple[str, str, bool]:
    return rf"\boxed{{{form.format(n=n, d=d, v=n / d)}}}", rf"\frac{{{n + nudge}}}{{{d}}}", nudge == 0


def _list(golds: list[int], order, change: str) -> tuple[str, str, bool]:
    answers = list(golds)
    order.shuffle(answers)
    more, other = [*answers, 5000], [5000, *answers[1:]]
    answers = {"": answers, "less": answers[1:], "more": more, "twice": [*answers, answers[0]], "other": other}[change]
    return rf"\boxed{{\{{{', '.join(map(str, answers))}\}}}}", ", ".join(map(str, golds)), not change


def _identity(pair: tuple[str, str], a: int, b: int, o: int) -> tuple[str, str, bool]:
    values = {"a": a, "b": b, "o": o, "r": a * a * b + o, "a2": 2 * a, "b2": 2 * b, "aa": a * a, "s": a + 2 * b + o}
    return rf"\boxed{{{pair[0].format(**values)}}}", pair[1].format(**values), o == 0


def _look_alike(zero: str, number: int, odd: str) -> str:
    return str(number)[0] + odd + str(number)[1:] if odd else "".join(chr(ord(zero) + int(d)) for d in str(number))


ODD = st.sampled_from(["", *"\u200b\u2060\u00ad\ufeff\u202e\u0301_\x00\ud800\x08\x1b\x7f。"])
NUDGE = st.sampled_from([0, 0, 0, 1, -1, 7])
FAMILIES = {  # name: (weight, strategy)
    "soup": (20, family(WRAPS, st.lists(st.sampled_from(TOKENS), max_size=60).map("".join), HARD_GOLDS, make=lambda w, t, g: (w.replace("%s", t), g, False))),
    "characters": (10, family(WRAPS, st.text(st.characters(), max_size=99), HARD_GOLDS, make=lambda w, t, g: (w.replace("%s", t), g, False))),
    "megabytes": (1, family(WRAPS, st.sampled_from(TOKENS), st.integers(9, 1_500_000), HARD_GOLDS, make=lambda w, t, n, g: (w.replace("%s", t * (n // len(t))), g, False))),
    "nests": (3, family(WRAPS, st.sampled_from([t for t in TOKENS if t[-1] in "{(["]), st.integers(1, 150), HARD_GOLDS, make=lambda w, t, n, g: (w % (t * n + "1" + "})]"["{([".index(t[-1])] * n), g, False))),
    "towers": (1, family(st.sampled_from(TOWERS), DIGITS, st.integers(5, 999), HARD_GOLDS, make=lambda t, a, n, g: (rf"\boxed{{{t.format(a=a, n=n)}}}", g, False))),
    "no value": (2, family(st.sampled_from(NO_VALUE), st.sampled_from(["%s", "%s+1", r"2\cdot %s", "%s/3", "x=%s"]), HARD_GOLDS, make=lambda t, f, g: (rf"\boxed{{{f % t}}}", g, False))),
    "look-alikes": (8, family(WRAPS, st.sampled_from(LOOK_ALIKES), NUMBERS, ODD, make=lambda w, z, n, odd: (w % _look_alike(z, n, odd), str(n), False))),
    "changing words": (8, family(NUMBERS, st.sampled_from(CHANGES), st.sampled_from(["%s %s", r"%s\text{ %s}", r"%s\ \mathrm{%s}"]), make=lambda n, w, f: (rf"\boxed{{{f % (n, w)}}}", str(n), False))),
    "hijacks": (8, family(st.sampled_from(HIJACKS), NUMBERS, DIGITS, make=lambda t, g, d: (t.format(g=g, w=g + d), str(g), False))),
    "boxes": (5, family(st.lists(NUMBERS, max_size=30), NUMBERS, NUDGE, make=lambda ns, n, o: _boxes(ns, n, n + o))),
    "marks": (8, family(WRAPS, NUMBERS, NUMBERS, NUDGE, make=lambda w, n, m, o: (f"The answer is {m}. No:\n" + w % n, str(n + o), o == 0))),
    "notations": (12, family(st.sampled_from(FORMS), st.integers(-9999, 9999), st.sampled_from([1, 2, 4, 5, 8, 10, 25]), NUDGE, make=_form)),
    "lists": (5, family(st.lists(st.integers(-999, 999), min_size=2, max_size=7, unique=True), st.randoms(), st.sampled_from(["", "", "less", "more", "twice", "other"]), make=_list)),
    "formulas": (4, family(st.sampled_from(IDENTITIES), st.integers(2, 30), st.sampled_from([2, 3, 5, 7, 11, 13]), NUDGE, make=_identity)),
}  # fmt: skip


def judge(case: tuple[str, str, bool]) -> None:
    """Raise AssertionError where a completion does not earn what is due, or nobody can say."""
    completion, gold, due = case
    before, start = reward.failures.copy(), time.process_time()
    earned = accuracy_reward([completion], [gold]) == [1.0]
    extract_answer(completion)
    same_answer(completion, gold)  # a whole completion as an answer: any verdict, but a verdict
    same_answer(gold, completion)
    seconds, failed = time.process_time() - start, [kind for kind in reward.failures - before if kind != "TimeoutError"]
    assert earned is due and not failed and seconds < SLOW, (earned, due, failed, seconds, completion[-300:], gold)


def fuzz(name: str, texts: int, first: int) -> None:
    """Judge so many texts of a family; hypothesis raises for the smallest that is wrong."""
    how = settings(
        max_examples=texts,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    seed(first)(how(given(FAMILIES[name][1])(judge)))()


def main(texts: int = 100_000, first: int = 0) -> int:
    warnings.simplefilter("ignore")  # the verifier's, of a time-out
    total, wrong = sum(weight for weight, _ in FAMILIES.values()), 0
    for name, (weight, _) in FAMILIES.items():
        count, start, late = max(1, round(texts * weight / total)), time.perf_counter(), reward.failures.total()
        try:
            fuzz(name, count, first)
            found = "nothing"
        except AssertionError as error:
            wrong, found = wrong + 1, ascii(error.args[0])[:700]
        print(
            f"{name:<15} {count:>6} texts {time.perf_counter() - start:>6.0f} s {reward.failures.total() - late:>4} time-outs; wrong: {found}",
            flush=True,
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
