"""Cost of synthesis: units and signs in shared passes against one image after the other, and the bare pass beneath.

    python benchmarks/bench_synthesis.py > data/measured/synthesis_speed.csv          GoogLeNet's shape, random weights
    python benchmarks/bench_synthesis.py --model networks.py:googlenet --layer inception4c --units 10 50 100 200
    python benchmarks/bench_synthesis.py --device cuda --size 224

shared       render_pairs as it comes: all units and both signs in one batch, on the network with its batch norms folded
one by one   the same images, each with passes of its own through the network as it is
bare         forward and backward through the network as it is as far as the layer, for the same single image

Rounds go through all of them in turn, so that a busy machine disturbs all alike; ratios are of one round, and their
median, lowest and highest are given. On a CPU seconds are those that the process computed.
"""

import argparse
import sys
import time
import warnings
from datetime import date
from pathlib import Path

import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
from make_measured import machine

from absence_utils import Unit, open_model
from absence_utils.images.base import input_channels
from absence_utils.visualization import optimisation, render_pairs

MODES = ("shared", "one by one", "bare")


def clock(device: str) -> float:
    """Seconds computed so far; on a GPU seconds that passed, once its work is done."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def bare(model, layer: str, size: int, steps: int) -> None:
    """As many forward and backward passes as `steps`, of one image, as far as the layer."""
    images = torch.randn(1, input_channels(model), size, size, device=next(model.parameters()).device)
    seen = []

    class Reached(Exception):
        pass

    def stop(_module, _given, output):
        seen[:] = [output]
        raise Reached

    handle = model.get_submodule(layer).register_forward_hook(stop)
    try:
        for _ in range(steps):
            given = images.clone().requires_grad_(True)
            try:
                model(given)
            except Reached:
                torch.autograd.grad(seen.pop().mean(), given)
    finally:
        handle.remove()


def one_by_one(units, **options) -> list:
    """`render_pairs` with a pass for each image, through the network as it is."""
    fold, optimisation.fused = optimisation.fused, lambda model, *_: model
    try:
        return render_pairs(units, batch=1, **options)
    finally:
        optimisation.fused = fold


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="googlenet")
    parser.add_argument("--weights", default="")
    parser.add_argument("--layer", default="inception4c")
    parser.add_argument("--units", type=int, nargs="+", default=[10, 50, 100, 200])
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random weights are what is asked for here
        model = open_model(given.model, given.weights, size=0, seed=0, device=given.device).model
    units = [Unit(model, given.layer, unit) for unit in given.units]
    options = {"steps": given.steps, "size": given.size, "seed": 0}
    images, rows = 2 * len(units), []
    for number in range(given.rounds + 1):  # the first warms up
        seconds, made = {}, {}
        for mode in MODES:
            start = clock(given.device)
            if mode == "bare":
                bare(model, given.layer, given.size, given.steps)
            else:
                made[mode] = (render_pairs if mode == "shared" else one_by_one)(units, **options)
            seconds[mode] = (clock(given.device) - start) / given.steps / (1 if mode == "bare" else images)
        apart = max(
            abs(float(getattr(ours, side).response / getattr(theirs, side).response) - 1)
            for ours, theirs in zip(made["shared"], made["one by one"], strict=True)
            for side in ("highest", "lowest")
        )
        if number:
            rows.append({**seconds, "apart": apart})
        print(f"round {number}: {seconds}", file=sys.stderr)
    table = pd.DataFrame(rows)
    faster, over = table["one by one"] / table["shared"], table["shared"] / table["bare"]
    found = {
        "network": given.model.rpartition(":")[2], "layer": given.layer, "units": len(units), "size": given.size,
        "device": given.device, "rounds": given.rounds,
        **{f"ms_{mode.replace(' ', '_')}": round(1e3 * table[mode].median(), 2) for mode in MODES},
        **{f"{name}_{what}": round(float(getattr(ratio, what)()), 2)
           for name, ratio in (("faster", faster), ("over_bare", over)) for what in ("median", "min", "max")},
        "responses_apart": round(table["apart"].max(), 4),
        "command": "python benchmarks/bench_synthesis.py", "machine": machine(), "date": date.today(),
    }  # fmt: skip
    pd.DataFrame([found]).to_csv(sys.stdout, index=False)


if __name__ == "__main__":
    main()
