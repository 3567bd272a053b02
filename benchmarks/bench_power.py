"""How often the decision is right: power, false alarms and "cannot tell" on networks whose truth is known.

    python benchmarks/bench_power.py --out FOLDER                                # units.csv, a row for each unit
    python benchmarks/bench_power.py --out FOLDER --table data/measured/power.csv

Truth is the exact effect of each concept on a unit (`benchmark.effects`): a scene with it and the same without.
Clear absences: the strongest suppressor is beyond -0.25 sd (signed) or -0.2 sd (passed on) with the upper end of
its 95 % interval; there is none where it is above -0.1 sd. Networks: trained on the scenes' rules, on rules without
an absence, a detector of concepts, and copies with random weights. Some twenty minutes of one core.
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

from absence_utils.benchmark.effects import exact_effects
from absence_utils.benchmark.networks import load_benchmark_network
from absence_utils.files import write_atomically
from absence_utils.images.cache import stack_images
from absence_utils.images.scenes import scene_dataset
from absence_utils.images.subsets import shuffle_images
from absence_utils.insertion.decisions import CANNOT_TELL, ENCODES, NONE, decide
from absence_utils.insertion.design import InsertionConfig
from absence_utils.insertion.hosts import layer_effects
from absence_utils.models.load import load_model
from absence_utils.models.random_weights import random_copy

LAYERS = ("block2", "block3", "block4", "hidden")
CLEAR = {"signed": -0.25, "passed on": -0.2}  # sd, effect of the strongest suppressor
ABSENT = -0.1  # sd, above it there is none
SETTING = InsertionConfig(patch=24, stride=8, k=12, images=192, pairs="one")


def networks(images) -> dict:
    """Name to (kind, network)."""
    shipped = load_model("concept_scenes")
    found = {"concept_scenes": ("rules", shipped)}
    found |= {f"rules {seed}": ("rules", load_benchmark_network("rules", seed)) for seed in (0, 1)}
    found["twin 0"] = ("no absence asked for", load_benchmark_network("twin", 0))
    found["detector 0"] = ("no absence asked for", load_benchmark_network("detector", 0))
    copies = {
        f"random {seed}": ("random weights", random_copy(shipped, seed, images=images)) for seed in (1, 2)
    }
    return found | copies


def study(network, layer: str, stack, setting: InsertionConfig, pairs: int) -> pd.DataFrame:
    """The decision on each unit in each reading, beside the exact effect of its strongest suppressor."""
    effects = layer_effects(network, layer, stack, setting).effects
    truth = exact_effects(network, layer, pairs)
    strongest = truth.loc[truth.groupby(["unit", "reading"])["effect"].idxmin()]
    strongest = strongest.rename(columns={"effect": "truth", "low": "truth_low", "high": "truth_high"})
    return decide(effects).merge(strongest, on=["unit", "reading"])


def tabulate(units: pd.DataFrame) -> pd.DataFrame:
    """Shares by kind of network, layer and reading; the last rows of a kind and reading are over its layers."""
    every = pd.concat([units, units.assign(layer="all four")], ignore_index=True)
    rows = []
    for (kind, reading, layer), part in every.groupby(["kind", "reading", "layer"], sort=False):
        clear = part[part["truth_high"] < CLEAR[reading]]
        none = part[part["truth"] > ABSENT]
        rows.append({
            "networks": kind, "reading": reading, "layer": layer, "units": len(part),
            "clear absences": len(clear), "found": (clear["decision"] == ENCODES).mean(),
            "denied": (clear["decision"] == NONE).mean(),
            "without one": len(none), "false alarms": (none["decision"] == ENCODES).mean(),
            "cannot tell": (part["decision"][part["effect"].notna()] == CANNOT_TELL).mean(),
            "never change": int(part["effect"].isna().sum()), "delta": part["delta"].iloc[0],
        })  # fmt: skip
    return pd.DataFrame(rows).round(3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of what is finished")
    parser.add_argument("--table", type=Path, help="write the table of all that is finished, run nothing")
    parser.add_argument("--scenes", type=int, default=900, help="images")
    parser.add_argument("--pairs", type=int, default=300, help="pairs of scenes behind each exact effect")
    options = parser.parse_args()
    if options.table:
        units = pd.concat([pd.read_csv(path) for path in sorted(options.out.glob("*.csv"))])
        table = tabulate(units).assign(
            command="python benchmarks/bench_power.py --out FOLDER", machine=machine(), date=f"{date.today()}"
        )
        write_atomically(options.table, table.to_csv(index=False, lineterminator="\n").encode())
        return
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    stack = stack_images(shuffle_images(scene_dataset(options.scenes, 0), 0))
    for name, (kind, network) in networks(stack.take(np.arange(8))).items():
        for layer in LAYERS:
            path = options.out / f"{name} {layer}.csv"
            if path.is_file():
                continue
            start = process_time()
            table = study(network, layer, stack, SETTING, options.pairs)
            table = table.assign(network=name, kind=kind, layer=layer)
            write_atomically(path, table.to_csv(index=False).encode())
            print(f"{path.name}: {process_time() - start:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
