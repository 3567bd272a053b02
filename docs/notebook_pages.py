"""Notebooks as pages: executed where there are results, otherwise as stored with a word on how to run them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
WIDGET = "application/vnd.jupyter.widget-view+json"


def write_page(path: Path, results: Path, source: Path) -> bool:
    """Write the page of one notebook, and beside it the files of its figures.

    Args:
        path: the notebook as it is stored.
        results: folder of the results of one profile, whose name is the profile's.
        source: Sphinx's source folder; the page stands where the notebook stands in the repository.

    Returns:
        Whether the page shows results.
    """
    stored = _read(path)
    run = results / path.name
    executed = run.is_file() and path.parent.name == "notebooks"
    node = _read(run) if executed else stored
    note = _results_note(path, node, stored, results, source) if executed else _stored_note(path, results)
    cells, said = [], ""
    for cell in node.cells:
        if cell.cell_type == "markdown":
            text = re.sub(r"^# (?=\D)", f"# {path.stem[:2]} · ", cell.source)
            cells.append(nbformat.v4.new_markdown_cell(text))
            if not said:
                cells.append(nbformat.v4.new_markdown_cell(note))
            said = text
        elif cell.cell_type == "code":
            cells.append(_code(cell, said, executed))
    target = source / path.relative_to(ROOT)
    target.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"kernelspec": node.metadata.kernelspec}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), target)
    return executed


def _read(path: Path):
    return nbformat.v4.upgrade(nbformat.read(path, as_version=4))


def _code(cell, said: str, executed: bool):
    """A cell without what only a running kernel can show; its pictures get the prose before it as their text."""
    tags = set(cell.metadata.get("tags", [])) & {"hide-input", "hide-cell", "hide-output", "remove-cell"}
    if "start_run(" in cell.source or cell.metadata.get("jupyter", {}).get("source_hidden"):
        tags.add("hide-input")
    metadata = {"tags": sorted(tags), "mystnb": {"image": {"alt": f"Figure: {_plain(said)}"}}}
    count = cell.execution_count if executed else None
    new = nbformat.v4.new_code_cell(cell.source, metadata=metadata, execution_count=count)
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if WIDGET in data:
            data = {kind: value for kind, value in data.items() if kind not in (WIDGET, "text/plain")}
            output = nbformat.from_dict({**output, "data": data})
        if data or "data" not in output:
            new.outputs.append(output)
    return new


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
    """How the page came about, and the files of the run: the notebook, and each figure with numbers and provenance."""
    (source / "results").mkdir(exist_ok=True)

    def link(name: str, text: str) -> str:
        shutil.copyfile(results / name, source / "results" / name)
        return f"{{download}}`{text} <../results/{name}>`"

    said = f"Run by `python -m absence_utils.run {path.stem} --profile {results.name}`"
    said += f" in {node.metadata.papermill.duration:.0f} s"
    figures = node.metadata.companion.figures
    facts = json.loads((results / f"{figures[0]}.json").read_text())
    said += f" with torch {facts['versions']['torch']} on {facts['device'].split(':')[0]}. "
    if _sources(stored) != _sources(node):
        said += "**The notebook has been edited since**: run it again, then `make docs`. "
    files = [
        f"`{figure}` ({link(f'{figure}.png', 'picture')}, {link(f'{figure}.csv', 'numbers')}, "
        f"{link(f'{figure}.json', 'provenance')})"
        for figure in figures
    ]
    return f":::{{container}} run-note\n{said}Files: {link(path.name, 'notebook')}, {', '.join(files)}.\n:::"


def _sources(node) -> list[str]:
    """Sources of the cells, without the one that papermill puts in."""
    cells = [cell for cell in node.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    return [cell.source.strip() for cell in cells]
