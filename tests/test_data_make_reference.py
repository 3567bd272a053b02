"""The scripts that take a run as reference: what they keep, what they refuse, what they say of moves and times."""

import json
import sys

import pandas as pd
import pytest

from absence_utils.errors import InputError
from absence_utils.paths import DATA, ROOT
from absence_utils.runner.run import all_notebooks
from absence_utils.runner.tolerances import TableRule, Tolerance, Tolerances

sys.path.insert(0, str(DATA))
import make_measured  # noqa: E402
from make_reference import entry_of, makers, moved, reduced  # noqa: E402

COLUMNS = {
    "value": Tolerance(absolute=0.1, interval=("low", "high")),
    "low": Tolerance(reason="it follows from the value"),
    "high": Tolerance(reason="it follows from the value"),
    "noise": Tolerance(reason="it is a random draw"),
}
RULE = TableRule(("unit",), COLUMNS, rows="unit > 0")


def write(folder, text):
    folder.mkdir(exist_ok=True)
    (folder / "01_a.csv").write_text(text)
    return folder


def test_kept_are_the_rows_and_columns_that_are_compared_digit_by_digit(tmp_path):
    text = "unit,noise,value,low,high\n0,9,1.0,0,2\n1,8,0.100000001,,3e-05\n2,7,-0,0.50,\n"
    table = reduced("01_a", RULE, write(tmp_path, text) / "01_a.csv")
    kept = "unit,value,low,high\n1,0.100000001,,3e-05\n2,-0,0.50,\n"
    assert table.to_csv(index=False, lineterminator="\n") == kept


def test_a_column_without_a_tolerance_is_refused(tmp_path):
    text = "unit,noise,value,low,high,more\n1,8,0.1,0,1,1\n"
    with pytest.raises(InputError, match="01_a has columns without a tolerance: \\['more'\\]"):
        reduced("01_a", RULE, write(tmp_path, text) / "01_a.csv")


def test_moves_are_measured_row_by_row(tmp_path, capsys):
    old = write(
        tmp_path / "old", "unit,noise,value,low,high\n0,9,5,0,2\n1,8,2.0,0,3\n2,7,-4.0,0,1\n3,7,1.0,0,1\n"
    )
    new = write(
        tmp_path / "new", "unit,noise,value,low,high\n2,7,-5.0,0,1\n1,8,2.5,0,3\n3,7,-1.0,0,1\n0,9,9,0,2\n"
    )
    moved(Tolerances("default", {"01_a": RULE, "02_b": RULE}, {}), old, new)
    said = capsys.readouterr().out
    assert said.startswith("01_a: 3 of 3 rows\n") and "02_b" not in said
    (line,) = [line for line in said.splitlines() if line.split()[0] == "value"]
    assert line.split(maxsplit=1)[1] == "largest 2, or 2 of it; median 1; 1 of 3 signs"
    assert "high                             the same" in said


def test_every_table_has_a_notebook_and_a_record():
    made = makers()
    assert (
        made["08_differences"] == ("08_debiasing", "08_accuracy")
        and made["02_convergence"][1] == "02_convergence"
    )
    assert {notebook for notebook, _ in made.values()} == {path.stem for path in all_notebooks()}


def test_an_entry_says_where_the_file_is_and_how_large(tmp_path):
    entry = entry_of(DATA / "reference" / "tolerances.yaml", "a", "b", {"c": 1})
    assert entry["path"] == "data/reference/tolerances.yaml"
    assert entry["bytes"] == len((ROOT / entry["path"]).read_bytes()) and len(entry["sha256"]) == 64


def test_times_come_from_the_executed_notebooks(tmp_path):
    for number, path in enumerate(all_notebooks()):
        record = {"duration": 60.04 + number, "end_time": f"2026-01-{number + 1:02}T00:00:00+00:00"}
        (tmp_path / path.name).write_text(json.dumps({"metadata": {"papermill": record}}))
    table = make_measured.notebook_seconds(tmp_path)
    assert list(table.notebook) == [path.stem for path in all_notebooks()]
    assert (
        table.seconds[:2].tolist() == [60.0, 61.0]
        and table.minutes[0] == 1.0
        and table.date[1] == "2026-01-02"
    )
    assert set(pd.read_csv(DATA / "measured" / "notebook_seconds.csv")) == set(table)


def test_the_machine_is_told_in_words(monkeypatch):
    monkeypatch.setattr(make_measured.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(make_measured.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(make_measured.torch.cuda, "is_available", lambda: False)
    assert make_measured.machine() == "two cores of an x86-64 machine without a GPU"
    monkeypatch.setattr(make_measured.os, "cpu_count", lambda: 12)
    assert make_measured.machine().startswith("12 cores")


def test_seconds_go_into_the_rows_of_the_readme_and_nowhere_else():
    readme = "| [01_a](x) | `c` | 9 |\n| [02_b](y) | `d` | 12 |\n1 | 9 |\n"
    table = pd.DataFrame({"notebook": ["01_a", "02_b"], "seconds": [10.6, 12.2]})
    assert make_measured.with_seconds(readme, table) == readme.replace("`c` | 9", "`c` | 11")
