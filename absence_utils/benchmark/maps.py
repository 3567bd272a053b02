"""Map methods of the benchmark: signed maps of every unit of a task on some of its scenes.

A map method is a function (task, images [image, channel, height, width]) -> [unit, image, height, width], positive
where pixels raise the unit, negative where they lower it. A function (unit, images) -> [image, height, width] becomes
one by `of_each_unit`. Attributions are `attribution.attribute`'s or captum's. What is taken away becomes 0, the mean
colour of the scenes (`scenes.NORMALISATION`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from captum.attr import LRP, GradientShap, GuidedBackprop
from captum.attr._utils.lrp_rules import EpsilonRule
from torch import Tensor, nn

from absence_utils.attribution.methods import METHODS as ATTRIBUTIONS
from absence_utils.attribution.methods import attribute
from absence_utils.errors import InputError
from absence_utils.images.scenes import NORMALISATION
from absence_utils.units import Unit

from .tasks import BenchmarkTask, MapMethod

SAMPLES = 16  # of GradientSHAP for each image
CELL = 8  # px, squares that occlusion, RISE and Shapley values show or hide
MASKS, SHOWN = 192, 0.5  # of RISE: how many, and the share of squares that each shows
ORDERS = 1  # in which Shapley values add the squares


def of_each_unit(function: Callable[[Unit, Tensor], Tensor]) -> MapMethod:
    """A map method out of one for a single unit: (unit, images) -> [image, height, width]."""

    def maps(task: BenchmarkTask, images: Tensor) -> Tensor:
        found = [function(task.unit(index), images) for index in range(len(task.units))]
        wanted = (len(images), *images.shape[-2:])
        for drawn in found:
            if tuple(drawn.shape) != wanted:
                problem = f"it draws shape {tuple(drawn.shape)}"
                remedy = f"Answer with [image, height, width], here {list(wanted)}."
                raise InputError("method", problem, remedy)
        return torch.stack(found)

    return maps


class _Response(nn.Module):
    """A unit as a network with one output, for methods that change how a network's modules pass gradients back."""

    def __init__(self, unit: Unit):
        super().__init__()
        self.model, self.unit = unit.model, unit

    def forward(self, images: Tensor) -> Tensor:
        return self.unit.response(images)[:, None]


def attribution(name: str, unit: Unit, images: Tensor) -> Tensor:
    """One of `attribution.METHODS`, summed over channels."""
    return attribute(unit, images, name).sum(dim=1)


def gradient_sign(unit: Unit, images: Tensor) -> Tensor:
    """Sign of the plain input gradient summed over channels, without the input: which way does brighter push?"""
    images = images.detach().clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(unit.response(images).sum(), images)
    return slope.sum(dim=1).sign()


def gradient_shap(unit: Unit, images: Tensor) -> Tensor:
    """GradientSHAP (captum; Lundberg and Lee, NeurIPS 2017), against all of the images."""
    state, noise = np.random.get_state(), 0.1 / NORMALISATION.std[0]
    try:
        with torch.random.fork_rng(devices=[]):
            # captum draws noise from torch and images from NumPy: the same for every unit
            torch.manual_seed(0)
            np.random.seed(0)
            method = GradientShap(unit.response)
            maps = [method.attribute(image, images, SAMPLES, noise) for image in images.split(1)]
    finally:
        np.random.set_state(state)
    return torch.cat(maps).sum(dim=1)


def guided_backprop(unit: Unit, images: Tensor) -> Tensor:
    """Guided backpropagation (captum; Springenberg et al., 2015): negative gradients are stopped at every rectifier."""
    return GuidedBackprop(_Response(unit)).attribute(images.clone(), target=0).sum(dim=1)


def lrp(unit: Unit, images: Tensor) -> Tensor:
    """Layer-wise relevance propagation, epsilon rule (captum; Bach et al., 2015)."""
    unit.response(images[:1])  # the first reading of a layer tries it before: captum allows one pass alone
    flattens = [module for module in unit.model.modules() if isinstance(module, nn.Flatten)]
    for module in flattens:  # captum has no rule of its own for it
        module.rule = EpsilonRule()
    try:
        return LRP(_Response(unit)).attribute(images.clone(), target=0).sum(dim=1)
    finally:
        for module in flattens:
            vars(module).pop("rule", None)


def _squares(edge: int) -> list[tuple[slice, slice]]:
    """Rows and columns of the squares of an image."""
    starts = range(0, edge, CELL)
    return [(slice(top, top + CELL), slice(left, left + CELL)) for top in starts for left in starts]


@torch.no_grad()
def occlusion(task: BenchmarkTask, images: Tensor) -> Tensor:
    """`attribution`'s occlusion by squares that do not overlap, of all units from the same passes."""
    whole, maps = task.read(images), torch.zeros(len(task.units), len(images), *images.shape[-2:]).double()
    for rows, columns in _squares(images.shape[-1]):
        covered = images.clone()
        covered[:, :, rows, columns] = 0
        maps[:, :, rows, columns] = (whole - task.read(covered)).T[:, :, None, None] / CELL**2
    return maps


@torch.no_grad()
def shapley_grid(task: BenchmarkTask, images: Tensor) -> Tensor:
    """Shapley values of squares (sampled orders, Castro et al., 2009), spread evenly over their pixels."""
    generator, squares = torch.Generator().manual_seed(task.seed), _squares(images.shape[-1])
    maps = torch.zeros(len(task.units), len(images), *images.shape[-2:]).double()
    for _ in range(ORDERS):
        shown = torch.zeros_like(images)
        before = task.read(shown)
        for number in torch.randperm(len(squares), generator=generator).tolist():
            rows, columns = squares[number]
            shown[:, :, rows, columns] = images[:, :, rows, columns]
            after = task.read(shown)
            maps[:, :, rows, columns] += (after - before).T[:, :, None, None] / CELL**2 / ORDERS
            before = after
    return maps


@torch.no_grad()
def rise(task: BenchmarkTask, images: Tensor) -> Tensor:
    """RISE (Petsiuk et al., BMVC 2018): covariance of the response with random smooth masks.

    The covariance and not the mean, which would add the response itself to every pixel.
    """
    generator, edge = torch.Generator().manual_seed(task.seed), images.shape[-1]
    cells = edge // CELL
    grid = (torch.rand(MASKS, 1, cells + 1, cells + 1, generator=generator) < SHOWN).float()
    large = F.interpolate(grid, scale_factor=CELL, mode="bilinear", align_corners=False)
    shifts = torch.randint(CELL, (MASKS, 2), generator=generator).tolist()
    masks = torch.stack([
        each[:, top : top + edge, left : left + edge] for each, (top, left) in zip(large, shifts, strict=True)
    ])  # fmt: skip
    centred, maps = (masks - masks.mean(dim=0))[:, 0].flatten(1).double(), []
    for image in images:
        values = task.read(image * masks)
        slopes = (values - values.mean(dim=0)).T @ centred / centred.square().mean() / MASKS
        maps.append(slopes.view(-1, edge, edge))
    return torch.stack(maps, dim=1)


def random_map(task: BenchmarkTask, images: Tensor) -> Tensor:
    """Noise, another for every network: the baseline that knows nothing."""
    generator = torch.Generator().manual_seed(task.seed)
    return torch.randn(len(task.units), len(images), *images.shape[-2:], generator=generator)


def edges(unit: Unit, images: Tensor) -> Tensor:
    """Minus the strength of edges in the image: a baseline that lies on concepts and knows nothing of the unit."""
    grey = images.mean(dim=1)
    down, right = grey.diff(dim=1, prepend=grey[:, :1]), grey.diff(dim=2, prepend=grey[:, :, :1])
    return -(down.square() + right.square()).sqrt()


def _quiet(function):
    """Without captum's warnings about hooks and gradients."""

    def called(unit: Unit, images: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module="captum")
            return function(unit, images)

    return called


MAPS: dict[str, MapMethod] = {
    name: of_each_unit(partial(attribution, name)) for name in ATTRIBUTIONS
} | {
    "gradient_sign": of_each_unit(gradient_sign),
    "gradient_shap": of_each_unit(_quiet(gradient_shap)),
    "guided_backprop": of_each_unit(_quiet(guided_backprop)),
    "lrp": of_each_unit(_quiet(lrp)),
    "occlusion": occlusion,
    "rise": rise,
    "shapley_grid": shapley_grid,
    "random_map": random_map,
    "edge_detector": of_each_unit(edges),
}  # fmt: skip
