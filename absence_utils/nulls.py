"""Units whose answer is known beforehand: what a test of absence must say of them is not open to debate."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import InputError
from .images import IDENTITY

RULES = ("additive", "veto")
STRENGTH, SPARE = 2.0, 0.2  # of the veto, and of the same absence where there is nothing to veto


class KnownUnits(nn.Module):
    """Units made of local filters with random weights, whose rule is known.

    Every unit has the energy a of one filter bank: filters that see `side` pixels, rectified, averaged over the image
    and standardised. "additive" units answer a: nothing in them inhibits anything, and what a patch adds does not
    depend on the rest of the image. "veto" units answer relu(a - 2 relu(b)) - 0.2 relu(b), where b is the energy of a
    second bank: a and not b, with a trace of not b where there is no a to veto.

    Args:
        images: [n, channel, height, width], on which energies get mean 0 and standard deviation 1.
        units: their number.
        rule: "additive" or "veto".
        side: edge of the filters, px; they step by half of it.
        seed: of the filters.

    Input [batch, channel, height, width] of any size from `side` px, output [batch, unit].
    """

    def __init__(
        self, images: Tensor, units: int = 32, rule: str = "additive", *, side: int = 6, seed: int = 0
    ):
        super().__init__()
        if rule not in RULES:
            raise InputError("rule", f"{rule!r} is not known", f"Use one of {', '.join(RULES)}.")
        self.rule, self.side, self.normalisation = rule, side, IDENTITY
        generator = torch.Generator().manual_seed(seed)
        filters = torch.randn(2 * units, images.shape[1], side, side, generator=generator)
        filters = F.avg_pool2d(filters, 3, stride=1, padding=1)  # smooth, as what images are made of
        self.filters = nn.Parameter(filters / filters.flatten(1).norm(dim=1)[:, None, None, None])
        self.register_buffer("centre", torch.zeros(2 * units))
        self.register_buffer("spread", torch.ones(2 * units))
        with torch.no_grad():
            energy = torch.cat([self._energy(part) for part in images.split(64)])
        if (energy.std(dim=0) == 0).any():
            raise InputError("images", "some filter answers all of them alike", "Give images that differ.")
        self.centre.copy_(energy.mean(dim=0))
        self.spread.copy_(energy.std(dim=0))
        self.eval().requires_grad_(False)

    def _energy(self, images: Tensor) -> Tensor:
        maps = F.relu(F.conv2d(images, self.filters, stride=self.side // 2))
        return (maps.mean(dim=(2, 3)) - self.centre) / self.spread

    def forward(self, images: Tensor) -> Tensor:
        a, b = self._energy(images).chunk(2, dim=1)
        if self.rule == "additive":
            return a
        return F.relu(a - STRENGTH * F.relu(b)) - SPARE * F.relu(b)
