"""Concepts from classes, trees, folders and masks; what a file of categories must not be."""

import numpy as np
import pytest
import torch
from PIL import Image

from absence_utils import InputError, load_model
from absence_utils.images.base import TensorImages
from absence_utils.naming import (
    class_concepts,
    find_concepts,
    folder_concepts,
    mask_concepts,
    scene_concepts,
    tree_concepts,
)
from absence_utils.naming.concepts import IMAGENET_CATEGORIES
from absence_utils.naming.trees import read_tree

CLASSES = ["n00000001", "n00000002", "n00000003"]
# In the form of WordNet's file, written by hand: a dog with two parents, an instance, and a chain above.
NOUNS = """  1 a line of the licence, which begins with two blanks
00000001 05 n 02 dog 0 domestic_dog 0 003 @ 00000010 n 0000 @ 00000020 n 0000 ~ 00000099 n 0000 | a pet that barks
00000002 05 n 01 tabby_cat 0 001 @ 00000010 n 0000 | a cat with stripes
00000003 15 n 01 Matterhorn 0 001 @i 00000030 n 0000 | a mountain
00000010 05 n 01 beast 0 001 @ 00000040 n 0000 | has fur
00000020 05 n 0a pet 0 a 0 b 0 c 0 d 0 e 0 f 0 g 0 h 0 i 0 001 @ 00000040 n 0000 | lives with people
00000030 15 n 01 mountain 0 001 @ 00000040 n 0000 | high
00000040 03 n 01 entity 0 000 | anything
"""


def images(classes=CLASSES, each=2, size=6):
    labels = torch.arange(len(classes)).repeat_interleave(each)
    return TensorImages(torch.rand(len(labels), 3, size, size), labels, list(classes))


def write(path, text):
    path.write_text(text)
    return path


def test_classes():
    found = class_concepts(images())
    assert found.names == CLASSES and found.membership.sum(axis=0).tolist() == [2, 2, 2]
    assert found.own.tolist() == list(range(6)) and len(found) == 6 and "3 names, 6 donors" in repr(found)
    with pytest.raises(InputError, match="no classes"):
        class_concepts([(torch.zeros(3, 4, 4), 0)])


def test_membership_is_the_closure_of_a_csv(tmp_path):
    rows = "child,parent\nn00000001,pet\nn00000002,wild\nn00000003,thing\npet,animal\nwild,animal\n"
    found = tree_concepts(images(), write(tmp_path / "tree.csv", rows))
    assert found.names == [*CLASSES, "animal"]  # pet, wild and thing have the members of one class each
    assert found.membership[:, 3].tolist() == [True] * 4 + [False] * 2
    assert found.parents == {"n00000001": ("animal",), "n00000002": ("animal",)}
    assert found.ancestors("n00000001") == {"animal"} and found.ancestors("animal") == set()


def test_wordnet_in_its_own_format(tmp_path):
    path = write(tmp_path / "data.noun", NOUNS)
    tree = read_tree(path)
    assert tree.parents["n00000001"] == ("n00000010", "n00000020") and tree.parents["n00000040"] == ()
    assert tree.title("n00000002") == "tabby cat" and tree.above("n00000003") == {"n00000030", "n00000040"}
    found = tree_concepts(images(), path)
    assert found.names == [*CLASSES, "beast", "entity"]
    assert found.membership.sum(axis=0).tolist() == [2, 2, 2, 4, 6]
    assert found.ancestors("n00000001") == {"beast", "entity"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("n00000001,animal\n", "first line"),
        ("", "first line"),
        ("child,parent\nn00000001\n", "line 2"),
        ("child,parent\nn00000001,\n", "line 2"),
        ("child,parent\nn00000001,a\nn00000001,b\n", "two parents"),
        ("child,parent\nn00000001,a\na,b\nb,a\n", "lies in itself"),
        ("child,parent\nn00000001,a\nn00000002,a\n", "'n00000003'"),
        ("00000001 05 n 01 dog 0 001 @ 00000\n00000002 05 n zz\n", "data.noun"),
    ],
)
def test_what_is_no_tree_is_refused(tmp_path, text, problem):
    with pytest.raises(InputError, match=problem) as raised:
        tree_concepts(images(), write(tmp_path / "tree.csv", text))
    assert raised.value.parameter == "tree" and raised.value.remedy


def test_a_missing_file_and_one_that_is_no_text(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\xff")
    for path in (tmp_path / "none.csv", tmp_path / "binary"):
        with pytest.raises(InputError, match="cannot be read"):
            read_tree(path)


def test_equal_titles_are_told_apart(tmp_path):
    nouns = NOUNS.replace("Matterhorn", "dog").replace(" beast", " dog")
    dataset = images()
    dataset.classes, dataset.class_names = CLASSES, ["dog", "cat", "dog"]  # folders with readable names
    found = tree_concepts(dataset, write(tmp_path / "data.noun", nouns))
    assert found.names == ["dog (n00000001)", "cat", "dog (n00000003)", "dog (n00000010)", "entity"]


def test_the_shipped_categories_cover_imagenet():
    tree = read_tree(IMAGENET_CATEGORIES)
    leaves = [node for node in tree.parents if node[0] == "n" and node[1:].isdigit()]
    assert len(leaves) == 1000 and "dog" in tree.above("n02085620") and "animal" in tree.above("n02085620")
    assert 40 <= len(set().union(*(tree.above(leaf) for leaf in leaves))) <= 80


def test_folders_of_concepts(tmp_path):
    for name in ("fur", "wheel"):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.new("RGB", (20, 20), (number * 90, 10, 10)).save(tmp_path / name / f"{number}.png")
    found = folder_concepts(tmp_path, load_model("concept_scenes"), size=16)
    assert found.names == ["fur", "wheel"] and found.own.tolist() == [-1] * 4
    assert found.donors.take([0]).shape == (1, 3, 16, 16)


def test_crops_lie_around_their_masks():
    dataset = images(["a"], 3, 12)
    masks = torch.zeros(3, 2, 12, 12, dtype=torch.bool)
    masks[0, 0, 0:4, 0:2] = masks[1, 1, 5:8, 5:8] = masks[2, 1, 11, 11] = True
    found = mask_concepts(dataset, masks, ["x", "y"])
    assert found.membership.tolist() == [[True, False], [False, True], [False, True]]
    assert found.own.tolist() == [0, 1, 2]
    crops = found.donors.take([0, 1, 2])
    assert crops.shape == (3, 3, 4, 4)  # the longest mask
    assert torch.equal(crops[0], dataset.images[0, :, 0:4, 0:4])
    assert torch.equal(crops[1], dataset.images[1, :, 5:9, 5:9])
    assert torch.equal(crops[2], dataset.images[2, :, 8:, 8:])  # moved inside
    with pytest.raises(InputError, match="masks"):
        mask_concepts(dataset, masks[:2], ["x", "y"])
    with pytest.raises(InputError, match="empty"):
        mask_concepts(dataset, masks & False, ["x", "y"])


def test_glyphs_of_scenes():
    found = scene_concepts(12, 3)
    assert (found.membership.sum(axis=1) == 1).all() and (found.own == -1).all()
    assert found.donors.take([0]).shape[-1] <= 21
    assert np.array_equal(
        find_concepts(type("Scenes", (), {"concepts": ("disc",)}), scenes=12, seed=3).own, found.own
    )
    assert find_concepts(images()).names == CLASSES
