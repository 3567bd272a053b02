"""The drawings of a unit card, each drawn alike on the notebook's figure and on the card's page; a layer's verdicts."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest

import matplotlib.pyplot as plt
import numpy as np

from .attribution import overlay_colours, robust_limit, smoothed
from .base import (
    ABSENCE,
    NEUTRAL,
    PRESENCE,
    companion_style,
    drawn_once,
    name_rows,
    show_image,
    signed_number,
    to_numpy,
)

WIDTH = 7.5  # inches of the whole card
COLUMNS = 6  # pictures beside each other on half a card
INK = "#1b1b1f"
SIDES = {"highest": PRESENCE, "lowest": ABSENCE}
SCORES = {"absence": ABSENCE, "presence": PRESENCE, "veto": INK, "check": NEUTRAL}
VERDICTS = {"veto": INK, "suppressed": ABSENCE, "no absence found": "#9a9a9a", "undecided": "#d8b365"}
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
    rows = [Row("Responses and scores", _drawings(card))]
    if card.pair:
        ends = {side: getattr(card.pair, side) for side in SIDES}
        pictures = {side: _captioned(end.image, end.response) for side, end in ends.items()}
        note = f"Same seed, {card.effort.steps} steps each. A direction, not a picture of what real images reach."
        if card.short_ends:
            note += f" Real images go further at the {' and the '.join(card.short_ends)} end: more steps would help."
        rows.append(_picture_row(card, "Synthesised images", pictures, note=note))
    for title, found in (("Patches", card.patches), ("Images", card.images)):
        pictures = {side: _captioned(end.pixels, end.response, end.label) for side, end in found.items()}
        rows.append(_picture_row(card, title, pictures))
    if card.evidence:
        maps = {"highest": card.evidence.target, "lowest": card.evidence.other}
        names = {"highest": "target inputs, signed maps", "lowest": "non-target inputs, signed maps"}
        note = (
            f"Inputs split by {card.evidence.split}: target inputs with the most presence evidence, non-target inputs "
            f"with the most absence evidence. Maps: {card.about_maps}. Red raises the response, blue lowers it; full "
            f"colour at ±{map_limit(card):.2g} a pixel, net evidence under a Gaussian of {card.smooth:.0%} of the edge."
        )
        pictures = {side: _maps(card, found) for side, found in maps.items()}
        rows.append(_picture_row(card, "Signed attribution", pictures, names, note))
    return rows


def card_figure(card):
    """The whole card as one picture: verdict, drawings, and the highest beside the lowest responses.

    Args:
        card: a `your_model.cards.Card`.

    Returns:
        The figure, 7.5 inches wide.
    """
    rows = card_rows(card)
    title = textwrap.fill(f"{card.title}: {card.headline}", 78)
    sentence = textwrap.fill(card.sentence, 115)
    about = [f"{name}: {card.about[name]}" for name in ("network", "layer", "images") if name in card.about]
    if card.evidence:
        about.append(f"maps: {card.about_maps}")
    about = textwrap.wrap(" · ".join(about), 125)
    heights = [0.19 * title.count("\n") + 0.14 * sentence.count("\n") + 0.5]
    heights += [max(panel.height for panel in row.panels) for row in rows] + [0.07 + 0.13 * len(about)]
    with companion_style():
        figure = plt.figure(figsize=(WIDTH, sum(heights)), layout="constrained")
        head, *parts, foot = figure.subfigures(len(heights), 1, height_ratios=heights)
        head.text(0.01, 0.96, title, fontsize=11, fontweight="bold", va="top")
        head.text(0.01, 0.02, sentence, fontsize=8, va="bottom")
        for part, row in zip(parts, rows, strict=True):
            widths = [panel.width for panel in row.panels]
            places = part.subfigures(1, len(widths), width_ratios=widths)
            for place, panel in zip(places, row.panels, strict=True):
                panel.draw(place)
        foot.text(0.01, 0.5, "\n".join(about), fontsize=7, color=NEUTRAL, va="center")
    return figure


def show_card(card):
    """`card_figure`, to be looked at."""
    return drawn_once(card_figure(card))


def _drawings(card) -> list[Panel]:
    """Histogram, scores, and the classes that suppress the unit where there is more than one class."""
    panels = [
        Panel(
            lambda part: response_histogram(part.subplots(), card.responses), 2.2, 2.4,
            f"Histogram of the unit's responses to {len(card.responses)} images, {(card.responses < 0).mean():.0%} of "
            "them negative",
        ),
        Panel(
            lambda part: score_intervals(part.subplots(), card.scores, card.limit, card.least), 3.0, 2.4,
            f"Scores with 95 % intervals: absence {card.verdict['absence']:.2f}, veto {card.verdict['veto']:.2f} "
            "standard deviations; all are in the table of scores",
        ),
    ]  # fmt: skip
    if card.evidence is not None and len(card.evidence.classes):
        named = ", ".join(map(str, card.evidence.classes["name"].head(3)))
        alt = f"Absence evidence by class, most first: {named}"
        panels.append(Panel(lambda part: class_bars(part.subplots(), card.evidence), 2.3, 2.4, alt))
    return panels


def _picture_row(card, title: str, pictures: dict, names: dict | None = None, note: str = "") -> Row:
    """A row with the highest responses on the left and the lowest on the right.

    Args:
        pictures: side to [(picture, caption)].
        names: what each side shows, where it is not the title.
    """
    panels = []
    for side, shown in pictures.items():
        name = f"{side.capitalize()} response: {names[side] if names else title.lower()}"
        captions = "; ".join(caption.replace("\n", " ") for _, caption in shown)
        height = 0.25 + 1.0 * -(-len(shown) // COLUMNS)
        draw = partial(_strip, title=name, colour=SIDES[side], pictures=shown)
        panels.append(Panel(draw, WIDTH / 2, height, f"{name} of {card.title}: {captions}"))
    return Row(title, panels, note)


def _strip(part, title: str, colour: str, pictures: list) -> None:
    part.suptitle(title, color=colour, fontsize=8.5, fontweight="bold")
    grid = part.add_gridspec(-(-len(pictures) // COLUMNS), COLUMNS)
    for place, shown in zip_longest(grid, pictures):
        ax = part.add_subplot(place, anchor="N")
        if shown is None:
            ax.axis("off")  # it keeps the width of its column
            continue
        show_image(ax, shown[0])
        ax.set_xlabel(shown[1], fontsize=6.5, labelpad=2)


def _captioned(pixels, responses, labels=None) -> list[tuple]:
    """[(picture, its response and, on at most two lines, its label)]."""
    captions = []
    for value, label in zip(responses, labels or [""] * len(pixels), strict=True):
        lines = textwrap.wrap(str(label), 11, max_lines=2, placeholder="…")
        captions.append("\n".join([signed_number(float(value)), *lines]))
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


def response_histogram(ax, responses) -> None:
    """Responses to all images, negative ones blue and positive ones red, with zero and the median marked."""
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
    below = (responses < 0).mean() if len(responses) else 0
    ax.set_xlabel("signed response,\nunits of the layer", fontsize=8)
    ax.set_ylabel("images", fontsize=8)
    ax.set_title(f"{below:.0%} of {len(responses):,} images below 0\n(dotted: median)", fontsize=8)


def score_intervals(ax, scores, limit: float, least: float) -> None:
    """Every score with its 95 % interval, against zero and against the 95th percentile of random-weight units (dashed).

    Args:
        scores: as in a `your_model.cards.Card`.
        limit: in sd; NaN for none.
        least: smallest veto score that counts, in sd.
    """
    names = []
    for row, score in enumerate(scores.itertuples()):
        colour = SCORES[score.score]
        ax.plot([score.low, score.high], [row, row], color=colour, linewidth=1.6, solid_capstyle="butt")
        main = score.condition in ("random patch", "median images") or score.score == "presence"
        ax.plot(score.value, row, "o" if main else "D", color=colour, markersize=5 if main else 3.5)
        names.append(f"{score.score}: {_condition(score)}")
    ax.axvline(0, color=INK, linewidth=1)
    absences = np.flatnonzero((scores["score"] == "absence").to_numpy())
    if len(absences) and np.isfinite(limit):
        ax.plot([limit] * 2, [absences[0] - 0.5, absences[-1] + 0.5], "--", color=NEUTRAL, linewidth=1.4)
    vetoes = np.flatnonzero((scores["score"] == "veto").to_numpy())
    if len(vetoes):
        ax.fill_betweenx(
            [vetoes[0] - 0.4, vetoes[-1] + 0.4], -least, least, color="#999999", alpha=0.4, linewidth=0
        )
    name_rows(ax, names, fontsize=7)
    ax.set_xlabel("score, sd of response", fontsize=8)
    ax.set_title("scores (dashed: 95th percentile\nof random-weight units)", fontsize=8, loc="right")


def _condition(score) -> str:
    if score.score == "absence":
        return "on " + score.condition if score.condition.endswith("images") else score.condition
    return score.condition if score.score == "check" else f"against {score.condition}"


def class_bars(ax, evidence) -> None:
    """The classes or concepts with most absence evidence, in sd of the response."""
    rows = evidence.classes.head(CLASSES)
    ax.barh(
        range(len(rows)), rows["absence"], color=np.where(rows["absence"] > 0, ABSENCE, PRESENCE), height=0.7
    )
    names = [
        textwrap.shorten(str(name), 22, placeholder="…") + " (its own)" * own
        for name, own in zip(rows["name"], rows["own"], strict=True)
    ]
    ax.set_yticks(range(len(rows)), names, fontsize=7)
    ax.set_ylim(max(len(rows), 4) - 0.4, -0.6)
    ax.axvline(0, color=INK, linewidth=1)
    title = "by concept, with − without" if evidence.contrast else "by class"
    ax.set_xlabel("sd of the response", fontsize=8)
    ax.set_title(f"absence evidence\n{title}", fontsize=8, loc="right")


def layer_overview(study, marked=()):
    """The verdicts of a layer: absence scores beside those of the random copies, and the vetoes.

    Args:
        study: a `your_model.study.LayerStudy`.
        marked: units whose number is written at their point, those that got a card.

    Returns:
        The figure.
    """
    with companion_style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.4))
        _against_null(left, study)
        _verdicts(right, study.verdicts, marked, study.least)
        left.set_ylim(top=1.25 * left.get_ylim()[1])  # room for the legend
        for ax in (left, right):
            ax.axvline(study.limit, color=NEUTRAL, linestyle="--", linewidth=1.4)
            ax.set_xlabel("absence score, sd")
            ax.legend(fontsize=7, framealpha=1, edgecolor="none")
        name = f"{study.layer or 'output'}: {len(study.verdicts)} units"
        figure.suptitle(f"{name} (dashed: 95th percentile of random-weight units)", fontsize=10)
    return figure


def _against_null(ax, study) -> None:
    null = study.null[(study.null["score"] == "absence") & (study.null["condition"] == "random patch")]
    both = {
        "random weights": (null["value"].dropna(), "#b5b5b5"),
        "this network": (study.verdicts["absence"].dropna(), ABSENCE),
    }
    values = np.concatenate([*(values for values, _ in both.values()), [0.0, 0.01]])
    for name, (values_of, colour) in both.items():
        share = np.full(len(values_of), 1 / max(1, len(values_of)))
        label = f"{name} ({len(values_of)} units)"
        ax.hist(values_of, np.linspace(values.min(), values.max(), 33), weights=share, color=colour, alpha=0.7,
                label=label)  # fmt: skip
    ax.axvline(0, color=INK, linewidth=1)
    ax.set(ylabel="share of units", title="absence score: network vs random weights")


def _verdicts(ax, table, marked, least) -> None:
    for verdict, colour in VERDICTS.items():
        rows = table[table["verdict"] == verdict]
        if len(rows):
            label = f"{verdict} ({len(rows)})"
            ax.plot(rows["absence"], rows["veto"], "o", color=colour, markersize=5, label=label)
    ax.axhspan(-least, least, color="#999999", alpha=0.3, linewidth=0)
    for row in table[table["unit"].isin(list(marked))].dropna(subset=["absence", "veto"]).itertuples():
        ax.annotate(str(row.unit), (row.absence, row.veto), (4, 4), textcoords="offset points", fontsize=7)
    ax.set(ylabel="veto score, sd", title="absence score vs veto score")
