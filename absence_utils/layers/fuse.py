"""A network that answers as the given one and runs faster: batch norm folded into convolutions, channels last.

The given network is never changed: a copy that shares its tensors is rearranged. Its answers differ in the last bits
only, and the copy is used only if a trial shows that it answers as the network does.
"""

from __future__ import annotations

import copy

import torch
import torch.fx
from torch import Tensor, nn

from .network import reading
from .reading import feature_map

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def fused(model: nn.Module, layer: str | None, shape: tuple[int, ...]) -> nn.Module:
    """A faster network with the same responses at `layer`, to about 1e-6 relative; or the model itself.

    The layer that is read keeps its own value: a convolution that is read stays without its batch norm. A network
    that cannot be copied or disagrees in a trial is returned as it is; one that torch.fx cannot trace keeps its
    batch norms.

    Args:
        shape: (channel, height, width) of what the network will be given.
    """
    fast = shared_copy(model)
    if fast is None:
        return model
    with reading(fast):
        _fold_batch_norms(fast, layer)
    _store_channels_last(fast)
    noise = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    return fast if _outputs_match(model, fast, layer, noise) else model


def shared_copy(model: nn.Module) -> nn.Module | None:
    """A copy that shares the tensors of the network; None where it cannot be copied."""
    try:
        shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        return copy.deepcopy(model, shared)
    except Exception:  # networks may hold what cannot be copied
        return None


def trace(model: nn.Module) -> torch.fx.Graph | None:
    """The network's computation; None where it cannot be traced.

    A copy is traced: tracing leaves its proxies in whatever a forward pass keeps.
    """
    try:
        return torch.fx.symbolic_trace(shared_copy(model)).graph
    except Exception:  # many networks cannot be traced
        return None


def channels_last(images: Tensor) -> Tensor:
    """The same images, stored pixel by pixel: convolutions on a CPU then need no reordering (here twice as fast)."""
    return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images


def _outputs_match(model: nn.Module, fast: nn.Module, layer: str | None, noise: Tensor) -> bool:
    """Whether two networks agree as far as rounding allows, TF32 and half precision included.

    A guard against nonsense, as from a network that does something else when traced. Precision has its own tests.
    """
    try:
        given = feature_map(model, layer, noise)
        found = feature_map(fast, layer, channels_last(noise))
    except RuntimeError:  # as `view` of a map that is stored channels last
        return False
    return given.shape == found.shape and bool((given - found).abs().max() <= 0.02 * given.abs().max())


def _fold_batch_norms(model: nn.Module, layer: str | None) -> None:
    """Replace every convolution whose only reader is a batch norm, up to `layer`, by one with that norm in it."""
    for name, norm_name in _pairs(model, layer):
        convolution, norm = model.get_submodule(name), model.get_submodule(norm_name)
        _set(model, name, _folded(convolution, norm))
        _set(model, norm_name, nn.Identity())


def _pairs(model: nn.Module, layer: str | None) -> list[tuple[str, str]]:
    graph = trace(model)
    if graph is None:
        return []
    read, modules, pairs = (layer or "").partition(":")[0], dict(model.named_modules()), []
    calls = [node.target for node in graph.nodes if node.op == "call_module"]
    touched = {node.target.rpartition(".")[0] for node in graph.nodes if node.op == "get_attr"}
    within = [
        number
        for number, node in enumerate(graph.nodes)
        if read and node.op == "call_module" and f"{node.target}.".startswith(f"{read}.")
    ]
    needed = list(graph.nodes)[: within[-1] + 1] if within else list(graph.nodes)  # the rest does not run
    for node in needed:
        users = list(node.users)
        if len(users) != 1 or node.op != "call_module" or users[0].op != "call_module":
            continue
        pair = (node.target, users[0].target)
        first, second = (modules[name] for name in pair)
        # `type`, since a subclass may compute something else; used once, and by nothing but its own call.
        if (
            type(first) in _CONVOLUTIONS
            and type(second) in _NORMS
            and second.running_mean is not None
            and all(calls.count(name) == 1 and name not in touched and name != read for name in pair)
            and not any(it._forward_hooks or it._forward_pre_hooks for it in (first, second))
        ):
            pairs.append(pair)
    return pairs


def _folded(convolution: nn.Module, norm: nn.Module) -> nn.Module:
    """A convolution that computes both, worked out in float64."""
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    gamma = torch.ones_like(mean) if norm.weight is None else norm.weight.detach().double()
    beta = torch.zeros_like(mean) if norm.bias is None else norm.bias.detach().double()
    bias = torch.zeros_like(mean) if convolution.bias is None else convolution.bias.detach().double()
    scale = gamma / (variance + norm.eps).sqrt()
    weight = convolution.weight.detach()
    column = scale.reshape(-1, *[1] * (weight.ndim - 1))
    folded = copy.copy(convolution)  # shares all but the parameters
    folded._parameters = {
        "weight": nn.Parameter((weight.double() * column).to(weight.dtype), requires_grad=False),
        "bias": nn.Parameter(((bias - mean) * scale + beta).to(weight.dtype), requires_grad=False),
    }
    return folded


def _store_channels_last(model: nn.Module) -> None:
    for module in model.modules():
        if type(module) is nn.Conv2d and "weight" in module._parameters:
            weight = module.weight.detach().contiguous(memory_format=torch.channels_last)
            module._parameters["weight"] = nn.Parameter(weight, requires_grad=False)


def _set(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    model.get_submodule(parent)._modules[child] = module
