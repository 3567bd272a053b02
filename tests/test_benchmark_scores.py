"""Outcomes by hand, with ties and with silence, and that they turn over with the sign."""

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.benchmark_units import bright_task

from absence_utils.benchmark.scores import (
    ANSWERS,
    OUTCOMES,
    false_alarms,
    map_outcomes,
    outcomes_of,
    window_outcomes,
)

NAN = float("nan")


def answers_of(said, truth, network="plain/0", layer="outputs", method="one"):
    """Rows of one method: said and truth are [unit][concept]."""
    rows = [
        (method, network, network.endswith(" twin"), layer, unit, "abcdefg"[concept], value, truth[unit][concept])
        for unit, values in enumerate(said) for concept, value in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=ANSWERS)


def found(said, truth, **given):
    table = outcomes_of(answers_of(said, truth, **given))
    assert table.columns.tolist() == OUTCOMES
    return table.set_index(["unit", "concept", "score"]).value


TRUTH = [["absence", "none", "none", "presence"], ["none", "absence", "absence", "depends"]]


def test_auroc_of_each_absence_by_hand():
    said = [[3.0, 4.0, 3.0, 0.0], [1.0, 2.0, 9.0, 99.0]]
    value = found(said, TRUTH)
    assert value[0, "a", "AUROC"] == (0 + 0.5 + 1 + 1) / 4, (
        "others: 4, 3, 0 and 1; what depends does not count"
    )
    assert value[1, "b", "AUROC"] == 2 / 4 and value[1, "c", "AUROC"] == 1


def test_ranks_by_hand_with_ties_and_without_other_absences():
    said = [[3.0, 4.0, 3.0, 0.0], [1.0, 2.0, 9.0, 99.0]]
    value = found(said, TRUTH)
    assert value[0, "a", "name, reciprocal rank"] == 1 / 2.5, "behind 4, beside 3"
    assert value[0, "a", "name, recall at 1"] == 0 and value[0, "a", "name, recall at 5"] == 1
    assert value[1, "b", "name, reciprocal rank"] == 1, (
        "neither the other absence nor what depends is before it"
    )
    assert value[1, "b", "name, recall at 1"] == 1


def test_a_tie_for_the_first_place_is_not_the_first_place():
    value = found([[1.0, 1.0, 0.0]], [["absence", "none", "none"]])
    assert value[0, "a", "name, recall at 1"] == 0 and value[0, "a", "name, reciprocal rank"] == 1 / 1.5


def test_recall_at_five_ends_behind_the_fifth_place():
    truth = [["absence", *["none"] * 6]]
    for before, recall in ((4, 1), (5, 0)):
        said = [[0.0, *[1.0] * before, *[-1.0] * (6 - before)]]
        assert found(said, truth)[0, "a", "name, recall at 5"] == recall


def test_all_scores_turn_over_with_the_sign():
    truth = [["absence", "none", "presence", "none"]]
    good, bad = (found([[sign * 1.0, 0.0, 0.0, 0.0]], truth) for sign in (1, -1))
    assert good[0, "a", "AUROC"] == 1 and bad[0, "a", "AUROC"] == 0
    assert good[0, "a", "name, reciprocal rank"] == 1 and bad[0, "a", "name, reciprocal rank"] == 1 / 4


def test_silence_about_an_absence_is_no_outcome_and_about_others_is_left_out():
    value = found([[NAN, 1.0, 2.0, 3.0], [0.0, 2.0, NAN, 0.0]], TRUTH)
    assert value[0, "a"].isna().all() and value[1, "c"].isna().all()
    assert value[1, "b", "AUROC"] == 2.5 / 4 and len(value) == 3 * 4
    value = found([[2.0, NAN, NAN, 1.0], [NAN, NAN, NAN, NAN]], TRUTH)
    assert value[0, "a", "AUROC"] == 1 and value[0, "a", "name, reciprocal rank"] == 1
    value = found([[2.0, NAN, NAN, NAN], [NAN, NAN, NAN, NAN]], TRUTH)
    assert value[0, "a"].isna().all(), "nothing to compare with"


def test_values_stay_numbers_where_a_layer_has_no_absence():
    nothing = answers_of([[1.0, 2.0]], [["none", "presence"]], layer="hidden, signed")
    some = answers_of([[1.0, 2.0]], [["absence", "none"]])
    assert outcomes_of(pd.concat([nothing, some])).value.dtype == float
    assert outcomes_of(nothing).empty


def test_infinite_values_have_an_order_too():
    value = found([[np.inf, np.inf, -np.inf, 0.0]], [["absence", "none", "none", "none"]])
    assert value[0, "a", "AUROC"] == pytest.approx(2.5 / 3)


def test_networks_layers_and_methods_are_scored_by_themselves_and_twins_not_at_all():
    truth = [["absence", "none"]]
    tables = [
        answers_of([[1.0, 0.0]], truth),
        answers_of([[-9.0, -8.0]], truth, network="plain/1"),
        answers_of([[5.0, 6.0]], truth, layer="hidden, signed"),
        answers_of([[0.0, 0.0]], truth, method="two"),
        answers_of([[7.0, 7.0]], [["none", "none"]], network="plain/0 twin"),
    ]
    table = outcomes_of(pd.concat(tables))
    area = table[table.score == "AUROC"].set_index(["method", "network", "layer"]).value
    assert area.to_dict() == {
        ("one", "plain/0", "outputs"): 1, ("one", "plain/1", "outputs"): 0,
        ("one", "plain/0", "hidden, signed"): 0, ("two", "plain/0", "outputs"): 0.5,
    }  # fmt: skip


def test_false_alarms_by_hand():
    absences, twins = np.array([5.0, 3.0, 2.0, 1.0, -1.0]), np.array([6.0, 1.0, 0.9, NAN])
    assert false_alarms(absences, twins) == 0.5, "four of five are found at 1; of four pairs two are called"
    assert np.isnan(false_alarms(np.array([5.0, 3.0, 2.0, NAN, NAN]), twins)), "three of five is not enough"
    assert false_alarms(np.array([5.0, 3.0, 2.0, 1.0, NAN]), twins) == 0.5
    assert false_alarms(absences, np.full(4, NAN)) == 0
    assert false_alarms(np.array([2.0]), np.array([2.0, 3.0])) == 1


@pytest.fixture(scope="module")
def bright():
    return bright_task(32, images_for_maps=8)


def test_windows_by_hand(bright):
    shows = bright.windows.shows[:, 2]
    count, others = len(shows), int((~shows).sum())
    best = torch.zeros(2, count)
    best[1, shows.nonzero()[0]] = 1.0
    assert window_outcomes(bright, best, 1, 2) == {
        "window, reciprocal rank": 1, "window, recall at 1": 1, "window, recall at 5": 1,
    }  # fmt: skip
    behind = best.clone()
    behind[1, (~shows).nonzero()[:3]] = 2.0
    assert window_outcomes(bright, behind, 1, 2)["window, reciprocal rank"] == 1 / 4
    assert window_outcomes(bright, behind, 1, 2)["window, recall at 5"] == 1
    tied = window_outcomes(bright, best, 0, 2)
    assert tied["window, reciprocal rank"] == 1 / (1 + others / 2)


def test_windows_without_an_answer(bright):
    shows = bright.windows.shows[:, 2]
    said = torch.where(shows, NAN, 1.0).expand(2, -1)
    assert np.isnan([*window_outcomes(bright, said, 0, 2).values()]).all()
    said = torch.where(shows, 0.0, NAN).expand(2, -1)
    assert np.isnan([*window_outcomes(bright, said, 0, 2).values()]).all(), "none to be ranked before"
    said = torch.zeros(2, len(shows))
    said[0, shows.nonzero()[0]], said[0, (~shows).nonzero()[0]] = 1.0, NAN
    assert window_outcomes(bright, said, 0, 2)["window, recall at 1"] == 1


def test_maps_are_held_against_the_mask_on_non_target_inputs(bright):
    masks, asked = bright.scenes.masks[:8, 1], ~bright.target[:8, 0]
    right = -masks.double().expand(2, -1, -1, -1)
    assert map_outcomes(bright, right, 0, 1) == {"pointing game": 1.0, "mask precision": 1.0}
    wrong = map_outcomes(bright, -right, 0, 1)
    assert wrong["pointing game"] == 0
    rows = (asked & masks.flatten(1).any(dim=1)).nonzero()[:, 0]
    shares = masks[rows].flatten(1).double().mean(dim=1).mean().item()
    assert wrong["mask precision"] == pytest.approx(shares), "of a map that is silent: the share of the mask"
    targets = right.clone()
    targets[:, asked] = 1.0  # right on target inputs alone
    assert map_outcomes(bright, targets, 0, 1)["pointing game"] == 0


def test_the_most_negative_pixel_counts_and_not_the_largest(bright):
    maps = torch.where(bright.scenes.masks[:8, 1], -1.0, 9.0).expand(2, -1, -1, -1)
    assert map_outcomes(bright, maps, 0, 1) == {"pointing game": 1.0, "mask precision": 1.0}


def test_no_scene_no_outcome(bright):
    from dataclasses import replace

    task = replace(bright, target=torch.ones_like(bright.target), memory={})
    assert np.isnan([*map_outcomes(task, -torch.ones(2, 8, 64, 64), 0, 1).values()]).all()
