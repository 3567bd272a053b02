"""Category trees from files: a CSV of two columns, or WordNet's `data.noun`."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from absence_utils.errors import InputError

HEADER = ["child", "parent"]


@dataclass(frozen=True)
class Tree:
    """Which category lies in which.

    Attributes:
        parents: node to the nodes right above it; a leaf is a class folder's name.
        titles: node to what a reader calls it, where that is another name.
    """

    parents: dict[str, tuple[str, ...]]
    titles: dict[str, str]

    def title(self, node: str) -> str:
        return self.titles.get(node, node)

    def above(self, node: str) -> set[str]:
        """All nodes above a node."""
        found, left = set(), list(self.parents.get(node, ()))
        while left:
            if (each := left.pop()) not in found:
                found.add(each)
                left += self.parents.get(each, ())
        return found


def read_tree(path: str | Path) -> Tree:
    """A category tree from a file.

    Args:
        path: a CSV with the header "child,parent" and a row for each node that has a parent (one parent each), or
            WordNet's `data.noun`, whose synsets are named n and the eight digits of their offset, as ImageNet's
            folders are, and may have several parents (hypernyms, also of instances).

    Raises:
        InputError: no such file, another form, a row that is not two names, a node with two parents, a cycle.
    """
    path = Path(path).expanduser()
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        problem = f"{str(path)!r} cannot be read ({type(error).__name__})"
        raise InputError("tree", problem, "Give a CSV of child,parent or WordNet's data.noun.") from error
    content = [line for line in lines if not line.startswith("  ")]  # WordNet's licence is indented
    tree = _wordnet(content) if content and content[0][:8].isdigit() else _two_columns(lines)
    _require_no_cycle(tree)
    return tree


def _two_columns(lines: list[str]) -> Tree:
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines)]
    if not rows or rows[0] != HEADER:
        raise InputError(
            "tree", "its first line is not child,parent", "Give these two columns, with a header."
        )
    parents: dict[str, tuple[str, ...]] = {}
    for number, row in enumerate(rows[1:], 2):
        if not row:
            continue
        if len(row) != 2 or not all(row):
            problem = f"line {number} is not a child and a parent"
            raise InputError("tree", problem, "Give two names in each line.")
        child, parent = row
        if parents.get(child, (parent,)) != (parent,):
            problem = f"{child!r} has two parents, {parents[child][0]!r} and {parent!r} (line {number})"
            raise InputError("tree", problem, "Keep one: a category's members are those of all below it.")
        parents[child] = (parent,)
    return Tree(parents, {})


def _wordnet(lines: list[str]) -> Tree:
    """offset, file, kind, number of words (hex), (word, id) each, number of pointers, (symbol, offset, kind, ends)."""
    parents, titles = {}, {}
    for line in lines:
        fields = line.split("|")[0].split()
        try:
            node, words = f"n{fields[0]}", int(fields[3], 16)
            titles[node] = fields[4].replace("_", " ")
            after = 4 + 2 * words
            pointers = [fields[after + 1 + 4 * number :][:4] for number in range(int(fields[after]))]
            parents[node] = tuple(f"n{offset}" for symbol, offset, *_ in pointers if symbol in ("@", "@i"))
        except (IndexError, ValueError) as error:
            problem = f"{line[:40]!r} is no line of WordNet's data.noun"
            raise InputError("tree", problem, "Give the file as WordNet distributes it.") from error
    return Tree(parents, titles)


def _require_no_cycle(tree: Tree) -> None:
    for node in tree.parents:
        if node in tree.above(node):
            raise InputError("tree", f"{node!r} lies in itself", "Remove the row that closes the circle.")
