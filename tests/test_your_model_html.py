"""The page says what the card says, needs nothing else, and gives every picture a text."""

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from absence_utils.attribution.columns import matrix_columns
from absence_utils.errors import InputError
from absence_utils.your_model import html as module
from absence_utils.your_model.card import CardOptions, collect_cards
from absence_utils.your_model.html import card_page, page_name, picture, summary, write_atlas, write_card

EFFORT = CardOptions(shown=2, steps=2, facets=1, maps=1, evidence_images=40)


@pytest.fixture(scope="module")
def cards(layer_study):
    study, dataset = layer_study
    return list(
        collect_cards(study, dataset, matrix_columns(dataset), [0, 1, 4], EFFORT, {"network": "scenes"})
    )


def decode(src: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(src.partition(",")[2])))


def test_small_pictures_are_kept_exactly():
    pixels = torch.randint(0, 256, (3, 5, 7)) / 255
    shown = picture(pixels, "a picture")
    assert (shown.width, shown.height, shown.photo) == (7, 5, False)
    back = np.asarray(decode(shown.src)).transpose(2, 0, 1)
    assert np.array_equal(back, (pixels * 255).round().numpy())


def test_grey_large_and_shrunken_pictures():
    grey = picture(torch.full((1, 4, 4), 0.5), "grey")
    assert np.asarray(decode(grey.src)).shape == (4, 4, 3)
    large = picture(torch.rand(3, 200, 100), "large")
    assert (
        large.photo and large.src.startswith("data:image/jpeg") and (large.width, large.height) == (100, 200)
    )
    small = picture(torch.rand(3, 200, 100), "thumbnail", largest=50)
    assert (small.width, small.height) == (25, 50) and not small.photo
    assert decode(picture(torch.full((3, 2, 2), 7.0), "too bright").src).getpixel((0, 0)) == (255, 255, 255)


def test_a_page_needs_nothing_else(cards):
    page = card_page(cards[1])
    assert page.startswith("<!doctype html>") and 'lang="en"' in page and "viewport" in page
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert addresses and all(it.startswith(("data:", "#")) for it in addresses)
    assert set(re.findall(r"https?://[^\s\"<]+", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "@import" not in page and "<script" not in page


def test_every_picture_has_a_text_and_a_size(cards):
    page = card_page(cards[1])
    pictures = re.findall(r"<img[^>]*>", page)
    assert len(pictures) == 2 * (1 + 2 + 2 + 2)  # two sides: synthesised, patches, images, input and map
    assert all(re.search(r'alt="[^"]{15,}"', it) for it in pictures)
    assert all(re.search(r'width="[1-9]\d*" height="[1-9]\d*"', it) for it in pictures)
    assert len(re.findall(r'<figure role="img" aria-label="[^"]{15,}">\s*<svg', page)) == 3


def test_verdict_scores_and_provenance_stand_in_it(cards):
    card, page = cards[1], card_page(cards[1])
    assert card.sentence.replace("'", "&#39;") in page and card.headline[1:] in page
    rows = re.findall(r"<tr><td>(\w+)</td><td>([^<]*)</td><td>([^<]*)</td>", page)
    wanted = [
        (row.score, row.condition, f"{row.value:.2f}".replace("-", "−")) for row in card.scores.itertuples()
    ]
    assert rows == wanted
    assert "<td>network</td><td>scenes</td>" in page
    assert f"full colour at ±{module.plots.map_limit(card):.2g}" in page


def test_what_decided_stands_below_the_scores(cards):
    row = cards[1].verdict
    page = card_page(cards[1])
    assert f"(q {row['q_absence']:.2f})" in page and f"(q {row['q_veto']:.2f})" in page
    assert f"corrected for the {row['studied']} units studied" in page


def test_synthesis_that_falls_short_is_named(cards):
    card = cards[1]
    far = replace(card, responses=np.array([-1e6, 1e6]))
    near = replace(card, responses=np.array([-1e-6, 1e-6]) + card.pair.lowest.response.numpy().min() + 1e-3)
    assert "highest and the lowest end" in card_page(far)
    assert module.synthesis_falls_short(near) == {"highest": False, "lowest": False}


def test_drawings_take_the_colour_of_the_page_and_share_no_ids(cards):
    page = card_page(cards[1])
    assert "currentColor" in page and module.plots.INK not in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) > 10 and len(ids) == len(set(ids))
    assert set(re.findall(r'(?:xlink:href="|url\()#([\w-]+)', page)) <= set(ids)


def test_names_of_classes_cannot_break_the_page(cards):
    card = replace(cards[1], title="<script>alert(1)</script> & more")
    page = card_page(card)
    assert "<script>alert" not in page and "&lt;script&gt;" in page


def test_a_card_without_synthesis_and_evidence(cards):
    page = card_page(replace(cards[1], pair=None, evidence=None))
    assert "Synthesised" not in page and "Signed attribution" not in page and "Patches" in page


def test_neighbours_and_picture_are_linked_if_there_are_any(cards):
    page = card_page(cards[1], index="index.html", before="a.html", after="b.html", also="c.png")
    assert re.findall(r'<a [^>]*href="([^"]*)"', page) == ["index.html", "a.html", "b.html", "c.png"]


def test_atlas_lists_every_card_and_links_neighbours(cards, layer_study, tmp_path):
    study, _ = layer_study
    paths = write_atlas(iter(cards), study, tmp_path / "atlas", "Scenes & rules")
    names = [page_name(unit) for unit in (0, 1, 4)]
    assert [path.name for path in paths] == ["index.html", *names]
    assert sorted(path.name for path in (tmp_path / "atlas").iterdir()) == sorted(["index.html", *names])
    index = paths[0].read_text()
    assert "Scenes &amp; rules" in index and summary(study) in index
    assert re.findall(r'href="(unit[^"]*)"', index) == names
    for card in cards:
        (tile,) = re.findall(rf'<li data-unit="{card.channel}" [^>]*>', index)
        assert f'data-absence="{card.verdict["absence"]:.4f}"' in tile
        assert f'data-verdict="{card.verdict["verdict"]}"' in tile
        assert f'data-below="{(card.responses < 0).mean():.4f}"' in tile
    assert "not ring" in index and "checker" in index
    middle = paths[2].read_text()
    assert f'rel="prev" href="{names[0]}"' in middle and f'rel="next" href="{names[2]}"' in middle
    assert 'rel="prev"' not in paths[1].read_text() and 'rel="next"' not in paths[3].read_text()


def test_pictures_of_cards_on_request(cards, layer_study, tmp_path):
    paths = write_atlas(cards[:1], layer_study[0], tmp_path, "one", pictures=True)
    drawn = paths[1].with_suffix(".png")
    with Image.open(drawn) as image:
        assert image.size[0] > 1000
    assert f'href="{drawn.name}"' in paths[1].read_text()


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


def test_one_card_as_a_file(cards, tmp_path):
    path = write_card(cards[0], tmp_path / "card.html")
    assert path.read_text() == card_page(cards[0]) and [it.name for it in tmp_path.iterdir()] == ["card.html"]
