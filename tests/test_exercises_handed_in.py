"""What students hand in: cells added, changed or without ids, checks that were patched, files that are none."""

import nbformat
import pytest

from absence_utils.errors import InputError
from absence_utils.exercises import __main__ as command
from absence_utils.exercises import handed_in
from absence_utils.exercises.handed_in import NOT_REACHED, put_into, verdicts
from absence_utils.exercises.notebooks import find_exercise, insert_solutions
from absence_utils.runner.run import read_notebook

NAMES = ("one", "two", "three")


def cell(source, cell_id=None):
    return nbformat.v4.new_code_cell(source, **({"id": cell_id} if cell_id else {}))


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """An exercise of three tasks; the right answers are 1, 2 and 3."""
    cells = [cell("import math\nfrom absence_utils.exercises import answers as check", "start")]
    for truth, name in enumerate(NAMES, start=1):
        cells.append(cell(f"{name} = ...  # fill in", f"answer-{name}"))
        code = f"check.compare('{name}', {name}, {truth}) or check.Correct('Yes.')"
        cells.append(cell(code, f"check-{name}"))
        for kind, made in zip(("answer", "check"), cells[-2:], strict=True):
            made.metadata["tags"] = [kind, "raises-exception"]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"companion": {"exercise": "00_small"}})
    nbformat.write(notebook, tmp_path / "00_small.ipynb")
    monkeypatch.setattr(handed_in, "find_exercise", lambda name: find_exercise(name, tmp_path))
    return notebook


RIGHT = {"one": "one = 1", "two": "two = 2", "three": "three = 3.0"}


def judge(tmp_path, notebook, **arguments):
    nbformat.write(notebook, tmp_path / "student.ipynb")
    return verdicts(tmp_path / "student.ipynb", **arguments)


def place(notebook, cell_id):
    return [made.id for made in notebook.cells].index(cell_id)


def test_cells_that_a_student_added_or_changed_count(shipped, tmp_path):
    student = insert_solutions(
        shipped, {"one": "one = helper()", "two": "two = np.asarray(0)", "three": "three = undefined"}
    )
    student.cells[0].source += "\nimport numpy as np"
    student.cells.insert(place(student, "answer-one"), cell("def helper():\n    return 1"))
    student.cells.insert(place(student, "check-two"), cell("two = two + 2  # the answer's other half"))
    student.cells[place(student, "check-three")].source = "'a check that was changed'"
    said = judge(tmp_path, student)
    assert (said["one"], said["two"]) == ("right", "right")
    assert said["three"] == "NameError: name 'undefined' is not defined"


def test_neither_changed_nor_patched_checks_score(shipped, tmp_path):
    patch = "check.compare = lambda *anything, **more: None\nclass check2: pass\n"
    student = insert_solutions(
        shipped, {"one": "one = 2", "two": patch + "two = 5", "three": "check = None\nthree = 3"}
    )
    student.cells[place(student, "check-one")].source = "check.Correct('Yes.')"
    said = judge(tmp_path, student)
    assert "`one` is not right yet (too high)" in said["one"]
    assert "`two` is not right yet (too high)" in said["two"], "the patch is gone when the check runs"
    assert said["three"] == "right", "a name that was taken by accident is given back"


def without_ids(notebook):
    """The cells with new ids and no tags, as other programs save them."""
    for made in notebook.cells:
        made.id, made.metadata = f"x{abs(hash(made.source)) % 10**9}", {}
    return notebook


def test_without_ids_and_tags_the_assigned_names_tell(shipped, tmp_path):
    student = insert_solutions(shipped, {"one": "a = 1\none = a", "three": "%time three = 3\nthree = 4"})
    whole = put_into(shipped, without_ids(student))
    sources = {made.id: made.source for made in whole.cells}
    assert sources["answer-one"] == "a = 1\none = a" and sources["answer-two"] == "two = ...  # fill in"
    said = judge(tmp_path, without_ids(insert_solutions(shipped, RIGHT)))
    assert said == dict.fromkeys(NAMES, "right")
    empty = nbformat.v4.new_notebook(cells=[cell("x = 1")], metadata=shipped.metadata)
    with pytest.raises(InputError, match="no answer cells found: the ids and tags .* as JupyterLab saves it"):
        judge(tmp_path, empty)


def test_the_time_is_limited_and_a_dead_kernel_is_no_right_answer(shipped, tmp_path):
    student = insert_solutions(shipped, {**RIGHT, "two": "two = 2\nwhile True: pass"})
    said = judge(tmp_path, student, seconds=8)
    assert said == {"one": "right", "two": "still running after 8 s", "three": NOT_REACHED}
    said = judge(tmp_path, insert_solutions(shipped, {**RIGHT, "two": "import os\nos._exit(0)"}))
    assert said == {"one": "right", "two": "the kernel died", "three": NOT_REACHED}


def test_the_command_goes_on_behind_a_file_that_cannot_be_checked(shipped, tmp_path, capsys):
    broken, other, anna = (tmp_path / name for name in ("broken.ipynb", "other.ipynb", "anna.ipynb"))
    broken.write_text("{")
    nbformat.write(nbformat.v4.new_notebook(), other)
    nbformat.write(insert_solutions(shipped, RIGHT), anna)
    files = [str(path) for path in (broken, other, tmp_path / "none.ipynb", anna)]
    assert command.main(["--check", *files]) == 1
    said = capsys.readouterr()
    assert f"{anna}: 3 of 3" in said.out
    lines = said.err.splitlines()
    assert [line.startswith(f"error: {file}: ") for line, file in zip(lines, files[:3], strict=True)] == [
        True
    ] * 3
    assert "cannot be read" in lines[0] and "is not an exercise" in lines[1] and "is not a file" in lines[2]
    assert command.main(["--check", str(anna)]) == 0
    nbformat.write(insert_solutions(shipped, {**RIGHT, "one": "one = ..."}), anna)
    assert command.main(["--check", str(anna)]) == 1
    assert "2 of 3" in capsys.readouterr().out and read_notebook(anna).cells[1].source == "one = ..."
