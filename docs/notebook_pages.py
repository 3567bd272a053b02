"""Notebooks as pages: executed where there are results, otherwise as stored with a word on how to run them.

Figures get alternative text (from the prose before them) and links to their numbers and their provenance.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from links import ROOT, Places

NOTEBOOKS = ROOT / "notebooks"
WIDGET = "application/vnd.jupyter.widget-view+json"


@dataclass
class NotebookPage:
    """One notebook of the site.

    Attributes:
        path: the notebook as it is stored.
        results: folder of the results of one profile, whose name is the profile's.
        node: the executed notebook, or the stored one.
        executed: which of the two it is.
        alternatives: alternative text by figure, filled in by `write`.
    """

    path: Path
    results: Path
    node: nbformat.NotebookNode = field(init=False)
    executed: bool = field(init=False)
    alternatives: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        run = self.results / self.path.name
        self.executed = run.is_file() and self.path.parent == NOTEBOOKS
        self.node = nbformat.v4.upgrade(nbformat.read(run if self.executed else self.path, as_version=4))

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def place(self) -> str:
        """Path of the page in the source folder."""
        return str(self.path.relative_to(ROOT))

    @property
    def number(self) -> str:
        return self.name.split("_")[0]

    @property
    def title(self) -> str:
        """The notebook's first heading, with its number in front."""
        found = next((re.match(r"# +(.+)", cell.source) for cell in self.node.cells), None)
        title = found[1].strip() if found else self.name
        title = plain(title)
        return title if title[0].isdigit() or not self.number.isdigit() else f"{self.number} · {title}"

    @property
    def claim(self) -> str:
        """The claim as a sentence."""
        claim = self.node.metadata.get("companion", {}).get("claim", "").strip()
        return f"{claim[:1].upper()}{claim[1:].rstrip('.')}." if claim else ""

    @property
    def figures(self) -> list[str]:
        """Names of the figures it declares; an exercise declares none."""
        return list(self.node.metadata.get("companion", {}).get("figures", []))

    @property
    def seconds(self) -> float | None:
        """How long the run took."""
        return self.node.metadata.get("papermill", {}).get("duration") if self.executed else None

    @property
    def prose(self) -> str:
        return "\n".join(cell.source for cell in self.node.cells if cell.cell_type == "markdown")

    def picture(self, figure: str) -> Path | None:
        """The figure of this run; of a notebook that was not run, the one that ships in static/ if there is one."""
        for folder in (self.results, ROOT / "static"):
            if (folder / f"{figure}.png").is_file():
                return folder / f"{figure}.png"
        return None

    def write(self, places: Places) -> None:
        """Write the page, and beside it the files of its figures."""
        cells, titled = [], False
        shown = self._figures_of_cells()
        for index, cell in enumerate(self.node.cells):
            if cell.cell_type == "markdown":
                source = places.relink(cell.source, self.path.parent, self.place)
                if not titled and source.startswith("# "):
                    titled, source = True, re.sub(r"^# .*", f"# {self.title}", source, count=1)
                    cells += [_markdown(source), *self._note(places)]
                else:
                    cells.append(_markdown(source))
            elif cell.cell_type == "code":
                names = shown.get(index, [])
                cells += [_markdown("\n".join(f"({label(name)})=" for name in names))] * bool(names)
                cells.append(self._code(cell, names, index))
                cells += [_markdown(files) for name in names if (files := self._files(name, places))]
        page = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": self.node.metadata.kernelspec})
        target = places.source / self.place
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(page, target)

    def _figures_of_cells(self) -> dict[int, list[str]]:
        """Declared figures by the index of the cell that shows them, which may come before the one that saves them."""
        codes = [(i, cell) for i, cell in enumerate(self.node.cells) if cell.cell_type == "code"]
        saved = {i: [name for name in self.figures if _saves(cell.source, name)] for i, cell in codes}
        shown, waiting = {}, []
        for i, cell in codes:
            pictures = sum("image/png" in output.get("data", {}) for output in cell.get("outputs", []))
            if pictures and not saved[i]:
                waiting.append(i)
            elif saved[i]:
                place = waiting.pop() if waiting and not pictures else i
                shown.setdefault(place, []).extend(saved[i])
        return shown

    def _code(self, cell, names: list[str], index: int):
        """The cell without what only a running kernel can show, folded where it is only housekeeping."""
        tags = set(cell.metadata.get("tags", []))
        if "start_run(" in cell.source or cell.metadata.get("jupyter", {}).get("source_hidden"):
            tags.add("hide-input")
        metadata: dict = {"tags": sorted(tags & {"hide-input", "hide-cell", "hide-output", "remove-cell"})}
        pictures = any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))
        if pictures:
            alternative = self._alternative(names, index)
            self.alternatives |= dict.fromkeys(names, alternative)
            metadata["mystnb"] = {"image": {"alt": alternative}}
        outputs = [kept for output in cell.get("outputs", []) if (kept := _without_widgets(output))]
        count = cell.execution_count if self.executed else None
        new = nbformat.v4.new_code_cell(cell.source, metadata=metadata, execution_count=count)
        new.outputs = outputs
        return new

    def _alternative(self, names: list[str], index: int) -> str:
        """What a picture shows, in words: its name, then the prose that leads to it, or the claim."""
        before = [cell.source for cell in self.node.cells[:index] if cell.cell_type == "markdown"]
        said = plain(before[-1]) if before else ""
        named = " and ".join(readable(name) for name in names) or "Picture"
        return f"{named}: {first_sentences(said) or self.claim}"

    def _files(self, name: str, places: Places) -> str:
        """Links to picture, numbers and provenance of a figure of this run."""
        kinds = {"picture": ".png", "numbers": ".csv", "provenance": ".json"}
        links = []
        for kind, suffix in kinds.items():
            file = self.results / f"{name}{suffix}"
            if self.executed and file.is_file():
                links.append(f"{{download}}`{kind} <{self._copy(file, places)}>`")
        return f":::{{container}} figure-files\n`{name}`: {', '.join(links)}\n:::" if links else ""

    def _copy(self, file: Path, places: Places) -> str:
        """Take a file into the source folder; its path from this page."""
        copied = places.source / "results" / file.name
        copied.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, copied)
        return "../" * self.place.count("/") + f"results/{file.name}"

    def _note(self, places: Places) -> list:
        """How this page came about, or how to get its outputs."""
        command = f"python -m absence_utils.run {self.name} --profile {self.results.name}"
        if self.path.parent != NOTEBOOKS:
            text = (
                f":::{{note}}\nTo work on it, open `{self.path.relative_to(ROOT)}` in JupyterLab: `make lab`. Here "
                "it is shown as it is stored, without outputs.\n:::"
            )
        elif not self.executed:
            text = (
                ":::{warning}\nThis notebook has not been run here, so it is shown as it is stored, without outputs. "
                f"`make figures PROFILE={self.results.name}` runs all notebooks, `.venv/bin/{command}` this one; then "
                "`make site` builds the site anew.\n:::"
            )
        else:
            copied = self._copy(self.results / self.path.name, places)
            text = f":::{{container}} run-note\n{self._provenance(command)} {{download}}`Notebook <{copied}>`\n:::"
        return [_markdown(text)]

    def _provenance(self, command: str) -> str:
        said = f"Run by `{command}`"
        said += f" in {self.seconds:.0f} s" if self.seconds else ""
        record = self.results / f"{(self.figures or [''])[0]}.json"
        if record.is_file():
            facts = json.loads(record.read_text())
            said += f" with torch {facts['versions'].get('torch', '?')} on {facts['device'].split(':')[0]}"
        stored = nbformat.v4.upgrade(nbformat.read(self.path, as_version=4))
        if _sources(stored) != _sources(self.node):
            said += ". **The notebook has been edited since**: run it again and build the site anew"
        return said + "."


def _saves(source: str, figure: str) -> bool:
    return f'"{figure}"' in source and "save_figure(" in source


def _sources(node) -> list[str]:
    """Sources of the cells, without the one that papermill puts in."""
    cells = [c for c in node.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    return [cell.source.strip() for cell in cells]


def _markdown(source: str):
    return nbformat.v4.new_markdown_cell(source)


def _without_widgets(output):
    """An output without its widget, which needs a kernel; None if nothing but its name remains."""
    data = output.get("data", {})
    if WIDGET not in data:
        return output
    rest = {kind: value for kind, value in data.items() if kind not in (WIDGET, "text/plain")}
    return nbformat.from_dict({**output, "data": rest}) if rest else None


def label(figure: str) -> str:
    """Name of a figure as the target of a link."""
    return "figure-" + figure.replace("_", "-")


def readable(figure: str) -> str:
    """Name of a figure in words: 06_contact_sheet is "Contact sheet"."""
    return figure.split("_", 1)[-1].replace("_", " ").capitalize()


def plain(markdown: str) -> str:
    """Text of Markdown without its markup, headings left out."""
    lines = [line for line in markdown.splitlines() if not line.startswith(("#", ":::", "```", "|", "<"))]
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(lines))
    return re.sub(r"\s+", " ", re.sub(r"\*\*|[*`$]", "", text)).strip()


def first_sentences(text: str, limit: int = 260) -> str:
    """As many whole sentences as fit the limit, and at least a part of the first."""
    sentences = re.split(r"(?<=[.?!:]) ", text)
    taken = sentences[0]
    for sentence in sentences[1:]:
        if len(taken) + len(sentence) >= limit:
            break
        taken += " " + sentence
    return taken if len(taken) <= limit else taken[:limit].rsplit(" ", 1)[0] + " ..."
