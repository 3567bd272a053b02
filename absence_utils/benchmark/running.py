"""Run methods on networks with random rules: what each says of every unit and concept, and what is true.

A network comes with its twin, which has no absence, and with some of its hidden units in both readings.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pandas as pd
import torch

from absence_utils.errors import InputError, require_at_least
from absence_utils.images.worlds import Scenes, World
from absence_utils.progress import progress

from .methods import METHODS, Method
from .rule_networks import DETECTOR, NAMES, TWIN, WORLDS, load_rule_network, rules_of, world_of
from .scores import ANSWERS, OUTCOMES, OUTPUTS, map_outcomes, window_outcomes
from .tasks import BenchmarkTask
from .truth import measured, output_truth, pair_effects

# Layer that is read for each reading: the outputs of pool4 are means of the rectified maps of block4.
READINGS = {"hidden, signed": "block4", "hidden, passed on": "pool4"}
UNITS = 64  # of block4


@dataclass(frozen=True)
class BenchmarkConfig:
    """How much of everything.

    Attributes:
        networks: with their twins, spread over the worlds, 1 to 40.
        scenes: random scenes for the methods.
        images_for_maps: how many of them map methods look at.
        steps: of synthesis.
        hidden: units of block4, evenly spread, at most 64, in each reading; 0 leaves hidden units out.
        pairs: exact pairs for each concept behind the truth of hidden units.
    """

    networks: int = 2
    scenes: int = 256
    images_for_maps: int = 20
    steps: int = 48
    hidden: int = 2
    pairs: int = 100

    def __post_init__(self):
        if not 1 <= self.networks <= len(NAMES):
            raise InputError("networks", f"{self.networks}", f"Use 1 to {len(NAMES)}: so many ship.")
        least = {"scenes": 64, "images_for_maps": 2, "steps": 1, "hidden": 0, "pairs": 2}
        for name, value in least.items():
            require_at_least(name, getattr(self, name), value)
        if self.hidden > UNITS:
            raise InputError("hidden", f"{self.hidden}", f"Use 0 to {UNITS}: so many units block4 has.")
        if self.images_for_maps > self.scenes:
            problem = f"{self.images_for_maps} of {self.scenes} scenes"
            raise InputError("images_for_maps", problem, "Use at most as many as there are scenes.")

    @property
    def names(self) -> list[str]:
        """Of the networks: the first of every world, the hardest worlds first, then the second of every world, ..."""
        hardest = sorted(NAMES, key=lambda name: -world_of(name).correlation)
        return sorted(hardest, key=lambda name: int(name.partition("/")[2]))[: self.networks]


@cache
def scenes_of(world: World, n: int) -> Scenes:
    """The scenes that methods see, the same for all networks of a world; none was used in training."""
    seed = 600 + list(WORLDS.values()).index(world)
    return world.render(world.draw_presence(n, seed), seed)


def output_task(name: str, setting: BenchmarkConfig) -> BenchmarkTask:
    """The outputs of a network or twin, with random scenes; target inputs are those in which a rule holds."""
    rules, world = rules_of(name), world_of(name)
    number, scenes = NAMES.index(name.removesuffix(TWIN)), scenes_of(world, setting.scenes)
    detector = load_rule_network(name.partition("/")[0] + DETECTOR)
    return BenchmarkTask(
        load_rule_network(name), None, range(len(rules.rules)), world, scenes,
        rules.truth(scenes.presence, scenes.place), detector, number, setting.images_for_maps, setting.steps,
    )  # fmt: skip


def hidden_task(outputs: BenchmarkTask, layer: str, units: list[int]) -> BenchmarkTask:
    """Hidden units of the same network in the same scenes; target inputs are those above a unit's median."""
    task = replace(outputs, layer=layer, units=units, memory={})
    task.target = task.response > task.response.median(dim=0).values
    return task


def run_network(
    name: str,
    setting: BenchmarkConfig,
    methods: Mapping[str, Method] | None = None,
    truth: np.ndarray | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every method on a network, its twin and its hidden units.

    Args:
        name: see `rule_networks.network_names`.
        setting: how much.
        methods: `METHODS` if None.
        truth: of the outputs, `truth.output_truth` if None.

    Returns:
        Answers and findings, see `scores`.

    Raises:
        InputError: an unknown network; a method that answers with a wrong shape.
    """
    methods = METHODS if methods is None else methods
    own = output_task(name, setting)
    parts = [
        (name, OUTPUTS, own, output_truth(name) if truth is None else truth),
        (name + TWIN, OUTPUTS, output_task(name + TWIN, setting), None),
    ]
    answers, findings = [], []
    with warnings.catch_warnings():
        # "passed on" is read where it cannot fall below 0, and some maps are rough: that is what is measured here
        warnings.simplefilter("ignore", UserWarning)
        if setting.hidden:
            units = np.linspace(0, UNITS - 1, setting.hidden).round().astype(int).tolist()
            effects = pair_effects(own.model, list(READINGS.values()), own.world, setting.pairs)
            parts += [
                (name, reading, hidden_task(own, layer, units), measured(effects[layer], units))
                for reading, layer in READINGS.items()
            ]
        for label, method in progress(methods.items(), name, len(methods)):
            for network, layer, task, kinds in parts:
                answers.append(
                    _answers(method, task, kinds).assign(method=label, network=network, layer=layer)
                )
            findings += _findings(label, name, own, method, parts[0][3])
    answers = pd.concat(answers, ignore_index=True)
    answers["twin"] = answers.network.str.endswith(TWIN)
    found = pd.DataFrame(findings, columns=OUTCOMES)
    return answers[ANSWERS], found.astype({"unit": int, "value": float})  # also where there are none


def _answers(method: Method, task: BenchmarkTask, truth: np.ndarray | None) -> pd.DataFrame:
    said = torch.as_tensor(method.concepts(task))
    shape = (len(task.units), len(task.concepts))
    if tuple(said.shape) != shape:
        problem = f"it answers with shape {tuple(said.shape)}"
        raise InputError("method", problem, f"Answer with [unit, concept], here {list(shape)}.")
    unit, concept = np.indices(shape)
    return pd.DataFrame({
        "unit": np.array(task.units)[unit.ravel()], "concept": np.array(task.concepts)[concept.ravel()],
        "value": said.detach().double().cpu().numpy().ravel(),
        "truth": "none" if truth is None else truth.ravel(),
    })  # fmt: skip


def _findings(label: str, name: str, task: BenchmarkTask, method: Method, truth: np.ndarray) -> list[tuple]:
    windows = method.windows(task) if method.windows else None
    maps = task.maps(method.maps) if method.maps else None
    rows = []
    for unit, concept in np.argwhere(truth == "absence").tolist():
        scores = {} if windows is None else window_outcomes(task, windows, unit, concept)
        scores |= {} if maps is None else map_outcomes(task, maps, unit, concept)
        rows += [
            (label, name, OUTPUTS, unit, task.concepts[concept], score, value)
            for score, value in scores.items()
        ]
    return rows


def run_benchmark(
    setting: BenchmarkConfig, methods: Mapping[str, Method] | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`run_network` on all networks of a setting: answers and findings."""
    return joined(run_network(name, setting, methods) for name in setting.names)


def joined(parts: Iterable[tuple[pd.DataFrame, pd.DataFrame]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Answers and findings of several networks, one below the other."""
    answers, findings = zip(*parts, strict=True)
    return pd.concat(answers, ignore_index=True), pd.concat(findings, ignore_index=True)
