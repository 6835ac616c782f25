"""The sets of a profile: files are known by content, training shares nothing with tests, what is unusable stops the run."""

import json
import os
import re
import shutil

import pytest

from mgrpo_lib.experiment import data, datacard, keys
from mgrpo_lib.experiment import pipeline as runner
from mgrpo_lib.experiment.settings import ROOT, ConfigError, load_config
from mgrpo_lib.tasks import miniature, sums
from tests.tasks.made_up import REAL, N, lines, make_folder, own

LONG = "a farmer sells seven baskets of plums to each of his nine neighbours in"
ROW = {"question": "?", "answer": "1"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    return make_folder(tmp_path, monkeypatch)


@pytest.fixture
def leaking(tmp_path):
    """A training file and a test file of one's own that share what they must not."""
    train = [{"question": f"How much is {i} plus {i}?", "answer": 2 * i} for i in range(30)]
    train += [{"question": f"In May {LONG} {i} days. How many?", "answer": 63} for i in range(3)]
    train += [{"question": "how much is 3 PLUS 3?", "answer": 6}, {"question": "How much is 4 minus 4?", "answer": 0}]
    test = [{"question": f"So {LONG} one week. Why?", "answer": 1}, {"question": "How much is 4 plus 4 ?", "answer": 8}]
    return own(tmp_path / "mine.jsonl", train), own(tmp_path / "theirs.jsonl", test)


def config(**settings):
    """Profile smoke with another model, which reads real sets and files."""
    small = {"model": "some/model", "train_data": "gsm8k", "validation_problems": 5, "test_problems": 0}
    small["train_problems"] = 0 if "train_data" in settings else 60
    return load_config("smoke", arm="base", **{**small, **settings})


# --------------------------------------------------------------------------------------------------- names and files
def test_own_files_have_their_stem_as_name(tmp_path):
    rows = [{"question": f"{i}?", "answer": "1"} for i in range(30)]
    tests = ["chains", own(tmp_path / "t.jsonl", rows)]
    cfg = config(train_data=own(tmp_path / "mine.JSONL", rows), benchmarks=tests, test_problems=3)
    assert (cfg.train_data, cfg.benchmarks) == ("mine", ["chains", "t"])
    assert cfg.of_arm("mgrpo", 1).benchmarks == ["chains", "t"], "another arm finds the files again"
    assert str(tmp_path) not in json.dumps(cfg.model_dump()), "results do not say where files lay"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_data": "gsm9k"}, "'gsm9k'.*'gsm8k'"),
        ({"train_data": "math500"}, "train_data: unknown set 'math500'"),
        ({"benchmarks": ["MATH-500"]}, "'MATH-500'.*'math500'"),
        ({"train_data": "GSM8K"}, "'GSM8K'.*'gsm8k'"),
        ({"benchmarks": ["nowhere.csv"]}, "'nowhere.csv'"),
        ({"benchmarks": ["gsm8k", "gsm8k"]}, "repeat"),
        ({"model": "miniature", "train_data": "miniature", "benchmarks": ["gsm8k"]}, "'gsm8k'.* set model"),
        ({"model": "miniature", "train_data": "math"}, "'math'.* set model"),
        ({"benchmarks": ["chains"], "test_problems": 0}, "test_problems 0"),
        ({"train_data": "sums", "train_problems": 0, "benchmarks": ["gsm8k"]}, "train_problems 0"),
    ],
)
def test_unusable_names_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        load_config("smoke", **{"model": "some/model", "train_data": "gsm8k", **settings})


def test_a_file_named_as_another_set_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="'math'.*rename"):
        config(benchmarks=[own(tmp_path / "math.jsonl", [ROW])])
    (tmp_path / "b").mkdir()
    with pytest.raises(ConfigError, match="'two'.*rename"):
        config(benchmarks=[own(tmp_path / folder / "two.jsonl", [ROW]) for folder in (".", "b")])


@pytest.mark.parametrize("name", ["arm", "verdict", "train", "validation", "a\nb", "a\u200bb"])
def test_a_file_that_results_cannot_be_named_by_is_refused(name, tmp_path):
    with pytest.raises(ConfigError, match="rename the file"):
        config(benchmarks=[own(tmp_path / f"{name}.jsonl", [ROW])])


def test_the_same_file_for_training_and_test_is_refused_in_any_spelling(tmp_path):
    rows = [{"question": f"How much is {i} plus {i}?", "answer": 2 * i} for i in range(30)]
    file = own(tmp_path / "mine.jsonl", rows)
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.jsonl").symlink_to(file)
    (tmp_path / "hard.jsonl").hardlink_to(file)
    shutil.copy(file, tmp_path / "copy.jsonl")
    spellings = [file, os.path.relpath(file, ROOT), f"{tmp_path}/folder/../mine.jsonl", str(tmp_path / "link.jsonl")]
    for other in [*spellings, str(tmp_path / "hard.jsonl")]:
        with pytest.raises(ConfigError, match="train_data and benchmarks name the same file.*another"):
            config(train_data=file, benchmarks=[other])
        with pytest.raises(ConfigError, match="benchmarks names the file .* twice"):
            config(train_data="sums", train_problems=20, benchmarks=[file, other])
    with pytest.raises(ConfigError, match="copy: 30.*other data"):
        runner.check_data(config(train_data=file, benchmarks=[str(tmp_path / "copy.jsonl")]))


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("folder", "folder is a folder"),
        ("packed.jsonl.gz", "unpack"),
        ("table.xlsx", r"table.xlsx is not a \.jsonl"),
        ("nowhere/my.csv", "no file .*nowhere/my.csv"),
        ("my.tsv", r"my.tsv is not a \.jsonl"),
    ],
)
def test_a_path_that_is_no_file_of_a_known_kind_is_refused(given, named, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "packed.jsonl.gz").write_bytes(b"")
    for settings in ({"train_data": str(tmp_path / given)}, {"benchmarks": [str(tmp_path / given)]}):
        with pytest.raises(ConfigError, match=f"{next(iter(settings))}.*{named}"):
            config(**settings)


def test_a_test_set_of_one_problem_stops_the_pipeline_before_it_starts(tmp_path):
    file = own(tmp_path / "one.jsonl", [{"question": "How much is 1 plus 1?", "answer": 2}])
    sums_too = {"train_data": "sums", "train_problems": 20, "benchmarks": [file]}
    with pytest.raises(ConfigError, match="benchmarks: one has one problem"):
        runner.check_data(config(**sums_too))
    with pytest.raises(ValueError, match="benchmarks: one has one problem"):
        datacard.data_card(config(**sums_too, output_root=str(tmp_path)))
    alone = config(**sums_too, arms={}, control_arms=["base"])
    assert [row["answer"] for row in runner.check_data(alone)][:1] == ["2"], "nothing is compared"


def test_what_the_miniature_cannot_read_is_refused_with_its_row(tmp_path):
    rows = [{"question": "7 a+8 b*3", "answer": 5}, {"question": "two a+four b+? =5", "answer": 9}]
    read = load_config("smoke", arm="base", benchmarks=[own(tmp_path / "signs.jsonl", rows)])
    assert len(data.test_problems(read, "signs")) == 2
    for question, sign in (
        ("What is 7 + 8?", "What"),
        ("7 a/8", "/"),
        ("7 f+8", "f"),
        ("7 ab+8", "ab"),
        ("x a+1", "x"),
    ):
        bad = own(tmp_path / "bad.jsonl", [*rows, {"question": question, "answer": 5}])
        with pytest.raises(ConfigError, match=f"bad.jsonl, row 3.*'{re.escape(sign)}'.*MODEL="):
            runner.check_data(load_config("smoke", arm="base", benchmarks=[bad]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data_dir": "/nowhere"}, "data_dir '/nowhere'"),
        ({"data_dir": "{}"}, "gsm8k/test.jsonl does not exist"),
        ({"benchmarks": ["{}/bad.csv"]}, "bad.csv .*double quotes"),
        ({"train_data": "{}/bad.csv", "benchmarks": ["sums"]}, "bad.csv .*double quotes"),
        ({"train_data": "{}/few.csv", "benchmarks": ["sums"]}, "few has 0 questions left"),
    ],
)
def test_data_that_cannot_be_used_stop_the_pipeline_before_it_starts(folder, settings, message, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: pytest.fail("nothing is downloaded"))
    (folder / "bad.csv").write_text("question,answer\nWhat is 1, 2 or 3?,1\n")
    (folder / "few.csv").write_text("question,answer\nWhat is 1?,1\n")
    (folder / "gsm8k/test.jsonl").unlink()
    placed = json.loads(json.dumps(settings).replace("{}", str(folder)))
    given = {"model": "some/model", "train_data": "gsm8k", "benchmarks": ["gsm8k"], "train_problems": 0, **placed}
    with pytest.raises(ConfigError, match=message):
        runner.reproduce("smoke", given, out=str(folder / "out"))
    assert not (folder / "out").exists()


# ------------------------------------------------------------------------------------------- training and test sets
@pytest.mark.parametrize(("profile", "module"), [("cpu", miniature), ("smollm2", sums)])
def test_no_held_out_question_is_trained_on(profile, module):
    cfg = load_config(profile, arm="base")
    train = data.training_problems(cfg)
    assert len(train) == cfg.train_problems
    for rows in [data.validation_problems(cfg), *(data.test_problems(cfg, name) for name in cfg.benchmarks)]:
        assert datacard.overlap(train, rows) == []
    assert datacard.overlap(train, train[:3]) != [], "the check itself must find an overlap"
    if module is miniature:
        told = miniature.in_words(train[0]["question"])
    else:
        told = f"Ada has {sums.bare(train[0]['question']).replace('+', ' pens. Ada buys ').replace('-', ' pens. Ada sells ')}"
    assert datacard.overlap(train, [{**train[0], "question": told}]) != [], "the same problem in another form"


@pytest.mark.committed
@pytest.mark.parametrize("profile", ["cpu", "smollm2"])
def test_the_data_card_is_the_committed_one(profile, tmp_path):
    cfg = load_config(profile, arm="base", output_root=".")
    committed = json.loads((cfg.results / "data.json").read_text(encoding="utf-8"))
    made = datacard.data_card(load_config(profile, arm="base", output_root=str(tmp_path)))
    assert made["sets"] == committed["sets"] and made["key"] == committed["key"]


def test_training_rows_that_a_test_set_shares_are_dropped(leaking, tmp_path):
    train, test = leaking
    cfg = config(train_data=train, benchmarks=[test], output_root=str(tmp_path / "out"))
    rows, dropped = data.clean_training_set(cfg)
    assert dropped == {"twice": 1, "theirs": 4} and len(rows) == 35 - 5
    card = datacard.data_card(cfg)["sets"]
    assert card["train"]["dropped"] == dropped and card["theirs"]["of"] == 2
    assert (card["train"]["rows"], card["validation"]["rows"], card["theirs"]["rows"]) == (25, 5, 2)
    assert all(entry["shared_with_train"] == 0 for entry in card.values())


def test_the_data_card_counts_what_comes_twice(tmp_path):
    rows = [{"question": f"Question {i % 3}?", "answer": "1", "id": "same"} for i in range(4)]
    card = datacard.origin(config(benchmarks=[own(tmp_path / "my.jsonl", rows)]), "my", "test")
    assert (card["of"], card["questions_twice"], card["ids_twice"], card["from"]) == (4, 1, 3, "my.jsonl")


def test_samples_are_fixed_nested_and_disjoint(leaking, folder):
    given = {"train_data": leaking[0], "benchmarks": ["svamp"], "data_dir": str(folder)}
    few, many = (config(**given, train_problems=n, test_problems=n) for n in (6, 12))
    for sets in (data.training_problems, lambda cfg: data.test_problems(cfg, "svamp")):
        assert sets(few) == sets(few) == sets(many)[:6] and len(sets(many)) == 12
    assert data.validation_problems(few) == data.validation_problems(many)
    train, validation = (
        {row["question"] for row in rows} for rows in (data.training_problems(many), data.validation_problems(many))
    )
    assert len(validation) == 5 and train.isdisjoint(validation)
    other = config(**given, train_problems=6, test_problems=6, test_draw=1)
    assert data.test_problems(other, "svamp") != data.test_problems(few, "svamp")
    assert len(data.test_problems(config(**given), "svamp")) == N


def test_a_real_training_set_is_cleaned_of_its_own_test_split(folder):
    cfg = config(train_data="gsm8k", benchmarks=["svamp"], data_dir=str(folder))
    assert data.clean_training_set(cfg) == ([], {"twice": 0, "svamp": 0, "gsm8k": N}), "the two made-up splits are one"
    with pytest.raises(ValueError, match="gsm8k has 0 questions left"):
        data.training_problems(cfg)


def test_a_test_file_that_shares_with_the_miniature_is_refused(tmp_path):
    shared = data.training_problems(load_config("smoke", arm="base"))[0]["question"]
    file = own(tmp_path / "mine.jsonl", [{"question": shared, "answer": 1}])
    with pytest.raises(ValueError, match="1 questions of mine"):
        datacard.data_card(load_config("smoke", arm="base", benchmarks=[file], output_root=str(tmp_path)))


@pytest.mark.skipif(not REAL.exists(), reason="the real benchmarks are not at hand (../shared/data)")
def test_the_data_card_of_real_sets_finds_what_both_splits_of_math_share(tmp_path):
    given = {"train_data": "math", "benchmarks": ["math500"], "data_dir": str(REAL), "output_root": str(tmp_path)}
    cfg = config(**given, train_problems=100, test_problems=50)
    assert len(datacard.overlap(*(data.whole_set(cfg, "math", split) for split in ("train", "test")))) == 2
    card = datacard.data_card(cfg)["sets"]
    assert all(entry["shared_with_train"] == entry["13-gram_in_train"] == 0 for entry in card.values())


def test_a_small_file_is_told_how_many_problems_it_can_hold_out(tmp_path):
    """20 problems; a step of smoke needs 4."""
    rows = own(
        tmp_path / "mine.jsonl", [{"question": f"How much is {i} plus one?", "answer": i + 1} for i in range(20)]
    )
    with pytest.raises(ValueError, match="set validation_problems to 16 or less"):
        data.training_sets(config(train_data=rows, benchmarks=["chains"], test_problems=3, validation_problems=30))
    data.training_sets(config(train_data=rows, benchmarks=["chains"], test_problems=3, validation_problems=16))


# ------------------------------------------------------------------------------------------------------- keys
def test_keys_know_the_content_and_not_the_place(leaking, tmp_path):
    train, test = leaking

    def found(**settings):
        cfg = config(**{"train_data": train, "benchmarks": [test], **settings}).of_arm("mgrpo")
        names = ("run_key", "validation_key", "evaluation_key", "data_key")
        return [getattr(keys, name)(cfg) for name in names]

    def add(file, question):
        with open(file, "ab") as end:
            end.write(lines([{"question": question, "answer": 1}]))
        return found()

    first = found()
    assert found(data_dir=str(tmp_path)) == first, "where files lie is no part of a result"
    (tmp_path / "moved").mkdir()
    moved = [str(shutil.copy(file, tmp_path / "moved")) for file in (train, test)]
    assert found(train_data=moved[0], benchmarks=[moved[1]]) == first
    others = [first, found(validation_problems=6), add(test, "New?"), add(train, "New, too?")]
    assert all(len(set(kind)) == 4 for kind in zip(*others, strict=True)), "cleaning depends on the test sets"
    generated = [keys.run_key(load_config("smoke", benchmarks=names)) for names in (["chains"], ["blanks"])]
    assert generated[0] == generated[1], "the miniature's training set does not depend on what is tested"


def test_a_differing_copy_on_the_hub_has_another_key(folder):
    names = ["olympiadbench"]
    cfgs = [config(benchmarks=names, data_dir=place) for place in ("", str(folder))]
    assert keys.contents(cfgs[0], "test", names) != keys.contents(cfgs[1], "test", names)


@pytest.mark.parametrize(
    ("gold", "named"),
    [
        ("\x0crac{1}{2}", "backslash twice"),
        ("5\u200b", "ZERO WIDTH SPACE"),
        ("\uff15", "ASCII"),
        ("['7']", "its one value"),
        ("9" * 501, "501 characters"),
    ],
)
def test_a_gold_that_no_completion_can_equal_is_refused_with_its_row(tmp_path, gold, named):
    rows = [ROW, {"question": "How many?", "answer": gold}]
    cfg = config(benchmarks=[own(tmp_path / "mine.jsonl", rows)])
    with pytest.raises(ValueError, match=f"mine.jsonl.*2.*{named}"):
        data.test_problems(cfg, "mine")


def test_of_a_whole_solution_the_final_answer_is_the_gold(tmp_path, capsys):
    rows = [{"question": "Pears?", "answer": "She has 3+4=<<3+4=7>>7 pears.\n#### 7"}]
    cfg = config(benchmarks=[own(tmp_path / "mine.jsonl", rows)])
    assert [row["answer"] for row in data.test_problems(cfg, "mine")] == ["7"]
    assert "1 answers are whole solutions" in capsys.readouterr().out
