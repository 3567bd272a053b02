"""Figures of the benchmark: groups of methods, faithfulness curves, bookkeeping of predictions, gallery."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import PercentFormatter

from .attribution import smoothed
from .base import (
    ABSENCE,
    NEUTRAL,
    ORANGE,
    PRESENCE,
    WIDTH,
    bare,
    companion_style,
    interval_points,
    legend_above,
    name_rows,
    show_image,
    signed_limit,
    signed_map,
    to_numpy,
)

METHOD = "#9ecae1"  # dots of single methods
FIND, ALARMS = "name, recall at 1", "false alarms"
PANELS = {
    FIND: "names the suppressor first\n(of 7 concepts)",
    ALARMS: "false alarms on twins\n(lower is better)",
}


def groups(board, best, members: dict[str, list[str]], chance: float | None = None, run=None):
    """Groups of methods: how often the best of each finds the suppressor first, and calls one where none is.

    Args:
        board: as `benchmark.leaderboard` gives it, for the pale dots of all methods.
        best: as `benchmark.best_of_groups` gives it: group, method, score, mean, low, high, coverage.
        members: group to its methods, in the order of the rows.
        chance: share of absences whose suppressor comes first by chance.
        run: like board, of a smaller run, of which the same methods are drawn beside; None for none.
    """
    names = [name for name in members if name in set(best.group)]
    chosen = best.drop_duplicates("group").set_index("group").method[names]
    with companion_style():
        fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 1.1 + 0.52 * len(names)), sharey=True)
        for ax, (score, title) in zip(axes, PANELS.items(), strict=True):
            rows = best[best.score == score].set_index("group").reindex(names)
            every = board[board.score == score].set_index("method")["mean"]
            for place, name in enumerate(names):
                dots = every.reindex(members[name]).drop(chosen[name]).dropna()
                ax.plot(dots, np.full(len(dots), place - 0.22), "o", color=METHOD, markersize=3.5)
            if run is not None:
                small = run[run.score == score].set_index("method")["mean"].reindex(chosen)
                ax.plot(small, np.arange(len(names)) + 0.24, "D", color=ORANGE, markersize=3.5)
            look = {"color": "black", "markersize": 5}
            interval_points(ax, rows["mean"], np.arange(len(rows)), rows.low, rows.high, **look)
            ax.set(title=title, xlim=(-0.03, 1.03), xticks=(0, 0.25, 0.5, 0.75, 1))
            ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            ax.grid(axis="x", color="#eeeeee")
            ax.set_axisbelow(True)
        found = best[best.score == FIND].set_index("group").reindex(names)
        for place, share in enumerate(found.coverage):
            if share < 0.95:
                said = f"says nothing of {1 - share:.0%}"
                axes[0].text(0.17, place + 0.24, said, va="center", fontsize=7.5, color=NEUTRAL)
        for place in np.flatnonzero(rows["mean"].isna()):  # of the last panel, the false alarms
            axes[1].text(0.03, place, "never finds 80%", va="center", fontsize=7.5, color=NEUTRAL)
        if chance is not None:
            axes[0].axvline(chance, color="black", linewidth=0.6, linestyle=":")
        labels = [
            f"{name.replace('visualisation by', 'vis. by')}\n({chosen[name].partition(',')[0]})"
            for name in names
        ]
        name_rows(axes[0], [label.replace("_", " ") for label in labels], fontsize=7.5)
        note = "black: the best of the group (in brackets), 95% over networks and rules; blue: the others"
        note += ("" if chance is None else "; dotted: chance") + ("" if run is None else "\norange: this run")
        fig.supxlabel(note, fontsize=8)
    return fig


def faithfulness_curves(results: dict, title: str = ""):
    """Release and transplant of several maps against the share of pixels, mean and 95% interval over images.

    Args:
        results: name of the map to {fill: `faithfulness.Faithfulness`}; fills "background" and "inpaint".
        title: of the figure.
    """
    colours = dict(zip(results, ("black", ABSENCE, "#4393c3", ORANGE, NEUTRAL, PRESENCE), strict=False))
    panels = {
        "release, exact background": ("background", "release"),
        "release, inpainted": ("inpaint", "release"),
        "transplant": ("background", "transplant"),
    }
    with companion_style():
        fig, axes = plt.subplots(1, 3, figsize=(WIDTH, 2.9), sharey=True)
        for ax, (name, (fill, curve)) in zip(axes, panels.items(), strict=True):
            for label, fills in results.items():
                values = to_numpy(getattr(fills[fill], curve))
                mean, half = values.mean(axis=0), 1.96 * values.std(axis=0, ddof=1) / len(values) ** 0.5
                shares = 100 * np.array(fills[fill].shares)
                look = {"fmt": "o-", "markersize": 3, "linewidth": 1, "color": colours[label], "label": label}
                interval_points(ax, mean, shares, mean - half, mean + half, vertical=True, **look)
            ax.set_xscale("log")
            ax.set_xticks(shares, [f"{share:g}" for share in shares])
            ax.minorticks_off()
            ax.axhline(0, color="black", linewidth=0.6)
            ax.set(title=name, xlabel="share of pixels (%)")
        axes[0].set_ylabel("effect minus\nmatched control (sd)")
        legend_above(fig, axes[0], 5, title=title)
    return fig


def diagnosis_bars(table):
    """Where the response of one prediction comes from: baseline, presence and absence evidence; and both verdicts.

    Args:
        table: columns case, baseline_response, presence, absence, response, verdict, after_showing; a row for each
            prediction.
    """
    at = np.arange(len(table))
    with companion_style():
        size = (WIDTH, 1 + 0.27 * len(table))
        fig, (ax, words) = plt.subplots(1, 2, figsize=size, sharey=True)
        base = table.baseline_response
        ax.barh(at, base, 0.6, color="#bdbdbd", label="baseline")
        ax.barh(at, table.presence, 0.6, left=base, color=PRESENCE, label="presence evidence")
        start = base + table.presence
        ax.barh(at, -table.absence, 0.25, left=start, color=ABSENCE, label="absence evidence")
        ax.plot(table.response, at, "k|", markersize=11, label="response")
        ax.axvline(0, color="black", linewidth=0.6)
        name_rows(ax, table.case, fontsize=7.5)
        words.set_axis_off()
        headings = {
            "the account\nalone says": table.verdict,
            "after showing\nconcepts": table.after_showing,
        }
        for x, (heading, said) in zip((0, 0.6), headings.items(), strict=True):
            words.text(x, -1.1, heading, va="center", fontsize=7.5, weight="bold")
            for place, verdict in zip(at, said, strict=True):
                words.text(x, place, verdict or "–", va="center", fontsize=7.5)
        ax.set_xlabel("units of the layer (black baseline)")
        legend_above(fig, ax, 4)
    return fig


def gallery(rows, smooth: float = 0.015):
    """One row a rule: a non-target image, the mask of the planted concept, maps, synthesised extremes, lowest patch.

    Args:
        rows: dicts with name, image and target_image [channel, height, width] in 0..1, mask [height, width] bool,
            target_map and non_target_map [height, width] signed, maximum, minimum and patch as images.
        smooth: width of the Gaussian under which maps are drawn, as a share of the edge.
    """
    titles = ("non-target image", "planted concept", "target image", "target map", "non-target map", "maximum",
              "minimum", "lowest patch")  # fmt: skip
    with companion_style():
        size = (WIDTH, 0.55 + 0.95 * len(rows))
        fig, axes = plt.subplots(len(rows), len(titles), figsize=size, squeeze=False)
        for line, row in zip(axes, rows, strict=True):
            maps = {name: smoothed(row[name], smooth) for name in ("target_map", "non_target_map")}
            limit = signed_limit(*maps.values())
            show_image(line[0], row["image"])
            line[1].imshow(to_numpy(row["mask"]), cmap="gray_r", vmin=0, vmax=1)
            show_image(line[2], row["target_image"])
            for ax, values in zip(line[3:5], maps.values(), strict=True):
                signed_map(ax, values, limit)
            for ax, name in zip(line[5:], ("maximum", "minimum", "patch"), strict=True):
                show_image(ax, row[name])
            for ax in line:
                bare(ax)
            line[0].set_ylabel(row["name"].replace(" and ", "\nand "), fontsize=7.5)
        for ax, title in zip(axes[0], titles, strict=True):
            ax.set_title(title.replace(" ", "\n"), fontsize=7.5)
    return fig
