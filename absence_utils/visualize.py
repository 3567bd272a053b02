"""Synthesised images: the maximum beside the minimum of a unit, and the smallest change that switches it off.

The second of the paper's two extensions, on lucent: its image parametrisations, its transforms, its objectives. The
loop is our own, because lucent's `render_vis` swallows every `RuntimeError` of a step, never removes its hooks, brings
all images to 224 pixels, normalises for ImageNet only and does not say how the response developed. Here a step that
fails is an error, the network is left as found, and the same seed gives the same picture whatever was drawn before.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ._lucent import hook_model, param, transform
from .errors import InputError
from .images import input_channels, normalisation_of
from .objectives import Objective, Readings, absence, apart, presence, response_in, smooth, suppression
from .record import progress
from .units import Unit, feature_map, layer_names

Transform = Callable[[Tensor], Tensor]


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


@dataclass(frozen=True)
class RenderedPair:
    """What drives a unit up and what drives it down, synthesised with the same seed and budget."""

    unit: Unit
    highest: Rendering
    lowest: Rendering


@dataclass(frozen=True)
class Suppression:
    """An image changed as little as possible to switch a unit off.

    Attributes:
        image, original: [channel, height, width] in 0..1, after and before.
        change: [channel, height, width] in -1..1, signed: image - original.
        before, after: responses to `original` and `image`, in the units of the layer.
        trajectory: [step] response at each step, of the image as randomly transformed in that step.
        size: mean |change| over pixels and channels, in units of the pixel range.
    """

    unit: Unit
    image: Tensor
    original: Tensor
    change: Tensor
    before: float
    after: float
    trajectory: Tensor
    size: float


def render_pair(
    unit: Unit,
    steps: int = 256,
    size: int = 128,
    seed: int = 0,
    facets: int = 1,
    *,
    diversity: float = 3.0,
    diversity_layer: str | None = None,
    lr: float = 0.05,
    transforms: str | Sequence[Transform] = "standard",
    decorrelate: bool = True,
    smoothness: float = 0.0,
) -> RenderedPair:
    """Synthesise the images with the highest and the lowest response of a unit.

    Both start from the same faint noise, drawn from `seed`, and take the same number of Adam steps under the same
    random transforms; only the sign of the objective differs. It runs on one thread, because another number of
    threads gives another picture. The network's hooks, gradients and training flags and all global random states are
    left as found, also after an exception.

    Args:
        unit: channel, logit or direction. For `layer=None` the signed output is rendered (`unit.signed`), with a
            warning where the network rectifies its output, because a rectified output has no minimum to look for.
        steps: number of Adam steps for each of the two.
        size: height and width of the images in pixels; the network must take images of this size.
        seed: of the first noise and of the transforms.
        facets: number of images for each sign, which are made to differ by `diversity`.
        diversity: strength of the term that keeps facets apart, see `objectives.apart`; no effect on one facet. At 1 facets
            hardly differ, at 10 differing counts more than the response.
        diversity_layer: layer whose Gram matrices are compared; None for the unit's own layer, or, where that has no
            space (logits), for the last layer that has. Another layer than the unit's costs a second forward pass.
        lr: step size of Adam in lucent's parametrisation (Fourier coefficients, logistic to 0..1).
        transforms: "standard" (see `standard_transforms`), "none", or functions from images to images.
        decorrelate: use lucent's colour statistics of natural images (RGB only).
        smoothness: strength of the total variation term, see `objectives.smooth`. 0 suits networks trained on
            photographs; small networks need some (5 to 15), or fine gratings are all one sees.

    Returns:
        A RenderedPair; responses are read by `unit.response` on the finished images.

    Raises:
        InputError: a bad value; a unit that does not exist; a size that the network does not take; a response that
            is not finite or does not depend on the image.

    Source: Hesse et al., arXiv 2603.09787, feature visualisation by minimisation; Olah et al., Feature Visualization,
    Distill 2017, for the parametrisation, the transforms and diversity.
    """
    _check(steps=steps, size=size, facets=facets, lr=lr, diversity=diversity)
    unit = _renderable(unit, size)
    channels = input_channels(unit.model)
    layers, extra = {"reading": unit.layer}, smooth(smoothness)
    if facets > 1 and diversity:
        layer = diversity_layer or _layer_with_space(unit, size)
        name = "reading" if layer == unit.layer else "space"
        layers[name], extra = layer, extra + apart(diversity, name)
    renderings = []
    for objective in (presence(unit), absence(unit)):
        with _reproducible(seed):
            colours = (
                None if channels == 3 else channels
            )  # lucent decorrelates only where it is not told a number
            variables, image = param.image(size, batch=facets, channels=colours, decorrelate=decorrelate)
            views = _views(transforms, size)
            total = objective + extra
            label = f"{objective.name} of {unit.name}"
            trajectory = _minimise(
                total, unit, Readings(unit.model, **layers), variables, image, views, steps, lr, label
            )
            pixels = image().detach().cpu()
            with torch.no_grad():
                response = unit.response(normalisation_of(unit.model).apply(pixels)).cpu()
        renderings.append(Rendering(pixels, response, trajectory))
    return RenderedPair(unit, *renderings)


def suppress(
    unit: Unit,
    image: Tensor,
    steps: int = 128,
    seed: int = 0,
    *,
    target: float = 0.0,
    penalty: float = 20.0,
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
        penalty: price of the change, see `objectives.suppression`.
        lr: step size of Adam.
        transforms: "standard" (see `standard_transforms`), "none", or functions from images to images. The target is
            to be reached under the transforms, on average, so the plain image usually ends a little below it.
            Without them the smallest change is noise that holds for one exact position only.

    Returns:
        A Suppression. Pixels stay in 0..1.

    Raises:
        InputError: a bad value; an image that is not above the target, has another shape or is not finite.
    """
    _check(steps=steps, lr=lr, penalty=penalty)
    if not isinstance(image, Tensor) or image.ndim != 3 or not image.isfinite().all():
        shape = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise InputError(
            "image", f"expected finite values [channel, height, width], got {shape}", "Give one image."
        )
    unit = _renderable(unit, tuple(image.shape[1:]))
    normalisation = normalisation_of(unit.model)
    original = normalisation.undo(image.detach().cpu().float())
    batch = original[None]
    with torch.no_grad():
        before = unit.response(normalisation.apply(batch)).item()
    objective = suppression(unit, original, target=target, penalty=penalty, start=before)
    with _reproducible(seed):
        variables, changed = _changed_image(batch)
        views = _views(transforms, tuple(original.shape[1:]))
        label = f"suppression of {unit.name}"
        trajectory = _minimise(
            objective,
            unit,
            Readings(unit.model, reading=unit.layer),
            variables,
            changed,
            views,
            steps,
            lr,
            label,
        )
        final = changed().detach().cpu()
        with torch.no_grad():
            after = unit.response(normalisation.apply(final)).item()
    change = final[0] - original
    return Suppression(
        unit, final[0], original, change, before, after, trajectory[:, 0], change.abs().mean().item()
    )


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
        raise InputError("quantile", f"{quantile} is out of range", "Use 0 to 1.")
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
        Columns unit, sign, response (the most extreme facet), real_lowest, real_median, real_highest, and `distance`:
        (response - mean) / sd over real images.
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
    if real.ndim != 2 or len(real) < 2:
        raise InputError("real", f"expected [image, channel] for at least 2 images, got {tuple(real.shape)}",
                         "Use `dataset_responses`.")  # fmt: skip


def standard_transforms(size: int | tuple[int, int]) -> list[Transform]:
    """Lucent's standard transforms, in proportion to the image and cropped back to its size.

    Lucent pads by 12 pixels, jitters by up to 8 and 4, scales by 0.9 to 1.1 and rotates by up to 10 degrees, which
    suits images of 128 pixels and more. Smaller images get proportionally less. The crop takes back the average
    offset of the jitter, which only moves right and down, and gives networks that insist on one size that size.
    """
    height, width = (size, size) if isinstance(size, int) else size
    share = min(1.0, min(height, width) / 128)
    border, coarse, fine = (max(2, round(share * pixels)) for pixels in (12, 8, 4))
    offset = round((coarse - 1) / 2 + (fine - 1) / 2)

    def crop(images: Tensor) -> Tensor:
        top, left = ((edge - wanted) // 2 + offset for edge, wanted in zip(images.shape[2:], (height, width)))
        return images[:, :, top : top + height, left : left + width]

    pad, jitter, *scale_and_rotate, _ = transform.standard_transforms
    return [transform.pad(border, mode="constant", constant_value=0.5), transform.jitter(coarse), *scale_and_rotate,
            transform.jitter(fine), crop]  # fmt: skip


def _views(transforms: str | Sequence[Transform], size: int | tuple[int, int]) -> list[Transform]:
    if transforms == "standard":
        return standard_transforms(size)
    if transforms == "none":
        return []
    if isinstance(transforms, str) or not all(callable(view) for view in transforms):
        raise InputError(
            "transforms", f"{transforms!r} is not known", "Use 'standard', 'none' or a list of functions."
        )
    return list(transforms)


def _minimise(
    objective: Objective,
    unit: Unit,
    readings: Readings,
    variables: list[Tensor],
    image: Callable[[], Tensor],
    views: list[Transform],
    steps: int,
    lr: float,
    description: str,
) -> Tensor:
    """Minimise a lucent objective over `variables`; return the responses met on the way, [step, image] on the CPU."""
    look, view = hook_model(readings, image), transform.compose(views)
    optimiser = torch.optim.Adam(variables, lr=lr)
    trajectory, flat = [], True
    for step in progress(range(steps), description):
        readings(view(image()))
        loss = objective(look)
        response = response_in(look("reading"), unit)
        if not (loss.isfinite() and response.isfinite().all()):
            raise InputError(
                "unit",
                f"the loss of the {description} is not finite at step {step}",
                "Check the network's weights, or lower the step size `lr`.",
            )
        # Gradients of the image only: the network's own are neither computed nor touched.
        gradients = torch.autograd.grad(loss, variables) if loss.requires_grad else [None]
        for variable, gradient in zip(variables, gradients):
            variable.grad = gradient
            flat = flat and (gradient is None or not gradient.any())
        optimiser.step()
        trajectory.append(response.detach().cpu())
    if flat:
        raise InputError("unit", f"{unit.name} does not depend on the image: no gradient in {steps} steps",
                         "Choose a unit that does, or read its layer before the nonlinearity.")  # fmt: skip
    return torch.stack(trajectory)


@contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    """Seed what lucent draws from, use one thread, allow gradients; put everything back afterwards.

    Lucent draws its noise from torch's CPU generator and its transforms from NumPy's global one.
    """
    states, threads = (
        (torch.get_rng_state(), np.random.get_state(), random.getstate()),
        torch.get_num_threads(),
    )
    try:
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        torch.set_num_threads(1)
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
        torch.set_num_threads(threads)


def _grey(unit: Unit, size: int | tuple[int, int]) -> Tensor:
    """A grey image that the network would take, to try things on: [1, channel, height, width], normalised."""
    height, width = (size, size) if isinstance(size, int) else size
    pixels = torch.full((1, input_channels(unit.model), height, width), 0.5)
    return normalisation_of(unit.model).apply(pixels)


def _renderable(unit: Unit, size: int | tuple[int, int]) -> Unit:
    """The signed unit, after trying that it exists, that the network takes the size, and that its values are finite."""
    images = _grey(unit, size)
    with torch.no_grad():
        try:
            signed = unit.signed.response(images)
            raw = signed if unit.signed is unit else unit.response(images)
        except InputError:
            raise
        except (RuntimeError, AssertionError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError("size", f"the network does not take images of {size} pixels ({reason})",
                             "Use the size it was made for.") from error  # fmt: skip
    if not signed.isfinite().all():
        raise InputError("unit", f"the response of {unit.name} is {signed.item()} on a grey image",
                         "Check the network's weights.")  # fmt: skip
    if not torch.allclose(raw, signed, rtol=1e-4, atol=1e-6):
        warnings.warn(
            f"the network rectifies its output, so {unit.name} has no minimum to look for; its signed response "
            "(layer 'logits') is rendered instead",
            stacklevel=3,
        )
    return unit.signed


def _layer_with_space(unit: Unit, size: int) -> str:
    """The unit's own layer if it has more than one position, else the network's last layer that has."""
    images = _grey(unit, size)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for layer in [unit.layer, *reversed(layer_names(unit.model))]:
            try:
                features = feature_map(unit.model, layer, images)
            except InputError:  # a layer that runs several times or not at all
                continue
            if features.ndim > 2 and math.prod(features.shape[2:]) > 1:
                return layer
    raise InputError("diversity_layer", "no layer of the network has space", "Use facets=1 or diversity=0.")


def _changed_image(pixels: Tensor) -> tuple[list[Tensor], Callable[[], Tensor]]:
    """A small change of pixels [1, channel, height, width] in 0..1: its variables, and a function to the changed image.

    Lucent's Fourier coefficients, which are added in logistic space. They start near 0 and prefer coarse changes;
    changing pixels one by one gives noise instead of shapes.
    """
    variables, change = param.fft_image(pixels.shape, sd=1e-6)  # sd=0 would mean lucent's default
    here = pixels.to(variables[0].device)
    start = torch.logit(here, eps=1e-3)
    shape = param.to_valid_rgb(lambda: start + change())
    # As a difference, so that exactly the original comes out where nothing changes, also at 0 and 1.
    return variables, lambda: (here + shape() - torch.sigmoid(start)).clamp(0, 1)


def _check(**values) -> None:
    """Whole numbers of at least 1 for counts and sizes, finite numbers for the rest."""
    for name, value in values.items():
        whole = name in ("steps", "size", "facets")
        if isinstance(value, bool) or not isinstance(value, (int, np.integer) if whole else (int, float)):
            raise InputError(name, f"{value!r} is not a {'whole ' if whole else ''}number", "Give one.")
        if not math.isfinite(value) or value < (1 if whole else 0) or (name == "lr" and value == 0):
            raise InputError(
                name, f"{value} is out of range", "Use 1 or more." if whole else "Use a positive number."
            )
