"""The file of tolerances: what it may say, what it may not, and that every figure's table is in it."""

import json

import pandas as pd
import pytest
import yaml

from absence_utils.errors import InputError
from absence_utils.runner.compare import REFERENCE, TOLERANCES
from absence_utils.runner.run import all_notebooks, declared_figures, declared_files, read_notebook
from absence_utils.runner.tolerances import Tolerance, read_tolerances

RULES = read_tolerances(REFERENCE / TOLERANCES)
each = pytest.mark.parametrize("name", RULES.tables)


def written(tmp_path, column="exact", **table):
    table = {"key": ["unit"], "columns": {"value": column, "low": "exact", "high": "exact"}, **table}
    path = tmp_path / "tolerances.yaml"
    path.write_text(yaml.safe_dump({"profile": "default", "tables": {"01_a": table}}))
    return path


@pytest.mark.parametrize(
    "words, said",
    [
        ("exact", "exact"),
        ({"absolute": 0.1}, "absolute 0.1"),
        ({"relative": 0.05, "sign": "kept"}, "relative 0.05, sign kept"),
        ({"interval": ["low", "high"]}, "interval ['low', 'high']"),
        ({"absolute": 1, "share": 0.9}, "absolute 1.0, share 0.9"),
        ({"share": 0.9}, "exact, share 0.9"),
        ("not compared because it is a random draw", "reason it is a random draw"),
    ],
)
def test_every_form_is_read_and_said(tmp_path, words, said):
    assert read_tolerances(written(tmp_path, words)).tables["01_a"].columns["value"].described() == said


@pytest.mark.parametrize(
    "words",
    [
        "roughly",
        "not compared",
        "not compared because no",
        {"absolut": 1.0},
        {"absolute": 0},
        {"absolute": -1.0},
        {"relative": "1e-3"},  # YAML reads 1e-3 without a point as text
        {"absolute": True},
        {"share": 1.5, "absolute": 1.0},
        {"sign": "lost", "absolute": 1.0},
        {"interval": ["low"]},
        {"interval": ["low", "higher"]},
        {"absolute": float("inf")},
        3,
    ],
)
def test_what_says_nothing_is_refused(tmp_path, words):
    with pytest.raises(InputError, match="`tolerances`: tables, 01_a"):
        read_tolerances(written(tmp_path, words))


@pytest.mark.parametrize(
    "conclusion",
    [
        {"says": "a"},
        {"says": "a", "falls": "value"},
        {"says": "a", "holds": {"value": {"above": 0}}, "falls": "value", "along": {"unit": [1]}},
        {"says": "a", "falls": "value", "along": {"unit": [1], "low": [2]}},
        {"says": "a", "hold": {"value": {"above": 0}}},
        {"says": "a", "holds": {"value": {"above": 0}}, "along": {"unit": [1]}},
    ],
)
def test_a_conclusion_must_be_clear(tmp_path, conclusion):
    with pytest.raises(InputError, match="`tolerances`: tables, 01_a, conclusions, 0"):
        read_tolerances(written(tmp_path, conclusions=[conclusion]))


def test_an_unknown_word_of_the_file_or_of_a_table_is_refused(tmp_path):
    with pytest.raises(InputError, match="01_a, row: Extra inputs"):
        read_tolerances(written(tmp_path, row={"unit": 0}))
    path = written(tmp_path)
    path.write_text(path.read_text().replace("profile", "profil"))
    with pytest.raises(InputError, match="profile: Field required; profil: Extra"):
        read_tolerances(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere.yaml"):
        read_tolerances(tmp_path / "nowhere.yaml")


def test_room_by_hand():
    old = pd.DataFrame({"value": [10.0, -4.0], "low": [9.0, -5.0], "high": [12.0, float("nan")]})
    low, high = Tolerance(absolute=0.5, relative=0.1).room(old, "value")
    assert low.tolist() == [9.0, -4.5] and high.tolist() == [11.0, -3.5]
    low, high = Tolerance(absolute=0.5, interval=["low", "high"]).room(old, "value")
    assert low.tolist() == [8.5, -5.5] and high.tolist() == [12.5, -3.5]


@pytest.mark.parametrize(
    "words",
    [
        "value > 0",
        "@pd.eval('1')",
        {"value": "1 > 0; import os"},
        {"value": {"over": 0}},
        {"value": {"above": "0"}},
        {"value": {"above": True}},
        {"value": {"above": {"columns": [], "times": 2}}},
        {"value": {"above": {"columns": ["nowhere"]}}},
        {"nowhere": 1},
        {"value": {}},
        {"value": []},
        {"value": {"below": float("nan")}},
    ],
)
@pytest.mark.parametrize("place", ["rows", "where", "holds"])
def test_rows_are_said_in_a_closed_vocabulary(tmp_path, words, place):
    if words == {"value": "1 > 0; import os"}:  # a value that no row has: text is compared, never run
        words = {"nowhere": words["value"]}
    conclusion = {"says": "a", "holds": {"value": {"above": 0}}} | ({} if place == "rows" else {place: words})
    with pytest.raises(InputError, match="`tolerances`: tables, 01_a"):
        read_tolerances(
            written(tmp_path, conclusions=[conclusion], **({"rows": words} if place == "rows" else {}))
        )


def test_nothing_in_the_file_is_run(tmp_path):
    ran = tmp_path / "ran"
    attack = f"@pd.io.common.os.system('touch {ran}') == 0"
    for conclusion in ({"says": "a", "where": {"unit": attack}, "holds": {"value": attack}},
                       {"says": "a", "where": attack, "holds": attack}):  # fmt: skip
        try:
            (read,) = read_tolerances(written(tmp_path, conclusions=[conclusion])).tables["01_a"].conclusions
        except InputError:
            continue
        assert not read.is_true(pd.DataFrame({"unit": [1, 2], "value": [1.0, 2.0]}))
    assert not ran.exists()


TABLE = pd.DataFrame({"unit": ["a", "b", "c", "d"], "value": [-1.0, 0.0, 1.0, 2.0], "low": [0.0, 0.0, 0.0, 3.0],
                      "high": [9.0, -9.0, 0.5, 2.0], "seen": [True, False, True, True]})  # fmt: skip


@pytest.mark.parametrize(
    "words, rows",
    [
        ({}, "abcd"),
        ({"unit": "b"}, "b"),
        ({"unit": ["a", "d", "z"]}, "ad"),
        ({"seen": False}, "b"),
        ({"value": 1}, "c"),
        ({"value": {"above": 0}}, "cd"),
        ({"value": {"at least": 0, "below": 2}}, "bc"),
        ({"value": {"at most": 0.0}, "unit": {"is": ["a", "c"]}}, "a"),
        ({"value": {"above": {"columns": ["low", "high"]}}}, "c"),
        ({"value": {"at least": {"columns": ["low"], "times": 0.5, "plus": 0.5}}}, "cd"),
    ],
)
def test_conditions_against_a_loop_over_rows(tmp_path, words, rows):
    rule = read_tolerances(
        written(tmp_path, columns=dict.fromkeys(["value", "low", "high", "seen"], "exact"), rows=words)
    )
    assert "".join(rule.tables["01_a"].select(TABLE).unit) == rows


@pytest.mark.parametrize("share, true", [(0.75, True), (0.76, False), (None, False)])
def test_a_share_of_the_rows_may_be_enough(tmp_path, share, true):
    words = {"says": "a", "holds": {"value": {"at least": 0}}} | ({"share": share} if share else {})
    (conclusion,) = read_tolerances(written(tmp_path, conclusions=[words])).tables["01_a"].conclusions
    assert conclusion.is_true(TABLE) is true


def test_a_mean_must_fall_strictly(tmp_path):
    words = {"says": "a", "falls": "value", "along": {"unit": ["b", "a"]}}
    (conclusion,) = read_tolerances(written(tmp_path, conclusions=[words])).tables["01_a"].conclusions
    table = pd.DataFrame({"unit": ["a", "b", "b"], "value": [1.0, 1.0, 2.0]})
    assert conclusion.is_true(table)
    assert not conclusion.is_true(table.assign(value=1.0)), "equal is not below"
    assert not conclusion.is_true(table[table.unit == "b"]), "a value that is not there"


@pytest.mark.parametrize("notebook", all_notebooks(), ids=lambda path: path.stem)
def test_every_table_of_a_notebook_has_tolerances_or_a_reason(notebook):
    node = read_notebook(notebook)
    files = [name.removesuffix(".csv") for name in declared_files(node) if name.endswith(".csv")]
    known = {*RULES.tables, *RULES.left_out}
    assert {*declared_figures(node), *files} <= known, "add them to data/reference/tolerances.yaml"


def test_no_tolerances_for_a_table_that_no_notebook_makes():
    nodes = [read_notebook(path) for path in all_notebooks()]
    made = {name for node in nodes for name in declared_figures(node)}
    made |= {name.removesuffix(".csv") for node in nodes for name in declared_files(node)}
    assert set(RULES.tables) <= made
    assert all(len(reason) > 20 for reason in RULES.left_out.values())


@each
def test_the_reference_holds_what_is_compared_and_no_more(name):
    rule, table = RULES.tables[name], pd.read_csv(REFERENCE / f"{name}.csv")
    assert list(table) == [column for column in table if column in rule.kept] and set(table) == set(rule.kept)
    assert not table.duplicated(rule.key).any(), "the key says which row is which"
    assert len(rule.select(table)) == len(table)


@each
def test_every_conclusion_holds_in_the_reference_and_can_fail(name):
    rule, table = RULES.tables[name], pd.read_csv(REFERENCE / f"{name}.csv")
    numeric = table.select_dtypes("number").columns.difference(rule.key)
    for conclusion in rule.conclusions:
        assert conclusion.is_true(table), conclusion.says
        away = [table.assign(**{c: table[c] * 0 + value for c in numeric}) for value in (-1e9, 0, 1e9)]
        away += [table.assign(**{c: ~table[c] for c in table.select_dtypes("bool")})]
        words = table.columns.difference([*numeric, *rule.key])
        away += [table.assign(**dict.fromkeys(words, "something else"))]
        assert not all(conclusion.is_true(each) for each in away), conclusion.says


def test_the_reference_has_no_other_file():
    shipped = {path.stem for path in REFERENCE.glob("*.csv")}
    assert shipped <= {*RULES.tables, *RULES.left_out} and set(RULES.tables) <= shipped


def test_references_are_small():
    assert sum(path.stat().st_size for path in REFERENCE.iterdir()) < 1_500_000
    manifest = json.loads((REFERENCE.parent / "manifest.json").read_text())["files"]
    assert sum(entry["bytes"] for entry in manifest) < 20_000_000
