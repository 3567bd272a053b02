"""How much of the pixel range an image uses, and what a unit makes of it: matched budgets for maximum and minimum.

A free synthesis may use all of the pixel range, and does: its responses lie far beyond those of natural images. At a
fixed contrast both poles have the budget of a natural image. The contrast of an image is the root mean square, over
pixels and channels, of its distance from the blank, a grey of the network's mean colour.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from scipy.stats import percentileofscore
from torch import Tensor

from absence_utils.errors import InputError, require_at_least
from absence_utils.images.base import normalisation_of
from absence_utils.images.subsets import Subset
from absence_utils.units import feature_map, image_batches, pool_space

from .facets import effects, likeness
from .parametrisation import at_contrast, blank_of, contrast_of, highest_contrast
from .rendering import RenderedPair, check_real

POLES = ("maximum", "minimum")
FAINT = 0.05  # quantile of natural images' contrast that both poles are held to
MARKS = (0.05, 0.95)  # quantiles of natural responses that count as a unit's natural range


def natural_contrast(model, dataset, most: int = 256) -> Tensor:
    """Contrast of images of a dataset that yields (image, label), normalised as the network expects: [image].

    Args:
        model: the network; its mean colour is the blank.
        dataset: the images.
        most: so many are looked at, evenly spread over the dataset.
    """
    require_at_least("most", most, 1)
    normalisation = normalisation_of(model)
    blank = blank_of(normalisation)
    spread = torch.linspace(0, len(dataset) - 1, min(most, len(dataset))).round().long()
    batches = image_batches(Subset(dataset, spread), 64, "contrast of the images")
    return torch.cat([contrast_of(normalisation.undo(images.cpu().float()), blank) for images in batches])


def faint_contrast(model, dataset, quantile: float = FAINT, most: int = 256) -> float:
    """A budget for `render_pairs`: a quantile of the contrast of a dataset's images, see `natural_contrast`.

    The default, their 5th percentile, is what nineteen of twenty images have. It is at most 0.95 of what an image can
    have at all, as black and white drawings do.

    Raises:
        InputError: a quantile out of range; images that do not differ from the blank.
    """
    if not 0 <= quantile <= 1:
        raise InputError("quantile", f"{quantile} is out of range", "Use 0 to 1.")
    found = float(natural_contrast(model, dataset, most).quantile(quantile))
    if not found > 0:
        raise InputError(
            "images", "they are blank: all in the network's mean colour", "Give images with a content."
        )
    return min(found, 0.95 * highest_contrast(blank_of(normalisation_of(model))))


def poles_of(pair: RenderedPair) -> dict[str, Tensor]:
    """The most extreme facet of each sign, "maximum" and "minimum": [channel, height, width] in 0..1."""
    return {
        "maximum": pair.highest.image[pair.highest.response.argmax()],
        "minimum": pair.lowest.image[pair.lowest.response.argmin()],
    }


def pole_table(pairs: Sequence[RenderedPair], real: Tensor) -> pd.DataFrame:
    """Where each pole lies among natural responses, one row for each unit and pole.

    Args:
        pairs: rendered units of one layer.
        real: [image, channel] responses of that layer to natural images.

    Returns:
        Columns unit, pole, contrast (of the image), response, percentile (of natural responses, 0..100), low and high
        (the natural responses at `MARKS`), `distance`: (response - mean) / sd over natural images, and `beyond`: how
        often the half range between median and mark the pole lies from the median; 1 is the mark itself.
    """
    check_real([pair.unit for pair in pairs], real)
    rows = []
    for pair in pairs:
        blank, natural = blank_of(normalisation_of(pair.unit.model)), pair.unit.of(real).double().numpy()
        low, middle, high = np.quantile(natural, (MARKS[0], 0.5, MARKS[1]))
        for (pole, image), mark, side in zip(
            poles_of(pair).items(), (high, low), (pair.highest, pair.lowest), strict=True
        ):
            response = float(side.response.max() if pole == "maximum" else side.response.min())
            rows.append({
                "unit": pair.unit.name, "pole": pole, "contrast": float(contrast_of(image[None], blank)),
                "response": response, "percentile": percentileofscore(natural, response, kind="mean"),
                "low": low, "high": high, "distance": (response - natural.mean()) / natural.std(ddof=1),
                "beyond": (response - middle) / (mark - middle) if mark != middle else np.nan,
            })  # fmt: skip
    return pd.DataFrame(rows)


@torch.no_grad()
def contrast_curve(
    pairs: Sequence[RenderedPair], real: Tensor, contrasts: Sequence[float], *, batch_size: int = 32
) -> pd.DataFrame:
    """The response to both poles as their contrast grows from the blank: what they reach at equal budgets.

    Args:
        pairs: rendered units of one layer.
        real: [image, channel] responses of that layer to natural images.
        contrasts: root mean square distances from the blank; 0 is the blank itself. A pole that is clipped before it
            has a contrast is shown with what it reaches.
        batch_size: images in one pass.

    Returns:
        Columns unit, pole, contrast (asked for), response, and percentile of natural responses (0..100).
    """
    units = [pair.unit for pair in pairs]
    check_real(units, real)
    require_at_least("contrasts", len(contrasts), 1)
    normalisation = normalisation_of(units[0].model)
    blank = blank_of(normalisation)
    asked, images = [], []
    for pair in pairs:
        for pole, image in poles_of(pair).items():
            for contrast in map(float, contrasts):
                asked.append((pair.unit, pole, contrast))
                images.append(at_contrast((image - blank)[None], blank, contrast))
    maps = [
        feature_map(units[0].model, units[0].layer, normalisation.apply(part)).cpu()
        for part in torch.cat(images).split(batch_size)
    ]
    rows = []
    for (unit, pole, contrast), values in zip(asked, torch.cat(maps), strict=True):
        response = float(unit.of(pool_space(values[None], unit.pool)))
        percentile = percentileofscore(unit.of(real).double().numpy(), response, kind="mean")
        rows.append((unit.name, pole, contrast, response, percentile))
    return pd.DataFrame(rows, columns=["unit", "pole", "contrast", "response", "percentile"])


def facet_table(pairs: Sequence[RenderedPair], layer: str | None = None) -> pd.DataFrame:
    """How good and how different the facets of each pole are, one row for each unit and pole.

    Args:
        pairs: rendered units of one layer, with two facets or more.
        layer: layer whose Gram matrices are compared; None for the units' own.

    Returns:
        Columns unit, pole, facets, kept (the weakest facet's effect as a share of the best one's, both measured from
        the blank: 1 is as good) and diversity (1 - the mean cosine between the facets' Gram matrices, those of images
        that differ in nothing are 0 apart).
    """
    rows = []
    for pair in pairs:
        for pole, sign, side in zip(POLES, (1, -1), (pair.highest, pair.lowest), strict=True):
            found = effects(pair.unit, side.image, side.response, sign)
            alike, count = likeness(pair.unit.model, layer or pair.unit.layer, side.image), len(found)
            apart = 1 - (alike.sum() - alike.trace()) / (count * (count - 1)) if count > 1 else 0.0
            rows.append((pair.unit.name, pole, count, float(found.min() / found.max()), float(apart)))
    return pd.DataFrame(rows, columns=["unit", "pole", "facets", "kept", "diversity"])
