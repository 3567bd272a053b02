"""The benchmark's command line: python -m absence_utils.benchmark run | score | archive."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd
import torch

from absence_utils.errors import InputError, brief
from absence_utils.models.opening import import_function
from absence_utils.paths import RESULTS

from .archive import VERSION, write_archive
from .running import BenchmarkConfig
from .submission import append_row, method_of, run_method, score_answers, verdict

TABLE = RESULTS / "leaderboard.csv"


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    try:
        options.do(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m absence_utils.benchmark", description="Which method finds which absence?"
    )
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="run a method of your own and append its row")
    run.add_argument("method", help="module:function or file.py:function")
    run.add_argument("--maps", action="store_true", help="the function draws a map for one unit")
    run.add_argument("--networks", type=int, default=8, help="how many, with their twins, 1 to 40 (all ship)")
    run.set_defaults(do=_run)
    score = commands.add_parser("score", help="score answers from a file and append their row")
    score.add_argument("answers", type=Path, help="the archive's template, filled in")
    score.set_defaults(do=_score)
    for command in (run, score):
        command.add_argument("--name", help="of the method; the function's, or the file's, if left out")
        command.add_argument("--table", type=Path, default=TABLE, help="leaderboard that gets the row")
    archive = commands.add_parser(
        "archive", help=f"write images, pairs, masks and weights, version {VERSION}"
    )
    archive.add_argument("file", type=Path, help="a .zip")
    archive.set_defaults(do=lambda options: print(write_archive(options.file)))
    return parser


def _run(options) -> None:
    setting = BenchmarkConfig(networks=options.networks, hidden=0)
    name = options.name or options.method.rpartition(":")[2]
    method = method_of(import_function(options.method, "method"), options.maps)
    _report(*run_method(name, method, setting), options.table)


def _score(options) -> None:
    if not options.answers.is_file():
        raise InputError("answers", f"there is no file {options.answers}", "Fill in the archive's template.")
    name = options.name or options.answers.stem
    try:
        given = pd.read_csv(options.answers)
    except ValueError as error:  # of text that is no table, or no text
        problem = f"{options.answers.name} is no table ({brief(str(error), 80)})"
        raise InputError("answers", problem, "Fill in the archive's template.") from error
    _report(*score_answers(name, given), options.table)


def _report(rows: pd.DataFrame, outcomes: pd.DataFrame, table: Path) -> None:
    append_row(rows, table)
    shown = rows[["score", "mean", "low", "high", "coverage", "absences", "networks"]]
    print(shown.to_string(index=False, float_format=lambda value: f"{value:.2f}"))
    print(verdict(outcomes))
    print(f"Its rows, one for each score, are in {table}; a later run under this name replaces them.")


if __name__ == "__main__":
    sys.exit(main())
