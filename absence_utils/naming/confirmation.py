"""Does this concept silence this unit? The user's own folder or crops against matched controls, on the user's hosts.

python -m absence_utils.naming.confirmation --model squeezenet1_0 --weights FILE --layer features.12.expand3x3 \\
    --unit 5 --concept DIR --hosts DIR [--controls DIR] [--figure FILE.png]
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import stats
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from absence_utils.errors import InputError, require_at_least, require_choice, require_shape
from absence_utils.images.cache import ImageStack, stack_images
from absence_utils.images.load import load_images
from absence_utils.insertion.decisions import CANNOT_TELL, ENCODES, LEVEL, NONE
from absence_utils.insertion.paste import insert_patches, scramble_phases
from absence_utils.insertion.scores import MIN_EFFECT
from absence_utils.models.opening import open_model
from absence_utils.patches.mining import images_per_batch
from absence_utils.units import READINGS, Unit, feature_map, hand_on, pool_space

from .effects import low_level_statistics, shrink
from .regression import MeanOver, mean_over

FEWEST = 6  # images of the concept: with fewer an interval is no help
CANDIDATES = 10  # crops of the hosts for each image of the concept, from which the most similar one is taken
MOST_HOSTS = 200


@dataclass
class Confirmation:
    """What a concept does to a unit.

    Attributes:
        decision: "encodes an absence": it lowers the unit by more than `least` beyond each control (one-sided, 5%);
            "none of that size": beyond one of the controls it surely does not; else "cannot tell".
        effects: a row for each control: control, effect, low, high (95%, in sd of the unit over untouched hosts,
            negative where the concept lowers it), p (that it is not below -least).
        images: of the concept. needed: how many would decide, about, where the decision is "cannot tell"; else 0.
        unit, reading, least: what was asked.
        pictures: name to [image, channel, edge, edge] of what was pasted, normalised.
    """

    decision: str
    effects: pd.DataFrame
    images: int
    needed: int
    unit: str
    reading: str
    least: float
    pictures: dict[str, Tensor]

    @property
    def sentence(self) -> str:
        """The decision with its numbers."""
        weakest = self.effects.loc[self.effects.effect.idxmax()]
        more = f"; about {self.needed} images would decide" if self.needed else ""
        return (
            f"{self.unit} ({self.reading}): {self.decision}. The concept changes it by {weakest.effect:+.2f} sd "
            f"[{weakest.low:.2f}, {weakest.high:.2f}] against {weakest.control} ({self.images} images{more})."
        )

    def __repr__(self) -> str:
        return self.sentence

    def show(self):
        """The effects against each control, beside what was pasted; see `plots.naming.confirmation_figure`."""
        from absence_utils.plots.naming import confirmation_figure

        return confirmation_figure(self)


@torch.no_grad()
def confirm(
    unit: Unit,
    concept_images,
    hosts,
    *,
    controls=None,
    edge: int = 0,
    pastes: int = 3,
    read: str = "signed",
    least: float = MIN_EFFECT,
    seed: int = 0,
) -> Confirmation:
    """Paste a concept into hosts, and matched controls at the same places, and decide.

    Args:
        unit: the unit.
        concept_images: images or crops that show it: [image, channel, height, width] normalised for the network, an
            image dataset, or a folder.
        hosts: the same, of what is pasted into; images of one size.
        controls: the same, of what the concept is compared with; if None, crops of the hosts, some of which may
            show the concept, too, where hosts do: then the effect is too small. Each image of the concept gets the one
            most like it in mean colour, contrast and edge energy. It is compared with its own phase-scrambled copy and
            with a patch of the mean colour as well.
        edge: of what is pasted, px; 0 keeps images that are at most half as high as a host, and shrinks others to half.
        pastes: hosts of each image of the concept.
        read: one of `units.READINGS`.
        least: sd; a smaller effect is none.
        seed: of hosts, places and crops.

    Returns:
        Confirmation.

    Raises:
        InputError: fewer than six images of the concept, images that do not fit, a unit that never changes.

    Example:
        >>> from absence_utils import Unit, confirm, load_images, load_model
        >>> from absence_utils.naming import scene_concepts
        >>> model = load_model("concept_scenes")
        >>> glyphs = scene_concepts(40, seed=1)
        >>> rings = glyphs.donors.take(range(len(glyphs)))[glyphs.membership[:, glyphs.names.index("ring")]]
        >>> confirm(Unit(model, "logits", 1), rings, load_images("concept_scenes", model, limit=60)).decision
        'encodes an absence'
    """
    require_choice("read", read, READINGS)
    require_at_least("pastes", pastes, 1)
    host_stack = _images("hosts", hosts, unit.model)
    concept = _images("concept_images", concept_images, unit.model)
    require_at_least("concept_images", len(concept), FEWEST, "fewer give no interval")
    generator = np.random.default_rng([seed, 4])
    chosen = generator.permutation(len(host_stack))[:MOST_HOSTS]
    images = host_stack.take(chosen)
    most = min(images.shape[2:])
    edge = edge or min(most // 2, max(concept.take([0]).shape[2:]))
    if not 1 < edge <= most:
        raise InputError("edge", f"{edge} px in hosts of {most} px", f"Use 2 to {most}.")
    patches = shrink(concept.take(range(len(concept))), edge)
    if controls is None:
        others = _crops(images, edge, CANDIDATES * len(patches), generator)
    else:
        given = _images("controls", controls, unit.model)
        others = shrink(given.take(range(len(given))), edge)
    treated = {"concept": patches, "matched crops": others[most_similar(patches, others)]}
    treated |= {"phase-scrambled": scramble_phases(patches, seed), "mean colour": torch.zeros_like(patches)}
    number = np.repeat(np.arange(len(patches)), pastes)
    host = np.concatenate([generator.permutation(len(images))[:pastes] for _ in patches])
    if len(host) < len(number):
        raise InputError(
            "hosts", f"{len(images)} for {pastes} pastes", "Give more hosts, or ask for fewer pastes."
        )
    place = torch.from_numpy(generator.integers(np.array(images.shape[2:]) - edge + 1, size=(len(number), 2)))
    spread = float(_responses(unit, images, read).std(ddof=1))
    if not spread > 0:
        raise InputError("unit", f"{unit.name} is the same for all hosts", "Ask for a unit that changes.")
    found = {
        name: _responses(unit, insert_patches(images[host], what[number], place), read) / spread
        for name, what in treated.items()
    }
    effects = {
        name: mean_over((found["concept"] - found[name]).reshape(len(patches), pastes).mean(axis=1))
        for name in treated
        if name != "concept"
    }
    decision, needed = decide_effects(effects, least, len(patches))
    rows = [
        {"control": name, **each.interval("effect"), "p": each.p_below(least)}
        for name, each in effects.items()
    ]
    table = pd.DataFrame(rows).rename(columns={"effect_low": "low", "effect_high": "high"})
    return Confirmation(decision, table, len(patches), needed, unit.name, read, least, treated)


def decide_effects(effects: dict[str, MeanOver], least: float, images: int) -> tuple[str, int]:
    """(decision, images that would decide) from the effects against each control, see `Confirmation`."""
    if all(each.p_below(least) < LEVEL for each in effects.values()):
        return ENCODES, 0
    above = [(each.value + least) / each.error if each.error > 0 else np.inf for each in effects.values()]
    limit = stats.t.ppf(1 - LEVEL, images - 1)
    if max(above) > limit:
        return NONE, 0
    weakest = max(effects.values(), key=lambda each: each.value)
    needed = images * (limit * weakest.error / max(abs(weakest.value + least), 1e-9)) ** 2
    return CANNOT_TELL, int(min(np.ceil(max(needed, images + 1)), 10**6))


def most_similar(patches: Tensor, others: Tensor) -> np.ndarray:
    """[patch] numbers of the others most like them in mean colour, contrast and edge energy, each used as seldom as
    their number allows."""
    require_shape("controls", others, "image", patches.shape[1], *patches.shape[2:])
    mine, theirs = low_level_statistics(patches), low_level_statistics(others)
    scale = np.concatenate([mine, theirs]).std(axis=0)
    scale = np.where(scale > 0, scale, 1)
    cost = np.square((mine[:, None] - theirs[None]) / scale).sum(axis=2)
    again = -(-len(patches) // len(others))
    return linear_sum_assignment(np.tile(cost, (1, again)))[1] % len(others)


def _crops(images: Tensor, edge: int, count: int, generator) -> Tensor:
    """[count, channel, edge, edge] random crops of images."""
    which = generator.integers(len(images), size=count)
    top, left = (generator.integers(side - edge + 1, size=count) for side in images.shape[2:])
    return torch.stack(
        [images[i, :, t : t + edge, s : s + edge] for i, t, s in zip(which, top, left, strict=True)]
    )


def _responses(unit: Unit, images: Tensor, read: str) -> np.ndarray:
    """[image] of one unit, in one reading."""
    parts = []
    for part in images.split(images_per_batch(*images.shape[2:], unit.device)):
        values = feature_map(unit.model, unit.layer, part.to(unit.device))
        values = values if read == READINGS[0] else hand_on(values, unit.layer)
        parts.append(unit.of(pool_space(values, unit.pool)).double().cpu())
    return torch.cat(parts).numpy()


def _images(parameter: str, source, model: nn.Module) -> ImageStack:
    """A stack from a folder, a tensor or a dataset."""
    if isinstance(source, Tensor):
        require_shape(parameter, source, "image", "channel", "height", "width")
        return ImageStack(source, lambda numbers: source[torch.from_numpy(numbers)])
    if isinstance(source, (str, Path)):
        try:
            source = load_images(source, model)
        except InputError as error:
            raise InputError(parameter, error.problem, error.remedy) from error
    if not hasattr(source, "__getitem__") or len(source) == 0:
        raise InputError(parameter, "no images", "Give a tensor, an image dataset or a folder.")
    return stack_images(source)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m absence_utils.naming.confirmation", description="Does a concept silence a unit?"
    )
    parser.add_argument(
        "--model", required=True, help="torchvision name, concept_scenes, or file.py:function"
    )
    parser.add_argument("--weights", default="", help="file of weights")
    parser.add_argument("--layer", default="logits")
    parser.add_argument("--unit", type=int, required=True, help="channel")
    parser.add_argument("--concept", required=True, help="folder of images that show the concept")
    parser.add_argument("--hosts", required=True, help="folder of images to paste into, or concept_scenes")
    parser.add_argument(
        "--controls", help="folder of images without the concept; crops of the hosts if left out"
    )
    parser.add_argument(
        "--edge", type=int, default=0, help="of what is pasted, px; 0: half of a host at most"
    )
    parser.add_argument("--reading", default=READINGS[0], help=" or ".join(READINGS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figure", help="file to draw to")
    options = parser.parse_args(arguments)
    try:
        opened = open_model(options.model, options.weights, seed=options.seed)
        unit = Unit(opened.model, options.layer, options.unit)
        how = {
            "controls": options.controls,
            "edge": options.edge,
            "read": options.reading,
            "seed": options.seed,
        }
        found = confirm(unit, options.concept, opened.images(options.hosts), **how)
        if options.figure:
            found.show().savefig(options.figure)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(found.sentence)
    return 0


if __name__ == "__main__":
    sys.exit(main())
