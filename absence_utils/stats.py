"""Intervals and tests for what is not independent: rates in clusters, paired differences, images crossed with patches.

`crossed_t_interval` is the interval of the absence score. Images and patches are both random: another draw of either
would move the mean, so a test that takes every image-and-patch pair for an independent observation is too sure of
itself.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from absence_utils.errors import InputError

EXACT_PATCHES = 12  # up to so many patches all sign patterns are tried, 4,096; beyond, as many random ones
ROUNDING = 1e-6  # responses are float32: a smaller mean with a smaller error is no effect but rounding


class Estimate(NamedTuple):
    """An estimate and the ends of its interval."""

    value: float
    low: float
    high: float


def clustered_rate(successes, trials, level: float = 0.95) -> Estimate:
    """A rate and its interval, from counts in independent clusters.

    Korn & Graubard's interval (Survey Methodology 24, 1998): Clopper and Pearson's exact interval for as many
    independent trials as the scatter between the clusters shows there to be, and fewer again because a few
    clusters tell that scatter poorly (squared ratio of t quantiles). It stays in 0..1, has a width when
    every cluster says 0, and is wide for few clusters.

    Args:
        successes: [cluster], may be fractional (means over random draws).
        trials: [cluster], > 0.
        level: of the interval, in 0..1.

    Raises:
        InputError: fewer than two clusters, a cluster without trials, more successes than trials.
    """
    successes, trials = np.asarray(successes, float), np.asarray(trials, float)
    if len(trials) < 2 or len(successes) != len(trials):
        raise InputError("trials", f"{len(trials)} clusters give no interval", "Use two seeds or more.")
    if (trials <= 0).any() or (successes < 0).any() or (successes > trials).any():
        raise InputError("successes", "not between 0 and the number of trials", "Check the counts.")
    total, clusters = trials.sum(), len(trials)
    rate = successes.sum() / total
    variance = clusters / (clusters - 1) * ((successes - rate * trials) ** 2).sum() / total**2
    effective = min(total, rate * (1 - rate) / variance) if variance > 0 else total
    tail = (1 + level) / 2
    effective *= (stats.t.ppf(tail, max(total - 1, 1)) / stats.t.ppf(tail, clusters - 1)) ** 2
    yes, no = rate * effective, (1 - rate) * effective
    low = stats.beta.ppf(1 - tail, yes, no + 1) if yes > 0 else 0.0
    high = stats.beta.ppf(tail, yes + 1, no) if no > 0 else 1.0
    return Estimate(float(rate), float(low), float(high))


def paired_difference(first, second, level: float = 0.95, bounds=(-np.inf, np.inf)) -> Estimate:
    """Mean of first - second over pairs [pair], with Student's t interval (scipy's `ttest_1samp`).

    The ends of the interval are clipped to `bounds`, -1 and 1 for differences of rates.

    Raises:
        InputError: fewer than two pairs, or lists of different length.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    if first.shape != second.shape or first.ndim != 1 or len(first) < 2:
        problem = f"{second.shape} values paired with {first.shape}"
        raise InputError("second", problem, "Give two pairs or more.")
    difference = first - second
    if np.ptp(difference) == 0:  # scipy warns of it: no scatter, no width
        return Estimate(float(difference[0]), float(difference[0]), float(difference[0]))
    interval = stats.ttest_1samp(difference, 0).confidence_interval(level)
    low, high = np.clip([interval.low, interval.high], *bounds)
    return Estimate(float(difference.mean()), float(low), float(high))


def rate_table(
    table: pd.DataFrame, value: str, by: list[str], cluster: str, level: float = 0.95
) -> pd.DataFrame:
    """`clustered_rate` of column `value` (in 0..1) for every group of `by`: columns rate, low, high and n."""
    rows = []
    for key, group in table.groupby(by, sort=False, observed=True):
        counts = group.groupby(cluster)[value].agg(["sum", "count"])
        estimate = clustered_rate(counts["sum"].clip(upper=counts["count"]), counts["count"], level)
        rows.append((*key, *estimate, len(group)))
    return pd.DataFrame(rows, columns=[*by, "rate", "low", "high", "n"])


class TwoWay(NamedTuple):
    """Means over images and patches, each field [unit]; p is two-sided."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    standard_error: np.ndarray
    df: np.ndarray


class _Group(NamedTuple):
    """What `crossed_t_interval` needs of one group of images, [unit] or [unit, patch]."""

    patch_means: np.ndarray
    image_variance: np.ndarray  # of the mean, from the scatter of the images' means
    residual_variance: np.ndarray  # of the mean, from what neither image nor patch explains
    images: np.ndarray


def crossed_t_interval(values, minus=None, level: float = 0.95, least: float = 0.0) -> TwoWay:
    """Mean over images and patches, with an interval for both being random draws.

    The variance of the mean is that of the patches' means over their number, plus that of the images' means over
    theirs, less the residual that both contain: with the mean squares of a two-way layout,
    (MS_patch + MS_image - MS_residual) / (images x patches), where the image part is never taken below zero.
    Student's t with Satterthwaite's degrees of freedom gives the interval. Where each image has one patch only, the
    patches' means are independent and carry everything: then it is the one-sample t interval on them.

    A percentile bootstrap over images and patches covers 93% where patches differ much and 98% where they do not,
    with eight patches; this interval covers 94 to 98% (tests/test_stats_two_way.py).

    Args:
        values: [unit, image, patch] paired differences. NaN where no such pair was measured: an image has all of
            the patches, or exactly one ("all" and "one" must not be mixed in a unit), or it is missing altogether.
        minus: [unit, image, patch] to subtract: other images, the same patches (the veto score). None for none.
        level: of the interval, in 0..1.
        least: smallest mean that counts: p is for the hypothesis that the mean lies within -least..least.

    Returns:
        Fields [unit]; NaN for a unit with fewer than two images or patches (in either group).

    Raises:
        InputError: wrong shapes, fewer than two patches, images with some of the patches only.
    """
    first = _group(values, "values")
    groups = [(1, first)] if minus is None else [(1, first), (-1, _group(minus, "minus"))]
    if len({group.patch_means.shape for _, group in groups}) > 1:
        raise InputError("minus", "other units or patches than in values", "Give the same units and patches.")
    means = sum(sign * group.patch_means for sign, group in groups)
    patches = means.shape[1]
    enough = np.min([group.images for _, group in groups], axis=0) >= 2
    value = means.mean(axis=1)
    by_patch = means.var(axis=1, ddof=1) / patches
    by_image = sum(group.image_variance for _, group in groups)
    residual = sum(group.residual_variance for _, group in groups)
    beyond = np.maximum(by_image - residual, 0)
    variance = by_patch + beyond
    parts = [(by_patch, patches - 1)]
    for _, group in groups:
        own = (group.images - 1).clip(1)
        parts.append((np.where(beyond > 0, group.image_variance, 0), own))
        parts.append((np.where(beyond > 0, group.residual_variance, 0), own * (patches - 1)))
    error = np.sqrt(variance)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = sum(part**2 / df for part, df in parts)
        df = np.where(spread > 0, variance**2 / spread, patches - 1)
        p = sum(stats.t.sf((np.abs(value) + edge) / error, df) for edge in (-least, least))
    rounding = (np.abs(value) < least + ROUNDING) & (error < ROUNDING)
    p = np.where(rounding, 1.0, np.where(error == 0, 0.0, p.clip(0, 1)))
    half = stats.t.ppf((1 + level) / 2, df) * error
    fields = (value, value - half, value + half, p, error, df)
    return TwoWay(*(np.where(enough, each, np.nan) for each in fields))


def _group(values, name: str) -> _Group:
    values = np.asarray(values, float)
    if values.ndim != 3 or values.shape[2] < 2:
        raise InputError(name, f"shape {values.shape}", "Give [unit, image, patch] with two patches or more.")
    seen = ~np.isnan(values)
    row = seen.sum(axis=2)  # patches of an image
    patches = values.shape[2]
    crossed, single = ((row == 0) | (row == count) for count in (patches, 1))
    mixed = ~(crossed.all(axis=1) | single.all(axis=1))
    if mixed.any():
        remedy = "Paste all patches into an image, or one."
        raise InputError(name, f"unit {int(mixed.argmax())} has images with some of the patches only", remedy)
    images = (row > 0).sum(axis=1)
    total = np.where(seen, values, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        patch_means = total.sum(axis=1) / seen.sum(axis=1)
        mean = patch_means.mean(axis=1)[:, None, None]
        image_means = (total.sum(axis=2) / row)[..., None]
        rest = np.where(seen, values - image_means - patch_means[:, None] + mean, 0)
        scatter = np.where(row > 0, (image_means - mean)[..., 0], 0)
        own = (images - 1).clip(1)
        image_variance = (scatter**2).sum(axis=1) / own / images
        residual = (rest**2).sum(axis=(1, 2)) / (own * (patches - 1)) / (images * patches)
    one = ~crossed.all(axis=1)  # there the patches' means carry the images' scatter already
    zero = np.zeros(len(values))
    return _Group(patch_means, np.where(one, zero, image_variance), np.where(one, zero, residual), images)


def sign_flip_p(patch_means, seed: int = 0) -> np.ndarray:
    """Two-sided p-value of a mean of 0, by flipping the signs of the patches' means (scipy's `permutation_test`).

    It asks whether other patches would have done the same to *these* images: the images count as given. With k
    patches no p-value is below 2 / 2**k, 0.0078 for eight.

    Args:
        patch_means: [unit, patch]; NaN in a row gives NaN.
        seed: of the random sign patterns, used beyond `EXACT_PATCHES` patches.

    Returns:
        [unit].
    """
    patch_means = np.asarray(patch_means, float)
    test = stats.permutation_test(
        (patch_means,),
        np.mean,
        permutation_type="samples",
        n_resamples=2**EXACT_PATCHES,
        batch=512,
        vectorized=True,
        axis=1,
        rng=seed,
    )
    return np.where(np.isnan(patch_means).any(axis=1), np.nan, test.pvalue)


def fdr_adjust(p) -> np.ndarray:
    """Benjamini and Hochberg's adjusted p-values of [unit]: calling those below 0.05 keeps the expected share of
    false calls below 5%. NaN stays NaN and does not count as a test."""
    p = np.asarray(p, float)
    known = ~np.isnan(p)
    if known.any():
        p = p.copy()
        p[known] = stats.false_discovery_control(p[known])
    return p


def percentile_of(values, null) -> np.ndarray:
    """Percent of the null's values [other unit] below each value [unit], ties counted half; 0..100, NaN without any."""
    null, values = np.asarray(null, float), np.asarray(values, float)
    return stats.percentileofscore(null, values, kind="mean", nan_policy="omit")
