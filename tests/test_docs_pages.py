"""The docs in a real browser, from the file system: it opens, links, shows, searches, and asks no other host."""

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

import pytest
from helpers.alone import alone
from helpers.browser import (
    PHONE,
    bad_pictures,
    brightness,
    links,
    open_page,
    overflow,
    resize,
    targets,
)
from helpers.pages import looks

import absence_utils
from absence_utils.paths import NOTEBOOKS, ROOT
from absence_utils.runner.run import all_notebooks, declared_figures, read_notebook

EXECUTED = (
    "01_reichardt_detector",
    "06_extreme_patches",
)  # the rest of the notebooks is shown as it is stored
DESKTOP, TABLET = 1440, 1024
VISITS = {DESKTOP: "light", TABLET: "light", PHONE: "dark"}
OTHERS = (
    "atlas",
    "_downloads",
)  # pages that stand beside the docs: their looks are tested with the code that writes them
ATLAS = (
    '<!DOCTYPE html><html lang="en"><meta name="viewport" content="width=device-width"><title>Atlas</title>{}'
)

at_each_width = pytest.mark.parametrize("width", VISITS)


@pytest.fixture(scope="session")
def site(shared, smoke_run) -> Path:
    """The pages, built once from two notebooks with results, a small atlas, and the rest as it is in the checkout."""
    out = shared / "docs"
    with alone(shared, "built") as done:
        if not done.exists():
            results = shared / "results" / "smoke"
            for name in EXECUTED:
                said, folder = smoke_run(NOTEBOOKS / f"{name}.ipynb")
                assert said["returncode"] == 0, said["stderr"]
                shutil.copytree(folder, results, dirs_exist_ok=True)
            atlas = results / "10_atlas"
            atlas.mkdir(exist_ok=True)
            (atlas / "index.html").write_text(ATLAS.format('<h1>Atlas</h1><a href="unit_0.html">Unit 0</a>'))
            (atlas / "unit_0.html").write_text(ATLAS.format("<h1>Unit 0</h1>"))
            command = [ROOT / "docs" / "build.py", "--results", results, "--out", out]
            built = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True)
            assert built.returncode == 0, built.stderr
            done.write_text(json.dumps({"said": built.stdout, "warned": built.stderr}))
    return out


@pytest.fixture
def survey(site, shared, browser):
    """Every page opened once, seen by a reader at a desk and then, without loading it again, on a tablet and a phone.

    A function of the width; what went wrong while it loaded counts at all of them.
    """
    with alone(shared, "survey") as done:
        if not done.exists():
            found = {width: {} for width in VISITS}
            for path in sorted(site.rglob("*.html")):
                with open_page(browser, path, DESKTOP, VISITS[DESKTOP]) as opened:
                    for width, scheme in VISITS.items():
                        resize(opened.page, width, scheme)
                        found[width][str(path.relative_to(site))] = {
                            "wrong": opened.errors + opened.remote + opened.failed,
                            "overflow": overflow(opened.page),
                            **looks(opened.page),
                        }
                    found[DESKTOP][str(path.relative_to(site))] |= {
                        "pictures": bad_pictures(opened.page),
                        "links": links(opened.page),
                        "targets": targets(opened.page),
                    }
            done.write_text(json.dumps(found))
    found = json.loads(done.read_text())
    return lambda width: found[str(width)]


def of_each(survey: dict[str, dict], what: str) -> dict[str, list]:
    return {name: page[what] for name, page in survey.items() if page[what]}


def test_builds_without_a_warning_and_says_what_it_built(site, shared):
    said = json.loads((shared / "built.json").read_text())
    assert said["warned"] == ""
    pages = len(list(site.rglob("*.html")))
    assert f"{pages} pages" in said["said"]
    assert f"{len(EXECUTED)} notebooks with their results (smoke)" in said["said"]


def test_has_a_page_for_everything(site):
    pages = {str(path.relative_to(site)) for path in site.rglob("*.html")}
    notebooks = [*all_notebooks(), *(NOTEBOOKS / "exercises").glob("*.ipynb")]
    wanted = {str(path.relative_to(ROOT).with_suffix(".html")) for path in notebooks}
    wanted |= {f"{path.stem}.html" for path in (ROOT / "docs").glob("*.md")}
    packages = [path.parent.name for path in (ROOT / "absence_utils").glob("*/__init__.py")]
    wanted |= {f"api/generated/absence_utils.{name}.html" for name in packages if name != "exercises"}
    assert wanted | {"notebooks/exercises/README.html", "atlas/index.html", "atlas/unit_0.html"} <= pages


def test_every_name_of_a_package_stands_on_its_page(site):
    for path in (ROOT / "absence_utils").glob("*/__init__.py"):
        name = f"absence_utils.{path.parent.name}"
        page = site / "api" / "generated" / f"{name}.html"
        if path.parent.name not in ("exercises", "plots"):  # lesson text; figures, imported file by file
            text = page.read_text()
            names = importlib.import_module(name).__all__
            assert [one for one in names if not re.search(rf"\b{one}\b", text)] == [], name


def test_public_names_lead_to_what_documents_them(site):
    page = (site / "api" / "index.html").read_text()
    for name in absence_utils.__all__:
        assert re.search(rf'href="generated/absence_utils[\w.]*\.html#absence_utils[\w.]*\.{name}"', page), (
            name
        )


@at_each_width
def test_pages_open_without_errors_and_ask_no_other_host(survey, width):
    pages = survey(width)
    assert len(pages) > 30 and of_each(pages, "wrong") == {}


def test_pictures_have_alternative_text_and_a_size(survey):
    assert of_each(survey(DESKTOP), "pictures") == {}


@at_each_width
def test_no_page_scrolls_sideways(survey, width):
    assert of_each(survey(width), "overflow") == {}


@at_each_width
@pytest.mark.parametrize("what", ["cut", "small", "uncaptioned", "unlinked"])
def test_no_code_is_cut_no_label_too_small_and_no_picture_without_caption_or_link(survey, width, what):
    pages = {name: page for name, page in survey(width).items() if not name.startswith(OTHERS)}
    assert of_each(pages, what) == {}


def test_looks_sees_what_is_wrong(browser, tmp_path):
    from PIL import Image

    Image.new("RGB", (1500, 300), "white").save(tmp_path / "wide.png", dpi=(200, 200))
    code, picture = (
        f"<pre style='overflow: auto'>x = 1  # {40 * 'long '}</pre>",
        "<img src='wide.png' width='539'>",
    )
    (tmp_path / "page.html").write_text(f"<!DOCTYPE html><article>{code}{picture}</article>")
    with open_page(browser, tmp_path / "page.html", PHONE) as opened:
        found = looks(opened.page)
        assert len(found["cut"]) == 1 and found["small"] == [] and len(found["uncaptioned"]) == 1
        opened.page.eval_on_selector("img", "it => { it.width = 500 }")
        assert len(looks(opened.page)["small"]) == 1 and len(found["unlinked"]) == 1


def test_links_lead_somewhere(survey, site):
    pages, lost, inside = survey(DESKTOP), [], 0
    for name, page in pages.items():
        for link in page["links"]:
            address, fragment = urldefrag(link)
            if not address.startswith("file:"):
                assert address.startswith("https://"), f"{name}: {link}"
                continue
            inside += 1
            path = Path(unquote(urlparse(address).path))
            there = path.is_file() and path.is_relative_to(site.resolve())
            if there and fragment and path.suffix == ".html":
                there = unquote(fragment) in pages[str(path.relative_to(site.resolve()))]["targets"]
            if not there:
                lost.append(f"{name}: {link}")
    assert inside > 1000 and lost == []


def test_start_page_has_every_notebook_with_a_picture(site):
    text = (site / "index.html").read_text()
    for path in all_notebooks():
        assert f'href="notebooks/{path.stem}.html"' in text
    assert text.count("<img") >= 1 + len(all_notebooks())
    menu = r'toctree-l1"><a class="reference internal" href="notebooks/\d\d_\w+\.html">(.*?)</a>'
    titles = re.findall(menu, text)
    assert len(titles) == len(all_notebooks()) and max(map(len, titles)) < 30, "short in the navigation"


def test_the_digit_of_the_start_page_loses_its_strokes(site, browser):
    facts = json.loads((ROOT / "static" / "hero.json").read_text())
    last = len(facts["seen"]) - 1
    with open_page(browser, site / "index.html") as opened:
        slider, seen = opened.page.locator("#hero-slider"), opened.page.locator(".hero-seen")
        slider.focus()
        slider.press("Home")
        for step in range(last + 1):
            opened.page.wait_for_function(f"document.querySelector('#hero-slider').value == '{step}'")
            assert seen.inner_text() == str(facts["seen"][step])
            said = opened.page.locator(".hero-value").all_inner_texts()
            wanted = [facts["responses"][step][facts[name]] for name in ("unit", "source")]
            assert [float(text.replace("\N{MINUS SIGN}", "-")) for text in said] == pytest.approx(
                wanted, abs=0.051
            )
            assert opened.page.locator(".hero-live .gone.shown").count() == step
            slider.press("ArrowRight")
        assert opened.page.locator(".hero-still").is_hidden()


def test_the_digit_stands_still_without_javascript_or_where_motion_is_unwanted(site, browser):
    address = (site / "index.html").resolve().as_uri()
    for options in ({"java_script_enabled": False}, {"reduced_motion": "reduce"}):
        context = browser.new_context(**options)
        try:
            page = context.new_page()
            page.goto(address)
            if "reduced_motion" in options:
                page.wait_for_timeout(1500)  # it would begin after 0.9 s
                assert page.locator("#hero-slider").input_value() == "0"
            else:
                assert page.locator(".hero-still svg").count() == 2 and page.locator(".hero-live").is_hidden()
        finally:
            context.close()


def test_a_lesson_reads_as_an_article(site):
    """The result under the claim, figures with caption and files, glossary words explained, plumbing folded."""
    page = (site / "notebooks" / f"{EXECUTED[0]}.html").read_text()
    claim, result, first = (page.index(text) for text in ("Claim.", 'class="result admonition"', "<figure"))
    assert claim < result < first
    assert page.count("<figcaption") == page.count("<figure")
    assert re.search(r'<a class="glossary-word[^>]*title="[^"]{20,}"', page)
    assert ">Parameters</p>" in page and ">Imports</p>" in page
    for figure in re.findall(r"<figure.*?</figure>", page, re.DOTALL):
        assert figure.count("<img") == 1 and 'class="picture' in figure


def test_notebooks_show_results_or_how_to_get_them(site):
    for path in all_notebooks():
        page = (site / "notebooks" / f"{path.stem}.html").read_text()
        text, figures = re.sub(r"<[^>]+>", "", page), declared_figures(read_notebook(path))
        if path.stem in EXECUTED:
            assert page.count("<img") >= len(figures) and "has not been run here" not in text
            assert "--profile smoke" in text
            assert all(re.search(rf'href="[^"]+/{figure}\.csv"', page) for figure in figures)
        else:
            assert "has not been run here" in text and f"absence_utils.run {path.stem}" in text


def test_search_finds_veto_from_any_page(site, browser):
    with open_page(browser, site / "notebooks" / f"{EXECUTED[1]}.html") as opened:
        opened.page.keyboard.press("Control+k")
        opened.page.locator("input[name=q]:visible").fill("veto")
        opened.page.keyboard.press("Enter")
        opened.page.wait_for_url("**/search.html?q=veto*")
        opened.page.wait_for_function(
            "document.querySelector('.search-summary')?.textContent.includes('found')"
        )
        found = opened.page.eval_on_selector_all("#search-results li a", "all => all.map(it => it.href)")
        assert any("glossary.html#term-veto" in link for link in found), found
        assert any("notebooks/07_patch_insertion.html" in link for link in found), found
        assert opened.errors + opened.remote + opened.failed == []


def test_mathematics_is_typeset(site, browser):
    with open_page(browser, site / "glossary.html") as opened:
        formulas = opened.page.locator(".math").count()
        sizes = opened.page.eval_on_selector_all(
            ".math mjx-container > svg", "all => all.map(it => it.getBoundingClientRect().width)"
        )
        assert formulas > 5 and len(sizes) == formulas and min(sizes) > 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_follows_the_scheme_of_the_reader_and_keeps_pictures_on_white(site, browser, scheme):
    with open_page(browser, site / "notebooks" / f"{EXECUTED[0]}.html", scheme=scheme) as opened:
        for selector in ("body", "article p", ".run-note", ".highlight pre", "nav a"):
            text, ground = brightness(opened.page, selector)
            assert (text > ground) == (scheme == "dark") and abs(text - ground) > 0.3, (
                selector,
                text,
                ground,
            )
        style = opened.page.eval_on_selector(
            "figure img", "it => [getComputedStyle(it).backgroundColor, getComputedStyle(it).filter]"
        )
        assert style == ["rgb(255, 255, 255)", "none"]


def test_atlas_is_one_click_away(site, browser):
    with open_page(browser, site / "atlas.html") as opened:
        opened.page.click("a.atlas-link")
        opened.page.wait_for_url("**/atlas/index.html")
        assert opened.page.title() == "Atlas"
