"""README and docs lead somewhere: links, commands, notebooks, profiles, packages."""

import json
import re

import pandas as pd
import pytest
from headlines import headline_numbers

from absence_utils.paths import DATA, NOTEBOOKS, ROOT
from absence_utils.runner.parameters import PARAMETER_TAGS

README = (ROOT / "README.md").read_text()
TEXTS = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), NOTEBOOKS / "exercises" / "README.md"]


FIGURES = README.split("## The figures")[1].split("\n## ")[0]
BOX = """**The method, two lines of code.** Whatever pulls a unit down is a concept whose absence it encodes:

```python
maps = attribute(unit, non_target_images)  # 1. on images that are not the unit's
minimum = minimise(absence(unit), unit)  # 2. minimise instead of maximise
```

Negative values of `maps` (blue) mark what pulls the unit down, and `minimum` shows it.
"""


@pytest.mark.parametrize("notebook", sorted(NOTEBOOKS.glob("[0-9]*.ipynb")), ids=lambda path: path.stem)
def test_every_notebook_has_a_row_with_its_number_its_picture_and_its_seconds(notebook):
    (row,) = [line for line in FIGURES.splitlines() if f"(notebooks/{notebook.name})" in line]
    _, claim, number, picture, seconds = [cell.strip() for cell in row.strip("|").split("|")]
    declared = json.loads(notebook.read_text())["metadata"]["companion"]["figures"]
    assert re.search(r'src="static/(\w+)\.png"', picture)[1] in declared and len(claim.split()) > 3
    assert number == headline_numbers()[notebook.stem[:2]], "run data/make_measured.py"
    measured = pd.read_csv(DATA / "measured" / "notebook_seconds.csv").set_index("notebook").seconds
    assert seconds == f"{measured[notebook.stem]:.0f}", "run data/make_measured.py"


def test_headline_numbers_follow_their_tables(tmp_path):
    """A table with other numbers gives another sentence."""
    for path in (DATA / "reference").glob("*.csv"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    rates = pd.read_csv(tmp_path / "03_removal.csv")
    rates.loc[(rates.share == 0.24) & (rates.treatment == "most negative"), "rate"] = 0.5
    rates.to_csv(tmp_path / "03_removal.csv", index=False)
    before, after = headline_numbers(), headline_numbers(tmp_path)
    assert {key for key in before if before[key] != after[key]} == {"03"} and "50%" in after["03"]


def test_the_page_fits_a_screen_and_shows_the_method_first():
    assert len(README.split()) <= 1400
    assert README.index(BOX) < README.index("## Quickstart")


def test_the_method_stands_in_the_same_words_wherever_it_is_shown():
    assert BOX in (ROOT / "docs" / "index.md").read_text()
    for number in ("04", "05"):
        (path,) = NOTEBOOKS.glob(f"{number}_*.ipynb")
        cells = ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"]]
        assert any(BOX.strip() in cell for cell in cells), path.stem


def test_every_figure_stands_beside_its_experiment():
    page = (ROOT / "docs" / "here_and_paper.md").read_text()
    named = re.findall(r"^\| `(\d\d_\w+)` \| (.+?) \|", page, re.MULTILINE)
    declared = [
        figure
        for path in sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
        for figure in json.loads(path.read_text())["metadata"]["companion"]["figures"]
    ]
    assert sorted(name for name, _ in named) == sorted(declared)


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
        source = "\n".join("".join(cell["source"]) for cell in tagged)
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
        page = (ROOT / "docs" / "run.md").read_text()
        (version,) = set(re.findall(rf"\b{package}==([\d.]+\d)", page))
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
    table = pd.read_csv(DATA / "measured" / "conditional_table.csv")
    counts = table.groupby(["units", "veto planted"])[["called", "asked"]].sum()
    limits, page = (
        " ".join((ROOT / "docs" / name).read_text().split()) for name in ("limits.md", "pictures.md")
    )
    called, asked = counts.loc[("rules of the scenes", "yes")]
    assert f"misses {asked - called} of {asked} planted vetoes" in limits
    called, asked = counts.loc[("random rules", "no")]
    assert f"calls {called} of {asked} rules without a veto" in limits
    called, asked = counts.loc[("random rules, A and B", "no")]
    assert f"and {called} of {asked} that ask for two presences" in limits
    assert f'"A and B", {called} of {asked}:' in page
    called, asked = counts.loc[("random weights", "no")]
    assert called == 0 and f"Of {asked} units with random weights" in limits
    assert f"None is called of {asked} asked" in page
    for text in (limits, page):
        assert f"{100 * (1 - 0.05 ** (1 / asked)):.0f}%" in text


def test_the_page_of_pictures_says_what_the_conditional_minimum_found():
    page = " ".join((ROOT / "docs" / "pictures.md").read_text().split())
    table = pd.read_csv(DATA / "measured" / "conditional_table.csv")
    table = table.set_index(["units", "veto planted", "networks"]).sort_index()
    found = {when: table.loc[("rules of the scenes", "yes", when)] for when in ("earlier", "new")}
    early, new = (f"{row['called']} of {row['asked']}" for row in found.values())
    assert f"planted vetoes {early} are found in the earlier networks and {new} in the new ones" in page
    others = table.loc[("rules of the scenes", "no")]
    assert others["called"].sum() == 0 and f"none is called, of {others['asked'].sum()} asked" in page
    random = table.loc[("random rules", "yes")]
    assert f"Of planted vetoes {random['called'].sum()} of {random['asked'].sum()} are found" in page
    random = table.loc[("random rules", "no", "new")]
    assert f"of the new rules without one {random['called']} of {random['asked']} are called" in page
    plain = table.loc[["additive units", "saturating units"]]
    new = plain.xs("new", level="networks")
    assert new["called"].sum() == 0 and f"none is called, of {new['asked'].sum()}." in page
    added, full = table.loc["additive units"], table.loc["saturating units"]
    assert -0.21 <= added["lowest"].min() and added["highest"].max() <= 0.21 and "within 0.21 sd" in page
    assert full["lowest"].min() > -0.31 and "above −0.31 sd" in page
    built = table.loc[("veto units", "yes", "new")]
    assert built["called"] == built["asked"] and f"All {built['asked']} new units built as a veto" in page


def test_the_page_of_pictures_says_why_vetoes_are_missed():
    page = " ".join((ROOT / "docs" / "pictures.md").read_text().split())
    table = pd.read_csv(DATA / "measured" / "conditional.csv")
    rules = table[(table["planted"] == "yes") & table["network"].str.match(r"rules/|concept_scenes")]
    missed = rules[~rules["veto"]]
    own, exact = missed[missed["mask"] == "evidence"], missed[missed["mask"] == "exact"]
    assert f"The {len(own)} that are missed" in page and len(own) == len(exact)
    low, high = own["pairs"].min(), own["pairs"].max()
    assert f"they are −{-high:.2f} to −{-low:.2f} sd" in page
    assert rules[rules["veto"]]["pairs"].median() > high - 0.2  # no weaker than those that are found
    held = 100 * own["held"]
    assert f"takes {held.min():.0f} to {held.max():.0f}% of an image" in page
    first, second = own["fitted_with"].max(), own["fitted_without"].min()
    assert f"(−{-first:.2f} sd and lower)" in page and f"(+{second:.2f} sd and more)" in page
    networks = table[table["network"].str.startswith("random rules")]["network"].nunique()
    assert f"{networks} of 40 networks on random rules" in page


def test_the_page_of_pictures_says_what_transfers_at_one_contrast():
    page = " ".join((ROOT / "docs" / "pictures.md").read_text().split())
    kept = {
        name: pd.read_csv(DATA / "measured" / f"{name}.csv").set_index(["poles_of", "scored on", "pole"])
        for name in ("transfer", "transfer_contrast")
    }
    own = [table.loc[("concept_scenes", "itself", "minimum"), "own"] for table in kept.values()]
    assert f"lie {-own[1]:.1f} sd below the blank, in place of {-own[0]:.1f}" in page
    seed = [table.loc[("concept_scenes", "another seed: same logit", "minimum")] for table in kept.values()]
    assert f"({seed[1]['kept']:.2f} in place of {seed[0]['kept']:.2f})" in page
    shapes = ("concept_scenes", "twin without absence: same logit", "minimum - minimum, scrambled")
    twin = [table.loc[shapes] for table in kept.values()]
    assert f"(−{-twin[1]['kept']:.2f} in place of {twin[0]['kept']:.2f})" in page
    for free, held in (seed, twin):  # "the same within the intervals"
        assert free["low"] < held["kept"] < free["high"] or held["low"] < free["kept"] < held["high"]


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
