"""Paste patches into images, and the patches they are compared with.

Pixels are the network's input throughout, normalised: 0 is the mean colour.
"""

from __future__ import annotations

import torch
from torch import Tensor

from absence_utils.errors import InputError, require_choice

LOCATIONS = ("top left", "top right", "bottom left", "bottom right", "centre")
CORNERS = 4  # the first four places


def insert_patches(
    images: Tensor, patches: Tensor, corner="random", seed: int = 0, *, feather: int = 0
) -> Tensor:
    """Paste one patch into each image.

    Args:
        images: [batch, channel, height, width].
        patches: [batch, channel, height, width], or one patch [channel, height, width] for all images.
        corner: where. "random" (a corner for each image, drawn with `seed`), a name from `LOCATIONS`, numbers [batch]
            of places, or the upper left pixel of each patch [batch, (top, left)].
        seed: of the random corners.
        feather: pixels over which the patch fades in from its edges; 0 for hard edges.

    Returns:
        A new tensor like `images`.

    Raises:
        InputError: shapes that do not fit, a patch larger than the image or beyond its edge, an unknown corner.

    Example:
        >>> import torch
        >>> from absence_utils import insert_patches
        >>> insert_patches(torch.zeros(1, 1, 3, 3), torch.ones(1, 1, 2, 2), corner="top left")
        tensor([[[[1., 1., 0.],
                  [1., 1., 0.],
                  [0., 0., 0.]]]])
    """
    patches = patches.expand(len(images), *patches.shape[-3:]) if patches.ndim == 3 else patches
    if images.ndim != 4 or patches.ndim != 4 or patches.shape[:2] != images.shape[:2]:
        shapes = f"{tuple(patches.shape)} for images {tuple(images.shape)}"
        raise InputError("patches", f"shape {shapes}", "Give [batch, channel, height, width] for both.")
    at = paste_corners(images, patches.shape[-2:], corner, seed).to(images.device)
    patches = patches.to(images)
    result = images.clone()
    height, width = patches.shape[2:]
    windows = result.unfold(2, height, 1).unfold(3, width, 1)  # a view: the write lands in `result`
    where = torch.arange(len(images), device=images.device), slice(None), at[:, 0], at[:, 1]
    if feather:
        alpha = feather_mask(height, width, feather).to(images)
        patches = alpha * patches + (1 - alpha) * windows[where]
    windows[where] = patches
    return result


def paste_corners(images: Tensor, patch: tuple[int, int], corner, seed: int = 0) -> Tensor:
    """[batch, (top, left)] of patches of (height, width) in [batch, ..., height, width], see `insert_patches`."""
    height, width = images.shape[-2:]
    if patch[0] > height or patch[1] > width:
        problem = f"{patch[0]} x {patch[1]} px do not fit into images of {height} x {width} px"
        raise InputError("patches", problem, "Use smaller patches or larger images.")
    if isinstance(corner, str) and corner == "random":
        corner = torch.randint(CORNERS, (len(images),), generator=torch.Generator().manual_seed(seed))
    elif isinstance(corner, str):
        require_choice("corner", corner, ("random", *LOCATIONS))
        corner = torch.full((len(images),), LOCATIONS.index(corner))
    corner = torch.as_tensor(corner, dtype=torch.long).cpu()
    free = torch.tensor([height - patch[0], width - patch[1]])
    if corner.shape == (len(images),):
        if len(corner) and not 0 <= corner.min() <= corner.max() < len(LOCATIONS):
            problem = f"{corner.tolist()} are not all places"
            raise InputError("corner", problem, f"Use 0 to {len(LOCATIONS) - 1}.")
        shares = torch.tensor([(0, 0), (0, 2), (2, 0), (2, 2), (1, 1)])  # of half the free room, as LOCATIONS
        return (free * shares // 2)[corner]
    if corner.shape != (len(images), 2):
        problem = f"shape {tuple(corner.shape)}"
        raise InputError("corner", problem, "Give [batch] places or [batch, 2] pixels.")
    if (corner < 0).any() or (corner > free).any():
        raise InputError("corner", "a patch would reach beyond its image", f"Use at most {free.tolist()} px.")
    return corner


def feather_mask(height: int, width: int, feather: int) -> Tensor:
    """[height, width] weight of a patch: 1 inside, falling linearly over `feather` pixels to its edges.

    Raises:
        InputError: the fading edges would meet.
    """
    if not 0 <= feather <= min(height, width) // 2:
        remedy = f"Use 0 to {min(height, width) // 2}."
        raise InputError("feather", f"{feather} px on a patch of {height} x {width} px", remedy)
    ramps = [
        (torch.minimum(torch.arange(side), torch.arange(side - 1, -1, -1)) + 1) / (feather + 1)
        for side in (height, width)
    ]
    return ramps[0].clamp(max=1)[:, None] * ramps[1].clamp(max=1)


def scramble_phases(patches: Tensor, seed: int = 0) -> Tensor:
    """Patches with the same power spectrum and mean in every channel, and nothing in its place.

    Each patch gets the phases of its own white noise, added alike to those of all channels, so that the colours keep
    their relation at every frequency. Values may leave the range of pixels; they are not clipped, which would change
    the spectrum.

    Args:
        patches: [batch, channel, height, width].
        seed: of the noise.
    """
    height, width = patches.shape[-2:]
    noise = torch.randn(len(patches), 1, height, width, generator=torch.Generator().manual_seed(seed))
    phase = torch.fft.rfft2(noise.double())
    phase = phase / phase.abs().clamp(min=1e-12)  # of real noise: conjugate frequencies match
    phase[..., 0, 0] = 1  # the mean stays
    spectrum = torch.fft.rfft2(patches.double().cpu()) * phase
    return torch.fft.irfft2(spectrum, s=(height, width)).to(patches)
