"""Tables of absence, veto and presence scores with the values that a test wants."""

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats


def scores(absence, veto, error=0.05, df=10.0):
    """A table of scores for units with the given absence and veto scores, all with one standard error."""
    half = scipy_stats.t.ppf(0.975, df) * error
    rows = []
    for score, condition, values in (
        ("absence", "random patch", absence),
        ("veto", "median images", veto),
        ("presence", "random patch", np.ones(len(absence))),
        ("absence", "mean colour", np.full(len(absence), 9.0)),  # must not be taken for the main one
    ):
        for unit, value in enumerate(values):
            rows.append((unit, score, condition, value, value - half, value + half, df))
    return pd.DataFrame(rows, columns=["unit", "score", "condition", "value", "low", "high", "df"])
