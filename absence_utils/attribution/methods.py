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
from captum.attr import DeepLift, InputXGradient, IntegratedGradients, NoiseTunnel, Occlusion
from torch import Tensor

from absence_utils.errors import InputError, require_at_least, require_choice, require_shape
from absence_utils.models.wrappers import checkpointing_named
from absence_utils.units import Unit

from .baselines import with_baselines
from .completeness import completeness_gap, warn_of_gaps
from .deeplift import ModularActivations
from .gradcam import gradcam
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
      needs for a completeness gap of at most 1%, 32 to 512 (see `path_integral`). A number is a Gauss-Legendre rule
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
        CompletenessWarning: a gap beyond 1% where the method promises none: DeepLIFT, and integrated gradients with
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
    with torch.inference_mode(False), torch.enable_grad(), warnings.catch_warnings(), checkpointing_named():
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


_METHODS = {
    "integrated_gradients": _integrated_gradients,
    "input_x_gradient": _input_x_gradient,
    "deeplift": _deeplift,
    "smoothgrad": _smoothgrad,
    "occlusion": _occlusion,
    "gradcam": gradcam,
}
METHODS = tuple(_METHODS)
