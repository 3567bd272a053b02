"""Take the numbers of a run as the reference: data/reference/*.csv, and the pictures in static/ of these numbers.

    make figures && python data/make_reference.py           what data/reference/tolerances.yaml names, and no more
    python data/make_reference.py --moved FOLDER FOLDER     how far each column moves in other runs of the same figures

Each file has an entry in the manifest of its folder; that of a picture holds the hash of its numbers. A picture of
anything but a reference table stays as it is, and its entry is written by hand.

A table of a new notebook first needs its key and the tolerance of each column in tolerances.yaml. What `--moved` prints
is what tolerances were written from: run notebooks again with another number of threads (OMP_NUM_THREADS=2) and another
instruction set (ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41), each into a folder of its own with `--out`.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from manifest import entry_of, write_entry

from absence_utils.errors import InputError
from absence_utils.files import file_hash, write_atomically
from absence_utils.paths import DATA, RESULTS, ROOT
from absence_utils.runner.compare import REFERENCE, TOLERANCES, compare_numbers, row_keys
from absence_utils.runner.notebooks import all_notebooks, declared_figures, declared_files, read_notebook
from absence_utils.runner.tolerances import TableRule, Tolerances, read_tolerances

STATIC = ROOT / "static"  # the pictures that README shows
COMMAND = "make figures && make reference"


def makers() -> dict[str, tuple[str, str]]:
    """The notebook that makes each table, and the figure whose record tells of the run, by name of the table."""
    found = {}
    for path in all_notebooks():
        node = read_notebook(path)
        figures = declared_figures(node)
        files = [name.removesuffix(".csv") for name in declared_files(node) if name.endswith(".csv")]
        found |= {name: (path.stem, name if name in figures else figures[0]) for name in [*figures, *files]}
    return found


def reduced(name: str, rule: TableRule, path: Path) -> pd.DataFrame:
    """Rows and columns of a table that are compared, as text: exactly the digits that the run wrote."""
    table = pd.read_csv(path)
    unstated = [column for column in table if column not in (*rule.key, *rule.columns)]
    if unstated:
        raise InputError(
            "tolerances", f"{name} has columns without a tolerance: {unstated}", "State one for each."
        )
    digits = pd.read_csv(path, dtype=str, keep_default_na=False)
    kept = [column for column in digits if column in rule.kept]
    return digits.loc[rule.select(table).index, kept]


def about(record: dict) -> dict:
    """Facts about a run from the record of one of its figures."""
    facts = {name: record[name] for name in ("profile", "seed", "threads", "device")}
    return facts | {"versions": {name: record["versions"][name] for name in ("python", "torch", "numpy")}}


def take(rules: Tolerances, results: Path) -> None:
    """Write every table of the file of tolerances, and its entry; then the pictures that stand for these tables.

    Raises:
        InputError: a table has no tolerances, or a picture or its numbers are not those that its record tells of.
    """
    made = makers()
    unknown = set(made) - set(rules.tables) - set(rules.left_out)
    if unknown:
        raise InputError("tolerances", f"{sorted(unknown)} have none", f"State them in {TOLERANCES}.")
    records = {name: json.loads((results / f"{made[name][1]}.json").read_text()) for name in rules.tables}
    pictured = [name for name in rules.tables if (STATIC / f"{name}.png").is_file()]
    for file, name in [(f"{name}{suffix}", name) for name in pictured for suffix in (".png", ".csv")]:
        if file_hash(results / file) != records[name]["outputs"][file]:
            raise InputError("results", f"{file} is not of the run that {name}.json records", "Run it again.")
    for name, rule in rules.tables.items():
        table = reduced(name, rule, results / f"{name}.csv")
        path = REFERENCE / f"{name}.csv"
        write_atomically(path, table.to_csv(index=False, lineterminator="\n").encode())
        origin = f"this project: notebook {made[name][0]}, profile {records[name]['profile']}"
        facts = {"rows": len(table), "columns": len(table.columns), **about(records[name])}
        write_entry(DATA / "manifest.json", entry_of(path, f"computed by {origin}", COMMAND, facts))
        if name in pictured:
            picture = STATIC / f"{name}.png"
            write_atomically(picture, (results / picture.name).read_bytes())
            facts = {"numbers": f"data/reference/{path.name}", "numbers_sha256": file_hash(path)}
            facts |= {"run_csv_sha256": records[name]["outputs"][path.name], **about(records[name])}
            write_entry(STATIC / "manifest.json", entry_of(picture, f"drawn by {origin}", COMMAND, facts))
    facts = {"tables": len(rules.tables), "left_out": len(rules.left_out)}
    origin = "stated by this project from runs with other threads and another instruction set"
    command = "by hand, from python data/make_reference.py --moved FOLDER FOLDER"
    write_entry(DATA / "manifest.json", entry_of(REFERENCE / TOLERANCES, origin, command, facts))


def moved(rules: Tolerances, results: Path, other: Path) -> None:
    """Print how far each column of each table moves from `results` to `other`."""
    for name, rule in rules.tables.items():
        if not (other / f"{name}.csv").is_file():
            continue
        old, new = (rule.select(pd.read_csv(folder / f"{name}.csv")) for folder in (results, other))
        old, new = (table.set_index(row_keys(table, rule.key)) for table in (old, new))
        shared = old.index.intersection(new.index)
        print(f"{name}: {len(shared)} of {len(old)} rows")
        for column in rule.columns:
            print(f"  {column:32} {_move(old.loc[shared, column], new.loc[shared, column])}")


def _move(old: pd.Series, new: pd.Series) -> str:
    if not all(pd.api.types.is_numeric_dtype(side) and side.dtype != bool for side in (old, new)):
        return f"{sum(str(a) != str(b) for a, b in zip(old, new, strict=True))} differ"
    before, change = old.to_numpy(float), np.abs(new.to_numpy(float) - old.to_numpy(float))
    if not np.nansum(change):
        return "the same"
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(before != 0, change / np.abs(before), 0)
    flips = int((before * new.to_numpy(float) < 0).sum())
    middle = np.nanmedian(change)
    return (
        f"largest {np.nanmax(change):.2g}, or {np.nanmax(relative):.2g} of it; median {middle:.2g}; "
        f"{flips} of {len(old)} signs"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "results", nargs="?", type=Path, default=RESULTS / "default", help="folder of the run"
    )
    parser.add_argument("--moved", nargs="+", type=Path, metavar="FOLDER", help="print moves, write nothing")
    options = parser.parse_args()
    rules = read_tolerances(REFERENCE / TOLERANCES)
    if options.moved:
        for other in options.moved:
            print(f"# {other.name}")
            moved(rules, options.results, other)
        return
    take(rules, options.results)
    print(compare_numbers(options.results).verdict())


if __name__ == "__main__":
    main()
