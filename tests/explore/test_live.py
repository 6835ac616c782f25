"""Curves of a running training: in place, seldom, and only in an open notebook."""

import types

import pandas as pd
import papermill
import pytest
from transformers import TrainerControl, TrainerState

from mgrpo_lib.experiment import progress, store
from mgrpo_lib.experiment.settings import ROOT, load_config
from mgrpo_lib.explore import live
from mgrpo_lib.report import figures
from tests.experiment.test_watch import Clock, entry, run


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


def test_an_open_notebook_has_one_picture_redrawn_every_few_seconds(cfg, shown):
    clock, before = Clock(), figures.plt.get_fignums()
    run(live.Curves(cfg, draws=True, now=clock), clock, range(1, 42), max_steps=41, seconds=0.5)
    assert [how for how, _ in shown] == ["new"] + ["update"] * (len(shown) - 1), "always in the same place"
    assert len(shown) == 1 + 20 / live.SECONDS + 1, "the first step, 20 seconds, and the end"
    final = shown[-1][1]
    assert final.data.startswith(b"\x89PNG") and "step 41" in final.metadata["alt"]
    assert figures.plt.get_fignums() == before, "the notebook would show them a second time"


def test_elsewhere_nothing_is_drawn(cfg, shown):
    clock = Clock()
    run(live.Curves(cfg, now=clock), clock, range(1, 41), max_steps=40)
    assert shown == []
    live.Curves(cfg, draws=True).on_train_end(None, TrainerState(), TrainerControl())
    assert shown == [], "no step was made"


def test_a_resumed_run_shows_the_earlier_steps(cfg, shown, monkeypatch):
    clock, drawn = Clock(), []
    plain = figures.training_curves
    monkeypatch.setattr(figures, "training_curves", lambda steps, title: drawn.append(steps) or plain(steps, title))
    run(live.Curves(cfg, draws=True, now=clock), clock, range(31, 41), max_steps=40)
    assert list(drawn[-1]["step"]) == list(range(1, 41))


@pytest.mark.parametrize("layers", [1, 2])
def test_curves_show_what_was_logged(layers):
    figure = figures.training_curves(pd.DataFrame([entry(step, layers) for step in range(1, 31)]), "title")
    figures.plt.close(figure)
    reward, shares, lengths = figure.axes
    means = [line.get_ydata()[-1] for line in reward.lines + shares.lines if line.get_lw() == 1.6]
    assert means == pytest.approx([0.25, 0.75, 0.4, 0.1] if layers == 2 else [0.25, 0.5])
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
