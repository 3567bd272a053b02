"""Random rules against their words, and the effects of a perfect network against an enumeration of all scenes."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from absence_utils.benchmark.rules import (
    ABSENT,
    KINDS,
    MOST_ABSENCES,
    OUTPUTS,
    SIZES,
    TWINS,
    RandomRule,
    RuleSet,
    draw_rules,
)
from absence_utils.errors import InputError
from absence_utils.images.scenes import LOGIT
from absence_utils.images.worlds import CONTEXTS, World

WORLD = World()
IN_WORDS = {
    "present": lambda a: a,
    "not": lambda a: not a,
    "and": lambda a, b: a and b,
    "and not": lambda a, b: a and not b,
    "or": lambda a, b: a or b,
    "xor": lambda a, b: a != b,
    "fewer than 2 of": lambda *there: sum(there) < 2,
    "2 or more of": lambda *there: sum(there) >= 2,
    "majority": lambda a, b, c: sum(map(bool, (a, b, not c))) >= 2,
}


def rule(kind, start=0):
    return RandomRule(kind, tuple(range(start, start + SIZES.get(kind, 2))))


@pytest.mark.parametrize("kind", sorted(IN_WORDS))
def test_a_rule_holds_where_its_words_do(kind):
    own = rule(kind, 1)
    for there in itertools.product([False, True], repeat=len(own.concepts)):
        presence = torch.zeros(1, 7, dtype=torch.bool)
        presence[0, list(own.concepts)] = torch.tensor(there)
        assert own.holds(presence, torch.zeros(1, 7, 2)).item() == IN_WORDS[kind](*there)


def test_left_of_needs_both_and_their_order():
    presence = torch.tensor([[True, True], [True, True], [True, False], [True, True]])
    place = torch.tensor([[[9, 10], [0, 20]], [[0, 20], [9, 10]], [[0, 10], [0, 20]], [[0, 10], [9, 10]]])
    assert rule("left of").holds(presence, place).tolist() == [True, False, False, False]


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"left of"}))
def test_effects_are_those_of_all_scenes(kind):
    """Enumerated with their probabilities in float64; a concept of the rule counts with and without the others."""
    own = RuleSet(WORLD, (rule(kind),))
    table = own.effects(n=20_000).set_index("concept")
    every = np.array(list(itertools.product([False, True], repeat=7)))

    def answer(presence):
        return LOGIT * (1 if IN_WORDS[kind](*presence[list(own.rules[0].concepts)]) else -1)

    for index, name in enumerate(WORLD.names):
        changes = []
        for presence in every:
            shown, hidden = presence.copy(), presence.copy()
            shown[index], hidden[index] = True, False
            changes.append(answer(shown) - answer(hidden))
        assert table.effect[name] == pytest.approx(np.mean(changes), abs=0.3)
        assert table.lowest[name] == min(changes)
        mean, moves = np.mean(changes), max(map(abs, changes)) > 1
        expected = "absence" if mean < -1 else "presence" if mean > 1 else "depends" if moves else "none"
        assert table.planted[name] == expected
    planted = [WORLD.names.index(name) for name in table.index[table.planted == "absence"]]
    assert tuple(planted) == own.rules[0].absent


def test_correlated_presences_change_effects_through_the_context_alone():
    alone = RuleSet(WORLD, (RandomRule("and not", (0, 1)),)).effects(20_000).effect
    together = RuleSet(World(correlation=0.6), (RandomRule("and not", (0, 1)),)).effects(20_000).effect
    assert alone[1] == pytest.approx(together[1], abs=0.3), "adding a concept does not bring others"


def test_a_majority_reverses_the_mean_response_where_concepts_come_together():
    """Simpson's paradox: adding the concept lowers the unit, yet scenes that show it have the higher response."""
    world = World(correlation=0.6)
    own = RuleSet(world, (RandomRule("majority", (0, 2, 4)),))
    presence = world.draw_presence(20_000, 1)
    logits = own.logits(presence, world.places(20_000, 1))[:, 0]
    shown = presence[:, 4]
    assert own.effects(20_000).effect[4] < -2 and logits[shown].mean() > logits[~shown].mean() + 2


def test_rules_are_about_concepts_that_come_together():
    for seed in range(20):
        for each in draw_rules(World(correlation=0.3), seed).rules:
            assert len(each.concepts) == 1 or any(set(each.concepts) <= set(one) for one in CONTEXTS)
    mixed = {each.concepts for seed in range(20) for each in draw_rules(WORLD, seed).rules}
    assert any(not any(set(one) <= set(context) for context in CONTEXTS) for one in mixed)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
def test_rule_sets_ask_for_one_to_three_absences_and_twins_for_none(seed):
    drawn = draw_rules(WORLD, seed)
    assert len(drawn.rules) == OUTPUTS == len(set(drawn.rules))
    assert 1 <= sum(len(each.absent) for each in drawn.rules) <= MOST_ABSENCES
    assert all(each.kind not in ABSENT and each.kind not in TWINS for each in drawn.twin.rules)
    assert [each.concepts for each in drawn.twin.rules] == [each.concepts for each in drawn.rules]
    assert drawn == draw_rules(WORLD, seed)


@pytest.mark.parametrize("seed", range(6))
def test_what_is_planted_is_what_the_rules_say(seed):
    drawn = draw_rules(World("crops", correlation=0.6), seed)
    table = drawn.effects()
    absences = table[table.planted == "absence"]
    named = [
        (output, drawn.world.names[number])
        for output, each in enumerate(drawn.rules)
        for number in each.absent
    ]
    assert sorted(zip(absences.output, absences.concept, strict=True)) == sorted(named)
    assert not (drawn.twin.effects().planted.isin(["absence", "depends"])).any()


def test_all_kinds_are_drawn():
    kinds = {each.kind for seed in range(60) for each in draw_rules(WORLD, seed).rules}
    assert kinds == set(KINDS)


def test_rules_are_said_in_words():
    names = WORLD.names
    assert RandomRule("and not", (0, 1)).text(names) == "disc and not cross"
    assert RandomRule("fewer than 2 of", (0, 1, 2)).text(names) == "fewer than 2 of disc, cross, ring"
    assert RandomRule("left of", (2, 0)).text(names) == "ring left of disc"
    assert RandomRule("majority", (0, 1, 2)).text(names) == "2 or more of disc, cross, not ring"
    assert RandomRule("not", (3,)).text(names) == "not triangle"


@pytest.mark.parametrize(
    ("kind", "concepts"), [("nor", (0, 1)), ("and", (0,)), ("and", (1, 1)), ("not", (0, 1))]
)
def test_rules_that_do_not_exist_are_named(kind, concepts):
    with pytest.raises(InputError):
        RandomRule(kind, concepts)
