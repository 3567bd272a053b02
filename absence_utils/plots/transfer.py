"""Figure of transfer: what other networks keep of a pole's effect."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np

from .base import ABSENCE, NEUTRAL, ORANGE, PRESENCE, WIDTH, companion_style, interval_points, name_rows

LIMITS = (-1.25, 2.25)  # shares beyond are drawn at the edge


def kept_shares(table, summary, title: str = ""):
    """A row for each group of networks: the mean share that they keep of each pole's effect, with interval.

    Args:
        table: of `transfer_table`, with the group's column; a pale dot for each of its units (mean over
            networks).
        summary: of `transfer_summary(table, by=(group, "pole"))`.
        title: of the figure.

    A pole whose name begins with "maximum" is red, with "minimum" blue, hollow where more follows (a
    control). Shares outside -1.25..2.25 are drawn at the edge, as triangles.

    Returns:
        The figure.
    """
    group = summary.columns[0]
    groups, poles = list(dict.fromkeys(summary[group])), list(dict.fromkeys(summary["pole"]))
    offsets = np.linspace(-0.32, 0.32, len(poles)) if len(poles) > 1 else [0.0]
    with companion_style():
        fig, ax = plt.subplots(figsize=(WIDTH, 1.2 + max(0.55, 0.17 * len(poles)) * len(groups)))
        for place, name in enumerate(groups):
            for pole, offset in zip(poles, offsets, strict=True):
                colour, filled = _look(pole)
                rows = summary[(summary[group] == name) & (summary["pole"] == pole)]
                part = table[(table[group] == name) & (table["pole"] == pole)]
                kept = part.groupby("unit")["kept"].mean().dropna().to_numpy()
                _dots(ax, kept, place + offset, colour)
                label = pole if place == 0 else None
                face = colour if filled else "white"
                look = {"color": colour, "markerfacecolor": face, "markersize": 5, "label": label}
                value, low, high = (rows[column].clip(*LIMITS) for column in ("kept", "low", "high"))
                interval_points(ax, value, [place + offset] * len(rows), low, high, **look)
        for value, style in ((0, "-"), (1, ":")):
            ax.axvline(value, color=NEUTRAL, linewidth=0.8, linestyle=style, zorder=0)
        ax.set(
            xlim=(LIMITS[0] - 0.05, LIMITS[1] + 0.05),
            xlabel="share of the effect kept (1: all, below 0: reversed)",
        )
        name_rows(ax, groups)
        fig.legend(loc="outside upper center", ncols=3, frameon=False)
        ax.set_title(title)
    return fig


def _look(pole: str) -> tuple[str, bool]:
    """Colour of a pole, and whether its marker is filled."""
    first = pole.partition(",")[0]
    return {"maximum": PRESENCE, "minimum": ABSENCE}.get(first, ORANGE), pole in ("maximum", "minimum")


def _dots(ax, kept: np.ndarray, at: float, colour: str) -> None:
    low, high = LIMITS
    for chosen, marker in (((kept >= low) & (kept <= high), "."), (kept < low, "<"), (kept > high, ">")):
        ax.plot(kept[chosen].clip(low, high), np.full(chosen.sum(), at), marker, color=colour, alpha=0.35,
                markersize=4, linestyle="none")  # fmt: skip
