"""Notebook 09: it runs, its gradient is the trainer's, and a fault in its equations is noticed."""

import json

import papermill
import pytest
import torch

from mgrpo_lib.experiment.notebook import parameters_of
from mgrpo_lib.experiment.pipeline import NOTEBOOKS

PATH = NOTEBOOKS / "09_from_scratch.ipynb"
METHOD = ["setup", "sample", "sampletoy", "grade", "advantage", "logp", "loss", "layer", "correct", "step"]
FAULTS = {
    "the loss's sign": ("loss", "return -(", "return ("),
    "the clip's minimum": ("loss", "torch.minimum", "torch.maximum"),
    "no clip": ("loss", "ratio.clamp(1 - EPSILON, 1 + EPSILON)", "ratio"),
    "no KL term": ("loss", " - BETA * D", ""),
    "the KL term's sign": ("loss", "- BETA * D", "+ BETA * D"),
    "a mean over all tokens": ("loss", "/ mask.sum(1)).mean()", ").sum() / mask.sum()"),
    "one token too few": ("logp", "begin <= place", "begin < place"),
    "no standard deviation": ("advantage", "/ (groups.std(1, keepdim=True) + 1e-4)", ""),
    "one layer alone": ("step", "for layer in layers)", "for layer in layers[:1])"),
}


def cells() -> dict[str, str]:
    """Return the code cells by the end of their ids."""
    notebook = json.loads(PATH.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return {cell["id"].removeprefix("09-"): "".join(cell["source"]) for cell in code}


def execute(names: list[str], values: dict, **changed: str) -> dict:
    """Run cells with these names at hand; `changed` replaces the source of some."""
    for name in names:
        exec({**cells(), **changed}[name], values)  # our own source
    return values


@pytest.fixture(scope="module")
def sampled() -> dict:
    """The notebook's names after the trainer has sampled and stepped."""
    return execute(["imports", "parameters", *METHOD, "watch", "trainer"], {})


def test_it_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)  # in a notebook figures are shown
    assert set(papermill.inspect_notebook(str(PATH))) == {*parameters_of(PATH)} == {"steps", "seed", "learning_rate"}
    done = papermill.execute_notebook(
        str(PATH), str(tmp_path / "out.ipynb"), {"steps": 2}, cwd=str(NOTEBOOKS), progress_bar=False, kernel_name="python3"
    )  # fmt: skip
    outputs = [output for cell in done.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    printed = "".join(output["text"] for output in outputs if output.get("name") == "stdout")
    assert "step  2 of 2" in printed


def test_its_gradient_is_the_trainers(sampled):
    values = execute(["compare"], {**sampled})
    first, *later = [float(clipped.rstrip("%")) for _, clipped, *_ in values["table"]]
    assert first == 0 and len(later) == 2 and all(later), "the clip must act, or it is not compared"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_noticed(fault, sampled):
    """The same comparison fails once a sign or a term of the source is changed."""
    name, right, wrong = FAULTS[fault]
    source = cells()[name]
    assert source.count(right) == 1
    values = execute(METHOD, {**sampled}, **{name: source.replace(right, wrong)})
    with pytest.raises(AssertionError):
        execute(["compare"], values)


def test_its_sampler_decodes_as_transformers_does(sampled):
    policy, prompts = sampled["base"], [sampled["encode"](f"<q>{p['question']}<a>") for p in sampled["validation"][:20]]
    for prompt, completion in zip(prompts, sampled["sample"](policy, prompts, greedy=True), strict=True):
        out = policy.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=sampled["LENGTH"])
        assert out[0, len(prompt) :].tolist() == completion


@pytest.mark.slow  # a minute and more
def test_self_correction_appears(sampled):
    values = execute(["attempts", "train"], {**sampled})
    before, after = values["curve"][0], values["curve"][-1]
    assert before["fixed"] < 10 and after["fixed"] > 50 and after["broken"] < 20
    assert after["attempt 2"] > after["attempt 1"] + 30
