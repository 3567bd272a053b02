"""Hold confirmed names against exact effects, where these are known."""

from __future__ import annotations

import pandas as pd

from absence_utils.insertion.scores import MIN_EFFECT

from .names import NamingResult

NEAR, CLEAR = 0.1, -0.25  # sd: as strong as the strongest; a clear absence


def join_truth(table: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Each unit's name, and what is exact.

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


def join_readings(table: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """`join_truth` of every reading of a table, in their order; truth has a column reading, too."""
    exact = dict(list(truth.groupby("reading")))
    parts = [join_truth(rows, exact[reading]) for reading, rows in table.groupby("reading", sort=False)]
    return pd.concat(parts)


def against_truth(table: pd.DataFrame, truth: pd.DataFrame) -> dict[str, int]:
    """Counts of confirmed names, see `join_truth`.

    Returns:
        agree: the name is the strongest suppressor; near: its exact effect is within 0.1 sd of the strongest; wrong:
        its exact effect is above -0.05 sd, the least that counts; clear: units, named or not, whose strongest effect is
        below -0.25 sd.
    """
    return _counts(join_truth(table, truth))


def _counts(joined: pd.DataFrame) -> dict[str, int]:
    named = joined[joined.confirmed]
    return {
        "agree": int((named.name == named.strongest).sum()),
        "near": int((named.exact <= named.strongest_effect + NEAR).sum()),
        "wrong": int((named.exact > -MIN_EFFECT).sum()),
        "clear": int((joined.strongest_effect < CLEAR).sum()),
    }


def describe_names(found: NamingResult, shares: pd.DataFrame, joined: pd.DataFrame | None = None) -> str:
    """What a test of names found, in sentences.

    Args:
        found: names that were confirmed once more in other hosts (`repeat`).
        shares: of this and of other networks, see `names.share_table`.
        joined: as `join_readings` gives it, where the exact effects are known.
    """
    parts = [
        f"{row.network}, {row.reading}: {row.confirmed} of {row.units} units" for row in shares.itertuples()
    ]
    confirmed = found.table[found.table.confirmed]
    lines = [
        f"Confirmed names: {'; '.join(parts)}.",
        f"In other hosts {int(confirmed.repeated.sum())} of {len(confirmed)} were confirmed again.",
    ]
    for reading, rows in [] if joined is None else joined.groupby("reading", sort=False):
        count = _counts(rows)
        lines.append(
            f"Of the confirmed names ({reading}), {count['near']} are the strongest suppressor or within {NEAR:g} sd "
            f"of it ({count['agree']} the strongest), and {count['wrong']} have an exact effect above "
            f"−{MIN_EFFECT:g} sd."
        )
    return " ".join(lines)
