"""Small networks and images whose responses can be computed by hand, and networks that are hard to read."""

import torch
from torch import nn
from torchvision.models import VisionTransformer

from absence_utils import PatchBook
from absence_utils.images.base import TensorImages
from absence_utils.patches.book import SIDES


def whole_numbers(n=5, channels=2, height=9, width=10, seed=0):
    """Images of small whole numbers: sums are exact in every precision, and many responses tie."""
    pixels = torch.randint(-1, 2, (n, channels, height, width), generator=torch.Generator().manual_seed(seed))
    return TensorImages(pixels.float(), torch.zeros(n, dtype=torch.long), ["all"])


def whole_number_network(channels=2, units=3):
    network = nn.Sequential(nn.Conv2d(channels, units, 3, bias=False), nn.ReLU(inplace=True))
    weight = torch.randint(-1, 2, network[0].weight.shape, generator=torch.Generator().manual_seed(1))
    network[0].weight.data = weight.float()
    return network.eval()


def real_network(units=6):
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(8, units, 3, padding=1)]
    return nn.Sequential(*layers, nn.BatchNorm2d(units)).eval()


def transformer(size=16):
    torch.manual_seed(0)
    options = {"num_layers": 1, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 16, "num_classes": 3}
    return VisionTransformer(image_size=size, patch_size=4, **options).eval()


def rgb(n=3, size=16, seed=0):
    pixels = torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))
    return TensorImages(pixels, torch.zeros(n, dtype=torch.long), ["all"])


def same(a: PatchBook, b: PatchBook) -> bool:
    """Equal in every number of every part."""
    return a.windows == b.windows and all(
        torch.equal(getattr(getattr(a, part), name), getattr(getattr(b, part), name))
        for part in (*SIDES, "random")
        for name in ("response", "image", "box")
    )


class Counting:
    """A dataset that is no more than a list of (image, label), and counts what is read."""

    def __init__(self, images):
        self.images, self.read = images, [0] * len(images)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.read[index] += 1
        return self.images[index], 0


class Untraceable(nn.Module):
    """torch.fx cannot follow a condition on values."""

    def __init__(self, *modules):
        super().__init__()
        self.first, self.second, self.third = modules

    def forward(self, images):
        images = self.first(images)
        if images.sum() > 0:
            images = self.third(images)
        return self.second(images)


def additive_terms(model: nn.Module) -> list[str]:
    """Names of what keeps a network from being homogeneous: biases and normalisation layers; empty for an X-DNN."""
    found = []
    for name, module in model.named_modules():
        if isinstance(module, (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)):
            found.append(name)
        elif getattr(module, "bias", None) is not None:
            found.append(f"{name}.bias")
    return found
