"""Facts about this machine, for `mgrpo_lib.experiment.doctor`: no network, and nothing is left behind.

It must also work where the environment is broken. So torch and all that needs it is tried in a process of its own, which
may fail or die, and here nothing is imported but Python's own modules.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK_GIB = {"miniature": 2, "llm": 8}  # memory of one notebook; a large model's is on the GPU
SECONDS_TO_LOAD = 300  # torch and the library, on a slow disk
CPU_BFLOAT16 = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-bf16", "bf16": "bf16 instructions"}  # the last: ARM
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
PROBE = """
import json, warnings
def stage(name, work):
    try:
        facts = work() or {}
    except BaseException as error:
        facts = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps([name, facts]), flush=True)
def torch_facts():
    import torch
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    facts = {"version": torch.__version__, "cuda": torch.version.cuda, "usable": usable}
    facts |= {"said": " ".join(str(one.message) for one in said), "threads": torch.get_num_threads()}
    if usable:
        devices = range(torch.cuda.device_count())
        facts |= {"capabilities": [torch.cuda.get_device_capability(i) for i in devices], "built_for": torch.cuda.get_arch_list()}
        facts["bfloat16"] = torch.cuda.is_bf16_supported(including_emulation=False)
    return facts
def experiment():
    import mgrpo_lib.experiment.train, mgrpo_lib.experiment.controls, mgrpo_lib.experiment.datacard, mgrpo_lib.report.figures, papermill, ipykernel
    from mgrpo_lib.experiment import store
    from mgrpo_lib.verifier.reward import same_answer
    store.environment()
    if not same_answer(r"\\frac{1}{\\sqrt{2}}", r"\\frac{\\sqrt{2}}{2}"):
        raise RuntimeError("the helper process that compares formulas does not answer")
def four_bits():
    import torch
    from bitsandbytes import functional
    weights = torch.ones(64, 64, device="cuda" if torch.cuda.is_available() else "cpu")
    functional.dequantize_4bit(*functional.quantize_4bit(weights, quant_type="nf4")).sum().item()
stage("torch", torch_facts)
stage("experiment", experiment)
stage("4 bits", four_bits)
"""


@dataclass(frozen=True)
class Machine:
    """What is the case here."""

    packages: dict[str, tuple[str, str]]  # of each locked one: installed version (empty: none) and locked version
    torch: dict[str, Any]  # of the probe's three stages; `error` if it failed
    experiment: dict[str, Any]
    four_bits: dict[str, Any]
    cores: int  # that this process may use
    quota: float  # cores' worth of time that its container gets
    threads: str  # OMP_NUM_THREADS
    load: float  # programs that want a core
    cpu_bfloat16: str  # the instructions that make bfloat16 fast on this CPU; empty: none
    memory: float  # GiB, of the machine or its container
    available: float  # GiB of it that are free
    gpus: list[tuple[str, float]]  # name and GiB
    details: list[list[str]]  # of each GPU: compute capability, driver's version, MiB in use
    smi_error: str  # nvidia-smi is there and fails
    folder: Path  # that results go to
    free: float  # GB there
    unwritable: str  # why nothing can be written there
    mount: str  # kind of file system
    cache_free: float  # GB where the hub's models go
    offline: str  # the variable that keeps everything off the hub
    token: bool


# --------------------------------------------------------------------------------------------------- what is the case
def packages() -> dict[str, tuple[str, str]]:
    found = {}
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, locked = line.split("==")
            try:
                found[name] = metadata.version(name).split("+")[0], locked
            except metadata.PackageNotFoundError:
                found[name] = "", locked
    return found


def probe() -> dict[str, dict[str, Any]]:
    """What torch, the experiment's modules and 4 bits do, tried in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if "TOKEN" not in name}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    try:
        call = subprocess.run(
            [sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True, timeout=SECONDS_TO_LOAD
        )
        text, end = call.stdout, f"Python died while it was loaded (exit status {call.returncode})"
    except subprocess.TimeoutExpired as late:
        text, end = (late.stdout or b"").decode(), f"not loaded within {SECONDS_TO_LOAD} s"
    found = dict(json.loads(line) for line in text.splitlines() if line.startswith('["'))
    return {name: found.get(name, {"error": end}) for name in ("torch", "experiment", "4 bits")}


def nvidia_smi() -> tuple[list[list[str]], str]:
    """Compute capability, driver's version and MiB in use of each GPU; or what nvidia-smi complains of."""
    call = ["nvidia-smi", "--query-gpu=compute_cap,driver_version,memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(call, capture_output=True, text=True, timeout=30)
    except FileNotFoundError:
        return [], ""
    except (OSError, subprocess.SubprocessError) as error:
        return [], str(error)
    if done.returncode:
        return [], one_line(done.stdout + done.stderr)
    rows = [[part.strip() for part in line.split(",")] for line in done.stdout.splitlines()]
    return [row for row in rows if len(row) == 3], ""


def read(path: str) -> str:
    """A system file without the last line's end; empty if there is none."""
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def memory() -> tuple[float, float]:
    """GiB in all and free, of the machine, or of the container where that has less."""
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    total, free = kib["MemTotal"] / 2**20, kib["MemAvailable"] / 2**20
    group = "/sys/fs/cgroup/memory"
    limit, used, stat = (read(f"{group}.{name}") for name in ("max", "current", "stat"))
    if not limit:  # the older kind of control groups
        limit, used, stat = (read(f"{group}/memory.{name}") for name in ("limit_in_bytes", "usage_in_bytes", "stat"))
    if limit.isdecimal() and int(limit) / 2**30 < total:
        total = int(limit) / 2**30
        cached = re.search(r"(?m)^inactive_file (\d+)$", stat)  # counted as used, and given back when needed
        free = min(free, total - (int(used or 0) - int(cached.group(1) if cached else 0)) / 2**30)
    return total, free


def cores() -> tuple[int, float]:
    """Cores that this process may use, and how many cores' worth of time its container gets."""
    allowed = len(os.sched_getaffinity(0))
    quota, _, period = read("/sys/fs/cgroup/cpu.max").partition(" ")
    return allowed, min(allowed, int(quota) / int(period)) if quota.isdecimal() else allowed


def cpu_bfloat16() -> str:
    found = re.search(r"(?m)^(?:flags|Features)\s*:(.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    flags = found.group(1).split() if found else []
    return next((name for flag, name in CPU_BFLOAT16.items() if flag in flags), "")


def disk(folder: Path) -> tuple[float, str, str]:
    """GB free, why nothing can be written there (empty: it can), and the kind of file system."""
    above = [folder, *folder.parents]
    place = next(path for path in above if os.path.isdir(path))
    unwritable = next((f"{path} is a file" for path in above if os.path.isfile(path)), "")
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"x" * 4096)
            file.flush()
    except OSError as error:
        unwritable = error.strerror
    mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()]
    around = [(len(at), kind) for at, kind in mounts if place.is_relative_to(at.replace("\\040", " "))]
    return shutil.disk_usage(place).free / 1e9, unwritable, max(around, default=(0, "unknown"))[1]


def hub_cache() -> Path:
    """Where the hub's models go."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or home) / "hub").expanduser()


def examine(folder: Path, gpus: list[tuple[str, float]]) -> Machine:
    """Everything about this machine, for results in this folder.

    Args:
        gpus: name and GiB of each, as `mgrpo_lib.experiment.pipeline.gpus` says.
    """
    tried, (details, complaint), (allowed, quota) = probe(), nvidia_smi(), cores()
    (total, free_memory), (free, unwritable, mount) = memory(), disk(folder)
    return Machine(
        packages=packages(),
        torch=tried["torch"],
        experiment=tried["experiment"],
        four_bits=tried["4 bits"],
        cores=allowed,
        quota=quota,
        threads=os.environ.get("OMP_NUM_THREADS", ""),
        load=os.getloadavg()[0],
        cpu_bfloat16=cpu_bfloat16(),
        memory=total,
        available=free_memory,
        gpus=gpus,
        details=details,
        smi_error=complaint,
        folder=folder,
        free=free,
        unwritable=unwritable,
        mount=mount,
        cache_free=disk(hub_cache().resolve())[0],
        offline=next((name for name in OFFLINE if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")), ""),
        token=bool(os.environ.get("HF_TOKEN", "").strip()),
    )


def one_line(text: str) -> str:
    return " ".join(text.split())[:200]
