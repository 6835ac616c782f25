"""Data sets that are not generated: what is read is what the table says, whatever is wrong is refused with the mend, and
nothing is trained on that is tested on. The problems here are made up; the real files, where they are at hand, are
checked at the end.
"""

import dataclasses
import hashlib
import json
import re
import shutil

import pytest

from mgrpo_lib.experiment import fingerprints
from mgrpo_lib.experiment import pipeline as runner
from mgrpo_lib.experiment.settings import ROOT, ConfigError, load_config
from mgrpo_lib.tasks import benchmarks, data, datacard

REAL = ROOT.parent / "shared" / "data"
N = 30  # rows of each made-up file

# the hub's field names, with made-up problems: row number -> a row
MADE_UP = {
    "gsm8k": lambda i: {"question": f"Ann has {i} pears and buys 1000.", "answer": f"She has more.\n#### {1000 + i:,}"},
    "math": lambda i: {
        "problem": f"Compute ${i}+1$.",
        "solution": f"It is $\\boxed{{0}}$, no: $\\boxed{{\\frac{{{i + 1}}}{{1}}}}$.",
    },
    "math500": lambda i: {"problem": f"Compute ${i}+2$.", "answer": f"{i + 2}", "unique_id": f"test/algebra/{i}.json"},
    "minerva_math": lambda i: {"question": f"How heavy is star {i}?", "answer": f"{i}.5e33" if i < 2 else f"{i}"},
    "olympiadbench": lambda i: {
        "id": i,
        "question": "Let $T=T N Y W R$. Find $T$." if i == 0 else f"Find $x={i}$.",
        "final_answer": [f"${i}$"],
        "is_multiple_answer": i == 1,
        "unit": "km" if i == 2 else None,
        "error": None,
    },
    "svamp": lambda i: {
        "ID": f"chal-{i}",
        "Body": f"A dog has {i} bones. ",
        "Question": "How many?",
        "Answer": f"{i}.0",
    },
    "multiarith": lambda i: {"question": f"Bob had {i // 2} toys. How many?", "final_ans": f"{i // 2}"},
}


def lines(rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder as `data_dir` must be, and the table made to fit it."""
    for name, one in benchmarks.SETS.items():
        splits = {}
        for split, part in one.splits.items():
            files, rows = {}, []
            for k, path in enumerate(part.files):
                raw = [MADE_UP[name](i) for i in range(k * N, (k + 1) * N)]
                if path == "hendrycks_math/algebra/train.jsonl":
                    raw[0]["solution"], raw[1]["solution"] = "Hence $\\boxed{}$.", "so $x = \\boxed 2$."
                (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / path).write_bytes(lines(raw))
                files[path] = (N, hashlib.sha256(lines(raw)).hexdigest())
                rows += raw
            content = benchmarks.content_hash(benchmarks.in_schema(map(one.read, rows), name, name))
            splits[split] = dataclasses.replace(part, files=files, content=content)
        monkeypatch.setitem(benchmarks.SETS, name, dataclasses.replace(one, splits=splits))
    return tmp_path


@pytest.fixture
def hub(folder, monkeypatch):
    """`datasets.load_dataset` on the made-up folder, in another order; what it was called with."""
    import datasets

    calls = []

    def load_dataset(path, config=None, *, split, revision):
        calls.append((path, config, split, revision))
        name, one = next((name, one) for name, one in benchmarks.SETS.items() if one.hub == path)
        part = next(part for part in one.splits.values() if part.hub_split == split)
        files = [f for f in part.files if config is None or len(part.files) == 1 or f"/{config}/" in f]
        return datasets.Dataset.from_list([json.loads(x) for f in files for x in (folder / f).open()][::-1])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls


def own(path, rows) -> str:
    path.write_bytes(lines(rows))
    return str(path)


def config(**settings):
    """Profile smoke with another model; all that there is of real sets and files."""
    small = {"model": "some/model", "train_data": "gsm8k", "validation_problems": 5, "test_problems": 0}
    small["train_problems"] = 0 if "train_data" in settings else 60
    return load_config("smoke", arm="base", **{**small, **settings})


# ----------------------------------------------------------------------------------------------- the real benchmarks
SPLITS = [(name, split) for name, one in benchmarks.SETS.items() for split in one.splits]


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_a_benchmark_is_read_into_the_schema(folder, name, split):
    rows = data.load_benchmark(name, split, folder)
    parts = len(benchmarks.SETS[name].splits[split].files)
    assert len(rows) == N * parts - (name == "math" and split == "train"), "the row without a gold is dropped"
    assert all(tuple(row) == data.SCHEMA for row in rows)
    assert all(isinstance(value, str) and value == value.strip() != "" for row in rows for value in row.values())
    assert len({row["id"] for row in rows}) == len(rows) and all(row["id"].startswith(f"{name}-") for row in rows)
    assert {row["source"] for row in rows} == {f"{name}/{split}"}


def test_golds_are_read_as_each_benchmark_writes_them(folder):
    def golds(name, split="test"):
        return [row["answer"] for row in data.load_benchmark(name, split, folder)][:3]

    assert golds("gsm8k") == ["1000", "1001", "1002"]
    assert golds("math") == [r"\frac{1}{1}", r"\frac{2}{1}", r"\frac{3}{1}"], "the last box"
    assert golds("math", "train")[0] == "2", "a box without braces"
    assert golds("minerva_math") == ["0.5e33", "1.5e33", "2"]
    assert golds("olympiadbench") == ["$0$", "$1$", "$2$"]
    assert golds("svamp") == ["0", "1", "2"]
    assert data.load_benchmark("svamp", data_dir=folder)[1]["question"] == "A dog has 1 bones. How many?"


@pytest.mark.parametrize(
    ("solution", "gold"),
    [
        (r"$\boxed{\left\{1, \frac{1}{2}\right.}$", r"\left\{1, \frac{1}{2}\right."),
        (r"\boxed{1} or \boxed {x_{1}}.", "x_{1}"),
        (r"$\boxed 2$.", "2"),
        (r"$\boxed \pi$", r"\pi"),
        (r"\boxed{}", ""),
        (r"\boxed{cut off", ""),
        (r"\boxed", ""),
        ("no box", ""),
    ],
)
def test_the_last_box_is_found(solution, gold):
    assert benchmarks.last_boxed(solution) == gold


def test_flawed_rows_are_named_and_kept(folder):
    flaws = benchmarks.known_flaws("olympiadbench", "test", folder)
    assert flaws["cannot be solved as printed"] == ["olympiadbench-0"]
    assert flaws["several answers in one gold"] == ["olympiadbench-1"]
    assert flaws["the gold lacks its unit"] == ["olympiadbench-2"]
    assert [len(rows) for rows in benchmarks.known_flaws("math", "train", folder).values()] == [1, 1]
    assert [len(rows) for rows in benchmarks.known_flaws("minerva_math", "test", folder).values()] == [2, 0]


def test_hub_and_files_give_the_same_rows(folder, hub):
    for name, split in SPLITS:
        files, loaded = data.load_benchmark(name, split, folder), data.load_benchmark(name, split)
        by_id = {row["id"]: row for row in files}
        assert {row["id"]: row for row in loaded} == by_id
        assert data.draw(loaded) == data.draw(files), "a sample does not depend on the order of the rows"
    assert ("openai/gsm8k", "main", "train", "740312add88f781978c0658806c59bc2815b9866") in hub
    assert ("ChilleD/MultiArith", None, "train+test", benchmarks.SETS["multiarith"].revision) in hub
    assert len([call for call in hub if call[0] == "EleutherAI/hendrycks_math"]) == 14
    assert all(revision and re.fullmatch("[0-9a-f]{40}", revision) for *_, revision in hub)


def test_another_copy_on_the_hub_is_refused(folder, hub, monkeypatch):
    (folder / "svamp/test.jsonl").write_bytes(lines(MADE_UP["svamp"](i) for i in range(N - 1)))
    with pytest.raises(ValueError, match=r"expected 30 rows with content \w+, found 29 rows.*set data_dir"):
        data.load_benchmark("svamp")
    # the one copy that is known to be another set: taken with the number of rows that it is known to have
    (folder / "olympiadbench/test.jsonl").write_bytes(lines(MADE_UP["olympiadbench"](i) for i in range(N - 1)))
    with pytest.raises(ValueError, match="expected 674 rows"):
        data.load_benchmark("olympiadbench")
    one = benchmarks.SETS["olympiadbench"]
    part = dataclasses.replace(one.splits["test"], hub_rows=N - 1)
    monkeypatch.setitem(benchmarks.SETS, "olympiadbench", dataclasses.replace(one, splits={"test": part}))
    assert len(data.load_benchmark("olympiadbench")) == N - 1
    names = ["olympiadbench"]
    both = [
        fingerprints.contents(config(benchmarks=names, data_dir=place), "test", names) for place in ("", str(folder))
    ]
    assert both[0] != both[1], "another set has another key"


def test_without_a_hub_the_mend_is_named(monkeypatch):
    import datasets

    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(ConnectionError, match="openai/gsm8k could not .*no network.*set data_dir.*gsm8k/test.jsonl"):
        data.load_benchmark("gsm8k")


def test_what_does_not_exist_is_refused(folder):
    with pytest.raises(ValueError, match="unknown benchmark 'gsm9k'; did you mean 'gsm8k'"):
        data.load_benchmark("gsm9k", data_dir=folder)
    with pytest.raises(ValueError, match="gsm8k has no split 'dev'; it has train and test"):
        data.load_benchmark("gsm8k", "dev", folder)
    with pytest.raises(ValueError, match="svamp has no split 'train'; it has test"):
        data.load_benchmark("svamp", "train", folder)
    (folder / "gsm8k/test.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match="test.jsonl does not exist; download it"):
        data.load_benchmark("gsm8k", data_dir=folder)


@pytest.mark.parametrize("harm", ["truncated", "altered"])
def test_a_truncated_or_altered_file_is_refused(folder, harm):
    file = folder / "hendrycks_math/geometry/test.jsonl"
    content = file.read_bytes()
    file.write_bytes(
        content[: len(content) // 2] if harm == "truncated" else content.replace(b"Compute", b"Computes", 1)
    )
    found = 15 if harm == "truncated" else 30
    with pytest.raises(
        ValueError, match=f"geometry.test.jsonl is .* 30 rows .* found {found} rows .*download it again, or"
    ):
        data.load_benchmark("math", "test", folder)


# ----------------------------------------------------------------------------------------------------- files of one's own
def test_own_files_of_all_kinds_give_the_same_rows(tmp_path):
    rows = [{"question": "How much is 1 + 1?", "answer": 2, "id": "x"}, {"question": "One,\ntwo?", "answer": "3"}]
    (tmp_path / "my.json").write_text(json.dumps(rows))
    (tmp_path / "my.jsonl").write_bytes(b"\n" + lines(rows) + b"\n")
    (tmp_path / "my.csv").write_text(
        '\ufeffid,question,answer\nx,How much is 1 + 1?,2\n,"One,\ntwo?",3\n', encoding="utf-8"
    )
    (tmp_path / "my.JSONL").write_bytes(lines(rows))
    read = {kind: data.load_file(tmp_path / f"my.{kind}") for kind in ("json", "jsonl", "csv", "JSONL")}
    for kind, found in read.items():
        assert [(row["question"], row["answer"]) for row in found] == [("How much is 1 + 1?", "2"), ("One,\ntwo?", "3")]
        assert all(tuple(row) == data.SCHEMA and row["source"] == f"my.{kind}" for row in found)
        assert [row["id"] for row in found] == [row["id"] for row in read["json"]] and found[0]["id"] == "my-x"


GOOD = '{"question": "a", "answer": "1"}\n'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("my.jsonl", "", "my.jsonl has no rows"),
        ("my.csv", "question,answer\n", "my.csv has no rows"),
        ("my.json", "[]", "my.json has no rows"),
        ("my.jsonl", GOOD + '{"question": "b", \n', "line 2 is broken JSON"),
        ("my.json", "[", "my.json cannot be read"),
        ("my.json", GOOD, "not a list of objects; for one object a line, call the file .jsonl"),
        ("my.jsonl", GOOD + "[1]\n", "line 2 is no object"),
        (
            "my.csv",
            "prompt,solution\na,1\n",
            "no column 'question'; it has prompt, solution, and needs question and answer",
        ),
        ("my.jsonl", '{"question": "b", "anser": 1}', "line 1: no column 'answer'; it has question, anser, and needs"),
        ("my.csv", "question;answer\na;1,5\n", "separated by ';'; save it with commas"),
        ("my.csv", "question\tanswer\na\t1\n", r"separated by '\\t'; save it with commas"),
        ("my.csv", "question,answer\na,1\nb,\n", "row 2: answer is empty"),
        (
            "my.csv",
            "question,answer\na,1\nWhat is 1, 2 or 3?,1\n",
            r"row 2 has the cells \['What is 1', ' 2 or 3\?', '1'\], and the columns are question, answer; put .* double quotes",
        ),
        ("my.csv", "question,answer\na\n", r"row 1 has the cells \['a'\]"),
        ("my.csv", "id,question,answer,solution\na,1,so\n", "fill in what is missing"),
        ("my.jsonl", '{"question": "b", "answer": NaN}', "line 1: answer is empty"),
        ("my.json", '[{"question": NaN, "answer": 1}]', "row 1: question is empty"),
        ("my.csv", 'question,answer\n"a,1\n', "my.csv cannot be read"),
        ("my.jsonl", GOOD + '\n{"question": "  ", "answer": 1}', "line 3: question is empty"),
        ("my.jsonl", '{"question": "b", "answer": null}', "line 1: answer is empty"),
        ("my.jsonl", '{"question": "b", "answer": ["1"]}', "answer is \\['1'\\]; write it as text"),
        ("my.txt", GOOD, "my.txt is not a .jsonl, .json, .csv file"),
    ],
)
def test_what_is_wrong_with_an_own_file_is_said(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        data.load_file(tmp_path / name)


def test_a_missing_or_binary_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        data.load_file(tmp_path / "my.csv")
    for encoding in ("latin-1", "utf-16"):
        (tmp_path / "my.csv").write_text("question,answer\nWie weit ist Köln?,1\n", encoding=encoding)
        with pytest.raises(ValueError, match="my.csv cannot be read: .*utf-8.*; save it as UTF-8"):
            data.load_file(tmp_path / "my.csv")


def test_rows_and_ids_that_come_twice_are_told_apart(tmp_path):
    rows = [{"question": f"Question {i % 3}?", "answer": "1", "id": "same"} for i in range(4)]
    cfg = config(benchmarks=[own(tmp_path / "my.jsonl", rows)])
    assert [row["id"] for row in data.whole_set(cfg, "my", "test")] == [
        "my-same",
        "my-same#2",
        "my-same#3",
        "my-same#4",
    ]
    card = datacard.origin(cfg, "my", "test")
    assert (card["of"], card["questions_twice"], card["ids_twice"], card["from"]) == (4, 1, 3, "my.jsonl")


# ---------------------------------------------------------------------------------------------------- configuration
def test_own_files_have_their_stem_as_name(tmp_path):
    rows = [{"question": f"{i}?", "answer": "1"} for i in range(30)]
    cfg = config(
        train_data=own(tmp_path / "mine.JSONL", rows),
        benchmarks=["chains", own(tmp_path / "t.jsonl", rows)],
        test_problems=3,
    )
    assert (cfg.train_data, cfg.benchmarks) == ("mine", ["chains", "t"])
    assert cfg.of_arm("mgrpo", 1).benchmarks == ["chains", "t"], "another arm finds the files again"
    assert str(tmp_path) not in json.dumps(cfg.model_dump()), "results do not say where files lay"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_data": "gsm9k"}, "unknown training set 'gsm9k'; did you mean 'gsm8k'. Or give the path of a .jsonl"),
        ({"train_data": "math500"}, "unknown training set 'math500'"),
        ({"benchmarks": ["olympiadbrench"]}, "did you mean 'olympiadbench'"),
        ({"benchmarks": ["MATH-500"]}, "unknown benchmark 'MATH-500'; did you mean 'math500'"),
        ({"train_data": "GSM8K"}, "did you mean 'gsm8k'"),
        ({"benchmarks": ["nowhere.csv"]}, "there is no file 'nowhere.csv'; a relative path counts from"),
        ({"benchmarks": ["gsm8k", "gsm8k"]}, "repeat themselves"),
        (
            {"model": "miniature", "train_data": "miniature", "benchmarks": ["gsm8k"]},
            "reads arithmetic alone; set model",
        ),
        ({"model": "miniature", "train_data": "math"}, "reads arithmetic alone; set model"),
        ({"benchmarks": ["chains"], "test_problems": 0}, "test_problems 0 means all"),
        ({"train_data": "sums", "train_problems": 0, "benchmarks": ["gsm8k"]}, "train_problems 0 means all"),
    ],
)
def test_unusable_names_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        load_config("smoke", **{"model": "some/model", "train_data": "gsm8k", **settings})


def test_empty_cells_at_the_end_of_a_csv_and_missing_ones_that_nobody_needs_are_read(tmp_path):
    path = tmp_path / "my.csv"
    for text in ("question,answer\na,1,\n", "question,answer,\na,1\n", "question,answer,id\na,1\n"):
        path.write_text(text)
        (row,) = data.load_file(path)
        assert (row["question"], row["answer"]) == ("a", "1")


def test_a_file_named_as_another_set_is_refused(tmp_path):
    file = own(tmp_path / "math.jsonl", [{"question": "?", "answer": "1"}])
    with pytest.raises(ConfigError, match="would be called 'math' in the results, as another set is; rename"):
        config(benchmarks=[file])
    same = own(tmp_path / "same.jsonl", [{"question": "?", "answer": "1"}])
    with pytest.raises(ConfigError, match="rename"):
        config(train_data=same, benchmarks=[same])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data_dir": "/nowhere"}, "data_dir '/nowhere' is no folder; a relative path counts from .* the hub is used"),
        ({"data_dir": "{}"}, "gsm8k/test.jsonl does not exist; download it, leave data_dir empty"),
        ({"benchmarks": ["{}/bad.csv"]}, r"bad.csv cannot be read: row 1 has the cells .* double quotes"),
        ({"train_data": "{}/bad.csv", "benchmarks": ["sums"]}, "bad.csv cannot be read: row 1 has the cells"),
        ({"train_data": "{}/few.csv", "benchmarks": ["sums"]}, "few has 0 questions left to train on"),
    ],
)
def test_data_that_cannot_be_used_stop_the_chain_before_it_starts(folder, settings, message, monkeypatch):
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


# ------------------------------------------------------------------------------------------- sets of an experiment
LONG = "a farmer sells seven baskets of plums to each of his nine neighbours in"


@pytest.fixture
def leaking(tmp_path):
    """A training file and a test file of one's own that share what they must not."""
    train = [{"question": f"How much is {i} plus {i}?", "answer": 2 * i} for i in range(30)]
    train += [{"question": f"In May {LONG} {i} days. How many?", "answer": 63} for i in range(3)]
    train += [{"question": "how much is 3 PLUS 3?", "answer": 6}, {"question": "How much is 4 minus 4?", "answer": 0}]
    test = [{"question": f"So {LONG} one week. Why?", "answer": 1}, {"question": "How much is 4 plus 4 ?", "answer": 8}]
    return own(tmp_path / "mine.jsonl", train), own(tmp_path / "theirs.jsonl", test)


def test_training_rows_that_a_test_set_shares_are_dropped(leaking, tmp_path):
    train, test = leaking
    cfg = config(train_data=train, benchmarks=[test], output_root=str(tmp_path / "out"))
    rows, dropped = data.clean_training_set(cfg)
    assert dropped == {"twice": 1, "theirs": 4}, "three with 13 words in common, and one short question as a whole"
    assert len(rows) == 35 - 5
    assert {"How much is 4 minus 4?"} < {row["question"] for row in rows}
    card = datacard.data_card(cfg)["sets"]
    assert card["train"]["dropped"] == dropped
    assert (card["train"]["rows"], card["validation"]["rows"], card["theirs"]["rows"]) == (25, 5, 2)
    assert all(entry["shared_with_train"] == 0 for entry in card.values())


def test_samples_are_fixed_nested_and_disjoint(leaking, folder):
    train, _ = leaking
    few, many = (
        config(train_data=train, benchmarks=["svamp"], data_dir=str(folder), train_problems=n, test_problems=n)
        for n in (6, 12)
    )
    for sets in (data.training_problems, lambda cfg: data.test_problems(cfg, "svamp")):
        assert sets(few) == sets(few) == sets(many)[:6] and len(sets(many)) == 12
    assert data.validation_problems(few) == data.validation_problems(many)
    questions = [
        {row["question"] for row in rows} for rows in (data.training_problems(many), data.validation_problems(many))
    ]
    assert len(questions[1]) == 5 and questions[0].isdisjoint(questions[1])
    other = config(
        benchmarks=["svamp"],
        data_dir=str(folder),
        test_problems=6,
        test_draw=1,
        train_problems=60,
        train_data="sums",
    )
    assert data.test_problems(other, "svamp") != data.test_problems(few, "svamp")
    assert len(data.test_problems(config(train_data=train, benchmarks=["svamp"], data_dir=str(folder)), "svamp")) == N


def test_a_real_training_set_is_cleaned_of_its_own_test_split(folder):
    cfg = config(train_data="gsm8k", benchmarks=["svamp"], data_dir=str(folder))
    assert data.clean_training_set(cfg) == ([], {"twice": 0, "svamp": 0, "gsm8k": N}), "the two made-up splits are one"
    with pytest.raises(ValueError, match="gsm8k has 0 questions left to train on, after cleaning .* hold fewer out"):
        data.training_problems(cfg)


def test_a_test_file_that_shares_with_the_miniature_is_refused(tmp_path):
    cfg = load_config("smoke", arm="base")
    shared = data.training_problems(cfg)[0]["question"]
    file = own(tmp_path / "mine.jsonl", [{"question": shared, "answer": 1}])
    with pytest.raises(ValueError, match="1 questions of mine stand in the training set"):
        datacard.data_card(load_config("smoke", arm="base", benchmarks=[file], output_root=str(tmp_path)))


def test_keys_know_the_content_and_not_the_place(leaking, tmp_path):
    train, test = leaking

    def keys(**settings):
        cfg = config(**{"train_data": train, "benchmarks": [test], **settings}).of_arm("mgrpo")
        return [
            key(cfg)
            for key in (
                fingerprints.run_key,
                fingerprints.validation_key,
                fingerprints.evaluation_key,
                fingerprints.data_key,
            )
        ]

    first = keys()
    assert keys(data_dir=str(tmp_path)) == first, "where files lie is no part of a result"
    (tmp_path / "moved").mkdir()
    moved = [str(shutil.copy(file, tmp_path / "moved")) for file in (train, test)]
    assert keys(train_data=moved[0], benchmarks=[moved[1]]) == first
    assert all(a != b for a, b in zip(keys(validation_problems=6), first, strict=True)), (
        "what is held out is not trained on"
    )
    with open(test, "ab") as file:
        file.write(lines([{"question": "New?", "answer": 1}]))
    second = keys()
    assert all(a != b for a, b in zip(second, first, strict=True)), "cleaning depends on the test sets"
    with open(train, "ab") as file:
        file.write(lines([{"question": "New, too?", "answer": 1}]))
    assert all(a != b for a, b in zip(keys(), second, strict=True))
    generated = [fingerprints.run_key(load_config("smoke", benchmarks=names)) for names in (["chains"], ["blanks"])]
    assert generated[0] == generated[1], "the miniature's training set does not depend on what is tested"


# --------------------------------------------------------------------------------------------------- the real files
real = pytest.mark.skipif(not REAL.exists(), reason="the real benchmarks are not at hand (../shared/data)")

ROWS = {
    ("gsm8k", "train"): 7473,
    ("gsm8k", "test"): 1319,
    ("math500", "test"): 500,
    ("math", "train"): 7498,  # two of 7500 have an empty gold
    ("math", "test"): 5000,
    ("minerva_math", "test"): 272,
    ("olympiadbench", "test"): 675,
    ("svamp", "test"): 300,
    ("multiarith", "test"): 600,
}


@real
@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_real_files_have_the_rows_of_the_table(name, split):
    rows = data.load_benchmark(name, split, REAL)
    assert len(rows) == ROWS[name, split] == len({row["id"] for row in rows})
    assert all(tuple(row) == data.SCHEMA and all(isinstance(v, str) and v for v in row.values()) for row in rows)
    if name in ("gsm8k", "svamp", "multiarith"):
        assert all(re.fullmatch(r"-?\d+(\.\d+)?", row["answer"]) for row in rows)


@real
def test_real_flaws_are_as_many_as_known():
    counts = {
        f"{name}/{split}": [len(ids) for ids in benchmarks.known_flaws(name, split, REAL).values()]
        for name, split in SPLITS
    }
    assert counts["math/train"] == [2, 2] and counts["math/test"] == [0, 0]
    assert counts["minerva_math/test"] == [58, 1]
    assert counts["olympiadbench/test"] == [19, 1, 94, 8, 1]
    assert benchmarks.known_flaws("olympiadbench", "test", REAL)["the gold is wrong"] == ["olympiadbench-2275"]


@real
def test_real_golds_of_math_agree_with_those_of_math500():
    solutions = {row["question"]: row["answer"] for row in data.load_benchmark("math", "test", REAL)}
    assert all(solutions[row["question"]] == row["answer"] for row in data.load_benchmark("math500", "test", REAL))


@real
@pytest.mark.parametrize(
    ("name", "left", "dropped"),
    [
        ("math", 6843, {"twice": 2, "math": 642, "math500": 148, "olympiadbench": 12}),
        ("gsm8k", 7469, {"gsm8k": 4}),
    ],
)
def test_real_training_sets_are_cleaned_of_all_test_sets(name, left, dropped):
    cfg = config(train_data=name, benchmarks=list(benchmarks.SETS), data_dir=str(REAL))
    rows, found = data.clean_training_set(cfg)
    assert len(rows) == left and {reason: n for reason, n in found.items() if n} == dropped
    kept = {data.as_one(row["question"]) for row in rows}
    for test in benchmarks.SETS:
        held_out = data.load_benchmark(test, "test", REAL)
        assert kept.isdisjoint(data.as_one(row["question"]) for row in held_out)
    train, test = (data.load_benchmark("math", split, REAL) for split in ("train", "test"))
    shared = datacard.overlap(train, test)
    assert len(shared) == 2 and kept.isdisjoint(shared), (
        "in both splits of MATH; one letter for letter, one but for a blank"
    )
