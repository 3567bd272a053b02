"""Concept scenes: an embedded world with a known answer (rendered images, exact masks, planted rules).

A scene is a textured background on which glyphs are painted. Each glyph is a *concept*, present or absent
independently of the others:

    A disc   B cross   C ring   D triangle   E bars   F checker   G chevron (no rule uses it: a true zero)

The place, size, tilt and colour of every glyph and the background are drawn from the seed, whether the glyph
is painted or not. Two presence vectors with the same seed therefore give images that differ by the concept
and by nothing else: exact counterfactual pairs.

Concepts never hide each other: the image is a 3 x 3 grid of 21-pixel cells, the concepts of a scene get
different cells (drawn anew for each scene), and a glyph never leaves its cell. Masks are therefore disjoint,
and painting one glyph changes no pixel of another. Colours tell nothing: every concept takes every hue.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .errors import InputError
from .glyphs import CELL, CELLS, DRAWS_PER_GLYPH, GLYPHS, SIZE, backgrounds, draws, paint
from .images import Normalisation, TensorImages
from .training import fit
from .units import responses

LOGIT, FURTHER = 8.0, 4.0  # what the network is trained to answer, see `Rule.logit`
NORMALISATION = Normalisation((0.35,) * 3, (0.2,) * 3)  # roughly the mean and spread of the pixels

CONCEPTS: tuple[str, ...] = tuple(GLYPHS)
LETTERS = tuple("ABCDEFG")

# Chosen so that every rule holds in 35 to 65 % of scenes: 0.42, 0.50, 0.65, 0.35, 0.50.
PRESENCE_PROBABILITY = {
    "disc": 0.65, "cross": 0.35, "ring": 0.5, "triangle": 0.5, "bars": 0.3, "checker": 0.5, "chevron": 0.5,
}  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """What an output unit tells: that all (or any) of these hold: concepts present, others absent.

    Calling it with presence [..., concept] bool gives its truth [...] bool.
    """

    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    needs: str = "all"  # or "any"

    def _literals(self, presence: Tensor) -> Tensor:
        columns = [presence[..., CONCEPTS.index(name)] for name in self.present]
        columns += [~presence[..., CONCEPTS.index(name)] for name in self.absent]
        return torch.stack(columns, dim=-1)

    def __call__(self, presence: Tensor) -> Tensor:
        literals = self._literals(presence)
        return literals.all(dim=-1) if self.needs == "all" else literals.any(dim=-1)

    def logit(self, presence: Tensor) -> Tensor:
        """What the network is trained to answer: [..., concept] bool -> [...] float.

        +8 where the rule holds and -8 where it does not; each further condition that points the same way adds
        a quarter of that step, 4. So adding a cross to a disc costs "disc and not cross" 16 logits and adding
        it elsewhere only 4: a veto, yet nowhere a flat place in which an absence leaves no trace.
        """
        met = self._literals(presence).sum(dim=-1).float()
        spare = met if self.needs == "any" else len(self.present) + len(self.absent) - met
        logit = spare.sign() * 2 * LOGIT - LOGIT + FURTHER * (spare - 1).clamp(min=0)
        return logit if self.needs == "any" else -logit


# Output units in this order.
RULES: dict[str, Rule] = {
    "disc and not cross": Rule(present=("disc",), absent=("cross",)),  # A and not B
    "not ring": Rule(absent=("ring",)),  # not C
    "triangle or bars": Rule(present=("triangle", "bars"), needs="any"),  # D or E
    "triangle and not bars": Rule(present=("triangle",), absent=("bars",)),  # D and not E
    "checker": Rule(present=("checker",)),  # F
}


def rule_truth(presence: Tensor) -> Tensor:
    """Truth of every rule: presence [scene, concept] bool -> [scene, rule] bool, in the order of `RULES`."""
    return torch.stack([rule(presence) for rule in RULES.values()], dim=-1)


def rule_logits(presence: Tensor) -> Tensor:
    """What a perfect network answers, see `Rule.logit`: presence [scene, concept] bool -> [scene, rule]."""
    return torch.stack([rule.logit(presence) for rule in RULES.values()], dim=-1)


def planted_effects() -> Tensor:
    """Average causal effect of each concept on each output of a perfect network: [rule, concept], in logits.

    Exact: all presence vectors are enumerated with their probabilities. Negative where the rule encodes
    the concept's absence (definition 2.1 of the paper), zero where the rule does not ask for the concept.
    """
    count = len(CONCEPTS)
    table = (torch.arange(2**count)[:, None] >> torch.arange(count)) & 1 > 0
    chance = torch.tensor([PRESENCE_PROBABILITY[name] for name in CONCEPTS], dtype=torch.float64)
    effects = torch.zeros(len(RULES), count, dtype=torch.float64)
    for index in range(count):
        others = [k for k in range(count) if k != index]
        weight = torch.where(table, chance, 1 - chance)[:, others].prod(dim=1) / 2  # each vector is met twice
        change = rule_logits(_with(table, index, True)) - rule_logits(_with(table, index, False))
        effects[:, index] = weight @ change.double()
    return effects


def _with(presence: Tensor, index: int, value: bool) -> Tensor:
    changed = presence.clone()
    changed[:, index] = value
    return changed


# -- rendering


@dataclass
class Scenes:
    """Rendered scenes.

    Attributes:
        pixels: [scene, channel=3, height=64, width=64] float32 in 0..1.
        masks: [scene, concept, height, width] bool, what a concept changes; all False where it is absent.
        presence: [scene, concept] bool.
    """

    pixels: Tensor
    masks: Tensor
    presence: Tensor

    def __len__(self) -> int:
        return len(self.pixels)


def render_scenes(presence: Tensor, seed: int, first: int = 0) -> Scenes:
    """Render one scene for each presence vector.

    Scene i depends on `seed`, `first + i` and its own presence vector only, so a batch equals its scenes
    rendered one by one (`first=i`), and another presence vector gives the exact counterfactual.

    Args:
        presence: [scene, concept] bool, columns in the order of `CONCEPTS`.
        seed: which endless sequence of scenes.
        first: where in that sequence to start.

    Returns:
        Scenes with pixels in 0..1 and exact, mutually disjoint masks.

    Raises:
        InputError: presence has the wrong shape or type; seed or first is negative.
    """
    presence = torch.as_tensor(presence)
    if presence.ndim != 2 or presence.shape[1] != len(CONCEPTS) or presence.dtype != torch.bool:
        raise InputError("presence", f"got {presence.dtype} of shape {tuple(presence.shape)}",
                         f"Give a boolean [scene, concept] array with {len(CONCEPTS)} columns.")  # fmt: skip
    if seed < 0 or first < 0:
        raise InputError("seed" if seed < 0 else "first", "is negative", "Give an integer of at least 0.")
    n = len(presence)
    draw = draws(n, seed, first)
    cells, offset, glyphs, background = np.split(
        draw, np.cumsum([CELLS**2, 2, len(CONCEPTS) * DRAWS_PER_GLYPH]), axis=1)  # fmt: skip
    cells = cells.argsort(axis=1)  # a random order of the cells; concept k takes the k-th
    offset = (offset * (SIZE - CELLS * CELL + 1)).astype(int)
    glyphs = glyphs.reshape(n, len(CONCEPTS), DRAWS_PER_GLYPH)
    pixels = backgrounds(background)
    masks = np.zeros((n, len(CONCEPTS), SIZE, SIZE), dtype=bool)
    for index, concept in enumerate(CONCEPTS):
        shown = np.flatnonzero(presence[:, index].numpy())
        part, mask = pixels[shown], masks[shown, index]
        paint(part, mask, glyphs[shown, index], concept, cells[shown, index], offset[shown])
        pixels[shown], masks[shown, index] = part, mask
    return Scenes(torch.from_numpy(pixels), torch.from_numpy(masks), presence.clone())


def draw_presence(n: int, seed: int) -> Tensor:
    """Independent presence vectors with `PRESENCE_PROBABILITY`: [scene, concept] bool."""
    chance = np.array([PRESENCE_PROBABILITY[name] for name in CONCEPTS])
    return torch.from_numpy(np.random.default_rng([seed, 1]).random((n, len(CONCEPTS))) < chance)


def concept_index(concept: str) -> int:
    """Column of a concept, by its name ("cross") or its letter ("B")."""
    for names in (CONCEPTS, LETTERS):
        if concept in names:
            return names.index(concept)
    raise InputError("concept", f"{concept!r} is not known", f"Use one of {', '.join(CONCEPTS)}.")


def counterfactual_pairs(concept: str, n: int, seed: int) -> tuple[Scenes, Scenes]:
    """The same n random scenes with and without one concept: they differ in its mask and nowhere else.

    Args:
        concept: its name ("cross") or letter ("B").
        n: number of pairs.
        seed: of the scenes and of the presence of the other concepts.

    Returns:
        (with, without): the mask of the concept is `with.masks[:, concept_index(concept)]`.

    Raises:
        InputError: unknown concept; n below 1.
    """
    index = concept_index(concept)
    if n < 1:
        raise InputError("n", f"{n} pairs", "Ask for at least 1.")
    presence = draw_presence(n, seed)
    return tuple(render_scenes(_with(presence, index, value), seed) for value in (True, False))


def scene_dataset(n: int, seed: int) -> TensorImages:
    """n random scenes as an image dataset, normalised for `ConceptNet`.

    `membership` [scene, rule] is the truth of each rule, `class_names` are the rules. Several rules hold in
    most scenes: `labels` is the first rule that holds, and a scene in which none does gets -1.
    """
    if n < 1:
        raise InputError("n", f"{n} scenes", "Ask for at least 1.")
    scenes = render_scenes(draw_presence(n, seed), seed)
    truth = rule_truth(scenes.presence)
    labels = torch.where(truth.any(dim=1), truth.int().argmax(dim=1), -1)
    images = NORMALISATION.apply(scenes.pixels)
    source = f"concept scenes, n={n}, seed={seed}"
    return TensorImages(images, labels, list(RULES), truth, NORMALISATION, source)


# -- the network


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

    def __init__(self, outputs: int = len(RULES)):
        super().__init__()
        self.block1, self.relu1 = nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.ReLU()  # 32 x 32
        self.block2, self.relu2, self.pool2 = nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
        self.block3, self.relu3, self.pool3 = nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
        self.block4, self.relu4 = nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()
        self.pool4 = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.hidden, self.relu5 = nn.Linear(64, 64), nn.ReLU()
        self.fc = nn.Linear(64, outputs)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.relu1(self.block1(images))
        maps = self.pool2(self.relu2(self.block2(maps)))
        maps = self.pool3(self.relu3(self.block3(maps)))
        maps = self.pool4(self.relu4(self.block4(maps)))
        return self.fc(self.relu5(self.hidden(self.flatten(maps))))


def train_concept_net(
    n: int = 8000,
    epochs: int = 10,
    *,
    seed: int = 0,
    targets: Callable[[Tensor], Tensor] = rule_logits,
    lr: float = 3e-3,
    batch_size: int = 64,
    noise: float = 0.05,
    push: float = 0.4,
    warm_up: float = 0.25,
) -> ConceptNet:
    """Train a ConceptNet to give `targets` as its logits, by their mean squared error.

    Inputs are disturbed by noise and by a push along the gradient of a random signed sum
    of the logits. On average the push penalises that gradient (Jacobian regularisation as in Hoffman, Roberts
    and Yaida, arXiv 1908.02729). It takes fewer scenes and lets synthesised images show glyphs, not gratings.

    Args:
        n: number of training scenes, those of `scene_dataset(n, seed + 1)`.
        epochs, lr, batch_size: see `training.fit`.
        seed: of the first weights, the order and the disturbances; the scenes have seed + 1.
        targets: presence [scene, concept] bool -> [scene, output] wanted logits.
        noise: standard deviation of the pixel noise, pixel range 0..1.
        push: length of the push, Euclidean norm over the image in the pixel range 0..1; 0 leaves it out.
        warm_up: share of the steps before the first push.

    Returns:
        The network in eval mode.
    """
    presence = draw_presence(n, seed + 1)
    images = NORMALISATION.apply(render_scenes(presence, seed + 1).pixels)
    wanted = targets(presence)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = ConceptNet(wanted.shape[1])
    steps_left = int(warm_up * epochs * -(-n // batch_size))
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

    fit(net, images, wanted, loss=error, epochs=epochs, lr=lr, batch_size=batch_size, seed=seed,
        augment=disturb, weight_decay=1e-4, description="training ConceptNet")  # fmt: skip
    return net.eval()


@dataclass
class CausalEffect:
    """Average change of every unit of a layer when one concept is added, over exact counterfactual pairs.

    Attributes:
        mean: [unit], in the units of the layer, or in standard deviations if standardised.
        standard_error: [unit], of the mean over pairs.
    """

    mean: Tensor
    standard_error: Tensor


@torch.no_grad()
def average_causal_effect(
    model: nn.Module, layer: str | None, concept: str, n: int = 200, seed: int = 0, standardise: bool = False
) -> CausalEffect:
    """Mean of f_u(scene with the concept) - f_u(same scene without) for every unit u of a layer.

    Negative: the unit encodes the absence of the concept (definition 2.1 of the paper, measured).

    Args:
        model, layer: see `units.responses`; responses are signed and averaged over space.
        concept: its name ("cross") or letter ("B").
        n: number of pairs, at least 2.
        seed: of the pairs.
        standardise: divide by each unit's standard deviation over n scenes with the usual presence of all
            concepts; a unit that never changes gets 0.

    Raises:
        InputError: unknown concept or layer; n below 2.
    """
    if n < 2:
        raise InputError("n", f"{n} pairs", "Ask for at least 2: the error is estimated from their spread.")

    def read(scenes: Scenes) -> Tensor:
        parts = NORMALISATION.apply(scenes.pixels).split(256)
        return torch.cat([responses(model, layer, part).double().cpu() for part in parts])

    shown, hidden = (read(scenes) for scenes in counterfactual_pairs(concept, n, seed))
    change = shown - hidden
    scale = 1.0
    if standardise:  # every scene of the usual mixture is one half of its pair
        usual = draw_presence(n, seed)[:, concept_index(concept)]
        scale = torch.where(usual[:, None], shown, hidden).std(dim=0).clamp(min=1e-12)
    return CausalEffect(change.mean(dim=0) / scale, change.std(dim=0) / n**0.5 / scale)
