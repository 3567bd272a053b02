"""Figures of the debiasing study from tables: accuracies, strengths, evidence over training, scores, examples."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.lines import Line2D

from .attribution import smoothed
from .base import (
    ABSENCE,
    NEUTRAL,
    PRESENCE,
    bare,
    companion_style,
    show_image,
    signed_limit,
    signed_map,
    to_numpy,
)
from .patches import PAGE, signed_number

SETS = {  # test images: marker and colour
    "biased": ("s", "#bdbdbd"),
    "bias-free": ("o", "#636363"),
    "inverse-biased": ("D", "#000000"),
    "worst group": ("x", "#e08214"),
}
OBJECTIVES = {  # colours of what is trained
    "none": "#9e9e9e",
    "presence": PRESENCE,
    "presence and absence": ABSENCE,
    "RRR": "#7b3294",
    "random logit": "#008837",
    "augmentation": "#e08214",
    "group-DRO": "#a6611a",
    "no shortcut": "black",
}
LOGITS = {"carrier": ("target logit", PRESENCE), "other": ("non-target logit", ABSENCE)}


def _colour(objective: str) -> str:
    return OBJECTIVES.get(objective, NEUTRAL)


def _panels(rows: list, columns: list, height: float):
    """Axes [row, column] of equal size that share both axes."""
    size = (PAGE * (0.62 if len(columns) == 1 else 1.0), 0.7 + height * len(rows))
    return plt.subplots(len(rows), len(columns), figsize=size, squeeze=False, sharex=True, sharey=True)


def accuracy_by_objective(table, sides: dict[int, str], rules: dict[str, str]):
    """Accuracy under each objective on the three sets of test images and in the worst group, with 95 % intervals.

    Args:
        table: as `debias_study.accuracy_table` gives it: rule, carrier, objective, set, accuracy, low, high.
        sides: carrier to its name, a column each.
        rules: rule to its name, a row each.
    """
    objectives = table.objective.drop_duplicates().tolist()
    with companion_style():
        fig, axes = _panels(list(rules), list(sides), 0.5 + 0.3 * len(objectives))
        for row, (rule, title) in zip(axes, rules.items(), strict=True):
            for ax, (carrier, side) in zip(row, sides.items(), strict=True):
                here = table[(table.rule == rule) & (table.carrier == carrier)]
                for place, (name, (marker, colour)) in enumerate(SETS.items()):
                    values = here[here.set == name].set_index("objective").reindex(objectives)
                    at = np.arange(len(objectives)) + (place - 1.5) * 0.16
                    _intervals(ax, values.accuracy, values.low, values.high, at, marker, colour, name, 100)
                ax.axvline(50, color="black", linewidth=0.6, linestyle=":")
                ax.set_yticks(range(len(objectives)), objectives)
                ax.set(xlim=(-4, 104), ylim=(len(objectives) - 0.4, -0.6))
                ax.set_title(f"{side}\n{title}" if ax in axes[0] else title, fontsize=8)
        for ax in axes[-1]:
            ax.set_xlabel("accuracy on test images (%)\n95 % intervals over seeds; dotted: chance")
        handles = [Line2D([], [], marker=m, color=c, linestyle="", label=n) for n, (m, c) in SETS.items()]
        fig.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    return fig


def _intervals(ax, values, low, high, at, marker, colour, label, scale=1.0) -> None:
    values, low, high = (scale * np.asarray(each, float) for each in (values, low, high))
    error = np.nan_to_num(np.stack([values - low, high - values])).clip(0)
    ax.errorbar(values, at, xerr=error, fmt=marker, color=colour, markersize=4, linewidth=1, label=label)


def accuracy_by_strength(table, sides: dict[int, str], penalised):
    """Inverse-biased accuracy after the last epoch against the strength of the penalty, with 95 % intervals.

    Args:
        table: columns carrier, objective, strength, set, accuracy, low, high, as `accuracy_table` gives them for
            these groups. Objectives with one strength are drawn as a dashed line at theirs.
        sides: carrier to its name, a panel each.
        penalised: names of the objectives whose strength matters.
    """
    table = table[table.set == "inverse-biased"]
    strengths = np.sort(table.strength.unique())
    with companion_style():
        fig, axes = _panels([0], list(sides), 2.9)
        for ax, (carrier, side) in zip(axes[0], sides.items(), strict=True):
            for objective, rows in table[table.carrier == carrier].groupby("objective", sort=False):
                rows, colour = rows.sort_values("strength"), _colour(objective)
                if objective not in penalised:
                    ax.axhline(
                        100 * rows.accuracy.iloc[0],
                        color=colour,
                        linestyle="--",
                        linewidth=1,
                        label=objective,
                    )
                    continue
                aside = 1.06 ** (1.5 - penalised.index(objective))  # so that none hides another
                error = np.nan_to_num(
                    100 * np.stack([rows.accuracy - rows.low, rows.high - rows.accuracy]).clip(0)
                )
                ax.errorbar(aside * rows.strength, 100 * rows.accuracy, yerr=error, fmt="o-", color=colour,
                            markersize=4, linewidth=1.2, capsize=2, label=objective)  # fmt: skip
            ax.set_xscale("log")
            positive = strengths[strengths > 0]
            if len(positive):
                ax.set_xticks(positive, [f"{strength:g}" for strength in positive])
                ax.minorticks_off()
                ax.set_xlim(strengths[strengths > 0].min() / 1.6, strengths.max() * 1.6)
            ax.set(xlabel="strength of the penalty", title=side, ylim=(-4, 104))
        axes[0, 0].set_ylabel("accuracy where the artefact\nmarks the wrong class (%)")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    return fig


def evidence_over_training(table, sides: dict[int, str]):
    """What each logit is told by the artefact, over training: signed attribution inside it, mean over seeds.

    Args:
        table: columns carrier, objective, strength, epoch, seed, and "evidence for the carrier's logit" and
            "evidence for the other logit" in standard deviations of that logit; one strength for each objective.
        sides: carrier to its name, a row each.
    """
    objectives = table.objective.drop_duplicates().tolist()
    with companion_style():
        fig, axes = _panels(list(sides), objectives, 1.6)
        for number, (row, (carrier, side)) in enumerate(zip(axes, sides.items(), strict=True)):
            for ax, objective in zip(row, objectives, strict=True):
                here = table[(table.carrier == carrier) & (table.objective == objective)]
                for logit, (label, colour) in LOGITS.items():
                    name = "the carrier's logit" if logit == "carrier" else "the other logit"
                    seeds = here.pivot(index="epoch", columns="seed", values=f"evidence for {name}")
                    ax.plot(seeds.index, seeds.mean(axis=1), color=colour, linewidth=1.6, label=label)
                    ax.fill_between(seeds.index, seeds.min(axis=1), seeds.max(axis=1), color=colour, alpha=0.2,
                                    linewidth=0)  # fmt: skip
                ax.axhline(0, color="black", linewidth=0.6)
                strength = here.strength.iloc[0]
                if number == 0:
                    ax.set_title(
                        objective if not strength else f"{objective}\nstrength {strength:g}", fontsize=8
                    )
            row[0].set_ylabel(f"{side}\nevidence (sd)", fontsize=8)
        for ax in axes[-1]:
            ax.set_xlabel("epoch")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        labels = [f"{label} (line: mean, band: range over seeds)" for label in labels]
        fig.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False, fontsize=8)
    return fig


def artefact_scores(table, sides: dict[int, str]):
    """Absence score of the artefact on both logits under each objective, with 95 % intervals over seeds.

    Args:
        table: as `debias_study.score_table` gives it, of one rule.
        sides: carrier to its name, a panel each.
    """
    objectives = table.objective.drop_duplicates().tolist()
    with companion_style():
        fig, axes = _panels([0], list(sides), 0.6 + 0.28 * len(objectives))
        for ax, (carrier, side) in zip(axes[0], sides.items(), strict=True):
            for place, (logit, (label, colour)) in enumerate(LOGITS.items()):
                rows = table[(table.carrier == carrier) & (table.logit == logit)].set_index("objective")
                rows, at = rows.reindex(objectives), np.arange(len(objectives)) + (place - 0.5) * 0.25
                _intervals(ax, rows.score, rows.low, rows.high, at, "o", colour, label)
            ax.axvline(0, color="black", linewidth=0.6)
            ax.set_yticks(range(len(objectives)), objectives)
            ax.set_ylim(len(objectives) - 0.4, -0.6)
            ax.set(
                title=side,
                xlabel="absence score of the artefact (sd)\nleft: presence, right: absence encoded",
            )
        handles, labels = axes[0, 0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False, fontsize=8)
    return fig


def shortcut_examples(examples, class_names, smooth: float = 0.0):
    """Images with the maps of their target and non-target logit under several networks; the artefact is outlined.

    Maps of one network share their colour scale; under each stands the logit.

    Args:
        examples: `debias_examples.Example`, cases in order, each with the same networks.
        class_names: of classes 0 and 1.
        smooth: width of a Gaussian under which maps are drawn, as a share of the image's edge; 0 for none.
    """
    cases = list(dict.fromkeys(example.case for example in examples))
    per_row = len(examples) // len(cases)
    with companion_style():
        width = PAGE / (1 + 2 * per_row)
        fig, axes = plt.subplots(
            len(cases), 1 + 2 * per_row, figsize=(PAGE, 0.6 + (width + 0.22) * len(cases)), squeeze=False
        )
        limits = [
            signed_limit(*(smoothed(e.maps, smooth) if smooth else e.maps for e in examples[number::per_row]))
            for number in range(per_row)
        ]
        for place, (row, case) in enumerate(zip(axes, cases, strict=True)):
            here = [example for example in examples if example.case == case]
            show_image(row[0], here[0].pixels)
            row[0].set_ylabel(case, fontsize=7.5)
            row[0].spines[:].set_visible(False)
            for number, example in enumerate(here):
                _two_maps(row[1 + 2 * number :], example, limits[number], smooth, class_names)
                if place == 0:
                    row[1 + 2 * number].set_title(f"{example.network}\ntarget logit", fontsize=7.5)
                    row[2 + 2 * number].set_title("\nnon-target logit", fontsize=7.5)
        axes[0, 0].set_title("image", fontsize=7.5)
    return fig


def _two_maps(axes, example, limit, smooth, class_names) -> None:
    right = int(example.logits.argmax()) == example.label
    for ax, column in zip(axes, (example.label, 1 - example.label), strict=False):
        values = smoothed(example.maps[column], smooth) if smooth else to_numpy(example.maps[column])
        signed_map(ax, values, limit)
        ax.contour(to_numpy(example.outline).astype(float), [0.5], colors="black", linewidths=0.6)
        bare(ax)
        wrong = "" if right or column == example.label else "\n(predicted: wrong)"
        ax.set_xlabel(f"{class_names[column]}: {signed_number(float(example.logits[column]))}{wrong}", fontsize=7,
                      labelpad=2)  # fmt: skip
