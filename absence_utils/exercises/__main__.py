"""For teachers: `python -m absence_utils.exercises 01` solves an exercise, `--check FILE ...` checks students' ones."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import nbformat

from absence_utils.errors import InputError
from absence_utils.files import write_atomically
from absence_utils.paths import RESULTS
from absence_utils.runner.run import read_notebook

from .handed_in import SECONDS, verdicts
from .notebooks import (
    all_exercises,
    errors,
    find_exercise,
    insert_solutions,
    run_exercise,
    solutions_of,
    tasks,
)


def solve(exercise: Path, out: Path, run: bool = True) -> tuple[Path, dict]:
    """Write the solved exercise into the folder `out`; return its path and what went wrong in it."""
    node = insert_solutions(read_notebook(exercise), solutions_of(exercise))
    out.mkdir(parents=True, exist_ok=True)
    if run:
        node = run_exercise(node, out)
    write_atomically(out / exercise.name, nbformat.writes(node).encode())
    return out / exercise.name, errors(node)


def check(paths: list[Path], seconds: float) -> bool:
    """Print what each student's notebook gets, a line for one that cannot be checked; return whether all is right."""
    fine = True
    for path in paths:
        try:
            said = verdicts(path, seconds)
        except InputError as error:
            print(f"error: {path}: {error}", file=sys.stderr)
            fine = False
            continue
        print(f"{path}: {sum(word == 'right' for word in said.values())} of {len(said)}")
        for task, sentence in said.items():
            print(f"  {task:16} {sentence}")
            fine &= sentence == "right"
        sys.stdout.flush()
    return fine


def main(arguments: list[str] | None = None) -> int:
    """The command line; the exit status is 0 if everything asked for is right."""
    parser = argparse.ArgumentParser(prog="python -m absence_utils.exercises", description=__doc__)
    parser.add_argument("exercise", nargs="*", help="name or number; without any, the exercises are listed")
    parser.add_argument(
        "--out", type=Path, default=RESULTS / "exercises", help="folder of the solved notebooks"
    )
    parser.add_argument("--no-run", action="store_true", help="fill in the solutions without running them")
    parser.add_argument(
        "--check", nargs="+", type=Path, default=[], metavar="FILE", help="students' notebooks"
    )
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="what a student's notebook may take (%(default)s)"
    )
    options = parser.parse_args(arguments)
    try:
        if not options.exercise and not options.check:
            for path in all_exercises():
                print(f"{path.stem:28} {', '.join(tasks(read_notebook(path)))}")
            return 0
        failed = False
        for path in [find_exercise(text) for text in options.exercise]:
            written, found = solve(path, options.out, run=not options.no_run)
            print(written)
            for cell, (kind, message) in found.items():
                print(f"error: {path.stem}, cell {cell}: {kind}: {message}", file=sys.stderr)
                failed = True
        failed |= not check(options.check, options.seconds)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
