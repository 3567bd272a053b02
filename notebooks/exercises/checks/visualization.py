"""Checks of exercise 04: a minimum by hand, one after a ReLU, poles at one budget, a name and its test."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

from absence_utils.images.scenes import (
    CONCEPTS,
    NORMALISATION,
    RULES,
    counterfactual_pairs,
)
from absence_utils.units import Unit, feature_map

from .answers import Correct, WrongAnswer, answered, choose, compare

SHAPE = (1, 3, 64, 64)  # of an image
BUDGET = 40.0  # distance of every image from the blank, L2 norm in the units of the network's input; a ring has 39
STEPS, STEP = 60, 4.0  # of the loop of the hint; the length of a step in the same units
LOGIT, OTHER = (list(RULES).index(name) for name in ("not ring", "disc and not cross"))
SUPPRESSOR = "cross"  # what the minimum of `OTHER` shows
CHANNEL = 28  # of block4: silent after the ReLU long before its minimum
TOOL = 3  # times the budget is what the tool's maximum has
ENOUGH = 0.8  # of the way from the start to what the loop of the hint reaches
BLUR, KERNEL, STARTS = (
    1.5,
    9,
    3,
)  # px, px and number of the minima that are shown for a name
PAIRS, SEED = 32, 0  # scenes with and without a concept
NEAR = 0.01  # of the budget: equal but for rounding


def at_budget(image: Tensor, budget: float = BUDGET) -> Tensor:
    """The image at its distance from the blank, which is 0 everywhere."""
    return budget * image / image.norm()


def start(seed: int = 0) -> Tensor:
    """Noise around the blank at the budget: [1, channel, height, width], normalised."""
    return at_budget(torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)))


def _reading(network: nn.Module, what: str) -> Callable[[Tensor], Tensor]:
    """Image to response [image] of the "logit", of the "hidden" channel, or of it "after the ReLU"."""
    if what == "after the ReLU":
        return lambda images: (
            feature_map(network, "block4", images).relu()[:, CHANNEL].mean(dim=(1, 2))
        )
    layer, channel = ("logits", LOGIT) if what == "logit" else ("block4", CHANNEL)
    return Unit(network, layer, channel).response


def _gradient(read: Callable, image: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = image.detach().requires_grad_()
        return torch.autograd.grad(read(leaf).sum(), leaf)[0]


def climb(
    read: Callable,
    sign: int,
    *,
    seed: int = 0,
    budget: float = BUDGET,
    blur: float = 0.0,
) -> Tensor:
    """The loop of the hint: steps along the gradient (sign 1) or against it (-1), back to the budget.

    Args:
        read: image to response [1].
        seed: of the start.
        budget: distance from the blank.
        blur: px, standard deviation of a Gaussian over each gradient and the start; 0 for none.
    """

    def smoothed(values: Tensor) -> Tensor:
        return gaussian_blur(values, KERNEL, blur) if blur else values

    image = at_budget(smoothed(start(seed)), budget)
    for _ in range(STEPS):
        slope = smoothed(_gradient(read, image))
        image = at_budget(
            image + sign * STEP * slope / slope.norm().clamp(min=1e-12), budget
        )
    return image


@lru_cache(maxsize=8)  # every check compares with them, whenever it is run
def _reached(
    network: nn.Module, what: str, sign: int, budget: float = BUDGET
) -> Tensor:
    """Where the loop of the hint ends with one of the readings."""
    return climb(_reading(network, what), sign, budget=budget)


def tool_maximum(network: nn.Module) -> Tensor:
    """The maximum of the logit as a tool found it that has no budget: further from the blank."""
    return _reached(network, "logit", 1, TOOL * BUDGET)


def minima(network: nn.Module) -> Tensor:
    """Minima of "disc and not cross", with blurred gradients: [start, channel, height, width]."""
    read = Unit(network, "logits", OTHER).response
    return torch.cat([climb(read, -1, seed=seed, blur=BLUR) for seed in range(STARTS)])


@torch.no_grad()
def _value(read: Callable, image: Tensor) -> float:
    return float(read(image))


def _as_image(name: str, given) -> Tensor:
    """The answer, which should be one image at the budget."""
    answered(**{name: given})
    if not isinstance(given, Tensor) or given.shape != SHAPE:
        what = (
            f"shape {tuple(given.shape)}"
            if isinstance(given, Tensor)
            else f"type {type(given).__name__}"
        )
        raise WrongAnswer(
            f"`{name}` should be a tensor of shape {SHAPE}, and yours has {what}."
        )
    given = given.detach()
    if not given.isfinite().all():
        raise WrongAnswer(
            f"`{name}` holds a value that is not a finite number: the gradient was divided by 0."
        )
    norm = float(given.norm())
    if abs(norm - BUDGET) > NEAR * BUDGET:
        raise WrongAnswer(
            f"The budget is not matched: `{name}` lies {norm:.1f} from the blank, the start {BUDGET:g}. A "
            "stronger image goes further whatever it shows. Bring it back to `check.BUDGET` after every step."
        )
    return given


def _extreme(
    name: str, given, network: nn.Module, what: str, sign: int
) -> tuple[float, float]:
    """(start, reached) of an image that should be a pole; the loop of the hint is run for comparison."""
    image, begun, read = _as_image(name, given), start(), _reading(network, what)
    towards, away = ("down", "subtract") if sign < 0 else ("up", "add")
    if (image - begun).norm() < NEAR * BUDGET:
        raise WrongAnswer(f"`{name}` is the start: nothing has moved.")
    first, reached, best = (
        _value(read, each) for each in (begun, image, _reached(network, what, sign))
    )
    if sign * (reached - first) < 0:
        raise WrongAnswer(
            f"The response went from {first:+.2f} to {reached:+.2f}, the wrong way. To go {towards}, {away} "
            "the gradient."
        )
    if sign * (reached - first) < ENOUGH * sign * (best - first):
        raise WrongAnswer(
            f"The response went from {first:+.2f} to {reached:+.2f}; the loop of the hint reaches "
            f"{best:+.2f}. Take more steps, or longer ones."
        )
    return first, reached


def minimum(lowest, network: nn.Module) -> Correct:
    """The minimum of the logit at the budget, by a loop of one's own: [1, channel, height, width]."""
    first, reached = _extreme("lowest", lowest, network, "logit", -1)
    blank = _value(_reading(network, "logit"), torch.zeros(SHAPE))
    return Correct(
        f"From {first:+.1f} down to {reached:+.1f}, as far from the blank as before; the blank itself "
        f"answers {blank:+.1f}."
    )


def dead_minimum(dead_response, dead_gradient, reading, network: nn.Module) -> Correct:
    """The mistake: the minimum read after the ReLU, the norm of its gradient, what this seems to say."""
    answered(dead_response=dead_response, dead_gradient=dead_gradient, reading=reading)
    read, signed = (_reading(network, what) for what in ("after the ReLU", "hidden"))
    dead, lower = (_reached(network, what, -1) for what in ("after the ReLU", "hidden"))
    early = "That is the {} at the start. Run the loop first."
    known = "That is the signed response. First make the mistake: read what the ReLU lets through."
    if _float(dead_response) < 0:
        raise WrongAnswer(known)
    for name, value in (
        ("dead_response", dead_response),
        ("dead_gradient", dead_gradient),
    ):
        if math.isnan(_float(value)):
            raise WrongAnswer(
                f"`{name}` is NaN: where the gradient is 0 it was divided by its norm. Use "
                "`.norm().clamp(min=1e-12)`."
            )
    mistakes = [
        (_value(read, start()), early.format("response")),
        (_value(signed, start()), known),
    ]
    look = "Read with `.relu()`, and run the loop of task 1 until nothing changes."
    compare(
        "dead_response",
        dead_response,
        _value(read, dead),
        mistakes=mistakes,
        look=look,
        absolute=1e-3,
    )
    mistakes = [(float(_gradient(read, start()).norm()), early.format("gradient"))]
    mistakes += [
        (
            float(_gradient(signed, image).norm()),
            known.replace("response", "response's gradient"),
        )
        for image in (dead, lower)
    ]
    slope = float(_gradient(read, dead).norm())
    look = "The norm of the gradient of the last step."
    compare(
        "dead_gradient",
        dead_gradient,
        slope,
        mistakes=mistakes,
        look=look,
        absolute=1e-4,
    )
    because = {
        "a low side": "You know better than this loop! It ended at 0 with nothing left to follow. What would "
        "somebody conclude who sees only that?"
    }
    choose("reading", reading, "no low side", because)
    return Correct(
        f"You made the mistake: the response is {_value(read, dead):.2f}, its gradient {slope:.2f}, and the "
        "unit seems to have no low side. That conclusion is false: before the ReLU this image answers "
        f"{_value(signed, dead):+.1f}, and another one as far from the blank {_value(signed, lower):+.1f}."
    )


def _float(given) -> float:
    """A number, or infinity for what is none."""
    try:
        return float(given)
    except (TypeError, ValueError, RuntimeError):
        return math.inf


def signed_minimum(hidden, network: nn.Module) -> Correct:
    """The repair: the minimum of the channel before the ReLU, at the budget: [1, channel, height, width]."""
    image, read = _as_image("hidden", hidden), _reading(network, "hidden")
    silent = not _gradient(_reading(network, "after the ReLU"), image).any()
    if silent and _value(read, image) > ENOUGH * _value(
        read, _reached(network, "hidden", -1)
    ):
        raise WrongAnswer(
            f"You read after the ReLU: the loop stopped where the unit fell silent, at "
            f"{_value(read, image):+.1f}. "
            f'Read before it: `Unit(network, "block4", {CHANNEL}).response`.'
        )
    first, reached = _extreme("hidden", image, network, "hidden", -1)
    return Correct(
        f"From {first:+.1f} down to {reached:+.1f}. The ReLU would have shown 0 most of the way."
    )


def poles(highest, further, lowest, network: nn.Module) -> Correct:
    """The maximum at the budget of the minimum, and which of them lies further from the blank's response."""
    answered(highest=highest, further=further)
    read, tool = _reading(network, "logit"), tool_maximum(network)
    if (
        isinstance(highest, Tensor)
        and highest.shape == SHAPE
        and (highest - tool).norm() < NEAR * tool.norm()
    ):
        raise WrongAnswer(
            f"That is the tool's maximum, {float(tool.norm()):.0f} from the blank where your minimum is "
            f"{BUDGET:g}: the budget is not matched. Make one of your own with the loop of task 1."
        )
    _extreme("highest", highest, network, "logit", 1)
    _extreme("lowest", lowest, network, "logit", -1)
    blank = _value(read, torch.zeros(SHAPE))
    up, down = _value(read, highest) - blank, blank - _value(read, lowest)
    because = {
        "up": f"At one budget the maximum lies {up:.1f} above the blank's response and the minimum "
        f"{down:.1f} below it. Did you compare with the tool's?"
    }
    choose("further", further, "down", because)
    stronger = _value(read, tool) - blank
    return Correct(
        f"At one budget {down:.1f} down and {up:.1f} up. The tool's maximum lies {stronger:.1f} above the "
        f"blank, since it has {TOOL} times the contrast: it says nothing of the unit."
    )


def named(concept, effect, network: nn.Module) -> Correct:
    """What the minima of "disc and not cross" show, and its effect in exact pairs: mean of with - without."""
    answered(concept=concept, effect=effect)
    word = str(concept).strip().lower()
    because = {name: "" for name in CONCEPTS if name != SUPPRESSOR}
    if word in because:
        change = float(_effects(word, network).mean())
        because[word] = (
            f"Put into {PAIRS} scenes, a {word} changes the logit by {change:+.1f} on average. What lowers "
            "it?"
        )
    choose("concept", concept, SUPPRESSOR, because)
    read, pairs = (
        Unit(network, "logits", OTHER).response,
        counterfactual_pairs(SUPPRESSOR, PAIRS, SEED),
    )
    changes = _effects(SUPPRESSOR, network)
    with torch.no_grad():
        shown, hidden = (
            read(NORMALISATION.apply(scenes.pixels)).mean() for scenes in pairs
        )
        raw = read(pairs[0].pixels).mean() - read(pairs[1].pixels).mean()
    mistakes = [
        (
            -changes.mean(),
            "The sign is the wrong way round: with the concept minus without it.",
        ),
        (
            shown,
            "That is the response with the concept. Subtract that of the same scenes without it.",
        ),
        (
            hidden,
            "That is the response without the concept. Subtract it from that of the scenes with it.",
        ),
        (
            raw,
            "The network saw pixels in 0..1. Normalise them first: `NORMALISATION.apply`.",
        ),
        (changes.sum(), "That is the sum over the pairs. Take their mean."),
    ]
    look = "The mean over the pairs of the response with the concept minus that without it."
    compare("effect", effect, changes.mean(), mistakes=mistakes, look=look)
    return Correct(
        f"The picture proposed it, the pairs confirm it: {float(changes.mean()):+.1f} on average, below 0 in "
        f"{int((changes < 0).sum())} of {PAIRS} scenes that differ in nothing else."
    )


@torch.no_grad()
def _effects(concept: str, network: nn.Module) -> Tensor:
    """Change of "disc and not cross" by a concept in each of the pairs: [pair]."""
    read = Unit(network, "logits", OTHER).response
    shown, hidden = counterfactual_pairs(concept, PAIRS, SEED)
    return read(NORMALISATION.apply(shown.pixels)) - read(
        NORMALISATION.apply(hidden.pixels)
    )
