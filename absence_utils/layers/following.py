"""Follow a plan: one pass up to a layer that keeps its values before the nonlinearity, and the check of these."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten

from absence_utils.errors import InputError

from .network import find_layer, pick_tensor
from .nonlinearity import Step, close
from .recording import Call, Recorder, Value, calls_between, replay

OUTPUTS = (None, "logits")  # the layers whose channels are the network's outputs
AGREE = 1e-4  # of the largest value: a reading, led through the recorded calls, and what the layer returned


class _Stop(BaseException):
    """Raised by a hook to end the forward pass at the layer. No `except Exception` of a network catches it."""


class Changed(Exception):
    """The network no longer makes the calls that were recorded."""


@dataclass(frozen=True)
class Layout:
    """The axes of what a layer returns.

    Attributes:
        ndim: number of axes.
        batch, channel: numbers of these axes.
        grid: for tokens (height, width, first) of the places they stand for: token `first` is the upper left one, those
            before and behind are special (class, distillation, registers). None where that is not known.
        taken: which of several outputs is read, "" where there is one.
    """

    ndim: int
    batch: int
    channel: int
    grid: tuple[int, int, int] | None = None
    taken: str = ""

    def batch_and_channel_first(self, values: Tensor) -> Tensor:
        """[batch, channel, *space]."""
        return values[:, None] if self.ndim == 1 else values.movedim((self.batch, self.channel), (0, 1))

    def places(self, values: Tensor) -> Tensor | None:
        """[batch, channel, height, width] of what the layer returned, without special tokens; None without space."""
        values = self.batch_and_channel_first(values)
        if values.ndim == 3 and self.grid is not None:
            height, width, first = self.grid
            values = values[:, :, first : first + height * width].unflatten(2, (height, width))
        return values if values.ndim == 4 and values.shape[2:].numel() > 1 else None


@dataclass(frozen=True, eq=False)
class Plan:
    """How a layer is read.

    Attributes:
        layout: its axes.
        steps: what to keep and to repeat on the way, in the order of the calls; () to read the output as it is.
        whole: the steps begin before the layer does.
        expected: how often each function of the steps is called by then: a network that does otherwise is tried anew.
        average_of_rectified: the layer averages values behind a nonlinearity.
        overwrites: the pass writes into the images that it is given.
        modules: the network's modules at the time.
    """

    layout: Layout
    steps: tuple[Step, ...]
    at: dict
    whole: bool
    expected: dict
    average_of_rectified: bool
    overwrites: bool
    modules: tuple


def module_and_call(model: nn.Module, layer: str | None) -> tuple[nn.Module, int | None]:
    return (model, None) if layer in OUTPUTS else find_layer(model, layer)


@dataclass(frozen=True)
class _Job:
    """What is done at a call: keep the argument at a leaf for a step, or repeat the call for it."""

    step: Step
    leaf: int | None = None
    copy: bool = False


def remedy(name: str | None) -> str:
    """What to do about a layer that cannot be read: the name of one that can, if there is any."""
    return f"Read {name!r}, which runs before it." if name else "Read a layer before it."


def schedule(step: Step | None, recorder: Recorder) -> tuple[tuple[Step, ...], dict[Call, list[_Job]]]:
    """All steps, parts first, and what is to be done at which call."""
    if step is None:
        return (), {}
    steps: list[Step] = []

    def visit(each: Step) -> None:
        for part in each.parts.values():
            visit(part)
        if each not in steps:
            steps.append(each)

    visit(step)
    at: dict[Call, list[_Job]] = {}
    for each in steps:
        if each.source is None:
            at.setdefault(each.call, []).append(_Job(each))
            continue
        readers = [
            call for call in calls_between(each.source, each.value) if each.source in call.reads.values()
        ]
        first = min(readers, key=lambda call: call.made[0].number)
        leaf = next(place for place, read in first.reads.items() if read is each.source)
        at.setdefault(first, []).append(_Job(each, leaf, copy=bool(overwriting(recorder, each.source))))
    return tuple(steps), at


def repeated_calls(steps: tuple[Step, ...]) -> set[Call]:
    """The calls that a reading or its check repeats."""
    return {
        call
        for step in steps
        for call in ([step.call] if step.source is None else calls_between(step.source, step.value))
    }


def overwriting(recorder: Recorder, source: Value) -> list[Value]:
    """Values that overwrite it."""
    made = (value for call in recorder.calls for value in call.made)
    return [value for value in made if value.tensor is source.tensor and value.number > source.number]


class Follow(TorchFunctionMode):
    """Follows a plan during one pass: keeps what the steps need, and repeats what they repeat."""

    def __init__(self, plan: Plan, checking: bool = False):
        super().__init__()
        self.plan, self.checking = plan, checking
        self.counts, self.values = Counter(), {}
        self.leaves: dict[Step, list] = {}
        self.returned = None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in self.plan.expected:
            number = self.counts[func]
            self.counts[func] += 1
            for job in self.plan.at.get((func, number), ()):
                self._do(job, args, kwargs)
        return func(*args, **kwargs)

    def _do(self, job: _Job, args, kwargs) -> None:
        leaves, spec = tree_flatten((args, kwargs))
        step = job.step
        if job.leaf is not None:
            if job.leaf >= len(leaves) or not isinstance(leaves[job.leaf], Tensor):
                raise Changed
            self.values[step] = leaves[job.leaf].clone() if job.copy else leaves[job.leaf]
            if self.checking:
                self.leaves[step] = [leaves[job.leaf].detach().clone()]
            return
        if spec != step.call.spec:
            raise Changed
        if self.checking:
            self.leaves[step] = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        try:
            parts = {place: self.values[part] for place, part in step.parts.items()}
        except KeyError:
            raise Changed from None
        (*_, last) = parts.values()
        self.values[step] = last if step.factor else step.call.result_of(step.value, parts, leaves)

    @property
    def reading(self) -> Tensor:
        return self.values[self.plan.steps[-1]]


def run_to_layer(model: nn.Module, layer: str | None, images: Tensor, follow: Follow) -> Tensor:
    """One pass up to the layer: the values before its nonlinearity, with the axes the layer gives them."""
    plan = follow.plan
    if isinstance(model, torch.jit.ScriptModule):
        return pick_tensor(model(images))[0]
    module, call = module_and_call(model, layer)
    seen, output, inside = -1, None, ExitStack()

    def enter(*_):
        nonlocal seen
        seen += 1
        if seen == (call or 0) and plan.steps and not plan.whole:
            inside.enter_context(follow)

    def leave(_module, _inputs, out):
        nonlocal output
        if seen == (call or 0):
            output = pick_tensor(out)[0]
            raise _Stop

    hooks = [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    with inside:
        if plan.whole:
            inside.enter_context(follow)
        try:
            model(images)
        except _Stop:
            pass
        finally:
            for hook in hooks:
                hook.remove()
    if output is None:
        raise Changed
    if not plan.steps:
        return output
    if follow.counts != Counter(plan.expected) or plan.steps[-1] not in follow.values:
        raise Changed
    if follow.checking:
        follow.returned = output.detach().clone()
    return follow.reading


def hold(follow: Follow, layer: str | None, before: str | None = None) -> None:
    """Lead what was read through the recorded calls, and hold it against what the layer returned.

    Raises:
        InputError: they differ.
    """
    after: dict[Step, Tensor] = {}
    with torch.no_grad():
        for step in follow.plan.steps:
            if step.source is not None:
                if not _equal(follow.values[step], follow.leaves[step][0], 0.0):
                    raise InputError("layer", f"what was read of {layer!r} was overwritten", remedy(before))
                after[step] = replay(step.source, step.value, follow.values[step])
            else:
                parts = {place: after[part] for place, part in step.parts.items()}
                after[step] = step.call.result_of(step.value, parts, follow.leaves[step])
        if follow.plan.steps:
            found, returned = after[follow.plan.steps[-1]], follow.returned
            tolerance = max(AGREE, 8 * torch.finfo(returned.dtype).eps)
            if found.shape != returned.shape or not _equal(found, returned, tolerance):
                problem = (
                    f"what was read of {layer!r} does not give what it returned "
                    f"({_range(found)} against {_range(returned)})"
                )
                raise InputError("layer", problem, remedy(before))


def _equal(found: Tensor, returned: Tensor, tolerance: float) -> bool:
    known = ~(found.isnan() | returned.isnan())
    return torch.equal(found.isnan(), returned.isnan()) and close(
        torch.where(known, found, 0), torch.where(known, returned, 0), tolerance
    )


def _range(values: Tensor) -> str:
    low, high = values.float().aminmax()
    return f"{low:.3g} to {high:.3g}"
