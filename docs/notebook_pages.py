"""Notebooks as articles: the result under the claim, pictures with captions, parameters and plumbing folded.

Executed where there are results, otherwise as stored with a word on how to run them. What a notebook's author gives:

- A figure that the notebook declares has its caption in `captions.yaml`; a test asks for it.
- Any other picture, of the cell by hand or of a slider, takes the paragraph right behind its cell as its caption.
- Cells longer than `LONG` lines are folded, and those that only compute the result. The tag `method` keeps a cell open,
  the tag `hide-input` folds one.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
from base64 import b64decode
from pathlib import Path

import nbformat
import yaml

ROOT = Path(__file__).resolve().parents[1]
CAPTIONS = Path(__file__).with_name("captions.yaml")
# The address of the repository, https://github.com/OWNER/NAME: lessons get buttons that open them on Binder and Colab.
REPOSITORY = os.environ.get("ABSENCE_REPOSITORY", "").removesuffix("/").removesuffix(".git")
WIDGET = "application/vnd.jupyter.widget-view+json"
LONG = 8  # most lines of a cell that stays open
ROWS = 12  # most rows of a table that stays open
RESULT, REFUTED = "**Result.**", "**What would have refuted"
FOLDED = {
    "more-parameters": "More parameters",
    "parameters": "Parameters",
    "injected-parameters": "Parameters of this run",
}
NO_PARAGRAPH = ("#", "-", "*  ", "1.", "|", ">", "```", ":::", "$$", RESULT, REFUTED)


def write_page(path: Path, results: Path, source: Path) -> bool:
    """Write the page of one notebook, and beside it its pictures and the files of its figures.

    Args:
        path: the notebook as it is stored.
        results: folder of the results of one profile, whose name is the profile's.
        source: Sphinx's source folder; the page stands where the notebook stands in the repository.

    Returns:
        Whether the page shows results.
    """
    stored = _read(path)
    run = results / path.name
    lesson = path.parent.name == "notebooks"
    executed = run.is_file() and lesson
    node = _read(run) if executed else stored
    if executed:
        note = _results_note(path, node, stored, results, source)
        pictures = _Pictures(path.stem, node.cells, results, source)
        cells = _article(node.cells, note, pictures)
    else:
        opening, *rest = node.cells
        note = _stored_note(path, results)
        cells = [opening, nbformat.v4.new_markdown_cell(note)]
        folds = _folds(rest) if lesson else [None] * len(rest)
        for cell, fold in zip(rest, folds, strict=True):
            cells.append(_code(cell, fold) if cell.cell_type == "code" else cell)
    first = re.sub(r"^# (?=\D)", f"# {path.stem[:2]} · ", cells[0].source)
    cells[0] = nbformat.v4.new_markdown_cell(first)
    for cell in cells:
        if cell.cell_type == "markdown":  # pages of docs/ stand one folder above a notebook's
            cell.source = cell.source.replace("](../docs/", "](../")
    target = source / path.relative_to(ROOT)
    target.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"kernelspec": node.metadata.kernelspec}
    for cell in cells:
        cell.pop("attachments", None)
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), target)
    return executed


def _read(path: Path):
    return nbformat.v4.upgrade(nbformat.read(path, as_version=4))


def _article(cells: list, note: str, pictures: _Pictures) -> list:
    """Cells of the page of an executed notebook."""
    markdown = nbformat.v4.new_markdown_cell
    claim, rest = _behind_claim(cells[0].source)
    page = [markdown(claim), *map(markdown, filter(None, [_result_box(cells), rest]))]
    folds, said, taken = _folds(cells), cells[0].source, ""
    for number, cell in enumerate(cells[1:], 1):
        if cell.cell_type == "markdown":
            text = cell.source.removeprefix(taken).strip() if taken else cell.source
            page += [markdown(text)] if text else []
            said, taken = cell.source, ""
        elif cell.cell_type == "code":
            if note and folds[number]:  # how it was run: where the plumbing begins
                page.append(markdown(note))
                note = ""
            behind = cells[number + 1] if number + 1 < len(cells) else None
            taken = _first_paragraph(behind.source) if behind and behind.cell_type == "markdown" else ""
            figures, used = pictures.of(number, _plain(said), taken)
            taken = taken if used else ""
            code = _code(cell, folds[number])
            if figures:  # first the picture, then the tables
                tables = nbformat.v4.new_code_cell(
                    "", outputs=code.outputs, metadata={"tags": ["remove-input"]}
                )
                code.outputs = []
                page += [code, *map(markdown, figures), *[tables] * bool(tables.outputs)]
            else:
                page.append(code)
    return page


def _behind_claim(text: str) -> tuple[str, str]:
    """Title and claim of a notebook's first cell, and what stands behind them."""
    parts = text.split("\n\n")
    last = next((k for k, part in enumerate(parts) if part.startswith("**Claim")), 0)
    return "\n\n".join(parts[: last + 1]), "\n\n".join(parts[last + 1 :])


def _result_box(cells: list) -> str:
    """The result, of the last output that says one, for the box under the claim; empty if none does."""
    said = [
        output["data"]["text/markdown"]
        for cell in cells
        for output in cell.get("outputs", [])
        if output.get("data", {}).get("text/markdown", "").startswith(RESULT)
    ]
    if not said:
        return ""
    return f":::{{admonition}} Result\n:class: result\n{_result(said[-1])}\n:::"


def _result(text: str) -> str:
    return text.split(REFUTED)[0].removeprefix(RESULT).strip()


def _folds(cells: list) -> list[str | None]:
    """For each cell what is written on its fold, None where it stays open."""
    folds = [_fold(cell) if cell.cell_type == "code" else None for cell in cells]
    ends = [number for number, cell in enumerate(cells) if RESULT in cell.source and cell.cell_type == "code"]
    for end in ends[-1:]:
        while end and cells[end].cell_type == "code" and not _has_picture(cells[end]):
            folds[end] = folds[end] or "How the result is computed"
            end -= 1
    return folds


def _fold(cell) -> str | None:
    tags = cell.metadata.get("tags", [])
    for tag in tags:
        if tag in FOLDED:
            return FOLDED[tag]
        if tag in ("by-hand", "method"):
            return None
    if "start_run(" in cell.source:
        return "Imports"
    lines = len(cell.source.splitlines())
    hidden = "hide-input" in tags or cell.metadata.get("jupyter", {}).get("source_hidden")
    return f"Code, {lines} lines" if hidden or lines > LONG else None


def _has_picture(cell) -> bool:
    return any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))


def _first_paragraph(text: str) -> str:
    """The paragraph that a text begins with, empty if it begins with anything else."""
    first = text.split("\n\n")[0]
    return "" if first.startswith(NO_PARAGRAPH) else first


class _Pictures:
    """The pictures of an executed notebook as figures of its page: which one each is, its caption and its files."""

    def __init__(self, stem: str, cells: list, results: Path, source: Path):
        self.stem, self.cells, self.results = stem, cells, results
        self.folder = source / "results"
        self.folder.mkdir(exist_ok=True)
        self.captions = yaml.safe_load(CAPTIONS.read_text())
        self.names = saved_figures(cells)

    def of(self, number: int, before: str, behind: str) -> tuple[list[str], bool]:
        """Figures of one cell in Markdown, and whether one of them took the paragraph behind the cell."""
        outputs = [output.get("data", {}) for output in self.cells[number].get("outputs", [])]
        shown = [data["image/png"] for data in outputs if "image/png" in data]
        names = self.names.get(number, [])
        figures, used = [], False
        for place, picture in enumerate(shown):
            if place < len(names):
                figures.append(self._declared(names[place]))
                continue
            used = bool(behind) and place == len(shown) - 1
            file = f"{self.stem}_cell_{number}_{place}.png"
            (self.folder / file).write_bytes(b64decode(picture))
            figures.append(_figure(file, behind if used else before))
        return figures, used

    def _declared(self, name: str) -> str:
        files = [
            f"{{download}}`{text} <../results/{name}.{kind}>`"
            for text, kind in (("picture", "png"), ("numbers", "csv"), ("provenance", "json"))
        ]
        for kind in ("png", "csv", "json"):
            shutil.copyfile(self.results / f"{name}.{kind}", self.folder / f"{name}.{kind}")
        caption = self.captions.get(name, "").strip()
        return _figure(f"{name}.png", caption, f"`{name}`: {' · '.join(files)}")


def _figure(file: str, caption: str, files: str = "") -> str:
    alternative = f"Figure: {_plain(caption, 160)}"
    lines = [f"`````{{figure}} ../results/{file}", f":alt: {alternative}", "", " ".join(caption.split())]
    return "\n".join([*lines, *(["", files] if files else []), "`````"])


def saved_figures(cells: list) -> dict[int, list[str]]:
    """Which cell shows which saved figures: cell number -> names, in the order of its pictures.

    A figure is shown by the cell that draws it, which may stand before the one that saves it.
    """
    drawn, names = {}, {}
    for number, cell in enumerate(cells):
        if cell.cell_type != "code":
            continue
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Assign):
                for name in ast.walk(ast.Tuple(node.targets)):
                    if isinstance(name, ast.Name):
                        drawn[name.id] = number
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("save_figure"):
                figure, saved = node.args[:2]
                at = drawn.get(figure.id, number) if isinstance(figure, ast.Name) else number
                names.setdefault(at, []).append(saved.value)
    return names


def _code(cell, fold: str | None):
    """A code cell without what only a running kernel can show, and without the pictures that became figures."""
    tags = set(cell.metadata.get("tags", [])) & {"hide-cell", "hide-output", "remove-cell", "remove-input"}
    metadata = {"tags": sorted(tags)}
    if fold:
        metadata = {"tags": sorted(tags | {"hide-input"})}
        metadata["mystnb"] = {"code_prompt_show": fold, "code_prompt_hide": fold}
    new = nbformat.v4.new_code_cell(cell.source, metadata=metadata, execution_count=cell.execution_count)
    for output in cell.get("outputs", []):
        if "data" not in output:
            new.outputs.append(output)
            continue
        without = {"image/png"} | ({WIDGET, "text/plain"} if WIDGET in output["data"] else set())
        data = {kind: value for kind, value in output["data"].items() if kind not in without}
        if "image/png" not in output["data"] and data:
            if "text/html" in data:
                data["text/html"] = _fold_table(data["text/html"])
            new.outputs.append(nbformat.from_dict({**output, "data": data}))
    return new


def _fold_table(html: str) -> str:
    """A table of more than `ROWS` rows is folded."""
    body = html.split("<tbody>")[-1]
    rows = body.count("<tr")
    if "<table" not in html or rows <= ROWS:
        return html
    return f'<details class="long-table"><summary>Table, {rows} rows</summary>\n{html}\n</details>'


def _plain(markdown: str, limit: int = 260) -> str:
    """Text of Markdown without its markup, cut to whole words."""
    lines = [line for line in markdown.splitlines() if not line.startswith("#")] or [markdown.lstrip("# ")]
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(lines))
    text = re.sub(r"\s+", " ", re.sub(r"[*`$\[\]]", "", text)).strip()
    return text if len(text) <= limit else text[:limit].rsplit(" ", 1)[0] + " ..."


def _stored_note(path: Path, results: Path) -> str:
    if path.parent.name != "notebooks":
        return (
            f":::{{note}}\nTo work on it: `make exercise NAME={path.stem[:2]}` opens a copy in JupyterLab. Here "
            "it is shown as it is stored, without outputs.\n:::"
        )
    return (
        ":::{warning}\nThis notebook has not been run here, so it is shown as it is stored, without outputs. "
        f"`make figures PROFILE={results.name}` runs all notebooks, `.venv/bin/python -m absence_utils.run {path.stem} "
        f"--profile {results.name}` this one; then `make docs` builds these pages anew.\n:::"
    )


def _results_note(path: Path, node, stored, results: Path, source: Path) -> str:
    """How the page came about, with the notebook and what it wrote beside its figures."""
    folder = source / "results"
    folder.mkdir(exist_ok=True)
    said = f"Run by `python -m absence_utils.run {path.stem} --profile {results.name}`"
    said += f" in {node.metadata.papermill.duration:.0f} s"
    companion = node.metadata.companion
    facts = json.loads((results / f"{companion.figures[0]}.json").read_text())
    said += f" with torch {facts['versions']['torch']} on {facts['device'].split(':')[0]}. "
    if _sources(stored) != _sources(node):
        said += "**The notebook has been edited since**: run it again, then `make docs`. "
    files = {path.name: "notebook"} | {name: name for name in companion.get("files", []) if "/" not in name}
    links = []
    for name, text in files.items():
        if (results / name).is_file():
            shutil.copyfile(results / name, folder / name)
            links.append(f"{{download}}`{text} <../results/{name}>`")
    said += f"Files: {' · '.join(links)}. Those of a figure stand below it."
    return f":::{{container}} run-note\n{said}{_colab()}\n:::"


def _colab() -> str:
    """Colab opens a notebook alone, without the package."""
    return " On Colab, run [this cell](../run_elsewhere.md#colab) first." if REPOSITORY else ""


def _sources(node) -> list[str]:
    """Sources of the cells, without the one that papermill puts in."""
    cells = [cell for cell in node.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    return [cell.source.strip() for cell in cells]
