"""Pasting patches: against slow loops, at every place, and the patches they are compared with."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from absence_utils import InputError, insert_patches
from absence_utils.insertion.paste import CORNERS, LOCATIONS, feather_mask, scramble_phases


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def slow_paste(image, patch, top, left, weight=None):
    result = image.clone()
    for channel, row, column in itertools.product(*map(range, patch.shape)):
        share = 1 if weight is None else weight[row][column]
        old = image[channel, top + row, left + column]
        result[channel, top + row, left + column] = share * patch[channel, row, column] + (1 - share) * old
    return result


CORNER = {
    "top left": (0, 0),
    "top right": (0, 6),
    "bottom left": (5, 0),
    "bottom right": (5, 6),
    "centre": (2, 3),
}


@pytest.mark.parametrize("place", LOCATIONS)
def test_every_place_by_loops(place):
    images, patches = noise(2, 3, 9, 10), noise(2, 3, 4, 4, seed=1)
    before = images.clone()
    result = insert_patches(images, patches, place)
    for image, patch, pasted in zip(images, patches, result, strict=True):
        assert torch.equal(pasted, slow_paste(image, patch, *CORNER[place]))
    assert torch.equal(images, before) and result.data_ptr() != images.data_ptr()
    by_number = insert_patches(images, patches, torch.full((2,), LOCATIONS.index(place)))
    assert torch.equal(result, by_number)


@settings(max_examples=30, deadline=None)
@given(st.data(), st.integers(1, 5), st.integers(1, 6), st.integers(1, 7))
def test_any_pixel_by_loops(data, batch, height, width):
    images, patches = noise(batch, 2, 6, 7), noise(batch, 2, height, width, seed=1)
    at = [(data.draw(st.integers(0, 6 - height)), data.draw(st.integers(0, 7 - width))) for _ in range(batch)]
    result = insert_patches(images, patches, torch.tensor(at))
    assert all(
        torch.equal(result[i], slow_paste(images[i], patches[i], top, left))
        for i, (top, left) in enumerate(at)
    )


def test_random_corners_are_corners_and_follow_the_seed():
    images, patch = torch.zeros(200, 1, 8, 8), torch.ones(1, 3, 3)
    first, again, other = (insert_patches(images, patch, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    corners = torch.stack([insert_patches(images[:1], patch, place)[0] for place in LOCATIONS[:CORNERS]])
    counts = [sum(torch.equal(image, corner) for image in first) for corner in corners]
    assert sum(counts) == 200 and min(counts) > 25


def test_soft_edges_by_loops():
    images, patches = noise(1, 2, 9, 10), noise(1, 2, 6, 5, seed=1)
    ramp = {0: 1 / 3, 1: 2 / 3}  # two pixels of fading: a third, two thirds, then all
    weight = [
        [ramp.get(min(row, 5 - row), 1) * ramp.get(min(column, 4 - column), 1) for column in range(5)]
        for row in range(6)
    ]
    expected = slow_paste(images[0].double(), patches[0].double(), 1, 2, weight)
    result = insert_patches(images, patches, torch.tensor([[1, 2]]), feather=2)
    torch.testing.assert_close(result[0].double(), expected, rtol=0, atol=1e-6)
    assert feather_mask(6, 5, 0).eq(1).all()


def test_own_patch_pasted_back_changes_nothing():
    images = noise(3, 3, 12, 12)
    for number, (top, left) in enumerate([(0, 0), (0, 8), (8, 0), (8, 8), (4, 4)]):
        own = images[:, :, top : top + 4, left : left + 4]
        assert torch.equal(insert_patches(images, own, LOCATIONS[number]), images)


@pytest.mark.parametrize("shape", [(8, 8), (9, 12), (7, 7)])
def test_scrambled_patches_keep_spectrum_and_mean_and_lose_their_place(shape):
    patches = noise(5, 3, *shape).double()
    scrambled = scramble_phases(patches, seed=3)
    power, again = (torch.fft.fft2(each).abs() for each in (patches, scrambled))
    torch.testing.assert_close(again, power, rtol=0, atol=1e-9)
    torch.testing.assert_close(scrambled.mean(dim=(2, 3)), patches.mean(dim=(2, 3)))
    relation = torch.corrcoef(torch.stack((patches.flatten(), scrambled.flatten())))[0, 1]
    assert relation.abs() < 0.3
    shift = torch.fft.fft2(scrambled) / torch.fft.fft2(
        patches
    )  # the same for all colours, another for each patch
    torch.testing.assert_close(shift[:, 0], shift[:, 2])
    assert (shift[0] - shift[1]).abs().max() > 0.5
    assert torch.equal(scrambled, scramble_phases(patches, seed=3))
    assert not torch.equal(scrambled, scramble_phases(patches, seed=4))


@pytest.mark.parametrize(
    ("patches", "corner", "options", "message"),
    [
        (torch.ones(2, 3, 9, 2), "random", {}, "patches.*do not fit"),
        (torch.ones(2, 1, 2, 2), "random", {}, "patches.*shape"),
        (torch.ones(3, 3, 2, 2), "random", {}, "patches.*shape"),
        (torch.ones(2, 3, 2, 2), "left", {}, "corner.*'left'.*top left"),
        (torch.ones(2, 3, 2, 2), [5, 0], {}, "corner.*0 to 4"),
        (torch.ones(2, 3, 2, 2), [[0, 7], [0, 0]], {}, "corner.*beyond"),
        (torch.ones(2, 3, 2, 2), [[0, -1], [0, 0]], {}, "corner.*beyond"),
        (torch.ones(2, 3, 2, 2), [0, 1, 2], {}, "corner.*shape"),
        (torch.ones(2, 3, 4, 4), "centre", {"feather": 3}, "feather.*0 to 2"),
    ],
)
def test_bad_input(patches, corner, options, message):
    with pytest.raises(InputError, match=message):
        insert_patches(torch.zeros(2, 3, 8, 8), patches, corner, **options)
