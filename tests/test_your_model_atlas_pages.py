"""The atlas and the cards in a real browser: from the file system, offline, on a desktop and on a phone."""

import re

import pandas as pd
import pytest
from helpers.browser import DESKTOP, PHONE, bad_pictures, links, open_page, overflow, targets

from absence_utils.attribution.columns import matrix_columns
from absence_utils.your_model.atlas import write_atlas
from absence_utils.your_model.cards import CardOptions, collect_cards
from absence_utils.your_model.offer import Naming

EFFORT = CardOptions(shown=3, steps=2, facets=1, maps=1, evidence_images=40)
SEARCH = "input[type=search]"
CONCEPTS_PUT_IN = pd.DataFrame({
    "concept": ["ring"], "effect": [-1.9], "low": [-2.1], "high": [-1.7], "confirmed": [True],
})  # fmt: skip
LINE = "Silenced by ring (confirmed: −1.9 sd [−2.1, −1.7], 6 of 6 lowest patches)"
NAMED = {1: Naming(LINE, CONCEPTS_PUT_IN, "How it was tested.")}


@pytest.fixture(scope="module")
def atlas(layer_study, tmp_path_factory):
    study, dataset = layer_study
    columns, about = matrix_columns(dataset), {"network": "scenes"}
    cards = collect_cards(study, dataset, columns, range(5), EFFORT, about, NAMED)
    return write_atlas(cards, study, tmp_path_factory.mktemp("atlas"), "Rules of the scenes")


def tiles(page) -> list[int]:
    """Units of the tiles that can be seen, in the order in which they stand."""
    return page.eval_on_selector_all(
        ".tile", "all => all.filter(it => it.checkVisibility()).map(it => +it.dataset.unit)"
    )


def rows(page) -> list[int]:
    """Units of the rows of the table, which is folded away."""
    page.click("#all summary")
    page.wait_for_selector(SEARCH)
    return [int(link.inner_text()) for link in page.query_selector_all("#units tbody a")]


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_pages_open_offline_and_fit_the_screen(browser, atlas, width):
    for path in (atlas[0], atlas[2]):
        with open_page(browser, path, width) as opened:
            if path is atlas[0]:
                assert len(tiles(opened.page)) == 5 and rows(opened.page) == [0, 1, 2, 3, 4]
            assert not (opened.errors or opened.remote or opened.failed)
            assert not bad_pictures(opened.page) and not overflow(opened.page)


def test_every_link_leads_to_a_file_or_a_tile(browser, atlas):
    names = {path.as_uri() for path in atlas} | {(atlas[0].parent / "units.csv").as_uri()}
    for path in atlas:
        with open_page(browser, path) as opened:
            own = {f"#{name}" for name in targets(opened.page)}
            index = {f"#unit-{unit}" for unit in range(5)}
            shown = [
                link for link in links(opened.page) if "itables" not in link
            ]  # for those without scripts
            for link in shown:
                file, mark, fragment = link.partition("#")
                assert file in names and (not mark or f"#{fragment}" in (own if path is atlas[0] else index))


def test_search_and_filter_find_tiles_and_their_points(browser, atlas, layer_study):
    said = layer_study[0].decisions.set_index("unit")["decision"]
    with open_page(browser, atlas[0]) as opened:
        page = opened.page
        for words, found in {"Silenced by ring": [1], "not ring": [1], "3": [3], "zebra": []}.items():
            page.fill("#find", words)
            assert tiles(page) == found and page.inner_text("#count") == f"{len(found)} of 5"
            seen = page.eval_on_selector_all(
                "svg a[id]", "all => all.filter(it => it.checkVisibility()).length"
            )
            assert seen == len(found) and page.is_visible("#nothing") == (not found)
        page.fill("#find", "")
        for decision in said.unique():
            page.select_option("#decision", f"signed: {decision}")
            assert sorted(tiles(page)) == said.index[said == decision].tolist()


def test_tiles_are_put_in_order(browser, atlas, layer_study):
    effects = layer_study[0].decisions.set_index("unit")["effect"]
    with open_page(browser, atlas[0]) as opened:
        page = opened.page
        strongest = tiles(page)
        page.select_option("#order", "unit")
        assert tiles(page) == [0, 1, 2, 3, 4]
        page.select_option("#order", label="signed effect")
        assert tiles(page) == effects.sort_values(ascending=False).index.tolist()
        page.select_option("#order", "")
        assert tiles(page) == strongest


def test_a_point_is_reached_by_key_and_leads_to_its_tile(browser, atlas):
    with open_page(browser, atlas[0]) as opened:
        page = opened.page
        page.focus("#point-3")
        page.keyboard.press("Enter")
        assert page.evaluate("document.querySelector('.tile:target').id") == "unit-3"
        assert page.evaluate(
            "(at => at.top >= 0 && at.bottom <= innerHeight)(document.querySelector(':target').getBoundingClientRect())"
        )


def test_a_card_is_one_click_away_and_back_finds_the_same_tiles(browser, atlas):
    with open_page(browser, atlas[0]) as opened:
        page = opened.page
        page.select_option("#order", "unit")
        page.fill("#find", "ring")
        before = tiles(page)
        page.click(f"#unit-{before[0]} a")
        page.wait_for_selector("h1:has-text('unit')")
        assert f"unit {before[0]}" in page.inner_text("h1") and page.is_visible(".answer")
        page.click("text=All units")
        page.wait_for_selector("#find")
        assert tiles(page) == before and page.input_value("#find") == "ring"
        assert page.url.endswith(f"#unit-{before[0]}")


def test_the_synthesised_image_shows_under_the_pointer(browser, atlas):
    shown = "getComputedStyle(document.querySelector('#unit-1 .synthesis')).opacity"
    with open_page(browser, atlas[0]) as opened:
        assert opened.page.evaluate(shown) == "0"
        opened.page.hover("#unit-1 a")
        assert opened.page.evaluate(shown) == "1"


def test_the_table_is_searched_and_sorted(browser, atlas, layer_study):
    table = layer_study[0].decisions.round(2).sort_values("effect", kind="stable")
    with open_page(browser, atlas[0]) as opened:
        page = opened.page
        assert rows(page) == [0, 1, 2, 3, 4]
        page.locator(".dt-scroll-head th", has_text="signed effect").click()
        shown = "() => [...document.querySelectorAll('#units tbody a')].map(link => Number(link.innerText))"
        # the table draws itself when the browser gets to it
        page.wait_for_function(f"wanted => `${{({shown})()}}` === `${{wanted}}`", arg=table["unit"].tolist())
        page.fill(SEARCH, "Silenced by ring")
        page.wait_for_function(f"() => ({shown})().length === 1")


def test_neighbours_of_a_card(browser, atlas):
    with open_page(browser, atlas[2]) as opened:
        opened.page.click("a[rel=next]")
        opened.page.wait_for_function("document.querySelector('h1').innerText.includes('unit 2')")
        opened.page.click("a[rel=prev]")
        opened.page.wait_for_function("document.querySelector('h1').innerText.includes('unit 1')")


def test_a_card_prints_on_one_page(browser, atlas):
    with open_page(browser, atlas[2]) as opened:
        printed = opened.page.pdf(prefer_css_page_size=True)
        assert len(re.findall(rb"/Type\s*/Page\b", printed)) == 1


def test_drawings_of_a_card_are_readable_on_a_phone(browser, atlas):
    with open_page(browser, atlas[2], PHONE) as opened:
        sizes = opened.page.eval_on_selector_all(
            "img", "all => all.map(it => it.getBoundingClientRect().width)"
        )
        assert len(sizes) == 3 + 2 * 4 + 1 and min(sizes) > 0.85 * PHONE
