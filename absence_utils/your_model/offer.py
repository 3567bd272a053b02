"""Names for the units of a study: those that the images offer, or one concept of the reader's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from absence_utils.errors import InputError
from absence_utils.insertion.decisions import ENCODES
from absence_utils.naming.concepts import find_concepts
from absence_utils.naming.confirmation import confirm
from absence_utils.naming.names import headlines, name_absence
from absence_utils.units import Unit

from .labels import patch_names
from .study import LayerStudy

OFFERS = ("names", "imagenet")  # words for `concept`: what the images offer, or ImageNet's categories


def offer_names(
    study: LayerStudy, dataset, units: Sequence[int], concept: str = "names", seed: int = 0, shown: int = 6
) -> dict[int, str]:
    """The first line of some units' cards: what silences them, as far as a test has shown it.

    Args:
        study: of the layer.
        dataset: the images, as they were given to `study_layer`.
        units: channels.
        concept: "names" for the names that the images offer (their classes, or the concepts of scenes), "imagenet" for
            its categories, a folder of pictures of a concept that is tested alone, or "" for none.
        seed: of hosts and places.
        shown: lowest patches among which those that show a confirmed name are counted.

    Returns:
        Unit to line, empty where the images offer no name with enough pictures.

    Raises:
        InputError: a folder that cannot be used.
    """
    if not concept:
        return {}
    if concept not in OFFERS:
        return {unit: _tested(study, dataset, unit, concept, seed) for unit in units}
    try:
        concepts = find_concepts(dataset, "" if concept == "names" else concept, seed=seed + 1)
        found = name_absence(
            study.model, study.layer, study.images, concepts, units=list(units), repeat=False, seed=seed
        )
    except InputError as error:
        if error.parameter != "concepts":
            raise
        return {}
    encoding = [unit for unit in units if study.decision(unit)["decision"] == ENCODES]
    images, patches = study.images, study.book.lowest
    lowest = {unit: patch_names(images, patches, unit, shown) for unit in units}
    return headlines(found, encoding, lowest)


def _tested(study: LayerStudy, dataset, unit: int, folder: str, seed: int) -> str:
    """What a folder of pictures does to one unit, in a line."""
    found = confirm(Unit(study.model, study.layer, int(unit)), folder, dataset, seed=seed)
    weakest = found.effects.loc[found.effects.effect.idxmax()]
    numbers = f"{weakest.effect:.2f} sd [{weakest.low:.2f}, {weakest.high:.2f}]".replace("-", "−")
    name = Path(folder).name
    if found.decision == ENCODES:
        return f"Silenced by {name} (confirmed: {numbers})"
    return f"Not shown to be silenced by {name} ({found.decision}: {numbers})"
