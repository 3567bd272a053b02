"""Figures of notebooks 01-03: what is drawn is what was given."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from absence_utils.attribution.removal import TREATMENTS
from absence_utils.patches.mining import mine_patches
from absence_utils.plots import digits, green_pixel, motion
from absence_utils.toys.green_pixel import (
    GreenPixelNet,
    channel_weights,
    colour_mask,
    green_pixel_images,
    logit_table,
)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def images_in(fig):
    return [ax.images[0] for ax in fig.axes if ax.images]


def test_motion_maps_share_one_centred_scale_and_the_bar_is_framed():
    pixels = np.zeros((2, 2, 4, 4))
    pixels[0, 1, :, 1], pixels[1, 1, :, 2] = -2.0, 1.0
    leftward = np.zeros((2, 2, 4, 4), dtype=bool)
    leftward[0, 1, :, 1] = True
    rows = [
        {"label": "map", "pixels": pixels, "leftward": leftward, "response": [-2, 1]},
        {
            "label": "input",
            "pixels": abs(pixels) / 2,
            "leftward": leftward,
            "response": [0, 1],
        },
    ]
    held = pd.DataFrame({"absence evidence": [0.75, 0.0], "of it on that bar": [0.5, 0.0]},
                        pd.MultiIndex.from_tuples([(0, "non-target map"), (0, "target map")]))  # fmt: skip
    fig = motion.motion_figure(rows, held, ["a", "b"])
    assert "0.5000 of 0.7500 absence evidence" in fig.get_suptitle()
    maps = images_in(fig)[:4]
    assert all((image.norm.vmin, image.norm.vmax) == (-2, 2) for image in maps)
    np.testing.assert_array_equal(maps[1].get_array(), pixels[0, 1])
    framed = [[patch for patch in ax.patches if patch.get_width() < 4] for ax in fig.axes]
    assert [len(patches) for patches in framed[:4]] == [0, 1, 0, 0]
    assert (framed[1][0].get_x(), framed[1][0].get_height()) == (0.5, 4)


def test_frame_pairs_stand_in_rows_of_units_and_views_with_the_bar_of_their_sequence_framed():
    maps = {view: np.zeros((2, 3, 2, 4, 4)) for view in ("target map", "non-target map")}
    maps["non-target map"][0, 2, 1, :, 1] = -3.0
    leftward = np.zeros((2, 3, 2, 4, 4), dtype=bool)
    leftward[1, 2, 1, :, 1] = True
    table = pd.DataFrame({"unit": [0, 0, 1], "view": ["non-target map"] * 2 + ["target map"]})
    table[["of it on that bar", "absence evidence"]] = [[3.0, 4.0], [2.5, 4.0], [0.0, 0.25]]
    fig = motion.pair_maps_figure(maps, table, leftward.reshape(6, 2, 4, 4), ["a", "b"])
    assert "at least 2.5000" in fig.get_suptitle() and "at most 0.2500" in fig.get_suptitle()
    drawn = images_in(fig)[:24]  # 2 units x 2 views x 3 pairs x 2 frames
    assert {(image.norm.vmin, image.norm.vmax) for image in drawn} == {(-3, 3)}
    assert [k for k, image in enumerate(drawn) if image.get_array().any()] == [11]
    np.testing.assert_array_equal(drawn[11].get_array(), maps["non-target map"][0, 2, 1])
    framed = [k for k, image in enumerate(drawn) if [p for p in image.axes.patches if p.get_width() < 4]]
    assert framed == [11, 17]  # sequence 1 is the non-target of unit 0 and the target of unit 1


def test_motion_is_shown_with_its_maps_on_one_centred_scale_and_its_response():
    pairs, maps = np.zeros((2, 2, 4, 4)), np.zeros((2, 2, 4, 4))
    pairs[1, 1, :, 2], maps[1, 1, :, 2] = 1, -2
    fig = motion.show_motion(pairs, maps, [0.25, -0.5])
    images = images_in(fig)
    np.testing.assert_array_equal(images[5].get_array(), pairs[1, 1])
    np.testing.assert_array_equal(images[7].get_array(), maps[1, 1])
    assert {(images[k].norm.vmin, images[k].norm.vmax) for k in (2, 3, 6, 7)} == {(-2, 2)}
    assert [fig.axes[k].get_ylabel() for k in (0, 4)] == ["response +0.2500", "response −0.5000"]


def test_heatmap_is_signed_and_written_in():
    _, ax = plt.subplots()
    green_pixel.weight_heatmap(ax, pd.DataFrame([[1.0, -3.0]], ["row"], ["a", "b"]), "weights")
    assert ax.collections[0].get_clim() == (-3, 3)
    assert [text.get_text() for text in ax.texts] == ["+1.0", "−3.0"]


def test_convergence_counts_the_runs_that_arrive_and_opens_the_dots_of_dead_networks():
    table = pd.DataFrame(
        {"recipe": ["x"] * 3 + ["y"] * 2, "seed": [0, 1, 2, 0, 1], "accuracy": [0.5, 0.99, 0.98, 0.99, 1],
         "dead channels": [2, 0, 0, 0, 0]}
    )  # fmt: skip
    fig = green_pixel.convergence_figure(table)
    (ax,) = fig.axes
    assert [text.get_text() for text in ax.texts] == ["1 of 3 runs", "2 of 2 runs"]
    assert fig.get_suptitle().split("\n") == [
        "2 of 2 seeds reach 99% test accuracy with y,",
        "1 of 3 with the next best recipe",
    ]
    alive, dead = ax.collections[:2]
    assert alive.get_offsets()[:, 0].tolist() == [0.99, 0.98] and dead.get_offsets()[:, 0].tolist() == [0.5]
    assert alive.get_facecolor()[0].tolist() == [0, 0, 0, 1] and dead.get_facecolor()[0].tolist() == [
        1,
        1,
        1,
        1,
    ]


@pytest.mark.slow
def test_green_pixel_figure_rings_green_centres_maps_and_returns_what_it_states():
    test, network = green_pixel_images(20, 0), GreenPixelNet(0)
    with torch.no_grad():  # the second channel of the first layer is the one for green
        network.colours.weight.copy_(torch.tensor([[1.0, 0, 1], [-1, 1, -1]])[:, :, None, None])
        network.classes.weight.copy_(torch.tensor([[-1.0, 2], [1, -2]])[:, :, None, None])
    green, maps = colour_mask(test.images, "green"), torch.zeros(2, 20, 32, 32)
    maps[1, 0, 3, 5] = -2.0
    shares = pd.DataFrame(
        {"non-target": [0.75, 0.5], "target": [0.0, 0.0]}, ["absence evidence", "of it on green"]
    )
    logits, book = logit_table(network, test), mine_patches(network, None, test, patch=7, stride=5, k=3)
    fig, table = green_pixel.green_pixel_figure(
        test, green, logits, channel_weights(network), maps, shares, book
    )
    said = table.set_index(["kind", "of", "for"])["value"]
    assert said["colour weight", "green channel", "red"] == -1
    assert said["class weight", "no green pixel", "green channel"] == -2
    assert said["share of attribution", "of it on green", "non-target"] == 0.5
    mean = float(book.lowest.response[1].mean())
    assert said["mean response of patches", "lowest", "no green pixel"] == pytest.approx(mean)
    assert (
        said["mean of the logit", "green pixel", "no green pixel"]
        == logits.loc["no green pixel", ("green pixel", "mean")]
    )
    assert (
        "Green lowers 'no green pixel'" in fig.get_suptitle() and "50.0% of the absence" in fig.get_suptitle()
    )
    rings = [patch for ax in fig.axes for patch in ax.patches if type(patch).__name__ == "Circle"]
    ((y, x),) = green[0].nonzero().tolist()
    assert [ring.center for ring in rings] == [(x, y)] * 3, "the input and both of its maps"
    signed = [image for image in images_in(fig) if image.norm.vmin and image.norm.vmin < 0]
    assert [(image.norm.vmin, image.norm.vmax) for image in signed] == [(-0.5, 0.5)] * 4
    assert signed[0].get_array()[3, 5] == -2, "the non-target map of 'no green pixel' comes first"
    strips = [image.get_array() for image in images_in(fig) if image.get_array().shape[:2] == (7, 23)]
    crops = book.crops(test, 1)
    np.testing.assert_array_equal(strips[1][:, 8:15], crops.lowest[1].permute(1, 2, 0))


def test_digit_maps_share_scales_within_their_kind_and_state_the_shares_of_the_left_half():
    maps = np.stack([3 * np.eye(8), -np.eye(8)])  # the mean is eye(8)
    views = {3: (np.ones((2, 8, 8)), maps, None), 8: (np.ones((2, 8, 8)), -2 * maps, None)}
    halves = pd.DataFrame({"input": [3, 3, 8, 8], "absence evidence on the left": [0.1, 0.3, 0.75, 0.85]})
    halves["ink on the left"] = [0.4, 0.4, 0.5, 0.6]
    fig = digits.digit_maps_figure(views, halves, 3, examples=2)
    signed = [image for image in images_in(fig) if image.norm.vmin < 0]
    assert sorted({image.norm.vmax for image in signed}) == [2, 6]
    np.testing.assert_array_equal(signed[0].get_array(), np.eye(8))
    assert fig.get_suptitle().startswith("80% of what speaks against '3' (blue) on 8s")
    assert "55% of the ink" in fig.get_suptitle()
    notes = [ax.get_xlabel() for ax in fig.axes if "left half" in ax.get_xlabel()]
    assert notes[0] == "left half: 20% of the absence\nevidence, 40% of the ink" and "80%" in notes[1]


def test_removal_curves_are_percentages_of_the_table_and_the_removed_pixels_are_framed():
    rates = pd.DataFrame(
        [
            {"treatment": t, "share": s, "rate": s * i / 2, "low": 0, "high": 1}
            for i, t in enumerate(TREATMENTS)
            for s in (0.0, 0.5)
        ]
    )
    gone = np.zeros((8, 8), dtype=bool)
    gone[2, 5] = True
    example = {name: (np.zeros((8, 8)), gone, 3) for name in TREATMENTS}
    fig = digits.removal_figure(
        {"unmodified": (np.zeros((8, 8)), ~gone & gone, 8), **example}, rates, 0.5, 8, 3
    )
    *pictures, ax = fig.axes
    for i, line in enumerate(ax.lines[:3]):
        np.testing.assert_allclose(line.get_xydata(), [[0, 0], [50, 25 * i]])
    assert [len(picture.patches) for picture in pictures] == [0, 1, 1, 1]
    assert (pictures[1].patches[0].get_x(), pictures[1].patches[0].get_y()) == (4.55, 1.55)
    assert pictures[0].get_title() == "unmodified:\nseen as 8"
    title = fig.get_suptitle()
    assert title.startswith("0% of held-out 8s are seen as 3 without the 50%") and "25% if" in title


def test_labels_are_spread_only_where_they_are_too_close():
    assert digits.spread({"a": 50.0, "b": 0.0, "c": 2.0}, 7) == {"a": 50, "b": 0, "c": 7}


def test_class_pairs_leave_out_the_diagonal_and_mark_one_pair():
    pairs = [(unit, source) for unit in range(3) for source in range(3) if unit != source]
    rows = [
        (t, *pair, 0.25 if t == "random" else 0.5 + 0.1 * (pair[0] == 2))
        for t in TREATMENTS
        for pair in pairs
    ]
    rates = pd.DataFrame(rows, columns=["treatment", "unit", "source", "rate"])
    fig = digits.class_pairs_figure(rates, 0.2, marked=(2, 0))
    left, right = fig.axes
    assert [text.get_text() for text in left.texts] == ["50"] * 4 + ["60"] * 2
    assert [text.get_text() for text in right.texts] == ["25"] * 6
    assert left.patches[-1].get_xy() == (0, 2), "column: the digit in the image, row: what it is seen as"
    assert "53% of the images" in fig.get_suptitle() and "ones 25%" in fig.get_suptitle()
    assert [tick.get_text() for tick in left.get_xticklabels()] == ["0", "1", "2"]
    assert {tick.get_rotation() for tick in [*left.get_xticklabels(), *left.get_yticklabels()]} == {0}
