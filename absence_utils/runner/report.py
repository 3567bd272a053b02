"""The report of what moved: markdown, which a terminal shows as well as a page."""

from __future__ import annotations

import numbers
from dataclasses import dataclass, field

import pandas as pd

ROWS = 20  # most values listed of one table


@dataclass
class Report:
    """What became of the numbers.

    Attributes:
        values: the values compared, each a row: table, row (its key as text), column, reference, here, tolerance (in
            words), used (change as a part of the tolerance), beyond (above 1, and no stated share lets it go).
        problems: what else is wrong with each table, in words: tables, rows and columns that are missing or new, and
            conclusions that no longer hold. In the order of the tables.
        extra: names of tables here that the reference does not know.
    """

    values: pd.DataFrame
    problems: dict[str, list[str]]
    extra: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not (self.extra or self.values.beyond.any() or any(self.problems.values()))

    def verdict(self) -> str:
        """The report in one sentence."""
        within = (self.values.used <= 1).sum()
        counted = f"{within} of {len(self.values)} values are within their tolerance"
        if self.ok:
            return f"Nothing moved beyond what is allowed: {counted}, and every conclusion holds."
        bad = [name for name in self.problems if self._differs(name)]
        said = [f"{len(bad)} of {len(self.problems)} tables differ ({', '.join(bad)})"] * bool(bad)
        said += [f"tables without a reference: {', '.join(self.extra)}"] * bool(self.extra)
        return f"Not as the reference: {'; '.join([*said, counted])}."

    def markdown(self) -> str:
        """A table of the tables, then what moved beyond its tolerance."""
        parts = ["# Numbers against the reference", f"**{self.verdict()}**"]
        parts.append(_table(pd.DataFrame([self._summary(name) for name in self.problems])))
        for name in filter(self._differs, self.problems):
            beyond = self._of(name).query("beyond")
            parts += [f"## {name}", "\n".join(f"- {problem}" for problem in self.problems[name])]
            if len(beyond):
                parts.append(_table(beyond[["row", "column", "reference", "here", "tolerance"]][:ROWS]))
            if len(beyond) > ROWS:
                parts.append(f"and {len(beyond) - ROWS} more values beyond their tolerance")
        if self.extra:
            remedy = "state their tolerances and run data/make_reference.py"
            parts.append(f"Tables without a reference ({remedy}): {', '.join(self.extra)}")
        return "\n\n".join(filter(None, parts)) + "\n"

    def _of(self, name: str) -> pd.DataFrame:
        return self.values[self.values.table == name]

    def _differs(self, name: str) -> bool:
        return bool(self.problems[name]) or bool(self._of(name).beyond.any())

    def _summary(self, name: str) -> dict:
        """How many values a table has, and which used most of its tolerance, leaving out those let go."""
        values = self._of(name)
        told = values[(values.used > 0) & ((values.used <= 1) | values.beyond)]
        moved = _moved(told.loc[told.used.idxmax()]) if len(told) else "nothing"
        counts = {"values": len(values), "within": (values.used <= 1).sum()}
        return {"table": name + "  !" * self._differs(name), **counts, "moved most": moved}


def _table(table: pd.DataFrame) -> str:
    return table.map(_shown).to_markdown(index=False, disable_numparse=True)


def _shown(value) -> str:
    is_float = isinstance(value, numbers.Real) and not isinstance(value, (bool, numbers.Integral))
    return f"{value:.6g}" if is_float else str(value).replace("|", "\\|")


def _moved(value: pd.Series) -> str:
    percent = 100 * value.used
    part = "less than 1% of" if percent < 1 else f"{percent:.0f}% of" if percent < 10_000 else "many times"
    old, new = _shown(value.reference), _shown(value.here)
    return f"{value.column} ({value.row}): {old} -> {new}, {part} its tolerance"
