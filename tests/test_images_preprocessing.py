"""What a preprocessing does is read from its steps, and what cannot be used is refused with a reason."""

import numpy as np
import pytest
import torch
from helpers.user_networks import Blocks, Dense, Grey
from PIL import Image
from torch import nn
from torchvision import transforms as T
from torchvision.models import ResNet18_Weights, SqueezeNet1_0_Weights, ViT_B_16_Weights
from torchvision.transforms import v2

from absence_utils import InputError
from absence_utils.images.base import IMAGENET
from absence_utils.images.cache import stack_images
from absence_utils.images.folders import FolderImages
from absence_utils.images.preprocessing import (
    PreparedFolder,
    prepared_scenes,
    read_transform,
    resolve_preprocessing,
)
from absence_utils.images.subsets import Subset

NORMAL = T.Normalize((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
FLOAT, SCALED = v2.ToDtype(torch.float32), v2.ToDtype(torch.float32, scale=True)
HALVES = [(0.4, 0.5, 0.6), (0.5, 0.5, 0.5)]


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for number, shape in enumerate([(60, 90), (90, 60), (32, 32), (400, 500)]):
        place = tmp_path / "photos" / f"class{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        coarse = generator.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        coarse[2, 2], coarse[2, 3] = 0, 255  # survive every crop
        image = Image.fromarray(coarse).resize(shape, Image.Resampling.NEAREST)
        pixels = np.array(image) // 2 * 2 + generator.integers(0, 2, np.array(image).shape, dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.png")
    return tmp_path / "photos"


def opened(dataset, index):
    return Image.open(dataset.files[index]).convert("RGB")


@pytest.mark.parametrize(
    "transform, size, mean, std",
    [
        (SqueezeNet1_0_Weights.DEFAULT.transforms(), 224, IMAGENET.mean, IMAGENET.std),
        (ResNet18_Weights.DEFAULT.transforms(antialias=True), 224, IMAGENET.mean, IMAGENET.std),
        (ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1.transforms(), 384, IMAGENET.mean, IMAGENET.std),
        (T.Compose([T.Resize((32, 32)), T.ToTensor(), NORMAL]), 32, NORMAL.mean, NORMAL.std),
        (T.Compose([T.Resize((32, 32)), T.PILToTensor()]), 32, (0,) * 3, (1 / 255,) * 3),
        (
            T.Compose([T.ToTensor(), v2.Resize((40, 40)), T.Normalize((0.5,), (0.5,))]),
            40,
            (0.5,) * 3,
            (0.5,) * 3,
        ),
        (
            T.Compose([T.Resize(40), T.CenterCrop(16), T.ToTensor(), T.Normalize((1,), (-1,))]),
            16,
            (1,) * 3,
            (-1,) * 3,
        ),
        (
            T.Compose([T.Resize((32, 32)), T.PILToTensor(), FLOAT, T.Normalize((127.5,), (51,))]),
            32,
            (0.5,) * 3,
            (0.2,) * 3,
        ),
        (
            v2.Compose([v2.ToImage(), v2.Resize(40), v2.CenterCrop(32), SCALED, v2.Normalize(*HALVES)]),
            32,
            *HALVES,
        ),
    ],
)
def test_mean_std_and_size_are_read_and_images_come_out_as_the_transform_makes_them(
    transform, size, mean, std, folder, tmp_path
):
    found = read_transform(transform, Blocks())
    assert (found.size, found.channels) == (size, 3)
    assert found.normalisation.mean == pytest.approx(mean, abs=1e-6)
    assert found.normalisation.std == pytest.approx(std, rel=1e-6)
    dataset = PreparedFolder(folder, found)
    stack, grey_level = stack_images(dataset, tmp_path / "cache"), max(1 / 255 / abs(s) for s in std)
    for index in range(4):
        made = transform(opened(dataset, index)).float()
        assert torch.equal(dataset[index][0], made)
        pixels = found.normalisation.undo(made)
        assert 0 <= pixels.min() < 0.3 and 0.7 < pixels.max() <= 1
        assert (stack.take([index])[0] - made).abs().max() <= 0.501 * grey_level
    assert (stack.labels == dataset.labels).all() and torch.equal(Subset(stack, [2])[0][0], stack[2][0])


def test_torchvision_s_own_evaluation_is_the_same_by_dict_and_by_transform(folder):
    ways = [
        resolve_preprocessing(nn.Conv2d(3, 2, 3), given)
        for given in (None, SqueezeNet1_0_Weights.DEFAULT.transforms())
    ]
    first, second = (PreparedFolder(folder, way) for way in ways)
    third = FolderImages(folder, IMAGENET)
    for index in range(4):
        torch.testing.assert_close(first[index][0], second[index][0], atol=1e-5, rtol=0)
        assert torch.equal(first[index][0], third[index][0])


def test_grey_images_go_to_networks_that_take_them():
    short = T.Compose([T.Resize((28, 28)), T.ToTensor(), T.Normalize((0.1307,), (0.3081,))])
    for net in (Grey(), Dense()):
        found = read_transform(short, net)
        assert (found.channels, found.mode, found.size) == (1, "L", 28)
        assert found.normalisation.mean == pytest.approx((0.1307,))
    turned = read_transform(T.Compose([T.Resize((28, 28)), T.Grayscale(), T.ToTensor()]), Grey())
    assert (turned.channels, turned.mode) == (1, "RGB")  # it turns colours into grey itself
    assert read_transform(short, Blocks()).mode == "RGB"


def test_a_dict_and_nothing():
    found = resolve_preprocessing(Grey(), {"mean": 0.2, "std": [0.4], "size": 28})
    assert (found.channels, found.size, found.mode) == (1, 28, "L") and found.normalisation.std == (0.4,)
    assert resolve_preprocessing(Blocks(), {"size": 64, "resize": 80}).resize == 80
    nothing = resolve_preprocessing(Blocks(), None)
    assert nothing.normalisation == IMAGENET and (nothing.size, nothing.resize) == (224, 256)
    assert resolve_preprocessing(Dense(), {"mean": (0.1, 0.2, 0.3), "std": 1.0}).channels == 3
    assert resolve_preprocessing(Blocks(), found) is found  # a Preprocessing with any transform


def test_images_of_the_right_size_are_taken_as_they_are(folder):
    dataset = PreparedFolder(folder, resolve_preprocessing(Blocks(), {"mean": 0, "std": 1, "size": 32}))
    (index,) = [i for i, file in enumerate(dataset.files) if file.name == "2.png"]
    exact = torch.from_numpy(np.array(opened(dataset, index))).permute(2, 0, 1) / 255
    assert torch.equal(dataset[index][0], exact)


def test_other_recipes_do_not_share_a_file_of_pixels(folder, tmp_path):
    makers = [
        T.Compose([T.Resize((32, 32)), T.ToTensor()]),
        T.Compose([T.CenterCrop(32), T.ToTensor()]),
        {"mean": 0, "std": 1, "size": 32},
        {"mean": 0, "std": 1, "size": 32, "resize": 60},
    ]
    datasets = [PreparedFolder(folder, resolve_preprocessing(Blocks(), maker)) for maker in makers]
    datasets.append(FolderImages(folder, datasets[2].normalisation, size=32))
    for dataset in datasets:
        stack = stack_images(dataset, tmp_path)
        assert (stack.take([0])[0] - dataset[0][0]).abs().max() < 0.6 / 255
    assert len(list(tmp_path.glob("*.u8"))) == 5


def test_a_broken_file_is_skipped(folder):
    (folder / "class0" / "text.png").write_text("no image")
    found = resolve_preprocessing(Blocks(), {"size": 32})
    assert PreparedFolder(folder, found, broken="skip").skipped == ["class0/text.png"]


def test_scenes_go_through_the_transform():
    made = T.Compose([T.Resize((48, 48)), T.ToTensor(), NORMAL])
    assert prepared_scenes(read_transform(made, Blocks()), 2, 0).images.shape == (2, 3, 48, 48)


def size(*steps):
    return T.Compose([T.Resize((32, 32)), *steps])


def make(image):
    return T.ToTensor()(image)


class Standardised(T.ToTensor):
    """Says it is ToTensor and is not."""

    def __call__(self, image):
        pixels = super().__call__(image)
        return (pixels - pixels.mean()) / (pixels.std() + 1)


REFUSED = {
    "'RandomAutocontrast' does to a pixel is not known.*dict.mean": size(T.RandomAutocontrast(1.0), T.ToTensor()),
    "'<lambda>' does to a pixel is not known.*Use the transform for evaluation": size(T.ToTensor(), lambda x: x**0.45),
    "'make' does to a pixel": make,
    "'Grayscale' does": size(T.Grayscale(3), T.ToTensor()),
    "comes after Normalize": size(T.ToTensor(), NORMAL, v2.ToPureTensor()),
    "white does not come out as its mean and std say": size(Standardised()),
    "cut out squares": T.Compose([T.Resize(32), T.ToTensor()]),
    "the network takes 3 channels": size(T.Grayscale(), T.ToTensor()),
    "beyond black and white": T.Compose(
        [T.ToTensor(), v2.Resize((100, 100), v2.InterpolationMode.BICUBIC, antialias=True)]
    ),
    "returns Image": T.Resize((32, 32)),
    "fails on a RGB image": size(NORMAL),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_transforms_that_cannot_be_used_are_refused(message):
    with pytest.raises(InputError, match=f"`preprocessing`.*({message})"):
        read_transform(REFUSED[message], Blocks())


@pytest.mark.parametrize(
    "given, message",
    [
        ({"maen": 1}, "'maen' is not known. Did you mean 'mean'"),
        ({"mean": (1, 2, 3), "std": (1, 2)}, "2 values of std for 3 channels"),
        ({"mean": 0.5}, "mean without std"),
        ({"mean": 123.7, "std": 58.4}, "not of pixels in 0..1.*255"),
        ({"mean": "a", "std": 1}, "not numbers"),
        ({"mean": 0, "std": 0}, "std not 0"),
        ({"size": -3}, "size is positive"),
        ({"size": 30, "resize": 20}, "resize not below size"),
        ({"channels": 5, "mean": 0, "std": 1}, "1 or 3"),
        ({"mean": float("nan"), "std": 1}, "finite"),
        (7, "a int"),
    ],
)
def test_bad_descriptions(given, message):
    with pytest.raises(InputError, match=f"`preprocessing`.*({message})"):
        resolve_preprocessing(Blocks(), given)
    with pytest.raises(InputError, match="how many channels.*channels=3"):
        resolve_preprocessing(Dense(), {"mean": 0.5, "std": 0.5, "size": 28})
