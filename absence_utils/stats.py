"""Intervals for rates and paired differences of clustered observations (images that one network saw)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from absence_utils.errors import InputError


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
        raise InputError(
            "second", f"{second.shape} values paired with {first.shape}", "Give two pairs or more."
        )
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
