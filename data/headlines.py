"""The one number of each notebook that README shows, read from the tables of data/reference/.

`make_measured.py` writes them into README; a test holds README against them.
"""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from absence_utils.paths import DATA

REFERENCE = DATA / "reference"


def headline_numbers(folder: Path = REFERENCE) -> dict[str, str]:
    """A sentence with the number that carries each notebook's claim, by its two digits.

    That of 04 is of a benchmark (data/measured/minima_table.csv): a detector looks at minima of six networks.
    """

    def table(name: str) -> pd.DataFrame:
        return pd.read_csv(folder / f"{name}.csv")

    return {number: text(table) for number, text in TEXTS.items()}


Read = Callable[[str], pd.DataFrame]


def _motion(read: Read) -> str:
    maps = read("01_frame_pairs").set_index(["unit", "view"])
    hidden = maps.loc[(0, "non-target map")]
    share = (hidden["of it on that bar"] / hidden["absence evidence"]).min()
    seen = maps.loc[(0, "target map"), "absence evidence"].max()
    return f"absence evidence on the opposite bar: {share:.0%}; in target maps: {seen:.0f}"


def _green(read: Read) -> str:
    runs = read("02_convergence")
    ours = runs[runs.recipe == runs.recipe[0]]
    return f"seeds that learn it: {(ours.accuracy >= 0.99).sum()} of {len(ours)}"


def _digits(read: Read) -> str:
    rates = read("03_removal").query("share == 0.24").set_index("treatment").rate
    return f"8s then seen as 3: {rates['most negative']:.0%}; random pixels removed: {rates['random']:.0%}"


def _minima(read: Read) -> str:
    named = pd.read_csv(DATA / "measured" / "minima_table.csv").set_index("contrast")
    matched, free = (named["name the suppressor"][key] for key in ("5th percentile", "free"))
    return f"minima that show the suppressor: {matched} of {named.minima.iloc[0]}; without a budget: {free}"


def _matrix(read: Read) -> str:
    matrix = read("05_absence_matrix").set_index("unit")
    planted = {unit: unit.split("not ")[1] for unit in matrix.index if "not " in unit}
    lead = sum(matrix.loc[unit].idxmax() == concept for unit, concept in planted.items())
    return f"planted absences that lead their row: {lead} of {len(planted)}"


def _patches(read: Read) -> str:
    lowest = read("06_known_answer").query("side == 'lowest'")
    planted = lowest[lowest.planted < 0]
    planted = planted[planted.unit.str.contains("not ")]
    return f"planted absences among lowest patches: +{planted.excess.mean():.0f} points"


def _insertion(read: Read) -> str:
    found = read("07_verdicts").groupby("network")
    published, veto = found.published.mean(), found.vetoed.mean()
    return (
        f"units that inhibit nothing: published test {published['additive units']:.0%}, "
        f"veto score {veto['additive units']:.0%}"
    )


def _debiasing(read: Read) -> str:
    rows = read("08_accuracy").query("rule == 'patch_free' and carrier == 0 and set == 'inverse-biased'")
    shares = rows.set_index("objective").accuracy
    return f"inverse-biased accuracy, chosen strength: {shares['presence']:.0%} → {shares['presence and absence']:.0%}"


def _benchmark(read: Read) -> str:
    scores = read("09_benchmark").set_index(["method", "score"])["mean"]
    named = {
        name: scores[name, "name, recall at 1"] for name in ("insertion, absence score", "lowest patches")
    }
    first, second = named.values()
    return f"names the suppressor first: insertion {first:.0%}, lowest patches {second:.0%}"


def _card(read: Read) -> str:
    card = read("10_unit_card")
    ring = card[(card.panel == "concept put in") & (card["item"] == "ring")].value.item()
    return f"a ring silences “not ring”: −{abs(ring):.2f} sd"


def _names(read: Read) -> str:
    names = read("11_truth").query("reading == 'signed'")
    near = names.exact <= names.strongest_effect + 0.1
    confirmed = names.confirmed.astype(bool)
    right = (confirmed & near).sum()
    return f"units named: {confirmed.sum()} of {len(names)}; the strongest suppressor, or near it: {right}"


TEXTS: dict[str, Callable[[Read], str]] = {
    "01": _motion,
    "02": _green,
    "03": _digits,
    "04": _minima,
    "05": _matrix,
    "06": _patches,
    "07": _insertion,
    "08": _debiasing,
    "09": _benchmark,
    "10": _card,
    "11": _names,
}
