"""Run a network on images with pasted patches: every distinct image once, however many units ask for it.

A request says: unit u, image i, patch p, place c. Requests of different units, conditions and draws often mean the
same input, for example a random patch in an image that is among the top images of forty units. Those run once, and
each request takes the response of its unit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from absence_utils.errors import InputError
from absence_utils.images.cache import ImageStack
from absence_utils.layers.fuse import channels_last, fused
from absence_utils.patches.mining import images_per_batch
from absence_utils.patches.topk import window_key
from absence_utils.progress import progress
from absence_utils.units import device_of, feature_map, hand_on, pool_space, to_network

from .paste import LOCATIONS, insert_patches, paste_corners

SELF_PATCH, UNMODIFIED = -1, -2  # "patches": the image's own pixels pasted back, and nothing pasted
BLANK_IMAGE = -1  # "image": the mean colour everywhere
KEYS = ["image", "patch", "place", "feathered"]


@dataclass
class PatchBank:
    """Patches by number.

    Attributes:
        pixels: [patch, channel, height, width], normalised.
    """

    pixels: Tensor

    @property
    def side(self) -> int:
        return self.pixels.shape[-1]

    def add(self, pixels: Tensor) -> np.ndarray:
        """Append patches [n, channel, height, width]; return their numbers [n]."""
        first = len(self.pixels)
        self.pixels = torch.cat((self.pixels, pixels))
        return np.arange(first, len(self.pixels))

    def add_windows(self, images: ImageStack, image: Tensor, box: Tensor) -> np.ndarray:
        """Append windows, each distinct one once: image [...] and box [..., 4] as in a book; numbers [...]."""
        place = window_key(image, box[..., 0], box[..., 1])
        distinct, number = torch.unique(place, return_inverse=True)
        side, whole = self.side, distinct >> 32
        pixels = torch.empty(len(distinct), *self.pixels.shape[1:])
        for index in whole.unique().tolist():  # ascending: the file is read in its order
            rows = (whole == index).nonzero()[:, 0]
            source = images.take([index])[0]
            for row in rows.tolist():
                top, left = int(distinct[row] >> 16) & 0xFFFF, int(distinct[row]) & 0xFFFF
                pixels[row] = source[:, top : top + side, left : left + side]
        return self.add(pixels)[number.numpy()]


def empty_bank(images: ImageStack, side: int) -> PatchBank:
    """A bank for square patches of `side` px without any patch in it."""
    return PatchBank(images.take([0])[0].new_empty(0, images.take([0]).shape[1], side, side))


@torch.no_grad()
def run_insertions(
    model: nn.Module,
    layer: str | None,
    images: ImageStack,
    bank: PatchBank,
    requests: pd.DataFrame,
    *,
    pool: str = "mean",
    feather: int = 0,
    batch_size: int | None = None,
    description: str = "inserting patches",
) -> pd.DataFrame:
    """Responses of units to images with pasted patches.

    All batches have one shape, and equal inputs are one input: a difference of two responses is 0 where it should be.

    Args:
        model, layer, pool: see `units.responses`.
        images: whose images are pasted into.
        bank: the patches.
        requests: one row a request with the columns unit (channel of the layer), image (number in `images` or
            `BLANK_IMAGE`), patch (number in the bank, `SELF_PATCH` or `UNMODIFIED`), place (number in
            `insertion.LOCATIONS`) and feathered (bool).
        feather: width of the soft edge of feathered patches, px.
        batch_size: images in a forward pass; by their size and the device if None.

    Returns:
        The requests with the columns response and passed (signed, and as `units.hand_on` gives it, in the units of the
        layer) and, for maps that are pooled by their mean (else NaN), beside and beyond: the parts of that mean from
        positions that lie outside the patch as seen on a grid laid over the image, and from those that no pixel of the
        patch can reach (`receptive_positions`).

    Raises:
        InputError: a unit, image, patch or place that does not exist.
    """
    requests = requests.reset_index(drop=True)
    keys, inverse = _distinct(requests, len(images), len(bank.pixels))
    order = np.argsort(inverse, kind="stable")
    ends = np.searchsorted(inverse[order], np.arange(len(keys) + 1))
    network = fused(model, layer, tuple(images.take([0]).shape[1:]))
    first = channels_last(to_network(network, images.take([0])))
    batch_size = batch_size or images_per_batch(*first.shape[2:], device_of(model))
    masks = None
    if pool == "mean":
        masks = _outside_masks(network, layer, first, bank.side, sorted({key[2] for key in keys}))
    unit = requests["unit"].to_numpy()
    found = np.full((len(requests), 4), np.nan, np.float32)
    for start in progress(range(0, len(keys), batch_size), description):
        part = keys[start : start + batch_size]
        filled = np.concatenate([part, np.repeat(part[:1], batch_size - len(part), axis=0)])
        pasted = to_network(network, input_images(images, bank, filled, feather))
        maps = feature_map(network, layer, channels_last(pasted))
        rows = order[ends[start] : ends[start + len(part)]]
        if not 0 <= unit[rows].min() <= unit[rows].max() < maps.shape[1]:
            remedy = f"Use 0 to {maps.shape[1] - 1}."
            raise InputError("units", f"{unit[rows].max()} is out of range for layer {layer}", remedy)
        asked = (
            inverse[rows] - start
        )  # an input of the batch for each request: of a wide layer few units are asked
        values = _pooled(maps[asked, unit[rows]], layer, pool, masks, filled[asked, 2])
        found[rows, : values.shape[1]] = values
    return requests.assign(**dict(zip(("response", "passed", "beside", "beyond"), found.T, strict=True)))


def _distinct(requests: pd.DataFrame, images: int, patches: int) -> tuple[np.ndarray, np.ndarray]:
    """[input, (image, patch, place, feathered)] of the distinct inputs, by image, and which one each request has."""
    table = requests[KEYS].to_numpy(dtype=np.int64, copy=True)
    for column, low, high in ((0, BLANK_IMAGE, images), (1, UNMODIFIED, patches), (2, 0, len(LOCATIONS))):
        if len(table) and not low <= table[:, column].min() <= table[:, column].max() < high:
            raise InputError(KEYS[column], f"not all from {low} to {high - 1}", "Ask for what exists.")
    table[table[:, 1] == UNMODIFIED, 2:] = 0  # where nothing is pasted, the place says nothing
    limits = (images + 1, patches + 2, len(LOCATIONS), 2)
    code = np.ravel_multi_index((table - [BLANK_IMAGE, UNMODIFIED, 0, 0]).T, limits)
    code, inverse = np.unique(code, return_inverse=True)
    return np.stack(np.unravel_index(code, limits), axis=1) + [BLANK_IMAGE, UNMODIFIED, 0, 0], inverse.ravel()


def input_images(images: ImageStack, bank: PatchBank, keys, feather: int = 0) -> Tensor:
    """What the network sees: [input, channel, height, width] for keys [input, (image, patch, place, feathered)]."""
    keys = np.asarray(keys, dtype=np.int64)
    image, patch, place, feathered = keys.T
    base = images.take(image.clip(0))
    base[np.flatnonzero(image == BLANK_IMAGE)] = 0
    at = paste_corners(base, (bank.side, bank.side), torch.from_numpy(place))
    patches = base.new_empty(len(base), *bank.pixels.shape[1:])
    known = torch.from_numpy(np.flatnonzero(patch >= 0))
    patches.index_copy_(0, known, bank.pixels.index_select(0, torch.from_numpy(patch)[known]))
    for row in np.flatnonzero(patch < 0):  # its own pixels: an untouched image is untouched by pasting, too
        top, left = at[row].tolist()
        patches[row] = base[row, :, top : top + bank.side, left : left + bank.side]
    result = insert_patches(base, patches, at)
    soft = torch.from_numpy(np.flatnonzero(feathered))
    if len(soft):
        result[soft] = insert_patches(base[soft], patches[soft], at[soft], feather=feather)
    return result


def _pooled(maps: Tensor, layer, pool: str, masks: Tensor | None, place: np.ndarray) -> np.ndarray:
    """[request, 2 or 4] of maps [request, ...]: pooled in both readings, then the parts from outside the patch."""
    maps = maps[:, None]
    values = torch.cat((pool_space(maps, pool), pool_space(hand_on(maps, layer), pool)), dim=1).float()
    if masks is not None:
        positions = maps.flatten(1).float()
        weights = masks.to(maps.device)[torch.from_numpy(place)]  # [request, 2, position]
        values = torch.cat((values, (weights @ positions[..., None])[..., 0] / positions.shape[1]), dim=1)
    return values.cpu().numpy()


def _outside_masks(network, layer, image: Tensor, side: int, places: list[int]) -> Tensor | None:
    """[place, 2, position] 1 where a position lies beside the patch, and where it is beyond its reach."""
    maps = feature_map(network, layer, image)
    if maps.ndim != 4:
        return None  # tokens and vectors have no grid
    height, width = maps.shape[2:]
    masks = torch.zeros(len(LOCATIONS), 2, height * width)
    for place in places:
        ((top, left),) = paste_corners(image, (side, side), [place]).tolist()
        rows, columns = (
            (torch.arange(count) + 0.5) * edge / count
            for count, edge in ((height, image.shape[2]), (width, image.shape[3]))
        )
        in_rows, in_columns = (
            (at >= start) & (at < start + side) for at, start in ((rows, top), (columns, left))
        )
        masks[place, 0] = ~(in_rows[:, None] & in_columns).flatten()
        masks[place, 1] = ~receptive_positions(network, layer, image, (top, left, side, side)).flatten().cpu()
    return masks


@torch.no_grad()
def receptive_positions(
    model: nn.Module, layer: str | None, image: Tensor, box: tuple[int, int, int, int]
) -> Tensor:
    """Positions of a layer's map whose value depends on the pixels of a box in any way: [height, width] bool.

    The box is filled with "not a number", which every sum and comparison hands on: the exact receptive field, where a
    gradient is also 0 behind a silent rectifier. In a network with a global step (attention, squeeze and excitation)
    it is everything.

    Args:
        model, layer: see `units.feature_map`; the layer gives maps.
        image: [1, channel, height, width], any image.
        box: (top, left, height, width) in px.
    """
    top, left, height, width = box
    probe = torch.zeros_like(image)
    probe[:, :, top : top + height, left : left + width] = float("nan")
    return feature_map(model, layer, probe)[0].isnan().any(dim=0)
