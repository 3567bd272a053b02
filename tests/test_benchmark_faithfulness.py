"""Faithfulness to absence: against its definition in loops, on units with a closed-form answer, and on scenes."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from absence_utils.attribution.methods import attribute
from absence_utils.benchmark.faithfulness import (
    FILLS,
    Faithfulness,
    curve_area,
    descending_score,
    faithfulness,
    oracle_map,
    random_map,
)
from absence_utils.benchmark.regions import control_regions, inpaint, negative_regions, paint_over
from absence_utils.errors import InputError
from absence_utils.images import scenes as sc
from absence_utils.models.load import load_model
from absence_utils.stats import paired_difference
from absence_utils.units import Unit

# -- regions


def test_the_most_negative_pixels_and_only_negative_ones():
    values = torch.tensor([[3.0, -1, 0], [-5, -2, 4]])
    marked = negative_regions(values, [1, 2, 5])
    found = [{float(v) for v in values[region]} for region in marked]
    assert found == [{-5}, {-5, -2}, {-5, -2, -1}]
    assert not negative_regions(values.abs(), [1, 6]).any()
    assert negative_regions(-1 - values.abs(), [2, 6]).sum((1, 2)).tolist() == [2, 6]


def test_ties_break_by_the_seed_and_not_by_place():
    flat = torch.full((20, 20), -1.0)
    draws = [negative_regions(flat, [100], seed)[0] for seed in range(4)]
    assert torch.equal(draws[0], negative_regions(flat, [100], 0)[0])
    assert all(35 < int(draw[:10].sum()) < 65 for draw in draws)  # by place it would be 100
    assert all(not torch.equal(draws[0], draw) for draw in draws[1:])


@pytest.mark.parametrize("shape", [(5, 5), (4, 6)])
@pytest.mark.parametrize("seed", range(4))
def test_the_control_is_the_best_of_all_places(shape, seed):
    """Every turn and shift, one by one, in loops."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    regions = negative_regions(torch.randn(shape, generator=generator), [2, 4], seed)
    controls = control_regions(regions, image, seed)
    height, width = shape
    mean = image.mean((1, 2))

    def contrast(pixels):
        return np.mean([float(((image[:, y, x] - mean) ** 2).mean()) for y, x in pixels]) ** 0.5

    taken = {(y, x) for y in range(height) for x in range(width) if regions[:, y, x].any()}
    for region, control in zip(regions, controls, strict=True):
        own = {tuple(pixel) for pixel in region.nonzero().tolist()}
        chosen = {tuple(pixel) for pixel in control.nonzero().tolist()}
        places = []
        for turned in _turns(own, height, width):
            for down in range(height):
                for right in range(width):
                    place = {((y + down) % height, (x + right) % width) for y, x in turned}
                    difference = abs(contrast(place) - contrast(own)) / contrast(own)
                    places.append((difference + len(place & taken) / len(place), place))
        least = min(cost for cost, _ in places)
        best = [place for cost, place in places if cost < least + 2e-6]
        assert len(chosen) == len(own) and not chosen & taken
        assert any(place - taken <= chosen for place in best)


def _turns(pixels, height, width):
    """A set of pixels mirrored and turned, as far as the image keeps its shape."""
    ways = [pixels, {(y, width - 1 - x) for y, x in pixels}]
    ways += [{(height - 1 - y, x) for y, x in way} for way in ways]
    return ways + [{(x, y) for y, x in way} for way in ways] if height == width else ways


def test_controls_have_the_contrast_of_the_region_and_no_pixel_of_the_largest():
    generator = torch.Generator().manual_seed(0)
    image = 0.1 * torch.randn(3, 32, 32, generator=generator)
    image[:, 4:10, 4:10] += 2  # two glyphs of equal contrast; the map marks one
    image[:, 20:26, 18:24] += 2
    values = torch.zeros(32, 32)
    values[4:10, 4:10] = -1
    regions = negative_regions(values, [10, 36, 100])
    controls = control_regions(regions, image)
    assert controls.sum((1, 2)).tolist() == [10, 36, 36]
    assert not (controls & regions.any(0)).any()
    assert float(controls[1, 20:26, 18:24].float().sum()) >= 34
    assert torch.equal(controls, control_regions(regions, image))
    assert not control_regions(torch.zeros(2, 32, 32, dtype=torch.bool), image).any()


@pytest.mark.parametrize("seed", range(4))
def test_the_control_of_noise_finds_room_outside_it(seed):
    """No turn or shift of half of the pixels keeps clear of them: those that would touch are moved."""
    values = random_map((9, 9), seed)
    regions = negative_regions(values - 9, [4, 20, 40])
    controls = control_regions(regions, random_map((2, 9, 9), seed + 9))
    assert controls.sum((1, 2)).tolist() == [4, 20, 40] and not (controls & regions[2]).any()


def test_where_nothing_is_alike_the_seed_decides():
    regions = torch.zeros(1, 8, 8, dtype=torch.bool)
    regions[0, 2, 2] = True
    places = {tuple(control_regions(regions, torch.zeros(1, 8, 8), seed)[0].nonzero()[0].tolist())
              for seed in range(8)}  # fmt: skip
    assert len(places) > 4 and (2, 2) not in places


@pytest.mark.parametrize("seed", range(3))
def test_inpainting_is_the_weighted_mean_of_the_neighbours(seed):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(2, 5, 6, generator=generator, dtype=torch.float64)
    region = torch.rand(5, 6, generator=generator) < 0.5
    filled = inpaint(image, region)
    for y in range(5):
        for x in range(6):
            if not region[y, x]:
                assert torch.equal(filled[:, y, x], image[:, y, x])
                continue
            total, weights = torch.zeros(2, dtype=torch.float64), 0.0
            for v in range(max(0, y - 1), min(5, y + 2)):
                for u in range(max(0, x - 1), min(6, x + 2)):
                    weight = {0: 0.0, 1: 1 / 6, 2: 1 / 12}[abs(v - y) + abs(u - x)]
                    total, weights = total + weight * filled[:, v, u], weights + weight
            torch.testing.assert_close(filled[:, y, x], total / weights)
    other = torch.where(region, 100 * image, image)
    torch.testing.assert_close(inpaint(other, region), filled)  # nothing of what was inside is left


def test_inpainting_continues_a_ramp_and_leaves_its_input():
    ramp = torch.arange(7.0).expand(1, 7, 7).clone()
    region = torch.zeros(7, 7, dtype=torch.bool)
    region[2:5, 1:6] = True
    hidden = ramp.masked_fill(region, -9)
    torch.testing.assert_close(inpaint(hidden, region), ramp)
    assert float(hidden.min()) == -9
    assert torch.equal(inpaint(ramp, region & False), ramp)


# -- the measure on units with a known answer


def linear(weight):
    """f(x) = sum of weight x pixel."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(weight.numel(), 1, bias=False)).double()
    with torch.no_grad():
        model[1].weight.copy_(weight.reshape(1, -1))
    return Unit(model)


@cache
def world(seed=0, n=3, shape=(2, 4, 5)):
    generator = torch.Generator().manual_seed(seed)
    images, targets, background = torch.randn(3, n, *shape, generator=generator, dtype=torch.float64)
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    maps = torch.randn(n, *shape[1:], generator=generator)
    maps[0, 0, 0] = -9
    return weight, maps, images, targets, background


@pytest.mark.parametrize("fill", FILLS)
def test_the_measure_follows_its_definition(fill):
    weight, maps, images, targets, background = world()
    shares, spread = (0.05, 0.13, 0.3, 0.5), 1.7  # 1, 3, 6 and 10 pixels: rounded
    found = faithfulness(linear(weight), maps, images, targets, spread,
                         background=background, shares=shares, fill=fill, seed=4)  # fmt: skip
    for index, values in enumerate(maps):
        places = sorted((float(values[y, x]), y, x) for y in range(4) for x in range(5))
        regions = []
        for share in shares:
            region = torch.zeros(4, 5, dtype=torch.bool)
            for value, y, x in places[: round(share * 20)]:
                region[y, x] = value < 0
            regions.append(region)
        controls = control_regions(torch.stack(regions), images[index], seed=4)
        for column, pair in enumerate(zip(regions, controls, strict=True)):
            painted, pasted = [], []
            for region in pair:
                rest = background[index] if fill == "background" else inpaint(images[index], region)
                change = paste = 0.0
                for c in range(2):
                    for y, x in region.nonzero().tolist():
                        w = float(weight[c, y, x])
                        change += w * float(rest[c, y, x] - images[index, c, y, x])
                        paste += w * float(images[index, c, y, x] - targets[index, c, y, x])
                painted.append(change / spread)
                pasted.append(paste / spread)
            assert found.release[index, column] == pytest.approx(painted[0] - painted[1], abs=1e-9)
            assert found.transplant[index, column] == pytest.approx(pasted[1] - pasted[0], abs=1e-9)


def test_the_area_is_over_the_logarithm_of_the_share():
    shares = (0.01, 0.02, 0.08)
    curves = torch.tensor([[1.0, 3, 5], [2, 2, 2]])
    # widths log 2 and log 4: (1 x 2 + 2 x 4) / 3
    torch.testing.assert_close(curve_area(curves, shares), torch.tensor([10 / 3, 2]))
    assert curve_area(curves[:, :1], shares[:1]).tolist() == [1, 2]
    result = Faithfulness(shares, curves, -curves / 2)
    torch.testing.assert_close(result.score, torch.tensor([10 / 12, 0.5]))


@pytest.mark.parametrize("fill", FILLS)
def test_a_planted_suppressor_has_its_weight_as_score(fill):
    """One pixel of value 1 lowers the response by 3 sd; both questions find exactly that."""
    weight = torch.zeros(1, 4, 4, dtype=torch.float64)
    weight[0, 1, 2] = -6
    images = torch.zeros(2, 1, 4, 4, dtype=torch.float64)
    images[:, 0, 1, 2] = 1
    empty = torch.zeros_like(images)
    right = oracle_map(images[:, 0] > 0)
    result = faithfulness(linear(weight), right, images, empty, 2.0, background=empty, fill=fill)
    expected = torch.full((2, 5), 3.0, dtype=torch.float64)
    torch.testing.assert_close(result.release, expected)
    torch.testing.assert_close(result.transplant, expected)
    assert result.summary()["score"] == pytest.approx((3, 3, 3))
    wrong = faithfulness(linear(weight), right.roll(2, 2), images, empty, 2.0, background=empty, fill=fill)
    assert wrong.score.max() <= 0


def scores(maps, seed=0, **options):
    weight, _, images, targets, background = world(7, 5, (1, 8, 8))
    return faithfulness(
        linear(weight), maps, images, targets, 1.0, background=background, seed=seed, **options
    ).score


def test_sign_matters_and_scale_does_not():
    maps = world(7, 5, (1, 8, 8))[1]
    assert torch.equal(scores(maps), scores(2 * maps))
    assert (scores(maps) - scores(-maps)).abs().min() > 1e-3
    assert not scores(maps.abs()).any() and not scores(torch.zeros_like(maps)).any()
    all_negative = maps - maps.max() - 1
    small = (0.05, 0.1)  # fewer pixels than are negative: the order alone counts
    torch.testing.assert_close(scores(all_negative, shares=small), scores(maps, shares=small))
    assert scores(all_negative, shares=(0.5,)).abs().min() > 0


def test_batched_equals_image_by_image_and_the_seed_repeats():
    weight, maps, images, targets, background = world(7, 5, (1, 8, 8))
    maps = maps.round()  # with ties
    for fill in FILLS:
        options = {"fill": fill, "batch_size": 7}
        single = [
            faithfulness(linear(weight), *(each[i : i + 1] for each in (maps, images, targets)), 1.0,
                         background=background[i : i + 1], fill=fill).score
            for i in range(5)
        ]  # fmt: skip
        torch.testing.assert_close(scores(maps, **options), torch.cat(single))
        assert torch.equal(scores(maps, **options), scores(maps, **options))
        assert not torch.equal(scores(maps, **options), scores(maps, seed=1, **options))


def test_half_of_an_odd_number_of_pixels_leaves_room():
    weight, maps, images, targets, background = world(1, 2, (1, 3, 3))
    unit, options = linear(weight), {"background": background, "shares": (0.5,)}
    assert faithfulness(unit, maps - 9, images, targets, 1.0, **options).release.abs().min() > 0


@pytest.mark.parametrize("fill", FILLS)
def test_descending_removal_follows_its_definition(fill):
    weight, maps, images, _, background = world()
    shares = (0.1, 0.4, 1.0)
    unit = linear(weight)
    found = descending_score(unit, maps, images, 2.0, background=background, shares=shares, fill=fill)
    for index, values in enumerate(maps):
        places = sorted((-float(values[y, x]), y, x) for y in range(4) for x in range(5))
        falls = []
        for count in (2, 8, 19):  # one pixel always stays
            region = torch.zeros(4, 5, dtype=torch.bool)
            for _, y, x in places[:count]:
                region[y, x] = True
            behind = background[index] if fill == "background" else None
            rest = paint_over(images[index], region[None], behind)
            whole, left = unit.response(torch.cat([images[index : index + 1], rest])).tolist()
            falls.append((whole - left) / 2)
        expected = curve_area(torch.tensor([falls], dtype=torch.float64), shares)
        assert float(found[index]) == pytest.approx(float(expected))


def test_descending_removal_breaks_ties_by_the_seed():
    weight, maps, images, _, background = world()
    first, again, other = (
        descending_score(linear(weight), 0 * maps, images, 1.0, background=background, seed=seed)
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_known_maps():
    mask = torch.zeros(1, 5, 5, dtype=torch.bool)
    mask[0, 2, 2] = True
    assert oracle_map(mask).sum() == -1 and oracle_map(mask, 1).sum() == 1
    grown = oracle_map(mask, rim=1)
    assert grown.sum() == -9 and (grown[0, 1:4, 1:4] == -1).all()
    noise = random_map((3, 40, 40), seed=2)
    assert noise.shape == (3, 40, 40) and abs(noise.std() - 1) < 0.05 and abs(noise.mean()) < 0.05
    assert torch.equal(noise, random_map((3, 40, 40), 2)) and not torch.equal(
        noise, random_map((3, 40, 40), 3)
    )
    assert (
        abs(torch.corrcoef(torch.stack([noise[..., 1:].flatten(), noise[..., :-1].flatten()]))[0, 1]) < 0.06
    )


@pytest.mark.parametrize(
    ("parameter", "change"),
    [
        ("maps", {"maps": torch.zeros(3, 2, 4, 5)}),
        ("maps", {"maps": torch.full((3, 4, 5), float("nan"))}),
        ("images", {"images": torch.zeros(0, 2, 4, 5)}),
        ("targets", {"targets": torch.zeros(2, 2, 4, 5)}),
        ("spread", {"spread": 0.0}),
        ("spread", {"spread": float("nan")}),
        ("spread", {"spread": float("inf")}),
        ("shares", {"shares": (0.2, 0.1)}),
        ("shares", {"shares": (0.0, 0.1)}),
        ("shares", {"shares": (0.6,)}),
        ("shares", {"shares": ()}),
        ("fill", {"fill": "blur"}),
        ("background", {"background": None}),
        ("background", {"background": torch.zeros(1, 2, 4, 5)}),
    ],
)
def test_bad_input_is_named(parameter, change):
    weight, maps, images, targets, background = world()
    given = {"maps": maps, "images": images, "targets": targets, "spread": 1.0, "background": background}
    with pytest.raises(InputError) as error:
        faithfulness(linear(weight), **{**given, **change})
    assert error.value.parameter == parameter


def test_bad_maps_are_named():
    mask = torch.ones(1, 3, 3, dtype=torch.bool)
    with pytest.raises(InputError, match="concept_sign"):
        oracle_map(mask, 0)
    with pytest.raises(InputError, match="rim"):
        oracle_map(mask, rim=-1)


# -- scenes

WHOLE = (0.1, 0.2)  # shares in which a glyph with its rim has room: it covers 3 to 8% of a scene
RIM = 2  # half the width of the network's first kernels: how far outside a glyph its edge is seen
PLANTED = {"not ring": "ring", "disc and not cross": "cross"}


@cache
def shown(rule, n=32, seed=77):
    """Non-target scenes in which the suppressor alone breaks the rule, and target scenes of other seeds."""
    number, suppressor = list(sc.RULES).index(rule), sc.concept_index(PLANTED[rule])
    presence = sc.draw_presence(20 * n, seed)
    truth = sc.rule_truth(presence)[:, number]
    without = presence.clone()
    without[:, suppressor] = False
    broken = presence[~truth & sc.rule_truth(without)[:, number]][:n]
    scenes = sc.render_scenes(broken, seed)
    behind = sc.render_scenes(torch.zeros_like(broken), seed)
    targets = sc.render_scenes(presence[truth][:n], seed + 1)
    unit = Unit(load_model("concept_scenes"), channel=number)
    with torch.no_grad():
        spread = float(unit.response(sc.scene_dataset(300, seed + 2).images).std())
    images, behind, targets = (sc.NORMALISATION.apply(each.pixels) for each in (scenes, behind, targets))
    return unit, images, behind, targets, spread, scenes.masks


@cache
def explained(rule):
    unit, images, *_, masks = shown(rule)
    mask = masks[:, sc.concept_index(PLANTED[rule])]
    return {
        "oracle": oracle_map(mask),
        "oracle with rim": oracle_map(mask, rim=RIM),
        "integrated gradients": attribute(unit, images, "integrated_gradients").sum(1),
        "random": random_map(mask.shape, seed=3),
    }


@cache
def measured(rule, fill, name, shares=(0.01, 0.02, 0.05, 0.1, 0.2)):
    unit, images, behind, targets, spread, _ = shown(rule)
    values = explained(rule)[name]
    return faithfulness(unit, values, images, targets, spread, background=behind, fill=fill, shares=shares)


@pytest.mark.slow
@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("rule", PLANTED)
def test_right_maps_are_far_above_noise(rule, fill):
    noise = measured(rule, fill, "random").summary()["score"]
    assert abs(noise.value) < 0.1
    for name in ("oracle", "integrated gradients"):
        assert min(part.low for part in measured(rule, fill, name).summary().values()) > noise.high + 0.1
        assert measured(rule, fill, name).summary()["score"].low > 0.7


def test_the_sign_of_a_real_map_is_its_message():
    unit, images, behind, targets, spread, _ = (part[:8] if isinstance(part, torch.Tensor) else part
                                                for part in shown("not ring"))  # fmt: skip
    signed = explained("not ring")["integrated gradients"][:8]
    maps = {"signed": signed, "doubled": 2 * signed, "negated": -signed, "absolute": signed.abs(),
            "all negative": signed - signed.max() - 1}  # fmt: skip
    found = {
        name: faithfulness(unit, values, images, targets, spread, background=behind, shares=(0.02, 0.1))
        for name, values in maps.items()
    }
    assert not found["absolute"].release.any() and not found["absolute"].transplant.any()
    assert tuple(found["absolute"].summary()["score"]) == (0, 0, 0)
    torch.testing.assert_close(found["doubled"].score, found["signed"].score)
    torch.testing.assert_close(found["all negative"].score, found["signed"].score)
    assert found["negated"].summary()["score"].high < 0 < 1 < found["signed"].summary()["score"].low
    single = [
        faithfulness(unit, *(part[i : i + 1] for part in (signed, images, targets)), spread,
                     background=behind[i : i + 1], shares=(0.02, 0.1)).score
        for i in range(8)
    ]  # fmt: skip
    torch.testing.assert_close(torch.cat(single), found["signed"].score, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("rule", PLANTED)
def test_the_planted_answer_is_above_integrated_gradients_where_it_has_room(rule, fill):
    """Paired: the same images, of which some are harder than others."""
    best, real = (measured(rule, fill, name, WHOLE) for name in ("oracle with rim", "integrated gradients"))
    assert paired_difference(best.score, real.score).low > 0
    assert real.summary()["score"].low > measured(rule, fill, "random", WHOLE).summary()["score"].high


@pytest.mark.slow
def test_a_flat_map_is_not_the_best_at_small_shares():
    """Inside its mask the planted map has no order, so that at 1% it takes any pixels of the glyph."""
    flat, real = (measured("not ring", "background", name) for name in ("oracle", "integrated gradients"))
    assert paired_difference(real.release[:, 0], flat.release[:, 0]).low > 0.5
    assert abs(paired_difference(real.release[:, 2], flat.release[:, 2]).value) < 0.2  # all of it in N_q
    maps = explained("not ring")
    ordered = maps["oracle"] * 100 + maps["integrated gradients"] * (maps["oracle"] < 0)
    unit, images, behind, targets, spread, _ = shown("not ring")
    result = faithfulness(unit, ordered, images, targets, spread, background=behind)
    assert paired_difference(result.release_area, flat.release_area).low > 0.1


def test_inpainting_needs_whole_glyphs():
    """A glyph with holes is filled from the glyph: at 1% the two ways of painting over tell different things."""
    exact, filled = (measured("not ring", fill, "oracle") for fill in FILLS)
    assert exact.release[:, 0].mean() > 0.3 > 0.1 > filled.release[:, 0].mean()
    torch.testing.assert_close(exact.release.mean(0)[2:], filled.release.mean(0)[2:], atol=0.1, rtol=0)
    torch.testing.assert_close(exact.transplant, filled.transplant)
    difference = paired_difference(exact.score, filled.score)
    assert 0.1 < difference.low and difference.high < 0.4


@pytest.mark.slow
def test_descending_removal_looks_at_the_wrong_end():
    """It cannot tell the right absence map from noise, and prefers a map that is silent about the absence."""
    unit, images, behind, targets, spread, masks = shown("disc and not cross")
    maps = explained("disc and not cross")
    presence = oracle_map(masks[:, sc.concept_index("disc")], 1)
    options = {"background": behind}
    for fill in FILLS:
        oracle, noise, disc = (
            descending_score(unit, values, images, spread, fill=fill, **options)
            for values in (maps["oracle"], maps["random"], presence)
        )
        gap, wanted = paired_difference(oracle, noise), paired_difference(disc, oracle)
        assert -0.05 < gap.low and gap.high < 0.25
        assert wanted.low > 0.2
    assert not faithfulness(unit, presence, images, targets, spread, **options).score.any()
    here = [measured("disc and not cross", "background", name).score for name in ("oracle", "random")]
    assert paired_difference(*here).low > 1
