"""A selection or a reordering of a dataset, which is a dataset again."""

from __future__ import annotations

import torch

from absence_utils.errors import InputError
from absence_utils.identity import fingerprint, tensor_hash

from .base import identity_of


class Subset:
    """Some images of a dataset as a dataset: image i is number `indices[i]` of the whole.

    Args:
        dataset: any image dataset.
        indices: [image] numbers in it, each at most once.

    Raises:
        InputError: a number that is not there, or twice.
    """

    def __init__(self, dataset, indices):
        indices = torch.as_tensor(indices, dtype=torch.long)
        if len(indices) == 0 or indices.min() < 0 or indices.max() >= len(dataset):
            problem = f"not all of 0 to {len(dataset) - 1}, or none"
            raise InputError("indices", problem, "Give numbers of images that exist.")
        if len(indices.unique()) < len(indices):
            raise InputError("indices", "an image stands there twice", "Give each once.")
        self.dataset, self.indices = dataset, indices
        self.class_names = getattr(dataset, "class_names", [])
        self.normalisation = getattr(dataset, "normalisation", None)
        self.source = f"{len(indices)} of {getattr(dataset, 'source', 'images')}"
        self.skipped = getattr(dataset, "skipped", [])
        self.concepts, self.planted = getattr(dataset, "concepts", ()), getattr(dataset, "planted", None)
        for name in ("labels", "membership", "presence", "masks"):
            whole = getattr(dataset, name, None)
            setattr(self, name, None if whole is None else whole[indices])

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int):
        return self.dataset[int(self.indices[index])]

    @property
    def notes(self) -> list[str]:
        """What became of the images of the whole, see `FolderImages.notes`."""
        return getattr(self.dataset, "notes", [])

    @property
    def identity(self) -> dict[str, str]:
        """The whole's, and the numbers; nothing where the whole says nothing of itself."""
        whole = identity_of(self.dataset)
        return whole and whole | {"part": tensor_hash(self.indices)}

    @property
    def fingerprint(self) -> str:
        """sha256 of the `identity`, "" where there is none."""
        identity = self.identity
        return fingerprint(identity) if identity else ""


def shuffle_images(dataset, seed: int = 0) -> Subset:
    """The same images in a random order, so that any range of them is a random sample."""
    return Subset(dataset, torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed)))
