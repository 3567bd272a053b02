"""Decoded images in a file, parts of a dataset, and any images at once."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from absence_utils import InputError
from absence_utils.images.base import IMAGENET, Normalisation, TensorImages
from absence_utils.images.cache import stack_images
from absence_utils.images.folders import FolderImages
from absence_utils.images.subsets import Subset, shuffle_images
from absence_utils.paths import cache_folder


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for number in range(7):
        place = tmp_path / "images" / f"class{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (20 + number, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.png")
    return FolderImages(tmp_path / "images", IMAGENET, size=16)


def in_memory(n=6):
    images = torch.arange(n * 8).float().view(n, 2, 2, 2)
    labels = torch.arange(n) % 2
    return TensorImages(images, labels, ["even", "odd"], normalisation=Normalisation((0.5,) * 2, (0.1,) * 2))


def test_a_folder_is_decoded_once_and_comes_back_exactly(folder, tmp_path, monkeypatch):
    expected = [folder[index] for index in range(7)]
    stack = stack_images(folder, tmp_path / "cache")
    assert stack_images(stack) is stack
    monkeypatch.setattr(FolderImages, "__getitem__", None)
    for order in ([0, 3, 6], [5, 5, 1]):
        assert torch.equal(stack.take(order), torch.stack([expected[i][0] for i in order]))
    assert [stack[i][1] for i in range(7)] == [label for _, label in expected]
    assert (len(stack), stack.fingerprint, stack.class_names) == (7, folder.fingerprint, folder.class_names)
    decoded = []
    original = FolderImages.pixels
    monkeypatch.setattr(
        FolderImages, "pixels", lambda self, index: decoded.append(index) or original(self, index)
    )
    again = stack_images(folder, tmp_path / "cache")
    assert torch.equal(again.take([2]), expected[2][0][None]) and set(decoded) <= {0}  # one, for the shape
    (file,) = (tmp_path / "cache").iterdir()
    assert file.stat().st_size == 7 * 3 * 16 * 16


def test_other_images_get_another_file_and_damage_is_noticed(folder, tmp_path):
    cache = tmp_path / "cache"
    first = stack_images(folder, cache).take([0])
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    assert torch.equal(stack_images(folder, cache).take([0]), first) and len(list(cache.iterdir())) == 1
    before, content = folder.files[0].stat(), folder.files[0].read_bytes()
    Image.new("RGB", (30, 20), "red").save(folder.files[0])
    assert folder.files[0].stat().st_size < before.st_size
    folder.files[0].write_bytes(folder.files[0].read_bytes().ljust(before.st_size, b" "))
    os.utime(folder.files[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert stack_images(folder, cache).take([0]).unique().numel() == 3 and len(list(cache.iterdir())) == 2
    folder.files[0].write_bytes(content)
    assert torch.equal(stack_images(folder, cache).take([0]), first) and len(list(cache.iterdir())) == 2
    stack_images(FolderImages(folder.root, IMAGENET, size=8), cache)
    assert len(list(cache.iterdir())) == 3


def test_an_interrupted_decoding_leaves_nothing(folder, tmp_path, monkeypatch):
    def broken(self, index):
        if index == 4:
            raise InputError("images", "broken", "Repair it.")
        return torch.zeros(3, 16, 16, dtype=torch.uint8)

    monkeypatch.setattr(FolderImages, "pixels", broken)
    with pytest.raises(InputError, match="broken"):
        stack_images(folder, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("ABSENCE_CACHE", raising=False)
    assert cache_folder() == tmp_path / "xdg" / "absence_utils"
    monkeypatch.setenv("ABSENCE_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


def test_images_in_memory_and_plain_lists_stack():
    dataset = in_memory()
    assert torch.equal(stack_images(dataset).take([4, 0]), dataset.images[[4, 0]])
    plain = [(dataset.images[i], i) for i in range(6)]
    stack = stack_images(plain)
    assert torch.equal(stack.take([1]), dataset.images[[1]]) and stack[3][1] == 3
    with pytest.raises(InputError, match="differ in size"):
        stack_images([(torch.zeros(1, 4, 4), 0), (torch.zeros(1, 5, 4), 0)])


def test_a_part_has_the_images_labels_and_truth_of_its_numbers(folder, tmp_path):
    part = Subset(folder, [5, 0, 3])
    assert len(part) == 3 and torch.equal(part[0][0], folder[5][0])
    assert part.labels.tolist() == folder.labels[[5, 0, 3]].tolist()
    assert torch.equal(part.membership, folder.membership[[5, 0, 3]])
    stack = stack_images(part, tmp_path / "cache")
    assert torch.equal(stack.take([1, 0]), torch.stack([folder[0][0], folder[5][0]]))
    assert stack.normalisation == IMAGENET and stack[2][1] == folder.labels[3]
    prints = {Subset(folder, order).fingerprint for order in ([5, 0, 3], [5, 3, 0], [5, 0])}
    assert len(prints | {folder.fingerprint}) == 4
    assert part.fingerprint == Subset(folder, [5, 0, 3]).fingerprint


def test_shuffling_keeps_every_image_and_follows_its_seed():
    dataset = in_memory(40)
    first, again, other = (shuffle_images(dataset, seed).indices.tolist() for seed in (0, 0, 1))
    assert first == again != other and sorted(first) == sorted(other) == list(range(40))


@pytest.mark.parametrize("indices", [[], [-1], [6], [2, 2]])
def test_bad_parts(indices):
    with pytest.raises(InputError, match="indices"):
        Subset(in_memory(), indices)


def test_a_stack_is_hashed_once_and_counts_from_the_end_as_lists_do(monkeypatch):
    dataset, hashed = in_memory(), []
    original = TensorImages.identity.fget
    monkeypatch.setattr(TensorImages, "identity", property(lambda self: hashed.append(1) or original(self)))
    expected = dataset.fingerprint
    stack = stack_images(dataset)
    hashed.clear()
    assert {stack.fingerprint for _ in range(3)} == {expected} and len(hashed) == 1
    assert stack.identity == original(dataset)
    assert torch.equal(stack.take([-1, 0]), dataset.images[[-1, 0]])
    with pytest.raises(IndexError):
        stack.take([6])
    with pytest.raises(IndexError):
        stack.take([-7])


def test_a_stack_of_images_without_a_name_has_none():
    stack = stack_images([(torch.zeros(1, 2, 2), 0)])
    assert getattr(stack, "fingerprint", "") == "" and getattr(stack, "identity", None) is None
