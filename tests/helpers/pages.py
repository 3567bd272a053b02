"""How an open page of the docs looks: code that is cut off, type that is too small, pictures without a caption."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlparse

from PIL import Image

TYPE, LEAST = (
    9,
    8.95,
)  # points of the smallest type in a figure, and the pixels that it must have, rounding aside
# One visit: everything is measured at once, since each question of Playwright's costs.
MEASURE = """async () => {
    document.querySelectorAll('img').forEach(it => { it.loading = 'eager'; });
    await Promise.all([...document.images].map(it => it.decode().catch(() => {})));
    const page = document.querySelector('article') || document.body;
    const seen = it => it.checkVisibility() && it.getBoundingClientRect().width > 0;
    const cut = it => {
        for (; it && it !== page; it = it.parentElement)
            if (it.scrollWidth > it.clientWidth + 1 && getComputedStyle(it).overflowX !== 'visible') return true;
        return false;
    };
    return {
        cut: [...page.querySelectorAll('pre')].filter(it => seen(it) && cut(it)).map(it => it.textContent.slice(0, 60)),
        pictures: [...page.querySelectorAll('img')].filter(seen).map(it => {
            const style = getComputedStyle(it);
            return {
                src: it.src,
                shown: it.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight),
                pixels: it.naturalWidth,
                caption: it.closest('figure')?.querySelector('figcaption')?.textContent.trim() || '',
                card: Boolean(it.closest('.figure-card')),
                link: it.closest('a')?.href || '',
            };
        }),
    };
}"""


def looks(page) -> dict[str, list[str]]:
    """What is wrong with the looks of an open page: lists `cut`, `small`, `uncaptioned` and `unlinked`."""
    found = page.evaluate(MEASURE)
    pictures = found["pictures"]
    small = {it["src"]: type_size(it) for it in pictures}
    return {
        "cut": found["cut"],
        "small": [f"{src[-60:]}: {size:.1f} px" for src, size in small.items() if size < LEAST],
        "uncaptioned": [it["src"][-60:] for it in pictures if not it["caption"] and not it["card"]],
        "unlinked": [it["src"][-60:] for it in pictures if not it["link"]],
    }


def type_size(picture: dict) -> float:
    """Height in CSS pixels of type of 9 pt in a shown picture, from its resolution; 9 where the file says none."""
    dpi = resolution(picture["src"])
    return TYPE * picture["shown"] / (picture["pixels"] / dpi * 72) if dpi else TYPE


@cache
def resolution(address: str) -> float:
    """Dots per inch that a picture's file says, 0 if it says none."""
    path = Path(unquote(urlparse(address).path))
    if not address.startswith("file:") or not path.is_file():
        return 0.0
    with Image.open(path) as picture:
        return float(picture.info.get("dpi", (0,))[0])
