"""What is printed is a line, whatever arrays are inside; what is looked at is drawn once."""

from dataclasses import dataclass, field

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from absence_utils import Unit, load_images, load_model, mine_patches, render_pair
from absence_utils.attribution import diagnose, draw_maps, matrix_columns, screen
from absence_utils.display import one_line
from absence_utils.plots.base import drawn_once


@dataclass(frozen=True)
class Held:
    tensor: torch.Tensor
    array: np.ndarray
    table: pd.DataFrame
    network: nn.Module
    lines: str
    pieces: list
    number: float
    names: tuple
    missing: None = None
    hidden: int = field(default=0, repr=False)

    __repr__ = one_line


def test_arrays_and_tables_are_shown_by_shape_and_short_values_as_they_are():
    held = Held(
        torch.zeros(2, 3), np.zeros(4), pd.DataFrame({"a": [1, 2]}), nn.Sequential(nn.Linear(1, 1)), "x\n" * 99,
        [torch.zeros(2)], 0.5, ("a", "b"),
    )  # fmt: skip
    assert repr(held) == (
        "Held(tensor=[2, 3], array=[4], table=[2, 1], network=Sequential, lines=str, pieces=1 items, number=0.5, "
        "names=('a', 'b'), missing=None)"
    )


@pytest.fixture(scope="module")
def results(layer_study):
    model = load_model("concept_scenes")
    scenes, unit = load_images("concept_scenes", model, limit=6), Unit(model, "logits", 1)
    book = mine_patches(model, "block4", scenes, patch=24, stride=20, k=3)
    pair = render_pair(unit, steps=2, size=64, facets=2)
    found = screen([unit], scenes)
    maps = draw_maps(unit, scenes, torch.arange(2), matrix_columns(scenes), "input_x_gradient")
    diagnosed = diagnose(unit, scenes[0][0], ["black"], "deeplift")
    return book, book.highest, pair, pair.highest, found, maps, diagnosed, layer_study[0]


def test_every_result_prints_as_one_line_without_arrays(results):
    for result in results:
        line = repr(result)
        assert "\n" not in line and len(line) < 250 and "tensor(" not in line and "array(" not in line, line
        assert line.startswith(type(result).__name__)


def test_a_book_and_a_pair_say_what_they_hold(results):
    book, _, pair = results[:3]
    assert repr(book) == (
        "PatchBook of block4: 64 units, 3 highest and lowest patches of 24 px each, out of 54 in 6 images"
    )
    high, low = float(pair.highest.response.max()), float(pair.lowest.response.min())
    up, down = len(pair.highest.image), len(pair.lowest.image)
    assert (
        repr(pair)
        == f"RenderedPair of logits:1: highest {high:.4g}, lowest {low:.4g} ({up} and {down} images, 64 x 64 px)"
    )


@pytest.mark.parametrize("backend, left", [("module://matplotlib_inline.backend_inline", 0), ("agg", 1)])
def test_a_notebook_draws_a_figure_as_the_value_of_its_cell_only(backend, left):
    before = matplotlib.get_backend()
    plt.switch_backend(backend)
    try:
        figure = plt.figure()
        assert drawn_once(figure) is figure
        assert len(plt.get_fignums()) == left  # what the backend would draw again at the end of the cell
    finally:
        plt.switch_backend(before)
