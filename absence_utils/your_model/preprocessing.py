"""What happens to an image before a network of one's own sees it: described, measured, and undone for drawing.

A card needs three things of a preprocessing: network inputs from files, pixels in 0..1 from network inputs, and the
size and channels of synthesised images. A function such as `weights.transforms()` only says the first. The others are
measured: images of one colour tell mean, std, size and channels, and a few more tell whether that is all it does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2
from torchvision.transforms.functional import to_pil_image

from absence_utils.errors import InputError
from absence_utils.images.base import Normalisation, TensorImages, input_channels, normalisation_of
from absence_utils.images.folders import FolderImages

KEYS = ("mean", "std", "size", "channels", "resize")
LEVEL = 1 / 255  # one grey level


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
        how = (
            "a transform of its own"
            if self.transform
            else f"shorter side to {self.resize} px, centre cut out"
        )
        return f"{self.mode}, {self.size} x {self.size} px ({how}), mean {mean}, sd {std}"

    def pixels(self, image: Image.Image) -> Tensor:
        """[channel, size, size] bytes 0..255, to half a grey level what the network sees."""
        image = image.convert(self.mode)
        if self.transform is not None:
            return (self.normalisation.undo(self(image)) * 255).round().to(torch.uint8)
        if image.size != (self.size, self.size):
            image = v2.functional.center_crop(
                v2.functional.resize(image, self.resize, antialias=True), self.size
            )
        return v2.functional.pil_to_tensor(image)

    def __call__(self, image: Image.Image) -> Tensor:
        """[channel, size, size] float32 network input."""
        if self.transform is None:
            return self.normalisation.apply(self.pixels(image).float() / 255)
        made = _tensor(self.transform, image.convert(self.mode))
        if made.shape != (self.channels, self.size, self.size):
            raise _refusal(
                f"it makes an image of {image.width} x {image.height} px a tensor {tuple(made.shape)}, "
                f"others {(self.channels, self.size, self.size)}",
                "End with a crop to one size.",
            )
        return made

    @property
    def recipe(self) -> str:
        """What pixels depend on besides the file, for the cache: settings, or what the transform does to noise."""
        if self.transform is None:
            return f"resize {self.resize} unless {self.size}, {self.mode}"
        digest = hashlib.sha256(self.mode.encode())
        for image in _noise_images():
            digest.update(self.pixels(image).numpy().tobytes())
        return digest.hexdigest()


class PreparedFolder(FolderImages):
    """An image folder as a preprocessing of one's own shows it; arguments as for `FolderImages`."""

    def __init__(self, root, preprocessing: Preprocessing, *, limit=0, seed=0, broken="raise"):
        super().__init__(
            root,
            preprocessing.normalisation,
            size=preprocessing.size,
            limit=limit,
            seed=seed,
            broken=broken,
            channels=preprocessing.channels,
        )
        self.preprocessing, self.recipe, self.mode = preprocessing, preprocessing.recipe, preprocessing.mode

    def pixels(self, index: int) -> Tensor:
        """[channel, size, size] bytes 0..255 of an image, before normalisation."""
        return self.preprocessing.pixels(self._open(index))

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.preprocessing(self._open(index)), int(self.labels[index])


def prepared_scenes(preprocessing: Preprocessing, limit: int, seed: int) -> TensorImages:
    """`limit` concept scenes (512 for 0) as the preprocessing shows them; enlarged whole, nothing is cut off."""
    from absence_utils.images.scenes import (  # rendering is not needed for folders
        NORMALISATION,
        scene_dataset,
    )

    scenes = scene_dataset(limit or 512, seed)
    edge, plain = scenes.images.shape[-1], preprocessing.transform is None
    if plain and preprocessing.size == edge and preprocessing.normalisation == NORMALISATION:
        return scenes
    shown = []
    for pixels in NORMALISATION.undo(scenes.images):
        image = to_pil_image(pixels)
        if plain:
            image = image.resize((preprocessing.size, preprocessing.size), Image.Resampling.BILINEAR)
        shown.append(preprocessing(image))
    return replace(scenes, images=torch.stack(shown), normalisation=preprocessing.normalisation)


# -- what was given as preprocessing


def resolve_preprocessing(model: nn.Module, given, size: int = 0) -> Preprocessing:
    """The preprocessing of a network from what its author gave.

    Args:
        model: the network; it fills in what is not given.
        given: None; a dict with some of `KEYS` (mean and std in units of pixels in 0..1); a Preprocessing; or a
            function from a PIL image to a tensor, see `infer_preprocessing`.
        size: px, used where nothing else says it; 0 for 224.

    Raises:
        InputError: unknown keys, numbers that cannot be, a function that is not usable, a number of channels that
            nothing tells.
    """
    if isinstance(given, Preprocessing):
        return given
    if callable(given):
        return infer_preprocessing(given, model)
    if given is not None and not isinstance(given, dict):
        raise InputError(
            "preprocessing", f"a {type(given).__name__}", "Give a dict, torchvision transforms, or nothing."
        )
    given = dict(given or {})
    unknown = [key for key in given if key not in KEYS]
    if unknown:
        raise InputError("preprocessing", f"unknown key {unknown[0]!r}", f"Known are {', '.join(KEYS)}.")
    if ("mean" in given) != ("std" in given):
        raise InputError(
            "preprocessing", "mean without std, or the reverse", "Give both, for pixels in 0..1."
        )
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
        raise InputError(
            "preprocessing",
            f"mean {mean} is not of pixels in 0..1",
            "Divide mean and std by 255, or give std=1/255.",
        )
    if channels not in (1, 3) or edge < 1 or resize < edge or 0 in std:
        raise InputError(
            "preprocessing",
            f"channels {channels}, size {edge}, resize {resize}, std {std}",
            "Channels are 1 or 3, size is positive, resize not below size, std not 0.",
        )
    mode = "RGB" if channels == 3 else "L"
    return Preprocessing(Normalisation(mean, std), edge, channels, resize, mode=mode)


def _channels(model: nn.Module, given: dict) -> int:
    lengths = [
        len(v) for v in (given.get("mean"), given.get("std")) if isinstance(v, Sequence) and len(v) > 1
    ]
    if lengths:
        return lengths[0]
    known = getattr(model, "_input_channels", None) or any(isinstance(m, nn.Conv2d) for m in model.modules())
    own = (
        len(normalisation_of(model).mean)
        if isinstance(getattr(model, "normalisation", None), Normalisation)
        else 1
    )
    if not known and own == 1:
        raise InputError(
            "preprocessing",
            "nothing says how many channels the network takes: it has no convolution",
            "Return (network, dict(mean=..., std=..., size=..., channels=3)), or channels=1 for grey images.",
        )
    return input_channels(model) if known else own


def _values(values, channels: int, key: str) -> tuple[float, ...]:
    values = [values] if isinstance(values, (int, float)) else list(values)
    if len(values) == 1:
        values = values * channels
    if len(values) != channels:
        raise InputError(
            "preprocessing", f"{len(values)} values of {key} for {channels} channels", "Give one for each."
        )
    if not np.isfinite(values).all():
        raise InputError("preprocessing", f"{key} is {values}", "Give finite numbers.")
    return tuple(float(value) for value in values)


def infer_preprocessing(transform: Callable[[Image.Image], Tensor], model: nn.Module) -> Preprocessing:
    """What a function from PIL images to tensors does, found out by giving it images.

    Images of one colour give size, channels, mean and std. That it does nothing else to a pixel's value is tried with
    other greys, pure colours, an image of two greys (contrast that depends on the image shows), noise (values beyond
    black and white show) and by asking twice (chance shows).

    Args:
        transform: PIL image to float tensor [channel, height, width]; for example `weights.transforms()`.
        model: tells whether it is to be given RGB or grey images, by what it takes.

    Raises:
        InputError: it fails, or is not an affine map of the pixels of each channel after resizing and cropping.
    """
    found, reason = None, None
    for mode in ("RGB", "L"):
        try:
            trial = _affine(transform, mode)
        except InputError as error:
            reason = reason or error
            continue
        if _model_accepts(model, trial):
            found = trial
            break
        found = found or trial
    if found is None:
        raise reason
    _verify_affine(found)
    return found


def _affine(transform, mode: str) -> Preprocessing:
    black, white = (_tensor(transform, _flat(level, mode)) for level in (0, 255))
    channels, height, width = black.shape
    if white.shape != black.shape or height != width or channels not in (1, 3):
        raise _refusal(
            f"it makes tensors {tuple(black.shape)}",
            "Use 1 or 3 channels and cut out squares (CenterCrop with one number): synthesised images are square.",
        )
    low, high = (made[:, height // 2, width // 2].double() for made in (black, white))
    if not ((high - low).abs() > 1e-9).all() or not (high - low).isfinite().all():
        raise _refusal(
            "black and white come out alike, or not finite",
            "Images standardised one by one have no fixed mean and std: do that inside the network.",
        )
    std = (1 / (high - low)).tolist()
    mean = (-low / (high - low)).tolist()
    normalisation = Normalisation(
        *(tuple(float(f"{value:.6g}") for value in values) for values in (mean, std))
    )
    return Preprocessing(normalisation, height, channels, transform=transform, mode=mode)


def _model_accepts(model: nn.Module, preprocessing: Preprocessing) -> bool:
    """Does the network take such images? Where it has convolutions, the first says; else one is tried."""
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if first is not None:
        return first.in_channels == preprocessing.channels
    parameter = next(model.parameters(), torch.empty(0))
    try:
        with torch.no_grad():
            model(preprocessing(_flat(128, preprocessing.mode))[None].to(parameter.device, parameter.dtype))
    except Exception:  # whatever a network raises that is given an image it was not made for
        return False
    return True


def _verify_affine(preprocessing: Preprocessing) -> None:
    """Compare what the transform does to images with what its mean and std say."""
    middle, size, mode = preprocessing.size // 2, preprocessing.size, preprocessing.mode
    expected = preprocessing.normalisation.apply
    tolerance = LEVEL / torch.tensor(preprocessing.normalisation.std).abs().min().item()

    def off(made, colour) -> bool:
        pixels = torch.tensor(colour, dtype=torch.float32)[: len(made), None, None] / 255
        return bool((made - expected(pixels)[:, 0, 0]).abs().max() > tolerance)

    remedy = "End with Normalize(mean, std) after ToTensor, and do anything else inside the network."
    for level in (64, 128, 192):
        if off(preprocessing(_flat(level, mode))[:, middle, middle], (level,) * 3):
            raise _refusal(f"grey {level} of 255 is not between black and white where it should be", remedy)
    if preprocessing.channels == 3:
        for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255)):
            if off(preprocessing(_flat(colour, mode))[:, middle, middle], colour):
                problem = f"the colour {colour} comes out with its channels mixed or in another order"
                raise _refusal(problem, "Keep RGB here and reorder or mix channels inside the network.")
    two = _flat(64, mode)
    two.paste(_flat(160, mode).crop((0, 0, two.width // 2, two.height)), (0, 0))
    made = preprocessing(two)
    for place, level in ((size // 8, 160), (size - 1 - size // 8, 64)):
        if size >= 8 and off(made[:, middle, place], (level,) * 3):
            raise _refusal("a grey comes out differently beside another grey, or moved", remedy)
    for image in _noise_images():
        made = preprocessing(image)
        if any(not torch.equal(made, preprocessing(image)) for _ in range(4)):
            raise _refusal(
                "the same image comes out differently each time", "Use the transforms for evaluation."
            )
        shown = preprocessing.normalisation.apply(preprocessing.normalisation.undo(made))
        if (shown - made).abs().max() > tolerance:
            raise _refusal(
                "it makes values beyond black and white",
                "Resize the PIL image, before ToTensor, or clamp to 0..1.",
            )


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


def _flat(colour, mode: str) -> Image.Image:
    colour = (colour,) * 3 if isinstance(colour, int) else colour
    return Image.new("RGB", (320, 240), colour).convert(mode)


def _noise_images() -> list[Image.Image]:
    """A wide image of fine coloured noise and a tall one of large squares at full contrast, always the same."""
    generator = np.random.default_rng(0)
    fine = generator.integers(0, 256, (240, 320, 3))
    coarse = generator.integers(0, 2, (20, 15, 3)).repeat(20, axis=0).repeat(20, axis=1) * 255
    return [Image.fromarray(pixels.astype(np.uint8)) for pixels in (fine, coarse)]


def _refusal(problem: str, remedy: str) -> InputError:
    return InputError("preprocessing", f"the transform cannot be used: {problem}", remedy)
