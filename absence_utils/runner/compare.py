"""What moved: numbers of a run against the reference that ships, with a tolerance for each column.

    python -m absence_utils.runner.compare results/default
    python -m absence_utils.runner.compare results/default --markdown report.md

The exit status is 0 if every number is within its tolerance and every conclusion holds, 1 if not, and 2 if nothing
could be compared. Tolerances are in data/reference/tolerances.yaml, see `tolerances`; the report in `compare_report`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from absence_utils.errors import InputError
from absence_utils.files import write_atomically
from absence_utils.paths import DATA, RESULTS

from .report import Report, TableReport, Value
from .tolerances import TableRule, Tolerance, Tolerances, read_tolerances

REFERENCE = DATA / "reference"
TOLERANCES = "tolerances.yaml"


def compare_numbers(results_folder: Path | str, reference_folder: Path | str = REFERENCE) -> Report:
    """Compare every table of a run with the reference.

    Args:
        results_folder: folder with the CSV files of the figures, such as results/default.
        reference_folder: folder with the reference's CSV files and tolerances.yaml.

    Returns:
        The report; tables in the order of their names.

    Raises:
        InputError: a folder is absent or holds no table, the run has another profile than the reference, or the
            file of tolerances is wrong.
    """
    results, reference = Path(results_folder), Path(reference_folder)
    rules = read_tolerances(reference / TOLERANCES)
    there = {path.stem for path in results.glob("[0-9]*.csv")}
    if not there:
        raise InputError("results", f"there is no table in {results}", "Run `make figures` first.")
    _same_profile(results, rules.profile)
    tables = [_compare_file(name, rules, results, reference) for name in sorted(rules.tables)]
    return Report(tables, sorted(there - set(rules.tables) - set(rules.left_out)))


def _same_profile(results: Path, profile: str) -> None:
    for path in sorted(results.glob("[0-9]*.json")):
        found = json.loads(path.read_text()).get("profile", "")
        if found != profile:
            problem = f"{path.name} was made with the profile {found!r}, the reference with {profile!r}"
            raise InputError("results", problem, f"Compare results/{profile}.")


def _compare_file(name: str, rules: Tolerances, results: Path, reference: Path) -> TableReport:
    old, new = reference / f"{name}.csv", results / f"{name}.csv"
    missing = [what for what, path in (("the reference", old), ("the results", new)) if not path.is_file()]
    if missing:
        return TableReport(name, problems=[f"the table is missing in {' and in '.join(missing)}"])
    return compare_tables(name, rules.tables[name], pd.read_csv(old), pd.read_csv(new))


def compare_tables(name: str, rule: TableRule, old: pd.DataFrame, new: pd.DataFrame) -> TableReport:
    """Compare one table with its reference, rows matched by their key whatever their order."""
    report = TableReport(name)
    report.problems += _changed_columns(rule, old, new)
    if report.problems:
        return report
    new = rule.select(new)
    old, new = (table.set_index(row_keys(table, rule.key)) for table in (old, new))
    for side, table in (("reference", old), ("results", new)):
        repeated = table.index[table.index.duplicated()].unique()
        if len(repeated):
            report.problems.append(f"the key is not unique in the {side}: {_some(repeated)}")
            return report
    for label, keys in (
        ("missing", old.index.difference(new.index)),
        ("new", new.index.difference(old.index)),
    ):
        if len(keys):
            report.problems.append(f"{label} rows, {len(keys)} of {len(old)}: {_some(keys)}")
    both = old.index[old.index.isin(new.index)]
    for column, tolerance in rule.columns.items():
        if not tolerance.reason and len(both):
            _compare_column(report, column, tolerance, old.loc[both], new.loc[both])
    report.broken += [conclusion.says for conclusion in rule.conclusions if not conclusion.is_true(new)]
    return report


def _changed_columns(rule: TableRule, old: pd.DataFrame, new: pd.DataFrame) -> list[str]:
    stated = [*rule.key, *rule.columns]
    found = {
        "columns missing in the results": [name for name in stated if name not in new],
        "columns without a tolerance": [name for name in new if name not in stated],
        "columns missing in the reference": [name for name in rule.kept if name not in old],
    }
    return [f"{what}: {', '.join(names)}" for what, names in found.items() if names]


def row_keys(table: pd.DataFrame, key: tuple[str, ...]) -> pd.Index:
    """Key of each row as text: whether pandas read a column as 3 or as 3.0 makes no difference."""
    columns = [table[name].map(_plain) for name in key]
    return pd.Index([", ".join(row) for row in zip(*columns, strict=True)], dtype=object)


def _plain(value) -> str:
    if isinstance(value, (int, float, np.number)) and not isinstance(value, bool):
        return f"{value:.9g}"
    return str(value)


def _some(keys: pd.Index, most: int = 5) -> str:
    return "; ".join(keys[:most]) + (f"; and {len(keys) - most} more" if len(keys) > most else "")


def _compare_column(report: TableReport, column: str, tolerance: Tolerance, old, new) -> None:
    used = _used(column, tolerance, old, new)
    beyond = used > 1
    report.compared += len(used)
    report.within += int((~beyond).sum())
    enough = (~beyond).mean() >= tolerance.share
    told = np.where(beyond & enough, 0.0, used)  # values that a stated share lets go are no news

    def value(at: int) -> Value:
        here, there = old[column].iloc[at], new[column].iloc[at]
        return Value(old.index[at], column, here, there, tolerance.described(), float(told[at]))

    report.beyond += [value(at) for at in np.flatnonzero(told > 1)]
    most = value(int(told.argmax()))
    if most.used > (report.most.used if report.most else 0):
        report.most = most


def _used(column: str, tolerance: Tolerance, old: pd.DataFrame, new: pd.DataFrame) -> np.ndarray:
    """Change of each value as a part of its tolerance, [row]: infinite for a NaN on one side or a lost sign."""
    if tolerance.exact or not all(_numeric(table[column]) for table in (old, new)):
        same = (old[column].map(_plain) == new[column].map(_plain)).to_numpy(bool)
        return np.where(same, 0.0, np.inf)
    before, after = old[column].to_numpy(float), new[column].to_numpy(float)
    low, high = tolerance.room(old, column)
    with np.errstate(over="ignore"):  # no room at all on that side
        above = np.maximum(after - before, 0) / np.maximum(high - before, 1e-300)
        below = np.maximum(before - after, 0) / np.maximum(before - low, 1e-300)
    used = np.maximum(above, below)
    if tolerance.sign:
        used[(before != 0) & (np.sign(before) != np.sign(after))] = np.inf
    used[np.isnan(before) ^ np.isnan(after)] = np.inf
    used[(np.isnan(before) & np.isnan(after)) | (before == after)] = 0
    return used


def _numeric(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m absence_utils.runner.compare", description=__doc__.splitlines()[0]
    )
    parser.add_argument("results", nargs="?", default=RESULTS / "default", type=Path, help="folder of a run")
    parser.add_argument("--reference", default=REFERENCE, type=Path, help="folder of the reference")
    parser.add_argument("--markdown", type=Path, help="also write the report as markdown to this file")
    options = parser.parse_args(arguments)
    try:
        report = compare_numbers(options.results, options.reference)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(report.text())
    if options.markdown:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(options.markdown, report.markdown().encode())
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
