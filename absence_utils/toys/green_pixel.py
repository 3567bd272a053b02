"""The green pixel of notebook 02: its images, the network, the recipes of training, the steps of the experiment.

What is called released here is that of the authors' release (visinf/what-is-missing, toy_example.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import pandas as pd
import torch
from torch import Tensor, nn
from torch.func import vmap

from absence_utils.attribution.evidence import absence_evidence
from absence_utils.errors import InputError, require_at_least, require_choice
from absence_utils.images.base import IDENTITY, TensorImages
from absence_utils.models.training import accuracy, fit, predict
from absence_utils.progress import progress

# RGB in 0..1. Pure green is the only one with more green than red and blue together: weights for red and blue must
# hold back the green of four others.
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
# Nothing but green has any green: one weight tells them apart.
RELEASED_COLOURS = {
    "green": (0.0, 1.0, 0.0),
    "red": (1.0, 0.0, 0.0),
    "blue": (0.0, 0.0, 1.0),
    "magenta": (1.0, 0.0, 1.0),
    "violet": (0.5, 0.0, 1.0),
    "rose": (1.0, 0.0, 0.5),
    "dark red": (0.5, 0.0, 0.0),
    "dark blue": (0.0, 0.0, 0.5),
    "dark magenta": (0.5, 0.0, 0.5),
}
CLASS_NAMES = ["green pixel", "no green pixel"]
PALETTES = {"harder": COLOURS, "released": RELEASED_COLOURS}


def green_pixel_images(
    n: int, seed: int, size: int = 32, coloured: Sequence[int] = (8, 12), *, palette: str = "harder"
) -> TensorImages:
    """Black images with a few single coloured pixels: class 0 has exactly one green pixel, class 1 has none.

    Both classes have the same number of coloured pixels, drawn evenly from `coloured[0]` to `coloured[1]`, at distinct
    places; all but the green one take one of the eight other colours. Labels alternate.

    Args:
        palette: "harder", in which other colours hold green as well (`COLOURS`), or "released"
            (`RELEASED_COLOURS`).

    Returns:
        TensorImages with images [n, rgb, size, size] in 0..1.

    Raises:
        InputError: fewer than two images, more coloured pixels than places, or an unknown palette.
    """
    require_choice("palette", palette, PALETTES)
    fewest, most = coloured
    require_at_least("n", n, 2, "fewer images cannot hold both classes")
    if not 1 <= fewest <= most <= size * size:
        raise InputError("coloured", f"{tuple(coloured)} pixels in {size} x {size}", "Give (fewest, most).")
    generator = torch.Generator().manual_seed(seed)
    colours = torch.tensor(list(PALETTES[palette].values()))
    labels = torch.arange(n) % 2
    place = torch.rand(n, size * size, generator=generator).argsort(dim=1)[:, :most]
    colour = torch.randint(1, len(colours), (n, most), generator=generator)
    colour[labels == 0, 0] = 0
    count = torch.randint(fewest, most + 1, (n, 1), generator=generator)
    used = torch.arange(most) < count  # a pixel beyond the count stays black
    values = colours[colour] * used[:, :, None]
    images = torch.zeros(n, size * size, 3).scatter_(1, place[:, :, None].expand(-1, -1, 3), values)
    images = images.view(n, size, size, 3).permute(0, 3, 1, 2)
    return TensorImages(images, labels, list(CLASS_NAMES), source=f"green pixels, seed {seed}")


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


def binary_cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Loss of the release: every logit [n, class] against the one-hot label, on its own; the mean over both.

    Cross entropy sees only the difference of the two logits.
    """
    one_hot = nn.functional.one_hot(labels, outputs.shape[1]).to(outputs)
    return nn.functional.binary_cross_entropy_with_logits(outputs, one_hot)


# The words of parameters, and what tables and figures say for them.
INITIALISATIONS = {"contrast": "contrast start", "pytorch": "PyTorch's start"}
SCHEDULES = {"one_cycle": "one cycle", "constant": "constant rate"}
LOSSES = {"cross_entropy": nn.functional.cross_entropy, "binary_cross_entropy": binary_cross_entropy}


@dataclass(frozen=True)
class Recipe:
    """How a green-pixel network is trained; the defaults are the companion's. Adam in all of them.

    Attributes:
        start: initial weights, of `INITIALISATIONS`; schedule: of `SCHEDULES`; loss: of `LOSSES`.
        images: training images; epochs: passes over them; batch_size: images in a step.
        lr: learning rate, the peak of one cycle.
    """

    start: str = "contrast"
    schedule: str = "one_cycle"
    loss: str = "cross_entropy"
    images: int = 1000
    epochs: int = 10
    lr: float = 0.5
    batch_size: int = 25

    def __post_init__(self):
        require_choice("start", self.start, INITIALISATIONS)
        require_choice("schedule", self.schedule, SCHEDULES)
        require_choice("loss", self.loss, LOSSES)

    @property
    def name(self) -> str:
        return f"{INITIALISATIONS[self.start]}, {SCHEDULES[self.schedule]}"

    def initial(self, data: TensorImages, seed: int) -> GreenPixelNet:
        """The network before training."""
        network = GreenPixelNet(seed)
        if self.start == "contrast":
            network.start_at_contrast(data.images, data.labels, seed=seed)
        return network

    def train(self, data: TensorImages, seed: int, device="cpu") -> GreenPixelNet:
        """A network trained on `data`, on the CPU; `seed` is that of its weights and of the order of images."""
        network = self.initial(data, seed)
        options = {"epochs": self.epochs, "lr": self.lr, "batch_size": self.batch_size, "seed": seed}
        options |= {"loss": LOSSES[self.loss], "schedule": self.schedule, "optimiser": torch.optim.Adam}
        fit(network.to(device), data.images, data.labels, **options)
        return network.cpu()


OURS = Recipe()
RELEASED = Recipe("pytorch", "constant", "binary_cross_entropy", 20_000, 15, 0.01, 256)


def compare_recipes(
    test: TensorImages,
    seeds: list[int],
    recipes: Sequence[Recipe],
    *,
    palette: str = "harder",
    same_images: bool = False,
    device="cpu",
) -> tuple[pd.DataFrame, dict[tuple[str, int], GreenPixelNet]]:
    """Train the green-pixel network with every recipe, every seed with each.

    Args:
        test: test images, the same for all runs.
        seeds: of training images, initial weights and the order of training.
        palette: of the training images.
        same_images: all seeds train on the images of the first one, as the tries of the release do.

    Returns:
        Table with recipe, seed, accuracy (0..1) and dead channels (of 2) for every run, and the networks by
        (recipe, seed), on the CPU.
    """
    colours = torch.tensor(list(PALETTES[palette].values()))
    records, networks = [], {}
    for recipe in recipes:
        for seed in progress(seeds, recipe.name):
            train = green_pixel_images(recipe.images, seeds[0] if same_images else seed, palette=palette)
            network = recipe.train(train, seed, device)
            share = accuracy(network, test.images, test.labels)
            networks[recipe.name, seed] = network
            dead = network.dead_channels(colours)
            records.append({"recipe": recipe.name, "seed": seed, "accuracy": share, "dead channels": dead})
    return pd.DataFrame(records), networks


def only_coloured(data: TensorImages) -> TensorImages:
    """The images without their black pixels, [n, rgb, 1, most coloured]: `GreenPixelNet` answers the same.

    A black pixel adds nothing to its mean over space, as it has no bias; colours are scaled for the mean over fewer
    pixels. Training on 85 times fewer pixels takes the same steps, up to rounding.
    """
    pixels = data.images.flatten(2)
    coloured = pixels.any(dim=1).to(torch.uint8)
    most = int(coloured.sum(dim=1).max())
    place = coloured.topk(most, dim=1).indices[:, None].expand(-1, pixels.shape[1], -1)
    few = pixels.gather(2, place)[:, :, None] * (most / pixels.shape[2])
    return TensorImages(few, data.labels, data.class_names, source=f"{data.source}, coloured pixels only")


def train_together(recipe: Recipe, data: TensorImages, seeds: Sequence[int]) -> list[GreenPixelNet]:
    """What `recipe.train` gives for every seed, up to rounding, all at once: Adam treats each weight on its own."""
    networks = [recipe.initial(data, seed) for seed in seeds]
    layers = [[network.colours for network in networks], [network.classes for network in networks]]
    weights = [torch.stack([layer.weight.detach()[:, :, 0, 0] for layer in each]) for each in layers]
    colours, classes = (
        weight.requires_grad_() for weight in weights
    )  # [seed, hidden, rgb], [seed, class, hidden]
    updater = torch.optim.Adam([colours, classes], lr=recipe.lr)
    steps = recipe.epochs * -(-len(data) // recipe.batch_size)
    scheduler = None
    if recipe.schedule == "one_cycle":
        scheduler = torch.optim.lr_scheduler.OneCycleLR(updater, recipe.lr, total_steps=steps)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    pixels = data.images.flatten(2).mT.contiguous()  # [image, pixel, rgb]
    for _ in progress(range(recipe.epochs), recipe.name):
        orders = torch.stack([torch.randperm(len(data), generator=generator) for generator in generators])
        for rows in orders.split(recipe.batch_size, dim=1):
            hidden = (pixels[rows] @ colours[:, None].mT).relu().mean(dim=2)
            losses = vmap(LOSSES[recipe.loss])(hidden @ classes.mT, data.labels[rows])
            updater.zero_grad()
            losses.sum().backward()
            updater.step()
            if scheduler:
                scheduler.step()
    for weight, each in zip(weights, layers, strict=True):
        for layer, values in zip(each, weight.detach(), strict=True):
            layer.weight.data = values[:, :, None, None].clone()
    return [network.eval() for network in networks]


def convergence_over_seeds(
    recipes: Mapping[str, Recipe], palette: str, seeds: Sequence[int], test_images: int = 1000
) -> pd.DataFrame:
    """Train every recipe with every seed of weights and order on the same images, as the tries of the release do.

    It takes the coloured pixels alone (see `only_coloured`), and all seeds at once.

    Returns:
        Table with the name of the recipe and its fields, palette, seed, accuracy (0..1, on test images of the
        palette) and dead channels (of 2).
    """
    test = only_coloured(green_pixel_images(test_images, 1_000_000, palette=palette))
    colours, records = torch.tensor(list(PALETTES[palette].values())), []
    for name, recipe in recipes.items():
        data = only_coloured(green_pixel_images(recipe.images, 0, palette=palette))
        for seed, network in zip(seeds, train_together(recipe, data, seeds), strict=True):
            known = {"recipe": name, **asdict(recipe), "palette": palette, "seed": seed}
            share = accuracy(network, test.images, test.labels)
            records.append(known | {"accuracy": share, "dead channels": network.dead_channels(colours)})
    return pd.DataFrame(records)


def convergence_table(runs: pd.DataFrame) -> pd.DataFrame:
    """How many seeds reach 99% test accuracy, "8 of 40", by recipe and loss (rows) and palette (columns).

    Args:
        runs: as of `convergence_over_seeds`.
    """
    reached = (runs["accuracy"] >= 0.99).groupby(
        [runs[name] for name in ("recipe", "loss", "palette")], sort=False
    )
    counts = reached.agg(["sum", "size"]).astype(str).agg(" of ".join, axis=1)
    return counts.unstack().add_suffix(" palette")[
        [f"{palette} palette" for palette in runs["palette"].unique()]
    ]


def logit_table(network: GreenPixelNet, test: TensorImages) -> pd.DataFrame:
    """Mean and sd of both logits over the images of each class.

    Returns:
        Indexed by the class of the inputs; columns (logit, "mean" or "sd").
    """
    logits = predict(network, test.images)
    parts = {}
    for unit, name in enumerate(test.class_names):
        by_class = [logits[test.labels == label, unit] for label in range(len(test.class_names))]
        parts[name, "mean"] = [float(part.mean()) for part in by_class]
        parts[name, "sd"] = [float(part.std()) for part in by_class]
    inputs = pd.Index(test.class_names, name="inputs")
    return pd.DataFrame(parts, inputs).rename_axis(columns=["logit of", ""])


def channel_weights(network: GreenPixelNet) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All ten weights of a network, its channel that takes in more green first.

    Returns:
        Weights of the colours [channel, colour], and of the channels for the classes [class, channel].
    """
    colours, classes = (
        layer.weight[:, :, 0, 0].detach().cpu() for layer in (network.colours, network.classes)
    )
    order, channels = colours[:, 1].argsort(descending=True), ["green channel", "other channel"]
    return (
        pd.DataFrame(colours[order].numpy(), channels, ["red", "green", "blue"]),
        pd.DataFrame(classes[:, order].numpy(), CLASS_NAMES, channels),
    )


def shares_on_green(maps: Tensor, green: Tensor, labels: Tensor) -> pd.DataFrame:
    """How much of the attribution of "no green pixel" is absence evidence, and how much of that lies on green.

    Args:
        maps: [image, height, width] signed, of the class "no green pixel".
        green: bool of the same shape, True on green pixels.
        labels: [image] 0 where there is a green pixel, 1 where there is none.

    Returns:
        Shares in 0..1: "absence evidence" of the sum of magnitudes, "of it on green" of the absence evidence (0 where
        there is none); columns "non-target" (inputs of class 0) and "target" (inputs of class 1).
    """
    shares = {}
    for view, label in (("non-target", 0), ("target", 1)):
        signed, on_green = maps[labels == label], (maps * green)[labels == label]
        evidence, there = (float(absence_evidence(part[:, None]).sum()) for part in (signed, on_green))
        share = {"absence evidence": evidence / float(signed.abs().sum())}
        shares[view] = share | {"of it on green": there / evidence if evidence else 0.0}
    return pd.DataFrame(shares)


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
