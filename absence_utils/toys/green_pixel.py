"""The green pixel of notebook 02: its images, the network, the steps of the experiment."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import pandas as pd
import torch
from torch import Tensor, nn

from absence_utils.errors import InputError, require_at_least, require_choice
from absence_utils.images.base import IDENTITY, TensorImages
from absence_utils.models.training import accuracy, fit, predict
from absence_utils.progress import progress

# RGB in 0..1. Pure green is the only one with more green than red and blue together.
COLOURS = {
    "green": (0.0, 1.0, 0.0),
    "red": (1.0, 0.0, 0.0),
    "blue": (0.0, 0.0, 1.0),
    "yellow": (1.0, 1.0, 0.0),
    "magenta": (1.0, 0.0, 1.0),
    "cyan": (0.0, 1.0, 1.0),
    "white": (1.0, 1.0, 1.0),
    "orange": (1.0, 0.5, 0.0),
    "violet": (0.5, 0.0, 1.0),
}


def green_pixel_images(n: int, seed: int, size: int = 32, coloured: Sequence[int] = (8, 12)) -> TensorImages:
    """Black images with a few single coloured pixels: class 0 has exactly one green pixel, class 1 has none.

    Both classes have the same number of coloured pixels, drawn evenly from `coloured[0]` to `coloured[1]`, at distinct
    places; all but the green one take one of the eight other colours of `COLOURS`. Labels alternate.

    Returns:
        TensorImages with images [n, rgb, size, size] in 0..1.

    Raises:
        InputError: fewer than two images, or more coloured pixels than places.
    """
    fewest, most = coloured
    require_at_least("n", n, 2, "fewer images cannot hold both classes")
    if not 1 <= fewest <= most <= size * size:
        raise InputError("coloured", f"{tuple(coloured)} pixels in {size} x {size}", "Give (fewest, most).")
    generator = torch.Generator().manual_seed(seed)
    palette = torch.tensor(list(COLOURS.values()))
    labels = torch.arange(n) % 2
    place = torch.rand(n, size * size, generator=generator).argsort(dim=1)[:, :most]
    colour = torch.randint(1, len(palette), (n, most), generator=generator)
    colour[labels == 0, 0] = 0
    count = torch.randint(fewest, most + 1, (n, 1), generator=generator)
    used = torch.arange(most) < count  # a pixel beyond the count stays black
    values = palette[colour] * used[:, :, None]
    images = torch.zeros(n, size * size, 3).scatter_(1, place[:, :, None].expand(-1, -1, 3), values)
    images = images.view(n, size, size, 3).permute(0, 3, 1, 2)
    names = ["green pixel", "no green pixel"]
    return TensorImages(images, labels, names, source=f"green pixels, seed {seed}")


def colour_mask(images: Tensor, colour: str) -> Tensor:
    """Where images [n, rgb, height, width] have exactly this colour of `COLOURS`: bool [n, height, width]."""
    require_choice("colour", colour, COLOURS)
    return (images == torch.tensor(COLOURS[colour]).to(images)[:, None, None]).all(dim=1)


class GreenPixelNet(nn.Module):
    """Two 1x1 convolutions of two channels with a rectifier between, then the mean (the paper's second example).

    Input [batch, rgb, height, width] in 0..1, output [batch, class]: 0 "a green pixel", 1 "no green pixel".
    PyTorch's own initial weights, drawn from `seed`; see `start_at_contrast` for those that train reliably.
    """

    normalisation = IDENTITY

    def __init__(self, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.colours = nn.Conv2d(3, 2, 1, bias=False)
            self.relu = nn.ReLU()
            self.classes = nn.Conv2d(2, 2, 1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.classes(self.relu(self.colours(images))).mean(dim=(2, 3))

    @torch.no_grad()
    def start_at_contrast(
        self, images: Tensor, labels: Tensor, *, noise: float = 0.1, seed: int = 0
    ) -> GreenPixelNet:
        """Set initial weights from the contrast of the classes' mean colours; return the network.

        Pixels are never negative and there is no bias, so a hidden channel whose weights give no colour a
        positive sum is silent on every image, gets no gradient and stays dead. Two channels leave none to
        spare. Started at plus and minus the contrast, the channels share the colours out: each colour wakes
        one of the two. Where classes differ by one green pixel, plus is awake for green.

        Args:
            images: [n, rgb, height, width]; labels: [n] of 0 and 1.
            noise: sd of a normal deviate added to every weight; the weights themselves have size 1.
            seed: of that deviate.

        Raises:
            InputError: one class is absent, or both have the same mean colour.
        """
        if set(labels.unique().tolist()) != {0, 1}:
            raise InputError("labels", "both classes, 0 and 1, are needed", "Pass images of each.")
        colour = images.mean(dim=(2, 3))
        contrast = colour[labels == 0].mean(0) - colour[labels == 1].mean(0)
        if contrast.norm() == 0:
            raise InputError("images", "both classes have the same mean colour", "Pass more images.")
        contrast = contrast / contrast.norm()
        self.colours.weight.copy_(torch.stack([contrast, -contrast])[:, :, None, None])
        self.classes.weight.copy_(torch.tensor([[1.0, -1.0], [-1.0, 1.0]])[:, :, None, None])
        generator = torch.Generator().manual_seed(seed)
        for weight in (self.colours.weight, self.classes.weight):
            weight.add_(noise * torch.randn(weight.shape, generator=generator))
        return self

    @torch.no_grad()
    def dead_channels(self, colours: Tensor) -> int:
        """How many hidden channels respond to none of the colours [colour, rgb]."""
        return int((self.colours.weight[:, :, 0, 0] @ colours.T <= 0).all(dim=1).sum())


INITIALISATIONS = ("contrast start", "PyTorch's start")
SCHEDULES = {"one cycle": "one_cycle", "constant rate": "constant"}


def compare_initialisations(
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
    for start, (words, schedule) in product(INITIALISATIONS, SCHEDULES.items()):
        recipe = f"{start}, {words}"
        for seed in progress(seeds, recipe):
            train, network = green_pixel_images(images, seed), GreenPixelNet(seed)
            if start == INITIALISATIONS[0]:
                network.start_at_contrast(train.images, train.labels, seed=seed)
            options = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "seed": seed}
            options |= {"schedule": schedule, "optimiser": torch.optim.Adam}
            fit(network.to(device), train.images, train.labels, **options)
            share = accuracy(network, test.images, test.labels)
            networks[recipe, seed] = network.cpu()
            dead = network.dead_channels(palette)
            records.append({"recipe": recipe, "seed": seed, "accuracy": share, "dead channels": dead})
    return pd.DataFrame(records), networks


@torch.no_grad()
def sweep_pixel_colour(
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
