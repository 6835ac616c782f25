"""Throughput: what a joint step leaves out does not change its loss or its gradient."""

import pytest
import tiny
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from tiny import Recording, generate
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
)
from trl.trainer.utils import add_fused_lm_head

from mgrpo_lib.method.sharing import can_share_prompts, each_prompt_once

LOSSES = ("grpo", "bnpo", "dr_grpo", "dapo", "luspo", "sapo", "cispo", "vespo")
SMALL = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 32}
SMALL |= {"num_attention_heads": 2, "num_key_value_heads": 1}


def gradient_of(trainer, loss) -> torch.Tensor:
    trainer.model.zero_grad()
    loss().backward()
    return tiny.gradient(trainer.model)


def test_joint_gradient_is_the_weighted_sum(sampled):
    trainer = sampled()

    def joint(*layer_weights):
        trainer.args.layer_weights = list(layer_weights)
        return gradient_of(trainer, lambda: trainer._compute_loss(trainer.model, trainer.inputs))

    first, second = joint(1.0, 0.0), joint(0.0, 1.0)
    assert first.any() and second.any()
    torch.testing.assert_close(joint(1.0, 0.3), first + 0.3 * second, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss_type", [loss for loss in LOSSES if loss != "bnpo"])
@pytest.mark.parametrize("accumulation", [1, 4])  # 4: all in one step, so that the rows may be sorted
def test_micro_batches_and_pieces_leave_the_gradient_of_the_whole_layer(loss_type, accumulation, sampled):
    trainer = sampled(loss_type=loss_type)
    trainer.args.steps_per_generation, trainer.args.gradient_accumulation_steps = 4, accumulation
    whole, normaliser = trainer.batches[2], 1 if loss_type in ("dapo", "cispo", "vespo") else 4
    trainer._lean = False
    expected = gradient_of(trainer, lambda: trainer._term(trainer.model, 2, whole))
    trainer._lean = True
    for most, pieces in ((10**9, 1), (1, 3)):
        parts = trainer._split(whole, 3, most, seed=0)
        assert [len(part) for part in parts] == [pieces] * 4
        assert [sum(len(piece["advantages"]) for piece in part) for part in parts] == [3, 3, 3, 3]
        terms = [piece for part in parts for piece in part]
        found = gradient_of(trainer, lambda terms=terms: sum(trainer._term(trainer.model, 2, one) for one in terms))
        torch.testing.assert_close(found / normaliser, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("options", [{"loss_type": loss} for loss in LOSSES] + [
    {"num_iterations": 2}, {"beta": 0.05}, {"entropy_coef": 0.1}, {"entropy_coef": 0.1, "loss_type": "dapo"}, {"top_entropy_quantile": 0.5},
    {"importance_sampling_level": "sequence"}, {"mask_truncated_completions": True}, {"lora": True},
], ids=str)  # fmt: skip
def test_what_is_not_computed_leaves_the_update(options, sampled):
    """Without the rows that have no advantage and the columns of padding, in pieces, one term after the other: the loss
    and the gradient of the plain sum of TRL's losses.
    """
    trainer = sampled(layer_weights=[1.0, 0.7], **options)
    inputs, whole = trainer.inputs, trainer.batches[2]
    whole["advantages"][:4], inputs["advantages"][::3] = 0.0, 0.0
    idle = int((whole["advantages"] == 0).sum())
    assert idle < 12, "nothing would be left"
    over_all_rows = options.keys() & {"entropy_coef", "top_entropy_quantile"}
    assert int(trainer._with_gradient(whole).sum()) == (12 if over_all_rows or "beta" in options else 12 - idle)
    trainer._lean = False
    loss = trainer._term(trainer.model, 1, inputs) + trainer._term(trainer.model, 2, whole)
    expected = gradient_of(trainer, lambda: loss)
    trainer._lean = True
    pieces = trainer._split(whole, 3, 100, seed=0)[0]
    assert (len(pieces) == 1) == bool(over_all_rows)
    trainer.model.zero_grad()
    found = trainer._compute_loss(trainer.model, {**inputs, "corrections": [pieces]})
    found.backward()
    torch.testing.assert_close(found.detach(), loss.detach(), rtol=1e-4, atol=1e-6)
    assert expected.any()
    torch.testing.assert_close(tiny.gradient(trainer.model), expected, rtol=1e-3, atol=1e-5)


def test_one_reading_of_a_draft_serves_all_its_corrections(make):
    """Tokens go through the model once for a draft; `test_trainer.py` shows that what is sampled is what TRL samples."""
    trainer, read = make(num_corrections=2), []
    trainer.model.register_forward_pre_hook(
        lambda model, args, kwargs: read.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    generate(trainer)
    assert read[0] == (8, read[0][1]) and read[0][1] > 1, "layer 1 reads each question for each completion, as TRL does"
    (prefill,) = [shape for shape in read[1:] if shape[1] > 1]
    assert prefill[0] == 4, "2 questions, 2 drafts each"
    assert [shape for shape in read if shape[0] == 8][-1][1] == 1
    assert "generate" not in vars(trainer.model)


def test_a_layer_is_cut_to_the_memory_of_layer_1_and_every_row_is_in_one_piece(make):
    trainer = generate(make(Recording, num_corrections=8, drafts_per_prompt=4))
    most = sum(trainer.batches[1][name].numel() for name in ("prompt_ids", "completion_ids"))
    (pieces,) = trainer._pieces[0]
    assert len(pieces) > 1
    for piece in pieces:
        assert piece["completion_mask"].sum() <= most
    rows = sorted(row for piece in pieces for row in piece["completion_ids"].tolist())
    assert rows == sorted(trainer.batches[2]["completion_ids"].tolist())


ARCHITECTURES = {
    "llama": (LlamaConfig, SMALL),
    "a window shorter than the prompt": (MistralConfig, {**SMALL, "sliding_window": 6}),
    "windows and full attention in turn, capped logits": (Gemma2Config, {**SMALL, "sliding_window": 6, "head_dim": 16}),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_prompt_read_once_gives_the_log_probabilities_and_gradients_of_one_read_for_each_row(name):
    """Seven rows of three prompts of different lengths, in any order, with completions of different lengths."""
    kind, sizes = ARCHITECTURES[name]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(kind(pad_token_id=0, **sizes)).train()
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
        return out.detach(), tiny.gradient(model)

    calls = []
    model.register_forward_pre_hook(lambda _, args, kw: calls.append(tuple(kw["input_ids"].shape)), with_kwargs=True)
    (expected, gradient), (found, shared) = outcome(model), outcome(each_prompt_once(model, model.config, 5))
    assert calls == [(7, 17), (3, 11), (7, 6)]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(shared, gradient, rtol=1e-4, atol=1e-4 * float(gradient.abs().max()))


def test_what_depends_on_the_whole_input_is_not_shared():
    """A prompt's cache is shared where it is keys and values alone, the same with any text behind it."""
    assert can_share_prompts(LlamaForCausalLM(LlamaConfig(**SMALL)))
    longer = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    assert not can_share_prompts(LlamaForCausalLM(LlamaConfig(**SMALL, rope_parameters=longer)))
    for adapter, shared in (
        (LoraConfig(task_type="CAUSAL_LM"), True),
        (LoraConfig(task_type="CAUSAL_LM", alora_invocation_tokens=[1]), False),
        (PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2), False),
    ):
        assert can_share_prompts(get_peft_model(LlamaForCausalLM(LlamaConfig(**SMALL)), adapter)) == shared
    assert not can_share_prompts(MambaForCausalLM(MambaConfig(**dict(list(SMALL.items())[:3]), state_size=4)))


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
