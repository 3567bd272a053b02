"""The scripts that take a run as reference: what they keep, what they refuse, what they say of moves and times."""

import json

import make_measured
import make_reference
import manifest
import pandas as pd
import pytest
from make_reference import makers, moved, reduced

from absence_utils.errors import InputError
from absence_utils.files import file_hash
from absence_utils.paths import DATA
from absence_utils.runner.notebooks import all_notebooks
from absence_utils.runner.tolerances import TableRule, Tolerance, Tolerances

COLUMNS = {
    "value": Tolerance(absolute=0.1, interval=["low", "high"]),
    "low": Tolerance(reason="it follows from the value"),
    "high": Tolerance(reason="it follows from the value"),
    "noise": Tolerance(reason="it is a random draw"),
}
RULE = TableRule(key=["unit"], columns=COLUMNS, rows={"unit": {"above": 0}})
TABLES = Tolerances(profile="default", tables={"01_a": RULE})


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
    moved(Tolerances(profile="default", tables={"01_a": RULE, "02_b": RULE}), old, new)
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


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of one figure whose picture ships; returns its folder, the reference and static/."""
    results, data, static = tmp_path / "results", tmp_path / "data", tmp_path / "static"
    for folder in (results, data / "reference", static):
        folder.mkdir(parents=True)
    for folder in (data, static):
        (folder / "manifest.json").write_text('{"files": []}')
    (data / "reference" / "tolerances.yaml").write_text("")
    (static / "01_a.png").write_bytes(b"old picture")
    (static / "01_other.png").write_bytes(b"of something else")
    write(results, "unit,noise,value,low,high\n0,9,1.0,0,2\n1,8,2.0,0,3\n")
    (results / "01_a.png").write_bytes(b"new picture")
    record = {"profile": "default", "seed": 0, "threads": 1, "device": "cpu"}
    record["versions"] = {"python": "3", "torch": "2", "numpy": "2"}
    record["outputs"] = {name: file_hash(results / name) for name in ("01_a.png", "01_a.csv")}
    (results / "01_a.json").write_text(json.dumps(record))
    for module in (make_reference, manifest):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(make_reference, "DATA", data)
    monkeypatch.setattr(make_reference, "REFERENCE", data / "reference")
    monkeypatch.setattr(make_reference, "STATIC", static)
    monkeypatch.setattr(make_reference, "makers", lambda: {"01_a": ("01_x", "01_a")})
    return tmp_path


def test_numbers_and_picture_are_taken_together(run):
    make_reference.take(TABLES, run / "results")
    assert (run / "data" / "reference" / "01_a.csv").read_text() == "unit,value,low,high\n1,2.0,0,3\n"
    assert (run / "static" / "01_a.png").read_bytes() == b"new picture"
    assert (run / "static" / "01_other.png").read_bytes() == b"of something else"
    (entry,) = json.loads((run / "static" / "manifest.json").read_text())["files"]
    assert entry["path"] == "static/01_a.png" and entry["sha256"] == file_hash(run / "static" / "01_a.png")
    assert entry["facts"]["numbers_sha256"] == file_hash(run / entry["facts"]["numbers"])
    assert entry["facts"]["run_csv_sha256"] == file_hash(run / "results" / "01_a.csv")


@pytest.mark.parametrize("file", ["01_a.png", "01_a.csv"])
def test_a_picture_of_another_run_than_its_numbers_is_refused(run, file):
    with (run / "results" / file).open("a") as opened:
        opened.write("2,1,1.0,0,2\n")
    with pytest.raises(InputError, match=f"{file} is not of the run that 01_a.json records"):
        make_reference.take(TABLES, run / "results")
    assert (run / "static" / "01_a.png").read_bytes() == b"old picture"
    assert not (run / "data" / "reference" / "01_a.csv").exists(), "all or nothing"


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


def test_numbers_and_seconds_go_into_the_rows_of_the_readme_and_nowhere_else():
    row = "| [{0}](notebooks/{0}_a.ipynb) | claim {0} |{1}| <img> | {2} |\n"
    readme = row.format("01", " old ", 9) + row.format("02", "  ", 12) + "1 | 9 |\n"
    table = pd.DataFrame({"notebook": ["01_a", "02_a"], "seconds": [10.6, 12.2]})
    numbers = make_measured.headline_numbers()
    wanted = row.format("01", f" {numbers['01']} ", 11) + row.format("02", f" {numbers['02']} ", 12)
    assert make_measured.with_numbers(readme, table) == wanted + "1 | 9 |\n"


def test_the_seeds_of_the_green_pixel_are_measured_for_both_palettes_and_written(monkeypatch, tmp_path):
    asked = []

    def one_row(recipes, palette, seeds):
        asked.append((list(recipes), palette, list(seeds)))
        return pd.DataFrame({"palette": [palette], "accuracy": [1.0]})

    monkeypatch.setattr(make_measured, "convergence_over_seeds", one_row)
    table = make_measured.green_pixel_seeds(3)
    recipes = ["released", "released, other loss", "ours"]
    assert asked == [(recipes, palette, [0, 1, 2]) for palette in ("released", "harder")]
    assert (table["command"] == "python data/make_measured.py --green-pixel 3").all() and len(table) == 2
    assert table["machine"].str.contains(f"torch {make_measured.torch.__version__}", regex=False).all()
    shipped = pd.read_csv(DATA / "measured" / "green_pixel_seeds.csv")
    assert set(table) < set(shipped)
    make_measured.write_table(tmp_path / "table.csv", table)
    assert len(pd.read_csv(tmp_path / "table.csv")) == 2
