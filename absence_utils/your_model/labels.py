"""What a picture on a card shows, in words: the concepts in it where the dataset knows them, else its image's class."""

from __future__ import annotations

from absence_utils.patches.book import Patches
from absence_utils.patches.tables import concept_coverage

MOSTLY = 0.5  # share of a concept's pixels beyond which a patch shows it
NOTHING = "none"  # of the concepts


def image_labels(images, numbers) -> list[str]:
    """What whole images show: their concepts where these are known, else their class.

    Args:
        images: a dataset, see `images.TensorImages` for `concepts`, `presence` and `masks`.
        numbers: of the images.

    Returns:
        A label for each; "" where there is no class or only one, which says nothing.
    """
    known = getattr(images, "presence", None) is not None
    return [", ".join(names) or (NOTHING if known else "") for names in _in_images(images, numbers)]


def patch_labels(images, patches: Patches, unit: int, shown: int) -> list[str]:
    """What a unit's first patches show: the concepts that lie mostly in each where the dataset has masks.

    Without masks a label is "from: " and what the whole image shows, since the patch may show another part of it.

    Args:
        images: a dataset, see `image_labels`.
        patches: one end of a book, positions [unit, k].
        unit, shown: whose patches, and how many.
    """
    if getattr(images, "masks", None) is None:
        labels = image_labels(images, patches.image[unit, :shown].tolist())
        return [f"from: {label}" if label else "" for label in labels]
    return [", ".join(names) or NOTHING for names in patch_names(images, patches, unit, shown)]


def patch_names(images, patches: Patches, unit: int, shown: int) -> list[list[str]]:
    """The names behind `patch_labels`, arguments as there: concepts in each patch, without masks those of its image."""
    image, box = patches.image[unit, :shown], patches.box[unit, :shown]
    masks = getattr(images, "masks", None)
    if masks is None:
        return _in_images(images, image.tolist())
    scale = masks.shape[-1] / images[0][0].shape[-1]
    own = Patches(patches.response[[unit], :shown], image[None], (box * scale).round().long()[None])
    return [_present(images.concepts, shares > MOSTLY) for shares in concept_coverage(own, masks)[0]]


def _in_images(images, numbers) -> list[list[str]]:
    """Concepts or class of whole images; none where there is no class or only one."""
    presence = getattr(images, "presence", None)
    if presence is not None:
        return [_present(images.concepts, presence[int(number)]) for number in numbers]
    names = list(getattr(images, "class_names", []))
    labels = getattr(images, "labels", None) if len(names) > 1 else None
    if labels is None:
        return [[] for _ in numbers]
    chosen = [int(labels[number]) for number in numbers]
    return [[names[label]] if 0 <= label < len(names) else [] for label in chosen]


def _present(names, there) -> list[str]:
    return [name for name, shown in zip(names, there, strict=True) if shown]
