"""The parts that put the pages together: notebooks as pages, links, docstrings, the build."""

import importlib.util
import json
import sys
from pathlib import Path

import nbformat
import pytest

import absence_utils
from absence_utils.paths import NOTEBOOKS, ROOT

DOCS = ROOT / "docs"


def loaded(name: str):
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sys.path.insert(0, str(DOCS))  # build imports its neighbour
build = loaded("build")
pages, conf = sys.modules["notebook_pages"], loaded("conf")
sys.path.remove(str(DOCS))


def executed_notebook(folder: Path, name: str, picture_in_cell_of: str) -> None:
    """An executed version of a stored notebook, with a picture in the cell that has this text."""
    node = nbformat.v4.upgrade(nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4))
    for cell in node.cells:
        if cell.cell_type == "code" and picture_in_cell_of in cell.source:
            data = {"image/png": "AAAA", "text/plain": "<Figure>"}
            cell.outputs = [nbformat.v4.new_output("display_data", data=data)]
    node.metadata["papermill"] = {"duration": 12.4}
    folder.mkdir(parents=True)
    nbformat.write(node, folder / f"{name}.ipynb")
    for figure in node.metadata["companion"]["figures"]:
        (folder / f"{figure}.csv").write_text("a\n1\n")
        (folder / f"{figure}.png").write_bytes(b"")
        record = {"versions": {"torch": "9.9"}, "device": "cpu: AVX2"}
        (folder / f"{figure}.json").write_text(json.dumps(record))


def page_of(tmp_path: Path, results: Path, name: str):
    (tmp_path / "source").mkdir()
    executed = pages.write_page(NOTEBOOKS / f"{name}.ipynb", results, tmp_path / "source")
    return executed, nbformat.read(tmp_path / "source" / "notebooks" / f"{name}.ipynb", as_version=4).cells


def test_executed_notebooks_say_how_they_ran_and_what_their_pictures_show(tmp_path):
    executed_notebook(tmp_path / "default", "06_extreme_patches", "contact_sheet(")
    executed, cells = page_of(tmp_path, tmp_path / "default", "06_extreme_patches")
    assert executed and cells[0].source.startswith("# 06 · ")
    assert "--profile default` in 12 s with torch 9.9 on cpu." in cells[1].source
    assert "edited since" not in cells[1].source
    assert "{download}`numbers <../results/06_contact_sheet.csv>`" in cells[1].source
    assert (tmp_path / "source" / "results" / "06_contact_sheet.csv").read_text() == "a\n1\n"
    (shown,) = [cell for cell in cells if cell.get("outputs")]
    assert shown.metadata.mystnb.image.alt.startswith("Figure: For each chosen unit: the synthesised maximum")


def test_results_of_an_earlier_version_are_marked(tmp_path):
    executed_notebook(tmp_path / "default", "03_digits", "removal_figure")
    path = tmp_path / "default" / "03_digits.ipynb"
    path.write_text(path.read_text().replace("Test accuracy", "Accuracy"))
    _, cells = page_of(tmp_path, tmp_path / "default", "03_digits")
    assert "edited since" in cells[1].source


def test_notebooks_that_were_not_run_say_how_to_run_them(tmp_path):
    executed, cells = page_of(tmp_path, tmp_path / "smoke", "01_reichardt_detector")
    assert not executed
    assert "has not been run here" in cells[1].source and "PROFILE=smoke" in cells[1].source


def test_widgets_leave_their_fallback():
    widget = {pages.WIDGET: {}, "text/plain": "IntSlider()"}
    alone = nbformat.v4.new_output("display_data", data=widget)
    beside = nbformat.v4.new_output("display_data", data={**widget, "image/png": "AAAA"})
    stream = nbformat.v4.new_output("stream", text="said")
    cell = nbformat.v4.new_code_cell("show", outputs=[alone, beside, stream])
    kept = pages._code(cell, "What it shows.", executed=True).outputs
    assert [set(output.get("data", ())) for output in kept] == [{"image/png"}, set()]


def test_links_to_what_is_no_page_become_text(tmp_path):
    (tmp_path / "there.md").write_text("")
    text = "[a](there.md#x) [b](solutions) [c](https://arxiv.org/abs/1) [d](#below)"
    kept = "[a](there.md#x) b [c](https://arxiv.org/abs/1) [d](#below)"
    assert build._without_lost_links(text, tmp_path) == kept


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pool [batch, *space] by |f(b)|, self_", r"pool [batch, \*space] by \|f(b)\|, self\_"),
        ("inputs that do *not* belong", "inputs that do *not* belong"),
        ("a * b and **options", r"a \* b and \*\*options"),
        ("`steps` of `Unit`s", r"`steps` of `Unit`\ s"),
        ("`a * b`", "`a * b`"),
        (">>> f(*x)", ">>> f(*x)"),
    ],
)
def test_docstrings_lose_no_mark(text, expected):
    lines = [text]
    conf.escape_marks(None, "function", "x", None, {}, lines)
    assert lines == [expected]


def test_reference_lists_the_public_names_and_every_package():
    index = (DOCS / "api" / "index.md").read_text()
    assert sorted(name for name in index.split() if name.startswith("~")) == sorted(
        f"~absence_utils.{name}" for name in absence_utils.__all__
    )
    paths = [
        path
        for path in (ROOT / "absence_utils").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    ]
    packages = {path.stem for path in paths} - {"__init__", "exercises"}
    assert {name.split(".")[1] for name in index.split() if name.startswith("absence_utils.")} == packages


def test_a_failed_build_leaves_the_old_pages_and_nothing_half_done(tmp_path, monkeypatch):
    out = tmp_path / "docs"
    out.mkdir()
    (out / "index.html").write_text("old")
    monkeypatch.setattr(build.sys, "executable", "false")
    assert build.main(["--results", str(tmp_path / "default"), "--out", str(out)]) == 1
    assert (out / "index.html").read_text() == "old" and [path.name for path in tmp_path.iterdir()] == [
        "docs"
    ]
