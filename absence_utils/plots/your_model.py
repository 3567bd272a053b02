"""The signed unit card as one picture, its panels as drawings for a page, and the overview of a layer's verdicts."""

from __future__ import annotations

import re
import textwrap
from io import StringIO

import matplotlib.pyplot as plt
import numpy as np

from .attribution import overlay_colours, robust_limit, smoothed
from .base import ABSENCE, NEUTRAL, PRESENCE, companion_style, show_image, to_numpy
from .patches import signed_number

INK = "#0a0b0c"  # stands for the page's own text colour, see `as_svg`
SIDES = {"highest": ("what drives it up", PRESENCE), "lowest": ("what drives it down", ABSENCE)}
SCORES = {"absence": ABSENCE, "presence": PRESENCE, "veto": INK, "check": NEUTRAL}
VERDICTS = {"veto": INK, "suppressed": ABSENCE, "no absence found": "#9a9a9a", "undecided": "#d8b365"}
CLASSES = 8  # classes shown of those that suppress the unit most


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
    ax.set(
        xlabel="response, signed, in the units of the layer", ylabel="images",
        title=f"{below:.0%} of {len(responses):,} images below zero (dotted: median)",
    )  # fmt: skip


def score_intervals(ax, scores, limit: float, least: float) -> None:
    """Every score with its 95 % interval, against zero and against the random copies' 95th percentile (dashed).

    Args:
        scores: as in a `unit_card.Card`.
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
    ax.set_yticks(range(len(names)), names, fontsize=7)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set(xlabel="score, sd of the response", title="scores (dashed: random weights)")


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
    title = (
        "absence evidence by concept,\nbeyond images without it"
        if evidence.contrast
        else "absence evidence by class"
    )
    ax.set(xlabel="sd of the response", title=title)


def shows_classes(card) -> bool:
    """There is evidence, and of more than one class."""
    return card.evidence is not None and len(card.evidence.classes) > 0


def as_svg(draw, width: float, height: float, name: str) -> str:
    """A panel as an SVG for a page: transparent, with text and axes in the page's own colour.

    Args:
        draw: function of one axes.
        width, height: inches.
        name: makes the ids within the drawing different from those of other drawings of a page.
    """
    ink = {
        key: INK for key in ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    }
    with companion_style(), plt.rc_context({**ink, "svg.hashsalt": name, "svg.fonttype": "path"}):
        figure, ax = plt.subplots(figsize=(width, height), layout="constrained")
        draw(ax)
        target = StringIO()
        figure.savefig(target, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        plt.close(figure)
    drawing = target.getvalue()
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing[drawing.index("<svg") :], flags=re.DOTALL)
    # Ids are those of the page: what is not referred to ("axes_1") goes, and the letters get the drawing's own.
    used = set(re.findall(r"#([\w-]+)", drawing))
    drawing = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", drawing)
    drawing = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", drawing)
    return drawing.replace(INK, "currentColor").replace(NEUTRAL, "var(--pale, #777777)")


def map_limit(card) -> float:
    """Magnitude at full colour for all maps of a card: per pixel, in the units of the layer."""
    both = (card.evidence.target, card.evidence.other)
    return robust_limit(np.concatenate([smoothed(maps.signed, card.smooth).ravel() for maps in both]))


def map_colours(card, maps) -> list[np.ndarray]:
    """[height, width, RGB] of every map of one side over its input."""
    limit = map_limit(card)
    signed = smoothed(maps.signed, card.smooth)
    return [
        overlay_colours(pixels, values, limit) for pixels, values in zip(maps.pixels, signed, strict=True)
    ]


def card_figure(card):
    """The whole card as a picture: verdict, drawings, and what drives the unit up beside what drives it down.

    Args:
        card: a `unit_card.Card`.

    Returns:
        The figure.
    """
    strips = _strips(card)
    with companion_style():
        figure = plt.figure(figsize=(11, 5.1 + 1.42 * len(strips)), layout="constrained")
        parts = figure.subfigures(3 + len(strips), 1, height_ratios=[0.8, 2.7, *[1.25] * len(strips), 0.5])
        _head(parts[0], card)
        panels = parts[1].subplots(1, 3 if shows_classes(card) else 2)
        response_histogram(panels[0], card.responses)
        score_intervals(panels[1], card.scores, card.limit, card.least)
        if shows_classes(card):
            class_bars(panels[2], card.evidence)
        for part, (name, sides) in zip(parts[2:-1], strips, strict=True):
            halves = part.subfigures(1, 2)
            for half, (side, pictures) in zip(halves, sides.items(), strict=True):
                _strip(half, f"{SIDES[side][0]}: {name[side]}", SIDES[side][1], pictures)
        _foot(parts[-1], card)
    return figure


def _head(part, card) -> None:
    part.text(0.004, 0.97, f"{card.title}: {card.headline}", fontsize=14, fontweight="bold", va="top")
    part.text(0.004, 0.62, "\n".join(textwrap.wrap(card.sentence, 150)), fontsize=9, va="top")


def _foot(part, card) -> None:
    about = " · ".join(f"{name}: {value}" for name, value in card.about.items())
    part.text(0.004, 0.95, "\n".join(textwrap.wrap(about, 250)), fontsize=6, va="top", color=NEUTRAL)


def _strips(card) -> list[tuple[dict, dict]]:
    """(name of each side, {side: [(picture, caption)]}) of every row of pictures."""
    rows = []
    if card.pair:
        rows.append((
            dict.fromkeys(SIDES, "synthesised"),
            {side: _captioned(getattr(card.pair, side).image, getattr(card.pair, side).response) for side in SIDES},
        ))  # fmt: skip
    for name, found in (("patches", card.patches), ("images", card.images)):
        pictures = {
            side: _captioned(found[side].pixels, found[side].response, found[side].label) for side in SIDES
        }
        rows.append((dict.fromkeys(SIDES, name), pictures))
    if card.evidence:
        maps = dict(zip(SIDES, (card.evidence.target, card.evidence.other), strict=True))
        names = {"highest": "evidence on target inputs", "lowest": "evidence on non-target inputs"}
        rows.append((names, {side: _maps(card, each) for side, each in maps.items()}))
    return rows


def _captioned(pixels, responses, labels=None) -> list[tuple]:
    labels = labels or [""] * len(pixels)
    return [
        (picture, f"{signed_number(float(value))}\n{textwrap.shorten(label, 16, placeholder='…')}".strip())
        for picture, value, label in zip(pixels, responses, labels, strict=True)
    ]


def _maps(card, maps) -> list[tuple]:
    pictures = []
    for pixels, colours, response in zip(maps.pixels, map_colours(card, maps), maps.response, strict=True):
        pictures += [(pixels, signed_number(float(response))), (colours.transpose(2, 0, 1), "signed map")]
    return pictures


def _strip(part, title: str, colour: str, pictures: list) -> None:
    part.suptitle(title, color=colour, fontsize=9, fontweight="bold")
    axes = part.subplots(1, max(6, len(pictures)), squeeze=False)[0]
    for ax in axes:
        ax.axis("off")
    for ax, (picture, caption) in zip(axes, pictures, strict=False):
        show_image(ax, picture)
        ax.set_title(caption, fontsize=7, pad=2)


def layer_overview(study, marked=()):
    """The verdicts of a layer: absence scores beside those of the random copies, and the vetoes.

    Args:
        study: a `unit_study.LayerStudy`.
        marked: units whose number is written at their point, those that got a card.

    Returns:
        The figure.
    """
    with companion_style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8))
        _against_null(left, study)
        _verdicts(right, study.verdicts, marked, study.least)
        left.set_ylim(top=1.25 * left.get_ylim()[1])  # room for the legend
        for ax in (left, right):
            ax.axvline(study.limit, color=NEUTRAL, linestyle="--", linewidth=1.4)
            ax.set_xlabel("absence score, sd")
            ax.legend(fontsize=7, frameon=False)
        name = f"{study.layer or 'output'}: {len(study.verdicts)} units"
        figure.suptitle(f"{name} (dashed: what 95 % of units with random weights stay below)", fontsize=10)
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
    ax.set(ylabel="share of units", title="lowest patches lower the response of any unit")


def _verdicts(ax, table, marked, least) -> None:
    for verdict, colour in VERDICTS.items():
        rows = table[table["verdict"] == verdict]
        if len(rows):
            label = f"{verdict} ({len(rows)})"
            ax.plot(rows["absence"], rows["veto"], "o", color=colour, markersize=5, label=label)
    ax.axhspan(-least, least, color="#999999", alpha=0.3, linewidth=0)
    for row in table[table["unit"].isin(list(marked))].dropna(subset=["absence", "veto"]).itertuples():
        ax.annotate(str(row.unit), (row.absence, row.veto), (4, 4), textcoords="offset points", fontsize=7)
    ax.set(ylabel="veto score, sd", title="more than chance, and only in context?")
