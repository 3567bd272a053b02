"""What is around a network: wrappers and the prefixes they leave in checkpoints, and forms that cannot be read.

Reading a layer needs a network in Python (hooks, gradients, weights as tensors). A wrapper has that network inside; a
scripted, traced or quantised one has not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from absence_utils.errors import InputError

# PyTorch's wrappers by the name of their class, and the attribute under which each keeps its network; the same word,
# with a point, begins the keys of its checkpoint. (By name: importing torch.compile's takes a second.)
COMPILED = "OptimizedModule"  # what torch.compile returns
WRAPPERS = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "AveragedModel": "module",
    COMPILED: "_orig_mod",
}
PREFIXES = ("module.", "_orig_mod.", "model.")  # the last is what a LightningModule calls its network
COUNTER = "n_averaged"  # beside the weights in a checkpoint of AveragedModel


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside DataParallel, torch.compile and averaged weights, nested in any order; else the same one."""
    while _torch_class(model) in WRAPPERS:
        model = getattr(model, WRAPPERS[_torch_class(model)])
    return model


def _torch_class(module: nn.Module) -> str:
    """The name of a module's class where it is one of PyTorch's, else ""."""
    return type(module).__name__ if type(module).__module__.startswith("torch.") else ""


def without_prefixes(state: dict[str, Tensor], own: Collection[str] | None = None) -> dict[str, Tensor]:
    """A state dict without the prefixes that wrappers put before all of its keys, nested in any order.

    Args:
        state: key to tensor.
        own: keys of the network that is to be filled; as many prefixes are taken off as fit it best, none where none
            is needed. None takes all off.
    """
    best = state
    while True:
        rest = {key: value for key, value in state.items() if key != COUNTER}
        prefix = next((p for p in PREFIXES if rest and all(key.startswith(p) for key in rest)), None)
        if prefix is None:
            return best
        state = {key.removeprefix(prefix): value for key, value in rest.items()}
        if own is None or len(state.keys() & own) > len(best.keys() & own):
            best = state


def unreadable_form(model: nn.Module) -> tuple[str, str] | None:
    """(problem, remedy) where the network is in a form whose layers cannot be read or drawn anew; None where not."""
    for name, module in model.named_modules():
        where = f"its module {name!r} is" if name else "it is"
        if isinstance(module, torch.jit.ScriptModule):
            return f"{where} scripted or traced", "Give the eager network: the nn.Module before torch.jit."
        if _torch_class(module) == COMPILED or getattr(module, "_compiled_call_impl", None) is not None:
            return f"{where} compiled", "Give the eager network, and compile it afterwards."
        if _torch_class(module) and ".quantized" in type(module).__module__:
            return f"{where} quantised", "Give the network in floating point, as it was before quantisation."
    return None


def require_readable_form(model: nn.Module) -> None:
    """Refuse scripted, traced, compiled and quantised networks.

    Raises:
        InputError: says which module it is, and what to give.
    """
    found = unreadable_form(model)
    if found:
        raise InputError("model", *found)


def require_built(model: nn.Module) -> None:
    """Refuse a network with parameters that have no values yet.

    Raises:
        InputError: lazy modules that never ran, or parameters on the device meta; names the first.
    """
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if is_lazy(value):
            remedy = "Call the network once on a batch of images before you return it."
            raise InputError("model", f"{name!r} belongs to a lazy module that never ran", remedy)
        if value.is_meta:
            remedy = "Build the network without `torch.device('meta')`, or fill it before you return it."
            raise InputError("model", f"{name!r} has no values (device meta)", remedy)


# -- checkpointing: a pass that drops its values and computes them again on the way back

CHECKPOINTED = (
    "a part of the network runs under reentrant checkpointing, through which no gradient reaches the image",
    "Switch checkpointing off for reading, or call `checkpoint(..., use_reentrant=False)`.",
)


def runs_reentrant_checkpoint(output: Tensor) -> bool:
    """Whether what led to an output, which carries its graph, went through `checkpoint(..., use_reentrant=True)`."""
    waiting, seen = [output.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if node.name() == "CheckpointFunctionBackward":
            return True
        seen.add(node)
        waiting += [before for before, _ in node.next_functions]
    return False


@contextmanager
def checkpointing_named() -> Iterator[None]:
    """Say in words of this package why a gradient cannot be taken through reentrant checkpointing.

    Raises:
        InputError: in place of PyTorch's RuntimeError.
    """
    try:
        yield
    except RuntimeError as error:
        if "use_reentrant=True" not in str(error):
            raise
        raise InputError("model", *CHECKPOINTED) from error
