"""Maps add up to the change they explain, or say by how much they don't."""

import warnings

import pytest
import torch
from test_attribution_methods import plain_gradient, reused, some_images
from torch import nn

from absence_utils.attribution import path_integral
from absence_utils.attribution.baselines import baseline_images
from absence_utils.attribution.completeness import (
    GAP_BOUND,
    CompletenessWarning,
    completeness_gap,
    relative_gap,
)
from absence_utils.attribution.methods import METHODS, attribute
from absence_utils.units import Unit


class Walks:
    """Counts the points that `integrate_path` asks for, and keeps where they are."""

    def __init__(self, monkeypatch):
        self.points, walk = [], path_integral._walk

        def counted(unit, baseline, change, at, batch_size):
            self.points.append(at)
            return walk(unit, baseline, change, at, batch_size)

        monkeypatch.setattr(path_integral, "_walk", counted)

    @property
    def count(self):
        return sum(map(len, self.points))


class Stairs(nn.Module):
    """One unit of the mean pixel m, given as a function of it."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, images):
        return self.function(images.mean(dim=(1, 2, 3)))[:, None]


def pixels(*values):
    """Images [batch, 1, 2, 2] of these means, float64."""
    return torch.tensor(values, dtype=torch.float64)[:, None, None, None].expand(-1, 1, 2, 2).clone()


def kinks(mean):
    """Twelve sharp ramps of random size: what deep rectifying networks are along a path."""
    generator = torch.Generator().manual_seed(3)
    places, sizes = torch.rand(12, generator=generator), torch.randn(12, generator=generator)
    ramps = ((mean[:, None] - places.double()) * 200).clamp(0, 1)
    return (sizes.double() * ramps).sum(dim=1)


# -- the scale of the gap


@pytest.mark.parametrize("name, values, response, at_baseline, expected", [
    ("the change", [3.0, 0, 0, 0], 4.0, 2.0, 0.5),
    ("the change, downwards", [-3.0, 0, 0, 0], 2.0, 4.0, -0.5),
    ("evidence that cancels", [50.0, -49.9, 0, 0], 0.0, 0.0, 0.1 / 9.99),
    ("responses far from zero", [0.5, 0, 0, 0], 1000.0, 1000.0, 0.5),
    ("nothing at all", [0.0, 0, 0, 0], 0.0, 0.0, 0.0),
])  # fmt: skip
def test_the_gap_is_relative_to(name, values, response, at_baseline, expected):
    attribution = torch.tensor(values).view(1, 1, 2, 2)
    found = relative_gap(attribution, torch.tensor([response]), torch.tensor([at_baseline]))
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_evidence_of_the_scale_is_read_off_regions():
    attribution = torch.zeros(1, 1, 8, 8)
    attribution[0, 0, 0, :2] = torch.tensor([50.0, -49.0])  # of one object: 1, not 99
    assert relative_gap(attribution, torch.zeros(1), torch.zeros(1)).item() == pytest.approx(10)


# -- integrated gradients


def test_automatic_steps_are_complete_where_a_fixed_number_is_not():
    unit, images = Unit(Stairs(kinks)), pixels(0.2, 0.5, 0.9, 1.0)
    _, fixed = attribute(unit, images, steps=32, return_gap=True)
    signed, gap = attribute(unit, images, return_gap=True)
    assert fixed.abs().max() > 0.2
    assert gap.abs().max() <= GAP_BOUND
    change = unit.response(images) - unit.response(torch.zeros_like(images))
    torch.testing.assert_close(signed.sum(dim=(1, 2, 3)), change, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("baseline", ["zero", "black", "blurred", "border"])
def test_automatic_steps_find_the_path_integral(baseline):
    unit, images = Unit(reused(), None, 1), some_images(2)
    start = baseline_images(unit, images, baseline)
    expected, way = torch.zeros_like(images), images - start
    for x in ((torch.arange(1000) + 0.5) / 1000).view(-1, 50, 1, 1, 1, 1):
        points = (start + x * way).flatten(0, 1)
        expected += plain_gradient(unit, points).view(-1, *images.shape).sum(dim=0) * way / 1000
    found = attribute(unit, images, baseline=baseline)
    assert (found - expected).norm() < 0.05 * expected.norm()
    assert torch.corrcoef(torch.stack((found.flatten(), expected.flatten())))[0, 1] > 0.998


def test_easy_images_do_not_pay_for_hard_ones(monkeypatch):
    walks = Walks(monkeypatch)
    attribute(Unit(Stairs(lambda m: torch.where(m > 0, 2 * m, kinks(-m)))), pixels(0.5, -0.9, 0.7))
    assert [len(at) for at in walks.points][:2] == [32, 32] and len(walks.points[-1]) == 32
    assert walks.count > 3 * 32


def test_new_points_go_where_the_response_is_not_explained(monkeypatch):
    walks = Walks(monkeypatch)
    attribute(Unit(Stairs(lambda m: ((m - 0.61) * 300).clamp(0, 1))), pixels(1.0))
    assert ((torch.cat(walks.points[1:]) - 0.61).abs() < 0.05).all() and walks.count < 64


def test_no_point_is_visited_twice_and_their_number_is_bounded(monkeypatch):
    walks = Walks(monkeypatch)
    monkeypatch.setattr(path_integral, "MOST_STEPS", 100)
    rough = Unit(Stairs(lambda m: (torch.sin(400 * m) > 0) * 1.0 + 0.01 * torch.sin(400 * m)))
    with pytest.warns(CompletenessWarning):
        attribute(rough, pixels(1.0))
    assert walks.count == len(torch.cat(walks.points).unique()) == 100


def test_a_jump_is_given_up_and_said(monkeypatch):
    walks = Walks(monkeypatch)
    step = Unit(Stairs(lambda m: (m > 0.3).double() + 0 * m))  # a jump: no gradient ever shows it
    with pytest.warns(CompletenessWarning, match="1 of 1 images.*100"):
        signed, gap = attribute(step, pixels(1.0), return_gap=True)
    assert walks.count == len(torch.cat(walks.points).unique()) < 64
    assert not signed.any() and gap.item() == pytest.approx(-1)


def test_a_bias_free_network_against_an_empty_image_needs_no_more_than_the_first_points(monkeypatch):
    # at the baseline itself every rectifier is shut; the path's points must not sit there
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(648, 1, bias=False)
    )
    walks, images = Walks(monkeypatch), some_images(2)
    unit = Unit(net.double().eval(), None, 0)
    found = attribute(unit, images)
    assert walks.count == 2 * 32
    torch.testing.assert_close(found, attribute(unit, images, "input_x_gradient"))


def test_a_unit_that_does_not_depend_on_the_image_costs_no_more_and_has_no_gap(monkeypatch):
    walks = Walks(monkeypatch)
    constant = Unit(Stairs(lambda m: 1000 + 1e-6 * m))  # float32 rounds the change to 0, the gradient not
    signed, gap = attribute(constant, pixels(0.4).float(), return_gap=True)
    assert walks.count == 32 and gap.abs().item() < GAP_BOUND


def test_a_response_of_nan_is_no_reason_to_go_on(monkeypatch):
    walks = Walks(monkeypatch)
    found = attribute(Unit(Stairs(lambda m: m / 0 * 0)), pixels(0.4))
    assert found.isnan().all() and walks.count == 32


# -- the promise, and the gap in the result


def test_a_warning_says_how_many_images_and_what_to_do():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.GELU(), nn.Conv2d(8, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    unit, images = Unit(net.double(), None, 0), 3 * some_images(2)
    with pytest.warns(
        CompletenessWarning, match="deeplift of output:0: for 2 of 2.*use 'integrated_gradients'"
    ):
        signed, gap = attribute(unit, images, "deeplift", return_gap=True, batch_size=1)
    torch.testing.assert_close(gap, completeness_gap(unit, images, signed, relative=True))
    first_order = attribute(unit, images, "input_x_gradient")
    torch.testing.assert_close(signed, first_order)  # captum takes the plain gradient
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert attribute(unit, images, return_gap=True)[1].abs().max() <= GAP_BOUND
        attribute(unit, images, "input_x_gradient")  # promises nothing
        attribute(unit, images, steps=1)


@pytest.mark.parametrize("method", METHODS)
def test_the_gap_of_every_method_is_in_the_result_if_asked_for(method):
    unit, images = Unit(reused(), None, 2), some_images(2, edge=12)
    signed, gap = attribute(unit, images, method, baseline="mean", return_gap=True)
    ends = unit.response(images), unit.response(baseline_images(unit, images, "mean"))
    expected = (signed.sum(dim=(1, 2, 3)) - (ends[0] - ends[1])) / (ends[0] - ends[1]).abs()
    torch.testing.assert_close(gap, expected.detach())
    assert torch.equal(attribute(unit, images, method, baseline="mean"), signed)


@pytest.mark.parametrize(
    "method, options, tolerance", [("deeplift", {}, 1e-9), ("integrated_gradients", {"steps": 200}, 0.02)]
)
@pytest.mark.parametrize("baseline", ["zero", "black", "blurred"])
def test_completeness(method, options, tolerance, baseline):
    unit, images = Unit(reused(), None, 2), some_images(3)
    found = attribute(unit, images, method, baseline=baseline, **options)
    assert completeness_gap(unit, images, found, baseline=baseline, relative=True).abs().max() < tolerance


def test_the_completeness_gap_is_signed():
    unit, images = Unit(reused(), None, 0), some_images(2)
    exact = attribute(unit, images, "deeplift")
    change = unit.response(images) - unit.response(torch.zeros_like(images))
    gap = completeness_gap(unit, images, exact + 0.5 / exact[0].numel())
    torch.testing.assert_close(gap, torch.full((2,), 0.5).double())
    relative = completeness_gap(unit, images, exact - 0.5 / exact[0].numel(), relative=True)
    torch.testing.assert_close(relative, -0.5 / change.detach().abs())
