"""The absence matrix: which inputs suppress which unit, with the planted truth where there is one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from absence_utils.errors import require_shape
from absence_utils.units import Unit

from .columns import Columns
from .screening import Screening, TargetSplit


def absence_matrix(screening: Screening, membership: Tensor, names: Sequence[str], *, contrast: bool = False):
    """Mean absence evidence by unit and class of the input, in standard deviations of the unit's response.

    Dividing each row by the unit's standard deviation over the whole dataset makes rows comparable, whatever
    the scale of the layer: 1 means that an average input of the class carries evidence worth one standard
    deviation of the response.

    Args:
        screening: units over a dataset.
        membership: [image, class] bool; the dataset's own, or any other truth about its images (single
        concepts).
        names: one for each class.
        contrast: subtract the mean over the inputs outside the class. For classes that overlap (concepts,
            which share images), where every image carries the evidence of all it shows.

    Returns:
        pandas.DataFrame: rows units, columns the classes that have an input.

    Raises:
        InputError: membership does not fit the screening or the names.
    """
    membership = torch.as_tensor(membership).bool()
    require_shape("membership", membership, len(screening.response), len(names))
    sd = screening.response.double().std(dim=0)
    evidence = torch.where(sd > 0, screening.absence.double() / sd, 0.0)  # a unit that never changes has none
    inside = _group_mean(evidence, membership)
    if contrast:
        inside = inside - _group_mean(evidence, ~membership)
    table = pd.DataFrame(inside.T.numpy(), index=screening.units, columns=list(names))
    return table.loc[:, membership.any(dim=0).numpy()]


def _group_mean(values: Tensor, membership: Tensor) -> Tensor:
    """Mean of values [image, unit] over the members of each class: [class, unit]."""
    share = membership.double() / membership.sum(dim=0, keepdim=True).clamp(min=1)
    return share.T @ values


def planted_cells(
    matrix: pd.DataFrame, units: Sequence[Unit], columns: Columns, outputs: int
) -> list[tuple[int, int]]:
    """(row, column) of the matrix where an absence was planted; empty where the truth is not known.

    It is not for hidden units, nor for a network with another number of outputs than there are rules.
    """
    if columns.planted is None or outputs != len(columns.planted):
        return []
    return [
        (row, matrix.columns.get_loc(columns.names[column]))
        for row, unit in enumerate(units)
        if unit.is_output
        for column in columns.planted[unit.channel].nonzero().flatten().tolist()
        if columns.names[column] in matrix
    ]


def absence_share(screening: Screening, splits: Sequence[TargetSplit]) -> pd.DataFrame:
    """Absence evidence as a share (0 to 1) of all evidence, on target and non-target inputs, by unit."""
    share = screening.absence / (screening.absence + screening.presence).clamp(min=1e-30)
    return pd.DataFrame(
        {
            "target": [float(share[split.target, k].mean()) for k, split in enumerate(splits)],
            "non-target": [float(share[~split.target, k].mean()) for k, split in enumerate(splits)],
            "split": [split.by for split in splits],
        },
        index=screening.units,
    )


def planted_verdict(matrix: pd.DataFrame, cells: Sequence[tuple[int, int]]) -> str:
    """In words: how far the planted cells of an absence matrix stand out, or its largest entry."""
    values = matrix.to_numpy(dtype=float)
    if np.isnan(values).all():
        return "No column has inputs of both kinds: give more images, or a unit whose inputs differ."
    if not cells:
        row, column = np.unravel_index(np.nanargmax(values), values.shape)
        where = f"{matrix.index[row]} on {matrix.columns[column]}"
        return f"No planted truth is known here; the largest entry is {values[row, column]:.2f} sd ({where})."
    planted = np.zeros(values.shape, dtype=bool)
    planted[tuple(np.transpose(cells))] = True
    leading = sum(column == np.nanargmax(values[row]) for row, column in cells)
    return (
        f"{leading} of {len(cells)} planted absences lead their row. The weakest of them carries "
        f"{values[planted].min():.2f} sd, the strongest entry where none was planted "
        f"{np.nanmax(values[~planted]):.2f} sd."
    )
