"""Figures of synthesised images: what is drawn is what was measured."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from absence_utils.plots import visualization as plots
from absence_utils.units import Unit
from absence_utils.visualization.budget import pole_table
from absence_utils.visualization.rendering import RenderedPair, Rendering, Suppression


@pytest.fixture
def unit():
    return Unit(nn.Sequential(nn.Conv2d(3, 2, 1)), "0", 1)


@pytest.fixture
def pair(unit):
    generator = torch.Generator().manual_seed(0)

    def rendering(sign):
        image = torch.rand(2, 3, 8, 8, generator=generator)
        return Rendering(image, torch.tensor([1.0, 3.0]) * sign, sign * torch.arange(10.0).reshape(5, 2))

    return RenderedPair(unit, rendering(1), rendering(-1))


@pytest.fixture
def real():
    return torch.stack([torch.zeros(21), torch.linspace(-2, 2, 21)], 1)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_extremes_shows_the_most_extreme_facet(pair):
    fig = plots.extremes([pair, pair], ["one", "two"])
    for ax, side, title in ((fig.axes[0], pair.highest, "+3"), (fig.axes[2], pair.lowest, "−3")):
        assert title in ax.get_title()
        assert np.allclose(ax.images[0].get_array(), side.image[1].permute(1, 2, 0))
    assert (fig.axes[0].get_ylabel(), fig.axes[2].get_ylabel()) == ("maximum", "minimum")


def test_extremes_counts_the_units_that_lie_beyond_all_real_images(pair, real):
    inside = pole_table([pair, pair], torch.stack([real[:, 0], 2 * real[:, 1]], 1))  # -4..4 holds -3 and 3
    beyond = pole_table([pair, pair], real)
    poles = pd.concat([beyond.iloc[:2], inside.iloc[2:]])
    fig = plots.extremes([pair, pair], ["one", "two"], "net", poles)
    assert (
        fig.get_suptitle()
        == "Minima lie below all real images for 1 of 2 units, maxima above all for 1\n(net)"
    )
    assert "above all: +2.4 sd" in fig.axes[0].get_title() and "percentile" in fig.axes[3].get_title()
    failed = pd.Series({"pole": "maximum", "percentile": 0.0, "distance": -3.0})
    assert (
        plots.natural_place(failed) == "below all: −3.0 sd"
    )  # a maximum that the network answers lower than anything


def test_rendered_pairs_draws_trajectories_and_real_responses(pair, real):
    fig, table = plots.rendered_pairs([pair], real, ["one"], "net", pole_table([pair], real))
    pd.testing.assert_frame_equal(table, plots.pair_numbers([pair], real))
    assert "minima lie 1.7 times" in fig.get_suptitle()  # -3 is as far from 0 as 1.67 times -1.8
    assert "21 real images" in fig.axes[-1].get_title()
    curves, strip = fig.axes[-2:]
    drawn = [line.get_ydata() for line in curves.lines]
    for facet in range(2):
        assert np.allclose(drawn[facet], pair.highest.trajectory[:, facet])
        assert np.allclose(drawn[2 + facet], pair.lowest.trajectory[:, facet])
    places = [np.sort(points.get_offsets()[:, 0]) for points in strip.collections]
    assert np.allclose(places[0], real[:, 1]) and np.allclose(places[1], [1, 3])
    assert np.allclose(places[2], [-3, -1])
    bar = strip.lines[0].get_xdata()
    assert np.allclose(bar, [-1, 1])  # quartiles of -2..2


def test_pair_numbers_hold_everything_drawn(pair, real):
    table = plots.pair_numbers([pair], real)
    assert len(table) == 2 * (2 + 2 * 5) + 7
    lowest = table[table.quantity == "lowest"]
    assert list(lowest.response) == [-1, -3] and set(lowest["at"]) == {5}
    quantiles = table[table.quantity == "real quantile"].set_index("at").response
    assert quantiles[0] == -2 and quantiles[0.5] == pytest.approx(0, abs=1e-6) and quantiles[1] == 2


@pytest.mark.slow
def test_suppressions_are_signed_and_centred(unit):
    change = torch.zeros(3, 8, 8)
    change[:, 2, 3], change[:, 5, 5] = -0.5, 0.2
    original = torch.full((3, 8, 8), 0.5)
    found = Suppression(
        unit, original + change, original, change, 4.0, -1.0, -0.5, torch.linspace(4, -1, 6), 0.01
    )
    missed = replace(found, after=0.0, size=0.02)
    fig, table = plots.suppressions([found, missed], ["one", "two"], "net")
    assert fig.get_suptitle().startswith("1 of 2 units are switched off by a mean change of at most 2.00%")
    drawn = fig.axes[4].images[0]
    assert drawn.get_array()[2, 3] == pytest.approx(-0.5) and drawn.get_array()[5, 5] == pytest.approx(0.2)
    assert drawn.norm.vmin == -drawn.norm.vmax
    assert "+4" in fig.axes[0].get_title() and "−1" in fig.axes[2].get_title()
    assert -0.5 in fig.axes[6].lines[2].get_ydata()
    assert list(table.value[:3]) == [4.0, -1.0, 0.01] and len(table) == 2 * (3 + 6)


def test_a_pair_shows_all_its_facets_with_their_responses(pair):
    figure = pair.show()
    assert len(figure.axes) == 4
    sides = [pair.highest, pair.lowest]
    for number, ax in enumerate(figure.axes):
        side, facet = sides[number // 2], number % 2
        np.testing.assert_allclose(ax.images[0].get_array(), side.image[facet].permute(1, 2, 0))
        shown = ax.get_xlabel().removeprefix("response ").replace("−", "-")
        assert float(shown) == pytest.approx(float(side.response[facet]), rel=0.01)
    assert pair.unit.name in figure.get_suptitle()
    assert [part.get_suptitle() for part in figure.subfigs] == ["maximum", "minimum"]


def test_poles_stand_above_each_other_with_their_patches(pair):
    patches = (torch.rand(4, 3, 6, 6), torch.rand(4, 3, 6, 6))
    fig = plots.poles_and_patches([pair, pair], ["one", "two"], ["a", "b"], "net", [patches, patches])
    assert len(fig.axes) == 2 * 2 * (1 + 3)
    poles = [ax for ax in fig.axes if ax.get_title() in ("one", "two") or ax.get_xlabel() in ("a", "b")]
    for ax, side in zip(poles, (pair.highest, pair.lowest) * 2, strict=True):
        assert np.allclose(ax.images[0].get_array(), side.image[1].permute(1, 2, 0))
    patch = fig.axes[1].images[0].get_array()
    assert np.allclose(patch, patches[0][0].permute(1, 2, 0))
    boxes = [ax.get_position() for ax in fig.axes]
    assert not any(
        one.shrunk(0.99, 0.99).overlaps(other) for one in boxes for other in boxes if one is not other
    )
    assert len(plots.poles_and_patches([pair], ["one"]).axes) == 2  # without patches


def test_free_and_matched_stand_below_each_other(pair, unit):
    other = RenderedPair(unit, pair.lowest, pair.highest, 0.2)
    fig = plots.at_two_contrasts([pair], [other], ["one"])
    shown = [pair.highest, other.highest, pair.lowest, other.lowest]
    for ax, side in zip(fig.axes, shown, strict=True):
        assert np.allclose(ax.images[0].get_array(), side.image[0].permute(1, 2, 0))
    assert ["free" in ax.get_ylabel() for ax in fig.axes] == [True, False, True, False]


def test_a_frame_shows_all_maxima_above_all_minima(unit):
    frames = [torch.full((2, 1, 3, 4, 4), value) for value in (0.2, 0.4)]
    sides = [Rendering(each[0], torch.zeros(1), torch.zeros(1, 1), each) for each in frames]
    frame = plots.growing([RenderedPair(unit, *sides)] * 3, 1)
    assert frame.shape == (3, 2 * 10, 3 * 10)
    assert frame[:, 5, 5].tolist() == pytest.approx([0.2] * 3)
    assert frame[:, 15, 25].tolist() == pytest.approx([0.4] * 3)
    assert (frame[:, 0] == 1).all()


def test_contrast_curves_draw_both_poles_the_natural_band_and_contrast(pair, real):
    grid = [0.0, 0.1, 0.2]
    rows = [("n", pole, at, sign * at) for pole, sign in (("maximum", 1), ("minimum", -2)) for at in grid]
    curve = pd.DataFrame(rows, columns=["unit", "pole", "contrast", "response"])
    natural = [("n", pole, -1.0, 1.0) for pole in ("maximum", "minimum")]
    poles = pd.DataFrame(natural, columns=["unit", "pole", "low", "high"])
    fig = plots.contrast_curves(curve, poles, torch.tensor([0.1, 0.3, 0.4]), ["one"])
    up, down, dotted = (line.get_xydata() for line in fig.axes[0].lines)
    assert np.allclose(up[:, 1], [0, 0.1, 0.2]) and np.allclose(down[:, 1], [0, -0.2, -0.4])
    assert np.allclose(dotted[:, 0], 0.3)
    assert "0 of 1 minima (blue) and 0 of 1 maxima" in fig.get_suptitle()  # -0.4 and 0.2 are inside
    poles[["low", "high"]] = (-0.3, 1.0)
    fig = plots.contrast_curves(curve, poles, torch.tensor([0.2]), ["one"])
    assert "1 of 1 minima (blue) and 0 of 1 maxima" in fig.get_suptitle()
    poles[["low", "high"]] = (-1.0, 1.0)
    fig = plots.contrast_curves(curve, poles, torch.tensor([0.1, 0.3, 0.4]), ["one"])
    band = fig.axes[0].patches[0]
    assert (band.get_y(), band.get_y() + band.get_height()) == (-1, 1)
