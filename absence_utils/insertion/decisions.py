"""One decision for every place that says one: notebooks 07, 10 and 11, the cards, the atlas, the benchmark.

A unit *encodes an absence* (its lowest patches surely lower it by more than delta), has *none of that size* (surely by
less), or one *cannot tell*. It is a test of equivalence against a stated size, so "no" is an answer and not the lack of
one. Copies with random weights are no null for it: random networks encode absences, too. How a unit compares with them
is said beside the decision, as description.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from absence_utils.errors import InputError
from absence_utils.stats import fdr_adjust, percentile_of

from .hosts import CONTROLS

ENCODES, NONE, CANNOT_TELL = "encodes an absence", "none of that size", "cannot tell"
DECISIONS = (ENCODES, NONE, CANNOT_TELL)
DELTAS = {"signed": 0.75, "passed on": 0.15}  # sd, see `decide`
SHARE = (24 / 64) ** 2  # of an image: how large the patches were with which these were found
DECIDED_ON = {"signed": CONTROLS[:1], "passed on": CONTROLS}  # the smallest of these counts
LEVEL = 0.05  # false discovery rate over the units studied
MOST_IMAGES = 100_000  # more are not worth naming
UNMOVED = 1e-4  # sd, what rounding makes of no change at all


def sizes_that_count(patch: int, height: int, width: int) -> dict[str, float]:
    """`DELTAS` for square patches of `patch` px in images of a size: reading to sd.

    Patches that cover less of an image than those with which `DELTAS` were found change the mean over a map by less:
    the sizes shrink with their area, rounded to 0.01 sd. They do not grow with larger ones. Both were tried where the
    truth is known, see docs/power.md.
    """
    share = min(1.0, patch**2 / (height * width) / SHARE)
    return {reading: max(0.01, round(delta * share, 2)) for reading, delta in DELTAS.items()}


def decide(
    effects: pd.DataFrame, null: pd.DataFrame | None = None, deltas: dict[str, float] | None = None
) -> pd.DataFrame:
    """The decision on each unit, in each reading.

    "encodes an absence": effect <= delta is rejected. "none of that size": effect >= delta is rejected. Both by
    one-sided t tests with the effect's own standard error, adjusted over the units studied (Benjamini and Hochberg,
    5%). The effect is against random patches at the same place in the signed reading, and the smaller of two in what
    is passed on (random patches, the mean colour): both must exceed delta, or one of them (p times two) fall short.
    A unit that no patch of any kind moves, in any image, is not asked, and one cannot tell: it looks elsewhere, as
    neurons of a digital twin do that see the middle of the image while patches go to its corners.

    Why these deltas: any unit's lowest patches lower it, since they were chosen for that. On 1,000 hidden units whose
    truth is known an effect of 0.75 sd separates those with an absence from those without, see docs/power.md.

    Args:
        effects: as `hosts.host_effects` gives them.
        null: the same for copies with random weights, several, with a column copy; None for no percentiles.
        deltas: reading to the smallest effect that counts, sd; `DELTAS` where it says nothing. Small patches need
            smaller ones, see `sizes_that_count`.

    Returns:
        A row for each unit and reading: unit, reading, decision, effect, low, high (95%, sd), control, delta,
        q_more, q_less (adjusted p of "not more than delta" and "not less"), images, patches, needed (images, and as
        many more patches in proportion, with which the decision would probably fall; 0 where it has), percentile (of
        the effect among the copies' units, 0..100), studied (units corrected for).

    Raises:
        InputError: a delta that is not positive.
    """
    deltas = DELTAS | (deltas or {})
    for reading, delta in deltas.items():
        if not delta > 0:
            raise InputError(
                "deltas", f"{delta} for {reading!r}", "Give the size in sd that counts, above 0."
            )
    signed = effects[effects["reading"] == "signed"]
    still = (signed["value"].abs() + signed["error"] < UNMOVED).groupby(signed["unit"]).all()
    unmoved = set(still.index[still])
    tables = [
        _decide(effects[effects["reading"] == reading], reading, deltas[reading], null, unmoved)
        for reading in effects["reading"].unique()
    ]
    table = pd.concat(tables, ignore_index=True)
    return table.sort_values("unit", kind="stable", ignore_index=True)


def _decide(effects: pd.DataFrame, reading: str, delta: float, null, unmoved: set) -> pd.DataFrame:
    controls = DECIDED_ON[reading]
    rows = smallest_effect(effects, controls)
    still = rows["unit"].isin(unmoved).to_numpy()
    each = [effects[effects["control"] == name].set_index("unit").loc[rows["unit"]] for name in controls]
    more = np.max([one_sided_p(part, delta) for part in each], axis=0)  # all of them must exceed it
    less = len(controls) * np.min([1 - one_sided_p(part, delta) for part in each], axis=0)
    more, less = np.where(still, np.nan, more), np.where(still, np.nan, less)
    q_more, q_less = fdr_adjust(more), fdr_adjust(np.minimum(less, 1))
    known = ~np.isnan(more)
    decision = np.select([known & (q_more < LEVEL), known & (q_less < LEVEL)], [ENCODES, NONE], CANNOT_TELL)
    percentile = np.full(len(rows), np.nan)
    if null is not None and len(null):
        others = smallest_effect(null[null["reading"] == reading], controls, by=["copy", "unit"])
        percentile = percentile_of(rows["value"], others["value"])
    return pd.DataFrame({
        "unit": rows["unit"].to_numpy(),
        "reading": reading,
        "decision": decision,
        "effect": rows["value"].to_numpy(), "low": rows["low"].to_numpy(), "high": rows["high"].to_numpy(),
        "control": rows["control"].to_numpy(),
        "delta": delta,
        "q_more": q_more, "q_less": q_less,
        "images": rows["images"].to_numpy(), "patches": rows["patches"].to_numpy(),
        "needed": np.where(still, np.inf, np.where(decision == CANNOT_TELL, _needed(rows, delta), 0)),
        "percentile": percentile,
        "studied": int(known.sum()),
    })  # fmt: skip


def smallest_effect(effects: pd.DataFrame, controls=CONTROLS, by=("unit",)) -> pd.DataFrame:
    """The row of each unit's smallest effect among some controls; the first of them where nothing was measured."""
    rows = effects[effects["control"].isin(controls)].reset_index(drop=True)
    order = rows["value"].fillna(np.inf)
    smallest = order.groupby([rows[name] for name in by], sort=False).idxmin()
    return rows.loc[smallest].reset_index(drop=True)


def one_sided_p(rows: pd.DataFrame, least: float) -> np.ndarray:
    """One-sided p of "the effect is at most `least`" from columns value, error and df; NaN stays."""
    value, error, df = (rows[name].to_numpy(float) for name in ("value", "error", "df"))
    with np.errstate(divide="ignore", invalid="ignore"):
        p = scipy_stats.t.sf((value - least) / error, df)
    return np.where((error == 0) & (value == least), 0.5, p)


def _needed(rows: pd.DataFrame, delta: float) -> np.ndarray:
    """Images that would probably decide, if the effect is as measured: the error falls as their root; inf for never."""
    with np.errstate(divide="ignore", invalid="ignore"):
        away = np.abs(rows["value"] - delta) / rows["error"]
        factor = (2 * scipy_stats.norm.isf(LEVEL / 2) / away) ** 2
    needed = np.ceil(rows["images"] * np.maximum(factor, 1) / 10) * 10
    return np.where(needed <= MOST_IMAGES, needed, np.inf)


def describe_decision(row: pd.Series, patch: int) -> str:
    """A row of `decide` as one sentence, for patches of `patch` px."""
    if np.isnan(row["effect"]):
        return f"Cannot tell ({row['reading']}): the unit hardly changes over these images."
    if np.isnan(row["q_more"]):
        return (
            f"Cannot tell ({row['reading']}): no patch moves the unit. It does not see where they are pasted."
        )
    control = {"random patch": "random ones", "mean colour": "the mean colour"}[row["control"]]
    many = "the weaker of two controls; " if len(DECIDED_ON[row["reading"]]) > 1 else ""
    ends, does = [row["low"], row["high"]], "lower"
    if row["effect"] < 0:
        ends, does = [-row["high"], -row["low"]], "raise"
    interval = f"95% interval {_signed(ends[0])} to {_signed(ends[1])}"
    size = in_sd(abs(row["effect"]))
    what = f"its lowest patches ({patch} px) {does} it by {size} more than {control} ({many}{interval})"
    delta = f"{row['delta']:g} sd"
    tail = {
        ENCODES: f"surely by more than {delta}",
        NONE: f"surely by less than {delta}" if does == "lower" else f"and surely do not lower it by {delta}",
        CANNOT_TELL: f"which may be more or less than {delta}: {_images(row['needed'])}",
    }[row["decision"]]
    corrected = f" Corrected for the {row['studied']} units studied." if row["studied"] > 1 else ""
    return f"{row['reading'].capitalize()}: {what}, {tail}.{corrected}"


def _images(needed: float) -> str:
    return "more images would not tell" if np.isinf(needed) else f"about {needed:,.0f} images would tell"


def in_sd(value: float) -> str:
    return f"{_signed(value)} sd"


def _signed(value: float) -> str:
    return f"{round(float(value), 2) + 0.0:.2f}".replace("-", "−")  # + 0.0: no minus before a zero
