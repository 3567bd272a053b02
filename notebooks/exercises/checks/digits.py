"""Checks of exercise 03: where an 8 says "not a 3", a removal with a fair control, one on the wrong inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from absence_utils.attribution.evidence import absence_evidence, presence_evidence
from absence_utils.attribution.methods import attribute
from absence_utils.attribution.removal import TREATMENTS, remove_pixels, remove_strokes
from absence_utils.models.training import predict
from absence_utils.toys.digits import left_share
from absence_utils.units import Unit

from .answers import Correct, WrongAnswer, answered, choose, compare

UNIT, SOURCE = 3, 8  # the unit that is explained, and the class that must not be there
SHARE = 0.24  # of an image's stroke pixels to remove, as reported in the lesson


def stroke_counts(images: Tensor, share: float = SHARE) -> tuple[Tensor, Tensor]:
    """Stroke pixels bool [image, height, width], and how many of them make the share: [image]."""
    strokes = (images > 0).any(dim=1)
    return strokes, (share * strokes.sum(dim=(1, 2))).round().long()


def left_halves(left: dict, network: nn.Module, inputs: dict[str, Tensor]) -> Correct:
    """Share of the absence evidence of unit 3 on the left half of the images, for each kind of input.

    Args:
        left: "3s" and "8s" -> share in 0..1.
        inputs: "3s" and "8s" -> images [n, 1, height, width].
    """
    answered(left=left)
    if not isinstance(left, dict) or set(left) != set(inputs):
        raise WrongAnswer(
            f"`left` should be a dict with the keys {', '.join(map(repr, inputs))}."
        )
    signed = {
        kind: attribute(Unit(network, channel=UNIT), images)
        for kind, images in inputs.items()
    }
    truth = {kind: left_share(absence_evidence(maps)) for kind, maps in signed.items()}
    for kind, images in inputs.items():
        maps, (other,) = signed[kind], [truth[name] for name in truth if name != kind]
        evidence = absence_evidence(maps)
        source = absence_evidence(attribute(Unit(network, channel=SOURCE), images))
        ink = "That is the share of the ink. Take the absence evidence of the map, not the image."
        mistakes = [
            (
                1 - left_share(evidence),
                "That is the right half: columns 0 to 3 are the left one.",
            ),
            (
                left_share(evidence.mT),
                "That is the upper half: the last axis of an image is its width.",
            ),
            (
                1 - left_share(evidence.mT),
                "That is the lower half: the last axis of an image is its width.",
            ),
            (
                left_share(presence_evidence(maps)),
                "That is presence evidence. Ask for the negative part.",
            ),
            (
                left_share(maps.abs().sum(1)),
                "Those are absolute values: for and against, added up. Take the negative part.",
            ),
            (left_share(images), ink),
            (
                float(evidence[..., :4].sum()),
                "That is the evidence on the left; divide by all of it.",
            ),
            (
                left_share(maps.sum(1)),
                "That adds up for and against, with signs. Take the negative part first.",
            ),
            (
                left_share(source),
                f"That is unit {SOURCE}. The unit is the logit of '{UNIT}'.",
            ),
            (
                other,
                "That is the share of the other images: the 3s and the 8s the wrong way round.",
            ),
        ]
        look = "`absence_evidence(attribute(unit, images))` is [image, height, width]; sum left columns, sum all."
        compare(
            f'left["{kind}"]',
            left[kind],
            truth[kind],
            mistakes=mistakes,
            look=look,
            share=True,
        )
    ink = left_share(inputs["8s"])
    return Correct(
        f"The 8s have {ink:.0%} of their ink on the left, and {truth['8s']:.0%} of what speaks against '{UNIT}'."
    )


def removal_score(score, network: nn.Module, eights: Tensor) -> Correct:
    """What `remove_pixels` removes first (lowest first), to take away what speaks against unit 3: [image, h, w]."""
    answered(score=score)
    score = _as_score(score, eights)
    strokes, count = stroke_counts(eights)
    maps = attribute(Unit(network, channel=UNIT), eights).sum(dim=1)
    other = attribute(Unit(network, channel=SOURCE), eights).sum(dim=1)
    opposite = "That removes what speaks *for* '3' first: `remove_pixels` starts with the lowest score."
    magnitude = "You took absolute values: that removes what matters least first, or what matters most, for or against."
    turned = "Evidence is >= 0, and `remove_pixels` starts with the lowest score: turn the sign."
    mistakes = [
        (maps.clamp(max=0).abs(), turned),
        (-maps, opposite),
        (maps.abs(), magnitude),
        (-maps.abs(), magnitude),
        (
            other,
            "That explains '8'. The unit is '3': what is it in an 8 that keeps it from being a 3?",
        ),
    ]

    def gone(by: Tensor) -> Tensor:
        return (remove_pixels(eights, by, count, among=strokes) != eights).any(dim=1)

    mine, truth = (
        gone(score),
        gone(maps),
    )  # the pixels count, not the scores: many scores remove the same
    if not torch.equal(mine, truth):
        for wrong, sentence in mistakes:
            if torch.equal(mine, gone(wrong)):
                raise WrongAnswer(sentence)
        share = float((mine & ~truth).sum() / truth.sum())
        raise WrongAnswer(
            f"Of the pixels that `score` removes, {share:.0%} should stay. "
            f"Lowest first: the signed map of unit {UNIT}, summed over the channel axis."
        )
    seen = predict(network, remove_pixels(eights, maps, count, among=strokes)).argmax(
        dim=1
    )
    return Correct(
        f"With these pixels removed, {_share(seen == UNIT):.0%} of the 8s are seen as 3."
    )


def _as_score(score, eights: Tensor) -> Tensor:
    """The answer, which should be a tensor [image, height, width] of finite numbers."""
    if not isinstance(score, Tensor):
        raise WrongAnswer(
            f"`score` should be a tensor of numbers, and yours is a {type(score).__name__}."
        )
    score = score.detach()
    if score.shape == eights.shape:
        raise WrongAnswer("Drop the channel axis: [image, height, width].")
    if score.shape != eights[:, 0].shape:
        raise WrongAnswer(
            f"`score` should have shape {tuple(eights[:, 0].shape)}, and yours has {tuple(score.shape)}."
        )
    if not score.isfinite().all():
        raise WrongAnswer("`score` holds a value that is not a finite number.")
    return score


def fair_control(control, network: nn.Module, eights: Tensor) -> Correct:
    """The 8s with equally many random stroke pixels removed, [image, 1, height, width]."""
    answered(control=control)
    if not isinstance(control, Tensor) or control.shape != eights.shape:
        raise WrongAnswer(
            f"`control` should be images of shape {tuple(eights.shape)}, as `remove_pixels` returns them."
        )
    strokes, count = stroke_counts(eights)
    gone = ((control != eights).any(dim=1)) & strokes
    if ((control != eights).any(dim=1) & (control != 0).any(dim=1)).any():
        raise WrongAnswer(
            "Some pixels changed without being removed. A removed pixel is background, 0."
        )
    removed = gone.sum(dim=(1, 2))
    if not removed.any():
        raise WrongAnswer("Nothing is removed: these are the 8s as they were.")
    if (removed < count).float().mean() > 0.5:
        raise WrongAnswer(
            "Fewer stroke pixels are gone than in the treatment: random pixels of the whole image fall on the "
            "background as well. Draw `among=strokes`, and remove `count`."
        )
    if not torch.equal(removed, count):
        raise WrongAnswer(
            "The number of removed pixels differs from the treatment's: remove `count` in each image."
        )
    maps = attribute(Unit(network, channel=UNIT), eights).sum(dim=1)
    for sign, name in ((1, "most negative"), (-1, "most positive")):
        if torch.equal(
            remove_pixels(eights, sign * maps, count, among=strokes), control
        ):
            raise WrongAnswer(
                f"Those are the {name} pixels: a control does not look at the map."
            )
    if _in_order(gone, strokes, count):
        raise WrongAnswer(
            "These pixels are not random: the same score everywhere removes from the top. Use `torch.rand`."
        )
    seen = predict(network, control).argmax(dim=1)
    return Correct(
        f"With equally many random stroke pixels removed, {_share(seen == UNIT):.0%} are seen as 3."
    )


def _in_order(gone: Tensor, strokes: Tensor, count: Tensor) -> bool:
    """Whether the removed pixels are just the first stroke pixels of most images, counted from the top."""
    first = strokes & (
        strokes.flatten(1).cumsum(1).view(strokes.shape) <= count[:, None, None]
    )
    return float((first == gone).flatten(1).all(dim=1).double().mean()) > 0.5


def wrong_inputs(
    changed: dict, conclusion, network: nn.Module, threes: Tensor
) -> Correct:
    """The mistake: removal on the unit's own class, where a release cannot change the class.

    Args:
        changed: "most negative" and "random" -> share of the 3s that are no longer seen as 3.
        conclusion: what this seems to say of unit 3.
    """
    answered(changed=changed, conclusion=conclusion)
    truth = _rates(network, threes, lambda seen: seen != UNIT)
    before = _share(predict(network, threes).argmax(dim=1) != UNIT)
    for name in TREATMENTS[:2]:
        if not isinstance(changed, dict) or name not in changed:
            raise WrongAnswer(
                '`changed` should be a dict with the keys "most negative" and "random".'
            )
        mistakes = [
            (
                1 - truth[name],
                "That is the share still seen as 3. Count those that are not.",
            )
        ]
        look = (
            "Count where `predict(network, treated_threes[name]).argmax(1)` is not 3."
        )
        compare(
            f'changed["{name}"]',
            changed[name],
            truth[name],
            mistakes=mistakes,
            look=look,
            share=True,
        )
    because = {
        "encodes an absence": "You know better than this test! Random pixels change more 3s than the marked ones. What "
        "would somebody conclude who sees only these two numbers?"
    }
    choose("conclusion", conclusion, "encodes no absence", because)
    released = remove_strokes(network, threes, UNIT, SHARE)["most negative"]
    logits = [
        float(predict(network, images)[:, UNIT].mean()) for images in (threes, released)
    ]
    return Correct(
        f"You made the mistake: without the marked pixels {truth['most negative']:.0%} of the 3s turn into something "
        f"else ({before:.0%} before), without random ones {truth['random']:.0%}. The marked pixels seem not to matter, "
        "and unit 3 seems to encode no absence. That conclusion is false: a 3 without what speaks against '3' is a 3 "
        f"all the more (its logit goes from {logits[0]:.1f} to {logits[1]:.1f} on average), so its class cannot tell. "
        "Ask images that are not seen as 3."
    )


def right_inputs(flipped: dict, network: nn.Module, eights: Tensor) -> Correct:
    """The repair: removal on non-target inputs, counted as "now seen as 3", for all three treatments."""
    answered(flipped=flipped)
    truth = _rates(network, eights, lambda seen: seen == UNIT)
    lost = _rates(network, eights, lambda seen: seen != SOURCE)
    for name in TREATMENTS:
        if not isinstance(flipped, dict) or name not in flipped:
            raise WrongAnswer(
                f"`flipped` should be a dict with the keys {', '.join(map(repr, TREATMENTS))}."
            )
        damaged = "That counts 8s which are no longer seen as 8. Any damage does that; count those seen as 3."
        mistakes = [
            (lost[name], damaged),
            (1 - truth[name], "That counts those not seen as 3."),
        ]
        look = "Use `remove_strokes(network, eights, 3, share)`, and count where the class seen is 3."
        compare(
            f'flipped["{name}"]',
            flipped[name],
            truth[name],
            mistakes=mistakes,
            look=look,
            share=True,
        )
    return Correct(
        f"{truth['most negative']:.0%} against {truth['random']:.0%} for random and {truth['most positive']:.0%} for "
        "the most positive pixels: what the non-target map marks is what kept these 8s from being 3s."
    )


def _rates(network: nn.Module, images: Tensor, hit) -> dict[str, float]:
    treated = remove_strokes(network, images, UNIT, SHARE)
    return {
        name: _share(hit(predict(network, left).argmax(dim=1)))
        for name, left in treated.items()
    }


def _share(hits: Tensor) -> float:
    return float(hits.double().mean())
