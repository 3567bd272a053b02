"""Is a suppression there under every way of pooling, or is it made by one of them?"""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
from torch import nn

from .design import InsertionConfig
from .protocols import InsertionStudy, insertion_study
from .scores import LEVEL, MAIN_CONTROL, select_score


def pooling_table(
    model: nn.Module,
    layer: str | None,
    dataset,
    setting: InsertionConfig,
    pools: list[str],
    *,
    units: list[int],
    published: InsertionConfig | None = None,
    done: dict[str, InsertionStudy] | None = None,
    **options,
) -> pd.DataFrame:
    """Both protocols under several ways of pooling: patches, top images and effects all follow the pooling.

    Taking the minimum over positions or tokens makes any unit look suppressible, since one low position among many is
    enough (design section 7).

    Args:
        model, layer, dataset, setting, published, options: of `protocols.insertion_study`, but for the pool of the
            settings, which is not used.
        pools: ways of pooling, see `units.pool_space`.
        units: channels.
        done: pool to a study that there is already, of these units and maybe others.

    Returns:
        A row for each pool and unit: pool, unit, published (significant either way, NaN where it was not asked),
        absence, veto, suppressed (absence above `scores.MIN_EFFECT`, adjusted p below 0.05) and only_min: suppressed
        under "min" and under no other pool.
    """
    tables = {}
    for pool in pools:
        settings = [each and replace(each, pool=pool) for each in (setting, published)]
        study = (done or {}).get(pool) or insertion_study(
            model, layer, dataset, settings[0], published=settings[1], units=units, control_units=0, **options
        )
        absence = select_score(study.fair.scores, "absence", MAIN_CONTROL).loc[list(units)]
        veto = select_score(study.fair.scores, "veto", "median images").loc[list(units)]
        tables[pool] = pd.DataFrame({
            "published": study.published.verdict(absence.index),
            "absence": absence["value"],
            "veto": veto["value"],
            "suppressed": (absence["value"] > 0) & (absence["q_least"] < LEVEL),
        })  # fmt: skip
    table = pd.concat(tables, names=["pool", "unit"]).reset_index()
    others = table[(table["pool"] != "min") & table["suppressed"]]["unit"]
    only = (table["pool"] == "min") & table["suppressed"] & ~table["unit"].isin(others)
    return table.assign(only_min=only if len(pools) > 1 else False)
