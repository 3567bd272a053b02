"""What moved: numbers of a run against the reference that ships, with a tolerance for each column.

    python -m absence_utils.runner.compare results/default
    python -m absence_utils.runner.compare results/default --markdown report.md

The exit status is 0 if every number is within its tolerance and every conclusion holds, 1 if not, and 2 if nothing
could be compared. Tolerances are in data/reference/tolerances.yaml, see `tolerances`; the report in `report`.
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

from .report import Report
from .tolerances import TableRule, Tolerance, read_tolerances

REFERENCE = DATA / "reference"
TOLERANCES = "tolerances.yaml"
COLUMNS = ["table", "row", "column", "reference", "here", "tolerance", "used", "beyond"]  # see `Report`
NO_VALUES = pd.DataFrame(columns=COLUMNS).astype({"used": float, "beyond": bool})


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
    for path in sorted(results.glob("[0-9]*.json")):
        profile = json.loads(path.read_text()).get("profile", "")
        if profile != rules.profile:
            problem = f"{path.name} is of profile {profile!r}, the reference of {rules.profile!r}"
            raise InputError("results", problem, f"Compare results/{rules.profile}.")
    values, problems = [NO_VALUES], {}
    for name in sorted(rules.tables):
        places = {"the reference": reference / f"{name}.csv", "the results": results / f"{name}.csv"}
        missing = [place for place, path in places.items() if not path.is_file()]
        problems[name] = [f"the table is missing in {' and in '.join(missing)}"] * bool(missing)
        if not missing:
            found, problems[name] = compare_tables(rules.tables[name], *map(pd.read_csv, places.values()))
            values.append(found.assign(table=name))
    known = {*rules.tables, *rules.left_out}
    return Report(pd.concat(values, ignore_index=True), problems, sorted(there - known))


def compare_tables(rule: TableRule, old: pd.DataFrame, new: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Compare one table with its reference, rows matched by their key whatever their order.

    Returns:
        The values and the problems of the table, see `Report`.
    """
    if problems := _changed_columns(rule, old, new):
        return NO_VALUES, problems
    new = rule.select(new)
    old, new = (table.set_index(row_keys(table, rule.key)) for table in (old, new))
    for side, table in (("reference", old), ("results", new)):
        if len(repeated := table.index[table.index.duplicated()].unique()):
            return NO_VALUES, [f"the key is not unique in the {side}: {_some(repeated)}"]
    lost, added = old.index.difference(new.index), new.index.difference(old.index)
    for label, keys in (("missing", lost), ("new", added)):
        if len(keys):
            problems.append(f"{label} rows, {len(keys)} of {len(old)}: {_some(keys)}")
    problems += [f"no longer true: {it.says}" for it in rule.conclusions if not it.is_true(new)]
    old = old.drop(lost)
    columns = [_compared(old, new.loc[old.index], name, rule.columns[name]) for name in rule.compared]
    return pd.concat([NO_VALUES, *columns]), problems


def _changed_columns(rule: TableRule, old: pd.DataFrame, new: pd.DataFrame) -> list[str]:
    stated = [*rule.key, *rule.columns]
    found = {
        "columns missing in the results": [name for name in stated if name not in new],
        "columns without a tolerance": [name for name in new if name not in stated],
        "columns missing in the reference": [name for name in rule.kept if name not in old],
    }
    return [f"{what}: {', '.join(names)}" for what, names in found.items() if names]


def row_keys(table: pd.DataFrame, key: list[str]) -> pd.Index:
    """Key of each row as text: whether pandas read a column as 3 or as 3.0 makes no difference."""
    columns = [table[name].map(_plain) for name in key]
    return pd.Index([", ".join(row) for row in zip(*columns, strict=True)], dtype=object)


def _plain(value) -> str:
    if isinstance(value, (int, float, np.number)) and not isinstance(value, bool):
        return f"{value:.9g}"
    return str(value)


def _some(keys: pd.Index, most: int = 5) -> str:
    return "; ".join(keys[:most]) + (f"; and {len(keys) - most} more" if len(keys) > most else "")


def _compared(old: pd.DataFrame, new: pd.DataFrame, column: str, tolerance: Tolerance) -> pd.DataFrame:
    """The values of one column, see `Report`."""
    used = _used(old, new, column, tolerance)
    enough = (used <= 1).sum() >= tolerance.share * len(used)
    here = {"reference": old[column].astype(object), "here": new[column].astype(object)}
    told = {"column": column, **here, "tolerance": tolerance.described(), "used": used}
    return pd.DataFrame({"row": old.index, **told, "beyond": (used > 1) & (not enough)})


def _used(old: pd.DataFrame, new: pd.DataFrame, column: str, tolerance: Tolerance) -> np.ndarray:
    """Change of each value as a part of its tolerance, [row]: infinite for a NaN on one side or a lost sign."""
    if tolerance.exact or not all(_numeric(table[column]) for table in (old, new)):
        return np.where(old[column].map(_plain) == new[column].map(_plain), 0.0, np.inf)
    before, after = old[column].to_numpy(float), new[column].to_numpy(float)
    low, high = tolerance.room(old, column)
    with np.errstate(all="ignore"):  # no room at all on that side, or no number
        used = np.where(after > before, (after - before) / (high - before), (before - after) / (before - low))
    lost = np.isnan(before) ^ np.isnan(after)
    if tolerance.sign:
        lost |= (before != 0) & (np.sign(before) != np.sign(after))
    return np.select([np.isclose(before, after, 0, 0, equal_nan=True), lost], [0.0, np.inf], used)


def _numeric(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    program, purpose = "python -m absence_utils.runner.compare", __doc__.splitlines()[0]
    parser = argparse.ArgumentParser(prog=program, description=purpose)
    parser.add_argument("results", nargs="?", default=RESULTS / "default", type=Path, help="folder of a run")
    parser.add_argument("--reference", default=REFERENCE, type=Path, help="folder of the reference")
    parser.add_argument("--markdown", type=Path, help="also write the report as markdown to this file")
    options = parser.parse_args(arguments)
    try:
        report = compare_numbers(options.results, options.reference)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(report.markdown())
    print(report.verdict())
    if options.markdown:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(options.markdown, report.markdown().encode())
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
