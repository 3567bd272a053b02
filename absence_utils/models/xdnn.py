"""Networks without any bias (X-DNNs: Hesse, Schaub-Meyer, Roth: Fast axiomatic attribution, NeurIPS 2021).

A ReLU network without additive terms is homogeneous: f(a x) = a f(x) for a > 0, f(0) = 0. So along the line from the
empty image to x the gradient does not change, and input x gradient *is* integrated gradients from zero, complete and
in one backward pass. That makes a penalty on attributions affordable in training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))  # width and blocks of each layer, as in ResNet-50
EXPANSION = 4


class Bottleneck(nn.Module):
    """Residual block of `XResNet50`: three convolutions, no bias, no scale, no normalisation."""

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        out = width * EXPANSION
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        changes = stride != 1 or channels != out
        self.downsample = nn.Conv2d(channels, out, 1, stride=stride, bias=False) if changes else None
        self.relu1, self.relu2, self.relu3 = nn.ReLU(), nn.ReLU(), nn.ReLU()

    def forward(self, maps: Tensor) -> Tensor:
        change = self.relu2(self.conv2(self.relu1(self.conv1(maps))))
        return self.relu3(self.conv3(change) + (maps if self.downsample is None else self.downsample(maps)))


class XResNet50(nn.Module):
    """ResNet-50 without biases and batch norms, started as Fixup says (Zhang, Dauphin, Ma, ICLR 2019).

    Its 54 tensors have the names and shapes of the public X-ResNet-50 checkpoint, which `load_model("xresnet50",
    weights=...)` reads: conv1, layerN.M.conv1 to conv3, layerN.0.downsample, fc.

    Input [batch, 3, height, width], normalised so that 0 is the empty image; output [batch, class], signed.

    Args:
        num_classes: number of outputs.
    """

    def __init__(self, num_classes: int = 1000):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels, total = 64, sum(blocks for _, blocks in STAGES)
        for number, (width, blocks) in enumerate(STAGES, start=1):
            layer = []
            for block in range(blocks):
                layer.append(Bottleneck(channels, width, 2 if block == 0 and number > 1 else 1))
                channels = width * EXPANSION
            setattr(self, f"layer{number}", nn.Sequential(*layer))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(channels, num_classes, bias=False)
        self._start(total)

    @torch.no_grad()
    def _start(self, blocks: int) -> None:
        """Fixup: each branch begins as nothing and its other convolutions are smaller the deeper the network is."""
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        for module in self.modules():
            if isinstance(module, Bottleneck):
                for convolution in (module.conv1, module.conv2):
                    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
                    convolution.weight.mul_(blocks**-0.25)
                nn.init.zeros_(module.conv3.weight)
                if module.downsample is not None:
                    nn.init.kaiming_normal_(module.downsample.weight, mode="fan_out", nonlinearity="linear")
        # Fixup's zero would leave nothing to look at before training.
        nn.init.normal_(self.fc.weight, std=0.01)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.maxpool(self.relu(self.conv1(images)))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        return self.fc(self.flatten(self.avgpool(maps)))


class SmallXNet(nn.Module):
    """Small convolutional network without any bias, for images of any size from 8 px.

    Input [batch, channel, height, width], 0 where there is nothing; output [batch, class], signed.

    Args:
        channels: of the images.
        classes: number of outputs.
        width: channels of the first convolution; the others have twice as many.
        halvings: how often the image is halved before the last average over a grid of 4 x 4.
        seed: of the first weights.
    """

    def __init__(self, channels: int = 1, classes: int = 2, width: int = 8, halvings: int = 1, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers = [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.ReLU()]
            for number in range(halvings):
                layers += [nn.AvgPool2d(2)]
                layers += [
                    nn.Conv2d(width * (1 + (number > 0)), 2 * width, 3, padding=1, bias=False),
                    nn.ReLU(),
                ]
            self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten())
            self.fc = nn.Linear(16 * width * (1 + (halvings > 0)), classes, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.features(images))


class DenseXNet(nn.Module):
    """Two hidden layers without any bias, for small grey images.

    Input [batch, 1, size, size], 0 where there is nothing; output [batch, class], signed.

    Args:
        size: edge of the images, px.
        hidden: units of the hidden layers.
        classes: number of outputs.
        seed: of the first weights.
    """

    def __init__(self, size: int = 14, hidden: tuple[int, ...] = (128, 64), classes: int = 2, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers, before = [nn.Flatten()], size * size
            for width in hidden:
                layers += [nn.Linear(before, width, bias=False), nn.ReLU()]
                before = width
            self.features = nn.Sequential(*layers)
            self.fc = nn.Linear(before, classes, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.features(images))


class TwoTowers(nn.Module):
    """Planted twin: output 0 cannot see the artefact, output 1 can.

    Input [batch, 6, height, width]: the image without the artefact, then the image as it is. A shortcut can live in
    output 1 alone, so what marks class 0 can only be learnt as "the artefact is absent" by the other class.
    """

    def __init__(self, width: int = 8, halvings: int = 2, seed: int = 0):
        super().__init__()
        self.blind = SmallXNet(3, 1, width, halvings, seed)
        self.seeing = SmallXNet(3, 1, width, halvings, seed + 1000)

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat((self.blind(images[:, :3]), self.seeing(images[:, 3:])), dim=1)
