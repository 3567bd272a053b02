"""Methods of the benchmark that know concepts by labels: linear probes on a layer, and derivatives along them."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from scipy import stats
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from .effects import read
from .tasks import BenchmarkTask

PROBED = "block4"  # of every network here
VECTORS, AT_RANDOM = 10, 30  # of TCAV, of each concept and of random scenes
EXAMPLES = 48  # scenes on either side of a vector
LEVEL = 0.05


def _slopes(task: BenchmarkTask) -> Tensor:
    """[unit, image, channel] derivative of each unit when a channel of the probed layer moves everywhere."""
    if "slopes" in task.memory:
        return task.memory["slopes"]
    images, kept = task.images[: 2 * task.images_for_maps].clone().requires_grad_(True), []
    units = [task.unit(index) for index in range(len(task.units))]
    handle = task.model.get_submodule(PROBED).register_forward_hook(lambda _, __, output: kept.append(output))
    try:
        with torch.enable_grad():
            slopes = []
            for unit in units:
                value = unit.response(images).sum()
                # The first reading of a layer tries it before: the last output kept is that of the pass itself.
                slopes.append(torch.autograd.grad(value, kept[-1])[0].sum(dim=(2, 3)))
    finally:
        handle.remove()
    task.memory["slopes"] = torch.stack(slopes).double()
    return task.memory["slopes"]


def _features(task: BenchmarkTask) -> tuple[np.ndarray, np.ndarray]:
    """[scene, channel] mean responses of the probed layer, standardised, and their [channel] spread."""
    features = read(task.model, PROBED, task.images)
    spread = features.std(dim=0).clamp(min=1e-9)
    return ((features - features.mean(dim=0)) / spread).numpy(), spread.numpy()


def _direction(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[channel] coefficients of a linear probe, NaN where all labels are the same."""
    if labels.min() == labels.max():
        return np.full(features.shape[1], np.nan)
    return LogisticRegression(C=0.1, max_iter=500).fit(features, labels).coef_[0]


def concept_probe(task: BenchmarkTask) -> Tensor:
    """Concept activation vector (Kim et al., ICML 2018): a linear probe for each concept on the mean responses of
    block4; minus the mean derivative of the unit along it, in sd of the unit. NaN for a concept that all scenes show or
    none."""
    features, spread = _features(task)
    labels = task.scenes.presence.numpy().T
    fits = [_direction(features, label) * spread for label in labels]
    vectors = torch.tensor(np.array(fits))  # [concept, channel], in the units of the layer
    return -(_slopes(task).mean(dim=1) @ vectors.T) / task.spread[:, None]


def tcav(task: BenchmarkTask) -> Tensor:
    """TCAV with its test (Kim et al., ICML 2018): on how many target inputs does a step to the concept lower the unit?

    Ten vectors for each concept, its scenes against random ones, and thirty of random scenes against others (with ten,
    the test could not call even a linear unit along its own direction: half of the random shares are 1). 1 minus twice
    the share of target inputs on which the derivative is positive, mean over the concept's vectors; 0 where a t-test
    cannot tell the concept's shares from the random ones (5%, Bonferroni over concepts). NaN for a unit that has no
    target inputs, and for a concept that no scene shows. The vectors of a concept share scenes where there are few, so
    the test calls more than 5%.
    """
    features, spread = _features(task)
    generator, presence = np.random.default_rng([task.seed, 17]), task.scenes.presence.numpy()
    slopes = _slopes(task)
    inputs = task.target[: slopes.shape[1]].T

    def shares(positives: np.ndarray, vectors: int) -> np.ndarray:
        """[vector, unit] share of target inputs with a positive derivative."""
        found = []
        for _ in range(vectors):
            shown = generator.permutation(positives)[:EXAMPLES]
            others = generator.permutation(np.setdiff1d(np.arange(len(features)), shown))[:EXAMPLES]
            labels = np.repeat([1, 0], [len(shown), len(others)])
            vector = torch.tensor(_direction(features[np.r_[shown, others]], labels) * spread)
            along = torch.where(inputs, slopes @ vector, torch.nan)  # [unit, image]
            found.append(torch.where(along.isnan(), along, (along > 0).double()).nanmean(dim=1).numpy())
        return np.array(found)

    at_random, columns = shares(np.arange(len(features)), AT_RANDOM), []
    for column in range(len(task.concepts)):
        share = shares(np.flatnonzero(presence[:, column]), VECTORS)
        with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # shares that are all the same
            p = stats.ttest_ind(share, at_random, equal_var=False).pvalue * len(task.concepts)
        value = 1 - 2 * share.mean(axis=0)
        columns.append(np.where(np.isnan(value), np.nan, np.where(p < LEVEL, value, 0.0)))
    return torch.tensor(np.array(columns)).T
