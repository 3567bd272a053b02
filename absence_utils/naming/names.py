"""Name the concept whose absence a unit encodes: half of the donors propose a name, the other half confirm it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy import stats
from torch import nn

from absence_utils.errors import InputError
from absence_utils.insertion.design import chosen_units
from absence_utils.insertion.scores import LEVEL, MIN_EFFECT
from absence_utils.stats import fdr_adjust
from absence_utils.units import READINGS

from .concepts import Concepts
from .effects import DonorEffects, donor_effects, donor_patches, low_level_statistics
from .regression import MeanOver, Slopes, mean_over, regress

FEWEST = 4  # donors of a name in each half, and donors that are none
RUNNERS_UP = 2
COLUMNS = [
    "unit", "reading", "name", "confirmed",
    *(f"{test}{end}" for test in ("specific", "absolute", "active") for end in ("", "_low", "_high")),
    "q_specific", "q_absolute", "donors", "runners_up",
]  # fmt: skip
CLIMB = 0.5  # of a name's effect that the rest of the category above has to show, too


@dataclass
class NamingResult:
    """What `name_absence` found.

    Attributes:
        table: a row for each reading and unit, see `name_absence`.
        effects: a row for each reading, unit and name offered: unit, reading, name, effect, low, high (95%), donors.
            What the donors of the half that confirms do to the unit, against the control that is less in favour, as
            `absolute` in the table; of names that were not proposed it is a description.
        layer: the units' layer.
        concepts: what was offered to the units, with the donors.
        offered: the names with enough donors.
        edge: of the pasted donors, px.
    """

    table: pd.DataFrame
    effects: pd.DataFrame
    layer: str | None
    concepts: Concepts
    offered: list[str]
    edge: int

    @property
    def confirmed(self) -> pd.DataFrame:
        """The rows with a confirmed name, the strongest effect first."""
        return self.table[self.table.confirmed].sort_values("absolute")

    def strongest(self, count: int) -> pd.DataFrame:
        """The `count` signed rows whose confirmed names are strongest; where none is confirmed, of all names."""
        rows = self.confirmed if len(self.confirmed) else self.table.sort_values("absolute")
        return rows[rows.reading == READINGS[0]].head(count).reset_index(drop=True)

    @property
    def share(self) -> pd.Series:
        """Share of the units with a confirmed name: reading to 0..1."""
        return self.table.groupby("reading", sort=False).confirmed.mean()

    def __repr__(self) -> str:
        counts = self.table.groupby("reading", sort=False).confirmed.agg(["sum", "count"])
        parts = [f"{found} of {count} units ({reading})" for reading, found, count in counts.itertuples()]
        return f"names confirmed in {self.layer or 'output'}, {len(self.offered)} offered: {', '.join(parts)}"


def share_table(results: dict[str, NamingResult]) -> pd.DataFrame:
    """How many units of each network have a confirmed name: columns network, reading, units, confirmed.

    Args:
        results: name of the network to what was found in it.
    """
    tables = pd.concat([found.table.assign(network=name) for name, found in results.items()])
    groups = tables.groupby(["network", "reading"], sort=False).confirmed
    return groups.agg(units="size", confirmed="sum").reset_index()


def name_absence(
    model: nn.Module,
    layer: str | None,
    dataset,
    concepts: Concepts,
    *,
    units=None,
    edge: int = 0,
    hosts: int = 2,
    repeat: bool = True,
    least: float = MIN_EFFECT,
    seed: int = 0,
) -> NamingResult:
    """Propose and confirm a name for what silences each unit of a layer.

    Donors are pasted into random hosts beside two controls at the same place, a patch of the mean colour and their
    own phase-scrambled copies (`effects.donor_effects`). One half of the donors proposes: of the names that are
    surely *specific* (upper 95% bound of the coefficient below 0, see below), the one that surely lowers the unit most
    against the mean colour. The other half confirms that name by one-sided t-tests, adjusted over the units of
    a reading (Benjamini and Hochberg): *specific*, its donors lower the unit by more than `least` beyond what other
    donors do, in a regression on membership with mean colour, contrast and edge energy as covariates and robust
    errors; and *absolute*, they lower it by more than `least` against each of the two controls.

    Names that lie in each other: from the proposed name one climbs to the category above for as long as the rest of
    that category surely lowers the unit, too, by at least half of what the name does. So the most general name that
    explains the effect is reported.

    Args:
        model, layer: see `units.feature_map`.
        dataset: the hosts, images normalised for the network.
        concepts: names and donors, see `concepts`. A name with fewer than four donors in a half is not offered.
        units: channels; all if None.
        edge: of a pasted donor, px, see `effects.donor_patches`.
        hosts: of each donor.
        repeat: confirm once more in other hosts.
        least: sd; a smaller effect is none.
        seed: of halves, hosts and places.

    Returns:
        NamingResult with a row for each reading and unit: unit, reading, name; specific and absolute (against the one
        of the two controls that is less in favour), each with _low and _high and its q; active (against the mean
        colour, in hosts in which the unit is in its upper half), with _low and _high; donors (of the name, in the half
        that confirms), runners_up (names neither above nor below the name), confirmed, repeated. Effects are in sd of
        the unit, negative where it is lowered, intervals 95%. NaN, and an empty name, for a unit that never changes.

    Raises:
        InputError: no name has enough donors; as `donor_effects`.

    Example:
        >>> from absence_utils import load_images, load_model, name_absence
        >>> from absence_utils.naming import scene_concepts
        >>> model = load_model("concept_scenes")
        >>> scenes = load_images("concept_scenes", model, limit=60)
        >>> found = name_absence(model, "logits", scenes, scene_concepts(60, seed=1), hosts=1, repeat=False)
        >>> found.confirmed.set_index("unit").name[1]  # the unit "not ring"
        'ring'
    """
    half = split_donors(concepts.membership, seed)
    offered = offered_names(concepts, half)
    how = {"edge": edge, "hosts": hosts}
    confirming = np.flatnonzero(half == 1)
    effects = donor_effects(model, layer, dataset, concepts, seed=seed, scrambled=confirming, **how)
    units = chosen_units(units, effects.spread.shape[1])
    patches = donor_patches(concepts, dataset[0][0], edge)
    trial = Trial(concepts, offered, half, low_level_statistics(patches), least)
    tables = [trial.rows(effects, number, units) for number in range(len(effects.readings))]
    table = pd.concat(tables, ignore_index=True)
    every = [trial.every(effects, number, units) for number in range(len(effects.readings))]
    if repeat:
        table["repeated"] = False
    if repeat and table.confirmed.any():
        again = donor_effects(model, layer, dataset, concepts, seed=seed + 1, donors=confirming, **how)
        for number, reading in enumerate(again.readings):
            rows = table.confirmed & (table.reading == reading)
            if rows.any():
                table.loc[rows, "repeated"] = trial.confirmed_again(table[rows], again, number)
    names = [concepts.names[name] for name in offered]
    return NamingResult(table, pd.concat(every, ignore_index=True), layer, concepts, names, patches.shape[-1])


def headlines(found: NamingResult, encoding=(), lowest: dict[int, list] | None = None) -> dict[int, str]:
    """Unit to the first line of its card: its confirmed name, or that none is.

    Args:
        found: of the units; the reading with the stronger effect is said.
        encoding: units that encode an absence. One of these without a confirmed name is said to have none; other units
            without a name are left out.
        lowest: unit to the names in each of its lowest patches, to count those that show what was confirmed, by this
            name or by one below it. A count is a description, the donors are the test.
    """
    none = f"Silenced by something like these patches; no name among the {len(found.offered)} offered is confirmed"
    lines = {int(unit): none for unit in encoding}
    for row in found.confirmed[::-1].itertuples():  # the strongest last, which stays
        passed = "" if row.reading == "signed" else f" {row.reading}"
        numbers = f"{row.absolute:.2f} sd{passed} [{row.absolute_low:.2f}, {row.absolute_high:.2f}]"
        patches = (lowest or {}).get(int(row.unit), [])
        if any(patches):
            shown = [any(_lies_in(found.concepts, each, row.name) for each in names) for names in patches]
            numbers += f", {sum(shown)} of {len(shown)} lowest patches"
        lines[int(row.unit)] = f"Silenced by {row.name} (confirmed: {numbers.replace('-', '−')})"
    return lines


def _lies_in(concepts: Concepts, name: str, other: str) -> bool:
    return name == other or other in concepts.ancestors(name)


def split_donors(membership: np.ndarray, seed: int = 0) -> np.ndarray:
    """[donor] 0 for the half that proposes, 1 for the one that confirms: of donors with the same names half each."""
    chance = np.random.default_rng([seed, 11]).random(len(membership))
    shared = membership[:, membership.sum(axis=0) >= 2 * FEWEST]
    broad = np.argsort(-shared.sum(axis=0), kind="stable")
    order = np.lexsort([chance, *shared[:, broad[::-1]].T])
    half = np.empty(len(membership), int)
    half[order] = np.arange(len(membership)) % 2
    return half


def offered_names(concepts: Concepts, half: np.ndarray) -> list[int]:
    """Numbers of the names with at least four donors in each half, and as many that are none.

    Raises:
        InputError: there is no such name.
    """
    inside = [concepts.membership[half == side].sum(axis=0) for side in (0, 1)]
    outside = [(~concepts.membership[half == side]).sum(axis=0) for side in (0, 1)]
    enough = np.flatnonzero(np.min([*inside, *outside], axis=0) >= FEWEST)
    if len(enough) == 0:
        most = int(concepts.membership.sum(axis=0).max(initial=0))
        problem = f"no name has {2 * FEWEST} donors, and as many that are none; the largest has {most}"
        raise InputError("concepts", problem, "Give more images of each concept, or categories with a tree.")
    return enough.tolist()


@dataclass
class Trial:
    """One split of the donors: propose on half 0, confirm on half 1."""

    concepts: Concepts
    offered: list[int]
    half: np.ndarray
    statistics: np.ndarray
    least: float

    @cached_property
    def related(self) -> np.ndarray:
        """[name, name] of those offered: the same, or one above the other."""
        names = [self.concepts.names[number] for number in self.offered]
        above = np.array([[other in self.concepts.ancestors(name) for other in names] for name in names])
        return above | above.T | np.eye(len(names), dtype=bool)

    def regress(self, changes: np.ndarray, names: list[int], side: int) -> Slopes:
        """Of changes [donor, unit] on numbers of names, over the donors of a half."""
        mine = self.half == side
        members = self.concepts.membership[mine][:, names]
        return regress(changes[mine], members, self.statistics[mine])

    def propose(self, changes: np.ndarray) -> tuple[np.ndarray, list[str]]:
        """(number of the proposed name [unit], runners-up [unit]) from changes [donor, unit]."""
        specific = np.stack([self.regress(changes, [name], 0).upper()[0] for name in self.offered])
        lowest = np.stack([self._upper(changes, name) for name in self.offered])
        score = np.where(specific < 0, lowest, np.inf)
        best = np.where(np.isinf(score).all(axis=0), specific.argmin(axis=0), score.argmin(axis=0))
        climbed, runners = self._climbed(changes, best), []
        for unit, name in enumerate(climbed):
            others, found = score[:, unit].copy(), []
            others[self.related[name]] = np.inf
            while len(found) < RUNNERS_UP and others.min() < 0:
                found.append(self.concepts.names[self.offered[int(others.argmin())]])
                others[self.related[others.argmin()]] = np.inf
            runners.append("; ".join(found))
        return np.array(self.offered)[climbed], runners

    def _upper(self, changes: np.ndarray, name: int) -> np.ndarray:
        """[unit] upper 95% bound of the mean change by a name's donors, in the half that proposes."""
        found = changes[(self.half == 0) & self.concepts.membership[:, name]]
        error = found.std(axis=0, ddof=1) / len(found) ** 0.5
        return found.mean(axis=0) + stats.t.ppf(0.95, len(found) - 1) * error

    def _climbed(self, changes: np.ndarray, best: np.ndarray) -> np.ndarray:
        """Positions in `offered`, moved up for as long as the rest of the category above is lowered as well."""
        position = {self.concepts.names[number]: place for place, number in enumerate(self.offered)}
        found, moving = best.copy(), np.ones(len(best), bool)
        known: dict[tuple[int, int], np.ndarray] = {}
        while moving.any():
            for unit in np.flatnonzero(moving):
                moving[unit] = False
                name = self.concepts.names[self.offered[found[unit]]]
                for parent in self.concepts.parents.get(name, ()):
                    pair = found[unit], position.get(parent, -1)
                    if pair[1] < 0:
                        continue
                    if pair not in known:
                        known[pair] = self._rest_lowered(changes, *(self.offered[each] for each in pair))
                    if known[pair][unit]:
                        found[unit], moving[unit] = pair[1], True
                        break
        return found

    def _rest_lowered(self, changes: np.ndarray, name: int, parent: int) -> np.ndarray:
        """[unit] whether members of the parent outside the name are lowered, too."""
        both = self.concepts.membership[self.half == 0][:, [name, parent]]
        if (both[:, 1] & ~both[:, 0]).sum() < FEWEST:
            return np.zeros(changes.shape[1], bool)
        slopes = self.regress(changes, [name, parent], 0)  # the name's own, on top of the parent's
        rest, whole = slopes.value[1], slopes.value.sum(axis=0)
        return (slopes.upper()[1] < 0) & (rest <= CLIMB * whole)

    def confirm(
        self, effects: DonorEffects, reading: int, names: np.ndarray, units: np.ndarray
    ) -> pd.DataFrame:
        """Both tests of each unit's name on the half that confirms; p-values are not adjusted."""
        change, copies, rows = effects.blank[reading], effects.scrambled[reading], []
        for name, unit in zip(names, units, strict=True):
            members = (self.half == 1) & self.concepts.membership[:, name]
            slopes = self.regress(change[:, [unit]], [name], 1)
            specific = MeanOver(slopes.value[0, 0], slopes.error[0, 0], slopes.df[0])
            absolute = max((mean_over(each[members, unit]) for each in (change, copies)),
                           key=lambda mean: mean.p_below(self.least))  # fmt: skip
            active = mean_over(effects.active[reading][members, unit])
            rows.append({
                "unit": unit, "reading": effects.readings[reading], "name": self.concepts.names[name],
                **specific.interval("specific"), **absolute.interval("absolute"), **active.interval("active"),
                "p_specific": specific.p_below(self.least), "p_absolute": absolute.p_below(self.least),
                "donors": int(members.sum()),
            })  # fmt: skip
        return pd.DataFrame(rows)

    def rows(self, effects: DonorEffects, reading: int, units: np.ndarray) -> pd.DataFrame:
        """The table of one reading; a unit that never changes has no name."""
        change = effects.blank[reading]
        changing = units[~np.isnan(change[:, units]).any(axis=0)]
        still = units[np.isnan(change[:, units]).any(axis=0)]
        none = pd.DataFrame(
            {"unit": still, "reading": effects.readings[reading], "name": "", "confirmed": False}
        )
        if len(changing) == 0:
            return none.reindex(columns=COLUMNS)
        names, runners = self.propose(change[:, changing])
        found = self.confirm(effects, reading, names, changing).assign(runners_up=runners)
        found = _decided(found, "confirmed")
        table = pd.concat([found, none], ignore_index=True) if len(still) else found
        return table.set_index("unit").loc[units].reset_index()[COLUMNS]

    def every(self, effects: DonorEffects, reading: int, units: np.ndarray) -> pd.DataFrame:
        """`NamingResult.effects` of one reading."""
        tables = []
        for name in self.offered:
            members = (self.half == 1) & self.concepts.membership[:, name]
            both = np.stack([each[reading][members][:, units] for each in (effects.blank, effects.scrambled)])
            means, errors = both.mean(axis=1), both.std(axis=1, ddof=1) / members.sum() ** 0.5
            with np.errstate(divide="ignore", invalid="ignore"):
                weaker = ((means + self.least) / errors).argmax(axis=0)[None]
            mean, error = (np.take_along_axis(each, weaker, axis=0)[0] for each in (means, errors))
            reach = stats.t.ppf(0.975, members.sum() - 1) * error
            tables.append(pd.DataFrame({
                "unit": units, "reading": effects.readings[reading], "name": self.concepts.names[name],
                "effect": mean, "low": mean - reach, "high": mean + reach, "donors": int(members.sum()),
            }))  # fmt: skip
        return pd.concat(tables, ignore_index=True)

    def confirmed_again(self, rows: pd.DataFrame, effects: DonorEffects, reading: int) -> np.ndarray:
        """[row] whether names are confirmed by these effects, adjusted over the rows."""
        names = np.array([self.concepts.names.index(name) for name in rows.name], dtype=int)
        return _decided(
            self.confirm(effects, reading, names, rows.unit.to_numpy()), "confirmed"
        ).confirmed.to_numpy()


def _decided(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """The table with adjusted p-values in place of its own, and whether both are below `scores.LEVEL`."""
    adjusted = {f"q_{test}": fdr_adjust(table.pop(f"p_{test}")) for test in ("specific", "absolute")}
    table = table.assign(**adjusted)
    return table.assign(**{column: (table.q_specific < LEVEL) & (table.q_absolute < LEVEL)})
