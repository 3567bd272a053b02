"""Networks of all kinds as users have them, to be opened and checked."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

CIFAR = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616), "size": 32}


class InPlace(nn.Module):
    """ReLU(inplace=True), `+=`, `mul_`, and a block that ends in `x[x < 0] = 0`."""

    def __init__(self):
        super().__init__()
        self.conv1, self.relu = nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(inplace=True)
        self.conv2, self.bn = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.cut, self.fc = Cut(), nn.Linear(6, 4)

    def forward(self, x):
        x = self.relu(self.conv1(x))
        y = self.bn(self.conv2(x))
        y += x
        y.mul_(3)
        return self.fc(self.cut(y).mean((2, 3)))


class Cut(nn.Module):
    def forward(self, x):
        x[x < 0] = 0
        return x


class Block(nn.Module):
    """A convolution and a rectifier of a given kind."""

    def __init__(self, rectify, channels=3):
        super().__init__()
        self.conv, self.rectify = nn.Conv2d(channels, 6, 3, padding=1), rectify

    def forward(self, x):
        return self.rectify(self.conv(x))


class Blocks(nn.Module):
    """Two blocks, an average over space, a linear layer."""

    def __init__(self, rectify=F.relu, second=None):
        super().__init__()
        self.first, self.second = Block(rectify), Block(second or rectify, 6)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(6, 4)

    def forward(self, x):
        return self.fc(self.pool(self.second(self.first(x))).flatten(1))


class Twice(nn.Module):
    """One rectifier and one convolution that both run twice."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv, self.relu = (
            nn.Conv2d(3, 6, 3),
            nn.Conv2d(6, 6, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        x = self.relu(self.conv(self.stem(x)))
        return self.fc(self.relu(self.conv(x)).mean((2, 3)))


class Regular(nn.Module):
    """Batch norm and dropout."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.drop = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Dropout(0.5)
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        return self.fc(self.drop(F.relu(self.bn(self.conv(x)))).mean((2, 3)))


class Around(nn.Module):
    """A convolution, something of one's own, another convolution, and something done to the output."""

    def __init__(self, between=lambda x: x, output=lambda x: x):
        super().__init__()
        self.conv1, self.conv2, self.fc = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.Linear(6, 4)
        nn.init.normal_(self.fc.weight)  # signs that are not all its bias's
        self.between, self.output = between, output

    def forward(self, x):
        return self.output(self.fc(F.relu(self.conv2(self.between(self.conv1(x)))).mean((2, 3))))


class Branches(nn.Module):
    """Two branches side by side, the second treated by a function."""

    def __init__(self, treat, channels=3):
        super().__init__()
        self.left, self.right, self.treat = nn.Conv2d(channels, 6, 3), nn.Conv2d(channels, 2, 3), treat
        self.join, self.fc = Join(), nn.Linear(8, 4)

    def forward(self, x):
        return self.fc(self.join(self.left(x), self.treat(self.right(x))).mean((2, 3)))


class Join(nn.Module):
    def forward(self, *parts):
        return torch.cat(parts, dim=1)


class Counting(nn.Module):
    """Changes a buffer, its own mode and its weights in every pass."""

    def __init__(self, change):
        super().__init__()
        self.conv, self.fc, self.change = nn.Conv2d(3, 6, 3), nn.Linear(6, 4), change
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x):
        self.change(self)
        return self.fc(self.conv(x).mean((2, 3)))


class Overwriting(Blocks):
    """Normalises its images in place."""

    def forward(self, x):
        x -= 0.5
        return super().forward(x)


class Dense(nn.Module):
    """A multi-layer perceptron on the pixels of grey images of 28 px."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(784, 20), nn.Linear(20, 4)

    def forward(self, x):
        return self.second(torch.relu(self.first(x.flatten(1))))


class Grey(nn.Module):
    """Grey images of 28 px."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 6, 5), nn.Linear(6, 4)

    def forward(self, x):
        return self.fc(F.relu(self.conv(x)).amax((2, 3)))


class Basic(nn.Module):
    """Basic block of a CIFAR ResNet: functional rectifiers, a shortcut without weights."""

    def __init__(self, before, after, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(after), nn.BatchNorm2d(after)
        self.conv2, self.stride, self.more = (
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            stride,
            after - before,
        )

    def forward(self, x):
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        out += F.pad(
            x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.more // 2, self.more - self.more // 2)
        )
        return F.relu(out)


class CifarResNet(nn.Module):
    """ResNet-20 in miniature for images of 32 px: three stages of one block."""

    def __init__(self, classes=10):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8)
        self.layer1, self.layer2, self.layer3 = Basic(8, 8, 1), Basic(8, 16, 2), Basic(16, 32, 2)
        self.linear = nn.Linear(32, classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(F.avg_pool2d(x, x.shape[-1]).flatten(1))


def trained_cifar():
    """A CifarResNet whose norms are not at their start."""
    torch.manual_seed(5)
    net = CifarResNet()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    return net.eval()


def cifar():
    """What a file of a reader's holds: a network and how its images are normalised."""
    return CifarResNet(), CIFAR


def plain():
    return Blocks()


def broken():
    raise RuntimeError("no data here")


def wrong():
    return {"model": Blocks()}


def with_logits(output):
    """An output as libraries for language models return it."""
    return SimpleNamespace(logits=output, loss=None)
