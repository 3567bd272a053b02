"""What is varied to make an image: free noise, noise of a fixed contrast, or a small change of a given image.

Each function returns lucent's Fourier coefficients and a function that makes pixels of them. The contrast of an image
is the root mean square, over pixels and channels, of its distance from the blank: a grey of the network's mean
colour, which the normalisation makes 0.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from absence_utils.errors import InputError
from absence_utils.images.base import Normalisation

from ._lucent import colour_correlation, param

Parametrised = tuple[list[Tensor], Callable[[], Tensor]]  # variables, and what makes pixels in 0..1 of them

_ROUNDS = 12  # of the search for the gain that gives a contrast after clipping: its error is then below 1e-3


def contrast_of(pixels: Tensor, blank: Tensor) -> Tensor:
    """Contrast of images: [image, channel, height, width] in 0..1, blank [channel, 1, 1] -> [image]."""
    return (pixels - blank).flatten(1).square().mean(dim=1).sqrt()


def blank_of(normalisation: Normalisation) -> Tensor:
    """The blank's colour [channel, 1, 1] in 0..1: 0 after normalisation."""
    return torch.tensor(normalisation.mean, dtype=torch.float32).clamp(0, 1)[:, None, None]


def at_contrast(change: Tensor, blank: Tensor, contrast: float) -> Tensor:
    """Images blank + gain * change, clipped to 0..1, with the gain at which the clipped image has this contrast.

    Args:
        change: [image, channel, height, width], any scale; the gradient flows through it.
        blank: [channel, 1, 1] in 0..1.
        contrast: root mean square distance from the blank, in the pixel range.

    Returns:
        [image, channel, height, width] in 0..1. A change that cannot have so much contrast, since all that is left is
        clipped, gets as much as it reaches.
    """
    blank = blank.to(change)
    with torch.no_grad():
        size = change.flatten(1).square().mean(dim=1).sqrt().clamp(min=1e-12)
        gain = contrast / size
        for _ in range(_ROUNDS):
            reached = contrast_of((blank + gain[:, None, None, None] * change).clamp(0, 1), blank)
            gain = gain * (contrast / reached.clamp(min=1e-12)).clamp(max=2)
    return (blank + gain[:, None, None, None] * change).clamp(0, 1)


def highest_contrast(blank: Tensor) -> float:
    """The highest contrast that an image in 0..1 can have."""
    return torch.maximum(blank, 1 - blank).square().mean().sqrt().item()


def check_contrast(contrast: float, blank: Tensor) -> None:
    """Raises InputError for a contrast that no image in 0..1 has."""
    highest = highest_contrast(blank)
    if not 0 < contrast < highest:
        raise InputError(
            "contrast", f"{contrast} is out of range", f"Use more than 0 and less than {highest:.2f}."
        )


def noise_image(
    size: int,
    channels: int,
    facets: int,
    copies: int,
    *,
    decorrelate: bool,
    contrast: float | None,
    blank: Tensor,
) -> Parametrised:
    """Faint noise to start from, `copies` times the same `facets` images: [copies * facets, channel, height, width].

    Args:
        size: height and width.
        channels: of the image.
        facets: different images.
        copies: how often they come, one after the other: one copy for each goal.
        decorrelate: use lucent's colour statistics of natural images (RGB only).
        contrast: None: lucent's logistic function to 0..1; else images of this contrast, see `at_contrast`.
        blank: what contrast is measured from, see `blank_of`.
    """
    (start,), _ = param.fft_image((facets, channels, size, size))
    before = torch.get_rng_state()
    (spectrum,), waves = param.fft_image((copies * facets, channels, size, size))
    torch.set_rng_state(before)  # what is drawn later does not depend on the number of copies
    with torch.no_grad():
        spectrum.copy_(start.repeat(copies, *[1] * (start.ndim - 1)))
    coloured = decorrelate and channels == 3
    if contrast is None:
        return [spectrum], param.to_valid_rgb(waves, decorrelate=coloured)

    def image() -> Tensor:
        change = waves()
        if coloured:
            matrix = torch.from_numpy(colour_correlation).to(change)
            change = torch.einsum("ij,bjhw->bihw", matrix, change)
        return at_contrast(change, blank, contrast)

    return [spectrum], image


def changed_image(pixels: Tensor) -> Parametrised:
    """Parametrise a small change of pixels [1, channel, height, width] in 0..1.

    Lucent's Fourier coefficients, added in logistic space. They start near 0 and prefer coarse changes;
    changing pixels one by one gives noise instead of shapes.
    """
    variables, change = param.fft_image(pixels.shape, sd=1e-6)  # sd=0 would mean lucent's default
    here = pixels.to(variables[0].device)
    start = torch.logit(here, eps=1e-3)
    shape = param.to_valid_rgb(lambda: start + change())
    # As a difference, so that exactly the original comes out where nothing changes, also at 0 and 1.
    return variables, lambda: (here + shape() - torch.sigmoid(start)).clamp(0, 1)
