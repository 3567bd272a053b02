"""Does pasting a unit's lowest patches into its top images suppress it? Asked twice.

`published_protocol` asks as the paper does. Its test cannot fail: the patches were chosen for a low response, so a
unit without any inhibition passes as well. `controlled_protocol` asks so that the answer can be "no" (design section
6): patches, the meaning of "top" and effects come from three disjoint sets of images, every pasted patch is compared
with another one at the same place of the same image, images and patches both count as random, and the veto score asks
whether the suppression depends on what else is in the image. `insertion_study` does both on one pass of mining.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from scipy import stats as scipy_stats
from torch import nn

from absence_utils.errors import InputError, require_at_least
from absence_utils.images.cache import ImageStack, stack_images
from absence_utils.patches.book import PatchBook
from absence_utils.patches.mining import mine_patches
from absence_utils.units import dataset_responses

from .design import NO_IMAGE, InsertionConfig, Treatment, as_array, chosen_units, plan
from .execution import BLANK_IMAGE, SELF_PATCH, UNMODIFIED, PatchBank, empty_bank, run_insertions
from .paste import CORNERS, LOCATIONS, scramble_phases
from .scores import score_table

PUBLISHED = ("top images", "random images", "top + highest", "top + random", "top + lowest")


@dataclass
class Published:
    """The paper's table.

    Attributes:
        responses: a row for each unit and condition of `PUBLISHED`: unit, condition, mean, sd (over inputs), n.
        tests: a row for each unit: unit, t, p (unpaired t-test, lowest against random), significant (p below 0.05 and
            lower with lowest patches), absence (the absence score of the same inputs, in sd: not a clean one).
        inputs: every input with its response, see `design.plan`.
        bank: the patches that `inputs` names by number.
    """

    responses: pd.DataFrame
    tests: pd.DataFrame
    inputs: pd.DataFrame
    bank: PatchBank

    def significance(self, units) -> pd.Series:
        """1 where the test of a unit is significant, 0 where not, NaN where it was not asked; indexed by unit."""
        return self.tests.set_index("unit")["significant"].astype(float).reindex(units)


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
    """Both protocols on one network and layer, and the book of each (all images; the first third)."""

    published: Published
    fair: ControlledResult
    book: PatchBook
    clean_book: PatchBook


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
) -> tuple[PatchBook | None, PatchBook]:
    """Books of all images (None unless `whole`) and of the first third alone, each image mined once.

    Both hold as many random patches as `redraws` draws of a control take.
    """
    how = {name: getattr(setting, name) for name in ("patch", "stride", "k", "pool", "seed")}
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
        published: a setting for the published protocol alone, with the same patch, stride, k and pool.
        published_units: how many of the units, drawn at random, the published protocol is asked of; all if None. With
            all patches in all images it is the dearer of the two.
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
    responses = dataset_responses(model, layer, stack, pool=setting.pool).numpy()
    chosen = chosen_units(units, responses.shape[1])
    if published_units is not None:
        chosen = np.sort(setting.generator(5).permutation(chosen)[:published_units])
    asked = published_protocol(
        model, layer, stack, book, published or setting, units=chosen, responses=responses
    )
    options = {"units": units, "responses": responses, "redraws": redraws, **options}
    _, chosen_on, measured_on = split_in_thirds(len(stack))
    fair = controlled_protocol(model, layer, stack, clean, chosen_on, measured_on, setting, **options)
    return InsertionStudy(asked, fair, book, clean)


def published_protocol(
    model: nn.Module,
    layer: str | None,
    dataset,
    book: PatchBook,
    setting: InsertionConfig,
    *,
    units=None,
    responses: np.ndarray | None = None,
) -> Published:
    """The paper's insertion experiment: patches and top images from the same images, an unpaired test for each unit.

    For each unit its most active images (`setting.images` of them), its eight highest and lowest patches and eight
    random ones, each pasted into a random corner; then Student's t-test between the responses with lowest and with
    random patches, as if every input were independent of the others.

    Args:
        model, layer: see `units.feature_map`.
        dataset: the images that the book was mined in.
        book: extreme patches of all of them.
        setting: patch, stride, k and pool must be those of the book.
        units: channels; all if None.
        responses: [image, unit] of untouched images, if they are known.

    Raises:
        InputError: a book of other settings, fewer images than asked for, units that do not exist.
    """
    stack = stack_images(dataset)
    _check_book(book, setting, stack)
    if setting.images > len(stack):
        raise InputError("images", f"{setting.images} of {len(stack)}", "Ask for fewer, or give more images.")
    if responses is None:
        responses = dataset_responses(model, layer, stack, pool=setting.pool).numpy()
    units = chosen_units(units, responses.shape[1])
    own = responses[:, units].T  # [unit, image]
    top = np.argsort(-own, axis=1, kind="stable")[:, : setting.images]
    bank = empty_bank(stack, setting.patch)
    kinds = _kinds(bank, stack, book, setting, units, redraws=1)
    corners = setting.generator(1).integers(CORNERS, size=(len(stack), setting.k))
    treatments = [Treatment("top", kind, kinds[kind], corners) for kind in ("highest", "random", "lowest")]
    requests = plan({"top": top}, treatments, units, setting.pairing)
    inputs = run_insertions(
        model, layer, stack, bank, requests, pool=setting.pool, description="published protocol"
    )
    shape = (len(units), setting.images, setting.k)
    values = {kind: as_array(inputs, "top", kind, shape) for kind in ("highest", "random", "lowest")}
    samples = [np.take_along_axis(own, top, axis=1), own]
    samples += [values[kind].reshape(len(units), -1) for kind in ("highest", "random", "lowest")]
    rows = []
    for condition, sample in zip(PUBLISHED, samples, strict=True):
        mean, sd = np.nanmean(sample, axis=1), np.nanstd(sample, axis=1, ddof=1)
        about = {"unit": units, "condition": condition, "mean": mean, "sd": sd}
        rows.append(pd.DataFrame({**about, "n": (~np.isnan(sample)).sum(axis=1)}))
    with np.errstate(invalid="ignore", divide="ignore"):
        t, p = scipy_stats.ttest_ind(samples[4], samples[3], axis=1, nan_policy="omit")
        absence = np.nanmean(values["random"] - values["lowest"], axis=(1, 2)) / own.std(axis=1, ddof=1)
    tests = {"unit": units, "t": t, "p": p, "significant": (p < 0.05) & (t < 0), "absence": absence}
    return Published(pd.concat(rows, ignore_index=True), pd.DataFrame(tests), inputs, bank)


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
    stack = stack_images(dataset)
    _check_book(book, setting, stack)
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
    kinds = _kinds(bank, stack, book, setting, units, redraws)
    requests = plan(groups, _treatments(bank, kinds, setting, units, control_units), units, setting.pairing)
    how = {"pool": setting.pool, "feather": feather, "description": "controlled protocol"}
    inputs = run_insertions(model, layer, stack, bank, requests, **how)
    spread = own[:, list(measured_on)].std(axis=1, ddof=1)
    scores, about = score_table(inputs, units, spread, (setting.images, setting.k))
    about.insert(1, "mean", own[:, list(measured_on)].mean(axis=1))
    return ControlledResult(scores, about, inputs, bank)


def _check_book(book: PatchBook, setting: InsertionConfig, stack: ImageStack) -> None:
    for name in ("patch", "stride", "k", "pool"):
        if getattr(book, name) != getattr(setting, name):
            problem = f"{getattr(book, name)!r} in the book, {getattr(setting, name)!r} in the setting"
            raise InputError(name, problem, "Mine with the setting's values.")
    if book.fingerprint != stack.fingerprint:
        raise InputError("book", "it was mined in other images", "Give the images it was mined in.")
    if book.highest.image.shape[1] < book.k:
        raise InputError("k", f"the book has {book.highest.image.shape[1]} patches of {book.k}", "Lower k.")


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


def _kinds(
    bank: PatchBank,
    stack: ImageStack,
    book: PatchBook,
    setting: InsertionConfig,
    units: np.ndarray,
    redraws: int,
) -> dict[str, np.ndarray]:
    """Numbers of the patches of each kind, [draw, unit or 1, patch], after filling the bank."""
    require_at_least("redraws", redraws, 1)
    kinds = {}
    for side in ("highest", "lowest"):
        found = getattr(book, side)
        kinds[side] = bank.add_windows(stack, found.image[units], found.box[units])[None]
    image, box = _random(book, redraws * setting.k, setting)
    kinds["random"] = bank.add_windows(stack, image, box).reshape(redraws, 1, setting.k)
    return kinds


def _random(book: PatchBook, count: int, setting: InsertionConfig):
    """`count` windows out of the book's reservoir, which is a random sample: image [count] and box [count, 4]."""
    there = len(book.random.image)
    if count > there:
        remedy = f"Lower redraws to {there // setting.k}, or mine with reservoir={count}."
        raise InputError("redraws", f"{count} random patches are needed, the book has {there}", remedy)
    chosen = torch.from_numpy(setting.generator(2).permutation(there)[:count])
    return book.random.image[chosen], book.random.box[chosen]


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
