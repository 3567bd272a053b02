"""A real browser for tests of pages: the Chromium that is installed, cut off from every other host.

The fixture `browser` is in conftest.py. `open_page(browser, path, width, scheme)` opens a file and keeps what went
wrong; the other functions say what is wrong with an open page.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = """--no-sandbox --disable-gpu --disable-dev-shm-usage --disable-background-networking
--disable-component-update --disable-sync --no-first-run""".split()
DESKTOP, PHONE = 1280, 390
HEIGHT = 900
# Fonts are loaded, mathematics is set if there is any, and what that changed is drawn.
SETTLED = """async () => {
    await document.fonts.ready;
    if (window.MathJax?.startup?.promise) await window.MathJax.startup.promise;
    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
}"""


def chromium() -> str | None:
    """Path of the installed Chromium: ABSENCE_CHROMIUM, else the first of the usual names."""
    return os.environ.get("ABSENCE_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def launched():
    """Playwright's Chromium. While it is open, asyncio of this thread belongs to it: close it within one module."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Opened:
    """An open page and what went wrong on it.

    Attributes:
        page: Playwright's page.
        errors: messages of the console at level error, and uncaught exceptions.
        remote: addresses asked for that are neither files nor data.
        failed: files that were asked for and could not be loaded.
    """

    page: object
    errors: list[str] = field(default_factory=list)
    remote: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


@contextmanager
def open_page(browser, path: Path | str, width: int = DESKTOP, scheme: str = "light"):
    """Open a file (or an address, which may have a fragment or a query) and wait until it has settled.

    Args:
        browser: of the fixture.
        path: file, or address beginning with file://.
        width: of the window in px.
        scheme: "light" or "dark", what the reader's system prefers.
    """
    context = browser.new_context(viewport={"width": width, "height": HEIGHT}, color_scheme=scheme)
    opened = Opened(context.new_page())
    opened.page.on("console", lambda message: message.type == "error" and opened.errors.append(message.text))
    opened.page.on("pageerror", lambda error: opened.errors.append(str(error)))
    opened.page.on("requestfailed", lambda request: opened.failed.append(request.url))
    context.route("**/*", lambda route, request: _let_through(route, request, opened))
    try:
        opened.page.goto(path if str(path).startswith("file:") else Path(path).resolve().as_uri())
        opened.page.evaluate(SETTLED)
        yield opened
    finally:
        context.close()


def resize(page, width: int, scheme: str) -> None:
    """Give an open page another width and scheme, and wait until it has settled."""
    page.set_viewport_size({"width": width, "height": HEIGHT})
    page.emulate_media(color_scheme=scheme)
    page.evaluate(SETTLED)


def _let_through(route, request, opened: Opened) -> None:
    if request.url.startswith(("file:", "data:", "blob:", "about:")):
        route.continue_()
    else:
        opened.remote.append(request.url)
        route.abort()


def bad_pictures(page) -> list[str]:
    """Pictures without alternative text (15 characters or more, unless they are decoration) or without a size."""
    pictures = page.eval_on_selector_all(
        "img",
        """async all => Promise.all(all.map(async it => {
            it.loading = 'eager'; await it.decode().catch(() => {});
            return [it.getAttribute('src'), it.alt, it.naturalWidth * it.naturalHeight,
                    it.getAttribute('role') === 'presentation' || it.getAttribute('aria-hidden') === 'true'];
        }))""",
    )
    silent = [
        f"{src}: alternative text {alt!r}" for src, alt, _, quiet in pictures if len(alt) < 15 and not quiet
    ]
    return silent + [f"{src}: no size" for src, _, area, _ in pictures if not area]


def overflow(page) -> list[str]:
    """What reaches beyond the right edge so that the whole page scrolls sideways; empty if the page does not."""
    return page.evaluate(
        """() => {
            const width = document.documentElement.clientWidth;
            if (document.documentElement.scrollWidth <= width + 1) return [];
            const wide = [...document.body.querySelectorAll('*')].filter(
                it => it.getBoundingClientRect().right > width + 1);
            return ['page ' + document.documentElement.scrollWidth + ' px wide',
                    ...wide.slice(0, 5).map(it => it.tagName + '.' + it.className)];
        }"""
    )


def links(page) -> list[str]:
    """Addresses that the page links to, complete."""
    return page.eval_on_selector_all(
        "a[href]", "all => all.map(it => new URL(it.getAttribute('href'), document.baseURI).href)"
    )


def targets(page) -> list[str]:
    """What a fragment can lead to on this page."""
    return page.eval_on_selector_all("[id], a[name]", "all => all.map(it => it.id || it.name)")


def brightness(page, selector: str = "body") -> tuple[float, float]:
    """Brightness, 0..1, of the text and of the background of an element."""
    return tuple(
        page.eval_on_selector(
            selector,
            """it => {
                const light = text => text.match(/[\\d.]+/g).slice(0, 3).reduce((a, b) => a + +b / 765, 0);
                let ground = it;
                const clear = /rgba\\(.*, 0\\)|transparent/;
                while (ground.parentElement && clear.test(getComputedStyle(ground).backgroundColor))
                    ground = ground.parentElement;
                return [light(getComputedStyle(it).color), light(getComputedStyle(ground).backgroundColor)];
            }""",
        )
    )
