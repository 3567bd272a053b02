"""Every notebook keeps the rules of style, has the parameters its profiles name, and runs, two of them twice."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from absence_utils.paths import NOTEBOOKS
from absence_utils.runner.notebooks import all_notebooks, declared_figures, declared_files, read_notebook
from absence_utils.runner.parameters import (
    PARAMETER_TAGS,
    read_parameters,
    read_profile,
    resolve_parameters,
)

PATHS = all_notebooks()
TWICE = ("01", "06")  # byte-identical numbers are shown for these two
CELL, TOTAL = 16, 80  # lines of code: style asks for about 15 and about 80
BY_HAND, IN_SIGHT = 8, 12  # most lines of the method by hand, most parameters that are not folded
WORDS = 10  # of prose for each line of code; a parameter has its prose behind it

each = pytest.mark.parametrize("path", PATHS, ids=[path.stem for path in PATHS])


def code_cells(path):
    return [cell for cell in read_notebook(path).cells if cell.cell_type == "code"]


def code_lines(cell, imports: bool = False) -> int:
    """Lines of code, without imports unless they are asked for: the formatter breaks them over many lines."""
    nodes = [n for n in ast.parse(cell.source).body if isinstance(n, (ast.Import, ast.ImportFrom))]
    imported = {line for node in nodes for line in range(node.lineno, node.end_lineno + 1)}
    lines = {
        n for n, line in enumerate(cell.source.splitlines(), 1) if line.strip() and line.lstrip()[0] != "#"
    }
    return len(lines if imports else lines - imported)


def tags(cell):
    return cell.metadata.get("tags", [])


def test_there_are_notebooks():
    assert PATHS, "notebooks/ has no numbered notebook"
    numbers = [path.stem.split("_")[0] for path in PATHS]
    assert numbers == sorted(set(numbers)), "two notebooks have the same number"


@each
def test_stored_without_outputs(path):
    stored = json.loads(path.read_text())
    cells = [cell for cell in stored["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    assert "papermill" not in stored["metadata"]
    assert stored["metadata"]["kernelspec"]["name"] == "python3"


@each
def test_defines_nothing(path):
    for cell in code_cells(path):
        nodes = ast.walk(ast.parse(cell.source))
        assert not [n for n in nodes if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))]


@each
def test_is_short(path):
    cells = [cell for cell in code_cells(path) if not PARAMETER_TAGS & set(tags(cell))]
    lengths = [code_lines(cell) for cell in cells]
    assert max(lengths) <= CELL and sum(lengths) <= TOTAL, f"cells {lengths}, together {sum(lengths)}"


@each
def test_explains_more_than_it_computes(path):
    """Words of prose for each line of code, imports counted."""
    cells = [cell for cell in code_cells(path) if not PARAMETER_TAGS & set(tags(cell))]
    lines = sum(code_lines(cell, imports=True) for cell in cells)
    words = sum(len(it.source.split()) for it in read_notebook(path).cells if it.cell_type == "markdown")
    assert words >= WORDS * lines, f"{words} words for {lines} lines of code"


@each
def test_shows_its_method_by_hand_first(path):
    """On one input, with public functions, under the claim, before any parameter is set or helper called."""
    cells = read_notebook(path).cells
    first, by_hand, said = cells[:3]
    assert tags(by_hand) == ["by-hand"] and (first.cell_type, said.cell_type) == ("markdown", "markdown")
    assert code_lines(by_hand, imports=True) <= BY_HAND and "**Claim" in first.source
    private = [
        name
        for node in ast.walk(ast.parse(by_hand.source))
        for name in (getattr(node, "attr", ""), getattr(node, "name", ""))
        if str(name).startswith("_")
    ]
    assert private == []


@each
def test_parameters_are_literals_with_a_comment_each(path):
    tagged = [cell for cell in code_cells(path) if PARAMETER_TAGS & set(tags(cell))]
    assert tagged == code_cells(path)[1 : 1 + len(tagged)], "parameters follow the method by hand"
    assert tags(tagged[-1]) == ["parameters"], "what papermill sets must come after the folded parameters"
    assert code_lines(tagged[-1]) <= IN_SIGHT
    for folded in tagged[:-1]:
        assert tags(folded) == ["more-parameters"] and folded.metadata.jupyter.source_hidden
    known = read_parameters(read_notebook(path))  # raises for anything but literals
    without = [name for name, parameter in known.items() if not parameter.comment]
    assert without == [], "no comment, or one with an = that papermill cannot read"
    assert len(known) == sum(code_lines(cell) for cell in tagged), "one line each"
    assert known["device"].default == "auto" and type(known["seed"].default) is int


@each
def test_starts_its_run_under_its_own_name(path):
    starts = [
        node
        for cell in code_cells(path)[:4]
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "start_run"
    ]
    assert len(starts) == 1 and starts[0].args[0].value == path.stem
    assert {keyword.arg for keyword in starts[0].keywords} == {"seed", "device"}


@each
def test_says_its_claim_first(path):
    notebook = read_notebook(path)
    first = notebook.cells[0]
    assert first.cell_type == "markdown" and first.source.startswith("# ") and "**Claim" in first.source
    assert notebook.metadata["companion"]["claim"]


@each
def test_declares_the_figures_it_saves(path):
    notebook = read_notebook(path)
    figures = declared_figures(notebook)
    assert figures and all(figure.startswith(path.stem[:3]) for figure in figures)
    source = "\n".join(cell.source for cell in code_cells(path))
    assert [figure for figure in figures if f'"{figure}"' not in source] == []
    assert isinstance(notebook.metadata["companion"]["real"], bool)


@each
def test_profiles_fit(path):
    notebook = read_notebook(path)
    companion = notebook.metadata["companion"]
    wanted = ["smoke", "default"] + [companion.get("real_profile", "imagenet")] * companion["real"]
    for profile in wanted:
        resolve_parameters(read_parameters(notebook), read_profile(path, profile), [])


def test_image_folders_are_opened_alike_everywhere():
    """The user says what is broken and how classes are ordered; the record says what became of the images."""
    sources = {path.stem: "".join(cell.source for cell in code_cells(path)) for path in PATHS}
    squeezed = {name[:2]: re.sub(r"\s", "", source) for name, source in sources.items()}
    takers = {name: source for name, source in squeezed.items() if ".images(images" in source}
    assert list(takers) == ["04", "05", "06", "07", "10", "11"]
    for source in takers.values():
        assert "limit=limit,seed=seed,broken=broken,class_order=class_order" in source
        assert "run.notes[:]=" in source


def test_every_profile_belongs_to_a_notebook_and_names_no_machine():
    names = {path.stem for path in PATHS}
    for file in (NOTEBOOKS / "profiles").iterdir():
        assert file.name.split(".")[0] in names and file.name.count(".") == 2 and file.suffix == ".yaml"
        values = yaml.safe_load(file.read_text()) or {}
        assert not [value for value in values.values() if str(value).startswith(("/", "~"))]


@pytest.mark.notebook
@each
def test_runs(path, smoke_run, tmp_path):
    """From a fresh kernel, from another folder, without a display; what TWICE names, twice."""
    first, folder = smoke_run(path)
    runs = [(first, folder, folder.relative_to(folder.parents[1]))]
    if path.stem[:2] in TWICE:
        command = [
            sys.executable,
            "-m",
            "absence_utils.run",
            str(path),
            "--profile",
            "smoke",
            "--out",
            "again",
        ]
        kept = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "MPLBACKEND")}
        again = subprocess.run(command, cwd=tmp_path, env=kept, capture_output=True, text=True, timeout=1800)
        runs.append((vars(again), tmp_path / "again", Path("again")))
    figures = declared_figures(read_notebook(path))
    files = [*(f"{figure}.png" for figure in figures), *declared_files(read_notebook(path))]
    for said, _, asked in runs:
        assert said["returncode"] == 0, said["stderr"]
        assert not re.search(r"Warning|\x1b", said["stderr"]), said["stderr"]
        assert said["stdout"].split() == [f"{asked}/{name}" for name in files]
    for name in [f"{figure}{suffix}" for figure in figures for suffix in (".csv", ".png")]:
        assert len({(out / name).read_bytes() for _, out, _ in runs}) == 1, name
    executed = json.loads((folder / path.name).read_text())
    outputs = [output for cell in executed["cells"] for output in cell.get("outputs", [])]
    pictures = sum("image/png" in output.get("data", {}) for output in outputs)
    assert pictures >= len(figures), "the executed notebook shows every figure it saves"
    warned = [output["text"] for output in outputs if output.get("name") == "stderr"]
    assert warned == [], "no reader is to meet a warning"
    provenance = json.loads((folder / f"{figures[0]}.json").read_text())
    assert provenance["notebook"] == path.stem and provenance["profile"] == "smoke"
