"""The parts that put the site together: links, docstrings, notebooks as pages, the reference, the build."""

import json
import sys
from pathlib import Path

import nbformat
import pytest

from absence_utils.paths import NOTEBOOKS, ROOT
from absence_utils.runner.run import all_notebooks

sys.path.insert(0, str(ROOT / "site"))

import assemble  # noqa: E402
import build  # noqa: E402
import docstrings  # noqa: E402
import notebook_pages  # noqa: E402
import reference  # noqa: E402
from links import Places  # noqa: E402

PICTURE = (ROOT / "static" / "09_leaderboard.png").read_bytes()


@pytest.fixture
def places(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    pages = {
        "notebooks/03_digits.ipynb": "notebooks/03_digits.ipynb",
        "absence_utils/units.py": "#api-units",
    }
    return Places(source, pages)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a](notebooks/03_digits.ipynb#end)", "[a](../notebooks/03_digits.ipynb#end)"),
        ("[`units.py`](absence_utils/units.py)", "[`units.py`](#api-units)"),
        ("see [`Snakefile`](Snakefile), [a `b` c](Makefile)", "see `Snakefile`, a `b` c"),
        ("[out](https://arxiv.org/abs/1) [here](#below)", "[out](https://arxiv.org/abs/1) [here](#below)"),
        ("`[a](Makefile)` and ```\n", "`[a](Makefile)` and ```\n"),
        ("```bash\n[a](Makefile)\n```\n[a](Makefile)", "```bash\n[a](Makefile)\n```\na"),
    ],
)
def test_links_lead_to_pages_or_become_text(places, text, expected):
    assert places.relink(text, ROOT, "api/page.md") == expected


def test_links_count_from_the_folder_of_their_text(places):
    assert (
        places.relink("[a](../03_digits.ipynb)", NOTEBOOKS / "exercises", "x.md")
        == "[a](notebooks/03_digits.ipynb)"
    )


def test_pictures_come_along_and_missing_ones_are_errors(places, tmp_path):
    (tmp_path / "one.png").write_bytes(PICTURE)
    assert places.relink("![One](one.png)", tmp_path, "api/page.md") == "![One](../pictures/one.png)"
    assert (places.source / "pictures" / "one.png").read_bytes() == PICTURE
    with pytest.raises(FileNotFoundError):
        places.relink("![Two](two.png)", tmp_path, "page.md")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pool [batch, *space] by |f(b)|, self_", r"pool [batch, \*space] by \|f(b)\|, self\_"),
        ("inputs that do *not* belong", "inputs that do *not* belong"),
        ("a * b and **options", r"a \* b and \*\*options"),
        ("`steps` of `Unit`s, see `record.save_figure`",
         "``steps`` of :py:obj:`Unit <absence_utils.units.Unit>`\\ s, see "
         ":py:obj:`record.save_figure <absence_utils.record.save_figure>`"),
        ("the module `scores`", "the module :py:obj:`scores <absence_utils.scores>`"),
        ("`a * b`", "``a * b``"),
        ("* a point\n* another", "* a point\n* another"),
    ],
)  # fmt: skip
def test_docstrings_lose_no_mark_and_gain_links(text, expected):
    assert docstrings.as_rest(text, "absence_utils.units.responses") == expected


def test_docstrings_with_hanging_indents_become_lists():
    text = (
        "What.\n\nfirst: one\n    more of one\nsecond: two\n\nReturns:\n    a: one\n        of it\n    b: two"
    )
    said = docstrings.as_rest(text, "absence_utils.units.x")
    assert "- first: one\n  more of one\n- second: two" in said
    assert said.endswith(":returns:\n   - a: one\n     of it\n   - b: two")


def test_docstrings_keep_what_is_typed_in_columns_and_leave_sections_to_napoleon():
    text = "Verdicts:\n\n    a    |gap| > 1\n    b    else\n\nArgs:\n    x: with *star\n\nReturns:\n    [n], said: so"
    said = docstrings.as_rest(text, "absence_utils.units.x")
    assert "Verdicts::\n\n    a    |gap| > 1\n    b    else" in said
    assert "Args:\n    x: with \\*star" in said and said.endswith(":returns: [n], said: so")


def test_reference_has_every_module_once_and_every_public_name(tmp_path):
    reference.write_reference(tmp_path)
    pages = {path.name: path.read_text() for path in (tmp_path / "api").iterdir()}
    together = "\n".join(pages.values())
    for module in reference.all_modules():
        assert together.count(f"automodule:: absence_utils.{module}\n") == 1
    assert "scores" in reference.all_modules() and "_lucent" not in reference.all_modules()
    index = pages["index.md"]
    assert index.index(":: absence_utils.models.load_model") < index.index(
        ":: absence_utils.record.save_figure"
    )
    assert ".. autoclass:: absence_utils.patch_book.PatchBook" in index
    assert ":exclude-members: PatchBook" in pages["patches.md"]


def test_modules_that_no_group_names_stand_in_a_last_one(monkeypatch):
    monkeypatch.setattr(reference, "GROUPS", reference.GROUPS[1:])
    *_, last = reference.grouped()
    assert last.name == "more" and {"datasets", "scenes"} <= set(last.modules.split())


def executed_notebook(folder: Path, name: str, picture_in_cell_of: str) -> None:
    """An executed version of a stored notebook, with a picture in the cell that has this text."""
    node = nbformat.v4.upgrade(nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4))
    for cell in node.cells:
        if cell.cell_type == "code":
            cell.execution_count = 1
            if picture_in_cell_of in cell.source:
                data = {"image/png": "AAAA", "text/plain": "<Figure>"}
                cell.outputs = [nbformat.v4.new_output("display_data", data=data)]
    node.metadata["papermill"] = {"duration": 12.4}
    folder.mkdir(parents=True)
    nbformat.write(node, folder / f"{name}.ipynb")
    for figure in node.metadata["companion"]["figures"]:
        (folder / f"{figure}.csv").write_text("a\n1\n")
        (folder / f"{figure}.png").write_bytes(PICTURE)
        record = {"versions": {"torch": "9.9"}, "device": "cpu: AVX2"}
        (folder / f"{figure}.json").write_text(json.dumps(record))


def page_of(places, results: Path, name: str):
    page = notebook_pages.NotebookPage(NOTEBOOKS / f"{name}.ipynb", results)
    page.write(places)
    return page, nbformat.read(places.source / page.place, as_version=4).cells


def test_executed_notebooks_say_how_they_ran_and_what_their_pictures_show(places, tmp_path):
    executed_notebook(tmp_path / "default", "06_extreme_patches", "contact_sheet(")
    page, cells = page_of(places, tmp_path / "default", "06_extreme_patches")
    assert (
        page.executed and page.title.startswith("06 · ") and cells[0].source.startswith(f"# {page.title}\n")
    )
    assert "--profile default` in 12 s with torch 9.9 on cpu." in cells[1].source
    assert "edited since" not in cells[1].source
    (shown,) = [cell for cell in cells if cell.get("outputs")]
    alternative = shown.metadata.mystnb.image.alt
    assert alternative.startswith("Contact sheet: For each chosen unit: the synthesised maximum and minimum")
    assert page.alternatives == {"06_contact_sheet": alternative}
    place = cells.index(shown)
    assert cells[place - 1].source == "(figure-06-contact-sheet)="
    assert "{download}`numbers <../results/06_contact_sheet.csv>`" in cells[place + 1].source
    assert (places.source / "results" / "06_contact_sheet.csv").read_text() == "a\n1\n"


def test_a_picture_belongs_to_the_figure_that_a_later_cell_saves(places, tmp_path):
    executed_notebook(tmp_path / "default", "02_green_pixel", "green_pixel_figure(samples")
    page, _ = page_of(places, tmp_path / "default", "02_green_pixel")
    assert list(page.alternatives) == ["02_green_pixel"]


def test_results_of_an_earlier_version_are_marked(places, tmp_path):
    executed_notebook(tmp_path / "default", "03_digits", "removal_figure")
    path = tmp_path / "default" / "03_digits.ipynb"
    path.write_text(path.read_text().replace("Test accuracy", "Accuracy"))
    _, cells = page_of(places, tmp_path / "default", "03_digits")
    assert "edited since" in cells[1].source


def test_notebooks_that_were_not_run_say_how_to_run_them(places, tmp_path):
    page, cells = page_of(places, tmp_path / "smoke", "01_reichardt_detector")
    assert not page.executed and page.seconds is None
    assert "has not been run here" in cells[1].source and "PROFILE=smoke" in cells[1].source
    assert "figure-01-motion-detector" in "".join(cell.source for cell in cells)


def test_widgets_leave_their_fallback():
    widget = {notebook_pages.WIDGET: {}, "text/plain": "IntSlider()"}
    alone = nbformat.v4.new_output("display_data", data=widget)
    beside = nbformat.v4.new_output("display_data", data={**widget, "image/png": "AAAA"})
    assert notebook_pages._without_widgets(alone) is None
    assert set(notebook_pages._without_widgets(beside).data) == {"image/png"}
    stream = nbformat.v4.new_output("stream", text="said")
    assert notebook_pages._without_widgets(stream) == stream


def test_alternative_text_ends_with_a_sentence_or_says_that_it_goes_on():
    assert notebook_pages.first_sentences("One. Two. Three.", limit=10) == "One. Two."
    assert notebook_pages.first_sentences("a long sentence without end", limit=12) == "a long ..."
    assert (
        notebook_pages.plain("# Title\n\nA **bold** [link](x) with `code`\nand $x$.")
        == "A bold link with code and x."
    )


def test_sources_can_be_put_together_where_nothing_was_run(tmp_path):
    site = assemble.Site(tmp_path / "source", tmp_path / "results" / "default", tmp_path / "atlas")
    site.write()
    start = (tmp_path / "source" / "index.md").read_text()
    assert site.executed() == 0 and f"0 of {len(all_notebooks())} notebooks have been run" in start
    assert "The atlas has not been made here" in (tmp_path / "source" / "atlas.md").read_text()
    assert "{{" not in start and "{%" not in start


def test_templates_that_ask_for_what_is_not_there_are_errors(tmp_path):
    site = assemble.Site(tmp_path / "source", tmp_path, tmp_path)
    site.page = "index.md"
    with pytest.raises(KeyError, match="no section 'Nothing', but Two commands"):
        site.readme("Nothing")
    with pytest.raises(KeyError, match="no notebook uses"):
        site.used("zebra crossing")
    assert site.readme("Limits").startswith("- ") and "](absence_utils" not in site.readme("In your own code")


def test_a_failed_build_leaves_the_old_site_and_nothing_half_done(tmp_path, monkeypatch):
    out = tmp_path / "site"
    out.mkdir()
    (out / "index.html").write_text("old")
    monkeypatch.setattr(build, "_sphinx", lambda *_: 2)
    arguments = ["--results", str(tmp_path / "default"), "--out", str(out), "--atlas", str(tmp_path / "none")]
    assert build.main(arguments) == 2
    assert (out / "index.html").read_text() == "old" and [path.name for path in tmp_path.iterdir()] == [
        "site"
    ]
