"""Decisions by hand: which of three answers falls when, in which words, and that copies only describe."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from absence_utils.errors import InputError
from absence_utils.insertion.decisions import (
    CANNOT_TELL,
    DELTAS,
    ENCODES,
    NONE,
    decide,
    describe_decision,
    one_sided_p,
    sizes_that_count,
)
from absence_utils.stats import crossed_t_interval


def effects(signed, passed=None, mean_colour=None, error=0.05, df=11.0):
    """A table as `host_effects` gives it; `mean_colour`: effects on what is passed on against the mean colour."""
    half = scipy_stats.t.ppf(0.975, df) * error
    rows = []
    columns = {("signed", "random patch"): signed, ("signed", "mean colour"): [9.0] * len(signed)}
    if passed is not None:
        columns[("passed on", "random patch")] = passed
        columns[("passed on", "mean colour")] = passed if mean_colour is None else mean_colour
    for (reading, control), values in columns.items():
        for unit, value in enumerate(values):
            rows.append((unit, reading, control, value, value - half, value + half, error, df, 192, 12))
    names = ["unit", "reading", "control", "value", "low", "high", "error", "df", "images", "patches"]
    return pd.DataFrame(rows, columns=names)


def test_the_three_answers():
    table = decide(effects([1.5, 0.2, 0.78, np.nan]))
    assert table["decision"].tolist() == [ENCODES, NONE, CANNOT_TELL, CANNOT_TELL]
    assert table["studied"].tolist() == [3] * 4 and (table["delta"] == DELTAS["signed"]).all()
    assert (
        table["control"].tolist() == ["random patch"] * 4
    )  # 9 sd against the mean colour is not what decides


def test_what_is_passed_on_must_beat_both_controls():
    table = decide(effects([0, 0, 0, 0], [0.6, 0.6, 0.0, 0.6], [0.6, 0.0, 0.6, 0.17]))
    passed = table[table["reading"] == "passed on"]
    assert passed["decision"].tolist() == [ENCODES, NONE, NONE, CANNOT_TELL]
    assert passed["effect"].tolist() == [0.6, 0.0, 0.0, 0.17]
    assert passed["control"].tolist() == ["random patch", "mean colour", "random patch", "mean colour"]


def test_one_control_alone_falls_short_with_twice_its_p():
    """The smallest of two was chosen for being small: its p counts twice."""
    at = DELTAS["passed on"] - 0.05 * scipy_stats.t.isf(0.03, 11.0)
    table = decide(effects([0], [0.6], [at]))
    assert table["q_less"][1] == pytest.approx(0.06) and table["decision"][1] == CANNOT_TELL


def test_the_size_that_counts_is_the_callers():
    assert decide(effects([1.5]), deltas={"signed": 2.0})["decision"].tolist() == [NONE]
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="deltas.*above 0"):
            decide(effects([1.5]), deltas={"signed": wrong})


def test_many_units_are_corrected_for():
    """A p-value of 0.03 counts alone, and not as one of forty."""
    at = DELTAS["signed"] + 0.05 * scipy_stats.t.isf(0.03, 11.0)
    assert decide(effects([at]))["decision"][0] == ENCODES
    table = decide(effects([at, *[DELTAS["signed"]] * 39]))
    assert table["decision"][0] == CANNOT_TELL and table["studied"].eq(40).all()


def test_images_needed_follow_from_the_distance_to_delta():
    near, far = (decide(effects([DELTAS["signed"] + away], error=0.2)).iloc[0] for away in (0.05, 0.3))
    assert near["needed"] == pytest.approx(192 * (2 * 1.96 / (0.05 / 0.2)) ** 2, rel=0.01)
    assert near["needed"] / far["needed"] == pytest.approx(36, rel=0.02)
    at_delta = decide(effects([DELTAS["signed"]])).iloc[0]
    assert np.isinf(at_delta["needed"]) and "more images would not tell" in describe_decision(at_delta, 24)
    assert decide(effects([3.0]))["needed"][0] == 0


def test_copies_describe_and_decide_nothing():
    null = pd.concat([effects([0.0, 0.5]).assign(copy=0), effects([3.0, 4.0]).assign(copy=1)])
    alone, beside = decide(effects([1.5, 0.2])), decide(effects([1.5, 0.2]), null)
    assert beside["percentile"].tolist() == [50.0, 25.0] and alone["percentile"].isna().all()
    pd.testing.assert_frame_equal(alone.drop(columns="percentile"), beside.drop(columns="percentile"))


@pytest.mark.parametrize("least", [0.0, 0.3])
def test_one_sided_p_is_scipys_t_test(least):
    values = np.random.default_rng(0).normal(0.4, 1, (3, 6, 1)) * np.ones((1, 1, 5))
    values = np.where(np.arange(6)[:, None] % 5 == np.arange(5), values, np.nan)  # one patch an image
    found = crossed_t_interval(values)
    table = pd.DataFrame({"value": found.value, "error": found.standard_error, "df": found.df})
    expected = scipy_stats.ttest_1samp(
        np.nanmean(values, axis=1), least, axis=1, alternative="greater"
    ).pvalue
    assert one_sided_p(table, least) == pytest.approx(expected, rel=1e-6)


def test_one_sided_p_without_scatter_and_without_a_measurement():
    table = pd.DataFrame({"value": [0.0, 1.0, np.nan], "error": [0.0, 0.0, np.nan], "df": [3.0, 3.0, np.nan]})
    p = one_sided_p(table, 0.0)
    assert p[0] == 0.5 and p[1] == 0 and np.isnan(p[2])


@pytest.mark.parametrize(
    "value, words",
    [
        (1.5, "surely by more than 0.75 sd"),
        (0.2, "surely by less than"),
        (-0.2, "surely do not lower it"),
        (0.78, "images would tell"),
    ],
)
def test_words_carry_the_numbers_and_keep_the_sign(value, words):
    row = decide(effects([value])).iloc[0]
    text = describe_decision(row, 24)
    assert words in text and "(24 px)" in text and text.startswith("Signed: ")
    assert f"{abs(row.effect):.2f} sd" in text and f"{abs(row.high):.2f}" in text
    assert ("raise it by 0.20 sd" in text) == (value < 0) and "-" not in text
    assert "orrected" not in text and "Corrected for the 2 units studied." in describe_decision(
        decide(effects([1, 2])).iloc[0], 8
    )


def test_words_where_nothing_was_measured():
    dead = decide(effects([np.nan])).iloc[0]
    assert dead["decision"] == CANNOT_TELL and "hardly changes" in describe_decision(dead, 8)


def test_of_a_unit_that_no_patch_moves_one_cannot_tell():
    """A unit that looks elsewhere has an effect of 0 without any scatter, which is no "none of that size"."""
    table = effects([0.0, 0.0, 0.2], passed=[0.0, 0.0, 0.0])
    unmoved = table["unit"] == 0
    table.loc[unmoved, ["value", "low", "high", "error"]] = 0.0  # by any patch, in both readings
    table.loc[(table["unit"] == 1) & (table["reading"] == "passed on"), ["low", "high", "error"]] = 0.0
    found = decide(table).set_index(["unit", "reading"])
    assert found.loc[0, "decision"].tolist() == [CANNOT_TELL] * 2 and np.isinf(found.loc[0, "needed"]).all()
    assert (
        found.loc[1, "decision"].tolist() == [NONE] * 2
    )  # it is silent, yet it moves before its nonlinearity
    assert found.loc[(2, "signed"), "studied"] == 2
    assert "no patch moves the unit" in describe_decision(decide(table).iloc[0], 8)


@pytest.mark.parametrize(
    "patch, height, width, signed, passed",
    [(24, 64, 64, 0.75, 0.15), (48, 224, 224, 0.24, 0.05), (12, 64, 64, 0.19, 0.04), (32, 64, 64, 0.75, 0.15),
     (84, 224, 224, 0.75, 0.15), (24, 64, 128, 0.375, 0.075), (4, 224, 224, 0.01, 0.01)],
)  # fmt: skip
def test_sizes_that_count_go_with_the_area_of_a_patch_up_to_a_seventh(patch, height, width, signed, passed):
    found = sizes_that_count(patch, height, width)
    assert found == {
        "signed": pytest.approx(signed, abs=0.006),
        "passed on": pytest.approx(passed, abs=0.006),
    }
    share = min(1, patch**2 / (height * width) / (24 / 64) ** 2)
    for reading, delta in found.items():
        assert abs(delta - DELTAS[reading] * share) < 0.011
