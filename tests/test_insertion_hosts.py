"""Effects in random hosts: held against a slow re-derivation, a network with a known answer, and refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from absence_utils.errors import InputError
from absence_utils.images.base import TensorImages
from absence_utils.images.cache import stack_images
from absence_utils.insertion.design import InsertionConfig
from absence_utils.insertion.hosts import both_readings, host_effects
from absence_utils.insertion.paste import paste_corners
from absence_utils.patches.mining import mine_patches

SETTING = InsertionConfig(patch=4, stride=2, k=6, images=12, pairs="one")
HOSTS = range(12, 36)


class Planted(nn.Module):
    """Unit 0 is minus the red, unit 1 the red, unit 2 the green less what red there is at the same place."""

    def __init__(self):
        super().__init__()
        self.maps = nn.Conv2d(3, 3, 1, bias=False)
        self.maps.weight.data = torch.tensor([[-1.0, 0, 0], [1, 0, 0], [-1, 1, 0]])[:, :, None, None]

    def forward(self, images):
        return self.maps(images).relu().mean(dim=(2, 3))


@pytest.fixture(scope="module")
def world():
    generator = torch.Generator().manual_seed(3)
    stack = stack_images(
        TensorImages(torch.randn(36, 3, 12, 12, generator=generator), torch.zeros(36), ["one"])
    )
    network = Planted().eval()
    how = {"patch": 4, "stride": 2, "k": 6, "per_image": 1, "part": range(12), "reservoir": 64}
    return network, stack, mine_patches(network, "maps", stack, **how)


def slow(network, stack, book, unit: int, redraws: int) -> dict:
    """Every host alone, in float64, from the definition."""
    network = Planted().double().eval()
    images = stack.take(range(36)).double()

    def read(image, reading):
        values = network.maps(image[None])[0, unit].detach()
        return float((values.clamp(min=0) if reading == "passed on" else values).mean())

    at = torch.from_numpy(SETTING.generator(2).permutation(64)[: redraws * 6])
    cut = {
        "lowest": (book.lowest.image[unit][None], book.lowest.box[unit][None]),
        "random": (book.random.image[at].reshape(redraws, 6), book.random.box[at].reshape(redraws, 6, 4)),
    }
    answers = {}
    for reading in ("signed", "passed on"):
        sd = np.std([read(images[host], reading) for host in HOSTS], ddof=1)
        changes = {"random patch": np.full((6, 2), np.nan), "mean colour": np.full((6, 2), np.nan)}
        for row in range(12):
            column, host = row % 6, images[HOSTS[row]]
            ((top, left),) = paste_corners(host[None], (4, 4), SETTING.corners[[column]]).tolist()

            def pasted(patch, host=host, top=top, left=left, reading=reading):
                changed = host.clone()
                changed[:, top : top + 4, left : left + 4] = patch
                return read(changed, reading)

            def crop(kind, draw, column=column):
                number, box = (each[draw, column] for each in cut[kind])
                return images[number, :, box[0] : box[0] + 4, box[1] : box[1] + 4]

            low = pasted(crop("lowest", 0))
            control = np.mean([pasted(crop("random", draw)) for draw in range(redraws)])
            changes["random patch"][column, row // 6] = (control - low) / sd
            changes["mean colour"][column, row // 6] = (pasted(torch.zeros(3, 4, 4)) - low) / sd
        for control, values in changes.items():
            means = values.mean(axis=1)
            answers[reading, control] = means.mean(), means.std(ddof=1) / 6**0.5
    return answers


def test_a_slow_re_derivation_gives_the_same(world):
    network, stack, book = world
    found = host_effects(
        network, "maps", stack, book, HOSTS, SETTING, both_readings(network, "maps", stack), redraws=3
    )
    assert len(found) == 3 * 2 * 2
    for unit in range(3):
        expected = slow(*world, unit, 3)
        for row in found[found["unit"] == unit].itertuples():
            value, error = expected[row.reading, row.control]
            assert row.value == pytest.approx(value, abs=1e-5) and row.error == pytest.approx(error, rel=1e-4)
            assert (row.images, row.patches, row.df) == (12, 6, 5)


def test_units_draw_alike_whoever_else_is_asked_and_red_suppresses_unit_0(world):
    network, stack, book = world
    readings = both_readings(network, "maps", stack)
    every = host_effects(network, "maps", stack, book, HOSTS, SETTING, readings)
    alone = host_effects(network, "maps", stack, book, HOSTS, SETTING, readings, units=[2])
    assert np.allclose(every[every["unit"] == 2]["value"], alone["value"], atol=1e-6)
    signed = every[(every["reading"] == "signed") & (every["control"] == "random patch")]
    assert (signed["value"] > 0).all()


def test_an_output_has_the_signed_reading_alone(world):
    network, stack, _ = world
    assert list(both_readings(network, None, stack)) == ["signed"]
    both = both_readings(network, "maps", stack)
    assert (both["passed on"] >= 0).all() and (both["signed"] < both["passed on"]).all()


def test_what_would_not_keep_its_level_is_refused(world):
    network, stack, book = world
    readings = both_readings(network, "maps", stack)

    def ask(book=book, hosts=HOSTS, setting=SETTING):
        host_effects(network, "maps", stack, book, hosts, setting, readings)

    few = replace(SETTING, k=5, images=10)
    for problem, how in (
        ("`k`: .*does not keep its level", {"setting": few, "book": replace(book, k=5)}),
        ("per_image.*one observation", {"book": replace(book, per_image=0)}),
        ("hosts.*12 hosts were mined", {"hosts": range(36)}),
        ("images.*there are 8 hosts", {"hosts": range(12, 20)}),
    ):
        with pytest.raises(InputError, match=problem):
            ask(**how)
