"""Verdicts by hand: what is decided when, in which words, and that random copies are judged by the same rule."""

import numpy as np
import pandas as pd
import pytest
from helpers.score_tables import scores
from scipy import stats as scipy_stats

from absence_utils.insertion.decisions import (
    CONTEXT,
    NONE,
    SUPPRESSED,
    UNDECIDED,
    decide,
    describe_verdict,
    null_false_positives,
    null_limit,
    one_sided_p,
)
from absence_utils.stats import crossed_t_interval

NULL = scores(np.linspace(0, 1, 101), np.zeros(101))  # 95 % lie below 0.95


def test_limit_is_the_95th_percentile_of_the_main_absence_score():
    assert null_limit(NULL) == pytest.approx(0.95)
    assert np.isnan(null_limit(NULL.assign(value=np.nan)))


def test_verdicts_of_clear_cases():
    table = decide(scores([2.0, 2.0, 0.3, np.nan, 0.97], [1.0, 0.0, 0.0, np.nan, 0.06]), NULL)
    assert table["studied"].tolist() == [4] * 5
    assert table["verdict"].tolist() == [CONTEXT, SUPPRESSED, NONE, UNDECIDED, NONE]
    assert table["percentile"][0] == 100 and table["percentile"][2] == pytest.approx(30, abs=1)
    assert table["limit"].tolist() == pytest.approx([0.95] * 5) and table["presence"].eq(1).all()


def test_a_score_above_the_limit_is_not_enough():
    """0.97 with a standard error of 0.05 lies above 0.95, and may well be below."""
    assert decide(scores([0.97], [0.0]), NULL)["verdict"].tolist() == [NONE]
    assert decide(scores([0.97], [0.0], error=0.005), NULL)["verdict"].tolist() == [SUPPRESSED]


def test_a_veto_must_exceed_the_least_that_counts_and_suppress():
    small = decide(scores([0.3, 0.3], [0.06, 0.5]), NULL)
    assert small["verdict"].tolist() == [NONE, CONTEXT]
    above_zero_only = decide(scores([0.3], [0.12]), NULL)  # 2.4 standard errors above 0, 1.4 above the least
    assert above_zero_only["verdict"].tolist() == [NONE]
    assert decide(scores([-0.3], [0.5]), NULL)["verdict"].tolist() == [NONE]


def test_an_interval_from_nought_to_the_limit_can_tell_nothing():
    """0.5 with a standard error of 0.25 may be 0, and may be 1."""
    for error, ruled_out, tells in ((0.25, False, False), (0.21, False, True), (0.15, True, True)):
        row = decide(scores([0.5], [0.0], error=error), NULL).iloc[0]
        text = describe_verdict(row, 8)
        assert row["verdict"] == NONE and ("not ruled out" not in text) == ruled_out
        assert ("more images would tell" not in text) == tells


def test_many_units_are_corrected_for():
    """A p-value of 0.03 counts alone, and not as one of forty."""
    at = 0.95 + 0.05 * scipy_stats.t.isf(0.03, 10.0)
    assert decide(scores([at], [0.0]), NULL)["verdict"][0] == SUPPRESSED
    assert decide(scores([at, *[0.5] * 39], [0.0] * 40), NULL)["verdict"][0] == NONE


def test_without_a_measured_null_only_a_veto_is_found():
    nothing = NULL.assign(value=np.nan)
    table = decide(scores([5.0, 5.0], [0.0, 2.0]), nothing)
    assert table["verdict"].tolist() == [NONE, CONTEXT] and table["limit"].isna().all()
    assert "no copy with random weights has" in describe_verdict(table.iloc[0], 8)


@pytest.mark.parametrize("least", [0.0, 0.3])
def test_exceeds_is_the_one_sided_t_test(least):
    values = np.random.default_rng(0).normal(0.4, 1, (3, 6, 1)) * np.ones((1, 1, 5))
    values = np.where(np.arange(6)[:, None] % 5 == np.arange(5), values, np.nan)[:, :5]  # one patch an image
    found = crossed_t_interval(values)
    table = pd.DataFrame({"value": found.value, "low": found.low, "high": found.high, "df": found.df})
    means = np.nanmean(values, axis=1)
    expected = scipy_stats.ttest_1samp(means, least, axis=1, alternative="greater").pvalue
    assert one_sided_p(table, least) == pytest.approx(expected, rel=1e-6)


def test_exceeds_without_scatter_and_without_a_measurement():
    table = pd.DataFrame({"value": [0.0, 1.0, np.nan], "low": [0.0, 1.0, np.nan], "high": [0.0, 1.0, np.nan],
                          "df": [3.0, 3.0, np.nan]})  # fmt: skip
    p = one_sided_p(table, 0.0)
    assert p[0] == 1 and p[1] == 0 and np.isnan(p[2])


def test_copies_are_judged_against_the_others_only():
    low, high = scores([0.1] * 30, [0.0] * 30), scores([3.0] * 30, [0.0] * 30)
    null = pd.concat([low.assign(copy=0), high.assign(copy=1)])
    table = null_false_positives(null).set_index("copy")
    assert (table.loc[1, "verdict"] == SUPPRESSED).all() and (table.loc[1, "limit"] == 0.1).all()
    assert (table.loc[0, "verdict"] == NONE).all() and (table.loc[0, "limit"] == 3.0).all()
    assert null_false_positives(low.assign(copy=0)).empty


@pytest.mark.parametrize(
    "values, words",
    [
        ((2.0, 1.0), "which no additive unit can show"),
        ((2.0, 0.01), "corrected for the 1 units studied"),
        ((0.3, -0.2), "any unit's lowest patches lower it"),
        ((0.97, 0.0), "it does not clearly exceed that"),
    ],
)
def test_words_carry_the_numbers_and_their_uncertainty(values, words):
    row = decide(scores(*([value] for value in values)), NULL).iloc[0]
    text = describe_verdict(row, 24)
    assert words in text and "(24 px)" in text
    assert f"{row.absence:.2f} sd" in text and f"{row.absence_low:.2f} to {row.absence_high:.2f}" in text
    assert "0.95 sd" in text and f"{abs(row.veto):.2f} sd" in text
    if row["verdict"] != CONTEXT:
        assert f"it does not clearly exceed 0.05 sd (q {row.q_veto:.2f})" in text
    if row["veto"] < 0:
        assert "−0.20 sd" in text  # the sign survives


def test_words_where_nothing_can_be_told():
    dead = decide(scores([np.nan], [np.nan]), NULL).iloc[0]
    assert dead["verdict"] == UNDECIDED and "could not be measured" in describe_verdict(dead, 8)
