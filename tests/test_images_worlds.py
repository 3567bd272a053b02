"""Worlds against their definition: exact pairs and masks in every one, presences as correlated as stated."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from absence_utils.errors import InputError
from absence_utils.images import photographs
from absence_utils.images import scenes as sc
from absence_utils.images.glyphs import RADIUS
from absence_utils.images.worlds import BACKGROUNDS, CONTEXTS, LOOKS, World

worlds = st.builds(
    World,
    concepts=st.sampled_from(sorted(LOOKS)),
    backgrounds=st.sampled_from(BACKGROUNDS),
    overlap=st.booleans(),
    radius=st.tuples(st.floats(4, 7), st.floats(7, RADIUS[1])),
)
presences = st.lists(st.booleans(), min_size=7, max_size=7)
seeds = st.integers(0, 2**40)
few = settings(max_examples=40, deadline=None)


@few
@given(worlds, presences, seeds, st.integers(0, 6))
def test_with_and_without_differ_in_exactly_the_mask(world, presence, seed, concept):
    presence = torch.tensor([presence])
    with_it, without = presence.clone(), presence.clone()
    with_it[0, concept], without[0, concept] = True, False
    a, b = world.render(with_it, seed), world.render(without, seed)
    assert torch.equal((a.pixels != b.pixels).any(dim=1), a.masks[:, concept])
    assert not b.masks[:, concept].any() and torch.equal(a.place, b.place)
    assert a.pixels.min() >= 0 and a.pixels.max() <= 1
    if not world.overlap:
        assert a.masks.sum(dim=1).max() <= 1, "each concept has a cell of its own"


@few
@given(worlds, seeds, st.integers(0, 2**20))
def test_a_scene_does_not_depend_on_its_batch(world, seed, first):
    presence = world.draw_presence(4, seed)
    whole, one = world.render(presence, seed, first), world.render(presence[2:3], seed, first + 2)
    for name in ("pixels", "masks", "presence", "place"):
        assert torch.equal(getattr(whole, name)[2:3], getattr(one, name))


PIXELS_OF_CONCEPTS = [31858, 13779, 24041, 15913, 9009, 14957, 12409]  # of their masks in those scenes


def test_the_plain_world_is_that_of_the_concept_scenes():
    """Numbers taken before there were other worlds; processors round the last digits differently."""
    scenes = sc.render_scenes(sc.draw_presence(300, 7), 7)
    means = scenes.pixels.mean(dim=(0, 2, 3)).tolist()
    assert means == pytest.approx([0.3209399, 0.3208352, 0.3238315], abs=2e-6)
    assert scenes.pixels.std().item() == pytest.approx(0.1457392, abs=2e-6)
    assert scenes.pixels[5, :, 20, 30].tolist() == pytest.approx([0.3761989, 0.3870401, 0.2056393], abs=2e-5)
    assert scenes.masks.sum(dim=(0, 2, 3)).tolist() == pytest.approx(PIXELS_OF_CONCEPTS, abs=5)


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.6, 1.0])
def test_concepts_of_a_context_come_together_as_stated_and_those_of_two_apart(correlation):
    presence = World(correlation=correlation).draw_presence(40_000, 3).numpy()
    expected = np.eye(7)
    for first, second in itertools.permutations(range(6), 2):
        together = any({first, second} <= set(context) for context in CONTEXTS)
        expected[first, second] = correlation if together else -correlation
    assert np.abs(np.corrcoef(presence.T) - expected).max() < 0.025
    assert np.abs(presence.mean(axis=0) - 0.5).max() < 0.015


@pytest.mark.parametrize("concepts", sorted(LOOKS))
def test_what_lies_on_top_hides_what_is_below(concepts):
    world = World(concepts, overlap=True)
    scenes = world.render(torch.ones(60, 7, dtype=torch.bool), 5)
    alone = torch.stack(
        [world.render(torch.eye(7).bool()[[k]].expand(60, 7).contiguous(), 5).masks[:, k] for k in range(7)],
        dim=1,
    )
    assert torch.equal(scenes.masks[:, 6], alone[:, 6]), "nothing lies on the last one"
    assert not (scenes.masks & ~alone).any()
    hidden = (alone & ~scenes.masks).sum(dim=(0, 2, 3))
    assert (hidden[:6] > 0).all()


def test_pairs_are_the_same_scenes_with_and_without():
    world = World("crops", "photographs", correlation=0.6)
    shown, hidden = world.pairs("dahlia", 5, 2)
    index = world.names.index("dahlia")
    assert shown.presence[:, index].all() and not hidden.presence[:, index].any()
    others = [k for k in range(7) if k != index]
    assert torch.equal(shown.presence[:, others], hidden.presence[:, others])
    assert torch.equal((shown.pixels != hidden.pixels).any(dim=1), shown.masks[:, index])


def test_no_background_shows_a_concept():
    for name, left, top, right, bottom in photographs.REGIONS:
        height, width, _ = photographs.photograph(name).shape
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        for photo, x, y, half in photographs.CROPS.values():
            apart = right <= x - half or left >= x + half or bottom <= y - half or top >= y + half
            assert photo != name or apart


def test_textures_have_one_outline():
    masks = [World("textures").render(torch.eye(7).bool()[[k]], 4).masks[0, k].sum().item() for k in range(7)]
    sizes = [
        World("textures").render(torch.eye(7).bool()[[k]].repeat(40, 1), 4).masks[:, k].sum()
        for k in range(7)
    ]
    assert min(masks) > 100
    assert max(sizes) / min(sizes) < 1.1, "the size tells no texture"


@pytest.mark.parametrize(
    ("wrong", "parameter"),
    [
        ({"concepts": "letters"}, "concepts"),
        ({"backgrounds": "none"}, "backgrounds"),
        ({"correlation": 1.5}, "correlation"),
        ({"radius": (8, 12)}, "radius"),
        ({"radius": (8, 6)}, "radius"),
    ],
)
def test_a_world_that_does_not_exist_is_named(wrong, parameter):
    with pytest.raises(InputError) as raised:
        World(**wrong)
    assert raised.value.parameter == parameter


def test_presence_of_another_shape_is_named():
    with pytest.raises(InputError, match="7 columns"):
        World().render(torch.ones(2, 6, dtype=torch.bool), 0)
    with pytest.raises(InputError, match="concept"):
        World("crops").pairs("disc", 2, 0)
