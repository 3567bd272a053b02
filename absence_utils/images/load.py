"""One entry to images: a folder on disk or the concept scenes, in the form that a network expects."""

from __future__ import annotations

from torch import nn

from absence_utils.errors import InputError

from .base import input_channels, normalisation_of
from .folders import FolderImages
from .preprocessing import Preprocessing, prepared_scenes


def load_images(
    source, model: nn.Module, *, size=224, limit=0, seed=0, broken="raise",
    class_order="numerical", background="white", white=0,
):  # fmt: skip
    """The image dataset called `source`, normalised for `model`.

    Args:
        source: "concept_scenes" for rendered scenes, or the path of an image folder.
        model: the network that will see the images; it decides normalisation and number of channels.
        size, limit, seed, broken, class_order, background, white: see `FolderImages`. Scenes have their own size, 64;
            `limit` is their number (default 512) and `seed` draws them.

    Returns:
        An image dataset, see `images.base`; its `notes` say what became of the images.

    Example:
        >>> from absence_utils import load_images, load_model
        >>> scenes = load_images("concept_scenes", load_model("concept_scenes"), limit=4)
        >>> image, label = scenes[0]
        >>> len(scenes), image.shape
        (4, torch.Size([3, 64, 64]))
    """
    normalisation, channels = normalisation_of(model), input_channels(model)
    if str(source) == "concept_scenes":
        mode = "RGB" if channels == 3 else "L"
        return prepared_scenes(Preprocessing(normalisation, 64, channels, mode=mode), limit, seed)
    if not str(source):
        raise InputError("images", "it is empty", "Give 'concept_scenes' or the path of an image folder.")
    reading = {"class_order": class_order, "background": background, "white": white}
    how = {"size": size, "limit": limit, "seed": seed, "broken": broken, "channels": channels}
    return FolderImages(source, normalisation, **how, **reading)
