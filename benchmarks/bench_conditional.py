"""Which units show a synthesised veto, where the answer is known: data/measured/conditional.csv.

    python benchmarks/bench_conditional.py > data/measured/conditional.csv        half an hour of one core
    python benchmarks/bench_conditional.py --summary data/measured/conditional.csv > data/measured/conditional_table.csv

Units made of local filters that add up, saturate or veto; the rules of the concept scenes in networks of several seeds,
of which two have a veto, with the driver found by its evidence and, for the rules that a concept drives, with its exact
mask; the networks on random rules in eight worlds; and copies with random weights, logits and channels of block4.

The method's choices (16 images, 96 steps, the mean of two surrounds, the smallest effect that counts) were made on a
part of the networks: `EARLIER`. Column `new` is true of all others: the method was run on them with nothing changed.
What counts as a planted veto was written down before, too: "A and not B". "2 or more of A, B, not C", exclusive or,
"fewer than 2 of" and "left of" have one beside some drivers alone, and are "open". That "A and B" stands on its own in
the summary was decided after a look at the first two networks of each world on random rules; so these count as earlier.

Column `pairs` is what the networks do in exact pairs of scenes, which differ in one concept: the effect of the
suppressor beside the driver, less that without, in sd of natural responses. There synthesis has no part. `held` is the
share of an image that is held as the driver, `shows_with` and `shows_without` the concepts that a detector finds
strongest in the two surrounds.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from time import process_time

import pandas as pd
import torch
import torch.nn.functional as F
from bench_minima import named
from safetensors.torch import load_file, save_file
from scipy.stats import binomtest
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
from make_benchmark_networks import train
from make_measured import machine

from absence_utils.benchmark.networks import SEEDS, load_benchmark_network
from absence_utils.benchmark.rule_networks import WORLDS, load_rule_network, network_names, rules_of
from absence_utils.errors import InputError
from absence_utils.images.base import TensorImages, set_input_spec
from absence_utils.images.scenes import CONCEPTS, NORMALISATION, RULES, scene_dataset
from absence_utils.images.worlds import World, with_concept
from absence_utils.insertion.context import evidence_masks
from absence_utils.insertion.known_units import RULES as KINDS
from absence_utils.insertion.known_units import SyntheticUnits
from absence_utils.models.concept_net import ConceptNet
from absence_utils.models.load import load_model
from absence_utils.models.random_weights import random_copy
from absence_utils.models.training import predict
from absence_utils.units import Unit, dataset_responses
from absence_utils.visualization.conditional import conditional_pair, conditional_table

IMAGES = 16  # top images, of which half are held out
PAIRS = 100  # of scenes, for each of the four versions
EARLY_RANDOM_RULES = 2  # networks of each world that were looked at before
EARLIER = ("concept_scenes", "rules/0", "rules/1", "rules/2", "random 1", "random 2", "filters 0")
VETOES = {name for name, rule in RULES.items() if rule.present and rule.absent}
PLANTED = dict.fromkeys(("xor", "majority", "fewer than 2 of", "left of"), "open") | {"and not": "yes"}
PARTS = ("by hand", "scenes", "random rules", "random weights")
TRAINED = Path(__file__).resolve().parents[1] / "data" / "parts"
COLUMNS = ["network", "weights", "new", "layer", "mask", "unit", "rule", "planted", "pairs", "driver", "with_driver",
           "without_driver", "interaction", "low", "high", "fitted_with", "fitted_without", "q", "ranks",
           "veto", "held", "shows_with", "shows_without"]  # fmt: skip


def vetoes(
    model: nn.Module,
    layer: str | None,
    dataset,
    units: list[int],
    masks: Callable = evidence_masks,
    reads: Callable = lambda _: ("", ""),
    **options,
) -> pd.DataFrame:
    """Rows of `conditional_table` for some units.

    `masks` gives the drivers: `evidence_masks`, or a function of the unit and the numbers of its top images. `reads`
    names what each of the two surrounds shows.
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
    shown = [reads(pair.surround[0]) for pair in pairs]
    return conditional_table(pairs).assign(
        held=[pair.mask.mean().item() for pair in pairs],
        shows_with=[first for first, _ in shown],
        shows_without=[second for _, second in shown],
    )


def detector_of(scenes: Tensor) -> Callable:
    """Names the strongest concept of each image, in sd of what a detector that saw none of the networks says."""
    detector = load_benchmark_network("detector")

    def reads(pixels: Tensor) -> list[str]:
        return named(detector, pixels, scenes)

    return reads


def known_units(rule: str, images: Tensor, count: int, seed: int) -> nn.Module:
    """Units of local filters under a last layer that hands them on: so the rule itself is what is read."""
    last = nn.Linear(count, count, bias=False)
    last.weight.data = torch.eye(count)
    model = nn.Sequential(SyntheticUnits(images, count, rule, seed=seed), last).eval().requires_grad_(False)
    return set_input_spec(model, NORMALISATION, 3)


def fresh_network(seed: int) -> ConceptNet:
    """A network as the benchmark's, of a seed that does not ship; it is trained in minutes and kept in data/parts/."""
    part = TRAINED / f"rules-{seed}.safetensors"
    if not part.is_file():
        TRAINED.mkdir(exist_ok=True)
        save_file(train(f"rules/{seed}").state_dict(), part)
    network = ConceptNet(len(RULES))
    network.load_state_dict(load_file(part))
    return network.eval()


def exact_masks(dataset) -> Callable:
    """The glyph of the first concept that a rule asks for, grown by 2 px, with soft edges."""

    def masks(unit: Unit, numbers: Tensor) -> Tensor:
        rule = list(RULES.values())[unit.channel]
        shown = dataset.masks[numbers, CONCEPTS.index(rule.present[0])].float()[:, None]
        return F.avg_pool2d(F.max_pool2d(shown, 5, 1, 2), 3, 1, 1)[:, 0]

    return masks


def scenes_of(world: World, count: int, seed: int) -> TensorImages:
    """Scenes of a world, normalised for its networks; nothing but their images is used."""
    pixels = world.render(world.draw_presence(count, seed), seed).pixels
    labels = torch.zeros(count, dtype=torch.long)
    return TensorImages(NORMALISATION.apply(pixels), labels, ["scene"], normalisation=NORMALISATION)


def in_pairs(model: nn.Module, world: World, driver: int, suppressor: int, unit: int, spread: float) -> float:
    """Effect of one concept beside another, less that without it, in the mean over scenes, in units of `spread`."""
    presence, seed = world.draw_presence(PAIRS, 41), 41
    answers = {}
    for driven in (True, False):
        for suppressed in (True, False):
            shown = with_concept(with_concept(presence, driver, driven), suppressor, suppressed)
            images = NORMALISATION.apply(world.render(shown, seed).pixels)
            answers[driven, suppressed] = predict(model, images)[:, unit].mean().item()
    beside = answers[True, True] - answers[True, False]
    return (beside - (answers[False, True] - answers[False, False])) / spread


def by_hand(known: tuple[int, int], images: Tensor, dataset) -> Iterator[pd.DataFrame]:
    for kind in KINDS:
        for seed, count in enumerate(known):
            found = vetoes(known_units(kind, images, count, seed), None, dataset, list(range(count)))
            planted = "yes" if kind == "veto" else "no"
            names = {
                "network": f"{kind} units",
                "weights": f"filters {seed}",
                "mask": "evidence",
                "rule": kind,
            }
            yield found.assign(**names, planted=planted, pairs=float("nan"))


def trained(fresh: int, dataset) -> Iterator[pd.DataFrame]:
    """Networks on the rules of the scenes."""
    networks = {"concept_scenes": load_model("concept_scenes")}
    networks |= {f"rules/{seed}": load_benchmark_network("rules", seed) for seed in range(SEEDS)}
    networks |= {f"rules/{seed}": fresh_network(seed) for seed in range(SEEDS, SEEDS + fresh)}
    driven, rules = [number for number, rule in enumerate(RULES.values()) if rule.present], list(RULES)
    reads = detector_of(dataset.images)
    for name, network in networks.items():
        spreads = dataset_responses(network, "logits", dataset).std(dim=0)
        pairs = {}
        for number, rule in enumerate(RULES.values()):
            if rules[number] in VETOES:
                both = CONCEPTS.index(rule.present[0]), CONCEPTS.index(rule.absent[0])
                pairs[number] = in_pairs(network, World(), *both, number, spreads[number].item())
        for mask in ("evidence", "exact"):
            units = list(range(len(RULES))) if mask == "evidence" else driven
            masks = evidence_masks if mask == "evidence" else exact_masks(dataset)
            found = vetoes(network, "logits", dataset, units, masks, reads)
            numbers = [int(unit.split(":")[1]) for unit in found["unit"]]
            yield found.assign(
                network=name,
                weights="trained",
                mask=mask,
                rule=[rules[number] for number in numbers],
                planted=["yes" if rules[number] in VETOES else "no" for number in numbers],
                pairs=[pairs.get(number) for number in numbers],
            )


def random_rules(count: int, worlds: list[str]) -> Iterator[pd.DataFrame]:
    """Networks on rules drawn at random, the first ones of each world."""
    for name in network_names():
        world, _, number = name.partition("/")
        if int(number) >= count or world not in worlds:
            continue
        network, rules = load_rule_network(name), rules_of(name)
        dataset = scenes_of(rules.world, 600, 0)
        spreads = dataset_responses(network, "logits", dataset).std(dim=0)
        found = vetoes(network, "logits", dataset, list(range(len(rules.rules))))
        numbers = [int(unit.split(":")[1]) for unit in found["unit"]]
        kinds = [rules.rules[number].kind for number in numbers]
        pairs = [
            in_pairs(network, rules.world, *rules.rules[number].concepts, number, spreads[number].item())
            if kind == "and not" else float("nan")
            for number, kind in zip(numbers, kinds, strict=True)
        ]  # fmt: skip
        yield found.assign(
            network=f"random rules: {name}", weights="trained", mask="evidence", pairs=pairs,
            rule=[rules.names[number] for number in numbers],
            planted=[PLANTED.get(kind, "no") for kind in kinds],
        )  # fmt: skip


def random_weights(copies: list[int], channels: int, dataset) -> Iterator[pd.DataFrame]:
    for seed in range(copies[0], copies[1] + 1):
        copy = random_copy(load_model("concept_scenes"), seed, images=dataset.images[:8])
        for layer, count in (("logits", len(RULES)), ("block4", 64)):
            units = list(range(0, count, 1 if layer == "logits" else 64 // channels))
            found = vetoes(copy, layer, dataset, units)
            names = {"network": "copy of concept_scenes", "weights": f"random {seed}", "mask": "evidence"}
            yield found.assign(**names, rule="", planted="no", pairs=float("nan"))


def tables(options) -> Iterator[pd.DataFrame]:
    """The table of each network, with what is planted."""
    dataset = scene_dataset(600, 0)
    if "by hand" in options.parts:
        yield from by_hand(options.known, dataset.images[:300], dataset)
    if "scenes" in options.parts:
        yield from trained(options.fresh, dataset)
    if "random rules" in options.parts:
        yield from random_rules(options.random_rules, options.worlds)
    if "random weights" in options.parts:
        yield from random_weights(options.copies, options.channels, dataset)


def kind_of(row: pd.Series) -> str:
    """The kind of unit, for the summary."""
    if row["weights"].startswith("filters"):
        return row["network"]
    if row["weights"].startswith("random"):
        return "random weights"
    if row["network"].startswith("random rules"):
        return "random rules, A and B" if re.search(r" and (?!not )", row["rule"]) else "random rules"
    return "rules of the scenes" + (", exact masks" if row["mask"] == "exact" else "")


def is_new(row: pd.Series) -> bool:
    """Whether nothing was chosen, and nothing looked at, on the network."""
    if row["network"].startswith("random rules"):
        return int(row["network"].rpartition("/")[2]) >= EARLY_RANDOM_RULES
    return row["network"] not in EARLIER and row["weights"] not in EARLIER


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """For each kind of unit how many have a veto, how many are called, and between which values they lie."""
    rows = []
    for (kind, planted, new), part in table.groupby(
        [table.apply(kind_of, axis=1), "planted", "new"], sort=False
    ):
        asked = part[part["q"].notna()]
        called = int(asked["veto"].sum())
        low, high = binomtest(called, len(asked)).proportion_ci(method="exact")
        rows.append({
            "units": kind, "veto planted": planted, "networks": "new" if new else "earlier",
            "asked": len(asked), "of": len(part), "called": called,
            "share [95%]": f"{called / len(asked):.0%} [{low:.0%}, {high:.0%}]",
            "lowest": asked["interaction"].min(), "median": asked["interaction"].median(),
            "highest": asked["interaction"].max(), "in exact pairs": asked["pairs"].median(),
            "command": "python benchmarks/bench_conditional.py --summary data/measured/conditional.csv",
            **part[["machine", "date"]].iloc[0],
        })  # fmt: skip
    return pd.DataFrame(rows).round(2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS, help="all, or some side by side")
    parser.add_argument("--fresh", type=int, default=2, help="networks on the scenes' rules of further seeds")
    parser.add_argument("--random-rules", type=int, default=5, help="networks of each world on random rules")
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS), help="of the networks on random rules")
    parser.add_argument("--copies", type=int, nargs=2, default=(1, 11), help="first and last one")
    parser.add_argument("--channels", type=int, default=8, help="of block4 of each copy")
    parser.add_argument(
        "--known", type=int, nargs=2, default=(4, 8), help="units by hand, of two sets of filters"
    )
    parser.add_argument("--summary", help="a table that was written before: what it comes to")
    options = parser.parse_args()
    if options.summary:
        summary(pd.read_csv(options.summary)).to_csv(sys.stdout, index=False)
        return
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    how = {"command": "python benchmarks/bench_conditional.py", "machine": machine(), "date": date.today()}
    start = process_time()
    for number, table in enumerate(tables(options)):
        table = table.assign(new=table.apply(is_new, axis=1))
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
