"""The truth: what rules plant, and thresholds on measured effects by hand."""

import numpy as np
import pandas as pd
import torch
from helpers.untrained import untrained

from absence_utils.benchmark.effects import CausalEffect
from absence_utils.benchmark.rule_networks import NAMES, rules_of
from absence_utils.benchmark.truth import (
    TRUTH,
    learnt,
    measured,
    output_truth,
    pair_effects,
    planted,
    truth_table,
)
from absence_utils.images.scenes import NORMALISATION
from absence_utils.images.worlds import World, with_concept
from absence_utils.units import responses


def test_planted_absences_are_those_of_the_rules():
    for name in ("plain/0", "natural together/4"):
        rules, kinds = rules_of(name), planted(name)
        assert kinds.shape == (4, 7)
        for output, rule in enumerate(rules.rules):
            assert {*np.flatnonzero(kinds[output] == "absence")} == set(rule.absent)
            others = [concept for concept in range(7) if concept not in rule.concepts]
            assert (kinds[output, others] == "none").all()
            if rule.kind == "xor":
                assert (kinds[output, list(rule.concepts)] == "depends").all()


def test_there_are_one_to_three_absences_in_every_network_and_none_in_twins():
    for name in NAMES[:: len(NAMES) // 8]:
        table, twin = truth_table(name), truth_table(name + " twin")
        assert 1 <= (table.truth == "absence").sum() <= 3
        assert (twin.truth == "none").all() and len(table) == len(twin) == 28
        row = table.iloc[7]
        assert (row.network, row.layer, row.unit, row.concept) == (
            name,
            "outputs",
            1,
            rules_of(name).world.names[0],
        )
        assert table.truth.tolist() == output_truth(name).ravel().tolist()


def test_what_was_not_learnt_is_unclear_and_nothing_else_changes():
    kinds = np.array([["absence", "absence", "absence", "presence", "none", "depends"]], dtype=object)
    high = np.array([[-0.11, -0.09, 0.5, 0.5, -0.5, 0.0]])
    expected = [["absence", "unclear", "unclear", "presence", "none", "depends"]]
    assert learnt(kinds, high).tolist() == expected
    assert learnt(learnt(kinds, high), high).tolist() == expected


def test_the_truth_of_outputs_is_that_of_the_table_that_ships():
    shipped = pd.read_csv(TRUTH)
    assert sorted(shipped.network.unique()) == sorted(NAMES) and len(shipped) == 40 * 28
    for name in NAMES:
        rows = shipped[shipped.network == name]
        wide = rows.pivot(index="unit", columns="concept", values="truth")[list(rules_of(name).world.names)]
        assert (wide.to_numpy() == output_truth(name)).all()
        high = rows.pivot(index="unit", columns="concept", values="high")[list(rules_of(name).world.names)]
        assert (learnt(planted(name), high.to_numpy()) == output_truth(name)).all()


def test_measured_thresholds_by_hand():
    cases = [  # mean, standard error: low and high are mean -+ 1.96 errors
        (-0.5, 0.1, "absence"), (-0.5, 0.25, "unclear"), (-0.24, 0.01, "unclear"), (-0.26, 0.01, "absence"),
        (0.5, 0.1, "presence"), (0.5, 0.25, "unclear"), (0.26, 0.01, "presence"), (0.0, 0.01, "none"),
        (0.0, 0.06, "unclear"), (0.09, 0.001, "none"), (0.11, 0.001, "unclear"), (-0.09, 0.02, "unclear"),
    ]  # fmt: skip
    effects = {
        "b": CausalEffect(
            torch.tensor([mean for mean, _, _ in cases]), torch.tensor([e for _, e, _ in cases])
        ),
        "a": CausalEffect(torch.full((len(cases),), 9.0), torch.full((len(cases),), 0.1)),
    }
    kinds = measured(effects, list(range(len(cases))))
    assert kinds[:, 0].tolist() == [kind for _, _, kind in cases], "columns as the effects come, not by name"
    assert (kinds[:, 1] == "presence").all()
    assert measured(effects, [7, 0])[:, 0].tolist() == ["none", "absence"]


def test_pair_effects_by_loops():
    model, world = untrained("plain/0"), World()
    found = pair_effects(model, ["block4", "fc"], world, 3, seed=9)
    assert list(found) == ["block4", "fc"] and list(found["fc"]) == list(world.names)
    presence = world.draw_presence(3, 9)
    for layer, unit, concept in (("block4", 5, 2), ("fc", 1, 6)):

        def answer(given, layer=layer, unit=unit):
            with torch.no_grad():
                return responses(model, layer, NORMALISATION.apply(world.render(given, 9).pixels))[
                    :, unit
                ].double()

        shown, hidden = (answer(with_concept(presence, concept, there)) for there in (True, False))
        spread = answer(presence).std()
        effect = found[layer][world.names[concept]]
        torch.testing.assert_close(effect.mean[unit], (shown - hidden).mean() / spread, rtol=1e-4, atol=1e-6)
        error = (shown - hidden).std() / 3**0.5 / spread
        torch.testing.assert_close(effect.standard_error[unit], error, rtol=1e-3, atol=1e-6)
