"""How images are synthesised: the loop, its random transforms, its seed, and what is tried before it starts.

The loop is our own. Lucent's `render_vis` swallows every `RuntimeError` of a step and goes on with the values
of the step before, never removes its hooks, brings all images to 224 pixels, normalises for ImageNet only,
and does not say how the response developed. Here a step that fails is an error, and the network is left as
found.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from absence_utils.errors import InputError
from absence_utils.images.base import input_channels, normalisation_of
from absence_utils.progress import progress
from absence_utils.units import Unit, feature_map, layer_names

from ._lucent import hook_model, param, transform
from .objectives import Objective, Readings, response_in

Transform = Callable[[Tensor], Tensor]
Parametrised = tuple[list[Tensor], Callable[[], Tensor]]  # variables, and what makes pixels in 0..1 of them


def synthesise(
    objective: Objective,
    unit: Unit,
    parametrise: Callable[[], Parametrised],
    transforms: Sequence[Transform],
    *,
    layers: dict[str, str | None],
    steps: int,
    lr: float,
    seed: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Minimise a lucent objective over an image, with Adam and under random transforms.

    Args:
        objective: reads the children of `Readings(unit.model, **layers)`, of which "reading" holds the unit's
            layer.
        unit: whose responses are recorded.
        parametrise: makes the variables and the function to pixels [image, channel, height, width] in 0..1.
            It is called under the seed.
        transforms: functions from pixels to pixels, applied anew at each step.
        layers: see `Readings`.
        steps, lr, seed: of Adam, and of everything random.

    Returns:
        (pixels, response, trajectory), all on the CPU: the finished images; their responses [image],
        untransformed; the responses met on the way [step, image], transformed.

    Raises:
        InputError: a loss that is not finite; a unit whose response has no gradient at any step.
    """
    readings, description = Readings(unit.model, **layers), f"{objective.name.split(',')[0]} of {unit.name}"
    trajectory, flat = [], True
    with _reproducible(seed):
        variables, image = parametrise()
        look, view = hook_model(readings, image), transform.compose(transforms)
        optimiser = torch.optim.Adam(variables, lr=lr)
        for step in progress(range(steps), description):
            readings(view(image()))
            loss, response = objective(look), response_in(look("reading"), unit)
            if not (loss.isfinite() and response.isfinite().all()):
                problem = f"the loss of the {description} is not finite at step {step}"
                raise InputError("unit", problem, "Check weights and transforms, or lower `lr`.")
            # Gradients of the variables only: those of the network are neither computed nor touched.
            gradients = torch.autograd.grad(loss, variables, retain_graph=flat)
            if flat:
                (slope,) = torch.autograd.grad(response.sum(), variables[:1], allow_unused=True)
                flat = slope is None or not slope.any()
            for variable, gradient in zip(variables, gradients, strict=True):
                variable.grad = gradient
            optimiser.step()
            trajectory.append(response.detach().cpu())
        pixels = image().detach().cpu()
        with torch.no_grad():
            response = unit.response(normalisation_of(unit.model).apply(pixels)).cpu()
    if flat:
        problem = f"{unit.name} does not depend on the image: no gradient in {steps} steps"
        raise InputError("unit", problem, "Choose another, or read its layer before the nonlinearity.")
    return pixels, response, torch.stack(trajectory)


@contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    """Seed what lucent draws from, use one thread, allow gradients; put everything back afterwards.

    Lucent draws its noise from torch's CPU generator and its transforms from NumPy's global one. Another
    number of threads would give another picture.
    """
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    threads = torch.get_num_threads()
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


def standard_transforms(size: int | tuple[int, int]) -> list[Transform]:
    """Lucent's standard transforms, in proportion to the image and cropped back to its size.

    Lucent pads by 12 pixels, jitters by up to 8 and 4, scales by 0.9 to 1.1 and rotates by up to 10 degrees,
    which suits images of 128 pixels and more. Smaller images get proportionally less. The crop takes back the
    average offset of the jitter, which only moves right and down, and gives networks that insist on one size
    that size.
    """
    height, width = (size, size) if isinstance(size, int) else size
    share = min(1.0, min(height, width) / 128)
    border, coarse, fine = (max(2, round(share * pixels)) for pixels in (12, 8, 4))
    offset = round((coarse - 1) / 2 + (fine - 1) / 2)

    def crop(images: Tensor) -> Tensor:
        top, left = (images.shape[2] - height) // 2 + offset, (images.shape[3] - width) // 2 + offset
        return images[:, :, top : top + height, left : left + width]

    _, _, scale, rotate, _ = transform.standard_transforms
    pad = transform.pad(border, mode="constant", constant_value=0.5)
    return [pad, transform.jitter(coarse), scale, rotate, transform.jitter(fine), crop]


def chosen_transforms(
    transforms: str | Sequence[Transform], size: int | tuple[int, int]
) -> Sequence[Transform]:
    """A list of functions from "standard", "none" or functions."""
    if transforms == "standard":
        return standard_transforms(size)
    if transforms == "none":
        return []
    if isinstance(transforms, str) or not all(callable(view) for view in transforms):
        raise InputError("transforms", f"{transforms!r} is not known",
                         "Use 'standard', 'none' or a list of functions.")  # fmt: skip
    return list(transforms)


def changed_image(pixels: Tensor) -> Parametrised:
    """Parametrise a small change of pixels [1, channel, height, width] in 0..1.

    Lucent's Fourier coefficients, added in logistic space. They start near 0 and prefer coarse changes;
    changing pixels one by one gives noise instead of shapes.
    """
    variables, change = param.fft_image(pixels.shape, sd=1e-6)  # sd=0 would mean lucent's default
    here = pixels.to(variables[0].device)
    start = torch.logit(here, eps=1e-3)
    shape = param.to_valid_rgb(lambda: start + change())
    # As a difference, so that exactly the original comes out where nothing changes, also at 0 and 1.
    return variables, lambda: (here + shape() - torch.sigmoid(start)).clamp(0, 1)


# -- what is tried before the first step


def _noise(unit: Unit, size: int | tuple[int, int]) -> Tensor:
    """One image of noise as the network would take it: [1, channel, height, width], normalised."""
    height, width = (size, size) if isinstance(size, int) else size
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(1, input_channels(unit.model), height, width, generator=generator)
    return normalisation_of(unit.model).apply(pixels)


def renderable(unit: Unit, size: int | tuple[int, int]) -> Unit:
    """The signed unit, once noise of this size has given it a finite response.

    Raises:
        InputError: no such channel, a size that the network does not take, a response that is not finite.
    """
    images = _noise(unit, size)
    with torch.no_grad():
        try:
            signed = unit.signed.response(images)
            raw = unit.response(images)
        except InputError:
            raise
        except (RuntimeError, AssertionError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError("size", f"the network does not take images of {size} pixels ({reason})",
                             "Use the size it was made for.") from error  # fmt: skip
    if not signed.isfinite().all():
        raise InputError("unit", f"the response of {unit.name} to noise is {signed.item()}",
                         "Check the network's weights.")  # fmt: skip
    if not torch.allclose(raw, signed, rtol=1e-4, atol=1e-6):
        warnings.warn(
            f"the network rectifies its output, so {unit.name} has no minimum to look for; "
            "its signed response (layer 'logits') is rendered instead",
            stacklevel=3,
        )
    return unit.signed


def layer_with_space(unit: Unit, size: int) -> str:
    """The unit's own layer if it has more than one position, else the network's last layer that has."""
    images = _noise(unit, size)
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


def check_numbers(**values) -> None:
    """Whole numbers from 1 for counts and sizes, from 0 for the seed; finite ones from 0 for the rest."""
    lowest = {"steps": 1, "size": 1, "facets": 1, "seed": 0}
    for name, value in values.items():
        kinds = (int, np.integer) if name in lowest else (int, float, np.number)
        if isinstance(value, bool) or not isinstance(value, kinds):
            kind = "whole number" if name in lowest else "number"
            raise InputError(name, f"{value!r} is not a {kind}", f"Give a {kind}.")
        low = -math.inf if name == "target" else lowest.get(name, 0)
        if not math.isfinite(value) or value < low or (name == "lr" and value == 0):
            raise InputError(name, f"{value} is out of range", "Give a finite number that is large enough.")
