"""Which units of a layer pass no gradient to the image: all of them in two backward passes."""

from __future__ import annotations

import torch
from torch import Tensor


def zero_gradient_units(values: Tensor, images: Tensor, most: int = 8) -> tuple[Tensor, Tensor]:
    """The units that were looked at, and those of them whose gradient is exactly zero for all images.

    Where a network has no second derivatives, and `_zero_slopes` is of no use, `most` units are looked at.

    Args:
        values: [image, unit] responses with their graph, which is kept.
        images: [image, channel, height, width], which require gradients.
    """

    def zero(unit: int) -> bool:
        (gradient,) = torch.autograd.grad(values[:, unit].sum(), images, retain_graph=True, allow_unused=True)
        return gradient is None or not gradient.any()

    def spread(numbers: Tensor) -> Tensor:
        return numbers[torch.linspace(0, len(numbers) - 1, min(most, len(numbers))).round().long()]

    units = torch.arange(values.shape[1])
    silent = _zero_slopes(values, images)
    if silent is not None and all(zero(unit) for unit in spread(units[silent]).tolist()):
        return units, units[silent]
    units = spread(units)
    return units, units[torch.tensor([zero(unit) for unit in units.tolist()])]


def _zero_slopes(values: Tensor, images: Tensor) -> Tensor | None:
    """[unit] truth of "does not change when images move in a random direction", None if that cannot be told.

    One backward pass with weights w on the units, and one through that for the derivative by w, give the slopes of
    all units at once.
    """
    weights = torch.ones_like(values, requires_grad=True)
    direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(0)).to(images)
    try:
        (gradient,) = torch.autograd.grad(values, images, weights, create_graph=True)
        (slopes,) = torch.autograd.grad(gradient, weights, direction, retain_graph=True)
    except (RuntimeError, NotImplementedError):
        return None
    return (slopes == 0).all(dim=0).cpu()
