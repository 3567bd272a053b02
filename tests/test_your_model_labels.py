"""A label names what is in the picture, not what else is in its image."""

import pytest
import torch

from absence_utils.images.base import TensorImages
from absence_utils.images.cache import stack_images
from absence_utils.images.preprocessing import Preprocessing, prepared_scenes
from absence_utils.images.scenes import CONCEPTS, render_scenes, scene_dataset
from absence_utils.images.subsets import Subset
from absence_utils.patches.book import Patches
from absence_utils.your_model.labels import image_labels, patch_labels


def patches(images, corners, side):
    """One unit's patches at given upper left corners."""
    box = torch.tensor([[[top, left, side, side] for top, left in corners]])
    return Patches(torch.zeros(1, len(images)), torch.tensor([images]), box)


def named(mask, top, left, side):
    inside = mask[:, top : top + side, left : left + side].sum(dim=(1, 2)) > 0.5 * mask.sum(dim=(1, 2))
    return ", ".join(name for name, there in zip(CONCEPTS, inside, strict=True) if there) or "none"


@pytest.mark.parametrize("scale", [1, 2])
def test_a_patch_of_a_scene_is_named_by_the_concepts_that_lie_mostly_in_it(scale):
    scenes = scene_dataset(12, 0)
    if scale > 1:
        scenes = prepared_scenes(Preprocessing(scenes.normalisation, 128), 12, 0)
    order = [5, 3, 8, 1]
    images = stack_images(Subset(scenes, order))
    masks = render_scenes(scenes.presence, 0).masks[order]
    corners = [(0, 0), (20, 20), (40, 40), (40, 0)]
    scaled = [(scale * top, scale * left) for top, left in corners]
    found = patch_labels(images, patches([0, 1, 2, 3], scaled, 24 * scale), 0, 4)
    expected = [named(mask, *corner, 24) for mask, corner in zip(masks, corners, strict=True)]
    assert found == expected and len(set(found)) > 1
    assert patch_labels(images, patches([0, 1, 2, 3], scaled, 24 * scale), 0, 2) == expected[:2]


def test_without_masks_a_patch_says_where_it_is_from():
    images = TensorImages(torch.zeros(3, 1, 8, 8), torch.tensor([1, 0, -1]), ["cat", "dog"])
    found = patches([0, 1, 2], [(0, 0)] * 3, 4)
    assert patch_labels(images, found, 0, 3) == ["from: dog", "from: cat", ""]
    images.class_names = ["photos"]
    assert patch_labels(images, found, 0, 3) == ["", "", ""]  # a single class says nothing
    images.presence, images.concepts = torch.tensor([[True, True], [False, True], [False, False]]), ("a", "b")
    assert patch_labels(images, found, 0, 3) == ["from: a, b", "from: b", "from: none"]


def test_a_whole_image_is_named_by_its_concepts_or_its_class():
    images = TensorImages(torch.zeros(3, 1, 8, 8), torch.tensor([1, 0, -1]), ["cat", "dog"])
    assert image_labels(images, [1, 0, 2]) == ["cat", "dog", ""]
    scenes = scene_dataset(3, 0)
    shown = [name for name, there in zip(CONCEPTS, scenes.presence[2], strict=True) if there]
    assert image_labels(scenes, [2]) == [", ".join(shown)]


def test_masks_follow_a_selection_and_are_dropped_where_a_transform_may_cut():
    scenes = scene_dataset(4, 0)
    assert torch.equal(Subset(scenes, [2, 0]).masks, render_scenes(scenes.presence, 0).masks[[2, 0]])
    cut = Preprocessing(scenes.normalisation, 64, transform=lambda image: torch.zeros(3, 64, 64))
    assert prepared_scenes(cut, 4, 0).masks is None
