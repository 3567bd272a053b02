"""Both protocols on several networks, some with a known answer: what each says of every unit, and typical pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from torch import nn

from absence_utils.errors import require_at_least
from absence_utils.images.cache import stack_images
from absence_utils.images.scenes import RULES, scene_dataset
from absence_utils.images.subsets import shuffle_images
from absence_utils.models.load import load_model
from absence_utils.stats import rate_table
from absence_utils.units import device_of

from .context import context_effects
from .decisions import decide, sizes_that_count
from .design import InsertionConfig
from .hosts import layer_effects
from .known_units import RULES as KINDS
from .known_units import SyntheticUnits
from .protocols import InsertionStudy, insertion_study
from .scores import ABSENCES, LEVEL, MAIN_CONTROL, calibrate, select_score

PLANTED = np.array([bool(rule.absent) for rule in RULES.values()])  # scenes rules that ask for an absence


def compare_networks(
    model: nn.Module,
    random_model: nn.Module,
    layer: str | None,
    dataset,
    setting: InsertionConfig,
    *,
    units: list[int] | None = None,
    control_units: int | None = None,
    published: InsertionConfig | None = None,
    all_pairs: InsertionConfig | None = None,
    null_units: int = 32,
    known_images: int | None = None,
    known_scenes: int = 450,
    **options,
) -> dict[str, InsertionStudy]:
    """`insertion_study` of a network and of four whose answer is known, through the same code.

    Args:
        model, layer, dataset, setting, units, control_units, published, all_pairs, options: of `insertion_study`.
        random_model: the same network with random weights.
        null_units: units of that, and of each kind of `known_units.SyntheticUnits`.
        known_images: top images of those, which are cheap: all patches go into all of them. `setting.images` if None.
        known_scenes: concept scenes for the logits of the concept-scenes network.

    Returns:
        Name to study: "this network"; "random weights"; "additive units", which inhibit nothing, and "veto units",
        which are "a and not b" by construction, both on the same images; "scenes rules", the logits of the
        concept-scenes network on scenes of its own (the rules with an absence are those in `PLANTED`).
    """
    stack = stack_images(dataset)
    device = device_of(model)
    asked = {"published": published, "all_pairs": all_pairs}
    studies = {
        "this network": insertion_study(
            model,
            layer,
            stack,
            setting,
            units=units,
            control_units=control_units,
            **asked,
            **options,
        )
    }
    every = studies["this network"].fair.units.unit.tolist()
    few = {**asked, **options, "control_units": 0}
    studies["random weights"] = insertion_study(
        random_model, layer, stack, setting, units=every[:null_units], **few
    )
    cheap = replace(setting, pairs="all", images=known_images or setting.images, pool="mean")
    few |= {name: each and replace(each, pool="mean") for name, each in asked.items()}  # these have no tokens
    sample = stack.take(range(min(300, len(stack)))).to(device)
    for rule in ("additive", "veto"):
        known = SyntheticUnits(sample, null_units, rule, seed=setting.seed)
        studies[f"{rule} units"] = insertion_study(known, None, stack, cheap, **few)
    scenes = shuffle_images(scene_dataset(known_scenes, setting.seed), setting.seed)
    own = InsertionConfig(24, 8, setting.k, min(12, known_scenes // 30), seed=setting.seed)
    many = published and replace(own, pairs="one_random", images=min(published.images, known_scenes))
    studies["scenes rules"] = insertion_study(
        load_model("concept_scenes", device=device),
        "logits",
        scenes,
        own,
        published=many,
        all_pairs=all_pairs and own,
        redraws=2,
    )
    return studies


def decide_networks(
    model: nn.Module,
    random_model: nn.Module,
    layer: str | None,
    dataset,
    setting: InsertionConfig,
    *,
    units: list[int] | None = None,
    known_units: int = 32,
    known_scenes: int = 900,
    context_units: int = 0,
) -> pd.DataFrame:
    """What `decide` says of a network, of the same with random weights, and of units whose answer is known.

    Args:
        model, random_model, layer, dataset: as for `compare_networks`.
        setting: of `hosts.host_effects`, with pairs="one". Where a third of the images goes to the patches, fewer than
            `setting.images` may be left: then as many as there are, in whole rounds of the k patches.
        units: channels; all if None.
        known_units: units of each kind of `known_units.SyntheticUnits`: "additive" and "saturating" units have no
            context, "veto" units have one.
        known_scenes: concept scenes for the logits of the concept-scenes network ("scenes rules").
        context_units: most units of each network whose context is asked, drawn at random; 0 for all. It takes longer
            than the decision, and is corrected for the units asked.

    Returns:
        The columns of `decide` and of `context.context_effects` (its low and high as context_low and context_high, NaN
        and a missing `found` where it was not asked), and network, a row for each unit and reading.

    Raises:
        InputError: a negative number of context_units.
    """
    require_at_least("context_units", context_units, 0)
    stack = stack_images(dataset)
    sample = stack.take(range(min(300, len(stack)))).to(device_of(model))
    scenes = shuffle_images(scene_dataset(known_scenes, setting.seed), setting.seed)
    own = _with_hosts(replace(setting, patch=24, stride=8), known_scenes)
    setting = _with_hosts(setting, len(stack))
    asked = {"context_units": context_units}
    tables = {
        "this network": decide_layer(model, layer, stack, setting, units, **asked),
        "random weights": decide_layer(random_model, layer, stack, setting, units, **asked),
    }
    for rule in KINDS:
        known = SyntheticUnits(sample, known_units, rule, seed=setting.seed)
        tables[f"{rule} units"] = decide_layer(known, None, stack, setting, **asked)
    shipped = load_model("concept_scenes", device=device_of(model))
    tables["scenes rules"] = decide_layer(shipped, "logits", stack_images(scenes), own, **asked)
    return pd.concat([table.assign(network=name) for name, table in tables.items()], ignore_index=True)


def _with_hosts(setting: InsertionConfig, count: int) -> InsertionConfig:
    """At most the images that are not mined, of `count`, and as many for each of the k patches."""
    hosts = min(setting.images, count - count // 3)
    return replace(setting, images=hosts - hosts % setting.k)


def decide_layer(
    model, layer: str | None, stack, setting: InsertionConfig, units=None, context_units: int = 0
) -> pd.DataFrame:
    """Decision and context of the units of a layer; see `decide_networks`."""
    effects, mined, hosts, responses = layer_effects(model, layer, stack, setting, units=units)
    asked = effects["unit"].unique()
    asked = np.sort(setting.generator(7).permutation(asked)[: context_units or None])
    context = context_effects(model, layer, stack, mined, hosts, setting, responses, asked)
    context = context.rename(columns={"low": "context_low", "high": "context_high"})
    sizes = sizes_that_count(setting.patch, *stack.take([0]).shape[2:])
    table = decide(effects, deltas=sizes).merge(context, on=["unit", "reading"], how="left")
    return table.astype({"found": "boolean"})  # which has a word for "not asked"


def verdicts(studies: dict) -> pd.DataFrame:
    """What each protocol says of every unit of several networks.

    Args:
        studies: name to `protocols.InsertionStudy`.

    Returns:
        A row for each network and unit: network, unit, published (significant either way, as published),
        published_lower and all_pairs_lower (significant and lower with lowest patches, with one random patch and with
        all patches in each image; NaN where that was not asked), absence and veto (values), suppressed (absence above
        0, q below 0.05), vetoed (veto against median images above `scores.MIN_EFFECT`, q_least below 0.05).
    """
    tables = {}
    for name, study in studies.items():
        absence = select_score(study.fair.scores, "absence", MAIN_CONTROL)
        veto = select_score(study.fair.scores, "veto", "median images")
        tables[name] = pd.DataFrame({
            "published": study.published.verdict(absence.index),
            "published_lower": study.published.verdict(absence.index, "lower"),
            "all_pairs_lower": study.all_pairs.verdict(absence.index, "lower") if study.all_pairs else np.nan,
            "absence": absence["value"],
            "veto": veto["value"],
            "suppressed": (absence["value"] > 0) & (absence["q"] < LEVEL),
            "vetoed": (veto["value"] > 0) & (veto["q_least"] < LEVEL),
        })  # fmt: skip
    return pd.concat(tables, names=["network", "unit"]).reset_index()


def compare_scores(study: InsertionStudy, null: InsertionStudy) -> tuple[pd.DataFrame, float]:
    """The controlled scores of a network beside those of a copy with random weights.

    Args:
        study, null: of the network and of the copy, as `compare_networks` gives them.

    Returns:
        (table, limit). The table has the rows of `ControlledResult.scores`, with the percentile of each among the
        copy's units (`scores.calibrate`), what is known of the unit (`ControlledResult.units`), and dipped: its absence
        score where patches and images were chosen on what is measured (the published protocol, with all pairs if that
        was asked). The limit is what 95% of the copy's units stay below, in sd.
    """
    limit = np.nanquantile(select_score(null.fair.scores, "absence", MAIN_CONTROL)["value"], 0.95)
    dipped = (study.all_pairs or study.published).tests.set_index("unit")["absence"].rename("dipped")
    about = study.fair.units.merge(dipped, on="unit", how="left")
    return calibrate(study.fair.scores, null.fair.scores).merge(about, on="unit"), float(limit)


def control_table(scores: pd.DataFrame) -> pd.DataFrame:
    """The absence score against each control: does it hang on the one that was chosen?

    Args:
        scores: with the columns unit, score, condition, value and low, as `compare_scores` gives them.

    Returns:
        A row for each control, in the order of `scores.ABSENCES`: units (that got it), median, smallest and largest
        score in sd, and above 0 (units whose 95% interval lies above 0).
    """
    rows = scores[(scores["score"] == "absence") & scores["condition"].isin(ABSENCES)].dropna(subset="value")
    found = rows.groupby("condition")["value"].agg(["count", "median", "min", "max"])
    found["above 0"] = (rows["low"] > 0).groupby(rows["condition"]).sum()
    found = found.reindex([name for name in ABSENCES if name in found.index])
    names = {"count": "units", "min": "smallest", "max": "largest"}
    return found.rename(columns=names).rename_axis("control").reset_index()


def describe_verdicts(table: pd.DataFrame, layer: str | None) -> str:
    """What `verdicts` of the five networks of `compare_networks` come to, in sentences with their numbers.

    Args:
        table: as `verdicts` gives it.
        layer: name of the layer that "this network" was asked of.
    """
    means = table.groupby("network", sort=False)[["all_pairs_lower", "absence", "vetoed"]].mean()
    rates = rate_table(table.dropna(subset="published"), "published", by=["network"], cluster="unit")
    said = {row.network: f"{row.rate:.0%} [{row.low:.0%}, {row.high:.0%}]" for row in rates.itertuples()}
    own, random, additive, built = "this network", "random weights", "additive units", "veto units"
    every = means.all_pairs_lower[additive]
    again = "" if np.isnan(every) else f"; with every patch in every image {every:.0%}"
    vetoed = means.vetoed.map("{:.0%}".format)
    called = table[table["network"] == "scenes rules"]["vetoed"].to_numpy(bool)
    return (
        f"The published test is significant in {said[own]} of the units of {layer or 'the output'}, in "
        f"{said[random]} at random weights and in {said[additive]} of units that inhibit nothing (95% intervals over "
        f"units{again}). Lowest patches do lower the response: the absence score is {means.absence[own]:.2f} sd on "
        f"average (random weights {means.absence[random]:.2f}, additive units {means.absence[additive]:.2f}). A veto "
        f"is found in {vetoed[own]} of units (random weights {vetoed[random]}, additive {vetoed[additive]}, built as "
        f"a veto {vetoed[built]}), and in {(called & PLANTED).sum()} of {PLANTED.sum()} scenes rules with an absence "
        f"(one of them, 'not ring', has no veto) and {(called & ~PLANTED).sum()} of {(~PLANTED).sum()} without."
    )
