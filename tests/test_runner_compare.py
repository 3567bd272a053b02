"""Numbers against the reference: what moved is found, what did not is not, and the report says so."""

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from absence_utils.errors import InputError
from absence_utils.paths import ROOT
from absence_utils.runner import compare
from absence_utils.runner.compare import compare_numbers

TABLE = pd.DataFrame(
    {
        "unit": [0, 1, 2, 0, 1, 2],
        "side": ["highest"] * 3 + ["lowest"] * 3,
        "response": [10.0, 20.0, 30.0, -1.0, -2.0, 0.01],
        "n": [5, 6, 7, 8, 9, 10],
        "verdict": ["yes", "no", "yes", "no", "no", "yes"],
        "low": [9.0, 19.0, np.nan, -2.0, -3.0, -1.0],
        "high": [11.0, 21.0, np.nan, 0.0, -1.0, 1.0],
        "noise": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
    }
)
RULES = """
profile: default
left_out:
  01_list: a list of names
tables:
  01_table:
    key: [unit, side]
    columns:
      response: {absolute: 0.1, relative: 0.02, sign: kept}
      n: exact
      verdict: exact
      low: {absolute: 0.1}
      high: {absolute: 0.1}
      noise: not compared because it is one random draw
    conclusions:
      - says: highest above lowest
        falls: response
        along: {side: [highest, lowest]}
      - says: lowest of unit 1 is negative
        where: {unit: 1, side: lowest}
        holds: {response: {below: 0}}
"""


@pytest.fixture
def folders(tmp_path):
    """Results and reference with the same table; returns a function that compares after a change of the results."""
    results, reference = tmp_path / "default", tmp_path / "reference"
    for folder in (results, reference):
        folder.mkdir()
        TABLE.to_csv(folder / "01_table.csv", index=False)
    (results / "01_table.json").write_text(json.dumps({"profile": "default"}))
    (reference / "tolerances.yaml").write_text(RULES)

    def after(change=None, rules=None):
        if rules:
            (reference / "tolerances.yaml").write_text(rules)
        if change:
            table = TABLE.copy()
            changed = change(table)
            (table if changed is None else changed).to_csv(results / "01_table.csv", index=False)
        return compare_numbers(results, reference)

    after.results, after.reference = results, reference
    return after


def put(row, column, value):
    """A change of one value."""

    def change(table):
        table[column] = table[column].astype(object)
        table.loc[row, column] = value

    return change


def problems(report):
    (found,) = report.problems.values()
    return found


def within(report):
    return (report.values.used <= 1).sum()


def beyond(report):
    """Row, column, old and new of each value beyond its tolerance."""
    return report.values[report.values.beyond][["row", "column", "reference", "here"]].to_numpy().tolist()


def test_the_same_numbers_are_within_tolerance(folders):
    report = folders()
    assert report.ok and len(report.values) == within(report) == 5 * len(TABLE)
    assert re.search(r"01_table +\| 30 +\| 30 +\| nothing +\|", report.markdown())
    assert "Nothing moved beyond what is allowed: 30 of 30 values" in report.markdown()


@pytest.mark.parametrize("value, inside", [(20.39, True), (20.41, False), (19.61, True), (19.59, False)])
def test_relative_tolerance(folders, value, inside):
    report = folders(put(1, "response", value))
    assert report.ok is inside and within(report) == 30 - (not inside)
    (moved,) = report.values[report.values.used > 0].to_dict("records")
    assert [moved[name] for name in ("row", "column", "reference", "here")] == [
        "1, highest",
        "response",
        20.0,
        value,
    ]
    assert moved["used"] == pytest.approx(abs(value - 20) / 0.4)


@pytest.mark.parametrize("value, inside", [(-1.09, True), (-1.11, False)])
def test_absolute_tolerance_where_it_is_the_larger(folders, value, inside):
    assert folders(put(3, "response", value)).ok is inside


def test_a_flipped_sign_is_beyond_also_within_the_tolerance(folders):
    report = folders(put(5, "response", -0.01))
    assert not report.ok and beyond(report) == [["2, lowest", "response", 0.01, -0.01]]
    assert folders(put(5, "response", -0.01), RULES.replace(", sign: kept", "")).ok


def test_a_new_nan_and_a_lost_nan_are_beyond(folders):
    assert [row for row, *_ in beyond(folders(put(0, "response", np.nan)))] == ["0, highest"]
    assert [row for row, *_ in beyond(folders(put(2, "low", 1.0)))] == ["2, highest"]


def test_an_int_column_is_exact(folders):
    report = folders(put(4, "n", 10))
    assert beyond(report) == [["1, lowest", "n", 9, 10]] and set(
        report.values[report.values.beyond].tolerance
    ) == {"exact"}
    assert folders(lambda table: table.assign(n=table.n.astype(float))).ok, "3 and 3.0 are the same number"


def test_a_text_column_is_exact(folders):
    assert beyond(folders(put(0, "verdict", "no"))) == [["0, highest", "verdict", "yes", "no"]]


def test_text_where_a_number_was_is_beyond(folders):
    assert len(beyond(folders(put(0, "response", "none")))) >= 1


def test_a_column_that_is_not_compared_may_be_anything(folders):
    assert folders(lambda table: table.assign(noise=9.0)).ok


def test_rows_in_another_order_are_the_same(folders):
    assert folders(lambda table: table.sample(frac=1, random_state=0)).ok


def test_missing_new_and_repeated_rows(folders):
    report = folders(lambda table: table.drop(index=1))
    assert not report.ok and problems(report) == ["missing rows, 1 of 6: 1, highest"]
    assert len(report.values) == 25, "the others are compared all the same"
    report = folders(lambda table: table.assign(unit=[0, 1, 2, 0, 1, 3]))
    assert problems(report) == ["missing rows, 1 of 6: 2, lowest", "new rows, 1 of 6: 3, lowest"]
    report = folders(lambda table: table.assign(unit=[0, 1, 1, 0, 1, 2]))
    assert problems(report) == ["the key is not unique in the results: 1, highest"]


def test_changed_columns(folders):
    assert problems(folders(lambda table: table.drop(columns="n"))) == ["columns missing in the results: n"]
    report = folders(lambda table: table.assign(more=1))
    assert not report.ok and problems(report) == ["columns without a tolerance: more"]
    (folders.reference / "01_table.csv").write_text(TABLE.drop(columns="n").to_csv(index=False))
    assert problems(folders(lambda table: table)) == ["columns missing in the reference: n"]


def test_missing_and_extra_tables(folders):
    TABLE.to_csv(folders.results / "02_new.csv", index=False)
    TABLE.to_csv(folders.results / "01_list.csv", index=False)  # left out with a reason
    report = folders()
    assert not report.ok and report.extra == ["02_new"] and "02_new" in report.markdown()
    (folders.results / "01_table.csv").rename(folders.results / "02_new.csv")
    assert problems(folders()) == ["the table is missing in the results"]
    (folders.reference / "01_table.csv").unlink()
    assert problems(folders()) == ["the table is missing in the reference and in the results"]


def test_interval_of_the_reference(folders):
    rules = RULES.replace("absolute: 0.1, relative: 0.02, sign: kept", "interval: [low, high]")
    assert folders(put(0, "response", 10.9), rules).ok
    assert not folders(put(0, "response", 11.1), rules).ok and not folders(put(0, "response", 8.9), rules).ok
    assert not folders(put(2, "response", 30.5), rules).ok, "where no interval is stated there is no room"
    half = rules.replace("interval: [low, high]", "interval: [low, high], absolute: 0.5")
    assert folders(put(0, "response", 11.4), half).ok


def test_a_share_of_values_may_be_anything(folders):
    rules = RULES.replace("verdict: exact", "verdict: {absolute: 1.0, share: 0.8}")
    report = folders(put(0, "verdict", "no"), rules)
    assert report.ok and within(report) == 29 and "nothing" in report.markdown()
    change = lambda table: table.assign(verdict=["no", "no", "no", "no", "no", "yes"])  # noqa: E731
    report = folders(change, rules)
    assert not report.ok and len(beyond(report)) == 2


def test_some_rows_only(folders):
    rules = RULES.replace("key: [unit", "rows: {side: lowest}\n    key: [unit").split("    conclusions")[0]
    TABLE.iloc[3:].to_csv(folders.reference / "01_table.csv", index=False)
    assert folders(put(0, "response", 99.0), rules).ok
    assert not folders(put(3, "response", 99.0), rules).ok


def test_conclusions_are_checked_whatever_the_tolerances_say(folders):
    rules = RULES.replace("absolute: 0.1, relative: 0.02, sign: kept", "absolute: 1000.0")
    assert folders(put(4, "response", -1.0), rules).ok
    assert problems(folders(put(4, "response", 1.0), rules)) == [
        "no longer true: lowest of unit 1 is negative"
    ]
    report = folders(put(3, "response", 100.0), rules)
    assert not report.ok and problems(report) == ["no longer true: highest above lowest"]
    assert "no longer true: highest above lowest" in report.markdown()
    nowhere = rules.replace("unit: 1,", "unit: 7,")
    assert problems(folders(lambda table: table, nowhere)) == ["no longer true: lowest of unit 1 is negative"]


def test_the_report_names_row_values_and_tolerance(folders):
    said = folders(lambda table: table.assign(response=table.response + 7, n=0)).markdown()
    assert said.startswith("# Numbers against the reference\n\n**Not as the reference:")
    assert "Not as the reference: 1 of 1 tables differ (01_table); 18 of 30 values" in said
    rows = [line for line in said.split("## 01_table")[1].splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {6}, "five columns in every row"
    (row,) = [line for line in rows if "0, highest" in line and "response" in line]
    cells = ["0, highest", "response", "10", "17", "absolute 0.1, relative 0.02, sign kept"]
    assert [cell.strip() for cell in row.strip("|").split("|")] == cells


@pytest.mark.parametrize(
    "value, said",
    [
        (20.2, "response (1, highest): 20 -> 20.2, 50% of its tolerance"),
        (20.0001, "20 -> 20.0001, less than 1% of its tolerance"),
        (21.0, "20 -> 21, 250% of its tolerance"),
        (-20.0, "20 -> -20, many times its tolerance"),
    ],
)
def test_what_moved_most_is_told_also_within_its_tolerance(folders, value, said):
    assert said in folders(put(1, "response", value)).markdown()


def test_the_report_is_short(folders):
    many = pd.concat([TABLE.assign(unit=TABLE.unit + 3 * part) for part in range(20)])
    many.to_csv(folders.reference / "01_table.csv", index=False)
    report = folders(lambda _: many.assign(n=-1))
    assert "and 100 more values beyond their tolerance" in report.markdown()
    assert sum("exact" in line for line in report.markdown().splitlines()) == 20


def test_another_profile_is_refused(folders):
    (folders.results / "01_table.json").write_text(json.dumps({"profile": "smoke"}))
    with pytest.raises(InputError, match="profile 'smoke', the reference of 'default'"):
        folders()


def test_an_empty_folder_is_refused(folders, tmp_path):
    with pytest.raises(InputError, match="make figures"):
        compare_numbers(tmp_path / "nowhere", folders.reference)


def test_exit_status_and_markdown_file(folders, tmp_path, capsys):
    arguments = [str(folders.results), "--reference", str(folders.reference)]
    assert compare.main(arguments) == 0 and "Nothing moved" in capsys.readouterr().out
    TABLE.assign(n=0).to_csv(folders.results / "01_table.csv", index=False)
    page = tmp_path / "deep" / "report.md"
    assert compare.main([*arguments, "--markdown", str(page)]) == 1
    assert page.read_text().startswith("# Numbers") and "1 of 1 tables differ" in capsys.readouterr().out
    assert compare.main([str(tmp_path / "nowhere"), *arguments[1:]]) == 2
    assert "error: `results`" in capsys.readouterr().err


@pytest.mark.slow
def test_runs_as_a_module(folders):
    command = [sys.executable, "-m", "absence_utils.runner.compare", str(folders.results)]
    done = subprocess.run(
        [*command, "--reference", str(folders.reference)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
