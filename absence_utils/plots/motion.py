"""Figures of notebooks 01-03: motion detector, green pixel, digits. Arrays and tables in, figures out."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.patches import Circle, Rectangle
from matplotlib.ticker import MaxNLocator

from .base import (
    ABSENCE,
    NEUTRAL,
    PRESENCE,
    SIGNED,
    companion_style,
    show_image,
    signed_limit,
    signed_map,
)
from .base import to_numpy as array

MARK = "#e69f00"  # orange of Okabe and Ito's palette: neither end of the signed map
TREATMENT_LOOK = {
    "most negative": (ABSENCE, "o", "the most negative pixels"),
    "random": (NEUTRAL, "s", "random stroke pixels"),
    "most positive": (PRESENCE, "^", "the most positive pixels"),
}


def _outline(ax, mask, colour: str = MARK) -> None:
    """A frame round the True pixels of a mask [height, width] that form a rectangle."""
    rows, columns = np.nonzero(array(mask))
    if len(rows):
        corner = (columns.min() - 0.5, rows.min() - 0.5)
        size = (np.ptp(columns) + 1, np.ptp(rows) + 1)
        ax.add_patch(Rectangle(corner, *size, fill=False, edgecolor=colour, linewidth=2, clip_on=False))


def _frame(ax) -> None:
    ax.spines[:].set_visible(True)
    ax.spines[:].set_color("0.6")


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
        fig = plt.figure(figsize=(6.6, 9.6), layout="none")
        grid = fig.subplots(len(rows), 5, gridspec_kw={
            "width_ratios": [1, 1, 0.3, 1, 1], "wspace": 0.08, "hspace": 0.4,
            "left": 0.06, "right": 0.98, "top": 0.93, "bottom": 0.11})  # fmt: skip
        for axes, row in zip(grid, rows, strict=True):
            axes[2].axis("off")
            for unit in range(2):
                pair = axes[3 * unit : 3 * unit + 2]
                for frame, ax in enumerate(pair):
                    if row["label"].endswith("map"):
                        image = signed_map(ax, row["pixels"][unit][frame], limit)
                    else:
                        show_image(ax, row["pixels"][unit][frame][None])
                    _frame(ax)
                    _outline(ax, row["leftward"][unit][frame])
                    ax.set_xlabel(f"frame {frame + 1}", fontsize=7.5, labelpad=2)
                what = "sums to" if row["label"].endswith("map") else "response"
                pair[0].set_title(f"{row['label']}: {what} {float(row['response'][unit]):+.4f}", loc="left")
        for unit, name in enumerate(names):
            look = {"xycoords": "axes fraction", "fontsize": 10.5, "weight": "bold"}
            grid[0, 3 * unit].annotate(f"Unit {unit}: {name}", (0, 1.3), **look)
        bar = fig.colorbar(image, cax=fig.add_axes((0.5, 0.068, 0.46, 0.01)), orientation="horizontal")
        bar.ax.xaxis.set_major_locator(MaxNLocator(4))
        bar.set_label(
            "attribution of the pooled response, per pixel\nblue: absence evidence, red: presence evidence"
        )
        key = [Rectangle((0, 0), 1, 1, fill=False, edgecolor=MARK, linewidth=2)]
        fig.legend(key, ["the bar that moves right to left"], loc=(0.04, 0.05), frameon=False)
    return fig


def weight_heatmap(ax, weights, rows, columns, title: str):
    """Signed heatmap of weights [row, column] with the numbers written in."""
    weights = array(weights)
    limit = signed_limit(weights)
    sns.heatmap(weights, ax=ax, cmap=SIGNED, vmin=-limit, vmax=limit, annot=True, fmt="+.1f", linewidths=1,
                xticklabels=columns, yticklabels=rows, cbar=False, square=True)  # fmt: skip
    ax.tick_params(length=0, labelrotation=0)
    ax.set_title(title)


def _ring(ax, mask) -> None:
    for y, x in np.argwhere(array(mask)):
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
        fig = plt.figure(figsize=(8, 9.9))
        parts = fig.subfigures(4, 1, height_ratios=[1.2, 1.3, 2.15, 1.45], hspace=0.03)
        for ax, (pixels, green, title) in zip(parts[0].subplots(1, len(samples)), samples, strict=True):
            show_image(ax, pixels, title)
            _ring(ax, green)
        parts[0].suptitle("Samples (the green pixel is ringed)", weight="bold")
        colours, classes, hidden, names = weights
        left, right = parts[1].subplots(1, 2, width_ratios=[3, 2])
        weight_heatmap(left, colours, hidden, ["red", "green", "blue"], "first layer: weight of each colour")
        weight_heatmap(right, classes, names, hidden, "second layer: weight for each class")
        parts[1].suptitle("Learnt weights: the green channel speaks against 'no green pixel'", weight="bold")
        axes, limit = parts[2].subplots(1, len(maps)), signed_limit(*(values for values, _, _ in maps)) / 4
        for ax, (values, green, title) in zip(axes, maps, strict=True):
            image = signed_map(ax, values, limit)
            _frame(ax)
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
        parts[3].suptitle("Extreme 7x7 patches of 'no green pixel'", weight="bold")
    return fig


def convergence_figure(table):
    """Test accuracy of every seed for every recipe, with how many reached 99 %.

    Args:
        table: columns recipe, seed, accuracy (0..1).
    """
    with companion_style():
        fig, ax = plt.subplots(figsize=(7, 2.6))
        sns.stripplot(table, x="accuracy", y="recipe", ax=ax, color=ABSENCE, alpha=0.6, jitter=0.25, size=6)
        for row, (_, runs) in enumerate(table.groupby("recipe", sort=False)):
            reached = int((runs["accuracy"] >= 0.99).sum())
            ax.text(1.04, row, f"{reached} of {len(runs)} runs", va="center", weight="bold")
        ax.axvline(0.99, color=NEUTRAL, linestyle=":", linewidth=1)
        ax.set(
            xlim=(0.45, 1.02), xlabel="test accuracy (dotted: 99 %; 0.5 is chance), one dot a seed", ylabel=""
        )
        ax.set_title("Which recipe learns the green pixel for every seed", loc="left", weight="bold")
    return fig


def digit_maps_figure(rows, unit: int, examples: int = 3):
    """Mean image, mean map and single examples, one row for target and one for non-target inputs.

    Args:
        rows: list of (label, images [n, height, width] in 0..1, maps [n, height, width], note). Mean maps
            share one scale, single maps another.
        unit: class whose logit is attributed.
        examples: how many of the images are shown, from the first.
    """
    means = [array(maps).mean(0) for _, _, maps, _ in rows]
    mean_limit = signed_limit(*means)
    limit = signed_limit(*(maps[:examples] for _, _, maps, _ in rows))
    with companion_style():
        columns = 2 + 2 * examples
        fig, grid = plt.subplots(len(rows), columns, figsize=(1.25 * columns, 4.2))
        for axes, (label, images, maps, note), mean_map in zip(grid, rows, means, strict=True):
            show_image(axes[0], array(images).mean(0)[None], "mean image")
            mean = signed_map(axes[1], mean_map, mean_limit)
            axes[1].set_title("mean map")
            for k in range(examples):
                show_image(axes[2 + 2 * k], array(images[k])[None], f"example {k + 1}")
                single = signed_map(axes[3 + 2 * k], maps[k], limit)
                axes[3 + 2 * k].set_title("its map")
            for ax in axes[1::2]:
                _frame(ax)
                ax.axvline(mean_map.shape[1] / 2 - 0.5, color=NEUTRAL, linestyle=":", linewidth=1)
            axes[0].set_ylabel(label)
            axes[1].set_xlabel(note, loc="left", fontsize=8.5)
        look = {"location": "bottom", "shrink": 0.8, "aspect": 30, "pad": 0.04}
        for image, ends, text in ((mean, grid[:, :2], "mean map"), (single, grid[:, 2:], "single maps")):
            bar = fig.colorbar(image, ax=ends.ravel().tolist(), **look)
            bar.set_label(f"{text}: attribution of logit {unit}, per pixel")
        title = f"What speaks for and against '{unit}': red presence evidence, blue absence evidence\n"
        fig.suptitle(title, weight="bold")
    return fig


def removal_figure(examples, rates, at: float, source: str, unit: str):
    """Examples of the three treatments beside the rate of images that turn from `source` into `unit`.

    Args:
        examples: dict treatment -> (images [k, h, w], seen [k] labels); key "untouched" first.
        rates: columns treatment, share, rate, low, high (0..1).
        at: the share of stroke pixels at which the examples are shown.
    """
    with companion_style():
        fig = plt.figure(figsize=(9.4, 4.1))
        left, right = fig.subfigures(1, 2, width_ratios=[1.15, 1.1])
        count = len(examples["untouched"][0])
        grid = left.subplots(len(examples), count)
        for axes, (treatment, (images, seen)) in zip(grid, examples.items(), strict=True):
            colour = TREATMENT_LOOK.get(treatment, (NEUTRAL,))[0]
            for ax, image, label in zip(axes, images, seen, strict=True):
                show_image(ax, array(image)[None])
                ax.set_title(f"seen as {label}", fontsize=7.5, pad=2, color=colour,
                             weight="bold" if str(label) == unit else "normal")  # fmt: skip
            axes[0].set_ylabel(
                treatment.replace(" ", "\n"), color=colour, rotation=0, ha="right", va="center"
            )
        left.suptitle(f"{at:.0%} of the stroke pixels removed")
        ax = right.subplots()
        for treatment, (colour, marker, label) in TREATMENT_LOOK.items():
            part = rates[rates["treatment"] == treatment]
            ax.plot(
                100 * part["share"],
                100 * part["rate"],
                color=colour,
                marker=marker,
                markersize=4,
                label=label,
            )
            ax.fill_between(
                100 * part["share"], 100 * part["low"], 100 * part["high"], color=colour, alpha=0.18, lw=0
            )
        ax.axvline(100 * at, color=NEUTRAL, linestyle=":", linewidth=1)
        ax.set(
            xlabel="stroke pixels removed (%)",
            ylabel=f"held-out {source}s now seen as {unit} (%)",
            ylim=(-2, 102),
        )
        ax.legend(
            frameon=False, title="removed (band: 95 % interval)", loc="center right", bbox_to_anchor=(1, 0.62)
        )
        right.suptitle(f"Removing what speaks against '{unit}' turns {source} into {unit}", weight="bold")
    return fig


def class_pairs_figure(matrices, share: float):
    """Heatmaps [unit, source class]: how often the source class turns into the unit's class.

    Args:
        matrices: dict title -> [unit=10, source=10] rates in 0..1, NaN on the diagonal.
        share: of the stroke pixels that were removed.
    """
    with companion_style():
        fig, axes = plt.subplots(1, len(matrices), figsize=(4.4 * len(matrices), 4.3), sharey=True)
        for ax, (title, rates) in zip(np.atleast_1d(axes), matrices.items(), strict=True):
            percent = 100 * array(rates)
            sns.heatmap(percent, ax=ax, cmap="Blues", vmin=0, vmax=100, annot=True, fmt=".0f", square=True,
                        linewidths=0.5, annot_kws={"fontsize": 7.5}, cbar=False)  # fmt: skip
            for k in range(len(percent)):
                ax.add_patch(Rectangle((k, k), 1, 1, facecolor="0.85", edgecolor="white"))
            ax.set(xlabel="class of the input", title=title)
            ax.tick_params(length=0)
        np.atleast_1d(axes)[0].set_ylabel("class the network sees afterwards (unit)")
        title = f"Inputs that change into the unit's class (%), {share:.0%} of their stroke pixels removed"
        fig.suptitle(title, weight="bold")
    return fig
