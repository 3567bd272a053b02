"""What the bookkeeping leaves open: does showing a concept end the response of a unit that fires?

The account of one prediction (`diagnosis`) cannot tell an encoded absence from a bias, nor from interference. An exact
counterfactual pair can: the same image with and without one concept. Where the unit fires without the concept and no
longer with it, the concept decides: the unit counts on its absence. Where the response only falls, the unit still says
the same. That is stricter than definition 2.1 of the paper: by it every fall is an encoded absence, interference too.

What pairs of one unit cannot tell either:

- whether a concept that lowers the unit but ends nothing is interference or a graded influence
- whether a concept that ends the response is part of a rule. A crowd of interfering concepts ends any response (three
  in "superposed decoy"), so show one concept at a time, in images such as the network is made for
- anything about concepts and images that were not shown. A concept may act only next to others ("A and not B", "count
  below k"), so give pairs in many contexts
- where the unit starts to fire. That is the caller's to say, and the answer depends on it
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from absence_utils.errors import InputError, brief, require_choice
from absence_utils.units import Unit

# As a share of the largest response: float32 rounds a sum whose terms cancel to about that. Without it, what is left of
# a response that should be 0 would count as firing.
ROUNDING = 1e-5

EFFECTS = ("ends", "lowers", "raises", "none", "does not fire")

# {verdict of the bookkeeping: (one of the concepts ends the response, none does)}
RESOLVED = {
    "baseline-driven": ("absence-driven", "bias-driven"),
    "outweighed": ("vetoed", "interference"),
    "held down": ("suppressed", "interference"),
}


@dataclass(frozen=True)
class CounterfactualEffect:
    """What showing one concept does to a unit.

    Attributes:
        concept: its name.
        effect: one of `EFFECTS`, see `counterfactual_effects`.
        firing: number of pairs in which the unit fires without the concept; no others count.
        ended: in how many of these it does not fire with it.
        change: response with the concept minus without, mean over these, in the units of the layer; NaN if there are
            none.
    """

    concept: str
    effect: str
    firing: int
    ended: int
    change: float


def counterfactual_effects(
    unit: Unit, pairs: Mapping[str, tuple[Tensor, Tensor]], threshold: float = 0.0, *, batch_size: int = 64
) -> tuple[CounterfactualEffect, ...]:
    """Say of each concept whether it ends the response of a unit that fires, only changes it, or does nothing.

    A unit fires where its response is above the threshold. Only pairs count in which it fires without the concept. The
    first line that holds is the effect:

    - does not fire: there is no such pair; the unit needs the concept, or the images are not for it
    - ends: with the concept, the response is at or below the threshold in at least one pair
    - lowers, raises: the response falls or rises on average, and stays above the threshold in all pairs
    - none: it does neither

    One pair ends it, because a veto acts in few contexts; `ended` of `firing` says in how many. Multiplying unit and
    threshold by a positive number changes nothing: what is smaller than ROUNDING times the largest response is taken
    for 0.

    Args:
        unit: any unit, read before its nonlinearity (`Unit.signed` for an output that ends in one).
        pairs: {concept: (images that show it, the same images without it)}, in the order of
            `images.scenes.counterfactual_pairs`; each [pair, channel, height, width] or one [channel, height, width],
            normalised as the network expects.
        threshold: above it the unit fires, in the units of the layer; 0 is the rectifier's.
        batch_size: images in one pass.

    Returns:
        One effect for each concept, in the order given.

    Raises:
        InputError: no concepts; images with and without a concept that differ in shape; a threshold or a response that
            is not finite; a unit that fires on no image without a concept.
    """
    if not isinstance(pairs, Mapping) or not pairs:
        raise InputError("pairs", f"no concepts in {brief(pairs)}", "Give {concept: (shown, hidden)}.")
    if not math.isfinite(threshold):
        raise InputError("threshold", f"{threshold}", "Give a finite response above which the unit fires.")
    read = {name: _responses(unit, name, pair, batch_size) for name, pair in pairs.items()}
    largest = max(float(values.abs().max()) for values in read.values())
    effects = tuple(_effect(name, *values, threshold, ROUNDING * largest) for name, values in read.items())
    if not any(effect.firing for effect in effects):
        highest = max(float(hidden.max()) for _, hidden in read.values())
        problem = (
            f"{unit.name} fires on no image without a concept: at most {highest:g}, threshold {threshold:g}"
        )
        raise InputError("pairs", problem, "Give images on which it fires (target inputs), or its threshold.")
    return effects


def resolve_verdict(verdict: str, effects: Sequence[CounterfactualEffect]) -> str:
    """What a verdict of the bookkeeping stands for, now that concepts were shown.

    - baseline-driven: "absence-driven" if a concept ends the response, else "bias-driven". Give the effects of concepts
      that the image lacks
    - held down: "suppressed" if a concept ends the response, else "interference" (or a graded influence). Give the
      effects of concepts that the image shows
    - outweighed: "vetoed" or "interference", likewise

    "bias-driven" and "interference" speak of the concepts and contexts that were tried, and of no others.

    Args:
        verdict: of `diagnosis.diagnose`, one of `RESOLVED`; the others need no concept to be shown.
        effects: of `counterfactual_effects`.

    Raises:
        InputError: another verdict; no effects, or none of a unit that fires.
    """
    require_choice("verdict", verdict, RESOLVED)
    if not any(effect.firing for effect in effects):
        problem = f"{len(effects)} effects, none of a unit that fires"
        raise InputError("effects", problem, "Show a concept in images on which the unit fires.")
    ends, none_does = RESOLVED[verdict]
    return ends if any(effect.effect == "ends" for effect in effects) else none_does


@torch.no_grad()
def _responses(unit: Unit, concept: str, pair, batch_size: int) -> Tensor:
    """[shown and hidden, pair], float64 on the CPU."""
    halves = pair if isinstance(pair, (tuple, list)) else ()
    shapes = [tuple(half.shape) if isinstance(half, Tensor) else type(half).__name__ for half in halves]
    if len(shapes) != 2 or shapes[0] != shapes[1] or len(shapes[0]) not in (3, 4) or not halves[0].numel():
        problem = f"{concept!r} has {' and '.join(map(str, shapes)) or type(pair).__name__}"
        remedy = "Give the same images with and without it, twice [pair, channel, height, width]."
        raise InputError("pairs", problem, remedy)
    images = torch.cat([half if half.ndim == 4 else half[None] for half in halves])
    read = torch.cat([unit.response(part).double().cpu() for part in images.split(batch_size)])
    if not read.isfinite().all():
        remedy = "Look for NaN in the images and the network."
        raise InputError("pairs", f"a response to the images of {concept!r} is not finite", remedy)
    return read.view(2, -1)


def _effect(
    concept: str, shown: Tensor, hidden: Tensor, threshold: float, rounding: float
) -> CounterfactualEffect:
    fires = hidden > threshold + rounding
    ended = fires & (shown <= threshold + rounding)
    change = float((shown - hidden)[fires].mean())
    if not fires.any():
        effect = "does not fire"
    elif ended.any():
        effect = "ends"
    elif abs(change) <= rounding:
        effect = "none"
    else:
        effect = "raises" if change > 0 else "lowers"
    return CounterfactualEffect(concept, effect, int(fires.sum()), int(ended.sum()), change)
