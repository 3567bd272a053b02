"""Rules drawn at random, what each asks for, and the exact effect of every concept on it.

A network of the benchmark has one output for each rule of its `RuleSet`. A rule set asks for one to three absences; its
twin asks for the same concepts to be present. Nothing here knows a network.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from absence_utils.errors import InputError, require_choice
from absence_utils.images.scenes import LOGIT
from absence_utils.images.worlds import CONTEXTS, World, with_concept

CLEAR = 1.0  # logits; an effect beyond it is one, and one that is nowhere beyond it is none
OUTPUTS = 4  # rules of a network
MOST_ABSENCES = 3  # of a network
COUNTED = 3  # concepts that a count is over

KINDS = {  # of rules: which of their concepts must be absent, by position
    "present": (),
    "not": (0,),
    "and": (),
    "and not": (1,),
    "or": (),
    "xor": (),
    "left of": (),
    "majority": (2,),  # of two that speak for it and one that speaks against it
    "fewer than 2 of": (0, 1, 2),
    "2 or more of": (),
}
SIZES = {
    "present": 1,
    "not": 1,
    "majority": 3,
    "fewer than 2 of": COUNTED,
    "2 or more of": COUNTED,
}  # 2 of others
ABSENT = [kind for kind, places in KINDS.items() if places]
TWINS = {
    "not": "present", "and not": "and", "xor": "or", "majority": "2 or more of", "fewer than 2 of": "2 or more of",
}  # fmt: skip


@dataclass(frozen=True)
class RandomRule:
    """What an output tells.

    Attributes:
        kind: one of `KINDS`.
        concepts: numbers of the concepts that it is about.

    Raises:
        InputError: an unknown kind, a wrong number of concepts, a concept twice.
    """

    kind: str
    concepts: tuple[int, ...]

    def __post_init__(self):
        require_choice("kind", self.kind, KINDS)
        count = SIZES.get(self.kind, 2)
        if len(set(self.concepts)) != count or len(self.concepts) != count:
            raise InputError("concepts", f"{self.kind!r} of {self.concepts}", f"Give {count} different ones.")

    @property
    def absent(self) -> tuple[int, ...]:
        """Numbers of the concepts that must be absent (for a count: not too many of them)."""
        return tuple(self.concepts[place] for place in KINDS[self.kind])

    @property
    def twin(self) -> RandomRule:
        """The rule about the same concepts without an absence; itself where it has none."""
        return RandomRule(TWINS.get(self.kind, self.kind), self.concepts)

    def holds(self, presence: Tensor, place: Tensor) -> Tensor:
        """Truth [scene] bool.

        Args:
            presence: [scene, concept] bool.
            place: [scene, concept, (row, column)] px, see `worlds.Scenes`; only "left of" looks at it.
        """
        there = [presence[:, number] for number in self.concepts]
        match self.kind:
            case "present":
                return there[0]
            case "not":
                return ~there[0]
            case "and":
                return there[0] & there[1]
            case "and not":
                return there[0] & ~there[1]
            case "or":
                return there[0] | there[1]
            case "xor":
                return there[0] ^ there[1]
            case "left of":
                first, second = (place[:, number, 1] for number in self.concepts)
                return there[0] & there[1] & (first < second)
            case "majority":
                there[2] = ~there[2]
        several = torch.stack(there).sum(dim=0) >= 2
        return ~several if self.kind == "fewer than 2 of" else several

    def text(self, names: tuple[str, ...]) -> str:
        """In words."""
        own = [names[number] for number in self.concepts]
        match self.kind:
            case "present":
                return own[0]
            case "not":
                return f"not {own[0]}"
            case "majority":
                return f"2 or more of {own[0]}, {own[1]}, not {own[2]}"
            case "fewer than 2 of" | "2 or more of":
                return f"{self.kind} {', '.join(own)}"
        return f"{own[0]} {self.kind} {own[1]}"


@dataclass(frozen=True)
class RuleSet:
    """The rules of a network's outputs, in a world."""

    world: World
    rules: tuple[RandomRule, ...]

    @property
    def names(self) -> list[str]:
        """Of the outputs."""
        return [rule.text(self.world.names) for rule in self.rules]

    @property
    def twin(self) -> RuleSet:
        """The rules without any absence, in the same world."""
        return RuleSet(self.world, tuple(rule.twin for rule in self.rules))

    def truth(self, presence: Tensor, place: Tensor) -> Tensor:
        """[scene, output] bool; arguments as in `RandomRule.holds`."""
        return torch.stack([rule.holds(presence, place) for rule in self.rules], dim=1)

    def logits(self, presence: Tensor, place: Tensor) -> Tensor:
        """What a perfect network answers: [scene, output], +8 where a rule holds and -8 where not."""
        return torch.where(self.truth(presence, place), LOGIT, -LOGIT)

    def effects(self, n: int = 4000, seed: int = 0) -> pd.DataFrame:
        """The effect of each concept on each output of a perfect network, over n scenes of the world.

        Returns:
            A row for each output and concept: output, concept, effect (mean change of the logit when the concept is
            added to a scene without it or kept where it is, against the same without), lowest (the lowest of these
            changes) and planted: "absence" (effect below -1), "presence" (above 1), "depends" (not on average, but in
            some scenes; exclusive-or has these) or "none".
        """
        presence = self.world.draw_presence(n, seed)
        place = self.world.places(n, seed)
        rows = []
        for index, concept in enumerate(self.world.names):
            shown, hidden = (
                self.logits(with_concept(presence, index, there), place) for there in (True, False)
            )
            change = shown - hidden
            for output, mean in enumerate(change.mean(dim=0).tolist()):
                low, high = change[:, output].min().item(), change[:, output].max().item()
                planted = "absence" if mean < -CLEAR else "presence" if mean > CLEAR else "depends"
                planted = planted if max(-low, high) > CLEAR else "none"
                rows.append((output, concept, mean, low, planted))
        return pd.DataFrame(rows, columns=["output", "concept", "effect", "lowest", "planted"])


def draw_rules(world: World, seed: int) -> RuleSet:
    """Four rules drawn at random, together with one to three absences.

    The number of absences is drawn first, then rules with them, then rules without any; kinds are equally likely among
    those that fit. No two outputs have the same rule. Where concepts come together, a rule is about concepts that do:
    then a suppressor is mostly seen beside what speaks for the unit, and the mean response of scenes that show it
    misleads. By "majority" even its sign is wrong (Simpson's paradox).
    """
    generator = np.random.default_rng([seed, 16])
    left, rules = int(generator.integers(1, MOST_ABSENCES + 1)), []
    while left:
        rule = _draw(generator, [kind for kind in ABSENT if len(KINDS[kind]) <= left], world)
        if rule not in rules:
            rules.append(rule)
            left -= len(rule.absent)
    while len(rules) < OUTPUTS:
        rule = _draw(generator, [kind for kind in KINDS if kind not in ABSENT], world)
        if rule not in rules and rule.twin not in [each.twin for each in rules]:
            rules.append(rule)
    return RuleSet(world, tuple(rules[number] for number in generator.permutation(OUTPUTS)))


def _draw(generator, kinds: list[str], world: World) -> RandomRule:
    kind, among = kinds[generator.integers(len(kinds))], range(len(world.names))
    size = SIZES.get(kind, 2)
    if size > 1 and world.correlation > 0:
        among = CONTEXTS[generator.integers(len(CONTEXTS))]
    chosen = generator.permutation(among)[:size]
    ordered = kind in ("and not", "left of", "majority")
    return RandomRule(kind, tuple((chosen if ordered else np.sort(chosen)).tolist()))
