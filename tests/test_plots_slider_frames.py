"""Positions of the sliders of notebooks 01-03: what is drawn is what was computed for that position."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgba

from absence_utils.plots.base import MARK
from absence_utils.plots.digits import release_position
from absence_utils.plots.green_pixel import green_position
from absence_utils.plots.motion import motion_position


@pytest.fixture
def fig():
    return plt.figure(layout="constrained")


def test_motion_marks_the_step_that_is_drawn(fig):
    pairs, responses = np.zeros((3, 2, 4, 4)), np.array([[-1.0, 0.5], [0.0, 1.0], [1.0, 0.5]])
    pairs[0, 1, :, 2] = 1
    motion_position(fig, pairs, responses, [-1, 0, 1], step=-1)
    first, second, curve = fig.axes
    np.testing.assert_array_equal(second.images[0].get_array(), pairs[0, 1])
    assert not first.images[0].get_array().any()
    assert curve.get_title() == "step −1\nunit 0: −1.0000\nunit 1: +0.5000"
    lines, marks = curve.lines[0:4:2], curve.lines[1:4:2]
    for unit in range(2):
        np.testing.assert_array_equal(lines[unit].get_ydata(), responses[:, unit])
        assert marks[unit].get_xydata().tolist() == [[-1, responses[0, unit]]]


def test_green_draws_the_row_of_that_red(fig):
    images, responses = np.zeros((2, 2, 3, 6, 6)), np.arange(8.0).reshape(2, 2, 2)
    images[1, 0, 1, 3, 3] = 1
    green_position(fig, images, responses, [0.0, 1.0], [0.0, 0.5], ["yes", "no"], green=1.0, red=0.0)
    top, below = fig.axes
    np.testing.assert_array_equal(top.images[0].get_array(), images[1, 0].transpose(1, 2, 0))
    assert top.patches[0].center == (3, 3) and below.get_title() == "seen as 'no'"
    np.testing.assert_array_equal(below.lines[0].get_ydata(), responses[:, 0, 0])
    assert below.lines[3].get_xydata().tolist() == [[1.0, responses[1, 0, 1]]]


def test_release_colours_the_unit_and_the_source(fig):
    images, responses = np.zeros((2, 2, 1, 4, 4)), np.zeros((2, 2, 4))
    images[1, 1, 0, 0, 0], responses[1, 1] = 1, [1, -2, 3, 0]
    release_position(fig, images, responses, [0.0, 0.5], 2, 1, share=0.5, example=1)
    top, below = fig.axes
    assert top.get_title() == "50% removed: seen as 2" and top.images[0].get_array()[0, 0] == 1
    assert [bar.get_height() for bar in below.patches] == [1, -2, 3, 0]
    assert below.patches[2].get_facecolor()[:3] == (0, 0, 0)
    assert below.patches[1].get_facecolor() == to_rgba(MARK), "red and blue are for signs"
    assert below.get_ylim() == pytest.approx((-2.1, 3.15)), "the same scale in all positions of one image"
