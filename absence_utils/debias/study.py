"""Which objective unlearns a shortcut: measures of one network, many runs, selection, and comparison by seeds."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from hashlib import sha256
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from .artefacts import shown_by_class
from .debias import OBJECTIVES, PENALISED, input_x_gradient
from .debias_training import Recipe, flushed_denormals, train
from .errors import InputError
from .record import progress
from .shortcuts import ShortcutData, Task

SETS = ("biased", "bias-free", "inverse-biased")  # what the accuracy is measured on
REFERENCE = (
    "no shortcut"  # plain training on data in which a coin decides who shows the artefact: what can be learnt
)
GROUP_DRO_STEP = 10.0  # per mille, the step that its paper uses
RULES = {
    "bias-free": "bias-free validation images (the published recipe: needs what a biased data set has not)",
    "biased": "biased validation images alone: accuracy less the artefact's share of the attribution",
}


@dataclass(frozen=True, order=True)
class Plan:
    """One run: which side carries the artefact, the seed, the objective and its strength."""

    carrier: int
    seed: int
    objective: str
    strength: float

    @property
    def name(self) -> str:
        return f"{self.objective} {self.strength:g}, class {self.carrier}, seed {self.seed}"


@dataclass
class Study:
    """All runs.

    Attributes:
        history: one row for every run, measured epoch and split (validation, test), see `measure_shortcut`.
        weights: plan to the state dict at the epoch that the rule "biased" takes, for the runs that were to be kept.
    """

    history: pd.DataFrame
    weights: dict[Plan, dict[str, Tensor]] = field(default_factory=dict)


def plan_runs(
    objectives: Iterable[str],
    strengths: Iterable[float],
    seeds: Iterable[int],
    carriers: Iterable[int] = (0, 1),
) -> list[Plan]:
    """Every objective at every strength that matters to it, for every seed and side.

    `REFERENCE` among the objectives stands for plain training on data without the shortcut.

    Raises:
        InputError: unknown objectives, a side that is not 0 or 1, or an empty list.
    """
    objectives, strengths, seeds, carriers = map(list, (objectives, strengths, seeds, carriers))
    for name, values in (
        ("objectives", objectives),
        ("strengths", strengths),
        ("seeds", seeds),
        ("carriers", carriers),
    ):
        if not values:
            raise InputError(name, "is empty", "Give at least one.")
    unknown = [name for name in objectives if name not in OBJECTIVES and name != REFERENCE]
    if unknown:
        raise InputError(
            "objectives",
            f"{unknown[0]!r} is not known",
            f"Use some of {', '.join([*OBJECTIVES, REFERENCE])}.",
        )
    if not set(carriers) <= {0, 1}:
        raise InputError("carriers", f"{carriers}", "Use 0, 1 or both: the class that carries the artefact.")
    own = {name: strengths if name in PENALISED else [0.0] for name in objectives} | {
        "group-DRO": [GROUP_DRO_STEP]
    }
    return [
        Plan(carrier, seed, name, float(strength))
        for carrier in carriers
        for seed in seeds
        for name in objectives
        for strength in own[name]
    ]


# ---------------------------------------------------------------------- measures
def measure_shortcut(
    model: nn.Module, data: ShortcutData, carrier: int, bias: float = 1.0, batch: int = 256
) -> dict:
    """What a network makes of the artefact, on images that it was not trained on.

    Every image is shown as it is, with its artefact, and with its control (`ShortcutData.controls`), so the accuracies
    are exact expectations over who shows the artefact, and effects are paired.

    Args:
        model: in eval mode, images to logits [batch, 2].
        data: the images.
        carrier: class that shows the artefact in training.
        bias: probability that an image of the carrier shows it in training, and another does not.
        batch: images at a time.

    Returns:
        biased, bias-free, inverse-biased: accuracy, 0..1; images show the artefact as in training, by a coin, or the
            other way round.
        worst group: smallest accuracy of the four groups class x artefact, 0..1.
        share of the carrier's logit, share of the other logit: share of |input x gradient| (summed over channels)
            that lies in the grown mask, mean over the carrier's images, all showing the artefact, 0..1.
        evidence for ...: the same attribution, signed and summed inside the mask, in standard deviations of that logit.
            Negative for the other logit: the network counts on the artefact's absence there.
        absence score of ...: minus the mean of logit(with artefact) - logit(with control), in the same unit. Positive:
            the logit encodes the artefact's absence; negative: its presence.
        images: how many there were.
    """
    flags = {module: module.training for module in model.modules()}
    try:
        with flushed_denormals():
            model.eval()
            plain, marked, control, inside = _read(model, data, carrier, batch)
    finally:
        for module, flag in flags.items():
            module.training = flag
    right = {shown: (logits.argmax(1) == data.labels).double() for shown, logits in ((0, plain), (1, marked))}
    often = torch.where(data.labels == carrier, bias, 1 - bias).double()
    found = {}
    for name, chance in zip(SETS, (often, torch.full_like(often, 0.5), 1 - often), strict=True):
        found[name] = (chance * right[1] + (1 - chance) * right[0]).mean().item()
    found["worst group"] = min(
        hit[data.labels == label].mean().item() for hit in right.values() for label in (0, 1)
    )
    spread = plain.std(dim=0).clamp(min=1e-12)
    effect = -(marked - control).mean(dim=0) / spread
    for column, name in ((carrier, "the carrier's logit"), (1 - carrier, "the other logit")):
        found[f"share of {name}"] = inside["share"][:, column].mean().item()
        found[f"evidence for {name}"] = (inside["sum"][:, column].mean() / spread[column]).item()
        found[f"absence score of {name}"] = effect[column].item()
    return found | {"images": len(data)}


def _read(model, data, carrier, batch):
    """Logits [image, 2] of plain, marked and control images; attribution inside the mask on the carrier's images."""
    device = next(model.parameters()).device
    logits, inside = ([], [], []), {"share": [], "sum": []}
    for rows in torch.arange(len(data)).split(batch):
        given, plain = data.batch(rows, device), data.plain(rows).to(device)
        with torch.no_grad():
            for found, images in zip(
                logits, (plain, given.pasted, data.controls(rows).to(device)), strict=True
            ):
                found.append(model(images).double().cpu())
        own = given.labels == carrier
        if own.any():
            masks = data.grown[rows].to(device)[own]
            for name, values in _inside(model, given.pasted[own], masks).items():
                inside[name].append(values)
    return *(torch.cat(found) for found in logits), {name: torch.cat(parts) for name, parts in inside.items()}


def _inside(model, images, masks) -> dict[str, Tensor]:
    """Share and signed sum of input x gradient inside the masks, each [image, class]."""
    images = images.detach().requires_grad_(True)
    logits = model(images)
    found = {"share": [], "sum": []}
    for column in range(logits.shape[1]):
        attribution = input_x_gradient(
            model, images, logits, torch.full_like(logits[:, 0], column).long()
        ).detach()
        size = attribution.abs().sum(dim=1)
        share = (size * masks).sum(dim=(1, 2)) / size.sum(dim=(1, 2)).clamp(min=1e-12)
        found["share"].append(share.double().cpu())
        found["sum"].append((attribution.sum(dim=1) * masks).sum(dim=(1, 2)).double().cpu())
    return {name: torch.stack(values, dim=1) for name, values in found.items()}


def merit(row) -> float:
    """Rule "biased": accuracy on biased images less the artefact's share of the attribution, mean of both logits.

    It needs the masks, which a penalty needs anyway, and no image that breaks the bias. A network that lives off the
    artefact has a high accuracy and a high share, one that was ruined by the penalty a low share and a low accuracy.
    Taking the artefact's signed attribution out of the logits instead was tried and is worse: it is first-order, and
    misses what the artefact gates.
    """
    return row["biased"] - (row["share of the carrier's logit"] + row["share of the other logit"]) / 2


# ---------------------------------------------------------------------- runs
def run_study(
    plans: list[Plan],
    task: Callable[[int, int], Task],
    network: Callable[[int], nn.Module],
    recipe: Recipe | None = None,
    *,
    keep: int | None = None,
    checkpoints: str | Path = "",
    workers: int = 1,
) -> Study:
    """Train and measure every run.

    Args:
        plans: see `plan_runs`.
        task: (carrier, seed) to data.
        network: seed to a network with two outputs.
        recipe: `Recipe()` if None.
        keep: seed of the runs whose weights are kept; None keeps none.
        checkpoints: folder for a file for each run, from which a killed study goes on; "" for none.
        workers: processes; with more than one, `task` and `network` must be picklable, and each takes one thread.

    Raises:
        InputError: of the tasks, the networks or the training; workers below 1.
    """
    if workers < 1:
        raise InputError("workers", f"{workers}", "Use 1 or more.")
    recipe = recipe or Recipe()
    one = partial(_run, task=task, network=network, recipe=recipe, folder=str(checkpoints))
    if workers == 1:
        results = [one(plan) for plan in progress(plans, "runs")]
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            results = list(progress(pool.map(one, plans), "runs", len(plans)))
    _task.cache_clear()
    rows = [row for found, _ in results for row in found]
    kept = {plan: best for plan, (_, best) in zip(plans, results, strict=True) if plan.seed == keep}
    return Study(pd.DataFrame(rows), kept)


@lru_cache(maxsize=1)
def _task(make, carrier, seed) -> Task:
    return make(carrier, seed)


def _run(plan: Plan, task, network, recipe, folder: str) -> tuple[list[dict], dict[str, Tensor]]:
    given, model = _task(task, plan.carrier, plan.seed), network(plan.seed)
    splits = {"validation": given.validation, "test": given.test}

    def measure(model: nn.Module) -> dict:
        return {
            name: measure_shortcut(model, data, plan.carrier, given.bias) for name, data in splits.items()
        }

    data, objective = given.train, plan.objective
    if objective == REFERENCE:
        coin = shown_by_class(data.labels, "no bias", plan.carrier, plan.seed)
        data, objective = replace(data, shown=coin), "none"
    about = {name: getattr(plan, name) for name in ("carrier", "seed", "objective", "strength")}
    file = Path(folder) / f"{sha256(repr(plan).encode()).hexdigest()[:16]}.safetensors" if folder else None
    trained = train(
        model, data, objective, plan.strength, recipe, seed=plan.seed, measure=measure,
        score=lambda row: merit(row["validation"]), checkpoint=file, description=plan.name,
    )  # fmt: skip
    rows = [
        about | {name: row[name] for name in ("epoch", "loss", "seconds")} | {"split": split} | row[split]
        for row in trained.history
        for split in splits
    ]
    return rows, trained.best
