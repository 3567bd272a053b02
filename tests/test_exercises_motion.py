"""Checks of exercise 01: each typical wrong answer gets a sentence of its own."""

import numpy as np
import pytest
import torch
from checks import motion
from checks.answers import WrongAnswer
from torch import nn

from absence_utils.patches.mining import mine_patches
from absence_utils.toys.motion import MotionDetector, motion_sequences

SIGNS = {"left to right": 1, "right to left": -1, "standing": 0}


@pytest.fixture(scope="module")
def rectified():
    return nn.Sequential(MotionDetector(), nn.ReLU()).eval()


@pytest.fixture(scope="module")
def pairs():
    return motion_sequences().pairs()


def test_signs_follow_from_the_comparators():
    assert "opposite motion" in motion.signs_of_motions(SIGNS)
    others = {"left to right": np.float32(1), "right to left": torch.tensor(-1), "standing": np.int8(0)}
    assert motion.signs_of_motions(others)


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        ({"right to left": 0}, "u - v can"),
        ({"right to left": 1}, "u is the one that is vetoed"),
        ({"left to right": -1}, "is what unit 0 is for"),
        ({"left to right": 0}, "silences v only"),
        ({"standing": 1}, "does v fire as well"),
        ({"standing": -1}, "does u fire as well"),
        ({"standing": 2}, "should be 1, 0 or -1"),
        ({"standing": torch.zeros(2)}, "should be 1, 0 or -1"),
        ({"backwards": 1}, "should have the keys"),
        ({"standing": ...}, "not answered yet"),
    ],
)
def test_wrong_signs(wrong, sentence):
    with pytest.raises(WrongAnswer, match=sentence):
        motion.signs_of_motions({**SIGNS, **wrong})


def test_any_lowest_pair_will_do_and_no_other():
    lowest = [columns for first in range(6) for columns in [(first, first - 1)] if first]
    assert all("-0.1429" in motion.lowest_pair(columns) for columns in lowest)
    for same in ([3.0, 2.0], np.array([3, 2]), torch.tensor([3, 2]), (np.int64(3), torch.tensor(2))):
        assert "-0.1429" in motion.lowest_pair(same)
    for columns, sentence in {
        (2, 3): "the highest pair",
        (3, 3): "there are lower ones",
        (4, 2): "by how many columns",
        (0, 6): "from 0 to 5",
        (1,): "two numbers",
        "32": "two numbers",
        5: "two numbers",
        (3.5, 2): "whole numbers",
        ("three", 2): "whole numbers",
        (..., 2): "not answered yet",
    }.items():
        with pytest.raises(WrongAnswer, match=sentence):
            motion.lowest_pair(columns)


def test_evidence_is_recomputed_and_mistakes_are_named():
    for right in (1 / 13, 0.0769, torch.tensor([1 / 13])):
        assert "0.0769" in motion.evidence(0.0, right)
    for answers, sentence in {
        (1 / 13, 0.0): "sums of the signed maps .or the two inputs the wrong way round",
        (1 / 13, 1 / 13): "presence evidence",
        (0.0, -1 / 13): "Evidence is >= 0",
        (0.0, 0.0): r"`on_non_target` is not right yet \(too low\)",
        (0.5, 1 / 13): r"`on_target` is not right yet \(too high\)",
        (torch.zeros(()), "much"): "an array of numbers",
        (0.0, ...): "not answered yet",
        (torch.zeros(12, 12), 1 / 13): "`on_target` should be one number",
    }.items():
        with pytest.raises(WrongAnswer, match=sentence):
            motion.evidence(*answers)


def test_the_mistake_is_counted(rectified, pairs):
    book = mine_patches(rectified, None, pairs, patch=6, stride=1, k=8 * 49)
    crops, zero = book.crops(pairs, 0).lowest, book.lowest.response[0] == 0
    tied, empty = int(zero.sum()), int((zero & (crops.flatten(1).sum(1) == 0)).sum())
    assert 0 < empty < tied < 8 * 49
    assert f"{tied} of 392" in motion.after_relu(tied, empty, rectified, pairs)
    signed = mine_patches(rectified[0], None, pairs, patch=6, stride=1, k=8 * 49).lowest.response[0]
    for answers, sentence in {
        (392, empty): "That is all patches",
        (int((signed == signed.min()).sum()), empty): "before the rectifier",
        (392 - tied, empty): "highest response",
        (tied, int((crops[:, 0].flatten(1).sum(1) == 0).sum())): "frame 1 only",
        (tied, tied): "sums to 0",
        (tied, ...): "not answered yet",
    }.items():
        with pytest.raises(WrongAnswer, match=sentence):
            motion.after_relu(*answers, rectified, pairs)


@pytest.mark.parametrize("layer", ["logits", "0", "0.outputs", "1"])
def test_whatever_keeps_the_sign_repairs(layer, rectified, pairs):
    assert "-0.1429" in motion.before_relu(layer, rectified, pairs)


def test_the_relu_itself_is_right_with_a_warning(rectified, pairs):
    warning = "only because this package reads what goes into a ReLU; with other tools '1' is the mistake"
    assert warning in motion.before_relu("1", rectified, pairs)
    assert all("mistake" not in motion.before_relu(layer, rectified, pairs) for layer in ("logits", "0"))


@pytest.mark.parametrize(
    "layer, sentence",
    [
        (None, "the mistake itself"),
        ("0.comparators", "Too early"),
        ("0.relu", "Too early"),
        ("head", "no layer 'head'"),
        (0, "as text"),
        (..., "not answered"),
    ],
)
def test_what_does_not_repair(layer, sentence, rectified, pairs):
    with pytest.raises(WrongAnswer, match=sentence):
        motion.before_relu(layer, rectified, pairs)


def test_the_suppressor_is_the_opposite_motion():
    assert motion.suppressor("right to left")
    for word, sentence in {
        "left to right": "drives",
        "standing": "neither",
        "up": "should be one of",
    }.items():
        with pytest.raises(WrongAnswer, match=sentence):
            motion.suppressor(word)
