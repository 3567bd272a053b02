"""What all figures share keeps the sign: white is 0, and both sides have the same scale."""

import os
import re

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient

from absence_utils.paths import ROOT
from absence_utils.plots.base import (
    SIGNED,
    companion_style,
    interval_points,
    show_image,
    signed_limit,
    signed_map,
    to_numpy,
    wrapped,
)


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def test_signed_maps_are_centred_at_zero_on_one_scale(ax):
    image = signed_map(ax, torch.tensor([[-1.0, 0.0], [0.5, 3.0]]))
    assert (image.norm.vmin, image.norm.vmax) == (-3.0, 3.0) and image.cmap.name == SIGNED
    red, _, blue, _ = image.cmap(image.norm(3.0))
    assert red > blue, "presence is red"
    red, _, blue, _ = image.cmap(image.norm(-3.0))
    assert blue > red, "absence is blue"
    assert min(image.cmap(image.norm(0.0))) > 0.95, "nothing is white"
    assert signed_map(ax, np.zeros((2, 2)), limit=7).norm.vmax == 7


def test_limits_cover_all_maps_and_are_never_zero():
    assert signed_limit(torch.tensor([1.0]), np.array([-4.0, 2.0])) == 4.0
    assert signed_limit(np.zeros(3)) == 1.0 and signed_limit(np.zeros(0)) == 1.0


def test_images_are_drawn_as_given(ax):
    pixels = torch.rand(3, 4, 5)
    show_image(ax, pixels, "title")
    np.testing.assert_allclose(ax.images[0].get_array(), pixels.permute(1, 2, 0).numpy())
    assert ax.get_title() == "title" and not len(ax.get_xticks())
    show_image(ax, torch.full((1, 2, 2), 0.5))
    assert ax.images[1].norm.vmin == 0 and ax.images[1].norm.vmax == 1, "grey is not stretched"


def test_to_numpy_takes_what_carries_a_gradient():
    assert to_numpy(torch.ones(2, requires_grad=True)).tolist() == [1, 1] == to_numpy([1, 1]).tolist()


def test_points_have_their_intervals_and_stand_alone_where_there_is_none(ax):
    for vertical in (False, True):
        drawn = interval_points(ax, [1.0, 2.0], [5, 6], [0.5, np.nan], [1.75, np.nan], vertical=vertical)
        along = 1 if vertical else 0
        assert drawn.lines[0].get_xydata()[:, along].tolist() == [1, 2]
        (bars,) = drawn.lines[2]
        assert [segment[:, along].tolist() for segment in bars.get_segments()] == [[0.5, 1.75], [2, 2]]


def test_text_is_broken_at_its_words_and_shortened():
    assert wrapped("triangle and not bars", 1.0) == "triangle and\nnot bars"
    assert wrapped("one\ntwo", 5) == "one\ntwo" and wrapped("", 1) == ""
    short = wrapped("a long name of a unit of some layer", 0.7, lines=2)
    assert short.count("\n") == 1 and short.endswith("…") and max(map(len, short.split("\n"))) <= 10


@pytest.mark.notebook
def test_every_figure_of_a_notebook_is_shown_not_only_the_first():
    draw = "from absence_utils.plots.base import companion_style\nimport matplotlib.pyplot as plt\n"
    draw += "with companion_style():\n    fig, _ = plt.subplots()"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(draw) for _ in range(2)])
    environment = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}
    NotebookClient(notebook, kernel_name="python3").execute(env=environment)
    kinds = [[output.output_type for output in cell.outputs] for cell in notebook.cells]
    assert kinds == [["display_data"]] * 2


def test_the_look_ends_with_its_context_also_after_an_error():
    before = plt.rcParams["savefig.dpi"], plt.rcParams["font.size"]
    with pytest.raises(RuntimeError), companion_style():
        assert plt.rcParams["savefig.dpi"] == 200
        raise RuntimeError
    assert (plt.rcParams["savefig.dpi"], plt.rcParams["font.size"]) == before


@pytest.mark.parametrize(
    "path", sorted((ROOT / "absence_utils" / "plots").glob("*.py")), ids=lambda path: path.stem
)
def test_no_text_is_smaller_than_nine_points(path):
    """Figures are drawn for the width of a page: what is smaller cannot be read in print."""
    assert [
        size
        for size in re.findall(r"(?:font|label|title_font)size\W+([\d.]+)", path.read_text())
        if float(size) < 9
    ] == []
