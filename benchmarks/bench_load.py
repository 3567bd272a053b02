"""Large inputs: is memory flat and time linear, and how large are the pages?

    python benchmarks/bench_load.py folder 1250 2500 5000 10000 > folder.csv     # images, each in a class of its own
    python benchmarks/bench_load.py atlas 256 512 1024 2048 > atlas.csv          # units of one layer

Each size runs in a process of its own, whose largest memory is measured. The folder's images are noise of 32 px, made
in a temporary folder; they are listed, described, hashed, and mined by a small network. The atlas is of a layer with so
many channels, studied on 64 px noise, with a tile for each unit. Only the first cards are drawn, without synthesised
images and maps: the drawing of one takes seconds whatever the layer's size.
"""

import multiprocessing
import resource
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn

from absence_utils.attribution.columns import matrix_columns
from absence_utils.images import FolderImages, TensorImages
from absence_utils.images.base import IDENTITY
from absence_utils.models.random_weights import random_copy
from absence_utils.patches.mining import mine_patches
from absence_utils.your_model import atlas
from absence_utils.your_model.cards import CardOptions, collect_cards
from absence_utils.your_model.study import auto_config, study_layer

DRAWN = 4  # cards


def small_network(channels: int) -> nn.Module:
    """Two convolutions; the second has the channels that are asked for."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 5, 4), nn.ReLU(), nn.Conv2d(8, channels, 3), nn.ReLU()).eval()


def load_folder(count: int) -> dict:
    """Seconds of one core for each step for `count` images in as many classes."""
    draw, seconds = np.random.default_rng(0), {}
    with TemporaryDirectory() as root:
        for number in range(count):
            (folder := Path(root, f"class_{number:05d}")).mkdir()
            Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / "image.png")
        start = process_time()
        dataset = FolderImages(root, IDENTITY, size=32)
        seconds["list s"] = process_time() - start
        start = process_time()
        dataset.notes, dataset.fingerprint  # noqa: B018
        seconds["describe s"] = process_time() - start
        start = process_time()
        mine_patches(small_network(16), "2", dataset, patch=16, stride=8, k=8)
        seconds["mine s"] = process_time() - start
        start = process_time()
        matrix_columns(dataset)
        return {"images": count, **seconds, "columns s": process_time() - start}


def load_atlas(units: int) -> dict:
    """Seconds of one core for the study and of the pages of a layer of `units` units, and the size of its index."""
    torch.manual_seed(1)
    dataset = TensorImages(torch.rand(120, 3, 64, 64), torch.arange(120) % 4, list("abcd"))
    network = small_network(units)
    start = process_time()
    setting = auto_config(len(dataset), 64, 32, 16, k=6, hosts=12)
    copies = [random_copy(network, seed) for seed in (1, 2)]
    study = study_layer(network, "2", dataset, setting, copies, null_units=8, redraws=1, most=units)
    seconds = {"study s": process_time() - start}
    drawn, page = iter(range(DRAWN)), atlas.card_page
    atlas.card_page = lambda card, **links: page(card, **links) if next(drawn, None) is not None else ""
    effort = CardOptions(shown=2, facets=0, maps=0, evidence_images=0)
    with TemporaryDirectory() as folder:
        start = process_time()
        cards = collect_cards(study, dataset, matrix_columns(dataset), range(units), effort)
        pages = atlas.write_atlas(cards, study, Path(folder), "load")
        seconds["pages s"] = process_time() - start
        return {"units": units, **seconds, "index MB": pages[0].stat().st_size / 1e6}


def measured(load, size: int) -> dict:
    """What `load` says of a size, and the largest memory of the process, in GB."""
    torch.set_num_threads(1)
    return load(size) | {"GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}


def main() -> None:
    load = {"folder": load_folder, "atlas": load_atlas}[sys.argv[1]]
    for number, size in enumerate(map(int, sys.argv[2:])):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            row = pd.DataFrame([pool.apply(measured, (load, size))])
        row.to_csv(sys.stdout, index=False, header=number == 0, float_format="%.3g")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
