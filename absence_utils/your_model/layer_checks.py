"""Checks of a layer: its shape, how often it runs, what its units respond."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from absence_utils.errors import InputError
from absence_utils.units import feature_map, find_layer, layout_of

from .checks import CheckContext, Found, Unreadable, reason, some

FEW = 64  # values from which on it is no accident that none is below zero
FLOOR = 0.01  # share of values at exactly 0 from which on 0 is a floor


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
    taken = layout_of(subject.model, subject.layer, subject.images).taken
    which = f", from {taken} of several outputs" if taken else ""
    return True, f"{values.shape[1]} units, {space} positions{which}", ""


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
    rest = f"; the same for all images: {some((~varying).nonzero()[:, 0])}" if count < units else ""
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
        return _one_sided(subject, f"{len(which)} of {len(live)} units stop at 0 ({some(which)})")
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


LAYER_CHECKS = {
    "layer's shape": layer_shape,
    "layer runs once": runs_once,
    "responses finite": responses_finite,
    "responses differ": responses_differ,
    "sign survives": sign_survives,
}
