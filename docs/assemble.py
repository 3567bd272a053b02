"""Put the source folder of the site together: pages, notebooks, exercises, reference."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

import jinja2
import notebook_pages
import reference
from links import ROOT, Places
from notebook_pages import NOTEBOOKS, NotebookPage

PAGES = Path(__file__).parent / "pages"
EXERCISES = NOTEBOOKS / "exercises"
MATHJAX = "tex-svg.js"


class Site:
    """What the templates in `pages/` may ask for.

    Args:
        source: folder for the sources, made here.
        results: results of one profile.
        atlas: folder with the atlas's index.html; need not exist.
    """

    def __init__(self, source: Path, results: Path, atlas: Path):
        self.results, self.profile = results, results.name
        self.atlas = atlas if (atlas / "index.html").is_file() else None
        self.notebooks = [NotebookPage(path, results) for path in sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))]
        self.exercises = [NotebookPage(path, results) for path in sorted(EXERCISES.glob("*.ipynb"))]
        pages = {page.place: page.place for page in [*self.notebooks, *self.exercises]}
        pages |= reference.module_places() | {"README.md": "index.md"}
        pages |= {"notebooks/exercises/README.md": "exercises.md", "notebooks/exercises": "exercises.md"}
        self.places = Places(source, pages)

    def write(self) -> None:
        """Write every page; whatever is wrong with a text raises here."""
        source = self.places.source
        source.mkdir(parents=True)
        for page in [*self.notebooks, *self.exercises]:
            page.write(self.places)
        reference.write_reference(source)
        environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
        for template in sorted(PAGES.glob("*.md")):
            self.page = template.name
            text = environment.from_string(template.read_text()).render(site=self)
            (source / template.name).write_text(text)
        static = source / "_site_static"
        shutil.copytree(Path(__file__).parent / "static", static)
        (static / "mathjax").mkdir()
        shutil.copyfile(mathjax(), static / "mathjax" / MATHJAX)

    def readme(self, heading: str) -> str:
        """Section of README.md below a heading of the second level, its links led to the site.

        Raises:
            KeyError: README.md has no such section.
        """
        text = (ROOT / "README.md").read_text()
        sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
        if heading not in sections:
            raise KeyError(f"README.md has no section {heading!r}, but {', '.join(sections)}")
        return self.places.relink(sections[heading].strip(), ROOT, self.page)

    def readme_picture(self) -> str:
        """The picture at the top of README.md with its caption."""
        text = (ROOT / "README.md").read_text()
        found = re.search(r"^!\[[^\]]+\]\([^)]+\)\n\n\*.+?\*\n", text, re.MULTILINE | re.DOTALL)
        if not found:
            raise KeyError("README.md has no picture with a caption in italics below it")
        return self.places.relink(found[0], ROOT, self.page)

    def guide(self) -> str:
        """The teacher's guide, without its title; empty when there is none."""
        path = EXERCISES / "README.md"
        text = path.read_text() if path.is_file() else ""
        return self.places.relink(re.sub(r"\A# .*\n", "", text), EXERCISES, self.page)

    def used(self, *words: str) -> str:
        """Links to the notebooks whose prose has one of the words (regular expressions)."""
        pattern = re.compile("|".join(words), re.IGNORECASE)
        pages = [page for page in self.notebooks if pattern.search(page.prose)]
        if not pages:
            raise KeyError(f"no notebook uses {words}")
        return "Used in " + ", ".join(f"[{page.number}]({page.place})" for page in pages) + "."

    def executed(self) -> int:
        return sum(page.executed for page in self.notebooks)

    def cards(self) -> str:
        """The table of figures: for every notebook its claim, a picture and all its figures."""
        return "\n\n".join(self._card(page) for page in self.notebooks)

    def _card(self, page: NotebookPage) -> str:
        lines = [":::::{container} figure-card", f"[{page.title}]({page.place})", "", page.claim, ""]
        chosen = sorted(page.figures, key=lambda name: not (ROOT / "static" / f"{name}.png").is_file())
        with_picture = [(name, picture) for name in chosen if (picture := page.picture(name))]
        if with_picture:
            name, picture = with_picture[0]  # the one that README shows as well
            copied = self.places.source / "pictures" / picture.name
            copied.parent.mkdir(exist_ok=True)
            shutil.copyfile(picture, copied)
            alternative = page.alternatives.get(name) or f"{notebook_pages.readable(name)}: {page.claim}"
            lines += [f"[![{_quiet(alternative)}](pictures/{picture.name})]({page.place})", ""]
        names = [self._figure_link(page, name) for name in page.figures]
        lines += [f"Figures: {', '.join(names)}.", ""]
        lines += [f"Run in {page.seconds:.0f} s." if page.seconds else "Not run here yet.", ":::::"]
        return "\n".join(lines)

    def _figure_link(self, page: NotebookPage, name: str) -> str:
        return f"[{notebook_pages.readable(name).lower()}](#{notebook_pages.label(name)})"


def _quiet(text: str) -> str:
    return re.sub(r"[\[\]]", "", text)


def mathjax() -> Path:
    """MathJax 3 with SVG output in one file, from the installed package."""
    spec = importlib.util.find_spec("sphinx-mathjax-offline")
    if spec is None:
        raise ModuleNotFoundError("sphinx-mathjax-offline is not installed: pip install -e '.[site]'")
    return Path(spec.origin).parent / "static" / "mathjax" / MATHJAX
