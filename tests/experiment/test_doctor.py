"""The doctor on machines that this one is not: broken, full, without torch, with GPUs of all kinds."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mgrpo_lib.experiment import doctor, machine, plan, store
from mgrpo_lib.experiment import pipeline as runner
from mgrpo_lib.experiment.settings import ROOT

GOOD = machine.Machine(
    packages={"torch": ("2.13.0", "2.13.0"), "numpy": ("2.4.6", "2.4.6")},
    torch={"version": "2.13.0+cpu", "cuda": None, "usable": False, "said": "", "threads": 2},
    experiment={},
    four_bits={},
    cores=2,
    quota=2,
    threads="",
    load=0.1,
    cpu_bfloat16="AMX",
    memory=24.0,
    available=20.0,
    gpus=[],
    details=[],
    smi_error="",
    folder=ROOT,
    free=100.0,
    unwritable="",
    mount="ext4",
    cache_free=100.0,
    offline="",
    token=False,
)
CUDA = {"version": "2.13.0", "cuda": "13.0", "usable": True, "said": "", "threads": 8, "bfloat16": True}
T4 = {"gpus": [("Tesla T4", 15.0)], "details": [["7.5", "580.1", "3"]]}
T4 |= {"torch": CUDA | {"bfloat16": False, "capabilities": [[7, 5]], "built_for": ["sm_75", "sm_80", "sm_90"]}}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """What a model takes is counted elsewhere (test_plan.py); here no torch is loaded."""
    sizes = plan.Model(10**9, ((1000, 1000),) * 196, 10**8, 1536, 8960, 256, 28, 151936, 4096)
    monkeypatch.setattr(plan, "model_of", lambda cfg: sizes)


def told(monkeypatch, capsys, out: str = "", **changes) -> tuple[int, str]:
    """Exit status and text of the doctor on a machine that differs so from a good one."""
    monkeypatch.setattr(runner, "gpus", lambda: changes.get("gpus", []))
    monkeypatch.setattr(doctor, "examine", lambda folder, gpus: dataclasses.replace(GOOD, **{"gpus": gpus, **changes}))
    return doctor.doctor(out), capsys.readouterr().out


def line(text: str, profile: str) -> str:
    return next(row for row in text.splitlines() if row.startswith(f"  {profile}: "))


def test_a_good_machine_can_run_the_cpu_profiles_and_no_more(monkeypatch, capsys):
    code, text = told(monkeypatch, capsys)
    assert code == 0
    for profile in ("cpu", "ablation", "smoke"):
        assert line(text, profile).endswith(": can run")
    for profile in runner.GPU_PROFILES:
        assert line(text, profile).endswith("NO: no GPU; take a machine with one")
    assert "MODEL=folder" in line(text, "smollm2")
    assert "bfloat16 is fast (AMX)" in text and "GPU: none" in text
    assert text.count("\n- ") == 1, "only what is true everywhere"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"torch": {"error": "OSError: libcudart.so.13: no such file"}}, "libcudart.so.13"),
        ({"experiment": {"error": "ModuleNotFoundError: No module named 'trl'"}}, "No module named 'trl'"),
        ({"unwritable": "Permission denied"}, "Permission denied"),
        ({"free": 0.1}, "0.1 GB of disk are free, 0.5 are needed; free some"),
        ({"memory": 1.0}, "1.0 GiB of memory; take a larger machine"),
    ],
)
def test_what_keeps_profile_cpu_from_running_is_named(monkeypatch, capsys, changes, said):
    code, text = told(monkeypatch, capsys, **changes)
    assert code == 1
    assert said in line(text, "cpu") and "NO: " in line(text, "cpu")


def test_broken_4_bits_stop_only_what_needs_them(monkeypatch, capsys):
    code, text = told(monkeypatch, capsys, four_bits={"error": "RuntimeError: CUDA Setup failed"})
    assert code == 0 and line(text, "cpu").endswith("can run")
    assert "load_in_4bit=false" in line(text, "smoke")
    assert "4 bits fail: RuntimeError: CUDA Setup failed. Mend: " in text


def test_a_t4_runs_its_profile_and_no_larger_one(monkeypatch, capsys):
    code, text = told(monkeypatch, capsys, **T4)
    assert code == 0 and line(text, "t4").endswith("can run")
    assert "Tesla T4, 15.0 GiB (3 MiB in use), compute capability 7.5, without bfloat16, driver 580.1" in text
    assert "hours on Tesla T4, planned" in text
    assert "without bfloat16: float16 is taken" in text and "no kernel will run" not in text
    monkeypatch.setattr(plan, "fits", lambda cfg, gib, reserve: "does not fit: cut micro_batch_size to 2")
    assert "cut micro_batch_size to 2" in line(told(monkeypatch, capsys, **T4)[1], "a100")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"torch": GOOD.torch}, "there is a GPU, and torch is built for CPUs"),
        ({"torch": CUDA | {"usable": False, "said": "driver is too old"}}, "driver 580.1 (driver is too old). Mend: "),
        ({"torch": CUDA | {"capabilities": [[6, 1]], "built_for": ["sm_75", "compute_120"]}}, "without compute capability 6.1"),
        ({"details": [["7.5", "580.1", "9000"]]}, "other programs hold 8.8 GiB of the GPU"),
        ({"gpus": [], "details": [], "torch": CUDA | {"usable": False}}, "and there is no GPU"),
        ({"gpus": [], "smi_error": "Driver/library version mismatch"}, "nvidia-smi fails: Driver/library version mismatch"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_gpu_driver_or_build(monkeypatch, capsys, changes, said):
    code, text = told(monkeypatch, capsys, **{**T4, **changes})
    assert code == 0 and said in text
    if not changes.get("torch", CUDA)["usable"]:
        assert line(text, "t4").startswith("  t4: NO: ")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"threads": "64"}, "starts 64 for 2 cores' worth of time, and is slow. Mend: OMP_NUM_THREADS=2"),
        ({"cores": 32, "quota": 4.0}, "starts 32 for 4 cores' worth of time, and is slow. Mend: OMP_NUM_THREADS=4"),
        ({"load": 9.0}, "keep 9.0 cores busy"),
        ({"available": 0.7}, "0.7 GiB of memory are free for 2 notebooks"),
        ({"mount": "fuse.drive"}, "a network folder or Drive"),
        ({"mount": "nfs4"}, "a network folder or Drive"),
        ({"offline": "HF_HUB_OFFLINE"}, "HF_HUB_OFFLINE is set"),
        ({"cpu_bfloat16": ""}, "bfloat16 is slow on this CPU"),
        ({"packages": {"torch": ("", "2.13.0"), "numpy": ("2.0.2", "2.4.6")}}, "other versions than locked: numpy 2.0.2"),
        ({"packages": {"torch": ("", "2.13.0")}}, "not installed: torch. Mend: pip install"),
    ],
)  # fmt: skip
def test_known_troubles_are_named_where_they_apply(monkeypatch, capsys, changes, said):
    assert said in told(monkeypatch, capsys, **changes)[1]
    assert said not in told(monkeypatch, capsys)[1]


def test_cards_are_known_by_their_whole_name():
    assert doctor.known("NVIDIA A100-SXM4-80GB", 80.0).name == "A100 80 GB"
    assert doctor.known("NVIDIA A100-PCIE-40GB", 39.4).name == "A100 40 GB"
    assert doctor.known("NVIDIA L4", 22.5).name == "L4"
    assert doctor.known("NVIDIA L40S", 45.0) is None


def test_kernels_for_a_card():
    assert doctor.built_for((8, 9), ["sm_75", "sm_80"])
    assert doctor.built_for((12, 0), ["sm_90", "compute_90"]), "PTX is compiled when it is loaded"
    assert not doctor.built_for((12, 0), ["sm_90", "sm_100"])
    assert not doctor.built_for((6, 1), ["sm_70", "compute_70"])
    assert doctor.built_for((9, 0), ["gfx942"]), "nothing is said of other vendors' builds"


# ------------------------------------------------------------------------------------------------------ this machine
def test_disk_tells_what_cannot_be_written(monkeypatch, tmp_path):
    free, unwritable, kind = machine.disk(tmp_path / "not" / "there")
    assert free > 0 and unwritable == "" and kind != "unknown"
    assert not list(tmp_path.iterdir()), "nothing is left behind"
    (tmp_path / "file").write_text("")
    assert machine.disk(tmp_path / "file" / "below")[1] == f"{tmp_path / 'file'} is a file"
    assert machine.disk(Path("/proc/results"))[1], "also root cannot write there"

    def refuse(dir):
        raise PermissionError(13, "Permission denied", dir)

    monkeypatch.setattr(machine.tempfile, "TemporaryFile", refuse)
    assert machine.disk(tmp_path)[1] == "Permission denied"


def test_a_container_s_limits_count(monkeypatch):
    whole = machine.memory()[0]
    gib, files = 2**30, "/sys/fs/cgroup/"
    now = {
        "memory.max": str(gib),
        "memory.current": str(gib),
        "memory.stat": f"anon 5\ninactive_file {gib // 2}\nslab 7",
    }
    older = {"memory/memory.limit_in_bytes": str(gib), "memory/memory.usage_in_bytes": str(gib // 4)}
    for lines, free in ((now, 0.5), (older, 0.75)):
        monkeypatch.setattr(machine, "read", lambda path, lines=lines: lines.get(path.removeprefix(files), ""))
        assert machine.memory() == (1.0, free)
    for unlimited in ({"memory.max": "max"}, {"memory/memory.limit_in_bytes": str(2**63 - 4096)}, {}):
        monkeypatch.setattr(machine, "read", lambda path, lines=unlimited: lines.get(path.removeprefix(files), ""))
        assert machine.memory()[0] == whole
    for quota, share in (("50000 100000", 0.5), ("max 100000", machine.cores()[0]), ("", machine.cores()[0])):
        monkeypatch.setattr(machine, "read", lambda path, quota=quota: quota)
        assert machine.cores()[1] == share


@pytest.mark.parametrize(
    ("body", "complaint"),
    [("echo '9.0, 580.65, 4'", ""), ("echo broken", ""), ("echo 'version mismatch' >&2; exit 18", "version mismatch")],
)
def test_nvidia_smi_that_works_lies_or_fails(monkeypatch, tmp_path, body, complaint):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{body}\n")
    os.chmod(tool, 0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.nvidia_smi() == ([["9.0", "580.65", "4"]] if "9.0" in body else [], complaint)


# the whole command, with packages that fail instead of torch and bitsandbytes
BROKEN = {
    "absent": "raise ModuleNotFoundError(f'No module named {__name__!r}', name=__name__)",
    "broken": "raise OSError('libtorch_cuda.so: undefined symbol')",
    "dying": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
}


@pytest.mark.parametrize("how", BROKEN)
def test_without_torch_the_doctor_says_so_and_shows_no_secret(tmp_path, how):
    for name in ("torch", "bitsandbytes", "transformers"):
        (tmp_path / f"{name}.py").write_text(BROKEN[how])
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "HF_TOKEN": "hf_secret", "HF_HUB_OFFLINE": "1"}
    # -P: the current folder is not searched first, as it would be before PYTHONPATH
    call = [sys.executable, "-P", "-m", "mgrpo_lib", "doctor", "--out", str(tmp_path / "out")]
    done = subprocess.run(call, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and done.stderr == "", done.stderr
    expected = {"absent": "No module named 'torch'", "broken": "undefined symbol", "dying": "Python died"}[how]
    assert expected in line(done.stdout, "cpu") and "requirements.lock" in line(done.stdout, "cpu")
    assert "HF_TOKEN is set" in done.stdout and "hf_secret" not in done.stdout
    assert "HF_HUB_OFFLINE is set" in done.stdout
    assert not (tmp_path / "out").exists()


def test_without_pydantic_it_is_said_too(tmp_path):
    (tmp_path / "pydantic.py").write_text(BROKEN["absent"])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    call = [sys.executable, "-P", "-m", "mgrpo_lib", "doctor"]
    done = subprocess.run(call, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "cpu: NO; No module named 'pydantic'. Mend: pip install" in done.stdout


def test_a_probe_that_hangs_ends(monkeypatch):
    monkeypatch.setattr(machine, "PROBE", "import time; time.sleep(60)")
    monkeypatch.setattr(machine, "SECONDS_TO_LOAD", 0.5)
    assert machine.probe()["torch"] == {"error": "not loaded within 0.5 s"}


def test_a_folder_on_a_drive_that_is_not_mounted(monkeypatch, capsys):
    code, text = told(monkeypatch, capsys, out="/content/drive/MyDrive/mgrpo")
    assert code == 1 and "not mounted" in line(text, "cpu")


def test_options_of_other_commands_are_refused():
    call = [sys.executable, "-m", "mgrpo_lib", "doctor", "--profile", "t4"]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "it takes --out alone" in done.stderr


def test_results_of_a_gpu_name_its_software_and_whose_attention_came_first(monkeypatch):
    cuda = SimpleNamespace(is_available=lambda: True, get_device_name=lambda index: "H100")
    cudnn = SimpleNamespace(version=lambda: 91900)
    fake = SimpleNamespace(cuda=cuda, version=SimpleNamespace(cuda="13.0"), backends=SimpleNamespace(cudnn=cudnn))
    monkeypatch.setitem(sys.modules, "torch", fake)
    for value, last in (("1", True), ("0", False)):
        monkeypatch.setenv("TORCH_CUDNN_SDPA_DEPRIORITIZED", value)
        found = store.environment()
        assert found["gpu"] == "H100" and found["cuda"] == "13.0" and found["cudnn"] == 91900
        assert found["cudnn_attention_last"] is last
