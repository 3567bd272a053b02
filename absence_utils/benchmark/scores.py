"""Scores of a method against the planted truth: detection, sign, localisation, rank correlation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import stats
from sklearn.metrics import average_precision_score
from torch import Tensor

from .effects import planted_signs
from .methods import BenchmarkTask

RECALL = 0.8  # false alarms are counted where this share of the planted absences is found


# ---------------------------------------------------------------------- scores
def auroc_with_abstentions(positives: np.ndarray, others: np.ndarray) -> float:
    """AUROC: the share of (positive, other) in which the positive has the larger value; a tie counts half, and so does
    a NaN on either side, which says nothing."""
    difference = positives[:, None] - others[None, :]
    return float(np.where(np.isnan(difference), 0.5, (np.sign(difference) + 1) / 2).mean())


def average_precision_with_abstentions(truth: np.ndarray, said: np.ndarray, draws: int = 50) -> float:
    """Average precision of `said` for `truth`, with NaN put at random places of the ranking, mean over draws."""
    silent, generator, found = np.isnan(said), np.random.default_rng(0), []
    if not silent.any():
        return float(average_precision_score(truth, said))
    ranks = stats.rankdata(said[~silent])  # uniform among ranks, not among values, which may have a long tail
    for _ in range(draws):
        values = np.empty(len(said))
        values[~silent] = ranks
        values[silent] = generator.uniform(0.5, len(ranks) + 0.5, silent.sum())
        found.append(average_precision_score(truth, values))
    return float(np.mean(found))


def output_scores(found: Tensor, twin: Tensor) -> dict[str, float]:
    """How well a method tells the planted absences of a network's outputs.

    Args:
        found: [output, concept] what it says of a network on the scenes' rules.
        twin: [output, concept] what it says of the twin.

    Returns:
        AUROC and average precision for "is this pair an absence" over all pairs; sign accuracy over the planted pairs
        (silence counts half); false alarms, the share of the twin's pairs at or above the value at which 80 % of the
        planted absences are found. A method that is silent about so many that it never finds them would have to call
        every pair: its share is 1.
    """
    signs = planted_signs("rules")
    absent = (signs < 0).flatten().numpy()
    said, planted = found.flatten().double().numpy(), signs != 0
    agrees = (found[planted].sign() == -signs[planted]).double()
    agrees[found[planted].isnan() | (found[planted] == 0)] = 0.5
    ranked = np.sort(np.nan_to_num(said[absent], nan=-np.inf))[::-1]
    threshold = ranked[int(np.ceil(RECALL * len(ranked))) - 1]
    alarms = np.nan_to_num(twin.flatten().double().numpy(), nan=-np.inf) >= threshold
    return {
        "AUROC": auroc_with_abstentions(said[absent], said[~absent]),
        "average precision": average_precision_with_abstentions(absent, said),
        "sign accuracy": agrees.mean().item(),
        "false alarms": float(alarms.mean()),
    }


def map_scores(subject: BenchmarkTask, name: str, function: Callable) -> dict[str, float]:
    """Where the negative evidence lies on non-target inputs that show the concept whose absence was planted.

    Returns:
        pointing game: share of images whose most negative pixel lies in the concept's mask (not among maps that are
            nowhere negative, which miss); mask precision: area under the precision-recall curve of the negative
            evidence, pixel by pixel, against the mask, mean over images.
    """
    signs, hits, areas = planted_signs("rules"), [], []
    for unit, column in (signs < 0).nonzero().tolist():
        index = subject.units.index(unit)
        rows, maps = subject.maps(name, function, index, False)
        for row, values in zip(rows.tolist(), maps, strict=True):
            mask = subject.scenes.masks[row, column].flatten()
            if not mask.any():
                continue
            negative = (-values.flatten()).clamp(min=0)
            hits.append(bool(negative.max() > 0 and mask[negative.argmax()]))
            areas.append(average_precision_score(mask.numpy(), negative.double().numpy()))
    return {"pointing game": float(np.mean(hits)), "mask precision": float(np.mean(areas))}


def hidden_correlation(found: Tensor, effects: Tensor) -> float:
    """Spearman's rank correlation over units and concepts of minus what a method says with the measured effect.
    Pairs of which it says nothing are left out."""
    said, truth = (-found).flatten().double().numpy(), effects.flatten().double().numpy()
    known = ~np.isnan(said)
    if known.sum() < 3 or np.ptp(said[known]) == 0:
        return 0.0
    return float(stats.spearmanr(said[known], truth[known]).statistic)
