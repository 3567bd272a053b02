"""Which patch goes into which image, where: the plan of an insertion experiment, and its responses as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from absence_utils.errors import InputError, require_at_least, require_choice

from .paste import CORNERS, LOCATIONS

PAIRS = ("all", "one", "one_random")
PLACES = ("corners", "centre")
NO_IMAGE = -9  # in place of an image that a unit does not have


@dataclass(frozen=True)
class InsertionConfig:
    """What the protocols share.

    Attributes:
        patch, stride: edge and step of the windows that are mined, px (release: 48 and 16).
        k: patches of each kind (release: 8).
        images: of each unit and group (release: 100).
        pairs: "all" pastes every patch into every image. "one" pastes patch i mod k into image i: a k-th of the cost,
            and still an exact interval, since then the patches' means have no image in common. "one_random" pastes one
            patch drawn at random, anew for each condition: the published design, for the published protocol alone.
        pool: see `units.responses`.
        seed: of random patches, corners and images.
        place: "corners", or "centre" for units that see the middle of an image alone, as neurons of a digital twin do.

    Raises:
        InputError: settings that make no sense together.
    """

    patch: int = 48
    stride: int = 16
    k: int = 8
    images: int = 100
    pairs: str = "all"
    pool: str = "mean"
    seed: int = 0
    place: str = "corners"

    def __str__(self) -> str:
        each = "every patch in every image" if self.pairs == "all" else "one patch in each image"
        where = "" if self.place == "corners" else f", at the {self.place}"
        counts = f"{self.k} patches of {self.patch} px at each end, up to {self.images} images of each group"
        return f"{counts}, {each}{where}"

    def __post_init__(self):
        require_choice("pairs", self.pairs, PAIRS)
        require_choice("place", self.place, PLACES)
        require_at_least("k", self.k, 2, "an interval is made of the patches' scatter")
        least = 2 * self.k if self.pairs == "one" else 2
        require_at_least(
            "images", self.images, least, f"so many for {self.k} patches and pairs={self.pairs!r}"
        )

    @property
    def pairing(self) -> np.ndarray:
        """[image, patch] bool: which patch goes into which image; "one_random" has none, see `published`."""
        if self.pairs == "all":
            return np.ones((self.images, self.k), bool)
        return np.arange(self.images)[:, None] % self.k == np.arange(self.k)

    @property
    def corners(self) -> np.ndarray:
        """[patch] a place for each rank of a patch, drawn once and used for every condition, unit and image.

        Every corner serves as many patches as the others, and "the same place" holds for all comparisons. It also
        lets units share their random patches, which then run once for all of them.
        """
        if self.place == "centre":
            return np.full(self.k, LOCATIONS.index("centre"))
        order = np.arange(self.k) % CORNERS
        return self.generator(0).permutation(order)

    def generator(self, *purpose: int) -> np.random.Generator:
        """A generator of its own for each purpose (and unit), so that one draw more changes no other."""
        return np.random.default_rng([self.seed, *purpose])


@dataclass(frozen=True)
class Treatment:
    """One condition: which patches are pasted into the images of a group.

    Attributes:
        group: name of the images.
        condition: name of what is pasted.
        patches: [draw, unit or 1, patch] numbers in the bank, or `SELF_PATCH` or `UNMODIFIED`.
        places: [patch] places, or [image of the dataset, patch].
        feathered: soft edges.
        units: [unit] bool, those that get this treatment; all if None.
    """

    group: str
    condition: str
    patches: np.ndarray
    places: np.ndarray
    feathered: bool = False
    units: np.ndarray | None = None


def chosen_units(asked, count: int) -> np.ndarray:
    """Numbers of the units asked for, all `count` if None.

    Raises:
        InputError: a unit that does not exist, or one asked for twice.
    """
    units = np.arange(count) if asked is None else np.asarray(asked, dtype=int)
    beyond = [int(unit) for unit in units if not 0 <= unit < count]
    if beyond or not len(units):
        problem = f"there is no unit {beyond[0]}" if beyond else "none is given"
        raise InputError("units", problem, f"Choose from 0 to {count - 1}.")
    if len(np.unique(units)) < len(units):
        raise InputError("units", f"{units.tolist()} has a unit twice", "Give each unit once.")
    return units


def plan(
    groups: dict[str, np.ndarray], treatments: list[Treatment], units: np.ndarray, pairing: np.ndarray
) -> pd.DataFrame:
    """One row for each unit, treatment, draw, image and patch.

    Args:
        groups: name to [unit, image] numbers of images, `NO_IMAGE` where a unit has fewer.
        treatments: what is done to them.
        units: [unit] numbers of the units in their layer.
        pairing: [image, patch] bool, see `InsertionConfig.pairing`; a group of one image gets all patches.

    Returns:
        group, condition, draw, slot (of the unit in `units`), row (of the image in its group), column (of the patch),
        and unit, image, patch, place, feathered as `run_insertions` takes them.
    """
    parts = []
    for treatment in treatments:
        images = groups[treatment.group]
        pairs = np.ones((1, pairing.shape[1]), bool) if images.shape[1] == 1 else pairing[: images.shape[1]]
        asked = pairs & (images != NO_IMAGE)[..., None]
        if treatment.units is not None:
            asked = asked & treatment.units[:, None, None]
        slot, row, column = np.nonzero(asked)
        image = images[slot, row]
        place = treatment.places[column] if treatment.places.ndim == 1 else treatment.places[image, column]
        for draw, numbers in enumerate(treatment.patches):
            patch = np.broadcast_to(numbers, (len(units), pairing.shape[1]))[slot, column]
            columns = {"unit": units[slot], "image": image, "patch": patch, "place": place}
            parts.append(pd.DataFrame({"slot": slot, "row": row, "column": column, **columns}))
            names = {"group": treatment.group, "condition": treatment.condition, "draw": draw}
            parts[-1] = parts[-1].assign(feathered=treatment.feathered, **names)
    table = pd.concat(parts, ignore_index=True)
    return table.astype({"group": "category", "condition": "category"})


def as_array(
    results: pd.DataFrame, group: str, condition: str, shape: tuple[int, int, int], value: str = "response"
) -> np.ndarray:
    """[unit, image, patch] of a condition's responses, means over its draws; NaN where nothing was asked."""
    part = results[(results["group"] == group) & (results["condition"] == condition)]
    where = np.ravel_multi_index((part["slot"], part["row"], part["column"]), shape)
    size = int(np.prod(shape))
    total = np.bincount(where, weights=part[value].astype(float), minlength=size)
    with np.errstate(invalid="ignore"):
        return (total / np.bincount(where, minlength=size)).reshape(shape)
