"""Tolerances of the reference numbers: how far each column of each table may move, and what must stay true.

The file is data/reference/tolerances.yaml; its head says how the tolerances were found. For each table::

    03_removal:
      key: [treatment, share]                # columns that say which row is which
      rows: {share: {above: 0}}              # optional: rows that are kept and compared
      columns:
        rate: {absolute: 0.03}               # within 0.03 of the reference
        low: {relative: 0.1, absolute: 1e-6} # within 10% or 1e-6, whichever is more
        n: exact
        p: not compared because it spans 200 powers of ten
      conclusions:
        - says: most negative pixels beat random ones
          where: {share: 0.24}
          falls: rate
          along: {treatment: [most negative, random, most positive]}
        - says: the bar carries nearly all absence evidence
          where: {unit: [0, 1], view: non-target map}
          holds: {of it on that bar: {above: {columns: [absence evidence], times: 0.99}}}

Further words of a column: `sign: kept` (no value other than 0 changes its sign, however small), `interval: [low,
high]` (within the reference's own interval, in those columns, plus the tolerance), `share: 0.9` (so large a share of
the values must be within; the others may be anything). Of a conclusion: `falls` with `along`, a mean that falls
strictly along the listed values, or `holds`, what is true of every row it is about, or of so large a `share` of them.

Rows (`rows`, `where`) and what is true of them (`holds`) are said in the words of `Condition`, for each column: the
file is data, and nothing in it is evaluated.
"""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from absence_utils.errors import InputError

NOT_COMPARED = "not compared because "
RELATIONS = {"below": operator.lt, "above": operator.gt, "at_least": operator.ge, "at_most": operator.le}
Size = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Value = str | bool | int | Number


class _Words(BaseModel):
    """Part of the file: a word that is not known, or not of its type, is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Tolerance(_Words):
    """How far the values of one column may move."""

    absolute: Size = 0.0  # in the column's unit
    relative: Size = 0.0  # as a part of the reference's size; the larger of both counts
    sign: Literal["", "kept"] = ""  # whether a value other than 0 may change its sign
    interval: Annotated[
        list[str], Field(min_length=2, max_length=2)
    ] = []  # columns with its lower and upper end
    share: Annotated[Size, Field(le=1)] = 1.0  # of the values that must be within
    reason: Annotated[str, Field(min_length=10)] = ""  # why the column is not compared; empty if it is

    @model_validator(mode="before")
    @classmethod
    def _read(cls, words):
        if isinstance(words, str) and words.startswith(NOT_COMPARED):
            return {"reason": words.removeprefix(NOT_COMPARED)}
        return {} if words == "exact" else words

    @property
    def exact(self) -> bool:
        return not (self.absolute or self.relative or self.interval or self.reason)

    def described(self) -> str:
        """The tolerance in the words of the file, for the report."""
        said = [f"{name} {value}" for name, value in self.model_dump(exclude_defaults=True).items()]
        return ", ".join(["exact"] * self.exact + said)

    def room(self, old: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest allowed value of each row of the reference, each [row]."""
        low = high = value = old[column].to_numpy(float)
        slack = np.maximum(self.absolute, self.relative * np.abs(value))
        if self.interval:
            low, high = (old[end].to_numpy(float) for end in self.interval)
        return np.fmin(low, value) - slack, np.fmax(high, value) + slack


class Term(_Words):
    """What a column is compared with: other columns of its row, each times a number plus a number."""

    columns: Annotated[list[str], Field(min_length=1)]
    times: Number = 1.0
    plus: Number = 0.0

    def of(self, table: pd.DataFrame) -> list[pd.Series]:
        return [table[name] * self.times + self.plus for name in self.columns]


class Condition(_Words):
    """What must hold of a column in a row; a value or a list of values alone is short for `is`."""

    model_config = ConfigDict(alias_generator=lambda name: name.strip("_").replace("_", " "))

    is_: Value | list[Value] | None = None  # the value, or one of them
    below: Number | Term | None = None
    above: Number | Term | None = None
    at_least: Number | Term | None = None
    at_most: Number | Term | None = None

    @model_validator(mode="before")
    @classmethod
    def _read(cls, words):
        return words if isinstance(words, dict) else {"is": words}

    @model_validator(mode="after")
    def _says_something(self):
        if not self.model_fields_set or self.is_ == []:
            raise ValueError("it says nothing")
        return self

    @property
    def named(self) -> set[str]:
        """Columns that it compares with."""
        terms = [getattr(self, relation) for relation in RELATIONS]
        return {name for term in terms if isinstance(term, Term) for name in term.columns}

    def rows(self, table: pd.DataFrame, column: str) -> pd.Series:
        """Bool [row]: where it holds.

        Raises:
            TypeError: text where a number is compared.
        """
        found = pd.Series(True, table.index)
        if self.is_ is not None:
            found &= table[column].isin(self.is_ if isinstance(self.is_, list) else [self.is_])
        for relation, compare in RELATIONS.items():
            asked = getattr(self, relation)
            for other in asked.of(table) if isinstance(asked, Term) else [asked] * (asked is not None):
                found &= compare(table[column], other)
        return found


Conditions = dict[str, Condition]  # of each column, all of them together


def rows_where(table: pd.DataFrame, conditions: Conditions) -> pd.Series:
    """Bool [row]: where all the conditions hold.

    Raises:
        TypeError: text where a number is compared.
    """
    found = pd.Series(True, table.index)
    for column, condition in conditions.items():
        found &= condition.rows(table, column)
    return found


def _columns_in(conditions: Conditions) -> set[str]:
    return conditions.keys() | {name for condition in conditions.values() for name in condition.named}


class Conclusion(_Words):
    """What a table must still say, whatever its numbers are."""

    says: str
    where: Conditions = {}  # the rows it is about; all if empty
    holds: Conditions = {}  # true of every such row, or
    share: Annotated[Size, Field(le=1)] = 1.0  # of at least so large a share of them; or
    falls: str = ""  # column whose mean falls strictly along
    along: dict[str, list] = {}  # a column and its values, in order

    @model_validator(mode="after")
    def _is_clear(self):
        if bool(self.holds) == bool(self.falls) or len(self.along) != bool(self.falls):
            raise ValueError("give either `holds`, or `falls` with one column in `along`")
        return self

    @property
    def named(self) -> set[str]:
        """Columns that it is about."""
        return _columns_in(self.where) | _columns_in(self.holds) | {*self.along, self.falls} - {""}

    def is_true(self, table: pd.DataFrame) -> bool:
        """Whether the table says so; a table without any such row does not."""
        try:
            rows = table[rows_where(table, self.where)]
            if rows.empty:
                return False
            if self.holds:
                return bool(rows_where(rows, self.holds).mean() >= self.share)
            ((by, order),) = self.along.items()
            means = rows.groupby(by)[self.falls].mean().reindex(order).to_numpy(float)
        except TypeError:  # text where a number was
            return False
        return bool(np.all(np.diff(means) < 0))


class TableRule(_Words):
    """What is compared of one table."""

    key: list[str]
    columns: dict[str, Tolerance]
    rows: Conditions = {}
    conclusions: list[Conclusion] = []

    @model_validator(mode="after")
    def _has_its_intervals(self):
        for tolerance in self.columns.values():
            if missing := set(tolerance.interval) - set(self.columns):
                raise ValueError(f"there is no column {min(missing)!r} for an interval")
        named = _columns_in(self.rows).union(*(conclusion.named for conclusion in self.conclusions))
        if missing := named - {*self.key, *self.columns}:
            raise ValueError(f"there is no column {min(missing)!r} for a conclusion or for `rows`")
        return self

    @property
    def compared(self) -> list[str]:
        return [name for name, tolerance in self.columns.items() if not tolerance.reason]

    @property
    def kept(self) -> list[str]:
        """Columns of the reference file: the key, what is compared, and the ends of its intervals."""
        ends = [end for name in self.compared for end in self.columns[name].interval]
        return list(dict.fromkeys([*self.key, *self.compared, *ends]))

    def select(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows that are compared."""
        return table[rows_where(table, self.rows)] if self.rows else table


class Tolerances(_Words):
    """The whole file: of which profile, the tables, and tables without comparison with the reason for each."""

    profile: str
    tables: dict[str, TableRule]
    left_out: dict[str, str] = {}


def read_tolerances(path: Path | str) -> Tolerances:
    """Read and check the file.

    Raises:
        InputError: the file is absent or not YAML, a word in it is unknown, or a tolerance is not a size.
    """
    try:
        return Tolerances.model_validate(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
    except ValidationError as error:
        problems = [f"{', '.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        remedy = "The head of absence_utils/runner/tolerances.py says what can be written."
        raise InputError("tolerances", "; ".join(problems), remedy) from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        problem = f"{path} cannot be read ({type(error).__name__})"
        raise InputError("tolerances", problem, "See data/reference/.") from None
