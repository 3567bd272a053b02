"""Small worlds of exercise 07, in which the right answer is known and a mistake gives a wrong one.

Eight units, four of them vetoes by construction; random patches that only a coin tells apart; scenes with their object
in the middle; a unit that is a weighted sum of pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from absence_utils.benchmark.networks import load_benchmark_network
from absence_utils.benchmark.tasks import square_around
from absence_utils.images.cache import stack_images
from absence_utils.images.scenes import (
    CONCEPTS,
    NORMALISATION,
    draw_presence,
    render_scenes,
    scene_dataset,
)
from absence_utils.insertion.design import InsertionConfig, as_array
from absence_utils.insertion.known_units import SyntheticUnits
from absence_utils.insertion.paste import CORNERS, insert_patches
from absence_utils.insertion.protocols import insertion_study
from absence_utils.patches.mining import mine_patches
from absence_utils.units import Unit, feature_map, responses

PATCH, STRIDE = 24, 8  # px
HALF = (
    12,
    4,
)  # images and pairs of patches of the half of `CoinFlips.drops` on which a unit is chosen
DISC = 0  # output of the twin network


# -- eight units in an unknown order


class MixedUnits(nn.Module):
    """Additive and veto units of `nulls.SyntheticUnits`, half and half, in an order that the seed decides.

    Input [batch, channel, height, width], output [batch, unit]; `is_veto` [unit] bool is the answer.
    """

    def __init__(self, images: Tensor, units: int = 8, seed: int = 0):
        super().__init__()
        half = units // 2
        self.additive = SyntheticUnits(images, half, "additive", seed=2 * seed)
        self.veto = SyntheticUnits(images, half, "veto", seed=2 * seed + 1)
        self.order = torch.randperm(
            2 * half, generator=torch.Generator().manual_seed(seed)
        )
        self.is_veto = (self.order >= half).numpy()
        self.normalisation = self.additive.normalisation

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat((self.additive(images), self.veto(images)), dim=1)[
            :, self.order
        ]


@dataclass(frozen=True)
class Inserted:
    """Responses of units to images with pasted patches, from clean splits.

    Attributes:
        lowest, random, untouched: [unit, image, patch] top images of each unit with its lowest patches, with random
            patches at the same places, and as they are.
        neutral_lowest, neutral_random: the same patches at the same places in images of median response.
        sd: [unit] over untouched images.
        significant: [unit] bool, what the t-test of the paper says where every patch goes into every image.
    """

    lowest: np.ndarray
    random: np.ndarray
    untouched: np.ndarray
    neutral_lowest: np.ndarray
    neutral_random: np.ndarray
    sd: np.ndarray
    significant: np.ndarray
    _is_veto: np.ndarray = field(repr=False)


def eight_units(seed: int = 0, scenes: int = 420) -> Inserted:
    """Both protocols of the lesson on eight units of `MixedUnits`."""
    dataset = scene_dataset(scenes, seed)
    model = MixedUnits(dataset.images[:200], seed=seed)
    setting = InsertionConfig(PATCH, STRIDE, k=4, images=10, seed=seed)
    many = replace(setting, images=40)  # the test is surer the more images it is given
    study = insertion_study(
        model,
        None,
        dataset,
        setting,
        all_pairs=many,
        redraws=4,
        top_share=0.2,
        control_units=0,
    )
    shape = (len(model.is_veto), setting.images, setting.k)
    arrays = [
        as_array(study.fair.inputs, *place, shape)
        for place in (("top", "lowest"), ("top", "random"), ("top", "untouched"),
                      ("neutral", "lowest"), ("neutral", "random"))
    ]  # fmt: skip
    sd = study.fair.units.sd.to_numpy()
    return Inserted(*arrays, sd, study.all_pairs.tests.lower.to_numpy(), model.is_veto)


# -- treatment and control told apart by a coin


@dataclass(frozen=True)
class CoinFlips:
    """64 units under sixteen random patches; a coin says which eight are "treatment" and which "control".

    Attributes:
        responses: [image, patch, unit] in sd of the unit, every patch at one place of each image.
    """

    responses: Tensor

    def drops(self, flip: int = 0) -> Tensor:
        """[image, pair, unit]: control minus treatment in sd, patches paired at random. Nothing tells the two apart."""
        order = torch.randperm(
            self.responses.shape[1], generator=torch.Generator().manual_seed(flip)
        )
        treated, control = order.chunk(2)
        return self.responses[:, control] - self.responses[:, treated]


@torch.no_grad()
def coin_flips(seed: int = 0) -> CoinFlips:
    """Units of block4 of the concept-scenes network, 24 scenes, patches out of 96 others."""
    model, generator = (
        load_benchmark_network("rules"),
        torch.Generator().manual_seed(seed),
    )
    images = scene_dataset(2 * HALF[0] + 96, 4000 + seed).images
    shown, others = images[: 2 * HALF[0]], images[2 * HALF[0] :]
    free = images.shape[-1] - PATCH + 1
    number = torch.randperm(len(others), generator=generator)[: 4 * HALF[1]].tolist()
    corners = torch.randint(free, (len(number), 2), generator=generator).tolist()
    patches = [
        others[index, :, top : top + PATCH, left : left + PATCH]
        for index, (top, left) in zip(number, corners, strict=True)
    ]
    places = torch.arange(len(shown)) % CORNERS
    answers = [
        responses(model, "block4", insert_patches(shown, patch, places))
        for patch in patches
    ]
    return CoinFlips(
        torch.stack(answers, dim=1) / responses(model, "block4", images).std(dim=0)
    )


# -- the disc in the middle


@dataclass(frozen=True)
class Centred:
    """Scenes as people take pictures: with the object, a disc, in the middle.

    Attributes:
        unit: "disc" of a network trained on rules without any absence; it does not ask for a ring.
        images: [image, channel, height, width] with a disc in the middle, normalised.
        ring, empty: [channel, 24, 24] the same patch with and without a ring.
        sd: of the unit over usual scenes.
    """

    unit: Unit
    images: Tensor
    ring: Tensor
    empty: Tensor
    sd: float

    def drop(self, place: str, control_place: str) -> float:
        """Mean of control minus treated, in sd."""
        return (
            float(
                (
                    self.response(self.empty, control_place)
                    - self.response(self.ring, place)
                ).mean()
            )
            / self.sd
        )

    @torch.no_grad()
    def response(self, patch: Tensor, place: str) -> Tensor:
        """[image] with the patch at the place."""
        return self.unit.response(insert_patches(self.images, patch, place))


@torch.no_grad()
def centred_scenes(seed: int = 0, count: int = 240) -> Centred:
    """Those of `count` scenes with a disc in which most of it lies in the middle, and the unit "disc" of a twin."""
    unit = Unit(load_benchmark_network("twin").requires_grad_(False), channel=DISC)
    presence = draw_presence(count, 5000 + seed)
    usual = unit.response(
        NORMALISATION.apply(render_scenes(presence[:100], 5000 + seed).pixels)
    )
    presence[:, CONCEPTS.index("disc")] = True
    scenes = render_scenes(presence, 5000 + seed)
    disc = scenes.masks[:, CONCEPTS.index("disc")].float()
    start = (disc.shape[-1] - PATCH) // 2
    inside = disc[:, start : start + PATCH, start : start + PATCH].sum(dim=(1, 2))
    images = NORMALISATION.apply(scenes.pixels)[inside > 0.5 * disc.sum(dim=(1, 2))]
    alone = torch.zeros(1, len(CONCEPTS), dtype=torch.bool)
    alone[0, CONCEPTS.index("ring")] = True
    shown, hidden = (
        render_scenes(given, 7000 + seed) for given in (alone, alone & False)
    )
    top, left = square_around(shown.masks[0, CONCEPTS.index("ring")], PATCH)
    ring, empty = (
        NORMALISATION.apply(given.pixels[0, :, top : top + PATCH, left : left + PATCH])
        for given in (shown, hidden)
    )
    return Centred(unit, images, ring, empty, float(usual.std()))


# -- the minimum over positions


@dataclass(frozen=True)
class Maps:
    """Maps of one linear filter, whose mean is a unit that only adds up. In sd of that unit.

    Attributes:
        top, neutral: {"lowest", "random"} -> [image, patch, position]: images in which the *minimum* over positions is
            high, and around its median, with the patches of lowest minimum and with random ones at the same places.
        sd_min: sd of the minimum over untouched images.
    """

    top: dict[str, Tensor]
    neutral: dict[str, Tensor]
    sd_min: float

    def veto(self, pool) -> float:
        """Drop on top images beyond the drop on neutral ones; `pool` takes [..., position] to [...]."""
        return self.drop(self.top, pool) - self.drop(self.neutral, pool)

    @staticmethod
    def drop(maps: dict[str, Tensor], pool) -> float:
        """Mean of random minus lowest in one group."""
        return float((pool(maps["random"]) - pool(maps["lowest"])).mean())


def minimum(maps: Tensor) -> Tensor:
    """[..., position] to [...]: what pools a map by its lowest position."""
    return maps.min(dim=-1).values


def mean(maps: Tensor) -> Tensor:
    """[..., position] to [...]: what pools a map by all positions alike."""
    return maps.mean(dim=-1)


@torch.no_grad()
def linear_maps(seed: int = 0, scenes: int = 160, count: int = 8, k: int = 4) -> Maps:
    """Patches from one half of the scenes, images from the other, both chosen by the minimum."""
    stack = stack_images(scene_dataset(scenes, 8000 + seed))
    images, half = stack.take(range(scenes)), scenes // 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = (
            nn.Sequential(nn.Conv2d(images.shape[1], 1, 6, stride=3, bias=False))
            .eval()
            .requires_grad_(False)
        )
    model[0].weight /= responses(model, "0", images).std()
    book = mine_patches(
        model,
        "0",
        stack,
        patch=PATCH,
        stride=STRIDE,
        k=k,
        pool="min",
        reservoir=k,
        part=range(half),
    )
    lows = minimum(feature_map(model, "0", images[half:]).flatten(1))
    order = lows.argsort(descending=True) + half
    middle = (len(order) - count) // 2

    windows = {
        "lowest": (book.lowest.image[0], book.lowest.box[0]),
        "random": (book.random.image, book.random.box),
    }

    def read(group: Tensor, image: Tensor, box: Tensor) -> Tensor:
        answers = []
        for rank, (index, (top, left, *_)) in enumerate(
            zip(image.tolist(), box.tolist(), strict=True)
        ):
            patch = images[index, :, top : top + PATCH, left : left + PATCH]
            pasted = insert_patches(
                images[group], patch, torch.full((len(group),), rank % CORNERS)
            )
            answers.append(feature_map(model, "0", pasted).flatten(2)[:, 0])
        return torch.stack(answers, dim=1)

    groups = order[:count], order[middle : middle + count]
    found = [
        {name: read(group, *where) for name, where in windows.items()}
        for group in groups
    ]
    return Maps(*found, float(lows.std()))
