"""Map methods: closed forms on a linear unit, properties on a network without biases, loops in float64."""

import numpy as np
import pytest
import torch
from helpers.benchmark_units import RED, bright_task, opposite_task

from absence_utils.benchmark import maps as bm
from absence_utils.benchmark.maps import CELL, MAPS
from absence_utils.benchmark.tasks import BenchmarkTask

BY_PIXEL = ("integrated_gradients", "input_x_gradient", "deeplift", "lrp")
BY_SQUARE = ("occlusion", "shapley_grid")


@pytest.fixture(scope="module")
def bright():
    return bright_task(64, images_for_maps=4)


@pytest.fixture(scope="module")
def opposite():
    return opposite_task()


def by_square(values):
    """Means over squares, spread over them."""
    found = values.clone()
    for top in range(0, 64, 8):
        for left in range(0, 64, 8):
            found[:, top : top + 8, left : left + 8] = (
                values[:, top : top + 8, left : left + 8].mean(dim=(1, 2))[:, None, None]
            )  # fmt: skip
    return found


@pytest.mark.parametrize("name", [*BY_PIXEL, *BY_SQUARE])
def test_maps_of_a_linear_unit_in_closed_form(bright, name):
    """A pixel brings its red beyond the mean colour over the number of pixels; a square the mean of that."""
    expected = (bright.scenes.pixels[:4, 0].double() - 0.35) / 0.2 / RED
    expected = by_square(expected) if name in BY_SQUARE else expected
    drawn = bright.maps(MAPS[name])
    torch.testing.assert_close(drawn, torch.stack((expected, -expected)), rtol=1e-3, atol=1e-8)


def test_gradients_of_a_linear_unit(bright):
    sign = bright.maps(MAPS["gradient_sign"])
    assert (sign[0] == 1).all() and (sign[1] == -1).all()
    guided = bright.maps(MAPS["guided_backprop"])
    torch.testing.assert_close(guided[0], torch.full_like(guided[0], 1 / RED))


def test_gradient_shap_is_against_the_mean_of_the_images(bright):
    """Of a linear unit, up to which images were drawn and the noise: the mean over draws is near that of all images."""
    red = bright.images[:4, 0].double() / RED
    drawn = bright.maps(MAPS["gradient_shap"])
    expected = red - red.mean(dim=0)
    assert torch.corrcoef(torch.stack((drawn[0].flatten(), expected.flatten())))[0, 1] > 0.9


TURNING = [name for name in MAPS if name not in ("random_map", "edge_detector", "guided_backprop")]


@pytest.mark.parametrize("name", TURNING)
def test_the_map_turns_over_with_the_unit(opposite, name):
    drawn = opposite.maps(MAPS[name])
    assert drawn.shape == (2, 4, 64, 64) and drawn[0].std() > 0
    torch.testing.assert_close(drawn[1], -drawn[0], rtol=1e-3, atol=1e-5 * drawn.abs().max().item())


def test_guided_backprop_stops_negative_gradients(opposite):
    """A unit and its opposite get gradients of one kind each: those that only rectifiers let through, on both sides."""
    drawn = opposite.maps(MAPS["guided_backprop"])
    plain = opposite.images[:4].clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(opposite.unit(0).response(plain).sum(), plain)
    assert (drawn[0] - slope.sum(dim=1)).abs().max() > 0.1 * drawn[0].abs().max()
    assert (drawn[1] + drawn[0]).abs().max() > 0.1 * drawn[0].abs().max()


def test_gradient_shap_draws_the_same_on_every_run_and_leaves_the_generators_alone(opposite):
    np.random.seed(3), torch.manual_seed(3)
    first = bm.gradient_shap(opposite.unit(0), opposite.images[:2])
    drawn = np.random.rand(), torch.rand(1)
    np.random.seed(3), torch.manual_seed(3)
    assert drawn == (np.random.rand(), torch.rand(1))
    assert torch.equal(bm.gradient_shap(opposite.unit(0), opposite.images[:2]), first)


@pytest.mark.parametrize("name", ["random_map", "edge_detector"])
def test_baselines_know_nothing_of_the_unit(opposite, name):
    other = bright_task(64, images_for_maps=4)
    assert torch.equal(opposite.maps(MAPS[name]), other.maps(MAPS[name]))


def test_noise_is_another_for_every_unit_and_network(bright):
    drawn, other = bright.maps(MAPS["random_map"]), bright_task(8, images_for_maps=4, seed=1)
    assert not torch.equal(drawn[0], drawn[1]) and drawn.mean().abs() < 0.02
    assert not torch.equal(drawn, other.maps(MAPS["random_map"]))


@pytest.mark.parametrize("name", ["lrp", "deeplift", "shapley_grid"])
def test_what_is_shared_out_is_the_response(opposite, name):
    """The network has no biases: at the mean colour it answers 0. By integrated gradients see their own tests."""
    sums = opposite.maps(MAPS[name]).sum(dim=(2, 3))
    torch.testing.assert_close(sums, opposite.response[:4].T, rtol=1e-3, atol=1e-4)


def test_lrp_leaves_the_network_as_found(opposite):
    before = {name: dict(vars(module)) for name, module in opposite.model.named_modules()}
    MAPS["lrp"](opposite, opposite.images[:2])
    for name, module in opposite.model.named_modules():
        assert vars(module).keys() == before[name].keys()
        assert not module._forward_hooks and not module._forward_pre_hooks


def test_occlusion_is_that_of_attribution_where_squares_do_not_overlap(opposite):
    from absence_utils.attribution.methods import attribute

    one = attribute(opposite.unit(0), opposite.images[:2], "occlusion", stride=CELL).sum(dim=1)
    torch.testing.assert_close(opposite.maps(MAPS["occlusion"])[0, :2].float(), one, rtol=1e-3, atol=1e-6)


def test_shapley_values_of_an_interaction_by_hand():
    """Response = product of the first two squares' means: each gets all of it where it comes second, else nothing."""

    class Product(torch.nn.Module):
        def forward(self, images):
            return (images[:, 0, :8, :8].mean(dim=(1, 2)) * images[:, 0, :8, 8:16].mean(dim=(1, 2)))[:, None]

    task = bright_task(4, images_for_maps=2)
    task = BenchmarkTask(Product().eval(), None, [0], task.world, task.scenes, task.target[:, :1], task.model)
    drawn = bm.shapley_grid(task, task.images[:2])[0]
    whole = task.response[:2, 0]
    first, second = (drawn[:, 0, column] * 64 for column in (0, 8))
    assert (drawn[:, 8:] == 0).all() and (drawn[:, :, 16:] == 0).all()
    torch.testing.assert_close(first + second, whole, rtol=1e-5, atol=1e-7)
    assert (first == 0).all() or (second == 0).all(), "one order for all images"


def test_rise_by_loops(opposite, monkeypatch):
    """Covariance of the response with the masks, divided by the variance of the masks."""
    monkeypatch.setattr(bm, "MASKS", 12)
    kept, read = [], opposite.read

    def reading(images):
        kept.append(images)
        return read(images)

    monkeypatch.setattr(opposite, "read", reading)
    drawn = bm.rise(opposite, opposite.images[:2])
    image = opposite.images[1].double()
    place = image.abs().sum(dim=0).flatten().argmax().item()  # where the mask can be read off well
    row, column = divmod(place, 64)
    channel = int(image[:, row, column].abs().argmax())
    masks = kept[1][:, channel, row, column].double() / image[channel, row, column]
    assert 0 <= masks.min() and masks.max() <= 1 + 1e-6 and masks.std() > 0.1
    values = read(kept[1])
    for unit in range(2):
        total = sum(
            ((masks[i] - masks.mean()) * (values[i, unit] - values[:, unit].mean())).item() for i in range(12)
        )
        ratio = drawn[unit, 1, row, column].item() / (total / 12)
        assert (
            1.5 < ratio < 20
        )  # one over the mean variance of masks, between those of coins and of their means
    torch.testing.assert_close(drawn[1], -drawn[0], rtol=1e-4, atol=1e-6)


def test_rise_of_a_linear_unit_is_a_blurred_copy(bright):
    red = by_square(bright.images[:4, 0].double())
    drawn = by_square(bright.maps(MAPS["rise"])[0])
    for one, other in zip(red, drawn, strict=True):
        assert torch.corrcoef(torch.stack((one.flatten(), other.flatten())))[0, 1] > 0.5


def test_a_function_of_one_unit_becomes_one_of_all(bright):
    asked = []

    def one(unit, images):
        asked.append(unit.channel)
        return torch.full((len(images), 64, 64), float(unit.channel))

    drawn = bright.maps(bm.of_each_unit(one))
    assert asked == [0, 1] and (drawn[1] == 1).all() and (drawn[0] == 0).all()


def test_edges_by_hand():
    image = torch.zeros(1, 3, 4, 4)
    image[..., 2:] = 3.0
    found = bm.edges(None, image)
    assert found[0, :, 2].tolist() == [-3.0] * 4 and found.sum() == -12
    corner = torch.zeros(1, 3, 4, 4)
    corner[..., 1, 1] = 1.0
    assert bm.edges(None, corner)[0, 1, 1].item() == pytest.approx(-(2**0.5))
