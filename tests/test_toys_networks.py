"""Small networks against slow re-derivations in float64."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from absence_utils.attribution.methods import attribute
from absence_utils.errors import InputError
from absence_utils.models.training import accuracy, fit
from absence_utils.toys.digits import DigitsNet
from absence_utils.toys.green_pixel import COLOURS, GreenPixelNet, green_pixel_images
from absence_utils.toys.motion import MotionDetector, motion_sequences
from absence_utils.units import Unit

PALETTE = torch.tensor(list(COLOURS.values()))


def detector_by_loops(frames):
    """The definition, column by column: outputs (u - v, (u + v) / 2), means over space."""
    first, second = np.asarray(frames, dtype=np.float64)
    height, width = first.shape
    total = np.zeros(2)
    for row in range(height):
        for place in range(width + 1):

            def at(frame, column, row=row):
                return frame[row, column] if 0 <= column < width else 0.0

            u = max(0.0, at(second, place - 1) - at(first, place))
            v = max(0.0, at(second, place) - at(first, place - 1))
            total += (u - v, (u + v) / 2)
    return total / (height * (width + 1))


@given(st.integers(0, 2**31), st.integers(1, 7), st.integers(2, 9))
@settings(max_examples=25, deadline=None)
def test_detector_follows_its_definition(seed, height, width):
    frames = torch.rand(2, height, width, generator=torch.Generator().manual_seed(seed))
    np.testing.assert_allclose(MotionDetector()(frames[None])[0], detector_by_loops(frames), atol=1e-6)


def test_detector_gives_the_published_numbers():
    sequences = motion_sequences()
    responses = MotionDetector()(sequences.pairs().images[sequences.first_pairs()])
    torch.testing.assert_close(responses, torch.tensor([[1 / 13, 1 / 26], [0, 1 / 13]]))
    assert [[round(float(r), 4) for r in row] for row in responses] == [[0.0769, 0.0385], [0, 0.0769]]


@given(st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_mirrored_motion_swaps_the_comparators(seed):
    frames = torch.rand(1, 2, 6, 8, generator=torch.Generator().manual_seed(seed))
    forth, back = MotionDetector()(frames)[0], MotionDetector()(frames.flip(-1))[0]
    torch.testing.assert_close(back, forth * torch.tensor([-1.0, 1.0]), atol=1e-6, rtol=1e-5)


def test_detector_shows_the_opposite_motion_only_in_the_non_target_map():
    sequences = motion_sequences()
    pairs, bar = sequences.pairs(), sequences.leftward_pairs()
    one, two = sequences.first_pairs()
    unit = Unit(MotionDetector(), channel=0)
    target, other = (attribute(unit, pairs.images[[at]])[0] for at in (one, two))
    assert target.min() == 0
    torch.testing.assert_close(other[bar[two]].sum(), torch.tensor(-1 / 13))
    assert other[~bar[two]].min() == 0
    assert attribute(Unit(MotionDetector(), channel=1), pairs.images).min() == 0


def test_green_net_is_a_mean_over_pixels():
    net = GreenPixelNet(seed=3)
    images = torch.rand(4, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    first = net.colours.weight[:, :, 0, 0].detach().double()
    second = net.classes.weight[:, :, 0, 0].detach().double()
    for image, response in zip(images, net(images).detach().double(), strict=True):
        slow = torch.zeros(2, dtype=torch.float64)
        for row in range(5):
            for column in range(6):
                slow += second @ (first @ image[:, row, column].double()).clamp(min=0) / 30
        torch.testing.assert_close(response, slow, atol=1e-6, rtol=1e-5)


def test_contrast_start_wakes_each_colour_in_one_channel_and_depends_on_the_seed_alone():
    train = green_pixel_images(1000, 0)
    net = GreenPixelNet(0).start_at_contrast(train.images, train.labels, noise=0.0)
    awake = net.colours.weight[:, :, 0, 0].detach() @ PALETTE.T > 0
    assert (awake.sum(0) == 1).all() and awake[0, list(COLOURS).index("green")]
    again = [GreenPixelNet(s).start_at_contrast(train.images, train.labels, seed=4) for s in (1, 2)]
    assert all(torch.equal(a, b) for a, b in zip(again[0].parameters(), again[1].parameters(), strict=True))


def test_dead_channels_counts_the_silent_ones():
    net = GreenPixelNet(0)
    with torch.no_grad():
        net.colours.weight.copy_(torch.tensor([[-1.0, -1, -1], [-1, 1, -1]])[:, :, None, None])
    assert net.dead_channels(PALETTE) == 1
    torch.nn.init.zeros_(net.colours.weight)
    assert net.dead_channels(PALETTE) == 2  # a response of 0 passes no gradient either


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_green_pixel_is_learnt_for_every_seed_with_the_telling_signs(seed):
    train, test = green_pixel_images(1000, seed), green_pixel_images(500, 1_000_000)
    net = GreenPixelNet(seed).start_at_contrast(train.images, train.labels, seed=seed)
    fit(
        net,
        train.images,
        train.labels,
        epochs=10,
        lr=0.5,
        batch_size=25,
        seed=seed,
        optimiser=torch.optim.Adam,
    )
    assert accuracy(net, test.images, test.labels) >= 0.99
    assert net.dead_channels(PALETTE) == 0
    colours, classes = net.colours.weight[:, :, 0, 0], net.classes.weight[:, :, 0, 0]
    assert colours[0].sign().tolist() == [-1, 1, -1]
    assert classes.sign().tolist() == [[1, -1], [-1, 1]]
    unit, inputs = Unit(net, channel=1), test.labels == 0
    signed = attribute(unit, test.images[inputs][:50]).sum(1)
    green = (test.images[inputs][:50] == PALETTE[0][:, None, None]).all(1)
    evidence = signed.clamp(max=0)
    assert evidence[green].sum() / evidence.sum() > 0.95


def test_contrast_needs_both_classes_and_a_difference():
    images = torch.rand(4, 3, 2, 2)
    with pytest.raises(InputError, match="labels"):
        GreenPixelNet().start_at_contrast(images, torch.zeros(4, dtype=torch.long))
    with pytest.raises(InputError, match="images"):
        GreenPixelNet().start_at_contrast(torch.ones(4, 3, 2, 2), torch.arange(4) % 2)


@pytest.mark.parametrize("size", [8, 28])
def test_digits_net_is_homogeneous_and_complete_without_a_choice_of_baseline(size):
    net = DigitsNet(size, seed=1).eval()
    assert all(getattr(module, "bias", None) is None for module in net.modules())
    images = torch.rand(3, 1, size, size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(net(3 * images), 3 * net(images), rtol=1e-4, atol=1e-6)
    assert net(torch.zeros_like(images)).abs().max() == 0
    unit = Unit(net, channel=3)
    quick, integrated = (
        attribute(unit, images, method) for method in ("input_x_gradient", "integrated_gradients")
    )
    torch.testing.assert_close(quick, integrated, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(quick.sum(dim=(1, 2, 3)), unit.response(images).detach(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("network", [GreenPixelNet, lambda seed: DigitsNet(8, seed)])
def test_initial_weights_follow_from_the_seed_and_leave_the_generator(network):
    state = torch.get_rng_state()
    same, again, other = (copy.deepcopy(network(seed=s).state_dict()) for s in (5, 5, 6))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(same[key], again[key]) for key in same)
    assert not all(torch.equal(same[key], other[key]) for key in same)


@pytest.mark.parametrize("size", [0, 6, -4])
def test_digits_net_refuses_a_size_it_cannot_halve(size):
    with pytest.raises(InputError, match="size"):
        DigitsNet(size)
