"""Every exercise keeps the format, runs with its solutions, and fails at the check of each task left open.

Checks of single exercises are tested beside this, in tests/test_exercises_*.py: wrong answers and what is said of them;
what students hand in, in tests/test_exercises_handed_in.py.
"""

import ast
import json
import re

import matplotlib
import nbformat
import numpy as np
import pytest
import torch

from absence_utils.errors import InputError
from absence_utils.exercises import __main__ as command
from absence_utils.exercises.answers import (
    Correct,
    WrongAnswer,
    answered,
    choose,
    compare,
    same_items,
    yes_or_no,
)
from absence_utils.exercises.handed_in import SECONDS
from absence_utils.exercises.notebooks import (
    SOLUTIONS,
    all_exercises,
    cell_tags,
    errors,
    find_exercise,
    insert_solutions,
    read_answers,
    read_solutions,
    run_exercise,
    solutions_of,
    tasks,
)
from absence_utils.paths import NOTEBOOKS, ROOT
from absence_utils.runner.run import read_notebook

PATHS = all_exercises()
MINUTES = 3  # what an exercise may take to run, solved, on a laptop

each = pytest.mark.parametrize("path", PATHS, ids=[path.stem for path in PATHS])


def code_cells(path):
    return [cell for cell in read_notebook(path).cells if cell.cell_type == "code"]


# The format


def test_there_are_exercises_for_lessons_that_exist():
    assert PATHS
    assert [path.name for path in PATHS if not (NOTEBOOKS / path.name).is_file()] == []
    assert {path.stem for path in SOLUTIONS.iterdir()} == {path.stem for path in PATHS}


@each
def test_is_stored_without_outputs_and_says_whose_exercise_it_is(path):
    stored = json.loads(path.read_text())
    code = [cell for cell in stored["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert stored["metadata"]["companion"]["exercise"] == path.stem
    assert stored["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in stored["cells"]]
    assert len(ids) == len(set(ids))


@each
def test_the_top_says_minutes_prerequisites_and_what_one_learns(path):
    notebook = read_notebook(path)
    top = notebook.cells[0].source
    assert top.startswith("# ")
    (minutes,) = re.findall(r"\*\*Minutes:\*\* (\d+)", top)
    assert int(minutes) == notebook.metadata.companion.minutes
    assert "**Prerequisites:**" in top and "**You learn:**" in top
    assert f"../{path.name}" in top, "a link to the lesson"


@each
def test_every_task_has_a_text_a_hint_an_answer_a_check_and_a_solution(path):
    cells = read_notebook(path).cells
    ids = [cell.id for cell in cells]
    names = tasks(read_notebook(path))
    assert 3 <= len(names) <= 7
    assert [*solutions_of(path)] == names, "one solution for each task, in their order"
    for name in names:
        places = [ids.index(f"{kind}-{name}") for kind in ("task", "hint", "answer", "check")]
        assert places == sorted(places) and places[2:] == [places[3] - 1, places[3]], name
        task, hint, answer, check = (cells[place] for place in places)
        assert task.cell_type == hint.cell_type == "markdown"
        assert re.match(r"<details><summary>Hint</summary>\n\n.+\n\n</details>$", hint.source, re.DOTALL), (
            name
        )
        assert cell_tags(answer) == ["answer", "raises-exception"], "Run All goes on behind it"
        assert cell_tags(check) == ["check", "raises-exception"], "Run All goes on behind it"
        assert re.search(r"= \.\.\.\s+#", answer.source), f"{name}: a placeholder with a comment"
        assert len(ast.parse(check.source).body) == 1 and len(check.source.splitlines()) == 1, name
    assert sum("check" in cell_tags(cell) for cell in cells) == len(names)


@each
def test_has_a_part_that_breaks_and_repairs(path):
    headings = [
        line for cell in read_notebook(path).cells for line in cell.source.splitlines() if line[:1] == "#"
    ]
    found = [heading for heading in headings if re.search("break it|repair it", heading, re.IGNORECASE)]
    assert ["break" in heading.lower() for heading in found] == [True, False], headings


@each
def test_defines_nothing_and_its_cells_are_short(path):
    for cell in code_cells(path):
        nodes = ast.walk(ast.parse(cell.source))
        assert not [node for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
        assert sum(bool(line.strip()) for line in cell.source.splitlines()) <= 18


@each
def test_solutions_replace_every_placeholder_and_say_why(path):
    for name, code in solutions_of(path).items():
        nodes = [*ast.walk(ast.parse(code))]
        slices = [part for node in nodes if isinstance(node, ast.Subscript) for part in ast.walk(node.slice)]
        gaps = [node for node in nodes if isinstance(node, ast.Constant) and node.value is ...]
        assert [gap for gap in gaps if gap not in slices] == [], f"{name}: only values[..., :4] may hold dots"
        assert re.search(r"#.*\w+ \w+ \w+", code), f"{name}: a sentence on why"


# With solutions and without


@each
def test_every_task_left_open_stops_at_its_check_and_passes_when_solved(path, tmp_path, monkeypatch):
    """Cell by cell in this process: every answer cell runs with its placeholder first, then with its solution."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ABSENCE_PROFILE", "exercise")
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert matplotlib.get_backend().lower() == "agg"
    solutions, names, space = solutions_of(path), [], {"__name__": "exercise"}
    for cell in code_cells(path):
        if "answer" in cell_tags(cell):
            names.append(cell.id.removeprefix("answer-"))
            exec(cell.source, space)
        elif "check" in cell_tags(cell):
            with pytest.raises(WrongAnswer, match="You have not answered yet: replace the"):
                exec(cell.source, space)
            exec(solutions[names[-1]], space)
            assert isinstance(eval(cell.source, space), Correct), names[-1]
        else:
            exec(cell.source, space)
    assert names == tasks(read_notebook(path))


@each
def test_a_fresh_kernel_says_which_tasks_are_open_and_runs_with_solutions(path, tmp_path):
    """One kernel for both, run as Run All does: the exercise as it ships, then with solutions."""
    notebook = read_notebook(path)
    names, whole = tasks(notebook), insert_solutions(notebook, solutions_of(path))
    shipped = [nbformat.from_dict({**cell, "id": f"open-{cell.id}"}) for cell in notebook.cells]
    whole.cells = [*shipped, *whole.cells]
    done = run_exercise(whole, tmp_path, timeout=60 * MINUTES)
    found = errors(done)
    assert next(iter(found)) == f"open-check-{names[0]}", "the first thing that is said is of the first task"
    assert {f"open-check-{name}" for name in names} <= {*found}
    assert {kind for kind, _ in found.values()} == {"WrongAnswer"}
    assert not [cell for cell in found if not cell.startswith("open-")], "right with solutions"
    for cell in done.cells[: len(shipped)]:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                message = found[cell.id][1]
                if "check" in cell_tags(cell):
                    assert message.startswith("You have not answered yet: replace the ... of `"), cell.id
                assert output.traceback == [f"Not yet: {message}"], "one line, no lines of the check"
    checks = [cell for cell in done.cells[len(shipped) :] if "check" in cell_tags(cell)]
    assert all(cell.outputs[0].data["text/plain"].startswith("Right. ") for cell in checks)


# What checks are made of


@pytest.mark.parametrize("gap", [..., [1, ...], (..., 2), {"a": ...}, {"a": [1, (2, ...)]}])
def test_a_placeholder_is_found_wherever_it_is(gap):
    with pytest.raises(WrongAnswer, match="replace the ... of `value`"):
        answered(value=gap)
    answered(value=0, other=[], more=None)


def test_numbers_are_compared_within_the_tolerance():
    for given in (1 / 7, 0.143, torch.tensor(1 / 7), np.float32(1 / 7)):
        compare("x", given, 1 / 7)
    for given, sentence in ((-1 / 7, "sign is the wrong way round"), (0.2, "too high"), (0.1, "too low")):
        with pytest.raises(WrongAnswer, match=f"`x` is not right yet.*{sentence}.*Look here"):
            compare("x", given, 1 / 7, look="Look here.")
    with pytest.raises(WrongAnswer, match="should be a number .* yours is a str"):
        compare("x", "a lot", 1.0)
    with pytest.raises(WrongAnswer, match="not a finite number"):
        compare("x", float("nan"), 1.0)


def test_a_number_may_be_rounded_as_one_types_it_and_no_further():
    for given, truth in (
        (0.08, 1 / 13),
        (-0.01, -0.0098),
        (0.0098, 0.00977),
        (-3.33, -3.3345),
        ([0.08, 0], [1 / 13, 0]),
    ):
        compare("x", given, truth, tolerance=1e-6)
    for given, truth in (
        (0.07, 1 / 13),
        (0.1, 1 / 13),
        (0.0, 0.002),
        (140, 137),
        (-0.08, 1 / 13),
        (0.0771, 1 / 13),
    ):
        with pytest.raises(WrongAnswer, match="not right yet"):
            compare("x", given, truth, tolerance=1e-6)
    with pytest.raises(WrongAnswer, match="not right yet"):
        compare("x", np.full(100, 0.08), np.full(100, 1 / 13), tolerance=1e-6)
    with pytest.raises(WrongAnswer, match="^Mistake.$"):
        compare("x", 0.08, 0.076, mistakes=[(0.0801, "Mistake.")], tolerance=1e-6)
    compare("x", [0.08], 0.0801, mistakes=[(0.076, "Mistake.")])
    with pytest.raises(WrongAnswer, match="`x` is in percent. Give a share"):
        compare("x", 63, 0.6286, share=True)


def test_arrays_are_compared_by_shape_value_and_known_mistake():
    truth = torch.tensor([[1.0, -2.0]])
    compare("x", truth.tolist(), truth)
    mistakes = [(truth.abs(), "You took absolute values."), (truth.T, "Rows are units.")]
    with pytest.raises(WrongAnswer, match="^You took absolute values.$"):
        compare("x", truth.abs(), truth, mistakes=mistakes)
    with pytest.raises(WrongAnswer, match="^Rows are units.$"):
        compare("x", truth.T, truth, mistakes=mistakes)
    with pytest.raises(WrongAnswer, match=r"an array of shape \(1, 2\), and yours is one number"):
        compare("x", 1.0, truth, mistakes=mistakes)
    with pytest.raises(WrongAnswer, match="50% of its values differ"):
        compare("x", [[1.0, 0.0]], truth)
    compare("x", truth, truth, mistakes=[(truth, "A mistake that gives the truth is none.")])


def test_words_and_sets():
    choose("x", " Veto ", "veto", {})
    with pytest.raises(WrongAnswer, match="^Because.$"):
        choose("x", "drive", "veto", {"drive": "Because."})
    with pytest.raises(WrongAnswer, match="one of 'drive', 'veto', and yours is 'other'"):
        choose("x", "other", "veto", {"drive": "Because."})
    yes_or_no("x", np.True_, True, "")
    with pytest.raises(WrongAnswer, match="should be True or False, and yours is 1"):
        yes_or_no("x", 1, True, "")
    with pytest.raises(WrongAnswer, match="^No.$"):
        yes_or_no("x", False, True, "No.")
    same_items("x", torch.tensor([2, 1]), [1, 2])
    with pytest.raises(WrongAnswer, match="leaves out 1 of 2. More."):
        same_items("x", [1], [1, 2], missing="More.")
    with pytest.raises(WrongAnswer, match="does not belong there: 3. Less."):
        same_items("x", [1, 2, 3], [1, 2], extra="Less.")
    with pytest.raises(WrongAnswer, match="^That is the other end.$"):
        same_items("x", [3], [1, 2], mistakes=[([3], "That is the other end.")])
    with pytest.raises(WrongAnswer, match="should be a list"):
        same_items("x", "12", [1, 2])


def test_jupyter_shows_one_line():
    assert WrongAnswer("Look again.")._render_traceback_() == ["Not yet: Look again."]
    assert repr(Correct("It is so.")) == "Right. It is so."


# Reading and filling, on an exercise of two tasks


@pytest.fixture
def small():
    new = nbformat.v4
    cells = [new.new_code_cell("from absence_utils.exercises import answered, compare", id="start")]
    for name in ("one", "two"):
        for kind, code in (
            ("answer", f"{name} = ...  # fill in"),
            ("check", f"compare('{name}', {name}, 1)"),
        ):
            cells.append(new.new_code_cell(code, id=f"{kind}-{name}", metadata={"tags": [kind]}))
    return new.new_notebook(cells=cells, metadata={"companion": {"exercise": "00_small"}})


def test_fill_puts_solutions_in_up_to_a_task_and_leaves_the_exercise_alone(small):
    solutions = {"one": "one = 1", "two": "two = 1"}
    assert read_answers(insert_solutions(small, solutions)) == solutions
    assert read_answers(insert_solutions(small, solutions, upto="two")) == {
        "one": "one = 1",
        "two": "two = ...  # fill in",
    }
    assert read_answers(small) == {"one": "one = ...  # fill in", "two": "two = ...  # fill in"}
    for arguments in (({"three": "x"},), ({}, "three")):
        with pytest.raises(InputError, match="no task 'three'. There are: one, two."):
            insert_solutions(small, *arguments)


def test_solutions_are_sections_of_one_file(tmp_path):
    path = tmp_path / "s.py"
    path.write_text('"""Title."""\n\n# %% one\n# why\none = 1\n\n# %% two\ntwo = 2\n')
    assert read_solutions(path) == {"one": "# why\none = 1", "two": "two = 2"}
    for text, problem in (
        ("# %% a\nx\n# %% a\ny\n", "has two sections"),
        ("# %% a\n# %% b\ny\n", "has no code"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=problem):
            read_solutions(path)
    with pytest.raises(InputError, match="is not a file"):
        read_solutions(tmp_path / "none.py")


def test_the_command_writes_solved_exercises_and_refuses_what_is_none(small, tmp_path, monkeypatch, capsys):
    nbformat.write(small, tmp_path / "00_small.ipynb")
    monkeypatch.setattr(command, "find_exercise", lambda name: find_exercise(name, tmp_path))
    monkeypatch.setattr(command, "solutions_of", lambda path: {"one": "one = 1", "two": "two = 3"})
    assert command.main(["00", "--out", str(tmp_path / "out"), "--no-run"]) == 0
    written = read_notebook(tmp_path / "out" / "00_small.ipynb")
    assert read_answers(written)["two"] == "two = 3" and not written.cells[0].execution_count
    assert command.main(["00", "--out", str(tmp_path / "out")]) == 1
    assert "check-two: WrongAnswer: `two` is not right yet" in capsys.readouterr().err
    assert read_notebook(tmp_path / "out" / "00_small.ipynb").cells[1].execution_count
    assert command.main(["77"]) == 1
    assert "there is no '77'" in capsys.readouterr().err
    assert command.main([]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [path.stem for path in PATHS]


# The teacher's guide

GUIDE = (NOTEBOOKS / "exercises" / "README.md").read_text()


@each
def test_the_guide_has_a_row_with_the_minutes(path):
    (minutes,) = re.findall(rf"^\| \[{path.stem}\]\({path.name}\) \| (\d+) \|", GUIDE, re.MULTILINE)
    assert int(minutes) == read_notebook(path).metadata.companion.minutes


def test_the_plan_of_the_guide_takes_90_minutes_and_agrees_with_the_exercises():
    (title, plan) = re.findall(
        r"^## A plan for (\d+) minutes.*?\n(.*?)^## ", GUIDE, re.MULTILINE | re.DOTALL
    )[0]
    rows = re.findall(r"^\| (\d+) \| (.*?) \|", plan, re.MULTILINE)
    assert sum(int(minutes) for minutes, _ in rows) == int(title) == 90
    planned = {text[-2:]: int(minutes) for minutes, text in rows if re.fullmatch(r"Exercise \d\d", text)}
    stored = {path.stem[:2]: read_notebook(path).metadata.companion.minutes for path in PATHS}
    assert len(planned) == 3 and planned.items() <= stored.items()
    (second,) = re.findall(r"second session of (\d+) minutes", plan)
    (work, around) = re.findall(r"minutes \(([\d and]+), with (\d+) to open and to close\)", plan)[0]
    others = [minutes for number, minutes in stored.items() if number not in planned]
    assert [int(minutes) for minutes in work.split(" and ")] == others
    assert int(second) == sum(others) + int(around)
    for number, task in re.findall(r"task (\d) of (\d\d)", plan.split("Late?")[1]):
        assert int(number) <= len(tasks(read_notebook(find_exercise(task))))


def test_links_and_commands_of_the_guide_exist():
    targets = re.findall(r"\]\(([^)#]+)\)", GUIDE)
    assert [target for target in targets if not (NOTEBOOKS / "exercises" / target).exists()] == []
    assert set(re.findall(r"absence_utils\.exercises +(--\w+)", GUIDE)) == {"--check"}
    assert f"{SECONDS} s at most (`--seconds`)" in GUIDE


def test_the_guide_installs_as_readme_does():
    (install,) = re.findall(r"pip install (torch==.*)", GUIDE)
    assert install in (ROOT / "README.md").read_text()
