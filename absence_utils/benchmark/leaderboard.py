"""Which explanation method finds which absence: methods against planted and measured truth, over several networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy import stats
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from .benchmark_methods import GROUPS, MAPS, METHODS, Method, Subject
from .benchmark_networks import KINDS, SEEDS, TWIN_RULES, load_benchmark_network
from .errors import InputError
from .record import progress
from .scenes import (
    CONCEPTS,
    NORMALISATION,
    RULES,
    average_causal_effect,
    counterfactual_pairs,
    draw_presence,
    render_scenes,
)

HIDDEN = "block4"
RECALL = 0.8  # false alarms are counted where this share of the planted absences is found


@dataclass(frozen=True)
class Setting:
    """How much of everything.

    Attributes:
        seeds: networks of each kind, 1 to 5.
        scenes: random scenes for the methods.
        images_for_maps: scenes of each side that map methods look at.
        steps: of synthesis.
        hidden: units of block4, evenly spread; 0 leaves hidden units out.
        pairs: counterfactual pairs for each concept for the measured truth.
    """

    seeds: int = 1
    scenes: int = 256
    images_for_maps: int = 24
    steps: int = 48
    hidden: int = 12
    pairs: int = 200

    def __post_init__(self):
        if not 1 <= self.seeds <= SEEDS:
            raise InputError("seeds", f"{self.seeds}", f"Use 1 to {SEEDS}: so many networks ship.")
        for name, least in (
            ("scenes", 64),
            ("images_for_maps", 2),
            ("steps", 1),
            ("hidden", 0),
            ("pairs", 2),
        ):
            if getattr(self, name) < least:
                raise InputError(name, f"{getattr(self, name)}", f"Use {least} or more.")


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


def subject_of(kind: str, seed: int, layer: str | None, units: list[int], setting: Setting) -> Subject:
    """A network's units with random scenes: target inputs of an output are those in which its rule holds, of a hidden
    unit those above its median."""
    model, (_, truth, _) = load_benchmark_network(kind, seed), KINDS[kind]
    presence = draw_presence(setting.scenes, 600 + seed)
    scenes = render_scenes(presence, 600 + seed)
    subject = Subject(
        model, layer, units, scenes, torch.zeros(0), load_benchmark_network("detector"), seed,
        setting.images_for_maps, setting.steps,
    )  # fmt: skip
    if layer is None:
        subject.target = truth(presence)[:, units]
    else:
        subject.target = subject.response > subject.response.median(dim=0).values
    return subject


# ---------------------------------------------------------------------- scores
def ranked_above(positives: np.ndarray, others: np.ndarray) -> float:
    """AUROC: the share of (positive, other) in which the positive has the larger value; a tie counts half, and so does
    a NaN on either side, which says nothing."""
    difference = positives[:, None] - others[None, :]
    return float(np.where(np.isnan(difference), 0.5, (np.sign(difference) + 1) / 2).mean())


def mean_precision(truth: np.ndarray, said: np.ndarray, draws: int = 50) -> float:
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
        "AUROC": ranked_above(said[absent], said[~absent]),
        "average precision": mean_precision(absent, said),
        "sign accuracy": agrees.mean().item(),
        "false alarms": float(alarms.mean()),
    }


def map_scores(subject: Subject, name: str, function: Callable) -> dict[str, float]:
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


def run_benchmark(
    setting: Setting | None = None, methods: dict[str, Method] | None = None, maps: dict | None = None
) -> pd.DataFrame:
    """Every method on every network.

    Args:
        setting: `Setting()` if None.
        methods: name to method, `METHODS` if None.
        maps: name to map method for the pixel scores, `MAPS` if None; listed under "NAME, non-target".

    Returns:
        Columns seed, method, score, value; scores as in `output_scores`, `map_scores`, and "hidden correlation".
    """
    setting = setting or Setting()
    methods, maps = METHODS if methods is None else methods, MAPS if maps is None else maps
    return pd.concat(
        [run_seed(seed, setting, methods, maps) for seed in range(setting.seeds)], ignore_index=True
    )


def run_seed(seed: int, setting: Setting, methods: dict[str, Method], maps: dict) -> pd.DataFrame:
    """Every method on the networks of one seed, see `run_benchmark`."""
    outputs, rows = list(range(len(RULES))), []
    own, twin = (subject_of(kind, seed, None, outputs, setting) for kind in ("rules", "twin"))
    hidden, effects = None, None
    if setting.hidden:
        units = np.linspace(0, 63, setting.hidden).round().astype(int).tolist()
        hidden = subject_of("rules", seed, HIDDEN, units, setting)
        table = measured_effects(own.model, HIDDEN, setting.pairs)
        wide = table.pivot(index="unit", columns="concept", values="effect")[list(CONCEPTS)]
        effects = torch.tensor(wide.to_numpy())[units]
    for name, method in progress(methods.items(), f"seed {seed}", len(methods)):
        scores = output_scores(method(own), method(twin))
        if hidden is not None:
            scores["hidden correlation"] = hidden_correlation(method(hidden), effects)
        short = name.removesuffix(", non-target")
        if short in maps and name.endswith("non-target"):
            scores |= map_scores(own, short, maps[short])
        rows += [(seed, name, score, value) for score, value in scores.items()]
    return pd.DataFrame(rows, columns=["seed", "method", "score", "value"])


def leaderboard(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and 95 % t interval over networks for each method and score, best AUROC first.

    Columns method, score, mean, low, high, networks; the interval is NaN for one network and clipped to the score's
    range.
    """
    rows = []
    for (method, score), group in table.groupby(["method", "score"], sort=False):
        mean, count = group.value.mean(), len(group)
        least = -1.0 if score == "hidden correlation" else 0.0
        low = high = np.nan
        if count > 1:
            half = stats.t.ppf(0.975, count - 1) * group.value.std(ddof=1) / count**0.5
            low, high = max(mean - half, least), min(mean + half, 1.0)
        rows.append((method, score, mean, low, high, count))
    found = pd.DataFrame(rows, columns=["method", "score", "mean", "low", "high", "networks"])
    order = found[found.score == "AUROC"].sort_values("mean", ascending=False, kind="stable").method.tolist()
    return found.sort_values("method", key=lambda names: names.map(order.index), kind="stable").reset_index(
        drop=True
    )


def by_group(board: pd.DataFrame) -> pd.DataFrame:
    """Mean of every score over the methods of each of `benchmark_methods.GROUPS`: [group, score]."""
    wide = board.pivot(index="method", columns="score", values="mean")
    return pd.DataFrame({name: wide.reindex(methods).mean() for name, methods in GROUPS.items()}).T
