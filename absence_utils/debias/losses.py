"""The same penalties under both classification losses: what the loss lets a shortcut do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pandas as pd
from torch import nn

from .objectives import LOSSES
from .study import plan_runs, run_study
from .tables import loss_table
from .tasks import Task
from .training import TrainingConfig

COMPARED = ("none", "presence", "presence and absence")


def compare_losses(
    history: pd.DataFrame,
    task: Callable[[int, int], Task],
    network: Callable[[int], nn.Module],
    recipe: TrainingConfig,
    seeds: Iterable[int],
    *,
    checkpoints: str | Path = "",
    workers: int = 1,
) -> pd.DataFrame:
    """Train a part of a study again under the loss that it does not have, and put both side by side.

    That part is plain training, presence, and presence and absence, those that were trained, at all strengths, with the
    artefact on the class that the study begins with.

    Args:
        history: of the study.
        task, network, recipe, workers: of `run_study`, as the study had them.
        seeds: those of them that the study has, too; with none the study stands alone, with all its seeds.
        checkpoints: folder of the study; the runs of the other loss get a folder in it. "" for none.

    Returns:
        As `tables.loss_table` gives it.
    """
    other = next(name for name in LOSSES if name != recipe.loss)
    own = history["seed"].drop_duplicates().tolist()
    again = [seed for seed in own if seed in set(seeds)]
    objectives = [name for name in COMPARED if name in set(history["objective"])]
    strengths = history["strength"][history["objective"].isin(COMPARED[1:])].drop_duplicates().tolist()
    plans = plan_runs(objectives, strengths, again or own, [int(history["carrier"].iloc[0])])
    histories = {recipe.loss: history}
    if again:
        folder = Path(checkpoints) / other if checkpoints else ""
        there = replace(recipe, loss=other)
        histories[other] = run_study(plans, task, network, there, checkpoints=folder, workers=workers).history
    return loss_table(histories, plans)
