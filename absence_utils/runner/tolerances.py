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

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from absence_utils.errors import InputError

NOT_COMPARED = "not compared because "
Size = Annotated[float, Field(gt=0, allow_inf_nan=False)]


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


class Conclusion(_Words):
    """What a table must still say, whatever its numbers are."""

    says: str
    where: str = ""  # the rows it is about; all if empty
    holds: str = ""  # true of every such row, or
    falls: str = ""  # column whose mean falls strictly along
    along: dict[str, list] = {}  # a column and its values, in order

    @model_validator(mode="after")
    def _is_clear(self):
        if bool(self.holds) == bool(self.falls) or len(self.along) != bool(self.falls):
            raise ValueError("give either `holds`, or `falls` with one column in `along`")
        return self

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


class TableRule(_Words):
    """What is compared of one table."""

    key: list[str]
    columns: dict[str, Tolerance]
    rows: str = ""
    conclusions: list[Conclusion] = []

    @model_validator(mode="after")
    def _has_its_intervals(self):
        for tolerance in self.columns.values():
            if missing := set(tolerance.interval) - set(self.columns):
                raise ValueError(f"there is no column {min(missing)!r} for an interval")
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
        return table.query(self.rows) if self.rows else table


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
        return Tolerances.model_validate(yaml.safe_load(Path(path).read_text()))
    except (OSError, yaml.YAMLError) as error:
        problem = f"{path} cannot be read ({type(error).__name__})"
        raise InputError("tolerances", problem, "See data/reference/.") from None
    except ValidationError as error:
        problems = [f"{', '.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        remedy = "The head of absence_utils/runner/tolerances.py says what can be written."
        raise InputError("tolerances", "; ".join(problems), remedy) from None
