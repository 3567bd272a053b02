"""Figures of notebook 01: the motion detector. Arrays and tables in, figures out."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from .base import (
    MARK,
    NEUTRAL,
    PRESENCE,
    WIDTH,
    companion_style,
    frame_axes,
    show_image,
    signed_limit,
    signed_map,
    to_numpy,
    zero_line,
)


def _outline(ax, mask, linewidth: float = 2) -> None:
    """A frame round the True pixels of a mask [height, width] that form a rectangle."""
    rows, columns = np.nonzero(to_numpy(mask))
    if len(rows):
        corner = (columns.min() - 0.5, rows.min() - 0.5)
        size = (np.ptp(columns) + 1, np.ptp(rows) + 1)
        ax.add_patch(Rectangle(corner, *size, fill=False, edgecolor=MARK, linewidth=linewidth, clip_on=False))


def motion_figure(rows, names):
    """Two frames side by side in every cell; one row for each kind of picture, one column for each unit.

    Args:
        rows: list of dicts with `label`, which ends in "map" for signed maps; `pixels` [unit, frame=2,
            height, width]; `leftward` bool, the same shape, True on the bar that moves right to left;
            `response` [unit].
        names: [unit] what each unit detects.

    Returns:
        Figure.
    """
    limit = signed_limit(*(row["pixels"] for row in rows if row["label"].endswith("map")))
    with companion_style():
        fig = plt.figure(figsize=(WIDTH, 10), layout="none")
        space = {"left": 0.05, "right": 0.98, "top": 0.93, "bottom": 0.11, "wspace": 0.08, "hspace": 0.4}
        grid = fig.subplots(len(rows), 5, width_ratios=[1, 1, 0.7, 1, 1], gridspec_kw=space)
        for axes, row in zip(grid, rows, strict=True):
            axes[2].axis("off")
            for unit in range(2):
                pair = axes[3 * unit : 3 * unit + 2]
                for frame, ax in enumerate(pair):
                    if row["label"].endswith("map"):
                        image = signed_map(ax, row["pixels"][unit][frame], limit)
                    else:
                        show_image(ax, row["pixels"][unit][frame][None])
                    frame_axes(ax)
                    _outline(ax, row["leftward"][unit][frame])
                    ax.set_xlabel(f"frame {frame + 1}", fontsize=7.5, labelpad=2)
                what = "sums to" if row["label"].endswith("map") else "response"
                pair[0].set_title(f"{row['label']}: {what} {float(row['response'][unit]):+.4f}", loc="left")
        for unit, name in enumerate(names):
            look = {"xycoords": "axes fraction", "fontsize": 10.5, "weight": "bold"}
            grid[0, 3 * unit].annotate(f"Unit {unit}: {name}", (0, 1.3), **look)
        _map_key(fig, image, (0.5, 0.068, 0.46, 0.01), (0.04, 0.05))
    return fig


def _map_key(fig, image, box, place) -> None:
    """Below the maps: the colour bar in `box` and the outline's meaning at `place`, both in shares of the figure."""
    bar = fig.colorbar(image, cax=fig.add_axes(box), orientation="horizontal")
    bar.ax.xaxis.set_major_locator(MaxNLocator(4))
    bar.set_label(
        "attribution of the pooled response, per pixel\nblue: absence evidence, red: presence evidence"
    )
    key = [Rectangle((0, 0), 1, 1, fill=False, edgecolor=MARK, linewidth=2)]
    fig.legend(key, ["the bar that moves right to left"], loc=place, frameon=False)


def pair_maps_figure(maps, leftward, names):
    """Signed maps of every frame pair: one row for each unit and view, the two frames of a pair side by side.

    Args:
        maps: view -> [unit, pair, frame=2, height, width], see `toys.pair_maps`.
        leftward: bool [sequence, pair, frame=2, height, width], True on the bar that moves right to left.
        names: [unit] what each unit detects.

    Returns:
        Figure.
    """
    rows = [(unit, view) for unit in range(len(names)) for view in maps]
    count = leftward.shape[1]
    limit = signed_limit(*maps.values())
    with companion_style():
        fig, grid = plt.subplots(
            len(rows), 3 * count - 1, figsize=(WIDTH, 1.5 * len(rows) + 0.9), layout="none",
            width_ratios=[*([1, 1, 0.25] * count)][:-1], squeeze=False,
        )  # fmt: skip
        fig.subplots_adjust(left=0.03, right=0.97, top=0.92, bottom=0.17, wspace=0.08, hspace=0.55)
        for axes, (unit, view) in zip(grid, rows, strict=True):
            sequence = unit if view == "target map" else 1 - unit
            for ax in axes[2::3]:
                ax.axis("off")
            for pair in range(count):
                for frame, ax in enumerate(axes[3 * pair : 3 * pair + 2]):
                    image = signed_map(ax, maps[view][unit, pair, frame], limit)
                    frame_axes(ax)
                    _outline(ax, leftward[sequence, pair, frame], linewidth=1)
                    ax.set_xlabel(f"frame {pair + frame + 1}", fontsize=7.5, labelpad=2)
            axes[0].set_title(f"Unit {unit} ({names[unit]}), {view}s", loc="left")
        _map_key(fig, image, (0.5, 0.095, 0.46, 0.015), (0.03, 0.06))
    return fig


def motion_position(fig, pairs, responses, steps, *, step) -> None:
    """Both frames above, the signed response of both units to every step below, this step marked.

    Args:
        fig: Figure or SubFigure.
        pairs: [step, frame=2, height, width].
        responses: [step, unit=2], signed.
        steps: [step] columns that the bar moves.
        step: the one that is drawn.
    """
    k, responses = list(steps).index(step), to_numpy(responses)
    grid = fig.add_gridspec(2, 2, height_ratios=[1, 1.3])
    for frame in range(2):
        ax = fig.add_subplot(grid[0, frame])
        show_image(ax, pairs[k][frame][None], f"frame {frame + 1}")
        ax.spines[:].set_visible(True)
    ax = fig.add_subplot(grid[1, :])
    for unit, (colour, marker) in enumerate(((PRESENCE, "o"), (NEUTRAL, "s"))):
        look = {"color": colour, "marker": marker}
        ax.plot(steps, responses[:, unit], markersize=3, lw=1, label=f"unit {unit}", **look)
        ax.plot(step, responses[k, unit], markersize=9, markeredgecolor=MARK, mew=2, **look)
    zero_line(ax)
    ax.set(xlabel="columns moved", ylabel="response, signed", xticks=list(steps))
    ax.margins(y=0.1)  # for the marks at the ends
    signed_step = f"{step:+d}" if step else "0"
    units = ", ".join(f"unit {unit} {value:+.4f}" for unit, value in enumerate(responses[k]))
    ax.set_title(f"step {signed_step}\n{units}", fontsize=7.5)
    ax.legend(frameon=False, loc="lower right", fontsize=7.5)
