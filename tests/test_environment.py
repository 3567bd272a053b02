"""pyproject.toml, requirements.lock and environment.yml agree, and what is installed is what they say."""

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from absence_utils.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
WANTED = [Requirement(line) for line in PROJECT["dependencies"] + EXTRAS["dev"] + EXTRAS["docs"]]
LOCK = (ROOT / "requirements.lock").read_text()
PINNED = [Requirement(line) for line in LOCK.splitlines() if line and not line.lstrip().startswith("#")]
CUDA = re.compile(r"nvidia|cuda|triton")


def pins(name: str) -> list[str]:
    """Versions that the lock has for a name; more than one where Pythons or platforms differ."""
    found = [pin for pin in PINNED if canonicalize_name(pin.name) == canonicalize_name(name)]
    return [str(pin.specifier).removeprefix("==") for pin in found]


@pytest.mark.parametrize("wanted", WANTED, ids=[wanted.name for wanted in WANTED])
def test_lock_has_every_dependency_within_its_range(wanted):
    assert pins(wanted.name)
    assert all(version in wanted.specifier for version in pins(wanted.name))


def test_lock_pins_exactly_and_names_no_place():
    assert all(re.fullmatch(r"==[^,*]+", str(pin.specifier)) and pin.url is None for pin in PINNED)
    assert not re.search(r"https?:|file:|index-url|find-links|^-", LOCK, re.MULTILINE)
    assert not re.search(r"(^|\s)(-c |-r |/)", re.sub(r"# +via.*|#   .*", "", LOCK))


def test_lock_leaves_the_cuda_libraries_to_torch():
    """So that with a CPU build of torch, which asks for none of them, none is installed."""
    assert not [pin.name for pin in PINNED if CUDA.search(pin.name)]


def test_every_dependency_of_a_pin_is_pinned_or_a_cuda_library_of_torch():
    here = {"extra": ""}
    for pin in PINNED:
        if pin.marker and not pin.marker.evaluate():
            continue
        for line in importlib.metadata.requires(pin.name) or []:
            needed = Requirement(line)
            if needed.marker and not needed.marker.evaluate(here):
                continue
            assert pins(needed.name) or pin.name == "torch" and CUDA.search(needed.name), (pin.name, line)


def test_python_versions_agree():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = next(line for line in environment["dependencies"] if str(line).startswith("python "))
    assert SpecifierSet(conda.removeprefix("python ")) == SpecifierSet(PROJECT["requires-python"])
    assert "{}.{}.{}".format(*sys.version_info[:3]) in SpecifierSet(PROJECT["requires-python"])


def test_conda_installs_the_same_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    packages = next(line["pip"] for line in environment["dependencies"] if isinstance(line, dict))
    assert packages == ["-r requirements.lock", "-e ."] and "pip" in environment["dependencies"]
    assert len(environment["dependencies"]) == 3  # anything else would be a second source of versions


@pytest.mark.parametrize("name", ["torch", "torchvision", "torch-lucent", "captum", "kornia", "numpy"])
def test_installed_is_what_is_pinned(name):
    """Above all torch, which lucent's old dependencies must not change."""
    assert Version(importlib.metadata.version(name)).base_version in pins(name)


def imported(path: Path) -> set[str]:
    """Names of the packages that a Python file or a notebook imports, also inside functions."""
    cells = (
        json.loads(path.read_text())["cells"] if path.suffix == ".ipynb" else [{"source": path.read_text()}]
    )
    code = ["".join(cell["source"]) for cell in cells if cell.get("cell_type", "code") == "code"]
    nodes = [node for source in code for node in ast.walk(ast.parse(source))]
    plain = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    return {name.split(".")[0] for name in plain} | {
        node.module.split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom) and not node.level
    }


def test_every_import_is_declared():
    """What comes along with another package today may be gone tomorrow."""
    ours, skipped = {"absence_utils"}, {".venv", ".git", "results", "shared", "work"}
    files = [
        it
        for suffix in ("*.py", "*.ipynb")
        for it in ROOT.rglob(suffix)
        if not skipped & {*it.relative_to(ROOT).parts}
    ]
    assert len(files) > 200
    ours |= {path.stem for path in files} | {path.parent.name for path in files}
    used = set().union(*map(imported, files)) - ours - sys.stdlib_module_names
    declared = {canonicalize_name(wanted.name) for wanted in WANTED}
    owners = importlib.metadata.packages_distributions()
    missing = {name for name in used if not declared & {canonicalize_name(it) for it in owners.get(name, [])}}
    assert missing == set(), "declare them in pyproject.toml"
    assert {"torch", "numpy", "yaml"} <= used


@pytest.mark.slow
def test_installed_packages_fit_together():
    checked = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_package_is_installed_from_this_checkout():
    """Tests of one checkout with the package of another prove nothing."""
    import absence_utils

    assert Path(absence_utils.__file__).parents[1] == Path(__file__).resolve().parents[1]
    assert importlib.metadata.version("absence-utils") == PROJECT["version"] == absence_utils.__version__


def test_citation_names_this_version_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"] and citation["license"] == PROJECT["license"]
    assert citation["preferred-citation"]["identifiers"][0]["value"] == "arXiv:2603.09787"
