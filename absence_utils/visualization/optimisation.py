"""How images are synthesised: the loop, its random transforms, its seed, and what is tried before it starts.

The loop is our own. Lucent's `render_vis` swallows every `RuntimeError` of a step and continues with the values
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
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from absence_utils.errors import InputError
from absence_utils.images.base import input_channels, normalisation_of
from absence_utils.layers.fuse import channels_last, fused
from absence_utils.progress import progress
from absence_utils.units import Unit, feature_map, layer_names, pool_space

from ._lucent import hook_model, transform
from .objectives import Objective, Readings, response_in
from .parametrisation import Parametrised

Transform = Callable[[Tensor], Tensor]
EARLY = 2 / 3  # share of the steps in which facets are kept apart


@dataclass(frozen=True)
class Goal:
    """What one group of images is made for.

    Attributes:
        unit: whose responses are recorded.
        objective: lucent's, of this group's images alone.
        early: added to it until `EARLY` of the steps are done: what keeps facets apart. The rest of the steps let each
            facet reach its own best response.
    """

    unit: Unit
    objective: Objective
    early: Objective | None = None

    @property
    def kind(self) -> str:
        """Presence, absence or suppression: the first word of the objective."""
        return self.objective.name.split(",")[0]

    def loss(self, look: Callable, early: bool) -> Tensor:
        found = self.objective(look)
        return found + self.early(look) if early and self.early is not None else found


@dataclass(frozen=True)
class Synthesised:
    """What one goal came to, on the CPU.

    Attributes:
        pixels: [image, channel, height, width] in 0..1.
        response: [image], untransformed.
        trajectory: [step, image], transformed.
        frames: [frame, image, channel, height, width], the images on the way, if they were asked for.
    """

    pixels: Tensor
    response: Tensor
    trajectory: Tensor
    frames: Tensor


def synthesise(
    goals: Sequence[Goal],
    parametrise: Callable[[], Parametrised],
    transforms: Sequence[Transform],
    *,
    layers: dict[str, str | None],
    steps: int,
    lr: float,
    seed: int,
    plateau: float = 0.0,
    frames: Sequence[int] = (),
) -> list[Synthesised]:
    """Minimise lucent objectives over images, with Adam and under random transforms: all goals in the same passes.

    The images of all goals make one batch; transforms are the same for all of them. Adam treats every coefficient by
    itself, so that a goal's images do not depend on the other goals (but for rounding).

    Args:
        goals: of units of one network. Their objectives read the children of `Readings(model, **layers)`, of which
            "reading" holds the units' layer.
        parametrise: makes the variables and the function to pixels [image, channel, height, width] in 0..1, the
            images of the first goal first, equally many for each. It is called under the seed.
        transforms: functions from pixels to pixels, applied anew at each step.
        layers: see `Readings`.
        steps, lr, seed: of Adam, and of everything random.
        plateau: stop once every image gained less than this share of what it has gained so far, over the last eighth
            of `steps`; 0 takes all steps.
        frames: steps before which the images are kept; `steps` itself for the finished ones.

    Returns:
        One result for each goal, in order.

    Raises:
        InputError: a loss that is not finite; a unit whose response has no gradient at any step.
    """
    model, trajectory, kept, flat = goals[0].unit.model, [], [], [True] * len(goals)
    with _reproducible(seed):
        variables, image = parametrise()
        shape = image().shape
        count = shape[0] // len(goals)
        groups = [slice(place * count, (place + 1) * count) for place in range(len(goals))]
        fast = _fast(model, layers, shape)
        readings = Readings(fast, **layers)
        shown = []  # the images of this step, made once for the network and for all objectives
        look, view = hook_model(readings, lambda: shown[-1]), transform.compose(transforms)
        looks = [_of_rows(look, rows) for rows in groups]
        optimiser = torch.optim.Adam(variables, lr=lr)
        for step in progress(range(steps), _description(goals)):
            if step in frames:
                kept.append(image().detach().cpu())
            shown[:] = [image()]
            seen = view(shown[0])
            readings(seen if fast is model else channels_last(seen))
            loss, responses = _measure(goals, looks, step, early=step < EARLY * steps)
            # Gradients of the variables only: those of the network are neither computed nor touched.
            gradients = torch.autograd.grad(loss, variables, retain_graph=any(flat))
            if any(flat):
                (slope,) = torch.autograd.grad(
                    sum(map(torch.sum, responses)), variables[:1], allow_unused=True
                )
                flat = [
                    still and (slope is None or not slope[rows].any())
                    for still, rows in zip(flat, groups, strict=True)
                ]
            for variable, gradient in zip(variables, gradients, strict=True):
                variable.grad = gradient
            optimiser.step()
            trajectory.append(torch.cat(responses).detach().cpu())
            if plateau and _levelled(trajectory, max(8, steps // 8), plateau):
                break
        pixels = image().detach().cpu()
        if steps in frames:
            kept.append(pixels)
    for goal, still in zip(goals, flat, strict=True):
        if still:
            problem = f"{goal.unit.name} does not depend on the image: no gradient in {len(trajectory)} steps"
            raise InputError("unit", problem, "Choose another, or read its layer before the nonlinearity.")
    with torch.no_grad():
        finished = feature_map(model, layers["reading"], normalisation_of(model).apply(pixels))
    path, stills = torch.stack(trajectory), torch.stack(kept) if kept else torch.empty(0, *pixels.shape)
    made = []
    for goal, rows in zip(goals, groups, strict=True):
        response = goal.unit.of(pool_space(finished[rows], goal.unit.pool)).cpu()
        made.append(Synthesised(pixels[rows], response, path[:, rows], stills[:, rows]))
    return made


def _description(goals: Sequence[Goal]) -> str:
    names = list(dict.fromkeys(goal.unit.name for goal in goals))
    several = f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]
    return f"{goals[0].kind if len(goals) == 1 else 'extremes'} of {several}"


def _measure(
    goals: Sequence[Goal], looks: Sequence[Callable], step: int, early: bool
) -> tuple[Tensor, list[Tensor]]:
    """The sum of the goals' losses, and the responses [image] of each, from the pass that was just made."""
    total, responses = 0.0, []
    for goal, look in zip(goals, looks, strict=True):
        loss, response = goal.loss(look, early), response_in(look("reading"), goal.unit)
        if not (loss.isfinite() and response.isfinite().all()):
            problem = f"the loss of the {goal.kind} of {goal.unit.name} is not finite at step {step}"
            raise InputError("unit", problem, "Check weights and transforms, or lower `lr`.")
        total = total + loss
        responses.append(response)
    return total, responses


def _of_rows(look: Callable, rows: slice) -> Callable:
    """Lucent's way to look at a network, at some images of the batch alone."""
    return lambda name: look(name)[rows]


def _fast(model: torch.nn.Module, layers: dict[str, str | None], shape: torch.Size) -> torch.nn.Module:
    """A network with the same values and less to compute, see `layers.fuse`; it is made for one layer that is read."""
    names = set(layers.values())
    return fused(model, names.pop(), tuple(shape[1:])) if len(names) == 1 else model


def _levelled(trajectory: list[Tensor], window: int, share: float) -> bool:
    """Whether all images gained less than a share of their whole gain over the last window."""
    if len(trajectory) < 2 * window:
        return False
    start, before, now = (
        torch.stack(part).mean(dim=0)
        for part in (trajectory[:1], trajectory[-2 * window : -window], trajectory[-window:])
    )
    return bool(((now - before).abs() <= share * (now - start).abs()).all())


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


# -- what is tried before the first step


def _noise(unit: Unit, size: int | tuple[int, int]) -> Tensor:
    """One image of noise as the network would take it: [1, channel, height, width], normalised."""
    height, width = (size, size) if isinstance(size, int) else size
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(1, input_channels(unit.model), height, width, generator=generator)
    return normalisation_of(unit.model).apply(pixels)


def renderable(unit: Unit, size: int | tuple[int, int], stacklevel: int = 3) -> Unit:
    """The signed unit, once noise of this size has given it a finite response.

    Args:
        stacklevel: of the warning about rectified outputs: 3 is the caller of the caller.

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
            stacklevel=stacklevel,
        )
    return unit.signed


def check_same_layer(units: Sequence[Unit]) -> None:
    """Raises InputError unless there are units, all of one layer of one network."""
    if not units:
        raise InputError("units", "there are none", "Give at least one.")
    if any(unit.model is not units[0].model or unit.layer != units[0].layer for unit in units):
        layers = ", ".join(dict.fromkeys(str(unit.layer) for unit in units))
        raise InputError(
            "units", f"they are of several layers or networks ({layers})", "Give those of one layer."
        )


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
    lowest = {"steps": 1, "size": 1, "facets": 1, "batch": 1, "seed": 0}
    for name, value in values.items():
        kinds = (int, np.integer) if name in lowest else (int, float, np.number)
        if isinstance(value, bool) or not isinstance(value, kinds):
            kind = "whole number" if name in lowest else "number"
            raise InputError(name, f"{value!r} is not a {kind}", f"Give a {kind}.")
        low = -math.inf if name == "target" else lowest.get(name, 0)
        if not math.isfinite(value) or value < low or (name == "lr" and value == 0):
            raise InputError(name, f"{value} is out of range", "Give a finite number that is large enough.")
