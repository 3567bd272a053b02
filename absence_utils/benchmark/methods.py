"""The explanation methods of the benchmark.

A method says for every unit and concept how strongly it shows that the concept's *presence lowers* the unit: [unit,
concept], positive for an absence, negative for a presence, NaN where it says nothing (a concept that none of the images
shows cannot be seen to do anything). It may also rank windows of scenes by that ([unit, window], task "find"), and draw
maps (task "where"). Only order and sign count. To add one of your own see docs/benchmark.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from sklearn.linear_model import LinearRegression
from torch import Tensor

from absence_utils.images.base import TensorImages
from absence_utils.images.scenes import NORMALISATION
from absence_utils.insertion.paste import insert_patches
from absence_utils.naming import name_absence, rendered_concepts
from absence_utils.patches.tables import concept_coverage

from .effects import read
from .maps import MAPS
from .probes import concept_probe, tcav
from .tasks import WINDOW, BenchmarkTask, MapMethod, square_around

Answer = Callable[[BenchmarkTask], Tensor]
SIDES = ("target", "non-target", "all")
CROPS = 4  # of each concept that are inserted
HOSTS = 16  # scenes that things are inserted into
DONORS, MIXED = 96, 64  # scenes that naming cuts its donors from, and mixes into
PUSHED, PUSH_STEPS, PUSH_RATE = 12, 30, 0.05  # of pertinent negatives: images, steps, pixel range
SPARSE = 0.1  # weight of the l1 norm there, sd of the unit for a mean change of 1


@dataclass(frozen=True)
class Method:
    """An explanation method.

    Attributes:
        concepts: task -> [unit, concept], see the top of this module.
        windows: task -> [unit, window of `BenchmarkTask.windows`], the same for windows; None if it cannot.
        maps: see `maps`; None if it draws none.
    """

    concepts: Answer
    windows: Answer | None = None
    maps: MapMethod | None = None


# -- maps


def inside_masks(maps: MapMethod, side: str, task: BenchmarkTask) -> Tensor:
    """Minus the mean signed sum inside the concept's mask, in sd of the unit, over the scenes of a side that show it.

    Args:
        side: "target" or "non-target" inputs of the unit, or "all".
    """
    drawn, scenes = task.maps(maps), task.scenes
    masks = scenes.masks[: drawn.shape[1]]
    inside = torch.einsum("ushw,schw->usc", drawn, masks.double())
    shown = masks.any(dim=3).any(dim=2)[None].expand_as(inside)
    target = task.target[: drawn.shape[1]].T[:, :, None]
    shown = {"target": shown & target, "non-target": shown & ~target, "all": shown}[side].double()
    return -(inside * shown).sum(dim=1) / shown.sum(dim=1) / task.spread[:, None]  # 0 / 0 is NaN


def inside_windows(maps: MapMethod, task: BenchmarkTask) -> Tensor:
    """Minus the signed sum inside each window, in sd of the unit."""
    cut = task.windows.cut(task.maps(maps).transpose(0, 1))  # [window, unit, height, width]
    return -cut.sum(dim=(2, 3)).T / task.spread[:, None]


def method_of_maps(maps: MapMethod, side: str) -> Method:
    """A map method that is read on one side."""
    whole = side == "all"
    return Method(
        partial(inside_masks, maps, side),
        partial(inside_windows, maps) if whole else None,
        maps if whole else None,
    )


# -- synthesis and patches


def synthesised(highest: bool, task: BenchmarkTask) -> Tensor:
    """What a held-out detector of concepts says of the synthesised image, relative to all that were synthesised.

    The detector is used and not a matched filter: synthesised images repeat and deform concepts at many places and
    sizes, which a filter of one size misses. Its logits on such images are far from calibrated, so each concept's are
    taken relative to their mean over the highest and lowest images of all units. NaN for a unit that has no image.
    """
    found = torch.full((len(task.units), len(task.concepts)), torch.nan, dtype=torch.float64)
    alive = [index for index, pair in enumerate(task.pairs) if pair is not None]
    if alive:
        poles = [[pair.highest, pair.lowest] for pair in (task.pairs[index] for index in alive)]
        pixels = torch.stack([pole.image[0] for pair in poles for pole in pair])
        logits = read(task.detector, None, NORMALISATION.apply(pixels))
        relative = (logits - logits.mean(dim=0)).view(len(alive), 2, -1)
        found[alive] = -relative[:, 0] if highest else relative[:, 1]
    return found


def extreme_patches(highest: bool, task: BenchmarkTask) -> Tensor:
    """How much more often than windows anywhere the extreme patches show more than half of a concept."""
    side = task.book.highest if highest else task.book.lowest
    shown = (concept_coverage(side, task.scenes.masks) > 0.5).double().mean(dim=1)[list(task.units)]
    anywhere = torch.nn.functional.avg_pool2d(task.scenes.masks.double(), WINDOW, WINDOW // 3) * WINDOW**2
    whole = task.scenes.masks.double().sum(dim=(2, 3))[..., None, None].clamp(min=1)
    usual = (anywhere / whole > 0.5).double().mean(dim=(0, 2, 3))
    return -(shown - usual) if highest else shown - usual


def response_to_windows(highest: bool, task: BenchmarkTask) -> Tensor:
    """Minus the response to each window by itself (plus, for highest patches), in sd of the unit."""
    found = task.read(task.windows.cut(task.images)).T / task.spread[:, None]
    return found if highest else -found


def pertinent_negatives(task: BenchmarkTask) -> Tensor:
    """What must be added to target inputs to end the response, as a held-out detector of concepts sees it.

    After the pertinent negatives of Dhurandhar et al. (Explanations based on the missing, NeurIPS 2018), for a unit in
    the place of a class: descend on the response plus a penalty on the size of the change, within the pixel range.
    NaN for a unit that has no target inputs.
    """
    found = torch.full((len(task.units), len(task.concepts)), torch.nan, dtype=torch.float64)
    for index in range(len(task.units)):
        start = task.scenes.pixels[task.target[:, index]][:PUSHED]
        if len(start) == 0:
            continue
        change, unit = torch.zeros_like(start, requires_grad=True), task.unit(index)
        optimiser = torch.optim.Adam([change], lr=PUSH_RATE)
        for _ in range(PUSH_STEPS):
            value = (
                unit.response(NORMALISATION.apply((start + change).clamp(0, 1))).sum() / task.spread[index]
            )
            penalty = SPARSE * change.abs().mean(dim=(1, 2, 3)).sum()
            optimiser.zero_grad()
            (value + penalty).backward()
            optimiser.step()
        ended = (start + change.detach()).clamp(0, 1)
        after, before = (read(task.detector, None, NORMALISATION.apply(each)) for each in (ended, start))
        found[index] = (after - before).mean(dim=0)
    return found


# -- insertion and naming


def _changes(task: BenchmarkTask) -> Tensor:
    """Change of every unit when a crop that shows a concept replaces the same crop without it.

    Returns:
        [image, unit, concept, crop] in sd of the unit.
    """
    if "insertion" not in task.memory:
        task.memory["insertion"] = torch.stack(
            [_changes_by(task, column) for column in range(len(task.concepts))], dim=2
        )
    return task.memory["insertion"]


def _changes_by(task: BenchmarkTask, column: int) -> Tensor:
    presence = torch.zeros(CROPS, len(task.concepts), dtype=torch.bool)
    presence[:, column] = True
    shown, hidden = (task.world.render(given, 7_000 + task.seed) for given in (presence, presence & False))
    changes = []
    for number in range(CROPS):
        top, left = square_around(shown.masks[number, column])
        with_it, without = (
            task.read(insert_patches(task.images[:HOSTS], crop, corner="random", seed=number))
            for crop in (
                NORMALISATION.apply(scenes.pixels[number, :, top : top + WINDOW, left : left + WINDOW])
                for scenes in (shown, hidden)
            )
        )
        changes.append((with_it - without) / task.spread)
    return torch.stack(changes, dim=2)


def insertion(task: BenchmarkTask) -> Tensor:
    """Absence score: minus the mean change over all images, paired with the crop without the concept."""
    return -_changes(task).mean(dim=(0, 3))


def veto(task: BenchmarkTask) -> Tensor:
    """Absence score on the unit's target images beyond that of the same crops on its non-target images.

    NaN for a unit without images of either.
    """
    drop = -_changes(task).mean(dim=3)
    target = task.target[: len(drop)].double()[:, :, None]
    on, off = ((drop * weight).sum(dim=0) / weight.sum(dim=0) for weight in (target, 1 - target))
    return on - off  # NaN from 0 / 0


def insert_windows(task: BenchmarkTask) -> Tensor:
    """Minus the mean change when a window is inserted into scenes, in sd of the unit; all at the same places."""
    hosts = task.images[-HOSTS:]
    before = task.read(hosts)
    found = [
        (before - task.read(insert_patches(hosts, crop, corner="random", seed=task.seed))).mean(dim=0)
        for crop in task.windows.cut(task.images)
    ]
    return (torch.stack(found) / task.spread).T


def naming(task: BenchmarkTask) -> Tensor:
    """What `naming.name_absence` measures of each name with crops from scenes of its own: minus the effect, in sd,
    against that control, a patch of the mean colour or a scrambled copy, which is less in favour."""
    own = task.world.render(task.world.draw_presence(DONORS, 8_000 + task.seed), 8_000 + task.seed)
    concepts = rendered_concepts(own, list(task.concepts))
    images = task.images[-MIXED:]
    labels = torch.zeros(len(images), dtype=torch.long)
    hosts = TensorImages(images, labels, ["scene"], normalisation=NORMALISATION)
    found = name_absence(
        task.model, task.layer, hosts, concepts, units=list(task.units), repeat=False, seed=task.seed
    )
    effects = found.effects[found.effects.reading == "signed"]
    wide = effects.pivot(index="unit", columns="name", values="effect")
    return -torch.tensor(wide.reindex(index=task.units, columns=task.concepts).to_numpy())


# -- baselines that explain nothing


def difference_by_label(task: BenchmarkTask) -> Tensor:
    """Mean response of scenes without a concept minus that of scenes with it, in sd: no explanation, an observation."""
    presence = task.scenes.presence.double()
    shown, hidden = (task.response.T @ each / each.sum(dim=0) for each in (presence, 1 - presence))
    return (hidden - shown) / task.spread[:, None]


def regression_on_labels(task: BenchmarkTask) -> Tensor:
    """Minus the coefficients of the response regressed on the presence of all concepts, in sd."""
    fit = LinearRegression().fit(task.scenes.presence.double().numpy(), task.response.numpy())
    return -torch.from_numpy(np.atleast_2d(fit.coef_)) / task.spread[:, None]


METHODS: dict[str, Method] = {
    f"{name}, {side}": method_of_maps(maps, side) for name, maps in MAPS.items() for side in SIDES
} | {
    "maximisation": Method(partial(synthesised, True)),
    "minimisation": Method(partial(synthesised, False)),
    "highest patches": Method(partial(extreme_patches, True), partial(response_to_windows, True)),
    "lowest patches": Method(partial(extreme_patches, False), partial(response_to_windows, False)),
    "pertinent negatives": Method(pertinent_negatives),
    "insertion, absence score": Method(insertion, insert_windows),
    "insertion, veto score": Method(veto),
    "naming": Method(naming),
    "concept probe": Method(concept_probe),
    "tcav": Method(tcav),
    "difference by label": Method(difference_by_label),
    "regression on labels": Method(regression_on_labels),
}  # fmt: skip

BASELINES = ("random_map", "edge_detector")
GROUPS = {  # of the figure; what is in none is in the table alone
    "attribution on target inputs": [f"{name}, target" for name in MAPS if name not in BASELINES],
    "attribution on non-target inputs": [f"{name}, non-target" for name in MAPS if name not in BASELINES],
    "feature visualisation by minimisation": ["minimisation", "lowest patches", "pertinent negatives"],
    "insertion and naming": ["insertion, absence score", "naming"],
    "labels alone, no explanation": ["difference by label", "regression on labels"],
}
