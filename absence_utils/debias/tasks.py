"""Images whose class an artefact gives away in training and not in truth: digits, concept scenes, skin lesions."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from absence_utils.errors import InputError, require_at_least, require_choice
from absence_utils.identity import fingerprint, tensor_hash
from absence_utils.images.base import IDENTITY, IMAGENET, Normalisation
from absence_utils.images.cache import decode_folder
from absence_utils.images.digits import digits
from absence_utils.images.folders import FolderImages
from absence_utils.images.scenes import CONCEPTS, NORMALISATION, render_scenes

from .artefacts import (
    PATCHES,
    Artefacts,
    Bias,
    border_bars,
    dilate,
    glyph_artefacts,
    sample_artefact_presence,
)
from .objectives import Batch


@dataclass(frozen=True)
class ShortcutData:
    """Images, an artefact for each, and which of them show it.

    Attributes:
        pixels: [image, channel, height, width] without artefacts, floats in 0..1 or bytes.
        labels: [image] of 0 and 1.
        artefacts: one for each image.
        shown: [image] bool.
        normalise: pixels in 0..1 to network input.
        grow: pixels by which masks are grown for the penalty.
        ids: [image] names, for the record.
        draw: (number of images, seed) to new artefacts for each showing in training; None if images keep theirs.
    """

    pixels: Tensor
    labels: Tensor
    artefacts: Artefacts
    shown: Tensor
    normalise: Callable[[Tensor], Tensor] = IDENTITY.apply
    grow: int = 2
    ids: tuple[str, ...] = ()
    draw: Callable[[int, int], Artefacts] | None = None

    def __post_init__(self):
        for name in ("labels", "artefacts", "shown", "ids"):
            count = len(getattr(self, name))
            if count != len(self.pixels) and (name != "ids" or count):
                raise InputError(name, f"{count} for {len(self.pixels)} images", "Give one for each image.")
        missing = {0, 1} - set(self.labels.tolist())
        if missing:
            raise InputError("labels", f"no image of class {min(missing)}", "Give images of both classes.")
        self.artefacts.check(self.pixels)

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, rows: Tensor, device="cpu") -> Batch:
        """What an objective sees of the images `rows`, each with its own artefact."""
        if self.pixels.dtype == torch.uint8:
            return self._batch(
                rows, self._pixels(rows).to(device), self.artefacts.take(rows), self.grown[rows]
            )
        shown, (images, everywhere) = self.shown[rows], self._ready
        parts = (
            images[rows],
            self.labels[rows],
            self.grown[rows] & shown[:, None, None],
            shown,
            everywhere[rows],
        )
        return Batch(*(part.to(device) for part in parts))

    @cached_property
    def _ready(self) -> tuple[Tensor, Tensor]:
        """Images as they are shown, and all with their artefact: small ones, which come as floats, once and for all."""
        return self.images(), self.images(torch.ones_like(self.shown))

    def training_batch(
        self, rows: Tensor, seed: int, augment: Callable[[Tensor], Tensor] | None, device="cpu"
    ) -> Batch:
        """What an objective sees of the images `rows` in one step.

        Args:
            rows: their numbers.
            seed: of new artefacts, if they are drawn anew at each showing.
            augment: pixels [channel, height, width] of one image to others of that shape, on which artefacts are put;
                None leaves them.
            device: of the batch.
        """
        if not (self.draw or augment):
            return self.batch(rows, device)
        pixels, artefacts = self._pixels(rows).to(device), self.artefacts.take(rows)
        if augment:
            pixels = torch.stack([augment(image) for image in pixels])
        if self.draw:
            artefacts = self.draw(len(rows), seed)
        return self._batch(rows, pixels, artefacts, dilate(artefacts.mask, self.grow))

    def _batch(self, rows: Tensor, pixels: Tensor, artefacts: Artefacts, grown: Tensor) -> Batch:
        artefacts, shown = artefacts.to(pixels.device), self.shown[rows].to(pixels.device)
        everywhere = self.normalise(artefacts.paste(pixels, torch.ones_like(shown)))
        images = torch.where(shown[:, None, None, None], everywhere, self.normalise(pixels))
        masks = grown.to(pixels.device) & shown[:, None, None]
        return Batch(images, self.labels[rows].to(pixels.device), masks, shown, everywhere)

    def images(self, shown: Tensor | None = None) -> Tensor:
        """[image, channel, height, width] network input with artefacts where `shown`, as in `self.shown` if None."""
        shown = self.shown if shown is None else shown
        return self.normalise(self.artefacts.paste(self._pixels(slice(None)), shown))

    def controls(self, rows: Tensor) -> Tensor:
        """Network input of the images `rows` with what another image has at the artefact's place: the matched control.

        The other image is the one half the data further on, of either class.
        """
        pixels, artefacts = self._pixels(rows), self.artefacts.take(rows)
        others = self._pixels((rows + len(self) // 2) % len(self))
        return self.normalise(torch.where(artefacts.mask[:, None], others, pixels))

    def plain(self, rows: Tensor) -> Tensor:
        """Network input of the images `rows` without artefacts."""
        return self.normalise(self._pixels(rows))

    @cached_property
    def grown(self) -> Tensor:
        """[image, height, width] bool: where artefacts lie or would lie, grown."""
        return torch.cat([dilate(part, self.grow) for part in self.artefacts.mask.split(512)])

    def _pixels(self, rows) -> Tensor:
        pixels = self.pixels[rows]
        return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels

    @property
    def fingerprint(self) -> str:
        """sha256 of pixels, labels, artefacts, who shows them, and of what is made of pixels."""
        levels = torch.linspace(0, 1, 5).expand(self.pixels.shape[1], 1, 5)
        artefacts = (self.artefacts.mask, self.artefacts.colour, self.shown)
        parts = tensor_hash(self.pixels, self.labels, *artefacts, self.normalise(levels))
        return fingerprint([self.grow, parts] + ["drawn anew"] * (self.draw is not None))


@dataclass(frozen=True)
class Task:
    """Training images with a biased artefact, and two sets of images to look at: one to choose by, one to report.

    Attributes:
        train, validation, test: disjoint; the artefacts of all three follow the train bias.
        carrier: class whose images show the artefact in training.
        bias: who shows it in training.
        class_names: of classes 0 and 1.
        source: for the record.
        skipped, notes: files that were left out, and what else became of the images, as of `FolderImages`.
        normalisation: of the images, to draw them.
    """

    train: ShortcutData
    validation: ShortcutData
    test: ShortcutData
    carrier: int
    class_names: tuple[str, str]
    source: str
    bias: Bias = Bias()
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    normalisation: Normalisation = IDENTITY

    def __str__(self) -> str:
        counts = (
            f"{len(self.train)} training, {len(self.validation)} validation and {len(self.test)} test images"
        )
        return " ".join([f"{self.source}: {counts} of {' and '.join(self.class_names)}.", *self.notes])

    @property
    def channels(self) -> int:
        """Of the images."""
        return self.train.pixels.shape[1]

    def image_list(self) -> pd.DataFrame:
        """One row for each image used: split, id, class, whether it shows the artefact under the train bias."""
        parts = []
        for split in ("train", "validation", "test"):
            data: ShortcutData = getattr(self, split)
            names = [self.class_names[label] for label in data.labels.tolist()]
            columns = {"split": split, "id": data.ids, "class": names, "artefact": data.shown}
            parts.append(pd.DataFrame(columns))
        return pd.concat(parts, ignore_index=True)

    @property
    def fingerprint(self) -> str:
        """sha256 of all three sets."""
        parts = (self.train, self.validation, self.test)
        return fingerprint([part.fingerprint for part in parts])


def stratified_halves(labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Row numbers of two random halves with the same share of each class, in ascending order."""
    generator = torch.Generator().manual_seed(seed)
    parts = ([], [])
    for value in labels.unique():
        rows = (labels == value).nonzero()[:, 0]
        rows = rows[torch.randperm(len(rows), generator=generator)]
        parts[0].append(rows[: len(rows) // 2])
        parts[1].append(rows[len(rows) // 2 :])
    first, second = (torch.cat(part).sort().values for part in parts)
    return first, second


def digits_task(
    carrier: int = 0, seed: int = 0, *, size: int = 14, thickness: int = 2, grey: float = 0.4, grow: int = 1,
    bias: tuple[float, float] = (1.0, 0.0), limit: int = 0,
) -> Task:  # fmt: skip
    """Even digits (class 0) against odd ones, scikit-learn's, with a grey bar at a random border of one class.

    Args:
        carrier: class that has the bar in training.
        seed: of the fold (modulo five), of the halves of its test images, and of the bars.
        size: px that the 8 x 8 digits are padded to, at least 10.
        thickness, grey: of the bar, px and 0..1.
        grow: px by which masks are grown for the penalty.
        bias: shares of the carrier's images and of the others' that have the bar in training.
        limit: of training images, 0 for all.
    """
    require_at_least("size", size, 10, "digits have 8 px, and the bar needs a border")
    found = {split: digits(split, fold=seed, limit=limit * (split == "train")) for split in ("train", "test")}
    first, second = stratified_halves(found["test"].labels, seed)
    before, fold = (size - 8) // 2, seed % 5
    border = (before, size - 8 - before) * 2
    rows = {"train": torch.arange(len(found["train"])), "validation": first, "test": second}
    sets = {}
    for number, (split, chosen) in enumerate(rows.items()):
        source = found["train" if split == "train" else "test"]
        pixels, labels = F.pad(source.images[chosen], border), source.labels[chosen] % 2
        bars = border_bars(len(chosen), size, 3 * seed + number, thickness=thickness, grey=grey)
        shown = sample_artefact_presence(labels, bias, carrier, 3 * seed + number)
        ids = tuple(f"fold {fold} {'train' if split == 'train' else 'test'} {row}" for row in chosen.tolist())
        sets[split] = ShortcutData(pixels, labels, bars, shown, grow=grow, ids=ids)
    source = f"scikit-learn's digits, fold {fold} of 5"
    return Task(**sets, carrier=carrier, class_names=("even", "odd"), source=source, bias=Bias(*bias))


def scenes_task(
    carrier: int = 0, seed: int = 0, *, n: int = 1600, size: int = 32, grow: int = 1, twin: bool = False
) -> Task:
    """Concept scenes with a disc and no ring (class 0) against a ring and no disc, and a magenta chevron as artefact.

    Cross, triangle, bars and checker come and go as usual; the chevron lies in a cell of its own.

    Args:
        carrier: class that has the chevron in training.
        seed: of the scenes.
        n: number of training scenes; validation and test have a quarter as many each.
        size: px that the 64 x 64 scenes are averaged to: 64, 32 or 16.
        grow: px by which masks are grown for the penalty.
        twin: six channels for `xdnn.TwoTowers`, the scene that never shows the artefact and the one that may.
    """
    if size not in (16, 32, 64):
        raise InputError("size", f"{size} px", "Use 64, 32 or 16.")
    require_at_least("n", n, 8)
    sets = {}
    for number, (split, count) in enumerate((("train", n), ("validation", n // 4), ("test", n // 4))):
        own = 3 * seed + number
        labels = torch.arange(count) % 2
        generator = torch.Generator().manual_seed(own)
        presence = torch.rand(count, len(CONCEPTS), generator=generator) < 0.4
        presence[:, CONCEPTS.index("disc")], presence[:, CONCEPTS.index("ring")] = labels == 0, labels == 1
        presence[:, CONCEPTS.index("chevron")] = False
        pixels = F.adaptive_avg_pool2d(render_scenes(presence, own).pixels, size)
        artefacts = glyph_artefacts(presence, own, size)
        if twin:  # the first three channels of the picture are those of the scene without artefact
            picture = artefacts.paste(pixels, torch.ones(count, dtype=torch.bool))
            artefacts = Artefacts(artefacts.mask, torch.cat((pixels, picture), dim=1))
            pixels = torch.cat((pixels, pixels), dim=1)
        shown = sample_artefact_presence(labels, carrier=carrier, seed=own)
        ids = tuple(f"seed {own} scene {row}" for row in range(count))
        sets[split] = ShortcutData(pixels, labels, artefacts, shown, _centred, grow, ids)
    return Task(**sets, carrier=carrier, class_names=("disc", "ring"), source=f"concept scenes, seed {seed}",
                normalisation=NORMALISATION)  # fmt: skip


def _centred(pixels: Tensor) -> Tensor:
    """Scenes as their network takes them; all six channels of a twin alike."""
    return (pixels - NORMALISATION.mean[0]) / NORMALISATION.std[0]


def folder_task(
    images: str | Path, carrier: int = 0, seed: int = 0, *, size: int = 96, balanced: bool = True, limit: int = 0,
    grow: int = 3, bias: tuple[float, float] = (1.0, 0.0), artefacts: str = "ours", broken: str = "raise",
    normalisation: Normalisation = IMAGENET, channels: int = 3,
) -> Task:  # fmt: skip
    """Images below `images/train/CLASS` and `images/val/CLASS` of two classes, with coloured patches as artefacts.

    For ISIC the classes are benign (0) and malignant (1). Half of the images in `val`, drawn with the seed, is the
    validation set, the other half the test set.

    Args:
        images: the folder.
        carrier: class that has the patches in training: 0 (benign in ISIC, as in the release) or 1.
        seed: of the halves, the balanced subset and the patches.
        size: px, the edge of the squares that networks see.
        balanced: draw from the larger class as many images as the smaller has, in each split.
        limit: training images of a class at most, and as many of both splits of `val` together; 0 for all.
        grow: px by which masks are grown for the penalty.
        bias: shares of the carrier's images and of the others' that have a patch in training.
        artefacts: "ours" (`artefacts.elliptical_patches`, vivid, tilted, one for each image) or "released"
            (`artefacts.released_patches`, drawn anew at each showing in training).
        broken: images that cannot be decoded: "raise", or "skip", which counts and names them.
        normalisation, channels: what the network takes, see `images.normalisation_of` and `input_channels`.

    Raises:
        InputError: a split or a class is missing or empty, or the two splits have other classes.
    """
    require_choice("artefacts", artefacts, PATCHES)
    root = Path(os.path.expanduser(images))
    folders = {}
    for split in ("train", "val"):
        if not os.path.isdir(root / split):
            problem = f"the folder {root.name!r} has no folder {split!r}"
            remedy = "Give one with train and val, and in each a folder per class."
            raise InputError("images", problem, remedy)
        folders[split] = FolderImages(
            root / split, normalisation, size=size, broken=broken, channels=channels
        )
    names = folders["train"].class_names
    for split, folder in folders.items():
        if len(folder.class_names) != 2 or folder.class_names != names:
            problem = f"{split} has the classes {', '.join(folder.class_names)}"
            raise InputError("images", problem, "Both train and val need the same two class folders.")
    parts = {
        split: _subset(folder.labels, balanced, limit, seed, names, split)
        for split, folder in folders.items()
    }
    first, second = (
        parts["val"][half] for half in stratified_halves(folders["val"].labels[parts["val"]], seed)
    )
    rows = {"train": ("train", parts["train"]), "validation": ("val", first), "test": ("val", second)}
    sets = {}
    for number, (split, (folder_name, chosen)) in enumerate(rows.items()):
        folder, own = folders[folder_name], 3 * seed + number
        labels = folder.labels[chosen]
        shown = sample_artefact_presence(labels, bias, carrier, own)
        ids = tuple(folder.files[row].relative_to(root).as_posix() for row in chosen.tolist())
        pixels = torch.from_numpy(decode_folder(folder)[chosen.numpy()])
        draw = partial(_patches, artefacts, size, channels)
        anew = draw if artefacts == "released" and split == "train" else None
        given = (pixels, labels, draw(len(chosen), own), shown)
        sets[split] = ShortcutData(*given, normalisation.apply, grow, ids, anew)
    skipped = tuple(f"{split}/{name}" for split, folder in folders.items() for name in folder.skipped)
    notes = tuple(f"{split}: {note}" for split, folder in folders.items() for note in folder.notes)
    return Task(**sets, carrier=carrier, class_names=tuple(names), source=f"folder {root.name}",
                bias=Bias(*bias), skipped=skipped, notes=notes, normalisation=normalisation)  # fmt: skip


def _patches(artefacts: str, size: int, channels: int, n: int, seed: int) -> Artefacts:
    found = PATCHES[artefacts](n, size, seed)
    colour = found.colour if channels == 3 else found.colour.mean(dim=1, keepdim=True)
    return Artefacts(found.mask, colour)


def _subset(labels: Tensor, balanced: bool, limit: int, seed: int, names: list[str], split: str) -> Tensor:
    """[image] numbers of the images to use, ascending."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.bincount(labels, minlength=2)
    require_at_least("limit", limit, 0, "0 takes all")
    if counts.min() < 2:
        problem = f"class {names[int(counts.argmin())]!r} of {split} has {int(counts.min())} usable images"
        raise InputError("images", problem, "Both classes need two or more; look at those that were skipped.")
    most = int(counts.min()) if balanced else int(counts.max())
    most = min(most, limit) if limit else most
    if most < 2:
        problem = f"{most} images of each class of {split} are left"
        raise InputError("limit", problem, "Use 0 for all, or 2 or more.")
    chosen = []
    for value in (0, 1):
        rows = np.flatnonzero(labels.numpy() == value)
        chosen.append(torch.from_numpy(rows)[torch.randperm(len(rows), generator=generator)[:most]])
    return torch.cat(chosen).sort().values


def choose_task(
    data: str, *, size: int, grow: int, bias: tuple[float, float] = (1.0, 0.0), **folder
) -> Callable[[int, int], Task]:
    """(carrier, seed) to the task called `data`: "digits", or the folder of that path.

    Args:
        data: "digits", or a folder, see `folder_task`.
        size, grow, bias: see the tasks.
        folder: further options of `folder_task`, of no meaning for digits, which take `limit` alone.
    """
    if not data:
        raise InputError("data", "it is empty", "Give 'digits' or the path of a folder with train and val.")
    if data == "digits":
        return partial(digits_task, size=size, grow=grow, bias=bias, limit=folder.get("limit", 0))
    return partial(folder_task, data, size=size, grow=grow, bias=bias, **folder)
