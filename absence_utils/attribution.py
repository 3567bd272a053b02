"""Signed attribution of a unit's response, on target and on non-target inputs.

The first of the paper's two extensions: attribute unit k on inputs that do *not* belong to k and read the negative
part. It marks what suppresses k, that is, whose absence k encodes. Everything here keeps the sign. The methods are
captum's; what is added makes them right for this use:

* captum's `Saliency` and its image plots take absolute values by default; neither is used.
* `DeepLift` needs every activation to be a module that is used once, out of place. torchvision's ResNets call one
  ReLU several times, others call `F.relu`, VGG and SqueezeNet work in place. Here each activation *call* of the
  forward pass is led through a module of its own, without touching or tracing the network (`_SeparateActivations`).
* captum's rule for max pooling gives a wrong sum where windows overlap (it writes contributions with an un-pooling
  that overwrites instead of adding) and, where input and baseline agree, borrows the gradient of the first image of
  the batch. Here a maximum is written as a + relu(b - a), to which the rescale rule applies exactly.
* For GELU, SiLU and softmax captum has no usable rule and takes the plain gradient, so DeepLIFT on transformers and
  ConvNeXt is not complete; `completeness_gap` says by how much. Integrated gradients is complete there.
* All maps are scaled so that they sum to a change of the response, in the units of the layer: see `attribute`.
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
from torch.overrides import TorchFunctionMode
from torchvision.transforms.functional import gaussian_blur

from .errors import InputError
from .images import normalisation_of
from .units import Unit, _channel_axis, _first_tensor, find_layer, reading

BASELINES = ("zero", "black", "blurred")


def baseline_images(unit: Unit, images: Tensor, baseline: str | Tensor = "zero") -> Tensor:
    """The inputs that stand for "nothing there".

    Args:
        images: [batch, channel, height, width], normalised.
        baseline: "zero", the mean colour where images are normalised by their mean; "black", pixels of 0 before
            normalisation; "blurred", each image under a Gaussian with sd of a tenth of its longer side; or a tensor
            that broadcasts to the images, normalised like them.

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
            raise InputError("baseline", shapes, "Give [channel, height, width] or one for each image.") from error
    if baseline == "zero":
        return torch.zeros_like(images)
    if baseline == "black":
        return normalisation_of(unit.model).apply(torch.zeros_like(images))
    if baseline == "blurred":
        sigma = max(images.shape[-2:]) / 10
        radius = [min(round(3 * sigma), edge - 1) for edge in images.shape[:-3:-1]]  # width first, as torchvision
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
    """Signed attribution of the unit's response to the pixels: positive = presence, negative = absence evidence.

    Every map is in the units of the layer and scaled to sum to response(images) - response(baseline) where the
    method allows it: exactly for DeepLIFT on ReLU networks, up to the integration error for integrated gradients, for
    additive units for occlusion, for a linear head on averaged maps for Grad-CAM, to first order for the rest.

    | method | options | note |
    |---|---|---|
    | integrated_gradients | steps=32 | straight path, Gauss-Legendre |
    | input_x_gradient | | (image - baseline) x gradient: one backward pass |
    | deeplift | | rescale rule |
    | smoothgrad | samples=16, noise=0.15, seed=0 | input x gradient, averaged under Gaussian noise with sd `noise` x (max - min) of the image; signed |
    | occlusion | window=None, stride=None | squares, by default an eighth of the shorter side, half overlapping; the drop caused by a window is spread evenly over its values (a window cut off by the border counts as a full one) |
    | gradcam | cam_layer=None | never clipped; channels weighted by their mean gradient, enlarged bilinearly to the images with its sum kept, and spread evenly over the channel axis; by default at the last layer before the unit that still has space |

    Args:
        unit: whose response is explained.
        images: [batch, channel, height, width], normalised as the network expects.
        method: one of `METHODS`, or a function (unit, images, baseline, batch_size, **options) -> [batch, channel,
            height, width] of your own; it gets at most `batch_size` images and a baseline of their shape.
        baseline: see `baseline_images`. Grad-CAM has none; its reference is the layer at 0.
        batch_size: how many images (or steps, samples, windows) go through the network at a time.
        options: of the method, see the table.

    Returns:
        [batch, channel, height, width], detached, on the device of the images. The network is left as found.

    Raises:
        InputError: unknown method, option or baseline; nothing to attribute to; see also `Unit`.
    """  # noqa: E501 (table)
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
        with torch.random.fork_rng():  # captum draws from the global generator; each image gets the same draws
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
        raise InputError("stride", f"{stride} pixels leaves gaps between windows of {window}", f"Use 1 to {window}.")
    channels = images.shape[1]
    drop = Occlusion(unit.response).attribute(
        images,
        sliding_window_shapes=(channels, window, window),
        strides=(channels, stride, stride),
        baselines=baseline,
        perturbations_per_eval=max(1, batch_size // len(images)),
    )
    return drop.to(images.dtype) / (channels * window**2)


def _at_least(parameter: str, value: int, smallest: int) -> None:
    if value < smallest:
        raise InputError(parameter, f"{value}", f"Give at least {smallest}.")


_METHODS = {
    "integrated_gradients": _integrated_gradients,
    "input_x_gradient": _input_x_gradient,
    "smoothgrad": _smoothgrad,
    "occlusion": _occlusion,
}
METHODS = tuple(_METHODS)


def absence_evidence(attribution: Tensor) -> Tensor:
    """Absence evidence: the negative part of [batch, channel, height, width], summed over channels, >= 0.

    Clipped channel by channel, then summed (design section 8): what one colour channel adds does not hide what
    another takes away. `presence_evidence` - `absence_evidence` is the signed map summed over channels.

    Returns:
        [batch, height, width], in the units of the layer.
    """
    return attribution.clamp(max=0).neg().sum(dim=1)


def presence_evidence(attribution: Tensor) -> Tensor:
    """Presence evidence: the positive part, clipped channel by channel, then summed over them: [batch, h, w] >= 0."""
    return attribution.clamp(min=0).sum(dim=1)


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
        [batch] signed: sum of the attribution - (response(images) - response(baseline)), in the units of the layer.
    """
    change = []
    with torch.no_grad():
        for part, reference in _chunks(unit, images, baseline, batch_size):
            change.append(unit.response(part) - unit.response(reference))
    change = torch.cat(change).to(attribution)
    gap = attribution.sum(dim=(1, 2, 3)) - change
    return gap / change.abs() if relative else gap
