"""The drawings of a unit card, each drawn alike on the notebook's figure and on the card's page; a layer's verdicts."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import PercentFormatter

from absence_utils.units import full_name

from .attribution import overlay_colours, robust_limit, smoothed
from .base import (
    ABSENCE,
    NEUTRAL,
    PRESENCE,
    companion_style,
    drawn_once,
    interval_points,
    name_rows,
    show_image,
    signed_number,
    to_numpy,
)

WIDTH = 7.5  # inches of the whole card
COLUMNS = 6  # pictures beside each other on half a card
INK = "#1b1b1f"
SIDES = {"highest": PRESENCE, "lowest": ABSENCE}
DECISIONS = {"encodes an absence": ABSENCE, "none of that size": "#9a9a9a", "cannot tell": "#d8b365"}
READINGS = {"signed": INK, "passed on": "#6a51a3"}
LETTERS, LINES = 9, 4  # of a label under a picture: as many as fit its width, and the most
SENTENCE = 104  # characters of a line over the width of the card
NAMED_ROWS = 12  # most units whose names stand in the overview
PATCH_NOTE = (
    "Under each: its response, and what lies mostly in the patch or, after “from:”, what its image shows."
)
LEAST_AXIS = 0.1  # sd, the least that an axis of evidence reaches
CLASSES = 8  # classes shown of those that suppress the unit most


@dataclass(frozen=True)
class Panel:
    """One drawing of a card.

    Attributes:
        draw: function of a figure or a subfigure.
        width, height: what it is drawn for, inches.
        alt: what it shows, in words.
    """

    draw: Callable
    width: float
    height: float
    alt: str


@dataclass(frozen=True)
class Row:
    """Panels that stand beside each other, with a title and a note for the page."""

    title: str
    panels: list[Panel]
    note: str = ""


def card_rows(card) -> list[Row]:
    """Everything a card draws, from top to bottom.

    Args:
        card: a `your_model.cards.Card`.
    """
    rows = []
    for title, found, note in (("Patches", card.patches, PATCH_NOTE), ("Images", card.images, "")):
        pictures = {side: _captioned(end.pixels, end.response, end.label) for side, end in found.items()}
        rows.append(_picture_row(card, title, pictures, note=note))
        if title == "Patches" and card.naming and len(card.naming.concepts):
            rows.append(_concept_row(card.naming))
    if card.pair:
        ends = {side: getattr(card.pair, side) for side in SIDES}
        pictures = {side: _captioned(end.image, end.response) for side, end in ends.items()}
        note = f"Same seed, {card.effort.steps} steps each. A direction, not a picture of what real images reach."
        if card.short_ends:
            note += f" Real images go further at the {' and the '.join(card.short_ends)} end."
        rows.append(_picture_row(card, "Synthesised images", pictures, note=note))
    if card.evidence:
        maps = {"highest": card.evidence.target, "lowest": card.evidence.other}
        names = {
            "highest": "Most presence evidence: target inputs",
            "lowest": "Most absence evidence: non-target inputs",
        }
        note = (
            f"Inputs split by {card.evidence.split}: target inputs with the most presence evidence, non-target inputs "
            f"with the most absence evidence. Maps: {card.about_maps}. Red raises the response, blue lowers it; full "
            f"colour at ±{map_limit(card):.2g} a pixel, net evidence under a Gaussian of {card.smooth:.0%} of the edge."
        )
        pictures = {side: _maps(card, found) for side, found in maps.items()}
        rows.append(_picture_row(card, "Signed attribution", pictures, names, note))
    return [*rows, Row("Responses and effects", _drawings(card), f"Shape of the response. {card.shape_line}")]


def card_figure(card):
    """The whole card as one picture: answer, drawings, and the highest beside the lowest responses.

    Args:
        card: a `your_model.cards.Card`.

    Returns:
        The figure, 7.5 inches wide.
    """
    rows = card_rows(card)
    title = textwrap.fill(f"{card.title}: {card.headline}", 78)
    sentence = textwrap.fill(card.sentence, SENTENCE)
    about = [f"{name}: {card.about[name]}" for name in ("network", "layer", "images") if name in card.about]
    if card.evidence:
        about.append(f"maps: {card.about_maps}")
    about = textwrap.wrap(" · ".join(about), SENTENCE)
    heights = [0.19 * title.count("\n") + 0.155 * sentence.count("\n") + 0.52]
    heights += [max(panel.height for panel in row.panels) for row in rows] + [0.08 + 0.155 * len(about)]
    with companion_style():
        figure = plt.figure(figsize=(WIDTH, sum(heights)), layout="constrained")
        head, *parts, foot = figure.subfigures(len(heights), 1, height_ratios=heights)
        head.text(0.01, 0.96, title, fontsize=11, fontweight="bold", va="top")
        head.text(0.01, 0.02, sentence, va="bottom")
        for part, row in zip(parts, rows, strict=True):
            widths = [panel.width for panel in row.panels]
            places = np.ravel(part.subfigures(1, len(widths), width_ratios=widths))
            for place, panel in zip(places, row.panels, strict=True):
                panel.draw(place)
        foot.text(0.01, 0.5, "\n".join(about), color=NEUTRAL, va="center")
    return figure


def show_card(card):
    """`card_figure`, to be looked at."""
    return drawn_once(card_figure(card))


def _drawings(card) -> list[Panel]:
    """Histogram, scores, and the classes that suppress the unit where there is more than one class."""
    panels = [
        Panel(
            lambda part: response_histogram(part.subplots(), card.responses, card.shape["blank"]), 2.25, 2.7,
            f"Histogram of the unit's responses to {len(card.responses)} images, "
            f"{_share((card.responses < 0).mean())} of them negative",
        ),
        Panel(
            lambda part: effect_intervals(part.subplots(), card), 2.95, 2.7,
            "Effects of the lowest patches with 95% intervals: "
            + ", ".join(f"{read} {row['effect']:.2f} sd" for read, row in card.decisions.iterrows())
            + "; all are in the table of effects",
        ),
    ]  # fmt: skip
    if card.evidence is not None and len(card.evidence.classes):
        named = ", ".join(map(str, card.evidence.classes["name"].head(3)))
        alt = f"Absence evidence by class, most first: {named}"
        panels.append(Panel(lambda part: class_bars(part.subplots(), card.evidence), 2.3, 2.7, alt))
    return panels


def _concept_row(naming) -> Row:
    """What each concept does to the unit when it is put into images."""
    concepts = naming.concepts
    said = ", ".join(f"{row.concept} {row.effect:.2f} sd" for row in concepts.itertuples())
    height = 0.8 + 0.17 * max(len(concepts), 3)
    panel = Panel(
        lambda part: concept_intervals(part.subplots(), concepts), WIDTH, height, f"Concepts put in: {said}"
    )
    return Row("Concepts put into images", [panel], naming.test)


def concept_intervals(ax, concepts) -> None:
    """The effect of each concept with its 95% interval; a confirmed one is blue and bold.

    Args:
        concepts: see `your_model.offer.Naming`.
    """
    colours = [ABSENCE if found else NEUTRAL for found in concepts["confirmed"]]
    for row, (found, colour) in enumerate(zip(concepts.itertuples(), colours, strict=True)):
        ax.plot([found.low, found.high], [row, row], color=colour, linewidth=1.6, solid_capstyle="butt")
        ax.plot(found.effect, row, "o", color=colour, markersize=5)
    ax.axvline(0, color=INK, linewidth=1)
    name_rows(ax, [textwrap.shorten(str(name), 50, placeholder="…") for name in concepts["concept"]])
    for label, found in zip(ax.get_yticklabels(), concepts["confirmed"], strict=True):
        label.set_fontweight("bold" if found else "normal")
    ax.set_ylim(max(len(concepts), 3) - 0.4, -0.6)
    ax.set_xlabel("change of the response, sd")
    ax.set_title("concepts put into images (bold: confirmed)", loc="left")


def _picture_row(card, title: str, pictures: dict, names: dict | None = None, note: str = "") -> Row:
    """A row with the highest responses on the left and the lowest on the right.

    Args:
        pictures: side to [(picture, caption)].
        names: what each side shows, where it is not the title.
    """
    panels = []
    for side, shown in pictures.items():
        name = names[side] if names else f"{side.capitalize()} response: {title.lower()}"
        captions = "; ".join(caption.replace("\n", " ") for _, caption in shown)
        lines = max(caption.count("\n") for _, caption in shown)
        height = 0.27 + (0.83 + 0.15 * lines) * -(-len(shown) // COLUMNS)
        draw = partial(_strip, title=name, colour=SIDES[side], pictures=shown)
        panels.append(Panel(draw, WIDTH / 2, height, f"{name} of {card.title}: {captions}"))
    return Row(title, panels, note)


def _strip(part, title: str, colour: str, pictures: list) -> None:
    part.suptitle(title, color=colour, fontweight="bold")
    grid = part.add_gridspec(-(-len(pictures) // COLUMNS), COLUMNS)
    for place, shown in zip_longest(grid, pictures):
        ax = part.add_subplot(place, anchor="N")
        if shown is None:
            ax.axis("off")  # it keeps the width of its column
            continue
        show_image(ax, shown[0])
        ax.set_xlabel(shown[1], labelpad=2)


def _captioned(pixels, responses, labels=None) -> list[tuple]:
    """[(picture, its response and, on a few lines, its label)]."""
    captions = []
    for value, label in zip(responses, labels or [""] * len(pixels), strict=True):
        lines = textwrap.wrap(str(label), LETTERS, max_lines=LINES, placeholder="…")
        captions.append("\n".join([signed_number(float(value)), *lines]).replace(",…", "…"))
    return list(zip(pixels, captions, strict=True))


def _maps(card, maps) -> list[tuple]:
    """Every input with its signed map, all of a card on one scale."""
    limit, signed = map_limit(card), smoothed(maps.signed, card.smooth)
    inputs = _captioned(maps.pixels, maps.response, maps.captions)
    pictures = []
    for (pixels, caption), values in zip(inputs, signed, strict=True):
        colours = overlay_colours(pixels, values, limit).transpose(2, 0, 1)
        pictures += [(pixels, caption), (colours, f"±{limit:.2g}")]
    return pictures


def map_limit(card) -> float:
    """Magnitude at full colour for all maps of a card: per pixel, in the units of the layer."""
    both = (card.evidence.target, card.evidence.other)
    return robust_limit(np.concatenate([smoothed(maps.signed, card.smooth).ravel() for maps in both]))


def response_histogram(ax, responses, blank: float | None = None) -> None:
    """Responses to all images, negative ones blue, positive ones red; zero, median and blank are marked."""
    responses = to_numpy(responses).astype(float)
    responses = responses[np.isfinite(responses)]
    low, high = min(responses.min(initial=0), 0), max(responses.max(initial=0), 0)
    width = (high - low or 1) / 36
    edges = np.arange(np.floor(low / width) - 1, np.ceil(high / width) + 2) * width  # an edge lies at zero
    counts, _ = np.histogram(responses, edges)
    middle = (edges[:-1] + edges[1:]) / 2
    ax.bar(middle, counts, width, color=np.where(middle < 0, ABSENCE, PRESENCE), linewidth=0)
    ax.axvline(0, color=INK, linewidth=1.6)
    if len(responses):
        ax.axvline(np.median(responses), color=NEUTRAL, linestyle=":", linewidth=1.4)
    if blank is not None:
        ax.axvline(blank, color=NEUTRAL, linestyle="--", linewidth=1.2)
    below = _share((responses < 0).mean() if len(responses) else 0)
    ax.set_xlabel("signed response,\nunits of the layer")
    ax.set_ylabel("images")
    marks = "dotted: median" if blank is None else "dotted: median, dashed: blank"
    ax.set_title(f"{below} of {len(responses):,} images below 0\n({marks})", loc="right")


def _share(share: float) -> str:
    """A share in per cent; 100% are all, and 0% none."""
    return f"{share:.1%}" if round(100 * share) in (0, 100) and share not in (0, 1) else f"{share:.0%}"


def effect_intervals(ax, card) -> None:
    """Effect of the lowest patches in both readings against each control, with its 95% interval and delta (dashed)."""
    names = []
    for row, effect in enumerate(card.effects.itertuples()):
        colour = READINGS[effect.reading]
        ax.plot([effect.low, effect.high], [row, row], color=colour, linewidth=1.6, solid_capstyle="butt")
        ax.plot(effect.value, row, "o", color=colour, markersize=5)
        names.append(f"{effect.reading}:\n{effect.control}")
    for reading, delta in card.decisions["delta"].items():
        rows = np.flatnonzero((card.effects["reading"] == reading).to_numpy())
        ax.plot([delta] * 2, [rows[0] - 0.5, rows[-1] + 0.5], "--", color=READINGS[reading], linewidth=1.2)
    if card.context["context"].head(1).notna().any():
        found = card.context.iloc[0]
        row = len(names)
        ax.plot(
            [found["low"], found["high"]], [row, row], color=NEUTRAL, linewidth=1.6, solid_capstyle="butt"
        )
        ax.plot(found["context"], row, "D", color=NEUTRAL, markersize=4)
        names.append("context: with −\nwithout trigger")
    ax.axvline(0, color=INK, linewidth=1)
    name_rows(ax, names)
    ax.set_xlabel("suppression, sd")
    ax.set_title("effect of the lowest patches\n(dashed: size that counts)", loc="right")


def class_bars(ax, evidence) -> None:
    """The classes or concepts with most absence evidence, in sd of the response."""
    rows = evidence.classes.head(CLASSES)
    ax.barh(
        range(len(rows)), rows["absence"], color=np.where(rows["absence"] > 0, ABSENCE, PRESENCE), height=0.7
    )
    names = [
        textwrap.shorten(str(name), 18, placeholder="…") + "\n(its own)" * own
        for name, own in zip(rows["name"], rows["own"], strict=True)
    ]
    ax.set_yticks(range(len(rows)), names)
    ax.set_ylim(max(len(rows), 4) - 0.4, -0.6)
    ax.axvline(0, color=INK, linewidth=1)
    widest = max(np.abs(rows["absence"]).max(), LEAST_AXIS)  # noise must not look like evidence
    ax.set_xlim(min(rows["absence"].min(), 0) - 0.05 * widest, max(1.05 * rows["absence"].max(), LEAST_AXIS))
    ax.locator_params(axis="x", nbins=4)
    title = "by concept, with − without" if evidence.contrast else "by class"
    ax.set_xlabel("sd of the response")
    ax.set_title(f"absence evidence\n{title}", loc="right")


def layer_overview(study, marked=()):
    """The decisions on a layer, and its effects beside those of copies with random weights.

    Left, of a hidden layer: signed effects against what is passed on. Of an output, which has one reading: its units in
    the order of their effects, with 95% intervals. Right: the share of units whose effect is at least as large.

    Args:
        study: a `your_model.study.LayerStudy`.
        marked: units whose number is written at their point, those that got a card.

    Returns:
        The figure.
    """
    signed = study.decisions[study.decisions["reading"] == "signed"].set_index("unit")
    counts = signed["decision"].value_counts().reindex(list(DECISIONS), fill_value=0)
    encodes, none, unknown = counts
    delta = signed["delta"].iloc[0]
    both = "passed on" in set(study.decisions["reading"])
    height = 3.9 if both else max(3.7, 1.9 + 0.3 * min(len(signed), NAMED_ROWS))
    with companion_style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, height))
        if both:
            _both_readings(left, study, marked)
        else:
            _one_reading(left, study, signed, marked)
        left.axvline(delta, color=NEUTRAL, linestyle="--", linewidth=1.2)
        left.set_xlabel("signed effect of the lowest patches (sd)")
        lines = _beside_copies(right, study, signed, delta)
        points = [
            plt.Line2D(
                [], [], marker="o", linestyle="", color=colour, label=f"{decision} ({counts[decision]})"
            )
            for decision, colour in DECISIONS.items()
        ]
        figure.legend(handles=[*points, *lines], loc="outside lower center", ncols=3, frameon=False)
        figure.suptitle(
            f"{study.layer or 'output'}: {encodes} of {len(signed)} units encode an absence of {delta:g} sd or more "
            f"(dashed),\n{none} have none of that size, {unknown} undecided"
        )
    return figure


def _both_readings(ax, study, marked) -> None:
    """Signed against passed on, coloured by the decision on the signed reading."""
    wide = study.decisions.pivot(index="unit", columns="reading")
    for decision, colour in DECISIONS.items():
        rows = wide["effect"][wide["decision"]["signed"] == decision]
        ax.plot(rows["signed"], rows["passed on"], "o", color=colour, markersize=5)
    for unit in wide.index.intersection(list(marked)):
        at = [wide["effect"][read][unit] for read in ("signed", "passed on")]
        ax.annotate(str(unit), at, (4, 4), textcoords="offset points")
    ax.axhline(wide["delta"]["passed on"].iloc[0], color=NEUTRAL, linestyle="--", linewidth=1.2)
    ax.set(ylabel="effect on what is passed on (sd)", title="two readings of each unit")


def _one_reading(ax, study, signed, marked) -> None:
    """Units by their effect, largest first, with intervals; few of them by name, else the marked ones by number."""
    ordered = signed.sort_values("effect", ascending=False)
    for place, row in enumerate(ordered.itertuples()):
        look = {"color": DECISIONS[row.decision], "markersize": 5}
        interval_points(ax, row.effect, [place], row.low, row.high, **look)
    classes, outputs = getattr(study.images, "class_names", []), study.responses.shape[1]
    if len(ordered) <= NAMED_ROWS:
        names = [
            full_name(study.layer, unit, classes, outputs).partition("unit ")[2] for unit in ordered.index
        ]
        name_rows(ax, [textwrap.fill(name, 16) for name in names])
    else:
        ax.set(yticks=[], ylim=(len(ordered) - 0.4, -0.6), ylabel=f"{len(ordered)} units")
        for place, unit in enumerate(ordered.index):
            if unit in marked:
                at = (ordered["high"][unit], place)
                ax.annotate(str(unit), at, (4, 0), textcoords="offset points", va="center")
    ax.axvline(0, color=INK, linewidth=1)
    ax.set_title("effects with 95% intervals")


def _beside_copies(ax, study, signed, delta: float) -> list:
    """The share of units with an effect at least as large, of the network and of its copies with random weights.

    Returns:
        The lines, for a legend.
    """
    null = study.null[(study.null["reading"] == "signed") & (study.null["control"] == "random patch")]
    both = {
        "this network": (signed["effect"].dropna(), INK, "-"),
        "random weights": (null["value"].dropna(), NEUTRAL, ":"),
    }
    both = {name: drawn for name, drawn in both.items() if len(drawn[0])}
    low, high = (end(float(end(values)) for values, *_ in both.values()) for end in (min, max))
    room, lines = 0.06 * max(high - min(low, 0), 0.01), []
    for name, (values, colour, line) in both.items():
        values = np.sort(values)
        at = np.concatenate([[min(low, 0) - room], values, [high + room]])
        share = np.concatenate([[1], 1 - np.arange(len(values)) / len(values), [0]])
        look = {"color": colour, "linestyle": line, "drawstyle": "steps-pre", "linewidth": 1.8}
        lines += ax.plot(at, share, label=f"{name} ({len(values)} units)", **look)
    said = [f"{(values >= delta).mean():.0%} of {name}" for name, (values, *_) in both.items()]
    ax.axvline(delta, color=NEUTRAL, linestyle="--", linewidth=1.2)
    ax.axvline(0, color=INK, linewidth=1)
    ax.set(ylim=(-0.03, 1.03), yticks=[0, 0.25, 0.5, 0.75, 1])
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.set(xlabel="signed effect (sd)", ylabel="share of units with at least that")
    ax.set_title(f"at least {delta:g} sd: " + ",\n".join(said))
    return lines
