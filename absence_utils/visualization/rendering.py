"""Synthesised images: the maximum beside the minimum of a unit, and the smallest change that switches it off.

The second of the paper's two extensions, on lucent: its image parametrisations, its transforms, its
objectives. Both signs get the same seed and the same budget, and the same seed gives the same picture
whatever was drawn before.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from absence_utils.display import one_line
from absence_utils.errors import InputError
from absence_utils.images.base import input_channels, normalisation_of
from absence_utils.units import Unit

from .facets import choose_facets, effects, likeness
from .objectives import Objective, absence, apart, presence, smooth, suppression
from .optimisation import (
    Goal,
    Synthesised,
    Transform,
    check_numbers,
    check_same_layer,
    chosen_transforms,
    layer_with_space,
    renderable,
    synthesise,
)
from .parametrisation import blank_of, changed_image, check_contrast, noise_image

SPARE = 2  # candidates for each facet


@dataclass(frozen=True)
class Rendering:
    """Synthesised images for one sign of one unit.

    Attributes:
        image: [facet, channel, height, width] in 0..1, on the CPU.
        response: [facet] of these images, as they are: untransformed, in the units of the layer.
        trajectory: [step, facet] response at each step, of the image as randomly transformed in that step.
        frames: [frame, facet, channel, height, width], the images on the way, where they were asked for.
    """

    image: Tensor
    response: Tensor
    trajectory: Tensor
    frames: Tensor | None = None

    __repr__ = one_line


@dataclass(frozen=True)
class RenderedPair:
    """What drives a unit up and what drives it down, synthesised with the same seed and budget.

    Attributes:
        unit: the unit, as it was read.
        highest, lowest: maximum and minimum.
        contrast: what both were held to, None where they were free, see `render_pair`.
    """

    unit: Unit
    highest: Rendering
    lowest: Rendering
    contrast: float | None = None

    def __repr__(self) -> str:
        facets, _, height, width = self.highest.image.shape
        highest, lowest = float(self.highest.response.max()), float(self.lowest.response.min())
        return (
            f"RenderedPair of {self.unit.name}: highest {highest:.4g}, lowest {lowest:.4g} "
            f"({facets} and {len(self.lowest.image)} images, {height} x {width} px)"
        )

    def show(self):
        """A figure of all facets, maxima on the left and minima on the right, with their responses."""
        from absence_utils.plots.visualization import rendered_pair

        return rendered_pair(self)


@dataclass(frozen=True)
class Suppression:
    """An image changed as little as possible to switch a unit off.

    Attributes:
        image, original: [channel, height, width] in 0..1, after and before.
        change: [channel, height, width] in -1..1, signed: image - original.
        before, after, target: responses to `original` and `image`, and what was asked for, in the units of
            the layer.
        trajectory: [step] response at each step, of the image as randomly transformed in that step.
        size: mean |change| over pixels and channels, in units of the pixel range.
    """

    unit: Unit
    image: Tensor
    original: Tensor
    change: Tensor
    before: float
    after: float
    target: float
    trajectory: Tensor
    size: float

    __repr__ = one_line


def render_pair(
    unit: Unit, steps: int = 256, size: int = 128, seed: int = 0, facets: int = 1, **options
) -> RenderedPair:
    """Synthesise the images with the highest and the lowest response of a unit: `render_pairs` for one unit.

    Args:
        unit: channel, logit or direction.
        steps, size, seed, facets, options: see `render_pairs`.

    Returns:
        A RenderedPair. `pair.show()` draws it.

    Example:
        >>> from absence_utils import Unit, load_model, render_pair
        >>> pair = render_pair(Unit(load_model("concept_scenes"), "block4", 3), steps=4, size=64)
        >>> pair.highest.image.shape[-2:], bool((pair.highest.response > pair.lowest.response).all())
        (torch.Size([64, 64]), True)
    """
    return render_pairs([unit], steps, size, seed, facets, **options)[0]


def render_pairs(
    units: Sequence[Unit],
    steps: int = 256,
    size: int = 128,
    seed: int = 0,
    facets: int = 1,
    *,
    contrast: float | None = None,
    diversity: float = 1.0,
    diversity_layer: str | None = None,
    lr: float = 0.05,
    transforms: str | Sequence[Transform] = "standard",
    decorrelate: bool = True,
    smoothness: float = 0.0,
    plateau: float = 0.0,
    frames: Sequence[int] = (),
    batch: int = 16,
) -> list[RenderedPair]:
    """Synthesise the images with the highest and the lowest response of each unit of a layer.

    All start from the same faint noise, drawn from `seed`, and take the same number of Adam steps under the
    same random transforms; only the sign of the objective differs. They share their passes, which end at the layer.
    It runs on one thread, because another number of threads gives another picture. The network's hooks, gradients
    and training flags and all global random states are left as found, also after an exception.

    Args:
        units: channels, logits or directions of one layer of one network. For `layer=None` the signed output is
            rendered (`unit.signed`), with a warning where the network rectifies its output, because a rectified
            output has no minimum to look for.
        steps: number of Adam steps for each image.
        size: height and width of the images in pixels; the network must take images of this size.
        seed: of the first noise and of the transforms.
        facets: number of images for each sign, at most. `SPARE` times as many are made, which `diversity` lets differ
            until two thirds of the steps are done; then the best is taken, and always the most different one of those
            that have 85% of its effect (`facets.choose_facets`). Where there are not enough, there are fewer.
        contrast: the budget of each image: the root mean square distance of its pixels from the blank (the network's
            mean colour), in the pixel range; `budget.natural_contrast` measures that of images. None leaves it free:
            images then go far beyond natural ones.
        diversity: strength of the term that keeps facets apart, see `objectives.apart`. At 10 differing
            counts more than the response.
        diversity_layer: layer whose Gram matrices are compared; None for the unit's own, or, where that has
            no space (logits), for the last layer that has. Another layer costs a second forward pass.
        lr: step size of Adam in lucent's parametrisation (Fourier coefficients).
        transforms: "standard" (see `standard_transforms`), "none", or functions from images to images.
        decorrelate: use lucent's colour statistics of natural images (RGB only).
        smoothness: strength of the total variation term, see `objectives.smooth`. 0 suits networks trained on
            photographs; small networks need some (5 to 15), or fine gratings are all one sees.
        plateau: stop early, see `optimisation.synthesise`: at 0.02 once all images gain less than 2% more in an
            eighth of the steps. 0 takes all steps.
        frames: steps before which the images are kept (`steps` for the finished ones), for animations.
        batch: images in one pass. More are made in several batches, with the same first noise and transforms.

    Returns:
        A RenderedPair for each unit; responses are read by `unit.response` on the finished images.

    Raises:
        InputError: a bad value; units of several layers; a unit that does not exist; a size that the network does not
            take; a response that is not finite or does not depend on the image.

    Source: Hesse et al., arXiv 2603.09787, feature visualisation by minimisation; Olah et al., Feature
    Visualization, Distill 2017, for the parametrisation, the transforms and diversity; matched contrast as for most and
    least exciting inputs of neurons (Walker et al., Nature Neuroscience 22, 2019).
    """
    sides = [(unit, side) for unit in units for side in (presence, absence)]
    made = _rendered(
        [unit for unit, _ in sides], [side for _, side in sides], steps, size, seed, facets, contrast=contrast,
        diversity=diversity, diversity_layer=diversity_layer, lr=lr, transforms=transforms, decorrelate=decorrelate,
        smoothness=smoothness, plateau=plateau, frames=frames, batch=batch,
    )  # fmt: skip
    return [
        RenderedPair(unit, high, low, contrast)
        for (unit, high), (_, low) in zip(made[::2], made[1::2], strict=True)
    ]


def minimise(
    objective: Objective,
    unit: Unit,
    steps: int = 256,
    size: int = 128,
    seed: int = 0,
    facets: int = 1,
    **options,
) -> Rendering:
    """Synthesise images that minimise any objective of lucent's: a unit's response, its negative, or your own.

    `render_pair` makes the images of `minimise(-response, ...)` and `minimise(response, ...)` side by side.

    Args:
        objective: reads the unit's layer as "reading", as `absence(unit)` does, which is the unit's response.
        unit: whose layer is read and whose responses are recorded.
        steps, size, seed, facets, options: see `render_pairs`.

    Returns:
        A Rendering.

    Raises:
        InputError: as `render_pairs`.

    Example:
        >>> from absence_utils import Unit, load_model
        >>> from absence_utils.visualization import absence, minimise
        >>> unit = Unit(load_model("concept_scenes"), "logits", 1)  # "not ring"
        >>> response = absence(unit)
        >>> highest, lowest = (minimise(sign * response, unit, steps=4, size=64) for sign in (-1, 1))
        >>> bool(highest.response > lowest.response)
        True
    """
    ((_, made),) = _rendered([unit], [lambda _: objective], steps, size, seed, facets, **options)
    return made


def _rendered(
    units, sides, steps, size, seed, facets, *, contrast=None, diversity=1.0, diversity_layer=None, lr=0.05,
    transforms="standard", decorrelate=True, smoothness=0.0, plateau=0.0, frames=(), batch=16,
) -> list[tuple[Unit, Rendering]]:  # fmt: skip
    """For each unit, as it was read, and its side (unit -> objective) what was synthesised; see `render_pairs`."""
    check_numbers(
        steps=steps, size=size, facets=facets, lr=lr, seed=seed, diversity=diversity, smoothness=smoothness,
        plateau=plateau, batch=batch,
    )  # fmt: skip
    check_same_layer(units)
    signed, views = {}, chosen_transforms(transforms, size)
    for unit in dict.fromkeys(units):
        signed[unit] = renderable(unit, size, stacklevel=5)
    model, layer = units[0].model, signed[units[0]].layer
    layers, early = {"reading": layer}, None
    if facets > 1 and diversity:
        apart_in = diversity_layer or layer_with_space(signed[units[0]], size)
        name = "reading" if apart_in == layer else "space"
        layers[name], early = apart_in, apart(diversity, name)
    blank = blank_of(normalisation_of(model))
    if contrast is not None:
        check_contrast(contrast, blank)
    asked = [(signed[unit], side(signed[unit])) for unit, side in zip(units, sides, strict=True)]
    if smoothness:
        asked = [(unit, objective + smooth(smoothness)) for unit, objective in asked]
    candidates = SPARE * facets if early else facets
    at_once = max(1, batch // candidates)
    made = []
    for first in range(0, len(asked), at_once):
        goals = [Goal(unit, objective, early) for unit, objective in asked[first : first + at_once]]
        noise = partial(
            noise_image, size, input_channels(model), candidates, len(goals),
            decorrelate=decorrelate, contrast=contrast, blank=blank,
        )  # fmt: skip
        made += synthesise(
            goals, noise, views, layers=layers, steps=steps, lr=lr, seed=seed, plateau=plateau, frames=frames
        )
    if early:
        made = [_best(each, unit, facets, apart_in) for each, (unit, _) in zip(made, asked, strict=True)]
    return [
        (unit, Rendering(each.pixels, each.response, each.trajectory, each.frames if len(frames) else None))
        for (unit, _), each in zip(asked, made, strict=True)
    ]


def _best(made: Synthesised, unit: Unit, facets: int, layer: str | None) -> Synthesised:
    """The facets that are kept of all candidates, which were all driven the same way."""
    moved = effects(unit, made.pixels, made.response, 1)
    rows = choose_facets(moved * moved.mean().sign(), likeness(unit.model, layer, made.pixels), facets)
    return Synthesised(made.pixels[rows], made.response[rows], made.trajectory[:, rows], made.frames[:, rows])


def suppress(
    unit: Unit,
    image: Tensor,
    steps: int = 128,
    seed: int = 0,
    *,
    target: float = 0.0,
    penalty: float = 10.0,
    lr: float = 0.02,
    transforms: str | Sequence[Transform] = "standard",
) -> Suppression:
    """Change an image as little as possible so that a unit it activates falls to `target`.

    Args:
        unit: channel, logit or direction (`layer=None` is read as its signed output, as in `render_pair`).
        image: [channel, height, width], normalised as the network expects: an item of an image dataset.
        steps: number of Adam steps.
        seed: of the transforms.
        target: response that counts as switched off, in the units of the layer.
        penalty: weight of the change, see `objectives.suppression`.
        lr: step size of Adam.
        transforms: "standard" (see `standard_transforms`), "none", or functions from images to images. The
            target is to be reached under the transforms, on average, so the plain image usually ends a little
            below it. Without them the smallest change is noise that holds for one exact position only.

    Returns:
        A Suppression. Pixels stay in 0..1. A warning says so where the target was not reached.

    Raises:
        InputError: a bad value; an image that is not above the target, has another shape or is not finite.

    Example:
        >>> from absence_utils import Unit, load_images, load_model, suppress
        >>> model = load_model("concept_scenes")
        >>> unit = Unit(model, "logits", 4)  # "checker"
        >>> images = [image for image, _ in load_images("concept_scenes", model, limit=8)]
        >>> image = max(images, key=lambda image: unit.response(image[None]).item())
        >>> changed = suppress(unit, image, steps=32, penalty=1.0)
        >>> bool(changed.after < changed.before)
        True
    """
    check_numbers(steps=steps, lr=lr, penalty=penalty, seed=seed, target=target)
    if not isinstance(image, Tensor) or image.ndim != 3 or not image.isfinite().all():
        shape = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise InputError("image", f"expected finite values [channel, height, width], got {shape}",
                         "Give one image.")  # fmt: skip
    size = tuple(image.shape[1:])
    unit, views = renderable(unit, size), chosen_transforms(transforms, size)
    normalisation = normalisation_of(unit.model)
    original = normalisation.undo(image.detach().cpu().float())
    with torch.no_grad():
        before = unit.response(normalisation.apply(original[None])).item()
    objective = suppression(unit, original, target=target, penalty=penalty, start=before)
    (made,) = synthesise(
        [Goal(unit, objective)], lambda: changed_image(original[None]), views,
        layers={"reading": unit.layer}, steps=steps, lr=lr, seed=seed,
    )  # fmt: skip
    pixels, response, trajectory = made.pixels, made.response, made.trajectory
    if response.item() > target:
        warnings.warn(
            f"{unit.name} went from {before:.4g} to {response.item():.4g}, not to the target {target:.4g}: "
            "allow more `steps` or a lower `penalty`",
            stacklevel=2,
        )
    change = pixels[0] - original
    return Suppression(
        unit=unit, image=pixels[0], original=original, change=change, before=before, after=response.item(),
        target=target, trajectory=trajectory[:, 0], size=change.abs().mean().item(),
    )  # fmt: skip


def suppress_top(
    units: Sequence[Unit], dataset, real: Tensor, *, quantile: float = 0.05, **options
) -> list[Suppression]:
    """For each unit, take the image that activates it most and suppress the unit to a low real response.

    Args:
        units: channels or directions of one layer.
        dataset: an image dataset.
        real: [image, channel] responses of that layer to the dataset, see `units.dataset_responses`.
        quantile: the target is this quantile of the unit's responses to the dataset, in 0..1.
        options: for `suppress`.
    """
    check_real(units, real)
    if not 0 <= quantile < 1:
        raise InputError("quantile", f"{quantile} is out of range", "Use 0 or more, below 1.")
    suppressed = []
    for unit in units:
        responses = unit.of(real)
        image, _ = dataset[int(responses.argmax())]
        suppressed.append(suppress(unit, image, target=responses.quantile(quantile).item(), **options))
    return suppressed


def check_real(units: Sequence[Unit], real: Tensor) -> None:
    """Raises InputError unless there are units, and responses [image, channel] to two images or more."""
    if not units:
        raise InputError("units", "there are none", "Give at least one.")
    if real.ndim != 2:
        raise InputError(
            "real", f"expected [image, channel], got {tuple(real.shape)}", "Use `dataset_responses`."
        )
    if len(real) < 2:
        problem = f"responses to {len(real)} image{'s' * (len(real) != 1)} have no range"
        raise InputError("images", problem, "Give 2 or more; limit 0 takes all of a folder.")
