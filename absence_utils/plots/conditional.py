"""Figure of conditional minima: surrounds with and without the driver, and what each does to the unit."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt

from .base import (
    ABSENCE,
    NEUTRAL,
    PRESENCE,
    WIDTH,
    companion_style,
    interval_points,
    name_rows,
    show_image,
    signed_number,
)

ROWS = ("image", "surround of\nthe minimum", "... of\nthe maximum")  # of the lower axes, from the top


def conditional_pairs(pairs, names: Sequence[str] | None = None, title: str = ""):
    """A row for each unit: a held-out image, its driver in the surround of the minimum and of the maximum, and the same
    without the driver; beside them the change by each surround with and without the driver.

    Args:
        pairs: `ConditionalPair`s.
        names: of the units; their addresses by default.
        title: of the figure, for example network and layer.

    Returns:
        The figure. `visualization.conditional_table` has the numbers.
    """
    from absence_utils.visualization.conditional import conditional_table

    names = names or [pair.unit.name for pair in pairs]
    return names
