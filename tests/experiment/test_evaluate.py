"""The evaluation: the second attempt sees question, first attempt and phrase, and never the gold answer."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mgrpo_lib.experiment import evaluate
from mgrpo_lib.experiment.data import validation_problems
from mgrpo_lib.experiment.settings import load_config
from mgrpo_lib.method.prompts import PHRASES, correction_ids, correction_prompt, first_prompt


@pytest.fixture(scope="module")
def model(model_folder):
    return AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def saved_tokenizer(model_folder):
    return AutoTokenizer.from_pretrained(model_folder, padding_side="left")


CFG = load_config("smoke", arm="base")


@pytest.fixture(scope="module")
def examinee(model, saved_tokenizer):
    return evaluate.Examinee(CFG, model, saved_tokenizer)


def test_records_do_not_depend_on_the_gold_answer(examinee):
    problems = validation_problems(CFG)
    records = evaluate.two_attempts(examinee, problems)
    other = evaluate.two_attempts(examinee, [{**problem, "answer": "leak"} for problem in problems])
    for record, changed in zip(records, other, strict=True):
        assert {k: v for k, v in record.items() if k not in ("gold", "correct_1", "correct_2")} == {
            k: v for k, v in changed.items() if k not in ("gold", "correct_1", "correct_2")
        }
        assert not changed["correct_1"] and not changed["correct_2"]
    assert any(record["correct_1"] for record in records), "the comparison needs a right answer somewhere"


def test_second_attempt_is_paired_with_its_own_draft(examinee, saved_tokenizer, monkeypatch):
    prompts = []
    original = evaluate.generate

    def spy(model, tokenizer, prompt_ids, *rest):
        prompts.append(prompt_ids)
        return original(model, tokenizer, prompt_ids, *rest)

    monkeypatch.setattr(evaluate, "generate", spy)
    records = evaluate.two_attempts(examinee, validation_problems(CFG))
    first, second = prompts
    for record, before, again in zip(records, first, second, strict=True):
        text = saved_tokenizer.decode(again).replace(" ", "")
        expected = f"<q>{record['question']}<a>{record['text_1']}{PHRASES[CFG.eval_phrase - 1]}".replace(" ", "")
        assert text == expected
        assert again[: len(before)] == before
        assert saved_tokenizer.decode(record["ids_1"], skip_special_tokens=True) == record["text_1"]


def test_samples_differ_from_each_other_and_repeat_with_their_seed(examinee):
    prompts = examinee.questions(validation_problems(CFG)[:4]) * 8
    torch.manual_seed(1)
    first = examinee.attempt(prompts, temperature=1.0)
    torch.manual_seed(1)
    assert first == examinee.attempt(prompts, temperature=1.0)
    assert len({tuple(ids) for ids in first[::4]}) > 1, "eight samples of one problem"


def test_attempts_that_do_not_fit_the_context_are_refused(model, saved_tokenizer):
    long = load_config("smoke", arm="base", max_completion_length=200)
    with pytest.raises(ValueError, match="set max_completion_length to 1[0-9][0-9] or less"):
        evaluate.Examinee(long, model, saved_tokenizer).questions(validation_problems(CFG))


def test_how_a_checkpoint_asks_to_be_decoded_is_put_aside(model_folder, saved_tokenizer):
    answers = []
    for habits in ({}, {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2, "temperature": 0.1, "do_sample": True}):
        model = AutoModelForCausalLM.from_pretrained(model_folder).eval()
        for name, value in habits.items():
            setattr(model.generation_config, name, value)
        answers.append(
            two := evaluate.two_attempts(evaluate.Examinee(CFG, model, saved_tokenizer), validation_problems(CFG))
        )
    assert answers[0] == two


def test_greedy_completions_do_not_depend_on_their_batch(model, saved_tokenizer):
    prompts = saved_tokenizer(
        [first_prompt(p["question"], "miniature") for p in validation_problems(CFG)[:12]], add_special_tokens=False
    )["input_ids"]
    together = evaluate.generate(model, saved_tokenizer, prompts, 32, 12)
    assert together == evaluate.generate(model, saved_tokenizer, prompts, 32, 1)
    assert all(saved_tokenizer.eos_token_id not in completion[:-1] for completion in together)


def test_the_same_prompt_is_answered_once_but_sampled_each_time(model, saved_tokenizer, monkeypatch, capsys):
    """And long work says how far it is."""
    questions = [first_prompt(p["question"], "miniature") for p in validation_problems(CFG)[:5]]
    prompts, rows, original = saved_tokenizer(questions, add_special_tokens=False)["input_ids"], [], model.generate
    monkeypatch.setattr(model, "generate", lambda **kw: rows.append(len(kw["input_ids"])) or original(**kw))
    alone = evaluate.generate(model, saved_tokenizer, prompts, 32, 8)
    order = [3, 0, 3, 4, 1, 0, 2, 3]
    monkeypatch.setattr(evaluate, "SECONDS_BETWEEN_LINES", 0.0)
    assert evaluate.generate(model, saved_tokenizer, [prompts[i] for i in order], 32, 4) == [alone[i] for i in order]
    assert rows == [5, 4, 1]
    assert "4 of 5 completions, " in capsys.readouterr().out
    torch.manual_seed(0)
    sampled = evaluate.generate(model, saved_tokenizer, [prompts[0]] * 8, 32, 8, temperature=1.5)
    assert rows[-1] == 8 and len(set(map(tuple, sampled))) > 1


def test_corrections_in_tokens():
    assert correction_ids([1, 2], [3, 4, 9], [7], eos_ids={9}) == [1, 2, 3, 4, 7], "the draft's end is dropped"
    assert correction_ids([1, 2], [3, 4], [7], eos_ids={9}) == [1, 2, 3, 4, 7], "a truncated draft has none"
    assert correction_ids([1, 2], [], [7], eos_ids={9}) == [1, 2, 7]


def test_corrections_in_text_and_in_messages():
    assert correction_prompt("Q", "draft", PHRASES[1]) == "Qdraft\nWait, let me double-check that.\n"
    chat = first_prompt("What is 2+2?", "chat")
    longer = correction_prompt(chat, [{"role": "assistant", "content": "5"}], PHRASES[1])
    assert longer[:-1] == chat and longer[-1] == {
        "role": "assistant",
        "content": "5\nWait, let me double-check that.\n",
    }
    with pytest.raises(ValueError, match="unknown prompt template"):
        first_prompt("?", "plain")
