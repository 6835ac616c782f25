"""The view of a running training: sparing, only where somebody looks, and no part of any result."""

import importlib
import sys
import types

import pandas as pd
import papermill
import pytest
from transformers import TrainerControl, TrainerState

from mgrpo_lib.experiment import fingerprints, progress, store
from mgrpo_lib.experiment.settings import ROOT, ConfigError, load_config
from mgrpo_lib.explore import live
from mgrpo_lib.report import figures


class Clock:
    """A clock that a test turns on."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def entry(step: int, layers: int = 2) -> dict:
    """What the trainer logs of a step, as far as it is shown."""
    one = {"reward": 0.25, "frac_reward_zero_std": 0.5, "completions/mean_length": 20.0}
    two = {"layer2/reward": 0.75, "layer2/fixed": 0.4, "layer2/broken": 0.1, "layer2/completions/mean_length": 30.0}
    return {"loss": 0.0, "generated_tokens": 1000 * step, "step": step, **one, **(two if layers == 2 else {})}


def run(report: live.Report, clock: Clock, steps: range, max_steps: int, seconds: float = 1.0, layers: int = 2) -> None:
    """Lets a report see steps of a training, each `seconds` long."""
    args, control = types.SimpleNamespace(max_steps=max_steps), TrainerControl()
    state = TrainerState(global_step=steps[0] - 1)
    state.log_history = [entry(step, layers) for step in range(1, steps[0])]
    report.on_train_begin(args, state, control)
    for step in steps:
        clock.seconds += seconds
        state.global_step = step
        state.log_history.append(entry(step, layers))
        report.on_log(args, state, control, logs=state.log_history[-1])
    state.log_history.append({"train_runtime": 1.0, "step": state.global_step})
    report.on_log(args, state, control, logs=state.log_history[-1])
    report.on_train_end(args, state, control)


@pytest.fixture
def cfg(tmp_path):
    return load_config("smoke", seed=0, output_root=str(tmp_path))


@pytest.fixture
def shown(monkeypatch):
    """What is displayed: (how, image), in order."""
    pictures = []
    handle = types.SimpleNamespace(update=lambda image: pictures.append(("update", image)))
    monkeypatch.setattr(live, "display", lambda image, display_id: pictures.append(("new", image)) or handle)
    return pictures


def test_an_open_notebook_has_one_picture_redrawn_every_few_seconds(cfg, shown, capsys):
    clock = Clock()
    run(live.Report(cfg, None, open_notebook=True, now=clock), clock, range(1, 41), max_steps=40, seconds=0.5)
    assert [how for how, _ in shown] == ["new"] + ["update"] * (len(shown) - 1), "always in the same place"
    assert len(shown) == 20 / live.REDRAWN, "20 seconds, however many steps"
    assert capsys.readouterr().out == "", "no lines beside the picture"
    final = shown[-1][1]
    assert final.data.startswith(b"\x89PNG") and "step 40/40" in final.alt
    assert not figures.plt.get_fignums(), "the notebook would show them a second time"


def test_elsewhere_there_are_lines_alone_with_all_that_the_picture_shows(cfg, shown, capsys):
    clock = Clock()
    run(live.Report(cfg, None, open_notebook=False, now=clock), clock, range(1, 101), max_steps=100)
    lines = capsys.readouterr().out.splitlines()
    assert shown == [] and len(lines) == 100 / live.PRINTED
    assert lines[0] == (
        "step 20/100  reward 0.25, after correction 0.75, fixed 0.40, broken 0.10, 20 and 30 tokens long, 1,000 tokens/s  "
        "1.00 steps/s  0:20 gone, 1:20 to go"
    )
    state = store.read_json(cfg.results / "progress" / "mgrpo-seed0.json")
    assert state == {"step": 100, "total": 100, "to_go": 0.0, "note": "reward 0.25, after correction 0.75"}


@pytest.mark.parametrize(("budget", "steps", "printed"), [(49_400, 50, 4), (49_600, 49, 3)])
def test_a_budget_of_tokens_tells_the_time_to_go_and_ends_with_a_line(cfg, capsys, budget, steps, printed):
    """1000 tokens a step, so the end is one step later or earlier than it seemed on the way."""
    clock = Clock()
    report = live.Report(cfg, budget, open_notebook=False, now=clock)
    run(report, clock, range(1, steps + 1), max_steps=4000, layers=1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"step 20/{round(budget / 1000)} ")
    assert lines[-1] == (
        f"step {steps}/{steps}  reward 0.25, 20 tokens long, 1,000 tokens/s  1.00 steps/s  0:{steps} gone, 0:00 to go"
    )
    assert len(lines) == printed


def test_a_resumed_run_counts_its_own_steps_and_shows_the_earlier_ones(cfg, shown, monkeypatch):
    clock, drawn = Clock(), []
    plain = figures.training_curves
    monkeypatch.setattr(figures, "training_curves", lambda steps, title: drawn.append(steps) or plain(steps, title))
    run(live.Report(cfg, None, open_notebook=True, now=clock), clock, range(31, 41), max_steps=40, seconds=2.0)
    assert list(drawn[-1]["step"]) == list(range(1, 41))
    assert "500 tokens/s" in shown[-1][1].alt and "0.50 steps/s" in shown[-1][1].alt


@pytest.mark.parametrize("layers", [1, 2])
def test_curves_show_what_was_logged(layers):
    steps = pd.DataFrame([entry(step, layers) for step in range(1, 31)])
    figure = figures.training_curves(steps, "title")
    figures.plt.close(figure)
    reward, shares, lengths = figure.axes
    means = {line.get_label(): line.get_ydata()[-1] for line in reward.lines + shares.lines if line.get_lw() == 1.6}
    expected = {"first attempts": 0.25, "all right or all wrong": 0.5}
    if layers == 2:
        expected = {"first attempts": 0.25, "corrections": 0.75, "mended": 0.4, "broken": 0.1}
    assert means == pytest.approx(expected)
    assert [line.get_ydata()[-1] for line in lengths.lines[1::2]] == [20.0, 30.0][:layers]
    assert lengths.lines[1].get_xdata()[-1] == 30, "thousands of tokens"


def test_only_a_notebook_that_can_ask_is_open(tmp_path, monkeypatch):
    """Papermill and JupyterLab use the same kernel; what they say of themselves differs."""
    assert not progress.notebook_is_open(), "a test is no notebook"
    source = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None, "id": "a"}
    source["source"] = "from mgrpo_lib.experiment.progress import notebook_is_open\nprint(notebook_is_open())"
    content = {"cells": [source], "metadata": {"language_info": {"name": "python"}}, "nbformat": 4, "nbformat_minor": 5}
    store.write_json(tmp_path / "in.ipynb", content)
    quiet = {"progress_bar": False, "kernel_name": "python3", "cwd": str(ROOT)}
    done = papermill.execute_notebook(str(tmp_path / "in.ipynb"), str(tmp_path / "out.ipynb"), **quiet)
    assert done.cells[0].outputs[-1]["text"] == "False\n"

    from ipykernel.zmqshell import ZMQInteractiveShell

    kernel = types.SimpleNamespace(get_parent=lambda channel: {"content": {"allow_stdin": True}})
    monkeypatch.setattr(progress, "get_ipython", lambda: types.SimpleNamespace(kernel=kernel))
    assert not progress.notebook_is_open(), "IPython in a terminal has no such shell"
    shell = ZMQInteractiveShell.__new__(ZMQInteractiveShell)
    monkeypatch.setattr(ZMQInteractiveShell, "kernel", kernel)
    monkeypatch.setattr(progress, "get_ipython", lambda: shell)
    assert progress.notebook_is_open()


def test_a_tracker_that_is_not_installed_is_refused_with_the_mend(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "trackio" else find(name))
    with pytest.raises(ConfigError, match="pip install trackio, or leave report_to out"):
        load_config("smoke", report_to="trackio")
    with pytest.raises(ConfigError, match="'none', 'tensorboard', 'wandb' or 'trackio'"):
        load_config("smoke", report_to="mlflow")


@pytest.fixture
def wandb(monkeypatch):
    """A tracker that notes how it is called."""
    calls = []
    module = types.ModuleType("wandb")
    module.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
    module.init = lambda **how: calls.append(("init", how))
    module.log = lambda values, step: calls.append(("log", step, values))
    module.finish = lambda: calls.append(("finish",))
    monkeypatch.setitem(sys.modules, "wandb", module)
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    return calls


def test_a_tracker_gets_every_number_and_never_asks(tmp_path, wandb, monkeypatch):
    cfg = load_config("smoke", seed=0, output_root=str(tmp_path), report_to="wandb")
    report, tracker = live.callbacks(cfg, None)
    assert isinstance(report, live.Report)
    clock = Clock()
    run(tracker, clock, range(1, 4), max_steps=3)
    how = wandb[0][1]
    assert how["mode"] == "offline" and str(tmp_path) not in str(how["config"])
    assert how["config"]["learning_rate"] == cfg.learning_rate
    assert [call[1] for call in wandb[1:-2]] == [1, 2, 3] and wandb[2][2]["layer2/fixed"] == 0.4
    assert wandb[-1] == ("finish",)
    monkeypatch.setenv("WANDB_API_KEY", "x")
    run(live.Tracker(cfg), clock, range(1, 2), max_steps=1)
    assert [call[1]["mode"] for call in wandb if call[0] == "init"] == ["offline", "online"]


def test_a_tracker_is_no_part_of_a_result(tmp_path, wandb):
    plain, tracked = (load_config("smoke", output_root=str(tmp_path), report_to=name) for name in ("none", "wandb"))
    for key in (fingerprints.run_key, fingerprints.evaluation_key, fingerprints.summary_key, fingerprints.data_key):
        assert key(plain) == key(tracked)
    assert tracked.model_dump() == plain.model_dump() and "report_to" not in plain.model_dump()
    assert len(live.callbacks(plain, None)) == 1, "nothing is reported unless it is asked for"
