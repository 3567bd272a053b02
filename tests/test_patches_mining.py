"""Extreme patches: against slow loops, in any batching and any order of merges, and with bad input."""

import itertools
import os
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.toy_networks import (
    Counting,
    Untraceable,
    real_network,
    rgb,
    same,
    transformer,
    whole_number_network,
    whole_numbers,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torchvision.models import resnet50

from absence_utils import InputError, PatchBook, load_images, load_model, mine_patches, responses
from absence_utils.images.base import Normalisation, TensorImages
from absence_utils.patches.book import SIDES
from absence_utils.patches.mining import batch_norm_sign, blank_patch_response, mine_alike
from absence_utils.patches.topk import RunningTopK


def slow_extremes(weight, pixels, patch, stride, k, per_image=0):
    """By the definition, in float64: loop over images and positions, convolve, average, sort."""
    found = {side: [] for side in SIDES}
    for unit in weight.detach().double().numpy():
        every = []
        for image, values in enumerate(pixels.double().numpy()):
            height, width = values.shape[1:]
            for top in range(0, height - patch + 1, stride):
                for left in range(0, width - patch + 1, stride):
                    window = values[:, top : top + patch, left : left + patch]
                    steps = range(patch - 2)
                    total = [
                        (unit * window[:, i : i + 3, j : j + 3]).sum()
                        for i, j in itertools.product(steps, steps)
                    ]
                    every.append((np.mean(total), image, top, left))
        for side, sign in (("highest", -1), ("lowest", 1)):
            kept, times = [], {}
            for entry in sorted(every, key=lambda it: (sign * it[0], *it[1:])):
                times[entry[1]] = times.get(entry[1], 0) + 1
                if not per_image or times[entry[1]] <= per_image:
                    kept.append(entry)
            found[side].append(kept[:k])
    return found


@pytest.mark.parametrize(
    ("patch", "stride", "k", "per_image"), [(6, 1, 7, 0), (4, 3, 5, 0), (6, 1, 4, 1), (6, 2, 5, 2)]
)
def test_equals_slow_loops_exactly(patch, stride, k, per_image):
    network, dataset = whole_number_network(), whole_numbers()
    book = mine_patches(network, "0", dataset, patch, stride, k, per_image=per_image, batch_size=7)
    slow = slow_extremes(network[0].weight, dataset.images, patch, stride, k, per_image)
    for side in SIDES:
        found = getattr(book, side)
        for unit, expected in enumerate(slow[side]):
            assert found.response[unit].tolist() == [entry[0] for entry in expected]
            assert found.image[unit].tolist() == [entry[1] for entry in expected]
            assert found.box[unit].tolist() == [[entry[2], entry[3], patch, patch] for entry in expected]


def test_reads_before_the_nonlinearity():
    """The lowest patches of a rectified layer are below zero, where its output would be zero."""
    network, dataset = whole_number_network(), whole_numbers()
    assert same(mine_patches(network, "1", dataset, 6, 1), mine_patches(network, "0", dataset, 6, 1))


@pytest.mark.parametrize("per_image", [0, 1])
@pytest.mark.parametrize("batch_size", [1, 5, 64, None])
def test_batches_do_not_matter(batch_size, per_image):
    network, dataset = whole_number_network(), whole_numbers()
    whole = mine_patches(network, "0", dataset, 5, 2, k=4, per_image=per_image, batch_size=3)
    assert same(
        whole, mine_patches(network, "0", dataset, 5, 2, k=4, per_image=per_image, batch_size=batch_size)
    )


def test_boxes_of_a_real_network_do_not_depend_on_batches():
    network, dataset = real_network(), TensorImages(torch.randn(6, 2, 20, 20), torch.zeros(6).long(), ["all"])
    one, many = (mine_patches(network, "2", dataset, 8, 3, batch_size=size) for size in (1, 50))
    for side in SIDES:
        assert torch.equal(getattr(one, side).box, getattr(many, side).box)
        torch.testing.assert_close(
            getattr(one, side).response, getattr(many, side).response, rtol=1e-5, atol=1e-6
        )


def test_ties_go_to_the_earlier_image_then_up_then_left():
    dataset = TensorImages(torch.ones(3, 2, 7, 7), torch.zeros(3).long(), ["all"])
    book = mine_patches(whole_number_network(), "0", dataset, 6, 1, k=6, batch_size=5)
    for side in SIDES:
        assert getattr(book, side).image[0].tolist() == [0, 0, 0, 0, 1, 1]
        assert getattr(book, side).box[0, :, :2].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [0, 0], [0, 1]]


def test_zero_and_minus_zero_tie():
    """They are equal numbers with different bits, so the earlier patch comes first."""
    for values in ([-0.0, 0.0, -0.0], [0.0, -0.0, 0.0]):
        best = RunningTopK(k=2, per_image=0)
        best.add(torch.tensor([values]), torch.tensor([5, 6, 7]))
        assert best.place.tolist() == [[5, 6]]


def merged(books, order):
    """Merge in any order and grouping: `order` picks two of what is left, again and again."""
    books = list(books)
    while len(books) > 1:
        i, j = order(len(books))
        first, second = books[i], books[j]
        books = [book for place, book in enumerate(books) if place not in (i, j)] + [first.merge(second)]
    return books[0]


WHOLE = whole_numbers(n=8, height=8, width=8)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(cuts=st.sets(st.integers(1, 7)), per_image=st.integers(0, 2), k=st.integers(1, 9), data=st.data())
def test_merging_in_any_order_equals_the_single_pass(cuts, per_image, k, data):
    network = whole_number_network()
    options = {"patch": 6, "stride": 1, "k": k, "per_image": per_image}
    if per_image and k > 8 * per_image:
        k = options["k"] = 8 * per_image
    edges = [0, *sorted(cuts), 8]
    books = [
        mine_patches(network, "0", WHOLE, **options, part=range(*ends)) for ends in itertools.pairwise(edges)
    ]

    def order(count):
        return data.draw(st.permutations(range(count)))[:2]

    whole = mine_patches(network, "0", WHOLE, **options)
    together = merged(books, order)
    assert same(whole, together)
    assert together.covered == whole.covered == ((0, 8),)


@pytest.mark.parametrize("layer", ["2", "3"])
def test_parts_of_a_real_network_merge_to_the_single_pass_exactly(layer):
    """All batches have one shape, so that a patch's response does not depend on the batch it runs in."""
    torch.manual_seed(3)
    network, dataset = real_network(), TensorImages(torch.randn(7, 2, 24, 24), torch.zeros(7).long(), ["all"])
    whole = mine_patches(network, layer, dataset, 8, 2, batch_size=50)
    parts = [
        mine_patches(network, layer, dataset, 8, 2, batch_size=50, part=range(a, b))
        for a, b in ((0, 1), (1, 4), (4, 7))
    ]
    assert same(whole, parts[2].merge(parts[0]).merge(parts[1]))
    assert parts[2].merge(parts[0]).covered == ((0, 1), (4, 7))


def test_merge_refuses_what_does_not_belong_together():
    network, dataset = whole_number_network(), whole_numbers()
    book = mine_patches(network, "0", dataset, 6, 1, part=range(0, 2))
    rest = mine_patches(network, "0", dataset, 6, 1, part=range(2, 5))
    for change in (
        {"stride": 2},
        {"pool": "max"},
        {"k": 3},
        {"layer": "1"},
        {"region": "masked"},
        {"per_image": 1},
    ):
        with pytest.raises(InputError, match=next(iter(change))):
            book.merge(replace(rest, **change))
    with pytest.raises(InputError, match="both books cover image 0"):
        book.merge(book)
    other = whole_number_network()
    other[0].weight.data[0, 0, 0, 0] += 1
    with pytest.raises(InputError, match="network"):
        book.merge(mine_patches(other, "0", dataset, 6, 1, part=range(2, 5)))
    with pytest.raises(InputError, match="of other images"):
        book.merge(mine_patches(network, "0", whole_numbers(seed=1), 6, 1, part=range(2, 5)))


# ---------------------------------------------------------------------- files
@pytest.fixture
def book():
    return mine_patches(whole_number_network(), "0", whole_numbers(), 6, 1, k=4, part=range(1, 5))


def test_saved_book_comes_back(book, tmp_path):
    path = book.save(tmp_path / "new" / "book.safetensors")
    again = PatchBook.load(path)
    assert same(book, again)
    assert book.settings == again.settings and book.covered == again.covered
    assert {field.name for field in fields(book)} - set(book.settings) == {
        *SIDES,
        "random",
        "windows",
        "covered",
    }
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == again.save(tmp_path / "again.safetensors").read_bytes()


def test_damaged_book_is_refused(book, tmp_path):
    path = book.save(tmp_path / "book.safetensors")
    content = path.read_bytes()
    for length in (0, 7, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match="path.*damaged"):
            PatchBook.load(path)
    for place in (len(content) - 1, len(content) - 300, content.index(b"stride") + 11):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(InputError, match="damaged"):
            PatchBook.load(path)


def test_other_files_are_no_books(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match="no book"):
        PatchBook.load(tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match="cannot read"):
        PatchBook.load(tmp_path / "absent.safetensors")


def test_interrupted_save_keeps_the_old_book(book, tmp_path, monkeypatch):
    path = book.save(tmp_path / "book.safetensors")
    before = path.read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        replace(book, pool="max").save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# ---------------------------------------------------------------------- pixels
def test_crops_are_the_pixels_of_the_images():
    normalisation = Normalisation((0.3, 0.6), (0.2, 0.5))
    pixels = torch.rand(4, 2, 9, 9)
    dataset = TensorImages(
        normalisation.apply(pixels), torch.zeros(4).long(), ["all"], normalisation=normalisation
    )
    book = mine_patches(whole_number_network(), "0", dataset, 5, 2, k=3)
    for side in SIDES:
        crops = getattr(book.crops(dataset, 1), side)
        found = getattr(book, side)
        assert crops.shape == (3, 2, 5, 5)
        for rank in range(3):
            top, left, height, width = found.box[1, rank].tolist()
            expected = pixels[found.image[1, rank], :, top : top + height, left : left + width]
            torch.testing.assert_close(crops[rank], expected, rtol=0, atol=1e-6)


def test_crops_score_what_the_book_says():
    network, dataset = real_network(), TensorImages(torch.rand(4, 2, 12, 12), torch.zeros(4).long(), ["all"])
    book = mine_patches(network, "2", dataset, 7, 2)
    for side in SIDES:
        again = responses(network, "2", getattr(book.crops(dataset, 3), side))[:, 3]
        torch.testing.assert_close(again.detach(), getattr(book, side).response[3], rtol=1e-5, atol=1e-6)


def test_crops_want_the_right_images_and_units(book):
    for unit in (-1, 3):
        with pytest.raises(InputError, match="unit.*0 to 2"):
            book.crops(whole_numbers(), unit)
    with pytest.raises(InputError, match="dataset"):
        book.crops(whole_numbers(seed=4), 0)


def test_every_image_is_decoded_once_and_plain_datasets_do():
    dataset = Counting(whole_numbers().images)
    book = mine_patches(whole_number_network(), "0", dataset, 6, 1, batch_size=4)
    assert dataset.read == [1] * 5
    assert book.crops(dataset, 0).highest.shape == (8, 2, 6, 6)


def test_images_of_different_sizes_can_be_cropped():
    images = [torch.ones(2, 6, 6), torch.ones(2, 7, 9)]
    book = mine_patches(whole_number_network(), "0", Counting(images), 6, 1, k=9)
    assert book.highest.image[0].tolist() == [0] + [1] * 8
    assert book.highest.box[0, -1].tolist() == [1, 3, 6, 6]
    with pytest.raises(InputError, match="image 1 has shape"):
        mine_patches(whole_number_network(), "0", Counting(images), 6, 1, k=9, region="masked")


# ---------------------------------------------------------------------- regions
@pytest.mark.parametrize("pool", ["mean", "cls", "max", "min"])
def test_transformers_see_full_images_with_one_patch_visible(pool):
    network, dataset, layer = transformer(), rgb(), "encoder.layers.encoder_layer_0"
    book = mine_patches(network, layer, dataset, patch=8, stride=4, k=5, pool=pool, batch_size=4)
    assert book.region == "masked"
    every = []
    for image, top, left in itertools.product(range(3), (0, 4, 8), (0, 4, 8)):
        masked = torch.zeros(1, 3, 16, 16)
        for row, column in itertools.product(range(top, top + 8), range(left, left + 8)):
            masked[0, :, row, column] = dataset.images[image, :, row, column]
        tokens = hidden_tokens(network, masked)[0].double()  # [token, channel]
        pooled = {"mean": tokens.mean(0), "cls": tokens[0], "max": tokens.amax(0), "min": tokens.amin(0)}[
            pool
        ]
        every.append((pooled, image, top, left))
    for unit in range(8):
        for side, sign in (("highest", -1), ("lowest", 1)):
            expected = sorted(every, key=lambda it, u=unit, s=sign: (s * it[0][u].item(), *it[1:]))[:5]
            found = getattr(book, side)
            assert found.image[unit].tolist() == [entry[1] for entry in expected]
            assert found.box[unit].tolist() == [[*entry[2:], 8, 8] for entry in expected]
            values = torch.stack([entry[0][unit] for entry in expected]).float()
            torch.testing.assert_close(found.response[unit], values, rtol=1e-4, atol=1e-5)


def hidden_tokens(network, images):
    """Output of the only encoder layer, by torchvision's own parts."""
    with torch.no_grad():
        tokens = network._process_input(images)
        tokens = torch.cat([network.class_token.expand(len(images), -1, -1), tokens], dim=1)
        return network.encoder.layers[0](tokens + network.encoder.pos_embedding)


def flattening(size=16):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2 * (size - 2) ** 2, 4)).eval()


def shrinking():
    torch.manual_seed(0)
    parts = [
        nn.Conv2d(3, 4, 3),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(4, 4, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ]
    return nn.Sequential(*parts).eval()


class Tokens(nn.Module):
    """A map as tokens [batch, token, channel], for any size of image."""

    def forward(self, maps):
        return maps.flatten(2).transpose(1, 2)


def test_auto_decides_by_what_the_network_takes():
    assert mine_patches(nn.Sequential(nn.Conv2d(3, 4, 3), Tokens()), "1", rgb(), 10, 2).region == "masked"
    assert mine_patches(shrinking(), None, rgb(), 10, 2).region == "crop"
    assert mine_patches(shrinking(), None, rgb(), 10, 2, region="masked").region == "masked"
    assert mine_patches(flattening(), None, rgb(), 10, 2).region == "masked"
    assert mine_patches(flattening(), "0", rgb(), 10, 2).region == "crop"
    assert mine_patches(transformer(), None, rgb(), 8, 4).region == "masked"


def test_crops_the_network_cannot_take_are_an_error():
    with pytest.raises(InputError, match="patch.*6 px are too small.*masked"):
        mine_patches(shrinking(), None, rgb(), 6, 2)
    with pytest.raises(InputError, match="patch.*too small"):
        mine_patches(transformer(), None, rgb(), 8, 4, region="crop")
    with pytest.raises(InputError, match="dataset.*32 x 32"):
        mine_patches(transformer(), None, rgb(size=32), 8, 4)


# ---------------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch": 10}, "patch.*10 px is larger than image 0, 9 x 10 px.*at most 9"),
        ({"patch": 0}, "patch.*at least 1"),
        ({"stride": 0}, "stride.*at least 1"),
        ({"stride": 1.5}, "stride.*whole number"),
        ({"k": 0}, "k.*at least 1"),
        ({"k": 101}, "k.*there are 100 patches to choose 101 from"),
        ({"k": 6, "per_image": 1}, "k.*there are 5 patches"),
        ({"per_image": -1}, "per_image.*at least 0"),
        ({"batch_size": 0}, "batch_size.*at least 1"),
        ({"region": "corner"}, "region.*auto, crop, masked"),
        ({"pool": "median"}, "pool.*median"),
        ({"layer": "conv"}, "layer.*conv"),
        ({"part": range(3, 9)}, "part.*5 images"),
        ({"part": range(0)}, "part"),
        ({"dataset": Counting([])}, "dataset.*no images"),
    ],
)
def test_bad_input_names_the_parameter_and_the_remedy(change, message):
    options = {"layer": "0", "dataset": whole_numbers(), "patch": 6, "stride": 1, "k": 4} | change
    with pytest.raises(InputError, match=message):
        mine_patches(whole_number_network(), **options)


def test_responses_that_are_not_finite_are_an_error():
    network = whole_number_network()
    network[0].weight.data[1, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        mine_patches(network, "0", whole_numbers(), 6, 1)


def test_network_is_left_as_found():
    network = real_network().train()
    network[2].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    flags = [module.training for module in network.modules()]
    mine_patches(network, "3", whole_numbers(), 6, 1)
    with pytest.raises(InputError):
        mine_patches(network, "3", whole_numbers(), 6, 1, pool="cls")
    assert flags == [module.training for module in network.modules()]
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in before.items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


# ---------------------------------------------------------------------- neutral point, sign
def test_empty_response_is_that_of_the_mean():
    network, dataset = real_network(), whole_numbers()
    book = mine_patches(network, "2", dataset, 6, 1)
    expected = network[:3](torch.zeros(1, 2, 6, 6)).mean(dim=(2, 3))[0]
    torch.testing.assert_close(blank_patch_response(network, dataset, book), expected.detach())
    masked = blank_patch_response(network, dataset, replace(book, region="masked"))
    torch.testing.assert_close(masked, network[:3](torch.zeros(1, 2, 9, 10)).mean(dim=(2, 3))[0].detach())


def test_sign_of_the_batch_norm_behind_a_convolution():
    network = resnet50()
    network.layer4[2].bn3.weight.data[:3] = torch.tensor([-0.5, 0.0, 2.0])
    sign, how = batch_norm_sign(network, "layer4.2.conv3")
    assert (sign[:3].tolist(), how, len(sign)) == ([-1, 0, 1], "traced", 2048)
    for layer in ("layer4.2.bn3", "layer4.2", "logits", None):
        assert batch_norm_sign(network, layer) == (None, "none")
    assert batch_norm_sign(whole_number_network(), "0") == (None, "none")
    norm = nn.BatchNorm2d(4)
    norm.weight.data[1] = -1
    network = Untraceable(nn.Conv2d(2, 4, 3), norm, nn.Conv2d(4, 4, 3))
    sign, how = batch_norm_sign(network, "first")
    assert (sign.tolist(), how) == ([1, -1, 1, 1], "by order")
    assert batch_norm_sign(network, "third") == (None, "unknown")


@pytest.mark.skipif("ABSENCE_REAL" not in os.environ, reason="set ABSENCE_REAL to the folder of real data")
def test_trained_squeezenet_reaches_further_down_than_random_weights():
    """Measured on 60 images: 97% of units against 48%. Half of the images, a loose bound."""
    real = Path(os.environ["ABSENCE_REAL"])
    share = {}
    for weights in (real / "models" / "squeezenet1_0-imagenet.safetensors", "random"):
        network = load_model("squeezenet1_0", weights)
        dataset = load_images(real / "imagenet" / "val", network, limit=30)
        book = mine_patches(network, "features.12", dataset, patch=48, stride=44)
        empty = blank_patch_response(network, dataset, book)
        up, down = book.highest.response[:, 0] - empty, empty - book.lowest.response[:, 0]
        share[weights == "random"] = (down > up).float().mean().item()
    assert share[False] > 0.85
    assert 0.3 < share[True] < 0.65


def test_another_network_is_mined_with_the_settings_of_a_book():
    """Of settings that are not the defaults, on a part of the images."""
    how = {
        "patch": 4,
        "stride": 3,
        "k": 2,
        "pool": "max",
        "region": "masked",
        "per_image": 1,
        "reservoir": 5,
        "seed": 3,
    }
    network, dataset = whole_number_network(), whole_numbers()
    book = mine_patches(network, "0", dataset, **how, exact=True)
    other = whole_number_network()
    with torch.no_grad():
        other[0].weight.neg_()
    found = mine_alike(book, other, dataset, part=range(2))
    assert same(found, mine_patches(other, "0", dataset, **how, exact=True, part=range(2)))
    assert found.network != book.network and found.covered == ((0, 2),)
