"""Where does suppression depend on context? By layer, by reading and by pooling: data/measured/context.csv.

    python benchmarks/bench_context.py > part.csv                                  concept scenes, minutes of one core
    python benchmarks/bench_context.py --images DIR --weights FILE > part.csv      SqueezeNet 1.0

Pooling over space by the mean asks whether the sum over the map depends on what else is there, pooling by the maximum
asks it of the best position. In one layer's own map nothing changes beyond a patch's reach, so that a mean is additive
by architecture, and a maximum saturates. Each network is followed by copies of it with random weights.
"""

import argparse
import sys
from datetime import date
from pathlib import Path
from time import process_time

import numpy as np
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
from make_measured import machine

from absence_utils.images.cache import stack_images
from absence_utils.images.load import load_images
from absence_utils.images.scenes import scene_dataset
from absence_utils.images.subsets import shuffle_images
from absence_utils.insertion.context import context_effects
from absence_utils.insertion.design import InsertionConfig
from absence_utils.insertion.hosts import layer_effects
from absence_utils.insertion.published import share_interval
from absence_utils.models.load import load_model
from absence_utils.models.random_weights import random_copy

POOLS = ("mean", "max")
SCENES = InsertionConfig(patch=24, stride=8, k=12, images=192, pairs="one")
PHOTOGRAPHS = InsertionConfig(patch=56, stride=28, k=8, images=16, pairs="one")
LAYERS = {"concept_scenes": ("block2", "block3", "block4", "hidden", "logits"),
          "squeezenet1_0": ("features.12.expand3x3", "logits")}  # fmt: skip


def contexts(model, layer: str, stack, setting: InsertionConfig, most: int, seed: int) -> pd.DataFrame:
    """A row for each unit and reading, see `context_effects`: at most `most` units, drawn at random."""
    found = layer_effects(model, layer, stack, setting, units=[0], redraws=1)
    channels = found.responses["signed"].shape[1]
    units = sorted(np.random.default_rng(seed).permutation(channels)[:most].tolist())
    return context_effects(model, layer, stack, found.mined, found.hosts, setting, found.responses, units)


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each reading: units, those asked (with a trigger), those found, the share with its 95% interval."""
    rows = []
    for reading, part in table.groupby("reading", sort=False):
        asked = part[part["context"].notna()]
        share, low, high = share_interval(asked["found"].astype(bool)) if len(asked) else 3 * [np.nan]
        rows.append({
            "reading": reading, "units": len(part), "asked": len(asked), "found": int(asked["found"].sum()),
            "share": share, "low": low, "high": high, "median (sd)": asked["context"].median(),
        })  # fmt: skip
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, help="folder with ImageNet's class folders")
    parser.add_argument("--weights", type=Path, help="of SqueezeNet 1.0")
    parser.add_argument("--limit", type=int, default=300, help="photographs")
    parser.add_argument("--units", type=int, default=64, help="of a layer, drawn at random")
    parser.add_argument("--copies", type=int, default=2, help="with random weights")
    options = parser.parse_args()
    torch.set_num_threads(1)
    real = options.images is not None
    if real:
        name, network = "squeezenet1_0", load_model("squeezenet1_0", weights=options.weights)
        dataset = load_images(options.images, network, limit=options.limit)
    else:
        name, network, dataset = "concept_scenes", load_model("concept_scenes"), scene_dataset(900, 0)
    stack, setting = stack_images(shuffle_images(dataset, 0)), PHOTOGRAPHS if real else SCENES
    few, tables = stack.take(np.arange(8)), []
    copies = {
        f"random {seed}": random_copy(network, seed, images=few) for seed in range(1, options.copies + 1)
    }
    for weights, model in ({"trained": network} | copies).items():
        for layer in LAYERS[name]:
            for pool in POOLS[: 1 if layer in ("hidden", "logits") else 2]:  # vectors have one position
                start = process_time()
                own = InsertionConfig(**(vars(setting) | {"pool": pool}))
                table = summarise(contexts(model, layer, stack, own, options.units, 0))
                about = {"network": name, "weights": weights, "layer": layer, "pool": pool}
                tables.append(table.assign(**about)[[*about, *table]])
                print(f"{about}: {process_time() - start:.0f} s", file=sys.stderr, flush=True)
                print(table.to_string(), file=sys.stderr, flush=True)
    command = "python benchmarks/bench_context.py" + (" --images DIR --weights FILE" if real else "")
    found = pd.concat(tables, ignore_index=True).round(2)
    found.assign(command=command, machine=machine(), date=date.today()).to_csv(sys.stdout, index=False)


if __name__ == "__main__":
    main()
