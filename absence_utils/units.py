"""Address a unit and read its signed response.

The response of a unit is its signed, pre-nonlinearity value pooled over space. Reading it correctly is the heart of
this package, because an encoded absence lives below zero, where a rectifier hides it: see `layers`.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from absence_utils.errors import InputError, require_choice
from absence_utils.layers.network import (
    device_of,
    find_layer,
    first_tensor,
    layer_names,
    reading,
    to_network,
)
from absence_utils.layers.reading import OUTPUTS, feature_map, layout_of
from absence_utils.progress import progress

__all__ = [
    "Unit",
    "class_of_output",
    "dataset_readings",
    "dataset_responses",
    "device_of",
    "feature_map",
    "find_layer",
    "first_tensor",
    "full_name",
    "hand_on",
    "image_batches",
    "layer_names",
    "layout_of",
    "pool_space",
    "reading",
    "readings_of",
    "responses",
    "to_network",
]

POOLS = ("mean", "cls", "max", "min")
READINGS = ("signed", "passed on")


def hand_on(features: Tensor, layer: str | None) -> Tensor:
    """What a rectifier behind the layer hands to the next one: the values above 0; an output is handed on as it is.

    Other nonlinearities let a little through below 0, and a normalisation or a sum in between is not looked at.
    """
    return features if layer in OUTPUTS else features.clamp(min=0)


def pool_space(features: Tensor, pool: str = "mean") -> Tensor:
    """Pool [batch, channel, *space] over space to [batch, channel].

    `mean`, `max` and `min` go over all positions (over all tokens, the class token included); `cls` takes the first
    token. Vectors [batch, channel] pass through. Minimum pooling of a transformer's tokens manufactures the effect
    this package is about (design section 6): it is here to show that.
    """
    require_choice("pool", pool, POOLS)
    if pool == "cls" and features.ndim != 3:
        raise InputError("pool", "'cls' needs a layer of tokens", "Use 'mean' for maps and vectors.")
    if features.ndim == 2:
        return features
    if pool == "cls":
        return features[:, :, 0]
    space = tuple(range(2, features.ndim))
    return {"mean": torch.mean, "max": torch.amax, "min": torch.amin}[pool](features, dim=space)


def readings_of(layer: str | None) -> tuple[str, ...]:
    """The readings of a layer: an output is handed on as it is, so that it has the signed one alone."""
    return READINGS[:1] if layer in OUTPUTS else READINGS


def responses(
    model: nn.Module, layer: str | None, images: Tensor, pool: str = "mean", *, read: str = "signed"
) -> Tensor:
    """Responses of all units of a layer in one pass, signed and pre-nonlinearity by default, see `feature_map`.

    Args:
        model, layer, images: as for `feature_map`.
        pool: how space is pooled, see `pool_space`.
        read: "signed", or "passed on": each position as `hand_on` gives it, before pooling.

    Returns:
        [batch, unit], in the units of the layer.

    Example:
        >>> import torch
        >>> from absence_utils import load_model, responses
        >>> responses(load_model("concept_scenes"), "block4", torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 64])
    """
    require_choice("read", read, READINGS)
    values = feature_map(model, layer, images)
    return pool_space(values if read == "signed" else hand_on(values, layer), pool)


def image_batches(dataset, batch_size: int, description: str = "") -> Iterator[Tensor]:
    """The images of a dataset of (image, label), in their order: [batch, channel, height, width].

    Raises:
        InputError: there are none.
    """
    if len(dataset) == 0:
        raise InputError("dataset", "it has no images", "Give a dataset with at least one image.")
    for numbers in progress(torch.arange(len(dataset)).split(batch_size), description):
        yield torch.stack([dataset[number][0] for number in numbers.tolist()])


@torch.no_grad()  # never inference mode: what a network keeps from its first pass must serve training, too
def dataset_responses(
    model: nn.Module,
    layer: str | None,
    dataset,
    *,
    batch_size: int = 32,
    pool: str = "mean",
    read: str = "signed",
) -> Tensor:
    """Responses of all units of a layer to every image of a dataset that yields (image, label), see `responses`.

    Returns:
        [image, unit] on the CPU, in the order of the dataset, at least in single precision.

    Example:
        >>> from absence_utils import dataset_responses, load_images, load_model
        >>> model = load_model("concept_scenes")
        >>> dataset_responses(model, "logits", load_images("concept_scenes", model, limit=6)).shape
        torch.Size([6, 5])
    """
    return dataset_readings(model, layer, dataset, [read], batch_size=batch_size, pool=pool)[read]


@torch.no_grad()
def dataset_readings(
    model: nn.Module,
    layer: str | None,
    dataset,
    reads: Sequence[str],
    *,
    batch_size: int = 32,
    pool: str = "mean",
) -> dict[str, Tensor]:
    """`dataset_responses` in several readings of one pass: reading to [image, unit]."""
    for read in reads:
        require_choice("read", read, READINGS)
    found = {read: [] for read in reads}
    for images in image_batches(dataset, batch_size, f"responses of {layer or 'the output'}"):
        maps = feature_map(model, layer, images)
        for read, parts in found.items():
            parts.append(pool_space(maps if read == "signed" else hand_on(maps, layer), pool).cpu())
    whole = {read: torch.cat(parts) for read, parts in found.items()}  # NumPy knows no bfloat16
    return {read: each if each.dtype == torch.double else each.float() for read, each in whole.items()}


def class_of_output(layer: str | None, channel: int, class_names: Sequence[str], outputs: int) -> str | None:
    """The class that a channel stands for, None for hidden layers and where the names are of other classes.

    A folder with ten of a thousand classes numbers them otherwise than the network does. So an output gets a name only
    if there are as many names as outputs.
    """
    known = layer in OUTPUTS and 0 < outputs == len(class_names)
    return class_names[channel] if known else None


def full_name(layer: str | None, channel: int, class_names: Sequence[str] = (), outputs: int = 0) -> str:
    """Layer, channel and, for an output, its class, as in "logits, unit 3: dog"; see `class_of_output`."""
    name = class_of_output(layer, channel, class_names, outputs)
    address = f"{layer or 'output'}, unit {channel}"
    return address if name is None else f"{address}: {'class ' if name.isdigit() else ''}{name}"


def _whole_number(channel) -> int:
    """Python's, NumPy's and torch's whole numbers, as from `argsort`; a truth value is none."""
    try:
        if isinstance(channel, bool) or getattr(channel, "dtype", None) in (bool, torch.bool):
            raise TypeError
        return operator.index(channel)
    except TypeError:
        raise InputError(
            "channel", f"{channel!r} is not a whole number", "Give the index of a channel."
        ) from None


@dataclass(frozen=True, eq=False)
class Unit:
    """One unit of a network: a channel of a layer, a logit, or a direction in a layer.

    Attributes:
        model: the network; it is read in eval mode and left as found.
        layer: a layer's name, None for the model's output, "logits" for its signed output, see `feature_map`.
        channel: index of the channel (of the class for None and "logits"); ignored if a direction is given.
        direction: [channel] weights; the response is their dot product with the responses of the layer's channels.
        pool: how space is pooled, see `pool_space`.

    Raises:
        InputError: at once for a layer that does not exist; at the first response for a channel out of range.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from absence_utils import Unit
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.ReLU())
        >>> _ = model[0].weight.data.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
        >>> unit = Unit(model, layer="0", channel=1)
        >>> unit.response(torch.ones(1, 1, 4, 4)).item()  # before the ReLU, which passes on 0
        -1.0
    """

    model: nn.Module
    layer: str | None = None
    channel: int = 0
    direction: Tensor | None = None
    pool: str = "mean"

    def __post_init__(self):
        if self.layer not in OUTPUTS:
            find_layer(self.model, self.layer)
        require_choice("pool", self.pool, POOLS)
        if self.direction is None:
            object.__setattr__(self, "channel", _whole_number(self.channel))

    @property
    def name(self) -> str:
        """Readable address, for titles and tables."""
        which = self.channel if self.direction is None else "direction"
        return f"{self.layer or 'output'}:{which}"

    @property
    def is_output(self) -> bool:
        """Whether it is one of the network's outputs, which can stand for a class."""
        return self.layer in OUTPUTS and self.direction is None

    def label(self, class_names: Sequence[str] = (), outputs: int = 0) -> str:
        """Short name for axes and tables: the class of an output, else the address.

        Args:
            class_names: of the dataset.
            outputs: how many the network has, see `class_of_output`.
        """
        found = class_of_output(self.layer, self.channel, class_names, outputs) if self.is_output else None
        return self.name if found is None else found

    @property
    def device(self) -> torch.device:
        return device_of(self.model)

    @property
    def signed(self) -> Unit:
        """The same unit, reading the signed output where `layer=None` is given."""
        return replace(self, layer="logits") if self.layer is None else self

    def of(self, layer_responses: Tensor) -> Tensor:
        """Pick this unit from [..., channel] responses of its layer: [...]."""
        count = layer_responses.shape[-1]
        if self.direction is not None:
            direction = torch.as_tensor(self.direction).to(layer_responses)
            if direction.shape != (count,):
                problem = f"it has shape {tuple(direction.shape)}, the layer has {count} channels"
                raise InputError("direction", problem, f"Give a vector of length {count}.")
            return layer_responses @ direction
        if not 0 <= self.channel < count:
            problem = f"{self.channel} is out of range: {self.layer or 'the output'} has {count} units"
            raise InputError("channel", problem, f"Use 0 to {count - 1}.")
        return layer_responses[..., self.channel]

    def response(self, images: Tensor) -> Tensor:
        """Signed, pre-nonlinearity response to [batch, channel, height, width] images: [batch], differentiable."""
        return self.of(responses(self.model, self.layer, images, self.pool))
