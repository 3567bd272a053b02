"""Networks by name and by function, checkpoints of networks that torchvision does not know, and their images."""

import ast
import copy
import os
import re
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch
from helpers.user_networks import CIFAR, Blocks, CifarResNet, Dense, Grey, trained_cifar
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from absence_utils import InputError, Unit, load_model, open_model, render_pair, responses
from absence_utils.images.base import IMAGENET, input_channels, normalisation_of
from absence_utils.images.cache import stack_images
from absence_utils.models.load import model_fingerprint
from absence_utils.models.random_weights import random_copy
from absence_utils.paths import ROOT
from absence_utils.runner.parameters import PARAMETER_TAGS

CODE = '''
"""A file as a reader has it: it imports a file beside it."""
import torch
from torch import nn
from beside_{tag} import WIDTH

def make_net():
    import also_{tag}
    return nn.Sequential(nn.Conv2d(3, WIDTH, 3), nn.ReLU()).train(), dict(mean=0.5, std=0.25, size=20)

def alone():
    return nn.Conv2d(1, 2, 3)

def with_nan():
    net = alone()
    net.weight.data[0] = float("nan")
    return net
'''


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for number in range(4):
        place = tmp_path / "photos" / f"class{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (30 + number, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def file(tmp_path):
    tag = tmp_path.name.replace("-", "_")
    place = tmp_path / "code"
    place.mkdir()
    (place / "my_model.py").write_text(CODE.format(tag=tag))
    (place / f"beside_{tag}.py").write_text("WIDTH = 5\n")
    (place / f"also_{tag}.py").write_text("")
    return place / "my_model.py"


# -- by name, by module, by file


def test_a_function_in_a_file_is_called_and_its_neighbours_are_found(file, folder):
    path = list(sys.path)
    brought = open_model(f"{file}:make_net")
    assert sys.path == path and not brought.model.training
    assert brought.preprocessing.normalisation.mean == (0.5,) * 3 and brought.preprocessing.size == 20
    assert normalisation_of(brought.model) == brought.preprocessing.normalisation
    image, label = brought.images(folder, limit=2)[0]
    assert image.shape == (3, 20, 20) and -2 <= image.min() < -1 and 1 < image.max() <= 2
    assert open_model(f"{file}:alone").preprocessing.channels == 1


def test_a_function_in_a_module_of_the_working_directory(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    monkeypatch.delitem(sys.modules, "my_model", raising=False)
    assert open_model("my_model:make_net").model[0].out_channels == 5
    monkeypatch.delitem(sys.modules, "my_model")


@pytest.mark.slow
def test_names_and_networks_open_as_before():
    scenes = open_model("concept_scenes")
    assert (
        scenes.preprocessing.size == 64
        and scenes.preprocessing.normalisation == type(scenes.model).normalisation
    )
    brought = open_model("resnet18", size=32)
    assert brought.preprocessing.normalisation == IMAGENET and brought.preprocessing.size == 32
    assert open_model("squeezenet1_1").preprocessing.size == 224
    assert open_model("inception_v3").preprocessing.size == 299
    again = open_model("resnet18", seed=1)
    assert model_fingerprint(again.model) != model_fingerprint(brought.model)
    net = Blocks().train()
    assert open_model(net).model is net and not net.training


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_wrapped_checkpoint_is_loaded_into_the_function_s_network(tmp_path, suffix):
    trained = trained_cifar()
    state, path = (
        {f"module.{key}": value for key, value in trained.state_dict().items()},
        tmp_path / f"net{suffix}",
    )
    if suffix == ".pth":
        torch.save({"state_dict": state, "epoch": 3}, path)
    else:
        save_file(state, path)
    brought = open_model("helpers.user_networks:cifar", path)
    assert model_fingerprint(brought.model) == model_fingerprint(trained)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(brought.model(images), trained(images))
    assert brought.preprocessing.normalisation.std == CIFAR["std"] and brought.preprocessing.size == 32
    loaded = open_model(CifarResNet(), path, preprocessing=CIFAR)
    assert model_fingerprint(loaded.model) == model_fingerprint(trained)


def test_weights_are_never_executed(tmp_path):
    ran = tmp_path / "ran"

    class Program:
        def __reduce__(self):
            return (open, (str(ran), "w"))

    torch.save({"weight": Program()}, tmp_path / "net.pt")
    with pytest.raises(InputError, match="nothing is unpickled"):
        open_model("helpers.user_networks:cifar", tmp_path / "net.pt")
    assert not ran.exists()


def test_the_function_draws_from_the_seed_and_leaves_the_global_state():
    before = torch.random.get_rng_state()
    first, again, other = (open_model("helpers.user_networks:plain", seed=seed).model for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert model_fingerprint(first) == model_fingerprint(again) != model_fingerprint(other)


def test_what_cannot_be_opened_says_why(file, tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "other.safetensors")
    (tmp_path / "wrong.py").write_text("import not_there_at_all\n")
    (tmp_path / "exits.py").write_text("raise SystemExit(3)\n")
    cases = {
        "`model`.*'nowhere.to' cannot be imported.*a file is given as 'folder/file.py:make'": (
            "nowhere.to:make",
            "",
        ),
        "`model`.*no file .*nowhere.py": ("folder/nowhere.py:make", ""),
        "`model`.*has no function 'make'.*It has make_net, alone, with_nan": (f"{file}:make", ""),
        "`model`.*'helpers.user_networks' has no function 'CIFAR'": ("helpers.user_networks:CIFAR", ""),
        r"`model`.*failed \(RuntimeError: no data here\)": ("helpers.user_networks:broken", ""),
        r"`model`.*returned dict.*Return an nn.Module": ("helpers.user_networks:wrong", ""),
        "`model`.*names a file.*my_model.py:make_net": (str(file), ""),
        "`model`.*cannot be imported.*not_there_at_all": (f"{tmp_path}/wrong.py:make", ""),
        "`model`.*cannot be imported.*SystemExit": (f"{tmp_path}/exits.py:make", ""),
        "`model`.*'resnet81' is neither": ("resnet81", ""),
        r"`weights`.*do not fit 'helpers.user_networks:cifar'.*first 'conv1.weight'.*first 'a'": (
            "helpers.user_networks:cifar",
            tmp_path / "other.safetensors",
        ),
        "`weights`.*not finite, first 'weight'": (f"{file}:with_nan", ""),
    }
    for message, (name, weights) in cases.items():
        with pytest.raises(InputError, match=message):
            open_model(name, weights)
    with pytest.raises(InputError, match="`images`.*empty"):
        open_model("concept_scenes").images("")


def test_untrained_networks_are_built_anew_by_name_and_copied_otherwise(file):
    scenes = open_model("concept_scenes")
    named = load_model("concept_scenes", "random", seed=3)
    assert model_fingerprint(scenes.untrained(3)) == model_fingerprint(named)
    opened = open_model(f"{file}:make_net")
    assert model_fingerprint(opened.untrained(3)) == model_fingerprint(random_copy(opened.model, 3))
    assert normalisation_of(opened.untrained(3)) == opened.preprocessing.normalisation


@pytest.mark.parametrize("notebook", ["04", "05", "06", "07", "shards/mine_shard"])
def test_the_first_cells_of_notebooks_open_a_function_and_a_folder(notebook, file, folder):
    (path,) = (ROOT / "notebooks").glob(f"{notebook}*.ipynb")
    cells = [cell for cell in nbformat.read(path, 4)["cells"] if cell["cell_type"] == "code"]
    parameters = [it["source"] for it in cells if PARAMETER_TAGS & set(it["metadata"].get("tags", []))]
    opening = next(cell["source"] for cell in cells if "open_model(" in cell["source"])
    lines = [
        ast.unparse(statement)
        for statement in ast.parse(opening).body
        if re.search(r"open_model\(|opened\.", ast.unparse(statement))
    ]
    given = {"model": f"{file}:make_net", "images": str(folder), "open_model": open_model}
    names = {"run": SimpleNamespace(device="cpu"), "dataset": None, "loaded": None}
    exec("\n".join(parameters), names)
    exec("\n".join(lines), names | given, found := {})
    dataset = found.get("dataset") or found["loaded"]
    assert found["net"] is found["opened"].model and found["net"](dataset[0][0][None]).shape == (1, 5, 18, 18)


# -- what a network takes is known to all that ask it


@pytest.mark.parametrize(
    "build, more",
    [(Grey, {}), (Dense, {"channels": 1})],
)
def test_grey_networks_and_networks_without_convolutions(build, more, folder):
    torch.manual_seed(0)
    brought = open_model(build(), preprocessing={"mean": 0.2, "std": 0.4, "size": 28, **more})
    assert input_channels(brought.model) == input_channels(copy.deepcopy(brought.model)) == 1
    assert normalisation_of(random_copy(brought.model)).mean == (0.2,)
    image, _ = brought.images(folder)[0]
    assert image.shape == (1, 28, 28) and -0.5 <= image.min() < image.max() <= 2
    layer = "conv" if build is Grey else "first"
    pair = render_pair(Unit(brought.model, layer, 0), steps=4, size=28)
    assert pair.highest.image.shape == (1, 1, 28, 28)
    by_hand = responses(brought.model, layer, (pair.highest.image - 0.2) / 0.4)[:, 0]
    torch.testing.assert_close(pair.highest.response, by_hand.detach())


def test_a_network_may_use_the_name_normalisation_itself():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.normalisation = nn.BatchNorm2d(3)
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.conv(self.normalisation(x)).mean((2, 3))

    brought = open_model(Own(), preprocessing={"mean": 0.3, "std": 0.6, "size": 16})
    assert normalisation_of(brought.model).mean == (0.3,) * 3
    assert brought.model(torch.zeros(1, 3, 16, 16)).shape == (1, 4)
    assert normalisation_of(Own()) == IMAGENET


def test_scenes_for_any_network():
    plain = open_model("concept_scenes").images("concept_scenes", limit=3, seed=4)
    brought = open_model(Grey(), preprocessing={"mean": 0.2, "std": 0.4, "size": 28})
    scenes = brought.images("concept_scenes", limit=3, seed=4)
    assert scenes.images.shape == (3, 1, 28, 28) and torch.equal(scenes.membership, plain.membership)
    assert torch.equal(scenes.presence, plain.presence)
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    grey = (plain.normalisation.undo(plain.images) * weights).sum(1).mean((1, 2))
    torch.testing.assert_close(
        scenes.normalisation.undo(scenes.images).mean((1, 2, 3)), grey, atol=0.01, rtol=0
    )


def test_scenes_are_enlarged_whole():
    plain = open_model("concept_scenes").images("concept_scenes", limit=2, seed=4)
    brought = open_model(Blocks(), preprocessing={"mean": 0, "std": 1, "size": 128})
    scenes = brought.images("concept_scenes", limit=2, seed=4)
    whole = nn.functional.interpolate(plain.normalisation.undo(plain.images), size=128, mode="bilinear")
    assert (scenes.images - whole).abs().mean() < 0.01


def test_stacked_images_are_the_images(folder, tmp_path):
    dataset = open_model(CifarResNet(), preprocessing=CIFAR).images(folder)
    stack = stack_images(dataset, tmp_path / "cache")
    assert torch.equal(stack.take([3, 0]), torch.stack([dataset[3][0], dataset[0][0]]))


def test_the_function_itself_will_do():
    def make():
        return torch.nn.Conv2d(1, 2, 3), {"mean": 0.5, "std": 0.5, "size": 9}

    brought = open_model(make)
    assert brought.preprocessing.size == 9 and brought.name.endswith(":make")
    assert str(brought.preprocessing).startswith("L, 9 x 9 px") and "mean 0.5, sd 0.5" in str(
        brought.preprocessing
    )


def test_no_name_is_an_error_that_says_what_to_give():
    with pytest.raises(InputError, match="`model`: it is empty.*file.py:function"):
        open_model(" ")


# -- how many channels a network takes


class HeadFirst(nn.Module):
    """Registered in another order than it runs."""

    def __init__(self, channels=3):
        super().__init__()
        self.head, self.stem = nn.Conv2d(16, 4, 1), nn.Conv2d(channels, 16, 3)

    def forward(self, images):
        return self.head(self.stem(images).relu()).mean((2, 3))


class EdgesFirst(nn.Module):
    """A branch on the grey image comes before the one that sees the colours."""

    def __init__(self):
        super().__init__()
        self.edges, self.stem, self.fc = nn.Conv2d(1, 4, 3), nn.Conv2d(3, 12, 3), nn.Linear(16, 4)

    def forward(self, images):
        grey = images.mean(1, keepdim=True)
        return self.fc(torch.cat([self.edges(grey), self.stem(images)], 1).relu().mean((2, 3)))


class Gathered(nn.Module):
    """Lays each square of 2 x 2 pixels into channels before its first convolution."""

    def __init__(self, channels=3):
        super().__init__()
        self.gather, self.stem = nn.PixelUnshuffle(2), nn.Conv2d(4 * channels, 8, 3)

    def forward(self, images):
        return self.stem(self.gather(images)).mean((2, 3))


class GreyTwice(nn.Module):
    """A grey network with a branch on the mean of its channels, and a head for a fixed size."""

    def __init__(self):
        super().__init__()
        self.edges, self.stem, self.fc = nn.Conv2d(1, 4, 3), nn.Conv2d(1, 4, 3), nn.Linear(8 * 26 * 26, 4)

    def forward(self, images):
        both = self.edges(images.mean(1, keepdim=True)), self.stem(images)
        return self.fc(torch.cat(both, 1).flatten(1))


@pytest.mark.parametrize(
    "build, channels",
    [
        (HeadFirst, 3),
        (lambda: HeadFirst(1), 1),
        (EdgesFirst, 3),
        (Gathered, 3),
        (lambda: Gathered(1), 1),
        (GreyTwice, 1),
        (Grey, 1),
        (lambda: HeadFirst(5), 5),
        (lambda: HeadFirst().bfloat16(), 3),
    ],
)
def test_channels_are_those_of_the_convolution_that_sees_the_image(build, channels):
    net = build().train()
    assert input_channels(net) == channels
    assert net.training and not any(module._forward_pre_hooks for module in net.modules())
    assert len(normalisation_of(net).mean) in (1, channels)
    if channels in (1, 3):
        assert open_model(build, size=32).preprocessing.channels == channels


def test_the_trial_ends_at_the_convolution_that_sees_the_image():
    net, ran = HeadFirst(), []
    net.head.register_forward_hook(lambda *_: ran.append("head"))
    assert input_channels(net) == 3 and not ran


@pytest.mark.slow
def test_networks_whose_head_is_registered_first_are_synthesised_for():
    for build in (HeadFirst, EdgesFirst):
        assert render_pair(Unit(build().eval(), "stem", 1), steps=1, size=32).highest.image.shape[-3:] == (
            3,
            32,
            32,
        )


def test_a_number_of_channels_that_cannot_be_drawn_is_refused_with_the_parameter():
    with pytest.raises(InputError, match="channels 5.*channels="):
        open_model(lambda: HeadFirst(5), size=32)


ENDLESS = """
import time
from torch import nn

def make():
    while True:
        try:
            time.sleep(0.01)
        except Exception:
            pass

def quick():
    return nn.Conv2d(3, 2, 1)
"""


def test_a_function_that_never_returns_is_ended(tmp_path, monkeypatch):
    """Whether it loops when called or when imported, also where it catches every Exception; the timer is as before."""
    monkeypatch.setenv("ABSENCE_MODEL_SECONDS", "0.2")
    file, at_import = tmp_path / "endless.py", tmp_path / "at_import.py"
    file.write_text(ENDLESS)
    at_import.write_text(f"{ENDLESS}\nmake()")
    before = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)
    for name in (f"{file}:make", f"{at_import}:quick"):
        with pytest.raises(InputError, match="`model`.*has not returned after 0.2 s.*ABSENCE_MODEL_SECONDS"):
            open_model(name)
    assert (signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)) == before
    made = open_model(f"{file}:quick").model
    assert isinstance(made, nn.Conv2d)
    with pytest.raises(InputError, match="has not returned"):
        open_model(_endless)


def _endless():
    while True:
        pass


def test_the_time_limit_can_be_taken_off_and_leaves_other_threads_alone(tmp_path, monkeypatch):
    (tmp_path / "endless.py").write_text(ENDLESS)
    name = f"{tmp_path}/endless.py:quick"
    monkeypatch.setenv("ABSENCE_MODEL_SECONDS", "0")
    assert open_model(name).model
    monkeypatch.delenv("ABSENCE_MODEL_SECONDS")
    assert ThreadPoolExecutor(1).submit(open_model, name).result().model
    for given in ("-1", "nan", "soon"):
        monkeypatch.setenv("ABSENCE_MODEL_SECONDS", given)
        with pytest.raises(InputError, match="ABSENCE_MODEL_SECONDS"):
            open_model(name)


def test_weights_that_are_a_pipe_are_refused(tmp_path):
    os.mkfifo(tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match="weights"):
        open_model("squeezenet1_0", tmp_path / "weights.safetensors")
