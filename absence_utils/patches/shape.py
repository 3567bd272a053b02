"""Shape of the response: how skewed natural responses are, and how far they lie below and above the blank.

The blank is the input that is 0 after normalisation, the mean colour. A unit whose natural responses never go
below its response to the blank has no low side: no image pushes it down, and its minimum shows little.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor, nn

from absence_utils.errors import InputError
from absence_utils.stats import ROUNDING, percentile_of
from absence_utils.units import responses as layer_responses

FEWEST = 3  # responses: fewer have no skewness
COMPARED = ("skewness", "share_below")  # with the units of random copies
MOST = 2 / 3  # of the range: as much on one side is most of it


@torch.no_grad()
def blank_response(model: nn.Module, layer: str | None, image: Tensor, pool: str = "mean") -> Tensor:
    """Responses of all units to a blank shaped as `image` [channel, height, width]: [unit], on the CPU."""
    return layer_responses(model, layer, image.new_zeros(1, *image.shape), pool)[0].float().cpu()


def share_below(lowest, blank, highest):
    """Part in 0..1 of the range from lowest to highest [unit] that is below the blank; NaN without range."""
    lowest, blank, highest = (np.asarray(each, float) for each in (lowest, blank, highest))
    span = np.where(highest > lowest, highest - lowest, np.nan)
    return ((blank - lowest) / span).clip(0, 1)


def response_shape(responses, blank, *, ends: tuple | None = None, images=None) -> pd.DataFrame:
    """Skewness of natural responses, and where the blank lies among them.

    Args:
        responses: [image, unit] signed natural responses, of whole images or of windows drawn at random.
        blank: [unit] response to the blank, see `blank_response`.
        ends: (lowest, highest), each [unit], where more is known of the extremes than these responses show.
        images: [image] number of the image that each response is of; windows of one image count as one
            observation. Each response is an observation of its own if None.

    Returns:
        One row a unit: blank and sd of the responses (units of the layer), skewness (corrected for bias) with
        the ends of its 95% interval skewness_low and skewness_high, blank_percentile (0..100, ties counted
        half), p5_sd, p95_sd, lowest_sd and highest_sd (5th and 95th percentile and extremes minus the blank,
        in sd: below 0 where they lie below it), share_below (0..1, see `share_below`). A unit whose responses
        never change has NaN. The interval is that of a large sample (influence of each image, Student's t).
        It is too short for long tails: it covers 0.92 to 0.97 where the skewness is 0, and with 150 images
        0.83 where it is 1 (a gamma distribution) and 0.71 where it is 2 (exponential); with 600 images 0.89
        and 0.82.

    Raises:
        InputError: fewer than three responses, or another number of units in `blank`.
    """
    values, blank = np.asarray(responses, float), np.asarray(blank, float)
    if values.ndim != 2 or len(values) < FEWEST:
        problem = f"shape {values.shape} has no skewness"
        raise InputError("responses", problem, f"Give [image, unit] with {FEWEST} images or more.")
    if blank.shape != values.shape[1:]:
        problem = f"shape {blank.shape}, the responses are of {values.shape[1]} units"
        raise InputError("blank", problem, "Give one response for each unit.")
    lowest, highest = (values.min(axis=0), values.max(axis=0)) if ends is None else ends
    flat = np.ptp(values, axis=0) <= ROUNDING * np.abs(values).max(axis=0)
    sd = np.where(flat, np.nan, values.std(axis=0, ddof=1))
    skewness, half = _skewness((values - values.mean(axis=0)) / sd, images)
    p5, p95 = np.percentile(values, (5, 95), axis=0)
    below = 50 * ((values < blank).mean(axis=0) + (values <= blank).mean(axis=0))
    marks = {"p5": p5, "p95": p95, "lowest": np.asarray(lowest, float), "highest": np.asarray(highest, float)}
    return pd.DataFrame({
        "blank": blank,
        "sd": sd,
        "skewness": skewness,
        "skewness_low": skewness - half,
        "skewness_high": skewness + half,
        "blank_percentile": np.where(flat, np.nan, below),
        **{f"{name}_sd": (mark - blank) / sd for name, mark in marks.items()},
        "share_below": share_below(lowest, blank, highest),
    })  # fmt: skip


def _skewness(scaled: np.ndarray, images=None) -> tuple[np.ndarray, np.ndarray]:
    """Skewness of standardised responses [image, unit], and half the width of its interval: each [unit]."""
    count = len(scaled)
    scaled = scaled * np.sqrt(count / (count - 1))  # by the sd of these responses, as moments are
    third = (scaled**3).mean(axis=0)
    influence = scaled**3 - third - 3 * scaled - 1.5 * third * (scaled**2 - 1)
    each = np.arange(count) if images is None else np.asarray(images)
    summed = pd.DataFrame(influence).groupby(each).sum().to_numpy()
    clusters = len(summed)
    if clusters < 2:
        return stats.skew(scaled, bias=False), np.full(scaled.shape[1], np.nan)
    error = np.sqrt(clusters / (clusters - 1) * (summed**2).sum(axis=0)) / count
    return stats.skew(scaled, bias=False), stats.t.ppf(0.975, clusters - 1) * error


def beside_copies(shape: pd.DataFrame, copies: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Where each unit lies among the units of copies with random weights, as a description and no test.

    Args:
        shape: of a layer, see `response_shape`.
        copies: the same of each copy.

    Returns:
        One row a unit: skewness_percentile and share_below_percentile, percent of the copies' units below it.
    """
    pooled = {name: np.concatenate([each[name] for each in copies]) if copies else [] for name in COMPARED}
    found = {f"{name}_percentile": percentile_of(shape[name], null) for name, null in pooled.items()}
    return pd.DataFrame(found, index=shape.index)


def describe_shape(shape: pd.Series, copies: pd.DataFrame) -> str:
    """The shape of one unit in words, with the 5th to 95th percentile of the copies' units in brackets.

    Args:
        shape: a row of `response_shape` of whole images.
        copies: rows of the units of all copies, none for no brackets.
    """
    if np.isnan(shape["sd"]):
        return "Its response never changes: it has no shape."
    said = dict.fromkeys(COMPARED, "")
    if copies[COMPARED[0]].notna().any():
        low, high = (copies[list(COMPARED)].quantile(share) for share in (0.05, 0.95))
        said["skewness"] = f" (random copies: {_number(low.skewness)} to {_number(high.skewness)})"
        said["share_below"] = f" (random copies: {low.share_below:.0%} to {high.share_below:.0%})"
    low, high = _number(shape["skewness_low"]), _number(shape["skewness_high"])
    return (
        f"Skewness {_number(shape['skewness'])} [{low}, {high}]{said['skewness']}. The blank image (mean "
        f"colour) lies at percentile {shape['blank_percentile']:.0f} of the images; their 5th and 95th "
        f"percentile lie {_number(shape['p5_sd'], '+.1f')} and {_number(shape['p95_sd'], '+.1f')} sd from "
        f"it: {_side(shape)}. Share of its range below the blank: {shape['share_below']:.0%}"
        f"{said['share_below']}."
    )


def _side(shape: pd.Series) -> str:
    """On which side of the blank a unit lies; a side that at most 5% of the images reach is none."""
    if shape["p5_sd"] >= 0:
        return "it has no low side"
    if shape["p95_sd"] <= 0:
        return "it has no high side"
    if shape["share_below"] >= MOST:
        return "most of its range lies below it"
    return (
        "most of its range lies above it"
        if shape["share_below"] <= 1 - MOST
        else "its range lies on both sides"
    )


def _number(value: float, form: str = ".2f") -> str:
    return f"{value:{form}}".replace("-", "−")
