"""The checks of `validation.validate_model`, each a function from a `CheckContext` to (passed, found, remedy)."""

from __future__ import annotations

import warnings
from collections import Counter
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from absence_utils.errors import InputError
from absence_utils.units import feature_map, find_layer, first_tensor, pool_space, reading, to_network

SAME = 1e-6  # of the largest value: two passes of the same input
ALIKE = 1e-3  # of the largest value: alone and in a batch, where other kernels may run
FLAT = 1e-6  # of the largest value: less is rounding, not a response to the image
FEW = 64  # values from which on it is no accident that none is below zero
SAMPLED = 16  # units whose gradients are looked at, evenly spread over the layer
FLOOR = 0.01  # share of values at exactly 0 from which on 0 is a floor

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


# -- weights, mode, passes


def weights_finite(subject: CheckContext) -> Found:
    state = {**dict(subject.model.named_parameters()), **dict(subject.model.named_buffers())}
    bad = [name for name, value in state.items() if not value.isfinite().all()]
    if bad:
        found = f"{len(bad)} of {len(state)} tensors have values that are not finite, first {bad[0]!r}"
        return False, found, "Use a checkpoint from before training diverged."
    return True, f"{len(state)} tensors", ""


def eval_mode(subject: CheckContext) -> Found:
    modules = dict(subject.model.named_modules())
    training = {name: module for name, module in modules.items() if module.training}
    if training:
        kinds = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
        active = [name for name, module in training.items() if isinstance(module, kinds)]
        what = f", with active dropout or batch norm (first {active[0]!r})" if active else ""
        found = f"{len(training)} modules are in training mode{what}"
        return False, found, "Call `model.eval()`, and switch on no module again."
    return True, f"all {len(modules)} modules", ""


def takes_images(subject: CheckContext) -> Found:
    shape, outcome = " x ".join(map(str, subject.images.shape[1:])), subject.first_pass
    if isinstance(outcome, Exception):
        found = f"a pass of {shape} fails ({reason(outcome)})"
        return False, found, "Give images with the channels and the size that the network was made for."
    if subject.overwrites:
        found = f"a pass of {shape} overwrites the images it is given"
        return False, found, "Begin the forward pass out of place: `x = x - mean` and not `x -= mean`."
    return True, shape, ""


def deterministic(subject: CheckContext) -> Found:
    largest = _difference(subject, subject.images)
    if not largest <= SAME:
        found = f"the same images give values that differ by {largest:.1g} of the largest"
        remedy = (
            "Something draws at random in eval mode: write `F.dropout(x, p, self.training)`, use nn.Dropout, "
            "or seed it."
        )
        return False, found, remedy
    return True, "bit for bit" if largest == 0 else f"to {largest:.1g} of the largest value", ""


def alone_as_in_batch(subject: CheckContext) -> Found:
    largest = _difference(subject, subject.images[:1])
    if not largest <= ALIKE:
        found = f"an image alone and in a batch gives values that differ by {largest:.1g} of the largest"
        remedy = (
            "Something mixes the images of a batch: batch norm needs its running statistics in eval mode "
            "(`track_running_stats=True`, `F.batch_norm(..., training=self.training)`)."
        )
        return False, found, remedy
    return True, f"to {largest:.1g} of the largest value", ""


def _difference(subject: CheckContext, images: Tensor) -> float:
    """Largest difference between a new pass of the first images and the pass of all, in output and layer.

    Raises:
        Unreadable: neither can be read.
    """
    count, differences = len(images), []
    if isinstance(subject.first_pass, Tensor):
        differences.append(_distance(subject.output(images), subject.first_pass[:count]))
    try:
        values = subject.layer_values[:count]
        differences.append(_distance(subject.features(images)[0], values))
    except Unreadable:  # the check of the layer's shape says why
        if not differences:
            raise
    return max(differences)


def _distance(one: Tensor, other: Tensor) -> float:
    """Largest difference in units of the largest value; infinite for other shapes and values that are not finite."""
    if one.shape != other.shape:
        return float("inf")
    if torch.equal(one, other):
        return 0.0
    difference = (one - other).abs().max() / one.abs().max()
    return difference.item() if difference.isfinite() else float("inf")


# -- the layer


def layer_shape(subject: CheckContext) -> Found:
    try:
        values = subject.layer_values
    except Unreadable as unreadable:
        error = unreadable.__cause__
        if isinstance(error, InputError):
            return False, error.problem, error.remedy
        remedy = "Give images the network takes, or a layer whose output is [batch, channel, ...]."
        return False, f"the layer cannot be read ({reason(error)})", remedy
    space = " x ".join(map(str, values.shape[2:])) or "no"
    return True, f"{values.shape[1]} units, {space} positions", ""


def runs_once(subject: CheckContext) -> Found:
    if subject.layer in (None, "logits"):
        return True, "the output", ""
    try:
        _, call = find_layer(subject.model, subject.layer)
    except InputError as error:
        raise Unreadable("there is no such layer") from error
    name = subject.layer.partition(":")[0]
    calls = _calls(subject)[name]
    if calls == 0:
        if isinstance(subject.first_pass, Exception):
            return False, "not reached: the pass fails before it", "Make the pass run first."
        return False, f"{name!r} does not run in a pass", "Choose a layer that is used."
    if call is None and calls > 1:
        says = f"Say '{name}:0' for its first call, up to '{name}:{calls - 1}' for its last."
        return False, f"{name!r} runs {calls} times in a pass", says
    if call is not None and call >= calls:
        return False, f"{name!r} runs only {calls} times", f"Use ':0' to ':{calls - 1}'."
    return True, "once in a pass" if call is None else f"call {call} of {calls}", ""


def _calls(subject: CheckContext) -> Counter:
    subject.first_pass  # noqa: B018  fills `returned`
    return Counter(subject.returned)


# -- gradients


def gradients_flow(subject: CheckContext) -> Found:
    subject.layer_values  # noqa: B018  raises where there is nothing to differentiate
    images = subject.images[:2].clone().requires_grad_()
    remedy = (
        "Between image and layer do without `detach()`, `no_grad()`, `.data`, `argmax`, rounding and NumPy."
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = pool_space(feature_map(subject.model, subject.layer, images * 1))  # it may overwrite them
    if not values.requires_grad:
        return False, "the layer has no gradient with respect to the image", remedy

    def gradient(chosen: Tensor) -> Tensor:
        found = torch.autograd.grad(chosen.sum(), images, retain_graph=True, allow_unused=True)[0]
        return torch.zeros_like(images) if found is None else found

    if not gradient(values).isfinite().all():
        advice = "Look for a root, a logarithm or a norm of 0; add a small number inside."
        return False, "gradients are not finite", advice
    units = torch.linspace(0, values.shape[1] - 1, min(SAMPLED, values.shape[1])).round().long()
    silent = torch.stack([(gradient(values[:, unit]) == 0).all() for unit in units]).cpu()
    if silent.all():
        return False, "the gradient is zero for every unit", remedy
    cut = units[silent & subject.varying.cpu()[units]]
    if len(cut):
        found = f"{len(cut)} of {len(units)} units have none, but their responses differ ({_some(cut)})"
        return False, found, remedy
    return True, f"from {int((~silent).sum())} of {len(units)} units", ""


# -- responses


def responses_finite(subject: CheckContext) -> Found:
    bad = (~subject.layer_values.isfinite()).flatten(1).any(dim=1)
    if bad.any():
        found = f"{int(bad.sum())} of {len(bad)} images give values that are not finite"
        remedy = "Check weights and preprocessing; half precision may overflow: use `model.float()`."
        return False, found, remedy
    low, high = subject.layer_values.aminmax()
    return True, f"between {low.item():.3g} and {high.item():.3g}", ""


def responses_differ(subject: CheckContext) -> Found:
    varying = subject.varying
    count, units = int(varying.sum()), len(varying)
    if count == 0:
        found = f"none of {units} units responds differently to different images"
        remedy = (
            "Wrong preprocessing? A dead layer? A normalised map whose mean says nothing? Compare with the "
            "preprocessing of the training, or read another layer."
        )
        return False, found, remedy
    rest = f"; the same for all images: {_some((~varying).nonzero()[:, 0])}" if count < units else ""
    return True, f"{count} of {units} units{rest}", ""


def sign_survives(subject: CheckContext) -> Found:
    subject.layer_values  # noqa: B018  raises where there is nothing to look at
    _, averaged = subject.features(subject.images[:1])
    if averaged:
        return _one_sided(subject, "the layer averages rectified values")
    if subject.layer is None and _rectified_output(subject):
        return False, "the network ends in a nonlinearity", "Read layer='logits', the output before that."
    values, probes = subject.layer_values, _probes(subject.images)
    try:
        more = subject.features(probes)[0]
        values = torch.cat([values, more]) if more.shape[1:] == values.shape[1:] else values
    except Exception:  # images of the caller are enough where noise makes the network fail
        pass
    positions = values.transpose(0, 1).flatten(1)  # [unit, value]
    if (values >= 0).all() and (values.sum(dim=1) - 1).abs().max() < 1e-4 and values.shape[1] > 1:
        return _one_sided(subject, "the values are shares that sum to 1")
    live, below, above, floor = _sides(positions)
    if not live.any():
        raise Unreadable("all units are constant")
    single = live & ~(below & above)
    if single.sum() == live.sum() and (floor[single].any() or positions[live].numel() >= FEW):
        side = "below" if not below.any() else "above"
        return _one_sided(subject, f"no unit is ever {side} 0")
    rectified = single & floor & (positions.shape[1] >= FEW)
    if rectified.any():
        which = rectified.nonzero()[:, 0]
        return _one_sided(subject, f"{len(which)} of {len(live)} units stop at 0 ({_some(which)})")
    return True, f"both signs in {int((below & above).sum())} of {len(live)} units", ""


def _sides(positions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of each unit's values [unit, value]: do they differ, are some below and above 0, are many exactly 0."""
    low, high = positions.amin(dim=1), positions.amax(dim=1)
    floor = (positions == 0).double().mean(dim=1) >= FLOOR
    return low < high, low < 0, high > 0, floor


def _probes(images: Tensor) -> Tensor:
    """Negatives of images, and noise of the same spread."""
    noise = torch.randn(images[:4].shape, generator=torch.Generator().manual_seed(0))
    return torch.cat([-images[:4], noise.to(images) * images.std() + images.mean()])


def _rectified_output(subject: CheckContext) -> bool:
    with torch.no_grad():
        signed = feature_map(subject.model, "logits", subject.images)
    return not torch.allclose(signed, subject.layer_values, rtol=1e-4, atol=1e-6)


def _one_sided(subject: CheckContext, found: str) -> Found:
    before = _signed_before(subject)
    advice = f": {before!r} has both signs." if before else ", before its nonlinearity."
    return False, f"{found}, what lies beyond cannot be seen", f"Read the layer before{advice}"


def _signed_before(subject: CheckContext, tries: int = 12) -> str | None:
    """The nearest layer that returned before this one, runs once, and most of whose units have both signs."""
    calls, names = _calls(subject), list(subject.returned)
    if subject.layer not in (None, "logits"):
        name, _, call = subject.layer.partition(":")
        names = names[: [place for place, each in enumerate(names) if each == name][int(call or 0)]]
    for name in [name for name in reversed(names) if calls[name] == 1][:tries]:
        other = CheckContext(subject.model, name, subject.images)
        try:
            values, averaged = other.features(torch.cat([subject.images[:4], _probes(subject.images)]))
        except Exception:
            continue
        live, below, above, _ = _sides(values.transpose(0, 1).flatten(1))
        if not averaged and live.any() and 2 * (below & above).sum() >= live.sum():
            return name
    return None


def _some(numbers: Tensor) -> str:
    shown = ", ".join(str(number) for number in numbers[:4].tolist())
    return f"unit{'s' if len(numbers) > 1 else ''} {shown}" + (", ..." if len(numbers) > 4 else "")


CHECKS = {
    "weights finite": weights_finite,
    "eval mode": eval_mode,
    "takes these images": takes_images,
    "deterministic": deterministic,
    "alone as in a batch": alone_as_in_batch,
    "layer's shape": layer_shape,
    "layer runs once": runs_once,
    "gradients flow": gradients_flow,
    "responses finite": responses_finite,
    "responses differ": responses_differ,
    "sign survives": sign_survives,
}
