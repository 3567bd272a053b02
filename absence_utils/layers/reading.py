"""Read a layer: its values before the nonlinearity, batch first and channels second, held against what it returned.

The first reading of a layer at an image size runs the network three times on one or two images. It learns where the
batch axis is (one image against two), records all calls to find what was before the nonlinearity, and tries the reading:
what was read must give the layer's own output, copied at the moment the layer returned it, by the calls that the
network made. What does not is an error and never a guess. From then on a reading is one pass, up to the layer.
"""

from __future__ import annotations

import warnings
import weakref
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten

from absence_utils.errors import InputError

from .axes import describe
from .network import find_layer, pick_tensor, reading, to_network
from .nonlinearity import CannotExplain, Search, Step, calls_between, close
from .recording import Call, Recorder, Value, replay

OUTPUTS = (None, "logits")  # the layers whose channels are the network's outputs
check_every_pass = (
    False  # for tests: hold every reading against the layer's output, and not the first one alone
)
AGREE = 1e-4  # of the largest value: a reading, led through the recorded calls, and what the layer returned


class _Stop(BaseException):
    """Raised by a hook to end the forward pass at the layer. No `except Exception` of a network catches it."""


class _Changed(Exception):
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
        """Maps [batch, channel, height, width] of what the layer returned, special tokens left out; None without space."""
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
        modules: the network's modules at the time.
    """

    layout: Layout
    steps: tuple[Step, ...]
    at: dict
    whole: bool
    expected: dict
    average_of_rectified: bool
    modules: tuple


_plans: weakref.WeakKeyDictionary[nn.Module, dict[tuple, Plan]] = weakref.WeakKeyDictionary()
_axes: weakref.WeakKeyDictionary[nn.Module, dict[str | None, int]] = weakref.WeakKeyDictionary()


def declare_channels(model: nn.Module, layer: str | None, axis: int) -> None:
    """Say which axis of a layer's output holds the channels, where it cannot be found out.

    Args:
        model, layer: as for `feature_map`.
        axis: number of the axis of what the layer returns, -1 for the last.
    """
    _axes.setdefault(model, {})[layer] = axis
    _plans.pop(model, None)


def layout_of(model: nn.Module, layer: str | None, images: Tensor) -> Layout:
    """The axes of what a layer returns for images of that size; see `feature_map` for arguments and errors."""
    images = to_network(model, images)
    with reading(model), _eager():
        return _plan(model, layer, images).layout


def feature_map(model: nn.Module, layer: str | None, images: Tensor) -> Tensor:
    """Signed, pre-nonlinearity values of all units of a layer, before pooling over space.

    If the last thing that a layer does is an elementwise nonlinearity (a ReLU, a GELU, an own swish, a PReLU; its values
    then moved about, concatenated, or the largest taken), these are the values before it; else exactly what the layer
    returns. The network runs only up to the layer and is left as found. The result is differentiable with respect to the
    images unless the caller disables gradients.

    Args:
        model: any network.
        layer: a name from `layer_names`, with ":n" for the n-th call of a layer that runs several times;
            None for the model's output exactly as it is; "logits" for the model's output with a final rectification
            undone (SqueezeNet ends in ReLU and average pooling: its outputs are never negative, and the signed logit
            is the same average taken before the ReLU). For most networks None and "logits" agree.
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
        follow = _Follow(plan)
        try:
            values = _run(model, layer, images, follow)
            break
        except _Changed:
            if last:
                problem = f"the calls up to {layer!r} depend on the images, so the values before its nonlinearity are unknown"
                raise InputError("layer", problem, _remedy(None)) from None
            _plans[model].pop(_key(layer, images))
    if check_every_pass:
        _hold(follow, layer, AGREE)
    if values.ndim != plan.layout.ndim or values.ndim and values.shape[plan.layout.batch] != len(images):
        problem = f"{layer or 'the output'} has shape {tuple(values.shape)} for {len(images)} images"
        raise InputError("layer", problem, "Let the shape depend on the size of the images only.")
    return values, plan


def _eager():
    """Compiled parts run as written: their insides are seen."""
    import sys

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
    graphs = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    devices = [images.device] if images.device.type == "cuda" else []
    with torch.inference_mode(False), torch.set_grad_enabled(graphs), torch.random.fork_rng(devices):
        known[key] = _find_plan(model, layer, images[:1].detach().clone(), tuple(map(weakref.ref, modules)))
    return known[key]


def _find_plan(model: nn.Module, layer: str | None, image: Tensor, modules: tuple) -> Plan:
    state = torch.get_rng_state()
    alone = _Watch(model, layer).run(image.clone())
    pair = torch.cat([image, image])
    recorder = Recorder(pair, describe)
    torch.set_rng_state(state)
    with recorder:
        try:
            watch = _Watch(model, layer, recorder).run(pair)
        except InputError:
            raise
        except Exception as error:
            _Watch(model, layer).run(image.clone())  # where one fails as well, this says why
            problem = (
                f"two images in a batch fail where one passes ({type(error).__name__}: {str(error)[:80]})"
            )
            remedy = "Let the forward pass take any number of images: `x.flatten(1)` and not `x.view(1, -1)`."
            raise InputError("model", problem, remedy) from error
    layout = _layout(model, layer, image, alone.output, watch)
    search = Search(through_averages=layer == "logits")
    try:
        if layer is None or isinstance(model, torch.jit.ScriptModule):
            step = None
        elif watch.value is None:
            raise CannotExplain("its last calls cannot be followed, as in a scripted part")
        else:
            with torch.no_grad():
                step = search.find(watch.value)
    except CannotExplain as error:
        problem = f"the values of {layer!r} before its nonlinearity are not known: {error}"
        raise InputError("layer", problem, _remedy(watch)) from error
    steps, at = _schedule(step, recorder)
    functions = {call.function for call in at}
    started = watch.entered if step is not None else Counter()
    whole = any(call.occurrence < started[call.function] for call in at)
    base = Counter() if whole else started
    plan = Plan(
        layout,
        steps,
        {(call.function, call.occurrence - base[call.function]): jobs for call, jobs in at.items()},
        whole,
        {function: watch.counts[function] - base[function] for function in functions},
        search.stopped_at_average,
        modules,
    )
    if steps:
        torch.set_rng_state(state)
        follow = _Follow(plan, checking=True)
        _run(model, layer, torch.cat([image, image]), follow)
        _hold(follow, layer, AGREE, watch)
    return plan


def _remedy(watch) -> str:
    name = watch.before() if watch is not None else None
    return f"Read {name!r}, which runs before it." if name else "Read a layer before it."


class _Watch:
    """One pass up to the return of a layer: its output, copied, and what was recorded by then.

    Attributes:
        output: what the layer returned, copied.
        taken: which of several outputs that is.
        value: the recorded value of it.
        entered, counts: calls of each function when the layer began and when it returned.
    """

    def __init__(self, model: nn.Module, layer: str | None, recorder: Recorder | None = None):
        self.model, self.layer, self.recorder = model, layer, recorder
        self.output = self.value = None
        self.taken, self.entered, self.counts = "", Counter(), Counter()
        self.returned: list[tuple[str, Value | None]] = []

    def run(self, images: Tensor) -> _Watch:
        if isinstance(self.model, torch.jit.ScriptModule):
            if self.layer is not None:
                problem = "it is scripted or traced, and its layers cannot be read"
                remedy = "Give the eager network, the nn.Module it was made from; only its output (layer=None) can be read."
                raise InputError("model", problem, remedy)
            self._keep(self.model(images))
            return self
        module, call = _module(self.model, self.layer)
        began, ended = -1, 0

        def enter(*_):
            nonlocal began
            began += 1
            if began == (call or 0) and self.recorder is not None:
                self.entered = self.recorder.counts.copy()

        def leave(_module, _inputs, out):
            nonlocal ended
            if ended == (call or 0):
                self._keep(out)
            ended += 1

        hooks = [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
        if self.recorder is not None:
            hooks += [
                each.register_forward_hook(self._note(name)) for name, each in _eager_modules(self.model)
            ]
        try:
            self.model(images)
        except Exception:
            if self.output is None:
                raise  # else the image may be too small for what comes after the layer, which is not needed
        finally:
            for hook in hooks:
                hook.remove()
        self._require_one_call(call, ended)
        return self

    def _note(self, name: str) -> Callable:
        def hook(_module, _inputs, out):
            self.returned.append((name, self.recorder.value_of(out)))

        return hook

    def _keep(self, out) -> None:
        tensor, self.taken = pick_tensor(out)
        if self.recorder is not None:  # first, since the copy is a call, too
            self.value, self.counts = self.recorder.value_of(tensor), self.recorder.counts.copy()
        self.output = tensor.detach().clone()

    def _require_one_call(self, call: int | None, ended: int) -> None:
        if self.layer in OUTPUTS:
            return
        name = self.layer.partition(":")[0]
        if ended == 0:
            raise InputError(
                "layer", f"{name!r} did not run in the forward pass", "Choose a layer that is used."
            )
        if call is None and ended > 1:
            problem = f"{name!r} runs {ended} times in one forward pass, so it has no single response"
            raise InputError("layer", problem, f"Choose a call: '{name}:0' to '{name}:{ended - 1}'.")
        if call is not None and call >= ended:
            raise InputError("layer", f"{name!r} runs only {ended} times", f"Use ':0' to ':{ended - 1}'.")

    def before(self) -> str | None:
        """The last layer that returned a value of its own before this one, inside it where there is any."""
        ends = [
            place
            for place, (name, _) in enumerate(self.returned)
            if name == (self.layer or "").partition(":")[0]
        ]
        earlier = self.returned[: ends[0]] if ends else self.returned
        names = [name for name, value in reversed(earlier) if value is not None and value is not self.value]
        for name in names:
            if isinstance(dict(self.model.named_modules())[name], (nn.modules.conv._ConvNd, nn.Linear)):
                return name
        return names[0] if names else None


def _eager_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    modules = ((name, module) for name, module in model.named_modules() if name)
    return [(name, module) for name, module in modules if not isinstance(module, torch.jit.ScriptModule)]


def _module(model: nn.Module, layer: str | None) -> tuple[nn.Module, int | None]:
    return (model, None) if layer in OUTPUTS else find_layer(model, layer)


# -- axes


def _layout(model: nn.Module, layer: str | None, image: Tensor, one: Tensor, watch: _Watch) -> Layout:
    """The axes from a pass of one image and a pass of two."""
    two, name = watch.output, "the output" if layer in OUTPUTS else repr(layer)
    if one.ndim == two.ndim - 1:
        problem = f"{name} drops the batch axis of a single image: {tuple(one.shape)}, and {tuple(two.shape)} for two"
        raise InputError("model", problem, "Write `x.flatten(1)` in the place of `x.squeeze()`.")
    axes = [axis for axis, (n, m) in enumerate(zip(one.shape, two.shape, strict=False)) if n != m]
    if one.ndim != two.ndim or len(axes) != 1 or (one.shape[axes[0]], two.shape[axes[0]]) != (1, 2):
        problem = f"{name} has no batch axis: {tuple(one.shape)} for one image, {tuple(two.shape)} for two"
        raise InputError("layer", problem, "Choose another layer.")
    (batch,) = axes
    if two.ndim == 1:
        return Layout(1, 0, 0, taken=watch.taken)
    declared = _axes.get(model, {}).get(layer)
    if declared is not None:
        channel = declared % two.ndim
    elif two.ndim == 2:
        channel = 1 - batch
    else:
        channel = watch.value.channel if watch.value is not None else None
        if channel is None or channel == batch:
            channel = _axis_without_space(model, layer, image, one, batch)
    if channel is None or channel == batch:
        problem = (
            f"which axis of {name}, {tuple(two.shape)} for two images, holds the channels cannot be told"
        )
        remedy = f"Say it once: absence_utils.layers.reading.declare_channels(model, {layer!r}, axis)."
        raise InputError("layer", problem, remedy)
    grid = watch.value.grid if watch.value is not None and two.ndim == 3 else None
    if grid is not None:
        tokens = two.shape[({0, 1, 2} - {batch, channel}).pop()]
        grid = grid if grid[0] * grid[1] + grid[2] <= tokens else None
    return Layout(two.ndim, batch, channel, grid, watch.taken)


def _axis_without_space(model, layer, image: Tensor, one: Tensor, batch: int) -> int | None:
    """The only axis that does not grow with the image."""
    size = [edge + 32 for edge in image.shape[-2:]]
    try:
        larger = _Watch(model, layer).run(F.interpolate(image.float(), size).to(image.dtype)).output
    except Exception:  # many networks take one size only
        return None
    if larger.ndim != one.ndim:
        return None
    same = [axis for axis in range(one.ndim) if axis != batch and one.shape[axis] == larger.shape[axis]]
    return same[0] if len(same) == 1 else None


# -- following a plan


@dataclass(frozen=True)
class _Job:
    """What is done at a call: keep the argument at a leaf for a step, or repeat the call for it."""

    step: Step
    leaf: int | None = None
    copy: bool = False


def _schedule(step: Step | None, recorder: Recorder) -> tuple[tuple[Step, ...], dict[Call, list[_Job]]]:
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
        later = [value for value in _later_values(recorder, each.source)]
        at.setdefault(first, []).append(_Job(each, leaf, copy=bool(later)))
    return tuple(steps), at


def _later_values(recorder: Recorder, source: Value) -> list[Value]:
    """Values that overwrite it."""
    made = (value for call in recorder.calls for value in call.made)
    return [value for value in made if value.tensor is source.tensor and value.number > source.number]


class _Follow(TorchFunctionMode):
    """Follows a plan during one pass: keeps what the steps need, and repeats what they repeat."""

    def __init__(self, plan: Plan, checking: bool = False):
        super().__init__()
        self.plan, self.checking = plan, checking or check_every_pass
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
                raise _Changed
            self.values[step] = leaves[job.leaf].clone() if job.copy else leaves[job.leaf]
            if self.checking:
                self.leaves[step] = [leaves[job.leaf].detach().clone()]
            return
        if spec != step.call.spec:
            raise _Changed
        if self.checking:
            self.leaves[step] = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        try:
            parts = {place: self.values[part] for place, part in step.parts.items()}
        except KeyError:
            raise _Changed from None
        (*_, last) = parts.values()
        self.values[step] = last if step.factor else step.call.result_of(step.value, parts, leaves)

    @property
    def reading(self) -> Tensor:
        return self.values[self.plan.steps[-1]]


def _run(model: nn.Module, layer: str | None, images: Tensor, follow: _Follow) -> Tensor:
    """One pass up to the layer: the values before its nonlinearity, with the axes the layer gives them."""
    plan = follow.plan
    if isinstance(model, torch.jit.ScriptModule):
        return pick_tensor(model(images))[0]
    module, call = _module(model, layer)
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
        raise _Changed
    if not plan.steps:
        return output
    if follow.counts != Counter(plan.expected) or plan.steps[-1] not in follow.values:
        raise _Changed
    if follow.checking:
        follow.returned = output.detach().clone()
    return follow.reading


def _hold(follow: _Follow, layer: str | None, tolerance: float, watch: _Watch | None = None) -> None:
    """Lead what was read through the recorded calls, and hold it against what the layer returned.

    Raises:
        InputError: they differ.
    """
    after: dict[Step, Tensor] = {}
    with torch.no_grad():
        for step in follow.plan.steps:
            if step.source is not None:
                if not _equal(follow.values[step], follow.leaves[step][0], 0.0):
                    raise InputError("layer", f"what was read of {layer!r} was overwritten", _remedy(watch))
                after[step] = replay(step.source, step.value, follow.values[step])
            else:
                parts = {place: after[part] for place, part in step.parts.items()}
                after[step] = step.call.result_of(step.value, parts, follow.leaves[step])
        if follow.plan.steps:
            found, returned = after[follow.plan.steps[-1]], follow.returned
            tolerance = max(tolerance, 8 * torch.finfo(returned.dtype).eps)
            if found.shape != returned.shape or not _equal(found, returned, tolerance):
                problem = (
                    f"what was read of {layer!r} does not give what it returned "
                    f"({_range(found)} against {_range(returned)})"
                )
                raise InputError("layer", problem, _remedy(watch))


def _equal(found: Tensor, returned: Tensor, tolerance: float) -> bool:
    known = ~(found.isnan() | returned.isnan())
    return torch.equal(found.isnan(), returned.isnan()) and close(
        torch.where(known, found, 0), torch.where(known, returned, 0), tolerance
    )


def _range(values: Tensor) -> str:
    low, high = values.float().aminmax()
    return f"{low:.3g} to {high:.3g}"
