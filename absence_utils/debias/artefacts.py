"""Artefacts for studies of shortcuts: something in the image that tells the class in training and not in truth.

All on tensors, a whole batch at once, every draw seeded, with exact masks. Pixels are in 0..1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from absence_utils.errors import InputError, require_at_least, require_shape
from absence_utils.images.scenes import concept_index, render_scenes

SIDES = ("top", "bottom", "left", "right")


class Bias(NamedTuple):
    """Who shows the artefact: the share of the images of the class that carries it, and the share of all others.

    No bias is one of two settings: `COIN`, where the artefact says nothing about the class, and `NO_PATCH`, where
    there is none.
    """

    carrier: float = 1.0
    other: float = 0.0

    @property
    def inverse(self) -> Bias:
        """The shares of both classes exchanged."""
        return Bias(self.other, self.carrier)


COIN, NO_PATCH = Bias(0.5, 0.5), Bias(0.0, 0.0)


@dataclass(frozen=True)
class Artefacts:
    """One artefact for each image, whether it is shown or not.

    Attributes:
        mask: [image, height, width] bool, where it lies.
        colour: [image, channel] in 0..1; or [image, channel, height, width], of which the masked pixels count.
    """

    mask: Tensor
    colour: Tensor

    def __len__(self) -> int:
        return len(self.mask)

    def paste(self, pixels: Tensor, shown: Tensor) -> Tensor:
        """Pixels [image, channel, height, width] with the artefact where `shown` [image] bool says so, a new tensor.

        Raises:
            InputError: other sizes or another number of images than the artefacts'.
        """
        expected = (len(self), self.colour.shape[1], *self.mask.shape[1:])
        require_shape("pixels", pixels, *expected)
        require_shape("shown", shown, len(self))
        there = (self.mask & shown[:, None, None])[:, None]
        colour = self.colour if self.colour.ndim == 4 else self.colour[:, :, None, None]
        return torch.where(there, colour.to(pixels), pixels)

    def masks(self, shown: Tensor) -> Tensor:
        """[image, height, width] bool: where an artefact is shown."""
        return self.mask & shown[:, None, None]

    def take(self, rows) -> Artefacts:
        """Those of the images `rows`."""
        return Artefacts(self.mask[rows], self.colour[rows])

    def to(self, device) -> Artefacts:
        """The same on a device."""
        return Artefacts(self.mask.to(device), self.colour.to(device))

    def check(self, pixels: Tensor) -> None:
        """Raise InputError unless every artefact lies, in part at least, inside its image of `pixels`."""
        if self.mask.shape[1:] != pixels.shape[2:] or self.colour.shape[1] != pixels.shape[1]:
            own = (self.colour.shape[1], *self.mask.shape[1:])
            problem = f"made for images of {own}, which are {tuple(pixels.shape[1:])}"
            raise InputError("artefacts", problem, "Draw them for the images' size and channels.")
        outside = (~self.mask.flatten(1).any(dim=1)).nonzero()[:, 0].tolist()
        if outside:
            problem = f"{len(outside)} have no pixel inside their image (first: image {outside[0]})"
            raise InputError("artefacts", problem, "Move them in, or leave those images out.")


def elliptical_patches(
    n: int,
    size: int | tuple[int, int],
    seed: int = 0,
    *,
    reach=(0.15, 0.35),
    width=(0.2, 0.45),
    tilt: float = 0.6,
) -> Artefacts:
    """Coloured ellipses that reach in from an image border, as the patches stuck on skin beside a lesion do.

    Args:
        n: number of images.
        size: height and width of the images, or their common edge, px.
        seed: of side, place along it, size, rotation and colour.
        reach: how far they reach in, from and to, as shares of the image's edge at right angles to the border.
        width: half their extent along the border, from and to, as shares of the shorter edge.
        tilt: largest rotation, radians.

    Returns:
        Masks that touch their border and colours that are never grey: one channel at 0.7 or more, one at 0.3 or less.

    Raises:
        InputError: no images, or a mask that would lie outside the image.
    """
    height, edge = (size, size) if isinstance(size, int) else size
    if n < 1 or min(height, edge) < 4:
        raise InputError("size", f"{n} images of {height} x {edge} px", "Give at least one, of 4 px or more.")
    if not 0 < reach[0] <= reach[1] <= 1 or not 0 < width[0] <= width[1] <= 1:
        raise InputError("reach", f"{reach} and width {width}", "Give shares from above 0 to 1, ascending.")
    generator = torch.Generator().manual_seed(seed)
    side = torch.randint(len(SIDES), (n, 1, 1), generator=generator)
    along, depth = _uniform(n, 0.2, 0.8, generator), _uniform(n, *reach, generator)
    half, angle = _uniform(n, *width, generator), _uniform(n, -tilt, tilt, generator)
    upright = side < 2
    span = torch.where(upright, edge, height).float()
    depth = depth * torch.where(upright, height, edge)
    mask = _ellipses((height, edge), side, (along * span, 0), (half * min(height, edge), depth), angle)
    return Artefacts(mask, _vivid(n, generator))


def released_patches(n: int, size: int, seed: int = 0) -> Artefacts:
    """Ellipses as the authors' release puts them beside skin lesions, one for each image.

    Of 224 px: 50 to 60 deep, of which 10 to 40 lie off the image, so that they reach in 4 to 22% of its edge; 120 to
    224 long and whole along the border; not rotated; one colour drawn evenly, which may be grey or like skin. All
    drawn evenly (the release draws whole pixels).

    Args:
        n: number of images.
        size: their edge, px.
        seed: of side, place, size and colour.

    Raises:
        InputError: no images, or images so small that an ellipse could cover no pixel.
    """
    require_at_least("n", n, 1)
    require_at_least("size", size, 16, "a patch that reaches in by 4% covers less than a pixel")
    generator, pixel = torch.Generator().manual_seed(seed), size / 224
    side = torch.randint(len(SIDES), (n, 1, 1), generator=generator)
    depth, off = (_uniform(n, *ends, generator) * pixel for ends in ((50, 60), (10, 40)))
    length = _uniform(n, 120, 224, generator) * pixel
    start = _uniform(n, 0, 1, generator) * (size - length)
    centre, half = (start + length / 2, depth / 2 - off), (length / 2, depth / 2)
    mask = _ellipses((size, size), side, centre, half, torch.zeros(()))
    return Artefacts(mask, torch.rand(n, 3, generator=generator))


PATCHES = {"ours": elliptical_patches, "released": released_patches}  # both (n, size, seed) to artefacts


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(n, 1, 1, generator=generator)


def _ellipses(size: tuple[int, int], side: Tensor, centre, half, angle: Tensor) -> Tensor:
    """[image, height, width] bool: ellipses at a border. `centre` and half axes `half` in px, along the border and
    inwards from it, each [image, 1, 1]; `angle` in radians."""
    height, width = size
    rows = (torch.arange(height) + 0.5)[None, :, None].expand(len(side), height, width)
    columns = (torch.arange(width) + 0.5)[None, None, :].expand(len(side), height, width)
    upright = side < 2  # top or bottom: the border runs along the columns
    inward = torch.where(upright, rows, columns)
    length = torch.where(upright, float(height), float(width))
    inward = torch.where(side % 2 == 0, inward, length - inward) - centre[1]  # from the artefact's own border
    along = torch.where(upright, columns, rows) - centre[0]
    u = along * torch.cos(angle) + inward * torch.sin(angle)
    v = inward * torch.cos(angle) - along * torch.sin(angle)
    return (u / half[0]) ** 2 + (v / half[1]) ** 2 <= 1


def _vivid(n: int, generator: torch.Generator) -> Tensor:
    """[image, 3] colours with one strong channel, one weak one and one in between, in random order."""
    width, least = torch.tensor([0.3, 1.0, 0.3]), torch.tensor([0.7, 0.0, 0.0])
    value = torch.rand(n, 3, generator=generator) * width + least
    order = torch.rand(n, 3, generator=generator).argsort(dim=1)
    return value.gather(1, order)


def border_bars(n: int, size: int, seed: int = 0, *, thickness: int = 2, grey: float = 1.0) -> Artefacts:
    """Grey bars along a random border, for images of digits: [image, size, size] masks, one channel.

    Raises:
        InputError: a bar as thick as half the image.
    """
    if n < 1 or not 1 <= thickness < size / 2:
        problem = f"{thickness} px in {n} images of {size} px"
        raise InputError("thickness", problem, f"Use 1 to {math.ceil(size / 2) - 1}.")
    side = torch.randint(len(SIDES), (n, 1, 1), generator=torch.Generator().manual_seed(seed))
    rows, columns = torch.arange(size)[None, :, None], torch.arange(size)[None, None, :]
    near = [rows < thickness, rows >= size - thickness, columns < thickness, columns >= size - thickness]
    mask = sum((side == number) & here for number, here in enumerate(near)).bool().expand(n, size, size)
    return Artefacts(mask, torch.full((n, 1), float(grey)))


def glyph_artefacts(
    presence: Tensor, seed: int, size: int = 64, *, concept: str = "chevron", colour=(1.0, 0.0, 1.0)
) -> Artefacts:
    """A concept's glyph in one plain colour, at the place that it has in `render_scenes(presence, seed)`.

    Args:
        presence: [scene, concept] bool, as for the scenes; that of the concept itself is not used.
        seed: of the scenes.
        size: px that the 64 x 64 scenes were averaged to; a pixel is covered where half of it or more is.
        concept: whose glyph; no two concepts overlap.
        colour: red, green, blue in 0..1.
    """
    column = concept_index(concept)
    shown = presence.clone()
    shown[:, column] = True
    whole = render_scenes(shown, seed).masks[:, column]
    covered = torch.nn.functional.adaptive_avg_pool2d(whole[:, None].float(), size)[:, 0] >= 0.5
    return Artefacts(covered, torch.tensor(colour).expand(len(presence), 3))


def sample_artefact_presence(
    labels: Tensor, bias: tuple[float, float] = (1.0, 0.0), carrier: int = 0, seed: int = 0
) -> Tensor:
    """Which images show their artefact: [image] bool.

    Args:
        labels: [image] of 0 and 1.
        bias: shares of the carrier's images and of the others', each 0..1, see `Bias`.
        carrier: the class that the artefact marks in training, 0 or 1.
        seed: of the draw.

    Raises:
        InputError: labels of more than two classes, or anything but two shares.
    """
    if carrier not in (0, 1) or not set(labels.unique().tolist()) <= {0, 1}:
        classes = sorted(labels.unique().tolist())
        raise InputError("labels", f"classes {classes} and carrier {carrier}", "Use classes 0 and 1.")
    if len(bias) != 2 or not all(0 <= share <= 1 for share in bias):
        remedy = "Give two shares from 0 to 1: the carrier's and the others'."
        raise InputError("bias", f"{tuple(bias)}", remedy)
    chance = torch.where(labels == carrier, float(bias[0]), float(bias[1]))
    return torch.rand(len(labels), generator=torch.Generator().manual_seed(seed)) < chance


def dilate(mask: Tensor, pixels: int) -> Tensor:
    """A mask [image, height, width] grown by `pixels` in every direction, diagonals included."""
    require_at_least("pixels", pixels, 0)
    if pixels == 0:
        return mask
    grown = torch.nn.functional.max_pool2d(mask[:, None].float(), 2 * pixels + 1, stride=1, padding=pixels)
    return grown[:, 0].bool()
