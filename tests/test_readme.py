"""README and docs lead somewhere: links, commands, notebooks, profiles, packages."""

import json
import re

import pandas as pd
import pytest

from absence_utils.paths import DATA, NOTEBOOKS, ROOT
from absence_utils.runner.parameters import PARAMETER_TAGS

README = (ROOT / "README.md").read_text()
TABLE = [line for line in README.splitlines() if line.startswith("| [") and "absence_utils.run" in line]
TEXTS = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), NOTEBOOKS / "exercises" / "README.md"]


@pytest.mark.parametrize("notebook", sorted(NOTEBOOKS.glob("[0-9]*.ipynb")), ids=lambda path: path.stem)
def test_every_notebook_has_a_row_with_its_figures_its_command_and_its_seconds(notebook):
    (row,) = [line for line in TABLE if f"(notebooks/{notebook.name})" in line]
    declared = json.loads(notebook.read_text())["metadata"]["companion"]["figures"]
    assert sorted(re.findall(r"`(\d\d_\w+)`", row)) == sorted(declared)
    assert f"absence_utils.run {notebook.stem}`" in row
    measured = pd.read_csv(DATA / "measured" / "notebook_seconds.csv").set_index("notebook").seconds
    assert row.endswith(f"| {measured[notebook.stem]:.0f} |"), "run data/make_measured.py"


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_and_pictures_resolve(path):
    text = re.sub(r"```(?!\{).*?```|`[^`\n]+`", "", path.read_text(), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^()\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    targets += re.findall(r"^:file: (\S+)", text, re.MULTILINE)
    for target in targets:
        if not target.startswith(("http", "atlas/")):  # the atlas is made by notebook 10
            file, _, anchor = target.partition("#")
            assert (path.parent / file).exists(), target
            if anchor and file:
                headings = re.findall(r"^#+ (.+)", (path.parent / file).read_text(), re.MULTILINE)
                assert anchor in [re.sub(r"[^\w-]", "", h.lower().replace(" ", "-")) for h in headings]


def test_the_map_names_every_package_and_no_other():
    section = README.split("## Package map")[1].split("\n## ")[0]
    named = re.findall(r"\]\(absence_utils/([\w.]+)\)", section)
    there = {path.name for path in (ROOT / "absence_utils").glob("*/") if (path / "__init__.py").is_file()}
    there |= {path.name for path in (ROOT / "absence_utils").glob("*.py")} - {"__init__.py"}
    assert sorted(named) == sorted(there - {"exercises"})


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_name_targets_notebooks_profiles_and_parameters_that_exist(path):
    text = path.read_text()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = "\n".join(
        block or inline for block, inline in re.findall(r"```bash\n(.*?)```|`([^`\n]+)`", text, re.DOTALL)
    )
    assert set(re.findall(r"\bmake ([a-z]+)", code)) <= targets
    code = code.replace("\\\n", " ")
    for name, rest in re.findall(r"absence_utils\.run (\d\d\w*)(.*)", code):
        (notebook,) = NOTEBOOKS.glob(f"{name}*.ipynb")
        cells = json.loads(notebook.read_text())["cells"]
        tagged = [cell for cell in cells if PARAMETER_TAGS & set(cell["metadata"].get("tags", []))]
        source = "".join("".join(cell["source"]) for cell in tagged)
        for parameter in re.findall(r"-p (\w+)", rest):
            assert re.search(rf"^{parameter} *=", source, re.MULTILINE), parameter
        for profile in re.findall(r"--profile (\w+)", rest):
            assert (NOTEBOOKS / "profiles" / f"{notebook.stem}.{profile}.yaml").is_file()
    for profile in re.findall(r"PROFILE=(\w+)", code):
        assert list((NOTEBOOKS / "profiles").glob(f"*.{profile}.yaml")), profile


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_in_examples_work(path):
    blocks = re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)
    for line in re.findall(r"^from absence_utils.*", "\n".join(blocks), re.MULTILINE):
        exec(line, {})


def test_versions_agree_with_the_lock():
    lock = (ROOT / "requirements.lock").read_text()
    for package in ("torch", "torchvision"):
        (version,) = set(re.findall(rf"\b{package}==([\d.]+\d)", README))
        assert f"\n{package}=={version}" in "\n" + lock


def test_measured_numbers_say_how_they_were_measured():
    for path in (DATA / "measured").glob("*.csv"):
        table = pd.read_csv(path, dtype=str)
        for column in ("command", "machine", "date"):
            assert table[column].notna().all() and (table[column].str.len() > 5).all(), path.name
    numbers = pd.read_csv(DATA / "measured" / "numbers.csv")
    assert numbers.name.is_unique and numbers.unit.notna().all()


def test_the_opening_caption_says_what_was_confirmed():
    caption = README[README.index("*Four units of GoogLeNet") : README.index("## Quickstart")]
    manifest = json.loads((ROOT / "static" / "manifest.json").read_text())["files"]
    (facts,) = [entry["facts"] for entry in manifest if entry["path"] == "static/opening.png"]
    said = {int(unit): size for unit, size in re.findall(r"unit (\d+) \((−\d\.\d\d) sd\)", caption)}
    found = {
        unit: name.split("\n")[1].removesuffix(" sd")
        for unit, name in zip(facts["units"], facts["names"], strict=True)
        if name.startswith("silenced by")
    }
    assert said == found and len(found) == 2
    assert "dogs silence unit 192" in caption and facts["names"][1].startswith("silenced by: dog")
    assert "invertebrates unit 448" in caption and facts["names"][3].startswith("silenced by: invertebrate")


def test_the_page_of_pictures_says_what_the_networks_keep():
    page = (ROOT / "docs" / "pictures.md").read_text()
    said = re.findall(r"(GoogLeNet|ResNet-50|SqueezeNet|VGG-16)(?: keeps)?\s(\d+) to (\d+)%", page)
    said += re.findall(r"(GoogLeNet) keeps (\d+) to (\d+)% of", page)
    files = {
        "GoogLeNet": "googlenet",
        "ResNet-50": "resnet50",
        "SqueezeNet": "squeezenet1_0",
        "VGG-16": "vgg16",
    }
    manifest = json.loads((ROOT / "static" / "manifest.json").read_text())["files"]
    facts = {entry["path"]: entry["facts"] for entry in manifest}
    assert {name for name, _, _ in said} == set(files)
    for name, low, high in said:
        reached = facts[f"static/pictures_{files[name]}.png"][
            "free max, min, at one contrast max, min"
        ].values()
        shares = [100 * each[side + 2] / each[side] for each in reached for side in (0, 1)]
        assert (round(min(shares)), round(max(shares))) == (int(low), int(high)), name


def test_limits_say_what_the_conditional_minimum_missed():
    table = pd.read_csv(DATA / "measured" / "conditional_table.csv").set_index(["units", "veto planted"])
    text = " ".join((ROOT / "docs" / "limits.md").read_text().split())
    scenes, random = (
        table.loc[("rules of the scenes, evidence masks", "yes")],
        table.loc[("random weights", "no")],
    )
    assert (scenes["of"], scenes["of"] - scenes["called"]) == (6, 2) and "Two of six planted vetoes" in text
    assert (random["asked"], random["called"]) == (11, 0) and "none of eleven" in text
    assert f"up to {100 * (1 - 0.025 ** (1 / 11)):.0f}% open" in text


def test_the_caption_of_squeezenet_says_what_the_table_of_names_says():
    page = (ROOT / "docs" / "pictures.md").read_text()
    caption = page[page.index("*Four units of a late layer") : page.index("![GoogLeNet")]
    said = re.findall(r"(−\d\.\d\d)(?: sd)? \[(−\d\.\d\d), (−\d\.\d\d)\]", caption)
    table = pd.read_csv(DATA / "measured" / "naming_squeezenet.csv")
    signed = table[table["reading"] == "signed"].set_index("unit").loc[[0, 5, 9, 40]]
    assert signed["confirmed"].tolist() == [False, True, True, True]
    assert signed["name"].tolist()[1:] == ["canine", "dog", "dog"]
    shown = signed.loc[[5, 9, 40], ["absolute", "absolute_low", "absolute_high"]]
    assert [[f"{value:.2f}".replace("-", "−") for value in row] for row in shown.to_numpy()] == [
        list(numbers) for numbers in said
    ]
