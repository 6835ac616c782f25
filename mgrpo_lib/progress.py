"""Progress of long work: a file that the runner reads, and a plain line now and then. No bars: they flood executed
notebooks.
"""

import time
from pathlib import Path

from mgrpo_lib.store import write_json


def clock(seconds: float) -> str:
    """``75`` as ``1:15``."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class Progress:
    """Counts steps, writes `file` at most once a second, and prints a line with rate and remaining time every `every`
    seconds.

    Args:
        file: where the state goes, as ``{"step", "total", "to_go", "note"}``; ``to_go`` in seconds.
        total: number of steps.
        done: steps that an earlier, interrupted process had done.
        every: seconds between two printed lines.
    """

    def __init__(self, file: Path, total: int, done: int = 0, every: float = 20.0):
        self.file, self.total, self.done, self.every = file, total, done, every
        self.start = self.written = self.printed = time.monotonic()

    def update(self, step: int, note: str = "") -> None:
        now = time.monotonic()
        seconds = now - self.start
        rate = max(step - self.done, 1e-9) / max(seconds, 1e-9)
        to_go = (self.total - step) / rate
        if now - self.written >= 1 or step == self.total:
            write_json(self.file, {"step": step, "total": self.total, "to_go": round(to_go, 1), "note": note})
            self.written = now
        if now - self.printed >= self.every or step == self.total:
            print(
                f"step {step}/{self.total}  {note}  {rate:.2f} steps/s  {clock(seconds)} gone, {clock(to_go)} to go",
                flush=True,
            )
            self.printed = now
