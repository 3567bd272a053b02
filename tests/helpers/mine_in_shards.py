"""What the test of resuming starts and kills: mine shards of random images into a folder, write the merged book."""

import torch
from torch import nn

from absence_utils.images.base import TensorImages
from absence_utils.patches.shards import mine_shards

torch.set_num_threads(1)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 8, 3), nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6)).eval()


def images(n=24):
    pixels = torch.randn(n, 2, 40, 40, generator=torch.Generator().manual_seed(5))
    return TensorImages(pixels, torch.zeros(n).long(), ["all"])


SETTINGS = {"patch": 12, "stride": 3, "k": 5, "reservoir": 40, "batch_size": 50}


def run(folder, merged):
    mine_shards(network(), "1", images(), folder, 12, **SETTINGS).save(merged)
