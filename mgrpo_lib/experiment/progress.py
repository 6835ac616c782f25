"""Progress of long work: a state file that the pipeline reads, and a plain line now and then. No bars: they flood executed
notebooks.
"""

import time
from collections.abc import Callable
from pathlib import Path

from IPython import get_ipython

from mgrpo_lib.experiment.store import write_json


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
        file: gets ``{"step", "total", "to_go", "note"}``; ``to_go`` in seconds.
        total: number of steps.
        done: steps that an earlier, interrupted process had done.
        every: seconds between two lines.
        show: gets each line; prints by default.
        now: a clock, in seconds.
    """

    def __init__(
        self,
        file: Path,
        total: int,
        done: int = 0,
        every: float = 20.0,
        show: Callable[[str], None] = say,
        now: Callable[[], float] = time.monotonic,
    ):
        self.file, self.total, self.done, self.every, self.show, self.now = file, total, done, every, show, now
        self.start = self.written = self.said = now()

    def update(self, step: int, note: str = "", details: str = "") -> None:
        """Record a finished step; `details` go into the printed line alone, where there is more room."""
        now = self.now()
        seconds = now - self.start
        rate = max(step - self.done, 1e-9) / max(seconds, 1e-9)
        to_go = (self.total - step) / rate
        if now - self.written >= 1 or step == self.total:
            write_json(self.file, {"step": step, "total": self.total, "to_go": round(to_go, 1), "note": note})
            self.written = now
        if now - self.said >= self.every or step == self.total:
            spent = f"{rate:.2f} steps/s  {clock(seconds)} gone, {clock(to_go)} to go"
            self.show(f"step {step}/{self.total}  {note}{details}  {spent}")
            self.said = now
