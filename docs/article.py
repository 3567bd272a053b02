"""What Sphinx does to every page: words of the glossary are explained, pictures link to themselves and have captions.

- The first use of a glossary word on a page is a link to its entry, with the definition as its tooltip.
- A paragraph that is a picture, followed by a paragraph in italics, is a figure with its caption; a lesson's figure has
  its caption of captions.yaml on any page.
- A picture is a link to its file. It is drawn at its own size, at most as wide as the page and at least so wide that
  the type in it stays legible (9 px); where the page is narrower than that, it scrolls in its own box.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml
from docutils import nodes
from PIL import Image
from sphinx.application import Sphinx
from sphinx.util.osutil import relative_uri

PX_PER_INCH, POINTS_PER_INCH = (
    96,
    72,
)  # CSS; type of 9 pt has 9 px where a figure is as many px wide as points
# Words of the glossary that mean other things elsewhere: linked on the pages that their entries name.
EVERYDAY = {
    "baseline",
    "blank",
    "context",
    "contrast",
    "control",
    "effect",
    "facets",
    "host",
    "passed on",
    "signed",
}
EVERYDAY |= {"trigger", "twin"}
PLURALS = {"maximum": "maxima", "minimum": "minima"}
NO_PROSE = (
    nodes.title,
    nodes.rubric,
    nodes.literal,
    nodes.literal_block,
    nodes.reference,
    nodes.math,
    nodes.math_block,
    nodes.raw,
    nodes.term,
    nodes.table,
    nodes.legend,
    nodes.comment,
)

PHONE = 340  # px that a picture has on a phone: a wider one scrolls there, and says so (companion.css)
NO_PROSE_CLASSES = {"toctree-wrapper", "card-grid", "run-note"}


@dataclass(frozen=True)
class Word:
    """An entry of the glossary.

    Attributes:
        term: as the glossary spells it.
        definition: its first sentence, without markup.
        pages: stems of the pages that the entry names, "03" for a notebook.
    """

    term: str
    definition: str
    pages: frozenset[str]


def read_glossary(text: str) -> dict[str, Word]:
    """Words of glossary.md: term -> Word."""
    body = text.split("```{glossary}\n")[1].split("\n```")[0]
    words = {}
    for chunk in re.split(r"\n\n(?=\S)", body):
        lines = chunk.split("\n")
        terms = [line for line in lines if line and not line.startswith(" ")]
        definition = "\n".join(line for line in lines if line not in terms)
        pages = set(re.findall(r"notebooks/(\d\d)_", definition)) | set(
            re.findall(r"\]\((\w+)\.md", definition)
        )
        several = f"{' and '.join(terms)}: " if len(terms) > 1 else ""
        for term in terms:
            words[term] = Word(term, several + _first_sentence(definition), frozenset(pages))
    return words


def _first_sentence(markdown: str) -> str:
    """The first sentence of an entry as plain text, without what a formula would add."""
    text = re.sub(r"\{[\w:]+\}`([^`<]+)`", r"\1", " ".join(markdown.split()))
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text).replace("*", "")
    text = re.sub(r"\$(\w)\$", r"\1", text)
    first = re.split(r"(?<=[.!?])\s+(?=[A-Z])|\s*\$\$", text)[0]
    if "$" in first:
        first = first.split("$")[0].rpartition(":")[0]
    return first.strip(" :.") + "."


def link_words(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Link the first use of each glossary word in the prose of a page."""
    if page.startswith(("api/", "glossary")):
        return
    objects = app.env.get_domain("std").objects
    words = {
        term: word
        for term, word in app.glossary.items()
        if term not in EVERYDAY or page.split("/")[-1][:2] in word.pages or page in word.pages
    }
    used = {
        link.astext().lower()
        for link in doctree.findall(nodes.reference)
        if "#term-" in link.get("refuri", "")
    }
    open_words = {term: word for term, word in words.items() if not used & set(_forms(term))}
    for text in list(doctree.findall(nodes.Text)):
        if not open_words:
            return
        if _inside(text, NO_PROSE):
            continue
        pieces, rest = [], text.astext()
        while found := _pattern(open_words).search(rest):
            term = next(term for term in open_words if found[0].lower() in _forms(term))
            where, anchor = objects["term", term]
            address = f"{app.builder.get_relative_uri(page, where)}#{anchor}"
            link = nodes.reference("", "", nodes.inline("", found[0]), internal=True, refuri=address)
            link["reftitle"], link["classes"] = open_words.pop(term).definition, ["glossary-word"]
            pieces += [nodes.Text(rest[: found.start()]), link]
            rest = rest[found.end() :]
            if not open_words:
                break
        if pieces:
            text.parent.replace(text, [*pieces, nodes.Text(rest)])


def _forms(term: str) -> list[str]:
    """A term in lower case, in singular and plural."""
    low = term.lower()
    return [low, low + "s", PLURALS.get(low, low), low.removesuffix("s")]


def _pattern(words: dict[str, Word]) -> re.Pattern:
    """Any of the words, the longest first; not as a part of a longer or hyphenated one."""
    forms = sorted({form for term in words for form in _forms(term)}, key=len, reverse=True)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, forms))})(?![\w-])", re.IGNORECASE)


def _inside(node: nodes.Node, kinds: tuple) -> bool:
    while node.parent is not None:
        node = node.parent
        if isinstance(node, kinds) or NO_PROSE_CLASSES & set(node.get("classes", ())):
            return True
    return False


def caption_pictures(app: Sphinx, doctree: nodes.document) -> None:
    """A picture that is a paragraph becomes a figure with a caption.

    The caption is the paragraph in italics behind it, else the one of captions.yaml, else the picture's own text.
    """
    for picture in list(doctree.findall(nodes.image)):
        paragraph = picture.parent
        if not isinstance(paragraph, nodes.paragraph) or len(paragraph) != 1:
            continue
        behind = paragraph.next_node(descend=False, siblings=True)
        known = app.captions.get(Path(picture["uri"]).stem, picture.get("alt", ""))
        if isinstance(behind, nodes.paragraph) and len(behind) == 1 and isinstance(behind[0], nodes.emphasis):
            caption = behind[0].children
            behind.parent.remove(behind)
        elif known:
            caption = [nodes.Text(" ".join(known.split()))]
        else:
            continue
        figure = nodes.figure("", picture, nodes.caption("", "", *caption))
        paragraph.replace_self(figure)
        doctree.note_implicit_target(figure)


def link_pictures(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """A picture is a link to its file, in a box in which it can scroll."""
    if app.builder.format != "html":
        return
    for picture in list(doctree.findall(nodes.image)):
        known = app.env.images.get(picture["uri"])
        if _inside(picture, (nodes.reference,)) or not known:
            continue
        address = relative_uri(app.builder.get_target_uri(page), f"{app.builder.imagedir}/{known[1]}")
        width, least = shown_widths(Path(app.srcdir, picture["uri"]))
        look = f"--width: {width:.0f}px; --least: {least:.0f}px"
        kind = "picture wide" if least > PHONE else "picture"
        opening = f'<a class="{kind}" href="{address}" style="{look}">'
        around = [
            nodes.raw("", opening, format="html"),
            picture.deepcopy(),
            nodes.raw("", "</a>", format="html"),
        ]
        picture.parent.replace(picture, around)


def shown_widths(path: Path) -> tuple[float, float]:
    """Width of a picture at its own size and the least at which it is read, in CSS pixels.

    The resolution says how large it was drawn. A picture without one, as an animation, has no type and may shrink.
    """
    with Image.open(path) as picture:
        if "dpi" not in picture.info:
            return picture.width, 0
        inches = picture.width / picture.info["dpi"][0]
    return inches * PX_PER_INCH, inches * POINTS_PER_INCH


def read_texts(app: Sphinx) -> None:
    folder = Path(__file__).parent
    app.glossary = read_glossary((folder / "glossary.md").read_text())
    app.captions = yaml.safe_load((folder / "captions.yaml").read_text())


def setup(app: Sphinx) -> dict:
    app.connect("builder-inited", read_texts)
    app.connect("doctree-read", caption_pictures)
    app.connect("doctree-resolved", link_words)
    app.connect("doctree-resolved", link_pictures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
