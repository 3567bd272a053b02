"""The index lists every card, says what the cards say, and lets no name break out of its place."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers.decision_tables import decisions

from absence_utils.attribution.columns import matrix_columns
from absence_utils.errors import InputError
from absence_utils.insertion.decisions import CANNOT_TELL, ENCODES, NONE
from absence_utils.plots import your_model as plots
from absence_utils.your_model import atlas, html
from absence_utils.your_model.atlas import scatter, write_atlas
from absence_utils.your_model.cards import CardOptions, collect_cards
from absence_utils.your_model.html import page_name
from absence_utils.your_model.offer import Naming
from absence_utils.your_model.study import summary

EFFORT = CardOptions(shown=2, steps=2, facets=1, maps=1, evidence_images=40)
CONCEPTS_PUT_IN = pd.DataFrame({
    "concept": ["ring", "disc"], "effect": [-1.9, 0.1], "low": [-2.1, 0.0], "high": [-1.7, 0.2],
    "confirmed": [True, False],
})  # fmt: skip
NAMED = "Silenced by ring (confirmed: −1.9 sd [−2.1, −1.7], 6 of 6 lowest patches)"
NAMING = Naming(NAMED, CONCEPTS_PUT_IN, "How it was tested.")


@pytest.fixture(scope="module")
def cards(layer_study):
    study, dataset = layer_study
    columns, about = matrix_columns(dataset), {"network": "scenes"}
    return list(
        collect_cards(
            study,
            dataset,
            columns,
            [0, 1, 4],
            EFFORT,
            about,
            {1: NAMING},
        )
    )


@pytest.fixture(scope="module")
def written(cards, layer_study, tmp_path_factory):
    """(index, paths) with cards that say which they are in the place of their pages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atlas, "card_page", lambda card, **links: f"{card.channel} {links}")
        paths = write_atlas(iter(cards), layer_study[0], tmp_path_factory.mktemp("atlas"), "Scenes & rules")
    return paths[0].read_text(), paths


def tiles(index) -> dict[int, str]:
    found = re.findall(r'<article class="tile" id="unit-(\d+)".*?</article>', index, re.S)
    texts = re.findall(r'<article class="tile".*?</article>', index, re.S)
    return dict(zip(map(int, found), texts, strict=True))


def test_every_card_has_a_page_and_a_tile_strongest_first(written, layer_study):
    index, paths = written
    names = [page_name(unit) for unit in (0, 1, 4)]
    assert [path.name for path in paths] == ["index.html", *names]
    there = sorted(path.name for path in paths[0].parent.iterdir())
    assert there == sorted(["index.html", "pictures", "units.csv", *names])
    assert "Scenes &amp; rules" in index and summary(layer_study[0]) in index
    effects = layer_study[0].decisions.set_index("unit")["effect"]
    assert list(tiles(index)) == effects[[0, 1, 4]].sort_values(ascending=False).index.tolist()
    assert "3 of the 5 units studied have a card" in index


def test_a_tile_says_what_its_card_says(written, cards):
    index, _ = written
    for card in cards:
        tile = tiles(index)[card.channel]
        text = tile.replace("&#39;", "'")
        assert f'href="{page_name(card.channel)}"' in tile and f"<strong>{card.headline}</strong>" in text
        assert f"signed {card.decisions['effect'].iloc[0]:.2f} sd".replace("-", "−") in text
        assert f"--decision: {plots.DECISIONS[card.decisions['decision'].iloc[0]]}" in tile
        words = re.search(r'data-words="([^"]*)"', tile)[1]
        assert words == words.lower() and f"signed: {card.decisions['decision'].iloc[0]}" in words
        for side in ("highest", "lowest"):
            assert f"{side}: {card.patches[side].label[0]}" in words
            assert f'<span class="pale">{card.patches[side].label[0]}</span>' in text
    assert "silenced by ring" in tiles(index)[1] and "silenced" not in tiles(index)[0]


def test_tiles_show_patches_and_the_synthesis_over_them(written, cards):
    index, paths = written
    assert "data:image" not in index, "pictures in the page make it too large to open"
    pictures = re.findall(
        r'<img class="(\w+)" src="pictures/([^"]+)" alt="[^"]{15,}" [^>]*loading="lazy"', index
    )
    assert len(pictures) == index.count("<img class") == 4 * len(cards)
    assert [kind for kind, _ in pictures] == ["patch", "synthesis"] * 6
    there = sorted(path.name for path in (paths[0].parent / "pictures").iterdir())
    assert there == sorted(name for _, name in pictures)


def test_neighbours_and_the_way_back(written):
    first, middle, last = (path.read_text() for path in written[1][1:])
    assert middle == "1 {'index': 'index.html#unit-1', 'before': 'unit_0000.html', 'after': 'unit_0004.html'}"
    assert "'before': ''" in first and "'after': ''" in last


def test_the_csv_has_all_units_studied_with_what_is_said_of_them(written, layer_study):
    table = pd.read_csv(written[1][0].parent / "units.csv")
    study = layer_study[0]
    assert table["unit"].tolist() == study.table["unit"].tolist()
    pd.testing.assert_frame_equal(table[study.decisions.columns], study.decisions, check_dtype=False)
    said = table.set_index("unit")["what is missing"]
    assert said[1] == NAMED and pd.isna(said[2]) and table.set_index("unit")["card"][4] == "unit_0004.html"
    assert 'href="units.csv"' in written[0]


def test_the_table_has_a_row_for_every_card(written, cards):
    data = written[0][written[0].index("let dt_args") :].replace("\\", "")
    for card in cards:
        assert page_name(card.channel) in data and f"{card.decisions['effect'].iloc[0]:.2f}" in data
    assert NAMED.replace("−", "u2212") in data and "no name tested" in data
    for column in ("signed: decision", "signed effect, sd", "lowest patches show", "most absence evidence"):
        assert column in written[0]


def hostile(card):
    name = '"><script>alert(1)</script>\' onload="x'
    patches = {side: replace(end, label=[name] * len(end.label)) for side, end in card.patches.items()}
    naming = replace(NAMING, line=f"By {name}")
    title = f"logits, unit 1: {name}"
    return replace(card, title=title, naming=naming, patches=patches, pair=None, evidence=None)


def test_names_of_classes_cannot_break_a_page(cards, layer_study, tmp_path, monkeypatch):
    monkeypatch.setattr(html, "_drawn", lambda panel: "data:,")
    index, path = write_atlas([hostile(cards[1])], layer_study[0], tmp_path, "<i>one")
    for text in (index.read_text(), path.read_text()):
        assert "<script>alert" not in text and ' onload="x' not in text and "<i>one" not in text
        assert "&lt;script&gt;" in text
    assert "Synthesised" not in path.read_text() and "Signed attribution" not in path.read_text()
    assert 'class="synthesis"' not in index.read_text()


def test_points_stand_where_the_effects_are():
    table = decisions(
        [0.5, 1.0, 2.0, np.nan], [0.1, -0.1, 0.3, 0.2], [NONE, CANNOT_TELL, ENCODES, CANNOT_TELL]
    )
    plot = scatter(StudyOf(table), {0, 2})
    points = {point["unit"]: point for point in plot["points"]}
    assert sorted(points) == [0, 1, 2]  # what was not measured has no point
    x, y = ([points[unit][axis] for unit in range(3)] for axis in "xy")
    assert (x[2] - x[1]) == pytest.approx(2 * (x[1] - x[0]), abs=0.2)  # 0.5, 1, 2
    assert (y[1] - y[0]) == pytest.approx(y[0] - y[2], abs=0.2)  # -0.1, 0.1, 0.3: up is more
    assert y[2] < y[0] < y[1] and x[0] < plot["x_delta"] < x[1]
    assert [points[unit]["linked"] for unit in range(3)] == [True, False, True]
    assert points[2]["colour"] == plots.DECISIONS[ENCODES]
    assert points[1]["title"] == "unit 1: cannot tell, signed 1.00 sd, passed on −0.10 sd"
    for at, text in plot["x_ticks"]:
        assert at == pytest.approx(x[0] + (float(text) - 0.5) / 0.5 * (x[1] - x[0]), abs=0.5)
        assert 0 <= at <= plot["width"]


def test_an_output_has_one_reading_and_its_units_stand_in_order():
    plot = scatter(StudyOf(decisions([0.5, 2.0, 1.0])), set())
    points = {point["unit"]: point for point in plot["points"]}
    assert points[0]["y"] > points[2]["y"] > points[1]["y"]
    assert plot["y_delta"] is None and plot["y_ticks"] == [] and plot["y_label"] == "units, by effect"


class StudyOf:
    def __init__(self, decided):
        self.decisions = decided


def test_points_lead_to_tiles(written):
    links = re.findall(r'<a href="#unit-(\d+)" id="point-\1" aria-label="unit \1: [^"]+">', written[0])
    assert sorted(map(int, links)) == [0, 1, 4] and written[0].count("<circle cx=") == 5
    assert written[0].count("<title>unit ") == 5


def test_an_atlas_of_nothing_is_an_error(layer_study, tmp_path):
    with pytest.raises(InputError, match="cards"):
        write_atlas([], layer_study[0], tmp_path, "none")
    assert not (tmp_path / "index.html").exists()
