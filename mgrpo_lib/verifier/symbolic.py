"""Equality of two formulas by math-verify, in a process of its own.

Imported, this file is the client. Run, it is the helper process, which needs no other file of the project. The helper forks
a child that answers pairs; a CPU timer ends the child when a pair takes too long, so verdicts do not depend on how busy the
machine is. This works in any thread and in notebooks. A multiprocessing pool would import the user's training script once more.
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
from contextlib import suppress
from functools import lru_cache

SECONDS = 0.8  # CPU time of all pairs of one comparison; a pair takes 0.01 to 0.1
SECONDS_TO_START = 120.0  # importing sympy on a busy machine; half a second on an idle one
SECONDS_OF_GRACE = 20.0  # more wall-clock time before a silent helper is given up
MEMORY = 1 << 30  # bytes of address space of a child, where the system can limit it


# ----------------------------------------------------------------------------------------------------------- the client
class Helper:
    """Own the helper process; it starts with the first pair and answers one pair at a time, from any thread."""

    def __init__(self):
        self.lock, self.process = threading.Lock(), None
        atexit.register(self.stop)
        if hasattr(os, "register_at_fork"):  # two processes cannot share one conversation
            os.register_at_fork(after_in_child=lambda: self.__dict__.update(lock=threading.Lock(), process=None))

    def equal(self, answer: str, gold: str, seconds: float = SECONDS) -> tuple[bool, float]:
        """Return whether two formulas are equal, and the CPU seconds that took.

        Raises:
            TimeoutError: it took more CPU time than `seconds`.
            RuntimeError: the helper failed; the text has its error.
        """
        if seconds <= 0:
            raise TimeoutError("no time left for this pair")
        with self.lock:
            try:
                self._start()
                self.process.stdin.write(json.dumps([seconds, answer, gold]).encode() + b"\n")
                self.process.stdin.flush()
                reply = self._read(seconds + SECONDS_OF_GRACE)
            except BaseException:  # an interrupt too: its reply would be taken for the next pair's
                self.stop()
                raise
        if "late" in reply:
            raise TimeoutError(f"no verdict within {seconds:.2g} s")
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply["equal"], reply["seconds"]

    def _start(self) -> None:
        if self.process is None:
            command = [sys.executable, "-P", __file__]  # -P: this folder's modules must not hide others' names
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "start_new_session": True}
            self.process = subprocess.Popen(command, **pipes)
            self._read(SECONDS_TO_START)

    def stop(self) -> None:
        """End the helper process; the next pair starts another."""
        process, self.process = self.process, None
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with its child, which would keep the pipe open
            process.communicate()

    def _read(self, seconds: float) -> dict:
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            raise TimeoutError(f"no verdict within {seconds:g} s")
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the helper process ended with exit status {self.process.wait()}")
        return json.loads(line)


# ----------------------------------------------------------------------------------------------------------- the helper
def serve() -> None:
    """Keep a child that answers, until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the client first
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no reply
    logging.disable(logging.WARNING)  # math-verify warns that its own time limits are off
    with suppress(ImportError, ValueError, OSError):  # not on every system
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    for pair in (("(x+1)^{2}", r"x^{2}+2x+\frac{2}{2}"), (r"\sin(\sqrt{2})", r"\log_{2}{3}!"), ("x>2", r"(2,\infty)")):
        equal(*pair)  # what the first pair of a kind sets up, every child has
    print("{}", file=replies)
    while True:
        if (child := os.fork()) == 0:
            try:
                _answer(replies)
                os._exit(0)
            finally:
                os._exit(1)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status not in (-signal.SIGPROF, -signal.SIGSEGV):  # those two end a child in the middle of a pair only
            sys.exit(status)
        print(json.dumps({"late": True} if status == -signal.SIGPROF else {"error": "a crash"}), file=replies)


def _answer(replies) -> None:
    """Answer pairs, one JSON line each. A timer without handler ends a process even within one multiplication."""
    for line in sys.stdin:
        seconds, answer, gold = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            reply = {"equal": bool(equal(answer, gold))}
        except Exception as error:  # whatever sympy raises is the client's to count
            reply = {"error": f"{type(error).__name__}: {error}"[:200]}
        left = signal.setitimer(signal.ITIMER_PROF, 0)[0]  # off, else there could be two replies
        print(json.dumps(reply | {"seconds": seconds - left}), file=replies)


def equal(answer: str, gold: str) -> bool:
    """Return whether two formulas have equal values, or are one equation up to a factor, or one set. A formula that cannot be
    parsed equals nothing.
    """
    from math_verify import verify
    from sympy import Eq, Expr, Set

    try:
        answer, gold = parse(answer), parse(gold)
        if answer is None or gold is None:
            return False
        if isinstance(answer, Set) == isinstance(gold, Set) and answer.free_symbols != gold.free_symbols:
            return False
        if isinstance(answer, Expr) and isinstance(gold, Expr):
            return same_values(answer, gold)
        if isinstance(answer, Eq) and isinstance(gold, Eq):
            return proportional(answer.lhs - answer.rhs, gold.lhs - gold.rhs)
        # the order matters: an answer is read in the light of the gold, not the other way round
        return verify(gold, answer, timeout_seconds=None, allow_set_relation_comp=True, raise_on_error=True)
    except (ArithmeticError, ValueError, AttributeError, TypeError, LookupError, NotImplementedError):
        return False  # a pole (csc(0) is an AttributeError in sympy), an infinity, a set that sympy cannot solve


@lru_cache(maxsize=4096)
def parse(latex: str):
    """Return math-verify's sympy object of LaTeX that `compare.formula` prepared, or None where its grammar has no place for it."""
    from latex2sympy2_extended import latex2sympy
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig
    from math_verify.grader import unwrap_fcs
    from sympy import Basic, E, Float, I, Rational, Symbol

    how = ConversionConfig(interpret_as_mixed_fractions=False, lowercase_symbols=False)  # (2)(3) is 6, N is not n
    try:
        found = latex2sympy(latex, normalization_config=None, conversion_config=how)
    except Exception:  # its errors have no type of their own
        return None
    if not isinstance(found, Basic):
        return None
    names = {"e": E, "i": I}
    found = unwrap_fcs(found).xreplace({number: Rational(str(number)) for number in found.atoms(Float)})
    return found.xreplace({symbol: names.get(symbol.name, Symbol(symbol.name)) for symbol in found.atoms(Symbol)})


def same_values(a, b) -> bool:
    """Return whether two expressions have values and agree at every point, relative to their size.

    math-verify simplifies, which takes seconds, and rounds to 6 decimals, so that 1/2^99 is 1/2^98 to it.
    """
    return all(_has_value(a, point) and _has_value(b, point) and _zero(a - b, b, point) for point in _points(a, b))


def proportional(a, b) -> bool:
    """Return whether a is a constant multiple of b: then a = 0 and b = 0 are one equation."""
    first, *others = _points(a, b)
    a0, b0 = a.subs(first), b.subs(first)
    zero = any(_zero(e, 1, first) for e in (a, b))
    return not zero and all(_has_value(a, point) and _zero(a * b0 - b * a0, a * b0, point) for point in others)


def _points(a, b) -> list[dict]:
    """Return points of either sign, or the empty one for constants. Rounded terms are also compared at whole numbers, where an
    off-by-one shows; variables named i to n are whole numbers there.
    """
    from sympy import Rational, ceiling, floor

    symbols = sorted(a.free_symbols | b.free_symbols, key=str)
    scales = (1, 7, -3) if symbols else (1,)
    points = [{x: Rational(scale * (113 + 31 * k), 97) for k, x in enumerate(symbols)} for scale in scales]
    if not symbols or not (a.has(floor, ceiling) or b.has(floor, ceiling)):
        return points
    whole = [{x: n + n * n % 7 * k for k, x in enumerate(symbols)} for n in (*range(1, 13), 97, 360, 1000, 12345)]
    return whole if {x.name for x in symbols} <= set("ijklmn") else whole + points


def _zero(difference, size, point: dict) -> bool:
    """Return whether a difference of terms of this size is zero at a point; of a true zero far less is left."""
    from sympy import Rational

    difference, size = _size(difference, point), _size(size, point)
    if difference is None or size is None:
        return False
    return bool(difference <= Rational(1, 10**20) * size or (size == 0 and difference <= Rational(1, 10**100)))


def _has_value(expression, point: dict) -> bool:
    """Return whether more digits give the same value; what sympy computes for 1/(1 - 1) is noise."""
    from sympy import Rational

    fewer, more = (_size(expression, point, digits) for digits in (20, 30))
    return fewer is not None and more is not None and bool(abs(fewer - more) <= Rational(1, 10**15) * fewer + Rational(1, 10**100))


def _size(expression, point: dict, digits: int = 20):
    """Return the absolute value at a point, or None without a finite one. The sign is taken off last: sympy's Abs of a pole is
    below zero.
    """
    from sympy import sympify

    size = abs(sympify(expression).subs(point).doit().evalf(digits, maxn=200)).evalf(digits)
    return size if (size.is_Float or size.is_Rational) and size.is_finite else None


if __name__ == "__main__":
    serve()
