"""What can be said of the units of a layer of any network: is there an absence, how sure is that, against which null?

The insertion experiment with controls (`insertion.protocols.controlled_protocol`) on a network and, through the same
code, on copies of it with random weights. A unit's lowest patches lower its response in any network, so the absence
score counts only where it exceeds what the copies reach; a veto counts by itself, because no additive unit has one. The
rule was chosen so that nothing is found in a network which learnt nothing: see `decide`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import nn

from absence_utils.display import one_line
from absence_utils.errors import InputError
from absence_utils.images.cache import ImageStack, stack_images
from absence_utils.images.subsets import shuffle_images
from absence_utils.insertion.decisions import CONTEXT, NONE, SUPPRESSED, UNDECIDED, decide, in_sd, null_limit
from absence_utils.insertion.design import InsertionConfig, chosen_units
from absence_utils.insertion.protocols import (
    ControlledResult,
    controlled_protocol,
    mine_splits,
    split_in_thirds,
)
from absence_utils.insertion.scores import MAIN_CONTROL, MIN_EFFECT, select_score
from absence_utils.patches.book import PatchBook
from absence_utils.units import dataset_responses

FEWEST = 3  # patches of each kind with which an interval still means something


@dataclass(eq=False)
class LayerStudy:
    """A layer's units under the controlled protocol, and those of copies with random weights.

    Attributes:
        model, layer, setting: what was studied, and how.
        images: the images in random order; `fair` and `book` number them so.
        responses: [image, unit] to untouched images, all units of the layer, in the units of the layer.
        book: extreme patches of all images.
        fair: scores of the units studied, from disjoint sets of images.
        null: `fair.scores` of the random copies, with a column copy.
        verdicts: a row for each unit studied, see `decide`.
        least: smallest veto score that counts, sd.
    """

    model: nn.Module
    layer: str | None
    setting: InsertionConfig
    images: ImageStack
    responses: np.ndarray
    book: PatchBook
    fair: ControlledResult
    null: pd.DataFrame
    verdicts: pd.DataFrame
    least: float = MIN_EFFECT

    __repr__ = one_line

    @property
    def limit(self) -> float:
        """Absence score, in sd, that 95 % of the random copies' units stay below."""
        return null_limit(self.null)


def auto_config(
    count: int,
    edge: int,
    patch: int = 0,
    stride: int = 0,
    *,
    k: int = 8,
    images: int = 16,
    top_share: float = 0.2,
    seed: int = 0,
) -> InsertionConfig:
    """The asked numbers of patches and of images for each unit, lowered to what a folder of `count` images allows.

    A third of the images measures effects, of which `top_share` count as top images; each patch needs two of them.

    Args:
        count: images there are.
        edge: px of their shorter side.
        patch, stride: px; 0 for a quarter of the edge, and for half a patch.
        k, images: most patches of each kind, and most images of each unit and group.
        top_share, seed: see `insertion.protocols.controlled_protocol` and `insertion.design.InsertionConfig`.

    Raises:
        InputError: too few images for three patches of each kind; says how many are needed.
    """
    patch = patch or max(2, edge // 4)
    stride = stride or max(1, patch // 2)
    available = int(count / 3 * top_share)
    if images < 2 * FEWEST or k < FEWEST:
        problem = f"{k} patches in {images} images of a unit are too few for an interval"
        raise InputError("pasted", problem, f"Give k={FEWEST} and pasted={2 * FEWEST}, or more.")
    images = min(images, available)
    k = min(k, images // 2)
    if k < FEWEST:
        needed = int(np.ceil(3 * 2 * FEWEST / top_share))
        remedy = f"Give {needed} or more" + (
            ", or raise top_share (at most 0.5)." if top_share < 0.5 else "."
        )
        raise InputError("images", f"{count} images are too few for an interval", remedy)
    return InsertionConfig(patch, stride, k, images, "one", seed=seed)


def study_layer(
    model: nn.Module,
    layer: str | None,
    dataset,
    setting: InsertionConfig,
    random_copies: Sequence[nn.Module],
    *,
    units: Sequence[int] | None = None,
    most: int = 0,
    null_units: int = 64,
    redraws: int = 2,
    top_share: float = 0.2,
    control_units: int | None = None,
    feather: int = 4,
) -> LayerStudy:
    """Ask every unit whether its lowest patches suppress it, more than at random weights, and only in context.

    Args:
        model, layer: see `units.feature_map`.
        dataset: an image dataset, see `images`; it is shuffled with the setting's seed.
        setting: of the insertion experiment, see `auto_config`.
        random_copies: the same network with random weights, several, because one draw of weights says little of
            another (`models.random_copy`).
        units: channels that must be studied; none in particular if None.
        most: study at most this many, those asked for and others evenly spread over the layer; 0 for the whole layer.
            A verdict is corrected for all units studied, so a unit that is asked alone, perhaps since it looked best
            among many, gets the verdict that it gets among many.
        null_units: units of the random copies, evenly spread, together.
        redraws, top_share, control_units, feather: see `insertion.protocols.controlled_protocol`.

    Raises:
        InputError: no random copy, units that do not exist, too few images.
    """
    if not random_copies:
        raise InputError("random_copies", "there is none", "Give at least one network with random weights.")
    stack = stack_images(shuffle_images(dataset, setting.seed))
    how = {"redraws": redraws, "top_share": top_share, "feather": feather}
    book, mined = mine_splits(model, layer, stack, setting, redraws)
    responses = dataset_responses(model, layer, stack, pool=setting.pool).numpy()
    chosen = _spread(np.arange(responses.shape[1]), most)
    if units is not None:
        chosen = np.union1d(chosen_units(units, responses.shape[1]), chosen)
    fair = _fair(model, layer, stack, mined, responses, setting, chosen, control_units=control_units, **how)
    each = max(1, -(-null_units // len(random_copies)))
    nulls = []
    for number, copy in enumerate(random_copies):
        _, mined = mine_splits(copy, layer, stack, setting, redraws, whole=False)
        own = dataset_responses(copy, layer, stack, pool=setting.pool).numpy()
        few = _spread(np.arange(own.shape[1]), each)
        found = _fair(copy, layer, stack, mined, own, setting, few, control_units=0, **how)
        nulls.append(found.scores.assign(copy=number))
    null = pd.concat(nulls, ignore_index=True)
    return LayerStudy(
        model, layer, setting, stack, responses, book, fair, null, decide(fair.scores, null)
    )  # fmt: skip


def _fair(model, layer, stack, book, responses, setting, units, **how) -> ControlledResult:
    _, chosen_on, measured_on = split_in_thirds(len(stack))
    return controlled_protocol(
        model, layer, stack, book, chosen_on, measured_on, setting, units=units, responses=responses, **how
    )


def _spread(units: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of the units, evenly spread over their order."""
    if not most or most >= len(units):
        return units
    return units[np.linspace(0, len(units) - 1, most).round().astype(int)]


def power_warning(study: LayerStudy) -> str:
    """A sentence where this test can show little, since random copies are suppressed more than the network; else ""."""
    own = study.verdicts["absence"].median()
    null = select_score(study.null, "absence", MAIN_CONTROL)["value"].median()
    if not own < null:
        return ""
    return (
        f"Lowest patches of {study.setting.patch} px lower this layer less than its random copies (median "
        f"{in_sd(own)} against {in_sd(null)}): of absences that patches of this size carry, it can show little. What "
        "is suppressed by larger or spread-out things is on the cards, not in the verdicts."
    )


def strongest_units(verdicts: pd.DataFrame, count: int) -> list[int]:
    """Units worth a card: those with a verdict first (veto before suppressed), then by absence score, highest first."""
    order = {CONTEXT: 0, SUPPRESSED: 1, NONE: 2, UNDECIDED: 3}
    ranked = verdicts.assign(order=verdicts["verdict"].map(order)).sort_values(
        ["order", "absence"], ascending=[True, False], kind="stable"
    )
    return ranked["unit"].head(count).tolist()


def parse_units(text: str) -> list[int] | None:
    """Channels of a notebook's parameter: "auto" and "all" are None, "3, 14" is [3, 14].

    Raises:
        InputError: anything else.
    """
    text = str(text).strip().strip("[]")
    if text in ("auto", "all"):
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            "unit", f"{text!r} is no channel", "Write a number, several as '3, 14', 'auto' or 'all'."
        ) from None
