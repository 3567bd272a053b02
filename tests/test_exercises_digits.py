"""Checks of exercise 03: each typical wrong answer gets a sentence of its own."""

import pytest
import torch
from checks import digits as check
from checks.answers import WrongAnswer

from absence_utils import Unit, absence_evidence, attribute
from absence_utils.attribution.removal import TREATMENTS, remove_pixels, remove_strokes
from absence_utils.images.digits import digits
from absence_utils.models.training import fit, predict
from absence_utils.toys.digits import DigitsNet


@pytest.fixture(scope="module")
def network():
    train, network = digits("train"), DigitsNet(seed=0)
    fit(network, train.images, train.labels, epochs=6, lr=0.02, seed=0)
    return network.requires_grad_(False)


@pytest.fixture(scope="module")
def inputs():
    test = digits("test")
    return {f"{label}s": test.images[test.labels == label] for label in (3, 8)}


@pytest.fixture(scope="module")
def maps(network, inputs):
    return attribute(Unit(network, channel=3), inputs["8s"])


def left(values, columns=slice(0, 4)):
    return float(values[..., columns].sum() / values.sum())


@pytest.mark.slow
def test_left_halves(network, inputs, maps):
    signed = {kind: attribute(Unit(network, channel=3), images) for kind, images in inputs.items()}
    evidence = {kind: absence_evidence(values) for kind, values in signed.items()}
    right = {kind: left(values) for kind, values in evidence.items()}
    assert right["8s"] > 0.6 and f"{right['8s']:.0%} of what speaks against" in check.left_halves(
        right, network, inputs
    )
    for wrong, sentence in {
        left(evidence["8s"], slice(4, 8)): "right half",
        left(evidence["8s"].mT): "upper half",
        left(evidence["8s"].mT, slice(4, 8)): "lower half",
        left(signed["8s"].clamp(min=0)): "presence evidence",
        left(signed["8s"].abs()): "absolute values",
        float(evidence["8s"][..., :4].sum()): "divide by all of it",
        left(signed["8s"]): "with signs",
        left(absence_evidence(attribute(Unit(network, channel=8), inputs["8s"]))): "That is unit 8",
        right["3s"]: "the wrong way round",
        round(100 * right["8s"]): "in percent",
        0.99: r'`left\["8s"\]` is not right yet \(too high\)',
        ...: "not answered yet",
    }.items():
        with pytest.raises(WrongAnswer, match=sentence):
            check.left_halves({**right, "8s": wrong}, network, inputs)
    rounded = {kind: round(value, 2) for kind, value in right.items()}
    assert check.left_halves(rounded, network, inputs) == check.left_halves(right, network, inputs)
    with pytest.raises(WrongAnswer, match="share of the ink"):
        check.left_halves({**right, "3s": left(inputs["3s"])}, network, inputs)
    with pytest.raises(WrongAnswer, match="dict with the keys '3s', '8s'"):
        check.left_halves(0.5, network, inputs)


@pytest.mark.slow
def test_score_is_the_signed_map(network, inputs, maps):
    score = maps.sum(1)
    others = (score, 2 * score, score.double(), -absence_evidence(maps))  # all of them remove the same pixels
    assert len({check.removal_score(same, network, inputs["8s"]) for same in others}) == 1
    assert "are seen as 3" in check.removal_score(score, network, inputs["8s"])
    for wrong, sentence in {
        -score: r"speaks \*for\* '3' first",
        score.abs(): "absolute values",
        -score.abs(): "absolute values",
        absence_evidence(maps): "turn the sign",
        attribute(Unit(network, channel=8), inputs["8s"]).sum(1): "That explains '8'",
        maps: "Drop the channel axis",
        torch.rand(score.shape, generator=torch.Generator().manual_seed(0)): r"removes, \d+% should stay",
        score[:3]: "should have shape",
        score.log(): "not a finite number",
        "map": "should be a tensor of numbers, and yours is a str",
        ...: "not answered yet",
    }.items():
        with pytest.raises(WrongAnswer, match=sentence):
            check.removal_score(wrong, network, inputs["8s"])


@pytest.mark.slow
def test_control_is_random_equal_and_on_the_strokes(network, inputs, maps):
    eights, score = inputs["8s"], maps.sum(1)
    strokes, count = check.stroke_counts(eights)
    assert torch.equal(count, (0.24 * (eights > 0).sum(dim=(1, 2, 3))).round().long())
    chance = torch.rand(score.shape, generator=torch.Generator().manual_seed(1))
    for seed in range(5):  # whatever the draw
        draw = torch.rand(score.shape, generator=torch.Generator().manual_seed(seed))
        assert "are seen as 3" in check.fair_control(
            remove_pixels(eights, draw, count, among=strokes), network, eights
        )
    for wrong, sentence in {
        remove_pixels(eights, chance, count): "Draw `among=strokes`",
        remove_pixels(eights, chance, count + 1, among=strokes): "remove `count` in each",
        remove_pixels(eights, score, count, among=strokes): "Those are the most negative pixels",
        remove_pixels(eights, -score, count, among=strokes): "Those are the most positive pixels",
        remove_pixels(eights, torch.ones_like(score), count, among=strokes): "not random",
        remove_pixels(eights, chance, count, among=strokes, background=0.5): "is background, 0",
        eights.clone(): "Nothing is removed",
        chance: "should be images of shape",
        ...: "not answered yet",
    }.items():
        with pytest.raises(WrongAnswer, match=sentence):
            check.fair_control(wrong, network, eights)


def test_the_mistake_is_seen(network, inputs):
    threes = inputs["3s"]
    treated = remove_strokes(network, threes, 3, check.SHARE)
    seen = {name: predict(network, images).argmax(1) for name, images in treated.items()}
    changed = {name: float((seen[name] != 3).double().mean()) for name in TREATMENTS[:2]}
    assert changed["most negative"] < changed["random"], "the false conclusion needs these numbers"
    said = check.wrong_inputs(changed, "encodes no absence", network, threes)
    logits = [predict(network, images)[:, 3].mean() for images in (threes, treated["most negative"])]
    assert logits[1] > logits[0] and f"from {logits[0]:.1f} to {logits[1]:.1f}" in said and "false" in said
    rounded = {name: round(value, 2) for name, value in changed.items()}
    assert check.wrong_inputs(rounded, "encodes no absence", network, threes) == said
    kept = {name: 1 - value for name, value in changed.items()}
    for answers, sentence in (
        ((kept, "encodes no absence"), "share still seen as 3"),
        (({**changed, "random": 0.9}, "encodes no absence"), "too high"),
        (({"random": 0.0}, "encodes no absence"), "dict with the keys"),
        ((changed, "encodes an absence"), "You know better than this test"),
        ((changed, "who knows"), "should be one of"),
        ((changed, ...), "`conclusion`"),
    ):
        with pytest.raises(WrongAnswer, match=sentence):
            check.wrong_inputs(*answers, network, threes)


def test_the_repair_counts_what_the_claim_says(network, inputs):
    eights = inputs["8s"]
    seen = {
        name: predict(network, images).argmax(1)
        for name, images in remove_strokes(network, eights, 3, check.SHARE).items()
    }
    flipped = {name: float((classes == 3).double().mean()) for name, classes in seen.items()}
    lost = {name: float((classes != 8).double().mean()) for name, classes in seen.items()}
    assert flipped["most negative"] > flipped["random"] + 0.3
    assert f"{flipped['most negative']:.0%} against" in check.right_inputs(flipped, network, eights)
    for wrong, sentence in (
        (lost, "Any damage does that"),
        ({name: 1 - value for name, value in flipped.items()}, "not seen as 3"),
        ({"random": 0.0}, "dict with the keys"),
        ({**flipped, "random": ...}, "not answered yet"),
    ):
        with pytest.raises(WrongAnswer, match=sentence):
            check.right_inputs(wrong, network, eights)
