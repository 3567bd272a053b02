"""Units whose answer is known beforehand: what a test of absence must say of them is not open to debate."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from absence_utils.errors import InputError, require_choice
from absence_utils.images.base import IDENTITY

RULES = ("additive", "saturating", "veto")
VETO_GAIN, RESIDUAL_GAIN = 6.0, 0.2  # of the veto, and of the same absence where there is nothing to veto
RARE = 0.1  # share of images that show what vetoes a unit
WINDOW = 2  # positions of a filter, in rows and columns, over which a local energy is taken


class SyntheticUnits(nn.Module):
    """Units made of local filters with random weights, whose rule is known.

    The energy of a filter is its rectified product with what it sees, `side` px wide. a is the mean energy of a unit's
    first filter over the image, standardised. "additive" units answer a: nothing in them inhibits anything, and what
    a patch adds does not depend on the rest of the image. "saturating" units answer the smaller of a and 0: presence
    detectors that are full in half of the images, where the rest no longer matters. b is the energy of the second
    filter where it is largest (over windows of 2 x 2 positions), in standard deviations above what one image in ten
    exceeds, and 0 below: a thing
    that is there or not. "veto" units answer relu(a - 6 b) - 0.2 b: a and not b, with a trace of not b where there is
    no a to veto.

    Args:
        images: [n, channel, height, width], on which the energies are standardised.
        units: their number.
        rule: "additive", "saturating" or "veto".
        side: edge of the filters, px; they step by half of it.
        seed: of the filters.

    Input [batch, channel, height, width] of any size from `side` px, output [batch, unit].
    """

    def __init__(
        self, images: Tensor, units: int = 32, rule: str = "additive", *, side: int = 6, seed: int = 0
    ):
        super().__init__()
        require_choice("rule", rule, RULES)
        self.rule, self.side, self.normalisation = rule, side, IDENTITY
        generator = torch.Generator().manual_seed(seed)
        filters = torch.randn(2 * units, images.shape[1], side, side, generator=generator)
        filters = F.avg_pool2d(filters, 3, stride=1, padding=1)  # smooth, as what images are made of
        self.filters = nn.Parameter(filters / filters.flatten(1).norm(dim=1)[:, None, None, None])
        self.register_buffer("centre", torch.zeros(2 * units))
        self.register_buffer("spread", torch.ones(2 * units))
        with torch.no_grad():
            energies = [torch.cat(part) for part in zip(*map(self._energies, images.split(64)), strict=True)]
        if any((energy.std(dim=0) == 0).any() for energy in energies):
            raise InputError("images", "some filter answers all of them alike", "Give images that differ.")
        mean, largest = energies
        self.centre.copy_(torch.cat((mean.mean(dim=0), largest.quantile(1 - RARE, dim=0))))
        self.spread.copy_(torch.cat((mean.std(dim=0), largest.std(dim=0))))
        self.eval().requires_grad_(False)

    def _energies(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[batch, unit] mean energy of the first filters, and largest local energy of the second ones."""
        maps = F.relu(F.conv2d(images, self.filters, stride=self.side // 2))
        first, second = maps.chunk(2, dim=1)
        window = min(WINDOW, *second.shape[2:])
        return first.mean(dim=(2, 3)), F.avg_pool2d(second, window, stride=1).amax(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        a, b = ((torch.cat(self._energies(images), dim=1) - self.centre) / self.spread).chunk(2, dim=1)
        b = F.relu(b)
        if self.rule == "veto":
            return F.relu(a - VETO_GAIN * b) - RESIDUAL_GAIN * b
        return a if self.rule == "additive" else a.clamp(max=0)
