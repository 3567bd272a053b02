"""Conditional minima: sums and saturation have no veto, a planted one is found, fit and measure are apart."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

from absence_utils.benchmark.compiled import COMPILED
from absence_utils.errors import InputError
from absence_utils.images.base import Normalisation, set_input_spec
from absence_utils.images.scenes import RULES, scene_dataset
from absence_utils.insertion.context import evidence_masks
from absence_utils.models.load import load_model
from absence_utils.units import Unit, dataset_responses
from absence_utils.visualization.conditional import (
    DRIVER,
    LEAST,
    ConditionalPair,
    conditional_pair,
    conditional_table,
)

SIZE, SIDE = 16, 4
SUM, FULL, VETO, STRICT, BACKGROUND = range(5)


class Planted(nn.Module):
    """Of red and green: a sum; one that is full with little red; red and not green; the same without a trace
    of green where there is no red; one that red does not drive."""

    normalisation = Normalisation((0.5,), (0.25,))
    _input_channels = 3

    def forward(self, images):
        red, green = (images[:, channel].mean(dim=(1, 2)) * SIZE for channel in (0, 1))
        full = 1 - (1 - red - green).relu()
        bright = (images[:, 0] - 1).relu().mean(dim=(1, 2)) * SIZE  # of the squares alone
        strict = bright * (1 - green).clamp(0, 1)
        veto = (red - 3 * green.relu()).relu() - 0.5 * green.relu()
        units = (red - green, full, veto, strict, -green)
        return torch.stack(units, dim=1) @ torch.eye(5)


@pytest.fixture(scope="module")
def model():
    return Planted().eval()


@pytest.fixture(scope="module")
def scenes():
    """Twelve images with a red square on grey noise, the masks of the squares, and images as they come."""
    generator = torch.Generator().manual_seed(0)
    images = 0.4 * torch.randn(112, 3, SIZE, SIZE, generator=generator)
    masks = torch.zeros(12, SIZE, SIZE)
    for number in range(12):
        top, left = torch.randint(0, SIZE - SIDE, (2,), generator=generator).tolist()
        masks[number, top : top + SIDE, left : left + SIDE] = 1
        images[number, 0, top : top + SIDE, left : left + SIDE] = 2.0
    return images[:12], masks, images


def pair_of(model, scenes, channel, **options):
    top, masks, every = scenes
    unit = Unit(model, None, channel)
    with torch.no_grad():
        natural = unit.response(every)
    return conditional_pair(unit, top, masks, natural, **{"steps": 24, "contrast": 0.03} | options)


@pytest.fixture(scope="module")
def pairs(model, scenes):
    return [pair_of(model, scenes, channel) for channel in range(5)]


@pytest.fixture(scope="module")
def lowest(pairs):
    table = conditional_table(pairs)
    return table[table["pole"] == "lowest"].reset_index(drop=True)


def test_only_what_is_built_as_a_veto_is_one(lowest):
    assert lowest["veto"].tolist() == [False, False, True, True, False]
    assert lowest["interaction"][SUM] == pytest.approx(0, abs=1e-4) and lowest["with_driver"][SUM] < -1
    assert lowest["with_driver"][FULL] > -0.1
    assert (lowest.loc[[VETO, STRICT], "interaction"] < -2 * LEAST).all()  # far from the size that counts


def test_a_unit_without_a_driver_is_not_asked(lowest):
    assert abs(lowest["driver"][BACKGROUND]) < DRIVER and np.isnan(lowest["q"][BACKGROUND])


def test_what_has_nothing_to_follow_without_the_driver_does_not_speak(pairs, lowest):
    lost = pairs[STRICT].lost[0]
    assert lost[1] == 0 < LEAST < lost[0]
    assert lowest["fitted_with"][STRICT] == lowest["fitted_without"][STRICT]
    assert lowest["fitted_with"][VETO] != lowest["fitted_without"][VETO]


def test_both_poles_and_both_surrounds_have_the_same_budget(pairs):
    pair = pairs[SUM]
    assert pair.surround.shape == (2, 2, 3, SIZE, SIZE)
    contrast = (pair.surround - 0.5).square().mean(dim=(2, 3, 4)).sqrt()
    assert torch.allclose(contrast, torch.tensor(0.03), atol=1e-5)
    low, high = (pair.response[place].mean(dim=(0, 2)) for place in (0, 1))
    assert (low < pair.rest.mean(dim=1) - 0.5).all() and (high > pair.rest.mean(dim=1) + 0.5).all()


def test_responses_are_those_of_the_held_out_images(pairs, scenes):
    pair, (top, masks, _) = pairs[VETO], scenes
    held = (top[1::2] * 0.25 + 0.5).clamp(0, 1)
    assert torch.allclose(pair.driver, held, atol=1e-6) and torch.equal(pair.mask, masks[1::2])
    for place, pole in enumerate(pair.poles):
        for fitted in (0, 1):
            inside = masks[1::2, None]
            for shown, centre in enumerate((held, torch.full_like(held, 0.5))):
                pixels = inside * centre + (1 - inside) * pair.surround[place, fitted]
                assert torch.allclose(pair.composed(pole, fitted)[shown], pixels, atol=1e-6)
                expected = pair.unit.response((pixels - 0.5) / 0.25)
                assert torch.allclose(pair.response[place, fitted, shown], expected, atol=1e-4)
    assert torch.allclose(pair.rest[0], pair.unit.response((held - 0.5) / 0.25), atol=1e-4)


def test_held_out_images_do_not_change_the_surround(model, scenes):
    top, masks, every = scenes
    other = top.clone()
    other[1::2] = every[50:56]
    one, two = (
        pair_of(model, (images, masks, every), VETO, steps=3, poles=["lowest"]) for images in (top, other)
    )
    assert torch.equal(one.surround, two.surround) and not torch.equal(one.driver, two.driver)


def test_the_contrast_is_that_of_the_rest(model, scenes):
    top, masks, _ = scenes
    pixels = (top * 0.25 + 0.5).clamp(0, 1).double()
    own = [
        ((image - 0.5)[:, mask == 0] ** 2).mean().sqrt().item()
        for image, mask in zip(pixels, masks, strict=True)
    ]
    found = pair_of(model, scenes, SUM, steps=1, contrast=None, poles=["lowest"]).contrast
    assert found == pytest.approx(sorted(own)[5], rel=1e-5)


def made_up(unit, with_driver, without, rest=((4.0, 4.0, 5.0), (0.0, 1.0, 0.0)), **changed):
    """One pole, from responses [fitted, image] with and without the driver; natural responses -10..10."""
    response = torch.stack((torch.tensor(with_driver), torch.tensor(without)), dim=1)[None]
    blank = torch.zeros(3, 3, 8, 8)
    fields = {
        "unit": unit, "poles": ("lowest",), "surround": torch.zeros(1, 2, 3, 8, 8), "response": response,
        "rest": torch.tensor(rest), "driver": blank, "mask": blank[:, 0],
        "natural": torch.linspace(-10, 10, 401), "contrast": 0.1, "lost": torch.ones(1, 2),
    }  # fmt: skip
    return ConditionalPair(**fields | changed)


def test_the_table_by_hand(model):
    unit = Unit(model, None, 0)
    on, off = [[-9.0, -8.0, -9.5], [-4.0, -5.0, -3.0]], [[-1.0, 0.0, -0.5], [0.0, 1.0, -1.0]]
    row = conditional_table([made_up(unit, on, off)]).iloc[0]
    spread = np.linspace(-10, 10, 401).std(ddof=1)
    first = np.array([(-9 - 4) - (-1 - 0), (-8 - 4) - (0 - 1), (-9.5 - 5) - (-0.5 - 0)]) / spread
    second = np.array([(-4 - 4) - (0 - 0), (-5 - 4) - (1 - 1), (-3 - 5) - (-1 - 0)]) / spread
    both = (first + second) / 2
    assert row["fitted_with"] == pytest.approx(first.mean(), rel=1e-5)
    assert row["fitted_without"] == pytest.approx(second.mean(), rel=1e-5)
    assert row["interaction"] == pytest.approx(both.mean(), rel=1e-5)
    half = 4.302653 * both.std(ddof=1) / 3**0.5  # Student's t with 2 degrees of freedom
    assert (row["low"], row["high"]) == pytest.approx((both.mean() - half, both.mean() + half), rel=1e-4)
    alone = np.array([-10.5, -10.5, -11.25]) / spread
    t = max((each.mean() + LEAST) / (each.std(ddof=1) / 3**0.5) for each in (both, alone))
    assert row["q"] == pytest.approx(0.5 + t / (2 * (2 + t**2) ** 0.5), rel=1e-3)  # Student's t with 2 again
    assert row["driver"] == pytest.approx((13 - 1) / 3 / spread, rel=1e-5)
    assert row["with_driver"] == pytest.approx(np.mean([-13, -12, -14.5, -8, -9, -8]) / spread, rel=1e-5)
    assert row["without_driver"] == pytest.approx(np.mean([-1, -1, -0.5, 0, 0, -1]) / spread, rel=1e-5)
    assert row["ranks"] == pytest.approx(both.mean() * spread / 20, abs=0.01) and row["veto"]


def test_the_bias_of_selection_cancels(model):
    """Low where it was fitted, and nowhere else: the one surround with the driver, the other without."""
    unit, usual, fooled = Unit(model, None, 0), [4.0, 4.5, 5.0], [-9.0, -8.0, -9.5]
    at_blank, fooled_blank = [0.0, 1.0, 0.0], [-13.0, -11.5, -14.5]
    row = conditional_table([made_up(unit, [fooled, usual], [at_blank, fooled_blank])]).iloc[0]
    assert row["fitted_with"] < -2 and row["fitted_without"] > 2
    assert abs(row["interaction"]) < 0.1 and not row["veto"]


def test_a_surround_that_fills_a_saturating_unit_is_no_veto(model):
    """It makes up for the driver: high with and without it, so that the driver adds nothing."""
    full = [[5.0, 5.5, 6.0]] * 2
    row = conditional_table([made_up(Unit(model, None, 0), full, full)]).iloc[0]
    assert row["interaction"] < -LEAST and row["ranks"] < 0 and row["with_driver"] > 0
    assert row["q"] > 0.5 and not row["veto"]


def test_a_second_surround_that_got_nowhere_says_nothing(model):
    unit, on, off = Unit(model, None, 0), [[-9.0, -8.0, -9.5], [4.0, 4.5, 5.0]], [[0.0, 1.0, 0.0]] * 2
    for lost, alone in (((1.0, 0.0), True), ((1.0, 1.0), False), ((0.0, 0.0), False)):
        row = conditional_table([made_up(unit, on, off, lost=torch.tensor([lost]))]).iloc[0]
        assert (row["fitted_without"] == row["fitted_with"]) == alone


def test_another_scale_must_leave_the_sign(model):
    """Where few natural responses lie, a large difference is one of few ranks: there the sign turns."""
    unit, natural = Unit(model, None, 0), torch.cat((torch.linspace(-1, 0, 300), torch.linspace(0, 60, 30)))
    rest = ((50.0, 51.0, 52.0), (0.0, 0.0, 0.0))
    responses = [[20.0, 20.5, 21.0]] * 2, [[-1.0, -1.0, -1.0]] * 2
    pair = made_up(unit, *responses, rest, natural=natural)
    row = conditional_table([pair]).iloc[0]
    assert row["interaction"] < -1 and row["q"] < 0.05 and row["ranks"] > 0 and not row["veto"]
    even = replace(pair, natural=torch.linspace(-60, 60, 300))
    assert conditional_table([even]).iloc[0]["veto"]


def test_bad_input(model, scenes):
    top, masks, every = scenes
    natural = Unit(model, None, 0).response(every)
    for parameter, changed in {
        "images": {"images": top[:2], "masks": masks[:2]},
        "masks": {"masks": masks[:4]},
        "natural": {"natural": natural[:1]},
        "contrast": {"contrast": 0.0},
        "poles": {"poles": ["low"]},
        "steps": {"steps": 0},
        "shift": {"shift": -1},
    }.items():
        given = {"images": top, "masks": masks, "natural": natural} | changed
        with pytest.raises(InputError) as error:
            conditional_pair(Unit(model, None, 0), **given)
        assert error.value.parameter == parameter
    with pytest.raises(InputError, match="outside 0..1"):
        conditional_pair(Unit(model, None, 0), top, 2 * masks, natural)
    with pytest.raises(InputError, match="nothing but the blank"):
        conditional_pair(Unit(model, None, 0), torch.zeros_like(top), masks, natural)


def test_the_figure_shows_the_surrounds_and_the_changes(pairs):
    fig = pairs[VETO].show()
    table = conditional_table([pairs[VETO]])
    pictures, changes = fig.axes[:5], fig.axes[5]
    with_driver, without = pairs[VETO].composed("lowest")
    for ax, pixels in zip(pictures, (pairs[VETO].driver, with_driver, without), strict=False):
        assert np.allclose(ax.images[0].get_array(), pixels[0].permute(1, 2, 0))
    drawn = [line.get_xdata()[0] for line in changes.lines[:4]]
    assert np.allclose(drawn, table[["with_driver", "without_driver"]].to_numpy().ravel())
    assert [", veto" in text.get_text() for text in changes.texts] == [True, False]
    plt.close(fig)


def test_evidence_masks_hold_the_driver(model, scenes):
    top, masks, _ = scenes
    found = evidence_masks(Unit(model, None, VETO), top, 0.5, smooth=3, grow=1, feather=1)
    assert found.shape == masks.shape and found.min() >= 0 and found.max() == 1
    assert (found * masks).sum() > 0.95 * masks.sum() and found.mean() < 0.5
    most = evidence_masks(Unit(model, None, VETO), top, 0.9, smooth=3, grow=1, feather=1)
    assert (most >= found).all() and most.mean() > found.mean()
    assert (evidence_masks(Unit(model, None, VETO), torch.zeros_like(top)) == 0).all()
    for parameter, options in {"share": {"share": 1.0}, "smooth": {"smooth": 4}}.items():
        with pytest.raises(InputError) as error:
            evidence_masks(Unit(model, None, VETO), top, **options)
        assert error.value.parameter == parameter


def compiled_pair(name):
    """The first unit of a compiled network, around its driver A: concepts are 1.2 bright, the blank is grey."""
    compiled = COMPILED[name]()
    model = set_input_spec(compiled.model, Normalisation((0.25,), (0.5,)), 1)
    generator = torch.Generator().manual_seed(0)
    presence = torch.rand(80, len(compiled.concepts), generator=generator) < 0.5
    presence[:12] = compiled.present("A")
    images = 1.2 * compiled.render(presence)
    images = images + 0.1 * torch.rand(images.shape, generator=generator)
    unit, masks = Unit(model, None, 0), compiled.masks[:1].float().expand(12, -1, -1)
    natural = unit.response(images)
    return conditional_pair(unit, images[:12], masks, natural, 24, contrast=0.1, shift=0, poles=["lowest"])


def test_compiled_rules_have_the_context_that_is_in_their_weights():
    """B lowers "A and not B" where A is, and "not B" whatever else is there."""
    table = conditional_table([compiled_pair(name) for name in ("A and not B", "not B")])
    assert table["veto"].tolist() == [True, False]
    assert abs(table["driver"][1]) < DRIVER and table["interaction"][1] == pytest.approx(0, abs=0.05)


@pytest.mark.slow
def test_the_rules_of_the_scenes():
    dataset, network = scene_dataset(120, 0), load_model("concept_scenes")
    responses, pairs = dataset_responses(network, "logits", dataset), []
    for rule in ("disc and not cross", "checker"):
        unit = Unit(network, "logits", list(RULES).index(rule))
        natural = unit.of(responses)
        top = natural.argsort(descending=True)[:12]
        images = dataset.images[top]
        masks = evidence_masks(unit, images)
        pairs.append(conditional_pair(unit, images, masks, natural, 24, poles=["lowest"]))
    assert conditional_table(pairs)["veto"].tolist() == [True, False]
