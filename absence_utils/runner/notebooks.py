"""Notebooks as files: which there are, and what each declares to make in its metadata."""

from __future__ import annotations

import os
import re
from pathlib import Path

import nbformat

from absence_utils.errors import InputError, require_choice
from absence_utils.paths import NOTEBOOKS

from .parameters import first_line


def all_notebooks(folder: Path = NOTEBOOKS) -> list[Path]:
    """The numbered notebooks of a folder, in order."""
    return sorted(folder.glob("[0-9]*.ipynb"))


def find_notebook(text: str, folder: Path = NOTEBOOKS) -> Path:
    """Notebook by path, by name (`06_extreme_patches`) or by number (`06`, `6`).

    Raises:
        InputError: no such notebook; lists those that exist.
    """
    if text.endswith(".ipynb") and os.path.isfile(text):  # no error for what is no path
        return Path(text)
    for path in all_notebooks(folder):
        if text in (path.stem, path.name) or text.isdecimal() and int(text) == int(path.stem.split("_")[0]):
            return path
    require_choice("notebook", text, [path.stem for path in all_notebooks(folder)])


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """Notebook of format 4.5, where every cell has an id."""
    try:
        notebook = nbformat.v4.upgrade(nbformat.read(path, as_version=4))
        nbformat.validate(notebook)
        return notebook
    except Exception as error:  # nbformat raises many kinds
        problem = f"{path} cannot be read: {first_line(error)}"
        raise InputError("notebook", problem, "Is it a notebook?") from None


def declared_figures(notebook: nbformat.NotebookNode) -> list[str]:
    """Names of the figures a notebook makes, from its metadata.

    Raises:
        InputError: the metadata says nothing about figures.
    """
    figures = notebook.metadata.get("companion", {}).get("figures")
    if not isinstance(figures, list):
        remedy = 'Add "companion": {"figures": ["NN_name"]} to its metadata.'
        raise InputError("notebook", "it does not declare its figures", remedy)
    return list(figures)


def declared_files(notebook: nbformat.NotebookNode) -> list[str]:
    """Names of the files a notebook makes beside its figures, from its metadata; most make none.

    A name may lie in a folder of its own, "10_atlas/index.html"; that folder is replaced as a whole.

    Raises:
        InputError: a name is not that of a file in the output folder, or is that of a picture.
    """
    files = notebook.metadata.get("companion", {}).get("files", [])
    for name in files if isinstance(files, list) else [None]:
        plain = isinstance(name, str) and re.fullmatch(r"(\w[\w-]*/)?\w[\w.-]*", name)
        if not plain or name.endswith((".png", ".ipynb")):
            remedy = 'Write "files": ["name.suffix"] in its metadata; pictures belong in "figures".'
            raise InputError("notebook", f"it declares the file {name!r}", remedy)
    return list(files)
