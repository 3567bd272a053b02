"""Does the network see the images as it did in training? Size, borders and preprocessing, before a layer is read.

A wrong preprocessing raises no error: it lowers what the network recognises, and every reading is of a network that
sees nothing it knows. Where the folder's classes are the network's outputs, that is measured and compared with the
preprocessings in common use.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from PIL import Image
from scipy.stats import binomtest
from torch import Tensor, nn

from absence_utils.errors import require_at_least
from absence_utils.images.base import IDENTITY, IMAGENET, Normalisation
from absence_utils.images.preprocessing import PreparedFolder
from absence_utils.models.opening import LoadedModel
from absence_utils.units import responses

from .checks import Found, Row, reason
from .validation import Validation, make_table

USUAL = {  # the most usual first: it is named where several do as well
    "ImageNet's mean and sd": IMAGENET,
    "pixels in 0..1": IDENTITY,
    "pixels in -1..1": Normalisation((0.5,), (0.5,)),
    "pixels in 0..255": Normalisation((0.0,), (1 / 255,)),
    "MNIST's mean and sd": Normalisation((0.1307,), (0.3081,)),
}
ENLARGED = 1.5  # times an image's own size from which on the network may have been trained on smaller ones
GAIN = 0.1  # share of the images that another preprocessing must recognise in addition, and
AS_WELL = 0.05  # of the images: two preprocessings that differ by less do as well
CHANCE = 0.01  # probability of such a gain by chance, over all that were tried
ENOUGH = 0.9  # recognised: no other is tried
FIRST = 16  # images on which another must recognise that much more before it is tried on all
SAME_COLOUR = 8  # grey levels of 255 within which a border has one colour: JPEG disturbs it
BORDER = 0.03  # of the edge, and 2 px: narrower ones are no border
COMMON = 0.25  # share of the images from which on borders are worth a word


def validate_inputs(opened: LoadedModel, dataset, *, most: int = 64, batch_size: int = 32) -> Validation:
    """Check that the network is given images as it was in training.

    image size: files that are much smaller than what the network is given. borders: images with a border of one
    colour on opposite sides, which is evidence against any other baseline. recognised: where the dataset's classes are
    the network's outputs, the share of the images that it recognises as it is given them, and with the preprocessings
    in common use, also at the images' own size; it fails where one of those recognises clearly more. Images with
    several labels count by the sign of each output.

    Args:
        opened: by `open_model`; the network is left as found.
        dataset: of `opened.images`, or any image dataset, see `images`.
        most: images that are used, evenly spread over the dataset.
        batch_size: images in a pass.

    Returns:
        A Validation. It takes one pass of these images, and a quarter of one for each other preprocessing where less
        than 90% are recognised.

    Raises:
        InputError: `most` is less than 1; an image cannot be decoded.

    Example:
        >>> from absence_utils import open_model, validate_inputs
        >>> opened = open_model("concept_scenes")
        >>> validate_inputs(opened, opened.images("concept_scenes", limit=16)).ok
        True
    """
    require_at_least("most", most, 1)
    rows = torch.linspace(0, len(dataset) - 1, min(most, len(dataset))).round().long().tolist()
    images = _images(dataset, rows)
    sides = _shorter_sides(dataset, rows)
    table = [
        Row("image size", *_image_size(images, sides)),
        Row("borders", *_borders(dataset.normalisation.undo(images))),
        Row("recognised", *_recognised(opened, dataset, rows, images, sides, batch_size)),
    ]
    return Validation("the inputs", make_table(table), "preprocessing")


def _images(dataset, rows: list[int]) -> Tensor:
    return torch.stack([dataset[row][0] for row in rows])


# -- size


def _shorter_sides(dataset, rows: list[int]) -> list[int]:
    """px of the shorter side of each image's file; none where the images are in memory."""
    sides = []
    for row in rows if hasattr(dataset, "files") else ():
        with Image.open(dataset.files[row]) as image:  # the head alone is read
            sides.append(min(image.size))
    return sides


def _enlarged_from(sides: list[int], size: int) -> int | None:
    """px of the images where the network is given them much larger, None where not."""
    usual = sorted(sides)[len(sides) // 2] if sides else size
    return usual if size >= ENLARGED * usual else None


def _image_size(images: Tensor, sides: list[int]) -> Found:
    size = min(images.shape[-2:])
    if set(sides) <= {size}:
        return True, f"{size} px, as the network is given", ""
    small, usual = _enlarged_from(sides, size), sorted(sides)[len(sides) // 2]
    if small is None:
        span = f"{min(sides)} to {max(sides)}" if min(sides) < max(sides) else f"{usual}"
        return True, f"{span} px, the network is given {size} px", ""
    remedy = f"If the network was trained at {small} px, return dict(size={small}) with it, or open it with that size."
    return True, f"your images are {small} px, the network is given {size} px", remedy


# -- borders


def _borders(pixels: Tensor) -> Found:
    found = [border for border in map(border_of, pixels) if border]
    if len(found) < max(1, COMMON * len(pixels)):
        return True, "none of one colour", ""
    colour = torch.stack([colour for colour, _ in found]).median(dim=0).values
    alike = sum(bool((other - colour).abs().max() <= SAME_COLOUR / 255) for other, _ in found)
    level = tuple((colour * 255).round().int().tolist())
    said = f"grey {level[0]}" if len(level) == 1 else f"RGB {level}"
    said = said if 2 * alike > len(found) else "of several colours"
    width = sorted(width for _, width in found)[len(found) // 2]
    against = (
        "with baseline='black'" if max(level) <= SAME_COLOUR else f"with baseline='border' (here {said})"
    )
    remedy = f"Attribute {against}, or cut the borders off: against another baseline they count as evidence."
    return True, f"{len(found)} of {len(pixels)} images, {said}, {width} px wide", remedy


def border_of(pixels: Tensor) -> tuple[Tensor, int] | None:
    """(colour [channel], width in px of the widest side) of a border of one colour on two opposite sides, or None.

    Args:
        pixels: [channel, height, width] in 0..1.
    """
    colour = pixels[:, 0, 0]
    same = ((pixels - colour[:, None, None]).abs() <= SAME_COLOUR / 255).all(dim=0)
    if same.all():
        return None

    def width(lines: Tensor) -> int:
        return int(lines.long().cumprod(0).sum())

    rows, columns = same.all(dim=1), same.all(dim=0)
    pairs = [(width(lines), width(lines.flip(0))) for lines in (rows, columns)]
    least = max(2, BORDER * min(pixels.shape[1:]))
    wide = [max(pair) for pair in pairs if min(pair) >= least]
    return (colour, max(wide)) if wide else None


# -- recognition


def _recognised(opened: LoadedModel, dataset, rows, images, sides, batch_size: int) -> Found:
    membership = torch.as_tensor(dataset.membership)
    wanted, several = membership[rows], bool((membership.sum(dim=1) != 1).any())

    def right(shown: Tensor, part: slice = slice(None)) -> Tensor:
        return _right(_answers(opened.model, shown[part], several, batch_size), wanted[part], several)

    try:
        classes, outputs = membership.shape[1], _answers(opened.model, images[:1], several, 1).shape[1]
        if classes != outputs or outputs < 2:
            return True, f"not asked: the folder has {classes} classes, the network {outputs} outputs", ""
        given = right(images)
    except Exception as error:  # the checks of the network say more
        return True, f"not asked: {reason(error)}", ""
    chance = _chance(membership, several)
    of = f"{len(rows)} images x {outputs} outputs" if several else f"{len(rows)} images"
    found = f"{_percent(given.mean())} of {of} (chance {_percent(chance)})"
    if given.mean() >= ENOUGH:
        return True, found, ""
    tried, promising = _promising(right, _alternatives(dataset, rows, images, sides), given, len(rows))
    gains = [(right(other.images), other) for other in promising]
    clear = [
        (gain.mean(), other) for gain, other in gains
        if gain.mean() - given.mean() >= GAIN and _by_chance(gain, given) < CHANCE / tried
    ]  # fmt: skip
    if clear:
        most = max(share for share, _ in clear)
        share, other = next(pair for pair in clear if pair[0] >= most - AS_WELL)
        return False, f"{found}, {_percent(share)} with {other.what}", other.remedy
    if not several and binomtest(int(given.sum()), len(rows), chance, "greater").pvalue > CHANCE:
        remedy = "Expected of random weights. Else: are the folders in the order of the network's outputs?"
        return True, f"{found}: no better than chance", remedy
    return True, found, ""


def _promising(right, alternatives, given: Tensor, count: int) -> tuple[int, list[_Shown]]:
    """How many were tried on a few images, and those that recognise more of them."""
    few = slice(None, None, max(1, count // FIRST))
    promising, tried = [], 0
    for other in alternatives:
        try:
            gain = right(other.images, few) - given[few]
        except Exception:  # a network for one size refuses others
            continue
        tried += 1
        if gain.mean() >= GAIN:
            promising.append(other)
    return tried, promising


@torch.no_grad()
def _answers(model: nn.Module, images: Tensor, several: bool, batch_size: int) -> Tensor:
    """[image, output] on the CPU; signed where each output answers for itself."""
    layer = "logits" if several else None
    return torch.cat([responses(model, layer, part).float().cpu() for part in images.split(batch_size)])


def _right(answers: Tensor, wanted: Tensor, several: bool) -> Tensor:
    """The share of each image's outputs that is right, [image]: of all by their sign, or of the largest alone."""
    if several:
        return ((answers > 0) == wanted).double().mean(dim=1)
    return wanted.gather(1, answers.argmax(dim=1, keepdim=True))[:, 0].double()


def _chance(membership: Tensor, several: bool) -> float:
    """What an answer that is the same for all images gets at best."""
    share = membership.double().mean(dim=0)
    return (torch.maximum(share, 1 - share).mean() if several else share.max()).item()


@dataclass(frozen=True)
class _Shown:
    """The images under another preprocessing."""

    what: str
    normalisation: Normalisation
    images: Tensor

    @property
    def remedy(self) -> str:
        mean, std = (
            tuple(round(value, 4) for value in each)
            for each in (self.normalisation.mean, self.normalisation.std)
        )
        how = f"dict(mean={mean}, std={std}, size={self.images.shape[-1]})"
        return f"Return the network with its preprocessing, (network, {how}), or give it to `open_model`."


def _alternatives(dataset, rows, images, sides) -> Iterator[_Shown]:
    """The usual normalisations of the images, as they are shown and at their own size where they were enlarged."""
    channels, pixels = images.shape[1], {"": dataset.normalisation.undo(images)}
    own = _enlarged_from(sides, min(images.shape[-2:]))
    if own and isinstance(dataset, PreparedFolder):
        small = copy.copy(dataset)
        small.preprocessing = replace(dataset.preprocessing, size=own, resize=own, transform=None)
        pixels[f"images of {own} px"] = dataset.normalisation.undo(_images(small, rows))
    given = _per_channel(dataset.normalisation, channels)
    usual = {what: _per_channel(normalisation, channels) for what, normalisation in USUAL.items()}
    ways = {"": given} | {what: way for what, way in usual.items() if way not in (None, given)}
    for (size, shown), (what, way) in itertools.product(pixels.items(), ways.items()):
        if size or what:
            yield _Shown(" and ".join(filter(None, (size, what))), way, way.apply(shown))


def _per_channel(normalisation: Normalisation, channels: int) -> Normalisation | None:
    """With one mean and sd for each channel; None where it is made for another number of channels."""
    mean, std = (
        each * channels if len(each) == 1 else each for each in (normalisation.mean, normalisation.std)
    )
    return Normalisation(mean, std) if len(mean) == channels else None


def _by_chance(one: Tensor, other: Tensor) -> float:
    """p of the sign test that `one` is right more often than `other`, image by image."""
    more, less = int((one > other).sum()), int((one < other).sum())
    return binomtest(more, more + less, 0.5, "greater").pvalue if more else 1.0


def _percent(share) -> str:
    percent = 100 * float(share)
    return f"{percent:.0f}%" if percent >= 1 or percent == 0 else f"{percent:.1g}%"
