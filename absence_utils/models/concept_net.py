"""The network of the concept scenes, and its training."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from absence_utils.images.scenes import LOGIT, NORMALISATION, RULES, draw_presence, render_scenes, rule_logits

from .training import fit

CHANNELS = (16, 32, 64, 64)  # of the four blocks


class ConceptNet(nn.Module):
    """Four convolutional blocks and a small head; one logit for each rule.

    `block1` to `block4` are the convolutions themselves, so that reading a block gives its signed values
    before the rectification, [batch, channel, height, width]. Every rectification and pooling is a module of
    its own and used once (DeepLIFT needs that), nothing works in place. The last maps are averaged:
    synthesised images then repeat a glyph all over, which reads well. The hidden layer of the head lets
    "A and not B" be a veto and not only a sum.

    Input: [batch, channel=3, height=64, width=64], normalised by `normalisation`.
    Output: [batch, rule] logits.
    """

    normalisation = NORMALISATION

    def __init__(self, outputs: int = len(RULES), columns: int = 1, channels: Sequence[int] = CHANNELS):
        """
        Args:
            outputs: logits.
            columns: of the image that are averaged on their own; with 1 the network hardly knows where a thing is.
            channels: of the four blocks.
        """
        super().__init__()
        one, two, three, four = channels
        self.block1, self.relu1 = nn.Conv2d(3, one, 5, stride=2, padding=2), nn.ReLU()  # 32 x 32
        self.block2, self.relu2, self.pool2 = nn.Conv2d(one, two, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
        self.block3, self.relu3, self.pool3 = nn.Conv2d(two, three, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
        self.block4, self.relu4 = nn.Conv2d(three, four, 3, padding=1), nn.ReLU()
        self.pool4 = nn.AdaptiveAvgPool2d((1, columns))
        self.flatten = nn.Flatten()
        self.hidden, self.relu5 = nn.Linear(four * columns, 64), nn.ReLU()
        self.fc = nn.Linear(64, outputs)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def features(self, images: Tensor) -> Tensor:
        """[image, feature]: the averages that the head sees."""
        maps = self.relu1(self.block1(images))
        maps = self.pool2(self.relu2(self.block2(maps)))
        maps = self.pool3(self.relu3(self.block3(maps)))
        return self.flatten(self.pool4(self.relu4(self.block4(maps))))

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.relu5(self.hidden(self.features(images))))


class _WithHints(nn.Module):
    """A network in training whose features are read linearly, too; the readout is thrown away."""

    def __init__(self, net: ConceptNet, hints: int):
        super().__init__()
        self.net, self.readout = net, nn.Linear(net.hidden.in_features, hints)

    def forward(self, images: Tensor) -> Tensor:
        features = self.net.features(images)
        logits = self.net.fc(self.net.relu5(self.net.hidden(features)))
        return torch.cat((logits, self.readout(features)), dim=1)


def train_concept_net(
    n: int = 8000,
    epochs: int = 10,
    *,
    seed: int = 0,
    targets: Callable[[Tensor], Tensor] = rule_logits,
    **options,
) -> ConceptNet:
    """Train a ConceptNet on concept scenes to give `targets` as its logits.

    Args:
        n: number of training scenes, those of `scene_dataset(n, seed + 1)`.
        epochs, seed, options: see `fit_concept_net`; the scenes have seed + 1.
        targets: presence [scene, concept] bool -> [scene, output] wanted logits.

    Returns:
        The network in eval mode.
    """
    presence = draw_presence(n, seed + 1)
    images = NORMALISATION.apply(render_scenes(presence, seed + 1).pixels)
    return fit_concept_net(images, targets(presence), epochs=epochs, seed=seed, **options)


def fit_concept_net(
    images: Tensor,
    wanted: Tensor,
    hints: Tensor | None = None,
    *,
    epochs: int = 10,
    seed: int = 0,
    columns: int = 1,
    channels: Sequence[int] = CHANNELS,
    lr: float = 3e-3,
    batch_size: int = 64,
    noise: float = 0.05,
    push: float = 0.4,
    warm_up: float = 0.25,
) -> ConceptNet:
    """Train a ConceptNet to give the wanted logits, by their mean squared error.

    Inputs are disturbed by noise and by a push along the gradient of a random signed sum
    of the logits. On average the push penalises that gradient (Jacobian regularisation as in Hoffman, Roberts
    and Yaida, arXiv 1908.02729). It takes fewer scenes and lets synthesised images show glyphs, not gratings.

    Args:
        images: [image, channel=3, height=64, width=64], normalised by `NORMALISATION`.
        wanted: [image, output] logits.
        hints: [image, hint] further logits that a linear readout of the features learns beside; it is thrown away
            afterwards. Features for concepts come sooner when their presence is hinted at.
        epochs, lr, batch_size: see `training.fit`.
        seed: of the first weights, the order and the disturbances.
        columns, channels: see `ConceptNet`.
        noise: standard deviation of the pixel noise, pixel range 0..1.
        push: length of the push, Euclidean norm over the image in the pixel range 0..1; 0 leaves it out.
        warm_up: share of the steps before the first push.

    Returns:
        The network in eval mode.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = ConceptNet(wanted.shape[1], columns, channels)
        taught = net if hints is None else _WithHints(net, hints.shape[1])
    goals = wanted if hints is None else torch.cat((wanted, hints), dim=1)
    steps_left = int(warm_up * epochs * -(-len(images) // batch_size))
    spread = NORMALISATION.std[0]

    def disturb(batch: Tensor, generator: torch.Generator) -> Tensor:
        nonlocal steps_left
        steps_left -= 1
        batch = batch + noise / spread * torch.randn(batch.shape, generator=generator)
        if not push or steps_left >= 0:
            return batch
        batch.requires_grad_(True)
        signs = torch.randint(0, 2, (len(batch), wanted.shape[1]), generator=generator) * 2 - 1
        (slope,) = torch.autograd.grad((net(batch) * signs).sum(), batch)
        length = slope.flatten(1).norm(dim=1)[:, None, None, None].clamp(min=1e-9)
        return (batch + push / spread * slope / length).detach()

    def error(logits: Tensor, goal: Tensor) -> Tensor:
        return (logits - goal).square().mean() / LOGIT**2

    fit(taught, images, goals, loss=error, epochs=epochs, lr=lr, batch_size=batch_size, seed=seed,
        augment=disturb, weight_decay=1e-4, description="training ConceptNet")  # fmt: skip
    return net.eval()
