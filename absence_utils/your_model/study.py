"""What can be said of the units of a layer of any network: is there an absence, how sure is that, and in what context?

Patches are mined in a third of the images and pasted into the others (`insertion.hosts.host_effects`), on the network
and, through the same code, on copies of it with random weights. `insertion.decisions.decide` says what follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from absence_utils.display import one_line
from absence_utils.errors import InputError
from absence_utils.images.cache import ImageStack, stack_images
from absence_utils.images.subsets import shuffle_images
from absence_utils.insertion.context import context_effects
from absence_utils.insertion.decisions import (
    CANNOT_TELL,
    DECISIONS,
    ENCODES,
    NONE,
    decide,
    sizes_that_count,
)
from absence_utils.insertion.design import InsertionConfig, chosen_units
from absence_utils.insertion.hosts import (
    FEWEST_PATCHES,
    both_readings,
    host_effects,
    host_range,
    layer_effects,
)
from absence_utils.insertion.protocols import mine_splits
from absence_utils.patches.book import PatchBook
from absence_utils.patches.shape import beside_copies, blank_response, response_shape

CHECKED = 8  # images with which a network is checked, and copies of it are calibrated
CONTEXTS = (
    16  # units asked for their context where a part of a layer is studied: the strongest, and those asked for
)
FEWEST_IMAGES = (
    6 * FEWEST_PATCHES
)  # a third is mined, and gives each patch of a unit from an image of its own


@dataclass(eq=False)
class LayerStudy:
    """A layer's units and what was decided on them, beside copies with random weights.

    Attributes:
        model, layer, setting: what was studied, and how.
        images: the images in random order; `book` numbers them so.
        responses: [image, unit] to untouched images, signed, all units of the layer, in the units of the layer.
        book: extreme patches of all images, one of an image for each unit; `mined`: those of the first third.
        effects: `hosts.host_effects` of the units studied.
        null: the same of the random copies, with a column copy.
        decisions: a row for each unit studied and reading, see `decisions.decide`.
        context: `context.context_effects` of some units.
        shape: `patches.shape.response_shape` of all units of the layer on untouched images, a row each, with
            their percentiles among the units of the random copies (`beside_copies`).
        copies: the shapes of all units of the random copies, with a column copy.
    """

    model: nn.Module
    layer: str | None
    setting: InsertionConfig
    images: ImageStack
    responses: np.ndarray
    book: PatchBook
    mined: PatchBook
    effects: pd.DataFrame
    null: pd.DataFrame
    decisions: pd.DataFrame
    context: pd.DataFrame
    shape: pd.DataFrame
    copies: pd.DataFrame

    __repr__ = one_line

    @property
    def units(self) -> list[int]:
        """Channels that were studied."""
        return self.decisions["unit"].unique().tolist()

    @property
    def table(self) -> pd.DataFrame:
        """A row for each unit studied and reading: its decision and, where it was asked for, its context."""
        return self.decisions.merge(
            self.context, on=["unit", "reading"], how="left", suffixes=("", "_context")
        )

    def decision(self, unit: int, reading: str = "signed") -> pd.Series:
        """The row of `decisions` of a unit in one reading."""
        rows = self.decisions
        return rows[(rows["unit"] == unit) & (rows["reading"] == reading)].iloc[0]


def auto_config(
    count: int,
    edge: int,
    patch: int = 0,
    stride: int = 0,
    *,
    k: int = 12,
    hosts: int = 192,
    seed: int = 0,
    place: str = "corners",
) -> InsertionConfig:
    """The asked numbers of patches and of images, lowered to what a folder of `count` images allows.

    Args:
        count: images there are; a third is mined, the rest are hosts.
        edge: px of their shorter side.
        patch, stride: px; 0 for a quarter of the edge, and for half a patch.
        k, hosts: most patches of each kind, and most images that patches are pasted into.
        seed, place: see `insertion.design.InsertionConfig`.

    Raises:
        InputError: too few images for six patches of each kind; says how many are needed.
    """
    patch = patch or max(2, edge // 4)
    stride = stride or max(1, patch // 2)
    if k < FEWEST_PATCHES or hosts < 2 * FEWEST_PATCHES:
        problem = f"{k} patches in {hosts} images are too few for an interval"
        remedy = f"Give k={FEWEST_PATCHES} and hosts={2 * FEWEST_PATCHES}, or more."
        raise InputError("k" if k < FEWEST_PATCHES else "hosts", problem, remedy)
    if count < FEWEST_IMAGES:
        problem = f"{count} images are too few for an interval"
        raise InputError("images", problem, f"Give {FEWEST_IMAGES} or more.")
    hosts = min(hosts, count - count // 3)
    k = min(k, count // 6, hosts // 2)
    return InsertionConfig(patch, stride, k, hosts - hosts % k, "one", seed=seed, place=place)


def study_layer(
    model: nn.Module,
    layer: str | None,
    dataset,
    setting: InsertionConfig,
    random_copies: Sequence[nn.Module] = (),
    *,
    units: Sequence[int] | None = None,
    most: int = 0,
    null_units: int = 64,
    redraws: int = 4,
    deltas: dict[str, float] | None = None,
) -> LayerStudy:
    """Decide on every unit of a layer: do its lowest patches suppress it, and by how much?

    Args:
        model, layer: see `units.feature_map`.
        dataset: an image dataset, see `images`; it is shuffled with the setting's seed.
        setting: of the insertion experiment, see `auto_config`.
        random_copies: the same network with random weights, several, because one draw of weights says little of
            another (`models.random_copy`); none for no percentiles.
        units: channels that must be studied; none in particular if None.
        most: study at most this many, those asked for and others evenly spread over the layer; 0 for the whole layer.
            A decision is corrected for all units studied, so a unit that is asked alone, perhaps since it looked best
            among many, gets the decision that it gets among many.
        null_units: units of the random copies, evenly spread, together.
        redraws: draws of the random patches.
        deltas: sizes that count; where it says nothing those of `decisions.sizes_that_count`.

    Raises:
        InputError: units that do not exist, too few images.
    """
    stack = stack_images(shuffle_images(dataset, setting.seed))
    hosts = host_range(stack)
    book, mined = mine_splits(model, layer, stack, setting, redraws, per_image=1)
    responses = both_readings(model, layer, stack, setting.pool)
    count = responses["signed"].shape[1]
    chosen = _spread(np.arange(count), most)
    if units is not None:
        chosen = np.union1d(chosen_units(units, count), chosen)
    how = {"redraws": redraws}
    effects = host_effects(model, layer, stack, mined, hosts, setting, responses, units=chosen, **how)
    each = max(1, -(-null_units // max(1, len(random_copies))))
    few = _spread(np.arange(count), each)
    nulls, copies = [], []
    for number, copy in enumerate(random_copies):
        found = layer_effects(copy, layer, stack, setting, units=few, **how)
        nulls.append(found.effects.assign(copy=number))
        copies.append(_shape(copy, layer, stack, setting, found.responses["signed"]).assign(copy=number))
    null = pd.concat(nulls, ignore_index=True) if nulls else effects.iloc[:0].assign(copy=0)
    sizes = sizes_that_count(setting.patch, *stack.take([0]).shape[2:])
    decisions = decide(effects, null, sizes | (deltas or {}))
    asked = sorted(
        {*(units if units is not None else ()), *strongest_units(decisions, CONTEXTS if most else count)}
    )
    context = context_effects(model, layer, stack, mined, hosts, setting, responses, asked)
    signed = responses["signed"]
    shape = _shape(model, layer, stack, setting, signed)
    shapes = pd.concat(copies, ignore_index=True) if copies else shape.iloc[:0].assign(copy=0)
    shape = shape.join(beside_copies(shape, copies))
    return LayerStudy(
        model, layer, setting, stack, signed, book, mined, effects, null, decisions, context, shape, shapes
    )  # fmt: skip


def _shape(model: nn.Module, layer: str | None, stack, setting: InsertionConfig, signed) -> pd.DataFrame:
    blank = blank_response(model, layer, stack.take([0])[0], setting.pool)
    return response_shape(signed, blank)


def _spread(units: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of the units, evenly spread over their order."""
    if not most or most >= len(units):
        return units
    return units[np.linspace(0, len(units) - 1, most).round().astype(int)]


def strongest_units(decisions: pd.DataFrame, count: int) -> list[int]:
    """Units worth a card: those that encode an absence in most readings first, then by signed effect, highest first."""
    found = (decisions["decision"] == ENCODES).groupby(decisions["unit"]).sum()
    signed = decisions[decisions["reading"] == "signed"].set_index("unit")["effect"]
    ranked = pd.DataFrame({"found": found, "effect": signed})
    ranked = ranked.sort_values(["found", "effect"], ascending=False, kind="stable")
    return ranked.index[:count].tolist()


def card_units(study: LayerStudy, unit: str, cards: int) -> list[int]:
    """Units that get a card, by a notebook's parameters: the `cards` strongest for "auto", every one for "all".

    Raises:
        InputError: as `parse_units`.
    """
    asked = parse_units(unit)
    if asked is not None:
        return asked
    return study.units if str(unit).strip() == "all" else strongest_units(study.decisions, cards)


def few_images(dataset, count: int = CHECKED) -> Tensor:
    """Some images of a dataset, evenly drawn over its order: [image, channel, height, width]."""
    numbers = torch.linspace(0, len(dataset) - 1, min(count, len(dataset))).long()
    return torch.stack([dataset[number][0] for number in numbers.tolist()])


def about_study(study: LayerStudy, dataset, name: str, preprocessing: str = "") -> dict[str, str]:
    """What was studied, in words, for the foot of a card: name of the network first."""
    about = {
        "network": name,
        "layer": study.layer or "output",
        "images": f"{len(dataset)}, {getattr(dataset, 'source', 'a dataset')}",
    }
    if preprocessing:
        about["preprocessing"] = preprocessing
    return about | {"insertion": str(study.setting)}


def summary(study: LayerStudy) -> str:
    """The decisions on a layer, a sentence for each reading."""
    parts = []
    for reading, rows in study.decisions.groupby("reading", sort=False):
        counts = rows["decision"].value_counts().reindex(DECISIONS, fill_value=0)
        delta = f"{rows['delta'].iloc[0]:g} sd"
        parts.append(
            f"{reading.capitalize()} (size that counts: {delta}): of {len(rows)} units {counts[ENCODES]} encode an "
            f"absence, {counts[NONE]} have none of that size, of {counts[CANNOT_TELL]} one cannot tell."
        )
    asked = study.context[study.context["reading"] == "signed"]
    if len(asked):
        parts.append(f"It depends on context in {int(asked['found'].sum())} of {len(asked)} units asked.")
    return " ".join(parts)


def parse_units(text: str) -> list[int] | None:
    """Channels of a notebook's parameter: "auto" and "all" are None, "3, 14" is [3, 14].

    Raises:
        InputError: anything else.
    """
    text = str(text).strip().strip("[]")
    if text in ("auto", "all"):
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            "unit", f"{text!r} is no channel", "Write a number, several as '3, 14', 'auto' or 'all'."
        ) from None
