"""The plan of a profile on GPUs: counted against real models, and its advice followed."""

import os
import re
import shutil
import sys

import pytest

from mgrpo_lib.__main__ import main
from mgrpo_lib.experiment import pipeline as runner
from mgrpo_lib.experiment import plan, store
from mgrpo_lib.experiment.settings import ROOT, ConfigError, load_config, profile_names
from mgrpo_lib.method.prompts import PHRASES
from mgrpo_lib.tasks import miniature, miniature_model

T4, L4, A100 = plan.GPUS[:3]


def model(name: str):
    return plan.model_of(load_config("t4", model=name))


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("Qwen/Qwen2.5-1.5B-Instruct", 1.5437),
        ("Qwen/Qwen2.5-Math-1.5B", 1.5437),
        ("Qwen/Qwen2.5-Math-7B", 7.6156),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 0.1345),
    ],
)
def test_parameters_are_the_published_ones(name, billions):
    assert model(name).parameters / 1e9 == pytest.approx(billions, abs=5e-5)


def test_parameters_of_the_miniature_are_those_of_its_weights(tmp_path):
    from mgrpo_lib.experiment.models import load_base

    cfg = load_config("cpu", arm="base")
    real = load_base(cfg, str(miniature.SHIPPED))
    assert plan.model_of(cfg).parameters == sum(p.numel() for p in real.parameters())
    folder = shutil.copytree(miniature.SHIPPED, tmp_path / "own")
    miniature_model.make_tokenizer(PHRASES).save_pretrained(folder)
    own = load_config("smoke", model=str(folder), train_data="gsm8k", benchmarks=["gsm8k"])
    assert plan.model_of(own) == plan.model_of(cfg)


def test_an_unknown_model_is_refused_with_those_known():
    with pytest.raises(ConfigError, match="no/model.*known: Qwen"):
        model("no/model")


@pytest.fixture(scope="module")
def quantised():
    """The miniature's weights in 4 bits."""
    from mgrpo_lib.experiment.models import load_base

    return load_base(load_config("cpu", arm="base"), str(miniature.SHIPPED), load_in_4bit=True)


def test_4_bit_weights_take_the_bytes_that_bitsandbytes_takes(quantised):
    from bitsandbytes.nn import Linear4bit

    tables = 0
    for module in quantised.modules():
        if isinstance(module, Linear4bit):
            state = module.weight.quant_state
            parts = [state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]
            tables += sum(part.nbytes for part in parts)
    real = sum(p.nbytes for p in quantised.parameters()) + tables
    cfg = load_config("smoke", arm="mgrpo_nf4")
    assert plan.weight_bytes(plan.model_of(cfg), cfg) == real


def test_trained_parameters_are_those_of_peft(quantised):
    from peft import get_peft_model

    from mgrpo_lib.experiment.models import lora_config

    cfg = load_config("smoke", arm="mgrpo_nf4")
    real = get_peft_model(quantised, lora_config(cfg))
    assert plan.trainable(plan.model_of(cfg), cfg) == sum(p.numel() for p in real.parameters() if p.requires_grad)


def test_longer_attempts_take_more_of_everything():
    short = load_config("a100")
    long = load_config("a100", max_completion_length=2 * short.max_completion_length)
    for phase, parts in plan.memory(short).items():
        assert plan.total(plan.memory(long)[phase]) > plan.total(parts), phase
    assert all(a < b for a, b in zip(plan.tokens_per_step(short), plan.tokens_per_step(long), strict=True))
    assert plan.step_seconds(long, A100) > plan.step_seconds(short, A100)
    assert plan.evaluation_hours(long, A100) > plan.evaluation_hours(short, A100)


def test_recomputing_saves_memory_and_costs_time():
    kept, recomputed = (load_config("a100", gradient_checkpointing=on) for on in (False, True))
    assert plan.total(plan.memory(kept)["training"]) > 2 * plan.total(plan.memory(recomputed)["training"])
    assert plan.step_seconds(kept, A100) < plan.step_seconds(recomputed, A100)


def test_tokens_of_a_small_step_by_hand(monkeypatch):
    monkeypatch.setattr(plan, "MINIATURE_QUESTIONS", (8, 20))
    cfg = load_config("smoke", max_completion_length=40)  # 4 questions, G = 4, 2 drafts x 2 corrections; 20 tokens each
    first, second = plan.batches(cfg)
    assert (first.rows, first.prompt, second.rows, second.prompt) == (16, 10, 16, 10 + 20 + 1)
    assert plan.tokens_per_step(cfg) == (32 * 20, 16 * 10 + 16 * 31)
    assert plan.tokens_per_step(cfg.model_copy(update={"schedule": "alternating"})) == (320, 328)
    assert plan.tokens_per_step(cfg.model_copy(update={"num_layers": 3}))[0] == 48 * 20


def test_tokens_are_those_of_the_committed_runs(monkeypatch):
    manifests = sorted((ROOT / "results" / "cpu" / "runs").glob("*-seed*/run.json"))
    if not manifests:
        pytest.skip("no runs are committed")
    for done in map(store.read_json, manifests):
        cfg = load_config("cpu", arm=done["arm"]).model_copy(update=done["params"])
        rows = sum(batch.rows for batch in plan.batches(cfg))
        monkeypatch.setattr(
            plan, "MEAN_LENGTH", done["train_tokens"] / done["steps"] / rows / cfg.max_completion_length
        )
        read = done["processed_tokens"] - done["train_tokens"]
        assert done["steps"] * plan.tokens_per_step(cfg)[1] == pytest.approx(read, rel=0.1)


def test_a_matched_arm_makes_as_many_tokens():
    cfg = load_config("t4", arm="base")
    other, matched = cfg.of_arm("mgrpo"), cfg.of_arm("grpo_matched")
    tokens = [plan.steps(run) * plan.tokens_per_step(run)[0] for run in (other, matched)]
    assert tokens[0] == pytest.approx(tokens[1], rel=0.05)


@pytest.mark.parametrize(("gpu", "seconds"), [(T4, 94), (A100, 33), (plan.GPUS[3], 25)], ids=lambda x: str(x))
def test_step_times_near_the_only_published_ones(gpu, seconds):
    """TRL's notebook grpo_trl_lora_qlora: a 7B Qwen2 in 4 bits, rank 32, 8 completions of 256 tokens a step."""
    cfg = load_config("t4", arm="grpo", model="Qwen/Qwen2.5-Math-7B", lora_rank=32, prompts_per_step=1)
    cfg = cfg.model_copy(update={"beta": 0.0, "max_completion_length": 256})
    assert seconds / 1.5 < plan.step_seconds(cfg, gpu) < seconds * 1.5


@pytest.mark.parametrize(
    ("profile", "gib"), [("a100", 15.0), ("a100", 22.5), ("paper", 40.0), ("t4", 6.0), ("t4", 4.5)]
)
def test_advice_that_is_followed_makes_it_fit(profile, gib):
    cfg = load_config(profile, arm="base")
    advice = plan.cuts(cfg, gib)
    assert advice and plan.fits(cfg, gib).startswith("does not fit: cut ")
    assert not plan.fits(load_config(profile, arm="base", **advice), gib)


def test_what_no_cut_can_mend_is_said():
    assert "load_in_4bit" in plan.fits(load_config("paper", arm="base"), 15.0)
    assert "even with the smallest batches" in plan.fits(load_config("t4", arm="base"), 1.0)


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_is_planned(name):
    text = plan.report(load_config(name, arm="base"))
    for line in plan.ASSUMPTIONS:
        assert line in text
    for gpu in plan.GPUS:
        assert name in ("smoke", "cpu", "ablation") or gpu.name in text


@pytest.mark.parametrize(
    ("profile", "gpu", "limit"), [("t4", T4, 4), ("a100", A100, 12), ("paper", plan.GPUS[3], None)]
)
def test_profiles_fit_what_they_were_planned_for(profile, gpu, limit):
    cfg = load_config(profile, arm="base")
    assert not plan.fits(cfg, gpu.memory)
    assert limit is None or sum(plan.hours(cfg, gpu).values()) <= limit
    assert "too long" not in plan.report(cfg)
    header = " ".join((ROOT / "profiles" / f"{profile}.yaml").read_text().split("model:")[0].replace("#", " ").split())
    memory, hours = re.search(r"at most ([\d.]+) GiB .*? ([\d.]+) hours", header).groups()
    runs = [cfg.of_arm(arm) for arm in cfg.arms]
    phases = {"training": runs, "sampling": runs, "evaluation": [cfg, *runs]}
    peak = max(plan.peak(which, phase, {}) for phase, which in phases.items())
    assert float(memory) == pytest.approx(peak, abs=0.1), "what the profile says it was planned for"
    assert float(hours) == pytest.approx(sum(plan.hours(cfg, gpu).values()), rel=0.02)


def test_the_report_says_how_much_longer_measured_steps_took(monkeypatch, tmp_path):
    """The factor is that of the file; without a measured row nothing is said."""
    cfg, file = load_config("cpu", arm="base"), tmp_path / "benchmarks" / "results" / "precision.json"
    monkeypatch.setattr(plan, "ROOT", tmp_path)
    assert plan.report(cfg).splitlines()[1] == "An estimate."
    row = {
        "case": "t4",
        "weights": "bfloat16",
        "seconds": 30.0,
        "planned_seconds": 12.0,
        "environment": {"gpu": "H100"},
    }
    for rows, said in [
        ([{"case": "t4", "weights": "NF4", "failed": "gave up"}], "An estimate."),
        ([row, {**row, "weights": "NF4", "seconds": 18.0}], "t4 in bfloat16 on H100 took 2.5, t4 in NF4 on H100 took 1.5 times"),
        ([row], "took 2.5 times the seconds planned, so count on hours 2.5 times as long."),
    ]:  # fmt: skip
        store.write_json(file, {"rows": rows})
        assert said in plan.report(cfg).splitlines()[1]


def test_the_command_prints_it_and_its_assumptions(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mgrpo_lib", "plan", "--profile", "t4", "--params", "max_steps=7"])
    assert main() == 0
    text = capsys.readouterr().out
    assert "1,543,714,304 parameters" in text and "T4" in text and "Assumptions:" in text


# ------------------------------------------------------------------------------------------------- before a run
def test_the_chain_refuses_what_cannot_fit_before_it_starts(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(runner, "gpus", lambda: [("Tesla T4", 15.0)])
    with pytest.raises(ConfigError, match="paper on Tesla T4 .* does not fit"):
        runner.reproduce("paper", {}, out=str(tmp_path))
    assert not list(tmp_path.iterdir())
    runner.check_memory(load_config("t4", arm="base"))
    runner.check_memory(load_config("cpu", arm="base"))
    assert "memory" not in capsys.readouterr().out
    cfg = load_config("t4", arm="base", eval_batch_size=96)  # 13.0 GiB, and 14.6 with what may be lost
    monkeypatch.setattr(runner, "gpus", lambda: [("GPU", 14.0)])
    runner.check_memory(cfg)
    assert "memory may be short on GPU (14.0 GiB); if it is: cut eval_batch_size" in capsys.readouterr().out
    assert runner.default_workers(cfg) == 1


def test_without_a_gpu_the_memory_of_the_machine_counts(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(runner, "gpus", list)
    monkeypatch.setattr(runner.machine, "memory", lambda: (24.0, 20.0))
    with pytest.raises(ConfigError, match=r"paper on a machine without a GPU \(24.0 GiB\) does not fit: cut "):
        runner.reproduce("paper", {}, out=str(tmp_path))
    assert not list(tmp_path.iterdir())
    runner.check_memory(load_config("t4", arm="base"))
    (said,) = capsys.readouterr().out.splitlines()
    assert said.startswith("note: profile t4 was planned for a GPU; on CPUs a model of that size takes days")
    monkeypatch.setattr(runner.machine, "memory", lambda: (2.0, 2.0))
    for made_on_cpus in ("cpu", "smollm2", "smollm2_nf4", "smollm2_real"):
        runner.check_memory(load_config(made_on_cpus, arm="base"))
    assert not capsys.readouterr().out


def test_a_run_with_a_model_of_the_hub_is_planned_from_its_config_alone(monkeypatch, capsys):
    from transformers import AutoConfig, Qwen2Config

    def fetch(name, revision, trust_remote_code):
        assert (revision, trust_remote_code) == ("abc", False)
        if name == "me/hidden":
            raise OSError("no such model")
        return Qwen2Config.from_dict(plan.MODELS["Qwen/Qwen2.5-Math-7B"])

    monkeypatch.setattr(plan, "MODELS", dict(plan.MODELS))
    monkeypatch.setattr(AutoConfig, "from_pretrained", fetch)
    monkeypatch.setattr(runner, "gpus", lambda: [("Tesla T4", 15.0)])
    paper = load_config("paper", arm="base", model="me/copy", model_revision="abc")
    with pytest.raises(ConfigError, match="me/copy.*nothing is downloaded to plan"):
        plan.report(paper)
    with pytest.raises(ConfigError, match="paper on Tesla T4 .* does not fit"):
        runner.check_memory(paper)
    assert plan.model_of(paper) == model("Qwen/Qwen2.5-Math-7B")
    runner.check_memory(load_config("paper", arm="base", model="me/hidden", model_revision="abc"))
    assert capsys.readouterr().out.startswith("note: memory is not planned: the sizes of 'me/hidden' are not known")


def test_that_vllm_is_not_counted_is_said(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    cfg = load_config("paper", arm="base", use_vllm=True)
    monkeypatch.undo()
    monkeypatch.setattr(cfg.__class__, "of_arm", lambda cfg, arm: cfg)
    monkeypatch.setattr(plan, "fits", lambda cfg, gib, reserve=True: "")
    monkeypatch.setattr(runner, "gpus", lambda: [("H100", 79.6)])
    runner.check_memory(cfg)
    assert capsys.readouterr().out.startswith("note: use_vllm: what vLLM itself takes of the GPU")


def test_auto_stays_on_the_cpu_and_says_what_the_gpu_would_allow(monkeypatch):
    for gib, profile in [(15.0, "t4"), (40.0, "a100"), (79.6, "paper")]:
        monkeypatch.setattr(runner, "gpus", lambda gib=gib: [("a GPU", gib)])
        assert runner.hardware_profile() == "cpu"
        assert runner.gpu_hint().endswith(f"make plan PROFILE={profile}") and "\n" not in runner.gpu_hint()
    for none in ([], [("old", 8.0)]):
        monkeypatch.setattr(runner, "gpus", lambda none=none: none)
        assert runner.gpu_hint() == ""


def test_gpus_are_read_from_nvidia_smi(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert runner.gpus() == []
    tool = tmp_path / "nvidia-smi"
    for body, found in [("echo 'Tesla T4, 15360'", [("Tesla T4", 15.0)]), ("echo broken", []), ("exit 9", [])]:
        tool.write_text(f"#!/bin/sh\n{body}\n")
        os.chmod(tool, 0o755)
        assert runner.gpus() == found
