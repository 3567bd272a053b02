"""Concepts that a unit may be asked for: names, the images that show them (donors), and which name lies in which."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from absence_utils.errors import InputError, require_shape
from absence_utils.images.base import TensorImages
from absence_utils.images.cache import ImageStack, stack_images
from absence_utils.images.load import load_images
from absence_utils.images.scenes import CONCEPTS, NORMALISATION, draw_presence, render_scenes
from absence_utils.images.worlds import Scenes
from absence_utils.paths import DATA

from .trees import read_tree

IMAGENET_CATEGORIES = DATA / "imagenet_categories.csv"


@dataclass
class Concepts:
    """Names and the donors that show them.

    Attributes:
        names: what may be proposed.
        membership: [donor, name] bool, whether the donor shows it; a donor may belong to several names.
        donors: images of one size, normalised for the network; `take(numbers)` gives
            [donor, channel, height, width].
        own: [donor] number of its image among the hosts, -1 where it is none of them.
        parents: name to the names right above it; names without any are left out.
    """

    names: list[str]
    membership: np.ndarray
    donors: ImageStack
    own: np.ndarray
    parents: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.membership)

    def __repr__(self) -> str:
        return f"{len(self.names)} names, {len(self)} donors"

    def ancestors(self, name: str) -> set[str]:
        """All names above a name."""
        above = set(self.parents.get(name, ()))
        return above.union(*(self.ancestors(each) for each in above))


def find_concepts(dataset, tree: str = "", *, scenes: int = 160, seed: int = 0) -> Concepts:
    """The concepts that fit a dataset: glyphs for concept scenes, else the classes, with the categories of a tree.

    Args:
        dataset: the hosts.
        tree: "" for classes alone, "imagenet" for data/imagenet_categories.csv, or a file, see `trees.read_tree`.
        scenes, seed: of `scene_concepts`.
    """
    if getattr(dataset, "concepts", ()):
        return scene_concepts(scenes, seed)
    if not tree:
        return class_concepts(dataset)
    return tree_concepts(dataset, IMAGENET_CATEGORIES if tree == "imagenet" else tree)


def class_concepts(dataset) -> Concepts:
    """The classes of a dataset: a donor belongs to its class.

    Args:
        dataset: with `class_names` and `labels`; its images are hosts, too.

    Raises:
        InputError: it has no classes.
    """
    names, labels = _classes(dataset)
    membership = labels[:, None] == np.arange(len(names))
    return Concepts(names, membership, stack_images(dataset), np.arange(len(dataset)))


def tree_concepts(dataset, tree: str | Path) -> Concepts:
    """Classes and the categories above them: a donor belongs to its class and to all that lie above it.

    Categories with the same members as one below them are left out: the name below says more.

    Args:
        dataset: with class folders; their names are leaves of the tree.
        tree: see `trees.read_tree`.

    Raises:
        InputError: as `trees.read_tree`; a class that the tree does not have.
    """
    known = read_tree(tree)
    titles, labels = _classes(dataset)
    folders = _folders(dataset) or titles
    unknown = [folder for folder in folders if folder not in known.parents]
    if unknown:
        more = f" and {len(unknown) - 1} more classes" if len(unknown) > 1 else ""
        remedy = "Name each class folder as a child in the tree."
        raise InputError("tree", f"it does not have {unknown[0]!r}{more}", remedy)
    above = [known.above(folder) for folder in folders]
    nodes = folders + sorted(set().union(*above) - set(folders))
    by_class = np.array([[node == folder or node in up for node in nodes]
                         for folder, up in zip(folders, above, strict=True)])  # fmt: skip
    kept = _most_specific(nodes, by_class, known)
    title = dict(zip(folders, titles, strict=True))
    title = {node: title.get(node, known.title(node)) for node in kept}
    double = {each for each in title.values() if list(title.values()).count(each) > 1}
    title = {node: f"{each} ({node})" if each in double else each for node, each in title.items()}
    parents = {title[node]: tuple(sorted(title[up] for up in _nearest(node, kept, known))) for node in kept}
    membership = by_class[labels][:, [nodes.index(node) for node in kept]]
    parents = {name: up for name, up in parents.items() if up}
    return Concepts(list(title.values()), membership, stack_images(dataset), np.arange(len(dataset)), parents)


def _most_specific(nodes: list[str], members: np.ndarray, tree) -> list[str]:
    """Of nodes above each other that have the same members, the lowest."""
    groups: dict[bytes, list[str]] = {}
    for node, column in zip(nodes, members.T, strict=True):
        groups.setdefault(column.tobytes(), []).append(node)
    kept = []
    for same in groups.values():
        kept += [node for node in same if not any(node in tree.above(other) for other in same)]
    return [node for node in nodes if node in set(kept)]


def _nearest(node: str, kept: list[str], tree) -> set[str]:
    """The nodes that are kept and lie right above, seen past those that are left out."""
    found, left = set(), list(tree.parents.get(node, ()))
    while left:
        each = left.pop()
        if each in kept:
            found.add(each)
        else:
            left += tree.parents.get(each, ())
    return found


def folder_concepts(folder: str | Path, model: nn.Module, *, size: int = 224) -> Concepts:
    """A folder with one folder of images for each concept.

    Args:
        folder: its folders' names are the concepts' names.
        model: the network, which decides how the images are normalised.
        size: of the images, px, see `images.FolderImages`.

    Raises:
        InputError: no images, or one that cannot be read.
    """
    found = class_concepts(load_images(folder, model, size=size))
    found.own = np.full(len(found), -1)
    return found


def mask_concepts(dataset, masks: Tensor, names: list[str]) -> Concepts:
    """Crops around masks, at the scale of the image: as large as the largest mask, so that none is cut.

    Args:
        dataset: images [channel, height, width], which are hosts, too.
        masks: [image, concept, height, width] bool; all False where a concept is absent.
        names: [concept].

    Raises:
        InputError: masks that do not fit the images or the names, or none that shows anything.
    """
    stack = stack_images(dataset)
    masks = torch.as_tensor(masks)
    require_shape("masks", masks, len(stack), len(names), *stack.take([0]).shape[2:])
    shown = masks.any(dim=3).any(dim=2)
    if not shown.any():
        raise InputError("masks", "they are all empty", "Give masks that show something.")
    image, concept = shown.nonzero().unbind(dim=1)
    boxes = np.array(
        [_box(masks[i, c]) for i, c in zip(image, concept, strict=True)]
    )  # top, left, bottom, right
    edge = int((boxes[:, 2:] - boxes[:, :2]).max())
    room = np.array(masks.shape[2:]) - edge
    if (room < 0).any():
        raise InputError(
            "masks", f"one is {edge} px long, longer than an image is wide", "Give smaller masks."
        )
    corners = np.clip((boxes[:, :2] + boxes[:, 2:] - edge + 1) // 2, 0, room)
    images = stack.take(image.numpy())
    crops = torch.stack([
        each[:, top : top + edge, left : left + edge] for each, (top, left) in zip(images, corners, strict=True)
    ])  # fmt: skip
    donors = stack_images(TensorImages(crops, concept, list(names)))
    return Concepts(
        list(names), (concept[:, None] == torch.arange(len(names))).numpy(), donors, image.numpy()
    )


def scene_concepts(scenes: int = 200, seed: int = 0) -> Concepts:
    """The glyphs of concept scenes as donors, out of scenes of their own: [donor, 3, edge, edge].

    Args:
        scenes: how many are rendered; each shows about three glyphs.
        seed: of the scenes; give another than that of the hosts.

    Example:
        >>> from absence_utils.naming import scene_concepts
        >>> scene_concepts(20).names[:3]
        ['disc', 'cross', 'ring']
    """
    return rendered_concepts(render_scenes(draw_presence(scenes, seed), seed), list(CONCEPTS))


def rendered_concepts(scenes: Scenes, names: list[str]) -> Concepts:
    """The concepts of rendered scenes as donors, none of which is among the hosts.

    Args:
        scenes: of `images.World` or `images.scenes`; others than the hosts.
        names: [concept].
    """
    labels = torch.zeros(len(scenes), dtype=torch.long)
    images = TensorImages(NORMALISATION.apply(scenes.pixels), labels, ["scene"])
    found = mask_concepts(images, scenes.masks, names)
    found.own = np.full(len(found), -1)
    return found


def _box(mask: Tensor) -> tuple[int, int, int, int]:
    rows, columns = mask.nonzero().unbind(dim=1)
    return int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1


def _classes(dataset) -> tuple[list[str], np.ndarray]:
    """Names of the classes, and the class of each image."""
    names, labels = getattr(dataset, "class_names", None), getattr(dataset, "labels", None)
    if not names or labels is None:
        raise InputError("dataset", "it has no classes", "Give a folder with one folder for each class.")
    return list(map(str, names)), np.asarray(labels)


def _folders(dataset) -> list[str]:
    """Names of the class folders, through subsets."""
    while dataset is not None and not hasattr(dataset, "classes"):
        dataset = getattr(dataset, "dataset", None)
    return list(getattr(dataset, "classes", []))
