"""Ladders: equal steps down, from the image itself to the target, and what is drawn of them."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from absence_utils.errors import InputError
from absence_utils.images.base import Normalisation
from absence_utils.plots.ladder import ladder_numbers, ladder_strip
from absence_utils.units import Unit
from absence_utils.visualization import suppression_ladder
from absence_utils.visualization.ladder import STARTS

QUICK = {"steps": 30, "transforms": "none", "lr": 0.1, "penalty": 1.0}


@pytest.fixture
def unit():
    """Red less green, mean over space; the blank is grey."""
    model = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False))
    model[0].weight.data = torch.tensor([[1.0, -1, 0]])[..., None, None]
    model.normalisation = Normalisation((0.5,) * 3, (0.25,) * 3)
    return Unit(model.eval(), "0")


@pytest.fixture
def image():
    pixels = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    pixels[0] = 0.6 + 0.3 * pixels[0]
    return (pixels - 0.5) / 0.25


@pytest.mark.parametrize("start", STARTS)
def test_levels_fall_in_equal_steps_from_the_image_itself(start, unit, image):
    found = suppression_ladder(unit, image, levels=6, target=-0.4, start=start, **QUICK)
    before = unit.response(image[None]).item()
    assert torch.allclose(found.target, torch.linspace(before, -0.4, 6))
    assert torch.allclose(found.image[0], image * 0.25 + 0.5, atol=1e-6) and found.size[0] == 0
    assert found.response[0] == pytest.approx(before)
    assert (found.response <= found.target + 1e-4).all() and found.monotone
    again = unit.response((found.image - 0.5) / 0.25)
    assert torch.allclose(again, found.response, atol=1e-5)
    changed = [(level - found.image[0]).abs().mean().item() for level in found.image]
    assert found.size.tolist() == pytest.approx(changed, abs=1e-6)
    assert 0 <= found.image.min() and found.image.max() <= 1


def fake_suppress(seen, drop):
    """Takes `drop` red off all pixels, whatever the target."""

    def suppress(unit, image, target, **_):
        seen.append(image)
        less = image * 0.25 + 0.5
        less[0] -= drop
        return type("Found", (), {"image": less})

    return suppress


def test_each_level_changes_what_it_is_told_to(unit, image, monkeypatch):
    before, seen = unit.response(image[None]).item(), {start: [] for start in STARTS}
    for start in STARTS:
        monkeypatch.setattr("absence_utils.visualization.ladder.suppress", fake_suppress(seen[start], 0.3))
        found = suppression_ladder(unit, image, levels=4, target=before - 1.2, start=start)  # red weighs 4
        assert found.size.tolist() == pytest.approx([0, 0.1 / 3, 0.2 / 3, 0.1], abs=1e-4)
    assert all(torch.allclose(other, image, atol=1e-5) for other in seen["original"])
    taken = [(image - other)[0].mean().item() * 0.25 for other in seen["previous"]]
    assert taken == pytest.approx([0, 0.1, 0.2], abs=1e-3)


def test_a_change_that_is_too_large_is_scaled_back_to_the_level(unit, image, monkeypatch):
    before, plain = unit.response(image[None]).item(), image * 0.25 + 0.5
    monkeypatch.setattr("absence_utils.visualization.ladder.suppress", fake_suppress([], 0.5))
    found = suppression_ladder(unit, image, levels=5, target=before - 1.0)
    assert torch.allclose(found.response, found.target, atol=2e-3) and found.monotone
    assert (found.response <= found.target + 1e-5).all()
    assert torch.allclose((plain - found.image[2])[0], torch.full((16, 16), 0.125), atol=1e-3)


def test_a_change_that_misses_its_level_is_kept_whole(unit, image, monkeypatch):
    before = unit.response(image[None]).item()
    monkeypatch.setattr("absence_utils.visualization.ladder.suppress", fake_suppress([], 0.1))
    found = suppression_ladder(unit, image, levels=2, target=before - 2.0)
    assert found.response[1] == pytest.approx(before - 0.4, abs=1e-4)


def test_a_level_that_is_low_enough_already_stays_as_it_is(unit, image, monkeypatch):
    monkeypatch.setattr("absence_utils.visualization.ladder.suppress", fake_suppress([], 0.6))
    monkeypatch.setattr("absence_utils.visualization.ladder._just_enough", lambda *args: args[2])
    before = unit.response(image[None]).item()
    found = suppression_ladder(unit, image, levels=5, target=before - 1.0, start="previous")
    assert all(torch.equal(level, found.image[1]) for level in found.image[2:])
    assert found.response[1:].tolist() == pytest.approx([before - 2.4] * 4, abs=1e-4)


def test_the_target_is_a_quantile_of_natural_responses(unit, image):
    real = torch.stack([torch.linspace(-1, 1, 101)], dim=1)
    found = suppression_ladder(unit, image, real, levels=2, **QUICK)
    assert found.target[-1] == pytest.approx(-0.9)
    half = suppression_ladder(unit, image, real, levels=2, quantile=0.5, **QUICK)
    assert half.target[-1] == pytest.approx(0, abs=1e-6)


def test_only_the_last_level_warns_where_it_is_missed(unit, image):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        suppression_ladder(unit, image, levels=4, target=-3.0, steps=1, transforms="none", lr=1e-4)
    assert sum("not to the target" in str(one.message) for one in caught) == 1


def test_bad_input_names_the_parameter(unit, image):
    with pytest.raises(InputError, match="`levels`: 1. Use 2 or more"):
        suppression_ladder(unit, image, levels=1, target=0.0)
    with pytest.raises(InputError, match="`target`: there is none"):
        suppression_ladder(unit, image)
    with pytest.raises(InputError, match="`start`: 'first' is not known"):
        suppression_ladder(unit, image, target=0.0, start="first")
    with pytest.raises(InputError, match="`image`: its response .* is not above"):
        suppression_ladder(unit, image, target=9.0)


def test_the_strip_shows_levels_changes_and_responses(unit, image):
    found = suppression_ladder(unit, image, levels=3, target=0.0, **QUICK)
    fig = ladder_strip(found, "red")
    *pictures, curve = fig.axes
    assert len(pictures) == 6
    for level in range(3):
        above, below = pictures[2 * level : 2 * level + 2]
        assert np.allclose(above.images[0].get_array(), found.image[level].permute(1, 2, 0))
        assert np.allclose(
            below.images[0].get_array(), (found.image[level] - found.image[0]).mean(0), atol=1e-6
        )
    assert len({picture.images[0].get_clim() for picture in pictures[1::2]}) == 1
    line = curve.lines[0]
    assert np.allclose(line.get_xdata(), 100 * found.size) and np.allclose(line.get_ydata(), found.response)
    assert np.allclose(curve.lines[1].get_ydata(), 0.0)
    numbers = ladder_numbers(found)
    assert numbers["level"].tolist() == [0, 1, 2] and np.allclose(numbers["size"], found.size)
    assert found.show() is not None
