"""The digit of the start page as HTML: an 8 whose pixels are removed with a slider, or two pictures without a script.

`static/hero.json` holds what is shown; `data/make_hero.py` computes it.
"""

from __future__ import annotations

import json
from html import escape

MINUS = "\N{MINUS SIGN}"
FAINTEST = 0.55  # opacity of the blue where the map is just below 0
PIXEL = '<rect x="{column}" y="{row}" width="1" height="1" fill="rgb({grey},{grey},{grey})"/>'
AGAINST = '<rect class="against" x="{column}" y="{row}" width="1" height="1" fill-opacity="{strength:.2f}"/>'
GONE = '<rect class="gone" data-step="{step}" x="{column}" y="{row}" width="1" height="1"/>'
GONE += '<rect class="trace" data-step="{step}" x="{left}" y="{top}" width="0.84" height="0.84"/>'

PAGE = """<div class="hero" id="hero">
<div class="hero-still">
{before}
{after}
</div>
<div class="hero-live" hidden>
{picture}
<div class="hero-panel">
<p class="hero-verdict" aria-live="polite">The network sees <span class="hero-seen">{source}</span></p>
<div class="hero-logits">
{logits}
</div>
<label for="hero-slider">Pixels removed: <output for="hero-slider">0</output> of {most}</label>
<div class="hero-steps">
<input id="hero-slider" type="range" min="0" max="{most}" value="0" step="1">
<button type="button" class="hero-play">Play</button>
</div>
</div>
</div>
<script type="application/json" id="hero-data">{data}</script>
<script src="_static/hero.js" defer></script>
</div>"""

LOGIT = """<div class="hero-logit" data-class="{digit}"><span>logit {digit}</span>
<div class="hero-track"><div class="hero-bar"></div></div><span class="hero-value">{value}</span></div>"""

STILL = """<figure>{picture}<figcaption>{removed}: seen as <strong>{seen}</strong><br>
logit {unit}: {of_unit}, logit {source}: {of_source}</figcaption></figure>"""


def hero_html(shown: dict) -> str:
    """HTML of the digit, its slider, and the two pictures that a browser without JavaScript shows.

    Args:
        shown: content of static/hero.json.
    """
    unit, source, responses, seen = (shown[name] for name in ("unit", "source", "responses", "seen"))
    stills = []
    for step, removed in ((0, "untouched"), (len(seen) - 1, f"{len(seen) - 1} pixels removed")):
        values = {"of_unit": signed(responses[step][unit]), "of_source": signed(responses[step][source])}
        picture = _picture(shown, step, f"a digit, {removed}, seen as {seen[step]}")
        stills.append(
            STILL.format(
                picture=picture, removed=removed, seen=seen[step], unit=unit, source=source, **values
            )
        )
    logits = [LOGIT.format(digit=digit, value=signed(responses[0][digit])) for digit in (unit, source)]
    alternative = (
        f"A digit of 8 by 8 pixels; blue pixels speak against a {unit}. The slider removes the bluest."
    )
    return PAGE.format(
        before=stills[0],
        after=stills[1],
        picture=_picture(shown, None, alternative),
        source=source,
        logits="\n".join(logits),
        most=len(seen) - 1,
        data=json.dumps({name: shown[name] for name in ("unit", "source", "responses", "seen")}),
    )


def signed(value: float) -> str:
    """A number with its sign and a true minus."""
    return f"{value:+.1f}".replace("-", MINUS)


def _picture(shown: dict, step: int | None, alternative: str) -> str:
    """SVG of the digit, blue where the unit's map is negative; None draws all removals, for the script to show."""
    limit = -min(value for row in shown["map"] for value in row)
    parts = []
    for row, (pixels, values) in enumerate(zip(shown["pixels"], shown["map"], strict=True)):
        for column, (pixel, value) in enumerate(zip(pixels, values, strict=True)):
            parts.append(PIXEL.format(row=row, column=column, grey=round(255 * pixel)))
            if pixel and value < 0:
                parts.append(
                    AGAINST.format(row=row, column=column, strength=FAINTEST - (1 - FAINTEST) * value / limit)
                )
    for number, (row, column) in enumerate(shown["removed"], 1):
        if step is None or number <= step:
            at = {"row": row, "column": column, "left": column + 0.08, "top": row + 0.08}
            parts.append(GONE.format(step=number, **at))
    height, width = len(shown["pixels"]), len(shown["pixels"][0])
    label = escape(alternative, quote=True)
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
