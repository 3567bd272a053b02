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
    pixels = [normalisation.undo(image.detach().cpu().float())]
    with torch.no_grad():
        responses = [unit.response(normalisation.apply(pixels[0][None])).item()]
    targets = torch.linspace(responses[0], target, levels)
    for wanted in targets[1:].tolist():
        # `suppress` ends a little below its target, at times below the next one as well.
        if start == "previous" and responses[-1] <= wanted:
            pixels.append(pixels[-1])
            responses.append(responses[-1])
            continue
        seed_image = pixels[0] if start == "original" else pixels[-1]
        with warnings.catch_warnings():
            if wanted != targets[-1]:  # a level half way may be missed; only the last is asked to arrive
                warnings.filterwarnings("ignore", message=".*not to the target")
            found = suppress(unit, normalisation.apply(seed_image), target=wanted, **options)
        pixels.append(found.image)
        responses.append(found.after)
    images = torch.stack(pixels)
    size = (images - images[0]).abs().mean(dim=(1, 2, 3))
    return Ladder(unit, images, torch.tensor(responses), targets, size)
