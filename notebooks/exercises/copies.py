"""Copy exercises to work on: `python notebooks/exercises/copies.py 01`, or all of them without a name.

The copies lie in notebooks/work, which git ignores, as deep as the exercises do, so that their links and pictures lead to
the same files. A copy that is there is never written again: it holds a student's answers.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from absence_utils.errors import InputError
from absence_utils.runner.run import find_notebook
from solve import EXERCISES, all_exercises

WORK = EXERCISES.parent / "work"


def copy_exercise(exercise: Path, folder: Path = WORK) -> tuple[Path, bool]:
    """Copy an exercise into a folder, with a link to the checks beside it, unless a copy is there.

    Args:
        exercise: path of the exercise as it ships.
        folder: made if absent.

    Returns:
        Path of the copy, and whether it is new.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checks, copy = folder / "checks", folder / exercise.name
    if not checks.exists():
        checks.unlink(missing_ok=True)  # a link to a checkout that has moved
        there = os.path.relpath(EXERCISES / "checks", folder.resolve())
        checks.symlink_to(there, target_is_directory=True)
    try:
        with copy.open("xb") as file:  # fails where there is one: nothing can be lost
            file.write(exercise.read_bytes())
    except FileExistsError:
        return copy, False
    return copy, True


def main(arguments: list[str] | None = None) -> int:
    """The command line; prints the path of every copy and returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="copies.py",
        description="Copy exercises into a folder where they can be saved.",
    )
    parser.add_argument(
        "exercise", nargs="*", help="name or number; all exercises by default"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=WORK,
        help="folder of the copies (notebooks/work)",
    )
    options = parser.parse_args(arguments)
    try:
        paths = [find_notebook(text, EXERCISES) for text in options.exercise]
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for path in paths or all_exercises():
        copy, new = copy_exercise(path, options.out)
        print(copy)
        if options.exercise and not new:
            print(f"{copy.name}: your copy is kept as it is", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
