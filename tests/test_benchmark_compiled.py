"""Compiled networks against their rules in plain Python, and the effects of their concepts in every context."""

import itertools
import math
from fractions import Fraction

import pytest
import torch
from helpers.compiled_by_hand import RESPONSE, TRUE, all_presences, vectors

from absence_utils.attribution.baselines import baseline_images
from absence_utils.attribution.methods import attribute
from absence_utils.benchmark.compiled import (
    COMPILED,
    a_and_not_b,
    a_and_not_b_rectified,
    a_left_of_b,
    count_below_k,
    superposed_decoy,
)
from absence_utils.errors import InputError
from absence_utils.units import Unit, responses

EVERY = [(name, layer) for name in COMPILED for layer in RESPONSE[name]]

# Average effects [unit][concept], counted on paper.
EFFECTS = {
    ("A", None): [[1, 0]],
    ("A", "hidden"): [[1, 0]],
    ("not B", None): [[0, -1]],
    ("not B", "hidden"): [[0, -1]],
    ("A and not B", None): [[1 / 2, -1 / 2]],  # each acts in one of two contexts
    ("A and not B", "hidden"): [[1, 0], [1, 1]],
    ("A and not B, rectified", None): [[1 / 2, -1 / 2]],
    ("A and not B, rectified", "hidden"): [[1, -2]],
    ("A xor B", None): [[0, 0]],  # +1 in one context, -1 in the other
    ("A xor B", "hidden"): [[1, 1], [1, 1]],
    ("count below k", None): [[-3 / 8] * 4],  # 3 of the 8 contexts show exactly one other concept
    ("count below k", "hidden"): [[-1] * 4, [-1] * 4],
    ("A left of B", None): [[1 / 2, -1 / 2, -1 / 2, 1 / 2]],
    ("A left of B", "hidden"): [[1, 0, 0, 1], [0, 1, 1, 0]],
    ("only the bias", None): [[1 / 2, 0]],
    ("only the bias", "hidden"): [[1 / 2, 0]],
    ("superposed decoy", None): [[1, -1 / 2, -1 / 2], [-1 / 2, 1, -1 / 2], [-1 / 2, -1 / 2, 1]],
}


def effects_in_contexts(net, layer=None):
    """Change of every unit when one concept is added, in every context: [unit, concept, context], float64."""
    presence = all_presences(net)
    read = responses(net.model, layer, net.render(presence)).double()
    changes = []
    for index in range(len(net.concepts)):
        without = torch.nonzero(~presence[:, index])[:, 0]
        # the row number is the vector read as a binary number: adding concept i adds 2**i
        changes.append((read[without + 2**index] - read[without]).T)
    return torch.stack(changes, dim=1)


def changes_by_hand(name, layer, channel, index):
    """The change that concept `index` makes, in each context."""
    function, changes = RESPONSE[name][layer], []
    for presence in vectors(len(COMPILED[name]().concepts)):
        if not presence[index]:
            without = [float(bit) for bit in presence]
            shown = [1.0 if at == index else value for at, value in enumerate(without)]
            changes.append(function(shown)[channel] - function(without)[channel])
    return changes


@pytest.mark.parametrize("name", COMPILED)
def test_images_show_each_concept_in_its_own_pixels_and_nothing_else(name):
    net = COMPILED[name]()
    presences = all_presences(net)
    images = net.render(presences)
    assert images.shape == (2 ** len(net.concepts), 1, 6, 6)
    for presence, image in zip(presences.tolist(), images, strict=True):
        for row, column in itertools.product(range(6), range(6)):
            owners = [at for at in range(len(net.concepts)) if net.masks[at, row, column]]
            assert len(owners) <= 1
            assert image[0, row, column] == float(bool(owners) and presence[owners[0]])
    assert net.masks.sum(dim=(1, 2)).tolist() == [4] * len(net.concepts)


@pytest.mark.parametrize("name, layer", EVERY)
def test_responses_follow_the_rule_in_plain_python(name, layer):
    net = COMPILED[name]()
    read = responses(net.model, layer, net.render(all_presences(net))).double()
    by_hand = [RESPONSE[name][layer]([float(b) for b in p]) for p in vectors(len(net.concepts))]
    torch.testing.assert_close(read, torch.tensor(by_hand, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name, layer", EVERY)
def test_responses_to_grey_concepts_follow_too(name, layer):
    net = COMPILED[name]()
    grey = torch.rand(20, len(net.concepts), generator=torch.Generator().manual_seed(1))
    images = torch.einsum("bc,chw->bhw", grey, net.masks.float())[:, None]
    read = responses(net.model, layer, images).double()
    by_hand = torch.tensor([RESPONSE[name][layer](row) for row in grey.tolist()], dtype=torch.float64)
    torch.testing.assert_close(read, by_hand, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", COMPILED)
def test_outputs_tell_the_truth_of_the_rule(name):
    net = COMPILED[name]()
    told = net.model(net.render(all_presences(net))) > 0.25
    for presence, told_here in zip(vectors(len(net.concepts)), told.tolist(), strict=True):
        if name == "superposed decoy" and all(presence):
            assert told_here == [False] * 3  # the promise ends at two concepts
        else:
            assert told_here == [bool(true) for true in TRUE[name](presence)]


@pytest.mark.parametrize("name", COMPILED)
def test_pairs_are_all_that_differ_in_one_concept_and_keep_to_the_rules(name):
    net = COMPILED[name]()
    for index, concept in enumerate(net.concepts):
        shown, without = net.pairs(concept)
        seen = [
            net.masks.float().flatten(1) @ half.flatten(1).T / 4 for half in (without, shown)
        ]  # [concept, pair]
        change = torch.zeros(len(net.concepts), len(without))
        change[index] = 1
        torch.testing.assert_close(seen[1] - seen[0], change, atol=0, rtol=0)
        contexts = {tuple(presence) for presence in seen[0].bool().T.tolist()}
        every = [tuple(p) for p in vectors(len(net.concepts)) if not p[index]]
        wanted = {p for p in every if not (name == "superposed decoy" and sum(p) == 2)}
        assert contexts == wanted and len(without) == len(wanted)
        # within the capacity an output is above the threshold where its rule is true
        told = (net.model(shown) > net.threshold).tolist()
        assert told == [[bool(true) for true in TRUE[name](p)] for p in seen[1].bool().T.tolist()]


@pytest.mark.parametrize("name, layer", EVERY)
def test_effects_are_those_counted_on_paper_and_by_loops(name, layer):
    net = COMPILED[name]()
    contexts = effects_in_contexts(net, layer)
    found = contexts.mean(dim=-1)
    torch.testing.assert_close(
        found, torch.tensor(EFFECTS[name, layer], dtype=torch.float64), atol=1e-6, rtol=0
    )
    for channel, index in itertools.product(range(found.shape[0]), range(found.shape[1])):
        by_hand = torch.tensor(changes_by_hand(name, layer, channel, index), dtype=torch.float64)
        torch.testing.assert_close(contexts[channel, index], by_hand, atol=1e-6, rtol=0)


def asked_by_the_rule(name, output, index):
    """Whether the rule of an output ever changes its answer with this concept."""
    rule = TRUE[name]
    for presence in vectors(len(COMPILED[name]().concepts)):
        other = [bit != (at == index) for at, bit in enumerate(presence)]
        if bool(rule(presence)[output]) != bool(rule(other)[output]):
            return True
    return False


def test_a_veto_needs_its_context_and_a_local_absence_none():
    # contexts of B: without A, with A
    assert effects_in_contexts(a_and_not_b())[0, 1].tolist() == [0, -1]
    assert effects_in_contexts(COMPILED["not B"]())[0, 1].tolist() == [-1, -1]
    assert effects_in_contexts(COMPILED["A xor B"]())[0].tolist() == [[1, -1], [1, -1]]
    # before its rectifier the same rule is additive: the veto is made by the rectifier
    rectified = a_and_not_b_rectified()
    assert effects_in_contexts(rectified, "hidden")[0, 1].tolist() == [-2, -2]
    assert effects_in_contexts(rectified)[0, 1].tolist() == [0, -1]


@pytest.mark.parametrize("name", [name for name in COMPILED if "hidden" in RESPONSE[name]])
def test_the_rectifier_is_read_before_it(name):
    net = COMPILED[name]()
    images = net.render(all_presences(net))
    assert torch.equal(responses(net.model, "relu", images), responses(net.model, "hidden", images))


@pytest.mark.parametrize("name", COMPILED)
def test_networks_are_frozen_and_see_pixels_as_they_are(name):
    net = COMPILED[name]()
    assert not any(module.training for module in net.model.modules())
    assert not any(parameter.requires_grad for parameter in net.model.parameters())
    image = torch.rand(1, 1, 6, 6)
    assert baseline_images(Unit(net.model), image, "black").abs().max() == 0


def test_weights_read_as_the_rule():
    model = a_and_not_b().model
    assert [name for name, _ in model.named_children()] == ["flatten", "concepts", "hidden", "relu", "output"]
    assert model.hidden.weight.tolist() == [[1, 0], [1, 1]] and model.hidden.bias.tolist() == [0, -1]
    assert model.output.weight.tolist() == [[1, -1]] and model.output.bias is None
    first = model.concepts.weight[0].view(6, 6)
    assert first[:2, :2].tolist() == [[0.25, 0.25]] * 2 and first.sum() == 1


def test_a_shut_rectifier_hides_the_veto_from_gradients_and_the_unit_before_it_shows_it():
    net = a_and_not_b_rectified()
    both = net.render(net.present("A", "B"))
    assert not attribute(Unit(net.model), both).any()
    shown = attribute(Unit(net.model, "hidden"), both)[0, 0]
    torch.testing.assert_close(shown[net.masks[1]].sum(), torch.tensor(-2.0))
    openly = a_and_not_b()
    shown = attribute(Unit(openly.model), openly.render(openly.present("A", "B")))[0, 0]
    torch.testing.assert_close(shown[openly.masks[1]].sum(), torch.tensor(-0.5))


@pytest.mark.parametrize("n", [2, 3, 5, 9])
@pytest.mark.parametrize("k", [1, 2, 3, 5, 9])
def test_counting_for_every_k_and_n(k, n):
    if k > n:
        with pytest.raises(InputError, match="`k`"):
            count_below_k(k, n)
        return
    net = count_below_k(k, n)
    presence = all_presences(net)
    fires = net.model(net.render(presence))[:, 0]
    assert fires.tolist() == [float(sum(vector) < k) for vector in presence.tolist()]
    expected = float(-Fraction(math.comb(n - 1, k - 1), 2 ** (n - 1)))
    contexts = effects_in_contexts(net)[0]
    assert contexts.mean(dim=1).tolist() == [pytest.approx(expected, abs=1e-7)] * n
    assert ((contexts == 0).any(dim=1) & (contexts == -1).any(dim=1)).all()  # so each is a veto


def test_order_detector_changes_sign_in_the_mirror():
    net = a_left_of_b()
    images = net.render(all_presences(net))
    assert torch.equal(net.model(images.flip(-1)), -net.model(images))
    seen = [net.model(net.render(net.present(*names))).item() for names in
            [("A left", "B right"), ("A right", "B left"), net.concepts]]  # fmt: skip
    assert seen == [1, -1, 0]
    for concept, mask in zip(net.concepts, net.masks, strict=True):
        rows, columns = torch.nonzero(mask).T
        assert (columns < 3).all() == concept.endswith("left") and (rows < 3).all() == concept.startswith("A")


def test_decoy_packs_three_concepts_in_two_dimensions():
    net = superposed_decoy()
    plane = net.model.plane.weight.double()
    assert plane.shape == (2, 3)
    cosines = torch.tensor([[1, -0.5, -0.5], [-0.5, 1, -0.5], [-0.5, -0.5, 1]], dtype=torch.float64)
    torch.testing.assert_close(plane.T @ plane, cosines, atol=1e-6, rtol=0)
    # reading B lowers A in every context, although A's rule doesn't ask for B
    assert (effects_in_contexts(net)[0, 1] < -0.4).all() and not asked_by_the_rule("superposed decoy", 0, 1)
    # a unit of the plane itself, as a direction: the difference of B's and C's readings
    unit = Unit(net.model, "plane", direction=torch.tensor([0.0, 1.0]))
    seen = unit.response(net.render(torch.eye(3).bool()))
    torch.testing.assert_close(seen, torch.tensor([0, 3**0.5 / 2, -(3**0.5) / 2]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("call, parameter", [
    (lambda net: net.render(torch.ones(1, 2)), "presence"),  # not bool
    (lambda net: net.render(torch.ones(2).bool()), "presence"),  # no batch axis
    (lambda net: net.render([[True, False]]), "presence"),
    (lambda net: net.render(torch.ones(1, 3).bool()), "presence"),  # too many
    (lambda net: net.present("A", "C"), "names"),
    (lambda net: net.pairs("C"), "concept"),
    (lambda net: count_below_k(0, 3), "k"),
    (lambda net: count_below_k(1, 1), "n"),
    (lambda net: count_below_k(1, 10), "n"),
])  # fmt: skip
def test_bad_input_is_named_with_a_remedy(call, parameter):
    with pytest.raises(InputError) as error:
        call(a_and_not_b())
    assert error.value.parameter == parameter and error.value.problem and error.value.remedy
