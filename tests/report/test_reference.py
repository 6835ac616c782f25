"""The committed reference results: made by the committed code, and README shows exactly them."""

import gzip
import json
import re
import shutil
from collections import Counter

import pytest

from mgrpo_lib.experiment import fingerprints, store, versions
from mgrpo_lib.experiment.settings import ROOT, load_config
from mgrpo_lib.report import tables as report
from mgrpo_lib.tasks.miniature import P_FIX

pytestmark = pytest.mark.committed
CFG = load_config("cpu", arm="base")
VARIANTS = load_config("ablation", arm="base")
LLM = load_config("smollm2", arm="base")  # known by its content: the folder is not needed
NF4 = load_config("smollm2_nf4", arm="base")
GPU = load_config("smollm2_gpu", arm="base")
README = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())


def summary_of(cfg):
    return store.read_json(cfg.results / "summary.json")


@pytest.fixture(scope="module")
def summary():
    return summary_of(CFG)


@pytest.fixture(params=[CFG, VARIANTS, LLM, NF4, GPU], ids=lambda cfg: cfg.profile)
def cfg(request):
    return request.param


def test_made_by_this_code_with_these_parameters(cfg):
    summary = summary_of(cfg)
    assert summary["key"] == fingerprints.summary_key(cfg), (
        f"the report's code changed: make figures PROFILE={cfg.profile}"
    )
    for run in fingerprints.all_runs(cfg):
        manifest = store.read_json(run.run_folder / "run.json")
        assert manifest["key"] == fingerprints.run_key(run)
        assert fingerprints.made_with(run.run_folder / "run.json") == versions.CURRENT


def test_tables_and_readme_are_generated_from_it(cfg, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text((ROOT / "README.md").read_text(encoding="utf-8"), encoding="utf-8")
    if cfg.profile in report.REFERENCES:
        assert f"<!-- {report.REFERENCES[cfg.profile]} -->" in readme.read_text(encoding="utf-8")
        assert not report.update_readme(cfg, readme), f"README is not up to date: make figures PROFILE={cfg.profile}"
    tables = report.tables(summary_of(cfg))
    assert {path.stem for path in cfg.results.glob("*.md")} == set(tables), "no table of an older run is left"
    for name, table in tables.items():
        assert (cfg.results / f"{name}.md").read_text(encoding="utf-8") == report.markdown(table)


def test_summary_follows_from_the_committed_records(cfg, tmp_path):
    """Every row, interval and contrast, computed again from the records in another folder."""
    copy = tmp_path / "results" / cfg.profile
    shutil.copytree(cfg.results, copy, ignore=shutil.ignore_patterns("model", "*.ipynb"))
    (copy / "summary.json").unlink()
    again = report.summarise(load_config(cfg.profile, arm="base", output_root=str(tmp_path)))
    assert again == summary_of(cfg)


def test_the_headline_by_an_independent_few_lines(summary):
    """H2 on every benchmark, from the committed lines alone."""

    def lines(name):
        return map(json.loads, gzip.open(CFG.results / "records" / f"{name}.jsonl.gz", "rt", encoding="utf-8"))

    for row in (row for row in summary["hypotheses"] if row["hypothesis"] == "H2"):
        gains = []
        for seed in CFG.seeds:
            ours, theirs = (
                {line["id"]: line["answer_2"] == line["gold"] for line in lines(f"{arm}-seed{seed}") if line["benchmark"] == row["benchmark"]}
                for arm in ("mgrpo", "grpo_matched")
            )  # fmt: skip
            assert len(ours) == CFG.test_problems and ours.keys() == theirs.keys()
            gains += [ours[problem] - theirs[problem] for problem in ours]
        assert row["difference"] == pytest.approx(sum(gains) / len(gains))


def test_every_arm_learnt_and_left_headroom(summary):
    rows = {(row["arm"], row["benchmark"]): row for row in summary["rows"]}
    base = rows["base", "chains"]["acc_t1"]
    assert 0.25 <= base <= 0.60
    for arm in CFG.arms:
        assert len(rows[arm, "chains"]["acc_t1_seeds"]) >= 3
        assert all(accuracy >= base + 0.20 for accuracy in rows[arm, "chains"]["acc_t1_seeds"])
    chains = [benchmark for benchmark in CFG.benchmarks if benchmark != "blanks"]
    assert all(rows[arm, benchmark]["acc_t1"] < 1 for arm in CFG.arms for benchmark in chains)


def test_where_readme_says_it_stands_is_what_the_files_say(summary):
    """Corrections are learnt on the positive control alone, and no first attempt is better."""
    supported = {
        (row["hypothesis"], row["benchmark"]) for row in summary["hypotheses"] if row["verdict"] == "supported"
    }
    assert supported == {("H2", "blanks"), ("H3", "blanks")}
    assert [benchmark for benchmark, controls in summary["not_beaten"].items() if not controls] == ["blanks"]


def test_every_matched_arm_generated_as_many_tokens(cfg):
    """To the nearest step, that is."""
    runs = summary_of(cfg)["runs"]
    for seed in cfg.seeds:
        budget = runs[f"mgrpo-seed{seed}"]["train_tokens"]
        for arm, changes in cfg.arms.items():
            run = runs[f"{arm}-seed{seed}"]
            if "match_tokens_of" in changes:
                assert abs(run["train_tokens"] - budget) <= 0.7 * run["train_tokens"] / run["steps"], (arm, seed)


def test_what_readme_says_of_the_language_model_is_what_the_files_say():
    """On sums every arm is below the base model in the mean, MGRPO surely; from matched tokens it does not differ."""
    summary = summary_of(LLM)
    rows = {(row["arm"], row["benchmark"]): row for row in summary["rows"]}
    assert all(rows[arm, "sums"]["acc_t1"] < rows["base", "sums"]["acc_t1"] for arm in LLM.arms)
    found = {(r["arm"], r["against"], r["benchmark"], r["attempt"]): r["ci"] for r in summary["contrasts"]}
    assert all(found["mgrpo", "base", "sums", k][1] < 0 for k in (1, 2))
    trained = {pair: ci for pair, ci in found.items() if pair[1] != "base"}
    assert len(trained) == 12
    assert [pair for pair, (low, high) in trained.items() if not low <= 0 <= high] == [
        ("mgrpo", "grpo", "sums_story", 2)
    ]
    assert rows["mgrpo", "sums"]["i_to_c"] == rows["mgrpo", "sums"]["c_to_i"] == 0
    assert rows["grpo", "sums_story"]["c_to_i"] > 0 == rows["mgrpo", "sums_story"]["c_to_i"]
    four = {r["benchmark"]: r for r in summary_of(NF4)["contrasts"] if (r["arm"], r["attempt"]) == ("mgrpo_nf4", 1)}
    cells = {name: report.percent(row["difference"], row["ci"], sign=True) for name, row in four.items()}
    assert f"fewer stories ({cells['sums_story']} points; sums {cells['sums']};" in README


def test_what_readme_says_of_the_gpu_runs_is_what_the_files_say():
    """No difference from matched tokens; first attempts at stories gain; layer 2 had nothing to amplify, MGRPO keeps every
    answer; GRPO alone lost steps; what MGRPO took for its tokens.
    """
    summary = summary_of(GPU)
    found = {(r["arm"], r["against"], r["benchmark"], r["attempt"]): r for r in summary["contrasts"]}
    for benchmark in GPU.benchmarks:
        for attempt in (1, 2):
            low, high = found["mgrpo", "grpo_matched", benchmark, attempt]["ci"]
            assert low <= 0 <= high
            if benchmark != "sums_long":
                assert 0.077 < found["mgrpo", "grpo_matched", benchmark, attempt]["detectable"] < 0.091
        surely = all(found[arm, "base", benchmark, 1]["ci"][0] > 0 for arm in GPU.arms)
        assert surely == (benchmark == "sums_story")
    largest = max(row["difference"] for pair, row in found.items() if pair[1] == "base")
    assert f"the largest gain over the base model is {100 * largest:.1f}." in README
    changed, broken, mended, boxes = Counter(), Counter(), Counter(), 0
    for run in fingerprints.all_runs(GPU):
        records = store.read_records(GPU.results / "records" / f"{run.run_name}.json", fingerprints.evaluation_key(run))
        changed[run.arm, None] += len(records)
        for record in records:
            changed[run.arm, record["benchmark"]] += record["answer_1"] != record["answer_2"]
            broken[run.arm] += record["correct_1"] and not record["correct_2"]
            mended[run.arm] += record["correct_2"] and not record["correct_1"]
            boxes += run.arm == "mgrpo" and bool(re.fullmatch(r"\s*\\boxed\{[^{}]*\}\s*", record["text_2"]))
    assert (
        changed["mgrpo", None] == 1800 and not any(changed["mgrpo", name] for name in GPU.benchmarks) and boxes > 1700
    )
    for arm in ("grpo", "grpo_matched"):
        assert max(changed[arm, name] / 600 for name in GPU.benchmarks) == pytest.approx(0.1, abs=0.015)
    assert "({} and {} right ones broken, {} and {} wrong ones mended".format(
        *(count[arm] for count in (broken, mended) for arm in ("grpo", "grpo_matched"))
    ) in README  # fmt: skip
    assert all(row["delta_t1_t2_ci"][0] <= 0 <= row["delta_t1_t2_ci"][1] for row in summary["rows"])
    steps = [
        store.read_jsonl(run.run_folder / "metrics.jsonl") for run in fingerprints.all_runs(GPU) if run.arm == "mgrpo"
    ]
    steps, each = [step for run in steps for step in run], 32 * 4
    counts = [
        each * len(steps),
        *(round(sum(each * step[f"layer2/{name}"] for step in steps)) for name in ("fixed", "broken")),
    ]
    assert "of {:,} sampled corrections {} mended a draft and {} broke one".format(*counts) in README
    late = [1 - step["layer2/frac_reward_zero_std"] for step in steps if step["step"] > 10]
    assert sum(late) / len(late) < 0.01
    skipped = {name: bool(run["skipped_steps"]) for name, run in summary["runs"].items() if run["arm"] != "base"}
    assert {name.split("-")[0] for name, lost in skipped.items() if lost} == {"grpo", "grpo_matched"}
    tokens = [sum(s["runs"][f"mgrpo-seed{k}"]["train_tokens"] for k in (0, 1, 2)) for s in (summary, summary_of(LLM))]
    assert tokens[0] / tokens[1] == pytest.approx(12, abs=1)
    assert 5 * 60 < store.read_json(GPU.results / "timing.json")["seconds"] < 6.5 * 60
    assert f"MGRPO took {cost(summary, 'seconds'):.1f} times matched GRPO's time here" in README


def cost(summary: dict, what: str) -> float:
    """Of MGRPO, for each sampled token, as a multiple of the matched GRPO's."""
    spent = {
        arm: {
            name: sum(run[name] for run in summary["runs"].values() if run["arm"] == arm)
            for name in ("seconds", "processed_tokens", "train_tokens")
        }
        for arm in ("mgrpo", "grpo_matched")
    }
    for arm in spent.values():
        arm["read"] = arm["processed_tokens"] - arm["train_tokens"]
    ours, theirs = (spent[arm][what] / spent[arm]["train_tokens"] for arm in ("mgrpo", "grpo_matched"))
    return ours / theirs


def test_what_readme_says_of_the_cost_is_what_the_files_say(summary):
    read, seconds = cost(summary, "read"), cost(summary, "seconds")
    on_gpu, on_cores = (cost(summary_of(cfg), "seconds") for cfg in (GPU, LLM))
    ours = f"MGRPO read {read:.1f} times as many prompt tokens and took {seconds:.1f} times as long"
    assert f"{ours} (miniature, two cores)" in README
    assert f"took {on_gpu:.1f} times as long on the GPU, and {on_cores:.1f} times on two cores" in README
    assert f"took {seconds:.1f} (miniature), {on_cores:.1f} (135M) and {on_gpu:.1f} times (135M on a GPU" in README
    steps = {(r["arm"], r["against"], r["benchmark"], r["attempt"]): r for r in summary_of(VARIANTS)["contrasts"]}
    row = steps["grpo_more_steps", "mgrpo", "chains", 1]
    low, high = (100 * bound for bound in row["ci"])
    gain = f"{100 * row['difference']:.1f} [{low:.1f}, {high:.1f}] points"
    assert f"beat MGRPO's first attempts on `chains` by {gain}" in README
    assert abs(steps["grpo_more_steps", "grpo_matched", "blanks", 2]["difference"]) < 0.02, "teach no correction"


def test_what_readme_says_at_its_head_is_what_the_verdicts_say(summary):
    found = {(row["hypothesis"], row["benchmark"]): row for row in summary["hypotheses"]}
    gains = {name: row for (hypothesis, name), row in found.items() if hypothesis == "H2"}
    assert (
        f"second attempts are {100 * gains.pop('blanks')['difference']:.0f} points better than matched GRPO's" in README
    )
    assert all(row["verdict"] != "supported" for row in gains.values()), "on the other four sets no gain is shown"
    first = [row for (hypothesis, _), row in found.items() if hypothesis == "H1"]
    least, *_, most = sorted(-100 * row["difference"] for row in first)
    assert f"First attempts are {least:.1f} to {most:.1f} points lower on all five" in README
    assert all(row["ci"][0] < 0 < row["ci"][1] < 0.02 for row in first), (
        "intervals hold 0 and exclude a gain of 2 points"
    )
    (warm,) = [
        row
        for row in summary["robustness"]
        if (row["hypothesis"], row["benchmark"], row["choice"]) == ("H2", "blanks", "temperature 1")
    ]
    low, high = (100 * bound for bound in warm["ci"])
    assert f"its gain over matched GRPO is {100 * warm['difference']:.1f} [{low:.1f}, {high:.1f}] points" in README
    assert P_FIX == 0.4 and "texts that mend four of ten wrong guesses" in README


def test_what_readme_says_of_the_real_benchmarks_is_what_the_manifest_says():
    cfg = load_config("smollm2_real", arm="base", data_dir="local files")
    found = store.read_json(cfg.results / "records" / "base.json")
    assert found["key"] == fingerprints.evaluation_key(cfg), "these settings"
    assert found["rows"] == 200
    names = {"gsm8k": "GSM8K", "math500": "MATH-500", "minerva_math": "Minerva Math", "olympiadbench": "OlympiadBench"}
    counts = {name: [round(50 * found["accuracy"][name][f"acc_t{k}"]) for k in (1, 2)] for name in names}
    text = ", ".join(f"{names[name]} {first} and {second}" for name, (first, second) in counts.items())
    assert f"of 50: {text}." in README
    assert round(found["seconds"] / 60) == 16 and "sixteen minutes on two cores" in README


def test_the_language_model_was_trained_on_4_bits_too():
    """Its adapter moved; what the two precisions have in common is the same run of profile smollm2."""
    runs, others = summary_of(NF4)["runs"], summary_of(LLM)["runs"]
    assert runs["mgrpo-seed0"] == others["mgrpo-seed0"] and runs["base"] == others["base"]
    params = store.read_json(NF4.results / "runs" / "mgrpo_nf4-seed0" / "run.json")
    assert params["params"]["load_in_4bit"] and params["weight_change"] > 0
    assert (
        params["trainable_parameters"]
        == store.read_json(LLM.results / "runs" / "mgrpo-seed0" / "run.json")["trainable_parameters"]
    )


def test_the_variants_differ_from_mgrpo_in_what_they_name_alone():
    assert VARIANTS.settings(type(CFG)).keys() == CFG.settings(type(CFG)).keys()
    for arm in ("mgrpo", "grpo_matched"):
        left, right = (fingerprints.run_key(cfg.of_arm(arm, 0)) for cfg in (CFG, VARIANTS))
        assert left == right, "the same arm in both profiles is the same run"
    assert VARIANTS.benchmarks == CFG.benchmarks and VARIANTS.test_problems == CFG.test_problems


def test_what_readme_says_of_the_variants_is_what_the_files_say():
    """Three layers have over a quarter fewer steps and fall behind on every set of chains, alone; GRPO with more steps is the
    better one of the two that match MGRPO's tokens.
    """
    summary = summary_of(VARIANTS)
    steps = {
        arm: sum(summary["runs"][f"{arm}-seed{seed}"]["steps"] for seed in VARIANTS.seeds) for arm in VARIANTS.arms
    }
    assert 0.65 <= steps["layers_3"] / steps["mgrpo"] <= 0.75
    found = {(r["arm"], r["against"], r["benchmark"], r["attempt"]): r for r in summary["contrasts"]}
    chains = [benchmark for benchmark in VARIANTS.benchmarks if benchmark != "blanks"]
    for arm in set(VARIANTS.arms) - {"grpo_matched"}:
        behind = [found[arm, "grpo_matched", b, k]["difference"] < -0.10 for b in chains for k in (1, 2)]
        assert all(behind) if arm == "layers_3" else not any(behind), arm
    for other in ("grpo_matched", "mgrpo"):
        assert found["grpo_more_steps", other, "chains", 1]["ci"][0] > 0
    assert len(VARIANTS.arms) * len(VARIANTS.seeds) == 24 and len(CFG.arms) * len(CFG.seeds) == 15


def test_readme_counts_the_kills_of_the_table():
    text = (ROOT / "docs" / "robustness.md").read_text(encoding="utf-8")
    (kills,) = re.findall(r"\*\*(\d+) kills\*\*", text)
    assert f"[{kills} kills of the chain or a kernel](docs/robustness.md)" in README
    assert len(re.findall(r"^\| \d+ \|", text, re.MULTILINE)) == int(kills)
