"""Absence, presence and veto scores of units from their responses to images with pasted patches.

    absence   A = -mean over images and patches of [f(x with lowest patch) - f(x with control)] / sd
    presence  P = +mean of [f(x with highest patch) - f(x with random patch)] / sd
    veto      V = A on top images - A of the same patches, at the same places, on neutral images

f is the unit's signed response, sd its standard deviation over untouched images; the control is at the same place of
the same image. V is 0 for any additive unit, however its patches were selected. A is not: patches that were chosen
for a low response lower it elsewhere, too. So the sign of A decides nothing, and A and V are read against the same
network with random weights (`calibrate`).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from absence_utils.stats import crossed_t_interval, fdr_adjust, percentile_of, sign_flip_p

from .design import as_array

# score, condition: (treated, control) in which group; the change is signed so that suppression (activation for
# presence) is positive.
ABSENCES = {
    "random patch": ("top", "lowest", "random"),
    "mean colour": ("top", "lowest", "mean colour"),
    "phase-scrambled": ("top", "lowest", "scrambled"),
    "own patch": ("top", "lowest", "own patch"),
    "soft edges": ("top", "lowest, soft", "random, soft"),
    "centre": ("top", "lowest, centre", "random, centre"),
    "median images": ("neutral", "lowest", "random"),
}
MIN_EFFECT = 0.05  # sd; a smaller effect does not count, see `score_table`
LEVEL = 0.05  # false discovery rate over the units studied
MAIN_CONTROL = "random patch"  # the control of the absence score when none is named


def score_table(
    inputs: pd.DataFrame, units: np.ndarray, spread: np.ndarray, shape: tuple[int, int]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All scores of all units.

    Args:
        inputs: as `run_insertions` returns them for the conditions of `controlled_protocol`.
        units: [unit] their numbers.
        spread: [unit] standard deviation over untouched images.
        shape: (images, patches) of a group.

    Returns:
        (scores, units). Scores has a row for each unit, score ("absence", "presence", "veto", "check") and condition:
        value, low, high (95%), p (`stats.crossed_t_interval`), q (Benjamini and Hochberg over units), p_flip and
        q_flip (sign flips over patches), q_least (that the score is beyond `MIN_EFFECT`, adjusted), df, images,
        patches. Units has unit, sd, index A / (A + P) with negative scores taken as 0, and beside and beyond: the
        share of the change (summed sizes of its parts) from positions beside the patch, and beyond what its pixels
        can reach; NaN where the layer has no map.

        Why q_least: a unit with local filters is not quite additive where a filter straddles the edge of a patch.
        That alone gives vetoes of about 0.01 sd, which enough images make significant.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.where(spread > 0, 1 / spread, np.nan)[:, None, None]

    def read(group: str, condition: str, value: str = "response") -> np.ndarray:
        rows = 1 if group == "blank" else shape[0]
        return as_array(inputs, group, condition, (len(units), rows, shape[1]), value)

    drops = {name: (read(group, b) - read(group, a)) * scale for name, (group, a, b) in ABSENCES.items()}
    blank = (read("blank", "random") - read("blank", "lowest")) * scale
    gain = (read("top", "highest") - read("top", "random")) * scale
    scores = [_scores("absence", name, drop, None, units) for name, drop in drops.items()]
    scores.append(_scores("absence", "blank image", blank, None, units))
    scores.append(_scores("presence", MAIN_CONTROL, gain, None, units))
    scores.append(_scores("veto", "median images", drops[MAIN_CONTROL], drops["median images"], units))
    scores.append(_scores("veto", "blank image", drops[MAIN_CONTROL] - blank, None, units))
    untouched = read("top", "untouched")
    for condition in ("own patch", "random"):
        change = (untouched - read("top", condition)) * scale
        name = "own patch pasted back" if condition == "own patch" else "any patch"
        scores.append(_scores("check", name, change, None, units))
    shares = _shares(read, scale)
    return pd.concat(scores, ignore_index=True), _about(units, spread, drops[MAIN_CONTROL], gain, shares)


def _scores(score: str, condition: str, values: np.ndarray, minus, units: np.ndarray) -> pd.DataFrame:
    """Rows of one score. A single image (the blank one) has no scatter over images: its patches stand alone."""
    if values.shape[1] == 1:
        values = np.where(
            np.eye(values.shape[2], dtype=bool), values, np.nan
        )  # each patch an image of its own
    result = crossed_t_interval(values, minus)
    with np.errstate(invalid="ignore"):
        means = _patch_means(values) - (0 if minus is None else _patch_means(minus))
    flip = sign_flip_p(means)
    return pd.DataFrame(
        {
            "unit": units,
            "score": score,
            "condition": condition,
            "value": result.value,
            "low": result.low,
            "high": result.high,
            "p": result.p,
            "q": fdr_adjust(result.p),
            "p_flip": flip,
            "q_flip": fdr_adjust(flip),
            "q_least": fdr_adjust(crossed_t_interval(values, minus, least=MIN_EFFECT).p),
            "df": result.df,
            "images": (~np.isnan(values)).any(axis=2).sum(axis=1),
            "patches": values.shape[2],
        }
    )


def _mean(values: np.ndarray) -> np.ndarray:
    """[unit] mean over what was measured, NaN where nothing was."""
    seen = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(seen, values, 0).sum(axis=(1, 2)) / seen.sum(axis=(1, 2))


def _patch_means(values: np.ndarray) -> np.ndarray:
    seen = ~np.isnan(values)
    return np.where(seen, values, 0).sum(axis=1) / seen.sum(axis=1)


def _shares(read, scale: np.ndarray) -> dict[str, np.ndarray]:
    """[unit] share of the change that comes from beside the patch, and from beyond its reach."""
    total, *parts = (
        _mean((read("top", "random", part) - read("top", "lowest", part)) * scale)
        for part in ("response", "beside", "beyond")
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            name: np.abs(part) / (np.abs(part) + np.abs(total - part))
            for name, part in zip(("beside", "beyond"), parts, strict=True)
        }


def _about(units, spread, drop, gain, shares) -> pd.DataFrame:
    absence, presence = (_mean(each).clip(min=0) for each in (drop, gain))
    with np.errstate(invalid="ignore", divide="ignore"):
        index = absence / (absence + presence)
    return pd.DataFrame({"unit": units, "sd": spread, "index": index, **shares})


def calibrate(scores: pd.DataFrame, null: pd.DataFrame) -> pd.DataFrame:
    """The scores with a column percentile: percent of the null's units whose score of the same kind is lower.

    Args:
        scores: of a network.
        null: of the same network with random weights.
    """
    scores = scores.assign(percentile=np.nan)
    for key, rows in scores.groupby(["score", "condition"], sort=False).groups.items():
        other = null[(null["score"] == key[0]) & (null["condition"] == key[1])]["value"]
        scores.loc[rows, "percentile"] = percentile_of(scores.loc[rows, "value"], other)
    return scores


def select_score(scores: pd.DataFrame, score: str, condition: str) -> pd.DataFrame:
    """The rows of one score and condition, indexed by unit."""
    return scores[(scores["score"] == score) & (scores["condition"] == condition)].set_index("unit")
