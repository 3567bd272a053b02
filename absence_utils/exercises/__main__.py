"""For teachers: `python -m absence_utils.exercises 01` solves an exercise, `--check FILE ...` checks students' ones."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import nbformat

from absence_utils.errors import InputError
from absence_utils.paths import RESULTS
from absence_utils.record import write_atomically

from .notebooks import (
    all_exercises,
    errors,
    fill,
    find_exercise,
    read_answers,
    read_notebook,
    run_exercise,
    solutions_of,
    tasks,
)


def solve(exercise: Path, out: Path, run: bool = True) -> tuple[Path, dict]:
    """Write the solved exercise into the folder `out`; return its path and what went wrong in it."""
    node = fill(read_notebook(exercise), solutions_of(exercise))
    out.mkdir(parents=True, exist_ok=True)
    if run:
        node = run_exercise(node, out)
    write_atomically(out / exercise.name, nbformat.writes(node).encode())
    return out / exercise.name, errors(node)


def verdicts(path: Path) -> dict[str, str]:
    """Task -> "right", or what is not, of a student's notebook.

    The answers are put into the exercise as it ships, so a check that was changed changes nothing. Every cell runs,
    also behind a wrong answer.

    Raises:
        InputError: the notebook is not an exercise.
    """
    if not path.is_file():
        raise InputError("--check", f"{path} is not a file", "Give students' notebooks.")
    student = read_notebook(path)
    name = student.metadata.get("companion", {}).get("exercise")
    if not name:
        raise InputError("--check", f"{path} is not an exercise", "Its metadata names none.")
    exercise = read_notebook(find_exercise(name))
    known = tasks(exercise)
    answers = {task: code for task, code in read_answers(student).items() if task in known}
    with tempfile.TemporaryDirectory() as folder:
        found = errors(run_exercise(fill(exercise, answers), Path(folder), stop=False))
    said = {}
    for task in known:
        kind, message = found.get(f"answer-{task}") or found.get(f"check-{task}") or ("", "right")
        said[task] = message if kind in ("", "NotYet") else f"{kind}: {message}"
    return said


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
        for path in options.check:
            said = verdicts(path)
            print(f"{path}: {sum(word == 'right' for word in said.values())} of {len(said)}")
            for task, sentence in said.items():
                print(f"  {task:16} {sentence}")
                failed |= sentence != "right"
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
