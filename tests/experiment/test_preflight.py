"""Preflight of language models: what its records and page say, and what it says of a model or file that it cannot use."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from mgrpo_lib import __main__
from mgrpo_lib.experiment import keys, store
from mgrpo_lib.experiment import preflight as sampling
from mgrpo_lib.experiment.preflight import manifest_of
from mgrpo_lib.experiment.settings import ROOT, load_config
from mgrpo_lib.report import pages
from mgrpo_lib.report.forecast import committed, hypotheses, known, took_off
from mgrpo_lib.report.preflight import aims, facts, sign, take_off
from mgrpo_lib.report.statistics import accuracy_interval
from mgrpo_lib.report.theory import NEVER
from tests.experiment.test_own_model import problems_file
from tests.method import chat

SMALL = ("max_completion_length=12", "num_generations=2", "num_corrections=2", "system_prompt=Add.")


@pytest.fixture
def preflight(tmp_path, monkeypatch, capsys):
    """Run the command on a chat model and a file; return its exit status, what it printed, and its errors."""

    def preflight(data=None, tokenizer=None, batch=64, **sizes):
        model = chat.make_folder(tmp_path / "chat", tokenizer, **sizes)
        data = data or problems_file(tmp_path / "mine.jsonl", 4)
        given = ["preflight", "--out", str(tmp_path), "--model", model, "--data", str(data), "--set", *SMALL]
        given.append(f"eval_batch_size={batch}")
        monkeypatch.setattr("sys.argv", ["mgrpo_lib", *given])
        capsys.readouterr()
        return __main__.main(), *capsys.readouterr()

    return preflight


def test_a_model_that_never_boxes_is_told_how_to(preflight, tmp_path):
    status, printed, _ = preflight()
    assert status == 0 and all(fix in printed for fix in ("system_prompt", "sft_steps"))
    cfg = load_config("own", arm="base", model=str(tmp_path / "chat"), output_root=str(tmp_path))
    assert manifest_of(cfg, "mine").exists() and "no chat template" not in printed


def test_a_missing_chat_template_is_said(preflight):
    status, printed, _ = preflight(tokenizer=chat.make_tokenizer(None))
    (note,) = (line for line in printed.splitlines() if "chat template" in line)
    assert status == 0 and "tokenizer_config.json" in note


def test_a_context_without_room_for_draft_and_correction_is_refused(preflight):
    status, _, error = preflight(context=150)
    assert status == 2 and "max_completion_length" in error and error.count("\n") == 1


def test_attempts_of_a_base_model_alone_become_a_table_without_their_texts(tmp_path, monkeypatch, capsys):
    cfg = load_config("qwen_real", arm="base", output_root=str(tmp_path))
    monkeypatch.setattr("sys.argv", ["mgrpo_lib", "figures", "--profile", "qwen_real", "--out", str(tmp_path)])
    assert __main__.main() == 2 and "records" in capsys.readouterr().err
    store.write_json(cfg.manifest("run"), {"key": keys.run_key(cfg), "environment": store.environment()})
    boxed, right = [True, True, False, False], [[False, True, True, False], [True, True, True, False]]
    attempts = [
        {"benchmark": "gsm8k", "id": f"{i}"}
        | {f"text_{k}": r"\boxed{1}" if boxed[i] else "1" for k in (1, 2)}
        | {f"answer_{k}": "1" if i < 3 else None for k in (1, 2)}
        | {f"correct_{k}": right[k - 1][i] for k in (1, 2)}
        | {f"truncated_{k}": i == 3 for k in (1, 2)}
        for i in range(4)
    ]
    store.write_records(cfg.manifest("records"), keys.evaluation_key(cfg), attempts)
    control = {
        "benchmark": "gsm8k",
        "arm": "base",
        "condition": "no_draft",
        "text": "1",
        "answer": "1",
        "truncated": False,
    }
    controls = [control | {"id": f"{i}", "correct": i == 0} for i in range(4)]
    store.write_records(cfg.results / "controls" / "base.json", keys.controls_key(cfg), controls)
    assert __main__.main() == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| gsm8k")]
    first, second, no_draft = [[cell.strip() for cell in line.split("|")[2:-1]] for line in lines]
    assert [first[0], first[2], *first[4:]] == ["attempt 1", "25.0", "50.0", "25.0", "-"] and first[3].startswith(
        "50.0 ["
    )
    assert second[2] == "50.0" and second[6].startswith("+25.0 [") and second[6].endswith("from attempt 1")
    assert no_draft[2] == "0.0" and no_draft[6].startswith("-50.0 [")
    kept = store.read_records(cfg.results / "base.json", keys.controls_key(cfg))
    assert len(kept) == 12 and not any("text" in row for row in kept)


def test_a_stopped_preflight_keeps_what_it_did(preflight, tmp_path, monkeypatch):
    """With 2 drafts each and batches of 4, two problems are asked at a time."""
    given, real, stop_after, asked = problems_file(tmp_path / "mine.jsonl", 5), sampling.sampled, 2, []

    def sampled(evaluator, rows, *groups):
        if len(asked) == stop_after:
            raise KeyboardInterrupt
        asked.append([row["id"] for row in rows])
        return real(evaluator, rows, *groups)

    monkeypatch.setattr(sampling, "sampled", sampled)
    assert preflight(given, batch=4)[0] == 130 and [len(ids) for ids in asked] == [2, 2]
    stop_after = None
    status, printed, _ = preflight(given, batch=4)
    assert status == 0 and [len(ids) for ids in asked] == [2, 2, 1] and "4 done before" in printed
    (manifest,) = tmp_path.glob("results/own/preflight/*.json")
    stopped = manifest.with_suffix(".jsonl.gz").read_bytes()
    assert store.read_json(manifest)["dtype"] == "float32" and not list(manifest.parent.glob("*.partial"))
    manifest.unlink()
    assert preflight(given, batch=4)[0] == 0 and len(asked) == 6
    assert gzip.decompress(manifest.with_suffix(".jsonl.gz").read_bytes()) == gzip.decompress(stopped)


@pytest.mark.parametrize("content", ["", "\n"])
def test_an_empty_file_is_refused(preflight, tmp_path, content):
    empty = tmp_path / "empty.jsonl"
    empty.write_text(content)
    status, _, error = preflight(empty)
    assert status == 2 and "empty.jsonl" in error and "question" in error and error.count("\n") == 1


def test_a_set_without_training_problems_is_read_from_its_test_split(preflight, monkeypatch):
    asked = []
    monkeypatch.setattr("mgrpo_lib.experiment.preflight.preflight", lambda cfg, name, count: asked.append((cfg, name)))
    monkeypatch.setattr(pages, "write_preflight", lambda *_: Path(__file__))
    assert preflight("svamp")[0] == 0
    ((cfg, name),) = asked
    assert name == "svamp" and cfg.benchmarks == ["svamp"]


# ------------------------------------------------------------------------------------------------------- its numbers
def record(drafts: str, corrections: str) -> dict:
    """A record of completions: r right in a box, p right in prose, w wrong in a box, v wrong in prose, c cut off."""
    made = {"id": "1", "gold": "1"}
    for k, kinds in enumerate((drafts, corrections), 1):
        made[f"correct_{k}"] = [kind in "rp" for kind in kinds]
        made[f"boxed_{k}"] = [kind in "rw" for kind in kinds]
        made[f"answer_{k}"] = [None if kind == "c" else "1" for kind in kinds]
        made[f"truncated_{k}"] = [kind == "c" for kind in kinds]
        made[f"greedy_{k}"] = {name: made[f"{name}_{k}"][0] for name in ("correct", "boxed", "answer", "truncated")}
    return made


def test_scores_tell_format_from_skill():
    found = facts([record("rp", "rr"), record("wc", "pv"), record("vc", "rw"), record("cr", "rr")])
    shares = {name: [cell[0] for cell in cells] for name, cells in found["scores"].items()}
    assert shares["strict"] == [0.25, 0.75, 0.25, 0.625] and shares["lenient"] == [0.25, 1.0, 0.375, 0.75]
    assert shares["boxed"][2] == 0.375 and shares["truncated"][2] == 0.375
    assert shares["answered"][2] == 0.625


def test_to_finish_a_draft_is_no_correction():
    found = facts([record("wr", "ww"), record("wr", "rw"), record("cr", "rr"), record("vr", "rr")])
    assert (found["complete"], found["unfinished"]) == (2, 2)
    assert found["fix"][0] == 0.625 and found["fix_complete"][0] == 0.25 and found["fix_unfinished"][0] == 1
    assert found["dose"] == found["fix_complete"], "what the curve is asked about"


def test_committed_preflights_of_language_models_are_read_from_their_records(tmp_path):
    for profile, model in (("one", "a-model"), ("cpu", "miniature")):
        store.write_json(
            tmp_path / profile / "runs" / "base" / "run.json", {"params": {"model": model, "sft_steps": 0}}
        )
        records = [{**record("wr", kinds), "tokens_1": [3, 4], "tokens_2": [5, 9]} for kinds in ("rw", "ww")]
        store.write_records(tmp_path / profile / "preflight" / "base-my-set.json", "key", records, dtype="float32")
    (row,) = committed(tmp_path)
    assert (row["model"], row["dtype"], row["set"], row["tokens"]) == ("a-model", "float32", "my-set", 9)
    assert row["found"]["fix"][0] == 0.25 and row["steps"] == take_off(row["found"]["fix"])["Adam"]
    assert (row["aim"], row["look"], row["sft_steps"]) == (0, 0, 0)


def test_the_balance_counts_fixes_and_breaks_of_all_first_drafts():
    found = facts([record("wr", "rw"), record("rw", "ww"), record("rw", "rw"), record("wr", "ww")])
    assert found["balance"][0] == (0.5 - 1 - 0.5 + 0) / 4 and found["broken"][0] == 0.75
    assert sign(found["balance"], 0.04) == -1 and sign(found["balance"], 0.05) == sign(None, 0.0) == 0


def answers(tries: list[tuple], corrections: list[tuple]) -> dict:
    """A record of answers, each with whether it is right; all are complete."""
    made = {}
    for k, ones in enumerate((tries, corrections), 1):
        made[f"answer_{k}"], made[f"correct_{k}"] = map(list, zip(*ones, strict=True))
    return made


def test_the_aim_is_of_other_answers_alone():
    records = [
        answers([("3", False), ("5", True), ("3", False)], [("5", True), ("3", False), ("4", False), (None, False)]),
        answers([("2", False), ("7", False), (None, False)], [("7", False)] + [("2", False)] * 3),
    ]
    found = aims(records)
    assert (found["changed"][0], found["aim"][0], found["aim_try"][0]) == pytest.approx((3 / 8, 1 / 3, 1 / 2))
    assert found["aim_minus_try"][0] == pytest.approx(1 / 3 - 1 / 2)
    alone = aims(records[:1])
    assert alone["aim"] is alone["aim_minus_try"] is None and alone["p_aim"] == 1


def test_the_interval_of_the_aim_covers_the_true_one():
    """1,000 simulated models: problems differ in how often a correction changes the draft, and in how often it is right then."""
    rng, inside, both = np.random.default_rng(0), 0, 0
    for _ in range(1000):
        changes, skill, luck = rng.beta(0.5, 4.5, 200), rng.beta(6, 4, 200), rng.beta(2, 8, 200)
        corrections = [
            [("5", bool(right)) if changed else ("0", False) for changed, right in zip(*pair, strict=True)]
            for pair in zip(rng.random((200, 4)) < changes[:, None], rng.random((200, 4)) < skill[:, None], strict=True)
        ]
        tries = [
            [("0", False), *(("5", bool(right)) for right in each)] for each in rng.random((200, 3)) < luck[:, None]
        ]
        found = aims([answers(*pair) for pair in zip(tries, corrections, strict=True)])
        (low, high), (low_difference, high_difference) = found["aim"][1], found["aim_minus_try"][1]
        inside += low <= 0.6 <= high
        both += low_difference <= 0.4 <= high_difference
    assert inside >= 930 and both >= 930


def test_only_shares_of_several_samples_have_an_uncertain_standard_error():
    found = facts([record("wr", "ww"), *[record("rr", "rr")] * 49])
    assert found["scores"]["lenient"][0] == (0.98, accuracy_interval([0] + [1] * 49))
    assert found["scores"]["lenient"][2][1] == accuracy_interval([0.5] + [1] * 49, rare=True)


@pytest.mark.parametrize(
    "verdict, d6", [("gain", "refuted"), ("no gain of 2 points or more", "supported"), ("undecided", "undecided")]
)
@pytest.mark.parametrize(
    "steps, d7", [([None] * 3, "supported"), ([None, 6, None], "undecided"), ([0, 6, None], "refuted")]
)
def test_the_hypotheses_of_balance_are_answered_as_planned(verdict, d6, steps, d7):
    rows = [{"base": "break_05", "verdict": verdict}, {"base": "guess_05", "took_off": steps}]
    assert hypotheses(rows) == {"D6": d6, "D7": d7}


def test_the_miniature_took_off_where_changes_are_aimed_and_not_elsewhere():
    rows = known()
    assert {took_off(row) for row in rows} == {True, False}
    for row in rows:
        outcome = took_off(row)
        aimed = sign(row["found"]["aim_minus_try"], row["found"]["p_aim"]) > 0
        assert aimed == outcome, (row["base"], row["set"])
        if row["base"] == "shipped" and row["set"] != "blanks":
            assert row["steps"][0] < row["budget"] and not outcome, "the curve alone foretold it"


def test_committed_pages_say_what_the_tables_of_the_site_say():
    for row in committed():
        texts = [page.read_text(encoding="utf-8") for page in ROOT.glob(f"results/*/preflight/base-{row['set']}.md")]
        (page,) = (text for text in texts if text.startswith(f"# Preflight of {row['model']} on"))
        if row["steps"]:
            assert f"curve: {pages.take_off(row['steps'], row['found']['dose'])}" in page


def test_take_off_is_told_also_of_the_first_step_and_of_no_fixed_draft():
    assert pages.take_off([0, 3, 0], (0.5, (0.4, 0.6))) == "0 (0 to 3)"
    assert pages.take_off([9, 14, 5], (0.1, (0.05, 0.2))) == "9 (5 to 14)"
    assert pages.take_off([14000, 14000, 29], (0.0, (0.0, 0.2))) == "29 or more, or never"
    assert pages.take_off([9, None, 5], (0.1, (0.0, 0.2))).endswith(f"more than {NEVER:,})")
