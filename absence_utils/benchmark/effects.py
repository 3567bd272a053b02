"""Measured effects: what showing a concept does to a unit, from exact counterfactual pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor, nn

from absence_utils.errors import require_at_least
from absence_utils.images.scenes import (
    CONCEPTS,
    NORMALISATION,
    concept_index,
    counterfactual_pairs,
    draw_presence,
    render_scenes,
)
from absence_utils.units import readings_of, responses

from .networks import KIND_RULES


@dataclass
class CausalEffect:
    """Average change of every unit of a layer when one concept is added, over exact counterfactual pairs.

    Attributes:
        mean: [unit], in the units of the layer, or in standard deviations if standardised.
        standard_error: [unit], of the mean over pairs.
    """

    mean: Tensor
    standard_error: Tensor

    @classmethod
    def of_pairs(cls, shown: Tensor, hidden: Tensor, usual: Tensor | None = None) -> CausalEffect:
        """From the responses [pair, unit] to both halves of every pair.

        Args:
            usual: [pair] bool, whether the half that shows the concept is the scene as it was drawn. Then effects are
                in standard deviations over those scenes; a unit that never changes gets 0.
        """
        change, scale = shown - hidden, 1.0
        if usual is not None:
            scale = torch.where(usual[:, None], shown, hidden).std(dim=0).clamp(min=1e-12)
        return cls(change.mean(dim=0) / scale, change.std(dim=0) / len(change) ** 0.5 / scale)

    def table(self, concept: str) -> pd.DataFrame:
        """Columns unit, concept, effect, low, high (95%, normal over pairs)."""
        half = stats.norm.ppf(0.975) * self.standard_error
        columns = {"effect": self.mean, "low": self.mean - half, "high": self.mean + half}
        return pd.DataFrame({"unit": range(len(half)), "concept": concept, **columns})


@torch.no_grad()
def read(model: nn.Module, layer: str | None, images: Tensor, how: str = "signed") -> Tensor:
    """[image, unit] responses of a layer, in parts of 256 images, float64 on the CPU."""
    return torch.cat([responses(model, layer, part, read=how).double().cpu() for part in images.split(256)])


def average_causal_effect(
    model: nn.Module,
    layer: str | None,
    concept: str,
    n: int = 200,
    seed: int = 0,
    standardise: bool = False,
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
    require_at_least("n", n, 2, "the error is estimated from the spread of the pairs")
    shown, hidden = (
        read(model, layer, NORMALISATION.apply(scenes.pixels))
        for scenes in counterfactual_pairs(concept, n, seed)
    )
    usual = draw_presence(n, seed)[:, concept_index(concept)] if standardise else None
    return CausalEffect.of_pairs(shown, hidden, usual)


def planted_signs(kind: str) -> Tensor:
    """Sign of the planted effect of each concept on each output: [output, concept] of -1 (absence), 0, +1."""
    rules = KIND_RULES[kind]
    signs = torch.zeros(len(rules), len(CONCEPTS), dtype=torch.long)
    for row, rule in enumerate(rules.values()):
        for names, sign in ((rule.present, 1), (rule.absent, -1)):
            for name in names:
                signs[row, CONCEPTS.index(name)] = sign
    return signs


def measured_effects(model, layer: str | None, pairs: int, seed: int = 500) -> pd.DataFrame:
    """Average causal effect of every concept on every unit of a layer, from exact counterfactual pairs, in sd.

    Columns unit, concept, effect, low, high (95%, normal over pairs). Negative: an encoded absence (definition 2.1).
    """
    effects = [
        average_causal_effect(model, layer, concept, pairs, seed, standardise=True).table(concept)
        for concept in CONCEPTS
    ]
    return pd.concat(effects, ignore_index=True)


def exact_effects(model, layer: str | None, pairs: int, seed: int = 500) -> pd.DataFrame:
    """As `measured_effects`, in both readings (column reading), each pair rendered once."""
    tables = []
    for concept in CONCEPTS:
        scenes = [NORMALISATION.apply(each.pixels) for each in counterfactual_pairs(concept, pairs, seed)]
        usual = draw_presence(pairs, seed)[:, concept_index(concept)]
        for reading in readings_of(layer):
            shown, hidden = (read(model, layer, images, reading) for images in scenes)
            tables.append(CausalEffect.of_pairs(shown, hidden, usual).table(concept).assign(reading=reading))
    return pd.concat(tables, ignore_index=True)


def exact_context(
    model,
    layer: str | None,
    suppressor: str,
    trigger: str,
    pairs: int = 200,
    seed: int = 500,
    how: str = "signed",
) -> CausalEffect:
    """Effect of showing the suppressor where the trigger is shown minus that where it is not, in the same scenes.

    Args:
        model, layer: see `units.responses`.
        suppressor, trigger: concepts.
        pairs, seed: scenes, of each four versions.
        how: reading, see `units.responses`.

    Returns:
        In standard deviations over the scenes as they were drawn. Negative: the suppressor lowers the unit by more
        where the trigger is, a veto. 0 for a unit that adds up what it sees.
    """
    presence = draw_presence(pairs, seed)

    def show(suppressed: bool, triggered: bool) -> Tensor:
        asked = presence.clone()
        asked[:, concept_index(suppressor)], asked[:, concept_index(trigger)] = suppressed, triggered
        return read(model, layer, NORMALISATION.apply(render_scenes(asked, seed).pixels), how)

    change = show(True, True) - show(False, True) - show(True, False) + show(False, False)
    usual = read(model, layer, NORMALISATION.apply(render_scenes(presence, seed).pixels), how)
    scale = usual.std(dim=0).clamp(min=1e-12)
    return CausalEffect(change.mean(dim=0) / scale, change.std(dim=0) / pairs**0.5 / scale)


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
        usual = draw_presence(pairs, seed)[:, CONCEPTS.index(concept)]
        for layer in layers:
            effect = CausalEffect.of_pairs(shown[layer], hidden[layer], usual)
            tables.append(effect.table(concept).assign(layer=layer))
    return pd.concat(tables, ignore_index=True)


@torch.no_grad()
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
