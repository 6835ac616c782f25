"""The command line in two processes trains the notebook's run, also with weights (FSDP) or Adam states (DeepSpeed) cut among them."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from safetensors.torch import load_file

from mgrpo_lib.experiment import keys, store, train
from mgrpo_lib.experiment.assignments import parse_assignments
from mgrpo_lib.experiment.settings import ROOT, load_config
from mgrpo_lib.method.prompts import PHRASES

# what `accelerate launch` starts on several GPUs; on CPUs alone it would start MPI, which is not installed
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
SHARDED = str(ROOT / "tests" / "experiment" / "sharded_on_cpu.py")
LORA = "base_steps=0 lora_rank=8 learning_rate=1e-2 micro_batch_size=4 gradient_checkpointing=true checkpoint_steps=2"


def launch(*arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*LAUNCH, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The run of the tests of FSDP, in two processes that each hold the whole model."""
    out = tmp_path_factory.mktemp("plain")
    launch("-m", "mgrpo_lib.experiment.train", *run_arguments(out))
    return out


@pytest.mark.slow
def test_the_command_line_trains_the_run_of_the_notebook_in_two_processes(plain):
    run = load_config("smoke", arm="mgrpo", output_root=str(plain), **parse_assignments(LORA.split()))
    manifest = store.read_json(run.run_folder / "run.json")
    assert manifest["key"] == keys.run_key(run), "the notebook would take this run for its own"
    assert manifest["processes"] == 2 and manifest["weight_change"] > 0
    assert manifest["steps"] == run.max_steps and (run.run_folder / "model" / "adapter_config.json").exists()
    arguments = store.read_json(run.run_folder / "arguments.json")
    rows = arguments["per_device_train_batch_size"] * arguments["gradient_accumulation_steps"] * 2
    assert rows == run.prompts_per_step * run.num_generations, "as many rows a step as in one process"
    assert not list(plain.rglob("*.partial*"))


def run_arguments(out) -> list[str]:
    return ["--profile", "smoke", "--arm", "mgrpo", "--out", str(out), "--set", *LORA.split()]


def sharded(kind: str, out, dtype: str, stop: int = -1) -> subprocess.CompletedProcess:
    """The run with a file of ``launch/``, for two processes as its comment says; interrupted in step `stop`."""
    packages = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(packages)}
    environment["DS_ACCELERATOR"] = "cpu"  # read by DeepSpeed alone
    call = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(ROOT / "launch" / f"{kind}.yaml")]
    call += ["--num_processes", "2", SHARDED, str(out / "report.json"), dtype, str(stop), *run_arguments(out)]
    return subprocess.run(call, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200)


def what_it_left(out) -> tuple[dict, list[dict], dict]:
    """Manifest, metrics and adapter of a run."""
    (folder,) = out.glob("results/smoke/runs/mgrpo-seed0")
    adapter = load_file(folder / "model" / "adapter_model.safetensors")
    return store.read_json(folder / "run.json"), store.read_jsonl(folder / "metrics.jsonl"), adapter


NO_DEEPSPEED = pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fsdp2", pytest.param("zero2", marks=NO_DEEPSPEED)])
def test_cut_among_processes_a_run_goes_on_from_its_checkpoint_and_has_the_numbers_of_whole_models(
    kind, plain, tmp_path
):
    stopped = sharded(kind, tmp_path, "float32", stop=3)
    assert stopped.returncode != 0 and "stopped by the test" in stopped.stderr, stopped.stderr[-4000:]
    done = sharded(kind, tmp_path, "float32")
    assert done.returncode == 0 and "goes on from checkpoint-2" in done.stdout, (done.stdout + done.stderr)[-4000:]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["type"] == {"fsdp2": "FSDP", "zero2": "DEEPSPEED"}[kind]
    assert report["share"] == pytest.approx(0.5, abs=0.01), "nothing is cut"
    assert kind == "fsdp2" or (report["stage"], report["clipping"]) == (2, 1.0)
    (manifest, metrics, adapter), (expected, expected_metrics, expected_adapter) = map(what_it_left, (tmp_path, plain))
    for name in ("key", "steps", "processes", "train_tokens", "processed_tokens", "trainable_parameters"):
        assert manifest[name] == expected[name], name
    assert manifest["processes"] == 2 and manifest["weight_change"] > 0.1
    assert manifest["weight_change"] == pytest.approx(expected["weight_change"], rel=1e-4)
    assert adapter.keys() == expected_adapter.keys()
    # DeepSpeed sums gradients in another order, which Adam makes visible where they are near 0; a step is 1e-2
    atol = {"fsdp2": 1e-5, "zero2": 1e-4}[kind]
    for name, weight in adapter.items():
        torch.testing.assert_close(weight, expected_adapter[name], rtol=1e-4, atol=atol)
    times = ("step_time", "layer2/step_time")
    for row, other in zip(metrics, expected_metrics, strict=True):
        assert {name: value for name, value in row.items() if name not in times} == pytest.approx(
            {name: value for name, value in other.items() if name not in times}, rel=1e-3, abs=1e-6
        )
    assert any(row["grad_norm"] > 0 for row in metrics)


@pytest.mark.slow
def test_with_fsdp_bfloat16_weights_train_adapters_in_float32(plain, tmp_path):
    done = sharded("fsdp2", tmp_path, "bfloat16")
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["type"] == "FSDP" and report["frozen"] == ["torch.bfloat16"]
    assert "param_dtype=torch.bfloat16" in report["policy"], "the file leaves the precision to the training"
    (manifest, _, adapter), (expected, _, expected_adapter) = map(what_it_left, (tmp_path, plain))
    assert manifest["steps"] == expected["steps"] and adapter.keys() == expected_adapter.keys()
    assert {weight.dtype for weight in adapter.values()} == {torch.float32}
    assert manifest["weight_change"] == pytest.approx(expected["weight_change"], rel=0.1)


@pytest.mark.parametrize("kind", ["fsdp2", "zero2"])
def test_accelerate_understands_the_launch_files(kind, monkeypatch):
    file = ROOT / "launch" / f"{kind}.yaml"
    given = load_config_from_file(str(file)).to_dict()
    assert given["distributed_type"] == {"fsdp2": "FSDP", "zero2": "DEEPSPEED"}[kind]
    call = ["--config_file", str(file), "--num_processes", "2", "-m", "mgrpo_lib.experiment.train", "--arm", "mgrpo"]
    args, *_ = _validate_launch_command(launch_command_parser().parse_args(call))
    assert args.num_processes == 2 and args.training_script == "mgrpo_lib.experiment.train"
    own = yaml.safe_load(file.read_text(encoding="utf-8"))[{"fsdp2": "fsdp_config", "zero2": "deepspeed_config"}[kind]]
    for name, value in own.items():
        name = name if kind == "zero2" else f"fsdp_{name.removeprefix('fsdp_')}"
        assert str(getattr(args, name)).lower() == str(value).lower(), f"accelerate drops {name}"


@pytest.mark.parametrize(
    ("arguments", "named"), [(["--arm", "mgrop"], "mgrpo, grpo"), (["--set", "learning_rat=1"], "'learning_rate'")]
)
def test_the_command_line_refuses_what_it_does_not_know(arguments, named, tmp_path, monkeypatch, capsys):
    call = ["mgrpo_lib.experiment.train", "--profile", "smoke", "--out", str(tmp_path), *arguments]
    monkeypatch.setattr(sys, "argv", call)
    assert train.main() == 2 and named in capsys.readouterr().err


def test_a_run_is_trained_with_the_phrases_of_its_arm(tmp_path):
    cfg = load_config("smoke", arms={"mgrpo": {}, "two": {"phrases": PHRASES[2:4]}}, arm="two", control_arms=[])
    assert train.training_arguments(cfg, str(tmp_path)).phrases == PHRASES[2:4]
    assert train.training_arguments(cfg.of_arm("mgrpo"), str(tmp_path)).phrases == PHRASES
