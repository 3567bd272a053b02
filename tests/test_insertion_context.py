"""Context: a veto is found, units that add up, saturate or are active by default have none, and the sign is kept."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from absence_utils.benchmark.effects import exact_context
from absence_utils.images.base import TensorImages
from absence_utils.images.cache import stack_images
from absence_utils.images.scenes import RULES
from absence_utils.insertion.context import _indifferent, context_effects, describe_context, evidence_window
from absence_utils.insertion.design import InsertionConfig
from absence_utils.insertion.hosts import both_readings
from absence_utils.models.load import load_model
from absence_utils.patches.mining import mine_patches

SETTING = InsertionConfig(patch=4, stride=4, k=6, images=24, pairs="one")
SIZE = 16


class Planted(nn.Module):
    """Of red and green: a sum, a presence detector, a veto (red and not green), a unit active unless there is green."""

    def forward(self, images):
        red, green = (images[:, channel].relu().mean(dim=(1, 2)) * SIZE**2 / 16 for channel in (0, 1))
        present = red.clamp(max=1)
        units = (red - green, present, present * (1 - green).clamp(min=0) - 0.2 * green, 1 - green)
        return torch.stack(units, dim=1)


@pytest.fixture(scope="module")
def study():
    """Images with a red square, a green one, both or neither, on noise below zero."""
    generator = np.random.default_rng(0)
    images = -0.2 * generator.random((72, 3, SIZE, SIZE), dtype=np.float32)
    for image in images:
        cells = generator.permutation(16)
        for channel in (0, 1):
            if generator.random() < 0.5:
                top, left = divmod(int(cells[channel]), 4)
                image[channel, 4 * top : 4 * top + 4, 4 * left : 4 * left + 4] = 1
    stack = stack_images(TensorImages(torch.from_numpy(images), torch.zeros(72), ["one"]))
    network = Planted().eval()
    book = mine_patches(
        network, None, stack, patch=4, stride=4, k=6, per_image=1, part=range(24), reservoir=256
    )
    readings = both_readings(network, None, stack)
    return context_effects(network, None, stack, book, range(24, 72), SETTING, readings, images=18).set_index(
        "unit"
    )


def test_only_the_veto_has_a_context(study):
    assert study["found"].tolist() == [False, False, True, False]
    assert study["context"][0] == pytest.approx(0, abs=1e-4)
    assert study["context"][1] < 0.05 and study["context"][2] > 0.5


def test_a_unit_that_is_active_by_default_has_no_trigger(study):
    assert (
        np.isnan(study["context"][3])
        and abs(study["trigger"][3]) < 0.1 < study["trigger"][2]
        and study["on"][3] > 0.5
    )
    text = describe_context(study.loc[3])
    assert "no part of its top images is a trigger" in text and "moves it by 0.00 sd only" in text


def test_words(study):
    assert describe_context(study.loc[2]).startswith("It depends on context: a lowest patch lowers it by ")
    assert describe_context(study.loc[0]).startswith("No context shown: ")
    nothing = pd.Series({"context": np.nan, "trigger": np.nan})
    assert "hardly changes" in describe_context(nothing)


def test_the_trigger_is_where_the_unit_sees_most():
    images = -torch.ones(2, 3, SIZE, SIZE)
    images[0, 0, 3:7, 5:9] = 1
    images[1, 0, 10:14, 0:4] = 1
    images[:, 1, 12:, 12:] = 5.0  # what suppresses is no trigger
    assert evidence_window(Planted(), None, 0, images, 4).tolist() == [[3, 5], [10, 0]]


def test_fills_neither_drive_nor_suppress():
    response = torch.tensor([5.0, -5, 0.1, 0.2, 0.3, 9, -9, 8, -8])
    assert sorted(_indifferent(response).tolist()) == [2, 3, 4]
    assert len(_indifferent(torch.tensor([1.0, 2.0]))) == 1


@pytest.mark.slow
def test_in_exact_pairs_two_of_the_rules_with_an_absence_depend_on_context():
    network, rules = load_model("concept_scenes"), list(RULES)
    for rule, suppressor, trigger in (
        ("disc and not cross", "cross", "disc"),
        ("triangle and not bars", "bars", "triangle"),
    ):
        found = exact_context(network, "logits", suppressor, trigger, pairs=60)
        assert found.mean[rules.index(rule)] + 3 * found.standard_error[rules.index(rule)] < -0.5
    ring = exact_context(network, "logits", "ring", "disc", pairs=60)
    assert abs(ring.mean[rules.index("not ring")]) < 0.15
