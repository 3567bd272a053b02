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
    fixed_number,
    interval_points,
    name_rows,
    show_image,
    zero_line,
)

SHOWN = 3  # patches at each end, and pictures of each kind
TESTS = {"absolute": "black", "specific": ORANGE, "active": "#999999"}
LABELS = {
    "absolute": "against mean colour and scrambled copy, the weaker of the two",
    "specific": "against other donors, matched in colour, contrast and edges",
    "active": "against the mean colour, in hosts in which the unit is active",
}
READINGS = ("#444444", "#bbbbbb")  # red and blue are for signs


def named_units(rows, patches):
    """For each unit: its highest and lowest patches, the name, and what the name's donors do to it.

    Args:
        rows: of `naming.NamingResult.table`, one for each unit.
        patches: for each unit its `patches.book.PatchPixels`.

    Returns:
        The figure.
    """
    count = len(rows)
    with companion_style():
        figure = plt.figure(figsize=(WIDTH, 1.6 + 0.58 * count))
        places = figure.add_gridspec(count, 2 * SHOWN + 1, width_ratios=[*[1] * 2 * SHOWN, 4.6])
        grid = [
            [figure.add_subplot(places[row, column]) for column in range(2 * SHOWN)] for row in range(count)
        ]
        for side, offset, colour in (("highest", 0, PRESENCE), ("lowest", SHOWN, ABSENCE)):
            grid[0][offset + SHOWN // 2].set_title(f"{side} patches", color=colour)
            for row in range(count):
                for place, pixels in enumerate(getattr(patches[row], side)[:SHOWN]):
                    ax = grid[row][offset + place]
                    show_image(ax, pixels, ax.get_title())
        ax = figure.add_subplot(places[:, -1])
        for shift, (test, colour) in zip((-0.2, 0, 0.2), TESTS.items(), strict=True):
            at = np.arange(count) + shift
            ends = rows[test], at, rows[f"{test}_low"], rows[f"{test}_high"]
            interval_points(ax, *ends, color=colour, label=LABELS[test])
        ax.axvline(0, color="0.6", linewidth=0.8)
        name_rows(ax, [f"{row.unit}: {row.name}" for row in rows.itertuples(index=False)])
        ax.set_ylim(count - 0.5, -0.5)  # each row at the height of its patches
        ax.set_xlabel("effect of the name's donors (sd)")
        figure.suptitle(_claim_of_names(rows))
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", frameon=False)
    return figure


def _claim_of_names(rows) -> str:
    """How many of the names shown are confirmed, and how far their donors lower the unit."""
    weakest, strongest = (fixed_number(value, 2) for value in (rows.absolute.max(), rows.absolute.min()))
    return (
        f"{int(rows.confirmed.sum())} of {len(rows)} names shown are confirmed:\n"
        f"pictures of the name change the unit by {weakest} to {strongest} sd"
    )


def naming_summary(shares, joined):
    """Share of units with a confirmed name; and, where it is known, the exact effect of each name.

    Args:
        shares: columns network, reading, units, confirmed.
        joined: as `naming.join_readings` gives it; None where nothing is exact.

    Returns:
        The figure, and the table that it draws: the names with what is exact, else the shares.
    """
    readings = list(dict.fromkeys(shares.reading))
    panels = 1 if joined is None else 1 + len(readings)
    with companion_style():
        figure, axes = plt.subplots(1, panels, figsize=(WIDTH, 3.6), squeeze=False)
        _shares(axes[0, 0], shares, readings)
        for ax, reading in zip(axes[0, 1:], readings, strict=False):
            _against_truth(ax, joined[joined.reading == reading], reading)
        figure.suptitle(_claim_of_shares(shares, joined))
        handles = axes[0, 0].get_legend_handles_labels()
        if panels > 1:
            handles = [
                one + other
                for one, other in zip(handles, axes[0, 1].get_legend_handles_labels(), strict=True)
            ]
        figure.legend(
            *handles, loc="outside lower center", ncols=len(handles[0]), frameon=False, columnspacing=1.2
        )
    return figure, shares if joined is None else joined


def _claim_of_shares(shares, joined) -> str:
    """Confirmed names of each network, over all readings; and how many of them are the strongest suppressor."""
    parts = []
    for network, rows in shares.groupby("network", sort=False):
        parts.append(f"{str(network).replace('_', ' ')} {rows.confirmed.sum()} of {rows.units.sum()}")
    claim = f"Confirmed names: {', '.join(parts)}"
    if joined is not None and joined.confirmed.any():
        named = joined[joined.confirmed]
        claim += f";\n{(named.name == named.strongest).sum()} of {len(named)} are the strongest suppressor"
    return claim


def _shares(ax, shares, readings: list[str]) -> None:
    networks = list(dict.fromkeys(shares.network))
    for shift, reading, colour in zip((-0.18, 0.18), readings, READINGS, strict=False):
        rows = shares[shares.reading == reading].set_index("network").loc[networks]
        at = np.arange(len(networks)) + shift
        ax.barh(at, rows.confirmed / rows.units, 0.32, color=colour, label=reading)
        for y, confirmed, units in zip(at, rows.confirmed, rows.units, strict=True):
            ax.annotate(f" {confirmed} of {units}", (confirmed / units, y), va="center")
    name_rows(ax, [textwrap.fill(name.replace("_", " "), 12, break_long_words=False) for name in networks])
    ax.set_xlim(0, 1.9)
    ax.set_xticks([0, 0.5, 1], ["0%", "50%", "100%"])
    ax.set_xlabel("units with a name")


def _against_truth(ax, rows, reading: str) -> None:
    """Exact effect of each name against that of the strongest suppressor; on the diagonal the name is the strongest."""
    named, unconfirmed = rows[rows.confirmed], rows[~rows.confirmed]
    same = named.name == named.strongest
    look = {"markersize": 4, "linestyle": "none"}
    for kind, marker, colour, label in (
        (unconfirmed, "x", "0.6", "not confirmed"),
        (named[same], "o", "black", "the strongest"),
        (named[~same], "s", ORANGE, "another"),
    ):
        ax.plot(kind.strongest_effect, kind.exact, marker, color=colour, label=label, **look)
    low = min(rows.strongest_effect.min(), -0.2)
    ax.plot([low, 0], [low, 0], color="0.6", linewidth=0.8, zorder=0)
    zero_line(ax)
    ax.set_title(f"{reading}: {same.sum()} of {len(named)}\nnames are the strongest")
    ax.set_xlabel("exact effect of\nthe strongest (sd)")
    ax.set_ylabel("exact effect of the name (sd)")


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
