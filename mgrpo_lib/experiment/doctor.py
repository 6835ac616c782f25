"""Check what this machine can run, and name the fix of each problem: `python -m mgrpo_lib doctor`. No network, no download.

It must also work in a broken environment. So torch, the verifier and a kernel are tried in a process of its own, which may
fail or die (`python -m mgrpo_lib.experiment.doctor`), and only Python's own modules are imported at the top.
"""

import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INSTALL = "pip install -r requirements.lock (or remove .venv and run make setup)"
RECORDS_GB = 0.5  # what a profile's results take beside trained weights, generously
LIMIT = 300  # seconds for all trials, on a slow disk


def doctor(out: str = "") -> int:
    """Print what can run here, then each problem with its fix, then what was checked.

    Args:
        out: folder of results/ and figures/; empty: ``out`` in the repository.

    Returns:
        0 if profile `cpu` can run, else 1.
    """
    python = f"Python {platform.python_version()} on {platform.system()}"
    if not (3, 11) <= sys.version_info[:2] <= (3, 12) or sys.platform != "linux":
        print(f"Nothing can run here: {python}. Fix: Python 3.11 or 3.12 on Linux, WSL 2, a container, or Colab")
        return 1
    try:
        from mgrpo_lib.experiment import machine, plan  # noqa: F401  the second: a missing package is named here
        from mgrpo_lib.experiment.settings import profile_names
    except ImportError as error:
        print(f"Nothing can run here: {error}. Fix: {INSTALL}")
        return 1
    print("trying torch, the verifier and a kernel, up to a minute ...", file=sys.stderr, flush=True)
    tried, locked, gpus = trials(), packages(), machine.gpus()
    why = {name: obstacle(name, out, tried, gpus) for name in profile_names()}
    can, cannot = ([name for name in why if bool(why[name]) == no] for no in (False, True))
    print(f"Can run here: {', '.join(can) or 'nothing'}; cannot: {', '.join(cannot) or 'nothing'}.")
    for reason in dict.fromkeys(filter(None, why.values())):
        print(f"- {', '.join(name for name in cannot if why[name] == reason)}: {reason}")
    print("".join(f"- {problem}. Fix: {fix}\n" for problem, fix in problems(tried, locked, gpus)), end="")
    same = sum(here == wanted for here, wanted in locked.values())
    (memory, free), (room, _) = machine.memory(), machine.disk(folder(out))
    cards = ", ".join(f"{name} ({gib:.1f} GiB)" for name, gib in gpus) or "none"
    print(f"Checked: {python}; {same} of {len(locked)} packages as locked; {machine.cores():g} cores; GPU: {cards};")
    print(f"  {memory:.1f} GiB of memory, {free:.1f} free; {room:.0f} GB of disk free in {folder(out)};")
    print("  " + "; ".join(found.get("error") or found["said"] for found in tried.values()))
    return 1 if why["cpu"] else 0


def folder(out: str) -> Path:
    from mgrpo_lib.experiment.settings import OUT, from_repository

    return from_repository(out or OUT)


def packages() -> dict[str, tuple[str, str]]:
    """Return the installed (empty: none) and the locked version of each locked package."""
    found = {}
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines():
        name, _, wanted = line.partition("#")[0].partition(";")[0].strip().partition("==")
        if wanted:
            try:
                found[name] = metadata.version(name).split("+")[0], wanted
            except metadata.PackageNotFoundError:
                found[name] = "", wanted
    return found


def obstacle(profile: str, out: str, tried: dict[str, dict], gpus: list[tuple[str, float]]) -> str:
    """Say why a profile cannot run here, and the fix; empty if it can."""
    import yaml

    from mgrpo_lib.experiment import gpu, machine, pipeline, plan
    from mgrpo_lib.experiment.settings import ConfigError

    for name in (
        "torch",
        "verifier",
        "kernel",
    ):  # without these nothing runs; and plan loads torch, which may end this process
        if "error" in tried[name]:
            return f"{tried[name]['error']}. Fix: {INSTALL}"
    free, unwritable = machine.disk(folder(out))
    large = profile in gpu.GPU_PROFILES
    if unwritable:
        return f"nothing can be written in {folder(out)} ({unwritable}). Fix: OUT=another_folder"
    if large and gpus and not tried["torch"]["gpu"]:
        return "torch does not use the GPU. Fix: see below"
    try:
        cfg = pipeline.configuration(profile, {}, out=out)
        small = cfg.is_miniature
        pipeline.check_model(cfg)
        disk = RECORDS_GB + (0 if small else plan.disk(cfg))
        short = plan.fits(cfg, min(gib for _, gib in gpus), reserve=False) if gpus and not small else ""
    except (ConfigError, OSError, ValueError, yaml.YAMLError) as error:
        return str(error)
    needed = machine.NOTEBOOK_GIB["miniature" if small else "llm"]
    if not small and not gpus and not cfg.model_folder:
        return f"no GPU for {cfg.model} from the Hub. Fix: use a machine with one, or MODEL=folder of a small model"
    if free < disk:
        return f"{free:.1f} GB of disk are free, {disk:.1f} are needed. Fix: free some, or OUT=another_disk"
    if machine.memory()[0] < needed and (small or not gpus):
        return f"{machine.memory()[0]:.1f} GiB of memory, {needed} are needed. Fix: use a larger machine"
    if "error" in tried["4 bits"] and any(cfg.of_arm(arm).load_in_4bit for arm in cfg.arms):
        return f"{tried['4 bits']['error']}. Fix: {INSTALL}, or PARAMS=load_in_4bit=false"
    return short


def problems(tried: dict[str, dict], locked: dict[str, tuple[str, str]], gpus: list) -> list[tuple[str, str]]:
    """Return the problems of this machine as a whole, each with its fix."""
    from mgrpo_lib.experiment import machine

    cores, (memory, free), found = machine.cores(), machine.memory(), []
    if missing := [name for name, (here, _) in locked.items() if not here]:
        found.append((f"not installed: {', '.join(missing)}", INSTALL))
    if other := [f"{name} {here}" for name, (here, wanted) in locked.items() if here not in ("", wanted)]:
        found.append((f"other versions than locked, so numbers may differ: {', '.join(other)}", INSTALL))
    if gpus and not tried["torch"].get("gpu", True):
        fix = "install torch for CUDA and a driver that is new enough (pytorch.org), or unset CUDA_VISIBLE_DEVICES"
        found.append((f"{tried['torch']['said']} does not use the GPU", fix))
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdecimal() and int(threads) > cores:
        found.append((f"OMP_NUM_THREADS={threads} is slow on {cores:g} cores", f"OMP_NUM_THREADS={max(1, int(cores))}"))
    if free < machine.NOTEBOOK_GIB["miniature"] <= memory:
        found.append(
            (f"{free:.1f} GiB of memory are free; kernels may be killed", "close other programs, or WORKERS=1")
        )
    return found


# ------------------------------------------------------------------------------------------- in a process of its own
def trials() -> dict[str, dict]:
    """Return what each of `TRIALS` found, run in a process of its own; ``error`` if it failed."""
    environment = {name: value for name, value in os.environ.items() if "TOKEN" not in name}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
    call = [sys.executable, "-P", "-m", "mgrpo_lib.experiment.doctor"]
    try:
        done = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=LIMIT)
        text, end = done.stdout, f"Python died (exit status {done.returncode})"
    except subprocess.TimeoutExpired as late:
        text, end = (late.stdout or b"").decode(), f"no answer within {LIMIT} s"
    found = dict(json.loads(line) for line in text.splitlines() if line.startswith('["'))
    return {name: found.get(name, {"error": f"{name}: {end}"}) for name in TRIALS}


def try_torch() -> dict:
    import torch

    return {"said": f"torch {torch.__version__} (CUDA: {torch.version.cuda})", "gpu": torch.cuda.is_available()}


def try_verifier() -> dict:
    import mgrpo_lib.experiment.train  # noqa: F401  transformers, TRL, PEFT
    from mgrpo_lib.verifier.reward import same_answer

    if not same_answer(r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}"):
        raise RuntimeError("1/sqrt(2) is not taken for sqrt(2)/2")
    return {"said": "the verifier answers"}


def try_kernel() -> dict:
    """Start a kernel as the pipeline does, and ask it which Python it runs."""
    from jupyter_client.manager import KernelManager

    from mgrpo_lib.experiment.kernel import NAME, own_kernel

    with own_kernel() as sockets:
        manager = KernelManager(kernel_name=NAME, **sockets)
        manager.start_kernel()
        said: list[dict] = []
        try:
            client = manager.blocking_client()
            client.start_channels()
            client.wait_for_ready(timeout=60)
            client.execute_interactive("import sys; print(sys.executable)", timeout=60, output_hook=said.append)
        finally:
            manager.shutdown_kernel(now=True)
    python = "".join(message["content"].get("text", "") for message in said).strip()
    return {"said": f"one Jupyter kernel started ({python})"}


def try_four_bits() -> dict:
    import torch
    from bitsandbytes import functional

    weights = torch.ones(64, 64, device="cuda" if torch.cuda.is_available() else "cpu")
    functional.dequantize_4bit(*functional.quantize_4bit(weights, quant_type="nf4")).sum().item()
    return {"said": "4 bits work"}


TRIALS = {"torch": try_torch, "verifier": try_verifier, "kernel": try_kernel, "4 bits": try_four_bits}

if __name__ == "__main__":
    for name, attempt in TRIALS.items():
        try:
            result = attempt()
        except Exception as error:
            result = {"error": f"{name}: {type(error).__name__}: {error}"}
        print(json.dumps([name, result]), flush=True)
