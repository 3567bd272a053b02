"""Concept scenes: an embedded world with a known answer (rendered images, exact masks, planted rules).

A scene is a textured background on which glyphs are painted. Each glyph is a *concept*, present or absent
independently of the others:

    A disc   B cross   C ring   D triangle   E bars   F checker   G chevron (no rule uses it: a true zero)

The place, size, tilt and colour of every glyph and the background are drawn from the seed, whether the glyph
is painted or not. Two presence vectors with the same seed therefore give images that differ by the concept and
by nothing else: exact counterfactual pairs.

Concepts never hide each other: the image is a 3 x 3 grid of 21-pixel cells, the concepts of a scene get different
cells (drawn anew for each scene), and a glyph never leaves its cell. Masks are therefore disjoint, and
painting one glyph changes no pixel of another.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .errors import InputError
from .images import Normalisation, TensorImages

SIZE = 64  # height and width of a scene, pixels
CELLS = 3  # the grid is CELLS x CELLS
CELL = SIZE // CELLS  # 21 pixels
RADIUS = (7.0, 9.5)  # radius of the circle around a glyph, pixels; the largest still fits its cell
TILT = 0.25  # largest rotation of a glyph, radians
BACKGROUND = (0.05, 0.55)  # range of the background's pixel values
VALUE = (0.85, 1.0)  # range of a glyph's brightest colour channel: always above the background
FAINTEST = 0.1  # smallest opacity that is painted, so that every pixel of a mask differs visibly
COARSE, FINE = 6, 32  # knots of the background's two noise fields


NORMALISATION = Normalisation((0.35,) * 3, (0.2,) * 3)  # roughly the mean and spread of the pixels


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
    return np.maximum(np.abs(y - 1.2 * np.abs(x) + 0.45) * 0.64 - 0.24, np.maximum(np.abs(x) - 0.72, np.abs(y) - 0.66))


_GLYPHS = {
    "disc": _disc, "cross": _cross, "ring": _ring, "triangle": _triangle,
    "bars": _bars, "checker": _checker, "chevron": _chevron,
}  # fmt: skip
CONCEPTS: tuple[str, ...] = tuple(_GLYPHS)
LETTERS = "ABCDEFG"

# Chosen so that every rule holds in 35 to 65 % of scenes: 0.42, 0.50, 0.65, 0.35, 0.50.
PRESENCE_PROBABILITY = {
    "disc": 0.65, "cross": 0.35, "ring": 0.5, "triangle": 0.5, "bars": 0.3, "checker": 0.5, "chevron": 0.5,
}  # fmt: skip


def _column(presence, concept):
    return presence[..., CONCEPTS.index(concept)]


# Output units in this order. A predicate takes presence [..., concept] bool and returns [...] bool.
RULES: dict[str, Callable] = {
    "disc and not cross": lambda p: _column(p, "disc") & ~_column(p, "cross"),  # A and not B
    "not ring": lambda p: ~_column(p, "ring"),  # not C
    "triangle or bars": lambda p: _column(p, "triangle") | _column(p, "bars"),  # D or E
    "triangle and not bars": lambda p: _column(p, "triangle") & ~_column(p, "bars"),  # D and not E
    "checker": lambda p: _column(p, "checker"),  # F
}


def rule_truth(presence: Tensor) -> Tensor:
    """Truth of every rule: presence [scene, concept] bool -> [scene, rule] bool, in the order of `RULES`."""
    return torch.stack([rule(presence) for rule in RULES.values()], dim=-1)


def planted_effects() -> Tensor:
    """Change of each rule's truth when a concept is added to a scene: [rule, concept], expectation in -1..1.

    Exact, by enumerating all presence vectors with their probabilities. Negative exactly where the rule
    encodes the concept's absence (definition 2.1 of the paper, on the rule instead of the network).
    """
    count = len(CONCEPTS)
    table = (torch.arange(2**count)[:, None] >> torch.arange(count)) & 1 > 0
    chance = torch.tensor([PRESENCE_PROBABILITY[name] for name in CONCEPTS], dtype=torch.float64)
    effects = torch.zeros(len(RULES), count, dtype=torch.float64)
    for index in range(count):
        others = [k for k in range(count) if k != index]
        weight = torch.where(table, chance, 1 - chance)[:, others].prod(dim=1) / 2  # each vector is met twice
        change = rule_truth(_with(table, index, True)).double() - rule_truth(_with(table, index, False)).double()
        effects[:, index] = (weight[:, None] * change).sum(dim=0)
    return effects


def _with(presence: Tensor, index: int, value: bool) -> Tensor:
    changed = presence.clone()
    changed[:, index] = value
    return changed


# -- rendering


@dataclass
class Scenes:
    """Rendered scenes.

    Attributes:
        pixels: [scene, channel=3, height=64, width=64] float32 in 0..1.
        masks: [scene, concept, height, width] bool, the pixels a concept changes; all False where it is absent.
        presence: [scene, concept] bool.
    """

    pixels: Tensor
    masks: Tensor
    presence: Tensor

    def __len__(self) -> int:
        return len(self.pixels)


_DRAWS_PER_GLYPH = 6  # x, y, radius, tilt, hue, value and saturation
_DRAWS = CELLS**2 + 2 + len(CONCEPTS) * _DRAWS_PER_GLYPH + 3 + 5 + 3 * COARSE**2 + FINE**2


def _draws(n: int, seed: int, first: int) -> np.ndarray:
    """Uniform numbers [scene, draw]: rows first..first+n of the endless table that belongs to the seed."""
    generator = np.random.PCG64(seed)
    generator.advance(first * _DRAWS)
    return np.random.Generator(generator).random((n, _DRAWS))


def _interpolation(knots: int) -> np.ndarray:
    """Linear interpolation of `knots` values to SIZE pixels: [pixel, knot]."""
    place = np.linspace(0, knots - 1, SIZE)
    return np.clip(1 - np.abs(place[:, None] - np.arange(knots)), 0, None).astype(np.float32)


def _backgrounds(draw: np.ndarray) -> np.ndarray:
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
    return np.clip(mean + 0.35 * clouds + grating[:, None] + (0.05 + 0.2 * wave[:, 4, None, None, None]) * grain,
                   *BACKGROUND)  # fmt: skip


def _colours(hue: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """Bright saturated colours, hue in 0..1: [scene] -> [scene, channel]; the largest channel is in VALUE."""
    value = VALUE[0] + (VALUE[1] - VALUE[0]) * rest
    saturation = 0.5 + 0.5 * ((rest * 7.0) % 1.0)
    wheel = np.abs((hue[:, None] * 6 + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1
    return value[:, None] * (1 - saturation[:, None] * (1 - np.clip(wheel, 0, 1)))


def _paint(pixels, masks, draw, concept, cell, offset):
    """Paint one concept into pixels [scene, 3, h, w], and its mask [scene, h, w], in place (scenes that show it)."""
    n = len(pixels)
    x, y, radius, tilt, hue, rest = (draw[:, k, None, None] for k in range(_DRAWS_PER_GLYPH))
    radius = RADIUS[0] + (RADIUS[1] - RADIUS[0]) * radius
    slack = CELL / 2 - 0.5 - radius  # how far the centre may move without leaving the cell
    centre_x, centre_y = ((CELL - 1) / 2 + slack * (2 * k - 1) for k in (x, y))
    rows, columns = np.mgrid[:CELL, :CELL]
    u, v = (columns - centre_x) / radius, (rows - centre_y) / radius
    angle = TILT * (2 * tilt - 1)
    u, v = np.cos(angle) * u + np.sin(angle) * v, np.cos(angle) * v - np.sin(angle) * u
    opacity = np.clip(0.5 - radius * _GLYPHS[concept](u, v), 0, 1)
    opacity[opacity < FAINTEST] = 0
    top = (cell // CELLS * CELL + offset[:, 0])[:, None, None] + rows
    left = (cell % CELLS * CELL + offset[:, 1])[:, None, None] + columns
    scene = np.arange(n)[:, None, None]
    opacity = opacity.astype(np.float32)
    colour = _colours(hue[:, 0, 0], rest[:, 0, 0]).astype(np.float32)
    for channel in range(3):
        old = pixels[scene, channel, top, left]
        pixels[scene, channel, top, left] = old + opacity * (colour[:, channel, None, None] - old)
    masks[scene, top, left] = opacity > 0


def render_scenes(presence: Tensor, seed: int, first: int = 0) -> Scenes:
    """Render one scene for each presence vector.

    Scene i depends on `seed`, `first + i` and its own presence vector only, so a batch equals its scenes rendered
    one by one (`first=i`), and the same seed with another presence vector gives the exact counterfactual.

    Args:
        presence: [scene, concept] bool, columns in the order of `CONCEPTS`.
        seed: which endless sequence of scenes.
        first: where in that sequence to start.

    Returns:
        Scenes with pixels in 0..1 and exact, mutually disjoint masks.

    Raises:
        InputError: presence has the wrong shape or type; seed or first is negative.
    """
    presence = torch.as_tensor(presence)
    if presence.ndim != 2 or presence.shape[1] != len(CONCEPTS) or presence.dtype != torch.bool:
        raise InputError("presence", f"got {presence.dtype} of shape {tuple(presence.shape)}",
                         f"Give a boolean [scene, concept] array with {len(CONCEPTS)} columns.")  # fmt: skip
    if seed < 0 or first < 0:
        raise InputError("seed" if seed < 0 else "first", "is negative", "Give an integer of at least 0.")
    n = len(presence)
    draw = _draws(n, seed, first)
    cells, offset, glyphs, background = np.split(
        draw, np.cumsum([CELLS**2, 2, len(CONCEPTS) * _DRAWS_PER_GLYPH]), axis=1)  # fmt: skip
    cells = cells.argsort(axis=1)  # a random order of the cells; concept k takes the k-th
    offset = (offset * (SIZE - CELLS * CELL + 1)).astype(int)
    glyphs = glyphs.reshape(n, len(CONCEPTS), _DRAWS_PER_GLYPH)
    pixels = _backgrounds(background)
    masks = np.zeros((n, len(CONCEPTS), SIZE, SIZE), dtype=bool)
    for index, concept in enumerate(CONCEPTS):
        shown = np.flatnonzero(presence[:, index].numpy())
        part, mask = pixels[shown], masks[shown, index]
        _paint(part, mask, glyphs[shown, index], concept, cells[shown, index], offset[shown])
        pixels[shown], masks[shown, index] = part, mask
    return Scenes(torch.from_numpy(pixels), torch.from_numpy(masks), presence.clone())


def draw_presence(n: int, seed: int) -> Tensor:
    """Independent presence vectors with `PRESENCE_PROBABILITY`: [scene, concept] bool."""
    chance = np.array([PRESENCE_PROBABILITY[name] for name in CONCEPTS])
    return torch.from_numpy(np.random.default_rng([seed, 1]).random((n, len(CONCEPTS))) < chance)


def concept_index(concept: str) -> int:
    """Column of a concept, by its name ("cross") or its letter ("B")."""
    names = {**dict(zip(LETTERS, range(len(LETTERS)))), **{name: k for k, name in enumerate(CONCEPTS)}}
    if concept not in names:
        raise InputError("concept", f"{concept!r} is not known", f"Use one of {', '.join(CONCEPTS)}.")
    return names[concept]


def counterfactual_pairs(concept: str, n: int, seed: int) -> tuple[Scenes, Scenes]:
    """The same n random scenes with and without one concept; they differ in that concept's mask and nowhere else.

    Args:
        concept: its name ("cross") or letter ("B").
        n: number of pairs.
        seed: of the scenes and of the presence of the other concepts.

    Returns:
        (with, without): the mask of the concept is `with.masks[:, concept_index(concept)]`.

    Raises:
        InputError: unknown concept; n below 1.
    """
    index = concept_index(concept)
    if n < 1:
        raise InputError("n", f"{n} pairs", "Ask for at least 1.")
    presence = draw_presence(n, seed)
    return tuple(render_scenes(_with(presence, index, value), seed) for value in (True, False))


def scene_dataset(n: int, seed: int) -> TensorImages:
    """n random scenes as an image dataset, normalised for `ConceptNet`.

    `membership` [scene, rule] is the truth of each rule, `class_names` are the rules. Several rules hold in most
    scenes: `labels` is the first rule that holds, and a scene in which none does gets -1.
    """
    if n < 1:
        raise InputError("n", f"{n} scenes", "Ask for at least 1.")
    scenes = render_scenes(draw_presence(n, seed), seed)
    truth = rule_truth(scenes.presence)
    labels = torch.where(truth.any(dim=1), truth.int().argmax(dim=1), -1)
    images = NORMALISATION.apply(scenes.pixels)
    source = f"concept scenes, n={n}, seed={seed}"
    return TensorImages(images, labels, list(RULES), truth, NORMALISATION, source)


# -- the network


class ConceptNet(nn.Module):
    """Four convolutional blocks and a small head; one logit for each rule.

    `block1` to `block4` are the convolutions themselves, so that reading a block gives its signed values before the
    rectification [batch, channel, height, width]. Every rectification and pooling is a module of its own and used once (DeepLIFT needs
    that), nothing works in place. The hidden layer in the head lets "A and not B" be a veto and not only a sum.

    Input: [batch, channel=3, height=64, width=64], normalised by `normalisation`. Output: [batch, rule] logits.
    """

    normalisation = NORMALISATION

    def __init__(self, outputs: int = len(RULES)):
        super().__init__()
        self.block1, self.relu1 = nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.ReLU()  # 32 x 32
        self.block2, self.relu2, self.pool2 = nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
        self.block3, self.relu3, self.pool3 = nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
        self.block4, self.relu4, self.pool4 = nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d(1)
        self.flatten = nn.Flatten()
        self.hidden, self.relu5 = nn.Linear(64, 64), nn.ReLU()
        self.fc = nn.Linear(64, outputs)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.relu1(self.block1(images))
        maps = self.pool2(self.relu2(self.block2(maps)))
        maps = self.pool3(self.relu3(self.block3(maps)))
        maps = self.pool4(self.relu4(self.block4(maps)))
        return self.fc(self.relu5(self.hidden(self.flatten(maps))))
