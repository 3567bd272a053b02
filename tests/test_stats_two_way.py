"""The interval over images and patches: by hand, by simulation, and what the published test does instead."""

import itertools

import numpy as np
import pytest
from helpers.bootstrap import two_way_bootstrap
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from absence_utils.errors import InputError
from absence_utils.stats import (
    EXACT_PATCHES,
    crossed_t_interval,
    fdr_adjust,
    percentile_of,
    sign_flip_p,
)

PATCHES = 8


def drawn(units, images, patch_share, image_share=0.2, seed=0, patches=PATCHES):
    """[unit, image, patch] with mean 0 and variance 1, of which shares are common to an image and to a patch."""
    generator = np.random.default_rng(seed)
    image = generator.standard_normal((units, images, 1)) * image_share**0.5
    patch = generator.standard_normal((units, 1, patches)) * patch_share**0.5
    rest = generator.standard_normal((units, images, patches)) * (1 - image_share - patch_share) ** 0.5
    return image + patch + rest


def one_patch_an_image(values):
    """Only patch i mod k of image i was measured."""
    images, patches = values.shape[1:]
    return np.where(np.arange(images)[:, None] % patches == np.arange(patches), values, np.nan)


def slow_two_way(values):
    """Mean, variance of the mean and degrees of freedom of one unit [image, patch], by loops over a two-way layout."""
    n, k = len(values), len(values[0])
    mean = sum(sum(row) for row in values) / (n * k)
    rows = [sum(row) / k for row in values]
    columns = [sum(row[j] for row in values) / n for j in range(k)]
    ms_rows = k * sum((row - mean) ** 2 for row in rows) / (n - 1)
    ms_columns = n * sum((column - mean) ** 2 for column in columns) / (k - 1)
    ms_rest = 0.0
    for i, j in itertools.product(range(n), range(k)):
        ms_rest += (values[i][j] - rows[i] - columns[j] + mean) ** 2 / ((n - 1) * (k - 1))
    if ms_rows < ms_rest:
        return mean, ms_columns / (n * k), k - 1
    variance = (ms_rows + ms_columns - ms_rest) / (n * k)
    parts = ((ms_rows, n - 1), (ms_columns, k - 1), (ms_rest, (n - 1) * (k - 1)))
    return mean, variance, variance**2 / sum((ms / (n * k)) ** 2 / df for ms, df in parts)


@pytest.mark.parametrize("image_share", [0.0, 0.4])
def test_equals_the_two_way_layout_by_hand(image_share):
    values = drawn(6, 5, 0.3, image_share, seed=3) + 0.4
    result = crossed_t_interval(values)
    clipped = 0
    for unit in range(6):
        mean, variance, df = slow_two_way(values[unit].tolist())
        half = stats.t.ppf(0.975, df) * variance**0.5
        clipped += df == PATCHES - 1  # by construction exact in `slow_two_way`
        assert result.value[unit] == pytest.approx(mean)
        assert (result.low[unit], result.high[unit]) == pytest.approx((mean - half, mean + half))
        assert result.df[unit] == pytest.approx(df)
        assert result.p[unit] == pytest.approx(2 * stats.t.sf(abs(mean) / variance**0.5, df))
    assert (clipped > 0) == (image_share == 0)  # both branches were met


def test_one_patch_an_image_is_the_t_test_on_the_patches_means():
    values = one_patch_an_image(drawn(4, 24, 0.2) + 0.2)
    result = crossed_t_interval(values)
    test = stats.ttest_1samp(np.nanmean(values, axis=1), 0, axis=1)
    interval = test.confidence_interval(0.95)
    np.testing.assert_allclose(result.p, test.pvalue)
    np.testing.assert_allclose(result.low, interval.low)
    np.testing.assert_allclose(result.high, interval.high)
    np.testing.assert_allclose(result.df, PATCHES - 1)


def test_subtracting_pairs_by_patch():
    """What a patch does alike on both kinds of images cancels, and the sign follows the order."""
    patch = 5 * np.random.default_rng(0).standard_normal((1, 1, PATCHES))
    top, neutral = drawn(1, 12, 0, seed=1) + patch + 0.3, drawn(1, 9, 0, seed=2) + patch
    result, turned = crossed_t_interval(top, neutral), crossed_t_interval(neutral, top)
    assert result.value == pytest.approx(top.mean() - neutral.mean())
    assert result.standard_error < 0.5 < crossed_t_interval(top).standard_error
    for one, other in ((result.low, -turned.high), (result.high, -turned.low), (result.p, turned.p)):
        assert one == pytest.approx(other)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(-3, 3), st.floats(0.1, 10), st.booleans())
def test_moves_with_the_values(seed, shift, factor, single):
    values = drawn(2, 16, 0.2, seed=seed)
    values = one_patch_an_image(values) if single else values
    plain, moved = crossed_t_interval(values), crossed_t_interval(factor * values + shift)
    np.testing.assert_allclose(moved.value, factor * plain.value + shift, atol=1e-9)
    np.testing.assert_allclose(moved.high - moved.low, factor * (plain.high - plain.low), rtol=1e-6)
    order = np.random.default_rng(seed).permutation(16)
    np.testing.assert_allclose(crossed_t_interval(values[:, order]).low, plain.low)


@pytest.mark.slow
@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("patch_share", [0.0, 0.05, 0.1, 0.3])
def test_covers_and_keeps_its_level_where_the_unpaired_test_does_not(patch_share, single):
    runs, images = 2000, 24
    measured = one_patch_an_image if single else np.asarray
    values = measured(drawn(runs, images, patch_share, seed=1))
    result = crossed_t_interval(values + 0.3)
    covered = np.mean((result.low <= 0.3) & (result.high >= 0.3))
    assert 0.92 <= covered <= 0.98
    assert np.mean(crossed_t_interval(values).p < 0.05) < 0.07

    # The published test takes the same inputs, unpaired: an image's own level, then each kind's own patches.
    level = np.random.default_rng(7).standard_normal((runs, images, 1)) * 0.3
    lowest, other = (measured(drawn(runs, images, patch_share, 0, seed) + level) for seed in (2, 3))
    flat = [part.reshape(runs, -1) for part in (lowest, other)]
    wrong = np.mean(stats.ttest_ind(*flat, axis=1, nan_policy="omit").pvalue < 0.05)
    ours = np.mean(crossed_t_interval(lowest - other).p < 0.05)
    assert ours < 0.07
    if patch_share and not single:
        assert wrong > 0.1 > ours  # with 24 images a patch, 5% in common is enough to mislead it
    if patch_share == 0.3:
        assert wrong > 0.08


def test_bootstrap_does_not_keep_its_level_with_eight_patches():
    """Why the interval is not the plain bootstrap: too narrow where patches differ, too wide where they do not."""
    covered = []
    for patch_share in (0.0, 0.3):
        result = two_way_bootstrap(drawn(600, 24, patch_share, seed=5), draws=300)
        covered.append(np.mean((result.low <= 0) & (result.high >= 0)))
    assert covered[0] > 0.965 and covered[1] < 0.935


def test_bootstrap_of_many_patches_and_images_is_near_the_interval():
    values = drawn(1, 60, 0.3, 0.3, patches=60) + 1
    boot, exact = two_way_bootstrap(values, draws=4000), crossed_t_interval(values)
    assert boot.value == exact.value
    assert boot.standard_error == pytest.approx(exact.standard_error, rel=0.1)
    assert boot.p == 0 and two_way_bootstrap(values - values.mean()).p > 0.8


def test_nothing_happened_is_no_effect_and_rounding_is_nothing():
    nothing = crossed_t_interval(np.zeros((1, 4, 3)))
    assert (nothing.value, nothing.low, nothing.high, nothing.p) == (0, 0, 0, 1)
    rounding = 1e-8 * (drawn(1, 4, 0, patches=3) + 5)
    assert crossed_t_interval(rounding).p == 1 and crossed_t_interval(1e6 * rounding).p < 0.01
    assert crossed_t_interval(np.ones((1, 4, 3))).p == 0


def test_a_smallest_effect_can_be_asked_for():
    values = drawn(1, 20, 0.1) * 0.05 + 0.2
    assert crossed_t_interval(values).p < 1e-6
    assert crossed_t_interval(values, least=0.1).p < 1e-3 < 0.3 < crossed_t_interval(values, least=0.25).p
    level = [
        np.mean(crossed_t_interval(drawn(2000, 24, 0.1) + side, least=0.5).p < 0.05) for side in (-0.5, 0.5)
    ]
    assert max(level) < 0.07  # at the edge of what does not count


def test_units_with_too_few_images_have_no_interval():
    values = drawn(3, 6, 0.1)
    values[1, 1:] = np.nan
    values[2] = np.nan
    result = crossed_t_interval(values)
    assert np.isfinite(result.value[0]) and np.isnan(result.value[1:]).all() and np.isnan(result.p[1:]).all()
    assert np.isnan(crossed_t_interval(drawn(3, 6, 0.1), values).low[1:]).all()


@pytest.mark.parametrize("bad", [np.zeros((3, 4)), np.zeros((2, 3, 1))])
def test_wrong_shapes(bad):
    with pytest.raises(InputError, match="values.*two patches"):
        crossed_t_interval(bad)


def test_patterns_of_pairs_that_are_neither_all_nor_one():
    values = drawn(2, 5, 0.1)
    values[1, 2, 3] = np.nan
    with pytest.raises(InputError, match="unit 1 has images with some"):
        crossed_t_interval(values)
    with pytest.raises(InputError, match="minus"):
        crossed_t_interval(drawn(2, 5, 0.1), drawn(2, 5, 0.1, patches=7))


# ---------------------------------------------------------------------- sign flips and the rest
def test_sign_flips_by_enumeration():
    means = np.random.default_rng(0).standard_normal((5, 6)) + 0.5
    for unit, p in zip(means, sign_flip_p(means), strict=True):
        patterns = [sum(s * m for s, m in zip(signs, unit, strict=True))
                    for signs in itertools.product((1, -1), repeat=6)]  # fmt: skip
        assert p == np.mean([abs(total) >= abs(unit.sum()) - 1e-12 for total in patterns])
    assert sign_flip_p([[1.0] * 8]) == 2 / 256
    assert np.isnan(sign_flip_p([[1.0, np.nan]]))


def test_sign_flips_keep_their_level_for_given_images():
    values = drawn(2000, 24, 0.2, image_share=0)
    assert 0.03 < np.mean(sign_flip_p(values.mean(axis=1)) < 0.05) < 0.07


@pytest.mark.slow
def test_many_patches_are_flipped_at_random():
    means = np.random.default_rng(1).standard_normal((300, EXACT_PATCHES + 3))
    p = sign_flip_p(means)
    assert 0.02 < np.mean(p < 0.05) < 0.09 and p.min() > 0
    np.testing.assert_array_equal(p, sign_flip_p(means))


def test_adjusted_is_benjamini_and_hochberg_by_hand():
    p = np.array([0.01, np.nan, 0.04, 0.03, 0.5])
    known = [0.01, 0.04, 0.03, 0.5]
    by_hand = [
        min(q * 4 / (1 + sum(other < q for other in known)) for q in known if q >= each) for each in known
    ]
    np.testing.assert_allclose(np.delete(fdr_adjust(p), 1), by_hand)
    assert np.isnan(fdr_adjust(p)[1]) and p[0] == 0.01
    assert np.isnan(fdr_adjust([np.nan])).all()


def test_percentiles():
    assert percentile_of([0, 1, 2, 9, np.nan], [1, 2, 3, 4, np.nan])[:4].tolist() == [0, 12.5, 37.5, 100]
    assert np.isnan(percentile_of([np.nan], [1.0])).all() and np.isnan(percentile_of([1.0], [])).all()
