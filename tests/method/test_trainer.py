"""The trainer against TRL's: one layer is TRL's GRPO bit for bit, a layer of weight 0 leaves no trace, layer 2 is TRL's
GRPO on the built prompts.
"""

import pytest
import tiny
import torch
from tiny import Recording, differing, generate, logged, trained_weights, weights
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from trl import GRPOTrainer

from mgrpo_lib.method.prompts import PHRASES, correction_ids, guidance

VARIANTS = {
    "grpo": {},
    "bnpo": {"loss_type": "bnpo"},
    "dr_grpo": {"loss_type": "dr_grpo"},
    "dapo": {"loss_type": "dapo"},
    "grpo, accumulation": {"gradient_accumulation_steps": 2},
    "bnpo, accumulation": {"loss_type": "bnpo", "gradient_accumulation_steps": 2},
    "dr_grpo, accumulation": {"loss_type": "dr_grpo", "gradient_accumulation_steps": 2},
    "dapo, accumulation": {"loss_type": "dapo", "gradient_accumulation_steps": 2},
    "two iterations": {"num_iterations": 2},
    "two steps a generation": {"steps_per_generation": 2, "gradient_accumulation_steps": 1},
    "lora and kl": {"beta": 0.05, "lora": True},
    "kl": {"beta": 0.05},
    "conversations": {"template": tiny.TEMPLATE},
}


# -------------------------------------------------------------------------------------------- equality with TRL
@pytest.mark.parametrize("variant", VARIANTS)
def test_one_layer_and_weight_zero_equal_trl_bit_for_bit(variant, make):
    options = VARIANTS[variant]
    expected = trained_weights(make(GRPOTrainer, **options))
    assert differing(expected, trained_weights(make(num_layers=1, **options))) == []
    weight_zero = {"layer_weights": [1.0, 0.0], "num_corrections": 2}
    assert differing(expected, trained_weights(make(**weight_zero, **options))) == []


@pytest.mark.parametrize(
    "options",
    [{}, {"beta": 0.05}, {"num_iterations": 2}, {"beta": 0.05, "loss_type": "dapo"}, {"scale_rewards": "batch"}],
    ids=str,
)
def test_layer_2_batch_and_loss_equal_trl_on_the_built_prompts(options, sampled, make):
    """TRL, given the layer-2 prompts as its own and the same random state, samples and scores the same batch: tokens,
    masks, advantages, old and reference log-probabilities, and the loss.
    """
    recorded = sampled(**options)
    ours, corrections = recorded.batches[2], recorded.layers[2]
    plain = make(GRPOTrainer, num_generations=3, per_device_train_batch_size=12, **options)
    plain.model.train()
    plain.current_gradient_accumulation_steps = 1
    # the same tokens: a garbled draft may not survive decoding and tokenising, which is why the trainer does neither
    plain._tokenize_prompts = lambda prompts: (corrections.prompt_ids, None, {})
    torch.manual_seed(recorded.seeds[2])
    theirs = plain._generate_and_score_completions(corrections.inputs)
    assert ours.keys() == theirs.keys()
    assert ("ref_per_token_logps" in ours) == ("beta" in options)
    assert ("old_per_token_logps" in ours) == ("num_iterations" in options)
    for key in ours:
        if key in ("old_per_token_logps", "ref_per_token_logps"):  # a prompt is read once for its rows: other sums
            mask = theirs["completion_mask"]
            torch.testing.assert_close(ours[key] * mask, theirs[key] * mask, rtol=1e-5, atol=1e-5, msg=key)
        else:
            assert torch.equal(ours[key], theirs[key]), key
    assert ours["advantages"].any()
    gradients = []
    losses = plain._compute_loss(plain.model, theirs), GRPOTrainer._compute_loss(recorded, recorded.model, ours)
    torch.testing.assert_close(losses[1], losses[0], rtol=0, atol=1e-7)
    for trainer, loss in zip((plain, recorded), losses, strict=True):
        trainer.model.zero_grad()
        loss.backward()
        gradients.append(tiny.gradient(trainer.model))
    assert gradients[0].any()
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-7)


# -------------------------------------------------------------------------------------------- what layer 2 reads
def test_layer_2_prompts_are_question_draft_phrase_token_for_token(sampled):
    recorded = sampled()
    tokenizer, drafts, corrections = recorded.processing_class, recorded.layers[1], recorded.layers[2]
    batch = recorded.batches[2]
    read = [ids[mask.bool()].tolist() for ids, mask in zip(batch["prompt_ids"], batch["prompt_mask"], strict=True)]
    assert read == corrections.prompt_ids and len(read) == 2 * 2 * 3  # questions x drafts x corrections
    phrases = [tokenizer(guidance(phrase), add_special_tokens=False)["input_ids"] for phrase in PHRASES]
    eos = {tokenizer.eos_token_id}
    for row, parent in enumerate(corrections.parents):
        draft = drafts.prompt_ids[parent], drafts.completion_ids[parent]
        assert read[row] in [correction_ids(*draft, phrase, eos) for phrase in phrases]
        assert read[row] == read[row - row % 3], "a group shares one draft and one phrase"
    assert [corrections.questions[row] for row in (0, 6)] == [0, 1] and len(set(map(tuple, read))) == 4


@pytest.mark.parametrize("role", ["assistant", "user"])
def test_conversations_in_both_voices(role, sampled):
    template = tiny.TEMPLATE.replace(" + '<a>'", "").replace("else m", "else '<a>' + m")
    template += "{% if add_generation_prompt %}{{ '<a>' }}{% endif %}"
    recorded = sampled(template=template, phrase_role=role)
    drafts, corrections = recorded.layers[1], recorded.layers[2]
    parent, prompt, ids = corrections.parents[0], corrections.prompts[0], corrections.prompt_ids[0]
    begun = drafts.prompt_ids[parent]
    draft = drafts.completions[parent][0]["content"]
    assert ids[: len(begun)] == begun and prompt[1]["content"].startswith(draft)
    assert [message["role"] for message in prompt] == ["user", "assistant", "user"][: 2 if role == "assistant" else 3]
    text = recorded.processing_class.decode(ids[len(begun) :])
    assert any(phrase in text and phrase in prompt[-1]["content"] for phrase in PHRASES)
    assert text.endswith("<a>") == (role == "user")


def test_the_reward_sees_the_new_segment_alone(make):
    seen = []

    def spy(prompts, completions, number, **kwargs):
        seen.append((list(prompts), list(completions), list(number)))
        return tiny.parity(completions)

    trainer = make(Recording, reward=spy, num_corrections=2, max_steps=1)
    trainer.train()
    (questions, drafts, _), (prompts, corrections, numbers) = seen
    layer = trainer.layers[2]
    for row, parent in enumerate(layer.parents):
        begun = questions[parent] + drafts[parent]
        assert prompts[row] in [begun + guidance(phrase) for phrase in PHRASES]
        assert numbers[row] == trainer.layers[1].inputs[parent]["number"]
        assert corrections[row] == trainer.processing_class.decode(layer.completion_ids[row], skip_special_tokens=True)


def test_three_layers_correct_the_corrections(make):
    trainer = make(Recording, num_layers=3, num_corrections=2, drafts_per_prompt=1, max_steps=1)
    trainer.train()
    assert {"reward", "layer2/reward", "layer3/reward"} <= logged(trainer)[0].keys()
    # 2 questions, 1 draft of each passed on by every layer, 2 corrections
    assert [sum(len(piece["advantages"]) for piece in layer[0]) for layer in trainer._pieces] == [4, 4]
    second, third = trainer.layers[2], trainer.layers[3]
    for row, parent in enumerate(third.parents):
        begun = second.prompts[parent] + second.completions[parent]
        assert third.prompts[row] in [begun + guidance(phrase) for phrase in PHRASES]


def test_wrong_drafts_alone_are_passed_on_and_none_are_made_up(make):
    trainer = generate(make(Recording, select_drafts="wrong", num_corrections=2))
    layers = trainer.layers
    real = [layers[2].parents[row] for row in layers[2].real.nonzero().flatten()]
    assert real and not layers[1].right[real].any()
    always_right = make(
        Recording, select_drafts="wrong", num_corrections=2, max_steps=2, reward=lambda completions, **_: [1.0] * len(completions)
    )  # fmt: skip
    always_right.train()
    assert not always_right.layers[2].real.any() and "layer2/accuracy" not in logged(always_right)[0]


# ------------------------------------------------------------------------------------- what is trained on, how often
def test_every_correction_is_used_once_in_each_iteration(make):
    """Two micro-batches a generation, used twice: the slices of layer 2 are those of one batch, each row once."""
    options = {"steps_per_generation": 2, "gradient_accumulation_steps": 1, "num_iterations": 2, "max_steps": 4}
    trainer = make(Recording, num_corrections=2, **options)
    used, compute = [], trainer._compute_loss

    def spy(model, inputs):
        used.append([row for piece in inputs["corrections"][0] for row in piece["completion_ids"].tolist()])
        return compute(model, inputs)

    trainer._compute_loss = spy
    trainer.train()
    whole = sorted(trainer.batches[2]["completion_ids"].tolist())
    assert len(whole) == 16 // 4 * 2 * 2  # rows / G questions, 2 drafts each, 2 corrections each
    assert len(used) == 4 and sorted(used[0] + used[1]) == sorted(used[2] + used[3]) == whole


def test_fillers_complete_the_micro_batches_and_leave_no_trace(make):
    """5 drafts x 3 corrections do not fill 4 micro-batches: fillers do, without reward, advantage or loss."""

    def some_prompts_earn_nothing(prompts, completions, **kwargs):
        return [r * (len(p) % 2) for p, r in zip(prompts, tiny.parity(completions), strict=True)]

    options = {"per_device_train_batch_size": 5, "gradient_accumulation_steps": 4, "num_corrections": 3}
    options |= {"drafts_per_prompt": 1, "max_steps": 1, "reward": some_prompts_earn_nothing}
    trainer = make(Recording, **options)
    trainer.train()
    corrections, parts = trainer.layers[2], trainer._pieces[0]
    real = corrections.real
    assert len(real) == 24 and int(real.sum()) == 15
    assert [sum(len(piece["advantages"]) for piece in part) for part in parts] == [6, 6, 6, 6]
    assert sum(int(piece["tool_mask"].any(1).sum()) for part in parts for piece in part) == 15
    assert all(sum(float(piece["share"]) for piece in part) == pytest.approx(24 / 15) for part in parts)
    assert not trainer.batches[2]["advantages"][~real].any() and corrections.rewards[~real].isnan().all()
    groups, log = corrections.rewards[real].view(-1, 3), logged(trainer)[0]
    constant = (groups == groups[:, :1]).all(1).float().mean()
    assert 0 < constant < 1 and log["layer2/frac_reward_zero_std"] == pytest.approx(float(constant))
    assert log["layer2/reward"] == pytest.approx(float(groups.mean()))


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "dr_grpo"])
def test_rows_that_are_not_trained_on_leave_the_gradient_of_the_rest(loss_type, sampled):
    """Successes alone: the masked batch has the gradient that TRL gives the successes without the others."""
    rule = {"keep_corrections": "successes", "correction_advantage": "difference", "loss_type": loss_type}
    trainer = sampled(**rule)
    batch, right = trainer.batches[2], trainer.layers[2].right
    assert 0 < int(right.sum()) < len(right) and torch.equal(batch["tool_mask"].any(1), right)
    assert batch["completion_mask"].any(1).all(), "the rows left out are read like the others"
    short = {key: value if value.ndim == 0 else value[right] for key, value in batch.items() if key != "share"}
    gradients = []
    for one in (batch, short):
        trainer.model.zero_grad()
        trainer._term(trainer.model, 2, one).backward()
        gradients.append(tiny.gradient(trainer.model))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_a_step_without_any_advantage_changes_nothing_and_does_not_fail(make):
    trainer = make(num_corrections=2, max_steps=1, reward=lambda completions, **_: [1.0] * len(completions))
    before = weights(trainer)
    trainer.train()
    assert differing(before, weights(trainer)) == []


# ------------------------------------------------------------------------------------------------------- what is logged
def test_metrics_of_the_layers_do_not_mix_and_tokens_are_counted(make):
    trainer = make(Recording, num_corrections=2, max_steps=2)
    counted, grade = [], trainer._calculate_rewards

    def count(inputs, prompts, completions, completion_ids_list):
        counted.append(sum(map(len, completion_ids_list)))
        return grade(inputs, prompts, completions, completion_ids_list)

    trainer._calculate_rewards = count
    trainer.train()
    log, layers = logged(trainer)[1], trainer.layers
    for layer, prefix in ((layers[1], ""), (layers[2], "layer2/")):
        digits = [any(map(str.isdigit, text)) for text in layer.completions]
        assert log[f"{prefix}some digit"] == pytest.approx(sum(digits) / len(digits))  # a reward function's own metric
        assert log[f"{prefix}reward"] == log[f"{prefix}accuracy"] == pytest.approx(float(layer.rewards.mean()))
    assert (log["tokens"], log["layer2/tokens"]) == tuple(counted[2:])
    assert log["generated_tokens"] == sum(counted) == trainer.generated_tokens
    right_before = float(layers[1].right[layers[2].parents].float().mean())
    assert log["layer2/accuracy"] == pytest.approx(right_before + log["layer2/fixed"] - log["layer2/broken"])
    assert "layer2/answer_changed" not in log, "without answer_of there is no answer"


def test_with_answer_of_changed_answers_are_logged(make):
    trainer = make(Recording, num_corrections=2, max_steps=1, given={"answer_of": len})
    trainer.train()
    first, second = trainer.layers[1], trainer.layers[2]
    changed = [len(first.texts[i]) != len(text) for i, text in zip(second.parents, second.texts, strict=True)]
    assert sum(changed) > 0 and logged(trainer)[0]["layer2/answer_changed"] == sum(changed) / len(changed)


def test_token_budget_stops_at_the_nearest_step(make):
    free = make(num_layers=1, max_steps=6)
    free.train()
    counts = [entry["generated_tokens"] for entry in logged(free)]
    bounded = make(num_layers=1, max_steps=6, max_generated_tokens=int(counts[3]) + 5)
    bounded.train()
    assert bounded.state.global_step == 4 and bounded.generated_tokens == counts[3]


def test_evaluation_samples_both_layers_and_counts_no_tokens(make):
    trainer = make(num_corrections=2, num_generations_eval=2, per_device_eval_batch_size=4)
    scores = trainer.evaluate(eval_dataset=trainer.train_dataset.select(range(4)))
    assert {"eval_reward", "eval_layer2/reward"} <= scores.keys() and trainer.generated_tokens == 0


# ------------------------------------------------------------------------------------------ adapters, 4 bits, samplers
def test_lora_moves_and_its_base_does_not(make):
    trainer = make(num_corrections=2, lora=True)
    changed = differing(weights(trainer), trained_weights(trainer))
    assert changed and all("lora_" in name for name in changed)


def test_nf4_adapter_is_float32_and_training_after_evaluation_works(folder, make, monkeypatch):
    load = AutoModelForCausalLM.from_pretrained
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    in_4_bits = lambda place, **how: load(place, **how, quantization_config=nf4)  # noqa: E731
    monkeypatch.setattr(tiny.AutoModelForCausalLM, "from_pretrained", in_4_bits)
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)  # as on CPUs that repack
    trainer = make(num_corrections=2, max_steps=2, per_device_eval_batch_size=4, lora=True)
    assert not any(getattr(module, "support_avx512bf16_for_cpu", False) for module in trainer.model.modules())
    before = weights(trainer)
    adapter = {name for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert any(p.dtype == torch.uint8 for p in before.values()), "nothing was quantised"
    assert {before[name].dtype for name in adapter} == {torch.float32}
    trainer.evaluate(eval_dataset=trainer.train_dataset.select(range(4)))  # bitsandbytes would repack the weights here
    trainer.train()
    moved = differing(before, weights(trainer))
    assert set(moved) <= adapter, "the 4-bit base must not move"
    assert any("lora_A" in name for name in moved) and any("lora_B" in name for name in moved)


def test_one_layer_takes_a_rollout_function(make):
    def rollout(prompts, trainer):
        ids = trainer.processing_class(prompts, add_special_tokens=False)["input_ids"]
        answers = [[5 + i % 3, trainer.processing_class.eos_token_id] for i in range(len(prompts))]
        return {"prompt_ids": ids, "completion_ids": answers, "logprobs": [[0.0, 0.0] for _ in prompts]}

    trainer = make(num_layers=1, max_steps=1, given={"rollout_func": rollout})
    trainer.train()
    assert trainer.generated_tokens == 16


@pytest.mark.slow  # on CPUs it takes most of a minute
def test_continuous_batching_samples_both_layers(make):
    trainer = make(num_corrections=2, max_steps=1, use_transformers_continuous_batching=True)
    trained_weights(trainer)  # and they move
    step = logged(trainer)[0]
    assert step["tokens"] > 0 and step["layer2/tokens"] > 0
    assert trainer.generated_tokens == step["tokens"] + step["layer2/tokens"]
