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

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import splu
from scipy.stats import spearmanr
from torch import Tensor

from .errors import InputError
from .stats import Estimate, paired_difference
from .units import Unit

SHARES = (0.01, 0.02, 0.05, 0.1, 0.2)
FILLS = ("background", "inpaint")
NEIGHBOURS = {  # offset -> weight in `inpaint`, those of ROAD
    (y, x): 1 / 12 if x and y else 1 / 6 for y in (-1, 0, 1) for x in (-1, 0, 1) if x or y
}  # fmt: skip


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
        return {name: _mean(values, level) for name, values in parts.items()}


@dataclass(frozen=True)
class FillAgreement:
    """How far the two ways of painting over disagree, see `fill_agreement`.

    Attributes:
        difference: mean over images of score(background) - score(inpaint) with its t interval, in sd.
        rank_correlation: Spearman's, over images, of the areas under the two release curves; NaN if one is constant.
    """

    difference: Estimate
    rank_correlation: float


def _mean(values: Tensor, level: float = 0.95) -> Estimate:
    if len(values) > 1 and (values == values[0]).all():  # a map that says nothing: no scatter, no interval
        return Estimate(*(float(values[0]),) * 3)
    return paired_difference(values, torch.zeros_like(values), level)


def curve_area(curves: Tensor, shares) -> Tensor:
    """Area under curves [image, share] over log(share), trapezoids, divided by the width: a mean height, [image].

    Logarithmic, so that every doubling of the region counts alike. Over the share itself the step from 10 to 20 %
    would be half of the area, though by then nearly any map has covered a glyph: it is in the first few percent that
    maps differ. One share is its own area.
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
    photographs there is `fill="inpaint"`, which fills a region from its rim and needs nothing else; how far the two
    disagree tells `fill_agreement`. The transplant does not depend on it.

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
    counts, empty, answers = _counts(shares, images), [], []
    step = max(1, batch_size // (4 * len(shares)))
    for start in range(0, len(images), step):
        changed = []
        for index in range(start, min(start + step, len(images))):
            image, behind = images[index], None if fill == "inpaint" else background[index]
            marked = negative_regions(maps[index], counts, seed)
            control = control_regions(marked, image, seed)
            empty.append(~marked.flatten(1).any(dim=1))
            for regions in (marked, control):
                changed += [paint_over(image, regions, behind), torch.where(
                    regions[:, None].to(image.device), image, targets[index])]  # fmt: skip
        answers.append(_respond(unit, torch.cat(changed)).view(-1, 2, 2, len(shares)))
    answers = torch.cat(answers) / spread  # [image, marked or control, painted over or pasted, share]
    gain = answers[:, 0] - answers[:, 1]
    gain = gain.masked_fill(torch.stack(empty)[:, None], 0.0)
    return Faithfulness(shares, gain[:, 0], -gain[:, 1])


def fill_agreement(background: Faithfulness, inpaint: Faithfulness) -> FillAgreement:
    """Do the two ways of painting over tell the same? From two results for the same maps and images.

    Ranks are those of the release alone: the transplant paints nothing over, is the same in both, and would make
    them agree.

    Raises:
        InputError: other numbers of images, or fewer than two.
    """
    if len(background.score) != len(inpaint.score):
        raise InputError("inpaint", "not as many images as in background", "Measure the same images twice.")
    first, second = background.release_area, inpaint.release_area
    constant = any(bool((area == area[0]).all()) for area in (first, second))
    ranks = float("nan") if constant else float(spearmanr(first, second).statistic)
    return FillAgreement(_mean(background.score - inpaint.score), ranks)


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
) -> Tensor:
    """The usual measure, for comparison: remove pixels from the highest attribution down and watch the response fall.

    Pixel flipping (Samek et al., IEEE Transactions on Neural Networks and Learning Systems 28, 2017), with
    `fill="inpaint"` in the manner of ROAD (Rong et al., ICML 2022; its imputation without the noise). It looks at the
    presence end of a map. A map that is right about an absence and silent about the rest is, at that end, noise.

    Args:
        unit, maps, images, spread, background, fill, seed: as for `faithfulness`.
        shares: of the pixels removed, ascending, in 0..1.

    Returns:
        [image] area under response(image) - response(the rest), see `curve_area`, in sd; higher is better.

    Raises:
        InputError: as `faithfulness`.
    """
    shares = _checked(maps, images, shares, fill, background, spread, largest=0.99)
    falls = []
    for index, image in enumerate(images):
        order = _ranks(-maps[index], seed)  # the highest first
        regions = torch.stack([order < count for count in _counts(shares, images)])
        behind = None if fill == "inpaint" else background[index]
        answers = _respond(unit, torch.cat([image[None], paint_over(image, regions, behind)]))
        falls.append((answers[0] - answers[1:]) / spread)
    return curve_area(torch.stack(falls), shares)


# -- regions


def _ranks(values: Tensor, seed: int) -> Tensor:
    """[height, width]: 0 for the lowest value; ties in a random order."""
    flat = values.detach().flatten().cpu().double().numpy()
    chance = np.random.default_rng([seed, 0]).random(flat.size)
    ranks = np.empty(flat.size, dtype=int)
    ranks[np.lexsort((chance, flat))] = np.arange(flat.size)
    return torch.from_numpy(ranks).view(values.shape)


def _counts(shares, images: Tensor) -> list[int]:
    pixels = images.shape[-2] * images.shape[-1]
    return [max(1, int(share * pixels + 0.5)) for share in shares]


def negative_regions(values: Tensor, counts: list[int], seed: int = 0) -> Tensor:
    """The `counts` most negative pixels of a map [height, width], fewer if fewer are below 0: [count, h, w] bool."""
    ranks, negative = _ranks(values, seed), (values < 0).cpu()
    return torch.stack([(ranks < count) & negative for count in counts])


def control_regions(regions: Tensor, image: Tensor, seed: int = 0) -> Tensor:
    """For each region another one of the same image: as many pixels, the same shape, similar contrast.

    A region is mirrored, turned by quarters (square images) and shifted around the borders in every way. Of all these
    places that one is taken where the sum of two numbers is smallest: the relative difference of contrast, and the
    share of its pixels that lie in *any* of the regions. The latter are then moved to random pixels outside, so
    controls never touch what the map marks. (Were only its own region forbidden, the control of a few pixels of a glyph
    would be the glyph's other pixels.) For a compact region next to none have to move, for noise as many as it must.

    Contrast is the root mean square distance from the image's mean colour, not the deviation within the region: a
    glyph of one colour has none within.

    Args:
        regions: [region, height, width] bool, together at most half of the pixels.
        image: [channel, height, width].
        seed: of the pixels that move, and of the choice between equal places.

    Returns:
        Like regions; an empty region has an empty control.
    """
    taken = regions.any(dim=0).numpy()
    pixels = image.detach().cpu().double().numpy()
    energy = ((pixels - pixels.mean(axis=(1, 2), keepdims=True)) ** 2).mean(axis=0)
    generator = np.random.default_rng([seed, 1])
    return torch.stack([torch.from_numpy(_control(each, taken, energy, generator)) for each in regions.numpy()])


def _control(region, taken, energy, generator) -> np.ndarray:
    size = int(region.sum())
    if size == 0:
        return region
    square = region.shape[0] == region.shape[1]
    turns = [np.rot90(way, k) for way in (region, region[::-1]) for k in range(0, 4, 1 if square else 2)]
    spectrum = np.fft.rfft2(np.stack([energy, taken.astype(float)]))
    # the sum of energy, and of taken pixels, under every turn at every shift
    under = np.fft.irfft2(np.conj(np.fft.rfft2(np.stack(turns)))[:, None] * spectrum, s=region.shape) / size
    contrast, own = np.sqrt(under[:, 0].clip(0)), np.sqrt(energy[region].mean())
    cost = (np.abs(contrast - own) / max(own, 1e-9) + under[:, 1]).round(6)  # rounded: equal is equal
    turn, *shift = np.unravel_index(generator.choice(np.flatnonzero(cost == cost.min())), cost.shape)
    placed = np.roll(turns[turn], shift, axis=(0, 1))
    control = placed & ~taken
    free = np.flatnonzero(~placed & ~taken)
    control.flat[generator.choice(free, size - int(control.sum()), replace=False)] = True
    return control


# -- changing images


def paint_over(image: Tensor, regions: Tensor, behind: Tensor | None = None) -> Tensor:
    """One image [channel, height, width] with each region [region, height, width] painted over.

    By `behind`, shaped like the image, or where it is None by `inpaint`: [region, channel, height, width].
    """
    if behind is None:
        return torch.stack([inpaint(image, region) for region in regions])
    return torch.where(regions[:, None].to(image.device), behind.to(image), image)


def inpaint(image: Tensor, region: Tensor) -> Tensor:
    """Fill a region from its rim: every pixel of it becomes the weighted mean of its eight neighbours, solved exactly.

    The linear imputation of ROAD (Rong et al., ICML 2022, section 4), without its noise. Nothing of what was inside is
    left, and the region must leave at least one pixel.

    Args:
        image: [channel, height, width].
        region: [height, width] bool.
    """
    rows, columns = np.nonzero(region.numpy())
    if len(rows) == 0:
        return image.clone()
    height, width = region.shape
    number = np.full((height, width), -1)
    number[rows, columns] = np.arange(len(rows))
    pixels = image.detach().cpu().double().numpy()
    total, known, entries = np.zeros(len(rows)), np.zeros((len(rows), len(pixels))), []
    for (down, right), weight in NEIGHBOURS.items():
        y, x = rows + down, columns + right
        here = np.flatnonzero((y >= 0) & (y < height) & (x >= 0) & (x < width))
        y, x = y[here], x[here]
        other, total[here] = number[y, x], total[here] + weight
        rim = other < 0
        known[here[rim]] += weight * pixels[:, y[rim], x[rim]].T
        entries.append(np.stack([here[~rim], other[~rim], np.full((~rim).sum(), -weight)]))
    row, column, value = np.concatenate([*entries, np.stack([np.arange(len(rows))] * 2 + [total])], axis=1)
    system = coo_matrix((value, (row.astype(int), column.astype(int)))).tocsc()
    result = image.detach().clone()
    result[:, rows, columns] = torch.from_numpy(splu(system).solve(known).T).to(image)
    return result


@torch.no_grad()
def _respond(unit: Unit, images: Tensor) -> Tensor:
    return unit.response(images).double().cpu()


# -- maps that are known, and checks


def oracle_map(mask: Tensor, concept_sign: int = -1) -> Tensor:
    """The right answer for a planted concept: its sign inside the mask, 0 elsewhere.

    Args:
        mask: [..., height, width] bool, as `scenes.Scenes.masks` of one concept.
        concept_sign: -1 for a concept whose absence the unit encodes, +1 for one whose presence it does.

    Returns:
        Like mask, float.
    """
    if concept_sign not in (-1, 1):
        raise InputError("concept_sign", f"{concept_sign!r} is no sign", "Use -1 or 1.")
    return mask.float() * concept_sign


def random_map(shape, seed: int = 0) -> Tensor:
    """Gaussian noise, independent in every pixel, of this shape."""
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))


def _checked(maps, images, shares, fill, background, spread, largest) -> tuple[float, ...]:
    if images.ndim != 4 or len(images) == 0:
        raise InputError("images", f"shape {tuple(images.shape)}", "Give [image, channel, height, width].")
    if tuple(maps.shape) != (len(images), *images.shape[-2:]):
        problem = f"shape {tuple(maps.shape)} for images {tuple(images.shape)}"
        raise InputError("maps", problem, "Give [image, height, width]: sum an attribution over channels.")
    if not torch.isfinite(maps).all():
        raise InputError("maps", "some values are not finite", "Check the attribution.")
    if not (np.isfinite(spread) and spread > 0):
        remedy = "Give the standard deviation of the unit over untouched images."
        raise InputError("spread", f"{spread} is no positive number", remedy)
    shares = tuple(float(share) for share in np.atleast_1d(shares))
    if not shares or shares[0] <= 0 or shares[-1] > largest or (np.diff(shares) <= 0).any():
        raise InputError("shares", f"{shares}", f"Give ascending shares above 0, up to {largest}.")
    if fill not in FILLS:
        raise InputError("fill", f"{fill!r} is no way to paint over", f"Use one of {', '.join(FILLS)}.")
    if fill == "background" and (background is None or background.shape != images.shape):
        remedy = "Give images like `images` without any concept, or use fill='inpaint'."
        raise InputError("background", "none, or of another shape than the images", remedy)
    return shares
