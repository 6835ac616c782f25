"""The plan of an experiment on a GPU: counted against real models, and its advice followed; and what it refuses."""

import os
import re
import sys

import pytest

from mgrpo_lib.__main__ import main
from mgrpo_lib.experiment import gpu, machine, pipeline, plan, store
from mgrpo_lib.experiment.modelsize import MODELS, model_of
from mgrpo_lib.experiment.settings import ROOT, ConfigError, load_config, profile_names
from mgrpo_lib.tasks import miniature

T4, L4, A100, A100_80 = plan.GPUS[:4]


# ------------------------------------------------------------------------------------------------------- the model
@pytest.mark.parametrize(
    ("name", "billions"), zip(MODELS, [0.4940, 1.5437, 1.5437, 7.6156, 0.1345, 0.1345, 0.4940], strict=True)
)
def test_parameters_are_the_published_ones(name, billions):
    cfg = load_config("t4", arm="base").model_copy(update={"model": name})
    assert model_of(cfg).parameters / 1e9 == pytest.approx(billions, abs=5e-5)


@pytest.fixture(scope="module")
def quantised():
    """The miniature's weights in 4 bits."""
    from mgrpo_lib.experiment.models import load_base

    return load_base(load_config("cpu", arm="base"), str(miniature.SHIPPED), load_in_4bit=True)


def test_sizes_are_those_of_torch_peft_and_bitsandbytes(quantised):
    from bitsandbytes.nn import Linear4bit
    from peft import get_peft_model

    from mgrpo_lib.experiment.models import load_base, lora_config

    cfg = load_config("smoke", arm="mgrpo_nf4")
    model = model_of(cfg)
    assert model.parameters == sum(p.numel() for p in load_base(cfg, str(miniature.SHIPPED)).parameters())
    packed = 0
    for module in quantised.modules():
        if isinstance(module, Linear4bit):
            state = module.weight.quant_state
            packed += module.weight.nbytes + state.absmax.nbytes + state.state2.absmax.nbytes
    assert packed / model.linear == pytest.approx(plan.NF4_BYTES, rel=0.01)
    trained = get_peft_model(quantised, lora_config(cfg))
    assert plan.trainable(cfg) == sum(p.numel() for p in trained.parameters() if p.requires_grad)


def test_a_model_of_the_hub_is_planned_from_its_config_alone(monkeypatch, capsys):
    from transformers import AutoConfig, Qwen2Config

    def fetch(name, revision, trust_remote_code):
        assert (revision, trust_remote_code) == ("abc", False)
        if name == "me/hidden":
            raise OSError("no such model")
        return Qwen2Config.from_dict(MODELS["Qwen/Qwen2.5-Math-7B"])

    monkeypatch.setattr(AutoConfig, "from_pretrained", fetch)
    monkeypatch.setattr(machine, "gpus", lambda: [("Tesla T4", 15.0)])
    paper = load_config("paper", arm="base", model="me/copy", model_revision="abc")
    assert model_of(paper) == model_of(load_config("paper", arm="base"))
    with pytest.raises(ConfigError, match="paper on Tesla T4 .* does not fit"):
        pipeline.check_memory(paper)
    hidden = load_config("paper", arm="base", model="me/hidden", model_revision="abc")
    with pytest.raises(ConfigError, match="me/hidden.*Qwen"):
        plan.report(hidden, [])
    pipeline.check_memory(hidden)
    assert "me/hidden" in capsys.readouterr().out, "a model of unknown size is let through, with a note"


# ------------------------------------------------------------------------------------------------- memory and time
def test_longer_attempts_take_more_and_recomputing_trades_time_for_memory():
    short = load_config("a100")
    long = load_config("a100", max_completion_length=2 * short.max_completion_length)
    for phase, gib in plan.memory(short).items():
        assert plan.memory(long)[phase] > gib, phase
    assert all(a < b for a, b in zip(plan.tokens_per_step(short), plan.tokens_per_step(long), strict=True))
    assert all(plan.hours(long, A100)[arm] > hours for arm, hours in plan.hours(short, A100).items())
    kept, recomputed = (load_config("a100", gradient_checkpointing=on) for on in (False, True))
    assert plan.memory(kept)["training"] > 2 * plan.memory(recomputed)["training"]
    assert plan.step_seconds(kept, A100) < plan.step_seconds(recomputed, A100)


def test_tokens_of_a_small_step_by_hand(monkeypatch):
    monkeypatch.setattr(plan, "MINIATURE_QUESTIONS", (8, 20))
    cfg = load_config("smoke", max_completion_length=40)  # 4 questions, G = 4, 2 drafts x 2 corrections; 20 tokens each
    assert plan.rows(cfg) == [16, 16]
    assert plan.prompt(cfg, "miniature", 0)[0] == 10 and plan.prompt(cfg, "miniature", 1)[0] == 10 + 20 + 1
    assert plan.tokens_per_step(cfg) == (32 * 20, 16 * 10 + 16 * 31)
    assert plan.tokens_per_step(cfg.model_copy(update={"num_layers": 3}))[0] == 48 * 20


def test_tokens_are_those_of_the_committed_runs(monkeypatch):
    manifests = sorted((ROOT / "results" / "cpu" / "runs").glob("*-seed*/run.json"))
    if not manifests:
        pytest.skip("no runs are committed")
    for done in map(store.read_json, manifests):
        cfg = load_config("cpu", arm=done["arm"])
        sampled = done["train_tokens"] / done["steps"] / sum(plan.rows(cfg))
        monkeypatch.setattr(plan, "MEAN_LENGTH", sampled / cfg.max_completion_length)
        read = done["processed_tokens"] - done["train_tokens"]
        assert done["steps"] * plan.tokens_per_step(cfg)[1] == pytest.approx(read, rel=0.1)


def test_a_matched_arm_makes_as_many_tokens():
    cfg = load_config("t4", arm="base")
    other, matched = cfg.of_arm("mgrpo"), cfg.of_arm("grpo_matched")
    tokens = [plan.steps(run) * plan.tokens_per_step(run)[0] for run in (other, matched)]
    assert tokens[0] == pytest.approx(tokens[1], rel=0.05)


@pytest.mark.parametrize(("gpu", "seconds"), [(T4, 94), (A100, 33), (A100_80, 25)], ids=lambda x: str(x))
def test_step_times_near_the_only_published_ones(gpu, seconds):
    """TRL's notebook grpo_trl_lora_qlora: a 7B Qwen2 in 4 bits, rank 32, 8 completions of 256 tokens a step."""
    cfg = load_config(
        "t4", arm="grpo", model="Qwen/Qwen2.5-Math-7B", lora_rank=32, prompts_per_step=1, micro_batch_size=8
    )
    cfg = cfg.model_copy(update={"beta": 0.0, "max_completion_length": 256})
    assert seconds / 1.5 < plan.step_seconds(cfg, gpu) < seconds * 1.5


@pytest.mark.parametrize(
    ("profile", "gib"), [("a100", 15.0), ("a100", 22.5), ("paper", 40.0), ("t4", 6.0), ("t4", 4.5)]
)
def test_advice_that_is_followed_makes_it_fit(profile, gib):
    cfg = load_config(profile, arm="base")
    advice = plan.cuts(cfg, gib)
    assert advice and all(f"{name} to {value}" in plan.fits(cfg, gib) for name, value in advice.items())
    assert not plan.fits(load_config(profile, arm="base", **advice), gib)


def test_if_no_cut_helps_other_settings_are_named():
    assert "load_in_4bit" in plan.fits(load_config("paper", arm="base"), 15.0)
    assert "max_completion_length" in plan.fits(load_config("t4", arm="base"), 1.0)


@pytest.mark.parametrize(
    ("profile", "gpu", "limit"), [("colab", T4, 2), ("t4", T4, 12), ("a100", A100, 12), ("paper", A100_80, 300)]
)
def test_profiles_fit_what_they_were_planned_for(profile, gpu, limit):
    cfg = load_config(profile, arm="base")
    hours = sum(plan.hours(cfg, gpu).values())
    assert not plan.fits(cfg, gpu.memory) and hours <= limit
    text = (ROOT / "profiles" / f"{profile}.yaml").read_text(encoding="utf-8")
    header = " ".join(re.match(r"(#.*\n)+", text)[0].replace("#", " ").split())
    said = [
        float(number) for number in re.search(r"Planned by .*? at most ([\d.]+) GiB, ([\d.]+) hours", header).groups()
    ]
    peak = max(max(plan.memory(cfg.of_arm(arm)).values()) for arm in ("base", *cfg.arms))
    assert said == [pytest.approx(peak, abs=0.1), pytest.approx(hours, rel=0.02, abs=0.06)], (
        "what the profile's head says"
    )


# ---------------------------------------------------------------------------------------------------------- report
def test_every_profile_is_planned_and_the_first_line_answers():
    for name in profile_names():
        cfg = load_config(name, arm="base")
        first, *rest = plan.report(cfg, []).splitlines()
        assert "fits" in first and (cfg.model == "miniature" or "GiB; this machine has no GPU" in first)
        assert len(rest) <= 5, "measured, three lines of assumptions, how to see more"
        table = plan.report(cfg, [], details=True).splitlines()
        assert table[0] == first and all(any(row.split()[:1] == [arm] for row in table) for arm in cfg.arms)


def test_without_a_gpu_the_smallest_that_fits_is_planned_and_the_machines_own_always():
    for profile, name in [("colab", "T4"), ("a100", "A100 40 GB"), ("paper", "A100 80 GB")]:
        cfg = load_config(profile, arm="base")
        assert f"on {name} (" in plan.verdict(cfg, []) and "does not fit" not in plan.verdict(cfg, [])
    assert "on Tesla T4 (15.0 GiB): does not fit" in plan.verdict(
        load_config("paper", arm="base"), [("Tesla T4", 15.0)]
    )


def test_an_arm_of_colab_is_planned_for_about_an_hour_and_memory_to_spare():
    cfg = load_config("colab", arm="base")
    hours = plan.hours(cfg, T4)
    assert 0.75 < hours["mgrpo"] <= 1.05 and hours["grpo_matched"] < hours["mgrpo"]
    assert not plan.fits(cfg, 0.8 * T4.memory)
    assert f"(mgrpo {hours['mgrpo']:.1f}, grpo_matched {hours['grpo_matched']:.1f})" in plan.verdict(cfg, [])


@pytest.mark.parametrize(
    ("name", "gib", "planned"),
    [
        ("NVIDIA A100-SXM4-80GB", 80.0, "A100 80 GB"),
        ("NVIDIA A100-PCIE-40GB", 39.4, "A100 40 GB"),
        ("NVIDIA L4", 22.5, "L4"),
        ("NVIDIA L40S", 45.0, None),
    ],
)
def test_gpus_are_known_by_their_whole_name(name, gib, planned):
    assert getattr(plan.nearest(name, gib), "name", None) == planned
    first = plan.report(load_config("t4", arm="base"), [(name, gib)]).splitlines()[0]
    assert f"{name} ({gib:.1f} GiB)" in first and ("hours" in first) == (planned is not None)


def test_the_command_prints_it(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mgrpo_lib", "plan", "--profile", "t4", "--details", "--set", "max_steps=7"])
    assert main() == 0
    text = capsys.readouterr().out
    assert "1,543,714,304" in text and f"{7 * 16384:,}" in text, "parameters; tokens of seven steps"


# ------------------------------------------------------------------------------------------------- before a run
def test_what_cannot_fit_is_refused_before_it_starts(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(machine, "gpus", lambda: [("Tesla T4", 15.0)])
    with pytest.raises(ConfigError, match="paper on Tesla T4 .* does not fit"):
        pipeline.reproduce("paper", {}, out=str(tmp_path))
    assert not list(tmp_path.iterdir())
    pipeline.check_memory(load_config("t4", arm="base"))
    pipeline.check_memory(load_config("cpu", arm="base"))
    assert not capsys.readouterr().out
    cfg = load_config("t4", arm="base", eval_batch_size=96)  # 13.0 GiB, and 14.7 with what fragmentation may lose
    monkeypatch.setattr(machine, "gpus", lambda: [("GPU", 14.0)])
    pipeline.check_memory(cfg)
    assert "GPU (14.0 GiB); if it is: cut eval_batch_size" in capsys.readouterr().out
    assert pipeline.default_workers(cfg) == 1


def test_without_a_gpu_the_memory_of_the_machine_counts(monkeypatch, capsys):
    monkeypatch.setattr(machine, "gpus", list)
    monkeypatch.setattr(machine, "memory", lambda: (24.0, 20.0))
    with pytest.raises(ConfigError, match=r"a machine without a GPU \(24.0 GiB\) does not fit: cut "):
        pipeline.check_memory(load_config("paper", arm="base"))
    pipeline.check_memory(load_config("t4", arm="base"))
    (said,) = capsys.readouterr().out.splitlines()
    assert "t4" in said and "GPU" in said
    monkeypatch.setattr(machine, "memory", lambda: (2.0, 2.0))
    for made_on_cpus in ("cpu", "smollm2", "smollm2_nf4", "smollm2_real", "qwen_real", "qwen_real_nf4"):
        pipeline.check_memory(load_config(made_on_cpus, arm="base"))
    assert not capsys.readouterr().out


def test_auto_stays_on_the_cpu_and_names_the_profiles_that_the_gpu_allows(monkeypatch):
    assert pipeline.configuration("auto", {}).profile == "cpu"
    for gib, largest in [(15.0, "t4"), (40.0, "a100"), (79.6, "paper")]:
        monkeypatch.setattr(machine, "gpus", lambda gib=gib: [("a GPU", gib)])
        assert f"by plan is {largest}" in gpu.gpu_hint() and gpu.gpu_hint().endswith("make plan PROFILE=colab")
    for none in ([], [("old", 8.0)]):
        monkeypatch.setattr(machine, "gpus", lambda none=none: none)
        assert gpu.gpu_hint() == ""


def test_a_notebook_of_the_miniature_offers_what_the_gpu_could_train(monkeypatch, capsys):
    miniature_run, large = load_config("cpu"), load_config("colab")
    gpu.offer(miniature_run)
    monkeypatch.setattr(machine, "gpus", lambda: [("Tesla T4", 15.0)])
    gpu.offer(large)
    assert not capsys.readouterr().out, "no GPU, or what it is for already"
    gpu.offer(miniature_run)
    (said,) = capsys.readouterr().out.splitlines()
    assert 'profile = "colab"' in said and "Tesla T4" in said
    cells = store.read_json(ROOT / "notebooks" / "04_mgrpo.ipynb")["cells"]
    assert any("gpu.offer(cfg)" in "".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def test_gpus_are_read_from_nvidia_smi(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.gpus() == []
    tool = tmp_path / "nvidia-smi"
    for body, found in [("echo 'Tesla T4, 15360'", [("Tesla T4", 15.0)]), ("echo broken", []), ("exit 9", [])]:
        tool.write_text(f"#!/bin/sh\n{body}\n")
        os.chmod(tool, 0o755)
        assert machine.gpus() == found


def test_the_miniatures_time_is_that_of_its_tokens():
    """Profile cpu takes what it took; twice the steps take twice as long; profile dose takes hours, and says so."""
    cpu = load_config("cpu", arm="base")
    measured = store.read_json(ROOT / "results" / "cpu" / "timing.json")["seconds"] / 3600
    assert plan.miniature_hours(cpu) == pytest.approx(measured)
    assert plan.miniature_hours(load_config("cpu", arm="base", max_steps=120)) == pytest.approx(2 * measured)
    assert 1 < plan.miniature_hours(load_config("dose", arm="base")) < 3
    assert "hours" in plan.verdict(load_config("dose", arm="base"), []).rpartition(";")[2]
