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
        file: where the state goes, as ``{"step", "total", "seconds", "note"}``.
        total: number of steps.
        every: seconds between two printed lines.
    """

    def __init__(self, file: Path, total: int, every: float = 20.0):
        self.file, self.total, self.every = file, total, every
        self.start = self.written = self.printed = time.monotonic()

    def update(self, step: int, note: str = "") -> None:
        now = time.monotonic()
        seconds = now - self.start
        if now - self.written >= 1 or step == self.total:
            write_json(self.file, {"step": step, "total": self.total, "seconds": round(seconds, 1), "note": note})
            self.written = now
        if now - self.printed >= self.every or step == self.total:
            rate = step / max(seconds, 1e-9)
            print(
                f"step {step}/{self.total}  {note}  {rate:.2f} steps/s  {clock(seconds)} gone, {clock((self.total - step) / rate)} to go",
                flush=True,
            )
            self.printed = now
