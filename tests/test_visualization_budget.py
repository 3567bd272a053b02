"""Many images in one pass, matched contrast, and what is read off it: against slow definitions and closed forms."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from absence_utils.errors import InputError
from absence_utils.images.base import Normalisation, TensorImages
from absence_utils.units import Unit
from absence_utils.visualization import (
    absence,
    budget,
    facets,
    faint_contrast,
    minimise,
    natural_contrast,
    render_pair,
    render_pairs,
)
from absence_utils.visualization.facets import KEPT, choose_facets
from absence_utils.visualization.optimisation import EARLY, _levelled
from absence_utils.visualization.parametrisation import at_contrast, contrast_of, noise_image
from absence_utils.visualization.rendering import RenderedPair, Rendering

BLANK = torch.tensor([0.2, 0.5, 0.6])[:, None, None]


class Colours(nn.Module):
    """Channels: red - green, blue, and a constant; the blank, (0.2, 0.5, 0.6), is 0 after normalisation."""

    normalisation = Normalisation((0.2, 0.5, 0.6), (0.25,) * 3)

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.mix.weight.data.zero_()
        self.mix.weight.data[0, :, 1, 1] = torch.tensor([1.0, -1, 0])
        self.mix.weight.data[1, :, 1, 1] = torch.tensor([0.0, 0, 1])

    def forward(self, x):
        return self.mix(x).relu().mean((2, 3))


@pytest.fixture
def net():
    return Colours().eval()


@pytest.fixture
def textured():
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 3, padding=1), nn.ReLU()
    )
    made.normalisation = Normalisation((0.4,) * 3, (0.25,) * 3)
    made[1].running_mean.normal_(0, 0.2)
    return made.eval()


# -- many images in one pass


def test_units_made_together_are_those_made_alone(textured):
    options = {"steps": 12, "size": 16, "seed": 3, "smoothness": 1.0}
    units = [Unit(textured, "3", channel) for channel in range(3)]
    together = render_pairs(units, **options)
    for unit, pair in zip(units, together, strict=True):
        alone = render_pair(unit, **options)
        for side in ("highest", "lowest"):
            found, expected = getattr(pair, side), getattr(alone, side)
            assert torch.allclose(found.image, expected.image, atol=2e-3)
            assert torch.allclose(found.trajectory, expected.trajectory, atol=2e-3)
    # Batches of any size, also such as part maximum and minimum of a unit, give the same images.
    for batch in (1, 3):
        for pair, again in zip(together, render_pairs(units, batch=batch, **options), strict=True):
            assert torch.allclose(pair.lowest.image, again.lowest.image, atol=2e-3)
            assert torch.allclose(pair.highest.image, again.highest.image, atol=2e-3)


def test_facets_are_kept_apart_within_their_own_goal(textured, monkeypatch):
    """Diversity compares the facets of one unit and sign: other units in the batch change nothing."""
    monkeypatch.setattr(facets, "KEPT", -10.0)  # all candidates are good
    options = {"steps": 10, "size": 16, "facets": 2, "diversity": 5.0, "lr": 0.3}
    units = [Unit(textured, "3", channel) for channel in (0, 4)]
    for pair, unit in zip(render_pairs(units, **options), units, strict=True):
        assert torch.allclose(pair.lowest.image, render_pair(unit, **options).lowest.image, atol=5e-3)
        assert not torch.allclose(pair.lowest.image[0], pair.lowest.image[1], atol=0.05)


def test_responses_are_those_of_the_network_as_it_is(textured):
    """The loop may run on a faster copy; what is reported is read from the network that was given."""
    pair = render_pair(Unit(textured, "1", 2), steps=3, size=16)
    images = textured.normalisation.apply(pair.lowest.image)
    by_hand = textured[1](textured[0](images)).mean((2, 3))[:, 2]
    assert torch.allclose(pair.lowest.response, by_hand, atol=1e-6)


def test_minimise_takes_the_sign_from_the_objective(textured):
    unit, options = Unit(textured, "3", 1), {"steps": 8, "size": 16, "seed": 1}
    pair = render_pair(unit, **options)
    for sign, side in ((-1, pair.highest), (1, pair.lowest)):
        assert torch.allclose(minimise(sign * absence(unit), unit, **options).image, side.image, atol=2e-3)


def test_units_of_two_layers_or_none_are_refused(textured):
    with pytest.raises(InputError, match="several layers"):
        render_pairs([Unit(textured, "0", 0), Unit(textured, "3", 0)], steps=1, size=16)
    with pytest.raises(InputError, match="`units`"):
        render_pairs([], steps=1, size=16)


def test_one_dead_unit_among_others_is_named(net):
    with pytest.raises(InputError, match="mix:2 does not depend on the image"):
        render_pairs([Unit(net, "mix", 0), Unit(net, "mix", 2)], steps=3, size=8)


def test_frames_are_the_images_on_the_way(textured):
    unit = Unit(textured, "3", 1)
    pair = render_pair(unit, steps=6, size=16, frames=(0, 3, 6))
    assert pair.lowest.frames.shape == (3, 1, 3, 16, 16)
    assert torch.equal(pair.lowest.frames[-1], pair.lowest.image)
    assert torch.equal(pair.lowest.frames[0], pair.highest.frames[0])  # both start from the same noise
    assert render_pair(unit, steps=2, size=16).lowest.frames is None


def test_a_plateau_ends_the_synthesis_for_both_signs():
    flat = [torch.tensor([0.0, 0.0])] + [torch.tensor([10.0, -5.0])] * 20
    assert _levelled(flat, 8, 0.02)
    assert not _levelled(flat[:15], 8, 0.02)  # not two windows yet
    still = [torch.tensor([0.0, float(-step)]) for step in range(21)]
    assert not _levelled(still, 8, 0.02)  # one of the two still falls
    assert 0 < EARLY < 1


def test_a_plateau_saves_steps(net):
    pair = render_pair(Unit(net, "mix", 1), steps=200, size=8, lr=0.5, transforms="none", plateau=0.02)
    assert len(pair.highest.trajectory) == len(pair.lowest.trajectory) < 200
    assert (
        pair.highest.response[0] > 0.75 * 1.6 and pair.lowest.response[0] < 0.75 * -2.4
    )  # (1 - .6)/.25, -.6/.25


# -- matched contrast


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(0.02, 0.35), st.floats(1e-3, 50))
def test_an_image_has_the_contrast_that_was_asked_for(seed, contrast, scale):
    change = scale * torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    image = at_contrast(change, BLANK, contrast)
    assert image.min() >= 0 and image.max() <= 1
    assert torch.allclose(contrast_of(image, BLANK), torch.tensor([contrast] * 2), rtol=5e-3)
    free = (image > 0) & (image < 1)
    gain = ((image - BLANK) / change)[free]  # one gain for all that was not clipped
    assert (gain > 0).all()


def test_more_contrast_than_there_is_gives_what_there_is():
    image = at_contrast(torch.ones(1, 3, 4, 4), BLANK, 10.0)
    assert torch.equal(image, torch.ones(1, 3, 4, 4))


def test_the_blank_itself_stays_finite():
    assert torch.isfinite(at_contrast(torch.zeros(1, 3, 4, 4), BLANK, 0.2)).all()


def test_both_poles_have_the_same_contrast(textured):
    pair = render_pair(Unit(textured, "3", 1), steps=10, size=16, contrast=0.15)
    grey = torch.tensor(0.4)
    for side in (pair.highest, pair.lowest):
        assert contrast_of(side.image, grey).item() == pytest.approx(0.15, rel=5e-3)
    assert pair.contrast == 0.15 and pair.highest.response > pair.lowest.response


@pytest.mark.parametrize("contrast", [0, -0.1, 2.0, float("nan")])
def test_an_impossible_contrast_is_named(textured, contrast):
    with pytest.raises(InputError, match="`contrast`"):
        render_pair(Unit(textured, "3", 1), steps=1, size=16, contrast=contrast)


def test_copies_of_the_noise_are_equal_and_leave_the_generator_alike():
    states = []
    for copies in (1, 4):
        torch.manual_seed(5)
        _, image = noise_image(16, 3, 2, copies, decorrelate=True, contrast=None, blank=BLANK)
        made = image().detach()
        states.append((made, torch.get_rng_state()))
    assert states[1][0].shape[0] == 8
    for copy in states[1][0].split(2):
        assert torch.equal(copy, states[0][0])
    assert torch.equal(states[0][1], states[1][1])


# -- what is read off


def images_of(pixels):
    normalisation = Colours.normalisation
    return TensorImages(
        normalisation.apply(pixels), torch.zeros(len(pixels)), ["all"], normalisation=normalisation
    )


def test_natural_contrast_is_the_distance_from_the_blank(net):
    pixels = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64).float()
    slow = []
    for image in pixels.double().numpy():
        distances = [
            (image[c, y, x] - BLANK[c, 0, 0].item()) ** 2
            for c in range(3)
            for y in range(8)
            for x in range(8)
        ]
        slow.append(np.sqrt(np.mean(distances)))
    assert np.allclose(natural_contrast(net, images_of(pixels)).numpy(), slow, atol=1e-5)


def test_a_faint_contrast_is_a_quantile_and_is_possible(net):
    pixels = BLANK + torch.linspace(0.01, 0.2, 21)[:, None, None, None] * torch.ones(21, 3, 4, 4)
    assert faint_contrast(net, images_of(pixels)) == pytest.approx(0.0195, abs=1e-4)
    assert faint_contrast(net, images_of(pixels), 0.5) == pytest.approx(0.105, abs=1e-4)
    extreme = (torch.tensor([1.0, 0, 0])[:, None, None] * torch.ones(2, 3, 4, 4)).round()
    highest = np.sqrt((0.8**2 + 0.5**2 + 0.6**2) / 3)
    assert faint_contrast(net, images_of(extreme)) == pytest.approx(0.95 * highest, abs=1e-4)
    with pytest.raises(InputError, match="`images`.*blank"):
        faint_contrast(net, images_of(BLANK * torch.ones(2, 3, 4, 4)))
    with pytest.raises(InputError, match="`quantile`"):
        faint_contrast(net, images_of(pixels), 1.5)


def pair_of(net, high, low):
    unit = Unit(net, "mix", 1)
    sides = []
    for blue in (high, low):
        image = BLANK.expand(3, 4, 4).clone()
        image[2] = blue
        sides.append(Rendering(image[None], torch.tensor([(blue - 0.6) / 0.25]), torch.zeros(1, 1)))
    return RenderedPair(unit, *sides)


def test_the_contrast_curve_of_a_linear_unit_is_a_line(net):
    """Blue alone differs from the blank: a contrast c is a step of c * sqrt(3) of blue, 4 c sqrt(3) of the response."""
    real = torch.stack([torch.zeros(101), torch.linspace(-1, 1, 101), torch.zeros(101)], dim=1)
    curve = budget.contrast_curve([pair_of(net, 0.8, 0.4)], real, [0.0, 0.05, 0.1])
    up, down = (curve[curve["pole"] == pole]["response"].to_numpy() for pole in budget.POLES)
    expected = 4 * np.sqrt(3) * np.array([0, 0.05, 0.1])
    assert np.allclose(up, expected, atol=5e-3) and np.allclose(down, -expected, atol=5e-3)
    assert curve["percentile"].iloc[0] == pytest.approx(50, abs=0.5)
    with pytest.raises(InputError, match="`contrasts`"):
        budget.contrast_curve([pair_of(net, 0.8, 0.4)], real, [])


def test_poles_stand_among_natural_responses(net):
    real = torch.stack([torch.zeros(101), torch.linspace(-1, 1, 101), torch.zeros(101)], dim=1)
    table = budget.pole_table([pair_of(net, 0.8, 0.35)], real).set_index("pole")
    assert table.loc["maximum", "percentile"] == pytest.approx(90, abs=1)  # 0.8 of -1..1
    assert table.loc["minimum", ["percentile", "response"]].tolist() == pytest.approx([0, -1.0], abs=0.6)
    assert table.loc["maximum", "beyond"] == pytest.approx(0.8 / 0.9, abs=0.02)
    assert table.loc["minimum", "beyond"] == pytest.approx(1 / 0.9, abs=0.02)
    assert table.loc["maximum", "contrast"] == pytest.approx(0.2 / np.sqrt(3), abs=1e-6)


def test_facets_are_measured_by_effect_and_likeness(net):
    images = BLANK.expand(2, 3, 4, 4).clone()
    images[0, 2], images[1, 2] = 0.8, 0.7  # effects .8 and .4; the same direction in the layer
    side = Rendering(images, torch.tensor([0.8, 0.4]), torch.zeros(1, 2))
    table = budget.facet_table([RenderedPair(Unit(net, "mix", 1), side, side)]).set_index("pole")
    assert table.loc["maximum", "kept"] == pytest.approx(0.5, abs=1e-5)
    assert table.loc["maximum", "diversity"] == pytest.approx(0, abs=1e-5)
    down = Rendering(2 * BLANK - images, -side.response, torch.zeros(1, 2))  # the same the other way
    table = budget.facet_table([RenderedPair(Unit(net, "mix", 1), side, down)]).set_index("pole")
    assert table.loc["minimum", "kept"] == pytest.approx(0.5, abs=1e-5)
    images[1] = BLANK
    images[1, 0] = 0.45  # red now: another channel of the layer
    found = budget.facet_table([RenderedPair(Unit(net, "mix", 1), side, side)]).set_index("pole")
    assert found.loc["maximum", "diversity"] == pytest.approx(1, abs=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(1, 8))
def test_facets_are_the_best_and_then_the_most_different_good_ones(seed, candidates, count):
    generator = torch.Generator().manual_seed(seed)
    effect = torch.rand(candidates, generator=generator) + 0.3
    alike = torch.rand(candidates, candidates, generator=generator)
    chosen = choose_facets(effect, (alike + alike.T) / 2, count)
    good = {place for place in range(candidates) if effect[place] >= KEPT * effect.max()}
    assert len(chosen) == len(set(chosen)) == min(count, len(good))
    assert chosen[0] == int(effect.argmax()) and set(chosen) <= good


def test_of_three_good_candidates_the_most_different_is_taken():
    alike = torch.tensor([[1, 0.9, 0.2, 0.1], [0.9, 1, 0.5, 0.5], [0.2, 0.5, 1, 0.5], [0.1, 0.5, 0.5, 1.0]])
    assert choose_facets(torch.tensor([1.0, 0.95, 0.9, 0.5]), alike, 2) == [0, 2]  # the last is too weak
