"""Completeness: whether a map adds up to the change of the response that it explains, and a warning where it does not.

The gap is stated relative to a scale, because a share of a change near zero says nothing: see `relative_gap`.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from absence_utils.units import Unit

from .baselines import with_baselines
from .evidence import region_sums

GAP_BOUND = 0.01  # of the scale: what integrated gradients and DeepLIFT promise
# A change below a tenth of the evidence is a cancellation (as in `diagnosis`); one below a thousandth of the responses
# is near what float32 rounds.
CANCELLATION, ROUNDING = 0.1, 0.001


class CompletenessWarning(UserWarning):
    """A map of a method that promises completeness misses more than `GAP_BOUND`."""


def relative_gap(attribution: Tensor, response: Tensor, at_baseline: Tensor) -> Tensor:
    """(sum of the map - change) / scale: what the map adds to the change of the response (> 0), or misses (< 0).

    The scale is the change's size, |response - at_baseline|. Where positive and negative evidence cancel it is a tenth
    of both together, summed over regions (`region_sums`), and where the change is lost in rounding a thousandth of the
    responses. So a unit that does not depend on the image has a gap of 0, and no number is infinite unless the map is.

    Args:
        attribution: [batch, channel, height, width].
        response, at_baseline: [batch] of the images and of their baselines.

    Returns:
        [batch] signed, float64, on the device of the map.
    """
    response, at_baseline = response.detach().to(attribution).double(), at_baseline.detach().to(attribution)
    change = response - at_baseline
    gap = attribution.double().sum(dim=(1, 2, 3)) - change
    evidence = region_sums(attribution.double()).abs().sum(dim=(1, 2))
    offset = torch.maximum(response.abs(), at_baseline.abs())
    scale = torch.stack((change.abs(), CANCELLATION * evidence, ROUNDING * offset)).amax(dim=0)
    return torch.where(scale > 0, gap / scale, gap)


def completeness_gap(
    unit: Unit,
    images: Tensor,
    attribution: Tensor,
    *,
    baseline: str | Tensor = "zero",
    batch_size: int = 32,
    relative: bool = False,
) -> Tensor:
    """What an attribution adds to, or misses of, the change it explains.

    Args:
        attribution: [batch, channel, height, width] of these images, against this baseline.
        relative: as a share of the change's size, or of the scale that stands for a change near zero, see
            `relative_gap`.

    Returns:
        [batch] signed: sum of the attribution - (response(images) - response(baseline)), in the units of the
        layer.
    """
    ends = []
    with torch.no_grad():
        for part, reference in with_baselines(unit, images, baseline, batch_size):
            ends.append(torch.stack((unit.response(part), unit.response(reference))))
    response, at_baseline = torch.cat(ends, dim=1).to(attribution)
    if relative:
        return relative_gap(attribution, response, at_baseline).to(attribution)
    return attribution.sum(dim=(1, 2, 3)) - (response - at_baseline)


def warn_of_gaps(unit: Unit, gap: Tensor, method: str, remedy: str, stacklevel: int) -> None:
    """Warn, once for all images, of relative gaps [batch] beyond the bound; a map of NaN shows by itself."""
    beyond = gap.abs() > GAP_BOUND
    if beyond.any():
        warnings.warn(
            f"{method} of {unit.name}: for {int(beyond.sum())} of {len(gap)} images the map does not add up to the "
            f"change of the response; the largest gap is {float(gap.abs().max()):.1%} (bound {GAP_BOUND:.0%}). "
            f"{remedy} `return_gap=True` gives the gap of each image.",
            CompletenessWarning,
            stacklevel=stacklevel + 1,
        )
