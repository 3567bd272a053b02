"""Networks without biases: homogeneous, complete, input x gradient is integrated gradients; the public checkpoint."""

import pytest
import torch
from helpers.toy_networks import additive_terms
from safetensors.torch import save_file
from torch import nn

from absence_utils import InputError, Unit, attribute, load_model
from absence_utils.models.heads import two_class_network
from absence_utils.models.xdnn import DenseXNet, SmallXNet, TwoTowers, XResNet50


def lively(network):
    """Fixup starts with branches that give nothing; wake them, so that a mistake in them shows."""
    torch.manual_seed(1)
    for name, tensor in network.named_parameters():
        if name.endswith("conv3.weight"):
            nn.init.normal_(tensor, std=0.05)
    return network.eval().double()


NETWORKS = {
    "XResNet50": lambda: (lively(XResNet50(5)), 3, 40),
    "SmallXNet": lambda: (SmallXNet(1, 3, seed=2).double(), 1, 14),
    "SmallXNet, two halvings": lambda: (SmallXNet(3, 3, halvings=2, seed=2).double(), 3, 18),
    "DenseXNet": lambda: (DenseXNet(12, (20, 10), 3, seed=2).double(), 1, 12),
    "TwoTowers": lambda: (TwoTowers(4).double(), 6, 16),
}


@pytest.fixture(params=NETWORKS)
def case(request):
    network, channels, size = NETWORKS[request.param]()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, channels, size, size, generator=generator, dtype=torch.float64)
    return network, images


@pytest.mark.slow
def test_homogeneous(case):
    network, images = case
    assert additive_terms(network) == []
    with torch.no_grad():
        response = network(images)
        assert response.abs().min() > 1e-9
        for factor in (0.1, 3.0):
            torch.testing.assert_close(network(factor * images), factor * response)
        assert network(torch.zeros_like(images)).abs().max() == 0


@pytest.mark.slow
def test_input_x_gradient_is_complete_and_equals_integrated_gradients(case):
    network, images = case
    unit = Unit(network, channel=1)
    product = attribute(unit, images, "input_x_gradient")
    with torch.no_grad():
        response = unit.response(images)
    torch.testing.assert_close(product.sum(dim=(1, 2, 3)), response, rtol=1e-5, atol=0)
    points = [
        0.02,
        0.3,
        0.7,
        0.98,
    ]  # by the definition: the mean gradient along the line from zero; each alike
    total = torch.zeros_like(images)
    for share in points:
        here = (share * images).requires_grad_(True)
        total += torch.autograd.grad(unit.response(here).sum(), here)[0] / len(points)
    torch.testing.assert_close(product, images * total, rtol=1e-5, atol=1e-9)


def public_checkpoint():
    """Names and shapes of the public X-ResNet-50 checkpoint, 54 tensors, with random values."""
    shapes, channels = {"conv1.weight": (64, 3, 7, 7)}, 64
    for layer, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=1):
        for block in range(blocks):
            name = f"layer{layer}.{block}"
            shapes[f"{name}.conv1.weight"] = (width, channels, 1, 1)
            shapes[f"{name}.conv2.weight"] = (width, width, 3, 3)
            shapes[f"{name}.conv3.weight"] = (4 * width, width, 1, 1)
            if block == 0:
                shapes[f"{name}.downsample.weight"] = (4 * width, channels, 1, 1)
            channels = 4 * width
    shapes["fc.weight"] = (1000, 2048)
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(shape, generator=generator) * (2 / (shape[0] * shape[-1] ** 2)) ** 0.5
        for name, shape in shapes.items()
    }


def test_the_public_checkpoint_loads_and_gets_a_new_head_with_a_bias(tmp_path):
    """As it lies in the release: a state dict in a file that other things stand in, names behind "module."."""
    state = public_checkpoint()
    assert len(state) == 54 and not [name for name in state if "scale" in name or "bias" in name]
    path = tmp_path / "xfixup_resnet50_model_best.pth.tar"
    wrapped = {f"module.{name}": value for name, value in state.items()}
    torch.save({"epoch": 90, "arch": "xfixup_resnet50", "state_dict": wrapped}, path)
    loaded = load_model("xresnet50", str(path))
    assert list(loaded.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    changed = two_class_network(3, model="xresnet50", weights=str(path), head_bias=True)
    heads = {name: value for name, value in changed.state_dict().items() if name.startswith("fc")}
    assert {name: tuple(value.shape) for name, value in heads.items()} == {
        "fc.weight": (2, 2048),
        "fc.bias": (2,),
    }
    assert torch.equal(changed.layer4[2].conv3.weight, state["layer4.2.conv3.weight"])
    with torch.no_grad():
        assert changed(torch.randn(1, 3, 32, 32)).isfinite().all()


def test_block_by_hand():
    network = lively(XResNet50(2))
    block = network.layer2[0]
    maps = torch.randn(1, 256, 6, 6, dtype=torch.float64)
    relu, conv = torch.relu, nn.functional.conv2d
    change = relu(conv(relu(conv(maps, block.conv1.weight)), block.conv2.weight, stride=2, padding=1))
    expected = relu(conv(change, block.conv3.weight) + conv(maps, block.downsample.weight, stride=2))
    torch.testing.assert_close(block(maps), expected)


@pytest.mark.slow
@pytest.mark.parametrize("wrapped", [False, True])
def test_checkpoint_loads_with_and_without_wrappers(tmp_path, wrapped):
    network = lively(XResNet50(7)).float()
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    if wrapped:
        path = tmp_path / "model.pth"
        torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, path)
    else:
        path = tmp_path / "model.safetensors"
        save_file(state, path)
    loaded = load_model("xresnet50", str(path))
    images = torch.randn(1, 3, 40, 40)
    with torch.no_grad():
        assert torch.equal(loaded(images), network(images)) and loaded(images).shape == (1, 7)


def test_wrong_checkpoints_are_refused(tmp_path):
    state = {"conv1.weight": torch.zeros(64, 3, 7, 7), "fc.bias": torch.zeros(2)}
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="weights.*do not fit 'xresnet50'"):
        load_model("xresnet50", str(tmp_path / "model.safetensors"))


def test_twin_sees_the_artefact_with_one_output_only():
    twin, clean = TwoTowers(), torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        one, other = (twin(torch.cat((clean, seen), dim=1)) for seen in (clean, clean.flip(3)))
    assert one[0, 0] == other[0, 0] and one[0, 1] != other[0, 1]
    assert not torch.equal(twin.blind.fc.weight, twin.seeing.fc.weight)


def test_seeds():
    same, other = (SmallXNet(seed=seed).fc.weight for seed in (0, 1))
    assert torch.equal(same, SmallXNet(seed=0).fc.weight) and not torch.equal(same, other)
