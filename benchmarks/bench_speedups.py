"""What would make synthesis in a large network faster on a CPU, and what it costs in response.

    python benchmarks/bench_speedups.py --model FOLDER/networks.py:googlenet > data/measured/synthesis_speedups.csv

as it is            `render_pairs`: units and signs in shared passes, channels last
bfloat16            the same, the network under autocast to bfloat16
half size first     half of the steps at half the edge, whose image is enlarged and taken on from
fewer steps         half of the steps at twice the learning rate
half size, bfloat16 both
torch.compile       the bare forward and backward pass to the layer, compiled, against the same pass as it is

All in one process, one after the other; seconds are those that the process computed. Responses are read in float32 on
the finished images. `share` is their effect beyond the blank over that of "as it is", in the mean over units and signs,
and for the unit and sign that loses most. Images an hour would grow by the column `faster`.
"""

import argparse
import sys
import time
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
from make_measured import machine

from absence_utils import Unit, open_model
from absence_utils.images.base import normalisation_of
from absence_utils.visualization import optimisation, render_pairs, rendering
from absence_utils.visualization._lucent import colour_correlation, param

BEFORE = ("conv1", "maxpool1", "conv2", "conv3", "maxpool2", "inception3a", "inception3b", "maxpool3", "inception4a",
          "inception4b", "inception4c")  # fmt: skip # of GoogLeNet, up to the layer


@contextmanager
def replaced(module, name: str, value):
    """An attribute of a module changed for a while."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def half_precision(model, layers, shape, fast=optimisation._fast):
    """The network of the synthesis under autocast."""
    found = fast(model, layers, shape)
    forward = found.forward

    def run(images):
        with torch.autocast("cpu", torch.bfloat16):
            return forward(images)

    found.forward = run
    return found


def taken_on_from(pixels: torch.Tensor):
    """What `noise_image` is replaced with: the same parametrisation, which starts at given images, enlarged."""

    def start(size, channels, _facets, _copies, **_):
        latent = torch.logit(pixels, eps=1e-4)
        latent = F.interpolate(latent, (size, size), mode="bicubic", align_corners=False)
        matrix = torch.linalg.inv(torch.from_numpy(colour_correlation).double()).float()
        latent = torch.einsum("ij,bjhw->bihw", matrix, latent)
        (spectrum,), waves = param.fft_image((len(pixels), channels, size, size))
        frequency = torch.from_numpy(param.spatial.rfft2d_freqs(size, size)).float()
        wanted = torch.view_as_real(torch.fft.rfft2(4 * latent, norm="ortho"))
        with torch.no_grad():
            spectrum.copy_(wanted * frequency.clamp(min=1 / size)[None, None, ..., None])
        return [spectrum], param.to_valid_rgb(waves, decorrelate=True)

    return start


def half_size_first(units, steps, size):
    small = render_pairs(units, steps // 2, size // 2)
    pixels = torch.cat([torch.cat((pair.highest.image, pair.lowest.image)) for pair in small])
    with replaced(rendering, "noise_image", taken_on_from(pixels)):
        return render_pairs(units, steps - steps // 2, size)


def in_half_precision(render, *given):
    with replaced(optimisation, "_fast", half_precision):
        return render(*given)


VARIANTS = {
    "as it is": render_pairs,
    "bfloat16": lambda *given: in_half_precision(render_pairs, *given),
    "half size first": half_size_first,
    "fewer steps": lambda units, steps, size: render_pairs(units, steps // 2, size, lr=0.1),
    "half size, bfloat16": lambda *given: in_half_precision(half_size_first, *given),
}


def effects(pairs) -> torch.Tensor:
    """[unit, sign] response beyond the blank, float32."""
    found = []
    for pair in pairs:
        pixels = torch.cat((pair.highest.image, pair.lowest.image))
        images = normalisation_of(pair.unit.model).apply(pixels)
        with torch.no_grad():
            response = pair.unit.response(torch.cat((images, torch.zeros_like(images[:1]))))
        found.append(response[:-1] - response[-1])
    return torch.stack(found)


def compiled(model: nn.Module, size: int, images: int, rounds: int = 5) -> tuple[float, float]:
    """Seconds of the pass to the layer, as it is and compiled: the median of rounds in which they take turns."""
    plain = nn.Sequential(*(model.get_submodule(name) for name in BEFORE)).to(
        memory_format=torch.channels_last
    )
    noise = torch.randn(images, 3, size, size).contiguous(memory_format=torch.channels_last)
    ways, seconds = (plain, torch.compile(plain)), ([], [])
    for number in range(rounds + 1):  # the first compiles
        for way, found in zip(ways, seconds, strict=True):
            given, start = noise.clone().requires_grad_(True), time.process_time()
            torch.autograd.grad(way(given).mean(), given)
            if number:
                found.append(time.process_time() - start)
    return tuple(float(torch.tensor(found).median()) for found in seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="googlenet", help="GoogLeNet: the compiled pass names its layers")
    parser.add_argument("--units", type=int, nargs="+", default=[10, 50, 100, 200])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--only", nargs="+", default=[*VARIANTS, "torch.compile"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = open_model(given.model).model.requires_grad_(False)
    units = [Unit(model, BEFORE[-1], unit) for unit in given.units]
    how = {"command": "python benchmarks/bench_speedups.py", "machine": machine(), "date": date.today()}
    about = {
        "network": "googlenet",
        "layer": BEFORE[-1],
        "units": len(units),
        "size": given.size,
        "steps": given.steps,
    }
    rows, usual, reached = [], None, None
    for name, render in VARIANTS.items():
        if name not in given.only:
            continue
        start = time.process_time()
        pairs = render(units, given.steps, given.size)
        seconds, found = time.process_time() - start, effects(pairs)
        usual, reached = (seconds, found) if usual is None else (usual, reached)
        share = found / reached
        rows.append({
            **about, "way": name, "seconds": round(seconds, 1), "faster": round(usual / seconds, 2),
            "share": round(share.mean().item(), 3), "lowest_share": round(share.min().item(), 3), **how,
        })  # fmt: skip
        print(rows[-1], file=sys.stderr, flush=True)
    if "torch.compile" in given.only:
        plain, fast = compiled(model, given.size, 2 * len(units))
        rows.append({
            **about, "way": "torch.compile, bare pass", "steps": 1, "seconds": round(fast, 2),
            "faster": round(plain / fast, 2), "share": "", "lowest_share": "", **how,
        })  # fmt: skip
    pd.DataFrame(rows).to_csv(sys.stdout, index=False)


if __name__ == "__main__":
    main()
