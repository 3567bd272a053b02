"""The published insertion experiment, as the authors' release runs it, and the same with all patches in all images.

Patches, top images and effects come from the same images, and the test is an unpaired t-test for each unit. Where
patches differ in what they add to a unit, it finds that they were chosen for a low response, so units without any
inhibition pass as well. `protocols.controlled_protocol` asks so that the answer can be "no".

The settings are facts about the release visinf/what-is-missing (commit f6ded36); the code here was written without it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy import stats as scipy_stats
from torch import nn

from absence_utils.errors import InputError, require_choice
from absence_utils.images.cache import ImageStack, stack_images
from absence_utils.patches.book import PatchBook
from absence_utils.units import dataset_responses

from .design import InsertionConfig, Treatment, as_array, chosen_units, plan
from .execution import PatchBank, empty_bank, run_insertions
from .paste import CORNERS

PASTED = ("highest", "random", "lowest")
PUBLISHED = ("top images", "random images", *(f"top + {kind}" for kind in PASTED))
FEWEST = 3  # units that a bootstrap over units needs to say anything
LEVEL = 0.05  # of each unit's test, not adjusted for their number


@dataclass(frozen=True)
class PublishedDraws:
    """All that the published protocol leaves to chance; the same draws give the same result.

    Attributes:
        image: [unit, k] which image each random patch is cut from.
        corner: [unit, k, 2] its upper left pixel (top, left).
        patch: kind of `PASTED` to [unit, row], which of the unit's k patches goes into its top image number `row`.
        place: kind of `PASTED` to [unit, row], the corner that it is pasted into, a number in `paste.LOCATIONS`.
        random_images: [unit, row] the images of the condition "random images".
    """

    image: np.ndarray
    corner: np.ndarray
    patch: dict[str, np.ndarray]
    place: dict[str, np.ndarray]
    random_images: np.ndarray


@dataclass
class Published:
    """The published table.

    Attributes:
        responses: a row for each unit and condition of `PUBLISHED`: unit, condition, mean, sd (over inputs), n.
        tests: a row for each unit: unit, t, p (unpaired two-sided t-test, lowest against random), significant (p of
            at most 0.05, either way: the published share), lower (and lower with lowest patches), absence (the
            absence score of the same inputs, in sd: patches and images were chosen on what is measured).
        inputs: every input with its response, see `design.plan`.
        bank: the patches that `inputs` names by number.
        draws: what was left to chance; None for all pairs.
    """

    responses: pd.DataFrame
    tests: pd.DataFrame
    inputs: pd.DataFrame
    bank: PatchBank
    draws: PublishedDraws | None = None

    def table(self) -> pd.DataFrame:
        """A row for each unit: unit, "mean, top images" and so on and "sd, top images" and so on, then `tests`."""
        wide = self.responses.pivot(index="unit", columns="condition", values=["mean", "sd"])
        columns = {f"{what}, {name}": wide[what, name] for what in ("mean", "sd") for name in PUBLISHED}
        return pd.DataFrame(columns).reset_index().merge(self.tests, on="unit")

    def verdict(self, units, column: str = "significant") -> pd.Series:
        """1 where a column of the tests is true, 0 where not, NaN where it was not asked; indexed by unit."""
        return self.tests.set_index("unit")[column].astype(float).reindex(units)


def draw_published(
    setting: InsertionConfig, units: np.ndarray, images: int, size: tuple[int, int]
) -> PublishedDraws:
    """What chance decides, for each unit by a generator of its own: other units that are asked change nothing.

    Args:
        setting: patch, stride, k, images and seed count.
        units: [unit] numbers of the units in their layer.
        images: number of images.
        size: (height, width) of them in px.

    Raises:
        InputError: the images have one row or column of windows, which random patches are never taken from.
    """
    windows = [
        (side - setting.patch) // setting.stride for side in size
    ]  # in a column and a row, less the last
    if min(windows) < 1:
        problem = (
            f"one row or column of windows in {size[0]} x {size[1]} px: random patches leave the last out"
        )
        raise InputError("stride", problem, f"Lower it to at most {min(size) - setting.patch}.")
    image, corner, chosen = [], [], []
    patch, place = ({kind: [] for kind in PASTED} for _ in range(2))
    for unit in units:
        generator = setting.generator(6, int(unit))
        image.append(generator.integers(images, size=setting.k))
        corner.append(setting.stride * generator.integers(windows, size=(setting.k, 2)))
        for kind in PASTED:
            patch[kind].append(generator.integers(setting.k, size=setting.images))
            place[kind].append(generator.integers(CORNERS, size=setting.images))
        chosen.append(generator.choice(images, setting.images, replace=False))
    patch, place = ({kind: np.stack(rows) for kind, rows in of.items()} for of in (patch, place))
    return PublishedDraws(np.stack(image), np.stack(corner), patch, place, np.stack(chosen))


def published_protocol(
    model: nn.Module,
    layer: str | None,
    dataset,
    book: PatchBook,
    setting: InsertionConfig,
    *,
    units=None,
    responses: np.ndarray | None = None,
    draws: PublishedDraws | None = None,
) -> Published:
    """The published insertion experiment: patches and top images from the same images, an unpaired test for each unit.

    For each unit its most active images (`setting.images` of them), its k highest and lowest patches and k random
    ones, pasted into a random corner. With `pairs="one_random"`, as published, one patch drawn at random goes into
    each image, patch and corner drawn anew for each condition, and each unit has random patches of its own. With
    `pairs="all"` every patch goes into every image, and units share random patches and corners. Then Student's t-test
    between the responses with lowest and with random patches, as if every input were independent of the others: with
    all pairs it takes k times as many for independent.

    Args:
        model, layer: see `units.feature_map`.
        dataset: the images that the book was mined in.
        book: extreme patches of all of them.
        setting: patch, stride, k and pool must be those of the book.
        units: channels; all if None.
        responses: [image, unit] of untouched images, if they are known.
        draws: what chance decides under "one_random", if it is known; drawn with the seed of the setting if None.

    Raises:
        InputError: a book of other settings, fewer images than asked for, units that do not exist, other pairs.
    """
    require_choice("pairs", setting.pairs, ("one_random", "all"))
    stack = stack_images(dataset)
    check_book(book, setting, stack)
    if setting.images > len(stack):
        raise InputError("images", f"{setting.images} of {len(stack)}", "Ask for fewer, or give more images.")
    if responses is None:
        responses = dataset_responses(model, layer, stack, pool=setting.pool).numpy()
    units = chosen_units(units, responses.shape[1])
    own = responses[:, units].T  # [unit, image]
    top = np.argsort(-own, axis=1, kind="stable")[:, : setting.images]
    bank = empty_bank(stack, setting.patch)
    kinds = extreme_patches(bank, stack, book, units)
    if setting.pairs == "all":
        draws, untouched = None, own
        requests = _all_pairs(bank, stack, book, setting, units, top, kinds)
    else:
        draws = draws or draw_published(setting, units, len(stack), tuple(stack.take([0]).shape[2:]))
        untouched = np.take_along_axis(own, draws.random_images, axis=1)
        requests = _random_pairs(bank, stack, setting, units, top, kinds, draws)
    inputs = run_insertions(
        model, layer, stack, bank, requests, pool=setting.pool, description="published protocol"
    )
    shape = (len(units), setting.images, setting.k)
    pasted = {kind: as_array(inputs, "top", kind, shape).reshape(len(units), -1) for kind in PASTED}
    samples = [np.take_along_axis(own, top, axis=1), untouched, *pasted.values()]
    tests = _tests(pasted["lowest"], pasted["random"], own.std(axis=1, ddof=1), units)
    return Published(_moments(samples, units), tests, inputs, bank, draws)


def extreme_patches(
    bank: PatchBank, stack: ImageStack, book: PatchBook, units: np.ndarray
) -> dict[str, np.ndarray]:
    """Numbers of the highest and lowest patches of the units, [unit, patch], after filling the bank."""
    return {
        side: bank.add_windows(stack, found.image[units], found.box[units])
        for side, found in (("highest", book.highest), ("lowest", book.lowest))
    }


def shared_random_patches(
    bank: PatchBank, stack: ImageStack, book: PatchBook, setting: InsertionConfig, redraws: int = 1
) -> np.ndarray:
    """Numbers of random patches that all units share, [draw, patch], out of the book's random sample."""
    count, there = redraws * setting.k, len(book.random.image)
    if count > there:
        remedy = f"Lower redraws to {there // setting.k}, or mine with reservoir={count}."
        raise InputError("redraws", f"{count} random patches are needed, the book has {there}", remedy)
    chosen = torch.from_numpy(setting.generator(2).permutation(there)[:count])
    numbers = bank.add_windows(stack, book.random.image[chosen], book.random.box[chosen])
    return numbers.reshape(redraws, setting.k)


def check_book(book: PatchBook, setting: InsertionConfig, stack: ImageStack) -> None:
    """Refuse a book of other settings or images, or one with too few patches."""
    for name in ("patch", "stride", "k", "pool"):
        if getattr(book, name) != getattr(setting, name):
            problem = f"{getattr(book, name)!r} in the book, {getattr(setting, name)!r} in the setting"
            raise InputError(name, problem, "Mine with the setting's values.")
    if book.fingerprint != stack.fingerprint:
        raise InputError("book", "it was mined in other images", "Give the images it was mined in.")
    if book.highest.image.shape[1] < book.k:
        raise InputError("k", f"the book has {book.highest.image.shape[1]} patches of {book.k}", "Lower k.")


def _all_pairs(bank, stack, book, setting, units, top, kinds) -> pd.DataFrame:
    """Requests: every patch of each kind into every top image; corners belong to image and rank of the patch."""
    kinds = {kind: numbers[None] for kind, numbers in kinds.items()}
    kinds["random"] = shared_random_patches(bank, stack, book, setting)[:, None]
    corners = setting.generator(1).integers(CORNERS, size=(len(stack), setting.k))
    treatments = [Treatment("top", kind, kinds[kind], corners) for kind in PASTED]
    return plan({"top": top}, treatments, units, setting.pairing)


def _random_pairs(bank, stack, setting, units, top, kinds, draws: PublishedDraws) -> pd.DataFrame:
    """Requests as `plan` makes them: one patch and corner for each unit, kind and top image."""
    box = np.concatenate((draws.corner, np.full_like(draws.corner, setting.patch)), axis=2)
    random = bank.add_windows(stack, torch.from_numpy(draws.image), torch.from_numpy(box))
    kinds = kinds | {"random": random}
    slot, row = np.indices(top.shape).reshape(2, -1)
    parts = []
    for kind in PASTED:
        column, place = draws.patch[kind][slot, row], draws.place[kind][slot, row]
        columns = {"slot": slot, "row": row, "column": column, "unit": units[slot], "image": top[slot, row]}
        columns |= {"patch": kinds[kind][slot, column], "place": place, "feathered": False}
        parts.append(pd.DataFrame(columns).assign(group="top", condition=kind, draw=0))
    table = pd.concat(parts, ignore_index=True)
    return table.astype({"group": "category", "condition": "category"})


def _moments(samples: list[np.ndarray], units: np.ndarray) -> pd.DataFrame:
    """Mean and sd over the inputs of each unit and condition of `PUBLISHED`; NaN is what was not asked."""
    rows = []
    for condition, sample in zip(PUBLISHED, samples, strict=True):
        mean, sd = np.nanmean(sample, axis=1), np.nanstd(sample, axis=1, ddof=1)
        about = {"unit": units, "condition": condition, "mean": mean, "sd": sd}
        rows.append(pd.DataFrame({**about, "n": (~np.isnan(sample)).sum(axis=1)}))
    return pd.concat(rows, ignore_index=True)


def _tests(lowest: np.ndarray, random: np.ndarray, spread: np.ndarray, units: np.ndarray) -> pd.DataFrame:
    """`Published.tests` from [unit, input] responses; a unit that never changes is not significant."""
    with np.errstate(invalid="ignore", divide="ignore"):
        t, p = (
            np.asarray(each, float)
            for each in scipy_stats.ttest_ind(lowest, random, axis=1, nan_policy="omit")
        )
        absence = (np.nanmean(random, axis=1) - np.nanmean(lowest, axis=1)) / spread
    significant = p <= LEVEL
    return pd.DataFrame(
        {
            "unit": units,
            "t": t,
            "p": p,
            "significant": significant,
            "lower": significant & (t < 0),
            "absence": absence,
        }
    )


def published_summary(units: pd.DataFrame, *, draws: int = 2000, seed: int = 0) -> pd.DataFrame:
    """What the release reports of a layer, with 95% intervals over units.

    Args:
        units: a row for each unit as `Published.table` gives them, of one network, or of several random copies whose
            units count as one sample. A column of truth values is a share of units; any other is a mean over units.
        draws, seed: of the bootstrap over units.

    Returns:
        Indexed by quantity (a column of `units`), with value, low and high. Means have bootstrap percentiles (NaN below
        three units), shares Wilson's interval: a bootstrap of 100% has no width.
    """
    generator, found = np.random.default_rng(seed), {}
    for name, values in units.drop(columns="unit").items():
        if values.dtype == bool:
            found[name] = share_interval(values)
            continue
        values = values.dropna().to_numpy(float)
        means = values[generator.integers(len(values), size=(draws, len(values)))].mean(axis=1)
        ends = np.quantile(means, (0.025, 0.975)) if len(values) >= FEWEST else (np.nan, np.nan)
        found[name] = (values.mean(), *ends)
    return pd.DataFrame(found, index=["value", "low", "high"]).T.rename_axis("quantity")


def share_interval(share: pd.Series) -> tuple[float, float, float]:
    """Share of true values with Wilson's 95% interval: (value, low, high)."""
    interval = scipy_stats.binomtest(int(share.sum()), len(share)).proportion_ci(method="wilson")
    return share.mean(), interval.low, interval.high
