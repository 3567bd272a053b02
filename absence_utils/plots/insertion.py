"""Figures of patch insertion from tables: the published table, responses, scores, verdicts, examples."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

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
    show_image,
    signed_number,
)

KIND = {
    "random images": NEUTRAL,
    "top + lowest": ABSENCE,
    "top + random": "#777777",
    "top images": "black",
    "top + highest": PRESENCE,
}
CONTROLS = {  # condition of the absence score: marker and colour
    "random patch": ("o", "black"),
    "mean colour": ("s", ORANGE),
    "phase-scrambled": ("^", "#7b3294"),
    "own patch": ("v", "#008837"),
    "soft edges": ("D", "#c2a5cf"),
    "centre": ("P", "#a6611a"),
    "median images": ("X", "#80cdc1"),
}
DARK, GREY = "#053061", "#bdbdbd"
DECISIONS = {"encodes an absence": "#2166ac", "cannot tell": "#d8b365", "none of that size": "#bbbbbb"}
KIND_COLOURS = ("#2166ac", "#1b7837", "#777777")  # trained on absences, without any, random weights
VERDICTS = {
    "published": ("published test: significant either way", GREY),
    "all_pairs_lower": ("every patch in every image (fewer): lower", "#dddddd"),
    "suppressed": ("absence score > 0 (FDR 5%)", "#92c5de"),
    "vetoed": ("context-dependent (veto)", DARK),
}


def published_table(tables: dict, verdicts):
    """The published table as a picture: mean and standard deviation over images in each condition, averaged over units.

    Args:
        tables: network to `Published.responses`.
        verdicts: as `comparison.verdicts` gives them; the titles say the shares of these networks' units.
    """
    shares = verdicts.groupby("network")[["published", "published_lower", "all_pairs_lower"]].mean()
    with companion_style():
        fig, axes = plt.subplots(1, len(tables), figsize=(WIDTH, 2.9), sharey=True, squeeze=False)
        for ax, (name, table) in zip(axes[0], tables.items(), strict=True):
            for place, (condition, colour) in enumerate(KIND.items()):
                mean, spread = table[table.condition == condition][["mean", "sd"]].mean()
                interval_points(ax, mean, place, mean - spread, mean + spread, color=colour, capsize=3)
                label = f"{signed_number(mean)} ± {signed_number(spread).lstrip('+')}"
                look = {"textcoords": "offset points", "ha": "center", "fontsize": 7.5}
                ax.annotate(label, (mean, place), (0, 5), **look)
            ax.set_yticks(range(len(KIND)), KIND)
            ax.set_ylim(-0.5, len(KIND) - 0.2)
            ax.margins(x=0.12)
            ax.set_xlabel("response (units of the layer):\nmean ± sd over images, averaged over units")
            either, lower, all_pairs = (f"{share:.0%}" for share in shares.loc[name])
            all_pairs = f"\n(every patch in every image: {all_pairs} lower)" if all_pairs != "nan%" else ""
            ax.set_title(f"{name}; t-test lowest vs random:\n{either} significant, {lower} lower{all_pairs}")
    return fig


def responses_by_condition(published, unit_spread, title: str):
    """Response of every unit in each condition, in standard deviations from its mean over random images.

    Args:
        published: `Published.responses`; the mean is that of its "random images".
        unit_spread: series, unit to standard deviation over untouched images.
    """
    wide = published.pivot(index="unit", columns="condition", values="mean")[list(KIND)]
    spread = unit_spread.reindex(wide.index).to_numpy()[:, None]
    values = (wide.to_numpy() - wide[["random images"]].to_numpy()) / spread
    place = range(len(KIND))
    with companion_style():
        fig, ax = plt.subplots(figsize=(WIDTH, 3.4))
        ax.plot(place, values.T, color=NEUTRAL, alpha=min(1.0, 12 / len(values)), linewidth=0.7)
        for x, colour in enumerate(KIND.values()):
            ax.plot(np.full(len(values), x), values[:, x], "o", color=colour, markersize=3, alpha=0.6)
        ax.plot(place, np.median(values, axis=0), color="black", linewidth=2, label="median unit")
        ax.set_xticks(place, KIND)
        ax.set_ylabel("mean response of a unit\n(sd from its mean over random images)")
        ax.axhline(0, color="black", linewidth=0.6)
        ax.set_title(title)
        ax.legend(frameon=False, loc="upper left")
    return fig


def absence_scores(scores, tests, limit: float, strongest: int = 20):
    """Absence and veto scores of the strongest units with intervals, and what unclean selection adds.

    Args:
        scores: `ControlledResult.scores`.
        tests: `Published.tests`, whose absence scores come from patches and images of the same set.
        limit: 95th percentile of the absence score over units of one copy with random weights.
        strongest: units to show.
    """
    by_control = {
        condition: rows.set_index("unit")
        for condition, rows in scores[scores.score == "absence"].groupby("condition")
    }
    main = by_control["random patch"]
    order = main.value.sort_values(ascending=False).index[:strongest]
    veto = scores[(scores.score == "veto") & (scores.condition == "median images")].set_index("unit")
    place = np.arange(len(order))[::-1]
    with companion_style():
        size = (WIDTH, max(1.5 + 0.19 * len(order), 3))
        fig, (left, middle, right) = plt.subplots(1, 3, figsize=size, width_ratios=(1.5, 1, 1.1))
        for ax, table, colour in ((left, main, "black"), (middle, veto, DARK)):
            rows = table.loc[order]
            interval_points(ax, rows.value, place, rows.low, rows.high, color=colour)
            ax.axvline(0, color="black", linewidth=0.6)
            ax.set_ylim(-0.7, len(order) - 0.3)
        for condition, (marker, colour) in CONTROLS.items():
            if condition != "random patch" and condition in by_control:
                values = by_control[condition].value.reindex(order)
                look = {"color": colour, "markersize": 3.5, "alpha": 0.8, "linestyle": "none"}
                left.plot(values, place, marker, label=condition, **look)
        left.plot([], [], "o-", color="black", markersize=4, label="random patch, 95% interval")
        left.axvline(
            limit, color=PRESENCE, linestyle="--", linewidth=1, label="95th percentile, one random copy"
        )
        left.set_yticks(place, order)
        left.set(ylabel="unit", xlabel="absence score (sd), by control")
        left.set_title(f"Absence score,\n{len(order)} strongest units")
        fig.legend(
            *left.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=7
        )
        middle.axvspan(-0.05, 0.05, color="#eeeeee", zorder=0)
        middle.set_yticks([])
        middle.set(xlabel="veto score (sd), 95% interval", title="Veto score,\nsame units")
        _inflation(right, main, tests)
    return fig


def _inflation(ax, main, tests) -> None:
    dipped = tests.set_index("unit").absence.reindex(main.index)
    ax.plot(main.value, dipped, "o", color=NEUTRAL, markersize=3, alpha=0.7)
    edge = [min(main.value.min(), dipped.min(), 0), 1.05 * max(main.value.max(), dipped.max())]
    ax.plot(edge, edge, color="black", linewidth=0.8)
    ratio = (dipped / main.value.where(main.value > 0)).median()
    ax.set_xlabel("held-out splits (sd)")
    ax.set_ylabel("same split for selection and test\n(double dipping, sd)")
    ax.set_title(f"Inflation of the absence\nscore, median ratio {ratio:.2f}")


def verdict_bars(table):
    """Published verdict against controlled verdict, for networks that have absences and for some that cannot.

    Args:
        table: as `comparison.verdicts` gives it.
    """
    groups = dict(list(table.groupby("network", sort=False)))
    place, width = np.arange(len(groups)), 0.88 / len(VERDICTS)
    with companion_style():
        fig, (above, below) = plt.subplots(2, 1, figsize=(WIDTH, 5.6), sharex=True)
        for number, (column, (label, colour)) in enumerate(VERDICTS.items()):
            shares = [100 * rows[column].astype(float).mean() for rows in groups.values()]
            at = place + (number - (len(VERDICTS) - 1) / 2) * width
            above.bar(at, shares, width, color=colour, label=label)
            for x, share in zip(at, shares, strict=True):
                if not np.isnan(share):
                    above.text(x, share + 1, f"{share:.0f}", ha="center", fontsize=7)
        above.set(ylabel="units (%)", ylim=(0, 108), title="Units flagged by each test")
        legend_above(fig, above, 2)
        generator = np.random.default_rng(0)
        for x, rows in enumerate(groups.values()):
            at = x + generator.uniform(-0.25, 0.25, len(rows))
            for vetoed, colour in ((False, "#9e9e9e"), (True, DARK)):
                here = (rows.vetoed == vetoed).to_numpy()
                below.plot(at[here], rows.veto[here], "o", color=colour, markersize=3, alpha=0.7)
        below.axhspan(-0.05, 0.05, color="#eeeeee", zorder=0)
        below.axhline(0, color="black", linewidth=0.6)
        below.set_xticks(place, [f"{name}\n({len(rows)} units)" for name, rows in groups.items()])
        below.set(ylabel="veto score (sd)")
        below.set_title("Veto score of every unit (dark: above 0.05 sd, FDR 5%)")
    return fig


def decision_bars(table):
    """The three answers on several networks in both readings, and how many of the units asked depend on context.

    Args:
        table: as `comparison.decide_networks` gives it.
    """
    networks = table.network.drop_duplicates().tolist()
    with companion_style():
        fig, axes = plt.subplots(1, 3, figsize=(WIDTH, 2.9), sharey=True)
        for ax, reading in zip(axes, ("signed", "passed on"), strict=False):
            left = np.zeros(len(networks))
            for decision, colour in DECISIONS.items():
                share = _shares(table, networks, reading, lambda rows, it=decision: rows.decision == it)
                ax.barh(networks, share, left=left, color=colour, label=decision, height=0.7)
                left = left + np.nan_to_num(share)
            ax.set(
                xlabel="units (%)",
                xlim=(0, 100),
                title=f"{reading}: more than {_deltas(table, reading)} sd?",
            )
        asked = table.dropna(subset="found")
        share = _shares(asked, networks, "signed", lambda rows: rows.found)
        axes[2].barh(networks, share, color=DARK, height=0.7)
        many = asked[asked.reading == "signed"].groupby("network").found.agg(["sum", "count"])
        for place, (name, value) in enumerate(zip(networks, share, strict=True)):
            said = f"{many['sum'][name]} of {many['count'][name]}"
            axes[2].text(value + 2, place, said, va="center", fontsize=8)
        axes[2].set(
            xlabel="units asked (%)", xlim=(0, 125), xticks=range(0, 101, 25), title="depends on context"
        )
        axes[0].invert_yaxis()
        handles, labels = axes[0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    return fig


def _shares(table, networks: list[str], reading: str, holds) -> np.ndarray:
    """[network] percent of units for which something holds; NaN where the reading is not there."""
    rows = table[table.reading == reading]
    return np.array([100 * holds(rows[rows.network == name]).astype(float).mean() for name in networks])


def _deltas(table, reading: str) -> str:
    """The sizes that count in a reading: one, unless networks saw patches of different sizes."""
    return " or ".join(f"{delta:g}" for delta in table.delta[table.reading == reading].unique())


def power_points(table):
    """Clear absences found beside false alarms, by layer and reading, where the truth is known.

    Args:
        table: data/measured/power.csv.
    """
    kinds = table.networks.drop_duplicates().tolist()
    layers = table.layer.drop_duplicates().tolist()
    with companion_style():
        fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.7), sharey=True)
        for ax, (reading, rows) in zip(axes, table.groupby("reading", sort=False), strict=True):
            for place, kind in enumerate(kinds):
                own = rows[rows.networks == kind].set_index("layer").reindex(layers)
                at = np.arange(len(layers)) + 0.2 * (place - 1)
                ax.plot(at, 100 * own.found, "o", color=KIND_COLOURS[place], label=f"found: {kind}")
                ax.plot(
                    at,
                    100 * own["false alarms"],
                    "x",
                    color=KIND_COLOURS[place],
                    label=f"false alarm: {kind}",
                )
            ax.axhline(5, color="black", linewidth=0.6, linestyle=":")
            ax.axhline(90, color="black", linewidth=0.6, linestyle=":")
            ax.set_xticks(range(len(layers)), layers)
            ax.set(ylim=(-4, 104), title=f"{reading} (more than {rows.delta.iloc[0]:g} sd)")
        axes[0].set_ylabel("units (%)")
        fig.suptitle("Clear absences found, and false alarms, where the truth is known (dotted: 90% and 5%)")
        handles, labels = axes[0].get_legend_handles_labels()
        order = [*range(0, len(handles), 2), *range(1, len(handles), 2)]
        fig.legend([handles[i] for i in order], [labels[i] for i in order], loc="outside lower center", ncols=3,
                   fontsize=7.5, frameon=False)  # fmt: skip
    return fig


def pooling_bars(table):
    """Share of units called suppressed under each way of pooling, and those that only the minimum makes.

    Args:
        table: as `pooling.pooling_table` gives it.
    """
    pools = table.pool.drop_duplicates().tolist()
    kinds = {
        "published": ("published test: significant either way", GREY),
        "suppressed": ("absence score > 0.05 sd (FDR 5%)", "#4393c3"),
    }
    with companion_style():
        fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.9))
        for number, (column, (label, colour)) in enumerate(kinds.items()):
            shares = [100 * table[table.pool == pool][column].mean() for pool in pools]
            at = np.arange(len(pools)) + (number - 0.5) * 0.38
            left.bar(at, shares, 0.38, color=colour, label=label)
        only = int(table.only_min.sum())
        left.set(xlabel="pooling over space", ylabel="units (%)", ylim=(0, 130))
        left.set_title(f"{only} of {table.unit.nunique()} units only under min")
        left.legend(frameon=False, fontsize=8, loc="upper left")
        wide = table.pivot(index="unit", columns="pool", values="absence")[pools]
        flagged = set(table[table.only_min].unit)
        for unit, values in wide.iterrows():
            colour = PRESENCE if unit in flagged else NEUTRAL
            right.plot(range(len(pools)), values, "o-", markersize=3, linewidth=0.8, alpha=0.8, color=colour)
        right.axhline(0, color="black", linewidth=0.6)
        right.set(xlabel="pooling over space", ylabel="absence score (sd)")
        right.set_title("Each unit (red: only under min)")
        for ax in (left, right):
            ax.set_xticks(range(len(pools)), pools)
    return fig


def insertion_examples(pictures: dict, table):
    """For each unit one typical image with each kind of patch pasted into it, and the response to it.

    Args:
        pictures: unit to {condition: image [channel, height, width] in 0..1}.
        table: columns unit, condition, response (sd from the unit's mean), top, left, side (px of the patch).
    """
    fullest_first = sorted(pictures.values(), key=len, reverse=True)
    conditions = list(dict.fromkeys(condition for images in fullest_first for condition in images))
    cells = table.set_index(["unit", "condition"])
    with companion_style():
        size = (WIDTH, 0.4 + (WIDTH / len(conditions) + 0.25) * len(pictures))
        fig, axes = plt.subplots(len(pictures), len(conditions), figsize=size, squeeze=False)
        for row, (unit, images) in zip(axes, pictures.items(), strict=True):
            for ax, condition in zip(row, conditions, strict=True):
                bare(ax)
                if condition not in images:  # as for a unit without a neutral image of that rank
                    continue
                cell = cells.loc[(unit, condition)]
                show_image(ax, images[condition])
                if cell.side:
                    box = Rectangle((cell.left - 0.5, cell.top - 0.5), cell.side, cell.side, fill=False)
                    box.set(edgecolor=ABSENCE if "lowest" in condition else "black", linewidth=1)
                    ax.add_patch(box)
                ax.set_xlabel(f"{signed_number(cell.response)} sd", labelpad=2)
            row[0].set_ylabel(f"unit {unit}")
        for ax, condition in zip(axes[0], conditions, strict=True):
            ax.set_title(condition.replace(": ", "\n"), fontsize=8)
    return fig
