"""The report of what moved, for a terminal and as markdown for a page."""

from __future__ import annotations

import numbers
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Value:
    """One value, here and in the reference.

    Attributes:
        key: what identifies the row, as text.
        column: name of the column.
        old: the reference's value.
        new: the value here.
        allowed: the tolerance, in words.
        used: change as a part of the tolerance; above 1 is beyond it.
    """

    key: str
    column: str
    old: object
    new: object
    allowed: str
    used: float


@dataclass
class TableReport:
    """What became of one table.

    Attributes:
        name: name of the table, without suffix.
        compared: number of values compared.
        within: number of values within their tolerance.
        most: the value that used most of its tolerance, None if nothing moved.
        beyond: values beyond the tolerance, in columns that failed.
        problems: tables, rows and columns that are missing or new, in words.
        broken: conclusions that no longer hold.
    """

    name: str
    compared: int = 0
    within: int = 0
    most: Value | None = None
    beyond: list[Value] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not (self.beyond or self.problems or self.broken)


@dataclass
class Report:
    """All tables, and names of tables here that the reference does not know."""

    tables: list[TableReport]
    extra: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.extra and all(table.ok for table in self.tables)

    def text(self) -> str:
        return as_text(self)

    def markdown(self) -> str:
        return as_markdown(self)


ROWS = 20  # most values listed of one table
HEADINGS = ("row", "column", "reference", "here", "tolerance")


def as_text(report: Report) -> str:
    """Report for a terminal: a line for each table, then what moved beyond its tolerance, then the verdict."""
    lines = _aligned([("table", "values", "within", "moved most"), *map(_summary, report.tables)])
    for table in report.tables:
        if not table.ok:
            lines += ["", f"{table.name}:", *(f"  {note}" for note in _notes(table))]
            rows = [_row(value) for value in table.beyond[:ROWS]]
            lines += [f"  {line}" for line in _aligned([HEADINGS, *rows])] * bool(rows)
            lines += _rest(table)
    return "\n".join([*lines, "", *_extra(report), _verdict(report)])


def as_markdown(report: Report) -> str:
    """The same as markdown."""
    lines = ["# Numbers against the reference", "", f"**{_verdict(report)}**", ""]
    lines += _table(("table", "values", "within", "moved most"), map(_summary, report.tables))
    for table in report.tables:
        if not table.ok:
            lines += ["", f"## {table.name}", "", *(f"- {note}" for note in _notes(table)), ""]
            rows = [_row(value) for value in table.beyond[:ROWS]]
            lines += [*_table(HEADINGS, rows), ""] * bool(rows) + _rest(table)
    return "\n".join([*lines, "", *_extra(report)]).rstrip() + "\n"


def _summary(table: TableReport) -> tuple[str, ...]:
    mark = "" if table.ok else "  !"
    return table.name + mark, str(table.compared), str(table.within), _moved_most(table.most)


def _moved_most(value: Value | None) -> str:
    if value is None:
        return "nothing"
    percent = 100 * value.used
    part = "less than 1 % of" if percent < 1 else f"{percent:.0f} % of" if percent < 10_000 else "many times"
    return f"{value.column} ({value.key}): {_shown(value.old)} -> {_shown(value.new)}, {part} its tolerance"


def _notes(table: TableReport) -> list[str]:
    return [*table.problems, *(f"no longer true: {says}" for says in table.broken)]


def _rest(table: TableReport) -> list[str]:
    more = len(table.beyond) - ROWS
    return [f"  and {more} more values beyond their tolerance"] if more > 0 else []


def _extra(report: Report) -> list[str]:
    remedy = "state their tolerances and run data/make_reference.py"
    return [f"Tables without a reference ({remedy}): {', '.join(report.extra)}", ""] if report.extra else []


def _verdict(report: Report) -> str:
    compared, within = (
        sum(getattr(table, name) for table in report.tables) for name in ("compared", "within")
    )
    bad = [table for table in report.tables if not table.ok]
    counted = f"{within} of {compared} values are within their tolerance"
    if report.ok:
        return f"Nothing moved beyond what is allowed: {counted}, and every conclusion holds."
    what = [
        f"{len(bad)} of {len(report.tables)} tables differ ({', '.join(table.name for table in bad)})"
    ] * bool(bad)
    what += [f"tables without a reference: {len(report.extra)}"] * bool(report.extra)
    return f"Not as the reference: {'; '.join([*what, counted])}."


def _row(value: Value) -> tuple[str, ...]:
    return value.key, value.column, _shown(value.old), _shown(value.new), value.allowed


def _shown(value) -> str:
    is_float = isinstance(value, numbers.Real) and not isinstance(value, (bool, numbers.Integral))
    return f"{value:.6g}" if is_float else str(value)


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def _table(headings, rows) -> list[str]:
    cells = [headings, ["---"] * len(headings), *rows]
    return ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in cells]
