"""What lies outside the checkout and is named by parameters: whether it changed."""

import os

import pytest

from absence_utils.runner.outside import changed_inputs, outside_inputs


@pytest.fixture
def folder(tmp_path):
    """A folder of images, weights and a module."""
    for number in range(3):
        (tmp_path / "images" / f"class{number}").mkdir(parents=True)
        (tmp_path / "images" / f"class{number}" / "a.png").write_bytes(bytes([number]) * 50)
    (tmp_path / "weights.pt").write_bytes(b"weights")
    (tmp_path / "net.py").write_text("def make(): pass")
    return tmp_path


def inputs(folder, **more):
    values = {
        "images": f"{folder}/images",
        "weights": f"{folder}/weights.pt",
        "model": f"{folder}/net.py:make",
    }
    return outside_inputs(
        values | {"k": 3, "layer": "features.3", "units": [1], "odd": "a" * 5000, "no": "\0"} | more
    )


def test_only_what_exists_is_an_input(folder):
    found = inputs(folder)
    assert list(found) == [f"{folder}/{name}" for name in ("images", "weights.pt", "net.py")]
    assert list(inputs(folder, several=[f"{folder}/images/class0"]))[-1] == f"{folder}/images/class0"
    assert inputs(folder, checkpoints=f"{folder}/images/class1") == found, "a run writes there"
    assert outside_inputs({"model": f"{folder}/net.py:"}) == {}


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda root: (root / "images" / "class1" / "a.png").unlink(), "images"),
        (lambda root: (root / "images" / "class1" / "b.png").write_bytes(b"new"), "images"),
        (lambda root: (root / "images" / "class1").rename(root / "images" / "class1b"), "images"),
        (lambda root: keep_time(root / "images" / "class2" / "a.png"), "images"),
        (lambda root: keep_time(root / "weights.pt"), "weights.pt"),
        (lambda root: (root / "net.py").write_text("def make(): return 1"), "net.py"),
    ],
)
def test_every_change_of_contents_is_seen(folder, change, name):
    before = inputs(folder)
    assert inputs(folder) == before
    change(folder)
    after = inputs(folder)
    assert [path for path in before if before[path] != after[path]] == [f"{folder}/{name}"]


def keep_time(path):
    """Other contents of the same size, with the time of before."""
    before = path.stat()
    path.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_times_hidden_files_pipes_and_circles_do_not_matter(folder):
    before = inputs(folder)
    os.utime(folder / "weights.pt", (1, 1))
    (folder / "images" / ".hidden").write_text("new")
    os.mkfifo(folder / "images" / "pipe.png")
    (folder / "images" / "class0" / "up").symlink_to(folder / "images")
    (folder / "images" / "nowhere").symlink_to(folder / "absent")
    assert inputs(folder) == before


def test_changes_are_told_once(tmp_path):
    record = tmp_path / "results" / ".inputs.json"
    assert changed_inputs(record, {"a": "1"}) == [] and record.is_file()
    assert changed_inputs(record, {"a": "1", "b": "1"}) == []
    assert changed_inputs(record, {"a": "2", "b": "1"}) == ["a"]
    assert changed_inputs(record, {"a": "2", "b": "1"}) == []
    record.write_text("{")
    assert changed_inputs(record, {"a": "3"}) == []
