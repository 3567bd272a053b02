"""Which files of the package a notebook's results depend on, found by following its import statements.

The Snakefile runs a notebook again when one of them changes, and only then. It reads this module whenever it is
parsed, so nothing but the standard library is imported here.
"""

from __future__ import annotations

import ast
import json
from collections import Counter
from pathlib import Path

from absence_utils.paths import ROOT

PACKAGE, RUNNER = "absence_utils", "absence_utils.run"


def notebook_sources(notebook: Path | str, root: Path | str = ROOT) -> list[str]:
    """Files that a notebook imports, directly or not, and those of the runner that executes it.

    Args:
        notebook: path of the notebook.
        root: the checkout.

    Returns:
        Paths relative to `root`, in order; see `module_sources`.
    """
    cells = json.loads(Path(notebook).read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return module_sources([RUNNER, *_imported(ast.parse(code), PACKAGE)], root)


def module_sources(names: list[str], root: Path | str = ROOT) -> list[str]:
    """Files of the package behind dotted names, and behind whatever those import in turn.

    A name that a package loads lazily leads to the module it is defined in, a package imported as a whole to all of
    its modules. A module that speaks of templates depends on those beside it.
    """
    root, found, waiting = Path(root), set(), list(names)
    while waiting:
        for path in _files(waiting.pop(), root) - found:
            code, package = path.read_text(), ".".join(path.relative_to(root).parent.parts)
            waiting += _imported(ast.parse(code), package)
            found |= {path, *(path.parent.glob("templates/*") if "templates" in code else [])}
    return sorted(path.relative_to(root).as_posix() for path in found)


def _imported(tree: ast.Module, package: str) -> list[str]:
    """Dotted names in the import statements of a module of `package`: of `from a import b`, a.b.

    Of a name that is only ever read from, as `b` in `b.c(1)`, what is read: a.b.c. Where b is no package but a module,
    that leads to the same file.
    """
    bound = []  # the name that stands for a dotted name in the code, and that one
    shown = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "show"]
    # `show` draws for people, and no result
    drawing = {id(each) for node in shown for each in ast.walk(node)}
    names = []
    for node in ast.walk(tree):
        if id(node) in drawing:
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names if not alias.asname]
            bound += [(alias.asname, alias.name) for alias in node.names if alias.asname]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            bound += [(alias.asname or alias.name, f"{base}.{alias.name}") for alias in node.names]
    read = _read_from(tree)
    names += [f"{dotted}{end}" for short, dotted in bound for end in read.get(short, [""])]
    return [name for name in names if name.split(".")[0] == PACKAGE]


def _read_from(tree: ast.Module) -> dict[str, list[str]]:
    """What code reads from each name that it only ever reads from: ".c" and ".d" of b in `b.c(b.d)`, not in `f(b)`."""
    reads, uses = {}, Counter()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            uses[node.id] += 1
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            reads.setdefault(node.value.id, []).append(f".{node.attr}")
    return {name: sorted(set(found)) for name, found in reads.items() if len(found) == uses[name]}


def _files(name: str, root: Path) -> set[Path]:
    """Files that importing a dotted name loads: its module, and the `__init__` of every package above."""
    parts, found = name.split("."), set()
    for depth, part in enumerate(parts):
        place = root.joinpath(*parts[: depth + 1])
        if place.with_suffix(".py").is_file():
            return found | {place.with_suffix(".py")}
        if not (place / "__init__.py").is_file():  # neither module nor package: a name in the package above
            home = _lazy_names(place.parent / "__init__.py").get(part)
            return found | (_files(".".join([*parts[:depth], home, part]), root) if home else set())
        found.add(place / "__init__.py")
    return found | set(place.rglob("*.py"))


def _lazy_names(init: Path) -> dict[str, str]:
    """Where a package's `lazy.attach(..., submod_attrs={...})` finds its names, by name."""
    for node in ast.walk(ast.parse(init.read_text())):
        if isinstance(node, ast.keyword) and node.arg == "submod_attrs":
            return {name: home for home, names in ast.literal_eval(node.value).items() for name in names}
    return {}
