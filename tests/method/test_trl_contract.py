"""What we rely on in TRL, PEFT and bitsandbytes: an upgrade that changes it fails here, by name."""

import ast
import inspect
from dataclasses import fields

import peft
import pytest
import transformers
import trl
from trl import GRPOConfig, GRPOTrainer

from mgrpo_lib.experiment.settings import ROOT
from mgrpo_lib.method.config import MGRPOConfig
from mgrpo_lib.method.trainer import MGRPOTrainer

OVERRIDES = {
    "_get_train_sampler": ["self", "dataset"],
    "_tokenize_prompts": ["self", "prompts"],
    "_generate_single_turn": [
        "self",
        "prompt_ids",
        "images",
        "multimodal_fields",
        "num_generations",
        "has_tool_images",
    ],
    "_get_per_token_logps_and_entropies": [
        "self",
        "model",
        "input_ids",
        "attention_mask",
        "logits_to_keep",
        "batch_size",
        "...",
    ],
    "_calculate_rewards": ["self", "inputs", "prompts", "completions", "completion_ids_list"],
    "_generate_and_score_completions": ["self", "inputs"],
    "_prepare_inputs": ["self", "generation_batch"],
    "_compute_loss": ["self", "model", "inputs"],
    "_get_output_dir": ["self", "trial"],
    "_save_checkpoint": ["self", "model", "trial"],
}
CALLED = {
    "MGRPOConfig": MGRPOConfig,
    "MGRPOTrainer": GRPOTrainer,
    "LoraConfig": peft.LoraConfig,
    "BitsAndBytesConfig": transformers.BitsAndBytesConfig,
}


@pytest.mark.parametrize("name", OVERRIDES)
def test_every_override_has_trls_signature(name):
    method = getattr(GRPOTrainer, name, None)
    assert method is not None, f"TRL {trl.__version__} has no {name} any more; MGRPOTrainer overrides it"
    theirs, ours = (list(inspect.signature(kind).parameters) for kind in (method, vars(MGRPOTrainer)[name]))
    expected = OVERRIDES[name]
    if expected[-1] == "...":  # the rest goes through as it is
        expected = expected[:-1]
        theirs, ours, last = theirs[: len(expected)], ours[: len(expected)], ours[len(expected) :]
        assert last == ["kwargs"]
    assert theirs == expected, f"TRL {trl.__version__} changed the arguments of {name}: {theirs}"
    assert ours == expected


def test_nothing_else_of_trl_is_overridden():
    ours = {name for name, value in vars(MGRPOTrainer).items() if inspect.isfunction(value)}
    inherited = {name for base in GRPOTrainer.__mro__ for name in vars(base)}
    assert ours & inherited - {"__init__"} == set(OVERRIDES), "no name of ours may hide one of TRL's by accident"


def test_every_override_calls_super():
    tree = ast.parse((ROOT / "mgrpo_lib" / "trainer.py").read_text(encoding="utf-8"))
    trainer = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "MGRPOTrainer")
    for method in trainer.body:
        if isinstance(method, ast.FunctionDef) and method.name in OVERRIDES and method.name != "_compute_loss":
            assert f"super().{method.name}(" in ast.unparse(method)
    assert ast.unparse(trainer).count("super()._compute_loss(model, batch)") == 1, "the loss is TRL's, for every layer"


def test_every_default_that_we_write_out_is_trls():
    theirs = {field.name for field in fields(GRPOConfig)}
    own = set(MGRPOConfig.__annotations__)
    layers = {
        "num_layers",
        "num_corrections",
        "drafts_per_prompt",
        "select_drafts",
        "keep_corrections",
        "correction_advantage",
        "progress_bonus",
        "schedule",
        "layer_weights",
        "phrases",
        "phrase_role",
        "max_generated_tokens",
    }
    assert own - theirs == layers, "a default that TRL does not know would be ignored"
    assert not layers & theirs, "TRL has an argument of that name now"


def test_every_keyword_that_we_pass_exists():
    found = dict.fromkeys(CALLED, 0)
    for path in (ROOT / "mgrpo_lib").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLED:
                known = set(inspect.signature(CALLED[node.func.id].__init__).parameters)
                passed = {keyword.arg for keyword in node.keywords}
                assert passed <= known, f"{path.name}: {node.func.id} has no {sorted(passed - known)}"
                found[node.func.id] += 1
    assert all(found.values()), "a call was not found; is this test still looking at the right names?"
