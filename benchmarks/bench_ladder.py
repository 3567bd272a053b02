"""Where should a level of a ladder begin: at the original, or at the level before? data/measured/ladder.csv.

    python benchmarks/bench_ladder.py > part.csv                                concept scenes, minutes
    python benchmarks/bench_ladder.py --images DIR --weights FILE > part.csv    SqueezeNet 1.0

Each unit's ladder starts from the image that activates it most. `monotone`: share of units whose response
never rises from a level to the next; `rise`: the largest rise, as a share of the way to the target; `last`,
`middle`: mean change of the last and of the middle level (share of the pixel range); `jump`: mean
|difference| of neighbouring levels over that of the shortest way (1: the levels lie on a line); `reached`:
share of units whose last level reached the target.
"""

import argparse
import sys
from datetime import date
from pathlib import Path
from time import process_time

import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
from make_measured import machine

from absence_utils.images.load import load_images
from absence_utils.models.load import load_model
from absence_utils.units import Unit, dataset_responses
from absence_utils.visualization import suppression_ladder
from absence_utils.visualization.ladder import STARTS


def measures(ladder) -> dict:
    """What is said of one ladder, see above."""
    way = float(ladder.target[0] - ladder.target[-1])
    between = ladder.image.diff(dim=0).abs().mean(dim=(1, 2, 3)).sum() / ladder.size[-1]
    last, middle = float(ladder.size[-1]), float(ladder.size[len(ladder.size) // 2])
    return {
        "monotone": float(ladder.monotone), "rise": max(0.0, float(ladder.response.diff().max())) / way,
        "last": last, "middle": middle, "jump": float(between),
        "reached": float(ladder.response[-1] <= ladder.target[-1]),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, help="folder with ImageNet's class folders")
    parser.add_argument("--weights", type=Path, help="of SqueezeNet 1.0")
    parser.add_argument("--steps", type=int, nargs="+", default=[64], help="for each level")
    options = parser.parse_args()
    torch.set_num_threads(1)
    real = options.images is not None
    if real:
        name, layer, units = "squeezenet1_0", "features.12.expand3x3", (5, 9)
        network = load_model(name, weights=options.weights)
        dataset = load_images(options.images, network, size=160, limit=300)
    else:
        name, layer, units = "concept_scenes", "logits", range(5)
        network = load_model(name)
        dataset = load_images(name, network)
    natural, rows = dataset_responses(network, layer, dataset), []
    for steps in options.steps:
        for start in STARTS:
            for channel in units:
                unit, begin = Unit(network, layer, channel), process_time()
                image, _ = dataset[int(unit.of(natural).argmax())]
                found = measures(suppression_ladder(unit, image, natural, start=start, steps=steps))
                rows.append({"network": name, "steps": steps, "start": start, "units": 1} | found
                            | {"seconds": process_time() - begin})  # fmt: skip
                print(rows[-1], file=sys.stderr, flush=True)
    table, keys = pd.DataFrame(rows), ["network", "steps", "start"]
    how = {name: "sum" if name == "units" else "mean" for name in table.columns.drop(keys)} | {"rise": "max"}
    found = table.groupby(keys, sort=False).agg(how).reset_index().round(4)
    command = "python benchmarks/bench_ladder.py" + (" --images DIR --weights FILE" if real else "")
    found.assign(command=command, machine=machine(), date=date.today()).to_csv(sys.stdout, index=False)


if __name__ == "__main__":
    main()
