"""Methods on units whose answer is known: closed forms by loops, and that what is said turns over with the unit."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.benchmark_units import RED, bright_task, opposite_task

from absence_utils.benchmark import methods as bm
from absence_utils.benchmark import probes
from absence_utils.benchmark.maps import MAPS
from absence_utils.benchmark.methods import GROUPS, METHODS, SIDES, method_of_maps
from absence_utils.benchmark.tasks import WINDOW, BenchmarkTask
from absence_utils.images.worlds import World


@pytest.fixture(scope="module")
def bright():
    return bright_task(96, images_for_maps=24, steps=3)


@pytest.fixture(scope="module")
def opposite():
    return opposite_task(steps=2)


def alone(column, scenes=4):
    presence = torch.zeros(scenes, 7, dtype=torch.bool)
    presence[:, column] = True
    return presence


def test_every_method_has_a_group_or_is_in_the_table_alone():
    assert set(sum(GROUPS.values(), [])) <= set(METHODS)
    assert len(METHODS) == len(MAPS) * len(SIDES) + 12
    with_windows = {name for name, method in METHODS.items() if method.windows}
    assert with_windows == {f"{name}, all" for name in MAPS} | {
        "highest patches", "lowest patches", "insertion, absence score",
    }  # fmt: skip
    assert {name for name, method in METHODS.items() if method.maps} == {f"{name}, all" for name in MAPS}


# -- maps


@pytest.mark.parametrize("side", SIDES)
def test_a_map_says_minus_the_mean_inside_the_mask(bright, side):
    """For a linear unit: the red beyond the mean colour inside the mask, in sd, over the scenes of the side."""
    found = METHODS[f"input_x_gradient, {side}"].concepts(bright)
    red, masks = (bright.scenes.pixels[:, 0].double() - 0.35) / 0.2 / RED, bright.scenes.masks
    for unit, sign in ((0, 1), (1, -1)):
        for column in range(7):
            sums = [
                red[i][masks[i, column]].sum().item() for i in range(24)
                if masks[i, column].any() and (side == "all" or bool(bright.target[i, unit]) is (side == "target"))
            ]  # fmt: skip
            expected = -sign * np.mean(sums) / bright.response[:, unit].std().item()
            assert found[unit, column].item() == pytest.approx(expected, rel=1e-3)


def test_a_concept_that_no_scene_shows_is_passed_over_in_silence(monkeypatch):
    monkeypatch.setattr(probes, "VECTORS", 2), monkeypatch.setattr(probes, "AT_RANDOM", 2)
    presence = World().draw_presence(16, 1)
    presence[:, 2] = False
    task = bright_task(presence=presence, images_for_maps=16)
    assert METHODS["input_x_gradient, all"].concepts(task).isnan().any(dim=0).tolist() == [
        column == 2 for column in range(7)
    ]
    assert METHODS["difference by label"].concepts(task)[:, 2].isnan().all()
    for name in ("concept probe", "tcav"):
        assert METHODS[name].concepts(task).isnan().any(dim=0).nonzero().tolist() == [[2]]


def test_a_side_without_scenes_says_nothing(bright):
    task = bright_task(8, images_for_maps=8)
    task.target[:] = True
    assert METHODS["input_x_gradient, non-target"].concepts(task).isnan().all()
    assert METHODS["insertion, veto score"].concepts(task).isnan().all()
    task.target[:] = False
    assert METHODS["pertinent negatives"].concepts(task).isnan().all()


def test_windows_say_minus_the_sum_of_the_map(bright):
    found = METHODS["input_x_gradient, all"].windows(bright)
    red = (bright.scenes.pixels[:, 0].double() - 0.35) / 0.2 / RED
    for number in (0, 7, len(bright.windows) - 1):
        scene, (top, left) = int(bright.windows.scene[number]), bright.windows.corner[number].tolist()
        inside = red[scene, top : top + WINDOW, left : left + WINDOW].sum() / bright.spread[0]
        assert found[0, number].item() == pytest.approx(-inside.item(), rel=1e-3)
        assert found[1, number].item() == pytest.approx(inside.item(), rel=1e-3)


def test_only_the_side_of_all_ranks_windows_and_is_held_against_masks():
    assert method_of_maps(MAPS["lrp"], "all").maps is MAPS["lrp"]
    for side in ("target", "non-target"):
        method = method_of_maps(MAPS["lrp"], side)
        assert method.windows is None and method.maps is None


# -- synthesis and patches


def test_synthesised_images_are_read_relative_to_other_units(bright):
    """The detector is Brightness with two outputs: what it says of the reddest and of the least red image."""
    task = bright_task(16, steps=4)
    low, high = METHODS["minimisation"].concepts(task), METHODS["maximisation"].concepts(task)
    assert low.sum(dim=0).abs().max() < 1e-6 and high.sum(dim=0).abs().max() < 1e-6
    assert low[1, 0] > low[0, 0] and high[0, 0] < high[1, 0]


def test_how_often_windows_anywhere_show_a_concept_by_loops(bright):
    """Patches of a unit that are no more extreme than any would give 0: share shown minus share anywhere."""
    counts = torch.zeros(7)
    for masks in bright.scenes.masks:
        for top in range(0, 41, 8):
            for left in range(0, 41, 8):
                inside = masks[:, top : top + 24, left : left + 24].sum(dim=(1, 2))
                counts += inside > masks.sum(dim=(1, 2)) / 2
    usual, book = counts / (96 * 36), bright.book.lowest
    shown = torch.zeros(2, 7)
    for unit in range(2):
        for image, (top, left, height, width) in zip(book.image[unit], book.box[unit].tolist(), strict=True):
            mask = bright.scenes.masks[image]
            inside = mask[:, top : top + height, left : left + width].sum(dim=(1, 2))
            shown[unit] += inside > mask.sum(dim=(1, 2)) / 2
    found = METHODS["lowest patches"].concepts(bright).float()
    torch.testing.assert_close(found, shown / book.image.shape[1] - usual)


def test_patches_say_of_windows_what_the_unit_answers_to_them(bright):
    found = METHODS["lowest patches"].windows(bright)
    cut = (bright.windows.cut(bright.scenes.pixels)[:, 0].double().mean(dim=(1, 2)) - 0.35) / 0.2
    torch.testing.assert_close(found[0], -cut / bright.spread[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(METHODS["highest patches"].windows(bright), -found)


# -- insertion, naming, pertinent negatives


def brought(world, column):
    """Mean of red that a concept brings in the crops that are inserted."""
    shown, hidden = (world.render(given, 7_000) for given in (alone(column), alone(column) & False))
    return ((shown.pixels - hidden.pixels)[:, 0].sum(dim=(1, 2)) / 0.2 / RED).mean().item()


def test_insertion_by_hand(bright):
    """Pasting a glyph changes a linear unit by the red it brings, wherever it lands."""
    found = METHODS["insertion, absence score"].concepts(bright)
    for column in (0, 3):
        expected = brought(bright.world, column) / bright.spread[0].item()
        assert found[0, column].item() == pytest.approx(-expected, rel=1e-3)
        assert found[1, column].item() == pytest.approx(expected, rel=1e-3)
    veto = METHODS["insertion, veto score"].concepts(bright)
    assert veto.abs().max() < 1e-5, "additive: context changes nothing"


def test_a_veto_is_the_drop_on_targets_beyond_that_on_others(opposite):
    changes, target = bm._changes(opposite), opposite.target[: bm.HOSTS, 0]
    found = METHODS["insertion, veto score"].concepts(opposite)
    for unit, column in ((0, 1), (1, 4)):
        drops = [-changes[image, unit, column].mean().item() for image in range(bm.HOSTS)]
        on = np.mean([drop for drop, own in zip(drops, target, strict=True) if own])
        off = np.mean([drop for drop, own in zip(drops, target, strict=True) if not own])
        assert found[unit, column].item() == pytest.approx(on - off, rel=1e-6)


def test_inserted_windows_by_hand(bright):
    """A linear unit falls by what was at the place minus what the window brings; places are the same for all."""
    found = METHODS["insertion, absence score"].windows(bright)
    brings = bright.windows.cut(bright.images)[:, 0].double().sum(dim=(1, 2)) / RED / bright.spread[0]
    torch.testing.assert_close(found[0] - found[0, 0], brings[0] - brings, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(found[1], -found[0], rtol=1e-3, atol=1e-5)


def test_naming_asks_for_more_than_colour(bright):
    """A patch of the mean colour changes a unit that only adds up pixels as much as the concept does."""
    found = METHODS["naming"].concepts(bright)
    assert found.shape == (2, 7) and found.abs().max() < 1e-6


def test_naming_says_minus_the_signed_effect_by_name(bright, monkeypatch):
    rows = [
        (reading, unit, name, effect * (1 if reading == "signed" else 100))
        for reading in ("signed", "passed on")
        for unit in (1, 0)
        for effect, name in enumerate(reversed(bright.concepts), start=10 * unit)
    ]
    table = pd.DataFrame(rows, columns=["reading", "unit", "name", "effect"])
    asked = {}

    def naming(model, layer, hosts, concepts, **given):
        asked.update(hosts=hosts, concepts=concepts, **given)
        return SimpleNamespace(effects=table)

    monkeypatch.setattr(bm, "name_absence", naming)
    expected = torch.stack([-torch.arange(6.0, -1, -1), -torch.arange(16.0, 9, -1)])
    assert torch.equal(bm.naming(bright).float(), expected)
    assert (
        len(asked["hosts"]) == bm.MIXED and asked["units"] == [0, 1] and (asked["concepts"].own == -1).all()
    )


class Vetoed(torch.nn.Module):
    """1 minus four times the mean of red: the only way to end the response is to add red. As a detector: the red."""

    def forward(self, images):
        red = images[:, 0].mean(dim=(1, 2)) * 0.2 + 0.35
        return torch.stack((1 - 4 * red, red), dim=1)


def test_a_pertinent_negative_is_what_ends_the_response(bright):
    model = Vetoed().eval()
    task = BenchmarkTask(model, None, [0, 1], bright.world, bright.scenes, torch.zeros(0), model)
    task.target = torch.ones(96, 2, dtype=torch.bool)
    found = METHODS["pertinent negatives"].concepts(
        BenchmarkTask(model, None, [0, 1], _Two(), bright.scenes, task.target, model)
    )
    assert found[0, 1] > 0.3, "red was added for the unit that it ends"
    assert found[1, 1] < -0.05, "and taken away for the one that it is"


class _Two(World):
    """A world of two concepts: the outputs of the detector here."""

    names = ("nothing", "red")


# -- turning over

SAME = ["insertion, absence score", "insertion, veto score", "concept probe", "tcav", "difference by label",
        "regression on labels", "maximisation", "minimisation"]  # fmt: skip
QUIET = [name for name in MAPS if name not in ("random_map", "edge_detector", "guided_backprop")]


@pytest.mark.parametrize("name", SAME)
def test_what_is_said_turns_over_with_the_unit(opposite, name):
    found = METHODS[name].concepts(opposite)
    assert found.shape == (2, 7) and found.abs().max() > 0
    torch.testing.assert_close(found[0], -found[1], rtol=1e-3, atol=1e-4 * found.abs().max().item())


@pytest.mark.parametrize("name", QUIET)
def test_what_a_map_says_turns_over_with_the_unit_on_the_same_scenes(opposite, name):
    for side in SIDES:
        found = METHODS[f"{name}, {side}"].concepts(opposite)
        largest = np.nanmax(found.abs())
        torch.testing.assert_close(found[0], -found[1], rtol=1e-3, atol=1e-4 * largest, equal_nan=True)


def test_highest_and_lowest_change_places_when_the_unit_turns_over(opposite):
    for high, low in (("highest patches", "lowest patches"), ("maximisation", "minimisation")):
        highest, lowest = (METHODS[name].concepts(opposite) for name in (high, low))
        torch.testing.assert_close(highest[0], -lowest[1], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(lowest[0], -highest[1], rtol=1e-3, atol=1e-4)


# -- baselines


def test_difference_and_regression_by_hand(bright):
    presence, response = bright.scenes.presence.double(), bright.response[:, 0]
    difference = METHODS["difference by label"].concepts(bright)[0]
    for column in range(7):
        shown = presence[:, column] > 0
        gap = (response[~shown].mean() - response[shown].mean()) / bright.spread[0]
        assert difference[column].item() == pytest.approx(gap.item(), rel=1e-6)
    design = torch.cat((torch.ones(96, 1).double(), presence), dim=1)
    fit = torch.linalg.lstsq(design, response[:, None]).solution[1:, 0] / bright.spread[0]
    torch.testing.assert_close(METHODS["regression on labels"].concepts(bright)[0], -fit)


def test_regression_on_a_single_unit(bright):
    task = BenchmarkTask(
        bright.model, None, [1], bright.world, bright.scenes, bright.target[:, 1:], bright.model
    )
    torch.testing.assert_close(bm.regression_on_labels(task), bm.regression_on_labels(bright)[1:])


# -- what hidden units need


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:layer 'pool4' averages rectified values")
def test_every_method_answers_for_hidden_units():
    task = opposite_task(layer="pool4", steps=1, images_for_maps=2)
    for name, method in METHODS.items():
        found = method.concepts(task)
        assert found.shape == (2, 7), name
