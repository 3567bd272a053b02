"""Figures of signed attribution maps, and the absence matrix."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.colors import Normalize
from matplotlib.patches import Patch, Rectangle
from scipy.ndimage import gaussian_filter

from .base import SIGNED, bare, companion_style, show_image, to_numpy


def smoothed(maps, smooth: float) -> np.ndarray:
    """Maps [..., height, width] under a Gaussian with sd `smooth` (a share of the longer side), for looking
    at.

    The sum is kept. Attributions of single pixels alternate in sign; what remains is the net evidence around
    a pixel.
    """
    maps = to_numpy(maps).astype(float)
    sd = smooth * max(maps.shape[-2:])
    return gaussian_filter(maps, (*[0] * (maps.ndim - 2), sd, sd))


def robust_limit(maps) -> float:
    """The magnitude that 99.5 % of the values stay below: a few pixels can't stretch the colour scale."""
    return float(np.quantile(np.abs(maps), 0.995)) or 1.0


def signed_overlay(ax, pixels, values, limit: float):
    """Signed map [height, width] over a pale grey copy of its image [channel, height, width] in 0..1.

    Colour grows from transparent at 0 to full at +-limit, so that one sees what the evidence lies on.

    Returns:
        A mappable for the colour bar.
    """
    ax.imshow(overlay_colours(pixels, values, limit))
    bare(ax)
    return plt.cm.ScalarMappable(Normalize(-limit, limit), SIGNED)


def overlay_colours(pixels, values, limit: float) -> np.ndarray:
    """[height, width, RGB] in 0..1 of a signed map over a pale grey copy of its image, see `signed_overlay`."""
    pixels, values = to_numpy(pixels), np.clip(to_numpy(values) / limit, -1, 1)
    grey = 0.7 + 0.3 * pixels.mean(axis=0)[..., None]
    colours = plt.get_cmap(SIGNED)((np.sign(values) + 1) / 2 * 0.84 + 0.08)[..., :3]
    share = np.abs(values)[..., None] ** 0.8
    return grey * (1 - share) + colours * share


def target_against_non_target(rows: Sequence[tuple], method: str = "", smooth: float = 0.03):
    """For each unit its top target inputs with their maps, beside the non-target inputs with most absence
    evidence.

    Args:
        rows: (label, target maps, non-target maps, what split them) for each unit; the maps have `pixels`
            [input, channel, height, width] in 0..1, `signed` [input, height, width], `response` [input],
            `captions`.
        method: how the maps were made, for the title.
        smooth: see `smoothed`.

    Returns:
        The figure. One scale for each unit, printed at its colour bar.
    """
    widths = [max(1, *(len(row[side].pixels) for row in rows)) for side in (1, 2)]
    with companion_style():
        size = (0.9 + 1.22 * max(sum(widths), 5), 0.4 + 3.1 * len(rows))
        figure = plt.figure(figsize=size, layout="constrained")
        figure.suptitle(
            f"Signed maps ({method}): red raises the response, blue lowers it\n"
            f"(net evidence under a Gaussian of {smooth:.0%} of the image's edge)",
            fontsize=10,
        )
        for part, row in zip(figure.subfigures(len(rows), 1, squeeze=False)[:, 0], rows, strict=True):
            _unit_block(part, widths, smooth, *row)
    return figure


def _unit_block(figure, widths, smooth, label, targets, others, split) -> None:
    sides = (
        ("target inputs,\nhighest response", targets),
        ("non-target inputs,\nmost absence evidence", others),
    )
    maps = [smoothed(side.signed, smooth) for _, side in sides]
    limit = robust_limit(np.concatenate(maps))
    how = "by class" if split.startswith("class") else f"by {split}"
    figure.suptitle(f"{label} (target inputs {how})", fontsize=10, fontweight="bold")
    *blocks, scale_block = figure.subfigures(1, 3, width_ratios=(*widths, 0.75), wspace=0.02)
    for block, width, (name, side), signed in zip(blocks, widths, sides, maps, strict=True):
        block.suptitle(name, fontsize=9)
        axes = block.subplots(2, width, squeeze=False)
        for column, (image_axis, map_axis) in enumerate(axes.T):
            if column >= len(side.pixels):
                image_axis.axis("off"), map_axis.axis("off")
                continue
            show_image(
                image_axis, side.pixels[column], "\n".join(textwrap.wrap(side.captions[column], 19)[:3])
            )
            image_axis.title.set_fontsize(7)
            scale = signed_overlay(map_axis, side.pixels[column], signed[column], limit)
            map_axis.set_xlabel(f"response {float(side.response[column]):.3g}", fontsize=7)
    bar = figure.colorbar(scale, cax=scale_block.add_axes((0.1, 0.1, 0.15, 0.5)), ticks=[-limit, 0, limit])
    bar.ax.set_yticklabels([f"{-limit:.2g}", "0", f"{limit:.2g}"], fontsize=7)
    bar.set_label("evidence a pixel", fontsize=7)


def methods_compared(sides: Sequence[tuple], smooth: float = 0.03):
    """The same inputs under several methods, each with its completeness gap.

    Args:
        sides: (title of the input, {method: maps}), maps as for `target_against_non_target`; their first
        input is drawn.
        smooth: see `smoothed`.

    Returns:
        The figure. Every map has its own symmetric scale, given below it, since smooth and sharp maps of
        equal sum differ in height.
    """
    methods = list(sides[0][1])
    with companion_style():
        figure, axes = plt.subplots(
            len(sides),
            len(methods) + 1,
            figsize=(10, 2.1 * len(sides) + 0.5),
            squeeze=False,
            layout="constrained",
        )
        figure.suptitle(
            "The same input under every method: red raises the response, blue lowers it", fontsize=10
        )
        for row, (title, by_method) in zip(axes, sides, strict=True):
            first = by_method[methods[0]]
            show_image(row[0], first.pixels[0], title)
            caption = "\n".join(textwrap.wrap(first.captions[0], 28)[:3])
            row[0].set_xlabel(f"{caption}\nresponse {float(first.response[0]):.3g}", fontsize=7)
            for ax, method in zip(row[1:], methods, strict=True):
                maps = by_method[method]
                signed = smoothed(maps.signed[0], smooth)
                limit = robust_limit(signed)
                signed_overlay(ax, maps.pixels[0], signed, limit)
                ax.set_title(method.replace("_", " ").replace(" ", "\n", 1), fontsize=8)
                ax.set_xlabel(
                    f"completeness gap {_percent(maps.gap[0])}\nscale \u00b1{limit:.2g} a pixel", fontsize=7
                )
    return figure


def _percent(share) -> str:
    share = float(share)
    if not np.isfinite(share):
        return "undefined"
    return "< 1 %" if abs(share) < 0.01 else f"{100 * share:+.0f} %"


def absence_heatmap(
    matrix: pd.DataFrame, outlined: Sequence[tuple[int, int]] = (), title: str = "", subject="class"
):
    """The absence matrix: rows units, columns classes of the input, in sd of each unit's response. Blue =
    absence.

    Args:
        matrix: as `screening.absence_matrix` returns it.
        outlined: (row, column) of cells where an absence was planted.
        subject: what the columns are, for the axis.

    Returns:
        The figure.
    """
    rows, columns = matrix.shape
    values = matrix.to_numpy(dtype=float)
    limit = np.abs(values).max() or 1.0
    with companion_style():
        figure, ax = plt.subplots(
            figsize=(
                max(6.0, 2.6 + 0.72 * columns if columns <= 8 else 3 + 0.42 * columns),
                2.3 + 0.42 * rows,
            ),
            layout="constrained",
        )
        sns.heatmap(
            matrix,
            ax=ax,
            cmap=f"{SIGNED[:-2]}" if values.min() < 0 else "Blues",
            vmin=-limit if values.min() < 0 else 0,
            vmax=limit,
            annot=columns <= 24,
            fmt=".2f" if limit < 10 else ".0f",
            annot_kws={"size": 8},
            linewidths=0.5,
            cbar_kws={"label": "absence evidence\n(sd of the unit's response)"},
        )
        for row, column in outlined:
            ax.add_patch(
                Rectangle((column, row), 1, 1, fill=False, edgecolor="black", linewidth=2.5, clip_on=False)
            )
        if outlined:
            planted = Patch(fill=False, edgecolor="black", linewidth=2.5, label="planted absence")
            ax.legend(handles=[planted], loc="lower left", bbox_to_anchor=(0, 1.0), frameon=False)
        ax.set_title(title, loc="right" if outlined else "center")
        ax.set_xlabel(f"{subject} of the input")
        ax.set_ylabel("unit")
        ax.tick_params(axis="y", rotation=0)
        ax.tick_params(axis="x", rotation=0 if columns <= 8 else 60)
        if columns > 8:
            plt.setp(ax.get_xticklabels(), ha="right", rotation_mode="anchor")
    return figure
