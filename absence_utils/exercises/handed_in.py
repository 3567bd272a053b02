"""What a student handed in: their answers in the exercise as it ships, and what its checks say of them."""

from __future__ import annotations

import ast
import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat

from absence_utils.errors import InputError
from absence_utils.runner.run import read_notebook

from .notebooks import cell_tags, errors, find_exercise, run_exercise, tasks

SECONDS = 120  # what all cells of a student's notebook may take together
NOT_REACHED = "not reached"
# Runs before everything: what the package is made of, so that no cell of a student can change it for a check.
KEEP = """import sys as _sys
{imports}
_ours = [_name for _name in _sys.modules if _name.startswith("absence_utils")]
_shipped = {{_name: dict(vars(_sys.modules[_name])) for _name in _ours}}"""
# Runs before each check: the package as it was, and the names by which the exercise knows it.
RESTORE = """for _name, _values in _shipped.items():
    vars(_sys.modules[_name]).update(_values)
{imports}"""


def verdicts(path: Path, seconds: float = SECONDS) -> dict[str, str]:
    """Task -> "right", or what is not, of a student's notebook.

    The answers run in the exercise as it ships, with cells that the student added or changed beside them, so a check
    that was changed changes nothing. Every cell runs, also behind a wrong answer, until the time is over.

    Args:
        path: the student's notebook.
        seconds: for all cells together.

    Raises:
        InputError: the notebook cannot be read, is not an exercise, or has no answer cells.
    """
    if not path.is_file():
        raise InputError("--check", f"{path} is not a file", "Give students' notebooks.")
    student = read_notebook(path)
    name = student.metadata.get("companion", {}).get("exercise")
    if not name:
        raise InputError("--check", f"{path} is not an exercise", "Its metadata names none.")
    exercise = read_notebook(find_exercise(name))
    whole = put_into(exercise, student)
    with tempfile.TemporaryDirectory() as folder:
        done = run_exercise(whole, Path(folder), stop=False, limit=seconds)
    return _said(done, tasks(exercise))


def _said(done: nbformat.NotebookNode, names: list[str]) -> dict[str, str]:
    found, order, said = errors(done), [cell.id for cell in done.cells], {}
    stopped, why = done.metadata.get("stopped", (None, ""))
    end = order.index(stopped) if stopped else len(order)
    for task in names:
        place = order.index(f"check-{task}")
        kind, message = found.get(f"answer-{task}") or found.get(f"check-{task}") or ("", NOT_REACHED)
        if place >= end:
            said[task] = NOT_REACHED if why in said.values() else why
        elif _is_right(done.cells[place]):
            said[task] = "right"
        else:
            said[task] = message if kind in ("", "WrongAnswer") else f"{kind}: {message}"
    return said


def _is_right(check) -> bool:
    """Whether a check returned its `Correct`: that nothing failed would also be true of a check that never ran."""
    results = [output for output in check.outputs if output.output_type == "execute_result"]
    return any(output.data.get("text/plain", "").startswith("Right. ") for output in results)


def put_into(exercise: nbformat.NotebookNode, student: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The exercise with a student's answers, and the code that the student added or changed, in its order.

    An added cell stands before the shipped cell that follows it in the student's notebook, a changed cell behind the
    shipped one. Texts and checks are those of the exercise; before each check the package is put back as it was.

    Raises:
        InputError: no answer cell is found.
    """
    places = {cell.id: cell for cell in exercise.cells}
    answers, added, changed = {}, {}, {}
    waiting = []
    for cell, place in _matched(exercise, student):
        if place is None:
            waiting += [cell.source] if cell.cell_type == "code" else []
            continue
        added.setdefault(place, []).extend(waiting)
        waiting = []
        tags = cell_tags(places[place])
        if "answer" in tags:
            answers[place] = cell.source
        elif places[place].cell_type == "code" and "check" not in tags:
            if cell.source.strip() != places[place].source.strip():
                changed[place] = cell.source
    if not answers and not any("check" in cell_tags(places[place]) for place in added if added[place]):
        raise InputError(
            "--check",
            "no answer cells found: the ids and tags of the cells are gone",
            "Ask for the file as JupyterLab saves it.",
        )
    whole = copy.deepcopy(exercise)
    imports = _imports_of_checks(exercise)
    keep = nbformat.v4.new_code_cell(KEEP.format(imports=imports), id="keep")
    whole.cells = [keep, *_laid_out(whole.cells, answers, added, changed, RESTORE.format(imports=imports))]
    return whole


def _laid_out(cells, answers: dict, added: dict, changed: dict, restore: str) -> Iterator:
    def code(cell_id, source):
        return nbformat.v4.new_code_cell(source, id=cell_id)

    for cell in cells:
        for k, source in enumerate(added.get(cell.id, ())):
            yield code(f"added-{k}-{cell.id}", source)
        if cell.id in answers:
            cell.source = answers[cell.id]
        if "check" in cell_tags(cell):
            yield code(f"restore-{cell.id}", restore)
        yield cell
        if cell.id in changed:
            yield code(f"changed-{cell.id}", changed[cell.id])


def _imports_of_checks(exercise: nbformat.NotebookNode) -> str:
    """The import statements of the exercise that name checks, a line each."""
    shipped = [cell.source for cell in exercise.cells if cell.cell_type == "code" and not cell_tags(cell)]
    nodes = [node for source in shipped for node in ast.walk(ast.parse(source))]
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return "\n".join(
        ast.unparse(node) for node in imports if node.module.startswith("absence_utils.exercises")
    )


def _matched(exercise, student) -> Iterator[tuple]:
    """Each cell of a student with the id of the cell of the exercise that it is, or None."""
    known = {cell.id for cell in exercise.cells}
    if any(cell.id.startswith(("answer-", "check-")) and cell.id in known for cell in student.cells):
        for cell in student.cells:
            yield cell, cell.id if cell.id in known else None
        return
    # The ids are gone: a cell is the shipped one with the same source, or the answer that assigns the same names.
    same = {cell.source.strip(): cell.id for cell in exercise.cells}
    gaps = {cell.id: _gaps(cell.source) for cell in exercise.cells if "answer" in cell_tags(cell)}
    for cell in student.cells:
        place = same.pop(cell.source.strip(), None)
        if place is None and cell.cell_type == "code":
            names = _assigned(cell.source)
            place = next((answer for answer, wanted in gaps.items() if wanted & names), None)
        gaps.pop(place, None)
        yield cell, place


def _gaps(source: str) -> set[str]:
    """Names that a placeholder `...` is assigned to."""
    assigns = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assign)]
    return {
        target.id
        for node in assigns
        if isinstance(node.value, ast.Constant) and node.value.value is ...
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _assigned(source: str) -> set[str]:
    """Names that a cell assigns; none if it is no Python, as with a magic command."""
    try:
        nodes = [*ast.walk(ast.parse(source))]
    except SyntaxError:
        return set()
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
