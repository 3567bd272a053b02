"""A network of three units with a known answer, and donors for it: a cross that silences one, colour for another."""

import numpy as np
import torch
from torch import nn

from absence_utils.images.base import TensorImages
from absence_utils.images.cache import stack_images
from absence_utils.naming.concepts import Concepts

EDGE, HOST = 8, 24
NAMES = ["cross", "stripes", "red"]


def planted_network() -> nn.Sequential:
    """Layer "2" gives minus the energy of a cross, minus the first channel (linear), and a constant."""
    template = torch.zeros(7, 7)
    template[3], template[:, 3] = 1.0, 1.0
    template -= template.mean()
    first = nn.Conv2d(2, 3, 7)
    with torch.no_grad():
        first.weight.zero_()
        first.weight[0] = template / 2
        first.weight[1, 0, 3, 3] = 1.0
        first.bias.copy_(torch.tensor([-8.0, 50.0, 1.0]))  # a threshold; far from the kink; constant
    last = nn.Conv2d(3, 3, 1)
    with torch.no_grad():
        last.weight.copy_(-torch.eye(3)[:, :, None, None])
        last.bias.zero_()
    return nn.Sequential(first, nn.ReLU(), last).eval()


def cross() -> torch.Tensor:
    """[edge, edge] what the first filter looks for."""
    drawn = torch.zeros(EDGE, EDGE)
    drawn[3, :7], drawn[:7, 3] = 1.0, 1.0
    return drawn


def noise_images(count: int, seed: int = 0) -> TensorImages:
    """Noise; every second image has a cross in the middle."""
    images = 0.7 * torch.randn(count, 2, HOST, HOST, generator=torch.Generator().manual_seed(seed))
    images[::2, :, 8 : 8 + EDGE, 8 : 8 + EDGE] += 4 * cross()
    return TensorImages(images, torch.zeros(count, dtype=torch.long), ["noise"])


def planted_donors(each: int = 24, seed: int = 1) -> Concepts:
    """`each` donors of every name: a cross, stripes, and noise with a high first channel.

    All kinds differ in colour and contrast within themselves, so that neither tells the name.
    """
    generator = torch.Generator().manual_seed(seed)
    contrast, colour = (torch.randn(3 * each, size, 1, 1, generator=generator) for size in (1, 2))
    crops = 0.4 * contrast.abs() * torch.randn(3 * each, 2, EDGE, EDGE, generator=generator) + 0.4 * colour
    amplitude = 3 + torch.rand(3 * each, 1, 1, 1, generator=generator)
    stripes = torch.zeros(EDGE, EDGE)
    stripes[::3] = 0.4
    crops[:each] += amplitude[:each] * cross()
    crops[each : 2 * each] += amplitude[each : 2 * each] * stripes
    crops[2 * each :, :1] += amplitude[2 * each :] / 3
    label = torch.arange(3).repeat_interleave(each)
    donors = stack_images(TensorImages(crops, label, NAMES))
    return Concepts(list(NAMES), label.numpy()[:, None] == np.arange(3), donors, np.full(3 * each, -1))
