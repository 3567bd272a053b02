"""Artefacts on tensors: where they lie, who shows them, and that nothing else changes."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from absence_utils import InputError
from absence_utils.debias.artefacts import (
    BIAS_MODES,
    Artefacts,
    border_bars,
    dilate,
    elliptical_patches,
    glyph_artefacts,
    sample_artefact_presence,
)
from absence_utils.images.scenes import CONCEPTS, draw_presence, render_scenes


def edges(mask):
    """[image, 4] whether a mask touches the top, bottom, left and right border."""
    return torch.stack(
        (mask[:, 0].any(1), mask[:, -1].any(1), mask[:, :, 0].any(1), mask[:, :, -1].any(1)), 1
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(8, 60), st.integers(8, 60), st.integers(0, 10**6))
def test_ellipses_reach_in_from_a_border(height, width, seed):
    found = elliptical_patches(20, (height, width), seed)
    assert found.mask.shape == (20, height, width) and edges(found.mask).any(dim=1).all()
    share = found.mask.float().mean(dim=(1, 2))
    assert share.min() > 0 and share.max() < 0.5
    strong, weak = found.colour.max(1).values, found.colour.min(1).values
    assert strong.min() >= 0.7 and strong.max() <= 1 and weak.max() <= 0.3 and weak.min() >= 0


def test_ellipses_by_loops():
    """One on each side, from the numbers that the seed draws, pixel by pixel."""
    n, height, width = 12, 20, 30
    found = elliptical_patches(n, (height, width), 5)
    generator = torch.Generator().manual_seed(5)
    side = torch.randint(4, (n, 1, 1), generator=generator).flatten().tolist()
    uniform = [torch.rand(n, 1, 1, generator=generator).flatten().tolist() for _ in range(4)]
    assert set(side) == {0, 1, 2, 3}
    for i in range(n):
        low_high = ((0.2, 0.8), (0.15, 0.35), (0.2, 0.45), (-0.6, 0.6))
        along, depth, half, angle = (
            lo + (hi - lo) * u[i] for (lo, hi), u in zip(low_high, uniform, strict=True)
        )
        for row, column in itertools.product(range(height), range(width)):
            y, x = row + 0.5, column + 0.5
            inward = {0: y, 1: height - y, 2: x, 3: width - x}[side[i]]
            beside = (x - along * width) if side[i] < 2 else (y - along * height)
            reach = depth * (height if side[i] < 2 else width)
            u = beside * math.cos(angle) + inward * math.sin(angle)
            v = inward * math.cos(angle) - beside * math.sin(angle)
            distance = (u / (half * 20)) ** 2 + (v / reach) ** 2
            if abs(distance - 1) > 1e-4:
                assert found.mask[i, row, column].item() == (distance < 1)


def test_seeds_and_sides():
    one, same, other = (elliptical_patches(200, 24, seed) for seed in (3, 3, 4))
    assert torch.equal(one.mask, same.mask) and torch.equal(one.colour, same.colour)
    assert not torch.equal(one.mask, other.mask)
    assert edges(one.mask).float().mean(dim=0).min() > 0.2
    order = one.colour.argmax(dim=1).bincount(minlength=3)
    assert order.min() > 40  # every channel is the strong one of some


def test_bars_lie_along_one_border():
    bars = border_bars(100, 14, 0, thickness=2)
    assert bars.mask.sum(dim=(1, 2)).tolist() == [28] * 100 and bars.colour.unique().tolist() == [1]
    whole = torch.stack(
        (bars.mask[:, :2].all(2).all(1), bars.mask[:, -2:].all(2).all(1), bars.mask[:, :, :2].all(2).all(1),
         bars.mask[:, :, -2:].all(2).all(1)), 1)  # fmt: skip
    assert whole.sum(dim=1).tolist() == [1] * 100 and whole.sum(dim=0).min() > 10


def test_pasting_changes_the_mask_and_nothing_else():
    found = elliptical_patches(6, 16, 0)
    pixels, shown = torch.rand(6, 3, 16, 16), torch.tensor([True, False, True, True, False, False])
    before, result = pixels.clone(), found.paste(pixels, shown)
    assert torch.equal(pixels, before) and torch.equal(result[~shown], pixels[~shown])
    for i in shown.nonzero().flatten().tolist():
        inside = found.mask[i]
        assert torch.equal(result[i][:, ~inside], pixels[i][:, ~inside])
        assert (result[i][:, inside] == found.colour[i][:, None]).all()
    assert torch.equal(found.masks(shown)[~shown].any(), torch.tensor(False))
    assert torch.equal(found.masks(shown)[shown], found.mask[shown])


@pytest.mark.parametrize("carrier", [0, 1])
def test_who_shows_it(carrier):
    labels = torch.arange(4000) % 2
    rates = {
        spread: [
            sample_artefact_presence(labels, spread, carrier, 1, 0.9)[labels == c].float().mean()
            for c in (0, 1)
        ]
        for spread in BIAS_MODES
    }
    expected = {"train bias": 0.9, "no bias": 0.5, "inverse bias": 0.1}
    for spread, rate in expected.items():
        assert rates[spread][carrier] == pytest.approx(rate, abs=0.03)
        assert rates[spread][1 - carrier] == pytest.approx(1 - rate if spread != "no bias" else 0.5, abs=0.03)
    complete = sample_artefact_presence(labels, "train bias", carrier)
    assert torch.equal(complete, labels == carrier)
    assert torch.equal(sample_artefact_presence(labels, "inverse bias", carrier), labels != carrier)
    assert torch.equal(
        sample_artefact_presence(labels, "no bias", seed=2),
        sample_artefact_presence(labels, "no bias", seed=2),
    )


def test_dilation_by_loops():
    mask = torch.rand(2, 9, 11, generator=torch.Generator().manual_seed(0)) > 0.9
    grown = dilate(mask, 2)
    for i, row, column in itertools.product(range(2), range(9), range(11)):
        near = mask[i, max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
        assert grown[i, row, column] == near.any()
    assert torch.equal(dilate(mask, 0), mask)


def test_bad_input():
    found, labels = elliptical_patches(3, 16), torch.tensor([0, 1, 1])
    for call, message in [
        (lambda: found.paste(torch.zeros(3, 3, 16, 15), labels > 0), "pixels.*shape"),
        (lambda: found.paste(torch.zeros(3, 3, 16, 16), labels[:2] > 0), "shown.*shape"),
        (lambda: elliptical_patches(0, 16), "size"),
        (lambda: elliptical_patches(2, 3), "size"),
        (lambda: elliptical_patches(2, 16, reach=(0.5, 1.2)), "reach"),
        (lambda: border_bars(2, 8, thickness=4), "thickness.*1 to 3"),
        (lambda: sample_artefact_presence(labels, "bias"), "spread.*train bias"),
        (lambda: sample_artefact_presence(labels + 1, "no bias"), "labels"),
        (lambda: sample_artefact_presence(labels, "no bias", carrier=2), "labels"),
        (lambda: sample_artefact_presence(labels, "no bias", strength=0.2), "strength"),
        (lambda: dilate(found.mask, -1), "pixels"),
    ]:
        with pytest.raises(InputError, match=message):
            call()
    assert isinstance(found, Artefacts) and len(found) == 3


def test_a_picture_is_pasted_pixel_by_pixel():
    mask = torch.zeros(2, 3, 3, dtype=torch.bool)
    mask[:, 0] = True
    picture, pixels = torch.rand(2, 2, 3, 3), torch.zeros(2, 2, 3, 3)
    artefacts = Artefacts(mask, picture)
    pasted = artefacts.paste(pixels, torch.tensor([True, False]))
    assert (
        torch.equal(pasted[0, :, 0], picture[0, :, 0])
        and pasted[0, :, 1:].abs().sum() == 0 == pasted[1].sum()
    )
    taken = artefacts.take(torch.tensor([1])).to("cpu")
    assert len(taken) == 1 and torch.equal(taken.colour, picture[1:]) and torch.equal(taken.mask, mask[1:])


def test_a_glyph_lies_where_the_scene_has_it():
    presence = draw_presence(12, 3)
    column = CONCEPTS.index("chevron")
    presence[:, column] = False
    artefacts, small = glyph_artefacts(presence, 3), glyph_artefacts(presence, 3, 16)
    shown = presence.clone()
    shown[:, column] = True
    assert (
        torch.equal(artefacts.mask, render_scenes(shown, 3).masks[:, column])
        and not presence[:, column].any()
    )
    share = artefacts.mask.float().reshape(12, 16, 4, 16, 4).mean(dim=(2, 4))
    assert torch.equal(small.mask, share >= 0.5)
    assert artefacts.colour.tolist() == [[1, 0, 1]] * 12


def test_artefacts_that_do_not_fit():
    bars = border_bars(3, 10)
    bars.check(torch.rand(3, 1, 10, 10))
    with pytest.raises(InputError, match=r"made for images of \(1, 10, 10\)"):
        bars.check(torch.rand(3, 3, 10, 10))
    gone = Artefacts(bars.mask & torch.tensor([True, False, True])[:, None, None], bars.colour)
    with pytest.raises(InputError, match=r"1 have no pixel inside their image \(first: image 1\)"):
        gone.check(torch.rand(3, 1, 10, 10))
