"""What the checks of `validation.validate_model` share: a network, a layer and images, and what was found of them.

Each check is a function from a `CheckContext` to (passed, found, remedy): `network_checks`, `layer_checks`. A check
that passes and has a remedy is a note.
"""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from absence_utils.errors import InputError
from absence_utils.units import feature_map, first_tensor, pool_space, reading, to_network

FLAT = 1e-6  # of the largest value: less is rounding, not a response to the image

Found = tuple[bool, str, str]  # passed, found, remedy


class Row(NamedTuple):
    check: str
    passed: bool
    found: str
    remedy: str


def reason(error: BaseException) -> str:
    """An exception on one line."""
    if isinstance(error, InputError):
        return error.problem
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"[:300]


class Unreadable(Exception):
    """A check cannot be made; the message says why. Another check fails for the same reason."""


class CheckContext:
    """A network, a layer and images, and what several checks need of them, computed once; errors are kept."""

    def __init__(self, model: nn.Module, layer: str | None, images: Tensor):
        self.model, self.layer, self.images = model, layer, images
        self.returned: list[str] = []  # modules of one pass, in the order in which they return
        self.overwrites = False  # a pass changes the images it is given

    @torch.no_grad()
    def output(self, images: Tensor) -> Tensor | None:
        """The model's output for images, None where it holds no tensor."""
        given = to_network(self.model, images).clone()
        before = given.clone()
        with reading(self.model):
            output = self.model(given)
        self.overwrites |= not torch.equal(given, before)
        try:
            return first_tensor(output).clone()
        except InputError:
            return None

    @torch.no_grad()
    def features(self, images: Tensor) -> tuple[Tensor, bool]:
        """[image, unit, *space] of the layer, and whether it averages rectified values."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            values = feature_map(self.model, self.layer, images.clone())
        return values.clone(), any("averages rectified values" in str(entry.message) for entry in caught)

    @cached_property
    def first_pass(self) -> Tensor | None | Exception:
        """The output for all images, or what the pass raised; fills `returned`."""
        hooks = [
            module.register_forward_hook(lambda *_, name=name: self.returned.append(name))
            for name, module in self.model.named_modules()
            if name and not isinstance(module, torch.jit.ScriptModule)
        ]
        try:
            return self.output(self.images)
        except Exception as error:
            return error
        finally:
            for hook in hooks:
                hook.remove()

    @cached_property
    def _reading(self) -> Tensor | Exception:
        try:
            return self.features(self.images)[0]
        except Exception as error:
            return error

    @property
    def layer_values(self) -> Tensor:
        """[image, unit, *space] of all images.

        Raises:
            Unreadable: the layer cannot be read; its cause says why.
        """
        if isinstance(self._reading, Exception):
            raise Unreadable("the layer cannot be read") from self._reading
        return self._reading

    @cached_property
    def responses(self) -> Tensor:
        """[image, unit]."""
        return pool_space(self.layer_values)

    @cached_property
    def varying(self) -> Tensor:
        """[unit] truth of "its response differs between images by more than rounding"."""
        values, size = self.responses, self.layer_values.abs()
        size = size.transpose(0, 1).flatten(1).amax(dim=1)
        return values.amax(dim=0) - values.amin(dim=0) > FLAT * size


def some(numbers: Tensor) -> str:
    """The first few of some units, for a sentence."""
    shown = ", ".join(str(number) for number in numbers[:4].tolist())
    return f"unit{'s' if len(numbers) > 1 else ''} {shown}" + (", ..." if len(numbers) > 4 else "")
