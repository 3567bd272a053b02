"""What happens to an image before a user's network sees it: from files to network inputs, and back for drawing.

A card needs three things of a preprocessing: network inputs from files, pixels in 0..1 from network inputs, and the
size and channels of synthesised images. A dict with mean, std and size says all; of a torchvision transform they are
read from its steps. A transform with any other step is refused: a guessed normalisation would be silently wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms as T
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.functional import to_pil_image

from absence_utils.errors import InputError, require_choice

from .base import Normalisation, TensorImages, input_channels, normalisation_of
from .folders import FolderImages

KEYS = ("mean", "std", "size", "channels", "resize")
STEPS = "Resize, CenterCrop, Grayscale, ToTensor, PILToTensor, ToImage, ConvertImageDtype, ToDtype, Normalize"
ADVICE = "Use the transform for evaluation, or dict(mean=..., std=..., size=...) in its place."
OVERSHOOT = (InterpolationMode.BICUBIC, InterpolationMode.LANCZOS)
TRIED = (320, 240)  # px of the black and white images that a transform is tried with


@dataclass(frozen=True)
class Preprocessing:
    """From a PIL image to what the network takes.

    Attributes:
        normalisation: between pixels in 0..1 and network inputs, with one mean and std for each channel.
        size: height and width of what the network takes, px.
        channels: 3 for RGB, 1 for grey.
        resize: px to which the shorter side is brought before the centre is cut out; images that have the right
            size already are taken as they are. Unused where there is a transform.
        transform: function from a PIL image to a tensor [channel, size, size] of network input, or None.
        mode: "RGB" or "L", the PIL mode of the images it is given.
    """

    normalisation: Normalisation
    size: int = 224
    channels: int = 3
    resize: int = 256
    transform: Callable[[Image.Image], Tensor] | None = None
    mode: str = "RGB"

    def __str__(self) -> str:
        both = (self.normalisation.mean, self.normalisation.std)
        mean, std = (", ".join(f"{value:.3g}" for value in each) for each in both)
        plain = f"shorter side to {self.resize} px, centre cut out"
        how = "a transform of its own" if self.transform else plain
        return f"{self.mode}, {self.size} x {self.size} px ({how}), mean {mean}, sd {std}"

    def pixels(self, image: Image.Image) -> Tensor:
        """[channel, size, size] bytes 0..255, to half a grey level what the network sees."""
        image = image.convert(self.mode)
        if self.transform is not None:
            return (self.normalisation.undo(self(image)) * 255).round().to(torch.uint8)
        if image.size != (self.size, self.size):
            image = v2.functional.resize(image, self.resize, antialias=True)
            image = v2.functional.center_crop(image, self.size)
        return v2.functional.pil_to_tensor(image)

    def __call__(self, image: Image.Image) -> Tensor:
        """[channel, size, size] float32 network input."""
        if self.transform is None:
            return self.normalisation.apply(self.pixels(image).float() / 255)
        return self.transform(image.convert(self.mode)).as_subclass(Tensor).float()

    @property
    def recipe(self) -> str:
        """What pixels depend on besides the file, for the cache of decoded images."""
        return repr(self.transform or f"resize {self.resize} unless {self.size}") + self.mode


class PreparedFolder(FolderImages):
    """An image folder as a preprocessing shows it; arguments as for `FolderImages`."""

    def __init__(self, root, preprocessing: Preprocessing, **how):
        taken = {"size": preprocessing.size, "channels": preprocessing.channels}
        super().__init__(root, preprocessing.normalisation, **taken, **how)
        self.preprocessing, self.recipe, self.mode = preprocessing, preprocessing.recipe, preprocessing.mode

    def pixels(self, index: int) -> Tensor:
        """[channel, size, size] bytes 0..255 of an image, before normalisation."""
        return self.preprocessing.pixels(self._open(index))

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.preprocessing(self._open(index)), int(self.labels[index])


def prepared_scenes(preprocessing: Preprocessing, limit: int, seed: int) -> TensorImages:
    """`limit` concept scenes (512 for 0) as the preprocessing shows them; enlarged whole, nothing is cut off."""
    from .scenes import NORMALISATION, scene_dataset  # rendering is not needed for folders

    scenes = scene_dataset(limit or 512, seed)
    edge, plain = scenes.images.shape[-1], preprocessing.transform is None
    if plain and preprocessing.size == edge and preprocessing.normalisation == NORMALISATION:
        return scenes
    shown = []
    for pixels in NORMALISATION.undo(scenes.images):
        image = to_pil_image((pixels * 255).round().to(torch.uint8))
        if plain:
            image = image.resize((preprocessing.size, preprocessing.size), Image.Resampling.BILINEAR)
        shown.append(preprocessing(image))
    masks = scenes.masks if plain else None  # a transform may cut the image
    images = torch.stack(shown)
    return replace(scenes, images=images, masks=masks, normalisation=preprocessing.normalisation)


# -- what was given as preprocessing


def resolve_preprocessing(model: nn.Module, given, size: int = 0) -> Preprocessing:
    """The preprocessing of a network from what its author gave.

    Args:
        model: the network; it fills in what is not given.
        given: None; a dict with some of `KEYS` (mean and std in units of pixels in 0..1); a torchvision transform, see
            `read_transform`; or a Preprocessing, which is taken as it is, its transform as well.
        size: px, used where nothing else says it; 0 for 224.

    Raises:
        InputError: unknown keys, numbers that cannot be, a transform that is not usable, a number of channels
            that nothing tells.
    """
    if isinstance(given, Preprocessing):
        return given
    if callable(given):
        return read_transform(given, model)
    if given is not None and not isinstance(given, dict):
        problem = f"a {type(given).__name__}"
        raise InputError("preprocessing", problem, "Give a dict, torchvision transforms, or nothing.")
    given = dict(given or {})
    for key in given:
        require_choice("preprocessing", key, KEYS)
    if ("mean" in given) != ("std" in given):
        problem = "mean without std, or the reverse"
        raise InputError("preprocessing", problem, "Give both, for pixels in 0..1.")
    channels = given.get("channels") or _channels(model, given)
    own = normalisation_of(model)
    try:
        mean, std = (
            _values(given.get(key, default), channels, key)
            for key, default in (("mean", own.mean), ("std", own.std))
        )
        edge = int(given.get("size") or size or 224)
        resize = int(given.get("resize") or round(edge * 256 / 224))
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("preprocessing", f"not numbers ({error})", "Give numbers.") from error
    if max(map(abs, mean)) > 2:
        problem = f"mean {mean} is not of pixels in 0..1"
        raise InputError("preprocessing", problem, "Divide mean and std by 255, or give std=1/255.")
    if channels not in (1, 3) or edge < 1 or resize < edge or 0 in std:
        problem = f"channels {channels}, size {edge}, resize {resize}, std {std}"
        remedy = (
            "Channels are 1 or 3 (miscounted? give preprocessing=dict(channels=3)), size is positive, resize not below "
            "size, std not 0."
        )
        raise InputError("preprocessing", problem, remedy)
    mode = "RGB" if channels == 3 else "L"
    return Preprocessing(Normalisation(mean, std), edge, channels, resize, mode=mode)


def _channels(model: nn.Module, given: dict) -> int:
    """Number of channels, from the numbers that are given, the network's own, or its first convolution."""
    own = getattr(model, "normalisation", None)
    declared = [given.get("mean"), given.get("std"), own.mean if isinstance(own, Normalisation) else None]
    lengths = [len(values) for values in declared if isinstance(values, Sequence) and len(values) > 1]
    if lengths:
        return lengths[0]
    if getattr(model, "_input_channels", None) or any(isinstance(m, nn.Conv2d) for m in model.modules()):
        return input_channels(model)
    problem = "nothing says how many channels the network takes: it has no convolution"
    remedy = "Return (network, dict(mean=..., std=..., size=..., channels=3)), or channels=1 for grey images."
    raise InputError("preprocessing", problem, remedy)


def _values(values, channels: int, key: str) -> tuple[float, ...]:
    values = [values] if isinstance(values, (int, float)) else list(values)
    if len(values) == 1:
        values = values * channels
    if len(values) != channels:
        problem = f"{len(values)} values of {key} for {channels} channels"
        raise InputError("preprocessing", problem, "Give one for each.")
    if not np.isfinite(values).all():
        raise InputError("preprocessing", f"{key} is {values}", "Give finite numbers.")
    return tuple(float(value) for value in values)


def read_transform(transform: Callable[[Image.Image], Tensor], model: nn.Module) -> Preprocessing:
    """What a torchvision transform does to pixels, from its own steps; black and white images confirm it.

    Args:
        transform: what `weights.transforms()` returns, or a Compose of the steps in `STEPS`: PIL image to float tensor
            [channel, height, width].
        model: its first convolution tells whether images are to be given in RGB or in grey.

    Raises:
        InputError: it has a step whose effect on pixels is not known, it fails, or it does something else than its
            steps say.
    """
    mean, std = _affine(transform)
    convolves = any(isinstance(module, nn.Conv2d) for module in model.modules())
    channels = input_channels(model) if convolves else len(mean)
    made, reason = None, None
    for mode in ("RGB", "L"):
        try:
            made = _tensor(transform, Image.new(mode, TRIED, "black"))
        except InputError as error:
            reason = reason or error
            continue
        if len(made) == channels:
            break
    if made is None:
        raise reason
    if made.shape != (channels, made.shape[2], made.shape[2]) or channels not in (1, 3):
        raise _refusal(
            f"it makes a tensor {tuple(made.shape)}, the network takes {channels} channels",
            "Use 1 or 3 channels and cut out squares (CenterCrop with one number): synthesised images are square.",
        )
    normalisation = Normalisation(*(_values(values, channels, "mean or std") for values in (mean, std)))
    found = Preprocessing(normalisation, made.shape[2], channels, transform=transform, mode=mode)
    grey_level = 1 / 255 / min(map(abs, normalisation.std))
    for colour, level in (("black", 0.0), ("white", 1.0)):
        expected = normalisation.apply(torch.full((channels, 1, 1), level))
        if (found(Image.new(mode, TRIED, colour)) - expected).abs().max() > grey_level / 4:
            raise _refusal(f"{colour} does not come out as its mean and std say", ADVICE)
    return found


def _affine(transform) -> tuple[Sequence[float], Sequence[float]]:
    """mean and std, in units of pixels in 0..1, that a transform subtracts and divides by."""
    if all(hasattr(transform, name) for name in ("mean", "std", "crop_size")):  # `weights.transforms()`
        return transform.mean, transform.std
    white, is_float, normalise = 1, False, None  # of the pixels before the next step
    for step in getattr(transform, "transforms", [transform]):
        to_float = getattr(getattr(step, "dtype", torch.float32), "is_floating_point", False)
        if normalise is not None:
            raise _refusal(f"{type(step).__name__} comes after Normalize", f"End with Normalize. {ADVICE}")
        if isinstance(step, (T.Normalize, v2.Normalize)):
            normalise = step
        elif isinstance(step, (T.PILToTensor, v2.PILToTensor, v2.ToImage)):
            white = 255
        elif isinstance(step, (T.ToTensor, T.ConvertImageDtype, v2.ConvertImageDtype)) and to_float:
            white, is_float = 1, True
        elif isinstance(step, v2.ToDtype) and to_float:
            white, is_float = 1 if step.scale else white, True
        elif isinstance(step, (T.Resize, v2.Resize)):
            if is_float and InterpolationMode(step.interpolation) in OVERSHOOT:
                raise _refusal("its Resize makes values beyond black and white", "Resize before ToTensor.")
        elif isinstance(step, (T.Grayscale, v2.Grayscale)) and step.num_output_channels == 1:
            pass
        elif not isinstance(step, (T.CenterCrop, v2.CenterCrop, v2.ToPureTensor)):
            name = getattr(step, "__name__", type(step).__name__)
            raise _refusal(f"what {name!r} does to a pixel is not known", f"Known are {STEPS}. {ADVICE}")
    mean, std = (normalise.mean, normalise.std) if normalise is not None else ([0.0], [1.0])
    return [float(value) / white for value in mean], [float(value) / white for value in std]


def _tensor(transform, image: Image.Image) -> Tensor:
    try:
        made = transform(image)
    except Exception as error:
        raise _refusal(
            f"it fails on a {image.mode} image of {image.width} x {image.height} px "
            f"({type(error).__name__}: {error})",
            "Give a function that takes any PIL image.",
        ) from error
    if not isinstance(made, Tensor) or made.ndim != 3:
        what = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
        raise _refusal(f"it returns {what}", "Return a tensor [channel, height, width]: end with ToTensor().")
    return made.as_subclass(Tensor).detach().float()


def _refusal(problem: str, remedy: str) -> InputError:
    return InputError("preprocessing", f"the transform cannot be used: {problem}", remedy)
