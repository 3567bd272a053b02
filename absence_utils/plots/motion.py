"""Figures of notebook 01: the motion detector. Arrays and tables in, figures out."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from .base import (
    MARK,
    WIDTH,
    companion_style,
    drawn_once,
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


def _four(value: float) -> str:
    """Four decimals with a sign that can be seen, "+0.0769"; what rounds to 0 is "0"."""
    return f"{value:+.4f}".replace("-", "−") if abs(value) >= 0.00005 else "0"


def show_motion(pairs, maps, responses):
    """Frame pairs and beside them their signed maps: red raises the response, blue lowers it. For looking at.

    Args:
        pairs: [pair, frame=2, height, width] in 0..1.
        maps: [pair, frame=2, height, width] signed, as `attribute` gives them; all on one scale.
        responses: [pair] of the unit, signed.

    Returns:
        The figure.

    Example:
        >>> from absence_utils import Unit, attribute
        >>> from absence_utils.plots.motion import show_motion
        >>> from absence_utils.toys import MotionDetector, moving_bars
        >>> bars, unit = moving_bars([1, -1]), Unit(MotionDetector(), channel=0)
        >>> figure = show_motion(bars, attribute(unit, bars), unit.response(bars))
        >>> len(figure.axes)  # two frames and two maps for each pair
        8
    """
    pairs, maps, limit = to_numpy(pairs), to_numpy(maps), signed_limit(maps)
    with companion_style():
        fig = plt.figure(figsize=(WIDTH, 0.4 + 1.95 * len(pairs)))
        fig.suptitle("Red raises the response, blue lowers it")
        parts = fig.subfigures(len(pairs), 1, squeeze=False)[:, 0]
        for part, frames, signed, response in zip(parts, pairs, maps, to_numpy(responses), strict=True):
            axes = part.subplots(1, 4)
            for k in range(2):
                show_image(axes[k], frames[k][None], f"frame {k + 1}")
                signed_map(axes[2 + k], signed[k], limit)
                axes[2 + k].set_title(f"map of frame {k + 1}")
            for ax in axes:
                frame_axes(ax)
            axes[0].set_ylabel(f"response {_four(float(response))}")
    return drawn_once(fig)


def motion_figure(rows, table, names):
    """Two frames side by side in every cell; one row for each kind of picture, two columns for each unit.

    Args:
        rows: list of dicts with `label`, which ends in "map" for signed maps; `pixels` [unit, frame=2,
            height, width]; `leftward` bool, the same shape, True on the bar that moves right to left;
            `response` [unit].
        table: of these rows, see `toys.bar_table`; its non-target map of unit 0 stands in the title.
        names: [unit] what each unit detects.

    Returns:
        Figure.
    """
    limit = signed_limit(*(row["pixels"] for row in rows if row["label"].endswith("map")))
    edge, label, gap, above, below = 1.42, 0.85, 0.12, 1.05, 0.75  # inches; `edge` of a frame
    height = above + len(rows) * (edge + 0.33) + below
    with companion_style():
        fig = plt.figure(figsize=(WIDTH, height), layout="none")
        for line, row in enumerate(rows):
            is_map = row["label"].endswith("map")
            top = height - above - line * (edge + 0.33)
            fig.text(0.01, (top - edge / 2) / height, row["label"].replace(" ", "\n"), va="center")
            for unit in range(2):
                start = label + unit * (2 * edge + gap + 0.62)
                for frame in range(2):
                    box = (start + frame * (edge + gap), top - edge, edge, edge)
                    ax = fig.add_axes([box[0] / WIDTH, box[1] / height, box[2] / WIDTH, box[3] / height])
                    if is_map:
                        image = signed_map(ax, row["pixels"][unit][frame], limit)
                    else:
                        show_image(ax, row["pixels"][unit][frame][None])
                    frame_axes(ax)
                    _outline(ax, row["leftward"][unit][frame])
                    if frame == 0:
                        what = "sums to" if is_map else "response"
                        ax.set_title(f"{what} {_four(float(row['response'][unit]))}", loc="left", pad=3)
                    elif line == 0:
                        ax.set_title("second frame", loc="right", pad=3)
                if line == 0:
                    where = start / WIDTH, (top + 0.26) / height
                    fig.text(*where, f"Unit {unit}: {names[unit]}", weight="bold")
        held, on_bar = table.loc[(0, "non-target map"), ["absence evidence", "of it on that bar"]]
        own = table.loc[(0, "target map"), "absence evidence"]
        title = (
            f"Unit 0 encodes the absence of motion to the left: {on_bar:.4f} of {held:.4f} absence evidence\n"
        )
        title += f"lies on that bar in the non-target map, and the target map holds {own:.4f}"
        fig.suptitle(title, x=0.01, y=1 - 0.1 / height, ha="left", weight="bold")
        _map_key(fig, image, (0.5, 0.62 / height, 0.46, 0.12 / height), (0.005, 0.4 / height))
    return fig


def _map_key(fig, image, box, place) -> None:
    """Below the maps: the colour bar in `box` and the outline's meaning at `place`, both in shares of the figure."""
    bar = fig.colorbar(image, cax=fig.add_axes(box), orientation="horizontal")
    bar.ax.xaxis.set_major_locator(MaxNLocator(4))
    bar.set_label("attribution per pixel (blue: absence, red: presence)")
    key = [Rectangle((0, 0), 1, 1, fill=False, edgecolor=MARK, linewidth=2)]
    fig.legend(
        key, ["the bar that moves right to left"], loc="lower left", bbox_to_anchor=place, frameon=False
    )


def pair_maps_figure(maps, table, leftward, names):
    """Signed maps of every frame pair: one row for each unit and view, the two frames of a pair side by side.

    Args:
        maps: view -> [unit, pair, frame=2, height, width], see `toys.pair_maps`.
        table: of these maps, see `toys.pair_table`; the title states its extremes.
        leftward: bool [sequence and pair, frame=2, height, width], True on the bar that moves right to left.
        names: [unit] what each unit detects.

    Returns:
        Figure.
    """
    rows = [(unit, view) for unit in range(len(names)) for view in maps]
    leftward = to_numpy(leftward).reshape(len(names), -1, *leftward.shape[1:])
    count = leftward.shape[1]
    limit = signed_limit(*maps.values())
    height = 1.2 * len(rows) + 1.6
    with companion_style():
        fig, grid = plt.subplots(
            len(rows), 3 * count - 1, figsize=(WIDTH, height), layout="none",
            width_ratios=[*([1, 1, 0.25] * count)][:-1], squeeze=False,
        )  # fmt: skip
        space = {"left": 0.01, "right": 0.99, "top": 1 - 0.75 / height, "bottom": 0.95 / height}
        fig.subplots_adjust(**space, wspace=0.08, hspace=0.35)
        for axes, (unit, view) in zip(grid, rows, strict=True):
            sequence = unit if view == "target map" else 1 - unit
            for ax in axes[2::3]:
                ax.axis("off")
            for pair in range(count):
                for frame, ax in enumerate(axes[3 * pair : 3 * pair + 2]):
                    image = signed_map(ax, maps[view][unit, pair, frame], limit)
                    frame_axes(ax)
                    _outline(ax, leftward[sequence, pair, frame], linewidth=1)
                    if (unit, view) == rows[-1]:
                        ax.set_xlabel(f"frame {pair + frame + 1}", labelpad=2)
            axes[0].set_title(f"Unit {unit} ({names[unit]}), {view}s", loc="left")
        shown = (table["unit"] == 0) & (table["view"] == "non-target map")
        least, most = table[shown]["of it on that bar"].min(), table[~shown]["absence evidence"].max()
        title = f"All {count} pairs of frames: at least {least:.4f} absence evidence on the bar in non-target maps\n"
        title += f"of unit 0, at most {most:.4f} anywhere in the other maps"
        fig.suptitle(title, x=0.01, y=1 - 0.1 / height, ha="left", weight="bold")
        _map_key(fig, image, (0.5, 0.5 / height, 0.46, 0.12 / height), (0.005, 0.25 / height))
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
    for unit, (colour, marker) in enumerate((("black", "o"), ("0.6", "s"))):
        look = {"color": colour, "marker": marker}
        ax.plot(steps, responses[:, unit], markersize=3, lw=1, **look)
        end = (steps[0], responses[0, unit])
        ax.annotate(f"unit {unit}", end, (0, 4), textcoords="offset points", va="bottom", color="0.3")
        ax.plot(step, responses[k, unit], markersize=9, markeredgecolor=MARK, mew=2, **look)
    zero_line(ax)
    ax.set(xlabel="columns moved", ylabel="response, signed", xticks=list(steps))
    ax.margins(y=0.15)  # for the marks at the ends
    signed_step = f"{step:+d}".replace("-", "−") if step else "0"
    units = "\n".join(f"unit {unit}: {_four(value)}" for unit, value in enumerate(responses[k]))
    ax.set_title(f"step {signed_step}\n{units}")
