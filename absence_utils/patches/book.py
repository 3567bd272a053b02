"""The book of patches: the extreme ones of every unit, a random sample, quantiles; exact merging, pixels on demand.

A book holds (response, dataset index, box) and never pixels, so that it stays small for any number of images. All
of it is one thing for a set of images and settings: batching, shards and the order of merges do not matter.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from absence_utils.errors import InputError

from . import quantile_sketch as sketches
from .storage import dense, read_book, sparse, write_book
from .topk import RunningSample, top_k, window_key

__all__ = ["SIDES", "Extremes", "PatchBook", "PatchPixels", "RandomCrops", "RandomPatches"]
SIDES = ("highest", "lowest")


def _boxes(place: Tensor, patch: int) -> tuple[Tensor, Tensor]:
    """Image [...] and box [..., 4] of places, see `window_key`."""
    top, left = (place >> 16) & 0xFFFF, place & 0xFFFF
    side = torch.full_like(place, patch)
    return (place >> 32).cpu(), torch.stack((top, left, side, side), dim=-1).cpu()


@dataclass(frozen=True)
class Extremes:
    """The k patches at one end of the scale, best first, for every unit.

    Attributes:
        response: [unit, k] signed, float32; descending for the highest, ascending for the lowest.
        image: [unit, k] index in the dataset, int64.
        box: [unit, k, 4] (top, left, height, width) in px, int64.
    """

    response: Tensor
    image: Tensor
    box: Tensor

    @classmethod
    def of(cls, response: Tensor, place: Tensor, patch: int) -> Extremes:
        """From response and place [unit, k], see `window_key`."""
        return cls((response + 0.0).cpu(), *_boxes(place, patch))

    @property
    def place(self) -> Tensor:
        """[unit, k] see `window_key`."""
        return window_key(self.image, self.box[..., 0], self.box[..., 1])


@dataclass(frozen=True)
class RandomPatches:
    """A uniform random sample of all windows, without replacement and the same for all units, in random order.

    Which windows it holds depends on the images' indices, the boxes and the seed, never on responses.

    Attributes:
        response: [unit, sample] signed, float32.
        image: [sample] index in the dataset, int64.
        box: [sample, 4] (top, left, height, width) in px, int64.
    """

    response: Tensor
    image: Tensor
    box: Tensor

    @classmethod
    def of(cls, sample: RunningSample, patch: int) -> RandomPatches:
        """From a finished stream."""
        return cls((sample.response + 0.0).cpu().contiguous(), *_boxes(sample.place, patch))

    @property
    def place(self) -> Tensor:
        """[sample] see `window_key`."""
        return window_key(self.image, self.box[:, 0], self.box[:, 1])


class PatchPixels(NamedTuple):
    """Pixels of the patches of one unit, [k, channel, height, width] in 0..1, in the order of the book."""

    highest: Tensor
    lowest: Tensor


class RandomCrops(NamedTuple):
    """Pixels [count, channel, height, width] in 0..1 of random patches, their image [count] and box [count, 4]."""

    pixels: Tensor
    image: Tensor
    box: Tensor


@dataclass(frozen=True)
class PatchBook:
    """The highest and lowest patches of every unit of a layer, a random sample, and how they were found.

    Attributes:
        highest, lowest: `Extremes`, k columns (fewer only where a part of a dataset has fewer patches).
        random: `RandomPatches`, `reservoir` columns (fewer only where there are fewer windows).
        sketch: [unit, bucket] int32, how many responses fell into which bucket of `patches.quantile_sketch`.
        layer, patch, stride, k, pool, per_image, reservoir, seed, exact, precision: as given to `mine_patches`.
        region: "crop" (the network saw the patch alone) or "masked" (full size, the rest at the mean).
        fingerprint: of the dataset. network: sha256 of the weights.
        covered: ranges (start, stop) of dataset indices that were searched, ascending and disjoint.

    Example:
        >>> from absence_utils import load_images, load_model, mine_patches
        >>> model = load_model("concept_scenes")
        >>> scenes = load_images("concept_scenes", model, limit=6)
        >>> how = {"patch": 24, "stride": 20, "k": 3}
        >>> first = mine_patches(model, "block4", scenes, part=range(3), **how)
        >>> book = first.merge(mine_patches(model, "block4", scenes, part=range(3, 6), **how))
        >>> book.units, book.windows, book.covered
        (64, 54, ((0, 6),))
    """

    highest: Extremes
    lowest: Extremes
    random: RandomPatches
    sketch: Tensor
    layer: str | None
    patch: int
    stride: int
    k: int
    pool: str
    region: str
    per_image: int
    reservoir: int
    seed: int
    exact: bool
    precision: str
    fingerprint: str
    network: str
    covered: tuple[tuple[int, int], ...]

    @property
    def units(self) -> int:
        """Number of units."""
        return self.highest.response.shape[0]

    @property
    def windows(self) -> int:
        """Number of patches that were searched."""
        return int(self.sketch[0].sum())

    @property
    def settings(self) -> dict:
        """Everything that two books must share to belong together."""
        return {name: getattr(self, name) for name in SETTINGS}

    def quantile(self, q: float) -> Tensor:
        """The q-quantile of each unit's responses to all windows: [unit], in the units of the layer.

        The response of rank floor(q * (windows - 1)). Minimum and maximum are exact; in between, the relative error
        is at most 1/65 for magnitudes of 2**-22 to 2**14, see `patches.quantile_sketch`.

        Raises:
            InputError: q lies outside 0 to 1.
        """
        value = sketches.quantile(self.sketch, q)
        lowest, highest = self.lowest.response[:, 0], self.highest.response[:, 0]
        if q in (0, 1):
            return (highest if q else lowest).clone()
        return value.clamp(lowest, highest)

    def merge(self, other: PatchBook) -> PatchBook:
        """The book of the images of both; associative, commutative, equal to the single pass over all.

        Raises:
            InputError: the books come from other weights, images or settings, or have images in common.
        """
        for name in ("units", *SETTINGS):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise InputError(
                    "other",
                    f"the books do not belong together: {name} is {mine!r} here and {theirs!r} there",
                    "Merge books of one run only.",
                )
        covered = _join(self.covered, other.covered)
        sides = {}
        for side, sign in zip(SIDES, (1, -1), strict=True):
            a, b = getattr(self, side), getattr(other, side)
            response, place = top_k(
                sign * torch.cat((a.response, b.response), dim=1),
                torch.cat((a.place, b.place), dim=1),
                self.k,
                self.per_image,
            )
            sides[side] = Extremes.of(sign * response, place, self.patch)
        sample = RunningSample(self.reservoir, self.seed)
        for book in (self, other):
            sample.add(book.random.response, book.random.place)
        random, sketch = RandomPatches.of(sample, self.patch), sketches.merged(self.sketch, other.sketch)
        return replace(self, **sides, random=random, sketch=sketch, covered=covered)

    def save(self, path: str | Path) -> Path:
        """Write the book to one safetensors file: complete under its name, or not there at all."""
        tensors = {
            f"{part}.{field.name}": getattr(getattr(self, part), field.name).contiguous()
            for part in (*SIDES, "random")
            for field in fields(Extremes)
        }
        tensors |= {f"sketch.{name}": values for name, values in sparse(self.sketch).items()}
        return write_book(path, tensors, self.settings | {"covered": self.covered})

    @classmethod
    def load(cls, path: str | Path) -> PatchBook:
        """Read a saved book.

        Raises:
            InputError: there is no such file, it is damaged, of an older format, or something else.
        """
        tensors, about = read_book(path)
        about["covered"] = tuple(map(tuple, about["covered"]))
        parts = {
            part: kind(*(tensors[f"{part}.{field.name}"] for field in fields(kind)))
            for part, kind in (("highest", Extremes), ("lowest", Extremes), ("random", RandomPatches))
        }
        units = len(parts["highest"].response)
        sketch = dense(tensors["sketch.index"], tensors["sketch.count"], units, sketches.BUCKETS)
        return cls(**parts, sketch=sketch, **about)

    def crops(self, dataset, unit: int) -> PatchPixels:
        """Pixels of the highest and lowest patches of `unit`, through the dataset's own normalisation.

        Raises:
            InputError: the unit does not exist, or the dataset is not the one that was searched.
        """
        if not 0 <= unit < self.units:
            raise InputError(
                "unit", f"{unit} is out of range", f"Layer {self.layer} has units 0 to {self.units - 1}."
            )
        both = [getattr(self, side) for side in SIDES]
        image, box = torch.cat([it.image[unit] for it in both]), torch.cat([it.box[unit] for it in both])
        return PatchPixels(*self._cut(dataset, image, box).split([it.image.shape[1] for it in both]))

    def random_crops(self, dataset, count: int, seed: int = 0) -> RandomCrops:
        """Pixels of `count` different random patches, drawn from the sample with `seed`.

        Raises:
            InputError: more than the sample holds, or the dataset is not the one that was searched.
        """
        held = len(self.random.image)
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= held:
            raise InputError(
                "count",
                f"{count!r} random patches, the book holds {held}",
                f"Give 1 to {held}, or mine with a larger `reservoir`.",
            )
        chosen = torch.randperm(held, generator=torch.Generator().manual_seed(seed))[:count]
        image, box = self.random.image[chosen], self.random.box[chosen]
        return RandomCrops(self._cut(dataset, image, box), image, box)

    def _cut(self, dataset, image: Tensor, box: Tensor) -> Tensor:
        """Pixels in 0..1 of boxes [n, 4] of images [n]; every image is decoded once, and held no longer than needed."""
        if getattr(dataset, "fingerprint", "") != self.fingerprint:
            raise InputError(
                "dataset",
                "these are not the images the patches were found in",
                "Load the images as they were loaded for mining.",
            )
        pixels = [None] * len(image)
        for number in image.unique().tolist():
            whole = torch.as_tensor(dataset[number][0])
            for index in (image == number).nonzero().flatten().tolist():
                top, left, height, width = box[index].tolist()
                pixels[index] = whole[:, top : top + height, left : left + width].clone()
        pixels = torch.stack(pixels)
        normalisation = getattr(dataset, "normalisation", None)
        return (normalisation.undo(pixels) if normalisation else pixels).clamp(0, 1)


_PARTS = (*SIDES, "random", "sketch")
SETTINGS = tuple(field.name for field in fields(PatchBook) if field.name not in (*_PARTS, "covered"))


def _join(a: tuple, b: tuple) -> tuple[tuple[int, int], ...]:
    joined = []
    for start, stop in sorted((*a, *b)):
        if joined and start < joined[-1][1]:
            raise InputError("other", f"both books cover image {start}", "Merge books of disjoint images.")
        if joined and start == joined[-1][1]:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return tuple(joined)
