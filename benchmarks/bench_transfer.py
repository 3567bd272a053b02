"""What do other networks keep of a synthesised minimum's effect? Rows for data/measured/transfer.csv.

    python benchmarks/bench_transfer.py > part.csv                                  concept scenes, minutes
    python benchmarks/bench_transfer.py --images DIR --models FOLDER > part.csv     SqueezeNet 1.0, 4 units
    python benchmarks/bench_transfer.py --wide data/measured/transfer.csv > data/measured/transfer_table.csv

Concept scenes: the five logits of the shipped network, scored on networks of other seeds, on twins trained on
the same concepts without any absence, and on random copies, each by the same logit and by the direction that
regression finds in the hidden layer. Photographs: units of SqueezeNet's features.12.expand3x3, scored on
directions in layers of GoogLeNet, of ResNet-50 and of their random copies. FOLDER has networks.py with the
functions `googlenet` and `resnet50`, and squeezenet1_0-imagenet.safetensors.

Controls: eight copies of each pole with scrambled phases (same power spectrum; the pole's own effect counts
as 1), and eight natural images with the most extreme responses. "minimum - minimum, scrambled" is the share
kept beyond the scrambled copies, by shapes.
"""

import argparse
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
from make_measured import machine

from absence_utils.benchmark.networks import SEEDS, load_benchmark_network
from absence_utils.images.base import normalisation_of
from absence_utils.images.load import load_images
from absence_utils.images.scenes import scene_dataset
from absence_utils.images.subsets import Subset
from absence_utils.insertion.paste import scramble_phases
from absence_utils.models.load import load_model
from absence_utils.models.opening import open_model
from absence_utils.models.random_weights import random_copy
from absence_utils.progress import progress
from absence_utils.units import Unit, dataset_responses
from absence_utils.visualization import (
    NaturalResponses,
    Poles,
    match_unit,
    render_pair,
    share_beyond,
    transfer_summary,
    transfer_table,
)

COPIES = 8  # of a pole with scrambled phases, and extreme images
SIGNS = {"maximum": "highest", "minimum": "lowest"}
LAYERS = {"googlenet": "inception4e", "resnet50": "layer3"}  # maps of 14 x 14, as SqueezeNet's are of 13 x 13


def poles_of(pair, dataset, real) -> Poles:
    """A rendered pair with its controls.

    Args:
        dataset, real: where extreme images are taken from, and the responses [image, channel] to it.
    """
    poles, order = Poles.of(pair), pair.unit.of(real).argsort()
    extreme, reference = {"maximum": order[-COPIES:], "minimum": order[:COPIES]}, {}
    undo = normalisation_of(pair.unit.model).undo
    for pole, sign in SIGNS.items():
        copies = poles.images[pole][:1].repeat(COPIES, 1, 1, 1)
        poles.images[f"{pole}, scrambled"] = scramble_phases(copies, seed=0)
        reference[f"{pole}, scrambled"] = pole
        poles.images[f"{pole}, {sign} images"] = undo(
            torch.stack([dataset[i][0] for i in extreme[pole].tolist()])
        )
    return Poles(poles.unit, poles.images, reference)


def named(prefix: str, networks: list) -> dict:
    return {f"{prefix}, {number}": network for number, network in enumerate(networks)}


def matched(units, networks: dict, layer: str, dataset) -> dict:
    """A list of matches for each network."""
    return {
        name: [match_unit(unit, network, layer, dataset) for unit in units]
        for name, network in progress(networks.items(), f"matching in {layer}")
    }


def scenes(options) -> pd.DataFrame:
    network = load_model("concept_scenes")
    natural = NaturalResponses(scene_dataset(options.limit or 500, 1), network)
    candidates = scene_dataset(900, 2)
    units = [Unit(network, "logits", channel) for channel in range(5)]
    real = dataset_responses(network, "logits", candidates)
    pairs = [
        poles_of(
            render_pair(unit, options.steps or 192, 64, smoothness=4.0, **options.render), candidates, real
        )
        for unit in units
    ]
    kinds = {
        "another seed": [load_benchmark_network("rules", seed) for seed in range(SEEDS)],
        "twin without absence": [load_benchmark_network("twin", seed) for seed in range(SEEDS)],
        "random copy": [random_copy(network, seed) for seed in range(1, SEEDS + 1)],
    }
    others = {"itself, 0": network}
    for kind, networks in kinds.items():
        others |= named(f"{kind}: same logit", networks)
        others |= matched(units, named(f"{kind}: matched in `hidden`", networks), "hidden", natural)
    return transfer_table(pairs, others, natural).assign(poles_of="concept_scenes")


def photographs(options) -> pd.DataFrame:
    layer = "features.12.expand3x3"
    network = load_model("squeezenet1_0", weights=options.models / "squeezenet1_0-imagenet.safetensors")
    images = load_images(options.images, network)
    order = np.random.default_rng(0).permutation(len(images))
    limit = options.limit or 500
    natural = NaturalResponses(Subset(images, order[:limit]), network)
    candidates = Subset(images, order[limit : limit + 300])
    units = [Unit(network, layer, channel) for channel in options.units]
    real = dataset_responses(network, layer, candidates)
    pairs = [
        poles_of(render_pair(unit, options.steps or 100, 160, **options.render), candidates, real)
        for unit in units
    ]
    others = {"itself": network, "random copy: same channel": random_copy(network, 1)}
    for name, where in LAYERS.items():
        other = open_model(f"{options.models / 'networks.py'}:{name}").model
        for weights, net in {name: other, f"{name}, random weights": random_copy(other, 1)}.items():
            others |= matched(units, {f"{weights}: matched in `{where}`": net}, where, natural)
    return transfer_table(pairs, others, natural).assign(poles_of="squeezenet1_0")


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each group of networks, and the shares of synthesised poles as "0.47 [0.26, 0.68]"."""
    table = table[~table["pole"].str.endswith("images")]
    cell = [f"{row.kept:.2f} [{row.low:.2f}, {row.high:.2f}]" for row in table.itertuples()]
    keys = ["poles_of", "scored on", "r2", "units", "networks", "command", "machine", "date"]
    rows = table.assign(cell=cell).pivot(index=keys, columns="pole", values="cell").reset_index()
    places = pd.MultiIndex.from_frame(table[["poles_of", "scored on"]].drop_duplicates())
    rows = rows.set_index(["poles_of", "scored on"]).loc[places].reset_index()
    names = {f"{pole}{more}": f"{pole}{word}" for pole in ("minimum", "maximum")
             for more, word in (("", ""), (f" - {pole}, scrambled", ", less scrambled"))}  # fmt: skip
    columns = ["poles_of", "scored on", *names, "r2", "units", "networks", "command", "machine", "date"]
    return rows[columns].rename(columns=names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, help="folder with ImageNet's class folders")
    parser.add_argument("--models", type=Path, help="folder with networks.py and SqueezeNet's weights")
    parser.add_argument("--units", type=int, nargs="+", default=[0, 5, 9, 40], help="of SqueezeNet")
    parser.add_argument("--limit", type=int, default=0, help="natural images, 0 for 500")
    parser.add_argument("--steps", type=int, default=0, help="of the synthesis, 0 for 192 (scenes) or 100")
    parser.add_argument("--contrast", type=float, help="of the poles, see `render_pair`; free without")
    parser.add_argument("--table", type=Path, help="also write the rows of single units here")
    parser.add_argument(
        "--wide", type=Path, metavar="CSV", help="print such rows as a table of the docs instead"
    )
    options = parser.parse_args()
    if options.wide:
        wide(pd.read_csv(options.wide)).to_csv(sys.stdout, index=False)
        return
    torch.set_num_threads(1)
    options.render = {} if options.contrast is None else {"contrast": options.contrast}
    real = options.images is not None
    table = photographs(options) if real else scenes(options)
    beyond = [share_beyond(table, pole, f"{pole}, scrambled") for pole in SIGNS]
    table = pd.concat([table, *beyond], ignore_index=True)
    table["scored on"] = table["network"] if real else table["network"].str.rpartition(",")[0]
    if options.table:
        table.to_csv(options.table, index=False)
    found = transfer_summary(table, by=("poles_of", "scored on", "pole")).round(3)
    command = "python benchmarks/bench_transfer.py" + (" --images DIR --models FOLDER" if real else "")
    command += "" if options.contrast is None else f" --contrast {options.contrast:g}"
    found.assign(command=command, machine=machine(), date=date.today()).to_csv(sys.stdout, index=False)


if __name__ == "__main__":
    main()
