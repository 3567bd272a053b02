"""What holds for an exercise whatever it asks: its checks can be run again, and nothing open stops the rest."""

from solve import EXERCISES, cell_tags, insert_solutions, solutions_of

from absence_utils.runner.run import find_notebook, read_notebook


def run_and_check_again(number: str) -> None:
    """Run a solved exercise, then each of its checks once more: it raises if a solution overwrote what one reads."""
    path = find_notebook(number, EXERCISES)
    solved = insert_solutions(read_notebook(path), solutions_of(path))
    cells = [cell for cell in solved.cells if cell.cell_type == "code"]
    space = {"__name__": "exercise"}
    for cell in cells:
        exec(cell.source, space)
    for cell in cells:
        if "check" in cell_tags(cell):
            exec(cell.source, space)


def cells_that_read_answers(number: str) -> list:
    """Answer and check cells, and those that show what was answered."""
    cells = read_notebook(find_notebook(number, EXERCISES)).cells
    return [cell for cell in cells if {"answer", "check"} & {*cell_tags(cell)} or cell.id.startswith("show-")]
