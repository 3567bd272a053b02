"""Which explanation method finds which absence: methods against planted and measured truth, over several networks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy import stats

from absence_utils.errors import InputError, require_at_least
from absence_utils.images.scenes import CONCEPTS, RULES, draw_presence, render_scenes
from absence_utils.progress import progress

from .effects import measured_effects
from .methods import GROUPS, MAPS, METHODS, BenchmarkTask, Method
from .networks import KINDS, SEEDS, load_benchmark_network
from .scores import hidden_correlation, map_scores, output_scores

HIDDEN, UNITS = "block4", 64  # a layer, and how many units it has


@dataclass(frozen=True)
class BenchmarkConfig:
    """How much of everything.

    Attributes:
        seeds: networks of each kind, 1 to 5.
        scenes: random scenes for the methods.
        images_for_maps: scenes of each side that map methods look at.
        steps: of synthesis.
        hidden: units of block4, evenly spread, at most 64; 0 leaves hidden units out.
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
        least = {"scenes": 64, "images_for_maps": 2, "steps": 1, "hidden": 0, "pairs": 2}
        for name, value in least.items():
            require_at_least(name, getattr(self, name), value)
        if self.hidden > UNITS:
            raise InputError("hidden", f"{self.hidden}", f"Use 0 to {UNITS}: so many units {HIDDEN} has.")


def task_of(
    kind: str, seed: int, layer: str | None, units: list[int], setting: BenchmarkConfig
) -> BenchmarkTask:
    """A network's units with random scenes: target inputs of an output are those in which its rule holds, of a hidden
    unit those above its median."""
    model, (_, truth, _) = load_benchmark_network(kind, seed), KINDS[kind]
    presence = draw_presence(setting.scenes, 600 + seed)
    scenes = render_scenes(presence, 600 + seed)
    subject = BenchmarkTask(
        model, layer, units, scenes, torch.zeros(0), load_benchmark_network("detector"), seed,
        setting.images_for_maps, setting.steps,
    )  # fmt: skip
    if layer is None:
        subject.target = truth(presence)[:, units]
    else:
        subject.target = subject.response > subject.response.median(dim=0).values
    return subject


def run_benchmark(
    setting: BenchmarkConfig | None = None, methods: dict[str, Method] | None = None, maps: dict | None = None
) -> pd.DataFrame:
    """Every method on every network.

    Args:
        setting: `BenchmarkConfig()` if None.
        methods: name to method, `METHODS` if None.
        maps: name to map method for the pixel scores, `MAPS` if None; listed under "NAME, non-target".

    Returns:
        Columns seed, method, score, value; scores as in `output_scores`, `map_scores`, and "hidden correlation".
    """
    setting = setting or BenchmarkConfig()
    methods, maps = METHODS if methods is None else methods, MAPS if maps is None else maps
    parts = [run_seed(seed, setting, methods, maps) for seed in range(setting.seeds)]
    return pd.concat(parts, ignore_index=True)


def run_seed(seed: int, setting: BenchmarkConfig, methods: dict[str, Method], maps: dict) -> pd.DataFrame:
    """Every method on the networks of one seed, see `run_benchmark`."""
    outputs, rows = list(range(len(RULES))), []
    own, twin = (task_of(kind, seed, None, outputs, setting) for kind in ("rules", "twin"))
    hidden, effects = None, None
    if setting.hidden:
        units = np.linspace(0, UNITS - 1, setting.hidden).round().astype(int).tolist()
        hidden = task_of("rules", seed, HIDDEN, units, setting)
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
    ranked = found.sort_values("method", key=lambda names: names.map(order.index), kind="stable")
    return ranked.reset_index(drop=True)


def by_group(board: pd.DataFrame) -> pd.DataFrame:
    """Mean of every score over the methods of each of `methods.GROUPS`: [group, score]."""
    wide = board.pivot(index="method", columns="score", values="mean")
    return pd.DataFrame({name: wide.reindex(methods).mean() for name, methods in GROUPS.items()}).T
