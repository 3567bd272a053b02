"""The steps of notebooks 01-03: what they claim, on data with a known answer."""

import math

import pytest
import torch

from absence_utils.attribution.methods import attribute
from absence_utils.attribution.removal import TREATMENTS, remove_strokes
from absence_utils.errors import InputError
from absence_utils.images.base import TensorImages
from absence_utils.images.digits import digits
from absence_utils.patches.mining import mine_patches
from absence_utils.toys.digits import (
    DigitsNet,
    all_class_pairs,
    class_maps,
    left_share,
    progressive_removal,
    removal_examples,
    removal_over_seeds,
)
from absence_utils.toys.green_pixel import (
    INITIALISATIONS,
    SCHEDULES,
    GreenPixelNet,
    compare_initialisations,
    green_pixel_images,
    sweep_pixel_colour,
)
from absence_utils.toys.motion import (
    MotionDetector,
    bar_table,
    fully_visible_extremes,
    motion_sequences,
    moving_bars,
)
from absence_utils.units import Unit


def test_uncut_extremes_are_extreme_show_whole_motion_and_their_own_bar():
    sequences = motion_sequences()
    pairs, leftward = sequences.pairs(), sequences.leftward_pairs()
    detector = MotionDetector()
    book = mine_patches(detector, None, pairs, patch=6, stride=1, k=6 * 49)
    found = fully_visible_extremes(book, pairs, leftward)
    for side, values in (("highest", [1 / 7, 1 / 7]), ("lowest", [-1 / 7, 0])):
        assert found[side]["response"] == pytest.approx(values, abs=1e-6)
        for unit in (0, 1):
            pixels, mask = found[side]["pixels"][unit], found[side]["leftward"][unit]
            assert float(detector(pixels[None])[0, unit]) == pytest.approx(values[unit], abs=1e-6)
            assert pixels[0].sum() == pixels[1].sum() and (pixels[mask] == 1).all()
    assert [bool(mask.any()) for mask in found["highest"]["leftward"]] == [False, True]
    assert [bool(mask.any()) for mask in found["lowest"]["leftward"]] == [True, False]


def test_bar_table_finds_the_absence_in_the_non_target_map_alone():
    sequences = motion_sequences()
    pairs, leftward, first = sequences.pairs(), sequences.leftward_pairs(), sequences.first_pairs()
    rows = []
    for label, at in (("target map", first), ("non-target map", first[::-1])):
        maps = torch.cat(
            [attribute(Unit(MotionDetector(), channel=u), pairs.images[[at[u]]]) for u in (0, 1)]
        )
        rows.append(
            {"label": label, "pixels": maps, "leftward": leftward[at], "response": maps.sum((1, 2, 3))}
        )
    rows.append({**rows[0], "label": "lowest patch"})
    table = bar_table(rows)
    on_bar = table["of it on that bar"]
    assert on_bar[0, "non-target map"] == pytest.approx(1 / 13)
    assert table.loc[(0, "non-target map"), "absence evidence"] == pytest.approx(1 / 13)
    others = table["absence evidence"].drop((0, "non-target map"))
    assert others.dropna().tolist() == [0, 0, 0] and math.isnan(others[0, "lowest patch"])
    assert table["bar in view"].tolist() == [False, True, True, False, False, True]


def test_bar_table_tells_the_bar_from_the_rest():
    pixels = torch.zeros(2, 2, 3, 3)
    pixels[:, 1, :, 0], pixels[:, 0, :, 2] = -1.0, -0.5
    mask = torch.zeros(2, 2, 3, 3, dtype=torch.bool)
    mask[:, 1, :, 0] = True
    table = bar_table([{"label": "map", "pixels": pixels, "leftward": mask, "response": [0.0, 0.0]}])
    assert table["absence evidence"].tolist() == [4.5, 4.5]
    assert table["of it on that bar"].tolist() == [3.0, 3.0]


@pytest.mark.slow
def test_recipes_are_all_run_and_only_the_first_is_meant_to_be_safe():
    test = green_pixel_images(300, 1_000_000)
    options = {"images": 1000, "epochs": 10, "lr": 0.5, "batch_size": 25}
    runs, networks = compare_initialisations(test, [0, 1], **options)
    assert runs["recipe"].unique().tolist() == [
        f"{start}, {words}" for start in INITIALISATIONS for words in SCHEDULES
    ]
    assert set(networks) == set(zip(runs["recipe"], runs["seed"], strict=True))
    ours = runs[runs["recipe"] == "contrast start, one cycle"]
    assert (ours["accuracy"] >= 0.99).all() and (ours["dead channels"] == 0).all()
    for start in INITIALISATIONS:  # the two schedules are two trainings
        first, second = (networks[f"{start}, {words}", 0].classes.weight for words in SCHEDULES)
        assert not torch.equal(first, second)
    assert (runs[runs["recipe"].str.startswith("PyTorch")]["accuracy"] < 0.99).any()


def test_class_maps_are_the_networks_own_and_left_share_is_a_share():
    networks = [DigitsNet(8, seed) for seed in (0, 1)]
    held_out = [digits("test", fold=fold, limit=80) for fold in (0, 1)]
    images, maps, halves = class_maps(networks, held_out, label=8, unit=3)
    count = [int((data.labels == 8).sum()) for data in held_out]
    assert len(images) == len(maps) == sum(count) and len(halves) == 2
    second = held_out[1].images[held_out[1].labels == 8]
    alone = attribute(Unit(networks[1], channel=3), second)
    torch.testing.assert_close(maps[count[0] :], alone[:, 0])
    evidence = -alone.clamp(max=0)
    share = float(evidence[..., :4].sum() / evidence.sum())
    assert halves["absence evidence on the left"][1] == pytest.approx(share)
    assert left_share(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])) == pytest.approx(0.3)


def test_examples_are_the_first_held_out_image_of_every_network():
    networks = [DigitsNet(8, seed) for seed in (0, 1)]
    held_out = [digits("test", fold=fold, limit=80) for fold in (0, 1)]
    examples = removal_examples(networks, held_out, 8, 3, 0.2)
    assert list(examples) == ["untouched", *TREATMENTS]
    for k, (network, data) in enumerate(zip(networks, held_out, strict=True)):
        first = data.images[data.labels == 8][0, 0]
        assert torch.equal(examples["untouched"][0][k], first)
        own = remove_strokes(network, first[None, None], 3, 0.2)
        assert all(torch.equal(examples[name][0][k], own[name][0, 0]) for name in TREATMENTS)
        for images, seen in examples.values():
            assert seen[k] == int(network(images[k][None, None]).argmax())
            assert ((images[k] == first) | (images[k] == 0)).all()
        removed = {
            name: int((first > 0).sum() - (images[k] > 0).sum()) for name, (images, _) in examples.items()
        }
        assert removed.pop("untouched") == 0 and set(removed.values()) == {
            round(0.2 * int((first > 0).sum()))
        }


class Reader(torch.nn.Module):
    """Sees the class that the brightest of the first ten pixels names."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, images):
        return self.scale * images.flatten(1)[:, :10]


@pytest.mark.slow
def test_seeds_and_class_pairs_are_all_there():
    images = torch.full((10, 1, 4, 4), 0.1)
    images.flatten(1)[torch.arange(10), torch.arange(10)] = 1
    data = TensorImages(images, torch.arange(10), list("0123456789"))
    table = removal_over_seeds([Reader(), Reader()], [data, data], [5, 7], 8, 3, [0.0, 0.1], draws=2)
    assert table.groupby("seed").size().to_dict() == {5: 6, 7: 6}
    pairs = all_class_pairs([Reader()], [data], [5], 0.1, draws=1)
    assert len(pairs[["unit", "source"]].drop_duplicates()) == 90 and (pairs["unit"] != pairs["source"]).all()
    assert len(pairs) == 90 * 3


def test_bars_move_by_their_step_and_the_detector_is_silenced_by_one_of_them():
    steps = [-2, -1, 0, 1]
    bars = moving_bars(steps)
    assert [int(pair[1, 0].argmax() - pair[0, 0].argmax()) for pair in bars] == steps
    assert bars.sum(dim=(2, 3)).eq(12).all()
    torch.testing.assert_close(MotionDetector()(bars)[:, 0] * 13, torch.tensor([0.0, -1.0, 0.0, 1.0]))
    with pytest.raises(InputError, match="leave an image of 12"):
        moving_bars([6])


def test_a_painted_pixel_changes_that_pixel_only():
    network = GreenPixelNet(0)
    image = green_pixel_images(2, seed=0).images[1]
    images, responses = sweep_pixel_colour(network, image, [0.0, 1.0], [0.0, 0.5, 1.0])
    assert images.shape == (2, 3, *image.shape) and responses.shape == (2, 3, 2)
    assert images[1, 2, :, 16, 16].tolist() == [1, 1, 0] and images[0, 1, :, 16, 16].tolist() == [0.5, 0, 0]
    changed = (images != image).any(dim=2).any(dim=0).any(dim=0).nonzero()
    assert changed.tolist() in ([[16, 16]], [])
    torch.testing.assert_close(responses[1, 2], network(images[1, 2][None])[0].detach())


def test_release_removes_more_of_what_speaks_against_the_unit():
    network, images = DigitsNet(seed=0), digits("test").images[:4]
    left, responses = progressive_removal(network, images, 3, [0.0, 0.2, 1.0])
    assert torch.equal(left[0], images) and not left[2].any() and responses.shape == (3, 4, 10)
    torch.testing.assert_close(responses[1], network(left[1]).detach())
    score = attribute(Unit(network, channel=3), images)
    gone = (left[1] != images) & (images > 0)
    kept = (left[1] == images) & (images > 0)
    for k in range(4):
        assert score[k][gone[k]].max() <= score[k][kept[k]].min() + 1e-6
