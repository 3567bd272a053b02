"""Every exercise keeps the format, runs with its solutions, and fails at the check of each task left open.

Checks of single exercises are tested beside this, in tests/test_exercises_*.py: wrong answers and what is said of them.
"""

import ast
import re

import copies
import matplotlib
import nbformat
import numpy as np
import pytest
import solve as command
import torch
from checks.answers import Correct, WrongAnswer, answered, choose, compare, same_items
from solve import (
    SOLUTIONS,
    all_exercises,
    cell_tags,
    errors,
    insert_solutions,
    read_solutions,
    run_exercise,
    solutions_of,
    tasks,
)

from absence_utils.errors import InputError
from absence_utils.paths import NOTEBOOKS, ROOT
from absence_utils.runner.run import read_notebook

PATHS = all_exercises()

each = pytest.mark.parametrize("path", PATHS, ids=[path.stem for path in PATHS])


def code_cells(path):
    return [cell for cell in read_notebook(path).cells if cell.cell_type == "code"]


# The format


def test_there_are_exercises_for_lessons_that_exist():
    assert PATHS
    assert [path.name for path in PATHS if not (NOTEBOOKS / path.name).is_file()] == []
    assert {path.stem for path in SOLUTIONS.iterdir()} == {path.stem for path in PATHS}


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
        assert sum(bool(line.strip()) for line in cell.source.splitlines()) <= 15


@each
def test_solutions_replace_every_placeholder_and_say_why(path):
    for name, code in solutions_of(path).items():
        nodes = [*ast.walk(ast.parse(code))]
        slices = [part for node in nodes if isinstance(node, ast.Subscript) for part in ast.walk(node.slice)]
        gaps = [node for node in nodes if isinstance(node, ast.Constant) and node.value is ...]
        assert [gap for gap in gaps if gap not in slices] == [], f"{name}: only values[..., :4] may hold dots"
        assert re.search(r"#.*\w+ \w+ \w+", code), f"{name}: a sentence on why"


# With solutions and without


@pytest.mark.notebook
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


@pytest.mark.notebook
@each
def test_a_fresh_kernel_says_which_tasks_are_open_and_runs_with_solutions(path):
    """One kernel for both, run as Run All does: the exercise as it ships, then with solutions."""
    notebook = read_notebook(path)
    names, whole = tasks(notebook), insert_solutions(notebook, solutions_of(path))
    shipped = [nbformat.from_dict({**cell, "id": f"open-{cell.id}"}) for cell in notebook.cells]
    whole.cells = [*shipped, *whole.cells]
    done = run_exercise(whole)
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


@pytest.mark.notebook
def test_in_another_folder_the_first_cell_says_where_to_run_it(tmp_path):
    done = run_exercise(read_notebook(PATHS[0]), tmp_path)
    (found,) = errors(done).values()
    assert found == ("ModuleNotFoundError", "No module named 'checks'")
    (output,) = next(cell for cell in done.cells if cell.id == "start").outputs
    shown = re.sub("\x1b.*?m", "", "\n".join(output.traceback))
    assert re.search(r"----> .*not found\? Run it beside checks/", shown)


# What checks are made of


@pytest.mark.parametrize("gap", [..., [1, ...], (..., 2), {"a": ...}, {"a": [1, (2, ...)]}])
def test_a_placeholder_is_found_wherever_it_is(gap):
    with pytest.raises(WrongAnswer, match="replace the ... of `value`"):
        answered(value=gap)
    answered(value=0, other=[], more=None)


def test_numbers_are_compared_within_the_tolerance():
    for given in (1 / 7, 0.143, [0.143], torch.tensor(1 / 7), np.float32(1 / 7)):
        compare("x", given, 1 / 7)
    for given, sentence in (
        (-1 / 7, ": its sign is the wrong way round"),
        (0.2, r" \(too high\)"),
        (0.14, r" \(too low, though near: give three digits\)"),
    ):
        with pytest.raises(WrongAnswer, match=f"^`x` is not right yet{sentence}. Look here.$"):
            compare("x", given, 1 / 7, look="Look here.")
    with pytest.raises(WrongAnswer, match="should be a number .* yours is a str"):
        compare("x", "a lot", 1.0)
    with pytest.raises(WrongAnswer, match="not a finite number"):
        compare("x", float("nan"), 1.0)
    compare("x", 0.03, 0.027, absolute=0.005)
    with pytest.raises(WrongAnswer, match=r"\(too high\).$"):
        compare("x", 137, 136, tolerance=0)


def test_any_number_of_three_digits_passes():
    for truth in np.random.default_rng(0).uniform(-1, 1, 500) * 10.0 ** np.arange(-3, 2).repeat(100):
        compare("x", float(f"{truth:.3g}"), truth)


def test_of_mistakes_that_fit_the_nearest_counts_and_the_truth_comes_first():
    mistakes = [(0.502, "One."), (0.499, "Other.")]
    for given, sentence in ((0.5015, "^One.$"), (0.4995, "^Other.$")):
        with pytest.raises(WrongAnswer, match=sentence):
            compare("x", given, 1.0, mistakes=mistakes)
    compare("x", 0.5, 0.5, mistakes=[(0.5, "A mistake that gives the truth is none."), *mistakes])
    compare("x", 0.04, 0.036, share=True)
    for given, sentence in ((63, "^`x` is in percent. Give a share"), (6.3, "too high")):
        with pytest.raises(WrongAnswer, match=sentence):
            compare("x", given, 0.6286, share=True)


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


def test_words_and_sets():
    choose("x", " Veto ", "veto", {})
    with pytest.raises(WrongAnswer, match="^Because.$"):
        choose("x", "drive", "veto", {"drive": "Because."})
    with pytest.raises(WrongAnswer, match="one of 'drive', 'veto', and yours is 'other'"):
        choose("x", "other", "veto", {"drive": "Because."})
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


# Solving, on an exercise of two tasks


@pytest.fixture
def small():
    new = nbformat.v4
    cells = [new.new_code_cell("from checks.answers import compare", id="start")]
    for name in ("one", "two"):
        for kind, code in (
            ("answer", f"{name} = ...  # fill in"),
            ("check", f"compare('{name}', {name}, 1)"),
        ):
            cells.append(new.new_code_cell(code, id=f"{kind}-{name}", metadata={"tags": [kind]}))
    return new.new_notebook(cells=cells)


def sources(notebook):
    return {cell.id: cell.source for cell in notebook.cells}


def test_solutions_go_into_answer_cells_and_leave_the_exercise_alone(small):
    before = sources(small)
    assert sources(insert_solutions(small, {"one": "one = 1"})) == before | {"answer-one": "one = 1"}
    assert sources(small) == before
    with pytest.raises(InputError, match="no task 'three'. There are: one, two."):
        insert_solutions(small, {"three": "x"})


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


@pytest.mark.notebook
def test_the_command_writes_solved_exercises_and_refuses_what_is_none(small, tmp_path, monkeypatch, capsys):
    nbformat.write(small, tmp_path / "00_small.ipynb")
    given, out = str(tmp_path / "00_small.ipynb"), tmp_path / "out"
    monkeypatch.setattr(command, "solutions_of", lambda path: {"one": "one = 1", "two": "two = 3"})
    assert command.main([given, "--out", str(out), "--no-run"]) == 0
    written = read_notebook(out / "00_small.ipynb")
    assert sources(written)["answer-two"] == "two = 3" and not written.cells[0].execution_count
    assert command.main([given, "--out", str(out)]) == 1
    assert "check-two: WrongAnswer: `two` is not right yet" in capsys.readouterr().err
    assert read_notebook(out / "00_small.ipynb").cells[1].execution_count
    assert command.main(["77"]) == 1
    assert "'77' is not known" in capsys.readouterr().err
    assert command.main([]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [path.stem for path in PATHS]


# The entry, and the pages of students and teachers

ENTRY = NOTEBOOKS / "exercises" / "README.md"
STUDENTS, TEACHERS = (ROOT / "docs" / name for name in ("teach_students.md", "teach.md"))


def task_minutes(path) -> dict[str, int]:
    """Minutes of each task, by its number."""
    texts = "\n".join(cell.source for cell in read_notebook(path).cells if cell.cell_type == "markdown")
    found = re.findall(
        r"^## Task (\d) · .+\n\n\*Difficulty [123] of 3, (\d+) minutes\*\n\n", texts, re.MULTILINE
    )
    return {int(number): int(minutes) for number, minutes in found}


@each
def test_every_task_says_difficulty_and_minutes_which_add_up(path):
    notebook = read_notebook(path)
    minutes = task_minutes(path)
    assert [*minutes] == list(range(1, len(tasks(notebook)) + 1))
    assert sum(minutes.values()) == notebook.metadata.companion.minutes
    levels = re.findall(r"\*Difficulty (\d) of 3", "\n".join(cell.source for cell in notebook.cells))
    assert {"1", "2", "3"} == set(levels), "something for everybody"


@each
def test_the_top_has_a_picture_of_ours_that_says_what_it_shows(path):
    ((alt, target),) = re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", read_notebook(path).cells[0].source)
    assert len(alt.split()) > 8
    picture = (path.parent / target).resolve()
    assert picture.is_file() and picture.parent == ROOT / "static"


@each
def test_the_entry_has_a_row_with_the_minutes(path):
    (minutes,) = re.findall(
        rf"^\| \[{path.stem}\]\({path.name}\) \| (\d+) \|", ENTRY.read_text(), re.MULTILINE
    )
    assert int(minutes) == read_notebook(path).metadata.companion.minutes


def test_the_entry_is_short_and_leads_to_both_pages():
    text = ENTRY.read_text()
    assert len(text.splitlines()) <= 40
    assert "](../../docs/teach_students.md)" in text and "](../../docs/teach.md)" in text


@pytest.mark.parametrize(
    ("heading", "work"),
    [("## A plan for 90 minutes", 60), ("## A second session", 60)],
    ids=["first", "second"],
)
def test_a_plan_fills_90_minutes_with_60_of_work(heading, work):
    section = TEACHERS.read_text().split(heading)[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", section, re.MULTILINE)
    assert sum(int(minutes) for minutes, _ in rows) == 90
    assert int(rows[-1][0]) >= 8 and rows[-1][1].startswith("To spare"), "a plan without slack fails"
    worked = 0
    for minutes, what in rows:
        if found := re.match(r"Exercise (\d\d)(?: without tasks? (.+))?$", what):
            (path,) = (NOTEBOOKS / "exercises").glob(f"{found[1]}_*.ipynb")
            left_out = {int(number) for number in re.findall(r"\d", found[2] or "")}
            assert left_out <= set(task_minutes(path))
            kept = [spent for number, spent in task_minutes(path).items() if number not in left_out]
            assert int(minutes) == sum(kept), what
            worked += int(minutes)
    assert worked == work


def test_tasks_that_the_first_plan_leaves_out_are_not_needed_below():
    """Without their answers, every other check of the exercise passes."""
    for number, name in (("01", "lowest"), ("03", "left")):
        (path,) = (NOTEBOOKS / "exercises").glob(f"{number}_*.ipynb")
        later = [cell.source for cell in code_cells(path) if not cell.id.endswith(f"-{name}")]
        later += [code for task, code in solutions_of(path).items() if task != name]
        left = {node.id for node in ast.walk(ast.parse(solutions_of(path)[name])) if isinstance(node, ast.Name)
                and isinstance(node.ctx, ast.Store)}  # fmt: skip
        given = {node.id for code in later for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)
                 and isinstance(node.ctx, ast.Store)}  # fmt: skip
        used = {node.id for code in later for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
        assert left and left.isdisjoint(used - given), name


def test_what_students_are_told_a_check_says_is_what_checks_say():
    said = [repr(Correct("It is so."))]
    pair = torch.ones(2)
    for given, truth, share in (
        (..., 1.0, False), (3, 1.0, False), (-1, 1.0, False), (42, 0.42, True), (1, pair, False), ("a", 1.0, False),
    ):  # fmt: skip
        with pytest.raises(WrongAnswer) as wrong:
            compare("x", given, truth, share=share, look="Look here.")
        said.append(str(wrong.value))
    section = STUDENTS.read_text().split("## What a check says")[1].split("\n## ")[0]
    quoted = re.findall(r"^\| `(.+?)` \|", section, re.MULTILINE)
    ours = [text for text in quoted if "Error" not in text and "No module" not in text]
    patterns = [".*".join(map(re.escape, text.split("..."))) for text in ours]
    assert [
        text
        for text, pattern in zip(ours, patterns, strict=True)
        if not any(map(re.compile(pattern).match, said))
    ] == []
    assert all(any(re.match(pattern, message) for pattern in patterns) for message in said)


# Copies


def test_a_copy_is_never_written_over(tmp_path, capsys):
    assert copies.main(["1", "--out", str(tmp_path / "work")]) == 0
    (copy,) = (tmp_path / "work").glob("*.ipynb")
    assert copy.read_bytes() == PATHS[0].read_bytes() and capsys.readouterr().out.strip() == str(copy)
    copy.write_text("answers")
    assert copies.main(["1", "--out", str(tmp_path / "work")]) == 0
    said = capsys.readouterr()
    assert copy.read_text() == "answers" and said.out.strip() == str(copy) and "kept as it is" in said.err
    assert copies.main(["--out", str(tmp_path / "work")]) == 0
    assert {path.name for path in (tmp_path / "work").glob("*.ipynb")} == {path.name for path in PATHS}
    assert copy.read_text() == "answers"
    assert copies.main(["77"]) == 1 and "'77' is not known" in capsys.readouterr().err


def test_a_copy_has_the_checks_beside_it_also_after_the_checkout_moved(tmp_path):
    copies.copy_exercise(PATHS[0], tmp_path)
    assert (tmp_path / "checks" / "motion.py").is_file()
    (tmp_path / "checks").unlink()
    (tmp_path / "checks").symlink_to(tmp_path / "gone")
    copies.copy_exercise(PATHS[0], tmp_path)
    assert (tmp_path / "checks" / "motion.py").is_file()


def test_copies_are_outside_git_and_as_deep_as_the_exercises():
    """So that links and pictures of a copy lead where those of the exercise do."""
    assert copies.WORK.parent == PATHS[0].parent.parent
    assert f"/{copies.WORK.relative_to(ROOT).as_posix()}/" in (ROOT / ".gitignore").read_text().splitlines()
