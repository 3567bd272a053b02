"""Least squares of every unit's change on membership and covariates, with errors that do not need equal scatter."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats


class Slopes(NamedTuple):
    """Coefficients of the columns asked for, in the unit's sd.

    Attributes:
        value, error: [column, unit], with heteroscedasticity-robust standard errors (HC3).
        df: [column] degrees of freedom of Student's t: the members less one, since few members tell their own scatter
            poorly however many others there are.
    """

    value: np.ndarray
    error: np.ndarray
    df: np.ndarray

    def upper(self, level: float = 0.95) -> np.ndarray:
        """[column, unit] upper bound, one-sided."""
        return self.value + stats.t.ppf(level, self.df)[:, None] * self.error

    def p_below(self, least: float) -> np.ndarray:
        """[column, unit] p-value of "not below -least", one-sided."""
        return p_below(self.value, self.error, self.df[:, None], least)


def regress(changes: np.ndarray, members: np.ndarray, covariates: np.ndarray) -> Slopes:
    """Regress changes on memberships, the covariates and a constant.

    HC3 (MacKinnon & White, Journal of Econometrics 29, 1985): the variance of coefficient j is
    sum_i a_ji^2 e_i^2 / (1 - h_i)^2, with a = (X'X)^-1 X', residuals e and leverages h.

    Args:
        changes: [donor, unit].
        members: [donor, column] bool: one name, or names that lie in each other.
        covariates: [donor, statistic].
    """
    members = members.astype(float)
    spread = covariates.std(axis=0)
    rest = (covariates - covariates.mean(axis=0)) / np.where(spread > 0, spread, 1)
    rest = rest[:, spread > 0]
    design = np.column_stack([members, rest, np.ones(len(members))])
    solve = np.linalg.pinv(design)  # [column, donor]
    leverage = np.einsum("ij,ji->i", design, solve)
    coefficients = solve @ changes
    residuals = (changes - design @ coefficients) / np.maximum(1 - leverage, 1e-9)[:, None]
    count = members.shape[1]
    error = np.sqrt(solve[:count] ** 2 @ residuals**2)
    return Slopes(coefficients[:count], error, np.maximum(members.sum(axis=0) - 1, 1))


class MeanOver(NamedTuple):
    """A mean with its standard error and degrees of freedom, by Student's t."""

    value: float
    error: float
    df: float

    def interval(self, name: str, level: float = 0.95) -> dict[str, float]:
        """{name: value, name_low: ..., name_high: ...}, two-sided."""
        half = stats.t.ppf((1 + level) / 2, max(self.df, 1)) * self.error
        return {name: self.value, f"{name}_low": self.value - half, f"{name}_high": self.value + half}

    def p_below(self, least: float) -> float:
        """p-value of "the mean is not below -least", one-sided."""
        return float(p_below(self.value, self.error, self.df, least))


def mean_over(values: np.ndarray) -> MeanOver:
    """Of independent values [n], NaN left out; NaN with fewer than two."""
    values = values[~np.isnan(values)]
    if len(values) < 2:
        return MeanOver(np.nan, np.nan, 1)
    return MeanOver(values.mean(), values.std(ddof=1) / len(values) ** 0.5, len(values) - 1)


def p_below(value, error, df, least: float) -> np.ndarray:
    """One-sided p-value of "the mean is not below -least" by Student's t; 1 where nothing scatters and it is not."""
    with np.errstate(divide="ignore", invalid="ignore"):
        p = stats.t.cdf((value + least) / error, df)
    return np.where((error == 0) & (np.asarray(value) >= -least), 1.0, p)
