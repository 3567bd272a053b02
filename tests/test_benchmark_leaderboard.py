"""Scores by hand, and that they turn over with the sign; methods on a network whose answer is known in closed form."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from absence_utils import InputError
from absence_utils.attribution.methods import METHODS as ATTRIBUTIONS
from absence_utils.benchmark import methods as bm
from absence_utils.benchmark.effects import (
    absences_by_layer,
    effects_everywhere,
    measured_effects,
    planted_signs,
)
from absence_utils.benchmark.leaderboard import BenchmarkConfig, by_group, leaderboard, run_benchmark, task_of
from absence_utils.benchmark.methods import MAPS, METHODS, BenchmarkTask, on_non_targets, on_targets
from absence_utils.benchmark.scores import (
    auroc_with_abstentions,
    average_precision_with_abstentions,
    hidden_correlation,
    map_scores,
    output_scores,
)
from absence_utils.images.scenes import CONCEPTS, RULES, draw_presence, render_scenes
from absence_utils.paths import DATA

NAN = float("nan")


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


def test_auroc_by_hand():
    assert auroc_with_abstentions(np.array([3.0, 1.0]), np.array([2.0, 0.0])) == 0.75
    assert auroc_with_abstentions(np.array([1.0]), np.array([1.0, NAN, 0.0])) == pytest.approx(
        (0.5 + 0.5 + 1) / 3
    )
    assert auroc_with_abstentions(np.array([NAN, NAN]), np.array([1.0, -1.0])) == 0.5


def test_average_precision_with_silence():
    truth = np.array([True, False, False, True])
    assert average_precision_with_abstentions(truth, np.array([4.0, 3.0, 2.0, 1.0])) == pytest.approx(
        (1 + 2 / 4) / 2
    )
    silent = average_precision_with_abstentions(truth, np.array([NAN, 3.0, 2.0, NAN]))
    assert 0.4 < silent < 0.95
    rare = np.arange(200) < 20
    assert average_precision_with_abstentions(rare, np.full(200, NAN)) == pytest.approx(0.1, abs=0.06)


def perfect() -> torch.Tensor:
    return -planted_signs("rules").double()


def test_scores_of_a_perfect_method_and_of_its_negative():
    twin = -planted_signs("twin").double()
    good, bad = output_scores(perfect(), twin), output_scores(-perfect(), -twin)
    assert good == {"AUROC": 1.0, "average precision": 1.0, "sign accuracy": 1.0, "false alarms": 0.0}
    assert bad["AUROC"] == 0.0 and bad["sign accuracy"] == 0.0 and bad["false alarms"] == 1.0


def test_silence_is_chance():
    nothing = torch.full((5, 7), NAN)
    found = output_scores(nothing, nothing)
    assert found["AUROC"] == 0.5 and found["sign accuracy"] == 0.5 and found["false alarms"] == 1.0


def test_false_alarms_are_counted_where_most_absences_are_found():
    said, twin = perfect(), torch.zeros(5, 7, dtype=torch.float64)
    said[planted_signs("rules") < 0] = torch.tensor([5.0, 3.0, 1.0], dtype=torch.float64)
    twin[0, :2], twin[1, :3] = 1.0, 0.9  # the threshold is 1: three of three are needed for 80 %
    assert output_scores(said, twin)["false alarms"] == pytest.approx(2 / 35)


def test_rank_correlation_with_the_measured_effect():
    effects = torch.tensor([[-2.0, 1.0, 0.0, 3.0]])
    assert hidden_correlation(-effects, effects) == pytest.approx(1)
    assert hidden_correlation(effects, effects) == pytest.approx(-1)
    assert hidden_correlation(torch.tensor([[2.0, -1.0, NAN, -3.0]]), effects) == pytest.approx(1)
    assert hidden_correlation(torch.zeros(1, 4), effects) == 0


# ---------------------------------------------------------------------- methods on a unit whose answer is known
class Brightness(nn.Module):
    """Output 0 adds up the red channel, output 1 takes it away: every concept is a presence of one, an absence of the
    other, and what a glyph does is the red inside its mask."""

    def __init__(self):
        super().__init__()
        self.block4 = nn.Conv2d(3, 2, 1, bias=False)
        self.block4.weight.data = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]])[..., None, None]
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()

    def forward(self, images):
        return self.flatten(self.pool(self.block4(images)))


@pytest.fixture(scope="module")
def subject():
    presence = draw_presence(96, 3)
    scenes = render_scenes(presence, 3)
    given = BenchmarkTask(
        Brightness().eval(), None, [0, 1], scenes, torch.zeros(0), Brightness().eval(), images_for_maps=40
    )
    given.target = given.response > given.response.median(dim=0).values
    return given


@pytest.mark.slow
@pytest.mark.parametrize("name", ["integrated_gradients", "input_x_gradient", "deeplift"])
def test_map_methods_by_hand(subject, name):
    """For a linear unit all of them are red / pixels, in sd of the unit."""
    for target, make in ((True, on_targets), (False, on_non_targets)):
        found = make(name, MAPS[name])(subject)
        for index, sign in ((0, 1), (1, -1)):
            rows = [i for i in range(96) if bool(subject.target[i, index]) is target][:40]
            for column in range(len(CONCEPTS)):
                sums = [
                    (subject.images[i, 0] * subject.scenes.masks[i, column]).sum().item() / 64**2
                    for i in rows if subject.scenes.presence[i, column]
                ]  # fmt: skip
                expected = -sign * np.mean(sums) / subject.response[:, index].std().item()
                assert found[index, column].item() == pytest.approx(expected, rel=1e-3)


def test_a_concept_that_no_image_shows_is_passed_over_in_silence(subject):
    scenes = render_scenes(torch.zeros(8, len(CONCEPTS), dtype=torch.bool), 1)
    empty = BenchmarkTask(subject.model, None, [0], scenes, torch.ones(8, 1).bool(), subject.model)
    assert on_targets("input_x_gradient", MAPS["input_x_gradient"])(empty).isnan().all()


def test_insertion_by_hand(subject):
    """Pasting a glyph changes a linear unit by the red it brings, wherever it lands."""
    found = bm.insertion(subject)
    presence = torch.zeros(4, len(CONCEPTS), dtype=torch.bool)
    for column in (0, 3):
        shown = presence.clone()
        shown[:, column] = True
        with_it, without = render_scenes(shown, 7000), render_scenes(presence, 7000)
        change = ((with_it.pixels - without.pixels)[:, 0].sum(dim=(1, 2)) / 0.2 / 64**2).mean().item()
        for index, sign in ((0, 1), (1, -1)):
            assert found[index, column].item() == pytest.approx(
                -sign * change / subject.spread[index].item(), rel=1e-3
            )
    assert bm.veto(subject).abs().max() < 1e-5  # additive: context changes nothing


def test_methods_that_must_turn_over_with_the_unit(subject):
    """Unit 1 is minus unit 0: what is an absence of one is a presence of the other."""
    for name in ("insertion, absence score", "concept probe", "gradient sign, target"):
        found = METHODS[name](subject)
        if name == "gradient sign, target":
            assert (found[0] < 0).all() and (found[1] > 0).all()
        else:
            torch.testing.assert_close(found[0], -found[1], rtol=1e-3, atol=1e-5)
            assert found[0].mean() < 0 < found[1].mean()  # glyphs are brighter than what is behind them
    highest, lowest = METHODS["highest patches"](subject), METHODS["lowest patches"](subject)
    torch.testing.assert_close(highest[0], -lowest[1]) and torch.testing.assert_close(lowest[0], -highest[1])


def test_windows_at_random_by_loops(subject):
    counts = torch.zeros(len(CONCEPTS))
    for masks in subject.scenes.masks:
        for top in range(0, 41, 8):
            for left in range(0, 41, 8):
                inside = masks[:, top : top + 24, left : left + 24].sum(dim=(1, 2))
                counts += inside > masks.sum(dim=(1, 2)) / 2
    torch.testing.assert_close(bm._random_share(subject).float(), counts / (96 * 36))


def test_synthesised_images_are_read_relative_to_other_units(subject):
    given = BenchmarkTask(subject.model, None, [0, 1], subject.scenes, subject.target, subject.model, steps=4)
    low, high = bm._synthesised(False, given), bm._synthesised(True, given)
    assert low.sum(dim=0).abs().max() < 1e-6 and high.sum(dim=0).abs().max() < 1e-6
    assert low[1, 0] > low[0, 0]  # the minimum of unit 1 is red, that of unit 0 is not
    assert high[0, 0] < high[1, 0]


# ---------------------------------------------------------------------- on the networks that ship
SMALL = BenchmarkConfig(1, 96, 6, 2, 3, 20)


@pytest.fixture(scope="module")
def small():
    chosen = ("input_x_gradient, target", "input_x_gradient, non-target", "random map, non-target", "lowest patches",
              "insertion, absence score")  # fmt: skip
    return run_benchmark(SMALL, {name: METHODS[name] for name in chosen})


@pytest.mark.slow
def test_the_order_that_was_claimed(small):
    scores = small.set_index(["method", "score"]).value
    assert scores[("input_x_gradient, target", "AUROC")] == pytest.approx(0.5, abs=0.1)
    for name in ("input_x_gradient, non-target", "lowest patches", "insertion, absence score"):
        assert scores[(name, "AUROC")] > 0.85
    assert scores[("insertion, absence score", "false alarms")] < 0.1
    assert scores[("insertion, absence score", "hidden correlation")] > 0.8
    pointed = scores[("input_x_gradient, non-target", "mask precision")]
    assert pointed > 2 * scores[("random map, non-target", "mask precision")]


@pytest.mark.slow
def test_measured_effects_show_what_was_planted():
    subject = task_of("rules", 1, None, list(range(5)), SMALL)
    table = measured_effects(subject.model, None, 60)
    signs = planted_signs("rules")
    for row in table.itertuples():
        sign = int(signs[row.unit, CONCEPTS.index(row.concept)])
        if sign:
            assert np.sign(row.low) == np.sign(row.high) == sign
        else:
            assert abs(row.effect) < 0.3


@pytest.mark.slow
def test_effects_of_all_layers_at_once_are_those_of_each():
    model = task_of("rules", 0, None, [0], SMALL).model
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


def test_map_scores_look_at_the_negative_end():
    subject = task_of("rules", 0, None, list(range(5)), SMALL)

    def right(unit, images, pixels):
        column = {0: 1, 1: 2, 3: 4}.get(unit.channel, 0)
        rows = [int((subject.images == image).flatten(1).all(dim=1).nonzero()[0, 0]) for image in images]
        return -subject.scenes.masks[rows, column].float()

    good = map_scores(subject, "right", right)
    bad = map_scores(subject, "wrong", lambda *given: -right(*given))
    assert good == {"pointing game": 1.0, "mask precision": 1.0}
    assert bad["pointing game"] == 0.0 and bad["mask precision"] < 0.1


def test_leaderboard_by_hand():
    rows = [
        (seed, method, "AUROC", value)
        for method, values in (("a", (0.5, 0.7)), ("b", (0.9, 0.9)))
        for seed, value in enumerate(values)
    ]
    board = leaderboard(pd.DataFrame(rows, columns=["seed", "method", "score", "value"]))
    assert board.method.tolist() == ["b", "a"] and board["mean"].tolist() == [0.9, pytest.approx(0.6)]
    assert board.low.tolist() == [0.9, 0.0] and board.high.tolist() == [
        0.9,
        1.0,
    ]  # 0.6 -+ 12.7 x 0.1, clipped


@pytest.mark.parametrize(
    ("name", "value"),
    [("seeds", 6), ("scenes", 2), ("steps", 0), ("pairs", 1), ("hidden", -1), ("hidden", 65)],
)
def test_bad_settings(name, value):
    with pytest.raises(InputError, match=name):
        BenchmarkConfig(**{name: value})


def test_groups_are_means_over_their_methods():
    targets = [f"{name}, target" for name in ("deeplift", "occlusion")]
    rows = [(0, targets[0], "AUROC", 0.4), (0, targets[1], "AUROC", 0.6), (0, "maximisation", "AUROC", 0.3)]
    found = by_group(leaderboard(pd.DataFrame(rows, columns=["seed", "method", "score", "value"])))
    assert (
        found.AUROC["attribution on target inputs"] == pytest.approx(0.5)
        and found.AUROC["maximisation"] == 0.3
    )
    assert set(sum(bm.GROUPS.values(), [])) <= set(METHODS)


def test_the_shipped_reference_covers_every_method_and_says_what_is_claimed():
    board = pd.read_csv(DATA / "reference" / "09_leaderboard_five_seeds.csv")
    assert set(board.method) == set(METHODS) and set(board.networks) == {5}
    auroc = board[board.score == "AUROC"].set_index("method")
    assert auroc.low["maximisation"] < 0.5 < auroc.high["maximisation"]
    for name in ATTRIBUTIONS:
        assert auroc["mean"][f"{name}, target"] == 0.5 and auroc.low[f"{name}, non-target"] > 0.8
    for name in ("minimisation", "lowest patches", "insertion, absence score"):
        assert auroc.low[name] > max(0.8, auroc.high["maximisation"])
    again = by_group(board)["AUROC"]
    assert again["attribution on non-target inputs"] > again["edge detector"]
