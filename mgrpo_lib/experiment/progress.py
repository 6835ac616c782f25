"""Progress of long work: a state file that the pipeline reads, and a plain line now and then. No bars: they flood executed
notebooks.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median

from IPython import get_ipython

from mgrpo_lib.experiment.store import write_json

RECENT = 15  # steps whose median length tells the time to go
FEWEST, SHARE = 3, 0.05  # that many of them, and that share of the whole, are seen before it is told


def clock(seconds: float) -> str:
    """``75`` as ``1:15``."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def say(line: str) -> None:
    print(line, flush=True)


def notebook_is_open() -> bool:
    """True if a person looks at this through a notebook; papermill and nbconvert cannot answer input requests, and say so."""
    shell = get_ipython()
    if shell is None:
        return False
    from ipykernel.zmqshell import ZMQInteractiveShell  # Colab's and VS Code's shells are of this kind, too

    return isinstance(shell, ZMQInteractiveShell) and shell.kernel.get_parent("shell")["content"]["allow_stdin"]


class Progress:
    """Count steps, write `file` at most once a second, and say rate and remaining time every `every` seconds.

    Args:
        file: gets ``{"step", "total", "to_go", "note"}``; ``to_go`` in seconds, None while it is not known. None: no file.
        total: number of steps.
        done: steps that an earlier, interrupted process had done.
        every: seconds between two lines.
        show: gets each line; prints by default.
        now: a clock, in seconds.
    """

    def __init__(
        self,
        file: Path | None,
        total: int,
        done: int = 0,
        every: float = 20.0,
        show: Callable[[str], None] = say,
        now: Callable[[], float] = time.monotonic,
    ):
        self.file, self.total, self.done, self.every, self.show, self.now = file, total, done, every, show, now
        self.start = self.written = self.said = now()
        self.marks: deque = deque(maxlen=RECENT + 1)  # (step, seconds) of the last updates
        self.told_from = done + max(FEWEST + 1, math.ceil(SHARE * total))  # the first step warms up and does not count

    def update(self, step: int, note: str = "", details: str = "") -> None:
        """Record a finished step; `details` go into the printed line alone, where there is more room."""
        now = self.now()
        self.marks.append((step, now))
        to_go = self.to_go(step)
        if self.file and (now - self.written >= 1 or step == self.total):
            write_json(self.file, {"step": step, "total": self.total, "to_go": to_go, "note": note})
            self.written = now
        if now - self.said >= self.every or step == self.total:
            left = f"time to go: told from step {self.told_from} on" if to_go is None else f"{clock(to_go)} to go"
            self.show(f"step {step}/{self.total}  {note}{details}  {clock(now - self.start)} gone, {left}")
            self.said = now

    def to_go(self, step: int) -> float | None:
        """Return the seconds to go after a step; None while too few are seen."""
        lengths = [(end - begin) / (j - i) for (i, begin), (j, end) in pairwise(self.marks) if j > i]
        if step == self.total:
            return 0.0
        if step < self.told_from or len(lengths) < FEWEST:
            return None
        return round((self.total - step) * median(lengths), 1)
