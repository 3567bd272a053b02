"""Figures of names: the strongest units with their names and effects, shares named, names against exact truth."""

from __future__ import annotations

import textwrap

import matplotlib.pyplot as plt
import numpy as np

from .base import (
    ABSENCE,
    NEUTRAL,
    ORANGE,
    PRESENCE,
    WIDTH,
    companion_style,
    drawn_once,
    interval_points,
    name_rows,
    show_image,
    zero_line,
)

SHOWN = 3  # patches at each end, and pictures of each kind
TESTS = {"absolute": ABSENCE, "specific": ORANGE, "active": NEUTRAL}
LABELS = {
    "absolute": "against mean colour and scrambled copy",
    "specific": "against other donors, matched",
    "active": "in hosts in which the unit is active",
}


def named_units(rows, patches: dict, labels: list[str]):
    """For each unit: its highest and lowest patches, the name, and what the name's donors do to it.

    Args:
        rows: of `naming.NamingResult.table`, one for each unit.
        patches: "highest" and "lowest" to [unit, patch, channel, height, width] pixels in 0..1.
        labels: of the rows.

    Returns:
        The figure.
    """
    count = len(rows)
    with companion_style():
        figure = plt.figure(figsize=(WIDTH, 0.9 + 0.55 * count))
        left, right = figure.subfigures(1, 2, width_ratios=(1.25, 1))
        grid = left.subplots(count, 2 * SHOWN, squeeze=False)
        for side, offset, colour in (("highest", 0, PRESENCE), ("lowest", SHOWN, ABSENCE)):
            grid[0, offset + SHOWN // 2].set_title(f"{side} patches", color=colour)
            for row in range(count):
                for place, pixels in enumerate(patches[side][row][:SHOWN]):
                    title = grid[row, offset + place].get_title()
                    show_image(grid[row, offset + place], pixels, title)
        ax = right.subplots()
        for shift, (test, colour) in zip((-0.2, 0, 0.2), TESTS.items(), strict=True):
            at = np.arange(count) + shift
            ends = rows[test], at, rows[f"{test}_low"], rows[f"{test}_high"]
            interval_points(ax, *ends, color=colour, label=LABELS[test])
        ax.axvline(0, color="0.6", linewidth=0.8)
        name_rows(ax, labels)
        ax.set_xlabel("effect of the name's donors (sd)")
        figure.legend(
            *ax.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=7
        )
    return figure


def naming_summary(shares, joined):
    """Share of units with a confirmed name; and, where it is known, the exact effect of each name.

    Args:
        shares: columns network, reading, units, confirmed.
        joined: as `naming.join_truth` gives it, of all readings; None where nothing is exact.
    """
    readings = list(dict.fromkeys(shares.reading))
    panels = 1 if joined is None else 1 + len(readings)
    with companion_style():
        figure, axes = plt.subplots(1, panels, figsize=(WIDTH, 2.9), squeeze=False)
        _shares(axes[0, 0], shares, readings)
        for ax, reading in zip(axes[0, 1:], readings, strict=False):
            _against_truth(ax, joined[joined.reading == reading], reading)
        if panels > 1:
            axes[0, 1].legend(frameon=False, fontsize=7)
    return figure


def _shares(ax, shares, readings: list[str]) -> None:
    networks = list(dict.fromkeys(shares.network))
    for shift, reading, colour in zip((-0.18, 0.18), readings, (ABSENCE, ORANGE), strict=False):
        rows = shares[shares.reading == reading].set_index("network").loc[networks]
        at = np.arange(len(networks)) + shift
        ax.barh(at, rows.confirmed / rows.units, 0.32, color=colour, label=reading)
        for y, confirmed, units in zip(at, rows.confirmed, rows.units, strict=True):
            ax.annotate(f" {confirmed} of {units}", (confirmed / units, y), va="center", fontsize=7)
    name_rows(ax, [textwrap.fill(name.replace("_", " "), 12, break_long_words=False) for name in networks])
    ax.set_xlim(0, 1.7)
    ax.set_xticks([0, 0.5, 1])
    ax.set_xlabel("share of units with a name")
    ax.legend(frameon=False, fontsize=7, loc="lower right")


def _against_truth(ax, rows, reading: str) -> None:
    """Exact effect of each name against that of the strongest suppressor; on the diagonal the name is the strongest."""
    named, silent = rows[rows.confirmed], rows[~rows.confirmed]
    same = named.name == named.strongest
    look = {"markersize": 4, "linestyle": "none"}
    ax.plot(silent.strongest_effect, silent.exact, "x", color="0.7", label="not confirmed", **look)
    for kind, marker, colour, label in (
        (named[same], "o", ABSENCE, "the strongest"),
        (named[~same], "s", ORANGE, "another"),
    ):
        ax.plot(kind.strongest_effect, kind.exact, marker, color=colour, label=label, **look)
    low = min(rows.strongest_effect.min(), -0.2)
    ax.plot([low, 0], [low, 0], color="0.6", linewidth=0.8)
    zero_line(ax)
    ax.set_title(f"{reading}: {same.sum()} of {len(named)}\nnames are the strongest")
    ax.set_xlabel("exact, strongest (sd)")
    ax.set_ylabel("exact, name (sd)")


def confirmation_figure(found):
    """What was pasted, and the effect of the concept against each control.

    Args:
        found: a `naming.Confirmation`.
    """
    shown = {name: pixels[: 2 * SHOWN] for name, pixels in found.pictures.items()}
    low, high = (float(end) for end in shown["concept"].aminmax())  # normalised pixels, onto 0..1
    with companion_style():
        figure = plt.figure(figsize=(WIDTH, 0.7 + 0.62 * len(shown)))
        left, right = figure.subfigures(1, 2, width_ratios=(1.2, 1))
        for row, (name, pixels) in zip(left.subplots(len(shown), 2 * SHOWN), shown.items(), strict=True):
            row[0].set_title(name, loc="left")
            for ax in row:
                ax.axis("off")
            for ax, each in zip(row, pixels, strict=False):
                title = ax.get_title(loc="left")
                show_image(ax, ((each - low) / (high - low)).clamp(0, 1))
                ax.set_title(title, loc="left")
        ax, table = right.subplots(), found.effects
        interval_points(ax, table.effect, np.arange(len(table)), table.low, table.high, color=ABSENCE)
        ax.axvline(0, color="0.6", linewidth=0.8)
        ax.axvline(-found.least, color=NEUTRAL, linestyle="--", linewidth=0.8)
        name_rows(ax, table.control)
        ax.set_xlabel("effect of the concept (sd), dashed: least that counts")
        figure.suptitle(f"{found.unit} ({found.reading}): {found.decision}")
    return drawn_once(figure)
