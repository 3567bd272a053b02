"""Docstrings as reStructuredText: they are written to be read as plain text, so what is markup by chance is escaped.

Sections (Args, Attributes, Raises) are left to napoleon. A paragraph with hanging indents becomes a list, an indented
block after a colon stays as it is typed, names in single backticks become links where this package defines them.
"""

from __future__ import annotations

import importlib
import re
from types import ModuleType

_SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields|Example|Examples|Note|Notes):$")
_INLINE = re.compile(
    r"(?P<code>`+)(?P<inside>.+?)(?P=code)(?P<after>\w?)"
    r"|(?P<emphasis>(?<![\w*])\*[^\W_](?:[^*]*\w)?\*(?![\w*]))"
    r"|(?P<mark>[*|\\]|(?<=\w)_(?!\w))"
)


def setup(app):
    """Sphinx's entry: before napoleon, which comes at 500."""
    app.connect("autodoc-process-docstring", _process, priority=400)
    return {"parallel_read_safe": True}


def _process(app, what, name, obj, options, lines):
    lines[:] = as_rest("\n".join(lines), name).splitlines() + [""]


def as_rest(text: str, name: str) -> str:
    """The docstring of the object with this full name, as reStructuredText for napoleon."""
    blocks = [block for block in re.split(r"\n[ \t]*\n", text.strip("\n")) if block.strip()]
    done = []
    for block in blocks:
        lines = block.splitlines()
        typed = (
            lines[0].startswith("    ")
            and done
            and done[-1].rstrip().endswith(":")
            and not _ends_section(done)
        )
        if typed:
            done[-1] = done[-1].rstrip() + ":"
            done.append(block)
        elif _SECTION.match(lines[0]):
            done.append(_section(lines, name))
        else:
            done.append(_paragraph(lines, name))
    return "\n\n".join(done)


def _ends_section(done: list[str]) -> bool:
    return bool(_SECTION.match(done[-1].splitlines()[0])) or done[-1].startswith(":returns:")


def _section(lines: list[str], name: str) -> str:
    """A section; what a function returns may be several things, "name: what it is" in a line each."""
    if lines[0] not in ("Returns:", "Yields:"):
        return "\n".join([lines[0], *(inline(line, name) for line in lines[1:])])
    inside = [line.removeprefix("    ") for line in lines[1:]]
    said = _paragraph(inside, name).splitlines()
    field = f":{lines[0][:-1].lower()}:"
    if said[0].startswith("- "):
        return "\n".join([field, *("   " + line for line in said)])
    return "\n".join([f"{field} {said[0]}", *("   " + line for line in said[1:])])


def _paragraph(lines: list[str], name: str) -> str:
    """A paragraph; one with hanging indents is a list of entries, unless it is marked up as a list already."""
    margin = min(len(line) - len(line.lstrip()) for line in lines)
    hanging = any(len(line) - len(line.lstrip()) > margin for line in lines)
    if not hanging or lines[0].lstrip().startswith(("* ", "- ")):
        return "\n".join(inline(line, name) for line in lines)
    entries = []
    for line in lines:
        deeper = len(line) - len(line.lstrip()) > margin
        entries.append(("  " if deeper else "- ") + inline(line.strip(), name))
    return "\n".join(entries)


def inline(line: str, name: str) -> str:
    """One line: code and links for backticks, a backslash before marks that are meant as they stand."""
    bullet = re.match(r"\s*[*] ", line)
    start = bullet.end() if bullet else 0

    def replace(part: re.Match) -> str:
        if part["mark"]:
            return "\\" + part["mark"]
        if part["emphasis"]:
            return part[0]
        after = f"\\ {part['after']}" if part["after"] else ""
        return _code(part["inside"], name) + after

    return line[:start] + _INLINE.sub(replace, line[start:])


def _code(inside: str, name: str) -> str:
    target = _defined(inside, name) if re.fullmatch(r"[A-Za-z_][\w.]*", inside) else None
    return f":py:obj:`{inside} <{target}>`" if target else f"``{inside}``"


def _defined(token: str, name: str) -> str | None:
    """Full name of what a docstring calls `token`, if this package defines it and documents it."""
    package, *parents = name.split(".")
    for depth in range(len(parents), -1, -1):
        place = ".".join([package, *parents[:depth], token])
        found = _find(place)
        if isinstance(found, ModuleType) and found.__name__.startswith(f"{package}."):
            return found.__name__
        if getattr(found, "__doc__", None) and str(getattr(found, "__module__", "")).startswith(package):
            return f"{found.__module__}.{found.__qualname__}" if hasattr(found, "__qualname__") else None
    return None


def _find(place: str):
    parts = place.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part, None)
        return found
    return None
