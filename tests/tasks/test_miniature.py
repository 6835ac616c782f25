"""The miniature's generators: right solutions, disjoint splits, determinism, one tokenizer for everything."""

import random
import re

import pytest
import torch

from mgrpo_lib.experiment.evaluate import Evaluator, two_attempts
from mgrpo_lib.experiment.settings import ROOT, load_config
from mgrpo_lib.experiment.train import train_base
from mgrpo_lib.method.prompts import PHRASES, guidance
from mgrpo_lib.tasks import data, datacard, miniature
from mgrpo_lib.tasks.data import validation_problems
from mgrpo_lib.verifier.reward import extract_answer


@pytest.mark.parametrize("name", miniature.SETS)
def test_sets_are_deterministic_distinct_and_in_the_schema(name):
    rows = miniature.problems(name, "test", 100)
    assert rows == miniature.problems(name, "test", 100)
    assert rows != miniature.problems(name, "test", 100, seed=1)
    assert len({miniature.bare(row["question"]) for row in rows}) == 100
    assert all(tuple(row) == data.SCHEMA and all(isinstance(value, str) for value in row.values()) for row in rows)


def test_no_held_out_question_is_trained_on():
    cfg = load_config("cpu", arm="base")
    train = data.training_problems(cfg)
    assert len(train) == cfg.train_problems
    for rows in [data.validation_problems(cfg)] + [data.test_problems(cfg, name) for name in cfg.benchmarks]:
        assert datacard.overlap(train, rows) == []
    assert datacard.overlap(train, train[:3]) != [], "the check itself must find an overlap"
    words = [{**row, "question": miniature.in_words(row["question"])} for row in train[:1]]
    assert datacard.overlap(train, words) != [], "the same chain in words is the same question"
    # neither does the base model's text show any
    rng = random.Random(0)
    for _ in range(2000):
        prompt, _ = miniature.base_text(rng, PHRASES)
        assert miniature.split_of(re.match(r"<q>(.*?)<a>", prompt)[1]) == "train"


def test_answers_are_what_a_calculator_says():
    for name in ("chains", "chains_long", "chains_times", "chains_words"):
        for row in miniature.problems(name, "test", 50):
            chain = miniature.bare(row["question"])
            value = int(chain[0])
            for operator, operand in re.findall(r"([+*-])(\d)", chain[1:]):
                value = eval(f"{value}{operator}{operand}") % 10  # generated text of our own
            assert str(value) == row["answer"]


def test_a_blank_has_exactly_one_answer():
    for row in miniature.problems("blanks", "test", 100):
        chain, target = miniature.bare(row["question"]).split("=")
        fitting = [digit for digit in "0123456789" if miniature.worked(chain.replace("?", digit))[1] == int(target)]
        assert fitting == [row["answer"]]


def test_solutions_end_in_their_answer_and_mending_is_right():
    rng = random.Random(1)
    for _ in range(300):
        chain, target, answer = miniature.random_blank(rng, (3, 4))
        for draft in range(10):
            mended = miniature.blank_solution(chain, target, answer, draft=draft)
            guess, sign, missing, result = re.match(r"<think>\?=(\d)([+-])(\d)=(\d)", mended).groups()
            assert int(guess) == draft and miniature.apply(draft, sign, int(missing)) == int(result) == answer
            assert extract_answer(mended) == str(answer)
            assert mended.split("</think>")[0].endswith("=0"), "a right guess leaves nothing missing"
    chain = "7*8-3"
    assert extract_answer(miniature.chain_solution(chain)) == "3"
    wrong = {extract_answer(miniature.chain_solution(chain, random.Random(i))) for i in range(20)}
    assert wrong == {"3", "2"}, "with and without the misconception"


def test_wrong_requests_name_the_mend(monkeypatch):
    with pytest.raises(ValueError, match="unknown miniature set 'chain'"):
        miniature.problems("chain", "test", 1)
    with pytest.raises(ValueError, match="unknown split"):
        miniature.problems("chains", "dev", 1)
    monkeypatch.setitem(miniature.SETS, "sums", ("chain", (2, 2), "+", False))
    with pytest.raises(ValueError, match="ask for fewer"):
        miniature.problems("sums", "validation", 100)  # of 100 sums a tenth is for validation


def test_tokenizer_keeps_every_text_and_survives_saving(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    miniature.make_base_model(tokenizer).config.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    rng = random.Random(2)
    for _ in range(200):
        text = "".join(miniature.base_text(rng, PHRASES))
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.pad_token_id not in ids, f"unknown token in {text!r}"
        assert tokenizer.decode(ids).replace(" ", "") == text.replace(" ", "")
        assert loaded(text, add_special_tokens=False)["input_ids"] == ids
    assert [len(tokenizer(guidance(phrase), add_special_tokens=False)["input_ids"]) for phrase in PHRASES] == [1] * 7


def test_base_text_covers_what_the_module_says():
    rng = random.Random(3)
    texts = [miniature.base_text(rng, PHRASES) for _ in range(3000)]
    second = [prompt for prompt, _ in texts if any(phrase in prompt for phrase in PHRASES)]
    assert len(second) / len(texts) == pytest.approx(miniature.P_SECOND_ATTEMPT, abs=0.03)
    blanks = [(prompt, completion) for prompt, completion in texts if "?" in prompt.split("<a>")[0]]
    assert len(blanks) / len(texts) == pytest.approx(0.4, abs=0.03)
    mends = [completion for _, completion in blanks if re.match(r"<think>\?=\d[+-]", completion)]
    assert mends and all(completion.split("</think>")[0].endswith("=0") for completion in mends)


def test_the_base_model_that_comes_with_the_library_is_what_the_experiment_needs(tmp_path):
    """Greedily it is wrong on many chains and repeats its guesses at blanks; sampled, it mends some of them."""
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
    marks = [evaluator.grade(problems, completions) for completions in (first, second)]
    wrong = [i for i in blank if not marks[0][i]["correct"]]
    mended = sum(marks[1][i]["correct"] for i in wrong) / len(wrong)
    assert 0.10 <= mended <= 0.50
    plan = " ".join((ROOT / "ANALYSIS.md").read_text(encoding="utf-8").split())
    right, found = re.search(r"right on (\d+)% of the chains.* wrong guesses (\d+)% were mended", plan).groups()
    first_right = sum(records[i]["correct_1"] for i in chains) / len(chains)
    assert first_right == pytest.approx(int(right) / 100, abs=0.02), "what ANALYSIS.md says of it"
    assert mended == pytest.approx(int(found) / 100, abs=0.06), "with other random numbers"
