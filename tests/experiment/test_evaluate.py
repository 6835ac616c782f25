"""The evaluation: the second attempt sees question, first attempt and phrase, and never the gold answer."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mgrpo_lib.experiment import evaluate, store
from mgrpo_lib.experiment.data import validation_problems
from mgrpo_lib.experiment.settings import ROOT, load_config
from mgrpo_lib.experiment.train import train_base
from mgrpo_lib.method.prompts import PHRASES, correction_ids, correction_prompt

CFG = load_config("smoke", arm="base")
PROBLEMS = validation_problems(CFG)


@pytest.fixture(scope="module")
def load(model_folder):
    """An evaluator of the miniature, with changed settings or a changed generation configuration of the model."""

    def loaded(decoding=None, **settings):
        model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
        model.generation_config.update(**(decoding or {}))
        tokenizer = AutoTokenizer.from_pretrained(model_folder, padding_side="left")
        return evaluate.Evaluator(load_config("smoke", arm="base", **settings), model, tokenizer)

    return loaded


@pytest.fixture(scope="module")
def evaluator(load):
    return load()


@pytest.fixture(scope="module")
def records(evaluator):
    return evaluate.two_attempts(evaluator, PROBLEMS)


def test_records_do_not_depend_on_the_gold_answer(evaluator, records):
    leaked = evaluate.two_attempts(evaluator, [{**problem, "answer": "leak"} for problem in PROBLEMS])
    graded = {"gold": "leak", "correct_1": False, "correct_2": False}
    assert leaked == [{**record, **graded} for record in records]
    assert any(record["correct_1"] for record in records), "the comparison needs a right answer somewhere"


def test_second_attempt_is_paired_with_its_own_draft(evaluator, records, monkeypatch):
    prompts, attempt = [], evaluate.Evaluator.attempt
    monkeypatch.setattr(evaluate.Evaluator, "attempt", lambda self, ids: prompts.append(ids) or attempt(self, ids))
    assert evaluate.two_attempts(evaluator, PROBLEMS) == records
    for record, before, again in zip(records, *prompts, strict=True):
        text = f"<q>{record['question']}<a>{record['text_1']}{PHRASES[CFG.eval_phrase - 1]}"
        assert evaluator.tokenizer.decode(again).replace(" ", "") == text.replace(" ", "")
        assert again[: len(before)] == before
        assert evaluator.tokenizer.decode(record["ids_1"], skip_special_tokens=True) == record["text_1"]


@pytest.mark.committed
def test_the_shipped_base_model_gives_the_committed_records(tmp_path):
    cfg = load_config("cpu", arm="base", output_root=str(tmp_path))
    train_base(cfg)
    committed = store.read_jsonl(ROOT / "results" / "cpu" / "records" / "base.jsonl.gz")
    problems = [problem for problem in evaluate.all_problems(cfg) if problem["id"].endswith("7")]
    expected = {record["id"]: record for record in committed}
    found = evaluate.two_attempts(evaluate.Evaluator.load(cfg), problems)
    assert len(found) > 50
    for problem, record in zip(problems, found, strict=True):
        assert {"benchmark": problem["benchmark"], **record} == expected[record["id"]]


def test_samples_differ_from_each_other_and_repeat_with_their_seed(evaluator):
    prompts = evaluator.questions(PROBLEMS[:4]) * 8
    torch.manual_seed(1)
    first = evaluator.attempt(prompts, temperature=1.0)
    torch.manual_seed(1)
    assert first == evaluator.attempt(prompts, temperature=1.0)
    assert len({tuple(ids) for ids in first[::4]}) > 1, "eight samples of one problem"


def test_attempts_that_do_not_fit_the_context_are_refused(load):
    with pytest.raises(ValueError, match="max_completion_length to 1[0-9][0-9]"):
        load(max_completion_length=200).questions(PROBLEMS)


def test_a_checkpoints_own_decoding_rules_are_dropped(load, records):
    rules = {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2, "temperature": 0.1, "do_sample": True}
    assert evaluate.two_attempts(load(rules), PROBLEMS) == records


def test_every_end_token_of_the_model_ends_a_completion(load, evaluator, records):
    """A chat model may have more than its tokenizer's one; here a token of the first answer becomes such."""
    extra = records[0]["ids_1"][1]
    own = load({"eos_token_id": [evaluator.tokenizer.eos_token_id, extra]})
    (completion,) = own.attempt(own.questions(PROBLEMS[:1]))
    assert completion == records[0]["ids_1"][: records[0]["ids_1"].index(extra) + 1]
    assert not own.grade(PROBLEMS[:1], [completion])[0]["truncated"]
    assert own.corrections([[1]], [completion]) == [[1, *completion[:-1], *own.phrase_ids(CFG.eval_phrase)]]


def test_greedy_completions_do_not_depend_on_their_batch(evaluator):
    prompts = evaluator.questions(PROBLEMS[:12])
    together = evaluator.attempt(prompts)
    assert together == evaluator.attempt(prompts, batch_size=1)
    assert all(evaluator.tokenizer.eos_token_id not in completion[:-1] for completion in together)


def test_equal_prompts_are_completed_once_but_sampled_each_time(evaluator, monkeypatch, capsys):
    """And long work reports its progress."""
    prompts, rows, generate = evaluator.questions(PROBLEMS[:5]), [], evaluator.model.generate
    monkeypatch.setattr(evaluator.model, "generate", lambda **kw: rows.append(len(kw["input_ids"])) or generate(**kw))
    monkeypatch.setattr(evaluate, "SECONDS_BETWEEN_LINES", 0.0)
    alone = evaluator.attempt(prompts)
    order = [3, 0, 3, 4, 1, 0, 2, 3]
    assert evaluator.attempt([prompts[i] for i in order], batch_size=4) == [alone[i] for i in order]
    assert rows == [5, 4, 1] and "4 of 5 completions" in capsys.readouterr().out
    torch.manual_seed(0)
    sampled = evaluator.attempt([prompts[0]] * 8, temperature=1.5)
    assert rows[-1] == 8 and len(set(map(tuple, sampled))) > 1


@pytest.mark.parametrize("draft", [[3, 4, 9], [3, 4]], ids=["ended", "truncated"])
def test_corrections_in_tokens(draft):
    assert correction_ids([1, 2], draft, [7], eos_ids={9}) == [1, 2, 3, 4, 7], "the draft's end is dropped"
    assert correction_ids([1, 2], [], [7], eos_ids={9}) == [1, 2, 7]


def test_corrections_in_text_and_in_messages():
    assert correction_prompt("Q", "draft", PHRASES[1]) == f"Qdraft\n{PHRASES[1]}\n"
    chat = [{"role": "user", "content": "What is 2+2?"}]
    longer = correction_prompt(chat, [{"role": "assistant", "content": "5"}], PHRASES[1])
    assert longer == [*chat, {"role": "assistant", "content": f"5\n{PHRASES[1]}\n"}]
