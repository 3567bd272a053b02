"""What pasting a donor does to every unit of a layer, against two controls at the same place of the same host.

A donor is an image or a crop that shows a concept. It is pasted into random hosts, each time beside a patch of the mean
colour, which hides the same part of the host and shows nothing, and beside its copy with scrambled phases (same
colours, same spectrum, nothing recognisable). One pass reads all units of the layer, in both readings.

Why two controls: a scrambled copy alone is not neutral. In networks for concept scenes it drives units up, so that most
glyphs seemed to silence most units; a flat patch alone does not know contrast and texture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from absence_utils.errors import InputError, require_at_least
from absence_utils.images.cache import stack_images
from absence_utils.insertion.paste import insert_patches, scramble_phases
from absence_utils.layers.fuse import channels_last, fused
from absence_utils.patches.mining import images_per_batch
from absence_utils.progress import progress
from absence_utils.units import device_of, feature_map, hand_on, pool_space, readings_of, to_network

from .concepts import Concepts

MOST_HOSTS = 500  # images that donors are drawn into; their responses give the standard deviation, too
SHARE = 0.5  # of a host's edge: how large a donor is pasted if nothing is said


@dataclass
class DonorEffects:
    """Changes of the responses by a donor, in standard deviations of the unit over untouched hosts.

    Attributes:
        readings: names of the first axis, from `units.READINGS`.
        blank: [reading, donor, unit] mean over the donor's hosts of f(host with donor) - f(host with mean colour).
        scrambled: the same against the donor's scrambled copy.
        active: as `blank`, over those hosts of the donor whose own response is in the upper half.
        spread: [reading, unit] standard deviation over untouched hosts, in the units of the layer.

    NaN stands for donors that were not asked for, units that never change, and donors without an active host.
    """

    readings: tuple[str, ...]
    blank: np.ndarray
    scrambled: np.ndarray
    active: np.ndarray
    spread: np.ndarray


def donor_patches(concepts: Concepts, hosts: Tensor, edge: int = 0) -> Tensor:
    """[donor, channel, height, width] donors at the size at which they are pasted into hosts [..., height, width].

    Args:
        edge: of a patch in px; 0 keeps donors that are at most half as high as a host, and shrinks others to half.

    Raises:
        InputError: an edge that does not fit into the hosts.
    """
    first = concepts.donors.take([0])
    most = min(hosts.shape[-2:])
    edge = edge or min(round(SHARE * most), first.shape[-1])
    if not 1 < edge <= most:
        raise InputError("edge", f"{edge} px in hosts of {most} px", f"Use 2 to {most}.")
    if first.shape[-3] != hosts.shape[-3]:
        problem = f"donors have {first.shape[-3]} channels, hosts {hosts.shape[-3]}"
        raise InputError("concepts", problem, "Load both for the same network.")
    parts = [
        shrink(concepts.donors.take(numbers), edge)
        for numbers in np.array_split(np.arange(len(concepts)), -(-len(concepts) // 64))
    ]
    return torch.cat(parts)


def shrink(images: Tensor, edge: int) -> Tensor:
    """[image, channel, edge, edge], resampled without aliasing; as they are if they have that size."""
    if images.shape[-2:] == (edge, edge):
        return images
    return interpolate(images, size=(edge, edge), mode="bilinear", antialias=True)


def low_level_statistics(patches: Tensor) -> np.ndarray:
    """[patch, statistic] mean of each channel, contrast (sd of the mean over channels), edge energy (log of the mean
    squared step to the next pixel): what a name must not be about."""
    patches = patches.double()
    grey = patches.mean(dim=1)
    steps = grey.diff(dim=1).square().mean(dim=(1, 2)) + grey.diff(dim=2).square().mean(dim=(1, 2))
    columns = [patches.mean(dim=(2, 3)), grey.std(dim=(1, 2))[:, None], steps.clamp(min=1e-12).log()[:, None]]
    return torch.cat(columns, dim=1).cpu().numpy()


@torch.no_grad()
def donor_effects(
    model: nn.Module,
    layer: str | None,
    dataset,
    concepts: Concepts,
    *,
    edge: int = 0,
    hosts: int = 2,
    seed: int = 0,
    donors: np.ndarray | None = None,
    scrambled: np.ndarray | None = None,
    pool: str = "mean",
) -> DonorEffects:
    """Paste every donor into random hosts, and read all units of a layer.

    It costs 2 x donors x hosts passes, one more for each scrambled copy and host, and one for each host as it is.

    Args:
        model, layer, pool: see `units.responses`.
        dataset: the hosts; no donor is pasted into its own image.
        concepts: the donors.
        edge: see `donor_patches`.
        hosts: of each donor.
        seed: of hosts, places and copies.
        donors: numbers of the donors that are pasted; all if None.
        scrambled: of those, the numbers of the donors that are held against their copies; all if None.

    Raises:
        InputError: no host is left for a donor, an edge that does not fit.
    """
    require_at_least("hosts", hosts, 1)
    stack, generator = stack_images(dataset), np.random.default_rng([seed, 15])
    there = np.sort(generator.permutation(len(stack))[:MOST_HOSTS])
    if len(there) <= hosts:
        problem = f"{len(stack)} images, and a donor needs {hosts} hosts"
        raise InputError("dataset", problem, "Give more images, or ask for fewer hosts.")
    first = stack.take([0])
    patches = donor_patches(concepts, first, edge)
    copies = scramble_phases(patches, seed)
    donors = np.arange(len(concepts)) if donors is None else np.asarray(donors)
    number, host = _pairs(generator, there, donors, concepts.own, hosts)
    room = np.array(first.shape[-2:]) - np.array(patches.shape[-2:]) + 1
    place = torch.from_numpy(generator.integers(room, size=(len(number), 2)))
    read = _Reader(model, layer, first, pool)

    def pasted(what: Tensor, rows: np.ndarray) -> np.ndarray:
        return read(
            rows, lambda part: insert_patches(stack.take(host[part]), what[number[part]], place[part])
        )

    own = read(there, stack.take)  # [reading, host, unit]
    every = np.arange(len(number))
    copied = every if scrambled is None else np.flatnonzero(np.isin(number, scrambled))
    real, blank = pasted(patches, every), pasted(torch.zeros_like(patches), every)
    change = real - blank
    against_copy = np.full_like(change, np.nan)
    against_copy[:, copied] = real[:, copied] - pasted(copies, copied)
    high = own[:, np.searchsorted(there, host)] > np.median(own, axis=1, keepdims=True)
    spread = own.std(axis=1, ddof=1)
    with np.errstate(divide="ignore"):
        scale = np.where(spread > 1e-9 * np.abs(own).max(axis=1), 1 / spread, np.nan)[:, None]
    shape = (len(read.readings), len(concepts), own.shape[2])
    found = (change, against_copy, np.where(high, change, np.nan))
    return DonorEffects(
        read.readings, *(_mean_by_donor(each * scale, donors, shape) for each in found), spread
    )


class _Reader:
    """[reading, image, unit] of a layer, by a network that runs as fast as it can."""

    def __init__(self, model: nn.Module, layer: str | None, image: Tensor, pool: str):
        self.readings = readings_of(layer)
        self._network, self._layer, self._pool = fused(model, layer, tuple(image.shape[1:])), layer, pool
        self._batch = images_per_batch(*image.shape[2:], device_of(model))

    def __call__(self, numbers: np.ndarray, images) -> np.ndarray:
        parts = np.array_split(numbers, -(-len(numbers) // self._batch))
        return np.concatenate(
            [self._read(images(part)) for part in progress(parts, "donors into hosts")], axis=1
        )

    def _read(self, images: Tensor) -> np.ndarray:
        pixels = channels_last(to_network(self._network, images))
        values = feature_map(self._network, self._layer, pixels)
        found = [values, hand_on(values, self._layer)][: len(self.readings)]
        return torch.stack([pool_space(each, self._pool) for each in found]).double().cpu().numpy()


def _pairs(generator, hosts: np.ndarray, donors: np.ndarray, own: np.ndarray, count: int):
    """(donor, host) of every insertion: `count` different hosts of each donor, none of them its own image."""
    rows = []
    for donor in donors:
        there = generator.permutation(hosts)[: count + 1]
        rows.append(there[there != own[donor]][:count])
    return np.repeat(donors, count), np.concatenate(rows)


def _mean_by_donor(values: np.ndarray, donors: np.ndarray, shape: tuple) -> np.ndarray:
    """[reading, donor, unit] means over hosts, of values [reading, insertion, unit] in the order of `_pairs`."""
    grouped = values.reshape(shape[0], len(donors), -1, shape[2])
    seen = ~np.isnan(grouped)
    with np.errstate(invalid="ignore"):
        means = np.where(seen, grouped, 0).sum(axis=2) / seen.sum(axis=2)
    found = np.full(shape, np.nan)
    found[:, donors] = means
    return found
