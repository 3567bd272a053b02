"""Columns of the absence matrix: the groups of inputs, classes of a folder or concepts of the scenes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor


def top_columns(matrix: pd.DataFrame, columns: int = 24) -> pd.DataFrame:
    """The columns worth showing of a matrix that has many: for each unit in turn the classes with most
    absence evidence.

    Returns:
        The matrix itself if it has at most `columns` columns; otherwise that many, grouped by the unit they
        were chosen for.
    """
    if matrix.shape[1] <= columns:
        return matrix
    order = np.argsort(-matrix.to_numpy(), axis=1, kind="stable")
    per_unit = max(1, columns // len(matrix))
    chosen = dict.fromkeys(int(column) for row in order for column in row[:per_unit])
    return matrix.iloc[:, list(chosen)[:columns]]


@dataclass(frozen=True, eq=False)
class Columns:
    """Columns of an absence matrix.

    Attributes:
        membership: [image, column] bool.
        names: of the columns.
        overlap: an input can belong to several columns, so that the matrix should be a contrast.
        planted: [output, column] bool, True where an absence was planted; None where the truth is not known.
    """

    membership: Tensor
    names: list[str]
    overlap: bool
    planted: Tensor | None = None


def matrix_columns(dataset) -> Columns:
    """The concepts that the images show, with the planted truth, where the dataset knows them; else its classes."""
    presence = getattr(dataset, "presence", None)
    if presence is not None:
        return Columns(presence, list(dataset.concepts), True, dataset.planted)
    membership = torch.as_tensor(dataset.membership).bool()
    return Columns(
        membership, list(dataset.class_names), bool((np.count_nonzero(membership.cpu(), axis=1) > 1).any())
    )
