"""Equality of two formulas by math-verify, in a process of its own that a CPU timer ends.

Imported, this file is the client. Run, it is the helper process, which needs no other file of the project. CPU time makes verdicts
independent of how busy the machine is, and a separate process works in any thread. It is not a multiprocessing pool, which would
run the user's training script once more.
"""

import atexit
import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from functools import lru_cache

SECONDS = 0.6  # CPU time of all pairs of one comparison; a pair takes 0.01 to 0.1
SECONDS_TO_START = 120.0  # importing sympy on a busy machine; half a second on an idle one
SECONDS_OF_GRACE = 20.0  # more wall-clock time before a silent helper is given up
LATE = "the formulas took too much CPU time"
TINY = 1e-100  # what sympy's numbers leave of a true zero
MEMORY = 1 << 30  # bytes of address space of the helper, where the system can limit it


class Helper:
    """Own the helper process. It starts with the first pair and answers one pair at a time, whichever thread asks."""

    def __init__(self):
        self._forget()
        atexit.register(self.stop)
        if hasattr(os, "register_at_fork"):  # two processes cannot share one conversation
            os.register_at_fork(after_in_child=self._forget)

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
                if self.process is None:
                    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "start_new_session": True}
                    self.process = subprocess.Popen([sys.executable, "-P", __file__], **pipes)
                    self._read(SECONDS_TO_START)
                self.process.stdin.write(json.dumps([seconds, answer, gold]).encode() + b"\n")
                self.process.stdin.flush()
                reply = self._read(seconds + SECONDS_OF_GRACE)
            except BaseException:  # an interrupt too: its reply would be taken for the next pair's
                self.stop()
                raise
        if reply.get("error") == LATE:
            raise TimeoutError(LATE)
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply["equal"], reply["seconds"]

    def stop(self) -> None:
        """End the helper process; the next pair starts another."""
        process, self.process = self.process, None
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with its child, which would keep the pipe open
            process.communicate()

    def _read(self, seconds: float) -> dict:
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            raise TimeoutError(f"the helper process was silent for {seconds:g} s")
        if line := self.process.stdout.readline():
            return json.loads(line)
        raise RuntimeError(f"the helper process ended with exit status {self.process.wait()}")

    def _forget(self) -> None:
        self.lock, self.process = threading.Lock(), None


def serve() -> None:
    """Keep a child that answers, until the input ends. A timer ends the child; the next one is there in milliseconds."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the client first
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no reply
    logging.disable(logging.WARNING)  # math-verify warns that its own time limits are off
    with suppress(ImportError, ValueError, OSError):  # not on every system
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    for pair in (
        (r"(x_{1}+1)^{2}\cdot\sqrt{3}", r"|x|+\lfloor\frac{2x}{(2+\pi)}\rfloor"),
        (r"\sin(\sqrt{2})", r"\log_{2}{3}!"),
        ("x>2", r"(2,\infty)"),
        (r"[1,2)\cup(3,4]", r"\begin{matrix}1&2\\3&4\end{matrix}"),
    ):
        equal(*pair)  # sets up the parser, which takes longer than a pair may
    print("{}", file=replies)
    while True:
        if (child := os.fork()) == 0:
            try:
                answer_pairs(replies)
                os._exit(0)
            finally:
                os._exit(1)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status not in (-signal.SIGPROF, -signal.SIGSEGV):  # those two end a child in the middle of a pair only
            sys.exit(status)
        print(json.dumps({"error": LATE if status == -signal.SIGPROF else "a crash"}), file=replies)


def answer_pairs(replies) -> None:
    """Answer pairs, one JSON line each. A timer without handler ends the process even within one multiplication."""
    for line in sys.stdin:
        seconds, answer, gold = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            reply = {"equal": bool(equal(answer, gold))}
        except Exception as error:  # whatever sympy raises is the client's to count
            reply = {"error": f"{type(error).__name__}: {error}"[:200]}
        left = signal.setitimer(signal.ITIMER_PROF, 0)[0]
        print(json.dumps(reply | {"seconds": seconds - left}), file=replies)


def equal(answer: str, gold: str) -> bool:
    """Return whether two formulas have equal values, or are one equation up to a factor, or one set, or one matrix."""
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
            return same_values(answer.lhs - answer.rhs, gold.lhs - gold.rhs, up_to_a_factor=True)
        # the order matters: an answer is read in the light of the gold, not the other way round
        return verify(gold, answer, timeout_seconds=None, allow_set_relation_comp=True, raise_on_error=True)
    except (ArithmeticError, ValueError, AttributeError, TypeError, LookupError, NotImplementedError, RecursionError):
        return False  # a pole (csc(0) is an AttributeError in sympy), an infinity, what sympy cannot compute or solve


@lru_cache(maxsize=4096)
def parse(latex: str):
    """Return math-verify's sympy object of a formula from `compare.formula`; None where its grammar has no place for it."""
    from latex2sympy2_extended import latex2sympy
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig
    from math_verify.grader import unwrap_fcs
    from sympy import Basic, E, Float, I, MatrixBase, Rational, Symbol

    how = ConversionConfig(interpret_as_mixed_fractions=False, lowercase_symbols=False)  # N is not n
    try:
        found = latex2sympy(latex, normalization_config=None, conversion_config=how)
    except Exception:  # its errors have no type of their own
        return None
    if not isinstance(found, Basic | MatrixBase):
        return None
    found = unwrap_fcs(found)
    names = {"e": E, "i": I}
    exact = {number: Rational(str(number)) for number in found.atoms(Float)}
    return found.xreplace(
        exact | {symbol: names.get(symbol.name, Symbol(symbol.name)) for symbol in found.atoms(Symbol)}
    )


def same_values(a, b, up_to_a_factor: bool = False) -> bool:
    """Return whether two expressions have values and agree at every point, relative to their size.

    math-verify simplifies, which takes seconds, and rounds to 6 decimals, so that 1/2^99 is 1/2^98 to it.
    """
    pairs = [(value(a, point), value(b, point)) for point in points(a, b)]
    if any(x is None or y is None for x, y in pairs):
        return False
    if up_to_a_factor:
        x0, y0 = pairs[0]
        pairs = [(x * y0, y * x0) for x, y in pairs[1:]]
        if not (x0 and y0 and pairs):
            return False
    return all(abs(x - y) <= abs(y) / 10**24 or (x * y == 0 and abs(x - y) < TINY) for x, y in pairs)


def value(expression, point: dict):
    """Return an expression's value at a point; None if it has none, or if more digits give another: 1/(1 - 1) is noise."""
    from sympy import sympify

    found = sympify(expression).subs(point).doit()
    fewer, more = (found.evalf(digits, maxn=200) for digits in (30, 45))
    real, imaginary = more.as_real_imag()
    if not all((part.is_Float or part.is_Rational) and part.is_finite for part in (real, imaginary)):
        return None
    return more if abs(fewer - more) <= abs(more) / 10**24 + TINY else None


def points(a, b) -> list[dict]:
    """Return points of either sign, or the empty one for constants. Rounded terms are also compared at whole numbers, where an
    off-by-one shows, and only there if all variables are named i to n.
    """
    from sympy import Rational, ceiling, floor

    symbols = sorted(a.free_symbols | b.free_symbols, key=str)
    scales = (1, 7, -3) if symbols else (1,)  # on no line through the origin, where y = 2x and x = 2y are proportional
    found = [
        {x: Rational(113 * s + (17 * s * s + 36) * k + 5 * k**3, 97) for k, x in enumerate(symbols)} for s in scales
    ]
    if not symbols or not (a.has(floor, ceiling) or b.has(floor, ceiling)):
        return found
    whole = [{x: n + n * n % 7 * k for k, x in enumerate(symbols)} for n in (*range(1, 13), 97, 360, 1000, 12345)]
    return whole if {x.name for x in symbols} <= set("ijklmn") else whole + found


if __name__ == "__main__":
    serve()
