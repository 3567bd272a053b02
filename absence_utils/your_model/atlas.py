"""The atlas: tiles of all cards to look through, to search and to pick from a plot; a table of them; all units as CSV.

Scripts are inside the index, pictures lie beside it, so that a browser loads only those that it shows. All opens from
the file system, offline.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import itables
import numpy as np
import pandas as pd
from itables.javascript import generate_init_offline_itables_html
from markupsafe import Markup, escape
from matplotlib.ticker import MaxNLocator
from PIL import Image

from absence_utils.errors import InputError
from absence_utils.files import write_atomically
from absence_utils.insertion.decisions import in_sd
from absence_utils.plots.base import to_numpy
from absence_utils.plots.your_model import DECISIONS, SIDES

from .cards import Card
from .html import TEMPLATES, card_page, decision_colour, page_name
from .study import LayerStudy, strongest_units, summary

THUMBNAIL = 96  # px, edge of the pictures
PLOT = (480, 320)  # units of the drawing, which grows and shrinks with the page
MARGIN = {"left": 56, "right": 12, "top": 12, "bottom": 46}


def write_atlas(cards: Iterable[Card], study: LayerStudy, folder: Path, title: str) -> list[Path]:
    """Write a page for every card, as it comes, the index of all of them, and `units.csv`.

    Args:
        cards: an iterator is enough: no more than two cards are held at a time.
        study: what they are from.
        folder: made if absent. The pictures of the index are files in its `pictures`: inside the page those of 2,048
            units would be some 100 MB.
        title: of the index.

    Returns:
        Paths: the index, then the cards.

    Raises:
        InputError: no cards.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tiles, paths, before = [], [], ""
    cards = iter(cards)
    card = next(cards, None)
    if card is None:
        raise InputError("cards", "there are none", "Give at least one unit.")
    while card is not None:
        tiles.append(_tile(card, folder))
        path, following = folder / page_name(card.channel), next(cards, None)
        after = page_name(following.channel) if following else ""
        page = card_page(card, index=f"index.html#unit-{card.channel}", before=before, after=after)
        write_atomically(path, page.encode())
        paths.append(path)
        card, before = following, path.name
    rank = {unit: place for place, unit in enumerate(strongest_units(study.decisions, len(study.units)))}
    page = TEMPLATES.get_template("atlas.html.j2").render(
        title=title,
        summary=summary(study),
        tiles=sorted(tiles, key=lambda tile: rank[tile["unit"]]),
        studied=len(study.units),
        plot=scatter(study, {tile["unit"] for tile in tiles}),
        readings=list(study.decisions["reading"].unique()),
        decisions=DECISIONS,
        table=Markup(_searchable(pd.DataFrame(map(_row, tiles)))),
    )
    write_atomically(folder / "units.csv", _units(study, tiles).to_csv(index=False).encode())
    write_atomically(folder / "index.html", page.encode())
    return [folder / "index.html", *paths]


def _units(study: LayerStudy, tiles: list[dict]) -> pd.DataFrame:
    """All units studied: their decisions and contexts, beside what is said of those that have a card."""
    said = [(tile["unit"], tile["class"], tile["headline"], tile["page"]) for tile in tiles]
    said = pd.DataFrame(said, columns=["unit", "class", "what is missing", "card"])
    return said.merge(study.table, on="unit", how="right")


def _tile(card: Card, folder: Path) -> dict:
    """What the index shows of a unit."""
    pictures = {}
    for side in SIDES:
        found, shown = card.patches[side], []
        label = f" ({found.label[0]})" if found.label[0] else ""
        kinds = [("patch", found.pixels[0], f"{side.capitalize()} patch of {card.title}{label}")]
        if card.pair:
            alt = f"Synthesised image of the {side} response of {card.title}"
            kinds.append(("synthesis", getattr(card.pair, side).image[0], alt))
        for kind, pixels, alt in kinds:
            path = folder / "pictures" / f"unit_{card.channel:04d}_{side}_{kind}.png"
            shown.append(_thumbnail(pixels, path) | {"alt": alt, "kind": kind})
        pictures[side] = {"pictures": shown, "label": found.label[0], "colour": SIDES[side]}
    classes = card.evidence.classes["name"].head(3).tolist() if card.evidence else []
    seen = dict.fromkeys(filter(None, card.patches["lowest"].label))
    tile = {
        "unit": card.channel,
        "page": page_name(card.channel),
        "title": card.title,
        "class": card.title.partition(": ")[2],
        "headline": card.headline,
        "named": bool(card.confirmation),
        "effects": {read: row["effect"] for read, row in card.decisions.iterrows()},
        "decisions": {read: row["decision"] for read, row in card.decisions.iterrows()},
        "context": bool(card.context["found"].any()),
        "colour": decision_colour(card),
        "sides": pictures,
        "evidence": ", ".join(map(str, classes)),
        "lowest": "; ".join(list(seen)[:3]),
        "negative": round(100 * float((card.responses < 0).mean())),
    }
    words = [card.title, card.confirmation, *(f"{read}: {word}" for read, word in tile["decisions"].items())]
    words += [
        f"{side}: {label.removeprefix('from: ')}" for side in SIDES for label in card.patches[side].label
    ]
    return tile | {"words": " | ".join(dict.fromkeys(words)).lower()}


def _thumbnail(pixels, path: Path) -> dict:
    """Write pixels [channel, height, width] in 0..1 as a small picture: its address and size."""
    values = (np.clip(to_numpy(pixels), 0, 1) * 255).round().astype(np.uint8)
    image = Image.fromarray(values[0] if len(values) == 1 else values[:3].transpose(1, 2, 0))
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    path.parent.mkdir(exist_ok=True)
    image.save(path, "PNG", optimize=True)
    return {"src": f"{path.parent.name}/{path.name}", "width": image.width, "height": image.height}


def scatter(study: LayerStudy, with_tile: set[int]) -> dict:
    """Where the template draws what: signed effects against those passed on, a point for each unit studied.

    An output has one reading: its units stand above each other in the order of their effects.

    Args:
        study: of the layer.
        with_tile: units whose point leads to a tile.
    """
    wide = study.decisions.pivot(index="unit", columns="reading")
    x, two = wide["effect"]["signed"], "passed on" in wide["effect"]
    y = wide["effect"]["passed on"] if two else x.rank(method="first")
    known = x.notna() & y.notna()
    width, height = PLOT
    to_x, x_ticks = _scale(
        [*x[known], 0.0, wide["delta"]["signed"].iloc[0]], MARGIN["left"], width - MARGIN["right"]
    )
    limits = [*y[known], 0.0, *(wide["delta"]["passed on"].iloc[:1] if two else ())]
    to_y, y_ticks = _scale(limits, height - MARGIN["bottom"], MARGIN["top"])
    points = []
    for unit in x.index[known][::-1]:
        decision = wide["decision"]["signed"][unit]
        words = f"{decision}, signed {in_sd(x[unit])}" + (f", passed on {in_sd(y[unit])}" if two else "")
        points.append({
            "unit": unit, "x": to_x(x[unit]), "y": to_y(y[unit]), "title": f"unit {unit}: {words}",
            "colour": DECISIONS[decision], "linked": unit in with_tile,
        })  # fmt: skip
    return {
        "width": width, "height": height, "margin": MARGIN, "points": points,
        "x_ticks": x_ticks, "y_ticks": y_ticks if two else [],
        "x_delta": to_x(wide["delta"]["signed"].iloc[0]),
        "y_delta": to_y(wide["delta"]["passed on"].iloc[0]) if two else None,
        "x_label": "signed effect, sd", "y_label": "passed on, sd" if two else "units, by effect",
    }  # fmt: skip


def _scale(values, start: float, stop: float):
    """Function of a value to its place between two ends, and the ticks: [(place, text)]."""
    low, high = min(values), max(values)
    gap = 0.05 * (high - low or 1)
    low, high = low - gap, high + gap

    def place(value: float) -> float:
        return round(float(start + (value - low) / (high - low) * (stop - start)), 1)

    ticks = [tick for tick in MaxNLocator(6).tick_values(low, high) if low <= tick <= high]
    return place, [(place(tick), f"{tick:g}".replace("-", "−")) for tick in ticks]


def _row(tile: dict) -> dict:
    """A unit's row in the table."""
    row = {
        "unit": f'<a href="{tile["page"]}" title="{escape(tile["title"])}">{tile["unit"]}</a>',
        "class": escape(tile["class"]),
        "what is missing": escape(tile["headline"]) if tile["named"] else "no name tested",
    }
    row |= {f"{read}: decision": decision for read, decision in tile["decisions"].items()}
    row |= {f"{read} effect, sd": round(float(value), 2) for read, value in tile["effects"].items()}
    return row | {
        "context": "depends on context" if tile["context"] else "",
        "responses < 0, %": tile["negative"],
        "most absence evidence": escape(tile["evidence"]),
        "lowest patches show": escape(tile["lowest"]),
    }


def _searchable(table: pd.DataFrame) -> str:
    """The table by DataTables, with its scripts inside the page; search and order last as long as the browser's tab."""
    if not table["class"].any():  # hidden units have no name
        table = table.drop(columns="class")
    controls = {"topStart": "search", "topEnd": "pageLength", "bottomStart": "info", "bottomEnd": "paging"}
    scripts = generate_init_offline_itables_html(itables.options.dt_bundle)
    return scripts + itables.to_html_datatable(
        table, connected=False, display_logo_when_loading=False, allow_html=True, showIndex=False, table_id="units",
        maxBytes=0, maxRows=0, maxColumns=0, lengthMenu=[25, 100, 1000], scrollX=True, stateSave=True, stateDuration=-1,
        order=[], layout=controls, text_in_header_can_be_selected=False, classes="display compact",
    )  # fmt: skip
