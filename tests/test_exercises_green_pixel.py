"""Checks of exercise 02: each typical wrong answer gets a sentence of its own."""

import pytest
import torch
from captum.attr import Saliency
from checks import green_pixel
from checks.answers import WrongAnswer

from absence_utils import Unit, attribute
from absence_utils.toys.green_pixel import GreenPixelNet, colour_mask, green_pixel_images


@pytest.fixture(scope="module")
def network():
    """By hand: one channel for green, one for everything else; green lowers class 1 by 10, white raises it by 3."""
    network = GreenPixelNet(0).eval().requires_grad_(False)
    network.colours.weight.copy_(torch.tensor([[-1.0, 1.0, -1.0], [1.0, 0.0, 1.0]])[:, :, None, None])
    network.classes.weight.copy_(torch.tensor([[10.0, -1.5], [-10.0, 1.5]])[:, :, None, None])
    return network


@pytest.fixture(scope="module")
def test_images():
    return green_pixel_images(20, seed=3)


@pytest.fixture(scope="module")
def images(test_images):
    return test_images.images[test_images.labels == 0]


@pytest.fixture(scope="module")
def unsigned(network, images):
    return Saliency(network).attribute(images.clone().requires_grad_(), target=1)


def test_effects(network):
    outputs = network(green_pixel.palette())
    assert outputs[0, 1] == -10 and green_pixel.effects_of_colours(outputs[:, 1], network).endswith(
        "is: green."
    )
    assert green_pixel.effects_of_colours(outputs[:, 1].tolist(), network)
    for answer, sentence in {
        outputs[:, 0]: "The unit is class 1",
        outputs: "both classes",
        outputs[:, 1].abs(): "absolute values",
        network.colours(green_pixel.palette())[:, 0, 0, 0]: "first hidden channel",
        outputs[:3, 1]: r"shape \(9,\), and yours is an array of shape \(3,\)",
        ...: "not answered yet",
    }.items():
        with pytest.raises(WrongAnswer, match=sentence):
            green_pixel.effects_of_colours(answer, network)


def test_change_is_that_of_a_pasted_pixel(network):
    for right in (-10 / 1024, torch.tensor([-10 / 1024]), -0.00977):
        assert f"{-10 / 1024:+.2f}" in green_pixel.change_by_green(right, network)
    for answer, sentence in {
        -10.0: "image of one pixel",
        -10 / 32: "32 x 32 places, not 32",
        10 / 1024: "does green raise or lower",
        -0.02: "too low",
        ...: "not answered yet",
    }.items():
        with pytest.raises(WrongAnswer, match=sentence):
            green_pixel.change_by_green(answer, network)


def test_inputs(network, test_images):
    target = test_images.labels == 1
    said = green_pixel.kinds_of_inputs(target, ~target, network, test_images)
    assert "0.0% of the attribution on target inputs" in said
    assert green_pixel.kinds_of_inputs(target.tolist(), (~target).tolist(), network, test_images)
    for answers, sentence in (
        ((~target, target), "belongs to the unit's class, class 1"),
        ((target, target), "those of the other class"),
        ((target.nonzero()[:, 0], ~target), r"array of shape \(20,\)"),
        ((target, ...), "`non_target`"),
    ):
        with pytest.raises(WrongAnswer, match=sentence):
            green_pixel.kinds_of_inputs(*answers, network, test_images)


def test_the_mistake_is_shown(network, images, unsigned):
    said = green_pixel.unsigned(0.0, "for", unsigned, images, network)
    assert "in 10 of 10 images no pixel is brighter than the green one. " in said and "false" in said
    as_bright = unsigned.clone()
    for colour in ("yellow", "cyan"):
        place = colour_mask(images, colour)[:, None].expand_as(unsigned)
        as_bright[place] = (
            unsigned[colour_mask(images, "green")[:, None].expand_as(unsigned)].view(10, 3).sum(1)[0] / 3
        )
    said = green_pixel.unsigned(0.0, "for", as_bright, images, network)
    assert "the green one (yellow and cyan are as bright)" in said
    for answers, sentence in {
        (0.0, "against"): "You know better than the map",
        (0.5, "for"): "too high",
        (0.0, "perhaps"): "should be one of",
        (0.0, ...): "`reading`",
    }.items():
        with pytest.raises(WrongAnswer, match=sentence):
            green_pixel.unsigned(*answers, unsigned, images, network)


@pytest.mark.slow
def test_only_a_signed_attribution_repairs(network, images, unsigned):
    signed = attribute(Unit(network, channel=1), images)
    gradient = Saliency(network).attribute(images.clone().requires_grad_(), target=1, abs=False)
    for right in (signed, gradient * images, attribute(Unit(network, channel=1), images, "deeplift")):
        assert f"{signed.sum(1)[colour_mask(images, 'green')].mean():+.2f}" in green_pixel.signed_map(
            right, unsigned, images, network
        )
    for answer, sentence in {
        unsigned: "unsigned map itself",
        signed.abs(): "absolute values were taken",
        unsigned * images: "use abs=False",
        gradient: "multiply by the image",
        attribute(Unit(network, channel=0), images): "as in a map of class 0",
        signed.sum(1): "Keep the colour channels",
        -signed.clamp(max=0).sum(1): "negative part alone",
        -signed: "wrong way round",
        ...: "not answered yet",
    }.items():
        with pytest.raises(WrongAnswer, match=sentence):
            green_pixel.signed_map(answer, unsigned, images, network)


def test_a_network_without_the_absence_is_refused(network, images, unsigned):
    other = GreenPixelNet(0).eval().requires_grad_(False)
    other.colours.weight.copy_(network.colours.weight)
    other.classes.weight.copy_(network.classes.weight.flip(0))
    with pytest.raises(WrongAnswer, match="not below zero"):
        green_pixel.signed_map(attribute(Unit(other, channel=1), images), unsigned, images, other)
