"""The atlas and the cards in a real browser: from the file system, offline, on a desktop and on a phone."""

import pytest
from helpers.browser import DESKTOP, PHONE, bad_pictures, open_page, overflow

from absence_utils.attribution.columns import matrix_columns
from absence_utils.your_model.cards import CardOptions, collect_cards
from absence_utils.your_model.html import write_atlas

EFFORT = CardOptions(shown=3, steps=2, facets=1, maps=1, evidence_images=40)
SEARCH = "input[type=search]"


@pytest.fixture(scope="module")
def atlas(layer_study, tmp_path_factory):
    study, dataset = layer_study
    cards = collect_cards(study, dataset, matrix_columns(dataset), range(5), EFFORT, {"network": "scenes"})
    return write_atlas(cards, study, tmp_path_factory.mktemp("atlas"), "Rules of the scenes")


def shown(page) -> list[int]:
    """Units of the rows that can be seen, in the order in which they stand."""
    page.wait_for_selector(SEARCH)
    return [int(link.inner_text()) for link in page.query_selector_all("#units tbody a")]


def heading(page, name):
    return page.locator(".dt-scroll-head th", has_text=name)


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_pages_open_offline_and_fit_the_screen(browser, atlas, width):
    for path in (atlas[0], atlas[2]):
        with open_page(browser, path, width) as opened:
            if path is atlas[0]:
                assert len(shown(opened.page)) == 5
            assert not (opened.errors or opened.remote or opened.failed)
            assert not bad_pictures(opened.page) and not overflow(opened.page)


def test_every_link_leads_to_a_file(browser, atlas):
    names = {path.as_uri() for path in atlas}
    for path in atlas:
        with open_page(browser, path) as opened:
            if path is atlas[0]:
                assert shown(opened.page) == [0, 1, 2, 3, 4]
            seen = [link for link in opened.page.query_selector_all("a[href]") if link.is_visible()]
            assert seen and {link.evaluate("it => it.href") for link in seen} <= names


def test_search_finds_units_classes_and_verdicts(browser, atlas, layer_study):
    verdicts = layer_study[0].verdicts.set_index("unit")["verdict"]
    with open_page(browser, atlas[0]) as opened:
        page = opened.page
        assert len(shown(page)) == 5
        page.fill(SEARCH, "not ring")
        assert 1 in shown(page)
        page.fill(SEARCH, "zebra")
        assert shown(page) == []
        for verdict in verdicts.unique():
            page.fill(SEARCH, verdict)
            assert shown(page) == verdicts.index[verdicts == verdict].tolist()


@pytest.mark.parametrize("key", ["absence", "veto", "presence"])
def test_sorted_by_a_score(browser, atlas, layer_study, key):
    table = layer_study[0].verdicts.round(2).sort_values(key, kind="stable")
    with open_page(browser, atlas[0]) as opened:
        shown(opened.page)
        heading(opened.page, f"{key} score").click()
        assert shown(opened.page) == table["unit"].tolist()


def test_a_card_is_one_click_away_and_back_finds_the_same_list(browser, atlas):
    with open_page(browser, atlas[0]) as opened:
        page = opened.page
        shown(page)
        heading(page, "absence score").click()
        page.fill(SEARCH, "ring")
        before = shown(page)
        page.click("#units tbody a")
        page.wait_for_selector("h1:has-text('unit')")
        assert f"unit {before[0]}" in page.inner_text("h1") and page.is_visible(".verdict")
        page.go_back()
        assert shown(page) == before and page.input_value(SEARCH) == "ring"


def test_neighbours_of_a_card(browser, atlas):
    with open_page(browser, atlas[2]) as opened:
        opened.page.click("a[rel=next]")
        opened.page.wait_for_function("document.querySelector('h1').innerText.includes('unit 2')")
        opened.page.click("a[rel=prev]")
        opened.page.wait_for_function("document.querySelector('h1').innerText.includes('unit 1')")


def test_drawings_of_a_card_are_readable_on_a_phone(browser, atlas):
    with open_page(browser, atlas[2], PHONE) as opened:
        sizes = opened.page.eval_on_selector_all(
            "img", "all => all.map(it => it.getBoundingClientRect().width)"
        )
        assert len(sizes) == 3 + 2 * 4 and min(sizes) > 0.85 * PHONE
