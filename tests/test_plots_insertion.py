"""Figures of patch insertion: the numbers drawn, not the picture."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.patches import Rectangle

from absence_utils import InputError
from absence_utils.plots import insertion as plots

UNITS = [3, 8, 5]


def published():
    rows = [
        (unit, condition, 10 * place + index, 1.0)
        for place, condition in enumerate(plots.KIND)
        for index, unit in enumerate(UNITS)
    ]
    return pd.DataFrame(rows, columns=["unit", "condition", "mean", "sd"])


def scores():
    rows = []
    for condition in ("random patch", "centre"):
        for index, unit in enumerate(UNITS):
            value = index + (0.5 if condition == "centre" else 0.0)
            rows.append((unit, "absence", condition, value, value - 0.2, value + 0.3))
    rows += [(unit, "veto", "median images", -0.1 * unit, -0.1 * unit - 0.05, 0.0) for unit in UNITS]
    table = pd.DataFrame(rows, columns=["unit", "score", "condition", "value", "low", "high"])
    return table.assign(dipped=table.unit.map(dict(zip(UNITS, [0.0, 1.5, 3.0], strict=True))))


def test_published_table_draws_means_over_units_of_mean_and_sd_over_images():
    rows = [("a", unit, True, unit < 6, unit < 7) for unit in range(8)]
    rows += [("b", unit, unit < 1, unit < 1, np.nan) for unit in range(2)]
    columns = ["network", "unit", "published", "published_lower", "all_pairs_lower"]
    table = published().assign(sd=lambda rows: rows["mean"] / 2)
    figure = plots.published_table({"a": table, "b": table}, pd.DataFrame(rows, columns=columns))
    first, second = (ax.get_title() for ax in figure.axes)
    assert (
        "significant in 100%, and lower in 75%" in first and "significant in 50%, and lower in 50%" in second
    )
    assert "from +21.0 to +11.0 in a" in figure.get_suptitle()
    for ax in figure.axes:
        assert [text.get_text() for text in ax.texts][:2] == ["+1.00 ± 0.500", "+11.0 ± 5.50"]
        marks = [container.lines[0].get_xydata().tolist()[0] for container in ax.containers]
        assert marks == [[10 * place + 1, place] for place in range(len(plots.KIND))]


def test_responses_are_in_standard_deviations_from_the_mean_over_images():
    figure = plots.responses_by_condition(published(), pd.Series({8: 4.0, 3: 2.0, 5: 5.0}), "maps")
    title = figure.axes[0].get_title()
    assert "lower 3 of 3 units of maps, the median one by 2.50 sd" in title
    lines = [line.get_ydata() for line in figure.axes[0].lines[: len(UNITS)]]
    for line, spread in zip(lines, (2.0, 5.0, 4.0), strict=True):  # units 3, 5, 8
        np.testing.assert_allclose(line, np.arange(len(plots.KIND)) * 10 / spread)


def test_absence_scores_sort_units_and_show_intervals_and_inflation():
    figure = plots.absence_scores(scores(), limit=0.7, strongest=2)
    left, middle, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["5", "8"]  # strongest first, on top
    assert left.get_yticks().tolist() == [1, 0]
    (segments,) = [each.get_segments() for each in left.collections]
    np.testing.assert_allclose([s[:, 0] for s in segments], [[1.8, 2.3], [0.8, 1.3]])
    assert [0.7, 0.7] in [list(line.get_xdata()) for line in left.lines]
    np.testing.assert_allclose(left.lines[0].get_xdata(), [2, 1])  # one control, the random patch
    np.testing.assert_allclose(middle.lines[0].get_xdata(), [-0.5, -0.8])
    points = right.lines[0]
    assert points.get_xdata().tolist() == [0, 1, 2] and points.get_ydata().tolist() == [0, 1.5, 3]
    assert "1.50" in right.get_title()
    assert "lower 2 of 3 units" in figure.get_suptitle() and "veto score is −0.30 sd" in figure.get_suptitle()


def test_verdicts_are_dots_at_the_share_of_units():
    rows = [("a", unit, unit < 3, float(unit < 1), unit < 2, unit == 0, 0.1 * unit) for unit in range(4)]
    rows += [("additive units", unit, True, np.nan, unit < 1, False, 0.0) for unit in range(2)]
    columns = ["network", "unit", "published", "all_pairs_lower", "suppressed", "vetoed", "veto"]
    figure = plots.verdict_dots(pd.DataFrame(rows, columns=columns))
    left, right = figure.axes
    drawn = {line.get_label(): list(line.get_xdata()) for line in left.lines}
    shares = [drawn[label] for label, *_ in plots.VERDICTS.values()]
    np.testing.assert_allclose(shares, [[75, 100], [50, 50], [25, 0]])
    dashed = [line for line in left.lines if line.get_linestyle() == "--"]
    assert [list(line.get_xdata()) for line in dashed] == [[plots.LEVEL] * 2]
    written = {text.get_text() for text in left.texts}
    assert {"75%", "100%", "50%", "25%", "0%"} <= written
    assert [label.get_text() for label in left.get_yticklabels()] == [
        "a\n(4 units)",
        "additive units\n(inhibit nothing, 2)",
    ]
    black = [line for line in right.lines if line.get_color() == "black" and line.get_marker() == "o"]
    assert [line.get_xdata().tolist() for line in black if len(line.get_xdata())] == [[0.0]]
    assert "inhibit nothing the published test flags 100%, the veto score 0%" in figure.get_suptitle()
    only = pd.DataFrame(rows[:4], columns=columns)
    assert plots.verdict_dots(only).get_suptitle() == "", "no additive units, no claim about them"


def test_contexts_are_shares_of_the_units_that_were_asked():
    rows = [("a", unit, reading, "none of that size", unit < 1 if unit < 4 else None)
            for unit in range(8) for reading in ("signed", "passed on")]  # fmt: skip
    rows += [("b", unit, "signed", "cannot tell", True) for unit in range(3)]
    table = pd.DataFrame(rows, columns=["network", "unit", "reading", "decision", "found"])
    table = table.assign(delta=0.5).astype({"found": "boolean"})
    figure = plots.decision_bars(table)
    assert figure.get_suptitle() == "Of a 0% of the units encode an absence; 1 of 4 depend on context"
    *_, right = figure.axes
    assert [bar.get_width() for bar in right.patches] == [25, 100]
    assert [text.get_text() for text in right.texts] == ["1 of 4", "3 of 3"]
    assert right.get_xlabel() == "units asked (%)"


def test_pooling_bars_flag_units_of_the_minimum():
    table = pd.DataFrame(
        [("mean", 0, True, False, False, 0.1), ("mean", 1, True, True, False, 0.4),
         ("min", 0, True, True, True, 2.0), ("min", 1, False, True, False, 1.0)],
        columns=["pool", "unit", "published", "suppressed", "only_min", "absence"],
    )  # fmt: skip
    figure = plots.pooling_bars(table)
    assert figure.get_suptitle().endswith("0.2 sd by mean, 1.5 sd by min")
    left, right = figure.axes
    heights = [[bar.get_height() for bar in container] for container in left.containers]
    assert heights == [[100, 50], [50, 100]] and left.get_title().startswith("1 of 2 units")
    lines = {tuple(line.get_ydata()): line.get_color() for line in right.lines[:2]}
    assert lines[(0.1, 2.0)] != lines[(0.4, 1.0)]


@pytest.mark.parametrize("channels", [1, 3])
def test_examples_frame_the_patch_and_name_the_response(channels):
    pictures = {
        unit: {name: torch.rand(channels, 9, 9) for name in ("top: untouched", "top: lowest")}
        for unit in (4, 2)
    }
    rows = [
        (unit, name, value, 0, 5, 4 * (name == "top: lowest"))
        for unit in (4, 2)
        for name, value in (("top: untouched", 1.5), ("top: lowest", -0.25))
    ]
    table = pd.DataFrame(rows, columns=["unit", "condition", "response", "top", "left", "side"])
    figure = plots.insertion_examples(pictures, table)
    assert [ax.get_xlabel() for ax in figure.axes] == ["+1.50 sd", "−0.250 sd"] * 2
    assert [ax.get_title() for ax in figure.axes] == ["top\nuntouched", "top\nlowest", "", ""]
    assert [ax.get_ylabel() for ax in figure.axes] == ["unit 4", "", "unit 2", ""]
    boxes = [[p for p in ax.patches if isinstance(p, Rectangle)] for ax in figure.axes]
    assert [len(each) for each in boxes] == [0, 1, 0, 1]
    assert boxes[1][0].get_xy() == (4.5, -0.5) and boxes[1][0].get_width() == 4


def test_examples_leave_room_for_what_a_unit_lacks():
    """The first unit has no neutral image; the second has: its picture stands under its own title."""
    names = {4: ["top: lowest"], 2: ["top: lowest", "neutral: lowest"]}
    pictures = {unit: {name: torch.rand(3, 9, 9) for name in own} for unit, own in names.items()}
    rows = [(unit, name, 1.0, 0, 0, 4) for unit, own in names.items() for name in own]
    table = pd.DataFrame(rows, columns=["unit", "condition", "response", "top", "left", "side"])
    axes = plots.insertion_examples(pictures, table).axes
    assert [ax.get_title() for ax in axes[:2]] == ["top\nlowest", "neutral\nlowest"]
    assert [len(ax.images) for ax in axes] == [1, 0, 1, 1]


def test_insertion_shows_both_images_alike_and_the_difference():
    random, lowest = torch.full((1, 3, 4, 4), -1.0), torch.full((1, 3, 4, 4), 3.0)
    random[..., 0] = 1.0
    figure = plots.show_insertion(random, lowest, torch.tensor([-2.5]))
    left, right = (np.asarray(ax.images[0].get_array()) for ax in figure.axes)
    np.testing.assert_allclose([left[0, 0], left[0, 1], right[0, 0]], [[0.5] * 3, [0.0] * 3, [1.0] * 3])
    assert figure.get_suptitle().endswith("−2.50")
    kept = plots.show_insertion(random.clamp(0, 1) / 2, lowest.clamp(0, 1) / 2, 1.0)
    assert np.asarray(kept.axes[1].images[0].get_array()).max() == 0.5, "pixels are shown as they are"
    with pytest.raises(InputError, match="lowest"):
        plots.show_insertion(random, lowest[..., :3], 1.0)
