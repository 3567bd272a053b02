"""Scores of methods against the truth, one number for each true absence, so that rules can be drawn again.

Two tables go in. *Answers*: a row for each method, network, layer and pair of unit and concept, with what the method
says and what is true. *Findings*: a row for each method and planted absence, with what its windows and maps are worth.
*Outcomes* come out: a row for each method, absence and score; NaN where the method says nothing of that absence. The
score of a method is the mean of its outcomes, its coverage the share that are no NaN.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score
from torch import Tensor

from .tasks import BenchmarkTask

RECALL = 0.8  # false alarms are counted where this share of the planted absences is found
OUTPUTS = "outputs"
PAIR = ["network", "layer", "unit", "concept"]
ANSWERS = ["method", "network", "twin", "layer", "unit", "concept", "value", "truth"]
OUTCOMES = ["method", "network", "layer", "unit", "concept", "score", "value"]


def outcomes_of(answers: pd.DataFrame) -> pd.DataFrame:
    """Outcomes of the tasks sign and find by name, for every absence among the answers on networks that have any.

    Returns:
        Columns `OUTCOMES`. Scores: "AUROC", the share of the other pairs of the same network and layer, presences and
        none, that get a lower value (a tie counts half); and, among the concepts of the unit itself,
        "name, reciprocal rank", "name, recall at 1" and "name, recall at 5" (other true absences of the unit, and
        pairs that are neither, are left out; ties share the mean of their ranks).
    """
    own = answers[~answers.twin]
    tables = [
        _of_layer(group).assign(method=method, network=network, layer=layer)
        for (method, network, layer), group in own.groupby(["method", "network", "layer"], sort=False)
    ]
    return pd.concat(tables, ignore_index=True)[OUTCOMES]


def _of_layer(group: pd.DataFrame) -> pd.DataFrame:
    said, truth, unit = group.value.to_numpy(), group.truth.to_numpy(), group.unit.to_numpy()
    other, rows = np.isin(truth, ["presence", "none"]) & ~np.isnan(said), []
    for index in np.flatnonzero(truth == "absence"):
        beside, area, rank = other & (unit == unit[index]), np.nan, np.nan
        if not np.isnan(said[index]):
            area = 1 - _above(said[other], said[index]) if other.any() else np.nan
            rank = 1 + _above(said[beside], said[index]) * beside.sum() if beside.any() else np.nan
        about = (unit[index], group.concept.iloc[index])
        rows.append((*about, "AUROC", area))
        rows += [(*about, f"name, {score}", value) for score, value in _of_rank(rank).items()]
    found = pd.DataFrame(rows, columns=["unit", "concept", "score", "value"])
    return found.astype({"value": float})  # a layer without any absence has no rows, and would be of objects


def _above(values: np.ndarray, threshold: float) -> float:
    """Share of values above a threshold; those equal to it count half."""
    return float(((values > threshold) + 0.5 * (values == threshold)).mean()) if len(values) else 0.0


def _of_rank(rank: float) -> dict[str, float]:
    silent = np.isnan(rank)
    return {
        "reciprocal rank": 1 / rank,
        "recall at 1": np.nan if silent else float(rank < 1.5),
        "recall at 5": np.nan if silent else float(rank < 5.5),
    }


def window_outcomes(task: BenchmarkTask, said: Tensor, unit: int, concept: int) -> dict[str, float]:
    """How soon the first window that shows the suppressor comes when a method ranks all: reciprocal rank, recall.

    Windows of which the method says nothing (NaN) are left out; NaN where none or all of the rest show it. Ties are
    shared as in `outcomes_of`.

    Args:
        said: [unit, window], see `methods.Method`.
        unit: which of the task's units.
        concept: the suppressor's number.
    """
    known = ~said[unit].isnan().numpy()
    shows, values = task.windows.shows[:, concept].numpy()[known], said[unit].numpy()[known]
    rank, others = np.nan, values[~shows]
    if 0 < len(others) < len(values):
        rank = 1 + _above(others, values[shows].max()) * len(others)
    return {f"window, {score}": value for score, value in _of_rank(rank).items()}


def map_outcomes(task: BenchmarkTask, maps: Tensor, unit: int, concept: int) -> dict[str, float]:
    """Where the negative evidence lies on non-target inputs that show the suppressor.

    Args:
        maps: [unit, scene, height, width], see `maps`.
        unit, concept: as in `window_outcomes`.

    Returns:
        "pointing game": share of scenes whose most negative pixel lies in the suppressor's mask (not among maps that
        are nowhere negative, which miss); "mask precision": area under the precision-recall curve of the negative
        evidence, pixel by pixel, against the mask, mean over scenes. NaN without such a scene.
    """
    hits, areas = [], []
    for row in range(maps.shape[1]):
        mask = task.scenes.masks[row, concept].flatten().numpy()
        if task.target[row, unit] or not mask.any():
            continue
        negative = (-maps[unit, row].flatten()).clamp(min=0).numpy()
        hits.append(bool(negative.max() > 0 and mask[negative.argmax()]))
        areas.append(average_precision_score(mask, negative))
    if not hits:
        return {"pointing game": np.nan, "mask precision": np.nan}
    return {"pointing game": float(np.mean(hits)), "mask precision": float(np.mean(areas))}


def false_alarms(found: np.ndarray, twins: np.ndarray) -> np.ndarray:
    """Share of the twins' pairs at or above the value at which 80% of the planted absences are found.

    Silence (NaN) is neither found nor a false alarm. NaN for a method that never finds that many.

    Args:
        found: [absence, ...] what methods say of the planted absences.
        twins: [pair, ...] what they say of all pairs of the twins, which have none.

    Returns:
        [...], 0..1.
    """
    ranked, said = (np.where(np.isnan(values), -np.inf, values) for values in (found, twins))
    threshold = np.sort(ranked, axis=0)[len(ranked) - int(np.ceil(RECALL * len(ranked)))]
    return np.where(np.isneginf(threshold), np.nan, (said >= threshold).mean(axis=0))
