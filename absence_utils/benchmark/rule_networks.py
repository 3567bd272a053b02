"""Networks on rules drawn at random, each with a twin that needs no absence, in eight worlds from plain to natural.

A network is called "world/number" ("natural/3"), its twin "world/number twin". Which rules it has follows from its
name. Each world also has a "world/detector", whose outputs are its concepts: for methods that need eyes of their own.
The weights are made by data/make_rule_networks.py.
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
from .rules import RuleSet, draw_rules

FOLDER = DATA / "rule_networks"  # a file for each world
EACH = 5  # networks of a world
COLUMNS = 4  # of the image that a network averages on their own, for "left of"
CHANNELS = (8, 16, 32, 64)  # half as many as the network of the concept scenes has, and a third of its time
VARIED = (6.0, 9.5)  # px, radii where sizes vary

WORLDS: dict[str, World] = {
    "plain": World(),
    "together a little": World(correlation=0.3),
    "together": World(correlation=0.6),
    "overlapping": World(correlation=0.6, overlap=True, radius=VARIED),
    "textures": World("textures", correlation=0.3),
    "photographs": World(backgrounds="photographs", correlation=0.3, radius=VARIED),
    "natural": World("crops", "photographs"),
    "natural together": World("crops", "photographs", correlation=0.6, overlap=True, radius=VARIED),
}
NAMES: list[str] = [f"{world}/{number}" for world in WORLDS for number in range(EACH)]
TWIN, DETECTOR = " twin", "/detector"


def network_names(twins: bool = False) -> list[str]:
    """All networks, or all twins."""
    return [name + TWIN for name in NAMES] if twins else list(NAMES)


def detector_names() -> list[str]:
    """All detectors of concepts, one for each world."""
    return [world + DETECTOR for world in WORLDS]


def world_of(name: str) -> World:
    """The world of a network, twin or detector.

    Raises:
        InputError: an unknown world.
    """
    world, _, _ = name.partition("/")
    require_choice("name", world, WORLDS)
    return WORLDS[world]


def rules_of(name: str) -> RuleSet:
    """The rules of a network or twin; a twin's are its network's without the absences.

    Raises:
        InputError: an unknown name.
    """
    own = name.removesuffix(TWIN)
    require_choice("name", own, NAMES)
    drawn = draw_rules(world_of(own), NAMES.index(own))
    return drawn.twin if name.endswith(TWIN) else drawn


def train_rule_network(
    name: str, n: int = 6000, epochs: int = 8, lr: float = 8e-3, push: float = 0.0
) -> ConceptNet:
    """Train a network from its name alone: the same weights on the same machine with the same number of threads.

    The presence of each concept is hinted at (`fit_concept_net`): without, rules about two concepts take several times
    as many scenes.

    Args:
        name: see `network_names` and `detector_names`.
        n: scenes.
        epochs, lr, push: see `fit_concept_net`.

    Returns:
        The network in eval mode; images [batch, 3, 64, 64] normalised by `scenes.NORMALISATION`.
    """
    world, seed = world_of(name), _seed(name)
    presence = world.draw_presence(n, seed)
    scenes = world.render(presence, seed)
    wanted = hints = torch.where(presence, LOGIT, -LOGIT)
    if not name.endswith(DETECTOR):
        wanted = rules_of(name).logits(presence, scenes.place)
    images = NORMALISATION.apply(scenes.pixels)
    return fit_concept_net(
        images, wanted, hints, epochs=epochs, lr=lr, push=push, seed=seed, columns=COLUMNS, channels=CHANNELS
    )


def _seed(name: str) -> int:
    """Of a network's start and scenes; a twin and a detector have their own."""
    if name.endswith(DETECTOR):
        return 4_000 + detector_names().index(name)
    return 5_000 + 2 * NAMES.index(name.removesuffix(TWIN)) + name.endswith(TWIN)


def output_names(name: str) -> list[str]:
    """What the outputs of a network, twin or detector tell."""
    return list(world_of(name).names) if name.endswith(DETECTOR) else rules_of(name).names


def output_accuracy(network: nn.Module, name: str, n: int = 2000, seed: int = 910) -> Tensor:
    """[output] share of n scenes, drawn as in training from another seed, on which the sign of the logit is right."""
    world = world_of(name)
    presence = world.draw_presence(n, seed)
    scenes = world.render(presence, seed)
    truth = presence if name.endswith(DETECTOR) else rules_of(name).truth(presence, scenes.place)
    right = (predict(network, NORMALISATION.apply(scenes.pixels)) > 0) == truth
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
        name: see `network_names` and `detector_names`.
        folder: of the weights.

    Raises:
        InputError: an unknown name, weights that are not there.
    """
    outputs = len(output_names(name))
    path = file_of(name, folder)
    remedy = "Make them: python data/make_rule_networks.py"
    if not path.is_file():
        raise InputError("folder", f"there is no {path.name}", remedy)
    state = {key: value.float() for key, value in state_of(name, path).items()}
    if not state:
        raise InputError("folder", f"{path.name} does not have {name!r}", remedy)
    network = ConceptNet(outputs, COLUMNS, CHANNELS)
    network.load_state_dict(state)
    return network.eval()
