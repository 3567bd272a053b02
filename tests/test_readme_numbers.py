"""No number in README or site is typed: each comes from a file, and a stale one is found."""

import re
import shutil
import sys

import jinja2
import pandas as pd
import pytest

from absence_utils.errors import InputError
from absence_utils.paths import DATA, ROOT

sys.path.insert(0, str(ROOT / "site"))
from render import FOLDERS, README, TEMPLATE, main, parameter, readme, refilled, render, show  # noqa: E402

TEXTS = [TEMPLATE, *sorted((ROOT / "site" / "pages").glob("*.md"))]
NAMES = {
    r"SqueezeNet 1\.0|ResNet-50|VGG-19|ViT-B/16|X-ResNet-50": "networks",
    r"ICML 2026|ISIC 2020|Challenge 2020": "a conference and a collection of images",
    r"Python 3\.\d+ to 3\.\d+": "versions that pyproject.toml states, held together by tests/test_environment.py",
    r"\b0[1-9](-0[1-9]|( to | and |, )(0[1-9]|10))*\b|\(10\)": "notebooks by their number",
    r"\b([Aa]|[Aa]n|digit|of the) [38]\b|\"3\"": "the digits that notebook 03 is about",
}
ALLOWED = {
    "exit status is not 0": "an exit status",
    "channels 0, 5, 9, 40": "which channels the picture shows",
    "Scientific Data\n8:34, 2021; doi 10.34970/2020-ds01": "a citation that the licence asks for",
    "CC BY-NC 4.0": "the version of a licence",
    "beyond 95 % of random weights": "the level of the comparison, fixed in notebook 07",
    "exceed 0.05 sd": "scores.MIN_EFFECT, below which no effect counts",
    "finds 80 % of\n  the absences": "the threshold that the benchmark defines, see scenes_benchmark",
    "| 16 px |": "the paper's stride",
    "| 100 top images, all units |": "the paper's number of images",
    "X-ResNet-50, 224 px": "the paper's image size",
}


def without_what_may_have_digits(text: str) -> str:
    """A text without code, computed values, links, tags, headings, the table of parameters and names."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    text = re.sub(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", "", text, flags=re.DOTALL)
    text = re.sub(r"\| parameter \|.*?\n\n", "\n\n", text, flags=re.DOTALL)
    text = re.sub(r"`[^`\n]+`", "", text)
    text = re.sub(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\([^)]*\)|<[^<>]+>|https?://\S+", "", text)
    text = re.sub(r"^#+ .*$", "", text, flags=re.MULTILINE)
    for pattern in NAMES:
        text = re.sub(pattern, "", text)
    return text


def naked_numbers(text: str) -> list[str]:
    """Every digit that is left, each with what stands around it."""
    for phrase in ALLOWED:
        text = text.replace(phrase, "")
    text = without_what_may_have_digits(text)
    return [text[max(0, at.start() - 30) : at.end() + 20] for at in re.finditer(r"\d[\d.,]*", text)]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_no_number_is_typed(path):
    assert naked_numbers(path.read_text()) == []


@pytest.mark.parametrize(
    "typed",
    [
        "It reaches 97 % of them.",
        "It takes 5 minutes (01 to 08).",
        "| networks | 0.93 |",
        "see [the notebook](notebooks/03.ipynb), 12 of 13",
        "SqueezeNet 1.1",
        "{{ measured('a') }} of 90 pairs",
        "`x = 3` gives 4",
        "in 10 of 10 seeds",
        "a 30 % share",
    ],
)
def test_a_typed_number_is_found(typed):
    assert naked_numbers(typed)


@pytest.mark.parametrize(
    "fine",
    [
        "`-p steps 200` of ResNet-50, ICML 2026 (07)",
        "# 3 things\n\n```\nx = 1\n```\n",
        "{{ cell('a', 'b', 'share == 0.24') }} <img width='300'> [arXiv 2603.09787](https://arxiv.org/abs/2603.09787)",
        "notebooks 04 to 07, five seeds: a 3 is an 8",
        "{% set size = 224 %}{# 12 #}",
    ],
)
def test_what_may_have_digits_passes(fine):
    assert naked_numbers(fine) == []


def test_every_exception_is_still_needed():
    everything = "\n".join(path.read_text() for path in TEXTS)
    assert [phrase for phrase in ALLOWED if phrase not in everything] == []
    assert [pattern for pattern in NAMES if not re.search(pattern, everything)] == []


def test_readme_is_the_rendering_of_its_template():
    assert README.read_text() == readme(), "run `make readme`"


@pytest.mark.parametrize(
    "table, column, row, value",
    [
        ("08_accuracy", "accuracy", "rule == 'biased' and set == 'inverse-biased'", 0.123),
        ("07_verdicts", "absence", "network == 'this network'", 9.0),
        ("09_leaderboard_five_seeds", "mean", "score == 'AUROC' and method == 'minimisation'", 0.11),
        ("numbers", "value", "name == 'test_minutes'", 77),
        ("notebook_seconds", "seconds", "notebook.str.startswith('03')", 987),
        ("mining_cost", "seconds_an_image", "network == 'VGG-19'", 5.5),
    ],
)
def test_a_stale_number_is_found(tmp_path, table, column, row, value):
    """Another value in a file, and README is no longer its rendering."""
    folders = [shutil.copytree(folder, tmp_path / folder.name) for folder in FOLDERS]
    (path,) = [folder / f"{table}.csv" for folder in folders if (folder / f"{table}.csv").is_file()]
    assert readme(folders) == README.read_text()
    content = pd.read_csv(path)
    content.loc[content.query(row).index, column] = value
    content.to_csv(path, index=False)
    assert readme(folders) != README.read_text()


TABLES = {
    "a": "name,kind,value\nfirst,x,0.125\nsecond,x,0.5\nthird,y,-1234\n",
    "b": "kind,value,low,high,n\nx,0.5,0.2,0.8,1200\n",
    "numbers": "name,value\nminutes,7\n",
    "notebook_seconds": "notebook,seconds\n06_patches,13.6\n",
}


@pytest.fixture
def filled(tmp_path):
    for name, content in TABLES.items():
        (tmp_path / f"{name}.csv").write_text(content)
    return lambda text: render(text, [tmp_path])


@pytest.mark.parametrize(
    "text, said",
    [
        ('{{ cell("a", "value", "name == \'first\'") }}', "0.12"),
        ('{{ cell("a", "value", name="second", fmt=".0%") }}', "50 %"),
        ('{{ cell("a", "value", "value < 0", ",.0f") }}', "-1,234"),
        ('{{ cell("a", "name", kind="y") }}', "third"),
        ('{{ mean("a", "value", kind="x", fmt=".3f") }}', "0.312"),
        ('{{ lowest("a", "value", kind="x") }} {{ highest("a", "value") }}', "0.12 0.50"),
        ('{{ total("a", "value", kind="x", fmt=".3f") }}', "0.625"),
        ('{{ count("a", kind="x") }} {{ count("a", "value < -5000") }} {{ count("a") }}', "2 0 3"),
        ('{{ share("a", "value > 0.2", kind="x") }}', "50 %"),
        ('{{ measured("minutes") }} {{ seconds("06") }}', "7 14"),
        ('{% for row in rows("a") %}{{ show(row.value, "g") }};{% endfor %}', "0.125;0.5;-1234;"),
        ('{{ interval("b", "value", kind="x", fmt=".1f") }} {{ cell("b", "n") }}', "0.5 [0.2, 0.8] 1,200"),
        ('{{ interval("b", "value", fmt="points") }}', "50 [20, 80]"),
        ("no expression 1 %\n", "no expression 1 %\n"),
    ],
)  # fmt: skip
def test_functions_of_a_template(filled, text, said):
    assert filled(text) == said


@pytest.mark.parametrize(
    "text, problem",
    [
        ('{{ cell("c", "value") }}', "no table 'c'"),
        ('{{ interval("a", "value", name="first") }}', "no 'low'"),
        ('{{ cell("a", "valu") }}', "no 'valu'"),
        ('{{ cell("a", "value", nam="first") }}', "no 'nam'"),
        ('{{ cell("a", "value", kind="x") }}', "2 rows of a"),
        ('{{ cell("a", "value", name="fourth") }}', "no row of a"),
        ('{{ cell("a", "value", "nam == 1") }}', "is no query"),
        ('{{ mean("a", "value", kind="z") }}', "no row of a"),
        ('{{ share("a", "value > 0", kind="z") }}', "no row of a"),
        ('{{ measured("hours") }}', "no row of numbers"),
        ('{{ parameter("06", "strid") }}', "no 'strid'"),
        ('{{ parameter("06", "stride", "nothing") }}', "no profile"),
    ],
)
def test_what_is_not_there_is_an_error(filled, text, problem):
    with pytest.raises(InputError, match=problem):
        filled(text)


def test_an_undefined_name_is_an_error(filled):
    with pytest.raises(jinja2.UndefinedError):
        filled("{{ reslt }}")
    with pytest.raises(jinja2.UndefinedError):
        filled('{% for row in rows("a") %}{{ row.valu }}{% endfor %}')


def test_a_table_in_two_places_is_an_error(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.csv").write_text(TABLES["a"])
    with pytest.raises(InputError, match="more than one table"):
        render('{{ count("a") }}', [tmp_path / "one", tmp_path / "two"])


def test_parameters_are_those_of_the_profile():
    assert parameter("06", "stride") == 8 and parameter("06_extreme_patches", "stride", "imagenet") == 24


def test_values_in_a_format():
    assert show(0.975, ".0%") == "98 %" and show("crops", ".2f") == "crops" and show(-3.14159) == "-3.14"
    assert show(2048) == "2,048" and show(2048.0) == "2048.00" and show(-0.123, "points") == "-12"


def test_paragraphs_are_broken_anew_and_nothing_else():
    text = "One\ntwo.\n\n- item\n  goes on\n- next\n\n  inside\n  it\n\n| a |\n|---|\n```\nx\ny\n```\n# A\nlast\n"
    assert refilled(text) == (
        "One two.\n\n- item goes on\n- next\n\n  inside it\n\n| a |\n|---|\n```\nx\ny\n```\n# A\nlast\n"
    )
    long = "- " + "word " * 60
    assert refilled(long + "\n").splitlines() == refilled(refilled(long + "\n")).splitlines()
    for whole in ("`code of words`", "[3, 14]", "66 %"):
        assert refilled("a " * 59 + f"{whole}\n").splitlines()[1] == whole
    assert all(len(line) <= 120 and line[:2] in ("- ", "  ") for line in refilled(long).splitlines())


def test_a_template_that_is_wrong_leaves_the_readme_alone(monkeypatch, tmp_path, capsys):
    import render as module

    template, readme = tmp_path / "a.md", tmp_path / "README.md"
    monkeypatch.setattr(module, "TEMPLATE", template)
    monkeypatch.setattr(module, "README", readme)
    readme.write_text("before")
    template.write_text('{{ cell("nowhere", "value") }}')
    assert (
        main() == 1 and readme.read_text() == "before" and "error: a.md: `table`" in capsys.readouterr().err
    )
    template.write_text("after {{ 1 + 1 }}\n")
    assert main() == 0 and readme.read_text() == "after 2\n"


def test_measured_numbers_say_how_they_were_measured():
    for path in (DATA / "measured").glob("*.csv"):
        table = pd.read_csv(path)
        for column in ("command", "machine", "date"):
            assert table[column].notna().all() and (table[column].str.len() > 5).all(), path.name
        assert table.date.str.fullmatch(r"\d{4}-\d\d-\d\d").all()
        assert (
            not table.astype(str)
            .apply(lambda column: column.str.contains(r"/root|/work|/home|@"))
            .any()
            .any()
        )
    numbers = pd.read_csv(DATA / "measured" / "numbers.csv")
    assert numbers.name.is_unique and numbers.unit.notna().all()
