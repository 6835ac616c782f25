"""The miniature's tokenizer keeps every text; its base model has the errors that the experiment needs."""

import random
import re
import subprocess
import sys

import torch
from transformers import AutoTokenizer

from mgrpo_lib.experiment.data import validation_problems
from mgrpo_lib.experiment.evaluate import Evaluator, two_attempts
from mgrpo_lib.experiment.settings import load_config
from mgrpo_lib.experiment.train import train_base
from mgrpo_lib.method.prompts import PHRASES, guidance
from mgrpo_lib.tasks import miniature, miniature_model


def test_tokenizer_keeps_every_text_and_survives_saving(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    miniature_model.make_base_model(tokenizer).config.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    rng = random.Random(2)
    for _ in range(200):
        text = "".join(miniature.base_text(rng, PHRASES))
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.pad_token_id not in ids, f"unknown token in {text!r}"
        assert tokenizer.decode(ids).replace(" ", "") == text.replace(" ", "")
        assert loaded(text, add_special_tokens=False)["input_ids"] == ids
    assert [len(tokenizer(guidance(phrase), add_special_tokens=False)["input_ids"]) for phrase in PHRASES] == [1] * 7


def test_only_completions_and_their_end_are_learnt(tokenizer):
    ids, labels = miniature_model._padded(tokenizer, [("<q>7 a+8<a>", "a7+8=5"), ("<q>7<a>", "5")])
    assert ids.shape == labels.shape and (labels[labels != -100] == ids[labels != -100]).all()
    kept = [tokenizer.decode(row[row != -100]).replace(" ", "") for row in labels]
    assert kept == ["a7+8=5<eos>", "5<eos>"]


def test_batches_are_as_many_as_asked_for_and_grow():
    batches = list(miniature_model.base_batches(random.Random(0), PHRASES, 105, 4))
    assert len(batches) == 105 and {len(batch) for batch in batches} == {4}
    operands = [max(len(re.findall(r"\d", prompt.split("<a>")[0])) for prompt, _ in batch) for batch in batches]
    assert max(operands[:10]) <= 2 < max(operands[60:])


def test_problems_need_no_torch():
    code = "import sys; from mgrpo_lib.tasks import miniature, sums, benchmarks, decontamination as d\n"
    code += "miniature.problems('train', 'train', 9); assert not {'torch', 'datasets'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_shipped_base_model_has_the_errors_that_the_experiment_needs(tmp_path):
    """Greedily it is wrong on many chains and repeats its guesses at blanks; sampled, it fixes some of them."""
    cfg = load_config("cpu", arm="base", output_root=str(tmp_path))
    train_base(cfg)
    evaluator, problems = Evaluator.load(cfg), validation_problems(cfg)
    blank = [i for i, problem in enumerate(problems) if "?" in problem["question"]]
    chains = [i for i in range(len(problems)) if i not in blank]
    records = two_attempts(evaluator, problems)
    assert 0.25 <= sum(records[i]["correct_1"] for i in chains) / len(chains) <= 0.60
    assert sum(records[i]["answer_1"] == records[i]["answer_2"] for i in blank) / len(blank) >= 0.9
    torch.manual_seed(0)
    prompts = evaluator.questions(problems)
    first = evaluator.attempt(prompts, temperature=1.0)
    second = evaluator.attempt(evaluator.corrections(prompts, first), temperature=1.0)
    grades = [evaluator.grade(problems, completions) for completions in (first, second)]
    wrong = [i for i in blank if not grades[0][i]["correct"]]
    assert 0.10 <= sum(grades[1][i]["correct"] for i in wrong) / len(wrong) <= 0.50
