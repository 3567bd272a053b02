"""Is a signed map right about absence? Paint over what it calls absence evidence, and paste that elsewhere.

Deletion measures remove what a map marks as evidence *for* a unit and watch the response fall. On a non-target
image there is little to remove: the message is in the negative part, which they never reach (`descending_score`). Here
the negative part is asked two questions, about the q % of pixels with the most absence evidence, N_q:

* *release*: does the response rise when N_q is painted over? It must, if N_q holds the response down.
* *transplant*: does the response fall when the content of N_q is pasted into a target image, at the same place? It
  must, if it is that content that holds the response down, and not the place.

Both are differences to a control region C_q of the same image, with as many pixels, the same shape and similar
contrast. So painting over anything at all, or pasting anything at all, earns nothing. All values are in standard
deviations of the unit's response over untouched images.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from absence_utils.errors import InputError, require_at_least, require_choice, require_shape
from absence_utils.stats import Estimate, paired_difference
from absence_utils.units import Unit

from .regions import control_regions, negative_regions, paint_over, pixel_ranks

SHARES = (0.01, 0.02, 0.05, 0.1, 0.2)
FILLS = ("background", "inpaint")


@dataclass(frozen=True)
class Faithfulness:
    """What `faithfulness` measured; all in standard deviations of the unit, higher is better, noise is near 0.

    Attributes:
        shares: the shares q of the pixels, in 0..0.5, ascending.
        release: [image, share] f(N_q painted over) - f(C_q painted over), on the non-target image.
        transplant: [image, share] f(C_q pasted) - f(N_q pasted), on the target image.
    """

    shares: tuple[float, ...]
    release: Tensor
    transplant: Tensor

    @property
    def release_area(self) -> Tensor:
        """[image] mean height of the release curve, see `curve_area`."""
        return curve_area(self.release, self.shares)

    @property
    def transplant_area(self) -> Tensor:
        """[image] mean height of the transplant curve, see `curve_area`."""
        return curve_area(self.transplant, self.shares)

    @property
    def score(self) -> Tensor:
        """[image] mean of both areas."""
        return (self.release_area + self.transplant_area) / 2

    def summary(self, level: float = 0.95) -> dict[str, Estimate]:
        """Means over images with Student's t interval: "score", "release" and "transplant" (their areas).

        Raises:
            InputError: fewer than two images.
        """
        parts = {"score": self.score, "release": self.release_area, "transplant": self.transplant_area}
        return {
            name: paired_difference(values, torch.zeros_like(values), level) for name, values in parts.items()
        }


def curve_area(curves: Tensor, shares) -> Tensor:
    """Area under curves [image, share] over log(share), trapezoids, divided by the width: a mean height, [image].

    Logarithmic, so that every doubling of the region counts alike. Over the share itself the step from 10 to 20%
    would be half of the area, though a glyph covers some 3% of a scene: it is in the first few percent that maps
    differ. One share is its own area.
    """
    if len(shares) == 1:
        return curves[:, 0]
    steps = torch.diff(torch.log(torch.tensor(shares, dtype=curves.dtype)))
    return ((curves[:, 1:] + curves[:, :-1]) / 2) @ steps / steps.sum()


def faithfulness(
    unit: Unit,
    maps: Tensor,
    images: Tensor,
    targets: Tensor,
    spread: float,
    *,
    background: Tensor | None = None,
    shares=SHARES,
    fill: str = "background",
    seed: int = 0,
    batch_size: int = 128,
) -> Faithfulness:
    """Release and transplant of the absence evidence of signed maps; see the top of this module.

    N_q are the q % of pixels with the most negative attribution, and negative pixels only: a map with fewer has all of
    them as N_q, and a map with none says nothing and scores exactly 0. Only the order of the values counts; equal
    values are ordered at random by `seed`, not by place. C_q: see `control_regions`.

    Painting over is exact for rendered scenes (`fill="background"`: the same scenes rendered with no concept). For
    photographs there is `fill="inpaint"`, which fills a region from its rim and needs nothing else. The transplant does
    not depend on it. What is scattered within a glyph is inpainted with the glyph, so the release by inpainting is
    small until a share has room for a whole one.

    Args:
        unit: whose response the maps explain.
        maps: [image, height, width] signed; negative is absence evidence. (Sum an attribution over its channels.)
        images: [image, channel, height, width] non-target inputs, those explained, normalised.
        targets: like images: target inputs of the unit, one for each.
        spread: standard deviation of the unit's response over untouched images, in the units of the layer.
        background: like images: what is behind the concepts. Needed for `fill="background"` only.
        shares: q, of the pixels, ascending, in 0..0.5 (the control must find room). At least one pixel is taken.
        fill: how regions are painted over, "background" or "inpaint".
        seed: of the order of ties and of the control regions; the same for every image.
        batch_size: about how many images go through the network at a time.

    Returns:
        Curves in sd, higher is better.

    Raises:
        InputError: shapes that disagree, values that are not finite, a spread of 0, unknown fill, no background.
    """
    shares = _checked(maps, images, shares, fill, background, spread, largest=0.5)
    if targets.shape != images.shape:
        problem = f"shape {tuple(targets.shape)} for images {tuple(images.shape)}"
        raise InputError("targets", problem, "Give one target image for each image.")
    counts = _counts(shares, images, most=images.shape[-2] * images.shape[-1] // 2)
    marked = [negative_regions(each, counts, seed) for each in maps]

    def changed():
        for index, image in enumerate(images):
            for regions in (marked[index], control_regions(marked[index], image, seed)):
                yield paint_over(image, regions, background[index] if fill == "background" else None)
                yield paint_over(targets[index], regions, image)  # the image's content, pasted

    answers = _respond(unit, changed(), batch_size) / float(spread)
    # [image, marked or control, painted over or pasted, share]
    answers = answers.view(len(images), 2, 2, len(shares))
    gain = answers[:, 0] - answers[:, 1]
    empty = ~torch.stack(marked).flatten(2).any(dim=2)  # the same image twice may differ by rounding
    gain = gain.masked_fill(empty[:, None], 0.0)
    return Faithfulness(shares, gain[:, 0], -gain[:, 1])


def descending_score(
    unit: Unit,
    maps: Tensor,
    images: Tensor,
    spread: float,
    *,
    background: Tensor | None = None,
    shares=SHARES,
    fill: str = "background",
    seed: int = 0,
    batch_size: int = 128,
) -> Tensor:
    """The usual measure, for comparison: remove pixels from the highest attribution down and watch the response fall.

    Pixel flipping (Samek et al., IEEE Transactions on Neural Networks and Learning Systems 28, 2017), with
    `fill="inpaint"` in the manner of ROAD (Rong et al., ICML 2022; its imputation without the noise). It looks at the
    presence end of a map. A map that is right about an absence and silent about the rest is, at that end, noise.

    Args:
        unit, maps, images, spread, background, fill, seed, batch_size: as for `faithfulness`.
        shares: of the pixels removed, ascending, in 0..1.

    Returns:
        [image] area under response(image) - response(the rest), see `curve_area`, in sd; higher is better.

    Raises:
        InputError: as `faithfulness`.
    """
    shares = _checked(maps, images, shares, fill, background, spread, largest=1.0)
    counts = _counts(shares, images, most=images.shape[-2] * images.shape[-1] - 1)

    def changed():
        for index, image in enumerate(images):
            order = pixel_ranks(-maps[index], seed)  # the highest first
            regions = torch.stack([order < count for count in (0, *counts)])
            yield paint_over(image, regions, background[index] if fill == "background" else None)

    answers = _respond(unit, changed(), batch_size).view(len(images), -1) / float(spread)
    return curve_area(answers[:, :1] - answers[:, 1:], shares)


@torch.no_grad()
def _respond(unit: Unit, parts: Iterable[Tensor], batch_size: int) -> Tensor:
    """Responses [image] to all images of all parts [image, channel, height, width], in their order."""
    answers, waiting = [], []
    for part in chain(parts, [None]):
        if part is not None:
            waiting.append(part)
        if waiting and (part is None or sum(map(len, waiting)) >= batch_size):
            answers.append(unit.response(torch.cat(waiting)).double().cpu())
            waiting = []
    return torch.cat(answers)


def _counts(shares, images: Tensor, most: int) -> list[int]:
    pixels = images.shape[-2] * images.shape[-1]
    return [min(most, max(1, int(share * pixels + 0.5))) for share in shares]


# -- maps that are known, and checks


def oracle_map(mask: Tensor, concept_sign: int = -1, rim: int = 0) -> Tensor:
    """The right answer for a planted concept: its sign inside the mask, 0 elsewhere.

    It says where, not how much: inside, all pixels are equal. With shares smaller than the mask, N_q is therefore a
    random part of it, and a map that knows which of its pixels the network minds most may score higher. And a
    network reads a glyph by its edge, which has two sides: pasted without its surround it may be hard to see. `rim`
    adds the outer side.

    Args:
        mask: [image, height, width] bool, as `scenes.Scenes.masks` of one concept.
        concept_sign: -1 for a concept whose absence the unit encodes, +1 for one whose presence it does.
        rim: by how many pixels the mask grows in every direction.

    Returns:
        Like mask, float.
    """
    if concept_sign not in (-1, 1):
        raise InputError("concept_sign", f"{concept_sign!r} is no sign", "Use -1 or 1.")
    require_at_least("rim", rim, 0)
    return F.max_pool2d(mask.float()[:, None], 2 * rim + 1, stride=1, padding=rim)[:, 0] * concept_sign


def random_map(shape, seed: int = 0) -> Tensor:
    """Gaussian noise, independent in every pixel, of this shape."""
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))


def _checked(maps, images, shares, fill, background, spread, largest) -> tuple[float, ...]:
    require_shape("images", images, "image", "channel", "height", "width")
    require_at_least("images", len(images), 1)
    require_shape("maps", maps, len(images), *images.shape[-2:])  # an attribution summed over channels
    if not torch.isfinite(maps).all():
        raise InputError("maps", "some values are not finite", "Check the attribution.")
    if not 0 < float(spread) < float("inf"):
        remedy = "Give the standard deviation of the unit over untouched images."
        raise InputError("spread", f"{spread} is no positive number", remedy)
    shares = tuple(float(share) for share in np.atleast_1d(shares))
    if not shares or shares[0] <= 0 or shares[-1] > largest or (np.diff(shares) <= 0).any():
        raise InputError("shares", f"{shares}", f"Give ascending shares above 0, up to {largest}.")
    require_choice("fill", fill, FILLS)
    if fill == "background" and (background is None or background.shape != images.shape):
        remedy = "Give images like `images` without any concept, or use fill='inpaint'."
        raise InputError("background", "none, or of another shape than the images", remedy)
    return shares
