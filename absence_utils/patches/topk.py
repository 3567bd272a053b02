"""Select patches while they stream by: the k best of every unit, and a random sample that is the same for all units.

Ties. Of two patches with the same response the one of the earlier image comes first, then the upper, then the
left one. The order is total, so what is selected from a set of images is one thing: batching, shards and the order
of merges do not matter. The random sample has no ties: its priorities are a permutation of the places.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def window_key(image: Tensor, top: Tensor, left: Tensor) -> Tensor:
    """One integer for image, top and left, in the order that decides ties (sides below 65,536 px)."""
    return (image << 32) | (top << 16) | left


def top_k(response: Tensor, place: Tensor, k: int, per_image: int) -> tuple[Tensor, Tensor]:
    """The k largest of [unit, candidate], descending, ties to the smaller place.

    At most `per_image` are of one image (0: no limit). That keeps merging exact: what it drops from a
    part has better patches of its own image in that part, and would be dropped from the whole as well.
    """
    place, by_place = place.sort(dim=1)
    response, by_response = response.gather(1, by_place).sort(dim=1, descending=True, stable=True)
    place = place.gather(1, by_response)
    if per_image:
        response, place = _limit_per_image(response, place, per_image)
    return response[:, :k], place[:, :k]


def _limit_per_image(response: Tensor, place: Tensor, per_image: int) -> tuple[Tensor, Tensor]:
    """Move what comes after the first `per_image` candidates of an image to the end, and cut it off."""
    image, by_image = (place >> 32).sort(dim=1, stable=True)
    rank = torch.arange(image.shape[1], device=image.device).expand_as(image)
    first = torch.ones_like(image, dtype=torch.bool)
    first[:, 1:] = image[:, 1:] != image[:, :-1]
    rank = rank - torch.where(first, rank, 0).cummax(dim=1).values
    surplus = torch.empty_like(image, dtype=torch.int8).scatter_(
        1, by_image, (rank >= per_image).to(torch.int8)
    )
    kept, order = surplus.sort(dim=1, stable=True)
    width = int((kept == 0).sum(dim=1).min())  # equal for all units as long as it is below k
    return response.gather(1, order)[:, :width], place.gather(1, order)[:, :width]


def _candidates(response: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of [unit, patch] and their columns, ties to the earlier column.

    torch.topk leaves the order of ties open. Response and column packed in one integer leave no ties.
    """
    response = (response + 0.0).contiguous()  # -0.0 becomes 0.0: equal numbers need equal bits
    bits = response.view(torch.int32).to(torch.int64)
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # floats in their order as integers
    columns = response.shape[1]
    packed = (ordered << 32) + torch.arange(columns - 1, -1, -1, device=response.device)
    packed = packed.topk(min(k, columns), dim=1).values
    column = columns - 1 - (packed & 0xFFFFFFFF)
    return response.gather(1, column), column


class RunningTopK:
    """The best k so far for every unit, fed with batches."""

    def __init__(self, k: int, per_image: int):
        self.k, self.per_image = k, per_image
        self.response = self.place = None

    def add(self, response: Tensor, place: Tensor) -> None:
        """Take in response [unit, patch] at place [patch], all places ascending over all batches."""
        if self.response is None:
            self.response, self.place = top_k(
                *self._shortlist(response, place.expand_as(response)), self.k, self.per_image
            )
            return
        rows = slice(None)
        if self.response.shape[1] == self.k:
            # Once there are k, a later patch must beat the last of them (a tie goes to the earlier place): after
            # some images few units have one, and only these are sorted.
            rows = (response.amax(dim=1) > self.response[:, -1]).nonzero().flatten()
            if not len(rows):
                return
        chosen = response[rows]
        value, where = self._shortlist(chosen, place.expand_as(chosen))
        value, where = torch.cat((self.response[rows], value), 1), torch.cat((self.place[rows], where), 1)
        value, where = top_k(value, where, self.k, self.per_image)
        if value.shape[1] == self.response.shape[1]:
            self.response[rows], self.place[rows] = value, where
        else:  # wider than before: then all rows took part
            self.response, self.place = value, where

    def _shortlist(self, response: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """What of one batch can be among the best k: a short list for the general rule."""
        if self.per_image:
            runs = torch.unique_consecutive(place[0] >> 32, return_counts=True)[1].tolist()
            found, start = [], 0
            for run in runs:
                value, column = _candidates(response[:, start : start + run], min(self.k, self.per_image))
                found.append((value, column + start))
                start += run
            value, column = (torch.cat(part, dim=1) for part in zip(*found, strict=True))
        else:
            value, column = _candidates(response, self.k)
        return value, place.gather(1, column)


def priority(place: Tensor, seed: int) -> Tensor:
    """A random-looking order of places, fixed by the seed: [n] int64, different for different places.

    The mixing function of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators,
    OOPSLA 2014), a permutation of the 64-bit numbers.
    """
    golden, mask = 0x9E3779B97F4A7C15, 2**64 - 1
    mixed = place.cpu().numpy().view(np.uint64) + np.uint64((seed + 1) * golden & mask)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return torch.from_numpy((mixed ^ (mixed >> np.uint64(31))).view(np.int64))


class RunningSample:
    """The `count` patches of smallest priority so far, with the responses of all units."""

    def __init__(self, count: int, seed: int):
        self.count, self.seed = count, seed
        self.priority = torch.zeros(0, dtype=torch.int64)
        self.place = torch.zeros(0, dtype=torch.int64)
        self.response = None

    def add(self, response: Tensor, place: Tensor) -> None:
        """Take in response [unit, patch] at place [patch], which lies on the CPU."""
        if self.response is None:
            self.response = response[:, :0]
        fresh = priority(place, self.seed)
        chosen = torch.arange(len(place))
        if len(self.place) == self.count:
            limit = self.priority[-1] if self.count else torch.iinfo(torch.int64).min
            chosen = (fresh < limit).nonzero().flatten()
            if not len(chosen):
                return
        rank, order = torch.cat((self.priority, fresh[chosen])).sort()
        order = order[: self.count]
        self.priority = rank[: self.count]
        self.place = torch.cat((self.place, place[chosen]))[order]
        together = torch.cat((self.response, response[:, chosen.to(response.device)]), dim=1)
        self.response = together[:, order.to(response.device)]
