"""Lucent objectives for presence, absence and suppression, on true pre-nonlinearity values of any network.

Lucent reads layers with forward hooks that keep a layer's output by reference. In torchvision's networks an
in-place ReLU or a residual `+=` then overwrites it, negative values are gone, and minimising is dead (the
hook on SqueezeNet's `features.12.expand3x3` never sees less than 0). Here lucent is shown another module,
`Readings`: its children are identities through which the signed values of `units.feature_map` pass. Lucent's
hooks find these children and nothing else, so all of its objectives and their algebra work on the signed
values of convolutions, transformers and logits alike, and the hooks are gone when the `Readings` are.

Sign convention: lucent *minimises* an objective. `presence` is therefore the negative response, `absence` the
response itself, and they sum to zero. One of lucent's own points the other way: `diversity` is the negative
similarity, so it is subtracted to make a batch of images differ (`apart` below does that).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from absence_utils.errors import InputError
from absence_utils.images.base import normalisation_of
from absence_utils.units import Unit, feature_map, pool_space

from ._lucent import objectives as lucent

Objective = lucent.Objective

_TAKEN = ("input", "labels")  # names that lucent keeps for the image and for the last layer


class Readings(nn.Module):
    """A network as lucent shall see it: one identity child for each layer that is read, and no other
    children.

    `Readings(model, reading="features.12")` offers `lucent.channel("reading", 3)`,
    `lucent.direction("reading", v)`, `lucent.diversity("reading")` and so on. Each layer costs a forward pass
    up to it.

    Args:
        model: the network; it is not registered as a child, so lucent hooks none of its layers.
        layers: name of the child -> layer to read, as for `feature_map` (None: the model's output).
    """

    def __init__(self, model: nn.Module, **layers: str | None):
        super().__init__()
        for name in _TAKEN:
            if name in layers:
                raise InputError(name, "lucent has another meaning for this name", "Choose another name.")
        self._network, self._layers = (model,), layers
        for name in layers:
            self.add_module(name, nn.Identity())

    def forward(self, pixels: Tensor) -> None:
        """Lead the signed values of every layer through its child, as [batch, channel, height, width].

        Tokens become [batch, channel, 1, token] and vectors [batch, channel, 1, 1], because lucent's
        objectives take four axes.

        Args:
            pixels: [batch, channel, height, width] in 0..1, on any device: they are normalised as the network
                expects and moved to where it is (lucent makes images on the first GPU if there is one,
                wherever the model is).
        """
        (model,) = self._network
        images = normalisation_of(model).apply(pixels)
        for name, layer in self._layers.items():
            features = feature_map(model, layer, images)
            while features.ndim < 4:
                features = features.unsqueeze(2)
            self.get_submodule(name)(features)


def response_in(features: Tensor, unit: Unit) -> Tensor:
    """The unit's response [batch] from what its `Readings` child holds [batch, channel, height, width]."""
    return unit.of(pool_space(features.flatten(2), unit.pool))


def absence(unit: Unit, reading: str = "reading") -> Objective:
    """The unit's response, mean over the batch: minimising it shows what the unit encodes by absence.

    Args:
        unit: channel, logit or direction. A direction counts by its dot product, in the units of the layer,
            and not by lucent's cosine.
        reading: name of the `Readings` child that holds the unit's layer.
    """
    return Objective(
        lambda layer: response_in(layer(reading), unit).mean(), "absence", f"Absence [{unit.name}]"
    )


def presence(unit: Unit, reading: str = "reading") -> Objective:
    """The negative response, mean over the batch: minimising it shows what the unit encodes by presence."""
    negative = -absence(unit, reading)
    return Objective(negative.objective_func, "presence", f"Presence [{unit.name}]")


def apart(strength: float, reading: str = "reading") -> Objective:
    """Makes the images of a batch differ: lucent's similarity of Gram matrices, in units of the layer's
    values.

    Responses are a few units in one network and thousands in another. The similarity (0..1 and above, for
    more than two images) is therefore multiplied by the mean magnitude of the values in `reading`, so that
    one `strength` suits all. It comes without a gradient through that magnitude.
    """

    def similarity(layer):
        values = layer(reading)
        return -strength * values.detach().abs().mean() * lucent.diversity(reading)(layer)

    return Objective(similarity, "apart", f"Apart [{reading}]")


def smooth(strength: float, reading: str = "reading") -> Objective:
    """Keeps neighbouring pixels alike: mean |difference| of neighbours of the image, in units of the layer's
    values.

    The total variation of Mahendran & Vedaldi (arXiv 1412.0035), scaled by the mean magnitude of the values
    in `reading` as in `apart`. Without it a network of low resolution is driven by fine gratings that no
    image has.
    """

    def roughness(layer):
        image, scale = layer("input"), layer(reading).detach().abs().mean()
        rough = image.diff(dim=-1).abs().mean() + image.diff(dim=-2).abs().mean()
        return strength * scale * rough.to(scale.device)

    return Objective(roughness, "smooth", f"Smooth [{reading}]")


def suppression(
    unit: Unit,
    pixels: Tensor,
    *,
    target: float = 0.0,
    penalty: float = 10.0,
    start: float | None = None,
    reading: str = "reading",
) -> Objective:
    """Bring the response down to `target` while changing the image as little as possible.

    The loss is max(response - target, 0) / (start - target) + penalty * mean |image - pixels|. It has no
    unit: it begins at 1, and the first term is 0 once the response has reached the target, so that only the
    change shrinks.

    Args:
        unit: the unit to switch off.
        pixels: [channel, height, width] or a batch, in 0..1: the image from which the change is measured.
        target: response that counts as off, in the units of the layer.
        penalty: weight of the mean change of the pixels, whose range is 0..1.
        start: response of `pixels`, which sets the scale; read from them if None.
        reading: name of the `Readings` child that holds the unit's layer.

    Raises:
        InputError: `pixels` are already at or below the target.
    """
    if start is None:
        batch = pixels if pixels.ndim == 4 else pixels[None]
        with torch.no_grad():
            start = unit.response(normalisation_of(unit.model).apply(batch)).mean().item()
    if not start > target:
        problem = f"its response {start:.4g} is not above the target {target:.4g}"
        raise InputError("image", problem, "Choose an image that activates the unit, or a lower target.")

    def loss(layer):
        response = response_in(layer(reading), unit)
        image = layer("input")
        changed = (image - pixels.to(image.device)).abs().mean()
        return (response - target).clamp(min=0).mean() / (start - target) + penalty * changed.to(
            response.device
        )

    return Objective(loss, "suppression", f"Suppression [{unit.name}]")
