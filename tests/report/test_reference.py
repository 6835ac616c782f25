"""The committed results: numbers follow from the records, versions are named, blocks of the pages are rendered from them."""

import gzip
import json
import re
import shutil
import subprocess
import sys

import pytest

from benchmarks import precision, step_cost
from mgrpo_lib.experiment import keys, store, versions
from mgrpo_lib.experiment.settings import ROOT, load_config
from mgrpo_lib.method.prompts import PHRASES
from mgrpo_lib.report import pages, tables
from mgrpo_lib.report.records import Records
from mgrpo_lib.report.summary import summarise

pytestmark = pytest.mark.committed
CFG, VARIANTS, NF4, LLM, GPU = (
    load_config(profile, arm="base", output_root=".")
    for profile in ("cpu", "ablation", "smollm2_nf4", "smollm2", "smollm2_gpu")
)
PAGES = {page: page.read_text(encoding="utf-8") for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))}


def summary_of(cfg):
    return store.read_json(cfg.results / "summary.json")


@pytest.fixture(params=[CFG, VARIANTS, LLM, NF4, GPU], ids=lambda cfg: cfg.profile)
def cfg(request):
    return request.param


def copied(cfg, folder):
    """The same experiment with its result files in another folder."""
    target = folder / "results" / cfg.profile
    shutil.copytree(cfg.results, target, ignore=shutil.ignore_patterns("model", "*.ipynb"))
    return load_config(cfg.profile, arm="base", output_root=str(folder))


def test_summary_and_tables_follow_from_the_committed_records(cfg, tmp_path):
    copy = copied(cfg, tmp_path)
    (copy.results / "summary.json").unlink()
    assert summarise(copy) == summary_of(cfg), f"make figures PROFILE={cfg.profile}"
    for suffix in ("md", "csv", "tex"):
        committed, again = (
            {path.name: path.read_bytes() for path in folder.glob(f"*.{suffix}")}
            for folder in (cfg.results, copy.results)
        )
        assert committed == again and set(committed) == {f"{name}.{suffix}" for name in tables.tables(summary_of(cfg))}


@pytest.mark.parametrize("place", pages.BLOCKS)
def test_a_page_holds_what_the_template_renders(place):
    text = pages.block(place)
    marked = [page for page, content in PAGES.items() if f"<!-- {place} -->\n{text}<!-- /{place} -->" in content]
    assert len(marked) == 1, "make figures PROFILE=cpu"


def test_figures_in_pages_bear_their_titles():
    images = re.findall(r"!\[([^\]]*)\]\((?:\.\./)?(figures/\w+)/(\w+)\.png\)", "".join(PAGES.values()))
    assert images
    for alternative, folder, name in images:
        assert alternative == json.loads((ROOT / folder / "captions.json").read_text())[name]["title"]


def test_the_headline_by_an_independent_few_lines():
    """H2 on every benchmark, from the committed lines alone."""

    def lines(name):
        return map(json.loads, gzip.open(CFG.results / "records" / f"{name}.jsonl.gz", "rt", encoding="utf-8"))

    for row in (row for row in summary_of(CFG)["hypotheses"] if row["hypothesis"] == "H2"):
        gains = []
        for seed in CFG.seeds:
            ours, theirs = (
                {line["id"]: line["answer_2"] == line["gold"] for line in lines(f"{arm}-seed{seed}") if line["benchmark"] == row["benchmark"]}
                for arm in ("mgrpo", "grpo_matched")
            )  # fmt: skip
            assert len(ours) == CFG.test_problems and ours.keys() == theirs.keys()
            gains += [ours[problem] - theirs[problem] for problem in ours]
        assert row["difference"] == pytest.approx(sum(gains) / len(gains))


def test_the_verdicts():
    """Corrections are learnt on the positive control alone; first attempts are neither better nor shown to be worse."""
    summary = summary_of(CFG)
    found = {(row["hypothesis"], row["benchmark"]): row for row in summary["hypotheses"]}
    supported = {place for place, row in found.items() if row["verdict"] == "supported"}
    assert supported == {("H2", "blanks"), ("H3", "blanks")}
    assert [benchmark for benchmark, controls in summary["not_beaten"].items() if not controls] == ["blanks"]
    assert all(found["H1", name]["ci"][0] < 0 < found["H1", name]["ci"][1] < 0.02 for name in CFG.benchmarks)
    for row in summary_of(GPU)["contrasts"]:
        if (row["arm"], row["against"]) == ("mgrpo", "grpo_matched"):
            assert row["ci"][0] <= 0 <= row["ci"][1], "no difference from matched tokens on the language model"


def test_every_arm_learnt_and_left_headroom():
    rows = {(row["arm"], row["benchmark"]): row for row in summary_of(CFG)["rows"]}
    base = rows["base", "chains"]["acc_t1"]
    assert 0.25 <= base <= 0.60
    for arm in CFG.arms:
        assert all(accuracy >= base + 0.20 for accuracy in rows[arm, "chains"]["acc_t1_seeds"])
        assert all(rows[arm, name]["acc_t1"] < 1 for name in CFG.benchmarks)


def test_every_matched_arm_sampled_as_many_tokens_to_the_nearest_step(cfg):
    runs = summary_of(cfg)["runs"]
    for seed in cfg.seeds:
        budget = runs[f"mgrpo-seed{seed}"]["train_tokens"]
        for arm, changes in cfg.arms.items():
            run = runs[f"{arm}-seed{seed}"]
            if "match_tokens_of" in changes:
                assert abs(run["train_tokens"] - budget) <= 0.7 * run["train_tokens"] / run["steps"], (arm, seed)


def test_runs_that_profiles_share_are_the_same_run():
    for arm in ("mgrpo", "grpo_matched"):
        assert keys.run_key(CFG.of_arm(arm, 0)) == keys.run_key(VARIANTS.of_arm(arm, 0))
    ours, theirs = summary_of(NF4)["runs"], summary_of(LLM)["runs"]
    assert ours["mgrpo-seed0"] == theirs["mgrpo-seed0"] and ours["base"] == theirs["base"]
    four = store.read_json(NF4.results / "runs" / "mgrpo_nf4-seed0" / "run.json")
    assert four["params"]["load_in_4bit"] and four["weight_change"] > 0


@pytest.mark.parametrize("profile", ["smollm2_real", "qwen_real", "qwen_real_nf4"])
def test_the_real_benchmarks_were_evaluated_with_the_profiles_settings(profile):
    cfg = load_config(profile, arm="base", data_dir="local files", output_root=".")
    manifest = cfg.results / "records" / "base.json"
    made = keys.made_with(manifest)
    assert store.read_json(manifest)["key"] == keys.evaluation_key(cfg, made)
    if (kept := cfg.results / "base.json").exists():
        assert store.read_json(kept)["key"] == keys.controls_key(cfg, made)


def test_the_table_of_qwens_greedy_attempts_has_every_control_and_the_records_numbers():
    table = pages.greedy_table()[0].set_index("attempt, %")
    assert sorted(table["problems"]) == [16] * 8 + [50] * 6
    for weights, profile in (("", "qwen_real"), (", NF4", "qwen_real_nf4")):
        scored = store.read_json(load_config(profile, arm="base", output_root=".").manifest("records"))["accuracy"]
        for k in (1, 2):
            assert float(table.loc[f"attempt {k}{weights}", "lenient"].split()[0]) == pytest.approx(
                100 * scored["gsm8k"][f"acc_t{k}"]
            )
    others = [
        f"phrase {i}" for i in range(1, len(PHRASES) + 1) if i != load_config("qwen_real", arm="base").eval_phrase
    ]
    assert {"no draft", "other draft", "batch 1", "batch 2", *others} <= set(table.index)
    assert all(table["strict"].astype(float) <= table["boxed"].astype(float))


# ---------------------------------------------------------------------------------------------- versions
def claim(manifest, key, **changes):
    """A manifest claims other versions, under the key that they would give it."""
    content = store.read_json(manifest)
    content["environment"] |= changes
    store.write_json(manifest, content)
    store.write_json(manifest, {**content, "key": key(keys.made_with(manifest))})


def claim_seed(cfg, seed, **changes):
    """Every manifest of a seed claims other versions."""
    for arm in cfg.arms:
        run = cfg.of_arm(arm, seed)
        claim(run.run_folder / "run.json", lambda made, run=run: keys.run_key(run, made), **changes)
        claim(run.run_folder / "validation.json", lambda made, run=run: keys.validation_key(run, made), **changes)
        manifest = cfg.results / "records" / f"{run.run_name}.json"
        claim(manifest, lambda made, run=run: keys.evaluation_key(run, made), **changes)
    group = cfg.of_arm("mgrpo", seed)
    manifest = cfg.results / "controls" / f"seed{seed}.json"
    claim(manifest, lambda made: keys.controls_key(group, made), **changes)


@pytest.fixture
def mixed(tmp_path, monkeypatch):
    """Profile smollm2 with a seed of training version 2."""
    monkeypatch.setitem(versions.NAMES["training"], 2, "another name")
    cfg = copied(LLM, tmp_path)
    claim_seed(cfg, 1, training_version=2)
    return cfg


def test_smollm2_fixed_ever_fewer_drafts_and_broke_more_than_it_fixed():
    cfg = load_config("smollm2_gpu", arm="base", output_root=".")
    rows = pages.sampled_corrections(cfg)
    steps = [store.read_jsonl(cfg.of_arm("mgrpo", seed).run_folder / "metrics.jsonl") for seed in cfg.seeds]
    for i, row in enumerate(rows):
        own = [run[i] for run in steps]
        corrections = [32 * 4 * one["layer2/fixed"] for one in own], [32 * 4 * one["layer2/broken"] for one in own]
        assert [row["fixed"], row["broken"]] == [round(sum(each)) for each in corrections]
        right = sum(one["layer2/accuracy"] for one in own) * 32 * 4  # kept or fixed
        assert right == pytest.approx(row["all"] - row["wrong"] - row["broken"] + row["fixed"], abs=0.01)
    assert rows[0]["broken"] > rows[0]["fixed"] > 0 and not any(row["fixed"] for row in rows[10:])


def test_the_answers_on_the_slope_do_not_hang_on_how_it_is_measured():
    slope = store.read_json(ROOT / "results" / "dose" / "dose.json")["slope"]
    for low, high in (slope["ci"], slope["ci_t"]):
        assert low < -0.5 < high and not low <= -1 <= high
        assert low < slope["between"] < high


def test_a_report_reads_mixed_versions_and_says_so(mixed):
    summary, known = summarise(mixed), summary_of(LLM)
    assert summary["versions"] == {"training": [1, 2], "evaluation": [1]}
    assert summary["key"] != known["key"] and summary["rows"] == known["rows"]
    one, two = (pages.render("versions.md.j2", summary=content) for content in (known, summary))
    assert "training version 1" in one and "mixed" not in one
    assert "training versions 1 and 2" in two and "mixed" in two
    assert two.strip() in pages.block("smollm2", mixed)


def test_records_of_a_model_that_was_trained_again_are_refused(mixed):
    run = mixed.of_arm("mgrpo", 1)
    manifest = mixed.results / "records" / f"{run.run_name}.json"
    claim(manifest, lambda made: keys.evaluation_key(run, made), training_version=1)
    with pytest.raises(FileNotFoundError, match=run.run_name):
        Records(mixed)


def test_results_of_an_unknown_version_are_refused(tmp_path):
    cfg = copied(LLM, tmp_path)
    file = cfg.of_arm("mgrpo", 0).run_folder / "run.json"
    content = store.read_json(file)
    content["environment"]["training_version"] = 99
    store.write_json(file, {**content, "key": "unknown"})
    with pytest.raises(FileNotFoundError, match="mgrpo-seed0"):
        Records(cfg)


# ---------------------------------------------------------------------------------------------- code
def test_no_report_reaches_torch_or_what_stands_above_it():
    modules = sorted(path.stem for path in (ROOT / "mgrpo_lib" / "report").glob("[a-z]*.py"))
    code = f"import sys; from mgrpo_lib.report import {', '.join(modules)}; print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = said.stdout.split()
    assert "mgrpo_lib.report.tables" in loaded
    assert not [name for name in loaded if name.split(".")[0] in ("torch", "transformers", "trl", "peft", "accelerate")]
    assert not [name for name in loaded if name.startswith("mgrpo_lib.explore")]


def test_tables_of_the_benchmarks_are_those_of_their_result_files():
    assert (step_cost.RESULTS / "step_cost.md").read_text(encoding="utf-8") == step_cost.table()
    found = json.loads((precision.RESULTS / "precision.json").read_text())
    assert (precision.RESULTS / "precision.md").read_text(encoding="utf-8") == precision.table(found)
