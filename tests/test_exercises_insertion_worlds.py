"""The worlds of exercise 07: the mistake misleads, the repair does not, whatever the seed."""

import itertools

import numpy as np
import pytest
import torch
from checks import insertion_worlds as worlds

from absence_utils.images.scenes import CONCEPTS, NORMALISATION, scene_dataset
from absence_utils.insertion.paste import insert_patches
from absence_utils.insertion.scores import MIN_EFFECT
from absence_utils.units import responses

SEEDS = (0, 1, 2)


def test_mixed_units_are_additive_and_veto_units_in_another_order():
    images = scene_dataset(60, 3).images
    mixed = worlds.MixedUnits(images, 6, seed=4)
    answers, apart = mixed(images), {False: mixed.additive(images), True: mixed.veto(images)}
    assert mixed.is_veto.sum() == 3 and mixed.is_veto.tolist() != sorted(mixed.is_veto)
    for column, veto in enumerate(mixed.is_veto):
        kind = apart[bool(veto)]
        assert (kind == answers[:, column, None]).all(dim=0).sum() == 1
    other = worlds.MixedUnits(images, 6, seed=5)
    assert other.order.tolist() != mixed.order.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("seed", (0, 1))
def test_all_scores_are_positive_and_only_vetoes_depend_on_the_image(seed):
    data = worlds.eight_units(seed)
    assert data.lowest.shape == data.neutral_random.shape == (8, 10, 4)
    assert not np.isnan([data.lowest, data.neutral_lowest]).any(), "every unit has all of its images"
    absence, neutral = (
        (control - treated).mean(axis=(1, 2)) / data.sd
        for control, treated in ((data.random, data.lowest), (data.neutral_random, data.neutral_lowest))
    )
    assert (absence > 0).all()
    assert data.significant[~data._is_veto].mean() >= 0.5, "the t-test on all pairs calls additive units"
    assert ((absence - neutral)[data._is_veto] > 0.5).all()
    assert (np.abs(absence - neutral)[~data._is_veto] < MIN_EFFECT).all()
    # untouched: the same for every patch, and on average above what a random patch leaves of a top image
    assert (np.ptp(data.untouched, axis=2) < 1e-5).all()
    assert (data.untouched - data.random).mean() > 0.05


def test_responses_under_a_coin_are_those_of_pasted_windows():
    flips = worlds.coin_flips(1)
    assert flips.responses.shape == (24, 16, 64)
    images = scene_dataset(24 + 96, 4001).images
    generator = torch.Generator().manual_seed(1)
    number = torch.randperm(96, generator=generator)[:16]
    top, left = torch.randint(41, (16, 2), generator=generator)[5].tolist()
    patch = images[24 + int(number[5]), :, top : top + 24, left : left + 24]
    net = worlds.load_benchmark_network("rules")
    with torch.no_grad():
        sd = responses(net, "block4", images).std(dim=0)
        wanted = responses(net, "block4", insert_patches(images[6:7], patch, "bottom left"))[0] / sd
    torch.testing.assert_close(flips.responses[6, 5], wanted, rtol=1e-4, atol=1e-4)


def test_a_coin_tells_nothing_but_what_it_chose_looks_suppressed():
    flips = worlds.coin_flips()
    inflated, clean = [], []
    for flip in range(40):
        drops = flips.drops(flip)
        assert drops.shape == (24, 8, 64)
        scores = drops[:12, :4].mean(dim=(0, 1))
        best = int(scores.argmax())
        inflated.append(float(scores[best]))
        clean.append(float(drops[12:, 4:, best].mean()))
    total = flips.responses.sum(dim=1)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(39))
    torch.testing.assert_close(
        drops.sum(dim=1), total - 2 * flips.responses[:, order[:8]].sum(dim=1), atol=1e-3, rtol=0
    )
    assert min(inflated) > 0.1 and np.mean(inflated) > 0.25
    assert abs(np.mean(clean)) < 0.1


@pytest.mark.parametrize("seed", SEEDS)
def test_a_covered_disc_is_taken_for_a_suppressing_ring(seed):
    centred = worlds.centred_scenes(seed)
    assert len(centred.images) >= 12
    assert centred.drop("centre", "top left") > 1.5
    assert abs(centred.drop("centre", "centre")) < 0.2 and abs(centred.drop("top left", "top left")) < 0.2
    covered = centred.unit.response(insert_patches(centred.images, centred.empty, "centre"))
    assert (
        (centred.unit.response(centred.images) > 0).float().mean() > 0.9 > 0.1 > (covered > 0).float().mean()
    )
    changed = (centred.ring != centred.empty).any(dim=0)
    assert 0.05 < changed.float().mean() < 0.6, "the two patches differ by the ring alone"
    ring, empty = (NORMALISATION.undo(patch).amax(dim=0) for patch in (centred.ring, centred.empty))
    assert ring.max() > 0.8 > empty.max(), "and only one of them shows it"
    assert "ring" in CONCEPTS


@pytest.mark.parametrize("seed", SEEDS)
def test_the_minimum_makes_a_veto_of_a_sum(seed):
    maps = worlds.linear_maps(seed)
    for group in (maps.top, maps.neutral):
        assert {name: values.shape for name, values in group.items()} == {
            name: (8, 4, 20 * 20) for name in ("lowest", "random")
        }
        # linear: what one patch adds beyond the other does not depend on the image
        change = worlds.mean(group["random"]) - worlds.mean(group["lowest"])
        assert change.std(dim=0).max() < 1e-4 < change.abs().mean()
        # and it lies in a corner of its own: 24 px are seen from 8 positions at a step of 3 px
        touched = (group["random"] - group["lowest"]).unflatten(2, (20, 20)).abs().amax(dim=0) > 1e-4
        for patch, (rows, columns) in enumerate(itertools.product((slice(8), slice(12, 20)), repeat=2)):
            assert touched[patch, rows, columns].all() and touched[patch].sum() == 64
    assert abs(maps.veto(worlds.mean)) < 1e-4
    assert maps.veto(worlds.minimum) > 0.4 * maps.sd_min
    assert worlds.minimum(maps.top["random"]).mean() > worlds.minimum(maps.neutral["random"]).mean()
    by_hand = [
        (group["random"].amin(2) - group["lowest"].amin(2)).mean() for group in (maps.top, maps.neutral)
    ]
    assert maps.veto(worlds.minimum) == pytest.approx(float(by_hand[0] - by_hand[1]), abs=1e-5)
