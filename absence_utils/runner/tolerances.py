"""Tolerances of the reference numbers: how far each column of each table may move, and what must stay true.

The file is data/reference/tolerances.yaml; its head says how the tolerances were found. For each table::

    03_removal:
      key: [treatment, share]                # columns that say which row is which
      rows: share > 0                        # optional: a pandas query, rows that are kept and compared
      columns:
        rate: {absolute: 0.03}               # within 0.03 of the reference
        low: {relative: 0.1, absolute: 1e-6} # within 10 % or 1e-6, whichever is more
        n: exact
        p: not compared because it spans 200 powers of ten
      conclusions:
        - says: most negative pixels beat random ones
          where: share == 0.24
          falls: rate
          along: {treatment: [most negative, random, most positive]}

Further words of a column: `sign: kept` (no value other than 0 changes its sign, however small), `interval: [low,
high]` (within the reference's own interval, in those columns, plus the tolerance), `share: 0.9` (so large a share of
the values must be within; the others may be anything). Of a conclusion: `falls` with `along`, a mean that falls
strictly along the listed values, or `holds`, a pandas expression true of every row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from absence_utils.errors import InputError

NOT_COMPARED = "not compared because "
NUMBERS = ("absolute", "relative", "share")


@dataclass(frozen=True)
class Tolerance:
    """How far the values of one column may move.

    Attributes:
        absolute: in the column's unit.
        relative: as a part of the reference's size; the larger of both counts.
        sign: "kept" if no value other than 0 may change its sign.
        interval: columns with the lower and the upper end that the reference states for the value.
        share: smallest share of the values that must be within.
        reason: why the column is not compared; empty if it is.
    """

    absolute: float = 0.0
    relative: float = 0.0
    sign: str = ""
    interval: tuple[str, ...] = ()
    share: float = 1.0
    reason: str = ""

    @property
    def exact(self) -> bool:
        return not (self.absolute or self.relative or self.interval or self.reason)

    def described(self) -> str:
        """The tolerance in words, for the report."""
        if self.reason:
            return NOT_COMPARED + self.reason
        said = [f"{self.absolute:g}"] * bool(self.absolute) + [f"{self.relative:.3g} of it"] * bool(
            self.relative
        )
        said = [" or ".join(said)] if said else []
        said += ["inside its interval"] * bool(self.interval) + ["exact"] * self.exact
        said += ["sign kept"] * bool(self.sign) + [f"{self.share:.0%} of values"] * (self.share < 1)
        return ", ".join(said)

    def room(self, old: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest allowed value of each row of the reference, each [row]."""
        value = old[column].to_numpy(float)
        slack = np.maximum(self.absolute, self.relative * np.abs(value))
        low, high = value, value
        if self.interval:
            low, high = (old[end].to_numpy(float) for end in self.interval)
            low, high = np.fmin(low, value), np.fmax(high, value)
        return low - slack, high + slack


@dataclass(frozen=True)
class Conclusion:
    """What a table must still say, whatever its numbers are.

    Attributes:
        says: the conclusion, in words.
        where: pandas query for the rows it is about; all if empty.
        holds: pandas expression that is true of every such row, or
        falls: column whose mean falls strictly along
        along: a column and its values, in order.
    """

    says: str
    where: str = ""
    holds: str = ""
    falls: str = ""
    along: dict = field(default_factory=dict)

    def is_true(self, table: pd.DataFrame) -> bool:
        """Whether the table says so; a table without any such row does not."""
        rows = table.query(self.where) if self.where else table
        if rows.empty:
            return False
        try:
            if self.holds:
                return bool(np.all(rows.eval(self.holds)))
            ((by, order),) = self.along.items()
            means = rows.groupby(by)[self.falls].mean().reindex(order).to_numpy(float)
        except TypeError:  # text where a number was
            return False
        return bool(np.all(np.diff(means) < 0))


@dataclass(frozen=True)
class TableRule:
    """What is compared of one table."""

    key: tuple[str, ...]
    columns: dict[str, Tolerance]
    rows: str = ""
    conclusions: tuple[Conclusion, ...] = ()

    @property
    def kept(self) -> list[str]:
        """Columns of the reference file: the key, what is compared, and the ends of its intervals."""
        compared = {name: tolerance for name, tolerance in self.columns.items() if not tolerance.reason}
        ends = [end for tolerance in compared.values() for end in tolerance.interval if end not in compared]
        return list(dict.fromkeys([*self.key, *compared, *ends]))

    def select(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows that are compared."""
        return table.query(self.rows) if self.rows else table


@dataclass(frozen=True)
class Tolerances:
    """The whole file: of which profile, the tables, and tables without comparison with the reason for each."""

    profile: str
    tables: dict[str, TableRule]
    left_out: dict[str, str]


def read_tolerances(path: Path | str) -> Tolerances:
    """Read and check the file.

    Raises:
        InputError: the file is absent or not YAML, a word in it is unknown, or a tolerance is not a size.
    """
    try:
        content = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise InputError(
            "tolerances", f"{path} cannot be read ({type(error).__name__})", "See data/reference/."
        ) from None
    _known(content, {"profile", "tables", "left_out"}, "the file")
    tables = {name: _table(name, entry) for name, entry in content["tables"].items()}
    return Tolerances(content["profile"], tables, content.get("left_out") or {})


def _table(name: str, entry: dict) -> TableRule:
    _known(entry, {"key", "columns", "rows", "conclusions"}, name)
    columns = {column: _tolerance(f"{name}, {column}", words) for column, words in entry["columns"].items()}
    for column, tolerance in columns.items():
        if missing := [end for end in tolerance.interval if end not in columns]:
            raise InputError(
                "tolerances", f"{name}, {column}: there is no column {missing[0]!r}", "Name two others."
            )
    conclusions = tuple(_conclusion(name, words) for words in entry.get("conclusions", []))
    return TableRule(tuple(entry["key"]), columns, entry.get("rows", ""), conclusions)


def _tolerance(place: str, words) -> Tolerance:
    if isinstance(words, str):
        if words == "exact":
            return Tolerance()
        if words.startswith(NOT_COMPARED) and len(words) > len(NOT_COMPARED) + 10:
            return Tolerance(reason=words.removeprefix(NOT_COMPARED))
        remedy = f"Write exact, a tolerance in braces, or '{NOT_COMPARED}...' with a reason."
        raise InputError("tolerances", f"{place}: {words!r} says nothing", remedy)
    _known(words, {*NUMBERS, "sign", "interval"}, place)
    for name in NUMBERS:
        value = words.get(name, 0.5)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < np.inf:
            raise InputError(
                "tolerances", f"{place}: {name} is {value!r}", "Write a number above 0, with a point."
            )
    if (
        words.get("share", 1) > 1
        or words.get("sign", "kept") != "kept"
        or len(words.get("interval", "ab")) != 2
    ):
        remedy = "A share is at most 1, a sign is 'kept', an interval names two columns."
        raise InputError("tolerances", f"{place}: {words} cannot be", remedy)
    return Tolerance(**{**words, "interval": tuple(words.get("interval", ()))})


def _conclusion(name: str, words: dict) -> Conclusion:
    _known(words, {"says", "where", "holds", "falls", "along"}, name)
    conclusion = Conclusion(**words)
    ordered = bool(conclusion.falls) and len(conclusion.along) == 1
    if bool(conclusion.holds) == ordered or bool(conclusion.falls) != bool(conclusion.along):
        remedy = "Give either `holds`, or `falls` with one column in `along`."
        raise InputError("tolerances", f"{name}: the conclusion {conclusion.says!r} is not clear", remedy)
    return conclusion


def _known(words, allowed: set[str], place: str) -> None:
    unknown = set(words) - allowed if isinstance(words, dict) else {words}
    if unknown:
        raise InputError(
            "tolerances", f"{place}: {sorted(map(str, unknown))} is unknown", f"Known: {sorted(allowed)}."
        )
