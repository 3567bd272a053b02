"""Both protocols on several networks, some with a known answer: what each says of every unit, and typical pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import nn

from .errors import InputError
from .image_cache import shuffle_images, stack_images
from .insertion import upper_left
from .insertion_design import Setting
from .insertion_runs import UNTOUCHED, input_images
from .models import load_model
from .nulls import KnownUnits
from .protocols import Fair, Study, insertion_study
from .scenes import RULES, scene_dataset
from .scores import MAIN, pick

EXAMPLES = (
    "top: untouched",
    "top: lowest",
    "top: random",
    "top: mean colour",
    "top: highest",
    "neutral: lowest",
)
PLANTED = np.array([bool(rule.absent) for rule in RULES.values()])  # scenes rules that ask for an absence


def compare_networks(
    model: nn.Module,
    random_model: nn.Module,
    layer: str | None,
    dataset,
    setting: Setting,
    *,
    units: list[int] | None = None,
    control_units: int | None = None,
    published: Setting | None = None,
    null_units: int = 32,
    known_images: int | None = None,
    known_scenes: int = 450,
    **options,
) -> dict[str, Study]:
    """`insertion_study` of a network and of four whose answer is known, through the same code.

    Args:
        model, layer, dataset, setting, units, control_units, published, options: of `insertion_study`.
        random_model: the same network with random weights.
        null_units: units of that, and of each kind of `nulls.KnownUnits`.
        known_images: top images of those, which are cheap: all patches go into all of them. `setting.images` if None.
        known_scenes: concept scenes for the logits of the concept-scenes network.

    Returns:
        Name to study: "this network"; "random weights"; "additive units", which inhibit nothing, and "veto units",
        which are "a and not b" by construction, both on the same images; "scenes rules", the logits of the
        concept-scenes network on scenes of its own (the rules with an absence are those in `PLANTED`).
    """
    stack = stack_images(dataset)
    device = next(model.parameters()).device
    studies = {
        "this network": insertion_study(
            model,
            layer,
            stack,
            setting,
            units=units,
            published=published,
            control_units=control_units,
            **options,
        )
    }
    every = studies["this network"].fair.units.unit.tolist()
    few = {**options, "control_units": 0}
    studies["random weights"] = insertion_study(
        random_model, layer, stack, setting, units=every[:null_units], published=published, **few
    )
    cheap = replace(setting, pairs="all", images=known_images or setting.images)
    sample = stack.take(range(min(300, len(stack)))).to(device)
    for rule in ("additive", "veto"):
        known = KnownUnits(sample, null_units, rule, seed=setting.seed)
        studies[f"{rule} units"] = insertion_study(known, None, stack, cheap, published=published, **few)
    scenes = shuffle_images(scene_dataset(known_scenes, setting.seed), setting.seed)
    own = Setting(24, 8, setting.k, min(12, known_scenes // 30), seed=setting.seed)
    studies["scenes rules"] = insertion_study(
        load_model("concept_scenes", device=device), "logits", scenes, own, redraws=2
    )
    return studies


def verdicts(studies: dict, level: float = 0.05) -> pd.DataFrame:
    """What each protocol says of every unit of several networks.

    Args:
        studies: name to `protocols.Study`. The one called "random weights" is the null of itself and of "this
            network"; the others are of another kind and have none.
        level: of the tests, and of the false discovery rate.

    Returns:
        A row for each network and unit: network, unit, published (significant; NaN where it was not asked), absence
        and veto (values),
        suppressed (absence above 0, q below level), beyond_null (suppressed, and absence above the 95th percentile of
        the random-weight null; NaN where there is none), vetoed (veto against median images above `scores.LEAST`,
        q_least below level).
    """
    null = studies["random weights"].fair.scores if "random weights" in studies else None
    limit = np.nan if null is None else np.nanquantile(pick(null, "absence", MAIN)["value"], 0.95)
    rows = []
    for name, study in studies.items():
        absence = pick(study.fair.scores, "absence", MAIN)
        veto = pick(study.fair.scores, "veto", "median images")
        suppressed = (absence["value"] > 0) & (absence["q"] < level)
        rows.append(
            pd.DataFrame(
                {
                    "network": name,
                    "unit": absence.index,
                    "published": _published(study, absence.index),
                    "absence": absence["value"].to_numpy(),
                    "veto": veto["value"].to_numpy(),
                    "suppressed": suppressed.to_numpy(),
                    "beyond_null": (suppressed & (absence["value"] > limit)).astype(float).to_numpy()
                    if name in ("this network", "random weights") and null is not None
                    else np.nan,
                    "vetoed": ((veto["value"] > 0) & (veto["q_least"] < level)).to_numpy(),
                }
            )
        )
    return pd.concat(rows, ignore_index=True)


def _published(study: Study, units) -> np.ndarray:
    """[unit] 1 where the published test is significant, 0 where not, NaN where it was not asked."""
    return study.published.tests.set_index("unit")["significant"].astype(float).reindex(units).to_numpy()


def typical_pairs(fair: Fair, units: list[int]) -> dict[int, pd.DataFrame]:
    """For each unit the image and patch whose drop is the median one, under every condition that shares them.

    Returns:
        unit to rows of `fair.inputs` (first draws) indexed by "group: condition"; those of neutral images have the
        same patch, place and rank, on another image.
    """
    pairs = {}
    for unit in units:
        own = fair.inputs[(fair.inputs["unit"] == unit) & (fair.inputs["draw"] == 0)]
        if own.empty:
            raise InputError(
                "units", f"unit {unit} was not studied", f"Use some of {fair.units.unit.tolist()}."
            )
        top = own[own["group"] == "top"].pivot_table(
            index=["row", "column"], columns="condition", values="response", observed=True
        )
        drop = (top["random"] - top["lowest"]).sort_values(kind="stable")
        row, column = drop.index[(len(drop) - 1) // 2]
        own = own[own["column"] == column]
        neutral = own[own["group"] == "neutral"]["row"]
        same = (
            row if row in neutral.to_numpy() else neutral.min()
        )  # a unit may have fewer neutral images than top ones
        rows = own["group"].map({"top": row, "neutral": same, "blank": 0}).astype(float)
        here = own[own["row"] == rows]
        names = here["group"].astype(str) + ": " + here["condition"].astype(str)
        pairs[unit] = here.set_index(names)
    return pairs


def example_pictures(study: Study, dataset, units: list[int], feather: int = 6) -> tuple[dict, pd.DataFrame]:
    """A typical image of each unit with each kind of patch in it, for `plots.insertion.insertion_examples`.

    Returns:
        (pictures, table): unit to {condition: [channel, height, width] in 0..1}; a row for each picture with unit,
        condition, response (sd from the unit's mean), top, left and side (px of the patch; 0 where there is none).
    """
    stack, fair = stack_images(dataset), study.fair
    about = fair.units.set_index("unit")
    pictures, rows = {}, []
    for unit, pair in typical_pairs(fair, units).items():
        shown = pair.reindex([name for name in EXAMPLES if name in pair.index])
        keys = shown[["image", "patch", "place", "feathered"]].astype(int)
        images = input_images(stack, fair.bank, keys, feather)
        if stack.normalisation:
            images = stack.normalisation.undo(images)
        pictures[unit] = dict(zip(shown.index, images, strict=True))
        corners = upper_left(images, (fair.bank.side,) * 2, torch.tensor(keys.place.tolist())).tolist()
        for (name, row), (top, left) in zip(shown.iterrows(), corners, strict=True):
            response = (row.response - about["mean"][unit]) / about["sd"][unit]
            rows.append((unit, name, response, top, left, fair.bank.side * (row.patch != UNTOUCHED)))
    return pictures, pd.DataFrame(rows, columns=["unit", "condition", "response", "top", "left", "side"])
