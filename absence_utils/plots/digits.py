"""Figures of notebook 03: the digits. Arrays and tables in, figures out."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.patches import Rectangle

from .base import (
    ABSENCE,
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

TREATMENT_LOOK = {
    "most negative": (ABSENCE, "o", "the most negative pixels"),
    "random": (NEUTRAL, "s", "random stroke pixels"),
    "most positive": (PRESENCE, "^", "the most positive pixels"),
}


def digit_maps_figure(rows, unit: int, examples: int = 3):
    """Mean image, mean map and single examples, one row for target and one for non-target inputs.

    Args:
        rows: list of (label, images [n, height, width] in 0..1, maps [n, height, width], note). Mean maps
            share one scale, single maps another.
        unit: class whose logit is attributed.
        examples: how many of the images are shown, from the first.
    """
    means = [to_numpy(maps).mean(0) for _, _, maps, _ in rows]
    mean_limit = signed_limit(*means)
    limit = signed_limit(*(maps[:examples] for _, _, maps, _ in rows))
    with companion_style():
        fig, grid = plt.subplots(len(rows), 2 + 2 * examples, figsize=(WIDTH, 4.1))
        for axes, (label, images, maps, note), mean_map in zip(grid, rows, means, strict=True):
            show_image(axes[0], to_numpy(images).mean(0)[None], "mean image")
            mean = signed_map(axes[1], mean_map, mean_limit)
            axes[1].set_title("mean map")
            for k in range(min(examples, len(images))):
                show_image(axes[2 + 2 * k], to_numpy(images[k])[None], f"example {k + 1}")
                single = signed_map(axes[3 + 2 * k], maps[k], limit)
                axes[3 + 2 * k].set_title("its map")
            for ax in axes[1::2]:
                frame_axes(ax)
                ax.axvline(mean_map.shape[1] / 2 - 0.5, color=NEUTRAL, linestyle=":", linewidth=1)
            axes[0].set_ylabel(label)
            axes[1].set_xlabel(note, loc="left", fontsize=8.5)
        look = {"location": "bottom", "shrink": 0.8, "aspect": 30, "pad": 0.04}
        for image, ends, text in ((mean, grid[:, :2], "mean map"), (single, grid[:, 2:], "single maps")):
            bar = fig.colorbar(image, ax=ends.ravel().tolist(), **look)
            bar.set_label(f"{text}: attribution\nof logit {unit}, per pixel")
        title = f"Evidence for and against '{unit}': red presence evidence, blue absence evidence\n"
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
        fig = plt.figure(figsize=(WIDTH, 3.9))
        left, right = fig.subfigures(1, 2, width_ratios=[1.15, 1.1])
        count = len(examples["untouched"][0])
        grid = left.subplots(len(examples), count)
        for axes, (treatment, (images, seen)) in zip(grid, examples.items(), strict=True):
            colour = TREATMENT_LOOK.get(treatment, (NEUTRAL,))[0]
            for ax, image, label in zip(axes, images, seen, strict=True):
                show_image(ax, to_numpy(image)[None])
                ax.set_title(f"seen as {label}", fontsize=7.5, pad=2, color=colour,
                             weight="bold" if str(label) == unit else "normal")  # fmt: skip
            look = {"color": colour, "rotation": 0, "ha": "right", "va": "center"}
            axes[0].set_ylabel(treatment.replace(" ", "\n"), **look)
        left.suptitle(f"{at:.0%} of the stroke pixels removed")
        ax = right.subplots()
        for treatment, (colour, marker, label) in TREATMENT_LOOK.items():
            part = rates[rates["treatment"] == treatment]
            share, rate, low, high = (100 * part[name] for name in ("share", "rate", "low", "high"))
            ax.plot(share, rate, color=colour, marker=marker, markersize=4, label=label)
            ax.fill_between(share, low, high, color=colour, alpha=0.18, lw=0)
        ax.axvline(100 * at, color=NEUTRAL, linestyle=":", linewidth=1)
        ax.set(
            xlabel="stroke pixels removed (%)",
            ylabel=f"held-out {source}s now seen as {unit} (%)",
            ylim=(-2, 102),
        )
        ax.legend(frameon=False, fontsize=8, title="removed (band: 95% interval)", loc="center right",
                  bbox_to_anchor=(1, 0.33))  # fmt: skip
        right.suptitle(f"Removing the evidence against '{unit}'\nturns {source} into {unit}", weight="bold")
    return fig


def class_pairs_figure(matrices, share: float):
    """Heatmaps [unit, source class]: how often the source class turns into the unit's class.

    Args:
        matrices: dict title -> [unit=10, source=10] rates in 0..1, NaN on the diagonal.
        share: of the stroke pixels that were removed.
    """
    with companion_style():
        fig, axes = plt.subplots(1, len(matrices), figsize=(WIDTH, 0.7 + 6.4 / len(matrices)), sharey=True)
        for ax, (title, rates) in zip(np.atleast_1d(axes), matrices.items(), strict=True):
            percent = 100 * to_numpy(rates)
            sns.heatmap(percent, ax=ax, cmap="Blues", vmin=0, vmax=100, annot=True, fmt=".0f", square=True,
                        linewidths=0.5, annot_kws={"fontsize": 7}, cbar=False)  # fmt: skip
            for k in range(len(percent)):
                ax.add_patch(Rectangle((k, k), 1, 1, facecolor="0.85", edgecolor="white"))
            ax.set(xlabel="class of the input", title=title)
            ax.tick_params(length=0, labelrotation=0)
        np.atleast_1d(axes)[0].set_ylabel("class the network sees afterwards (unit)")
        title = f"Inputs that change into the unit's class (%), {share:.0%} of their stroke pixels removed"
        fig.suptitle(title, weight="bold")
    return fig


def release_position(fig, images, responses, shares, unit: int, source: int, *, share, example) -> None:
    """The image with a share of its strokes removed, and the response of every class.

    Args:
        images: [share, image, 1, height, width].
        responses: [share, image, class], signed.
        shares: of the stroke pixels.
        unit, source: the class whose map chose the pixels, and the class of the images.
        share, example: the position that is drawn.
    """
    k, responses = list(shares).index(share), to_numpy(responses)
    now = responses[k, example]
    top, below = fig.subplots(2, 1, height_ratios=[1, 1])
    show_image(top, images[k][example], f"{share:.0%} removed: seen as {int(now.argmax())}")
    colours = [{unit: PRESENCE, source: ABSENCE}.get(label, "0.7") for label in range(len(now))]
    below.bar(range(len(now)), now, color=colours)
    zero_line(below)
    every = responses[:, example]
    below.set(
        xlabel=f"class (red: {unit}, blue: {source})", ylabel="response, signed", xticks=range(len(now))
    )
    below.set_ylim(1.05 * min(every.min(), 0), 1.05 * every.max())
