"""A ladder: one image changed step by step until a unit is off, with its response falling by equal steps."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from absence_utils.display import one_line
from absence_utils.errors import InputError, require_at_least, require_choice
from absence_utils.images.base import normalisation_of
from absence_utils.units import Unit

from .rendering import suppress

STARTS = ("original", "previous")
HALVINGS = 12  # of the share of a change: to a fortieth of a percent


@dataclass(frozen=True)
class Ladder:
    """An image in levels, from itself to one that switches a unit off.

    Attributes:
        unit: that is switched off; its signed output for `layer=None`.
        image: [level, channel, height, width] in 0..1; level 0 is the image as it was.
        response: [level] of these images, in the units of the layer.
        target: [level] response that was asked for, in equal steps.
        size: [level] mean |change| from level 0 over pixels and channels, in units of the pixel range.
    """

    unit: Unit
    image: Tensor
    response: Tensor
    target: Tensor
    size: Tensor

    __repr__ = one_line

    @property
    def monotone(self) -> bool:
        """Whether no level responds more than the one before."""
        return bool((self.response.diff() <= 0).all())

    def show(self):
        """A figure: the levels side by side, what was changed, and the response against the change's size."""
        from absence_utils.plots.ladder import ladder_strip

        return ladder_strip(self)


def suppression_ladder(
    unit: Unit,
    image: Tensor,
    real: Tensor | None = None,
    levels: int = 11,
    *,
    target: float | None = None,
    quantile: float = 0.05,
    start: str = "original",
    **options,
) -> Ladder:
    """Suppress a unit in equal steps of its response, from the image as it is to `target`.

    Each level is a `suppress` of its own, scaled back to the level's response. On the concept scenes' logits
    all ladders fall at every step; started at the original they end with a change of 0.90% of the pixel
    range, started at the level before with 1.09% (data/measured/ladder.csv).

    Args:
        unit: channel, logit or direction.
        image: [channel, height, width], normalised as the network expects: an item of an image dataset.
        real: [image, channel] natural responses of the unit's layer (`dataset_responses`), for the target.
        levels: number of images, the first included.
        target: response of the last level, in the units of the layer; None for a quantile of `real`.
        quantile: of the unit's natural responses, in 0..1, as in `suppress_top`.
        start: what `suppress` changes for each level: the "original" image, or the "previous" level.
        options: for `suppress`.

    Raises:
        InputError: fewer than two levels; neither `target` nor `real`; what `suppress` refuses, such as an
            image that is not above the target.

    Example:
        >>> from absence_utils import Unit, load_images, load_model
        >>> from absence_utils.visualization import suppression_ladder
        >>> model = load_model("concept_scenes")
        >>> image, _ = load_images("concept_scenes", model, limit=1)[0]
        >>> unit = Unit(model, "logits", 4)
        >>> below = unit.response(image[None]).item() - 2
        >>> suppression_ladder(unit, image, levels=3, target=below, steps=8).image.shape
        torch.Size([3, 3, 64, 64])
    """
    require_at_least("levels", levels, 2, "the image as it is, and the one at the target")
    require_choice("start", start, STARTS)
    unit = unit.signed
    if target is None:
        if real is None:
            raise InputError("target", "there is none, and no `real` to take it from", "Give one of the two.")
        target = unit.of(real).double().quantile(quantile).item()
    normalisation = normalisation_of(unit.model)
    original = normalisation.undo(image.detach().cpu().float())
    pixels, responses = [original], [_response(unit, original)]
    targets = torch.linspace(responses[0], target, levels)
    for wanted in targets[1:].tolist():
        if start == "previous" and responses[-1] <= wanted:  # fell through two levels at once
            pixels.append(pixels[-1])
            responses.append(responses[-1])
            continue
        begin = original if start == "original" else pixels[-1]
        with warnings.catch_warnings():
            if wanted != targets[-1]:  # a level half way may be missed; only the last is asked to arrive
                warnings.filterwarnings("ignore", message=".*not to the target")
            found = suppress(unit, normalisation.apply(begin), target=wanted, **options)
        pixels.append(_just_enough(unit, original, found.image, wanted))
        responses.append(_response(unit, pixels[-1]))
    images = torch.stack(pixels)
    size = (images - original).abs().mean(dim=(1, 2, 3))
    return Ladder(unit, images, torch.tensor(responses), targets, size)


def _response(unit: Unit, pixels: Tensor) -> float:
    with torch.no_grad():
        return unit.response(normalisation_of(unit.model).apply(pixels[None])).item()


def _just_enough(unit: Unit, original: Tensor, changed: Tensor, wanted: float) -> Tensor:
    """The share of a change with which the response is as wanted, by bisection; all of it where that misses.

    `suppress` ends below its target, at times by more than a step of the ladder: levels would fall together.
    """
    if _response(unit, changed) > wanted:
        return changed
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        enough = _response(unit, original + middle * (changed - original)) <= wanted
        low, high = (low, middle) if enough else (middle, high)
    return original + high * (changed - original)
