"""Responses to images with pasted patches: against one image at a time, and what a patch can reach."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

from absence_utils import InputError, insert_patches, responses
from absence_utils.images.base import TensorImages
from absence_utils.images.cache import stack_images
from absence_utils.insertion.execution import (
    BLANK_IMAGE,
    KEYS,
    SELF_PATCH,
    UNMODIFIED,
    PatchBank,
    empty_bank,
    receptive_positions,
    run_insertions,
)
from absence_utils.insertion.paste import LOCATIONS
from absence_utils.units import feature_map

SIDE = 6


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(inplace=True), nn.Conv2d(8, 5, 3, padding=1)]
    return nn.Sequential(*layers, nn.ReLU(inplace=True))


@pytest.fixture
def images():
    return stack_images(TensorImages(noise(4, 3, 20, 24), torch.zeros(4).long(), ["all"]))


def every_request(units=5):
    rows = itertools.product(
        range(units), (BLANK_IMAGE, 0, 1, 3), (UNMODIFIED, SELF_PATCH, 0, 1), range(5), (False, True)
    )
    return pd.DataFrame(list(rows), columns=["unit", *KEYS])


def slow_input(images, patches, image, patch, place, feathered):
    base = torch.zeros(1, 3, 20, 24) if image == BLANK_IMAGE else images.take([image])
    if patch < 0:
        return base
    return insert_patches(base, patches[patch], LOCATIONS[place], feather=2 if feathered else 0)


def test_equals_one_image_at_a_time(network, images):
    bank = PatchBank(noise(2, 3, SIDE, SIDE, seed=1))
    requests = every_request().sample(frac=1, random_state=0)  # in any order, and it comes back in that order
    network.train()
    result = run_insertions(network, "3", images, bank, requests, feather=2, batch_size=7)
    assert network.training and network[0].weight.is_contiguous()
    pd.testing.assert_frame_equal(result[requests.columns], requests.reset_index(drop=True))
    with torch.no_grad():
        for row in result.sample(120, random_state=1).itertuples():
            one = slow_input(images, bank.pixels, row.image, row.patch, row.place, row.feathered)
            expected = responses(network, "3", one)[0, row.unit]  # signed: before the last rectifier
            assert row.response == pytest.approx(expected.item(), abs=1e-5)
    assert (result.response < 0).any()


@pytest.mark.parametrize("pool", ["max", "min"])
def test_other_pools(network, images, pool):
    bank = PatchBank(noise(1, 3, SIDE, SIDE, seed=1))
    requests = pd.DataFrame([(2, 1, 0, 3, False)], columns=["unit", *KEYS])
    result = run_insertions(network, "3", images, bank, requests, pool=pool)
    one = slow_input(images, bank.pixels, 1, 0, 3, False)
    assert result.response[0] == pytest.approx(responses(network, "3", one, pool)[0, 2].item(), abs=1e-5)
    assert result[["beside", "beyond"]].isna().all(axis=None)  # parts of a mean only


def test_every_distinct_input_runs_once(network, images, monkeypatch):
    """And the price of the whole is that of its forward passes: what is asked for twice is not run twice."""
    seen = []
    original = feature_map

    def counting(model, layer, batch):
        seen.append(batch.clone())
        return original(model, layer, batch)

    monkeypatch.setattr("absence_utils.insertion.execution.feature_map", counting)
    bank, requests = PatchBank(noise(2, 3, SIDE, SIDE, seed=1)), every_request()
    twice = pd.concat([requests, requests])
    run_insertions(network, "3", images, bank, twice, feather=2, batch_size=8, pool="max")
    distinct = (
        len(requests.loc[requests.patch != UNMODIFIED, KEYS].drop_duplicates()) + 4
    )  # and four untouched ones
    assert len(seen) == -(-distinct // 8) and all(len(batch) == 8 for batch in seen)


@pytest.mark.parametrize(("device", "pixels"), [("cpu", 2**18), ("cuda", 2**21)])
def test_batches_are_as_large_as_the_device_likes(network, images, monkeypatch, device, pixels):
    seen = []

    def counting(model, layer, batch):
        seen.append(len(batch))
        return feature_map(model, layer, batch)

    monkeypatch.setattr("absence_utils.insertion.execution.feature_map", counting)
    monkeypatch.setattr(
        "absence_utils.insertion.execution.device_of", lambda _: torch.device(device), raising=False
    )
    bank, requests = (
        PatchBank(noise(1, 3, SIDE, SIDE)),
        pd.DataFrame([(0, 0, 0, 0, False)], columns=["unit", *KEYS]),
    )
    run_insertions(network, "3", images, bank, requests, pool="max")
    assert seen == [pixels // (20 * 24)]


def test_own_pixels_pasted_back_give_exactly_nothing(network, images):
    bank = PatchBank(noise(2, 3, SIDE, SIDE, seed=1))
    result = run_insertions(network, "2", images, bank, every_request(), batch_size=3)
    keys = ["unit", "image", "place"]
    hard = result[~result.feathered]
    own, untouched = (
        hard[hard.patch == patch].set_index(keys).response.sort_index() for patch in (SELF_PATCH, UNMODIFIED)
    )
    assert (own - untouched).abs().max() == 0 and len(own) == 5 * 4 * 5
    other = hard[hard.patch == 0].set_index(keys).response.sort_index()
    assert (other - untouched).abs().min() > 0


def test_parts_of_the_response_by_position(network, images):
    """`beside` adds up positions beside the patch, `beyond` those its pixels cannot reach, which do not change."""
    bank = PatchBank(noise(2, 3, SIDE, SIDE, seed=1))
    result = run_insertions(network, "2", images, bank, every_request(), batch_size=5)
    with torch.no_grad():
        maps = feature_map(network, "2", images.take([1]))[0]  # [unit, 10, 12]: a position every 2 pixels
    row = result[(result.unit == 3) & (result.image == 1) & (result.patch == UNMODIFIED)]
    beside = beyond = 0.0
    for i, j in itertools.product(
        range(10), range(12)
    ):  # place 0, where nothing is pasted: rows and columns 0 to 5
        inside = 2 * i + 1 < SIDE and 2 * j + 1 < SIDE
        # position i of the last map sees pixels 2i - 3 to 2i + 3
        touched = 2 * i - 3 < SIDE and 2 * j - 3 < SIDE
        beside += 0 if inside else maps[3, i, j].item() / 120
        beyond += 0 if touched else maps[3, i, j].item() / 120
    assert row.beside.iloc[0] == pytest.approx(beside, abs=1e-5)
    assert row.beyond.iloc[0] == pytest.approx(beyond, abs=1e-5)
    same = result[(result.place == 0) & ~result.feathered].pivot(
        index=["unit", "image"], columns="patch", values=["beside", "beyond"]
    )
    np.testing.assert_allclose(same["beyond"][0], same["beyond"][SELF_PATCH], atol=1e-6)
    assert (same["beside"][0] - same["beside"][SELF_PATCH]).abs().max() > 1e-3


@pytest.mark.parametrize("box", [(0, 0, 6, 6), (3, 5, 4, 7), (14, 18, 6, 6)])
def test_reach_is_where_gradients_can_go(network, box):
    """With positive weights nothing cancels and no rectifier is silent: there the gradient shows the whole field."""
    for module in network:
        if isinstance(module, nn.Conv2d):
            module.weight.data.abs_()
            module.bias.data.fill_(1.0)
    image = torch.rand(1, 3, 20, 24, requires_grad=True)
    maps = feature_map(network, "3", image)[0]
    top, left, height, width = box
    by_gradient = torch.zeros(maps.shape[1:], dtype=torch.bool)
    for i, j in itertools.product(*map(range, maps.shape[1:])):
        (slope,) = torch.autograd.grad(maps[:, i, j].sum(), image, retain_graph=True)
        by_gradient[i, j] = slope[0, :, top : top + height, left : left + width].abs().sum() > 0
    assert torch.equal(receptive_positions(network, "3", image.detach(), box), by_gradient)
    assert by_gradient.any() and not by_gradient.all()


def test_attention_reaches_everything_and_has_no_map():
    torch.manual_seed(0)
    options = {"num_layers": 1, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 16, "num_classes": 3}
    network = VisionTransformer(image_size=16, patch_size=4, **options).eval()
    images = stack_images(TensorImages(noise(2, 3, 16, 16), torch.zeros(2).long(), ["all"]))
    bank = PatchBank(noise(1, 3, 8, 8, seed=1))
    requests = pd.DataFrame([(2, 1, 0, 3, False)], columns=["unit", *KEYS])
    for pool in ("mean", "cls"):
        layer = "encoder.layers.encoder_layer_0"
        result = run_insertions(network, layer, images, bank, requests, pool=pool)
        one = insert_patches(images.take([1]), bank.pixels[0], LOCATIONS[3])
        expected = responses(network, layer, one, pool)[0, 2].item()
        assert result.response[0] == pytest.approx(expected, abs=1e-5) and np.isnan(result.beyond[0])


def test_bank_holds_every_window_once(images):
    bank = empty_bank(images, SIDE)
    image = torch.tensor([[3, 0, 3], [0, 3, 1]])
    corner = torch.tensor([[[1, 2], [4, 5], [1, 2]], [[4, 6], [1, 2], [0, 0]]])
    box = torch.cat((corner, torch.full((2, 3, 2), SIDE)), dim=-1)
    first = bank.add(torch.ones(2, 3, SIDE, SIDE))
    numbers = bank.add_windows(images, image, box)
    assert first.tolist() == [0, 1] and len(bank.pixels) == 2 + 4 and bank.side == SIDE
    for u, j in itertools.product(range(2), range(3)):
        top, left = corner[u, j].tolist()
        expected = images.take([image[u, j].item()])[0, :, top : top + SIDE, left : left + SIDE]
        assert torch.equal(bank.pixels[numbers[u, j]], expected)


@pytest.mark.parametrize(
    ("column", "value"), [("image", 4), ("image", -2), ("patch", 2), ("patch", -3), ("place", 5), ("unit", 5)]
)
def test_what_does_not_exist_is_refused(network, images, column, value):
    requests = pd.DataFrame([(0, 0, 0, 0, False)], columns=["unit", *KEYS]).assign(**{column: value})
    bank = PatchBank(noise(2, 3, SIDE, SIDE))
    with pytest.raises(InputError, match="unit" if column == "unit" else column):
        run_insertions(network, "3", images, bank, requests)
