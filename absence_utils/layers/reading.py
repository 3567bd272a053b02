"""Read a layer: its values before the nonlinearity, batch first and channels second, held against what it returned.

The first reading of a layer at an image size makes a trial (`trial`): what cannot be explained is an error and never a
guess. From then on a reading is one pass, up to the layer. A network whose modules were changed is tried anew.
"""

from __future__ import annotations

import sys
import warnings
import weakref
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from absence_utils.errors import InputError

from .following import OUTPUTS, Changed, Follow, Layout, Plan, hold, remedy, run_to_layer
from .network import reading, to_network
from .trial import find_plan

__all__ = ["OUTPUTS", "declare_axes", "feature_map", "layout_of"]

check_every_pass = False  # for tests: hold every reading against the layer's output, not the first alone

_plans: weakref.WeakKeyDictionary[nn.Module, dict[tuple, Plan]] = weakref.WeakKeyDictionary()
_declared: weakref.WeakKeyDictionary[nn.Module, dict[str | None, tuple]] = weakref.WeakKeyDictionary()


def declare_axes(
    model: nn.Module,
    layer: str | None,
    *,
    channel: int | None = None,
    grid: tuple[int, int, int] | None = None,
) -> None:
    """Say what the axes of a layer's output are, where it cannot be found out.

    Args:
        model, layer: as for `feature_map`.
        channel: number of the axis that holds the channels, -1 for the last.
        grid: of a layer of tokens, (height, width, first): `height` x `width` tokens from number `first` on stand for
            places, row by row; the others (class, distillation, registers) are left out of maps.
    """
    _declared.setdefault(model, {})[layer] = (channel, grid)
    _plans.pop(model, None)


def layout_of(model: nn.Module, layer: str | None, images: Tensor) -> Layout:
    """The axes of what a layer returns for images of that size; see `feature_map` for arguments and errors."""
    images = to_network(model, images)
    with reading(model), _eager():
        return _plan(model, layer, images).layout


def feature_map(model: nn.Module, layer: str | None, images: Tensor) -> Tensor:
    """Signed, pre-nonlinearity values of all units of a layer, before pooling over space.

    If the last thing that a layer does is an elementwise nonlinearity (a ReLU, a GELU, an own swish, a PReLU; its
    values then moved about, concatenated, or the largest taken), these are the values before it; else exactly what the
    layer returns. The network runs only up to the layer and is left as found. The result is differentiable with respect
    to the images unless the caller disables gradients.

    Args:
        model: any network.
        layer: a name from `layer_names`, with ":n" for the n-th call of a layer that runs several times;
            None for the model's output exactly as it is; "logits" for the model's output with a final rectification
            undone (SqueezeNet ends in ReLU and average pooling: its outputs are never negative, and the signed logit
            is the same average taken before the ReLU). For most networks None and "logits" agree, and for those that
            say so by an attribute `signed_output = True`, as `models.DigitalTwin` does.
        images: [batch, channel, height, width], normalised as the network expects.

    Returns:
        [batch, channel, *space]: space is height and width for maps, tokens for transformers, absent for vectors.

    Raises:
        InputError: no such layer; it runs several times or not at all; its axes, or its values before the nonlinearity,
            could only be guessed.

    Example:
        >>> import torch
        >>> from absence_utils import feature_map, load_model
        >>> values = feature_map(load_model("concept_scenes"), "block4", torch.zeros(2, 3, 64, 64))
        >>> values.shape[:2], bool((values < 0).any())  # signed
        (torch.Size([2, 64]), True)
    """
    images = to_network(model, images)
    with reading(model), _eager():
        values, plan = _read(model, layer, images)
    if plan.average_of_rectified:
        warnings.warn(
            f"layer {layer!r} averages rectified values: it cannot fall below zero, so its minimum says little. "
            "Read the layer before the nonlinearity instead.",
            stacklevel=2,
        )
    return plan.layout.batch_and_channel_first(values)


def _read(model: nn.Module, layer: str | None, images: Tensor) -> tuple[Tensor, Plan]:
    for last in (False, True):
        plan = _plan(model, layer, images)
        follow = Follow(plan, checking=check_every_pass)
        try:
            given = images.clone() if plan.overwrites else images  # the caller's images are left as they are
            values = run_to_layer(model, layer, given, follow)
            break
        except Changed:
            if last:
                problem = (
                    f"the calls up to {layer!r} depend on the images, and so does what its nonlinearity is"
                )
                raise InputError("layer", problem, remedy(None)) from None
            _plans[model].pop(_key(layer, images))
    if check_every_pass:
        hold(follow, layer)
    if values.ndim != plan.layout.ndim or values.ndim and values.shape[plan.layout.batch] != len(images):
        problem = f"{layer or 'the output'} has shape {tuple(values.shape)} for {len(images)} images"
        raise InputError("layer", problem, "Let the shape depend on the size of the images only.")
    return values, plan


def _eager():
    """Compiled parts run as written: their insides are seen."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def _key(layer: str | None, images: Tensor) -> tuple:
    return layer, images.shape[1:], images.dtype, torch.is_grad_enabled()


def _plan(model: nn.Module, layer: str | None, images: Tensor) -> Plan:
    """How to read the layer: known, or found out now."""
    known, key = _plans.setdefault(model, {}), _key(layer, images)
    modules = tuple(model.modules())
    if key in known:
        if len(modules) == len(known[key].modules) and all(
            ref() is module for ref, module in zip(known[key].modules, modules, strict=True)
        ):
            return known[key]
        known.clear()  # the network was changed: nothing that was found out counts
    declared = _declared.get(model, {}).get(layer, (None, None))
    graphs = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    devices = [images.device] if images.device.type == "cuda" else []
    with torch.inference_mode(False), torch.set_grad_enabled(graphs), torch.random.fork_rng(devices):
        known[key] = find_plan(
            model, layer, images[:1].detach().clone(), tuple(map(weakref.ref, modules)), declared
        )
    return known[key]
