"""What we rely on in TRL: an upgrade that changes it fails here, by name."""

import ast
import inspect
from dataclasses import fields

import pytest
from trl import GRPOConfig, GRPOTrainer

from mgrpo_lib.method.alternating import AlternatingTrainer
from mgrpo_lib.method.checkpoints import AtomicCheckpoints
from mgrpo_lib.method.config import MGRPOConfig
from mgrpo_lib.method.metrics import LayerMetrics
from mgrpo_lib.method.settings import MGRPOSettings
from mgrpo_lib.method.sharing import SharedPrompts
from mgrpo_lib.method.trainer import MGRPOTrainer

CLASSES = (MGRPOTrainer, SharedPrompts, LayerMetrics, AtomicCheckpoints, AlternatingTrainer)
OVERRIDES = {  # method: its arguments in TRL; "...": the rest goes through as it is
    "train": "...",
    "_get_train_sampler": "dataset",
    "_tokenize_prompts": "prompts",
    "_generate_single_turn": "prompt_ids images multimodal_fields num_generations has_tool_images",
    "_get_per_token_logps_and_entropies": "model input_ids attention_mask logits_to_keep batch_size ...",
    "_calculate_rewards": "inputs prompts completions completion_ids_list",
    "_generate_and_score_completions": "inputs",
    "_prepare_inputs": "generation_batch",
    "_compute_loss": "model inputs",
    "_get_output_dir": "trial",
    "_save_checkpoint": "model trial",
}
OF_TRL = {name for base in GRPOTrainer.__mro__ for name in vars(base)}


def ours() -> list[tuple[str, object]]:
    found = [(name, value) for kind in CLASSES for name, value in vars(kind).items() if inspect.isfunction(value)]
    return [(name, inspect.unwrap(value)) for name, value in found if name in OF_TRL - {"__init__"}]


def test_nothing_else_of_trl_is_overridden():
    assert {name for name, _ in ours()} == set(OVERRIDES), "no name of ours may hide one of TRL's by accident"
    hidden = {name for kind in CLASSES for name, value in vars(kind).items() if not inspect.isfunction(value)} & OF_TRL
    assert {name for name in hidden if not name.startswith("__")} <= {"_name", "_abc_impl", "_tag_names", "_paper"}


@pytest.mark.parametrize("name", OVERRIDES)
def test_every_override_has_trls_signature(name):
    method = getattr(GRPOTrainer, name, None)
    assert method is not None, f"TRL has no {name} any more"
    *expected, last = ["self", *OVERRIDES[name].split()]
    for function in (method, *(function for known, function in ours() if known == name)):
        found = list(inspect.signature(function).parameters)
        assert found[: len(expected)] == expected, f"{function.__qualname__} has other arguments: {found}"
        if last != "...":
            assert found[len(expected) :] == [last]
        elif function is not method:
            assert found[-1] == "kwargs"


@pytest.mark.parametrize("kind", CLASSES)
def test_no_body_of_trl_is_copied(kind):
    """A class calls TRL's method wherever it overrides it."""
    code = ast.unparse(ast.parse(inspect.getsource(kind)))
    for name in vars(kind).keys() & OVERRIDES.keys():
        assert f"super().{name}" in code, name
    if kind is MGRPOTrainer:
        assert code.count("super()._compute_loss(model, batch)") == 1, "the loss is TRL's, for every layer"


def test_no_setting_of_the_layers_is_one_of_trls():
    theirs = {field.name for field in fields(GRPOConfig)}
    layers = {"num_layers", "num_corrections", "drafts_per_prompt", "select_drafts", "keep_corrections"}
    layers |= {"correction_advantage", "progress_bonus", "right_above", "layer_weights", "phrases", "phrase_role"}
    assert {field.name for field in fields(MGRPOSettings)} - theirs == layers, "TRL ignores a default it does not know"
    assert {field.name for field in fields(MGRPOConfig)} - theirs == {*layers, "max_generated_tokens"}


@pytest.mark.parametrize("field", fields(MGRPOSettings), ids=lambda field: field.name)
def test_where_the_help_speaks_of_trls_default_it_is_trls(field):
    said = field.metadata["help"]
    theirs = {one.name: one.default for one in fields(GRPOConfig)}
    if said.endswith("TRL's default"):
        assert field.default == theirs[field.name]
    if "TRL's default is " in said:
        assert str(theirs[field.name]) == said.split("TRL's default is ")[1].rstrip(".").replace("0", "0.0")
        assert theirs[field.name] != field.default
