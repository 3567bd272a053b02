"""The quantile sketch: against sorted numbers in float64, exact under any grouping, small."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from absence_utils import InputError
from absence_utils.patches.quantile_sketch import (
    BUCKETS,
    EXPONENTS,
    RELATIVE_ERROR,
    SMALLEST,
    RunningSketch,
    bucket_of,
    merged,
    middles,
    quantile,
)


def slow_bucket(value: float) -> int:
    """By the definition: 32 buckets of equal width between neighbouring powers of two."""
    side = 32 * (EXPONENTS[1] - EXPONENTS[0])
    if abs(value) < 2.0 ** EXPONENTS[0]:
        return side
    exponent = math.floor(math.log2(abs(value)))
    while 2.0**exponent > abs(value):
        exponent -= 1
    while 2.0 ** (exponent + 1) <= abs(value):
        exponent += 1
    distance = 32 * (exponent - EXPONENTS[0]) + math.floor(32 * (abs(value) / 2.0**exponent - 1)) + 1
    return side + int(math.copysign(min(distance, side), value))


numbers = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)  # start_run flushes them to zero


@settings(max_examples=300, deadline=None)
@given(numbers)
def test_bucket_follows_the_definition(value):
    assert bucket_of(torch.tensor([value])).item() == slow_bucket(value)


@settings(max_examples=200, deadline=None)
@given(numbers.filter(lambda value: abs(value) < 2.0 ** EXPONENTS[1]))
def test_middle_of_a_bucket_is_near_all_its_numbers(value):
    middle = middles()[bucket_of(torch.tensor([value]))].item()
    assert abs(middle - value) <= max(RELATIVE_ERROR * abs(value) * (1 + 1e-9), SMALLEST)


def test_buckets_are_in_order_and_the_error_is_reached():
    edges = torch.tensor([2.0**e * (1 + j / 32) for e in range(*EXPONENTS) for j in range(32)])
    assert bucket_of(edges).tolist() == list(range(BUCKETS // 2 + 1, BUCKETS))
    assert bucket_of(-edges).tolist() == list(range(BUCKETS // 2 - 1, -1, -1))
    assert (middles().diff() > 0).all()
    worst = ((middles()[bucket_of(edges)] - edges) / edges).max().item()
    assert worst == pytest.approx(RELATIVE_ERROR, rel=1e-6)  # no smaller number could be promised


@pytest.mark.parametrize("q", [0, 0.01, 0.25, 0.5, 0.9, 1])
def test_quantiles_of_sorted_numbers(q):
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([1e-3, 1.0, 50.0, 2000.0])[:, None]
    response = torch.randn(4, 999, generator=generator) * scale + torch.tensor([0.0, 1, -30, 500])[:, None]
    running = RunningSketch()
    for part in response.split(100, dim=1):
        running.add(part)
    expected = np.sort(response.double().numpy(), axis=1)[:, int(q * 998)]
    found = quantile(running.counts, q).double().numpy()
    assert (np.abs(found - expected) <= RELATIVE_ERROR * 1.000001 * np.abs(expected) + SMALLEST).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(numbers, min_size=2, max_size=30), st.data())
def test_merging_is_adding(values, data):
    response = torch.tensor([values, values[::-1]])
    whole, parts = RunningSketch(), []
    whole.add(response)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(values) - 1))))
    for part in torch.tensor_split(response, cuts, dim=1):
        running = RunningSketch()
        running.add(part)
        parts.append(running.counts)
    total = parts[0]
    for part in data.draw(st.permutations(parts[1:])):
        total = merged(part, total)
    assert torch.equal(total, whole.counts)
    assert total.sum(dim=1).tolist() == [len(values)] * 2


def test_it_is_small_and_says_when_it_is_full():
    assert 2048 * BUCKETS * 4 < 20e6
    full = torch.zeros(1, BUCKETS, dtype=torch.int32)
    full[0, 7] = 2**31 - 1
    with pytest.raises(InputError, match="other.*2147483647 patches"):
        merged(full, torch.ones_like(full))


@pytest.mark.parametrize("q", [-0.1, 1.5, float("nan"), "0.5", True])
def test_a_quantile_lies_between_0_and_1(q):
    with pytest.raises(InputError, match="q.*0 to 1"):
        quantile(torch.ones(1, BUCKETS, dtype=torch.int32), q)
