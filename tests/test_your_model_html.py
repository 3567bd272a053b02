"""The page says what the card says, needs nothing else, and gives every picture a text."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from absence_utils.attribution.columns import matrix_columns
from absence_utils.insertion.decisions import DECISIONS
from absence_utils.plots import your_model as plots
from absence_utils.plots.your_model import card_rows, map_limit
from absence_utils.your_model import html
from absence_utils.your_model.cards import CardOptions, collect_cards
from absence_utils.your_model.html import card_page, decision_colour, write_card

EFFORT = CardOptions(shown=2, steps=2, facets=1, maps=1, evidence_images=40)


@pytest.fixture(scope="module")
def card(layer_study):
    study, dataset = layer_study
    (found,) = collect_cards(study, dataset, matrix_columns(dataset), [1], EFFORT, {"network": "scenes"})
    return found


@pytest.fixture(scope="module")
def page(card):
    return card_page(card)


@pytest.fixture
def undrawn(monkeypatch):
    """Pages without their drawings, which take seconds."""
    monkeypatch.setattr(html, "_drawn", lambda panel: "data:,")


def test_a_page_needs_nothing_else(page):
    assert page.startswith("<!doctype html>") and 'lang="en"' in page and "viewport" in page
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert addresses and all(it.startswith(("data:", "#")) for it in addresses)
    assert not re.findall(r"https?://", page) and "@import" not in page and "<script" not in page


def test_every_drawing_of_the_card_is_there_with_a_text(page, card):
    pictures = re.findall(r'<img src="data:image/png;base64,[^"]+" alt="([^"]{15,})"', page)
    panels = [panel for row in card_rows(card) for panel in row.panels]
    assert len(pictures) == page.count("<img") == len(panels) == 3 + 2 * 4
    assert any("Lowest response: patches of logits, unit 1: not ring: −" in it for it in pictures)


def test_the_answer_comes_first_then_pictures_and_numbers_are_folded(page, card):
    main = page[page.index("<main>") :]
    places = [main.index(text) for text in ('class="answer"', "<img", "<details>", "<table", "</details>")]
    assert places == sorted(places) and "<details open" not in main
    answer = re.search(r'<p class="answer"[^>]*><strong>(.*?)</strong>(.*?)</p>', main, re.S)
    assert answer[1] == card.headline
    said = re.findall(r"<span>(.*?)</span>", answer[2].replace("&#39;", "'"))
    assert said == card.sentences
    assert [row.title for row in card_rows(card)][:2] == ["Patches", "Images"]


def test_the_shape_of_the_response_stands_under_its_histogram(page, card):
    assert f'<p class="pale">Shape of the response. {card.shape_line}</p>' in page
    assert card_rows(card)[-1].note.endswith(card.shape_line)


def test_effects_context_and_provenance_stand_in_it(page, card):
    rows = re.findall(
        r"<tr>\s*<td>([^<]*)</td>\s*<td>([^<]*)</td>\s*<td>([^<]*)</td>\s*<td>([^<]*)</td>", page
    )
    said = [(*row[:2], f"{row[2]:.2f}", f"{row[3]:.2f} to {row[4]:.2f}") for row in wanted_rows(card)]
    assert rows == [tuple(text.replace("-", "−") for text in row) for row in said]
    assert "<dt>network</dt><dd>scenes</dd>" in page
    assert f"full colour at ±{map_limit(card):.2g}" in page
    row = card.decisions.loc["signed"]
    assert f"signed: more than 0.75 sd q {row['q_more']:.3f}, less q {row['q_less']:.3f}" in page
    assert f"higher than {row['percentile']:.0f}% of units with random weights" in page
    assert "corrected for the 5 units studied" in page


def wanted_rows(card):
    for row in card.effects.itertuples():
        yield row.reading, row.control, row.value, row.low, row.high
    for row in card.context.dropna(subset=["context"]).itertuples():
        yield row.reading, "the same without the trigger", row.context, row.low, row.high


def test_what_was_not_measured_is_a_dash(undrawn, card):
    unknown = replace(card, effects=card.effects.assign(value=np.nan), context=card.context.iloc[:0])
    page = card_page(unknown)
    assert page.count("<td>–</td>") == len(card.effects) and "without the trigger</td>" not in page


@pytest.mark.parametrize("decision", DECISIONS)
def test_the_answer_has_the_colour_of_the_signed_decision(undrawn, card, decision):
    rows = [row | {"decision": decision} for row in card.decisions.to_dict("records")]
    shown = replace(card, decisions=pd.DataFrame(rows).set_index("reading", drop=False))
    assert decision_colour(shown) == plots.DECISIONS[decision]
    assert f'class="answer" style="--decision: {plots.DECISIONS[decision]}"' in card_page(shown)


def test_the_way_back_leads_to_the_tile(undrawn, card):
    page = card_page(card, index="index.html#unit-1", before="a.html")
    assert '<a href="index.html#unit-1">All units</a>' in page and 'rel="prev" href="a.html"' in page
    assert "<nav" not in card_page(card)


def test_synthesis_that_falls_short_is_named(card):
    far = replace(card, responses=np.array([-1e6, 1e6]))
    near = replace(card, responses=np.array([-1e-6, 1e-6]) + card.pair.lowest.response.numpy().min() + 1e-3)
    assert "highest and the lowest end" in card_rows(far)[2].note and near.short_ends == []


def test_one_card_as_a_file(undrawn, card, tmp_path):
    path = write_card(card, tmp_path / "card.html")
    assert path.read_text() == card_page(card) and [it.name for it in tmp_path.iterdir()] == ["card.html"]
