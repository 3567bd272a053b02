"""Does pasting a unit's lowest patches into its top images suppress it? Asked twice.

`published.published_protocol` asks as the release does. `controlled_protocol` asks so that the answer can be "no"
(design section 6): patches, the meaning of "top" and effects come from three disjoint sets of images, every pasted
patch is compared with another one at the same place of the same image, images and patches both count as random, and the
veto score asks whether the suppression depends on what else is in the image. `insertion_study` does both on one pass
of mining.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd
from torch import nn

from absence_utils.errors import InputError, require_at_least, require_choice
from absence_utils.images.cache import ImageStack, stack_images
from absence_utils.layers.fuse import fused
from absence_utils.patches.book import PatchBook
from absence_utils.patches.mining import mine_patches
from absence_utils.units import dataset_responses

from .design import NO_IMAGE, InsertionConfig, Treatment, chosen_units, plan
from .execution import BLANK_IMAGE, SELF_PATCH, UNMODIFIED, PatchBank, empty_bank, run_insertions
from .paste import LOCATIONS, scramble_phases
from .published import (
    Published,
    check_book,
    extreme_patches,
    published_protocol,
    shared_random_patches,
)
from .scores import score_table


@dataclass
class ControlledResult:
    """What the fair protocol finds.

    Attributes:
        scores: a row for each unit and score, see `scores.score_table`.
        units: a row for each unit: unit, sd (over untouched images), mean, index A / (A + P), beside and beyond (shares
            of the change from positions beside the patch and beyond its reach).
        inputs: every input with its response, see `design.plan`.
        bank: the patches that `inputs` names by number.
    """

    scores: pd.DataFrame
    units: pd.DataFrame
    inputs: pd.DataFrame
    bank: PatchBank


@dataclass
class InsertionStudy:
    """Both protocols on one network and layer.

    Attributes:
        published: as published, one random patch in each image.
        fair: the controlled protocol.
        book, clean_book: of all images, and of the first third.
        all_pairs: the published protocol with every patch in every image; None where it was not asked.
    """

    published: Published
    fair: ControlledResult
    book: PatchBook
    clean_book: PatchBook
    all_pairs: Published | None = None

    def published_table(self) -> pd.DataFrame:
        """`Published.responses` with its `tests`: a row for each design ("published", "all pairs"), unit, condition."""
        designs = {"published": self.published, "all pairs": self.all_pairs}
        tables = [
            each.responses.merge(each.tests, on="unit").assign(design=name)
            for name, each in designs.items()
            if each
        ]
        return pd.concat(tables, ignore_index=True)


def split_in_thirds(count: int) -> tuple[range, range, range]:
    """Thirds of `count` images: for patches, for what "top" means, for effects. Shuffle the images before."""
    if count < 6:
        raise InputError("images", f"{count} images do not make three sets", "Give six or more.")
    first, second = count // 3, 2 * count // 3
    return range(first), range(first, second), range(second, count)


def mine_splits(
    model: nn.Module,
    layer: str | None,
    stack: ImageStack,
    setting: InsertionConfig,
    redraws: int,
    *,
    whole: bool = True,
    per_image: int = 0,
) -> tuple[PatchBook | None, PatchBook]:
    """Books of all images (None unless `whole`) and of the first third alone, each image mined once.

    Both hold as many random patches as `redraws` draws of a control take; `per_image` as in `patches.mine_patches`.
    """
    how = {name: getattr(setting, name) for name in ("patch", "stride", "k", "pool", "seed")}
    how["per_image"] = per_image
    how["reservoir"] = max(256, setting.k * redraws)
    first = split_in_thirds(len(stack))[0]
    clean = mine_patches(model, layer, stack, **how, part=first)
    if not whole:
        return None, clean
    return clean.merge(mine_patches(model, layer, stack, **how, part=range(first.stop, len(stack)))), clean


def insertion_study(
    model: nn.Module,
    layer: str | None,
    dataset,
    setting: InsertionConfig,
    *,
    units=None,
    published: InsertionConfig | None = None,
    all_pairs: InsertionConfig | None = None,
    published_units: int | None = None,
    redraws: int = 20,
    **options,
) -> InsertionStudy:
    """Mine once, then ask both ways.

    Args:
        model, layer: see `units.feature_map`.
        dataset: images in random order (`images.subsets.shuffle_images`).
        setting: of both protocols.
        units: channels; all if None.
        published: a setting for the published protocol alone, with the same patch, stride, k and pool; `setting`
            with `pairs="one_random"` if None.
        all_pairs: a setting for the same with every patch in every image, which is not asked if None.
        published_units: how many of the units, drawn at random, the published protocol is asked of; all if None.
        redraws, options: of `controlled_protocol`.

    Example:
        >>> from absence_utils import insertion_study, load_images, load_model
        >>> from absence_utils.insertion import InsertionConfig
        >>> model = load_model("concept_scenes")
        >>> scenes = load_images("concept_scenes", model, limit=45)
        >>> setting = InsertionConfig(patch=24, stride=20, k=3, images=6, pairs="one")
        >>> study = insertion_study(model, "block4", scenes, setting, units=[3, 14], redraws=2, top_share=0.5)
        >>> sorted(study.fair.scores.unit.unique().tolist())
        [3, 14]
    """
    stack = stack_images(dataset)
    book, clean = mine_splits(model, layer, stack, setting, redraws)
    fast = fused(model, layer, tuple(stack.take([0]).shape[1:]))
    responses = dataset_responses(fast, layer, stack, pool=setting.pool).numpy()
    chosen = chosen_units(units, responses.shape[1])
    if published_units is not None:
        chosen = np.sort(setting.generator(5).permutation(chosen)[:published_units])
    how = {"units": chosen, "responses": responses}
    published = published or replace(setting, pairs="one_random")
    asked = published_protocol(model, layer, stack, book, published, **how)
    again = all_pairs and published_protocol(model, layer, stack, book, all_pairs, **how)
    options = {"units": units, "responses": responses, "redraws": redraws, **options}
    _, chosen_on, measured_on = split_in_thirds(len(stack))
    fair = controlled_protocol(model, layer, stack, clean, chosen_on, measured_on, setting, **options)
    return InsertionStudy(asked, fair, book, clean, again)


def controlled_protocol(
    model: nn.Module,
    layer: str | None,
    dataset,
    book: PatchBook,
    chosen_on: range,
    measured_on: range,
    setting: InsertionConfig,
    *,
    units=None,
    responses: np.ndarray | None = None,
    redraws: int = 20,
    top_share: float = 0.1,
    control_units: int | None = None,
    feather: int = 6,
) -> ControlledResult:
    """The insertion experiment that can answer "no", see the top of this module and `scores` for what is computed.

    A unit's top images are a random sample of the images in `measured_on` whose response exceeds what the highest
    `top_share` of `chosen_on` reach; its neutral images are as many from around the median. A blank image is the
    second neutral one.

    Args:
        model, layer: see `units.feature_map`.
        dataset: images in random order.
        book: extreme patches of images that are neither in `chosen_on` nor in `measured_on`.
        chosen_on, measured_on: numbers of images, disjoint.
        setting: patch, stride, k and pool must be those of the book; `setting.images` are drawn for each group.
        units: channels; all if None.
        responses: [image, unit] of untouched images, if they are known.
        redraws: how many times the random patches are drawn; a control is the mean over them.
        top_share: share of images that count as top, in 0..0.5.
        control_units: how many units, drawn at random, get the controls that no other unit shares (phase-scrambled
            patches, soft edges, the centre of the image); all if None.
        feather: width of the soft edges, px.

    Raises:
        InputError: sets of images that overlap, a book of other settings, fewer top images than asked for.
    """
    require_choice("pairs", setting.pairs, ("all", "one"))
    stack = stack_images(dataset)
    check_book(book, setting, stack)
    _check_splits(book, chosen_on, measured_on, len(stack))
    wanted = len(measured_on) * top_share
    if not 0 < top_share <= 0.5 or wanted < setting.images:
        share = f"{top_share:.0%} of {len(measured_on)} images are about {wanted:.0f}"
        problem = f"{setting.images} for each unit, but {share}"
        remedy = "Ask for fewer, raise top_share (at most 0.5), or give more images."
        raise InputError("images", problem, remedy)
    if responses is None:
        responses = dataset_responses(model, layer, stack, pool=setting.pool).numpy()
    units = chosen_units(units, responses.shape[1])
    own = responses[:, units].T
    groups = _groups(own, units, chosen_on, measured_on, setting, top_share)
    bank = empty_bank(stack, setting.patch)
    require_at_least("redraws", redraws, 1)
    kinds = {side: numbers[None] for side, numbers in extreme_patches(bank, stack, book, units).items()}
    kinds["random"] = shared_random_patches(bank, stack, book, setting, redraws)[:, None]
    requests = plan(groups, _treatments(bank, kinds, setting, units, control_units), units, setting.pairing)
    how = {"pool": setting.pool, "feather": feather, "description": "controlled protocol"}
    inputs = run_insertions(model, layer, stack, bank, requests, **how)
    spread = own[:, list(measured_on)].std(axis=1, ddof=1)
    scores, about = score_table(inputs, units, spread, (setting.images, setting.k))
    about.insert(1, "mean", own[:, list(measured_on)].mean(axis=1))
    return ControlledResult(scores, about, inputs, bank)


def _check_splits(book: PatchBook, chosen_on: range, measured_on: range, count: int) -> None:
    mined = {index for start, stop in book.covered for index in range(start, stop)}
    sets = {"the book": mined, "chosen_on": set(chosen_on), "measured_on": set(measured_on)}
    for first, second in combinations(sets, 2):
        common = sets[first] & sets[second]
        if common:
            problem = f"{len(common)} images are in {first} and in {second}, for example {min(common)}"
            raise InputError("splits", problem, "Give disjoint sets: what is chosen must not be measured.")
    beyond = [index for index in (*chosen_on, *measured_on) if not 0 <= index < count]
    if beyond or not len(chosen_on) or not len(measured_on):
        raise InputError("splits", "empty, or beyond the images", f"Use numbers from 0 to {count - 1}.")


def _groups(
    own: np.ndarray,
    units: np.ndarray,
    chosen_on: range,
    measured_on: range,
    setting: InsertionConfig,
    top_share: float,
) -> dict[str, np.ndarray]:
    """[unit, image] numbers of top and of neutral images, and the blank one.

    Each unit draws by itself: what it gets does not depend on which other units are asked.
    """
    levels = own[:, list(chosen_on)]
    low, middle_low, middle_high = np.quantile(
        levels, [1 - top_share, 0.5 - top_share / 2, 0.5 + top_share / 2], axis=1
    )
    measured = np.asarray(measured_on)
    top, neutral = (np.full((len(own), setting.images), NO_IMAGE) for _ in range(2))
    for slot, values in enumerate(own[:, list(measured_on)]):
        generator = setting.generator(3, int(units[slot]))
        inside = (values >= middle_low[slot]) & (values <= middle_high[slot])
        for group, fits in ((top, values >= low[slot]), (neutral, inside)):
            found = generator.permutation(measured[fits])[: setting.images]
            group[slot, : len(found)] = found
    return {"top": top, "neutral": neutral, "blank": np.full((len(own), 1), BLANK_IMAGE)}


def _treatments(
    bank: PatchBank, kinds: dict, setting: InsertionConfig, units: np.ndarray, control_units: int | None
) -> list[Treatment]:
    """Every condition of the fair protocol."""
    corners, centre = setting.corners, np.full(setting.k, LOCATIONS.index("centre"))
    few = np.zeros(len(units), bool)
    count = len(units) if control_units is None else control_units
    require_at_least("control_units", count, 0)
    few[setting.generator(4).permutation(len(units))[:count]] = True
    lowest = kinds["lowest"][0, few].ravel()
    scrambled = np.zeros_like(kinds["lowest"])
    if len(lowest):
        numbers = bank.add(scramble_phases(bank.pixels[lowest], setting.seed))
        scrambled[0, few] = numbers.reshape(-1, setting.k)
    (mean,) = bank.add(bank.pixels.new_zeros(1, *bank.pixels.shape[1:]))

    def same(number: int) -> np.ndarray:
        return np.full((1, 1, setting.k), number)

    every = [
        Treatment(group, kind, kinds[kind], corners)
        for group in ("top", "neutral", "blank")
        for kind in ("lowest", "random")
    ]
    return [
        *every,
        Treatment("top", "highest", kinds["highest"], corners),
        Treatment("top", "mean colour", same(mean), corners),
        Treatment("top", "own patch", same(SELF_PATCH), corners),
        Treatment("top", "untouched", same(UNMODIFIED), corners),
        Treatment("top", "scrambled", scrambled, corners, units=few),
        Treatment("top", "lowest, soft", kinds["lowest"], corners, feathered=True, units=few),
        Treatment("top", "random, soft", kinds["random"], corners, feathered=True, units=few),
        Treatment("top", "lowest, centre", kinds["lowest"], centre, units=few),
        Treatment("top", "random, centre", kinds["random"], centre, units=few),
    ]
