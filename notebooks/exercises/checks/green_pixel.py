"""Checks of exercise 02: a trained network that encodes the absence of green, and a map that hides the sign."""

from __future__ import annotations

import torch
from torch import Tensor

from absence_utils.attribution.evidence import absence_evidence
from absence_utils.attribution.methods import attribute
from absence_utils.images.base import TensorImages
from absence_utils.toys.green_pixel import (
    COLOURS,
    GreenPixelNet,
    colour_mask,
    green_pixel_images,
)
from absence_utils.units import Unit

from .answers import Correct, WrongAnswer, answered, choose, compare

NO_GREEN = 1  # the unit that all of this is about


def palette() -> Tensor:
    """One image of a single pixel for each colour of `COLOURS`, in their order: [colour, rgb, 1, 1]."""
    return torch.tensor(list(COLOURS.values()))[:, :, None, None]


@torch.no_grad()
def effects_of_colours(effects, network: GreenPixelNet) -> Correct:
    """Response of 'no green pixel' to one pixel of each colour: [colour]."""
    outputs = network(palette())
    truth = outputs[:, NO_GREEN]
    mistakes = [
        (
            outputs[:, 0],
            "Those are the responses of 'green pixel', class 0. The unit is class 1.",
        ),
        (
            outputs,
            "Those are both classes. Take the column of 'no green pixel', class 1.",
        ),
        (
            truth.abs(),
            "You took absolute values: what lowers the response and what raises it look alike then.",
        ),
        (
            network.colours(palette())[:, 0, 0, 0],
            "That is the first hidden channel. Go on to the output.",
        ),
    ]
    look = "`network(palette)` gives [colour, class]."
    compare("effects", effects, truth, mistakes=mistakes, look=look)
    lower = [
        name for name, value in zip(COLOURS, truth.tolist(), strict=True) if value < 0
    ]
    return Correct(
        f"Of {len(COLOURS)} colours, what lowers 'no green pixel' is: {', '.join(lower)}."
    )


def _pasted(network: GreenPixelNet) -> float:
    """Change of the response to an image without green when one black pixel of it turns green."""
    image = green_pixel_images(2, seed=0).images[1:]
    row, column = (image[0].sum(dim=0) == 0).nonzero()[0].tolist()
    changed = image.clone()
    changed[0, :, row, column] = torch.tensor(COLOURS["green"])
    with torch.no_grad():
        return float((network(changed) - network(image))[0, NO_GREEN])


def change_by_green(change, network: GreenPixelNet) -> Correct:
    """The effect of a green pixel on the mean response to an image of 32 x 32 pixels, checked by pasting one."""
    truth = _pasted(network)
    with torch.no_grad():
        alone = float(network(palette()[:1])[0, NO_GREEN])
    mistakes = [
        (
            alone,
            "That is the response to an image of one pixel. The response is a mean over 32 x 32 places.",
        ),
        (alone / 32, "The mean goes over rows and columns: 32 x 32 places, not 32."),
        (
            -truth,
            "The sign is the wrong way round: does green raise or lower 'no green pixel'?",
        ),
    ]
    compare(
        "change",
        change,
        truth,
        mistakes=mistakes,
        look="The response is the mean over all 32 x 32 places.",
    )
    return Correct(
        f"Pasting a green pixel into an image changes the response by {truth:+.2f}: an encoded absence."
    )


def kinds_of_inputs(
    target, non_target, network: GreenPixelNet, test: TensorImages
) -> Correct:
    """Which images are target and which non-target inputs of 'no green pixel': bool [image] each."""
    answered(target=target, non_target=non_target)
    truth = test.labels == NO_GREEN
    swapped = "You have them the wrong way round: a target input belongs to the unit's class, class 1."
    look = "Compare `test.labels` with the unit's class."
    compare(
        "target",
        target,
        truth.float(),
        mistakes=[((~truth).float(), swapped)],
        look=look,
    )
    same = "Non-target inputs are those of the other class."
    compare(
        "non_target",
        non_target,
        (~truth).float(),
        mistakes=[(truth.float(), same)],
        look=look,
    )
    shares = []
    for inputs in (truth, ~truth):
        maps = attribute(Unit(network, channel=NO_GREEN), test.images[inputs]).sum(
            dim=1, keepdim=True
        )
        shares.append(float(absence_evidence(maps).sum() / maps.abs().sum()))
    return Correct(
        f"Absence evidence is {shares[0]:.1%} of the attribution on target inputs and {shares[1]:.0%} on non-target "
        "inputs: whose absence a unit encodes is not in its own class's images."
    )


def unsigned(
    negative, reading, unsigned: Tensor, images: Tensor, network: GreenPixelNet
) -> Correct:
    """The mistake: the share of an unsigned map below zero, and what the map seems to say of the green pixel."""
    answered(negative=negative, reading=reading)
    look = "`(unsigned < 0).double().mean()`."
    compare(
        "negative",
        negative,
        float((unsigned < 0).double().mean()),
        look=look,
        share=True,
    )
    because = {
        "against": "You know better than the map! What would somebody conclude who sees only this map, and reads "
        "every value above zero as speaking for the unit?"
    }
    choose("reading", reading, "for", because)
    summed, green = (
        unsigned.sum(dim=1),
        colour_mask(images, "green"),
    )  # one green pixel in each image
    count = int((summed[green] == summed.flatten(1).max(dim=1).values).sum())
    value = summed[green].mean()
    ties = [
        name
        for name in COLOURS
        if name != "green" and _all_near(summed[colour_mask(images, name)], value)
    ]
    also = (
        f" ({' and '.join(ties)} {'is' if len(ties) == 1 else 'are'} as bright)"
        if ties
        else ""
    )
    return Correct(
        f"You made the mistake: nothing is below zero, and in {count} of {len(images)} images no pixel is brighter "
        f"than the green one{also}. It seems to speak for the unit. That conclusion is false: pasting one in changes "
        f"the response by {_pasted(network):+.2f}."
    )


def _all_near(values: Tensor, value: Tensor) -> bool:
    """Whether there are values, and all of them are this one up to rounding of floats."""
    return len(values) > 0 and torch.allclose(
        values, value.expand_as(values), rtol=1e-4
    )


def signed_map(
    signed, unsigned: Tensor, images: Tensor, network: GreenPixelNet
) -> Correct:
    """The repair: a signed attribution of 'no green pixel', [image, rgb, height, width]."""
    answered(signed=signed)
    truth = attribute(Unit(network, channel=NO_GREEN), images)
    other = attribute(Unit(network, channel=0), images)
    with torch.enable_grad():
        leaf = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(network(leaf)[:, NO_GREEN].sum(), leaf)
    trap = gradient.sum(dim=1)[colour_mask(images, "green")].mean()
    slope = (
        "That is the gradient with its sign: what would happen if a pixel changed a little. Attribution is what the "
        f"pixel contributes: multiply by the image. (Summed over colours this gradient is {float(trap):+.1f} on the "
        "green pixel: it misleads even with its sign.)"
    )
    mistakes = [
        (
            unsigned,
            "That is the unsigned map itself: captum's Saliency takes absolute values unless told otherwise.",
        ),
        (
            truth.abs(),
            "That has no sign: absolute values were taken at the end, or of the gradient (use abs=False).",
        ),
        (gradient, slope),
        (
            other,
            "The sign is the wrong way round, as in a map of class 0. The unit is class 1.",
        ),
        (truth.sum(dim=1), "Keep the colour channels: [image, rgb, height, width]."),
        (
            absence_evidence(truth),
            "That is the negative part alone. The map itself has both signs.",
        ),
    ]
    look = "`attribute(Unit(network, channel=1), images)` is signed."
    compare("signed", signed, truth, mistakes=mistakes, look=look)
    values = truth.sum(dim=1)[colour_mask(images, "green")]
    if not bool((values < 0).all()):
        raise WrongAnswer(
            "In this network green is not below zero everywhere: train it as the first cell does."
        )
    return Correct(
        f"On the green pixels the map is {float(values.mean()):+.2f} on average: they speak against the unit."
    )
