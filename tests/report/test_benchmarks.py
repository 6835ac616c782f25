"""The benchmark's committed table is that of its result files, measured with the committed trainer."""

import json

import pytest

from benchmarks import precision, step_cost
from mgrpo_lib.experiment import versions
from mgrpo_lib.experiment.settings import ROOT

pytestmark = pytest.mark.committed


def test_the_table_is_that_of_the_result_files_and_of_this_code():
    assert (step_cost.RESULTS / "step_cost.md").read_text(encoding="utf-8") == step_cost.table()
    for name in (*step_cost.CASES, "growth"):
        found = json.loads((step_cost.RESULTS / f"{name}.json").read_text())
        assert found["training_version"] == versions.TRAINING_VERSION, f"python benchmarks/step_cost.py {name}"


def test_what_readme_says_of_a_tokens_cost_is_what_was_measured():
    arms = {name: json.loads((step_cost.RESULTS / f"{name}.json").read_text())["arms"] for name in step_cost.CASES}
    ours = {name: found["mgrpo"]["ratio_to_grpo_matched"] for name, found in arms.items()}
    naive = [found["naive"]["ratio_to_grpo_matched"]["median"] for found in arms.values()]
    large = ours["135m"]
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"that is {ours['miniature']['median']:.2f} of the matched GRPO's (miniature)" in readme
    assert f"{ours['miniature_kl']['median']:.2f} (with a KL term) and {large['median']:.2f} " in readme
    assert f"[{large['lower']:.2f}, {large['upper']:.2f}] (135M)" in readme
    assert f"calls of TRL's it is {min(naive):.2f} to {max(naive):.2f}." in readme
    step = arms["miniature"]["mgrpo"]
    share = step["phases_ms_per_token"]["scoring"] / step["ms_per_token"]["median"]
    assert f"sampling and training: {100 * share:.1f}% of a step on the miniature" in readme


def test_what_readme_says_of_the_plan_on_a_gpu_is_what_was_measured():
    found = json.loads((precision.RESULTS / "precision.json").read_text())
    assert (precision.RESULTS / "precision.md").read_text(encoding="utf-8") == precision.table(found)
    (row,) = found["rows"]  # NF4 had not ended
    assert (row["case"], row["weights"]) == ("t4", "bfloat16") and "H100" in row["environment"]["gpu"]
    assert row["environment"]["training_version"] == versions.TRAINING_VERSION
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"{row['seconds']:.1f} s each where {row['planned_seconds']:.1f} s were planned" in readme
    longer = f"{row['seconds'] / row['planned_seconds']:.1f} times as long"
    assert f"(so count on hours {longer})" in readme and f"took {longer} as planned (below): multiply by that" in readme
    for profile in ("t4", "a100", "paper"):
        header = (ROOT / "profiles" / f"{profile}.yaml").read_text(encoding="utf-8").partition("\nmodel:")[0]
        assert f"took {longer} as planned)" in " ".join(header.replace("#", " ").split())
    assert f"{row['allocated']:.1f} GiB of tensors at most where {row['planned_memory']:.1f} GiB were planned" in readme
