"""The example script: it trains, saves and reloads an adapter, by the reward that it is given, and refuses what it cannot use."""

import importlib.util
import json
import re
import shutil
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

from mgrpo_lib.experiment.data import own_problems
from mgrpo_lib.experiment.settings import ROOT
from mgrpo_lib.method.quantized import is_quantized
from mgrpo_lib.tasks.decontamination import as_one
from tests.method.chat import make_folder, make_tokenizer

PROBLEMS = ROOT / "examples" / "problems.jsonl"


@pytest.fixture
def example():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("train_lora", ROOT / "examples" / "train_lora.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("example") / "chat-model")


def short(completions, answer, **columns):
    """An untrained model earns this now and then: an even number of characters."""
    return [float(len(completion[-1]["content"]) % 2 == 0) for completion in completions]


@pytest.mark.parametrize("nf4", [[], ["--nf4"]])
def test_it_trains_and_the_saved_adapter_is_the_trained_model(example, chat_model, tmp_path, monkeypatch, capsys, nf4):
    monkeypatch.setattr(example, "REWARDS", [short, example.boxed])
    example.main(
        ["--model", chat_model, "--data", str(PROBLEMS), "--steps", "2", "--length", "12", "--out", str(tmp_path), *nf4]
    )
    text = capsys.readouterr().out
    before, after = re.findall(r"^\| (?:before|after) \| ([\d.]+) .*? \| ([\d.]+) ", text, re.MULTILINE)
    assert max(map(float, [*before, *after])) > 0, "what is right is said by the reward of the script"
    same, of = re.findall(r"(\d+) of (\d+) problems", text)[-1]
    assert same == of == "20"
    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert all(value.any() for name, value in weights.items() if "lora_B" in name), "every adapter has moved"
    steps = json.loads((tmp_path / "trainer_state.json").read_text())["log_history"]
    assert "layer2/rewards/boxed/mean" in steps[0] and steps[1]["step"] == 2


@pytest.mark.parametrize("nf4", [False, True])
def test_the_base_weights_are_in_4_bits_if_asked(example, chat_model, nf4):
    policy = example.load_policy(SimpleNamespace(model=chat_model, nf4=nf4, length=12))
    assert is_quantized(policy.model) == nf4


def refused(example, capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as stop:
        example.main(list(arguments))
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_a_row_without_answer_and_too_few_problems_are_refused(example, chat_model, tmp_path, capsys):
    lines = PROBLEMS.read_text().splitlines()
    own = tmp_path / "own.jsonl"
    own.write_text("\n".join([*lines[:6], '{"question": "What is 2 + 2?"}']))
    said = refused(example, capsys, "--model", chat_model, "--data", str(own))
    assert "own.jsonl" in said and "line 7" in said and "answer" in said
    own.write_text("\n".join(lines[:1] * 9))
    said = refused(example, capsys, "--model", chat_model, "--data", str(own))
    assert "--data" in said and "6 or more" in said


def test_a_model_without_a_chat_template_is_refused(example, tmp_path, capsys):
    folder = make_folder(tmp_path / "base", make_tokenizer(template=None))
    said = refused(example, capsys, "--model", folder, "--data", str(PROBLEMS))
    assert "--model" in said and "chat_template.jinja" in said
    shutil.rmtree(folder)
    assert folder in refused(example, capsys, "--model", folder, "--data", str(PROBLEMS))


@pytest.mark.parametrize(("option", "value"), [("--length", "256"), ("--steps", "0"), ("--step", "1")])
def test_options_that_cannot_be_used_are_refused(example, tmp_path, capsys, option, value):
    folder = make_folder(tmp_path / "short", context=300)
    said = refused(example, capsys, "--model", folder, "--data", str(PROBLEMS), option, value)
    assert {"--length": "max_completion_length"}.get(option, option) in said


def test_the_problems_are_sound_and_differ():
    rows = own_problems(PROBLEMS)
    assert len({as_one(row["question"]) for row in rows}) == len(rows) == 60
    assert all(row["answer"].isdecimal() for row in rows)
