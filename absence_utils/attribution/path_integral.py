"""Integrated gradients with as many steps as an image needs.

A rectifying network's gradient jumps along the path, so a fixed rule of n steps converges only as 1/n. But both sides
of the fundamental theorem are known between any two points of the path: the response's change, and what the slopes at
the points make of it. New points go where the two differ most, and no point is ever thrown away. On concept scenes this
takes a fifth of the passes that doubling a Gauss-Legendre rule takes for the same gap.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from absence_utils.units import Unit

from .completeness import GAP_BOUND, relative_gap

FIRST_STEPS, MOST_STEPS = 32, 512
NARROWEST = 1e-6  # half an interval of the path that is not divided further: float32 knows about 1e-7
SHARE = 0.2  # of the largest miss: an interval that misses less is left as it is


def integrate_path(unit: Unit, images: Tensor, baseline: Tensor, batch_size: int) -> Tensor:
    """Integrated gradients along the straight path from the baseline, image by image.

    Starts with the midpoints of `FIRST_STEPS` equal parts and adds points until the gap is at most `GAP_BOUND` (see
    `relative_gap`), or there are `MOST_STEPS`.

    Args:
        images, baseline: [batch, channel, height, width].
        batch_size: points of one path that go through the network at a time.

    Returns:
        [batch, channel, height, width], signed, in the units of the layer.
    """
    with torch.no_grad():
        ends = torch.stack((unit.response(baseline), unit.response(images)), dim=1).double()
    rows = zip(images, baseline, ends, strict=True)
    return torch.stack([_integrate(unit, *row, batch_size) for row in rows])


def _integrate(unit: Unit, image: Tensor, baseline: Tensor, ends: Tensor, batch_size: int) -> Tensor:
    change = image - baseline
    at = (torch.arange(FIRST_STEPS, device=image.device, dtype=torch.double) + 0.5) / FIRST_STEPS
    response, gradient = _walk(unit, baseline, change, at, batch_size)
    while True:
        # The ends take the slope of the point next to them: at the baseline itself all rectifiers may be shut.
        slope = (gradient.double() * change).sum(dim=(1, 2, 3))
        slope = torch.cat((slope[:1], slope, slope[-1:]))
        half = F.pad(at, (1, 0)).diff(append=at.new_ones(1)) / 2  # of each interval between neighbours
        known = torch.cat((ends[:1], response, ends[1:]))
        missed = (half * (slope[1:] + slope[:-1]) - known.diff()).abs() * (half > NARROWEST)
        weight = half[1:] + half[:-1]
        weight[0] += half[0]
        weight[-1] += half[-1]
        signed = change * torch.einsum("p,pchw->chw", weight.to(gradient), gradient)
        gap = relative_gap(signed[None], ends[1:], ends[:1])
        # NaN is not worth more points, nor is a jump of the response, which no slope ever shows.
        if not gap.abs() > GAP_BOUND or len(at) >= MOST_STEPS or not missed.any():
            return signed
        worst = missed.topk(min(len(at) // 2, MOST_STEPS - len(at)))
        worst = worst.indices[worst.values >= SHARE * worst.values[0]]
        bounds = F.pad(at, (1, 1))
        bounds[-1] = 1
        middle = (bounds[worst] + bounds[worst + 1]) / 2
        more = _walk(unit, baseline, change, middle, batch_size)
        order = torch.cat((at, middle)).argsort()
        at = torch.cat((at, middle))[order]
        response, gradient = (torch.cat(pair)[order] for pair in zip((response, gradient), more, strict=True))


def _walk(unit: Unit, baseline: Tensor, change: Tensor, at: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
    """Responses [point] and gradients [point, channel, height, width] at points of the path, 0 to 1."""
    responses, gradients = [], []
    for part in at.to(change).split(batch_size):
        points = (baseline + part[:, None, None, None] * change).requires_grad_()
        response = unit.response(points)
        gradients.append(torch.autograd.grad(response.sum(), points)[0])
        responses.append(response.detach().double())
    return torch.cat(responses), torch.cat(gradients)
