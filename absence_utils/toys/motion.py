"""The motion detector of notebook 01: its moving bars, the hand-wired network, the steps of the experiment.

Sequences, weights and the choice among ties are those of the authors' release (visinf/what-is-missing,
reichardt_detector.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn

from absence_utils.attribution.evidence import absence_evidence
from absence_utils.attribution.methods import attribute
from absence_utils.errors import InputError, require_at_least
from absence_utils.images.base import IDENTITY, TensorImages
from absence_utils.patches.book import PatchBook
from absence_utils.units import Unit


@dataclass(frozen=True)
class MotionSequences:
    """Bars that move by one column a frame; each bar is as high as the image.

    Attributes:
        frames: [sequence, frame, height, width], 1 on a bar and 0 elsewhere. The sequence is the class.
        leftward: [sequence, frame, height, width], True on the bar that moves from right to left.
    """

    frames: Tensor
    leftward: Tensor
    class_names: tuple[str, ...] = ("one bar, left to right", "two bars, moving apart")

    def _in_pairs(self, values: Tensor) -> Tensor:
        return torch.stack([values[:, :-1], values[:, 1:]], dim=2).flatten(0, 1)

    def pairs(self) -> TensorImages:
        """Images [pair, 2, height, width] of consecutive frames, sequence by sequence, labelled by class."""
        images = self._in_pairs(self.frames)
        labels = torch.arange(len(self.frames)).repeat_interleave(self.frames.shape[1] - 1)
        return TensorImages(images, labels, list(self.class_names), source="motion sequences")

    def leftward_pairs(self) -> Tensor:
        """`leftward` in the pairs of `pairs`: [pair, 2, height, width]."""
        return self._in_pairs(self.leftward)

    def first_pairs(self) -> list[int]:
        """Index of every sequence's first frame pair."""
        count, step = self.frames.shape[0], self.frames.shape[1] - 1
        return list(range(0, count * step, step))


def motion_sequences(frames: int = 5, size: int = 12) -> MotionSequences:
    """One bar moving left to right (class 0), and two bars moving apart (class 1). Nothing here is random.

    The one bar starts in column 0, the two on both sides of the middle: columns 5 and 6 of 12.

    Raises:
        InputError: fewer than two frames, or so many that a bar would leave the image.
    """
    left, right = size // 2 - 1, size // 2
    require_at_least("frames", frames, 2, "fewer show no motion")
    if frames - 1 > left:
        problem = f"in {frames} frames a bar leaves the {size} columns"
        raise InputError("frames", problem, "Use fewer, or a larger size.")
    pixels = torch.zeros(2, frames, size, size)
    leftward = torch.zeros(2, frames, size, size, dtype=torch.bool)
    for t in range(frames):
        pixels[0, t, :, t] = 1
        pixels[1, t, :, right + t] = 1
        pixels[1, t, :, left - t] = 1
        leftward[1, t, :, left - t] = True
    return MotionSequences(pixels, leftward)


class MotionDetector(nn.Module):
    """Hassenstein-Reichardt motion detector with weights set by hand (the paper's first example).

    Two comparators look at two neighbouring columns of two consecutive frames. Each is excited by a bar in
    the second frame and vetoed by where that bar would have come from:

        u = second frame, left tap - first frame, right tap    fires unless the bar came from the right
        v = second frame, right tap - first frame, left tap    fires unless the bar came from the left

    Output 0 = u - v ("one bar, left to right"), output 1 = (u + v) / 2 ("two bars, moving apart"), with u
    and v rectified. One column of zeros on each side. Input [batch, frame=2, height, width], output [batch,
    2], the mean over space, signed.
    """

    normalisation = IDENTITY

    def __init__(self):
        super().__init__()
        self.comparators = nn.Conv2d(2, 2, (1, 2), padding=(0, 1), bias=False)
        self.relu = nn.ReLU()
        self.outputs = nn.Conv2d(2, 2, 1, bias=False)
        first, second, left, right = 0, 1, 0, 1
        with torch.no_grad():
            self.comparators.weight.zero_()
            u, v = self.comparators.weight[:, :, 0]
            u[second, left], u[first, right] = 1, -1
            v[second, right], v[first, left] = 1, -1
            self.outputs.weight.copy_(torch.tensor([[1.0, -1.0], [0.5, 0.5]])[:, :, None, None])
        self.eval().requires_grad_(False)

    def forward(self, frames: Tensor) -> Tensor:
        return self.outputs(self.relu(self.comparators(frames))).mean(dim=(2, 3))


def last_extremes(book: PatchBook, pairs: TensorImages, leftward: Tensor) -> dict[str, dict[str, list]]:
    """The highest and the lowest patch of every unit, the last of those that tie: pair by pair, row by row.

    Args:
        book: mined from `pairs`, with all patches kept.
        leftward: bool [pair, 2, height, width], see `MotionSequences`.

    Returns:
        "highest" and "lowest" -> {"pixels": [unit] crops, "leftward": [unit] masks, "response": [unit]}.
    """
    found = {}
    for side in ("highest", "lowest"):
        extremes = getattr(book, side)
        found[side] = {"pixels": [], "leftward": [], "response": extremes.response[:, 0].tolist()}
        # Ties stand in the order of their places.
        last = (extremes.response == extremes.response[:, :1]).sum(dim=1) - 1
        for unit, pick in enumerate(last.tolist()):
            top, left, height, width = extremes.box[unit, pick].tolist()
            window = (
                extremes.image[unit, pick],
                slice(None),
                slice(top, top + height),
                slice(left, left + width),
            )
            found[side]["pixels"].append(pairs.images[window])
            found[side]["leftward"].append(leftward[window])
    return found


def pair_maps(detector: MotionDetector, sequences: MotionSequences, steps: int | str) -> dict[str, Tensor]:
    """Integrated gradients of both units on every frame pair, zero baseline.

    Args:
        steps: points of the path, or "auto"; see `attribution.attribute`.

    Returns:
        "target map" and "non-target map" -> [unit, pair, frame=2, height, width], signed. The target of a unit is
        the sequence of its own class.
    """
    images, count = sequences.pairs().images, sequences.frames.shape[1] - 1
    own = [attribute(Unit(detector, channel=unit), images, steps=steps) for unit in (0, 1)]
    by_sequence = torch.stack(own).unflatten(1, (2, count))  # [unit, sequence, pair, frame, height, width]
    return {
        "target map": torch.stack([by_sequence[0, 0], by_sequence[1, 1]]),
        "non-target map": torch.stack([by_sequence[0, 1], by_sequence[1, 0]]),
    }


def pair_table(maps: dict[str, Tensor], leftward: Tensor) -> pd.DataFrame:
    """Absence evidence of every map of `pair_maps`, and how much of it lies on the bar that moves right to left.

    Args:
        leftward: bool [pair, 2, height, width] of both sequences, see `MotionSequences.leftward_pairs`.

    Returns:
        Tidy: unit, view, pair (from 1), sum, absence evidence, of it on that bar, all in units of the response.
    """
    records = []
    for view, by_unit in maps.items():
        for unit, pairs in enumerate(by_unit):
            sequence = unit if view == "target map" else 1 - unit
            bars = leftward.unflatten(0, (2, -1))[sequence]
            evidence, on_bar = (absence_evidence(part).sum(dim=(1, 2)) for part in (pairs, pairs * bars))
            for pair, signed in enumerate(pairs.sum(dim=(1, 2, 3)).tolist()):
                known = {"unit": unit, "view": view, "pair": pair + 1, "sum": signed}
                known |= {"absence evidence": float(evidence[pair]), "of it on that bar": float(on_bar[pair])}
                records.append(known)
    return pd.DataFrame(records)


def detector_views(
    sequences: MotionSequences, responses: Tensor, maps: dict[str, Tensor], extremes: dict[str, dict]
) -> list[dict]:
    """What is looked at of both units, for the first frame pair of each sequence: input, maps, extreme patches.

    Args:
        responses: [sequence, unit] to the first frame pairs.
        maps: of all frame pairs, see `pair_maps`.
        extremes: see `last_extremes`.

    Returns:
        Rows for `bar_table` and `plots.motion.motion_figure`: {"label", "pixels" [unit, frame=2, height, width],
        "leftward" the same shape, "response" [unit]}.
    """
    first, leftward = sequences.first_pairs(), sequences.leftward_pairs()
    inputs = {"pixels": sequences.pairs().images[first], "leftward": leftward[first]}
    rows = [{"label": "target input", **inputs, "response": responses.diagonal()}]
    for view, at in (("target map", first), ("non-target map", first[::-1])):
        pixels = maps[view][:, 0]
        rows.append(
            {"label": view, "pixels": pixels, "leftward": leftward[at], "response": pixels.sum((1, 2, 3))}
        )
    return rows + [{"label": f"{side} patch", **found} for side, found in extremes.items()]


def bar_table(rows: list[dict]) -> pd.DataFrame:
    """Where the bar that moves right to left is seen, and how much absence evidence lies on it.

    Args:
        rows: as for `plots.motion.motion_figure`.

    Returns:
        Indexed by unit and view: response or sum, bar in view, and for maps the absence evidence and the
        part of it on that bar, in units of the response.
    """
    records = []
    for row in rows:
        for unit in range(2):
            mask, pixels = row["leftward"][unit], row["pixels"][unit]
            record = {"unit": unit, "view": row["label"], "response or sum": float(row["response"][unit])}
            record["bar in view"] = bool(mask.any())
            if row["label"].endswith("map"):
                record["absence evidence"] = float(absence_evidence(pixels[None]).sum())
                record["of it on that bar"] = float(absence_evidence((pixels * mask)[None]).sum())
            records.append(record)
    return pd.DataFrame(records).set_index(["unit", "view"])


def moving_bars(steps: list[int], size: int = 12) -> Tensor:
    """One bar as high as the image that moves by `steps` columns from frame 1 to frame 2: [step, frame=2, size, size].

    Positive steps go from left to right, 0 stands still. In frame 1 the bar is in the middle.

    Raises:
        InputError: a step that leaves the image.
    """
    start = size // 2
    frames = torch.zeros(len(steps), 2, size, size)
    for k, step in enumerate(steps):
        if not 0 <= start + step < size:
            raise InputError("steps", f"{step} columns leave an image of {size}", "Use smaller steps.")
        frames[k, 0, :, start] = 1
        frames[k, 1, :, start + step] = 1
    return frames
