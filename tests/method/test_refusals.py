"""What cannot train is refused before anything runs, with the setting's name and the fix."""

from functools import partial

import pytest
import tiny
from datasets import Dataset
from transformers import MixtralConfig, MixtralForCausalLM
from trl import GRPOConfig, GRPOTrainer

from mgrpo_lib.method import checks
from mgrpo_lib.method.alternating import AlternatingTrainer
from mgrpo_lib.method.config import MGRPOConfig
from mgrpo_lib.method.settings import MGRPOSettings
from mgrpo_lib.method.trainer import MGRPOTrainer

# setting and value in the message, and what it tells to do
OF_SETTINGS = [
    ({"num_layers": 0}, "num_layers is 0.* 1 or more"),
    ({"num_corrections": 0, "correction_advantage": "difference"}, "num_corrections is 0.* 1 or more"),
    ({"num_corrections": 1}, "num_corrections is 1.* 2 or more.*correction_advantage='difference'"),
    (
        {"num_corrections": 1, "drafts_per_prompt": 1, "correction_advantage": "progress"},
        "num_corrections is 1.* 2 or more",
    ),
    ({"num_iterations": 0}, "num_iterations is 0.* 1 or more"),
    ({"beta": -0.1}, "beta is -0.1.* 0 or more"),
    ({"beta": float("nan")}, "beta is nan.* 0 or more"),
    ({"progress_bonus": -1.0}, "progress_bonus is -1.0.* 0 or more"),
    ({"layer_weights": [1.0]}, "layer_weights has 1 .*per layer"),
    ({"phrases": []}, "phrases is .*at least one"),
    ({"phrases": "Sure?"}, "phrases is 'Sure.'.*a list"),
    ({"phrases": ["Sure?", " "]}, "phrases is .*a list of texts"),
    ({"phrases": ["Sure?", "Is \boxed{5} right?"]}, "phrases holds .*x08.*backslash twice"),
    ({"phrases": ["Sure?\u200b"], "num_layers": 1}, "phrases holds .*u200b.*delete"),
    ({"drafts_per_prompt": 9}, r"drafts_per_prompt is 9.*num_generations \([48]\)"),
    ({"drafts_per_prompt": 0}, r"drafts_per_prompt is 0.*num_generations \([48]\)"),
    ({"select_drafts": "mixed", "drafts_per_prompt": 1}, "select_drafts='mixed'.*drafts_per_prompt is 1.* 2 or more"),
    ({"select_drafts": "rong"}, "select_drafts is 'rong'.*all, wrong, mixed"),
    ({"keep_corrections": "some"}, "keep_corrections is 'some'.*all, successes"),
    ({"correction_advantage": "score"}, "correction_advantage is 'score'.*group, difference, progress"),
    ({"phrase_role": "system"}, "phrase_role is 'system'.*assistant, user"),
    ({"keep_corrections": "successes"}, "keep_corrections='successes'.*correction_advantage='difference'"),
]
OF_BATCHES = [
    ({"save_strategy": "steps", "save_steps": 3, "num_iterations": 2}, "save_steps=3.*multiple of 2"),
    ({"save_strategy": "steps", "save_steps": 0.5, "num_iterations": 2}, "save_steps=0.5.*multiple of 2"),
    ({"save_strategy": "epoch", "num_iterations": 2}, "save_strategy='epoch'.*save_strategy='steps'"),
    ({"use_adaptive_entropy": True, "select_drafts": "wrong"}, "use_adaptive_entropy=False"),
    ({"select_drafts": "wrong", "entropy_coef": 0.1}, "entropy_coef=0"),
    ({"select_drafts": "wrong", "loss_type": "bnpo"}, "loss_type='bnpo'.*'dapo'"),
    # 2 drafts of 3 corrections do not fill 4 micro-batches
    (
        {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4, "num_generations": 8, "loss_type": "bnpo"}
        | {"num_corrections": 3, "drafts_per_prompt": 1},
        "loss_type='bnpo'.*'dapo'",
    ),
    (
        {"correction_advantage": "difference", "scale_rewards": "batch"},
        "'difference'.*scale_rewards='group' or 'none'",
    ),
    (
        {"correction_advantage": "progress", "multi_objective_aggregation": "normalize_then_sum"},
        "'progress'.*multi_objective_aggregation='sum_then_normalize'",
    ),
]


@pytest.mark.parametrize(("options", "named"), OF_SETTINGS + OF_BATCHES, ids=str)
def test_settings_that_cannot_train_are_refused_with_the_fix(options, named, tmp_path):
    given = {**tiny.COMMON, **options}
    with pytest.raises(ValueError, match=named):
        MGRPOConfig(output_dir=str(tmp_path), **given)


TRLS_OWN = [({"num_generations": 1}, "num_generations is 1.* 2 or more")]  # TRL refuses it in words of its own


@pytest.mark.parametrize(("options", "named"), OF_SETTINGS + TRLS_OWN, ids=str)
def test_the_declaration_refuses_by_itself(options, named):
    with pytest.raises(ValueError, match=named):
        MGRPOSettings(**options)


def test_groups_cut_by_the_processes_are_refused(tmp_path, monkeypatch):
    """Two processes of 6 rows: TRL is content with 12, and the drafts of a question would lie on both."""
    monkeypatch.setattr(MGRPOConfig, "world_size", 2)
    options = {**tiny.COMMON, "per_device_train_batch_size": 6}
    with pytest.raises(ValueError, match="6 rows.*num_generations=4.*per_device_train_batch_size"):
        MGRPOConfig(output_dir=str(tmp_path), **options)
    MGRPOConfig(output_dir=str(tmp_path), **options, drafts_per_prompt=4)


def test_one_layer_needs_no_settings_of_corrections(tmp_path):
    config = MGRPOConfig(
        output_dir=str(tmp_path), num_layers=1, phrases=[], num_corrections=1, drafts_per_prompt=9, bf16=False
    )
    assert config.layer_weights == [1.0]


def test_defaults_are_the_papers_form(tmp_path):
    config = MGRPOConfig(output_dir=str(tmp_path), bf16=False)
    expected = {"loss_type": "grpo", "scale_rewards": "group", "beta": 0.001, "epsilon": 0.2, "epsilon_high": None}
    expected |= {"num_layers": 2, "num_generations": 8, "use_bias_correction_kl": False, "top_k": 0, "temperature": 1.0}
    assert {name: getattr(config, name) for name in expected} == expected


# ---------------------------------------------------------------------------------- with a model, questions, a trainer
QUESTION = {"prompt": "<q>1a+1<a>"}
PARTS = {"prompt": [{"role": "user", "content": [{"type": "image", "image": "1"}]}]}


@pytest.mark.parametrize(
    ("row", "options", "given", "named"),
    [
        (QUESTION, {"max_completion_length": 128}, {}, "max_completion_length=128.* 12[0-9] or less"),
        (QUESTION, {"phrase_role": "user"}, {}, "phrase_role='assistant'"),
        ({**QUESTION, "image": None}, {}, {}, "num_layers=1"),
        (PARTS, {}, {}, "num_layers=1"),
        (QUESTION, {"use_vllm": True}, {"quantization_config": 1}, "use_vllm=False"),
        (QUESTION, {"use_vllm": True, "model_init_kwargs": {"quantization_config": 1}}, {}, "use_vllm=False"),
        (QUESTION, {}, {"tools": [print]}, "tools.*num_layers=1"),
        (QUESTION, {}, {"rollout_func": print}, "rollout_func.*num_layers=1"),
    ],
    ids=str,
)
def test_the_trainer_refuses_before_anything_is_sampled(row, options, given, named, folder, tmp_path):
    args = MGRPOConfig(output_dir=str(tmp_path), **{**tiny.COMMON, **options})
    with pytest.raises(ValueError, match=named):
        MGRPOTrainer(str(folder), tiny.parity, args, Dataset.from_list([row] * 8), **given)


def test_another_configuration_is_refused(folder, tmp_path):
    args = GRPOConfig(output_dir=str(tmp_path), bf16=False)
    with pytest.raises(ValueError, match="GRPOConfig.*MGRPOConfig"):
        MGRPOTrainer(str(folder), tiny.parity, args, Dataset.from_list([QUESTION] * 8))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"gradient_accumulation_steps": 2, "steps_per_generation": 1}, "gradient_accumulation_steps=2"),
        ({"save_strategy": "steps", "save_steps": 3}, "save_steps=3.*multiple of 2"),
    ],
)
def test_layers_in_turn_refuse_steps_that_cut_a_turn(options, named, make):
    with pytest.raises(ValueError, match=named):
        make(AlternatingTrainer, **options)


def test_layers_in_turn_refuse_a_stream_of_questions(folder, tmp_path):
    args = MGRPOConfig(output_dir=str(tmp_path), **tiny.COMMON)
    stream = Dataset.from_list([QUESTION] * 8).to_iterable_dataset()
    with pytest.raises(ValueError, match="datasets.Dataset"):
        AlternatingTrainer(str(folder), tiny.parity, args, stream)
    MGRPOTrainer(str(folder), tiny.parity, args, stream)


def test_a_router_loss_is_refused_where_rows_are_left_out(tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = MixtralConfig(
        vocab_size=32, num_key_value_heads=1, num_local_experts=2, router_aux_loss_coef=0.01, **sizes
    )

    def build(**options):
        args = MGRPOConfig(output_dir=str(tmp_path), **tiny.COMMON, **options)
        rows, tokenizer = Dataset.from_list([QUESTION] * 8), tiny.make_tokenizer()
        return MGRPOTrainer(MixtralForCausalLM(config), tiny.parity, args, rows, processing_class=tokenizer)

    build()
    build(select_drafts="wrong", router_aux_loss_coef=0.0)
    with pytest.raises(ValueError, match="router_aux_loss_coef=0"):
        build(select_drafts="wrong")


def test_the_smaller_context_counts_where_vllm_has_its_own(make):
    trainer = make()
    tokenize = partial(GRPOTrainer._tokenize_prompts, trainer)
    trainer.args.use_vllm, trainer.args.vllm_max_model_length = True, 20
    with pytest.raises(ValueError, match="max_completion_length=12.*context of 20"):
        checks.before_training(trainer, tokenize)
    trainer.args.max_completion_length = None  # TRL: no limit of its own
    checks.before_training(trainer, tokenize)
