"""Checks of a network: weights, mode, hooks, passes, gradients."""

from __future__ import annotations

import inspect
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from absence_utils.models.wrappers import CHECKPOINTED, runs_reentrant_checkpoint
from absence_utils.units import feature_map, first_tensor, pool_space, reading, to_network

from .checks import CheckContext, Found, Unreadable, reason, some

SAME = 1e-6  # of the largest value: two passes of the same input
ALIKE = 1e-3  # of the largest value: alone and in a batch, where other kernels may run
SAMPLED = 16  # units whose gradients are looked at, evenly spread over the layer
HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


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


def hooks(subject: CheckContext) -> Found:
    """Hooks that were there before: those on the way back change maps and no value, which nothing else shows."""
    hooked = [
        name for name, module in subject.model.named_modules() if any(getattr(module, kind) for kind in HOOKS)
    ]
    if not hooked:
        return True, "none", ""
    where = f"hooks on {len(hooked)} module{'s' if len(hooked) > 1 else ''} (first {hooked[0]!r})"
    remedy = "Take them off (`handle.remove()`, with the handle that registering returned), or build the network anew."
    try:
        values, gradient = _values_and_gradient(subject)
        with _without_hooks(subject.model):
            plain, plain_gradient = _values_and_gradient(subject)
    except Exception:  # other checks say why it cannot be read
        return True, f"{where}, whose effect cannot be measured", remedy
    if _distance(values, plain) > SAME:
        return True, f"{where}, which change its values: it is read as it is with them", remedy
    change = ((gradient - plain_gradient).norm() / plain_gradient.norm().clamp(min=1e-30)).item()
    if change > ALIKE:
        return False, f"{where}, which change the gradient by {100 * change:.0f}% of its length", remedy
    return True, f"{where}, which change nothing", ""


def _values_and_gradient(subject: CheckContext) -> tuple[Tensor, Tensor]:
    """Responses of the layer to two images, and the gradient of their squares."""
    images = subject.images[:2].clone().requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = pool_space(feature_map(subject.model, subject.layer, images * 1))
    (gradient,) = torch.autograd.grad(values.float().square().sum(), images)
    return values.detach(), gradient


@contextmanager
def _without_hooks(model: nn.Module) -> Iterator[None]:
    kept = [(module, kind, getattr(module, kind)) for module in model.modules() for kind in HOOKS]
    try:
        for module, kind, _ in kept:
            setattr(module, kind, OrderedDict())
        yield
    finally:
        for module, kind, found in kept:
            setattr(module, kind, found)


def takes_images(subject: CheckContext) -> Found:
    shape, outcome = " x ".join(map(str, subject.images.shape[1:])), subject.first_pass
    if isinstance(outcome, Exception):
        inputs = _required_inputs(subject.model)
        if len(inputs) > 1:
            remedy = "Wrap it in a module whose forward(images) passes on the others as constants."
            return False, f"the network takes several inputs ({', '.join(inputs)})", remedy
        return False, f"a pass of {shape} fails ({reason(outcome)})", _remedy(str(outcome))
    if subject.overwrites:
        found = f"a pass of {shape} overwrites the images it is given"
        return False, found, "Begin the forward pass out of place: `x = x - mean` and not `x -= mean`."
    precision = to_network(subject.model, subject.images[:1]).dtype
    if torch.finfo(precision).bits < 32:
        found = f"{shape}, in {str(precision).removeprefix('torch.')}"
        return (
            True,
            found,
            "Responses are rounded to 2 or 3 digits: `model.float()` is finer, and faster on most CPUs.",
        )
    return True, shape, ""


def _required_inputs(model: nn.Module) -> list[str]:
    """Names of the inputs that a forward pass cannot do without."""
    try:
        inputs = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    free = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [one.name for one in inputs if one.default is one.empty and one.kind not in free]


def _remedy(message: str) -> str:
    """What to do about a pass that failed with this message of PyTorch's."""
    message = message.lower()
    if any(word in message for word in ("dtype", "scalar type", "bias type", "weight type")):
        return "Its parts have several precisions: `model.float()`, and cast nothing in the forward pass."
    if "device" in message:
        return "Its parts lie on several devices: bring all on one device, tensors that are not registered as well."
    sizes = (
        "shape",
        "size",
        "channel",
        "height",
        "width",
        "dimension",
        "must match",
        "expected input",
        "broadcast",
    )
    if any(word in message for word in sizes) and "too many indices" not in message:
        return "Give images with the channels and the size that the network was made for."
    return "Make `model(images)` run by itself first: it is called with a batch of images alone, and nothing else."


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
    step = torch.finfo(to_network(subject.model, subject.images[:1]).dtype).eps
    if not largest <= max(ALIKE, 4 * step):
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
    if _reentrant(subject):
        return False, *CHECKPOINTED
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
        found = f"{len(cut)} of {len(units)} units have none, but their responses differ ({some(cut)})"
        return False, found, remedy
    return True, f"from {int((~silent).sum())} of {len(units)} units", ""


def _reentrant(subject: CheckContext) -> bool:
    """Whether a pass goes through reentrant checkpointing."""
    images = to_network(subject.model, subject.images[:1]).clone().requires_grad_()
    try:
        with reading(subject.model):
            return runs_reentrant_checkpoint(first_tensor(subject.model(images * 1)))
    except Exception:  # another check says why it fails
        return False


NETWORK_CHECKS = {
    "weights finite": weights_finite,
    "eval mode": eval_mode,
    "hooks": hooks,
    "takes these images": takes_images,
    "deterministic": deterministic,
    "alone as in a batch": alone_as_in_batch,
    "gradients flow": gradients_flow,
}
