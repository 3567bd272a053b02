"""Handwritten digits: scikit-learn's, which are installed with it, and MNIST from a folder."""

from __future__ import annotations

from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold
from torch import Tensor
from torchvision.datasets import MNIST

from absence_utils.errors import InputError, require_at_least, require_choice
from absence_utils.paths import cache_folder

from .base import TensorImages

MNIST_FILES = tuple(
    f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
)


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
    require_choice("split", split, ("train", "test"))
    require_choice("dataset", dataset, ("sklearn", "mnist"))
    require_at_least("limit", limit, 0)
    images, labels = _mnist(split, root) if dataset == "mnist" else _sklearn_digits(split, fold, folds)
    if limit and limit < len(images):
        rows = torch.linspace(0, len(images) - 1, limit).round().long()
        images, labels = images[rows], labels[rows]
    names = [str(digit) for digit in range(10)]
    return TensorImages(images, labels, names, source=f"{dataset} digits, {split}")


def _sklearn_digits(split: str, fold: int, folds: int) -> tuple[Tensor, Tensor]:
    require_at_least("folds", folds, 2, "one would leave nothing to train on")
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
