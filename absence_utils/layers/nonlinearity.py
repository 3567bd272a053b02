"""Find what a layer's values were before its nonlinearity, from what the calls do and not from what they are called.

Seen from the end of the layer, a value is one of these:

* an elementwise, nonlinear function of one earlier value (a ReLU, an own swish, `x * sigmoid(x)`, a PReLU): the earlier
  value is the reading;
* picked from earlier values (slicing, reshaping, concatenation, nearest upsampling, zero padding, dropout in eval mode,
  the largest of a window), or an earlier value times a positive number: the search continues behind it, and the same
  picking is applied to what it finds;
* a linear mixture of one earlier value without weights (average pooling): the mean of rectified values says nothing
  below zero, and the search continues only for the output of a network (SqueezeNet ends in ReLU and average);
* anything else (a convolution, a norm, a sum, attention): the reading is the value as it is.

Each is decided by calling again with other numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .recording import Call, Value, calls_between, dominator, replay

TOLERANCE = 1e-5  # of the largest value: what rounding may do to one elementwise call
KINK = 1e-3  # second difference, relative to the range, from which on a function is not affine
GRID = 17  # points at which an elementwise function is looked at


class CannotExplain(Exception):
    """The values before the nonlinearity are not determined; the message says why."""


@dataclass(eq=False)
class Step:
    """One part of a reading, see `Search`.

    Attributes:
        value: what the network computed.
        source: the value before the nonlinearity, for the first step of a branch; else None.
        call: the call that picks `value` from others, and is repeated on `parts`; None for a source.
        parts: leaf of the call -> the step that takes its place.
        averaged: it holds a mean over values before their nonlinearity.
        factor: the call only multiplies; the factor belongs to the nonlinearity and is left out of the reading.
    """

    value: Value
    source: Value | None = None
    call: Call | None = None
    parts: dict[int, Step] = field(default_factory=dict)
    averaged: bool = False
    factor: bool = False


class Search:
    """The search for one layer's reading.

    Args:
        through_averages: whether to look behind averages.
    """

    def __init__(self, through_averages: bool):
        self.through_averages, self.stopped_at_average = through_averages, False
        self._known: dict[Value, Step | None] = {}

    def find(self, value: Value) -> Step | None:
        """How to read `value` before its nonlinearity; None: as it is.

        Raises:
            CannotExplain: the reading could only be guessed.
        """
        if value not in self._known:
            self._known[value] = self._find(value)
        return self._known[value]

    def _find(self, value: Value) -> Step | None:
        source = nonlinear_source(value)
        if source is not None:
            return Step(value, source=source)
        kind = kind_of_call(value)
        if kind is None:
            return None
        parts = {place: self.find(read) for place, read in value.call.reads.items()}
        parts = {place: step for place, step in parts.items() if step is not None}
        if not parts:
            return None
        averaged = kind == "mixed" or any(step.averaged for step in parts.values())
        if kind == "mixed" and not self.through_averages:
            self.stopped_at_average = True
            return None
        if kind == "largest":
            _require_increasing(parts)
        factor = kind == "scaled" and not averaged
        return Step(value, call=value.call, parts=parts, averaged=averaged, factor=factor)


def nonlinear_source(value: Value) -> Value | None:
    """The nearest value of which `value` is an elementwise and nonlinear function, up to a positive factor."""
    earlier = dominator(value)
    while earlier is not None and _comparable(earlier, value):
        kind = elementwise(earlier, value)
        if kind == "nonlinear":
            return earlier
        if kind != "scaled":
            return None
        earlier = dominator(earlier)
    return None


def elementwise(source: Value, target: Value) -> str | None:
    """What kind of function of each value alone it is; None where a value depends on its neighbours, or on nothing.

    Returns:
        "nonlinear", "scaled" (by one positive number), "affine" or None.
    """
    spread = _spread(source.tensor)
    changed = False
    for _ in range(_draws(source.tensor)):
        first, second = (spread / 3 * _noise(source.tensor) for _ in range(2))
        same = torch.rand(source.tensor.shape, device=source.tensor.device) < 0.5
        one, two = replay(source, target, first), replay(source, target, torch.where(same, first, second))
        tolerance = _tolerance(one)
        if not close(one[same], two[same], tolerance):
            return None
        changed |= not close(one[~same], two[~same], tolerance)
    if not changed:
        return None
    grid = torch.linspace(-spread, spread, GRID).tolist()
    values = [replay(source, target, torch.full_like(first, each)).float() for each in grid]
    bend = max(
        float((a - 2 * b + c).abs().amax()) for a, b, c in zip(values, values[1:], values[2:], strict=False)
    )
    largest = max(float(each.abs().amax()) for each in values)
    if not bend <= max(KINK, 10 * tolerance) * largest:  # also where it is not a number, as a logarithm is
        return "nonlinear"
    factor = float(values[-1].mean()) / spread
    scaled = factor > 0 and all(
        close(each, torch.full_like(each, factor * at), tolerance)
        for each, at in zip(values, grid, strict=True)
        if at
    )
    scaled = scaled and float(values[GRID // 2].abs().amax()) <= tolerance * largest
    return "scaled" if scaled and not any(map(_has_weights, calls_between(source, target))) else "affine"


def is_increasing(source: Value, target: Value) -> bool:
    """Whether an elementwise function never falls: then the largest value stays the largest."""
    spread = _spread(source.tensor)
    before, wide = None, _noise(source.tensor)
    for each in torch.linspace(-spread, spread, 4 * GRID).tolist():
        values = replay(source, target, torch.full_like(wide, each)).float()
        if before is not None and bool((values < before - _tolerance(values) * values.abs().amax()).any()):
            return False
        before = values
    return True


def kind_of_call(value: Value) -> str | None:
    """What one call does to the values it reads: "picked", "largest", "scaled", "mixed" (linearly), or None."""
    call = value.call
    reads = list(call.reads.items()) if call is not None else []
    if not reads or value.shared or _has_weights(call):
        return None
    if not all(_numbers(read.tensor) for _, read in reads) or not _numbers(value.tensor):
        return None

    def result(numbers: list[Tensor]) -> Tensor:
        return call.result_of(value, {place: x for (place, _), x in zip(reads, numbers, strict=True)})

    kinds = {
        _kind(result, [2 * _noise(read.tensor) for _, read in reads]) for _ in range(_draws(value.tensor))
    }
    if kinds == {"picked", "largest"}:  # by chance the largest was in the same place
        return "largest"
    return kinds.pop() if len(kinds) == 1 else None


def _kind(result: Callable, numbers: list[Tensor]) -> str | None:
    """The kind that one draw of numbers suggests."""
    found = result(numbers)
    tolerance = 10 * max(_tolerance(tensor) for tensor in (found, *numbers))
    if not found.isfinite().all() or not found.any():
        return None
    if close(result([2 * x**3 for x in numbers]), 2 * found**3, tolerance):  # increasing
        bowl = result([3 * x**2 for x in numbers])
        return "picked" if close(bowl, 3 * found**2, tolerance) else "largest"
    if len(numbers) > 1:
        return None
    (x,), other = numbers, _noise(numbers[0])
    if found.shape == x.shape:
        factor = (found * x).sum() / (x * x).sum()
        if factor > 0 and close(found, factor * x, tolerance):
            return "scaled"
    linear = close(result([x + other]), found + result([other]), tolerance)
    return "mixed" if linear and close(result([-2 * x]), -2 * found, tolerance) else None


def _require_increasing(parts: dict[int, Step]) -> None:
    for part in parts.values():
        for step in _beginnings(part):
            if not is_increasing(step.source, step.value):
                raise CannotExplain("it takes the largest of values behind a nonlinearity that also falls")


def _beginnings(step: Step) -> Iterator[Step]:
    """The steps that have a source, through which all of a step's parts begin."""
    if step.source is not None:
        yield step
    for part in step.parts.values():
        yield from _beginnings(part)


def _has_weights(call: Call) -> bool:
    """It works with numbers of the network: a factor then is no matter of units, nor a mixture an average."""
    return any(isinstance(x, nn.Parameter) or x.is_floating_point() and x.numel() > 1 for x in call.constants)


def _comparable(one: Value, other: Value) -> bool:
    return one.tensor.shape == other.tensor.shape and _numbers(one.tensor) and _numbers(other.tensor)


def _numbers(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.numel() > 0 and not tensor.is_sparse


def _draws(tensor: Tensor) -> int:
    """How often small tensors are drawn, so that nothing is decided by a few numbers."""
    return max(1, min(64, 512 // max(1, tensor.numel())))


def _noise(tensor: Tensor) -> Tensor:
    """Standard normal numbers of the same shape, in single precision at least: half is too coarse to see a bend."""
    dtype = torch.promote_types(tensor.dtype, torch.float32)
    return torch.randn(tensor.shape, dtype=dtype, device=tensor.device)


def _spread(tensor: Tensor) -> float:
    """How far an elementwise function is looked at: as far as its values reach, and past the corners of a ReLU6."""
    return max(8.0, 2 * float(tensor.detach().float().nan_to_num(0, 0, 0).abs().amax()))


def _tolerance(tensor: Tensor) -> float:
    return max(TOLERANCE, 4 * torch.finfo(tensor.dtype).eps)


def close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    if one.shape != other.shape:
        return False
    one, other = one.float(), other.float()
    largest = other.abs().amax() if other.numel() else 0
    return torch.equal(one, other) or bool(((one - other).abs() <= tolerance * largest).all())
