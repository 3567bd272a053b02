"""Solve exercises with the solutions that ship: `python notebooks/exercises/solve.py 01`.

An exercise has the stem of its lesson. Its answer cells are tagged `answer` and have the id `answer-TASK`; the check
behind each is tagged `check` and has the id `check-TASK`. Both are tagged `raises-exception` as well: Run All goes on
behind an open task. Solutions are one Python file with a section `# %% TASK` for each: the only place where they stand.
"""

from __future__ import annotations

import argparse
import copy
import os
import re
import sys
from pathlib import Path

import nbformat

from absence_utils.errors import InputError
from absence_utils.files import write_atomically
from absence_utils.paths import RESULTS
from absence_utils.runner.run import find_notebook, read_notebook

EXERCISES = Path(__file__).resolve().parent
SOLUTIONS = EXERCISES / "solutions"
SECTION = re.compile(r"^# %% *(.*?) *$", re.MULTILINE)


def all_exercises() -> list[Path]:
    """The exercises, in order."""
    return sorted(EXERCISES.glob("[0-9]*.ipynb"))


def cell_tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def tasks(notebook: nbformat.NotebookNode) -> list[str]:
    """Names of the tasks, in the order of their answer cells."""
    return [
        cell.id.removeprefix("answer-")
        for cell in notebook.cells
        if "answer" in cell_tags(cell)
    ]


def read_solutions(path: Path) -> dict[str, str]:
    """Solutions by task from a Python file with sections `# %% TASK`.

    Raises:
        InputError: the file is absent, has two sections of one name, or one without code.
    """
    if not path.is_file():
        remedy = "Solutions lie in notebooks/exercises/solutions."
        raise InputError("solutions", f"{path} is not a file", remedy)
    _, *parts = SECTION.split(path.read_text())
    found = {}
    for task, code in zip(parts[::2], parts[1::2], strict=True):
        if task in found or not code.strip():
            problem = "has two sections" if task in found else "has no code"
            raise InputError(
                "solutions",
                f"{task!r} in {path.name} {problem}",
                "Write one for each task.",
            )
        found[task] = code.strip()
    return found


def solutions_of(exercise: Path) -> dict[str, str]:
    """Solutions of the exercise at this path, see `read_solutions`."""
    return read_solutions(SOLUTIONS / f"{exercise.stem}.py")


def insert_solutions(
    notebook: nbformat.NotebookNode, solutions: dict[str, str]
) -> nbformat.NotebookNode:
    """A copy of an exercise with code in its answer cells; a task without a solution keeps its placeholder.

    Raises:
        InputError: a solution of a task that the exercise does not have.
    """
    names = tasks(notebook)
    for task in solutions:
        if task not in names:
            raise InputError(
                "solutions",
                f"there is no task {task!r}",
                f"There are: {', '.join(names)}.",
            )
    filled = copy.deepcopy(notebook)
    for cell in filled.cells:
        if "answer" in cell_tags(cell):
            cell.source = solutions.get(cell.id.removeprefix("answer-"), cell.source)
    return filled


def run_exercise(
    notebook: nbformat.NotebookNode, folder: Path = EXERCISES
) -> nbformat.NotebookNode:
    """Execute an exercise in a fresh kernel; the returned copy has the outputs, errors included.

    Args:
        folder: working folder of the kernel; that of the exercises has the checks.
    """
    from nbclient import NotebookClient  # not needed to list or fill an exercise
    from nbclient.exceptions import CellExecutionError

    node = copy.deepcopy(notebook)
    quiet = {
        "TQDM_DISABLE": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "ABSENCE_PROFILE": "exercise",
    }
    defaults = {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    client = NotebookClient(
        node,
        timeout=600,  # seconds for a cell
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
    )
    try:
        client.execute(env={**defaults, **os.environ, **quiet})
    except CellExecutionError:
        pass  # it stands in the outputs, see `errors`
    return node


def errors(notebook: nbformat.NotebookNode) -> dict[str, tuple[str, str]]:
    """What went wrong in an executed exercise: cell id -> (class of the error, message), in order."""
    return {
        cell.id: (output.ename, output.evalue)
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "error"
    }


def solve(exercise: Path, out: Path, run: bool = True) -> tuple[Path, dict]:
    """Write the solved exercise into the folder `out`; return its path and what went wrong in it."""
    node = insert_solutions(read_notebook(exercise), solutions_of(exercise))
    out.mkdir(parents=True, exist_ok=True)
    if run:
        node = run_exercise(node)
    write_atomically(out / exercise.name, nbformat.writes(node).encode())
    return out / exercise.name, errors(node)


def main(arguments: list[str] | None = None) -> int:
    """The command line; the exit status is 0 if every check says that its solution is right."""
    parser = argparse.ArgumentParser(
        prog="solve.py", description="Solve exercises and run their checks."
    )
    parser.add_argument(
        "exercise",
        nargs="*",
        help="name or number; without any, the exercises are listed",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=RESULTS / "exercises",
        help="folder of the solved notebooks (%(default)s)",
    )
    parser.add_argument(
        "--no-run",
        action="store_true",
        help="fill in the solutions without running them",
    )
    options = parser.parse_args(arguments)
    if not options.exercise:
        for path in all_exercises():
            print(f"{path.stem:28} {', '.join(tasks(read_notebook(path)))}")
    failed = False
    try:
        for path in [find_notebook(text, EXERCISES) for text in options.exercise]:
            written, found = solve(path, options.out, run=not options.no_run)
            print(written)
            for cell, (kind, message) in found.items():
                print(
                    f"error: {path.stem}, cell {cell}: {kind}: {message}",
                    file=sys.stderr,
                )
                failed = True
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
