"""Names of encoded absences against exact truth, and on real images: data/measured/naming.csv.

    python benchmarks/bench_naming.py > part.csv                                  concept scenes, three networks
    python benchmarks/bench_naming.py --images DIR --weights FILE > part.csv      SqueezeNet 1.0, ten minutes

Each network is followed by a copy with random weights. `agree` counts the confirmed names that are the exact strongest
suppressor, `near` those whose exact effect is within 0.1 sd of it, `wrong` those whose exact effect is above -0.05 sd,
the least that counts.
"""

import argparse
import sys
from datetime import date
from pathlib import Path

import pandas as pd
import torch

from absence_utils.benchmark.effects import exact_effects
from absence_utils.benchmark.networks import load_benchmark_network
from absence_utils.images.load import load_images
from absence_utils.images.scenes import scene_dataset
from absence_utils.models.load import load_model
from absence_utils.models.random_weights import random_copy
from absence_utils.naming import name_absence, scene_concepts, tree_concepts
from absence_utils.naming.truth import against_truth
from absence_utils.paths import DATA

LAYER = "features.12.expand3x3"


def of_scenes() -> pd.DataFrame:
    """Rows for block4 of three networks and of their copies with random weights."""
    networks = {"concept_scenes": load_model("concept_scenes")}
    networks |= {f"rules/{seed}": load_benchmark_network("rules", seed) for seed in (0, 1)}
    hosts, concepts, rows = scene_dataset(400, 5), scene_concepts(160, 77), []
    for name, network in networks.items():
        for weights, model in (("trained", network), ("random", random_copy(network, 1))):
            found = name_absence(model, "block4", hosts, concepts, hosts=2)
            truth = dict(list(exact_effects(model, "block4", 100).groupby("reading")))
            for reading, table in found.table.groupby("reading", sort=False):
                judged = against_truth(table, truth[reading])
                about = {"network": name, "layer": "block4", "weights": weights, "reading": reading}
                rows.append(about | counts(table) | judged)
                print(rows[-1], file=sys.stderr, flush=True)
    return pd.DataFrame(rows)


def of_squeezenet(images: Path, weights: Path, keep: Path | None) -> pd.DataFrame:
    """Rows for SqueezeNet 1.0 with the shipped categories, and its copy with random weights."""
    network, rows = load_model("squeezenet1_0", weights=weights), []
    dataset = load_images(images, network)
    concepts = tree_concepts(dataset, DATA / "imagenet_categories.csv")
    for kind, model in (("trained", network), ("random", random_copy(network, 1))):
        found = name_absence(model, LAYER, dataset, concepts)
        if keep:
            found.table.to_csv(keep / f"squeezenet_{kind}.csv", index=False)
        for reading, table in found.table.groupby("reading", sort=False):
            about = {"network": "squeezenet1_0", "layer": LAYER, "weights": kind, "reading": reading}
            rows.append(about | counts(table))
            print(rows[-1], file=sys.stderr, flush=True)
    return pd.DataFrame(rows)


def counts(table: pd.DataFrame) -> dict:
    """Units, confirmed names, and how many of those were confirmed in other hosts, too."""
    return {
        "units": len(table),
        "confirmed": int(table.confirmed.sum()),
        "repeated": int(table.repeated.sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, help="folder with ImageNet's class folders")
    parser.add_argument("--weights", type=Path, help="of SqueezeNet 1.0")
    parser.add_argument("--keep", type=Path, help="folder for the tables of all units")
    options = parser.parse_args()
    torch.set_num_threads(1)
    real = options.images is not None
    table = of_squeezenet(options.images, options.weights, options.keep) if real else of_scenes()
    command = "python benchmarks/bench_naming.py" + (" --images DIR --weights FILE" if real else "")
    machine = "two cores of an x86-64 machine without a GPU"
    table.assign(command=command, machine=machine, date=date.today()).to_csv(sys.stdout, index=False)


if __name__ == "__main__":
    main()
