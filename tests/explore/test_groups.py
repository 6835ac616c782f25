"""A group of the base model, and the slider: its numbers are the trainer's, and sampling changes no training."""

import ipywidgets
import pytest
import torch

from mgrpo_lib.experiment.base import train_base
from mgrpo_lib.experiment.data import validation_problems
from mgrpo_lib.experiment.settings import load_config
from mgrpo_lib.explore import groups
from mgrpo_lib.explore.explorer import VIEW


def test_a_group_is_sampled_graded_and_repeatable(tmp_path):
    cfg = load_config("cpu", arm="grpo", output_root=str(tmp_path))
    train_base(cfg)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    problem, group = groups.sample_group(cfg, 8)
    assert torch.equal(torch.rand(2), expected), "what comes afterwards draws the same numbers"
    assert problem in validation_problems(cfg)[: groups.PROBLEMS] and len(group) == 8
    assert {one["correct"] for one in group} == {True, False}
    assert all(one["correct"] == (one["answer"] == problem["answer"]) for one in group)
    assert groups.sample_group(cfg, 8) == (problem, group)


@pytest.mark.parametrize("right", [0, 2, 8])
def test_the_picture_shows_the_advantages(right):
    drawn = groups.group_figure(right, 8)
    bars = [bar.get_height() for bar in drawn.axes[0].patches]
    groups.plt.close(drawn)
    share = right / 8
    std = (share * (1 - share) * 8 / 7) ** 0.5
    assert bars == pytest.approx([((place < right) - share) / (std + 1e-4) for place in range(8)], abs=1e-6)


@pytest.mark.parametrize("is_open", [True, False])
def test_the_slider_redraws_and_there_is_a_picture_without(is_open, monkeypatch):
    shown, boxes, box = [], [], ipywidgets.VBox
    monkeypatch.setattr(groups, "notebook_is_open", lambda: is_open)
    monkeypatch.setattr(groups, "display", lambda bundle, raw: shown.append(bundle))
    monkeypatch.setattr(ipywidgets, "VBox", lambda children: boxes.append(box(children)) or boxes[-1])
    groups.show_advantages(2, 8)
    assert shown[0]["image/png"].startswith(b"\x89PNG") and (VIEW in shown[0]) == is_open == bool(boxes)
    for slider, picture in (one.children for one in boxes):
        slider.value = 5
        assert bytes(picture.value).startswith(b"\x89PNG") and bytes(picture.value) != shown[0]["image/png"]
