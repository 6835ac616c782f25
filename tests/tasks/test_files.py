"""A file of one's own is read as it is written, or refused with the place and the fix."""

import gzip
import io
import json
import zipfile

import pytest

from mgrpo_lib.tasks.files import load_file
from mgrpo_lib.tasks.schema import SCHEMA
from tests.tasks.made_up import lines, own


def test_files_of_all_kinds_give_the_same_rows(tmp_path):
    rows = [{"question": "How much is 1 + 1?", "answer": 2, "id": "x"}, {"question": "One,\ntwo?", "answer": "3"}]
    (tmp_path / "my.json").write_text(json.dumps(rows))
    (tmp_path / "my.jsonl").write_bytes(b"\n" + lines(rows) + b"\n")
    csv = '\ufeffid,question,answer\nx,How much is 1 + 1?,2\n,"One,\ntwo?",3\n'
    (tmp_path / "my.csv").write_text(csv, encoding="utf-8")
    (tmp_path / "my.JSONL").write_bytes(lines(rows))
    found = {kind: load_file(tmp_path / f"my.{kind}") for kind in ("json", "jsonl", "csv", "JSONL")}
    for kind, read in found.items():
        assert [(row["question"], row["answer"]) for row in read] == [("How much is 1 + 1?", "2"), ("One,\ntwo?", "3")]
        assert all(tuple(row) == SCHEMA and row["source"] == f"my.{kind}" for row in read)
        assert [row["id"] for row in read] == [row["id"] for row in found["json"]] and read[0]["id"] == "my-x"


@pytest.mark.parametrize("text", ["007", "1.50", "-0", "1e3", "12345678901234567890123", "NA", "null", "True", "1_000"])
def test_an_answer_stays_the_text_that_it_is(tmp_path, text):
    (tmp_path / "my.csv").write_text(f"question,answer\na,{text}\n")
    assert [row["answer"] for row in load_file(tmp_path / "my.csv")] == [text]
    assert load_file(own(tmp_path / "my.jsonl", [{"question": "a", "answer": text}]))[0]["answer"] == text
    if text[-1].isdigit() and text not in ("007", "1_000"):  # those are no JSON numbers
        (tmp_path / "my.jsonl").write_text(f'{{"question": "a", "answer": {text}}}')
        assert load_file(tmp_path / "my.jsonl")[0]["answer"] == text


@pytest.mark.parametrize("text", ["question,answer\na,1,\n", "question,answer,\na,1\n", "question,answer,\na,1,\n"])
def test_empty_cells_at_the_end_of_a_csv_are_ignored(tmp_path, text):
    (tmp_path / "my.csv").write_text(text)
    (row,) = load_file(tmp_path / "my.csv")
    assert (row["question"], row["answer"]) == ("a", "1")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("my.csv", b'question, answer\n"a, b", "4"\n'),
        ("my.csv", b'question,\tanswer\n"a, b",\t4\n'),
        ("my.csv", b'\xef\xbb\xbf\xef\xbb\xbfquestion,answer\n"a, b",4\n'),
        ("my.csv", b'\nquestion,answer,,\n"a, b",4,,\n\n'),
        ("my.csv", b'question,answer\r"a, b",4\r'),
        ("my.jsonl", b'\xef\xbb\xbf{"question ": "a, b", " answer": 4}\n'),
        ("my.jsonl", b'\n\xef\xbb\xbf{"question": "a, b", "answer": 4}\n'),
        ("my.json", '[{"\ufeffquestion": "a, b", "answer": 4}]'.encode()),
    ],
)
def test_blanks_and_marks_around_names_and_cells_do_not_count(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    (row,) = load_file(tmp_path / name)
    assert (row["question"], row["answer"]) == ("a, b", "4")


def test_rows_and_ids_that_come_twice_are_told_apart(tmp_path):
    rows = [{"question": f"Question {i % 3}?", "answer": "1", "id": "same"} for i in range(4)]
    ids = [row["id"] for row in load_file(own(tmp_path / "my.jsonl", rows))]
    assert ids == ["my-same", "my-same#2", "my-same#3", "my-same#4"]
    unnamed = [{"question": f"Question {i}?", "answer": "1"} for i in (1, 2)]
    forward, backward = (load_file(own(tmp_path / "my.jsonl", part)) for part in (unnamed, unnamed[::-1]))
    assert forward == backward[::-1], "an id does not depend on the position"


GOOD = '{"question": "a", "answer": "1"}\n'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("my.jsonl", "", "no rows"),
        ("my.csv", "", "no rows"),
        ("my.csv", "question,answer\n", "no rows"),
        ("my.json", "[]", "no rows"),
        ("my.jsonl", GOOD + '{"question": "b", \n', "line 2 "),
        ("my.json", "[", "line 1 column"),
        ("my.json", GOOD, "jsonl"),
        ("my.jsonl", GOOD + "[1]\n", "line 2 "),
        ("my.csv", "prompt,solution\na,1\n", "'question'; it has prompt, solution"),
        ("my.jsonl", '{"question": "b", "anser": 1}', "line 1: .*'answer'; it has question, anser"),
        ("my.csv", "question;answer\na;1,5\n", "';'.* commas"),
        ("my.csv", "question\tanswer\na\t1\n", r"'\\t'.* commas"),
        ("my.csv", "question,answer\na,1\nb,\n", "line 3: answer is empty"),
        (
            "my.csv",
            "question,answer\na,1\nWhat is 1, 2 or 3?,1\n",
            r"line 3 .*'What is 1', ' 2 or 3\?', '1'.*double quotes",
        ),
        ("my.csv", "question,answer,\nWhat is 1, 2 or 3?,1\n", "line 2 .*double quotes"),
        ("my.csv", "question,answer\na\n", r"line 2 has the cells \['a'\]"),
        ("my.csv", "id,question,answer,solution\na,1,so\n", "fill in what is missing"),
        ("my.csv", 'question,answer\n"a,1\n', "my.csv cannot be read"),
        ("my.jsonl", '{"question": "b", "answer": NaN}', "line 1: answer is empty"),
        ("my.json", '[{"question": NaN, "answer": 1}]', "row 1: question is empty"),
        ("my.jsonl", GOOD + '\n{"question": "  ", "answer": 1}', "line 3: question is empty"),
        ("my.jsonl", '{"question": "b", "answer": null}', "line 1: answer is empty"),
        ("my.jsonl", '{"question": "b", "answer": ["1"]}', r"answer is \['1'\]; write it as text"),
        ("my.jsonl", '{"question": {"a": 1}, "answer": "1"}', "question is .*; write it as text"),
        ("my.jsonl", '{"question": "b", "answer": true}', "answer is True; write it as text"),
        ("my.txt", GOOD, r"\.jsonl, \.json, \.csv"),
        ("my.tsv", GOOD, r"\.jsonl, \.json, \.csv"),
        ("my.json", "", "no rows; write"),
        ("my.jsonl", "\n \n", "no rows; write"),
        ("my.csv", "sep=,\nquestion,answer\na,1\n", "'sep=,'; delete"),
        ("my.csv", '"sep=;"\nquestion;answer\na;1\n', "sep=;.* delete .*commas in place of ';'"),
        ("my.csv", ",question,answer\n0,a,1\n", "column 1 of 3 has no name; name it, or leave it out"),
        ("my.csv", "question,,answer\na,x,1\n", "column 2 of 3 has no name"),
        ("my.csv", "question,answer,answer\na,1,2\n", "two columns are called 'answer'; rename"),
        ("my.csv", "question,answer\na,\frac12\n", r"line 2: answer .*x0c.*: \\frac"),
        ("my.csv", "question,answer\n5\text{ cm}?,1\n", r"line 2: question .*t'.*: \\frac"),
    ],
)
def test_an_unusable_file_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_file(tmp_path / name)
    assert name in str(caught.value)


ONE_BACKSLASH = [
    ("answer", r"\frac{1}{2}", "x0c"),
    ("answer", r"\theta", "t'"),
    ("answer", r"2\rho", "r'"),
    ("answer", r"\nu", "n'"),
    ("answer", r"\beta", "x08"),
    ("question", r"Write \boxed{x}.", "x08"),
    ("question", r"3\times 4?", "t'"),
    ("question", r"Is x\neq 3?", "n'"),
    ("question", r"(1\right)?", "r'"),
    ("question", r"\ud83d?", "ud83d"),
    ("solution", r"\frac12", "x0c"),
    ("question", r"\sqrt{4}?", "escape"),
    ("answer", r"\underline{4}", "escape"),
]


@pytest.mark.parametrize(("column", "text", "sign"), ONE_BACKSLASH)
@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_json_with_one_backslash_is_refused_with_row_and_fix(tmp_path, kind, column, text, sign):
    row = {"question": "a", "answer": "1", column: "TEXT"}
    bad = json.dumps(row).replace("TEXT", text)
    file, place = tmp_path / f"my.{kind}", {"jsonl": "line 2", "json": "" if sign == "escape" else "row 2"}[kind]
    for content, refused in ((bad, True), (bad.replace("\\", "\\\\"), False)):
        file.write_text(GOOD + content if kind == "jsonl" else f"[{GOOD}, {content}]")
        if refused:
            with pytest.raises(ValueError, match=rf"{place}.*{sign}.*backslash twice"):
                load_file(file)
        else:
            assert load_file(file)[1][column] == text


def test_lines_and_tables_in_a_question_are_no_torn_commands(tmp_path):
    question = "Two lines:\nu and v\n\t- a list\nequal parts\r\nname\tage"
    file = own(tmp_path / "my.jsonl", [{"question": question, "answer": "She has 3.\nu is 4.\n#### 7"}])
    assert load_file(file)[0]["question"] == question


def zipped(text: str) -> bytes:
    with io.BytesIO() as raw:
        with zipfile.ZipFile(raw, "w") as archive:
            archive.writestr("my.csv", text)
        return raw.getvalue()


@pytest.mark.parametrize("name", ["my.jsonl.gz", "my.zip", "my.csv.bz2", "my.jsonl", "my.csv"])
def test_a_packed_file_and_a_folder_are_refused(tmp_path, name):
    content = GOOD if "json" in name else "question,answer\na,1\n"
    (tmp_path / name).write_bytes(gzip.compress(content.encode()) if "json" in name else zipped(content))
    with pytest.raises(ValueError, match=f"{name}.*unpack"):
        load_file(tmp_path / name)
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(ValueError, match="folder.jsonl is a folder; give the path"):
        load_file(tmp_path / "folder.jsonl")


def test_a_missing_or_binary_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"my\.csv"):
        load_file(tmp_path / "my.csv")
    for encoding in ("latin-1", "utf-16"):
        (tmp_path / "my.csv").write_text("question,answer\nWie weit ist Köln?,1\n", encoding=encoding)
        with pytest.raises(ValueError, match="my.csv .*UTF-8"):
            load_file(tmp_path / "my.csv")
