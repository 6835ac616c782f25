"""Several processes: selections of unlike size end, and give the gradient of the formula; the command line trains the
notebook's run.
"""

import json
import os
import subprocess
import sys

import pytest

from mgrpo_lib import store
from mgrpo_lib.config import ROOT, load_config

# what `accelerate launch` starts on several GPUs; on CPUs alone it would start MPI, which is not installed
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def launch(*arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*LAUNCH, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done


def test_unlike_selections_give_the_gradient_of_the_formula(model_folder, tmp_path):
    launch(str(ROOT / "tests" / "two_processes.py"), str(model_folder), str(tmp_path))
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report) == {"grpo", "dapo", "dr_grpo"}
    for loss_type, found in report.items():
        assert found["real"][0] != found["real"][1], "the test needs selections of unlike size"
        assert found["rows"][0] == found["rows"][1] == max(found["real"])
        assert found["share_used"] == pytest.approx(sum(found["used"]) / sum(found["real"]))
        assert found["norm"] > 0.01 and found["error"] < 1e-4, (loss_type, found)


def test_the_command_line_trains_the_run_of_the_notebook_in_two_processes(tmp_path):
    launch("-m", "mgrpo_lib.train", "--profile", "smoke", "--arm", "mgrpo", "--out", str(tmp_path))
    run = load_config("smoke", arm="mgrpo", output_root=str(tmp_path))
    manifest = store.read_json(run.run_folder / "run.json")
    assert manifest["key"] == store.run_key(run), "the notebook would take this run for its own"
    assert manifest["processes"] == 2 and manifest["weight_change"] > 0
    assert manifest["steps"] == run.max_steps and (run.run_folder / "model" / "config.json").exists()
    arguments = store.read_json(run.run_folder / "arguments.json")
    rows = arguments["per_device_train_batch_size"] * arguments["gradient_accumulation_steps"] * 2
    assert rows == run.prompts_per_step * run.num_generations, "as many rows a step as in one process"
    assert not list(tmp_path.rglob("*.partial*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--arm", "mgrop"], "did you mean 'mgrpo'"), (["--params", "learning_rat=1"], "did you mean 'learning_rate'")],
)
def test_the_command_line_refuses_what_it_does_not_know(arguments, message, tmp_path):
    call = [sys.executable, "-m", "mgrpo_lib.train", "--profile", "smoke", "--out", str(tmp_path), *arguments]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and message in done.stderr
