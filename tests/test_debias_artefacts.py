"""Artefacts on tensors: where they lie, who shows them, and that nothing else changes."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from absence_utils import InputError
from absence_utils.debias.artefacts import (
    COIN,
    NO_PATCH,
    Artefacts,
    Bias,
    border_bars,
    dilate,
    elliptical_patches,
    glyph_artefacts,
    released_patches,
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
@pytest.mark.parametrize("bias", [Bias(0.9, 0.1), Bias(0.5, 0.0), COIN, Bias(0.3, 0.8)])
def test_each_class_shows_its_own_share(carrier, bias):
    """4,000 images, 2,000 of each class: a share is known to 3 of 100 (nearly three standard errors)."""
    labels = torch.arange(4000) % 2
    for shares in (bias, bias.inverse):
        shown = sample_artefact_presence(labels, shares, carrier, 1)
        assert shown[labels == carrier].float().mean() == pytest.approx(shares[0], abs=0.03)
        assert shown[labels != carrier].float().mean() == pytest.approx(shares[1], abs=0.03)
    assert bias.inverse == (bias[1], bias[0]) and bias.inverse.inverse == bias
    assert torch.equal(shown, sample_artefact_presence(labels, bias.inverse, carrier, 1))


def test_a_complete_bias_and_no_patch_leave_nothing_to_chance():
    labels = torch.arange(40) % 2
    for carrier in (0, 1):
        assert torch.equal(sample_artefact_presence(labels, Bias(), carrier), labels == carrier)
        assert torch.equal(sample_artefact_presence(labels, Bias().inverse, carrier), labels != carrier)
        assert not sample_artefact_presence(labels, NO_PATCH, carrier).any()


def released_by_loops(n, size, seed):
    """Masks of released patches pixel by pixel, from the numbers that the seed draws: side, depth, what of it lies off
    the image, length, and where along the border it begins."""
    generator, pixel = torch.Generator().manual_seed(seed), size / 224
    side = torch.randint(4, (n, 1, 1), generator=generator).flatten().tolist()
    uniform = [torch.rand(n, 1, 1, generator=generator).flatten().tolist() for _ in range(4)]
    masks, reaches, lengths = torch.zeros(n, size, size, dtype=torch.bool), [], []
    for i in range(n):
        depth, off, length = (
            (low + (high - low) * u[i]) * pixel
            for (low, high), u in zip(((50, 60), (10, 40), (120, 224)), uniform, strict=False)
        )
        start = uniform[3][i] * (size - length)
        reaches.append(depth - off)
        lengths.append(length)
        for row, column in itertools.product(range(size), range(size)):
            y, x = row + 0.5, column + 0.5
            inward = (y, size - y, x, size - x)[side[i]]
            along = x if side[i] < 2 else y
            u = (along - start - length / 2) / (length / 2)
            v = (inward + off - depth / 2) / (depth / 2)
            masks[i, row, column] = u * u + v * v <= 1
    return masks, torch.tensor(reaches) / size, torch.tensor(lengths) / size


def test_released_patches_by_loops():
    masks, reach, length = released_by_loops(24, 40, 3)
    found = released_patches(24, 40, 3)
    assert (found.mask != masks).float().mean() < 1e-3  # rounding at the edge
    assert reach.min() > 0.0446 and reach.max() < 0.2233
    assert length.min() > 0.535 and length.max() < 1


def test_released_patches_lie_at_one_border_in_any_colour():
    found = released_patches(3000, 16, 1)
    assert edges(found.mask).any(dim=1).all()
    rows, columns = found.mask.any(dim=2).sum(dim=1), found.mask.any(dim=1).sum(dim=1)
    depth, along = torch.minimum(rows, columns), torch.maximum(rows, columns)
    assert depth.max() <= 4 and along.max() > 13  # 22% of 16 px is 3.6
    colour = found.colour
    assert colour.shape == (3000, 3) and colour.mean(dim=0).sub(0.5).abs().max() < 0.02
    assert (colour.max(dim=1).values - colour.min(dim=1).values).min() < 0.05  # grey is among them
    assert torch.equal(found.mask, released_patches(3000, 16, 1).mask)
    assert not torch.equal(found.mask, released_patches(3000, 16, 2).mask)


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
        (lambda: released_patches(0, 16), "n"),
        (lambda: released_patches(2, 8), "size"),
        (lambda: sample_artefact_presence(labels + 1), "labels"),
        (lambda: sample_artefact_presence(labels, carrier=2), "labels"),
        (lambda: sample_artefact_presence(labels, (0.5, 1.2)), "bias.*two shares"),
        (lambda: sample_artefact_presence(labels, (0.5,)), "bias.*two shares"),
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
