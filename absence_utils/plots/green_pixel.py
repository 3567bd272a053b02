"""Figures of notebook 02: the green pixel. Arrays and tables in, figures out."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.patches import Circle

from .base import (
    ABSENCE,
    MARK,
    NEUTRAL,
    SIGNED,
    WIDTH,
    companion_style,
    frame_axes,
    show_image,
    signed_limit,
    signed_map,
    to_numpy,
    zero_line,
)


def weight_heatmap(ax, weights, rows, columns, title: str):
    """Signed heatmap of weights [row, column] with the numbers written in."""
    weights = to_numpy(weights)
    limit = signed_limit(weights)
    sns.heatmap(weights, ax=ax, cmap=SIGNED, vmin=-limit, vmax=limit, annot=True, fmt="+.1f", linewidths=1,
                xticklabels=columns, yticklabels=rows, cbar=False, square=True)  # fmt: skip
    ax.tick_params(length=0, labelrotation=0)
    ax.set_title(title)


def _ring(ax, mask) -> None:
    for y, x in np.argwhere(to_numpy(mask)):
        ax.add_patch(Circle((x, y), 2.2, fill=False, edgecolor=MARK, linewidth=1.5))


def green_pixel_figure(samples, weights, maps, patches):
    """Samples, weights, maps and extreme patches of the green-pixel network in one figure.

    Args:
        samples: list of (pixels [rgb, height, width], green mask [height, width], title).
        weights: (colours [hidden, rgb], classes [class, hidden], hidden names, class names).
        maps: list of (signed map [height, width], green mask, title), drawn on one scale.
        patches: list of (crops [k, rgb, height, width], title), one row each.

    Returns:
        Figure. Green pixels are ringed in orange.
    """
    with companion_style():
        shown = 0.25 + 0.6 * len(patches)
        fig = plt.figure(figsize=(WIDTH, 1.55 * (4.65 + shown)))
        parts = fig.subfigures(4, 1, height_ratios=[1.2, 1.3, 2.15, shown], hspace=0.03)
        for ax, (pixels, green, title) in zip(parts[0].subplots(1, len(samples)), samples, strict=True):
            show_image(ax, pixels, title)
            _ring(ax, green)
        parts[0].suptitle("Samples (the green pixel is ringed)", weight="bold")
        colours, classes, hidden, names = weights
        left, right = parts[1].subplots(1, 2, width_ratios=[3, 2])
        weight_heatmap(left, colours, hidden, ["red", "green", "blue"], "first layer: weight of each colour")
        weight_heatmap(right, classes, names, hidden, "second layer: weight for each class")
        effect = "lowers" if classes[1, 0] < 0 else "raises"
        parts[1].suptitle(f"Learnt weights: the green channel {effect} {names[1]!r}", weight="bold")
        axes, limit = parts[2].subplots(1, len(maps)), signed_limit(*(values for values, _, _ in maps)) / 4
        for ax, (values, green, title) in zip(axes, maps, strict=True):
            image = signed_map(ax, values, limit)
            frame_axes(ax)
            _ring(ax, green)
            ax.set_title(title)
        bar = parts[2].colorbar(image, ax=list(axes), location="bottom", shrink=0.5, aspect=40, pad=0.06,
                                extend="both")  # fmt: skip
        bar.set_label("attribution of the mean response, per pixel (the green pixel goes beyond the scale)\n"
                      "blue: absence evidence, red: presence evidence")  # fmt: skip
        parts[2].suptitle("Integrated gradients: target and non-target maps", weight="bold")
        rows = parts[3].subplots(len(patches), len(patches[0][0]), squeeze=False)
        for axes, (crops, title) in zip(rows, patches, strict=True):
            for ax, crop in zip(axes, crops, strict=True):
                show_image(ax, crop)
            axes[0].set_ylabel(title, rotation=0, ha="right", va="center", labelpad=6)
        edge = patches[0][0].shape[-1]
        parts[3].suptitle(f"Extreme patches of {edge} x {edge} pixels", weight="bold")
    return fig


def convergence_figure(table):
    """Test accuracy of every seed for every recipe, with how many reached 99%.

    Args:
        table: columns recipe, seed, accuracy (0..1).
    """
    with companion_style():
        fig, ax = plt.subplots(figsize=(WIDTH, 2.6))
        sns.stripplot(table, x="accuracy", y="recipe", ax=ax, color=ABSENCE, alpha=0.6, jitter=0.25, size=6)
        for row, (_, runs) in enumerate(table.groupby("recipe", sort=False)):
            reached = int((runs["accuracy"] >= 0.99).sum())
            ax.text(1.04, row, f"{reached} of {len(runs)} runs", va="center", weight="bold")
        ax.axvline(0.99, color=NEUTRAL, linestyle=":", linewidth=1)
        ax.set(
            xlim=(0.45, 1.02), xlabel="test accuracy (dotted: 99%; chance: 0.5), one dot a seed", ylabel=""
        )
        ax.set_title("Test accuracy by initialisation and schedule", loc="left", weight="bold")
    return fig


def green_position(fig, images, responses, greens, reds, names, *, green, red) -> None:
    """The image with its painted pixel, and both responses against the amount of green.

    Args:
        images: [green, red, rgb, height, width].
        responses: [green, red, class], signed.
        greens, reds: amounts in 0..1.
        names: [class].
        green, red: the mixture that is drawn.
    """
    k, m = list(greens).index(green), list(reds).index(red)
    top, below = fig.subplots(2, 1, height_ratios=[1, 1.1])
    show_image(top, images[k][m], f"pixel: green {green:g}, red {red:g}")
    height, width = images.shape[-2:]
    top.add_patch(Circle((width // 2, height // 2), 2.2, fill=False, edgecolor=MARK, linewidth=1.5))
    curves = to_numpy(responses)[:, m]
    for label, (name, colour) in enumerate(zip(names, (NEUTRAL, ABSENCE), strict=True)):
        below.plot(greens, curves[:, label], color=colour, lw=1.5, label=f"{name!r}")
        look = {"color": colour, "markersize": 9, "markeredgecolor": MARK, "mew": 2}
        below.plot(green, curves[k, label], "o", **look)
    zero_line(below)
    below.set(xlabel="green of the ringed pixel", ylabel="response, signed")
    below.set_title(f"seen as {names[int(curves[k].argmax())]!r}")
    low, high = below.get_ylim()
    below.set_ylim(low, high + 0.5 * (high - low))  # room for the legend
    below.legend(frameon=False, fontsize=7.5, loc="upper center")
