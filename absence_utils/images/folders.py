"""Image folders on disk: one folder for each class, or images without classes."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.models import ResNet50_Weights
from torchvision.transforms import v2

from absence_utils.errors import InputError, require_at_least, require_choice
from absence_utils.progress import progress

from .base import one_hot

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"}


class FolderImages:
    """Images below `root/<class>/...`, classes in sorted order, decoded when asked for; hidden files are left out.

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
        require_choice("broken", broken, ("raise", "skip"))
        require_at_least("size", size, 1)
        require_at_least("limit", limit, 0, "0 takes all images")
        self.root, self.normalisation, self.channels = Path(root).expanduser(), normalisation, channels
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
        folders = (folder.name for folder in self.root.iterdir() if folder.is_dir())
        classes = sorted(name for name in folders if not name.startswith("."))
        found = [file for name in classes for file in sorted((self.root / name).rglob("*"))]
        if not classes:
            classes, found = [self.root.resolve().name], sorted(self.root.iterdir())
        files = [file for file in found if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")]
        if not files:
            where = "in class folders" if any(self.root.glob("*/")) else "in it"
            raise InputError("images", f"the folder {str(self.root)!r} has no images {where}", remedy)
        used = {self._class_of(file) for file in files}
        empty = [name for name in classes if name not in used]
        if empty:
            problem = f"{len(empty)} class folders hold no image, for example {empty[0]!r}"
            remedy = "Remove them, or put images there: classes are numbered by their folders."
            raise InputError("images", problem, remedy)
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
            problem = f"none of the {len(self.files)} images can be decoded"
            raise InputError("images", problem, "Check the files.")
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
