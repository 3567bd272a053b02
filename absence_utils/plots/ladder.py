"""Figure of a ladder: an image in levels until a unit is off."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from .base import (
    BRIGHTNESS,
    NEUTRAL,
    WIDTH,
    companion_style,
    drawn_once,
    show_image,
    signed_limit,
    signed_map,
    signed_number,
    to_numpy,
)


def ladder_strip(ladder, name: str = ""):
    """The levels of a ladder side by side, what has changed so far, and the response against its size.

    Args:
        ladder: a `Ladder`.
        name: of the unit; its address by default.

    Returns:
        The figure. The change is the mean over colour channels, one scale for all: orange is
        brighter, purple is darker. The line joins the levels in their order.
    """
    images = to_numpy(ladder.image)
    changes = (images - images[0]).mean(axis=1)
    limit = float(np.quantile(np.abs(changes[-1]), 0.995)) or signed_limit(changes)
    count, (height, width) = len(images), images.shape[-2:]
    edge = (WIDTH - 0.6) / count * height / width  # of a picture, inches
    with companion_style():
        fig = plt.figure(figsize=(WIDTH, 2 * edge + 2.9))
        grid = fig.add_gridspec(3, count, height_ratios=[edge, edge, 1.5])
        for level, (image, change) in enumerate(zip(images, changes, strict=True)):
            above, below = (fig.add_subplot(grid[row, level]) for row in (0, 1))
            show_image(above, image)
            above.set_title(signed_number(float(ladder.response[level])))
            signed_map(below, change, limit, BRIGHTNESS)
            below.set_xlabel(f"{float(ladder.size[level]):.1%}")
            if level == 0:
                above.set_ylabel("image")
                below.set_ylabel("change")
        curve = fig.add_subplot(grid[2, :])
        size, response = 100 * to_numpy(ladder.size), to_numpy(ladder.response)
        curve.plot(size, response, "o-", color="black", markersize=4, linewidth=1)
        curve.axhline(float(ladder.target[-1]), color="black", linewidth=0.8, linestyle=":")
        curve.axhline(0, color=NEUTRAL, linewidth=0.5)
        curve.set(xlabel="mean |change| (% of the pixel range)", ylabel="response\n(units of the layer)")
        fig.suptitle(f"{name or ladder.unit.name}, switched off in {count - 1} steps (dotted: the target)")
    return drawn_once(fig)


def ladder_numbers(ladder) -> pd.DataFrame:
    """What `ladder_strip` draws but for the pixels: columns unit, level, target, response, size."""
    values = {name: to_numpy(getattr(ladder, name)) for name in ("target", "response", "size")}
    return pd.DataFrame({"unit": ladder.unit.name, "level": range(len(ladder.image)), **values})
