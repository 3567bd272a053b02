"""A unit card as one HTML page that needs nothing else, and the atlas: a table of all cards to search and to sort.

Scripts, and the pictures of cards, are inside the pages; those of the atlas lie beside it. All open from the file
system, offline.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import itables
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from itables.javascript import generate_init_offline_itables_html
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from absence_utils.errors import InputError
from absence_utils.files import write_atomically
from absence_utils.insertion.decisions import LEVEL
from absence_utils.plots.base import companion_style, to_numpy
from absence_utils.plots.your_model import SIDES, Panel, card_rows

from .cards import Card
from .study import LayerStudy, summary

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined
)
DPI = 150  # of a card's drawings in its page: sharp at the width of a phone
THUMBNAIL = 96  # px, edge of the pictures in the atlas


def card_page(card: Card, *, index: str = "", before: str = "", after: str = "") -> str:
    """The card as one HTML page.

    Args:
        card: see `card.collect_cards`.
        index, before, after: addresses of the atlas and of the neighbouring cards; "" for none.
    """
    rows = [
        {"title": row.title, "note": row.note, "panels": [(_drawn(panel), panel.alt) for panel in row.panels]}
        for row in card_rows(card)
    ]
    return TEMPLATES.get_template("card.html.j2").render(
        card=card,
        rows=rows,
        effects=Markup(_effect_table(card).to_html(index=False, border=0)),
        decided=_decided(card),
        index=index,
        before=before,
        after=after,
    )


def card_frame(card: Card) -> str:
    """The page in a frame of its own, for the cell of a notebook: its style must not reach the notebook."""
    look = "width: 100%; height: 50em; border: 1px solid #ccc"
    return f'<iframe title="{escape(card.title)}" srcdoc="{escape(card_page(card))}" style="{look}"></iframe>'


def page_name(channel: int) -> str:
    """File name of a unit's card in an atlas."""
    return f"unit_{channel:04d}.html"


def write_card(card: Card, path: Path) -> Path:
    """Write a card as a page of its own."""
    write_atomically(path, card_page(card).encode())
    return path


def write_atlas(cards: Iterable[Card], study: LayerStudy, folder: Path, title: str) -> list[Path]:
    """Write a page for every card, as it comes, and the index of all of them.

    Args:
        cards: an iterator is enough: no more than two cards are held at a time.
        study: what they are from.
        folder: made if absent. The pictures of the index are files in its `pictures`, so that a browser loads only
            those of the rows that it shows: inside the page those of 2,048 units would be some 100 MB.
        title: of the index.

    Returns:
        Paths: the index, then the cards.

    Raises:
        InputError: no cards.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows, paths, before = [], [], ""
    cards = iter(cards)
    card = next(cards, None)
    if card is None:
        raise InputError("cards", "there are none", "Give at least one unit.")
    while card is not None:
        rows.append(_atlas_row(card, folder))
        path, following = folder / page_name(card.channel), next(cards, None)
        after = page_name(following.channel) if following else ""
        page = card_page(card, index="index.html", before=before, after=after)
        write_atomically(path, page.encode())
        paths.append(path)
        card, before = following, path.name
    page = TEMPLATES.get_template("atlas.html.j2").render(
        title=title,
        summary=summary(study),
        cards=len(rows),
        table=Markup(_searchable(pd.DataFrame(rows))),
    )
    write_atomically(folder / "index.html", page.encode())
    return [folder / "index.html", *paths]


def _png(save) -> str:
    """A data address of the PNG that `save` writes into a file."""
    target = BytesIO()
    save(target)
    return "data:image/png;base64," + base64.b64encode(target.getvalue()).decode()


def _drawn(panel: Panel) -> str:
    with companion_style():
        figure = plt.figure(figsize=(panel.width, panel.height), layout="constrained")
        panel.draw(figure)
        drawing = _png(lambda file: figure.savefig(file, dpi=DPI, metadata={"Software": None}))
        plt.close(figure)
    return drawing


def _thumbnail(pixels, alt: str, path: Path) -> str:
    """Pixels [channel, height, width] in 0..1 as a small picture in a file, and the element that shows it."""
    values = (np.clip(to_numpy(pixels), 0, 1) * 255).round().astype(np.uint8)
    image = Image.fromarray(values[0] if len(values) == 1 else values[:3].transpose(1, 2, 0))
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    path.parent.mkdir(exist_ok=True)
    image.save(path, "PNG", optimize=True)
    size = f'width="{image.width}" height="{image.height}"'
    return f'<img src="{path.parent.name}/{path.name}" alt="{escape(alt)}" {size} loading="lazy">'


def _effect_table(card: Card) -> pd.DataFrame:
    """The effects and the context as text, for a reader."""

    def rows(table, value: str) -> dict:
        low, high = table["low"].map(_number), table["high"].map(_number)
        return {"effect, sd": table[value].map(_number), "95 % interval": low + " to " + high}

    effects = pd.DataFrame({"reading": card.effects["reading"], "against": card.effects["control"],
                            **rows(card.effects, "value")})  # fmt: skip
    if not len(card.context):
        return effects
    context = pd.DataFrame({"reading": card.context["reading"], "against": "the same without the trigger",
                            **rows(card.context, "context")})  # fmt: skip
    return pd.concat([effects, context])


def _decided(card: Card) -> str:
    """What the decision rests on, with the adjusted p-values that decided."""
    parts = [
        f"{reading}: more than {row['delta']:g} sd q {_number(row['q_more'], 3)}, less q {_number(row['q_less'], 3)}, "
        f"higher than {_number(row['percentile'], 0)} % of units with random weights"
        for reading, row in card.decisions.iterrows()
    ]
    studied = card.decisions["studied"].iloc[0]
    return f"{'; '.join(parts)}. A q below {LEVEL} decides; corrected for the {studied} units studied."


def _number(value, digits: int = 2) -> str:
    return "–" if pd.isna(value) else f"{value:.{digits}f}".replace("-", "−")


def _atlas_row(card: Card, folder: Path) -> dict:
    """A unit's row in the atlas: its pictures, its verdict, its scores, and what may suppress it."""
    kind = "synthesised image" if card.pair else "patch"
    row = {
        "unit": f'<a href="{page_name(card.channel)}" title="{escape(card.title)}">{card.channel}</a>',
        "class": escape(card.title.partition(": ")[2]),
    }
    for side in SIDES:
        picture = (getattr(card.pair, side).image if card.pair else card.patches[side].pixels)[0]
        path = folder / "pictures" / f"unit_{card.channel:04d}_{side}.png"
        row[f"{side} response"] = _thumbnail(
            picture, f"{side.capitalize()} response of {card.title}: {kind}", path
        )
    effects = {
        f"{read} effect, sd": round(float(row["effect"]), 2) for read, row in card.decisions.iterrows()
    }
    decided = {f"{read}": row["decision"] for read, row in card.decisions.iterrows()}
    classes = card.evidence.classes["name"].head(3) if card.evidence else []
    lowest = dict.fromkeys(filter(None, card.patches["lowest"].label))
    context = (
        {"context": "depends on context" if card.context["found"].any() else ""} if len(card.context) else {}
    )
    return row | {
        "what is missing": escape(card.confirmation) or "no name offered",
        **decided,
        **effects,
        **context,
        "responses < 0, %": round(100 * float((card.responses < 0).mean())),
        "most absence evidence": escape(", ".join(map(str, classes))),
        "lowest patches from": escape(", ".join(list(lowest)[:3])),
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
