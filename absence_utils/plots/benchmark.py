"""Figures of the benchmark: groups of methods, faithfulness curves, bookkeeping of predictions, gallery."""

from __future__ import annotations

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import PercentFormatter

from .attribution import robust_limit, signed_overlay, smoothed
from .base import (
    ABSENCE,
    MARK,
    NEUTRAL,
    ORANGE,
    PRESENCE,
    WIDTH,
    companion_style,
    interval_points,
    legend_below,
    name_rows,
    show_image,
    signed_number,
    to_numpy,
)

METHOD = "#b0b0b0"  # dots of single methods
FIND, ALARMS = "name, recall at 1", "false alarms"
PANELS = {
    FIND: "names the suppressor first\n(of 7 concepts)",
    ALARMS: "false alarms on twins\n(lower is better)",
}
OUTSPOKEN = 0.95  # share of absences of which a method says something; with fewer, its row says so
CURVES = ("black", MARK, "#009e73", "#999999", "#cc79a7", "#56b4e9")  # of maps: red and blue are for signs
STEPS = {
    "baseline": "#bdbdbd",
    "presence evidence": PRESENCE,
    "absence evidence": ABSENCE,
    "response": "black",
}
PICTURES = {  # column of the gallery: picture, and the number under it
    "target\nimage": ("target_image", "target_response"),
    "its map": ("target_map", "target_evidence"),
    "non-target\nimage": ("image", "response"),
    "its map,\noutlined": ("non_target_map", "on_concept"),
    "maximum": ("maximum", "maximum_response"),
    "minimum": ("minimum", "minimum_response"),
    "lowest\npatch": ("patch", "patch_response"),
}


def groups(board, best, members: dict[str, list[str]], chance: float | None = None, run=None):
    """Groups of methods: how often the best of each finds the suppressor first, and calls one where none is.

    The first is a share of all absences: one of which a method says nothing is one that it does not find.

    Args:
        board: as `benchmark.leaderboard` gives it, for the pale dots of all methods.
        best: as `benchmark.best_of_groups` gives it: group, method, score, mean, low, high, coverage.
        members: group to its methods, in the order of the rows.
        chance: share of absences whose suppressor comes first by chance.
        run: like board, of a smaller run, of which the same methods are drawn in the same rows; None for none.
    """
    names = [name for name in members if name in set(best.group)]
    chosen = best.drop_duplicates("group").set_index("group").method[names]
    with companion_style():
        fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 1.75 + 0.56 * len(names)), sharey=True)
        for ax, (score, title) in zip(axes, PANELS.items(), strict=True):
            rows = _of_all(best[best.score == score]).set_index("group").reindex(names)
            every = _of_all(board[board.score == score]).set_index("method")["mean"]
            for place, name in enumerate(names):
                dots = every.reindex(members[name]).drop(chosen[name]).dropna()
                label = "" if place else "other methods of the group"
                at = np.full(len(dots), place - 0.25)
                ax.plot(dots, at, "o", color=METHOD, markersize=4, label=label)
            if run is not None:
                small = _of_all(run[run.score == score]).set_index("method")["mean"].reindex(chosen)
                count = int(run.networks.max())
                at, label = np.arange(len(names)) + 0.27, f"this run ({count} network{'s' * (count > 1)})"
                ax.plot(small, at, "D", color=ORANGE, markersize=4, label=label)
            look = {"color": "black", "markersize": 5.5, "label": "best of the group, 95% interval"}
            interval_points(ax, rows["mean"], np.arange(len(rows)), rows.low, rows.high, **look)
            for place, value in enumerate(rows["mean"]):
                ax.text(1.06, place, "" if np.isnan(value) else f"{value:.0%}", va="center", weight="bold")
            ax.set(title=title, xlim=(-0.03, 1.03), xticks=(0, 0.25, 0.5, 0.75, 1))
            ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            ax.grid(axis="x", color="#eeeeee")
            ax.set_axisbelow(True)
        found = best[best.score == FIND].set_index("group").reindex(names)
        for place, share in enumerate(found.coverage):
            if share < OUTSPOKEN:
                said = f"says nothing of {1 - share:.0%}"
                axes[0].text(share + 0.06, place, said, va="center", color=NEUTRAL, in_layout=False)
        for place in np.flatnonzero(rows["mean"].isna()):  # of the last panel, the false alarms
            axes[1].text(0.05, place, "never finds 80%", va="center", color=NEUTRAL, in_layout=False)
        if chance is not None:
            axes[0].axvline(chance, color="black", linewidth=0.8, linestyle=":", label="chance")
        labels = [f"{name}\n({chosen[name].partition(',')[0]})" for name in names]
        labels = [label.replace("visualisation by", "vis. by").replace("_", " ") for label in labels]
        name_rows(axes[0], labels)
        fig.suptitle(_claim_of_groups(found))
        legend_below(fig, axes[0], 2)
    return fig


def _of_all(rows):
    """Rows whose score is the share found first, as a share of all absences and not of those answered."""
    share = rows.coverage.where(rows.score == FIND, 1)
    return rows.assign(**{name: rows[name] * share for name in ("mean", "low", "high")})


def _claim_of_groups(found) -> str:
    """What the figure of groups shows, in two lines: rows of one score, indexed by group."""
    outspoken = found[found.coverage >= OUTSPOKEN]
    outspoken = outspoken if len(outspoken) else found
    best = outspoken["mean"].max()
    tied = int((outspoken["mean"].round(2) == round(best, 2)).sum())
    quiet = found.coverage.idxmin()
    claim = f"In {tied} of {len(found)} groups the best method names the suppressor first in {best:.0%} of absences"
    if found.coverage[quiet] < OUTSPOKEN:
        claim += f";\n{quiet} says nothing of {1 - found.coverage[quiet]:.0%} of them"
    return claim


def faithfulness_curves(results: dict, where: str = ""):
    """Release and transplant of several maps against the share of pixels, mean and 95% interval over images.

    Args:
        results: name of the map to {fill: `faithfulness.Faithfulness`}; fills "background" and "inpaint".
        where: rule and images, for the title, which says the scores under the exact background.
    """
    colours = dict(zip(results, CURVES, strict=False))
    panels = {
        "release, exact background": ("background", "release"),
        "release, inpainted": ("inpaint", "release"),
        "transplant": ("background", "transplant"),
    }
    with companion_style():
        fig, axes = plt.subplots(1, 3, figsize=(WIDTH, 3.3), sharey=True)
        for ax, (name, (fill, curve)) in zip(axes, panels.items(), strict=True):
            for label, fills in results.items():
                values = to_numpy(getattr(fills[fill], curve))
                mean, half = values.mean(axis=0), 1.96 * values.std(axis=0, ddof=1) / len(values) ** 0.5
                shares = 100 * np.array(fills[fill].shares)
                look = {
                    "fmt": "o-",
                    "markersize": 3,
                    "linewidth": 1.2,
                    "color": colours[label],
                    "label": label,
                }
                interval_points(ax, mean, shares, mean - half, mean + half, vertical=True, **look)
            ax.set_xscale("log")
            ax.set_xticks(shares, [f"{share:g}%" for share in shares])
            ax.minorticks_off()
            ax.axhline(0, color="black", linewidth=0.6, zorder=0)
            ax.set(title=name, xlabel="share of pixels")
        axes[0].set_ylabel("effect minus\nmatched control (sd)")
        scores = {name: float(fills["background"].score.mean()) for name, fills in results.items()}
        said = ", ".join(f"{name} {_decimals(value)}" for name, value in scores.items())
        fig.suptitle(f"{where}{': ' * bool(where)}faithfulness in sd,\n{said}")
        legend_below(fig, axes[0], 5)
    return fig


def _decimals(value: float) -> str:
    """Two digits behind the point, with a sign that can be seen, and none before a zero."""
    return "0" if round(value, 2) == 0 else f"{value:+.2f}".replace("-", "−")


def diagnosis_waterfall(table):
    """The way of each prediction from the baseline to the response, and what is said of it.

    Args:
        table: columns case, baseline_response, presence, absence, response, verdict, after_showing; a row for each
            prediction. What the integration misses is the step between the last evidence and the response.

    Returns:
        The figure. Of its first axes each container holds the bars of one of `STEPS`.
    """
    shifts, height = (-0.3, -0.1, 0.1, 0.3), 0.19
    at = np.arange(len(table))
    top = table.baseline_response + table.presence
    starts = (0, table.baseline_response, top, 0)
    widths = (table.baseline_response, table.presence, -table.absence, table.response)
    with companion_style():
        fig = plt.figure(figsize=(WIDTH, 1.5 + 0.46 * len(table)))
        ax, words = fig.subplots(1, 2, sharey=True, width_ratios=(1, 1.05))
        for shift, start, width, (label, colour) in zip(shifts, starts, widths, STEPS.items(), strict=True):
            ax.barh(at + shift, width, height, left=start, color=colour, label=label)
        levels = (table.baseline_response, top, top - table.absence)
        for shift, level in zip(shifts, levels, strict=False):  # one step hands its level to the next
            ax.vlines(level, at + shift - height / 2, at + shift + 0.3, color="0.4", linewidth=0.8)
        ax.plot(table.response, at + shifts[-1], "o", color=STEPS["response"], markersize=5)  # seen at 0, too
        ax.axvline(0, color="black", linewidth=0.8)
        ax.use_sticky_edges = False  # room behind the longest bar
        ax.margins(x=0.06)
        name_rows(ax, [case.replace(": shows", ":\nshows") for case in table.case])
        words.set_axis_off()
        for panel in (ax, words):
            for line in at[1:] - 0.5:
                panel.axhline(line, color="#e5e5e5", linewidth=0.8, zorder=0)
        headings = {"from the account alone": table.verdict, "after showing concepts": table.after_showing}
        for x, (heading, said) in zip((0.02, 0.55), headings.items(), strict=True):
            words.text(x, -0.75, textwrap.fill(heading, 14), va="bottom", weight="bold")
            for place, verdict in zip(at, said, strict=True):
                text = textwrap.fill(verdict, 16, break_on_hyphens=False) or "–"
                words.text(x, place, text, va="center")
        ax.set_xlabel("units of the layer (black baseline)")
        fig.suptitle(_claim_of_accounts(table))
        legend_below(fig, ax, 4)
    return fig


def _claim_of_accounts(table) -> str:
    """How many predictions with the same account turn out to be different things."""
    driven, down = (
        table[table.verdict == verdict].after_showing for verdict in ("baseline-driven", "held down")
    )
    return (
        f"One account, different reasons: of {len(driven)} responses driven by the baseline\n"
        f"{(driven == 'absence-driven').sum()} rest on an absence, of {len(down)} held down "
        f"{(down == 'suppressed').sum()} are suppressed"
    )


def gallery(rows, smooth: float = 0.015):
    """One row a rule: a target and a non-target image with their maps, synthesised extremes, the lowest patch.

    Args:
        rows: as `benchmark.gallery.gallery_rows` gives them.
        smooth: width of the Gaussian under which maps are drawn, as a share of the edge.

    Returns:
        The figure, and its numbers: rule, concept, planted, and those of `PICTURES`, with what the lowest patch shows.
    """
    table = pd.DataFrame(
        [{name: row[name] for name in ("rule", "concept", "planted")} | row["numbers"] for row in rows]
    )
    with companion_style():
        size = (WIDTH, 1.25 + 1.22 * len(rows))
        fig, axes = plt.subplots(len(rows), len(PICTURES), figsize=size, squeeze=False)
        for line, row in zip(axes, rows, strict=True):
            maps = {name: smoothed(row[name], smooth) for name in ("target_map", "non_target_map")}
            limit = robust_limit(np.stack(list(maps.values())))
            behind = {"target_map": row["target_image"], "non_target_map": row["image"]}
            for ax, (name, number) in zip(line, PICTURES.values(), strict=True):
                if name in maps:
                    signed_overlay(ax, behind[name], maps[name], limit)
                else:
                    show_image(ax, row[name])
                value = row["numbers"][number]
                ax.set_xlabel("none planted" if np.isnan(value) else signed_number(value), labelpad=2)
            if row["planted"]:
                line[3].contour(to_numpy(row["mask"]).astype(float), [0.5], colors=MARK, linewidths=0.9)
                line[3].set_xlabel(f"{row['concept']} {line[3].get_xlabel()}", labelpad=2)
            line[0].set_ylabel(row["rule"].replace(" and ", "\nand ").replace(" or ", "\nor "))
        for ax, title in zip(axes[0], PICTURES, strict=True):
            ax.set_title(title)
        fig.suptitle(_claim_of_gallery(table))
        note = (
            "under images: the logit; under maps: net evidence, of the whole target image or on the outlined concept,\n"
            "whose absence the rule asks for; red raises the logit, blue lowers it, on one scale for each row"
        )
        fig.supxlabel(note, fontsize=9)
    return fig, table


def _claim_of_gallery(table) -> str:
    planted = table[table.planted]
    on_concept, shown = (planted.on_concept < 0).sum(), (planted.patch_shows > 0.5).sum()
    return (
        f"In {on_concept} of {len(planted)} rules with an absence the evidence on that concept is negative,\n"
        f"and in {shown} of {len(planted)} the lowest patch shows it"
    )
