"""Time the notebooks of a run: data/measured/notebook_seconds.csv and README.md; list data/measured/ in the manifest.

    make figures && python data/make_measured.py
    python data/make_measured.py --green-pixel      # green_pixel_seeds.csv: about five minutes of one core

The other tables of data/measured/ hold what the default run does not give: benchmarks, real images, installation. They
are written by hand from runs of this project, or by the benchmark in their column `command`; their columns say on which
machine and when. `--list` lists them in the manifest. Run this on the machine that made the figures: it counts cores.
"""

import argparse
import json
import os
import platform
import re
from dataclasses import replace
from datetime import date
from pathlib import Path

import pandas as pd
import torch
from headlines import headline_numbers
from manifest import entry_of, write_entry

from absence_utils.files import write_atomically
from absence_utils.paths import DATA, RESULTS, ROOT
from absence_utils.runner.notebooks import all_notebooks
from absence_utils.toys import OURS, RELEASED, convergence_over_seeds

MEASURED = DATA / "measured"
TIMED = "notebook_seconds.csv"
WORDS = {1: "one core", 2: "two cores", 4: "four cores", 8: "eight cores"}


def machine() -> str:
    """This machine in words, without its name."""
    cores = os.cpu_count() or 1
    kind = platform.machine().replace("x86_64", "x86-64")
    gpu = "with" if torch.cuda.is_available() else "without"
    return f"{WORDS.get(cores, f'{cores} cores')} of an {kind} machine {gpu} a GPU"


def notebook_seconds(results: Path) -> pd.DataFrame:
    """Seconds that each executed notebook took, from papermill's record: notebook, seconds, minutes, date, machine."""
    rows = []
    for path in all_notebooks():
        executed = results / path.name
        record = json.loads(executed.read_text())["metadata"]["papermill"]
        seconds, date = record["duration"], record["end_time"][:10]
        command = f"python -m absence_utils.run {path.stem}"
        rows.append((path.stem, round(seconds, 1), round(seconds / 60, 2), command, machine(), date))
    return pd.DataFrame(rows, columns=["notebook", "seconds", "minutes", "command", "machine", "date"])


def green_pixel_seeds(seeds: int = 40) -> pd.DataFrame:
    """Which seeds learn the green pixel: released recipe, with either loss, and ours, on both palettes."""
    recipes = {
        "released": RELEASED,
        "released, other loss": replace(RELEASED, loss="cross_entropy"),
        "ours": OURS,
    }
    parts = [convergence_over_seeds(recipes, palette, range(seeds)) for palette in ("released", "harder")]
    command = f"python data/make_measured.py --green-pixel {seeds}"
    how = {"command": command, "machine": f"{machine()}, torch {torch.__version__}", "date": date.today()}
    return pd.concat(parts, ignore_index=True).assign(**how)


def with_numbers(readme: str, table: pd.DataFrame) -> str:
    """README with the number (`headlines`) and the seconds of each notebook in its row of the table of figures."""
    numbers = headline_numbers()
    for notebook, seconds in zip(table.notebook, table.seconds, strict=True):
        row = rf"^(\| \[\d\d\]\(notebooks/{notebook}\.ipynb\) \|[^|]*\|)[^|]*(\|[^|]*\|) \d+ \|$"
        filled = rf"\g<1> {numbers[notebook[:2]]} \g<2> {seconds:.0f} |"
        readme = re.sub(row, filled, readme, flags=re.MULTILINE)
    return readme


def write_table(path: Path, table: pd.DataFrame) -> None:
    write_atomically(path, table.to_csv(index=False, lineterminator="\n").encode())


def list_tables() -> None:
    """Give each table of data/measured/ its entry in the manifest."""
    for path in sorted(MEASURED.glob("*.csv")):
        timed = path.name == TIMED
        made_by = "make figures && make reference" if timed else "the commands in its column `command`"
        entry = entry_of(path, "measured by this project", made_by, {"rows": len(pd.read_csv(path))})
        write_entry(DATA / "manifest.json", entry)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "results", nargs="?", type=Path, default=RESULTS / "default", help="folder of the run"
    )
    parser.add_argument("--list", action="store_true", help="list the tables in the manifest, and no more")
    parser.add_argument(
        "--green-pixel", type=int, nargs="?", const=40, metavar="SEEDS", help="measure so many seeds instead"
    )
    options = parser.parse_args()
    if options.green_pixel:
        write_table(MEASURED / "green_pixel_seeds.csv", green_pixel_seeds(options.green_pixel))
    elif not options.list:
        table = notebook_seconds(options.results)
        write_table(MEASURED / TIMED, table)
        readme = ROOT / "README.md"
        write_atomically(readme, with_numbers(readme.read_text(), table).encode())
    list_tables()


if __name__ == "__main__":
    main()
