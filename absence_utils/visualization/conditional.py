"""The conditional minimum, a synthesised veto: a unit's driver is held fixed, and the rest is synthesised.

A minimum shows what suppresses a unit. It leaves open whether that always does, or only where something
drives the unit. Here the *driver*, a region of the unit's top images, stays as it is. One *surround* is
synthesised around it, of a fixed contrast and for several images at once; then it is put around the driver of
other top images, and around the same region filled with the blank (the image that is 0 after normalisation):

    interaction = [f(driver + surround) - f(driver + rest)] - [f(no driver + surround) - f(no driver + rest)]

in standard deviations of the unit's natural responses, where `rest` is the image's own. A unit that adds up
what it sees has 0, one that saturates more than 0; a veto is negative.

**Clean selection.** A surround fitted to images with the driver is low on those, whatever the unit: it also
finds what fools the network where the driver is. Measuring on other images does not cure that, because what
fools a network does so on all images: it took up to 2.5 sd from "triangle or bars" and "checker", which have
no veto. So a second surround is fitted to the same images without their driver, with the same budget, for
which that bias has the other sign (up to 2.7 sd), and the interaction is the mean of the two. What is left of
the bias shrinks with the steps, as both surrounds find their minimum. To ask both surrounds for a negative
interaction was tried as well: it misses a veto wherever the unit without its driver can be lowered in another
way. Where nothing suppresses the unit without its driver, the second surround has nothing to follow, stays
noise and says nothing: then the first stands for it.

The mean misses some as well. In the network rules/2 neither of two planted vetoes is called. In exact pairs of
scenes they are as large as elsewhere (-1.3 and -1.5 sd), what is held is 7% of the image, and exact masks change
nothing: the second surround found such another way. Nor does the mean tell a veto from a conjunction. Where a unit
needs A and B, whatever lowers the evidence of one matters only beside the other: see data/measured/conditional.csv.

**Scale.** Any interaction can be made or undone by a change of the response's scale. As for patches
(`insertion.context`), it counts only if it keeps its sign on the scale of ranks among natural responses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy import stats as scipy_stats
from torch import Tensor

from absence_utils.errors import InputError, require_at_least, require_choice, require_shape
from absence_utils.images.base import normalisation_of
from absence_utils.stats import fdr_adjust, paired_difference
from absence_utils.units import Unit

from ._lucent import param
from .objectives import Objective, response_in
from .optimisation import Goal, Transform, check_numbers, chosen_transforms, renderable, synthesise
from .parametrisation import Parametrised, blank_of

POLES = ("lowest", "highest")
FITTED = ("with driver", "without driver")  # the images to which a surround is fitted
LEAST = 0.5  # sd, the smallest that counts; what adds up or saturates stays above -0.31 (bench_conditional)
DRIVER = 0.5  # sd that a unit loses without its driver; one that loses less has none
NOWHERE = 0.1  # of what the surround fitted with the driver did: one that did less had nothing to follow
LEVEL = 0.05  # false discovery rate over units


@dataclass(frozen=True, eq=False)
class ConditionalPair:
    """Surrounds that drive a unit down and up around its driver, and what they do on held-out images.

    Attributes:
        unit: whose responses these are.
        poles: "lowest", "highest" or both, the first axis of `surround` and `response`.
        surround: [pole, fitted=2, channel, height, width] pixels in 0..1, fitted with and without the driver.
        response: [pole, fitted=2, shown=2, image], around the driver and around the blank in its place.
        rest: [shown=2, image], the same with the image's own rest.
        driver: [image, channel, height, width] pixels in 0..1 of the held-out images.
        mask: [image, height, width] in 0..1, 1 on the driver.
        natural: [natural image] responses of the unit, which give the sd and the ranks.
        contrast: RMS difference of a surround from the blank, in units of the pixel range.
        lost: [pole, fitted=2], by how much a surround came nearer to its pole than the noise it started from,
            mean over the images to which it was fitted, in sd; >= 0 where the synthesis got anywhere.
    """

    unit: Unit
    poles: tuple[str, ...]
    surround: Tensor
    response: Tensor
    rest: Tensor
    driver: Tensor
    mask: Tensor
    natural: Tensor
    contrast: float
    lost: Tensor

    def __repr__(self) -> str:
        count, _, height, width = self.driver.shape
        return f"ConditionalPair of {self.unit.name}: {count} held-out images, {height} x {width} px"

    def composed(self, pole: str, fitted: int = 0) -> tuple[Tensor, Tensor]:
        """The held-out images in a surround, with their driver and with the blank in its place.

        Args:
            pole: one of `poles`.
            fitted: 0 for the surround fitted with the driver, 1 for that fitted without.

        Returns:
            Twice [image, channel, height, width], pixels in 0..1.
        """
        require_choice("pole", pole, self.poles)
        surround, mask = self.surround[self.poles.index(pole), fitted], self.mask[:, None]
        blank = blank_of(normalisation_of(self.unit.model))
        return tuple(_compose(shown, mask, surround) for shown in (self.driver, blank))

    def show(self):
        """A figure: an image, its driver in the surrounds, and what these do with and without it."""
        from absence_utils.plots.conditional import conditional_pairs

        return conditional_pairs([self], conditional_table([self]))


class _Fitted:
    """Surrounds of fixed contrast around fixed drivers, as `synthesise` takes an image."""

    def __init__(self, pixels, mask, blank, contrast: float, shift: int, poles: int, decorrelate: bool):
        self.shown = torch.stack((pixels, blank.expand_as(pixels))).repeat(poles, 1, 1, 1, 1)
        self.mask, self.blank, self.contrast = mask[:, None], blank, contrast
        self.shift, self.decorrelate = shift, decorrelate

    def parametrise(self) -> Parametrised:
        channels, height, width = self.shown.shape[2:]
        colours = (
            None if channels == 3 else channels
        )  # lucent decorrelates only where it is not told a number
        variables, self._coefficients = param.image(
            width, h=height, batch=len(self.shown), channels=colours, decorrelate=self.decorrelate
        )
        device = variables[0].device
        self.shown, self.mask, self.blank = (each.to(device) for each in (self.shown, self.mask, self.blank))
        self.start = self.surrounds().detach().cpu()
        return variables, self.images

    def surrounds(self) -> Tensor:
        """[pole x fitted, channel, height, width], of the contrast but for what is clipped to the range of
        pixels."""
        change = self._coefficients() - 0.5
        size = change.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        return (self.blank + self.contrast * change / size).clamp(0, 1)

    def images(self) -> Tensor:
        """[pole x fitted x image, ...]: each driver in each surround, which is moved anew by a few pixels."""
        by = torch.randint(-self.shift, self.shift + 1, (self.shown.shape[1], 2)).tolist()
        surrounds = self.surrounds()
        moved = torch.stack([surrounds.roll(tuple(each), (2, 3)) for each in by], dim=1)
        return _compose(self.shown, self.mask, moved).flatten(0, 1)


def _compose(shown: Tensor, mask: Tensor, surround: Tensor) -> Tensor:
    return mask * shown + (1 - mask) * surround


def conditional_pair(
    unit: Unit,
    images: Tensor,
    masks: Tensor,
    natural: Tensor,
    steps: int = 96,
    seed: int = 0,
    *,
    contrast: float | None = None,
    poles: Sequence[str] = POLES,
    shift: int = 4,
    lr: float = 0.05,
    transforms: str | Sequence[Transform] = "none",
    decorrelate: bool = False,
) -> ConditionalPair:
    """Hold the driver of a unit fixed and synthesise the rest of the image, down and up, with the same
    budget.

    Every second image is for the synthesis, the others are held out. Both poles, with and without the driver,
    are synthesised in one pass: same noise, steps, transforms and contrast.

    Args:
        unit: channel, logit or direction, read as `render_pair` does.
        images: [image, channel, height, width], normalised as the network expects: the unit's top images,
            highest first, at least 4; 16 are few enough to be alike and enough to measure on 8.
        masks: [image, height, width] in 0..1, 1 on the driver, such as `insertion.evidence_masks` makes.
        natural: [natural image] responses of the unit to images as they come, from which `images` may be.
        steps, seed, lr: of Adam, and of everything random.
        contrast: RMS difference of a surround from the blank, in units of the pixel range; None takes the
            median over the images of that of their own rest.
        poles: which surrounds to make, one or both of `POLES`; each takes the same time.
        shift: px by which the surround is moved at random against the drivers, either way, at each step.
        transforms: of the whole image, see `render_pair`.
        decorrelate: use lucent's colour statistics of natural images (RGB only).

    Returns:
        A ConditionalPair. `conditional_table` says whether it shows a veto; `pair.show()` draws it.

    Raises:
        InputError: too few images, masks or responses that do not fit; a unit that does not depend on the
            surround.
    """
    check_numbers(steps=steps, lr=lr, seed=seed)
    require_at_least("shift", shift, 0)
    for pole in poles:
        require_choice("poles", pole, POLES)
    pixels, masks, natural = _checked(unit, images, masks, natural)
    size = tuple(images.shape[2:])
    unit, views = renderable(unit, size), chosen_transforms(transforms, size)
    blank = blank_of(normalisation_of(unit.model))
    if contrast is None:
        contrast = _own_contrast(pixels, masks, blank)
    elif not 0 < contrast <= 1:
        raise InputError("contrast", f"{contrast}", "Use more than 0 and at most 1, the range of pixels.")
    for_fit, held_out = slice(0, None, 2), slice(1, None, 2)
    fitted = _Fitted(pixels[for_fit], masks[for_fit], blank, contrast, shift, len(poles), decorrelate)
    sign = torch.tensor([1.0 if pole == "lowest" else -1.0 for pole in poles])
    each = sign.repeat_interleave(len(FITTED) * len(pixels[for_fit]))
    objective = Objective(
        lambda layer: (each.to(layer("reading")) * response_in(layer("reading"), unit)).mean(),
        "conditional", f"Surround [{unit.name}]",
    )  # fmt: skip
    synthesise(
        [Goal(unit, objective)], fitted.parametrise, views,
        layers={"reading": unit.layer}, steps=steps, lr=lr, seed=seed,
    )  # fmt: skip
    with torch.no_grad():
        surrounds = fitted.surrounds().detach().cpu().unflatten(0, (len(poles), len(FITTED)))
        start = fitted.start.unflatten(0, (len(poles), len(FITTED)))
        fit, held = (
            lambda rest, part=part: _responses(unit, pixels[part], masks[part], blank, rest)
            for part in (for_fit, held_out)
        )
        before, after = (
            torch.stack(
                [torch.stack([fit(one)[shown].mean() for shown, one in enumerate(two)]) for two in both]
            )
            for both in (start, surrounds)
        )
        response = torch.stack([torch.stack([held(one) for one in two]) for two in surrounds])
        rest = held(pixels[held_out])
    return ConditionalPair(
        unit, tuple(poles), surrounds, response, rest, pixels[held_out], masks[held_out], natural, contrast,
        lost=sign[:, None] * (before - after) / natural.std(),
    )  # fmt: skip


def _checked(unit: Unit, images: Tensor, masks: Tensor, natural: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels, masks and natural responses on the CPU, float."""
    require_shape("images", images, "image", "channel", "height", "width")
    require_at_least("images", len(images), 4, "half are for the synthesis, half are held out")
    require_shape("masks", masks, len(images), *images.shape[2:])
    if not (masks.min() >= 0 and masks.max() <= 1):
        raise InputError("masks", "values outside 0..1", "Give 1 on the driver and 0 elsewhere.")
    require_shape("natural", natural, "image")
    if not (len(natural) > 1 and natural.std() > 0):
        problem = "the unit answers all images alike, so its responses have no sd"
        raise InputError("natural", problem, "Give responses to more images, or another unit.")
    pixels = normalisation_of(unit.model).undo(images.detach().cpu().float())
    return pixels, masks.detach().cpu().float(), natural.detach().cpu().float()


def _own_contrast(pixels: Tensor, masks: Tensor, blank: Tensor) -> float:
    """Median over images of the RMS difference of what lies outside the driver from the blank."""
    outside = 1 - masks
    square = ((pixels - blank).square().mean(dim=1) * outside).sum(dim=(1, 2)) / outside.sum(dim=(1, 2))
    contrast = square.sqrt().median().item()
    if not contrast > 0:
        problem = "nothing but the blank lies outside the masks"
        raise InputError("contrast", problem, "Give a number, or smaller masks.")
    return contrast


def _responses(unit: Unit, pixels: Tensor, masks: Tensor, blank: Tensor, rest: Tensor) -> Tensor:
    """[shown=2, image] of the unit, with the drivers and with the blank in their place, around a rest."""
    normalisation = normalisation_of(unit.model)
    both = (_compose(shown, masks[:, None], rest) for shown in (pixels, blank.expand_as(pixels)))
    return torch.stack([unit.response(normalisation.apply(each)).cpu() for each in both])


def conditional_table(pairs: Sequence[ConditionalPair]) -> pd.DataFrame:
    """What the surrounds do with and without the driver, and whether that is a veto.

    Args:
        pairs: of `conditional_pair`. The q-values are corrected over their units.

    Returns:
        A row for each unit and pole, in sd of the unit's natural responses, means over the held-out images
        and both surrounds: unit, pole, driver (what the unit loses without its driver), with_driver and
        without_driver (change by a surround), interaction (their difference), low, high (95%, Student's t
        over images), fitted_with and fitted_without (the interaction of each surround, equal where the second
        had nothing to follow), q (for "lowest": that the interaction or with_driver is not below -`LEAST`: a
        surround that fills a unit which saturates has an interaction, too, and lowers nothing), ranks (the
        same difference on the scale of ranks, -2..2) and veto (q below 5% and ranks below 0). A unit with a
        driver below `DRIVER` is not asked, nor is "highest": q is NaN.
    """
    rows = [_row(pair, place) for pair in pairs for place in range(len(pair.poles))]
    table = pd.DataFrame(rows)
    table["q"] = fdr_adjust(table["q"])
    table["veto"] = (table["q"] < LEVEL) & (table["ranks"] < 0)
    return table


def _row(pair: ConditionalPair, place: int) -> dict:
    spread = pair.natural.std().item()
    change = ((pair.response[place] - pair.rest) / spread).double()  # [fitted, shown, image]
    lowest = pair.poles[place] == "lowest"
    lost, response = pair.lost[place], pair.response[place]
    if lost[1] < NOWHERE * lost[0]:  # the second surround had nothing to follow
        change, response = change[[0, 0]], response[[0, 0]]
    each = (change[:, 0] - change[:, 1]).mean(dim=1)
    on, off = change.mean(dim=0)  # [image], with and without the driver
    value, low, high = paired_difference(on, off)
    driver = (pair.rest[0] - pair.rest[1]).mean().item() / spread
    asked = lowest and driver >= DRIVER
    ranks = _ranked(response, pair.natural).mean(axis=0) - _ranked(pair.rest, pair.natural)
    return {
        "unit": pair.unit.name, "pole": pair.poles[place], "driver": driver,
        "with_driver": on.mean().item(), "without_driver": off.mean().item(),
        "interaction": value, "low": low, "high": high,
        "fitted_with": each[0].item(), "fitted_without": each[1].item(),
        "q": max(_p_not_below(on - off), _p_not_below(on)) if asked else np.nan,
        "ranks": (ranks[0] - ranks[1]).mean(),
    }  # fmt: skip


def _p_not_below(values: Tensor) -> float:
    """One-sided p of "the mean is -LEAST or more", Student's t; without any scatter 0 or 1."""
    if np.ptp(values.numpy()) == 0:
        return float(values[0] >= -LEAST)
    return scipy_stats.ttest_1samp(values, -LEAST, alternative="less").pvalue


def _ranked(values: Tensor, natural: Tensor) -> np.ndarray:
    """Share of natural responses below each value."""
    return np.searchsorted(np.sort(natural.numpy()), values.numpy()) / len(natural)
