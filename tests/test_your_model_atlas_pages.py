"""The atlas and the cards in a real browser: from the file system, offline, by keyboard, on a phone, light and dark."""

import re

import pytest
from helpers.browser import DESKTOP, PHONE, bad_pictures, brightness, links, open_page, overflow

from absence_utils.attribution.columns import matrix_columns
from absence_utils.your_model.card import CardOptions, collect_cards
from absence_utils.your_model.html import write_atlas

COLUMNS = "getComputedStyle(document.getElementById('units')).gridTemplateColumns.split(' ').length"
EFFORT = CardOptions(shown=3, steps=2, facets=1, maps=1, evidence_images=40)


@pytest.fixture(scope="module")
def atlas(layer_study, tmp_path_factory):
    study, dataset = layer_study
    cards = collect_cards(study, dataset, matrix_columns(dataset), range(5), EFFORT, {"network": "scenes"})
    return write_atlas(cards, study, tmp_path_factory.mktemp("atlas"), "Rules of the scenes")


def shown(page) -> list[int]:
    """Units of the tiles that can be seen, in the order in which they stand."""
    return [
        int(it.get_attribute("data-unit")) for it in page.query_selector_all("#units li") if it.is_visible()
    ]


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_open_without_complaint_at_any_width(browser, atlas, width, scheme):
    for path in (atlas[0], atlas[2]):
        with open_page(browser, path, width, scheme) as opened:
            assert not (opened.errors or opened.remote or opened.failed)
            assert not bad_pictures(opened.page) and not overflow(opened.page)
            text, ground = brightness(opened.page)
            assert text > ground + 0.4 if scheme == "dark" else text < ground - 0.4


def test_every_link_leads_to_a_file(browser, atlas):
    names = {path.as_uri() for path in atlas}
    for path in atlas:
        with open_page(browser, path) as opened:
            found = links(opened.page)
            assert found and {link.partition("#")[0] for link in found} <= names


def test_search_and_filter(browser, atlas, layer_study):
    verdicts = layer_study[0].verdicts.set_index("unit")["verdict"]
    with open_page(browser, atlas[0]) as opened:
        page = opened.page
        assert shown(page) == [0, 1, 2, 3, 4] and page.inner_text("#count") == "5 of 5 units"
        page.fill("#search", "not ring")
        assert 1 in shown(page)
        page.fill("#search", "3")
        assert shown(page) == [3] and page.inner_text("#count") == "1 of 5 units"
        page.fill("#search", "zebra")
        assert shown(page) == [] and page.is_visible("#nothing")
        page.click("#clear")
        assert len(shown(page)) == 5 and not page.is_visible("#nothing")
        for verdict in verdicts.unique():
            page.select_option("#verdict", verdict)
            assert shown(page) == verdicts.index[verdicts == verdict].tolist()
        page.fill("#search", "veto")
        assert set(shown(page)) <= set(verdicts.index[verdicts == verdict])


@pytest.mark.parametrize("key", ["absence", "veto", "presence"])
def test_sorted_by_a_score(browser, atlas, layer_study, key):
    table = layer_study[0].verdicts.sort_values(key, ascending=False)
    with open_page(browser, atlas[0]) as opened:
        opened.page.select_option("#sort", key)
        assert shown(opened.page) == table["unit"].tolist()
        opened.page.select_option("#sort", "unit")
        assert shown(opened.page) == [0, 1, 2, 3, 4]


def test_a_card_is_one_click_away_and_back_finds_the_same_list(browser, atlas):
    with open_page(browser, atlas[0]) as opened:
        page = opened.page
        page.select_option("#sort", "absence")
        page.fill("#search", "ring")
        before = shown(page)
        page.click(f"#units li[data-unit='{before[0]}'] a")
        page.wait_for_selector("h1")
        assert f"unit {before[0]}" in page.inner_text("h1") and page.is_visible(".verdict")
        page.go_back()
        page.wait_for_selector("#units")
        assert shown(page) == before and page.input_value("#search") == "ring"


def test_by_keyboard(browser, atlas):
    with open_page(browser, atlas[0]) as opened:
        page = opened.page
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.id") == "search"
        page.keyboard.type("unit")
        assert page.input_value("#search") == "unit"
        page.keyboard.press("ArrowLeft")  # moves the cursor, not the focus
        assert page.evaluate("document.activeElement.id") == "search"
        for _ in range(3):
            page.keyboard.press("Tab")
        focused = "document.activeElement.closest('li')?.dataset.unit"
        assert page.evaluate(focused) == "0"
        page.keyboard.press("ArrowRight")
        assert page.evaluate(focused) == "1"
        columns = page.evaluate(
            "getComputedStyle(document.getElementById('units')).gridTemplateColumns.split(' ').length"
        )
        assert columns > 1
        page.keyboard.press("ArrowLeft")
        assert page.evaluate(focused) == "0"
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        page.wait_for_selector("h1")
        assert "unit 1" in page.inner_text("h1")


def test_arrows_move_between_rows_on_a_phone(browser, atlas):
    with open_page(browser, atlas[0], PHONE) as opened:
        page = opened.page
        columns = page.evaluate(
            "getComputedStyle(document.getElementById('units')).gridTemplateColumns.split(' ').length"
        )
        page.focus("#units li a")
        page.keyboard.press("ArrowDown")
        assert page.evaluate("document.activeElement.closest('li').dataset.unit") == str(columns)


def test_neighbours_of_a_card(browser, atlas):
    with open_page(browser, atlas[2]) as opened:
        opened.page.click("a[rel=next]")
        opened.page.wait_for_selector("a[rel=prev]")
        assert "unit 2" in opened.page.inner_text("h1")
        opened.page.click("a[rel=prev]")
        opened.page.wait_for_function("document.querySelector('h1').innerText.includes('unit 1')")


def test_card_shows_its_drawings(browser, atlas):
    with open_page(browser, atlas[2]) as opened:
        sizes = opened.page.eval_on_selector_all(
            "svg", "all => all.map(it => it.getBoundingClientRect().height)"
        )
        assert len(sizes) == 3 and min(sizes) > 100
        text = opened.page.inner_text("main")
        assert re.search(r"sd \(95 % interval", text) and "HOW THIS WAS MADE" in text.upper()
