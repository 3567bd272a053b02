"""Example images of an insertion study: typical ones, and not the most striking."""

from __future__ import annotations

import pandas as pd
import torch

from absence_utils.errors import InputError
from absence_utils.images.cache import stack_images

from .execution import UNMODIFIED, input_images
from .paste import paste_corners
from .protocols import ControlledResult, InsertionStudy

EXAMPLES = (
    "top: untouched",
    "top: lowest",
    "top: random",
    "top: mean colour",
    "top: highest",
    "neutral: lowest",
)


def typical_pairs(fair: ControlledResult, units: list[int]) -> dict[int, pd.DataFrame]:
    """For each unit the image and patch whose drop is the median one, under every condition that shares them.

    Returns:
        unit to rows of `fair.inputs` (first draws) indexed by "group: condition"; those of neutral images have the
        same patch, place and rank, on another image.
    """
    pairs = {}
    for unit in units:
        own = fair.inputs[(fair.inputs["unit"] == unit) & (fair.inputs["draw"] == 0)]
        if own.empty:
            problem = f"unit {unit} was not studied"
            raise InputError("units", problem, f"Use some of {fair.units.unit.tolist()}.")
        top = own[own["group"] == "top"].pivot_table(
            index=["row", "column"], columns="condition", values="response", observed=True
        )
        drop = (top["random"] - top["lowest"]).sort_values(kind="stable")
        row, column = drop.index[(len(drop) - 1) // 2]
        own = own[own["column"] == column]
        neutral = own[own["group"] == "neutral"]["row"]
        same = (
            row if row in neutral.to_numpy() else neutral.min()
        )  # a unit may have fewer neutral images than top ones
        rows = own["group"].map({"top": row, "neutral": same, "blank": 0}).astype(float)
        here = own[own["row"] == rows]
        names = here["group"].astype(str) + ": " + here["condition"].astype(str)
        pairs[unit] = here.set_index(names)
    return pairs


def example_pictures(
    study: InsertionStudy, dataset, units: list[int], feather: int = 6
) -> tuple[dict, pd.DataFrame]:
    """A typical image of each unit with each kind of patch in it, for `plots.insertion.insertion_examples`.

    Returns:
        (pictures, table): unit to {condition: [channel, height, width] in 0..1}; a row for each picture with unit,
        condition, response (sd from the unit's mean), top, left and side (px of the patch; 0 where there is none).
    """
    stack, fair = stack_images(dataset), study.fair
    about = fair.units.set_index("unit")
    pictures, rows = {}, []
    for unit, pair in typical_pairs(fair, units).items():
        shown = pair.reindex([name for name in EXAMPLES if name in pair.index])
        keys = shown[["image", "patch", "place", "feathered"]].astype(int)
        images = input_images(stack, fair.bank, keys, feather)
        if stack.normalisation:
            images = stack.normalisation.undo(images)
        pictures[unit] = dict(zip(shown.index, images, strict=True))
        corners = paste_corners(images, (fair.bank.side,) * 2, torch.tensor(keys.place.tolist())).tolist()
        for (name, row), (top, left) in zip(shown.iterrows(), corners, strict=True):
            response = (row.response - about["mean"][unit]) / about["sd"][unit]
            rows.append((unit, name, response, top, left, fair.bank.side * (row.patch != UNMODIFIED)))
    return pictures, pd.DataFrame(rows, columns=["unit", "condition", "response", "top", "left", "side"])
