"""Exercise notebooks: which there are, their tasks, what a student answered, solutions put in, running them.

An exercise has the stem of its lesson. Its answer cells are tagged `answer` and have the id `answer-TASK`; the check
behind each is tagged `check` and has the id `check-TASK`. Both are tagged `raises-exception` as well: Run All goes on
behind an open task. Solutions are one Python file with a section `# %% TASK` for each: the only place where they stand.
"""

from __future__ import annotations

import copy
import math
import os
import re
import time
from pathlib import Path

import nbformat

from absence_utils.errors import InputError
from absence_utils.paths import NOTEBOOKS
from absence_utils.runner.run import find_notebook, read_notebook

EXERCISES = NOTEBOOKS / "exercises"
SOLUTIONS = EXERCISES / "solutions"
SECTION = re.compile(r"^# %% *(.*?) *$", re.MULTILINE)


def all_exercises(folder: Path = EXERCISES) -> list[Path]:
    """The exercises of a folder, in order."""
    return sorted(folder.glob("[0-9]*.ipynb"))


def find_exercise(text: str, folder: Path = EXERCISES) -> Path:
    """Exercise by path, name (`01_reichardt_detector`) or number (`01`, `1`).

    Raises:
        InputError: no such exercise; lists those that exist.
    """
    return find_notebook(text, folder)


def tasks(notebook: nbformat.NotebookNode) -> list[str]:
    """Names of the tasks, in the order of their answer cells."""
    return [cell.id.removeprefix("answer-") for cell in notebook.cells if "answer" in cell_tags(cell)]


def cell_tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def read_solutions(path: Path) -> dict[str, str]:
    """Solutions by task from a Python file with sections `# %% TASK`.

    Raises:
        InputError: the file is absent, has two sections of one name, or one without code.
    """
    if not Path(path).is_file():
        raise InputError(
            "solutions", f"{path} is not a file", "Solutions lie in notebooks/exercises/solutions."
        )
    _, *parts = SECTION.split(Path(path).read_text())
    found = {}
    for task, code in zip(parts[::2], parts[1::2], strict=True):
        if task in found or not code.strip():
            problem = "has two sections" if task in found else "has no code"
            raise InputError(
                "solutions", f"{task!r} in {Path(path).name} {problem}", "Write one for each task."
            )
        found[task] = code.strip()
    return found


def solutions_of(exercise: Path) -> dict[str, str]:
    """Solutions of the exercise at this path, see `read_solutions`."""
    return read_solutions(SOLUTIONS / f"{Path(exercise).stem}.py")


def read_answers(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """What stands in the answer cells, by task."""
    return {
        cell.id.removeprefix("answer-"): cell.source for cell in notebook.cells if "answer" in cell_tags(cell)
    }


def insert_solutions(
    notebook: nbformat.NotebookNode, solutions: dict[str, str], upto: str | None = None
) -> nbformat.NotebookNode:
    """A copy of an exercise with code put into its answer cells.

    Args:
        notebook: the exercise.
        solutions: code by task; a task without any keeps its placeholder.
        upto: the first task that is left open; all are filled by default.

    Raises:
        InputError: a solution of a task that the exercise does not have, or no such task as `upto`.
    """
    names = tasks(notebook)
    for parameter, asked in (("solutions", [*solutions]), ("upto", [upto] if upto else [])):
        unknown = [task for task in asked if task not in names]
        if unknown:
            raise InputError(parameter, f"there is no task {unknown[0]!r}", f"There are: {', '.join(names)}.")
    filled = copy.deepcopy(notebook)
    chosen = names if upto is None else names[: names.index(upto)]
    for cell in filled.cells:
        task = cell.id.removeprefix("answer-")
        if "answer" in cell_tags(cell) and task in chosen and task in solutions:
            cell.source = solutions[task]
    return filled


def run_exercise(
    notebook: nbformat.NotebookNode,
    folder: Path,
    *,
    stop: bool = True,
    timeout: int = 600,
    limit: float | None = None,
) -> nbformat.NotebookNode:
    """Execute an exercise in a fresh kernel; the returned copy has the outputs, errors included.

    Args:
        folder: working directory of the kernel.
        stop: leave the cells behind the first error unexecuted, unless it is in a cell tagged `raises-exception`.
        timeout: seconds for each cell.
        limit: seconds for all cells together. When they are over, or the kernel dies, the copy's metadata has
            `stopped`: the id of the cell that ran, and a sentence.

    Raises:
        CellTimeoutError, DeadKernelError: a cell took longer, or the kernel died, and there is no limit.
    """
    from nbclient import NotebookClient  # not needed to read or fill an exercise
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    node = copy.deepcopy(notebook)
    quiet = {"TQDM_DISABLE": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1", "ABSENCE_PROFILE": "exercise"}
    defaults = {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    started = []  # cells, with the time when each began

    def left(cell) -> int:
        started.append((time.monotonic(), cell.id))
        return timeout if limit is None else max(1, math.ceil(started[0][0] + limit - started[-1][0]))

    client = NotebookClient(
        node,
        timeout_func=left,
        shutdown_kernel="graceful" if limit is None else "immediate",
        kernel_name="python3",
        allow_errors=not stop,
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
    )
    try:
        client.execute(env={**defaults, **os.environ, **quiet})
    except CellExecutionError:
        pass  # it stands in the outputs, see `errors`
    except (CellTimeoutError, DeadKernelError) as error:
        if limit is None:
            raise
        late = isinstance(error, CellTimeoutError)
        why = f"still running after {limit:g} s" if late else "the kernel died"
        node.metadata["stopped"] = [started[-1][1], why]
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


__all__ = [
    "EXERCISES",
    "SOLUTIONS",
    "all_exercises",
    "cell_tags",
    "errors",
    "insert_solutions",
    "find_exercise",
    "read_answers",
    "read_notebook",
    "read_solutions",
    "run_exercise",
    "solutions_of",
    "tasks",
]
