"""The explanation methods of the benchmark, each a function of one `BenchmarkTask`.

A method says for every unit and concept how strongly it shows that the concept's *presence lowers* the unit: [unit,
concept], positive for an absence, negative for a presence, NaN where it says nothing (a concept that none of the images
shows cannot be seen to do anything). Only the order and the sign of its numbers count. To add one, write such a
function and put it into `METHODS`, or into a dict of your own.

Methods that draw maps are functions (unit, images [image, channel, height, width], pixels) -> [image, height, width],
signed; `MAPS` holds them, and `on_targets` and `on_non_targets` turn them into methods.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from absence_utils.attribution.methods import METHODS as ATTRIBUTIONS
from absence_utils.attribution.methods import attribute
from absence_utils.images.base import TensorImages
from absence_utils.images.scenes import CONCEPTS, NORMALISATION, Scenes, render_scenes
from absence_utils.insertion.paste import insert_patches
from absence_utils.patches.mining import mine_patches
from absence_utils.patches.tables import concept_coverage
from absence_utils.units import Unit, responses
from absence_utils.visualization.rendering import render_pair

from .effects import read

Method = Callable[["BenchmarkTask"], Tensor]
MapMethod = Callable[[Unit, Tensor, Tensor], Tensor]


@dataclass
class BenchmarkTask:
    """What a method may see: units of one layer of a network, scenes with their masks, and no truth about the units.

    Attributes:
        model: in eval mode.
        layer: name of the layer, None for the outputs.
        units: channels of that layer.
        scenes: with masks [scene, concept, height, width].
        target: [scene, unit] bool, which scenes are target inputs of which unit.
        detector: network whose outputs are the concepts, for synthesised images.
        seed: of everything a method draws.
        images_for_maps: scenes of each side (target, non-target) that map methods look at.
        steps: of synthesis.
    """

    model: nn.Module
    layer: str | None
    units: list[int]
    scenes: Scenes
    target: Tensor
    detector: nn.Module
    seed: int = 0
    images_for_maps: int = 32
    steps: int = 64
    _maps: dict = field(default_factory=dict, repr=False)

    @cached_property
    def images(self) -> Tensor:
        """[scene, channel, height, width] network input."""
        return NORMALISATION.apply(self.scenes.pixels)

    @cached_property
    def response(self) -> Tensor:
        """[scene, unit] signed responses of the chosen units."""
        return read(self.model, self.layer, self.images)[:, self.units]

    @cached_property
    def spread(self) -> Tensor:
        """[unit] standard deviation of the response over the scenes."""
        return self.response.std(dim=0).clamp(min=1e-9)

    def unit(self, index: int) -> Unit:
        """The index-th of the chosen units."""
        return Unit(self.model, self.layer, self.units[index])

    def side(self, index: int, target: bool) -> Tensor:
        """Numbers of the first `images_for_maps` scenes that are, or are not, target inputs of a unit."""
        return (self.target[:, index] == target).nonzero()[: self.images_for_maps, 0]

    def maps(self, name: str, function: MapMethod, index: int, target: bool) -> tuple[Tensor, Tensor]:
        """Scene numbers and maps [image, height, width] of one side of a unit; computed once."""
        key = (name, function, index, target)  # two functions under one name stay two
        if key not in self._maps:
            rows = self.side(index, target)
            self._maps[key] = rows, function(self.unit(index), self.images[rows], self.scenes.pixels[rows])
        return self._maps[key]

    @cached_property
    def pairs(self):
        """Highest and lowest synthesised image of every unit."""
        return [render_pair(self.unit(index), self.steps, self.images.shape[-1], self.seed)
                for index in range(len(self.units))]  # fmt: skip

    @cached_property
    def book(self):
        """Extreme patches of the layer, 24 px at a stride of 8."""
        labels = torch.zeros(len(self.images), dtype=torch.long)
        dataset = TensorImages(self.images, labels, ["scene"], normalisation=NORMALISATION)
        return mine_patches(self.model, self.layer, dataset, patch=24, stride=8, k=8)

    @cached_property
    def insertion_changes(self) -> Tensor:
        """[image, unit, concept, patch], see `_insertion_changes`."""
        return _insertion_changes(self)


# ---------------------------------------------------------------------- maps
def _attribution(name: str, unit: Unit, images: Tensor, pixels: Tensor) -> Tensor:
    return attribute(unit, images, name).sum(dim=1)


def gradient(unit: Unit, images: Tensor, pixels: Tensor) -> Tensor:
    """Sign of the plain input gradient summed over channels, without the input: which way does brighter push?"""
    images = images.detach().clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(unit.response(images).sum(), images)
    return slope.sum(dim=1).sign()


def random_map(unit: Unit, images: Tensor, pixels: Tensor) -> Tensor:
    """Noise: the baseline that knows nothing."""
    generator = torch.Generator().manual_seed(unit.channel)
    return torch.randn(len(images), *images.shape[-2:], generator=generator)


def edges(unit: Unit, images: Tensor, pixels: Tensor) -> Tensor:
    """Minus the strength of edges in the image: a baseline that lies on glyphs and knows nothing of the unit."""
    grey = pixels.mean(dim=1)
    down, right = grey.diff(dim=1, prepend=grey[:, :1]), grey.diff(dim=2, prepend=grey[:, :, :1])
    return -(down.square() + right.square()).sqrt()


MAPS: dict[str, MapMethod] = {name: partial(_attribution, name) for name in ATTRIBUTIONS} | {
    "gradient sign": gradient,
    "random map": random_map,
    "edge detector": edges,
}


def _from_maps(name: str, function: MapMethod, target: bool, subject: BenchmarkTask) -> Tensor:
    """Minus the mean signed sum inside the concept's mask, in sd of the unit, over the images that show it."""
    found = torch.zeros(len(subject.units), len(CONCEPTS), dtype=torch.float64)
    for index in range(len(subject.units)):
        rows, maps = subject.maps(name, function, index, target)
        masks = subject.scenes.masks[rows]
        inside = (maps[:, None].double() * masks).sum(dim=(2, 3))  # [image, concept]
        shown = masks.any(dim=3).any(dim=2).sum(dim=0)
        # 0 / 0, NaN, where no image shows the concept
        found[index] = -inside.sum(dim=0) / shown / subject.spread[index]
    return found


def on_targets(name: str, function: MapMethod) -> Method:
    """The method "map of the unit on its target inputs"."""
    return partial(_from_maps, name, function, True)


def on_non_targets(name: str, function: MapMethod) -> Method:
    """The method "map of the unit on its non-target inputs"."""
    return partial(_from_maps, name, function, False)


# ---------------------------------------------------------------------- synthesis, patches, insertion, probes
def _synthesised(highest: bool, subject: BenchmarkTask) -> Tensor:
    """What a held-out detector of concepts says of the synthesised image, relative to those of the other units.

    The detector is used and not a matched filter on the glyphs: synthesised images repeat and deform glyphs at many
    places and sizes, which a filter of one size misses. Its logits on such images are far from calibrated, so each
    concept's are taken relative to their mean over units.
    """
    pixels = torch.stack([(pair.highest if highest else pair.lowest).image[0] for pair in subject.pairs])
    logits = read(subject.detector, None, NORMALISATION.apply(pixels))
    logits = logits - logits.mean(dim=0)
    return -logits if highest else logits


def _patches(highest: bool, subject: BenchmarkTask) -> Tensor:
    """How much more often than random windows the extreme patches show more than half of a concept."""
    side = subject.book.highest if highest else subject.book.lowest
    shown = (concept_coverage(side, subject.scenes.masks) > 0.5).double().mean(dim=1)[subject.units]
    usual = _random_share(subject)
    return -(shown - usual) if highest else shown - usual


def _random_share(subject: BenchmarkTask) -> Tensor:
    """[concept] how often a window anywhere shows more than half of the concept."""
    size, patch, stride = subject.images.shape[-1], 24, 8
    masks = subject.scenes.masks.double()
    pooled = nn.functional.avg_pool2d(masks, patch, stride) * patch**2  # its pixels in every window
    whole = masks.sum(dim=(2, 3))[..., None, None].clamp(min=1)
    assert pooled.shape[-1] == (size - patch) // stride + 1
    return (pooled / whole > 0.5).double().mean(dim=(0, 2, 3))


def _insertion_changes(subject: BenchmarkTask) -> Tensor:
    """Change of every unit when a crop that shows a concept replaces the same crop without it.

    Returns:
        [image, unit, concept, patch] in sd of the unit.
    """
    images = subject.images[: 2 * subject.images_for_maps]
    found = []
    for column in range(len(CONCEPTS)):
        presence = torch.zeros(4, len(CONCEPTS), dtype=torch.bool)
        presence[:, column] = True
        shown, hidden = (render_scenes(given, 7_000 + subject.seed) for given in (presence, presence & False))
        changes = []
        for number in range(len(presence)):
            top, left = glyph_box(shown.masks[number, column])
            crops = (
                NORMALISATION.apply(scenes.pixels[number, :, top : top + 24, left : left + 24])
                for scenes in (shown, hidden)
            )
            with_it, without = (
                read(subject.model, subject.layer, insert_patches(images, crop, corner="random", seed=number))
                for crop in crops
            )
            changes.append((with_it - without)[:, subject.units] / subject.spread)
        found.append(torch.stack(changes, dim=2))
    return torch.stack(found, dim=2)


def glyph_box(mask: Tensor, side: int = 24) -> tuple[int, int]:
    """Top and left of the square around a mask, inside the image."""
    rows, columns = (mask.any(dim=axis).nonzero()[:, 0] for axis in (1, 0))
    return tuple(
        int(((line.min() + line.max() + 1 - side) // 2).clamp(0, len(mask) - side))
        for line in (rows, columns)
    )


def insertion(subject: BenchmarkTask) -> Tensor:
    """Absence score: minus the mean change over all images, paired with the crop without the concept."""
    return -subject.insertion_changes.mean(dim=(0, 3))


def veto(subject: BenchmarkTask) -> Tensor:
    """Absence score on the unit's target images beyond that of the same crops on its non-target images."""
    changes = subject.insertion_changes
    target = subject.target[: len(changes)].double()[:, :, None]
    drop = -changes.mean(dim=3)
    on, off = ((drop * weight).sum(dim=0) / weight.sum(dim=0).clamp(min=1) for weight in (target, 1 - target))
    return on - off


def concept_probe(subject: BenchmarkTask) -> Tensor:
    """Concept activation vector (Kim et al., ICML 2018): a linear probe for each concept on block4's mean responses;
    minus the derivative of the unit along it. For units of block4 that is the probe's own weight."""
    features = read(subject.model, "block4", subject.images)
    spread = features.std(dim=0).clamp(min=1e-9)
    scaled = ((features - features.mean(dim=0)) / spread).numpy()
    vectors = []
    for column in range(len(CONCEPTS)):
        labels = subject.scenes.presence[:, column].numpy()
        vectors.append(LogisticRegression(C=0.1, max_iter=500).fit(scaled, labels).coef_[0])
    vectors = torch.tensor(np.array(vectors)) * spread  # [concept, channel], in the units of the layer
    if subject.layer == "block4":
        return -(vectors / spread).T[subject.units]
    return -_along(subject, vectors) / subject.spread[:, None]


def _along(subject: BenchmarkTask, vectors: Tensor) -> Tensor:
    """[unit, concept] mean derivative of the units when block4 moves along a vector everywhere."""
    images, kept = subject.images[: 2 * subject.images_for_maps], []
    handle = subject.model.block4.register_forward_hook(lambda _, __, output: kept.append(output))
    try:
        with torch.enable_grad():
            # The first reading of a layer tries it before: the last output kept is that of the pass itself.
            values = responses(subject.model, subject.layer, images.clone().requires_grad_(True))
            slopes = [
                torch.autograd.grad(values[:, unit].sum(), kept[-1], retain_graph=True)[0]
                for unit in subject.units
            ]
    finally:
        handle.remove()
    slopes = torch.stack([slope.sum(dim=(2, 3)).mean(dim=0) for slope in slopes]).double()  # [unit, channel]
    return slopes @ vectors.T


METHODS: dict[str, Method] = (
    {f"{name}, target": on_targets(name, function) for name, function in MAPS.items()}
    | {f"{name}, non-target": on_non_targets(name, function) for name, function in MAPS.items()}
    | {
        "maximisation": partial(_synthesised, True),
        "minimisation": partial(_synthesised, False),
        "highest patches": partial(_patches, True),
        "lowest patches": partial(_patches, False),
        "insertion, absence score": insertion,
        "insertion, veto score": veto,
        "concept probe": concept_probe,
    }
)

GROUPS = {  # methods that differ in detail only
    "attribution on target inputs": [f"{name}, target" for name in ATTRIBUTIONS],
    "attribution on non-target inputs": [f"{name}, non-target" for name in ATTRIBUTIONS],
    "maximisation": ["maximisation"],
    "minimisation": ["minimisation"],
    "highest patches": ["highest patches"],
    "lowest patches": ["lowest patches"],
    "insertion": ["insertion, absence score"],
    "concept probe": ["concept probe"],
    "edge detector": ["edge detector, non-target"],
}
