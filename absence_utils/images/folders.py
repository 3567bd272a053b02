"""Image folders on disk: one folder for each class, or images without classes."""

from __future__ import annotations

import hashlib
import os
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image
from PIL import __version__ as pillow_version
from torch import Tensor
from torchvision.models import ResNet50_Weights
from torchvision.transforms import v2

from absence_utils.errors import InputError, require_at_least, require_choice
from absence_utils.files import content_hashes
from absence_utils.identity import fingerprint
from absence_utils.progress import progress

from .base import one_hot
from .decode import TRAITS, decode_image, image_traits, require_reading
from .scan import REMEDY, FolderScan, readable, scan_folder

# sha256 of the wnids of ImageNet's 1,000 classes, sorted, with a space between: the order of torchvision's classifiers
WNIDS = "791ce0333040dd249d13133f90d28ef0263ffc01e5de0afd85b3e32048d7d456"
SKIP = "or pass broken='skip' (`-p broken skip`), which leaves out and names what cannot be used."


class FolderImages:
    """Images below `root/<class>/...`, decoded when asked for. `notes` say what became of them.

    Linked folders are followed; what is hidden (`.ipynb_checkpoints`, `._photo.jpg`) or left by tools (`__MACOSX`) is
    left out. Images are turned as EXIF says; those of more than 8 bits are scaled, see `decode_image`.

    Args:
        root: folder with one folder for each class. A folder without folders is one class of that name.
        normalisation: what the network expects.
        size: edge in pixels of the square that is returned: the shorter side is resized to size * 256 / 224, then
            the centre is cropped, as torchvision's classifiers are evaluated.
        limit: take this many images, drawn with `seed` and kept in order; 0 takes all.
        broken: "raise" ends with the name of the first image that cannot be used: at once for links that lead nowhere,
            files that are none, images beside class folders, names that are not UTF-8; for one that cannot be decoded
            when it is asked for. "skip" leaves such images out and lists them in `skipped` (every image is decoded
            once at the start to find them).
        channels: 3 for RGB, 1 for grey.
        class_order: "numerical": folders named 0, 1, 2, 10 by their number, others by their letters; "alphabetical":
            all by their letters (0, 1, 10, 2), which is how torchvision's ImageFolder numbers classes in training.
        background: colour onto which transparent images are composed, as PIL names it.
        white: value of white in images of more than 8 bits, for example 4095 for 12 bits; 0 for what the kind of file
            says (65535, and 1 for floats).

    Attributes:
        files, labels: [image].
        classes, class_names: folders in order, and names for readers. membership: [image, class].
        skipped: what was left out, relative to `root`: images that cannot be used, hidden and left-over ones.

    Raises:
        InputError: no such folder, no images in it, a class folder without one, an image that cannot be used.
    """

    recipe = ""  # how pixels are made from files, where a subclass makes them in another way

    def __init__(
        self, root, normalisation, *, size=224, limit=0, seed=0, broken="raise", channels=3,
        class_order="numerical", background="white", white=0,
    ):  # fmt: skip
        require_choice("broken", broken, ("raise", "skip"))
        require_at_least("size", size, 1)
        require_at_least("limit", limit, 0, "0 takes all images")
        require_reading(background, white)
        self.root, self.normalisation, self.channels = Path(os.path.expanduser(root)), normalisation, channels
        self.size = size
        self.mode, self.reading = "RGB" if channels == 3 else "L", {"background": background, "white": white}
        self.source, self._scan = f"folder {self.root.name}", scan_folder(self.root, class_order)
        self._unusable = {self._name(file): reason for file, reason in self._scan.unusable.items()}
        if broken == "raise":
            self._refuse_unusable()
        self._require_images(self._scan)
        self.files, self.classes = self._scan.files, self._scan.classes
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

    @cached_property
    def membership(self) -> Tensor:
        """Bool [image, class], made when asked for: of 10,000 images in as many classes it takes 100 MB."""
        return one_hot(self.labels, len(self.classes))

    def _refuse_unusable(self) -> None:
        if self._unusable:
            name, reason = next(iter(self._unusable.items()))
            more = f" (and {len(self._unusable) - 1} more cannot)" if len(self._unusable) > 1 else ""
            remedy = f"Repair, move or remove it, {SKIP}"
            raise InputError("images", f"{name!r} cannot be used: {reason}{more}", remedy)

    def _require_images(self, scan: FolderScan) -> None:
        used = {self._class_of(file) for file in scan.files}
        if not used:
            where = "in class folders" if any(self.root.glob("*/")) else "in it"
            raise InputError("images", f"the folder {str(self.root)!r} has no images {where}", REMEDY)
        empty = [name for name in scan.classes if name not in used]
        if empty:
            problem = f"{len(empty)} class folders hold no image, for example {empty[0]!r}"
            remedy = "Remove them, or put images there: classes are numbered by their folders."
            raise InputError("images", problem, remedy)

    def _class_of(self, file: Path) -> str:
        folders = file.relative_to(self.root).parts[:-1]
        return folders[0] if folders else self.root.resolve().name

    def _name(self, file: Path) -> str:
        return readable(file.relative_to(self.root).as_posix())

    def _leave_out_broken(self) -> None:
        kept = []
        for index, file in enumerate(progress(self.files, "checking images")):
            try:
                self._open(index)
                kept.append(file)
            except InputError:
                self._unusable[self._name(file)] = "it cannot be decoded"
        if not kept:
            problem = f"none of the {len(self.files)} images can be decoded"
            raise InputError("images", problem, "Check the files.")
        self.files = kept

    def __len__(self) -> int:
        return len(self.files)

    def __repr__(self) -> str:
        left_out = f", {len(self.skipped)} left out" if self.skipped else ""
        return f"{self.source}: {len(self)} images of {len(self.classes)} classes{left_out}"

    @property
    def skipped(self) -> list[str]:
        return [*self._unusable, *map(self._name, self._scan.ignored)]

    @cached_property
    def notes(self) -> list[str]:
        """What became of the folder's images, one line for each kind: left out, renumbered, turned, composed, scaled.

        The headers of all images are read for it, once.
        """
        return self._scan_notes() + self._image_notes()

    def _scan_notes(self) -> list[str]:
        notes = []
        if self.classes != sorted(self.classes):
            notes.append(f"Class folders in numerical order ({', '.join(self.classes[:3])}, ...), not in that of their "
                         f"letters ({', '.join(sorted(self.classes)[:3])}, ...): see `class_order`.")  # fmt: skip
        for reason in dict.fromkeys(self._unusable.values()):
            names = [name for name, why in self._unusable.items() if why == reason]
            notes.append(f"Left out ({reason}): {_listed(names)}.")
        for what, paths in (("hidden, or left by a tool", self._scan.ignored),
                            ("a link to what is counted already", self._scan.repeated)):  # fmt: skip
            if paths:
                notes.append(f"Left out ({what}): {_listed(list(map(self._name, paths)))}.")
        if self._scan.others:
            kinds = ", ".join(f"{kind} {count}" for kind, count in self._scan.others.most_common())
            notes.append(f"Left out (files that are no images by their name): {kinds}.")
        return notes

    def _image_notes(self) -> list[str]:
        having: dict[str, list[str]] = {trait: [] for trait in TRAITS}
        for file in progress(self.files, "reading image headers"):
            try:
                traits = image_traits(file)
            except Exception:  # whoever asks for the image is told
                continue
            for trait in traits:
                having[trait].append(self._name(file))
        return [
            f"{len(names)} image{'s' * (len(names) > 1)} {TRAITS[trait].format(**self.reading)}: {_listed(names)}."
            for trait, names in having.items()
            if names
        ]

    def pixels(self, index: int) -> Tensor:
        """[channel, size, size] bytes 0..255 of an image, before normalisation."""
        return self._transform(self._open(index))

    def _open(self, index: int) -> Image.Image:
        file = self.files[index]
        try:
            return decode_image(file, self.mode, **self.reading)
        except Exception as error:  # a decoder may raise anything: the file decides
            problem = f"{self._name(file)!r} cannot be decoded ({str(error) or type(error).__name__})"
            left_out = f" Left out already: {_listed(self.skipped)}." if self.skipped else ""
            remedy = f"Repair or remove the file, {SKIP}{left_out}"
            raise InputError("images", problem, remedy) from error

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.normalisation.apply(self.pixels(index).float() / 255), int(self.labels[index])

    @property
    def identity(self) -> dict[str, str]:
        """All that the images depend on: files with their contents, and how each becomes a tensor."""
        names = [file.relative_to(self.root).as_posix() for file in self.files]
        try:
            contents = list(zip(names, content_hashes(self.files, self.root), strict=True))
        except OSError as error:
            remedy = "Load the images again, and let nobody change the folder in between."
            raise InputError(
                "images", f"{error.filename!r} cannot be read ({error.strerror})", remedy
            ) from error
        return {
            "images": fingerprint([self.classes, contents]),
            "image size": f"{self.size} px",
            "normalisation": str(self.normalisation),
            "preprocessing": self.recipe,
            "reading": f"{self.mode}, {self.reading}, Pillow {pillow_version}",
        }

    @property
    def fingerprint(self) -> str:
        """sha256 of the `identity`."""
        return fingerprint(self.identity)


def readable_classes(folders: list[str]) -> list[str]:
    """The wnid folders of ImageNet's 1,000 classes get the class names torchvision knows; others keep theirs."""
    if hashlib.sha256(" ".join(folders).encode()).hexdigest() == WNIDS:
        return list(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])
    return list(folders)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]!r}{more}"
