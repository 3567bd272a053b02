"""Tables of extreme patches, by hand on a book of two units."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn

from absence_utils import InputError, mine_patches
from absence_utils.images.base import TensorImages
from absence_utils.patches.tables import (
    concept_coverage,
    concept_enrichment,
    patch_table,
    range_table,
    unit_title,
)

# Two images of 4 x 4 px with a bright quarter each; unit 0 is the mean of a patch + 1, unit 1 its negative.
PIXELS = torch.zeros(2, 1, 4, 4)
PIXELS[0, :, :2, :2], PIXELS[1, :, 2:, 2:] = 3.0, 8.0


def network():
    layer = nn.Conv2d(1, 2, 1)
    layer.weight.data, layer.bias.data = (
        torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1),
        torch.tensor([1.0, -1.0]),
    )
    return nn.Sequential(layer, nn.BatchNorm2d(2)).eval()


@pytest.fixture
def dataset():
    return TensorImages(PIXELS, torch.tensor([1, 0]), ["cat", "dog"])


@pytest.fixture
def book(dataset):
    return mine_patches(network(), "0", dataset, patch=2, stride=2, k=2)


def test_patch_table_lists_every_patch(book, dataset):
    table = patch_table(book, dataset, [1, 0])
    assert table.unit.tolist() == [1] * 4 + [0] * 4
    assert table.side.tolist() == ["highest", "highest", "lowest", "lowest"] * 2
    assert table["rank"].tolist() == [1, 2] * 4
    assert table.response.tolist() == [-1, -1, -9, -4, 9, 4, 1, 1]
    assert table.image.tolist() == [0, 0, 1, 0, 1, 0, 0, 0]
    assert list(zip(table.top, table.left, strict=True))[2:6] == [(2, 2), (0, 0), (2, 2), (0, 0)]
    assert table.label.tolist() == ["dog", "dog", "cat", "dog", "cat", "dog", "dog", "dog"]


def test_patch_table_lists_synthesised_images_at_rank_0(book, dataset):
    pair = SimpleNamespace(
        highest=SimpleNamespace(response=torch.tensor([7.0])),
        lowest=SimpleNamespace(response=torch.tensor([-5.0])),
    )
    table = patch_table(book, dataset, [0], {0: pair})
    assert table["rank"].tolist() == [0, 1, 2, 0, 1, 2]
    assert table.response.tolist() == [7, 9, 4, -5, 1, 1]
    assert table[table["rank"] == 0].image.isna().all()


def test_range_table_splits_the_range_at_the_empty_patch(book, dataset):
    model = network()
    model[1].weight.data[1] = -2
    table = range_table(book, model, dataset)
    assert table.highest.tolist() == [6.5, -1.0]
    assert table.lowest.tolist() == [1.0, -6.5]
    assert table.empty_patch.tolist() == [1.0, -1.0]
    assert table.share_below.tolist() == [0.0, 1.0]
    assert table.batch_norm.tolist() == ["+", "-"]
    windows = np.array([4, 1, 1, 1, 1, 1, 1, 9.0])
    assert table.skewness.tolist() == pytest.approx(np.array([1, -1]) * stats.skew(windows, bias=False))
    assert table.blank_percentile.tolist() == [37.5, 62.5]  # six of eight windows are empty
    assert table.highest_sd[0] * table.sd[0] == pytest.approx(5.5) and table.sd[0] == pytest.approx(
        windows.std(ddof=1)
    )


def test_a_range_needs_a_random_sample(dataset):
    book = mine_patches(network(), "0", dataset, patch=2, stride=2, k=2, reservoir=2)
    with pytest.raises(InputError, match="3 images or more"):
        range_table(book, network(), dataset)


def test_titles_name_classes_only_for_logits_and_say_what_a_batch_norm_turns_round(book, dataset):
    assert unit_title(book, dataset, 1) == "0, unit 1"
    assert "swap" in unit_title(book, dataset, 1, "-")
    assert "unknown" in unit_title(book, dataset, 1, "unknown")
    output = mine_patches(nn.Sequential(network(), nn.Flatten()), None, dataset, patch=2, stride=2, k=2)
    assert "dog" not in unit_title(output, dataset, 1)  # eight outputs, two classes
    logits = mine_patches(
        nn.Sequential(network(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), "logits", dataset, 2, 2, 2
    )
    assert unit_title(logits, dataset, 1) == "logits, unit 1: dog"


def test_units_out_of_range_are_an_error(book, dataset):
    for unit in (2, -1, "0"):
        with pytest.raises(InputError, match="0 to 1"):
            patch_table(book, dataset, [unit])
        with pytest.raises(InputError, match="0 to 1"):
            unit_title(book, dataset, unit)


def test_visible_share_and_content_by_hand(book):
    masks = torch.zeros(2, 2, 4, 4, dtype=torch.bool)
    masks[0, 0, 0, 1:4] = True  # three pixels, one of them in the top left window, two in the top right one
    masks[1, 1, 2:, 2:] = True  # all in the bottom right window of the second image
    assert concept_coverage(book.highest, masks)[0].tolist() == [[0, 1], [pytest.approx(1 / 3), 0]]
    table = concept_enrichment(
        book, masks, torch.tensor([[0.0, 0.5], [0.0, -0.5]]), ["up", "down"], ["bar", "square"]
    ).set_index(["unit", "side", "concept"])
    assert table.loc[("up", "highest", "square")].tolist() == [0.5, 0.5, 0.125, 37.5]
    assert table.loc[("down", "lowest", "square")].tolist() == [-0.5, 0.5, 0.125, 37.5]
    assert table.loc[("up", "highest", "bar")].tolist() == [0.0, 0.0, 0.125, -12.5]
    assert isinstance(table, pd.DataFrame) and len(table) == 8
