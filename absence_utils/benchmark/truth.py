"""What is true of the networks on random rules: planted and learnt for outputs, measured for hidden units.

A pair of unit and concept is an "absence" (the concept's presence lowers the unit), a "presence", "none", or left out
of every score: "depends" (on other concepts; exclusive-or) or "unclear" (a rule that was not learnt, or a hidden
unit's effect between none and clear). Effects are measured on exact pairs.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
from torch import nn

from absence_utils.images.scenes import NORMALISATION
from absence_utils.images.worlds import World
from absence_utils.paths import DATA

from .effects import CausalEffect, read
from .rule_networks import TWIN, rules_of
from .scores import OUTPUTS

TRUTH = DATA / "reference" / "09_benchmark_truth.csv"  # of outputs, made by `make benchmark`
CLEAR, NONE = 0.25, 0.1  # sd; an effect beyond the one is clear, one surely within the other is none


@cache
def planted(name: str) -> np.ndarray:
    """[output, concept] of a network or twin, from its rules; not to be written to."""
    rules = rules_of(name)
    wide = rules.effects().pivot(index="output", columns="concept", values="planted")
    return wide[list(rules.world.names)].to_numpy()


def learnt(kinds: np.ndarray, high: np.ndarray) -> np.ndarray:
    """What is planted, less absences that training did not bring: those become "unclear".

    Args:
        kinds: as `planted` gives them.
        high: of the same shape, upper ends of the 95% intervals of the effects on exact pairs, sd.
    """
    return np.where((kinds == "absence") & (high > -NONE), "unclear", kinds)


@cache
def output_truth(name: str) -> np.ndarray:
    """[output, concept] what is planted and learnt, by the table that ships; not to be written to.

    A few rules of the hardest worlds were not learnt: what their networks do not encode, no method can find.
    """
    kinds, concepts = planted(name).copy(), rules_of(name).world.names
    shipped = pd.read_csv(TRUTH)
    for row in shipped[(shipped.network == name) & (shipped.truth == "unclear")].itertuples():
        kinds[row.unit, concepts.index(row.concept)] = "unclear"
    return kinds


def truth_table(name: str) -> pd.DataFrame:
    """`output_truth` as rows: network, layer, unit, concept, truth; all pairs of a twin are "none"."""
    concepts = rules_of(name).world.names
    kinds = planted(name) if name.endswith(TWIN) else output_truth(name)
    unit, concept = np.indices(kinds.shape)
    return pd.DataFrame({
        "network": name, "layer": OUTPUTS, "unit": unit.ravel(), "concept": np.array(concepts)[concept.ravel()],
        "truth": "none" if name.endswith(TWIN) else kinds.ravel(),
    })  # fmt: skip


def pair_effects(
    model: nn.Module, layers: list[str], world: World, pairs: int, seed: int = 500
) -> dict[str, dict[str, CausalEffect]]:
    """Effect of adding each concept on all units of layers, from exact pairs, in sd: layer to concept to effect.

    Args:
        model, layers: see `units.responses`.
        world: of the scenes.
        pairs: for each concept, at least 2.
        seed: of the scenes.
    """
    found, usual = {layer: {} for layer in layers}, world.draw_presence(pairs, seed)
    for number, concept in enumerate(world.names):
        shown, hidden = (NORMALISATION.apply(each.pixels) for each in world.pairs(concept, pairs, seed))
        for layer in layers:
            halves = (read(model, layer, images) for images in (shown, hidden))
            found[layer][concept] = CausalEffect.of_pairs(*halves, usual[:, number])
    return found


def measured(effects: dict[str, CausalEffect], units: list[int]) -> np.ndarray:
    """[unit, concept] of hidden units, from the effects of one layer."""
    tables = pd.concat([effect.table(concept) for concept, effect in effects.items()])
    low, high, mean = (
        tables.pivot(index="unit", columns="concept", values=column)[list(effects)].to_numpy()[units]
        for column in ("low", "high", "effect")
    )
    kind = np.full(mean.shape, "unclear", dtype=object)
    kind[(low > -NONE) & (high < NONE)] = "none"
    kind[(mean < -CLEAR) & (high < -NONE)] = "absence"
    kind[(mean > CLEAR) & (low > NONE)] = "presence"
    return kind
