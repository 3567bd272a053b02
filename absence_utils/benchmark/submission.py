"""A method of one's own on the benchmark: run one function, or score answers from a file, and append a leaderboard row.

How to write one is in docs/benchmark.md; the command line is `python -m absence_utils.benchmark`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from absence_utils.errors import InputError, brief
from absence_utils.files import write_atomically
from absence_utils.paths import DATA

from .leaderboard import all_outcomes, compare, leaderboard
from .maps import of_each_unit
from .methods import METHODS, Method, method_of_maps
from .rule_networks import NAMES, TWIN
from .running import BenchmarkConfig, joined, run_network
from .scores import OUTCOMES, OUTPUTS, PAIR
from .truth import TRUTH, truth_table

SHIPPED = {  # tables of the full run
    name: DATA / "reference" / f"09_benchmark{suffix}.csv"
    for name, suffix in {
        "methods": "", "groups": "_groups", "correlations": "_correlations", "worlds": "_worlds",
        "differences": "_differences", "outcomes": "_outcomes",
    }.items()
} | {"truth": TRUTH}  # fmt: skip
COLUMNS = ["network", "layer", "unit", "concept", "value"]
FEW = 5  # networks; of fewer no difference is called sure


def method_of(function: Callable, maps: bool = False) -> Method:
    """A method of one's own.

    Args:
        function: (task) -> [unit, concept], see `methods`; with `maps`, (unit, images [image, channel, height, width])
            -> [image, height, width], which is then read on all images, ranks windows, and is held against the masks.
        maps: which of the two it is.
    """
    return method_of_maps(of_each_unit(function), "all") if maps else Method(function)


def run_method(name: str, method: Method, setting: BenchmarkConfig) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Its leaderboard rows and its outcomes.

    Raises:
        InputError: the method fails or answers with a wrong shape; the name of one that ships.
    """
    _require_own(name)  # before the long run
    parts = []
    for network in setting.names:
        try:
            parts.append(run_network(network, setting, {name: method}))
        except InputError:
            raise
        except Exception as error:  # code of someone else's may raise anything
            problem = f"it fails on {network} ({type(error).__name__}: {brief(str(error), 160)})"
            remedy = (
                "Make it run on one task first, see docs/benchmark.md; one of (unit, images) needs --maps."
            )
            raise InputError("method", problem, remedy) from error
    answers, findings = joined(parts)
    outcomes = all_outcomes(answers, findings)
    return leaderboard(answers, outcomes), outcomes


def score_answers(name: str, given: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The same from answers that were made elsewhere, for the outputs of networks and twins.

    Args:
        name: of the method.
        given: columns network, layer ("outputs"), unit, concept, value (positive: the concept's presence lowers the
            unit; empty: it says nothing); for each network that it is about all pairs, and those of its twin.

    Raises:
        InputError: columns, networks or pairs that are missing, unknown or there twice; values that are no numbers;
            the name of a method that ships.
    """
    _require_own(name)
    missing = [column for column in COLUMNS if column not in given]
    if missing:
        raise InputError("answers", f"there is no column {', '.join(missing)}", f"Give {', '.join(COLUMNS)}.")
    given = given[COLUMNS].assign(
        value=_numbers(given.value), unit=pd.to_numeric(given.unit, errors="coerce")
    )
    if given.empty:
        raise InputError("answers", "there are none", "Fill in the archive's template.")
    names = sorted({str(network).removesuffix(TWIN) for network in given.network}, key=_number)
    wanted = pd.concat([truth_table(name) for own in names for name in (own, own + TWIN)])
    joined = wanted.merge(given, on=PAIR, how="outer", indicator=True)
    twice = given.duplicated(PAIR)
    for problem, rows in (
        ("is there twice", given[twice]),
        ("does not exist", joined[joined._merge == "right_only"]),
        ("is missing", joined[joined._merge == "left_only"]),
    ):
        if len(rows):
            first = ", ".join(str(value) for value in rows.iloc[0][PAIR])
            remedy = "Give each pair of the template once."
            raise InputError("answers", f"{len(rows)} pairs: ({first}) {problem}", remedy)
    answers = joined.drop(columns="_merge").assign(method=name, twin=joined.network.str.endswith(TWIN))
    outcomes = all_outcomes(answers)
    return leaderboard(answers, outcomes), outcomes


def _numbers(values: pd.Series) -> pd.Series:
    """As float64, NaN where empty."""
    said = values.where(values != "")
    numbers = pd.to_numeric(said, errors="coerce").astype(float)
    wrong = said[said.notna() & ~np.isfinite(numbers)]
    if len(wrong):
        problem = f"{len(wrong)} values are no numbers, first {brief(str(wrong.iloc[0]), 40)}"
        raise InputError("answers", problem, "Leave the value empty where the method says nothing.")
    return numbers


def _require_own(name: str) -> None:
    if name in METHODS:
        raise InputError("name", f"{name!r} is a method that ships", "Give it a name of its own.")


def _number(name: str) -> int:
    if name not in NAMES:
        raise InputError("answers", f"there is no network {name!r}", f"They are {NAMES[0]} to {NAMES[-1]}.")
    return NAMES.index(name)


def append_row(rows: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Append a method's rows to a leaderboard, which starts as the one that ships; rows of the same name give way.

    Returns:
        The leaderboard as it now is, in the file, too.

    Raises:
        InputError: the name of a method that ships.
    """
    name = rows.method.iloc[0]
    _require_own(name)
    board = pd.read_csv(path if path.is_file() else SHIPPED["methods"])
    board = pd.concat([board[board.method != name], rows], ignore_index=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, board.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode())
    return board


def shipped_tables() -> dict[str, pd.DataFrame]:
    """The tables of the full run, by the names of `SHIPPED`."""
    return {name: pd.read_csv(path) for name, path in SHIPPED.items()}


def shipped_outcomes() -> pd.DataFrame:
    """Outcomes of the methods that ship, on all networks; columns as `scores.OUTCOMES`."""
    wide = pd.read_csv(SHIPPED["outcomes"])
    return wide.melt(["score", *PAIR], var_name="method", value_name="value")[OUTCOMES]


def against_shipped(outcomes: pd.DataFrame, score: str = "AUROC") -> pd.DataFrame:
    """A method against each that ships, over the same absences, see `leaderboard.compare`."""
    about = outcomes[(outcomes.score == score) & (outcomes.layer == OUTPUTS)]
    shipped = shipped_outcomes()
    same = shipped[shipped.score == score].merge(about[PAIR], on=PAIR)
    return compare(pd.concat([same, about]), score, against=about.method.iloc[0])


def verdict(outcomes: pd.DataFrame) -> str:
    """A method's place among those that ship, and how many it is surely better and worse than, in a sentence.

    All over the same absences, those that the method says something of. Of fewer than `FEW` networks nothing is sure.
    """
    area = outcomes[(outcomes.score == "AUROC") & (outcomes.layer == OUTPUTS)]
    name, said = area.method.iloc[0], area[area.value.notna()]
    if said.empty:
        return f"{name} says nothing of any absence, so it has no place."
    found = against_shipped(said)
    place, networks = 1 + int((found.difference < 0).sum()), said.network.nunique()
    sentence = (
        f"{name}: place {place} among {len(found)} methods that ship, by AUROC over the {len(said)} absences that it "
        f"says something of ({len(said) / len(area):.0%} of those asked)."
    )
    if networks < FEW:
        return f"{sentence} These are on {networks} networks, too few to call a difference sure."
    better, worse = ((found.q < 0.05) & (sign * found.difference > 0) for sign in (1, -1))
    return (
        f"{sentence} It is surely better than {better.sum()} and surely worse than {worse.sum()}, adjusted for "
        f"{len(found)} comparisons."
    )
