"""Intervals against scipy, against a slow re-derivation, and by how often they cover."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from absence_utils.errors import InputError
from absence_utils.stats import clustered_rate, paired_difference, rate_table


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=2, max_size=8))
def test_interval_holds_the_rate_and_mirrors(counts):
    yes, no = np.array(counts).T + np.array([[0], [1]])
    estimate, mirrored = clustered_rate(yes, yes + no), clustered_rate(no, yes + no)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert estimate.value == pytest.approx(yes.sum() / (yes + no).sum())
    assert [estimate.low, estimate.high] == pytest.approx([1 - mirrored.high, 1 - mirrored.low], abs=1e-9)


def test_clusters_without_scatter_give_the_exact_interval_of_fewer_trials():
    estimate = clustered_rate([4] * 5, [20] * 5)
    effective = 100 * (stats.t.ppf(0.975, 99) / stats.t.ppf(0.975, 4)) ** 2
    low = stats.beta.ppf(0.025, 0.2 * effective, 0.8 * effective + 1)
    assert estimate.low == pytest.approx(low)
    many = clustered_rate([4] * 2000, [20] * 2000)  # with many clusters, plain Clopper and Pearson
    exact = stats.binomtest(8000, 40000).proportion_ci(method="exact")
    assert [many.low, many.high] == pytest.approx([exact.low, exact.high], abs=2e-5)


def test_scatter_between_clusters_widens_and_zero_has_a_width():
    even, uneven = clustered_rate([10] * 6, [20] * 6), clustered_rate([2, 18, 2, 18, 2, 18], [20] * 6)
    assert uneven.high - uneven.low > 1.5 * (even.high - even.low)
    none = clustered_rate([0] * 5, [35] * 5)
    assert none.low == 0 and 0.02 < none.high < 0.1


def test_interval_covers_under_clustering():
    generator = np.random.default_rng(0)
    rates = generator.beta(6, 14, size=(600, 5))  # mean 0.3, clusters truly differ
    hits = [low <= 0.3 <= high for _, low, high in
            (clustered_rate(generator.binomial(35, row), [35] * 5) for row in rates)]  # fmt: skip
    assert np.mean(hits) > 0.93  # 0.95 less three standard errors of 600 trials


def test_paired_difference_is_the_t_interval_by_hand_and_flips_with_its_sides():
    first, second = np.array([0.9, 0.8, 1.0, 0.7]), np.array([0.1, 0.3, 0.2, 0.0])
    difference = first - second
    half = stats.t.ppf(0.975, 3) * difference.std(ddof=1) / 2
    estimate = paired_difference(first, second)
    assert list(estimate) == pytest.approx([0.7, 0.7 - half, 0.7 + half])
    assert list(paired_difference(second, first)) == pytest.approx([-0.7, -0.7 - half, -0.7 + half])
    assert paired_difference([1, 1, 0.2], [0, 0, 0], bounds=(-1, 1)).high == 1
    assert list(paired_difference([0.5, 0.5], [0, 0])) == [0.5, 0.5, 0.5]


def test_rate_table_groups_and_clusters():
    rows = [
        (t, s, f)
        for t, flips in (("a", [1, 1, 0, 1]), ("b", [0, 0, 0, 0]))
        for s, f in zip([0, 0, 1, 1], flips, strict=True)
    ]
    table = rate_table(pd.DataFrame(rows, columns=["what", "seed", "flipped"]), "flipped", ["what"], "seed")
    assert (
        table["what"].tolist() == ["a", "b"]
        and table["rate"].tolist() == [0.75, 0]
        and table["n"].tolist() == [4, 4]
    )
    assert tuple(table.loc[0, ["rate", "low", "high"]]) == tuple(clustered_rate([2, 1], [2, 2]))


@pytest.mark.parametrize(
    ("yes", "trials"), [([1], [2]), ([3, 1], [2, 2]), ([0, 0], [2, 0]), ([-1, 1], [2, 2])]
)
def test_bad_counts_are_refused(yes, trials):
    with pytest.raises(InputError):
        clustered_rate(yes, trials)
    with pytest.raises(InputError):
        paired_difference([1], [0])
