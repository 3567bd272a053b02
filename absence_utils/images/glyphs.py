"""Glyphs and backgrounds: how the pixels of a concept scene are drawn (what the scenes mean is in `scenes`).

Everything random comes from a table of uniform numbers, one row for each scene, that the seed decides.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

SIZE = 64  # height and width of a scene, pixels
CELLS = 3  # the grid is CELLS x CELLS
CELL = SIZE // CELLS  # 21 pixels
RADIUS = (7.0, 9.5)  # radius of the circle around a glyph, pixels; the largest still fits its cell
TILT = 0.25  # largest rotation of a glyph, radians
BACKGROUND = (0.05, 0.55)  # range of the background's pixel values
VALUE = (0.85, 1.0)  # range of a glyph's brightest colour channel: always above the background
FAINTEST = 0.1  # smallest opacity that is painted, so that every pixel of a mask differs visibly
COARSE, FINE = 6, 32  # knots of the background's two noise fields


# -- glyphs: signed distance to the outline (negative inside) in units of the glyph's radius, y downwards


def _box(x, y, half_width, half_height):
    return np.maximum(np.abs(x) - half_width, np.abs(y) - half_height)


def _disc(x, y):
    return np.hypot(x, y) - 0.85


def _cross(x, y):
    return np.minimum(_box(x, y, 0.22, 0.95), _box(x, y, 0.95, 0.22))


def _ring(x, y):
    return np.abs(np.hypot(x, y) - 0.74) - 0.2


def _triangle(x, y):
    return np.maximum(y, np.abs(x) * 0.866 - y * 0.5) - 0.48


def _bars(x, y):
    return np.minimum(_box(x, y, 0.66, 0.14), _box(x, np.abs(y) - 0.58, 0.66, 0.14))


def _checker(x, y):
    return np.minimum(_box(x, y, 0.23, 0.23), _box(np.abs(x) - 0.46, np.abs(y) - 0.46, 0.23, 0.23))


def _chevron(x, y):
    return np.maximum(np.abs(y - 1.2 * np.abs(x) + 0.45) * 0.64 - 0.24, _box(x, y, 0.72, 0.66))


GLYPHS = {
    "disc": _disc, "cross": _cross, "ring": _ring, "triangle": _triangle,
    "bars": _bars, "checker": _checker, "chevron": _chevron,
}  # fmt: skip


# -- rendering

DRAWS_PER_GLYPH = 6  # x, y, radius, tilt, hue, value and saturation
DRAWS = CELLS**2 + 2 + len(GLYPHS) * DRAWS_PER_GLYPH + 3 + 5 + 3 * COARSE**2 + FINE**2


def draws(n: int, seed: int, first: int, width: int = DRAWS) -> np.ndarray:
    """Uniform numbers [scene, draw]: rows first..first+n of the endless table that belongs to the seed and width."""
    generator = np.random.PCG64(seed if width == DRAWS else [seed, width])
    generator.advance(first * width)
    return np.random.Generator(generator).random((n, width))


def _interpolation(knots: int) -> np.ndarray:
    """Linear interpolation of `knots` values to SIZE pixels: [pixel, knot]."""
    place = np.linspace(0, knots - 1, SIZE)
    return np.clip(1 - np.abs(place[:, None] - np.arange(knots)), 0, None).astype(np.float32)


def backgrounds(draw: np.ndarray) -> np.ndarray:
    """Coloured clouds, a faint grating and fine grain: draw [scene, *] -> [scene, channel, height, width]."""
    n = len(draw)
    colour, wave, coarse, fine = np.split(draw.astype(np.float32), np.cumsum([3, 5, 3 * COARSE**2]), axis=1)
    up = _interpolation(COARSE)
    clouds = up @ (coarse.reshape(n, 3, COARSE, COARSE) - 0.5) @ up.T
    up = _interpolation(FINE)
    grain = up @ (fine.reshape(n, 1, FINE, FINE) - 0.5) @ up.T
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    angle, frequency = wave[:, 0] * np.pi, 0.15 + 0.45 * wave[:, 1]  # radians per pixel
    along = np.cos(angle)[:, None, None] * x + np.sin(angle)[:, None, None] * y
    grating = np.sin(frequency[:, None, None] * along + 2 * np.pi * wave[:, 2, None, None])
    grating *= (0.06 * wave[:, 3])[:, None, None]
    mean = 0.2 + 0.2 * colour[:, :, None, None]
    grain *= 0.05 + 0.2 * wave[:, 4, None, None, None]
    return np.clip(mean + 0.35 * clouds + grating[:, None] + grain, *BACKGROUND)


def plain_colours(u, v, hue: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """One bright saturated colour each, hue in 0..1: [scene, channel, 1, 1]; the largest channel is in VALUE."""
    value = VALUE[0] + (VALUE[1] - VALUE[0]) * rest
    saturation = 0.5 + 0.5 * ((rest * 7.0) % 1.0)
    wheel = np.abs((hue[:, None] * 6 + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1
    colour = value[:, None] * (1 - saturation[:, None] * (1 - np.clip(wheel, 0, 1)))
    return colour.astype(np.float32)[:, :, None, None]


class Look(NamedTuple):
    """How a concept is painted.

    Attributes:
        outline: signed distance at (u, v), negative inside, both in units of the radius.
        colours: of (u, v, hue [scene], rest [scene]): [scene, channel, height or 1, width or 1].
        tilt: largest rotation, radians.
    """

    outline: Callable
    colours: Callable
    tilt: float = TILT


def paint(pixels, masks, index: int, draw, look: Look, corner, radius=RADIUS, hides: bool = False):
    """Paint one concept, in place, into every scene given.

    Args:
        pixels: [scene, channel, height, width].
        masks: [scene, concept, height, width] bool; that of the concept is all False before.
        index: column of the concept.
        draw: [scene, DRAWS_PER_GLYPH] in 0..1: place, size, tilt and colour.
        look: see `Look`.
        corner: [scene, (top, left)] of the cell, px.
        radius: smallest and largest, px.
        hides: it may lie on earlier ones. What it hides is taken out of their masks, and nothing of it is left, not
            even by rounding.
    """
    n = len(pixels)
    x, y, size, tilt, hue, rest = (draw[:, k, None, None] for k in range(DRAWS_PER_GLYPH))
    size = radius[0] + (radius[1] - radius[0]) * size
    slack = CELL / 2 - 0.5 - size  # how far the centre may move without leaving the cell
    centre_x, centre_y = ((CELL - 1) / 2 + slack * (2 * k - 1) for k in (x, y))
    rows, columns = np.mgrid[:CELL, :CELL]
    u, v = (columns - centre_x) / size, (rows - centre_y) / size
    angle = look.tilt * (2 * tilt - 1)
    u, v = np.cos(angle) * u + np.sin(angle) * v, np.cos(angle) * v - np.sin(angle) * u
    opacity = np.clip(0.5 - size * look.outline(u, v), 0, 1)
    opacity[opacity < FAINTEST] = 0
    top, left = (corner[:, axis, None, None] + line for axis, line in enumerate((rows, columns)))
    scene = np.arange(n)[:, None, None]
    opacity = opacity.astype(np.float32)
    colour = look.colours(u, v, hue[:, 0, 0], rest[:, 0, 0]).astype(np.float32)
    for channel in range(3):
        old = pixels[scene, channel, top, left]
        new = old + opacity * (colour[:, channel] - old)
        pixels[scene, channel, top, left] = np.where(opacity < 1, new, colour[:, channel]) if hides else new
    for earlier in range(index if hides else 0):
        masks[scene, earlier, top, left] &= opacity < 1
    masks[scene, index, top, left] = opacity > 0
