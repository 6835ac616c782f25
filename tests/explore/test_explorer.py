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
from mgrpo_lib.explore.explorer import LONGEST, TRANSITIONS, VIEW, Attempts, Explorer, _Panel, explore, group_html
from mgrpo_lib.method.prompts import PHRASES
from mgrpo_lib.report.statistics import group_advantages

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
def test_transitions_counted_are_those_of_the_table(profile):
    explorer = explore(profile)
    summary = store.read_json(ROOT / "results" / profile / "summary.json")
    assert explorer.runs.keys() == {(run["arm"], run["seed"]) for run in summary["runs"].values()}
    for row in summary["rows"]:
        seeds = row["seeds"] or [None]
        counts = [explorer.counts(row["arm"], seed, row["benchmark"]) for seed in seeds]
        share = {name: sum(count[name] for count in counts) / (len(seeds) * row["n"]) for name in TRANSITIONS}
        assert share["wrong to right"] == pytest.approx(row["i_to_c"])
        assert share["right to wrong"] == pytest.approx(row["c_to_i"])
        assert share["kept right"] == pytest.approx(row["acc_t1"] - row["c_to_i"])
        assert sum(share.values()) == pytest.approx(1)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_run_is_shown_with_the_texts_of_its_records(profile):
    explorer = explore(profile)
    for (arm, seed), manifest in explorer.runs.items():
        record = store.read_jsonl(manifest.with_suffix(".jsonl.gz"))[-1]
        page = Tags(explorer.page(arm, seed, record))
        for needed in (record["question"], record["text_1"], record["text_2"], record["gold"], PHRASES[0]):
            assert words(needed) in words(page.text)
        said = "no answer" if record["answer_1"] is None else f"answer {record['answer_1']}"
        assert f"attempt 1 {said}, {'right' if record['correct_1'] else 'wrong'}" in page.text
        assert page.tags <= {"div", "b", "span", "pre", "ins", "del", "i", "p", "details", "summary", "table", "thead", "tbody", "tr", "th", "td", "sub", "sup"}  # fmt: skip


def test_what_is_shown_first_can_be_chosen():
    assert (explore("cpu").arm, explore("cpu").benchmark) == ("mgrpo", "blanks"), "where most is mended"
    chosen = explore(ROOT / "results" / "cpu", "grpo", 12, "chains", "right to wrong")
    page = Tags(chosen._repr_html_())
    count = chosen.counts("grpo", 12, "chains")["right to wrong"]
    assert count > 0 and f"chains, right to wrong: {min(count, 10)} of {count}" in page.text
    assert page.text.count("attempt 2 answer") == min(count, 10) and "kept right:" not in page.text
    assert "right to wrong:\nquestion" in repr(chosen)
    for wrong in ({"arm": "grop"}, {"seed": 99}, {"benchmark": "chain"}, {"transition": "mended"}):
        with pytest.raises(ValueError, match=f"no {next(iter(wrong))} .* in these results; (did you mean|valid)"):
            explore("cpu", **wrong)
    with pytest.raises(FileNotFoundError, match="did you mean 'cpu'"):
        explore("cpus")


def test_samples_are_a_group_with_its_advantages():
    explorer = explore("cpu")
    record = explorer.select("mgrpo", 10, "chains", "wrong to right")[0]
    group = explorer.group("mgrpo", 10, record)
    page = Tags(group_html(group)).text
    for right, advantage in zip(group["correct_1"], group_advantages([group["correct_1"]])[0], strict=True):
        assert f"{right:d}{advantage:+.2f}" in page
    assert "Ai = (ri − mean(r)) / (std(r) + 10−4)" in page
    later = explorer.select("mgrpo", 10, "blanks", "wrong to right")[-1]  # only the first problems are sampled
    for place, one in ((explorer, later), (explore("smollm2"), explore("smollm2").records("mgrpo", 0)[0])):
        shown = place.page("mgrpo", one is later and 10 or 0, one)
        assert "no group, so no advantages" in shown and "advantage A" not in shown


def test_hostile_text_is_escaped_and_cut():
    attempts = [{"text": HOSTILE, **RIGHT}, {"text": HOSTILE + " more " + "<b>" * 400_000, **RIGHT, "answer": HOSTILE}]
    shown = Attempts(HOSTILE, attempts, HOSTILE, HOSTILE)
    page = Tags(shown._repr_html_())
    assert page.tags == {"div", "b", "span", "pre", "i", "ins"} and page.attributes == {"style", "class"}
    assert page.text.count("<script>alert(1)</script><img src=x") == 6, "readable, as text"
    left = len(attempts[1]["text"]) - LONGEST
    for text in (shown._repr_html_(), repr(shown)):
        assert len(text) < 60_000 and f"(cut here: {left:,} more characters)" in text
        assert "\x1b" not in text and "\u202e" not in text
    assert "tex2jax_ignore mathjax_ignore" in shown._repr_html_(), "nothing in it is typeset"


def test_a_hostile_results_folder_is_escaped(tmp_path):
    record = {"benchmark": HOSTILE, "id": HOSTILE, "question": HOSTILE, "gold": HOSTILE}
    record |= {
        f"{name}_{k}": value for k in (1, 2) for name, value in {"text": HOSTILE, **RIGHT, "answer": HOSTILE}.items()
    }
    store.write_records(tmp_path / "records" / "x.json", "key", [record], arm=HOSTILE, seed=0)
    sampled = {"answer_1": [HOSTILE, None], "correct_1": [True, False], "tokens_1": [1, 2]}
    sampled |= {"answer_2": [None, HOSTILE], "correct_2": [True, False]}
    store.write_records(
        tmp_path / "samples" / "x.json", "key", [{"benchmark": HOSTILE, "id": HOSTILE, **sampled}], arm=HOSTILE
    )
    explorer = explore(tmp_path)
    for page in (explorer._repr_html_(), _Panel(explorer).page.value, _Panel(explorer).counts.value):
        assert not Tags(page).tags & {"script", "img"} and HOSTILE[:20] in Tags(page).text
    assert explorer.phrase is None, "without a summary it is not known, and none is invented"


def test_records_that_are_not_those_of_their_manifest_are_refused(tmp_path):
    shutil.copytree(ROOT / "results" / "smollm2_nf4" / "records", tmp_path / "records")
    manifest = store.read_json(tmp_path / "records" / "base.json")
    store.write_json(tmp_path / "records" / "base.json", {**manifest, "digest": "0"})
    with pytest.raises(ValueError, match="are not those of their manifest"):
        explore(tmp_path, arm="base")


def test_marks_show_what_was_given_up_and_what_is_new():
    first, second, third = ({**RIGHT, "text": text} for text in ("5b5*3=8", "5b5*3=5", "5b5*3=5"))
    page = Attempts("q", [first, second, third])._repr_html_()
    assert re.findall(r"<del[^>]*>(.*?)</del>", page) == ["8"] and re.findall(r"<ins[^>]*>(.*?)</ins>", page) == ["5"]
    assert page.count("the same text as before") == 1
    assert "right" not in repr(Attempts("q", [{**RIGHT, "correct": None, "text": "t"}])), "no gold answer, no verdict"


def test_widgets_page_through_the_records():
    explorer = explore("cpu")
    panel = _Panel(explorer)
    records = explorer.select("mgrpo", 10, "blanks", "wrong to right")
    assert panel.page.value == explorer.page("mgrpo", 10, records[0]) and panel.total.value == f"of {len(records)}"
    panel.turn(1)
    assert panel.page.value == explorer.page("mgrpo", 10, records[1])
    panel.turn(-5)
    assert panel.number.value == 1
    panel.transition.value = "right to wrong"
    assert "No problem made this transition" in panel.page.value
    panel.arm.value = "base"
    assert panel.place() == ("base", None) and panel.seed.label == "-" and panel.benchmark.value == "blanks"
    panel.transition.value = "stayed wrong"
    assert panel.page.value == explorer.page("base", None, explorer.select("base", None, "blanks", "stayed wrong")[0])
    panel.arm.value = "grpo"
    panel.seed.value = 14
    panel.benchmark.value = "chains"
    assert panel.page.value == explorer.page("grpo", 14, explorer.select("grpo", 14, "chains", "stayed wrong")[0])
    assert [label for label, _ in panel.transition.options] == [
        f"{name} ({count})" for name, count in explorer.counts("grpo", 14, "chains").items()
    ]


def test_an_output_holds_widgets_and_the_page_for_viewers_without(monkeypatch):
    explorer = explore("cpu")
    bundle = explorer._repr_mimebundle_()
    assert bundle[VIEW]["model_id"] and bundle["text/html"] == explorer._repr_html_()
    json.dumps(bundle)
    assert VIEW not in explore("cpu", widgets=False)._repr_mimebundle_()
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


def test_records_are_those_that_the_explorer_names():
    explorer = Explorer("smollm2")
    assert explorer.records("mgrpo", 0) == store.read_jsonl(
        ROOT / "results" / "smollm2" / "records" / "mgrpo-seed0.jsonl.gz"
    )
