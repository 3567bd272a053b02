"""Checks of exercise 07: right answers pass, and every classic wrong one is told what is wrong with it."""

import numpy as np
import pytest
import torch
from checks import insertion as check
from checks.answers import Correct, WrongAnswer
from helpers.exercise_reruns import cells_that_read_answers, run_and_check_again
from scipy import stats
from solve import cell_tags

from absence_utils import insert_patches


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
    with pytest.raises(WrongAnswer, match=sentence):
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


@pytest.mark.slow
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
        ((control, treated), "The two are swapped"),
        ((control, control), "^That is the control, the empty patch in the corner.$"),
        ((control, "x"), "^That is the control"),
        ((treated, treated), "ring in the centre once more"),
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


@pytest.mark.slow
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
    said = check.repaired(*right, *rest)
    assert "none is left" in said and "where the disc is covered in both" in said
    check.repaired(*(round(float(value), 2) for value in right), *rest)
    corner = compared("top left", "top left")
    said = check.repaired(right[0], corner, right[2], *rest)  # one place for both is what counts
    assert "in a corner, where the disc is in view in both" in said and "covered" not in said
    assert "in the centre, " not in said and f"in the centre {float(right[1]):+.2f}" in said
    rounded = check.repaired(right[0], -0.03, right[2], *rest)
    assert "both cover the disc, or neither does" in rounded
    untouched = centred.unit.response(centred.images)
    ring = centred.unit.response(insert_patches(centred.images, centred.ring, "centre"))
    mean_top = drop(maps.top, lambda x: x.mean(dim=-1))
    for place, wrong, sentence in (
        (0, ..., "`clean`"),
        (0, drops[12:, :4, best].mean(), "the patches are not"),
        (0, drops[:12, 4:, best].mean(), "the images are not"),
        (0, drops[:, :, best].mean(), "still among it"),
        (0, drops[:12, :4, best].mean(), "that chose the unit"),
        (0, drops[12:, 4:].mean(dim=(0, 1)).max(), "You chose again"),
        (1, compared("centre", "top left"), "comparison of two places"),
        (1, (untouched - ring).mean() / centred.sd, "^That control is the image as it is"),
        (1, "none", "should be a number"),
        (1, untouched - ring, "should be one number"),
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
    assert isinstance(said, Correct) and "8 of 8" in said
    check.verdict(torch.tensor(veto), vetoes.tolist(), data)
    mask = veto > 0.5
    ways = (mask, torch.tensor(mask), mask.tolist(), np.where(mask), torch.where(torch.tensor(mask)),
            np.argwhere(mask), torch.tensor(mask).nonzero(), set(vetoes), tuple(vetoes), tuple(mask))  # fmt: skip
    for given in ways:
        assert check.verdict(veto, given, data) == said
    additive = [unit for unit in range(8) if unit not in vetoes]
    for wrong, sentence in (
        ((veto, [...]), "`vetoed`"),
        ((score(data), vetoes), "That is the absence score"),
        ((neutral, vetoes), "neutral images alone"),
        ((-veto, vetoes), "top minus neutral"),
        ((veto * data.sd, vetoes), "Divide by `sd`"),
        ((score(data) + neutral, vetoes), "do not add"),
        ((veto, range(8)), "what the t-test on all pairs says"),
        ((veto, vetoes[:3]), "leaves out 1 of 4"),
        ((veto, [*vetoes, additive[0]]), "within 0.05 sd of 0"),
        ((veto, vetoes + 1), "counted from 0"),
        ((veto, ~mask), "leaves out 4 of 4"),
        ((veto, np.where(~mask)), "leaves out 4 of 4"),
        ((veto, mask[:5]), "a mask of 5 values, and there are 8 units"),
        ((veto, []), "leaves out 4 of 4"),
        ((veto, torch.tensor(3)), "leaves out"),
        ((veto, int(vetoes[0])), "should be a list"),
        ((veto, "1, 2"), "should be a list"),
    ):
        refuses(sentence, check.verdict, *wrong, data)


def test_what_answer_cells_print(drops, centred, capsys):
    best = int(drops[:12, :4].mean(dim=(0, 1)).argmax())
    check.tested(drops[:12, :4], torch.tensor(best))
    by_hand = drops[:12, :4, best].flatten().double().numpy()
    p = stats.ttest_rel(by_hand, np.zeros(48)).pvalue
    assert (
        capsys.readouterr().out == f"mean drop {by_hand.mean():+.2f} sd over 48 inputs, t-test p = {p:.0e}\n"
    )
    read = [
        centred.unit.response(insert_patches(centred.images, *patch))
        for patch in ((centred.ring, "centre"), (centred.empty, "top left"))
    ]
    check.tested_pairs(*read, centred)
    assert f"mean drop {centred.drop('centre', 'top left'):+.2f} sd over {len(read[0])} inputs" in (
        capsys.readouterr().out
    )
    check.tested(drops, ...)
    check.tested_pairs(..., read[1], centred)
    check.tested_pairs(read[0], ..., centred)
    assert capsys.readouterr().out == "", "nothing while an answer is open"


def test_numbers_are_printed_with_their_names(capsys):
    shares = {"a": 0.25, "b": ...}
    check.print_numbers(x=torch.tensor([1.23456]), n=np.int64(3), zero=-1e-9, shares=shares, gap=..., w="no")
    assert capsys.readouterr().out == "x = 1.235, n = 3, zero = 0, a = 0.25, w = no\n"
    check.print_numbers(x=..., y=...)
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_every_check_passes_once_more_after_the_last_task(tmp_path, monkeypatch):
    """No solution overwrites what the check of an earlier task reads."""
    monkeypatch.chdir(tmp_path)
    run_and_check_again("07")


def test_nothing_open_stops_run_all():
    reads = cells_that_read_answers("07")
    assert len(reads) >= 12 and all("raises-exception" in cell_tags(cell) for cell in reads)
