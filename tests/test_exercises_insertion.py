"""Checks of exercise 07: right answers pass, and every classic wrong one is told what is wrong with it."""

import numpy as np
import pytest
import torch

from absence_utils import insert_patches
from absence_utils.exercises import NotYet, Right
from absence_utils.exercises import insertion as check


@pytest.fixture(scope="module")
def data():
    return check.eight_units(seed=1)


@pytest.fixture(scope="module")
def flips():
    return check.coin_flips()


@pytest.fixture(scope="module")
def drops(flips):
    return flips.drops()


@pytest.fixture(scope="module")
def centred():
    return check.centred_scenes()


@pytest.fixture(scope="module")
def maps():
    return check.linear_maps()


def refuses(sentence, function, *arguments):
    with pytest.raises(NotYet, match=sentence):
        function(*arguments)


def score(data, control="random", treated="lowest"):
    return (getattr(data, control) - getattr(data, treated)).mean(axis=(1, 2)) / data.sd


def test_absence_score(data):
    right = score(data)
    assert "8 of 8 units have a positive score" in check.absence_score(right, data)
    check.absence_score(right.round(2), data)
    for wrong, sentence in (
        (..., "replace the ... of `absence`"),
        (-right, "sign is the wrong way round"),
        (right * data.sd, "Divide by `sd`"),
        (right * data.sd / data.sd.mean(), "each unit's own sd"),
        (score(data, "untouched"), "before against after"),
        (right.mean(), "one number"),
        (right + 1, "`absence` is not right yet.*random - lowest"),
    ):
        refuses(sentence, check.absence_score, wrong, data)


def test_testing_where_one_chose(drops):
    part = drops[:12, :4]
    scores = part.mean(dim=(0, 1))
    best = int(scores.argmax())
    said = check.chosen_and_tested(best, scores[best], drops)
    assert "That is false" in said and float(said.split("p = ")[1].split(".")[0]) < 0.01
    for wrong, sentence in (
        ((..., 1), "`best`"),
        ((best, ...), "`inflated`"),
        ((int(scores.argmin()), 1), "lowest score"),
        ((int(drops.mean(dim=(0, 1)).argmax()), 1), "Choose on `chosen_on` alone"),
        ((best + 1, 1), "`best` is not right yet"),
        ((best, -scores[best]), "wrong way round"),
        ((best, drops[:, :, best].mean()), "averaged over everything"),
        ((best, drops[12:, 4:, best].mean()), "First make the mistake"),
    ):
        refuses(sentence, check.chosen_and_tested, *wrong, drops)


def test_two_places(centred):
    def read(patch, place):
        return centred.unit.response(insert_patches(centred.images, patch, place))

    treated, control = read(centred.ring, "centre"), read(centred.empty, "top left")
    assert "seems to lower" in check.two_places(treated, control, centred)
    before = centred.unit.response(centred.images)
    for wrong, sentence in (
        ((..., control), "`treated`"),
        ((read(centred.ring, "top left"), control), "ring in the corner"),
        ((read(centred.empty, "centre"), control), "That is the empty patch"),
        ((before, control), "images as they are"),
        ((treated, read(centred.empty, "centre")), "First make the mistake"),
        ((treated, read(centred.ring, "top left")), "The control is the empty patch"),
        ((treated, before), "images as they are"),
        ((treated.mean(), control), "array of shape"),
    ):
        refuses(sentence, check.two_places, *wrong, centred)


def drop(group, pool):
    return (pool(group["random"]) - pool(group["lowest"])).mean()


def lowest(maps):
    return maps.min(dim=-1).values


def test_pooling_by_the_minimum(maps):
    top, neutral = drop(maps.top, lowest), drop(maps.neutral, lowest)
    assert "looks like a veto" in check.pooled_by_minimum(top, neutral, maps)
    difference = maps.top["random"] - maps.top["lowest"]
    for wrong, sentence in (
        ((top, ...), "`neutral_drop`"),
        ((-top, neutral), "wrong way round"),
        ((drop(maps.top, lambda x: x.mean(dim=-1)), neutral), "First make the mistake"),
        ((drop(maps.top, lambda x: x.amax(dim=-1)), neutral), "maximum"),
        ((lowest(difference).mean(), neutral), "Pool first"),
        ((maps.top["random"].min() - maps.top["lowest"].min(), neutral), "minimum over everything"),
        ((neutral, top), "`top_drop` is not right yet"),
    ):
        refuses(sentence, check.pooled_by_minimum, *wrong, maps)


def test_the_repairs(drops, centred, maps, flips):
    best = int(drops[:12, :4].mean(dim=(0, 1)).argmax())

    def compared(place, control_place):
        control = centred.unit.response(insert_patches(centred.images, centred.empty, control_place))
        treated = centred.unit.response(insert_patches(centred.images, centred.ring, place))
        return (control - treated).mean() / centred.sd

    def veto(pool):
        return drop(maps.top, pool) - drop(maps.neutral, pool)

    right = (drops[12:, 4:, best].mean(), compared("centre", "centre"), veto(lambda x: x.mean(dim=-1)))
    rest = (drops, centred, maps, flips)
    assert "none is left" in check.repaired(*right, *rest)
    check.repaired(*(round(float(value), 2) for value in right), *rest)
    corner = compared("top left", "top left")
    check.repaired(right[0], corner, right[2], *rest)  # one place for both is what counts
    mean_top = drop(maps.top, lambda x: x.mean(dim=-1))
    for place, wrong, sentence in (
        (0, ..., "`clean`"),
        (0, drops[12:, :4, best].mean(), "the patches are not"),
        (0, drops[:12, 4:, best].mean(), "the images are not"),
        (0, drops[:, :, best].mean(), "still among it"),
        (0, drops[:12, :4, best].mean(), "that chose the unit"),
        (0, drops[12:, 4:].mean(dim=(0, 1)).max(), "You chose again"),
        (1, compared("centre", "top left"), "two places"),
        (1, compared("centre", "centre") * centred.sd, "Divide by"),
        (1, -compared("centre", "centre"), "wrong way round"),
        (2, veto(lowest), "still the minimum"),
        (2, mean_top, "on top images alone"),
        (2, veto(lambda x: x.amax(dim=-1)), "maximum is no repair"),
    ):
        given = [*right]
        given[place] = wrong
        refuses(sentence, check.repaired, *given, *rest)


def test_the_verdict(data):
    neutral = score(data, "neutral_random", "neutral_lowest")
    veto = score(data) - neutral
    vetoes = np.flatnonzero(veto > 0.5)
    assert len(vetoes) == 4
    said = check.verdict(veto, vetoes, data)
    assert isinstance(said, Right) and "8 of 8" in said
    check.verdict(torch.tensor(veto), vetoes.tolist(), data)
    additive = [unit for unit in range(8) if unit not in vetoes]
    for wrong, sentence in (
        ((veto, [...]), "`vetoed`"),
        ((score(data), vetoes), "That is the absence score"),
        ((neutral, vetoes), "neutral images alone"),
        ((-veto, vetoes), "top minus neutral"),
        ((veto * data.sd, vetoes), "Divide by `sd`"),
        ((score(data) + neutral, vetoes), "do not add"),
        ((veto, range(8)), "what the published test says"),
        ((veto, vetoes[:3]), "leaves out 1 of 4"),
        ((veto, [*vetoes, additive[0]]), "within 0.05 sd of 0"),
    ):
        refuses(sentence, check.verdict, *wrong, data)
