"""The verdict: does a unit encode an absence, how sure is that, and what would have said no?

One rule for every place that says a verdict: notebook 10, the cards, the atlas.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from absence_utils.stats import fdr_adjust, percentile_of

from .scores import MAIN_CONTROL, MIN_EFFECT, select_score

CONTEXT, SUPPRESSED, NONE, UNDECIDED = "veto", "suppressed", "no absence found", "undecided"
LEVEL = 0.05  # false discovery rate over the units studied
LIMIT = 0.95  # quantile of the random copies' absence scores that has to be exceeded


def null_limit(null: pd.DataFrame) -> float:
    """The absence score that 95 % of the units of random copies stay below; NaN where none of them has one."""
    scores = select_score(null, "absence", MAIN_CONTROL)["value"]
    return float(scores.quantile(LIMIT)) if scores.notna().any() else float("nan")


def decide(scores: pd.DataFrame, null: pd.DataFrame) -> pd.DataFrame:
    """A verdict for each unit.

    "veto": the drop on top images exceeds that of the same patches on median images by more than `scores.MIN_EFFECT`
    sd. "suppressed": no such veto, but the absence score exceeds what 95 % of the random copies' units reach. Both by a
    one-sided t-test with the score's own standard error, adjusted over the units studied (Benjamini and Hochberg).
    "no absence found": neither; it is not ruled out where the interval of the absence score reaches beyond the limit.
    "undecided": the scores could not be measured (a unit that never changes).

    It is not enough that the score lies above that limit: of the units of another random copy one in twenty does so by
    construction, and in some networks one in four.

    Args:
        scores: of the network's units, as `scores.score_table` gives them.
        null: the same for random copies.

    Returns:
        Columns unit, verdict, absence, absence_low, absence_high, percentile (of the absence score among the random
        copies' units, 0..100), limit, q_absence (beyond the limit), veto, veto_low, veto_high, q_veto (beyond
        `scores.MIN_EFFECT`), presence, studied (units corrected for). Scores in sd of the unit's response.
    """
    absence, veto = (
        select_score(scores, "absence", MAIN_CONTROL),
        select_score(scores, "veto", "median images"),
    )
    limit = null_limit(null)
    table = pd.DataFrame({
        "unit": absence.index,
        "absence": absence["value"].to_numpy(), "absence_low": absence["low"].to_numpy(),
        "absence_high": absence["high"].to_numpy(),
        "percentile": percentile_of(absence["value"], select_score(null, "absence", MAIN_CONTROL)["value"]),
        "limit": limit,
        "q_absence": fdr_adjust(one_sided_p(absence, limit)),
        "veto": veto["value"].to_numpy(), "veto_low": veto["low"].to_numpy(),
        "veto_high": veto["high"].to_numpy(),
        "q_veto": fdr_adjust(one_sided_p(veto, MIN_EFFECT)),
        "presence": select_score(scores, "presence", MAIN_CONTROL)["value"].to_numpy(),
    })  # fmt: skip
    measured = table["absence"].notna() & table["veto"].notna()
    verdict = np.where(table["q_absence"] < LEVEL, SUPPRESSED, NONE)
    vetoed = (table["q_veto"] < LEVEL) & (table["absence"] > 0)
    verdict = np.where(vetoed, CONTEXT, verdict)
    table.insert(1, "verdict", np.where(measured, verdict, UNDECIDED))
    return table.assign(studied=int(measured.sum()))


def one_sided_p(scores: pd.DataFrame, least: float) -> np.ndarray:
    """One-sided p-value of "the score is at most `least`", by the t distribution behind its interval; NaN stays."""
    value, half, df = (
        scores["value"].to_numpy(float),
        ((scores["high"] - scores["low"]) / 2).to_numpy(float),
        scores["df"].to_numpy(float),
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        error = half / scipy_stats.t.ppf(0.975, df)
        p = scipy_stats.t.sf((value - least) / error, df)
    return np.where((error == 0) & (value == least), 1.0, p)


def null_false_positives(null: pd.DataFrame) -> pd.DataFrame:
    """The verdicts on the random copies themselves, each judged against the others: what is found is a false alarm.

    Args:
        null: as in `LayerStudy`, of two copies or more; fewer give an empty table.

    Returns:
        As `decide`, with a column copy.
    """
    parts = []
    for number in null["copy"].unique() if null["copy"].nunique() > 1 else []:
        own = null["copy"] == number
        parts.append(decide(null[own], null[~own]).assign(copy=number))
    return pd.concat(parts, ignore_index=True) if parts else decide(null, null).iloc[:0].assign(copy=0)


def describe_verdict(row: pd.Series, patch: int) -> str:
    """A verdict of `decide` in words, with its uncertainty, for patches of `patch` px. It does not name the verdict."""
    if np.isnan(row["absence"]) or np.isnan(row["veto"]):
        return (
            "The scores could not be measured: the unit hardly changes over these images, or has too few images above "
            "the level that counts as top."
        )
    drop = f"{in_sd(row['absence'])} ({_interval(row, 'absence')})"
    random = "no copy with random weights has such a score"
    if not np.isnan(row["limit"]):
        random = f"95 % of the units of copies with random weights stay below {in_sd(row['limit'])}"
    veto = f"{in_sd(row['veto'])} ({_interval(row, 'veto')})"
    if row["verdict"] == CONTEXT:
        return (
            f"On the unit's top images its lowest patches ({patch} px) lower the response by {veto} more than the same "
            "patches do on images of median response, which no additive unit can show. Absence score "
            f"{drop} against random patches at the same places; {random}."
        )
    corrected = f"corrected for the {row['studied']} units studied"
    context = (
        f"That this depends on context could not be shown: the veto is {veto}; {corrected}, it does not clearly exceed "
        f"{MIN_EFFECT} sd (q {row['q_veto']:.2f})."
    )
    what = f"Its lowest patches ({patch} px) lower the response by {drop} more than random ones at the same places"
    if row["verdict"] == SUPPRESSED:
        return f"{what}; {random}. {context}"
    if row["absence_high"] < row["limit"]:
        return f"{what}, but {random}, and any unit's lowest patches lower it. {context}"
    beyond = (
        f"{corrected}, it does not clearly exceed that (q {row['q_absence']:.2f}), and it is not ruled out"
    )
    more = (
        " The interval reaches down to nothing, too: more images would tell."
        if row["absence_low"] <= 0
        else ""
    )
    return f"{what}; {random}, and any unit's lowest patches lower it: {beyond}.{more} {context}"


def in_sd(value: float) -> str:
    return f"{value:.2f} sd".replace("-", "−")


def _interval(row: pd.Series, score: str) -> str:
    low, high = row[f"{score}_low"], row[f"{score}_high"]
    return f"95 % interval {low:.2f} to {high:.2f}".replace("-", "−")
