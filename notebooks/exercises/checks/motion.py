"""Checks of exercise 01: the motion detector, read before and after a rectifier."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from absence_utils.attribution.evidence import absence_evidence, presence_evidence
from absence_utils.attribution.methods import attribute
from absence_utils.images.base import TensorImages
from absence_utils.patches.book import PatchBook
from absence_utils.patches.mining import mine_patches
from absence_utils.plots.base import to_numpy
from absence_utils.toys.motion import MotionDetector, motion_sequences
from absence_utils.units import Unit

from .answers import Correct, WrongAnswer, answered, choose, compare

SIZE = 6  # edge of the frame pairs that are built here, pixels
MOTIONS = {
    "left to right": (2, 3),
    "right to left": (3, 2),
    "standing": (3, 3),
}  # columns in frame 1 and in frame 2


def bar(first: int, second: int, size: int = SIZE) -> Tensor:
    """A frame pair [1, frame=2, size, size] with a bar in column `first` of frame 1 and column `second` of frame 2."""
    frames = torch.zeros(1, 2, size, size)
    frames[0, 0, :, first] = 1
    frames[0, 1, :, second] = 1
    return frames


def signs_of_motions(signs: dict) -> Correct:
    """The sign of unit 0's response to each of `MOTIONS`: 1, 0 or -1."""
    answered(signs=signs)
    if not isinstance(signs, dict) or set(signs) != set(MOTIONS):
        raise WrongAnswer(
            f"`signs` should have the keys {', '.join(map(repr, MOTIONS))}."
        )
    detector = MotionDetector()
    said = {
        (
            "left to right",
            -1,
        ): "A bar that moves left to right is what unit 0 is for: u fires and v is vetoed.",
        (
            "left to right",
            0,
        ): "A bar that moves left to right silences v only. What is left of u - v?",
        (
            "right to left",
            1,
        ): "Right to left: now u is the one that is vetoed, so u - v has another sign.",
        (
            "right to left",
            0,
        ): "u and v cannot fall below zero, but u - v can. Here u is 0 and v is not.",
        (
            "standing",
            1,
        ): "A standing bar comes neither from the left nor from the right: does v fire as well?",
        (
            "standing",
            -1,
        ): "A standing bar comes neither from the left nor from the right: does u fire as well?",
    }
    for motion, columns in MOTIONS.items():
        given, truth = (
            _number(signs[motion]),
            float(detector(bar(*columns))[0, 0].sign()),
        )
        if given not in (-1, 0, 1):
            raise WrongAnswer(
                f"The sign of {motion!r} should be 1, 0 or -1, and yours is {signs[motion]!r}."
            )
        if given != truth:
            raise WrongAnswer(said[motion, int(given)])
    return Correct(
        "Below zero there is an answer of its own: the opposite motion, and not merely nothing."
    )


def _number(value) -> float | None:
    """One number, whatever its type; None for anything else."""
    try:
        return float(value)
    except (
        TypeError,
        ValueError,
        RuntimeError,
    ):  # torch raises RuntimeError for a tensor of several
        return None


def lowest_pair(columns: tuple) -> Correct:
    """The columns of a bar in frame 1 and in frame 2 to which unit 0 responds least."""
    answered(columns=columns)
    given = (
        list(columns)
        if hasattr(columns, "__len__") and not isinstance(columns, (str, dict))
        else []
    )
    if len(given) != 2:
        raise WrongAnswer(
            "`columns` should be two numbers: the column in frame 1 and the one in frame 2."
        )
    given = [_number(column) for column in given]
    if not all(column in range(SIZE) for column in given):
        raise WrongAnswer(f"Columns are whole numbers from 0 to {SIZE - 1}.")
    columns = tuple(map(int, given))
    detector = MotionDetector()
    every = torch.cat(
        [bar(first, second) for first in range(SIZE) for second in range(SIZE)]
    )
    responses, own = detector(every)[:, 0], detector(bar(*columns))[0, 0]
    if torch.isclose(own, responses.min()):
        return Correct(
            f"Response {float(own):+.4f}, the lowest of all {len(every)} pairs with one bar in each frame."
        )
    if torch.isclose(own, responses.max()):
        raise WrongAnswer(
            "That is the highest pair: it shows what is present when unit 0 fires. Turn the motion round."
        )
    raise WrongAnswer(
        f"The response to your pair is {float(own):+.4f}, and there are lower ones. "
        "The comparators look at neighbouring columns: by how many columns should the bar move?"
    )


def evidence(on_target, on_non_target) -> Correct:
    """Absence evidence of unit 0 on the first frame pair of its own class and on that of the other class."""
    answered(on_target=on_target, on_non_target=on_non_target)
    sequences = motion_sequences()
    images = sequences.pairs().images[sequences.first_pairs()]
    maps = attribute(Unit(MotionDetector(), channel=0), images)
    target, non_target = absence_evidence(maps).sum(dim=(1, 2)).tolist()
    presence = presence_evidence(maps).sum(dim=(1, 2)).tolist()
    signed = maps.sum(dim=(1, 2, 3)).tolist()
    for name, value in (("on_target", on_target), ("on_non_target", on_non_target)):
        if np.size(to_numpy(value)) != 1:
            raise WrongAnswer(f"`{name}` should be one number: sum over all pixels.")
    summed = (
        "Those are the sums of the signed maps (or the two inputs the wrong way round). Take the negative part first, "
        "`absence_evidence`; `images[[0]]` is the target input, as unit 0 is class 0."
    )
    driven = "That is presence evidence, what drives the unit. Ask for the negative part: `absence_evidence`."
    turned = "Evidence is >= 0: it is the size of the negative part."
    given = [_number(on_target), _number(on_non_target)]
    for pair, sentence in (
        (signed, summed),
        (presence, driven),
        ([-target, -non_target], turned),
    ):
        if None not in given and np.allclose(given, pair, atol=1e-3):
            raise WrongAnswer(sentence)
    look = "Attribute `Unit(detector, channel=0)`, take `absence_evidence`, and sum over the pixels."
    compare("on_target", on_target, target, look=look)
    compare("on_non_target", on_non_target, non_target, look=look)
    return Correct(
        f"{target:.4f} on the target input, {non_target:.4f} on the other: only there is something to see."
    )


def after_relu(tied, empty, rectified: nn.Module, pairs: TensorImages) -> Correct:
    """The mistake: how many patches tie for the lowest response after the rectifier, and how many of them are empty?"""
    answered(tied=tied, empty=empty)
    book, signed = (
        _book(rectified, None, pairs),
        _book(rectified, "0", pairs).lowest.response[0],
    )
    responses, crops = book.lowest.response[0], book.crops(pairs, 0).lowest
    lowest, bare = responses == responses.min(), crops.sum(dim=(1, 2, 3)) == 0
    before = (
        "That is read before the rectifier. Count in `book`, which was mined behind it."
    )
    mistakes = [
        (int((signed == signed.min()).sum()), before),
        (
            int((responses == responses.max()).sum()),
            "Those are the patches with the highest response.",
        ),
        (
            len(responses),
            "That is all patches. Count those whose response equals the lowest one.",
        ),
    ]
    look = "Compare `book.lowest.response[0]` with its own minimum."
    compare("tied", tied, int(lowest.sum()), mistakes=mistakes, look=look, tolerance=0)
    mistakes = [
        (
            int((crops[:, 0].sum(dim=(1, 2)) == 0).sum()),
            "That looks at frame 1 only. Frame 2 should be empty as well.",
        ),
        (
            int((crops[:, 1].sum(dim=(1, 2)) == 0).sum()),
            "That looks at frame 2 only. Frame 1 should be empty as well.",
        ),
    ]
    look = "A patch without a bar sums to 0 over frames and pixels; look at the tied patches only."
    compare(
        "empty",
        empty,
        int((lowest & bare).sum()),
        mistakes=mistakes,
        look=look,
        tolerance=0,
    )
    return Correct(
        f"You made the mistake: {int(lowest.sum())} of {len(responses)} patches tie at {float(responses.min()):.0f}, "
        f"{int((lowest & bare).sum())} of them empty. Nothing seems to lower unit 0 below an empty patch, so it seems "
        "to encode no absence. That conclusion is false."
    )


def before_relu(layer, rectified: nn.Module, pairs: TensorImages) -> Correct:
    """The repair: a layer whose unit 0 sees the bar that moves right to left in its lowest patch."""
    answered(layer=layer)
    if layer is None:
        raise WrongAnswer(
            "`None` is the network's output as it is, after the rectifier: the mistake itself."
        )
    if not isinstance(layer, str):
        raise WrongAnswer(
            f"`layer` should be the name of a layer as text, and yours is {layer!r}."
        )
    if layer in ("0.comparators", "0.relu"):
        raise WrongAnswer(
            "Too early: those are the comparators u and v. Unit 0 is made of both, one module later."
        )
    if layer not in (
        "logits",
        *(name for name, _ in rectified.named_modules() if name),
    ):
        raise WrongAnswer(
            f"The network has no layer {layer!r}. Use 'logits', or a name from `rectified.named_modules()`."
        )
    book, true = (_book(rectified, name, pairs) for name in (layer, "0"))
    lowest, truth = float(book.lowest.response[0, 0]), float(true.lowest.response[0, 0])
    if lowest > truth / 2:
        raise WrongAnswer(
            f"The lowest response of unit 0 in {layer!r} is {lowest:+.4f}: nothing below zero is seen there."
        )
    said = f"The lowest response is {lowest:+.4f}, and only a bar that moves right to left gives it."
    if isinstance(
        rectified.get_submodule(layer) if layer != "logits" else None, nn.ReLU
    ):
        said = (
            "Though only because this package reads what goes into a ReLU; with other tools "
            f"{layer!r} is the mistake. {said}"
        )
    return Correct(said)


def suppressor(what) -> Correct:
    """Which motion lowers unit 0 below the response to an empty patch?"""
    detector = MotionDetector()
    lowest = min(
        MOTIONS, key=lambda motion: float(detector(bar(*MOTIONS[motion]))[0, 0])
    )
    because = {
        "left to right": "Left to right drives unit 0: that is the red end of the map.",
        "standing": "A standing bar gives 0, as an empty patch does: it neither drives nor suppresses unit 0.",
    }
    choose("what", what, lowest, because)
    return Correct(
        "The blue pixels are the bar that moves right to left: its absence is what unit 0 encodes."
    )


def _book(model: nn.Module, layer: str | None, pairs: TensorImages) -> PatchBook:
    edge = pairs.images.shape[-1] - SIZE + 1
    return mine_patches(
        model, layer, pairs, patch=SIZE, stride=1, k=len(pairs) * edge**2
    )
