"""Leave a network as it was found, and say what did not stay."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class StateChanges:
    """What was found changed in the network after all checks."""

    def __init__(self):
        self.names: list[str] = []

    def found(self) -> tuple[bool, str, str]:
        """(passed, found, remedy), as a check of `validate_checks` gives it."""
        if not self.names:
            return True, "weights, buffers, hooks, modes, gradients", ""
        found = f"a forward pass changes {', '.join(self.names[:3])}" + (
            ", ..." if len(self.names) > 3 else ""
        )
        remedy = (
            "Let the forward pass change nothing in eval mode; results would depend on what was asked before."
        )
        return False, found, remedy


@contextmanager
def preserve_state(model: nn.Module) -> Iterator[StateChanges]:
    """Note what passes change in a network. Buffers, modes and gradients are put back, also after an exception."""
    before, changes = _state(model), StateChanges()
    buffers = [
        (module, key, value, value.detach().clone())
        for module in model.modules()
        if not isinstance(module, torch.jit.ScriptModule)
        for key, value in module._buffers.items()
        if value is not None
    ]
    flags = [(module, module.training) for module in model.modules()]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    try:
        yield changes
    finally:
        after = _state(model)
        changes.names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        with torch.no_grad():
            for module, key, value, kept in buffers:
                value.copy_(kept)
                module._buffers[key] = value
        for module, training in flags:
            module.training = training
        for parameter, gradient in gradients:
            parameter.grad = gradient


def _state(model: nn.Module) -> dict[str, object]:
    """What can be told of a network's state without copying it, by name."""
    state: dict[str, object] = {}
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        total = str(value.detach().sum().item())  # as text: a sum that is not a number equals itself
        state[repr(name)] = (value.shape, value.requires_grad, total, value._version)
        state[f"the gradient of {name!r}"] = value.grad is not None
    for name, module in model.named_modules():
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        state[f"the hooks of {name!r}"] = sum(map(len, hooks))
        state[f"the mode of {name!r}"] = module.training
    return state
