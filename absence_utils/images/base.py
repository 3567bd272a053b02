"""Images as networks see them: normalisation, and images in memory.

A dataset gives `(image, label)` pairs, normalised for its network, and keeps its `normalisation`, so that whatever
needs pixels can undo it. Labels are class numbers, or one row of 0 and 1 for each output where an image has several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from absence_utils.errors import InputError
from absence_utils.identity import fingerprint, tensor_hash
from absence_utils.units import reading


@dataclass(frozen=True)
class Normalisation:
    """Affine map between pixels in 0..1 and what the network takes: (pixel - mean) / std for each channel."""

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def _column(self, values: Sequence[float], like: Tensor) -> Tensor:
        return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None, None]

    def apply(self, pixels: Tensor) -> Tensor:
        """Pixels [..., channel, height, width] in 0..1 to network input."""
        return (pixels - self._column(self.mean, pixels)) / self._column(self.std, pixels)

    def undo(self, images: Tensor) -> Tensor:
        """Network input [..., channel, height, width] to pixels, clipped to 0..1."""
        return (images * self._column(self.std, images) + self._column(self.mean, images)).clamp(0, 1)


IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # torchvision's classifiers
IDENTITY = Normalisation()


def input_channels(model: nn.Module) -> int:
    """Number of channels the network takes: as declared, else as the convolution takes that sees the image.

    That need not be the one registered first: unless that one takes colours, small images with 3, 1 and other numbers
    of channels are sent as far as the first convolution. 3 for a network without convolutions.
    """
    declared = getattr(model, "_input_channels", None)
    if declared is not None:
        return declared
    taken = [module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)]
    if not taken or taken[0] == 3:
        return 3
    candidates = dict.fromkeys((3, 1, *taken))
    return next((channels for channels in candidates if _reaches_convolution(model, channels)), taken[0])


class _Seen(Exception):
    """Ends a pass at a convolution; `fits` says whether it takes what it was given."""

    def __init__(self, fits: bool):
        self.fits = fits


@torch.no_grad()
def _reaches_convolution(model: nn.Module, channels: int) -> bool:
    """Whether images with so many channels fit all convolutions up to the one that sees them whole."""
    fitted = []  # of convolutions that saw something else, such as the grey image

    def look(module, inputs):
        fits = inputs[0].shape[1] == module.in_channels
        if not fits or inputs[0].shape[1] == channels:
            raise _Seen(fits)
        fitted.append(module)

    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    image = convolutions[0].weight.new_zeros(1, channels, 64, 64)
    hooks = [module.register_forward_pre_hook(look) for module in convolutions]
    try:
        with reading(model):
            model(image)
    except _Seen as seen:
        return seen.fits
    except Exception:  # another size, more inputs
        return bool(fitted)
    finally:
        for hook in hooks:
            hook.remove()
    return bool(fitted)


def normalisation_of(model: nn.Module) -> Normalisation:
    """The network's own `normalisation` if it has one, ImageNet's for other RGB networks, else the identity."""
    for name in _OWN:
        own = getattr(model, name, None)
        if isinstance(own, Normalisation):
            return own
    return IMAGENET if input_channels(model) == 3 else IDENTITY


# Attributes of a network; the second is for one that uses the first name for its own ends.
_OWN = ("normalisation", "_input_normalisation")


def set_input_spec(model: nn.Module, normalisation: Normalisation, channels: int) -> nn.Module:
    """Tell the network what it takes, for `normalisation_of` and `input_channels` and all that ask them.

    Copies of the network know it as well. Returns the network.
    """
    taken = getattr(model, _OWN[0], None)
    free = taken is None or isinstance(taken, Normalisation)
    setattr(model, _OWN[0] if free else _OWN[1], normalisation)
    model._input_channels = channels
    return model


@dataclass
class TensorImages:
    """An image dataset in memory.

    Attributes:
        images: [image, channel, height, width], normalised.
        labels: [image] integers.
        class_names: one name for each column of `membership`.
        membership: [image, class] truth of "this image is a target input of this class"; one-hot labels by default.
        skipped, notes: what was left out, and what else became of the images, as of `FolderImages`.
        concepts: names of what an image may show, where that is known; one for each column of `presence`.
        presence: [image, concept] bool, which of them it shows.
        masks: [image, concept, height, width] bool, where each of them is; may be coarser than the images.
        planted: [class, concept] bool, whether the class encodes the concept's absence.
    """

    images: Tensor
    labels: Tensor
    class_names: list[str]
    membership: Tensor | None = None
    normalisation: Normalisation = IDENTITY
    source: str = "in memory"
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    concepts: tuple[str, ...] = ()
    presence: Tensor | None = None
    masks: Tensor | None = None
    planted: Tensor | None = None

    def __post_init__(self):
        if len(self.images) != len(self.labels):
            problem = f"{len(self.labels)} for {len(self.images)} images"
            raise InputError("labels", problem, "Give one for each image.")
        if self.membership is None:
            self.membership = one_hot(self.labels, len(self.class_names))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])

    @property
    def identity(self) -> dict[str, str]:
        """All that the images depend on: values, truth and normalisation."""
        truth = tensor_hash(torch.as_tensor(self.labels), torch.as_tensor(self.membership))
        return {
            "images": tensor_hash(self.images),
            "labels": fingerprint([truth, list(map(str, self.class_names))]),
            "normalisation": str(self.normalisation),
        }

    @property
    def fingerprint(self) -> str:
        """sha256 of the `identity`."""
        return fingerprint(self.identity)


def identity_of(dataset) -> dict[str, str]:
    """What a dataset says of itself: its `identity`, else its `fingerprint`, else nothing."""
    found = getattr(dataset, "identity", None)
    if found is None:
        found = {"images": dataset.fingerprint} if getattr(dataset, "fingerprint", "") else {}
    return found


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """[image] labels to [image, class] truth values."""
    return torch.as_tensor(labels)[:, None] == torch.arange(classes)
