"""A chat model from a folder and questions from files of one's own, through the whole chain by parameters alone."""

import json
import subprocess
import sys

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from mgrpo_lib import store
from mgrpo_lib.config import ROOT

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory):
    """A folder with an untrained chat model of two layers and a tokenizer of bytes."""
    folder = tmp_path_factory.mktemp("own") / "chat-model"
    special = ["<pad>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {token: i for i, token in enumerate([*special, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<|im_end|>")
    tokenizer.chat_template = CHATML
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(vocabulary), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=4096, eos_token_id=tokenizer.eos_token_id, pad_token_id=0,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_the_whole_chain(chat_model, tmp_path):
    for name, count in (("my_train", 40), ("my_test", 12)):
        rows = [{"question": f"How much is {i} plus {i + count}?", "answer": 2 * i + count} for i in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "model": chat_model, "train_data": tmp_path / "my_train.jsonl", "benchmarks": f"[{tmp_path / 'my_test.jsonl'}]",
        "arms": '{"mgrpo":{"load_in_4bit":true,"lora_rank":4}}', "control_arms": "[]", "samples": 0,
        "max_steps": 2, "train_problems": 0, "validation_problems": 6, "test_problems": 0, "max_completion_length": 24,
    }  # fmt: skip
    call = [sys.executable, "-m", "mgrpo_lib", "reproduce", "--profile", "smoke", "--out", str(tmp_path), "--params"]
    call.append(" ".join(f"{name}={value}" for name, value in settings.items()))
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    results = tmp_path / "results" / "smoke"
    summary = store.read_json(results / "summary.json")
    assert [(row["arm"], row["benchmark"], row["n"]) for row in summary["rows"]] == [
        ("base", "my_test", 12),
        ("mgrpo", "my_test", 12),
    ]
    assert str(tmp_path) not in json.dumps(summary["params"]["benchmarks"]), "where a file lies is no part of results"
    run = store.read_json(results / "runs" / "mgrpo-seed0" / "run.json")
    assert run["steps"] == 2 and run["train_tokens"] > 0  # it is never right, so there is nothing to move the weights
    assert (results / "runs" / "mgrpo-seed0" / "model" / "adapter_config.json").exists()
    card = store.read_json(results / "data.json")["sets"]
    assert card["train"]["rows"] == 34 and card["my_test"]["rows"] == 12
