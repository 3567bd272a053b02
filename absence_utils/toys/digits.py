"""The digits of notebook 03: the network and the steps of the experiment."""

from __future__ import annotations

from itertools import permutations

import pandas as pd
import torch
from torch import Tensor, nn

from absence_utils.attribution.evidence import absence_evidence
from absence_utils.attribution.methods import attribute
from absence_utils.attribution.removal import removal_table, remove_pixels, remove_strokes
from absence_utils.errors import InputError
from absence_utils.images.base import IDENTITY, TensorImages
from absence_utils.images.digits import digits
from absence_utils.models.training import fit, predict
from absence_utils.progress import progress
from absence_utils.units import Unit

RANDOM_DRAWS = 20  # random removals of which the median one is shown


class DigitsNet(nn.Module):
    """Convolutional network without any bias for square grey images of digits.

    Without biases the network is homogeneous: f(c x) = c f(x) for c > 0. An empty image gives 0 for every
    class, and integrated gradients from it equal input x gradient (X-DNN: Hesse et al., NeurIPS 2021).

    Input [batch, 1, size, size] in 0..1, background 0; output [batch, class=10], signed.

    Args:
        size: edge of the images in pixels: 8 (scikit-learn) or 28 (MNIST), in general a multiple of 4.
        seed: of the initial weights.
    """

    normalisation = IDENTITY

    def __init__(self, size: int = 8, seed: int = 0):
        super().__init__()
        if size < 4 or size % 4:
            raise InputError("size", f"{size} is not a positive multiple of 4", "Use 8 or 28.")
        halvings = 1 if size < 16 else 2
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.conv1 = nn.Conv2d(1, 16, 3, padding=1, bias=False)
            self.conv2 = nn.Conv2d(16, 32, 3, padding=1, bias=False)
            self.conv3 = nn.Conv2d(32, 32, 3, padding=1, bias=False)
            self.fc = nn.Linear(32 * (size // 2**halvings) ** 2, 10, bias=False)
        self.relu1, self.relu2, self.relu3 = nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.pool1 = nn.AvgPool2d(2)
        self.pool2 = nn.AvgPool2d(2) if halvings == 2 else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        features = self.relu1(self.conv1(images))
        features = self.pool1(self.relu2(self.conv2(features)))
        features = self.pool2(self.relu3(self.conv3(features)))
        return self.fc(features.flatten(1))


def train_digits(
    seed: int = 0,
    *,
    dataset: str = "sklearn",
    limit: int = 0,
    epochs: int = 15,
    lr: float = 0.02,
    device="cpu",
) -> tuple[DigitsNet, TensorImages]:
    """A network trained on one split of the digits, and the images that it has not seen.

    Args:
        seed: of the initial weights, of the order of training, and the number of the split.
        dataset, limit: see `images.digits.digits`.
        epochs, lr: passes over the training images, and the peak learning rate.

    Raises:
        InputError: as `images.digits.digits` and `models.training.fit`.
    """
    train, held_out = (digits(split, dataset, fold=seed, limit=limit) for split in ("train", "test"))
    network = DigitsNet(size=train.images.shape[-1], seed=seed).to(device)
    fit(network, train.images, train.labels, epochs=epochs, lr=lr, seed=seed, description=f"network {seed}")
    return network, held_out


def class_maps(
    networks: list[DigitsNet], held_out: list[TensorImages], label: int, unit: int
) -> tuple[Tensor, Tensor, pd.DataFrame]:
    """Attribute one class's unit on every network's held-out images of class `label`, by integrated gradients.

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


def median_removal(
    networks: list[DigitsNet],
    held_out: list[TensorImages],
    source: int,
    unit: int,
    share: float,
    *,
    seed: int = 0,
) -> dict[str, tuple[Tensor, Tensor, int]]:
    """The typical image of class `source`: unmodified, and after each treatment.

    Of all held-out images that their network recognises, it is the one with the median margin of class `unit` over the
    best other class, after its most negative pixels are gone. Of `RANDOM_DRAWS` random removals from that image it is
    again the one with the median margin. (Of an even number it is the lower of the two.)

    Returns:
        "unmodified" and each of `TREATMENTS` -> image [height, width], bool [height, width] True where a pixel was
        removed, and the class that the network sees.

    Raises:
        InputError: the networks recognise no image of that class.
    """
    found = []
    for network, data in zip(networks, held_out, strict=True):
        images = data.images[data.labels == source]
        images = images[predict(network, images).argmax(1) == source]
        if len(images):
            left = remove_strokes(network, images, unit, share)["most negative"]
            margins = _margins(predict(network, left), unit)
            found += [(margin, network, image[None]) for margin, image in zip(margins, images, strict=True)]
    if not found:
        raise InputError("source", f"no held-out image is recognised as {source}", "Train for longer.")
    _, network, image = sorted(found, key=lambda it: it[0])[(len(found) - 1) // 2]
    draws = [remove_strokes(network, image, unit, share, seed=seed + k) for k in range(RANDOM_DRAWS)]
    chance = torch.cat([draw["random"] for draw in draws])
    order = torch.tensor(_margins(predict(network, chance), unit)).argsort(stable=True)
    treated = {"unmodified": image, **draws[order[(RANDOM_DRAWS - 1) // 2]]}
    return {
        name: (left[0, 0], (left != image)[0, 0], int(predict(network, left).argmax(1)))
        for name, left in treated.items()
    }


def _margins(responses: Tensor, unit: int) -> list[float]:
    """By how much the response of `unit` exceeds that of the best other class: [image] of [image, class]."""
    others = responses.clone()
    others[:, unit] = -torch.inf
    return (responses[:, unit] - others.amax(dim=1)).tolist()


def all_class_pairs(
    networks: list[DigitsNet], held_out: list[TensorImages], seeds: list[int], share: float, **options
) -> pd.DataFrame:
    """`removal_over_seeds` at one share for all 90 ordered pairs of classes, with columns unit and source."""
    tables = []
    for unit, source in progress(list(permutations(range(10), 2)), "class pairs"):
        table = removal_over_seeds(networks, held_out, seeds, source, unit, [share], **options)
        tables.append(table.assign(unit=unit, source=source))
    return pd.concat(tables, ignore_index=True)


def progressive_removal(
    network: DigitsNet, images: Tensor, unit: int, shares: list[float]
) -> tuple[Tensor, Tensor]:
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
