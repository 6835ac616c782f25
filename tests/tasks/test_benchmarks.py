"""A benchmark is read as its table says, or refused. The problems are made up; the real files, where at hand, come last."""

import json
import re

import pytest

from mgrpo_lib import load_benchmark
from mgrpo_lib.tasks import benchmarks
from mgrpo_lib.tasks.decontamination import shuffled
from mgrpo_lib.tasks.schema import SCHEMA
from mgrpo_lib.verifier.reward import extract_answer, same_answer
from tests.tasks.made_up import REAL, ROWS, SPLITS, N, lines, make_folder, own

read = benchmarks.read_benchmark


@pytest.fixture
def folder(tmp_path, monkeypatch):
    return make_folder(tmp_path, monkeypatch)


@pytest.fixture
def hub(folder, monkeypatch):
    """`datasets.load_dataset` on the made-up folder, in reverse order; returns its calls."""
    import datasets

    calls = []

    def load_dataset(path, config=None, *, split, revision):
        calls.append((path, config, split, revision))
        one = next(one for one in benchmarks.SETS.values() if one.hub == path)
        part = next(part for part in one.splits.values() if part.hub_split == split)
        files = [f for f in part.files if config is None or len(part.files) == 1 or f"/{config}/" in f]
        return datasets.Dataset.from_list([json.loads(x) for f in files for x in (folder / f).open()][::-1])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_a_benchmark_is_read_into_the_schema(folder, name, split):
    rows = read(name, split, folder)
    parts = len(benchmarks.SETS[name].splits[split].files)
    assert len(rows) == N * parts - (name == "math" and split == "train"), "the row without a gold is dropped"
    assert all(tuple(row) == SCHEMA for row in rows)
    assert all(isinstance(value, str) and value == value.strip() != "" for row in rows for value in row.values())
    assert len({row["id"] for row in rows}) == len(rows) and all(row["id"].startswith(f"{name}-") for row in rows)
    assert {row["source"] for row in rows} == {f"{name}/{split}"}


def test_the_public_function_gives_a_dataset(folder, tmp_path):
    rows = load_benchmark("svamp", data_dir=folder)
    assert rows.column_names == list(SCHEMA) and rows.to_list() == read("svamp", "test", folder)
    assert rows[1]["question"] == "A dog has 1 bones. How many?"
    given = [{"question": "1 + 1?", "answer": 2, "solution": "1 + 1 = 2"}, {"question": "?", "answer": "007"}]
    rows = load_benchmark(own(tmp_path / "mine.JSONL", given))
    assert rows.column_names == [*SCHEMA, "solution"] and rows["answer"][:] == ["2", "007"]
    assert rows["solution"][:] == ["1 + 1 = 2", None]


@pytest.mark.parametrize(
    ("name", "split", "golds"),
    [
        ("gsm8k", "test", ["1000", "1001", "1002"]),
        ("math", "test", [r"\frac{1}{1}", r"\frac{2}{1}", r"\frac{3}{1}"]),  # the last box
        ("math", "train", ["2", r"\frac{3}{1}"]),  # a box without braces
        ("minerva_math", "test", ["0.5e33", "1.5e33", "2"]),
        ("olympiadbench", "test", ["$0$", "$1$", "$2$"]),
        ("svamp", "test", ["0", "1", "2"]),
    ],
)
def test_golds_are_read_as_each_benchmark_writes_them(folder, name, split, golds):
    assert [row["answer"] for row in read(name, split, folder)][: len(golds)] == golds


@pytest.mark.parametrize(
    ("solution", "gold"),
    [
        (r"$\boxed{\left\{1, \frac{1}{2}\right.}$", r"\left\{1, \frac{1}{2}\right."),
        (r"\boxed{1} or \boxed {x_{1}}.", "x_{1}"),
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
        files, loaded = read(name, split, folder), read(name, split, None)
        assert {row["id"]: row for row in loaded} == {row["id"]: row for row in files}
        assert shuffled(loaded) == shuffled(files), "a sample does not depend on the order of the rows"
    assert ("openai/gsm8k", "main", "train", "740312add88f781978c0658806c59bc2815b9866") in hub
    assert ("ChilleD/MultiArith", None, "train+test", benchmarks.SETS["multiarith"].revision) in hub
    assert len([call for call in hub if call[0] == "EleutherAI/hendrycks_math"]) == 14
    assert all(re.fullmatch("[0-9a-f]{40}", revision) for *_, revision in hub)


def test_another_copy_on_the_hub_is_refused(folder, hub, monkeypatch):
    (folder / "svamp/test.jsonl").write_bytes(lines(ROWS["svamp"](i) for i in range(N - 1)))
    with pytest.raises(ValueError, match=r"expected 30 rows.*found 29 rows.*data_dir"):
        read("svamp", "test", None)
    # the one copy that is known to be another set: taken with the number of rows that it is known to have
    (folder / "olympiadbench/test.jsonl").write_bytes(lines(ROWS["olympiadbench"](i) for i in range(N - 1)))
    with pytest.raises(ValueError, match="expected 674 rows"):
        read("olympiadbench", "test", None)
    one = benchmarks.SETS["olympiadbench"]
    part = one.splits["test"].model_copy(update={"hub_rows": N - 1})
    monkeypatch.setitem(benchmarks.SETS, "olympiadbench", one.model_copy(update={"splits": {"test": part}}))
    assert len(read("olympiadbench", "test", None)) == N - 1
    identities = [benchmarks.identity("olympiadbench", "test", from_hub) for from_hub in (True, False)]
    assert identities[0] != identities[1], "another set has another key"
    assert benchmarks.identity("gsm8k", "test", True) == benchmarks.identity("gsm8k", "test", False)


def test_without_the_hub_the_error_names_data_dir(monkeypatch):
    import datasets

    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(ConnectionError, match="openai/gsm8k .*no network.*data_dir.*gsm8k/test.jsonl"):
        load_benchmark("gsm8k")


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [("gsm9k", "test", "'gsm9k'.*'gsm8k'"), ("gsm8k", "dev", "'dev'.*train and test"), ("svamp", "train", "has test")],
)
def test_unknown_names_are_refused(folder, name, split, message):
    with pytest.raises(ValueError, match=message):
        load_benchmark(name, split, folder)


@pytest.mark.parametrize("harm", ["truncated", "altered", "missing"])
def test_a_damaged_file_is_refused(folder, harm):
    file = folder / "hendrycks_math/geometry/test.jsonl"
    content = file.read_bytes()
    if harm == "missing":
        file.unlink()
    else:
        half, other = content[: len(content) // 2], content.replace(b"Compute", b"Computes", 1)
        file.write_bytes(half if harm == "truncated" else other)
    found = {"truncated": "30 rows .* found 15 rows", "altered": "30 rows .* found 30 rows", "missing": "download it"}
    with pytest.raises(FileNotFoundError if harm == "missing" else ValueError, match=f"geometry.test.*{found[harm]}"):
        read("math", "test", folder)


# --------------------------------------------------------------------------------------------------- the real files
real = pytest.mark.skipif(not REAL.exists(), reason="the real benchmarks are not at hand (../shared/data)")


@real
@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_real_files_have_the_rows_of_the_table(name, split):
    rows = read(name, split, REAL)
    counted = sum(n for n, _ in benchmarks.SETS[name].splits[split].files.values())
    empty = 2 if (name, split) == ("math", "train") else 0
    assert len(rows) == counted - empty == len({row["id"] for row in rows})
    assert all(tuple(row) == SCHEMA and all(isinstance(v, str) and v for v in row.values()) for row in rows)
    if name in ("gsm8k", "svamp", "multiarith"):
        assert all(re.fullmatch(r"-?\d+(\.\d+)?", row["answer"]) for row in rows)
    for row in rows:
        assert same_answer(extract_answer(rf"So it is $\boxed{{{row['answer']}}}$."), row["answer"]), row["id"]


@real
def test_real_flaws_are_as_many_as_known():
    counts = {
        f"{name}/{split}": [len(ids) for ids in benchmarks.known_flaws(name, split, REAL).values()]
        for name, split in SPLITS
    }
    assert counts["math/train"] == [2, 2] and counts["math/test"] == [0, 0]
    assert counts["minerva_math/test"] == [58, 1]
    assert counts["olympiadbench/test"] == [19, 1, 94, 8, 1]


@real
def test_real_golds_of_math_agree_with_those_of_math500():
    solutions = {row["question"]: row["answer"] for row in read("math", "test", REAL)}
    assert all(solutions[row["question"]] == row["answer"] for row in read("math500", "test", REAL))
