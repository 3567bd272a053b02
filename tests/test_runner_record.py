"""The record: what save_figure writes, that it is the same twice, and that a run starts the same twice."""

import json
import os
import random
import subprocess

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from absence_utils.errors import InputError
from absence_utils.runner import record


@pytest.fixture(autouse=True)
def out(tmp_path, monkeypatch):
    """Results go to a temporary folder, and no run is under way."""
    monkeypatch.setenv("ABSENCE_OUT", str(tmp_path / "out"))
    monkeypatch.setattr(record, "_current", None)
    for name in ("ABSENCE_FORMAT", "ABSENCE_DPI", "ABSENCE_PROFILE", "TQDM_DISABLE"):
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
        record.save_figure(draw(), "00_a", pd.DataFrame({"x": torch.randn(3).numpy()}), format="svg")
        read = {path.name: path.read_bytes() for path in out.iterdir()}
        provenance = json.loads(read.pop("00_a.json"))
        provenance.pop("time")
        contents.append((read, provenance))
    assert contents[0] == contents[1]
    assert len(contents[0][0]) == 3


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


def test_resolution_by_keyword_or_environment(out, monkeypatch):
    def width():
        return plt.imread(out / "00_a.png").shape[1]

    record.save_figure(draw(), "00_a", dpi=50)
    assert width() == 100
    monkeypatch.setenv("ABSENCE_DPI", "80")
    record.save_figure(draw(), "00_a")
    assert width() == 160


@pytest.mark.parametrize(
    ("parameter", "arguments"),
    [
        ("name", {"name": "../a"}),
        ("name", {"name": "a.png"}),
        ("format", {"format": "jpg"}),
        ("dpi", {"dpi": -1}),
    ],
)
def test_bad_figure_arguments_are_named(out, parameter, arguments):
    with pytest.raises(InputError, match=f"`{parameter}`"):
        record.save_figure(draw(), **{"name": "00_a", **arguments})
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
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert record.resolve_device("auto") == record.resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match="`device`: CUDA is asked for but not available"):
        record.resolve_device("cuda")
    with pytest.raises(InputError, match="'gpu' is not a device"):
        record.resolve_device("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert record.resolve_device("auto").type == "cuda"
    with pytest.raises(InputError, match="only 1 GPU"):
        record.resolve_device("cuda:3")


def test_progress_is_silent_in_logs_and_visible_in_a_terminal(monkeypatch, capsys):
    assert list(record.progress([1, 2], "work")) == [1, 2]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert list(record.progress([1, 2], "work")) == [1, 2]
    assert "work" in capsys.readouterr().err
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert list(record.progress([1, 2], "work")) == [1, 2]
    assert capsys.readouterr().err == ""


def test_a_table_stands_beside_the_figures(out):
    assert record.save_table(TABLE, "00_list.csv") == out / "00_list.csv"
    assert (out / "00_list.csv").read_text() == "unit,response,mixed\n0,0.333333333,a\n1,-2e-07,0.3\n"
    for name in ("list", "a/list.csv", "list.txt"):
        with pytest.raises(InputError, match="name"):
            record.save_table(TABLE, name)
