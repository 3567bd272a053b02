"""Concept scenes: an embedded world with a known answer (rendered images, exact masks, planted rules).

A scene is a textured background on which glyphs are painted. Each glyph is a *concept*, present or absent
independently of the others:

    disc, cross, ring, triangle, bars, checker, chevron (no rule uses it: a true zero)

The place, size, tilt and colour of every glyph and the background are drawn from the seed, whether the glyph
is painted or not. Two presence vectors with the same seed therefore give images that differ by the concept
and by nothing else: exact counterfactual pairs.

Concepts never hide each other: the image is a 3 x 3 grid of 21-pixel cells, the concepts of a scene get
different cells (drawn anew for each scene), and a glyph never leaves its cell. Masks are therefore disjoint,
and painting one glyph changes no pixel of another. Colours tell nothing: every concept takes every hue.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from absence_utils.errors import require_at_least, require_choice

from .base import Normalisation, TensorImages
from .glyphs import GLYPHS
from .worlds import Scenes, World, with_concept

LOGIT, FURTHER = 8.0, 4.0  # what the network is trained to answer, see `Rule.logit`
NORMALISATION = Normalisation((0.35,) * 3, (0.2,) * 3)  # roughly the mean and spread of the pixels

CONCEPTS: tuple[str, ...] = tuple(GLYPHS)

# Chosen so that every rule holds in 35 to 65% of scenes: 0.42, 0.50, 0.65, 0.35, 0.50.
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
    "disc and not cross": Rule(present=("disc",), absent=("cross",)),
    "not ring": Rule(absent=("ring",)),
    "triangle or bars": Rule(present=("triangle", "bars"), needs="any"),
    "triangle and not bars": Rule(present=("triangle",), absent=("bars",)),
    "checker": Rule(present=("checker",)),
}


def rule_truth(presence: Tensor, rules: dict[str, Rule] = RULES) -> Tensor:
    """Truth of every rule: presence [scene, concept] bool -> [scene, rule] bool, in the order of `rules`."""
    return torch.stack([rule(presence) for rule in rules.values()], dim=-1)


def rule_logits(presence: Tensor, rules: dict[str, Rule] = RULES) -> Tensor:
    """What a perfect network answers, see `Rule.logit`: presence [scene, concept] bool -> [scene, rule]."""
    return torch.stack([rule.logit(presence) for rule in rules.values()], dim=-1)


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
        change = rule_logits(with_concept(table, index, True)) - rule_logits(
            with_concept(table, index, False)
        )
        effects[:, index] = weight @ change.double()
    return effects


# -- rendering


def render_scenes(presence: Tensor, seed: int, first: int = 0) -> Scenes:
    """Render one scene for each presence vector: `worlds.World.render` in the world of the concept scenes.

    Args:
        presence: [scene, concept] bool, columns in the order of `CONCEPTS`.
        seed: which endless sequence of scenes.
        first: where in that sequence to start.
    """
    return World().render(presence, seed, first)


def draw_presence(n: int, seed: int) -> Tensor:
    """Independent presence vectors with `PRESENCE_PROBABILITY`: [scene, concept] bool."""
    chance = np.array([PRESENCE_PROBABILITY[name] for name in CONCEPTS])
    return torch.from_numpy(np.random.default_rng([seed, 1]).random((n, len(CONCEPTS))) < chance)


def concept_index(concept: str) -> int:
    """Column of a concept, by its name ("cross")."""
    require_choice("concept", concept, CONCEPTS)
    return CONCEPTS.index(concept)


def counterfactual_pairs(concept: str, n: int, seed: int) -> tuple[Scenes, Scenes]:
    """The same n random scenes with and without one concept: they differ in its mask and nowhere else.

    Args:
        concept: its name, one of `CONCEPTS`.
        n: number of pairs.
        seed: of the scenes and of the presence of the other concepts.

    Returns:
        (with, without): the mask of the concept is `with.masks[:, concept_index(concept)]`.

    Raises:
        InputError: unknown concept; n below 1.
    """
    index = concept_index(concept)
    require_at_least("n", n, 1)
    presence = draw_presence(n, seed)
    return tuple(render_scenes(with_concept(presence, index, value), seed) for value in (True, False))


def scene_dataset(n: int, seed: int) -> TensorImages:
    """n random scenes as an image dataset, normalised for `ConceptNet`.

    `membership` [scene, rule] is the truth of each rule, `class_names` are the rules. Several rules hold in
    most scenes: `labels` is the first rule that holds, and a scene in which none does gets -1. The dataset carries
    its truth: `presence` [scene, concept], `masks` [scene, concept, height, width], and `planted` [rule, concept], the
    absences that the rules ask for.
    """
    require_at_least("n", n, 1)
    scenes = render_scenes(draw_presence(n, seed), seed)
    truth = rule_truth(scenes.presence)
    labels = torch.where(truth.any(dim=1), truth.int().argmax(dim=1), -1)
    images = NORMALISATION.apply(scenes.pixels)
    return TensorImages(
        images,
        labels,
        list(RULES),
        truth,
        NORMALISATION,
        f"concept scenes, n={n}, seed={seed}",
        concepts=CONCEPTS,
        presence=scenes.presence,
        masks=scenes.masks,
        planted=planted_effects() < 0,
    )
