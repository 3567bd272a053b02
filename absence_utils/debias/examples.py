"""Typical images of a debiasing study, with the maps of both logits under several networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn

from absence_utils.attribution.gradients import input_x_gradient
from absence_utils.errors import InputError
from absence_utils.models.training import predict
from absence_utils.units import device_of

from .study import DebiasStudy, RunSpec
from .tables import select
from .tasks import Task


@dataclass(frozen=True)
class Example:
    """One image under one network.

    Attributes:
        case: what is shown, in words.
        network: the objective that it was trained with, and its strength.
        pixels: [channel, height, width] in 0..1.
        maps: [class, height, width] input x gradient of each logit summed over channels, signed.
        outline: [height, width] bool, the artefact's place.
        logits: [class].
        label: the image's class.
    """

    case: str
    network: str
    pixels: Tensor
    maps: Tensor
    outline: Tensor
    logits: Tensor
    label: int


def kept_plans(study: DebiasStudy, carrier: int, seed: int, objectives: list[str]) -> list[RunSpec]:
    """The runs whose weights the rule "biased" takes, one for each objective.

    Raises:
        InputError: a run that is not there, or whose weights were not kept.
    """
    chosen = select(study.history, "biased").set_index(["carrier", "seed", "objective"])
    plans = []
    for objective in objectives:
        if (carrier, seed, objective) not in chosen.index:
            raise InputError("objectives", f"{objective!r} was not trained", "Add it to the study.")
        plan = RunSpec(carrier, seed, objective, float(chosen.loc[(carrier, seed, objective)].strength))
        if plan not in study.weights:
            problem = f"the weights of seed {seed} were not kept"
            raise InputError("keep", problem, "Run the study with keep=seed.")
        plans.append(plan)
    return plans


def example_maps(
    study: DebiasStudy, task: Task, network: Callable[[int], nn.Module], seed: int, objectives: list[str]
) -> tuple[list[Example], pd.DataFrame]:
    """Three typical test images (the carrier's class with and without its artefact, the other class with one), each
    under the networks that the rule "biased" takes.

    Typical: of all correctly or wrongly classified images of that kind the one with the median margin between both
    logits under the first network.

    Returns:
        The examples, row by row, and a table: case, network, class (of the logit), logit, evidence inside the artefact
        (signed sum of the map there), target (whether it is the image's class).
    """
    data, carrier, names = task.test, task.carrier, task.class_names
    plans = kept_plans(study, carrier, seed, objectives)
    models = {plan: _with_weights(network(seed), study.weights[plan]) for plan in plans}
    cases = {
        f"{names[carrier]}, artefact\n(as in training)": (carrier, True),
        f"{names[1 - carrier]}, artefact": (1 - carrier, True),
        f"{names[carrier]}, no artefact": (carrier, False),
    }
    examples, rows = [], []
    for case, (label, shown) in cases.items():
        candidates = (data.labels == label).nonzero()[:, 0]
        batch = data.batch(candidates)
        images = batch.pasted if shown else data.plain(candidates)
        logits = predict(models[plans[0]], images)
        typical = (logits[:, 1] - logits[:, 0]).argsort()[(len(candidates) - 1) // 2]
        image, row = images[typical], candidates[typical]
        outline = data.artefacts.mask[row]
        for plan, model in models.items():
            maps, logits = _both_maps(model, image)
            name = plan.objective if plan.objective == "none" else f"{plan.objective} {plan.strength:g}"
            pixels = task.normalisation.undo(image[-3:] if len(image) > 3 else image)
            examples.append(Example(case, name, pixels, maps, outline, logits, label))
            for column in (0, 1):
                inside = (maps[column] * outline).sum().item()
                about = (case.replace("\n", " "), name, names[column], logits[column].item(), inside)
                rows.append((*about, column == label))
    columns = ["case", "network", "class", "logit", "evidence inside the artefact", "target"]
    return examples, pd.DataFrame(rows, columns=columns)


def _with_weights(model: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    model.load_state_dict(weights)
    return model.eval()


def _both_maps(model: nn.Module, image: Tensor) -> tuple[Tensor, Tensor]:
    """Maps [class, height, width] and logits [class] of one image."""
    images = image[None].to(device_of(model)).requires_grad_(True)
    logits = model(images)
    maps = [input_x_gradient(logits, images, column)[0].sum(dim=0) for column in range(logits.shape[1])]
    return torch.stack(maps).cpu(), logits[0].detach().cpu()
