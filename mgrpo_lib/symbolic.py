"""Equality of two formulas by math-verify, in a process of its own.

math-verify's own time limit is `signal.alarm`, which fails outside the main thread; without a limit, sympy can compute
for ever. So formulas are compared by a helper process: it is started with the first formula, answers one pair after the
other, and is killed and replaced when a pair takes too long. That works in any thread, in notebooks, and keeps sympy
out of the training process. This file is both sides: imported, the client; run, the helper.
"""

import atexit
import json
import logging
import os
import re
import select
import signal
import subprocess
import sys
import threading
from functools import lru_cache

SECONDS = 5.0  # for one pair; typical ones take milliseconds
SECONDS_TO_START = 120.0  # importing sympy on a busy machine
MEMORY = 4 << 30  # bytes of address space of the helper, where the system can limit it


# ----------------------------------------------------------------------------------------------------------- the client
class Helper:
    """The helper process, started when needed; one pair at a time, whichever thread asks."""

    def __init__(self):
        self.lock, self.process = threading.Lock(), None
        atexit.register(self.stop)
        if hasattr(os, "register_at_fork"):  # two processes cannot share one conversation
            os.register_at_fork(after_in_child=self._forget)

    def equal(self, answer: str, gold: str) -> bool:
        """Whether two formulas in cleaned LaTeX are equal.

        Raises:
            TimeoutError: it took more than `SECONDS`; the helper is replaced.
            RuntimeError: the helper failed, with its error.
        """
        with self.lock:
            try:
                if self.process is None:
                    command = [sys.executable, "-P", __file__]  # -P: this folder's modules must not hide others' names
                    self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                    self._read(SECONDS_TO_START)
                self.process.stdin.write(json.dumps([answer, gold]).encode() + b"\n")
                self.process.stdin.flush()
                reply = self._read(SECONDS)
            except BaseException:  # an interrupt too: its reply would be taken for the next pair's
                self.stop()
                raise
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply["equal"]

    def stop(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _read(self, seconds: float) -> dict:
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            raise TimeoutError(f"no verdict within {seconds:g} s")
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the helper process ended with exit status {self.process.wait()}")
        return json.loads(line)

    def _forget(self) -> None:
        self.lock, self.process = threading.Lock(), None


# ----------------------------------------------------------------------------------------------------------- the helper
def serve() -> None:
    """Answers pairs, one JSON line each, until its input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal, and ends the client first
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no reply
    _limit_memory()
    import math_verify  # noqa: F401  now, while the client waits for the start

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its time limits are off
    print("{}", file=replies)
    for line in sys.stdin:
        try:
            reply = {"equal": bool(equal(*json.loads(line)))}
        except Exception as error:  # whatever sympy raises is the client's to count
            reply = {"error": f"{type(error).__name__}: {error}"[:200]}
        print(json.dumps(reply), file=replies)


def _limit_memory() -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    except (ImportError, ValueError, OSError):
        pass  # not on this system


def equal(answer: str, gold: str) -> bool:
    """Whether two formulas in cleaned LaTeX have the same value (with variables: the same values at a few points), or
    are equations that differ by a constant factor; sets and inequalities as math-verify compares them. A formula that
    cannot be parsed equals nothing.
    """
    from math_verify import verify
    from sympy import Eq, Expr, Set

    same_variables = variables(answer) == variables(gold)  # as written: math-verify reads N as n
    answer, gold = parse(answer), parse(gold)
    if answer is None or gold is None or not (same_variables or isinstance(gold, Set) != isinstance(answer, Set)):
        return False
    if isinstance(answer, Expr) and isinstance(gold, Expr):
        return same_values(answer, gold)
    if isinstance(answer, Eq) and isinstance(gold, Eq):
        return proportional(answer.lhs - answer.rhs, gold.lhs - gold.rhs)
    # the order matters: an answer is read in the light of the gold, not the other way round
    return verify(gold, answer, timeout_seconds=None, allow_set_relation_comp=True, raise_on_error=True)


def variables(latex: str) -> set[str]:
    """Letters and Greek letters, but not the constants e and i."""
    return set(re.findall(r"\\(?:var)?[a-z]+(?<=[aeou])(?![a-z])|(?<![\\a-zA-Z])[a-zA-Z]", latex)) - {"e", "i"}


@lru_cache(maxsize=4096)
def parse(latex: str):
    """The sympy object, or None where math-verify does not understand the text.

    The text is always wrapped in a box: bare LaTeX is misread (``3\\sqrt{13}`` as 3). Only the first match counts and
    there is no fallback, for that would be a number from inside of what was not understood.
    """
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse
    from sympy import Basic, Float, I, Rational

    # cleaning is done before; math-verify's own would take the t of 4t for a unit
    as_it_is = NormalizationConfig(False, False, False, False, boxed="last")
    found = parse(
        rf"\boxed{{{latex}}}",
        [LatexExtractionConfig(normalization_config=as_it_is)],
        fallback_mode="no_fallback",
        extraction_mode="first_match",
        parsing_timeout=None,
    )
    if len(found) != 1 or not isinstance(found[0], Basic):
        return None
    exact = {number: Rational(str(number)) for number in found[0].atoms(Float)}
    return found[0].xreplace(exact | {s: I for s in found[0].free_symbols if s.name == "i"})


def same_values(a, b) -> bool:
    """Whether two expressions agree at every point, relative to their size: math-verify rounds to 6 decimals, so that
    1/2^99 is 1/2^98 to it, and simplifies first, which takes seconds.
    """
    return all(_zero(a - b, b, point) for point in _points(a, b))


def proportional(a, b) -> bool:
    """Whether a is a constant multiple of b: then a = 0 and b = 0 are one equation."""
    first, *others = _points(a, b)
    a0, b0 = a.subs(first), b.subs(first)
    zero = any(_zero(e, 1, first) for e in (a, b))
    return not zero and all(_zero(a * b0 - b * a0, a * b0, point) for point in others)


def _points(a, b) -> list[dict]:
    """Points of either sign; one, the empty one, for two constants."""
    from sympy import Rational

    symbols = sorted(a.free_symbols | b.free_symbols, key=str)
    scales = (1, 7, -3) if symbols else (1,)
    return [{x: Rational(scale * (113 + 31 * k), 97) for k, x in enumerate(symbols)} for scale in scales]


def _zero(difference, size, point: dict) -> bool:
    """Whether the difference of two terms of this size is zero at a point: sympy computes 20 right digits of it, with
    up to 200 digits in between, so that what is left of a true zero is far smaller.
    """
    from sympy import Rational, sympify

    difference, size = (abs(sympify(e).subs(point)).evalf(20, maxn=200) for e in (difference, size))
    if not (difference.is_Float or difference.is_Rational):
        return False  # no value: 1/0, an unknown function
    return bool(difference <= Rational(1, 10**20) * size or (size == 0 and difference <= Rational(1, 10**100)))


if __name__ == "__main__":
    serve()
