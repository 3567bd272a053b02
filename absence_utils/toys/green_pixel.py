"""The small networks of notebooks 01-03. None has a bias: a response of 0 means "nothing there"."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from absence_utils.errors import InputError
from absence_utils.images import IDENTITY


class MotionDetector(nn.Module):
    """Hassenstein-Reichardt motion detector with weights set by hand (the paper's first example).

    Two comparators look at two neighbouring columns of two consecutive frames. Each is excited by a bar in
    the second frame and vetoed by where that bar would have come from:

        u = second frame, left tap - first frame, right tap    fires unless the bar came from the right
        v = second frame, right tap - first frame, left tap    fires unless the bar came from the left

    Output 0 = u - v ("one bar, left to right"), output 1 = (u + v) / 2 ("two bars, moving apart"), with u
    and v rectified. One column of zeros on each side. Input [batch, frame=2, height, width], output [batch,
    2], the mean over space, signed.
    """

    normalisation = IDENTITY

    def __init__(self):
        super().__init__()
        self.comparators = nn.Conv2d(2, 2, (1, 2), padding=(0, 1), bias=False)
        self.relu = nn.ReLU()
        self.outputs = nn.Conv2d(2, 2, 1, bias=False)
        first, second, left, right = 0, 1, 0, 1
        with torch.no_grad():
            self.comparators.weight.zero_()
            u, v = self.comparators.weight[:, :, 0]
            u[second, left], u[first, right] = 1, -1
            v[second, right], v[first, left] = 1, -1
            self.outputs.weight.copy_(torch.tensor([[1.0, -1.0], [0.5, 0.5]])[:, :, None, None])
        self.eval().requires_grad_(False)

    def forward(self, frames: Tensor) -> Tensor:
        return self.outputs(self.relu(self.comparators(frames))).mean(dim=(2, 3))


class GreenPixelNet(nn.Module):
    """Two 1x1 convolutions of two channels with a rectifier between, then the mean over space.

    The paper's second example.

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
