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
    presence = getattr(images, "presence", None)
    if presence is not None:
        return [_listed(images.concepts, presence[int(number)]) for number in numbers]
    names = list(getattr(images, "class_names", []))
    labels = getattr(images, "labels", None) if len(names) > 1 else None
    if labels is None:
        return [""] * len(numbers)
    chosen = [int(labels[number]) for number in numbers]
    return [names[label] if 0 <= label < len(names) else "" for label in chosen]


def patch_labels(images, patches: Patches, unit: int, shown: int) -> list[str]:
    """What a unit's first patches show: the concepts that lie mostly in each where the dataset has masks.

    Without masks a label is "from: " and what the whole image shows, since the patch may show another part of it.

    Args:
        images: a dataset, see `image_labels`.
        patches: one end of a book, positions [unit, k].
        unit, shown: whose patches, and how many.
    """
    image, box = patches.image[unit, :shown], patches.box[unit, :shown]
    masks = getattr(images, "masks", None)
    if masks is None:
        return [f"from: {label}" if label else "" for label in image_labels(images, image.tolist())]
    scale = masks.shape[-1] / images[0][0].shape[-1]
    own = Patches(patches.response[[unit], :shown], image[None], (box * scale).round().long()[None])
    return [_listed(images.concepts, shares > MOSTLY) for shares in concept_coverage(own, masks)[0]]


def _listed(names, present) -> str:
    return ", ".join(name for name, there in zip(names, present, strict=True) if there) or NOTHING
