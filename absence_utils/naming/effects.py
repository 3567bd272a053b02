"""What pasting a donor does to every unit of a layer, against the host as it is and against a phase-scrambled copy.

A donor is an image or a crop that shows a concept. It is pasted into random hosts, each time beside its copy with
scrambled phases (same colours, same spectrum, nothing recognisable) at the same place of the same host. One pass reads
all units of the layer, in both readings.
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
from absence_utils.layers.reading import OUTPUTS
from absence_utils.progress import progress
from absence_utils.units import READINGS, device_of, feature_map, hand_on, pool_space

from .concepts import Concepts

MOST_HOSTS = 500  # images that donors are drawn into; their responses give the standard deviation, too
SHARE = 0.5  # of a host's edge: how large a donor is pasted if nothing is said
BATCH = 32


@dataclass
class DonorEffects:
    """Changes of the responses under insertion, in standard deviations of the unit over untouched hosts.

    Attributes:
        readings: names of the first axis, from `units.READINGS`.
        real, scrambled: [reading, donor, unit] mean over the donor's hosts of f(host with donor) - f(host), for the
            donor and for its scrambled copy. NaN for donors that were not asked for and units that never change.
        active: [reading, donor, unit] of real - scrambled, the mean over those hosts of the donor whose own response
            is in the upper half; NaN where it has none.
        spread: [reading, unit] standard deviation over untouched hosts, in the units of the layer.
    """

    readings: tuple[str, ...]
    real: np.ndarray
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


def donor_effects(
    model: nn.Module,
    layer: str | None,
    dataset,
    concepts: Concepts,
    *,
    edge: int = 0,
    hosts: int = 3,
    seed: int = 0,
    donors: np.ndarray | None = None,
    pool: str = "mean",
) -> DonorEffects:
    """Paste every donor into random hosts, and read all units of a layer.

    It costs 2 x donors x hosts passes, and one for each host as it is.

    Args:
        model, layer, pool: see `units.responses`.
        dataset: the hosts; no donor is pasted into its own image.
        concepts: the donors.
        edge: see `donor_patches`.
        hosts: of each donor.
        seed: of hosts and places.
        donors: numbers of the donors that are pasted; all if None.

    Raises:
        InputError: no host is left for a donor, an edge that does not fit.
    """
    require_at_least("hosts", hosts, 1)
    stack = stack_images(dataset)
    generator = np.random.default_rng([seed, 15])
    pool_of_hosts = np.sort(generator.permutation(len(stack))[:MOST_HOSTS])
    if len(pool_of_hosts) <= hosts:
        problem = f"{len(stack)} images, and a donor needs {hosts} hosts"
        raise InputError("dataset", problem, "Give more images, or ask for fewer hosts.")
    readings = READINGS[:1] if layer in OUTPUTS else READINGS
    patches = donor_patches(concepts, stack.take([0]), edge)
    copies = scramble_phases(patches, seed)
    chosen = np.arange(len(concepts)) if donors is None else np.asarray(donors)
    number, host = _pairs(generator, pool_of_hosts, chosen, concepts.own, hosts)
    room = np.array(stack.take([0]).shape[-2:]) - np.array(patches.shape[-2:]) + 1
    place = torch.from_numpy(generator.integers(room, size=(len(number), 2)))

    def read(images: Tensor) -> np.ndarray:
        with torch.no_grad():
            values = feature_map(model, layer, images)
            found = [values, hand_on(values, layer)][: len(readings)]
            return torch.stack([pool_space(each, pool) for each in found]).double().cpu().numpy()

    def pasted(what: Tensor) -> np.ndarray:
        parts = progress(np.array_split(np.arange(len(number)), -(-len(number) // BATCH)), "donors into hosts")
        return np.concatenate([
            read(insert_patches(stack.take(host[part]).to(device), what[number[part]], place[part]))
            for part in parts
        ], axis=1)  # fmt: skip

    device = device_of(model)
    batches = np.array_split(pool_of_hosts, -(-len(pool_of_hosts) // BATCH))
    own = np.concatenate([read(stack.take(part).to(device)) for part in batches], axis=1)  # [reading, host, unit]
    spread = own.std(axis=1, ddof=1)
    with np.errstate(divide="ignore"):
        scale = np.where(spread > 1e-9 * np.abs(own).max(axis=1), 1 / spread, np.nan)[:, None]
    base = own[:, np.searchsorted(pool_of_hosts, host)]
    real, scrambled = ((pasted(what) - base) * scale for what in (patches, copies))
    high = base > np.median(own, axis=1, keepdims=True)
    active = np.where(high, real - scrambled, np.nan)
    shape = (len(readings), len(concepts), own.shape[2])
    return DonorEffects(
        readings, *(_mean_by_donor(each, chosen, shape) for each in (real, scrambled, active)), spread
    )


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
