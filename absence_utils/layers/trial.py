"""Find out how a layer is read, from three passes of one or two images.

One image against two tells where the batch axis is. The second pass is recorded, and what was before the nonlinearity
is looked for in its calls. The third tries the reading: what was read must give the layer's own output, copied at the
moment the layer returned it, by the calls that the network made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from absence_utils.errors import InputError

from .axes import describe
from .following import (
    OUTPUTS,
    Follow,
    Layout,
    Plan,
    hold,
    module_and_call,
    overwriting,
    remedy,
    repeated_calls,
    run_to_layer,
    schedule,
)
from .network import pick_tensor
from .nonlinearity import CannotExplain, Search
from .recording import Recorder, Value, let_go


def find_plan(model: nn.Module, layer: str | None, image: Tensor, modules: tuple, declared: tuple) -> Plan:
    """How to read a layer, see the top of this module.

    Args:
        image: [1, channel, height, width].
        modules: weak references to the network's modules, kept in the plan.
        declared: channel axis and grid where the user has said them, see `reading.declare_axes`; else None.

    Raises:
        InputError: the reading, or an axis, could only be guessed.
    """
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
            what = "Let the forward pass take any number of images: `x.flatten(1)` and not `x.view(1, -1)`."
            raise InputError("model", problem, what) from error
    layout = _layout(model, layer, image, alone.output, watch, declared)
    search = Search(through_averages=layer == "logits")
    try:
        if layer is None or isinstance(model, torch.jit.ScriptModule) or _says_signed(model, layer):
            step = None
        elif watch.value is None:
            raise CannotExplain("its last calls cannot be followed, as in a scripted part")
        else:
            with torch.no_grad():
                step = search.find(watch.value)
    except CannotExplain as error:
        problem = f"the values of {layer!r} before its nonlinearity are not known: {error}"
        raise InputError("layer", problem, remedy(watch.before())) from error
    plan = _plan_of(step, recorder, watch, layout, search.stopped_at_average, modules)
    if plan.steps:
        torch.set_rng_state(state)
        follow = Follow(plan, checking=True)
        run_to_layer(model, layer, torch.cat([image, image]), follow)
        hold(follow, layer, watch.before())
        let_go(repeated_calls(plan.steps))
    return plan


def _says_signed(model: nn.Module, layer: str | None) -> bool:
    """Whether the network undoes its last nonlinearity itself: the search would go back behind it once more."""
    return layer == "logits" and getattr(model, "signed_output", False) is True


def _plan_of(step, recorder: Recorder, watch: _Watch, layout: Layout, averages: bool, modules: tuple) -> Plan:
    """Calls are counted from the layer's beginning where the plan needs none before."""
    steps, at = schedule(step, recorder)
    whole = any(call.occurrence < watch.entered[call.function] for call in at)
    base = Counter() if whole else watch.entered
    return Plan(
        layout,
        steps,
        {(call.function, call.occurrence - base[call.function]): jobs for call, jobs in at.items()},
        whole,
        {call.function: watch.counts[call.function] - base[call.function] for call in at},
        averages,
        bool(overwriting(recorder, recorder.images)),
        modules,
    )


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
                what = "Give the eager network it was made from; of this one only the output (layer=None) can be read."
                raise InputError("model", problem, what)
            self._keep(self.model(images))
            return self
        module, call = module_and_call(self.model, self.layer)
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
        earlier, modules = (
            self.returned[: ends[0]] if ends else self.returned,
            dict(self.model.named_modules()),
        )
        names = [name for name, value in reversed(earlier) if value is not None and value is not self.value]
        for name in names:
            if isinstance(modules[name], (nn.modules.conv._ConvNd, nn.Linear)):
                return name
        return names[0] if names else None


def _eager_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    modules = ((name, module) for name, module in model.named_modules() if name)
    return [(name, module) for name, module in modules if not isinstance(module, torch.jit.ScriptModule)]


def _layout(
    model: nn.Module, layer: str | None, image: Tensor, one: Tensor, watch: _Watch, declared: tuple
) -> Layout:
    """The axes from a pass of one image and a pass of two."""
    two, name, value = watch.output, "the output" if layer in OUTPUTS else repr(layer), watch.value
    batch = _batch_axis(name, one, two)
    if two.ndim == 1:
        return Layout(1, 0, 0, taken=watch.taken)
    channel, grid = declared
    if channel is not None:
        channel = channel % two.ndim
    elif two.ndim == 2:
        channel = 1 - batch
    else:
        channel = value.channel if value is not None else None
        if channel is None or channel == batch:
            channel = _axis_without_space(model, layer, image, one, batch)
    if channel is None or channel == batch:
        problem = f"which axis of {name}, {tuple(two.shape)} for two images, has the channels cannot be told"
        what = f"Say it once: absence_utils.layers.declare_axes(model, {layer!r}, channel=axis)."
        raise InputError("layer", problem, what)
    if two.ndim == 3:
        tokens = two.shape[({0, 1, 2} - {batch, channel}).pop()]
        found = grid or (value.grid if value is not None else None)
        fits = found is not None and found[0] * found[1] + found[2] <= tokens
        if grid is not None and not fits:
            problem = f"{grid} for {tokens} tokens of {name}"
            raise InputError("grid", problem, "Give (height, width, first) of the tokens that are places.")
        return Layout(3, batch, channel, found if fits else None, watch.taken)
    return Layout(two.ndim, batch, channel, None, watch.taken)


def _batch_axis(name: str, one: Tensor, two: Tensor) -> int:
    """The axis that tells one image from two."""
    if one.ndim == two.ndim - 1:
        problem = f"{name} drops the batch axis of a single image: {tuple(one.shape)}, and {tuple(two.shape)} for two"
        raise InputError("model", problem, "Write `x.flatten(1)` in the place of `x.squeeze()`.")
    axes = [axis for axis, (n, m) in enumerate(zip(one.shape, two.shape, strict=False)) if n != m]
    if one.ndim != two.ndim or len(axes) != 1 or (one.shape[axes[0]], two.shape[axes[0]]) != (1, 2):
        problem = f"{name} has no batch axis: {tuple(one.shape)} for one image, {tuple(two.shape)} for two"
        raise InputError("layer", problem, "Choose another layer.")
    return axes[0]


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
