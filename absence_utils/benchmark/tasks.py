"""What a method of the benchmark may see: units of one layer of a network, scenes of its world, and no truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from absence_utils.errors import InputError
from absence_utils.images.base import TensorImages
from absence_utils.images.scenes import NORMALISATION, Scenes
from absence_utils.images.worlds import World
from absence_utils.patches.mining import mine_patches
from absence_utils.units import Unit
from absence_utils.visualization.rendering import RenderedPair, render_pairs

from .effects import read

WINDOW = 24  # px, edge of the windows and patches; the largest concept has 21

MapMethod = Callable[["BenchmarkTask", Tensor], Tensor]


@dataclass(frozen=True)
class Windows:
    """Squares of scenes, among which a method looks for what suppresses a unit.

    Attributes:
        scene: [window], number of the scene.
        corner: [window, (top, left)] px.
        shows: [window, concept] bool, whether more than half of a concept's visible pixels lie inside. It is the truth,
            and no method looks at it.
    """

    scene: Tensor
    corner: Tensor
    shows: Tensor

    def __len__(self) -> int:
        return len(self.scene)

    def cut(self, images: Tensor) -> Tensor:
        """The windows out of [scene, ..., height, width]: [window, ..., WINDOW, WINDOW]."""
        return _cut(images, self.scene, self.corner)


def _cut(images: Tensor, scene: Tensor, corner: Tensor) -> Tensor:
    places = zip(scene.tolist(), corner.tolist(), strict=True)
    return torch.stack(
        [images[row, ..., top : top + WINDOW, left : left + WINDOW] for row, (top, left) in places]
    )


@dataclass
class BenchmarkTask:
    """What a method may see.

    Attributes:
        model: in eval mode.
        layer: name of the layer, None for the outputs.
        units: channels of that layer.
        world: of the scenes; it can render others.
        scenes: with the presences and masks of all concepts.
        target: [scene, unit] bool, which scenes are target inputs of which unit.
        detector: network whose outputs are the concepts, for synthesised images.
        seed: of everything a method draws.
        images_for_maps: how many of the scenes map methods look at, and windows are cut from.
        steps: of synthesis.
        memory: what methods share, so that it is computed once.
    """

    model: nn.Module
    layer: str | None
    units: Sequence[int]
    world: World
    scenes: Scenes
    target: Tensor
    detector: nn.Module
    seed: int = 0
    images_for_maps: int = 24
    steps: int = 48
    memory: dict = field(default_factory=dict, repr=False)

    @property
    def concepts(self) -> tuple[str, ...]:
        """Their names, in the order of all concept axes."""
        return self.world.names

    @cached_property
    def images(self) -> Tensor:
        """[scene, channel, height, width] network input."""
        return NORMALISATION.apply(self.scenes.pixels)

    def read(self, images: Tensor) -> Tensor:
        """[image, unit] responses of the chosen units to network input, in the units of the layer, float64."""
        return read(self.model, self.layer, images)[:, list(self.units)]

    @cached_property
    def response(self) -> Tensor:
        """[scene, unit]."""
        return self.read(self.images)

    @cached_property
    def spread(self) -> Tensor:
        """[unit] standard deviation of the response over the scenes."""
        return self.response.std(dim=0).clamp(min=1e-9)

    def unit(self, index: int) -> Unit:
        """The index-th of the chosen units."""
        return Unit(self.model, self.layer, self.units[index])

    def maps(self, method: MapMethod) -> Tensor:
        """[unit, scene, height, width] of the scenes for maps; computed once for each function."""
        if method not in self.memory:
            self.memory[method] = method(self, self.images[: self.images_for_maps]).detach().double().cpu()
        return self.memory[method]

    @cached_property
    def pairs(self) -> list[RenderedPair | None]:
        """Highest and lowest synthesised image of every unit; None for one that is dead on the first noise."""
        units = [self.unit(index) for index in range(len(self.units))]
        pairs = self._pairs(units)
        return pairs or [each for unit in units for each in self._pairs([unit]) or [None]]

    def _pairs(self, units: list[Unit]) -> list[RenderedPair]:
        """Empty if one of the units has no gradient: rectified maps of some are 0 wherever their concept is not."""
        try:
            return render_pairs(units, self.steps, self.images.shape[-1], self.seed)
        except InputError as error:
            if error.parameter != "unit":
                raise
            return []

    @cached_property
    def dataset(self) -> TensorImages:
        """The scenes, all of one class."""
        labels = torch.zeros(len(self.images), dtype=torch.long)
        return TensorImages(self.images, labels, ["scene"], normalisation=NORMALISATION)

    @cached_property
    def book(self):
        """Extreme patches of the layer, WINDOW px at a third of that."""
        return mine_patches(self.model, self.layer, self.dataset, patch=WINDOW, stride=WINDOW // 3, k=8)

    @cached_property
    def windows(self) -> Windows:
        """One window around each concept of the scenes for maps, and as many anywhere in them."""
        masks = self.scenes.masks[: self.images_for_maps]
        scene, concept = masks.any(dim=3).any(dim=2).nonzero().unbind(dim=1)
        around = torch.tensor([square_around(masks[s, c]) for s, c in zip(scene, concept, strict=True)])
        generator = torch.Generator().manual_seed(self.seed)
        room = masks.shape[-1] - WINDOW + 1
        anywhere = torch.randint(room, (len(scene), 2), generator=generator)
        scene, corner = torch.cat((scene, scene)), torch.cat((around, anywhere))
        whole = masks.sum(dim=(2, 3))[scene].clamp(min=1)
        return Windows(scene, corner, _cut(masks, scene, corner).sum(dim=(2, 3)) > 0.5 * whole)


def square_around(mask: Tensor, side: int = WINDOW) -> tuple[int, int]:
    """Top and left of the square around a mask, inside the image, px."""
    rows, columns = (np.flatnonzero(mask.any(dim=axis)) for axis in (1, 0))
    return tuple(
        int(np.clip((line[0] + line[-1] + 2 - side) // 2, 0, len(mask) - side)) for line in (rows, columns)
    )
