"""Which explanation method finds which absence: methods on networks with random rules, scored with honest intervals.

Every number is a mean over true absences. Its interval comes from drawing networks again, and within each its absences,
the same draws for every method, so that methods are compared in pairs.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from scipy import stats

from absence_utils.errors import InputError, require_at_least
from absence_utils.images.worlds import Scenes, World
from absence_utils.progress import progress

from .methods import METHODS, Method
from .rule_networks import DETECTOR, NAMES, TWIN, WORLDS, load_rule_network, rules_of, world_of
from .scores import ANSWERS, OUTCOMES, OUTPUTS, PAIR, false_alarms, map_outcomes, outcomes_of, window_outcomes
from .tasks import BenchmarkTask
from .truth import measured, pair_effects, planted

READINGS = {
    "hidden, signed": "block4",
    "hidden, passed on": "pool4",
}  # the means of the rectified maps are pool4's
UNITS = 64  # of block4
DRAWS = 2000  # of networks and rules
LEVEL = 0.95


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

    networks: int = 4
    scenes: int = 256
    images_for_maps: int = 24
    steps: int = 48
    hidden: int = 4
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


# -- running


@cache
def scenes_of(world: World, n: int) -> Scenes:
    """The scenes that methods see, the same for all networks of a world; none was used in training."""
    seed = 600 + list(WORLDS.values()).index(world)
    return world.render(world.draw_presence(n, seed), seed)


def output_task(name: str, setting: BenchmarkConfig) -> BenchmarkTask:
    """The outputs of a network or twin, with random scenes; target inputs are those in which a rule holds."""
    world, number = world_of(name), NAMES.index(name.removesuffix(TWIN))
    scenes = scenes_of(world, setting.scenes)
    rules = rules_of(name)
    detector = load_rule_network(name.partition("/")[0] + DETECTOR)
    return BenchmarkTask(
        load_rule_network(name), None, range(len(rules.rules)), world, scenes,
        rules.truth(scenes.presence, scenes.place), detector, number, setting.images_for_maps, setting.steps,
    )  # fmt: skip


def hidden_task(outputs: BenchmarkTask, layer: str, units: list[int]) -> BenchmarkTask:
    """Hidden units of the same network in the same scenes; target inputs are those above a unit's median."""
    task = BenchmarkTask(
        outputs.model, layer, units, outputs.world, outputs.scenes, outputs.target, outputs.detector,
        outputs.seed, outputs.images_for_maps, outputs.steps,
    )  # fmt: skip
    task.target = task.response > task.response.median(dim=0).values
    return task


def run_network(
    name: str, setting: BenchmarkConfig, methods: Mapping[str, Method] | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every method on a network, its twin and its hidden units.

    Args:
        name: see `rule_networks.network_names`.
        setting: how much.
        methods: `METHODS` if None.

    Returns:
        Answers and findings, see `scores`.
    """
    methods = METHODS if methods is None else methods
    own = output_task(name, setting)
    parts = [
        (name, OUTPUTS, own, planted(name)),
        (name + TWIN, OUTPUTS, output_task(name + TWIN, setting), None),
    ]
    if setting.hidden:
        units = np.linspace(0, UNITS - 1, setting.hidden).round().astype(int).tolist()
        effects = pair_effects(own.model, list(READINGS.values()), own.world, setting.pairs)
        parts += [
            (name, reading, hidden_task(own, layer, units), measured(effects[layer], units))
            for reading, layer in READINGS.items()
        ]
    answers, findings = [], []
    with warnings.catch_warnings():
        # "passed on" is read where it cannot fall below 0, and some maps are rough: that is what is measured here
        warnings.simplefilter("ignore", UserWarning)
        for label, method in progress(methods.items(), name, len(methods)):
            for network, layer, task, truth in parts:
                answers.append(
                    _answers(method, task, truth).assign(method=label, network=network, layer=layer)
                )
            findings += _findings(label, name, own, method, parts[0][3])
    answers = pd.concat(answers, ignore_index=True)
    answers["twin"] = answers.network.str.endswith(TWIN)
    return answers[ANSWERS], pd.DataFrame(findings, columns=OUTCOMES)


def _answers(method: Method, task: BenchmarkTask, truth: np.ndarray | None) -> pd.DataFrame:
    said = method.concepts(task)
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


# -- scoring


def all_outcomes(answers: pd.DataFrame, findings: pd.DataFrame | None = None) -> pd.DataFrame:
    """Outcomes of all tasks; the score says the layer where it is a hidden one ("AUROC, hidden, signed")."""
    found = outcomes_of(answers)
    hidden = found.layer != OUTPUTS
    found = found[~hidden | (found.score == "AUROC")].copy()
    found.loc[hidden, "score"] = found.score + ", " + found.layer
    return found if findings is None else pd.concat([found, findings], ignore_index=True)


def leaderboard(
    answers: pd.DataFrame, outcomes: pd.DataFrame, draws: int = DRAWS, seed: int = 0
) -> pd.DataFrame:
    """Mean, 95 % interval and coverage of every method and score, best AUROC first.

    Networks are drawn again, and in each of those its absences; the interval holds the middle 95 % of the means.
    "false alarms", see `scores.false_alarms`, is drawn over the same networks and absences, with the twins of the
    networks drawn.

    Returns:
        Columns method, score, mean, low, high, coverage (share of the absences about which the method says something),
        absences, networks. The interval is NaN for a single network.
    """
    rows = []
    for score, group in outcomes.groupby("score", sort=False):
        wide = group.pivot(index=PAIR, columns="method", values="value")
        means = draw_means(wide, draws, seed)
        networks = wide.index.get_level_values("network").nunique()
        for method in wide:
            said = wide[method].notna()
            low, high = _interval(means[method].to_numpy(), networks)
            rows.append((method, score, wide[method].mean(), low, high, said.mean(), len(wide), networks))
    found = pd.DataFrame(rows, columns="method score mean low high coverage absences networks".split())
    found = pd.concat([found, _alarm_rows(answers, draws, seed)], ignore_index=True)
    area = found[found.score == "AUROC"].sort_values("mean", ascending=False, kind="stable").method.tolist()
    return found.sort_values("method", key=lambda names: names.map(area.index), kind="stable").reset_index(
        drop=True
    )


def draw_means(wide: pd.DataFrame, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """[draw, method] means of outcomes [absence, method] over networks drawn again, and absences within each."""
    weights = _weights(wide.index.get_level_values("network").to_numpy(), draws, seed)
    values = wide.to_numpy()
    said = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = weights @ np.where(said, values, 0) / (weights @ said)
    return pd.DataFrame(means, columns=wide.columns)


def _weights(networks: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """[draw, absence] how often each absence is drawn."""
    generator = np.random.default_rng([seed, 18])
    names, number = np.unique(networks, return_inverse=True)
    copies = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    weights = np.zeros((draws, len(networks)))
    for each in range(len(names)):
        members = np.flatnonzero(number == each)
        chances = np.full(len(members), 1 / len(members))
        weights[:, members] = generator.multinomial(copies[:, each] * len(members), chances)
    return weights


def _interval(means: np.ndarray, networks: int) -> tuple[float, float]:
    if networks < 2 or np.isnan(means).all():
        return np.nan, np.nan
    return tuple(np.nanquantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))


def _alarm_rows(answers: pd.DataFrame, draws: int, seed: int) -> pd.DataFrame:
    outputs = answers[answers.layer == OUTPUTS]
    found = outputs[outputs.truth == "absence"].pivot(index=PAIR, columns="method", values="value")
    twins = outputs[outputs.twin].pivot(index=PAIR, columns="method", values="value")
    network = found.index.get_level_values("network").to_numpy()
    of_twin = twins.index.get_level_values("network").str.removesuffix(TWIN).to_numpy()
    names = np.unique(network)
    weights = _weights(network, draws // 10, seed).astype(int)  # a tenth: each one sorts
    rows = []
    for method in found:
        said, twin_said = found[method].to_numpy(), twins[method].to_numpy()
        drawn = []
        for weight in weights:
            copies = {name: weight[network == name].sum() / (network == name).sum() for name in names}
            there = np.repeat(twin_said, [round(copies.get(name, 0)) for name in of_twin])
            drawn.append(false_alarms(np.repeat(said, weight), there) if len(there) else np.nan)
        low, high = _interval(np.array(drawn), len(names))
        rows.append((method, "false alarms", false_alarms(said, twin_said), low, high,
                     1 - np.isnan(said).mean(), len(said), len(names)))  # fmt: skip
    return pd.DataFrame(rows, columns="method score mean low high coverage absences networks".split())


def compare(outcomes: pd.DataFrame, score: str = "AUROC", draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """The best method of a score against each other one, over the absences of which both say something.

    Returns:
        Columns best, method, difference (best minus the other), low, high, p (two-sided, from the draws), q (Benjamini
        and Hochberg, over the methods), absences.
    """
    wide = outcomes[outcomes.score == score].pivot(index=PAIR, columns="method", values="value")
    best = wide[wide.columns[wide.notna().mean() > 0.5]].mean().idxmax()
    differences = (-wide.drop(columns=best)).add(wide[best], axis=0).dropna(axis=1, how="all")
    drawn = draw_means(differences, draws, seed)
    below = np.minimum((drawn <= 0).sum(), (drawn >= 0).sum())
    p = np.minimum(1, 2 * (below + 1) / (draws + 1))
    found = pd.DataFrame({
        "best": best, "difference": differences.mean(), "low": drawn.quantile(0.025), "high": drawn.quantile(0.975),
        "p": p, "q": stats.false_discovery_control(p), "absences": differences.notna().sum(),
    })  # fmt: skip
    return found.sort_values("difference").rename_axis("method").reset_index()


def order_stability(
    outcomes: pd.DataFrame, score: str = "AUROC", draws: int = 200, seed: int = 0
) -> pd.Series:
    """Is the order of methods the same under half the rules? Over random halves of the absences.

    Returns:
        Mean rank correlation (Spearman's): "half against all" and "half against the other half". Methods that are
        silent about more than half of the absences are left out.
    """
    wide = outcomes[outcomes.score == score].pivot(index=PAIR, columns="method", values="value")
    values = wide[wide.columns[wide.notna().mean() > 0.5]].to_numpy()
    generator, found = np.random.default_rng([seed, 19]), []
    whole = np.nanmean(values, axis=0)
    for _ in range(draws):
        order = generator.permutation(len(values))
        one, other = (np.nanmean(values[part], axis=0) for part in np.array_split(order, 2))
        found.append([stats.spearmanr(one, each).statistic for each in (whole, other)])
    return pd.Series(np.mean(found, axis=0), index=["half against all", "half against the other half"])


def by_world(outcomes: pd.DataFrame, score: str = "AUROC") -> pd.DataFrame:
    """Mean of a score for each method and world: [method, world]."""
    own = outcomes[outcomes.score == score]
    world = own.network.str.partition("/")[0].rename("world")
    return own.groupby(["method", world], sort=False).value.mean().unstack()
