"""Measured effects: what is planted is found, and all layers at once give what each gives alone."""

import numpy as np
import pandas as pd
import pytest

from absence_utils.benchmark.effects import (
    absences_by_layer,
    effects_everywhere,
    measured_effects,
    planted_signs,
)
from absence_utils.benchmark.networks import load_benchmark_network
from absence_utils.images.scenes import CONCEPTS, RULES


def test_planted_signs():
    signs = planted_signs("rules")
    named = {
        (list(RULES)[row], CONCEPTS[column]): int(signs[row, column])
        for row, column in signs.nonzero().tolist()
    }
    assert named == {
        ("disc and not cross", "disc"): 1, ("disc and not cross", "cross"): -1, ("not ring", "ring"): -1,
        ("triangle or bars", "triangle"): 1, ("triangle or bars", "bars"): 1,
        ("triangle and not bars", "triangle"): 1, ("triangle and not bars", "bars"): -1, ("checker", "checker"): 1,
    }  # fmt: skip
    assert planted_signs("twin").min() == 0


@pytest.mark.slow
def test_measured_effects_show_what_was_planted():
    table = measured_effects(load_benchmark_network("rules", 1), None, 60)
    signs = planted_signs("rules")
    for row in table.itertuples():
        sign = int(signs[row.unit, CONCEPTS.index(row.concept)])
        if sign:
            assert np.sign(row.low) == np.sign(row.high) == sign
        else:
            assert abs(row.effect) < 0.3


@pytest.mark.slow
def test_effects_of_all_layers_at_once_are_those_of_each():
    model = load_benchmark_network("rules")
    found = effects_everywhere(model, 30)
    layers = ["block1", "block2", "block3", "block4", "hidden", "fc"]
    assert found.layer.drop_duplicates().tolist() == layers and not model._forward_hooks
    assert not any(module._forward_hooks for module in model.modules())
    for layer in ("block3", "hidden", "fc"):
        alone = measured_effects(model, layer, 30)
        both = found[found.layer == layer].merge(alone, on=["unit", "concept"], suffixes=("", "_alone"))
        assert len(both) == len(alone)
        np.testing.assert_allclose(
            both[["effect", "low"]], both[["effect_alone", "low_alone"]], rtol=1e-3, atol=1e-4
        )


def test_absences_by_layer_by_hand():
    units = ((-0.5, 0.2), (-0.3, 0.9), (-0.6, 0.1), (0.1, 0.0))
    rows = [("x", unit, concept, effect) for unit, effects in enumerate(units)
            for concept, effect in zip("ab", effects, strict=True)]  # fmt: skip
    table = absences_by_layer(pd.DataFrame(rows, columns=["layer", "unit", "concept", "effect"]))
    assert table.iloc[0].tolist() == ["x", 4, 0.75, 0.5]
