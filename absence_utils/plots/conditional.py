"""Figure of conditional minima: a driver in synthesised surrounds, and what these do with and without it."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt

from .base import (
    ABSENCE,
    NEUTRAL,
    PRESENCE,
    WIDTH,
    companion_style,
    name_rows,
    show_image,
    signed_number,
    wrapped,
)

COLOURS = {"lowest": ABSENCE, "highest": PRESENCE}
WORDS = {"lowest": "minimum", "highest": "maximum"}
SHOWN = ("with driver", "without driver")


def conditional_pairs(pairs, table, names: Sequence[str] | None = None, title: str = ""):
    """A row for each unit: a held-out image, the surrounds with and without its driver, the changes.

    Args:
        pairs: `ConditionalPair`s, all with the same poles.
        table: what `visualization.conditional_table` says of them. The surrounds drawn are those fitted with
            the driver.
        names: of the units; their addresses by default.
        title: of the figure, for example network and layer.

    Returns:
        The figure.
    """
    names = names or [pair.unit.name for pair in pairs]
    poles = pairs[0].poles
    ratios = [1] * (1 + 2 * len(poles)) + [2.2]
    with companion_style():
        size = (WIDTH, 1.1 + max((WIDTH - 0.5) / sum(ratios) + 0.2, 1.2) * len(pairs))
        fig, axes = plt.subplots(len(pairs), len(ratios), squeeze=False, width_ratios=ratios, figsize=size)
        for row, (pair, name) in enumerate(zip(pairs, names, strict=True)):
            show_image(axes[row, 0], pair.driver[0], "image" if row == 0 else "")
            axes[row, 0].set_ylabel(wrapped(name, 1.1))
            for place, pole in enumerate(poles):
                for shown, pictures in enumerate(pair.composed(pole)):
                    ax = axes[row, 1 + 2 * place + shown]
                    head = "\n".join((WORDS[pole], *SHOWN[shown].split()))
                    show_image(ax, pictures[0], head if row == 0 else "")
                    ax.title.set(color=COLOURS[pole])
            _changes(axes[row, -1], table[table["unit"] == pair.unit.name])
        axes[0, -1].set_title("change by the surround\n(number: interaction)")
        axes[-1, -1].set_xlabel("sd of natural responses")
        fig.suptitle(title)
    return fig


def _changes(ax, rows) -> None:
    """The change with the driver (full) and without (hollow), and their difference in words."""
    for at, (_, row) in enumerate(rows.iterrows()):
        look = {"color": COLOURS[row["pole"]], "marker": "o", "markersize": 6, "linestyle": ""}
        ax.plot([row["with_driver"]], [at], **look, label=SHOWN[0])
        ax.plot([row["without_driver"]], [at], **look, fillstyle="none", label=SHOWN[1])
        text = f"{signed_number(row['interaction'])} sd" + (", veto" if row["veto"] else "")
        middle = (row["with_driver"] + row["without_driver"]) / 2
        ax.annotate(text, (middle, at), (0, 8), textcoords="offset points", ha="center")
    ax.axvline(0, color=NEUTRAL, linewidth=0.5)
    name_rows(ax, [WORDS[pole] for pole in rows["pole"]])
    ax.set_ylim(top=-0.8)
    ax.margins(x=0.4)
