"""Baselines: the inputs that stand for "nothing there", against which an attribution explains the response."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from absence_utils.errors import InputError, require_choice
from absence_utils.images.base import Normalisation, normalisation_of
from absence_utils.units import Unit

# Name to the sd of the Gaussian, as a share of the image's longer side. A tenth takes details away; under a half shapes
# are gone and a slow change of colour stays.
BLURS = {"blurred": 0.1, "strongly blurred": 0.5}
BASELINES = ("zero", "black", "mean", "border", *BLURS)

# What each baseline shows, for a reader.
DESCRIPTIONS = {
    "zero": "the value 0, the mean colour where images are normalised by it",
    "black": "black",
    "mean": "each image's mean colour",
    "border": "each image's border colour",
    "blurred": "each image blurred",
    "strongly blurred": "each image strongly blurred",
}


def baseline_images(
    unit: Unit, images: Tensor, baseline: str | Tensor = "zero", normalisation: Normalisation | None = None
) -> Tensor:
    """The inputs that stand for "nothing there".

    Args:
        images: [batch, channel, height, width], normalised.
        baseline: "zero", the mean colour where images are normalised by their mean; "black", pixels of 0
            before normalisation; "mean", each image's own mean colour; "border", the mean colour of its outermost
            pixels, for things on a plain background; "blurred" and "strongly blurred", each image under a Gaussian
            with sd of a tenth and of half its longer side, reflected at the border; or a tensor that broadcasts to the
            images, normalised like them.
        normalisation: of the images, which says what black is; by default the network's own.

    Returns:
        [batch, channel, height, width].

    Raises:
        InputError: unknown name, a tensor that doesn't broadcast to the images, or a normalisation with another number
            of channels.
    """
    if isinstance(baseline, Tensor):
        try:
            return baseline.detach().to(images).expand_as(images)
        except RuntimeError as error:
            shapes = f"shape {tuple(baseline.shape)} does not broadcast to {tuple(images.shape)}"
            remedy = "Give [channel, height, width] or one for each image."
            raise InputError("baseline", shapes, remedy) from error
    require_choice("baseline", baseline, BASELINES)
    if baseline == "zero":
        return torch.zeros_like(images)
    if baseline == "black":
        normalisation = normalisation or normalisation_of(unit.model)
        if len(normalisation.mean) not in (1, images.shape[1]):
            problem = f"it has {len(normalisation.mean)} channels, the image {images.shape[1]}"
            raise InputError("normalisation", problem, "Give the one the image was made with.")
        return normalisation.apply(torch.zeros_like(images))
    if baseline == "mean":  # normalising is affine, so the mean of the input is the normalised mean colour
        return images.mean(dim=(2, 3), keepdim=True).expand_as(images)
    if baseline == "border":
        return _border(images).mean(dim=2)[..., None, None].expand_as(images)
    sigma = BLURS[baseline] * max(images.shape[-2:])
    # reflection allows no kernel that reaches beyond the image; width first, as torchvision wants it
    radius = [min(round(3 * sigma), edge - 1) for edge in images.shape[:-3:-1]]
    return gaussian_blur(images, [2 * r + 1 for r in radius], [sigma, sigma])


def _border(images: Tensor) -> Tensor:
    """The outermost pixels: [batch, channel, pixel]."""
    inside = torch.zeros(images.shape[-2:], dtype=torch.bool, device=images.device)
    inside[1:-1, 1:-1] = True
    return images[..., ~inside]


def with_baselines(
    unit: Unit, images: Tensor, baseline: str | Tensor, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Copies of images and their baselines on the unit's device, at most `batch_size` at a time."""
    given = images.detach().clone().to(unit.device)
    reference = baseline_images(unit, given, baseline).clone()
    return zip(given.split(batch_size), reference.split(batch_size), strict=True)
