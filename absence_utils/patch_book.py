"""The book of extreme patches: selection with a fixed tie rule, exact merging, safe files, pixels on demand.

A book holds (response, dataset index, box) and never pixels, so that it stays small for any number of images.

Ties. Of two patches with the same response the one of the earlier image comes first, then the upper, then the
left one. The order is total, so the book of a set of images is one thing: batching, shards and the order of
merges do not matter.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors
from torch import Tensor

from .errors import InputError

SIDES = ("highest", "lowest")
FORMAT = "absence_utils.patches 1"


def _best(response: Tensor, place: Tensor, k: int, per_image: int) -> tuple[Tensor, Tensor]:
    """The k largest of [unit, candidate], descending, ties to the smaller place.

    At most `per_image` are of one image (0: no limit). That keeps merging exact: what it drops from a
    part has better patches of its own image in that part, and would be dropped from the whole as well.
    """
    place, by_place = place.sort(dim=1)
    response, by_response = response.gather(1, by_place).sort(dim=1, descending=True, stable=True)
    place = place.gather(1, by_response)
    if per_image:
        response, place = _thin(response, place, per_image)
    return response[:, :k], place[:, :k]


def _thin(response: Tensor, place: Tensor, per_image: int) -> tuple[Tensor, Tensor]:
    """Move what comes after the first `per_image` candidates of an image to the end, and cut it off."""
    image, by_image = (place >> 32).sort(dim=1, stable=True)
    rank = torch.arange(image.shape[1], device=image.device).expand_as(image)
    first = torch.ones_like(image, dtype=torch.bool)
    first[:, 1:] = image[:, 1:] != image[:, :-1]
    rank = rank - torch.where(first, rank, 0).cummax(dim=1).values
    surplus = torch.empty_like(image, dtype=torch.int8).scatter_(
        1, by_image, (rank >= per_image).to(torch.int8)
    )
    kept, order = surplus.sort(dim=1, stable=True)
    width = int((kept == 0).sum(dim=1).min())  # equal for all units as long as it is below k
    return response.gather(1, order)[:, :width], place.gather(1, order)[:, :width]


def _candidates(response: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of [unit, patch] and their columns, ties to the earlier column.

    torch.topk leaves the order of ties open. Response and column packed in one integer leave no ties.
    """
    response = (response + 0.0).contiguous()  # -0.0 becomes 0.0: equal numbers need equal bits
    bits = response.view(torch.int32).to(torch.int64)
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # floats in their order as integers
    columns = response.shape[1]
    packed = (ordered << 32) + torch.arange(columns - 1, -1, -1, device=response.device)
    packed = packed.topk(min(k, columns), dim=1).values
    column = columns - 1 - (packed & 0xFFFFFFFF)
    return response.gather(1, column), column


class Running:
    """The best k so far for every unit, fed with batches."""

    def __init__(self, k: int, per_image: int):
        self.k, self.per_image = k, per_image
        self.response = self.place = None

    def add(self, response: Tensor, place: Tensor) -> None:
        """Take in response [unit, patch] at place [patch], patches in ascending order of place."""
        if self.per_image:  # the best of each image first: a short list for the general rule
            runs = torch.unique_consecutive(place >> 32, return_counts=True)[1].tolist()
            found, start = [], 0
            for run in runs:
                value, column = _candidates(response[:, start : start + run], min(self.k, self.per_image))
                found.append((value, column + start))
                start += run
            value, column = (torch.cat(part, dim=1) for part in zip(*found, strict=True))
        else:
            value, column = _candidates(response, self.k)
        where = place[column]
        if self.response is not None:
            value, where = torch.cat((self.response, value), dim=1), torch.cat((self.place, where), dim=1)
        self.response, self.place = _best(value, where, self.k, self.per_image)


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
        """From response and place [unit, k], see `place_of`."""
        top, left = (place >> 16) & 0xFFFF, place & 0xFFFF
        side = torch.full_like(place, patch)
        return cls(
            (response + 0.0).cpu(), (place >> 32).cpu(), torch.stack((top, left, side, side), dim=-1).cpu()
        )

    @property
    def place(self) -> Tensor:
        """[unit, k] see `place_of`."""
        return place_of(self.image, self.box[..., 0], self.box[..., 1])


def place_of(image: Tensor, top: Tensor, left: Tensor) -> Tensor:
    """One integer for image, top and left, in the order that decides ties (sides below 65,536 px)."""
    return (image << 32) | (top << 16) | left


class PatchPixels(NamedTuple):
    """Pixels of the patches of one unit, [k, channel, height, width] in 0..1, in the order of the book."""

    highest: Tensor
    lowest: Tensor


@dataclass(frozen=True)
class PatchBook:
    """The highest and lowest patches of every unit of a layer, and how they were found.

    Attributes:
        highest, lowest: `Extremes`, k columns (fewer only where a part of a dataset has fewer patches).
        layer, patch, stride, k, pool, per_image: as given to `mine_patches`.
        region: "crop" (the network saw the patch alone) or "masked" (full size, the rest at the mean).
        fingerprint: of the dataset. network: sha256 of the weights.
        covered: ranges (start, stop) of dataset indices that were searched, ascending and disjoint.
    """

    highest: Extremes
    lowest: Extremes
    layer: str | None
    patch: int
    stride: int
    k: int
    pool: str
    region: str
    per_image: int
    fingerprint: str
    network: str
    covered: tuple[tuple[int, int], ...]

    @property
    def units(self) -> int:
        """Number of units."""
        return self.highest.response.shape[0]

    def merge(self, other: PatchBook) -> PatchBook:
        """The book of the images of both; associative, commutative, equal to the single pass over all.

        Raises:
            InputError: the books come from other weights, images or settings, or have images in common.
        """
        for name in ("units", *_SETTINGS):
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
            response, place = _best(
                sign * torch.cat((a.response, b.response), dim=1),
                torch.cat((a.place, b.place), dim=1),
                self.k,
                self.per_image,
            )
            sides[side] = Extremes.of(sign * response, place, self.patch)
        return replace(self, **sides, covered=covered)

    def save(self, path: str | Path) -> Path:
        """Write the book to one safetensors file: complete under its name, or not there at all."""
        path = Path(path)
        tensors = {
            f"{side}.{field.name}": getattr(getattr(self, side), field.name).contiguous()
            for side in SIDES
            for field in fields(Extremes)
        }
        about = {name: getattr(self, name) for name in (*_SETTINGS, "covered")}
        about = json.dumps(about, sort_keys=True)
        header = {"format": FORMAT, "about": about, "checksum": _checksum(tensors, about)}
        # One key, because the library writes several in any order and equal books shall be equal files.
        content = write_tensors(tensors, {"book": json.dumps(header, sort_keys=True)})
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        return path

    @classmethod
    def load(cls, path: str | Path) -> PatchBook:
        """Read a saved book.

        Raises:
            InputError: there is no such file, it is damaged, or it is something else.
        """
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise InputError(
                "path", f"cannot read {path} ({error.strerror})", "Give a book that was saved."
            ) from error
        damaged = InputError("path", f"{path} is damaged or no book of patches", "Mine it again.")
        try:
            tensors = read_tensors(content)
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            header = json.loads(header["__metadata__"]["book"])
            intact = header["format"] == FORMAT and header["checksum"] == _checksum(tensors, header["about"])
            about = json.loads(header["about"])
        except Exception as error:  # whatever the reader trips over, the file is not a book
            raise damaged from error
        if not intact:
            raise damaged
        about["covered"] = tuple(map(tuple, about["covered"]))
        sides = {
            side: Extremes(*(tensors[f"{side}.{field.name}"] for field in fields(Extremes))) for side in SIDES
        }
        return cls(**sides, **about)

    def crops(self, dataset, unit: int) -> PatchPixels:
        """Pixels of the highest and lowest patches of `unit`, through the dataset's own normalisation.

        Raises:
            InputError: the unit does not exist, or the dataset is not the one that was searched.
        """
        if not 0 <= unit < self.units:
            raise InputError(
                "unit", f"{unit} is out of range", f"Layer {self.layer} has units 0 to {self.units - 1}."
            )
        if getattr(dataset, "fingerprint", "") != self.fingerprint:
            raise InputError(
                "dataset",
                "these are not the images the patches were found in",
                "Load the images as they were loaded for mining.",
            )
        normalisation = getattr(dataset, "normalisation", None)
        sides, seen = [], {}
        for side in SIDES:
            found, pixels = getattr(self, side), []
            for image, box in zip(found.image[unit].tolist(), found.box[unit].tolist(), strict=True):
                if image not in seen:
                    seen[image] = torch.as_tensor(dataset[image][0])
                top, left, height, width = box
                pixels.append(seen[image][:, top : top + height, left : left + width])
            pixels = torch.stack(pixels)
            sides.append((normalisation.undo(pixels) if normalisation else pixels).clamp(0, 1))
        return PatchPixels(*sides)


_SETTINGS = tuple(field.name for field in fields(PatchBook) if field.name not in (*SIDES, "covered"))


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


def _checksum(tensors: dict[str, Tensor], about: str = "") -> str:
    digest = sha256(about.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
