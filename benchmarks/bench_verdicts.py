"""How often does a unit of a random copy stand out from other copies? Judged as notebook 10 judges.

    python benchmarks/bench_verdicts.py > table.csv

For each network and layer one copy with random weights is studied against others, and each of those is judged against
the rest: what is found is a false alarm. The images are concept scenes. A minute or two for each network on one core.
"""

import sys
from time import perf_counter

import pandas as pd
import torch

from absence_utils.insertion.decisions import NONE, UNDECIDED, null_false_positives
from absence_utils.models.opening import open_model
from absence_utils.models.random_weights import random_copy
from absence_utils.your_model.study import auto_config, study_layer

NETWORKS = [
    ("concept_scenes", "block2"),
    ("concept_scenes", "block4"),
    ("squeezenet1_0", "features.5.expand3x3"),
    ("resnet18", "layer2"),
    ("mobilenet_v3_small", "features.4"),
]


def count_findings(
    name: str, layer: str, *, scenes: int = 600, copies: int = 6, units: int = 160, most: int = 64
) -> dict:
    """Verdicts on the units of copies with random weights: network, layer, copies, units, undecided, found."""
    brought = open_model(name, size=64, seed=99)
    dataset = brought.images("concept_scenes", limit=scenes)
    made = [random_copy(brought.model, seed) for seed in range(copies)]
    setting = auto_config(len(dataset), 64, 24, 8)
    study = study_layer(made[0], layer, dataset, setting, made[1:], most=most, null_units=units)
    verdicts = pd.concat([study.verdicts, null_false_positives(study.null)])["verdict"]
    return {
        "network": name,
        "layer": layer,
        "copies": copies,
        "units": len(verdicts),
        "undecided": int((verdicts == UNDECIDED).sum()),
        "found": int((~verdicts.isin([NONE, UNDECIDED])).sum()),
    }


def main() -> None:
    torch.set_num_threads(1)
    for number, (name, layer) in enumerate(NETWORKS):
        start = perf_counter()
        row = pd.DataFrame([count_findings(name, layer)])
        row.to_csv(sys.stdout, index=False, header=number == 0)
        sys.stdout.flush()
        print(f"{name} {layer}: {perf_counter() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
