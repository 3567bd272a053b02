"""What answer cells print at their end: the finding as it looks before a check says anything about it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import stats

from absence_utils.plots.base import to_numpy


def print_numbers(**values) -> None:
    """Print numbers with their names, in one line; a dict gives one for each key, a placeholder none."""
    found = {}
    for name, value in values.items():
        found |= value if isinstance(value, Mapping) else {name: value}
    parts = [f"{name} = {_short(value)}" for name, value in found.items() if value is not ...]
    if parts:
        print(", ".join(parts))


def _short(value) -> str:
    array = np.asarray(to_numpy(value))
    if array.size != 1 or array.dtype.kind not in "iuf":
        return str(value)
    number = array.item()
    return str(number) if array.dtype.kind in "iu" else f"{round(number, 3) + 0.0:g}"  # no -0


def print_t_test(drops) -> None:
    """Print the mean of drops in sd, of any shape, with a t-test that takes every number as an input of its own."""
    drops = np.asarray(to_numpy(drops), dtype=float)
    p = stats.ttest_1samp(drops.ravel(), 0).pvalue
    print(f"mean drop {drops.mean():+.2f} sd over {drops.size} inputs, t-test p = {p:.0e}")
