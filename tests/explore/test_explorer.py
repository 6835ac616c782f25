"""The explorer: it shows every committed record as it is, counts as the tables do, and trusts no text."""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from mgrpo_lib.experiment import store
from mgrpo_lib.experiment.settings import ROOT
from mgrpo_lib.explore.explorer import (
    LONGEST,
    TRANSITIONS,
    VIEW,
    Attempts,
    explore,
    group_html,
    side_by_side,
    work_of,
)
from mgrpo_lib.explore.panel import Panel
from mgrpo_lib.method.prompts import PHRASES

RESULTS = ROOT / "results"
PROFILES = ["cpu", "ablation", "smollm2", "smollm2_nf4", "smollm2_gpu"]
HOSTILE = (
    '<script>alert(1)</script><img src=x onerror="alert(2)">\x1b[31m\u202e&amp; </pre></div>$$\\href{javascript:x}{y}$$'
)
RIGHT = {"answer": "1", "correct": True, "tokens": 3, "truncated": False}


class Tags(HTMLParser):
    """The tags of a page, their attributes, and its text."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.attributes, self.text, self.open = set(), set(), "", []
        self.feed(page)
        assert not self.open, "every tag is closed"

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}
        self.open += [tag] if tag != "hr" else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.committed
@pytest.mark.parametrize("profile", PROFILES)
def test_transitions_counted_are_those_of_the_summary(profile):
    explorer = explore(RESULTS / profile)
    summary = store.read_json(RESULTS / profile / "summary.json")
    assert explorer.runs.keys() == {(run["arm"], run["seed"]) for run in summary["runs"].values()}
    for row in summary["rows"]:
        counts = [explorer.counts((row["arm"], seed), row["benchmark"]) for seed in row["seeds"] or [None]]
        share = {name: sum(count[name] for count in counts) / (len(counts) * row["n"]) for name in TRANSITIONS}
        expected = [row["i_to_c"], row["c_to_i"], row["acc_t1"] - row["c_to_i"]]
        assert list(share.values())[:3] == pytest.approx(expected) and sum(share.values()) == pytest.approx(1)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_run_is_shown_with_the_texts_of_its_records(profile):
    explorer = explore(RESULTS / profile)
    for run, manifest in explorer.runs.items():
        record = store.read_jsonl(manifest.with_suffix(".jsonl.gz"))[-1]
        page = Tags(explorer.page(run, record))
        works = [work_of(record["text_1"]), work_of(record["text_2"])]
        for needed in (record["question"], *works, record["gold"], PHRASES[0]):
            assert words(needed) in words(page.text)
        said = "no answer" if record["answer_1"] is None else f"answer {record['answer_1']}"
        assert f"attempt 1 {said}, {'right' if record['correct_1'] else 'wrong'}" in page.text


def test_what_is_shown_first_can_be_chosen():
    assert explore("cpu").folder in (ROOT / "out" / "results" / "cpu", RESULTS / "cpu")
    first = explore(RESULTS / "cpu")
    assert (first.run, first.benchmark) == (("mgrpo", 10), "blanks"), "where most is fixed"
    chosen = explore(RESULTS / "cpu", "grpo", 12, "chains", "right to wrong")
    page = Tags(chosen._repr_html_())
    count = chosen.counts(("grpo", 12), "chains")["right to wrong"]
    assert count > 0 and f"chains, right to wrong: {min(count, 10)} of {count}" in page.text
    assert page.text.count("attempt 2 answer") == min(count, 10) and "kept right:" not in page.text
    assert "right to wrong:\nquestion" in repr(chosen)


@pytest.mark.parametrize("wrong", [{"arm": "grop"}, {"seed": 99}, {"benchmark": "chain"}, {"transition": "fixed"}])
def test_what_is_not_there_is_refused(wrong):
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"{name} {value!r}"):
        explore(RESULTS / "cpu", **wrong)


def test_a_missing_folder_and_records_of_another_manifest_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="'cpu'"):
        explore("cpus")
    shutil.copytree(RESULTS / "smollm2_nf4" / "records", tmp_path / "records")
    manifest = store.read_json(tmp_path / "records" / "base.json")
    store.write_json(tmp_path / "records" / "base.json", {**manifest, "digest": "0"})
    with pytest.raises(ValueError, match="base"):
        explore(tmp_path, arm="base")


def test_samples_are_a_group_with_its_advantages():
    group = {"answer_1": ["5", None, "6", "6"], "correct_1": [True, False, False, False], "tokens_1": [1, 2, 3, 4]}
    rows = re.findall(r"<tr>(.*?)</tr>", group_html({**group, "answer_2": ["5"] * 4, "correct_2": [True] * 4}), re.S)
    assert [re.findall(r"<td>(.*?)</td>", row)[:3] for row in rows] == [
        ["5", "1", "+1.50"], ["-", "0", "-0.50"], ["6", "0", "-0.50"], ["6", "0", "-0.50"]
    ]  # fmt: skip
    explorer = explore(RESULTS / "cpu")
    shown = explorer.page(explorer.run, explorer.select(explorer.run, "chains", "wrong to right")[0])
    assert "advantage A" in shown
    later = explorer.select(explorer.run, "blanks", "wrong to right")[-1]  # only the first problems are sampled
    assert "no group" in explorer.page(explorer.run, later)


@pytest.mark.parametrize(
    "text, work",
    [
        ("34 + 9 = 43\n\\boxed{43}", "34 + 9 = 43"),
        ("so it is $\\boxed{\\frac{1}{2}}$.", "so it is"),
        ("\\boxed{1} or \\boxed{2}, I think", "\\boxed{1} or \\boxed{2}, I think"),  # nothing after the box is hidden
        ("<think>5b5*3=", "5b5*3="),
    ],
)
def test_work_and_answer_are_apart(text, work):
    assert work_of(text) == work


def test_records_side_by_side():
    record = {"question": "q", "gold": "5", "text_1": "<think>2+2=4</think>\\boxed{4}", "answer_1": "4"}
    record |= {"text_2": "<think>2+3=5</think>\\boxed{5}", "answer_2": "5", "correct_1": False, "correct_2": True}
    page = side_by_side([record, {**record, "question": HOSTILE, "text_2": HOSTILE, "answer_2": None}]).data
    rows = re.findall(r"<tr>(.*?)</tr>", page, re.S)
    assert Tags(rows[0]).text.split() == ["q", "5", "2+2=4", "4", "2+3=5", "5"]
    assert re.findall(r"<(del|ins)[^>]*>(.*?)<", rows[0]) == [("del", "2"), ("del", "4"), ("ins", "3"), ("ins", "5")]
    assert not Tags(page).tags & {"script", "img"} and "none" in rows[1]


def test_hostile_text_is_escaped_and_cut():
    attempts = [{"text": HOSTILE, **RIGHT}, {"text": HOSTILE + " more " + "<b>" * 400_000, **RIGHT, "answer": HOSTILE}]
    shown = Attempts(HOSTILE, attempts, HOSTILE, HOSTILE)
    page = Tags(shown._repr_html_())
    assert page.tags == {"div", "b", "span", "pre", "ins"} and page.attributes == {"style", "class"}
    assert page.text.count("<script>alert(1)</script><img src=x") == 6, "readable, as text"
    for text in (page.text, repr(shown)):
        assert len(text) < 60_000 and f"{len(attempts[1]['text']) - LONGEST:,} more characters" in text
        assert "\x1b" not in text and "\u202e" not in text
    assert "mathjax_ignore" in shown._repr_html_(), "nothing in it is typeset"


@pytest.mark.parametrize("text", ["1 " * 2000, "a" * 4000, "+-" * 2000])
def test_long_text_that_repeats_itself_is_compared(text):
    """A comparison by difflib took nine minutes."""
    shown = Attempts("q", [{**RIGHT, "text": text}, {**RIGHT, "text": "2" + text}])._repr_html_()
    assert re.findall(r"<ins[^>]*>(.*?)</ins>", shown)[0].startswith("2")


def test_a_hostile_results_folder_is_escaped(tmp_path):
    record = {"benchmark": HOSTILE, "id": HOSTILE, "question": HOSTILE, "gold": HOSTILE}
    attempt = {"text": HOSTILE, **RIGHT, "answer": HOSTILE}
    record |= {f"{name}_{k}": value for k in (1, 2) for name, value in attempt.items()}
    store.write_records(tmp_path / "records" / "x.json", "key", [record], arm=HOSTILE, seed=0)
    sampled = {"answer_1": [HOSTILE, None], "correct_1": [True, False], "tokens_1": [1, 2]}
    sampled |= {"answer_2": [None, HOSTILE], "correct_2": [True, False]}
    store.write_records(
        tmp_path / "samples" / "x.json", "key", [{"benchmark": HOSTILE, "id": HOSTILE, **sampled}], arm=HOSTILE
    )
    explorer = explore(tmp_path)
    for page in (explorer._repr_html_(), Panel(explorer).page.value):
        assert not Tags(page).tags & {"script", "img"} and HOSTILE[:20] in Tags(page).text
    assert "\x1b" not in repr(explorer) and explorer.phrase is None, "an unknown phrase is not invented"


def test_marks_show_what_was_given_up_and_what_is_new():
    first, second, third = ({**RIGHT, "text": text} for text in ("5b5*3=8", "5b5*3=5", "5b5*3=5"))
    page = Attempts("q", [first, second, third])._repr_html_()
    assert re.findall(r"<del[^>]*>(.*?)</del>", page) == ["8"] and re.findall(r"<ins[^>]*>(.*?)</ins>", page) == ["5"]
    assert page.count("the same text as before") == 1
    assert "right" not in repr(Attempts("q", [{**RIGHT, "correct": None, "text": "t"}])), "no gold answer, no verdict"


def test_widgets_page_through_the_records():
    explorer = explore(RESULTS / "cpu")
    panel, run = Panel(explorer), ("mgrpo", 10)
    records = explorer.select(run, "blanks", "wrong to right")
    assert panel.page.value == explorer.page(run, records[0]) and panel.total.value == f"of {len(records)}"
    panel.number.value = 2
    assert panel.page.value == explorer.page(run, records[1])
    for button, shown in ((panel.next, 2), (panel.back, 1), (panel.back, 0), (panel.back, 0)):
        button.click()
        assert panel.page.value == explorer.page(run, records[shown])
    panel.number.value = 10_000
    assert panel.page.value == explorer.page(run, records[-1])
    panel.transition.value = "right to wrong"
    assert "No problem" in panel.page.value and panel.number.value == 1
    panel.transition.value = "stayed wrong"
    for run, benchmark in ((("base", None), "blanks"), (("grpo", 14), "chains")):
        panel.run.value, panel.benchmark.value = run, benchmark
        assert panel.page.value == explorer.page(run, explorer.select(run, benchmark, "stayed wrong")[0])
        counts = explorer.counts(run, benchmark).items()
        assert list(panel.transition.options) == [(f"{name} ({count})", name) for name, count in counts]


def test_an_output_holds_widgets_and_the_page_for_viewers_without(monkeypatch):
    explorer = explore(RESULTS / "cpu")
    bundle = explorer._repr_mimebundle_()
    assert bundle[VIEW]["model_id"] and bundle["text/html"] == explorer._repr_html_()
    json.dumps(bundle)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert explorer._repr_mimebundle_().keys() == {"text/plain", "text/html"}


def test_it_loads_no_torch_and_needs_no_widgets():
    code = (
        "import sys; sys.modules['ipywidgets'] = None\n"
        "from mgrpo_lib.explore.explorer import explore\n"
        "page = explore('cpu'); page._repr_html_(); repr(page)\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
