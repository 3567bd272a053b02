"""Images as the networks see them: normalisation, image folders on disk, images in memory.

Every image dataset of this package follows one protocol: `len`, and `[i]` giving (image, label) with the image
[channel, height, width] normalised for the network. Beside it stand `class_names`, `membership` [image, class] (which
inputs are target inputs of which class), `normalisation`, `skipped`, `source` and `fingerprint` for the record.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights
from torchvision.transforms import v2

from .errors import InputError
from .record import progress

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"}


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
    """Number of channels the network takes: as declared, else as its first convolution takes; 3 if it has none."""
    declared = getattr(model, "_input_channels", None)
    if declared is not None:
        return declared
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    return 3 if first is None else first.in_channels


def normalisation_of(model: nn.Module) -> Normalisation:
    """The network's own `normalisation` if it has one, ImageNet's for other RGB networks, else the identity."""
    for name in _OWN:
        own = getattr(model, name, None)
        if isinstance(own, Normalisation):
            return own
    return IMAGENET if input_channels(model) == 3 else IDENTITY


_OWN = (
    "normalisation",
    "_input_normalisation",
)  # the second where a network uses the first name for its own ends


def declare_input(model: nn.Module, normalisation: Normalisation, channels: int) -> nn.Module:
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
    """

    images: Tensor
    labels: Tensor
    class_names: list[str]
    membership: Tensor | None = None
    normalisation: Normalisation = IDENTITY
    source: str = "in memory"
    skipped: list[str] = field(default_factory=list)

    def __post_init__(self):
        if len(self.images) != len(self.labels):
            raise InputError(
                "labels", f"{len(self.labels)} for {len(self.images)} images", "Give one for each image."
            )
        if self.membership is None:
            self.membership = one_hot(self.labels, len(self.class_names))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])

    @property
    def fingerprint(self) -> str:
        """sha256 of the image values and labels."""
        digest = hashlib.sha256(self.images.contiguous().numpy().tobytes())
        digest.update(self.labels.contiguous().numpy().tobytes())
        return digest.hexdigest()


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """[image] labels to [image, class] truth values."""
    return torch.as_tensor(labels)[:, None] == torch.arange(classes)


class FolderImages:
    """Images below `root/<class>/...`, classes in sorted order, decoded when asked for.

    Args:
        root: folder with one folder for each class. A folder without folders is one class of that name.
        normalisation: what the network expects.
        size: edge in pixels of the square that is returned: the shorter side is resized to size * 256 / 224, then
            the centre is cropped, as torchvision's classifiers are evaluated.
        limit: take this many images, drawn with `seed` and kept in order; 0 takes all.
        broken: "raise" ends with the name of the first image that cannot be decoded; "skip" leaves such images out
            and lists them in `skipped` (every image is decoded once at the start to find them).
        channels: 3 for RGB, 1 for grey.

    Raises:
        InputError: no such folder, no images in it, an image that cannot be decoded.
    """

    recipe = ""  # how pixels are made from files, where a subclass makes them in another way

    def __init__(self, root, normalisation, *, size=224, limit=0, seed=0, broken="raise", channels=3):
        if broken not in ("raise", "skip"):
            raise InputError("broken", f"{broken!r} is not known", "Use 'raise' or 'skip'.")
        if size < 1:
            raise InputError("size", f"{size} pixels", "Give a size of at least 1.")
        if limit < 0:
            raise InputError("limit", f"{limit} images", "Give 0 for all images or a positive number.")
        self.root, self.normalisation, self.channels = Path(root), normalisation, channels
        self.mode = "RGB" if channels == 3 else "L"
        self.source, self.skipped = f"folder {self.root.name}", []
        self.files, self.classes = self._scan()
        self.class_names = readable_classes(self.classes)
        self._transform = v2.Compose(
            [v2.Resize(round(size * 256 / 224), antialias=True), v2.CenterCrop(size), v2.PILToTensor()]
        )
        if limit and limit < len(self.files):
            chosen = torch.randperm(len(self.files), generator=torch.Generator().manual_seed(seed))[:limit]
            self.files = [self.files[i] for i in sorted(chosen.tolist())]
        if broken == "skip":
            self._leave_out_broken()
        position = {name: index for index, name in enumerate(self.classes)}
        self.labels = torch.tensor([position[self._class_of(file)] for file in self.files])
        self.membership = one_hot(self.labels, len(self.classes))

    def _scan(self) -> tuple[list[Path], list[str]]:
        remedy = "Give a folder that holds one folder of images for each class, or images alone."
        if not self.root.is_dir():
            raise InputError("images", f"there is no folder {str(self.root)!r}", remedy)
        classes = sorted(folder.name for folder in self.root.iterdir() if folder.is_dir())
        files = [
            file
            for name in classes
            for file in sorted((self.root / name).rglob("*"))
            if file.suffix.lower() in SUFFIXES
        ]
        if not classes:
            classes = [self.root.resolve().name]
            files = sorted(file for file in self.root.iterdir() if file.suffix.lower() in SUFFIXES)
        if not files:
            where = "in class folders" if any(self.root.glob("*/")) else "in it"
            raise InputError("images", f"the folder {str(self.root)!r} has no images {where}", remedy)
        used = {self._class_of(file) for file in files}
        empty = [name for name in classes if name not in used]
        if empty:
            raise InputError(
                "images",
                f"{len(empty)} class folders hold no image, for example {empty[0]!r}",
                "Remove them, or put images there: classes are numbered by their folders.",
            )
        return files, classes

    def _class_of(self, file: Path) -> str:
        folders = file.relative_to(self.root).parts[:-1]
        return folders[0] if folders else self.root.resolve().name

    def _leave_out_broken(self) -> None:
        kept = []
        for index, file in enumerate(progress(self.files, "checking images")):
            try:
                self._open(index)
                kept.append(file)
            except InputError:
                self.skipped.append(str(file.relative_to(self.root)))
        if not kept:
            raise InputError(
                "images", f"none of the {len(self.files)} images can be decoded", "Check the files."
            )
        self.files = kept

    def __len__(self) -> int:
        return len(self.files)

    def pixels(self, index: int) -> Tensor:
        """[channel, size, size] bytes 0..255 of an image, before normalisation."""
        return self._transform(self._open(index))

    def _open(self, index: int) -> Image.Image:
        file = self.files[index]
        try:
            with Image.open(file) as image:
                return image.convert(self.mode)
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(
                "images",
                f"{str(file.relative_to(self.root))!r} cannot be decoded ({error})",
                "Repair or remove the file, or pass broken='skip' (`-p broken skip`), which leaves such files out and "
                "counts them.",
            ) from error

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.normalisation.apply(self.pixels(index).float() / 255), int(self.labels[index])

    @property
    def fingerprint(self) -> str:
        """sha256 of the list of files: relative path and size in bytes of each. Contents are not read."""
        lines = [f"{file.relative_to(self.root).as_posix()}\t{file.stat().st_size}\n" for file in self.files]
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def readable_classes(folders: list[str]) -> list[str]:
    """ImageNet's 1,000 wnid folders in sorted order get the class names torchvision knows; others keep theirs."""
    if len(folders) == 1000 and all(re.fullmatch(r"n\d{8}", name) for name in folders):
        return list(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])
    return list(folders)


def load_images(source, model: nn.Module, *, size=224, limit=0, seed=0, broken="raise"):
    """The image dataset called `source`, normalised for `model`.

    Args:
        source: "concept_scenes" for rendered scenes, or the path of an image folder.
        model: the network that will see the images; it decides normalisation and number of channels.
        size, limit, seed, broken: see `FolderImages`. Scenes have their own size; `limit` is their number (default
            512) and `seed` draws them.

    Returns:
        An image dataset, see the top of this module.
    """
    if str(source) == "concept_scenes":
        from .scenes import scene_dataset  # rendering is not needed for folders

        return scene_dataset(limit or 512, seed)
    if not str(source):
        raise InputError("images", "it is empty", "Give 'concept_scenes' or the path of an image folder.")
    return FolderImages(
        source,
        normalisation_of(model),
        size=size,
        limit=limit,
        seed=seed,
        broken=broken,
        channels=input_channels(model),
    )
