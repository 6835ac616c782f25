"""The tiny model on disk, and a function that builds trainers on it."""

from functools import partial

import pytest
import tiny
import torch

collect_ignore = ["alone.py"]  # a script: it makes other modules impossible to import


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("tiny")
    tiny.save_model(place)
    return place


@pytest.fixture
def make(folder, tmp_path):
    """`tiny.build` with the model and an output folder."""
    return partial(tiny.build, folder, tmp_path)


@pytest.fixture
def sampled(make):
    """A trainer that has sampled both layers and not yet stepped; H = 3 differs from G = 4."""

    def sampled(**options):
        return tiny.generate(make(tiny.Recording, num_corrections=3, **options))

    return sampled
