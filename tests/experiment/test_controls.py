"""The controls see what they claim to see, and nothing of the gold answer."""

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from mgrpo_lib.experiment import controls
from mgrpo_lib.experiment.evaluate import Evaluator, all_problems, two_attempts
from mgrpo_lib.experiment.settings import load_config
from mgrpo_lib.method.prompts import PHRASES

CFG = load_config("smoke", arm="base")
PROBLEMS = controls.probe(CFG, all_problems(CFG))


@pytest.fixture(scope="module")
def evaluator(model_folder):
    tokenizer = AutoTokenizer.from_pretrained(model_folder, padding_side="left")
    return Evaluator(CFG, AutoModelForCausalLM.from_pretrained(model_folder).eval(), tokenizer)


@pytest.fixture(scope="module")
def attempts(evaluator):
    return two_attempts(evaluator, PROBLEMS)


@pytest.fixture
def seen(monkeypatch):
    """The prompts of every call of `attempt`, as text."""
    prompts, original = [], Evaluator.attempt

    def attempt(self, ids, *rest, **how):
        prompts.append([self.tokenizer.decode(row).replace(" ", "") for row in ids])
        return original(self, ids, *rest, **how)

    monkeypatch.setattr(Evaluator, "attempt", attempt)
    return prompts


def prompt(problem: dict, draft: str, phrase: int) -> str:
    return f"<q>{problem['question']}<a>{draft}{PHRASES[phrase - 1]}".replace(" ", "")


def drafts_of(attempts) -> tuple[list, dict]:
    """First attempts as tokens, in order and by their problem."""
    return [record["ids_1"] for record in attempts], {record["id"]: record["ids_1"] for record in attempts}


def test_each_set_is_probed_at_its_first_problems():
    found = [(problem["benchmark"], problem["id"]) for problem in PROBLEMS]
    assert [name for name, _ in found] == [name for name in CFG.benchmarks for _ in range(CFG.probe_problems)]
    assert found[0] == ("chains", all_problems(CFG)[0]["id"])


def test_each_draft_goes_to_another_problem_of_its_set():
    drafts = [[i] for i in range(len(PROBLEMS))]
    given = controls.rotated(PROBLEMS, drafts)
    assert sorted(given) == drafts, "every draft is used once"
    for i, (other,) in enumerate(given):
        assert other != i and PROBLEMS[other]["benchmark"] == PROBLEMS[i]["benchmark"]


def test_a_control_sees_the_question_the_shown_draft_and_the_phrase(evaluator, attempts, seen):
    own, _ = drafts_of(attempts)
    others, text = controls.rotated(PROBLEMS, own), {tuple(record["ids_1"]): record["text_1"] for record in attempts}
    records = controls.corrected(evaluator, PROBLEMS, {"no_draft": [[] for _ in own], "other_draft": others})
    expected = [prompt(problem, "", CFG.eval_phrase) for problem in PROBLEMS]
    expected += [prompt(p, text[tuple(ids)], CFG.eval_phrase) for p, ids in zip(PROBLEMS, others, strict=True)]
    assert seen == [expected]
    assert [(record["condition"], record["id"]) for record in records] == [
        (condition, problem["id"]) for condition in ("no_draft", "other_draft") for problem in PROBLEMS
    ]


def test_the_own_draft_as_a_control_is_the_second_attempt(evaluator, attempts):
    """Cross-refinement with oneself: the same grades, so the control code tests the same thing."""
    records = controls.corrected(evaluator, PROBLEMS, {"self": drafts_of(attempts)[0]})
    for field in ("text", "answer", "correct", "tokens", "truncated"):
        assert [record[field] for record in records] == [record[f"{field}_2"] for record in attempts]


def test_every_other_phrase_is_asked_and_the_batch_size_leaves_the_answers(evaluator, attempts, seen):
    records = controls.probed(evaluator, PROBLEMS, drafts_of(attempts)[1])
    others = range(2, len(PHRASES) + 1)
    first = [prompts[0] for prompts in seen[: len(others)]]
    assert first == [prompt(PROBLEMS[0], attempts[0]["text_1"], phrase) for phrase in others]
    for k in (1, 2):
        again = [record["answer"] for record in records if record["condition"] == f"batch_{k}"]
        assert again == [record[f"answer_{k}"] for record in attempts]


def test_no_control_depends_on_the_gold_answer(evaluator, attempts):
    own, by_id = drafts_of(attempts)

    def run(problems):
        shown = {"no_draft": [[] for _ in own], "other_draft": controls.rotated(problems, own)}
        return controls.corrected(evaluator, problems, shown) + controls.probed(evaluator, problems, by_id)

    found, leaked = run(PROBLEMS), run([{**problem, "answer": "leak"} for problem in PROBLEMS])
    assert leaked == [{**record, "correct": False} for record in found]
    assert any(record["correct"] for record in found), "the comparison needs a right answer somewhere"
