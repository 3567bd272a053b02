"""Figures of notebook 02: the green pixel. Arrays and tables in, figures out."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.patches import Circle

from .base import (
    MARK,
    NEUTRAL,
    SIGNED,
    WIDTH,
    companion_style,
    fixed_number,
    frame_axes,
    name_rows,
    show_image,
    signed_limit,
    signed_map,
    signed_number,
    to_numpy,
    zero_line,
)


def weight_heatmap(ax, weights, title: str) -> None:
    """Signed heatmap of a table of weights, with the numbers written in."""
    limit = signed_limit(weights.to_numpy())
    texts = [[fixed_number(value, 1, plus=True) for value in row] for row in weights.to_numpy()]
    sns.heatmap(weights, ax=ax, cmap=SIGNED, vmin=-limit, vmax=limit, annot=texts, fmt="", linewidths=1,
                xticklabels=[name.replace(" ", "\n") for name in weights.columns],
                yticklabels=[name.replace(" pixel", "\npixel") for name in weights.index],
                cbar=False, square=True)  # fmt: skip
    ax.tick_params(length=0, labelrotation=0)
    ax.set_title(title)


def _ring(ax, mask) -> None:
    for y, x in np.argwhere(to_numpy(mask)):
        ax.add_patch(Circle((x, y), 2.2, fill=False, edgecolor=MARK, linewidth=1.5))


def green_pixel_figure(test, green, logits, weights, maps, shares, book):
    """An image of each class with its maps, all weights, and the extreme patches of the green-pixel network.

    Args:
        test: the test images, of which image 0 has a green pixel and image 1 has none.
        green: bool [image, height, width], True on green pixels; these are ringed.
        logits: table of mean and sd, see `toys.logit_table`.
        weights: two tables, see `toys.channel_weights`.
        maps: [class, image, height, width] signed, colour channels added up.
        shares: table of the absence evidence of "no green pixel", see `toys.shares_on_green`.
        book: `PatchBook` of both classes, mined from `test`.

    Returns:
        Figure, and the numbers it states: columns kind, of, for, value.
    """
    (colours, classes), names = weights, list(test.class_names)
    ends = pd.DataFrame(
        {name: [float(getattr(book, end).response[unit].mean()) for end in ("highest", "lowest")]
         for unit, name in reversed(list(enumerate(names)))},
        ["highest", "lowest"],
    )  # fmt: skip
    with_green, without = (signed_number(logits.loc[name, (names[1], "mean")]) for name in names)
    effect = "lowers" if classes.loc[names[1], "green channel"] < 0 else "raises"
    on_green = shares.loc["of it on green", "non-target"]
    title = f"Green {effect} {names[1]!r}: its logit is {with_green} with a green pixel, {without} without;\n"
    title += f"{on_green:.1%} of the absence evidence in its non-target maps lies on the green pixel"
    with companion_style():
        fig = plt.figure(figsize=(WIDTH, 7.1))
        fig.suptitle(title, x=0.01, ha="left", weight="bold")
        upper, lower = fig.subfigures(2, 1, height_ratios=[4.9, 1.7])
        left, right = upper.subfigures(1, 2, width_ratios=[4.7, 2.8])
        _inputs_and_maps(left, test, green, maps, names)
        top, bottom = right.subplots(2, 1)
        weight_heatmap(top, colours, "first layer: colours")
        weight_heatmap(bottom, classes, "second layer: classes")
        _patches(lower, test, book, ends)
    parts = {
        "colour weight": colours,
        "class weight": classes,
        "share of attribution": shares,
        "mean response of patches": ends,
        **{f"{what} of the logit": logits.xs(what, axis=1, level=1).T for what in ("mean", "sd")},
    }
    table = pd.concat({kind: part.stack() for kind, part in parts.items()}, names=["kind", "of", "for"])
    return fig, table.rename("value").reset_index()


def _patches(part, test, book, ends) -> None:
    """The highest patches of both classes beside each other, below them the lowest."""
    grid = part.subplots(2, 2)
    for column, name in zip(grid.T, ends, strict=True):
        crops = book.crops(test, test.class_names.index(name))
        for ax, end in zip(column, ends.index, strict=True):
            row = [np.pad(crop, ((0, 0), (0, 0), (0, 1)), constant_values=1) for crop in getattr(crops, end)]
            show_image(ax, np.concatenate(row, axis=2)[..., :-1])  # a white line between two patches
            ax.set_title(f"{end} of {name!r}: mean {signed_number(ends.loc[end, name])}", loc="left")
    height, width = crops.highest.shape[-2:]
    part.suptitle(f"Patches of {height} x {width} pixels with the highest and with the lowest responses")


def _inputs_and_maps(part, test, green, maps, names) -> None:
    """One row for each class: an input, and its maps of both classes on one scale."""
    grid, limit = part.subplots(2, 3), signed_limit(maps[:, :2]) / 4
    for image, axes in enumerate(grid):
        show_image(axes[0], test.images[image], f"input:\n{names[image]}")
        for ax, unit in zip(axes[1:], (1, 0), strict=True):
            scale = signed_map(ax, maps[unit, image], limit)
            frame_axes(ax)
            ax.set_title(f"{'target' if unit == image else 'non-target'} map\nof {names[unit]!r}")
        for ax in axes:
            _ring(ax, green[image])
    bar = part.colorbar(scale, ax=grid, location="bottom", shrink=0.8, aspect=40, pad=0.02, extend="both")
    bar.set_label(
        "attribution per pixel (scale ends at 1/4 of the maximum)\nblue: absence, red: presence; ring: green"
    )


def convergence_figure(table):
    """Test accuracy of every seed for every recipe, with how many reached 99%.

    Args:
        table: columns recipe, seed, accuracy (0..1), dead channels.
    """
    recipes = list(table["recipe"].unique())
    reached = (table["accuracy"] >= 0.99).groupby(table["recipe"]).agg(sum="sum", size="size").loc[recipes]
    with companion_style():
        fig, ax = plt.subplots(figsize=(WIDTH, 1.5 + 0.35 * len(recipes)))
        for row, recipe in enumerate(recipes):
            runs = table[table["recipe"] == recipe].reset_index(drop=True)
            heights = row + np.linspace(-0.3, 0.3, len(runs)) if len(runs) > 1 else np.array([row])
            for dead, face in ((False, "black"), (True, "white")):
                part = (runs["dead channels"] > 0) == dead
                look = {"facecolor": face, "edgecolor": "black", "s": 28, "linewidth": 1, "zorder": 3}
                ax.scatter(runs["accuracy"][part], heights[part], **look)
            count = f"{reached['sum'][recipe]} of {reached['size'][recipe]} runs"
            ax.text(1.04, row, count, va="center", weight="bold")
        ax.axvline(0.99, color=NEUTRAL, linestyle=":", linewidth=1)
        name_rows(ax, recipes)
        ax.set(
            xlim=(0.45, 1.02),
            xlabel="test accuracy (dotted: 99%; chance: 0.5); one dot a seed, open: dead channel",
        )
        best, *others = reached.sort_values("sum", ascending=False, kind="stable").itertuples()
        title = f"{best.sum} of {best.size} seeds reach 99% test accuracy with {best.Index}"
        title += f",\n{others[0].sum} of {others[0].size} with the next best recipe" if others else ""
        fig.suptitle(title, x=0.01, ha="left", weight="bold")
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
    for label, (name, colour) in enumerate(zip(names, ("0.65", "black"), strict=True)):
        below.plot(greens, curves[:, label], color=colour, lw=1.5, label=f"{name!r}")
        look = {"color": colour, "markersize": 9, "markeredgecolor": MARK, "mew": 2}
        below.plot(green, curves[k, label], "o", **look)
    zero_line(below)
    below.set(xlabel="green of the ringed pixel", ylabel="response, signed")
    below.set_title(f"seen as {names[int(curves[k].argmax())]!r}")
    low, high = below.get_ylim()
    below.set_ylim(low, high + 0.6 * (high - low))  # room for the legend
    below.legend(frameon=False, loc="upper center")
