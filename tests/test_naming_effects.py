"""Effects of donors in closed form; the regression and its robust errors, worked out slowly."""

import numpy as np
import pytest
import torch
from helpers.planted_names import EDGE, HOST, noise_images, planted_donors, planted_network

from absence_utils import InputError
from absence_utils.naming.effects import donor_effects, donor_patches, low_level_statistics
from absence_utils.naming.regression import mean_over, regress
from absence_utils.units import dataset_responses

SEEN = HOST - 6  # positions of the 7 x 7 filters, in rows


def linear_network():
    """One unit: the mean of the first channel over all pixels, so that a patch adds the same wherever it is."""
    convolution = torch.nn.Conv2d(2, 1, 1, bias=False)
    convolution.weight.data.copy_(torch.tensor([1.0, 0.0])[None, :, None, None])
    return torch.nn.Sequential(convolution).eval()


@pytest.fixture(scope="module")
def hosts():
    return noise_images(40)


def test_a_linear_unit_changes_by_what_the_donor_holds(hosts):
    donors = planted_donors(4)
    found = donor_effects(linear_network(), "0", hosts, donors, hosts=3)
    spread = hosts.images[:, 0].mean(dim=(1, 2)).std().item()
    expected = donors.donors.take(range(12))[:, 0].double().sum(dim=(1, 2)) / HOST**2 / spread
    assert found.blank[0, :, 0] == pytest.approx(expected.numpy(), abs=1e-4)
    assert np.abs(found.scrambled[0]).max() < 1e-4  # the copy has the same mean
    assert found.spread[0, 0] == pytest.approx(spread, rel=1e-5)


def test_active_keeps_the_hosts_of_the_upper_half(hosts):
    found = donor_effects(linear_network(), "0", hosts, planted_donors(4), hosts=12)
    assert found.active[0] == pytest.approx(found.blank[0], abs=1e-4)  # additive: the host does not matter
    one = donor_effects(linear_network(), "0", hosts, planted_donors(4), hosts=1)
    assert 0 < np.isnan(one.active[0]).sum() < 12


def test_both_readings_of_one_pass(hosts):
    network, donors = planted_network(), planted_donors(4)
    found = donor_effects(network, "2", hosts, donors, hosts=1)
    assert found.readings == ("signed", "passed on")
    expected = dataset_responses(network, "2", hosts).std(dim=0)
    assert found.spread[0] == pytest.approx(expected.numpy(), abs=1e-5)
    assert np.isnan(found.blank[1]).all()  # minus an energy hands nothing on
    assert np.isnan(found.blank[0, :, 2]).all()  # constant
    assert donor_effects(network, None, hosts, donors, hosts=1).readings == ("signed",)


def test_no_donor_meets_its_own_image_and_only_those_asked_for_are_pasted(hosts):
    donors = planted_donors(4)
    donors.own = np.arange(12)
    few = noise_images(4)
    found = donor_effects(linear_network(), "0", few, donors, hosts=3, donors=[1, 5], scrambled=[5])
    assert np.flatnonzero(~np.isnan(found.blank[0, :, 0])).tolist() == [1, 5]
    assert np.flatnonzero(~np.isnan(found.scrambled[0, :, 0])).tolist() == [5]
    with pytest.raises(InputError, match="needs 4 hosts"):
        donor_effects(linear_network(), "0", few, donors, hosts=4)


def test_own_images_are_left_out():
    from absence_utils.naming.effects import _pairs

    own = np.array([0, 3, -1])
    number, host = _pairs(np.random.default_rng(0), np.arange(4), np.arange(3), own, 3)
    for donor in range(3):
        there = host[number == donor]
        assert len(set(there)) == 3 and own[donor] not in there


def test_donors_are_shrunk_and_sizes_refused(hosts):
    donors, host = planted_donors(4), hosts.images[:1]
    assert donor_patches(donors, host).shape[-1] == EDGE
    assert donor_patches(donors, host, 4).shape == (12, 2, 4, 4)
    for edge in (1, HOST + 1):
        with pytest.raises(InputError, match="edge"):
            donor_patches(donors, host, edge)
    with pytest.raises(InputError, match="channels"):
        donor_patches(donors, host[:, :1])


def test_statistics_by_hand():
    patch = torch.zeros(1, 2, 2, 2)
    patch[0, 0] = torch.tensor([[0.0, 4.0], [0.0, 4.0]])
    mean0, mean1, contrast, edges = low_level_statistics(patch)[0]
    assert (mean0, mean1) == (2, 0)
    assert contrast == pytest.approx(np.std([0, 2, 0, 2], ddof=1)) and edges == pytest.approx(np.log(4))


def slow_hc3(y, design):
    """(coefficients, HC3 errors), one donor at a time, in float64."""
    inverse = np.linalg.inv(design.T @ design)
    beta = inverse @ design.T @ y
    meat = np.zeros_like(inverse)
    for row, value in zip(design, y, strict=True):
        leverage = row @ inverse @ row
        meat += np.outer(row, row) * ((value - row @ beta) / (1 - leverage)) ** 2
    return beta, np.sqrt(np.diag(inverse @ meat @ inverse))


def test_regression_is_that_of_the_textbook():
    generator = np.random.default_rng(0)
    members = generator.random((40, 2)) < 0.4
    covariates = generator.normal(size=(40, 3)) * [1, 10, 0.1]
    changes = generator.normal(size=(40, 5)) * (1 + 2 * members[:, :1]) - members[:, :1]
    found = regress(changes, members, covariates)
    for unit in range(5):
        beta, error = slow_hc3(changes[:, unit], np.column_stack([members, covariates, np.ones(40)]))
        assert found.value[:, unit] == pytest.approx(beta[:2])
        assert found.error[:, unit] == pytest.approx(error[:2])
    assert found.df.tolist() == (members.sum(axis=0) - 1).tolist()


def test_covariates_take_what_is_theirs():
    """What follows colour alone is no matter of membership, however closely the two go together."""
    generator = np.random.default_rng(1)
    colour = generator.normal(size=200)
    members = (colour + 0.5 * generator.normal(size=200) > 0.5)[:, None]
    changes = -colour[:, None] + 0.1 * generator.normal(size=(200, 1))
    assert abs(regress(changes, members, colour[:, None]).value[0, 0]) < 0.1
    assert regress(changes, members, np.zeros((200, 1))).value[0, 0] < -1  # a constant column is left out


def test_one_sided_tests():
    sample = np.array([-1.0, -2.0, -3.0, np.nan])
    mean = mean_over(sample)
    assert (mean.value, mean.df) == (-2, 2) and mean.error == pytest.approx(1 / 3**0.5)
    assert mean.p_below(0.05) < 0.05 < mean.p_below(2.0)
    assert mean.interval("x")["x_low"] < -2 < mean.interval("x")["x_high"]
    assert mean_over(np.zeros(3)).p_below(0.05) == 1 and np.isnan(mean_over(sample[:1]).value)
