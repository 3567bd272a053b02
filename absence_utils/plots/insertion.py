"""Figures of patch insertion from tables: the published table, responses, scores, verdicts, examples."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

from absence_utils.errors import require_shape

from .base import (
    ABSENCE,
    MARK,
    NEUTRAL,
    PRESENCE,
    WIDTH,
    bare,
    companion_style,
    drawn_once,
    fixed_number,
    interval_points,
    legend_below,
    show_image,
    signed_number,
    to_numpy,
)

KIND = {
    "random images": NEUTRAL,
    "top + lowest": ABSENCE,
    "top + random": "#777777",
    "top images": "black",
    "top + highest": PRESENCE,
}
DECISIONS = {"encodes an absence": ABSENCE, "cannot tell": "#e0cfa0", "none of that size": "#bbbbbb"}
KIND_COLOURS = ("black", MARK, "#999999")  # trained on absences, without any, random weights
VERDICTS = {  # what a test says of a unit: label, marker and colour
    "published": ("published t-test", "o", MARK),
    "suppressed": ("absence score above 0", "s", "#999999"),
    "vetoed": ("veto: depends on context", "D", "black"),
}
INHIBITS = {  # what is known of the networks, for the axis of verdicts
    "random weights": "not trained",
    "additive units": "inhibit nothing",
    "veto units": "built to inhibit",
    "scenes rules": "some inhibit",
}
LEVEL = 5  # per cent: of the published test of each unit, and of the false discoveries of the others


def show_insertion(random, lowest, drop):
    """An image with a random patch beside the same image with a unit's lowest patch, and how far they are apart.

    Args:
        random, lowest: [1, channel, height, width], as they were given to the network, or pixels in 0..1; images beyond
            0..1 are stretched to fill that range, both alike.
        drop: response to `random` minus response to `lowest`, a number or a tensor of one.

    Returns:
        The figure.

    Raises:
        InputError: images of other shapes.

    Example:
        >>> import torch
        >>> from absence_utils import show_insertion
        >>> figure = show_insertion(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8), torch.tensor([2.5]))
        >>> [ax.get_title() for ax in figure.axes]
        ['random patch', 'lowest patch']
    """
    pair = [to_numpy(images) for images in (random, lowest)]
    require_shape("random", pair[0], 1, "channel", "height", "width")
    require_shape("lowest", pair[1], *pair[0].shape)
    both = np.concatenate(pair)
    if both.min() < 0 or both.max() > 1:
        both = (both - both.min()) / (both.max() - both.min())
    with companion_style():
        fig, axes = plt.subplots(1, 2, figsize=(4.4, 2.6))
        for ax, pixels, title in zip(axes, both, ("random patch", "lowest patch"), strict=True):
            show_image(ax, pixels, title)
        fig.suptitle(f"random minus lowest patch: {signed_number(float(to_numpy(drop).squeeze()))}")
    return drawn_once(fig)


def published_table(tables: dict, verdicts):
    """The published table as a picture: mean and standard deviation over images in each condition, averaged over units.

    Args:
        tables: network to `Published.responses`.
        verdicts: as `comparison.verdicts` gives them; the titles say the shares of these networks' units.
    """
    shares = verdicts.groupby("network")[["published", "published_lower"]].mean()
    with companion_style():
        fig, axes = plt.subplots(1, len(tables), figsize=(WIDTH, 3.1), sharey=True, squeeze=False)
        for ax, (name, table) in zip(axes[0], tables.items(), strict=True):
            for place, (condition, colour) in enumerate(KIND.items()):
                mean, spread = table[table.condition == condition][["mean", "sd"]].mean()
                interval_points(ax, mean, place, mean - spread, mean + spread, color=colour, capsize=3)
                label = f"{signed_number(mean)} ± {signed_number(spread).lstrip('+')}"
                ax.annotate(label, (mean, place), (0, 5), textcoords="offset points", ha="center")
            ax.set_yticks(range(len(KIND)), KIND)
            ax.set_ylim(-0.5, len(KIND) - 0.2)
            ax.margins(x=0.15)
            ax.set_xlabel("response (units of the layer)")
            either, lower = (f"{share:.0%}" for share in shares.loc[name])
            ax.set_title(
                f"{name}: t-test, lowest against random,\nsignificant in {either}, and lower in {lower}"
            )
        name, table = next(iter(tables.items()))
        fall = table.groupby("condition")["mean"].mean()
        fig.suptitle(
            f"A lowest patch instead of a random one: from {signed_number(fall['top + random'])} "
            f"to {signed_number(fall['top + lowest'])} in {name} (mean ± sd over images)"
        )
    return fig


def responses_by_condition(published, unit_spread, layer: str = ""):
    """Response of every unit in each condition, in standard deviations from its mean over random images.

    Args:
        published: `Published.responses`; the mean is that of its "random images".
        unit_spread: series, unit to standard deviation over untouched images.
        layer: its name, for the title.
    """
    wide = published.pivot(index="unit", columns="condition", values="mean")[list(KIND)]
    spread = unit_spread.reindex(wide.index).to_numpy()[:, None]
    values = (wide.to_numpy() - wide[["random images"]].to_numpy()) / spread
    drop = (wide["top + random"] - wide["top + lowest"]).to_numpy() / spread[:, 0]
    place = range(len(KIND))
    with companion_style():
        fig, ax = plt.subplots(figsize=(WIDTH, 3.4))
        ax.plot(place, values.T, color=NEUTRAL, alpha=min(1.0, 12 / len(values)), linewidth=0.7)
        for x, colour in enumerate(KIND.values()):
            ax.plot(np.full(len(values), x), values[:, x], "o", color=colour, markersize=3, alpha=0.6)
        middle = np.nanmedian(values, axis=0)
        ax.plot(place, middle, color="black", linewidth=2)
        ax.annotate("median unit", (1.5, middle[1:3].mean()), (8, -4), textcoords="offset points", va="top")
        ax.set_xticks(place, KIND)
        ax.set_ylabel("mean response of a unit\n(sd from its mean over random images)")
        ax.axhline(0, color="black", linewidth=0.6)
        ax.set_title(
            f"Lowest patches lower {(drop > 0).sum()} of {len(drop)} units of {layer or 'the output'}, "
            f"the median one by {fixed_number(np.nanmedian(drop), 2)} sd more than random patches"
        )
    return fig


def absence_scores(table, limit: float, strongest: int = 20):
    """Absence and veto scores of the strongest units with intervals, and what unclean selection adds.

    Args:
        table: as `comparison.compare_scores` gives it: unit, score, condition, value, low, high, and dipped, the
            absence score with patches and images of the same set. Of the controls the random patch is drawn; the
            others are in `comparison.control_table`.
        limit: 95th percentile of the absence score over units of one copy with random weights.
        strongest: units to show.
    """
    main = table[(table.score == "absence") & (table.condition == "random patch")].set_index("unit")
    veto = table[(table.score == "veto") & (table.condition == "median images")].set_index("unit")
    order = main.value.sort_values(ascending=False).index[:strongest]
    place = np.arange(len(order))[::-1]
    with companion_style():
        size = (WIDTH, max(1.7 + 0.19 * len(order), 3.3))
        fig, (left, middle, right) = plt.subplots(1, 3, figsize=size, width_ratios=(1.3, 1, 1.2))
        for ax, rows in ((left, main.loc[order]), (middle, veto.loc[order])):
            interval_points(ax, rows.value, place, rows.low, rows.high, color="black")
            ax.axvline(0, color="black", linewidth=0.6)
            ax.set_ylim(-0.7, len(order) - 0.3)
        left.axvline(limit, color=NEUTRAL, linestyle="--", linewidth=1)
        look = {"ha": "right", "va": "bottom", "rotation": 90, "color": NEUTRAL}
        left.text(limit, -0.4, "95% of random weights ", **look)
        left.set_yticks(place, order)
        left.set(ylabel="unit", xlabel="absence score (sd),\n95% interval")
        left.set_title(f"Absence score,\n{len(order)} strongest units")
        middle.axvspan(-0.05, 0.05, color="#eeeeee", zorder=0)
        middle.set_yticks([])
        middle.set(xlabel="veto score (sd),\n95% interval")
        middle.set_title("Veto score,\nthe same units")
        _inflation(right, main)
        fig.suptitle(
            f"Lowest patches lower {(main.low > 0).sum()} of {len(main)} units more than random ones do; "
            f"the largest veto score is {fixed_number(veto.value.max(), 2)} sd"
        )
    return fig


def _inflation(ax, main) -> None:
    ax.plot(main.value, main.dipped, "o", color=NEUTRAL, markersize=3, alpha=0.7)
    edge = [min(main.value.min(), main.dipped.min(), 0), 1.05 * max(main.value.max(), main.dipped.max())]
    ax.plot(edge, edge, color="black", linewidth=0.8)
    ratio = (main.dipped / main.value.where(main.value > 0)).median()
    ax.set_xlabel("absence score (sd),\nheld-out splits")
    ax.set_ylabel("absence score (sd), selection and test\non the same images")
    ax.set_title(f"Chosen and tested on the\nsame images: × {ratio:.2f}")


def verdict_dots(table):
    """Published verdict against controlled verdict, for networks that have absences and for some that cannot.

    Args:
        table: as `comparison.verdicts` gives it.
    """
    groups = dict(list(table.groupby("network", sort=False)))
    shares = {name: 100 * rows[list(VERDICTS)].astype(float).mean() for name, rows in groups.items()}
    with companion_style():
        fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 4.2), sharey=True, width_ratios=(1.5, 1))
        for number, (column, (label, marker, colour)) in enumerate(VERDICTS.items()):
            at = np.arange(len(groups)) + (number - 1) * 0.24
            values = [share[column] for share in shares.values()]
            left.plot(values, at, marker, color=colour, markersize=6.5, label=label, clip_on=False)
            for y, value in zip(at, values, strict=True):
                if not np.isnan(value):
                    side = {"xytext": (-7, 0), "ha": "right"} if value < 2 * LEVEL else {"xytext": (7, 0)}
                    left.annotate(
                        f"{value:.0f}%", (value, y), textcoords="offset points", va="center", **side
                    )
        left.axvline(LEVEL, color="black", linewidth=1, linestyle="--")
        left.text(LEVEL + 1.5, -0.62, f"{LEVEL}%: what a test may flag by chance", va="center")
        left.set(xlabel="units flagged (%)", xlim=(-13, 114), xticks=range(0, 101, 20))
        left.set_yticks(range(len(groups)), [_known(name, rows) for name, rows in groups.items()])
        left.set_ylim(len(groups) - 0.5, -0.85)
        generator = np.random.default_rng(0)
        for y, rows in enumerate(groups.values()):
            at = y + generator.uniform(-0.25, 0.25, len(rows))
            for vetoed, colour in ((False, "#bdbdbd"), (True, "black")):
                here = (rows.vetoed == vetoed).to_numpy()
                right.plot(rows.veto[here], at[here], "o", color=colour, markersize=3, alpha=0.7)
        right.axvline(0, color="black", linewidth=0.6)
        right.set(xlabel="veto score of each unit (sd)\nblack: above 0.05 sd (FDR 5%)")
        legend_below(fig, left, 3, columnspacing=1.2)
        if "additive units" in shares:
            fig.suptitle(
                f"Of units that inhibit nothing the published test flags {shares['additive units'].published:.0f}%, "
                f"the veto score {shares['additive units'].vetoed:.0f}%"
            )
    return fig


def _known(name: str, rows) -> str:
    """Network, what is known of it, number of units."""
    return f"{name}\n({INHIBITS[name]}, {len(rows)})" if name in INHIBITS else f"{name}\n({len(rows)} units)"


def decision_bars(table):
    """The three answers on several networks in both readings, and how many of the units asked depend on context.

    Args:
        table: as `comparison.decide_networks` gives it.
    """
    networks = table.network.drop_duplicates().tolist()
    with companion_style():
        fig, axes = plt.subplots(1, 3, figsize=(WIDTH, 3.2), sharey=True)
        for ax, reading in zip(axes, ("signed", "passed on"), strict=False):
            left = np.zeros(len(networks))
            for decision, colour in DECISIONS.items():
                share = _shares(table, networks, reading, lambda rows, it=decision: rows.decision == it)
                ax.barh(networks, share, left=left, color=colour, label=decision, height=0.7)
                left = left + np.nan_to_num(share)
            ax.set(
                xlabel="units (%)",
                xlim=(0, 100),
                title=f"{reading}:\nmore than {_deltas(table, reading)} sd?",
            )
        asked = table.dropna(subset="found")
        share = _shares(asked, networks, "signed", lambda rows: rows.found)
        axes[2].barh(networks, share, color="black", height=0.7)
        many = asked[asked.reading == "signed"].groupby("network").found.agg(["sum", "count"])
        for place, (name, value) in enumerate(zip(networks, share, strict=True)):
            said = f"{many['sum'][name]} of {many['count'][name]}"
            axes[2].text(value + 2, place, said, va="center")
        axes[2].set(
            xlabel="units asked (%)", xlim=(0, 140), xticks=range(0, 101, 25), title="depends on\ncontext?"
        )
        axes[0].invert_yaxis()
        legend_below(fig, axes[0], 3, columnspacing=1.2)
        stored = _shares(table, networks[:1], "signed", lambda rows: rows.decision == "encodes an absence")[0]
        name = networks[0]
        fig.suptitle(
            f"Of {name} {stored:.0f}% of the units encode an absence; "
            f"{many['sum'][name]} of {many['count'][name]} depend on context"
        )
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
        fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.3), sharey=True)
        for ax, (reading, rows) in zip(axes, table.groupby("reading", sort=False), strict=True):
            for place, kind in enumerate(kinds):
                own = rows[rows.networks == kind].set_index("layer").reindex(layers)
                at = np.arange(len(layers)) + 0.2 * (place - 1)
                look = {"color": KIND_COLOURS[place], "linestyle": "none"}
                ax.plot(at, 100 * own.found, marker="o", label=f"found: {kind}", **look)
                ax.plot(at, 100 * own["false alarms"], marker="x", label=f"false alarm: {kind}", **look)
            for goal in (5, 90):
                ax.axhline(goal, color="black", linewidth=0.6, linestyle=":")
            ax.set_xticks(range(len(layers)), layers)
            ax.set(ylim=(-4, 104), title=f"{reading} (more than {rows.delta.iloc[0]:g} sd)")
        axes[0].set_ylabel("units (%)")
        signed = table[
            (table.reading == "signed") & (table.networks == kinds[0]) & (table.layer == layers[-1])
        ]
        if len(signed):
            found, alarms = 100 * signed[["found", "false alarms"]].iloc[0]
            fig.suptitle(
                f"Signed reading, {layers[-1]} layers: {found:.0f}% of clear absences found (goal 90%), "
                f"{alarms:.0f}% false alarms (goal 5%)"
            )
        legend_below(fig, axes[0], 3, columnspacing=1.2)
    return fig


def pooling_bars(table):
    """Share of units called suppressed under each way of pooling, and those that only the minimum makes.

    Args:
        table: as `pooling.pooling_table` gives it.
    """
    pools = table.pool.drop_duplicates().tolist()
    kinds = {
        "published": ("published test: significant either way", MARK),
        "suppressed": ("absence score above 0.05 sd (FDR 5%)", "black"),
    }
    with companion_style():
        fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.2))
        for number, (column, (label, colour)) in enumerate(kinds.items()):
            shares = [100 * table[table.pool == pool][column].mean() for pool in pools]
            at = np.arange(len(pools)) + (number - 0.5) * 0.38
            bars = left.bar(at, shares, 0.38, color=colour, label=label)
            left.bar_label(bars, [f"{share:.0f}%" for share in shares], padding=1)
        only = int(table.only_min.sum())
        left.set(xlabel="pooling over space", ylabel="units (%)", ylim=(0, 112))
        left.set_title(f"{only} of {table.unit.nunique()} units only under min")
        legend_below(fig, left, 2, columnspacing=1.2)
        wide = table.pivot(index="unit", columns="pool", values="absence")[pools]
        flagged = set(table[table.only_min].unit)
        for unit, values in wide.iterrows():
            colour = MARK if unit in flagged else NEUTRAL
            right.plot(range(len(pools)), values, "o-", markersize=3, linewidth=0.8, alpha=0.8, color=colour)
        right.axhline(0, color="black", linewidth=0.6)
        right.set(xlabel="pooling over space", ylabel="absence score (sd)")
        right.set_title("Each unit (orange: only under min)")
        for ax in (left, right):
            ax.set_xticks(range(len(pools)), pools)
        middle = wide.median()
        said = ", ".join(f"{fixed_number(middle[pool], 1)} sd by {pool}" for pool in pools)
        fig.suptitle(f"The pooling decides how large a suppression looks: {said}")
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
        size = (WIDTH, 0.9 + (WIDTH / len(conditions) + 0.1) * len(pictures))
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
            ax.set_title(condition.replace(": ", "\n"))
        fall = table.pivot(index="unit", columns="condition", values="response")
        if {"top: random", "top: lowest"} <= set(fall):
            fall = fall["top: random"] - fall["top: lowest"]
            least, most = (fixed_number(value, 1) for value in (fall.min(), fall.max()))
            fig.suptitle(f"Lowest patches lower these units by {least} to {most} sd more than random ones")
    return fig
