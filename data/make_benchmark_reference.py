"""Run the benchmark with all five seeds: data/reference/09_leaderboard_five_seeds.csv and its manifest entry.

    python data/make_benchmark_reference.py

About 13 minutes of one core. `--seed 3` writes the scores of one seed into data/parts/, so that several can run side by
side; without it, parts that are there are used.
"""

import argparse
from pathlib import Path

import pandas as pd
import torch
from manifest import entry_of, write_entry

from absence_utils.benchmark.leaderboard import BenchmarkConfig, leaderboard, run_seed
from absence_utils.benchmark.methods import MAPS, METHODS
from absence_utils.benchmark.networks import SEEDS
from absence_utils.paths import DATA

SETTING = BenchmarkConfig(
    SEEDS, scenes=256, images_for_maps=12, steps=48, hidden=12, pairs=200
)  # as notebook 09


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, choices=range(SEEDS), help="one seed into --parts")
    parser.add_argument(
        "--parts", type=Path, default=DATA / "parts", help="folder of single seeds, not in git"
    )
    options = parser.parse_args()
    options.parts.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    for seed in range(SEEDS) if options.seed is None else [options.seed]:
        part = options.parts / f"scores-{seed}.csv"
        if not part.is_file():
            run_seed(seed, SETTING, METHODS, MAPS).to_csv(part, index=False)
    if options.seed is not None:
        return
    scores = pd.concat([pd.read_csv(options.parts / f"scores-{seed}.csv") for seed in range(SEEDS)])
    path = DATA / "reference" / "09_leaderboard_five_seeds.csv"
    path.parent.mkdir(exist_ok=True)
    board = leaderboard(scores)
    board.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
    best = board[board.score == "AUROC"].set_index("method")["mean"].round(3).to_dict()
    origin = "computed by this project from data/benchmark_networks.safetensors, five seeds"
    facts = {"seeds": SEEDS, "AUROC": best}
    entry = entry_of(path, origin, "python data/make_benchmark_reference.py", facts)
    write_entry(DATA / "manifest.json", entry)


if __name__ == "__main__":
    main()
