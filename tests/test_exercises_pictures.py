"""Pictures of exercises: frames and maps as given, signed maps on one centred scale."""

import numpy as np
import pandas as pd
from checks import pictures
from checks.pictures import account_bars, frame_pairs, image_row


def shown(fig):
    return [ax.images[0] for ax in fig.axes if ax.images]


def test_frames_stand_in_columns_of_pairs():
    pairs = np.zeros((2, 2, 4, 4))
    pairs[1, 0, :, 2] = 1
    fig = frame_pairs(pairs, ["a", "b"])
    first = shown(fig)
    assert [ax.get_title() for ax in fig.axes[:2]] == ["a", "b"]
    np.testing.assert_array_equal(first[1].get_array(), pairs[1, 0])
    assert not first[3].get_array().any()


def test_rows_have_a_name_each_and_images_in_their_order():
    first, second = np.zeros((2, 1, 4, 4)), np.zeros((2, 1, 4, 4))
    second[1, 0, 2] = 1
    fig = pictures.image_rows({"before": first, "after": second}, [["a", "b"], ["c", "d"]])
    assert [ax.get_title() for ax in fig.axes] == ["a", "b", "c", "d"]
    assert [ax.get_ylabel() for ax in fig.axes] == ["before", "", "after", ""]
    np.testing.assert_array_equal(shown(fig)[3].get_array(), second[1, 0])
    np.testing.assert_raises(
        ValueError, pictures.image_rows, {"before": first, "after": second}, [["a", "b"], ["c"]]
    )


def test_signed_frames_share_one_scale():
    pairs = np.zeros((2, 2, 4, 4))
    pairs[1, 0, 0, 0] = -3
    fig = frame_pairs(pairs, ["a", "b"], signed=True)
    maps = [image for image in shown(fig) if image.get_array().shape == (4, 4)]
    assert len(maps) == 4 and {(image.norm.vmin, image.norm.vmax) for image in maps} == {(-3, 3)}


def test_a_row_mixes_images_and_maps():
    picture, signed = np.zeros((3, 4, 4)), np.eye(4)
    fig = image_row([(picture, "image"), (signed, "map"), (-2 * signed, "other")])
    norms = [image.norm for image in shown(fig)[1:3]]
    assert [(norm.vmin, norm.vmax) for norm in norms] == [(-2, 2)] * 2
    assert [ax.get_title() for ax in fig.axes[:3]] == ["image", "map", "other"]
    assert fig.axes[-1].get_xlabel() == "blue: negative, red: positive"
    assert len(image_row([(picture, "image")]).axes) == 1, "no scale without a map"


def test_every_term_of_an_account_is_a_bar_of_its_own_with_its_number():
    columns = ("case", "verdict", "baseline_response", "presence", "absence", "response")
    rows = [
        ("not B, shows B", "held down", 1.0, 0.0, 1.0, 0.0),
        ("two", "outweighed", 0.0, 0.5, 0.5001, -1e-5),
    ]
    fig = account_bars(pd.DataFrame(rows, columns=columns))
    first, second = fig.axes
    assert [bar.get_width() for bar in first.patches] == [1, 0, -1, 0]
    assert {bar.get_x() for bar in first.patches} == {0}, "none starts where another ends"
    assert len({bar.get_y() for bar in first.patches}) == 4
    assert [text.get_text() for text in second.texts] == ["0", "0.5", "−0.5", "0"]
    assert [ax.get_title() for ax in fig.axes] == ["not B\nshows B\nheld down", "two\noutweighed"]
    assert first.get_xlim() == second.get_xlim() and first.yaxis_inverted()


def test_titles_have_a_true_minus_before_numbers():
    fig = image_row([(np.zeros((3, 4, 4)), "-22.3"), (np.eye(4), "non-target, -1")])
    assert [ax.get_title() for ax in fig.axes[:2]] == ["−22.3", "non-target, −1"]
    assert frame_pairs(np.zeros((1, 2, 4, 4)), ["response -0.143"]).axes[0].get_title() == "response −0.143"
