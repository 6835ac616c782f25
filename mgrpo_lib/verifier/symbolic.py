"""Equality of two formulas by math-verify, in a process of its own.

math-verify's own time limit is `signal.alarm`, which fails outside the main thread; without a limit, sympy can compute
for ever. So formulas are compared by a helper process. It is started with the first formula, and forks a child that
answers one pair after the other; the system's timer ends the child when a pair's time is over, whatever it computes,
and the next child is there in milliseconds. That works in any thread, in notebooks, leaves nothing behind, and keeps
sympy out of the training process. This file is both sides: imported, the client; run, the helper.
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
import time
from contextlib import suppress
from functools import lru_cache

SECONDS = 0.6  # of a core for all pairs of one comparison, so that a busy machine changes no verdict; a pair takes 0.01 to 0.1
SECONDS_TO_START = 120.0  # importing sympy on a busy machine; a third of a second on an idle one
SECONDS_OF_GRACE = 20.0  # of wall-clock more, before a helper that does not even tell of a time-out is given up
MEMORY = 1 << 30  # bytes of address space of a child, where the system can limit it
GREEK = (  # letters that stand for a variable
    "alpha|beta|gamma|delta|epsilon|varepsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|rho|sigma|tau|phi|varphi|chi|psi|omega"
)


# ----------------------------------------------------------------------------------------------------------- the client
class Helper:
    """The helper process, started when needed; one pair at a time, whichever thread asks."""

    def __init__(self):
        self.lock, self.process = threading.Lock(), None
        atexit.register(self.stop)
        if hasattr(os, "register_at_fork"):  # two processes cannot share one conversation
            os.register_at_fork(after_in_child=self._forget)

    def equal(self, answer: str, gold: str, seconds: float = SECONDS) -> tuple[bool, float]:
        """Whether two formulas in cleaned LaTeX are equal, and the seconds of a core that it took.

        Raises:
            TimeoutError: it took more than these seconds of a core; the helper's start is not among them.
            RuntimeError: the helper failed, with its error.
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
        if self.process is not None:
            return
        try:
            command = [sys.executable, "-P", __file__]  # -P: this folder's modules must not hide others' names
            how = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "start_new_session": True}
            self.process = subprocess.Popen(command, **how)
            self._read(SECONDS_TO_START)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
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

    def _forget(self) -> None:
        self.lock, self.process = threading.Lock(), None


# ----------------------------------------------------------------------------------------------------------- the helper
def serve() -> None:
    """Keeps a child that answers, until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the client first
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # whatever the client did with it
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no reply
    import math_verify  # noqa: F401  now, while the client waits for the start

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its time limits are off
    _limit_memory()
    for pair in ((r"(x+1)^2", r"x^2+2x+\frac{2}{2}"), (r"\sin(\sqrt{2})", "1"), ("x>2", r"(2,\infty)")):
        equal(*pair)  # what the first pair of a kind sets up, every child has
    print("{}", file=replies)
    while True:
        child = os.fork()
        if child == 0:
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
    """Answers pairs, one JSON line each. A timer that nobody handles ends a process even within one multiplication."""
    for line in sys.stdin:
        seconds, answer, gold = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, seconds)  # of a core
        start = time.process_time()
        try:
            reply = {"equal": bool(equal(answer, gold)), "seconds": time.process_time() - start}
        except Exception as error:  # whatever sympy raises is the client's to count
            reply = {"error": f"{type(error).__name__}: {error}"[:200]}
        signal.setitimer(signal.ITIMER_PROF, 0)  # else there could be two replies
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
    try:
        answer, gold = parse(answer), parse(gold)
        if answer is None or gold is None or not (same_variables or isinstance(gold, Set) != isinstance(answer, Set)):
            return False
        if isinstance(answer, Expr) and isinstance(gold, Expr):
            return same_values(answer, gold)
        if isinstance(answer, Eq) and isinstance(gold, Eq):
            return proportional(answer.lhs - answer.rhs, gold.lhs - gold.rhs)
    except (ArithmeticError, ValueError, AttributeError):
        return False  # a pole (csc(0) is an AttributeError in sympy), or too many digits: the floor of a huge number
    # the order matters: an answer is read in the light of the gold, not the other way round
    return verify(gold, answer, timeout_seconds=None, allow_set_relation_comp=True, raise_on_error=True)


def variables(latex: str) -> set[str]:
    """Letters, each one of a product like ``xy``, and Greek letters, but not the constants e, i and pi."""
    letters = re.findall("[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", latex))
    return {*letters, *re.findall(rf"\\(?:{GREEK})(?![a-zA-Z])", latex)} - {"e", "i"}


@lru_cache(maxsize=4096)
def parse(latex: str):
    """The sympy object, or None where math-verify does not understand the text.

    The text is always wrapped in a box: bare LaTeX is misread (``3\\sqrt{13}`` as 3). Only the first match counts and
    there is no fallback, for that would be a number from inside of what was not understood.
    """
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse
    from sympy import Basic, Eq, Expr, Float, I, Rational, Symbol

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
    symbols = {s: I for s in found[0].free_symbols if s.name == "i"}
    if isinstance(found[0], Expr | Eq):  # beside an i letters are read as complex ones, which equal no others
        symbols = {s: Symbol(s.name) for s in found[0].free_symbols} | symbols
    return found[0].xreplace(exact | symbols)


def same_values(a, b) -> bool:
    """Whether two expressions have values and agree at every point, relative to their size: math-verify rounds to 6
    decimals, so that 1/2^99 is 1/2^98 to it, and simplifies first, which takes seconds.
    """
    return all(_has_value(a, point) and _has_value(b, point) and _zero(a - b, b, point) for point in _points(a, b))


def proportional(a, b) -> bool:
    """Whether a is a constant multiple of b: then a = 0 and b = 0 are one equation."""
    first, *others = _points(a, b)
    a0, b0 = a.subs(first), b.subs(first)
    zero = any(_zero(e, 1, first) for e in (a, b))
    return not zero and all(_has_value(a, point) and _zero(a * b0 - b * a0, a * b0, point) for point in others)


def _points(a, b) -> list[dict]:
    """Points of either sign; one, the empty one, for two constants. Rounded terms are compared at whole numbers, too: an off-by-one
    shows nowhere else; where all variables are called as whole numbers are, there alone: the ceiling of n/2 is the floor of (n+1)/2.
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
    """Whether the difference of two terms of this size is zero at a point; of a true zero far less is left."""
    from sympy import Rational

    difference, size = _size(difference, point), _size(size, point)
    if difference is None or size is None:
        return False
    return bool(difference <= Rational(1, 10**20) * size or (size == 0 and difference <= Rational(1, 10**100)))


def _has_value(expression, point: dict) -> bool:
    """Whether more digits give the same value; what sympy computes for 1/(1 - 1) is noise, and anything to a tolerance
    relative to it.
    """
    from sympy import Rational

    fewer, more = (_size(expression, point, digits) for digits in (20, 30))
    tiny = Rational(1, 10**100)  # what is left of a zero
    return fewer is not None and more is not None and bool(abs(fewer - more) <= Rational(1, 10**15) * fewer + tiny)


def _size(expression, point: dict, digits: int = 20):
    """The absolute value at a point: sympy computes so many right digits, with up to 200 digits in between. None
    without a finite one: 1/0, an unknown function. The value comes first and its sign is
    taken off then, for what sympy computes for Abs of a pole is below zero.
    """
    from sympy import sympify

    size = abs(sympify(expression).subs(point).evalf(digits, maxn=200)).evalf(digits)
    return size if (size.is_Float or size.is_Rational) and size.is_finite else None


if __name__ == "__main__":
    serve()
