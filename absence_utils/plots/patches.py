"""Figures of extreme patches from arrays and tables: contact sheets, ranges, what the patches show."""

from __future__ import annotations

from itertools import product

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

from absence_utils.units import class_of_output

from .base import (
    ABSENCE,
    NEUTRAL,
    ORANGE,
    PRESENCE,
    SIGNED,
    WIDTH,
    bare,
    companion_style,
    drawn_once,
    signed_number,
    to_numpy,
)

COLOURS = {"highest": PRESENCE, "lowest": ABSENCE}
GAP = 0.08  # between patches, in widths of a patch
TEXT = 0.24  # room for a response above a patch, in widths of a patch
MARGIN = 1.0  # room for the names of the rows at the left


def contact_sheet(patches: dict, table, titles: dict[int, str], pairs: dict | None = None):
    """Highest and lowest patches of each unit with their responses, beside the synthesised images.

    Args:
        patches: unit to (highest, lowest), each [k, channel, height, width] in 0..1, best first.
        table: as `patch_table` gives it; the responses are read from here.
        titles: unit to title.
        pairs: unit to `RenderedPair`; None leaves the first column out.

    Returns:
        The figure, one block a unit.
    """
    count = len(next(iter(patches.values()))[0])
    width = MARGIN + (count + bool(pairs)) * (1 + GAP) + (GAP if pairs else 0)
    rows = 2 * (1 + TEXT + GAP)
    block, head = rows + 0.45, 0.3  # heights in widths of a patch
    scale = WIDTH / width
    with companion_style():
        height = (head + block * len(patches)) * scale
        fig = plt.figure(figsize=(WIDTH, height), layout="none")
        for index, (unit, sides) in enumerate(patches.items()):
            bottom = 1 - (head + block * index + block) * scale / height
            ax = fig.add_axes((0, bottom, 1, block * scale / height))
            ax.set(xlim=(0, width), ylim=(block, 0))
            ax.axis("off")
            ax.text(0.06, 0.2, titles[unit], fontweight="bold", va="center", fontsize=9)
            for row, (side, pixels) in enumerate(zip(COLOURS, sides, strict=True)):
                top = 0.4 + row * rows / 2 + TEXT
                shown = table[(table.unit == unit) & (table.side == side)].sort_values("rank")
                if pairs:
                    pixels = [getattr(pairs[unit], side).image[0], *pixels]
                _row(ax, top, side, pixels, shown.response.tolist(), offset=GAP if pairs else 0)
        text = "patches of the images, with the response to each (units of the layer)"
        heads = [(width - count * (1 + GAP), text)] + [(MARGIN, "synthesised")] * bool(pairs)
        for x, text in heads:
            fig.text(x / width, 1 - 0.18 * scale / height, text, fontsize=8, color=NEUTRAL, va="center")
    return fig


def unit_sheet(unit: int, title: str, crops, table):
    """The `contact_sheet` of one unit, to be looked at: `crops` are its (highest, lowest) patches."""
    return drawn_once(contact_sheet({unit: crops}, table, {unit: title}))


def _row(ax, top: float, side: str, pixels, responses: list[float], offset: float) -> None:
    ax.text(MARGIN - 0.1, top + 0.5, side, ha="right", va="center", color=COLOURS[side], fontsize=9)
    for place, (patch, response) in enumerate(zip(pixels, responses, strict=True)):
        left = MARGIN + place * (1 + GAP) + (offset if place else 0)
        patch = to_numpy(patch)
        if len(patch) != 3:  # not colours: in grey
            patch = np.repeat(patch.mean(0, keepdims=True), 3, axis=0)
        ax.imshow(
            np.clip(patch, 0, 1).transpose(1, 2, 0), extent=(left, left + 1, top + 1, top), aspect="auto"
        )
        ax.add_patch(Rectangle((left, top), 1, 1, fill=False, color=COLOURS[side], linewidth=0.8))
        ax.text(left + 0.5, top - 0.04, signed_number(response), ha="center", va="bottom", fontsize=7)


def response_range(table, layer: str | None, names: list[str] = (), marked: list[int] = ()):
    """Range of every unit around its response to an empty patch.

    Args:
        table: as `range_table` gives it.
        layer: named in the title, None for the output.
        names: of the dataset's classes, for the axis of at most 12 outputs, see `units.class_of_output`.
        marked: units to mark with a triangle.

    Returns:
        The figure.
    """
    order = table.sort_values(["share_below", "unit"]).reset_index(drop=True)
    with companion_style():
        fig, ax = plt.subplots(figsize=(WIDTH, 3.2))
        up, down = order.highest - order.empty_patch, order.lowest - order.empty_patch
        place, width = np.arange(len(order)), 0.8 if len(order) <= 40 else 1.0
        above, below = np.clip(down, 0, None), np.clip(up, None, 0)  # where the part of that colour begins
        upper, lower = np.clip(up, 0, None) - above, np.clip(down, None, 0) - below
        ax.bar(place, upper, width, above, color=PRESENCE, label="above blank")
        ax.bar(place, lower, width, below, color=ABSENCE, label="below blank")
        ax.axhline(0, color="black", linewidth=0.8)
        classes = [class_of_output(layer, unit, names, len(order)) for unit in order.unit]
        few = None not in classes and len(order) <= 12
        chosen = order.index[order.unit.isin(list(marked))]
        if not few and len(chosen):
            height = np.full(len(chosen), down.min() * 1.06)
            ax.plot(chosen, height, "k^", markersize=4, label="units of the contact sheet")
        if few:
            ax.set_xticks(place, classes, rotation=20)
        else:
            ax.set_xticks([])
        ax.set_xlabel("unit" if few else f"{len(order)} units, sorted by share of range below blank")
        ax.set_ylabel("mean response minus response\nto a blank patch (units of the layer)")
        ax.set_title(f"{layer or 'output'}: from the k lowest to the k highest patches")
        bottom, top = ax.get_ylim()
        ax.set_ylim(bottom, top + 0.15 * (top - bottom))  # room for the legend
        ax.legend(frameon=False, fontsize=8, loc="upper center", ncols=3, columnspacing=1, handlelength=1)
        ax.margins(x=0.01)
    return fig


def response_shapes(tables: dict):
    """Shape of the response of all units: the part of the range below the blank, and the skewness.

    Args:
        tables: name to table as `range_table` gives it: first a network, then its copies with random weights.

    Returns:
        The figure, one panel a quantity.
    """
    with companion_style():
        fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.1))
        _histograms(left, tables, "share_below", np.linspace(0, 1, 11), 0.5, above=True)
        left.set(xlabel="share of range below blank", title="Asymmetry around the blank patch", xlim=(0, 1))
        widest = max(1.0, *(table.skewness.abs().max() for table in tables.values()))
        _histograms(right, tables, "skewness", np.linspace(-widest, widest, 21), 0, above=False)
        right.set(xlabel="skewness of the response", title="Skewness over random patches")
    return fig


def _histograms(ax, tables: dict, column: str, bins, middle: float, above: bool) -> None:
    """Units of the first network (grey) and of others (orange) by one column; the legend counts the low."""
    where = f"{'above' if above else 'below'} {middle:g}"
    for number, (name, table) in enumerate(tables.items()):
        values = table[column].dropna().to_numpy()
        share = 100 * np.mean(values > middle if above else values < middle)
        weights = np.full(len(values), 100 / max(len(values), 1))
        style = {"histtype": "step", "color": ORANGE} if number else {"alpha": 0.35, "color": "black"}
        label = f"{name}: {share:.0f}% of units {where}"
        ax.hist(values, bins, weights=weights, label=label, **style)
    top = ax.get_ylim()[1]
    ax.plot([middle, middle], [0, top], color="black", linestyle=":", linewidth=1)
    ax.set(ylabel="units (%)", ylim=(0, (1.2 + 0.1 * len(tables)) * top))  # room for the legend
    ax.legend(frameon=False, fontsize=8, loc="upper left")


def content_map(table):
    """What the patches of units with a known answer show: excess over the share of all windows, signed.

    Args:
        table: as `concept_enrichment` gives it. A frame marks the concepts that should stand out: among the
            highest patches those with a positive planted effect, among the lowest those with a negative one.

    Returns:
        The figure, one panel a side.
    """
    with companion_style():
        fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.1), sharey=True)
        limit = table.excess.abs().max()
        for ax, (side, colour) in zip(axes, COLOURS.items(), strict=True):
            part = table[table.side == side]
            units, concepts = part.unit.unique(), part.concept.unique()
            cells = part.set_index(["unit", "concept"]).loc[list(product(units, concepts))]
            values, planted = (
                cells[name].to_numpy().reshape(len(units), -1) for name in ("excess", "planted")
            )
            framed = planted > 1e-6 if side == "highest" else planted < -1e-6
            image = ax.imshow(values, cmap=SIGNED, vmin=-limit, vmax=limit, aspect="auto")
            bare(ax)
            ax.set_xticks(range(len(concepts)), concepts, rotation=35, ha="right")
            ax.set_yticks(range(len(units)), units)
            for (row, column), value in np.ndenumerate(values):
                pale = "white" if abs(value) > 0.6 * limit else "black"
                text = f"{value:+.0f}".replace("-", "−")
                ax.text(column, row, text, ha="center", va="center", color=pale, fontsize=7.5)
                if framed[row, column]:
                    ax.add_patch(Rectangle((column - 0.46, row - 0.46), 0.92, 0.92, fill=False, linewidth=2))
            what = "presence" if side == "highest" else "absence"
            ax.set_title(f"{side} patches\n(framed: planted {what})", color=colour)
            ax.set_xlabel("concept shown in the patch")
        bar = fig.colorbar(image, ax=axes, pad=0.02)
        bar.set_label("share of patches that show it\nminus that of all windows (points)")
    return fig
