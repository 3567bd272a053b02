"""Data for notebooks 01-03: moving bars, images with and without a green pixel, digits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold
from torch import Tensor
from torchvision.datasets import MNIST

from absence_utils.errors import InputError
from absence_utils.images import TensorImages
from absence_utils.paths import cache_folder

# RGB in 0..1. Pure green is the only one with more green than red and blue together.
COLOURS = {
    "green": (0.0, 1.0, 0.0),
    "red": (1.0, 0.0, 0.0),
    "blue": (0.0, 0.0, 1.0),
    "yellow": (1.0, 1.0, 0.0),
    "magenta": (1.0, 0.0, 1.0),
    "cyan": (0.0, 1.0, 1.0),
    "white": (1.0, 1.0, 1.0),
    "orange": (1.0, 0.5, 0.0),
    "violet": (0.5, 0.0, 1.0),
}
MNIST_FILES = tuple(
    f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
)


@dataclass(frozen=True)
class MotionSequences:
    """Bars that move by one column a frame; each bar is as high as the image.

    Attributes:
        frames: [sequence, frame, height, width], 1 on a bar and 0 elsewhere. The sequence is the class.
        leftward: [sequence, frame, height, width], True on the bar that moves from right to left.
    """

    frames: Tensor
    leftward: Tensor
    class_names: tuple[str, ...] = ("one bar, left to right", "two bars, moving apart")

    def _in_pairs(self, values: Tensor) -> Tensor:
        return torch.stack([values[:, :-1], values[:, 1:]], dim=2).flatten(0, 1)

    def pairs(self) -> TensorImages:
        """Images [pair, 2, height, width] of consecutive frames, sequence by sequence, labelled by class."""
        images = self._in_pairs(self.frames)
        labels = torch.arange(len(self.frames)).repeat_interleave(self.frames.shape[1] - 1)
        return TensorImages(images, labels, list(self.class_names), source="motion sequences")

    def leftward_pairs(self) -> Tensor:
        """`leftward` in the pairs of `pairs`: [pair, 2, height, width]."""
        return self._in_pairs(self.leftward)

    def first_pairs(self) -> list[int]:
        """Index of every sequence's first frame pair."""
        return list(range(0, self.frames.shape[0] * (self.frames.shape[1] - 1), self.frames.shape[1] - 1))


def motion_sequences(frames: int = 4, size: int = 12) -> MotionSequences:
    """One bar moving left to right (class 0), and two bars moving apart (class 1). Nothing here is random.

    Raises:
        InputError: fewer than two frames, or so many that a bar would leave the image.
    """
    start, left, right = size // 3, size // 3, size - 1 - size // 3  # 4, 4 and 7 of 12 columns
    if frames < 2:
        raise InputError("frames", f"{frames} frames show no motion", "Use 2 or more.")
    if frames - 1 > left or left >= right:
        raise InputError(
            "frames", f"in {frames} frames a bar leaves the {size} columns", "Use fewer, or a larger size."
        )
    pixels = torch.zeros(2, frames, size, size)
    leftward = torch.zeros(2, frames, size, size, dtype=torch.bool)
    for t in range(frames):
        pixels[0, t, :, start + t] = 1
        pixels[1, t, :, right + t] = 1
        pixels[1, t, :, left - t] = 1
        leftward[1, t, :, left - t] = True
    return MotionSequences(pixels, leftward)


def uncut(crops: Tensor) -> Tensor:
    """Which crops [n, 2, height, width] of a frame pair show as much of the bars in both frames: bool [n].

    Where a crop cuts a bar off in one frame only, the other frame looks like motion that did not happen.
    """
    return crops[:, 0].sum(dim=(1, 2)) == crops[:, 1].sum(dim=(1, 2))


def green_pixel_images(n: int, seed: int, size: int = 32, coloured: Sequence[int] = (8, 12)) -> TensorImages:
    """Black images with a few single coloured pixels: class 0 has exactly one green pixel, class 1 has none.

    Both classes have the same number of coloured pixels, drawn evenly from `coloured[0]` to `coloured[1]`,
    at distinct places; all but the green one take one of the eight other colours of `COLOURS`. Labels
    alternate.

    Returns:
        TensorImages with images [n, rgb, size, size] in 0..1.

    Raises:
        InputError: fewer than two images, or more coloured pixels than places.
    """
    fewest, most = coloured
    if n < 2:
        raise InputError("n", f"{n} images cannot hold both classes", "Use 2 or more.")
    if not 1 <= fewest <= most <= size * size:
        raise InputError("coloured", f"{tuple(coloured)} pixels in {size} x {size}", "Give (fewest, most).")
    generator = torch.Generator().manual_seed(seed)
    palette = torch.tensor(list(COLOURS.values()))
    labels = torch.arange(n) % 2
    place = torch.rand(n, size * size, generator=generator).argsort(dim=1)[:, :most]
    colour = torch.randint(1, len(palette), (n, most), generator=generator)
    colour[labels == 0, 0] = 0
    count = torch.randint(fewest, most + 1, (n, 1), generator=generator)
    used = torch.arange(most) < count  # a pixel beyond the count stays black
    values = palette[colour] * used[:, :, None]
    images = torch.zeros(n, size * size, 3).scatter_(1, place[:, :, None].expand(-1, -1, 3), values)
    images = images.view(n, size, size, 3).permute(0, 3, 1, 2)
    names = ["green pixel", "no green pixel"]
    return TensorImages(images, labels, names, source=f"green pixels, seed {seed}")


def colour_mask(images: Tensor, colour: str) -> Tensor:
    """Where images [n, rgb, height, width] have exactly this colour of `COLOURS`: bool [n, height, width]."""
    if colour not in COLOURS:
        raise InputError("colour", f"{colour!r} is unknown", f"Use one of {', '.join(COLOURS)}.")
    return (images == torch.tensor(COLOURS[colour]).to(images)[:, None, None]).all(dim=1)


def digits(
    split: str,
    dataset: str = "sklearn",
    *,
    fold: int = 0,
    folds: int = 5,
    limit: int = 0,
    root: str | Path | None = None,
) -> TensorImages:
    """Handwritten digits, grey in 0..1 on a background of 0.

    Args:
        split: "train" or "test".
        dataset: "sklearn": 1,797 images of 8x8 px that come with scikit-learn (UCI "Optical Recognition of
            Handwritten Digits", Alpaydin & Kaynak, 1998, CC BY 4.0); "mnist": 28x28 px, LeCun et al., read
            or downloaded by torchvision.
        fold, folds: for "sklearn", which part is the test set, counted round modulo `folds`. Parts are
            stratified and disjoint: over all folds every image is a test image once. MNIST has its own
            split, the same for every fold.
        limit: only this many images, evenly spread over the split; 0 takes all.
        root: folder for MNIST, by default `paths.cache_folder()`.

    Returns:
        TensorImages with images [n, 1, size, size], labels 0 to 9.

    Raises:
        InputError: an unknown split or data set, a limit below 0, or MNIST is neither there nor to be had.
    """
    if split not in ("train", "test"):
        raise InputError("split", f"{split!r} is unknown", "Use 'train' or 'test'.")
    if limit < 0:
        raise InputError("limit", f"{limit} images", "Use 0 for all, or a positive number.")
    if dataset == "sklearn":
        images, labels = _sklearn_digits(split, fold, folds)
    elif dataset == "mnist":
        images, labels = _mnist(split, root)
    else:
        raise InputError("dataset", f"{dataset!r} is unknown", "Use 'sklearn' or 'mnist'.")
    if limit and limit < len(images):
        rows = torch.linspace(0, len(images) - 1, limit).round().long()
        images, labels = images[rows], labels[rows]
    names = [str(digit) for digit in range(10)]
    return TensorImages(images, labels, names, source=f"{dataset} digits, {split}")


def _sklearn_digits(split: str, fold: int, folds: int) -> tuple[Tensor, Tensor]:
    if folds < 2:
        raise InputError("folds", f"{folds} folds leave nothing to train on", "Use 2 or more.")
    data = load_digits()
    # The one fixed shuffle (random_state=0) belongs to the definition of the folds, not to the seed of a run.
    parts = StratifiedKFold(folds, shuffle=True, random_state=0).split(data.images, data.target)
    train, test = list(parts)[fold % folds]
    rows = train if split == "train" else test
    images = torch.tensor(data.images[rows], dtype=torch.float32)[:, None] / 16  # sixteen grey levels
    return images, torch.tensor(data.target[rows], dtype=torch.int64)


def _mnist(split: str, root: str | Path | None) -> tuple[Tensor, Tensor]:
    folder = Path(root or cache_folder()).expanduser()
    try:
        # download=True reads files that are there, and downloads only if they are not
        data = MNIST(folder, train=split == "train", download=True)
    except (RuntimeError, OSError) as error:
        remedy = f"Put {', '.join(MNIST_FILES)} (unpacked) into {folder / 'MNIST' / 'raw'}, or use 'sklearn'."
        raise InputError("dataset", "MNIST is not there and cannot be downloaded", remedy) from error
    return data.data[:, None].float() / 255, data.targets
