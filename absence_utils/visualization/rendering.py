"""Synthesised images: the maximum beside the minimum of a unit, and the smallest change that switches it off.

The second of the paper's two extensions, on lucent: its image parametrisations, its transforms, its
objectives. Both signs get the same seed and the same budget, and the same seed gives the same picture
whatever was drawn before.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from absence_utils.display import one_line
from absence_utils.errors import InputError
from absence_utils.images.base import input_channels, normalisation_of
from absence_utils.units import Unit

from ._lucent import param
from .objectives import absence, apart, presence, smooth, suppression
from .optimisation import (
    Transform,
    changed_image,
    check_numbers,
    chosen_transforms,
    layer_with_space,
    renderable,
    synthesise,
)


@dataclass(frozen=True)
class Rendering:
    """Synthesised images for one sign of one unit.

    Attributes:
        image: [facet, channel, height, width] in 0..1, on the CPU.
        response: [facet] of these images, as they are: untransformed, in the units of the layer.
        trajectory: [step, facet] response at each step, of the image as randomly transformed in that step.
    """

    image: Tensor
    response: Tensor
    trajectory: Tensor

    __repr__ = one_line


@dataclass(frozen=True)
class RenderedPair:
    """What drives a unit up and what drives it down, synthesised with the same seed and budget."""

    unit: Unit
    highest: Rendering
    lowest: Rendering

    def __repr__(self) -> str:
        facets, _, height, width = self.highest.image.shape
        highest, lowest = float(self.highest.response.max()), float(self.lowest.response.min())
        return (
            f"RenderedPair of {self.unit.name}: highest {highest:.4g}, lowest {lowest:.4g} "
            f"({facets} of each, {height} x {width} px)"
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
    unit: Unit,
    steps: int = 256,
    size: int = 128,
    seed: int = 0,
    facets: int = 1,
    *,
    diversity: float = 1.0,
    diversity_layer: str | None = None,
    lr: float = 0.05,
    transforms: str | Sequence[Transform] = "standard",
    decorrelate: bool = True,
    smoothness: float = 0.0,
) -> RenderedPair:
    """Synthesise the images with the highest and the lowest response of a unit.

    Both start from the same faint noise, drawn from `seed`, and take the same number of Adam steps under the
    same random transforms; only the sign of the objective differs. It runs on one thread, because another
    number of threads gives another picture. The network's hooks, gradients and training flags and all global
    random states are left as found, also after an exception.

    Args:
        unit: channel, logit or direction. For `layer=None` the signed output is rendered (`unit.signed`),
            with a warning where the network rectifies its output, because a rectified output has no minimum
            to look for.
        steps: number of Adam steps for each of the two.
        size: height and width of the images in pixels; the network must take images of this size.
        seed: of the first noise and of the transforms.
        facets: number of images for each sign, which are made to differ by `diversity`.
        diversity: strength of the term that keeps facets apart, see `objectives.apart`. At 10 differing
            counts more than the response.
        diversity_layer: layer whose Gram matrices are compared; None for the unit's own, or, where that has
            no space (logits), for the last layer that has. Another layer costs a second forward pass.
        lr: step size of Adam in lucent's parametrisation (Fourier coefficients, logistic to 0..1).
        transforms: "standard" (see `standard_transforms`), "none", or functions from images to images.
        decorrelate: use lucent's colour statistics of natural images (RGB only).
        smoothness: strength of the total variation term, see `objectives.smooth`. 0 suits networks trained on
            photographs; small networks need some (5 to 15), or fine gratings are all one sees.

    Returns:
        A RenderedPair; responses are read by `unit.response` on the finished images. `pair.show()` draws it.

    Raises:
        InputError: a bad value; a unit that does not exist; a size that the network does not take; a response
            that is not finite or does not depend on the image.

    Source: Hesse et al., arXiv 2603.09787, feature visualisation by minimisation; Olah et al., Feature
    Visualization, Distill 2017, for the parametrisation, the transforms and diversity.

    Example:
        >>> from absence_utils import Unit, load_model, render_pair
        >>> pair = render_pair(Unit(load_model("concept_scenes"), "block4", 3), steps=4, size=64)
        >>> pair.highest.image.shape[-2:], bool((pair.highest.response > pair.lowest.response).all())
        (torch.Size([64, 64]), True)
    """
    check_numbers(
        steps=steps, size=size, facets=facets, lr=lr, seed=seed, diversity=diversity, smoothness=smoothness
    )
    unit, views = renderable(unit, size), chosen_transforms(transforms, size)
    layers, extra = {"reading": unit.layer}, smooth(smoothness)
    if facets > 1 and diversity:
        layer = diversity_layer or layer_with_space(unit, size)
        name = "reading" if layer == unit.layer else "space"
        layers[name], extra = layer, extra + apart(diversity, name)
    channels = input_channels(unit.model)
    colours = None if channels == 3 else channels  # lucent decorrelates only where it is not told a number

    def noise():
        return param.image(size, batch=facets, channels=colours, decorrelate=decorrelate)

    highest, lowest = (
        Rendering(*synthesise(side + extra, unit, noise, views, layers=layers, steps=steps, lr=lr, seed=seed))
        for side in (presence(unit), absence(unit))
    )
    return RenderedPair(unit, highest, lowest)


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
    pixels, response, trajectory = synthesise(
        objective, unit, lambda: changed_image(original[None]), views,
        layers={"reading": unit.layer}, steps=steps, lr=lr, seed=seed,
    )  # fmt: skip
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
    _check_real(units, real)
    if not 0 <= quantile < 1:
        raise InputError("quantile", f"{quantile} is out of range", "Use 0 or more, below 1.")
    suppressed = []
    for unit in units:
        responses = unit.of(real)
        image, _ = dataset[int(responses.argmax())]
        suppressed.append(suppress(unit, image, target=responses.quantile(quantile).item(), **options))
    return suppressed


def compare_with_real(pairs: Sequence[RenderedPair], real: Tensor) -> pd.DataFrame:
    """Responses of synthesised images beside the range on real images, one row for each pair and sign.

    Args:
        pairs: rendered units of one layer.
        real: [image, channel] responses of that layer to real images.

    Returns:
        Columns unit, sign, response (the most extreme facet), real_lowest, real_median, real_highest, and
        `distance`: (response - mean) / sd over real images.
    """
    _check_real([pair.unit for pair in pairs], real)
    rows = []
    for pair in pairs:
        responses = pair.unit.of(real)
        for sign, extreme in (
            ("highest", pair.highest.response.max()),
            ("lowest", pair.lowest.response.min()),
        ):
            rows.append({
                "unit": pair.unit.name, "sign": sign, "response": extreme.item(),
                "real_lowest": responses.min().item(), "real_median": responses.median().item(),
                "real_highest": responses.max().item(),
                "distance": ((extreme - responses.mean()) / responses.std()).item(),
            })  # fmt: skip
    return pd.DataFrame(rows)


def _check_real(units: Sequence[Unit], real: Tensor) -> None:
    if not units:
        raise InputError("units", "there are none", "Give at least one.")
    if real.ndim != 2:
        raise InputError(
            "real", f"expected [image, channel], got {tuple(real.shape)}", "Use `dataset_responses`."
        )
    if len(real) < 2:
        problem = f"responses to {len(real)} image{'s' * (len(real) != 1)} have no range"
        raise InputError("images", problem, "Give 2 or more; limit 0 takes all of a folder.")
