"""A quantile sketch for every unit at once: counts in buckets of equal relative width, merged by adding.

In the manner of DDSketch (Masson, Rim, Lee: DDSketch: a fast and fully-mergeable quantile sketch with relative-error
guarantees, PVLDB 12, 2019). The bucket of a number is read off its float32 bits: sign, exponent, first five bits of
the mantissa. Counts are whole numbers, so that any order of batches and of merges gives the same sketch exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor

from absence_utils.errors import InputError

MANTISSA = 5  # bits, so 32 buckets for every factor of two
EXPONENTS = (-22, 14)  # magnitudes from 2**-22 to below 2**14 have buckets of their own
RELATIVE_ERROR = 1 / (2 ** (MANTISSA + 1) + 1)  # half the width of the widest bucket, relative to its middle
SMALLEST = 2.0 ** EXPONENTS[0]  # what is nearer to zero counts as zero

_SIDE = (EXPONENTS[1] - EXPONENTS[0]) << MANTISSA  # buckets of one sign
BUCKETS = 2 * _SIDE + 1  # negative ones from far to near, zero, positive ones from near to far
_MOST = 2**31 - 1


def bucket_of(response: Tensor) -> Tensor:
    """Bucket of every float32 number, 0 to BUCKETS - 1, in the order of the numbers."""
    bits = response.contiguous().view(torch.int32)
    distance = (bits & 0x7FFFFFFF) >> (23 - MANTISSA)  # buckets counted from 2**-127 on
    distance = (distance - ((127 + EXPONENTS[0]) << MANTISSA) + 1).clamp(0, _SIDE)
    return _SIDE + torch.where(bits < 0, -distance, distance)


def middles() -> Tensor:
    """[bucket] the number that is at most RELATIVE_ERROR away from every number of its bucket, float64."""
    position = torch.arange(_SIDE, dtype=torch.float64)
    step = 2.0**-MANTISSA
    exponent = torch.floor(position * step)
    low = 2.0 ** (exponent + EXPONENTS[0]) * (1 + position * step - exponent)
    high = low + 2.0 ** (exponent + EXPONENTS[0]) * step
    positive = 2 * low * high / (low + high)
    return torch.cat((-positive.flip(0), torch.zeros(1, dtype=torch.float64), positive))


class RunningSketch:
    """Counts [unit, bucket] so far, fed with batches."""

    def __init__(self):
        self.counts = None

    def add(self, response: Tensor) -> None:
        """Take in response [unit, patch], float32."""
        units = len(response)
        if self.counts is None:
            self.counts = torch.zeros(units, BUCKETS, dtype=torch.int32, device=response.device)
        start = torch.arange(0, units * BUCKETS, BUCKETS, device=response.device)
        flat = (bucket_of(response) + start[:, None]).flatten()
        self.counts.view(-1).scatter_add_(0, flat, flat.new_ones((), dtype=torch.int32).expand(len(flat)))


def merged(a: Tensor, b: Tensor) -> Tensor:
    """Counts of both, [unit, bucket] int32.

    Raises:
        InputError: more patches than a count can hold.
    """
    if len(a) and int(a[0].sum()) + int(b[0].sum()) > _MOST:
        raise InputError("other", f"together more than {_MOST} patches", "Merge fewer books.")
    return a + b


def quantile(counts: Tensor, q: float) -> Tensor:
    """[unit] the q-quantile from counts [unit, bucket]: the response of rank floor(q * (patches - 1)), float32.

    At most RELATIVE_ERROR away, for magnitudes of 2**-22 to 2**14; what is nearer to zero counts as zero, what
    is further away as the last bucket.

    Raises:
        InputError: q lies outside 0 to 1.
    """
    if isinstance(q, bool) or not isinstance(q, (int, float)) or not 0 <= q <= 1:
        raise InputError("q", f"{q!r} is no quantile", "Give a number from 0 to 1.")
    reached = counts.cumsum(dim=1, dtype=torch.int64)
    rank = int(q * (int(reached[0, -1]) - 1))
    bucket = (reached <= rank).sum(dim=1)
    return middles()[bucket].float()
