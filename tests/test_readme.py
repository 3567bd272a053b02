"""The README says what is there: notebooks, figures, files, commands, pictures."""

import json
import re

import pytest

from absence_utils.paths import NOTEBOOKS, ROOT

README = (ROOT / "README.md").read_text()
TABLE = [line for line in README.splitlines() if line.startswith("| [")]


@pytest.mark.parametrize("notebook", sorted(NOTEBOOKS.glob("[0-9]*.ipynb")), ids=lambda path: path.stem)
def test_every_notebook_has_a_row_with_its_figures_and_its_command(notebook):
    (row,) = [line for line in TABLE if f"(notebooks/{notebook.name})" in line]
    declared = json.loads(notebook.read_text())["metadata"]["companion"]["figures"]
    assert sorted(re.findall(r"`(\d\d_\w+)`", row)) == sorted(declared)
    assert f"absence_utils.run {notebook.stem}`" in row
    assert re.search(r"\| \d+ \|$", row), "the seconds it takes"


def test_no_row_without_a_notebook():
    assert len(TABLE) == len(list(NOTEBOOKS.glob("[0-9]*.ipynb")))


def test_links_and_pictures_resolve():
    targets = re.findall(r"\]\(([^)#]+)\)", README) + re.findall(r'(?:src|href)="([^"]+)"', README)
    missing = [path for path in targets if not path.startswith("http") and not (ROOT / path).exists()]
    assert not missing
    assert all(re.search(r'alt="[^"]{10,}"', tag) for tag in re.findall(r"<img[^>]*>", README))


def test_the_map_names_every_module_and_no_other():
    section = README.split("## Where things are")[1].split("\n## ")[0]
    scripts = {path.name for folder in ("data", "site") for path in (ROOT / folder).glob("*.py")}
    named = set(re.findall(r"(\w+\.py)", section)) - scripts
    assert named == {path.name for path in (ROOT / "absence_utils").glob("*.py")} - {"__init__.py"}
    plots = {path.stem for path in (ROOT / "absence_utils" / "plots").glob("*.py")} - {"__init__"}
    (line,) = [line for line in section.splitlines() if "absence_utils/plots" in line]
    assert plots <= set(re.findall(r"`(\w+)`", line))


def test_commands_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", README, re.DOTALL))
    assert {word for word in re.findall(r"\bmake ([a-z]+)", blocks)} <= targets
    for target in ("smoke", "lint", "lab", "clean"):
        assert f"`{target}`" in README and target in targets


def test_parameters_of_the_real_path_exist():
    blocks = re.findall(r"absence_utils\.run (\w+) --profile (\w+)(.*?)--out", README, re.DOTALL)
    assert blocks
    for name, profile, options in blocks:
        cells = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text())["cells"]
        tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
        source = "".join("".join(cell["source"]) for cell in tagged)
        for parameter in re.findall(r"-p (\w+)", options):
            assert re.search(rf"^{parameter} *=", source, re.MULTILINE), parameter
        assert (NOTEBOOKS / "profiles" / f"{name}.{profile}.yaml").is_file()


def test_versions_agree_with_the_lock():
    lock = (ROOT / "requirements.lock").read_text()
    for package in ("torch", "torchvision"):
        (version,) = set(re.findall(rf"\b{package}==([\d.]+\d)", README))
        assert f"\n{package}=={version}" in "\n" + lock
