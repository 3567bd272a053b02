"""Mine the extreme patches of every unit of a layer in one pass, and keep them in a book that merges.

A book holds (response, dataset index, box) and never pixels, so that it stays small for any number of images; pixels
are cropped at the end. The published scheme is the default: square windows from the top left corner in steps of
`stride` for as long as they fit, every window a candidate. A last row or column that does not fit is left out.

Ties. Of two patches with the same response the one of the earlier image comes first, then the upper, then the left
one. The order is total, so the book of a dataset is one thing: batching, shards and the order of merges do not matter.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors
from torch import Tensor, nn

from .errors import InputError
from .models import model_fingerprint
from .record import progress
from .units import feature_map, responses

SIDES = ("highest", "lowest")
REGIONS = ("auto", "crop", "masked")
PIXELS_PER_BATCH = 2**19  # of one channel: small enough for the caches of a CPU, large enough for its threads
FORMAT = "absence_utils.patches 1"


# --------------------------------------------------------------------------------------------- selection
def _best(response: Tensor, place: Tensor, k: int, per_image: int) -> tuple[Tensor, Tensor]:
    """The k largest of [unit, candidate] in descending order, ties to the smaller place; per_image 0 takes all."""
    place, by_place = place.sort(dim=1)
    response, by_response = response.gather(1, by_place).sort(dim=1, descending=True, stable=True)
    place = place.gather(1, by_response)
    if per_image:
        response, place = _thin(response, place, per_image)
    return response[:, :k], place[:, :k]


def _thin(response: Tensor, place: Tensor, per_image: int) -> tuple[Tensor, Tensor]:
    """Move what comes after the first `per_image` candidates of an image behind all others, and cut it off."""
    image, by_image = (place >> 32).sort(dim=1, stable=True)
    rank = torch.arange(image.shape[1], device=image.device).expand_as(image)
    first = torch.ones_like(image, dtype=torch.bool)
    first[:, 1:] = image[:, 1:] != image[:, :-1]
    rank = rank - torch.where(first, rank, 0).cummax(dim=1).values
    surplus = torch.empty_like(image, dtype=torch.int8).scatter_(
        1, by_image, (rank >= per_image).to(torch.int8)
    )
    kept, order = surplus.sort(dim=1, stable=True)
    width = int((kept == 0).sum(dim=1).min())  # every unit has seen the same patches, so the widths are equal
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


class _Running:
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
                value, column = _candidates(response[:, start : start + run], self.per_image)
                found.append((value, column + start))
                start += run
            value, column = (torch.cat(part, dim=1) for part in zip(*found, strict=True))
        else:
            value, column = _candidates(response, self.k)
        where = place[column]
        if self.response is not None:
            value, where = torch.cat((self.response, value), dim=1), torch.cat((self.place, where), dim=1)
        self.response, self.place = _best(value, where, self.k, self.per_image)


# --------------------------------------------------------------------------------------------- the book
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
    def _of(cls, response: Tensor, place: Tensor, patch: int) -> "Extremes":
        top, left = (place >> 16) & 0xFFFF, place & 0xFFFF
        side = torch.full_like(place, patch)
        return cls(response.cpu(), (place >> 32).cpu(), torch.stack((top, left, side, side), dim=-1).cpu())

    @property
    def _place(self) -> Tensor:
        return _place(self.image, self.box[..., 0], self.box[..., 1])


def _place(image: Tensor, top: Tensor, left: Tensor) -> Tensor:
    return (image << 32) | (top << 16) | left


class PatchPixels(NamedTuple):
    """Pixels of the patches of one unit, [k, channel, height, width] in 0..1, in the order of the book."""

    highest: Tensor
    lowest: Tensor


@dataclass(frozen=True)
class PatchBook:
    """The highest and lowest patches of every unit of a layer, and how they were found.

    Attributes:
        highest, lowest: `Extremes`; fewer than k columns only where a part of a dataset has fewer patches.
        layer, patch, stride, k, pool, per_image: as given to `mine_patches`.
        region: "crop" (the network saw the patch alone) or "masked" (a full-size image, all but the patch at the mean).
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

    def merge(self, other: "PatchBook") -> "PatchBook":
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
                torch.cat((a._place, b._place), dim=1),
                self.k,
                self.per_image,
            )
            sides[side] = Extremes._of(sign * response, place, self.patch)
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
        content = write_tensors(
            tensors, {"format": FORMAT, "about": about, "checksum": _checksum(tensors, about)}
        )
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
    def load(cls, path: str | Path) -> "PatchBook":
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
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
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


# --------------------------------------------------------------------------------------------- mining
def mine_patches(
    model: nn.Module,
    layer: str | None,
    dataset,
    patch: int = 48,
    stride: int = 16,
    k: int = 8,
    pool: str = "mean",
    *,
    region: str = "auto",
    per_image: int = 0,
    batch_size: int | None = None,
    part: range | None = None,
) -> PatchBook:
    """Find the k highest and the k lowest patches of every unit of `layer` in one pass over the images.

    Every image is decoded once; batches of patches run across images, and only as far as the layer. All batches have
    one shape (the last is filled up), because a library may round differently for another shape.

    Args:
        model: network; layer: as in `units.responses` (None: the output as it is, "logits": before a rectification).
        dataset: yields (image [channel, height, width] normalised, label).
        patch, stride: side and step of the windows, px (paper: 48 and 16).
        k: patches kept at each end (paper: 8).
        pool: how a unit's response is pooled over space or tokens: "mean", "cls", "max", "min".
        region: "crop" scores the patch alone. "masked" scores a full-size image in which only the patch is visible and
            the rest is 0, the mean after normalisation. "auto" crops unless the layer has tokens or the network takes
            one image size only. The book records which it was.
        per_image: at most so many patches of one image for each unit and end; 0 takes all (published scheme).
        batch_size: patches in a forward pass; chosen by the size of the images if None.
        part: dataset indices to search, a range with step 1, for sharding; all if None.

    Returns:
        PatchBook with responses in the units of the layer, signed, before any nonlinearity after it.

    Raises:
        InputError: settings that make no sense, an image smaller than the patch, fewer patches than k (unless only a
            `part` is searched), a crop too small for the network, responses that are not finite.
    """
    part = _check(dataset, patch, stride, k, region, per_image, batch_size, part)
    first = torch.as_tensor(dataset[part.start][0])
    _corners(first, patch, stride, part.start)
    with torch.inference_mode():
        region = _region(model, layer, first, patch, region)
        if batch_size is None:
            batch_size = max(1, PIXELS_PER_BATCH // (patch**2 if region == "crop" else first[0].numel()))
        device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
        highest, lowest = _Running(k, per_image), _Running(k, per_image)
        seen = 0
        for pixels, place in _batches(dataset, part, first, patch, stride, region, batch_size):
            response = responses(model, layer, pixels.to(device), pool)[: len(place)].float().T
            if not response.isfinite().all():
                raise InputError(
                    "model", f"responses of layer {layer} are not finite", "Check weights and images."
                )
            place = place.to(device)
            highest.add(response, place)
            lowest.add(-response, place)
            seen += len(place)
    kept = highest.response.shape[1]
    if kept < k and len(part) == len(dataset):
        raise InputError(
            "k", f"there are {kept} patches to choose {k} from", "Lower k or stride, or add images."
        )
    return PatchBook(
        Extremes._of(highest.response, highest.place, patch),
        Extremes._of(-lowest.response, lowest.place, patch),
        layer=layer,
        patch=patch,
        stride=stride,
        k=k,
        pool=pool,
        region=region,
        per_image=per_image,
        fingerprint=getattr(dataset, "fingerprint", ""),
        network=model_fingerprint(model),
        covered=((part.start, part.stop),),
    )


def _check(dataset, patch, stride, k, region, per_image, batch_size, part) -> range:
    for name, value, least in (
        ("patch", patch, 1),
        ("stride", stride, 1),
        ("k", k, 1),
        ("per_image", per_image, 0),
        ("batch_size", 1 if batch_size is None else batch_size, 1),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(
                name, f"{value!r} is not a whole number of at least {least}", "Give another number."
            )
    if region not in REGIONS:
        raise InputError("region", f"{region!r} is unknown", f"Choose from {', '.join(REGIONS)}.")
    if len(dataset) == 0:
        raise InputError("dataset", "it holds no images", "Give at least one image.")
    part = range(len(dataset)) if part is None else part
    if part.step != 1 or not len(part) or part.start < 0 or part.stop > len(dataset):
        raise InputError(
            "part", f"{part} is no part of {len(dataset)} images", "Give range(start, stop) inside it."
        )
    return part


def _corners(image: Tensor, patch: int, stride: int, number: int) -> Tensor:
    """[position, 2] top and left of every window of an image, row by row."""
    height, width = image.shape[-2:]
    if patch > min(height, width):
        raise InputError(
            "patch",
            f"{patch} px is larger than image {number}, {height} x {width} px",
            f"Choose at most {min(height, width)}.",
        )
    tops, lefts = (torch.arange(0, side - patch + 1, stride) for side in (height, width))
    return torch.cartesian_prod(tops, lefts)


def _batches(dataset, part, first, patch, stride, region, size) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (pixels [size, channel, height, width], place [n]); all but the first n rows are filling."""
    shape = first.shape if region == "masked" else (first.shape[0], patch, patch)
    pixels, places, filled = torch.zeros(size, *shape), [], 0
    for number in progress(part, "mining patches"):
        image = first if number == part.start else torch.as_tensor(dataset[number][0])
        if image.shape[0] != first.shape[0] or (region == "masked" and image.shape != first.shape):
            raise InputError(
                "dataset",
                f"image {number} has shape {tuple(image.shape)}, the first one of this part "
                f"{tuple(first.shape)}",
                "Load the images at one size.",
            )
        corners = _corners(image, patch, stride, number)
        while len(corners):
            now, corners = corners[: size - filled], corners[size - filled :]
            _show(pixels[filled : filled + len(now)], image, now, patch, region)
            places.append(_place(torch.full((len(now),), number), now[:, 0], now[:, 1]))
            filled += len(now)
            if filled == size:
                yield pixels, torch.cat(places)
                places, filled = [], 0
    if filled:
        yield pixels, torch.cat(places)


def _show(target: Tensor, image: Tensor, corners: Tensor, patch: int, region: str) -> None:
    """Write the patches of `image` at `corners` into target [position, channel, height, width]."""
    if region == "crop":
        windows = image.unfold(1, patch, 1).unfold(2, patch, 1)  # a view [channel, top, left, height, width]
        target.copy_(windows[:, corners[:, 0], corners[:, 1]].transpose(0, 1))
        return
    target.zero_()
    for canvas, (top, left) in zip(target, corners.tolist(), strict=True):
        window = (slice(None), slice(top, top + patch), slice(left, left + patch))
        canvas[window] = image[window]


def _region(model: nn.Module, layer: str | None, image: Tensor, patch: int, region: str) -> str:
    """Settle "auto", and find out now rather than later whether the network takes what it will be given."""
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))

    def runs(height: int, width: int) -> Tensor | None:
        try:
            return feature_map(model, layer, image.new_zeros(1, image.shape[0], height, width, device=device))
        except InputError:
            raise
        except Exception:  # networks object to a size in any way they like
            return None

    full = runs(*image.shape[-2:])
    if full is None and region != "crop":
        raise InputError(
            "dataset",
            f"the network does not take images of {image.shape[-2]} x {image.shape[-1]} px",
            "Load them at the size it was made for.",
        )
    if region == "masked" or (region == "auto" and full.ndim == 3):  # [batch, channel, token]
        return "masked"
    if runs(patch, patch) is not None:
        return "crop"
    other_sizes = runs(image.shape[-2] + 32, image.shape[-1] + 32) is not None
    if region == "auto" and not other_sizes:  # one size only, like a network that flattens
        return "masked"
    raise InputError(
        "patch",
        f"crops of {patch} px are too small for the network at layer {layer}",
        'Choose a larger patch, or region="masked".',
    )
