"""Beside TRL's options: what layer 2 samples and trains on is the policy's under each of them, or it is refused."""

from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset, IterableDataset
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
)
from trl import GRPOConfig

from mgrpo_lib.method import checks
from mgrpo_lib.method.config import MGRPOConfig
from mgrpo_lib.method.trainer import MGRPOTrainer

WORDS = ["<pad>", "<eos>", "user", "assistant", *"0123456789+=?", "wait", "so"]
ALTERNATING = (
    "{% for m in messages %}{% if loop.index0 % 2 != (m.role == 'assistant') | int %}{{ raise_exception('roles must alternate') }}"
    "{% endif %}{{ m.role }} {{ m.content }} {% endfor %}{% if add_generation_prompt %}assistant {% endif %}"
)


@pytest.fixture
def chat():
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", padding_side="left"
    )
    tokenizer.chat_template = ALTERNATING
    return tokenizer


SMALL = {"vocab_size": len(WORDS), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
ENDS = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
LLAMA = LlamaConfig(**SMALL, **ENDS, intermediate_size=64, max_position_embeddings=128)


def saved(kind, config, folder):
    torch.manual_seed(0)
    kind(config).save_pretrained(folder)
    return str(folder)


def make(
    folder, tokenizer, tmp_path, rewards=None, model=None, questions=8, peft_config=None, stream=False, **settings
):
    rows = [{"prompt": [{"role": "user", "content": f"{i % 10}{' + 1' * (i % 4)} = ?"}]} for i in range(questions)]
    settings = {
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "drafts_per_prompt": 2,
        "num_corrections": 2,
        "max_completion_length": 6,
        "max_steps": 1,
        "phrases": ["wait so"],
        "learning_rate": 1e-3,
        "beta": 0.0,
        "use_cpu": True,
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "gradient_checkpointing": False,
        **settings,
    }
    return MGRPOTrainer(
        folder if model is None else model,
        rewards or (lambda completions, **_: [float(len(c[0]["content"]) % 2) for c in completions]),
        MGRPOConfig(output_dir=str(tmp_path / "out"), **settings),
        train_dataset=IterableDataset.from_generator(lambda: iter(rows)) if stream else Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=peft_config,
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"model_init_kwargs": {"use_cache": False}},
        {"generation_kwargs": {"use_cache": False}},
        {"cache_implementation": "static"},
        {"cache_implementation": "dynamic"},
        {"generation_kwargs": {"num_beams": 2}},
        {"repetition_penalty": 1.3},
    ],
)
def test_with_top_k_1_every_sampled_token_is_the_models_first_choice_in_every_layer(chat, tmp_path, options):
    """Under beams and a penalty the first choice is another one, so there the training itself is what must work."""
    trainer = make(saved(LlamaForCausalLM, LLAMA, tmp_path / "m"), chat, tmp_path, top_k=1, **options)
    seen = []
    sample = trainer._generate_single_turn

    def noting(prompt_ids, *rest, **kwargs):
        out = sample(prompt_ids, *rest, **kwargs)
        seen.append((trainer._layer.number, prompt_ids, out[0]))
        return out

    trainer._generate_single_turn = noting
    trainer.train()
    assert {layer for layer, *_ in seen} == {1, 2}
    if "repetition_penalty" in options or "num_beams" in options.get("generation_kwargs", {}):
        return
    fresh = LlamaForCausalLM.from_pretrained(tmp_path / "m").eval()
    for _, prompts, completions in seen:
        for prompt, completion in zip(prompts, completions, strict=True):
            logits = fresh(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
            assert logits.argmax(-1).tolist() == completion


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (GPT2LMHeadModel, GPT2Config(vocab_size=len(WORDS), n_embd=32, n_layer=2, n_head=2, n_positions=128, **ENDS)),
        (OPTForCausalLM, OPTConfig(**SMALL, **ENDS, ffn_dim=64, max_position_embeddings=128, word_embed_proj_dim=32)),
        (LlamaForCausalLM, LLAMA),
    ],
)
def test_the_kl_of_a_policy_with_itself_is_zero_in_every_layer(chat, tmp_path, kind, config):
    config.resid_pdrop = config.embd_pdrop = config.attn_pdrop = config.dropout = 0.0
    folder = saved(kind, config, tmp_path / "m")
    trainer = make(folder, chat, tmp_path, beta=0.1, learning_rate=0.0, max_steps=2)
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(logs) == 2
    for entry in logs:
        assert entry["kl"] == pytest.approx(0, abs=1e-6) and entry["layer2/kl"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("role", ["assistant", "user"])
def test_a_reward_model_reads_one_well_formed_conversation(chat, tmp_path, role):
    torch.manual_seed(0)
    reward = LlamaForSequenceClassification(LlamaConfig(**LLAMA.to_diff_dict() | {"num_labels": 1})).eval()
    reward.name_or_path = reward.config._name_or_path = "reward"
    folder = saved(LlamaForCausalLM, LLAMA, tmp_path / "m")
    trainer = make(folder, chat, tmp_path, phrase_role=role, questions=8)
    trainer.reward_funcs, trainer.reward_processing_classes, trainer.reward_func_names = [reward], [chat], ["model"]
    trainer.train()  # its template raises where roles do not alternate
    assert "layer2/rewards/model/mean" in trainer.state.log_history[0]


def test_what_trains_nothing_is_refused(chat, tmp_path, capsys):
    folder = saved(LlamaForCausalLM, LLAMA, tmp_path / "m")
    frozen = LlamaForCausalLM.from_pretrained(folder).requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable parameter.*peft_config"):
        make(folder, chat, tmp_path, model=frozen)
    for stream in (False, True):
        with pytest.raises(ValueError, match="1 questions, and one generation takes 2"):
            make(folder, chat, tmp_path, questions=1, stream=stream)
        make(folder, chat, tmp_path, questions=2, stream=stream)
    capsys.readouterr()
    make(folder, chat, tmp_path, learning_rate=5e-7, peft_config=LoraConfig(target_modules="all-linear"))
    assert "learning_rate=5e-07" in capsys.readouterr().out


def noise(model):
    """About what a short fine-tuning changes."""
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight += 3e-4
    return model


def cut(model):
    model.model.layers, model.config.num_hidden_layers = model.model.layers[:1], 1
    return model


def resized(model):
    model.resize_token_embeddings(len(WORDS) + 8)
    return model


def adapted(model):
    model.add_adapter(LoraConfig(target_modules="all-linear"))
    return model


@pytest.mark.parametrize("change", [noise, cut, resized, lambda model: adapted(noise(model))])
def test_another_reference_than_the_model_itself_is_refused(chat, tmp_path, change):
    folder = saved(LlamaForCausalLM, LLAMA, tmp_path / "m")
    with pytest.raises(ValueError, match="beta=0.1 .*beta=0"):
        make(folder, chat, tmp_path, model=change(LlamaForCausalLM.from_pretrained(folder)), beta=0.1)
    make(folder, chat, tmp_path, model=change(LlamaForCausalLM.from_pretrained(folder)), beta=0.0)


@pytest.mark.parametrize(
    "same", [lambda model: model, lambda model: model.bfloat16(), lambda model: model.bfloat16().float(), adapted]
)
def test_the_model_itself_is_a_reference_in_any_dtype_and_beside_adapters(chat, tmp_path, same):
    folder = saved(LlamaForCausalLM, LLAMA, tmp_path / "m")
    assert make(folder, chat, tmp_path, model=same(LlamaForCausalLM.from_pretrained(folder)), beta=0.1).ref_model


@pytest.mark.parametrize("path", ["", "/gone"])
def test_a_reference_that_is_not_on_disk_is_refused_before_it_is_loaded(chat, tmp_path, path):
    model = LlamaForCausalLM(LLAMA)
    model.config._name_or_path = path
    with pytest.raises(ValueError, match=f"beta=0.1 .*{path!r}.*beta=0"):
        make("", chat, tmp_path, model=model, beta=0.1)
    lora = LoraConfig(target_modules="all-linear")
    make("", chat, tmp_path, model=model, beta=0.1, learning_rate=1e-3, peft_config=lora)


def test_an_adaptive_entropy_bonus_steps_once_an_optimizer_step_by_the_entropy_of_all_layers(chat, tmp_path):
    folder = saved(LlamaForCausalLM, LLAMA, tmp_path / "m")
    coefficient = {
        "entropy_coef": 0.01,
        "use_adaptive_entropy": True,
        "entropy_target": 15.0,
        "entropy_coef_delta": 0.005,
    }
    trainer = make(folder, chat, tmp_path, max_steps=3, gradient_accumulation_steps=2, questions=16, **coefficient)
    trainer.train()
    assert trainer.entropy_coef == pytest.approx(0.01 + 3 * 0.005)
    trainer = make(folder, chat, tmp_path, **coefficient)
    trainer.train()
    logged = trainer.state.log_history[0]
    first, second = logged["tokens"], logged["layer2/tokens"]
    together = (first * logged["entropy"] + second * logged["layer2/entropy"]) / (first + second)
    assert trainer._last_world_entropy == pytest.approx(together)
    assert logged["entropy_coef"] == trainer.entropy_coef and "layer2/entropy_coef" not in logged


def test_a_compiled_model_trains_as_it_is(chat, tmp_path):
    folder, found = saved(LlamaForCausalLM, LLAMA, tmp_path / "m"), []
    for options in ({}, {"torch_compile": True, "torch_compile_backend": "eager"}):
        trainer = make(folder, chat, tmp_path, beta=0.1, max_steps=2, **options)
        trainer.train()
        found.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    assert torch.allclose(*found, atol=1e-5)


def test_arguments_are_named_before_hardware_is(chat, tmp_path):
    with pytest.raises(ValueError, match="GRPOConfig; pass an MGRPOConfig"):
        MGRPOTrainer(saved(LlamaForCausalLM, LLAMA, tmp_path / "m"), args=GRPOConfig(use_cpu=True, bf16=False))
    with pytest.raises(ValueError, match="phrases is 'Is it so\\?'"):
        MGRPOConfig(output_dir=str(tmp_path), phrases="Is it so?")
    assert MGRPOConfig(output_dir=str(tmp_path)).bf16 == torch.cuda.is_available()


def test_what_counts_as_right_is_a_setting(chat, tmp_path):
    folder = saved(LlamaForCausalLM, LLAMA, tmp_path / "m")
    shares = []
    for above in (0.5, 0.1):
        trainer = make(
            folder, chat, tmp_path, rewards=lambda completions, **_: [0.3] * len(completions), right_above=above
        )
        trainer.train()
        shares.append(trainer.state.log_history[0]["accuracy"])
    assert shares == [0.0, 1.0]


@pytest.mark.parametrize("content", ["1 + 1 = ?", [{"type": "text", "text": "1 + 1 = ?"}]])
def test_content_in_blocks_of_text_is_text_and_an_image_in_any_question_is_refused(chat, tmp_path, content):
    chat.chat_template = (
        "{% for m in messages %}{{ m.content if m.content is string else m.content[0].text }} {% endfor %}"
    )
    trainer = make(saved(LlamaForCausalLM, LLAMA, tmp_path / "m"), chat, tmp_path)
    asked = [{"prompt": [{"role": "user", "content": content}]} for _ in range(8)]
    trainer.train_dataset = Dataset.from_list(asked)
    trainer.train()
    assert "layer2/reward" in trainer.state.log_history[0]
    asked[5] = {"prompt": [{"role": "user", "content": [{"type": "image", "text": ""}]}]}
    if not isinstance(content, str):
        with pytest.raises(ValueError, match="num_layers=1 for questions with images"):
            checks.before_training(SimpleNamespace(train_dataset=Dataset.from_list(asked)), None)
