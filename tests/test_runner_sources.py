"""What a notebook depends on: what it imports, however it says so, and nothing else."""

import ast
import json
import subprocess
import sys

import pytest

from absence_utils.paths import NOTEBOOKS, ROOT
from absence_utils.runner.run import all_notebooks, find_notebook
from absence_utils.runner.sources import module_sources, notebook_sources

SHARD = NOTEBOOKS / "shards" / "mine_shard.ipynb"
SOURCES = {path.stem[:2]: notebook_sources(path) for path in all_notebooks()} | {
    "shards": notebook_sources(SHARD)
}
ALL = set(SOURCES)


def rerun_by(file: str) -> set[str]:
    """Notebooks that depend on a file of the package."""
    return {name for name, files in SOURCES.items() if f"absence_utils/{file}" in files}


@pytest.mark.parametrize(
    "file, notebooks",
    [
        ("units.py", ALL),
        ("runner/record.py", ALL),
        ("runner/run.py", ALL),
        ("toys/motion.py", {"01"}),
        ("plots/your_model.py", {"10"}),
        ("your_model/templates/style.css", {"10"}),
        ("your_model/templates/card.html.j2", {"10"}),
        ("debias/study.py", {"08"}),
        ("runner/compare.py", set()),
        ("runner/tolerances.py", set()),
        ("runner/report.py", set()),
    ],
)
def test_a_change_reruns_what_imports_the_file_and_nothing_else(file, notebooks):
    assert (ROOT / "absence_utils" / file).is_file()
    assert rerun_by(file) == notebooks


def test_a_package_leads_to_what_is_read_from_it_and_to_all_of_it_where_it_is_used_otherwise(tmp_path):
    def sources(code: str) -> set[str]:
        path = tmp_path / "a.ipynb"
        path.write_text(json.dumps({"cells": [{"cell_type": "code", "source": [code]}]}))
        return {it.removeprefix("absence_utils/toys/") for it in notebook_sources(path) if "/toys/" in it}

    few, all_of_them = (
        {"__init__.py", "motion.py"},
        {path.name for path in (ROOT / "absence_utils/toys").glob("*.py")},
    )
    assert sources("from absence_utils import toys\ntoys.motion_sequences(5, 12)") == few < all_of_them
    assert sources("import absence_utils.toys as t\nt.motion_sequences(5, 12)") == few
    assert sources("from absence_utils import toys\ntoys.motion_sequences(toys)") == all_of_them
    assert sources("from absence_utils import toys") == all_of_them


def test_no_exercise_reruns_a_notebook_and_no_figure_a_shard():
    assert not [file for files in SOURCES.values() for file in files if "/exercises/" in file]
    assert not [file for file in SOURCES["shards"] if "/plots/" in file]
    assert "absence_utils/patches/mining.py" in SOURCES["shards"]
    assert "absence_utils/patches/storage.py" in module_sources(["absence_utils.patches.shards"])


@pytest.fixture
def sources(tmp_path):
    """A small package, and the files behind code that imports from it, without those of the runner."""
    lazy = "import lazy_loader as lazy\n__getattr__, _, _ = lazy.attach(__name__, submod_attrs={'deep': ['f']})\n"
    files = {
        "__init__": lazy.replace("deep", "low"),
        "run": "",
        "errors": "",
        "low/__init__": lazy,
        "low/deep": "from ..errors import E\ndef f():\n    import absence_utils.high.one\n",
        "low/other": "import os",
        "high/__init__": "CONSTANT = 1",
        "high/one": "from . import two",
        "high/two": "from .templating import page",
        "high/templating": "page = 'templates/page'",
        "high/templates/page": "<html>",
        "apart": "",
    }
    for name, text in files.items():
        path = tmp_path / "absence_utils" / (name if "templates" in name else f"{name}.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def found(code):
        cells = [{"cell_type": "markdown", "source": "# no code"}, {"cell_type": "code", "source": [code]}]
        (tmp_path / "a.ipynb").write_text(json.dumps({"cells": cells}))
        paths = notebook_sources(tmp_path / "a.ipynb", tmp_path)
        return {path.removeprefix("absence_utils/") for path in paths} - {"__init__.py", "run.py"}

    return found


HIGH = {
    "high/__init__.py",
    "high/one.py",
    "high/two.py",
    "high/templating.py",
    "high/templates/page",
}
DEEP = {"low/__init__.py", "low/deep.py", "errors.py", *HIGH}


@pytest.mark.parametrize(
    "code, files",
    [
        ("import numpy", set()),
        ("import absence_utils.errors", {"errors.py"}),
        ("from absence_utils.errors import E as F", {"errors.py"}),
        ("from absence_utils import errors", {"errors.py"}),
        ("from absence_utils.high import CONSTANT", {"high/__init__.py"}),
        (
            "if 1:\n    from absence_utils.high.one import x",
            HIGH,
        ),  # .two, its import, and the templates beside it
        ("from absence_utils.low import f", DEEP),  # through the lazy name, and an import inside a function
        ("from absence_utils import f", DEEP),  # through two of them
        ("from absence_utils import low", DEEP | {"low/other.py"}),  # whoever has the package has all of it
    ],
)
def test_imports_are_followed_whatever_their_form(sources, code, files):
    assert sources(code) == files


@pytest.mark.slow
def test_what_a_notebook_really_loads_is_among_its_sources():
    """The import statements of notebook 03, run in a fresh interpreter."""
    cells = json.loads(find_notebook("03").read_text())["cells"]
    tree = ast.parse("\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"))
    imports = [ast.unparse(node) for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    tell = "import sys; print(*[m.__file__ for n, m in sys.modules.items() if n.startswith('absence_utils')])"
    command = [sys.executable, "-c", "\n".join([*imports, tell])]
    loaded = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert loaded and {path.removeprefix(f"{ROOT}/") for path in loaded} <= set(SOURCES["03"])
