"""What showing a concept does to a unit: against the rules in plain Python, and what no unit of measure may change."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from helpers.compiled_by_hand import RESPONSE, TRUE, vectors
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from absence_utils.attribution import diagnose
from absence_utils.attribution.counterfactuals import (
    EFFECTS,
    RESOLVED,
    CounterfactualEffect,
    counterfactual_effects,
    resolve_verdict,
)
from absence_utils.attribution.diagnosis import VERDICTS
from absence_utils.benchmark.compiled import COMPILED
from absence_utils.benchmark.gallery import SHOWN, after_showing
from absence_utils.errors import InputError
from absence_utils.images.base import IDENTITY
from absence_utils.images.scenes import CONCEPTS, NORMALISATION, RULES, counterfactual_pairs
from absence_utils.models import load_model
from absence_utils.units import Unit

CAPACITY = {"superposed decoy": 2}  # its rules hold for so many concepts at once
THRESHOLD = {"superposed decoy": 0.25}

# The right answers, thought out on paper: what each concept does to a unit that fires, in the order of the concepts.
EFFECT = {
    ("A", None, 0): ["does not fire", "none"],
    ("not B", None, 0): ["none", "ends"],
    ("not B", "hidden", 0): ["none", "ends"],
    ("A and not B", None, 0): ["does not fire", "ends"],
    ("A and not B", "hidden", 0): ["does not fire", "none"],  # this one is "A"
    ("A and not B", "hidden", 1): ["does not fire", "does not fire"],  # and this "A and B"
    ("A and not B, rectified", None, 0): ["does not fire", "ends"],  # no gradient sees it
    ("A and not B, rectified", "hidden", 0): ["does not fire", "ends"],
    ("A xor B", None, 0): ["ends", "ends"],
    ("A xor B", "hidden", 0): ["raises", "raises"],
    ("count below k", None, 0): ["ends"] * 4,
    ("count below k", "hidden", 0): ["ends"] * 4,
    ("count below k", "hidden", 1): ["ends"] * 4,
    ("A left of B", None, 0): ["does not fire", "ends", "ends", "does not fire"],
    ("A left of B", "hidden", 0): ["does not fire", "none", "none", "does not fire"],
    ("only the bias", None, 0): ["raises", "none"],
    ("only the bias", "hidden", 0): ["raises", "none"],
    ("superposed decoy", None, 0): ["does not fire", "lowers", "lowers"],
    ("superposed decoy", None, 1): ["lowers", "does not fire", "lowers"],
    ("superposed decoy", None, 2): ["lowers", "lowers", "does not fire"],
}


def contexts(name, index):
    """(without, with) concept `index`, presence vectors within the capacity."""
    count = len(COMPILED[name]().concepts)
    for without in vectors(count):
        if not without[index] and sum(without) < CAPACITY.get(name, count):
            yield without, [bit or at == index for at, bit in enumerate(without)]


def effects_of(name, layer, channel, threshold=None):
    net = COMPILED[name]()
    pairs = {concept: net.pairs(concept) for concept in net.concepts}
    return counterfactual_effects(
        Unit(net.model, layer, channel), pairs, net.threshold if threshold is None else threshold
    )


@pytest.mark.parametrize(
    "name, layer, channel", [key for key in EFFECT if set(EFFECT[key]) != {"does not fire"}]
)
def test_effects_on_every_compiled_unit(name, layer, channel):
    found = effects_of(name, layer, channel)
    assert [effect.effect for effect in found] == EFFECT[name, layer, channel]
    assert [effect.concept for effect in found] == list(COMPILED[name]().concepts)
    for index, effect in enumerate(found):  # and the numbers, by loops over the rule in plain Python
        by_hand = [
            [RESPONSE[name][layer]([float(bit) for bit in presence])[channel] for presence in pair]
            for pair in contexts(name, index)
        ]
        limit = THRESHOLD.get(name, 0.0)
        firing = [pair for pair in by_hand if pair[0] > limit]
        assert effect.firing == len(firing) and effect.ended == sum(after <= limit for _, after in firing)
        mean = math.fsum(after - before for before, after in firing) / len(firing) if firing else math.nan
        assert effect.change == pytest.approx(mean, abs=1e-6, nan_ok=True)


def test_every_unit_and_every_effect_is_in_the_table():
    assert {name for name, _, _ in EFFECT} == set(COMPILED)
    assert set(itertools.chain(*EFFECT.values())) == set(EFFECTS)


@pytest.mark.parametrize("name", COMPILED)
def test_a_concept_ends_an_output_exactly_where_its_rule_asks_for_the_absence(name):
    outputs = len(TRUE[name](vectors(len(COMPILED[name]().concepts))[0]))
    for output in range(outputs):
        for index, effect in enumerate(effects_of(name, None, output)):
            pairs = [[TRUE[name](presence)[output] for presence in pair] for pair in contexts(name, index)]
            assert (effect.effect == "ends") == any(before and not after for before, after in pairs)


def test_the_answer_depends_on_the_threshold():
    said = [
        effects_of("superposed decoy", None, 0, threshold)[1].effect for threshold in (0.25, 0.49, 0.5, 0.9)
    ]
    assert said == ["lowers", "lowers", "ends", "ends"]  # with B the output of A is 1/2


def test_a_crowd_of_interferers_ends_any_response():
    """What one unit cannot tell: beyond the capacity the decoy looks like an absence."""
    net = COMPILED["superposed decoy"]()
    pair = net.render(net.present("A", "B", "C")), net.render(net.present("A"))
    (effect,) = counterfactual_effects(Unit(net.model), {"B and C": pair}, net.threshold)
    assert effect.effect == "ends"


def test_one_pair_of_images_alone_and_in_small_batches():
    net = COMPILED["count below k"]()
    net.model.train()
    unit, pairs = Unit(net.model), {concept: net.pairs(concept) for concept in net.concepts}
    assert counterfactual_effects(unit, pairs) == counterfactual_effects(unit, pairs, batch_size=3)
    alone = {"B": (net.render(net.present("A", "B"))[0].requires_grad_(), net.render(net.present("A"))[0])}
    assert counterfactual_effects(unit, alone) == (CounterfactualEffect("B", "ends", 1, 1, -1.0),)
    assert net.model.training and alone["B"][0].grad is None


class Sum(nn.Module):
    """Factor times the weighted sum of pixels plus a bias; weights [pixel]."""

    normalisation = IDENTITY

    def __init__(self, weights, bias=0.0, factor=1.0):
        super().__init__()
        self.weights, self.bias, self.factor = nn.Parameter(torch.tensor(weights)), bias, factor

    def forward(self, images):
        return self.factor * (images.flatten(1) @ self.weights + self.bias)[:, None]


def pixels(*values):
    return torch.tensor(values).view(1, 1, -1)


HUNDREDTHS = st.integers(-200, 200).map(lambda value: value / 100)


@given(
    st.tuples(HUNDREDTHS, HUNDREDTHS, HUNDREDTHS), HUNDREDTHS, HUNDREDTHS, st.sampled_from([1e-4, 3.7, 1e6])
)
@settings(max_examples=60, deadline=None)
def test_no_verdict_depends_on_the_unit_of_measure(weights, bias, threshold, factor):
    every = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)))
    pairs = {}
    for index in range(3):
        without = every[every[:, index] == 0]
        pairs[index] = (without + torch.eye(3)[index])[:, None, None], without[:, None, None]

    def said(factor):
        unit = Unit(Sum(list(weights), bias, factor))
        try:
            found = counterfactual_effects(unit, pairs, factor * threshold)
        except InputError as error:
            return error.parameter
        assert all(effect.effect in EFFECTS for effect in found)
        verdicts = [resolve_verdict(verdict, found) for verdict in RESOLVED]
        return verdicts, [(effect.effect, effect.firing, effect.ended) for effect in found]

    assert said(1.0) == said(factor)


# Along the path of "A xor B" gradients cancel, and the processor's rounding says whether to 0 or to 5e-8 of a map.
@pytest.mark.filterwarnings("ignore::absence_utils.attribution.completeness.CompletenessWarning")
@pytest.mark.parametrize("factor", [0.01, 300.0])
def test_both_steps_keep_their_verdicts_when_a_network_is_multiplied(factor):
    for name, layer, concepts in SHOWN:
        net, times = COMPILED[name](), COMPILED[name]()
        last = list(times.model.children())[-1]
        last.weight.data *= factor  # the last layer of a compiled network has no bias
        image = net.render(net.present(*concepts))[0]
        verdict, scaled = (diagnose(Unit(it.model, layer), image).verdict for it in (net, times))
        assert verdict == scaled
        if verdict in RESOLVED:
            times = replace(times, threshold=factor * net.threshold)
            after = [after_showing(it, Unit(it.model, layer), verdict, concepts) for it in (net, times)]
            assert after[0] == after[1] != ""


def test_what_rounding_leaves_is_no_response():
    for left in (3e-7, -3e-7):
        unit = Unit(Sum([1.0, -1.0, left]))
        (effect,) = counterfactual_effects(unit, {"second": (pixels(1.0, 1.0, 1.0), pixels(1.0, 0.0, 0.0))})
        assert effect.effect == "ends"
        with pytest.raises(InputError, match="fires on no image"):
            counterfactual_effects(unit, {"first": (pixels(1.0, 0.0, 1.0), pixels(0.0, 0.0, 1.0))})
        (effect,) = counterfactual_effects(unit, {"third": (pixels(1.0, 0.0, 1.0), pixels(1.0, 0.0, 0.0))})
        assert effect.effect == "none"


def test_one_context_ends_and_the_mean_lowers_or_raises():
    def said(*changes):
        unit = Unit(Sum([1.0, 1.0]))
        without, shown = (
            pixels(1.0, 0.0).expand(len(changes), 1, 1, 2),
            [pixels(1.0, each) for each in changes],
        )
        (effect,) = counterfactual_effects(unit, {"it": (torch.stack(shown), without)})
        return effect.effect, effect.ended

    assert said(0.5, -0.25) == ("raises", 0) and said(0.25, -0.5) == ("lowers", 0)
    assert said(3.0, -0.5, -1.0) == ("ends", 1) and said(0.0, 0.0) == said(0.5, -0.5) == ("none", 0)


def test_in_a_trained_network_a_concept_ends_a_logit_exactly_where_its_absence_is_planted():
    model = load_model("concept_scenes")
    scenes = {name: counterfactual_pairs(name, 12, seed=7) for name in CONCEPTS}
    pairs = {name: tuple(NORMALISATION.apply(each.pixels) for each in pair) for name, pair in scenes.items()}
    for logit, rule in enumerate(RULES.values()):
        effects = counterfactual_effects(Unit(model, "logits", logit), pairs)
        assert {effect.concept for effect in effects if effect.effect == "ends"} == set(rule.absent)
        assert all(effect.ended == effect.firing for effect in effects if effect.effect == "ends")


def effect(name, firing=1):
    return CounterfactualEffect("B", name, firing, int(name == "ends"), 0.0)


@pytest.mark.parametrize("verdict, ends, none_does", [
    ("baseline-driven", "absence-driven", "bias-driven"),
    ("held down", "suppressed", "interference"),
    ("outweighed", "vetoed", "interference"),
])  # fmt: skip
def test_what_a_verdict_stands_for(verdict, ends, none_does):
    others = [effect("lowers"), effect("raises"), effect("none"), effect("does not fire", 0)]
    assert (
        resolve_verdict(verdict, others) == none_does
        and resolve_verdict(verdict, [*others, effect("ends")]) == ends
    )
    assert verdict in VERDICTS and not {ends, none_does} & {*VERDICTS}


UNIT, IMAGE = Unit(Sum([1.0, -1.0])), pixels(1.0, 0.0)


@pytest.mark.parametrize("call, parameter, said", [
    (lambda: counterfactual_effects(UNIT, {}), "pairs", "no concepts"),
    (lambda: counterfactual_effects(UNIT, [IMAGE, IMAGE]), "pairs", "no concepts"),
    (lambda: counterfactual_effects(UNIT, {"B": IMAGE}), "pairs", "'B' has Tensor"),
    (lambda: counterfactual_effects(UNIT, {"B": (IMAGE,)}), "pairs", r"'B' has \(1, 1, 2\)"),
    (lambda: counterfactual_effects(UNIT, {"B": (IMAGE, IMAGE[None])}), "pairs", "'B' has .* and .*same images"),
    (lambda: counterfactual_effects(UNIT, {"B": (IMAGE[0], IMAGE[0])}), "pairs", "'B' has"),
    (lambda: counterfactual_effects(UNIT, {"B": (IMAGE[:0], IMAGE[:0])}), "pairs", "'B' has"),
    (lambda: counterfactual_effects(UNIT, {"B": (IMAGE, None)}), "pairs", "NoneType"),
    (lambda: counterfactual_effects(UNIT, {"B": (IMAGE / 0, IMAGE)}), "pairs", "not finite.*NaN"),
    (lambda: counterfactual_effects(UNIT, {"B": (IMAGE, -IMAGE)}), "pairs", "fires on no image.*target inputs"),
    (lambda: counterfactual_effects(UNIT, {"B": (IMAGE, IMAGE)}, 1.0), "pairs", "at most 1, threshold 1"),
    (lambda: counterfactual_effects(UNIT, {"B": (IMAGE, IMAGE)}, math.nan), "threshold", "finite"),
    (lambda: resolve_verdict("presence-driven", [effect("ends")]), "verdict", "baseline-driven, outweighed, held down"),
    (lambda: resolve_verdict("held down", []), "effects", "none of a unit that fires.*Show a concept"),
    (lambda: resolve_verdict("held down", [effect("does not fire", 0)]), "effects", "fires"),
])  # fmt: skip
def test_bad_input_is_named_with_a_remedy(call, parameter, said):
    with pytest.raises(InputError, match=said) as error:
        call()
    assert error.value.parameter == parameter and error.value.problem and error.value.remedy
