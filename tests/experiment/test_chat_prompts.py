"""A chat model's prompts: the same tokens in warm-up, training and test; what does not go together is refused at the start."""

import pytest
from datasets import Dataset
from trl import GRPOTrainer

from mgrpo_lib.experiment import evaluate, keys, models, pipeline, prompts, store, warmup
from mgrpo_lib.experiment.base import train_base
from mgrpo_lib.experiment.data import problems_at_hand, training_problems
from mgrpo_lib.experiment.settings import ConfigError, load_config
from mgrpo_lib.experiment.train import build_trainer, train
from mgrpo_lib.method.prompts import PHRASES, correction_ids
from tests.experiment.test_own_model import problems_file
from tests.method import chat

THINKING = chat.CHATML.replace(  # as Qwen3's: the flag writes behind the generation prompt
    "assistant\n{% endif %}",
    "assistant\n{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}",
)
FLAGS = {"chat_template_kwargs": {"enable_thinking": False}}
EMPTY = "<think>\n\n</think>\n\n"


@pytest.fixture
def config(tmp_path):
    """Profile smoke with a chat model and own files."""

    def config(template=chat.CHATML, tokenizer=None, sizes=None, **settings):
        folder = tmp_path / "chat"
        if not folder.exists():
            chat.make_folder(folder, tokenizer or chat.make_tokenizer(template), **(sizes or {}))
        data = {"train_data": problems_file(tmp_path / "own_train.jsonl", 24, solutions=True)}
        tests = tmp_path / "own_test.jsonl"
        tests.write_text("".join(f'{{"question": "And {i} plus 2?", "answer": {i + 2}}}\n' for i in range(3)))
        data |= {"benchmarks": [str(tests)], "train_problems": 0, "validation_problems": 4, "test_problems": 0}
        small = {"arms": {"mgrpo": {}}, "control_arms": [], "samples": 0, "max_steps": 1, "max_completion_length": 12}
        small |= {"model": str(folder), "arm": "base", "output_root": str(tmp_path / "out"), "system_prompt": "Add."}
        return load_config("smoke", **{**data, **small, **settings})

    return config


# ------------------------------------------------------------------------------------------------ the same everywhere
@pytest.mark.parametrize("role", ["assistant", "user"])
@pytest.mark.parametrize("flags", [{}, FLAGS])
def test_training_and_evaluation_read_the_same_tokens_in_both_layers(config, role, flags, tmp_path):
    cfg = config(THINKING, phrase_role=role, **flags)
    trainer = build_trainer(cfg.of_arm("mgrpo", 0), str(tmp_path / "trainer"))
    tokenizer = models.load_tokenizer(cfg, cfg.model_location)
    evaluator, problems = evaluate.Evaluator(cfg, trainer.model, tokenizer), training_problems(cfg)
    first = GRPOTrainer._tokenize_prompts(trainer, list(trainer.train_dataset["prompt"]))[0]
    assert evaluator.questions(problems) == first
    assert all(tokenizer.decode(ids).endswith("assistant\n" + EMPTY * bool(flags)) for ids in first)
    drafts = [[40 + i, 41, tokenizer.eos_token_id] for i in range(len(first))]
    for phrase in PHRASES:
        theirs = [
            correction_ids(*pair, trainer._guidance[phrase], evaluator.ends) for pair in zip(first, drafts, strict=True)
        ]
        assert evaluator.corrections(first, drafts, phrase) == theirs
        assert all(
            ids[: len(before) + 2] == before + draft[:2]
            for ids, before, draft in zip(theirs, first, drafts, strict=True)
        )
    between = tokenizer.decode(evaluator.phrase_ids(1))
    assert between.endswith(EMPTY) == (role == "user" and bool(flags)), "the user's turn opens another answer"


@pytest.mark.parametrize("flags", [{}, FLAGS])
def test_the_warm_up_teaches_answers_to_the_very_prompts(config, flags, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(
        warmup.Dataset, "from_list", lambda rows, make=Dataset.from_list: seen.extend(rows) or make(rows)
    )
    cfg = config(THINKING, sft_steps=1, sft_batch_size=2, **flags)
    train_base(cfg)
    monkeypatch.undo()
    tokenizer, problems = models.load_tokenizer(cfg, cfg.model_location), training_problems(cfg)
    for row, problem, prompt in zip(seen, problems, prompts.prompt_ids(cfg, tokenizer, problems), strict=True):
        assert row["input_ids"][: len(prompt)] == prompt
        assert tokenizer.decode(row["input_ids"][len(prompt) :]) == problem["solution"] + "<|im_end|>\n"
        assert row["completion_mask"] == [int(i >= len(prompt)) for i in range(len(row["input_ids"]))]


def test_flags_reach_every_step_of_an_experiment_and_its_keys(config):
    found = []
    for flags in ({}, FLAGS):
        cfg = config(THINKING, control_arms=["base", "mgrpo"], samples=1, probe_problems=2, **flags)
        run = cfg.of_arm("mgrpo", 0)
        train(run)
        assert (
            store.read_json(run.run_folder / "arguments.json")["chat_template_kwargs"]
            == (flags or {"chat_template_kwargs": None})["chat_template_kwargs"]
        )
        found.append([keys.base_key(run), keys.run_key(run), keys.evaluation_key(run)])
    assert all(one != other for one, other in zip(*found, strict=True))
    none = {"chat_template_kwargs": {}}
    assert keys.base_key(config(THINKING, **none)) == found[0][0]


def test_without_a_template_a_prompt_begins_with_bos_in_training_and_evaluation(config, tmp_path):
    cfg = config(tokenizer=chat.make_tokenizer(None, begins=True))
    trainer = build_trainer(cfg.of_arm("mgrpo", 0), str(tmp_path / "trainer"))
    evaluator = evaluate.Evaluator(cfg, trainer.model, models.load_tokenizer(cfg, cfg.model_location))
    ours = evaluator.questions(training_problems(cfg))
    assert ours == GRPOTrainer._tokenize_prompts(trainer, list(trainer.train_dataset["prompt"]))[0]
    assert all(ids[0] == chat.BOS and ids.count(chat.BOS) == 1 for ids in ours)


# -------------------------------------------------------------------------------------------- refused before anything
GEMMA = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + chat.CHATML
)
TWICE = "{% if messages | length > 2 %}{{ raise_exception('one turn alone') }}{% endif %}" + chat.CHATML


@pytest.mark.parametrize(
    ("model", "settings", "named"),
    [
        ({"template": GEMMA}, {}, "System role not supported.*system_prompt=''"),
        ({"template": GEMMA}, {"system_prompt": None}, "system_prompt=''"),
        ({"template": TWICE}, {"phrase_role": "user"}, "one turn alone.*phrase_role='assistant'"),
        ({"template": TWICE}, {"arms": {"mgrpo": {"phrase_role": "user"}}}, "phrase_role='assistant'"),
        (
            {"tokenizer": chat.make_tokenizer(pad_token="<new>"), "sizes": {"vocabulary": 260}},
            {},
            "'<new>'.*260 embeddings",
        ),
        (
            {"tokenizer": chat.make_tokenizer(eos_token="<new>"), "sizes": {"vocabulary": 260}},
            {},
            "'<new>'.*260 embeddings",
        ),
        ({}, {"chat_template_kwargs": {"tokenize": True}}, "chat_template_kwargs sets tokenize"),
        ({"sizes": {"context": 150}}, {}, "max_completion_length=12.*context of 150"),
        ({"sizes": {"context": 280}}, {"max_completion_length": 80}, "max_completion_length=80.* or less"),
        ({"sizes": {"context": 220}}, {"arms": {"mgrpo": {"num_layers": 3}}}, "3 attempts"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_runs(
    config, model, settings, named, tmp_path, monkeypatch
):
    monkeypatch.setattr(pipeline, "_reproduce", lambda *given: pytest.fail("it started"))
    cfg = config(**model, sft_steps=1, **settings)
    given = {**cfg._overrides, "train_data": str(tmp_path / "own_train.jsonl")}
    given = {name: value for name, value in given.items() if name != "output_root"}
    with pytest.raises(ConfigError, match=named):
        pipeline.reproduce("smoke", given, out=str(tmp_path / "out"))
    with pytest.raises(ConfigError, match=named):
        train_base(cfg)  # a notebook by hand
    assert not (tmp_path / "out").exists()


def test_what_goes_together_is_accepted(config):
    cfg = config(GEMMA, sizes={"context": 220}, system_prompt="")
    prompts.check_prompts(cfg, problems_at_hand(cfg))


def test_what_the_template_does_not_read_is_said(config, capsys):
    cfg = config(THINKING, chat_template_kwargs={"enable_thinkin": False, "enable_thinking": False})
    prompts.check_prompts(cfg, problems_at_hand(cfg))
    said = capsys.readouterr().out
    assert "enable_thinkin " in said and "enable_thinking" not in said
