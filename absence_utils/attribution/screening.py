"""Which inputs suppress a unit: a whole dataset screened with one backward pass an input.

Attribution maps are drawn for a few inputs. To find these few, and for the absence matrix, every input of a
dataset is scored by input x gradient, (image - baseline) x gradient: the cheapest signed attribution,
complete only to first order. The figures then draw the chosen inputs with the method asked for.

Evidence is read off regions of the image, not off pixels (`attribution.region_sums`). On concept scenes this
decides whether planted absences are found: clipped pixel by pixel, concepts a rule does not mention carry as
much absence evidence as planted ones; clipped by regions the planted ones stand alone. A test holds this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from absence_utils.display import one_line
from absence_utils.errors import InputError
from absence_utils.units import Unit, class_of_output, feature_map, image_batches, pool_space

from .baselines import baseline_images
from .evidence import absence_evidence, presence_evidence, region_sums
from .gradients import input_x_gradient
from .methods import attribute


@dataclass(frozen=True, eq=False)
class Screening:
    """Responses and evidence of units over a dataset.

    Attributes:
        units: names of the units, in the order of the columns below.
        response: [image, unit] signed response, in the units of the layer.
        absence: [image, unit] absence evidence of the image's regions, summed, >= 0, in the units of the
        layer.
        presence: [image, unit] the same for presence evidence.
        outputs: number of units of the layer.
    """

    units: list[str]
    response: Tensor
    absence: Tensor
    presence: Tensor
    outputs: int

    __repr__ = one_line


def screen(
    units: Sequence[Unit], dataset, *, baseline: str | Tensor = "zero", regions: int = 4, batch_size: int = 32
) -> Screening:
    """Response, absence and presence evidence of every unit on every image, by input x gradient.

    One forward pass an image for all units together, then one backward pass for each unit.

    Args:
        units: of one layer of one network.
        dataset: an image dataset, see `images`.
        baseline: see `attribution.baseline_images`.
        regions: squares along the longer side of the image, see `attribution.region_sums`; 0 clips every
            pixel and channel by itself, as `attribution.absence_evidence` does.

    Raises:
        InputError: no units, units of different layers, an empty dataset.
    """
    first = _shared_layer(units)
    parts = []
    for images in image_batches(dataset, batch_size, f"screening {first.layer or 'the output'}"):
        images = images.to(first.device)
        reference = baseline_images(first, images, baseline)
        rows = []
        with torch.enable_grad():
            change = (images - reference).requires_grad_()
            pooled = pool_space(feature_map(first.model, first.layer, reference + change), first.pool)
            outputs, found = pooled.shape[1], torch.stack([unit.of(pooled) for unit in units], dim=1)
            for index in range(len(units)):
                evidence = input_x_gradient(found, change, index)
                signed = region_sums(evidence, regions)[:, None] if regions else evidence
                totals = (part(signed).sum(dim=(1, 2)) for part in (absence_evidence, presence_evidence))
                rows.append(torch.stack((found[:, index].detach(), *totals)))
        del pooled, found  # and with them the graph, before the next batch makes its own
        parts.append(torch.stack(rows).cpu())
    found = torch.cat(parts, dim=2)  # [unit, (response, absence, presence), image]
    return Screening([unit.name for unit in units], *found.permute(1, 2, 0), outputs=outputs)


def _shared_layer(units: Sequence[Unit]) -> Unit:
    if not units:
        raise InputError("units", "there are none", "Give at least one unit.")
    first = units[0]
    if any((unit.model, unit.layer, unit.pool) != (first.model, first.layer, first.pool) for unit in units):
        raise InputError(
            "units", "they belong to different layers", "Screen the units of one layer at a time."
        )
    return first


@dataclass(frozen=True, eq=False)
class TargetSplit:
    """Target and non-target inputs of one unit.

    Attributes:
        target: [image] bool, True for target inputs.
        by: what decided, in words for titles: "class 'tench'" or "median response".
    """

    target: Tensor
    by: str

    __repr__ = one_line


def target_split(
    unit: Unit, dataset, responses: Tensor, *, outputs: int | None = None, target_class: int | None = None
) -> TargetSplit:
    """Target / non-target inputs of a unit (design section 2).

    A class unit (a channel of the network's output, where the dataset has as many classes as the network has
    outputs) is split by the dataset's membership: column k belongs to unit k. All others are split by the
    unit's median response: hidden units, directions, and outputs of a network with other classes than the
    dataset. So is a class unit of which the dataset shows no target input, or only target inputs. `by` says
    which it was.

    Args:
        responses: [image] the unit's responses to the dataset, as in `Screening.response`.
        outputs: number of units of the layer, as in `Screening.outputs`; without it only `target_class`
        makes a class.
        target_class: column of membership to split by, whatever the unit.

    Raises:
        InputError: `target_class` out of range, or responses of another dataset.
    """
    names, membership = dataset.class_names, dataset.membership
    if len(responses) != len(dataset):
        raise InputError(
            "responses", f"{len(responses)} for {len(dataset)} images", "Give one for each image."
        )
    if target_class is not None and not 0 <= target_class < len(names):
        raise InputError(
            "target_class", f"{target_class} of {len(names)} classes", f"Use 0 to {len(names) - 1}."
        )
    known = class_of_output(unit.layer, unit.channel, names, outputs or 0) if unit.is_output else None
    if target_class is None and known is not None:
        target_class = unit.channel
    if target_class is not None:
        target = torch.as_tensor(membership)[:, target_class].bool()
        if 0 < int(target.sum()) < len(target):
            return TargetSplit(target, f"class '{names[target_class]}'")
    target = responses > responses.median()
    if not target.any():  # so many share the median that none is above it
        target = responses >= responses.median()
    if target.all():
        # a unit that never changes, such as any output of a random ViT, whose head is zero: there is nothing to split
        return TargetSplit(
            torch.arange(len(responses)) < len(responses) // 2, "order, its response is constant"
        )
    return TargetSplit(target, "median response")


def top_absence_inputs(absence: Tensor, split: TargetSplit, k: int = 4) -> Tensor:
    """The k non-target inputs that carry the most absence evidence, most first.

    Args:
        absence: [image] a unit's absence evidence, a column of `Screening.absence`.

    Returns:
        [<= k] positions in the dataset.
    """
    return _top(absence, ~split.target, k)


def rerank_by_occlusion(
    unit: Unit,
    dataset,
    candidates: Tensor,
    k: int = 4,
    *,
    baseline="zero",
    regions: int = 4,
    batch_size: int = 32,
) -> Tensor:
    """The k of some candidates whose regions hold the response down most, when each is covered once.

    A gradient speaks of small changes only: an input can carry much of it and still lose response when its content
    is taken away. Covering every region with the baseline (occlusion in squares that do not overlap) is a second
    witness, at `regions` squared forward passes an input: affordable for a few candidates, not for a dataset.

    Args:
        candidates: positions in the dataset, as `top_absence_inputs` gives them.

    Returns:
        [<= k] of these positions, most absence evidence first.
    """
    images = torch.stack([dataset[int(place)][0] for place in candidates])
    window = max(1, min(images.shape[-2:]) // regions)
    covering = {"window": window, "stride": window, "baseline": baseline, "batch_size": batch_size}
    drops = region_sums(attribute(unit, images, "occlusion", **covering), regions)
    order = drops.clamp(max=0).sum(dim=(1, 2)).argsort(stable=True)
    return candidates[order[:k].cpu()]


def top_target_inputs(responses: Tensor, split: TargetSplit, k: int = 4) -> Tensor:
    """The k target inputs with the highest response, highest first: [<= k] positions in the dataset."""
    return _top(responses, split.target, k)


def _top(score: Tensor, allowed: Tensor, k: int) -> Tensor:
    places = torch.nonzero(allowed).flatten()
    return places[score[places].argsort(descending=True, stable=True)[:k]]
