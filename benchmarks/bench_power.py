"""How often the decision is right: power, false alarms and "cannot tell" on networks whose truth is known.

    python benchmarks/bench_power.py --out FOLDER                                # units.csv, a row for each unit
    python benchmarks/bench_power.py --out FOLDER --table data/measured/power.csv
    python benchmarks/bench_power.py --out FOLDER --hues data/measured/power_hues.csv
    python benchmarks/bench_power.py --out FOLDER --patches data/measured/power_patches.csv

Truth is the exact effect of each concept on a unit (`benchmark.effects`): a scene with it and the same without.
Clear absences: the strongest suppressor is beyond -0.25 sd (signed) or -0.2 sd (passed on) with the upper end of
its 95% interval; there is none where it is above -0.1 sd. Networks: trained on the scenes' rules, on rules without
an absence, a detector of concepts, and copies with random weights. Some twenty minutes of one core. The third command
asks those units of block2 whose truth is none for the strongest hue in the same pairs: colours are no concept. The
fourth decides with patches of other sizes, by the size that counts as it is and in proportion to the area.
"""

import argparse
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path
from time import process_time

import numpy as np
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
from make_measured import machine

from absence_utils.benchmark.effects import exact_effects, read
from absence_utils.benchmark.networks import load_benchmark_network
from absence_utils.files import write_atomically
from absence_utils.images.cache import stack_images
from absence_utils.images.glyphs import CELLS, DRAWS_PER_GLYPH, draws
from absence_utils.images.scenes import (
    CONCEPTS,
    NORMALISATION,
    counterfactual_pairs,
    draw_presence,
    render_scenes,
    scene_dataset,
)
from absence_utils.images.subsets import shuffle_images
from absence_utils.insertion.decisions import CANNOT_TELL, DELTAS, ENCODES, NONE, decide
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


def hue_effects(network, layer: str, pairs: int, seed: int = 500, bins: int = 6) -> pd.DataFrame:
    """The effect of a glyph of some hue, whatever its shape, from the pairs of `exact_effects`, signed, in sd.

    Columns unit, hue (number of its bin on the colour wheel), effect, low, high (95%, normal over pairs).
    """
    first = CELLS**2 + 2
    drawn = draws(pairs, seed, 0)[:, first : first + len(CONCEPTS) * DRAWS_PER_GLYPH]
    hue = (drawn.reshape(pairs, len(CONCEPTS), DRAWS_PER_GLYPH)[..., 4] * bins).astype(int)
    changes = [
        np.subtract(*(read(network, layer, NORMALISATION.apply(each.pixels)).numpy()
                      for each in counterfactual_pairs(concept, pairs, seed)))
        for concept in CONCEPTS
    ]  # fmt: skip
    usual = render_scenes(draw_presence(pairs, seed), seed).pixels
    spread = read(network, layer, NORMALISATION.apply(usual)).numpy().std(axis=0, ddof=1)
    changes, tables = np.stack(changes, axis=1) / np.maximum(spread, 1e-12), []
    for number in range(bins):
        own = changes[hue == number]
        half = 1.96 * own.std(axis=0, ddof=1) / len(own) ** 0.5
        columns = {
            "effect": own.mean(axis=0),
            "low": own.mean(axis=0) - half,
            "high": own.mean(axis=0) + half,
        }
        tables.append(pd.DataFrame({"unit": range(len(half)), "hue": number, **columns}))
    return pd.concat(tables, ignore_index=True)


def ask_hues(units: pd.DataFrame, pairs: int, layer: str = "block2") -> pd.DataFrame:
    """Units of the trained networks without a concept that suppresses them, beside their strongest hue."""
    rows = units[(units["layer"] == layer) & (units["reading"] == "signed") & (units["truth"] > ABSENT)]
    images = stack_images(scene_dataset(8, 0)).take(np.arange(8))
    trained = {name: net for name, (kind, net) in networks(images).items() if kind != "random weights"}
    tables = []
    for name, part in rows[rows["network"].isin(trained)].groupby("network", sort=False):
        found = hue_effects(trained[name], layer, pairs)
        strongest = found.loc[found.groupby("unit")["high"].idxmin()].add_prefix("hue_")
        tables.append(part.merge(strongest, left_on="unit", right_on="hue_unit"))
    kept = ["network", "layer", "unit", "decision", "effect", "truth", "hue_effect", "hue_low", "hue_high"]
    return pd.concat(tables, ignore_index=True)[kept].round(3)


def by_patch(images, pairs: int, sizes=(12, 16, 24, 32), scenes: int = 600) -> pd.DataFrame:
    """Shares as `tabulate` counts them, signed, of two networks and layers by size of the patches and of delta."""
    stack, rows = stack_images(shuffle_images(scene_dataset(scenes, 0), 0)), []
    known = {name: net for name, (_, net) in networks(images).items() if name in ("rules 0", "random 1")}
    for name, network in known.items():
        for layer in ("block2", "block4"):
            truth = exact_effects(network, layer, pairs)
            truth = truth.loc[truth.groupby(["unit", "reading"])["effect"].idxmin()]
            truth = truth.rename(columns={"effect": "truth", "high": "truth_high"})[
                ["unit", "reading", "truth", "truth_high"]
            ]
            for patch in sizes:
                setting = replace(SETTING, patch=patch, stride=8 if patch >= 24 else 6)
                effects = layer_effects(network, layer, stack, setting).effects
                area = patch**2 / SETTING.patch**2
                for delta in sorted({DELTAS["signed"], round(DELTAS["signed"] * area, 2)}):
                    found = decide(effects, deltas={"signed": delta}).merge(truth, on=["unit", "reading"])
                    about = {"network": name, "kind": name, "layer": layer}
                    counted = tabulate(found[found["reading"] == "signed"].assign(**about)).iloc[:1]
                    rows.append(counted.assign(patch=patch))
    return pd.concat(rows, ignore_index=True).drop(columns=["reading", "never change"]).round(3)


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
    parser.add_argument("--hues", type=Path, help="write the table of hues of all that is finished")
    parser.add_argument("--patches", type=Path, help="write the table of sizes of patches")
    parser.add_argument("--scenes", type=int, default=900, help="images")
    parser.add_argument("--pairs", type=int, default=300, help="pairs of scenes behind each exact effect")
    options = parser.parse_args()
    wanted = options.table or options.hues or options.patches
    if wanted:
        torch.set_num_threads(1)
        if options.patches:
            table = by_patch(stack_images(scene_dataset(8, 0)).take(np.arange(8)), options.pairs)
        else:
            units = pd.concat([pd.read_csv(path) for path in sorted(options.out.glob("*.csv"))])
            table = tabulate(units) if options.table else ask_hues(units, options.pairs)
        table = table.assign(
            command="python benchmarks/bench_power.py --out FOLDER", machine=machine(), date=f"{date.today()}"
        )
        write_atomically(wanted, table.to_csv(index=False, lineterminator="\n").encode())
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
