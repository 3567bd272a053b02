"""A unit card as one HTML page that needs nothing else, and the atlas: a page of all cards that can be searched.

Pictures are inside the pages, no script or font comes from elsewhere: they open from the file system, offline.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from absence_utils.errors import InputError
from absence_utils.files import write_atomically
from absence_utils.insertion.scores import MIN_EFFECT
from absence_utils.plots import your_model as plots
from absence_utils.plots.base import to_numpy
from absence_utils.plots.patches import signed_number

from .card import SIDES, Card
from .study import CONTEXT, LEVEL, NONE, SUPPRESSED, UNDECIDED, LayerStudy, power_warning

PAGES = Path(__file__).parent / "templates"
TONES = {CONTEXT: "veto", SUPPRESSED: "suppressed", NONE: "none", UNDECIDED: "undecided"}
THUMBNAIL = 96  # px, edge of the pictures in the atlas
PHOTO = 96  # px, from which on a picture is stored as JPEG and drawn smoothly
HEADINGS = {"highest": ("What drives it up", "up"), "lowest": ("What drives it down", "down")}


@dataclass(frozen=True)
class Picture:
    """A picture inside a page: its data, what it shows in words, and what stands below it."""

    src: str
    alt: str
    caption: str
    width: int
    height: int
    photo: bool


def picture(pixels, alt: str, caption: str = "", largest: int = 0) -> Picture:
    """Pixels [channel, height, width] in 0..1 as a picture for a page.

    Small ones are kept exactly (PNG), large ones become JPEG; `largest` px shrinks the longer edge.
    """
    values = np.clip(to_numpy(pixels), 0, 1)
    values = np.repeat(values, 3, axis=0) if values.shape[0] == 1 else values[:3]
    image = Image.fromarray((values.transpose(1, 2, 0) * 255).round().astype(np.uint8))
    if largest and max(image.size) > largest:
        image.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    photo, target = max(image.size) > PHOTO, BytesIO()
    if photo:
        image.save(target, "JPEG", quality=88)
    else:
        image.save(target, "PNG", optimize=True)
    data = base64.b64encode(target.getvalue()).decode()
    kind = "jpeg" if photo else "png"
    return Picture(f"data:image/{kind};base64,{data}", alt, caption, *image.size, photo)


def card_page(card: Card, *, index: str = "", before: str = "", after: str = "", also: str = "") -> str:
    """The card as one HTML page.

    Args:
        card: see `unit_card.collect_cards`.
        index, before, after: addresses of the atlas and of the neighbouring cards; "" for none.
        also: address of the same card as a picture; "" for none.
    """
    return _template("card.html.j2").render(
        card=card,
        style=Markup(_read("style.css")),
        tone=TONES[card.verdict["verdict"]],
        panels=_panels(card),
        rows=_rows(card),
        scores=[_score(score) for score in card.scores.to_dict("records")],
        decided=_decided(card),
        about=card.about,
        index=index,
        before=before,
        after=after,
        also=also,
    )


def page_name(channel: int) -> str:
    """File name of a unit's card in an atlas."""
    return f"unit_{channel:04d}.html"


def write_card(card: Card, path: Path) -> Path:
    """Write a card as a page of its own."""
    write_atomically(path, card_page(card).encode())
    return path


def write_atlas(
    cards: Iterable[Card], study: LayerStudy, folder: Path, title: str, *, pictures: bool = False
) -> list[Path]:
    """Write a page for every card, as it comes, and the index of all of them.

    Args:
        cards: an iterator is enough: no more than two cards are held at a time.
        study: what they are from.
        folder: made if absent.
        title: of the index.
        pictures: write every card as PNG, too, and link it from its page.

    Returns:
        Paths: the index, then the cards.

    Raises:
        InputError: no cards.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tiles, paths, waiting = [], [], None
    for card in cards:
        tiles.append(_tile(card))
        if waiting:
            paths.append(_write_card(*waiting, page_name(card.channel), folder, pictures))
        waiting = card, page_name(waiting[0].channel) if waiting else ""
    if not waiting:
        raise InputError("cards", "there are none", "Give at least one unit.")
    paths.append(_write_card(*waiting, "", folder, pictures))
    index = folder / "index.html"
    page = _template("atlas.html.j2").render(
        title=title,
        summary=f"{summary(study)} {power_warning(study)}".strip(),
        tiles=tiles,
        verdicts=[verdict for verdict in TONES if any(tile["verdict"] == verdict for tile in tiles)],
        style=Markup(_read("style.css")),
        script=Markup(_read("atlas.js")),
    )
    write_atomically(index, page.encode())
    return [index, *paths]


def _write_card(card: Card, before: str, after: str, folder: Path, pictures: bool) -> Path:
    path = folder / page_name(card.channel)
    also = path.with_suffix(".png").name if pictures else ""
    page = card_page(card, index="index.html", before=before, after=after, also=also)
    write_atomically(path, page.encode())
    if pictures:
        target, figure = BytesIO(), plots.card_figure(card)
        figure.savefig(target, format="png", dpi=110, metadata={"Software": None})
        plt.close(figure)
        write_atomically(folder / also, target.getvalue())
    return path


def summary(study: LayerStudy) -> str:
    """The verdicts of a layer in a sentence."""
    counts = study.verdicts["verdict"].value_counts()
    named = [f"{counts[verdict]} {words}" for verdict, words in _COUNTED.items() if verdict in counts]
    table = study.verdicts
    unclear = int(((table["verdict"] == NONE) & (table["absence_high"] >= table["limit"])).sum())
    more = f" In {unclear} of those without, one is not ruled out." if unclear else ""
    return f"Of {len(table)} units studied: {', '.join(named)}.{more}"


_COUNTED = {
    CONTEXT: "with an absence that depends on context (veto)",
    SUPPRESSED: "suppressed more than at random weights",
    NONE: "without an absence that could be shown",
    UNDECIDED: "undecided",
}


def _template(name: str):
    environment = Environment(loader=FileSystemLoader(PAGES), autoescape=True, undefined=StrictUndefined)
    return environment.get_template(name)


def _read(name: str) -> str:
    return (PAGES / name).read_text()


def _panels(card: Card) -> list[dict]:
    below = float((card.responses < 0).mean())
    main = card.verdict
    panels = [
        (
            "histogram",
            lambda ax: plots.response_histogram(ax, card.responses),
            f"Histogram of the unit's responses to {len(card.responses)} images, {below:.0%} of them negative.",
        ),
        (
            "scores",
            lambda ax: plots.score_intervals(ax, card.scores, card.limit, card.least),
            f"Scores with 95 % intervals: absence {main['absence']:.2f}, veto {main['veto']:.2f} standard deviations; "
            "all are in the table of scores below.",
        ),
    ]
    if plots.shows_classes(card):
        named = ", ".join(card.evidence.classes["name"].head(3))
        panels.append(
            (
                "classes",
                lambda ax: plots.class_bars(ax, card.evidence),
                f"Absence evidence by class, most first: {named}.",
            )
        )
    size = (3.7, 3.1)
    return [
        {"svg": plots.as_svg(draw, *size, f"{card.channel}-{name}"), "alt": alt} for name, draw, alt in panels
    ]


def _rows(card: Card) -> list[dict]:
    rows = []
    if card.pair:
        sides = {side: _synthesised(card, side) for side in SIDES}
        note = f"Same seed, {card.effort.steps} steps each. A direction, not a picture of what real images reach."
        short = [side for side, falls in synthesis_falls_short(card).items() if falls]
        if short:
            note += f" Real images go further at the {' and the '.join(short)} end: more steps would help."
        rows.append(_row("Synthesised", sides, note=note))
    for title, found in (("Patches", card.patches), ("Images", card.images)):
        rows.append(_row(title, {side: _extreme(found[side], side, title, card) for side in SIDES}))
    if card.evidence:
        maps = dict(zip(SIDES, (card.evidence.target, card.evidence.other), strict=True))
        sides = {side: _mapped(card, side, each) for side, each in maps.items()}
        limit = plots.map_limit(card)
        note = (
            f"Inputs split by {card.evidence.split}; {card.effort.method.replace('_', ' ')}. Red raises the "
            f"response, blue lowers it; full colour at ±{limit:.2g} a pixel, net evidence under a Gaussian of "
            f"{card.smooth:.0%} of the edge."
        )
        names = {
            "highest": "target inputs, most presence evidence",
            "lowest": "non-target inputs, most absence evidence",
        }
        rows.append(_row("Signed attribution", sides, names, note))
    return rows


def synthesis_falls_short(card: Card) -> dict[str, bool]:
    """For each side, whether some real image goes beyond every synthesised one."""
    return {
        "highest": bool(card.pair.highest.response.max() < card.responses.max()),
        "lowest": bool(card.pair.lowest.response.min() > card.responses.min()),
    }


def _row(title: str, sides: dict, names: dict | None = None, note: str = "") -> dict:
    shown = [
        {
            "title": f"{HEADINGS[side][0]}: {names[side]}" if names else HEADINGS[side][0],
            "tone": HEADINGS[side][1],
            "pictures": pictures,
        }
        for side, pictures in sides.items()
    ]
    return {"title": title, "sides": shown, "note": note, "wide": title == "Synthesised"}


def _synthesised(card: Card, side: str) -> list[Picture]:
    rendering = getattr(card.pair, side)
    word = {"highest": "maximum", "lowest": "minimum"}[side]
    return [
        picture(
            image,
            f"Synthesised {word} {number + 1} of {card.title}, response {signed_number(float(value))}",
            signed_number(float(value)),
        )
        for number, (image, value) in enumerate(zip(rendering.image, rendering.response, strict=True))
    ]


def _extreme(found, side: str, title: str, card: Card) -> list[Picture]:
    what = {"Patches": "patch", "Images": "image"}[title]
    pictures = []
    for rank, (pixels, value, label) in enumerate(
        zip(found.pixels, found.response, found.label, strict=True)
    ):
        number = signed_number(float(value))
        of = f" of class {label}" if label else ""
        alt = f"{side.capitalize()} {what} {rank + 1} of {card.title}{of}, response {number}"
        pictures.append(picture(pixels, alt, f"{number} {label}".strip(), 224))
    return pictures


def _mapped(card: Card, side: str, maps) -> list[Picture]:
    kind = {"highest": "target", "lowest": "non-target"}[side]
    pictures = []
    shown = zip(maps.pixels, plots.map_colours(card, maps), maps.response, maps.captions, strict=True)
    for pixels, colours, value, caption in shown:
        number = signed_number(float(value))
        alt = f"{kind.capitalize()} input showing {caption}, response {number}"
        pictures.append(picture(pixels, alt, f"{number} {caption}", 224))
        pictures.append(
            picture(colours.transpose(2, 0, 1), f"Signed map of the {alt[0].lower()}{alt[1:]}", "map", 224)
        )
    return pictures


def _decided(card: Card) -> str:
    """What the verdict rests on, with the adjusted p-values that decided."""
    row = card.verdict
    return (
        f"The verdict asks whether the absence score exceeds {_number(row['limit'])} sd, what 95 % of the units of "
        f"copies with random weights stay below (q {_number(row['q_absence'])}), and whether the veto exceeds "
        f"{MIN_EFFECT} sd (q {_number(row['q_veto'])}). Below {LEVEL} counts; corrected for the {row['studied']} units "
        "studied."
    )


def _score(score: dict) -> dict:
    return {
        "score": score["score"],
        "condition": score["condition"],
        "value": _number(score["value"]),
        "interval": f"{_number(score['low'])} to {_number(score['high'])}",
        "q": "<0.001" if score["q"] < 0.001 else _number(score["q"], 3),
        "percentile": _number(score.get("percentile", np.nan), 0),
    }


def _number(value, digits: int = 2) -> str:
    return "–" if value is None or pd.isna(value) else f"{value:.{digits}f}".replace("-", "−")


def _tile(card: Card) -> dict:
    row = card.verdict
    ends = {
        side: (getattr(card.pair, side).image[0] if card.pair else card.patches[side].pixels[0])
        for side in SIDES
    }
    kind = "synthesised" if card.pair else "patch"
    labels = {label for side in SIDES for label in card.patches[side].label + card.images[side].label}
    classes = list(card.evidence.classes["name"].head(plots.CLASSES)) if card.evidence else []
    return {
        "unit": card.channel,
        "title": card.title.partition(", ")[2] or card.title,
        "text": " ".join([card.title, row["verdict"], *map(str, classes), *sorted(labels)]).lower(),
        "href": page_name(card.channel),
        "verdict": row["verdict"],
        "tone": TONES[row["verdict"]],
        "absence": f"{row['absence']:.4f}",
        "veto": f"{row['veto']:.4f}",
        "presence": f"{row['presence']:.4f}",
        "below": f"{(card.responses < 0).mean():.4f}",
        "absence_text": _number(row["absence"]),
        "veto_text": _number(row["veto"]),
        "pictures": [
            picture(ends[side], f"{side.capitalize()} {kind} of {card.title}", largest=THUMBNAIL)
            for side in SIDES
        ],
    }
