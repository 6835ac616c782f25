"""A chat model from a folder and questions from files, through the whole pipeline by parameters alone."""

import json
import subprocess
import sys

import papermill
import pytest
import torch
from safetensors.torch import load_file

from mgrpo_lib.experiment import keys, store
from mgrpo_lib.experiment.notebook import arguments
from mgrpo_lib.experiment.settings import ROOT, ConfigError, load_config
from mgrpo_lib.method.prompts import SYSTEM_PROMPT
from tests.method.chat import make_folder

REAL = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory):
    """A folder with an untrained chat model."""
    return make_folder(tmp_path_factory.mktemp("own") / "chat-model")


def problems_file(path, count: int, solutions: bool = False) -> str:
    """A file of sums, with worked solutions if asked."""
    rows = [{"question": f"How much is {i} plus 1?", "answer": i + 1} for i in range(count)]
    if solutions:
        rows = [{**row, "solution": f"\\boxed{{{row['answer']}}}"} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.slow
def test_the_whole_pipeline(chat_model, tmp_path):
    train_file, test_file = (
        problems_file(tmp_path / f"my_{name}.jsonl", n) for name, n in (("train", 40), ("test", 6))
    )
    settings = {
        "model": chat_model, "train_data": train_file, "benchmarks": f"[{test_file}]",
        "arms": '{"mgrpo":{"load_in_4bit":true,"lora_rank":4}}', "control_arms": "[]", "samples": 0,
        "max_steps": 2, "train_problems": 0, "validation_problems": 6, "test_problems": 0, "max_completion_length": 24,
    }  # fmt: skip
    call = [sys.executable, "-m", "mgrpo_lib", "reproduce", "--profile", "smoke", "--out", str(tmp_path), "--set"]
    call += [f"{name}={value}" for name, value in settings.items()]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    results = tmp_path / "results" / "smoke"
    summary = store.read_json(results / "summary.json")
    found = [(row["arm"], row["benchmark"], row["n"]) for row in summary["rows"]]
    assert found == [("base", "my_test", 6), ("mgrpo", "my_test", 6)]
    assert str(tmp_path) not in json.dumps(summary["params"]["benchmarks"]), "where a file lies is no part of results"
    run = store.read_json(results / "runs" / "mgrpo-seed0" / "run.json")
    assert run["steps"] == 2 and run["train_tokens"] > 0
    assert (results / "runs" / "mgrpo-seed0" / "model" / "adapter_config.json").exists()
    card = store.read_json(results / "data.json")["sets"]
    assert card["train"]["rows"] == 40 - 6 - 6, "without the test questions and the validation set"
    assert card["my_test"]["rows"] == 6


def test_a_warm_up_makes_a_base_model_that_is_trained_further(chat_model, tmp_path):
    from mgrpo_lib.experiment.models import base_location, load_policy
    from mgrpo_lib.experiment.train import build_trainer, train, train_base

    settings = {
        "model": chat_model, "train_data": problems_file(tmp_path / "my_sums.jsonl", 24, solutions=True),
        "benchmarks": ["sums_story"], "arms": {"mgrpo": {}}, "control_arms": [], "train_problems": 0,
        "validation_problems": 4, "max_steps": 1, "lora_rank": 4, "output_root": str(tmp_path), "max_completion_length": 12,
        "system_prompt": "Box it.", "arm": "base", "sft_steps": 30, "sft_learning_rate": 1e-2,
    }  # fmt: skip
    cfg = load_config("smoke", **settings)
    done = train_base(cfg)
    losses = [row["loss"] for row in store.read_jsonl(cfg.run_folder / "metrics.jsonl")]
    assert len(losses) == 30 and losses[-1] < 0.85 * losses[0]
    before, after = load_file(f"{chat_model}/model.safetensors"), load_file(cfg.run_folder / "model/model.safetensors")
    assert before.keys() == after.keys() and any(not torch.equal(before[name], after[name]) for name in before)
    assert base_location(cfg) == str(cfg.run_folder / "model") and done["key"] == keys.base_key(cfg)
    assert str(tmp_path) not in json.dumps(done)
    model, tokenizer = load_policy(cfg)
    assert torch.equal(model.state_dict()["model.norm.weight"], after["model.norm.weight"]) and tokenizer.chat_template
    run = cfg.of_arm("mgrpo", 0)
    (row, *_) = build_trainer(run, str(tmp_path / "trainer")).train_dataset
    assert row["prompt"][0] == {"role": "system", "content": "Box it."}
    assert train(run)["base_key"] == done["key"]
    more = problems_file(tmp_path / "more.jsonl", 25, solutions=True)
    others = [{"sft_steps": 0}, {"sft_steps": 31}, {"system_prompt": SYSTEM_PROMPT}, {"train_data": more}]
    found = {keys.base_key(load_config("smoke", **{**settings, **other})) for other in others}
    assert len(found) == 4 and done["key"] not in found


def test_a_warm_up_without_solutions_is_refused(chat_model, tmp_path):
    from mgrpo_lib.experiment.train import train_base

    settings = {"model": chat_model, "benchmarks": ["sums"], "validation_problems": 4, "sft_steps": 2}
    settings |= {"arm": "base", "train_problems": 0, "output_root": str(tmp_path)}
    plain = problems_file(tmp_path / "plain.jsonl", 24)
    with pytest.raises(ConfigError, match="sft_steps=2 .*'solution'.*sft_steps=0"):
        train_base(load_config("smoke", train_data=plain, **settings))
    with pytest.raises(ConfigError, match="sft_steps=0"):
        load_config("smoke", train_data="gsm8k", **settings)


def test_a_tokenizer_without_a_chat_template_gets_plain_turns(chat_model, tmp_path):
    from mgrpo_lib.experiment.models import load_tokenizer
    from mgrpo_lib.method.prompts import guidance_ids

    cfg = load_config("t4", model=chat_model)
    tokenizer = load_tokenizer(cfg, chat_model)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    tokenizer = load_tokenizer(cfg, str(tmp_path))
    prompt = [{"role": "system", "content": "Add."}, {"role": "user", "content": "2 + 2?"}]
    text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    assert text == "Add.\nUser: 2 + 2?\nAssistant:"
    assert tokenizer.decode(guidance_ids(tokenizer, prompt, "Sure?", "user")) == "<|im_end|>\nUser: Sure?\nAssistant:"


@pytest.mark.slow
@pytest.mark.skipif(not REAL.exists(), reason="the real benchmarks are not at hand (../shared/data)")
def test_the_real_benchmarks_from_local_files_through_notebook_05(chat_model, tmp_path):
    names = ["gsm8k", "math500", "minerva_math", "olympiadbench"]
    settings = {
        "profile": "t4", "arm": "base", "output_root": str(tmp_path), "model": chat_model, "data_dir": str(REAL),
        "benchmarks": names, "test_problems": 3, "validation_problems": 2, "control_arms": [], "samples": 0,
        "max_completion_length": 8, "load_in_4bit": False,
    }  # fmt: skip
    for notebook in ("02_base_model", "05_benchmarks"):
        source, executed = ROOT / "notebooks" / f"{notebook}.ipynb", tmp_path / "executed.ipynb"
        given = arguments(source, settings)
        papermill.execute_notebook(
            source, executed, given, cwd=source.parent, progress_bar=False, kernel_name="python3"
        )
    records = store.read_jsonl(tmp_path / "results" / "t4" / "records" / "base.jsonl.gz")
    assert [sum(record["benchmark"] == name for record in records) for name in names] == [3, 3, 3, 3]
    assert all(record["gold"] for record in records)
    lengths = [record[f"tokens_{attempt}"] for record in records for attempt in (1, 2)]
    assert all(1 <= length <= 8 for length in lengths), lengths  # untrained weights may end one early
