"""The benchmark's committed table is that of its result files, measured with the committed trainer."""

import json

from benchmarks import step_cost
from mgrpo_lib.store import TRAINING_CODE


def test_the_table_is_that_of_the_result_files_and_of_this_code():
    assert (step_cost.RESULTS / "step_cost.md").read_text(encoding="utf-8") == step_cost.table()
    for name in (*step_cost.CASES, "growth"):
        found = json.loads((step_cost.RESULTS / f"{name}.json").read_text())
        assert found["training_code"] == TRAINING_CODE, f"the trainer changed: python benchmarks/step_cost.py {name}"
