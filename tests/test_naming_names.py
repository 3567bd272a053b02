"""Planted units: what must be named, what must not, and which of names that lie in each other."""

import numpy as np
import pandas as pd
import pytest
from helpers.planted_names import noise_images, planted_donors, planted_network

from absence_utils import InputError, name_absence
from absence_utils.naming.names import Trial, offered_names, split_donors
from absence_utils.naming.truth import against_truth, join_truth


@pytest.fixture(scope="module")
def found():
    return name_absence(planted_network(), "2", noise_images(40), planted_donors(), hosts=2)


def test_the_cross_is_named_and_colour_is_not(found):
    signed = found.table[found.table.reading == "signed"].set_index("unit")
    assert signed.name[0] == "cross" and signed.confirmed[0] and signed.repeated[0]
    assert signed.absolute[0] < signed.absolute_high[0] < -0.05 and signed.specific[0] < -0.05
    # Red lowers unit 1 strongly against the mean colour, and no more than a scrambled copy of it does.
    assert not signed.confirmed[1] and signed.absolute[1] > -0.05
    assert signed.name[2] == "" and not signed.confirmed[2]


def test_result_says_its_shares(found):
    assert found.share["signed"] == pytest.approx(1 / 3) and found.share["passed on"] == 0
    assert "1 of 3 units (signed)" in repr(found) and found.offered == ["cross", "stripes", "red"]
    assert len(found.confirmed) == 1 and found.edge == 8


def test_some_units_of_the_layer():
    one = name_absence(planted_network(), "2", noise_images(40), planted_donors(), units=[1, 0], repeat=False)
    assert one.table[one.table.reading == "signed"].unit.tolist() == [1, 0]
    assert "repeated" not in one.table


def test_halves_share_the_donors_of_every_name():
    membership = np.zeros((60, 4), bool)
    membership[:40, 0] = membership[:20, 1] = membership[20:29, 2] = membership[40:60, 3] = True
    half = split_donors(membership, 3)
    for name in range(4):
        inside = half[membership[:, name]]
        assert abs(inside.mean() - 0.5) <= 0.5 / len(inside) + 1e-9
    assert (split_donors(membership, 4) != half).any()


def test_names_with_few_donors_are_not_offered():
    concepts = planted_donors(4)
    with pytest.raises(InputError, match="no name has 8 donors"):
        offered_names(concepts, split_donors(concepts.membership))
    concepts = planted_donors(8)
    assert offered_names(concepts, split_donors(concepts.membership)) == [0, 1, 2]
    concepts.membership[:] = True  # nothing to compare with
    with pytest.raises(InputError, match="concepts"):
        offered_names(concepts, split_donors(concepts.membership))


def nested(rest: float, seed: int = 0):
    """(Trial, changes): 40 dogs lowered by 1, 40 other mammals by `rest`, 80 things by nothing."""
    concepts = planted_donors(8)
    concepts.names, concepts.parents = ["dog", "mammal", "thing"], {"dog": ("mammal",)}
    kind = np.repeat([0, 1, 2], (40, 40, 80))
    concepts.membership = np.stack([kind == 0, kind < 2, kind == 2], axis=1)
    generator = np.random.default_rng(seed)
    changes = 0.2 * generator.normal(size=(160, 1)) - np.choose(kind, (1, rest, 0))[:, None]
    half = split_donors(concepts.membership)
    statistics = generator.normal(size=(160, 4))
    return Trial(concepts, [0, 1, 2], half, statistics, 0.05), changes


@pytest.mark.parametrize(("rest", "name"), [(0.0, "dog"), (0.3, "dog"), (0.9, "mammal")])
def test_the_most_general_name_that_explains_it(rest, name):
    trial, changes = nested(rest)
    numbers, runners = trial.propose(changes)
    assert trial.concepts.names[numbers[0]] == name
    assert runners == [""]  # what lies above or below a name is no runner-up


def test_a_runner_up_is_neither_above_nor_below():
    trial, changes = nested(0.0)
    changes[80:] -= 0.5  # things, less than dogs
    trial.concepts.membership[80:84] = False  # and some donors that are neither
    changes[80:84] = changes[40:44] = 3.0
    numbers, runners = trial.propose(changes)
    assert trial.concepts.names[numbers[0]] == "dog" and runners[0] in ("thing", "")


def test_names_against_exact_effects():
    table = pd.DataFrame(
        {"unit": [0, 1, 2, 3], "name": ["a", "b", "a", ""], "confirmed": [True, True, True, False]}
    )
    effects = {"a": [-1.0, -0.5, 0.0, -0.3], "b": [0.0, -0.45, -0.4, 0.0]}
    truth = pd.DataFrame(
        [(unit, name, values[unit]) for name, values in effects.items() for unit in range(4)],
        columns=["unit", "concept", "effect"],
    )
    joined = join_truth(table, truth)
    assert joined.strongest.tolist() == ["a", "a", "b", "a"] and joined.exact.tolist()[:3] == [-1, -0.45, 0]
    assert against_truth(table, truth) == {"agree": 1, "near": 2, "wrong": 1, "clear": 4}
