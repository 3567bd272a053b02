"""Regions of an image: which a map marks, which to compare them with, and how to paint them over."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import splu
from torch import Tensor

NEIGHBOURS = {  # offset -> weight in `inpaint`, those of ROAD
    (y, x): 1 / 12 if x and y else 1 / 6 for y in (-1, 0, 1) for x in (-1, 0, 1) if x or y
}  # fmt: skip


def pixel_ranks(values: Tensor, seed: int) -> Tensor:
    """[height, width]: 0 for the lowest value; ties in a random order."""
    flat = values.detach().flatten().cpu().double().numpy()
    chance = np.random.default_rng([seed, 0]).random(flat.size)
    ranks = np.empty(flat.size, dtype=int)
    ranks[np.lexsort((chance, flat))] = np.arange(flat.size)
    return torch.from_numpy(ranks).view(values.shape)


def negative_regions(values: Tensor, counts: list[int], seed: int = 0) -> Tensor:
    """The `counts` most negative pixels of a map [height, width], fewer if fewer are below 0: [count, h, w] bool."""
    ranks, negative = pixel_ranks(values, seed), (values < 0).cpu()
    return torch.stack([(ranks < count) & negative for count in counts])


def control_regions(regions: Tensor, image: Tensor, seed: int = 0) -> Tensor:
    """For each region another one of the same image: as many pixels, the same shape, similar contrast.

    A region is mirrored, turned by quarters (square images) and shifted around the borders in every way. Of all these
    places that one is taken where the sum of two numbers is smallest: the relative difference of contrast, and the
    share of its pixels that lie in *any* of the regions. The latter are then moved to random pixels outside, so
    controls never touch what the map marks. (Were only its own region forbidden, the control of a few pixels of a glyph
    would be the glyph's other pixels.) For a compact region next to none have to move, for noise as many as it must.

    Contrast is the root mean square distance from the image's mean colour, not the deviation within the region: a
    glyph of one colour has none within.

    Args:
        regions: [region, height, width] bool, together at most half of the pixels.
        image: [channel, height, width].
        seed: of the pixels that move, and of the choice between equal places.

    Returns:
        Like regions; an empty region has an empty control.
    """
    taken = regions.any(dim=0).numpy()
    pixels = image.detach().cpu().double().numpy()
    energy = ((pixels - pixels.mean(axis=(1, 2), keepdims=True)) ** 2).mean(axis=0)
    generator = np.random.default_rng([seed, 1])
    controls = [_control(region, taken, energy, generator) for region in regions.numpy()]
    return torch.from_numpy(np.stack(controls))


def _control(region, taken, energy, generator) -> np.ndarray:
    size = int(region.sum())
    if size == 0:
        return region
    square = region.shape[0] == region.shape[1]
    turns = [np.rot90(way, k) for way in (region, region[::-1]) for k in range(0, 4, 1 if square else 2)]
    spectrum = np.fft.rfft2(np.stack([energy, taken.astype(float)]))
    # the sum of energy, and of taken pixels, under every turn at every shift
    under = np.fft.irfft2(np.conj(np.fft.rfft2(np.stack(turns)))[:, None] * spectrum, s=region.shape) / size
    contrast, own = np.sqrt(under[:, 0].clip(0)), np.sqrt(energy[region].mean())
    cost = (np.abs(contrast - own) / max(own, 1e-9) + under[:, 1]).round(6)  # rounded: equal is equal
    turn, *shift = np.unravel_index(generator.choice(np.flatnonzero(cost == cost.min())), cost.shape)
    placed = np.roll(turns[turn], shift, axis=(0, 1))
    control = placed & ~taken
    free = np.flatnonzero(~placed & ~taken)
    control.flat[generator.choice(free, size - int(control.sum()), replace=False)] = True
    return control


# -- changing images


def paint_over(image: Tensor, regions: Tensor, behind: Tensor | None = None) -> Tensor:
    """One image [channel, height, width] with each region [region, height, width] painted over.

    By `behind`, shaped like the image, or where it is None by `inpaint`: [region, channel, height, width].
    """
    if behind is None:
        return torch.stack([inpaint(image, region) for region in regions])
    return torch.where(regions[:, None].to(image.device), behind.to(image), image)


def inpaint(image: Tensor, region: Tensor) -> Tensor:
    """Fill a region from its rim: every pixel of it becomes the weighted mean of its eight neighbours, solved exactly.

    The linear imputation of ROAD (Rong et al., ICML 2022), without its noise. Nothing of what was inside is
    left, and the region must leave at least one pixel.

    Args:
        image: [channel, height, width].
        region: [height, width] bool.
    """
    rows, columns = np.nonzero(region.numpy())
    if len(rows) == 0:
        return image.clone()
    height, width = region.shape
    number = np.full((height, width), -1)
    number[rows, columns] = np.arange(len(rows))
    pixels = image.detach().cpu().double().numpy()
    total, known, entries = np.zeros(len(rows)), np.zeros((len(rows), len(pixels))), []
    for (down, right), weight in NEIGHBOURS.items():
        y, x = rows + down, columns + right
        here = np.flatnonzero((y >= 0) & (y < height) & (x >= 0) & (x < width))
        y, x = y[here], x[here]
        other, total[here] = number[y, x], total[here] + weight
        rim = other < 0
        known[here[rim]] += weight * pixels[:, y[rim], x[rim]].T
        entries.append(np.stack([here[~rim], other[~rim], np.full((~rim).sum(), -weight)]))
    row, column, value = np.concatenate([*entries, np.stack([np.arange(len(rows))] * 2 + [total])], axis=1)
    system = coo_matrix((value, (row.astype(int), column.astype(int)))).tocsc()
    result = image.detach().clone()
    result[:, rows, columns] = torch.from_numpy(splu(system).solve(known).T).to(image)
    return result
