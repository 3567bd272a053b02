"""Worlds of concepts: the concept scenes, and harder ones in which concepts co-occur, overlap, vary or look natural.

Everything a scene shows is drawn from the seed whether a concept is painted or not, so two presence vectors with the
same seed give images that differ by the concept and by nothing else. Masks are exact: what a concept changes, after
what lies on top of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor

from absence_utils.errors import InputError, require_at_least, require_choice

from . import photographs
from .glyphs import (
    CELL,
    CELLS,
    DRAWS_PER_GLYPH,
    GLYPHS,
    RADIUS,
    SIZE,
    TILT,
    Look,
    backgrounds,
    draws,
    paint,
    plain_colours,
)

EXTRA = 6 + 2 * len(GLYPHS)  # draws beyond those of the concept scenes: of a photograph, and of free places
CONTEXTS = ((0, 2, 4), (1, 3, 5))  # concepts that come together, as those of a kitchen or a street do


def _blob(u, v):
    """The outline of every texture, so that it says nothing: a rounded square."""
    return np.cbrt(np.abs(u) ** 3 + np.abs(v) ** 3) - 0.85


TEXTURES: dict[str, Callable] = {  # share of the second colour at (u, v), in units of the radius
    "stripes": lambda u, v: np.sin(9 * v) > 0,
    "dots": lambda u, v: np.sin(8 * u) * np.sin(8 * v) > 0.3,
    "grid": lambda u, v: np.maximum(np.sin(9 * u), np.sin(9 * v)) > 0.6,
    "waves": lambda u, v: np.sin(9 * v + 2.2 * np.sin(5 * u)) > 0,
    "circles": lambda u, v: np.sin(10 * np.hypot(u, v)) > 0,
    "spokes": lambda u, v: np.sin(7 * np.arctan2(v, u)) > 0,
    "halves": lambda u, v: v > 0,
}


def _texture_colours(texture: Callable, u, v, hue, rest):
    """Two opposite colours: one bright, one half as bright."""
    bright, other = plain_colours(u, v, hue, rest), plain_colours(u, v, (hue + 0.5) % 1, rest)
    share = texture(u, v).astype(np.float32)[:, None]
    return bright * (1 - share) + 0.5 * other * share


def _disc(u, v):
    return np.hypot(u, v) - 0.95


def _crop_colours(concept: str, u, v, hue, rest):
    """The photograph's pixels, brighter or darker by up to a quarter."""
    pixels = photographs.crop(concept)
    place = [(each + 1) / 2 * (photographs.EDGE - 1) for each in (v, u)]
    channels = [map_coordinates(pixels[..., channel], place, order=1, mode="nearest") for channel in range(3)]
    return np.stack(channels, axis=1) * (0.75 + 0.25 * rest[:, None, None, None])


LOOKS: dict[str, dict[str, Look]] = {  # what concepts look like: names, and how each is painted
    "glyphs": {name: Look(outline, plain_colours, TILT) for name, outline in GLYPHS.items()},
    "textures": {
        name: Look(_blob, lambda *at, texture=texture: _texture_colours(texture, *at), np.pi)
        for name, texture in TEXTURES.items()
    },
    "crops": {
        name: Look(_disc, lambda *at, name=name: _crop_colours(name, *at), TILT) for name in photographs.CROPS
    },
}
BACKGROUNDS = ("clouds", "photographs")


@dataclass
class Scenes:
    """Rendered scenes.

    Attributes:
        pixels: [scene, channel=3, height=64, width=64] float32 in 0..1.
        masks: [scene, concept, height, width] bool, what a concept changes; all False where it is absent.
        presence: [scene, concept] bool.
        place: [scene, concept, (row, column)] px, centre of the cell in which a concept is or would be.
    """

    pixels: Tensor
    masks: Tensor
    presence: Tensor
    place: Tensor

    def __len__(self) -> int:
        return len(self.pixels)


@dataclass(frozen=True)
class World:
    """What the concepts of a scene look like, and how they come together. The default is that of `scenes`.

    Attributes:
        concepts: "glyphs", "textures" (all in one outline) or "crops" (of photographs, in a disc): seven of each.
        backgrounds: "clouds", or "photographs" (parts without any of the crops).
        correlation: of the presences of any two concepts of one context (`CONTEXTS`), in 0..1; of two contexts it is
            minus that. A concept of no context is independent. Each concept is in half of the scenes.
        overlap: concepts lie anywhere, and later ones hide earlier ones; otherwise each has a cell of its own.
        radius: smallest and largest, px; at most 9.5, the largest that fits its cell.

    Raises:
        InputError: a value that does not exist, a radius outside 2..9.5.
    """

    concepts: str = "glyphs"
    backgrounds: str = "clouds"
    correlation: float = 0.0
    overlap: bool = False
    radius: tuple[float, float] = RADIUS

    def __post_init__(self):
        require_choice("concepts", self.concepts, LOOKS)
        require_choice("backgrounds", self.backgrounds, BACKGROUNDS)
        if not 0 <= self.correlation <= 1:
            raise InputError("correlation", f"got {self.correlation}", "Use 0 to 1.")
        low, high = self.radius
        if not 2 <= low <= high <= RADIUS[1]:
            raise InputError("radius", f"got {self.radius}", f"Use 2 to {RADIUS[1]}, the smaller one first.")

    @property
    def names(self) -> tuple[str, ...]:
        """Of the concepts, in the order of the columns of a presence vector."""
        return tuple(LOOKS[self.concepts])

    def draw_presence(self, n: int, seed: int) -> Tensor:
        """Presence vectors [scene, concept] bool: each scene is of one context, whose concepts are likelier."""
        generator = np.random.default_rng([seed, 1])
        lean = np.zeros(len(self.names))  # which context makes a concept likelier
        for side, context in zip((1, -1), CONTEXTS, strict=True):
            lean[list(context)] = side
        context = np.where(generator.random((n, 1)) < 0.5, 1, -1)
        chance = (1 + self.correlation**0.5 * lean * context) / 2
        return torch.from_numpy(generator.random((n, len(self.names))) < chance)

    def render(self, presence: Tensor, seed: int, first: int = 0) -> Scenes:
        """Render one scene for each presence vector.

        Scene i depends on `seed`, `first + i` and its own presence vector only, so a batch equals its scenes
        rendered one by one (`first=i`), and another presence vector gives the exact counterfactual.

        Args:
            presence: [scene, concept] bool, columns in the order of `names`.
            seed: which endless sequence of scenes.
            first: where in that sequence to start.

        Returns:
            Scenes with pixels in 0..1 and exact masks, disjoint unless concepts overlap.

        Raises:
            InputError: presence has the wrong shape or type; seed or first is negative.
        """
        presence = torch.as_tensor(presence)
        count = len(self.names)
        if presence.ndim != 2 or presence.shape[1] != count or presence.dtype != torch.bool:
            raise InputError("presence", f"got {presence.dtype} of shape {tuple(presence.shape)}",
                             f"Give a boolean [scene, concept] array with {count} columns.")  # fmt: skip
        require_at_least("seed", seed, 0)
        require_at_least("first", first, 0)
        n = len(presence)
        splits = np.cumsum([CELLS**2, 2, count * DRAWS_PER_GLYPH])
        cells, offset, glyphs, clouds = np.split(draws(n, seed, first), splits, axis=1)
        extra = draws(n, seed, first, EXTRA)
        corner = self._corners(cells, offset, extra[:, 6:])
        glyphs = glyphs.reshape(n, count, DRAWS_PER_GLYPH)
        photographic = self.backgrounds == "photographs"
        pixels = photographs.background(extra[:, :6], SIZE) if photographic else backgrounds(clouds)
        masks = np.zeros((n, count, SIZE, SIZE), dtype=bool)
        for index, look in enumerate(LOOKS[self.concepts].values()):
            shown = np.flatnonzero(presence[:, index].numpy())
            part, mask = pixels[shown], masks[shown]
            paint(
                part, mask, index, glyphs[shown, index], look, corner[shown, index], self.radius, self.overlap
            )
            pixels[shown], masks[shown] = part, mask
        place = torch.from_numpy(corner) + (CELL - 1) / 2
        return Scenes(torch.from_numpy(pixels), torch.from_numpy(masks), presence.clone(), place)

    def _corners(self, cells: np.ndarray, offset: np.ndarray, free: np.ndarray) -> np.ndarray:
        """[scene, concept, (top, left)] of the cell in which each concept lies, px."""
        count = len(self.names)
        if self.overlap:
            return (free.reshape(-1, count, 2) * (SIZE - CELL + 1)).astype(int)
        order = cells.argsort(axis=1)[:, :count]  # a random order of the cells; concept k takes the k-th
        shift = (offset * (SIZE - CELLS * CELL + 1)).astype(int)
        return np.stack((order // CELLS, order % CELLS), axis=2) * CELL + shift[:, None]

    def places(self, n: int, seed: int, first: int = 0) -> Tensor:
        """`Scenes.place` of n scenes, without rendering them."""
        cells, offset, _ = np.split(draws(n, seed, first), [CELLS**2, CELLS**2 + 2], axis=1)
        corner = self._corners(cells, offset, draws(n, seed, first, EXTRA)[:, 6:])
        return torch.from_numpy(corner) + (CELL - 1) / 2

    def pairs(self, concept: str, n: int, seed: int) -> tuple[Scenes, Scenes]:
        """The same n random scenes with and without one concept: they differ in its mask and nowhere else.

        Args:
            concept: one of `names`.
            n: number of pairs.
            seed: of the scenes and of the presence of the other concepts.

        Returns:
            (with, without).

        Raises:
            InputError: unknown concept; n below 1.
        """
        require_choice("concept", concept, self.names)
        require_at_least("n", n, 1)
        presence, index = self.draw_presence(n, seed), self.names.index(concept)
        return tuple(self.render(with_concept(presence, index, value), seed) for value in (True, False))


def with_concept(presence: Tensor, index: int, value: bool) -> Tensor:
    """Presence vectors [scene, concept] with one column set."""
    changed = presence.clone()
    changed[:, index] = value
    return changed
