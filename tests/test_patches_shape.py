"""Shape of the response: planted units whose low and high sides are known, and what is said of them."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn

from absence_utils.errors import InputError
from absence_utils.patches.shape import (
    beside_copies,
    blank_response,
    describe_shape,
    response_shape,
    share_below,
)

NONE = pd.DataFrame({"skewness": [], "share_below": []}, dtype=float)


def planted(count=4000):
    """[image, unit]: symmetric around the blank, rectified, only inhibited, two constants."""
    normal = np.random.default_rng(0).normal(size=count)
    inhibited = -np.random.default_rng(1).exponential(size=count)
    units = [2 * normal + 1, normal.clip(min=0), inhibited - 3, np.full(count, 0.1), np.full(count, 5.0)]
    return np.stack(units, axis=1), np.array([1.0, 0.0, -3.0, 0.1, 0.0])


def test_planted_units_have_the_sides_that_they_were_built_with():
    shape = response_shape(*planted())
    normal, rectified, inhibited = (shape.loc[unit] for unit in range(3))
    assert abs(normal.skewness) < 0.1 and normal.skewness_low < 0 < normal.skewness_high
    assert normal.blank_percentile == pytest.approx(50, abs=2) and normal.share_below == pytest.approx(
        0.5, abs=0.1
    )
    assert [normal.p5_sd, normal.p95_sd] == pytest.approx([-1.645, 1.645], abs=0.08)
    assert normal.sd == pytest.approx(2, rel=0.05) and normal.blank == 1
    assert rectified.share_below == rectified.p5_sd == rectified.lowest_sd == 0 < rectified.p95_sd
    assert rectified.skewness_low > 1 and rectified.blank_percentile == pytest.approx(
        25, abs=2
    )  # ties count half
    assert inhibited.share_below == pytest.approx(1, abs=1e-3) and inhibited.blank_percentile == 100
    assert inhibited.p5_sd == pytest.approx(np.log(0.05), rel=0.1) and inhibited.p95_sd < 0
    assert inhibited.skewness_high < 0 and inhibited.lowest_sd < inhibited.p5_sd < inhibited.highest_sd <= 0


def test_units_that_never_change_have_no_shape_and_no_warning():
    shape = response_shape(*planted(50)).loc[[3, 4]]
    assert shape.drop(columns="blank").isna().all(axis=None) and shape["blank"].tolist() == [0.1, 0.0]
    rounding = 7 + 1e-8 * np.random.default_rng(0).normal(size=(50, 1))
    assert response_shape(rounding, [7.0]).sd.isna().all()
    assert describe_shape(shape.loc[4], NONE) == "Its response never changes: it has no shape."


@pytest.mark.parametrize("images", [None, np.arange(60) // 3])
def test_negating_responses_swaps_the_sides(images):
    values, blank = np.random.default_rng(0).gamma(1.5, size=(60, 4)), np.array([0.5, 1.0, -1.0, 9.0])
    shape, turned = (response_shape(sign * values, sign * blank, images=images) for sign in (1, -1))
    swapped = {
        "blank": -shape.blank,
        "sd": shape.sd,
        "skewness": -shape.skewness,
        "skewness_low": -shape.skewness_high,
        "skewness_high": -shape.skewness_low,
        "blank_percentile": 100 - shape.blank_percentile,
        "p5_sd": -shape.p95_sd,
        "p95_sd": -shape.p5_sd,
        "lowest_sd": -shape.highest_sd,
        "highest_sd": -shape.lowest_sd,
        "share_below": 1 - shape.share_below,
    }
    pd.testing.assert_frame_equal(turned, pd.DataFrame(swapped))
    assert shape.share_below.iloc[2:].tolist() == [0, 1] and shape.lowest_sd[2] > 0 > shape.highest_sd[3]


def test_numbers_are_those_of_their_definitions():
    values = np.random.default_rng(0).gamma(1.5, size=(40, 1))
    shape = response_shape(values, [1.0]).loc[0]
    one = values[:, 0]
    assert shape.skewness == pytest.approx(stats.skew(one, bias=False))
    assert shape.sd == pytest.approx(one.std(ddof=1))
    assert shape.blank_percentile == stats.percentileofscore(one, 1.0, "mean")
    assert shape.p5_sd * shape.sd + 1 == pytest.approx(np.percentile(one, 5))
    assert shape.highest_sd * shape.sd + 1 == pytest.approx(one.max())
    assert shape.share_below == pytest.approx((1 - one.min()) / np.ptp(one))

    # the interval: the change of the skewness when an image counts a little more, by differences
    def weighted(weights):
        mean = np.average(one, weights=weights)
        second, third = (np.average((one - mean) ** k, weights=weights) for k in (2, 3))
        return third / second**1.5

    step = 1e-6
    change = [(weighted(np.ones(40) + step * row) - weighted(np.ones(40))) / step for row in np.eye(40)]
    error = np.sqrt(40 / 39 * np.square(change).sum())
    half = stats.t.ppf(0.975, 39) * error
    assert shape.skewness - shape.skewness_low == pytest.approx(half, rel=1e-3)
    assert shape.skewness_high - shape.skewness == pytest.approx(half, rel=1e-3)


def test_windows_of_one_image_are_one_observation():
    values = np.random.default_rng(0).gamma(1.5, size=(50, 2))
    alone = response_shape(values, [0.0, 0.0])
    copied = response_shape(values.repeat(4, axis=0), [0.0, 0.0], images=np.arange(50).repeat(4))
    width = [(each.skewness_high - each.skewness_low).to_numpy() for each in (alone, copied)]
    assert width[1] == pytest.approx(width[0], rel=1e-6)
    naive = response_shape(values.repeat(4, axis=0), [0.0, 0.0])
    assert (naive.skewness_high - naive.skewness_low < 0.6 * width[0]).all()
    one = response_shape(values, [0.0, 0.0], images=np.zeros(50))
    assert one.skewness_low.isna().all() and one.skewness.notna().all()


def test_the_interval_covers_the_skewness_of_normal_responses():
    values = np.random.default_rng(0).normal(size=(200, 2000))
    shape = response_shape(values, np.zeros(2000))
    assert ((shape.skewness_low < 0) & (shape.skewness_high > 0)).mean() == pytest.approx(0.95, abs=0.025)


def test_known_ends_count_for_the_range_alone():
    values = np.random.default_rng(0).normal(size=(30, 1))
    shape, wide = response_shape(values, [0.0]), response_shape(values, [0.0], ends=([-30.0], [10.0]))
    assert wide.share_below[0] == 0.75 and wide.lowest_sd[0] == pytest.approx(-30 / shape.sd[0])
    kept = [name for name in shape if name not in ("share_below", "lowest_sd", "highest_sd")]
    pd.testing.assert_frame_equal(shape[kept], wide[kept])


def test_share_below_is_that_of_the_range():
    found = share_below([0.0, 0.0, 0.0, 1.0], [1.0, -1.0, 5.0, 0.0], [4.0, 4.0, 4.0, 1.0])
    assert found[:3].tolist() == [0.25, 0, 1] and np.isnan(found[3])


def test_too_few_responses_and_a_wrong_blank_are_refused():
    with pytest.raises(InputError, match="responses.*3 images or more"):
        response_shape(np.zeros((2, 3)), np.zeros(3))
    with pytest.raises(InputError, match="blank.*one response for each unit"):
        response_shape(np.zeros((5, 3)), np.zeros(2))


def test_the_blank_is_the_input_of_zeros():
    layer = nn.Conv2d(1, 2, 1)
    image = torch.rand(1, 4, 4)
    blank = blank_response(nn.Sequential(layer, nn.ReLU()), "0", image)
    torch.testing.assert_close(blank, layer.bias.detach())
    assert not blank.requires_grad


def test_percentiles_among_the_units_of_all_copies():
    def table(skewness, share):
        return pd.DataFrame({"skewness": skewness, "share_below": share})

    own = table([0.0, 5.0, np.nan], [0.5, 0.1, 0.9])
    found = beside_copies(own, [table([-1.0, 1.0], [0.2, np.nan]), table([0.0, 2.0], [0.4, 0.5])])
    assert found.skewness_percentile.tolist()[:2] == [37.5, 100] and np.isnan(found.skewness_percentile[2])
    assert found.share_below_percentile.tolist() == pytest.approx([250 / 3, 0, 100])
    assert beside_copies(own, []).isna().all(axis=None)


def test_what_is_said_of_a_unit():
    shape = response_shape(*planted())
    copies = pd.DataFrame({"skewness": [-0.2, 0.3], "share_below": [0.25, 0.75]}).loc[[0] * 50 + [1] * 50]
    said = [describe_shape(shape.loc[unit], copies) for unit in range(3)]
    sides = ["its range lies on both sides", "it has no low side", "it has no high side"]
    assert all(side in line for side, line in zip(sides, said, strict=True))
    assert said[1].endswith("Share of its range below the blank: 0% (random copies: 25% to 75%).")
    assert said[2].startswith("Skewness −1.9") and "(random copies: −0.20 to 0.30)" in said[2]
    assert "percentile 100 of the images" in said[2] and "random" not in describe_shape(shape.loc[0], NONE)
    for share, side in ((0.7, "most of its range lies below it"), (0.3, "most of its range lies above it")):
        assert side in describe_shape(shape.loc[0].replace(shape.loc[0].share_below, share), NONE)
