"""Signed attribution of a unit's response, on target and on non-target inputs.

The first of the paper's two extensions: attribute unit k on inputs that do *not* belong to k and read the
negative part. It marks what suppresses k, that is, whose absence k encodes. Everything here keeps the sign.
The methods are captum's; what is added makes them right for this use:

* captum's `Saliency` and its image plots take absolute values by default; neither is used.
* `DeepLift` needs every activation to be a module that is used once, out of place. torchvision's ResNets
  call one ReLU several times, others call `F.relu`, VGG and SqueezeNet work in place. Here each activation
  *call* of the forward pass is led through a module of its own, without touching or tracing the network
  (module `separate`).
* In captum 0.9 the rescale rule is lost where one hooked module feeds another directly, as a ReLU does a max
  pool (the first reads the gradient before the second has changed it), and the rule for max pooling drops
  contributions where windows overlap. Here every activation call gets its own copy of its input, and a
  maximum is written as a + relu(b - a), to which the rescale rule applies exactly.
* For GELU, SiLU and softmax captum has no usable rule and takes the plain gradient, so DeepLIFT on
  transformers and ConvNeXt is not complete; `completeness_gap` says by how much. Integrated gradients is
  complete there.
* All maps are scaled so that they sum to a change of the response, in the units of the layer: see
  `attribute`.
"""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Callable
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from captum.attr import DeepLift, InputXGradient, IntegratedGradients, LayerGradCam, NoiseTunnel, Occlusion
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

from absence_utils.errors import InputError
from absence_utils.images.base import normalisation_of
from absence_utils.units import Unit, channel_axis, find_layer

from .deeplift import ModularActivations

BASELINES = ("zero", "black", "blurred")


def baseline_images(unit: Unit, images: Tensor, baseline: str | Tensor = "zero") -> Tensor:
    """The inputs that stand for "nothing there".

    Args:
        images: [batch, channel, height, width], normalised.
        baseline: "zero", the mean colour where images are normalised by their mean; "black", pixels of 0
            before normalisation; "blurred", each image under a Gaussian with sd of a tenth of its longer
            side; or a tensor that broadcasts to the images, normalised like them.

    Returns:
        [batch, channel, height, width].

    Raises:
        InputError: unknown name, or a tensor that doesn't broadcast to the images.
    """
    if isinstance(baseline, Tensor):
        try:
            return baseline.detach().to(images).expand_as(images)
        except RuntimeError as error:
            shapes = f"shape {tuple(baseline.shape)} does not broadcast to {tuple(images.shape)}"
            raise InputError(
                "baseline", shapes, "Give [channel, height, width] or one for each image."
            ) from error
    if baseline == "zero":
        return torch.zeros_like(images)
    if baseline == "black":
        return normalisation_of(unit.model).apply(torch.zeros_like(images))
    if baseline == "blurred":
        sigma = max(images.shape[-2:]) / 10
        radius = [
            min(round(3 * sigma), edge - 1) for edge in images.shape[:-3:-1]
        ]  # width first, as torchvision
        return gaussian_blur(images, [2 * r + 1 for r in radius], [sigma, sigma])
    raise InputError("baseline", f"{baseline!r} is not known", f"Use {', '.join(BASELINES)} or a tensor.")


def attribute(
    unit: Unit,
    images: Tensor,
    method: str | Callable = "integrated_gradients",
    *,
    baseline: str | Tensor = "zero",
    batch_size: int = 32,
    **options,
) -> Tensor:
    """Signed attribution of a unit's response to pixels: positive is presence, negative absence evidence.

    Every map is in the units of the layer and scaled to sum to response(images) - response(baseline) where
    the method allows it: exactly for DeepLIFT on ReLU networks, up to the integration error for integrated
    gradients, for additive units for occlusion, for a linear head on averaged maps for Grad-CAM, to first
    order for the rest.

    - integrated_gradients (steps=32): straight path from the baseline, Gauss-Legendre quadrature.
    - input_x_gradient: (image - baseline) x gradient, one backward pass.
    - deeplift: rescale rule, see the top of this module.
    - smoothgrad (samples=16, noise=0.15, seed=0): input x gradient, averaged with its sign under Gaussian
      noise of sd `noise` x (max - min) of the image.
    - occlusion (window=None, stride=None): squares of `window` pixels, by default an eighth of the shorter
      side, half overlapping. The drop a window causes is spread evenly over its values (one cut off by the
      border counts as a full one).
    - gradcam (cam_layer=None): maps of `cam_layer`, weighted by their mean gradient and never clipped; enlarged
      bilinearly to the images with the sum kept, and spread evenly over the channel axis. The default is
      `last_spatial_layer`.

    Args:
        unit: whose response is explained.
        images: [batch, channel, height, width], normalised as the network expects.
        method: one of `METHODS`, or a function (unit, images, baseline, batch_size, **options) -> [batch,
            channel, height, width] of your own; it gets at most `batch_size` images and a baseline of their
            shape.
        baseline: see `baseline_images`. Grad-CAM has none; its reference is the layer at 0.
        batch_size: how many images (or steps, samples, windows) go through the network at a time.
        options: of the method, see above.

    Returns:
        [batch, channel, height, width], detached, on the device of the images. The network is left as found.

    Raises:
        InputError: unknown method, option or baseline; nothing to attribute to; see also `Unit`.

    Example:
        >>> from absence_utils import Unit, attribute, load_images, load_model
        >>> model = load_model("concept_scenes")
        >>> unit = Unit(model, layer="logits", channel=1)  # "not ring"
        >>> image, _ = load_images("concept_scenes", model, limit=1)[0]
        >>> signed = attribute(unit, image[None], steps=16)
        >>> signed.shape, bool((signed < 0).any())
        (torch.Size([1, 3, 64, 64]), True)
    """
    function = _method(method, options)
    if batch_size < 1:
        raise InputError("batch_size", f"{batch_size} images", "Give at least 1.")
    if not isinstance(images, Tensor) or images.ndim != 4 or len(images) == 0:
        raise InputError("images", "expected [batch, channel, height, width] with a batch of at least 1", "")
    parts = []
    with torch.inference_mode(False), torch.enable_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="captum")
        for part, reference in _chunks(unit, images, baseline, batch_size):
            parts.append(function(unit, part, reference, batch_size, **options).detach())
    return torch.cat(parts).to(images.device)


def _chunks(unit, images, baseline, batch_size):
    given = images.detach().clone().to(unit.device)
    reference = baseline_images(unit, given, baseline).clone()
    return zip(given.split(batch_size), reference.split(batch_size), strict=True)


def _method(method, options) -> Callable:
    if callable(method):
        return method
    if method not in _METHODS:
        near = difflib.get_close_matches(str(method), METHODS, n=1, cutoff=0.4) or METHODS
        raise InputError("method", f"{method!r} is not an attribution method", f"Use {', '.join(near)}.")
    known = list(inspect.signature(_METHODS[method]).parameters)[4:]
    for option in options:
        if option not in known:
            remedy = f"It has {', '.join(known)}." if known else "It has none."
            raise InputError(option, f"{method} has no such option", remedy)
    return _METHODS[method]


def _integrated_gradients(unit, images, baseline, batch_size, steps=32):
    _at_least("steps", steps, 1)
    return IntegratedGradients(unit.response).attribute(
        images, baselines=baseline, n_steps=steps, internal_batch_size=max(batch_size, len(images))
    )


def _input_x_gradient(unit, images, baseline, batch_size):
    # captum multiplies by the input; seen from the baseline, the input is the difference to it
    return InputXGradient(lambda change: unit.response(baseline + change)).attribute(images - baseline)


def _smoothgrad(unit, images, baseline, batch_size, samples=16, noise=0.15, seed=0):
    _at_least("samples", samples, 1)
    maps = []
    for image, reference in zip(images.split(1), baseline.split(1), strict=True):
        sd = noise * float(image.max() - image.min())
        tunnel = NoiseTunnel(InputXGradient(lambda change, start=reference: unit.response(start + change)))
        with (
            torch.random.fork_rng()
        ):  # captum draws from the global generator; each image gets the same draws
            torch.manual_seed(seed)
            maps.append(
                tunnel.attribute(
                    image - reference,
                    nt_type="smoothgrad",
                    nt_samples=samples,
                    nt_samples_batch_size=min(batch_size, samples),
                    stdevs=sd,
                )
            )
    return torch.cat(maps)


def _occlusion(unit, images, baseline, batch_size, window=None, stride=None):
    edge = min(images.shape[-2:])
    window = max(1, edge // 8) if window is None else window
    stride = max(1, window // 2) if stride is None else stride
    if not 1 <= window <= edge:
        raise InputError("window", f"{window} pixels for images of {edge}", f"Use 1 to {edge}.")
    if not 1 <= stride <= window:
        raise InputError(
            "stride", f"{stride} pixels leaves gaps between windows of {window}", f"Use 1 to {window}."
        )
    channels = images.shape[1]
    drop = Occlusion(unit.response).attribute(
        images,
        sliding_window_shapes=(channels, window, window),
        strides=(channels, stride, stride),
        baselines=baseline,
        perturbations_per_eval=max(1, batch_size // len(images)),
    )
    return drop.to(images.dtype) / (channels * window**2)


def _deeplift(unit, images, baseline, batch_size):
    return DeepLift(ModularActivations(unit, images[:1])).attribute(images, baselines=baseline, target=0)


def _gradcam(unit, images, baseline, batch_size, cam_layer=None):
    layer = cam_layer or last_spatial_layer(unit, images)
    module, call = find_layer(unit.model, layer)
    if call is not None or _inside(layer, unit.layer):
        why = "is one call of several" if call is not None else "belongs to the unit's own layer"
        raise InputError("cam_layer", f"{layer!r} {why}", "Give a layer before the unit that runs once.")
    probe = nn.Identity()
    expected = unit.response(images[:1]).detach()
    with _probed(module, probe, images):
        try:
            if not torch.allclose(unit.response(images[:1]), expected, rtol=1e-3, atol=1e-5):
                raise AssertionError  # the layer holds the rectification that the signed unit looks behind
            cells = LayerGradCam(unit.response, probe).attribute(images)
        except (AssertionError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "not have been used" not in str(error):
                raise
            raise InputError(
                "cam_layer",
                f"the unit {unit.name} does not read {layer!r}",
                "Give a layer that runs before it.",
            ) from error
    return _enlarge(cells, images.shape[-2:]).expand_as(images) / images.shape[1]


def _enlarge(cells: Tensor, size) -> Tensor:
    """Bilinear enlargement of [batch, 1, h, w] that keeps the sum of every map."""
    weight = torch.ones_like(cells, requires_grad=True)
    (weight,) = torch.autograd.grad(F.interpolate(weight, size, mode="bilinear").sum(), weight)
    return F.interpolate(cells / weight, size, mode="bilinear")


@contextmanager
def _probed(module: nn.Module, probe: nn.Module, images: Tensor):
    """Lead the layer's output through `probe` as maps [batch, channel, height, width], see `_as_maps`."""

    def hook(layer, _inputs, output):
        values, *rest = output if isinstance(output, tuple) else (output,)
        found = _as_maps(layer, values, images)
        if found is None:
            shape = tuple(values.shape)
            raise InputError(
                "cam_layer", f"its output {shape} has no space", "Give a layer of maps or of tokens."
            )
        maps, back = found
        values = back(probe(maps).clone())  # as captum's hook does, also when it is not there yet
        return (values, *rest) if isinstance(output, tuple) else values

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _as_maps(layer: nn.Module, values, images: Tensor):
    """A layer's output as maps [batch, channel, height, width] with the way back, or None if it has no space.

    Tokens are laid out row by row in the proportions of the image; a class token in front is left as it is.
    """
    if not isinstance(values, Tensor) or values.ndim not in (3, 4):
        return None
    if values.ndim == 4:
        axis = channel_axis(layer, values, images)
        maps = values.movedim(axis, 1)
        return (maps, lambda changed: changed.movedim(1, axis)) if maps[0, 0].numel() > 1 else None
    for extra in (0, 1):
        count = values.shape[1] - extra
        height = round((count * images.shape[-2] / images.shape[-1]) ** 0.5)
        if count > 1 and height and count % height == 0:
            maps = values[:, extra:].unflatten(1, (height, count // height)).movedim(-1, 1)
            front = values[:, :extra]
            return maps, lambda changed, front=front: torch.cat(
                [front, changed.movedim(1, -1).flatten(1, 2)], dim=1
            )
    return None


def last_spatial_layer(unit: Unit, images: Tensor) -> str:
    """The last layer before the unit that still has space: where Grad-CAM looks by default.

    The response must depend on more than one of its channels and places. This rules out maps of the classes
    (SqueezeNet's last convolution) and, in a vision transformer, all that follows the last attention, from
    which only the class token is read.

    Raises:
        InputError: no such layer, as for a unit of the first layer.
    """
    ran, counts = [], {}

    def note(name):
        def hook(module, _inputs, output):
            counts[name] = counts.get(name, 0) + 1
            ran.append((name, module, output[0] if isinstance(output, tuple) else output))

        return hook

    handles = [
        module.register_forward_hook(note(name))
        for name, module in unit.model.named_modules()
        if name and not _inside(name, unit.layer) and not isinstance(module, nn.Dropout)
    ]
    try:
        images = images.detach().clone().requires_grad_()
        response = unit.response(images).sum()
    finally:
        for handle in handles:
            handle.remove()
    spatial = [
        item for item in reversed(ran) if counts[item[0]] == 1 and _as_maps(*item[1:], images) is not None
    ]
    for name, module, values in spatial:
        if _has_reach(response, module, values, images):
            return name
    if spatial and not torch.autograd.grad(response, images)[0].any():
        return spatial[0][0]  # a dead unit: every layer gives the same answer, a map of zeros
    raise InputError(
        "cam_layer",
        f"no layer before {unit.name} has space",
        "Choose a later unit, or another method than 'gradcam'.",
    )


def _inside(name: str, layer: str | None) -> bool:
    return layer is not None and f"{name}.".startswith(f"{layer.partition(':')[0]}.")


def _has_reach(response: Tensor, module: nn.Module, values, images: Tensor) -> bool:
    if not values.requires_grad:
        return False
    (gradient,) = torch.autograd.grad(response, values, retain_graph=True, allow_unused=True)
    if gradient is None:
        return False
    used = (_as_maps(module, gradient, images)[0] != 0).any(dim=0)
    return int(used.any(dim=(1, 2)).sum()) > 1 and int(used.any(dim=0).sum()) > 1


def _at_least(parameter: str, value: int, smallest: int) -> None:
    if value < smallest:
        raise InputError(parameter, f"{value}", f"Give at least {smallest}.")


_METHODS = {
    "integrated_gradients": _integrated_gradients,
    "input_x_gradient": _input_x_gradient,
    "deeplift": _deeplift,
    "smoothgrad": _smoothgrad,
    "occlusion": _occlusion,
    "gradcam": _gradcam,
}
METHODS = tuple(_METHODS)


def completeness_gap(
    unit: Unit,
    images: Tensor,
    attribution: Tensor,
    *,
    baseline: str | Tensor = "zero",
    batch_size: int = 32,
    relative: bool = False,
) -> Tensor:
    """What an attribution adds to, or misses of, the change it explains.

    Args:
        attribution: [batch, channel, height, width] of these images, against this baseline.
        relative: divide by |response(images) - response(baseline)|; infinite where that is 0.

    Returns:
        [batch] signed: sum of the attribution - (response(images) - response(baseline)), in the units of the
        layer.
    """
    change = []
    with torch.no_grad():
        for part, reference in _chunks(unit, images, baseline, batch_size):
            change.append(unit.response(part) - unit.response(reference))
    change = torch.cat(change).to(attribution)
    gap = attribution.sum(dim=(1, 2, 3)) - change
    return gap / change.abs() if relative else gap
