"""The conditional minimum: the driver of a unit is held fixed and only the rest of the image is synthesised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy import stats as scipy_stats
from torch import Tensor

from absence_utils.errors import InputError, require_shape
from absence_utils.images.base import input_channels, normalisation_of
from absence_utils.stats import fdr_adjust
from absence_utils.units import Unit

from ._lucent import param
from .objectives import Objective, response_in
from .optimisation import check_numbers, chosen_transforms, renderable, synthesise

POLES = ("lowest", "highest")
CHOSEN = ("with the driver", "without the driver")


class _Surrounds:
    def __init__(self, images, masks, blank, contrast, shift, poles, decorrelate):
        self.images, self.masks, self.blank, self.contrast = images, masks[:, None], blank, contrast
        self.shift, self.poles, self.decorrelate = shift, poles, decorrelate

    def parametrise(self):
        count, (channels, height, width) = 2 * self.poles, self.images.shape[1:]
        colours = None if channels == 3 else channels
        variables, self._shape = param.image(
            width, h=height, batch=count, channels=colours, decorrelate=self.decorrelate
        )
        device = variables[0].device
        self.images, self.masks, self.blank = (x.to(device) for x in (self.images, self.masks, self.blank))
        return variables, self.composed

    def surrounds(self):
        change = self._shape() - 0.5
        size = change.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        return (self.blank + self.contrast * change / size).clamp(0, 1)

    def composed(self):
        n = len(self.images)
        s = self.surrounds()
        if self.shift:
            by = torch.randint(-self.shift, self.shift + 1, (n, 2)).tolist()
            s = torch.stack([s.roll(each, (2, 3)) for each in map(tuple, by)], dim=1)
        else:
            s = s[:, None].expand(-1, n, -1, -1, -1)
        centre = torch.stack((self.images, self.blank.expand_as(self.images)))  # with, without driver
        centre = centre.repeat(self.poles, 1, 1, 1, 1)
        return (self.masks * centre + (1 - self.masks) * s).flatten(0, 1)


def conditional_raw(unit, images, masks, *, contrast=None, steps=100, seed=0, shift=4, lr=0.05, transforms="standard",
                    poles=1, decorrelate=False, noises=8):
    """research: returns dict of arrays"""
    size = tuple(images.shape[2:])
    unit, views = renderable(unit, size), chosen_transforms(transforms, size)
    norm = normalisation_of(unit.model)
    pixels = norm.undo(images.float())
    blank = norm.undo(torch.zeros(1, *images.shape[1:]))
    rms = (((pixels - blank).square().mean(1) * (1 - masks)).sum((1, 2)) / (1 - masks).sum((1, 2))).sqrt()
    contrast = contrast or rms.median().item()
    a, b = slice(0, None, 2), slice(1, None, 2)
    S = _Surrounds(pixels[a], masks[a], blank, contrast, shift, poles, decorrelate)
    sign = torch.tensor([1.0, -1.0][:poles]).repeat_interleave(2 * len(pixels[a]))
    obj = Objective(lambda layer: (sign * response_in(layer("reading"), unit)).mean(), "conditional", "c")
    _, _, traj = synthesise(obj, unit, S.parametrise, views, layers={"reading": unit.layer}, steps=steps, lr=lr, seed=seed)
    with torch.no_grad():
        s = S.surrounds()
        held, m = pixels[b], masks[b][:, None]
        def read(rest):  # [.., c,h,w] -> [2, image]
            return torch.stack([unit.response(norm.apply(m * c + (1 - m) * rest)) for c in (held, blank.expand_as(held))])
        out = torch.stack([read(x) for x in s])  # [2*poles, 2, image]
        empt = m * blank + (1 - m) * held
        rest = {"own": read(held), "blank": read(blank),
                "others": torch.stack([read(empt.roll(k, 0)) for k in range(1, min(len(held), 6))]).mean(0)}
        torch.manual_seed(seed + 1)
        z = param.image(size[1], h=size[0], batch=noises, channels=None if images.shape[1] == 3 else images.shape[1], decorrelate=decorrelate, sd=1.0)[1]() - .5
        z = (blank + contrast * z / z.square().mean((1, 2, 3), keepdim=True).sqrt()).clamp(0, 1)
        rest["noise"] = torch.stack([read(x) for x in z]).mean(0)
    return dict(s=s, out=out, rest=rest, contrast=contrast, traj=traj)
