"""Checks of exercise 04: each typical mistake is named from the student's numbers."""

import pytest
import torch
from checks import visualization as check
from checks.answers import WrongAnswer

from absence_utils import Unit, load_model
from absence_utils.images.scenes import NORMALISATION, counterfactual_pairs


@pytest.fixture(scope="module")
def network():
    return load_model("concept_scenes").requires_grad_(False)


@pytest.fixture(scope="module")
def logit(network):
    return Unit(network, "logits", check.LOGIT).response


@pytest.fixture(scope="module")
def hidden(network):
    return Unit(network, "block4", check.CHANNEL).response


@pytest.fixture(scope="module")
def lowest(network):
    return check._reached(network, "logit", -1)


@pytest.fixture(scope="module")
def dead(network):
    """Where the loop ends that reads after the ReLU."""
    return check._reached(network, "after the ReLU", -1)


@pytest.fixture(scope="module")
def deepest(network):
    return check._reached(network, "hidden", -1)


def value(read, image):
    with torch.no_grad():
        return read(image).item()


def test_the_loop_keeps_the_budget_and_goes_the_way_of_its_sign(logit, lowest):
    assert lowest.norm().item() == pytest.approx(check.BUDGET, rel=1e-5) and not lowest.requires_grad
    assert value(logit, lowest) < value(logit, check.start()) - 20
    twice = check.climb(logit, -1, budget=2 * check.BUDGET)
    assert twice.norm().item() == pytest.approx(2 * check.BUDGET, rel=1e-5)
    assert value(logit, twice) < value(logit, lowest), "more contrast goes further"


def test_a_minimum_of_ones_own_and_its_mistakes(network, logit, lowest):
    said = check.minimum(lowest, network)
    assert f"down to {value(logit, lowest):+.1f}" in said
    assert "Right" in repr(check.minimum(check.climb(logit, -1, seed=3), network)), "from another start"
    far = 1.5 * lowest
    for wrong, sentence in (
        (far, "budget is not matched: `lowest` lies 60.0 from the blank, the start 40"),
        (check.start(), "is the start"),
        (check._reached(network, "logit", 1), "the wrong way. To go down, subtract"),
        (check.at_budget(check.start() - 2 * check._gradient(logit, check.start())), "more steps, or longer"),
        (lowest * float("nan"), "divided by 0"),
        (lowest[0], "should be a tensor of shape"),
        (-26.9, "yours has type float"),
        (..., "replace the ... of `lowest`"),
    ):
        with pytest.raises(WrongAnswer, match=sentence):
            check.minimum(wrong, network)


def test_after_the_relu_the_minimum_is_dead(network, hidden, dead, deepest):
    read = check._reading(network, "after the ReLU")
    assert value(read, check.start()) > 1 and value(read, dead) == 0
    assert not check._gradient(read, dead).any()
    lower = value(hidden, deepest)
    assert lower < 5 * value(hidden, dead) < 0, "there is a low side, far below where the loop dies"
    said = check.dead_minimum(0.0, 0.0, "no low side", network)
    assert "That conclusion is false" in said and f"{lower:+.1f}" in said
    assert said == check.dead_minimum(torch.tensor(0.0), 0, " No low side", network)
    slope = check._gradient(hidden, dead).norm().item()
    for answers, sentence in (
        (
            (value(hidden, dead), 0.0, "no low side"),
            "First make the mistake: read what the ReLU lets through",
        ),
        ((lower, 0.0, "no low side"), "First make the mistake"),
        ((value(read, check.start()), 0.0, "no low side"), "response at the start"),
        ((float("nan"), 0.0, "no low side"), "`dead_response` is NaN: where the gradient is 0"),
        ((0.0, float("nan"), "no low side"), "`dead_gradient` is NaN"),
        ((0.0, slope, "no low side"), "That is the signed response's gradient"),
        ((0.0, check._gradient(read, check.start()).norm(), "no low side"), "gradient at the start"),
        ((0.0, 0.5, "no low side"), "`dead_gradient` is not right yet"),
        ((0.0, 0.0, "a low side"), "You know better than this loop"),
        ((0.0, 0.0, "dead"), "should be one of"),
        (([1, 2], 0.0, "no low side"), "should be one number"),
        ((0.0, 0.0, ...), "replace the ... of `reading`"),
    ):
        with pytest.raises(WrongAnswer, match=sentence):
            check.dead_minimum(*answers, network)


def test_who_read_after_the_relu_is_told_so(network, hidden, dead, deepest):
    assert f"down to {value(hidden, deepest):+.1f}" in check.signed_minimum(deepest, network)
    for wrong, sentence in (
        (dead, "You read after the ReLU: the loop stopped where the unit fell silent, at -5.6"),
        (check.climb(hidden, 1), "the wrong way"),
        (2 * deepest, "budget is not matched"),
        (check.start(), "is the start"),
        (..., "replace the ... of `hidden`"),
    ):
        with pytest.raises(WrongAnswer, match=sentence):
            check.signed_minimum(wrong, network)


def test_poles_are_compared_at_one_budget(network, logit, lowest):
    highest, tool = check._reached(network, "logit", 1), check.tool_maximum(network)
    blank = value(logit, torch.zeros(check.SHAPE))
    up, down = value(logit, highest) - blank, blank - value(logit, lowest)
    assert value(logit, tool) - blank > down > 2 * up > 0, "the tool's maximum leads to the false answer"
    assert f"{down:.1f} down and {up:.1f} up" in check.poles(highest, "down", lowest, network)
    for answers, sentence in (
        (
            (tool, "up", lowest),
            "tool's maximum, 120 from the blank where your minimum is 40: the budget is not matched",
        ),
        ((1.1 * highest, "down", lowest), "budget is not matched: `highest` lies 44.0"),
        ((lowest, "down", lowest), "the wrong way. To go up, add"),
        (
            (highest, "up", lowest),
            f"maximum lies {up:.1f} above .* minimum {down:.1f} below it. Did you compare",
        ),
        ((highest, "left", lowest), "should be one of"),
        ((highest, "down", ...), "replace the ... of `lowest`"),
        ((..., "down", lowest), "replace the ... of `highest`"),
    ):
        with pytest.raises(WrongAnswer, match=sentence):
            check.poles(*answers, network)


def test_a_name_needs_its_effect(network):
    read = Unit(network, "logits", check.OTHER).response
    with torch.no_grad():
        shown, hidden = (scenes.pixels for scenes in counterfactual_pairs("cross", 32, 0))
        with_it, without = (read(NORMALISATION.apply(pixels)) for pixels in (shown, hidden))
        raw = (read(shown) - read(hidden)).mean()
    effect = (with_it - without).mean().item()
    assert effect < -4 and f"{effect:+.1f} on average, below 0 in 32 of 32" in check.named(
        "Cross", effect, network
    )
    for answers, sentence in (
        (("disc", effect), r"a disc changes the logit by \+.* What lowers it"),
        (("star", effect), "should be one of"),
        (("cross", -effect), "sign is the wrong way round"),
        (("cross", with_it.mean()), "response with the concept. Subtract"),
        (("cross", without.mean()), "response without the concept. Subtract"),
        (("cross", raw), "Normalise them first"),
        (("cross", 32 * effect), "sum over the pairs"),
        (("cross", 2 * effect), "not right yet"),
        (("cross", ...), "replace the ... of `effect`"),
    ):
        with pytest.raises(WrongAnswer, match=sentence):
            check.named(*answers, network)


def test_minima_come_from_different_starts(network):
    minima = check.minima(network)
    assert minima.shape == (check.STARTS, *check.SHAPE[1:])
    assert minima.flatten(1).norm(dim=1).tolist() == pytest.approx([check.BUDGET] * check.STARTS, rel=1e-4)
    directions = minima.flatten(1) / check.BUDGET
    assert (directions @ directions.T).fill_diagonal_(0).max() < 0.5
