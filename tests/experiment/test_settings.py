"""Parameters: whatever is misspelt, mistyped or impossible is refused before any work, with the mend."""

import pytest

from mgrpo_lib.experiment.settings import (
    ConfigError,
    TrainSettings,
    from_notebook,
    load_config,
    parse_assignments,
    parse_seeds,
    profile_names,
)
from mgrpo_lib.method.prompts import PHRASES


@pytest.mark.parametrize("profile", profile_names())
def test_every_arm_of_every_profile_resolves(profile):
    cfg = load_config(profile, arm="base")
    if profile == "smollm2_real":
        assert cfg.arms == {} and load_config(profile).arm == "base", "the base model alone"
        return
    assert "mgrpo" in cfg.arms and ("grpo_matched" in cfg.arms or profile == "smollm2_nf4")
    for arm, changes in cfg.arms.items():
        run = cfg.of_arm(arm, seed=3)
        assert (run.arm, run.seed, run.run_name) == (arm, 3, f"{arm}-seed3")
        for name, value in changes.items():
            assert getattr(run, name) == value
    assert all(cfg.of_arm(arm).num_layers == 1 for arm in cfg.arms if arm.startswith("grpo"))
    assert cfg.of_arm("mgrpo").num_layers == 2


def test_a_profile_that_extends_another_changes_what_it_names_alone():
    cpu, ablation = load_config("cpu", arm="base"), load_config("ablation", arm="base")
    differing = {name for name, value in ablation.model_dump().items() if value != cpu.model_dump()[name]}
    assert differing == {"profile", "seeds", "arms", "control_arms", "samples"}


def test_arms_differ_only_in_what_the_profile_says():
    cfg = load_config("cpu", arm="base")
    mgrpo, matched = (cfg.of_arm(arm).settings(TrainSettings) for arm in ("mgrpo", "grpo_matched"))
    assert {name for name in mgrpo if mgrpo[name] != matched[name]} == set(cfg.arms["grpo_matched"]) - set(
        cfg.arms["mgrpo"]
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"learning_rat": 1.0}, "unknown parameter 'learning_rat'.*did you mean 'learning_rate'"),
        ({"learning_rate": "fast"}, "'learning_rate' is 'fast' \\(str\\).*number"),
        ({"learning_rate": -1.0}, "greater than 0"),
        ({"learning_rate": float("inf")}, "'learning_rate' is inf .*finite"),
        ({"max_steps": 2.5}, "'max_steps' is 2.5 \\(float\\).*integer"),
        ({"seeds": []}, "'seeds' is \\[\\]"),
        ({"arm": "mgrop"}, "unknown arm 'mgrop'.*did you mean 'mgrpo'"),
        ({"num_corrections": 1}, "num_corrections 1: .*correction_advantage difference"),
        ({"num_corrections": 1, "drafts_per_prompt": 1, "correction_advantage": "progress"}, "num_corrections 1: "),
        ({"keep_corrections": "successes"}, "set correction_advantage difference"),
        ({"select_drafts": "mixed", "drafts_per_prompt": 1}, "set drafts_per_prompt to 2"),
        ({"select_drafts": "rong"}, "'all', 'wrong' or 'mixed'"),
        ({"phrase_role": "user"}, "needs a chat model"),
        ({"phrases": ["Is that so?"]}, "does not know 'Is that so.'"),
        ({"phrases": []}, "at least 1 item"),
        ({"eval_phrase": "Is that so?"}, "does not know 'Is that so.'"),
        ({"eval_phrase": 8}, "are 1 to 7; or give a text"),
        ({"eval_phrase": " "}, "is empty"),
        ({"micro_batch_size": 7}, "does not divide.*use 4"),
        ({"layer_weights": [1.0]}, "one weight a layer"),
        ({"drafts_per_prompt": 99}, "exceeds num_generations"),
        ({"loss_type": "grp"}, "'loss_type' is 'grp'"),
        ({"benchmarks": ["chain"]}, "unknown benchmark 'chain'; did you mean"),
        ({"benchmarks": "chains"}, r"should be a valid list; write \[chains\]"),
        ({"seeds": [1, 1]}, "give each once"),
        ({"match_tokens_of": "mgrpo"}, "belongs into an arm's line"),
        ({"train_problems": 2}, "fewer than prompts_per_step"),
        ({"arms": {"mgrpo": {"match_tokens_of": "a"}, "a": {"match_tokens_of": "mgrpo"}}}, "itself matches"),
        ({"load_in_4bit": True}, "set lora_rank"),
        ({"arms": {"mgrpo": {"learning_rte": 1.0}}}, "did you mean 'learning_rate'"),
        ({"arms": {"mgrpo": 1}}, r"arms is {'mgrpo': 1}; write each arm .* {mgrpo: {}}"),
        ({"arms": ["mgrpo"]}, r"arms is \['mgrpo'\]; write each arm"),
        ({"arms": {"mgrpo": {"test_problems": 1}}}, "may only change training settings"),
        ({"arms": {"mgrpo": {"match_tokens_of": "grop"}}}, "unknown arm 'grop'"),
    ],
)
def test_wrong_parameters_are_refused_with_the_nearest_valid_name(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_config("smoke", **overrides)


@pytest.mark.parametrize(
    ("profile", "overrides", "message"),
    [
        ("smoke", {"system_prompt": "Add."}, "system_prompt is for language models"),
        ("smoke", {"sft_steps": 5}, "sft_steps is for language models"),
        ("smoke", {"model_revision": "main"}, "model_revision is for language models"),
        ("smoke", {"dtype": "bfloat16"}, "the miniature computes in float32"),
        ("smoke", {"dtype": "float8"}, "'dtype' is 'float8'"),
        (
            "smoke",
            {"benchmarks": ["sums"]},
            "'sums' is text, and the model 'miniature' reads arithmetic alone; set model",
        ),
        ("t4", {"use_vllm": True}, "set load_in_4bit=false, or use_vllm=false"),
        (
            "paper",
            {"use_vllm": True, "control_arms": [], "arms": {"mgrpo": {"load_in_4bit": True}}},
            "set load_in_4bit=false",
        ),
        ("t4", {"sft_steps": 5}, "gsm8k has not here; set sft_steps=0"),
        ("smollm2", {"push_to_hub": "owner/name"}, "without the warmed-up model"),
        ("cpu", {"model": "owner/name"}, "'miniature' is in the miniature's own signs; for owner/name set train_data,"),
        ("paper", {"model_revision": "abc", "lora_rank": 0}, "does not reach TRL's reference model"),
        ("smollm2", {"model_revision": "abc"}, "the model is a folder; leave it out"),
        ("smollm2", {"train_problems": 0}, "sums has no end"),
        ("smollm2", {"test_problems": 0}, "have no end"),
    ],
)
def test_settings_that_do_not_go_with_the_model_are_refused(profile, overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_config(profile, **overrides)


def test_vllm_is_refused_where_it_is_not_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs vLLM and a CUDA GPU: pip install"):
        load_config("paper", use_vllm=True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert load_config("paper", use_vllm=True).use_vllm


def test_a_known_phrase_has_one_name():
    assert [load_config("smoke", eval_phrase=phrase).eval_phrase for phrase in (2, "2", PHRASES[1])] == [2, 2, 2]
    assert load_config("smollm2", eval_phrase="Is that so?").eval_phrase == "Is that so?"


def test_unknown_profile_is_refused():
    with pytest.raises(ConfigError, match="unknown profile 'cpuu'; did you mean 'cpu'"):
        load_config("cpuu")


def test_none_means_as_the_profile_says():
    assert load_config("cpu", learning_rate=None) == load_config("cpu")


def test_seeds_are_read_with_commas_or_blanks():
    assert parse_seeds("0,1, 2") == parse_seeds("0 1 2") == [0, 1, 2]
    with pytest.raises(ConfigError, match="whole numbers"):
        parse_seeds("0,-1")


def test_assignments_read_numbers_as_numbers():
    # YAML alone reads 1e-4 as a string
    assert parse_assignments("learning_rate=1e-4 max_steps=5 seeds=[0,1] output_root=a/b drafts_per_prompt=null") == {
        "learning_rate": 1e-4,
        "max_steps": 5,
        "seeds": [0, 1],
        "output_root": "a/b",
        "drafts_per_prompt": None,
    }
    text = "model_revision=12e4567 system_prompt='Box it, \\boxed{}.' max_steps=5"
    assert parse_assignments(text) == {
        "model_revision": "12e4567", "system_prompt": "Box it, \\boxed{}.", "max_steps": 5,
    }  # fmt: skip
    assert parse_assignments("system_prompt=Use{x model=a[b max_steps=5") == {
        "system_prompt": "Use{x", "model": "a[b", "max_steps": 5,
    }  # fmt: skip
    text = "benchmarks=[gsm8k, math500] arms={mgrpo: {}, grpo: {num_layers: 1}}  phrases=['Sure, [it] is?', \"Don't\"]"
    assert parse_assignments(text) == {
        "benchmarks": ["gsm8k", "math500"],
        "arms": {"mgrpo": {}, "grpo": {"num_layers": 1}},
        "phrases": ["Sure, [it] is?", "Don't"],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate 1e-4", "write name=value"),
        ("max_steps=5 benchmarks=[chains", "'benchmarks=.chains': a bracket is left open; close it"),
        ("max_steps={a: b: c}", "cannot read 'max_steps={a: b: c}'; write lists as"),
        ("max_steps=5 max_steps=6", "max_steps is given twice, as 5 and as 6; leave one out"),
    ],
)
def test_assignments_that_cannot_be_read_are_refused_in_a_sentence(text, message):
    with pytest.raises(ConfigError, match=message) as refused:
        parse_assignments(text)
    assert "\n" not in str(refused.value)


def test_notebook_parameters_are_read_from_both_cells_and_nothing_else():
    declared = '# Parameters\nprofile = "smoke"  # help\nseed = 0\nmax_steps: int = None'
    injected = "# Parameters\nseed = 4\nlearning_rate = 0.5"
    names = {"profile": "smoke", "seed": 4, "max_steps": None, "learning_rate": 0.5, "rows": [1, 2]}
    cfg = from_notebook({"In": ["", "import this", declared, injected, "cfg = from_notebook(globals())"], **names})
    assert (cfg.profile, cfg.seed, cfg.learning_rate) == ("smoke", 4, 0.5)
    # a later cell may use any name; the configuration can be read again
    assert (
        from_notebook(
            {"In": ["", declared, injected, "cfg = 1", "rows = [1, 2]", "cfg = from_notebook(globals())"], **names}
        )
        == cfg
    )


def test_values_that_the_defaults_have_overwritten_stop_the_notebook():
    """Where no cell is tagged, papermill puts its values first. By hand cells may be run again and again."""
    injected, declared = '# Parameters\nprofile = "smoke"\nseed = 4', '# Parameters\nprofile = "cpu"  # help\nseed = 0'
    names = {"profile": "cpu", "seed": 0}
    with pytest.raises(ConfigError, match="no cell is tagged 'parameters'; restore the tag"):
        from_notebook({"In": ["", injected, "import this", declared, "cfg = from_notebook(globals())"], **names})
    edited = declared.replace("seed = 0", "seed = 1")
    by_hand = [
        "",
        "import this",
        edited,
        "cfg = from_notebook(globals())",
        "rows = 1",
        declared,
        "from_notebook(globals())",
    ]
    assert from_notebook({"In": by_hand, **names}).seed == 0


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("max_step", 3, "did you mean 'max_steps'"),
        ("max_steps", "three", "'max_steps' is 'three'"),
        ("max_steps", 0, "greater than or equal to 1"),
        ("num_corrections", 1, "num_corrections 1: "),
    ],
)
def test_a_notebook_refuses_what_a_command_refuses(name, value, message):
    cells = ["", '# Parameters\nprofile = "smoke"', f"# Parameters\n{name} = {value!r}", ""]
    with pytest.raises(ConfigError, match=message):
        from_notebook({"In": cells, "profile": "smoke", name: value})


def test_notebook_with_a_misspelt_parameter_stops():
    cells = ["", '# Parameters\nprofile = "smoke"', "# Parameters\nlearning_rat = 1", ""]
    with pytest.raises(ConfigError, match="did you mean 'learning_rate'"):
        from_notebook({"In": cells, "profile": "smoke", "learning_rat": 1})
