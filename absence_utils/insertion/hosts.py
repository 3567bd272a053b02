"""What a unit's lowest patches do to it in images drawn at random, in both readings: what `decide` decides on.

All units share the images (hosts), the random patches and the patch of mean colour, whose inputs run once for a whole
layer; a unit's own cost is its lowest patches. An effect is

    A = -mean over hosts and patches of [f(host with lowest patch) - f(host with control)] / sd

with the control at the same place of the same host, and sd the reading's standard deviation over untouched images. A
positive A is suppression.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from torch import nn

from absence_utils.errors import InputError, require_at_least
from absence_utils.images.cache import stack_images
from absence_utils.layers.fuse import fused
from absence_utils.patches.book import PatchBook
from absence_utils.stats import crossed_t_interval
from absence_utils.units import dataset_readings, readings_of

from .design import InsertionConfig, Treatment, as_array, chosen_units, plan
from .execution import empty_bank, run_insertions
from .protocols import mine_splits, split_in_thirds
from .published import check_book, extreme_patches, shared_random_patches

CONTROLS = ("random patch", "mean colour")
FEWEST_PATCHES = 6  # of a unit, from as many images: with fewer, coverage and one-sided error are not kept


def both_readings(model: nn.Module, layer: str | None, dataset, pool: str = "mean") -> dict[str, np.ndarray]:
    """Reading (`units.readings_of`) to [image, unit] responses of a layer to untouched images, in one pass."""
    network = fused(model, layer, tuple(dataset[0][0].shape))
    found = dataset_readings(network, layer, dataset, readings_of(layer), pool=pool)
    return {read: values.numpy() for read, values in found.items()}


class LayerEffects(NamedTuple):
    """`host_effects` of a layer, and what they were measured with: patches, hosts, and responses in each reading."""

    effects: pd.DataFrame
    mined: PatchBook
    hosts: range
    responses: dict[str, np.ndarray]


def host_range(dataset) -> range:
    """Numbers of the images that are not mined: all after the first third."""
    return range(split_in_thirds(len(dataset))[0].stop, len(dataset))


def layer_effects(
    model: nn.Module, layer: str | None, dataset, setting: InsertionConfig, *, units=None, redraws: int = 4
) -> LayerEffects:
    """Mine the first third of the images and measure `host_effects` in the others; arguments as there."""
    stack = stack_images(dataset)
    _, mined = mine_splits(model, layer, stack, setting, redraws, whole=False, per_image=1)
    hosts, responses = host_range(stack), both_readings(model, layer, stack, setting.pool)
    asked = {"units": units, "redraws": redraws}
    effects = host_effects(model, layer, stack, mined, hosts, setting, responses, **asked)
    return LayerEffects(effects, mined, hosts, responses)


def host_effects(
    model: nn.Module,
    layer: str | None,
    dataset,
    book: PatchBook,
    hosts: range,
    setting: InsertionConfig,
    responses: dict[str, np.ndarray],
    *,
    units=None,
    redraws: int = 4,
) -> pd.DataFrame:
    """The effect of every unit's lowest patches, in both readings, against each control.

    Args:
        model, layer: see `units.feature_map`.
        dataset: images in random order.
        book: extreme patches of images that are not in `hosts`, at most one of an image for each unit (`per_image=1`).
        hosts: numbers of the images that are measured; `setting.images` of them, the first, are pasted into, and all
            of them give the standard deviation.
        setting: patch, stride, k and pool must be those of the book.
        responses: reading to [image, unit] of all untouched images, see `both_readings`.
        units: channels; all if None.
        redraws: draws of the random patches; the control is the mean over them.

    Returns:
        A row for each unit, reading (those of `responses`) and control (`CONTROLS`): value, low, high (95%, in sd),
        error (standard error), df, sd (in the units of the layer), images, patches. NaN where a unit never changes.

    Raises:
        InputError: fewer than six patches of a unit, a book that took several from an image, hosts that were mined.
    """
    stack = stack_images(dataset)
    check_book(book, setting, stack)
    _check(book, hosts, setting)
    require_at_least("redraws", redraws, 1)
    usual = {read: values[list(hosts)] for read, values in responses.items()}
    units = chosen_units(units, usual["signed"].shape[1])
    bank = empty_bank(stack, setting.patch)
    lowest = extreme_patches(bank, stack, book, units)["lowest"][None]
    random = shared_random_patches(bank, stack, book, setting, redraws)[:, None]
    (mean,) = bank.add(bank.pixels.new_zeros(1, *bank.pixels.shape[1:]))
    pasted = np.broadcast_to(np.array(hosts[: setting.images]), (len(units), setting.images))
    kinds = {"lowest": lowest, "random": random, "mean colour": np.full((1, 1, setting.k), mean)}
    treatments = [Treatment("hosts", kind, numbers, setting.corners) for kind, numbers in kinds.items()]
    requests = plan({"hosts": pasted}, treatments, units, setting.pairing)
    how = {"pool": setting.pool, "description": "lowest patches into hosts"}
    inputs = run_insertions(model, layer, stack, bank, requests, **how)
    shape = (len(units), setting.images, setting.k)
    tables = []
    for read in usual:
        column = {"signed": "response", "passed on": "passed"}[read]
        found = {kind: as_array(inputs, "hosts", kind, shape, column) for kind in kinds}
        spread = usual[read][:, units].std(axis=0, ddof=1)
        tables.append(_effects(found, spread, units, read))
    return pd.concat(tables, ignore_index=True)


def _effects(found: dict, spread, units, read: str) -> pd.DataFrame:
    """Rows of one reading, from [unit, host, patch] responses to each kind of patch."""
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.where(spread > 0, 1 / spread, np.nan)[:, None, None]
    drops = {
        "random patch": (found["random"] - found["lowest"]) * scale,
        "mean colour": (found["mean colour"] - found["lowest"]) * scale,
    }
    rows = []
    for control in CONTROLS:
        result = crossed_t_interval(drops[control])
        columns = {"unit": units, "reading": read, "control": control}
        columns |= {"value": result.value, "low": result.low, "high": result.high}
        columns |= {"error": result.standard_error, "df": result.df, "sd": spread}
        columns["images"] = (~np.isnan(drops[control])).any(axis=2).sum(axis=1)
        rows.append(pd.DataFrame(columns).assign(patches=drops[control].shape[2]))
    return pd.concat(rows, ignore_index=True)


def _check(book: PatchBook, hosts: range, setting: InsertionConfig) -> None:
    require_at_least(
        "k", setting.k, FEWEST_PATCHES, "with fewer patches of a unit an interval does not keep its level"
    )
    if book.per_image != 1:
        remedy = "Mine with per_image=1: eight windows of one object are one observation."
        raise InputError("per_image", "patches of a unit may come from one image", remedy)
    mined = {index for start, stop in book.covered for index in range(start, stop)}
    if mined & set(hosts):
        problem = f"{len(mined & set(hosts))} hosts were mined"
        raise InputError("hosts", problem, "What is chosen must not be measured.")
    if len(hosts) < setting.images:
        raise InputError(
            "images", f"{setting.images} asked for, there are {len(hosts)} hosts", "Ask for fewer."
        )
