"""The steps of notebooks 01-03 that are longer than a cell: they put the other modules together."""

from __future__ import annotations

from itertools import permutations, product

import pandas as pd
import torch
from torch import Tensor

from absence_utils.attribution import absence_evidence, attribute
from absence_utils.datasets import COLOURS, green_pixel_images, uncut
from absence_utils.errors import InputError
from absence_utils.images import TensorImages
from absence_utils.interventions import removal_table, remove_pixels, remove_strokes
from absence_utils.networks import DigitsNet, GreenPixelNet
from absence_utils.patches import PatchBook
from absence_utils.record import progress
from absence_utils.training import accuracy, fit, predict
from absence_utils.units import Unit

STARTS = ("contrast start", "PyTorch's start")
SCHEDULES = {"one cycle": "one_cycle", "constant rate": "constant"}


def uncut_extremes(book: PatchBook, pairs: TensorImages, leftward: Tensor) -> dict[str, dict[str, list]]:
    """The highest and the lowest patch of every unit that cut no bar off in one frame only (see `uncut`).

    Many patches tie. Of those with the extreme response the first uncut one is taken, in the order of the
    book.

    Args:
        book: mined from `pairs`, with all patches kept.
        leftward: bool [pair, 2, height, width], see `MotionSequences`.

    Returns:
        "highest" and "lowest" -> {"pixels": [unit] crops, "leftward": [unit] masks, "response": [unit]}.
    """
    found = {}
    for side in ("highest", "lowest"):
        extremes = getattr(book, side)
        found[side] = {"pixels": [], "leftward": [], "response": extremes.response[:, 0].tolist()}
        for unit, response in enumerate(extremes.response):
            crops = getattr(book.crops(pairs, unit), side)
            pick = int((uncut(crops) & (response == response[0])).nonzero()[0])
            top, left, height, width = extremes.box[unit, pick].tolist()
            mask = leftward[extremes.image[unit, pick], :, top : top + height, left : left + width]
            found[side]["pixels"].append(crops[pick])
            found[side]["leftward"].append(mask)
    return found


def bar_table(rows: list[dict]) -> pd.DataFrame:
    """Where the bar that moves right to left is seen, and how much absence evidence lies on it.

    Args:
        rows: as for `plots.toys.motion_figure`.

    Returns:
        Indexed by unit and view: response or sum, bar in view, and for maps the absence evidence and the
        part of it on that bar, in units of the response.
    """
    records = []
    for row in rows:
        for unit in range(2):
            mask, pixels = row["leftward"][unit], row["pixels"][unit]
            record = {"unit": unit, "view": row["label"], "response or sum": float(row["response"][unit])}
            record["bar in view"] = bool(mask.any())
            if row["label"].endswith("map"):
                record["absence evidence"] = float(absence_evidence(pixels[None]).sum())
                record["of it on that bar"] = float(absence_evidence((pixels * mask)[None]).sum())
            records.append(record)
    return pd.DataFrame(records).set_index(["unit", "view"])


def compare_recipes(
    test: TensorImages,
    seeds: list[int],
    *,
    images: int,
    epochs: int,
    lr: float,
    batch_size: int,
    device="cpu",
) -> tuple[pd.DataFrame, dict[tuple[str, int], GreenPixelNet]]:
    """Train the green-pixel network with two starts and two learning-rate schedules, every seed with each.

    Args:
        test: test images, the same for all runs.
        seeds: of training images, initial weights and the order of training.
        images: training images of each run.

    Returns:
        Table with recipe, seed, accuracy (0..1) and dead channels (of 2) for every run, and the networks by
        (recipe, seed), on the CPU.
    """
    palette = torch.tensor(list(COLOURS.values()))
    records, networks = [], {}
    for start, (words, schedule) in product(STARTS, SCHEDULES.items()):
        recipe = f"{start}, {words}"
        for seed in progress(seeds, recipe):
            train, network = green_pixel_images(images, seed), GreenPixelNet(seed)
            if start == STARTS[0]:
                network.start_at_contrast(train.images, train.labels, seed=seed)
            options = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "seed": seed}
            options |= {"schedule": schedule, "optimiser": torch.optim.Adam}
            fit(network.to(device), train.images, train.labels, **options)
            share = accuracy(network, test.images, test.labels)
            networks[recipe, seed] = network.cpu()
            dead = network.dead_channels(palette)
            records.append({"recipe": recipe, "seed": seed, "accuracy": share, "dead channels": dead})
    return pd.DataFrame(records), networks


def class_maps(
    networks: list[DigitsNet], held_out: list[TensorImages], label: int, unit: int
) -> tuple[Tensor, Tensor, pd.DataFrame]:
    """Attribute one class's unit on every network's held-out images of class `label`, by integrated
    gradients.

    Returns:
        images [n, height, width] and maps [n, height, width] of all networks, and a table with one row for
        each network: the shares (0..1) of the absence evidence and of the ink that lie on the left half.
    """
    inputs, maps, halves = [], [], []
    for network, data in zip(networks, held_out, strict=True):
        images = data.images[data.labels == label]
        attribution = attribute(Unit(network, channel=unit), images)
        evidence = absence_evidence(attribution)
        half = {"absence evidence on the left": left_share(evidence), "ink on the left": left_share(images)}
        halves.append({"input": label, **half})
        inputs.append(images[:, 0])
        maps.append(attribution[:, 0])
    return torch.cat(inputs), torch.cat(maps), pd.DataFrame(halves)


def left_share(values: Tensor) -> float:
    """Share of the sum of values [..., width] >= 0 that lies on the left half of an even width."""
    return float(values[..., : values.shape[-1] // 2].sum() / values.sum())


def removal_over_seeds(
    networks: list[DigitsNet],
    held_out: list[TensorImages],
    seeds: list[int],
    source: int,
    unit: int,
    shares,
    **options,
) -> pd.DataFrame:
    """`removal_table` of every network on its held-out images of class `source`, with a column seed."""
    tables = []
    for network, data, seed in zip(networks, held_out, seeds, strict=True):
        table = removal_table(network, data.images[data.labels == source], source, unit, shares, **options)
        tables.append(table.assign(seed=seed))
    return pd.concat(tables, ignore_index=True)


def removal_examples(
    networks: list[DigitsNet],
    held_out: list[TensorImages],
    source: int,
    unit: int,
    share: float,
    *,
    seed: int = 0,
) -> dict[str, tuple[Tensor, list[int]]]:
    """The first image of class `source` held out from every network, untouched and after each treatment.

    Returns:
        "untouched" and each of `TREATMENTS` -> (images [network, height, width], class seen [network]).
    """
    images, seen = {}, {}
    for network, data in zip(networks, held_out, strict=True):
        image = data.images[data.labels == source][:1]
        for name, left in {
            "untouched": image,
            **remove_strokes(network, image, unit, share, seed=seed),
        }.items():
            images.setdefault(name, []).append(left[0, 0])
            seen.setdefault(name, []).append(int(predict(network, left).argmax(1)))
    return {name: (torch.stack(images[name]), seen[name]) for name in images}


def all_class_pairs(
    networks: list[DigitsNet], held_out: list[TensorImages], seeds: list[int], share: float, **options
) -> pd.DataFrame:
    """`removal_over_seeds` at one share for all 90 ordered pairs of classes, with columns unit and source."""
    tables = []
    for unit, source in progress(list(permutations(range(10), 2)), "class pairs"):
        table = removal_over_seeds(networks, held_out, seeds, source, unit, [share], **options)
        tables.append(table.assign(unit=unit, source=source))
    return pd.concat(tables, ignore_index=True)


def moving_bars(steps: list[int], size: int = 12) -> Tensor:
    """One bar as high as the image that moves by `steps` columns from frame 1 to frame 2: [step, frame=2, size, size].

    Positive steps go from left to right, 0 stands still. In frame 1 the bar is in the middle.

    Raises:
        InputError: a step that leaves the image.
    """
    start = size // 2
    frames = torch.zeros(len(steps), 2, size, size)
    for k, step in enumerate(steps):
        if not 0 <= start + step < size:
            raise InputError("steps", f"{step} columns leave an image of {size}", "Use smaller steps.")
        frames[k, 0, :, start] = 1
        frames[k, 1, :, start + step] = 1
    return frames


@torch.no_grad()
def paint_pixel(
    network: GreenPixelNet, image: Tensor, greens: list[float], reds: list[float]
) -> tuple[Tensor, Tensor]:
    """Give the pixel in the middle of an image every mixture of green and red, and see what the network says.

    Args:
        image: [rgb, height, width] in 0..1.
        greens, reds: amounts in 0..1; blue stays 0.

    Returns:
        images [green, red, rgb, height, width] and responses [green, red, class], signed.
    """
    _, height, width = image.shape
    painted = image.repeat(len(greens), len(reds), 1, 1, 1)
    colours = torch.tensor([[[red, green, 0.0] for red in reds] for green in greens])
    painted[..., height // 2, width // 2] = colours
    return painted, predict(network, painted.flatten(0, 1)).unflatten(0, (len(greens), len(reds)))


def release(network: DigitsNet, images: Tensor, unit: int, shares: list[float]) -> tuple[Tensor, Tensor]:
    """Remove growing shares of the stroke pixels, the most negative ones of the unit's attribution first.

    Args:
        images: [image, 1, height, width], background 0.
        shares: of the stroke pixels of each image, in 0..1.

    Returns:
        images [share, image, 1, height, width] and responses [share, image, class], signed.
    """
    score = attribute(Unit(network, channel=unit), images, "input_x_gradient").sum(dim=1)
    strokes = (images > 0).any(dim=1)
    counts = [(share * strokes.sum(dim=(1, 2))).round().long() for share in shares]
    left = torch.stack([remove_pixels(images, score, count, among=strokes) for count in counts])
    return left, predict(network, left.flatten(0, 1)).unflatten(0, left.shape[:2])
