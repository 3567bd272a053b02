"""The record: what save_figure writes, that it is the same twice, and that a run starts the same twice."""

import json
import os
import random
import subprocess

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook

from absence_utils.errors import InputError
from absence_utils.progress import progress
from absence_utils.runner import record
from absence_utils.runner.parameters import notebook_parameters
from absence_utils.runner.run import all_notebooks


@pytest.fixture(autouse=True)
def out(tmp_path, monkeypatch):
    """Results go to a temporary folder, and no run is under way."""
    monkeypatch.setenv("ABSENCE_OUT", str(tmp_path / "out"))
    monkeypatch.setattr(record, "_current", None)
    for name in ("ABSENCE_NOTEBOOK", "ABSENCE_PROFILE", "TQDM_DISABLE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "out"


def draw():
    figure, axes = plt.subplots(figsize=(2, 1))
    axes.plot([1, 2])
    return figure


TABLE = pd.DataFrame({"unit": [0, 1], "response": [1 / 3, -2e-7], "mixed": ["a", 0.1 + 0.2]})


def test_picture_numbers_and_provenance_stand_side_by_side(out):
    assert record.save_figure(draw(), "00_a", TABLE) == out / "00_a.png"
    assert sorted(path.name for path in out.iterdir()) == ["00_a.csv", "00_a.json", "00_a.png"]
    assert b"Software" not in (out / "00_a.png").read_bytes()
    expected = "unit,response,mixed\n0,0.333333333,a\n1,-2e-07,0.3\n"
    assert (out / "00_a.csv").read_text() == expected


def test_index_is_written_where_it_says_something(out):
    record.save_figure(draw(), "00_a", TABLE.set_index("unit")[["response"]])
    assert (out / "00_a.csv").read_text().startswith("unit,response\n0,")


def test_two_runs_are_byte_identical_but_for_the_time(out):
    contents = []
    for _ in range(2):
        record.start_run("00_x", {"k": 3}, seed=1, device="cpu")
        record.save_figure(draw(), "00_a", pd.DataFrame({"x": torch.randn(3).numpy()}))
        read = {path.name: path.read_bytes() for path in out.iterdir()}
        provenance = json.loads(read.pop("00_a.json"))
        provenance.pop("time")
        contents.append((read, provenance))
    assert contents[0] == contents[1]
    assert len(contents[0][0]) == 2


def test_float32_survives_the_csv(out):
    values = torch.randn(100, generator=torch.Generator().manual_seed(0)).numpy()
    record.save_figure(draw(), "00_a", pd.DataFrame({"x": values}))
    assert (pd.read_csv(out / "00_a.csv")["x"].to_numpy(np.float32) == values).all()


def test_provenance_says_what_was_run_but_not_on_whose_machine(out, tmp_path, monkeypatch):
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"abc")
    monkeypatch.setenv("ABSENCE_PROFILE", "smoke")
    namespace = {
        "k": 8,
        "units": [0, 1],
        "images": str(tmp_path / "val"),
        "_i": 1,
        "In": [],
        "net": torch.nn.ReLU(),
    }
    record.start_run("06_x", namespace, seed=3, device="cpu")
    record.save_figure(draw(), "06_a", TABLE, {"images": "fingerprint", "weights": weights})
    text = (out / "06_a.json").read_text()
    found = json.loads(text)
    assert str(tmp_path) not in text and str(record.ROOT) not in text
    assert found["parameters"] == {"images": f".../{tmp_path.name}/val", "k": 8, "units": [0, 1]}
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # "abc", FIPS 180-2
    assert found["inputs"] == {"images": "fingerprint", "weights": sha256}
    assert (found["notebook"], found["profile"], found["seed"], found["threads"]) == ("06_x", "smoke", 3, 1)
    assert found["device"].startswith("cpu") and found["versions"]["torch"] == torch.__version__.split("+")[0]
    assert found["outputs"]["06_a.csv"] == record.file_hash(out / "06_a.csv")


def notebook_with_parameters(folder, name, code):
    cells = [new_code_cell(code, metadata={"tags": ["parameters"]}), new_code_cell("import this")]
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells), folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"


def test_recorded_are_the_names_of_the_parameters_cell_alone(tmp_path, monkeypatch):
    """Not constants that the notebook imports, nor what another notebook left behind in the same kernel."""
    monkeypatch.setattr(record, "NOTEBOOKS", tmp_path)
    notebook_with_parameters(tmp_path, "00_first", "k = 1\nseed = 0")
    notebook_with_parameters(tmp_path / "shards", "00_second", "units = [\n    0,\n]  # channels\nseed = 0")
    kernel = {"__name__": "__main__", "In": ["k = 1"], "k": 5, "seed": 0, "METHODS": ["a"], "stale": 1}
    assert record.start_run("00_first", kernel, device="cpu").parameters == {"k": 5, "seed": 0}
    kernel |= {"units": [7], "OBJECTIVES": {"none": 0}}
    assert record.start_run("00_second", kernel, device="cpu").parameters == {"seed": 0, "units": [7]}


@pytest.mark.parametrize("place", ["the current folder", "where the runner found it"])
def test_a_notebook_of_ones_own_is_found(tmp_path, monkeypatch, place):
    path = notebook_with_parameters(tmp_path / "mine", "own", "k = 1")
    if place == "the current folder":
        monkeypatch.chdir(path.parent)
    else:
        monkeypatch.setenv("ABSENCE_NOTEBOOK", str(path))
    assert record.run_parameters("own", {"k": 2, "CONSTANT": 3}) == {"k": 2}
    assert record.run_parameters("script", {"k": 2, "_i": 1, "In": ["k"], "net": torch.nn.ReLU()}) == {"k": 2}


@pytest.mark.parametrize("path", all_notebooks(), ids=lambda path: path.stem)
def test_constants_that_a_notebook_of_ours_imports_are_not_recorded(path):
    names = notebook_parameters(path)
    namespace = dict.fromkeys([*names, "TREATMENTS", "PENALISED", "WEIGHTS"], 1)
    assert record.run_parameters(path.stem, namespace) == dict.fromkeys(names, 1)


def test_a_run_in_words_for_pages(tmp_path, monkeypatch):
    monkeypatch.setenv("ABSENCE_PROFILE", "smoke")
    images = str(tmp_path / "deep" / "images")
    record.start_run("00_x", {"images": images, "k": 3}, seed=7, device="cpu")
    about = record.about_run({"weights": "0123456789abcdef" * 4})
    assert about["made by"] == "00_x smoke" and about["seed, threads"] == "7, 1"
    assert about["weights, sha256"] == "0123456789abcdef" and "k: 3" in about["parameters"]
    assert str(tmp_path) not in " ".join(about.values()) and "torch" in about["versions"]
    assert all(isinstance(value, str) and value for value in about.values())
    assert record.about_run()["time"] and "weights, sha256" not in record.about_run()


def test_what_became_of_the_images_is_recorded(out):
    run = record.start_run("00_x", {}, device="cpu")
    record.save_figure(draw(), "00_before", TABLE)
    run.notes[:] = ["Left out: 'a.png'.", "1 image turned."]
    record.save_figure(draw(), "00_after", TABLE)
    found = {
        name: json.loads((out / f"{name}.json").read_text())["notes"] for name in ("00_before", "00_after")
    }
    assert found == {"00_before": [], "00_after": ["Left out: 'a.png'.", "1 image turned."]}
    assert record.about_run()["notes"] == "Left out: 'a.png'. 1 image turned."
    assert record.start_run("00_y", {}, device="cpu").notes == []


def test_git_state_sees_commits_and_changes(tmp_path):
    def git(*words):
        command = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e", *words]
        return subprocess.check_output(command, text=True).strip()

    assert record.git_state(tmp_path) is None
    git("init", "-q")
    (tmp_path / "file").write_text("a")
    git("add", "file")
    git("commit", "-qm", "m")
    assert record.git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "file").write_text("b")
    assert record.git_state(tmp_path)["dirty"]


def test_nothing_is_left_of_a_figure_that_cannot_be_drawn(out):
    figure = draw()
    figure.gca().set_title("$\\undefined$")
    with pytest.raises(ValueError):
        record.save_figure(figure, "00_a", TABLE)
    assert not out.exists()


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "file"
    record.write_atomically(path, b"old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        record.write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_figure_without_numbers_does_not_keep_older_ones(out):
    record.save_figure(draw(), "00_a", TABLE)
    record.save_figure(draw(), "00_a")
    assert not (out / "00_a.csv").exists()


def test_formats_for_print_are_a_setting_and_the_same_each_time(out, monkeypatch):
    figure, ax = plt.subplots()
    ax.plot([1, 2, 4])
    names, kept = {f"00_print.{kind}" for kind in ("pdf", "svg")}, []
    for _ in range(2):
        monkeypatch.setenv("ABSENCE_FORMATS", "PDF, svg")
        assert record.save_figure(figure, "00_print").name == "00_print.png"
        kept.append([(out / name).read_bytes() for name in sorted(names)])
        monkeypatch.delenv("ABSENCE_FORMATS")
        outputs = json.loads((out / "00_print.json").read_text())["outputs"]
        assert names < outputs.keys()
    assert kept[0] == kept[1] and kept[0][0].startswith(b"%PDF") and b"<svg" in kept[0][1]
    record.save_figure(figure, "00_print")
    assert [path.name for path in out.glob("00_print.*") if path.name in names] == [], (
        "they would be out of date"
    )
    monkeypatch.setenv("ABSENCE_FORMATS", "eps")
    with pytest.raises(InputError, match="ABSENCE_FORMATS.*eps"):
        record.save_figure(figure, "00_print")
    plt.close(figure)


@pytest.mark.parametrize("style", [{}, {"savefig.dpi": 100, "figure.dpi": 50}])
def test_a_figure_is_saved_at_200_dots_per_inch_whatever_the_style(out, style):
    """7.5 inches, the width that figures are drawn for, are 1500 pixels. Saving happens outside the style."""
    figure, axes = plt.subplots(figsize=(7.5, 2))
    with plt.rc_context(style):
        record.save_figure(figure, "00_a")
    assert plt.imread(out / "00_a.png").shape[:2] == (400, 1500)


@pytest.mark.parametrize("name", ["../a", "a.png", ""])
def test_a_name_that_is_no_plain_name_is_refused(out, name):
    with pytest.raises(InputError, match="`name`"):
        record.save_figure(draw(), name)
    assert not out.exists()


def test_results_go_to_the_checkout_unless_told_otherwise(monkeypatch, tmp_path):
    monkeypatch.delenv("ABSENCE_OUT")
    assert record.output_folder() == record.RESULTS
    monkeypatch.setattr(record, "NOTEBOOKS", tmp_path / "absent")
    assert str(record.output_folder()) == "results"


def test_start_run_seeds_every_generator_and_sets_the_threads():
    drawn = []
    for _ in range(2):
        record.start_run("00_x", seed=5, device="cpu")
        drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert drawn[0] == drawn[1]
    record.start_run("00_x", seed=6, device="cpu")
    assert all(
        a != b
        for a, b in zip(drawn[0], (random.random(), np.random.rand(), torch.rand(1).item()), strict=True)
    )
    assert torch.get_num_threads() == 1
    assert (torch.tensor([1e-40]) * 1.0).item() == 0.0  # denormals are flushed


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, True, "1"])
def test_a_bad_seed_is_named(seed):
    with pytest.raises(InputError, match="`seed`"):
        record.start_run("00_x", seed=seed)


def test_threads_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    with pytest.raises(InputError, match="OMP_NUM_THREADS"):
        record.start_run("00_x")


def test_devices(monkeypatch):
    assert record.resolve_device("cpu") == torch.device("cpu")
    for there, chosen in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert record.resolve_device("auto").type == chosen


@pytest.mark.parametrize("device", ["gpu", "cuda:99", 1.5, ""])
def test_a_device_that_is_not_there_is_named(device):
    with pytest.raises(InputError, match=f"`device`: {device!r} is not a device of this machine. Use 'auto'"):
        record.resolve_device(device)


def test_progress_is_silent_in_logs_and_visible_in_a_terminal(monkeypatch, capsys):
    assert list(progress([1, 2], "work")) == [1, 2]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert list(progress([1, 2], "work")) == [1, 2]
    assert "work" in capsys.readouterr().err
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert list(progress([1, 2], "work")) == [1, 2]
    assert capsys.readouterr().err == ""


def test_a_table_stands_beside_the_figures(out):
    assert record.save_table(TABLE, "00_list.csv") == out / "00_list.csv"
    assert (out / "00_list.csv").read_text() == "unit,response,mixed\n0,0.333333333,a\n1,-2e-07,0.3\n"
    for name in ("list", "a/list.csv", "list.txt"):
        with pytest.raises(InputError, match="name"):
            record.save_table(TABLE, name)
