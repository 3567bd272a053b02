"""How mining runs: decoding ahead, precision, and what two books say of it."""

import threading
import time

import numpy as np
import pytest
import torch
from helpers.toy_networks import Counting, real_network, same, whole_number_network, whole_numbers
from scipy.stats import spearmanr

from absence_utils import InputError, mine_patches
from absence_utils.images.base import TensorImages
from absence_utils.images.prefetch import prefetch_images
from absence_utils.patches.mining import book_settings
from absence_utils.patches.tables import compare_books


class Slow(Counting):
    """Remembers in which threads and how many at a time it was read; image 3 may be broken."""

    def __init__(self, images, broken=False):
        super().__init__(images)
        self.threads, self.now, self.most, self.broken, self.lock = set(), 0, 0, broken, threading.Lock()

    def __getitem__(self, index):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.01 * (index % 3))
        self.threads.add(threading.current_thread())
        with self.lock:
            self.now -= 1
        if self.broken and index == 3:
            raise InputError("images", "'a.jpg' cannot be decoded", "Repair it.")
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_images_come_in_order_and_once(workers):
    dataset = Slow(whole_numbers(n=9).images)
    found = list(prefetch_images(dataset, range(1, 9), workers))
    assert [number for number, _ in found] == list(range(1, 9))
    assert all(torch.equal(image, dataset.images[number]) for number, image in found)
    assert dataset.read == [0] + [1] * 8 and dataset.most <= max(workers, 1)
    assert (threading.current_thread() in dataset.threads) == (workers == 0)
    assert not any(thread.is_alive() for thread in dataset.threads - {threading.current_thread()})


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_dataset_raises_arrives_at_its_turn_and_no_thread_stays(workers):
    dataset, seen = Slow(whole_numbers(n=9).images, broken=True), []
    with pytest.raises(InputError, match="a.jpg"):
        for number, _ in prefetch_images(dataset, range(9), workers):
            seen.append(number)
    assert seen == [0, 1, 2]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]
    with pytest.raises(InputError, match="a.jpg"):
        mine_patches(whole_number_network(), "0", dataset, 6, 1, workers=workers)


def test_reading_ahead_stops_with_its_reader():
    dataset = Slow(whole_numbers(n=50).images)
    images = prefetch_images(dataset, range(50), 2)
    next(images)
    images.close()
    assert sum(dataset.read) <= 6 and not [it for it in threading.enumerate() if it.name.startswith("decode")]


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_workers_do_not_matter(workers):
    options = {"patch": 6, "stride": 1, "k": 4, "batch_size": 7}
    one = mine_patches(whole_number_network(), "0", whole_numbers(), **options)
    assert same(
        one,
        mine_patches(
            whole_number_network(), "0", Counting(whole_numbers().images), **options, workers=workers
        ),
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_mining_decodes_in_its_workers(workers):
    dataset = Slow(whole_numbers(n=9).images)
    mine_patches(whole_number_network(), "0", dataset, 6, 1, workers=workers)
    others = dataset.threads - {threading.current_thread()}  # image 0 is decoded first, to see what comes
    assert bool(others) == bool(workers) and dataset.read == [1] * 9


# ---------------------------------------------------------------------- precision
def books():
    torch.manual_seed(2)
    dataset = TensorImages(torch.randn(6, 2, 24, 24), torch.zeros(6).long(), ["all"])
    return [
        mine_patches(real_network(), "2", dataset, 8, 3, precision=name) for name in ("float32", "bfloat16")
    ]


def test_bfloat16_changes_little_and_the_books_say_so():
    full, half = books()
    difference = (full.highest.response - half.highest.response).abs().max()
    assert 0 < difference < 0.02 * full.highest.response.abs().max()
    assert half.precision == "bfloat16" and half.highest.response.dtype == torch.float32
    rounded = half.highest.response.bfloat16().float()
    assert (rounded != half.highest.response).float().mean() > 0.9, "averaged in full precision"
    with pytest.raises(InputError, match="precision"):
        full.merge(half)


def test_comparison_of_books_by_hand():
    full, half = books()
    table = compare_books(full, half)
    for unit, row in table.iterrows():
        expected = spearmanr(full.random.response[unit], half.random.response[unit]).statistic
        assert row.rank_correlation == pytest.approx(expected, abs=1e-9)
        for side in ("highest", "lowest"):
            mine, theirs = (set(getattr(book, side).place[unit].tolist()) for book in (full, half))
            assert row[f"overlap_{side}"] == len(mine & theirs) / 8
    assert table.rank_correlation.between(0.98, 1).all() and table.overlap_lowest.between(0.5, 1).all()
    same_twice = compare_books(full, full)
    assert (same_twice[["overlap_highest", "overlap_lowest"]] == 1).all(axis=None)
    np.testing.assert_allclose(same_twice.rank_correlation, 1)


def test_books_of_different_windows_are_not_compared():
    full, _ = books()
    dataset = TensorImages(torch.randn(6, 2, 24, 24), torch.zeros(6).long(), ["all"])
    with pytest.raises(InputError, match="fingerprint"):
        compare_books(full, mine_patches(real_network(), "2", dataset, 8, 3))
    without = mine_patches(real_network(), "2", dataset, 8, 3, reservoir=0)
    with pytest.raises(InputError, match="random sample"):
        compare_books(without, without)


# ---------------------------------------------------------------------- settings
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"precision": "float8"}, "precision.*float32, bfloat16"),
        ({"exact": "yes"}, "exact.*True or False"),
        ({"reservoir": -1}, "reservoir.*at least 0"),
        ({"workers": -1}, "workers.*at least 0"),
        ({"seed": 0.5}, "seed.*whole number"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(InputError, match=message):
        mine_patches(whole_number_network(), "0", whole_numbers(), 6, 1, **change)


def test_settings_are_known_before_mining():
    network, dataset = whole_number_network(), whole_numbers()
    known = book_settings(network, "0", dataset, patch=6, k=5)
    assert known == mine_patches(network, "0", dataset, 6, k=5).settings
    with pytest.raises(InputError, match="pach.*It has: patch"):
        book_settings(network, "0", dataset, pach=6)
