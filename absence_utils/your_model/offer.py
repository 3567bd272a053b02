"""Names for the units of a study: those that the images offer, or one concept of the reader's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from absence_utils.display import one_line
from absence_utils.errors import InputError
from absence_utils.insertion.decisions import ENCODES
from absence_utils.insertion.scores import MIN_EFFECT
from absence_utils.naming.concepts import find_concepts
from absence_utils.naming.confirmation import confirm
from absence_utils.naming.names import NamingResult, headlines, name_absence
from absence_utils.units import READINGS, Unit

from .labels import patch_names
from .study import LayerStudy

SHOWN = 8  # concepts on a card
OFFERS = ("names", "imagenet")  # words for `concept`: what the images offer, or ImageNet's categories


@dataclass(frozen=True, eq=False)
class Naming:
    """What a test says of the names of a unit.

    Attributes:
        line: the first line of its card; "" where there is nothing to say.
        concepts: what was pasted into images and what it did, the lowest effect first: concept, effect (in sd of the
            unit, negative where it is lowered), low, high (95%), confirmed.
        test: what these numbers are, in a sentence or two.
    """

    line: str
    concepts: pd.DataFrame
    test: str

    __repr__ = one_line


def offer_names(
    study: LayerStudy, dataset, units: Sequence[int], concept: str = "names", seed: int = 0, shown: int = 6
) -> dict[int, Naming]:
    """What silences some units, as far as a test has shown it: the first line of their cards, and its numbers.

    Args:
        study: of the layer.
        dataset: the images, as they were given to `study_layer`.
        units: channels.
        concept: "names" for the names that the images offer (their classes, or the concepts of scenes), "imagenet" for
            its categories, a folder of pictures of a concept that is tested alone, or "" for none.
        seed: of hosts and places.
        shown: lowest patches among which those that show a confirmed name are counted.

    Returns:
        Unit to `Naming`, empty where the images offer no name with enough pictures.

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
    lines, test = headlines(found, encoding, lowest), NAMED.format(found.edge)
    return {unit: Naming(lines.get(unit, ""), _strongest(found, unit), test) for unit in units}


NAMED = (
    "Pictures of each concept ({} px), pasted into random images: change of the response against the weaker of "
    "two controls at the same place, a patch of the mean colour and the picture's own scrambled copy, with 95% "
    "intervals. Below 0 the concept lowers the unit. One name is proposed on half of the pictures. It is confirmed "
    f"(bold) if the other half surely lowers the unit by more than {MIN_EFFECT:g} sd, beyond each control and beyond "
    "other concepts."
)
TESTED = (
    "Your pictures, pasted into images drawn at random: the change of the response against each control at the same "
    "place, with 95% intervals. Below 0 they lower the unit."
)


def _strongest(found: NamingResult, unit: int) -> pd.DataFrame:
    """The concepts that lower a unit most, and the confirmed name, in the reading in which that was confirmed."""
    named = found.confirmed[found.confirmed["unit"] == unit]
    reading = named["reading"].iloc[0] if len(named) else READINGS[0]
    rows = found.effects[(found.effects["unit"] == unit) & (found.effects["reading"] == reading)]
    rows = rows.assign(concept=rows["name"], confirmed=rows["name"].isin(named["name"].head(1)))
    rows = rows.dropna(subset="effect").sort_values("effect", kind="stable")
    keep = rows["confirmed"] | (np.arange(len(rows)) < SHOWN)
    return rows[keep][["concept", "effect", "low", "high", "confirmed"]].reset_index(drop=True)


def _tested(study: LayerStudy, dataset, unit: int, folder: str, seed: int) -> Naming:
    """What a folder of pictures does to one unit."""
    found = confirm(Unit(study.model, study.layer, int(unit)), folder, dataset, seed=seed)
    weakest = found.effects.loc[found.effects.effect.idxmax()]
    numbers = f"{weakest.effect:.2f} sd [{weakest.low:.2f}, {weakest.high:.2f}]".replace("-", "−")
    name, sure = Path(folder).name, found.decision == ENCODES
    line = (
        f"Silenced by {name} (confirmed: {numbers})"
        if sure
        else f"Not shown to be silenced by {name} ({found.decision}: {numbers})"
    )
    concepts = found.effects.assign(concept=f"{name}, against " + found.effects["control"], confirmed=sure)
    return Naming(line, concepts[["concept", "effect", "low", "high", "confirmed"]], TESTED)
