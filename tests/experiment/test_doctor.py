"""The doctor on machines that this one is not: broken, full, without torch, with GPUs; and the facts of this machine."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mgrpo_lib.experiment import doctor, gpu, machine, plan, store
from mgrpo_lib.experiment.settings import ROOT

GIB = 2**30
TORCH = {"said": "torch 2.13.0 (CUDA: 13.0)", "gpu": True}
T4 = {"gpus": [("Tesla T4", 15.0)], "torch": TORCH}
GOOD = {"gpus": [], "memory": (24.0, 20.0), "cores": 2, "disk": (100.0, ""), "lock": ("2.4.6", "2.4.6")}
GOOD |= {
    "torch": TORCH | {"gpu": False},
    "verifier": {"said": ""},
    "kernel": {"said": "one kernel"},
    "4 bits": {"said": ""},
}


@pytest.fixture
def told(monkeypatch, capsys):
    """Exit status and text of the doctor on a machine that differs from a good one."""
    sizes = plan.Model(10**9, 10**8, 10**5, 10**8, 1536, 8960, 256, 28, 151936)  # counted elsewhere; no torch is loaded
    monkeypatch.setattr(plan, "model_of", lambda cfg: sizes)

    def tell(out: str = "", **changes) -> tuple[int, str]:
        found = {**GOOD, **changes}
        monkeypatch.setattr(machine, "gpus", lambda: found["gpus"])
        monkeypatch.setattr(machine, "memory", lambda: found["memory"])
        monkeypatch.setattr(machine, "cores", lambda: found["cores"])
        monkeypatch.setattr(machine, "disk", lambda folder: found["disk"])
        monkeypatch.setattr(doctor, "trials", lambda: {name: found[name] for name in doctor.TRIALS})
        monkeypatch.setattr(doctor, "packages", lambda: {"numpy": found["lock"]})
        return doctor.doctor(out), capsys.readouterr().out

    return tell


def reason(text: str, profile: str) -> str:
    """Why a profile cannot run; empty if it can."""
    rows = [row for row in text.splitlines() if row.startswith("- ")]
    return next((row for row in rows if profile in row[2:].partition(": ")[0].split(", ")), "")


def test_a_good_machine_can_run_the_profiles_for_cpus_and_no_more(told):
    code, text = told()
    verdict = text.splitlines()[0]
    assert code == 0 and verdict.startswith("Can run here: ablation, balance, cpu, dose, smoke;")
    for profile in gpu.GPU_PROFILES:
        assert "no GPU" in reason(text, profile) and profile in verdict.split(";")[1]
    assert "MODEL=folder" in reason(text, "smollm2") and "one kernel" in text


@pytest.mark.parametrize(
    "changes",
    [
        {"torch": {"error": "OSError: libcudart.so.13"}},
        {"verifier": {"error": "ModuleNotFoundError: No module named 'trl'"}},
        {"kernel": {"error": "NoSuchKernel: python3"}},
        {"disk": (100.0, "Permission denied")},
        {"disk": (0.1, "")},
        {"memory": (1.0, 0.5)},
    ],
    ids=str,
)
def test_what_keeps_profile_cpu_from_running_is_named_with_its_fix(told, changes):
    code, text = told(**changes)
    ((what, value),) = changes.items()
    expected = value["error"] if what in doctor.TRIALS else value[1] if what == "disk" and value[1] else str(value[0])
    assert code == 1 and expected in reason(text, "cpu") and "Fix: " in reason(text, "cpu")


def test_broken_4_bits_stop_only_what_needs_them(told):
    code, text = told(**{"4 bits": {"error": "RuntimeError: CUDA Setup failed"}})
    assert code == 0 and not reason(text, "cpu") and "load_in_4bit=false" in reason(text, "smoke")


def test_a_t4_runs_its_profile_and_what_does_not_fit_is_cut(told, monkeypatch):
    code, text = told(**T4)
    assert code == 0 and not reason(text, "t4") and "Tesla T4 (15.0 GiB)" in text
    monkeypatch.setattr(plan, "fits", lambda cfg, gib, reserve: f"does not fit in {gib}")
    assert "does not fit in 15.0" in reason(told(**T4)[1], "a100")
    _, text = told(**T4 | {"torch": TORCH | {"gpu": False}})
    assert "torch" in reason(text, "t4") and "CUDA_VISIBLE_DEVICES" in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lock": ("", "2.4.6")}, "not installed: numpy"),
        ({"lock": ("2.0.2", "2.4.6")}, "numpy 2.0.2"),
        ({"memory": (24.0, 0.7)}, "WORKERS=1"),
        ({"cores": 0.5}, "Fix: OMP_NUM_THREADS=1"),
    ],
)
def test_problems_are_named_where_they_apply(told, monkeypatch, changes, said):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert said in told(**changes)[1] and said not in told()[1]


def test_a_folder_on_a_drive_that_is_not_mounted(told):
    code, text = told(out="/content/drive/MyDrive/mgrpo")
    assert code == 1 and "not mounted" in reason(text, "cpu")


# ---------------------------------------------------------------------------------------------------- the whole command
def command(folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """The doctor in a process of its own, with packages of this folder before all others."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]), **environment}
    # -P: the current folder is not searched first, as it would be before PYTHONPATH
    call = [sys.executable, "-P", "-m", "mgrpo_lib", "doctor", "--out", str(folder / "out")]
    return subprocess.run(call, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("raise ModuleNotFoundError(f'No module named {__name__!r}', name=__name__)", "No module named 'torch'"),
        ("raise OSError('libtorch_cuda.so: undefined symbol')", "undefined symbol"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "Python died"),
    ],
    ids=["absent", "broken", "dying"],
)
def test_without_torch_the_doctor_says_so_and_shows_no_secret(tmp_path, code, expected):
    for name in ("torch", "bitsandbytes", "transformers"):
        (tmp_path / f"{name}.py").write_text(code)
    done = command(tmp_path, HF_TOKEN="hf_secret")
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert expected in reason(done.stdout, "cpu") and "requirements.lock" in reason(done.stdout, "cpu")
    assert "hf_secret" not in done.stdout + done.stderr and not (tmp_path / "out").exists()


@pytest.mark.parametrize("package", ["pydantic", "psutil", "pandas"])
def test_without_a_package_of_its_own_it_is_said_too(tmp_path, package):
    (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError('no {package}')")
    done = command(tmp_path)
    assert done.returncode == 1 and package in done.stdout and "pip install" in done.stdout, done.stderr


def test_the_kernel_that_is_tried_is_this_pythons(monkeypatch, tmp_path):
    spec = tmp_path / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text('{"argv": ["/no/such/python"], "display_name": "x", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    assert sys.executable in doctor.try_kernel()["said"]


def test_a_trial_that_hangs_ends(monkeypatch):
    monkeypatch.setattr(doctor, "LIMIT", 0.05)
    assert "0.05 s" in doctor.trials()["torch"]["error"]


def test_options_of_other_commands_are_refused():
    call = [sys.executable, "-m", "mgrpo_lib", "doctor", "--profile", "t4"]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "--out" in done.stderr


# ------------------------------------------------------------------------------------------------------ this machine
def test_disk_tells_what_cannot_be_written(monkeypatch, tmp_path):
    free, unwritable = machine.disk(tmp_path / "not" / "there")
    assert free > 0 and unwritable == "" and not list(tmp_path.iterdir()), "nothing is left behind"
    (tmp_path / "file").write_text("")
    assert machine.disk(tmp_path / "file" / "below")[1] == f"{tmp_path / 'file'} is no folder"
    assert machine.disk(Path("/proc/results"))[1], "also root cannot write there"


def test_a_container_s_limits_count(monkeypatch):
    whole, files = machine.memory()[0], "/sys/fs/cgroup/"
    now = {
        "memory.max": str(GIB),
        "memory.current": str(GIB),
        "memory.stat": f"anon 5\ninactive_file {GIB // 2}\nslab 7",
    }
    older = {"memory/memory.limit_in_bytes": str(GIB), "memory/memory.usage_in_bytes": str(GIB // 4)}
    for lines, free in ((now, 0.5), (older, 0.75)):
        monkeypatch.setattr(machine, "_read", lambda path, lines=lines: lines.get(path.removeprefix(files), ""))
        assert machine.memory() == (1.0, free)
    for unlimited in ({"memory.max": "max"}, {"memory/memory.limit_in_bytes": str(2**63 - 4096)}, {}):
        monkeypatch.setattr(machine, "_read", lambda path, lines=unlimited: lines.get(path.removeprefix(files), ""))
        assert machine.memory()[0] == whole
    allowed = len(os.sched_getaffinity(0))
    for quota, share in (("50000 100000", 0.5), ("max 100000", allowed), ("", allowed)):
        monkeypatch.setattr(machine, "_read", lambda path, quota=quota: quota)
        assert machine.cores() == share


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
