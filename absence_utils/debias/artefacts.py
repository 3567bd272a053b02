"""Artefacts for studies of shortcuts: something in the image that tells the class in training and not in truth.

All on tensors, a whole batch at once, every draw seeded, with exact masks. Pixels are in 0..1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from absence_utils.errors import InputError, require_at_least, require_choice, require_shape
from absence_utils.images.scenes import concept_index, render_scenes

SIDES = ("top", "bottom", "left", "right")
BIAS_MODES = ("train bias", "no bias", "inverse bias")


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

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, 1, 1, generator=generator)

    side = torch.randint(len(SIDES), (n, 1, 1), generator=generator)
    along, depth, half, angle = draw(0.2, 0.8), draw(*reach), draw(*width), draw(-tilt, tilt)
    half = half * min(height, edge)
    rows = (torch.arange(height) + 0.5)[None, :, None].expand(n, height, edge)
    columns = (torch.arange(edge) + 0.5)[None, None, :].expand(n, height, edge)
    upright = side < 2  # top or bottom: the border runs along the columns
    inward = torch.where(upright, rows, columns)
    length = torch.where(upright, torch.tensor(float(height)), torch.tensor(float(edge)))
    inward = torch.where(side % 2 == 0, inward, length - inward)  # distance from the artefact's own border
    span = torch.where(upright, torch.tensor(float(edge)), torch.tensor(float(height)))
    beside = torch.where(upright, columns, rows) - along * span
    u = beside * torch.cos(angle) + inward * torch.sin(angle)
    v = inward * torch.cos(angle) - beside * torch.sin(angle)
    mask = (u / half) ** 2 + (v / (depth * length)) ** 2 <= 1
    return Artefacts(mask, _vivid(n, generator))


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
    labels: Tensor, spread: str, carrier: int = 0, seed: int = 0, strength: float = 1.0
) -> Tensor:
    """Which images show their artefact: [image] bool.

    Args:
        labels: [image] of 0 and 1.
        spread: "train bias": images of the carrier class do with probability `strength`, the others do with
            1 - strength; "inverse bias": the other way round; "no bias": half of all.
        carrier: the class that the artefact marks in training, 0 or 1.
        seed: of the draw.
        strength: of the bias, 0.5 to 1.

    Raises:
        InputError: an unknown spread, labels of more than two classes, a strength out of range.
    """
    require_choice("spread", spread, BIAS_MODES)
    if carrier not in (0, 1) or not set(labels.unique().tolist()) <= {0, 1}:
        classes = sorted(labels.unique().tolist())
        raise InputError("labels", f"classes {classes} and carrier {carrier}", "Use classes 0 and 1.")
    if not 0.5 <= strength <= 1:
        raise InputError("strength", f"{strength}", "Use 0.5 (no bias) to 1 (always).")
    often = torch.where(labels == carrier, strength, 1 - strength)
    chance = {"train bias": often, "inverse bias": 1 - often, "no bias": torch.full_like(often, 0.5)}[spread]
    return torch.rand(len(labels), generator=torch.Generator().manual_seed(seed)) < chance


def dilate(mask: Tensor, pixels: int) -> Tensor:
    """A mask [image, height, width] grown by `pixels` in every direction, diagonals included."""
    require_at_least("pixels", pixels, 0)
    if pixels == 0:
        return mask
    grown = torch.nn.functional.max_pool2d(mask[:, None].float(), 2 * pixels + 1, stride=1, padding=pixels)
    return grown[:, 0].bool()
