"""Figures of names: the numbers drawn, in the row of their unit, and a title that counts them."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from absence_utils.naming.names import NamingResult, share_table
from absence_utils.naming.truth import describe_names, join_readings
from absence_utils.patches.book import PatchPixels
from absence_utils.plots import naming as plots
from absence_utils.plots.base import ABSENCE, PRESENCE


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def table(names=("disc", "ring", "disc"), confirmed=(True, True, False), reading="signed"):
    """Names of units 4, 5 and 6, each a bit weaker than the one before."""
    effect = np.linspace(-1.2, -0.4, len(names))
    tests = {
        f"{test}{end}": effect + shift + step
        for shift, test in ((0.0, "absolute"), (0.3, "specific"), (-0.2, "active"))
        for end, step in (("", 0), ("_low", -0.1), ("_high", 0.1))
    }
    rows = {"unit": np.arange(4, 4 + len(names)), "reading": reading, "name": names, "confirmed": confirmed}
    return pd.DataFrame(rows | tests | {"repeated": confirmed})


def result(*tables) -> NamingResult:
    return NamingResult(pd.concat(tables), pd.DataFrame(), "block4", None, ["disc", "ring"], 21)


def truth(reading: str = "signed"):
    """Exact effects: the disc is the strongest suppressor of units 4 and 5, the ring of 6."""
    effects = {4: (-1.0, -0.2), 5: (-0.9, -0.85), 6: (0.1, -0.6)}
    rows = [
        (unit, name, value, reading)
        for unit, both in effects.items()
        for name, value in zip(("disc", "ring"), both, strict=True)
    ]
    return pd.DataFrame(rows, columns=["unit", "concept", "effect", "reading"])


def test_named_units_draw_every_test_in_the_row_of_its_patches():
    rows = table()
    pixels = [PatchPixels(torch.full((3, 3, 2, 2), 0.1 * n), torch.full((3, 3, 2, 2), 0.9)) for n in range(3)]
    figure = plots.named_units(rows, pixels)
    *pictures, ax = figure.axes
    assert len(pictures) == 3 * 2 * plots.SHOWN
    second_row = [picture.images[0].get_array()[0, 0, 0] for picture in pictures[6:12]]
    np.testing.assert_allclose(second_row, [0.1] * 3 + [0.9] * 3)
    titles = {picture.get_title(): picture.title.get_color() for picture in pictures if picture.get_title()}
    assert titles == {"highest patches": PRESENCE, "lowest patches": ABSENCE}
    for bars, test in zip(ax.containers, plots.TESTS, strict=True):
        np.testing.assert_allclose(bars.lines[0].get_xdata(), rows[test])
        ends = np.array([segment[:, 0] for segment in bars.lines[2][0].get_segments()])
        np.testing.assert_allclose(ends, rows[[f"{test}_low", f"{test}_high"]])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["4: disc", "5: ring", "6: disc"]
    assert not {PRESENCE, ABSENCE} & set(plots.TESTS.values()), "red and blue are for signs"
    assert figure.get_suptitle().startswith("2 of 3 names") and "−0.40 to −1.20 sd" in figure.get_suptitle()


def test_named_units_stand_at_the_height_of_their_patches():
    pixels = [PatchPixels(*torch.zeros(2, 3, 3, 2, 2))] * 3
    figure = plots.named_units(table(), pixels)
    figure.canvas.draw()
    *pictures, ax = figure.axes
    for row in range(3):
        patch = pictures[row * 2 * plots.SHOWN].get_window_extent()
        _, height = ax.transData.transform((0, row))
        assert patch.y0 < height < patch.y1


def test_the_summary_counts_names_and_draws_them_against_the_truth():
    found, empty = (
        result(table(), table(reading="passed on", confirmed=(False,) * 3)),
        table(confirmed=(False,) * 3),
    )
    shares = share_table({"mine": found, "random weights": result(empty, empty.assign(reading="passed on"))})
    assert shares.confirmed.tolist() == [2, 0, 0, 0] and shares.units.tolist() == [3] * 4
    joined = join_readings(found.table, pd.concat([truth("passed on"), truth()]))
    figure, drawn = plots.naming_summary(shares, joined)
    assert drawn is joined and len(figure.axes) == 3
    assert figure.get_suptitle() == (
        "Confirmed names: mine 2 of 6, random weights 0 of 6;\n1 of 2 are the strongest suppressor"
    )
    lengths = [[bar.get_width() for bar in bars] for bars in figure.axes[0].containers]
    np.testing.assert_allclose(lengths, [[2 / 3, 0], [0, 0]])
    silent, same, other = figure.axes[1].lines[:3]
    assert silent.get_xydata().tolist() == [[-0.6, 0.1]]
    assert same.get_xydata().tolist() == [[-1.0, -1.0]] and other.get_xydata().tolist() == [[-0.9, -0.85]]
    figure, drawn = plots.naming_summary(shares, None)
    assert drawn is shares and len(figure.axes) == 1 and "strongest" not in figure.get_suptitle()


def test_the_sentences_count_as_the_tables_do():
    found = result(table())
    shares = share_table({"mine": found})
    said = describe_names(found, shares, join_readings(found.table, truth()))
    assert said.startswith("Confirmed names: mine, signed: 2 of 3 units. In other hosts 2 of 2 were")
    assert (
        "(signed), 2 are the strongest suppressor or within 0.1 sd of it (1 the strongest), and 0 have"
        in said
    )
    assert "Of the confirmed" not in describe_names(found, shares)


def test_the_strongest_are_the_confirmed_ones_or_all_where_none_is():
    assert result(table(confirmed=(False, True, True))).strongest(1).unit.tolist() == [5]
    assert result(table(confirmed=(False,) * 3)).strongest(2).unit.tolist() == [4, 5]
    both = result(table(), table(reading="passed on", confirmed=(True,) * 3))
    assert set(both.strongest(9).reading) == {"signed"} and len(both.strongest(9)) == 2
