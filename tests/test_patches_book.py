"""What a book keeps beside the extremes: a random sample, and files of its format."""

import gc
import itertools
import json

import numpy as np
import pytest
import torch
from helpers.toy_networks import Counting, whole_number_network, whole_numbers
from safetensors.torch import save_file
from scipy.stats import chisquare

from absence_utils import InputError, PatchBook, mine_patches
from absence_utils.images.base import Normalisation, TensorImages
from absence_utils.patches.storage import write_book
from absence_utils.patches.topk import priority, window_key

MASK = 2**64 - 1


def slow_priority(place: int, seed: int) -> int:
    """SplitMix64's mixing function, with Python's whole numbers."""
    mixed = (place + (seed + 1) * 0x9E3779B97F4A7C15) & MASK
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & MASK
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & MASK
    mixed ^= mixed >> 31
    return mixed - 2**64 if mixed >= 2**63 else mixed


def windows_of(dataset, patch, stride):
    """Every (image, top, left) and its pixels."""
    for number in range(len(dataset)):
        image = dataset[number][0]
        tops, lefts = (range(0, side - patch + 1, stride) for side in image.shape[1:])
        for top, left in itertools.product(tops, lefts):
            yield (number, top, left), image[:, top : top + patch, left : left + patch]


def mine(dataset=None, network=None, layer="0", **options):
    options = {"patch": 5, "stride": 2, "k": 3, "batch_size": 7, "reservoir": 10} | options
    return mine_patches(network or whole_number_network(), layer, dataset or whole_numbers(), **options)


# ---------------------------------------------------------------------- random sample
@pytest.mark.parametrize("seed", [0, 3])
def test_sample_is_the_smallest_priorities_with_the_responses_of_all_units(seed):
    dataset, network = whole_numbers(), whole_number_network()
    book = mine(dataset, network, seed=seed)
    every = sorted(
        windows_of(dataset, 5, 2),
        key=lambda it: slow_priority(it[0][0] << 32 | it[0][1] << 16 | it[0][2], seed),
    )[:10]
    for rank, ((image, top, left), pixels) in enumerate(every):
        assert book.random.image[rank] == image and book.random.box[rank].tolist() == [top, left, 5, 5]
        response = network[0](pixels[None]).mean(dim=(2, 3))[0]
        torch.testing.assert_close(book.random.response[:, rank], response.detach(), rtol=0, atol=1e-6)


def test_sample_depends_on_the_seed_and_not_on_the_network():
    other = whole_number_network()
    other[0].weight.data.neg_()
    books = [mine(), mine(network=other), mine(seed=1)]
    places = [book.random.place.tolist() for book in books]
    assert places[0] == places[1] != places[2]


def test_sample_holds_all_windows_where_there_are_fewer():
    book = mine(reservoir=1000)
    assert sorted(book.random.place.tolist()) == [
        window_key(*map(torch.tensor, place)).item() for place, _ in windows_of(whole_numbers(), 5, 2)
    ]
    assert book.windows == len(book.random.image) == 45
    assert mine(reservoir=0).random.response.shape == (3, 0)


def test_sample_is_uniform_over_places():
    """10,000 windows of 100 images, a tenth drawn: every image and every position equally often."""
    image, top, left = (
        axis.flatten() for axis in torch.meshgrid(*map(torch.arange, (100, 10, 10)), indexing="ij")
    )
    place = window_key(image, top * 16, left * 16)
    for seed in range(3):
        chosen = priority(place, seed).argsort()[:1000]
        for axis, count in ((image, 100), (top, 10), (left, 10)):
            assert chisquare(np.bincount(axis[chosen], minlength=count)).pvalue > 1e-3
    assert len(set(priority(place, 0).tolist())) == len(place)


def test_random_crops_are_the_pixels_of_their_boxes():
    normalisation = Normalisation((0.3, 0.6), (0.2, 0.5))
    pixels = torch.rand(4, 2, 9, 9)
    dataset = TensorImages(
        normalisation.apply(pixels), torch.zeros(4).long(), ["all"], normalisation=normalisation
    )
    book = mine(dataset)
    crops = book.random_crops(dataset, 6, seed=2)
    assert crops.pixels.shape == (6, 2, 5, 5)
    for crop, image, (top, left, height, width) in zip(
        crops.pixels, crops.image, crops.box.tolist(), strict=True
    ):
        expected = pixels[image, :, top : top + height, left : left + width]
        torch.testing.assert_close(crop, expected, rtol=0, atol=1e-6)
    drawn = window_key(crops.image, crops.box[:, 0], crops.box[:, 1]).tolist()
    assert len(set(drawn)) == 6 and set(drawn) <= set(book.random.place.tolist())
    assert torch.equal(book.random_crops(dataset, 6, seed=2).pixels, crops.pixels)
    assert not torch.equal(book.random_crops(dataset, 6, seed=3).box, crops.box)


def test_random_crops_decode_each_image_once_and_refuse_what_they_do_not_hold():
    dataset = Counting(whole_numbers().images)
    book = mine(dataset, reservoir=45)
    dataset.read = [0] * 5
    book.random_crops(dataset, 45)
    assert dataset.read == [1] * 5
    for count in (0, 46, 2.0):
        with pytest.raises(InputError, match="count.*1 to 45.*reservoir"):
            book.random_crops(dataset, count)


# ---------------------------------------------------------------------- files
def test_older_formats_and_other_books_are_named(tmp_path, monkeypatch):
    book = mine()
    for form, message in (
        ("absence_utils.patches 2", "format.*patches 2.*Mine it again"),
        ("diary 2", "no book"),
    ):
        monkeypatch.setattr("absence_utils.patches.storage.FORMAT", form)
        path = book.save(tmp_path / "book.safetensors")
        monkeypatch.undo()
        with pytest.raises(InputError, match=message):
            PatchBook.load(path)


def test_every_part_of_a_file_is_under_the_checksum(tmp_path):
    book = mine()
    path = book.save(tmp_path / "book.safetensors")
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    names = [name for name in header if name != "__metadata__"]
    assert {name.split(".")[0] for name in names} == {"highest", "lowest", "random"}
    for name in names:
        place = start + header[name]["data_offsets"][0]
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises(InputError, match="damaged"):
            PatchBook.load(path)


def test_write_book_is_complete_or_absent(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "x")
    with pytest.raises(TypeError):
        write_book(tmp_path / "x", {"a": torch.zeros(1)}, {"not": object()})
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


# ---------------------------------------------------------------------- looking at it
def drawn_patches(figure):
    """Arrays [height, width, RGB] of the patches in reading order."""
    return [image.get_array() for ax in figure.axes for image in ax.images]


def test_a_book_shows_the_patches_of_a_unit_of_images_that_are_still_there(tmp_path):
    dataset = whole_numbers()
    book = mine(dataset)
    for same in (book, PatchBook.load(book.save(tmp_path / "book.safetensors"))):
        drawn = drawn_patches(same.show(1))
        expected = [pixels for side in book.crops(dataset, 1) for pixels in side]
        assert len(drawn) == len(expected) == 6
        for picture, pixels in zip(drawn, expected, strict=True):
            grey = pixels.mean(0)[..., None].expand(-1, -1, 3)  # two channels are no colours
            np.testing.assert_allclose(picture, grey, atol=1e-6)


def test_a_book_keeps_no_images_alive_and_says_so():
    book = mine(whole_numbers(7))
    gc.collect()
    with pytest.raises(InputError, match="`dataset`.*not in memory.*book.show"):
        book.show(1)
    assert len(drawn_patches(book.show(1, whole_numbers(7)))) == 6


def test_other_images_and_units_are_refused_when_shown():
    dataset = whole_numbers()
    book = mine(dataset)
    with pytest.raises(InputError, match="`dataset`"):
        book.show(1, whole_numbers(seed=4))
    with pytest.raises(InputError, match="`unit`"):
        book.show(99)
