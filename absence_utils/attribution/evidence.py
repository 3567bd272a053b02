"""Presence and absence evidence: the two signs of an attribution map, kept apart."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from absence_utils.errors import require_at_least


def absence_evidence(attribution: Tensor) -> Tensor:
    """Absence evidence: the negative part of [batch, channel, height, width], summed over channels, >= 0.

    Clipped channel by channel, then summed (design section 8): what one colour channel adds does not hide
    what another takes away. `presence_evidence` - `absence_evidence` is the signed map summed over channels.

    Returns:
        [batch, height, width], in the units of the layer.

    Example:
        >>> import torch
        >>> from absence_utils import absence_evidence
        >>> signed = torch.tensor([2.0, -3.0]).view(1, 2, 1, 1)  # two colour channels of one pixel
        >>> absence_evidence(signed)
        tensor([[[3.]]])
    """
    return attribution.clamp(max=0).neg().sum(dim=1)


def presence_evidence(attribution: Tensor) -> Tensor:
    """Presence evidence: the positive part, clipped and summed as `absence_evidence`: [batch, h, w] >= 0.

    Example:
        >>> import torch
        >>> from absence_utils import presence_evidence
        >>> signed = torch.tensor([2.0, -3.0]).view(1, 2, 1, 1)  # two colour channels of one pixel
        >>> presence_evidence(signed)
        tensor([[[2.]]])
    """
    return attribution.clamp(min=0).sum(dim=1)


def region_sums(attribution: Tensor, regions: int = 4) -> Tensor:
    """Signed evidence of regions: attribution summed over channels and over squares.

    Within one object single pixels alternate in sign: the two sides of an edge, or two colour channels.
    Their negative parts add up to "absence evidence" even where the object as a whole drives the unit.
    Summed over a region before the sign is read, they cancel. Maps are for looking at; totals over an image
    are taken from regions.

    Args:
        attribution: [batch, channel, height, width].
        regions: squares along the longer side; the last row and column may be cut.

    Returns:
        [batch, row, column] signed, in the units of the layer; the sum is that of the attribution.
    """
    require_at_least("regions", regions, 1)
    height, width = attribution.shape[-2:]
    edge = -(-max(height, width) // regions)
    padded = F.pad(attribution.sum(dim=1, keepdim=True), (0, -width % edge, 0, -height % edge))
    return F.avg_pool2d(padded, edge)[:, 0] * edge**2
