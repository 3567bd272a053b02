"""Figures of maps: what is drawn, not how its pixels come out."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from absence_utils.plots.attribution import (
    absence_heatmap,
    methods_compared,
    signed_overlay,
    smoothed,
    target_against_non_target,
)


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def some_maps(n, edge=16):
    return SimpleNamespace(
        pixels=torch.rand(n, 3, edge, edge),
        signed=torch.randn(n, edge, edge),
        response=torch.arange(float(n)),
        gap=torch.tensor([0.5] * n),
        captions=[f"scene {i}" for i in range(n)],
    )


def test_smoothing_keeps_the_sum_and_the_sign():
    values = np.zeros((2, 64, 64))
    values[0, 30, 30], values[1, 20, 20] = 3.0, -2.0
    found = smoothed(values, 0.03)
    np.testing.assert_allclose(found.sum(axis=(1, 2)), [3.0, -2.0])
    assert found[0].min() >= 0 and found[1].max() <= 0


def test_overlay_is_red_for_presence_blue_for_absence_and_the_pale_image_at_zero():
    _, ax = plt.subplots()
    values = np.array([[1.0, -1.0, 0.0, 0.1, 3.0]])
    scale = signed_overlay(ax, np.full((3, 1, 5), 0.5), values, limit=1.0)
    red, blue, none, little, beyond = ax.images[-1].get_array()[0]
    assert red[0] > 2 * red[2] and blue[2] > 2 * blue[0]
    assert np.allclose(none, 0.7 + 0.3 * 0.5)
    assert none[2] > little[2] > red[2]  # more evidence, more colour, less image
    assert np.allclose(beyond, red)
    assert scale.norm.vmin == -scale.norm.vmax == -1


def test_target_figure_shows_every_input_and_its_map():
    rows = [
        ("u", some_maps(1), some_maps(3), "class 'u'"),
        ("v", some_maps(2), some_maps(3), "median response"),
    ]
    figure = target_against_non_target(rows, "integrated gradients")
    drawn = [ax for ax in figure.axes if ax.images]
    assert len(drawn) == 2 * (1 + 3 + 2 + 3)
    assert sum(ax.get_xlabel().startswith("response") for ax in figure.axes) == 9


def test_methods_figure_states_gap_and_scale():
    sides = [
        (title, {"deeplift": some_maps(1), "gradcam": some_maps(1)}) for title in ("target", "non-target")
    ]
    figure = methods_compared(sides)
    assert [ax.get_title() for ax in figure.axes[:3]] == ["target", "deeplift", "gradcam"]
    assert "gap +50 %" in figure.axes[1].get_xlabel() and "\u00b1" in figure.axes[1].get_xlabel()


def test_heatmap_draws_the_numbers_and_outlines_planted_cells():
    matrix = pd.DataFrame([[0.5, -0.25], [0.0, 1.0]], index=["u", "v"], columns=["a", "b"])
    figure = absence_heatmap(matrix, [(0, 1), (1, 1)], subject="concept")
    ax = figure.axes[0]
    assert [text.get_text() for text in ax.texts] == ["0.50", "-0.25", "0.00", "1.00"]
    assert [patch.get_xy() for patch in ax.patches] == [(1, 0), (1, 1)]  # x is the column
    mesh = ax.collections[0]
    assert (mesh.norm.vmin, mesh.norm.vmax) == (-1, 1)  # symmetric as soon as there is a negative entry
    assert mesh.cmap(1.0)[2] > mesh.cmap(1.0)[0]  # absence is blue
    assert ax.get_xlabel() == "concept of the input"


def test_heatmap_of_all_positive_evidence_starts_at_zero():
    mesh = absence_heatmap(pd.DataFrame([[0.5, 2.0]])).axes[0].collections[0]
    assert (mesh.norm.vmin, mesh.norm.vmax) == (0, 2)
