"""Target and non-target maps of several units, as arrays to draw and as tables."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from absence_utils.display import one_line
from absence_utils.errors import InputError
from absence_utils.units import Unit

from .columns import Columns
from .evidence import region_sums
from .methods import attribute


@dataclass(frozen=True, eq=False)
class Maps:
    """Chosen inputs of one unit with their maps.

    Attributes:
        position: [input] place in the dataset.
        pixels: [input, channel, height, width] in 0..1.
        signed: [input, height, width] attribution summed over channels, in the units of the layer.
        response: [input] of the unit.
        gap: [input] completeness gap, relative to the change of the response, see `completeness.relative_gap`.
        captions: what each input shows.
    """

    position: Tensor
    pixels: Tensor
    signed: Tensor
    response: Tensor
    gap: Tensor
    captions: list[str]

    __repr__ = one_line


def draw_maps(
    unit: Unit,
    dataset,
    positions: Tensor,
    columns: Columns,
    method="integrated_gradients",
    *,
    baseline="zero",
    steps: int | str | None = None,
    **options,
) -> Maps:
    """Maps of a few inputs; `columns` names what they show.

    Args:
        unit: whose response is explained.
        dataset: an image dataset.
        positions: [input] places in the dataset.
        columns: of `matrix_columns(dataset)`.
        method, baseline, options: as for `attribute`.
        steps: of integrated gradients, see `attribute`; no other method takes steps, and none uses these.

    Raises:
        InputError: no input.
    """
    if not len(positions):
        problem = f"no input of {unit.name} is of the kind whose maps are asked for"
        raise InputError("images", problem, "Give more images, or a unit with target and non-target inputs.")
    if steps is not None and method == "integrated_gradients":
        options["steps"] = steps
    images = torch.stack([dataset[int(place)][0] for place in positions])
    attribution, gap = attribute(unit, images, method, baseline=baseline, return_gap=True, **options)
    with torch.no_grad():
        response = unit.response(images).cpu()
    shown = [
        [name for name, present in zip(columns.names, columns.membership[place], strict=True) if present]
        for place in positions
    ]
    captions = [", ".join(names) or "none" for names in shown]
    return Maps(
        positions, dataset.normalisation.undo(images), attribution.sum(dim=1), response, gap, captions
    )


def maps_table(label: str, kind: str, maps: Maps) -> pd.DataFrame:
    """The numbers of drawn maps: one row an input."""
    totals = region_sums(maps.signed[:, None])
    return pd.DataFrame(
        {
            "unit": label,
            "input": kind,
            "position": maps.position.tolist(),
            "shows": maps.captions,
            "response": maps.response.tolist(),
            "absence evidence": totals.clamp(max=0).neg().sum(dim=(1, 2)).tolist(),
            "presence evidence": totals.clamp(min=0).sum(dim=(1, 2)).tolist(),
            "relative completeness gap": maps.gap.tolist(),
        }
    )
