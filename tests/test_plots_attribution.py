"""Figures of maps: what is drawn, not how its pixels come out."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from absence_utils.attribution.maps import Maps, maps_table
from absence_utils.errors import InputError
from absence_utils.images.base import IMAGENET
from absence_utils.plots.attribution import (
    ANNOTATED,
    KINDS,
    absence_heatmap,
    methods_compared,
    show_maps,
    signed_overlay,
    smoothed,
    target_against_non_target,
)


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def some_maps(n, edge=16, level=None):
    """Maps of n inputs: noise, or `level` in every pixel."""
    return Maps(
        position=torch.arange(n),
        pixels=torch.rand(n, 3, edge, edge),
        signed=torch.randn(n, edge, edge) if level is None else torch.full((n, edge, edge), level),
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
    figure, table = target_against_non_target(rows, "integrated gradients")
    drawn = [ax for ax in figure.axes if ax.images]
    assert len(drawn) == 2 * (1 + 3 + 2 + 3)
    assert sum(ax.get_xlabel().startswith("response") for ax in figure.axes) == 9
    parts = [maps_table(label, *of) for label, *sides, _ in rows for of in zip(KINDS, sides, strict=True)]
    pd.testing.assert_frame_equal(table, pd.concat(parts, ignore_index=True))


def test_the_title_of_the_target_figure_has_the_share_of_absence_evidence():
    mixed = some_maps(1)
    mixed.signed[0] = 1.0
    mixed.signed[0, :4] = -1.0  # one of four rows of regions
    rows = [
        ("u", some_maps(2, level=0.0), mixed, "class 'u'"),
        ("v", some_maps(2, level=1.0), some_maps(1, level=-1.0), "class 'v'"),
    ]
    figure, _ = target_against_non_target(rows)
    said = figure.get_suptitle()
    assert (
        "is 62% of all evidence on these non-target inputs, 0% on the target ones" in said
    )  # (0.25 + 1) / 2


def test_methods_figure_states_gap_and_scale():
    compared = {
        "target": {"deeplift": some_maps(1, level=1.0), "gradcam": some_maps(1, level=-1.0)},
        "non-target": {"deeplift": some_maps(1, level=-1.0), "gradcam": some_maps(1, level=-0.5)},
    }
    figure, table = methods_compared("u", compared)
    assert [ax.get_title() for ax in figure.axes] == ["target", "deeplift", "gradcam", "non-target", "", ""]
    assert "gap +50%" in figure.axes[1].get_xlabel() and "\u00b1" in figure.axes[1].get_xlabel()
    assert figure.get_suptitle().startswith("1 of 2 methods find more absence evidence")
    assert list(zip(table.unit, table.input, table.method, strict=True)) == [
        ("u", kind, method) for kind in KINDS for method in ("deeplift", "gradcam")
    ]


def test_heatmap_draws_the_numbers_and_outlines_planted_cells():
    matrix = pd.DataFrame([[0.5, -0.25], [0.0, 1.0]], index=["u", "v"], columns=["a", "b"])
    figure = absence_heatmap(matrix, [(0, 1), (1, 1)], subject="concept")
    ax = figure.axes[0]
    assert [text.get_text() for text in ax.texts] == ["0.50", "−0.25", "0.00", "1.00"]
    assert figure.get_suptitle().startswith("1 of 2 planted absences")
    assert [patch.get_xy() for patch in ax.patches] == [(1, 0), (1, 1)]  # x is the column
    mesh = ax.collections[0]
    assert (mesh.norm.vmin, mesh.norm.vmax) == (-1, 1)  # symmetric as soon as there is a negative entry
    assert mesh.cmap(1.0)[2] > mesh.cmap(1.0)[0]  # absence is blue
    assert ax.get_xlabel() == "concept of the input"


def test_heatmap_of_all_positive_evidence_starts_at_zero():
    figure = absence_heatmap(pd.DataFrame([[0.5, 2.0]], index=["u"], columns=["a", "b"]))
    mesh = figure.axes[0].collections[0]
    assert figure.get_suptitle() == "Most absence evidence: 2.00 sd, “u” on “b”"
    assert (mesh.norm.vmin, mesh.norm.vmax) == (0, 2)


def test_a_wide_heatmap_has_no_numbers_and_no_minus_before_nothing():
    wide = pd.DataFrame(np.full((1, ANNOTATED + 1), 0.5))
    assert not absence_heatmap(wide).axes[0].texts
    figure = absence_heatmap(pd.DataFrame([[-0.001, 1.0]]))
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.00", "1.00"]


# ---------------------------------------------------------------------- maps of one's own
@pytest.mark.parametrize("count", [1, 3, 6, 8, 13])
def test_every_image_stands_above_its_map(count):
    images, maps = torch.rand(count, 3, 16, 16), torch.zeros(count, 3, 16, 16)
    maps[:, 1, 4, 4], maps[:, 2, 4, 4] = 2.0, -5.0  # summed over channels: -3
    figure = show_maps(images, maps, titles=[f"scene {n}" for n in range(count)], smooth=0)
    pictures = [ax for ax in figure.axes if ax.images]
    shown = {ax.get_title(): ax for ax in pictures if ax.get_title()}
    assert len(pictures) == 2 * count and list(shown) == [f"scene {n}" for n in range(count)]
    for number in range(count):
        ax = shown[f"scene {number}"]
        np.testing.assert_allclose(ax.images[0].get_array(), images[number].permute(1, 2, 0))
        (below,) = [
            other
            for other in pictures
            if other.get_subplotspec().rowspan.start == ax.get_subplotspec().rowspan.start + 1
            and other.get_subplotspec().colspan.start == ax.get_subplotspec().colspan.start
        ]
        red, _, blue = below.images[0].get_array()[4, 4]
        assert blue > 2 * red  # the sum over channels is negative


def test_one_scale_for_all_maps_named_at_the_bar():
    maps = torch.zeros(2, 16, 16)
    maps[0, :4], maps[1, :4] = 2.0, -0.5
    figure = show_maps(torch.rand(2, 1, 16, 16), maps, smooth=0)
    *_, bar = figure.axes
    assert [text.get_text() for text in bar.get_yticklabels()] == ["−2", "0", "2"]
    strong, weak = (figure.axes[place].images[0].get_array()[0, 0] for place in (2, 3))
    assert np.ptp(strong) > 2 * np.ptp(weak)


def test_normalised_images_get_their_colours_back_or_are_stretched_and_that_is_said():
    pixels = torch.rand(2, 3, 8, 8)
    images, maps = IMAGENET.apply(pixels), torch.randn(2, 3, 8, 8)
    true = show_maps(images, maps, normalisation=IMAGENET)
    drawn = true.axes[0].images[0].get_array()
    np.testing.assert_allclose(drawn, pixels[0].permute(1, 2, 0), atol=1e-6)
    assert "stretched" not in true.get_suptitle()
    stretched = show_maps(images, maps)
    both = np.stack([stretched.axes[place].images[0].get_array() for place in (0, 1)])
    expected = (images - images.min()) / (images.max() - images.min())
    np.testing.assert_allclose(both, expected.permute(0, 2, 3, 1), atol=1e-6)
    assert "stretched" in stretched.get_suptitle()


@pytest.mark.parametrize("parameter, change", [
    ("images", {"images": torch.rand(3, 8, 8)}),
    ("images", {"images": torch.rand(0, 3, 8, 8), "maps": torch.rand(0, 8, 8)}),
    ("maps", {"maps": torch.rand(3, 8, 8)}),
    ("maps", {"maps": torch.rand(2, 3, 8, 9)}),
    ("titles", {"titles": ["one"]}),
    ("smooth", {"smooth": -0.1}),
])  # fmt: skip
def test_maps_that_do_not_fit_are_refused(parameter, change):
    given = {"images": torch.rand(2, 3, 8, 8), "maps": torch.rand(2, 3, 8, 8)} | change
    with pytest.raises(InputError) as error:
        show_maps(given.pop("images"), given.pop("maps"), **given)
    assert error.value.parameter == parameter
