"""What the check of the inputs says of size, borders and preprocessing, on folders whose truth is known."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from absence_utils import InputError, open_model
from absence_utils.images.base import IDENTITY, IMAGENET, Normalisation, TensorImages
from absence_utils.your_model import validate_inputs

COLOURS = np.random.default_rng(3).integers(110, 146, (6, 3))  # one for each class


def save_folder(root, draw, classes=6, each=8):
    """`draw(class, generator)` gives the pixels [height, width, 3] of an image."""
    generator = np.random.default_rng(0)
    for number in range(classes):
        (root / f"class{number}").mkdir(parents=True)
        for index in range(each):
            pixels = np.clip(draw(number, generator), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / f"class{number}" / f"{index}.png")
    return root


def coloured(number, generator, edge=32):
    return COLOURS[number] + generator.normal(0, 12, (edge, edge, 3))


class NearestColour(nn.Module):
    """Answers with the class whose colour is nearest, in inputs normalised as it was trained."""

    def __init__(self, trained_with, colours=COLOURS):
        super().__init__()
        templates = trained_with.apply(torch.tensor(colours / 255, dtype=torch.float32)[..., None, None])[
            ..., 0, 0
        ]
        self.see, self.fc = nn.Conv2d(3, 3, 1, bias=False), nn.Linear(3, len(colours))
        with torch.no_grad():
            self.see.weight.copy_(torch.eye(3)[..., None, None])
            self.fc.weight.copy_(2 * templates)
            self.fc.bias.copy_(-templates.square().sum(1))

    def forward(self, images):
        return self.fc(self.see(images).mean((2, 3)))


def row(validation, check):
    (found,) = validation.table[validation.table["check"] == check].itertuples()
    return found


def checked(root, model, preprocessing=None, size=32, **how):
    opened = open_model(model, preprocessing=preprocessing, size=size)
    return validate_inputs(opened, opened.images(root), **how)


# -- recognition and preprocessing

USUAL = {
    "pixels in 0..1": IDENTITY,
    "ImageNet's mean and sd": IMAGENET,
    "pixels in -1..1": Normalisation((0.5,) * 3, (0.5,) * 3),
    "pixels in 0..255": Normalisation((0.0,) * 3, (1 / 255,) * 3),
}


@pytest.mark.parametrize("trained", USUAL)
@pytest.mark.parametrize("given", USUAL)
def test_a_forgotten_preprocessing_is_a_failure_with_the_one_that_fits(tmp_path, trained, given):
    root, net = save_folder(tmp_path / "images", coloured), NearestColour(USUAL[trained])
    how = {"mean": USUAL[given].mean, "std": USUAL[given].std}
    found = row(checked(root, net, how), "recognised")
    if trained == given:
        assert found.passed and not found.remedy
        assert re.fullmatch(r"100% of 48 images \(chance 17%\)", found.found)
        return
    assert not found.passed, found
    share = int(re.match(r"(\d+)% of 48 images \(chance 17%\), (\d+)% with ", found.found)[1])
    assert share < 70
    if trained in found.found:  # another usual one may come as near
        mean = tuple(round(value, 3) for value in USUAL[trained].mean * (3 // len(USUAL[trained].mean)))
        assert f"mean={mean}" in found.remedy
    else:
        assert re.search(r"\), (\d+)%", found.found)[1] == "100"


def test_the_failure_is_an_error_that_names_the_preprocessing(tmp_path):
    root = save_folder(tmp_path / "images", coloured)
    validation = checked(root, NearestColour(IDENTITY))  # ImageNet's is assumed of an RGB network
    with pytest.raises(
        InputError, match=r"`preprocessing`.*recognised.*pixels in 0..1.*dict\(mean=.*std=.*size=32"
    ):
        validation.raise_for_failure()
    assert "FAIL  recognised" in str(validation) and not validation.ok
    right = checked(root, NearestColour(IDENTITY), {"mean": 0, "std": 1})
    assert right.ok and right.raise_for_failure() is right and "all checks passed" in str(right)


def striped(number, generator):
    """Narrow or broad stripes on a 32 px image."""
    stripes = (np.arange(32) // (1, 4)[number]) % 2 * 120 + 60
    return np.broadcast_to(stripes[:, None], (32, 32))[..., None] + generator.normal(0, 3, (32, 32, 3))


class Narrow(nn.Module):
    """Tells narrow stripes from broad ones, at the size it was trained at."""

    def __init__(self):
        super().__init__()
        self.step = nn.Conv2d(3, 1, (2, 1), bias=False)
        with torch.no_grad():
            self.step.weight.copy_(torch.tensor([1.0, -1.0])[None, None, :, None].expand(1, 3, 2, 1) / 3)

    def forward(self, images):
        steps = self.step(images).abs().mean((1, 2, 3))
        return torch.stack([steps - 0.3, 0.3 - steps], 1)


def test_small_images_enlarged_to_the_size_of_the_network(tmp_path):
    root = save_folder(tmp_path / "images", striped, classes=2, each=16)
    plain = {"mean": 0, "std": 1}
    validation = checked(root, Narrow(), plain, size=224)
    size, found = row(validation, "image size"), row(validation, "recognised")
    assert size.passed and "your images are 32 px, the network is given 224 px" in size.found and size.remedy
    assert not found.passed and "50% of 32 images (chance 50%), 100% with images of 32 px" in found.found
    assert "size=32" in found.remedy
    validation = checked(root, Narrow(), plain, size=32)
    assert validation.ok and row(validation, "image size").found == "32 px, as the network is given"
    assert row(validation, "image size").remedy == ""


def test_images_that_are_made_smaller_are_said_without_a_remark(tmp_path):
    root = save_folder(
        tmp_path / "images", lambda number, generator: coloured(number, generator, 80 + number)
    )
    found = row(checked(root, NearestColour(IMAGENET), size=32), "image size")
    assert found.found == "80 to 85 px, the network is given 32 px" and found.passed and not found.remedy


def test_folders_that_are_not_the_network_s_classes_are_not_asked(tmp_path):
    root = save_folder(tmp_path / "images", coloured, classes=4)
    found = row(checked(root, NearestColour(IDENTITY)), "recognised")
    assert found.passed and found.found == "not asked: the folder has 4 classes, the network 6 outputs"
    one = save_folder(tmp_path / "one", coloured, classes=1)
    single = NearestColour(IDENTITY, COLOURS[:1])
    assert "not asked" in row(checked(one, single), "recognised").found


def test_a_network_that_knows_nothing_of_the_classes_is_noted(tmp_path):
    root = save_folder(tmp_path / "images", coloured)
    net = NearestColour(IMAGENET, COLOURS[[1, 2, 3, 4, 5, 0]])  # folders in another order than the outputs
    found = row(checked(root, net), "recognised")
    assert found.passed and "no better than chance" in found.found and "order" in found.remedy


def test_images_with_several_labels_are_recognised_by_the_sign_of_each_output():
    opened = open_model("concept_scenes")
    scenes = opened.images("concept_scenes", limit=64, seed=2)
    true = scenes.membership.double().mean(0)
    chance = round(100 * torch.maximum(true, 1 - true).mean().item())
    said = row(validate_inputs(opened, scenes), "recognised").found
    assert re.match(rf"(9\d|100)% of 64 images x 5 outputs \(chance {chance}%\)", said)
    found = validate_inputs(opened, scenes)
    assert found.ok and row(found, "image size").found == "64 px, as the network is given"
    assert row(found, "borders").found == "none of one colour"


class Banded(nn.Module):
    """Dark or bright: right for pixels in -1..1, and with ImageNet's mean but for images that are not quite dark."""

    def forward(self, images):
        level = images[:, 0].mean((1, 2))
        dark = ((level < -1.5) | ((level > -0.9) & (level < 0))).float()
        return torch.stack([dark, 1 - dark], 1)


def test_of_preprocessings_that_do_as_well_the_most_usual_is_named(tmp_path):
    levels = iter([50] + [20] * 15 + [230] * 16)
    root = save_folder(tmp_path / "images", lambda *_: np.full((32, 32, 3), next(levels)), classes=2, each=16)
    found = row(checked(root, Banded(), {"mean": 0, "std": 1 / 255, "channels": 3}), "recognised")
    assert not found.passed and "97% with ImageNet's mean and sd" in found.found


def test_at_most_so_many_images_are_looked_at_spread_over_the_folder(tmp_path):
    root = save_folder(tmp_path / "images", coloured)
    seen = []
    net = NearestColour(IMAGENET)
    net.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    assert "of 12 images" in row(checked(root, net, most=12), "recognised").found
    # one image counts the outputs, after the trial of the reading; no other preprocessing is tried
    assert sum(seen) == (1 + 2) + 1 + 12
    with pytest.raises(InputError, match="`most`"):
        checked(root, net, most=0)


def test_the_network_is_left_as_found(tmp_path):
    root = save_folder(tmp_path / "images", coloured, each=2)
    opened = open_model(NearestColour(IDENTITY), size=32)
    dataset = opened.images(root)
    before = dataset.preprocessing
    opened.model.train()
    validate_inputs(opened, dataset)
    assert opened.model.training and dataset.preprocessing is before and opened.preprocessing is before


# -- borders


def framed(colour, sides, width=5):
    def draw(number, generator):
        pixels = coloured(number, generator, 40)
        for side in sides:
            part = {
                "top": np.s_[:width],
                "bottom": np.s_[-width:],
                "left": np.s_[:, :width],
                "right": np.s_[:, -width:],
            }
            pixels[part[side]] = colour
        return pixels

    return draw


@pytest.mark.parametrize("sides", [("top", "bottom"), ("left", "right"), ("top", "bottom", "left", "right")])
@pytest.mark.parametrize(
    "colour, baseline", [((0, 0, 0), "'black'"), ((255, 255, 255), "'border' (here RGB (255, 255, 255))")]
)
def test_borders_of_one_colour_are_noted_with_the_baseline_that_follows(tmp_path, sides, colour, baseline):
    root = save_folder(tmp_path / "images", framed(colour, sides))
    found = row(checked(root, NearestColour(IMAGENET), size=40), "borders")
    assert found.passed
    assert f"48 of 48 images, RGB {colour}, 5 px wide" in found.found
    assert "baseline" in found.remedy and baseline in found.remedy


def test_no_border_where_there_is_none_or_only_one_side_or_nothing_else(tmp_path):
    for name, draw in (
        ("plain", coloured),
        ("one side", framed((0, 0, 0), ["top"])),
        ("thin", framed((0, 0, 0), ["top", "bottom"], 1)),
        ("blank", lambda number, generator: np.full((40, 40, 3), 9)),
    ):
        root = save_folder(tmp_path / name, draw, each=2)
        found = row(checked(root, NearestColour(IMAGENET), size=40), "borders")
        assert found.found == "none of one colour" and not found.remedy, name


def test_borders_of_grey_images_in_memory():
    pixels = torch.rand(12, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    pixels[:, :, :4] = pixels[:, :, -6:] = 0
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    opened = open_model(net, preprocessing={"mean": 0.1307, "std": 0.3081, "size": 28})
    images = opened.preprocessing.normalisation.apply(pixels)
    dataset = TensorImages(
        images, torch.zeros(12, dtype=torch.long), ["a"], normalisation=opened.preprocessing.normalisation
    )
    found = row(validate_inputs(opened, dataset), "borders")
    assert "12 of 12 images, grey 0, 6 px wide" in found.found and "'black'" in found.remedy
