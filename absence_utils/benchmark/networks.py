"""Networks with planted truth for the benchmark: trained on the scenes' rules, and twins that need no absence.

The weights ship in data/benchmark_networks.safetensors and are made by data/make_benchmark_networks.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from absence_utils.errors import InputError, require_choice
from absence_utils.images.scenes import CONCEPTS, LOGIT, RULES, Rule, rule_logits, rule_truth
from absence_utils.models.concept_net import ConceptNet
from absence_utils.paths import DATA

WEIGHTS = DATA / "benchmark_networks.safetensors"
SEEDS = 5

# The same outputs without any negation: what is not asked to be absent can't be encoded by absence.
TWIN_RULES: dict[str, Rule] = {
    "disc": Rule(present=("disc",)),
    "ring": Rule(present=("ring",)),
    "triangle or bars": RULES["triangle or bars"],
    "triangle": Rule(present=("triangle",)),
    "checker": RULES["checker"],
}


KIND_RULES = {"rules": RULES, "twin": TWIN_RULES}


def concept_logits(presence: Tensor) -> Tensor:
    """What a perfect detector of the concepts answers: +8 where one is there, -8 where not: [scene, concept]."""
    return torch.where(presence, LOGIT, -LOGIT)


# kind: (names of the outputs, their truth, what they are trained to answer)
KINDS: dict[str, tuple[tuple[str, ...], Callable, Callable]] = {
    "rules": (tuple(RULES), rule_truth, rule_logits),
    "twin": (
        tuple(TWIN_RULES),
        partial(rule_truth, rules=TWIN_RULES),
        partial(rule_logits, rules=TWIN_RULES),
    ),
    "detector": (CONCEPTS, lambda presence: presence, concept_logits),
}


def load_benchmark_network(kind: str, seed: int = 0) -> ConceptNet:
    """A trained network in eval mode, images [batch, 3, 64, 64] to logits [batch, output].

    Args:
        kind: "rules" (outputs `scenes.RULES`), "twin" (`TWIN_RULES`), or "detector" (`scenes.CONCEPTS`, seed 0 alone).
        seed: 0 to 4.

    Raises:
        InputError: an unknown kind or seed.
    """
    require_choice("kind", kind, KINDS)
    state = state_of(f"{kind}/{seed}", WEIGHTS)
    if not state:
        raise InputError("seed", f"there is no {kind} network of seed {seed}", f"Use 0 to {SEEDS - 1}.")
    network = ConceptNet(len(KINDS[kind][0]))
    network.load_state_dict(state)
    return network.eval()


def state_of(name: str, path: Path) -> dict[str, Tensor]:
    """The weights of one network in a file of several; empty where it is not there."""
    prefix = f"{name}/"
    with safe_open(path, "pt") as file:
        keys = [key for key in file.keys() if key.startswith(prefix)]  # noqa: SIM118, not a dict
        return {key.removeprefix(prefix): file.get_tensor(key) for key in keys}
