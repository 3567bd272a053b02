"""A unit card as one HTML page that needs nothing else: it opens from the file system, offline."""

from __future__ import annotations

import base64
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from absence_utils.files import write_atomically
from absence_utils.insertion.decisions import LEVEL
from absence_utils.plots.base import companion_style
from absence_utils.plots.your_model import DECISIONS, Panel, card_rows

from .cards import Card

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined
)
DPI = 150  # of a card's drawings in its page: sharp at the width of a phone


def card_page(card: Card, *, index: str = "", before: str = "", after: str = "") -> str:
    """The card as one HTML page.

    Args:
        card: see `card.collect_cards`.
        index, before, after: addresses of the card's tile in the atlas and of the neighbouring cards; "" for none.
    """
    return TEMPLATES.get_template("card.html.j2").render(
        card=card,
        rows=_drawings(card),
        effects=Markup(_effect_table(card).to_html(index=False, border=0)),
        decided=_decided(card),
        colour=decision_colour(card),
        index=index,
        before=before,
        after=after,
    )


def card_frame(card: Card) -> str:
    """The page in a frame of its own, for the cell of a notebook: its style must not reach the notebook."""
    look = "width: 100%; height: 50em; border: 1px solid #ccc"
    return f'<iframe title="{escape(card.title)}" srcdoc="{escape(card_page(card))}" style="{look}"></iframe>'


def decision_colour(card: Card) -> str:
    """Colour of the decision on the signed reading."""
    return DECISIONS[card.decisions["decision"].iloc[0]]


def page_name(channel: int) -> str:
    """File name of a unit's card in an atlas."""
    return f"unit_{channel:04d}.html"


def write_card(card: Card, path: Path) -> Path:
    """Write a card as a page of its own."""
    write_atomically(path, card_page(card).encode())
    return path


def _png(save) -> str:
    """A data address of the PNG that `save` writes into a file."""
    target = BytesIO()
    save(target)
    return "data:image/png;base64," + base64.b64encode(target.getvalue()).decode()


@lru_cache(maxsize=1)  # a card's own page and its page in an atlas show the same
def _drawings(card: Card) -> list[dict]:
    return [
        {"title": row.title, "note": row.note, "panels": [(_drawn(panel), panel.alt) for panel in row.panels]}
        for row in card_rows(card)
    ]


def _drawn(panel: Panel) -> str:
    with companion_style():
        figure = plt.figure(figsize=(panel.width, panel.height), layout="constrained")
        panel.draw(figure)
        drawing = _png(lambda file: figure.savefig(file, dpi=DPI, metadata={"Software": None}))
        plt.close(figure)
    return drawing


def _effect_table(card: Card) -> pd.DataFrame:
    """The effects and the context as text, for a reader."""

    def rows(table, value: str) -> dict:
        low, high = table["low"].map(_number), table["high"].map(_number)
        return {"effect, sd": table[value].map(_number), "95% interval": low + " to " + high}

    effects = pd.DataFrame({"reading": card.effects["reading"], "against": card.effects["control"],
                            **rows(card.effects, "value")})  # fmt: skip
    asked = card.context.dropna(subset=["context"])
    if not len(asked):
        return effects
    context = pd.DataFrame({"reading": asked["reading"], "against": "the same without the trigger",
                            **rows(asked, "context")})  # fmt: skip
    return pd.concat([effects, context], ignore_index=True)


def _decided(card: Card) -> str:
    """What the decision rests on, with the adjusted p-values that decided."""
    parts = [
        f"{reading}: more than {row['delta']:g} sd q {_number(row['q_more'], 3)}, less q {_number(row['q_less'], 3)}, "
        f"higher than {_number(row['percentile'], 0)}% of units with random weights"
        for reading, row in card.decisions.iterrows()
    ]
    studied = card.decisions["studied"].iloc[0]
    return f"{'; '.join(parts)}. A q below {LEVEL} decides; corrected for the {studied} units studied."


def _number(value, digits: int = 2) -> str:
    # + 0.0: no minus before a zero
    return "–" if pd.isna(value) else f"{round(float(value), digits) + 0.0:.{digits}f}".replace("-", "−")
