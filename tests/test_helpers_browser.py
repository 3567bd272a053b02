"""The helpers for pages see what is wrong with a page that has it all wrong, and nothing on one that is right."""

import base64

import pytest
from helpers.browser import DESKTOP, PHONE, bad_pictures, brightness, links, open_page, overflow, targets

from absence_utils.paths import ROOT

PICTURE = base64.b64encode((ROOT / "static" / "09_leaderboard.png").read_bytes()).decode()
WRONG = """<!DOCTYPE html><title>wrong</title><body style="margin: 0">
<img src="data:image/png;base64,{picture}" width="50"><img src="gone.png" alt="A picture that is not there">
<div class="wide" style="width: 500px">wide</div>
<script>console.error("said"); document.fonts.ready.then(() => {{ throw new Error("thrown") }});</script>
<script src="https://example.org/remote.js"></script>"""
RIGHT = """<!DOCTYPE html><title>right</title><meta name="color-scheme" content="light dark">
<style>html {{ background: #fff; color: #000 }}
@media (prefers-color-scheme: dark) {{ html {{ background: #000; color: #fff }} }}</style>
<h1 id="top">Right</h1><a href="#top">up</a>
<img src="data:image/png;base64,{picture}" width="50" alt="Bars of the leaderboard, one for each method">
<img src="data:image/png;base64,{picture}" width="50" alt="" role="presentation">
<div style="overflow-x: auto"><div style="width: 3000px">wide, in a box of its own</div></div>"""


@pytest.fixture
def pages(tmp_path):
    for name, text in {"wrong": WRONG, "right": RIGHT}.items():
        (tmp_path / f"{name}.html").write_text(text.format(picture=PICTURE))
    return tmp_path


def test_what_is_wrong_is_seen(pages, browser):
    with open_page(browser, pages / "wrong.html", PHONE) as opened:
        assert {"said", "thrown"} <= set(opened.errors)
        assert opened.remote == ["https://example.org/remote.js"]
        assert any(address.endswith("gone.png") for address in opened.failed)
        silent, empty = bad_pictures(opened.page)
        assert "alternative text ''" in silent and empty == "gone.png: no size"
        said = overflow(opened.page)
        assert said[0] == "page 500 px wide" and "DIV.wide" in said
    with open_page(browser, pages / "wrong.html", DESKTOP) as opened:
        assert overflow(opened.page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_right_is_left_alone(pages, browser, scheme):
    with open_page(browser, pages / "right.html", PHONE, scheme) as opened:
        assert opened.errors + opened.remote + opened.failed == []
        assert bad_pictures(opened.page) + overflow(opened.page) == []
        assert targets(opened.page) == ["top"]
        assert links(opened.page) == [(pages / "right.html").as_uri() + "#top"]
        text, ground = brightness(opened.page, "h1")
        assert (text, ground) == ((0, 1) if scheme == "light" else (1, 0))
