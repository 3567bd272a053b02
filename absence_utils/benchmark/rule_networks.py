"""Networks on rules drawn at random, each with a twin that needs no absence, in eight worlds from plain to natural.

A network is called "world/number" ("natural/3"), its twin "world/number twin". Which rules it has follows from its
name. The weights are made by data/make_rule_networks.py.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from absence_utils.errors import InputError, require_choice
from absence_utils.images.scenes import LOGIT, NORMALISATION
from absence_utils.images.worlds import World
from absence_utils.models.concept_net import ConceptNet, fit_concept_net
from absence_utils.models.training import predict
from absence_utils.paths import DATA

from .networks import state_of
from .rules import OUTPUTS, RuleSet, draw_rules

FOLDER = DATA / "rule_networks"  # a file for each world
EACH = 5  # networks of a world
COLUMNS = 4  # of the image that a network averages on their own, for "left of"
VARIED = (6.0, 9.5)  # px, radii where sizes vary

WORLDS: dict[str, World] = {
    "plain": World(),
    "together a little": World(correlation=0.3),
    "together": World(correlation=0.6),
    "overlapping": World(correlation=0.3, overlap=True, radius=VARIED),
    "textures": World("textures", correlation=0.3),
    "photographs": World(backgrounds="photographs", correlation=0.3, radius=VARIED),
    "natural": World("crops", "photographs"),
    "natural together": World("crops", "photographs", correlation=0.6, overlap=True, radius=VARIED),
}
NAMES: list[str] = [f"{world}/{number}" for world in WORLDS for number in range(EACH)]
TWIN = " twin"


def network_names(twins: bool = False) -> list[str]:
    """All networks, or all twins."""
    return [name + TWIN for name in NAMES] if twins else list(NAMES)


def rules_of(name: str) -> RuleSet:
    """The rules of a network or twin; a twin's are its network's without the absences.

    Raises:
        InputError: an unknown name.
    """
    own = name.removesuffix(TWIN)
    require_choice("name", own, NAMES)
    world, _, _ = own.partition("/")
    drawn = draw_rules(WORLDS[world], NAMES.index(own))
    return drawn.twin if name.endswith(TWIN) else drawn


def train_rule_network(name: str, n: int = 6000, epochs: int = 10, **options) -> ConceptNet:
    """Train a network from its name alone: the same weights on the same machine with the same number of threads.

    The presence of each concept is hinted at (`fit_concept_net`): without, rules about two concepts take several times
    as many scenes.

    Args:
        name: see `network_names`.
        n, epochs, options: scenes, and see `fit_concept_net`.

    Returns:
        The network in eval mode; images [batch, 3, 64, 64] normalised by `scenes.NORMALISATION`.
    """
    rules, seed = rules_of(name), _seed(name)
    presence = rules.world.draw_presence(n, seed)
    scenes = rules.world.render(presence, seed)
    hints = torch.where(presence, LOGIT, -LOGIT)
    wanted = rules.logits(presence, scenes.place)
    images = NORMALISATION.apply(scenes.pixels)
    return fit_concept_net(images, wanted, hints, epochs=epochs, seed=seed, columns=COLUMNS, **options)


def _seed(name: str) -> int:
    """Of a network's start and scenes; a twin has its own."""
    return 5_000 + 2 * NAMES.index(name.removesuffix(TWIN)) + name.endswith(TWIN)


def rule_accuracy(network: nn.Module, rules: RuleSet, n: int = 2000, seed: int = 910) -> Tensor:
    """[output] share of n scenes, drawn as in training from another seed, on which the sign of the logit is right."""
    presence = rules.world.draw_presence(n, seed)
    scenes = rules.world.render(presence, seed)
    right = (predict(network, NORMALISATION.apply(scenes.pixels)) > 0) == rules.truth(presence, scenes.place)
    return right.double().mean(dim=0)


def part_name(name: str) -> str:
    """The name of a network as that of a file of its own."""
    return name.replace("/", "-").replace(" ", "_")


def file_of(name: str, folder: Path = FOLDER) -> Path:
    """The file of weights that has a network: one for each world."""
    world, _, _ = name.partition("/")
    return folder / f"{world.replace(' ', '_')}.safetensors"


def load_rule_network(name: str, folder: Path = FOLDER) -> ConceptNet:
    """A trained network in eval mode, float32.

    Args:
        name: see `network_names`.
        folder: of the weights.

    Raises:
        InputError: an unknown name, weights that are not there.
    """
    rules_of(name)
    path = file_of(name, folder)
    remedy = "Make them: python data/make_rule_networks.py"
    if not path.is_file():
        raise InputError("folder", f"there is no {path.name}", remedy)
    state = {key: value.float() for key, value in state_of(name, path).items()}
    if not state:
        raise InputError("folder", f"{path.name} does not have {name!r}", remedy)
    network = ConceptNet(OUTPUTS, COLUMNS)
    network.load_state_dict(state)
    return network.eval()
