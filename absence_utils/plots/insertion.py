"""Figures of patch insertion from tables: the published table, responses, scores, verdicts, examples."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

from .base import ABSENCE, NEUTRAL, PRESENCE, bare, companion_style, to_numpy
from .patches import PAGE, signed_number

KIND = {
    "random images": NEUTRAL,
    "top + lowest": ABSENCE,
    "top + random": "#777777",
    "top images": "black",
    "top + highest": PRESENCE,
}
CONTROLS = {  # condition of the absence score: marker and colour
    "random patch": ("o", "black"),
    "mean colour": ("s", "#e08214"),
    "phase-scrambled": ("^", "#7b3294"),
    "own patch": ("v", "#008837"),
    "soft edges": ("D", "#c2a5cf"),
    "centre": ("P", "#a6611a"),
    "median images": ("X", "#80cdc1"),
}
VERDICTS = {
    "published": ("published test significant", "#bdbdbd"),
    "suppressed": ("suppressed, paired and clean", "#92c5de"),
    "beyond_null": ("... and beyond 95 % of random weights", "#4393c3"),
    "vetoed": ("vetoed: depends on what else is there", "#053061"),
}


def published_table(tables: dict, significant: dict):
    """The paper's table as a picture: mean and standard deviation over units of the response in each condition.

    Args:
        tables: network to `Published.responses`.
        significant: network to the share of units in 0..1 that the published test calls significant.
    """
    with companion_style():
        fig, axes = plt.subplots(1, len(tables), figsize=(PAGE, 2.6), sharey=True, squeeze=False)
        for ax, (name, table) in zip(axes[0], tables.items(), strict=True):
            for place, (condition, colour) in enumerate(KIND.items()):
                values = table[table.condition == condition]["mean"]
                mean, spread = values.mean(), values.std()
                ax.errorbar(mean, place, xerr=spread, fmt="o", color=colour, capsize=3)
                label = f"{signed_number(mean)} ± {signed_number(spread).lstrip('+')}"
                ax.annotate(
                    label, (mean, place), (0, 5), textcoords="offset points", ha="center", fontsize=7.5
                )
            ax.set_yticks(range(len(KIND)), KIND)
            ax.set_ylim(-0.5, len(KIND) - 0.2)
            ax.margins(x=0.12)
            ax.set_xlabel("response (units of the layer)\nmean ± standard deviation over units")
            share = significant[name]
            ax.set_title(f"{name}: lowest against random\nsignificant in {share:.0%} of units")
    return fig


def responses_by_condition(published, unit_spread, title: str):
    """Response of every unit in each condition, in standard deviations from its mean over all images.

    Args:
        published: `Published.responses`; its "random images" are all images.
        unit_spread: series, unit to standard deviation over untouched images.
    """
    wide = published.pivot(index="unit", columns="condition", values="mean")[list(KIND)]
    spread = unit_spread.reindex(wide.index).to_numpy()[:, None]
    values = (wide.to_numpy() - wide[["random images"]].to_numpy()) / spread
    with companion_style():
        fig, ax = plt.subplots(figsize=(PAGE * 0.7, 3.4))
        ax.plot(range(len(KIND)), values.T, color=NEUTRAL, alpha=min(1.0, 12 / len(values)), linewidth=0.7)
        for place, colour in enumerate(KIND.values()):
            ax.plot(np.full(len(values), place), values[:, place], "o", color=colour, markersize=3, alpha=0.6)
        ax.plot(range(len(KIND)), np.median(values, axis=0), color="black", linewidth=2, label="median unit")
        ax.set_xticks(
            range(len(KIND)), [f"{name}\n(all)" if name == "random images" else name for name in KIND]
        )
        ax.set_ylabel("mean response of a unit (standard\ndeviations from its mean over images)")
        ax.axhline(0, color="black", linewidth=0.6)
        ax.set_title(title)
        ax.legend(frameon=False, loc="upper left")
    return fig


def absence_scores(scores, tests, limit: float, strongest: int = 20):
    """Absence and veto scores of the strongest units with intervals, and what unclean selection adds.

    Args:
        scores: `ControlledResult.scores`.
        tests: `Published.tests`, whose absence scores come from patches and images of the same set.
        limit: 95th percentile of the random-weight null's absence score.
        strongest: units to show.
    """
    main = scores[(scores.score == "absence") & (scores.condition == "random patch")].set_index("unit")
    order = main.value.sort_values(ascending=False).index[:strongest]
    veto = scores[(scores.score == "veto") & (scores.condition == "median images")].set_index("unit")
    place = np.arange(len(order))[::-1]
    with companion_style():
        height = 1.5 + 0.19 * len(order)
        fig, (left, middle, right) = plt.subplots(
            1, 3, figsize=(PAGE, max(height, 3)), width_ratios=(1.5, 1, 1.1)
        )
        for ax, table, colour in ((left, main, "black"), (middle, veto, "#053061")):
            rows = table.loc[order]
            ax.hlines(place, rows.low, rows.high, color=colour, linewidth=1.2)
            ax.plot(rows.value, place, "o", color=colour, markersize=4)
            ax.axvline(0, color="black", linewidth=0.6)
            ax.set_ylim(-0.7, len(order) - 0.3)
        for condition, (marker, colour) in CONTROLS.items():
            rows = scores[(scores.score == "absence") & (scores.condition == condition)].set_index("unit")
            if condition != "random patch":
                left.plot(rows.value.reindex(order), place, marker, color=colour, markersize=3.5, alpha=0.8,
                          linestyle="none", label=condition)  # fmt: skip
        left.plot([], [], "o-", color="black", markersize=4, label="random patch, 95 % interval")
        left.axvline(limit, color=PRESENCE, linestyle="--", linewidth=1, label="95 % of random weights")
        left.set_yticks(place, order)
        left.set(ylabel="unit", xlabel="absence score (sd), by control")
        left.set_title(f"Absence score of the {len(order)} strongest units")
        left.legend(frameon=False, fontsize=6.5, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
        middle.axvspan(-0.05, 0.05, color="#eeeeee", zorder=0)
        middle.set_yticks([])
        middle.set(xlabel="veto score (sd), 95 % interval", title="Veto score of the same")
        _dipped(right, main, tests)
    return fig


def _dipped(ax, main, tests) -> None:
    dipped = tests.set_index("unit").absence.reindex(main.index)
    ax.plot(main.value, dipped, "o", color=NEUTRAL, markersize=3, alpha=0.7)
    edge = [min(main.value.min(), dipped.min(), 0), 1.05 * max(main.value.max(), dipped.max())]
    ax.plot(edge, edge, color="black", linewidth=0.8)
    ratio = (dipped / main.value.where(main.value > 0)).median()
    ax.set(xlabel="clean: three disjoint sets (sd)", ylabel="dipped: patches and images of one set (sd)")
    ax.set_title(f"Inflation of the absence score\nmedian ratio {ratio:.2f}")


def verdict_bars(table):
    """Published verdict against fair verdict, for networks that have absences and for some that cannot.

    Args:
        table: as `scores.verdicts` gives it.
    """
    networks = table.network.drop_duplicates().tolist()
    with companion_style():
        fig, (left, right) = plt.subplots(1, 2, figsize=(PAGE, 4.0), width_ratios=(1.35, 1))
        width = 0.88 / len(VERDICTS)
        for place, (column, (label, colour)) in enumerate(VERDICTS.items()):
            shares = [100 * table[table.network == name][column].astype(float).mean() for name in networks]
            at = np.arange(len(networks)) + (place - (len(VERDICTS) - 1) / 2) * width
            left.bar(at, shares, width, color=colour, label=label)
            for x, share in zip(at, shares, strict=True):
                if not np.isnan(share):
                    left.text(x, share + 1, f"{share:.0f}", ha="center", fontsize=5.5)
        labels = [f"{name}\n({(table.network == name).sum()} units)" for name in networks]
        left.set_xticks(range(len(networks)), [label.replace(" ", "\n", 1) for label in labels], fontsize=8)
        left.set(ylabel="units (%)", ylim=(0, 105), title="What each protocol says")
        left.legend(frameon=False, fontsize=7.5, loc="upper center", bbox_to_anchor=(0.5, -0.24), ncols=2)
        generator = np.random.default_rng(0)
        for place, name in enumerate(networks):
            rows = table[table.network == name]
            at = place + generator.uniform(-0.25, 0.25, len(rows))
            for vetoed, colour in ((False, "#9e9e9e"), (True, "#053061")):
                here = (rows.vetoed == vetoed).to_numpy()
                right.plot(at[here], rows.veto[here], "o", color=colour, markersize=3, alpha=0.7)
        right.axhspan(-0.05, 0.05, color="#eeeeee", zorder=0)
        right.axhline(0, color="black", linewidth=0.6)
        right.set_xticks(range(len(networks)), [name.replace(" ", "\n", 1) for name in networks], fontsize=8)
        right.set(
            ylabel="veto score (sd)",
            title="Veto score of every unit\n(dark: above 0.05 sd, 5 % false discoveries)",
        )
    return fig


def pooling_bars(table):
    """Share of units called suppressed under each way of pooling, and those that only the minimum makes.

    Args:
        table: as `pooling.pooling_table` gives it.
    """
    pools = table.pool.drop_duplicates().tolist()
    with companion_style():
        fig, (left, right) = plt.subplots(1, 2, figsize=(PAGE * 0.8, 2.8))
        for place, (column, label, colour) in enumerate(
            (
                ("published", "published test", "#bdbdbd"),
                ("suppressed", "absence above 0.05 sd, clean", "#4393c3"),
            )
        ):
            shares = [100 * table[table.pool == pool][column].mean() for pool in pools]
            left.bar(np.arange(len(pools)) + (place - 0.5) * 0.38, shares, 0.38, color=colour, label=label)
        only = int(table.only_min.sum())
        left.set_xticks(range(len(pools)), pools)
        left.set(xlabel="pooling over space", ylabel="units (%)", ylim=(0, 130))
        left.set_title(f"{only} of {table.unit.nunique()} units only under min")
        left.legend(frameon=False, fontsize=7.5, loc="upper left")
        wide = table.pivot(index="unit", columns="pool", values="absence")[pools]
        flagged = set(table[table.only_min].unit)
        for unit, values in wide.iterrows():
            right.plot(range(len(pools)), values, "o-", markersize=3, linewidth=0.8, alpha=0.8,
                       color=PRESENCE if unit in flagged else NEUTRAL)  # fmt: skip
        right.axhline(0, color="black", linewidth=0.6)
        right.set_xticks(range(len(pools)), pools)
        right.set(
            xlabel="pooling over space", ylabel="absence score (sd)", title="Each unit (red: only under min)"
        )
    return fig


def insertion_examples(pictures: dict, table):
    """For each unit one typical image with each kind of patch pasted into it, and the response to it.

    Args:
        pictures: unit to {condition: image [channel, height, width] in 0..1}.
        table: columns unit, condition, response (sd from the unit's mean), top, left, side (px of the patch).
    """
    fullest_first = sorted(pictures.values(), key=len, reverse=True)
    conditions = list(dict.fromkeys(condition for images in fullest_first for condition in images))
    with companion_style():
        fig, axes = plt.subplots(
            len(pictures), len(conditions), figsize=(PAGE, 0.3 + 1.5 * len(pictures)), squeeze=False
        )
        for number, (unit, images) in enumerate(pictures.items()):
            row = axes[number]
            for ax, condition in zip(row, conditions, strict=True):
                bare(ax)
                if number == 0:
                    ax.set_title(condition.replace(": ", "\n"), fontsize=8)
                if condition not in images:  # as for a unit without a neutral image of that rank
                    continue
                (cell,) = table[(table.unit == unit) & (table.condition == condition)].itertuples()
                pixels = to_numpy(images[condition]).transpose(1, 2, 0)
                ax.imshow(np.clip(pixels, 0, 1).repeat(3 // pixels.shape[2], axis=2))  # one channel in grey
                if cell.side:
                    box = Rectangle((cell.left - 0.5, cell.top - 0.5), cell.side, cell.side, fill=False)
                    box.set(edgecolor=ABSENCE if "lowest" in condition else "black", linewidth=1)
                    ax.add_patch(box)
                ax.set_xlabel(f"{signed_number(cell.response)} sd", labelpad=2)
            row[0].set_ylabel(f"unit {unit}")
    return fig
