"""Grad-CAM with its sign: maps of an earlier layer, weighted by their mean gradient and never clipped."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from absence_utils.errors import InputError
from absence_utils.units import Unit, find_layer, first_tensor, layout_of


def gradcam(
    unit: Unit, images: Tensor, baseline: Tensor, batch_size: int, cam_layer: str | None = None
) -> Tensor:
    """Maps of `cam_layer` x their mean gradient, enlarged bilinearly to the images with the sum kept.

    Args:
        unit, images: see `methods.attribute`.
        baseline, batch_size: not used; its reference is the layer at 0.
        cam_layer: by default `last_spatial_layer`.

    Returns:
        [batch, channel, height, width], spread evenly over the channels.

    Raises:
        InputError: the layer has no space, or the unit does not depend on it.
    """
    layer = cam_layer or last_spatial_layer(unit, images)
    module, call = find_layer(unit.model, layer)
    if call is not None or _inside(layer, unit.layer):
        why = "is one call of several" if call is not None else "belongs to the unit's own layer"
        raise InputError("cam_layer", f"{layer!r} {why}", "Give a layer before the unit that runs once.")
    kept, expected = [], unit.response(images[:1]).detach()  # also makes all passes that find something out

    def keep(_module, _inputs, output):
        values, *rest = output if isinstance(output, tuple) else (output,)
        if isinstance(values, Tensor):
            kept.append(values.detach().clone().requires_grad_())
            values = kept[-1].clone()  # what follows may work in place
        return (values, *rest) if isinstance(output, tuple) else values

    handle, gradient = module.register_forward_hook(keep), None
    try:
        response = unit.response(images)
    finally:
        handle.remove()
    # Another response: the layer holds the rectification that the signed unit looks behind.
    same = torch.allclose(response[:1], expected, rtol=1e-3, atol=1e-5)
    if len(kept) == 1 and same and response.requires_grad:
        (gradient,) = torch.autograd.grad(response.sum(), kept, allow_unused=True)
    if gradient is None:
        problem = f"the unit {unit.name} does not read {layer!r}"
        raise InputError("cam_layer", problem, "Give a layer that runs before it, once.")
    layout = layout_of(unit.model, layer, images)
    maps, slopes = (layout.places(values) for values in (kept[0].detach(), gradient))
    if maps is None:
        problem = f"its output {tuple(gradient.shape)} has no space, or tokens that cannot be laid out"
        raise InputError("cam_layer", problem, "Give a layer of maps or of tokens.")
    cells = (slopes.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1, keepdim=True)
    return _enlarge(cells, images.shape[-2:]).expand_as(images) / images.shape[1]


def _enlarge(cells: Tensor, size) -> Tensor:
    """Bilinear enlargement of [batch, 1, h, w] that keeps the sum of every map."""
    weight = torch.ones_like(cells, requires_grad=True)
    (weight,) = torch.autograd.grad(F.interpolate(weight, size, mode="bilinear").sum(), weight)
    return F.interpolate(cells / weight, size, mode="bilinear")


def last_spatial_layer(unit: Unit, images: Tensor) -> str:
    """The last layer before the unit that still has space: where Grad-CAM looks by default.

    The response must depend on more than one of its channels and places. This rules out maps of the classes
    (SqueezeNet's last convolution) and, in a vision transformer, all that follows the last attention, from
    which only the class token is read.

    Raises:
        InputError: no such layer, as for a unit of the first layer.
    """
    unit.response(images[:1])  # makes all passes that find something out, before passes are watched
    ran, counts = [], {}

    def note(name):
        def hook(_module, _inputs, output):
            counts[name] = counts.get(name, 0) + 1
            ran.append((name, output))

        return hook

    handles = [
        module.register_forward_hook(note(name))
        for name, module in unit.model.named_modules()
        if name and not _inside(name, unit.layer) and not isinstance(module, nn.Dropout)
    ]
    try:
        images = images.detach().clone().requires_grad_()
        response = unit.response(images).sum()
    finally:
        for handle in handles:
            handle.remove()
    spatial = None
    for name, output in reversed(ran):
        values, layout = _spatial(unit, name, output, images) if counts[name] == 1 else (None, None)
        if values is None:
            continue
        spatial = spatial or name
        if _has_reach(response, values, layout):
            return name
    if spatial and not torch.autograd.grad(response, images)[0].any():
        return spatial  # a dead unit: every layer gives the same answer, a map of zeros
    problem = f"no layer before {unit.name} has space"
    raise InputError("cam_layer", problem, "Choose a later unit, or another method than 'gradcam'.")


def _spatial(unit: Unit, name: str, output, images: Tensor):
    """A layer's output and its axes, (None, None) if it is no map and cannot be laid out as one."""
    try:
        values = first_tensor(output)
        if values.ndim not in (3, 4):
            return None, None
        layout = layout_of(unit.model, name, images)
        return (None, None) if layout.places(values) is None else (values, layout)
    except InputError:
        return None, None


def _inside(name: str, layer: str | None) -> bool:
    return layer is not None and f"{name}.".startswith(f"{layer.partition(':')[0]}.")


def _has_reach(response: Tensor, values: Tensor, layout) -> bool:
    if not values.requires_grad:
        return False
    (gradient,) = torch.autograd.grad(response, values, retain_graph=True, allow_unused=True)
    if gradient is None:
        return False
    used = (layout.places(gradient) != 0).any(dim=0)
    return int(used.any(dim=(1, 2)).sum()) > 1 and int(used.any(dim=0).sum()) > 1
