"""Settings: whatever is misspelt, mistyped or impossible is refused before any work, with the setting and the fix."""

import subprocess
import sys
from datetime import date

import pytest

from mgrpo_lib.experiment import profiles
from mgrpo_lib.experiment.assignments import parse_assignments, parse_seeds
from mgrpo_lib.experiment.settings import (
    ROOT,
    ConfigError,
    TrainSettings,
    load_config,
    profile_names,
)
from mgrpo_lib.method.prompts import PHRASES
from mgrpo_lib.method.settings import MGRPOSettings


@pytest.mark.parametrize("profile", profile_names())
def test_every_arm_of_every_profile_resolves(profile):
    cfg = load_config(profile, arm="base")
    if not cfg.arms:
        assert load_config(profile).arm == "base", "the base model alone"
    for arm, changes in cfg.arms.items():
        run = cfg.of_arm(arm, seed=3)
        assert (run.arm, run.seed, run.run_name) == (arm, 3, f"{arm}-seed3")
        assert {name: getattr(run, name) for name in changes} == changes
        assert run.num_layers == (1 if arm.startswith("grpo") else 3 if arm == "layers_3" else 2)


def test_a_profile_that_extends_another_changes_what_it_names_alone():
    cpu, ablation = load_config("cpu", arm="base"), load_config("ablation", arm="base")
    differing = {name for name, value in ablation.model_dump().items() if value != cpu.model_dump()[name]}
    assert differing == {"profile", "seeds", "arms", "control_arms", "samples"}


def test_results_go_to_a_folder_of_the_repository_that_git_ignores(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # a notebook runs in its own folder
    assert load_config("cpu").output == ROOT / "out"
    assert load_config("cpu", output_root="my_run").figures == ROOT / "my_run" / "figures" / "cpu"
    assert load_config("cpu", output_root=".").output == ROOT
    ignored = ["git", "-C", ROOT, "check-ignore", "-q", load_config("cpu").results / "summary.json"]
    assert subprocess.run(ignored).returncode in (0, 128), "128: no clone"


def test_what_is_looked_at_is_ones_own_or_else_committed(tmp_path):
    cfg = load_config("cpu", arm="grpo", seed=11, max_steps=3, output_root=str(tmp_path))
    shown = cfg.at_hand("summary.json")
    assert shown.model_dump() == cfg.model_dump() | {"output_root": "."} and shown.of_arm("mgrpo").output == ROOT
    cfg.results.mkdir(parents=True)
    (cfg.results / "summary.json").touch()
    assert cfg.at_hand("summary.json") is cfg


def test_arms_differ_only_in_what_the_profile_says():
    cfg = load_config("cpu", arm="base")
    mgrpo, matched = (cfg.of_arm(arm).settings(TrainSettings) for arm in ("mgrpo", "grpo_matched"))
    assert {name for name in mgrpo if mgrpo[name] != matched[name]} == set(cfg.arms["grpo_matched"])


def test_training_settings_are_those_of_the_trainer_and_need_no_torch():
    declared = MGRPOSettings.__dataclass_fields__
    assert declared.keys() < TrainSettings.model_fields.keys()
    for name, field in declared.items():
        assert TrainSettings.model_fields[name].description == field.metadata["help"]
    code = "import sys; from mgrpo_lib.experiment.settings import load_config; load_config('cpu'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


WRONG = [  # profile, settings, what the message must name
    ("smoke", {"learning_rat": 1.0}, "'learning_rat' .*'learning_rate'"),
    ("smoke", {"learning_rate": "fast"}, "'learning_rate' is 'fast'"),
    ("smoke", {"learning_rate": -1.0}, "learning_rate -1 .*positive"),
    ("smoke", {"learning_rate": float("inf")}, "'learning_rate' is inf"),
    ("smoke", {"max_steps": 2.5}, "'max_steps' is 2.5"),
    ("smoke", {"seeds": []}, "'seeds'"),
    ("smoke", {"arm": "mgrop"}, "'mgrop' .*valid: base, mgrpo"),
    ("smoke", {"num_layers": 0}, "num_layers is 0; use 1"),
    ("smoke", {"num_corrections": 1}, "num_corrections is 1.*correction_advantage='difference'"),
    (
        "smoke",
        {"num_corrections": 1, "drafts_per_prompt": 1, "correction_advantage": "progress"},
        "num_corrections is 1",
    ),
    ("smoke", {"keep_corrections": "successes"}, "correction_advantage='difference'"),
    ("smoke", {"select_drafts": "mixed", "drafts_per_prompt": 1}, "drafts_per_prompt is 1.*2 or more"),
    ("smoke", {"select_drafts": "rong"}, "'select_drafts' is 'rong'.*'wrong'"),
    ("smoke", {"loss_type": "grp"}, "loss_type.*grp"),
    ("smoke", {"phrase_role": "user"}, "phrase_role .*assistant"),
    ("smoke", {"phrases": ["Is that so?"]}, "Is that so"),
    ("smoke", {"phrases": []}, "phrases is empty"),
    ("smoke", {"phrases": "Is it so?"}, "phrases"),
    ("smoke", {"eval_phrase": "Is that so?"}, "Is that so"),
    ("smoke", {"eval_phrase": 8}, "eval_phrase 8.*1 to 7"),
    ("smollm2", {"eval_phrase": " "}, "eval_phrase is empty"),
    ("smollm2", {"eval_phrase": "Is \frac{1}{2} right?"}, "eval_phrase holds .*x0c.*backslash twice"),
    ("smollm2", {"system_prompt": "Answer in \boxed{}."}, "system_prompt holds .*x08.*backslash twice"),
    ("smollm2", {"system_prompt": "Box it.\u200b"}, "system_prompt holds .*u200b.*delete"),
    ("smollm2", {"phrases": ["Is \text{x} right?"]}, "phrases holds .*backslash twice"),
    ("smollm2", {"chat_template_kwargs": ["enable_thinking"]}, "'chat_template_kwargs' is .*dictionary"),
    ("smollm2", {"chat_template_kwargs": {"date": date(2024, 7, 26)}}, "'chat_template_kwargs.date' is .*JSON"),
    ("smoke", {"chat_template_kwargs": {"enable_thinking": False}}, "chat_template_kwargs .*leave it out"),
    ("smoke", {"test_problems": 1}, "test_problems is 1.*2 or more"),
    ("smoke", {"probe_problems": 1}, "probe_problems is 1.*2 or more"),
    ("smoke", {"arm": "a/b", "arms": {"a/b": {}}, "control_arms": []}, "arms: 'a/b'"),
    ("smoke", {"arm": "base", "arms": {"base": {}}, "control_arms": []}, "arms: 'base'"),
    ("smoke", {"micro_batch_size": 7}, "micro_batch_size 7 .*use 4"),
    ("smoke", {"layer_weights": [1.0]}, "layer_weights has 1 .* 2 layers"),
    ("smoke", {"drafts_per_prompt": 99}, "drafts_per_prompt is 99; use 1 to num_generations"),
    ("smoke", {"drafts_per_prompt": 0}, "drafts_per_prompt is 0; use 1 to num_generations"),
    ("smoke", {"benchmarks": ["chain"]}, "benchmarks.*'chain'.*did you mean"),
    ("smoke", {"benchmarks": "chains"}, r"'benchmarks'.*write \[chains\]"),
    ("smoke", {"seeds": [1, 1]}, "seeds .*give each once"),
    ("smoke", {"match_tokens_of": "mgrpo"}, "match_tokens_of"),
    ("smoke", {"train_problems": 2}, "train_problems 2 .*use 4"),
    ("smoke", {"arms": {"mgrpo": {"match_tokens_of": "a"}, "a": {"match_tokens_of": "mgrpo"}}}, "itself matches"),
    ("smoke", {"load_in_4bit": True}, "set lora_rank"),
    ("smoke", {"arms": {"mgrpo": {"learning_rte": 1.0}}}, "did you mean 'learning_rate'"),
    ("smoke", {"arms": {"mgrpo": 1}}, r"{mgrpo: {}}"),
    ("smoke", {"arms": ["mgrpo"]}, r"{mgrpo: {}}"),
    ("smoke", {"arms": {"mgrpo": {"test_problems": 1}}}, "'test_problems' in arm mgrpo"),
    ("smoke", {"arms": {"mgrpo": {"match_tokens_of": "grop"}}}, "unknown arm 'grop'"),
    ("smoke", {"report_to": "no_such_tracker"}, "pip install no_such_tracker"),
    ("smoke", {"system_prompt": "Add."}, "system_prompt .*leave it out"),
    ("smoke", {"sft_steps": 5}, "sft_steps .*leave it out"),
    ("smoke", {"model_revision": "main"}, "model_revision .*leave it out"),
    ("smoke", {"dtype": "bfloat16"}, "dtype .*float32"),
    ("smoke", {"dtype": "float8"}, "'dtype' is 'float8'"),
    ("smoke", {"benchmarks": ["sums"]}, "'sums' .*set model"),
    ("t4", {"sft_steps": 5}, "gsm8k .*sft_steps=0"),
    ("cpu", {"model": "owner/name"}, "train_data.*owner/name"),
    ("paper", {"model_revision": "abc", "lora_rank": 0}, "model_revision .*lora_rank"),
    ("smollm2", {"model_revision": "abc"}, "model_revision .*leave it out"),
    ("smollm2", {"train_problems": 0}, "train_problems 0 .*give a number"),
    ("smollm2", {"test_problems": 0}, "test_problems 0 .*give a number"),
    ("cpuu", {}, "'cpuu'.*'cpu'"),
]


@pytest.mark.parametrize(("profile", "settings", "named"), WRONG)
def test_wrong_settings_are_refused_with_the_setting_and_the_fix(profile, settings, named):
    with pytest.raises(ConfigError, match=named):
        load_config(profile, **settings)


def test_a_known_phrase_has_one_name():
    assert [load_config("smoke", eval_phrase=phrase).eval_phrase for phrase in (2, "2", PHRASES[1])] == [2, 2, 2]
    assert load_config("smollm2", eval_phrase="Is that so?").eval_phrase == "Is that so?"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('phrases: ["Is \\boxed{5} right?"]', "phrases holds .*x08.*single quotes"),
        ('system_prompt: "\\frac"', "system_prompt holds .*x0c.*single quotes"),
        ('system_prompt: "\\sqrt{2}"', "own.yaml.*single quotes"),
    ],
)
def test_a_profile_whose_texts_lost_their_backslash_is_refused(text, named, tmp_path, monkeypatch):
    monkeypatch.setattr(profiles, "ROOT", tmp_path)
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "own.yaml").write_text(
        f"model: owner/name\ntrain_data: sums\nbenchmarks: [sums]\n{text}\n"
    )
    with pytest.raises(ConfigError, match=named):
        load_config("own")


def test_the_miniature_alone_and_validation_do_with_one_problem():
    assert load_config("smoke", validation_problems=1).validation_problems == 1
    assert load_config("smoke", arm="base", arms={}, control_arms=["base"], test_problems=1).test_problems == 1


def test_none_means_as_the_profile_says():
    assert load_config("cpu", learning_rate=None) == load_config("cpu")


def test_the_prompt_is_the_models():
    assert load_config("cpu").prompt("1 a+1") == "<q>1 a+1<a>"
    system, question = load_config("smollm2").prompt("1 + 1?")
    assert system["content"] == load_config("smollm2").system_prompt and question == {
        "role": "user",
        "content": "1 + 1?",
    }


def test_seeds_are_read_with_commas_or_blanks():
    assert parse_seeds("0,1, 2") == parse_seeds("0 1 2") == [0, 1, 2]
    with pytest.raises(ConfigError, match="whole numbers"):
        parse_seeds("0,-1")


def test_assignments_read_numbers_as_numbers_and_texts_as_texts():
    pairs = [
        "learning_rate=1e-4",
        "max_steps=5",
        "seeds=[0,1]",
        "output_root=a/b",
        "arms={mgrpo: {}, grpo: {num_layers: 1}}",
    ]
    pairs += [
        "model_revision=12e4567",
        "system_prompt=Box it, \\boxed{}.",
        "phrases=['Sure?', \"Don't\"]",
        "epsilon_high=null",
    ]
    assert parse_assignments(pairs) == {
        "learning_rate": 1e-4,  # YAML alone reads a text
        "max_steps": 5,
        "seeds": [0, 1],
        "output_root": "a/b",
        "arms": {"mgrpo": {}, "grpo": {"num_layers": 1}},
        "model_revision": "12e4567",
        "system_prompt": "Box it, \\boxed{}.",
        "phrases": ["Sure?", "Don't"],
        "epsilon_high": None,
    }


@pytest.mark.parametrize(
    "words", [["{a:", "{b:", "[1,", "2]}}"], ["{a: {b: [1, 2]}}"], ["{a:", "{b: [1, 2]}}"]]
)  # as a shell cuts them
def test_what_a_shell_cut_inside_brackets_is_one_value(words):
    first, *rest = words
    found = parse_assignments([f"chat_template_kwargs={first}", *rest, "max_steps=3"])
    assert found == {"chat_template_kwargs": {"a": {"b": [1, 2]}}, "max_steps": 3}


@pytest.mark.parametrize(
    ("pairs", "named"),
    [
        (["learning_rate", "1e-4"], "'learning_rate'.*name=value"),
        (["benchmarks=[chains"], r"'benchmarks=\[chains'"),
        (["max_steps={a: b: c}"], "max_steps={a: b: c}"),
        (["max_steps=5", "max_steps=6"], "max_steps is given twice"),
        (["max_steps=6,num_corrections=8"], "by blanks"),
    ],
)
def test_assignments_that_cannot_be_read_are_refused(pairs, named):
    with pytest.raises(ConfigError, match=named) as refused:
        parse_assignments(pairs)
    assert "\n" not in str(refused.value)
