"""Figures of the debiasing study from tables: accuracies, strengths, evidence over training, scores, examples."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np

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
    signed_number,
    to_numpy,
)

SETS = {  # test images: marker and colour
    "biased": ("s", "#bdbdbd"),
    "coin": ("o", "#636363"),
    "patch-free": ("^", "#636363"),
    "inverse-biased": ("D", "#000000"),
    "worst group": ("x", ORANGE),
}
OBJECTIVES = {  # colours of what is trained
    "none": "#9e9e9e",
    "presence": PRESENCE,
    "presence and absence": ABSENCE,
    "RRR": "#7b3294",
    "random logit": "#008837",
    "augmentation": ORANGE,
    "group-DRO": "#a6611a",
    "no shortcut": "black",
    "no patch": "#636363",
    "none, 1% minority": "#c7a0d8",
    "group-DRO, 1% minority": "#a6611a",
}
LOGITS = {"carrier": ("target logit", PRESENCE), "other": ("non-target logit", ABSENCE)}


def _panels(rows: int, columns: int, height: float):
    """Axes [row, column] of equal size that share both axes."""
    size = (WIDTH, 0.8 + height * rows)
    return plt.subplots(rows, columns, figsize=size, squeeze=False, sharex=True, sharey=True)


def accuracy_by_objective(table, sides: dict[int, str], rules: dict[str, str]):
    """Accuracy under each objective on the four sets of test images and in the worst group, with 95% intervals.

    Args:
        table: as `tables.accuracy_table` gives it: rule, carrier, objective, set, accuracy, low, high.
        sides: carrier to its name, a column each.
        rules: rule to its name, a row each.
    """
    objectives = table.objective.drop_duplicates().tolist()
    percent = table.assign(**{name: 100 * table[name] for name in ("accuracy", "low", "high")})
    with companion_style():
        fig, axes = _panels(len(rules), len(sides), 0.5 + 0.3 * len(objectives))
        for row, (rule, title) in zip(axes, rules.items(), strict=True):
            for ax, (carrier, side) in zip(row, sides.items(), strict=True):
                here = percent[(percent.rule == rule) & (percent.carrier == carrier)]
                for place, (name, (marker, colour)) in enumerate(SETS.items()):
                    values = here[here.set == name].set_index("objective").reindex(objectives)
                    at = np.arange(len(objectives)) + (place - 2) * 0.14
                    look = {"fmt": marker, "color": colour, "label": name}
                    interval_points(ax, values.accuracy, at, values.low, values.high, **look)
                ax.axvline(50, color="black", linewidth=0.6, linestyle=":")
                ax.set_xlim(-4, 104)
                name_rows(ax, objectives)
                ax.set_title(f"{side}\n{title}" if ax in axes[0] else title, fontsize=8)
        for ax in axes[-1]:
            ax.set_xlabel("accuracy on test images (%)\n95% intervals over seeds; dotted: chance")
        legend_above(fig, axes[0, 0], len(SETS))
    return fig


def accuracy_by_strength(table, sides: dict[int, str], penalised):
    """Inverse-biased accuracy after the last epoch against the strength of the penalty, with 95% intervals.

    Args:
        table: columns carrier, objective, strength, set, accuracy, low, high, as `accuracy_table` gives them for
            these groups. Objectives with one strength are drawn as a dashed line at theirs.
        sides: carrier to its name, a panel each.
        penalised: names of the objectives whose strength matters.
    """
    table = table[table.set == "inverse-biased"]
    strengths = np.sort(table.strength[table.strength > 0].unique())
    with companion_style():
        fig, axes = _panels(1, len(sides), 2.9)
        for ax, (carrier, side) in zip(axes[0], sides.items(), strict=True):
            for objective, rows in table[table.carrier == carrier].groupby("objective", sort=False):
                rows, look = (
                    rows.sort_values("strength"),
                    {"color": OBJECTIVES.get(objective, NEUTRAL), "label": objective},
                )
                accuracy, low, high = (100 * rows[name] for name in ("accuracy", "low", "high"))
                if objective not in penalised:
                    ax.axhline(accuracy.iloc[0], linestyle="--", linewidth=1, **look)
                    continue
                aside = 1.06 ** (1.5 - penalised.index(objective))  # so that none hides another
                look |= {"fmt": "o-", "capsize": 2, "vertical": True}
                interval_points(ax, accuracy, aside * rows.strength, low, high, **look)
            ax.set_xscale("log")
            if len(strengths):
                ax.set_xticks(strengths, [f"{strength:g}" for strength in strengths])
                ax.minorticks_off()
                ax.set_xlim(strengths.min() / 1.6, strengths.max() * 1.6)
            ax.set(xlabel="strength of the penalty", title=side, ylim=(-4, 104))
        axes[0, 0].set_ylabel("inverse-biased\ntest accuracy (%)")
        legend_above(fig, axes[0, 0], 4)
    return fig


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
    with companion_style():
        size = (WIDTH, 5.0)
        fig, axes = plt.subplots(2, len(losses), figsize=size, squeeze=False, sharex=True, sharey="row")
        for (top, bottom), loss in zip(axes.T, losses, strict=True):
            for (objective, measure), rows in penalised[penalised.loss == loss].groupby(
                ["objective", "measure"], sort=False
            ):
                rows, look = rows.sort_values("strength"), {"fmt": "o-", "capsize": 2, "vertical": True}
                values = rows[["value", "low", "high"]].T.to_numpy()
                if measure == "inverse-biased":
                    look |= {"color": OBJECTIVES.get(objective, NEUTRAL), "label": objective}
                    interval_points(top, 100 * values[0], rows.strength, *100 * values[1:], **look)
                elif objective == "presence":
                    label, colour = LOGITS[measure.removeprefix("absence score, ")]
                    look |= {"color": colour, "label": label}
                    interval_points(bottom, values[0], rows.strength, *values[1:], **look)
            top.set(title=LOSSES[loss], ylim=(-4, 104))
            bottom.axhline(0, color="black", linewidth=0.6)
            bottom.set(xscale="log", xlabel="strength of the penalty")
        axes[0, 0].set_ylabel("inverse-biased\ntest accuracy (%)")
        axes[1, 0].set_ylabel("after presence-only: absence\nscore of the artefact (sd)")
        for ax in axes[:, 0]:
            ax.legend(fontsize=7, frameon=False)
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
        fig, axes = _panels(len(sides), len(objectives), 1.6)
        for number, (row, (carrier, side)) in enumerate(zip(axes, sides.items(), strict=True)):
            for ax, objective in zip(row, objectives, strict=True):
                here = table[(table.carrier == carrier) & (table.objective == objective)]
                for logit, (label, colour) in LOGITS.items():
                    name = "the carrier's logit" if logit == "carrier" else "the other logit"
                    seeds = here.pivot(index="epoch", columns="seed", values=f"evidence for {name}")
                    band = {"color": colour, "alpha": 0.2, "linewidth": 0}
                    label = f"{label} (line: mean, band: range over seeds)"
                    ax.plot(seeds.index, seeds.mean(axis=1), color=colour, linewidth=1.6, label=label)
                    ax.fill_between(seeds.index, seeds.min(axis=1), seeds.max(axis=1), **band)
                ax.axhline(0, color="black", linewidth=0.6)
                if number == 0:
                    strength = here.strength.iloc[0]
                    ax.set_title(objective + (f"\nstrength {strength:g}" if strength else ""), fontsize=8)
            row[0].set_ylabel(f"{side}\nevidence (sd)", fontsize=8)
        for ax in axes[-1]:
            ax.set_xlabel("epoch")
        legend_above(fig, axes[0, 0], 2)
    return fig


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
            for place, (logit, (label, colour)) in enumerate(LOGITS.items()):
                rows = table[(table.carrier == carrier) & (table.logit == logit)].set_index("objective")
                rows, at = rows.reindex(objectives), np.arange(len(objectives)) + (place - 0.5) * 0.25
                interval_points(ax, rows.score, at, rows.low, rows.high, color=colour, label=label)
            ax.axvline(0, color="black", linewidth=0.6)
            name_rows(ax, objectives)
            ax.set(
                title=side, xlabel="absence score of the artefact (sd)\n< 0: presence, > 0: absence encoded"
            )
        legend_above(fig, axes[0, 0], 2)
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
