"""What the trainer does with every variant: resuming, three layers, turns, verification, the user's voice, 4 bits."""

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from test_trainer import COMMON, PHRASES, Recording, build, chat, differing, generated, parity_reward, trained_weights
from trl import GRPOConfig, GRPOTrainer

from mgrpo_lib.experiment.settings import ConfigError, load_config
from mgrpo_lib.experiment.train import training_arguments
from mgrpo_lib.method.config import MGRPOConfig
from mgrpo_lib.method.drafts import correction_advantages
from mgrpo_lib.method.trainer import UNFINISHED, MGRPOTrainer


@pytest.mark.parametrize(
    "options",
    [
        {"beta": 0.05, "lora": True},
        {"schedule": "alternating", "num_layers": 2},
        {"num_layers": 3, "select_drafts": "wrong", "num_iterations": 2, "save_steps": 2},
    ],
    ids=["lora and kl", "alternating", "three layers"],
)
def test_two_steps_and_a_resume_equal_four_steps_bit_for_bit(options, model_folder, tmp_path):
    options = {"num_corrections": 2, "save_strategy": "steps", "save_steps": 2, "max_steps": 4, **options}
    whole = build(MGRPOTrainer, MGRPOConfig, model_folder, tmp_path / "whole", **options)
    expected = trained_weights(whole)
    first = build(MGRPOTrainer, MGRPOConfig, model_folder, tmp_path / "two", **options)
    first.args.max_steps = 2
    first.train()
    second = build(MGRPOTrainer, MGRPOConfig, model_folder, tmp_path / "two", **options)
    second.train(resume_from_checkpoint=str(tmp_path / "two" / "checkpoint-2"))
    resumed = {name: p.detach() for name, p in second.model.named_parameters()}
    assert differing(expected, resumed) == []
    assert second.generated_tokens == whole.generated_tokens > first.generated_tokens
    for left, right in zip(whole.optimizer.state.values(), second.optimizer.state.values(), strict=True):
        assert all(torch.equal(left[key], right[key]) for key in left)


def test_layers_take_turns_and_the_second_one_corrects_the_drafts_of_the_first(model_folder, tmp_path):
    seen = []

    class Watching(Recording):
        def _generate_and_score_completions(self, inputs):
            batch = super()._generate_and_score_completions(inputs)
            if self._layer == 1:
                seen.append((self._main_layer, [row["answer"] for row in inputs], self._rollouts))
            return batch

    options = {"schedule": "alternating", "num_corrections": 2, "drafts_per_prompt": 1, "max_steps": 4}
    trainer = build(Watching, MGRPOConfig, model_folder, tmp_path, **options)
    trainer.train()
    assert [layer for layer, _, _ in seen] == [1, 2, 1, 2]
    assert seen[0][1] == seen[1][1] != seen[2][1], "both turns get the same questions, then come new ones"
    drafts, corrections = seen[0][2], seen[1][2]
    for prompt in corrections.prompts:
        assert any(prompt.startswith(q + c) for q, c in zip(drafts.prompts, drafts.completions, strict=True))
        assert any(phrase in prompt for phrase in PHRASES)
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert ["reward" in entry for entry in log] == [True, False, True, False]
    assert ["layer2/reward" in entry for entry in log] == [False, True, False, True]


def test_a_first_turn_is_trls_step(model_folder, tmp_path):
    """To rounding: a prompt is read once for its rows."""
    turn = {"schedule": "alternating", "num_corrections": 2}
    expected = trained_weights(build(GRPOTrainer, GRPOConfig, model_folder, tmp_path, max_steps=1, optim="sgd"))
    found = trained_weights(build(MGRPOTrainer, MGRPOConfig, model_folder, tmp_path, max_steps=1, optim="sgd", **turn))
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-6)


def gradient_of(trainer, batch) -> torch.Tensor:
    trainer.model.zero_grad()
    trainer._term(trainer.model, 2, batch).backward()
    return torch.cat([p.grad.flatten() for p in trainer.model.parameters()])


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "dr_grpo"])
def test_rows_that_are_not_trained_on_leave_the_gradient_of_the_rest(loss_type, model_folder, tmp_path):
    """Successes alone: the masked batch has the gradient that TRL gives the successes without the others."""
    rule = {"keep_corrections": "successes", "correction_advantage": "difference", "loss_type": loss_type}
    trainer = generated(model_folder, tmp_path, **rule)
    batch = trainer._correction_batches[0]
    right = trainer.corrections.right
    assert 0 < int(right.sum()) < len(right)
    assert torch.equal(batch["tool_mask"].any(1), right)
    assert batch["completion_mask"].any(1).all(), "the rows left out are read like the others"
    short = {key: value if value.ndim == 0 else value[right] for key, value in batch.items() if key != "share"}
    torch.testing.assert_close(gradient_of(trainer, batch), gradient_of(trainer, short), rtol=1e-4, atol=1e-6)
    before = trainer.drafts.rewards[trainer.parents]
    assert torch.equal(batch["advantages"], (trainer.corrections.rewards - before) * right)
    assert list(trainer._logs["advantages"])[-len(right) :] == batch["advantages"].tolist()


def test_the_progress_rule_is_relative_to_the_question(model_folder, tmp_path):
    trainer = generated(model_folder, tmp_path, correction_advantage="progress", progress_bonus=2.0)
    rewards, before = trainer.corrections.rewards, trainer.drafts.rewards[trainer.parents]
    questions = torch.tensor(trainer.corrections.questions)
    assert questions.tolist() == [0] * 6 + [1] * 6
    expected = correction_advantages("progress", rewards, before, questions, 2.0, True)
    assert torch.equal(trainer._correction_batches[0]["advantages"], expected)


@pytest.mark.parametrize("rule", ["difference", "progress"])
def test_a_correction_without_a_reward_has_no_advantage_and_is_in_no_mean(rule):
    nan = torch.nan
    rewards = torch.tensor([1.0, nan, 0.0, 1.0, 0.0, 1.0, 1.0])
    before = torch.tensor([0.0, 0.0, 0.0, nan, 1.0, 0.0, 0.0])
    questions = torch.tensor([0, 0, 0, 0, 0, 1, -1])
    found = correction_advantages(rule, rewards, before, questions, 2.0, True)
    some = torch.tensor([0, 2, 4])
    expected = torch.zeros(7)
    expected[some] = correction_advantages(rule, rewards[some], before[some], questions[some], 2.0, True)
    if rule == "difference":
        expected[5] = 1.0  # alone in its group, which this rule does not need
    assert torch.equal(found, expected) and float(found[some].abs().sum()) > 0


def test_completions_that_no_reward_function_scores_are_left_out_of_the_rule(model_folder, tmp_path):
    def some(completions, **kwargs):
        return [None if len(text) % 3 == 0 else float(len(text) % 2) for text in completions]

    trainer = generated(model_folder, tmp_path, correction_advantage="difference", reward=some)
    unscored = torch.tensor([len(text) % 3 == 0 for text in trainer.corrections.completions])
    assert unscored.any() and torch.equal(trainer.corrections.rewards.isnan(), unscored)
    advantages = trainer._correction_batches[0]["advantages"]
    assert not advantages[unscored].any() and advantages.any() and not advantages.isnan().any()


def test_wrong_drafts_alone_are_passed_on_and_none_are_made_up(model_folder, tmp_path):
    trainer = generated(model_folder, tmp_path, select_drafts="wrong")
    real = [i for i, question in zip(trainer.parents, trainer.corrections.questions, strict=True) if question >= 0]
    assert real and not trainer.drafts.right[real].any()
    everything_right = build(
        Recording, MGRPOConfig, model_folder, tmp_path, select_drafts="wrong", num_corrections=2, max_steps=2,
        reward=lambda completions, **kwargs: [1.0] * len(completions),
    )  # fmt: skip
    everything_right.train()
    log = next(entry for entry in everything_right.state.log_history if "loss" in entry)
    assert set(everything_right.corrections.questions) == {-1} and "layer2/accuracy" not in log


def test_fillers_complete_the_micro_batches_and_leave_no_trace(model_folder, tmp_path):
    """5 drafts x 3 corrections do not fill 4 micro-batches: fillers do, without reward, advantage or loss."""

    def some_prompts_earn_nothing(prompts, completions, **kwargs):
        return [r * (len(p) % 2) for p, r in zip(prompts, parity_reward(completions), strict=True)]

    options = {"per_device_train_batch_size": 5, "gradient_accumulation_steps": 4, "num_corrections": 3}
    options |= {"drafts_per_prompt": 1, "max_steps": 1, "reward": some_prompts_earn_nothing}
    trainer = build(Recording, MGRPOConfig, model_folder, tmp_path, **options)
    trainer.train()
    questions = torch.tensor(trainer.corrections.questions)
    assert len(questions) == 24 and int((questions >= 0).sum()) == 15
    parts = trainer._correction_slices[0]
    assert [sum(len(piece["advantages"]) for piece in part) for part in parts] == [6, 6, 6, 6]
    assert sum(int(piece["tool_mask"].any(1).sum()) for part in parts for piece in part) == 15
    assert all(sum(float(piece["share"]) for piece in part) == pytest.approx(24 / 15) for part in parts)
    log = next(entry for entry in trainer.state.log_history if "loss" in entry)
    groups = trainer.corrections.rewards[questions >= 0].view(-1, 3)
    constant = (groups == groups[:, :1]).all(1).float().mean()
    assert 0 < constant < 1 and log["layer2/frac_reward_zero_std"] == pytest.approx(float(constant))
    assert log["layer2/reward"] == pytest.approx(float(trainer.corrections.rewards[questions >= 0].mean()))


def test_the_users_voice_in_training(model_folder, tmp_path):
    reward = {"reward": lambda completions, **kwargs: parity_reward([c[0]["content"] for c in completions])}
    template = (
        "{% for m in messages %}{{ '<q>' + m['content'] if m['role'] == 'user' else '<a>' + m['content'] }}{% endfor %}"
    )
    template += "{% if add_generation_prompt %}{{ '<a>' }}{% endif %}"
    trainer = chat(
        Recording, MGRPOConfig, model_folder, tmp_path, template=template, phrase_role="user", num_corrections=2, max_steps=1,
        **reward,
    )  # fmt: skip
    trainer.train()
    ids, prompt = trainer.corrections.prompt_ids[0], trainer.corrections.prompts[0]
    text = trainer.processing_class.decode(ids)
    assert [message["role"] for message in prompt] == ["user", "assistant", "user"] and prompt[-1]["content"] in PHRASES
    assert text.count("<q>") == 2 and text.endswith("<a>") and prompt[-1]["content"] in text


def test_what_the_trainer_cannot_do_is_refused_before_anything_is_sampled(model_folder, tmp_path):
    with pytest.raises(ValueError, match="set max_completion_length to 1[0-9][0-9] or less"):
        build(MGRPOTrainer, MGRPOConfig, model_folder, tmp_path, max_completion_length=128)
    with pytest.raises(ValueError, match="plain text; use phrase_role='assistant'"):
        build(MGRPOTrainer, MGRPOConfig, model_folder, tmp_path, phrase_role="user")
    with pytest.raises(ValueError, match="pass an MGRPOConfig"):
        build(MGRPOTrainer, GRPOConfig, model_folder, tmp_path)
    rows = Dataset.from_list([{"prompt": "<q>1 a+1<a>"}] * 8)
    arguments = MGRPOConfig(output_dir=str(tmp_path), use_vllm=True, bf16=False)
    with pytest.raises(ValueError, match="set use_vllm=False, or load the model in bfloat16"):
        MGRPOTrainer(str(model_folder), parity_reward, arguments, rows, quantization_config=object())
    arguments.model_init_kwargs = {"quantization_config": object()}
    with pytest.raises(ValueError, match="set use_vllm=False, or load the model in bfloat16"):
        MGRPOTrainer(str(model_folder), parity_reward, arguments, rows)
    arguments = MGRPOConfig(output_dir=str(tmp_path), bf16=False)
    with pytest.raises(ValueError, match="use num_layers=1 with it"):
        MGRPOTrainer(str(model_folder), parity_reward, arguments, rows, tools=[print])


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"prompt": "<q>1 a+1<a>", "image": None}], {}, "num_layers=1 for questions with images"),
        ([{"prompt": [{"role": "user", "content": [{"type": "text", "text": "1"}]}]}], {}, "text alone"),
        ("stream", {"schedule": "alternating"}, "needs the questions of a turn again"),
    ],
    ids=["image", "parts", "stream"],
)
def test_questions_that_a_correction_layer_cannot_go_on_from_are_refused(
    rows, options, message, model_folder, tmp_path
):
    data = Dataset.from_list([{"prompt": "<q>1 a+1<a>"}] * 8).to_iterable_dataset()
    if rows != "stream":
        data = Dataset.from_list(rows * 8)
    arguments = MGRPOConfig(output_dir=str(tmp_path), **{**COMMON, **options})
    with pytest.raises(ValueError, match=message):
        MGRPOTrainer(str(model_folder), parity_reward, arguments, data)


def test_a_router_loss_is_refused_where_rows_are_left_out(tokenizer, tmp_path):
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = MixtralConfig(
        vocab_size=len(tokenizer), num_key_value_heads=1, num_local_experts=2, router_aux_loss_coef=0.01, **sizes
    )
    rows = Dataset.from_list([{"prompt": "<q>1 a+1<a>"}] * 8)
    for coefficient, options in ((0.0, {"select_drafts": "wrong"}), (None, {})):
        arguments = MGRPOConfig(output_dir=str(tmp_path), router_aux_loss_coef=coefficient, **{**COMMON, **options})
        MGRPOTrainer(MixtralForCausalLM(config), parity_reward, arguments, rows, processing_class=tokenizer)
    arguments = MGRPOConfig(output_dir=str(tmp_path), **COMMON, select_drafts="wrong")
    with pytest.raises(ValueError, match="set router_aux_loss_coef=0"):
        MGRPOTrainer(MixtralForCausalLM(config), parity_reward, arguments, rows, processing_class=tokenizer)


def test_a_checkpoint_from_the_middle_of_a_turn_is_refused(model_folder, tmp_path):
    """The last step saves, wherever it falls; its model is good, but nothing can go on from there."""
    options = {"schedule": "alternating", "num_corrections": 2, "save_strategy": "steps", "save_steps": 2}
    build(MGRPOTrainer, MGRPOConfig, model_folder, tmp_path, max_steps=3, **options).train()
    again = build(MGRPOTrainer, MGRPOConfig, model_folder, tmp_path, max_steps=4, **options)
    with pytest.raises(ValueError, match="resume from a step that is a multiple of 2"):
        again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert again.state.global_step == 4


def test_one_layer_takes_a_rollout_function(model_folder, tmp_path):
    import functools

    def rollout(prompts, trainer):
        ids = trainer.processing_class(prompts, add_special_tokens=False)["input_ids"]
        answers = [[5 + i % 3, trainer.processing_class.eos_token_id] for i in range(len(prompts))]
        return {"prompt_ids": ids, "completion_ids": answers, "logprobs": [[0.0, 0.0] for _ in prompts]}

    trainer_class = functools.partial(MGRPOTrainer, rollout_func=rollout)
    trainer = build(trainer_class, MGRPOConfig, model_folder, tmp_path, num_layers=1, max_steps=1)
    trainer.train()
    assert trainer.generated_tokens == 16


def test_the_smaller_limit_counts_where_vllm_has_its_own(model_folder, tmp_path):
    trainer = build(MGRPOTrainer, MGRPOConfig, model_folder, tmp_path)
    trainer.args.use_vllm, trainer.args.vllm_max_model_length = True, 20
    with pytest.raises(ValueError, match="model's context of 20 tokens"):
        trainer._check_context()
    trainer.args.max_completion_length = None  # TRL: no limit of its own
    trainer._check_context()


def test_precision_is_chosen_by_capability_and_says_why(monkeypatch):
    from mgrpo_lib.experiment.models import compute_dtype

    assert compute_dtype(cpu=True)[0] == torch.float32
    for has, dtype, word in ((True, torch.bfloat16, "has it"), (False, torch.float16, "older than Ampere")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, has=has: has)
        chosen, reason = compute_dtype(cpu=False)
        assert chosen == dtype and word in reason
    with pytest.raises(ConfigError, match="older than Ampere and has none; dtype=auto"):  # the last of the two has none
        compute_dtype(cpu=False, wanted="bfloat16")
    assert compute_dtype(cpu=True, wanted="bfloat16") == (torch.bfloat16, "bfloat16: as dtype says")


def test_an_adapter_trained_on_4_bits_reloads_and_merges_into_the_dense_base(tmp_path):
    from transformers import AutoModelForCausalLM

    from mgrpo_lib.experiment.models import load_base, load_policy, merge_adapter
    from mgrpo_lib.experiment.settings import load_config
    from mgrpo_lib.experiment.train import train

    small = {"base_steps": 5, "max_steps": 2, "prompts_per_step": 2, "micro_batch_size": 8}
    cfg = load_config("smoke", arm="mgrpo_nf4", output_root=str(tmp_path), **small)
    with pytest.raises(FileNotFoundError, match="train mgrpo_nf4-seed0 first"):
        merge_adapter(cfg, tmp_path / "merged")
    train(cfg)
    weights = cfg.run_folder / "model" / "adapter_model.safetensors"
    torch.manual_seed(0)  # two steps on a garbled model may find no reward: make sure that the adapter does something
    save_file({name: value + 0.1 * torch.randn_like(value) for name, value in load_file(weights).items()}, weights)
    policy, tokenizer = load_policy(cfg)
    assert any(p.dtype == torch.uint8 for p in policy.parameters())
    merge_adapter(cfg, tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    base = load_base(cfg, str(cfg.of_arm("base").run_folder / "model"))
    from peft import PeftModel

    dense = PeftModel.from_pretrained(base, cfg.run_folder / "model").eval()
    ids = torch.tensor([tokenizer("<q>7 a+8 b*3<a>", add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, dense(ids).logits, rtol=1e-4, atol=1e-4)
        with dense.disable_adapter():
            assert not torch.allclose(merged(ids).logits, dense(ids).logits, atol=1e-3), "the adapter must matter"
    with pytest.raises(ValueError, match="dense already"):
        full = cfg.of_arm("mgrpo")
        (full.run_folder / "model").mkdir(parents=True)
        merge_adapter(full, tmp_path / "other")


def test_guiding_phrases_of_a_run_are_those_it_is_trained_with(tmp_path):
    cfg = load_config("smoke", arms={"mgrpo": {}, "two": {"phrases": PHRASES[2:4]}}, arm="two", control_arms=[])
    assert training_arguments(cfg, str(tmp_path)).phrases == PHRASES[2:4]
    assert training_arguments(cfg.of_arm("mgrpo"), str(tmp_path)).phrases == PHRASES


@pytest.mark.parametrize(("metric", "place"), [(None, UNFINISHED), ("reward", ".")])
def test_a_checkpoint_whose_address_is_noted_while_it_is_written_has_it_from_the_start(
    metric, place, model_folder, tmp_path, monkeypatch
):
    options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 1, "metric_for_best_model": metric}
    seen, save = [], MGRPOTrainer._save_rng_state
    monkeypatch.setattr(MGRPOTrainer, "_save_rng_state", lambda *given: (seen.append(given[1]), save(*given)))
    build(MGRPOTrainer, MGRPOConfig, model_folder, tmp_path, **options).train()
    assert [Path(path) for path in seen] == [tmp_path / place / "checkpoint-1"]
    assert (tmp_path / "checkpoint-1" / "trainer_state.json").exists()


@pytest.mark.slow  # on CPUs it takes most of a minute
def test_continuous_batching_samples_both_layers(model_folder, tmp_path):
    options = {"max_steps": 1, "use_transformers_continuous_batching": True}
    trainer = build(MGRPOTrainer, MGRPOConfig, model_folder, tmp_path, num_corrections=2, **options)
    trained_weights(trainer)  # and they move
    step = trainer.state.log_history[0]
    assert step["tokens"] > 0 and step["layer2/tokens"] > 0
    assert trainer.generated_tokens == step["tokens"] + step["layer2/tokens"]
