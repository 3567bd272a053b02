"""Figures of the debiasing study from tables: accuracies, strengths, evidence over training, scores, examples."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np

from .attribution import smoothed
from .base import (
    MARK,
    WIDTH,
    bare,
    companion_style,
    fixed_number,
    interval_points,
    name_rows,
    show_image,
    signed_limit,
    signed_map,
    to_numpy,
)

SHOWN = "inverse-biased"  # the test images whose accuracy is drawn: only there does the artefact mislead
OURS, USUAL, PLAIN = "presence and absence", "presence", "none"
COLOURS = {PLAIN: MARK, USUAL: "#7b3294", OURS: "#1b7837"}  # the three that are compared; the rest is grey
GREY = "#8c8c8c"
MARKERS = {"RRR": "^", "random logit": "s"}  # what tells the grey lines apart
LOGITS = {"carrier": ("target logit", "black", "o"), "other": ("non-target logit", "#b35806", "D")}


def _panels(rows: int, columns: int, height: float):
    """Axes [row, column] of equal size that share both axes."""
    size = (WIDTH, 0.8 + height * rows)
    return plt.subplots(rows, columns, figsize=size, squeeze=False, sharex=True, sharey=True)


def accuracy_by_objective(table, sides: dict[int, str], rules: dict[str, str]):
    """Inverse-biased test accuracy under each objective, with 95% intervals.

    Args:
        table: as `tables.accuracy_table` gives it: rule, carrier, objective, set, accuracy, low, high. Of the sets the
            inverse-biased one is drawn.
        sides: carrier to its name, a panel each.
        rules: rule to its name; filled points are of the first, open ones of the second.
    """
    here = table[(table.set == SHOWN) & table.rule.isin(rules)]
    objectives = here.objective.drop_duplicates().tolist()
    with companion_style():
        fig, axes = _panels(1, len(sides), 0.6 + 0.3 * len(objectives))
        for ax, (carrier, side) in zip(axes[0], sides.items(), strict=True):
            for number, rule in enumerate(rules):
                rows = here[(here.rule == rule) & (here.carrier == carrier)].set_index("objective")
                at = np.arange(len(objectives)) + 0.26 * (number - (len(rules) - 1) / 2)
                for place, (_, row) in zip(at, rows.reindex(objectives).iterrows(), strict=True):
                    colour = COLOURS.get(row.name, GREY)
                    look = {"color": colour, "markerfacecolor": "white" if number else colour}
                    interval_points(ax, *100 * row[["accuracy"]], place, *100 * row[["low", "high"]], **look)
            ax.axvline(50, color="black", linewidth=0.6, linestyle=":")
            ax.set(xlim=(-4, 104), title=side, xlabel="inverse-biased test accuracy (%)")
            name_rows(ax, objectives)
            ax.tick_params(axis="y", length=0)
        for number, label in enumerate(rules.values()):
            axes[0, 0].plot(
                [], [], "o", color="black", markerfacecolor="white" if number else "black", label=label
            )
        handles, labels = axes[0, 0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside lower center", ncols=len(rules), frameon=False)
        carrier, side = next(iter(sides.items()))
        fig.suptitle(_claim(here[here.carrier == carrier], side.partition(":")[0]))
    return fig


def _claim(rows, side: str) -> str:
    """What the penalties come to on one side; a range if the rules differ."""
    said = []
    for name, label in ((USUAL, "presence-only"), (OURS, OURS)):
        percent = [f"{100 * value:.0f}" for value in sorted(rows[rows.objective == name].accuracy)]
        if percent:
            said.append(f"{label} {'–'.join(dict.fromkeys((percent[0], percent[-1])))}%")
    return f"Inverse-biased accuracy ({side}): {', '.join(said)}"


def accuracy_by_strength(table, sides: dict[int, str], penalised):
    """Inverse-biased accuracy after the last epoch against the strength of the penalty, with 95% intervals.

    Args:
        table: columns carrier, objective, strength, set, accuracy, low, high, as `accuracy_table` gives them for
            these groups. Of the objectives without a strength, plain training and training without a shortcut are
            drawn, as dashed lines: the floor and the ceiling.
        sides: carrier to its name, a panel each.
        penalised: names of the objectives whose strength matters.
    """
    table = table[(table.set == SHOWN) & table.objective.isin([*penalised, PLAIN, "no shortcut"])]
    strengths = np.sort(table.strength[table.strength > 0].unique())
    with companion_style():
        fig, axes = _panels(1, len(sides), 2.7)
        for ax, (carrier, side) in zip(axes[0], sides.items(), strict=True):
            ends = {}
            for objective, rows in table[table.carrier == carrier].groupby("objective", sort=False):
                rows = rows.sort_values("strength")
                accuracy, low, high = (100 * rows[name] for name in ("accuracy", "low", "high"))
                ends[objective] = accuracy.iloc[-1]
                look = {"color": COLOURS.get(objective, GREY), "label": objective}
                if objective not in penalised:
                    ax.axhline(accuracy.iloc[0], linestyle="--", linewidth=1.2, **look)
                    continue
                aside = 1.06 ** (1.5 - penalised.index(objective))  # so that none hides another
                look |= {"fmt": f"{MARKERS.get(objective, 'o')}-", "capsize": 2, "vertical": True}
                look["zorder"] = 3 if objective in COLOURS else 2
                interval_points(ax, accuracy, aside * rows.strength, low, high, **look)
            ax.set_xscale("log")
            if len(strengths):
                ax.set_xticks(strengths, [f"{strength:g}" for strength in strengths])
                ax.minorticks_off()
                ax.set_xlim(strengths.min() / 1.6, strengths.max() * 1.6)
            ax.set(xlabel="strength of the penalty", title=side, ylim=(-4, 104))
        axes[0, 0].set_ylabel("inverse-biased test accuracy (%)")
        _label_ends(axes[0, -1], ends)
        fig.suptitle(_largest_lead(table))
    return fig


def _label_ends(ax, ends: dict[str, float], gap: float = 7.5) -> None:
    """Names of curves at the right edge, at the height of their ends or as near as `gap` leaves room."""
    order = sorted(ends, key=ends.get)
    heights = np.array([ends[name] for name in order], float)
    for number in range(1, len(heights)):
        heights[number] = max(heights[number], heights[number - 1] + gap)
    heights -= max(0, heights[-1] - 103)
    for number in reversed(range(len(heights) - 1)):
        heights[number] = min(heights[number], heights[number + 1] - gap)
    for name, height in zip(order, heights, strict=True):
        look = {"color": COLOURS.get(name, "#666666"), "va": "center", "clip_on": False}
        ax.text(1.03, height, name, transform=ax.get_yaxis_transform(), **look)


def _largest_lead(table) -> str:
    """At which strength covering the absence, too, gains most; both accuracies are means over the sides."""
    wide = table[table.objective.isin([USUAL, OURS])].pivot_table("accuracy", "strength", "objective")
    if not {USUAL, OURS} <= set(wide):
        return ""
    strength = (wide[OURS] - wide[USUAL]).idxmax()
    usual, ours = 100 * wide.loc[strength, [USUAL, OURS]]
    return f"Penalty of strength {strength:g}: {usual:.0f}% right with presence-only, {ours:.0f}% with {OURS}"


LOSSES = {
    "cross_entropy": "cross entropy\n(trains the difference of the logits)",
    "bce": "binary cross entropy\n(trains each logit)",
}


def loss_comparison(table):
    """Accuracy, and absence scores of the artefact after presence-only, against the strength of the penalty, with 95%
    intervals: a column for each loss.

    Args:
        table: as `tables.loss_table` gives it.
    """
    losses, penalised = table.loss.drop_duplicates().tolist(), table[table.strength > 0]
    strengths = np.sort(penalised.strength.unique())
    with companion_style():
        size = (WIDTH, 5.4)
        fig, axes = plt.subplots(2, len(losses), figsize=size, squeeze=False, sharex=True, sharey="row")
        for (top, bottom), loss in zip(axes.T, losses, strict=True):
            for (objective, measure), rows in penalised[penalised.loss == loss].groupby(
                ["objective", "measure"], sort=False
            ):
                rows, look = rows.sort_values("strength"), {"capsize": 2, "vertical": True}
                values = rows[["value", "low", "high"]].T.to_numpy()
                if measure == SHOWN:
                    look |= {"color": COLOURS.get(objective, GREY), "label": objective, "fmt": "o-"}
                    interval_points(top, 100 * values[0], rows.strength, *100 * values[1:], **look)
                elif objective == USUAL:
                    label, colour, marker = LOGITS[measure.removeprefix("absence score, ")]
                    look |= {"color": colour, "label": label, "fmt": f"{marker}-"}
                    interval_points(bottom, values[0], rows.strength, *values[1:], **look)
            top.set(title=LOSSES[loss], ylim=(-4, 104))
            bottom.axhline(0, color="black", linewidth=0.6)
            bottom.set(xscale="log", xlabel="strength of the penalty")
            bottom.set_xticks(strengths, [f"{strength:g}" for strength in strengths])
            bottom.minorticks_off()
            bottom.set_xlim(strengths.min() / 1.6, strengths.max() * 1.6)
        axes[0, 0].set_ylabel("inverse-biased test accuracy (%)")
        axes[1, 0].set_ylabel("after presence-only:\nabsence score of the artefact (sd)")
        axes[0, -1].legend(frameon=False, loc="lower right")
        axes[1, -1].legend(frameon=False, loc="upper right")
        fig.suptitle(_left_over(penalised, losses))
    return fig


def _left_over(table, losses) -> str:
    """What presence-only leaves in the non-target logit, at least, under each loss."""
    rows = table[(table.objective == USUAL) & (table.measure == "absence score, other")]
    least = rows.groupby("loss").value.min()
    if not len(least):
        return ""
    said = " and ".join(fixed_number(least[loss], 2) for loss in losses if loss in least)
    return f"Presence-only leaves an absence in the non-target logit: at least {said} sd (left, right)"


def evidence_over_training(table, sides: dict[int, str]):
    """What each logit is told by the artefact, over training: signed attribution inside it, mean over seeds.

    Args:
        table: columns carrier, objective, strength, epoch, seed, and "evidence for the carrier's logit" and
            "evidence for the other logit" in standard deviations of that logit; one strength for each objective.
        sides: carrier to its name, a row each.
    """
    objectives = table.objective.drop_duplicates().tolist()
    with companion_style():
        fig, axes = _panels(len(sides), len(objectives), 1.8)
        for number, (row, (carrier, side)) in enumerate(zip(axes, sides.items(), strict=True)):
            for ax, objective in zip(row, objectives, strict=True):
                here = table[(table.carrier == carrier) & (table.objective == objective)]
                for logit, (label, colour, _) in LOGITS.items():
                    seeds = here.pivot(index="epoch", columns="seed", values=_EVIDENCE[logit])
                    band = {"color": colour, "alpha": 0.2, "linewidth": 0}
                    ax.plot(seeds.index, seeds.mean(axis=1), color=colour, linewidth=1.6, label=label)
                    ax.fill_between(seeds.index, seeds.min(axis=1), seeds.max(axis=1), **band)
                ax.axhline(0, color="black", linewidth=0.6)
                if number == 0:
                    strength = here.strength.iloc[0]
                    ax.set_title(objective + (f"\nstrength {strength:g}" if strength else ""))
            row[0].set_ylabel(f"{side}:\nevidence (sd)")
        for ax in axes[-1]:
            ax.set_xlabel("epoch")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        labels[-1] += " (line: mean, band: range over seeds)"
        fig.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
        last = table[(table.epoch == table.epoch.max()) & (table.objective == USUAL)]
        if len(last):
            target, other = (fixed_number(last[_EVIDENCE[logit]].mean(), 2) for logit in LOGITS)
            fig.suptitle(
                f"Evidence of the artefact after presence-only: {target} sd target, {other} sd non-target logit"
            )
    return fig


_EVIDENCE = {"carrier": "evidence for the carrier's logit", "other": "evidence for the other logit"}


def artefact_scores(table, sides: dict[int, str]):
    """Absence score of the artefact on both logits under each objective, with 95% intervals over seeds.

    Args:
        table: as `tables.score_table` gives it, of one rule.
        sides: carrier to its name, a panel each.
    """
    objectives = table.objective.drop_duplicates().tolist()
    with companion_style():
        fig, axes = _panels(1, len(sides), 0.6 + 0.28 * len(objectives))
        for ax, (carrier, side) in zip(axes[0], sides.items(), strict=True):
            for place, (logit, (label, colour, marker)) in enumerate(LOGITS.items()):
                rows = table[(table.carrier == carrier) & (table.logit == logit)].set_index("objective")
                rows, at = rows.reindex(objectives), np.arange(len(objectives)) + (place - 0.5) * 0.25
                look = {"color": colour, "label": label, "fmt": marker}
                interval_points(ax, rows.score, at, rows.low, rows.high, **look)
            ax.axvline(0, color="black", linewidth=0.6)
            name_rows(ax, objectives)
            ax.set(
                title=side, xlabel="absence score of the artefact (sd)\nbelow 0: presence, above 0: absence"
            )
        fig.legend(
            *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False
        )
        left = table[table.logit == "other"].groupby("objective").score.mean()
        if {USUAL, OURS} <= set(left.index):
            fig.suptitle(
                f"Absence of the artefact left in the non-target logit: {fixed_number(left[USUAL], 2)} sd after "
                f"presence-only, {fixed_number(left[OURS], 2)} sd after both"
            )
    return fig


def shortcut_examples(examples, class_names, smooth: float = 0.0):
    """Images with the maps of their target and non-target logit under several networks; the artefact is outlined.

    Maps of one network share their colour scale; under each stands the logit.

    Args:
        examples: `examples.Example`, cases in order, each with the same networks.
        class_names: of classes 0 and 1.
        smooth: width of a Gaussian under which maps are drawn, as a share of the image's edge; 0 for none.
    """
    cases = list(dict.fromkeys(example.case for example in examples))
    per_row = len(examples) // len(cases)
    with companion_style():
        columns = 1 + 2 * per_row
        size = (WIDTH, 0.6 + (WIDTH / columns + 0.3) * len(cases))
        fig, axes = plt.subplots(len(cases), columns, figsize=size, squeeze=False)
        limits = [
            signed_limit(*(smoothed(e.maps, smooth) if smooth else e.maps for e in examples[number::per_row]))
            for number in range(per_row)
        ]
        for place, (row, case) in enumerate(zip(axes, cases, strict=True)):
            here = [example for example in examples if example.case == case]
            show_image(row[0], here[0].pixels)
            row[0].set_ylabel(case)
            row[0].spines[:].set_visible(False)
            for number, example in enumerate(here):
                _two_maps(row[1 + 2 * number :], example, limits[number], smooth, class_names)
                if place == 0:
                    row[1 + 2 * number].set_title(f"{example.network}\ntarget", loc="left")
                    row[2 + 2 * number].set_title("\nnon-target", loc="left")
        axes[0, 0].set_title("image")
        many = {network: 0 for network in dict.fromkeys(example.network for example in examples)}
        for example in examples:
            many[example.network] += int(example.logits.argmax()) == example.label
        said = ", ".join(f"{count} ({network})" for network, count in many.items())
        fig.suptitle(f"Of {len(cases)} typical images right: {said}")
    return fig


def _two_maps(axes, example, limit, smooth, class_names) -> None:
    right = int(example.logits.argmax()) == example.label
    for ax, column in zip(axes, (example.label, 1 - example.label), strict=False):
        values = smoothed(example.maps[column], smooth) if smooth else to_numpy(example.maps[column])
        signed_map(ax, values, limit)
        ax.contour(to_numpy(example.outline).astype(float), [0.5], colors="black", linewidths=0.6)
        bare(ax)
        wrong = "" if right or column == example.label else "\n(wrong)"
        value = round(float(example.logits[column]), 1) + 0.0  # no minus before a zero
        logit = fixed_number(value, 1, plus=True)
        ax.set_xlabel(f"{class_names[column]}: {logit}{wrong}", labelpad=2)
