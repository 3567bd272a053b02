"""The book of patches: the extreme ones of every unit, and a random sample; exact merging, pixels on demand.

A book holds (response, dataset index, box) and never pixels, so that it stays small for any number of images. All
of it is one thing for a set of images and settings: batching, shards and the order of merges do not matter.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from absence_utils.display import one_line
from absence_utils.errors import InputError
from absence_utils.identity import difference
from absence_utils.units import full_name

from .storage import read_book, write_book
from .topk import RunningSample, top_k, window_key

SIDES = ("highest", "lowest")
PARTS = (*SIDES, "random")


@dataclass(frozen=True)
class Patches:
    """Where patches are and what the units answer to them.

    At one end of the scale every unit has its own, best first: positions are [unit, k]. A random sample, drawn without
    replacement, is the same for all units and in random order: positions are [sample]. Which windows it holds depends
    on the images' indices, the boxes and the seed, never on responses.

    Attributes:
        response: [unit, k] or [unit, sample] signed, float32; descending for the highest, ascending for the lowest.
        image: [*position] index in the dataset, int64.
        box: [*position, 4] (top, left, height, width) in px, int64.
    """

    response: Tensor
    image: Tensor
    box: Tensor

    __repr__ = one_line

    @classmethod
    def of(cls, response: Tensor, place: Tensor, patch: int) -> Patches:
        """From responses and places, see `window_key`."""
        top, left = (place >> 16) & 0xFFFF, place & 0xFFFF
        side = torch.full_like(place, patch)
        box = torch.stack((top, left, side, side), dim=-1)
        return cls((response + 0.0).cpu().contiguous(), (place >> 32).cpu(), box.cpu())

    @property
    def place(self) -> Tensor:
        """[*position] see `window_key`."""
        return window_key(self.image, self.box[..., 0], self.box[..., 1])


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
        highest, lowest: k `Patches` of each unit (fewer only where a part of a dataset has fewer patches).
        random: `reservoir` of all windows (fewer only where there are fewer).
        windows: number of patches that were searched.
        layer, patch, stride, k, pool, per_image, reservoir, seed, exact, precision: as given to `mine_patches`.
        region: "crop" (the network saw the patch alone) or "masked" (full size, the rest at the mean).
        images: what the dataset's images depend on, see `images.base.identity_of`. fingerprint: of all that.
        network: sha256 of the weights.
        code: of the network and of what mines, see `identity.code_of`.
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
        >>> figure = book.show(3)  # its highest and lowest patches
    """

    highest: Patches
    lowest: Patches
    random: Patches
    windows: int
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
    images: dict[str, str]
    fingerprint: str
    network: str
    code: str
    covered: tuple[tuple[int, int], ...]

    def __repr__(self) -> str:
        images = sum(stop - start for start, stop in self.covered)
        return (
            f"PatchBook of {self.layer or 'the output'}: {self.units} units, {self.highest.response.shape[1]} highest "
            f"and lowest patches of {self.patch} px each, out of {self.windows} in {images} images"
        )

    @property
    def units(self) -> int:
        """Number of units."""
        return self.highest.response.shape[0]

    @property
    def settings(self) -> dict:
        """Everything that two books must share to belong together."""
        return {name: getattr(self, name) for name in SETTINGS}

    def require_unit(self, unit: int) -> None:
        """Refuse what is no unit of the layer."""
        if isinstance(unit, bool) or not isinstance(unit, int) or not 0 <= unit < self.units:
            remedy = f"Layer {self.layer} has units 0 to {self.units - 1}."
            raise InputError("unit", f"{unit!r} is out of range", remedy)

    def merge(self, other: PatchBook) -> PatchBook:
        """The book of the images of both; associative, commutative, equal to the single pass over all.

        Raises:
            InputError: the books come from other weights, images or settings, or have images in common.
        """
        require_same("other", self, other, ("units", *SETTINGS), "Merge books of one run only.")
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
            sides[side] = Patches.of(sign * response, place, self.patch)
        sample = RunningSample(self.reservoir, self.seed)
        for book in (self, other):
            sample.add(book.random.response, book.random.place)
        random, windows = Patches.of(sample.response, sample.place, self.patch), self.windows + other.windows
        return replace(self, **sides, random=random, windows=windows, covered=covered)

    def save(self, path: str | Path) -> Path:
        """Write the book to one safetensors file: complete under its name, or not there at all."""
        tensors = {
            f"{part}.{name}": values.contiguous()
            for part in PARTS
            for name, values in vars(getattr(self, part)).items()
        }
        return write_book(path, tensors, self.settings | {name: getattr(self, name) for name in _SEARCHED})

    @classmethod
    def load(cls, path: str | Path) -> PatchBook:
        """Read a saved book.

        Raises:
            InputError: there is no such file, it is damaged, of an older format, or something else.
        """
        tensors, about = read_book(path)
        about["covered"] = tuple(map(tuple, about["covered"]))
        names = [field.name for field in fields(Patches)]
        parts = {part: Patches(*(tensors[f"{part}.{name}"] for name in names)) for part in PARTS}
        return cls(**parts, **about)

    def crops(self, dataset, unit: int) -> PatchPixels:
        """Pixels of the highest and lowest patches of `unit`, through the dataset's own normalisation.

        Raises:
            InputError: the unit does not exist, or the dataset is not the one that was searched.
        """
        self.require_unit(unit)
        both = [getattr(self, side) for side in SIDES]
        image, box = torch.cat([it.image[unit] for it in both]), torch.cat([it.box[unit] for it in both])
        return PatchPixels(*self._cut(dataset, image, box).split([it.image.shape[1] for it in both]))

    def show(self, unit: int, dataset=None):
        """A figure of the highest and lowest patches of `unit`, with their responses.

        Args:
            dataset: the images that were searched. Not needed where they were mined in this session and are still held
                by some variable: a book holds no pixels, and does not keep its images alive.

        Raises:
            InputError: the unit does not exist; the images are gone, or others than those that were searched.
        """
        from absence_utils.plots.patches import unit_sheet

        from .tables import patch_table

        dataset = _SEARCHED_IMAGES.get(self.fingerprint) if dataset is None else dataset
        if dataset is None:
            problem = "the book holds no pixels, and its images are not in memory any more"
            remedy = "Load them as for mining, and give them: book.show(unit, dataset)."
            raise InputError("dataset", problem, remedy)
        crops = self.crops(dataset, unit)
        title = full_name(self.layer, unit, getattr(dataset, "class_names", []), self.units)
        return unit_sheet(unit, title, crops, patch_table(self, dataset, [unit]))

    def random_crops(self, dataset, count: int, seed: int = 0) -> RandomCrops:
        """Pixels of `count` different random patches, drawn from the sample with `seed`.

        Raises:
            InputError: more than the sample holds, or the dataset is not the one that was searched.
        """
        held = len(self.random.image)
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= held:
            problem = f"{count!r} random patches, the book holds {held}"
            raise InputError("count", problem, f"Give 1 to {held}, or mine with a larger `reservoir`.")
        chosen = torch.randperm(held, generator=torch.Generator().manual_seed(seed))[:count]
        image, box = self.random.image[chosen], self.random.box[chosen]
        return RandomCrops(self._cut(dataset, image, box), image, box)

    def _cut(self, dataset, image: Tensor, box: Tensor) -> Tensor:
        """Pixels in 0..1 of boxes [n, 4] of images [n]; every image is decoded once, and held no longer than needed."""
        if getattr(dataset, "fingerprint", "") != self.fingerprint:
            problem = "these are not the images the patches were found in"
            raise InputError("dataset", problem, "Load the images as they were loaded for mining.")
        pixels = [None] * len(image)
        for number in image.unique().tolist():
            whole = torch.as_tensor(dataset[number][0])
            for index in (image == number).nonzero().flatten().tolist():
                top, left, height, width = box[index].tolist()
                pixels[index] = whole[:, top : top + height, left : left + width].clone()
        pixels = torch.stack(pixels)
        normalisation = getattr(dataset, "normalisation", None)
        return (normalisation.undo(pixels) if normalisation else pixels).clamp(0, 1)


# Images that were mined, by fingerprint, for as long as someone else holds them.
_SEARCHED_IMAGES: WeakValueDictionary = WeakValueDictionary()


def remember_images(dataset) -> None:
    """Let books of these images find them for `PatchBook.show`; they are not kept alive, and lists are not found."""
    fingerprint = getattr(dataset, "fingerprint", "")
    if fingerprint and hasattr(dataset, "__weakref__"):
        _SEARCHED_IMAGES[fingerprint] = dataset


_SEARCHED = ("windows", "covered")  # what merging adds up
SETTINGS = tuple(field.name for field in fields(PatchBook) if field.name not in (*PARTS, *_SEARCHED))


def require_same(
    parameter: str, book: PatchBook, other: PatchBook, names: Iterable[str], remedy: str
) -> None:
    """Refuse a second book, given as `parameter`, that differs from the first in one of these attributes."""
    mine, theirs = ({name: getattr(each, name) for name in names} for each in (book, other))
    if differs := difference(theirs, mine):
        raise InputError(parameter, f"the books do not belong together: {differs}", remedy)


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
