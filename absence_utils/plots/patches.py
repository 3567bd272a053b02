"""Figures of extreme patches from arrays and tables: contact sheets, shape of the response, what the patches show."""

from __future__ import annotations

from itertools import product

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

from .base import (
    ABSENCE,
    MARK,
    NEUTRAL,
    ORANGE,
    PRESENCE,
    WIDTH,
    bare,
    companion_style,
    drawn_once,
    fixed_number,
    name_rows,
    signed_number,
    to_numpy,
)

COLOURS = {"highest": PRESENCE, "lowest": ABSENCE}
GAP = 0.08  # between patches, in widths of a patch
TEXT = 0.24  # room for a response above a patch, in widths of a patch
HEAD = 0.3  # room for the heads of the columns, in widths of a patch
MARGIN = 1.0  # room for the names of the rows at the left


def contact_sheet(patches: dict, table, titles: dict[int, str], pairs: dict | None = None):
    """Highest and lowest patches of each unit with their responses, beside the synthesised images.

    Args:
        patches: unit to (highest, lowest), each [k, channel, height, width] in 0..1, best first.
        table: as `patch_table` gives it; the responses are read from here.
        titles: unit to title.
        pairs: unit to `RenderedPair`; None leaves the first column out.

    Returns:
        The figure, one block a unit. The title says how far the patches push the units below zero.
    """
    count = len(next(iter(patches.values()))[0])
    width = MARGIN + (count + bool(pairs)) * (1 + GAP) + (GAP if pairs else 0)
    rows = 2 * (1 + TEXT + GAP)
    several = len(patches) > 1  # a single unit is title enough
    block, head = rows + 0.45, HEAD + 0.35 * several  # heights in widths of a patch
    scale = WIDTH / width
    with companion_style():
        height = (head + block * len(patches)) * scale
        fig = plt.figure(figsize=(WIDTH, height), layout="none")
        for index, (unit, sides) in enumerate(patches.items()):
            bottom = 1 - (head + block * index + block) * scale / height
            ax = fig.add_axes((0, bottom, 1, block * scale / height))
            ax.set(xlim=(0, width), ylim=(block, 0))
            ax.axis("off")
            ax.text(0.06, 0.2, titles[unit], fontweight="bold", va="center")
            for row, (side, pixels) in enumerate(zip(COLOURS, sides, strict=True)):
                top = 0.4 + row * rows / 2 + TEXT
                shown = table[(table.unit == unit) & (table.side == side)].sort_values("rank")
                if pairs:
                    pixels = [getattr(pairs[unit], side).image[0], *pixels]
                _row(ax, top, side, pixels, shown.response.tolist(), offset=GAP if pairs else 0)
        text = "patches of the images, with the response to each (units of the layer)"
        if several:
            fig.suptitle(_pushed_down(table), y=1 - 0.08 * scale / height, va="top")
        heads = [(width - count * (1 + GAP) + GAP, text)] + [(MARGIN, "synthesised")] * bool(pairs)
        for x, text in heads:
            fig.text(x / width, 1 - (head - 0.12) * scale / height, text, color=NEUTRAL, va="center")
    return fig


def _pushed_down(table) -> str:
    """How many units have patches below zero, and how far their lowest and highest patches go."""
    patches = table[table["rank"] > 0]
    low = patches.groupby("unit").response.min()
    return (
        f"Patches push {(low < 0).sum()} of {len(low)} units below zero; their lowest responses are "
        f"{signed_number(low.min())} to {signed_number(low.max())}"
    )


def unit_sheet(unit: int, title: str, crops, table):
    """The `contact_sheet` of one unit, to be looked at: `crops` are its (highest, lowest) patches."""
    return drawn_once(contact_sheet({unit: crops}, table, {unit: title}))


def _row(ax, top: float, side: str, pixels, responses: list[float], offset: float) -> None:
    ax.text(MARGIN - 0.1, top + 0.5, side, ha="right", va="center", color=COLOURS[side])
    for place, (patch, response) in enumerate(zip(pixels, responses, strict=True)):
        left = MARGIN + place * (1 + GAP) + (offset if place else 0)
        patch = to_numpy(patch)
        if len(patch) != 3:  # not colours: in grey
            patch = np.repeat(patch.mean(0, keepdims=True), 3, axis=0)
        ax.imshow(
            np.clip(patch, 0, 1).transpose(1, 2, 0), extent=(left, left + 1, top + 1, top), aspect="auto"
        )
        ax.add_patch(Rectangle((left, top), 1, 1, fill=False, color=COLOURS[side], linewidth=0.8))
        ax.text(left + 0.5, top - 0.04, signed_number(response), ha="center", va="bottom")


def response_shapes(tables: dict):
    """Shape of the response of all units: how far down it goes, and how much of its range lies below the blank.

    Args:
        tables: name to table as `range_table` gives it: first a network, then its copies with random weights.

    Returns:
        The figure, one panel a quantity; a dot is a unit, its height within its row means nothing. The title counts
        the units with a low side: more than 5% of all patches answer below the blank.
    """
    names, counts = list(tables), [_with_low_side(table) for table in tables.values()]
    own, *random = counts
    with companion_style():
        size = (WIDTH, 1.5 + 0.6 * len(tables))
        fig, (left, right) = plt.subplots(1, 2, figsize=size)
        _dots(left, tables, "p5_sd", 0)
        left.set_xlabel("5th percentile of the responses minus\nthe blank (sd); left of 0: a low side")
        name_rows(left, [f"{name}\n{count} left of 0" for name, count in zip(names, counts, strict=True)])
        _dots(right, tables, "share_below", 0.5)
        right.set(
            xlabel="share of the range from lowest to highest\npatches that lies below the blank",
            xlim=(-0.02, 1.02),
        )
        beyond = [100 * np.mean(table.share_below.dropna() > 0.5) for table in tables.values()]
        name_rows(right, [f"{share:.0f}% right\nof 0.5" for share in beyond])
        beside = f"{min(random)} to {max(random)}" if random else "not compared"
        fig.suptitle(
            f"{own} of {len(next(iter(tables.values())))} units have a low side "
            f"(copies with random weights: {beside})"
        )
    return fig


def _with_low_side(table) -> int:
    """Units whose 5th percentile of responses is lower than the blank."""
    return int((table.p5_sd < 0).sum())


def _dots(ax, tables: dict, column: str, middle: float) -> None:
    """A row of dots for each table, the first black and others orange, and a dotted line at the middle."""
    for row, table in enumerate(tables.values()):
        values = table[column].dropna().to_numpy()
        height = (
            np.argsort(np.argsort(values, kind="stable")) * 0.618034
        ) % 1 - 0.5  # even, the same in every run
        colour = ORANGE if row else "black"
        ax.scatter(values, row + 0.5 * height, s=9, color=colour, alpha=0.6, linewidths=0)
    ax.axvline(middle, color="black", linestyle=":", linewidth=1)


def content_map(table):
    """What the patches of units with a known answer show: excess over the share of all windows, signed.

    Args:
        table: as `concept_enrichment` gives it. A frame marks the concepts that should stand out: among the
            highest patches those with a positive planted effect, among the lowest those with a negative one.

    Returns:
        The figure, one panel a side. Dark cells are shown more often than by chance. The title counts the planted
        absences that stand out: no other concept is shown so often at that end of the unit.
    """
    with companion_style():
        fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.5), sharey=True)
        limit = table.excess.abs().max()
        for ax, (side, colour) in zip(axes, COLOURS.items(), strict=True):
            part = table[table.side == side]
            units, concepts = part.unit.unique(), part.concept.unique()
            cells = part.set_index(["unit", "concept"]).loc[list(product(units, concepts))]
            values, planted = (
                cells[name].to_numpy().reshape(len(units), -1) for name in ("excess", "planted")
            )
            framed = planted > 1e-6 if side == "highest" else planted < -1e-6
            image = ax.imshow(values, cmap="Greys", vmin=0, vmax=limit, aspect="auto")
            bare(ax)
            ax.set_xticks(range(len(concepts)), concepts, rotation=35, ha="right")
            ax.set_yticks(range(len(units)), units)
            for (row, column), value in np.ndenumerate(values):
                pale = "white" if value > 0.6 * limit else "black"
                text = fixed_number(value, 0, plus=True)
                ax.text(column, row, text, ha="center", va="center", color=pale)
                if framed[row, column]:
                    ax.add_patch(
                        Rectangle(
                            (column - 0.5, row - 0.5),
                            1,
                            1,
                            fill=False,
                            clip_on=False,
                            edgecolor=MARK,
                            linewidth=2.5,
                        )
                    )
            what = "presence" if side == "highest" else "absence"
            ax.set_title(f"{side} patches\n(framed: planted {what})", color=colour)
            ax.set_xlabel("concept shown in the patch")
        bar = fig.colorbar(image, ax=axes, pad=0.02)
        bar.set_label("share of patches that show it\nminus that of all windows (points)")
        leading = {side: _leading_absences(table[table.side == side]) for side in COLOURS}
        count = (table[table.side == "lowest"].planted < -1e-6).sum()
        fig.suptitle(
            f"{leading['lowest']} of {count} planted absences lead their row among the lowest patches, "
            f"{leading['highest']} of {count} among the highest"
        )
    return fig


def _leading_absences(part) -> int:
    """Planted absences with the largest excess of their unit, among the rows of one side."""
    most = part.groupby("unit").excess.transform("max")
    return int(((part.planted < -1e-6) & (part.excess == most) & (part.excess > 0)).sum())
