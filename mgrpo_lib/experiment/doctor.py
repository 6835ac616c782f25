"""Whether this machine can run the profiles, and which of the known troubles it has, each with its mend:
`python -m mgrpo_lib doctor`. No network, no download; nothing is left behind, and no secret is shown.
"""

import os
import platform
import re
import sys
from pathlib import Path

from mgrpo_lib.experiment.machine import NOTEBOOK_GIB, ROOT, Machine, examine, hub_cache

LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "bitsandbytes", "papermill", "numpy")
RECORDS_GB = 0.5  # what a profile's results take beside trained weights, generously
AMPERE = (8, 0)  # the first compute capability with bfloat16
REMOTE = re.compile(r"^(nfs|cifs|smb|9p|ceph|lustre|gpfs|beegfs|afs|drvfs|fuse)", re.IGNORECASE)
INSTALL = "pip install -r requirements.lock (or remove .venv and run make setup)"


def doctor(out: str = "") -> int:
    """Prints what is the case, what each profile needs, and what to mend.

    Args:
        out: folder of results/ and figures/; empty: the repository.

    Returns:
        0 if profile `cpu` can run, else 1.
    """
    print(f"Python {platform.python_version()} on {platform.system()}; 3.11 or 3.12 and Linux are needed", flush=True)
    if not (3, 11) <= sys.version_info[:2] <= (3, 12) or sys.platform != "linux":
        print("cpu: NO; take Python 3.11 or 3.12 on Linux (on Windows WSL 2, on a Mac a container), or Colab")
        return 1
    try:
        from mgrpo_lib.experiment import pipeline as runner
        from mgrpo_lib.experiment import settings as config
    except ImportError as error:
        print(f"cpu: NO; {error}. Mend: {INSTALL}")
        return 1
    folder = Path(out).expanduser().resolve() if out else ROOT
    print("trying torch and the library, some seconds ...", flush=True)
    machine = examine(folder, runner.gpus())
    print("\n".join(facts(machine)))
    print("\nProfiles, without any download:")
    obstacles = {}
    for name in sorted(config.profile_names(), key=lambda name: (name in runner.GPU_PROFILES, name)):
        needed, obstacles[name] = judge(machine, name, out)
        print(f"  {name}: {f'NO: {obstacles[name]}' if obstacles[name] else 'can run'}\n      {needed}", flush=True)
    print("\nTo know on this machine (more in README, When something goes wrong):")
    print("\n".join(f"- {what}. Mend: {mend}" for what, mend in pains(machine)) or "- nothing")
    return 1 if obstacles["cpu"] else 0


def facts(machine: Machine) -> list[str]:
    """What is the case, a line each."""
    m, same = machine, sum(here == locked for here, locked in machine.packages.values())
    listed = [f"{name} {m.packages[name][0] or 'is missing'}" for name in LIBRARIES if name in m.packages]
    threads = f"OMP_NUM_THREADS={m.threads}" if m.threads else "OMP_NUM_THREADS not set"
    fast = (
        f"bfloat16 is fast ({m.cpu_bfloat16})" if m.cpu_bfloat16 else "bfloat16 is slow (neither AMX nor AVX512-bf16)"
    )
    lines = [
        f"packages: {same} of {len(m.packages)} as requirements.lock has them; {', '.join(listed)}",
        f"torch: {m.torch.get('error') or describe(m)}",
        f"library: {m.experiment.get('error') or 'all modules can be loaded'}",
        f"4 bits: {m.four_bits.get('error') or 'bitsandbytes works'}",
        f"CPU: {m.cores} cores for this process, {m.quota:g} cores' worth of time, {m.load:.1f} busy now; {threads}; {fast}",
        f"memory: {m.memory:.1f} GiB, {m.available:.1f} free",
    ]
    for i, (name, gib) in enumerate(m.gpus):
        capability, driver, used = m.details[i] if i < len(m.details) else ("unknown", "unknown", "unknown")
        own = m.torch.get("bfloat16", number(capability) >= AMPERE)
        lines.append(
            f"GPU {i}: {name}, {gib:.1f} GiB ({used} MiB in use), compute capability {capability}, "
            f"{'with' if own else 'without'} bfloat16, driver {driver}"
        )
    remote = "a network folder or Drive" if REMOTE.search(m.mount) else "a local disk"
    return [
        *(lines if m.gpus else [*lines, "GPU: none"]),
        f"results: {m.folder}, {m.free:.0f} GB free, {m.unwritable or 'writable'}, {remote} ({m.mount})",
        f"models of the hub: {hub_cache()}, {m.cache_free:.0f} GB free; "
        f"{f'{m.offline} is set' if m.offline else 'not set offline'}; HF_TOKEN is {'set' if m.token else 'not set'}",
    ]


def describe(machine: Machine) -> str:
    build = f"for CUDA {machine.torch['cuda']}" if machine.torch["cuda"] else "for CPUs (or another vendor's GPUs)"
    uses = "uses the GPU" if machine.torch["usable"] else "uses no GPU"
    return f"{machine.torch['version']}, built {build}, {uses}, {machine.torch['threads']} threads"


def number(capability: str) -> tuple[int, int]:
    """``7.5`` as (7, 5); (0, 0) for what is no such number."""
    found = re.fullmatch(r"(\d+)\.(\d+)", capability)
    return (int(found.group(1)), int(found.group(2))) if found else (0, 0)


# ------------------------------------------------------------------------------------------------------- the profiles
def judge(machine: Machine, name: str, out: str) -> tuple[str, str]:
    """What a profile needs, and why it cannot run here, with the mend (empty: it can)."""
    import yaml

    from mgrpo_lib.experiment import pipeline as runner
    from mgrpo_lib.experiment.settings import ConfigError

    broken = machine.torch.get("error") or machine.experiment.get("error")
    try:
        cfg = runner.configuration(name, {}, out=out)
        if cfg.model != "miniature" and broken:  # the plan loads torch, which may end this process too
            return "not counted without torch", f"torch or the library cannot be loaded ({broken}); {INSTALL}"
        needed, gb, why = (small if cfg.model == "miniature" else large)(machine, cfg)
    except (ConfigError, OSError, ValueError, yaml.YAMLError) as error:
        return "not known", str(error)
    bits = any(cfg.of_arm(arm).load_in_4bit for arm in cfg.arms)
    problems = [
        (broken, f"torch or the library cannot be loaded ({broken}); {INSTALL}"),
        (machine.unwritable, f"nothing can be written in {machine.folder} ({machine.unwritable}); OUT=another_folder"),
        (
            machine.free < gb,
            f"{machine.free:.1f} GB of disk are free, {gb:.1f} are needed; free some, or OUT=another_disk",
        ),
        (why, why),
        (bits and machine.four_bits.get("error"), f"bitsandbytes fails; {INSTALL}, or PARAMS=load_in_4bit=false"),
    ]
    return needed, next((problem for applies, problem in problems if applies), "")


def small(machine: Machine, cfg) -> tuple[str, float, str]:
    """Of the miniature: what it needs, GB of disk, and what is missing."""
    why = (
        ""
        if machine.memory >= NOTEBOOK_GIB["miniature"]
        else f"{machine.memory:.1f} GiB of memory; take a larger machine"
    )
    return (
        f"needs {NOTEBOOK_GIB['miniature']} GiB of memory, {RECORDS_GB} GB of disk; no GPU; {took(cfg)}",
        RECORDS_GB,
        why,
    )


def large(machine: Machine, cfg) -> tuple[str, float, str]:
    """The same of a language model, by `mgrpo_lib.experiment.plan`."""
    from mgrpo_lib.experiment import pipeline as runner
    from mgrpo_lib.experiment import plan
    from mgrpo_lib.experiment.settings import ConfigError

    runs, gpu_only = [cfg, *(cfg.of_arm(arm) for arm in cfg.arms)], cfg.profile in runner.GPU_PROFILES
    gib = max(plan.total(parts) for run in runs for parts in plan.memory(run).values())
    gb, download = plan.disk(cfg) + RECORDS_GB, 2 * plan.model_of(cfg).parameters / 1e9 if "/" in cfg.model else 0.0
    name, has = min(machine.gpus, key=lambda gpu: gpu[1], default=("", 0.0))
    card = known(name, has)
    time = f"{sum(plan.hours(cfg, card).values()):.1f} hours on {name}, planned" if card else took(cfg)
    place = f"a GPU with {gib:.1f} GiB" if gpu_only else f"{NOTEBOOK_GIB['llm']} GiB of memory or a GPU with {gib:.1f}"
    hub = f", {download:.1f} GB for the model of the hub" if download else ""
    needed = f"needs {place}, {gb:.1f} GB of disk{hub}; {time}"
    try:
        runner.check_model(cfg)
    except ConfigError as error:
        return needed, gb, str(error)
    there = (hub_cache() / f"models--{cfg.model.replace('/', '--')}").exists()
    short = plan.fits(cfg, has, reserve=False) if machine.gpus else ""
    problems = [
        (gpu_only and not machine.gpus, "no GPU; take a machine with one"),
        (
            not machine.gpus and machine.memory < NOTEBOOK_GIB["llm"],
            f"{machine.memory:.1f} GiB of memory; take a larger machine",
        ),
        (gpu_only and not machine.torch["usable"], "torch does not use the GPU; see below"),
        (short, f"{short}; {name} has {has:.1f} GiB"),
        (
            download and machine.offline and not there,
            f"{machine.offline} is set and the model not there; unset it, or MODEL=folder",
        ),
        (
            not there and machine.cache_free < download,
            f"{machine.cache_free:.1f} GB are free for the model; set HF_HOME to a larger disk",
        ),
    ]
    return needed, gb, next((problem for applies, problem in problems if applies), "")


def took(cfg) -> str:
    """How long the committed run of a profile took, where one is there."""
    from mgrpo_lib.experiment.store import read_json

    timing = ROOT / "results" / cfg.profile / "timing.json"
    if timing.exists():
        return f"{read_json(timing)['seconds'] / 60:.0f} minutes in the run that is there"
    return "minutes" if cfg.model == "miniature" else f"hours: make plan PROFILE={cfg.profile}"


def known(name: str, gib: float):
    """The planned card of this name with the nearest memory; None if none was planned for."""
    from mgrpo_lib.experiment.plan import GPUS

    words = re.split(r"[^A-Za-z0-9]+", name)
    same = [gpu for gpu in GPUS if gpu.name.split()[0] in words]
    return min(same, key=lambda gpu: abs(gpu.memory - gib), default=None)


# --------------------------------------------------------------------------------------------------- known troubles
def pains(machine: Machine) -> list[tuple[str, str]]:
    """The known troubles that apply to this machine, each with its mend."""
    m, tight = machine, max(1, min(machine.cores, int(machine.memory // NOTEBOOK_GIB["miniature"])))
    missing = [name for name, (here, _) in m.packages.items() if not here]
    other = [f"{name} {here}" for name, (here, locked) in m.packages.items() if here not in ("", locked)]
    threads = int(m.threads) if m.threads.isdecimal() else 0
    rows = [
        (missing, f"not installed: {listing(missing)}", INSTALL),
        (other, f"other versions than locked: {listing(other)}; numbers may differ, and results say so", INSTALL),
        (m.four_bits.get("error"), f"4 bits fail: {m.four_bits.get('error')}", f"{INSTALL}, or load_in_4bit=false"),
        *gpu_pains(m),
        (
            not m.gpus and not m.cpu_bfloat16,
            "bfloat16 is slow on this CPU, and profile smollm2 asks for it",
            "PARAMS=dtype=float32, which gives other numbers",
        ),
        (
            threads > m.quota or (not m.threads and m.cores > m.quota),
            f"more threads than cores: each program starts {threads or m.cores} for {m.quota:g} cores' worth of time, and is slow",
            f"OMP_NUM_THREADS={max(1, int(m.quota))}",
        ),
        (m.load > m.quota, f"other programs keep {m.load:.1f} cores busy, so times will be longer", "WORKERS=1, or wait"),
        (
            m.available < NOTEBOOK_GIB["miniature"] * tight,
            f"{m.available:.1f} GiB of memory are free for {tight} notebooks at a time; the system kills kernels when it ends",
            "close other programs, or WORKERS=1",
        ),
        (
            REMOTE.search(m.mount),
            "results go to a network folder or Drive: slow, it may know no locks, and it can vanish in between",
            "OUT=folder on a local disk; on Colab Drive is right, and there start no second run in the same folder",
        ),
        (m.offline, f"{m.offline} is set: models and benchmarks that are not there already cannot be had", f"unset {m.offline}"),
        (
            Path("/content").is_dir() and not m.folder.is_relative_to("/content/drive"),
            "this looks like Colab: what is not on Drive is gone when the session ends",
            "mount Drive, and OUT=/content/drive/MyDrive/mgrpo",
        ),
        (True, "processors round differently, so numbers differ from the committed ones in the last digits and then in more",
         "compare arms within one machine; README, Limits"),
    ]  # fmt: skip
    return [(what, mend) for applies, what, mend in rows if applies]


def gpu_pains(machine: Machine) -> list[tuple[object, str, str]]:
    """Those of GPU, driver and torch's build."""
    m, torch, capabilities = machine, machine.torch, [number(row[0]) for row in machine.details]
    found = bool(m.gpus) and "error" not in torch
    unusable = found and not torch["usable"]
    used = sum(float(row[2]) for row in m.details if row[2].isdecimal()) / 1024
    hidden = "CUDA_VISIBLE_DEVICES hides it; " if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") else ""
    said = f" ({' '.join(torch.get('said', '').split())[:200]})" if torch.get("said") else ""
    build = f"torch is built for CUDA {torch.get('cuda')}"
    cards = [tuple(capability) for capability in torch.get("capabilities", [])]
    unbuilt = [f"{major}.{minor}" for major, minor in cards if not built_for((major, minor), torch["built_for"])]
    return [
        (m.smi_error, f"nvidia-smi fails: {m.smi_error}", "restart the machine; if it stays, install the driver again"),
        (
            unusable and not torch["cuda"],
            "there is a GPU, and torch is built for CPUs",
            "install torch for CUDA: pytorch.org, Get started",
        ),
        (
            unusable and torch["cuda"],
            f"{build}, and cannot use the GPU with driver {m.details[0][1] if m.details else 'unknown'}{said}",
            f"{hidden}a newer driver, or the same torch for an older CUDA",
        ),
        (
            not m.gpus and torch.get("cuda") and not torch["usable"],
            f"{build}, and there is no GPU: it works, and takes gigabytes of disk for nothing",
            "none needed; the build for CPUs is smaller",
        ),
        (
            unbuilt,
            f"{build}, without compute capability {', '.join(unbuilt)}: no kernel will run",
            "torch for an older CUDA, or another GPU",
        ),
        (
            any((0, 0) < cap < AMPERE for cap in capabilities),
            "a GPU without bfloat16: float16 is taken, in which losses can overflow, and vLLM may refuse it",
            "leave dtype=auto and use_vllm=false; where sampling fails with inf or nan, dtype=float32",
        ),
        (
            used > 1,
            f"other programs hold {used:.1f} GiB of the GPU",
            "end them (nvidia-smi lists them); restart old kernels",
        ),
        (len(m.gpus) > 1, "make reproduce uses one GPU", "several: accelerate launch, see README, Several processes"),
    ]


def built_for(capability: tuple[int, ...], builds: list[str]) -> bool:
    """Whether torch has kernels for a compute capability: the same major number and no newer minor one, or PTX."""
    known = [
        (kind, (int(major), int(minor)))
        for kind, major, minor in re.findall(r"(sm|compute)_(\d+)(\d)", " ".join(builds))
    ]
    same = any(at[0] == capability[0] and at[1] <= capability[1] for _, at in known)
    return not known or same or any(kind == "compute" and at <= capability for kind, at in known)


def listing(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
