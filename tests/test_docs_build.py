"""The parts that put the pages together: notebooks as pages, links, docstrings, the build."""

import importlib
import importlib.util
import json
import sys
from base64 import b64encode
from pathlib import Path

import nbformat
import pytest
import yaml

import absence_utils
from absence_utils.paths import NOTEBOOKS, ROOT
from absence_utils.runner.notebooks import all_notebooks, declared_figures, read_notebook

DOCS = ROOT / "docs"


def loaded(name: str):
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sys.path.insert(0, str(DOCS))  # build and conf import their neighbours
build, conf = loaded("build"), loaded("conf")
article, hero, pages = (importlib.import_module(name) for name in ("article", "hero", "notebook_pages"))
while str(DOCS) in sys.path:
    sys.path.remove(str(DOCS))


def png() -> bytes:
    from io import BytesIO

    from PIL import Image

    Image.new("RGB", (4, 2)).save(file := BytesIO(), format="PNG")
    return file.getvalue()


def executed_notebook(folder: Path, name: str, cells: list | None = None) -> None:
    """An executed version of a stored notebook, with a picture where a figure is drawn; `cells` replace its own."""
    node = nbformat.v4.upgrade(nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4))
    for number in pages.saved_figures(node.cells):
        node.cells[number].outputs = [picture_output()]
    node.cells = cells or node.cells
    node.metadata["papermill"] = {"duration": 12.4}
    folder.mkdir(parents=True)
    nbformat.write(node, folder / f"{name}.ipynb")
    for figure in node.metadata["companion"]["figures"]:
        (folder / f"{figure}.csv").write_text("a\n1\n")
        (folder / f"{figure}.png").write_bytes(png())
        record = {"versions": {"torch": "9.9"}, "device": "cpu: AVX2"}
        (folder / f"{figure}.json").write_text(json.dumps(record))


def picture_output():
    return output({"image/png": b64encode(png()).decode(), "text/plain": "<Figure>"})


def output(data: dict):
    return nbformat.v4.new_output("display_data", data=data)


def markdown(text: str):
    return nbformat.v4.new_markdown_cell(text)


def code(source: str, *outputs, tags: tuple[str, ...] = ()):
    return nbformat.v4.new_code_cell(source, outputs=list(outputs), metadata={"tags": list(tags)})


def page_of(tmp_path: Path, results: Path, name: str):
    (tmp_path / "source").mkdir()
    executed = pages.write_page(NOTEBOOKS / f"{name}.ipynb", results, tmp_path / "source")
    return executed, nbformat.read(tmp_path / "source" / "notebooks" / f"{name}.ipynb", as_version=4).cells


def texts(cells) -> str:
    return "\n\n".join(cell.source for cell in cells)


def test_executed_notebooks_say_how_they_ran_and_have_figures_with_caption_and_files(tmp_path):
    executed_notebook(tmp_path / "default", "06_extreme_patches")
    executed, cells = page_of(tmp_path, tmp_path / "default", "06_extreme_patches")
    text = texts(cells)
    assert executed and cells[0].source.startswith("# 06 · ")
    assert "--profile default` in 12 s with torch 9.9 on cpu." in text and "edited since" not in text
    caption = " ".join(CAPTIONS["06_contact_sheet"].split())
    (figure,) = [cell.source for cell in cells if "{figure} ../results/06_contact_sheet.png" in cell.source]
    assert caption in figure and f":alt: Figure: {caption[:40]}" in figure
    assert "{download}`numbers <../results/06_contact_sheet.csv>`" in figure
    assert (tmp_path / "source" / "results" / "06_contact_sheet.csv").read_text() == "a\n1\n"
    assert not [cell for cell in cells if "image/png" in str(cell.get("outputs", ""))], (
        "pictures became figures"
    )


def test_a_lesson_is_an_article(tmp_path):
    """Claim, result, rest; by hand open with the paragraph behind it as its caption; figure before table."""
    result = "**Result.** It is so: 12%.\n\n**What would have refuted it:** nothing."
    table = output({"text/html": "<table><tbody><tr><td>1</td></tr></tbody></table>"})
    cells = [
        markdown("# A title\n\n**Claim.** It is so.\n\nThe rest."),
        code("by = hand()", picture_output(), tags=("by-hand",)),
        markdown("Blue speaks\nagainst it.\n\nMore prose."),
        code("a = 1  # folded", tags=("more-parameters",)),
        code("seed = 0  # of noise", tags=("parameters",)),
        code("run = start_run('03_digits')"),
        markdown("## Next"),
        code("short = 1"),
        code("\n".join(f"line_{n} = 1" for n in range(pages.LONG + 1))),
        code("\n".join(f"line_{n} = 1" for n in range(pages.LONG + 1)), tags=("method",)),
        code("fig = draw()", picture_output()),
        markdown("What it shows."),
        code('save_figure(fig, "03_removal")\ntable', table),
        code('save_figure(draw(), "03_class_pairs")\ntable', table, picture_output()),
        markdown("Behind a declared figure stays what it is."),
        code("said = 1"),
        code('Markdown("**Result.** ...")', output({"text/markdown": result})),
    ]
    executed_notebook(tmp_path / "default", "03_digits", cells)
    _, page = page_of(tmp_path, tmp_path / "default", "03_digits")
    assert page[0].source == "# 03 · A title\n\n**Claim.** It is so."
    assert page[1].source == ":::{admonition} Result\n:class: result\nIt is so: 12%.\n:::"
    assert page[2].source == "The rest."
    assert (page[3].source, page[3].metadata.tags) == ("by = hand()", [])
    assert "../results/03_digits_cell_1_0.png" in page[4].source
    assert "Blue speaks against it." in page[4].source and page[5].source == "More prose."
    assert "run-note" in page[6].source, "where the plumbing begins"
    folds = {
        cell.source: cell.metadata.get("mystnb", {}).get("code_prompt_show")
        for cell in page
        if cell.cell_type == "code"
    }
    said = [fold for fold in folds.values() if fold]
    assert folds["short = 1"] is folds["fig = draw()"] is None
    assert said[:3] == ["More parameters", "Parameters", "Imports"]
    assert folds["said = 1"] == folds['Markdown("**Result.** ...")'] == "How the result is computed"
    long = [cell.metadata.tags for cell in page if cell.source.startswith("line_0")]
    assert long == [["hide-input"], []]
    figures = [cell.source.split("\n")[0] for cell in page if "{figure}" in cell.source]
    assert [name.split("/")[-1] for name in figures[1:]] == ["03_removal.png", "03_class_pairs.png"]
    after = [number for number, cell in enumerate(page) if "03_class_pairs.png" in cell.source][0]
    assert page[after - 1].outputs == [] and "<table" in page[after + 1].outputs[0].data["text/html"]
    assert "Behind a declared figure stays what it is." in [cell.source for cell in page]
    assert page[-1].outputs[0].data["text/markdown"] == result


def test_long_tables_are_folded():
    rows = lambda n: "<table><thead><tr></tr></thead><tbody>" + n * "<tr></tr>" + "</tbody></table>"  # noqa: E731
    assert pages._fold_table(rows(pages.ROWS)) == rows(pages.ROWS)
    folded = pages._fold_table(rows(pages.ROWS + 1))
    assert (
        folded.startswith("<details")
        and f"{pages.ROWS + 1} rows" in folded
        and rows(pages.ROWS + 1) in folded
    )


CAPTIONS = yaml.safe_load(pages.CAPTIONS.read_text())


def test_every_figure_has_a_caption_and_every_caption_a_figure():
    declared = [figure for path in all_notebooks() for figure in declared_figures(read_notebook(path))]
    assert sorted(CAPTIONS) == sorted(declared)
    short = [name for name, caption in CAPTIONS.items() if not 80 < len(caption) < 450]
    assert short == [] and len(set(CAPTIONS.values())) == len(CAPTIONS)


@pytest.mark.parametrize("path", all_notebooks(), ids=lambda path: path.stem)
def test_every_declared_figure_is_found_in_its_notebook(path):
    node = read_notebook(path)
    found = [name for names in pages.saved_figures(node.cells).values() for name in names]
    assert sorted(found) == sorted(declared_figures(node))


def test_glossary_gives_plain_definitions():
    words = article.read_glossary((DOCS / "glossary.md").read_text())
    assert (
        words["attribution map"].definition == "A number for each pixel: what it contributes to the response."
    )
    assert words["attribution map"].pages == {"03", "05"}
    assert words["encoded absence"].definition.endswith("if the presence of the concept lowers its response.")
    assert words["minimum"].definition == (
        "maximum and minimum: The images, synthesised from noise, that drive a unit highest and lowest."
    )
    assert len(words) > 35 and article.EVERYDAY <= set(words)
    marked = [
        term
        for term, word in words.items()
        if set("$`*{[") & set(word.definition) or len(word.definition) < 20
    ]
    assert marked == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Two units of it", "units"),
        ("a non-target input", "non-target input"),
        ("The Minima", "Minima"),
        ("unity and sub-unit", None),
    ],
)
def test_words_are_found_whole_and_in_any_number(text, found):
    words = dict.fromkeys(["unit", "target input", "non-target input", "minimum"])
    match = article._pattern(words).search(text)
    assert (match and match[0]) == found


def test_pictures_are_shown_as_large_as_drawn(tmp_path):
    from PIL import Image

    Image.new("RGB", (1500, 10)).save(tmp_path / "figure.png", dpi=(200, 200))
    Image.new("RGB", (600, 10)).save(tmp_path / "moving.webp")
    assert article.shown_widths(tmp_path / "figure.png") == pytest.approx((720, 540), abs=0.1)
    assert article.shown_widths(tmp_path / "moving.webp") == (600, 0)


def test_the_digit_is_what_was_computed():
    shown = json.loads((ROOT / "static" / "hero.json").read_text())
    most, unit, source = len(shown["removed"]), shown["unit"], shown["source"]
    seen = [max(range(10), key=values.__getitem__) for values in shown["responses"]]
    assert seen == shown["seen"] and (seen[0], seen[-1]) == (source, unit) and len(seen) == most + 1
    removed = [shown["map"][row][column] for row, column in shown["removed"]]
    assert removed == sorted(removed) and removed[-1] < 0, "the most negative first"
    facts = next(
        entry["facts"]
        for entry in json.loads((ROOT / "static" / "manifest.json").read_text())["files"]
        if entry["path"] == "static/hero.json"
    )
    assert seen.index(unit) == facts["pixels_until_3"] and facts["absence_evidence_on_the_left"] > 0.7
    page = hero.hero_html(shown)
    assert page.count('class="gone"') == 2 * most, "the slider's picture and the second still one"
    assert f'max="{most}"' in page and f"logit 3: {hero.signed(shown['responses'][0][unit])}" in page


def test_the_digit_of_the_start_page_is_the_median_one():
    from make_hero import median_example

    assert median_example([5, None, 1, 3, 3]) == 4 and median_example([2, None, None]) == 1


def test_buttons_open_lessons_elsewhere_only_where_the_repository_is_named(monkeypatch):
    assert conf.launch_options("") == {} and pages._colab() == ""
    options = conf.launch_options("https://github.com/someone/companion")
    assert options["repository_url"].endswith("/companion") and set(options["launch_buttons"]) >= {
        "binderhub_url",
        "colab_url",
    }
    monkeypatch.setattr(pages, "REPOSITORY", "https://github.com/someone/companion")
    assert "run_elsewhere.md#colab" in pages._colab() and (DOCS / "run_elsewhere.md").is_file()


def test_results_of_an_earlier_version_are_marked(tmp_path):
    executed_notebook(tmp_path / "default", "03_digits")
    path = tmp_path / "default" / "03_digits.ipynb"
    path.write_text(path.read_text().replace("Test accuracy", "Accuracy"))
    _, cells = page_of(tmp_path, tmp_path / "default", "03_digits")
    assert "edited since" in texts(cells)


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
    kept = pages._code(cell, None).outputs
    assert [output.get("text", "") for output in kept] == ["said"], "its picture is a figure, itself is gone"


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
