"""Address a unit, read its signed response, and run a network only as far as the layer that is read.

The response of a unit is its signed, pre-nonlinearity value pooled over space. Reading it correctly is the heart of
this package, because an encoded absence lives below zero, where a rectifier hides it. Three things get in the way:

* a layer may end in its nonlinearity (a ReLU module, a residual block, SqueezeNet's Fire module, a GELU);
* torchvision's networks overwrite values in place (`ReLU(inplace=True)`, `out += identity`), so that a tensor kept
  by reference is no longer what the layer computed;
* the channel axis is second in convolutional maps, last in token sequences and in Swin's and ConvNeXt's inner maps.

One mechanism covers all of them, for networks that `torch.fx` can trace and for those it cannot: a hook stops the
forward pass the moment the layer has returned, so nothing downstream can overwrite its output, and while the layer
itself runs, `_PreNonlinearity` makes every activation call out of place and remembers what went into it. (Where the
activation ran before the layer, as for a dropout or a max pooling behind a ReLU, it is active for the whole pass.)
"""

from __future__ import annotations

import difflib
import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from absence_utils.errors import InputError, require_choice
from absence_utils.progress import progress

POOLS = ("mean", "cls", "max", "min")
OUTPUTS = (None, "logits")  # the layers whose channels are the network's outputs

# Calls whose result is "after the nonlinearity".
_ACTIVATIONS = {
    F.relu, F.relu6, F.leaky_relu, F.elu, F.selu, F.celu, F.gelu, F.silu, F.mish, F.hardswish, F.hardtanh,
    F.hardsigmoid, F.softplus, F.tanh, F.sigmoid, torch.relu, torch.relu_, torch.tanh, torch.sigmoid,
    Tensor.relu, Tensor.relu_, Tensor.tanh, Tensor.sigmoid,
}  # fmt: skip
_IN_PLACE = {torch.relu_: torch.relu, Tensor.relu_: Tensor.relu}

# Calls that commute with a rectifier: they only move values about, or pick the largest. What was before the
# nonlinearity is found on the other side of them.
_MOVES = {
    torch.flatten, torch.squeeze, torch.unsqueeze, torch.permute, torch.transpose, torch.reshape, torch.movedim,
    Tensor.flatten, Tensor.squeeze, Tensor.unsqueeze, Tensor.permute, Tensor.transpose, Tensor.reshape,
    Tensor.view, Tensor.contiguous, Tensor.movedim, F.dropout, F.dropout2d, F.max_pool2d, F.max_pool1d,
}  # fmt: skip
_AVERAGES = {
    F.adaptive_avg_pool2d, F.adaptive_avg_pool1d, F.avg_pool2d, F.avg_pool1d, torch.mean, Tensor.mean,
}  # fmt: skip
_JOINS = {torch.cat, torch.concat, torch.stack}


class _PreNonlinearity(TorchFunctionMode):
    """While active, activations run out of place and their result remembers, as `_signed`, what went into them.

    Concatenations and moves of such results carry the memory along. Averages carry it as well, but marked: the
    average of the signed values is not the value from which the layer's output can be computed. The memory is a
    function without arguments: only the last one is called, so the rest of the network costs nothing extra.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in _ACTIVATIONS:
            source = args[0] if args else kwargs["input"]
            out = self._out_of_place(func, args, kwargs)
            out._signed, out._averaged = (lambda: source), False
            return out
        out = func(*args, **kwargs)
        if func in _JOINS:
            parts = args[0] if args else kwargs["tensors"]
            if any(hasattr(part, "_signed") for part in parts):
                rest = {name: value for name, value in kwargs.items() if name != "tensors"}
                out._signed = lambda: func([_signed(part) for part in parts], *args[1:], **rest)
                out._averaged = any(getattr(part, "_averaged", False) for part in parts)
        elif (
            (func in _MOVES or func in _AVERAGES)
            and args
            and hasattr(args[0], "_signed")
            and out is not args[0]
        ):
            out._signed = lambda: func(_signed(args[0]), *args[1:], **kwargs)
            out._averaged = func in _AVERAGES or args[0]._averaged
        return out

    @staticmethod
    def _out_of_place(func, args, kwargs):
        if func in _IN_PLACE:
            return _IN_PLACE[func](*args, **kwargs)
        if kwargs.get("inplace"):
            kwargs["inplace"] = False
        # F.relu(x, True) and F.leaky_relu(x, 0.1, True): a trailing positional True is the in-place flag.
        if len(args) > 1 and args[-1] is True:
            args = (*args[:-1], False)
        return func(*args, **kwargs)


def _signed(tensor: Tensor) -> Tensor:
    return tensor._signed() if hasattr(tensor, "_signed") else tensor


class _Stop(Exception):
    """Raised by the hook to end the forward pass at the layer."""


def device_of(model: nn.Module) -> torch.device:
    """Where the network's first parameter is; the CPU for a network without any."""
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


@contextmanager
def reading(model: nn.Module) -> Iterator[nn.Module]:
    """Run the model in eval mode and leave every module's training flag as it was, also after an exception."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield model
    finally:
        for module in training:
            module.training = True


def layer_names(model: nn.Module) -> list[str]:
    """Names of all layers that can be read, in the order in which the network registers them."""
    return [name for name, _ in model.named_modules() if name]


def find_layer(model: nn.Module, layer: str) -> tuple[nn.Module, int | None]:
    """Return the module called `layer` and the wanted call of it (`"relu:2"` is the third call, counted from 0).

    Raises:
        InputError: there is no such layer; the nearest names are suggested.
    """
    modules = dict(model.named_modules())
    name, _, call = layer.partition(":")
    if name not in modules or not name or (call and not call.isdigit()):
        near = difflib.get_close_matches(name, [known for known in modules if known], n=5, cutoff=0.4)
        known = ", ".join(near or [child for child, _ in model.named_children()])
        raise InputError("layer", f"the network has no layer {layer!r}", f"Nearest names: {known}.")
    return modules[name], int(call) if call else None


@dataclass(frozen=True)
class _Probe:
    """What one trial pass told about a layer: how often it runs, and whether its nonlinearity lies before it."""

    calls: int
    rectified_before: bool


_probes: weakref.WeakKeyDictionary[nn.Module, dict[str, _Probe]] = weakref.WeakKeyDictionary()


def _probe(model: nn.Module, layer: str, module: nn.Module, call: int, images: Tensor) -> _Probe:
    """Run one image through the network, once for each network and layer."""
    known = _probes.setdefault(model, {})
    if layer not in known:
        count = 0

        def seen(*_):
            nonlocal count
            count += 1

        handle = module.register_forward_hook(seen)
        try:
            with torch.no_grad():
                model(images[:1])
        except Exception:
            if count == 0:
                raise  # later on, the image may be too small for what comes after the layer, which is not needed
        finally:
            handle.remove()
        if count == 0:
            problem = f"{layer!r} did not run in the forward pass"
            raise InputError("layer", problem, "Choose a layer that is used.")
        with torch.no_grad():
            alone, whole = (
                _run_to(model, module, call, images[:1], whole_pass=flag) for flag in (False, True)
            )
        known[layer] = _Probe(count, hasattr(whole, "_signed") and not hasattr(alone, "_signed"))
    return known[layer]


def first_tensor(output) -> Tensor:
    """The tensor in a module's output: itself, the `logits` of an output object, or the first of a tuple."""
    if isinstance(output, Tensor):
        return output
    if hasattr(output, "logits"):
        return output.logits
    if isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, (tuple, list)) and output:
        return first_tensor(output[0])
    problem = f"its output is a {type(output).__name__}, not a tensor"
    raise InputError("layer", problem, "Choose another layer.")


def channel_axis(module: nn.Module, output: Tensor, images: Tensor) -> int:
    """Find the channel axis of a layer's output (batch first).

    Known layers decide by their type. Of the others, token sequences have their channels last, and maps have them
    where the two remaining axes have the proportions of the image; a tie goes to PyTorch's usual order.
    """
    if output.ndim == 2 or isinstance(module, (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm)):
        return 1
    if isinstance(module, nn.Linear) or type(module) is nn.LayerNorm:
        return output.ndim - 1
    if output.ndim == 3:
        return 2
    if output.ndim != 4:
        problem = f"its output has shape {tuple(output.shape)}"
        raise InputError("layer", problem, "Choose a layer with 2 to 4 axes.")
    aspect = images.shape[-2] / images.shape[-1]
    first, second, third = output.shape[1:]
    return 3 if abs(first / second - aspect) < abs(second / third - aspect) else 1


def to_network(model: nn.Module, images: Tensor) -> Tensor:
    """Move images to the model's device and precision; a batch of images is required."""
    if not isinstance(images, Tensor) or images.ndim < 3:
        shape = tuple(images.shape) if hasattr(images, "shape") else type(images).__name__
        problem = f"expected a batch [batch, channel, height, width], got {shape}"
        raise InputError("images", problem, "Add the batch axis.")
    parameter = next(model.parameters(), None)
    return images if parameter is None else images.to(parameter.device, parameter.dtype)


def feature_map(model: nn.Module, layer: str | None, images: Tensor) -> Tensor:
    """Signed, pre-nonlinearity values of all units of a layer, before pooling over space.

    The network runs only up to the layer and is left as found: hooks, training flags, gradients. The result is
    differentiable with respect to the images unless the caller disables gradients.

    Args:
        model: any network.
        layer: a name from `layer_names`, with ":n" for the n-th call of a layer that runs several times;
            None for the model's output exactly as it is; "logits" for the model's output with a final rectification
            undone (SqueezeNet ends in ReLU and average pooling: its outputs are never negative, and the signed logit
            is the same average taken before the ReLU). For most networks None and "logits" agree.
        images: [batch, channel, height, width], normalised as the network expects.

    Returns:
        [batch, channel, *space]: space is height and width for maps, tokens for transformers, absent for vectors.
        For a layer that ends in a nonlinearity (also inside a block, before a concatenation or reshaping) the values
        before it, in the units of the layer.

    Raises:
        InputError: no such layer, a layer that runs several times or not at all, no batch axis.

    Example:
        >>> import torch
        >>> from absence_utils import feature_map, load_model
        >>> values = feature_map(load_model("concept_scenes"), "block4", torch.zeros(2, 3, 64, 64))
        >>> values.shape[:2], bool((values < 0).any())  # signed
        (torch.Size([2, 64]), True)
    """
    images = to_network(model, images)
    with reading(model):
        if layer in OUTPUTS:
            return _model_output(model, images, signed=layer == "logits")
        module, call = find_layer(model, layer)
        probe = _probe(model, layer, module, call or 0, images)
        if call is None and probe.calls > 1:
            problem = f"{layer!r} runs {probe.calls} times in one forward pass, so it has no single response"
            raise InputError("layer", problem, f"Choose a call: '{layer}:0' to '{layer}:{probe.calls - 1}'.")
        output = _run_to(model, module, call or 0, images, whole_pass=probe.rectified_before)
    if output is None:
        problem = f"{layer!r} runs only {probe.calls} times"
        raise InputError("layer", problem, f"Use ':0' to ':{probe.calls - 1}'.")
    if getattr(output, "_averaged", False):
        warnings.warn(
            f"layer {layer!r} averages rectified values: it cannot fall below zero, so its minimum says little. "
            "Read the layer before the nonlinearity instead.",
            stacklevel=2,
        )
        signed = output
    else:
        signed = _signed(output)
    if signed.shape[0] != len(images) and signed.ndim == 3 and signed.shape[1] == len(images):
        signed = signed.transpose(0, 1)  # sequence-first transformers
    if signed.ndim < 2 or signed.shape[0] != len(images):
        problem = f"{layer!r} has no batch axis: {tuple(signed.shape)}"
        raise InputError("layer", problem, "Choose another layer.")
    return signed.movedim(channel_axis(module, signed, images), 1)


def _run_to(
    model: nn.Module, module: nn.Module, call: int, images: Tensor, whole_pass: bool
) -> Tensor | None:
    """Run the model until the `call`-th return of `module`; its output carries `_signed` where one was found."""
    mode, seen, output = _PreNonlinearity(), -1, None
    inside = ExitStack()

    def enter(*_):
        nonlocal seen
        seen += 1
        if seen == call and not whole_pass:
            inside.enter_context(mode)

    def leave(_module, _inputs, out):
        nonlocal output
        if seen == call:
            output = first_tensor(out)
            raise _Stop

    hooks = [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    with inside:
        if whole_pass:
            inside.enter_context(mode)
        try:
            model(images)
        except _Stop:
            pass
        finally:
            for hook in hooks:
                hook.remove()
    return output


def _model_output(model: nn.Module, images: Tensor, signed: bool) -> Tensor:
    known = _probes.setdefault(model, {})
    if not signed or ("logits" in known and not known["logits"].rectified_before):
        output = first_tensor(model(images))
    else:
        with _PreNonlinearity():
            output = first_tensor(model(images))
            known["logits"] = _Probe(1, hasattr(output, "_signed"))
            output = _signed(output)
    if output.ndim == 1:
        output = output[:, None]
    return output if output.ndim == 2 else output.movedim(channel_axis(model, output, images), 1)


def pool_space(features: Tensor, pool: str = "mean") -> Tensor:
    """Pool [batch, channel, *space] over space to [batch, channel].

    `mean`, `max` and `min` go over all positions (over all tokens, the class token included); `cls` takes the first
    token. Vectors [batch, channel] pass through. Minimum pooling of a transformer's tokens manufactures the effect
    this package is about (design section 6): it is here to show that.
    """
    require_choice("pool", pool, POOLS)
    if pool == "cls" and features.ndim != 3:
        raise InputError("pool", "'cls' needs a layer of tokens", "Use 'mean' for maps and vectors.")
    if features.ndim == 2:
        return features
    if pool == "cls":
        return features[:, :, 0]
    space = tuple(range(2, features.ndim))
    return {"mean": torch.mean, "max": torch.amax, "min": torch.amin}[pool](features, dim=space)


def responses(model: nn.Module, layer: str | None, images: Tensor, pool: str = "mean") -> Tensor:
    """Signed, pre-nonlinearity responses of all units of a layer in one pass, see `feature_map`.

    Args:
        model, layer, images: as for `feature_map`.
        pool: how space is pooled, see `pool_space`.

    Returns:
        [batch, unit], in the units of the layer.

    Example:
        >>> import torch
        >>> from absence_utils import load_model, responses
        >>> responses(load_model("concept_scenes"), "block4", torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 64])
    """
    return pool_space(feature_map(model, layer, images), pool)


def image_batches(dataset, batch_size: int, description: str = "") -> Iterator[Tensor]:
    """The images of a dataset of (image, label), in their order: [batch, channel, height, width].

    Raises:
        InputError: there are none.
    """
    if len(dataset) == 0:
        raise InputError("dataset", "it has no images", "Give a dataset with at least one image.")
    for numbers in progress(torch.arange(len(dataset)).split(batch_size), description):
        yield torch.stack([dataset[number][0] for number in numbers.tolist()])


@torch.inference_mode()
def dataset_responses(
    model: nn.Module, layer: str | None, dataset, *, batch_size: int = 32, pool: str = "mean"
) -> Tensor:
    """Responses of all units of a layer to every image of a dataset that yields (image, label).

    Returns:
        [image, unit] on the CPU, in the order of the dataset.

    Example:
        >>> from absence_utils import dataset_responses, load_images, load_model
        >>> model = load_model("concept_scenes")
        >>> dataset_responses(model, "logits", load_images("concept_scenes", model, limit=6)).shape
        torch.Size([6, 5])
    """
    batches = image_batches(dataset, batch_size, f"responses of {layer or 'the output'}")
    return torch.cat([responses(model, layer, images, pool).cpu() for images in batches])


def class_of_output(layer: str | None, channel: int, class_names: Sequence[str], outputs: int) -> str | None:
    """The class that a channel stands for, None for hidden layers and where the names are of other classes.

    A folder with ten of a thousand classes numbers them otherwise than the network does. So an output gets a name only
    if there are as many names as outputs.
    """
    known = layer in OUTPUTS and 0 < outputs == len(class_names)
    return class_names[channel] if known else None


def full_name(layer: str | None, channel: int, class_names: Sequence[str] = (), outputs: int = 0) -> str:
    """Layer, channel and, for an output, its class, as in "logits, unit 3: dog"; see `class_of_output`."""
    name = class_of_output(layer, channel, class_names, outputs)
    address = f"{layer or 'output'}, unit {channel}"
    return address if name is None else f"{address}: {'class ' if name.isdigit() else ''}{name}"


@dataclass(frozen=True, eq=False)
class Unit:
    """One unit of a network: a channel of a layer, a logit, or a direction in a layer.

    Attributes:
        model: the network; it is read in eval mode and left as found.
        layer: a layer's name, None for the model's output, "logits" for its signed output, see `feature_map`.
        channel: index of the channel (of the class for None and "logits"); ignored if a direction is given.
        direction: [channel] weights; the response is their dot product with the responses of the layer's channels.
        pool: how space is pooled, see `pool_space`.

    Raises:
        InputError: at once for a layer that does not exist; at the first response for a channel out of range.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from absence_utils import Unit
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.ReLU())
        >>> _ = model[0].weight.data.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
        >>> unit = Unit(model, layer="0", channel=1)
        >>> unit.response(torch.ones(1, 1, 4, 4)).item()  # before the ReLU, which passes on 0
        -1.0
    """

    model: nn.Module
    layer: str | None = None
    channel: int = 0
    direction: Tensor | None = None
    pool: str = "mean"

    def __post_init__(self):
        if self.layer not in OUTPUTS:
            find_layer(self.model, self.layer)
        require_choice("pool", self.pool, POOLS)
        if isinstance(self.channel, bool) or not isinstance(self.channel, int) and self.direction is None:
            problem = f"{self.channel!r} is not a whole number"
            raise InputError("channel", problem, "Give the index of a channel.")

    @property
    def name(self) -> str:
        """Readable address, for titles and tables."""
        which = self.channel if self.direction is None else "direction"
        return f"{self.layer or 'output'}:{which}"

    @property
    def is_output(self) -> bool:
        """Whether it is one of the network's outputs, which can stand for a class."""
        return self.layer in OUTPUTS and self.direction is None

    def label(self, class_names: Sequence[str] = (), outputs: int = 0) -> str:
        """Short name for axes and tables: the class of an output, else the address.

        Args:
            class_names: of the dataset.
            outputs: how many the network has, see `class_of_output`.
        """
        found = class_of_output(self.layer, self.channel, class_names, outputs) if self.is_output else None
        return self.name if found is None else found

    @property
    def device(self) -> torch.device:
        return device_of(self.model)

    @property
    def signed(self) -> Unit:
        """The same unit, reading the signed output where `layer=None` is given."""
        return replace(self, layer="logits") if self.layer is None else self

    def of(self, layer_responses: Tensor) -> Tensor:
        """Pick this unit from [..., channel] responses of its layer: [...]."""
        count = layer_responses.shape[-1]
        if self.direction is not None:
            direction = torch.as_tensor(self.direction).to(layer_responses)
            if direction.shape != (count,):
                problem = f"it has shape {tuple(direction.shape)}, the layer has {count} channels"
                raise InputError("direction", problem, f"Give a vector of length {count}.")
            return layer_responses @ direction
        if not 0 <= self.channel < count:
            problem = f"{self.channel} is out of range: {self.layer or 'the output'} has {count} units"
            raise InputError("channel", problem, f"Use 0 to {count - 1}.")
        return layer_responses[..., self.channel]

    def response(self, images: Tensor) -> Tensor:
        """Signed, pre-nonlinearity response to [batch, channel, height, width] images: [batch], differentiable."""
        return self.of(responses(self.model, self.layer, images, self.pool))
