"""Images that are read again and again: parts of a dataset, and decoded pixels in a memory-mapped file.

Insertion pastes patches into the same few hundred images for every unit of a layer. Decoding them anew for every unit
would cost more than the network does, so a folder is decoded once into a file of bytes, which the operating system
keeps in memory for as long as it has room.
"""

from __future__ import annotations

import os
import tempfile
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from absence_utils.errors import InputError
from absence_utils.identity import code_of, fingerprint
from absence_utils.paths import cache_folder
from absence_utils.progress import progress

from .folders import FolderImages
from .subsets import Subset


class ImageStack:
    """A dataset whose images all have one size and can be taken many at a time, in any order.

    It follows the protocol of `images` and adds `take`. Make one with `stack_images`.
    """

    def __init__(self, dataset, read):
        self._dataset, self._read = dataset, read

    def __len__(self) -> int:
        return len(self._dataset)

    @cached_property
    def identity(self) -> dict[str, str]:
        """The dataset's, hashed once: a stack is asked for it before everything that is measured."""
        return self._dataset.identity

    @cached_property
    def fingerprint(self) -> str:
        """The dataset's, hashed once."""
        return self._dataset.fingerprint

    def __getattr__(self, name: str):
        """The dataset's labels, membership, class_names, normalisation, source, fingerprint, ..."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._dataset, name)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        labels = getattr(self._dataset, "labels", None)
        return self.take([index])[0], int(labels[index] if labels is not None else self._dataset[index][1])

    def take(self, indices) -> Tensor:
        """[n, channel, height, width] normalised images, in the order of `indices`."""
        indices = np.asarray(indices, dtype=np.int64)
        return self._read(np.where(indices < 0, indices + len(self), indices))


def stack_images(dataset, folder: Path | None = None) -> ImageStack:
    """A dataset from which any images can be taken at once: folders by way of a file of decoded pixels.

    Args:
        dataset: an image dataset with images of one size; one that is a stack already is returned as it is.
        folder: where the file is kept, `paths.cache_folder()` by default. It holds one byte a pixel and channel
            (150 kB an image of 224 px), is used again by later runs, and may be deleted at any time.

    Raises:
        InputError: images of different sizes.
    """
    if isinstance(dataset, ImageStack):
        return dataset
    if isinstance(dataset, FolderImages):
        pixels = decode_folder(dataset, folder)
        apply = dataset.normalisation.apply
        return ImageStack(dataset, lambda indices: apply(torch.from_numpy(pixels[indices]).float() / 255))
    if isinstance(dataset, Subset):
        whole, indices = stack_images(dataset.dataset, folder), dataset.indices.numpy()
        return ImageStack(dataset, lambda numbers: whole.take(indices[numbers]))
    images = getattr(dataset, "images", None)
    if not isinstance(images, Tensor):
        images = [torch.as_tensor(dataset[index][0]) for index in range(len(dataset))]
        if len({image.shape for image in images}) != 1:
            raise InputError("dataset", "its images differ in size", "Load them at one size.")
        images = torch.stack(images)
    # Indexing takes four times as long, and this runs before every pass.
    return ImageStack(dataset, lambda indices: images.index_select(0, torch.from_numpy(indices)))


def decode_folder(dataset: FolderImages, folder: Path | None = None) -> np.ndarray:
    """[image, channel, height, width] bytes, mapped from a file in `folder` that is complete or not there.

    See `stack_images` for the folder.
    """
    folder = folder or cache_folder()
    shape = (len(dataset), *dataset.pixels(0).shape)
    path = folder / f"{_key(dataset, shape)}.u8"
    if not path.is_file() or path.stat().st_size != np.prod(shape):
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{path.name}.")
        os.close(handle)
        try:
            pixels = np.memmap(temporary, np.uint8, "w+", shape=shape)
            for index in progress(range(len(dataset)), "decoding images"):
                pixels[index] = dataset.pixels(index).numpy()
            pixels.flush()
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    return np.memmap(path, np.uint8, "r", shape=shape)


def _key(dataset: FolderImages, shape: tuple) -> str:
    """What the bytes depend on: all that the images do, normalisation apart, and what decodes and resizes them."""
    identity = {name: part for name, part in dataset.identity.items() if name != "normalisation"}
    return fingerprint([shape, code_of("images"), identity])[:32]
