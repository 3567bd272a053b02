"""Which objective unlearns a shortcut: measures of one network, many runs, selection, and comparison by seeds."""

from __future__ import annotations

import multiprocessing
import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from absence_utils.errors import InputError, require_at_least, require_choice
from absence_utils.models.xdnn import TwoTowers
from absence_utils.processes import end_with
from absence_utils.progress import progress

from .artefacts import COIN, NO_PATCH, Bias, sample_artefact_presence
from .measures import measure_shortcut, selection_score
from .objectives import OBJECTIVES, PENALISED
from .tasks import Task, scenes_task
from .training import TrainingConfig, train

MINORITY = Bias(0.99, 0.01)  # each class has a few images that break the bias
REFERENCES = {  # training data other than the study's: objective, and who shows the artefact
    "no shortcut": ("none", COIN),
    "no patch": ("none", NO_PATCH),
    "none, 1% minority": ("none", MINORITY),
    "group-DRO, 1% minority": ("group-DRO", MINORITY),
}
USUAL_REFERENCES = ["no shortcut", "none, 1% minority", "group-DRO, 1% minority"]
TWIN_SIDES = {0: "artefact on discs: unseen by their logit", 1: "artefact on rings: seen by theirs"}
GROUP_DRO_STEP = 10.0  # per mille, the step that its paper uses


@dataclass(frozen=True, order=True)
class RunSpec:
    """One run: which side carries the artefact, the seed, the objective, its strength, and which attempt it is."""

    carrier: int
    seed: int
    objective: str
    strength: float
    attempt: int = 0

    @property
    def name(self) -> str:
        again = f", attempt {self.attempt}" * bool(self.attempt)
        return f"{self.objective} {self.strength:g}, class {self.carrier}, seed {self.seed}{again}"

    @property
    def first_weights(self) -> int:
        """Seed of the network and of everything random in training."""
        return self.seed + 1_000_003 * self.attempt


@dataclass
class DebiasStudy:
    """All runs.

    Attributes:
        history: one row for every run, measured epoch and split (validation, test), see `measure_shortcut`.
        weights: plan to the state dict at the epoch that the rule "biased" takes, for the runs that were to be kept.
    """

    history: pd.DataFrame
    weights: dict[RunSpec, dict[str, Tensor]] = field(default_factory=dict)


def chosen_objectives(objectives: Sequence[str]) -> list[str]:
    """The objectives asked for; if none, all that a complete bias allows (group-DRO needs images of all four groups).

    Raises:
        InputError: two that every figure compares with are not among them.
    """
    for name in ("none", "presence and absence"):
        if objectives and name not in objectives:
            raise InputError(
                "objectives", f"{name!r}, with which the others are compared, is not there", "Add it."
            )
    return list(objectives) or [name for name in OBJECTIVES if name != "group-DRO"]


def chosen_references(references: Sequence[str]) -> list[str]:
    """The references asked for; if none, training without a shortcut, and with a few images that break the bias."""
    return list(references) or list(USUAL_REFERENCES)


def plan_runs(
    objectives: Iterable[str],
    strengths: Iterable[float],
    seeds: Iterable[int],
    carriers: Iterable[int] = (0, 1),
    attempts: int = 1,
) -> list[RunSpec]:
    """Every objective at every strength that matters to it, for every seed and side.

    Args:
        objectives: names of `OBJECTIVES` and `REFERENCES`.
        strengths: of penalties.
        seeds, carriers: of the runs.
        attempts: runs of plain training ("none"), from other weights each: where the best of five strengths is taken of
            a penalty, the best of five attempts is its equal.

    Raises:
        InputError: unknown objectives, a side that is not 0 or 1, or an empty list.
    """
    objectives, strengths, seeds, carriers = map(list, (objectives, strengths, seeds, carriers))
    given = {"objectives": objectives, "strengths": strengths, "seeds": seeds, "carriers": carriers}
    for name, values in given.items():
        if not values:
            raise InputError(name, "is empty", "Give at least one.")
    for name in objectives:
        require_choice("objectives", name, (*OBJECTIVES, *REFERENCES))
    require_at_least("attempts", attempts, 1)
    if not set(carriers) <= {0, 1}:
        raise InputError("carriers", f"{carriers}", "Use 0, 1 or both: the class that carries the artefact.")
    own = {name: strengths if name in PENALISED else [0.0] for name in objectives}
    own |= {name: [GROUP_DRO_STEP] for name in own if name.startswith("group-DRO")}
    return [
        RunSpec(carrier, seed, name, float(strength), attempt)
        for carrier in carriers
        for seed in seeds
        for name in objectives
        for strength in own[name]
        for attempt in range(attempts if name == "none" else 1)
    ]


# ---------------------------------------------------------------------- runs
def run_study(
    plans: list[RunSpec],
    task: Callable[[int, int], Task],
    network: Callable[[int], nn.Module],
    recipe: TrainingConfig | None = None,
    *,
    keep: int | None = None,
    checkpoints: str | Path = "",
    workers: int = 1,
) -> DebiasStudy:
    """Train and measure every run.

    Args:
        plans: see `plan_runs`.
        task: (carrier, seed) to data.
        network: seed to a network with two outputs.
        recipe: `TrainingConfig()` if None.
        keep: seed of the runs whose weights are kept; None keeps none.
        checkpoints: folder for a file for each run, from which a killed study resumes; "" for none. A run starts anew
            if its settings, its code or the images of any split have changed.
        workers: processes; with more than one, `task` and `network` must be picklable, and each takes one thread.

    Raises:
        InputError: of the tasks, the networks or the training; workers below 1.
    """
    require_at_least("workers", workers, 1)
    recipe = recipe or TrainingConfig()
    one = partial(_run, task=task, network=network, recipe=recipe, folder=str(checkpoints))
    if workers == 1:
        results = [one(plan) for plan in progress(plans, "runs")]
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(
            workers, context, initializer=_begin_worker, initargs=(os.getpid(),)
        ) as pool:
            results = list(progress(pool.map(one, plans), "runs", len(plans)))
    _task.cache_clear()
    rows = [row for found, _ in results for row in found]
    kept = {plan: best for plan, (_, best) in zip(plans, results, strict=True) if plan.seed == keep}
    return DebiasStudy(pd.DataFrame(rows), kept)


def run_twin(seeds: Iterable[int], *, scenes: int = 800, epochs: int = 16, workers: int = 1) -> pd.DataFrame:
    """The same objectives on a network whose answer is known (`xdnn.TwoTowers`): only one logit can see the artefact.

    With the artefact on discs (carrier 0) the disc's logit is blind, so that the other logit can use it as an absence
    and nothing else. With the artefact on rings (carrier 1) the target logit sees it.

    Args:
        seeds: of the runs.
        scenes: training scenes of 16 px; validation and test have a quarter as many each.
        epochs: passes over them; the last one is measured.
        workers: see `run_study`.

    Returns:
        The history of plain training, presence and presence and absence at strength 10 (the last on discs alone).
    """
    seeds = list(seeds)
    plans = plan_runs(["none", "presence", "presence and absence"], [10], seeds, [0])
    plans += plan_runs(["none", "presence"], [10], seeds, [1])
    recipe = TrainingConfig(epochs=epochs, lr=0.03, batch_size=96, measure_every=epochs)
    task = partial(scenes_task, n=scenes, size=16, twin=True)
    return run_study(plans, task, partial(TwoTowers, 12, 1), recipe, workers=workers).history


def _begin_worker(parent: int) -> None:
    end_with(parent)
    torch.set_num_threads(1)


@lru_cache(maxsize=1)
def _task(make, carrier, seed) -> Task:
    return make(carrier, seed)


def _run(plan: RunSpec, task, network, recipe, folder: str) -> tuple[list[dict], dict[str, Tensor]]:
    given, model = _task(task, plan.carrier, plan.seed), network(plan.first_weights)
    splits = {"validation": given.validation, "test": given.test}

    def measure(model: nn.Module) -> dict:
        return {
            name: measure_shortcut(model, data, plan.carrier, given.bias) for name, data in splits.items()
        }

    data, objective = given.train, plan.objective
    if objective in REFERENCES:
        objective, bias = REFERENCES[objective]
        shown = sample_artefact_presence(data.labels, bias, plan.carrier, plan.seed)
        data = replace(data, shown=shown)
    file = Path(folder) / f"{re.sub(r'[^a-zA-Z0-9.]+', '-', plan.name)}.pt" if folder else None
    measured = {"carrier": plan.carrier, "bias": list(given.bias)}
    measured |= {f"{name} images and labels": part.fingerprint for name, part in splits.items()}
    trained = train(
        model, data, objective, plan.strength, recipe, seed=plan.first_weights, measure=measure,
        score=lambda row: selection_score(row["validation"]), checkpoint=file, measured=measured, description=plan.name,
    )  # fmt: skip
    rows = [
        asdict(plan)
        | {name: row[name] for name in ("epoch", "loss", "seconds")}
        | {"split": split}
        | row[split]
        for row in trained.history
        for split in splits
    ]
    return rows, trained.best
