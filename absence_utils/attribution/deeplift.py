"""DeepLIFT on networks as they come: every activation call becomes a module of its own, used once and out of
place.

captum's `DeepLift` hooks activation *modules*. A module that is called twice breaks it, `F.relu` escapes it,
and an in-place call overwrites what it needs. Rewriting networks (by tracing, or by hand) is the usual
remedy. Here the activation calls are redirected while the network runs instead, so nothing has to be traced,
copied or changed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from absence_utils.errors import InputError
from absence_utils.units import Unit

_RELU = {F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}
_ELEMENTWISE = {  # those captum has the rescale rule for, with the names of their settings
    F.leaky_relu: (nn.LeakyReLU, ("negative_slope",)),
    F.elu: (nn.ELU, ("alpha",)),
    F.softplus: (nn.Softplus, ("beta", "threshold")),
    **dict.fromkeys((F.sigmoid, torch.sigmoid, Tensor.sigmoid), (nn.Sigmoid, ())),
    **dict.fromkeys((F.tanh, torch.tanh, Tensor.tanh), (nn.Tanh, ())),
}
_MAX_POOL = {F.max_pool2d, torch.max_pool2d}


class _SeparateActivations(TorchFunctionMode):
    """While active, the n-th activation call of a forward pass runs through the n-th module of `modules`.

    Modules are made as calls come (`recording`), and each is used once in a pass and out of place: what
    captum's DeepLIFT asks of a network. The network itself is neither copied nor changed, and need not be
    traceable.
    """

    def __init__(self, modules: nn.ModuleList, recording: bool = False):
        super().__init__()
        self.modules, self.recording, self.calls = modules, recording, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in _RELU:
            return self._through(nn.ReLU, _argument(args, kwargs, 0, "input"))
        if func is F.relu6:
            return self._clamp(_argument(args, kwargs, 0, "input"), 0.0, 6.0)
        if func is F.hardtanh:
            low, high = (
                _argument(args, kwargs, 1, "min_val", -1.0),
                _argument(args, kwargs, 2, "max_val", 1.0),
            )
            return self._clamp(_argument(args, kwargs, 0, "input"), low, high)
        if func in _ELEMENTWISE:
            module, names = _ELEMENTWISE[func]
            settings = {name: value for name, value in kwargs.items() if name in names}
            settings |= dict(zip(names, args[1:], strict=False))
            return self._through(lambda: module(**settings), _argument(args, kwargs, 0, "input"))
        if func in _MAX_POOL and _argument(args, kwargs, 4, "dilation", 1) in (1, (1, 1)):
            return self._maximum(*args, **kwargs)
        if func is F.adaptive_max_pool2d:
            values, cells = args[0], _pair(_argument(args, kwargs, 1, "output_size"))
            if not any(length % count for length, count in zip(values.shape[-2:], cells, strict=True)):
                return self._maximum(
                    values, tuple(n // c for n, c in zip(values.shape[-2:], cells, strict=True))
                )
        return func(*args, **kwargs)

    def _through(self, make, values: Tensor) -> Tensor:
        if self.recording:
            self.modules.append(make())
        self.calls += 1
        # captum hooks the tensor it is given, and would also catch the gradient of its other
        # readers: give a copy
        return self.modules[self.calls - 1](values.clone())

    def _clamp(self, values: Tensor, low: float, high: float) -> Tensor:
        return low + self._through(nn.ReLU, values - low) - self._through(nn.ReLU, values - high)

    def _maximum(
        self, input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False
    ) -> Tensor:
        """Max pooling as running maxima, first along the height, then along the width."""
        sizes = zip(*map(_pair, (kernel_size, stride or kernel_size, padding)), strict=True)
        for axis, (edge, step, pad) in zip((-2, -1), sizes, strict=True):
            input = self._running_maximum(input.movedim(axis, -1), edge, step, pad, ceil_mode).movedim(
                -1, axis
            )
        return input

    def _running_maximum(self, values: Tensor, edge: int, step: int, pad: int, ceil_mode: bool) -> Tensor:
        length = values.shape[-1]
        room = length + 2 * pad - edge
        count = (-(-room // step) if ceil_mode else room // step) + 1
        if ceil_mode and (count - 1) * step >= length + pad:
            count -= 1  # PyTorch drops a window that would start in the padding
        # a window that sticks out holds the value at the border, so repeating that value changes no maximum
        place = torch.arange(-pad, (count - 1) * step + edge - pad, device=values.device).clamp(0, length - 1)
        values = values[..., place]
        last = (count - 1) * step + 1
        largest = values[..., 0:last:step]
        for offset in range(1, edge):
            largest = largest + self._through(nn.ReLU, values[..., offset : offset + last : step] - largest)
        return largest


def _argument(args, kwargs, place, name, default=None):
    return args[place] if len(args) > place else kwargs.get(name, default)


def _pair(value) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value) * (2 // len(value))


class ModularActivations(nn.Module):
    """A unit's response with every activation call a module of its own; the network is no submodule."""

    def __init__(self, unit: Unit, images: Tensor):
        super().__init__()
        self.respond, self.activations = unit.response, nn.ModuleList()
        expected = unit.response(images).detach()
        with _SeparateActivations(self.activations, recording=True):
            found = unit.response(images).detach()
        scripted = any(isinstance(module, torch.jit.ScriptModule) for module in unit.model.modules())
        if scripted or not torch.allclose(
            found, expected, rtol=1e-3, atol=1e-4 * (1 + float(expected.abs().max()))
        ):
            raise InputError(
                "method",
                "'deeplift' cannot reach the activations of a scripted network, or one that works in place",
                "Give the eager network, with the value an activation returns used instead of its argument; "
                "or choose 'integrated_gradients', which needs no access to the inside.",
            )

    def forward(self, images: Tensor) -> Tensor:
        with _SeparateActivations(self.activations):
            return self.respond(images)[:, None]
