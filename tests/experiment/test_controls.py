"""The controls see what they claim to see, and nothing of the gold answer."""

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from mgrpo_lib.experiment import controls
from mgrpo_lib.experiment.evaluate import Examinee, all_problems, two_attempts
from mgrpo_lib.experiment.settings import load_config
from mgrpo_lib.method.prompts import PHRASES

CFG = load_config("smoke", arm="base")


@pytest.fixture(scope="module")
def examinee(model_folder):
    tokenizer = AutoTokenizer.from_pretrained(model_folder, padding_side="left")
    return Examinee(CFG, AutoModelForCausalLM.from_pretrained(model_folder).eval(), tokenizer)


@pytest.fixture(scope="module")
def problems():
    return controls.probe(CFG, all_problems(CFG))


@pytest.fixture(scope="module")
def chain(examinee, problems):
    return two_attempts(examinee, problems)


class Seen:
    """Notes the prompts of every call of `attempt`."""

    def __init__(self, monkeypatch):
        self.prompts, original = [], Examinee.attempt

        def attempt(examinee, prompts, *rest, **how):
            self.prompts.append([examinee.tokenizer.decode(ids).replace(" ", "") for ids in prompts])
            return original(examinee, prompts, *rest, **how)

        monkeypatch.setattr(Examinee, "attempt", attempt)


def written(question: str, draft: str, phrase: int) -> str:
    return f"<q>{question}<a>{draft}{PHRASES[phrase - 1]}".replace(" ", "")


def test_each_draft_goes_to_another_problem_of_its_set(problems):
    drafts = [[i] for i in range(len(problems))]
    given = controls.rotated(problems, drafts)
    assert sorted(given) == drafts, "every draft is used once"
    for i, (other,) in enumerate(given):
        assert other != i and problems[other]["benchmark"] == problems[i]["benchmark"]


def test_a_control_sees_the_question_the_shown_draft_and_the_phrase(examinee, problems, chain, monkeypatch):
    seen = Seen(monkeypatch)
    own = [record["ids_1"] for record in chain]
    others = controls.rotated(problems, own)
    records = controls.corrected(examinee, problems, {"no_draft": [[] for _ in own], "other_draft": others})
    (together,) = seen.prompts
    without, other = together[: len(own)], together[len(own) :]
    text = {tuple(record["ids_1"]): record["text_1"] for record in chain}
    for i, problem in enumerate(problems):
        assert without[i] == written(problem["question"], "", CFG.eval_phrase)
        assert other[i] == written(problem["question"], text[tuple(others[i])], CFG.eval_phrase)
    assert [record["id"] for record in records] == [problem["id"] for problem in problems] * 2
    assert [record["condition"] for record in records] == ["no_draft"] * len(own) + ["other_draft"] * len(own)


def test_the_own_draft_as_a_control_is_the_second_attempt(examinee, problems, chain):
    """Cross-refinement with oneself: the same answers as in the chain, so the control code tests the same thing."""
    records = controls.corrected(examinee, problems, {"self": [record["ids_1"] for record in chain]})
    assert [record["answer"] for record in records] == [record["answer_2"] for record in chain]
    assert [record["correct"] for record in records] == [record["correct_2"] for record in chain]


def test_every_other_phrase_is_asked_and_the_batch_size_leaves_the_answers(examinee, problems, chain, monkeypatch):
    seen = Seen(monkeypatch)
    own = {problem["id"]: record["ids_1"] for problem, record in zip(problems, chain, strict=True)}
    records = controls.probed(examinee, problems, own)
    for prompts, phrase in zip(seen.prompts, range(2, 8), strict=False):
        assert prompts[0] == written(problems[0]["question"], chain[0]["text_1"], phrase)
    for k in (1, 2):
        again = [record["answer"] for record in records if record["condition"] == f"batch_{k}"]
        assert again == [record[f"answer_{k}"] for record in chain]


def test_no_control_depends_on_the_gold_answer(examinee, problems, chain):
    leaked = [{**problem, "answer": "leak"} for problem in problems]
    own = [record["ids_1"] for record in chain]
    for rows in (problems, leaked):
        drafts = {problem["id"]: ids for problem, ids in zip(rows, own, strict=True)}
        shown = {"no_draft": [[] for _ in own], "other_draft": controls.rotated(rows, own)}
        found = controls.corrected(examinee, rows, shown) + controls.probed(examinee, rows, drafts)
        answers = [record["answer"] for record in found]
        if rows is problems:
            expected = answers
            assert any(record["correct"] for record in found), "the comparison needs a right answer somewhere"
    assert answers == expected and not any(record["correct"] for record in found)
