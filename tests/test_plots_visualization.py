"""Figures of synthesised images: what is drawn is what was measured."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

from absence_utils.plots import visualization as plots
from absence_utils.units import Unit
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
    for ax, side, title in ((fig.axes[0], pair.highest, "+3"), (fig.axes[2], pair.lowest, "-3")):
        assert title in ax.get_title()
        assert np.allclose(ax.images[0].get_array(), side.image[1].permute(1, 2, 0))
    assert (fig.axes[0].get_ylabel(), fig.axes[2].get_ylabel()) == ("maximum", "minimum")


def test_rendered_pairs_draws_trajectories_and_real_responses(pair, real):
    fig = plots.rendered_pairs([pair], real, ["one"])
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
    fig = plots.suppressions([found, found], ["one", "two"])
    drawn = fig.axes[4].images[0]
    assert drawn.get_array()[2, 3] == pytest.approx(-0.5) and drawn.get_array()[5, 5] == pytest.approx(0.2)
    assert drawn.norm.vmin == -drawn.norm.vmax
    assert "+4" in fig.axes[0].get_title() and "-1" in fig.axes[2].get_title()
    assert -0.5 in fig.axes[6].lines[2].get_ydata()
    table = plots.suppression_numbers([found])
    assert list(table.value[:3]) == [4.0, -1.0, 0.01] and len(table) == 3 + 6


def test_a_pair_shows_all_its_facets_with_their_responses(pair):
    figure = pair.show()
    assert len(figure.axes) == 4
    sides = [pair.highest, pair.lowest]
    for number, ax in enumerate(figure.axes):
        side, facet = sides[number // 2], number % 2
        np.testing.assert_allclose(ax.images[0].get_array(), side.image[facet].permute(1, 2, 0))
        assert float(ax.get_xlabel().replace("−", "-")) == pytest.approx(
            float(side.response[facet]), rel=0.01
        )
    assert pair.unit.name in figure.get_suptitle()
    assert [part.get_suptitle() for part in figure.subfigs] == ["maximum", "minimum"]
