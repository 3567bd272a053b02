"""Several images for one pole: which of many candidates are kept, how good they are and how much they differ."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from absence_utils.images.base import normalisation_of
from absence_utils.units import Unit, feature_map

KEPT = 0.85  # share of the best candidate's effect that a facet must have


@torch.no_grad()
def effects(unit: Unit, pixels: Tensor, response: Tensor, sign: int) -> Tensor:
    """How far images move a unit from its response to the blank, in the direction of `sign`: [image]."""
    blank = torch.zeros_like(pixels[:1])  # normalised
    return sign * (response.cpu() - unit.response(blank).cpu())


@torch.no_grad()
def likeness(model: nn.Module, layer: str | None, pixels: Tensor) -> Tensor:
    """Cosine between the Gram matrices of a layer's values, for each pair of images: [image, image], 1 is alike.

    A Gram matrix tells which channels are active together and not where, as the `objectives.apart` does.
    """
    values = feature_map(model, layer, normalisation_of(model).apply(pixels)).cpu()
    flat = values.flatten(2) if values.ndim > 2 else values[:, :, None]
    grams = nn.functional.normalize((flat @ flat.transpose(1, 2)).flatten(1), dim=1)
    return grams @ grams.T


def choose_facets(effect: Tensor, alike: Tensor, count: int) -> list[int]:
    """The best candidate, and then always the one that differs most from those chosen, among the good ones.

    Good are those with `KEPT` of the best one's effect: no facet is weaker, and there may be fewer than asked for.

    Args:
        effect: [candidate], larger is better.
        alike: [candidate, candidate], see `likeness`.
        count: how many to choose, at most.

    Returns:
        Places, the best first.
    """
    best = int(effect.argmax())
    left = [place for place in range(len(effect)) if place != best and effect[place] >= KEPT * effect[best]]
    chosen = [best]
    while left and len(chosen) < count:
        chosen.append(min(left, key=lambda place: float(alike[place, chosen].max())))
        left.remove(chosen[-1])
    return chosen
