"""Several processes: selections of unlike size end, and give the gradient of the formula."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

# what `accelerate launch` starts on several GPUs; on CPUs alone it would start MPI, which is not installed
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


@pytest.fixture(scope="module")
def report(folder, tmp_path_factory):
    file = tmp_path_factory.mktemp("processes") / "report.json"
    call = [*LAUNCH, str(Path(__file__).with_name("two_processes.py")), str(folder), str(file)]
    environment = {**tiny.environment(), "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return json.loads(file.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "dr_grpo"])
def test_unlike_selections_give_the_gradient_of_the_formula(loss_type, report):
    found = report[loss_type]
    assert found["real"][0] != found["real"][1], "the test needs selections of unlike size"
    assert found["rows"][0] == found["rows"][1] == max(found["real"])
    assert found["share_used"] == pytest.approx(sum(found["used"]) / sum(found["real"]))
    assert found["norm"] > 0.01 and found["error"] < 1e-4, found


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_group_advantages_over_both_processes_are_trls_to_the_bit(scale, report):
    assert report[f"scaled by {scale}"] == [True, True]
