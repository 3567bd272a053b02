"""Figures of notebook 03: the digits. Arrays and tables in, figures out."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.patches import Rectangle

from .base import (
    ABSENCE,
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

TREATMENT_LOOK = {"most negative": (ABSENCE, "o"), "random": (NEUTRAL, "s"), "most positive": (PRESENCE, "^")}


def digit_maps_figure(views, halves, unit: int, examples: int = 3):
    """Mean image, mean map and single examples, one row for target and one for non-target inputs.

    Args:
        views: class of the inputs -> (images [n, height, width] in 0..1, maps [n, height, width], ...). Mean maps share
            one scale, single maps another.
        halves: columns input, "absence evidence on the left", "ink on the left" (0..1), see `toys.class_maps`.
        unit: class whose logit is attributed.
        examples: how many of the images are shown, from the first.
    """
    means = [to_numpy(view[1]).mean(0) for view in views.values()]
    mean_limit = signed_limit(*means)
    limit = signed_limit(*(view[1][:examples] for view in views.values()))
    left = halves.groupby("input")[["absence evidence on the left", "ink on the left"]].mean()
    with companion_style():
        fig, grid = plt.subplots(len(views), 2 + 2 * examples, figsize=(WIDTH, 4.6))
        for axes, (label, (images, maps, *_)), mean_map in zip(grid, views.items(), means, strict=True):
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
            axes[0].set_ylabel(f"{'target' if label == unit else 'non-target'}: {label}s")
            evidence, ink = left.loc[label]
            axes[1].set_xlabel(
                f"left half: {evidence:.0%} of the absence\nevidence, {ink:.0%} of the ink", loc="left"
            )
        look = {"location": "bottom", "shrink": 0.8, "aspect": 30, "pad": 0.04}
        for image, ends, text in ((mean, grid[:, :2], "mean map"), (single, grid[:, 2:], "single maps")):
            bar = fig.colorbar(image, ax=ends.ravel().tolist(), **look)
            bar.set_label(f"{text}: attribution\nof logit {unit} per pixel")
        (source,) = [label for label in views if label != unit]
        evidence, ink = left.loc[source]
        title = f"{evidence:.0%} of what speaks against '{unit}' (blue) on {source}s lies on the left half of an image,"
        title += f"\nwhich holds {ink:.0%} of the ink; red is evidence for '{unit}'\n"
        fig.suptitle(title, x=0.01, ha="left", weight="bold")
    return fig


def removal_figure(example, rates, at: float, source: int, unit: int):
    """The median example of the three treatments beside the rate of images that turn from `source` into `unit`.

    Args:
        example: "unmodified" and the treatments -> (image [height, width], removed pixels bool, class seen), see
            `toys.median_removal`.
        rates: columns treatment, share, rate, low, high (0..1).
        at: the share of stroke pixels at which the example is shown.
    """
    now = rates[np.isclose(rates["share"], at)].set_index("treatment")["rate"]
    with companion_style():
        fig = plt.figure(figsize=(WIDTH, 4.3))
        fig.suptitle(
            f"{now['most negative']:.0%} of held-out {source}s are seen as {unit} without the {at:.0%} of their stroke "
            f"pixels\nthat speak most against '{unit}'; {now['random']:.0%} if as many random ones go",
            x=0.01, ha="left", weight="bold",
        )  # fmt: skip
        left, right = fig.subfigures(1, 2, width_ratios=[1, 1.25])
        left.suptitle(f"The median {source}, removed pixels framed", fontsize=9)
        for ax, (treatment, (image, gone, seen)) in zip(
            left.subplots(2, 2).flat, example.items(), strict=True
        ):
            colour = TREATMENT_LOOK.get(treatment, ("black",))[0]
            show_image(ax, to_numpy(image)[None])
            for row, column in np.argwhere(to_numpy(gone)):
                look = {"fill": False, "edgecolor": MARK, "linewidth": 1.2}
                ax.add_patch(Rectangle((column - 0.45, row - 0.45), 0.9, 0.9, **look))
            ax.set_title(
                f"{treatment}:\nseen as {seen}", color=colour, weight="bold" if seen == unit else "normal"
            )
        ax = right.subplots()
        ends = {}
        for treatment, (colour, marker) in TREATMENT_LOOK.items():
            part = rates[rates["treatment"] == treatment]
            share, rate, low, high = (
                100 * part[name].to_numpy() for name in ("share", "rate", "low", "high")
            )
            ax.plot(share, rate, color=colour, marker=marker, markersize=4)
            ax.fill_between(share, low, high, color=colour, alpha=0.18, lw=0)
            ends[treatment] = rate[-1]
        for treatment, height in spread(ends, 7).items():
            look = {"textcoords": "offset points", "va": "center", "color": TREATMENT_LOOK[treatment][0]}
            ax.annotate(treatment, (share[-1], height), (8, 0), **look)
        ax.axvline(100 * at, color=NEUTRAL, linestyle=":", linewidth=1)
        ax.set_title("which pixels were removed (band: 95% interval)", loc="left")
        ax.set(
            xlabel="stroke pixels removed (%)",
            ylabel=f"held-out {source}s now seen as {unit} (%)",
            ylim=(-2, 102),
        )
    return fig


def spread(heights: dict[str, float], least: float) -> dict[str, float]:
    """Heights of labels, moved up until no two are closer than `least`; the order stays."""
    placed, below = {}, -np.inf
    for name, height in sorted(heights.items(), key=lambda item: item[1]):
        placed[name] = below = max(height, below + least)
    return placed


def class_pairs_figure(rates, share: float, marked: tuple[int, int] | None = None):
    """Heatmaps [unit, source class] of two treatments: how often the source class turns into the unit's class.

    Args:
        rates: columns treatment, unit, source, rate (0..1), for "most negative" and "random" pixels.
        share: of the stroke pixels that were removed.
        marked: unit and source of a pair to frame.
    """
    both = rates.pivot(index=["unit", "source"], columns="treatment", values="rate")[
        ["most negative", "random"]
    ]
    with companion_style():
        fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 5.2), sharey=True)
        for ax, (treatment, rate) in zip(axes, both.items(), strict=True):
            percent = 100 * rate.unstack("source").to_numpy()
            sns.heatmap(percent, ax=ax, cmap="Greys", vmin=0, vmax=110, annot=True, fmt=".0f", square=True,
                        linewidths=0.5, annot_kws={"fontsize": 9}, cbar=False)  # fmt: skip
            for k in range(len(percent)):
                ax.add_patch(Rectangle((k, k), 1, 1, facecolor="white", edgecolor="0.7", hatch="////", lw=0))
            if marked:
                unit, source = marked
                ax.add_patch(
                    Rectangle((source, unit), 1, 1, fill=False, edgecolor=MARK, lw=2.5, clip_on=False)
                )
            ax.set(xlabel="digit in the image", title=f"{treatment} pixels removed")
            ax.tick_params(length=0, labelrotation=0, labelsize=11)
        axes[0].set_ylabel("digit that the network sees afterwards")
        means = both.mean()
        title = f"Without the pixels that speak most against a digit, {means.iloc[0]:.0%} of the images of another\n"
        title += f"are seen as it (mean of {len(both)} pairs), without random ones {means.iloc[1]:.0%}"
        fig.suptitle(title, x=0.01, ha="left", weight="bold")
        cell = (
            "A cell: of the images of the digit below, the share (%) that is seen as the digit on the left\n"
        )
        cell += f"once {share:.0%} of their stroke pixels are removed."
        cell += f" Framed: {marked[1]} seen as {marked[0]}." if marked else ""
        fig.supxlabel(cell, fontsize=9)
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
    colours = [{unit: "black", source: MARK}.get(label, "0.7") for label in range(len(now))]
    below.bar(range(len(now)), now, color=colours)
    zero_line(below)
    every = responses[:, example]
    below.set(
        xlabel=f"class (black: {unit}, orange: {source})", ylabel="response, signed", xticks=range(len(now))
    )
    below.set_ylim(1.05 * min(every.min(), 0), 1.05 * every.max())
