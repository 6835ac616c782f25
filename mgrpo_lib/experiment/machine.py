"""Facts about this machine that a command needs before it starts: memory, cores, disk, GPUs. No torch, which takes seconds."""

import errno
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import psutil

NOTEBOOK_GIB = {"miniature": 2, "llm": 8}  # memory of one notebook; a large model's is on the GPU


def gpus() -> list[tuple[str, float]]:
    """Return name and memory (GiB) of each CUDA GPU by nvidia-smi; none if that is missing or fails."""
    call = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        text = subprocess.run(call, capture_output=True, text=True, timeout=30, check=True).stdout
        found = [line.rsplit(",", 1) for line in text.splitlines() if line.strip()]
        return [(name.strip(), float(mib) / 1024) for name, mib in found]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []


def memory() -> tuple[float, float]:
    """Return total and free memory in GiB; in a container with a limit, the container's, which psutil does not see."""
    whole = psutil.virtual_memory()
    total, free = whole.total, whole.available
    group = "/sys/fs/cgroup/memory"
    limit, used, stat = (_read(f"{group}.{name}") for name in ("max", "current", "stat"))
    if not limit:  # control groups, version 1
        limit, used, stat = (_read(f"{group}/memory.{name}") for name in ("limit_in_bytes", "usage_in_bytes", "stat"))
    if limit.isdecimal() and int(limit) < total:
        total = int(limit)
        cached = re.search(r"(?m)^inactive_file (\d+)$", stat)  # counted as used, and given back when needed
        free = min(free, total - int(used or 0) + int(cached.group(1) if cached else 0))
    return total / 2**30, free / 2**30


def cores() -> float:
    """Return the cores that this process gets; in a container with a quota, a fraction of them."""
    allowed = len(psutil.Process().cpu_affinity())
    quota, _, period = _read("/sys/fs/cgroup/cpu.max").partition(" ")
    return min(allowed, int(quota) / int(period)) if quota.isdecimal() else allowed


def disk(folder: Path) -> tuple[float, str]:
    """Return the GB free for a folder, made or not yet, and why nothing can be written there (empty: it can)."""
    above = [folder, *folder.parents]
    place = next(path for path in above if os.path.isdir(path))
    unwritable = next(
        (f"{path} is no folder" for path in above if os.path.lexists(path) and not os.path.isdir(path)), ""
    )
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"x" * 4096)
            file.flush()
    except OSError as error:
        unwritable = f"no file can be made in {place}: {error.strerror}"
    try:
        os.stat(folder / ("x" * 100))  # as long as the path of a file in it
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            unwritable = error.strerror
    return shutil.disk_usage(place).free / 1e9, unwritable


def _read(path: str) -> str:
    """A system file without its last line end; empty if it is missing."""
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
