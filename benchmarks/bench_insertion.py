"""Seconds of insertion beside the bare forward passes that it needs: part of `make bench`.

ours     run_insertions: images from the decoded file, patches pasted, requests of many units answered
bare     the same distinct inputs, already pasted, through the same rearranged network as far as the layer
eager    the same inputs through the plain network, cut at the layer

Rounds go through all three in turn; ratios are medians over the rounds.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from bench_mining import CASES, images_for
from torchvision.models.feature_extraction import create_feature_extractor

from absence_utils import load_model
from absence_utils.images.cache import stack_images
from absence_utils.insertion.execution import KEYS, PatchBank, input_images, run_insertions
from absence_utils.layers.fuse import channels_last, fused
from absence_utils.patches.mining import images_per_batch
from absence_utils.units import feature_map, responses

TARGET = "ours / bare <= 1.25"
PATCH = 48


def requests_for(units: int, images: int, patches: int) -> pd.DataFrame:
    """As a study asks: every unit has some images and patches, half of the inputs are shared with other units."""
    generator = np.random.default_rng(0)
    rows = [
        (unit, image, patch if number % 2 else patch % 2, number % 4, False)
        for unit in range(units)
        for number, (image, patch) in enumerate(
            zip(generator.permutation(images), generator.integers(0, patches, images), strict=True)
        )
    ]
    return pd.DataFrame(rows, columns=["unit", *KEYS])


def works(network, layer: str, stack, bank: PatchBank, requests: pd.DataFrame) -> dict:
    """Name to what is timed."""
    keys = requests[KEYS].drop_duplicates().sort_values("image").to_numpy()
    size = images_per_batch(*stack.take([0]).shape[-2:], torch.device("cpu"))
    batches = [input_images(stack, bank, part) for part in np.array_split(keys, -(-len(keys) // size))]
    fast = fused(network, layer, tuple(batches[0].shape[1:]))
    stored = [channels_last(batch) for batch in batches]
    plain = create_feature_extractor(network, [layer]).eval()

    def bare():
        for batch in stored:
            responses(fast, layer, batch)

    def eager():
        for batch in batches:
            plain(batch)[layer].mean(dim=(2, 3))

    feature_map(fast, layer, stored[0])
    return {
        "ours": lambda: run_insertions(network, layer, stack, bank, requests),
        "bare": bare,
        "eager": eager,
    }


@torch.inference_mode()
def measure(case: str, images: int, units: int, rounds: int) -> dict:
    """One row of the table."""
    name, layer = CASES[case]
    network = load_model(name, "random")
    stack = stack_images(images_for(network, images))
    windows = stack.take(range(min(images, 8)))[:, :, 88 : 88 + PATCH, 88 : 88 + PATCH]
    bank = PatchBank(windows.contiguous())
    requests = requests_for(units, images, len(bank.pixels))
    tasks = works(network, layer, stack, bank, requests)
    seconds = {mode: [] for mode in tasks}
    for _ in range(rounds):
        for mode, task in tasks.items():
            began = time.perf_counter()
            task()
            seconds[mode].append(time.perf_counter() - began)
    seconds = {mode: np.array(values) for mode, values in seconds.items()}
    inputs = len(requests[KEYS].drop_duplicates())
    row = {"layer": case, "requests": len(requests), "inputs": inputs}
    row |= {f"{mode} s/input": np.median(values) / inputs for mode, values in seconds.items()}
    row |= {f"ours / {mode}": np.median(seconds["ours"] / seconds[mode]) for mode in ("bare", "eager")}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--units", type=int, default=14)
    parser.add_argument("--rounds", type=int, default=2)
    default = Path(__file__).resolve().parent.parent / "results" / "bench" / "insertion.csv"
    parser.add_argument("--out", default=str(default))
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    table = pd.DataFrame([measure(case, options.images, options.units, options.rounds) for case in CASES])
    Path(options.out).parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.out, index=False, float_format="%.6g")
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3g}"))
    print(f"Target: {TARGET}. {torch.get_num_threads()} threads, {options.out}")


if __name__ == "__main__":
    main()
