"""Plain pictures of the exercises: frame pairs, rows of images and signed maps, accounts of predictions."""

from __future__ import annotations

import re

import matplotlib.pyplot as plt
import numpy as np

from absence_utils.plots.base import (
    ABSENCE,
    NEUTRAL,
    PRESENCE,
    companion_style,
    show_image,
    signed_limit,
    signed_map,
    to_numpy,
)


def frame_pairs(pairs, titles, *, signed: bool = False):
    """Frame pairs beside each other, the first frame above the second.

    Args:
        pairs: [n, frame=2, height, width]: pixels in 0..1, or attributions with `signed`, all on one scale.
        titles: [n].

    Returns:
        Figure.
    """
    pairs = to_numpy(pairs)
    limit = signed_limit(pairs)
    with companion_style():
        fig, grid = plt.subplots(
            2, len(pairs), figsize=(max(1.5 * len(pairs), 3), 3.2), squeeze=False
        )
        for axes, pair, title in zip(grid.T, pairs, titles, strict=True):
            for ax, frame in zip(axes, pair, strict=True):
                image = (
                    signed_map(ax, frame, limit)
                    if signed
                    else show_image(ax, frame[None])
                )
                _frame(ax)
            axes[0].set_title(_with_minus(title))
        for row, ax in enumerate(grid[:, 0]):
            ax.set_ylabel(f"frame {row + 1}")
        if signed:
            _scale(fig, image, grid)
    return fig


def image_rows(rows, titles):
    """Rows of images, the name of a row on its left.

    Args:
        rows: name -> images [n, channel, height, width] in 0..1, equally many in each row.
        titles: [row][n].

    Returns:
        Figure.
    """
    count = max(len(images) for images in rows.values())
    with companion_style():
        edge = min(2.0, 9 / count)  # inches
        fig, grid = plt.subplots(
            len(rows),
            count,
            figsize=(edge * count, (edge + 0.2) * len(rows)),
            squeeze=False,
        )
        for axes, (name, images), row in zip(grid, rows.items(), titles, strict=True):
            for ax, image, title in zip(axes, images, row, strict=True):
                show_image(ax, image, title)
                _frame(ax)
            axes[0].set_ylabel(name)
    return fig


def image_row(pictures, *, limit: float | None = None):
    """Images and signed maps in one row; the maps share one scale.

    Args:
        pictures: list of (values, title); values [channel, height, width] in 0..1 are an image, [height, width] a
            signed map.
        limit: value of the maps at full colour; their largest magnitude by default.

    Returns:
        Figure.
    """
    maps = [values for values, _ in pictures if np.ndim(to_numpy(values)) == 2]
    limit = limit or signed_limit(*maps) if maps else None
    with companion_style():
        edge = min(2.0, 9 / len(pictures))  # inches
        size = (max(edge * len(pictures), 3), edge + (0.8 if maps else 0.4))
        fig, grid = plt.subplots(1, len(pictures), figsize=size, squeeze=False)
        shown = None
        for ax, (values, title) in zip(grid[0], pictures, strict=True):
            if np.ndim(to_numpy(values)) == 2:
                shown = signed_map(ax, values, limit)
                ax.set_title(_with_minus(title))
            else:
                show_image(ax, values, _with_minus(title))
            _frame(ax)
        if shown is not None:
            _scale(fig, shown, grid)
    return fig


def account_bars(table):
    """One panel for each prediction: baseline, plus presence evidence, minus absence evidence, is the response.

    Every bar starts at 0 and carries its number, so that none hides another and a bar of 0 is seen as well.

    Args:
        table: columns case, baseline_response, presence, absence (>= 0, drawn to the left), response, verdict.

    Returns:
        Figure.
    """
    names = ("baseline", "+ presence evidence", "− absence evidence", "= response")
    with companion_style():
        fig, grid = plt.subplots(
            1,
            len(table),
            figsize=(2 + 1.6 * len(table), 2.1),
            sharex=True,
            sharey=True,
            squeeze=False,
        )
        for ax, row in zip(grid[0], table.itertuples(), strict=True):
            values = (row.baseline_response, row.presence, -row.absence, row.response)
            values = [0.0 if abs(value) < 5e-4 else value for value in values]  # no -0
            bars = ax.barh(
                names, values, 0.7, color=("#bdbdbd", PRESENCE, ABSENCE, "black")
            )
            ax.bar_label(
                bars,
                [f"{value:g}".replace("-", "−") for value in np.round(values, 2)],
                padding=3,
                fontsize=8,
            )
            ax.axvline(0, color=NEUTRAL, linewidth=0.8)
            ax.set_title("\n".join((*row.case.split(", ", 1), row.verdict)))
            ax.tick_params(axis="y", length=0)
        grid[0, 0].invert_yaxis()
        grid[0, 0].margins(x=0.3)  # room for the numbers
        fig.supxlabel("units of the layer, against a black baseline", fontsize=9)
    return fig


def _scale(fig, image, grid) -> None:
    bar = fig.colorbar(
        image,
        ax=grid.ravel().tolist(),
        location="bottom",
        shrink=0.7,
        aspect=40,
        pad=0.05,
    )
    bar.set_label("blue: negative, red: positive")


def _with_minus(title: str) -> str:
    """The title with a true minus before numbers, where code that formats one writes a hyphen."""
    return re.sub(r"(?<!\w)-(?=\d)", "−", title)


def _frame(ax) -> None:
    ax.spines[:].set_visible(True)
    ax.spines[:].set_color("0.6")
