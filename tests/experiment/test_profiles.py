"""A profile of one's own: a YAML file works wherever a profile's name does, and what is wrong with it is said first."""

import sys
import textwrap

import pytest

from mgrpo_lib.__main__ import main
from mgrpo_lib.experiment import jobs, keys, machine, pipeline, profiles, store, train
from mgrpo_lib.experiment.settings import ROOT, ConfigError, load_config
from mgrpo_lib.explore import ask, explorer
from tests.method.chat import make_folder

MINE = "extends: smoke\nmax_steps: 3\nseeds: [4]\narms: {mgrpo: {}, grpo: {num_layers: 1}}\ncontrol_arms: []\n"


@pytest.fixture
def mine(tmp_path):
    """The file of a profile called ``mine``."""
    file = tmp_path / "mine.yaml"
    file.write_text(MINE, encoding="utf-8")
    return file


def write(folder, text: str, name: str = "mine.yaml") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_a_file_is_a_profile_whose_results_bear_its_stem(mine, tmp_path):
    cfg, smoke = load_config(str(mine)), load_config("smoke")
    assert cfg.profile == "mine" and cfg.results == ROOT / "out" / "results" / "mine"
    differing = {name for name, value in cfg.model_dump().items() if value != smoke.model_dump()[name]}
    assert differing == {"profile", "max_steps", "seeds", "arms", "control_arms"}
    run = load_config(str(mine), learning_rate=1e-3).of_arm("grpo", 7)
    assert (run.num_layers, run.seed, run.max_steps, run.learning_rate) == (1, 7, 3, 1e-3)
    assert run.at_hand("summary.json").profile == "mine"
    same = load_config("smoke", max_steps=3)
    assert keys.run_key(cfg) == keys.run_key(same), "the file's name is no part of a run"


def test_the_path_of_a_shipped_profile_is_that_profile():
    for path in ("profiles/smoke.yaml", str(ROOT / "profiles" / "smoke.yaml")):
        cfg = load_config(path)
        assert cfg == load_config("smoke") and cfg.source == "smoke"


def test_the_model_of_ones_own_is_not_pinned_by_the_profile_below(tmp_path):
    assert load_config("smollm2").model_content
    cfg = load_config(write(tmp_path, "extends: smollm2\nmodel: owner/name\n"))
    assert cfg.model_content is None and cfg.model_location == "owner/name" and cfg.lora_rank == 16


def test_every_notebook_is_handed_the_file(mine, tmp_path):
    cfg = pipeline.configuration(str(mine), {"beta": 0.5}, out=str(tmp_path / "out"))
    listed = jobs.list_jobs(cfg, {"beta": 0.5})
    assert {job.notebook for job in listed} >= {"01_data", "03_grpo", "04_mgrpo", "06_figures"}
    for job in listed:
        given = dict(job.parameters)
        again = load_config(given.pop("profile"), **given.pop("settings"), **given)
        assert (again.profile, again.max_steps, again.beta, again.output) == ("mine", 3, 0.5, tmp_path / "out")


def test_commands_take_it(mine, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mgrpo_lib", "plan", "--profile", str(mine)])
    assert main() == 0 and "profile mine on " in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["mgrpo_lib", "figures", "--profile", str(mine), "--out", str(tmp_path)])
    assert main() == 2 and str(tmp_path / "results" / "mine") in capsys.readouterr().err, "nothing to draw yet"
    call = ["train", "--profile", str(mine), "--arm", "grop", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", call)
    assert train.main() == 2 and "grpo" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match="records"):
        explorer.results_folder(mine)
    with pytest.raises(FileNotFoundError):
        ask.load(mine, output_root=str(tmp_path))


def test_advice_names_the_file(tmp_path, monkeypatch):
    file = write(tmp_path, "extends: paper\n")
    monkeypatch.setattr(machine, "gpus", lambda: [("Tesla T4", 15.0)])
    with pytest.raises(ConfigError, match=f"PROFILE={file}"):
        pipeline.reproduce(file, {}, out=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists(), "nothing has started"


WRONG = [  # a file's name, its text, what the message must name
    ("smoke.yaml", "max_steps: 3", "'smoke'.*rename the file"),
    ("auto.yaml", "max_steps: 3", "'auto'.*rename the file"),
    ("my run.yaml", "max_steps: 3", "'my run'.*rename the file"),
    ("mine.yaml", "extends: smoke\nmax_step: 3", "'max_step' in .*mine.yaml.*'max_steps'"),
    ("mine.yaml", "extends: smoke\nmax_steps: many", "'max_steps' is 'many'.*integer"),
    ("mine.yaml", "extends: smoke\nlearning_rate: 1e-5", "'learning_rate' is '1e-5'.*write 0.00001"),
    ("mine.yaml", "extends: own\nmodel_revision: 1234567", "'model_revision' is 1234567.*write '1234567'"),
    ("mine.yaml", "extends: smoke\nseeds: 3", r"'seeds' is 3.*write \[3\]"),
    ("mine.yaml", "extends: smoke\narms:\n  mgrpo:\n", r"arms is .*{mgrpo: {}}"),
    ("mine.yaml", "extends: dose\nbases: [a]", "bases is .*base_steps"),
    ("mine.yaml", "extends: smok\n", "mine.yaml extends .*'smok'.*'smoke'"),
    ("mine.yaml", "extends: [smoke]\n", "mine.yaml extends .*'smoke'"),
    ("mine.yaml", "", "mine.yaml holds no settings.*max_steps: 50"),
    ("mine.yaml", "- max_steps\n", "mine.yaml holds no settings.*max_steps: 50"),
    ("mine.yaml", "max_steps: [3\n", "mine.yaml: .*"),
    ("mine.yaml", "extends: smoke\nmax_steps: \x85\x00", "mine.yaml"),
]


@pytest.mark.parametrize(("name", "text", "named"), WRONG)
def test_a_wrong_file_is_refused_in_a_sentence_with_the_fix(name, text, named, tmp_path):
    with pytest.raises(ConfigError, match=named) as refused:
        pipeline.reproduce(write(tmp_path, text, name), {}, out=str(tmp_path / "out"))
    assert "\n" not in str(refused.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("profile", "named"),
    [
        ("nowhere.yaml", f"'nowhere.yaml'.*{ROOT / 'nowhere.yaml'}.*counts from"),
        ("some/folder", "'some/folder'.*.yaml"),
        ("smok", "'smok'.*'smoke'.*my.yaml"),
        ("", "my.yaml"),
    ],
)
def test_a_file_that_is_not_there_is_refused(profile, named):
    with pytest.raises(ConfigError, match=named):
        load_config(profile)


def test_a_file_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "mine.yaml").write_bytes("system_prompt: Antworte präzise".encode("latin-1"))
    with pytest.raises(ConfigError, match="mine.yaml.*UTF-8"):
        load_config(str(tmp_path / "mine.yaml"))


def test_a_changed_file_is_read_again(mine):
    assert load_config(str(mine)).max_steps == 3
    mine.write_text(MINE.replace("max_steps: 3", "max_steps: 2"), encoding="utf-8")
    assert load_config(str(mine)).max_steps == 2 and profiles.find(str(mine))[0] == "mine"


def test_a_model_without_a_profile_is_planned_by_profile_own(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mgrpo_lib", "plan", "--model", "Qwen/Qwen2.5-1.5B-Instruct"])
    assert main() == 0 and capsys.readouterr().out.startswith("profile own, ")
    assert pipeline.configuration("auto", {"max_steps": 3}).profile == "cpu"
    with pytest.raises(ConfigError, match="train_data.*owner/name.*profile own"):
        pipeline.configuration("cpu", {"model": "owner/name"})


@pytest.mark.slow  # a pipeline of eight notebooks
def test_the_pipeline_runs_a_file_of_ones_own_with_ones_model_and_problems(tmp_path):
    for name, count in (("train", 60), ("test", 8)):
        rows = [{"question": f"How much is {i} plus {count}?", "answer": i + count} for i in range(count)]
        store.write_jsonl(tmp_path / f"my_{name}.jsonl", rows)
    text = f"""
        extends: own
        model: {make_folder(tmp_path / "chat")}
        train_data: {tmp_path / "my_train.jsonl"}
        benchmarks: [{tmp_path / "my_test.jsonl"}]
        validation_problems: 4
        prompts_per_step: 2
        max_steps: 2
        max_completion_length: 12"""
    file = write(tmp_path, textwrap.dedent(text))
    assert pipeline.reproduce(file, {}, out=str(tmp_path / "out")) == 0
    results = tmp_path / "out" / "results" / "mine"
    summary = store.read_json(results / "summary.json")
    assert summary["profile"] == "mine" and {"mgrpo-seed0", "grpo_matched-seed0"} < summary["runs"].keys()
    assert {(row["benchmark"], row["n"]) for row in summary["rows"]} == {("my_test", 8)}
    assert (results / "runs" / "mgrpo-seed0" / "model" / "adapter_config.json").exists()
    assert explorer.results_folder(results) == results
    assert ask.load(file, output_root=str(tmp_path / "out")).cfg.run_name == "mgrpo-seed0"
