"""Figures of notebooks 01-03: what is drawn is what was given."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from absence_utils.attribution.removal import TREATMENTS
from absence_utils.plots import digits, green_pixel, motion


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
    green_pixel.weight_heatmap(ax, np.array([[1.0, -3.0]]), ["row"], ["a", "b"], "weights")
    assert ax.collections[0].get_clim() == (-3, 3)
    assert [text.get_text() for text in ax.texts] == ["+1.0", "-3.0"]


def test_convergence_counts_the_runs_that_arrive():
    table = pd.DataFrame(
        {"recipe": ["x"] * 3 + ["y"] * 2, "seed": [0, 1, 2, 0, 1], "accuracy": [1, 0.99, 0.98, 0.5, 0.6]}
    )
    texts = [text.get_text() for text in green_pixel.convergence_figure(table).axes[0].texts]
    assert texts == ["2 of 3 runs", "0 of 2 runs"]


@pytest.mark.slow
def test_green_pixel_figure_rings_green_and_centres_maps():
    image, mask = np.zeros((3, 8, 8)), np.zeros((8, 8), dtype=bool)
    mask[2, 3] = True
    fig = green_pixel.green_pixel_figure(
        [(image, mask, "s")] * 2, (np.eye(2, 3), np.eye(2), ["g", "o"], ["yes", "no"]),
        [(np.eye(8), mask, "m")] * 2, [(np.zeros((2, 3, 7, 7)), "p")] * 2)  # fmt: skip
    rings = [patch for ax in fig.axes for patch in ax.patches if type(patch).__name__ == "Circle"]
    assert [ring.center for ring in rings] == [(3, 2)] * 4
    limits = [image.norm for image in images_in(fig) if image.norm.vmin < 0]
    assert len(limits) == 2 and all(norm.vmin == -norm.vmax for norm in limits)


def test_digit_maps_share_scales_within_their_kind():
    maps = np.stack([3 * np.eye(8), -np.eye(8)])  # the mean is eye(8)
    rows = [("a", np.ones((2, 8, 8)), maps, ""), ("b", np.ones((2, 8, 8)), -2 * maps, "")]
    fig = digits.digit_maps_figure(rows, 3, examples=2)
    signed = [image for image in images_in(fig) if image.norm.vmin < 0]
    assert sorted({image.norm.vmax for image in signed}) == [2, 6]
    np.testing.assert_array_equal(signed[0].get_array(), np.eye(8))


def test_removal_curves_are_percentages_of_the_table():
    rates = pd.DataFrame(
        [
            {"treatment": t, "share": s, "rate": s * i / 2, "low": 0, "high": 1}
            for i, t in enumerate(TREATMENTS)
            for s in (0.0, 0.5)
        ]
    )
    examples = {name: (np.zeros((2, 8, 8)), [8, 3]) for name in ("untouched", *TREATMENTS)}
    ax = digits.removal_figure(examples, rates, 0.5, "8", "3").axes[-1]
    for i, line in enumerate(ax.lines[:3]):
        np.testing.assert_allclose(line.get_xydata(), [[0, 0], [50, 25 * i]])


def test_class_pairs_leave_out_the_diagonal():
    rates = np.full((3, 3), 0.25)
    np.fill_diagonal(rates, np.nan)
    fig = digits.class_pairs_figure({"one": rates, "two": rates}, 0.2)
    assert [len(ax.texts) for ax in fig.axes] == [6, 6] and fig.axes[0].texts[0].get_text() == "25"
