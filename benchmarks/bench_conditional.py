"""Which units show a synthesised veto, where the answer is known: data/measured/conditional.csv.

    python benchmarks/bench_conditional.py > data/measured/conditional.csv      ten minutes of one core

Units made of local filters that add up, saturate or veto; the five rules of the concept scenes in several
networks, of which two have a veto, with the driver found by its evidence and, for the rules that a concept
drives, with its exact mask; and copies with random weights, logits and channels of block4.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from time import process_time

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
from make_measured import machine

from absence_utils.benchmark.networks import load_benchmark_network
from absence_utils.errors import InputError
from absence_utils.images.base import set_input_spec
from absence_utils.images.scenes import CONCEPTS, NORMALISATION, RULES, scene_dataset
from absence_utils.insertion.context import evidence_masks
from absence_utils.insertion.known_units import RULES as KINDS
from absence_utils.insertion.known_units import SyntheticUnits
from absence_utils.models.load import load_model
from absence_utils.models.random_weights import random_copy
from absence_utils.units import Unit, dataset_responses
from absence_utils.visualization.conditional import conditional_pair, conditional_table

IMAGES = 16  # top images, of which half are held out
VETOES = {name for name, rule in RULES.items() if rule.present and rule.absent}
COLUMNS = ["network", "weights", "layer", "mask", "unit", "planted", "driver", "with_driver",
           "without_driver", "interaction", "low", "high", "fitted_with", "fitted_without", "q", "ranks",
           "veto"]  # fmt: skip


def vetoes(
    model: nn.Module,
    layer: str | None,
    dataset,
    units: list[int],
    masks: Callable = evidence_masks,
    **options,
) -> pd.DataFrame:
    """Rows of `conditional_table` for some units.

    `masks` gives the drivers: `evidence_masks`, or a function of the unit and the numbers of its top images.
    """
    responses, pairs = dataset_responses(model, layer, dataset), []
    for channel in units:
        unit, natural = Unit(model, layer, channel), responses[:, channel]
        top = natural.argsort(descending=True, stable=True)[:IMAGES]
        images = torch.stack([dataset[int(number)][0] for number in top])
        driver = masks(unit, images) if masks is evidence_masks else masks(unit, top)
        try:
            pairs.append(conditional_pair(unit, images, driver, natural, poles=["lowest"], **options))
        except InputError as error:  # no image moves it
            print(f"{unit.name}: {error}", file=sys.stderr)
    return conditional_table(pairs)


def known_units(rule: str, images: Tensor, count: int) -> nn.Module:
    """Units of local filters under a last layer that hands them on: so the rule itself is what is read."""
    last = nn.Linear(count, count, bias=False)
    last.weight.data = torch.eye(count)
    model = nn.Sequential(SyntheticUnits(images, count, rule), last).eval().requires_grad_(False)
    return set_input_spec(model, NORMALISATION, 3)


def exact_masks(dataset) -> Callable:
    """The glyph of the first concept that a rule asks for, grown by 2 px, with soft edges."""

    def masks(unit: Unit, numbers: Tensor) -> Tensor:
        rule = list(RULES.values())[unit.channel]
        shown = dataset.masks[numbers, CONCEPTS.index(rule.present[0])].float()[:, None]
        return F.avg_pool2d(F.max_pool2d(shown, 5, 1, 2), 3, 1, 1)[:, 0]

    return masks


def tables(networks: int, copies: int, channels: int, known: int) -> Iterator[pd.DataFrame]:
    """The table of each network, with what is planted."""
    dataset = scene_dataset(600, 0)
    for kind in KINDS:
        found = vetoes(known_units(kind, dataset.images[:300], known), None, dataset, list(range(known)))
        yield found.assign(
            network=f"{kind} units", weights="by hand", mask="evidence", planted=kind == "veto"
        )
    trained = {"concept_scenes": load_model("concept_scenes")}
    trained |= {f"rules/{seed}": load_benchmark_network("rules", seed) for seed in range(networks - 1)}
    driven = [number for number, rule in enumerate(RULES.values()) if rule.present]
    for name, network in trained.items():
        for mask in ("evidence", "exact") if name == "concept_scenes" else ("evidence",):
            units = list(range(len(RULES))) if mask == "evidence" else driven
            masks = evidence_masks if mask == "evidence" else exact_masks(dataset)
            found = vetoes(network, "logits", dataset, units, masks)
            planted = [list(RULES)[int(unit.split(":")[1])] in VETOES for unit in found["unit"]]
            yield found.assign(network=name, weights="trained", mask=mask, planted=planted)
    for seed in range(1, copies + 1):
        copy = random_copy(trained["concept_scenes"], seed, images=dataset.images[:8])
        for layer, count in (("logits", len(RULES)), ("block4", 64)):
            units = list(range(0, count, 1 if layer == "logits" else 64 // channels))
            found = vetoes(copy, layer, dataset, units)
            yield found.assign(
                network="concept_scenes", weights=f"random {seed}", mask="evidence", planted=False
            )


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """For each kind of unit how many have a veto, how many are called, and between which values they lie."""
    kinds = table["network"].where(
        table["weights"] == "by hand", "rules of the scenes, " + table["mask"] + " masks"
    )
    kinds = kinds.where(~table["weights"].str.startswith("random"), "random weights")
    rows = []
    for (kind, planted), part in table.groupby([kinds, "planted"], sort=False):
        asked = part[part["q"].notna()]
        rows.append({
            "units": kind, "veto planted": "yes" if planted else "no", "asked": len(asked), "of": len(part),
            "called": int(asked["veto"].sum()), "lowest": asked["interaction"].min(),
            "median": round(asked["interaction"].median(), 2), "highest": asked["interaction"].max(),
            "command": "python benchmarks/bench_conditional.py --summary data/measured/conditional.csv",
            **part[["machine", "date"]].iloc[0],
        })  # fmt: skip
    return pd.DataFrame(rows).round(2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=4, help="trained on the rules of the scenes")
    parser.add_argument("--copies", type=int, default=2, help="with random weights")
    parser.add_argument("--channels", type=int, default=8, help="of block4 of each copy")
    parser.add_argument("--known", type=int, default=4, help="units of each kind made by hand")
    parser.add_argument("--summary", help="a table that was written before: what it comes to")
    options = parser.parse_args()
    if options.summary:
        summary(pd.read_csv(options.summary)).to_csv(sys.stdout, index=False)
        return
    del options.summary
    torch.set_num_threads(1)
    how = {"command": "python benchmarks/bench_conditional.py", "machine": machine(), "date": date.today()}
    start = process_time()
    for number, table in enumerate(tables(**vars(options))):
        layer, unit = zip(*table["unit"].str.split(":"), strict=True)
        found = table.assign(layer=layer, unit=[int(each) for each in unit])[COLUMNS]
        found.assign(**how).round(3).to_csv(sys.stdout, index=False, header=number == 0)
        print(
            found.round(2).to_string(),
            f"{process_time() - start:.0f} s",
            sep="\n",
            file=sys.stderr,
            flush=True,
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
