"""Signed attribution of a unit's response, on target and on non-target inputs.

The first of the paper's two extensions: attribute unit k on inputs that do *not* belong to k and read the
negative part. It marks what suppresses k, that is, whose absence k encodes. Everything here keeps the sign.
Most methods are captum's; what is added makes them right for this use:

* captum's `Saliency` and its image plots take absolute values by default; neither is used.
* `DeepLift` needs every activation to be a module that is used once, out of place. torchvision's ResNets
  call one ReLU several times, others call `F.relu`, VGG and SqueezeNet work in place. Here each activation
  *call* of the forward pass is led through a module of its own, without touching or tracing the network
  (module `deeplift`).
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

import inspect
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from captum.attr import DeepLift, InputXGradient, IntegratedGradients, NoiseTunnel, Occlusion
from torch import Tensor, nn

from absence_utils.errors import InputError, require_at_least, require_choice, require_shape
from absence_utils.units import Unit, channel_axis, find_layer

from .baselines import with_baselines
from .completeness import completeness_gap, warn_of_gaps
from .deeplift import ModularActivations
from .gradients import input_x_gradient
from .path_integral import integrate_path

# Methods that promise maps which add up, and what to do where they don't.
_COMPLETE = {
    "integrated_gradients": "Give a number of `steps`, 1024 or more, or read the map as a rough one.",
    "deeplift": "It has no rule for some operation of this network: use 'integrated_gradients'.",
}


def attribute(
    unit: Unit,
    images: Tensor,
    method: str | Callable = "integrated_gradients",
    *,
    baseline: str | Tensor = "zero",
    batch_size: int = 32,
    return_gap: bool = False,
    **options,
) -> Tensor | tuple[Tensor, Tensor]:
    """Signed attribution of a unit's response to pixels: positive is presence, negative absence evidence.

    Every map is in the units of the layer and scaled to sum to response(images) - response(baseline) where
    the method allows it: exactly for DeepLIFT on ReLU networks, up to the integration error for integrated
    gradients, for additive units for occlusion, for a linear head on averaged maps for Grad-CAM, to first
    order for the rest.

    - integrated_gradients (steps="auto"): straight path from the baseline. "auto" takes as many points as each image
      needs for a completeness gap of at most 1 %, 32 to 512 (see `path_integral`). A number is a Gauss-Legendre rule
      of that many, and promises no gap.
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
        return_gap: also return what each map adds to, or misses of, the change that it explains, see
            `completeness.relative_gap`.
        options: of the method, see above.

    Returns:
        [batch, channel, height, width], detached, on the device of the images. The network is left as found. With
        `return_gap` this and [batch], the relative completeness gap.

    Warns:
        CompletenessWarning: a gap beyond 1 % where the method promises none: DeepLIFT, and integrated gradients with
        steps="auto".

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
    require_at_least("batch_size", batch_size, 1)
    require_shape("images", images, "batch", "channel", "height", "width")
    require_at_least("images", len(images), 1)
    parts = []
    with torch.inference_mode(False), torch.enable_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="captum")
        for part, reference in with_baselines(unit, images, baseline, batch_size):
            parts.append(function(unit, part, reference, batch_size, **options).detach())
    signed = torch.cat(parts).to(images.device)
    promised = isinstance(method, str) and method in _COMPLETE and options.get("steps", "auto") == "auto"
    if not (promised or return_gap):
        return signed
    gap = completeness_gap(unit, images, signed, baseline=baseline, batch_size=batch_size, relative=True)
    if promised:
        warn_of_gaps(unit, gap, method, _COMPLETE[method], stacklevel=2)
    return (signed, gap) if return_gap else signed


def _method(method, options) -> Callable:
    if callable(method):
        return method
    require_choice("method", method, METHODS)
    known = list(inspect.signature(_METHODS[method]).parameters)[4:]
    for option in options:
        if option not in known:
            remedy = f"It has {', '.join(known)}." if known else "It has none."
            raise InputError(option, f"{method} has no such option", remedy)
    return _METHODS[method]


def _integrated_gradients(unit, images, baseline, batch_size, steps="auto"):
    if steps == "auto":
        return integrate_path(unit, images, baseline, batch_size)
    if isinstance(steps, str):
        require_choice("steps", steps, ["auto"])
    require_at_least("steps", steps, 1)
    return IntegratedGradients(unit.response).attribute(
        images, baselines=baseline, n_steps=steps, internal_batch_size=max(batch_size, len(images))
    )


def _input_x_gradient(unit, images, baseline, batch_size):
    change = (images - baseline).requires_grad_()
    return input_x_gradient(unit.response(baseline + change)[:, None], change, 0)


def _smoothgrad(unit, images, baseline, batch_size, samples=16, noise=0.15, seed=0):
    require_at_least("samples", samples, 1)
    maps = []
    for image, reference in zip(images.split(1), baseline.split(1), strict=True):
        sd = noise * float(image.max() - image.min())
        tunnel = NoiseTunnel(InputXGradient(lambda change, start=reference: unit.response(start + change)))
        batches = {"nt_samples": samples, "nt_samples_batch_size": min(batch_size, samples)}
        with torch.random.fork_rng():
            torch.manual_seed(seed)  # captum draws from the global generator; each image gets the same draws
            maps.append(tunnel.attribute(image - reference, nt_type="smoothgrad", stdevs=sd, **batches))
    return torch.cat(maps)


def _occlusion(unit, images, baseline, batch_size, window=None, stride=None):
    edge = min(images.shape[-2:])
    window = max(1, edge // 8) if window is None else window
    stride = max(1, window // 2) if stride is None else stride
    if not 1 <= window <= edge:
        raise InputError("window", f"{window} pixels for images of {edge}", f"Use 1 to {edge}.")
    if not 1 <= stride <= window:
        problem = f"{stride} pixels leaves gaps between windows of {window}"
        raise InputError("stride", problem, f"Use 1 to {window}.")
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
    kept, expected = [], unit.response(images[:1]).detach()

    def keep(_module, _inputs, output):
        values, *rest = output if isinstance(output, tuple) else (output,)
        if isinstance(values, Tensor):
            kept.append(values.detach().clone().requires_grad_())
            values = kept[-1].clone()  # what follows may work in place
        return (values, *rest) if isinstance(output, tuple) else values

    handle, gradient = module.register_forward_hook(keep), None
    try:
        response = unit.response(images)
    finally:
        handle.remove()
    # Another response: the layer holds the rectification that the signed unit looks behind.
    same = torch.allclose(response[:1], expected, rtol=1e-3, atol=1e-5)
    if len(kept) == 1 and same and response.requires_grad:
        (gradient,) = torch.autograd.grad(response.sum(), kept, allow_unused=True)
    if gradient is None:
        problem = f"the unit {unit.name} does not read {layer!r}"
        raise InputError("cam_layer", problem, "Give a layer that runs before it, once.")
    maps, slopes = (_as_maps(module, values, images) for values in (kept[0].detach(), gradient))
    if maps is None:
        problem = f"its output {tuple(gradient.shape)} has no space"
        raise InputError("cam_layer", problem, "Give a layer of maps or of tokens.")
    cells = (slopes.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1, keepdim=True)
    return _enlarge(cells, images.shape[-2:]).expand_as(images) / images.shape[1]


def _enlarge(cells: Tensor, size) -> Tensor:
    """Bilinear enlargement of [batch, 1, h, w] that keeps the sum of every map."""
    weight = torch.ones_like(cells, requires_grad=True)
    (weight,) = torch.autograd.grad(F.interpolate(weight, size, mode="bilinear").sum(), weight)
    return F.interpolate(cells / weight, size, mode="bilinear")


def _as_maps(layer: nn.Module, values, images: Tensor) -> Tensor | None:
    """A layer's output as maps [batch, channel, height, width], None if it has no space.

    Tokens are laid out row by row in the proportions of the image; a class token in front is left out.
    """
    if not isinstance(values, Tensor) or values.ndim not in (3, 4):
        return None
    if values.ndim == 4:
        maps = values.movedim(channel_axis(layer, values, images), 1)
        return maps if maps[0, 0].numel() > 1 else None
    for extra in (0, 1):
        count = values.shape[1] - extra
        height = round((count * images.shape[-2] / images.shape[-1]) ** 0.5)
        if count > 1 and height and count % height == 0:
            return values[:, extra:].unflatten(1, (height, count // height)).movedim(-1, 1)
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
    problem = f"no layer before {unit.name} has space"
    raise InputError("cam_layer", problem, "Choose a later unit, or another method than 'gradcam'.")


def _inside(name: str, layer: str | None) -> bool:
    return layer is not None and f"{name}.".startswith(f"{layer.partition(':')[0]}.")


def _has_reach(response: Tensor, module: nn.Module, values, images: Tensor) -> bool:
    if not values.requires_grad:
        return False
    (gradient,) = torch.autograd.grad(response, values, retain_graph=True, allow_unused=True)
    if gradient is None:
        return False
    used = (_as_maps(module, gradient, images) != 0).any(dim=0)
    return int(used.any(dim=(1, 2)).sum()) > 1 and int(used.any(dim=0).sum()) > 1


_METHODS = {
    "integrated_gradients": _integrated_gradients,
    "input_x_gradient": _input_x_gradient,
    "deeplift": _deeplift,
    "smoothgrad": _smoothgrad,
    "occlusion": _occlusion,
    "gradcam": _gradcam,
}
METHODS = tuple(_METHODS)
