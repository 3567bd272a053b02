"""Figures of extreme patches: the numbers and pixels drawn, not the picture."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from absence_utils.plots.base import ABSENCE, PRESENCE
from absence_utils.plots.patches import (
    contact_sheet,
    content_map,
    response_shapes,
    signed_number,
)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def sheet(pairs):
    patches = {unit: tuple(torch.rand(3, 3, 5, 5) for _ in range(2)) for unit in (4, 7)}
    rows = [
        (unit, side, rank, sign * (10 * unit + rank + 0.5))
        for unit in patches
        for side, sign in (("highest", 1), ("lowest", -1))
        for rank in range(0 if pairs else 1, 4)
    ]
    table = pd.DataFrame(rows, columns=["unit", "side", "rank", "response"])
    table = table.sample(frac=1, random_state=0)  # the order of the rows says nothing
    one = SimpleNamespace(image=torch.rand(1, 3, 8, 8))
    pair = SimpleNamespace(highest=one, lowest=one)
    titles = {4: "first", 7: "second"}
    return patches, contact_sheet(patches, table, titles, dict.fromkeys(patches, pair) if pairs else None)


@pytest.mark.parametrize("pairs", [False, True])
def test_contact_sheet_shows_every_patch_with_its_response(pairs):
    patches, figure = sheet(pairs)
    assert len(figure.axes) == 2
    for ax, unit, title in zip(figure.axes, (4, 7), ("first", "second"), strict=True):
        first = 0 if pairs else 1
        assert len(ax.images) == 2 * (4 - first)
        drawn = [image.get_array() for image in ax.images]
        expected = patches[unit][1][2].numpy().transpose(1, 2, 0)
        np.testing.assert_allclose(drawn[-1], expected, atol=1e-6)
        texts = [text.get_text() for text in ax.texts]
        up, down = ([f"{sign}{10 * unit + rank}.5" for rank in range(first, 4)] for sign in "+−")
        assert texts == [title, "highest", *up, "lowest", *down]


def test_rows_do_not_overlap_and_stay_on_the_page():
    _, figure = sheet(True)
    for ax in figure.axes:
        (width, height), boxes = (
            (ax.get_xlim()[1], ax.get_ylim()[0]),
            [image.get_extent() for image in ax.images],
        )
        assert all(
            0 < left < right <= width and 0 < top < bottom <= height for left, right, bottom, top in boxes
        )
        rights, lefts = [box[1] for box in boxes[:3]], [box[0] for box in boxes[1:4]]
        assert all(right < left for right, left in zip(rights, lefts, strict=True))
        assert boxes[0][2] < boxes[-1][3]
        scale = ax.get_position().height * figure.get_figheight() / height
        assert scale == pytest.approx(figure.get_figwidth() / width)  # square patches


def test_grey_images_are_drawn_in_grey():
    table = pd.DataFrame(
        [(0, side, 1, 0.0) for side in ("highest", "lowest")], columns=["unit", "side", "rank", "response"]
    )
    figure = contact_sheet({0: (torch.full((1, 1, 2, 2), 0.25),) * 2}, table, {0: ""})
    assert np.unique(figure.axes[0].images[0].get_array()).tolist() == [0.25]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12, "+12.0"),
        (-0.045, "−0.0450"),
        (-2604.4, "−2,604"),
        (999.7, "+1,000"),
        (0, "+0.00"),
        (123.4, "+123"),
    ],
)
def test_numbers_show_their_sign(value, text):
    assert signed_number(value) == text


def test_the_title_of_several_sheets_says_how_far_patches_push_down():
    """Synthesised images, of rank 0, do not count: those of unit 4 answer -40.5 and those of unit 7 -70.5."""
    _, figure = sheet(True)
    said = figure.get_suptitle()
    assert said.startswith("Patches push 2 of 2 units below zero") and said.endswith("−73.5 to −43.5")
    table = pd.DataFrame({"unit": [4, 7], "side": "lowest", "rank": 1, "response": [-1.0, 2.0]})
    table = pd.concat([table, table.assign(side="highest", response=5.0)])
    figure = contact_sheet({unit: (torch.rand(1, 3, 5, 5),) * 2 for unit in (4, 7)}, table, {4: "", 7: ""})
    assert figure.get_suptitle().startswith("Patches push 1 of 2 units below zero")


def test_shapes_are_counted_on_their_low_side():
    """Units that never change count in no panel."""
    columns = {"p5_sd": [-2.0, 0.0, 1.0, np.nan], "share_below": [0.9, 0.4, 0.0, np.nan]}
    network, copy = pd.DataFrame(columns), pd.DataFrame({"p5_sd": [-1.0, -0.5], "share_below": [0.6, 1.0]})
    figure = response_shapes({"trained": network, "random 1": copy, "random 2": network})
    left, right = figure.axes
    assert figure.get_suptitle() == "1 of 4 units have a low side (copies with random weights: 1 to 2)"
    counts = zip(("trained", "random 1", "random 2"), (1, 2, 1), strict=True)
    assert names_of(left) == [f"{name}\n{count} left of 0" for name, count in counts]
    assert names_of(right) == [f"{share}% right\nof 0.5" for share in (33, 100, 33)]
    for ax, column in ((left, "p5_sd"), (right, "share_below")):
        for row, (table, points) in enumerate(zip((network, copy, network), ax.collections, strict=True)):
            across, down = points.get_offsets().T
            assert across.tolist() == table[column].dropna().tolist() and np.abs(down - row).max() <= 0.25
    assert "not compared" in response_shapes({"trained": network}).get_suptitle()


def names_of(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def test_content_map_is_signed_and_frames_what_was_planted():
    rows = [
        (unit, side, concept, 10.0 * i - 20 * j + (5 if side == "lowest" else 0))
        for side in ("highest", "lowest")
        for i, unit in enumerate(("u", "v"))
        for j, concept in enumerate(("z", "a", "m"))
    ]
    table = pd.DataFrame(rows, columns=["unit", "side", "concept", "excess"])
    effect = {("u", "z"): 0.5, ("v", "a"): -0.5}
    table["planted"] = [effect.get(names, 0.0) for names in zip(table.unit, table.concept, strict=True)]
    figure = content_map(table)
    high, low = figure.axes[:2]
    assert high.images[0].get_array().tolist() == [[0, -20, -40], [10, -10, -30]]
    assert high.images[0].get_clim() == low.images[0].get_clim() == (0, 40)
    assert [(p.get_x() + 0.5, p.get_y() + 0.5) for p in high.patches] == [(0, 0)]
    assert [(p.get_x() + 0.5, p.get_y() + 0.5) for p in low.patches] == [(1, 1)]
    assert "0 of 1 planted absences lead their row among the lowest" in figure.get_suptitle()  # "z" does
    table.loc[(table.side == "lowest") & (table.unit == "v") & (table.concept == "a"), "excess"] = 30.0
    said = content_map(table).get_suptitle()
    assert said.startswith("1 of 1 planted absences lead") and said.endswith("0 of 1 among the highest")
    assert high.get_title(loc="center").startswith("highest") and PRESENCE != ABSENCE
