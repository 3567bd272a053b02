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
from scipy import stats as scipy_stats
from torch import nn

from absence_utils.errors import InputError
from absence_utils.images.cache import ImageStack, stack_images
from absence_utils.images.subsets import shuffle_images
from absence_utils.insertion.design import InsertionConfig, chosen_units
from absence_utils.insertion.protocols import (
    ControlledResult,
    controlled_protocol,
    mine_splits,
    split_in_thirds,
)
from absence_utils.insertion.scores import MAIN_CONTROL, MIN_EFFECT, select_score
from absence_utils.patches.book import PatchBook
from absence_utils.stats import fdr_adjust, percentile_of
from absence_utils.units import dataset_responses

CONTEXT, SUPPRESSED, NONE, UNDECIDED = "veto", "suppressed", "no absence found", "undecided"
LEVEL = 0.05  # false discovery rate over the units studied
LIMIT = 0.95  # quantile of the random copies' absence scores that has to be exceeded
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


def null_limit(null: pd.DataFrame) -> float:
    """The absence score that 95 % of the units of random copies stay below; NaN where none of them has one."""
    scores = select_score(null, "absence", MAIN_CONTROL)["value"]
    return float(scores.quantile(LIMIT)) if scores.notna().any() else float("nan")


def decide(scores: pd.DataFrame, null: pd.DataFrame) -> pd.DataFrame:
    """A verdict for each unit.

    "veto": the drop on top images exceeds that of the same patches on median images by more than `scores.MIN_EFFECT`
    sd. "suppressed": no such veto, but the absence score exceeds what 95 % of the random copies' units reach. Both by a
    one-sided t-test with the score's own standard error, adjusted over the units studied (Benjamini and Hochberg).
    "no absence found": neither; it is not ruled out where the interval of the absence score reaches beyond the limit.
    "undecided": the scores could not be measured (a unit that never changes).

    It is not enough that the score lies above that limit: of the units of another random copy one in twenty does so by
    construction, and in some networks one in four.

    Args:
        scores: of the network's units, as `scores.score_table` gives them.
        null: the same for random copies.

    Returns:
        Columns unit, verdict, absence, absence_low, absence_high, percentile (of the absence score among the random
        copies' units, 0..100), limit, q_absence (beyond the limit), veto, veto_low, veto_high, q_veto (beyond
        `scores.MIN_EFFECT`), presence, studied (units corrected for). Scores in sd of the unit's response.
    """
    absence, veto = (
        select_score(scores, "absence", MAIN_CONTROL),
        select_score(scores, "veto", "median images"),
    )
    limit = null_limit(null)
    table = pd.DataFrame({
        "unit": absence.index,
        "absence": absence["value"].to_numpy(), "absence_low": absence["low"].to_numpy(),
        "absence_high": absence["high"].to_numpy(),
        "percentile": percentile_of(absence["value"], select_score(null, "absence", MAIN_CONTROL)["value"]),
        "limit": limit,
        "q_absence": fdr_adjust(one_sided_p(absence, limit)),
        "veto": veto["value"].to_numpy(), "veto_low": veto["low"].to_numpy(),
        "veto_high": veto["high"].to_numpy(),
        "q_veto": fdr_adjust(one_sided_p(veto, MIN_EFFECT)),
        "presence": select_score(scores, "presence", MAIN_CONTROL)["value"].to_numpy(),
    })  # fmt: skip
    measured = table["absence"].notna() & table["veto"].notna()
    verdict = np.where(table["q_absence"] < LEVEL, SUPPRESSED, NONE)
    vetoed = (table["q_veto"] < LEVEL) & (table["absence"] > 0)
    verdict = np.where(vetoed, CONTEXT, verdict)
    table.insert(1, "verdict", np.where(measured, verdict, UNDECIDED))
    return table.assign(studied=int(measured.sum()))


def one_sided_p(scores: pd.DataFrame, least: float) -> np.ndarray:
    """One-sided p-value of "the score is at most `least`", by the t distribution behind its interval; NaN stays."""
    value, half, df = (
        scores["value"].to_numpy(float),
        ((scores["high"] - scores["low"]) / 2).to_numpy(float),
        scores["df"].to_numpy(float),
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        error = half / scipy_stats.t.ppf(0.975, df)
        p = scipy_stats.t.sf((value - least) / error, df)
    return np.where((error == 0) & (value == least), 1.0, p)


def null_false_positives(null: pd.DataFrame) -> pd.DataFrame:
    """The verdicts on the random copies themselves, each judged against the others: whatever is found is wrong.

    Args:
        null: as in `LayerStudy`, of two copies or more; fewer give an empty table.

    Returns:
        As `decide`, with a column copy.
    """
    parts = []
    for number in null["copy"].unique() if null["copy"].nunique() > 1 else []:
        own = null["copy"] == number
        parts.append(decide(null[own], null[~own]).assign(copy=number))
    return pd.concat(parts, ignore_index=True) if parts else decide(null, null).iloc[:0].assign(copy=0)


def describe_verdict(row: pd.Series, patch: int) -> str:
    """A verdict of `decide` in words, with its uncertainty, for patches of `patch` px. It does not name the verdict."""
    if np.isnan(row["absence"]) or np.isnan(row["veto"]):
        return (
            "The scores could not be measured: the unit hardly changes over these images, or has too few images above "
            "the level that counts as top."
        )
    drop = f"{_sd(row['absence'])} ({_interval(row, 'absence')})"
    random = "no copy with random weights has such a score"
    if not np.isnan(row["limit"]):
        random = f"95 % of the units of copies with random weights stay below {_sd(row['limit'])}"
    veto = f"{_sd(row['veto'])} ({_interval(row, 'veto')})"
    if row["verdict"] == CONTEXT:
        return (
            f"On the unit's top images its lowest patches ({patch} px) lower the response by {veto} more than the same "
            "patches do on images of median response, which no additive unit can show. Absence score "
            f"{drop} against random patches at the same places; {random}."
        )
    corrected = f"corrected for the {row['studied']} units studied"
    context = (
        f"That this depends on context could not be shown: the veto is {veto}; {corrected}, it does not clearly exceed "
        f"{MIN_EFFECT} sd (q {row['q_veto']:.2f})."
    )
    what = f"Its lowest patches ({patch} px) lower the response by {drop} more than random ones at the same places"
    if row["verdict"] == SUPPRESSED:
        return f"{what}; {random}. {context}"
    if row["absence_high"] < row["limit"]:
        return f"{what}, but {random}, and any unit's lowest patches lower it. {context}"
    beyond = (
        f"{corrected}, it does not clearly exceed that (q {row['q_absence']:.2f}), and it is not ruled out"
    )
    more = (
        " The interval reaches down to nothing, too: more images would tell."
        if row["absence_low"] <= 0
        else ""
    )
    return f"{what}; {random}, and any unit's lowest patches lower it: {beyond}.{more} {context}"


def power_warning(study: LayerStudy) -> str:
    """A sentence where this test can show little, since random copies are suppressed more than the network; else ""."""
    own = study.verdicts["absence"].median()
    null = select_score(study.null, "absence", MAIN_CONTROL)["value"].median()
    if not own < null:
        return ""
    return (
        f"Lowest patches of {study.setting.patch} px lower this layer less than its random copies (median "
        f"{_sd(own)} against {_sd(null)}): of absences that patches of this size carry, it can show little. What is "
        "suppressed by larger or spread-out things is on the cards, not in the verdicts."
    )


def _sd(value: float) -> str:
    return f"{value:.2f} sd".replace("-", "−")


def _interval(row: pd.Series, score: str) -> str:
    low, high = row[f"{score}_low"], row[f"{score}_high"]
    return f"95 % interval {low:.2f} to {high:.2f}".replace("-", "−")


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
