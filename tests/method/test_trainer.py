"""The trainer against TRL's: one layer is TRL's GRPO bit for bit, a layer of weight 0 leaves no trace, layer 2 is TRL's
GRPO on the built prompts.
"""

import copy

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
)
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import add_fused_lm_head

from mgrpo_lib.method.config import MGRPOConfig
from mgrpo_lib.method.prompts import PHRASES, correction_ids, guidance
from mgrpo_lib.method.trainer import MGRPOTrainer, can_share_prompts, each_prompt_once
from mgrpo_lib.tasks import miniature
from mgrpo_lib.verifier.reward import accuracy_reward

COMMON = {
    "per_device_train_batch_size": 8,
    "num_generations": 4,
    "max_completion_length": 12,
    "learning_rate": 1e-2,
    "max_steps": 3,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "disable_tqdm": True,
    "disable_dropout": True,
    "seed": 7,
    "beta": 0.0,
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "lr_scheduler_type": "constant",
    "warmup_steps": 0,
    "use_bias_correction_kl": False,
    "epsilon_high": 0.2,
}
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
}


def parity_reward(completions, log_metric=None, **kwargs):
    """A reward that an untrained model earns now and then: an even number of digits."""
    if log_metric is not None:
        log_metric("some digit", sum(any(map(str.isdigit, text)) for text in completions) / len(completions))
    return [float(sum(c.isdigit() for c in text) % 2 == 0) for text in completions]


def build(trainer_class, config_class, folder, tmp_path, reward=parity_reward, template=None, **options):
    options = {**COMMON, "loss_type": "grpo", **options}
    lora = (
        LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
        if options.pop("lora", False)
        else None
    )
    torch.manual_seed(0)
    rows = miniature.problems("train", "train", 16)
    prompts = [f"<q>{row['question']}<a>" for row in rows]
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    if template:
        tokenizer.chat_template = template
        prompts = [[{"role": "user", "content": row["question"]}] for row in rows]
    return trainer_class(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        reward_funcs=reward,
        args=config_class(output_dir=str(tmp_path), **options),
        train_dataset=Dataset.from_list(
            [{"prompt": prompt, "answer": row["answer"]} for prompt, row in zip(prompts, rows, strict=True)]
        ),
        processing_class=tokenizer,
        peft_config=lora,
    )


TEMPLATE = (
    "{% for m in messages %}{{ '<q>' + m['content'] + '<a>' if m['role'] == 'user' else m['content'] }}{% endfor %}"
)


def chat(trainer_class, config_class, folder, tmp_path, template=TEMPLATE, **options):
    """The same in conversations: a chat template that writes the miniature's prompt."""
    return build(trainer_class, config_class, folder, tmp_path, template=template, **options)


def trained_weights(trainer) -> dict[str, torch.Tensor]:
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    after = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    assert any(not torch.equal(before[name], after[name]) for name in after), (
        "training moved nothing, the comparison would be empty"
    )
    return after


def differing(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> list[str]:
    assert left.keys() == right.keys()
    return [name for name in left if not torch.equal(left[name], right[name])]


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_layer_and_weight_zero_equal_trl_bit_for_bit(variant, model_folder, tmp_path):
    options = VARIANTS[variant]
    expected = trained_weights(build(GRPOTrainer, GRPOConfig, model_folder, tmp_path, **options))
    one_layer = trained_weights(build(MGRPOTrainer, MGRPOConfig, model_folder, tmp_path, num_layers=1, **options))
    assert differing(expected, one_layer) == []
    layers = {"num_layers": 2, "layer_weights": [1.0, 0.0], "num_corrections": 2, "drafts_per_prompt": 2}
    weight_zero = trained_weights(build(MGRPOTrainer, MGRPOConfig, model_folder, tmp_path, **layers, **options))
    assert differing(expected, weight_zero) == []


def test_conversations(model_folder, tmp_path):
    options = {"reward": lambda completions, **kwargs: parity_reward([c[0]["content"] for c in completions])}
    expected = trained_weights(chat(GRPOTrainer, GRPOConfig, model_folder, tmp_path, **options))
    one_layer = trained_weights(chat(MGRPOTrainer, MGRPOConfig, model_folder, tmp_path, num_layers=1, **options))
    assert differing(expected, one_layer) == []
    zero = {"layer_weights": [1.0, 0.0], "num_corrections": 2}
    assert (
        differing(expected, trained_weights(chat(MGRPOTrainer, MGRPOConfig, model_folder, tmp_path, **zero, **options)))
        == []
    )
    trainer = chat(Recording, MGRPOConfig, model_folder, tmp_path, num_corrections=2, max_steps=1, **options)
    trainer.train()
    parent = trainer.parents[0]
    prompt, ids = trainer.corrections.prompts[0], trainer.corrections.prompt_ids[0]
    assert prompt[-1]["role"] == "assistant"
    assert prompt[-1]["content"].startswith(trainer.drafts.completions[parent][0]["content"])
    assert ids[: len(trainer.drafts.prompt_ids[parent])] == trainer.drafts.prompt_ids[parent]


def test_second_layer_changes_the_update(model_folder, tmp_path):
    one = trained_weights(build(MGRPOTrainer, MGRPOConfig, model_folder, tmp_path, num_layers=1))
    two = trained_weights(build(MGRPOTrainer, MGRPOConfig, model_folder, tmp_path, num_corrections=2))
    assert differing(one, two) != []


class Recording(MGRPOTrainer):
    """Keeps what a generation produced."""

    def _prepare_inputs(self, generation_batch):
        self.last_inputs = super()._prepare_inputs(generation_batch)
        return self.last_inputs

    def _correct(self, layer):
        self.drafts = self._rollouts
        self.sampling_seed = self._seed(layer, "sampling")
        batch = super()._correct(layer)
        self.corrections = self._rollouts
        return batch

    def _rewarded(self, batch, drafts, parents, corrections):
        self.parents = parents
        return super()._rewarded(batch, drafts, parents, corrections)


def generated(model_folder, tmp_path, **options):
    """A trainer that has generated one batch of both layers and not yet stepped; H = 3 differs from G = 4."""
    trainer = build(Recording, MGRPOConfig, model_folder, tmp_path, num_corrections=3, drafts_per_prompt=2, **options)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1  # set by `train`, which is not called here
    trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    return trainer


@pytest.fixture
def recorded(model_folder, tmp_path):
    return generated(model_folder, tmp_path)


def test_layer_2_prompts_are_question_draft_phrase_token_for_token(recorded):
    tokenizer, drafts, batch = recorded.processing_class, recorded.drafts, recorded._correction_batches[0]
    prompts = [ids[mask.bool()].tolist() for ids, mask in zip(batch["prompt_ids"], batch["prompt_mask"], strict=True)]
    assert len(prompts) == 2 * 2 * 3  # questions x drafts x corrections
    phrases = [tokenizer(guidance(phrase), add_special_tokens=False)["input_ids"] for phrase in PHRASES]
    possible = [
        correction_ids(prompt, completion, phrase, {tokenizer.eos_token_id})
        for prompt, completion in zip(drafts.prompt_ids, drafts.completion_ids, strict=True)
        for phrase in phrases
    ]
    assert all(prompt in possible for prompt in prompts)
    groups = [prompts[i : i + 3] for i in range(0, len(prompts), 3)]
    assert all(all(prompt == group[0] for prompt in group) for group in groups), (
        "a group must share one draft and one phrase"
    )
    assert len({str(group[0]) for group in groups}) > 1


@pytest.mark.parametrize(
    "options", [{}, {"beta": 0.05}, {"num_iterations": 2}, {"beta": 0.05, "loss_type": "dapo"}], ids=str
)
def test_layer_2_batch_and_loss_equal_trl_on_the_built_prompts(options, model_folder, tmp_path):
    """TRL, given the layer-2 prompts as its own prompts and the same random state, samples and scores the same batch:
    tokens, masks, advantages, old and reference log-probabilities, and the loss.
    """
    recorded = generated(model_folder, tmp_path, **options)
    ours, corrections = recorded._correction_batches[0], recorded.corrections
    sizes = {"num_generations": 3, "per_device_train_batch_size": 12}
    plain = build(GRPOTrainer, GRPOConfig, model_folder, tmp_path, **sizes, **options)
    plain.model.train()
    plain.current_gradient_accumulation_steps = 1
    # the same tokens: a garbled draft may not survive decoding and tokenising, which is why the trainer does neither
    plain._tokenize_prompts = lambda prompts: (corrections.prompt_ids, None, {})
    torch.manual_seed(recorded.sampling_seed)
    inputs = zip(corrections.prompts, corrections.inputs, strict=True)
    theirs = plain._generate_and_score_completions([{"prompt": p, "answer": row["answer"]} for p, row in inputs])
    assert ours.keys() == theirs.keys()
    assert ("ref_per_token_logps" in ours) == ("beta" in options)
    assert ("old_per_token_logps" in ours) == ("num_iterations" in options)
    for key in ours:
        if key in ("old_per_token_logps", "ref_per_token_logps"):  # a prompt is read once for its rows: other sums
            mask = theirs["completion_mask"]
            torch.testing.assert_close(ours[key] * mask, theirs[key] * mask, rtol=1e-5, atol=1e-5, msg=key)
        else:
            assert torch.equal(ours[key], theirs[key]), key
    assert float(ours["advantages"].abs().sum()) > 0
    plain_loss = plain._compute_loss(plain.model, theirs)
    our_loss = GRPOTrainer._compute_loss(recorded, recorded.model, ours)
    torch.testing.assert_close(our_loss, plain_loss, rtol=0, atol=1e-7)
    for trainer, loss in ((recorded, our_loss), (plain, plain_loss)):
        trainer.model.zero_grad()
        loss.backward()
    theirs, ours = (torch.cat([p.grad.flatten() for p in t.model.parameters()]) for t in (plain, recorded))
    assert float(theirs.norm()) > 0
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_every_correction_is_used_once_in_each_iteration(model_folder, tmp_path):
    """Two micro-batches a generation, used twice: the slices of layer 2 are those of one batch, each row once."""
    options = {"steps_per_generation": 2, "gradient_accumulation_steps": 1, "num_iterations": 2, "max_steps": 4}
    trainer = build(Recording, MGRPOConfig, model_folder, tmp_path, num_corrections=2, **options)
    used, original = [], trainer._compute_loss

    def spy(model, inputs):
        used.append([row for piece in inputs["corrections"][0] for row in piece["completion_ids"].tolist()])
        return original(model, inputs)

    trainer._compute_loss = spy
    trainer.train()
    parts = [piece for part in trainer._correction_slices[0] for piece in part]
    whole = sorted(row for piece in parts for row in piece["completion_ids"].tolist())
    assert len(used) == 4
    assert sorted(used[0] + used[1]) == sorted(used[2] + used[3]) == whole
    assert len(whole) == 16 // 4 * 2 * 2  # rows / G questions, 2 drafts each, 2 corrections each


def test_advantages_are_relative_to_the_corrections_of_one_draft(recorded):
    rewards = recorded.corrections.rewards.view(-1, 3)
    expected = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
    torch.testing.assert_close(
        recorded._correction_batches[0]["advantages"].view(-1, 3), expected, rtol=1e-5, atol=1e-6
    )


def gradient(trainer, inputs, weights) -> torch.Tensor:
    trainer.args.layer_weights = weights
    trainer.model.zero_grad()
    trainer._compute_loss(trainer.model, inputs).backward()
    return torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])


def test_joint_gradient_is_the_weighted_sum(recorded):
    inputs = recorded.last_inputs
    first, second = gradient(recorded, inputs, [1.0, 0.0]), gradient(recorded, inputs, [0.0, 1.0])
    joint = gradient(recorded, inputs, [1.0, 0.3])
    assert float(second.norm()) > 0
    torch.testing.assert_close(joint, first + 0.3 * second, rtol=1e-4, atol=1e-6)


LOSSES = ("grpo", "bnpo", "dr_grpo", "dapo", "luspo", "sapo", "cispo", "vespo")


@pytest.mark.parametrize("loss_type", [loss for loss in LOSSES if loss != "bnpo"])
def test_accumulation_slices_leave_the_gradient(loss_type, model_folder, tmp_path):
    """Four micro-batches, whatever their pieces: together the gradient of the whole layer."""
    recorded = generated(model_folder, tmp_path, loss_type=loss_type)
    whole, normaliser = recorded._correction_batches[0], 1 if loss_type in ("dapo", "cispo", "vespo") else 4
    expected = gradient_of(recorded, [whole], lean=False)
    for most, pieces in ((10**9, 1), (1, 3)):
        parts = recorded._split(whole, 4, most)
        assert [len(part) for part in parts] == [pieces] * 4
        assert [sum(len(piece["advantages"]) for piece in part) for part in parts] == [3, 3, 3, 3]
        found = gradient_of(recorded, [piece for part in parts for piece in part]) / normaliser
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


def gradient_of(trainer, batches, lean=True) -> torch.Tensor:
    """The gradient of the sum of some layer-2 batches' terms."""
    trainer._lean = lean
    trainer.model.zero_grad()
    for batch in batches:
        trainer._term(trainer.model, 2, batch).backward()
    return torch.cat([p.grad.flatten() for p in trainer.model.parameters()])


@pytest.mark.parametrize("options", [{"loss_type": loss} for loss in LOSSES] + [
    {"num_iterations": 2}, {"beta": 0.05}, {"entropy_coef": 0.1}, {"entropy_coef": 0.1, "loss_type": "dapo"}, {"top_entropy_quantile": 0.5},
    {"importance_sampling_level": "sequence"}, {"mask_truncated_completions": True}, {"lora": True},
], ids=str)  # fmt: skip
def test_what_is_not_computed_leaves_the_update(options, model_folder, tmp_path):
    """Without the rows that have no advantage and the columns of padding, in pieces, one term after the other: the loss
    and the gradient of the plain sum of TRL's losses.
    """
    trainer = generated(model_folder, tmp_path, layer_weights=[1.0, 0.7], **options)
    inputs, whole = trainer.last_inputs, trainer._correction_batches[0]
    whole["advantages"][:4], inputs["advantages"][::3] = 0.0, 0.0
    idle = int((whole["advantages"] == 0).sum())
    assert idle < 12, "nothing would be left"
    kl_or_entropy = options.keys() & {"beta", "entropy_coef", "top_entropy_quantile"}
    assert int(trainer._with_gradient(whole).sum()) == (12 if kl_or_entropy else 12 - idle)
    trainer._lean = False
    loss = trainer._term(trainer.model, 1, inputs) + trainer._term(trainer.model, 2, whole)
    loss.backward()
    expected = torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])
    trainer._lean = True
    pieces = trainer._split(whole, 1, 100)[0]
    # an entropy bonus and a quantile of entropies are taken over the rows of one call, which stays whole
    assert (len(pieces) == 1) == bool(options.keys() & {"entropy_coef", "top_entropy_quantile"})
    trainer.model.zero_grad()
    found = trainer._compute_loss(trainer.model, {**inputs, "corrections": [pieces]})
    found.backward()
    torch.testing.assert_close(found.detach(), loss.detach(), rtol=1e-4, atol=1e-6)
    gradient = torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])
    assert float(expected.norm()) > 0
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-5)


def test_a_step_without_any_advantage_changes_nothing_and_does_not_fail(model_folder, tmp_path):
    trainer = build(
        MGRPOTrainer, MGRPOConfig, model_folder, tmp_path, num_corrections=2, max_steps=1,
        reward=lambda completions, **kwargs: [1.0] * len(completions),
    )  # fmt: skip
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    assert differing(before, dict(trainer.model.named_parameters())) == []


def test_one_reading_of_a_draft_serves_all_its_corrections(model_folder, tmp_path):
    """Tokens go through the model once for a draft, and what is sampled is what TRL samples (see the test above)."""
    trainer, read = build(MGRPOTrainer, MGRPOConfig, model_folder, tmp_path, num_corrections=2), []
    trainer.model.register_forward_pre_hook(
        lambda model, args, kwargs: read.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    assert read[0] == (8, read[0][1]) and read[0][1] > 1, "layer 1 reads each question for each completion, as TRL does"
    (prefill,) = [shape for shape in read[1:] if shape[1] > 1]
    assert prefill[0] == 4, "2 questions, 2 drafts each"
    assert [shape for shape in read if shape[0] == 8][-1][1] == 1
    assert "generate" not in vars(trainer.model)


ARCHITECTURES = {
    "llama": (LlamaConfig, {}),
    "a window shorter than the prompt": (MistralConfig, {"sliding_window": 6}),
    "windows and full attention in turn, capped logits": (Gemma2Config, {"sliding_window": 6, "head_dim": 16}),
    "learned positions": (GPT2Config, {"n_embd": 32, "n_layer": 2, "n_head": 2}),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_prompt_read_once_gives_the_log_probabilities_and_gradients_of_one_read_for_each_row(name):
    """Seven rows of three prompts of different lengths, in any order, with completions of different lengths."""
    kind, options = ARCHITECTURES[name]
    sizes = {"vocab_size": 40, "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
    if kind is not GPT2Config:
        sizes = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 32}
        sizes |= {"num_attention_heads": 2, "num_key_value_heads": 1}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(kind(pad_token_id=0, **sizes, **options)).train()
    assert can_share_prompts(model)
    add_fused_lm_head(model, temperature=0.9, outputs=("log_probs", "entropy"))
    lengths, of, ends = torch.tensor([9, 4, 12]), [2, 0, 1, 0, 2, 2, 0], torch.tensor([5, 2, 5, 4, 1, 3, 5])
    prompts = torch.randint(1, 40, (3, 12))
    read = (torch.arange(12) >= 12 - lengths[:, None]).long()
    written = (torch.arange(5) < ends[:, None]).long()
    mask = torch.cat([read[of], written], 1)
    ids = torch.cat([prompts[of], torch.randint(1, 40, (7, 5))], 1) * mask
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :-5] = -100

    def outcome(call):
        model.zero_grad()
        out = call(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True)
        out = torch.stack([out.log_probs[:, -5:], out.entropy[:, -5:]]) * written
        (out * torch.arange(1, 36).view(7, 5)).sum().backward()
        return out.detach(), torch.cat([p.grad.flatten() for p in model.parameters()])

    calls = []
    model.register_forward_pre_hook(lambda _, args, kw: calls.append(tuple(kw["input_ids"].shape)), with_kwargs=True)
    (expected, gradient), (found, shared) = outcome(model), outcome(each_prompt_once(model, model.config, 5))
    assert calls == [(7, 17), (3, 11), (7, 6)]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(shared, gradient, rtol=1e-4, atol=1e-4 * float(gradient.abs().max()))


def test_what_depends_on_the_whole_input_is_not_shared():
    """What a model keeps of a prompt can be shared where it is keys and values alone, the same with any text behind it."""
    sizes = {"vocab_size": 32, "hidden_size": 32, "num_hidden_layers": 2}
    heads = {"intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
    llama = LlamaForCausalLM(LlamaConfig(**sizes, **heads))
    assert can_share_prompts(llama)
    longer = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    assert not can_share_prompts(LlamaForCausalLM(LlamaConfig(**sizes, **heads, rope_parameters=longer)))
    assert can_share_prompts(get_peft_model(copy.deepcopy(llama), LoraConfig(task_type="CAUSAL_LM")))
    virtual = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    assert not can_share_prompts(get_peft_model(copy.deepcopy(llama), virtual))
    assert not can_share_prompts(MambaForCausalLM(MambaConfig(**sizes, state_size=4)))


def test_keys_and_values_go_by_the_name_that_a_model_has_for_them():
    """transformers 5.24 calls them `cache`; an argument of that name that nothing fills is something else (XLM)."""

    class Renamed:
        config, calls = LlamaConfig(), []

        def forward(self, input_ids=None, attention_mask=None, cache=None, use_cache=None, logits_to_keep=0, **others):
            self.calls.append((cache, others))

        __call__ = forward

    class Other:
        config = LlamaConfig()

        def forward(self, input_ids=None, attention_mask=None, cache=None, logits_to_keep=0):
            pass

    renamed, rows = Renamed(), torch.tensor([[5, 6, 7, 8]] * 2)
    assert can_share_prompts(renamed) and not can_share_prompts(Other())
    each_prompt_once(renamed, renamed.config, 2)(rows, torch.ones_like(rows), rows)
    (first, others), (second, more) = renamed.calls
    assert first is second is not None and "past_key_values" not in {**others, **more}


def test_metrics_of_the_layers_do_not_mix_and_tokens_are_counted(model_folder, tmp_path):
    trainer = build(Recording, MGRPOConfig, model_folder, tmp_path, num_corrections=2, max_steps=2)
    counted = 0
    original = trainer._calculate_rewards

    def count(inputs, prompts, completions, completion_ids_list):
        nonlocal counted
        counted += sum(map(len, completion_ids_list))
        return original(inputs, prompts, completions, completion_ids_list)

    trainer._calculate_rewards = count
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert len(log) == 2
    assert (log[-1]["some digit"], log[-1]["layer2/some digit"]) == tuple(  # a reward function's own metric
        pytest.approx(sum(any(map(str.isdigit, text)) for text in layer.completions) / len(layer.completions))
        for layer in (trainer.drafts, trainer.corrections)
    )
    assert log[-1]["generated_tokens"] == counted == trainer.generated_tokens
    assert log[-1]["reward"] == pytest.approx(float(trainer.drafts.rewards.mean()))
    assert log[-1]["layer2/reward"] == pytest.approx(float(trainer.corrections.rewards.mean()))
    assert log[-1]["layer2/accuracy"] == pytest.approx(log[-1]["layer2/reward"])
    right_before = float((trainer.drafts.rewards[trainer.parents] > 0.5).float().mean())
    change = log[-1]["layer2/fixed"] - log[-1]["layer2/broken"]
    assert log[-1]["layer2/accuracy"] == pytest.approx(right_before + change)


def test_token_budget_stops_at_the_nearest_step(model_folder, tmp_path):
    free = build(MGRPOTrainer, MGRPOConfig, model_folder, tmp_path, num_layers=1, max_steps=6)
    free.train()
    counts = [entry["generated_tokens"] for entry in free.state.log_history if "reward" in entry]
    budget = int(counts[3]) + 5
    bounded = build(
        MGRPOTrainer, MGRPOConfig, model_folder, tmp_path, num_layers=1, max_steps=6, max_generated_tokens=budget
    )
    bounded.train()
    assert bounded.state.global_step == 4
    assert bounded.generated_tokens == counts[3]


def test_three_layers_run_and_correct_the_corrections(model_folder, tmp_path):
    options = {
        "num_layers": 3,
        "layer_weights": [1.0, 1.0, 1.0],
        "num_corrections": 2,
        "drafts_per_prompt": 1,
        "max_steps": 1,
    }
    trainer = build(MGRPOTrainer, MGRPOConfig, model_folder, tmp_path, **options)
    trainer.train()
    log = next(entry for entry in trainer.state.log_history if "reward" in entry)
    assert "layer2/reward" in log and "layer3/reward" in log
    # 2 questions, 1 draft of each passed on by every layer, 2 corrections
    sizes = [sum(len(piece["advantages"]) for piece in layer[0]) for layer in trainer._correction_slices]
    assert sizes == [4, 4]
    third = trainer._rollouts
    assert all(sum(prompt.count(phrase) for phrase in PHRASES) == 2 for prompt in third.prompts)


def test_evaluation_runs_both_layers(model_folder, tmp_path):
    trainer = build(
        MGRPOTrainer,
        MGRPOConfig,
        model_folder,
        tmp_path,
        num_corrections=2,
        num_generations_eval=2,
        per_device_eval_batch_size=4,
    )
    scores = trainer.evaluate(eval_dataset=trainer.train_dataset.select(range(4)))
    assert "eval_reward" in scores and "eval_layer2/reward" in scores
    assert trainer.generated_tokens == 0, "evaluation must not be counted as training"


def test_lora_moves_and_its_base_does_not(model_folder, tmp_path):
    trainer = build(MGRPOTrainer, MGRPOConfig, model_folder, tmp_path, num_corrections=2, lora=True)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    changed = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    assert changed and all("lora_" in name for name in changed)


def test_nf4_adapter_is_float32_and_training_after_evaluation_works(model_folder, tmp_path):
    from mgrpo_lib.experiment.models import load_base, lora_config
    from mgrpo_lib.experiment.settings import load_config

    cfg = load_config("smoke", arm="mgrpo_nf4")
    model = load_base(load_config("cpu"), str(model_folder), load_in_4bit=True)
    packed = {name: p.detach().clone() for name, p in model.named_parameters() if p.dtype == torch.uint8}
    assert packed, "nothing was quantised"
    args = MGRPOConfig(
        output_dir=str(tmp_path),
        **{**COMMON, "loss_type": "grpo", "num_corrections": 2, "max_steps": 2, "per_device_eval_batch_size": 4},
    )
    rows = [
        {"prompt": f"<q>{row['question']}<a>", "answer": row["answer"]}
        for row in miniature.problems("train", "train", 16)
    ]
    trainer = MGRPOTrainer(
        model=model,
        reward_funcs=parity_reward,
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(model_folder, padding_side="left"),
        peft_config=lora_config(cfg),
    )
    adapter = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert {p.dtype for p in adapter.values()} == {torch.float32}
    trainer.evaluate(eval_dataset=trainer.train_dataset.select(range(4)))  # bitsandbytes would repack the weights here
    trainer.train()
    moved = [
        name for name, p in trainer.model.named_parameters() if name in adapter and not torch.equal(p, adapter[name])
    ]
    assert any("lora_A" in name for name in moved) and any("lora_B" in name for name in moved)
    now = trainer.model.named_parameters()
    bare = {name.split("base_model.model.")[-1].replace(".base_layer", ""): p for name, p in now}
    assert all(torch.equal(packed[name], bare[name]) for name in packed), "the 4-bit base must not move"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_corrections": 1}, "use 2 or more"),
        ({"layer_weights": [1.0]}, "one weight per layer"),
        ({"phrases": []}, "at least one guiding phrase"),
        ({"drafts_per_prompt": 5}, "use 1 to num_generations"),
        ({"num_layers": 0}, "use 1"),
        ({"num_corrections": 1, "drafts_per_prompt": 1, "correction_advantage": "progress"}, "use 2 or more drafts"),
        ({"num_corrections": 0, "correction_advantage": "difference"}, "use 1 or more"),
        ({"keep_corrections": "successes"}, "set correction_advantage='difference'"),
        ({"select_drafts": "mixed", "drafts_per_prompt": 1}, "use 2 or more"),
        ({"select_drafts": "rong"}, "use one of all, wrong, mixed"),
        ({"schedule": "in turn"}, "use one of joint, alternating"),
        (
            {"gradient_accumulation_steps": 2, "steps_per_generation": 1, "schedule": "alternating"},
            "make that a multiple of gradient_accumulation_steps",
        ),
        ({"save_strategy": "steps", "save_steps": 3, "schedule": "alternating"}, "a multiple of 2"),
        ({"save_strategy": "steps", "save_steps": 3, "num_iterations": 2}, "a multiple of 2"),
        ({"save_strategy": "steps", "save_steps": 0.5, "num_iterations": 2}, "for save_steps a multiple of 2"),
        ({"save_strategy": "epoch", "num_iterations": 2}, "use save_strategy='steps'"),
        ({"use_adaptive_entropy": True, "entropy_coef": 0.1}, "switch it off"),
        ({"select_drafts": "wrong", "entropy_coef": 0.1}, "set entropy_coef=0"),
        ({"select_drafts": "wrong", "loss_type": "bnpo"}, "use 'dapo'"),
        (
            {
                "per_device_train_batch_size": 4,
                "gradient_accumulation_steps": 4,
                "num_corrections": 3,
                "drafts_per_prompt": 1,
            }
            | {"loss_type": "bnpo", "num_generations": 8},
            "use 'dapo'",
        ),
        ({"correction_advantage": "difference", "scale_rewards": "batch"}, "set scale_rewards='group' or 'none'"),
        (
            {"correction_advantage": "progress", "multi_objective_aggregation": "normalize_then_sum"},
            "multi_objective_aggregation='sum_then_normalize'",
        ),
    ],
)
def test_wrong_combinations_are_refused_with_the_mend(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        MGRPOConfig(output_dir=str(tmp_path), **{**COMMON, **options})


def test_defaults_are_the_papers_form(tmp_path):
    config = MGRPOConfig(output_dir=str(tmp_path), bf16=False)
    assert (config.loss_type, config.scale_rewards, config.beta, config.epsilon, config.epsilon_high) == (
        "grpo",
        "group",
        0.001,
        0.2,
        0.2,
    )
    assert (
        config.num_layers,
        config.num_generations,
        config.use_bias_correction_kl,
        config.top_k,
        config.temperature,
    ) == (2, 8, False, 0, 1.0)


def test_the_reward_sees_the_new_segment_alone(model_folder, tmp_path):
    seen = []

    def spy(prompts, completions, answer, **kwargs):
        seen.append((copy.deepcopy(prompts), copy.deepcopy(completions)))
        return accuracy_reward(completions, answer)

    build(MGRPOTrainer, MGRPOConfig, model_folder, tmp_path, reward=spy, num_corrections=2, max_steps=1).train()
    first, second = seen[0], seen[1]
    assert all(any(phrase in prompt for phrase in PHRASES) for prompt in second[0])
    assert not any(any(phrase in prompt for phrase in PHRASES) for prompt in first[0])
    assert all("<q>" not in completion for completion in second[1])
