"""What lies in a folder: links, loops, leftovers, odd names; nothing is lost without a reason, or counted twice."""

import os
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from absence_utils import InputError
from absence_utils.images.scan import order_classes, scan_folder


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def names(root, paths):
    return [path.relative_to(root).as_posix() for path in paths]


def test_images_come_class_after_class_and_sorted(tmp_path):
    scan = scan_folder(touch(tmp_path, "bee/b.PNG", "ant/2/a.jpg", "bee/a/c.tif", "ant/1.pgm", "bee/a.jpeg"))
    assert scan.classes == ["ant", "bee"]
    assert names(tmp_path, scan.files) == [
        "ant/1.pgm",
        "ant/2/a.jpg",
        "bee/a/c.tif",
        "bee/a.jpeg",
        "bee/b.PNG",
    ]
    assert not (scan.unusable or scan.ignored or scan.repeated or scan.others)


def test_what_is_hidden_or_left_by_tools_is_ignored_and_named(tmp_path):
    ignored = [".git", "ant/.ipynb_checkpoints", "__MACOSX", "ant/@eaDir", "lost+found"]
    touch(tmp_path, *(f"{folder}/1.png" for folder in ignored))
    scan = scan_folder(
        touch(tmp_path, "ant/1.png", "bee/1.png", "ant/._1.png", "ant/.DS_Store", "ant/Thumbs.db")
    )
    assert scan.classes == ["ant", "bee"] and names(tmp_path, scan.files) == ["ant/1.png", "bee/1.png"]
    assert set(names(tmp_path, scan.ignored)) == {*ignored, "ant/._1.png"}
    assert not (scan.unusable or scan.others)


def test_files_of_other_kinds_are_counted_by_ending(tmp_path):
    scan = scan_folder(touch(tmp_path, "ant/1.png", "ant/1.HEIC", "ant/b/2.heic", "ant/README", "labels.csv"))
    assert scan.others == Counter({".heic": 2, "no ending": 1, ".csv": 1}) and len(scan.files) == 1


def test_linked_folders_are_followed_once_in_each_class(tmp_path):
    store = touch(tmp_path / "store", "1.png", "deep/2.png")
    root = touch(tmp_path / "root", "cat/own.png", "dog/own.png")
    (root / "bird").symlink_to(store)
    for name in ("a", "b"):
        (root / "cat" / name).symlink_to(store)
    scan = scan_folder(root)
    assert Counter(file.relative_to(root).parts[0] for file in scan.files) == {"bird": 2, "cat": 3, "dog": 1}
    assert names(root, scan.repeated) == ["cat/b"]


def test_links_in_a_circle_end(tmp_path):
    root = touch(tmp_path / "root", "cat/a/1.png", "dog/2.png")
    for place, target in (("cat/a/up", "cat"), ("cat/a/self", "cat/a"), ("dog/top", "."), ("all", ".")):
        (root / place).symlink_to(root / target)
    (root / "dog" / "above").symlink_to(tmp_path)
    scan = scan_folder(root)
    assert names(root, scan.files) == ["cat/a/1.png", "dog/2.png"] and scan.classes == ["cat", "dog"]
    assert set(names(root, scan.repeated)) == {"cat/a/up", "cat/a/self", "dog/top", "dog/above", "all"}


def test_links_to_nowhere_pipes_and_odd_names_get_a_reason(tmp_path):
    root = touch(tmp_path, "cat/fine.png")
    (root / "cat" / "gone.png").symlink_to(tmp_path / "nothing.png")
    (root / "cat" / "self.png").symlink_to(root / "cat" / "self.png")
    os.mkfifo(root / "cat" / "pipe.png")
    touch(root, "cat/" + os.fsdecode(b"caf\xe9.png"))
    scan = scan_folder(root)
    assert names(root, scan.files) == ["cat/fine.png"]
    reasons = {path.name: reason for path, reason in scan.unusable.items()}
    assert reasons.pop(os.fsdecode(b"caf\xe9.png")) == "its name is not UTF-8"
    assert reasons.pop("pipe.png") == "it is no regular file"
    assert all(reason.startswith("its link leads nowhere: ") for reason in reasons.values())
    assert set(reasons) == {"gone.png", "self.png"}


def test_images_beside_class_folders_get_a_reason(tmp_path):
    scan = scan_folder(touch(tmp_path, "1.png", "2.png", "thumbs/1.png"))
    assert scan.classes == ["thumbs"] and names(tmp_path, scan.files) == ["thumbs/1.png"]
    assert names(tmp_path, scan.unusable) == ["1.png", "2.png"]
    assert set(scan.unusable.values()) == {"it lies beside the class folders"}


def test_a_class_folder_that_cannot_be_one_is_refused(tmp_path):
    """Leaving it out would number the classes after it anew."""
    (touch(tmp_path / "a", "cat/1.png") / "bird").symlink_to(tmp_path / "nothing")
    with pytest.raises(InputError, match="class folder 'bird' cannot be used: its link leads nowhere"):
        scan_folder(tmp_path / "a")
    touch(tmp_path / "b", os.fsdecode(b"\xe9t\xe9/1.png"))
    with pytest.raises(InputError, match=r"class folder '\\\\xe9t\\\\xe9' cannot be used: .*not UTF-8"):
        scan_folder(tmp_path / "b")
    touch(tmp_path, os.fsdecode(b"\xe9/cat/1.png"))
    with pytest.raises(InputError, match=r"the path '.*\\\\xe9' is not UTF-8"):
        scan_folder(tmp_path / os.fsdecode(b"\xe9"))


@given(st.sets(st.integers(0, 2000), min_size=1, max_size=30))
def test_numbered_classes_are_in_numerical_order(numbers):
    folders = sorted(map(str, numbers))
    assert [int(name) for name in order_classes(folders)] == sorted(numbers)
    assert order_classes(folders, "alphabetical") == folders == order_classes(folders[::-1], "alphabetical")


def test_other_names_are_in_the_order_of_their_letters(tmp_path):
    assert order_classes(["10", "9", "dog"]) == ["10", "9", "dog"] and order_classes(["010", "9"]) == [
        "9",
        "010",
    ]
    with pytest.raises(InputError, match="`class_order`.*'numeric'"):
        scan_folder(touch(tmp_path, "1/1.png"), "numeric")
