"""What is asked of a network before one of its layers is read: names, mode, device, output. Nothing is changed."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from absence_utils.errors import InputError

WHAT_TO_TAKE = "Let the forward pass return a tensor, or a dict with the entry 'logits'."


def device_of(model: nn.Module) -> torch.device:
    """Where the network's first parameter is; the CPU for a network without any."""
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def dtype_of(model: nn.Module) -> torch.dtype | None:
    """Precision of the network's first floating-point parameter, else buffer; None where it has neither."""
    values = (*model.parameters(), *model.buffers())
    return next((value.dtype for value in values if value.is_floating_point()), None)


def to_network(model: nn.Module, images: Tensor) -> Tensor:
    """Move images to the network's device and precision; a batch of images is required."""
    if not isinstance(images, Tensor) or images.ndim < 3:
        shape = tuple(images.shape) if hasattr(images, "shape") else type(images).__name__
        problem = f"expected a batch [batch, channel, height, width], got {shape}"
        raise InputError("images", problem, "Add the batch axis.")
    if len(images) == 0:
        raise InputError("images", "the batch is empty", "Give at least one image.")
    return images.to(device_of(model), dtype_of(model) or images.dtype)


@contextmanager
def reading(model: nn.Module) -> Iterator[nn.Module]:
    """Run the model in eval mode and leave it as found, also after an exception.

    Training flags are put back. Where gradients are on, so is every attribute to which the pass bound a tensor of its
    graph, as networks do that keep their maps: such a graph would hold memory, and the network could not be copied.
    """
    training = [module for module in model.modules() if module.training]
    bound = _attributes(model) if torch.is_grad_enabled() else []
    for module in training:
        module.training = False
    try:
        yield model
    finally:
        for module in training:
            module.training = True
        for module, before in bound:
            _forget_graphs(module, before)


def _attributes(model: nn.Module) -> list[tuple[nn.Module, dict]]:
    modules = [module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)]
    return [(module, dict(vars(module))) for module in modules]


def _forget_graphs(module: nn.Module, before: dict) -> None:
    missing = object()
    for name, value in list(vars(module).items()):
        old = before.get(name, missing)
        if value is not old and _holds_graph(value):
            if old is missing:
                delattr(module, name)
            else:
                vars(module)[name] = old


def _holds_graph(value) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_holds_graph, value))
    if isinstance(value, dict):
        return any(map(_holds_graph, value.values()))
    return isinstance(value, Tensor) and value.grad_fn is not None


def layer_names(model: nn.Module) -> list[str]:
    """Names of all layers that can be read, in the order in which the network registers them."""
    return [name for name, _ in model.named_modules() if name]


def find_layer(model: nn.Module, layer: str) -> tuple[nn.Module, int | None]:
    """Return the module called `layer` and the wanted call of it (`"relu:2"` is the third call, counted from 0).

    Raises:
        InputError: there is no such layer, and the nearest names are suggested; it is scripted.
    """
    modules = dict(model.named_modules())
    name, _, call = layer.partition(":")
    if name not in modules and f"_orig_mod.{name}" in modules:  # torch.compile's wrapper
        name = f"_orig_mod.{name}"
    if name not in modules or not name or (call and not call.isdigit()):
        near = difflib.get_close_matches(name, [known for known in modules if known], n=5, cutoff=0.4)
        known = ", ".join(near or [child for child, _ in model.named_children()])
        raise InputError("layer", f"the network has no layer {layer!r}", f"Nearest names: {known}.")
    if isinstance(modules[name], torch.jit.ScriptModule):
        problem = f"{layer!r} is scripted or traced, and its values cannot be followed"
        remedy = "Give the eager network, the nn.Module it was made from. Only its output (layer=None) can be read."
        raise InputError("layer", problem, remedy)
    return modules[name], int(call) if call else None


def pick_tensor(output) -> tuple[Tensor, str]:
    """The tensor in a module's output, and which one was taken ("" where there was no choice).

    The output itself; the `logits` of an output object or a dict; else the first tensor of a tuple, list or dict.
    """
    if isinstance(output, Tensor):
        return output, ""
    if isinstance(getattr(output, "logits", None), Tensor):
        return output.logits, "'logits'"
    if isinstance(output, dict):
        if isinstance(output.get("logits"), Tensor):
            return output["logits"], "'logits'"
        found = [(value, f"{name!r}") for name, value in output.items() if isinstance(value, Tensor)]
    elif isinstance(output, (tuple, list)):
        found = [
            (value, f"number {place}") for place, value in enumerate(output) if isinstance(value, Tensor)
        ]
        if not found and output:
            return pick_tensor(output[0])
    else:
        found = []
    if not found:
        problem = f"its output is a {type(output).__name__} without a tensor"
        raise InputError("layer", problem, f"Choose another layer. {WHAT_TO_TAKE}")
    return found[0] if len(output) > 1 else (found[0][0], "")


def first_tensor(output) -> Tensor:
    """The tensor in a module's output, see `pick_tensor`."""
    return pick_tensor(output)[0]
