"""Scenes against their definition, the shipped network against its manifest, and a short training."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from absence_utils.benchmark.effects import average_causal_effect
from absence_utils.errors import InputError
from absence_utils.files import file_hash
from absence_utils.images import scenes as sc
from absence_utils.images.base import Normalisation, normalisation_of, set_input_spec
from absence_utils.images.glyphs import BACKGROUND, CELL, FAINTEST, GLYPHS, RADIUS, VALUE
from absence_utils.images.load import load_images
from absence_utils.models.concept_net import train_concept_net
from absence_utils.models.load import load_model
from absence_utils.models.training import predict
from absence_utils.paths import DATA, ROOT
from absence_utils.units import feature_map, responses

presences = st.lists(st.booleans(), min_size=len(sc.CONCEPTS), max_size=len(sc.CONCEPTS))
seeds = st.integers(0, 2**40)
few = settings(max_examples=25, deadline=None)


@pytest.fixture(scope="module")
def net():
    return load_model("concept_scenes")


@pytest.fixture(scope="module")
def facts():
    entries = json.loads((DATA / "manifest.json").read_text())["files"]
    return next(entry for entry in entries if entry["path"].endswith("concept_scenes.safetensors"))


# -- the renderer


@few
@given(presences, seeds, st.integers(0, len(sc.CONCEPTS) - 1))
def test_with_and_without_differ_in_exactly_the_mask(presence, seed, concept):
    presence = torch.tensor([presence])
    with_it, without = presence.clone(), presence.clone()
    with_it[0, concept], without[0, concept] = True, False
    a, b = sc.render_scenes(with_it, seed), sc.render_scenes(without, seed)
    changed = (a.pixels != b.pixels).any(dim=1)
    assert torch.equal(changed, a.masks[:, concept]) and changed.sum() > 40
    assert not b.masks[:, concept].any()
    others = [k for k in range(len(sc.CONCEPTS)) if k != concept]
    assert torch.equal(a.masks[:, others], b.masks[:, others])
    # The difference is large enough to survive images of 8 bits.
    as_bytes = [(scenes.pixels * 255).round() for scenes in (a, b)]
    assert torch.equal((as_bytes[0] != as_bytes[1]).any(dim=1), changed)


@few
@given(presences, seeds)
def test_pixels_are_in_range_and_no_concept_hides_another(presence, seed):
    scenes = sc.render_scenes(torch.tensor([presence]), seed)
    assert scenes.pixels.shape == (1, 3, 64, 64) and scenes.pixels.dtype == torch.float32
    assert 0 <= scenes.pixels.min() and scenes.pixels.max() <= 1
    assert scenes.masks.sum(dim=1).max() <= 1
    assert torch.equal(scenes.masks.flatten(2).any(dim=2), scenes.presence)
    bright = scenes.pixels.amax(dim=1, keepdim=True) > BACKGROUND[1]
    assert not (bright & ~scenes.masks.any(dim=1, keepdim=True)).any()


def test_a_batch_equals_its_scenes_rendered_one_by_one():
    presence = sc.draw_presence(12, 3)
    batch = sc.render_scenes(presence, 5)
    for i in range(12):
        single = sc.render_scenes(presence[i : i + 1], 5, first=i)
        assert torch.equal(single.pixels[0], batch.pixels[i])
        assert torch.equal(single.masks[0], batch.masks[i])


def test_the_seed_decides_and_global_state_does_not():
    presence = sc.draw_presence(6, 0)
    first = sc.render_scenes(presence, 1).pixels
    np.random.seed(9), torch.manual_seed(9)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    assert torch.equal(first, sc.render_scenes(presence, 1).pixels)
    assert not torch.equal(first, sc.render_scenes(presence, 2).pixels)
    assert torch.equal(presence, sc.draw_presence(6, 0))
    assert (before[0] == np.random.get_state()[1]).all() and torch.equal(before[1], torch.get_rng_state())
    assert not torch.equal(first[0], first[1])


def test_a_glyph_is_painted_as_its_definition_says_pixel_by_pixel():
    """The opaque core of a disc, counted slowly: as many pixels as a circle of that area, all one colour."""
    presence = torch.zeros(20, len(sc.CONCEPTS), dtype=torch.bool)
    presence[:, 0] = True
    scenes = sc.render_scenes(presence, 4)
    for pixels, mask in zip(scenes.pixels, scenes.masks[:, 0], strict=True):
        rows, columns = np.nonzero(mask.numpy())
        radius = np.hypot(rows - rows.mean(), columns - columns.mean()).max()
        assert 0.85 * RADIUS[0] - 1 < radius < 0.85 * RADIUS[1] + 1
        centre = pixels[:, int(round(rows.mean())), int(round(columns.mean()))]
        core = ((pixels - centre[:, None, None]).abs().amax(dim=0) < 1e-5).sum().item()
        assert core == pytest.approx(np.pi * (radius - 0.7) ** 2, rel=0.15)
        assert VALUE[0] - 1e-5 <= centre.max() <= VALUE[1]


@pytest.mark.parametrize("name", GLYPHS)
def test_a_glyph_stays_in_its_unit_circle(name):
    """Half a pixel of soft edge is allowed for by the slack that is left in the cell."""
    y, x = np.mgrid[-1.5:1.5:301j, -1.5:1.5:301j]
    inside = GLYPHS[name](x, y) <= 0
    assert inside.any() and np.hypot(x, y)[inside].max() <= 1.0
    assert 2 * RADIUS[1] + 1 < CELL


def test_concepts_look_different():
    """Laid on each other, no two glyphs overlap by more than 70% of their union."""
    y, x = np.mgrid[-1:1:201j, -1:1:201j]
    shapes = [glyph(x, y) <= 0 for glyph in GLYPHS.values()]
    for i, a in enumerate(shapes):
        for b in shapes[:i]:
            assert (a & b).sum() / (a | b).sum() < 0.7


def test_no_glyph_is_cut_and_no_pixel_of_a_mask_is_too_faint_to_see():
    """Disc, cross and ring are as wide as high unless cut. The colour stands 0.3 above any background, and at least a
    tenth of it is painted."""
    presence = torch.ones(300, len(sc.CONCEPTS), dtype=torch.bool)
    scenes, bare = sc.render_scenes(presence, 11), sc.render_scenes(~presence, 11)
    for concept in range(3):
        masks = scenes.masks[:, concept]
        width, height = masks.any(dim=1).sum(dim=1), masks.any(dim=2).sum(dim=1)
        assert (width - height).abs().max() <= 1
    change = (scenes.pixels - bare.pixels).abs().amax(dim=1)
    painted = scenes.masks.any(dim=1)
    assert change[painted].min() > 0.99 * FAINTEST * (VALUE[0] - BACKGROUND[1])
    assert change[~painted].max() == 0


def test_place_size_and_colour_vary():
    presence = torch.ones(200, len(sc.CONCEPTS), dtype=torch.bool)
    scenes = sc.render_scenes(presence, 0)
    for concept in range(len(sc.CONCEPTS)):
        masks = scenes.masks[:, concept]
        cells = masks.any(dim=0)[:63, :63].reshape(3, 21, 3, 21).float().mean(dim=(1, 3))
        assert (cells > 0.4).all()  # the concept comes everywhere
        area = masks.sum(dim=(1, 2)).float()
        assert area.max() > 1.4 * area.min()
    strongest = (scenes.pixels * scenes.masks[:, 0, None]).flatten(2).amax(dim=2).argmax(dim=1)
    assert (strongest.bincount(minlength=3) > 30).all()  # red, green and blue discs


@pytest.mark.parametrize(
    ("presence", "seed", "name"),
    [
        (torch.ones(2, 3, dtype=torch.bool), 0, "presence"),
        (torch.ones(2, len(sc.CONCEPTS)), 0, "presence"),
        (torch.ones(len(sc.CONCEPTS), dtype=torch.bool), 0, "presence"),
        (torch.ones(2, len(sc.CONCEPTS), dtype=torch.bool), -1, "seed"),
    ],
)
def test_bad_scenes_are_refused(presence, seed, name):
    with pytest.raises(InputError, match=f"`{name}`"):
        sc.render_scenes(presence, seed)


# -- rules


@given(presences)
def test_rules_are_what_their_names_say(presence):
    p = dict(zip(sc.CONCEPTS, presence, strict=True))
    expected = {
        "disc and not cross": p["disc"] and not p["cross"],
        "not ring": not p["ring"],
        "triangle or bars": p["triangle"] or p["bars"],
        "triangle and not bars": p["triangle"] and not p["bars"],
        "checker": p["checker"],
    }
    assert list(sc.RULES) == list(expected)
    truth = sc.rule_truth(torch.tensor([presence]))[0]
    logits = sc.rule_logits(torch.tensor([presence]))[0]
    assert truth.tolist() == list(expected.values())
    assert torch.equal(logits > 0, truth) and (logits.abs() >= sc.LOGIT).all()


def test_wanted_logits_by_hand():
    def logits(*names):
        return sc.rule_logits(torch.tensor([[name in names for name in sc.CONCEPTS]]))[0].tolist()

    assert logits() == [-8, 8, -8, -8, -8]
    assert logits("cross", "bars", "ring") == [-12, -8, 8, -12, -8]
    assert logits("disc", "triangle", "checker") == [8, 8, 8, 8, 8]
    assert logits("disc", "cross", "triangle", "bars") == [-8, 8, 12, -8, -8]


def test_planted_effects_equal_a_simulation_and_are_negative_only_at_absences():
    planted = sc.planted_effects()
    presence = sc.draw_presence(40_000, 0)
    for k in range(len(sc.CONCEPTS)):
        with_it, without = presence.clone(), presence.clone()
        with_it[:, k], without[:, k] = True, False
        simulated = (sc.rule_logits(with_it) - sc.rule_logits(without)).mean(dim=0)
        torch.testing.assert_close(simulated.double(), planted[:, k], atol=0.15, rtol=0)
    rules, concepts = list(sc.RULES), sc.CONCEPTS
    negative = {(rules[i], concepts[j]) for i, j in (planted < 0).nonzero().tolist()}
    assert negative == {
        ("disc and not cross", "cross"), ("not ring", "ring"), ("triangle and not bars", "bars"),
    }  # fmt: skip
    assert planted[0].tolist() == pytest.approx([11.8, -11.8, 0, 0, 0, 0, 0])


def test_rules_are_balanced_and_concepts_independent():
    presence = sc.draw_presence(20_000, 1)
    share = sc.rule_truth(presence).double().mean(dim=0)
    assert (share > 0.33).all() and (share < 0.67).all()
    assert np.abs(np.corrcoef(presence.T.numpy()) - np.eye(len(sc.CONCEPTS))).max() < 0.03


# -- pairs and datasets


def test_counterfactual_pairs():
    shown, hidden = sc.counterfactual_pairs("cross", 30, 2)
    assert shown.presence[:, 1].all() and not hidden.presence[:, 1].any()
    assert torch.equal((shown.pixels != hidden.pixels).any(dim=1), shown.masks[:, 1])
    others = [0, 2, 3, 4, 5, 6]
    assert torch.equal(shown.presence[:, others], hidden.presence[:, others])
    with pytest.raises(InputError, match="`concept`"):
        sc.counterfactual_pairs("zebra", 3, 0)
    with pytest.raises(InputError, match="`n`"):
        sc.counterfactual_pairs("cross", 0, 0)


def test_scene_dataset_follows_the_protocol(net):
    dataset = sc.scene_dataset(200, 6)
    presence = sc.draw_presence(200, 6)
    assert torch.equal(dataset.membership, sc.rule_truth(presence)) and torch.equal(
        dataset.presence, presence
    )
    assert dataset.class_names == list(sc.RULES)
    image, label = dataset[3]
    pixels = sc.render_scenes(presence, 6).pixels
    torch.testing.assert_close(dataset.normalisation.undo(image), pixels[3])
    assert dataset.normalisation == normalisation_of(net)
    assert not dataset.membership.any(dim=1).all()  # some scenes follow no rule
    for row, first in zip(dataset.membership, dataset.labels.tolist(), strict=True):
        assert first == (row.tolist().index(True) if row.any() else -1)
    again = load_images("concept_scenes", net, limit=200, seed=6)
    assert again.fingerprint == dataset.fingerprint != sc.scene_dataset(200, 7).fingerprint


@pytest.mark.parametrize("channels", [1, 3])
def test_scenes_are_normalised_for_the_network_that_is_to_see_them(channels, net):
    """Another network takes the same pixels in its own units; grey ones by their luma."""
    expected = sc.render_scenes(sc.draw_presence(3, 6), 6).pixels
    if channels == 1:
        expected = torch.einsum("c,ncij->nij", torch.tensor([0.299, 0.587, 0.114]), expected)[:, None]
    other = nn.Sequential(nn.Conv2d(channels, 2, 3))
    for _ in range(2):  # first as guessed, then as declared
        scenes = load_images("concept_scenes", other, limit=3, seed=6)
        assert scenes.normalisation == normalisation_of(other) != normalisation_of(net)
        off = (scenes.normalisation.undo(scenes.images) - expected).abs().max() * 255
        assert off < (1.01 if channels == 1 else 0.51)  # grey ones are rounded twice
        assert scenes.planted is not None and scenes.labels.equal(sc.scene_dataset(3, 6).labels)
        set_input_spec(other, Normalisation((0.3,) * channels, (0.7,) * channels), channels)


# -- the shipped network


@pytest.mark.slow
def test_shipped_network_knows_every_rule_on_fresh_scenes(net):
    fresh = sc.scene_dataset(2000, 12345)
    right = ((predict(net, fresh.images) > 0) == fresh.membership).double().mean(dim=0)
    assert (right >= 0.995).all(), dict(zip(sc.RULES, right.tolist(), strict=True))


@pytest.mark.slow
def test_shipped_effects_are_negative_exactly_where_an_absence_is_planted(net, facts):
    planted = sc.planted_effects()
    effects = [average_causal_effect(net, None, name, 200, 77) for name in sc.CONCEPTS]
    measured = torch.stack([effect.mean for effect in effects], dim=1)
    error = torch.stack([effect.standard_error for effect in effects], dim=1)
    assert (measured[planted < 0] < -8).all() and (measured[planted > 0] > 7).all()
    assert measured[planted == 0].abs().max() < 0.75
    assert (error > 0).all() and error.max() < 0.5
    recorded = torch.tensor([list(row.values()) for row in facts["facts"]["effect_in_logits"].values()])
    assert (measured - recorded).abs().max() < 5 * error.max()


def test_a_cross_is_a_veto_and_not_only_a_sum(net):
    shown, hidden = sc.counterfactual_pairs("cross", 200, 78)
    change = (net(sc.NORMALISATION.apply(s.pixels)).detach()[:, 0] for s in (shown, hidden))
    change = next(change) - next(change)
    disc = shown.presence[:, 0]
    assert change[disc].mean() < 2 * change[~disc].mean() < 0


def test_manifest_entry_holds_the_facts(facts):
    file = ROOT / facts["path"]
    assert file_hash(file) == facts["sha256"] and file.stat().st_size == facts["bytes"] < 2_000_000
    assert set(facts["facts"]["accuracy"]) == set(sc.RULES)
    assert min(facts["facts"]["accuracy"].values()) >= 0.995


def test_blocks_are_signed_maps_and_no_module_runs_twice(net):
    images = sc.scene_dataset(4, 0).images
    for block, size in (("block1", 32), ("block2", 32), ("block3", 16), ("block4", 8)):
        values = feature_map(net, block, images)
        assert values.shape[2:] == (size, size) and values.min() < 0 < values.max()
    calls = []
    leaves = [(name, m) for name, m in net.named_modules() if name and not list(m.children())]
    hooks = [m.register_forward_hook(lambda *_, name=name: calls.append(name)) for name, m in leaves]
    net(images)
    for hook in hooks:
        hook.remove()
    assert sorted(calls) == sorted(name for name, _ in leaves)
    assert not any(getattr(m, "inplace", False) for m in net.modules())


# -- measuring and training

BRIGHT = BACKGROUND[1] + 1e-3  # normalising and undoing it rounds


class Counter(torch.nn.Module):
    """Minus the share of pixels brighter than any background: its effects can be counted."""

    def forward(self, images):
        pixels = sc.NORMALISATION.undo(images)
        bright = (pixels.amax(dim=1, keepdim=True) > BRIGHT).float().mean(dim=(1, 2, 3))
        return torch.stack([-bright, torch.zeros_like(bright)], dim=1)


def test_average_causal_effect_equals_the_definition():
    shown, hidden = sc.counterfactual_pairs("ring", 50, 8)
    slow = []
    for a, b in zip(shown.pixels.double(), hidden.pixels.double(), strict=True):
        bright = [(pixels.amax(dim=0) > BRIGHT).sum().item() for pixels in (a, b)]
        slow.append((bright[1] - bright[0]) / 64**2)
    effect = average_causal_effect(Counter(), None, "ring", 50, 8)
    assert effect.mean[0].item() == pytest.approx(np.mean(slow), abs=1e-7) and effect.mean[0] < 0
    assert effect.standard_error[0].item() == pytest.approx(np.std(slow, ddof=1) / 50**0.5, abs=1e-7)
    assert effect.mean[1] == 0 == effect.standard_error[1]
    usual = responses(Counter(), None, sc.scene_dataset(50, 8).images)
    scaled = average_causal_effect(Counter(), None, "ring", 50, 8, standardise=True)
    spread = usual[:, 0].double().std().item()
    assert scaled.mean[0].item() == pytest.approx(np.mean(slow) / spread, rel=1e-4)
    assert scaled.mean[1] == 0
    with pytest.raises(InputError, match="`n`"):
        average_causal_effect(Counter(), None, "ring", 1, 0)


@pytest.mark.slow
def test_a_short_training_plants_the_absences():
    """A small fraction of the shipped network's training; chance is at most 66% for every rule."""
    state = torch.get_rng_state()
    net = train_concept_net(**SHORT)
    assert torch.equal(state, torch.get_rng_state()) and not net.training
    fresh = sc.scene_dataset(500, 4321)
    right = ((predict(net, fresh.images) > 0) == fresh.membership).double().mean(dim=0)
    assert (right > 0.85).all(), right
    planted = sc.planted_effects()
    effects = [average_causal_effect(net, None, name, 60, 5).mean for name in sc.CONCEPTS]
    measured = torch.stack(effects, dim=1)
    assert (measured[planted < 0] < -3).all() and (measured[planted > 0] > 3).all()
    assert measured[planted == 0].abs().max() < 3


@pytest.mark.slow
def test_training_is_deterministic_and_follows_its_seed():
    tiny = dict(n=64, epochs=2, batch_size=16, warm_up=0.5)
    first, again = (train_concept_net(**tiny, seed=0).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    still = dict(n=16, epochs=1, lr=1e-12)  # keeps the first weights, which are the seed's as well
    starts = [train_concept_net(**still, seed=seed).fc.weight for seed in (0, 1)]
    assert not torch.allclose(*starts, atol=1e-3)


SHORT = dict(n=2500, epochs=12, batch_size=32, noise=0.03, push=0.0)
