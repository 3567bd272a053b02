"""Measured effects: what showing a concept does to a unit, from exact counterfactual pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor, nn

from absence_utils.errors import InputError
from absence_utils.images.scenes import (
    CONCEPTS,
    NORMALISATION,
    RULES,
    Scenes,
    concept_index,
    counterfactual_pairs,
    draw_presence,
)
from absence_utils.units import responses

from .networks import TWIN_RULES


@dataclass
class CausalEffect:
    """Average change of every unit of a layer when one concept is added, over exact counterfactual pairs.

    Attributes:
        mean: [unit], in the units of the layer, or in standard deviations if standardised.
        standard_error: [unit], of the mean over pairs.
    """

    mean: Tensor
    standard_error: Tensor


@torch.no_grad()
def average_causal_effect(
    model: nn.Module, layer: str | None, concept: str, n: int = 200, seed: int = 0, standardise: bool = False
) -> CausalEffect:
    """Mean of f_u(scene with the concept) - f_u(same scene without) for every unit u of a layer.

    Negative: the unit encodes the absence of the concept (definition 2.1 of the paper, measured).

    Args:
        model, layer: see `units.responses`; responses are signed and averaged over space.
        concept: its name ("cross") or letter ("B").
        n: number of pairs, at least 2.
        seed: of the pairs.
        standardise: divide by each unit's standard deviation over n scenes with the usual presence of all
            concepts; a unit that never changes gets 0.

    Raises:
        InputError: unknown concept or layer; n below 2.
    """
    if n < 2:
        raise InputError("n", f"{n} pairs", "Ask for at least 2: the error is estimated from their spread.")

    def read(scenes: Scenes) -> Tensor:
        parts = NORMALISATION.apply(scenes.pixels).split(256)
        return torch.cat([responses(model, layer, part).double().cpu() for part in parts])

    shown, hidden = (read(scenes) for scenes in counterfactual_pairs(concept, n, seed))
    change = shown - hidden
    scale = 1.0
    if standardise:  # every scene of the usual mixture is one half of its pair
        usual = draw_presence(n, seed)[:, concept_index(concept)]
        scale = torch.where(usual[:, None], shown, hidden).std(dim=0).clamp(min=1e-12)
    return CausalEffect(change.mean(dim=0) / scale, change.std(dim=0) / n**0.5 / scale)


def planted_signs(kind: str) -> Tensor:
    """Sign of the planted effect of each concept on each output: [output, concept] of -1 (absence), 0, +1."""
    rules = {"rules": RULES, "twin": TWIN_RULES}[kind]
    signs = torch.zeros(len(rules), len(CONCEPTS), dtype=torch.long)
    for row, rule in enumerate(rules.values()):
        for names, sign in ((rule.present, 1), (rule.absent, -1)):
            for name in names:
                signs[row, CONCEPTS.index(name)] = sign
    return signs


def measured_effects(model, layer: str | None, pairs: int, seed: int = 500) -> pd.DataFrame:
    """Average causal effect of every concept on every unit of a layer, from exact counterfactual pairs, in sd.

    Columns unit, concept, effect, low, high (95 %, normal over pairs). Negative: an encoded absence (definition 2.1).
    """
    tables = []
    for concept in CONCEPTS:
        found = average_causal_effect(model, layer, concept, pairs, seed, standardise=True)
        half = stats.norm.ppf(0.975) * found.standard_error
        columns = {"effect": found.mean, "low": found.mean - half, "high": found.mean + half}
        tables.append(pd.DataFrame({"unit": range(len(found.mean)), "concept": concept, **columns}))
    return pd.concat(tables, ignore_index=True)


@torch.no_grad()
def effects_everywhere(model: nn.Module, pairs: int, seed: int = 500) -> pd.DataFrame:
    """As `measured_effects`, for all units of all convolutions and linear layers, each pair through the network once.

    Column layer in addition. Every such layer is read before its nonlinearity, averaged over space.
    """
    layers = [name for name, module in model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    tables = []
    for concept in CONCEPTS:
        shown, hidden = (
            _read_all(model, layers, NORMALISATION.apply(scenes.pixels))
            for scenes in counterfactual_pairs(concept, pairs, seed)
        )
        # one half of each pair is the usual scene
        usual = draw_presence(pairs, seed)[:, CONCEPTS.index(concept), None]
        for layer in layers:
            change = shown[layer] - hidden[layer]
            scale = torch.where(usual, shown[layer], hidden[layer]).std(dim=0).clamp(min=1e-12)
            mean, error = change.mean(dim=0) / scale, change.std(dim=0) / pairs**0.5 / scale
            half = stats.norm.ppf(0.975) * error
            columns = {"effect": mean, "low": mean - half, "high": mean + half}
            tables.append(
                pd.DataFrame({"layer": layer, "unit": range(len(mean)), "concept": concept, **columns})
            )
    return pd.concat(tables, ignore_index=True)


def _read_all(model: nn.Module, layers: list[str], images: Tensor) -> dict[str, Tensor]:
    """[image, unit] responses of several layers from one pass, float64."""
    kept = {layer: [] for layer in layers}

    def keep(layer, output):
        values = output.double().cpu()
        kept[layer].append(values.mean(dim=(2, 3)) if values.ndim == 4 else values)

    handles = [
        model.get_submodule(layer).register_forward_hook(
            lambda _, __, output, layer=layer: keep(layer, output)
        )
        for layer in layers
    ]
    try:
        for part in images.split(256):
            model(part)
    finally:
        for handle in handles:
            handle.remove()
    return {layer: torch.cat(parts) for layer, parts in kept.items()}


def absences_by_layer(effects: pd.DataFrame, clear: float = 0.25) -> pd.DataFrame:
    """For each layer: its units, and the shares of units that have a clear absence and whose strongest effect is one.

    Args:
        effects: as `effects_everywhere` gives them.
        clear: an effect is clear beyond this many standard deviations.
    """
    rows = []
    for layer, group in effects.groupby("layer", sort=False):
        wide = group.pivot(index="unit", columns="concept", values="effect").to_numpy()
        strongest = wide[np.arange(len(wide)), np.abs(wide).argmax(axis=1)]
        rows.append((layer, len(wide), (wide < -clear).any(axis=1).mean(), (strongest < -clear).mean()))
    return pd.DataFrame(rows, columns=["layer", "units", "with a clear absence", "strongest effect is one"])
