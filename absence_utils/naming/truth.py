"""Hold confirmed names against exact effects, where these are known."""

from __future__ import annotations

import pandas as pd

from absence_utils.insertion.scores import MIN_EFFECT

NEAR, CLEAR = 0.1, -0.25  # sd: as strong as the strongest; a clear absence


def join_truth(table: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Each unit's name beside what is exact.

    Args:
        table: of one reading, as `names.name_absence` gives it.
        truth: columns unit, concept, effect (sd, negative where the concept lowers the unit), for every concept.

    Returns:
        The table with exact (the effect of the name), strongest (the concept with the lowest effect) and
        strongest_effect.
    """
    wide = truth.pivot(index="unit", columns="concept", values="effect").reindex(table.unit)
    exact = [wide[name].iloc[row] if name else float("nan") for row, name in enumerate(table.name)]
    strongest = {"strongest": wide.idxmin(axis=1).to_numpy(), "strongest_effect": wide.min(axis=1).to_numpy()}
    return table.assign(exact=exact, **strongest)


def against_truth(table: pd.DataFrame, truth: pd.DataFrame) -> dict[str, int]:
    """Counts of confirmed names, see `join_truth`.

    Returns:
        agree: the name is the strongest suppressor; near: its exact effect is within 0.1 sd of the strongest; wrong:
        its exact effect is above -0.05 sd, the least that counts; clear: units, named or not, whose strongest effect is
        below -0.25 sd.
    """
    joined = join_truth(table, truth)
    named = joined[joined.confirmed]
    return {
        "agree": int((named.name == named.strongest).sum()),
        "near": int((named.exact <= named.strongest_effect + NEAR).sum()),
        "wrong": int((named.exact > -MIN_EFFECT).sum()),
        "clear": int((joined.strongest_effect < CLEAR).sum()),
    }
