"""The page says what the card says, needs nothing else, and gives every picture a text."""

import re
from dataclasses import replace

import numpy as np
import pytest

from absence_utils.attribution.columns import matrix_columns
from absence_utils.errors import InputError
from absence_utils.plots.your_model import card_rows, map_limit
from absence_utils.your_model.cards import CardOptions, collect_cards
from absence_utils.your_model.html import card_page, page_name, summary, write_atlas, write_card

EFFORT = CardOptions(shown=2, steps=2, facets=1, maps=1, evidence_images=40)


@pytest.fixture(scope="module")
def cards(layer_study):
    study, dataset = layer_study
    return list(
        collect_cards(study, dataset, matrix_columns(dataset), [0, 1, 4], EFFORT, {"network": "scenes"})
    )


@pytest.fixture(scope="module")
def page(cards):
    return card_page(cards[1])


def test_a_page_needs_nothing_else(page):
    assert page.startswith("<!doctype html>") and 'lang="en"' in page and "viewport" in page
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert addresses and all(it.startswith(("data:", "#")) for it in addresses)
    assert not re.findall(r"https?://", page) and "@import" not in page and "<script" not in page


def test_every_drawing_of_the_card_is_there_with_a_text(page, cards):
    pictures = re.findall(r'<img src="data:image/png;base64,[^"]+" alt="([^"]{15,})"', page)
    panels = [panel for row in card_rows(cards[1]) for panel in row.panels]
    assert len(pictures) == page.count("<img") == len(panels) == 3 + 2 * 4
    assert any("Lowest response: patches of logits, unit 1: not ring: −" in it for it in pictures)


def test_verdict_scores_and_provenance_stand_in_it(page, cards):
    card = cards[1]
    assert card.sentence.replace("'", "&#39;") in page and card.headline[1:] in page
    rows = re.findall(r"<tr>\s*<td>(\w+)</td>\s*<td>([^<]*)</td>\s*<td>([^<]*)</td>", page)
    assert rows == [
        (row.score, row.condition, f"{row.value:.2f}".replace("-", "−")) for row in card.scores.itertuples()
    ]
    assert "<dt>network</dt><dd>scenes</dd>" in page
    assert f"full colour at ±{map_limit(card):.2g}" in page
    row = card.verdict
    assert f"(q {row['q_absence']:.2f})" in page and f"(q {row['q_veto']:.2f})" in page
    assert f"corrected for the {row['studied']} units studied" in page


def test_synthesis_that_falls_short_is_named(cards):
    card = cards[1]
    far = replace(card, responses=np.array([-1e6, 1e6]))
    near = replace(card, responses=np.array([-1e-6, 1e-6]) + card.pair.lowest.response.numpy().min() + 1e-3)
    assert "highest and the lowest end" in card_rows(far)[1].note and near.short_ends == []


@pytest.mark.slow
def test_names_of_classes_cannot_break_a_page(cards, layer_study, tmp_path):
    card = replace(cards[1], title="<script>alert(1)</script>, unit 1: <b>& more", pair=None, evidence=None)
    (index, path) = write_atlas([card], layer_study[0], tmp_path, "<i>one")
    for text in (index.read_text(), path.read_text()):
        assert "<script>alert" not in text and "<b>&" not in text and "<i>one" not in text
    assert "&lt;script&gt;" in path.read_text()
    assert "Synthesised" not in path.read_text() and "Signed attribution" not in path.read_text()


@pytest.mark.slow
def test_atlas_lists_every_card_and_links_neighbours(cards, layer_study, tmp_path):
    study, _ = layer_study
    paths = write_atlas(iter(cards), study, tmp_path / "atlas", "Scenes & rules")
    names = [page_name(unit) for unit in (0, 1, 4)]
    assert [path.name for path in paths] == ["index.html", *names]
    assert sorted(path.name for path in (tmp_path / "atlas").iterdir()) == sorted(
        ["index.html", "pictures", *names]
    )
    index = paths[0].read_text()
    assert "Scenes &amp; rules" in index and summary(study) in index
    data = index[index.index("let dt_args") :]
    for card, name in zip(cards, names, strict=True):
        assert name in data and f"{card.verdict['absence']:.2f}" in data and card.verdict["verdict"] in data
    assert "data:image" not in data and "not ring" in data, "pictures in the page make it too large to open"
    found = re.findall(r'src="pictures/([^"]+)" alt="[^"]{15,}" [^>]*loading="lazy', data.replace("\\", ""))
    assert len(found) == 2 * len(cards)
    assert sorted(path.name for path in (tmp_path / "atlas" / "pictures").iterdir()) == sorted(found)
    middle = paths[2].read_text()
    assert f'rel="prev" href="{names[0]}"' in middle and f'rel="next" href="{names[2]}"' in middle
    assert 'rel="prev"' not in paths[1].read_text() and 'rel="next"' not in paths[3].read_text()


def test_an_atlas_of_nothing_is_an_error(layer_study, tmp_path):
    with pytest.raises(InputError, match="cards"):
        write_atlas([], layer_study[0], tmp_path, "none")
    assert not (tmp_path / "index.html").exists()


def test_summary_counts_all_units(layer_study):
    study, _ = layer_study
    counts = [
        int(number) for number in re.findall(r"\b(\d+) (?:with|suppressed|without|undecided)", summary(study))
    ]
    assert sum(counts) == len(study.verdicts) == 5 and "Of 5 units studied" in summary(study)
    table = study.verdicts.assign(verdict="no absence found", absence_high=[9, 9, 9, 0, 0], limit=1.0)
    assert "In 3 of those without, one is not ruled out." in summary(replace(study, verdicts=table))
    assert "ruled out" not in summary(replace(study, verdicts=table.assign(absence_high=0.0)))


@pytest.mark.slow
def test_one_card_as_a_file(cards, page, tmp_path):
    path = write_card(cards[1], tmp_path / "card.html")
    assert path.read_text() == page and [it.name for it in tmp_path.iterdir()] == ["card.html"]
