"""Is a pole about what the unit answers to, or about one network? It is scored on other networks.

A pole is an image at one end of a unit's range: its synthesised maximum or minimum, or any image that stands
for it. Its effect is the response beyond the blank, in sd of natural responses. The share of the effect that
another network keeps is

    kept = [(f'(pole) - f'(blank)) / sd'] / [(f(pole) - f(blank)) / sd]

with f the unit that the pole was made on, f' its counterpart, and both sd over the same natural images. 1
means that all is kept, 0 that nothing is, a negative share that the pole does the opposite there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.linear_model import RidgeCV
from torch import Tensor, nn

from absence_utils.display import one_line
from absence_utils.errors import InputError, require_at_least
from absence_utils.images.base import normalisation_of
from absence_utils.stats import crossed_t_interval, paired_difference
from absence_utils.units import Unit, dataset_responses, find_layer

from .rendering import RenderedPair

FEWEST = 40  # natural images for a match: twenty to fit, twenty to test
PENALTIES = np.logspace(-3, 6, 19)  # of the ridge regression, on channels of sd 1
LEAST_EFFECT = 0.1  # sd: below this a pole has no effect of which a share could be kept
CONSTANT = 1e-6  # sd relative to the mean's magnitude: a smaller one is rounding


@dataclass(frozen=True)
class Match:
    """The counterpart of a unit in another network.

    Attributes:
        unit: in the other network.
        r2: share of the natural variance of the original that it explains on held-out images, at most 1; NaN
            where nothing was fitted.
        size: px to which images are resized for that network, None to leave them as they are.
    """

    unit: Unit
    r2: float = math.nan
    size: int | None = None

    __repr__ = one_line


@dataclass(frozen=True)
class Poles:
    """Images whose effect on a unit is compared between networks; `Poles.of` takes a `RenderedPair`'s.

    Attributes:
        unit: that they were made on.
        images: name of the pole to [image, channel, height, width], pixels in 0..1. Several images of one
            pole count by their mean effect.
        reference: name of a control to the pole whose effect on `unit` counts as 1, for controls that have
            hardly an effect of their own, such as a pole with scrambled phases.
    """

    unit: Unit
    images: dict[str, Tensor]
    reference: dict[str, str] = field(default_factory=dict)

    __repr__ = one_line

    @classmethod
    def of(cls, pair: RenderedPair) -> Poles:
        """The maximum and the minimum of a rendered pair, all facets."""
        return cls(pair.unit, {"maximum": pair.highest.image, "minimum": pair.lowest.image})


def match_unit(
    unit: Unit, model: nn.Module, layer: str | None, dataset, *, size: int | None = None, seed: int = 0
) -> Match:
    """The direction in another network's layer that answers natural images as the unit does.

    Ridge regression of the unit's natural responses on those of the layer's channels, fitted on a random half
    of the images with the penalty that predicts best when one image is left out; R2 on the other half. A
    random network has such directions, too: compare with the match in a `random_copy`. Between networks
    trained alike the same output needs no match, see `transfer_table`.

    Args:
        unit: of the first network.
        model, layer: where the counterpart is looked for; its responses are pooled as the unit's are.
        dataset: natural images; of `dataset.normalisation`, or else normalised for the unit's network. For
            several units make it `NaturalResponses`.
        size: px to which the other network's images are resized; None if it takes them as they are.
        seed: of the halves.

    Raises:
        InputError: fewer than 40 images; no such layer; a unit, or a layer, whose response never changes.
    """
    natural = _remembered(dataset, unit.model)
    require_at_least(
        "dataset", len(natural.dataset), FEWEST, "half of the images test what the other half fits"
    )
    if layer is not None:
        find_layer(model, layer)
    wanted = natural.of(Match(unit.signed)).numpy()
    other = Match(Unit(model, layer, pool=unit.pool).signed, size=size)
    channels = natural.of_layer(other).double().numpy()
    order = np.random.default_rng(seed).permutation(len(wanted))
    fitted, tested = order[: len(order) // 2], order[len(order) // 2 :]
    spread = channels[fitted].std(axis=0)
    alive = spread > CONSTANT * np.abs(channels[fitted]).mean(axis=0)
    if not alive.any():
        raise InputError("layer", f"no channel of {layer or 'the output'} changes", "Choose another layer.")
    if np.ptp(wanted[fitted]) == 0 or np.ptp(wanted[tested]) == 0:
        raise InputError("dataset", f"{unit.name} never changes in one half of it", "Give more images.")
    scale = np.where(alive, spread, 1)
    mean = channels[fitted].mean(axis=0)
    columns = np.where(alive, (channels - mean) / scale, 0)
    slopes = RidgeCV(alphas=PENALTIES).fit(columns[fitted], wanted[fitted])
    r2 = slopes.score(columns[tested], wanted[tested])
    direction = torch.as_tensor(slopes.coef_ / scale)
    return Match(replace(other.unit, direction=direction), float(r2), size)


def transfer_table(
    pairs: Sequence[RenderedPair | Poles],
    others: Mapping[str, nn.Module | Sequence[Match | Unit]],
    dataset,
) -> pd.DataFrame:
    """How much of each pole's effect other networks keep, see the formula above.

    Each network gets the pixels normalised as it expects (`normalisation_of`). Its blank is the image that is
    0 after that, of the size of the pole.

    Args:
        pairs: what `render_pair` gives, or `Poles` of any images.
        others: name to a network, of which the unit in the same place is taken (another seed, a random copy),
            or to one `Match` or `Unit` for each of the pairs.
        dataset: natural images for the sd; of `dataset.normalisation`, or else normalised for the first
            network.

    Returns:
        A row for each unit, pole and network: columns unit, pole, network, `own` and `there` (effect in sd of
        natural responses on both networks), `kept` (NaN if the effect to keep is below 0.1 sd) and `r2`:
        held-out for matched units, else the squared correlation of both units' natural responses.

    Raises:
        InputError: no pairs; a unit that is constant over the natural images; a list of other length than
            `pairs`; a network that does not take the images; a control that refers to no pole.

    Example:
        >>> from absence_utils import Unit, load_images, load_model, render_pair
        >>> from absence_utils.visualization import transfer_table
        >>> model = load_model("concept_scenes")
        >>> pair = render_pair(Unit(model, "logits", 1), steps=4, size=64)
        >>> table = transfer_table([pair], {"itself": model}, load_images("concept_scenes", model, limit=16))
        >>> table[["pole", "network", "kept"]].values.tolist()
        [['maximum', 'itself', 1.0], ['minimum', 'itself', 1.0]]
    """
    if not pairs:
        raise InputError("pairs", "there are none", "Give at least one.")
    poles = [Poles.of(pair) if isinstance(pair, RenderedPair) else pair for pair in pairs]
    natural, rows = _remembered(dataset, poles[0].unit.model), []
    for number, pole in enumerate(poles):
        home = Match(pole.unit.signed)
        own, original = _effects(home, pole.images, natural), natural.of(home)
        for network, other in others.items():
            match = _counterpart(home.unit, other, number, len(poles))
            there = _effects(match, pole.images, natural)
            alike = float(np.corrcoef(original, natural.of(match))[0, 1] ** 2)
            r2 = alike if math.isnan(match.r2) else match.r2
            for name in pole.images:
                whole = own[_referred(pole, name)]
                kept = there[name] / whole if abs(whole) >= LEAST_EFFECT else math.nan
                rows.append((home.unit.name, name, network, own[name], there[name], kept, r2))
    return pd.DataFrame(rows, columns=["unit", "pole", "network", "own", "there", "kept", "r2"])


def transfer_summary(
    table: pd.DataFrame, by: Sequence[str] = ("network", "pole"), level: float = 0.95
) -> pd.DataFrame:
    """Mean share kept for each group, with an interval over the units and networks in it.

    Both are random draws where there are several of each (`crossed_t_interval`); with one network the
    interval is over units, with one unit over networks, and with one of each there is none (NaN).

    Args:
        table: of `transfer_table`; add a column such as "kind" to take several networks together.
        by: columns that make the groups.
        level: of the interval, in 0..1.

    Returns:
        Columns of `by`, then kept, low, high, own and there (mean effects in sd), r2, units, networks. Units
        without a share in one of the group's networks are left out.
    """
    rows = []
    for key, part in table.groupby(list(by), sort=False):
        grid = part.pivot_table(index="unit", columns="network", values="kept", dropna=False).dropna()
        kept = _mean_of_grid(grid.to_numpy(), level)
        means = part.loc[part["unit"].isin(grid.index), ["own", "there", "r2"]].mean()
        rows.append((*key, *kept, *means, *grid.shape))
    columns = [*by, "kept", "low", "high", "own", "there", "r2", "units", "networks"]
    return pd.DataFrame(rows, columns=columns)


def share_beyond(table: pd.DataFrame, pole: str, control: str) -> pd.DataFrame:
    """What a pole keeps beyond a control, unit by unit and network by network.

    An image of high contrast moves a random network, too, this way or that, and its control with scrambled
    phases moves it alike. What is left of their difference is due to shapes.

    Args:
        table: of `transfer_table`, as it is.
        pole, control: names in its column `pole`; the control refers to the pole (`Poles.reference`).

    Returns:
        Rows as those of the pole, with differences in own, there and kept; the pole is "pole - control".

    Raises:
        InputError: the table lacks one of the two for some unit and network.
    """
    sides = []
    for name in (pole, control):
        sides.append(table[table["pole"] == name].reset_index(drop=True))
        if sides[-1].empty:
            known = ", ".join(table["pole"].unique())
            raise InputError("pole", f"the table has no {name!r}", f"Use one of {known}.")
    found, minus = sides
    if not found[["unit", "network"]].equals(minus[["unit", "network"]]):
        problem = f"{pole!r} and {control!r} are not of the same units and networks"
        raise InputError("control", problem, "Give a control for each.")
    columns = ["own", "there", "kept"]
    found[columns] -= minus[columns]
    return found.assign(pole=f"{pole} - {control}")


def _mean_of_grid(values: np.ndarray, level: float) -> tuple[float, float, float]:
    """Mean of [unit, network] with an interval over whichever of the two there are several of."""
    units, networks = values.shape
    if units > 1 and networks > 1:
        found = crossed_t_interval(values[None], level=level)
        return found.value[0], found.low[0], found.high[0]
    if max(units, networks) > 1 and values.size:
        return tuple(paired_difference(values.ravel(), np.zeros(values.size), level))
    return float(values.mean()) if values.size else math.nan, math.nan, math.nan


def _counterpart(unit: Unit, other: nn.Module | Sequence[Match | Unit], number: int, count: int) -> Match:
    if isinstance(other, nn.Module):
        return Match(replace(unit, model=other))
    if len(other) != count:
        raise InputError("others", f"{len(other)} units for {count} pairs", "Give one for each pair.")
    found = other[number]
    return Match(found.signed) if isinstance(found, Unit) else found


def _referred(pole: Poles, name: str) -> str:
    """The pole whose effect on its own network counts as 1."""
    reference = pole.reference.get(name, name)
    if reference not in pole.images:
        raise InputError(
            "reference", f"{name!r} refers to {reference!r}, which is no pole", "Add its images."
        )
    return reference


def _network_input(pixels: Tensor, model: nn.Module, size: int | None) -> Tensor:
    """Pixels [batch, channel, height, width] in 0..1 as the network takes them."""
    if size is not None and tuple(pixels.shape[-2:]) != (size, size):
        pixels = F.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
    return normalisation_of(model).apply(pixels)


@torch.no_grad()
def _effects(match: Match, images: dict[str, Tensor], natural: NaturalResponses) -> dict[str, float]:
    """Mean response of each pole's images beyond the blank, in sd of natural responses."""
    unit, spread, effects = match.unit, natural.of(match).std(correction=0).item(), {}
    for name, pixels in images.items():
        seen = _network_input(pixels.detach().cpu().float(), unit.model, match.size)
        with _accepted_by(unit.model, seen):
            response = unit.response(torch.cat([seen, torch.zeros_like(seen[:1])])).double()
        effects[name] = ((response[:-1].mean() - response[-1]) / spread).item()
    return effects


@contextmanager
def _accepted_by(model: nn.Module, images: Tensor) -> Iterator[None]:
    """What torch raises for images [..., channel, height, width] that do not fit, as an InputError."""
    try:
        yield
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        problem = f"{type(model).__name__} does not take images {list(images.shape[-3:])} ({reason})"
        remedy = "Give the size it was made for, as in `Match(unit, size=224)`."
        raise InputError("size", problem, remedy) from error


def _remembered(dataset, model: nn.Module) -> NaturalResponses:
    return dataset if isinstance(dataset, NaturalResponses) else NaturalResponses(dataset, model)


class NaturalResponses:
    """A dataset whose images are shown to each layer once: for `match_unit` and `transfer_table` in turn.

    Args:
        dataset: natural images of one size, normalised for `model` if it has no `normalisation`. Other
            networks get them as they expect.
    """

    def __init__(self, dataset, model: nn.Module):
        self.dataset, self.found = dataset, {}
        self.normalisation = getattr(dataset, "normalisation", None) or normalisation_of(model)

    def of_layer(self, match: Match) -> Tensor:
        """[image, channel] of the layer in which the unit is."""
        unit = match.unit
        key = (unit.model, unit.layer, unit.pool, match.size)  # networks are hashed by identity
        if key not in self.found:
            seen = _SeenBy(self.dataset, self.normalisation, unit.model, match.size)
            with _accepted_by(unit.model, seen[0][0]):
                self.found[key] = dataset_responses(unit.model, unit.layer, seen, pool=unit.pool)
        return self.found[key]

    def of(self, match: Match) -> Tensor:
        """[image] of the unit, in double precision.

        Raises:
            InputError: they are all the same.
        """
        responses = match.unit.of(self.of_layer(match).double())
        if not responses.std(correction=0) > CONSTANT * responses.abs().mean():
            problem = f"{match.unit.name} of {type(match.unit.model).__name__} is constant over the dataset"
            raise InputError("unit", problem, "Choose another unit, or give more images.")
        return responses


class _SeenBy:
    """A dataset in the normalisation, and of the size, that another network expects."""

    def __init__(self, dataset, normalisation, model: nn.Module, size: int | None):
        self.dataset, self.normalisation, self.model, self.size = dataset, normalisation, model, size

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int):
        image, label = self.dataset[index]
        if self.size is None and self.normalisation == normalisation_of(self.model):
            return image, label
        return _network_input(self.normalisation.undo(image)[None], self.model, self.size)[0], label
