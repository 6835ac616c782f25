"""Asking a model: attempts 1 and 2 are the experiment's, further rounds are second attempts, and rounds are measured."""

import re

import numpy as np
import pytest
import torch

from mgrpo_lib.experiment import evaluate, store
from mgrpo_lib.experiment.data import test_problems as problems_of  # pytest would take the name for a test
from mgrpo_lib.experiment.data import validation_problems
from mgrpo_lib.experiment.settings import ROOT, ConfigError, load_config
from mgrpo_lib.experiment.train import train, train_base
from mgrpo_lib.explore.ask import EXAMPLE, answer_in_rounds, compare, correct, is_problem, load, measure_rounds
from mgrpo_lib.method.prompts import PHRASES
from mgrpo_lib.report import rounds
from mgrpo_lib.report.statistics import accuracy_interval
from mgrpo_lib.tasks import miniature
from tests.experiment.test_own_model import chat_model as chat_model  # a fixture

FIELDS = ("text", "answer", "correct", "tokens", "truncated")
QUESTION, GOLD = EXAMPLE.values()
SHIPPED = "results/cpu/runs/mgrpo-seed10"


@pytest.fixture(scope="module")
def base():
    return load("base")


@pytest.fixture(scope="module")
def shipped():
    return load()


def test_the_example_is_a_wrong_draft_and_its_right_correction_and_no_test_problem(shipped):
    shown = correct(shipped)
    assert [attempt["correct"] for attempt in shown.attempts] == [False, True] and shown.gold == GOLD
    validation = {problem["question"]: problem["answer"] for problem in validation_problems(shipped.cfg)}
    assert validation[QUESTION] == GOLD


@pytest.mark.committed
def test_the_shipped_model_makes_the_committed_attempts(shipped):
    """It was trained again with the versions of the committed run; all 1,500 of its records are those."""
    committed = store.read_jsonl(ROOT / "results" / "cpu" / "records" / "mgrpo-seed10.jsonl.gz")
    for name in ("blanks", "chains_words"):
        records = evaluate.two_attempts(shipped, problems_of(shipped.cfg, name)[:20])
        assert [{"benchmark": name, **one} for one in records] == [r for r in committed if r["benchmark"] == name][:20]


@pytest.mark.parametrize(
    "name", ["cpu", SHIPPED, ROOT / SHIPPED, load_config("cpu", arm="mgrpo", seed=10, output_root=".")]
)
def test_the_shipped_model_by_its_names(shipped, name):
    found = load(name)
    assert all(torch.equal(a, b) for a, b in zip(found.model.parameters(), shipped.model.parameters(), strict=True))
    assert correct(found).attempts == correct(shipped).attempts


@pytest.mark.committed
@pytest.mark.parametrize(
    ("name", "kind", "fix"),
    [
        ("nothing_of_the_kind", ConfigError, SHIPPED),
        ("bases", ConfigError, "base, cpu"),
        (SHIPPED[:-2] + "11", FileNotFoundError, SHIPPED),
    ],
)
def test_a_model_that_is_not_here_is_refused_with_those_that_are(name, kind, fix):
    with pytest.raises(kind, match=fix) as error:
        load(name)
    assert name in str(error.value)


def test_the_first_two_rounds_are_the_two_attempts_of_the_experiment(base):
    problems = problems_of(base.cfg, "blanks")[:10] + problems_of(base.cfg, "chains_words")[:10]
    expected = evaluate.two_attempts(base, problems)
    found = answer_in_rounds(base, problems, 3)
    for k in (1, 2):
        assert found[k - 1] == [{name: record[f"{name}_{k}"] for name in FIELDS} for record in expected]
    again = base.attempt(base.corrections(base.questions(problems), [tokens(base, mark) for mark in found[1]]))
    assert found[2] == base.grade(problems, again), "a third one sees the second attempt as that saw the first"
    one = correct(base, problems[0]["question"], gold=problems[0]["answer"])
    assert one.attempts == [found[0][0], found[1][0]]
    assert one.phrase == PHRASES[0]


def tokens(evaluator, mark: dict) -> list[int]:
    ids = evaluator.tokenizer(mark["text"], add_special_tokens=False)["input_ids"]
    return ids if mark["truncated"] else [*ids, evaluator.tokenizer.eos_token_id]


def test_the_gold_answer_is_for_the_verdict_alone(base):
    shown = [correct(base, QUESTION, gold=gold) for gold in (GOLD, None)]
    assert shown[0] == shown[1] and shown[1].gold == GOLD, "worked out where none is given"
    assert [attempt["correct"] for attempt in shown[0].attempts] == [False, False], "it guesses 7, and repeats itself"


def test_sampled_it_is_fixed_now_and_then_as_notebook_07_says(base):
    ends = [correct(base, temperature=1.0, seed=seed).attempts for seed in range(4)]
    assert ends[0] == correct(base, temperature=1.0, seed=0).attempts
    fixed = [attempts for attempts in ends if not attempts[0]["correct"] and attempts[1]["correct"]]
    assert 0 < len(fixed) < 4


def test_phrases_by_number_and_by_text(base):
    assert correct(base, QUESTION, phrase=3).phrase == PHRASES[2]
    by_number, by_text = (correct(base, QUESTION, 3, phrase=phrase) for phrase in (3, PHRASES[2]))
    assert by_number == by_text


@pytest.mark.parametrize(
    ("question", "how", "named"),
    [
        ("What is 2 + 2?", {}, QUESTION),
        ("7 a+8 b/3", {}, "7 a+8 b/3"),
        ("7+8*3", {}, "7 a+8 b*3"),
        ("7 a+8 b*3 c-1 d+4 e*2 f+1", {}, "2 to 6"),
        ("1 a+2 b+?", {}, QUESTION),
        ("1 a+2 b+3 =6", {}, QUESTION),
        ("1 a+? b+? =1", {}, QUESTION),
        (QUESTION, {"phrase": "Is that so?"}, "Is that so?"),
        ("3+4+?=2", {}, "3 a+4 b+? =2"),
        ("2 a*? =3", {}, "plus and minus"),
        ("6 a*? b+1 =3", {}, "plus and minus"),  # 2 and 7 both fit
        (QUESTION, {"rounds": "4"}, "rounds is '4'"),
        (QUESTION, {"gold": "7"}, "gold='7'"),
        (QUESTION, {"phrase": 8}, "1 to 7"),
        (QUESTION, {"phrase": 0}, "1 to 7"),
        (QUESTION, {"rounds": 0}, "rounds is 0"),
        (QUESTION, {"phrase": "Is \boxed{5} right?"}, "phrase holds the control character"),
    ],
)
def test_what_the_miniature_cannot_read_is_refused(base, question, how, named):
    with pytest.raises(ValueError, match=re.escape(named)):
        correct(base, question, **how)


@pytest.mark.parametrize("name", miniature.BENCHMARKS)
def test_every_problem_of_the_miniature_is_read_with_any_white_space(name):
    for problem in miniature.problems(name, "test", 50):
        assert is_problem(problem["question"]) and is_problem(f" {problem['question']} ".replace(" ", "  "))


def test_models_are_compared_on_several_problems_or_not_at_all(base):
    with pytest.raises(ValueError, match="problems .*two or more"):
        compare({"base": base}, problems_of(base.cfg, "blanks")[:1])


def test_any_folder_with_an_adapter_can_be_asked(chat_model, tmp_path):
    from peft import LoraConfig, get_peft_model

    how = {"max_completion_length": 8, "system_prompt": "Add."}
    plain = load(str(chat_model), **how)
    before = correct(plain, "2 + 2?", phrase="Are you sure?")
    assert before.phrase == "Are you sure?" and all(attempt["tokens"] <= 8 for attempt in before.attempts)
    by_setting = correct(load(str(chat_model), eval_phrase="Are you sure?", **how), "2 + 2?")
    assert (by_setting.phrase, by_setting.attempts) == (before.phrase, before.attempts)
    torch.manual_seed(1)
    adapted = get_peft_model(plain.model, LoraConfig(target_modules="all-linear", init_lora_weights=False))
    adapted.save_pretrained(tmp_path)
    after = correct(load(str(chat_model), str(tmp_path), **how), "2 + 2?")
    assert after.attempts[0]["text"] != before.attempts[0]["text"], "the adapter is used"


SMALL = {
    "seeds": [0, 1], "arms": {"mgrpo": {}}, "control_arms": [], "samples": 0, "base_steps": 0, "max_steps": 1,
    "benchmarks": ["blanks", "chains"], "test_problems": 12,
}  # fmt: skip


@pytest.fixture(scope="module")
def cfg(tmp_path_factory):
    """A trained experiment, two seeds of a step."""
    cfg = load_config("smoke", arm="base", output_root=str(tmp_path_factory.mktemp("rounds")), **SMALL)
    with pytest.raises(FileNotFoundError):  # nothing is trained
        measure_rounds(cfg, 3)
    train_base(cfg)
    for seed in cfg.seeds:
        train(cfg.of_arm("mgrpo", seed))
    return cfg


def test_rounds_are_measured_once_and_summarised_with_intervals(cfg, monkeypatch):
    summary = measure_rounds(cfg, 3)
    assert summary == rounds.finished(cfg, 3) and rounds.finished(cfg, 4) is None
    assert (cfg.figures / "rounds.png").exists() and rounds.measured(cfg, 3) and not rounds.measured(cfg, 4)
    chains = [evaluate.two_attempts(load(cfg.of_arm("mgrpo", seed)), evaluate.all_problems(cfg)) for seed in cfg.seeds]
    for i, name in enumerate(cfg.benchmarks):
        row = next(row for row in summary["rows"] if (row["arm"], row["benchmark"]) == ("mgrpo", name))
        own = slice(12 * i, 12 * i + 12)
        for k in (1, 2):
            right = np.array([[record[f"correct_{k}"] for record in chain[own]] for chain in chains], dtype=float)
            assert row["accuracy"][k - 1] == pytest.approx(right.mean())
            assert row["accuracy_ci"][k - 1] == pytest.approx(accuracy_interval(right))
        assert row["gain"] == pytest.approx([value - row["accuracy"][0] for value in row["accuracy"]])
        assert row["seeds"] == [0, 1] and row["n"] == 12 and len(row["accuracy"]) == 3
    assert len(rounds.table(summary)) == 4
    own = cfg.of_arm("mgrpo", 1)
    assert correct(load(own.run_folder)).attempts == correct(load(own)).attempts, "a run of one's own, by its folder"
    monkeypatch.setattr("mgrpo_lib.explore.ask.answer_in_rounds", None)
    assert measure_rounds(cfg, 3) == summary, "nothing is asked again"


def test_models_are_compared_on_the_same_problems(cfg):
    problems = problems_of(cfg, "chains")
    table = compare({"one": load(cfg), "the other": load(cfg.of_arm("mgrpo", 0))}, problems)
    right = [record["correct_1"] for record in evaluate.two_attempts(load(cfg), problems)]
    assert table["attempt 1, %"][0].startswith(f"{100 * sum(right) / 12:.1f} [")
    assert list(table.iloc[0, 3:]) == ["", ""] and table.iloc[1, 3].count("[") == 1


@pytest.mark.committed
@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("*/rounds.json")), ids=lambda path: path.parent.name)
def test_committed_rounds_are_those_of_this_code(path, tmp_path, monkeypatch):
    cfg = load_config(path.parent.name, arm="base", output_root=".")
    summary = store.read_json(path)
    assert summary == rounds.finished(cfg, summary["rounds"]), "run notebook 07 where the models are, and commit"
    monkeypatch.setattr(store, "write_json", lambda *_: None)
    monkeypatch.setattr(rounds.style, "save", lambda *_: None)
    assert rounds.summarise(cfg, summary["rounds"]) == summary
    table = {(row["arm"], row["benchmark"]): row for row in store.read_json(cfg.results / "summary.json")["rows"]}
    for row in summary["rows"]:
        reported = table[row["arm"], row["benchmark"]]
        assert row["accuracy"][:2] == pytest.approx([reported["acc_t1"], reported["acc_t2"]])


def test_only_a_loaded_model_is_asked():
    with pytest.raises(ValueError, match=re.escape("load('base')")):
        correct("base", QUESTION)
